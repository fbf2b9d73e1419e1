"""What is drawn from a seed before its run begins: sizes, rates of faults, limits, the schedule.

Each kind of fault is absent from a part of the runs and frequent in others: a bug that needs many
crashes hides where partitions stop everything, and the reverse (swarm testing, Groce et al. 2012).
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random

import attrs

MILLISECOND = 1_000
SECOND = 1_000_000
"""Simulated time is counted in microseconds."""

SERVERS_MAX = 7
"""Members at the start; the operator goes up to this number, too."""

ADVERSARY = {
    "kill": 3.0,
    "stop": 1.0,
    "power-off": 3.0,
    "crash-at-point": 8.0,
    "crash-everybody": 0.3,
    "pause": 2.0,
    "partition": 3.0,
    "isolate-leader": 2.0,
    "cut-one-way": 2.0,
    "moving-partition": 1.0,
    "slow-link": 1.5,
    "heal-network": 5.0,
    "weather": 3.0,
    "clock-rate": 1.0,
    "disk-fails": 1.5,
    "disk-full": 0.7,
    "disk-nearly-full": 0.7,
    "bit-flip": 0.5,
    "wipe": 0.7,
    "long-absence": 2.0,
    "hit-install": 5.0,
    "damage-partial": 0.7,
}
"""What is done to the cluster, with its usual weight."""

OPERATOR = {
    "add": 3.0,
    "add-learner": 1.5,
    "remove": 2.5,
    "replace": 3.0,
    "replace-all": 2.0,
    "replace-lost": 3.0,
    "promote": 1.5,
    "demote": 1.5,
    "transfer": 2.0,
    "abort": 3.0,
    "recycle": 3.0,
}
"""What its operator does, with its usual weight."""

TACTICS = ("", "", "lonely-entry", "halves-apart", "leader-with-new-half")
"""What is aimed at a change of the membership, again and again in one run: a bug of that kind needs
two or three blows in a row that fit to each other."""

CHANGING = {
    "replace-all": 6.0,
    "replace": 2.0,
    "add": 2.0,
    "remove": 1.0,
    "abort": 2.0,
    "recycle": 8.0,
}
"""What the operator does in runs that are about changes alone."""
CHANGING_ADVERSARY = {
    "kill": 2.0,
    "power-off": 1.0,
    "pause": 0.5,
    "weather": 1.0,
    "heal-network": 6.0,
    "isolate-leader": 1.0,
    "long-absence": 1.0,
    "hit-install": 3.0,
}

UPGRADING = "upgrade"
MOVING = "move"
HITTING_LEASE = "hit-lease"
MISLEADING = "mislead"
MORE_ADVERSARY = (UPGRADING, MOVING, HITTING_LEASE, MISLEADING)
"""What is done to machines in a part of the runs: another release, another address, what could
break a lease, false news that the leader's process has ended."""
ROLLING = "rolling"
"""The operator begins a rolling operation or goes on with it, in a part of the runs: while one
runs, other changes of the members are refused."""
APPLYING = {"apply": 2.0, "readdress": 1.0}
"""What it does about whole clusters."""
RELEASES = {"new": 5.0, "upgraded": 4.0, "old": 1.0}
"""Which release machines run: the new one; many the older one at first, to be upgraded one after
the other; the older one to the end."""

NETWORK_FAULTS = ("loss", "duplication", "reordering")


@attrs.frozen(kw_only=True)
class Step:
    """One thing that is done to the cluster from outside, at a time that was drawn beforehand."""

    number: int
    at_us: int
    kind: str


