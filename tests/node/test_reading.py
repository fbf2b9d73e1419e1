"""Reads of real nodes: answered by whoever is asked, and by leases where they are asked for."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    ReadIndex,
    ReadIndexResponse,
    TimeoutNow,
)
from raftd.protocol import (
    PROTOCOL_VERSION_MAX,
    GetReply,
    GetRequest,
    ListReply,
    ListRequest,
    ReadIndexRequest,
)
from tests.node.world import (
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    TICK_MS,
    Asked,
    Server,
    World,
    drop,
)

OLD_VERSION = 3
T_MS = ELECTION_TICKS * TICK_MS
DRIFT = 0.1
LENGTH_MS = T_MS * (1 - DRIFT)
HERE = GetRequest(key="a", through_follower=True)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def leases() -> World:
    return World(reads_by_lease=True, clock_drift=DRIFT)


def value_of(asked: Asked) -> str | None:
    assert isinstance(asked.reply, GetReply), asked.reply
    return asked.reply.value.decode() if asked.reply.found else None


def sent(world: World, kind: type) -> list[Envelope]:
    return [
        step[1]
        for server in world.servers.values()
        for step in server.journal
        if step[0] == "send" and isinstance(step[1].message, kind)
    ]


def is_entry(envelope: Envelope) -> bool:
    return isinstance(envelope.message, AppendEntries) and bool(envelope.message.entries)


# --- a server that does not lead ---


@pytest.mark.parametrize("name", ["n2", "n4"])
def test_a_member_that_does_not_lead_answers_from_its_own_state(world: World, name: str) -> None:
    """n4 is a learner."""
    leader = world.form(3, learners=1)
    world.call(leader, world.put("a", "1"))
    asked = world.ask(name, HERE)
    assert value_of(asked) == "1"
    listed = world.ask(name, ListRequest(through_follower=True))
    assert isinstance(listed.reply, ListReply)
    assert [entry.key for entry in listed.reply.entries] == ["a"]


def test_it_waits_until_it_has_what_was_acknowledged_elsewhere(world: World) -> None:
    leader, follower = world.form(3), world["n2"]
    world.call(leader, world.put("a", "1"))
    world.run(HEARTBEAT_TICKS)
    world.passes = lambda envelope: envelope.dest != follower.id or not is_entry(envelope)
    world.call(leader, world.put("a", "2"))
    asked = world.ask(follower, HERE)
    # It knows up to where, and has not got it.
    assert [envelope.dest for envelope in sent(world, ReadIndexResponse)] == [follower.id]
    assert asked.open
    assert world.get("a", follower, stale=True) == "1"
    world.passes = lambda envelope: True
    world.until(lambda: not asked.open)
    assert value_of(asked) == "2"


def test_all_reads_of_a_moment_share_one_question_and_one_round(world: World) -> None:
    leader, follower = world.form(3), world["n2"]
    world.call(leader, world.put("a", "1"))
    world.run(HEARTBEAT_TICKS)
    for server in world.servers.values():
        server.journal.clear()
    reads = [world.ask_later(follower, HERE) for _ in range(50)]
    reads += [world.ask_later(leader, GetRequest(key="a")) for _ in range(50)]
    follower.turn(tick=False)
    world.settle()
    assert {value_of(read) for read in reads} == {"1"}
    assert len(sent(world, ReadIndex)) == 1
    rounds = {envelope.message.round for envelope in sent(world, AppendEntries)}
    assert len(rounds) == 1


def test_what_it_cannot_apply_in_time_is_not_answered_and_it_says_why(world: World) -> None:
    leader, follower = world.form(3), world["n2"]
    world.passes = lambda envelope: envelope.dest != follower.id or not is_entry(envelope)
    world.call(leader, world.put("a", "1"))
    asked = world.ask(follower, HERE)
    world.run(ELECTION_TICKS)
    assert asked.error.code == "unavailable"
    applied, needed = follower.state.applied_index, leader.state.applied_index
    assert asked.error.cause == f"n2 has applied {applied} of {needed} entries"
    assert asked.error.leader == leader.id
    assert asked.error.leader_address == leader.address


def test_a_leader_that_does_not_answer_is_not_waited_for_longer_than_an_election(
    world: World,
) -> None:
    leader, follower = world.form(3), world["n2"]
    world.passes = lambda envelope: not isinstance(envelope.message, ReadIndexResponse)
    asked = world.ask(follower, HERE)
    world.run(ELECTION_TICKS - 1)
    assert asked.open
    questions = [envelope.message.id for envelope in sent(world, ReadIndex)]
    assert len(set(questions)) == len(questions) == ELECTION_TICKS // HEARTBEAT_TICKS
    world.tick()
    assert asked.error.code == "unavailable"
    assert "has not said in time" in asked.error.cause
    assert asked.error.leader == leader.id


def test_reads_that_wait_are_asked_again_of_the_next_leader(world: World) -> None:
    leader, follower = world.form(3), world["n2"]
    world.call(leader, world.put("a", "1"))
    world.run(HEARTBEAT_TICKS)
    world.passes = lambda envelope: (
        envelope.dest != leader.id or not isinstance(envelope.message, ReadIndex)
    )
    asked = world.ask(follower, HERE)
    assert asked.open
    leader.running.raft.transfer_leadership(world["n3"].id)
    leader.turn(tick=False)
    world.settle()
    assert world["n3"].leads
    assert value_of(asked) == "1"


def test_a_server_that_comes_to_lead_answers_what_it_had_asked_about(world: World) -> None:
    leader, follower = world.form(3), world["n2"]
    world.call(leader, world.put("a", "1"))
    world.run(HEARTBEAT_TICKS)
    world.passes = lambda envelope: not isinstance(envelope.message, ReadIndexResponse)
    asked = world.ask(follower, HERE)
    leader.running.raft.transfer_leadership(follower.id)
    leader.turn(tick=False)
    world.settle()
    assert follower.leads
    assert value_of(asked) == "1"


def test_without_being_asked_to_it_names_the_leader_as_ever(world: World) -> None:
    leader = world.form(3)
    asked = world.ask("n2", GetRequest(key="a"))
    assert (asked.error.code, asked.error.leader) == ("not-leader", leader.id)
    assert sent(world, ReadIndex) == []


@pytest.mark.parametrize("old", ["n1", "n2"])
def test_between_releases_it_names_the_leader_too(world: World, old: str) -> None:
    """The older release would close the connection for a question that it does not know."""
    for number in (1, 2, 3):
        world.boot(f"n{number}").version_max = (
            OLD_VERSION if f"n{number}" == old else PROTOCOL_VERSION_MAX
        )
    leader = world.form_of("n1", "n2", "n3")
    world.call(leader, world.put("a", "1"))
    asked = world.ask("n2", HERE)
    assert (asked.error.code, asked.error.leader) == ("not-leader", leader.id)
    assert sent(world, ReadIndex) == []
    assert value_of(world.ask(leader, HERE)) == "1"


def test_without_a_link_to_the_leader_or_without_a_leader_it_says_so_at_once(
    world: World,
) -> None:
    leader, follower = world.form(3), world["n2"]
    blank = world.boot("n4")
    assert world.ask(blank, HERE).error.message == "n4 is blank"
    leader.kill()
    world.settle()
    assert world.ask(follower, HERE).error.code == "not-leader"
    world["n3"].kill()
    world.run(3 * ELECTION_TICKS)
    error = world.ask(follower, HERE).error
    assert (error.code, error.message) == ("unavailable", "no leader")


# --- leases ---


def acknowledged_rounds(world: World, leader: Server) -> None:
    """Let the leader hear from everybody."""
    world.run(HEARTBEAT_TICKS)
    assert leader.status.lease_remaining_ms


def test_a_leader_with_a_lease_answers_without_a_message(leases: World) -> None:
    leader = leases.form(3)
    leases.call(leader, leases.put("a", "1"))
    acknowledged_rounds(leases, leader)
    leader.journal.clear()
    asked = leases.ask_later(leader, GetRequest(key="a"))
    leader.turn(tick=False)
    assert value_of(asked) == "1"
    assert [step[0] for step in leader.journal if step[0] == "send"] == []
    status = leader.status
    assert status.reads == "lease"
    assert status.lease_remaining_ms is not None
    assert 0 < status.lease_remaining_ms <= LENGTH_MS
    assert leases["n2"].status.reads == "lease"
    assert leases["n2"].status.lease_remaining_ms is None


def test_without_leases_status_says_so(world: World) -> None:
    leader = world.form(3)
    assert (leader.status.reads, leader.status.lease_remaining_ms) == ("read-index", None)


def test_a_leader_whose_process_stood_still_does_not_answer_by_a_lease_of_the_past(
    leases: World,
) -> None:
    leader = leases.form(3)
    leases.call(leader, leases.put("a", "1"))
    acknowledged_rounds(leases, leader)
    leases.cut(["n1"], ["n2", "n3"])
    # What has come while it stood still is taken in at once, with no tick in between.
    asked = leases.ask_later(leader, GetRequest(key="a"))
    leader.clock_ahead_ms += LENGTH_MS
    leader.turn(tick=False)
    assert asked.open
    assert leader.leads
    assert leader.status.lease_remaining_ms == 0
    leases.until(lambda: not asked.open)
    assert asked.error.code in ("not-leader", "unavailable")


def test_the_clock_is_read_for_each_answer_and_not_once_for_a_turn(leases: World) -> None:
    leader = leases.form(3)
    leases.call(leader, leases.put("a", "1"))
    acknowledged_rounds(leases, leader)
    first = leases.ask_later(leader, GetRequest(key="a"))
    respond = leader.inbox[0].respond  # type: ignore[union-attr]

    def respond_late(reply: Any) -> None:
        respond(reply)
        leader.clock_ahead_ms += LENGTH_MS

    leader.inbox[0] = attrs.evolve(leader.inbox[0], respond=respond_late)
    second = leases.ask_later(leader, GetRequest(key="a"))
    leases.passes = lambda envelope: False
    leader.turn(tick=False)
    assert value_of(first) == "1"
    assert second.open


def test_while_a_lease_is_held_nobody_is_elected(leases: World) -> None:
    leader = leases.form(3)
    leases.run(HEARTBEAT_TICKS)
    leases.cut(["n1"], ["n2", "n3"])
    while not any(leases[name].leads for name in ("n2", "n3")):
        assert leases.now < 1_000
        leases.tick()
        if leader.leads and leader.status.lease_remaining_ms:
            assert not any(leases[name].leads for name in ("n2", "n3"))
    assert not leader.leads or not leader.status.lease_remaining_ms


def test_beyond_the_bound_an_old_leader_answers_with_an_old_value() -> None:
    """Why the bound has to hold: what the clock of a leader that runs too slowly does."""
    world = World(reads_by_lease=True, clock_drift=0.0)
    leader = world.form(3)
    world.call(leader, world.put("a", "1"))
    world.run(HEARTBEAT_TICKS)
    world.cut(["n1"], ["n2", "n3"])
    heir = None
    while heir is None:
        assert world.now < 1_000
        world.now += 1
        for name in ("n2", "n3"):
            world[name].turn(tick=True)
        world.settle()
        # Its clock and its ticks stand still, as of a virtual machine that is not scheduled.
        leader.clock_ahead_ms -= TICK_MS
        heir = next((world[name] for name in ("n2", "n3") if world[name].leads), None)
    assert value_of(world.ask(heir, GetRequest(key="a"))) == "1"
    world.call(heir, world.put("a", "2"))
    leader.clock_ahead_ms -= 100 * TICK_MS
    assert value_of(world.ask(leader, GetRequest(key="a"))) == "1"


def test_leases_that_a_majority_does_not_use_are_held_by_nobody() -> None:
    world = World()
    world.settings = {"reads_by_lease": True, "clock_drift": DRIFT}
    world.boot("n1")
    world.settings = {}
    world.boot("n2")
    world.boot("n3")
    leader = world.form_of("n1", "n2", "n3")
    world.call(leader, world.put("a", "1"))
    world.run(4 * HEARTBEAT_TICKS)
    assert leader.status.lease_remaining_ms == 0
    # Reads take a round then, as without leases.
    assert value_of(world.ask(leader, GetRequest(key="a"))) == "1"


def test_changes_and_backups_ask_a_quorum_also_under_a_lease(leases: World) -> None:
    leader = leases.form(3)
    acknowledged_rounds(leases, leader)
    leases.passes = lambda envelope: False
    for request in (leases.change("remove", drop("n3"), dry_run=True), ReadIndexRequest()):
        asked = leases.ask_later(leader, request)
        leader.turn(tick=False)
        assert asked.open


def test_a_transfer_ends_the_lease_before_the_target_hears_of_it(leases: World) -> None:
    leader = leases.form(3)
    leases.call(leader, leases.put("a", "1"))
    acknowledged_rounds(leases, leader)
    leases.passes = lambda envelope: not isinstance(envelope.message, TimeoutNow)
    leader.running.raft.transfer_leadership(leases["n2"].id)
    leader.turn(tick=False)
    leases.run(2 * ELECTION_TICKS)
    # It has failed, and the leader goes on; but the TimeoutNow may still arrive.
    assert leader.leads
    assert leader.status.lease_remaining_ms == 0
    assert value_of(leases.ask(leader, GetRequest(key="a"))) == "1"


# --- promises across restarts ---


def left_to_one_voter(world: World) -> tuple[Server, Server, Server]:
    """Return a leader, the voter that hears it last, and one that would be elected.

    All have the same log, and the last one has not heard from the leader for an election timeout.
    """
    leader, last, rival = world.form(3), world["n2"], world["n3"]
    world.run(2 * HEARTBEAT_TICKS)
    world.cut(["n1", "n2"], ["n3"])
    world.until(lambda: rival.status.role == "candidate")
    world.run(HEARTBEAT_TICKS)
    assert leader.leads
    return leader, last, rival


def elected_while_lease_is_held(world: World, leader: Server, rival: Server) -> bool:
    """Let the rival hear the others and the leader nobody; return what comes of it."""
    world.cut(["n1"], ["n2", "n3"])
    while leader.leads and leader.status.lease_remaining_ms:
        world.tick()
        if rival.leads and leader.status.lease_remaining_ms:
            return True
    world.until(lambda: rival.leads or world["n2"].leads)
    return False


def test_a_voter_that_restarts_does_not_vote_while_its_promise_may_last(leases: World) -> None:
    leader, last, rival = left_to_one_voter(leases)
    last.restart()
    assert last.disk.identity.vote_withheld_ms == T_MS
    assert not elected_while_lease_is_held(leases, leader, rival)


def test_a_voter_keeps_its_promise_if_it_restarts_without_leases(leases: World) -> None:
    leader, last, rival = left_to_one_voter(leases)
    leases.settings = {}
    last.restart()
    assert not elected_while_lease_is_held(leases, leader, rival)


def test_a_voter_keeps_its_promise_if_it_restarts_with_a_shorter_time_out(leases: World) -> None:
    leader, last, rival = left_to_one_voter(leases)
    leases.settings = {**leases.settings, "election_timeout_ms": T_MS / 4}
    last.restart()
    assert last.disk.identity.vote_withheld_ms == T_MS
    assert not elected_while_lease_is_held(leases, leader, rival)


def test_once_its_last_promise_has_ended_nothing_is_left_of_it(leases: World) -> None:
    leases.form(3)
    server = leases["n2"]
    assert server.disk.identity.vote_withheld_ms == T_MS
    leases.settings = {}
    server.restart()
    leases.run(2 * ELECTION_TICKS - 1)
    assert server.disk.identity.vote_withheld_ms == T_MS
    leases.run(2)
    assert server.disk.identity.vote_withheld_ms == 0


def test_a_cluster_that_restarts_as_a_whole_comes_back(leases: World) -> None:
    leader = leases.form(3)
    leases.call(leader, leases.put("a", "1"))
    for server in leases.up():
        server.kill()
    for server in leases.servers.values():
        server.start()
    leases.run(2 * ELECTION_TICKS - 1)
    assert not any(server.leads for server in leases.up())
    assert leases.get("a") == "1"


def test_the_founder_of_a_cluster_need_not_wait(leases: World) -> None:
    founder = leases.bootstrap("n1")
    assert leases.now < 2 * ELECTION_TICKS
    assert founder.leads


def test_a_follower_reads_by_the_lease_of_its_leader(leases: World) -> None:
    leader, follower = leases.form(3), leases["n2"]
    leases.call(leader, leases.put("a", "1"))
    acknowledged_rounds(leases, leader)
    leases.passes = lambda envelope: not isinstance(envelope.message, AppendEntriesResponse)
    for server in leases.servers.values():
        server.journal.clear()
    assert value_of(leases.ask(follower, HERE)) == "1"
    assert sent(leases, AppendEntries) == []
