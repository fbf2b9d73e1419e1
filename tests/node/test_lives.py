"""Keys with a life in a cluster: they end by its own time, never early, whoever leads."""

from __future__ import annotations

import pytest

from raftd.cluster_time import CLOCK_INTERVAL_MS
from raftd.commands import (
    FEATURES_COUNTERS,
    FEATURES_MAX,
    AdvanceClock,
    Command,
    SetKey,
    SetLife,
    Step,
    Transaction,
    decode_command,
    encode_command,
    encode_put,
)
from raftd.core.types import EntryKind
from raftd.inputs import CommandsArrived
from raftd.protocol import (
    NOT_NOW,
    GetReply,
    GetRequest,
    ListReply,
    ListRequest,
    TransactionReply,
    TransactionRequest,
    TransferRequest,
)
from raftd.storage import lives as lives_module
from raftd.transactions import decode_outcomes, encode_steps
from tests.node.growing import did, snapshot_world
from tests.node.test_batches import Told
from tests.node.test_installing import compact_past
from tests.node.world import ELECTION_TICKS, HEARTBEAT_TICKS, TICK_MS, Asked, Server, World

SECOND_TICKS = round(1000 / TICK_MS)
ELECTIONS_TICKS = 8 * ELECTION_TICKS
"""Enough for a leader to be found out, and for another one to be elected."""


def make_world(**more: object) -> World:
    return World(features_max=FEATURES_MAX, **more)


def transaction(world: World, *steps: Step, session: str = "s") -> TransactionRequest:
    return TransactionRequest(
        session=session,
        serial=world.serial(session),
        lowest_unacknowledged=0,
        content=encode_steps((), steps),
    )


def put(world: World, key: str, ttl_ms: int, server: Server | None = None) -> int:
    """Set a key with a life and return the tick at which the leader was asked."""
    server = server or world.leader()
    now = world.now
    reply = world.call(server, transaction(world, SetKey(key, b"v", ttl_ms)))
    assert isinstance(reply, TransactionReply), reply
    assert reply.applied
    return now


def is_there(world: World, key: str, server: Server | None = None) -> bool:
    reply = world.call(server or world.leader(), GetRequest(key=key, stale=True))
    assert isinstance(reply, GetReply)
    return reply.found


def ends_at(world: World, key: str, ticks: int = 4_000) -> int:
    """Let time pass until no server has the key any more; return when the first one lost it."""
    first = 0
    had: set[str] = set()
    for _ in range(ticks):
        having = {server.name for server in world.up() if server.state.get(key) is not None}
        if had - having and not first:
            first = world.now
        had |= having
        if had and not having:
            return first
        world.tick()
    raise AssertionError(f"{key} lives on")


def count_of(world: World, kind: type) -> int:
    """Return how many commands of a kind the log of the leader has."""
    log = world.leader().running.raft.log
    return sum(
        isinstance(decode_command(entry.data).body, kind)
        for entry in log.entries(log.first_index, log.last_index)
        if entry.kind is EntryKind.COMMAND
    )


def ready(world: World, count: int = 3) -> Server:
    leader = world.form(count)
    world.until(lambda: {server.state.features for server in world.up()} == {FEATURES_MAX})
    return world.leader() or leader


# --- a quiet cluster ------------------------------------------------------------------------


@pytest.mark.parametrize("servers", [1, 3])
def test_a_key_lives_as_long_as_it_was_promised_and_not_much_longer(servers: int) -> None:
    world = make_world()
    ready(world, servers)
    began = put(world, "k", 2_000)
    put(world, "other", 0)
    lived = ends_at(world, "k") - began
    assert 2 * SECOND_TICKS <= lived <= 2 * SECOND_TICKS + 2 * HEARTBEAT_TICKS
    assert is_there(world, "other")


