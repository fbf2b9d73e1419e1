"""The native protocol: what clients, administrators and servers ask each other besides Raft.

Every connection starts with one `Hello` frame from the side that dialled and one `Welcome` or
`Refusal` frame back. Then a peer sends Raft messages, and a client sends requests; each request
carries a number, and its one reply the same number. `raftd.codec` turns all of it into frames.

Requests that change something carry a session and a serial (`raftd.commands`): sent again after a
lost reply, they do nothing twice.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from raftd.activity import ActivityReply as ActivityReply
from raftd.activity import ActivityRequest as ActivityRequest
from raftd.commands import ConfigurationRecord, Operation, RollingStep
from raftd.core.snapshot import SnapshotId as SnapshotId
from raftd.core.types import Index, ServerId, Term
from raftd.log_level_protocol import LogLevelReply as LogLevelReply
from raftd.log_level_protocol import LogLevelRequest as LogLevelRequest
from raftd.values import Value

PROTOCOL_VERSION_MIN = 1
PROTOCOL_VERSION_MAX = 5
"""Versions of the wire format that this release speaks; the highest common one is used. Version 2
knows snapshots and the comparison of states, version 3 the history of configurations and rolling
operations in the replicated state, version 4 counters, commands for several keys, and the questions
for a read index, version 5 keys with a life, transactions and watching. What an older version would
take for garbage is not sent to it, and entries that it could not apply are not appended before
every member speaks the version."""
LIVES_VERSION = 5
"""Servers that speak less know neither transactions nor watching."""
READ_INDEX_VERSION = 4
"""A server answers linearizable reads that it does not lead only if its leader speaks it."""
REVISION_GONE = "revision-gone"
NOT_NOW = "not now"
"""The message of an `ErrorReply` whose code is unavailable where a leader takes nothing at the
moment, as opposed to there being none."""
FRAME_BYTES_MAX = 8 * 1024 * 1024
"""A batch of entries (at most 2 MiB and one entry more) fits; a longer frame is refused unread."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Hello(Value):
    """The first frame of a connection: who dials, and whom they believe to reach."""

    role: str
    """peer or client."""
    cluster_id: str
    """Empty if the dialler does not know; a peer always does."""
    source: ServerId
    """The dialling server, also where it asks as a client does; else empty."""
    dest: ServerId
    """The server that is meant; empty for a client."""
    version_min: int = PROTOCOL_VERSION_MIN
    version_max: int = PROTOCOL_VERSION_MAX


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Welcome(Value):
    """The connection is accepted."""

    server: ServerId
    cluster_id: str
    """Empty while blank."""
    version: int
    cluster_name: str = ""
    """Empty while blank."""
    redis: str = ""
    """HOST:PORT where it serves clients of the Redis protocol; empty if it does not."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Refusal(Value):
    """The connection is refused and closed.

    Codes: `cluster` (another cluster), `identity` (another server lives here), `version`,
    `removed` (the dialling server is removed for good, at configuration index `removed_index`),
    `blank` (this server belongs to no cluster yet), `fenced` (the dialling server lacks what it
    acknowledged to this leader; told once in a while), `busy`, `forbidden` (the certificate that
    was shown is not that of who speaks), `tls` (said without TLS, to who did not begin with it).
    """

    code: str
    message: str
    server: ServerId = ""
    cluster_id: str = ""
    removed_index: Index = 0


# --- requests ---


@attrs.frozen(kw_only=True, repr=False, eq=False)
class StatusRequest(Value):
    """This server's own view. Answered by every server, blank or not."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class GetRequest(Value):
    key: str
    stale: bool = False
    """True: this server's own state, however old. False: linearizable, by the leader, or with
    `through_follower` by any member."""
    through_follower: bool = False
    """A server that does not lead answers itself, linearizably: it asks its leader up to where its
    state has to be. Where it cannot, it says that it does not lead, as older releases always do."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ListRequest(Value):
    prefix: str = ""
    limit: int = 1000
    """At most this many entries, 1 to `LIST_LIMIT_MAX`."""
    stale: bool = False
    after: str = ""
    """Only keys behind this one: the last key of the page before."""
    through_follower: bool = False
    """As in `GetRequest`."""


LIST_LIMIT_MAX = 10_000
"""Entries of one `ListReply`; the reply is also cut where it would outgrow a frame."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class OpenSessionRequest(Value):
    session: str


