"""A backup of a running cluster, and a new cluster that goes on from it, crashes included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from raftd.backup import NO_SNAPSHOT, PIN_MS, PINS_MAX
from raftd.compaction import ROOM_FOR_STATE
from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationEntry,
    ConfigurationKind,
)
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry
from raftd.founding import RESTORED
from raftd.inputs import SnapshotReceived
from raftd.protocol import (
    BACKUP_CHUNK_BYTES_MAX,
    BackupChunkReply,
    BackupChunkRequest,
    BackupReply,
    BackupRequest,
    BootstrapReply,
    BootstrapRequest,
    DoneReply,
    ErrorReply,
    JoinRequest,
    PutRequest,
    ReadIndexReply,
    ReadIndexRequest,
    Reply,
    RestoreReply,
    RestoreRequest,
    WriteReply,
)
from raftd.storage.snapshot_file import head_of
from raftd.storage.state import Results
from raftd.storage.worker import pairs_of, write_snapshot
from tests.node.disks import SNAPSHOTS
from tests.node.world import CLUSTER, TICK_MS, Server, World, drop, new
from tests.storage.memory_files import MemoryFileSystem

CHUNK_BYTES = 700
"""Small, so that a backup of a few kilobytes has several parts."""
STEPS_MAX = 1_000


# --- asking ---------------------------------------------------------------------------------


def write(world: World, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        reply = world.call(world.leader(), world.put(f"k{number:03d}", f"value {number}"))
        assert isinstance(reply, WriteReply), reply


def read_index(world: World) -> int:
    reply = world.call(world.leader(), ReadIndexRequest())
    assert isinstance(reply, ReadIndexReply), reply
    return reply.index


def ready(world: World, server: Server, index: int) -> SnapshotId:
    """Ask for a snapshot until it is there."""
    for _ in range(100):
        reply = world.call(server, BackupRequest(index=index))
        assert isinstance(reply, BackupReply), reply
        if reply.snapshot is not None:
            return reply.snapshot
        world.tick()
    raise AssertionError(f"no snapshot: {reply}")


def chunk(world: World, server: Server, id: SnapshotId, offset: int) -> Reply:
    return world.call(
        server, BackupChunkRequest(snapshot=id, offset=offset, size_bytes=CHUNK_BYTES)
    )


def fetch(world: World, server: Server, id: SnapshotId) -> bytes:
    content = b""
    while len(content) < id.size_bytes:
        reply = chunk(world, server, id, len(content))
        assert isinstance(reply, BackupChunkReply), reply
        assert reply.data
        content += reply.data
    return content


@attrs.frozen
class Backup:
    id: SnapshotId
    content: bytes


def backup_of(world: World, server: Server | None = None) -> Backup:
    server = server or world.leader()
    id = ready(world, server, read_index(world))
    return Backup(id, fetch(world, server, id))


def taken(server: Server) -> list[int]:
    return [entry[1] for entry in server.journal if entry[0] == "take"]


def upload(world: World, server: Server, backup: Backup) -> None:
    """Give a blank server a backup, from wherever it is; return when the server holds it."""
    received = 0
    for _ in range(STEPS_MAX):
        data = backup.content[received : received + CHUNK_BYTES]
        asked = world.ask(server, RestoreRequest(snapshot=backup.id, offset=received, data=data))
        if asked.lost:
            return
        assert isinstance(asked.reply, RestoreReply), asked.reply
        if asked.reply.held:
            return
        before, received = received, asked.reply.received_bytes
        if received in (before, backup.id.size_bytes):
            world.tick()
    raise AssertionError("the backup is never held")


def bootstrap_request(server: Server, backup: Backup | None) -> BootstrapRequest:
    return BootstrapRequest(
        cluster_name=CLUSTER,
        incarnation=server.disk.identity.incarnation,
        address=server.address,
        snapshot=backup.id if backup is not None else None,
    )


def join_request(server: Server) -> JoinRequest:
    identity = server.disk.identity
    return JoinRequest(
        cluster_id="another",
        cluster_name=CLUSTER,
        name=identity.name,
        incarnation=identity.incarnation,
    )


def restored(backup: Backup, *others: str, first: str = "m1") -> tuple[World, Server]:
    """Return a world whose cluster goes on from `backup`; its names are not those of before."""
    world = World(seed=2)
    server = world.boot(first)
    upload(world, server, backup)
    reply = world.call(server, bootstrap_request(server, backup))
    assert isinstance(reply, BootstrapReply), reply
    for name in others:
        world.boot(name)
    if others:
        world.open_session("restore")
        request = world.change("init", *(new(name) for name in others), session="restore", serial=1)
        assert world.finish(world.started(request)).result == "done"
    return world, server


@pytest.fixture
def world() -> World:
    world = World()
    world.form(3)
    return world


@pytest.fixture
def backup(world: World) -> Backup:
    write(world, 30)
    return backup_of(world)


# --- taking ---------------------------------------------------------------------------------


def test_a_backup_has_everything_that_was_acknowledged_before(world: World) -> None:
    write(world, 20)
    for server in [world.leader(), *(s for s in world.up() if not s.leads)]:
        before = world.leader().status.revision
        id = ready(world, server, read_index(world))
        other, holder = restored(Backup(id, fetch(world, server, id)))
        assert holder.status.revision == before
        assert other.get("k019") == "value 19"
        write(world, 1, first=20)


def test_the_index_comes_from_a_leader_that_a_quorum_confirms(world: World) -> None:
    leader = world.leader()
    world.cut([leader.name], [s.name for s in world.up() if s is not leader])
    asked = world.ask(leader, ReadIndexRequest())
    world.until(lambda: not asked.open)
    assert asked.error.code in ("not-leader", "unavailable")
    follower = next(s for s in world.up() if not s.leads)
    refused = world.call(follower, ReadIndexRequest())
    assert isinstance(refused, ErrorReply)


def test_a_server_that_is_behind_says_so_and_has_it_once_it_has_caught_up(world: World) -> None:
    leader = world.leader()
    behind = next(server for server in world.up() if server is not leader)
    world.cut([behind.name], [s.name for s in world.up() if s is not behind])
    write(world, 5)
    index = read_index(world)
    reply = world.call(behind, BackupRequest(index=index))
    assert isinstance(reply, BackupReply)
    assert (reply.snapshot, reply.doing) == (None, "applying")
    assert reply.applied_index < index
    world.heal()
    assert ready(world, behind, index).last_included_index >= index


def test_the_newest_snapshot_serves_if_it_includes_the_index(world: World) -> None:
    write(world, 5)
    leader, index = world.leader(), read_index(world)
    id = ready(world, leader, index)
    assert len(taken(leader)) == 1
    assert ready(world, leader, index) == id
    assert ready(world, leader, index - 1) == id
    world.run(10)
    assert len(taken(leader)) == 1


def test_without_an_index_the_newest_snapshot_serves_and_the_first_one_is_taken(
    world: World,
) -> None:
    leader = world.leader()
    write(world, 3)
    assert taken(leader) == []
    id = ready(world, leader, 0)
    assert id.last_included_index > 0
    write(world, 3, first=3)
    assert ready(world, leader, 0) == id
    assert len(taken(leader)) == 1


def test_a_snapshot_that_was_begun_too_early_is_followed_by_another_one(world: World) -> None:
    leader = world.leader()
    leader.works = False
    write(world, 3)
    early = read_index(world)
    world.call(leader, BackupRequest(index=early))
    leader.work("take")
    write(world, 3, first=3)
    late = read_index(world)
    for _ in range(5):
        reply = world.call(leader, BackupRequest(index=late))
        assert isinstance(reply, BackupReply)
        assert reply.doing == "writing"
        world.tick()
    assert len(taken(leader)) == 1, "two at once"
    leader.works = True
    assert ready(world, leader, late).last_included_index >= late
    assert len(taken(leader)) == 2


def test_what_keeps_a_snapshot_from_being_taken_is_said(world: World) -> None:
    leader = world.leader()
    leader.free_bytes = 10
    world.tick()
    reply = world.call(leader, BackupRequest(index=read_index(world)))
    assert isinstance(reply, BackupReply)
    world.tick()
    reply = world.call(leader, BackupRequest(index=read_index(world)))
    assert isinstance(reply, BackupReply)
    assert reply.doing == "waiting"
    assert "10 B are free" in reply.problem
    assert taken(leader) == []


# --- reading --------------------------------------------------------------------------------


def test_a_snapshot_stays_as_long_as_somebody_reads_it(world: World) -> None:
    write(world, 30)
    leader = world.leader()
    id = ready(world, leader, read_index(world))
    # A newer one takes its place.
    write(world, 1, first=100)
    newer = ready(world, leader, read_index(world))
    assert newer != id
    content = b""
    pin_ticks = round(PIN_MS / TICK_MS)
    for _ in range(3):
        world.run(pin_ticks - 20)
        reply = chunk(world, leader, id, len(content))
        assert isinstance(reply, BackupChunkReply), reply
        content += reply.data
    assert len(content) == 3 * CHUNK_BYTES
    world.run(pin_ticks + 1)
    gone = chunk(world, leader, id, len(content))
    assert isinstance(gone, ErrorReply)
    assert gone.code == NO_SNAPSHOT
    world.run(5)
    assert leader.disk.files.names(SNAPSHOTS) == [
        f"snapshot-{newer.last_included_index:016d}-{newer.last_included_term}.snap"
    ]


def test_no_more_snapshots_than_a_few_are_kept_for_backups(world: World) -> None:
    leader = world.leader()
    for number in range(PINS_MAX):
        write(world, 1, first=number)
        ready(world, leader, read_index(world))
    write(world, 1, first=PINS_MAX)
    index = read_index(world)
    replies = []
    for _ in range(20):
        replies.append(world.call(leader, BackupRequest(index=index)))
        world.tick()
    assert isinstance(replies[-1], ErrorReply)
    assert replies[-1].code == "unavailable"
    world.run(round(PIN_MS / TICK_MS) + 1)
    assert ready(world, leader, index)


def test_a_part_is_answered_by_any_server_that_has_the_same_snapshot(world: World) -> None:
    write(world, 5)
    index = read_index(world)
    ids = {ready(world, server, index) for server in world.up()}
    # Taken at the same index, they are the same byte for byte.
    assert len(ids) == 1
    (id,) = ids
    contents = {fetch(world, server, id) for server in world.up()}
    assert len(contents) == 1


@pytest.mark.parametrize("size_bytes", [0, BACKUP_CHUNK_BYTES_MAX + 1])
def test_a_part_of_a_senseless_size_is_refused(world: World, size_bytes: int) -> None:
    id = ready(world, world.leader(), read_index(world))
    reply = world.call(
        world.leader(), BackupChunkRequest(snapshot=id, offset=0, size_bytes=size_bytes)
    )
    assert isinstance(reply, ErrorReply)
    assert reply.code == "invalid"


def test_nothing_is_read_beyond_the_end(world: World) -> None:
    id = ready(world, world.leader(), read_index(world))
    assert chunk(world, world.leader(), id, id.size_bytes) == BackupChunkReply(data=b"")
    assert chunk(world, world.leader(), id, 1 << 60) == BackupChunkReply(data=b"")


# --- restoring ------------------------------------------------------------------------------


def test_a_restored_cluster_has_keys_revisions_sessions_and_tombstones(world: World) -> None:
    world.boot("n4")
    world.finish(world.started(world.change("replace", drop("n3"), new("n4"))))
    write(world, 10)
    put = world.put("once", "first")
    answer = world.call(world.leader(), put)
    removed = next(server.id for server in world.servers.values() if server.name == "n3")
    tombstone = world.leader().state.tombstone(removed)
    assert tombstone is not None
    revision = world.leader().status.revision
    other, _ = restored(backup_of(world), "m2", "m3", "m4", "m5")
    voters, _, learners = other.configuration_of(other.leader())
    assert (voters, learners) == ({"m1", "m2", "m3", "m4", "m5"}, set())
    assert other.get("k009") == "value 9"
    # A repeated write of before is answered as it was, and not done again.
    assert other.call(other.leader(), put) == answer
    assert other.leader().status.revision == revision
    assert other.leader().state.tombstone(removed) == tombstone
    later = PutRequest(
        session="s", serial=world.serial("s"), lowest_unacknowledged=0, key="new", value=b"1"
    )
    assert other.call(other.leader(), later) == WriteReply(applied=True, revision=revision + 1)


def test_the_new_cluster_is_another_one_that_goes_on_after_the_last_index_and_term(
    world: World, backup: Backup
) -> None:
    other, server = restored(backup)
    assert server.disk.identity.cluster_id != world.leader().disk.identity.cluster_id
    founding = server.running.raft.configuration
    assert founding is not None
    assert founding.index == backup.id.last_included_index + 1
    assert founding.entry.kind is ConfigurationKind.BOOTSTRAP
    assert founding.configuration.members == {server.id}
    log = server.running.raft.log
    assert log.term_at(founding.index) == backup.id.last_included_term + 1
    other.leader()
    assert server.status.term > backup.id.last_included_term


def test_a_server_that_holds_a_backup_is_blank_and_says_what_to_do(backup: Backup) -> None:
    world = World(seed=2)
    server, other = world.boot("m1"), world.boot("m2")
    upload(world, server, backup)
    for _ in range(2):
        status = server.status
        assert (status.role, status.cluster_id, status.leader) == ("blank", "", "")
        assert status.configuration is None
        assert status.operation is None
        assert status.snapshot_index == backup.id.last_included_index
        (issue,) = status.issues
        assert "holds a backup" in issue
        assert "raftctl restore" in issue
        assert server.members == {}, "it dials the servers of another cluster"
        plain = world.call(server, bootstrap_request(server, None))
        assert isinstance(plain, ErrorReply)
        assert "holds a backup" in plain.message
        assert "raftctl restore" in plain.hint
        refused = world.call(server, join_request(server))
        assert isinstance(refused, ErrorReply)
        assert refused.message == plain.message
        world.run(50)
        assert server.disk.identity.is_blank
        server.restart()
    assert other.status.issues == ()


def test_a_server_that_has_a_part_of_a_backup_is_not_made_a_member_by_mistake(
    backup: Backup,
) -> None:
    world = World(seed=2)
    server = world.boot("m1")
    part = RestoreRequest(snapshot=backup.id, offset=0, data=backup.content[:CHUNK_BYTES])
    assert isinstance(world.call(server, part), RestoreReply)
    assert isinstance(world.call(server, bootstrap_request(server, None)), ErrorReply)


@pytest.mark.parametrize("how", ["founds", "joins"])
def test_a_backup_that_arrived_before_a_restart_is_not_put_in_force_in_another_cluster(
    backup: Backup, how: str
) -> None:
    world = World(seed=2)
    server = world.boot("m1")
    server.works = False
    for offset in range(0, backup.id.size_bytes, CHUNK_BYTES):
        data = backup.content[offset : offset + CHUNK_BYTES]
        world.call(server, RestoreRequest(snapshot=backup.id, offset=offset, data=data))
    server.restart(keeps_state=True)
    # It has not worked it in yet, and does not know what it was for.
    if how == "founds":
        assert isinstance(world.call(server, bootstrap_request(server, None)), BootstrapReply)
    else:
        assert world.call(server, join_request(server)) == DoneReply()
    server.works = True
    world.run(20)
    server.inbox.append(SnapshotReceived(snapshot_at(backup)))
    world.run(20)
    assert (server.status.revision, server.status.snapshot_index) == (0, 0)
    assert server.status.last_index < backup.id.last_included_index


def snapshot_at(backup: Backup) -> Snapshot:
    entry = ConfigurationEntry(
        configuration=Configuration(voters=("x/1",)), kind=ConfigurationKind.BOOTSTRAP
    )
    return Snapshot(backup.id, ConfigurationAt(1, entry))


def test_only_a_blank_server_takes_a_backup(world: World, backup: Backup) -> None:
    for server in world.up():
        reply = world.call(server, RestoreRequest(snapshot=backup.id, offset=0, data=b"x"))
        assert isinstance(reply, ErrorReply)
        assert "is not blank" in reply.message


def test_another_backup_takes_the_place_of_a_part_but_not_of_what_is_held(
    world: World, backup: Backup
) -> None:
    write(world, 5, first=50)
    later = backup_of(world)
    assert later.id != backup.id
    other = World(seed=2)
    server = other.boot("m1")
    part = RestoreRequest(snapshot=backup.id, offset=0, data=backup.content[:CHUNK_BYTES])
    assert isinstance(other.call(server, part), RestoreReply)
    upload(other, server, later)
    refused = other.call(server, part)
    assert isinstance(refused, ErrorReply)
    assert "another backup" in refused.message
    wrong = other.call(server, bootstrap_request(server, backup))
    assert isinstance(wrong, ErrorReply)
    assert "does not hold this backup" in wrong.message
    assert isinstance(other.call(server, bootstrap_request(server, later)), BootstrapReply)


def test_without_room_for_backup_and_state_nothing_is_stored(backup: Backup) -> None:
    world = World(seed=2, disk_reserve_bytes=1_000)
    server = world.boot("m1")
    server.free_bytes = (1 + ROOM_FOR_STATE) * backup.id.size_bytes + 999
    world.tick()
    request = RestoreRequest(snapshot=backup.id, offset=0, data=backup.content[:CHUNK_BYTES])
    reply = world.call(server, request)
    assert isinstance(reply, ErrorReply)
    assert reply.code == "disk-full"
    server.free_bytes += 1
    world.tick()
    assert isinstance(world.call(server, request), RestoreReply)


def test_what_was_damaged_on_its_way_is_asked_for_again(backup: Backup) -> None:
    world = World(seed=2)
    server = world.boot("m1")
    damaged = bytearray(backup.content)
    damaged[len(damaged) // 2] ^= 1
    for offset in range(0, backup.id.size_bytes, CHUNK_BYTES):
        data = bytes(damaged[offset : offset + CHUNK_BYTES])
        world.call(server, RestoreRequest(snapshot=backup.id, offset=offset, data=data))

    def received() -> int:
        reply = world.call(server, RestoreRequest(snapshot=backup.id, offset=0, data=b""))
        assert isinstance(reply, RestoreReply)
        return reply.received_bytes

    world.until(lambda: received() == 0, what="the damage is noticed")
    upload(world, server, backup)
    assert isinstance(world.call(server, bootstrap_request(server, backup)), BootstrapReply)
    assert world.get("k029") == "value 29"


def test_bootstrapping_from_a_backup_twice_answers_the_same(backup: Backup) -> None:
    world, server = restored(backup)
    again = world.call(server, bootstrap_request(server, backup))
    assert again == BootstrapReply(cluster_id=server.disk.identity.cluster_id)


def test_an_empty_cluster_is_not_taken_for_a_restored_one(backup: Backup) -> None:
    world = World(seed=2)
    server = world.bootstrap("m1")
    refused = world.call(server, bootstrap_request(server, backup))
    assert isinstance(refused, ErrorReply)
    assert "is not blank" in refused.message


# --- operations -----------------------------------------------------------------------------


def backup_in_phase(world: World, phase: str) -> Backup:
    """Return a backup of the moment at which the record of a new operation enters `phase`."""
    world.boot("n4")
    leader, files, path = world.leader(), MemoryFileSystem(), Path("/backup")
    found: list[Backup] = []
    apply = leader.state.apply_some

    def apply_one_by_one(entries: Sequence[Entry]) -> Results:
        results: Results = []
        for entry in entries:
            results += apply([entry])
            running = leader.state.running_operation
            if running is not None and running.phase == phase and not found:
                store = leader.state.store
                copied = write_snapshot(files, path, head_of(store, "old"), pairs_of(store))
                found.append(Backup(copied.id, files.read(path)))
        return results

    leader.state.apply_some = apply_one_by_one  # type: ignore[method-assign]
    world.started(world.change("replace", drop("n3"), new("n4")))
    world.until(lambda: found, what=f"an operation that is {phase}")
    return found[0]


@pytest.mark.parametrize("phase", ["joining", "catching-up", "joint"])
def test_an_operation_that_ran_is_ended_and_not_driven(phase: str) -> None:
    world = World()
    world.form(3)
    write(world, 3)
    other, _ = restored(backup_in_phase(world, phase), "m2", "m3")
    assert other.leader().state.running_operation is None
    record = next(r for r in other.leader().state.operations() if r.id == "op-2")
    assert record.result == "aborted"
    assert record.explanation == RESTORED
    voters, outgoing, learners = other.configuration_of(other.leader())
    assert (voters, outgoing, learners) == ({"m1", "m2", "m3"}, set(), set())
    # The next operation has a number of its own.
    assert [r.id for r in other.leader().state.operations()] == ["op-1", "op-2", "op-3"]


# --- crashes --------------------------------------------------------------------------------


def restore_with_a_crash(backup: Backup, step: int) -> str:
    """Restore while the power of the first server fails at its `step`; repeat until it is done.

    Returns:
        The name of the step; empty if there were fewer.
    """
    world = World(seed=2)
    server = world.boot("m1")
    world.boot("m2")
    power = server.power
    power.fail_at = len(power.steps) + step
    crashed = ""
    for _ in range(5):
        if server.node is None:
            crashed = power.steps[-1]
            power.fail_at = 0
            server.start()
        if server.disk.identity.is_blank:
            upload(world, server, backup)
        if server.node is None:
            continue
        asked = world.ask(server, bootstrap_request(server, backup))
        world.run(20)
        if server.node is not None and isinstance(asked.reply, BootstrapReply):
            break
    power.fail_at = 0
    assert world.leader() is server
    world.open_session("restore")
    request = world.change("init", new("m2"), session="restore", serial=1)
    assert world.finish(world.started(request)).result == "done"
    assert world.get("k029") == "value 29"
    identities = {entry[1] for entry in server.journal if entry[0] == "publish"}
    assert len({identity.cluster_id for identity in identities} - {""}) == 1
    assert server.status.revision == 30
    return crashed


def test_a_restore_survives_a_crash_at_every_step(backup: Backup) -> None:
    crashed = set()
    for step in range(1, STEPS_MAX):
        name = restore_with_a_crash(backup, step)
        if not name:
            break
        crashed.add(name)
    assert step > 20
    assert crashed >= {
        *("receive", "received", "work", "worked", "install", "installed", "reset", "has-reset"),
        *("restore", "restored", "publish", "published", "append", "appended", "reply"),
    }
