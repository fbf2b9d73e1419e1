"""What a survey says about the cluster: health, tolerance, a row for every server, the document.

Pure functions on the answers of `raftctl.survey`; only `observe` asks. The leader's view counts:
among the answers of our cluster, that of the confirmed leader of the highest term. Without one,
whoever is furthest speaks, and the cluster is unavailable. `raftctl.status_text` prints it.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import Any

import attrs

from raftctl.endpoints import Endpoints
from raftctl.render import (
    configuration_document,
    display_names,
    duration,
    members_of,
    natural_key,
)
from raftctl.survey import Answer, survey
from raftctl.watch import operation_document
from raftd.core.quorum import majority
from raftd.core.types import server_incarnation, server_name
from raftd.protocol import ConfigurationView, OperationView, PeerView, StatusReply

FORMAT = "1.0"
"""Version of the document. Within 1.x fields are only added."""
LAG_ENTRIES_MAX = 1000
"""More entries behind than this is lagging. Under full load a healthy follower is some hundred
behind, the requests that are on their way; ten times that is no longer the network."""
SILENT_MS_MIN = 500.0
"""Where the leader does not state its election timeout: silence that counts as no contact."""
CLONE_UPTIME_MS_MIN = 3_500.0
"""Two answers of one server whose uptimes differ by more come from two processes. A survey asks all
at once and waits for less (`raftctl.survey`), so one process cannot differ so much from itself."""


NO_CONFIGURATION = ConfigurationView(
    index=0, committed=False, joint=False, voters=(), outgoing=(), learners=()
)
"""What the document shows where no server knows a configuration."""


class Health(StrEnum):
    """The state of the cluster in one word."""

    HEALTHY = "healthy"
    """Every member is reachable and caught up, the configuration is not joint, no member has an
    issue."""
    DEGRADED = "degraded"
    """It serves, and something is not as it should be."""
    UNAVAILABLE = "unavailable"
    """No leader is confirmed by a quorum."""


@attrs.frozen
class Issue:
    """What is wrong with one server."""

    kind: str
    """A word for scripts: unreachable, wiped, other-cluster, cloned, blank, removed, not-a-member,
    unconfirmed, no-contact, fenced, lagging, applying, term, leader, configuration, version or
    reported."""
    words: str
    repair: tuple[str, ...] = ()
    """What to do about it, step by step, where that is known. A command is a step of its own, the
    last one."""
    label: str = "repair"
    """What stands before those steps; next, where nothing is broken."""

    def __str__(self) -> str:
        text = f"{self.kind}: {self.words}"
        return f"{text}; {self.label}: {', then '.join(self.repair)}" if self.repair else text


DEAD_ISSUES = frozenset({"unreachable", "wiped", "other-cluster", "no-contact", "fenced"})
"""With one of these a server acknowledges nothing that counts for a quorum."""
MOMENTARY_ISSUES = frozenset({"term", "leader", "configuration", "no-contact"})
"""Normal for a heartbeat: the servers are asked at different moments, and a new leader has yet to
hear from everybody."""


@attrs.frozen(kw_only=True)
class Row:
    """One server: a member of the configuration, or one that the cluster file names."""

    server: str
    """The identity `name/incarnation`: for a member that of the configuration, else its own."""
    name: str
    incarnation: str
    """Of the server that answers; of the configuration if none does; else empty."""
    address: str
    role: str
    """leader, follower, candidate, learner, blank, removed or unknown."""
    vote: str
    """In which voter sets it is: yes (there is one set), old, new, both; learner; or empty."""
    member: bool
    reachable: bool
    alive: bool
    """It answers here, and the leader, if there is one, is in contact with it. Only such servers
    count for the failure tolerance."""
    reply: StatusReply | None
    """Its own numbers; None also for a server of another cluster."""
    peer: PeerView | None
    """How the leader sees it."""
    issues: tuple[Issue, ...]

    @property
    def state(self) -> str:
        """The most important issue in one short word, or ok."""
        kinds = {issue.kind for issue in self.issues}
        return next((word for kind, word in _STATES if kind in kinds), "warn" if kinds else "ok")


_STATES = (
    ("unreachable", "down"),
    ("wiped", "wiped"),
    ("other-cluster", "foreign"),
    ("cloned", "cloned"),
    ("blank", "blank"),
    ("removed", "removed"),
    ("not-a-member", "outside"),
    ("no-contact", "silent"),
    ("fenced", "fenced"),
    ("lagging", "lagging"),
)


@attrs.frozen(kw_only=True)
class Half:
    """One voter set, and who of it is alive."""

    which: str
    """old or new while joint, else empty."""
    voters: tuple[str, ...]
    alive: tuple[str, ...]
    needed: int

    @property
    def spare(self) -> int:
        """How many of the living it can lose; negative if too many are lost already."""
        return len(self.alive) - self.needed

    @property
    def dead(self) -> tuple[str, ...]:
        """The voters that are not alive."""
        return tuple(name for name in self.voters if name not in self.alive)


@attrs.frozen(kw_only=True)
class ClusterView:
    """Everything that status shows. Text and document are made from this and nothing else."""

    name: str
    cluster_id: str
    health: Health
    failure_tolerance: int
    """Further failures of any servers that the cluster survives now."""
    leader: StatusReply | None
    """The confirmed leader's answer."""
    source: StatusReply | None
    """Whose view this is: the leader's, or that of whoever is furthest."""
    configuration: ConfigurationView | None
    halves: tuple[Half, ...]
    rows: tuple[Row, ...]
    outdated: tuple[str, ...]
    """Servers that only the cluster file knows and that do not answer."""
    operation: OperationView | None
    """The membership operation that runs."""

    @property
    def answered(self) -> bool:
        """Whether any server at all has answered."""
        return any(row.reachable for row in self.rows)

    @property
    def momentary(self) -> bool:
        """Whether nothing but differences of the moment keeps the cluster from being healthy."""
        kinds = {issue.kind for row in self.rows if row.member for issue in row.issues}
        return (
            self.health is Health.DEGRADED
            and bool(kinds)
            and kinds <= MOMENTARY_ISSUES
            and self.configuration is not None
            and not self.configuration.joint
        )


