"""Linearizability by its definition: try the orders one by one. For small histories only.

It shares nothing with the search but the operations: no values are merged, nothing is placed just
in time, no configuration makes another one superfluous.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from tests.history.format import CAS, DELETE, GET, PUT, PUT_IF_ABSENT, Operation


def execute(operation: Operation, value: str | None) -> tuple[str | None, object]:
    """Return what a register that holds `value` holds after `operation`, and what it answers."""
    arguments = operation.arguments
    if operation.kind == GET:
        return value, value
    if operation.kind == PUT:
        return arguments["value"], None
    if operation.kind == DELETE:
        return None, None
    if operation.kind == PUT_IF_ABSENT:
        return (arguments["value"], True) if value is None else (value, False)
    assert operation.kind == CAS
    return (arguments["value"], True) if value == arguments["expected"] else (value, False)


def may_come_first(operation: Operation, others: Sequence[Operation]) -> bool:
    """Return whether none of `others` was acknowledged before `operation` was invoked."""
    return not any(
        other.acknowledged and other.completed is not None and other.completed < operation.invoked
        for other in others
    )


def linearizable_by_permutations(operations: Sequence[Operation]) -> bool:
    """Try every order of the operations, with each unknown one in it or left out."""

    def complete(rest: list[Operation], value: str | None) -> bool:
        if not any(operation.acknowledged for operation in rest):
            return True
        for operation in rest:
            others = [other for other in rest if other is not operation]
            if not may_come_first(operation, others):
                continue
            after, answer = execute(operation, value)
            if operation.acknowledged and answer != operation.result:
                continue
            if complete(others, after):
                return True
        return False

    return complete([each for each in operations if not each.failed], None)


def linearizable_by_memo(operations: Sequence[Operation]) -> bool:
    """Do the same, but try each pair of remaining operations and value only once."""
    present = [each for each in operations if not each.failed]

    @cache
    def complete(rest: frozenset[int], value: str | None) -> bool:
        if not any(present[index].acknowledged for index in rest):
            return True
        for index in rest:
            others = rest - {index}
            if not may_come_first(present[index], [present[other] for other in others]):
                continue
            after, answer = execute(present[index], value)
            if present[index].acknowledged and answer != present[index].result:
                continue
            if complete(others, after):
                return True
        return False

    return complete(frozenset(range(len(present))), None)
