"""The invariants of upgrades, history and ledger, on state machines that a test breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from raftd.commands import (
    FEATURES_MAX,
    RUNNING,
    AbortOperation,
    BeginOperation,
    BeginRolling,
    Command,
    CommandBody,
    EndOperation,
    OpenSession,
    Plan,
    Put,
    RollingStep,
    SwitchOn,
    UpdateRolling,
    encode_command,
)
from raftd.core.membership import Configuration, ConfigurationEntry, ConfigurationKind
from raftd.core.types import Entry, EntryKind, HardState, Index
from raftd.storage import ledger, rolling_records
from raftd.storage.history import configuration_record
from raftd.storage.ledger import Ledger
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from tests.core.scenario import configuration_entry
from tests.simulation.invariants import Invariant
from tests.simulation.invariants.complete_history import CompleteHistory
from tests.simulation.invariants.ledger_rules import LedgerRules
from tests.simulation.invariants.older_release import OlderRelease
from tests.simulation.stage import ABC, FOUNDING, A, B, C, Server, Stage, noticed

OLD = 2
ON = SwitchOn(version=FEATURES_MAX, time_ms=1, configuration_term=FOUNDING.term)
STEPS = (RollingStep(name="n1"), RollingStep(name="n2"))
ROLLING = BeginRolling(kind="rolling-restart", author="ann", reason="", time_ms=1, steps=STEPS)
CONFIGURED = Configuration(voters=ABC)


class Play:
    """Servers with real state machines, and an invariant that is told what they apply."""

    def __init__(self, kind: type[Invariant]) -> None:
        self.stage = Stage(kind)
        self.invariant: Any = self.stage.invariant
        self.log: list[Entry] = [FOUNDING]
        for server in self.stage.servers.values():
            self.start(server)

    def __getitem__(self, name: str) -> Server:
        return self.stage[name]

    def start(self, server: Server, version: int | None = None) -> None:
        """Let the next process of a server begin, with what the one before had applied."""
        state = server.state if isinstance(server.state, StateMachine) else None
        server.version = version or server.version
        server.process += 1
        server.state = state or StateMachine(MemoryStore())
        self.invariant.started(server)

    def write(self, body: CommandBody, session: str = "") -> Entry:
        """Let a command be committed."""
        data = encode_command(Command(body, session, 1 if session else 0))
        self.log.append(Entry(len(self.log) + 1, 1, EntryKind.COMMAND, data))
        return self.log[-1]

    def configure(self) -> Entry:
        """Let a configuration be committed."""
        index = len(self.log) + 1
        self.log.append(configuration_entry(index, 1, ConfigurationKind.SIMPLE, CONFIGURED))
        return self.log[-1]

    def follow(self, *servers: Server, batch: int = 100) -> None:
        """Let servers apply what is committed."""
        for server in servers or self.stage.servers.values():
            while missing := self.log[server.state.applied_index :][:batch]:
                server.state.apply(missing)
                self.invariant.applied(server, missing)


def change(index: Index, parent: str = "", **plan: Any) -> BeginOperation:
    return BeginOperation(
        kind="add",
        author="ann",
        reason="",
        time_ms=1,
        parent=parent,
        plan=Plan(changes=(), joint=False, configuration_index=index, **plan),
    )


def update(version: int, action: str = "step", **fields: Any) -> UpdateRolling:
    if action == "step":
        fields.setdefault("step", RollingStep(name="n1", state=RUNNING))
    return UpdateRolling(
        operation="op-1", action=action, author="ann", version=version, time_ms=1, **fields
    )


# --- an upgrade ---


def lead(play: Play) -> Server:
    """Let A lead in term 2; its log has the founding entry alone before that."""
    return play.stage.elect(play[A], 2)


def test_older_release_is_content_when_the_last_member_was_upgraded_before() -> None:
    play = Play(OlderRelease)
    for name in (B, C):
        play.start(play[name], OLD)
    play.write(Put("k", b"v"))
    play.write(change(1))
    play.follow()
    for name in (B, C, "n4/4", "n5/5", "n6/6"):
        server = play.stage.servers.get(name) or play.stage.start(name)
        play.start(server, FEATURES_MAX)
    leader = lead(play)
    data = play.write(ON).data
    play.stage.propose(leader, Entry(leader.log.last_index + 1, 2, EntryKind.COMMAND, data))
    play.follow()


def test_older_release_notices_a_leader_that_appends_it_over_an_older_member() -> None:
    play = Play(OlderRelease)
    leader = lead(play)
    play.start(play[B], OLD)
    data = play.write(ON).data
    with noticed("switches on", "is appended while", "n2/2"):
        play.stage.propose(leader, Entry(leader.log.last_index + 1, 2, EntryKind.COMMAND, data))


def test_older_release_notices_an_entry_that_is_committed_over_an_older_member() -> None:
    play = Play(OlderRelease)
    play.configure()
    play.write(ON)
    play.start(play[C], OLD)
    with noticed("entry 3", "is committed while n3/3 cannot"):
        play.follow(play[A])


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (ROLLING, "BeginRolling"),
        (update(1), "UpdateRolling"),
        (change(1, "op-1"), "BeginOperation with parent"),
        (change(1, moved={A: "x:1"}), "BeginOperation with moved"),
    ],
)
def test_older_release_notices_an_entry_that_it_does_not_know(body: CommandBody, what: str) -> None:
    play = Play(OlderRelease)
    play.write(body)
    play.follow(play[A])
    play.start(play[B], OLD)
    with noticed("n2/2 speaks version 2 and has applied entry 2", what):
        play.follow(play[B])


def test_older_release_notices_a_start_on_a_state_with_features() -> None:
    play = Play(OlderRelease)
    play.write(ON)
    play[A].state.apply(play.log)
    with noticed("n1/1 speaks version 2 and starts from", f"version {FEATURES_MAX}"):
        play.start(play[A], OLD)


# --- the history ---


def test_the_history_of_every_server_has_what_was_committed_since_it_began() -> None:
    play = Play(CompleteHistory)
    play.configure()
    play.write(ON)
    play.configure()
    play.follow(play[A])
    play.configure()
    play.follow(play[B], batch=1)
    play.follow()
    for server in play.stage.servers.values():
        play.start(server)
    records, _ = play[C].state.history(100, 0, 1 << 20)
    assert [record.index for record in records] == [5, 4, 2]


def test_the_oldest_records_may_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftd.storage.history.HISTORY_MAX", 2)
    play = Play(CompleteHistory)
    play.write(ON)
    for _ in range(3):
        play.configure()
        play.follow()
    play.start(play[A])


def append_to_history(server: Server, spoil: Callable[[Any, Any], None]) -> None:
    """Let a server's history be written by `spoil`, which gets the right way and the record."""
    history = server.state._history
    original = history.append
    history.append = lambda record: spoil(original, record)


