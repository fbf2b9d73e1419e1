"""The bug museum, snapshots on disks and in states: what is dropped is somewhere else, whole."""

from __future__ import annotations

import pytest

from raftd.core import leader as leader_module
from raftd.core import progress as progress_module
from raftd.core.messages import AppendEntries, Envelope
from raftd.core.types import Entry, HardState
from raftd.inputs import Received
from raftd.protocol import DeleteRequest, TransferRequest, WriteReply
from raftd.storage import state
from raftd.storage.snapshot_file import CorruptSnapshot, SnapshotWriter
from raftd.storage.snapshots import SnapshotDirectory
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from raftd.storage.wal import MissingEntries
from tests.core.scenario import command
from tests.museum.disks import PATH, TornDisk, boot, power_failure
from tests.node.growing import (
    EAGER,
    acknowledging_put,
    assert_all_hold,
    base_of,
    did,
    disk_base_of,
    fill,
    snapshot_index_of,
    snapshot_world,
)
from tests.node.world import ELECTION_TICKS, Server, World, new
from tests.storage.memory_files import Crash
from tests.storage.snapshotting import store_of
from tests.storage.stores import contents
from tests.storage.test_snapshot_file import make_head

SEGMENT_BYTES = 2048
"""A handful of entries, so that compaction finds whole segments."""
LOG_BYTES = 2048
CALLS_MAX = 120
"""Changes of files until one snapshot is taken, or installed, and what it replaces is gone: more
than there are."""


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_module, "SNAPSHOT_CHUNK_BYTES", 512)
    monkeypatch.setattr(progress_module, "SNAPSHOT_INFLIGHT_BYTES_MAX", 1024)


def torn_cluster(count: int) -> tuple[World, dict[str, TornDisk]]:
    """Return a cluster on the logs, snapshots and identities of production, on torn disks."""
    world = snapshot_world(LOG_BYTES)
    disks = [boot(world, number, segment_bytes=SEGMENT_BYTES) for number in range(1, count + 1)]
    world.form_of(*(disk.name for disk in disks))
    return world, {disk.name: disk for disk in disks}


def write(world: World, key: str, number: int) -> str:
    """Write a value, without time passing; return it."""
    value = f"{number}".ljust(256)
    reply = world.call(world.leader(), acknowledging_put(world, key, value))
    assert isinstance(reply, WriteReply), reply
    return value


def end_all(world: World) -> None:
    for server in world.up():
        server.kill()


def away(world: World, name: str = "n3") -> tuple[Server, dict[str, str]]:
    """Let a follower be down until its next entry is compacted; return what was written."""
    follower = world[name]
    last_index = follower.status.last_index
    follower.kill()
    world.run(2 * ELECTION_TICKS)
    written: dict[str, str] = {}
    while base_of(world.leader()) <= last_index:
        written |= fill(world, 1, first=world.now)
        world.run(2)
    return follower, written


# --- 31: the configuration of the next snapshot ---


def test_031_a_second_snapshot_knows_the_members_that_no_log_names_any_more() -> None:
    world = snapshot_world(EAGER)
    leader = world.form(3, learners=1)
    settled = leader.running.raft.configuration
    assert settled is not None
    for number in range(3):
        before = {server.name: snapshot_index_of(server) for server in world.up()}
        fill(world, 5)
        world.until(
            lambda before=before: all(
                base_of(server) > before[server.name] for server in world.up()
            )
        )
        for server in world.up():
            if number:
                # The entry was in no log any more when this snapshot was taken.
                assert before[server.name] > settled.index
            assert server.running.raft.snapshot.configuration == settled
        for server in world.up():
            server.restart()
            assert server.running.raft.configuration == settled
        world.leader()
    # One that has never seen an entry of a log is told the members, too.
    world.boot("n5")
    assert world.finish(world.started(world.change("add", new("n5")))).result == "done"
    assert did(world["n5"], "install")
    assert world.configuration_of(world["n5"]) == ({"n1", "n2", "n3", "n5"}, set(), {"n4"})


# --- 79 and 80: what of the log stays on the disk ---


def published(disk: TornDisk, index: int, term: int) -> None:
    """Publish a snapshot up to an entry on `disk`, and leave its log as it is: a crash came."""
    directory = SnapshotDirectory(PATH / "snapshots", disk.files)
    directory.open()
    path = directory.temporary_path()
    file = disk.files.create(path)
    writer = SnapshotWriter(file, make_head(index, term))
    writer.add([(b"a", b"1")])
    writer.finish()
    file.sync()
    file.close()
    directory.publish(path)
    directory.close()


