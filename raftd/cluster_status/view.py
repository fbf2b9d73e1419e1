"""What a survey says about the cluster: health, tolerance, and a row for every server.

The leader's view counts: among the answers of our cluster, that of the confirmed leader of the
highest term. Without one, whoever is furthest speaks, and the cluster is unavailable.
`raftd.cluster_status.issues` judges single servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum

import attrs

from raftd.cluster_status.answers import Answer
from raftd.cluster_status.issues import (
    DEAD_ISSUES,
    LOST_ISSUES,
    MOMENTARY_ISSUES,
    Issue,
    clones,
    diverged,
    instead_issue,
    leaders_issues,
    moved,
    own_issues,
    stranger_issue,
    warnings,
    why_unreachable,
)
from raftd.cluster_status.members import display_names, members_of
from raftd.cluster_status.words import bare_command, dialling, natural_key
from raftd.core.availability import survived_failures
from raftd.core.quorum import majority
from raftd.core.types import ServerId, server_incarnation, server_name
from raftd.protocol import ConfigurationView, OperationView, PeerView, StatusReply

CLOCKS_FOR_A_MEDIAN = 3
"""With fewer nobody can say which clock is the wrong one: they are compared with the leader's."""


class Health(StrEnum):
    """The state of the cluster in one word."""

    HEALTHY = "healthy"
    """Every member is reachable and caught up, the configuration is not joint, no member has an
    issue."""
    DEGRADED = "degraded"
    """It serves, and something is not as it should be."""
    UNAVAILABLE = "unavailable"
    """No leader is confirmed by a quorum."""


@attrs.frozen(kw_only=True)
class Row:
    """One server: a member of the configuration, or one that the cluster file names."""

    server: ServerId
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
    warnings: tuple[Issue, ...] = ()
    """What will be an issue if nothing is done. They leave the cluster healthy."""
    zone: str = ""
    """As it says itself, else as the cluster file says; empty for none."""
    clock_difference_ms: float | None = None
    """How far its clock is ahead of `ClusterView.clock`; None if that is not known."""

    @property
    def state(self) -> str:
        """The most important issue in one short word, or ok."""
        kinds = {issue.kind for issue in self.issues}
        word = next((word for kind, word in _STATES if kind in kinds), "")
        return word or ("warn" if kinds or self.warnings else "ok")


