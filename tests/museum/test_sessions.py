"""The bug museum, state machine and sessions: each command once, and the same on every server."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from raftd.commands import Command, CommandBody, Delete, OpenSession, Put, Result, encode_command
from raftd.core.types import Entry, EntryKind
from raftd.protocol import DoneReply, ErrorReply, OpenSessionRequest, WriteReply
from raftd.storage import state
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from tests.node.world import World
from tests.storage.stores import contents


class Machine:
    """A state machine, the store that outlives it, and the log that it is fed."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.machine = StateMachine(self.store)
        self.log: list[Entry] = []

    def entry(
        self, body: CommandBody, session: str = "s", serial: int = 0, lowest: int = 0
    ) -> Entry:
        """Append a command to the log."""
        data = encode_command(Command(body, session, serial, lowest))
        self.log.append(Entry(len(self.log) + 1, 1, EntryKind.COMMAND, data))
        return self.log[-1]

    def run(
        self, body: CommandBody, session: str = "s", serial: int = 0, lowest: int = 0
    ) -> Result:
        """Append a command and apply it."""
        (result,) = self.machine.apply([self.entry(body, session, serial, lowest)])
        assert result is not None
        return result

    def restart(self) -> None:
        """Go on with what the store says, and nothing else."""
        self.machine = StateMachine(self.store)


def replayed(log: Sequence[Entry], batch: int) -> list[tuple[bytes, bytes]]:
    """Return what another server's store holds after `log`, applied in batches of `batch`."""
    store = MemoryStore()
    machine = StateMachine(store)
    for begin in range(0, len(log), batch):
        machine.apply(log[begin : begin + batch])
    return contents(store)


def test_086_a_retry_after_all_servers_restarted_is_not_done_again() -> None:
    world = World()
    leader = world.form(3)
    writes = [world.put("a", str(number)) for number in range(7)]
    replies = [world.call(leader, write) for write in writes]
    world.until(world.is_settled)
    for server in world.up():
        server.kill()
    for server in world.servers.values():
        server.start()
    leader = world.leader()
    assert [world.call(leader, write) for write in writes[::-1]] == replies[::-1]
    world.until(world.is_settled)
    assert {server.state.get("a").version for server in world.up()} == {7}
    # The table of sessions is a part of the state, and equal on every server.
    dumps = [server.state.dump() for server in world.up()]
    assert dumps[0] == dumps[1] == dumps[2]
    assert any(key == b"Ss" for key, _ in dumps[0])


def test_086_the_session_table_goes_wherever_the_store_goes() -> None:
    machine = Machine()
    machine.run(OpenSession())
    first = machine.run(Put("a", b"1"), serial=7)
    refused = machine.run(Delete("missing"), serial=8)
    machine.restart()
    assert machine.run(Put("a", b"1"), serial=7) == first == Result(revision=1)
    assert machine.run(Delete("missing"), serial=8) == refused == Result(applied=False, revision=1)
    assert machine.machine.revision == 1


def test_087_a_session_lives_and_dies_by_the_log_and_by_no_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "SESSIONS_MAX", 3)
    world = World()
    leader, late = world.form(3), world["n3"]
    write = world.put("a")
    world.call(leader, write)
    # A day of silence is nothing: no entry says that it was one.
    world.now += 24 * 3600 * 20
    assert world.call(world.leader(), write) == WriteReply(applied=True, revision=1)
    # One server sleeps while sessions are opened and driven out, and catches up at another time.
    assert not late.leads
    late.kill()
    for number in range(3):
        world.open_session(f"t{number}")
        world.run(50)
    world.now += 3600 * 20
    late.start()
    world.until(world.is_settled)
    dumps = [server.state.dump() for server in world.up()]
    assert dumps[0] == dumps[1] == dumps[2]
    reply = world.call(world.leader(), write)
    assert isinstance(reply, ErrorReply)
    assert reply.code == "session-expired"


def test_087_eviction_is_the_same_in_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "SESSIONS_MAX", 2)
    machine = Machine()
    for number in range(12):
        name = f"s{number % 5}"
        machine.run(OpenSession(), f"{name}-{number}")
        machine.run(Put(name, b"%d" % number), f"{name}-{number}", 1)
        machine.run(Put(name, b"again"), f"s{(number - 1) % 5}-{number - 1}", 2)
    expected = contents(machine.store)
    assert machine.machine.session_count == 2
    for batch in (1, 2, 7, len(machine.log)):
        assert replayed(machine.log, batch) == expected


def test_088_a_request_of_an_expired_session_is_an_error_and_never_executed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "SESSIONS_MAX", 1)
    machine = Machine()
    machine.run(OpenSession(), "old")
    done = machine.run(Put("a", b"1"), "old", 1)
    machine.run(OpenSession(), "new")
    machine.restart()
    # A retry of what was done, something new, and a late copy of the registration itself.
    for body, serial in ((Put("a", b"1"), 1), (Put("a", b"2"), 2), (OpenSession(), 0)):
        result = machine.run(body, "old", serial)
        assert (result.applied, result.code) == (False, "session-expired")
    assert machine.run(Put("a", b"1"), "old", 1).code == "session-expired"
    found = machine.machine.get("a")
    assert found is not None
    assert (found.value, found.version, found.mod_revision) == (b"1", 1, done.revision)


