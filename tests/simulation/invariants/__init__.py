"""The properties that hold in every run, one module each, and what they are shown of a run.

An invariant is told of everything that a server does, in the order in which it happens, and raises
`AssertionError` as soon as its property does not hold. It looks at servers through `Server`, at
what is durable through `Durable`, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from raftd.core.membership import Configuration
from raftd.core.messages import Envelope
from raftd.core.raft import Raft
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, HardState, Index, ServerId
from raftd.storage.state import StateMachine


class Durable(Protocol):
    """What a data directory has certainly kept, by what log and snapshots have returned from."""

    hard_state: HardState
    entries: list[Entry]
    """From index 1 on, without what was replaced: snapshot and log together, as the log that they
    stand for. What a snapshot brought are the entries that were committed."""
    base_index: Index
    """The log itself begins after it."""
    snapshot: Snapshot | None
    """The newest that is published."""


class Content(Protocol):
    """The store that a snapshot was made from, or into."""

    @property
    def state_hash(self) -> int:
        """Of all pairs."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key."""


class Server(Protocol):
    """A running server, as an invariant may look at it."""

    id: ServerId
    process: int
    """Grows with each start of the machine."""
    raft: Raft
    state: StateMachine
    durable: Durable
    version: int
    """The newest of the protocol that its release speaks."""

    @property
    def state_hash(self) -> int:
        """Of everything in the state machine's store: keys, sessions, operations, tombstones."""

    def lease_is_held(self) -> bool:
        """Return whether it would answer a read now by its lease, as a leader and by its clock."""


class Invariant:
    """One property. The methods do nothing here: each property overrides what it needs."""

    title: ClassVar[str]
    """Its usual name: "Election Safety"."""
    source: ClassVar[str]
    """Paper figure or section, dissertation section, name in the TLA+ specification."""

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        """Begin a run. `durable` grows as servers appear; who lost its disk stays in it."""
        self.durable = durable

    def started(self, server: Server) -> None:
        """A process has recovered from its disk; before its first turn."""

    def appended(
        self, server: Server, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> None:
        """Both have just become durable; `server.durable` has them."""

    def sent(self, server: Server, envelope: Envelope) -> None:
        """A message leaves."""

    def committed(
        self, server: Server, configuration: Configuration, old: Index, new: Index
    ) -> None:
        """As a leader it has moved its commit index, by counting under `configuration`."""

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        """Its state machine has just applied these."""

    def published(self, server: Server, snapshot: Snapshot, content: Content) -> None:
        """A snapshot has become durable, its own or one that a leader sent."""

    def restored(self, server: Server, snapshot: Snapshot) -> None:
        """A snapshot that a leader sent is in force: log and state machine have followed it."""

    def compacted(self, server: Server, keep_after: Index) -> None:
        """Its log has given up entries up to `keep_after`, or all of them at a reset to it."""

    def released(self, server: Server, snapshots: frozenset[SnapshotId]) -> None:
        """These are not readable any more."""

    def turned(self, server: Server) -> None:
        """It has finished a turn, all that followed from a batch of inputs."""

    def read_arrived(self, server: Server, read: object) -> None:
        """A linearizable read has reached it; `read` is the same object when it is answered."""

    def read_answered(self, server: Server, read: object) -> None:
        """It answers that read now, from what its state machine holds now."""

    def removed(self, server: Server) -> None:
        """It ends, or refuses to start, because it was removed from the cluster for good."""

    def ended(self, server: Server) -> None:
        """Its process has ended; memory is gone, `server.durable` stays."""