def view(answers: Sequence[Answer], cluster_name: str = "") -> ClusterView:
    """Return what `answers` say about the cluster.

    Args:
        answers: one for each address that was asked.
        cluster_name: from the cluster file; used where no server knows a name.
    """
    cluster_id = _our_cluster(answers, cluster_name)
    ours = [
        answer.reply
        for answer in answers
        if answer.reply is not None and cluster_id and answer.reply.cluster_id == cluster_id
    ]
    leader = _confirmed_leader(ours)
    source = leader or max(ours, key=_how_far, default=None)
    configuration = _configuration(source, ours)
    rows = [
        *_member_rows(answers, configuration, leader, cluster_id),
        *_other_rows(answers, configuration, cluster_id),
    ]
    halves = _halves(configuration, rows)
    tolerance = max(0, min((half.spare for half in halves), default=0)) if leader else 0
    operation = source.operation if source is not None else None
    return ClusterView(
        name=(source.cluster_name if source is not None else "") or cluster_name,
        cluster_id=cluster_id,
        health=_health(leader, configuration, rows),
        failure_tolerance=tolerance,
        leader=leader,
        source=source,
        configuration=configuration,
        halves=halves,
        rows=tuple(rows),
        outdated=_outdated(answers, configuration, rows),
        operation=operation if operation is not None and operation.record.running else None,
    )


def _our_cluster(answers: Sequence[Answer], cluster_name: str) -> str:
    """Return the cluster id that most of the listed servers have, else most of the others.

    One with the name that the file gives it comes before all others. A foreign server may lead its
    own cluster in a higher term, so terms decide nothing here.
    """
    named = [
        answer
        for answer in answers
        if answer.reply is not None and answer.reply.cluster_name == cluster_name
    ]
    if cluster_name and named:
        answers = named
    for listed in (True, False):
        count: dict[str, int] = {}
        for answer in answers:
            if answer.listed is listed and answer.reply is not None and answer.reply.cluster_id:
                identifier = answer.reply.cluster_id
                count[identifier] = count.get(identifier, 0) + 1
        if count:
            return min(count, key=lambda identifier: (-count[identifier], identifier))
    return ""


