"""The scenarios that every Raft has to survive: crashes, partitions, returning leaders."""

from __future__ import annotations

from raftd.core.messages import (
    AppendEntries,
)
from tests.core.harness import OPTIONS, Cluster
from tests.core.scenario import of, settled_leader

T = OPTIONS.election_ticks


def _commands(cluster: Cluster) -> list[list[bytes]]:
    return [cluster.commands(server) for server in sorted(cluster.servers)]


def test_one_follower_down_and_back() -> None:
    """5.5: a crashed follower gets what it missed when it restarts."""
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.crash("3")
    for number in range(5):
        cluster.propose(b"%d" % number)
        cluster.run()
    assert len(cluster.commands("1")) == 5
    cluster.restart("3")
    cluster.run(5)
    assert _commands(cluster) == [cluster.commands("1")] * 3
    assert cluster.leader() == "1"


def test_two_followers_down_and_back() -> None:
    """5.3: without a majority nothing is committed; with it everything goes on."""
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.crash("2")
    cluster.crash("3")
    cluster.propose(b"alone")
    cluster.run(2 * T)
    assert cluster.commands("1") == []
    assert cluster.role("1") != "leader"
    cluster.restart("2")
    cluster.restart("3")
    cluster.run(6 * T)
    assert _commands(cluster) == [[b"alone"]] * 3


def test_a_write_on_the_old_leader_is_dropped_and_the_new_ones_is_kept() -> None:
    """5.3 and 5.4: what never reached a majority may be overwritten."""
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.partition("1", "23")
    cluster.propose(b"old", "1")
    cluster.elect("2")
    cluster.propose(b"new", "2")
    cluster.run(2)
    assert cluster.commands("2") == [b"new"]
    cluster.heal()
    cluster.run(2 * T)
    assert _commands(cluster) == [[b"new"]] * 3
    assert cluster.servers["1"].lost_leadership == 1


def test_a_stale_leader_that_returns_steps_down() -> None:
    """5.1: if one server's term is smaller, it updates to the larger one."""
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.partition("1", "23")
    cluster.elect("2")
    assert cluster.role("1") == "leader"
    cluster.heal()
    cluster.run(2)
    assert (cluster.role("1"), cluster.raft("1").leader_id) == ("follower", "2")


def test_a_leader_on_the_majority_side_goes_on() -> None:
    """5.2: the minority cannot elect anybody, and does not disturb after the partition."""
    cluster = Cluster("12345")
    cluster.elect("1")
    term = cluster.raft("1").current_term
    cluster.partition("123", "45")
    cluster.propose(b"x")
    cluster.run(5 * T)
    assert cluster.commands("1") == cluster.commands("2") == [b"x"]
    assert cluster.commands("4") == []
    cluster.heal()
    cluster.run(2 * T)
    assert cluster.commands("4") == [b"x"]
    assert (cluster.leader(), cluster.raft("1").current_term) == ("1", term)


def test_a_leader_on_the_minority_side_is_replaced() -> None:
    """5.2 and dissertation 6.2: the majority elects its own, the old one gives up."""
    cluster = Cluster("12345")
    cluster.elect("1")
    cluster.partition("12", "345")
    cluster.propose(b"lost", "1")
    cluster.run(5 * T)
    assert cluster.role("1") != "leader"
    assert cluster.leader() in "345"
    cluster.propose(b"kept")
    cluster.run(2)
    cluster.heal()
    cluster.run(4 * T)
    assert _commands(cluster) == [[b"kept"]] * 5


def test_the_whole_group_restarts_with_everything() -> None:
    """Figure 2: persistent state is enough to go on."""
    cluster = Cluster("123")
    cluster.elect("1")
    for number in range(4):
        cluster.propose(b"%d" % number)
    cluster.deliver_all()
    for server in "123":
        cluster.crash(server)
    cluster.queue.clear()
    for server in "123":
        cluster.restart(server)
    cluster.run(6 * T)
    assert _commands(cluster) == [[b"0", b"1", b"2", b"3"]] * 3


def test_an_idle_leader_sends_one_heartbeat_a_tick_to_each_follower() -> None:
    """5.2: heartbeats during idle periods, and nothing more than that."""
    solo = settled_leader("12345")
    for _ in range(20):
        sent = solo.tick()
        assert [envelope.dest for envelope in sent] == ["2", "3", "4", "5"]
        assert not any(message.entries for message in of(AppendEntries, sent))
        for voter in "2345":
            assert solo.acknowledge(voter) == []


def test_each_entry_is_sent_to_each_follower_once() -> None:
    """5.3: without loss nothing is sent twice."""
    cluster = Cluster("12345")
    cluster.elect("1")
    sent: list[int] = []
    for number in range(10):
        cluster.propose(b"%d" % number)
        for envelope in list(cluster.queue):
            if isinstance(envelope.message, AppendEntries):
                sent += [entry.index for entry in envelope.message.entries]
        cluster.deliver_all()
    assert all(sent.count(index) == 4 for index in set(sent))
    assert len(set(sent)) == 10
