"""Exactly once: serials across lost answers, leaders and restarts."""

from __future__ import annotations

import attrs
import pytest

from raftd.core.messages import AppendEntries
from raftd.protocol import (
    ChangeRequest,
    CompareAndSetRequest,
    DeleteRequest,
    DoneReply,
    ErrorReply,
    OpenSessionRequest,
    PutRequest,
    WriteReply,
)
from raftd.storage import state
from raftd.storage.state import SESSION_RESULTS_MAX
from tests.node.world import ELECTION_TICKS, World, new

ONCE = WriteReply(applied=True, revision=1)


@pytest.fixture
def world() -> World:
    return World()


def test_a_write_that_is_sent_again_answers_the_same_and_is_done_once(world: World) -> None:
    leader = world.form(3)
    request = world.put("a")
    assert world.call(leader, request) == ONCE
    assert world.call(leader, request) == ONCE
    assert leader.state.get("a").version == 1


def test_two_copies_of_a_write_in_one_batch_are_done_once(world: World) -> None:
    leader = world.form(3)
    request = world.put("a")
    copies = [world.ask_later(leader, request) for _ in range(3)]
    world.settle()
    assert [asked.reply for asked in copies] == [ONCE] * 3
    assert leader.state.get("a").version == 1


def test_a_write_is_done_once_although_two_leaders_get_it(world: World) -> None:
    leader = world.form(3)
    request = world.put("a")
    world.call(leader, request)
    leader.kill()
    assert world.call(world.leader(), request) == ONCE
    assert world.leader().state.get("a").version == 1


def test_a_write_of_unknown_outcome_that_was_kept_is_not_done_again(world: World) -> None:
    leader = world.form(3)
    request = world.put("a")
    # Replicated to n2, acknowledged to nobody.
    world.passes = lambda envelope: envelope.source == leader.id and envelope.dest[:2] != "n3"
    asked = world.ask(leader, request)
    world.until(lambda: not asked.open)
    assert asked.error.code == "unknown-outcome"
    world.passes = lambda envelope: True
    world.cut(["n1"], ["n2", "n3"])
    assert world.call(world.until(lambda: world["n2"].leads and world["n2"]), request) == ONCE
    world.heal()
    world.until(world.is_settled)
    assert {server.state.get("a").version for server in world.up()} == {1}


def test_a_write_that_the_old_leader_alone_had_is_dropped_and_can_be_sent_again(
    world: World,
) -> None:
    leader = world.form(3)
    world.cut(["n1"], ["n2", "n3"])
    request = world.put("a", "old")
    asked = world.ask(leader, request)
    world.until(lambda: not asked.open)
    assert asked.error.code == "unknown-outcome"
    successor = world.until(lambda: next((s for s in world.up() if s.leads and s is not leader), 0))
    world.call(successor, world.put("b", "new"))
    world.heal()
    world.until(world.is_settled)
    assert leader.state.get("a") is None
    assert leader.state.get("b").value == b"new"
    assert world.call(successor, request) == WriteReply(applied=True, revision=2)


def test_sessions_survive_the_restart_of_every_server(world: World) -> None:
    leader = world.form(3)
    request = world.put("a")
    world.call(leader, request)
    for server in world.up():
        server.kill()
    for server in world.servers.values():
        server.start()
    assert world.call(world.leader(), request) == ONCE
    assert world.leader().state.get("a").version == 1


def test_a_session_that_was_never_opened_is_an_error_and_nothing_is_done(world: World) -> None:
    leader = world.form(3)
    for request in (
        world.put("a", session="other"),
        DeleteRequest(session="other", serial=2, lowest_unacknowledged=0, key="a"),
        CompareAndSetRequest(
            session="other", serial=3, lowest_unacknowledged=0, key="a", expected=b"", value=b""
        ),
    ):
        reply = world.call(leader, request)
        assert isinstance(reply, ErrorReply)
        assert reply.code == "session-expired"
        assert reply.hint.startswith("open a new session")
    assert leader.state.revision == 0


def test_an_evicted_session_is_expired_on_every_server(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SESSIONS_MAX", 3)
    leader = world.form(3)
    request = world.put("a")
    world.call(leader, request)
    for number in range(3):
        world.open_session(f"t{number}")
    reply = world.call(leader, request)
    assert isinstance(reply, ErrorReply)
    assert reply.code == "session-expired"
    leader.kill()
    reply = world.call(world.leader(), request)
    assert isinstance(reply, ErrorReply)
    assert reply.code == "session-expired"
    assert world.leader().state.get("a").version == 1


def test_opening_a_session_twice_forgets_nothing(world: World) -> None:
    leader = world.form(3)
    request = world.put("a")
    world.call(leader, request)
    assert world.call(leader, OpenSessionRequest(session="s")) == DoneReply()
    assert world.call(leader, request) == ONCE
    assert leader.state.get("a").version == 1


def test_an_acknowledged_serial_is_never_done_again(world: World) -> None:
    leader = world.form(3)
    first = world.put("a")
    world.call(leader, first)
    world.call(leader, attrs.evolve(world.put("b"), lowest_unacknowledged=first.serial + 1))
    reply = world.call(leader, first)
    assert isinstance(reply, ErrorReply)
    assert reply.code == "session-expired"
    assert "stale-serial" in reply.message
    assert leader.state.get("a").version == 1


def test_too_many_unacknowledged_writes_are_put_off_and_not_lost(world: World) -> None:
    leader = world.bootstrap()
    for _ in range(SESSION_RESULTS_MAX):
        world.ask_later(leader, world.put("a"))
    world.settle()
    request = world.put("b")
    reply = world.call(leader, request)
    assert isinstance(reply, ErrorReply)
    assert reply.code == "unavailable"
    again = attrs.evolve(request, lowest_unacknowledged=request.serial)
    assert isinstance(world.call(leader, again), WriteReply)


def test_conditions_answer_applied_false_and_the_same_when_asked_again(world: World) -> None:
    leader = world.form(3)
    world.call(leader, world.put("a", "1"))
    failing = [
        world.put("a", "2", if_absent=True),
        world.put("a", "2", if_revision=7),
        CompareAndSetRequest(
            session="s",
            serial=world.serial("s"),
            lowest_unacknowledged=0,
            key="a",
            expected=b"2",
            value=b"3",
        ),
    ]
    for request in failing:
        assert world.call(leader, request) == WriteReply(applied=False, revision=1)
    world.call(leader, DeleteRequest(session="s", serial=99, lowest_unacknowledged=0, key="a"))
    for request in failing:
        assert world.call(leader, request) == WriteReply(applied=False, revision=1)


def test_a_change_shares_the_serials_of_its_session(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    request = world.change("add", new("n4"))
    assert isinstance(request, ChangeRequest)
    operation = world.started(request)
    leader.kill()
    world.run(ELECTION_TICKS)
    assert world.started(request) == operation
    world.finish(operation)
    assert world.started(request) == operation
    assert len(world.leader().state.operations()) == 2


def test_a_write_that_reaches_a_leader_of_the_past_is_never_reported_as_done(
    world: World,
) -> None:
    leader = world.form(3)
    world.cut(["n1"], ["n2", "n3"])
    asked = [world.ask(leader, world.put(f"k{number}")) for number in range(5)]
    world.passes = lambda envelope: not isinstance(envelope.message, AppendEntries)
    world.run(3 * ELECTION_TICKS)
    assert {item.error.code for item in asked} == {"unknown-outcome"}
    later = world.ask(
        leader, PutRequest(session="s", serial=99, lowest_unacknowledged=0, key="k", value=b"")
    )
    assert later.error.code == "unavailable"