@attrs.frozen(kw_only=True, repr=False, eq=False)
class PutRequest(Value):
    session: str
    serial: int
    lowest_unacknowledged: int
    key: str
    value: bytes
    if_absent: bool = False
    if_revision: int | None = None


@attrs.frozen(kw_only=True, repr=False, eq=False)
class DeleteRequest(Value):
    session: str
    serial: int
    lowest_unacknowledged: int
    key: str


@attrs.frozen(kw_only=True, repr=False, eq=False)
class CompareAndSetRequest(Value):
    session: str
    serial: int
    lowest_unacknowledged: int
    key: str
    expected: bytes
    value: bytes


@attrs.frozen(kw_only=True, repr=False, eq=False)
class TransactionRequest(Value):
    """Change several keys at once, or keys with a life. See `raftd.commands.Transaction`."""

    session: str
    serial: int
    lowest_unacknowledged: int
    content: bytes
    """Conditions and steps, see `raftd.transactions.encode_steps`."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class WatchRequest(Value):
    """Return changes of keys in this server's applied state, oldest first; wait until there are."""

    after_revision: int
    """Only changes behind this revision."""
    prefix: str = ""
    """Only of keys that start with it."""
    limit: int = 1000
    """At most this many, 1 to `LIST_LIMIT_MAX`."""
    wait_ms: int = 0
    """It answers with nothing after so long, at most `WATCH_WAIT_MS_MAX`."""


WATCH_WAIT_MS_MAX = 60_000
"""A client that has gone without a word is forgotten after so long."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class MemberChange(Value):
    """What one server is to become."""

    role: str
    """voter, learner, remove, or readdress: a member as it is, at another address."""
    name: str
    address: str = ""
    """HOST:PORT of a server that is new to the cluster, or the new address of a member with the
    role readdress; else empty."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class TargetMember(Value):
    """One server of a cluster as it is to be."""

    name: str
    role: str
    """voter or learner."""
    address: str


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ChangeRequest(Value):
    """Start a membership operation: at most one joint change, whatever the number of servers."""

    session: str
    serial: int
    kind: str
    """add, remove, replace, promote, demote, readdress, apply, init."""
    changes: tuple[MemberChange, ...]
    """Empty for apply."""
    author: str
    reason: str = ""
    at_index: Index | None = None
    """Refuse unless the configuration index is still this."""
    dry_run: bool = False
    target: tuple[TargetMember, ...] = ()
    """For apply: all servers of the cluster as it is to be. The leader works out the difference."""
    zones: dict[str, str] = attrs.field(factory=dict)
    """Names of servers to their zones, as far as the asker knows them, for warnings."""
    parent: str = ""
    """The rolling operation that this change is a step of; empty for none."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class HistoryRequest(Value):
    """The configurations in this server's applied state, newest first."""

    limit: int = 100
    """At most so many records, 1 to `HISTORY_LIMIT_MAX`."""
    below_index: Index = 0
    """Only those with a smaller index; 0 for all."""


HISTORY_LIMIT_MAX = 1_000
"""Records of one `HistoryReply`; the reply is also cut where it would outgrow a frame."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class BeginRollingRequest(Value):
    """Start a rolling operation: a plan of steps in the replicated state, driven by raftctl."""

    session: str
    serial: int
    kind: str
    """rolling-replace or rolling-restart."""
    author: str
    steps: tuple[RollingStep, ...]
    command: str = ""
    """For rolling-restart: what restarts one server, as the operator gave it."""
    reason: str = ""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class UpdateRollingRequest(Value):
    """Note in a rolling operation's record what has become of it."""

    session: str
    serial: int
    operation: str
    """op-N."""
    action: str
    """step (replace the record of step `position` by `step`), pause, resume or end."""
    author: str
    version: int = 0
    """Of the record that the asker has seen: another one refuses, so that two drivers never drive
    one operation."""
    position: int = 0
    step: RollingStep | None = None
    outcome: str = ""
    """For end: done, failed or aborted."""
    reason: str = ""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class CheckupRequest(Value):
    """Have this server look at itself and dial every address that is named, as doctor asks."""

    addresses: tuple[str, ...] = ()
    """HOST:PORT, at most `CHECKUP_ADDRESSES_MAX`."""
    timeout_ms: float = 2_000.0
    """For each address, all of which are dialled at once; at most `CHECKUP_TIMEOUT_MS_MAX`."""


