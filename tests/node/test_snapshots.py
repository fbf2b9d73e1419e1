"""Taking snapshots and shortening the log: when, how far, and what is still there afterwards."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from raftd import compaction, writing
from raftd.compaction import KEPT_LOG_DIVISOR, RETRY_ELECTION_TIMEOUTS, SNAPSHOT_LOG_FACTOR_MAX
from raftd.core.types import Index
from raftd.inputs import DiskFailed, SnapshotTaken
from raftd.protocol import ChangeReply, WriteReply
from raftd.replies import size_text
from raftd.storage.files import StorageFault
from tests.node.disks import RealDisk
from tests.node.growing import (
    EAGER,
    LOG_BYTES,
    VALUE_BYTES,
    acknowledging_put,
    assert_all_hold,
    assert_holds,
    base_of,
    did,
    disk_base_of,
    fill,
    fill_until_compacted,
    has_entries,
    snapshot_index_of,
    snapshot_world,
)
from tests.node.world import ELECTION_TICKS, HEARTBEAT_TICKS, Server, World, drop, new


@pytest.fixture
def world() -> World:
    return snapshot_world()


def log_bytes(server: Server) -> int:
    return server.running.raft.log.size_bytes


def alone(world: World, path: Path | None) -> Server:
    """Return the only server of a cluster, on a real disk in `path` if there is one."""
    world.boot("n1", disk=RealDisk(path / "n1", "n1") if path is not None else None)
    return world.bootstrap()


def starved(world: World) -> tuple[Server, Index]:
    """Return a follower that answers heartbeats and gets no entries, and the last that it has."""
    slow = world["n3"]
    world.passes = lambda envelope: envelope.dest != slow.id or not has_entries(envelope)
    return slow, slow.status.last_index


# --- when ---------------------------------------------------------------------------------------


def test_a_snapshot_is_taken_once_the_log_has_the_configured_size_and_not_before(
    world: World,
) -> None:
    server = world.bootstrap()
    while not did(server, "take"):
        assert log_bytes(server) < LOG_BYTES
        fill(world, 1)
    assert log_bytes(server) >= LOG_BYTES
    (taken,) = did(server, "take")
    world.run(3)
    assert snapshot_index_of(server) == taken[1] == server.status.applied_index


def test_the_next_one_is_taken_after_as_much_log_again(world: World) -> None:
    server = world.bootstrap()
    fill_until_compacted(world, server)
    first = snapshot_index_of(server)
    entry_bytes = log_bytes(server) / (server.status.last_index - base_of(server))
    while snapshot_index_of(server) == first:
        fill(world, 1)
        world.run(3)
    grown = entry_bytes * (snapshot_index_of(server) - first)
    assert 0.7 * LOG_BYTES < grown < 1.3 * LOG_BYTES


def test_a_large_state_lets_the_log_grow_by_its_own_size_but_by_no_more_than_four_times(
    world: World,
) -> None:
    server = world.bootstrap()
    for round_number in range(12):
        first = snapshot_index_of(server)
        newest = server.running.raft.snapshot
        newest_bytes = newest.id.size_bytes if newest else 0
        grown = 0
        while snapshot_index_of(server) == first:
            # Keys that nobody has written before: the state grows with the log.
            fill(world, 1, keys=1_000_000, first=server.status.last_index)
            grown += 1
            world.run(3)
            assert grown < 100
        entry_bytes = log_bytes(server) / (server.status.last_index - base_of(server))
        due_bytes = max(LOG_BYTES, min(newest_bytes, SNAPSHOT_LOG_FACTOR_MAX * LOG_BYTES))
        assert grown * entry_bytes == pytest.approx(due_bytes, rel=0.25), round_number
    assert newest_bytes > 2 * SNAPSHOT_LOG_FACTOR_MAX * LOG_BYTES


def test_writes_go_on_while_a_snapshot_is_written_and_are_no_part_of_it(world: World) -> None:
    server = world.bootstrap()
    server.works = False
    while not did(server, "take"):
        fill(world, 1)
    taken = server.status.applied_index
    # It has read the state.
    server.work("take")
    fill(world, 10)
    assert server.status.applied_index == taken + 10
    assert snapshot_index_of(server) == 0
    server.work_off()
    assert snapshot_index_of(server) == taken
    assert base_of(server) < taken


def test_clients_wait_when_the_log_has_outgrown_memory_before_its_snapshot_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LOG_BYTES_MAX_MIN", 3 * LOG_BYTES)
    monkeypatch.setattr(writing, "LOG_FACTOR_MAX", 1)
    server = alone(world, None)
    server.works = False
    while True:
        asked = world.ask(server, acknowledging_put(world, "k", "v" * VALUE_BYTES))
        if not isinstance(asked.reply, WriteReply):
            break
        assert log_bytes(server) < 4 * LOG_BYTES
    assert asked.error.code == "unavailable"
    assert size_text(log_bytes(server)) in asked.error.cause
    assert log_bytes(server) > 3 * LOG_BYTES
    server.work_off()
    world.run(3)
    asked = world.ask(server, acknowledging_put(world, "k", "v"))
    assert isinstance(asked.reply, WriteReply)


def test_while_one_is_written_no_other_one_is_begun(world: World) -> None:
    server = world.bootstrap()
    server.works = False
    fill(world, 100)
    assert len(did(server, "take")) == 1
    server.work_off()
    fill(world, 100)
    assert len(did(server, "take")) == 2


def test_nothing_is_taken_where_nothing_was_applied_since_the_last_one() -> None:
    world = snapshot_world(EAGER)
    leader = world.form(3)
    fill(world, 3)
    world.run(5)
    taken = len(did(leader, "take"))
    world.cut(["n1"], ["n2"], ["n3"])
    for number in range(5):
        world.ask(leader, world.put("a", str(number)))
    world.run(HEARTBEAT_TICKS)
    assert len(did(leader, "take")) == taken


# --- how far ------------------------------------------------------------------------------------


@pytest.mark.parametrize("real", [False, True])
def test_the_log_shrinks_in_memory_and_on_the_disk_and_keeps_its_tail(
    world: World, tmp_path: Path, real: bool
) -> None:
    server = alone(world, tmp_path if real else None)
    fill(world, 100)
    world.run(5)
    log = server.running.raft.log
    assert base_of(server) > 50
    tail_bytes = log.bytes_between(base_of(server), snapshot_index_of(server))
    assert tail_bytes == pytest.approx(LOG_BYTES / KEPT_LOG_DIVISOR, rel=0.4)
    if real:
        # Whole segments: what it has more than memory is less than two of them.
        assert 0 <= base_of(server) - disk_base_of(server) < 40
        assert disk_base_of(server) > 30
        assert len(list((tmp_path / "n1" / "wal").iterdir())) <= 4
        assert len(list((tmp_path / "n1" / "snapshots").iterdir())) == 1
    else:
        assert disk_base_of(server) == base_of(server)
    server.kill()


def test_a_follower_that_was_away_for_a_moment_gets_entries_from_the_tail(world: World) -> None:
    leader, follower = world.form(3), world["n3"]
    entry_bytes = VALUE_BYTES + 64
    while log_bytes(leader) + 2 * entry_bytes < LOG_BYTES:
        fill(world, 1)
    world.until(world.is_settled)
    follower.kill()
    written = {}
    while base_of(leader) == 0:
        written |= fill(world, 1)
        world.run(3)
    assert base_of(leader) <= follower.disk.last_index < snapshot_index_of(leader)
    follower.start()
    assert_all_hold(world, written)
    assert not did(follower, "receive")


def test_what_a_running_catch_up_needs_is_kept(world: World) -> None:
    leader = world.form(3)
    slow, match_index = starved(world)
    fill(world, 40)
    world.run(5)
    assert snapshot_index_of(leader) > match_index + 20
    assert base_of(leader) <= match_index
    world.passes = lambda envelope: True
    world.until(world.is_settled)
    assert not did(slow, "receive")
    # Then it goes away with the next snapshot.
    fill_until_compacted(world, leader)
    assert base_of(leader) > match_index


def test_while_the_log_is_kept_for_a_catch_up_no_more_snapshots_are_taken_than_without(
    world: World,
) -> None:
    """What stays although a snapshot has it is no reason for the next one."""
    leader = world.form(3)
    _, match_index = starved(world)
    for number in range(40):
        fill(world, 1, first=number)
        world.run(2)
    log = leader.running.raft.log
    assert base_of(leader) <= match_index
    taken = [event[1] for event in did(leader, "take")]
    assert len(taken) > 1
    for before, after in pairwise(taken):
        assert log.bytes_between(before, after) > 0.9 * LOG_BYTES


def test_for_a_server_that_stands_still_no_more_than_four_times_the_size_is_kept(
    world: World,
) -> None:
    leader = world.form(3)
    slow, match_index = starved(world)
    fill(world, 150)
    world.run(5)
    assert base_of(leader) > match_index
    kept_bytes_max = (SNAPSHOT_LOG_FACTOR_MAX + 2) * LOG_BYTES
    assert SNAPSHOT_LOG_FACTOR_MAX * LOG_BYTES * 0.8 < log_bytes(leader) < kept_bytes_max
    # It gets the snapshot instead, and then the rest.
    written = fill(world, 4, first=150)
    world.passes = lambda envelope: True
    assert_all_hold(world, written)
    assert did(slow, "install")


def test_the_log_is_dropped_in_small_portions_that_wait_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "COMPACTED_ENTRIES_MAX", 3)
    server = world.bootstrap()
    server.works = False
    fill(world, 60)
    mark = len(server.journal)
    bases = [base_of(server)]
    server.work_off()
    bases.append(base_of(server))
    while server.running.is_behind:
        server.turn(tick=False)
        bases.append(base_of(server))
    assert all(after - before <= 3 for before, after in pairwise(bases))
    assert len(bases) > 4
    # On the disk at once, since there it costs nothing.
    assert did(server, "compact", since=mark) == [("compact", bases[-1])]


# --- what is still there ------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_state", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_a_restart_goes_on_from_the_snapshot_and_the_log_after_it(
    world: World, tmp_path: Path, real: bool, keeps_state: bool
) -> None:
    server = alone(world, tmp_path if real else None)
    written = fill(world, 50)
    world.run(3)
    written |= fill(world, 5, first=50)
    index = snapshot_index_of(server)
    assert index > 30
    server.restart(keeps_state=keeps_state)
    if keeps_state:
        assert server.state.applied_index > index
    else:
        assert server.state.applied_index == index
    assert snapshot_index_of(server) == index
    world.leader()
    assert_holds(server, written)
    written |= fill(world, 50, first=55)
    assert_holds(server, written)
    server.kill()


def test_a_whole_cluster_comes_back_from_its_snapshots(world: World) -> None:
    world.form(3)
    written = fill(world, 60)
    world.run(5)
    configuration = world.configuration_of(world.leader())
    for server in world.up():
        server.kill()
    for server in world.servers.values():
        server.start()
        assert base_of(server) > 30
        # The configuration is in the snapshot only.
        assert world.configuration_of(server) == configuration
    assert_all_hold(world, written)


def test_a_command_is_done_once_although_only_a_snapshot_knows_of_it(world: World) -> None:
    leader = world.form(3)
    request = world.put("once", "1")
    reply = world.call(leader, request)
    for number in range(60):
        world.call(leader, world.put(f"k{number % 4}", str(number)))
    world.run(5)
    for server in world.up():
        server.restart()
    assert world.call(world.leader(), request) == reply
    world.until(world.is_settled)
    for server in world.up():
        assert base_of(server) > 10
        assert server.state.get("once").version == 1


def test_operations_and_tombstones_are_in_a_snapshot(world: World) -> None:
    world.form(3)
    removed = world["n3"].id
    operation = world.started(world.change("remove", drop("n3")))
    record = world.finish(operation)
    world.until(lambda: world["n3"].exit)
    fill(world, 60)
    world.run(5)
    for server in world.up():
        assert base_of(server) > record.phases[-1].index
        server.restart()
        assert server.state.operation(operation) == record
        assert server.state.tombstone(removed) == record.phases[-1].index


def test_what_a_crash_left_of_the_log_goes_at_the_start(world: World) -> None:
    server = world.bootstrap()
    server.power.fail_at_next = "compact"
    number = 0
    while server.node is not None:
        world.ask(server, world.put("a", "x" * 256))
        world.run(1)
        number += 1
        assert number < 100
    assert server.disk.base_index == 0
    server.start()
    world.run(1)
    assert base_of(server) > 0
    assert disk_base_of(server) == base_of(server)


def test_servers_that_take_a_snapshot_at_the_same_index_have_the_same_bytes() -> None:
    world = snapshot_world(EAGER)
    world.form(3)
    fill(world, 10)
    world.run(20)
    snapshots = {server.running.raft.snapshot.id for server in world.up()}
    assert len(snapshots) == 1


@pytest.mark.parametrize(
    ("kind", "changes", "voters"),
    [
        ("add", [new("n4")], "n1 n2 n3 n4"),
        ("remove", [drop("n1")], "n2 n3"),
        ("replace", [drop("n2"), new("n4")], "n1 n3 n4"),
        (
            "replace",
            [drop("n1"), drop("n2"), drop("n3"), new("n4"), new("n5"), new("n6")],
            "n4 n5 n6",
        ),
    ],
)
def test_an_operation_that_runs_while_snapshots_are_taken_all_the_time_ends_as_planned(
    kind: str, changes: list[object], voters: str
) -> None:
    world = snapshot_world(EAGER)
    world.form(3)
    written = fill(world, 10)
    for change in changes:
        if change.address:
            world.boot(change.name)
    record = world.finish(world.started(world.change(kind, *changes)))
    assert record.result == "done", record.explanation
    written |= fill(world, 3, first=10)
    assert_all_hold(world, written)
    assert world.configuration_of(world.leader()) == (set(voters.split()), set(), set())


# --- what goes wrong ----------------------------------------------------------------------------


def test_a_snapshot_that_could_not_be_written_is_said_in_status_and_tried_again_later(
    world: World,
) -> None:
    server = world.bootstrap()
    server.works = False
    fill(world, 20)
    assert len(did(server, "take")) == 1
    server.snapshots.jobs.clear()
    server.inbox.append(SnapshotTaken(path=None, problem="the worker was killed"))
    world.run(1)
    assert "no snapshot could be taken: the worker was killed" in server.status.issues
    world.run(RETRY_ELECTION_TIMEOUTS * ELECTION_TICKS - 2)
    assert len(did(server, "take")) == 1
    server.works = True
    world.run(5)
    assert len(did(server, "take")) == 2
    assert snapshot_index_of(server) > 0
    assert server.status.issues == ()


def test_a_snapshot_waits_for_room_on_the_disk_and_status_says_so(world: World) -> None:
    server = world.bootstrap()
    server.free_bytes = LOG_BYTES - 1
    world.run(1)
    fill(world, 20)
    world.run(2)
    assert did(server, "take") == []
    (issue,) = server.status.issues
    assert issue.startswith(f"no snapshot could be taken: {size_text(LOG_BYTES - 1)} are free")
    server.free_bytes = 1 << 30
    world.run(RETRY_ELECTION_TIMEOUTS * ELECTION_TICKS)
    assert snapshot_index_of(server) > 0
    assert server.status.issues == ()


def test_a_snapshot_whose_place_an_installed_one_has_taken_is_no_problem(world: World) -> None:
    server = world.bootstrap()
    server.works = False
    fill(world, 20)
    assert len(did(server, "take")) == 1
    server.snapshots.jobs.clear()
    server.inbox.append(SnapshotTaken(path=None, problem=""))
    world.run(1)
    assert server.status.issues == ()
    # Nothing is waited for before the next one.
    assert len(did(server, "take")) == 2


def test_a_disk_that_fails_in_the_background_stops_the_server(world: World) -> None:
    server = world.bootstrap()
    asked = world.ask_later(server, world.put("a"))
    server.inbox.insert(0, DiskFailed(StorageFault("the sync of a snapshot failed")))
    with pytest.raises(StorageFault, match="the sync of a snapshot failed"):
        server.turn(tick=False)
    assert asked.open


def test_a_disk_that_fails_while_a_snapshot_is_published_stops_the_server(world: World) -> None:
    server = world.bootstrap()
    server.works = False
    fill(world, 20)
    server.work("take")
    server.work("take")
    server.disk.files.fail_at = len(server.disk.files.calls) + 1
    with pytest.raises(StorageFault):
        server.turn(tick=False)
    assert did(server, "compact") == []


def test_the_last_write_before_a_snapshot_is_answered_as_any_other() -> None:
    world = snapshot_world(EAGER)
    leader = world.form(3)
    for number in range(5):
        reply = world.call(leader, world.put("a", str(number)))
        assert reply == WriteReply(applied=True, revision=number + 1)


# --- for a new server ---------------------------------------------------------------------------


def with_long_log(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Form a cluster whose log is much longer than its state, and not due for a snapshot."""
    monkeypatch.setattr(compaction, "NEWCOMER_LOG_BYTES_MAX", LOG_BYTES)
    world.form(3)
    return fill(world, 2 * LOG_BYTES // VALUE_BYTES)


def test_a_new_server_is_sent_a_fresh_snapshot_instead_of_a_log_longer_than_the_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = snapshot_world(100 * LOG_BYTES)
    written = with_long_log(world, monkeypatch)
    leader, n4 = world.leader(), world.boot("n4")
    last = leader.status.last_index
    began = len(leader.journal)
    record = world.finish(world.started(world.change("add", new("n4"))))
    assert record.result == "done"
    # It was taken before the first entry of the operation, and has all that there was.
    (taken,) = did(leader, "take", since=began)
    assert taken[1] == last
    first_index = min(
        event[1].message.entries[0].index
        for event in did(leader, "send", since=began)
        if event[1].dest == n4.id and has_entries(event[1])
    )
    assert first_index == snapshot_index_of(n4) + 1 == last + 1
    assert_all_hold(world, written)


def test_a_change_does_not_wait_for_a_snapshot_that_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = snapshot_world(100 * LOG_BYTES)
    written = with_long_log(world, monkeypatch)
    leader = world.leader()
    leader.works = False
    world.boot("n4")
    began = len(leader.journal)
    record = world.finish(world.started(world.change("add", new("n4"))))
    assert record.result == "done"
    assert did(leader, "take", since=began)
    assert snapshot_index_of(leader) == 0
    assert_all_hold(world, written)


def test_nobody_waits_for_a_snapshot_that_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    world = snapshot_world(100 * LOG_BYTES)
    with_long_log(world, monkeypatch)
    leader = world.leader()
    leader.running._compaction.problem = "no room"
    world.boot("n4")
    began = len(leader.journal)
    assert world.finish(world.started(world.change("add", new("n4")))).result == "done"
    assert not did(leader, "take", since=began)


def test_a_dry_run_takes_no_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    world = snapshot_world(100 * LOG_BYTES)
    with_long_log(world, monkeypatch)
    world.boot("n4")
    leader = world.leader()
    reply = world.call(leader, world.change("add", new("n4"), dry_run=True))
    world.run(5)
    assert isinstance(reply, ChangeReply), reply
    assert not did(leader, "take")
