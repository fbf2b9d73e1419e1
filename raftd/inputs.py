"""What network and background work tell the node: values, free of trio.

So a simulator can make them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import attrs

from raftd.commands import Outcome, Result
from raftd.core.messages import Envelope
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import ServerId
from raftd.protocol import ErrorReply, Refusal, Reply, Request, Welcome
from raftd.storage.files import StorageFault


@attrs.frozen
class Received:
    """A message of a server whose identity the connection has established."""

    envelope: Envelope


@attrs.frozen
class Requested:
    """A request of a client."""

    request: Request
    respond: Callable[[Reply], None]
    """Call it exactly once, whenever the answer is known. Never blocks; does nothing once the
    client has gone."""


class Waiter(Protocol):
    """Whoever waits for the answer to a command. Exactly one of these is called, once."""

    def done(self, result: Result) -> None:
        """Take the result: the command was applied, or found to be impossible."""

    def failed(self, error: ErrorReply) -> None:
        """Take the reason why there is no result; it says whether the command was appended."""


@attrs.define
class CommandsArrived:
    """Encoded commands of clients, to be appended in their order. At least one."""

    commands: Sequence[bytes]
    waiters: Sequence[Waiter]
    """As many, each for the command in the same place."""


@attrs.define
class KeysArrived:
    """Reads of single keys, which may come from many clients and are answered together."""

    keys: Sequence[bytes]
    """UTF-8, as they are stored."""
    respond: Callable[[Sequence[bytes | None]], None]
    """Takes the values in the order of `keys`, None for a key that does not exist: of all of them,
    or of as many as fit into memory at once, at least one. Exactly one of this and `failed` is
    called, once."""
    failed: Callable[[Reply], None]
    stale: bool = False
    """True: from this server's own state, however old. False: linearizable."""


class StateView(Protocol):
    """The keys of the state as they are at one moment, for questions about them."""

    def values(self, keys: Sequence[bytes], bytes_max: int) -> Sequence[bytes | None]:
        """Return the values of keys, None for those that do not exist.

        Those of the first keys only, at least of one, if all have more than `bytes_max` together.
        """

    def look(self, key: bytes) -> Outcome:
        """Return what a `ReadKey` of a transaction would: whether it is there, its value, its mod
        revision as the number, and what is left of its life."""

    def keys(self, start: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return the first keys at `start` or behind it and before `end`, in their order.

        An empty `end` stands for the end of all.
        """

    def key_count(self, counted_max: int) -> int | None:
        """Return how many keys there are; None if more than `counted_max` things would have to be
        counted one by one for that."""


@attrs.define
class StateAsked:
    """Questions to the state, which may come from many clients and are answered together."""

    answer: Callable[[StateView], None]
    """Takes the state, from which it reads what it wants before it returns. Exactly one of this and
    `failed` is called, once."""
    failed: Callable[[Reply], None]
    stale: bool = False
    """True: from this server's own state, however old. False: linearizable."""


@attrs.frozen
class LinkChanged:
    """The outbound link to a member came up, went down, or fails for another reason than before."""

    server: ServerId
    connected: bool
    problem: str
    """Why it is down, in words; empty when it is up."""
    version: int = 0
    """Of the wire format that both sides agreed on; 0 while it is down."""
    address: str = ""
    """HOST:PORT where it answers; empty while it is down."""
    process_ended: bool = False
    """Both connections broke that were up, ours and its own, and where it had answered nobody
    listens any more: a process that lives and leads has at least one of the three."""


@attrs.frozen
class PeerRefused:
    """A member refused our Hello. Told again at each attempt, so once a second at most."""

    server: ServerId
    refusal: Refusal


@attrs.frozen(kw_only=True)
class Contacted:
    """How `Network.contact` ended."""

    token: object
    """The one that was given to `contact`."""
    reply: Reply | None
    """The reply to the last request that was answered; a request that is answered with an
    `ErrorReply` is the last one."""
    welcome: Welcome | None
    """Who answered there; None if nobody did, or if we were refused."""
    problem: str
    """Which step failed and how, in words; empty if all requests were answered."""
    refusal: Refusal | None = None
    """Set if the server refused the connection."""
    round_trip_ms: float | None = attrs.field(default=None, eq=False)
    """The quickest of its answers, from the question on; None without one. How fast it was is no
    part of how it ended."""
    tried: bool = True
    """Whether it was begun at all; not where this server has too many contacts under way."""


@attrs.frozen(kw_only=True)
class SnapshotTaken:
    """What `Snapshots.take` has begun has ended."""

    path: Path | None
    """The file, synced and not published yet; None if there is none."""
    problem: str
    """Why there is none, in words; empty if one that was installed has taken its place."""


@attrs.frozen(kw_only=True)
class SnapshotProgressed:
    """More of a snapshot that is being received is stored or worked in, or less: it was damaged."""

    snapshot: SnapshotId
    received_bytes: int
    installed_bytes: int


@attrs.frozen
class SnapshotReceived:
    """A snapshot is there as a whole, verified and synced, and a state was built from it."""

    snapshot: Snapshot


@attrs.frozen
class DiskFailed:
    """A write or sync in the background failed: the process has to stop, as for one of its own."""

    fault: StorageFault


Input: TypeAlias = (
    Received
    | Requested
    | CommandsArrived
    | KeysArrived
    | StateAsked
    | LinkChanged
    | PeerRefused
    | Contacted
    | SnapshotTaken
    | SnapshotProgressed
    | SnapshotReceived
    | DiskFailed
)