CHECKUP_ADDRESSES_MAX = 64
"""Twice the members that a cluster may have: those of both halves of any change."""
CHECKUP_TIMEOUT_MS_MAX = 10_000.0
"""Whoever does not answer for so long is not there for any purpose of the cluster."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class OperationsRequest(Value):
    """The operations in this server's applied state, newest last; with progress on the leader."""

    operation: str = ""
    """Only this one; empty for all."""
    wait_ms: int = 0
    """A leader answers once that one has ended, or after so long; a server of an older release, and
    whoever does not drive it, at once."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class AbortRequest(Value):
    """Ask that a running operation be undone; the first request for it counts.

    While joint it takes effect when it arrives at the leader, not when it is committed.
    """

    session: str
    """May be empty: asking twice does nothing twice, and a session cannot be opened while the new
    half of a joint configuration stores nothing, which is when an abort is wanted most. Then
    `operation` has to be named."""
    serial: int
    operation: str
    """op-N, or empty for the one that runs."""
    author: str
    reason: str = ""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class TransferRequest(Value):
    """Hand leadership to `target`, or to the best voter if empty. Answered when it has moved."""

    target: str = ""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class BootstrapRequest(Value):
    """Make a blank server the first and only member of a new cluster."""

    cluster_name: str
    incarnation: str
    """The incarnation that was found there; another one refuses."""
    address: str
    """HOST:PORT under which the others will dial it."""
    snapshot: SnapshotId | None = None
    """The backup that it was given before, from which the cluster goes on; None for an empty
    one. A server that holds another one, or none, refuses."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class JoinRequest(Value):
    """Tell a blank server which cluster it belongs to from now on. Durable before the answer."""

    cluster_id: str
    cluster_name: str
    name: str
    incarnation: str


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ReadIndexRequest(Value):
    """Ask the leader for an index that has everything that was acknowledged before. A quorum has
    confirmed by then that it leads."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class BackupRequest(Value):
    """Have a snapshot ready that includes the entry at `index`. Repeat it until it is.

    Any member answers. The snapshot is kept for as long as parts of it are asked for, and some
    seconds more.
    """

    index: Index


@attrs.frozen(kw_only=True, repr=False, eq=False)
class BackupChunkRequest(Value):
    """A part of a snapshot that a `BackupReply` has named, or that another server has as well."""

    snapshot: SnapshotId
    offset: int
    size_bytes: int
    """At most `BACKUP_CHUNK_BYTES_MAX`."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class RestoreRequest(Value):
    """Give a blank server a part of a backup; without bytes it only asks how far it is.

    What was sent before need not be sent again, also not after a restart of the server. Once all
    of it is there and worked in, the server holds it and waits for its `BootstrapRequest`.
    """

    snapshot: SnapshotId
    offset: int
    data: bytes
    """At most `BACKUP_CHUNK_BYTES_MAX`."""


BACKUP_CHUNK_BYTES_MAX = 1024 * 1024
"""Of one part of a backup: a step that makes nobody else wait."""


Request: TypeAlias = (
    StatusRequest
    | GetRequest
    | ListRequest
    | OpenSessionRequest
    | PutRequest
    | DeleteRequest
    | CompareAndSetRequest
    | TransactionRequest
    | WatchRequest
    | ChangeRequest
    | OperationsRequest
    | AbortRequest
    | TransferRequest
    | BootstrapRequest
    | JoinRequest
    | ReadIndexRequest
    | BackupRequest
    | BackupChunkRequest
    | RestoreRequest
    | HistoryRequest
    | BeginRollingRequest
    | UpdateRollingRequest
    | CheckupRequest
    | ActivityRequest
    | LogLevelRequest
)

# --- replies ---


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ConfigurationView(Value):
    """A configuration as status shows it. Servers are `name/incarnation`."""

    index: Index
    committed: bool
    joint: bool
    voters: tuple[ServerId, ...]
    """C_new while joint, else the only set."""
    outgoing: tuple[ServerId, ...]
    learners: tuple[ServerId, ...]
    learners_next: tuple[ServerId, ...] = ()
    addresses: dict[ServerId, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, repr=False, eq=False)