def test_readers_hear_what_is_left_of_a_life() -> None:
    world = make_world()
    ready(world)
    put(world, "k", 2_000)
    put(world, "other", 0)
    world.run(SECOND_TICKS // 2)
    reply = world.call(world.leader(), GetRequest(key="k"))
    assert isinstance(reply, GetReply)
    assert reply.ttl_ms == 1_500
    for server in world.up():
        here = world.call(server, GetRequest(key="k", stale=True))
        assert isinstance(here, GetReply)
        # A follower counts from when it heard of it.
        assert 1_500 <= (here.ttl_ms or 0) <= 1_500 + HEARTBEAT_TICKS * TICK_MS
    found = world.call(world.leader(), ListRequest())
    assert isinstance(found, ListReply)
    assert {entry.key: entry.ttl_ms for entry in found.entries} == {"k": 1_500, "other": None}


def test_the_answers_of_steps_reach_the_client() -> None:
    world = make_world()
    ready(world)
    put(world, "k", 2_000)
    world.run(SECOND_TICKS)
    reply = world.call(world.leader(), transaction(world, SetLife("k", 0), SetKey("n", b"1")))
    assert isinstance(reply, TransactionReply)
    assert [outcome.applied for outcome in decode_outcomes(reply.outcomes)] == [True, True]
    world.run(5 * SECOND_TICKS)
    assert is_there(world, "k")


def test_the_wall_clock_has_nothing_to_do_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world()
    ready(world)
    began = put(world, "k", 2_000)
    # A jump of a year, and of every server another one.
    clock = World.wall_clock_ms
    monkeypatch.setattr(World, "wall_clock_ms", lambda self: clock(self) + 31_536_000_000)
    world.run(SECOND_TICKS)
    monkeypatch.setattr(World, "wall_clock_ms", lambda self: clock(self) - 31_536_000_000)
    lived = ends_at(world, "k") - began
    assert 2 * SECOND_TICKS <= lived <= 2 * SECOND_TICKS + 2 * HEARTBEAT_TICKS


def test_time_goes_on_under_a_steady_stream_of_transactions_whose_answers_take_long() -> None:
    world = make_world()
    ready(world)
    world.delay_ticks = (1, 1)
    began = put(world, "k", 2_000)
    put(world, "long", 60_000)
    leader = world.leader()

    def write() -> bool:
        world.ask_later(leader, transaction(world, SetKey("busy", b"v", 60_000)))
        return leader.state.get("k") is None

    world.until(write, 4 * SECOND_TICKS)
    lived = world.now - began
    assert 2 * SECOND_TICKS <= lived <= 2 * SECOND_TICKS + 4 * HEARTBEAT_TICKS


def test_a_great_many_keys_that_lapse_together_end_entry_by_entry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lives_module, "EXPIRED_MAX", 10)
    world = make_world()
    ready(world)
    steps = [SetKey(f"k{number}", b"v", 1_000) for number in range(95)]
    reply = world.call(world.leader(), transaction(world, *steps))
    assert isinstance(reply, TransactionReply)
    assert reply.applied
    leader = world.leader()
    world.until(lambda: leader.state.life_count < 95)
    # No tick is waited for between two entries.
    while leader.running.is_behind:
        leader.turn(tick=False)
        world.settle()
    assert leader.state.life_count == 0
    world.run(HEARTBEAT_TICKS)
    assert {server.state.life_count for server in world.up()} == {0}
    # And one that finds nothing more.
    assert count_of(world, AdvanceClock) <= 11


def test_the_time_is_written_down_now_and_then_and_only_while_a_key_has_a_life() -> None:
    world = make_world()
    ready(world)
    world.run(60 * SECOND_TICKS)
    assert count_of(world, AdvanceClock) == 0
    put(world, "k", 100_000)
    interval_ticks = round(CLOCK_INTERVAL_MS / TICK_MS)
    world.run(3 * interval_ticks + HEARTBEAT_TICKS)
    assert count_of(world, AdvanceClock) == 3
    clocks = {server.state.clock_ms for server in world.up()}
    assert len(clocks) == 1


# --- leaders come and go --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_new_leader_neither_shortens_a_life_nor_makes_it_much_longer(seed: int) -> None:
    world = make_world(seed=seed)
    ready(world)
    began = put(world, "k", 6_000)
    for _ in range(3):
        world.run(SECOND_TICKS)
        leader = world.leader()
        leader.kill()
        world.leader()
        leader.start()
    lived = ends_at(world, "k") - began
    assert 6 * SECOND_TICKS <= lived <= 6 * SECOND_TICKS + ELECTIONS_TICKS


def test_a_leader_that_is_cut_off_ends_nothing() -> None:
    world = make_world()
    old = ready(world)
    put(world, "k", 1_000)
    others = [server for server in world.up() if server is not old]
    world.cut([old.name], [other.name for other in others])
    world.run(3 * SECOND_TICKS)
    assert old.state.get("k") is not None
    assert all(other.state.get("k") is None for other in others)
    world.heal()
    world.until(lambda: old.state.get("k") is None)


