"""The bug museum, reads: no answer is older than what was acknowledged before the question."""

from __future__ import annotations

import pytest

from raftd.core.messages import AppendEntries, AppendEntriesResponse
from raftd.core.ready import ReadAnswer
from raftd.protocol import ErrorReply, GetReply, GetRequest, WriteReply
from tests.core.harness import Cluster
from tests.core.scenario import with_learners
from tests.node.world import HEARTBEAT_TICKS, Asked, Server, World


def value_of(asked: Asked) -> bytes:
    """Return the value that was read."""
    assert isinstance(asked.reply, GetReply), asked.reply
    return asked.reply.value


def other_leader(world: World, deposed: Server) -> Server:
    """Wait for a leader beside `deposed`, which may not know of it."""
    leader: Server = world.until(
        lambda: next((s for s in world.up() if s.leads and s is not deposed), None)
    )
    return leader


def test_069_a_new_leader_reads_nothing_before_its_first_commit_and_then_answers() -> None:
    world = World()
    leader = world.form(3)
    world.call(leader, world.put("a", "old"))
    world.run(HEARTBEAT_TICKS)
    # The new value is acknowledged to the client, and no follower learns that it is committed.
    world.passes = lambda envelope: (
        envelope.source != leader.id
        or not isinstance(envelope.message, AppendEntries)
        or bool(envelope.message.entries)
    )
    assert world.ask(leader, world.put("a", "new")).reply == WriteReply(applied=True, revision=2)
    leader.kill()
    assert {server.state.get("a").value for server in world.up()} == {b"old"}
    # The heir gets its no-op to nobody at first; an empty round alone must not be enough.
    world.passes = lambda envelope: (
        not (isinstance(envelope.message, AppendEntries) and envelope.message.entries)
    )
    heir = other_leader(world, leader)
    asked = [world.ask(heir, GetRequest(key="a")) for _ in range(3)]
    world.run(2 * HEARTBEAT_TICKS)
    assert heir.leads
    assert all(read.open for read in asked)
    world.passes = lambda envelope: True
    world.until(lambda: not any(read.open for read in asked))
    assert [value_of(read) for read in asked] == [b"new"] * 3


def test_070_a_leader_of_the_past_does_not_answer_from_memory() -> None:
    world = World()
    leader = world.form(5)
    world.call(leader, world.put("a", "1"))
    world.run(HEARTBEAT_TICKS)
    world.cut(["n1", "n2"], ["n3", "n4", "n5"])
    # Time passes for the others alone, as if the leader's process had been stopped for a while.
    others = [world[name] for name in ("n3", "n4", "n5")]
    while not any(server.leads for server in others):
        for server in others:
            server.turn(tick=True)
        world.settle()
    (heir,) = [server for server in others if server.leads]
    assert world.ask(heir, world.put("a", "2")).reply == WriteReply(applied=True, revision=2)
    # Everything that it knows to be committed is applied, and it still believes that it leads.
    assert leader.leads
    assert leader.state.applied_index == leader.status.commit_index
    asked = world.ask(leader, GetRequest(key="a"))
    assert asked.open
    world.until(lambda: not asked.open)
    assert asked.error.code in ("not-leader", "unavailable")
    assert world.get("a", heir) == "2"


def test_071_answers_to_the_first_question_do_not_confirm_its_repetition() -> None:
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.propose(b"old", "1")
    cluster.run(2)
    old_index = cluster.raft("1").log.commit_index
    cluster.give("1", lambda raft: raft.read("A"))
    cluster.take(lambda envelope: envelope.dest == "3")
    cluster.deliver(cluster.queue.pop())
    late = cluster.take(lambda envelope: isinstance(envelope.message, AppendEntriesResponse))
    assert [envelope.source for envelope in late] == ["2"]
    # 2 and 3 go on without 1, and commit something newer.
    cluster.partition("1", "23")
    cluster.elect("2")
    cluster.propose(b"new", "2")
    cluster.run(2)
    assert cluster.raft("2").log.commit_index > old_index
    assert cluster.role("1") == "leader"
    # The client has lost patience and asks again under the same name; then the answer arrives.
    cluster.give("1", lambda raft: raft.read("A"))
    cluster.give("1", lambda raft: raft.read("B"))
    cluster.queue.clear()
    cluster.heal()
    for envelope in late * 3:
        cluster.deliver(envelope)
    # It confirms what was asked before it was sent, and that alone.
    assert cluster.servers["1"].reads == [ReadAnswer("A", old_index)]
    cluster.run(cluster.options.election_ticks)
    assert cluster.servers["1"].reads[1:] == [ReadAnswer("A", None), ReadAnswer("B", None)]


@pytest.mark.parametrize("count", [1, 3])
def test_072_a_restarted_server_is_never_taken_for_an_empty_one(count: int) -> None:
    world = World()
    leader = world.form(count)
    for number in range(20):
        world.call(leader, world.put("a", str(number)))
    for server in world.up():
        server.kill()
    asked: list[Asked] = []
    for server in world.servers.values():
        server.start()
        # Nothing is applied yet: the log is there, what of it is committed is not known.
        assert server.state.applied_index == 0
        asked.append(world.ask(server, GetRequest(key="a")))
    for _ in range(60):
        asked += [world.ask(server, GetRequest(key="a")) for server in world.up()]
        world.tick()
    world.until(lambda: not any(read.open for read in asked))
    replies = [read.reply for read in asked]
    assert all(isinstance(reply, ErrorReply) for reply in replies[:count])
    answers = [reply for reply in replies if isinstance(reply, GetReply)]
    assert answers
    assert {reply.value for reply in answers} == {b"19"}


def test_073_while_joint_the_new_half_alone_does_not_confirm_a_read() -> None:
    cluster = with_learners("123", "45")
    # 2 and 3 never hear of C_old,new, so they elect a leader by the old configuration alone.
    cluster.partition("145", "23")
    cluster.change([("voter", "4"), ("voter", "5"), ("remove", "2"), ("remove", "3")], "1")
    cluster.deliver_all()
    joint = cluster.configuration("4")
    assert (joint.voters, joint.outgoing) == (frozenset("145"), frozenset("123"))
    cluster.elect("2")
    cluster.propose(b"new", "2")
    cluster.deliver_all()
    assert cluster.commands("2") == [b"new"]
    assert cluster.role("1") == "leader"
    # 4 and 5 answer the round: a majority of C_new, and one of three of C_old.
    cluster.give("1", lambda raft: raft.read("r"))
    cluster.deliver_all()
    assert cluster.servers["1"].reads == []
    cluster.run(2 * cluster.options.election_ticks)
    assert cluster.servers["1"].reads == [ReadAnswer("r", None)]


def test_074_a_follower_answers_no_read_from_its_own_state() -> None:
    world = World()
    leader, follower = world.form(3), world["n3"]
    world.call(leader, world.put("a", "1"))
    world.run(HEARTBEAT_TICKS)
    world.passes = lambda envelope: envelope.dest != follower.id
    world.call(leader, world.put("a", "2"))
    asked = world.ask(follower, GetRequest(key="a"))
    assert (asked.error.code, asked.error.leader) == ("not-leader", leader.id)
    # Only who says so gets the state of that server.
    assert world.get("a", follower, stale=True) == "1"