class PeerView(Value):
    """What the leader knows of another member."""

    server: ServerId
    match_index: Index
    lag_entries: int
    last_contact_ms: float | None
    """Since its last answer; None if it has never answered this leader."""
    caught_up: bool
    rounds: int
    """Catch-up rounds completed (dissertation 4.2.1)."""
    connected: bool
    problem: str = ""
    """Why the link is down, in words."""
    fenced: bool = False
    """It lacks entries that it had acknowledged: it is not fed and does not count."""
    snapshot_bytes: int = 0
    """Size of the snapshot that it is being sent; 0 if none is."""
    snapshot_received_bytes: int = 0
    """How much of that snapshot it has."""
    snapshot_installed_bytes: int = 0
    """How much of that snapshot it has worked into its state; that begins when it has all of it."""
    lag_bytes: int = 0
    """About how much of the log it still lacks, the snapshot not counted."""
    catch_up_bytes_per_second: int = 0
    """How fast it has moved in the last seconds, in what it does just now: it receives a snapshot,
    works one in, or stores entries. 0 once it has caught up."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class LinkView(Value):
    """A server's own connection to another member."""

    server: ServerId
    address: str
    connected: bool
    problem: str = ""
    """Why it is down, in words."""
    version: int = 0
    """Of the wire format that both agreed on; 0 while down."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class MajorityView(Value):
    """How far one half of a configuration has acknowledged an entry."""

    servers: tuple[ServerId, ...]
    acknowledged: tuple[ServerId, ...]
    needed: int


@attrs.frozen(kw_only=True, repr=False, eq=False)
class OperationView(Value):
    """An operation record, and on the leader what it is doing right now."""

    record: Operation
    step: str = ""
    """joining, catching-up, committing-joint, committing-final, rolling-back, ended."""
    index: Index = 0
    """The configuration entry that `old` and `new` are counted for; 0 if none is under way."""
    old: MajorityView | None = None
    """C_old's part; None once C_new alone decides."""
    new: MajorityView | None = None
    peers: tuple[PeerView, ...] = ()
    """The servers that the operation brings in or promotes."""
    last_index: Index = 0
    blocked_by: str = ""
    """What it waits for, in words, where that is a problem."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class StatusReply(Value):
    """One server's own view, and the leader's view of the others if it leads."""

    server: ServerId
    version: str
    cluster_id: str
    """Empty while blank."""
    cluster_name: str
    role: str
    """leader, follower, candidate, learner, blank or removed."""
    term: Term
    leader: ServerId
    """Empty if it knows none."""
    leader_address: str
    leadership_confirmed: bool
    """On a leader: a quorum has answered within an election timeout."""
    first_index: Index
    last_index: Index
    commit_index: Index
    applied_index: Index
    snapshot_index: Index
    revision: int
    configuration: ConfigurationView | None
    peers: tuple[PeerView, ...] = ()
    operation: OperationView | None = None
    """The membership operation that runs."""
    rolling: OperationView | None = None
    """The rolling operation that runs or is paused."""
    issues: tuple[str, ...] = ()
    uptime_ms: int = 0
    heartbeat_interval_ms: float = 0
    election_timeout_ms: float = 0
    protocol_version_max: int = 2
    """The newest version of the wire format that it speaks."""
    features: int = 0
    """The version whose features are switched on in the replicated state; 0 before any was."""
    zone: str = ""
    """From its cluster file; empty if it has none."""
    wall_clock_ms: int = 0
    """Milliseconds since 1970, by its own clock, when it answered."""
    links: tuple[LinkView, ...] = ()
    """Its own connections to the other members."""
    log_bytes: int = 0
    """About how much the entries of its log take."""
    snapshot_bytes: int = 0
    """Size of its newest snapshot; 0 without one."""
    state_bytes: int = 0
    """About what its live state takes on disk."""
    disk_free_bytes: int | None = None
    """What its disk has left; None if it does not know."""
    disk_reserve_bytes: int = 0
    """Below this writes are refused."""
    sync_p50_ms: float | None = None
    """Median time of its latest syncs of the log; None before the first."""
    sync_p99_ms: float | None = None
    cpu_ms: int | None = None
    """Processor time that its process has used since its start, that of its helpers that have ended
    included; None if it does not know."""
    rss_bytes: int | None = None
    """Its resident memory, with the pages of files that it has mapped; None if it does not know."""
    rss_anon_bytes: int | None = None
    """Of that, the memory that belongs to no file."""
    differing: tuple[ServerId, ...] = ()
    """Servers whose state is not that of a majority, as far as this one was told."""
    reads: str = "read-index"
    """How it answers linearizable reads while it leads: read-index (each takes part in a round of
    messages) or lease (none where it holds a lease)."""
    lease_remaining_ms: float | None = None
    """For how long it still holds the lease, 0 if it does not; None on one that does not lead, or
    does not use leases."""
    features_max: int = 0
    """The newest version with features in the replicated state that it can apply; 0 if it does not
    say, and it is that of the protocol."""
    redis: str | None = None
    """HOST:PORT where it serves clients of the Redis protocol, empty for nowhere; None on one of an
    older release, which does not say."""
    http: str | None = None
    """HOST:PORT where it tells by HTTP how it is, likewise. One that says so, be it empty, answers
    an `ActivityRequest`."""
    certificate_expires_ms: int | None = None
    """When the certificate that it shows ends, in milliseconds since 1970; None without one."""
    log_level: str = ""
    """The least important messages that it logs; empty if it knows no `LogLevelRequest`."""

    @property
    def applicable_features(self) -> int:
        """The newest version whose features can be switched on as far as this server goes."""
        return self.features_max or self.protocol_version_max


@attrs.frozen(kw_only=True, repr=False, eq=False)
class GetReply(Value):
    found: bool
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    revision: int = 0
    """The global revision that was read at."""
    ttl_ms: int | None = None
    """What is left of its life, as far as this server knows cluster time; 0 if it has lapsed and is
    about to be removed. None: it lives for ever."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ListEntry(Value):
    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    ttl_ms: int | None = None
    """As in `GetReply`."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ListReply(Value):
    revision: int
    entries: tuple[ListEntry, ...]
    more: bool
    """Whether the limit cut the list."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class WriteReply(Value):
    applied: bool
    revision: int


