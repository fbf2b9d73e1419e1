"""Judges a history: registers by linearizability, append keys and counters by exactly-once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from tests.history.counting import check_counting
from tests.history.exactly_once import check_exactly_once
from tests.history.explanation import explain
from tests.history.format import INCREMENT, NO_REGISTERS, read_history, shown
from tests.history.linearizability import Undecided, Violation, search


@attrs.frozen
class Verdict:
    """What a history says about the system it was recorded from."""

    ok: bool
    """No problem and nothing undecided."""
    problems: tuple[str, ...]
    """Each one several lines for a person, starting with its key."""
    operations: int
    """Invoked operations, whatever became of them."""
    keys: int
    undecided: tuple[str, ...]
    """Keys whose search was given up at its bound, and where. They count as not ok."""
    missing: tuple[str, ...] = ()
    """Those of the problems that say what the history lacks, and nothing about the system."""


def check(events: Iterable[Mapping[str, Any]]) -> Verdict:
    """Judge the events of one history, in real-time order.

    Raises:
        HistoryError: the events are not a history; the message says which and why.
    """
    history = read_history(events)
    problems: list[str] = []
    undecided: list[str] = []
    missing: list[str] = []
    for key in history.keys:
        operations = history.operations.get(key, [])
        if key in history.finals or operations[0].kind in NO_REGISTERS:
            is_counter = bool(operations) and operations[0].kind == INCREMENT
            judge = check_counting if is_counter else check_exactly_once
            found = judge(key, operations, history.finals.get(key, []))
            problems += found
            if key not in history.finals:
                missing += found
            continue
        outcome = search(operations)
        if isinstance(outcome, Violation):
            problems.append(explain(key, operations, outcome))
        elif isinstance(outcome, Undecided):
            undecided.append(
                f"key {shown(key)}: given up at line {outcome.line} "
                f"after {outcome.visited:,} states: neither right nor wrong"
            )
    return Verdict(
        ok=not problems and not undecided,
        problems=tuple(problems),
        operations=history.operation_count,
        keys=len(history.keys),
        undecided=tuple(undecided),
        missing=tuple(missing),
    )