def test_089_an_older_serial_after_a_newer_one_gets_its_own_answer_or_none() -> None:
    machine = Machine()
    machine.run(OpenSession())
    first = machine.run(Put("a", b"1", if_absent=True), serial=1)
    second = machine.run(Put("a", b"2", if_absent=True), serial=2)
    third = machine.run(Put("a", b"3"), serial=3)
    assert [first.applied, second.applied, third.applied] == [True, False, True]
    # Copies that were overtaken: each gets the answer of its own serial, as it was then.
    for serial, answer in ((1, first), (3, third), (2, second), (1, first)):
        assert machine.run(Put("a", b"x"), serial=serial) == answer
        assert machine.machine.session_result("s", serial) == answer
    # The client says that it has the answers to 1 and 2; from then on they are refused.
    machine.run(Put("b", b""), serial=4, lowest=3)
    for serial in (1, 2):
        result = machine.run(Put("a", b"x"), serial=serial)
        assert (result.applied, result.code) == (False, "stale-serial")
    found = machine.machine.get("a")
    assert found is not None
    assert (found.value, found.version) == (b"3", 2)


def test_090_the_applied_index_is_exactly_that_of_the_content() -> None:
    machine = Machine()
    machine.run(OpenSession())
    entries = [machine.entry(Put("a", b"%d" % number), serial=number) for number in range(1, 6)]
    for begin in (0, 2):
        machine.machine.apply(entries[begin : begin + 2])
        machine.restart()
        assert machine.machine.applied_index == entries[begin + 1].index
        found = machine.machine.get("a")
        assert found is not None
        assert (found.value, found.version) == (b"%d" % (begin + 2), begin + 2)
    # A batch that cannot be applied moves neither the one nor the other.
    broken = Entry(entries[4].index + 1, 1, EntryKind.COMMAND, b"\xc1")
    with pytest.raises(ValueError, match="not a command"):
        machine.machine.apply([entries[4], broken])
    for _ in range(2):
        assert machine.machine.applied_index == entries[3].index
        assert machine.machine.revision == 4
        machine.restart()
    # Neither is an entry applied twice nor one left out.
    for wrong in (entries[3], broken):
        with pytest.raises(AssertionError, match="is due"):
            machine.machine.apply([wrong])
    machine.machine.apply([entries[4]])
    assert contents(machine.store) == replayed(machine.log, 1)


def test_091_what_is_loaded_replaces_what_was_in_memory() -> None:
    machine = Machine()
    machine.run(OpenSession(), "kept")
    machine.run(Put("a", b"1"), "kept", 1)
    before = contents(machine.store)
    # A batch that fails at its end: the state is loaded again from the store, over a memory that
    # already knew a session more, another result and a key less.
    batch = [
        machine.entry(Delete("a"), "kept", 2, 2),
        machine.entry(OpenSession(), "ghost"),
        machine.entry(Put("b", b""), "ghost", 1),
    ]
    broken = Entry(len(machine.log) + 1, 1, EntryKind.COMMAND, b"\xc1")
    with pytest.raises(ValueError, match="not a command"):
        machine.machine.apply([*batch, broken])
    assert contents(machine.store) == before
    del machine.log[-3:]
    assert machine.machine.session_count == 1
    assert machine.machine.session_result("ghost", 1) is None
    assert machine.machine.session_result("kept", 2) is None
    assert machine.run(Put("b", b""), "ghost", 1).code == "session-expired"
    assert machine.run(Put("a", b"x"), "kept", 1) == Result(revision=1)
    assert machine.run(Delete("a"), "kept", 2) == Result(revision=2)
    assert contents(machine.store) == replayed(machine.log, 1)


def test_092_registering_again_makes_no_second_session() -> None:
    world = World()
    leader = world.form(3)
    write = world.put("a")
    world.call(leader, write)
    for _ in range(20):
        # Copies of one registration, some of them in one batch.
        asked = [world.ask_later(leader, OpenSessionRequest(session="s")) for _ in range(3)]
        world.settle()
        assert [copy.reply for copy in asked] == [DoneReply()] * 3
    world.until(world.is_settled)
    assert [server.state.session_count for server in world.up()] == [1, 1, 1]
    # The session has forgotten nothing over it.
    assert world.call(leader, write) == WriteReply(applied=True, revision=1)
    assert leader.state.get("a").version == 1


def test_092_sessions_that_nobody_uses_are_bounded_and_go_in_the_same_order_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "SESSIONS_MAX", 4)
    monkeypatch.setattr(state, "EXPIRED_NAMES_MAX", 6)
    machine = Machine()
    machine.run(OpenSession(), "kept")
    for number in range(50):
        for _ in range(2):
            machine.run(OpenSession(), f"lost-{number}")
        assert machine.run(Put("a", b""), "kept", number + 1, number + 1).applied
        assert machine.machine.session_count <= 4
    families = [key[:1] for key, _ in contents(machine.store)]
    assert (families.count(b"S"), families.count(b"X")) == (4, 6)
    for batch in (1, 3, len(machine.log)):
        assert replayed(machine.log, batch) == contents(machine.store)