@attrs.frozen(kw_only=True, repr=False, eq=False)
class TransactionReply(Value):
    applied: bool
    """Whether the conditions held, and so its steps were carried out."""
    revision: int
    outcomes: bytes
    """One for each step, see `raftd.transactions.decode_outcomes`."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class EventView(Value):
    """One change of a key."""

    revision: int
    kind: str
    """put, delete (somebody removed it) or expired (its life was over)."""
    key: str
    value: bytes = b""
    """Of a put, as the revisions and the version; else empty and 0."""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0


@attrs.frozen(kw_only=True, repr=False, eq=False)
class WatchReply(Value):
    events: tuple[EventView, ...]
    next_after_revision: int
    """What to ask for next, at any server: nothing was left out up to it."""
    revision: int
    """How far the state is that has answered."""
    leader: ServerId = ""
    """Empty if it knows none: then it may hear of no changes, and another server may know more."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Quorum(Value):
    """A voter set that has to agree, and who of it answers."""

    voters: tuple[ServerId, ...]
    needed: int
    alive: tuple[ServerId, ...]


@attrs.frozen(kw_only=True, repr=False, eq=False)
class PlanPhase(Value):
    """One phase of a change, in order."""

    name: str
    """joining, catching-up, joint, final, or settled (the configuration as it is before)."""
    words: str
    """One sentence for people."""
    quorums: tuple[Quorum, ...]
    """Each of them has to agree: one, or C_old and C_new in the joint phase."""
    tolerance: int
    """Failures of any servers that it survives, dead ones already counted."""
    expected_ms: int | None = None
    """How long it should take; None if nobody can say."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class PlanView(Value):
    """What a change would do, worked out by the leader against the live cluster."""

    changes: tuple[str, ...]
    """One sentence for each server."""
    joint: bool
    before: ConfigurationView
    after: ConfigurationView
    tolerance_before: int
    tolerance_during: int
    tolerance_after: int
    """Failures of any servers that each phase survives, dead ones already counted."""
    warnings: tuple[str, ...] = ()
    phases: tuple[PlanPhase, ...] = ()
    bytes_to_copy: int = 0
    """About what the new servers have to receive, all of them together."""
    expected_ms: int | None = None
    """How long all of it should take; None if nobody can say."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ChangeReply(Value):
    operation: str
    """op-N; empty for a dry run and where nothing is to be done."""
    plan: PlanView | None = None
    nothing_to_do: str = ""
    """Why no operation was started, where the cluster is already as asked."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class HistoryReply(Value):
    records: tuple[ConfigurationRecord, ...]
    """Newest first."""
    more: bool
    """Whether there are older ones."""
    complete: bool = True
    """False where configurations from before the history was switched on, or beyond its limit, are
    missing."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class RollingReply(Value):
    operation: str
    version: int
    """Of the record as it is now; the next update has to name it."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ReachView(Value):
    """What a server found at an address."""

    address: str
    server: ServerId = ""
    """Who answered; empty if nobody did."""
    cluster_id: str = ""
    round_trip_ms: float | None = None
    """The quickest of a few questions and their answers; None without one."""
    problem: str = ""
    """Which step failed and how, in words; empty if it answered."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class CheckupReply(Value):
    server: ServerId
    reaches: tuple[ReachView, ...]
    """One for each address, in the order in which they were asked for."""
    wall_clock_ms: int