def _confirmed_leader(ours: Iterable[StatusReply]) -> StatusReply | None:
    confirmed = [reply for reply in ours if reply.role == "leader" and reply.leadership_confirmed]
    return max(confirmed, key=lambda reply: reply.term, default=None)


def _how_far(reply: StatusReply) -> tuple[int, int, int, str]:
    index = reply.configuration.index if reply.configuration is not None else 0
    return reply.term, index, reply.commit_index, reply.server


def _configuration(
    source: StatusReply | None, ours: Iterable[StatusReply]
) -> ConfigurationView | None:
    """Return the view's configuration, or the newest that anybody has."""
    if source is not None and source.configuration is not None:
        return source.configuration
    known = [reply.configuration for reply in ours if reply.configuration is not None]
    return max(known, key=lambda configuration: configuration.index, default=None)


def _members(configuration: ConfigurationView | None) -> list[str]:
    """Return every member once, n2 before n10."""
    return sorted(members_of(configuration), key=natural_key) if configuration else []


def _vote(server: str, configuration: ConfigurationView) -> str:
    new = server in configuration.voters
    old = server in configuration.outgoing
    if not configuration.joint:
        return "yes" if new else "learner"
    if new and old:
        return "both"
    if new or old:
        return "new" if new else "old"
    return "learner"


# --- members ---------------------------------------------------------------------------------


def _member_rows(
    answers: Sequence[Answer],
    configuration: ConfigurationView | None,
    leader: StatusReply | None,
    cluster_id: str,
) -> list[Row]:
    if configuration is None:
        return []
    peers = {peer.server: peer for peer in leader.peers} if leader is not None else {}
    return [
        _member_row(server, answers, configuration, leader, peers.get(server), cluster_id)
        for server in _members(configuration)
    ]


def _member_row(
    server: str,
    answers: Sequence[Answer],
    configuration: ConfigurationView,
    leader: StatusReply | None,
    peer: PeerView | None,
    cluster_id: str,
) -> Row:
    address = configuration.addresses.get(server, "")
    own = _own_answer(server, answers, address)
    reply: StatusReply | None = None
    if own is not None:
        reply = own.reply
        assert reply is not None
        issues = [*_clones(own, answers), *_own_issues(reply, leader, configuration)]
        if leader is not None and leader.server != server:
            issues += _leaders_issues(leader, peer, _vote(server, configuration), own)
    else:
        # What the leader has against it follows from who answers, or does not.
        own = _answer_in_place_of(server, answers, configuration, address)
        if own is not None and own.reply is not None:
            issues = [_instead_issue(server, own, leader, cluster_id)]
            if issues[0].kind == "wiped":
                reply = own.reply
        else:
            issues = [Issue("unreachable", _why_unreachable(server, answers, address))]
    return Row(
        server=server,
        name=server_name(server),
        incarnation=server_incarnation(reply.server if reply is not None else server),
        address=address or (own.address if own is not None else ""),
        role=_role(reply),
        vote=_vote(server, configuration),
        member=True,
        reachable=own is not None,
        alive=not any(issue.kind in DEAD_ISSUES for issue in issues),
        reply=reply,
        peer=peer,
        issues=tuple(issues),
    )


def _role(reply: StatusReply | None) -> str:
    return reply.role if reply is not None else "unknown"


def _own_answer(server: str, answers: Sequence[Answer], address: str) -> Answer | None:
    """Return the answer of exactly this incarnation, the one at its own address first."""
    found = [answer for answer in answers if answer.reply and answer.reply.server == server]
    return min(found, key=lambda answer: answer.address != address, default=None)


def _answer_in_place_of(
    server: str, answers: Sequence[Answer], configuration: ConfigurationView, address: str
) -> Answer | None:
    """Return the answer of a server that is not `server` and sits where it should be."""
    members = _members(configuration)
    for answer in answers:
        if answer.reply is None or answer.reply.server in members:
            continue
        if answer.address == address:
            return answer
        if not address and answer.name == server_name(server):
            return answer
    return None