def test_complete_history_notices_a_configuration_that_is_left_out() -> None:
    play = Play(CompleteHistory)
    play.write(ON)
    play.follow()
    append_to_history(play[B], lambda append, record: None)
    play.configure()
    play.follow(play[A])
    with noticed("the history of n2/2", r"has \[1\] as its newest: expected \[1, 3\]"):
        play.follow(play[B])


def test_complete_history_notices_a_record_of_something_else() -> None:
    play = Play(CompleteHistory)
    play.write(ON)
    play.follow()
    append_to_history(play[B], lambda append, record: append(attrs.evolve(record, voters=(A,))))
    play.configure()
    with noticed("the history of n2/2"):
        play.follow(play[B])


def test_complete_history_notices_what_was_written_before_it_began() -> None:
    play = Play(CompleteHistory)
    play.follow()
    state = play[A].state
    entry = ConfigurationEntry(configuration=CONFIGURED, kind=ConfigurationKind.SIMPLE)
    with state._store.transaction():
        state._history.append(configuration_record(entry, 1, 1, None))
    with noticed("the history of n1/1"):
        play.start(play[A])


def test_complete_history_notices_a_record_that_a_restart_has_lost() -> None:
    play = Play(CompleteHistory)
    play.write(ON)
    play.configure()
    play.follow()
    play[A].state._history._count = 1
    with noticed("the history of n1/1", r"has \[3\] as its newest: expected \[1, 3\]"):
        play.start(play[A])


