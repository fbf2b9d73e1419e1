"""What is done to a cluster and when: a list that follows from its seed alone.

An action names its victim by a role and a number, not by name: who leads and who is a member is
known only when it happens. So the same seed gives the same actions at the same times, and a run
prints whom they hit.

Three lanes run beside each other: processes that die and freeze, links that fail, and an operator
who changes the cluster all the time. In each lane the kinds are drawn from a shuffled bag, so that
none is missing for long.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import attrs

KILL = "kill"
KILL_ALL = "kill-all"
PAUSE = "pause"
STOP = "stop"
PROCESS_KINDS = (*(KILL,) * 4, *(PAUSE,) * 4, STOP, KILL_ALL)
"""Often what happens often; all servers at once is rare, but it happens."""

ISOLATE = "isolate"
HALVES = "halves"
DEAF = "deaf"
MUTE = "mute"
NETWORK_KINDS = (ISOLATE, HALVES, DEAF, MUTE, ISOLATE, HALVES)
"""deaf: nothing reaches the victim any more; mute: nothing that it says arrives."""
SYMMETRIC_KINDS = (ISOLATE, HALVES)
"""Those that work without looking at what passes."""

ADD = "add"
REMOVE = "remove"
REPLACE = "replace"
REPLACE_SEVERAL = "replace-several"
PROMOTE = "promote"
DEMOTE = "demote"
TRANSFER = "transfer"
ABORT = "abort"
PHASE = "kill-in-phase"
WIPE = "wipe"
CHANGE_KINDS = (
    ADD,
    REMOVE,
    REPLACE,
    REPLACE_SEVERAL,
    PROMOTE,
    DEMOTE,
    TRANSFER,
    ABORT,
    WIPE,
    PHASE,
    PHASE,
)

PHASES = ("begin", "learners", "joint", "joint-committed", "final", "final-committed")
"""Moments of a change: its record, the entry with its learners, C_old,new or C_new is sent, or the
leader says that C_old,new or C_new is committed."""
REACHES = ("nobody", "one", "all")
"""Whom the message of that moment still reaches before the leader dies."""

LEADER = "leader"
ANY = "any"

CHOICE_MAX = 1 << 16
"""A choice among candidates is this number modulo how many there are."""


@attrs.frozen(kw_only=True)
class Action:
    """One thing that is done to the cluster."""

    at_ms: int
    """After the start of the schedule."""
    kind: str
    target: str = ""
    """leader or any; empty where nobody is picked."""
    choice: int = 0
    """Decides among candidates, in [0, CHOICE_MAX)."""
    count: int = 1
    """How many servers a change concerns, at most."""
    for_ms: int = 0
    """How long it lasts: down, frozen, cut off. For an abort: how long the change may run before
    it."""
    phase: str = ""
    reach: str = ""
    clients: bool = False
    """Whether clients are cut off from the victims as well."""

    def __str__(self) -> str:
        """Print it on one line."""
        parts = [f"{self.at_ms / 1000:7.3f}s  {self.kind}"]
        if self.target:
            parts.append(f"{self.target}/{self.choice}")
        if self.count > 1:
            parts.append(f"up to {self.count}")
        if self.phase:
            parts.append(f"{self.phase}, reaching {self.reach}")
        if self.for_ms:
            parts.append(f"for {self.for_ms} ms")
        if self.clients:
            parts.append("clients too")
        return "  ".join(parts)


def make_schedule(seed: int, *, seconds: float, one_way: bool = True) -> tuple[Action, ...]:
    """Return the actions of `seed`, sorted by time; a function of its arguments alone.

    Args:
        seconds: when the last action may begin, and about when it has to be over.
        one_way: whether the network can fail in one direction.
    """
    end_ms = round(seconds * 1000)
    actions = [
        *_process_lane(random.Random(f"{seed}/processes"), end_ms),
        *_network_lane(random.Random(f"{seed}/network"), end_ms, one_way),
        *_change_lane(random.Random(f"{seed}/changes"), end_ms),
    ]
    return tuple(sorted(actions, key=lambda action: action.at_ms))


def _bag(rng: random.Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        yield from rng.sample(kinds, len(kinds))


def _process_lane(rng: random.Random, end_ms: int) -> Iterator[Action]:
    longest_ms = {KILL: 3_000, PAUSE: 4_500, STOP: 1_500, KILL_ALL: 600}
    bag = _bag(rng, PROCESS_KINDS)
    at_ms = rng.randrange(500, 2_000)
    while at_ms < end_ms:
        kind = next(bag)
        yield Action(
            at_ms=at_ms,
            kind=kind,
            # A leader that was frozen is the one that may not know that it leads no more.
            target="" if kind == KILL_ALL else rng.choice((LEADER, LEADER, ANY)),
            choice=rng.randrange(CHOICE_MAX),
            for_ms=rng.randrange(200, longest_ms[kind]),
        )
        # Shorter than the longest of them lasts: two servers may be down at once.
        at_ms += rng.randrange(1_500, 5_500)


def _network_lane(rng: random.Random, end_ms: int, one_way: bool) -> Iterator[Action]:
    bag = _bag(rng, NETWORK_KINDS if one_way else SYMMETRIC_KINDS)
    at_ms = rng.randrange(1_500, 3_500)
    while at_ms < end_ms:
        for_ms = rng.randrange(600, 3_500)
        yield Action(
            at_ms=at_ms,
            kind=next(bag),
            target=rng.choice((LEADER, ANY)),
            choice=rng.randrange(CHOICE_MAX),
            for_ms=for_ms,
            clients=rng.random() < 0.3,
        )
        # One network fault at a time; the next one may undo or complete what it has begun.
        at_ms += for_ms + rng.randrange(1_500, 5_000)


def _change_lane(rng: random.Random, end_ms: int) -> Iterator[Action]:
    bag = _bag(rng, CHANGE_KINDS)
    phases = _bag(rng, PHASES)
    at_ms = rng.randrange(200, 1_000)
    while at_ms < end_ms:
        kind = next(bag)
        in_phase = kind == PHASE
        yield Action(
            at_ms=at_ms,
            kind=kind,
            target=rng.choice((LEADER, ANY)),
            choice=rng.randrange(CHOICE_MAX),
            count=rng.choice((1, 2)) if kind != REPLACE_SEVERAL else rng.choice((2, 3)),
            for_ms=rng.randrange(300, 2_000) if in_phase else rng.randrange(10, 1_200),
            phase=next(phases) if in_phase else "",
            reach=rng.choice(REACHES) if in_phase else "",
        )
        at_ms += rng.randrange(1_800, 4_200)
