"""Who may vote, campaign and be counted: learners, strangers, removed servers and wiped disks.

Exhibits 21 to 26, 35 and 37 of the museum.
"""

from __future__ import annotations

from raftd.core.errors import NotCaughtUp
from raftd.core.membership import Configuration
from raftd.core.messages import Envelope, RequestVote, RequestVoteResponse, TimeoutNow
from raftd.protocol import JoinRequest
from tests.core.harness import OPTIONS, Cluster, appends
from tests.core.scenario import (
    Solo,
    acknowledge_all,
    all_come_back,
    assert_finished,
    change_of,
    deliver_only_to,
    kinds,
    settled_leader,
    with_learners,
)
from tests.museum.steering import deliver_to
from tests.node.world import ELECTION_TICKS, World, drop, new

T = OPTIONS.election_ticks


def test_021_a_promoted_learner_that_does_not_know_it_gives_its_vote() -> None:
    cluster = with_learners("12", "3")
    cluster.cut = {("1", "3")}
    cluster.change([("voter", "3")])
    cluster.run(2)
    assert kinds(cluster, "2")[-1] == "final"
    assert cluster.raft("1").log.commit_index == cluster.raft("1").log.last_index
    assert cluster.configuration("3") == Configuration("12", learners="3")
    cluster.crash("1")
    cluster.run(6 * T)
    assert cluster.leader() == "2"
    cluster.propose(b"x")
    cluster.run(2)
    assert cluster.commands("3") == [b"x"]


def test_022_servers_that_nobody_counts_start_no_election() -> None:
    cluster = Cluster("1234", learners="5", blank="6")
    cluster.elect("1")
    cluster.change([("remove", "4")])
    cluster.run(3)
    # A learner starts as a learner again, too.
    cluster.crash("5")
    cluster.restart("5")
    cluster.partition("123", "4", "5", "6")
    for server in "456":
        term = cluster.raft(server).current_term
        cluster.queue.clear()
        cluster.tick(server, 8 * T)
        assert cluster.queue == []
        assert (cluster.role(server), cluster.raft(server).current_term) == ("follower", term)


def test_022_a_learner_does_not_campaign_when_its_leader_tells_it_to() -> None:
    cluster = Cluster("123", learners="5")
    cluster.elect("1")
    term = cluster.raft("1").current_term
    cluster.deliver(Envelope("1", "5", TimeoutNow(term)))
    assert cluster.queue == []
    assert (cluster.role("5"), cluster.raft("5").current_term) == ("follower", term)


def test_023_voters_serve_a_leader_that_their_configuration_does_not_know() -> None:
    cluster = Cluster("123", blank="4")
    cluster.elect("1")
    cluster.crash("3")
    cluster.change([("learner", "4")])
    cluster.run(4)
    cluster.change([("voter", "4")])
    deliver_only_to(cluster, "24")
    cluster.propose(b"x")
    deliver_only_to(cluster, "4")
    cluster.crash("1")
    cluster.restart("3")
    # 4 has the longest log, and of (1 2 3 4) it needs the vote of 3, who has never heard of it.
    assert "4" not in cluster.configuration("3").members
    cluster.run(10 * T)
    assert cluster.leader() == "4"
    assert cluster.commands("3") == [b"x"]
    assert cluster.configuration("3") == Configuration("1234")


def test_024_a_removed_server_that_times_out_for_ever_deposes_nobody() -> None:
    cluster = Cluster("1234")
    cluster.elect("1")
    cluster.partition("123", "4")
    cluster.change([("remove", "4")])
    cluster.run(OPTIONS.departing_ticks + 3)
    assert [peer.server for peer in cluster.raft("1").status().peers] == ["2", "3"]
    cluster.heal()
    term = cluster.raft("1").current_term
    for step in range(1, 3 * T):
        # Also if it went without pre-votes, and with the best log.
        for server in "123":
            request = RequestVote(term + step, 99, term + step)
            cluster.deliver(Envelope("4", server, request))
        cluster.run()
    for server in "123":
        assert cluster.raft(server).current_term == term
        assert cluster.raft(server).leader_id == "1"
    # An election that the leader itself asked for is not held up.
    cluster.give("1", lambda raft: raft.transfer_leadership("2"))
    cluster.deliver_all()
    assert cluster.leader() == "2"


