"""What a server promises, it has on its disk: crashes at every step, disks that fail, restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVote,
    RequestVote,
    RequestVoteResponse,
)
from raftd.core.types import HardState
from raftd.protocol import BootstrapRequest, GetRequest, JoinRequest, WriteReply
from raftd.storage.files import StorageFault
from tests.node.disks import RealDisk
from tests.node.world import ELECTION_TICKS, Server, World, drop, is_joint, new

STEPS = ("send", "sent", "append", "appended", "apply", "applied", "reply")
"""Before and after the messages leave, before and after the sync, within applying and answering."""


@pytest.fixture
def world() -> World:
    return World()


def since(server: Server, mark: int) -> list[str]:
    """Return what the server did after `mark`, in words."""
    words = []
    for event in server.journal[mark:]:
        if event[0] == "send":
            words.append(f"{type(event[1].message).__name__} to {event[1].dest[:2]}")
        else:
            words.append(event[0])
    return words


def test_the_leader_replicates_before_its_own_sync(world: World) -> None:
    leader = world.form(3)
    mark = len(leader.journal)
    leader.inbox.clear()
    world.ask_later(leader, world.put("a"))
    leader.turn(tick=False)
    assert since(leader, mark) == ["AppendEntries to n2", "AppendEntries to n3", "append"]


def test_a_follower_acknowledges_after_its_sync(world: World) -> None:
    leader, follower = world.form(3), world["n2"]
    mark = len(follower.journal)
    world.ask_later(leader, world.put("a"))
    leader.turn(tick=False)
    follower.turn(tick=False)
    assert since(follower, mark) == ["append", "AppendEntriesResponse to n1"]


def test_a_vote_leaves_after_its_sync_and_a_pre_vote_before(world: World) -> None:
    world.form(3)
    world["n1"].kill()
    marks = {name: len(world[name].journal) for name in ("n2", "n3")}
    world.until(lambda: any(server.leads for server in world.up()))
    candidate, voter = sorted((world["n2"], world["n3"]), key=lambda server: not server.leads)
    done = since(candidate, marks[candidate.name])
    assert done.index(f"PreVote to {voter.name}") < done.index("append")
    assert done.index("append") < done.index(f"RequestVote to {voter.name}")
    done = since(voter, marks[voter.name])
    assert done.index("append") < done.index(f"RequestVoteResponse to {candidate.name}")


def test_the_first_message_of_a_new_term_waits_for_the_sync_of_the_term(world: World) -> None:
    # The world looks at every message that leaves; here they are shown to be of every kind.
    world.form(3)
    world["n1"].kill()
    world.until(lambda: any(server.leads for server in world.up()))
    kinds = {
        type(event[1].message)
        for server in world.servers.values()
        for event in server.journal
        if event[0] == "send"
    }
    assert {AppendEntries, AppendEntriesResponse, PreVote} <= kinds
    assert {RequestVote, RequestVoteResponse} <= kinds


def test_the_only_voter_answers_a_write_after_its_own_sync(world: World) -> None:
    leader = world.bootstrap()
    mark = len(leader.journal)
    world.call(leader, world.put("a"))
    assert since(leader, mark) == ["append", "reply"]


def test_the_only_voter_answers_nothing_that_a_crash_took_back(world: World) -> None:
    leader = world.bootstrap()
    leader.power.fail_at_next = "append"
    assert world.ask(leader, world.put("a")).lost
    leader.start()
    world.leader()
    assert world.get("a") is None


def test_the_only_voter_keeps_what_was_synced_before_the_crash(world: World) -> None:
    leader = world.bootstrap()
    leader.power.fail_at_next = "appended"
    assert world.ask(leader, world.put("a", "1")).lost
    leader.start()
    assert world.get("a") == "1"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ["n1", "n2"])
def test_an_acknowledged_write_survives_a_crash_at_any_step(
    world: World, name: str, step: str
) -> None:
    leader = world.form(3)
    request = world.put("a", "1")
    world[name].power.fail_at_next = step
    asked = world.ask(leader, request)
    world.run(3)
    if step != "reply" or name == "n1":
        assert world[name].node is None
    # The client asks again, with the same serial, whoever leads by then.
    reply = world.call(world.leader(), request)
    assert reply == WriteReply(applied=True, revision=1)
    assert asked.lost or asked.reply == reply
    if world[name].node is None:
        world[name].start()
    world.until(world.is_settled)
    for server in world.up():
        assert server.state.get("a").version == 1


@pytest.mark.parametrize("step", ["append", "appended"])
def test_a_vote_is_not_forgotten_in_a_crash(world: World, step: str) -> None:
    world.form(3)
    world["n1"].kill()
    voter = world["n3"]
    world.passes = lambda envelope: (
        not (isinstance(envelope.message, PreVote | RequestVote) and envelope.source == voter.id)
    )
    voter.power.fail_at_next = step
    world.until(lambda: voter.node is None)
    candidate = world["n2"]
    voted = voter.disk.hard_state
    if step == "appended":
        assert voted == HardState(candidate.status.term, candidate.id)
    else:
        assert voted.current_term < candidate.status.term
    assert not candidate.leads
    voter.start()
    assert voter.running.raft.voted_for == voted.voted_for
    world.passes = lambda envelope: True
    leader = world.leader()
    if step == "appended":
        # Asked again, it votes again, for the same one.
        assert (leader.id, leader.status.term) == (voted.voted_for, voted.current_term)
    else:
        assert leader.status.term > voted.current_term


def test_a_failed_append_leaves_the_turn_as_a_storage_fault_and_nothing_is_answered(
    world: World,
) -> None:
    leader = world.bootstrap()
    leader.disk.fails = True
    mark = len(leader.journal)
    write = world.ask_later(leader, world.put("a"))
    read = world.ask_later(leader, GetRequest(key="a"))
    with pytest.raises(StorageFault):
        leader.turn(tick=False)
    assert write.open
    assert read.open
    assert since(leader, mark) == []


def test_a_follower_whose_disk_fails_acknowledges_nothing(world: World) -> None:
    leader, follower = world.form(3), world["n2"]
    follower.disk.fails = True
    mark = len(follower.journal)
    world.ask_later(leader, world.put("a"))
    leader.turn(tick=False)
    with pytest.raises(StorageFault):
        follower.turn(tick=False)
    assert since(follower, mark) == []


def test_a_failed_identity_leaves_the_server_blank_and_the_request_unanswered(
    world: World,
) -> None:
    server = world.boot("n1")
    server.disk.fails = True
    asked = world.ask_later(
        server,
        JoinRequest(
            cluster_id="c",
            cluster_name="orders",
            name="n1",
            incarnation=server.disk.identity.incarnation,
        ),
    )
    with pytest.raises(StorageFault):
        server.turn(tick=False)
    assert asked.open
    assert server.disk.identity.is_blank


@pytest.mark.parametrize("name", ["n1", "n3"])
def test_a_server_whose_log_comes_back_empty_does_not_start(world: World, name: str) -> None:
    """The founder would found its cluster again, and any other one would vote twice in a term."""
    world.form(3)
    server = world[name]
    server.kill()
    server.disk.entries.clear()
    server.disk.hard_state = HardState()
    with pytest.raises(StorageFault, match="raftctl replace"):
        server.start()


def test_that_the_log_has_begun_is_noted_before_anything_is_acknowledged(world: World) -> None:
    world.form(2)
    for name in ("n1", "n2"):
        journal = world[name].journal
        begun = next(
            number for number, event in enumerate(journal) if event[0] == "append" and event[2]
        )
        assert journal[begun + 1] == ("publish", world[name].disk.identity)
        assert world[name].disk.identity.log_begun


@pytest.mark.parametrize("name", ["n1", "n2"])
def test_a_crash_between_the_first_entries_and_their_note_is_made_up_for_at_the_start(
    world: World, name: str
) -> None:
    server = world.boot(name)
    if name == "n1":
        # The first publication is the id of the cluster.
        before_note = ["publish", "published", "append", "appended", "publish"]
        server.power.fail_at = len(server.power.steps) + len(before_note)
        request = BootstrapRequest(
            cluster_name="orders", incarnation=server.disk.identity.incarnation, address="n1:7100"
        )
        assert world.ask(server, request).lost
        assert server.power.steps[-len(before_note) :] == before_note
    else:
        world.bootstrap("n1")
        world.passes = lambda envelope: envelope.dest != server.id
        operation = world.started(world.change("add", new(name)))
        server.power.fail_at_next = "publish"
        world.passes = lambda envelope: True
        world.until(lambda: server.node is None)
    assert server.disk.entries
    assert not server.disk.identity.log_begun
    server.start()
    assert server.disk.identity.log_begun
    if name == "n2":
        assert world.finish(operation).result == "done"


def test_a_whole_cluster_that_loses_its_power_keeps_what_it_acknowledged(world: World) -> None:
    leader = world.form(3)
    for number in range(20):
        world.call(leader, world.put(f"k{number}", str(number)))
    for server in world.up():
        server.kill()
    for server in world.servers.values():
        server.start()
    leader = world.leader()
    for number in range(20):
        assert world.get(f"k{number}") == str(number)
    assert leader.state.revision == 20


def test_a_configuration_that_is_not_committed_is_found_again_at_the_restart(
    world: World,
) -> None:
    leader = world.form(3)
    # Nobody acknowledges C_old,new.
    world.passes = lambda envelope: not is_joint(envelope)
    world.started(world.change("remove", drop("n3")))
    joint = leader.running.raft.configuration
    assert joint.configuration.is_joint
    assert leader.status.commit_index < joint.index
    leader.restart()
    assert leader.running.raft.configuration == joint


@pytest.mark.parametrize("step", STEPS)
def test_a_cluster_on_real_disks_survives_a_crash_of_its_leader_at_any_step(
    world: World, tmp_path: Path, step: str
) -> None:
    for number in range(1, 5):
        name = f"n{number}"
        world.boot(name, disk=RealDisk(tmp_path / name, name))
    leader = world.form_of("n1", "n2", "n3")
    world.call(leader, world.put("a", "1"))
    request = world.put("a", "2")
    leader.power.fail_at_next = step
    world.ask(leader, request)
    assert leader.node is None
    leader.start()
    world.call(world.leader(), request)
    record = world.finish(world.started(world.change("replace", drop("n3"), new("n4"))))
    assert record.result == "done"
    for server in world.up():
        server.restart()
    world.until(world.is_settled)
    assert world.get("a") == "2"
    assert world.leader().state.get("a").version == 2
    world.run(ELECTION_TICKS)
    for server in world.up():
        server.kill()
