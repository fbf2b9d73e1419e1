"""The driver: the one place where the order of network, disk and state machine is decided.

A `Node` is synchronous and free of trio. Something else waits for inputs, in production a trio
task, in a simulation a seeded loop; the node gets a batch of them, and all that follows from it is
done when `turn` returns. Requests that arrive while the disk works queue up outside and share the
next sync: that is group commit.

```
turn(inputs, tick)
  put every input into the core (or the operations), the tick last
  while there is work:
    1 send what need not wait for our disk
    2 put a received snapshot in force; append hard state and entries: one write, one sync
    3 tell the core that they are durable
    4 send the rest; store parts of a snapshot
    5 apply what is committed in one transaction, answer writes and reads
```

Source: design of etcd's raft example driver; dissertation 10.2.1 for step 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import attrs

from raftd.administration import Administration
from raftd.admission import admit, our_hello
from raftd.agreement import CHECK_INTERVAL_MS, CHECK_PATIENCE_MS, Agreement, Standing
from raftd.applying import TurnShare, puts_off_applying
from raftd.backup import Backups
from raftd.cluster_time import ClusterTime
from raftd.commands import Command, Result
from raftd.compaction import Compaction
from raftd.core.errors import Divergence, NotLeader, ProposalDropped
from raftd.core.leader import Leader
from raftd.core.log import RaftLog
from raftd.core.membership import decode_configuration
from raftd.core.messages import Envelope, StateMessage
from raftd.core.raft import Raft
from raftd.core.ready import Ready
from raftd.core.snapshot import Snapshot
from raftd.core.types import (
    Entry,
    EntryKind,
    HardState,
    Index,
    ServerId,
)
from raftd.disk_space import DiskSpace
from raftd.fencing import Fencing
from raftd.founding import become_member, held_problem
from raftd.founding import founding_entry as founding_entry
from raftd.handover import Handovers, best_target, hand_over
from raftd.inputs import (
    CommandsArrived,
    Contacted,
    DiskFailed,
    Input,
    KeysArrived,
    LinkChanged,
    PeerRefused,
    Received,
    Requested,
    SnapshotProgressed,
    SnapshotReceived,
    SnapshotTaken,
    StateAsked,
)
from raftd.log_level import PROCESS
from raftd.node_log import NodeLog
from raftd.operations import Cluster, Operations
from raftd.portions import Portions
from raftd.protocol import (
    NOT_NOW,
    AbortRequest,
    ActivityRequest,
    BackupChunkRequest,
    BackupRequest,
    BeginRollingRequest,
    BootstrapReply,
    BootstrapRequest,
    ChangeRequest,
    CheckupRequest,
    CompareAndSetRequest,
    DeleteRequest,
    DoneReply,
    ErrorReply,
    GetRequest,
    Hello,
    HistoryRequest,
    JoinRequest,
    ListRequest,
    LogLevelRequest,
    OpenSessionRequest,
    OperationsRequest,
    PeerView,
    PutRequest,
    ReadIndexReply,
    ReadIndexRequest,
    Refusal,
    Reply,
    Request,
    RestoreRequest,
    StatusReply,
    StatusRequest,
    TransactionRequest,
    TransferRequest,
    UpdateRollingRequest,
    WatchRequest,
    Welcome,
)
from raftd.reading import Reading
from raftd.replies import bad_request, invalid, not_leader, unavailable
from raftd.storage.identity import Identity, refuse_lost_log
from raftd.storage.state import StateMachine
from raftd.surroundings import FREE_BYTES_UNKNOWN as FREE_BYTES_UNKNOWN
from raftd.surroundings import FoundLog, Identities, Log, Measured, Network, Settings, Snapshots
from raftd.telemetry import Telemetry
from raftd.trace import Trace
from raftd.views import CatchUpRates, link_views, peer_views, status_reply
from raftd.watching import Watches
from raftd.whereabouts import Whereabouts
from raftd.writing import Writes

EXIT_REMOVED = 70
"""Exit code of a server that was removed from its cluster for good."""
LINGER_ELECTION_TIMEOUTS = 2
"""A removed server answers for so long: the first is for the election of a leader that it can name
if it was the leader itself, the second for clients to ask."""
LINGER_MS_MAX = 5_000.0
"""But no longer than this, however long elections take: it has to end within 10 seconds."""

_ROUTINE = frozenset((Received, CommandsArrived, KeysArrived, StateAsked))
"""Inputs that nothing else follows from than replication, application and answers."""

Respond = Callable[[Reply], None]


@attrs.frozen
class Stop:
    """The node asks its process to end."""

    exit_code: int
    message: str


class Node:
    """One server: the core, its disk, its state machine, and those who wait for an answer."""

    _tended: tuple[object, ...] = ()
    """How things stood when all was looked after that goes on beside replication."""

    def __init__(
        self,
        *,
        identities: Identities,
        log: Log,
        found: FoundLog,
        snapshots: Snapshots,
        state: StateMachine,
        network: Network,
        settings: Settings,
        random: Random,
        wall_clock_ms: Callable[[], int],
        uptime_ns: Callable[[], int],
        mint_cluster_id: Callable[[], str],
        free_bytes: Callable[[], int] = lambda: FREE_BYTES_UNKNOWN,
        measure: Callable[[], Measured] = Measured,
        trace: Trace | None = None,
    ) -> None:
        """Start from what recovery found.

        Args:
            identities: who this server is.
            log: to be appended to.
            found: what `log` holds already.
            snapshots: with the newest one at or above where the log begins.
            state: empty, or at some applied index from there to the last entry.
            network: must not call back before `__init__` has returned.
            random: for election time-outs.
            wall_clock_ms: milliseconds since 1970, for people only.
            uptime_ns: since the process started; counts on while the machine sleeps.
            mint_cluster_id: returns an id that was never used.
            free_bytes, measure: what the disk has left, and what else is known of it.
            trace: told of everything that happens, if there is one; whoever ends the process
                tells it so.

        Raises:
            StorageFault: the log has lost its entries, or the disk failed; stop the process.
        """
        refuse_lost_log(identities.identity, found.base_index + len(found.entries))
        self._identities = identities
        self._log = log
        self._state = state
        self._network, self._settings = network, settings
        self._random = random
        self._wall_clock_ms, self._uptime_ns = wall_clock_ms, uptime_ns
        self._mint_cluster_id, self._measure = mint_cluster_id, measure
        self._trace = trace
        self._time = ClusterTime(state, uptime_ns, self._propose)
        self._portions = portions = Portions()
        self.watches = Watches(state, settings.ticks, portions)
        now_ms = self._time.now_ms
        self._reading = Reading(state, settings, uptime_ns, self._not_leader, now_ms, portions)
        self._handovers = Handovers()
        self._rates = CatchUpRates(settings.tick_ms)
        self._compaction = Compaction(snapshots, log, settings)
        self._snapshots = snapshots
        self._backups = Backups(self._compaction, snapshots, settings)
        self._lines = NodeLog(settings, uptime_ns, found.base_index + len(found.entries))
        self._disk = DiskSpace(free_bytes, settings.disk_reserve_bytes, self._lines.clock)
        self._writes = Writes(
            self._disk, settings.snapshot_log_bytes, self._not_leader, self._time.stamp
        )
        self.telemetry = Telemetry(wall_clock_ms, self._writes.proposals)
        self._fencing = Fencing(settings)
        self._agreement = self._make_agreement()
        self._state_messages: list[Envelope] = []
        self._links: dict[ServerId, LinkChanged] = {}
        self._addresses: dict[ServerId, str] = {}
        self._removed_peers: set[ServerId] = set()
        """Those that are gone for good and may not have been told on their connection to us."""
        self._draining = False
        self._stop: Stop | None = None
        self._stop_tick = 0
        self.raft = self._make_raft(found.hard_state, self._make_log(found))
        self._administration = Administration(
            state, network, self._propose, wall_clock_ms, settings.features_max
        )
        self.operations = self._make_operations()
        self._begin(found.hard_state)

    def _make_operations(self) -> Operations:
        return Operations(
            state=self._state,
            contacts=self._network,
            propose=self._propose,
            wall_clock_ms=self._wall_clock_ms,
            settings=self._settings,
            peers=self._peer_views,
            proposed_features=self._administration.proposed_features,
            want_snapshot=self._compaction.want_for_newcomer,
        )

    def _begin(self, hard_state: HardState) -> None:
        """Finish what the last process had begun with the identity, then follow the members."""
        self._reading.started(self.raft, self._identities)
        self._compaction.started(self.raft)
        self._whereabouts = Whereabouts(self._settings.address, self._links, self.raft)
        if self._trace is not None:
            self._trace.started(self.raft)
        if self.identity.bootstrap_address and not hard_state.current_term:
            # The process ended between the identity and the founding entry: it goes on here.
            self._found()
        elif self.raft.log.last_index:
            removed_index = self._state.tombstone(self.identity.server)
            if removed_index is not None:
                # It ended between the entry that says so and its note.
                self._on_removed(removed_index)
            # The process ended between the first entry and its note.
            self._note_that_log_has_begun()
        self._follow_members()
        self.telemetry.follow(self.raft)

    # --- the loop ---

    def quiet_ticks(self) -> int:
        """Return how many ticks may pass before the next `turn`, if there are no inputs."""
        if (
            self._draining
            or self._stop is not None
            or not self._handovers.is_idle
            or not self._reading.is_idle
            or self._state.running_operation is not None
        ):
            return 0
        return self.raft.quiet_ticks()

    def turn(self, inputs: Sequence[Input], *, tick: bool, passed_ticks: int = 0) -> None:
        """Take in a batch of inputs and do everything that follows from it.

        Args:
            inputs: in their order of arrival.
            tick: whether a tick is due. It is looked at last: what has waited in our own queue
                is not silence of the leader.
            passed_ticks: those before the first input, at most `quiet_ticks`.

        Raises:
            StorageFault: the disk failed; stop the process, and answer nothing any more.
        """
        self.telemetry.turns += 1
        self._portions.begin_turn()
        self.raft.wall_clock_ms = self._wall_clock_ms()
        if passed_ticks:
            self.raft.pass_quietly(passed_ticks)
        # After the inputs have come: what is answered or promised for them counts from here.
        self.raft.monotonic_ns = self._uptime_ns()
        for item in inputs:
            self._take_in(item)
        if tick:
            self.raft.tick()
        if tick or passed_ticks:
            self._reading.tick(self.raft, self._identities)
            self._rates.tick(self.raft)
            self._disk.look()
            self.raft.is_short_of_space = bool(self._disk.problem)
            self._fencing.tick(self.raft, self._network)
            self._lines.tick(self.raft)
            self._compare_states(None)
            if self.watches.waiting:
                self.watches.tick(self.raft)
        if tick or passed_ticks or self._time.has_more:
            self._time.advance(self.raft)
        if self._draining:
            hand_over(self.raft)
        self._work()
        is_rare = tick or passed_ticks or not _ROUTINE.issuperset(map(type, inputs))
        if is_rare or self._needs_tending():
            self._tend()
        if self._trace is not None:
            self._trace.turned(self.raft)

    def _needs_tending(self) -> bool:
        """Whether there may be more to do than to take in, write, send, apply and answer.

        What else comes up with messages and commands of clients waits for the next tick: most of
        the turns are short, and their length is what clients wait for.
        """
        return (
            self._tended != self._standing()
            or self._state.running_operation is not None
            or self._state.features < self._settings.features_max
            or not self.operations.is_idle
            or not self._handovers.is_idle
            or self._draining
            or bool(self._removed_peers)
            or self._compaction.is_behind(self.raft)
        )

    def _standing(self) -> tuple[object, ...]:
        raft = self.raft
        return raft, raft.role, raft.current_term, raft.leader_id, raft.configuration, raft.snapshot

    def _tend(self) -> None:
        """Look after all that goes on beside replication."""
        self._compaction.advance(self.raft, self.identity.cluster_id, self._disk.free_bytes)
        self._follow_members()
        self._close_removed_peers()
        self._handovers.settle(self.raft)
        self._compaction.release(self.raft, self._backups.pinned(self.raft))
        self._lines.turned(self.raft)
        self.telemetry.follow(self.raft)
        self._tended = self._standing()

    @property
    def stop(self) -> Stop | None:
        """Why the process has to end now, once it has to."""
        if self._stop is None or self.raft.now < self._stop_tick:
            return None
        if isinstance(self.raft.role, Leader):
            return None
        return self._stop

    @property
    def is_behind(self) -> bool:
        """Whether there is more to be done at once: call `turn` again, also without inputs."""
        log = self.raft.log
        waits_to_apply = log.handed_index < log.commit_index and not puts_off_applying(self.raft)
        has_more = self._time.has_more or self._portions.has_more
        return waits_to_apply or has_more or self._compaction.is_behind(self.raft)

    def drain(self) -> None:
        """Hand leadership over from the next turn on. Ask `is_drained` after turns."""
        self._draining = True

    @property
    def is_drained(self) -> bool:
        """Whether this server can stop without anybody waiting for an election because of it."""
        leader = self.raft.role
        return not isinstance(leader, Leader) or best_target(self.raft, leader) is None

    @property
    def identity(self) -> Identity:
        """Who this server is."""
        return self._identities.identity

    def _work(self) -> None:
        share = TurnShare(self.raft)
        while True:
            if self._needs_tending():
                self.operations.advance(self.raft, self._cluster())
                change_begins = self.operations.change_begins(self.raft)
                self._administration.advance(self.raft, self._links, change_begins=change_begins)
            ready = self.raft.take_ready(hands_out=share.is_left)
            if ready is None:
                return
            self._handle(ready)
            share.took(ready.committed)

    def _handle(self, ready: Ready) -> None:
        """Do what the core asks for, in the order that keeps its promises across a crash."""
        # 1: the followers' disks work at the same time as ours.
        self._network.send(ready.early_messages)
        # 2: what a snapshot replaces, then term, vote and entries, in one sync.
        if ready.restore is not None:
            self._restore(ready.restore)
        if ready.hard_state is not None or ready.entries:
            self._log.append(ready.hard_state, ready.entries)
            if ready.entries:
                self.telemetry.appended(self.raft, ready.entries[-1].index)
                self._note_that_log_has_begun()
        if self._trace is not None:
            self._trace.persisted(self.raft, ready.hard_state, ready.entries)
        # 3: only now our own vote and our own match count.
        self.raft.persisted(ready)
        # 4: votes and acknowledgements speak of what is durable.
        messages = ready.messages
        if ready.chunks_to_send or self._state_messages:
            chunks = self._compaction.messages(self.raft, ready.chunks_to_send)
            messages = (*messages, *chunks, *self._state_messages)
            self._state_messages.clear()
        self._network.send(messages)
        if ready.chunks_received:
            self._compaction.store(self.raft, ready.chunks_received, self._disk.free_bytes)
        # 5
        if ready.lost_leadership:
            self._fail_writes()
        if ready.committed:
            self._apply(ready.committed)
        self.telemetry.reads += len(ready.reads)
        for answer in ready.reads:
            self._reading.answered(answer)

    def _take_in(self, item: Input) -> None:
        match item:
            case Received(envelope):
                if isinstance(envelope.message, StateMessage):
                    self._compare_states(envelope)
                else:
                    self.raft.step(envelope)
            case Requested(request, respond):
                self._on_request(request, respond)
            case CommandsArrived():
                self._writes.propose_all(self.raft, item.commands, item.waiters)
            case KeysArrived() | StateAsked() if self.identity.is_blank:
                item.failed(self._not_leader())
            case KeysArrived() | StateAsked():
                self._reading.arrived(self.raft, item)
            case LinkChanged():
                self._links[item.server] = item
                if item.connected:
                    self.raft.report_connected(item.server)
                else:
                    self.raft.report_unreachable(item.server, process_ended=item.process_ended)
            case PeerRefused(server, refusal):
                self._on_peer_refused(server, refusal)
            case Contacted():
                if not self._administration.contacted(item):
                    self.operations.contacted(self.raft, self._cluster(), item)
            case SnapshotTaken():
                self._compaction.taken(self.raft, item)
            case SnapshotProgressed():
                self._compaction.progressed(self.raft, item)
            case SnapshotReceived():
                if self.identity.is_blank:
                    self._hold_backup(item.snapshot)
                else:
                    self._compaction.received(self.raft, item)
            case DiskFailed(fault):
                raise fault

    # --- connections ---

    def admit(self, hello: Hello) -> Welcome | Refusal:
        """Decide about an inbound connection."""
        answer = admit(hello, self.identity, self._state.tombstone, self._state.features)
        return self._fencing.admit(hello, answer, self.raft)

    def our_hello(self, server: ServerId) -> Hello | None:
        """Return what to say to `server` when we dial it; None while we are blank."""
        return our_hello(self.identity, server, self._state.features)

    def _on_peer_refused(self, server: ServerId, refusal: Refusal) -> None:
        self._links[server] = LinkChanged(server, False, f"refused: {refusal.message}")
        if refusal.code == "removed" and refusal.cluster_id == self.identity.cluster_id:
            self._on_removed(refusal.removed_index)
        self._fencing.refused(refusal, self.identity, self.raft)

    def _follow_members(self) -> None:
        """Keep links to exactly the servers that the core may talk to."""
        # A backup that a blank server holds has the members of another cluster.
        addresses = {} if self.identity.is_blank else dict(self.raft.addresses())
        if addresses != self._addresses:
            self._addresses = addresses
            self._network.set_members(addresses)
            for server in self._links.keys() - addresses.keys():
                del self._links[server]

    def _close_removed_peers(self) -> None:
        """Make servers that were removed say Hello again, so that they are told.

        A connection that is older than our knowledge of the removal would stay for ever, and who
        was away while the leader fed it would never hear of it.
        """
        for server in sorted(self._removed_peers):
            # A leader that has removed itself knows, and hands leadership over by this connection.
            if server != self.raft.leader_id:
                self._removed_peers.remove(server)
                self._network.close_peer(server, "it was removed from the cluster for good")

    # --- becoming a member, ceasing to be one ---

    def _make_raft(self, hard_state: HardState, log: RaftLog) -> Raft:
        if not hard_state.current_term:
            # Only where a backup is held. The founding entry makes a later term durable.
            hard_state = HardState(log.base_term)
        raft = Raft(
            server=self.identity.server,
            log=log,
            hard_state=hard_state,
            options=self._settings.options(),
            random=self._random,
            snapshot=self._snapshots.latest,
        )
        raft.wall_clock_ms, raft.monotonic_ns = self._wall_clock_ms(), self._uptime_ns()
        return raft

    def _make_log(self, found: FoundLog) -> RaftLog:
        return RaftLog(
            found.entries,
            base_index=found.base_index,
            base_term=found.base_term,
            snapshot=self._snapshots.latest,
            applied_index=self._state.applied_index,
        )

    def _make_agreement(self) -> Agreement:
        return Agreement(
            self.identity.server,
            interval_ticks=self._settings.ticks(CHECK_INTERVAL_MS),
            patience_ticks=self._settings.ticks(CHECK_PATIENCE_MS),
        )

    def _cluster(self) -> Cluster:
        return Cluster(id=self.identity.cluster_id, name=self.identity.cluster_name)

    def _found(self) -> None:
        """Append the founding entry, from which the log of the new cluster grows, and lead."""
        held = self._snapshots.latest
        base_index, base_term = self._state.applied_index, self._state.applied_term
        entry = founding_entry(
            self.identity,
            base_index=base_index,
            base_term=base_term,
            running=self._state.running_operation,
        )
        hard_state = HardState(current_term=entry.term)
        self._log.append(hard_state, (entry,))
        self._note_that_log_has_begun()
        self.raft = self._make_raft(
            hard_state,
            RaftLog((entry,), base_index=base_index, base_term=base_term, snapshot=held),
        )
        self._compaction.started(self.raft)
        if self._trace is not None:
            self._trace.persisted(self.raft, hard_state, (entry,))
        self.raft.campaign()

    def _hold_backup(self, snapshot: Snapshot) -> None:
        """Put a backup in force that this blank server was given; a bootstrap goes on from it."""
        if not self._snapshots.is_received(snapshot.id):
            return
        self._compaction.restore(self.raft, snapshot, self._state)
        self._time.restored()
        self._note_that_log_has_begun()
        index, term = snapshot.id.last_included_index, snapshot.id.last_included_term
        self.raft = self._make_raft(
            HardState(), RaftLog(base_index=index, base_term=term, snapshot=snapshot)
        )
        self._compaction.started(self.raft)
        if self._trace is not None:
            self._trace.restored(self.raft, snapshot)

    def _note_that_log_has_begun(self) -> None:
        """Let no later start take an empty log for a new one; before anything is acknowledged."""
        if not self.identity.log_begun:
            self._identities.publish(attrs.evolve(self.identity, log_begun=True))

    def _on_membership(self, request: BootstrapRequest | JoinRequest, respond: Respond) -> None:
        """Found a cluster of this server alone, or belong to one; durable before the answer."""
        member = become_member(
            self.identity,
            request,
            self._snapshots.latest,
            is_restoring=self._backups.is_restoring,
            mint_cluster_id=self._mint_cluster_id,
            time_ms=self._wall_clock_ms(),
        )
        if not isinstance(member, Identity):
            respond(member)
            return
        self._backups.forget_received()
        self._identities.publish(member)
        did = "founded" if member.bootstrap_address else "joined"
        self._lines.joined(did, member)
        if member.bootstrap_address:
            self._found()
            respond(BootstrapReply(cluster_id=member.cluster_id))
        else:
            respond(DoneReply())

    def _on_removed(self, index: Index) -> None:
        """Remember for good that we were removed, then end once nobody depends on us."""
        if self._stop is not None:
            return
        self._identities.publish(attrs.evolve(self.identity, removed_index=index))
        self._stop = Stop(
            EXIT_REMOVED, f"removed from the cluster for good by configuration {index}"
        )
        # The last answers have to leave: the leader stops feeding us when it has them. And clients
        # that know no other server have to learn from this one who leads now.
        self._stop_tick = self.raft.now + min(
            LINGER_ELECTION_TIMEOUTS * self.raft.options.election_ticks,
            self._settings.ticks(LINGER_MS_MAX),
        )
        self._lines.removed(self._stop.message, index)

    # --- requests ---

    def _on_request(self, request: Request, respond: Respond) -> None:
        try:
            problem = bad_request(request)
            if problem:
                respond(invalid(problem))
            else:
                self._dispatch(request, respond)
        except NotLeader:
            respond(self._not_leader())
        except ProposalDropped as refusal:
            respond(unavailable(NOT_NOW, str(refusal)))

    def _dispatch(self, request: Request, respond: Respond) -> None:
        match request:
            case StatusRequest():
                respond(self.status())
            case LogLevelRequest():
                respond(PROCESS.answer(request))
            case ActivityRequest():
                respond(self.telemetry.activity(self.identity.server))
            case GetRequest() | ListRequest() | WatchRequest() if self.identity.is_blank:
                respond(self._not_leader())
            case GetRequest() | ListRequest():
                self._reading.request(self.raft, self._links, request, respond)
            case WatchRequest():
                self.watches.request(self.raft, request, respond)
            case (
                PutRequest()
                | DeleteRequest()
                | CompareAndSetRequest()
                | OpenSessionRequest()
                | TransactionRequest()
            ):
                self._writes.request(self.raft, request, respond)
            case ChangeRequest():
                # So that no leader of the past answers from what was true in its time.
                self._once_confirmed(
                    lambda: self.operations.request_change(
                        self.raft, self._cluster(), request, respond
                    ),
                    respond,
                )
            case AbortRequest():
                self._on_abort(request, respond)
            case OperationsRequest():
                self.operations.answer(self.raft, request, respond)
            case TransferRequest():
                self._handovers.request(self.raft, request, respond)
            case BootstrapRequest() | JoinRequest():
                self._on_membership(request, respond)
            case ReadIndexRequest():
                self._reading.confirm(self.raft, lambda: respond(self._read_index()), respond)
            case (
                HistoryRequest() | BeginRollingRequest() | UpdateRollingRequest() | CheckupRequest()
            ):
                self._administration.answer(self.raft, request, respond)
            case BackupRequest() | BackupChunkRequest() | RestoreRequest():
                applied_index = self._state.applied_index
                respond(
                    self._backups.answer(
                        self.raft, self.identity, request, applied_index, self._disk.free_bytes
                    )
                )

    def _read_index(self) -> ReadIndexReply:
        # The state has by now all that was committed when the read began, or more.
        return ReadIndexReply(index=self._state.applied_index)

    def _once_confirmed(self, act: Callable[[], None], respond: Respond) -> None:
        """Act as the leader once a quorum has confirmed it, on all that was committed till now."""
        term = self.raft.current_term

        def run() -> None:
            if isinstance(self.raft.role, Leader) and self.raft.current_term == term:
                act()
            else:
                respond(self._not_leader())

        self._reading.confirm(self.raft, run, respond)

    def _on_abort(self, request: AbortRequest, respond: Respond) -> None:
        """Undo an operation without asking a quorum first: while joint it may be the one lost."""
        if not self._is_ready_leader(respond):
            return

        def act() -> None:
            self.operations.request_abort(self.raft, request, respond)

        if request.operation or self._state.running_operation is not None:
            act()
        else:
            # That nothing runs is for a leader to say that still is one.
            self._once_confirmed(act, respond)

    def _is_ready_leader(self, respond: Respond) -> bool:
        """Whether the applied state is that of the leader's own term; else answer why not."""
        leader = self.raft.leader()
        if leader.has_committed_in_term and self._state.applied_index >= leader.term_start:
            return True
        respond(
            unavailable(
                "the leader has just been elected",
                "it has not committed an entry of its term yet",
            )
        )
        return False

    def _propose(
        self, command: Command, done: Callable[[Result], None], failed: Respond
    ) -> Index | None:
        return self._writes.propose(self.raft, command, done, failed)

    def _fail_writes(self) -> None:
        """Leadership is lost: nobody here can know any more what becomes of the proposals."""
        unknown = ErrorReply(
            code="unknown-outcome",
            message="leadership was lost before the command was committed",
            cause="the next leader may still commit it, or may not",
            hint="ask again with the same session and serial; `raftctl status` shows who leads",
            leader=self.raft.leader_id or "",
            leader_address=self._leader_address(),
        )
        self._writes.lost_leadership(unknown)
        self.operations.lost_leadership(
            unavailable("leadership was lost", "nothing was appended; ask the next leader")
        )

    # --- applying and answering ---

    def _apply(self, entries: Sequence[Entry]) -> None:
        began_ns = self._uptime_ns()
        results = self._state.apply_some(entries)
        if len(results) < len(entries):
            # What they write and read is not seen from their length.
            entries = entries[: len(results)]
            self.raft.log.hand_back(entries[-1].index)
        self.telemetry.applied(entries[-1].index, began_ns, self._uptime_ns())
        if self._trace is not None:
            self._trace.applied(entries)
        if self._state.stamped_index != self._time.seen_index:
            self._time.applied(self.raft, entries)
        self._writes.applied(entries, results)
        for entry in entries:
            # Most followers have it: whoever still needs it has it encoded again.
            entry.encoded = None
            if entry.kind is EntryKind.CONFIGURATION:
                self._on_configuration_applied(entry)
        self._reading.applied()
        if self.watches.waiting:
            self.watches.changed(self.raft)

    def _compare_states(self, envelope: Envelope | None) -> None:
        """Take in a message about states, or do what is due; stop if this server's is wrong.

        What there is to say leaves with the next heartbeat or the answer to it.

        Raises:
            Divergence: a majority has made something else of the log.
        """
        latest = self.raft.configuration
        if latest is None:
            return
        standing = Standing(
            now=self.raft.now,
            term=self.raft.current_term,
            leads=isinstance(self.raft.role, Leader),
            leader=self.raft.leader_id,
            configuration=latest.configuration,
            applied_index=self._state.applied_index,
            hash_at=self._state.hash_at,
            address=self._whereabouts.address(self.raft, self.identity.server) or "HOST:PORT",
        )
        agreement = self._agreement
        if envelope is None:
            messages = agreement.advance(standing)
        else:
            messages = agreement.on_message(envelope, standing)
        self._state_messages += messages
        if agreement.stop is not None:
            self._network.send(messages)
            raise Divergence(agreement.stop)

    def _restore(self, snapshot: Snapshot) -> None:
        """Put a snapshot that was received in force, and hear what it says of removed servers."""
        self._compaction.restore(self.raft, snapshot, self._state)
        self.telemetry.installed(snapshot)
        self._time.restored()
        self.watches.changed(self.raft)
        self._note_that_log_has_begun()
        if self._trace is not None:
            self._trace.restored(self.raft, snapshot)
        for server in sorted(self._addresses):
            if self._state.tombstone(server) is not None:
                self._removed_peers.add(server)
        removed_index = self._state.tombstone(self.identity.server)
        if removed_index is not None:
            self._on_removed(removed_index)
        self._reading.applied()

    def _on_configuration_applied(self, entry: Entry) -> None:
        configuration = decode_configuration(entry.data)
        self._lines.configuration_applied(self.raft, entry.index, configuration)
        self._removed_peers |= configuration.tombstones
        if self.identity.server in configuration.tombstones:
            self._removed_peers.remove(self.identity.server)
            self._on_removed(entry.index)

    # --- leadership ---

    def _not_leader(self) -> ErrorReply:
        return not_leader(self.raft, self.identity, self._leader_address())

    def _leader_address(self) -> str:
        return self._whereabouts.address(self.raft, self.raft.leader_id or "")

    # --- telling ---

    def _peer_views(self) -> dict[ServerId, PeerView]:
        return peer_views(self.raft, self._links, self._settings.tick_ms, self._rates)

    def status(self) -> StatusReply:
        """Return this server's own view, and its view of the others if it leads."""
        # A backup that a blank server holds has the operation and members of another cluster.
        is_blank = self.identity.is_blank
        running = None if is_blank else self._state.running_operation
        reply = status_reply(
            self.raft,
            identity=self.identity,
            state=self._state,
            settings=self._settings,
            measured=self._measure(),
            peers=tuple(self._peer_views().values()),
            links=link_views(self._addresses, self._links),
            operation=self.operations.describe(self.raft, running) if running else None,
            leader_address=self._leader_address(),
            uptime_ms=self._uptime_ns() // 1_000_000,
            lease_remaining_ms=self._reading.lease_remaining_ms(self.raft),
            wall_clock_ms=self._wall_clock_ms(),
            free_bytes=self._disk.free_bytes,
            problems=self._problems(),
            differing=self._agreement.wrong,
        )
        return attrs.evolve(reply, configuration=None) if is_blank else reply

    def _problems(self) -> list[str]:
        """Return what an operator should know about this server, in words."""
        problems = held_problem(self.identity, self._snapshots.latest)
        problems += self._whereabouts.problems(self.raft)
        if self._fencing.problem:
            problems.append(self._fencing.problem)
        if self._disk.problem:
            problems.append(f"the disk is nearly full: {self._disk.problem}")
        if self._compaction.problem:
            problems.append(f"no snapshot could be taken: {self._compaction.problem}")
        if self._compaction.receive_problem:
            problems.append(
                f"no room for the leader's snapshot: {self._compaction.receive_problem}"
            )
        problems += [f"divergence: {finding}" for finding in self._agreement.divergences]
        return problems
