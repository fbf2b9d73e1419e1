"""The bug museum, elections: one vote in a term, and a leader whenever there can be one."""

from __future__ import annotations

from random import Random

import pytest

from raftd.core.errors import ProposalDropped
from raftd.core.log import RaftLog
from raftd.core.membership import Configuration, ConfigurationKind
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raftd.core.raft import Raft
from raftd.core.types import HardState, ServerId, Term
from raftd.inputs import Received
from raftd.protocol import ErrorReply
from raftd.storage.wal import Wal
from tests.core.harness import OPTIONS, Cluster, Disk, founding_entry
from tests.core.scenario import Solo, command, configuration_entry, log_of, of, only, settled_leader
from tests.museum.disks import PATH, boot
from tests.node.world import Server, World
from tests.storage.memory_files import MemoryFileSystem

T = OPTIONS.election_ticks


def put_on_disk(cluster: Cluster, server: str, terms: list[Term], term: Term = 0) -> None:
    """Restart `server` with a log of `terms`, in `term` (by default the last of the log)."""
    disk = Disk(log_of(terms, founding_entry(cluster.servers)), term or terms[-1])
    cluster.servers[server].disk = disk
    cluster.restart(server)


def votes_given(server: Server, mark: int = 0) -> list[tuple[ServerId, Term]]:
    """Return whom the server has given its vote in which term, by what left it since `mark`."""
    return [
        (event[1].dest, event[1].message.term)
        for event in server.journal[mark:]
        if event[0] == "send"
        and isinstance(event[1].message, RequestVoteResponse)
        and event[1].message.vote_granted
    ]


def test_040_a_former_candidate_keeps_the_vote_of_its_term() -> None:
    solo = Solo(voters="12345", terms=(1, 2))
    solo.campaign()
    assert (solo.term, solo.raft.voted_for) == (3, "1")
    # The winner of term 3 sends what does not fit: refused, but its authority is accepted.
    refusal = only(AppendEntriesResponse, solo.step("2", AppendEntries(3, 9, 3, (), 0, 1)))
    assert (refusal.success, solo.role, solo.raft.leader_id) == (False, "follower", "2")
    # The second request is one that stickiness lets pass, so that the vote alone decides.
    for transfer in (False, True):
        late = RequestVote(3, 99, 3, leadership_transfer=transfer)
        assert not only(RequestVoteResponse, solo.step("3", late)).vote_granted
    assert solo.raft.voted_for == "1"
    # Nor does a restart forget it.
    stored = [ready.hard_state for ready in solo.readies if ready.hard_state is not None][-1]
    again = Solo(voters="12345", terms=(1, 2), term=stored.current_term, voted_for=stored.voted_for)
    assert not only(RequestVoteResponse, again.step("3", RequestVote(3, 99, 3))).vote_granted


def test_040_a_lost_election_and_a_lost_quorum_keep_the_vote_too() -> None:
    outvoted = Solo()
    outvoted.campaign()
    for voter in "23":
        outvoted.step(voter, RequestVoteResponse(2, vote_granted=False))
    leader = settled_leader()
    leader.tick(2 * T)
    for solo in (outvoted, leader):
        assert (solo.term, solo.raft.voted_for) == (2, "1")
        assert not only(RequestVoteResponse, solo.step("3", RequestVote(2, 99, 2))).vote_granted


def test_041_a_vote_that_has_left_is_remembered_after_a_power_failure() -> None:
    world = World()
    disks = {number: boot(world, number) for number in (1, 2, 3)}
    world.form_of("n1", "n2", "n3")
    first, second, voter = world["n1"], world["n2"], world["n3"]
    voter.restart()
    term = voter.running.raft.current_term + 1
    mark = len(voter.journal)
    voter.inbox = [Received(Envelope(first.id, voter.id, RequestVote(term, 99, term)))]
    voter.turn(tick=False)
    assert votes_given(voter, mark) == [(first.id, term)]
    voter.kill()
    for seed in range(8):
        disks[3].lose_power(seed)
        voter.start()
        mark = len(voter.journal)
        voter.inbox = [Received(Envelope(second.id, voter.id, RequestVote(term, 99, term)))]
        voter.turn(tick=False)
        assert votes_given(voter, mark) == []
        assert voter.running.raft.voted_for == first.id
        voter.kill()


