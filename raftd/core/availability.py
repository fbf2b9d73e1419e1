"""How many failures voter sets survive, and which sets of failures stop them.

A cluster goes on for as long as a majority of each half is alive: one half usually, C_old and C_new
while joint (paper section 6). So what stops it is counted, not searched: with `spare` living voters
more than the majority of a half needs, any `spare + 1` of its living ones are fatal, and no set is
fatal that contains fewer of every half. The sets returned here are minimal: without any one of
their members the cluster would go on.

Failures come one server at a time, or one unit (a zone) with all of its servers. Units that take
equally much from each half are alike, so the search runs over how many of each sort fail and not
over which: a few thousand steps for the 32 members that a cluster may have, where trying all sets
would be 2^32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, islice
from math import comb

import attrs

from raftd.core.quorum import majority
from raftd.core.types import ServerId

FATAL_SETS_MAX = 64
"""Sets that `fatal_sets` lists: all of them for seven voters, and more than anybody reads."""

_Loss = tuple[int, ...]
"""How many living voters of each half fail."""


@attrs.frozen(kw_only=True)
class FatalChoice:
    """Any `count` of `servers` are fatal."""

    count: int
    servers: frozenset[ServerId]


def survived_failures(
    halves: Sequence[Collection[ServerId]], dead: Collection[ServerId] = ()
) -> int:
    """Return how many further failures of any servers are survived.

    Args:
        halves: the voter sets that each need a majority; empty ones ask for nothing.
        dead: servers that have failed already.

    Returns:
        0 where the next failure of some voter stops the cluster; -1 if a half has no majority
        already, or there are no voters at all.
    """
    spares = [len(_alive(half, dead)) - majority(len(half)) for half in _asking(halves)]
    return max(-1, min(spares, default=-1))


def fatal_choices(
    halves: Sequence[Collection[ServerId]], dead: Collection[ServerId] = ()
) -> tuple[FatalChoice, ...]:
    """Return what stops the cluster as "any so many of these": at most one choice for each half.

    Servers that are fatal alone are one choice and in no other one, and a half has none that is
    stopped only where another choice is fatal already. Empty if there is no quorum already.
    """
    if survived_failures(halves, dead) < 0:
        return ()
    found = {
        FatalChoice(count=len(alive) - majority(len(half)) + 1, servers=alive)
        for half in _asking(halves)
        for alive in [_alive(half, dead)]
    }
    alone = frozenset().union(*(choice.servers for choice in found if choice.count == 1))
    choices = [FatalChoice(count=1, servers=alone)] if alone else []
    for choice in sorted(found, key=lambda choice: (choice.count, sorted(choice.servers))):
        left = attrs.evolve(choice, servers=choice.servers - alone)
        if 1 < left.count <= len(left.servers):
            choices.append(left)
    return tuple(
        choice
        for choice in choices
        if not any(other is not choice and _includes(choice, other) for other in choices)
    )


def fatal_sets(
    halves: Sequence[Collection[ServerId]],
    dead: Collection[ServerId] = (),
    units: Mapping[ServerId, str] | None = None,
) -> tuple[frozenset[str], ...]:
    """Return the minimal sets of further failures that stop the cluster, the smallest first.

    Args:
        halves: the voter sets that each need a majority; empty ones ask for nothing.
        dead: servers that have failed already.
        units: the unit (zone) of each server, to have sets of units that fail as a whole. Servers
            that are not in it, or in the unit `""`, fail with no unit. None for sets of servers.

    Returns:
        At most `FATAL_SETS_MAX` sets, see `count_fatal_sets` for how many there are. The empty set
        alone if there is no quorum already; nothing if the units together cannot stop it.
    """
    groups, needed = _groups(halves, dead, units)
    shapes = sorted(_minimal_shapes(list(groups), needed, groups), key=sum)
    found = (
        frozenset(members)
        for shape in shapes
        for members in _members(list(zip(groups.values(), shape, strict=True)))
    )
    return tuple(
        sorted(islice(found, FATAL_SETS_MAX), key=lambda members: (len(members), sorted(members)))
    )


def count_fatal_sets(
    halves: Sequence[Collection[ServerId]],
    dead: Collection[ServerId] = (),
    units: Mapping[ServerId, str] | None = None,
) -> int:
    """Return how many sets `fatal_sets` would return if it did not stop at `FATAL_SETS_MAX`."""
    groups, needed = _groups(halves, dead, units)
    sizes = [len(members) for members in groups.values()]
    total = 0
    for shape in _minimal_shapes(list(groups), needed, groups):
        ways = 1
        for size, count in zip(sizes, shape, strict=True):
            ways *= comb(size, count)
        total += ways
    return total


def _asking(halves: Sequence[Collection[ServerId]]) -> list[frozenset[ServerId]]:
    return [frozenset(half) for half in halves if half]


def _alive(half: Collection[ServerId], dead: Collection[ServerId]) -> frozenset[ServerId]:
    return frozenset(half).difference(dead)


def _includes(choice: FatalChoice, other: FatalChoice) -> bool:
    """Return whether every set of `choice` contains a set of `other`."""
    return choice.count - len(choice.servers - other.servers) >= other.count


def _groups(
    halves: Sequence[Collection[ServerId]],
    dead: Collection[ServerId],
    units: Mapping[ServerId, str] | None,
) -> tuple[dict[_Loss, list[str]], _Loss]:
    """Return what can fail, grouped by what it takes from each half, and what each half can lack.

    The second value is the loss that stops a half: for no half more than it has alive, at least 0.
    """
    asking = _asking(halves)
    alive = [_alive(half, dead) for half in asking]
    needed = tuple(
        max(0, len(living) - majority(len(half)) + 1)
        for half, living in zip(asking, alive, strict=True)
    )
    losses: dict[str, list[int]] = {}
    for position, living in enumerate(alive):
        for server in living:
            unit = server if units is None else units.get(server, "")
            if unit:
                losses.setdefault(unit, [0] * len(alive))[position] += 1
    groups: dict[_Loss, list[str]] = {}
    for unit, loss in sorted(losses.items()):
        groups.setdefault(tuple(loss), []).append(unit)
    # What takes most comes first: it reaches the end of a search soonest.
    return dict(sorted(groups.items(), key=lambda group: (-sum(group[0]), group[0]))), needed


def _minimal_shapes(
    kinds: Sequence[_Loss], needed: _Loss, groups: Mapping[_Loss, Sequence[str]]
) -> Iterator[tuple[int, ...]]:
    """Yield how many of each kind fail together in the minimal fatal sets."""

    def is_fatal(loss: Sequence[int]) -> bool:
        # Without any voter there is no quorum.
        return not needed or any(lost >= enough for lost, enough in zip(loss, needed, strict=True))

    def is_minimal(shape: Sequence[int], loss: _Loss) -> bool:
        return not any(
            is_fatal([lost - less for lost, less in zip(loss, kind, strict=True)])
            for kind, count in zip(kinds, shape, strict=False)
            if count
        )

    def search(shape: tuple[int, ...], loss: _Loss) -> Iterator[tuple[int, ...]]:
        if is_fatal(loss):
            # With anything more it would not be minimal any longer.
            if is_minimal(shape, loss):
                yield shape + (0,) * (len(kinds) - len(shape))
            return
        if len(shape) == len(kinds):
            return
        kind = kinds[len(shape)]
        for count in range(len(groups[kind]) + 1):
            more = tuple(lost + count * less for lost, less in zip(loss, kind, strict=True))
            yield from search((*shape, count), more)
            if is_fatal(more):
                break

    yield from search((), (0,) * len(needed))


def _members(choices: Sequence[tuple[Sequence[str], int]]) -> Iterator[tuple[str, ...]]:
    """Yield every way to take so many of each group, one after the other."""
    if not choices:
        yield ()
        return
    (group, count), *rest = choices
    for some in combinations(group, count):
        for others in _members(rest):
            yield (*some, *others)