def test_complete_history_notices_a_wrong_term_of_what_was_in_force() -> None:
    play = Play(CompleteHistory)
    play.write(attrs.evolve(ON, configuration_term=7))
    with noticed("entry 2 says that configuration 1 is of term 7: expected 1"):
        play.follow(play[A])


def test_complete_history_notices_one_that_calls_itself_incomplete() -> None:
    play = Play(CompleteHistory)
    play.write(ON)
    play.follow()
    play[B].state._history._is_complete = False
    with noticed("n2/2 says that its history is incomplete"):
        play.start(play[B])


# --- the ledger ---


def rolling_play() -> Play:
    """Return servers in whose ledger the rolling operation op-1 runs."""
    play = Play(LedgerRules)
    play.write(ON)
    play.write(ROLLING)
    play.follow()
    return play


def test_a_rolling_operation_with_a_step_goes_by_the_rules() -> None:
    play = rolling_play()
    play.write(change(1))
    play.write(change(1, "op-1"))
    play.write(update(1))
    play.write(update(1))
    play.write(update(2, "pause"))
    play.write(update(3))
    play.write(update(3, "resume"))
    play.write(update(4, "end", outcome="done"))
    play.write(AbortOperation(operation="op-1", author="eve", reason="", time_ms=1))
    play.write(ROLLING)
    play.follow(play[A], batch=1)
    play.follow(play[B], batch=3)
    assert play.invariant.changes.keys() == {("op-1", version) for version in (1, 2, 3, 4)}


def test_what_was_changed_is_known_by_session_and_serial() -> None:
    play = Play(LedgerRules)
    play.write(ON)
    play.write(ROLLING, "not opened")
    play.write(OpenSession(), "s")
    play.write(ROLLING, "s")
    play.write(update(1))
    play.follow(play[A])
    assert play.invariant.changes == {("op-1", 1): ("s", 1), ("op-1", 2): ("", 0)}


def test_the_record_of_a_rolling_operation_may_go_when_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "OPERATIONS_MAX", 1)
    play = rolling_play()
    play.write(update(1, "pause"))
    play.write(change(1))
    play.write(EndOperation(operation="op-2", outcome="failed", reason="", time_ms=1))
    play.write(update(2, "end", outcome="aborted"))
    play.follow()
    assert [record.id for record in play[A].state.operations()] == ["op-2"]
    assert ("op-1", 3) in play.invariant.changes


def test_ledger_rules_notice_a_change_beside_a_rolling_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = rolling_play()
    monkeypatch.setattr(Ledger, "_not_its_turn", lambda *arguments: None)
    play.write(change(1))
    with noticed("op-2 begins while op-1 runs, as a step of ''"):
        play.follow(play[A])


def test_ledger_rules_notice_a_step_of_a_paused_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = rolling_play()
    play.write(update(1, "pause"))
    play.follow()
    monkeypatch.setattr(Ledger, "_not_its_turn", lambda *arguments: None)
    play.write(change(1, "op-1"))
    with noticed("op-2 begins as a step of op-1: not running"):
        play.follow(play[A])


def test_ledger_rules_notice_a_second_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(LedgerRules)
    play.write(ON)
    play.write(change(1))
    play.follow()
    real = Ledger.begin_rolling

    def blindly(self: Ledger, body: BeginRolling, **fields: Any) -> Any:
        running, self._running = self._running, None
        result = real(self, body, **fields)
        self._running = running
        return result

    monkeypatch.setattr(Ledger, "begin_rolling", blindly)
    play.write(ROLLING)
    with noticed("op-2 begins while op-1 runs"):
        play.follow(play[A])


