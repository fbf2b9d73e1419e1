"""Membership operations: the leader's side of every change that an operator asks for.

An operation is a record in the replicated state. Whoever leads drives the running one, looking
only at the record and at the latest configuration of the log, so the next leader takes over in any
phase:

| phase of the record | latest configuration | what the leader does |
|---|---|---|
| none yet | settled | ask the new servers who they are, refuse or append the record |
| joining | untouched | tell the new servers their cluster; append them as learners |
| catching-up | has the learners | wait for the catch-up rounds; append C_old,new |
| joint | C_old,new | nothing: the core appends C_new, or C_old again |
| ended | C_new, C_old, or learners as before | nothing |

Everything here is synchronous and without a clock of its own: `advance` is called in each turn
of the driver.

Source: dissertation sections 4.2.1 (catching up) and 4.3 (joint consensus).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs

from raftd.commands import (
    ABORTED,
    CATCHING_UP,
    DONE,
    FAILED,
    JOINING,
    AbortOperation,
    BeginOperation,
    Command,
    EndOperation,
    Operation,
    Plan,
    Result,
)
from raftd.core.errors import AbortRefused, ChangeInProgress, NotCaughtUp
from raftd.core.leader import Leader
from raftd.core.membership import ChangeStep, ConfigurationAt, ConfigurationKind, MembershipChange
from raftd.core.progress import Progress
from raftd.core.quorum import majority
from raftd.core.raft import Raft
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Index, ServerId, server_incarnation, server_name
from raftd.inputs import Contacted
from raftd.planning import (
    Intent,
    NewServer,
    Refused,
    assess,
    identify,
    make_plan,
    names,
    resolve,
    shortened,
)
from raftd.protocol import (
    AbortReply,
    AbortRequest,
    ChangeReply,
    ChangeRequest,
    ErrorReply,
    JoinRequest,
    MajorityView,
    OperationView,
    PeerView,
    PlanView,
    Reply,
    Request,
    StatusReply,
    StatusRequest,
)
from raftd.storage.state import StateMachine

CONTACT_TIMEOUT_MS = 2_000.0
"""A new server has this long to say who it is: more than any healthy one needs, and well within
the default time-out of raftctl."""
JOIN_ATTEMPTS_MAX = 5
"""Attempts to tell a new server its cluster; each may take `CONTACT_TIMEOUT_MS`."""
CATCH_UP_RESTARTS_MAX = 20
"""How often a server may lose what it had of a snapshot, or of the state that it builds from it:
with each restart of its process, and where the snapshot arrived damaged."""
CATCH_UP_ROUNDS_MAX = 50
"""A server whose rounds never become short writes slower than the clients do."""
VIEWS_BYTES_MAX = 4 * 1024 * 1024
"""Operation records of one reply, by the length of their text, which is more than they take on the
wire: half a frame."""
PREFLIGHTS_MAX = 16
"""Change requests that wait for answers of new servers at once."""

logger = logging.getLogger("raftd.operations")

Respond = Callable[[Reply], None]


class Contacts(Protocol):
    """What this module needs of the network."""

    def contact(
        self, token: object, address: str, requests: Sequence[Request], timeout_ms: float
    ) -> None:
        """Ask a server that need not be a member; one `Contacted` with `token` follows."""


class Propose(Protocol):
    """Append a command; call `done` with its result when it is applied."""

    def __call__(
        self, command: Command, done: Callable[[Result], None], failed: Respond
    ) -> Index | None: ...


@attrs.define
class _Preflight:
    """A change request whose new servers are being asked who they are."""

    request: ChangeRequest
    respond: Respond
    intent: Intent
    answers: dict[str, Contacted]


@attrs.frozen
class _Asked:
    """The token of a question to a new server of a preflight."""

    preflight: int
    name: str


@attrs.frozen
class _Told:
    """The token of a join request of a running operation."""

    operation: str
    server: ServerId
    attempt: int


@attrs.define
class _CatchUp:
    """How far a server has come since this leader waits for it."""

    rounds_before: int
    """Its rounds when that began: a learner to be promoted may have had any number of them."""
    match_index: Index = -1
    snapshot: SnapshotId | None = None
    snapshot_bytes: int = 0
    """Of that snapshot, received and worked in."""
    restarts: int = 0

    def has_moved(self, progress: Progress) -> bool:
        """Return whether it has come further since the last call."""
        moved = progress.match_index > self.match_index
        snapshot_bytes = progress.received_bytes + progress.installed_bytes
        if progress.snapshot == self.snapshot is not None:
            moved = moved or snapshot_bytes > self.snapshot_bytes
            self.restarts += snapshot_bytes < self.snapshot_bytes
        self.match_index = max(self.match_index, progress.match_index)
        self.snapshot, self.snapshot_bytes = progress.snapshot, snapshot_bytes
        return moved


@attrs.define
class _Drive:
    """What this leader knows about the running operation beyond the record."""

    operation: str
    joins: dict[ServerId, _Told] = attrs.field(factory=dict)
    """The latest join request of each new server, unless it failed and is to be repeated."""
    join_attempts: dict[ServerId, int] = attrs.field(factory=dict)
    join_tick: dict[ServerId, int] = attrs.field(factory=dict)
    """When the join request may be repeated."""
    joined: set[ServerId] = attrs.field(factory=set)
    join_problem: str = ""
    closing: bool = False
    """The command that ends it has been proposed."""
    catching_up: dict[ServerId, _CatchUp] = attrs.field(factory=dict)
    progress_tick: int = 0
    waiting_for: str = ""


@attrs.frozen(kw_only=True)
class Cluster:
    """The cluster that this leader leads, for those that are to join it."""

    id: str
    name: str


class Operations:
    """Starts, drives, aborts and describes membership operations."""

    def __init__(
        self,
        *,
        state: StateMachine,
        contacts: Contacts,
        propose: Propose,
        wall_clock_ms: Callable[[], int],
        catch_up_ticks: int,
        peers: Callable[[], Mapping[ServerId, PeerView]],
    ) -> None:
        """Make the operations of one server.

        Args:
            catch_up_ticks: A new server that makes no progress for so long is given up.
            peers: The leader's view of the others, with the state of their links.
        """
        self._state = state
        self._contacts = contacts
        self._propose = propose
        self._wall_clock_ms = wall_clock_ms
        self._catch_up_ticks = catch_up_ticks
        self._peers = peers
        self._preflights: dict[int, _Preflight] = {}
        self._preflight_count = 0
        self._drive: _Drive | None = None

    # --- requests ---

    def request_change(
        self, raft: Raft, cluster: Cluster, request: ChangeRequest, respond: Respond
    ) -> None:
        """Begin a membership operation, or refuse it.

        Called only once a quorum has confirmed that this leader still led when the request had
        arrived, and what was committed by then is applied: a refusal states facts. Nothing is
        appended before every new server has said who it is and the quorum is known to be safe.
        """
        known = self._known(request)
        if known is not None:
            respond(known)
            return
        latest = raft.configuration
        assert latest is not None
        try:
            self._refuse_while_busy(raft, latest, request)
            intent = resolve(request, latest)
        except Refused as refusal:
            respond(refusal_reply(refusal))
            return
        if isinstance(intent, str):
            respond(ChangeReply(operation="", nothing_to_do=intent))
            return
        self._preflight_count += 1
        number = self._preflight_count
        self._preflights[number] = _Preflight(request, respond, intent, {})
        for server in intent.new:
            self._contacts.contact(
                _Asked(number, server.name), server.address, (StatusRequest(),), CONTACT_TIMEOUT_MS
            )
        if not intent.new:
            self._conclude(raft, cluster, number)

    def request_abort(self, raft: Raft, request: AbortRequest, respond: Respond) -> None:
        """Ask that an operation be undone. It is replicated, so that any leader goes on with it."""
        known = self._state.session_result(request.session, request.serial)
        if known is not None:
            # Sent again: what runs by now may be another operation than the one that was meant.
            respond(abort_reply(known))
            return
        running = self._state.running_operation
        chosen = request.operation or (running.id if running else "")
        if not chosen:
            respond(
                ErrorReply(
                    code="refused",
                    message="no operation is running",
                    cause="there is nothing to abort",
                    hint="raftctl operation list",
                )
            )
            return
        latest = raft.configuration
        if (
            latest is not None
            and latest.entry.kind is ConfigurationKind.FINAL
            and latest.entry.operation == chosen
            and running is not None
        ):
            respond(
                ErrorReply(
                    code="refused",
                    message=f"{chosen} is past the point of no return",
                    cause=f"C_new is in the log at index {latest.index}; it can only go forward",
                    hint=f"raftctl operation watch {chosen}",
                    operation=chosen,
                )
            )
            return
        # Not only once the request is applied: under the joint quorum it is committed no sooner
        # than C_old,new itself, and C_new follows that at once. But only if it will be executed.
        at_once = (
            latest is not None
            and latest.configuration.is_joint
            and latest.entry.operation == chosen
            and not raft.leader().abort_obstacle()
            and self._would_execute(request)
        )
        body = AbortOperation(
            operation=chosen,
            author=request.author,
            reason=request.reason,
            time_ms=self._wall_clock_ms(),
        )
        index = self._propose(
            Command(body, request.session, request.serial, request.serial),
            # Whatever was applied before it: what is done at once is not refused afterwards.
            lambda result: respond(
                AbortReply(operation=chosen) if at_once else abort_reply(result)
            ),
            respond,
        )
        if index is not None and at_once:
            raft.abort_membership_change(_aborted_by(request.author, request.reason))

    def _would_execute(self, request: AbortRequest) -> bool:
        """Whether the request does something when it is applied; without a session it always does.

        A late copy of an old request must not meet an operation that it was not meant for.
        """
        if not request.session:
            assert request.operation, "without a session an abort names its operation"
            return True
        return self._state.would_execute(request.session, request.serial)

    def _known(self, request: ChangeRequest) -> Reply | None:
        """Return the answer to a request that was carried out already; None for a new one."""
        if request.dry_run:
            return None
        result = self._state.session_result(request.session, request.serial)
        if result is not None:
            return change_reply(result, None)
        running = self._state.running_operation
        if running is not None and (running.session, running.serial) == (
            request.session,
            request.serial,
        ):
            return ChangeReply(operation=running.id)
        return None

    def contacted(self, raft: Raft, cluster: Cluster, contacted: Contacted) -> None:
        """Take in the answer of a server that was asked or told something."""
        if not isinstance(raft.role, Leader):
            # Lost in this very batch: `lost_leadership` answers those who wait.
            return
        token = contacted.token
        if isinstance(token, _Asked):
            preflight = self._preflights.get(token.preflight)
            if preflight is None:
                return
            preflight.answers[token.name] = contacted
            if len(preflight.answers) == len(preflight.intent.new):
                self._conclude(raft, cluster, token.preflight)
        elif isinstance(token, _Told):
            self._joined(raft, token, contacted)

    def lost_leadership(self, failure: ErrorReply) -> None:
        """Answer the requests that wait with `failure`: nothing was appended for them."""
        for preflight in self._preflights.values():
            preflight.respond(failure)
        self._preflights.clear()
        self._drive = None

    # --- driving ---

    def advance(self, raft: Raft, cluster: Cluster) -> None:
        """Take the next step of the running operation, if this server leads and can."""
        leader = raft.role
        operation = self._state.running_operation
        if not isinstance(leader, Leader) or operation is None:
            self._drive = None
            return
        latest = raft.configuration
        assert latest is not None
        if self._state.applied_index < leader.term_start:
            # What an earlier leader did may not have been applied here yet.
            return
        if self._drive is None or self._drive.operation != operation.id:
            logger.info("%s (%s) is in phase %s", operation.id, operation.kind, operation.phase)
            self._drive = _Drive(operation.id, progress_tick=raft.now)
        drive = self._drive
        if latest.configuration.is_joint:
            if operation.abort_requested_by:
                self._abort_joint(raft, operation)
            return
        settled = latest.index <= raft.log.commit_index
        if not settled or latest.index > self._state.configuration_index or drive.closing:
            return
        try:
            if operation.abort_requested_by:
                self._undo(raft, operation, ABORTED, _abort_reason(operation))
            elif operation.phase == JOINING:
                self._join(raft, cluster, operation)
            elif operation.phase == CATCHING_UP:
                self._catch_up(raft, leader, operation)
        except ChangeInProgress:
            # The leader is leaving office: its successor goes on.
            return

    def _join(self, raft: Raft, cluster: Cluster, operation: Operation) -> None:
        """Tell the new servers which cluster they belong to, then append them as learners."""
        drive = self._drive
        assert drive is not None
        plan = operation.plan
        if drive.join_problem:
            self._undo(raft, operation, FAILED, drive.join_problem)
            return
        for server, address in sorted(plan.addresses.items()):
            if server not in drive.joins and raft.now >= drive.join_tick.get(server, 0):
                self._tell(cluster, operation, server, address)
        if drive.joined != plan.addresses.keys():
            return
        raft.change_membership(
            MembershipChange(
                changes=tuple(("learner", server) for server in sorted(plan.addresses))
                if plan.joint
                else plan.changes,
                addresses=plan.addresses,
                operation=operation.id,
                outcome="" if plan.joint else DONE,
                learners_before=frozenset(plan.learners_before),
            )
        )
        drive.progress_tick = raft.now
        logger.info("%s: %s receive the log as learners", operation.id, names(plan.addresses))

    def _tell(self, cluster: Cluster, operation: Operation, server: ServerId, address: str) -> None:
        drive = self._drive
        assert drive is not None
        drive.join_attempts[server] = drive.join_attempts.get(server, 0) + 1
        told = _Told(operation.id, server, drive.join_attempts[server])
        drive.joins[server] = told
        request = JoinRequest(
            cluster_id=cluster.id,
            cluster_name=cluster.name,
            name=server_name(server),
            incarnation=server_incarnation(server),
        )
        self._contacts.contact(told, address, (request,), CONTACT_TIMEOUT_MS)

    def _joined(self, raft: Raft, told: _Told, contacted: Contacted) -> None:
        """Take in what a new server said to its join request; ask again a little later."""
        drive = self._drive
        if drive is None or drive.joins.get(told.server) != told:
            return
        name, reply = server_name(told.server), contacted.reply
        if isinstance(reply, ErrorReply):
            drive.join_problem = f"{name} refused to join: {reply.message}: {reply.cause}"
        elif not contacted.problem:
            drive.joined.add(told.server)
        elif told.attempt >= JOIN_ATTEMPTS_MAX:
            drive.join_problem = f"{name} could not be told to join: {contacted.problem}"
        else:
            del drive.joins[told.server]
            drive.join_tick[told.server] = raft.now + raft.options.election_ticks

    def _catch_up(self, raft: Raft, leader: Leader, operation: Operation) -> None:
        """Append the change once every new voter has caught up (dissertation 4.2.1)."""
        drive = self._drive
        assert drive is not None
        plan = operation.plan
        lagging = [
            server
            for server in plan.voters_after
            if server not in plan.voters_before and not leader.is_caught_up(server)
        ]
        problem = self._stalled(raft, leader, lagging)
        if problem:
            self._undo(raft, operation, FAILED, problem)
            return
        if lagging:
            drive.waiting_for = _waiting_for(leader, lagging)
            return
        try:
            raft.change_membership(
                MembershipChange(
                    changes=plan.changes,
                    addresses=plan.addresses,
                    operation=operation.id,
                    outcome="" if plan.joint else DONE,
                    learners_before=frozenset(plan.learners_before),
                )
            )
        except NotCaughtUp as refusal:
            drive.waiting_for = str(refusal)
            return
        drive.waiting_for = ""
        logger.info("%s: C_old,new appended at index %d", operation.id, raft.log.last_index)

    def _stalled(self, raft: Raft, leader: Leader, lagging: Sequence[ServerId]) -> str:
        """Return in words why the operation cannot go on; empty while there is hope."""
        drive = self._drive
        assert drive is not None
        for server in lagging:
            progress = leader.progress.get(server)
            if progress is None:
                continue
            catch_up = drive.catching_up.setdefault(server, _CatchUp(progress.rounds))
            if catch_up.has_moved(progress):
                drive.progress_tick = raft.now
            if catch_up.restarts > CATCH_UP_RESTARTS_MAX:
                return (
                    f"{server_name(server)} has lost what it had of the snapshot "
                    f"{catch_up.restarts} times; its own log says why"
                )
            rounds = progress.rounds - catch_up.rounds_before
            if rounds >= CATCH_UP_ROUNDS_MAX and not progress.round_was_short:
                return (
                    f"{server_name(server)} does not converge: after {rounds} rounds it "
                    "still receives entries more slowly than clients write them"
                )
        if raft.now - drive.progress_tick < self._catch_up_ticks:
            return ""
        if not lagging:
            return f"no majority of the new configuration is in contact: {drive.waiting_for}"
        peers = self._peers()
        stuck = []
        for server in lagging:
            peer = peers.get(server)
            progress = leader.progress.get(server)
            where = f"{progress.match_index if progress else 0} of {raft.log.last_index} entries"
            where += f" and {_snapshot_words(progress)}" if progress and progress.snapshot else ""
            why = f", {peer.problem}" if peer is not None and peer.problem else ""
            stuck.append(f"{server_name(server)} has {where}{why}")
        return "no progress while catching up: " + "; ".join(stuck)

    def _abort_joint(self, raft: Raft, operation: Operation) -> None:
        try:
            raft.abort_membership_change(_abort_reason(operation))
        except AbortRefused as refusal:
            assert self._drive is not None
            self._drive.waiting_for = str(refusal)

    def _undo(self, raft: Raft, operation: Operation, outcome: str, reason: str) -> None:
        """End an operation whose C_old,new was never appended: the learners are as before."""
        drive = self._drive
        assert drive is not None
        # It may repeat what a stranger has said.
        reason = shortened(reason)
        if operation.configuration_index == 0:
            drive.closing = True
            body = EndOperation(
                operation=operation.id,
                outcome=outcome,
                reason=reason,
                time_ms=self._wall_clock_ms(),
            )
            if self._propose(Command(body), lambda _: None, self._reopen) is not None:
                logger.warning("%s %s: %s", operation.id, outcome, reason)
            return
        latest = raft.configuration
        assert latest is not None
        before = frozenset(operation.plan.learners_before)
        now = latest.configuration.learners
        changes: list[ChangeStep] = [("remove", server) for server in sorted(now - before)]
        changes += [("learner", server) for server in sorted(before - now)]
        raft.change_membership(
            MembershipChange(
                changes=tuple(changes),
                operation=operation.id,
                outcome=outcome,
                reason=reason,
                learners_before=before,
                tombstones=False,
            )
        )
        logger.warning("%s %s: %s", operation.id, outcome, reason)

    def _reopen(self, _: Reply) -> None:
        """The command that ends the operation was not appended: try again."""
        if self._drive is not None:
            self._drive.closing = False

    # --- preflight ---

    def _refuse_while_busy(
        self, raft: Raft, latest: ConfigurationAt, request: ChangeRequest
    ) -> None:
        running = self._state.running_operation
        if running is not None:
            raise Refused(
                "refused",
                f"{running.id} is running",
                f"{running.id} ({running.kind}, by {running.author}) is in phase {running.phase}; "
                "one membership change runs at a time",
                f"raftctl operation watch {running.id}, then repeat the command",
                operation=running.id,
            )
        if latest.configuration.is_joint or latest.index > raft.log.commit_index:
            raise Refused(
                "refused",
                "a configuration is not committed yet",
                f"the configuration at index {latest.index} has to be committed first",
                "raftctl wait --for stable, then repeat the command",
            )
        if request.at_index is not None and request.at_index != latest.index:
            raise Refused(
                "refused",
                f"the configuration has moved since index {request.at_index}",
                f"the latest configuration is at index {latest.index}, not {request.at_index}",
                "raftctl status, then decide again",
            )
        if len(self._preflights) >= PREFLIGHTS_MAX:
            raise Refused(
                "unavailable",
                "too many changes are being checked",
                f"{PREFLIGHTS_MAX} requests wait for answers of new servers",
                "try again in a few seconds",
            )

    def _conclude(self, raft: Raft, cluster: Cluster, number: int) -> None:
        """Decide a change whose new servers have all answered or failed to."""
        preflight = self._preflights.pop(number)
        request, respond = preflight.request, preflight.respond
        known = self._known(request)
        if known is not None:
            # Asked twice: the other one got there while this one waited for the new servers.
            respond(known)
            return
        latest = raft.configuration
        assert latest is not None
        try:
            self._refuse_while_busy(raft, latest, request)
            if latest.index != preflight.intent.configuration_index:
                raise Refused(
                    "refused",
                    "the configuration has moved meanwhile",
                    f"it was {preflight.intent.configuration_index}, it is {latest.index}",
                    "raftctl status, then decide again",
                )
            identities = {
                server.name: self._identify(server, preflight, cluster, latest)
                for server in preflight.intent.new
            }
            plan, _ = make_plan(preflight.intent, identities, latest)
            plan_view = assess(
                plan,
                latest,
                self._reachable(raft, latest) | set(identities.values()),
                commit_index=raft.log.commit_index,
            )
        except Refused as refusal:
            respond(refusal_reply(refusal))
            return
        if request.dry_run:
            respond(ChangeReply(operation="", plan=plan_view))
            return
        self._begin(request, plan, plan_view, respond)

    def _begin(
        self, request: ChangeRequest, plan: Plan, plan_view: PlanView, respond: Respond
    ) -> None:
        body = BeginOperation(
            kind=request.kind,
            author=request.author,
            reason=request.reason,
            time_ms=self._wall_clock_ms(),
            plan=plan,
        )
        self._propose(
            Command(body, request.session, request.serial, request.serial),
            lambda result: respond(change_reply(result, plan_view)),
            respond,
        )

    def _identify(
        self,
        server: NewServer,
        preflight: _Preflight,
        cluster: Cluster,
        latest: ConfigurationAt,
    ) -> ServerId:
        contacted = preflight.answers[server.name]
        answer = contacted.reply if isinstance(contacted.reply, StatusReply) else None
        return identify(
            server,
            answer,
            contacted.problem,
            cluster_id=cluster.id,
            cluster_name=cluster.name,
            members=latest.configuration.members,
            removed_index=self._state.tombstone(answer.server) if answer else None,
        )

    def _reachable(self, raft: Raft, latest: ConfigurationAt) -> set[ServerId]:
        """Return who answers now; a link that has just broken says more than the last contact."""
        leader = raft.leader()
        limit = raft.options.election_ticks
        peers = self._peers()
        reachable = {
            server
            for server in latest.configuration.members & leader.progress.keys()
            if leader.progress[server].in_contact(raft.now, limit) and peers[server].connected
        }
        return reachable | {raft.server}

    # --- describing ---

    def views(self, raft: Raft, operation_id: str) -> tuple[OperationView, ...]:
        """Return the operations of this server's applied state, the newest last.

        The oldest ones are left out where all of them would not fit one reply.
        """
        if operation_id:
            record = self._state.operation(operation_id)
            return (self.describe(raft, record),) if record is not None else ()
        chosen: list[Operation] = []
        size = 0
        for record in reversed(self._state.operations()):
            size += len(repr(record))
            if chosen and size > VIEWS_BYTES_MAX:
                break
            chosen.append(record)
        return tuple(self.describe(raft, record) for record in reversed(chosen))

    def describe(self, raft: Raft, record: Operation) -> OperationView:
        """Return the record, and on the leader what it is doing right now."""
        latest = raft.configuration
        if not record.running:
            return OperationView(record=record, step="ended")
        if latest is None or not isinstance(raft.role, Leader):
            return OperationView(record=record, step=record.phase)
        step, counted = self._step(record, latest, raft)
        old = new = None
        if counted:
            configuration = latest.configuration
            if configuration.is_joint:
                old = self._majority(raft, configuration.outgoing, latest.index)
            new = self._majority(raft, configuration.voters, latest.index)
        peers = self._peers()
        return OperationView(
            record=record,
            step=step,
            index=latest.index if counted else 0,
            old=old,
            new=new,
            peers=tuple(
                peers[server]
                for server in sorted({*record.plan.addresses, *record.plan.voters_after})
                if server in peers and server not in record.plan.voters_before
            ),
            last_index=raft.log.last_index,
            blocked_by=self._drive.waiting_for if self._drive else "",
        )

    def _step(self, record: Operation, latest: ConfigurationAt, raft: Raft) -> tuple[str, bool]:
        """Return the step in a word, and whether the latest configuration belongs to it."""
        mine = latest.entry.operation == record.id
        if mine and latest.configuration.is_joint:
            return ("rolling-back" if record.abort_requested_by else "committing-joint"), True
        if mine and latest.entry.kind is ConfigurationKind.FINAL:
            return "committing-final", True
        if record.abort_requested_by or (mine and latest.entry.outcome not in ("", DONE)):
            return "rolling-back", False
        return record.phase, False

    def _majority(self, raft: Raft, half: frozenset[ServerId], index: Index) -> MajorityView:
        leader = raft.leader()
        acknowledged = [
            server
            for server in sorted(half)
            if (server == raft.server and raft.log.durable_index >= index)
            or (server in leader.progress and leader.progress[server].match_index >= index)
        ]
        return MajorityView(
            servers=tuple(sorted(half)),
            acknowledged=tuple(acknowledged),
            needed=majority(len(half)),
        )


def _waiting_for(leader: Leader, lagging: Sequence[ServerId]) -> str:
    words = [f"{names(lagging)} to catch up"]
    for server in lagging:
        progress = leader.progress.get(server)
        if progress is not None and progress.snapshot is not None:
            words.append(f"{server_name(server)} has {_snapshot_words(progress)}")
    return "; ".join(words)


def _snapshot_words(progress: Progress) -> str:
    """Return how much a server has of the snapshot that it is being sent."""
    assert progress.snapshot is not None
    size_bytes = progress.snapshot.size_bytes
    words = f"{progress.received_bytes:,} of {size_bytes:,} bytes of a snapshot"
    if progress.received_bytes == size_bytes:
        words += f", {progress.installed_bytes:,} of them worked into its state"
    return words


def _abort_reason(operation: Operation) -> str:
    return _aborted_by(operation.abort_requested_by, operation.abort_reason)


def _aborted_by(author: str, reason: str) -> str:
    return shortened(f"aborted by {author or 'unknown'}{f': {reason}' if reason else ''}")


def refusal_reply(refusal: Refused) -> ErrorReply:
    """Return a refusal as a reply."""
    return ErrorReply(
        code=refusal.code,
        message=refusal.message,
        cause=refusal.cause,
        hint=refusal.hint,
        operation=refusal.operation,
    )


def change_reply(result: Result, plan_view: PlanView | None) -> Reply:
    """Return what applying a `BeginOperation` answered as a reply."""
    if not result.code:
        return ChangeReply(operation=result.operation, plan=plan_view)
    if result.code == "session-expired":
        return ErrorReply(
            code="session-expired",
            message="the session has expired",
            cause=result.message,
            hint="raftctl operation list shows whether the change was started",
        )
    return ErrorReply(
        code="refused",
        message="the change was not started",
        cause=result.message,
        hint=f"raftctl operation watch {result.operation}"
        if result.operation
        else "raftctl status, then decide again",
        operation=result.operation,
    )


def abort_reply(result: Result) -> Reply:
    """Return what applying an `AbortOperation` answered as a reply."""
    if not result.code:
        return AbortReply(operation=result.operation)
    return ErrorReply(
        code="session-expired" if result.code == "session-expired" else "refused",
        message="the operation was not aborted",
        cause=result.message,
        hint="raftctl operation list",
        operation=result.operation,
    )
