"""Logs that grow past the size at which a snapshot is taken, and what tests look at then."""

from __future__ import annotations

from typing import Any

import attrs

from raftd.core.messages import AppendEntries, Envelope, InstallSnapshot
from raftd.core.types import Index
from raftd.protocol import PutRequest, WriteReply
from tests.node.disks import RealDisk
from tests.node.world import Server, World

LOG_BYTES = 4096
"""At which a snapshot is taken: a dozen writes of `fill`."""
VALUE_BYTES = 256
EAGER = 1
"""At which a snapshot is taken after every entry, and nothing is kept before it."""


def snapshot_world(log_bytes: int = LOG_BYTES, **more: Any) -> World:
    return World(snapshot_log_bytes=log_bytes, **more)


def acknowledging_put(world: World, key: str, value: str) -> PutRequest:
    """Return the next write of the session `s`, which forgets the results of those before."""
    request = world.put(key, value)
    return attrs.evolve(request, lowest_unacknowledged=request.serial)


def fill(world: World, count: int, *, keys: int = 4, first: int = 0) -> dict[str, str]:
    """Write `count` values to a few keys in turn; return what the keys hold then."""
    written: dict[str, str] = {}
    for number in range(first, first + count):
        key, value = f"k{number % keys}", f"{number}".ljust(VALUE_BYTES)
        reply = world.call(world.leader(), acknowledging_put(world, key, value))
        assert isinstance(reply, WriteReply), reply
        assert reply.applied
        written[key] = value
    return written


def fill_until_compacted(world: World, *servers: Server, count_max: int = 200) -> dict[str, str]:
    """Write until each of `servers` has dropped something that it had; return what there is."""
    before = {server: base_of(server) for server in servers}
    written: dict[str, str] = {}
    for number in range(count_max):
        written |= fill(world, 1, first=number)
        world.run(2)
        if all(base_of(server) > base for server, base in before.items()):
            return written
    raise AssertionError(f"not compacted within {count_max} writes")


def base_of(server: Server) -> Index:
    return server.running.raft.log.base_index


def disk_base_of(server: Server) -> Index:
    """Return what stands before the first entry on the disk."""
    disk = server.disk
    return disk.wal.base_index if isinstance(disk, RealDisk) else disk.base_index


def snapshot_index_of(server: Server) -> Index:
    return server.status.snapshot_index


def did(server: Server, *kinds: str, since: int = 0) -> list[tuple[Any, ...]]:
    """Return what the server did of these kinds, in order."""
    return [event for event in server.journal[since:] if event[0] in kinds]


def has_entries(envelope: Envelope) -> bool:
    return isinstance(envelope.message, AppendEntries) and bool(envelope.message.entries)


def is_chunk(envelope: Envelope) -> bool:
    """Whether a message carries a part of a snapshot."""
    return isinstance(envelope.message, InstallSnapshot) and bool(envelope.message.data)


def chunks_to(world: World, server: Server) -> list[InstallSnapshot]:
    """Return the parts of snapshots that anybody has sent to `server`."""
    return [
        event[1].message
        for other in world.servers.values()
        for event in other.journal
        if event[0] == "send" and event[1].dest == server.id and is_chunk(event[1])
    ]


def assert_holds(server: Server, written: dict[str, str]) -> None:
    """Assert that the state of `server` has all that was written."""
    found = {key: server.state.get(key) for key in written}
    assert {key: item and item.value.decode() for key, item in found.items()} == written


def assert_all_hold(world: World, written: dict[str, str]) -> None:
    """Wait until everybody has everything, and assert that all have the same."""
    world.until(world.is_settled, 400, "everybody has everything")
    state = world.leader().state.dump()
    latest = world.leader().running.raft.configuration
    assert latest is not None
    for server in world.up():
        if server.id in latest.configuration.members:
            assert_holds(server, written)
            assert server.state.dump() == state, f"{server} holds another state"