@pytest.mark.parametrize("step", ["append", "appended"])
@pytest.mark.parametrize("kind", [RequestVote, AppendEntries])
def test_041_no_answer_in_a_new_term_leaves_before_term_and_vote_are_durable(
    kind: type[RequestVote] | type[AppendEntries], step: str
) -> None:
    world = World()
    leader, follower, source = world.form(3), world["n3"], world["n2"].id
    term = leader.status.term + 5
    log = follower.running.raft.log
    message: RequestVote | AppendEntries
    if kind is RequestVote:
        message = RequestVote(term, log.last_index, log.last_term, leadership_transfer=True)
    else:
        message = AppendEntries(term, log.last_index, log.last_term, (), 0, 1)
    mark = len(follower.journal)
    follower.power.fail_at_next = step
    follower.inbox = [Received(Envelope(source, follower.id, message))]
    follower.turn(tick=False)
    assert [event for event in follower.journal[mark:] if event[0] == "send"] == []
    follower.start()
    raft = follower.running.raft
    assert (raft.current_term == term) == (step == "appended")
    assert (raft.voted_for == source) == (step == "appended" and kind is RequestVote)


def test_042_votes_of_an_older_term_and_second_votes_do_not_count() -> None:
    solo = Solo(voters="12345", terms=(1, 3))
    solo.campaign()
    assert solo.term == 4
    for _ in range(2):
        solo.time_out()
        for voter in "23":
            solo.step(voter, PreVoteResponse(solo.term, solo.term + 1, vote_granted=True))
    assert (solo.role, solo.term) == ("candidate", 6)
    for voter in "2345":
        solo.step(voter, RequestVoteResponse(4, vote_granted=True))
    for _ in range(4):
        solo.step("2", RequestVoteResponse(6, vote_granted=True))
    assert solo.role == "candidate"
    solo.step("3", RequestVoteResponse(6, vote_granted=True))
    assert solo.role == "leader"


def test_042_repeated_refusals_of_one_voter_do_not_end_an_election() -> None:
    solo = Solo(voters="12345")
    solo.campaign()
    for _ in range(4):
        solo.step("2", RequestVoteResponse(2, vote_granted=False))
    assert solo.role == "candidate"
    # A refusal may answer a late copy of an older request; the vote itself is given once.
    solo.step("2", RequestVoteResponse(2, vote_granted=True))
    assert solo.role == "candidate"
    solo.step("3", RequestVoteResponse(2, vote_granted=True))
    assert solo.role == "leader"


def test_043_a_shorter_log_of_a_newer_term_wins_over_a_longer_one() -> None:
    cluster = Cluster("123")
    # Entry 2 of term 3 is on 1 and 3: committed, if server 1 had not died too early to say so.
    for server, terms in {"1": [1, 3], "2": [1, 1, 1, 1, 1], "3": [1, 3]}.items():
        put_on_disk(cluster, server, terms, term=3)
    cluster.crash("1")
    for _ in range(2):
        cluster.tick("2", 2 * T)
        cluster.deliver_all()
        assert cluster.role("2") != "leader"
    cluster.tick("3", 2 * T)
    cluster.deliver_all()
    assert cluster.leader() == "3"
    cluster.run(2)
    assert [term for _, term in cluster.log("2")] == [1, 3, cluster.raft("3").current_term]


@pytest.mark.parametrize(("lagging_log", "winners"), [([1], "1"), ([1, 5], "13"), ([1, 5, 5], "3")])
def test_044_a_server_with_a_lagging_term_is_no_obstacle_to_a_leader(
    lagging_log: list[Term], winners: str
) -> None:
    cluster = Cluster("123")
    put_on_disk(cluster, "1", [1, 5], term=9)
    put_on_disk(cluster, "3", lagging_log)
    cluster.crash("2")
    cluster.run(8 * T)
    assert cluster.leader() in winners
    assert cluster.raft("1").current_term == cluster.raft("3").current_term > 9
    assert cluster.log("1") == cluster.log("3")


def test_044_a_pre_vote_of_an_old_term_is_answered_with_both_terms() -> None:
    solo = Solo(terms=(1, 5), term=5)
    answer = only(PreVoteResponse, solo.step("3", PreVote(2, 1, 1)))
    assert answer == PreVoteResponse(5, 2, vote_granted=False)
    lagging = Solo("3")
    lagging.time_out()
    lagging.step("1", answer)
    assert (lagging.role, lagging.term) == ("follower", 5)


