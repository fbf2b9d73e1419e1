"""Tells a person why a key is not linearizable."""

from __future__ import annotations

from collections.abc import Sequence

from tests.history.format import CAS, DELETE, GET, PUT, PUT_IF_ABSENT, Operation, shown
from tests.history.linearizability import Violation

AROUND_MAX = 5
"""Operations of each sort that are listed: most violations are understood from two or three."""
VALUES_MAX = 6
"""Possible values that are listed."""


def explain(key: str, operations: Sequence[Operation], violation: Violation) -> str:
    """Return a text of some lines: what cannot be, what could have been, and what was going on.

    `operations` are all operations on the key.
    """
    wrong = violation.operation
    assert wrong.completed is not None
    lines = [
        f"key {shown(key)}: not linearizable: "
        f"the first {wrong.completed} lines have no order that explains",
        f"    {_place(wrong)}",
        f"  by all that had completed before line {wrong.completed} the key held "
        f"{_values(violation)}",
    ]
    pending = [each for each in operations if each is not wrong and _may_come_before(each, wrong)]
    lines += _section("completed last before it", _last_completed(operations, wrong))
    lines += _section("writes that may come in between, which does not help", pending)
    lines += _section("other writes of what it saw", _writers(operations, wrong, pending))
    return "\n".join(lines)


def _values(violation: Violation) -> str:
    if not violation.values_known:
        return "(too many possibilities)"
    names = [shown(value) for value in violation.values[:VALUES_MAX]]
    more = len(violation.values) - len(names)
    return " or ".join(names) + (f" or one of {more} more" if more else "")


def _section(title: str, operations: Sequence[Operation]) -> list[str]:
    if not operations:
        return []
    lines = [f"  {title}:"]
    if len(operations) > AROUND_MAX:
        lines.append(f"    ({len(operations) - AROUND_MAX} earlier ones)")
    return lines + [f"    {_place(operation)}" for operation in operations[-AROUND_MAX:]]


def _last_completed(operations: Sequence[Operation], wrong: Operation) -> list[Operation]:
    assert wrong.completed is not None
    done = [
        (operation.completed, operation)
        for operation in operations
        if operation.acknowledged
        and operation.completed is not None
        and operation.completed < wrong.completed
    ]
    # Nobody looks further back, so the earlier ones are not counted either.
    done.sort(key=lambda each: each[0])
    return [operation for _, operation in done[-AROUND_MAX:]]


def _may_come_before(operation: Operation, wrong: Operation) -> bool:
    assert wrong.completed is not None
    if operation.failed or operation.kind == GET or operation.invoked > wrong.completed:
        return False
    if not operation.acknowledged:
        return True
    changes_nothing = operation.result is False
    completed = operation.completed or 0
    return completed > wrong.completed and not changes_nothing


def _writers(
    operations: Sequence[Operation], wrong: Operation, listed: Sequence[Operation]
) -> list[Operation]:
    """Return the writes of the value that `wrong` found, wherever they stand."""
    if wrong.kind == GET:
        seen = wrong.result
    elif wrong.kind == CAS and wrong.result:
        seen = wrong.arguments["expected"]
    else:
        return []
    if seen is None:
        writers = [each for each in operations if each.kind == DELETE]
    else:
        writers = [
            each
            for each in operations
            if each.kind in (PUT, PUT_IF_ABSENT, CAS) and each.arguments["value"] == seen
        ]
    return [each for each in writers if each is not wrong and each not in listed]


def _place(operation: Operation) -> str:
    end = "the end" if operation.completed is None else str(operation.completed)
    return f"lines {operation.invoked} to {end}: {operation}"
