"""What would become of the cluster if servers failed or were removed, from what it says now.

Pure functions on a `ClusterView`. A removal is thought to be done first, as the one joint change
that `raftctl remove` makes, with the servers that are alive now; then servers are lost.

Three things decide what becomes of writes: whether a majority of each half is left (paper section
6), whether the leader is, and whether enough of those that are left have what is committed. A
server that lags acknowledges nothing new before it has caught up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum

import attrs

from raftctl.render import display_names, natural_key
from raftd.cluster_status.issues import LAG_ENTRIES_MAX
from raftd.cluster_status.operations import RECEIVING, part_of, remaining_ms
from raftd.cluster_status.view import (
    ClusterView,
    Half,
    Row,
    half_of,
)
from raftd.core.availability import survived_failures
from raftd.core.quorum import majority
from raftd.core.types import ServerId
from raftd.protocol import ConfigurationView, PeerView

ELECTION_TIMEOUTS_OF_AN_ELECTION = 2
"""A follower waits for one to two of them before it stands, and most first elections succeed."""


class Outcome(StrEnum):
    """What becomes of writes."""

    GOES_ON = "goes-on"
    """Clients notice nothing, or a hand-over of leadership."""
    ELECTION = "goes-on-after-election"
    CATCH_UP = "goes-on-after-catch-up"
    """A majority is left, but not of servers that have everything: it has to catch up first."""
    STOPS = "stops"
    """A half has no majority left."""
    REFUSED = "refused"
    """The removal itself would not be done: its two majorities are not alive."""


@attrs.frozen(kw_only=True)
class Assumption:
    """What is supposed to happen."""

    lost: frozenset[ServerId] = frozenset()
    """Servers that fail, those of lost zones included."""
    removed: frozenset[ServerId] = frozenset()
    """Members that are removed before."""
    lost_zones: tuple[str, ...] = ()
    """Zones that fail as a whole, for the words only."""


@attrs.frozen(kw_only=True)
class Phase:
    """Voter sets at one moment, and who of them is alive."""

    quorums: tuple[frozenset[ServerId], ...]
    dead: frozenset[ServerId]
    halves: tuple[Half, ...]
    """The same for people."""

    @property
    def tolerance(self) -> int:
        """How many further failures are survived; -1 without a quorum."""
        return survived_failures(self.quorums, self.dead)


@attrs.frozen(kw_only=True)
class Prediction:
    """What becomes of the cluster."""

    assumption: Assumption
    outcome: Outcome
    phase: Phase
    """At the end of it: after the removal and the losses."""
    joint: Phase | None
    """In the middle of the removal; None if no vote changes."""
    leader: ServerId
    """Who leads now and goes on leading; empty if nobody does."""
    hands_over: bool
    """The leader is one of those removed: it leads until then."""
    could_lead: tuple[ServerId, ...]
    """Who can win an election in what is left."""
    waits_for: tuple[ServerId, ...]
    """Those that lag, where some of them have to catch up first."""
    delay_ms: float | None
    """Until writes go on; 0 if at once, None if nobody can say or they stop."""
    delay_is_minimum: bool
    """Whether it may take longer: what comes after a snapshot is not known yet."""
    rolls_back: bool
    """Only C_new has lost its majority: the leader undoes the change where it still can."""

    @property
    def goes_on(self) -> bool:
        """Whether writes go on, if only later."""
        return self.outcome not in (Outcome.STOPS, Outcome.REFUSED)


def predict(cluster: ClusterView, assumption: Assumption) -> Prediction:
    """Return what becomes of a cluster whose configuration is known.

    Args:
        cluster: as it is now.
        assumption: of members of its configuration.
    """
    configuration = cluster.configuration
    assert configuration is not None
    quorums, joint = cluster.quorums, None
    lost = assumption.lost
    if assumption.removed:
        quorums, joint = _after_removal(cluster, configuration, assumption.removed)
    phase = _phase(cluster, configuration, quorums, cluster.dead | lost)
    leading = cluster.leader.server if cluster.leader is not None else ""
    leader = "" if leading in lost | assumption.removed | phase.dead else leading
    hands_over = bool(leading) and leading in assumption.removed
    waits_for, delay_ms, is_minimum = _catch_up(cluster, phase)
    outcome = Outcome.GOES_ON
    if joint is not None and joint.tolerance < 0:
        outcome = Outcome.REFUSED
    elif phase.tolerance < 0:
        outcome = Outcome.STOPS
    elif waits_for:
        outcome = Outcome.CATCH_UP
    elif not leader and not hands_over:
        outcome = Outcome.ELECTION
    if not leader and not hands_over and delay_ms is not None:
        delay_ms += _election_ms(cluster)
    goes_on = outcome not in (Outcome.STOPS, Outcome.REFUSED)
    return Prediction(
        assumption=assumption,
        outcome=outcome,
        phase=phase,
        joint=joint,
        leader=leader,
        hands_over=hands_over,
        could_lead=_could_lead(cluster, phase) if goes_on else (),
        waits_for=waits_for if goes_on else (),
        delay_ms=delay_ms if goes_on else None,
        delay_is_minimum=is_minimum and goes_on,
        rolls_back=bool(leader) and _rolls_back(configuration, phase, assumption),
    )


def predict_each(cluster: ClusterView) -> list[Prediction]:
    """Return what the loss of each living member would do, and that of each zone with several."""
    living = [row for row in cluster.members if row.alive]
    found = [
        predict(cluster, Assumption(lost=frozenset({row.server})))
        for row in living
        if row.vote != "learner"
    ]
    zones: dict[str, set[ServerId]] = {}
    for row in living:
        if row.zone:
            zones.setdefault(row.zone, set()).add(row.server)
    for zone in sorted(zones, key=natural_key):
        lost = frozenset(zones[zone])
        found.append(predict(cluster, Assumption(lost=lost, lost_zones=(zone,))))
    return found


# --- voter sets ----------------------------------------------------------------------------------


def _after_removal(
    cluster: ClusterView, configuration: ConfigurationView, removed: Collection[ServerId]
) -> tuple[tuple[frozenset[ServerId], ...], Phase | None]:
    """Return the voter sets after a removal, and its joint phase if it changes votes.

    While another change runs, the removal begins where that one ends.
    """
    before = frozenset(configuration.voters)
    after = before - frozenset(removed)
    if after == before:
        return cluster.quorums, None
    return (after,), _phase(cluster, configuration, (before, after), cluster.dead)


def _phase(
    cluster: ClusterView,
    configuration: ConfigurationView,
    quorums: tuple[frozenset[ServerId], ...],
    dead: frozenset[ServerId],
) -> Phase:
    names = display_names({*configuration.voters, *configuration.outgoing, *configuration.learners})
    which = ("old", "new") if len(quorums) > 1 else ("",)
    halves = tuple(
        half_of(word, half, half - dead, names) for word, half in zip(which, quorums, strict=True)
    )
    return Phase(quorums=quorums, dead=dead, halves=halves)


def _rolls_back(configuration: ConfigurationView, phase: Phase, assumption: Assumption) -> bool:
    if not configuration.joint or assumption.removed:
        return False
    old, new = phase.halves
    return old.spare >= 0 > new.spare


# --- who has what --------------------------------------------------------------------------------


def _is_current(row: Row, cluster: ClusterView) -> bool:
    """Return whether a member has about everything: it can acknowledge what comes next."""
    if cluster.leader is not None:
        return not any(issue.kind == "lagging" for issue in row.issues)
    last = row.reply.last_index if row.reply is not None else 0
    return last + LAG_ENTRIES_MAX >= max(_last_indexes(cluster.members), default=0)


def _last_indexes(rows: Iterable[Row]) -> list[int]:
    return [row.reply.last_index for row in rows if row.reply is not None and row.alive]


def _catch_up(
    cluster: ClusterView, phase: Phase
) -> tuple[tuple[ServerId, ...], float | None, bool]:
    """Return who has to catch up before anything can be committed, and how long that takes.

    The third value says whether it may take longer.
    """
    rows = {row.server: row for row in cluster.members}
    waits_for: set[ServerId] = set()
    delay_ms: float | None = 0.0
    is_minimum = False
    for half in phase.quorums:
        living = [rows[server] for server in half - phase.dead if server in rows]
        lagging = [row for row in living if not _is_current(row, cluster)]
        short = majority(len(half)) - (len(living) - len(lagging))
        if short <= 0 or short > len(lagging):
            continue
        waits_for |= {row.server for row in lagging}
        times = sorted((_remaining(row.peer) for row in lagging), key=_by_time)
        needed_ms, may_be_longer = times[short - 1]
        is_minimum = is_minimum or may_be_longer
        if needed_ms is None or delay_ms is None:
            delay_ms = None
        else:
            delay_ms = max(delay_ms, needed_ms)
    return tuple(sorted(waits_for, key=natural_key)), delay_ms, is_minimum


def _by_time(time: tuple[float | None, bool]) -> tuple[bool, float]:
    return time[0] is None, time[0] or 0.0


def _remaining(peer: PeerView | None) -> tuple[float | None, bool]:
    """Return how long a server needs to catch up, and whether that is only a part of it."""
    if peer is None:
        return None, False
    left_ms = remaining_ms(peer)
    if left_ms is None:
        return None, False
    has_more = bool(peer.snapshot_bytes) and (part_of(peer) == RECEIVING or peer.lag_bytes > 0)
    return left_ms, has_more


def _could_lead(cluster: ClusterView, phase: Phase) -> tuple[ServerId, ...]:
    """Return who of the living voters can be elected: a majority of each half is not ahead of it.

    Positions that differ by what is on its way at full load are taken as equal.
    """
    rows = {row.server: row for row in cluster.members}
    living = {
        server: _last_index(rows[server])
        for half in phase.quorums
        for server in half - phase.dead
        if server in rows
    }

    def can_win(server: ServerId) -> bool:
        supporters = {
            other for other, last in living.items() if last <= living[server] + LAG_ENTRIES_MAX
        }
        return all(len(half & supporters) >= majority(len(half)) for half in phase.quorums)

    return tuple(sorted(filter(can_win, living), key=natural_key))


def _last_index(row: Row) -> int:
    if row.reply is not None:
        return row.reply.last_index
    return row.peer.match_index if row.peer is not None else 0


def _election_ms(cluster: ClusterView) -> float:
    timeouts = [row.reply.election_timeout_ms for row in cluster.members if row.reply is not None]
    return ELECTION_TIMEOUTS_OF_AN_ELECTION * max(timeouts, default=0.0)


# --- names ---------------------------------------------------------------------------------------


def members_named(cluster: ClusterView, name: str) -> frozenset[ServerId]:
    """Return the members with a name: one, or several incarnations of it; or the full identity."""
    return frozenset(row.server for row in cluster.members if name in (row.name, row.server))


def members_in(cluster: ClusterView, zones: Sequence[str]) -> frozenset[ServerId]:
    """Return the members in any of `zones`."""
    return frozenset(row.server for row in cluster.members if row.zone in zones)