def test_045_two_cohorts_in_the_middle_of_a_change_find_a_leader_and_finish_it() -> None:
    cluster = Cluster("123456")
    joint = configuration_entry(
        4,
        2,
        ConfigurationKind.JOINT,
        Configuration("12345", "123456"),
    )
    founding = founding_entry("123456")
    for server in "123":
        entries = [*log_of([1, 2, 2], founding), joint]
        cluster.servers[server].disk = Disk(entries, term=2)
        cluster.restart(server)
    for server in "456":
        cluster.servers[server].disk = Disk(log_of([1, 2], founding), term=8)
        cluster.restart(server)
    cluster.run(12 * T)
    assert cluster.leader() in "123"
    for server in "12345":
        assert cluster.configuration(server) == Configuration("12345")


def test_046_a_pre_candidate_does_not_cling_to_the_leader_that_it_has_given_up() -> None:
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.crash("1")
    # 2 asks right after it heard the leader, and 3, which heard it too, refuses.
    cluster.give("2", lambda raft: raft.campaign())
    cluster.deliver_all()
    assert cluster.role("2") == "precandidate"
    # 3 asks in turn: 2 has a leader in fresh memory, but no longer one that it believes in.
    cluster.give("3", lambda raft: raft.campaign())
    cluster.deliver_all()
    assert cluster.leader() == "3"


def test_046_only_a_message_of_a_leader_makes_a_server_refuse_others() -> None:
    """Neither a start, nor a vote given, nor a leader that was merely heard of holds others up."""
    started = Solo(terms=(1, 2), term=2, voted_for="1")
    voted = Solo(terms=(1, 2))
    voted.step("2", RequestVote(3, 9, 3))
    for solo in (started, voted):
        answer = only(PreVoteResponse, solo.step("3", PreVote(solo.term + 1, 9, 9)))
        assert answer.vote_granted


def test_047_a_candidate_that_cannot_win_changes_no_term() -> None:
    cluster = Cluster("123")
    put_on_disk(cluster, "2", [1, 2, 2], term=2)
    put_on_disk(cluster, "3", [1], term=2)
    cluster.crash("1")
    cluster.tick("2", T - 1)
    for _ in range(30):
        cluster.tick("3", T)
        cluster.deliver_all()
    assert [cluster.raft(server).current_term for server in "23"] == [2, 2]
    # All the asking has not kept the one that can win from its own election.
    cluster.tick("2", T + 1)
    cluster.deliver_all()
    assert (cluster.leader(), cluster.raft("2").current_term) == ("2", 3)


def test_047_the_target_of_a_transfer_is_elected_although_the_others_hear_a_leader() -> None:
    cluster = Cluster("12345")
    cluster.elect("1")
    cluster.run()
    cluster.give("1", lambda raft: raft.transfer_leadership("4"))
    cluster.deliver_all()
    assert cluster.leader() == "4"


@pytest.mark.parametrize("proposes_first", [True, False])
def test_048_a_vote_and_the_entry_that_would_forbid_it_are_never_both_given(
    proposes_first: bool,
) -> None:
    world = World()
    leader = world.form(3)
    log = leader.running.raft.log
    request = RequestVote(leader.status.term + 1, log.last_index, log.last_term, True)
    mark, last_index = len(leader.journal), log.last_index
    leader.inbox.clear()
    if proposes_first:
        asked = world.ask_later(leader, world.put("a"))
    leader.inbox.append(Received(Envelope(world["n3"].id, leader.id, request)))
    if not proposes_first:
        asked = world.ask_later(leader, world.put("a"))
    leader.turn(tick=False)
    granted = bool(votes_given(leader, mark))
    assert granted != proposes_first
    assert (leader.status.last_index > last_index) == proposes_first
    assert isinstance(asked.reply, ErrorReply)
    assert asked.reply.code == ("unknown-outcome" if proposes_first else "unavailable")
    assert not leader.leads


def test_048_nothing_can_come_between_the_decision_and_the_disk() -> None:
    solo = Solo(voters="123")
    solo.raft.step(Envelope("2", "1", RequestVote(2, 1, 1)))
    ready = solo.raft.take_ready()
    assert ready is not None
    with pytest.raises(AssertionError, match="owed"):
        solo.raft.step(Envelope("3", "1", AppendEntries(2, 1, 1, (command(2, 2),), 2, 1)))
    solo.raft.persisted(ready)


def test_049_leadership_goes_to_a_complete_log_and_writes_wait_meanwhile() -> None:
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.propose(b"kept")
    cluster.take(lambda envelope: envelope.dest == "2")
    cluster.deliver_all()
    cluster.give("1", lambda raft: raft.transfer_leadership("2"))
    assert of(TimeoutNow, cluster.queue) == []
    cluster.refused(lambda: cluster.propose(b"late", "1"), ProposalDropped)
    cluster.run_until(lambda: cluster.role("2") == "leader", ticks_max=3)
    cluster.run(2)
    assert [cluster.commands(server) for server in "123"] == [[b"kept"]] * 3


