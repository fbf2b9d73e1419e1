"""Tests of rules about snapshots and states that nothing else would notice the loss of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import pytest

from raftd.background import BackgroundSnapshots
from raftd.core.errors import Divergence
from raftd.core.messages import AppendEntries, Envelope, InstallSnapshot, InstallSnapshotResponse
from raftd.core.snapshot import SnapshotId
from raftd.inputs import Input, Received, SnapshotReceived
from raftd.protocol import BootstrapRequest, ErrorReply
from raftd.recovery import Recovered, recover
from raftd.storage.files import OsFileSystem, StorageFault
from raftd.storage.identity import DataDirectory
from raftd.storage.live import LiveState
from raftd.storage.snapshot_file import CorruptSnapshot
from raftd.storage.state import StateMachine
from tests.core.scenario import Solo, change_of, of, only, settled_leader, snapshot_at
from tests.node.disks import RealDisk
from tests.node.growing import base_of, did, fill, snapshot_world
from tests.node.world import World
from tests.storage.test_snapshots import open_directory, taken, write_temporary

FILES = OsFileSystem()
WRITES = 40
"""Of some hundred bytes each, so that a few snapshots are taken."""


# --- the protocol ---


def test_a_snapshot_that_is_stored_as_a_whole_is_not_acknowledged_yet() -> None:
    """Its bytes may be in the kernel's cache alone, and nobody has verified them."""
    solo = Solo(terms=(1,), term=2)
    snapshot = snapshot_at(9, 2)
    solo.receive("2", snapshot)
    size_bytes = snapshot.id.size_bytes
    sent = solo.give(lambda raft: raft.snapshot_progress(snapshot.id, size_bytes, size_bytes))
    answer = only(InstallSnapshotResponse, sent)
    assert (answer.received_bytes, answer.match_index) == (size_bytes, 0)


def test_a_server_that_comes_back_with_all_entries_needs_no_snapshot() -> None:
    """Dissertation 4.2.1: a change that failed may be asked for again, with the same disk."""
    solo = settled_leader()
    solo.compact(solo.commit_index)
    before = solo.last_index
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"))))
    solo.tick()
    request = of(AppendEntries, [e for e in solo.sent if e.dest == "4"])[0]
    assert (request.prev_log_index, request.prev_log_term) == (before, solo.term)
    solo.acknowledge("4", before)
    assert [chunk for chunk in solo.chunks if chunk.dest == "4"] == []


# --- what a start makes of a data directory ---


