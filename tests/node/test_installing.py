"""Snapshots that a leader sends: new servers, servers that were away, and what comes in between."""

from __future__ import annotations

from random import Random

import pytest

from raftd.compaction import ROOM_FOR_STATE, room_needed
from raftd.core import leader as leader_module
from raftd.core import progress as progress_module
from raftd.core.messages import AppendEntries, Envelope, InstallSnapshot
from raftd.core.ready import ReadAnswer
from raftd.node import EXIT_REMOVED
from raftd.operations import CATCH_UP_RESTARTS_MAX
from raftd.protocol import ErrorReply, GetReply, GetRequest
from raftd.reading import _Read
from raftd.storage import snapshot_file
from raftd.storage.snapshots import SnapshotDirectory
from raftd.views import RATE_SAMPLE_MS, RATE_WINDOW_MS
from tests.node.disks import SNAPSHOTS, MemoryDisk
from tests.node.growing import (
    EAGER,
    VALUE_BYTES,
    assert_all_hold,
    assert_holds,
    base_of,
    chunks_to,
    did,
    fill,
    fill_until_compacted,
    is_chunk,
    snapshot_index_of,
    snapshot_world,
)
from tests.node.world import (
    CATCH_UP_TICKS,
    ELECTION_TICKS,
    TICK_MS,
    Server,
    World,
    become,
    drop,
    is_final,
    new,
)

CHUNK_BYTES = 512


