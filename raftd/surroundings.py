"""What the driver stands on: log, snapshots, identity, network as it sees them; its settings.

Production and simulations hand in different objects of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import attrs

from raftd.commands import FEATURES_MAX
from raftd.core.messages import Envelope
from raftd.core.options import Options
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, HardState, Index, ServerId, Term
from raftd.protocol import Request
from raftd.storage.identity import Identity
from raftd.storage.store import CountedStore

FREE_BYTES_UNKNOWN = 1 << 62
"""What a disk has left of which nobody keeps count."""
BUSY_CATCH_UP_BYTES_PER_SECOND = 48 * 1024 * 1024
"""What all servers that catch up are sent at most while clients work: a tenth of a leader's time.
Clients keep well over half of their throughput even where all servers share two processors."""
DEPARTING_MS = 10_000.0
"""A leader feeds a server that was dropped for so long: by then it has stopped, or is away."""


class Log(Protocol):
    """The durable log, as far as the driver needs it."""

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Make both durable, in one write and one sync."""

    def compact(self, keep_after: Index) -> list[Path]:
        """Forget entries at or below `keep_after`; return files to be removed, in this order."""

    def reset(self, index: Index, term: Term) -> list[Path]:
        """Forget all entries: the next one follows a snapshot that ends with this one. Durable.

        Returns files to be removed, in this order.
        """


class Identities(Protocol):
    """The durable identity of the data directory."""

    @property
    def identity(self) -> Identity:
        """The identity that is durable now."""

    def publish(self, identity: Identity) -> None:
        """Replace it, durably."""


class FoundLog(Protocol):
    """What a log held when it was opened."""

    @property
    def hard_state(self) -> HardState:
        """The durable term and vote."""

    @property
    def entries(self) -> Sequence[Entry]:
        """All entries after `base_index`."""

    @property
    def base_index(self) -> Index:
        """What comes before the first entry; at or below the end of the newest snapshot."""

    @property
    def base_term(self) -> Term:
        """The term of that."""


class Snapshots(Protocol):
    """Snapshots of the state machine, and the stores that its state lives in.

    What takes long happens in the background and is told by an input. Every method raises
    `StorageFault` when the disk fails.
    """

    @property
    def latest(self) -> Snapshot | None:
        """The newest one that is durable."""

    def take(self, cluster_id: str) -> None:
        """Begin to write a snapshot of the state as it is now, or a little later.

        One `SnapshotTaken` follows. Not called again before.
        """

    def publish(self, path: Path) -> Snapshot | None:
        """Make what was taken the newest snapshot, durably; None if there is a newer one."""

    def read(self, snapshot: SnapshotId, offset: int, size_bytes: int) -> bytes:
        """Return a part of a snapshot that was published and is kept."""

    def keep(self, in_use: frozenset[SnapshotId]) -> None:
        """Let go of published snapshots that are not in use."""

    def progress_of(self, snapshot: SnapshotId) -> tuple[int, int]:
        """Return how much there is of a snapshot that a leader sends, as `receive` does."""

    def receive(self, snapshot: SnapshotId, offset: int, data: bytes) -> tuple[int, int]:
        """Store a part of a snapshot that a leader sends; another one that was begun is dropped.

        Returns:
            How many bytes there are from its beginning on, and how many of them were worked into a
            state. Later on `SnapshotProgressed` tells of more, and `SnapshotReceived` at the end.
        """

    def is_received(self, snapshot: SnapshotId) -> bool:
        """Return whether `install` would find it: another one may have taken its place."""

    def drop_received(self) -> None:
        """Forget the snapshot that is being received, and the state that was built from it."""

    def drop_outdated(self) -> None:
        """Forget a snapshot that is being received, if the newest one reaches as far."""

    def install(self, snapshot: Snapshot) -> CountedStore:
        """Make what was received the newest snapshot, durably; return the store with its state.

        The store that the state lived in until now is closed.
        """

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove files that nobody needs, in this order, at leisure."""


class Network(Protocol):
    """The network, as far as the driver needs it. Nothing here waits."""

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Send, or drop what cannot be sent now."""

    def set_members(self, addresses: Mapping[ServerId, str]) -> None:
        """Keep links to exactly these servers; one that is not at its address may be elsewhere."""

    def close_peer(self, server: ServerId, problem: str) -> None:
        """Close the connection that `server` has opened, so that it has to say Hello again."""

    def contact(
        self, token: object, address: str, requests: Sequence[Request], timeout_ms: float
    ) -> None:
        """Ask a server that need not be a member; one `Contacted` with `token` follows."""


