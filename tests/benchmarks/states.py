"""States of any size, and data directories of servers that have them, without a write for each key.

A state is made once: a snapshot file is written from generated pairs, laid out as the state machine
does, and a database is built of it. Every server then gets a copy of both, and a log that goes on
after the snapshot. The classes are those that raftd uses itself, so what comes out is what a server
has after it was stopped.
"""

from __future__ import annotations

import random
import secrets
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import msgpack

from raftd.commands import Command, Put, encode_command
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    encode_configuration,
)
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry, EntryKind, HardState, ServerId
from raftd.storage.files import OsFileSystem, unlink_in_order
from raftd.storage.identity import DataDirectory
from raftd.storage.live import LiveState, default_boot_id
from raftd.storage.lmdb_store import DATABASE_FILE
from raftd.storage.snapshot_file import BLOCK_BYTES, Pairs, SnapshotHead, head_of
from raftd.storage.snapshots import SnapshotDirectory
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from raftd.storage.wal import Wal
from raftd.storage.worker import build_database, pairs_of, write_snapshot

CLUSTER_ID = "benchmark"
CLUSTER_NAME = "orders"
TERM = 1
KEY_PREFIX = "k/"
KEY_DIGITS = 8
LOG_BATCH_ENTRIES = 1024
"""Entries of a log that is made beforehand, in each of its batches."""
_REVISIONS = struct.Struct(">QQQ")
_KEY, _META = b"K", b"M"


def key_name(number: int) -> str:
    """Return the name of one of the generated keys; they ascend with their numbers."""
    return f"{KEY_PREFIX}{number:0{KEY_DIGITS}d}"


class Values:
    """Values that do not compress and differ from each other, cheaply."""

    def __init__(self, value_bytes: int) -> None:
        self._value_bytes = value_bytes
        self._source = random.Random(1).randbytes(1_000_003 + value_bytes)

    def of(self, number: int) -> bytes:
        """Return the value for a number, the same one each time."""
        start = number * 7_919 % 1_000_003
        return self._source[start : start + self._value_bytes]


@attrs.frozen(kw_only=True)
class State:
    """A state as files in `folder`, and the servers that are to have it."""

    folder: Path
    keys: int
    value_bytes: int
    incarnations: dict[str, str]
    """Of each server, by name."""
    addresses: dict[str, str]
    """HOST:PORT of each server, by name."""
    id: SnapshotId
    database_bytes: int

    @property
    def snapshot_path(self) -> Path:
        """The snapshot file."""
        return self.folder / "snapshot"

    @property
    def database_path(self) -> Path:
        """The directory of the database that was built of it."""
        return self.folder / "database"

    def place(self, directory: Path, name: str, *, log_entries: int = 0) -> None:
        """Make the data directory of server `name`: it was stopped when it had this state.

        Args:
            log_entries: overwrites of 256 bytes that its log has after the snapshot, all of them
                committed and none of them applied.
        """
        files = OsFileSystem()
        incarnation = self.incarnations[name]
        data = DataDirectory.open(directory, name, files, mint_incarnation=lambda: incarnation)
        try:
            identity = attrs.evolve(
                data.identity, cluster_id=CLUSTER_ID, cluster_name=CLUSTER_NAME, log_begun=True
            )
            data.publish(identity)
            snapshots = SnapshotDirectory(data.snapshots_path, files, owner="benchmark")
            snapshots.open()
            temporary = snapshots.temporary_path()
            shutil.copyfile(self.snapshot_path, temporary)
            snapshots.publish(temporary)
            snapshots.close()
            wal, _ = Wal.open(data.wal_path, files)
            wal.append(HardState(TERM), ())
            unlink_in_order(files, wal.reset(self.id.last_included_index, TERM))
            for batch in self._log(log_entries):
                wal.append(None, batch)
            wal.close()
            live = LiveState(data.state_path, default_boot_id, files)
            built = live.building_path()
            built.mkdir()
            shutil.copyfile(self.database_path / DATABASE_FILE, built / DATABASE_FILE)
            live.adopt(built).close()
        finally:
            data.close()

    def _log(self, entries: int) -> Iterator[list[Entry]]:
        """Return puts without a session, in batches."""
        values = Values(256)
        chosen = random.Random(2)
        index = self.id.last_included_index
        batch: list[Entry] = []
        for number in range(entries):
            index += 1
            body = Put(key_name(chosen.randrange(self.keys)), values.of(number))
            batch.append(Entry(index, TERM, EntryKind.COMMAND, encode_command(Command(body))))
            if len(batch) == LOG_BATCH_ENTRIES or number + 1 == entries:
                yield batch
                batch = []


def make_state(
    folder: Path, names: Sequence[str], addresses: dict[str, str], *, keys: int, value_bytes: int
) -> State:
    """Make a state of `keys` keys with values of `value_bytes` bytes, in the new `folder`."""
    folder.mkdir()
    incarnations = {name: secrets.token_hex(8) for name in names}
    servers: dict[str, ServerId] = {name: f"{name}/{incarnations[name]}" for name in names}
    head, pairs = _pairs(servers, addresses, keys, value_bytes)
    files = OsFileSystem()
    snapshot_path, database_path = folder / "snapshot", folder / "database"
    copied = write_snapshot(files, snapshot_path, head, pairs)
    build_database(files, snapshot_path, database_path)
    return State(
        folder=folder,
        keys=keys,
        value_bytes=value_bytes,
        incarnations=incarnations,
        addresses=addresses,
        id=copied.id,
        database_bytes=(database_path / DATABASE_FILE).stat().st_size,
    )


def _pairs(
    servers: dict[str, ServerId], addresses: dict[str, str], keys: int, value_bytes: int
) -> tuple[SnapshotHead, Iterator[Pairs]]:
    """Return head and pairs of a state: one configuration entry, then each key put once."""
    entry = ConfigurationEntry(
        configuration=Configuration(voters=servers.values()),
        addresses={servers[name]: addresses[name] for name in servers},
        kind=ConfigurationKind.BOOTSTRAP,
        leader=next(iter(servers.values())),
    )
    store = MemoryStore()
    StateMachine(store).apply(
        [Entry(1, TERM, EntryKind.CONFIGURATION, encode_configuration(entry))]
    )
    meta = store.get(_META)
    assert meta is not None
    version, _, term, _, *others = msgpack.unpackb(meta)
    with store.transaction():
        store.put(_META, msgpack.packb((version, keys + 1, term, keys, *others)))
    head = head_of(store, CLUSTER_ID)
    small = [pair for some in pairs_of(store) for pair in some]

    def all_pairs() -> Iterator[Pairs]:
        yield [pair for pair in small if pair[0] < _KEY]
        values = Values(value_bytes)
        step = max(1, BLOCK_BYTES // (value_bytes + 64))
        for first in range(0, keys, step):
            yield [
                (
                    _KEY + key_name(number).encode(),
                    _REVISIONS.pack(number + 1, number + 1, 1) + values.of(number),
                )
                for number in range(first, min(first + step, keys))
            ]
        yield [pair for pair in small if pair[0] > _KEY]

    return head, all_pairs()
