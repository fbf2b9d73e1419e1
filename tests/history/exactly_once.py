"""Were the appends to a key carried out exactly once, and in order?

A value that grows by unique tokens keeps its whole past, so that its last state shows a lost, a
repeated and a reordered append alike. Sources: dissertation section 6.3 (sessions make commands
happen once), and the append tests of Jepsen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.history.format import Final, Operation, shown

SHOWN_MAX = 5
"""Problems of one sort and one key that are told in full: one cause often breaks many tokens."""


def check_exactly_once(
    key: str, appends: Sequence[Operation], finals: Sequence[Final]
) -> tuple[str, ...]:
    """Return what is wrong with the appends to `key`, one text for each sort of problem.

    `appends` are all operations on the key. Without any acknowledged append there need not be a
    final value, since there is nothing that must have happened. With one, its lack is all that is
    told.
    """
    acknowledged = [append for append in appends if append.acknowledged]
    if not finals:
        if not acknowledged:
            return ()
        return (
            f"error in the history: key {shown(key)} has {len(acknowledged)} acknowledged appends "
            f"and no final value, so they cannot be judged",
        )
    final = finals[0]
    late = [append for append in acknowledged if (append.completed or 0) > final.line]
    problems = {
        "error in the history: final values differ": differences(finals),
        "error in the history: acknowledged after the final value": (
            place(append) for append in late
        ),
    }
    tokens = final.value.split(" ") if final.value else []
    by_token = {append.token: append for append in appends}
    counts = Counter(tokens)
    problems |= {
        "tokens are separated by single spaces, but the final value has an empty one": (
            f"at token {index}" for index, token in enumerate(tokens, start=1) if not token
        ),
        "acknowledged, but missing": (
            place(append)
            for append in acknowledged
            if append not in late and append.token not in counts
        ),
        "there more than once": (
            f"{shown(token)} {count} times" + (f" ({place(by_token[token])})" * (token in by_token))
            for token, count in counts.items()
            if token and count > 1
        ),
        "failed, but there": (
            place(append) for append in appends if append.failed and append.token in counts
        ),
        "there, but appended by nobody": (
            shown(token) for token in counts if token and token not in by_token
        ),
        "out of order": _reorderings(tokens, by_token),
    }
    return tuple(
        told for title, found in problems.items() if (told := text(key, title, list(found)))
    )


def differences(finals: Sequence[Final]) -> Iterator[str]:
    """Yield the final values that are not the first one."""
    for final in finals[1:]:
        if final.value != finals[0].value:
            yield (
                f"{shown(finals[0].value)} in line {finals[0].line}, "
                f"{shown(final.value)} in line {final.line}"
            )


def _reorderings(tokens: Sequence[str], by_token: dict[str, Operation]) -> Iterator[str]:
    # Of all tokens to the right of the one that is looked at, the one that was acknowledged first:
    # if it does not contradict the order, no other one does.
    first: tuple[int, Operation] | None = None
    found = []
    # A token that is repeated stands where it stood first; that it is repeated is told elsewhere.
    for token in reversed(dict.fromkeys(tokens)):
        append = by_token.get(token)
        if append is None:
            continue
        if first is not None and first[0] < append.invoked:
            found.append(
                f"{place(append)} stands before {place(first[1])}, "
                f"which was acknowledged before it was invoked"
            )
        if append.acknowledged and append.completed is not None:
            candidate = (append.completed, append)
            first = candidate if first is None or candidate[0] < first[0] else first
    yield from reversed(found)


def place(append: Operation) -> str:
    """Return an operation with its lines."""
    completion = "" if append.completed is None else f" to {append.completed}"
    return f"{append} (lines {append.invoked}{completion})"


def text(key: str, title: str, found: list[str]) -> str:
    """Return the problems of one sort as one text; empty if there are none."""
    if not found:
        return ""
    lines = [f"key {shown(key)}: {title}:", *(f"  {each}" for each in found[:SHOWN_MAX])]
    if len(found) > SHOWN_MAX:
        lines.append(f"  and {len(found) - SHOWN_MAX} more")
    return "\n".join(lines)
