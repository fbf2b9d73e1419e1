"""What the records of operations may become, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raftd.commands import (
    ABORTED,
    DONE,
    FAILED,
    RUNNING,
    SKIPPED,
    AbortOperation,
    BeginOperation,
    BeginRolling,
    Command,
    EndOperation,
    Operation,
    Rolling,
    UpdateRolling,
    decode_command,
)
from raftd.core.types import Entry, EntryKind, ServerId
from raftd.storage import ledger
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from tests.simulation.invariants import Durable, Invariant, Server

_OPERATES = (BeginOperation, AbortOperation, EndOperation, BeginRolling, UpdateRolling)


class LedgerRules(Invariant):
    """At most one membership operation and one rolling operation run, and neither is ever lost.

    Membership operations begin only as steps of a rolling one that is not paused, or as none of a
    paused one. A rolling record changes only with an update that names its version, which grows
    by one; an update changes what its action says and nothing else; what has ended stays as it is.

    All committed entries are applied once more here, one at a time: servers that have applied them
    in other batches must have come to the same.
    """

    title = "The rules of the ledger"
    source = "none of Raft's; the state machine's promise"

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._state = StateMachine(MemoryStore())
        self._newest = 0
        self._ended: dict[str, Operation] = {}
        self.changes: dict[tuple[str, int], tuple[str, int]] = {}
        """By rolling operation and version of its record: session and serial of what has led to
        that version."""

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        state = self._state
        for entry in entries:
            if entry.index > state.applied_index:
                self._take_in(entry)
        if server.state.applied_index == state.applied_index:
            expected, found = state.effects_hash, server.state.effects_hash
            assert expected == found, (
                f"{server.id} has made something else of the entries up to {entries[-1].index} in "
                f"its batches than one by one: expected {expected:x}, found {found:x}"
            )

    def _take_in(self, entry: Entry) -> None:
        state = self._state
        assert entry.index == state.applied_index + 1
        command = decode_command(entry.data) if entry.kind is EntryKind.COMMAND else None
        operates = command is not None and isinstance(command.body, _OPERATES)
        if not operates and entry.kind is not EntryKind.CONFIGURATION:
            state.apply((entry,))
            return
        member, rolling = state.running_operation, state.rolling_operation
        state.apply((entry,))
        begun = state.operation(f"op-{self._newest + 1}")
        if begun is not None:
            self._newest += 1
            self._look_at_begun(begun, member, rolling)
        if member is not None:
            now = state.operation(member.id)
            assert now is not None, f"entry {entry.index} has lost {member.id}, which was running"
            self._look_at_ended(member, now)
            if now.abort_requested_by and not member.abort_requested_by:
                body = command.body if command is not None else None
                named = body.operation if isinstance(body, AbortOperation) else ""
                is_meant = bool(named) and named in (member.id, member.parent)
                assert is_meant, (
                    f"entry {entry.index} aborts {member.id}, and was meant for {named!r}"
                )
        if rolling is not None:
            self._look_at_rolling(rolling, command, entry)
        assert state.running_operation is None or state.running_operation.rolling is None

    def _look_at_rolling(self, before: Operation, command: Command | None, entry: Entry) -> None:
        now = self._state.operation(before.id)
        if now is None:
            self._look_at_forgotten(before, command, entry)
        else:
            if now != before:
                self._look_at_changed(before, now, command, entry)
            self._look_at_ended(before, now)

    def _look_at_forgotten(self, before: Operation, command: Command | None, entry: Entry) -> None:
        """Look at a rolling operation whose record went as it ended: many have begun after it."""
        body = command.body if command is not None else None
        record = _record(before)
        ends = isinstance(body, UpdateRolling) and (body.action, body.version) == (
            "end",
            record.version,
        )
        later = [op for op in self._state.operations() if not op.running]
        is_oldest = len(later) == ledger.OPERATIONS_MAX
        may_go = is_oldest and (ends or isinstance(body, AbortOperation))
        assert may_go, f"entry {entry.index} has lost {before.id}, which was running"
        if ends and command is not None:
            change = (command.session, command.serial)
            self.changes[before.id, record.version + 1] = change

    def _look_at_begun(
        self, begun: Operation, member: Operation | None, rolling: Operation | None
    ) -> None:
        assert member is None, f"{begun.id} begins while {member and member.id} runs"
        if begun.rolling is not None:
            assert rolling is None, f"{begun.id} begins while {rolling and rolling.id} runs"
            assert begun.rolling.version == 1
            self.changes[begun.id, 1] = (begun.session, begun.serial)
        elif rolling is None or _record(rolling).paused_by:
            assert not begun.parent, f"{begun.id} begins as a step of {begun.parent}: not running"
        else:
            assert begun.parent == rolling.id, (
                f"{begun.id} begins while {rolling.id} runs, as a step of {begun.parent!r}"
            )
        self._look_at_records()

    def _look_at_records(self) -> None:
        """Look at all records: who runs, and whether one that has ended has changed."""
        records = self._state.operations()
        running = [record for record in records if record.running]
        members = [record.id for record in running if record.rolling is None]
        rollings = [record.id for record in running if record.rolling is not None]
        assert len(members) <= 1, f"{members} run at once"
        assert len(rollings) <= 1, f"{rollings} run at once"
        for record in records:
            ended = self._ended.get(record.id)
            if ended is not None:
                # The entry that takes its learners away again may come after its end.
                same = (record.rolling, record.result, record.explanation, record.phases)
                expected = (ended.rolling, ended.result, ended.explanation, ended.phases)
                assert same == expected, f"{record.id} has changed after its end"

    def _look_at_ended(self, before: Operation, now: Operation) -> None:
        if not now.running:
            assert now.result in (DONE, FAILED, ABORTED), f"{now.id} ends with {now.result!r}"
            self._ended[before.id] = now

    def _look_at_changed(
        self, before: Operation, now: Operation, command: Command | None, entry: Entry
    ) -> None:
        body = command.body if command is not None else None
        what = f"entry {entry.index} ({type(body).__name__}) on {before.id}"
        if isinstance(body, AbortOperation):
            assert body.operation == before.id, f"{what} aborts {body.operation}"
            assert now.result == ABORTED, f"{what} has not ended it"
            assert now.abort_requested_by, f"{what} does not say who"
            member = self._state.running_operation
            is_left = member and member.parent == before.id and not member.abort_requested_by
            assert not is_left, f"{what} lets its step {member and member.id} go on"
            return
        assert isinstance(body, UpdateRolling), f"{what} has changed it"
        assert command is not None
        old, new = _record(before), _record(now)
        assert (body.operation, body.version) == (before.id, old.version), (
            f"{what} was meant for version {body.version} of {body.operation}, not {old.version}"
        )
        assert new.version == old.version + 1, f"{what} leads from {old.version} to {new.version}"
        self.changes[before.id, new.version] = (command.session, command.serial)
        changed = [at for at, step in enumerate(old.steps) if new.steps[at] != step]
        match body.action:
            case "step":
                assert not old.paused_by, f"{what} takes a step although it is paused"
                assert changed in ([], [body.position]), f"{what} changes the steps {changed}"
                assert now.running
            case "pause":
                assert (bool(old.paused_by), bool(new.paused_by)) == (False, True), what
            case "resume":
                assert not new.paused_by, what
                member = self._state.running_operation
                assert member is None or member.parent == now.id, f"{what} resumes beside another"
            case "end":
                self._look_at_end(what, body, now)
            case _:
                raise AssertionError(f"{what} asks for {body.action!r}")
        assert body.action in ("step", "end") or not changed, f"{what} changes steps {changed}"
        assert body.action == "end" or now.running, f"{what} ends it"
        names = [[(s.name, s.replacement) for s in record.steps] for record in (old, new)]
        assert names[0] == names[1], f"{what} changes which steps there are"
        running = [step.name for step in new.steps if step.state == RUNNING]
        assert len(running) <= 1, f"{what} has two steps under way: {running}"

    def _look_at_end(self, what: str, body: UpdateRolling, now: Operation) -> None:
        assert (now.running, now.result) == (False, body.outcome), f"{what} has not ended it"
        states = {step.state for step in _record(now).steps}
        assert body.outcome != DONE or states <= {DONE, SKIPPED}, f"{what} ends {states} as done"
        member = self._state.running_operation
        assert member is None or member.parent != now.id, f"{what} ends it amid {member}"


def _record(operation: Operation) -> Rolling:
    assert operation.rolling is not None
    return operation.rolling
