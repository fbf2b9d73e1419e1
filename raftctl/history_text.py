"""How the history of configurations looks: for people, grouped by operation, and as JSON.

Newest first, as in the log of a version control system. Each operation has a headline: what, who,
why, how it ended, and how long its phases took; its configurations stand beneath.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from raftctl.render import (
    COLUMN_GAP,
    Style,
    clock,
    cut,
    display_names,
    duration,
    natural_key,
    number,
    printable,
    table,
    width_of,
)
from raftd.commands import ABORTED, DONE, ENDED, FAILED, ConfigurationRecord, PhaseAt
from raftd.core.types import ServerId, server_name

HEADERS = ("INDEX", "TERM", "WHEN", "LEADER", "CONFIGURATION")
INDENT = "  "
WRAP_COLUMNS_MIN = 20
"""What the last column gets on any terminal, however narrow."""
OUTCOME_COLORS = {DONE: "green", FAILED: "red", ABORTED: "yellow"}


@attrs.frozen(kw_only=True)
class Shown:
    """A configuration, and the one before it where that is known."""

    record: ConfigurationRecord
    before: ConfigurationRecord | None


def paired(records: Sequence[ConfigurationRecord], count: int) -> list[Shown]:
    """Return the first `count` of `records`, which are the newest first, each with its predecessor.

    Args:
        records: one more than `count` if there are more.
        count: how many are shown.
    """
    older: list[ConfigurationRecord | None] = [*records[1:], None]
    return [
        Shown(record=record, before=before)
        for record, before in zip(records[:count], older, strict=False)
    ]


# --- what has changed -------------------------------------------------------------------------


def change(shown: Shown) -> str:
    """Return in a few words what a configuration is beside the one before: `joint: +n4 -n3`."""
    record, before = shown.record, shown.before
    names = display_names([*_members(record), *(_members(before) if before else ())])

    def listed(servers: Iterable[ServerId]) -> str:
        return " ".join(sorted((names[server] for server in servers), key=natural_key))

    match record.kind:
        case "bootstrap":
            words = f"founded with {listed(record.voters)}"
            if before is not None:
                words += ", to go on from a backup"
        case "joint":
            words = _signed(record, before, names)
            words += f"; ({listed(record.outgoing)}) and ({listed(record.voters)}) decide"
        case "final":
            words = f"{listed(record.voters)} decide{'s alone' if len(record.voters) == 1 else ''}"
            words += _learners(record, listed)
        case "abort":
            words = f"{listed(record.voters)} again{_learners(record, listed)}"
        case _ if before is not None:
            words = _signed(record, before, names)
        case _:
            words = f"voters {listed(record.voters)}{_learners(record, listed)}"
    return f"{record.kind}: {words}"


def _signed(
    record: ConfigurationRecord, before: ConfigurationRecord | None, names: dict[ServerId, str]
) -> str:
    """Return who comes and who goes, in which role, and who moves: `+n4 -n3`."""
    if record.outgoing:
        voters_before = set(record.outgoing)
    else:
        voters_before = set(before.voters) if before is not None else set(record.voters)
    learners_before = set(before.learners) if before is not None else set(record.learners)
    voters = set(record.voters)
    learners = {*record.learners, *record.learners_next}
    joining = learners - learners_before - voters_before
    demoted = (voters_before & learners) - voters
    gone = (voters_before | learners_before) - voters - learners
    parts = [
        " ".join(_named("+", voters - voters_before, names) + _named("-", gone, names)),
        _counted(_named("+", joining, names), "as learner", "as learners"),
        _counted(_named("", demoted, names), "becomes a learner", "become learners"),
    ]
    if before is not None:
        parts += [
            f"{names[server]} at {address} (was {before.addresses[server]})"
            for server, address in sorted(record.addresses.items())
            if before.addresses.get(server, address) != address
        ]
    return ", ".join(filter(None, parts)) or "the same servers"


def _named(sign: str, servers: Iterable[ServerId], names: dict[ServerId, str]) -> list[str]:
    return [sign + name for name in sorted((names[server] for server in servers), key=natural_key)]


def _counted(names: list[str], one: str, many: str) -> str:
    return f"{' '.join(names)} {one if len(names) == 1 else many}" if names else ""


def _learners(record: ConfigurationRecord, listed: Callable[[Iterable[ServerId]], str]) -> str:
    return f", learners {listed(record.learners)}" if record.learners else ""


def _members(record: ConfigurationRecord) -> tuple[ServerId, ...]:
    # An address may be known of a server that is listed no more.
    return (
        *record.voters,
        *record.outgoing,
        *record.learners,
        *record.learners_next,
        *record.addresses,
    )


# --- operations -------------------------------------------------------------------------------


def took(phases: Sequence[PhaseAt]) -> list[tuple[PhaseAt, int | None]]:
    """Return each phase with its length in milliseconds; None for one that went on.

    The clocks of two leaders may differ: no length is negative.
    """
    ends: list[PhaseAt | None] = [*phases[1:], None]
    return [
        (phase, None if end is None else max(0, end.time_ms - phase.time_ms))
        for phase, end in zip(phases, ends, strict=False)
        if phase.phase != ENDED
    ]


def _outcome(group: Sequence[Shown]) -> ConfigurationRecord | None:
    """Return the configuration that ended an operation: what comes after it belongs to it still."""
    ended = [shown.record for shown in group if shown.record.outcome]
    return ended[-1] if ended else None


def _headline(group: Sequence[Shown], paint: Style, *, is_newest: bool) -> tuple[str, str]:
    """Return what an operation was and how it ended, and how long each phase took."""
    newest = group[0].record
    if not newest.operation:
        return "", ""
    kind = newest.operation_kind or "an operation that is not on record any more"
    if newest.parent:
        kind += f" (a step of {newest.parent})"
    ended = _outcome(group)
    phases = took(newest.phases)
    parts = [f"{phase.phase} {duration(length)}" for phase, length in phases if length is not None]
    total = sum(length for _, length in phases if length is not None)
    if ended is not None:
        verb = "in" if ended.outcome == DONE else "after"
        state = paint(ended.outcome, OUTCOME_COLORS.get(ended.outcome, "yellow"))
        state += f" {verb} {duration(total)}" if parts else ""
    elif is_newest and phases:
        state = f"{paint('running', 'yellow')}, {phases[-1][0].phase}"
    else:
        state = "went on"
    return f"{paint(newest.operation, 'bold')}  {kind}, {state}", ", ".join(parts)


def _story(group: Sequence[Shown]) -> list[str]:
    """Return who wanted an operation and why, and why it did not come to that."""
    author = next((shown.record.author for shown in group if shown.record.author), "")
    ended = _outcome(group)
    undone = ended is not None and ended.outcome != DONE
    wanted = next(
        (
            shown.record.reason
            for shown in reversed(group)
            if shown.record.outcome in ("", DONE) and shown.record.reason
        ),
        "",
    )
    lines = []
    if author or wanted:
        lines.append(" ".join(filter(None, (author and f"by {author}", wanted and f"({wanted})"))))
    if undone and ended is not None and ended.reason:
        lines.append(f"{ended.outcome} because: {ended.reason}")
    return [printable(line) for line in lines]


def grouped(shown: Sequence[Shown]) -> list[list[Shown]]:
    """Return the configurations by operation, in their order; one without any is by itself."""
    groups: list[list[Shown]] = []
    for one in shown:
        operation = one.record.operation
        if groups and operation and groups[-1][0].record.operation == operation:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


# --- text -------------------------------------------------------------------------------------


def text(shown: Sequence[Shown], *, width: int | None, paint: Style, from_newest: bool) -> str:
    """Return the history for people.

    Args:
        shown: at least one configuration, the newest first.
        width: of the terminal, in columns; None for no limit.
        paint: colours, or none of them.
        from_newest: whether the first one is the newest of all.
    """
    heads, is_narrow, later = _heads(shown, width)
    changes = iter(zip(heads[1:], shown, strict=True))
    out = [paint(heads[0], "dim")]
    for order, group in enumerate(grouped(shown)):
        headline, phases = _headline(group, paint, is_newest=from_newest and order == 0)
        if headline:
            beneath = [phases] if phases else []
            out += ["", headline]
            for sentence in [*beneath, *_story(group)]:
                out += _wrapped(sentence, width, first=INDENT * 2, later=INDENT * 2)
        else:
            out.append("")
        for head, one in itertools.islice(changes, len(group)):
            words = printable(change(one))
            if is_narrow:
                out += [head, *_wrapped(words, width, first=later, later=later)]
            else:
                out += _wrapped(words, width, first=head, later=later)
    return "\n".join(out)


def _heads(shown: Sequence[Shown], width: int | None) -> tuple[list[str], bool, str]:
    """Return what stands before each change, beginning with the headers.

    Also whether the change has lines of its own, since the terminal is narrow, and its indent.
    """
    rows = [
        (
            number(one.record.index),
            str(one.record.term) if one.record.term else "?",
            clock(one.record.time_ms),
            server_name(one.record.leader),
        )
        for one in shown
    ]

    def laid_out(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
        lines = table(headers, cells, right=("INDEX", "TERM")).splitlines()
        return [INDENT + line for line in lines]

    before, last = HEADERS[:-1], HEADERS[-1]
    lines = laid_out(before, rows)
    columns = max(map(width_of, lines))
    if width is None or columns + len(COLUMN_GAP) + WRAP_COLUMNS_MIN <= width:
        padded = [f"{line:<{columns}}{COLUMN_GAP}" for line in lines]
        return [padded[0] + last, *padded[1:]], False, " " * len(padded[0])
    if columns > width:
        # Without the term, which says least to a person.
        lines = laid_out((before[0], *before[2:]), [(row[0], *row[2:]) for row in rows])
    return [cut(line, width) for line in lines], True, INDENT * 2


def _wrapped(sentence: str, width: int | None, *, first: str, later: str) -> list[str]:
    if width is None:
        return [first + sentence]
    return textwrap.wrap(
        sentence,
        max(width, len(first) + WRAP_COLUMNS_MIN),
        initial_indent=first,
        subsequent_indent=later,
        break_on_hyphens=False,
        break_long_words=False,
    )


# --- JSON -------------------------------------------------------------------------------------


def document(shown: Shown) -> dict[str, Any]:
    """Return a configuration as JSON has it: names, and full ids where a name is there twice."""
    record = shown.record
    names = display_names([*_members(record), *record.removed])

    def listed(servers: Iterable[ServerId]) -> list[str]:
        return [names[server] for server in servers]

    return {
        "index": record.index,
        "term": record.term or None,
        "time_ms": record.time_ms,
        "leader": server_name(record.leader),
        "kind": record.kind,
        "change": change(shown),
        "voters": listed(record.voters),
        "outgoing": listed(record.outgoing),
        "learners": listed(record.learners),
        "addresses": {names[server]: address for server, address in record.addresses.items()},
        "removed": listed(record.removed),
        "operation": record.operation or None,
        "operation_kind": record.operation_kind,
        "parent": record.parent or None,
        "outcome": record.outcome or None,
        "author": record.author,
        "reason": record.reason,
        "phases": [
            {
                "phase": phase.phase,
                "index": phase.index,
                "time_ms": phase.time_ms,
                "took_ms": length,
            }
            for phase, length in took(record.phases)
        ],
    }