@contextmanager
def recovered(path: Path) -> Iterator[Recovered]:
    """Let a server recover and stop cleanly."""
    with closing(DataDirectory.open(path, "n1", FILES)) as directory:
        found = recover(directory, FILES)
        try:
            yield found
        finally:
            found.live.close_cleanly(found.store)
            found.log.wal.close()
            found.snapshots.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The data directory of a server that has taken snapshots; it has no live state."""
    path = tmp_path / "n1"
    live(path, first=0)
    assert snapshots_of(path)
    return path


def live(path: Path, *, first: int) -> None:
    """Let a server at `path` live for a while."""
    world = snapshot_world()
    server = world.boot("n1", disk=RealDisk(path, "n1"))
    if not first:
        world.bootstrap()
    world._serials["s"] = first + 1
    fill(world, WRITES, first=first)
    world.run(5)
    server.work_off()
    server.kill()


def snapshots_of(path: Path) -> list[Path]:
    return sorted((path / "snapshots").glob("*.snap"))


def apply_all(found: Recovered) -> int:
    """Apply what the log has; return the index of its last entry."""
    state = StateMachine(found.store)
    state.apply(found.log.entries[state.applied_index - found.log.base_index :])
    return state.applied_index


def test_a_state_that_the_log_does_not_go_on_from_is_built_again(path: Path) -> None:
    with recovered(path) as found:
        applied_index = apply_all(found)
    # Later the log is compacted beyond that state, as after a copy of it was put back.
    live(path, first=WRITES)
    with recovered(path) as found:
        assert applied_index < found.log.base_index
        assert StateMachine(found.store).applied_index >= found.log.base_index
        assert apply_all(found) == found.log.last_index


def test_a_state_that_has_more_than_the_log_is_refused(path: Path, tmp_path: Path) -> None:
    for part in ("wal", "snapshots"):
        shutil.copytree(path / part, tmp_path / part)
    live(path, first=WRITES)
    with recovered(path) as found:
        applied_index = apply_all(found)
    # Log and snapshots of an older copy: what was acknowledged since is lost.
    for part in ("wal", "snapshots"):
        shutil.rmtree(path / part)
        shutil.copytree(tmp_path / part, path / part)
    with (
        pytest.raises(StorageFault, match=f"to {applied_index} were applied, but the log ends at"),
        recovered(path),
    ):
        pass


def test_a_snapshot_that_is_damaged_in_the_middle_says_what_is_lost(path: Path) -> None:
    file = snapshots_of(path)[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    index = int(file.name.split("-")[1])
    with (
        pytest.raises(CorruptSnapshot, match=f"entries 1 to {index} are lost.*raftctl replace"),
        recovered(path),
    ):
        pass


# --- snapshots of a running server ---


def test_a_snapshot_that_was_overtaken_by_an_installed_one_is_not_published(
    tmp_path: Path,
) -> None:
    directory = open_directory(FILES, tmp_path / "snapshots")
    state = LiveState(tmp_path / "state", lambda: "this boot", FILES)
    inputs: list[Input] = []
    snapshots = BackgroundSnapshots(
        directory,
        state,
        state.create(),
        FILES,
        inputs.append,
        snapshot_bytes_per_second=0,
        catch_up_bytes_per_second=0,
    )
    own = write_temporary(directory, FILES, taken(10))  # type: ignore[arg-type]
    installed = directory.publish(write_temporary(directory, FILES, taken(20)))  # type: ignore[arg-type]
    assert snapshots.publish(own) is None
    assert snapshots.latest == installed
    snapshots.close(cleanly=False)


def test_a_snapshot_that_was_given_up_after_it_was_built_is_not_installed() -> None:
    world = snapshot_world()
    world.form(3)
    follower = world["n3"]
    follower.kill()
    while base_of(world.leader()) <= follower.disk.last_index:
        fill(world, 1, first=world.now)
        world.run(2)
    follower.works = False
    follower.start()
    world.until(lambda: any(lane == "receive" for lane, _ in follower.snapshots.jobs))
    while not any(isinstance(item, SnapshotReceived) for item in follower.inbox):
        follower.work("receive")
    received, follower.inbox = follower.inbox, []
    # Before the node looks at it, its leader begins to send a newer one.
    built = follower.snapshots.directory.receiving
    assert built is not None
    newer = attrs.evolve(built, last_included_index=built.last_included_index + 1)
    raft = follower.running.raft
    part = InstallSnapshot(raft.current_term, newer, 0, b"x", 1)
    follower.inbox = [Received(Envelope(world.leader().id, follower.id, part))]
    follower.turn(tick=False)
    follower.inbox = received
    follower.turn(tick=False)
    assert not did(follower, "install")
    assert follower.snapshots.directory.receiving == newer
    assert raft.log.base_index == 0


# --- states that differ, and clusters that are restored ---


@pytest.mark.parametrize("name", ["n1", "n3"], ids=["leader", "follower"])
def test_a_server_whose_state_differs_from_a_majority_stops(name: str) -> None:
    world = World()
    leader = world.form(3)
    world.call(leader, world.put("a", "1"))
    world.until(world.is_settled)
    wrong = world[name]
    wrong.state._hashes[-1] ^= 1
    with pytest.raises(Divergence, match=f"the state of {wrong.id} is wrong.*raftctl replace"):
        world.run(100)


def test_a_cluster_is_not_restored_without_its_backup() -> None:
    world = World()
    server = world.boot("n1")
    backup = SnapshotId(
        last_included_index=9, last_included_term=2, size_bytes=1000, checksum="0" * 32
    )
    request = BootstrapRequest(
        cluster_name="orders",
        incarnation=server.disk.identity.incarnation,
        address=server.address,
        snapshot=backup,
    )
    reply = world.call(server, request)
    assert isinstance(reply, ErrorReply)
    assert (reply.code, reply.message) == ("refused", "n1 does not hold this backup")
    assert server.running.identity.is_blank