def disk_with_log(terms: list[int]) -> TornDisk:
    """Return a disk whose log has entries of these terms, from index 1 on."""
    disk = TornDisk(1)
    disk.open()
    entries = [command(index, term) for index, term in enumerate(terms, start=1)]
    # Whoever installs a snapshot knows the term of its leader before.
    disk.wal.append(HardState(max(terms[-1], 2)), entries)
    disk.close()
    return disk


@pytest.mark.parametrize("terms", [[1] * 12, [1] * 10 + [2, 2], [1] * 9, [1] * 9 + [3] * 3])
def test_079_a_start_between_the_snapshot_and_the_log_drops_what_contradicts(
    terms: list[int],
) -> None:
    disk = disk_with_log(terms)
    published(disk, 10, 2)
    # Also the second start, after a loss of power, finds nothing of the old log.
    for _ in range(2):
        found = disk.open()
        assert (found.base_index, found.base_term, found.entries) == (10, 2, ())
        assert found.hard_state == HardState(max(terms[-1], 2))
        disk.close()
        disk.lose_power()


@pytest.mark.parametrize("index", [1, 9, 11, 12])
def test_080_a_log_that_reaches_further_is_kept_on_the_disk_as_well(index: int) -> None:
    terms = [1] * 9 + [2] * 3
    disk = disk_with_log(terms)
    published(disk, index, terms[index - 1])
    found = disk.open()
    assert (found.base_index, [entry.term for entry in found.entries]) == (0, terms)
    disk.close()


def test_080_entries_that_came_while_the_snapshot_was_worked_in_stay() -> None:
    world = snapshot_world()
    world.form(3)
    follower, _ = away(world)
    follower.works = False
    follower.start()
    world.until(lambda: any(lane == "receive" for lane, _ in follower.snapshots.jobs))
    snapshot = follower.snapshots.directory.receiving
    assert snapshot is not None
    fill(world, 2, first=world.now)
    world.cut(["n1", "n2"])
    # The next leader has all entries in its log, and does not know yet that any is committed.
    raft = follower.running.raft
    first, last = raft.log.last_index + 1, max(world._applied)
    entries = tuple(Entry(index, *world._applied[index]) for index in range(first, last + 1))
    request = AppendEntries(
        raft.current_term + 1, first - 1, raft.log.last_term, entries, raft.log.commit_index, 1
    )
    follower.inbox = [Received(Envelope(world["n2"].id, follower.id, request))]
    follower.turn(tick=False)
    assert follower.disk.last_index == last > snapshot.last_included_index
    # They are acknowledged: perhaps nobody else has them.
    follower.work_off("receive")
    assert did(follower, "install")
    assert snapshot_index_of(follower) == snapshot.last_included_index
    assert raft.log.last_index == follower.disk.last_index == last
    follower.restart()
    assert follower.running.raft.log.last_index == last


# --- 78 and 82: crashes around the publication ---


@pytest.mark.parametrize("seed", range(3))
def test_078_a_snapshot_has_its_name_for_good_before_the_log_that_it_replaces_goes(
    seed: int,
) -> None:
    given_up = 0
    for call in range(1, CALLS_MAX):
        world, disks = torn_cluster(1)
        server, disk = world["n1"], disks["n1"]
        files = disk.files
        files.crash_at = len(files.calls) + 3 * call - seed
        written: dict[str, str] = {}
        tried: dict[str, str] = {}
        try:
            for number in range(20):
                key = f"k{number % 4}"
                tried = {key: f"{number}".ljust(256)}
                written[key] = write(world, key, number)
                world.run(1)
        except Crash:
            power_failure(server, disk, seed)
            server.start()
            world.leader()
            for key, value in written.items():
                found = server.state.get(key)
                assert found is not None, f"{key} is gone after a crash at call {call}"
                assert found.value.decode() in (value, tried.get(key))
            given_up += base_of(server) > 0
            server.kill()
        else:
            server.kill()
            break
    # It came to an end before all was seen; some crashes came after the log had been shortened.
    assert 10 < call < CALLS_MAX - 1
    assert given_up > 3


@pytest.mark.parametrize("seed", range(2))
def test_082_a_crash_between_the_snapshot_and_the_log_leaves_a_server_that_starts(
    seed: int,
) -> None:
    overlaps = set()
    for call in range(1, CALLS_MAX):
        world, disks = torn_cluster(3)
        follower, written = away(world)
        disk = disks["n3"]
        disk.files.crash_at = len(disk.files.calls) + 2 * call - seed
        try:
            follower.start()
            world.run(40)
        except Crash:
            if follower.node is None:
                # In recovery itself: nothing of the process is left.
                disk.files.locked.clear()
                disk.lose_power(seed)
            else:
                power_failure(follower, disk, seed)
            follower.start()
            log, latest = follower.running.raft.log, follower.running.raft.snapshot
            if latest is not None:
                index = latest.id.last_included_index
                # No gap, and the log goes on from what the snapshot has.
                assert log.base_index <= index <= log.last_index
                assert log.base_index == 0 or log.term_at(index) == latest.id.last_included_term
                overlaps.add(index > log.base_index)
            assert_all_hold(world, written)
            end_all(world)
        else:
            assert did(follower, "install")
            end_all(world)
            break
    assert 5 < call < CALLS_MAX - 1
    assert overlaps