def test_ledger_rules_notice_a_change_that_was_meant_for_another_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = rolling_play()
    real = rolling_records.updated

    def blindly(operation: Any, body: UpdateRolling, **fields: Any) -> Any:
        return real(operation, attrs.evolve(body, version=operation.rolling.version), **fields)

    monkeypatch.setattr(rolling_records, "updated", blindly)
    play.write(update(7))
    with noticed("meant for version 7 of op-1, not 1"):
        play.follow(play[A])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda new: attrs.evolve(new, version=9), "leads from 1 to 9"),
        (lambda new: attrs.evolve(new, steps=new.steps[:1] * 2), "changes"),
        (
            lambda new: attrs.evolve(
                new, steps=tuple(attrs.evolve(step, state=RUNNING) for step in new.steps)
            ),
            "changes the steps",
        ),
    ],
)
def test_ledger_rules_notice_a_step_that_changes_something_else(
    spoil: Callable[[Any], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = rolling_play()
    real = rolling_records.updated

    def spoilt(operation: Any, body: UpdateRolling, **fields: Any) -> Any:
        changed = real(operation, body, **fields)
        assert isinstance(changed, ledger.Operation)
        return attrs.evolve(changed, rolling=spoil(changed.rolling))

    monkeypatch.setattr(rolling_records, "updated", spoilt)
    play.write(update(1))
    with noticed(message):
        play.follow(play[A])


def test_ledger_rules_notice_an_end_with_steps_left(monkeypatch: pytest.MonkeyPatch) -> None:
    play = rolling_play()
    monkeypatch.setattr(rolling_records, "_end_problem", lambda *arguments: None)
    play.write(update(1, "end", outcome="done"))
    with noticed("ends .*pending.* as done"):
        play.follow(play[A])


def test_ledger_rules_notice_a_step_that_outlives_its_aborted_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = rolling_play()
    play.write(change(1, "op-1"))
    play.follow()
    monkeypatch.setattr(Ledger, "_request_abort", lambda *arguments: None)
    play.write(AbortOperation(operation="op-1", author="eve", reason="", time_ms=1))
    with noticed("lets its step op-2 go on"):
        play.follow(play[A])


def test_ledger_rules_notice_an_abort_of_what_was_not_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = rolling_play()
    play.write(update(1, "pause"))
    play.write(change(1))
    play.follow()
    real = Ledger.abort

    def abort(self: Ledger, body: AbortOperation, **fields: Any) -> Any:
        assert self.running is not None
        self._request_abort(self.running, body)
        return real(self, body, **fields)

    monkeypatch.setattr(Ledger, "abort", abort)
    play.write(AbortOperation(operation="op-1", author="eve", reason="", time_ms=1))
    with noticed("entry 6 aborts op-2, and was meant for 'op-1'"):
        play.follow(play[A])


def test_ledger_rules_notice_a_record_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    play = rolling_play()
    monkeypatch.setattr(Ledger, "_put", lambda self, operation: None)
    monkeypatch.setattr(Ledger, "_write_rolling", lambda self, operation: forget(self))

    def forget(records: Ledger) -> None:
        records._store.delete(b"O" + (1).to_bytes(8, "big"))
        records._rolling = None

    play.write(update(1))
    with noticed("entry 4 has lost op-1"):
        play.follow(play[A])


def test_ledger_rules_notice_a_batch_that_has_come_to_something_else() -> None:
    play = rolling_play()
    play.write(update(1))
    play.follow(play[A])
    play[B].state.effects_hash += 1
    with noticed("n2/2 has made something else of the entries up to 4"):
        play.follow(play[B])


def test_a_server_that_writes_nothing_of_its_own_is_no_leader_that_appends() -> None:
    play = Play(OlderRelease)
    play.start(play[B], OLD)
    entry = play.write(ON)
    play.stage.write(play[A], attrs.evolve(entry), hard_state=HardState(1))
