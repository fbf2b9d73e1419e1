"""A plan as people see it: what will be, what each phase survives and takes, what to beware of.

Pure functions of the plan, the configuration and what the leader knows of the servers just now.

Source: dissertation section 4.2 (availability around changes).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from raftd.commands import Plan
from raftd.core.availability import survived_failures
from raftd.core.membership import Configuration, ConfigurationAt
from raftd.core.quorum import majority
from raftd.core.types import Index, ServerId, server_incarnation, server_name
from raftd.planning import Refused, names, shortened, view
from raftd.protocol import ConfigurationView, PlanPhase, PlanView, Quorum
from raftd.replies import size_text

CATCH_UP_ROUNDS = 2
"""A server that lacks nothing has caught up after so many rounds of heartbeats: one in which it is
told the configuration that lists it, and a short one that proves it."""
COPY_BYTES_PER_SECOND_MAX = 128 * 1024 * 1024
"""No plan promises more, whatever is allowed: what disks and processors do is not known before."""


@attrs.frozen(kw_only=True)
class Copy:
    """What a server has to receive before it can vote."""

    snapshot_bytes: int = 0
    log_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return self.snapshot_bytes + self.log_bytes


@attrs.frozen(kw_only=True)
class Pace:
    """How fast things go here at most."""

    heartbeat_interval_ms: float
    catch_up_bytes_per_second: int
    """What one server is sent; 0 where nothing limits it, so that nobody can say."""

    def copy_ms(self, copy: Copy) -> float | None:
        """Return how long a copy takes at this pace; None if nobody can say."""
        if not copy.size_bytes:
            return 0.0
        if not self.catch_up_bytes_per_second:
            return None
        rate = min(self.catch_up_bytes_per_second, COPY_BYTES_PER_SECOND_MAX)
        return copy.size_bytes * 1000 / rate


@attrs.frozen(kw_only=True)
class Situation:
    """What the leader knows of the servers just now."""

    commit_index: Index
    reachable: frozenset[ServerId]
    """Members in contact, this leader, and those that have answered at a new address."""
    problems: Mapping[ServerId, str] = attrs.field(factory=dict)
    """Why the link to a member is down, in words."""
    zones: Mapping[str, str] = attrs.field(factory=dict)
    """Names of servers to their zones, as far as anybody has said."""
    copies: Mapping[ServerId, Copy] = attrs.field(factory=dict)
    """What the servers that are new or are promoted still lack."""
    pace: Pace


def assess(plan: Plan, latest: ConfigurationAt, situation: Situation) -> PlanView:
    """Return the plan as people see it.

    Raises:
        Refused: with code `unsafe`, because a majority would be missing on the way or afterwards.
    """
    reachable = situation.reachable
    before, after = plan.voters_before, plan.voters_after
    silent = [server for server in sorted({*before, *after}) if server not in reachable]
    survives_before = survived_failures([before], silent)
    survives_after = survived_failures([after], silent)
    if plan.joint and min(survives_before, survives_after) < 0:
        half = after if survives_after < 0 else before
        alive = [server for server in half if server in reachable]
        raise Refused(
            "unsafe",
            "the change would lose the quorum",
            f"{names(half)} need {majority(len(half))} of {len(half)} to answer; "
            f"{names(alive)} {'does' if len(alive) == 1 else 'do'}, {names(silent)} not",
            _safe_way(plan, silent),
        )
    during = survived_failures([before, after] if plan.joint else [before], silent)
    phases = _phases(plan, situation)
    durations = [phase.expected_ms for phase in phases[1:]]
    known = [duration for duration in durations if duration is not None]
    return PlanView(
        changes=_sentences(plan, latest),
        joint=plan.joint,
        before=view(latest, situation.commit_index),
        after=_configuration_after(plan, latest),
        tolerance_before=max(0, survives_before),
        tolerance_during=max(0, during),
        tolerance_after=max(0, survives_after),
        warnings=_warnings(plan, latest, situation),
        phases=phases,
        bytes_to_copy=sum(copy.size_bytes for copy in _copies(plan, situation).values()),
        expected_ms=sum(known) if len(known) == len(durations) else None,
    )


def _configuration_after(plan: Plan, latest: ConfigurationAt) -> ConfigurationView:
    members = Configuration(voters=plan.voters_after, learners=plan.learners_after).members
    addresses = {**latest.entry.addresses, **plan.addresses, **plan.moved}
    return ConfigurationView(
        index=0,
        committed=False,
        joint=False,
        voters=plan.voters_after,
        outgoing=(),
        learners=plan.learners_after,
        addresses={server: addresses[server] for server in sorted(members)},
    )


def _safe_way(plan: Plan, silent: Sequence[ServerId]) -> str:
    """Return the command that would reach the aim without losing the quorum."""
    staying = [server for server in silent if server in plan.voters_after]
    if staying:
        first = server_name(staying[0])
        return (
            f"start {names(staying)} first, or replace the dead server instead: "
            f"`raftctl replace {first} NEW=HOST:PORT`"
        )
    return f"start {names(silent)} first: `raftd --config FILE --id {server_name(silent[0])}`"


def _sentences(plan: Plan, latest: ConfigurationAt) -> tuple[str, ...]:
    configuration = latest.configuration
    sentences = []
    for role, server in plan.changes:
        name = server_name(server)
        if server in plan.addresses:
            same_name = any(server_name(member) == name for member in configuration.members)
            fresh = f" (new incarnation {server_incarnation(server)})" if same_name else ""
            sentences.append(f"{name} at {plan.addresses[server]} joins as a {role}{fresh}")
        elif role == "remove":
            was = "voter" if server in configuration.voters else "learner"
            sentences.append(f"{name} ({was}) is removed for good and stops")
        elif role == "voter" and server in configuration.learners:
            sentences.append(f"{name} becomes a voter")
        elif role == "learner" and server in configuration.voters:
            sentences.append(f"{name} becomes a learner and loses its vote")
    for server, address in plan.moved.items():
        old = latest.entry.addresses.get(server, "an unknown address")
        sentences.append(f"{server_name(server)} moves from {old} to {address}")
    return tuple(sentences)


# --- phases -----------------------------------------------------------------------------------


def _phases(plan: Plan, situation: Situation) -> tuple[PlanPhase, ...]:
    """Return the phases of the plan, beginning with the configuration as it is before."""
    before, after = plan.voters_before, plan.voters_after
    step_ms = round(situation.pace.heartbeat_interval_ms)
    copies = _copies(plan, situation)
    learning = sorted({*plan.addresses, *copies})

    def phase(
        name: str, words: str, *halves: Sequence[ServerId], expected_ms: int | None
    ) -> PlanPhase:
        alive = situation.reachable
        dead = [server for half in halves for server in half if server not in alive]
        return PlanPhase(
            name=name,
            words=words,
            quorums=tuple(
                Quorum(
                    voters=tuple(half),
                    needed=majority(len(half)),
                    alive=tuple(server for server in half if server in alive),
                )
                for half in halves
            ),
            tolerance=max(0, survived_failures(halves, dead)),
            expected_ms=expected_ms,
        )

    phases = [
        phase("settled", f"{names(before)} {_decide(before)}, as now", before, expected_ms=None)
    ]
    if plan.addresses:
        learn, listen = ("learns", "listens") if len(plan.addresses) == 1 else ("learn", "listen")
        words = f"{names(plan.addresses)} {learn} which cluster it is, and {listen}"
        phases.append(phase("joining", words, before, expected_ms=step_ms))
    if plan.joint and learning:
        size_bytes = sum(copy.size_bytes for copy in copies.values())
        words = f"{names(learning)} {'receives' if len(learning) == 1 else 'receive'} "
        words += f"about {size_text(size_bytes)}" if size_bytes else "what is written meanwhile"
        expected_ms = _catching_up_ms(copies, situation.pace)
        phases.append(phase("catching-up", words, before, expected_ms=expected_ms))
    if plan.joint:
        words = f"C_old,new: a majority of {names(before)} and one of {names(after)} decide"
        phases.append(phase("joint", words, before, after, expected_ms=step_ms))
    words = f"C_new: {names(after)} {_decide(after)}" if plan.joint else _simple_words(plan)
    phases.append(phase("final", words, after, expected_ms=step_ms))
    return tuple(phases)


def _decide(voters: Collection[ServerId]) -> str:
    return "decides alone" if len(voters) == 1 else "decide"


def _simple_words(plan: Plan) -> str:
    what = []
    if plan.changes:
        what.append("who listens")
    if plan.moved:
        what.append("who is where")
    return f"one entry says {' and '.join(what)}; no vote changes"


def _copies(plan: Plan, situation: Situation) -> dict[ServerId, Copy]:
    """Return what each server receives that the plan brings in or promotes."""
    gains_vote = {*plan.voters_after} - {*plan.voters_before}
    return {
        server: situation.copies.get(server, Copy())
        for server in sorted({*plan.addresses, *gains_vote})
    }


def _catching_up_ms(copies: Mapping[ServerId, Copy], pace: Pace) -> int | None:
    """Return how long the slowest takes: all are fed at the same time."""
    durations = [pace.copy_ms(copy) for copy in copies.values()]
    known = [duration for duration in durations if duration is not None]
    if len(known) < len(durations):
        return None
    return round(max(known, default=0.0) + CATCH_UP_ROUNDS * pace.heartbeat_interval_ms)


# --- warnings ---------------------------------------------------------------------------------


def _warnings(plan: Plan, latest: ConfigurationAt, situation: Situation) -> tuple[str, ...]:
    warnings: list[str] = []
    if plan.joint:
        warnings += _warnings_of_votes(plan, situation)
    reachable = situation.reachable
    gone = [server for role, server in plan.changes if role == "remove" and server not in reachable]
    if gone:
        warnings.append(
            f"{names(gone)} cannot be told now; started again with its old data it is told that "
            "it was removed, and stops"
        )
    staying = {*plan.voters_after, *plan.learners_after} & latest.configuration.members
    for server in sorted(staying - reachable):
        problem = situation.problems.get(server, "")
        why = f": {shortened(problem)}" if problem else ""
        warnings.append(f"{server_name(server)} does not answer now{why}")
    return tuple(warnings)


def _warnings_of_votes(plan: Plan, situation: Situation) -> Iterable[str]:
    before, after = plan.voters_before, plan.voters_after
    dead = [server for server in {*before, *after} if server not in situation.reachable]
    count = len(after)
    if count % 2 == 0:
        yield (
            f"{count} voters survive no more failures than {count - 1}; an odd number is better "
            f"(now {len(before)})"
        )
    if count == 1:
        yield "one voter: the loss of this server is the loss of the cluster"
    now, then = survived_failures([before], dead), survived_failures([after], dead)
    if then < now:
        # On the way as well, since the joint phase survives as much as the weaker half.
        yield f"afterwards the cluster survives {_failures(then)}, now {_failures(now)}"
    yield from _warnings_of_zones(after, situation.zones)


def _failures(count: int) -> str:
    return {0: "no further failure", 1: "one failure"}.get(count, f"{count} failures")


def _warnings_of_zones(voters: Collection[ServerId], zones: Mapping[str, str]) -> Iterable[str]:
    """Warn of a zone whose loss alone takes the majority."""
    in_zone: dict[str, list[ServerId]] = {}
    for server in voters:
        zone = zones.get(server_name(server), "")
        if zone:
            in_zone.setdefault(zone, []).append(server)
    for zone, servers in sorted(in_zone.items()):
        if len(voters) > 1 and len(voters) - len(servers) < majority(len(voters)):
            yield (
                f"zone {shortened(zone)} has {len(servers)} of {len(voters)} voters "
                f"({names(servers)}): without it there is no majority"
            )
