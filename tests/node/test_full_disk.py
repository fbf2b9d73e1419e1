"""A disk that is nearly full: what is refused, what goes on, and what is said about it."""

from __future__ import annotations

import pytest

from raftd.protocol import (
    CompareAndSetRequest,
    DeleteRequest,
    DoneReply,
    ErrorReply,
    OpenSessionRequest,
    StatusReply,
    WriteReply,
)
from tests.node.asking import assert_hint_is_a_command
from tests.node.world import HEARTBEAT_TICKS, Server, World, drop, new

RESERVE_BYTES = 64 << 20


@pytest.fixture
def world() -> World:
    return World(disk_reserve_bytes=RESERVE_BYTES)


def fill_disk(world: World, *servers: Server) -> None:
    for server in servers:
        server.free_bytes = RESERVE_BYTES - 1
    # Followers look, then tell it with their next answer.
    world.run(2 * HEARTBEAT_TICKS)


def refusal(world: World, request: object) -> ErrorReply:
    reply = world.call(world.leader(), request)
    assert isinstance(reply, ErrorReply), reply
    return reply


def test_writes_are_refused_with_the_reason_and_a_way_out(world: World) -> None:
    leader = world.form(3)
    fill_disk(world, leader)
    before = leader.status.last_index
    error = refusal(world, world.put("a"))
    assert error.code == "disk-full"
    assert error.cause == "on n1: 64 MiB of disk left, 64 MiB are reserved"
    assert_hint_is_a_command(error.hint)
    assert error.hint.startswith("`raftctl status`, then make room on n1; ")
    assert error.hint.endswith("`raftctl replace n1 NEW=HOST:PORT`")
    for request in (
        DeleteRequest(session="s", serial=99, lowest_unacknowledged=0, key="a"),
        CompareAndSetRequest(
            session="s", serial=99, lowest_unacknowledged=0, key="a", expected=b"", value=b""
        ),
    ):
        assert refusal(world, request).code == "disk-full"
    assert leader.status.last_index == before


def test_at_exactly_the_reserve_writes_are_accepted(world: World) -> None:
    leader = world.form(3)
    leader.free_bytes = RESERVE_BYTES
    world.run(1)
    assert isinstance(world.call(leader, world.put("a")), WriteReply)


def test_reads_status_and_elections_go_on(world: World) -> None:
    leader = world.form(3)
    world.call(leader, world.put("a", "1"))
    world.run(HEARTBEAT_TICKS)
    fill_disk(world, *world.up())
    assert world.get("a") == "1"
    assert world.get("a", world["n2"], stale=True) == "1"
    for server in world.up():
        assert isinstance(server.status, StatusReply)
        assert "the disk is nearly full: 64 MiB of disk left, 64 MiB are reserved" in (
            server.status.issues
        )
    leader.kill()
    assert world.leader() is not leader
    assert world.get("a") == "1"


def test_membership_changes_go_on_so_that_the_server_can_be_replaced(world: World) -> None:
    leader = world.form(3)
    fill_disk(world, leader)
    world.boot("n4")
    record = world.finish(world.started(world.change("replace", drop("n1"), new("n4"))))
    assert record.result == "done"
    assert isinstance(world.call(world.leader(), world.put("a")), WriteReply)


def test_one_follower_that_is_short_stops_nobody(world: World) -> None:
    leader = world.form(3)
    fill_disk(world, world["n3"])
    assert isinstance(world.call(leader, world.put("a")), WriteReply)


def test_writes_are_refused_where_without_those_who_are_short_there_is_no_majority(
    world: World,
) -> None:
    leader = world.form(3)
    fill_disk(world, world["n2"], world["n3"])
    error = refusal(world, world.put("a"))
    assert error.code == "disk-full"
    assert error.cause == "on n2, n3, and without them there is no majority"
    world["n2"].free_bytes = 1 << 40
    world.run(2 * HEARTBEAT_TICKS)
    assert isinstance(world.call(leader, world.put("a")), WriteReply)


def test_learners_that_are_short_stop_nobody(world: World) -> None:
    leader = world.form(2, learners=3)
    fill_disk(world, *(world[name] for name in ("n3", "n4", "n5")))
    assert isinstance(world.call(leader, world.put("a")), WriteReply)


def test_with_more_room_writes_are_accepted_again(world: World) -> None:
    leader = world.form(3)
    fill_disk(world, leader)
    request = world.put("a", "1")
    assert refusal(world, request).code == "disk-full"
    leader.free_bytes = RESERVE_BYTES
    world.run(1)
    assert world.call(leader, request) == WriteReply(applied=True, revision=1)
    assert leader.status.issues == ()


def test_a_session_may_be_opened_since_membership_changes_need_one(world: World) -> None:
    leader = world.form(3)
    fill_disk(world, leader)
    assert world.call(leader, OpenSessionRequest(session="another")) == DoneReply()
