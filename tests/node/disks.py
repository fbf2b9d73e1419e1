"""Disks of the tests, and the power that can fail between any two of a server's steps.

The contract of both disks: what `append` and `publish` have returned from survives a power failure,
of what they have not returned from nothing survives that recovery would show.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from raftd.core.types import Entry, HardState
from raftd.records import decode_entries, encode_entries
from raftd.storage.files import OsFileSystem, StorageFault
from raftd.storage.identity import DataDirectory, Identity
from raftd.storage.wal import Wal


class PowerLost(BaseException):
    """The machine lost its power. Not an Exception: nothing may handle it."""


@attrs.define(eq=False)
class Power:
    """Counts the steps of one server; fails at the one that the test has chosen."""

    steps: list[str] = attrs.field(factory=list)
    """The names of the steps that were taken."""
    fail_at: int = 0
    """The power fails at this step, counted from 1 over the server's whole life; 0 for never."""
    fail_at_next: str = ""
    """The power fails at the next step of this name."""

    def step(self, name: str) -> None:
        """Take a step, unless the power fails just there."""
        self.steps.append(name)
        if len(self.steps) == self.fail_at or name == self.fail_at_next:
            self.fail_at_next = ""
            raise PowerLost(name)


@attrs.frozen
class Found:
    """What a start finds on a disk."""

    identities: object
    log: object
    hard_state: HardState
    entries: tuple[Entry, ...]


class MemoryDisk:
    """A data directory in memory, which checks what it is asked to keep."""

    def __init__(self, name: str, incarnation: str) -> None:
        self.identity = Identity(name=name, incarnation=incarnation)
        self.hard_state = HardState()
        self.entries: list[Entry] = []
        self.append_count = 0
        self.fails = False
        """Every call fails from now on."""
        self._failed = False

    def open(self) -> Found:
        assert not self._failed, "a disk that failed is not used again"
        return Found(self, self, self.hard_state, tuple(self.entries))

    def close(self) -> None:
        """Nothing is held."""

    @property
    def durable_hard_state(self) -> HardState:
        return self.hard_state

    @property
    def durable_entries(self) -> Sequence[Entry]:
        return self.entries

    def publish(self, identity: Identity) -> None:
        self._fail_if_it_should()
        assert identity.server == self.identity.server
        self.identity = identity

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        self._fail_if_it_should()
        assert hard_state is not None or entries, "a sync for nothing"
        self.append_count += 1
        if hard_state is not None:
            assert hard_state.current_term >= self.hard_state.current_term
            self.hard_state = hard_state
        if entries:
            assert 1 <= entries[0].index <= len(self.entries) + 1, "a gap in the log"
            del self.entries[entries[0].index - 1 :]
            # Other objects, as from a real disk.
            self.entries += decode_entries(encode_entries(tuple(entries)))

    def _fail_if_it_should(self) -> None:
        assert not self._failed, "a failed write or sync is never repeated"
        if self.fails:
            self._failed = True
            raise StorageFault("the disk is broken")


class RealDisk:
    """A data directory of the file system, with the log and the identity of production."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._open: tuple[DataDirectory, Wal] | None = None
        self.fails = False

    def open(self) -> Found:
        directory = DataDirectory.open(self._path, self._name, OsFileSystem())
        wal, recovered = Wal.open(directory.wal_path, OsFileSystem())
        self._open = (directory, wal)
        return Found(directory, wal, recovered.hard_state, recovered.entries)

    def close(self) -> None:
        assert self._open is not None
        directory, wal = self._open
        wal.close()
        directory.close()
        self._open = None

    @property
    def identity(self) -> Identity:
        if self._open is not None:
            return self._open[0].identity
        directory = DataDirectory.open(self._path, self._name, OsFileSystem())
        directory.close()
        return directory.identity
