"""Membership operations: the leader's side of every change that an operator asks for.

An operation is a record in the replicated state. Whoever leads drives the running one, looking
only at the record and at the latest configuration of the log, so the next leader takes over in any
phase:

| phase of the record | latest configuration | what the leader does |
|---|---|---|
| none yet | settled | `raftd.preflight`: ask who is where, refuse or append the record |
| joining | untouched | tell the new servers their cluster; append them as learners |
| catching-up | has the learners | wait for the catch-up rounds; append C_old,new |
| joint | C_old,new | nothing: the core appends C_new, or C_old again |
| ended | C_new, C_old, or learners as before | nothing |

Members that have moved are in the first entry of the operation with their new addresses: its
majorities may need them. These have been verified and stay, also when votes are undone.

Everything here is synchronous and without a clock of its own: `advance` is called in each turn
of the driver.

Source: dissertation sections 4.2.1 (catching up) and 4.3 (joint consensus).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil

import attrs

from raftd.commands import (
    ABORTED,
    CATCHING_UP,
    DONE,
    FAILED,
    JOINING,
    AbortOperation,
    Command,
    EndOperation,
    Operation,
    Result,
)
from raftd.core.errors import AbortRefused, ChangeInProgress, NotCaughtUp
from raftd.core.leader import Leader
from raftd.core.membership import ChangeStep, ConfigurationAt, ConfigurationKind, MembershipChange
from raftd.core.progress import Progress
from raftd.core.raft import Raft
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Index, ServerId, server_incarnation, server_name
from raftd.inputs import Contacted
from raftd.membership_log import (
    change_appended,
    learners_appended,
    operation_begins,
    operation_undone,
)
from raftd.operation_views import OperationViews
from raftd.planning import names
from raftd.preflight import CONTACT_TIMEOUT_MS, Preflights
from raftd.preflight import Cluster as Cluster
from raftd.preflight import Contacts as Contacts
from raftd.preflight import Propose as Propose
from raftd.preflight import Respond as Respond
from raftd.protocol import (
    AbortReply,
    AbortRequest,
    ChangeRequest,
    ErrorReply,
    JoinRequest,
    OperationsReply,
    OperationsRequest,
    OperationView,
    PeerView,
    Reply,
)
from raftd.rollback import (
    REPEAT,
    aborted_by,
    epilogue,
    epilogue_of_lost_half,
    missing,
    undone,
)
from raftd.storage.state import StateMachine
from raftd.surroundings import Settings

JOIN_ATTEMPTS_MAX = 5
"""Attempts to tell a new server its cluster; each may take `CONTACT_TIMEOUT_MS`."""
CATCH_UP_RESTARTS_MAX = 20
"""How often a server may lose what it had of a snapshot, or of the state that it builds from it:
with each restart of its process, and where the snapshot arrived damaged."""
WAIT_MS_MAX = 5_000
"""An answer is held back no longer: whoever asks has to notice that the leader is gone."""
WAITING_MAX = 64
"""Answers that are held back at once; who asks beyond that is answered at once, and asks again."""
CATCH_UP_ROUNDS_MAX = 50
"""A server whose rounds never become short writes slower than the clients do."""


@attrs.frozen
class _Waiting:
    """Somebody who wants to hear of the end of an operation."""

    operation: str
    deadline_tick: int
    respond: Respond


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
    begun_tick: int
    joins: dict[ServerId, _Told] = attrs.field(factory=dict)
    """The latest join request of each new server, unless it failed and is to be repeated."""
    join_attempts: dict[ServerId, int] = attrs.field(factory=dict)
    """Those that have ended; one that this server had no room for is none."""
    join_tick: dict[ServerId, int] = attrs.field(factory=dict)
    """When the join request may be repeated."""
    joined: set[ServerId] = attrs.field(factory=set)
    join_problem: str = ""
    closing: bool = False
    """The command that ends it has been proposed."""
    catching_up: dict[ServerId, _CatchUp] = attrs.field(factory=dict)
    progress_tick: int = 0
    waiting_for: str = ""
    noted_tick: int = -1
    """When the core was last told what to say should it undo the change by itself."""


class Operations:
    """Starts, drives, aborts and describes membership operations."""

    def __init__(
        self,
        *,
        state: StateMachine,
        contacts: Contacts,
        propose: Propose,
        wall_clock_ms: Callable[[], int],
        settings: Settings,
        peers: Callable[[], Mapping[ServerId, PeerView]],
        proposed_features: Callable[[Raft], int],
        want_snapshot: Callable[[Raft], Index],
    ) -> None:
        """Make the operations of one server.

        Args:
            settings: among others, after which time without progress a new server is given up.
            peers: the leader's view of the others, with the state of their links.
            proposed_features: the version whose features the leader has asked to be switched on.
            want_snapshot: returns which entry the newest snapshot should include before new servers
                are fed, and has one taken if it does not.
        """
        self._state = state
        self._contacts = contacts
        self._propose = propose
        self._wall_clock_ms = wall_clock_ms
        self._tick_ms = settings.tick_ms
        self._catch_up_ticks = settings.ticks(settings.catch_up_timeout_ms)
        self._peers = peers
        self._preflights = Preflights(
            state=state,
            contacts=contacts,
            propose=propose,
            wall_clock_ms=wall_clock_ms,
            settings=settings,
            peers=peers,
            proposed_features=proposed_features,
            want_snapshot=want_snapshot,
        )
        self._views = OperationViews(state, peers, settings.tick_ms)
        self._drive: _Drive | None = None
        self._waiting: list[_Waiting] = []

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to be driven or decided, and nobody waits to hear of an end."""
        return self._drive is None and not self._waiting and self._preflights.is_idle

    # --- requests ---

    def request_change(
        self, raft: Raft, cluster: Cluster, request: ChangeRequest, respond: Respond
    ) -> None:
        """Begin a membership operation, or refuse it. See `Preflights.request`."""
        self._preflights.request(raft, cluster, request, respond)

    def change_begins(self, raft: Raft) -> bool:
        """Return whether this leader has appended the record of a change and not applied it yet."""
        return self._preflights.change_begins(raft)

    def request_abort(self, raft: Raft, request: AbortRequest, respond: Respond) -> None:
        """Ask that an operation be undone. It is replicated, so that any leader goes on with it."""
        known = self._state.session_result(request.session, request.serial)
        if known is not None:
            # Sent again: what runs by now may be another operation than the one that was meant.
            respond(abort_reply(known))
            return
        running = self._state.running_operation
        newest = running or self._state.rolling_operation
        chosen = request.operation or (newest.id if newest else "")
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
                    cause=f"C_new (voters {names(latest.configuration.voters)}) is in the log at "
                    f"index {latest.index}; it can only go forward",
                    hint=f"`raftctl operation watch {chosen}`, then change it back if need be",
                    operation=chosen,
                )
            )
            return
        # Not only once the request is applied: under the joint quorum it is committed no sooner
        # than C_old,new itself, and C_new follows that at once. But only if it will be executed.
        # Whoever aborts a rolling operation aborts the step that it is at.
        meant = running.id if running is not None and running.parent == chosen else chosen
        at_once = (
            latest is not None
            and latest.configuration.is_joint
            and running is not None
            and latest.entry.operation == running.id == meant
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
            assert running is not None
            assert latest is not None
            cause = aborted_by(request.author, request.reason)
            raft.abort_membership_change(self._undone_while_joint(raft, running, latest, cause))

    def _undone_while_joint(
        self, raft: Raft, operation: Operation, joint: ConfigurationAt, cause: str
    ) -> str:
        """Return the explanation of a joint change that somebody has undone."""
        lacking = missing(raft, joint, self._tick_ms)
        return cause + (f"; {lacking}" if lacking else "") + epilogue(operation, REPEAT)

    def _would_execute(self, request: AbortRequest) -> bool:
        """Whether the request does something when it is applied; without a session it always does.

        A late copy of an old request must not meet an operation that it was not meant for.
        """
        if not request.session:
            assert request.operation, "without a session an abort names its operation"
            return True
        return self._state.would_execute(request.session, request.serial)

    def contacted(self, raft: Raft, cluster: Cluster, contacted: Contacted) -> None:
        """Take in the answer of a server that was asked or told something."""
        if not isinstance(raft.role, Leader):
            # Lost in this very batch: `lost_leadership` answers those who wait.
            return
        if isinstance(contacted.token, _Told):
            self._joined(raft, contacted.token, contacted)
        else:
            self._preflights.contacted(raft, cluster, contacted)

    def lost_leadership(self, failure: ErrorReply) -> None:
        """Answer the requests that wait with `failure`: nothing was appended for them."""
        self._preflights.lost_leadership(failure)
        self._drive = None
        # Those who wait for an end are answered by the next `advance`.

    # --- driving ---

    def advance(self, raft: Raft, cluster: Cluster) -> None:
        """Take the next step of the running operation, if this server leads and can."""
        if self._waiting:
            self._answer_waiting(raft)
        leader = raft.role
        operation = self._state.running_operation
        if isinstance(leader, Leader):
            self._preflights.advance(raft, cluster)
        if not isinstance(leader, Leader) or operation is None:
            self._drive, raft.rollback_note = None, ""
            return
        latest = raft.configuration
        assert latest is not None
        if self._state.applied_index < leader.term_start:
            # What an earlier leader did may not have been applied here yet.
            return
        if self._drive is None or self._drive.operation != operation.id:
            operation_begins(operation, operation.configuration_index)
            self._drive = _Drive(operation.id, raft.now, progress_tick=raft.now)
        drive = self._drive
        if latest.configuration.is_joint:
            if drive.noted_tick != raft.now:
                drive.noted_tick = raft.now
                raft.rollback_note = epilogue_of_lost_half(raft, operation, latest, self._tick_ms)
            if operation.abort_requested_by:
                self._abort_joint(raft, operation, latest)
            return
        settled = latest.index <= raft.log.commit_index
        if not settled or latest.index > self._state.configuration_index or drive.closing:
            return
        try:
            if operation.abort_requested_by:
                cause = aborted_by(operation.abort_requested_by, operation.abort_reason)
                self._undo(raft, operation, ABORTED, cause, REPEAT)
            elif operation.phase == JOINING:
                self._join(raft, cluster, operation)
            elif operation.phase == CATCHING_UP:
                self._catch_up(raft, leader, operation, latest)
        except ChangeInProgress:
            # The leader is leaving office: its successor goes on.
            return

    def _join(self, raft: Raft, cluster: Cluster, operation: Operation) -> None:
        """Tell the new servers which cluster they belong to, then append them as learners."""
        drive = self._drive
        assert drive is not None
        plan = operation.plan
        if drive.join_problem:
            next_step = "put right what the new server says, then repeat the command"
            self._undo(raft, operation, FAILED, drive.join_problem, next_step)
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
                addresses={**plan.addresses, **plan.moved},
                operation=operation.id,
                outcome="" if plan.joint else DONE,
                learners_before=frozenset(plan.learners_before),
            )
        )
        drive.progress_tick = raft.now
        drive.waiting_for = ""
        learners_appended(operation, raft.log.last_index)

    def _tell(self, cluster: Cluster, operation: Operation, server: ServerId, address: str) -> None:
        drive = self._drive
        assert drive is not None
        told = _Told(operation.id, server, drive.join_attempts.get(server, 0) + 1)
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
        if contacted.tried:
            drive.join_attempts[told.server] = told.attempt
        if isinstance(reply, ErrorReply):
            drive.join_problem = f"{name} refused to join: {reply.message}: {reply.cause}"
        elif not contacted.problem:
            drive.joined.add(told.server)
        elif drive.join_attempts.get(told.server, 0) >= JOIN_ATTEMPTS_MAX:
            drive.join_problem = f"{name} could not be told to join: {contacted.problem}"
        else:
            drive.waiting_for = f"{name} to be told to join: {contacted.problem}"
            del drive.joins[told.server]
            drive.join_tick[told.server] = raft.now + raft.options.election_ticks

    def _catch_up(
        self, raft: Raft, leader: Leader, operation: Operation, latest: ConfigurationAt
    ) -> None:
        """Append the change once every new voter has caught up (dissertation 4.2.1)."""
        drive = self._drive
        assert drive is not None
        plan = operation.plan
        known = latest.entry.addresses
        if plan.joint and any(known.get(server) != at for server, at in plan.moved.items()):
            # Who has moved is dialled there first: the majorities of the change may need it.
            raft.change_membership(
                MembershipChange(
                    changes=(),
                    addresses=plan.moved,
                    operation=operation.id,
                    learners_before=frozenset(plan.learners_before),
                )
            )
            return
        lagging = [
            server
            for server in plan.voters_after
            if server not in plan.voters_before and not leader.is_caught_up(server)
        ]
        problem = self._stalled(raft, leader, lagging)
        if problem:
            next_step = "see why with `raftctl status`, then repeat the command: what the new "
            next_step += "servers have received, they keep"
            self._undo(raft, operation, FAILED, problem, next_step)
            return
        if lagging:
            drive.waiting_for = _waiting_for(leader, lagging)
            return
        try:
            raft.change_membership(
                MembershipChange(
                    changes=plan.changes,
                    addresses={**plan.addresses, **plan.moved},
                    operation=operation.id,
                    outcome="" if plan.joint else DONE,
                    learners_before=frozenset(plan.learners_before),
                )
            )
        except NotCaughtUp as refusal:
            drive.waiting_for = str(refusal)
            return
        drive.waiting_for = ""
        rounds = {
            server: leader.progress[server].rounds - caught_up.rounds_before
            for server, caught_up in drive.catching_up.items()
            if server in leader.progress
        }
        took_ms = (raft.now - drive.begun_tick) * self._tick_ms
        change_appended(raft, operation, took_ms, rounds)

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
        waited_ms = (raft.now - drive.progress_tick) * self._tick_ms
        return (
            f"no progress while catching up: {'; '.join(stuck)}, for {waited_ms / 1000:.1f} s now"
        )

    def _abort_joint(self, raft: Raft, operation: Operation, joint: ConfigurationAt) -> None:
        cause = aborted_by(operation.abort_requested_by, operation.abort_reason)
        try:
            raft.abort_membership_change(self._undone_while_joint(raft, operation, joint, cause))
        except AbortRefused as refusal:
            assert self._drive is not None
            self._drive.waiting_for = str(refusal)

    def _undo(
        self, raft: Raft, operation: Operation, outcome: str, cause: str, next_step: str
    ) -> None:
        """End an operation whose C_old,new was never appended: the learners are as before."""
        drive = self._drive
        assert drive is not None
        touched = operation.configuration_index > 0
        reason = undone(operation, cause, next_step, touched=touched)
        if not touched:
            drive.closing = True
            body = EndOperation(
                operation=operation.id,
                outcome=outcome,
                reason=reason,
                time_ms=self._wall_clock_ms(),
            )
            if self._propose(Command(body), lambda _: None, self._reopen) is not None:
                operation_undone(operation, outcome, reason)
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
        operation_undone(operation, outcome, reason)

    def _reopen(self, _: Reply) -> None:
        """The command that ends the operation was not appended: try again."""
        if self._drive is not None:
            self._drive.closing = False

    # --- describing ---

    def answer(self, raft: Raft, request: OperationsRequest, respond: Respond) -> None:
        """Answer with the operations of this server's applied state, or the one that is named.

        The newest comes last; the oldest are left out where not all would fit one reply. A leader
        answers who wants to wait once the operation has ended, or when the time is over.
        """
        wait_ticks = ceil(min(request.wait_ms, WAIT_MS_MAX) / self._tick_ms)
        waiting = _Waiting(request.operation, raft.now + wait_ticks, respond)
        if self._may_wait(raft, waiting) and len(self._waiting) < WAITING_MAX:
            self._waiting.append(waiting)
        else:
            self._answer(raft, waiting)

    def _may_wait(self, raft: Raft, waiting: _Waiting) -> bool:
        record = self._state.operation(waiting.operation)
        return (
            raft.now < waiting.deadline_tick
            and isinstance(raft.role, Leader)
            and record is not None
            and record.running
        )

    def _answer_waiting(self, raft: Raft) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if self._may_wait(raft, one):
                self._waiting.append(one)
            else:
                self._answer(raft, one)

    def _answer(self, raft: Raft, waiting: _Waiting) -> None:
        views = self._views.views(raft, waiting.operation, self._waiting_for)
        waiting.respond(OperationsReply(operations=views))

    def describe(self, raft: Raft, record: Operation) -> OperationView:
        """Return the record, and on the leader what it is doing right now."""
        return self._views.describe(raft, record, self._waiting_for)

    @property
    def _waiting_for(self) -> str:
        return self._drive.waiting_for if self._drive else ""


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
