"""Those who watch hear of every change once and in order, from whichever servers they ask."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from raftd import watching as watching_module
from raftd.commands import FEATURES_MAX
from raftd.protocol import (
    LIST_LIMIT_MAX,
    REVISION_GONE,
    WATCH_WAIT_MS_MAX,
    DeleteRequest,
    ErrorReply,
    EventView,
    WatchReply,
    WatchRequest,
    WriteReply,
)
from raftd.storage import events as events_module
from tests.node.growing import snapshot_world
from tests.node.test_installing import compact_past
from tests.node.test_lives import put as put_with_life
from tests.node.world import ELECTION_TICKS, TICK_MS, Asked, Server, World


def watch(world: World, server: Server, after: int, prefix: str = "", **more: int) -> WatchReply:
    reply = world.call(server, WatchRequest(after_revision=after, prefix=prefix, **more))
    assert isinstance(reply, WatchReply), reply
    return reply


def write(world: World, key: str, value: str = "v") -> None:
    reply = world.call(world.leader(), world.put(key, value))
    assert isinstance(reply, WriteReply), reply


def revisions(reply: WatchReply) -> list[int]:
    return [event.revision for event in reply.events]


@pytest.fixture
def world() -> World:
    world = World(features_max=FEATURES_MAX)
    world.form(3)
    return world


def test_every_member_answers_with_the_same_changes(world: World) -> None:
    write(world, "a", "1")
    write(world, "b")
    world.call(
        world.leader(),
        DeleteRequest(session="s", serial=world.serial("s"), lowest_unacknowledged=0, key="a"),
    )
    put_with_life(world, "a", 100)
    world.until(lambda: {server.state.revision for server in world.up()} == {5})
    for server in world.up():
        reply = watch(world, server, 0, "a")
        assert reply.events == (
            EventView(
                revision=1,
                kind="put",
                key="a",
                value=b"1",
                create_revision=1,
                mod_revision=1,
                version=1,
            ),
            EventView(revision=3, kind="delete", key="a"),
            EventView(
                revision=4,
                kind="put",
                key="a",
                value=b"v",
                create_revision=4,
                mod_revision=4,
                version=1,
            ),
            EventView(revision=5, kind="expired", key="a"),
        )
        assert (reply.next_after_revision, reply.revision) == (5, 5)
        assert reply.leader == world.leader().id
        assert revisions(watch(world, server, 3, limit=1)) == [4]


def test_whoever_waits_is_answered_with_the_change_and_not_before(world: World) -> None:
    followers = [server for server in world.up() if not server.leads]
    asked = world.ask(followers[0], WatchRequest(after_revision=0, prefix="k", wait_ms=10_000))
    write(world, "other")
    world.run(5)
    assert asked.open
    write(world, "k")
    world.run(3)
    assert isinstance(asked.reply, WatchReply)
    assert (revisions(asked.reply), asked.reply.next_after_revision) == ([2], 2)


def test_after_its_time_it_is_told_how_far_nothing_was_missed(world: World) -> None:
    leader = world.leader()
    asked = world.ask(leader, WatchRequest(after_revision=0, prefix="k", wait_ms=500))
    write(world, "other")
    world.run(round(500 / TICK_MS) - 1)
    assert asked.open
    world.run(2)
    assert isinstance(asked.reply, WatchReply)
    assert (asked.reply.events, asked.reply.next_after_revision) == ((), 1)


def test_a_revision_that_is_not_there_yet_is_waited_for(world: World) -> None:
    leader = world.leader()
    asked = world.ask(leader, WatchRequest(after_revision=2, wait_ms=10_000))
    for key in "abc":
        assert asked.open
        write(world, key)
    assert isinstance(asked.reply, WatchReply)
    assert revisions(asked.reply) == [3]


def test_a_server_without_a_leader_says_so(world: World) -> None:
    alone = next(server for server in world.up() if not server.leads)
    world.cut([server.name for server in world.up() if server is not alone], [alone.name])
    world.run(60)
    assert watch(world, alone, 0).leader == ""


def test_what_a_server_does_not_have_any_more_is_an_error_with_the_oldest_it_has(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "EVENTS_MAX", 4)
    monkeypatch.setattr(events_module, "_SEGMENT_EVENTS", 2)
    for number in range(10):
        write(world, f"k{number}")
    leader = world.leader()
    oldest = leader.state.events.oldest_revision
    assert 4 <= oldest <= 7
    for wait_ms in (0, 10_000):
        request = WatchRequest(after_revision=oldest - 2, wait_ms=wait_ms)
        refused = world.ask(leader, request).error
        assert (refused.code, refused.oldest_revision) == (REVISION_GONE, oldest)
        assert f"has revision {oldest}" in refused.cause
    assert revisions(watch(world, leader, oldest - 1))[0] == oldest


def test_after_a_snapshot_a_server_begins_again_and_those_who_wait_are_told() -> None:
    world = snapshot_world()
    world.form(3)
    late = next(server for server in world.up() if not server.leads)
    asked = world.ask(late, WatchRequest(after_revision=0, prefix="none", wait_ms=60_000))
    world.cut([server.name for server in world.up() if server is not late], [late.name])
    world.run(2 * ELECTION_TICKS)
    compact_past(world, late)
    world.heal()
    world.until(lambda: late.state.revision == world.leader().state.revision, 400)
    assert asked.error.code == REVISION_GONE
    assert late.state.events.oldest_revision > 1


def test_there_is_a_bound_for_those_who_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching_module, "WATCHES_MAX", 2)
    leader = world.leader()
    request = WatchRequest(after_revision=0, wait_ms=10_000)
    waiting = [world.ask(leader, request) for _ in range(2)]
    assert world.ask(leader, request).error.code == "unavailable"
    assert watch(world, leader, 0).events == ()
    write(world, "k")
    assert all(not asked.open for asked in waiting)
    assert world.ask(leader, WatchRequest(after_revision=1, wait_ms=10_000)).open


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 0},
        {"limit": LIST_LIMIT_MAX + 1},
        {"wait_ms": WATCH_WAIT_MS_MAX + 1},
        {"prefix": "k" * 481},
    ],
)
def test_what_is_over_a_limit_is_refused(world: World, fields: dict[str, object]) -> None:
    assert world.ask(world.leader(), WatchRequest(after_revision=0, **fields)).error.code == (
        "invalid"
    )


def test_a_blank_server_has_nothing_to_say() -> None:
    world = World()
    asked = world.ask(world.boot("n1"), WatchRequest(after_revision=0, wait_ms=1_000))
    assert asked.error.code == "unavailable"


class Watcher:
    """Asks servers at random, and goes on with another one when one is silent or gone."""

    def __init__(self, world: World, random: Random) -> None:
        self.heard: list[EventView] = []
        self._world, self._random = world, random
        self._after = 0
        self._asked: Asked | None = None
        self._since = 0

    def act(self) -> None:
        asked = self._asked
        if asked is not None and asked.open and self._world.now - self._since < 30:
            return
        if asked is not None and isinstance(asked.reply, WatchReply):
            self.heard += asked.reply.events
            self._after = asked.reply.next_after_revision
        elif asked is not None and asked.reply is not None:
            assert isinstance(asked.reply, ErrorReply)
            assert asked.reply.code in (REVISION_GONE, "unavailable"), asked.reply
        servers = self._world.up()
        if not servers:
            return
        wait_ms = self._random.choice([0, 200, 1_000])
        request = WatchRequest(after_revision=self._after, prefix="k", limit=3, wait_ms=wait_ms)
        self._since = self._world.now
        self._asked = self._world.ask_later(self._random.choice(servers), request)


@pytest.mark.parametrize("seed", range(5))
def test_every_change_is_heard_once_and_in_order_over_kills_of_leaders(seed: int) -> None:
    world = World(seed=seed)
    world.form(3)
    random = Random(seed)
    watchers = [Watcher(world, random) for _ in range(3)]
    number = 0
    for leader in _leaders_that_die(world, random, kills=4):
        for _ in range(random.randint(1, 6)):
            number += 1
            world.ask_later(leader, world.put(f"{random.choice('kx')}{number % 5}", str(number)))
        for watcher in watchers:
            watcher.act()
        world.tick()
    world.until(world.is_settled, 400)
    for _ in range(100):
        for watcher in watchers:
            watcher.act()
        world.tick()
    everything, _ = max(
        (
            server.state.events.after(0, b"k", 10_000, 1 << 40)
            for server in world.up()
            if server.state.events.oldest_revision == 1
        ),
        key=lambda found: len(found[0]),
    )
    expected = [(event.revision, event.key, event.value) for event in everything]
    assert len(expected) > 20
    for watcher in watchers:
        assert [(e.revision, e.key, e.value) for e in watcher.heard] == expected


def _leaders_that_die(world: World, random: Random, kills: int) -> Iterator[Server]:
    """Yield the leader again and again; between, it is killed, and comes back with its log."""
    for _ in range(kills):
        for _ in range(random.randint(5, 15)):
            yield world.leader()
        leader = world.leader()
        leader.kill()
        yield world.leader()
        leader.start()