_STATES = (
    ("diverged", "diverged"),
    ("unreachable", "down"),
    ("wiped", "wiped"),
    ("other-cluster", "foreign"),
    ("cloned", "cloned"),
    ("blank", "blank"),
    ("removed", "removed"),
    ("not-a-member", "outside"),
    ("address", "moved"),
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
    clock: str = ""
    """Whose clock the others are compared with, in words."""
    outdated: tuple[str, ...]
    """Servers that only the cluster file knows and that do not answer."""
    moved: tuple[tuple[str, str, str], ...] = ()
    """Members that the cluster file has elsewhere: the name, its address there, the true one."""
    relocated: tuple[tuple[str, str, str], ...] = ()
    """Those of `moved` that the others, too, reach elsewhere than where the configuration has them:
    it is the configuration that is old."""
    operation: OperationView | None
    """The membership operation that runs."""
    rolling: OperationView | None = None
    """The rolling operation that runs or is paused."""
    command: Callable[[str], str] = attrs.field(default=bare_command, eq=False)
    """Makes a command that dials the same servers of the words after `raftctl`."""

    @property
    def answered(self) -> bool:
        """Whether any server at all has answered."""
        return any(row.reachable for row in self.rows)

    @property
    def members(self) -> tuple[Row, ...]:
        """The rows of the configuration's members."""
        return tuple(row for row in self.rows if row.member)

    @property
    def quorums(self) -> tuple[frozenset[ServerId], ...]:
        """The voter sets by identity: C_old and C_new while joint, else one; none if unknown."""
        if self.configuration is None:
            return ()
        found = (self.configuration.outgoing, self.configuration.voters)
        return tuple(frozenset(half) for half in found if half)

    @property
    def dead(self) -> frozenset[ServerId]:
        """The members that count for no quorum now."""
        return frozenset(row.server for row in self.members if not row.alive)

    @property
    def helpers(self) -> frozenset[ServerId]:
        """The dead members that could count again: those that are not there, or are not heard.

        Where a server runs without what the member had, starting it changes nothing.
        """
        return frozenset(
            row.server
            for row in self.members
            if not row.alive and not any(issue.kind in LOST_ISSUES for issue in row.issues)
        )

    @property
    def zones(self) -> dict[ServerId, str]:
        """The zone of every member that has one."""
        return {row.server: row.zone for row in self.members if row.zone}

    @property
    def names(self) -> dict[ServerId, str]:
        """What to call each member: its name, or the full identity where a name is there twice."""
        return display_names(row.server for row in self.members)

    @property
    def momentary(self) -> bool:
        """Whether nothing but differences of the moment keeps the cluster from being healthy."""
        kinds = {issue.kind for row in self.members for issue in row.issues}
        return (
            self.health is Health.DEGRADED
            and bool(kinds)
            and kinds <= MOMENTARY_ISSUES
            and self.configuration is not None
            and not self.configuration.joint
        )


# --- putting it together -------------------------------------------------------------------------


def view(
    answers: Sequence[Answer],
    cluster_name: str = "",
    zones: Mapping[str, str] | None = None,
    command: Callable[[str], str] = bare_command,
) -> ClusterView:
    """Return what `answers` say about the cluster.

    Args:
        answers: one for each address that was asked.
        cluster_name: from the cluster file; used where no server knows a name.
        zones: from the cluster file, by name; used where a server does not say.
        command: makes the commands of the advice, out of the words after `raftctl`.
    """
    cluster_id = _our_cluster(answers, cluster_name)
    ours = [
        answer.reply
        for answer in answers
        if answer.reply is not None and cluster_id and answer.reply.cluster_id == cluster_id
    ]
    leader = _confirmed_leader(ours)
    source = leader or max(ours, key=_how_far, default=None)
    survey = _Survey(
        answers=answers,
        cluster_id=cluster_id,
        configuration=_configuration(source, ours),
        leader=leader,
        zones=zones or {},
        differing=frozenset(server for reply in ours for server in reply.differing),
        clock=_reference_clock(answers, leader),
    )
    rows = [_as_typed(row, command) for row in (*survey.member_rows(), *survey.other_rows())]
    configuration = survey.configuration
    operation = source.operation if source is not None else None
    found = ClusterView(
        name=(source.cluster_name if source is not None else "") or cluster_name,
        cluster_id=cluster_id,
        health=_health(leader, configuration, rows),
        failure_tolerance=0,
        leader=leader,
        source=source,
        configuration=configuration,
        halves=_halves(configuration, rows),
        rows=tuple(rows),
        clock=survey.clock.name,
        outdated=_outdated(answers, configuration, rows),
        moved=_moved(answers, configuration),
        relocated=_relocated(answers, configuration),
        operation=operation if operation is not None and operation.record.running else None,
        rolling=source.rolling if source is not None else None,
        command=command,
    )
    tolerance = survived_failures(found.quorums, found.dead) if leader is not None else 0
    return attrs.evolve(found, failure_tolerance=max(0, tolerance))


def _as_typed(row: Row, command: Callable[[str], str]) -> Row:
    """Return a row whose repairs dial as this call did."""

    def typed(issue: Issue) -> Issue:
        return attrs.evolve(issue, repair=tuple(dialling(step, command) for step in issue.repair))

    return attrs.evolve(row, issues=tuple(map(typed, row.issues)))


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


def _members(configuration: ConfigurationView | None) -> list[ServerId]:
    """Return every member once, n2 before n10."""
    return sorted(members_of(configuration), key=natural_key) if configuration else []


def vote_in(server: ServerId, configuration: ConfigurationView) -> str:
    """Return in which voter sets a member is: yes, old, new, both or learner."""
    new = server in configuration.voters
    old = server in configuration.outgoing
    if not configuration.joint:
        return "yes" if new else "learner"
    if new and old:
        return "both"
    if new or old:
        return "new" if new else "old"
    return "learner"


@attrs.frozen(kw_only=True)
class _Clock:
    """What the clocks are compared with."""

    name: str
    ahead_ms: float = 0.0
    """Of the clock here."""
    uncertainty_ms: float = 0.0


def _reference_clock(answers: Sequence[Answer], leader: StatusReply | None) -> _Clock:
    stated = sorted(
        (answer for answer in answers if answer.clock_ahead_ms is not None and answer.reply),
        key=lambda answer: (answer.clock_ahead_ms or 0.0, answer.address),
    )
    if len(stated) >= CLOCKS_FOR_A_MEDIAN:
        answer, name = stated[(len(stated) - 1) // 2], "that of the others"
    else:
        leading = [
            answer
            for answer in stated
            if answer.reply is not None and leader is not None
            if answer.reply.server == leader.server
        ]
        if not leading or leader is None:
            return _Clock(name="")
        answer, name = leading[0], f"that of {server_name(leader.server)}"
    return _Clock(
        name=name,
        ahead_ms=answer.clock_ahead_ms or 0.0,
        uncertainty_ms=(answer.round_trip_ms or 0.0) / 2,
    )


# --- rows ----------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Survey:
    """The answers, and what all rows are judged by."""

    answers: Sequence[Answer]
    cluster_id: str
    configuration: ConfigurationView | None
    leader: StatusReply | None
    zones: Mapping[str, str]
    differing: frozenset[ServerId]
    """Whose state a majority found to be wrong."""
    clock: _Clock

    def member_rows(self) -> list[Row]:
        """Return a row for each member of the configuration."""
        if self.configuration is None:
            return []
        peers = {peer.server: peer for peer in self.leader.peers} if self.leader else {}
        return [
            self._member_row(server, self.configuration, peers.get(server))
            for server in _members(self.configuration)
        ]

    def _member_row(
        self, server: ServerId, configuration: ConfigurationView, peer: PeerView | None
    ) -> Row:
        leader, answers = self.leader, self.answers
        address = configuration.addresses.get(server, "")
        vote = vote_in(server, configuration)
        own = _own_answer(server, answers, address)
        reply: StatusReply | None = None
        if own is not None:
            reply = own.reply
            assert reply is not None
            issues = [*clones(own, answers), *moved(own, address, answers, leader, peer)]
            issues += own_issues(reply, leader, configuration)
            if leader is not None and leader.server != server:
                issues += leaders_issues(leader, peer, vote, own)
                if any(issue.kind == "lagging" for issue in issues):
                    # Who is behind has an older configuration, which says nothing more.
                    issues = [issue for issue in issues if issue.kind != "configuration"]
        else:
            # What the leader has against it follows from who answers, or does not.
            own = _answer_in_place_of(server, answers, configuration, address)
            if own is not None and own.reply is not None:
                issues = [instead_issue(server, own, leader, self.cluster_id)]
                if issues[0].kind == "wiped":
                    reply = own.reply
            else:
                issues = [Issue("unreachable", why_unreachable(server, answers, address))]
        if server in self.differing:
            at = address or (own.address if own is not None else "")
            issues.append(diverged(server, at, leader))
        difference_ms, certain_ms = self._clock_difference(own if reply is not None else None)
        return Row(
            server=server,
            name=server_name(server),
            incarnation=server_incarnation(reply.server if reply is not None else server),
            address=address or (own.address if own is not None else ""),
            role=reply.role if reply is not None else "unknown",
            vote=vote,
            member=True,
            reachable=own is not None,
            alive=not any(issue.kind in DEAD_ISSUES for issue in issues),
            reply=reply,
            peer=peer,
            issues=tuple(issues),
            warnings=tuple(warnings(reply, certain_ms, self.clock.name)) if reply else (),
            zone=(reply.zone if reply is not None else "")
            or self.zones.get(server_name(server), ""),
            clock_difference_ms=difference_ms,
        )

    def _clock_difference(self, own: Answer | None) -> tuple[float | None, float | None]:
        """Return how far a clock is ahead, as measured and as much of it as is certain."""
        if own is None or own.clock_ahead_ms is None or not self.clock.name:
            return None, None
        difference_ms = own.clock_ahead_ms - self.clock.ahead_ms
        uncertainty_ms = self.clock.uncertainty_ms + (own.round_trip_ms or 0.0) / 2
        certain_ms = max(0.0, abs(difference_ms) - uncertainty_ms)
        return difference_ms, certain_ms if difference_ms > 0 else -certain_ms

    def other_rows(self) -> list[Row]:
        """Return rows for servers that are no members: blank, foreign, removed, not yet added.

        While no configuration is known, every server that was asked has a row. Afterwards a silent
        server that only the cluster file names is no part of the cluster and has none.
        """
        configuration = self.configuration
        members = _members(configuration)
        addresses = set(configuration.addresses.values()) if configuration is not None else set()
        rows = []
        for answer in self.answers:
            reply = answer.reply
            if answer.address in addresses:
                continue
            if reply is None:
                if configuration is None:
                    rows.append(_silent_row(answer))
                continue
            foreign = bool(reply.cluster_id) and reply.cluster_id != self.cluster_id
            if reply.server not in members and (answer.listed or not foreign):
                rows.append(self._stranger_row(answer, reply))
        return sorted(rows, key=lambda row: (natural_key(row.name), row.address))

    def _stranger_row(self, answer: Answer, reply: StatusReply) -> Row:
        foreign = bool(reply.cluster_id) and reply.cluster_id != self.cluster_id
        name = server_name(reply.server)
        issues = [stranger_issue(answer, reply, self.cluster_id, self.configuration, self.leader)]
        if answer.name and answer.name != name:
            words = f"the cluster file expects {answer.name} at this address"
            issues.append(Issue("reported", words))
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
            zone="" if foreign else reply.zone or self.zones.get(name, ""),
        )


def _own_answer(server: ServerId, answers: Sequence[Answer], address: str) -> Answer | None:
    """Return the answer of exactly this incarnation, the one at its own address first."""
    found = [answer for answer in answers if answer.reply and answer.reply.server == server]
    return min(found, key=lambda answer: answer.address != address, default=None)


def _answer_in_place_of(
    server: ServerId, answers: Sequence[Answer], configuration: ConfigurationView, address: str
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


def _moved(
    answers: Sequence[Answer], configuration: ConfigurationView | None
) -> tuple[tuple[str, str, str], ...]:
    if configuration is None:
        return ()
    true: dict[str, list[str]] = {}
    for server, address in configuration.addresses.items():
        true.setdefault(server_name(server), []).append(address)
    return tuple(
        (answer.name, answer.address, true[answer.name][0])
        for answer in answers
        if answer.listed and answer.address not in true.get(answer.name, [answer.address])
    )


def _relocated(
    answers: Sequence[Answer], configuration: ConfigurationView | None
) -> tuple[tuple[str, str, str], ...]:
    if configuration is None:
        return ()
    found = {answer.address: answer.reply.server for answer in answers if answer.reply is not None}
    # From here another address may lead to a member: only how the others reach it tells.
    elsewhere = {
        link.server
        for answer in answers
        if answer.reply is not None
        for link in answer.reply.links
        if link.connected and link.address != configuration.addresses.get(link.server)
    }
    return tuple(
        (name, listed_address, address)
        for name, listed_address, address in _moved(answers, configuration)
        for server in [found.get(listed_address, "")]
        if server in elsewhere and configuration.addresses[server] == address
        if found.get(address) != server
    )


# --- the whole -----------------------------------------------------------------------------------


def _halves(configuration: ConfigurationView | None, rows: Sequence[Row]) -> tuple[Half, ...]:
    if configuration is None:
        return ()
    # By identity: of two incarnations of a name, each has its own vote.
    alive = {row.server for row in rows if row.member and row.alive}
    names = display_names(members_of(configuration))
    if configuration.joint:
        return (
            half_of("old", configuration.outgoing, alive, names),
            half_of("new", configuration.voters, alive, names),
        )
    return (half_of("", configuration.voters, alive, names),)


def half_of(
    which: str,
    servers: Iterable[ServerId],
    alive: Iterable[ServerId],
    names: Mapping[ServerId, str],
) -> Half:
    """Return one voter set with the names that people know."""
    ordered = sorted(servers, key=natural_key)
    living = set(alive)
    return Half(
        which=which,
        voters=tuple(names[server] for server in ordered),
        alive=tuple(names[server] for server in ordered if server in living),
        needed=majority(len(ordered)),
    )


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
    """Return whether nothing is under way: a leader, a committed plain configuration, no change.

    A rolling operation that is paused is under way for nobody.
    """
    return (
        cluster.leader is not None
        and cluster.configuration is not None
        and cluster.configuration.committed
        and not cluster.configuration.joint
        and cluster.operation is None
        and (cluster.rolling is None or cluster.rolling.step == "paused")
    )
