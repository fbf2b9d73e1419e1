"""Section 5.4 of the Raft paper and what follows it, one claim a test.

Most tests have one server and hand it messages; the rest let a small group run.
"""

from __future__ import annotations

import pytest

from raftd.core.membership import MembershipChange
from raftd.core.messages import (
    AppendEntries,
    Envelope,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from raftd.core.types import EntryKind
from tests.core.harness import OPTIONS, Cluster, Disk, appends, founding_entry
from tests.core.scenario import Solo, command, log_of, only

T = OPTIONS.election_ticks


def _start(cluster: Cluster, server: str, terms: list[int], term: int | None = None) -> None:
    """Put `server` on a disk with a log of `terms` and restart it."""
    disk = Disk(log_of(terms, founding_entry(cluster.servers)), term or terms[-1])
    cluster.servers[server].disk = disk
    cluster.restart(server)


@pytest.mark.parametrize(
    ("last_term", "last_index", "granted"),
    [(2, 3, True), (2, 4, True), (3, 1, True), (2, 2, False), (1, 9, False)],
)
@pytest.mark.parametrize("kind", [RequestVote, PreVote])
def test_a_vote_goes_only_to_a_log_that_is_as_complete(
    kind: type[RequestVote] | type[PreVote], last_term: int, last_index: int, granted: bool
) -> None:
    """5.4.1: a voter denies its vote if its own log is more up-to-date."""
    solo = Solo(terms=(1, 2, 2))
    answer = solo.answer("2", kind(5, last_index, last_term))
    assert isinstance(answer, RequestVoteResponse | PreVoteResponse)
    assert answer.vote_granted is granted


def test_a_refused_vote_is_not_spent() -> None:
    """5.4.1 with 5.2: votedFor is set only when the vote is granted."""
    solo = Solo(terms=(1, 2, 2))
    solo.step("2", RequestVote(5, 1, 1))
    assert only(RequestVoteResponse, solo.step("3", RequestVote(5, 3, 2))).vote_granted


def test_entries_of_older_terms_are_not_committed_by_counting_replicas() -> None:
    """5.4.2, Figure 8 (c): entry 3 of term 2 is on a majority and still not committed."""
    solo = Solo(voters="12345", terms=(1, 1, 2), term=3)
    solo.lead()
    solo.acknowledge("2", 3)
    solo.acknowledge("3", 3)
    assert solo.commit_index == 0
    # (e): once an entry of the leader's own term is on a majority, so is everything before it.
    solo.acknowledge("2", 4)
    solo.acknowledge("3", 4)
    assert solo.commit_index == 4


def _win(cluster: Cluster, server: str) -> None:
    """Have `server` elected, and keep back every entry that it sends."""
    cluster.queue.clear()
    for other in cluster.servers.values():
        other.raft.leader_id = None
    for _ in range(4 * T):
        if cluster.role(server) == "leader":
            break
        if not cluster.queue:
            cluster.tick(server)
        for envelope in cluster.take(lambda envelope: not appends(envelope)):
            cluster.deliver(envelope)
    cluster.take(appends)


def test_figure_8_an_entry_that_was_on_a_majority_can_still_be_overwritten() -> None:
    """5.4.2, Figure 8 (c) and (d): entry 2 of term 2 is on 1, 2 and 3, and goes away again."""
    cluster = Cluster("12345")
    for server, terms in {"1": [1, 2], "2": [1, 2], "3": [1], "4": [1], "5": [1, 3]}.items():
        _start(cluster, server, terms, term=3)
    cluster.partition("1234", "5")
    _win(cluster, "1")
    assert [term for _, term in cluster.log("1")] == [1, 2, 4]
    for follower in "23":
        cluster.deliver(Envelope("1", follower, AppendEntries(4, 1, 1, (command(2, 2),), 0, 1)))
    for answer in cluster.take(lambda envelope: envelope.dest == "1"):
        cluster.deliver(answer)
    assert [len(cluster.log(server)) for server in "123"] == [3, 2, 2]
    assert cluster.committed == {}
    cluster.crash("1")
    cluster.crash("2")
    cluster.heal()
    _win(cluster, "5")
    cluster.restart("1")
    cluster.restart("2")
    cluster.run(2)
    for server in "12345":
        assert [term for _, term in cluster.log(server)] == [1, 3, 5]
        assert cluster.raft(server).log.commit_index == 3


def test_figure_8_an_entry_below_one_of_the_leaders_term_stays() -> None:
    """5.4.2, Figure 8 (e): once term 4 is on a majority, server 5 cannot win any more."""
    cluster = Cluster("12345")
    for server, terms in {"1": [1, 2], "2": [1, 2], "3": [1], "4": [1], "5": [1, 3]}.items():
        _start(cluster, server, terms, term=3)
    cluster.partition("123", "45")
    cluster.elect("1")
    assert cluster.raft("1").log.commit_index == 3
    cluster.crash("1")
    cluster.heal()
    cluster.run(8 * T)
    assert cluster.leader() in "23"
    assert [term for _, term in cluster.log("5")][:3] == [1, 2, 4]


def test_each_new_leader_appends_a_no_op_at_once() -> None:
    """Section 8: so that it finds out which entries are committed."""
    solo = Solo(terms=(1, 1))
    solo.lead()
    assert solo.terms == [1, 1, 2]
    assert solo.raft.log.entry(3).kind is EntryKind.NOOP


def test_a_new_leader_knows_its_own_log_after_a_restart() -> None:
    """Section 8: a single server commits its old entries through its own no-op."""
    solo = Solo(voters="1", terms=(1, 1, 1))
    solo.lead()
    assert solo.commit_index == 4
    assert len(solo.applied) == 4


def test_a_change_waits_for_the_no_op() -> None:
    """Section 8, and section 6: before it, an earlier change may still be around."""
    solo = Solo()
    solo.lead()
    with pytest.raises(Exception, match="not committed an entry of its term"):
        solo.raft.change_membership(MembershipChange(changes=(("learner", "4"),)))
