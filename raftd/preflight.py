"""Before a membership change begins: who is concerned is asked, then it is refused or recorded.

Nothing is appended before every new server has said who it is, every member that is to be dialled
elsewhere has answered there, and the quorum is known to be safe. So a typo in a port leaves no
trace. Where a cluster file is applied, members that do not answer are asked as well: a server
whose disk was lost must not be taken for the one that it was.

| the request names | asked at | refused unless there answers |
|---|---|---|
| a new server | its address | a server of its name that may come in |
| a member at another address | the new address | that very member, of this cluster |
| a target with a silent member | its address | nobody, or not another disk of its name |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs

from raftd.commands import BeginOperation, Command, Plan, Result
from raftd.core.leader import Leader
from raftd.core.membership import ConfigurationAt
from raftd.core.raft import Raft
from raftd.core.types import Index, ServerId, Term, server_name
from raftd.inputs import Contacted
from raftd.plan_views import Copy, Pace, Situation, assess
from raftd.planning import (
    Intent,
    NewServer,
    Refused,
    all_of,
    identify,
    identify_moved,
    make_plan,
    names,
    refuse_other_disk,
    resolve,
)
from raftd.protocol import (
    ChangeReply,
    ChangeRequest,
    ErrorReply,
    PeerView,
    PlanView,
    Reply,
    Request,
    StatusReply,
    StatusRequest,
)
from raftd.storage.state import StateMachine
from raftd.surroundings import Settings
from raftd.target import difference
from raftd.turns import refuse_out_of_turn

CONTACT_TIMEOUT_MS = 2_000.0
"""A server has this long to say who it is: more than any healthy one needs, and well within the
default time-out of raftctl."""
SNAPSHOT_WAIT_MS = 1_000.0
"""A change waits so long for a snapshot that spares new servers a long log. It is one of a state
that is smaller than the log, and so takes a fraction of that."""
PREFLIGHTS_MAX = 16
"""Change requests that wait for answers of servers at once."""
FEATURES_READDRESS = 3
"""The version whose features include records of members that move."""

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


@attrs.frozen(kw_only=True)
class Cluster:
    """The cluster that this leader leads, for those that are to join it."""

    id: str
    name: str


@attrs.define(kw_only=True)
class _Preflight:
    """A change request whose servers are being asked who they are."""

    request: ChangeRequest
    respond: Respond
    configuration_index: Index
    intent: Intent | str
    """In words where nothing is to be done."""
    silent: dict[ServerId, str]
    """Members that stay and do not answer, with their addresses."""
    answers: dict[str, Contacted] = attrs.field(factory=dict)
    snapshot_index: Index = 0
    """The newest snapshot should include this entry before new servers are fed; 0 for any."""
    deadline_tick: int | None = None
    """Nobody waits for that any longer than until then; None while servers are still asked."""

    @property
    def asked(self) -> dict[str, str]:
        """Return the servers that are asked and their addresses, by name."""
        asked = {server_name(server): address for server, address in self.silent.items()}
        if isinstance(self.intent, Intent):
            asked |= {server.name: server.address for server in self.intent.new}
            asked |= {server.name: server.address for server in self.intent.moved}
        return asked

    def answer(self, name: str) -> tuple[StatusReply | None, str]:
        """Return what the server at the address of `name` said, and why it said nothing."""
        contacted = self.answers[name]
        reply = contacted.reply if isinstance(contacted.reply, StatusReply) else None
        return reply, contacted.problem


@attrs.frozen
class _Asked:
    """The token of a question of a preflight."""

    preflight: int
    name: str


class Preflights:
    """The change requests that are being checked, and the checks."""

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
        """Make the preflights of one server; for the arguments see `Operations`."""
        self._state = state
        self._contacts = contacts
        self._propose = propose
        self._wall_clock_ms = wall_clock_ms
        self._settings = settings
        self._peers = peers
        self._proposed_features = proposed_features
        self._want_snapshot = want_snapshot
        self._begun: tuple[Term, Index] = (0, 0)
        """Where in the log the latest change was begun here."""
        self._running: dict[int, _Preflight] = {}
        self._count = 0

    def request(
        self, raft: Raft, cluster: Cluster, request: ChangeRequest, respond: Respond
    ) -> None:
        """Begin a membership operation, or refuse it.

        Called only once a quorum has confirmed that this leader still led when the request had
        arrived, and what was committed by then is applied: a refusal states facts.
        """
        known = self._known(request)
        if known is not None:
            respond(known)
            return
        latest = raft.configuration
        assert latest is not None
        try:
            self._refuse_while_busy(raft, latest, request)
            intent = self._resolve(request, latest)
        except Refused as refusal:
            respond(refusal_reply(refusal))
            return
        preflight = _Preflight(
            request=request,
            respond=respond,
            configuration_index=latest.index,
            intent=intent,
            silent=self._silent(raft, latest, intent) if request.kind == "apply" else {},
        )
        self._count += 1
        self._running[self._count] = preflight
        asked = preflight.asked
        for name, address in asked.items():
            self._contacts.contact(
                _Asked(self._count, name), address, (StatusRequest(),), CONTACT_TIMEOUT_MS
            )
        if not asked:
            self._conclude(raft, cluster, self._count)

    def contacted(self, raft: Raft, cluster: Cluster, contacted: Contacted) -> bool:
        """Take in an answer; False if no preflight has asked for it."""
        token = contacted.token
        if not isinstance(token, _Asked):
            return False
        preflight = self._running.get(token.preflight)
        if preflight is not None:
            preflight.answers[token.name] = contacted
            if preflight.answers.keys() == preflight.asked.keys():
                self._prepare(raft, preflight)
                self.advance(raft, cluster)
        return True

    @property
    def is_idle(self) -> bool:
        """Whether none of the checked changes waits for anything of this server."""
        return not any(preflight.deadline_tick is not None for preflight in self._running.values())

    def _prepare(self, raft: Raft, preflight: _Preflight) -> None:
        """Have a snapshot taken for servers that are new and answer, if that is worth it."""
        preflight.deadline_tick = raft.now
        if preflight.request.dry_run or not isinstance(preflight.intent, Intent):
            return
        if any(preflight.answer(server.name)[0] for server in preflight.intent.new):
            preflight.snapshot_index = self._want_snapshot(raft)
            preflight.deadline_tick = raft.now + self._settings.ticks(SNAPSHOT_WAIT_MS)

    def advance(self, raft: Raft, cluster: Cluster) -> None:
        """Decide the changes whose servers have answered and for which all is prepared."""
        for number, preflight in sorted(self._running.items()):
            if preflight.deadline_tick is not None and (
                preflight.snapshot_index <= raft.snapshot_index
                or preflight.deadline_tick <= raft.now
            ):
                self._conclude(raft, cluster, number)

    def change_begins(self, raft: Raft) -> bool:
        """Return whether this leader has appended the record of a change and not applied it yet."""
        term, index = self._begun
        return term == raft.current_term and self._state.applied_index < index

    def lost_leadership(self, failure: ErrorReply) -> None:
        """Answer the requests that wait with `failure`: nothing was appended for them."""
        for preflight in self._running.values():
            preflight.respond(failure)
        self._running.clear()

    # --- the request alone ---

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

    def _refuse_while_busy(
        self, raft: Raft, latest: ConfigurationAt, request: ChangeRequest
    ) -> None:
        running = self._state.running_operation
        if running is not None:
            raise Refused(
                "refused",
                f"{running.id} is running",
                f"{running.id} ({running.kind}, by {running.author}) is in phase {running.phase}, "
                f"for {self._phase_seconds(raft, running.phases[-1].time_ms)} now; "
                "one membership change runs at a time",
                f"`raftctl operation watch {running.id}`, then repeat the command",
                operation=running.id,
            )
        refuse_out_of_turn(self._state.rolling_operation, request.parent)
        if latest.configuration.is_joint or latest.index > raft.log.commit_index:
            raise Refused(
                "refused",
                "a configuration is not committed yet",
                f"the configuration at index {latest.index} has to be committed first",
                "`raftctl wait --for stable`, then repeat the command",
            )
        if request.at_index is not None and request.at_index != latest.index:
            raise Refused(
                "refused",
                f"the configuration has moved since index {request.at_index}",
                f"the latest configuration is at index {latest.index}, not {request.at_index}",
                "`raftctl status`, then decide again",
            )
        if len(self._running) >= PREFLIGHTS_MAX:
            raise Refused(
                "unavailable",
                "too many changes are being checked",
                f"{PREFLIGHTS_MAX} requests wait for answers of new servers",
                "try again in a few seconds; `raftctl operation list` shows what runs",
            )

    def _phase_seconds(self, raft: Raft, began_ms: int) -> str:
        # By two wall clocks, if another leader noted when it began.
        return f"{max(0, raft.wall_clock_ms - began_ms) / 1000:.1f} s"

    def _resolve(self, request: ChangeRequest, latest: ConfigurationAt) -> Intent | str:
        changes = request.changes
        if request.kind == "apply":
            changes = difference(request.target, latest)
            if not changes:
                voters, learners = latest.configuration.voters, latest.configuration.learners
                return (
                    f"the cluster is as asked: voters {names(voters)}, learners {names(learners)} "
                    f"(configuration {latest.index})"
                )
        intent = resolve(request.kind, changes, latest)
        if isinstance(intent, Intent) and intent.moved:
            self._refuse_early_readdress([server.name for server in intent.moved])
        return intent

    def _refuse_early_readdress(self, moved: Sequence[str]) -> None:
        """Refuse what older servers would make another record of."""
        features = self._state.features
        if features < FEATURES_READDRESS:
            raise Refused(
                "refused",
                f"{', '.join(moved)} cannot be readdressed yet",
                f"that needs the features of version {FEATURES_READDRESS}; "
                f"{f'those of version {features}' if features else 'none'} are switched on, which "
                "happens by itself once every member speaks the version and is connected",
                "`raftctl status -o wide` shows the versions; upgrade the older servers first",
            )

    def _silent(
        self, raft: Raft, latest: ConfigurationAt, intent: Intent | str
    ) -> dict[ServerId, str]:
        """Return the members that stay as they are and do not answer, with their addresses."""
        silent = latest.configuration.members - self._reachable(raft, latest)
        if isinstance(intent, Intent):
            silent -= {server.server for server in intent.moved}
            silent -= {server for role, server in intent.steps if role == "remove"}
        addresses = latest.entry.addresses
        return {server: addresses[server] for server in sorted(silent & addresses.keys())}

    # --- with the answers ---

    def _conclude(self, raft: Raft, cluster: Cluster, number: int) -> None:
        """Decide a change whose servers have all answered or failed to."""
        preflight = self._running.pop(number)
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
            if latest.index != preflight.configuration_index:
                raise Refused(
                    "refused",
                    "the configuration has moved meanwhile",
                    f"it was {preflight.configuration_index}, it is {latest.index}",
                    "`raftctl status`, then decide again",
                )
            self._refuse_untried(preflight)
            for server, address in preflight.silent.items():
                refuse_other_disk(server, address, preflight.answer(server_name(server))[0])
            if isinstance(preflight.intent, str):
                respond(ChangeReply(operation="", nothing_to_do=_nothing_to_do(preflight)))
                return
            plan = self._plan(raft, preflight, preflight.intent, cluster, latest)
            plan_view = assess(plan, latest, self._situation(raft, latest, preflight, plan))
        except Refused as refusal:
            respond(refusal_reply(refusal))
            return
        if request.dry_run:
            respond(ChangeReply(operation="", plan=plan_view))
            return
        self._begin(raft, request, plan, plan_view, respond)

    def _refuse_untried(self, preflight: _Preflight) -> None:
        """Refuse to decide without having asked: that says nothing of the servers."""
        for name, contacted in sorted(preflight.answers.items()):
            if not contacted.tried:
                raise Refused(
                    "unavailable",
                    f"the leader is too busy to ask {name} who it is",
                    contacted.problem,
                    "try again in a few seconds; `raftctl operation list` shows what runs",
                )

    def _plan(
        self,
        raft: Raft,
        preflight: _Preflight,
        intent: Intent,
        cluster: Cluster,
        latest: ConfigurationAt,
    ) -> Plan:
        identities: dict[str, ServerId] = {}
        refusals: list[Refused] = []
        for server in intent.new:
            try:
                identities[server.name] = self._identify(raft, server, preflight, cluster, latest)
            except Refused as refusal:
                refusals.append(refusal)
        for moved in intent.moved:
            try:
                identify_moved(moved, *preflight.answer(moved.name), cluster_id=cluster.id)
            except Refused as refusal:
                refusals.append(refusal)
        if refusals:
            # Who starts one server and repeats the command should not hear of the next one then.
            raise all_of(refusals)
        plan, _ = make_plan(intent, identities, latest)
        return plan

    def _identify(
        self,
        raft: Raft,
        server: NewServer,
        preflight: _Preflight,
        cluster: Cluster,
        latest: ConfigurationAt,
    ) -> ServerId:
        answer, problem = preflight.answer(server.name)
        return identify(
            server,
            answer,
            problem,
            cluster_id=cluster.id,
            cluster_name=cluster.name,
            members=latest.configuration.members,
            removed_index=self._state.tombstone(answer.server) if answer else None,
            # It would meet in the log what is proposed and not applied yet.
            features=max(self._state.features, self._proposed_features(raft)),
        )

    def _situation(
        self, raft: Raft, latest: ConfigurationAt, preflight: _Preflight, plan: Plan
    ) -> Situation:
        answers = [preflight.answer(name)[0] for name in preflight.answers]
        zones = {server_name(raft.server): self._settings.zone}
        zones |= {server_name(answer.server): answer.zone for answer in answers if answer}
        peers = self._peers()
        return Situation(
            commit_index=raft.log.commit_index,
            reachable=frozenset(
                self._reachable(raft, latest) | plan.addresses.keys() | plan.moved.keys()
            ),
            problems={server: view.problem for server, view in peers.items() if view.problem},
            zones={**zones, **preflight.request.zones},
            copies=_copies(raft, plan, {a.server: a.last_index for a in answers if a}, peers),
            pace=Pace(
                heartbeat_interval_ms=self._settings.heartbeat_interval_ms,
                catch_up_bytes_per_second=self._settings.catch_up_bytes_per_second,
            ),
        )

    def _begin(
        self, raft: Raft, request: ChangeRequest, plan: Plan, plan_view: PlanView, respond: Respond
    ) -> None:
        body = BeginOperation(
            kind=request.kind,
            author=request.author,
            reason=request.reason,
            time_ms=self._wall_clock_ms(),
            plan=plan,
            parent=request.parent,
        )
        index = self._propose(
            Command(body, request.session, request.serial, request.serial),
            lambda result: respond(change_reply(result, plan_view)),
            respond,
        )
        if index is not None:
            self._begun = (raft.current_term, index)

    def _reachable(self, raft: Raft, latest: ConfigurationAt) -> set[ServerId]:
        """Return who answers now; a link that has just broken says more than the last contact."""
        leader = raft.role
        assert isinstance(leader, Leader)
        limit = raft.options.election_ticks
        peers = self._peers()
        reachable = {
            server
            for server in latest.configuration.members & leader.progress.keys()
            if leader.progress[server].in_contact(raft.now, limit) and peers[server].connected
        }
        return reachable | {raft.server}


def _nothing_to_do(preflight: _Preflight) -> str:
    assert isinstance(preflight.intent, str)
    silent = preflight.silent.keys()
    who = f"; {names(silent)} {'does' if len(silent) == 1 else 'do'} not answer" if silent else ""
    return preflight.intent + who


def _copies(
    raft: Raft,
    plan: Plan,
    last_indexes: Mapping[ServerId, Index],
    peers: Mapping[ServerId, PeerView],
) -> dict[ServerId, Copy]:
    """Return what each server still lacks that the plan brings in or promotes."""
    log, snapshot = raft.log, raft.snapshot
    copies = {}
    for server in plan.addresses:
        has_index = last_indexes.get(server, 0)
        if has_index >= log.base_index:
            copies[server] = Copy(log_bytes=log.bytes_between(has_index, log.last_index))
        else:
            assert snapshot is not None, "compacted without a snapshot"
            included = snapshot.id.last_included_index
            copies[server] = Copy(
                snapshot_bytes=snapshot.id.size_bytes,
                log_bytes=log.bytes_between(included, log.last_index),
            )
    for server in ({*plan.voters_after} - {*plan.voters_before}) & peers.keys():
        if server not in copies:
            peer = peers[server]
            copies[server] = Copy(
                snapshot_bytes=peer.snapshot_bytes - peer.snapshot_received_bytes,
                log_bytes=peer.lag_bytes,
            )
    return copies


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
            hint="`raftctl operation list` shows whether the change was started",
        )
    return ErrorReply(
        code="refused",
        message="the change was not started",
        cause=result.message,
        hint=f"`raftctl operation watch {result.operation}`"
        if result.operation
        else "`raftctl status`, then decide again",
        operation=result.operation,
    )