@attrs.frozen(kw_only=True, repr=False, eq=False)
class OperationsReply(Value):
    operations: tuple[OperationView, ...]


@attrs.frozen(kw_only=True, repr=False, eq=False)
class AbortReply(Value):
    operation: str


@attrs.frozen(kw_only=True, repr=False, eq=False)
class TransferReply(Value):
    leader: ServerId
    term: Term


@attrs.frozen(kw_only=True, repr=False, eq=False)
class BootstrapReply(Value):
    cluster_id: str


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ReadIndexReply(Value):
    index: Index


@attrs.frozen(kw_only=True, repr=False, eq=False)
class BackupReply(Value):
    """A snapshot that is ready, or what the server is doing until one is."""

    snapshot: SnapshotId | None = None
    doing: str = ""
    """applying (the log, up to the index), writing (a snapshot) or waiting; empty once ready."""
    problem: str = ""
    """Why it waits, in words."""
    applied_index: Index = 0


@attrs.frozen(kw_only=True, repr=False, eq=False)
class BackupChunkReply(Value):
    data: bytes
    """Fewer bytes than were asked for only at the end of the snapshot."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class RestoreReply(Value):
    received_bytes: int
    """From the beginning of the backup, without a gap. Where it has become less than it was, the
    rest was damaged on its way and has to be sent again."""
    installed_bytes: int
    """How much of it is worked into a state."""
    held: bool
    """All of it is durable and in force: the server is ready for its `BootstrapRequest`."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class DoneReply(Value):
    """It is done; there is nothing more to say."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ErrorReply(Value):
    """A refused request. `message`, `cause` and `hint` are the three lines that people see.

    Codes:
        not-leader: nothing was appended; ask `leader_address` if it is known.
        unavailable: no leader, not ready, or overloaded; nothing was appended; try again later.
        unknown-outcome: it may or may not happen; only the same session and serial may ask again.
        refused: the cluster will not do it; nothing was changed.
        unsafe: valid, but a quorum would be lost now; nothing was changed.
        invalid: the request itself is wrong.
        forbidden: the certificate that was shown is not of a role that may ask this; nothing was
            changed.
        session-expired: the session was forgotten; whether earlier commands took effect is unknown.
        revision-gone: the changes that were asked for are not kept any more.
    """

    code: str
    message: str
    cause: str = ""
    hint: str = ""
    leader: ServerId = ""
    leader_address: str = ""
    operation: str = ""
    oldest_revision: int = 0
    """With revision-gone: of the oldest change that this server has; it may be asked for the
    changes behind the one before."""


Reply: TypeAlias = (
    StatusReply
    | GetReply
    | ListReply
    | WriteReply
    | TransactionReply
    | WatchReply
    | ChangeReply
    | OperationsReply
    | AbortReply
    | TransferReply
    | BootstrapReply
    | ReadIndexReply
    | BackupReply
    | BackupChunkReply
    | RestoreReply
    | HistoryReply
    | RollingReply
    | CheckupReply
    | ActivityReply
    | LogLevelReply
    | DoneReply
    | ErrorReply
)
