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
    2 append hard state and entries: one write, one sync
    3 tell the core that they are durable
    4 send the rest
    5 apply what is committed in one transaction, answer writes and reads
```

Source: design of etcd's raft example driver; dissertation 10.2.1 for step 1.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

import attrs

from raftd.commands import (
    Command,
    CommandBody,
    CompareAndSet,
    Delete,
    OpenSession,
    Put,
    Result,
    encode_command,
)
from raftd.core.errors import NotLeader, ProposalDropped, TransferRefused
from raftd.core.leader import Leader
from raftd.core.log import RaftLog
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    decode_configuration,
    encode_configuration,
)
from raftd.core.raft import Raft
from raftd.core.ready import ReadAnswer, Ready
from raftd.core.types import (
    Entry,
    EntryKind,
    HardState,
    Index,
    ServerId,
    Term,
    server_name,
)
from raftd.inputs import Contacted, Input, LinkChanged, PeerRefused, Received, Requested
from raftd.operations import Cluster, Operations
from raftd.protocol import (
    PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
    AbortRequest,
    BootstrapReply,
    BootstrapRequest,
    ChangeRequest,
    CompareAndSetRequest,
    DeleteRequest,
    DoneReply,
    ErrorReply,
    GetRequest,
    Hello,
    JoinRequest,
    ListRequest,
    OpenSessionRequest,
    OperationsReply,
    OperationsRequest,
    PeerView,
    PutRequest,
    Refusal,
    Reply,
    Request,
    StatusReply,
    StatusRequest,
    TransferReply,
    TransferRequest,
    Welcome,
)
from raftd.records import RECORD_BODY_BYTES_MAX
from raftd.replies import (
    bad_request,
    invalid,
    not_blank,
    read_reply,
    transfer_failed,
    unavailable,
    write_reply,
    wrong_incarnation,
)
from raftd.storage.files import StorageFault
from raftd.storage.identity import Identity
from raftd.storage.state import StateMachine
from raftd.surroundings import Identities, Log, Network, Settings
from raftd.trace import Trace
from raftd.views import member_address, peer_views, status_reply

EXIT_REMOVED = 70
"""Exit code of a server that was removed from its cluster for good."""
LINGER_ELECTION_TIMEOUTS = 2
"""A removed server answers for so long: the first is for the election of a leader that it can name
if it was the leader itself, the second for clients to ask."""
LINGER_MS_MAX = 5_000.0
"""But no longer than this, however long elections take: it has to end within 10 seconds."""
COMMAND_BYTES_MAX = RECORD_BODY_BYTES_MAX - 1024
"""Of an encoded command: what the record of its entry holds, with room for the entry's own head."""

logger = logging.getLogger("raftd.node")

Respond = Callable[[Reply], None]
WriteRequest: TypeAlias = PutRequest | DeleteRequest | CompareAndSetRequest


@attrs.frozen
class Stop:
    """The node asks its process to end."""

    exit_code: int
    message: str


@attrs.frozen
class _Read:
    """What waits until a quorum has confirmed that we still lead, and for the state machine."""

    run: Callable[[], None]
    """Answers, or begins what was asked, from a state that has all that was committed before."""
    failed: Respond


@attrs.frozen
class _Write:
    """A proposal that waits to be applied."""

    index: Index
    term: Term
    done: Callable[[Result], None]
    failed: Respond


@attrs.define
class _Handover:
    """A transfer of leadership that somebody waits for."""

    target: ServerId
    anybody: bool
    """Nobody was named: whoever leads afterwards is right."""
    respond: Respond
    deadline_tick: int


def founding_entry(identity: Identity) -> Entry:
    """Return entry 1 of the cluster that `identity` founded: a configuration of itself alone."""
    configuration = ConfigurationEntry(
        configuration=Configuration(voters=(identity.server,)),
        addresses={identity.server: identity.bootstrap_address},
        kind=ConfigurationKind.BOOTSTRAP,
        leader=identity.server,
        time_ms=identity.bootstrap_time_ms,
    )
    return Entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(configuration))


class Node:
    """One server: the core, its disk, its state machine, and those who wait for an answer."""

    def __init__(
        self,
        *,
        identities: Identities,
        log: Log,
        hard_state: HardState,
        entries: Sequence[Entry],
        state: StateMachine,
        network: Network,
        settings: Settings,
        random: Random,
        wall_clock_ms: Callable[[], int],
        uptime_ms: Callable[[], int],
        mint_cluster_id: Callable[[], str],
        trace: Trace | None = None,
    ) -> None:
        """Start from what recovery found.

        Args:
            identities: who this server is.
            log: to be appended to.
            hard_state, entries: what `log` holds already.
            state: empty, or at some applied index at or below the last entry.
            network: must not call back before `__init__` has returned.
            random: for election time-outs.
            wall_clock_ms: milliseconds since 1970, for people only.
            uptime_ms: milliseconds since the process started.
            mint_cluster_id: returns an id that was never used.
            trace: told of everything that happens, if there is one; whoever ends the process
                tells it so.

        Raises:
            StorageFault: the log has lost its entries, or the disk failed; stop the process.
        """
        if identities.identity.log_begun and not entries:
            raise StorageFault(
                f"the log of {identities.identity.server} is empty, although it has had entries. "
                "Without them the server does not know what it voted for and acknowledged, so it "
                "does not start; start one with an empty data directory and bring it in with "
                "`raftctl replace`"
            )
        self._identities = identities
        self._log = log
        self._state = state
        self._network = network
        self._settings = settings
        self._random = random
        self._wall_clock_ms = wall_clock_ms
        self._uptime_ms = uptime_ms
        self._mint_cluster_id = mint_cluster_id
        self._trace = trace
        self._writes: deque[_Write] = deque()
        self._reads: deque[tuple[Index, _Read]] = deque()
        self._handovers: list[_Handover] = []
        self._links: dict[ServerId, LinkChanged] = {}
        self._addresses: dict[ServerId, str] = {}
        self._removed_peers: set[ServerId] = set()
        """Those that are gone for good and may not have been told on their connection to us."""
        self._draining = False
        self._stop: Stop | None = None
        self._stop_tick = 0
        self._reported: tuple[str, Term, ServerId | None] = ("", 0, None)
        self.raft = self._make_raft(hard_state, entries)
        if trace is not None:
            trace.started(self.raft)
        self.operations = Operations(
            state=state,
            contacts=network,
            propose=self._propose,
            wall_clock_ms=wall_clock_ms,
            catch_up_ticks=settings.ticks(settings.catch_up_timeout_ms),
            peers=self._peer_views,
        )
        if self.identity.bootstrap_address and not entries:
            # The process ended between the identity and the first entry: `init` goes on here.
            self._found()
        elif entries:
            # The process ended between the first entry and its note.
            self._note_that_log_has_begun()
        self._follow_members()

    # --- the loop ---

    def turn(self, inputs: Sequence[Input], *, tick: bool) -> None:
        """Take in a batch of inputs and do everything that follows from it.

        Args:
            inputs: in their order of arrival.
            tick: whether a tick is due. It is looked at last: what has waited in our own queue
                is not silence of the leader.

        Raises:
            StorageFault: the disk failed; stop the process, and answer nothing any more.
        """
        self.raft.wall_clock_ms = self._wall_clock_ms()
        for item in inputs:
            self._take_in(item)
        if tick:
            self.raft.tick()
        if self._draining:
            self._hand_over()
        self._work()
        self._follow_members()
        self._close_removed_peers()
        self._settle_handovers()
        self._report()
        if self._trace is not None:
            self._trace.turned(self.raft)

    @property
    def stop(self) -> Stop | None:
        """Why the process has to end now, once it has to."""
        if self._stop is None or self.raft.now < self._stop_tick:
            return None
        if isinstance(self.raft.role, Leader):
            return None
        return self._stop

    def drain(self) -> None:
        """Hand leadership over from the next turn on. Ask `is_drained` after turns."""
        self._draining = True

    def _hand_over(self) -> None:
        """Start a transfer, also again after one that a membership change has cancelled."""
        leader = self.raft.role
        if isinstance(leader, Leader) and leader.transfer_target is None:
            target = self._best_target(leader)
            if target is not None:
                with contextlib.suppress(TransferRefused):
                    self.raft.transfer_leadership(target)

    @property
    def is_drained(self) -> bool:
        """Whether this server can stop without anybody waiting for an election because of it."""
        leader = self.raft.role
        return not isinstance(leader, Leader) or self._best_target(leader) is None

    @property
    def identity(self) -> Identity:
        """Who this server is."""
        return self._identities.identity

    def _work(self) -> None:
        while True:
            self.operations.advance(self.raft, self._cluster())
            ready = self.raft.take_ready()
            if ready is None:
                return
            self._handle(ready)

    def _handle(self, ready: Ready) -> None:
        """Do what the core asks for, in the order that keeps its promises across a crash."""
        # 1: the followers' disks work at the same time as ours.
        self._network.send(ready.early_messages)
        # 2: term, vote and entries, in one sync.
        if ready.hard_state is not None or ready.entries:
            self._log.append(ready.hard_state, ready.entries)
            if ready.entries:
                self._note_that_log_has_begun()
        if self._trace is not None:
            self._trace.persisted(self.raft, ready.hard_state, ready.entries)
        # 3: only now our own vote and our own match count.
        self.raft.persisted(ready)
        # 4: votes and acknowledgements speak of what is durable.
        self._network.send(ready.messages)
        # 5
        if ready.lost_leadership:
            self._fail_writes()
        if ready.committed:
            self._apply(ready.committed)
        for answer in ready.reads:
            self._on_read_answer(answer)

    def _take_in(self, item: Input) -> None:
        match item:
            case Received(envelope):
                self.raft.step(envelope)
            case Requested(request, respond):
                self._on_request(request, respond)
            case LinkChanged():
                self._links[item.server] = item
                if not item.connected:
                    self.raft.report_unreachable(item.server)
            case PeerRefused(server, refusal):
                self._on_peer_refused(server, refusal)
            case Contacted():
                self.operations.contacted(self.raft, self._cluster(), item)

    # --- connections ---

    def admit(self, hello: Hello) -> Welcome | Refusal:
        """Decide about an inbound connection.

        Cluster, addressee and version have to be right; whether the sender is a member is not
        asked, since a vote of a server that does not know its configuration yet may be needed.
        Only a server that was removed for good is told so.

        Source: dissertation 4.2.2 and 4.2.3.
        """
        identity = self.identity

        def refuse(code: str, message: str, removed_index: Index = 0) -> Refusal:
            return Refusal(
                code=code,
                message=message,
                server=identity.server,
                cluster_id=identity.cluster_id,
                removed_index=removed_index,
            )

        version = min(hello.version_max, PROTOCOL_VERSION_MAX)
        if version < max(hello.version_min, PROTOCOL_VERSION_MIN):
            return refuse(
                "version",
                f"this raftd speaks versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}, "
                f"not {hello.version_min} to {hello.version_max}",
            )
        if hello.dest and hello.dest != identity.server:
            return refuse("identity", f"here is {identity.server}, not {hello.dest}")
        if hello.cluster_id and identity.is_blank and hello.role == "peer":
            return refuse("blank", f"{identity.server} belongs to no cluster yet")
        if hello.cluster_id and not identity.is_blank and hello.cluster_id != identity.cluster_id:
            return refuse(
                "cluster", f"this is cluster {identity.cluster_id}, not {hello.cluster_id}"
            )
        if hello.role == "peer":
            if not hello.cluster_id or not hello.dest or not hello.source:
                return refuse("identity", "a peer has to say its cluster, itself and whom it means")
            removed_index = self._state.tombstone(hello.source)
            if removed_index is not None:
                return refuse(
                    "removed",
                    f"{hello.source} was removed at configuration {removed_index}",
                    removed_index,
                )
        return Welcome(
            server=identity.server,
            cluster_id=identity.cluster_id,
            cluster_name=identity.cluster_name,
            version=version,
        )

    def our_hello(self, server: ServerId) -> Hello | None:
        """Return what to say to `server` when we dial it; None while we are blank."""
        identity = self.identity
        if identity.is_blank:
            return None
        return Hello(
            role="peer", cluster_id=identity.cluster_id, source=identity.server, dest=server
        )

    def _on_peer_refused(self, server: ServerId, refusal: Refusal) -> None:
        self._links[server] = LinkChanged(server, False, f"refused: {refusal.message}")
        if refusal.code == "removed" and refusal.cluster_id == self.identity.cluster_id:
            self._on_removed(refusal.removed_index)

    def _follow_members(self) -> None:
        """Keep links to exactly the servers that the core may talk to."""
        addresses = dict(self.raft.addresses())
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

    def _make_raft(self, hard_state: HardState, entries: Sequence[Entry]) -> Raft:
        raft = Raft(
            server=self.identity.server,
            log=RaftLog(entries),
            hard_state=hard_state,
            options=self._settings.options(),
            random=self._random,
        )
        raft.wall_clock_ms = self._wall_clock_ms()
        return raft

    def _cluster(self) -> Cluster:
        return Cluster(id=self.identity.cluster_id, name=self.identity.cluster_name)

    def _found(self) -> None:
        """Append entry 1, from which the log of the new cluster grows, and lead."""
        hard_state, entry = HardState(current_term=1), founding_entry(self.identity)
        self._log.append(hard_state, (entry,))
        self._note_that_log_has_begun()
        self.raft = self._make_raft(hard_state, (entry,))
        if self._trace is not None:
            self._trace.persisted(self.raft, hard_state, (entry,))
        self.raft.campaign()

    def _note_that_log_has_begun(self) -> None:
        """Let no later start take an empty log for a new one; before anything is acknowledged."""
        if not self.identity.log_begun:
            self._identities.publish(attrs.evolve(self.identity, log_begun=True))

    def _on_bootstrap(self, request: BootstrapRequest, respond: Respond) -> None:
        """Found a cluster of this server alone. Repeating it answers the same."""
        identity = self.identity
        if request.incarnation != identity.incarnation:
            respond(wrong_incarnation(identity, request.incarnation))
        elif identity.bootstrap_address and identity.cluster_name == request.cluster_name:
            respond(BootstrapReply(cluster_id=identity.cluster_id))
        elif not identity.is_blank:
            respond(not_blank(identity))
        else:
            founded = attrs.evolve(
                identity,
                cluster_id=self._mint_cluster_id(),
                cluster_name=request.cluster_name,
                bootstrap_address=request.address,
                bootstrap_time_ms=self._wall_clock_ms(),
            )
            self._identities.publish(founded)
            logger.info("founded cluster %s (%s)", founded.cluster_name, founded.cluster_id)
            self._found()
            respond(BootstrapReply(cluster_id=founded.cluster_id))

    def _on_join(self, request: JoinRequest, respond: Respond) -> None:
        """Belong to a cluster from now on; durable before the answer."""
        identity = self.identity
        if (request.name, request.incarnation) != (identity.name, identity.incarnation):
            respond(wrong_incarnation(identity, request.incarnation))
        elif identity.cluster_id == request.cluster_id:
            respond(DoneReply())
        elif not identity.is_blank:
            respond(not_blank(identity))
        else:
            self._identities.publish(
                attrs.evolve(
                    identity, cluster_id=request.cluster_id, cluster_name=request.cluster_name
                )
            )
            logger.info("joined cluster %s (%s)", request.cluster_name, request.cluster_id)
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
        logger.warning("%s", self._stop.message)

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
            respond(unavailable("not now", str(refusal)))

    def _dispatch(self, request: Request, respond: Respond) -> None:
        match request:
            case StatusRequest():
                respond(self.status())
            case GetRequest() | ListRequest():
                self._on_read(request, respond)
            case PutRequest() | DeleteRequest() | CompareAndSetRequest():
                self._on_write(request, respond)
            case OpenSessionRequest():
                self._on_open_session(request, respond)
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
                views = self.operations.views(self.raft, request.operation)
                respond(OperationsReply(operations=views))
            case TransferRequest():
                self._on_transfer(request, respond)
            case BootstrapRequest():
                self._on_bootstrap(request, respond)
            case JoinRequest():
                self._on_join(request, respond)

    def _once_confirmed(self, act: Callable[[], None], respond: Respond) -> None:
        """Act as the leader once a quorum has confirmed it, on all that was committed till now."""
        term = self.raft.current_term

        def run() -> None:
            if isinstance(self.raft.role, Leader) and self.raft.current_term == term:
                act()
            else:
                respond(self._not_leader())

        self.raft.read(_Read(run, respond))

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

    def _on_read(self, request: GetRequest | ListRequest, respond: Respond) -> None:
        if self.identity.is_blank:
            respond(self._not_leader())
        elif request.stale:
            respond(read_reply(self._state, request))
        else:
            self.raft.read(_Read(lambda: respond(read_reply(self._state, request)), respond))

    def _on_write(self, request: WriteRequest, respond: Respond) -> None:
        body: CommandBody
        match request:
            case PutRequest():
                body = Put(request.key, request.value, request.if_absent, request.if_revision)
            case DeleteRequest():
                body = Delete(request.key)
            case CompareAndSetRequest():
                body = CompareAndSet(request.key, request.expected, request.value)
        command = Command(body, request.session, request.serial, request.lowest_unacknowledged)
        self._propose(command, lambda result: respond(write_reply(result)), respond)

    def _on_open_session(self, request: OpenSessionRequest, respond: Respond) -> None:
        command = Command(OpenSession(), request.session)

        def done(result: Result) -> None:
            respond(DoneReply() if not result.code else write_reply(result))

        self._propose(command, done, respond)

    def _propose(
        self, command: Command, done: Callable[[Result], None], failed: Respond
    ) -> Index | None:
        """Append a command; exactly one of `done` and `failed` is called, now or later."""
        encoded = encode_command(command)
        if len(encoded) > COMMAND_BYTES_MAX:
            failed(invalid(f"a command of {len(encoded)} bytes; at most {COMMAND_BYTES_MAX} fit"))
            return None
        try:
            term, index = self.raft.propose(encoded)
        except NotLeader:
            failed(self._not_leader())
            return None
        except ProposalDropped as refusal:
            failed(unavailable("not now", str(refusal)))
            return None
        self._writes.append(_Write(index, term, done, failed))
        return index

    def _fail_writes(self) -> None:
        """Leadership is lost: nobody here can know any more what becomes of the proposals."""
        leader_id = self.raft.leader_id or ""
        unknown = ErrorReply(
            code="unknown-outcome",
            message="leadership was lost before the command was committed",
            cause="the next leader may still commit it, or may not",
            hint="ask again with the same session and serial",
            leader=leader_id,
            leader_address=member_address(self.raft, leader_id),
        )
        while self._writes:
            self._writes.popleft().failed(unknown)
        self.operations.lost_leadership(
            unavailable("leadership was lost", "nothing was appended; ask the next leader")
        )

    # --- applying and answering ---

    def _apply(self, entries: Sequence[Entry]) -> None:
        results = self._state.apply(entries)
        if self._trace is not None:
            self._trace.applied(entries)
        for entry, result in zip(entries, results, strict=True):
            while self._writes and self._writes[0].index <= entry.index:
                write = self._writes.popleft()
                assert (write.index, write.term) == (entry.index, entry.term)
                assert result is not None
                write.done(result)
            if entry.kind is EntryKind.CONFIGURATION:
                self._on_configuration_applied(entry)
        while self._reads and self._reads[0][0] <= self._state.applied_index:
            self._reads.popleft()[1].run()

    def _on_configuration_applied(self, entry: Entry) -> None:
        configuration = decode_configuration(entry.data)
        logger.info(
            "configuration %d (%s) is committed: %s",
            entry.index,
            configuration.kind.value,
            configuration.configuration,
        )
        self._removed_peers |= configuration.tombstones
        if self.identity.server in configuration.tombstones:
            self._removed_peers.remove(self.identity.server)
            self._on_removed(entry.index)

    def _on_read_answer(self, answer: ReadAnswer) -> None:
        read = answer.token
        assert isinstance(read, _Read)
        if answer.read_index is None:
            read.failed(self._not_leader())
        elif answer.read_index <= self._state.applied_index:
            read.run()
        else:
            self._reads.append((answer.read_index, read))

    # --- leadership ---

    def _on_transfer(self, request: TransferRequest, respond: Respond) -> None:
        leader = self.raft.leader()
        latest = self.raft.configuration
        assert latest is not None
        if request.target:
            voters = latest.configuration.voters
            named = [
                server
                for server in latest.configuration.members
                if request.target in (server, server_name(server))
            ]
            # While a server replaces one of its own name, the one that is to stay is meant.
            target = max(named, key=lambda s: (s in voters, s), default=request.target)
        else:
            target = self._best_target(leader) or ""
        if target == self.raft.server:
            respond(TransferReply(leader=target, term=self.raft.current_term))
            return
        try:
            if not target:
                raise TransferRefused("no other voter is in contact")
            self.raft.transfer_leadership(target)
        except TransferRefused as refusal:
            respond(
                ErrorReply(
                    code="refused",
                    message="leadership was not transferred",
                    cause=str(refusal),
                    hint="raftctl status shows the voters and their last contact",
                )
            )
            return
        deadline_tick = self.raft.now + 4 * self.raft.options.election_ticks
        self._handovers.append(_Handover(target, not request.target, respond, deadline_tick))

    def _best_target(self, leader: Leader) -> ServerId | None:
        """Return the voter that is furthest and in contact; None if there is none."""
        latest = self.raft.configuration
        assert latest is not None
        candidates = [
            (progress.match_index, server)
            for server, progress in leader.progress.items()
            if server in latest.configuration.voters
            and progress.in_contact(self.raft.now, 2 * self.raft.options.heartbeat_ticks)
        ]
        return max(candidates)[1] if candidates else None

    def _settle_handovers(self) -> None:
        if not self._handovers:
            return
        leader = self.raft.role
        waiting, self._handovers = self._handovers, []
        for handover in waiting:
            why = ""
            target, leader_id = handover.target, self.raft.leader_id
            if isinstance(leader, Leader):
                if leader.transfer_target is None:
                    why = (
                        f"{server_name(target)} did not take over within an election timeout, or "
                        "a membership change came between"
                    )
            elif leader_id is not None:
                if handover.anybody or leader_id == target:
                    handover.respond(TransferReply(leader=leader_id, term=self.raft.current_term))
                    continue
                why = f"{server_name(leader_id)} won the election and leads now"
            if not why and self.raft.now >= handover.deadline_tick:
                why = f"{self.identity.name} does not know yet who leads now"
            if why:
                handover.respond(transfer_failed(target, why))
            else:
                self._handovers.append(handover)

    def _not_leader(self) -> ErrorReply:
        identity, leader_id = self.identity, self.raft.leader_id
        if identity.is_blank:
            return unavailable(
                f"{identity.name} is blank", "it belongs to no cluster yet: raftctl init, or add"
            )
        if leader_id is None or leader_id == self.raft.server:
            return unavailable("no leader", f"{identity.name} knows no leader at the moment")
        return ErrorReply(
            code="not-leader",
            message=f"{identity.name} is not the leader",
            cause=f"the leader of term {self.raft.current_term} is {server_name(leader_id)}",
            hint="ask the leader",
            leader=leader_id,
            leader_address=member_address(self.raft, leader_id),
        )

    # --- telling ---

    def _peer_views(self) -> dict[ServerId, PeerView]:
        return peer_views(self.raft, self._links, self._settings.tick_ms)

    def status(self) -> StatusReply:
        """Return this server's own view, and its view of the others if it leads."""
        running = self._state.running_operation
        return status_reply(
            self.raft,
            identity=self.identity,
            state=self._state,
            peers=tuple(self._peer_views().values()),
            operation=self.operations.describe(self.raft, running) if running else None,
            version=self._settings.version,
            uptime_ms=self._uptime_ms(),
            heartbeat_interval_ms=self._settings.heartbeat_interval_ms,
            election_timeout_ms=self._settings.election_timeout_ms,
        )

    def _report(self) -> None:
        """Log a change of role or leader, one line each."""
        role = type(self.raft.role).__name__.lower()
        now = (role, self.raft.current_term, self.raft.leader_id)
        if now == self._reported:
            return
        self._reported = now
        if role == "leader":
            logger.info("leads in term %d", self.raft.current_term)
        elif self.raft.leader_id is not None:
            leader = server_name(self.raft.leader_id)
            logger.info("follows %s in term %d", leader, self.raft.current_term)
        elif role == "precandidate":
            logger.info("has not heard of a leader; asks whether it could win")
        elif role == "candidate":
            logger.info("campaigns in term %d", self.raft.current_term)