def test_who_has_counted_ahead_of_a_leader_ends_no_life_that_this_one_gave_early() -> None:
    world = make_world()
    ahead = ready(world)
    put(world, "clock", 600_000)
    others = [server for server in world.up() if server is not ahead]
    world.run(8 * SECOND_TICKS)
    # Whoever starts again counts on from the last time in the log.
    world.cut([ahead.name], [server.name for server in others])
    for server in others:
        server.restart(keeps_state=True)
    world.until(lambda: any(server.leads for server in others))
    began = put(world, "k", 4_000, next(server for server in others if server.leads))
    world.heal()
    world.until(world.is_settled)
    world.call(world.leader(), TransferRequest(target=ahead.name))
    assert world.leader() is ahead
    lived = ends_at(world, "k") - began
    assert 4 * SECOND_TICKS <= lived <= 4 * SECOND_TICKS + ELECTIONS_TICKS


def test_all_servers_may_stop_and_the_rest_of_a_life_goes_on_with_them() -> None:
    world = make_world()
    ready(world)
    put(world, "k", 30_000)
    world.run(12 * SECOND_TICKS)
    for server in world.up():
        server.kill()
    world.run(100 * SECOND_TICKS)
    for server in world.servers.values():
        server.start()
    began = world.now
    world.leader()
    lived = ends_at(world, "k") - began
    # The time was written down after 10 of the 12 seconds.
    assert lived >= 18 * SECOND_TICKS
    assert lived <= 20 * SECOND_TICKS + ELECTIONS_TICKS


def test_a_new_leader_says_no_time_before_it_has_applied_what_was_before_its_term() -> None:
    world = make_world()
    old = ready(world)
    put(world, "k", 60_000)
    others = [server for server in world.up() if server is not old]
    old.kill()
    elected: list[Server] = []

    def look() -> bool:
        elected.extend(server for server in others if server.leads)
        return bool(elected)

    # It is elected and nobody answers it: nothing of its term is committed.
    world.passes = lambda envelope: not type(envelope.message).__name__.startswith("AppendEntries")
    world.until(look)
    leader = elected[0]
    waiting = [Told(), Told(), Told()]
    commands = [
        encode_put("a", b"1"),
        encode_command(Command(Transaction((), (SetKey("b", b"1", 1_000),)))),
        encode_put("c", b"1"),
    ]
    leader.inbox.append(CommandsArrived(commands, waiting))
    leader.turn(tick=False)
    refused = waiting[1].error
    assert (refused.code, refused.message) == ("unavailable", NOT_NOW)
    assert not waiting[0].answers
    assert not waiting[2].answers
    world.passes = lambda envelope: True
    world.until(lambda: waiting[2].answers)
    assert waiting[0].result.applied
    assert not is_there(world, "b")
    put(world, "b", 1_000)


# --- features -------------------------------------------------------------------------------


def test_before_every_member_can_apply_them_nothing_of_it_is_appended() -> None:
    world = World(features_max=FEATURES_COUNTERS)
    leader = world.form(3)
    world.until(lambda: leader.state.features == FEATURES_COUNTERS)
    before = leader.running.raft.log.last_index
    asked: Asked = world.ask(leader, transaction(world, SetKey("k", b"v", 1_000)))
    assert asked.error.code == "refused"
    assert "features of version 5 are not switched on: upgrade every member" in asked.error.cause
    assert leader.running.raft.log.last_index == before


def test_bytes_that_are_no_steps_are_refused_and_not_appended() -> None:
    world = make_world()
    leader = ready(world)
    before = leader.running.raft.log.last_index
    request = TransactionRequest(
        session="s", serial=world.serial("s"), lowest_unacknowledged=0, content=b"\xc1"
    )
    assert world.ask(leader, request).error.code == "invalid"
    assert leader.running.raft.log.last_index == before


# --- snapshots ------------------------------------------------------------------------------


def test_a_server_that_got_a_snapshot_knows_the_lives_and_the_time_and_can_end_them() -> None:
    world = snapshot_world(features_max=FEATURES_MAX)
    ready(world)
    began = put(world, "k", 20_000)
    late = next(server for server in world.up() if not server.leads)
    world.cut([server.name for server in world.up() if server is not late], [late.name])
    world.run(2 * ELECTION_TICKS)
    compact_past(world, late)
    world.heal()
    world.until(world.is_settled, 400)
    assert did(late, "receive")
    assert (late.state.life_count, late.state.clock_ms) == (1, world.leader().state.clock_ms)
    world.call(world.leader(), TransferRequest(target=late.name))
    assert world.leader() is late
    lived = ends_at(world, "k") - began
    # It was away when the time was written down, and counts on from the snapshot.
    assert 20 * SECOND_TICKS <= lived <= 30 * SECOND_TICKS + ELECTIONS_TICKS
