"""Changes of the cluster, as JSON has them: what they are to do, and how far they are."""

from __future__ import annotations

import re
from typing import Any

import attrs

from raftd.cluster_status.members import display_names
from raftd.cluster_status.words import natural_key, printable
from raftd.commands import ROLLING_RESTART, Operation, Rolling, RollingStep
from raftd.core.types import ServerId, server_name
from raftd.protocol import MajorityView, OperationView, PeerView

RECEIVING, INSTALLING, ENTRIES = "receiving", "installing", "entries"
"""The parts of a server's way, see `part_of`."""


def summary(record: Operation) -> str:
    """Return what the operation is to do, in a few words: `replace n3 by n4`."""
    if record.rolling is not None:
        return rolling_summary(record)
    names = _plan_names(record)
    added = [names[server] for role, server in record.plan.changes if role != "remove"]
    removed = [names[server] for role, server in record.plan.changes if role == "remove"]
    moved = [server_name(server) for server in record.plan.moved]
    if record.kind == "replace":
        return f"replace {' '.join(removed)} by {' '.join(added)}"
    if record.kind == "apply":
        return f"apply {' '.join(_signed(record, names))}"
    return f"{record.kind} {' '.join(added + removed + moved)}"


def _signed(record: Operation, names: dict[ServerId, str]) -> list[str]:
    """Return who comes, goes and changes: `+n4 -n3 ~n2`."""
    plan = record.plan
    signs = {names[server]: "~" for _, server in plan.changes}
    signs |= {server_name(server): "~" for server in plan.moved}
    signs |= {names[server]: "+" for _, server in plan.changes if server in plan.addresses}
    signs |= {names[server]: "-" for role, server in plan.changes if role == "remove"}
    order = sorted(signs, key=lambda name: ("+-~".index(signs[name]), natural_key(name)))
    return [f"{signs[name]}{name}" for name in order]


def _plan_names(record: Operation) -> dict[ServerId, str]:
    plan = record.plan
    changed = [server for _, server in plan.changes]
    return display_names([*changed, *plan.voters_before, *plan.learners_before])


def operation_document(view: OperationView) -> dict[str, Any]:
    """Return an operation as JSON has it."""
    record, plan = view.record, view.record.plan
    names = _plan_names(record)
    document: dict[str, Any] = {
        "id": record.id,
        "kind": record.kind,
        "summary": summary(record),
        "author": record.author,
        "reason": record.reason,
        "phase": record.phase,
        "result": record.result or None,
        "explanation": record.explanation,
        "story": [{"part": part, "text": text} for part, text in story_of(record)],
        "changes": [
            {"id": names[server], "role": role, "address": plan.addresses.get(server, "")}
            for role, server in plan.changes
        ]
        + [
            {"id": server_name(server), "role": "readdress", "address": address}
            for server, address in plan.moved.items()
        ],
        "voters_before": [names.get(server, server) for server in plan.voters_before],
        "voters_after": [names.get(server, server) for server in plan.voters_after],
        "learners_before": [names.get(server, server) for server in plan.learners_before],
        "learners_after": [names.get(server, server) for server in plan.learners_after],
        "configuration_index": record.configuration_index,
        "phases": [attrs.asdict(phase) for phase in record.phases],
        "abort_requested_by": record.abort_requested_by,
        "abort_reason": record.abort_reason,
    }
    if record.parent:
        document["parent"] = record.parent
    if record.rolling is not None:
        document["rolling"] = rolling_document(record)
    if record.running:
        document |= progress_document(view)
    return document


def progress_document(view: OperationView) -> dict[str, Any]:
    return {
        "step": view.step,
        "index": view.index,
        "old": _majority_document(view.old),
        "new": _majority_document(view.new),
        "servers": [
            {
                "id": server_name(peer.server),
                "match_index": peer.match_index,
                "lag_entries": peer.lag_entries,
                "rounds": peer.rounds,
                "caught_up": peer.caught_up,
                "connected": peer.connected,
                "problem": peer.problem,
                "snapshot_bytes": peer.snapshot_bytes,
                "snapshot_received_bytes": peer.snapshot_received_bytes,
                "snapshot_installed_bytes": peer.snapshot_installed_bytes,
                "lag_bytes": peer.lag_bytes,
                "bytes_per_second": peer.catch_up_bytes_per_second,
                "part": part_of(peer),
                "remaining_ms": remaining_ms(peer),
            }
            for peer in view.peers
        ],
        "last_index": view.last_index,
        "blocked_by": view.blocked_by,
    }


