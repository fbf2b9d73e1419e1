"""Was every increment of a counter carried out exactly once, and in order?

Each adds one and is answered with the number that it has led to. So the numbers say in which order
the increments were carried out, and those that nobody was told belong to increments whose outcome
is unknown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from tests.history.exactly_once import differences, place, text
from tests.history.format import Final, Operation, shown


def check_counting(
    key: str, increments: Sequence[Operation], finals: Sequence[Final]
) -> tuple[str, ...]:
    """Return what is wrong with the increments of `key`, one text for each sort of problem.

    Without any acknowledged increment there need not be a final value. With one, its lack is all
    that is told.
    """
    acknowledged = [each for each in increments if each.acknowledged]
    if not finals:
        if not acknowledged:
            return ()
        return (
            f"error in the history: key {shown(key)} has {len(acknowledged)} acknowledged "
            "increments and no final value, so they cannot be judged",
        )
    final = finals[0]
    possible = [each for each in increments if not each.failed]
    in_time = [each for each in acknowledged if (each.completed or 0) < final.line]
    problems = {
        "error in the history: final values differ": differences(finals),
        "answered with the same number": _repeated(acknowledged),
        "more than had been asked for by then": _too_great(acknowledged, possible),
        "out of order": _reordered(acknowledged),
        "the final value": _final(final, in_time, possible),
    }
    return tuple(
        told for title, found in problems.items() if (told := text(key, title, list(found)))
    )


def _repeated(acknowledged: Sequence[Operation]) -> Iterator[str]:
    first: dict[int, Operation] = {}
    for each in acknowledged:
        earlier = first.setdefault(each.result, each)
        if earlier is not each:
            yield f"{place(earlier)} and {place(each)}"


def _too_great(acknowledged: Sequence[Operation], possible: Sequence[Operation]) -> Iterator[str]:
    invoked = sorted(each.invoked for each in possible)
    for each in acknowledged:
        count = bisect_left(invoked, each.completed or 0)
        if not 1 <= each.result <= count:
            yield f"{place(each)}: there were {count}"


def _reordered(acknowledged: Sequence[Operation]) -> Iterator[str]:
    by_completion = sorted(acknowledged, key=lambda each: each.completed or 0)
    greatest: Operation | None = None
    position = 0
    for each in sorted(acknowledged, key=lambda each: each.invoked):
        while (by_completion[position].completed or 0) < each.invoked:
            candidate = by_completion[position]
            if greatest is None or candidate.result > greatest.result:
                greatest = candidate
            position += 1
        if greatest is not None and greatest.result >= each.result:
            yield f"{place(greatest)} was acknowledged before {place(each)} was invoked"


def _final(
    final: Final, in_time: Sequence[Operation], possible: Sequence[Operation]
) -> Iterator[str]:
    try:
        count = int(final.value or "0")
    except ValueError:
        yield f"is {final.value!r}, which is no number"
        return
    if count < len(in_time):
        yield f"is {count}, and {len(in_time)} increments were acknowledged before"
    if count > len(possible):
        yield f"is {count}, and at most {len(possible)} increments may have been carried out"
    greatest = max((each.result for each in in_time), default=0)
    if count < greatest:
        yield f"is {count}, and {greatest} was answered before"