def _instead_issue(
    server: str, instead: Answer, leader: StatusReply | None, cluster_id: str
) -> Issue:
    """Return what it means that another server answers where the member `server` should be."""
    reply = instead.reply
    assert reply is not None
    name, known = server_name(server), server_incarnation(server)
    if reply.cluster_id and reply.cluster_id != cluster_id:
        foreign = _other_cluster(reply)
        own_data = f"start {name} with its own data directory there"
        return attrs.evolve(
            foreign, repair=(f"{own_data}, or raftctl replace {name} ID=HOST:PORT",)
        )
    if server_name(reply.server) != name:
        return Issue("unreachable", f"{server_name(reply.server)} answers at its address")
    if reply.role == "removed":
        return Issue(
            "unreachable",
            f"{reply.server} answers at its address, which was removed for good; the cluster knows "
            f"{known}",
            (f"start {name} with the data directory of {known}",),
        )
    words = f"its disk is new (incarnation {server_incarnation(reply.server)}, the cluster knows "
    words += f"{known}), so it counts for nothing"
    if leader is None:
        return Issue("wiped", f"{words}; it can be replaced as soon as there is a leader")
    return Issue("wiped", words, (_replacement(name, instead.address),))


def _replacement(name: str, address: str) -> str:
    """Return the command that brings in a new incarnation of the member `name`."""
    return f"raftctl replace {name} {shlex.quote(f'{name}={address}')}"


def _clones(own: Answer, answers: Sequence[Answer]) -> list[Issue]:
    """Return an issue for each other process that claims to be the server of `own`."""
    assert own.reply is not None
    issues = []
    for answer in answers:
        reply = answer.reply
        if reply is None or reply.server != own.reply.server or answer.address == own.address:
            continue
        # One process that is reached at two addresses is nothing special.
        if abs(reply.uptime_ms - own.reply.uptime_ms) > CLONE_UPTIME_MS_MIN:
            issues.append(
                Issue(
                    "cloned",
                    f"another process at {answer.address} is {reply.server} too: its data "
                    "directory was copied, and together they may vote twice",
                    (f"stop the copy at {answer.address} and delete its data directory",),
                )
            )
    return issues


def _why_unreachable(server: str, answers: Sequence[Answer], address: str) -> str:
    for answer in answers:
        if answer.address == address:
            if answer.reply is not None:
                # Two incarnations of a name are members, and the other one lives there now.
                return f"{answer.reply.server} answers at its address"
            return answer.failure
    return f"its address {address} was not asked" if address else "its address is not known"


def _own_issues(
    reply: StatusReply, leader: StatusReply | None, configuration: ConfigurationView
) -> list[Issue]:
    """Return what a member's own answer says against it."""
    issues = []
    if not reply.cluster_id:
        issues.append(Issue("blank", "it has not been told yet which cluster it belongs to"))
    elif reply.role == "removed":
        issues.append(Issue("removed", "it believes that it was removed from the cluster"))
    elif leader is None:
        if reply.role == "leader":
            issues.append(Issue("unconfirmed", "it leads, but no quorum answers it"))
    elif reply.server != leader.server:
        issues.extend(_differences(reply, leader, configuration))
    if reply.commit_index - reply.applied_index > LAG_ENTRIES_MAX:
        behind = reply.commit_index - reply.applied_index
        issues.append(Issue("applying", f"{behind} committed entries are not applied yet"))
    if leader is not None and reply.version != leader.version:
        issues.append(
            Issue("version", f"it runs {reply.version}, the leader runs {leader.version}")
        )
    issues.extend(Issue("reported", words) for words in reply.issues)
    return issues


