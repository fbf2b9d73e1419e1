"""Changes of the membership in the log for people, phase by phase, with both halves.

A leader tells what an operation does; every server tells which configurations it knows to be
committed, those of before its own time left out.
"""

from __future__ import annotations

import logging

from raftd.commands import JOINING, Operation
from raftd.core.leader import Leader
from raftd.core.membership import ConfigurationEntry
from raftd.core.raft import Raft
from raftd.core.types import Index, ServerId
from raftd.event_log import tell
from raftd.log_words import milliseconds, rule
from raftd.planning import names

logger = logging.getLogger("raftd.operations")


def operation_begins(operation: Operation, index: Index) -> None:
    """Say that this leader drives an operation from now on, begun by it or by an earlier leader."""
    plan = operation.plan
    change = f"voters {{{names(plan.voters_before)}}}"
    if frozenset(plan.voters_before) != frozenset(plan.voters_after):
        change += f" to become {{{names(plan.voters_after)}}}"
    if frozenset(plan.learners_before) != frozenset(plan.learners_after):
        change += f", learners {{{names(plan.learners_after)}}}"
    if plan.moved:
        change += f", at other addresses {names(plan.moved)}"
    asked_by = f"asked by {operation.author or 'unknown'}"
    asked_by += f": {operation.reason}" if operation.reason else ""
    step = "begins" if operation.phase == JOINING else f"goes on in phase {operation.phase}"
    _tell(operation, operation.phase, f"{step}: {change}; {asked_by}", index=index)


def learners_appended(operation: Operation, index: Index) -> None:
    """Say that the servers that an operation brings in receive the log from now on."""
    new = operation.plan.addresses
    learn = "receives the log as a learner" if len(new) == 1 else "receive the log as learners"
    _tell(operation, operation.phase, f"{names(new)} {learn}", index=index)


def change_appended(
    raft: Raft, operation: Operation, took_ms: float, rounds: dict[ServerId, int]
) -> None:
    """Say that all have caught up and which configuration is in force from now on.

    Args:
        took_ms: since this leader has driven the operation.
        rounds: how many catch-up rounds each new server took.
    """
    latest = raft.configuration
    assert latest is not None
    words = f"{latest.entry.kind.value} configuration {latest.index} is in force: "
    words += rule(latest.configuration)
    if rounds:
        count = max(rounds.values())
        words = (
            f"{names(rounds)} caught up after {milliseconds(took_ms)}, in {count} "
            f"{'round' if count == 1 else 'rounds'}; {words}"
        )
    _tell(operation, "appended", words, index=latest.index, took_ms=round(took_ms))


def operation_undone(operation: Operation, outcome: str, reason: str) -> None:
    """Say that an operation ends without having done what it was for."""
    _tell(operation, outcome, f"{outcome}: {reason}", level=logging.WARNING)


def _tell(
    operation: Operation,
    phase: str,
    words: str,
    *,
    level: int = logging.INFO,
    index: Index | None = None,
    **fields: object,
) -> None:
    more = fields if index is None else {"index": index, **fields}
    tell(
        logger,
        "operation",
        "%s (%s): %s",
        operation.id,
        operation.kind,
        words,
        level=level,
        operation=operation.id,
        operation_kind=operation.kind,
        phase=phase,
        **more,
    )


class ConfigurationLog:
    """Tells which configurations are committed."""

    def __init__(self, known_index: Index) -> None:
        """Begin.

        Args:
            known_index: the last entry that was there at the start: what came before was told by an
                earlier process.
        """
        self._known_index = known_index

    def applied(self, raft: Raft, index: Index, entry: ConfigurationEntry) -> None:
        """Say that a configuration is committed, if it came in this server's time here."""
        configuration = entry.configuration
        is_ours = raft.server in configuration.members or raft.server in entry.left_out
        if index <= self._known_index or not is_ours:
            return
        words = f"configuration {index} ({entry.kind.value}) is committed: {rule(configuration)}"
        if configuration.learners:
            words += f"; learners {names(configuration.learners)}"
        if entry.tombstones:
            words += f"; removed for good: {names(entry.tombstones)}"
        if entry.operation:
            words += f"; {entry.operation} "
            words += (
                f"is {entry.outcome}" if entry.outcome == "done" else entry.outcome or "goes on"
            )
        undone = entry.outcome not in ("", "done")
        if undone and isinstance(raft.role, Leader):
            # A leader that undoes a change by itself has told nobody why.
            words += f": {entry.reason}"
        tell(
            logger,
            "configuration",
            "%s",
            words,
            level=logging.WARNING if undone else logging.INFO,
            index=index,
            kind=entry.kind.value,
            operation=entry.operation,
            outcome=entry.outcome,
            voters=sorted(configuration.voters),
            outgoing=sorted(configuration.outgoing),
            learners=sorted(configuration.learners),
        )