@attrs.frozen(kw_only=True)
class Measured:
    """What was measured of this server, for people; a simulation measures nothing."""

    sync_p50_ms: float | None = None
    """Median time of the latest syncs of the log; None before the first."""
    sync_p99_ms: float | None = None
    state_bytes: int = 0
    """What the live state takes on the disk."""
    cpu_ms: int | None = None
    """Processor time since the start of the process; None if nobody has measured it."""
    rss_bytes: int | None = None
    """Resident memory of the process; None as above."""
    rss_anon_bytes: int | None = None
    """Of that, what belongs to no file."""
    certificate_expires_ms: int | None = None
    """When the certificate ends, in milliseconds since 1970; None without one."""


@attrs.frozen(kw_only=True)
class Settings:
    """What the configuration says about this server, in the driver's terms."""

    address: str
    """HOST:PORT under which the others dial it."""
    version: str
    tick_ms: float
    heartbeat_interval_ms: float
    election_timeout_ms: float
    catch_up_timeout_ms: float
    joint_timeout_ms: float
    snapshot_log_bytes: int = 64 * 1024 * 1024
    """A snapshot is taken when the log has grown by so much, with a large state by up to four
    times as much."""
    catch_up_bytes_per_second: int = 0
    """What a server that catches up is sent at most; 0 for no limit, also while clients work."""
    disk_reserve_bytes: int = 0
    """With less than this left on the disk, writes of clients are refused."""
    features_max: int = FEATURES_MAX
    """The newest version whose features it switches on as a leader; 0 for none."""
    zone: str = ""
    """The failure unit that it belongs to; empty for none."""
    redis: str = ""
    """HOST:PORT where it serves clients of the Redis protocol; empty for nowhere."""
    http: str = ""
    """HOST:PORT where it tells by HTTP how it is; empty for nowhere."""
    reads_by_lease: bool = False
    """Whether it answers reads by leases while it leads, and does for others what leases need."""
    clock_drift: float = 0.0
    """While one server's clock counts an election timeout, that of every other one counts at least
    (1 - clock_drift) of it; at least 0 and below 1."""

    def ticks(self, duration_ms: float) -> int:
        """Return a duration in ticks, at least 1."""
        return max(1, round(duration_ms / self.tick_ms))

    def options(self) -> Options:
        """Return the time-outs of the core."""
        heartbeat_ticks = self.ticks(self.heartbeat_interval_ms)
        return Options(
            heartbeat_ticks=heartbeat_ticks,
            election_ticks=max(self.ticks(self.election_timeout_ms), 2 * heartbeat_ticks),
            joint_timeout_ticks=self.ticks(self.joint_timeout_ms),
            departing_ticks=self.ticks(DEPARTING_MS),
            catch_up_bytes_per_tick=self._bytes_per_tick(self.catch_up_bytes_per_second),
            busy_catch_up_bytes_per_tick=self._bytes_per_tick(BUSY_CATCH_UP_BYTES_PER_SECOND),
            vote_withheld_ms=math.ceil(self.election_timeout_ms) if self.reads_by_lease else 0,
            clock_drift=self.clock_drift,
        )

    def _bytes_per_tick(self, rate: int) -> int:
        return max(1, round(rate * self.tick_ms / 1000)) if rate else 0