def _differences(
    reply: StatusReply, leader: StatusReply, configuration: ConfigurationView
) -> list[Issue]:
    issues = []
    if reply.term != leader.term:
        issues.append(Issue("term", f"it is in term {reply.term}, the leader in {leader.term}"))
    if reply.leader != leader.server:
        known = f"it follows {server_name(reply.leader)}" if reply.leader else "it knows no leader"
        issues.append(Issue("leader", f"{known}; {server_name(leader.server)} leads"))
    index = reply.configuration.index if reply.configuration is not None else 0
    if index != configuration.index:
        issues.append(
            Issue(
                "configuration",
                f"its configuration is that of index {index}, "
                f"the leader's is that of {configuration.index}",
            )
        )
    return issues


def _leaders_issues(
    leader: StatusReply, peer: PeerView | None, vote: str, own: Answer
) -> list[Issue]:
    """Return what the leader has against a member that answers us with `own`."""
    limit_ms = leader.election_timeout_ms or SILENT_MS_MIN
    why = f" ({peer.problem})" if peer is not None and peer.problem else ""
    if peer is None or peer.last_contact_ms is None:
        return [Issue("no-contact", f"the leader has not heard from it{why}")]
    if peer.fenced:
        return [_fenced(server_name(peer.server), own.address)]
    if peer.last_contact_ms > limit_ms:
        ago = duration(peer.last_contact_ms)
        return [Issue("no-contact", f"the leader last heard from it {ago} ago{why}")]
    if peer.lag_entries > LAG_ENTRIES_MAX:
        return [Issue("lagging", f"{peer.lag_entries} entries behind the leader")]
    if not peer.caught_up and (peer.lag_entries > 0 or vote == "learner"):
        return [Issue("lagging", f"catching up, {peer.lag_entries} entries behind the leader")]
    return []


def _fenced(name: str, address: str) -> Issue:
    return Issue(
        "fenced",
        "it lacks entries that it had acknowledged: its disk went back in time, so it counts for "
        "nothing",
        (f"stop {name}, empty its data directory, start it again", _replacement(name, address)),
    )


# --- the others ------------------------------------------------------------------------------


def _other_rows(
    answers: Sequence[Answer], configuration: ConfigurationView | None, cluster_id: str
) -> list[Row]:
    """Return rows for servers that are no members: blank, foreign, removed, not yet added.

    While no configuration is known, every server that was asked has a row. Afterwards a silent
    server that only the cluster file names is no part of the cluster and has none.
    """
    members = _members(configuration)
    names = {server_name(member) for member in members}
    addresses = set(configuration.addresses.values()) if configuration is not None else set()
    rows = []
    for answer in answers:
        reply = answer.reply
        if answer.address in addresses:
            continue
        if reply is None:
            if configuration is None:
                rows.append(_silent_row(answer))
            continue
        foreign = bool(reply.cluster_id) and reply.cluster_id != cluster_id
        if reply.server not in members and (answer.listed or not foreign):
            rows.append(_stranger_row(answer, reply, cluster_id, configuration, names))
    return sorted(rows, key=lambda row: (natural_key(row.name), row.address))


def _silent_row(answer: Answer) -> Row:
    return Row(
        server="",
        name=answer.name or answer.address,
        incarnation="",
        address=answer.address,
        role="unknown",
        vote="",
        member=False,
        reachable=False,
        alive=False,
        reply=None,
        peer=None,
        issues=(Issue("unreachable", answer.failure),),
    )


def _stranger_row(
    answer: Answer,
    reply: StatusReply,
    cluster_id: str,
    configuration: ConfigurationView | None,
    member_names: Collection[str],
) -> Row:
    foreign = bool(reply.cluster_id) and reply.cluster_id != cluster_id
    name = server_name(reply.server)
    if foreign:
        issue = _other_cluster(reply)
    elif not reply.cluster_id:
        steps: tuple[str, ...] = ()
        if name in member_names:
            steps = (_replacement(name, answer.address),)
        elif configuration is not None:
            steps = (f"raftctl add {shlex.quote(f'{name}={answer.address}')}",)
        issue = Issue("blank", "it belongs to no cluster yet", steps, label="next")
    elif reply.role == "removed":
        issue = Issue(
            "removed",
            "it was removed from the cluster for good and is about to stop; with an empty data "
            "directory it can be added as a new server",
        )
    else:
        index = configuration.index if configuration is not None else 0
        issue = Issue("not-a-member", f"the configuration of index {index} does not list it")
    issues = [issue]
    if answer.name and answer.name != name:
        issues.append(Issue("reported", f"the cluster file expects {answer.name} at this address"))
    issues.extend(Issue("reported", words) for words in reply.issues if not foreign)
    return Row(
        server=reply.server,
        name=name,
        incarnation=server_incarnation(reply.server),
        address=answer.address,
        role="unknown" if foreign else reply.role,
        vote="",
        member=False,
        reachable=True,
        alive=False,
        reply=None if foreign else reply,
        peer=None,
        issues=tuple(issues),
    )