@pytest.fixture
def world() -> World:
    return snapshot_world()


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots go out in many small parts."""
    monkeypatch.setattr(leader_module, "SNAPSHOT_CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(progress_module, "SNAPSHOT_INFLIGHT_BYTES_MAX", 2 * CHUNK_BYTES)


def only(world: World, count: int, server: Server) -> None:
    """Let only `count` more parts of snapshots reach `server`."""
    left = [count]

    def passes(envelope: Envelope) -> bool:
        if envelope.dest != server.id or not is_chunk(envelope):
            return True
        left[0] -= 1
        return left[0] >= 0

    world.passes = passes


def everything(_: Envelope) -> bool:
    return True


def away(world: World, name: str = "n3", *, keys: int = 4) -> tuple[Server, dict[str, str]]:
    """Let a follower be down until its next entry is compacted; return it and what was written."""
    follower = world[name]
    follower.kill()
    world.run(2 * ELECTION_TICKS)
    return follower, compact_past(world, follower, keys=keys)


def compact_past(world: World, server: Server, *, keys: int = 4) -> dict[str, str]:
    """Write until what `server` needs next is compacted; return what was written."""
    written: dict[str, str] = {}
    number = 0
    while base_of(world.leader()) <= server.disk.last_index:
        written |= fill(world, 1, keys=keys, first=number)
        world.run(2)
        number += 1
        assert number < 300
    return written


def has_all_of_it(server: Server) -> bool:
    """Whether a snapshot was received whole, and is to be built a state from."""
    return any(lane == "receive" for lane, _ in server.snapshots.jobs)


def receive_all(world: World, server: Server) -> None:
    """Start a server that is sent a snapshot, and stop its background once all of that is there."""
    server.works = False
    server.start()
    world.until(lambda: has_all_of_it(server))


# --- who needs one ------------------------------------------------------------------------------


def test_a_new_server_joins_a_compacted_cluster_through_a_snapshot_and_is_promoted(
    world: World,
) -> None:
    leader = world.form(3)
    written = fill_until_compacted(world, leader)
    joining = world.boot("n4")
    record = world.finish(world.started(world.change("add", new("n4"))))
    assert record.result == "done", record.explanation
    assert did(joining, "install")
    assert joining.running.raft.log.base_index > 1
    assert world.configuration_of(joining) == ({"n1", "n2", "n3", "n4"}, set(), set())
    assert_all_hold(world, written)
    joining.restart()
    assert_all_hold(world, written)


def test_a_follower_that_was_away_longer_than_the_tail_gets_a_snapshot_and_then_the_rest(
    world: World,
) -> None:
    world.form(3)
    follower, written = away(world)
    written |= fill(world, 3, keys=1_000_000, first=1000)
    follower.start()
    assert_all_hold(world, written)
    (install,) = did(follower, "install")
    appended = [
        entry.index
        for event in did(follower, "append", since=follower.journal.index(install))
        for entry in event[2]
    ]
    assert appended[0] == install[1] + 1


def test_a_snapshot_goes_out_in_bounded_parts_and_no_more_than_a_few_unanswered(
    world: World, chunks: None
) -> None:
    world.form(3)
    follower, written = away(world)
    follower.works = False
    follower.start()
    world.cut_one_way("n3", "n1")
    world.heal()
    world.run(6)
    sent = chunks_to(world, follower)
    assert len(sent) > 4
    assert all(len(chunk.data) <= CHUNK_BYTES for chunk in sent)
    size_bytes = sent[0].snapshot.size_bytes
    assert [chunk.offset for chunk in sent] == list(range(0, size_bytes, CHUNK_BYTES))
    follower.works = True
    assert_all_hold(world, written)


@pytest.mark.parametrize("phase", ["joint", "settled"])
def test_a_snapshot_has_the_configuration_in_its_joint_form_if_it_is_one(phase: str) -> None:
    world = snapshot_world(EAGER)
    world.form(4)
    fill(world, 5)
    world["n4"].kill()
    world.run(2 * ELECTION_TICKS)
    if phase == "joint":
        world.passes = lambda envelope: not is_final(envelope)
    operation = world.started(world.change("remove", drop("n3")))
    world.run(3)
    leader = world.leader()
    joint = leader.running.raft.configuration if phase == "settled" else None
    for at in leader.running.raft.log.configurations.since(0):
        joint = at if at.configuration.is_joint else joint
    if phase == "joint":
        joint_index = leader.running.raft.snapshot.configuration.index
        assert leader.running.raft.snapshot.configuration.configuration.is_joint
        assert leader.running.raft.configuration.index > joint_index
        world["n4"].works = True
        world["n4"].start()
        world.until(lambda: did(world["n4"], "install"))
        latest = world["n4"].running.raft.configuration
        assert latest.index == joint_index
        assert latest.configuration.is_joint
        # And after a restart, from the file alone.
        world["n4"].restart()
        assert world["n4"].running.raft.configuration == latest
        world.passes = everything
    else:
        world["n4"].start()
    assert world.finish(operation).result == "done"
    world.until(lambda: world.configuration_of(world["n4"]) == ({"n1", "n2", "n4"}, set(), set()))


def test_a_leader_that_has_only_the_joint_configuration_of_a_snapshot_ends_the_change() -> None:
    world = snapshot_world(EAGER)
    world.form(4)
    fill(world, 5)
    world.passes = lambda envelope: not is_final(envelope)
    operation = world.started(world.change("remove", drop("n4")))
    world.run(5)
    leader = world.leader()
    for server in world.up():
        assert server.running.raft.snapshot.configuration.configuration.is_joint
    leader.kill()
    world.passes = everything
    assert world.finish(operation).result == "done"
    assert world.configuration_of(world.leader()) == ({"n1", "n2", "n3"}, set(), set())


# --- while it comes in --------------------------------------------------------------------------


def test_while_a_snapshot_comes_in_stale_reads_are_answered_from_the_state_before(
    world: World,
) -> None:
    leader = world.form(3)
    world.call(leader, world.put("a", "before"))
    world.until(world.is_settled)
    follower = world["n3"]
    world.cut(["n1", "n2"])
    world.call(leader, world.put("a", "after"))
    compact_past(world, follower)
    follower.works = False
    world.heal()
    world.until(lambda: has_all_of_it(follower))
    while has_all_of_it(follower):
        world.run(1)
        assert world.get("a", follower, stale=True) == "before"
        follower.work("receive")
    assert not did(follower, "install")
    world.run(1)
    assert did(follower, "install")
    assert world.get("a", follower, stale=True) == "after"


def test_a_read_that_waits_for_an_index_is_answered_when_a_snapshot_brings_it(
    world: World,
) -> None:
    world.form(3)
    follower, _ = away(world)
    follower.works = False
    follower.start()
    world.run(3)
    replies: list[object] = []
    index = world.leader().status.snapshot_index
    for read_index in (index, world.leader().status.last_index + 5):
        read = _Read(lambda at=read_index: replies.append(at), replies.append)
        follower.running._reading.answered(ReadAnswer(read, read_index))
    assert replies == []
    follower.works = True
    world.until(lambda: did(follower, "install"))
    world.run(1)
    assert replies == [index]


def test_a_follower_that_installs_hears_heartbeats_and_calls_no_election(
    world: World, chunks: None
) -> None:
    world.form(3)
    follower, _ = away(world)
    leader, term = world.leader(), world.leader().status.term
    only(world, 3, follower)
    follower.start()
    world.run(5 * ELECTION_TICKS)
    assert not did(follower, "install")
    assert world.leader() is leader
    assert (leader.status.term, follower.status.term) == (term, term)
    assert follower.status.leader == leader.id


def test_a_broken_link_goes_on_where_it_was(world: World, chunks: None) -> None:
    world.form(3)
    follower, written = away(world)
    only(world, 5, follower)
    follower.start()
    world.until(lambda: len(did(follower, "receive")) >= 5)
    world.run(3)
    world.cut(["n1", "n2"])
    world.run(ELECTION_TICKS)
    mark = len(did(follower, "receive"))
    world.passes = everything
    world.heal()
    assert_all_hold(world, written)
    with_bytes = [event for event in did(follower, "receive")[mark:] if event[3]]
    assert with_bytes[0][2] == 5 * CHUNK_BYTES


@pytest.mark.parametrize("keeps_state", [False, True])
def test_a_follower_that_restarts_while_it_receives_keeps_what_it_has(
    world: World, chunks: None, monkeypatch: pytest.MonkeyPatch, keeps_state: bool
) -> None:
    monkeypatch.setattr(snapshot_file, "BLOCK_BYTES", 4 * CHUNK_BYTES)
    world.form(3)
    follower, written = away(world, keys=1_000_000)
    # Of several records: what is kept are whole ones.
    written |= fill(world, 80, keys=1_000_000, first=1000)
    world.run(5)
    only(world, 40, follower)
    follower.start()
    world.run(8)
    received_bytes = follower.snapshots.directory.received_bytes
    assert received_bytes == 40 * CHUNK_BYTES
    follower.restart(keeps_state=keeps_state)
    while follower.snapshots.directory.is_checking:
        follower.work("receive")
    kept_bytes = follower.snapshots.directory.received_bytes
    # After a loss of power it may be less, or nothing.
    assert kept_bytes > received_bytes / 2 or not keeps_state
    mark = len(did(follower, "receive"))
    world.passes = everything
    assert_all_hold(world, written)
    assert did(follower, "install")
    offsets = [event[2] for event in did(follower, "receive")[mark:] if event[3]]
    assert offsets[0] == kept_bytes


def test_a_snapshot_that_was_received_whole_before_a_restart_is_not_sent_again(
    world: World,
) -> None:
    world.form(3)
    follower, written = away(world)
    receive_all(world, follower)
    follower.work("receive")
    mark = len(did(follower, "receive"))
    follower.restart(keeps_state=True)
    follower.works = True
    assert_all_hold(world, written)
    assert did(follower, "install")
    assert not [event for event in did(follower, "receive")[mark:] if event[3]]


# --- the leader changes -------------------------------------------------------------------------


def test_a_new_leader_with_the_same_snapshot_goes_on_where_the_old_one_was(chunks: None) -> None:
    world = snapshot_world(EAGER)
    leader = world.form(5)
    follower, _ = away(world, "n5")
    written = fill(world, 8)
    world.run(10)
    ids = {server.running.raft.snapshot.id for server in world.up()}
    assert len(ids) == 1
    # Nobody takes another one.
    for server in world.up():
        server.works = False
    only(world, 3, follower)
    follower.start()
    world.run(3)
    leader.kill()
    successor = world.leader()
    mark = len(did(follower, "receive"))
    world.passes = everything
    world.until(lambda: did(follower, "install"))
    with_bytes = [event for event in did(follower, "receive")[mark:] if event[3]]
    assert with_bytes[0][2] == 3 * CHUNK_BYTES
    assert successor.leads
    leader.start()
    assert_all_hold(world, written)


def test_a_new_leader_with_another_snapshot_starts_again_and_the_one_that_is_built_is_dropped(
    world: World,
) -> None:
    leader = world.form(5)
    follower, written = away(world, "n5")
    receive_all(world, follower)
    follower.work("receive")
    first = follower.snapshots.directory.receiving
    # The others take a newer one, and then one of them leads.
    world.passes = lambda envelope: envelope.dest != follower.id
    for _ in range(3):
        written |= fill_until_compacted(world, world["n2"], world["n3"], world["n4"])
    leader.kill()
    world.leader()
    world.passes = everything
    world.until(lambda: follower.snapshots.directory.receiving not in (None, first))
    follower.works = True
    leader.start()
    assert_all_hold(world, written)
    (install,) = did(follower, "install")
    assert install[1] > first.last_included_index


def test_a_snapshot_that_became_unnecessary_is_dropped(world: World) -> None:
    """A leader that still has the entries has taken over."""
    leader = world.form(3)
    world["n2"].works = False
    follower, written = away(world)
    receive_all(world, follower)
    leader.kill()
    world.until(lambda: world["n2"].leads)
    world.until(lambda: follower.state.applied_index == world["n2"].state.applied_index)
    assert follower.snapshots.directory.receiving is not None
    follower.work_off("receive")
    assert not did(follower, "install")
    assert follower.snapshots.directory.receiving is None
    leader.start()
    assert_all_hold(world, written)


# --- at the same time as others -----------------------------------------------------------------


@pytest.mark.parametrize("first", ["take", "receive"])
def test_taking_and_installing_at_the_same_time_never_publishes_the_older_one_last(
    world: World, first: str
) -> None:
    leader = world.form(3)
    follower = world["n3"]
    follower.works = False
    while not did(follower, "take"):
        fill(world, 1)
        world.run(1)
    follower.work("take")
    follower.work("take")
    follower.inbox, taken = [], follower.inbox
    assert len(taken) == 1
    world.cut(["n1", "n2"])
    written: dict[str, str] = {}
    while base_of(leader) <= follower.disk.last_index:
        written |= fill_until_compacted(world, leader)
    world.heal()
    world.until(lambda: has_all_of_it(follower))
    if first == "take":
        follower.inbox += taken
        follower.turn(tick=False)
    follower.work_off("receive")
    if first == "receive":
        follower.inbox += taken
        follower.turn(tick=False)
    follower.works = True
    world.run(3)
    published = [event[1] for event in did(follower, "publish-snapshot", "install")]
    assert published == sorted(published)
    assert len(published) == (2 if first == "take" else 1)
    assert published[-1] == snapshot_index_of(follower)
    assert_all_hold(world, written)
    assert len(follower.disk.files.names(follower.snapshots.directory._path)) == 1


def test_a_snapshot_that_is_being_sent_stays_although_newer_ones_are_taken(
    world: World, chunks: None
) -> None:
    leader = world.form(3)
    follower, written = away(world)
    only(world, 3, follower)
    follower.start()
    world.until(lambda: len(did(follower, "receive")) >= 3)
    sending = follower.snapshots.directory.receiving
    for _ in range(3):
        written |= fill_until_compacted(world, leader)
    assert snapshot_index_of(leader) > sending.last_included_index
    world.run(5)
    assert len(leader.disk.files.names(leader.snapshots.directory._path)) == 2
    world.passes = everything
    assert_all_hold(world, written)
    assert did(follower, "install")[0][1] == sending.last_included_index
    world.run(5)
    assert len(leader.disk.files.names(leader.snapshots.directory._path)) == 1


@pytest.mark.parametrize(
    ("kind", "changes", "voters"),
    [
        ("promote", [become("n4", "voter")], "n1 n2 n3 n4"),
        ("remove", [drop("n2")], "n1 n3"),
        ("replace", [drop("n1"), new("n5")], "n2 n3 n5"),
    ],
)
def test_an_operation_goes_on_while_a_member_installs_a_snapshot(
    world: World, chunks: None, kind: str, changes: list[object], voters: str
) -> None:
    world.form(3, learners=1)
    world.boot("n5")
    follower, written = away(world, "n4" if kind == "promote" else "n3")
    follower.start()
    record = world.finish(world.started(world.change(kind, *changes)))
    assert record.result == "done", record.explanation
    assert did(follower, "install")
    assert world.configuration_of(world.leader())[0] == set(voters.split())
    assert_all_hold(world, written)


# --- what is wrong with it ----------------------------------------------------------------------


def test_a_snapshot_that_arrives_damaged_is_fetched_again(world: World) -> None:
    world.form(3)
    follower, written = away(world)
    receive_all(world, follower)
    directory = follower.snapshots.directory
    node = follower.disk.files.node(directory.received_path(directory.receiving))
    node.content[len(node.content) // 2] ^= 1
    for _, written_bytes in node.pending:
        assert written_bytes
    follower.works = True
    assert_all_hold(world, written)
    received = sum(event[3] for event in did(follower, "receive"))
    (install,) = did(follower, "install")
    assert received == 2 * follower.snapshots.latest.id.size_bytes
    assert install[1] == follower.snapshots.latest.id.last_included_index


def test_without_room_for_it_nothing_is_stored_and_status_says_why(world: World) -> None:
    world.form(3)
    follower, written = away(world)
    follower.free_bytes = VALUE_BYTES
    follower.start()
    world.run(2 * ELECTION_TICKS)
    assert not did(follower, "receive")
    assert any("no room for the leader's snapshot" in issue for issue in follower.status.issues)
    follower.free_bytes = 1 << 30
    assert_all_hold(world, written)
    assert did(follower, "install")
    assert follower.status.issues == ()


def newest_size(world: World) -> int:
    snapshot = world.leader().running.raft.snapshot
    assert snapshot is not None
    return snapshot.id.size_bytes


def has_no_room(server: Server) -> bool:
    return any("no room for the leader's snapshot" in issue for issue in server.status.issues)


def test_once_all_of_a_snapshot_is_here_its_state_takes_the_room_that_was_asked_for(
    world: World,
) -> None:
    world.form(3)
    follower, written = away(world)
    receive_all(world, follower)
    # The state that is being built has taken the rest.
    follower.free_bytes = VALUE_BYTES
    mark = len(follower.journal)
    world.run(ELECTION_TICKS)
    assert did(follower, "receive", since=mark), "heartbeats of the leader"
    assert not has_no_room(follower)
    peer = next(p for p in world.leader().status.peers if p.server == follower.id)
    assert peer.snapshot_received_bytes == newest_size(world)
    follower.works = True
    world.until(lambda: did(follower, "install"))
    follower.free_bytes = 1 << 30
    assert_all_hold(world, written)


@pytest.mark.parametrize("spare_bytes", [0, -1])
def test_what_is_here_of_a_snapshot_needs_no_room_any_more(
    world: World, chunks: None, spare_bytes: int
) -> None:
    world.form(3)
    follower, written = away(world)
    only(world, 2, follower)
    follower.start()
    world.until(lambda: len(did(follower, "receive")) > 2)
    world.run(2)
    size_bytes = newest_size(world)
    missing_bytes = size_bytes - 2 * CHUNK_BYTES
    assert missing_bytes > CHUNK_BYTES
    follower.free_bytes = missing_bytes + ROOM_FOR_STATE * size_bytes + spare_bytes
    world.passes = everything
    world.run(ELECTION_TICKS + 2)
    # The leader keeps what it knows of it: it is there.
    assert has_no_room(follower) == (spare_bytes < 0)
    peer = next(p for p in world.leader().status.peers if p.server == follower.id)
    if spare_bytes < 0:
        assert peer.snapshot_received_bytes == 2 * CHUNK_BYTES
    follower.free_bytes = 1 << 30
    assert_all_hold(world, written)
    assert did(follower, "install")


def test_what_is_worked_in_has_its_room_already() -> None:
    rest = 100
    for done in (0, 400, 900):
        assert room_needed(1000, done, done) == (1 + ROOM_FOR_STATE) * (1000 - done)
    assert room_needed(1000, 1000, 1000 - rest) == ROOM_FOR_STATE * rest


def test_a_server_that_has_no_room_for_the_snapshot_is_not_added_and_the_reason_is_told(
    world: World,
) -> None:
    leader = world.form(3)
    fill_until_compacted(world, leader)
    joining = world.boot("n4")
    joining.free_bytes = 0
    world.run(1)
    record = world.finish(world.started(world.change("add", new("n4"))))
    assert record.result == "failed"
    assert "n4 has 0 of" in record.explanation
    assert "bytes of a snapshot" in record.explanation
    assert world.configuration_of(leader) == ({"n1", "n2", "n3"}, set(), set())


# --- operations wait for it ---------------------------------------------------------------------


def test_a_snapshot_that_takes_longer_than_the_catch_up_timeout_is_progress_all_the_same(
    chunks: None,
) -> None:
    rate = 2 * CHUNK_BYTES
    world = snapshot_world(catch_up_bytes_per_second=rate)
    leader = world.form(3)
    number = 0
    while leader.running.raft.snapshot is None or (
        leader.running.raft.snapshot.id.size_bytes * 1000 / rate < 2 * CATCH_UP_TICKS * TICK_MS
    ):
        fill(world, 1, keys=1_000_000, first=number)
        world.run(2)
        number += 1
    joining = world.boot("n4")
    operation = world.started(world.change("add", new("n4")))
    started = world.now
    world.until(lambda: chunks_to(world, joining))
    world.run(40)
    view = world.operation_view(operation)
    (peer,) = view.peers
    received_bytes = joining.snapshots.directory.received_bytes
    size_bytes = leader.running.raft.snapshot.id.size_bytes
    assert peer.snapshot_bytes == size_bytes
    assert 0 < peer.snapshot_received_bytes <= received_bytes < size_bytes
    assert view.blocked_by == (
        f"n4 to catch up; n4 has {peer.snapshot_received_bytes:,} of {size_bytes:,} bytes of a "
        "snapshot"
    )
    assert peer.catch_up_bytes_per_second == pytest.approx(rate, rel=0.4)
    record = world.finish(operation)
    assert record.result == "done", record.explanation
    assert world.now - started > 1.5 * CATCH_UP_TICKS


def test_the_rate_of_catching_up_is_respected(chunks: None) -> None:
    rate = 4 * CHUNK_BYTES
    world = snapshot_world(catch_up_bytes_per_second=rate)
    leader = world.form(3)
    fill_until_compacted(world, leader)
    joining = world.boot("n4")
    world.started(world.change("add", new("n4")))
    world.until(lambda: chunks_to(world, joining))
    begun = world.now
    for _ in range(40):
        world.run(1)
        sent = sum(len(chunk.data) for chunk in chunks_to(world, joining))
        assert sent <= (world.now - begun + 1) * rate * TICK_MS / 1000 + CHUNK_BYTES
    assert sent > 0.6 * 40 * rate * TICK_MS / 1000


def test_a_server_that_stops_in_the_middle_of_a_snapshot_is_given_up_with_the_numbers(
    world: World, chunks: None
) -> None:
    leader = world.form(3)
    fill_until_compacted(world, leader)
    joining = world.boot("n4")
    only(world, 3, joining)
    record = world.finish(world.started(world.change("add", new("n4"))))
    assert record.result == "failed"
    size_bytes = leader.running.raft.snapshot.id.size_bytes
    assert f"{3 * CHUNK_BYTES:,} of {size_bytes:,} bytes of a snapshot" in record.explanation


def test_a_server_that_loses_its_snapshot_again_and_again_is_given_up(world: World) -> None:
    leader = world.form(3)
    fill_until_compacted(world, leader)
    joining = world.boot("n4")
    joining.works = False
    operation = world.started(world.change("add", new("n4")))
    losses = 0
    while leader.state.operation(operation).running:
        directory = joining.snapshots.directory
        if joining.snapshots.jobs and directory.receiving is not None:
            node = joining.disk.files.node(directory.received_path(directory.receiving))
            node.content[len(node.content) // 2] ^= 1
            losses += 1
            joining.work_off()
        world.run(1)
        assert losses <= 2 * CATCH_UP_RESTARTS_MAX
    record = leader.state.operation(operation)
    assert record.result == "failed"
    assert "n4 has lost what it had of the snapshot" in record.explanation


def test_the_leader_shows_how_far_a_snapshot_is_and_how_much_log_comes_after_it(
    world: World,
) -> None:
    leader = world.form(3)
    follower, _ = away(world)
    receive_all(world, follower)
    world.run(3)
    snapshot = leader.running.raft.leader().progress[follower.id].snapshot
    view = next(peer for peer in leader.status.peers if peer.server == follower.id)
    assert view.snapshot_bytes == view.snapshot_received_bytes == snapshot.size_bytes
    assert view.snapshot_installed_bytes == 0
    log = leader.running.raft.log
    assert view.lag_bytes == log.bytes_between(snapshot.last_included_index, log.last_index)
    before = view.lag_bytes
    fill(world, 4)
    view = next(peer for peer in leader.status.peers if peer.server == follower.id)
    assert view.lag_bytes > before + 4 * VALUE_BYTES
    follower.works = True
    world.until(world.is_settled)
    world.run(2 * ELECTION_TICKS)
    view = next(peer for peer in leader.status.peers if peer.server == follower.id)
    assert (view.snapshot_bytes, view.lag_bytes, view.catch_up_bytes_per_second) == (0, 0, 0)


def test_what_is_kept_to_measure_rates_is_bounded(world: World) -> None:
    leader = world.form(3)
    world.run(500)
    movements = leader.running._rates._movements
    assert movements.keys() == {world["n2"].id, world["n3"].id}
    samples_max = RATE_WINDOW_MS / RATE_SAMPLE_MS + 1
    assert all(2 <= len(each.samples) <= samples_max for each in movements.values())
    world.finish(world.started(world.change("remove", drop("n3"))))
    world.until(lambda: leader.running._rates._movements.keys() == {world["n2"].id})
    # Nobody keeps anything who does not lead.
    leader.running.drain()
    world.until(lambda: not leader.leads)
    world.run(20)
    assert leader.running._rates._movements == {}


# --- those who were removed ---------------------------------------------------------------------


def test_a_removed_server_that_hears_of_it_only_by_a_snapshot_ends_with_70(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody closes its connections, so that no refused Hello can tell it.
    monkeypatch.setattr(Server, "close_peer", lambda *arguments: None)
    leader = world.form(3)
    removed = world["n3"]
    world.passes = lambda envelope: envelope.dest != removed.id
    world.finish(world.started(world.change("remove", drop("n3"))))
    compact_past(world, removed)
    assert removed.id in leader.running.raft.leader().progress, "it is not fed any more"
    world.passes = lambda envelope: (
        envelope.dest != removed.id or isinstance(envelope.message, InstallSnapshot | AppendEntries)
    )
    world.until(lambda: removed.exit)
    assert removed.exit.exit_code == EXIT_REMOVED
    assert did(removed, "install")
    assert removed.disk.identity.removed_index == removed.state.tombstone(removed.id)


def test_a_server_whose_state_has_its_own_tombstone_ends_with_70_without_any_other(
    world: World,
) -> None:
    """It ended between the entry that removes it and the note of that in its identity."""
    world.form(3)
    removed = world["n3"]
    removed.power.fail_at_next = "publish"
    world.finish(world.started(world.change("remove", drop("n3"))))
    world.until(lambda: removed.node is None)
    index = removed.state.tombstone(removed.id)
    assert index is not None
    assert removed.disk.identity.removed_index == 0
    # Nobody can tell it.
    world.cut(["n1", "n2"], ["n3"])
    removed.start(keeps_state=True)
    assert removed.disk.identity.removed_index == index
    world.until(lambda: removed.exit)
    assert removed.exit.exit_code == EXIT_REMOVED


def test_servers_whose_removal_came_in_a_snapshot_have_their_connection_closed(
    world: World,
) -> None:
    world.form(5)
    removed, follower = world["n5"], world["n4"]
    world.passes = lambda envelope: envelope.dest not in (removed.id, follower.id)
    world.finish(world.started(world.change("remove", drop("n5"))))
    compact_past(world, follower)
    assert follower.state.tombstone(removed.id) is None
    closed: list[str] = []
    follower.close_peer = lambda server, problem: closed.append(server)  # type: ignore[method-assign]
    world.passes = lambda envelope: envelope.dest != removed.id
    world.until(lambda: did(follower, "install"))
    world.run(1)
    assert closed == [removed.id]


def test_a_stale_snapshot_of_a_leader_of_the_past_changes_nothing(
    world: World, chunks: None
) -> None:
    leader = world.form(3)
    follower, written = away(world)
    kept: list[Envelope] = []
    world.passes = lambda envelope: not is_chunk(envelope) or bool(kept.append(envelope))
    follower.start()
    world.until(lambda: kept)
    leader.kill()
    world.passes = everything
    leader.start()
    written |= fill(world, 3)
    assert_all_hold(world, written)
    before = (follower.status.last_index, follower.state.dump())
    world.carry(leader, kept[0])
    world.run(2)
    assert (follower.status.last_index, follower.state.dump()) == before


def test_linearizable_reads_go_on_while_a_member_installs(world: World, chunks: None) -> None:
    world.form(3)
    follower, written = away(world)
    only(world, 2, follower)
    follower.start()
    world.run(3)
    key, value = next(iter(written.items()))
    reply = world.call(world.leader(), GetRequest(key=key))
    assert isinstance(reply, GetReply)
    assert reply.value.decode() == value
    refusal = world.call(follower, GetRequest(key=key))
    assert isinstance(refusal, ErrorReply)
    assert refusal.code == "not-leader"
    world.passes = everything
    world.until(world.is_settled)
    assert_holds(follower, written)


def test_what_was_dropped_does_not_come_back_after_a_loss_of_power(world: World) -> None:
    """The server may be a member of another cluster by then."""
    world.form(3)
    follower, _ = away(world)
    receive_all(world, follower)
    follower.snapshots.directory.sync_received()
    assert follower.snapshots.directory.receiving is not None
    disk = follower.disk
    assert isinstance(disk, MemoryDisk)
    # Its name is durable, too.
    disk.files.sync_directory(SNAPSHOTS)
    follower.snapshots.drop_received()
    for files in disk.files.survivors(Random(0)):
        directory = SnapshotDirectory(SNAPSHOTS, files)
        directory.open()
        assert directory.receiving is None
        directory.close()