def _majority_document(majority: MajorityView | None) -> dict[str, Any] | None:
    if majority is None:
        return None
    names = display_names(majority.servers)
    return {
        "servers": [names[server] for server in majority.servers],
        "acknowledged": [names.get(server, server) for server in majority.acknowledged],
        "needed": majority.needed,
    }


def part_of(peer: PeerView) -> str:
    """Return which part of its way a server is in: receiving, installing or entries.

    How fast one part goes says nothing of the next: they stand on another disk or network.
    """
    if not peer.snapshot_bytes:
        return ENTRIES
    return RECEIVING if peer.snapshot_received_bytes < peer.snapshot_bytes else INSTALLING


def remaining_ms(peer: PeerView) -> float | None:
    """Return how long the part that a server is in still takes at the rate of now.

    None if nobody can say.
    """
    rate = peer.catch_up_bytes_per_second
    if peer.caught_up or not rate:
        return None
    left_bytes = {
        RECEIVING: peer.snapshot_bytes - peer.snapshot_received_bytes,
        INSTALLING: peer.snapshot_bytes - peer.snapshot_installed_bytes,
        ENTRIES: peer.lag_bytes,
    }[part_of(peer)]
    return round(1000 * max(0, left_bytes) / rate)


_PARTS = re.compile(
    r"; (?=(?:restored|next|kept, because it was verified): |C_(?:old|new) has it on "
    r"|the configuration was never touched)"
)
_LABELS = {"restored: ": "restored", "next: ": "next", "kept, because it was verified: ": "kept"}


def story_of(record: Operation) -> list[tuple[str, str]]:
    """Return the parts of the story in their order, each with its label.

    The labels are `stopped` (what stopped the change), `missing` (which half of C_old,new lacked
    which servers), `restored`, `kept` (what was not taken back) and `next` (what to do). Nothing
    for a change that has not been undone; a record of an older release has only the first part.
    """
    if not record.explanation:
        return []
    first, *others = _PARTS.split(record.explanation)
    return [("stopped", printable(first)), *(_labelled(printable(part)) for part in others)]


def _labelled(part: str) -> tuple[str, str]:
    for beginning, label in _LABELS.items():
        if part.startswith(beginning):
            return label, part.removeprefix(beginning)
    return ("missing" if part.startswith("C_") else "restored"), part


def rolling_of(record: Operation) -> Rolling:
    """Return what a record has beyond that of a membership operation.

    Raises:
        AssertionError: it is no rolling operation.
    """
    assert record.rolling is not None, f"{record.id} is no rolling operation"
    return record.rolling


def rolling_summary(record: Operation) -> str:
    """Return what it is to do, in a few words: `rolling restart of n2 n3 n1`."""
    steps = rolling_of(record).steps
    if record.kind == ROLLING_RESTART:
        return f"rolling restart of {' '.join(step.name for step in steps)}"
    return f"rolling replacement of {', '.join(map(exchange, steps))}"


def exchange(step: RollingStep) -> str:
    """Return who is exchanged for whom: `n1 by n4`; the name alone for a restart."""
    new = step.replacement.partition("=")[0]
    return f"{step.name} by {new}" if new else step.name


def rolling_document(record: Operation) -> dict[str, Any]:
    """Return what a record has beyond that of a membership operation as JSON has it."""
    rolling = rolling_of(record)
    return {
        "command": rolling.command or None,
        "driver": rolling.driver,
        "paused_by": rolling.paused_by or None,
        "paused_reason": rolling.paused_reason or None,
        "changed_ms": rolling.changed_ms,
        "version": rolling.version,
        "steps": [step_document(step) for step in rolling.steps],
    }


def step_document(step: RollingStep) -> dict[str, Any]:
    """Return one step as JSON has it."""
    return {
        "server": step.name,
        "replacement": step.replacement or None,
        "state": step.state,
        "operation": step.operation or None,
        "started_ms": step.started_ms or None,
        "ended_ms": step.ended_ms or None,
        "version_before": step.version_before or None,
        "version_after": step.version_after or None,
        "note": step.note,
    }