@attrs.frozen(kw_only=True)
class Profile:
    """Everything that a seed decides about its run beforehand."""

    seed: int
    voters: int
    spares: int
    """Machines that are blank at first."""
    clients: int
    keys: int
    duration_us: int
    """Of the safety phase."""
    tick_us: int
    heartbeat_ticks: int
    election_ticks: int
    catch_up_ticks: int
    joint_ticks: int
    begins_bad: bool
    """Whether the weather is bad when the attack begins."""
    loss: float
    """Chance that a message is lost, in bad weather."""
    duplication: float
    """Chance that a message arrives twice, the second time later."""
    reordering: float
    """Chance that a message may be overtaken."""
    delay_us: tuple[int, int]
    sync_us: tuple[int, int]
    """How long a sync takes."""
    clock_spread: float
    """Clocks run up to so much faster or slower."""
    malice: float
    """Chance that something is aimed at a configuration entry that has just been written, or at a
    leader that has just been elected in the middle of a change."""
    tactic: str
    """What the malice prefers; empty for anything."""
    client_pause_us: int
    """Mean time between an answer and the next request of a client."""
    downtime_us: int
    """Mean time until a machine that went down is started again."""
    limits: tuple[tuple[str, int], ...]
    """Constants of the product that are smaller in this run, so that their edges are met."""
    segment_bytes: int
    snapshot_log_bytes: int
    """A snapshot is taken when the log has grown by so much."""
    catch_up_bytes_per_second: int
    disk_reserve_bytes: int
    background_us: int
    """How long a step in the background takes at most, usually."""
    loses_new_half: bool
    """Whether, in the end, the new half of one more change dies before it has heard of it."""
    steps: tuple[Step, ...]
    release: str = "new"
    """A key of `RELEASES`."""
    old_chance: float = 0.0
    """Chance that a machine begins with the older release; the founder does unless it is 0."""
    here_chance: float = 0.0
    """Chance that a client wants its read answered by the server that it asks."""
    lease_chance: float = 0.0
    """Chance that a machine uses leases."""
    clock_drift: float = 0.0
    """What they go by."""
    reconfigures: bool = False
    """Whether machines start with other settings of leases than before."""
    old_version: int = 2
    """Of the protocol, which the older release speaks."""
    batching_clients: int = 0
    """How many there are beside the others that send batches and never ask again."""

    @property
    def moves(self) -> bool:
        """Whether machines get other addresses."""
        return any(step.kind == MOVING for step in self.steps)

    def without(self, dropped: Collection[str]) -> Profile:
        """Return a milder profile: without these network faults, malice or small limits."""
        changes: dict[str, object] = {name: 0.0 for name in NETWORK_FAULTS if name in dropped}
        if "malice" in dropped:
            changes["malice"] = 0.0
        if "limits" in dropped:
            changes["limits"] = ()
        if "clients" in dropped:
            changes["clients"] = 1
            changes["batching_clients"] = 0
        return attrs.evolve(self, **changes)


SMALL_LIMITS = {
    "raftd.core.leader.APPEND_ENTRIES_MAX": (1, 2, 5),
    "raftd.core.leader.APPEND_BYTES_MAX": (1, 200),
    "raftd.core.leader.UNCOMMITTED_ENTRIES_MAX": (4, 20),
    "raftd.core.progress.INFLIGHT_APPENDS_MAX": (1, 2),
    "raftd.core.raft.APPLY_ENTRIES_MAX": (1, 3),
    "raftd.applying.TURN_ENTRIES_MAX": (1, 4),
    "raftd.storage.state.SESSIONS_MAX": (3, 5),
    "raftd.storage.state.EXPIRED_NAMES_MAX": (2, 4),
    "raftd.storage.state.SESSIONS_CACHED_MAX": (1, 2),
    "raftd.storage.state.LIST_CHUNK": (1, 2),
    "raftd.storage.ledger.OPERATIONS_MAX": (2, 5),
}
"""Limits that a run may shrink, each one the same on all servers."""


SNAPSHOT_LIMITS = {
    "raftd.core.leader.SNAPSHOT_CHUNK_BYTES": (150, 400, 1_500),
    "raftd.core.progress.SNAPSHOT_INFLIGHT_BYTES_MAX": (1, 600, 3_000),
    "raftd.compaction.COMPACTED_ENTRIES_MAX": (1, 3, 4_096),
    "raftd.compaction.KEPT_LOG_DIVISOR": (1, 4, 1_000),
    "raftd.compaction.RETRY_ELECTION_TIMEOUTS": (1, 2),
    "raftd.storage.snapshot_file.BLOCK_BYTES": (100, 500, 262_144),
    "raftd.storage.snapshots.REWRITE_SYNC_BYTES": (1, 1_000),
}
"""Those without which a snapshot of a small state is over in one step: small in every run."""
CLOCK_GRAIN = 0.001
"""What rounding may cost a lease."""
LATER_LIMITS = {"raftd.storage.history.HISTORY_MAX": (1, 2, 5)}
"""Likewise shrunk in some runs, and drawn after everything else."""
BATCH_LIMITS = {"raftd.reading.VALUES_BYTES_MAX": (1, 30)}
"""Likewise, in runs with batches."""