def test_082_a_gap_and_a_file_of_no_bytes_are_refused() -> None:
    world, disks = torn_cluster(1)
    server, disk = world["n1"], disks["n1"]
    number = 0
    while disk.wal.base_index == 0:
        write(world, f"k{number % 4}", number)
        world.run(2)
        number += 1
    server.work_off()
    base_index = disk.wal.base_index
    server.kill()
    (path,) = [
        directory / name
        for directory in disk.files.directories
        for name in disk.files.names(directory)
        if name.endswith(".snap")
    ]
    content = disk.files.read(path)
    for damaged in (b"", content[: len(content) // 2]):
        disk.files.replace(path, damaged)
        with pytest.raises(CorruptSnapshot, match="raftctl replace"):
            server.start()
    # Without it the entries up to the first one of the log are missing.
    disk.files.unlink(path)
    with pytest.raises(MissingEntries, match=f"1 to {base_index}"):
        server.start()
    # Refused, not repaired: with the file back it is all there again.
    disk.files.replace(path, content)
    server.start()
    world.leader()
    assert server.state.get(f"k{(number - 1) % 4}") is not None
    server.kill()


def test_082_half_of_a_temporary_is_thrown_away() -> None:
    world, disks = torn_cluster(1)
    server, disk = world["n1"], disks["n1"]
    server.works = False
    number = 0
    while not did(server, "take"):
        write(world, f"k{number % 4}", number)
        number += 1
    server.work("take")
    # In the middle of its file the power fails; the beginning is on the disk.
    disk.files.crash_at = len(disk.files.calls) + 3
    with pytest.raises(Crash):
        server.work("take")
    path = next(
        directory / name
        for directory in disk.files.directories
        for name in disk.files.names(directory)
        if name.startswith("taking-")
    )
    disk.files.sync_directory(path.parent)
    disk.files.replace(path, disk.files.read(path)[:100])
    power_failure(server, disk)
    server.start()
    assert not disk.files.exists(path)
    assert snapshot_index_of(server) == 0
    world.leader()
    assert server.state.get(f"k{(number - 1) % 4}") is not None
    server.kill()


# --- 81: taking and installing ---


@pytest.mark.parametrize("first", ["take", "receive"])
def test_081_of_a_snapshot_that_is_taken_and_one_that_is_installed_the_newer_one_stays(
    first: str,
) -> None:
    world = snapshot_world()
    leader = world.form(3)
    follower = world["n3"]
    follower.works = False
    while not did(follower, "take"):
        fill(world, 1)
        world.run(1)
    # It has written its own; before it is published the server is cut off for long.
    follower.work("take")
    follower.work("take")
    follower.inbox, taken = [], follower.inbox
    world.cut(["n1", "n2"])
    written: dict[str, str] = {}
    while base_of(leader) <= follower.status.last_index:
        written |= fill(world, 1, first=world.now)
        world.run(2)
    world.heal()
    world.until(lambda: any(lane == "receive" for lane, _ in follower.snapshots.jobs))
    applied = [follower.state.applied_index]
    positions = [snapshot_index_of(follower)]

    def note() -> None:
        applied.append(follower.state.applied_index)
        positions.append(snapshot_index_of(follower))

    for source in (first, "receive" if first == "take" else "take"):
        if source == "take":
            follower.inbox += taken
            follower.turn(tick=False)
        else:
            follower.work_off("receive")
        note()
    follower.works = True
    world.run(3)
    note()
    # Neither the last snapshot nor what was applied ever went back.
    assert positions == sorted(positions)
    assert applied == sorted(applied)
    follower.kill()
    follower.start()
    assert snapshot_index_of(follower) == positions[-1]
    assert_all_hold(world, written)


# --- 84: what no snapshot has ---


def test_084_nothing_is_dropped_that_the_newest_snapshot_does_not_have() -> None:
    world = snapshot_world(EAGER)
    server = world.bootstrap()
    server.works = False
    written: dict[str, str] = {}
    shortened = 0
    for number in range(25):
        # Writes go on in every step of a snapshot, and are no part of it.
        written |= fill(world, 1 + number % 3, first=number)
        before = base_of(server)
        server.work()
        server.turn(tick=True)
        shortened += base_of(server) > before
        for base in (base_of(server), disk_base_of(server)):
            assert base <= snapshot_index_of(server) <= server.state.applied_index
        # Snapshot and log have everything: the state is built from them alone.
        server.restart()
        server.works = False
        world.leader()
        assert {key: server.state.get(key).value.decode() for key in written} == written
        for _ in range(number % 4):
            server.work()
            server.turn(tick=True)
    assert shortened > 3


# --- 86, 90 and 91: what a snapshot holds ---


def test_086_a_retry_is_recognised_by_servers_that_know_it_from_a_snapshot_alone() -> None:
    world = snapshot_world(EAGER)
    leader = world.form(3)
    world.open_session("client")
    writes = [world.put("a", str(number), session="client") for number in range(7)]
    replies = [world.call(leader, write) for write in writes]
    fill(world, 5)
    last_index = world.leader().status.last_index
    world.until(lambda: all(base_of(server) >= last_index - 2 for server in world.up()))
    end_all(world)
    for server in world.servers.values():
        server.start()
    assert [world.call(world.leader(), write) for write in writes[::-1]] == replies[::-1]
    # A new server has had nothing but a snapshot, and leads now.
    world.boot("n4")
    assert world.finish(world.started(world.change("add", new("n4")))).result == "done"
    assert did(world["n4"], "install")
    newcomer = world["n4"]
    world.until(world.is_settled)
    world.call(world.leader(), TransferRequest(target="n4"))
    assert world.leader() is newcomer
    assert [world.call(newcomer, write) for write in writes[::-1]] == replies[::-1]
    assert newcomer.state.get("a").version == 7


def replayed(world: World, index: int) -> StateMachine:
    """Return what the entries up to `index` make, from the first one on."""
    machine = StateMachine(MemoryStore())
    machine.apply([Entry(i, *world._applied[i]) for i in range(1, index + 1)])
    return machine


def test_090_a_snapshot_holds_exactly_the_entries_up_to_its_index() -> None:
    world = snapshot_world(EAGER)
    world.form(3)
    checked = set()
    for server in world.up():
        server.works = False
    for number in range(40):
        fill(world, 1 + number % 2, first=number)
        for server in world.up():
            # Some write it at once, some while later entries are applied.
            for _ in range((number + len(server.name) + int(server.name[1])) % 3):
                server.work()
        world.run(1)
        for server in world.up():
            latest = server.running.raft.snapshot
            if latest is None or (server.name, latest.id) in checked:
                continue
            checked.add((server.name, latest.id))
            index = latest.id.last_included_index
            path = server.snapshots.directory.path_of(latest.id)
            held = store_of(server.disk.files, path)
            assert contents(held) == contents(replayed(world, index)._store)
            assert StateMachine(held).applied_index == index
            assert latest.id.last_included_term == world._applied[index][0]
    assert len({name for name, _ in checked}) == 3
    assert len(checked) > 10
    # What follows goes on exactly there: entry by entry, none twice and none left out.
    written = fill(world, 3)
    world.until(world.is_settled)
    for server in world.up():
        server.restart()
    assert_all_hold(world, written)


def test_091_an_installed_snapshot_replaces_everything_that_was_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "SESSIONS_MAX", 3)
    world = snapshot_world()
    world.form(3)
    follower = world["n3"]
    world.open_session("ghost")
    ghost = world.put("gone", "1", session="ghost")
    assert isinstance(world.call(world.leader(), ghost), WriteReply)
    world.until(world.is_settled)
    assert follower.state.session_result("ghost", ghost.serial) is not None
    # While it hears nothing, the key goes and the session is driven out. Its process stays: all
    # that it has in memory is from before.
    world.cut(["n1", "n2"])
    request = DeleteRequest(
        session="s", serial=world.serial("s"), lowest_unacknowledged=0, key="gone"
    )
    assert isinstance(world.call(world.leader(), request), WriteReply)
    for number in range(3):
        world.open_session(f"t{number}")
        fill(world, 1, first=number)
    written: dict[str, str] = {}
    while base_of(world.leader()) <= follower.status.last_index:
        written |= fill(world, 1, first=world.now)
        world.run(2)
    world.heal()
    world.until(lambda: did(follower, "install"))
    world.until(world.is_settled)
    assert follower.state.get("gone") is None
    assert follower.state.session_result("ghost", ghost.serial) is None
    assert follower.state.would_execute("ghost", ghost.serial) is False
    assert follower.state.session_count == world.leader().state.session_count == 3
    assert_all_hold(world, written)
