"""What the driver stands on: the log, the identity and the network as it sees them, its settings.

Production and simulations hand in different objects of the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from raftd.core.messages import Envelope
from raftd.core.options import Options
from raftd.core.types import Entry, HardState, ServerId
from raftd.protocol import Request
from raftd.storage.identity import Identity

DEPARTING_MS = 10_000.0
"""A leader feeds a server that was dropped for so long: by then it has stopped, or is away."""


class Log(Protocol):
    """The durable log, as far as the driver needs it."""

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Make both durable, in one write and one sync."""


class Identities(Protocol):
    """The durable identity of the data directory."""

    @property
    def identity(self) -> Identity:
        """The identity that is durable now."""

    def publish(self, identity: Identity) -> None:
        """Replace it, durably."""


class Network(Protocol):
    """The network, as far as the driver needs it. Nothing here waits."""

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Send, or drop what cannot be sent now."""

    def set_members(self, addresses: Mapping[ServerId, str]) -> None:
        """Keep links to exactly these servers."""

    def close_peer(self, server: ServerId, problem: str) -> None:
        """Close the connection that `server` has opened, so that it has to say Hello again."""

    def contact(
        self, token: object, address: str, requests: Sequence[Request], timeout_ms: float
    ) -> None:
        """Ask a server that need not be a member; one `Contacted` with `token` follows."""


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
        )