def test_025_votes_from_outside_the_configuration_elect_nobody() -> None:
    solo = Solo("1", "123", learners="45")
    solo.campaign()
    for outsider in ("4", "5", "9", "", "2/other"):
        solo.step(outsider, RequestVoteResponse(solo.term, vote_granted=True))
        assert solo.role == "candidate"
    solo.step("2", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "leader"


def test_025_acknowledgements_from_outside_the_configuration_commit_nothing() -> None:
    solo = settled_leader("123", "45")
    solo.give(lambda raft: raft.propose(b"x"))
    for outsider in ("4", "5", "9", "", "2/other"):
        solo.acknowledge(outsider)
        assert solo.commit_index < solo.last_index
    solo.acknowledge("2")
    assert solo.commit_index == solo.last_index


def test_026_a_wiped_disk_under_an_old_name_does_not_vote_for_a_leader_of_the_past() -> None:
    world = World()
    world.form(3)
    past = world["n1"]
    # n1 is cut off and goes on believing in (n1 n2 n3), while first it and then n2 are replaced.
    world.cut(["n2", "n3"], ["n1"])
    world.run(3 * ELECTION_TICKS)
    for gone, comes in (("n1", "n4"), ("n2", "n5")):
        world.boot(comes)
        world.cut(["n2", "n3", "n4", "n5"], ["n1"])
        record = world.finish(world.started(world.change("replace", drop(gone), new(comes))))
        assert record.result == "done", record.explanation
        world.run(2)
    world.call(world.leader(), world.put("a", "kept"))
    world.until(lambda: world["n2"].exit)
    lost = world["n2"].id
    fresh = world.boot("n2")
    assert fresh.id != lost
    # It has even been told to join, as a server that is being added, so it would vote.
    identity = past.disk.identity
    join = JoinRequest(
        cluster_id=identity.cluster_id,
        cluster_name=identity.cluster_name,
        name="n2",
        incarnation=fresh.disk.identity.incarnation,
    )
    world.call(fresh, join)
    assert not fresh.disk.identity.is_blank
    assert world.configuration_of(past)[0] == {"n1", "n2", "n3"}
    world.cut(["n1", "n2"], ["n3", "n4", "n5"])
    term = past.status.term
    for _ in range(6 * ELECTION_TICKS):
        world.tick()
        assert not past.leads
    assert past.status.term == term
    assert f"here is {fresh.id}, not {lost}" in past.problems[lost]
    world.heal()
    assert world.get("a") == "kept"


def test_026_the_vote_of_another_incarnation_does_not_count() -> None:
    solo = Solo("n1/a", ("n1/a", "n2/a", "n3/a"))
    solo.campaign()
    solo.step("n2/b", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "candidate"
    solo.step("n2/a", RequestVoteResponse(solo.term, vote_granted=True))
    assert solo.role == "leader"


def test_035_an_empty_server_does_not_become_a_voter() -> None:
    cluster = Cluster("123", blank="4")
    cluster.elect("1")
    cluster.change([("learner", "4")])
    deliver_to(cluster, "23")
    deliver_to(cluster, "1")
    before = cluster.log("1")
    cluster.queue.clear()
    cluster.refused(lambda: cluster.change([("voter", "4")]), NotCaughtUp)
    assert cluster.log("1") == before
    # So one of the three may die while 4 catches up.
    cluster.crash("3")
    cluster.crash("4")
    cluster.propose(b"x")
    cluster.run(2)
    assert cluster.commands("1") == [b"x"]


def test_035_a_learner_becomes_a_voter_although_the_log_never_stands_still() -> None:
    solo = settled_leader("123", "4")
    for _ in range(3 * T):
        solo.give(lambda raft: raft.propose(b"x"))
        solo.tick()
        acknowledge_all(solo, "4")
        solo.acknowledge("4", solo.last_index - 1)
    assert solo.raft.leader().progress["4"].match_index < solo.last_index
    solo.give(lambda raft: raft.change_membership(change_of(("voter", "4"))))


def test_037_learners_are_fed_and_removed_servers_are_told_while_voters_change() -> None:
    cluster = with_learners("123", "45")
    cluster.change([("voter", "4"), ("remove", "3")])
    deliver_to(cluster, "3")
    late = cluster.take(lambda envelope: envelope.source == "3")
    assert late
    cluster.deliver_all()
    cluster.propose(b"x")
    cluster.run(3)
    assert cluster.log("5") == cluster.log("1")
    assert cluster.commands("5") == [b"x"]
    # 3 has been told, and is fed no more.
    assert cluster.configuration("3") == Configuration("124", learners="5")
    assert not cluster.raft("3").may_campaign()
    cluster.give("1", lambda raft: raft.propose(b"y"))
    assert {e.dest for e in cluster.queue if appends(e)} == {"2", "4"}
    cluster.deliver_all()
    assert cluster.log("5") == cluster.log("1")
    # What comes late from it, or about it, does no harm.
    commit_index = cluster.raft("1").log.commit_index
    for envelope in late:
        cluster.deliver(envelope)
    cluster.give("1", lambda raft: raft.report_unreachable("3"))
    assert cluster.raft("1").log.commit_index == commit_index
    all_come_back(cluster)
    assert_finished(cluster, Configuration("124", learners="5"))
