"""Commands and reads of many clients as one input: every one of them is told what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs
import pytest

from raftd.commands import (
    FEATURES_LIVES,
    VALUE_BYTES_MAX,
    Append,
    Command,
    CommandBody,
    Delete,
    Increment,
    Put,
    PutMany,
    Result,
    SetKey,
    Step,
    Transaction,
    encode_command,
)
from raftd.inputs import CommandsArrived, KeysArrived, StateAsked, StateView
from raftd.portions import ANSWER_BYTES, PORTION_BYTES
from raftd.protocol import (
    NOT_NOW,
    ErrorReply,
    GetReply,
    GetRequest,
    ListReply,
    ListRequest,
    Reply,
    TransferRequest,
    WatchReply,
    WatchRequest,
    WriteReply,
)
from raftd.watching import LOOKED_BYTES
from raftd.writing import COMMAND_BYTES_MAX
from tests.node.world import HEARTBEAT_TICKS, Asked, Server, World

RESERVE_BYTES = 64 << 20


@pytest.fixture
def world() -> World:
    return World(disk_reserve_bytes=RESERVE_BYTES)


@attrs.define(eq=False)
class Told:
    """Waits for a command, and is told once."""

    answers: list[Result | ErrorReply] = attrs.field(factory=list)

    def done(self, result: Result) -> None:
        self.answers.append(result)

    def failed(self, error: ErrorReply) -> None:
        self.answers.append(error)

    @property
    def result(self) -> Result:
        (answer,) = self.answers
        assert isinstance(answer, Result), answer
        return answer

    @property
    def error(self) -> ErrorReply:
        (answer,) = self.answers
        assert isinstance(answer, ErrorReply), answer
        return answer


def send(world: World, server: Server, *bodies: CommandBody | bytes) -> list[Told]:
    """Hand over commands as one input and let the servers work; no time passes."""
    waiters = [Told() for _ in bodies]
    commands = [
        body if isinstance(body, bytes) else encode_command(Command(body)) for body in bodies
    ]
    server.inbox.append(CommandsArrived(commands, waiters))
    world.settle()
    return waiters


@attrs.define(eq=False)
class Read:
    """Reads of some keys, and what came of them."""

    values: list[bytes | None] | None = None
    error: ErrorReply | None = None

    def respond(self, values: Sequence[bytes | None]) -> None:
        assert self.open
        self.values = list(values)

    def failed(self, reply: Reply) -> None:
        assert self.open
        assert isinstance(reply, ErrorReply)
        self.error = reply

    @property
    def open(self) -> bool:
        return self.values is None and self.error is None


def read(world: World, server: Server, *keys: bytes, stale: bool = False) -> Read:
    found = Read()
    server.inbox.append(KeysArrived(keys, found.respond, found.failed, stale))
    world.settle()
    return found


@attrs.define(eq=False)
class Question(Read):
    """Questions about some keys, and about all."""

    keys: list[bytes] = attrs.field(factory=list)
    key_count: int | None = None

    def answer(self, wanted: Sequence[bytes], state: StateView) -> None:
        self.respond([state.look(key) for key in wanted])  # type: ignore[misc]
        self.keys = state.keys(b"", b"", 10)
        self.key_count = state.key_count(100)


def ask(world: World, server: Server, *keys: bytes, stale: bool = False) -> Any:
    found = Question()
    server.inbox.append(StateAsked(partial(found.answer, keys), found.failed, stale))
    world.settle()
    return found


def appended(server: Server) -> int:
    return sum(entry[0] == "append" for entry in server.journal)


# --- commands -------------------------------------------------------------------------------


def test_each_command_of_a_batch_has_its_own_result_after_one_sync(world: World) -> None:
    leader = world.form(3)
    before = appended(leader)
    told = send(
        world,
        leader,
        *(Put("a", b"1"), Increment("a", 1), Put("b", b"x"), Increment("b", 1), Delete("c")),
        PutMany([("d", b"1"), ("e", b"2")]),
    )
    assert appended(leader) == before + 1
    results = [each.result for each in told]
    assert [result.applied for result in results] == [True, True, True, False, False, True]
    assert [result.number for result in results] == [0, 2, 0, 0, 0, 0]
    assert results[3].code == "not-a-number"
    world.run(HEARTBEAT_TICKS)
    assert {world.get("e", server, stale=True) for server in world.up()} == {"2"}


def test_commands_that_fit_no_record_are_refused_and_the_others_are_done(world: World) -> None:
    leader = world.form(3)
    before = leader.status.last_index
    too_long = b"x" * (COMMAND_BYTES_MAX + 1)
    told = send(world, leader, Put("a", b"1"), too_long, Increment("a", 1), too_long)
    assert (told[0].result.applied, told[2].result.number) == (True, 2)
    for refused in (told[1], told[3]):
        assert refused.error.code == "invalid"
        assert f"{COMMAND_BYTES_MAX + 1} bytes" in refused.error.cause
    assert leader.status.last_index == before + 2
    assert [each.error.code for each in send(world, leader, too_long)] == ["invalid"]
    assert leader.status.last_index == before + 2


@pytest.mark.parametrize("limit", ["ENTRIES", "BYTES"])
def test_what_no_longer_fits_is_refused_and_was_not_appended(
    world: World, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.form(3)
    size = len(encode_command(Command(Increment("a", 1))))
    most = {"ENTRIES": 5, "BYTES": 5 * size}[limit]
    monkeypatch.setattr(f"raftd.core.leader.UNCOMMITTED_{limit}_MAX", most)
    before = leader.status.last_index
    world.passes = lambda envelope: False
    told = send(world, leader, *[Increment("a", 1)] * 8)
    more = send(world, leader, *[Increment("a", 1)] * 2)
    for refused in (*told[5:], *more):
        assert (refused.error.code, refused.error.message) == ("unavailable", NOT_NOW)
    assert leader.status.last_index == before + 5
    assert all(not each.answers for each in told[:5])
    world.passes = lambda envelope: True
    world.run(HEARTBEAT_TICKS)
    assert [each.result.number for each in told[:5]] == [1, 2, 3, 4, 5]
    assert send(world, leader, Increment("a", 1))[0].result.number == 6


def test_nobody_knows_what_becomes_of_a_batch_whose_leader_lost_its_leadership(
    world: World,
) -> None:
    leader = world.form(3)
    world.cut(["n1"], ["n2", "n3"])
    told = send(world, leader, *[Increment("a", 1)] * 4)
    later = send(world, leader, Increment("a", 1))
    world.until(lambda: bool(told[0].answers))
    assert {each.error.code for each in (*told, *later)} == {"unknown-outcome"}
    # From now on nothing is appended, and that is certain.
    assert send(world, leader, Increment("a", 1))[0].error.code in ("not-leader", "unavailable")
    world.heal()
    other = world.leader()
    assert send(world, other, Increment("a", 1))[0].result.number in (1, 6)
    world.run(HEARTBEAT_TICKS)
    assert all(len(each.answers) == 1 for each in (*told, *later))


def test_a_batch_on_a_server_that_does_not_lead_is_not_appended(world: World) -> None:
    blank = world.boot("n9")
    assert {e.error.code for e in send(world, blank, *[Delete("a")] * 3)} == {"unavailable"}
    leader = world.form(3)
    before = leader.status.last_index
    told = send(world, world["n2"], *[Put("a", b"1")] * 3)
    assert {(each.error.code, each.error.leader) for each in told} == {("not-leader", leader.id)}
    assert leader.status.last_index == before


def test_a_batch_is_refused_as_a_whole_while_disks_are_nearly_full(world: World) -> None:
    leader = world.form(3)
    leader.free_bytes = RESERVE_BYTES - 1
    world.run(HEARTBEAT_TICKS)
    before = leader.status.last_index
    assert {e.error.code for e in send(world, leader, *[Delete("a")] * 3)} == {"disk-full"}
    assert leader.status.last_index == before


def test_a_batch_is_refused_as_a_whole_while_leadership_is_handed_over(world: World) -> None:
    leader = world.form(3)
    before = leader.status.last_index
    # The transfer does not get through yet.
    world.passes = lambda envelope: False
    world.ask(leader, TransferRequest(target="n2"))
    told = send(world, leader, *[Delete("a")] * 3)
    assert {(e.error.code, e.error.message) for e in told} == {("unavailable", NOT_NOW)}
    assert leader.status.last_index == before


def test_batches_beside_requests_are_answered_each_with_its_own(world: World) -> None:
    leader = world.form(3)
    leader.inbox += [
        CommandsArrived([encode_command(Command(Increment("a", 1)))] * 2, first := [Told(), Told()])
    ]
    asked = world.ask_later(leader, world.put("a", "100"))
    second = send(world, leader, *[Increment("a", 1)] * 3)
    assert [each.result.number for each in first] == [1, 2]
    assert not asked.open
    assert [each.result.number for each in second] == [101, 102, 103]


# --- reads ----------------------------------------------------------------------------------


def test_reads_of_many_keys_are_answered_together_from_a_confirmed_state(world: World) -> None:
    leader = world.form(3)
    send(world, leader, PutMany([("a", b"1"), ("b", b"2")]))
    world.passes = lambda envelope: envelope.source == leader.id
    found = read(world, leader, b"b", b"none", b"a", b"b")
    assert found.open
    world.passes = lambda envelope: True
    world.run(HEARTBEAT_TICKS)
    assert found.values == [b"2", None, b"1", b"2"]


def test_questions_are_answered_from_a_confirmed_state_with_what_is_left_of_lives() -> None:
    world = World(features_max=FEATURES_LIVES)
    leader = world.form(3)
    world.until(lambda: leader.state.features == FEATURES_LIVES)
    send(world, leader, PutMany([("a", b"1"), ("b", b"2")]))
    send(world, leader, Transaction((), (SetKey("c", b"3", ttl_ms=60_000),)))
    world.passes = lambda envelope: envelope.source == leader.id
    found = ask(world, leader, b"b", b"none", b"c")
    assert found.open
    world.passes = lambda envelope: True
    world.run(HEARTBEAT_TICKS)
    assert found.values is not None
    first, none, last = found.values
    assert (first.value, first.number, first.ttl_ms) == (b"2", 2, None)
    assert not none.applied
    assert (last.value, last.number) == (b"3", 3)
    assert 50_000 < last.ttl_ms < 60_000
    assert (found.keys, found.key_count) == ([b"a", b"b", b"c"], 3)


@pytest.mark.parametrize("asks", [read, ask])
def test_reads_on_a_leader_of_the_past_are_refused(world: World, asks: Any) -> None:
    leader = world.form(3)
    world.cut(["n1"], ["n2", "n3"])
    found = asks(world, leader, b"a")
    world.until(lambda: not found.open)
    assert found.error is not None
    assert found.error.code in ("not-leader", "unavailable")


def test_stale_reads_are_answered_by_any_member_at_once(world: World) -> None:
    leader = world.form(3)
    send(world, leader, Put("a", b"1"))
    world.run(HEARTBEAT_TICKS)
    world.cut(["n1", "n2"], ["n3"])
    send(world, leader, Put("a", b"2"))
    assert read(world, world["n3"], b"a", b"b", stale=True).values == [b"1", None]
    assert read(world, leader, b"a", stale=True).values == [b"2"]
    assert [each.value for each in ask(world, world["n3"], b"a", stale=True).values] == [b"1"]
    assert ask(world, world["n3"], b"a").error.code == "not-leader"


@pytest.mark.parametrize("asks", [read, ask])
def test_a_blank_server_reads_nothing(world: World, asks: Any) -> None:
    blank = world.boot("n1")
    for stale in (False, True):
        error = asks(world, blank, b"a", stale=stale).error
        assert error is not None
        assert error.code == "unavailable"


def test_no_more_values_are_read_than_fit_into_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.reading.VALUES_BYTES_MAX", 2_500)
    leader = world.form(3)
    send(world, leader, *[Put(f"k{number}", bytes([number]) * 1_000) for number in range(5)])
    keys = [b"k%d" % number for number in range(5)]
    for stale in (False, True):
        left, values = keys, []
        while left:
            found = read(world, leader, *left, stale=stale)
            world.until(lambda each=found: not each.open)  # type: ignore[misc]
            assert found.values is not None
            assert 1 <= len(found.values) <= 2
            values += found.values
            left = left[len(found.values) :]
        assert values == [bytes([number]) * 1_000 for number in range(5)]


# --- the length of a turn -------------------------------------------------------------------


def test_commands_with_many_keys_are_applied_in_several_turns(world: World) -> None:
    leader = world.form(1)
    pairs = [(f"k{number}", b"") for number in range(4_000)]
    told = [Told() for _ in range(30)]
    leader.inbox.append(CommandsArrived([encode_command(Command(PutMany(pairs)))] * 30, told))
    leader.turn(tick=False)
    answered = sum(len(each.answers) for each in told)
    assert 0 < answered < 15
    assert leader.running.is_behind
    world.run(1)
    while leader.running.is_behind:
        leader.turn(tick=False)
    assert [each.result.revision for each in told] == [4_000 * n for n in range(1, 31)]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([Append("a", b"y")], id="each_writes_much"),
        pytest.param([Append("a", b"y")] * 12, id="each_is_refused_since_it_writes_too_much"),
        pytest.param([SetKey("a", b"", if_absent=True)] * 500, id="each_reads_much"),
    ],
)
def test_short_commands_that_make_much_work_are_applied_in_several_turns(steps: list[Step]) -> None:
    world = World(features_max=FEATURES_LIVES)
    leader = world.form(1)
    (first,) = send(world, leader, Put("a", b"x" * 900_000))
    encoded = encode_command(Command(Transaction((), tuple(steps))))
    told = [Told() for _ in range(40)]
    leader.inbox.append(CommandsArrived([encoded] * 40, told))
    answered = []
    while not answered or leader.running.is_behind:
        leader.turn(tick=False)
        answered.append(sum(bool(each.answers) for each in told))
    assert answered[-1] == 40
    assert 0 < answered[0] <= 20
    revisions = [each.result.revision for each in told]
    if told[0].result.applied and isinstance(steps[0], Append):
        assert revisions == [first.result.revision + number for number in range(1, 41)]
    else:
        assert set(revisions) == {first.result.revision}


LONG_VALUE = "x" * (VALUE_BYTES_MAX - 1)


def put_long(world: World, key: str) -> None:
    world.open_session("s")
    reply = world.call(world.leader(), world.put(key, LONG_VALUE))
    assert isinstance(reply, WriteReply), reply


def answered_in_one_turn(server: Server, asked: Sequence[Asked]) -> int:
    """Return how many are answered in the next turn, and let the others be answered after it."""
    server.turn(tick=False)
    count = sum(not each.open for each in asked)
    assert [each.open for each in asked] == [False] * count + [True] * (len(asked) - count)
    while server.running.is_behind:
        server.turn(tick=False)
    return count


@pytest.mark.parametrize("stale", [False, True])
def test_long_values_that_are_asked_for_at_once_are_given_in_several_turns(
    world: World, stale: bool
) -> None:
    leader = world.form(1)
    put_long(world, "a")
    asked = [world.ask_later(leader, GetRequest(key="a", stale=stale)) for _ in range(40)]
    assert 1 <= answered_in_one_turn(leader, asked) <= PORTION_BYTES // VALUE_BYTES_MAX + 1
    for each in asked:
        assert isinstance(each.reply, GetReply)
        assert each.reply.value.decode() == LONG_VALUE


def test_long_lists_of_short_entries_are_given_in_several_turns(world: World) -> None:
    leader = world.form(1)
    pairs = [(f"k{number}", b"") for number in range(5_000)]
    send(world, leader, PutMany(pairs))
    asked = [world.ask_later(leader, ListRequest(limit=5_000)) for _ in range(20)]
    assert 1 <= answered_in_one_turn(leader, asked) <= PORTION_BYTES // (5_000 * ANSWER_BYTES) + 1
    for each in asked:
        assert isinstance(each.reply, ListReply)
        assert len(each.reply.entries) == 5_000


def test_a_read_that_waits_for_the_next_turn_sees_what_was_written_before_it(world: World) -> None:
    leader = world.form(1)
    put_long(world, "a")
    asked = [world.ask_later(leader, GetRequest(key="a")) for _ in range(40)]
    leader.turn(tick=False)
    write = world.ask_later(leader, world.put("b", "new"))
    read = world.ask_later(leader, GetRequest(key="b"))
    leader.turn(tick=False)
    assert isinstance(write.reply, WriteReply)
    assert read.open
    late = world.ask_later(leader, GetRequest(key="b"))
    world.run(1)
    while leader.running.is_behind:
        leader.turn(tick=False)
    assert not any(each.open for each in asked)
    for each in (read, late):
        assert isinstance(each.reply, GetReply)
    assert isinstance(late.reply, GetReply)
    assert late.reply.value == b"new"


def test_many_who_watch_a_long_value_are_told_of_it_in_several_turns(world: World) -> None:
    leader = world.form(1)
    world.open_session("s")
    request = WatchRequest(after_revision=0, prefix="a", wait_ms=10_000)
    asked = [world.ask_later(leader, request) for _ in range(40)]
    other = world.ask_later(leader, attrs.evolve(request, prefix="other"))
    leader.turn(tick=False)
    world.ask_later(leader, world.put("a", LONG_VALUE))
    assert 1 <= answered_in_one_turn(leader, asked) <= PORTION_BYTES // VALUE_BYTES_MAX + 1
    for each in asked:
        assert isinstance(each.reply, WatchReply)
        assert [event.revision for event in each.reply.events] == [1]
    assert other.open
    again = [world.ask_later(leader, request) for _ in range(40)]
    assert 1 <= answered_in_one_turn(leader, again) <= PORTION_BYTES // VALUE_BYTES_MAX + 1
    for each in again:
        assert isinstance(each.reply, WatchReply)
        assert [event.revision for event in each.reply.events] == [1]


def test_changes_that_concern_nobody_are_looked_at_in_several_turns(world: World) -> None:
    leader = world.form(1)
    pairs = [(f"k{number}", b"") for number in range(10_000)]
    send(world, leader, *[PutMany(pairs)] * 3)
    world.run(1)
    request = WatchRequest(after_revision=0, prefix="other")
    asked = [world.ask_later(leader, request) for _ in range(20)]
    assert 1 <= answered_in_one_turn(leader, asked) <= PORTION_BYTES // (30_000 * LOOKED_BYTES) + 1
    for each in asked:
        assert isinstance(each.reply, WatchReply)
        assert (each.reply.events, each.reply.next_after_revision) == ((), 30_000)