def draw(seed: int) -> Profile:
    """Return the profile of `seed`; always the same one."""
    random = Random(f"profile {seed}")
    is_about_changes = random.random() < 0.35
    tactic = random.choice(TACTICS[2:] if is_about_changes else TACTICS)
    voters = random.choice(
        (1, 2, 3, 3, 3, 3) if is_about_changes else (1, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7)
    )
    duration_us = random.randint(5, 12) * SECOND
    heartbeat_ticks = random.choice((1, 2, 2))
    election_ticks = heartbeat_ticks * random.randint(3, 6)
    bad = random.random

    def sometimes(chance: float, worst: float) -> float:
        return random.random() * worst if bad() < chance else 0.0

    profile = Profile(
        seed=seed,
        voters=voters,
        spares=3 if is_about_changes else random.randint(1, max(1, min(voters, SERVERS_MAX - 3))),
        clients=random.randint(1, 4),
        keys=random.randint(1, 3),
        duration_us=duration_us,
        tick_us=50 * MILLISECOND,
        heartbeat_ticks=heartbeat_ticks,
        election_ticks=election_ticks,
        catch_up_ticks=random.choice((20, 60)),
        joint_ticks=random.choice((12, 30, 60)),
        begins_bad=random.random() < 0.5,
        loss=sometimes(0.6, 0.3),
        duplication=sometimes(0.5, 0.3),
        reordering=sometimes(0.5, 1.0),
        # Up to a third of an election timeout: slower networks need longer time-outs.
        delay_us=(
            random.randint(100, 2_000),
            random.choice((3, 10, 30, election_ticks * 50 // 3)) * MILLISECOND,
        ),
        sync_us=(200, random.choice((1, 5, 30)) * MILLISECOND),
        clock_spread=(
            0.5 if tactic == "leader-with-new-half" else random.choice((0.0, 0.02, 0.2, 0.5))
        ),
        malice=0.9 if is_about_changes else random.choice((0.0, 0.3, 0.8)),
        tactic=tactic,
        client_pause_us=random.choice((10, 60, 200)) * MILLISECOND,
        downtime_us=random.choice((200, 600, 2_000)) * MILLISECOND,
        limits=tuple(
            (name, random.choice(values))
            for name, values in (*SMALL_LIMITS.items(), *SNAPSHOT_LIMITS.items())
            if name in SNAPSHOT_LIMITS or random.random() < 0.15
        ),
        loses_new_half=random.random() < 0.3,
        segment_bytes=random.choice((1_024, 2_048, 16_384, 65_536)),
        # In a quarter of the runs none is ever taken.
        snapshot_log_bytes=random.choice((400, 1_000, 3_000, 10_000_000)),
        catch_up_bytes_per_second=random.choice((0, 0, 2_000, 20_000)),
        disk_reserve_bytes=random.choice((0, 100_000)),
        background_us=random.choice((1, 20, 200)) * MILLISECOND,
        steps=_schedule(random, duration_us, is_about_changes),
    )
    return _with_batches(
        _with_false_news(_with_reads(_with_administration(profile, is_about_changes)))
    )


def _with_reads(profile: Profile) -> Profile:
    """Return the profile with what it says about reads, from a generator of its own."""
    random = Random(f"profile {profile.seed} reads")
    spread = profile.clock_spread
    lease_chance = random.choice((0.0, 1.0, 1.0, 0.7))
    hits = round(profile.duration_us / SECOND * random.choice((0.0, 0.3, 0.6)))
    begin = len(profile.steps) + 1
    steps = tuple(
        Step(number=begin + number, at_us=random.randrange(profile.duration_us), kind=HITTING_LEASE)
        for number in range(hits if lease_chance else 0)
    )
    return attrs.evolve(
        profile,
        steps=(*profile.steps, *steps),
        here_chance=random.choice((0.0, 0.3, 0.8)),
        lease_chance=lease_chance,
        # By how much the slowest clock counts less than the fastest one, and no more.
        clock_drift=2 * spread / (1 + spread) + CLOCK_GRAIN,
        reconfigures=random.random() < 0.3,
    )


def _with_false_news(profile: Profile) -> Profile:
    """Return the profile with false news in a part of the runs, from a generator of its own."""
    random = Random(f"profile {profile.seed} false news")
    seconds = profile.duration_us / SECOND
    count = round(seconds * random.choice((0.5, 2.0))) if random.random() < 0.3 else 0
    begin = len(profile.steps) + 1
    steps = tuple(
        Step(number=number, at_us=random.randrange(profile.duration_us), kind=MISLEADING)
        for number in range(begin, begin + count)
    )
    return attrs.evolve(profile, steps=(*profile.steps, *steps))


def _with_administration(profile: Profile, is_about_changes: bool) -> Profile:
    """Return the profile with what was drawn last, from a generator of its own.

    So all else of a seed stays what it was before there was anything of this.
    """
    random = Random(f"profile {profile.seed} administration")
    release = random.choices(tuple(RELEASES), tuple(RELEASES.values()))[0]
    old_chance = {"new": 0.0, "upgraded": random.choice((0.3, 0.7, 1.0)), "old": 1.0}[release]
    seconds = profile.duration_us / SECOND
    machines = profile.voters + profile.spares
    kinds: list[str] = []
    if release == "upgraded":
        # More often than there are machines: those that are down or new already have their turn.
        kinds += [UPGRADING] * round(machines * random.uniform(0.5, 2.0))
    if release == "new" and random.random() < 0.3:
        kinds += [MOVING] * random.randint(1, 4)
    if is_about_changes:
        # Two or three blows in a row have to fit to each other there: nothing comes in between.
        kinds = [kind for kind in kinds if kind == UPGRADING]
    elif random.random() < 0.4:
        kinds += [ROLLING] * round(seconds * random.choice((3.0, 8.0)))
    if random.random() < 0.5:
        count = round(seconds * random.choice((0.3, 1.0)))
        kinds += random.choices(tuple(APPLYING), tuple(APPLYING.values()), k=count)
    limits = tuple(
        (name, random.choice(values))
        for name, values in LATER_LIMITS.items()
        if random.random() < 0.15
    )
    begin = len(profile.steps) + 1
    steps = tuple(
        Step(number=number, at_us=random.randrange(profile.duration_us), kind=kind)
        for number, kind in enumerate(kinds, begin)
    )
    return attrs.evolve(
        profile,
        release=release,
        old_chance=old_chance,
        limits=(*profile.limits, *limits),
        steps=(*profile.steps, *steps),
    )


def _with_batches(profile: Profile) -> Profile:
    """Return the profile with what was drawn after that, likewise."""
    random = Random(f"profile {profile.seed} batches")
    batching_clients = random.choice((0, 1, 1, 2))
    limits = tuple(
        (name, random.choice(values))
        for name, values in BATCH_LIMITS.items()
        if batching_clients and random.random() < 0.3
    )
    return attrs.evolve(
        profile,
        old_version=random.choice((2, 3)),
        batching_clients=batching_clients,
        limits=(*profile.limits, *limits),
    )


def _schedule(random: Random, duration_us: int, is_about_changes: bool) -> tuple[Step, ...]:
    """Draw which faults and which requests of the operator come when."""

    def weights(kinds: dict[str, float], absent: float) -> dict[str, float]:
        drawn = {
            kind: weight * random.uniform(0.3, 2.0)
            for kind, weight in kinds.items()
            if random.random() >= absent
        }
        return drawn or dict(kinds)

    times: list[tuple[int, str]] = []
    sides = (
        (ADVERSARY, 0.35, random.choice((1.0, 2.5, 5.0))),
        (OPERATOR, 0.2, random.choice((1.0, 3.0, 6.0))),
    )
    if is_about_changes:
        sides = (
            (CHANGING_ADVERSARY, 0.0, random.choice((0.7, 1.5))),
            (CHANGING, 0.0, random.choice((4.0, 8.0))),
        )
    for kinds, absent, per_second in sides:
        drawn = weights(kinds, absent)
        count = round(duration_us / SECOND * per_second)
        chosen = random.choices(tuple(drawn), tuple(drawn.values()), k=count)
        times += [(random.randrange(duration_us), kind) for kind in chosen]
    times.sort()
    return tuple(
        Step(number=number, at_us=at_us, kind=kind) for number, (at_us, kind) in enumerate(times, 1)
    )