def _other_cluster(reply: StatusReply) -> Issue:
    return Issue(
        "other-cluster",
        f"{reply.server} answers, of cluster {reply.cluster_name or '?'} ({reply.cluster_id})",
    )


def _outdated(
    answers: Sequence[Answer], configuration: ConfigurationView | None, rows: Sequence[Row]
) -> tuple[str, ...]:
    if configuration is None:
        return ()
    shown = {row.name for row in rows} | {row.address for row in rows}
    return tuple(
        answer.name
        for answer in answers
        if answer.listed and answer.reply is None and answer.name and answer.name not in shown
    )


# --- the whole -------------------------------------------------------------------------------


def _halves(configuration: ConfigurationView | None, rows: Sequence[Row]) -> tuple[Half, ...]:
    if configuration is None:
        return ()
    # By identity: of two incarnations of a name, each has its own vote.
    alive = {row.server for row in rows if row.member and row.alive}
    names = display_names(members_of(configuration))

    def half(which: str, servers: Sequence[str]) -> Half:
        ordered = sorted(servers, key=natural_key)
        return Half(
            which=which,
            voters=tuple(names[server] for server in ordered),
            alive=tuple(names[server] for server in ordered if server in alive),
            needed=majority(len(servers)),
        )

    if configuration.joint:
        return half("old", configuration.outgoing), half("new", configuration.voters)
    return (half("", configuration.voters),)


def _health(
    leader: StatusReply | None, configuration: ConfigurationView | None, rows: Sequence[Row]
) -> Health:
    if leader is None or configuration is None:
        return Health.UNAVAILABLE
    members = [row for row in rows if row.member]
    # A server that is no member cannot make the cluster ill: it is shown, and counts for nothing.
    if configuration.joint or any(row.issues or not row.reachable for row in members):
        return Health.DEGRADED
    return Health.HEALTHY


def is_stable(cluster: ClusterView) -> bool:
    """Return whether nothing is under way: a leader, a committed plain configuration, no change."""
    return (
        cluster.leader is not None
        and cluster.configuration is not None
        and cluster.configuration.committed
        and not cluster.configuration.joint
        and cluster.operation is None
    )


# --- the document ----------------------------------------------------------------------------


def document(cluster: ClusterView) -> dict[str, Any]:
    """Return the document of `raftctl status -o json`.

    Values that nobody stated are null; the fields are always there.
    """
    source = cluster.source
    return {
        "format": FORMAT,
        "cluster": {"name": cluster.name or None, "id": cluster.cluster_id or None},
        "health": cluster.health.value,
        "failure_tolerance": cluster.failure_tolerance,
        "leader": server_name(cluster.leader.server) if cluster.leader is not None else None,
        "term": source.term if source is not None else None,
        "commit_index": source.commit_index if source is not None else None,
        "revision": source.revision if source is not None else None,
        "configuration": configuration_document(cluster.configuration or NO_CONFIGURATION),
        "servers": [row_document(row, cluster) for row in cluster.rows],
        "operation": _operation_document(cluster.operation),
    }