def test_049_a_target_that_has_lost_its_vote_does_not_take_over() -> None:
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.run()
    cluster.give("1", lambda raft: raft.transfer_leadership("2"))
    late = cluster.take(lambda envelope: isinstance(envelope.message, TimeoutNow))
    assert len(late) == 1
    term = cluster.raft("1").current_term
    # The change ends the transfer, so writes go on, and then the request arrives after all.
    cluster.change([("learner", "2")], "1")
    cluster.deliver_all()
    assert cluster.raft("1").status().transfer_target is None
    cluster.propose(b"x", "1")
    cluster.run(2)
    cluster.deliver(late[0])
    cluster.run(4 * T)
    assert cluster.configuration("2") == Configuration("13", (), "2")
    assert (cluster.leader(), cluster.raft("1").current_term) == ("1", term)


def test_049_a_target_that_dies_costs_one_election_timeout_of_writes() -> None:
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.run()
    cluster.give("1", lambda raft: raft.transfer_leadership("2"))
    cluster.crash("2")
    cluster.run(T - 1)
    cluster.refused(lambda: cluster.propose(b"early", "1"), ProposalDropped)
    cluster.run()
    cluster.propose(b"x", "1")
    cluster.run(2)
    assert cluster.commands("3") == [b"x"]


def test_050_a_vote_for_an_empty_name_is_a_vote_also_after_a_restart() -> None:
    files = MemoryFileSystem()
    Wal.create(PATH, files)
    wal, _ = Wal.open(PATH, files)
    voters = ("", "0", "1")
    solo = Solo("1", voters, term=1)
    assert only(RequestVoteResponse, solo.step("", RequestVote(2, 1, 1))).vote_granted
    assert not only(RequestVoteResponse, solo.step("0", RequestVote(2, 1, 1))).vote_granted
    wal.append(HardState(solo.term, solo.raft.voted_for), log_of([1], founding_entry(voters)))
    wal.close()
    wal, recovered = Wal.open(PATH, files)
    wal.close()
    assert recovered.hard_state == HardState(2, "")
    raft = Raft(
        server="1",
        log=RaftLog(recovered.entries),
        hard_state=recovered.hard_state,
        options=OPTIONS,
        random=Random(0),
    )
    raft.step(Envelope("0", "1", RequestVote(2, 1, 1)))
    ready = raft.take_ready()
    assert ready is not None
    assert not only(RequestVoteResponse, ready.messages).vote_granted


def test_051_learners_keep_no_leader_in_office() -> None:
    cluster = Cluster("123", learners="456")
    cluster.elect("1")
    cluster.partition("1456", "23")
    cluster.run(T + 1)
    # Four of six servers answer, and it is out of office all the same.
    assert cluster.role("1") != "leader"
    cluster.run_until(lambda: any(cluster.role(server) == "leader" for server in "23"))


def test_052_a_vote_of_an_earlier_term_is_not_found_again_in_a_later_one() -> None:
    world = World()
    disks = {number: boot(world, number) for number in (1, 2, 3)}
    world.form_of("n1", "n2", "n3")
    voter = world["n3"]
    voter.restart()
    log = voter.running.raft.log
    term = voter.running.raft.current_term
    first, second = world["n1"].id, world["n2"].id
    voter.inbox = [
        # A vote in one term, entries of a later one: the log names the term, not the vote.
        Received(Envelope(first, voter.id, RequestVote(term + 1, 99, term))),
        Received(
            Envelope(
                second,
                voter.id,
                AppendEntries(
                    term + 3,
                    log.last_index,
                    log.last_term,
                    (command(log.last_index + 1, term + 3),),
                    0,
                    1,
                ),
            )
        ),
    ]
    voter.turn(tick=False, count=1)
    assert voter.running.raft.voted_for == first
    voter.turn(tick=False)
    voter.kill()
    disks[3].lose_power()
    voter.start()
    raft = voter.running.raft
    assert (raft.current_term, raft.voted_for, raft.log.last_term) == (term + 3, None, term + 3)
    mark = len(voter.journal)
    request = RequestVote(term + 3, raft.log.last_index, raft.log.last_term)
    voter.inbox = [Received(Envelope(second, voter.id, request))]
    voter.turn(tick=False)
    assert votes_given(voter, mark) == [(second, term + 3)]
