"""Crashes at every step of taking, publishing, compacting, receiving and installing a snapshot.

Afterwards everybody converges, nothing that was acknowledged is lost, and the world has seen
nothing leave a server that its disk did not have.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from raftd.core import leader as leader_module
from raftd.core import progress as progress_module
from tests.node.disks import MemoryDisk, RealDisk
from tests.node.growing import (
    EAGER,
    acknowledging_put,
    assert_all_hold,
    base_of,
    did,
    fill,
    snapshot_world,
)
from tests.node.world import ELECTION_TICKS, Server, World

TAKING = ("work", "worked", "publish-snapshot", "snapshot-published", "compact", "compacted")
INSTALLING = (
    *("receive", "received", "work", "worked", "install", "installed"),
    *("reset", "has-reset", "restore", "restored"),
)
FILE_CALLS_MAX = 80
"""Of a server that takes or installs one snapshot: more than there are."""


@pytest.fixture(autouse=True)
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots go out in many small parts."""
    monkeypatch.setattr(leader_module, "SNAPSHOT_CHUNK_BYTES", 512)
    monkeypatch.setattr(progress_module, "SNAPSHOT_INFLIGHT_BYTES_MAX", 1024)


def formed(tmp_path: Path | None = None, log_bytes: int = 2048) -> World:
    world = snapshot_world(log_bytes)
    for number in range(1, 4):
        name = f"n{number}"
        world.boot(name, disk=RealDisk(tmp_path / name, name) if tmp_path else None)
    world.form_of("n1", "n2", "n3")
    return world


def write_until_down(world: World, server: Server, count: int) -> dict[str, str]:
    """Write until `server` has lost its power, or `count` times; return what was acknowledged."""
    written: dict[str, str] = {}
    for number in range(count):
        key, value = f"k{number % 4}", f"{number}".ljust(256)
        request = acknowledging_put(world, key, value)
        asked = world.ask(world.leader(), request)
        if asked.reply is None:
            # The client asks again, with the same serial.
            world.call(world.leader(), request)
        written[key] = value
        world.run(1)
        if server.node is None:
            break
    return written


def assert_recovers(
    world: World, server: Server, written: dict[str, str], *, keeps_state: bool = False
) -> None:
    """Start `server`, and assert that everybody has everything, and goes on."""
    if server.node is None:
        server.start(keeps_state=keeps_state)
    assert_all_hold(world, written)
    written |= fill(world, 20, first=1000)
    assert_all_hold(world, written)
    for each in world.up():
        each.restart()
    assert_all_hold(world, written)
    for each in world.up():
        each.kill()


@pytest.mark.parametrize("keeps_state", [False, True])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("name", ["n1", "n2"])
@pytest.mark.parametrize("step", TAKING)
def test_a_crash_at_any_step_of_taking_a_snapshot_loses_nothing(
    tmp_path: Path, step: str, name: str, real: bool, keeps_state: bool
) -> None:
    world = formed(tmp_path if real else None)
    server = world[name]
    server.power.fail_at_next = step
    written = write_until_down(world, server, 40)
    assert server.node is None
    assert_recovers(world, server, written, keeps_state=keeps_state)


@pytest.mark.parametrize("keeps_state", [False, True])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("step", INSTALLING)
def test_a_crash_at_any_step_of_installing_a_snapshot_loses_nothing(
    tmp_path: Path, step: str, real: bool, keeps_state: bool
) -> None:
    world = formed(tmp_path if real else None)
    follower, written = left_behind(world)
    follower.power.fail_at_next = step
    follower.start(keeps_state=keeps_state)
    world.until(lambda: follower.node is None)
    assert_recovers(world, follower, written, keeps_state=keeps_state)
    assert did(follower, "install")


def left_behind(world: World) -> tuple[Server, dict[str, str]]:
    """Return a follower that is down and needs a snapshot, and what was written."""
    follower = world["n3"]
    written = fill(world, 3)
    world.until(world.is_settled)
    follower.kill()
    world.run(2 * ELECTION_TICKS)
    while base_of(world.leader()) <= last_index_of(follower):
        written |= fill(world, 1, first=world.now)
        world.run(2)
    return follower, written


def last_index_of(server: Server) -> int:
    """Return the last entry that a server has applied or has on its disk, though it is down."""
    disk = server.disk
    return disk.last_index if isinstance(disk, MemoryDisk) else server.state.applied_index


@pytest.mark.parametrize("name", ["n1", "n2"])
def test_a_loss_of_power_before_any_change_of_a_file_while_taking_loses_nothing(name: str) -> None:
    for call in range(1, FILE_CALLS_MAX):
        world = formed()
        server = world[name]
        server.disk.files.crash_at = len(server.disk.files.calls) + call
        written = write_until_down(world, server, 24)
        if server.node is not None:
            break
        assert_recovers(world, server, written)
    # It came to no end before all of it was seen: writing, syncing, publishing, removing.
    assert 10 < call < FILE_CALLS_MAX - 1


def test_a_loss_of_power_before_any_change_of_a_file_while_installing_loses_nothing() -> None:
    for call in range(1, FILE_CALLS_MAX):
        world = formed()
        follower, written = left_behind(world)
        follower.disk.files.crash_at = len(follower.disk.files.calls) + call
        follower.start()
        for _ in range(60):
            world.tick()
            if follower.node is None:
                break
        else:
            break
        assert_recovers(world, follower, written)
    assert 10 < call < FILE_CALLS_MAX - 1


@pytest.mark.parametrize("step", ["work", "publish-snapshot", "snapshot-published", "compacted"])
def test_the_leader_that_sends_a_snapshot_may_crash_while_it_takes_the_next_one(step: str) -> None:
    world = formed()
    follower, written = left_behind(world)
    leader = world.leader()
    follower.works = False
    follower.start()
    world.run(2)
    leader.power.fail_at_next = step
    written |= write_until_down(world, leader, 60)
    assert leader.node is None
    follower.works = True
    assert_recovers(world, leader, written)


def test_crashes_of_everybody_while_snapshots_are_taken_after_every_entry() -> None:
    world = formed(log_bytes=EAGER)
    written: dict[str, str] = {}
    for round_number in range(30):
        victim = world[f"n{round_number % 3 + 1}"]
        victim.power.fail_at = len(victim.power.steps) + 5 + 7 * round_number % 31
        written |= write_until_down(world, victim, 6)
        victim.power.fail_at = 0
        if victim.node is None:
            victim.start(keeps_state=round_number % 2 == 0)
    assert_recovers(world, world["n1"], written)
