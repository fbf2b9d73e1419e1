"""Groups that send and install snapshots, with losses, new leaders and crashes in every gap."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.core.membership import Configuration
from raftd.core.messages import (
    AppendEntries,
    Envelope,
    InstallSnapshot,
    InstallSnapshotResponse,
    RequestVote,
)
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry
from tests.core.disk import Disk, chunks_of, decode_state, encode_state, snapshot_of
from tests.core.harness import Cluster, founding_entry
from tests.core.scenario import command, log_of, replacement

CHUNK = 100


@pytest.fixture(autouse=True)
def _small_chunks() -> Iterator[None]:
    with chunks_of(CHUNK, 3 * CHUNK):
        yield


def group(servers: str = "123", late: str = "3", commands: int = 12, **extra: object) -> Cluster:
    """Return a cluster that server 1 leads, in which `late` missed all that the others compacted.

    `late` is cut off still; 1 has compacted everything.
    """
    cluster = Cluster(servers, **extra)  # type: ignore[arg-type]
    cluster.elect("1")
    cluster.partition([s for s in cluster.servers if s not in late], late)
    for number in range(commands):
        cluster.propose(b"put x=%d" % number)
        cluster.run()
    cluster.run(2)
    cluster.take_and_compact("1")
    return cluster


def parts(envelope: Envelope) -> bool:
    """Whether it carries a part of a snapshot."""
    return isinstance(envelope.message, InstallSnapshot) and bool(envelope.message.data)


def installs(cluster: Cluster) -> list[InstallSnapshot]:
    return [
        e.message
        for e in cluster.queue
        if isinstance(e.message, InstallSnapshot) and e.message.data
    ]


def step_until(cluster: Cluster, server: str, received_bytes: int) -> None:
    """Deliver until `server` has so much of a snapshot, and not much more."""
    for _ in range(400):
        partial = cluster.servers[server].disk.partial
        if partial is not None and len(partial[1]) >= received_bytes:
            return
        if not cluster.queue:
            for name in sorted(cluster.servers):
                if name not in cluster.down:
                    cluster.tick(name)
        cluster.deliver(cluster.queue.pop(0))
    raise AssertionError("the snapshot does not come on")


def assert_whole(cluster: Cluster) -> None:
    """Everybody has applied the same, and goes on."""
    cluster.propose(b"afterwards")
    cluster.run(4)
    states = [node.applied for name, node in cluster.servers.items() if name not in cluster.down]
    assert all(state == states[0] for state in states)
    assert states[0][-1].data == b"afterwards"


# --- the test bed itself ---


def test_equal_states_have_equal_snapshots() -> None:
    cluster = group()
    assert cluster.take_snapshot("2").id == cluster.take_snapshot("1").id
    applied = cluster.servers["1"].applied
    assert decode_state(encode_state(applied)) == applied


# --- installing ---


def test_a_server_that_was_away_installs_a_snapshot_and_goes_on() -> None:
    cluster = group()
    cluster.heal()
    cluster.run(20)
    snapshot = cluster.raft("1").snapshot
    assert snapshot is not None
    assert cluster.raft("3").snapshot == snapshot
    assert cluster.raft("3").log.base_index == snapshot.id.last_included_index
    assert snapshot.id.size_bytes > 3 * CHUNK
    assert_whole(cluster)


def test_a_blank_server_is_added_to_a_group_that_has_compacted_everything() -> None:
    cluster = group(late="4", blank="4")
    cluster.heal()
    cluster.change([("learner", "4")])
    cluster.run(20)
    cluster.change([("voter", "4")])
    cluster.run(4)
    assert cluster.configuration("4") == Configuration("1234")
    assert cluster.raft("4").log.base_index > 0
    assert_whole(cluster)
    cluster.crash("1")
    cluster.crash("2")
    cluster.restart("2")
    cluster.campaign("4")
    assert cluster.leader() == "4"


def test_writes_and_reads_go_on_during_an_install() -> None:
    cluster = group()
    cluster.heal()
    cluster.installs_at_once = False
    cluster.crash("2")
    for _ in range(30):
        cluster.run()
    cluster.give("1", lambda raft: raft.read("token"))
    cluster.run()
    assert [answer.token for answer in cluster.servers["1"].reads] == ["token"]
    assert cluster.leader() == "1"
    cluster.propose(b"during")
    cluster.run()
    assert b"during" not in cluster.commands("1")
    cluster.finish_receiving("3")
    cluster.run(3)
    assert b"during" in cluster.commands("1")
    assert b"during" in cluster.commands("3")


def test_a_server_that_becomes_a_voter_by_snapshot_can_win() -> None:
    """It knows only the founding configuration, in which it has no vote."""
    cluster = group(servers="123", late="4", learners="4")
    cluster.heal()
    cluster.run(20)
    cluster.change([("voter", "4")])
    cluster.partition("123", "4")
    cluster.run(3)
    cluster.take_and_compact("1")
    cluster.take_and_compact("2")
    cluster.heal()
    cluster.run(20)
    assert cluster.configuration("4").voters == frozenset("1234")
    cluster.run_until(
        lambda: cluster.raft("4").log.commit_index == cluster.raft("1").log.last_index
    )
    cluster.campaign("4")
    assert cluster.leader() == "4"


def test_a_joint_configuration_comes_by_snapshot_and_the_change_ends_under_it() -> None:
    """Rule 13: 6 learns of C_old,new by snapshot alone, and has to ask both halves then."""
    cluster = Cluster("123", blank="456")
    cluster.elect("1")
    cluster.change([("learner", server) for server in "456"])
    cluster.run(4)
    cluster.partition("12345", "6")
    cluster.change(replacement("123", "456"))
    index = cluster.raft("1").log.last_index
    cluster.run_until(lambda: cluster.raft("2").log.commit_index >= index, 3)
    joint_only = cluster.servers["2"].applied[:index]
    snapshot, encoded = snapshot_of(joint_only)
    assert snapshot.configuration.index == index
    assert snapshot.configuration.configuration == Configuration("456", "123")
    cluster = _with_joint_snapshot(encoded, joint_only)
    late = cluster.raft("6")
    assert late.configuration == snapshot.configuration
    cluster.run_until(lambda: cluster.configuration("6") == Configuration("456"), 200)
    assert cluster.leader() in "456"


def _with_joint_snapshot(encoded: bytes, applied: list[Entry]) -> Cluster:
    """Start a cluster whose servers have all stored C_old,new, 6 as a snapshot alone."""
    snapshot, _ = snapshot_of(applied)
    cluster = Cluster("123456")
    for name, node in cluster.servers.items():
        node.disk = Disk([] if name == "6" else applied, term=applied[-1].term)
        if name == "6":
            node.disk.publish(snapshot, encoded)
            node.disk.reset(snapshot.id.last_included_index, snapshot.id.last_included_term)
        for entry in applied:
            cluster.note_committed(node, entry)
        node.start()
    return cluster


def test_a_removed_server_learns_by_snapshot_that_it_is_removed() -> None:
    cluster = Cluster("1234")
    cluster.elect("1")
    cluster.partition("123", "4")
    cluster.change([("remove", "4")])
    cluster.run(4)
    cluster.take_and_compact("1")
    cluster.heal()
    cluster.run(30)
    raft = cluster.raft("4")
    assert raft.snapshot is not None
    assert raft.configuration is not None
    assert "4" in raft.configuration.entry.tombstones
    assert not raft.may_campaign()


def test_a_server_with_other_entries_gives_them_up_for_the_snapshot() -> None:
    """It led for a moment and nobody has its entries."""
    cluster = Cluster("123")
    cluster.elect("3")
    cluster.partition("12", "3")
    for number in range(30):
        cluster.propose(b"lost %d" % number, "3")
    cluster.campaign("1")
    for number in range(8):
        cluster.propose(b"kept %d" % number, "1")
        cluster.run()
    cluster.take_and_compact("1")
    cluster.heal()
    cluster.run(30)
    assert cluster.raft("3").snapshot == cluster.raft("1").snapshot
    assert not [text for text in cluster.commands("3") if text.startswith(b"lost")]
    assert_whole(cluster)


@given(
    st.lists(st.sampled_from([1, 3, 5]), min_size=1, max_size=6).map(sorted),
    st.integers(0, 6),
    st.lists(st.sampled_from([2, 4, 6]), max_size=9).map(sorted),
    st.data(),
)
def test_any_two_logs_are_brought_together(
    ours: list[int], common: int, theirs: list[int], data: st.DataObject
) -> None:
    """Wherever a leader's log begins and a follower's parts from it, in few messages.

    No snapshot is sent to a follower that has the entry before the leader's first one.
    """
    terms = [1, *ours]
    common = min(1 + common, len(terms))
    # No term had two leaders: where the logs part, the terms are not the same again.
    other = terms[:common] + [term for term in theirs if term > terms[common - 1]]
    cluster = Cluster("123")
    founding = founding_entry("123")
    mine = log_of(terms, founding)
    his = log_of(other, founding)
    base = data.draw(st.integers(0, len(mine)))
    for name, entries in (("1", mine), ("2", mine), ("3", his)):
        node = cluster.servers[name]
        node.disk = Disk(entries, term=6)
        if name != "3" and base:
            node.disk.publish(*snapshot_of(mine[:base]))
            node.disk.compact(base)
        node.start()
    for entry in mine:
        cluster.note_committed(cluster.servers["1"], entry)
    has_base = base == 0 or (len(his) >= base and his[base - 1].term == mine[base - 1].term)
    cluster.down = {"3"}
    cluster.campaign("1")
    cluster.down = set()
    with chunks_of(10_000, 30_000):
        for _ in range(12):
            cluster.tick("1")
            cluster.deliver_all()
    assert cluster.log("3")[-1:] == cluster.log("1")[-1:]
    assert cluster.servers["3"].applied == cluster.servers["1"].applied
    assert (cluster.raft("3").snapshot is None) is has_base


# --- losses, repetitions, links ---


@pytest.mark.parametrize("seed", range(12))
def test_parts_and_answers_that_are_lost_repeated_or_overtaken_do_no_harm(seed: int) -> None:
    chance = Random(seed)
    cluster = group()
    cluster.heal()
    for _ in range(60):
        for server in "123":
            cluster.tick(server)
        for _ in range(3):
            batch, cluster.queue = cluster.queue, []
            chance.shuffle(batch)
            for envelope in batch:
                if not isinstance(envelope.message, InstallSnapshot | InstallSnapshotResponse):
                    cluster.deliver(envelope)
                    continue
                for _ in range(chance.choice((0, 1, 1, 2))):
                    cluster.deliver(envelope)
                if chance.random() < 0.1:
                    cluster.queue.append(envelope)
    assert cluster.raft("1").current_term == 2, "somebody campaigned"
    cluster.deliver_all()
    cluster.run(30)
    assert cluster.raft("3").log.base_index > 0
    assert_whole(cluster)


def test_after_a_broken_link_only_the_rest_is_sent() -> None:
    cluster = group()
    cluster.heal()
    step_until(cluster, "3", 4 * CHUNK)
    cluster.queue.clear()
    cluster.partition("12", "3")
    cluster.give("1", lambda raft: raft.report_unreachable("3"))
    cluster.run(3)
    cluster.heal()
    offsets = []
    for _ in range(20):
        for server in "123":
            cluster.tick(server)
        for _ in range(4):
            offsets += [part.offset for part in installs(cluster)]
            batch, cluster.queue = cluster.queue, []
            for envelope in batch:
                cluster.deliver(envelope)
    assert offsets
    assert min(offsets) >= 4 * CHUNK
    assert_whole(cluster)


def test_a_new_leader_with_the_same_snapshot_goes_on() -> None:
    cluster = group()
    cluster.take_and_compact("2")
    assert cluster.raft("1").snapshot == cluster.raft("2").snapshot
    assert _offsets_from_a_new_leader(cluster)[0] == 4 * CHUNK
    assert_whole(cluster)


def test_a_new_leader_with_another_snapshot_starts_over() -> None:
    cluster = group()
    cluster.take_snapshot("2", len(cluster.servers["2"].applied) - 1)
    cluster.compact("2")
    assert cluster.raft("1").snapshot != cluster.raft("2").snapshot
    assert _offsets_from_a_new_leader(cluster)[0] == 0
    assert_whole(cluster)


def _offsets_from_a_new_leader(cluster: Cluster) -> list[int]:
    """Let 3 get 4 parts from 1; then 2 takes over. Return the offsets that it sends."""
    cluster.heal()
    step_until(cluster, "3", 4 * CHUNK)
    assert cluster.raft("3").incoming_snapshot is not None
    cluster.crash("1")
    cluster.queue.clear()
    cluster.tick("3", cluster.options.election_ticks)
    cluster.tick("2", 2 * cluster.options.election_ticks)
    offsets = []
    for _ in range(20):
        for server in "23":
            cluster.tick(server)
        while cluster.queue:
            envelope = cluster.queue.pop(0)
            if parts(envelope):
                assert isinstance(envelope.message, InstallSnapshot)
                offsets.append(envelope.message.offset)
            cluster.deliver(envelope)
    return offsets


def test_a_server_that_is_receiving_may_be_elected() -> None:
    """With 1 dead it is the only one that 2 can turn to; here both logs end alike."""
    cluster = group(commands=4)
    cluster.heal()
    cluster.run(30)
    cluster.partition("12", "3")
    cluster.propose(b"more")
    cluster.run()
    cluster.take_and_compact("1")
    cluster.heal()
    cluster.installs_at_once = False
    cluster.run(30)
    assert cluster.servers["3"].received is not None
    cluster.crash("1")
    cluster.campaign("2")
    assert cluster.leader() == "2"
    cluster.run(3)
    # The new leader has the entries still, so that no snapshot is needed any more.
    assert cluster.commands("3") == cluster.commands("2")
    cluster.finish_receiving("3")
    assert cluster.servers["3"].disk.partial is None
    assert_whole_without(cluster, "1")


def assert_whole_without(cluster: Cluster, away: str) -> None:
    cluster.restart(away)
    cluster.run(30)
    assert_whole(cluster)


def test_a_vote_is_asked_for_and_given_in_the_middle_of_an_install() -> None:
    cluster = group()
    cluster.heal()
    step_until(cluster, "3", 4 * CHUNK)
    cluster.queue.clear()
    cluster.crash("1")
    cluster.tick("3", 10)
    cluster.tick("2", 20)
    cluster.deliver_all()
    assert cluster.raft("3").voted_for == "2"
    assert cluster.leader() == "2"
    assert_whole_without(cluster, "1")


def test_snapshots_are_read_as_long_as_somebody_gets_them() -> None:
    """The leader takes one after the other meanwhile, and compacts to each."""
    cluster = group()
    cluster.heal()
    used: set[SnapshotId] = set()
    for number in range(40):
        cluster.propose(b"n%d" % number)
        cluster.run()
        cluster.take_and_compact("1")
        used |= cluster.servers["1"].disk.snapshots.keys()
        assert len(cluster.servers["1"].disk.snapshots) <= 2
    assert len(used) > 10
    cluster.run(20)
    assert_whole(cluster)


# --- crashes ---

TAKING = ["written", "published", "forgotten"]
INSTALLING = ["received", "published", "log changed"]


@pytest.mark.parametrize("step", TAKING)
def test_a_crash_while_a_snapshot_is_taken_loses_nothing(step: str) -> None:
    cluster = group()
    cluster.heal()
    cluster.run(20)
    cluster.propose(b"more")
    cluster.run(2)
    before = cluster.servers["2"].applied
    cluster.power_loss_at = ("2", step)
    cluster.take_snapshot("2")
    if "2" not in cluster.down:
        cluster.compact("2")
    assert "2" in cluster.down
    cluster.restart("2")
    raft = cluster.raft("2")
    assert (raft.snapshot is not None) is (step != "written")
    assert raft.log.last_index == before[-1].index
    assert raft.log.base_index == 0
    cluster.run(12)
    assert_whole(cluster)


@pytest.mark.parametrize("log", ["ends before it", "has its last entry", "has another entry"])
@pytest.mark.parametrize("step", INSTALLING)
def test_a_crash_while_a_snapshot_is_installed_leaves_a_state_that_starts(
    step: str, log: str
) -> None:
    """Rule 34: recovery does what the install would have done."""
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.partition("12", "3")
    for number in range(6):
        cluster.propose(b"put x=%d" % number)
        cluster.run()
    snapshot, encoded = snapshot_of(cluster.servers["1"].applied[:6])
    state, index = cluster.servers["1"].applied[:6], 6
    node = cluster.servers["3"]
    if log == "has its last entry":
        node.disk.entries = list(cluster.servers["1"].disk.entries)
    elif log == "has another entry":
        node.disk.entries = node.disk.entries[:1] + [command(i, 1) for i in range(2, 11)]
    last = len(node.disk.entries)
    node.disk.hard_state = cluster.servers["2"].disk.hard_state
    node.disk.partial = (snapshot.id, encoded)
    node.start()
    node.received = snapshot
    cluster.power_loss_at = ("3", step)
    cluster.finish_receiving("3")
    assert "3" in cluster.down
    cluster.restart("3")
    raft = cluster.raft("3")
    if step == "received":
        assert (raft.snapshot, node.applied, raft.log.last_index) == (None, [], last)
    else:
        assert (raft.snapshot, node.applied) == (snapshot, state)
        # What was acknowledged after the snapshot is there still; other entries are gone.
        assert raft.log.last_index == (last if log == "has its last entry" else index)
    cluster.take_and_compact("1")
    cluster.heal()
    cluster.run(30)
    assert_whole(cluster)


@pytest.mark.parametrize("received_bytes", [1, CHUNK + 1, 4 * CHUNK])
def test_a_crash_after_a_part_was_stored_costs_nothing_but_time(received_bytes: int) -> None:
    cluster = group()
    cluster.heal()
    step_until(cluster, "3", received_bytes - 1)
    cluster.power_loss_at = ("3", "stored")
    cluster.run_until(lambda: "3" in cluster.down)
    cluster.restart("3")
    cluster.run(30)
    assert cluster.raft("3").snapshot == cluster.raft("1").snapshot
    assert_whole(cluster)


def test_what_had_arrived_before_a_crash_is_not_sent_again() -> None:
    cluster = group()
    cluster.heal()
    step_until(cluster, "3", 4 * CHUNK)
    cluster.crash("3")
    cluster.queue.clear()
    cluster.restart("3")
    cluster.give("1", lambda raft: raft.report_unreachable("3"))
    offsets: list[int] = []
    for _ in range(200):
        if not cluster.queue:
            for server in "123":
                cluster.tick(server)
        envelope = cluster.queue.pop(0)
        if parts(envelope):
            assert isinstance(envelope.message, InstallSnapshot)
            offsets.append(envelope.message.offset)
        cluster.deliver(envelope)
    assert min(offsets) == 4 * CHUNK
    assert_whole(cluster)


def test_a_part_that_was_lost_in_a_crash_is_sent_again() -> None:
    cluster = group()
    cluster.heal()
    step_until(cluster, "3", 4 * CHUNK)
    cluster.crash("3")
    partial = cluster.servers["3"].disk.partial
    assert partial is not None
    cluster.servers["3"].disk.partial = (partial[0], partial[1][: CHUNK + 3])
    cluster.restart("3")
    cluster.run(40)
    assert cluster.raft("3").snapshot == cluster.raft("1").snapshot
    assert_whole(cluster)


def test_a_leader_that_restarts_with_its_log_compacted_leads_on() -> None:
    cluster = group()
    cluster.heal()
    cluster.crash("1")
    cluster.restart("1")
    assert cluster.raft("1").log.commit_index == cluster.raft("1").log.base_index
    cluster.run(20)
    cluster.campaign("1")
    cluster.run(30)
    assert cluster.leader() == "1"
    assert_whole(cluster)


def test_a_state_that_outlived_the_process_goes_on_where_it_was() -> None:
    cluster = group()
    cluster.propose(b"after the snapshot")
    cluster.run(2)
    applied = cluster.servers["1"].applied
    cluster.crash("1")
    cluster.restart("1", state_is_kept=True)
    assert cluster.servers["1"].applied == applied
    assert cluster.raft("1").log.handed_index == len(applied)
    cluster.heal()
    cluster.run(30)
    assert_whole(cluster)


def test_nobody_is_asked_for_a_vote_by_a_server_without_configuration() -> None:
    """A blank server in the middle of its first install knows nothing yet."""
    cluster = group(late="4", blank="4")
    cluster.heal()
    cluster.change([("learner", "4")])
    step_until(cluster, "4", 2 * CHUNK)
    cluster.queue.clear()
    cluster.tick("4", 50)
    assert not [e for e in cluster.queue if isinstance(e.message, RequestVote | AppendEntries)]
    assert cluster.queue == []