def row_document(row: Row, cluster: ClusterView) -> dict[str, Any]:
    """Return one element of `servers`: its own numbers, and three that the leader states."""
    reply, peer = row.reply, row.peer
    leads = (
        cluster.leader is not None and reply is not None and reply.server == cluster.leader.server
    )
    return {
        "id": row.name,
        "address": row.address or None,
        "incarnation": row.incarnation or None,
        "role": row.role,
        "voter": row.vote in ("yes", "old", "new", "both"),
        "reachable": row.reachable,
        "term": reply.term if reply else None,
        "first_index": reply.first_index if reply else None,
        "last_index": reply.last_index if reply else None,
        "match_index": reply.last_index if leads and reply else peer.match_index if peer else None,
        "commit_index": reply.commit_index if reply else None,
        "applied_index": reply.applied_index if reply else None,
        "lag_entries": 0 if leads else peer.lag_entries if peer else None,
        "last_contact_ms": 0.0 if leads else peer.last_contact_ms if peer else None,
        "snapshot_index": reply.snapshot_index if reply else None,
        "version": reply.version if reply else None,
        "issues": [str(issue) for issue in row.issues],
    }


def server_document(row: Row, cluster: ClusterView) -> dict[str, Any]:
    """Return the element of `servers` for `raftctl status ID`: the row and what else is known."""
    reply, peer = row.reply, row.peer
    configuration = reply.configuration if reply else None
    return {
        **row_document(row, cluster),
        "state": row.state,
        "vote": row.vote or None,
        "follows": server_name(reply.leader) or None if reply else None,
        "leadership_confirmed": reply.leadership_confirmed if reply else None,
        "revision": reply.revision if reply else None,
        "configuration_index": configuration.index if configuration else None,
        "uptime_ms": reply.uptime_ms if reply else None,
        "heartbeat_interval_ms": reply.heartbeat_interval_ms if reply else None,
        "election_timeout_ms": reply.election_timeout_ms if reply else None,
        "connected": peer.connected if peer else None,
        "caught_up": peer.caught_up if peer else None,
        "catch_up_rounds": peer.rounds if peer else None,
        "link_problem": peer.problem or None if peer else None,
    }


def signature(cluster: ClusterView) -> tuple[object, ...]:
    """Return all that is news when it changes: everything but counters that grow by themselves."""
    configuration, operation, source = cluster.configuration, cluster.operation, cluster.source
    return (
        cluster.health,
        cluster.failure_tolerance,
        cluster.leader.server if cluster.leader else "",
        source.term if source else 0,
        (configuration.index, configuration.committed) if configuration else None,
        (operation.record.id, operation.record.phase, operation.step) if operation else None,
        tuple(
            (row.server, row.address, row.role, row.vote, {issue.kind for issue in row.issues})
            for row in cluster.rows
        ),
        cluster.outdated,
    )


def _operation_document(operation: OperationView | None) -> dict[str, Any] | None:
    """Return the change that runs as `raftctl operation show` has it, and when it began."""
    if operation is None:
        return None
    phases = operation.record.phases
    return {
        **operation_document(operation),
        "step": operation.step or operation.record.phase,
        "started_ms": phases[0].time_ms if phases else None,
    }


# --- asking --------------------------------------------------------------------------------------

SETTLE_MS_MIN = 100.0
SETTLE_MS_MAX = 500.0
SETTLE_ATTEMPTS = 2
"""How often a look that shows nothing but differences of the moment is repeated."""


def observe(endpoints: Endpoints, timeout_ms: float) -> ClusterView:
    """Ask every server, and return what they say about the cluster.

    The servers are asked at slightly different moments. Where nothing but that seems to keep the
    cluster from being healthy, they are asked again two heartbeats later.

    Args:
        endpoints: where to ask first.
        timeout_ms: for each server; at most 2 seconds are used.
    """
    cluster_name = endpoints.config.cluster if endpoints.config is not None else ""
    cluster = view(survey(endpoints, timeout_ms), cluster_name)
    for _ in range(SETTLE_ATTEMPTS):
        if not cluster.momentary or cluster.leader is None:
            break
        pause_ms = 2 * cluster.leader.heartbeat_interval_ms
        time.sleep(max(SETTLE_MS_MIN, min(pause_ms, SETTLE_MS_MAX)) / 1000)
        cluster = view(survey(endpoints, timeout_ms), cluster_name)
    return cluster
