"""A driver may sleep through ticks in which nothing is due: the outcome is the same.

Looked at wherever random walks with faults and membership changes come by.
"""

from __future__ import annotations

import copy
from collections import Counter

import attrs
import pytest

from raftd.core.raft import Raft
from tests.core.harness import OPTIONS
from tests.core.scenario import settled_leader
from tests.core.walks import MidChangeWalk, SnapshotWalk, Walk

SAMPLED = 7
"""Every so many inputs the server that got one is looked at."""


class _Observed:
    """Looks at the servers of a walk between two of its inputs."""

    def __init__(self, walk: Walk) -> None:
        self.seen: Counter[str] = Counter()
        give = walk.cluster.give
        count = 0

        def look_and_give(server: str, action: object) -> object:
            nonlocal count
            count += 1
            if count % SAMPLED == 0 and server not in walk.cluster.down:
                self._look(walk.cluster.raft(server))
            return give(server, action)  # type: ignore[arg-type]

        walk.cluster.give = look_and_give  # type: ignore[method-assign, assignment]

    def _look(self, raft: Raft) -> None:
        quiet_ticks = raft.quiet_ticks()
        self.seen[type(raft.role).__name__] += quiet_ticks
        told, slept = copy.deepcopy(raft), copy.deepcopy(raft)
        for _ in range(quiet_ticks):
            told.tick()
            assert told.take_ready() is None, "something was due in a quiet tick"
        slept.pass_quietly(quiet_ticks)
        assert slept.status() == told.status()
        assert slept.quiet_ticks() == told.quiet_ticks() == 0
        for copied in (told, slept):
            copied.tick()
        assert slept.take_ready() == told.take_ready()


@pytest.mark.parametrize("kind", [Walk, MidChangeWalk, SnapshotWalk])
def test_ticks_in_which_nothing_is_due_may_pass_at_once(kind: type[Walk]) -> None:
    seen: Counter[str] = Counter()
    for seed in range(500, 504):
        walk = kind(seed)
        observed = _Observed(walk)
        walk.run()
        seen += observed.seen
    # Else it would prove nothing: followers sleep until their time-out, leaders between heartbeats.
    assert seen["Follower"] > 100


def test_a_leader_sleeps_between_two_heartbeats_of_several_ticks() -> None:
    """As servers do: a tick of theirs is a part of the heartbeat interval."""
    options = attrs.evolve(OPTIONS, heartbeat_ticks=3, election_ticks=30)
    told, slept = (settled_leader(options=options) for _ in range(2))
    for solo in (told, slept):
        solo.tick(3)
        for follower in "23":
            solo.acknowledge(follower)
    assert told.raft.quiet_ticks() == 2
    assert told.tick(2) == []
    slept.raft.pass_quietly(2)
    assert slept.work() == []
    assert slept.raft.status() == told.raft.status()
    assert [solo.raft.quiet_ticks() for solo in (told, slept)] == [0, 0]
    heartbeats = [solo.tick() for solo in (told, slept)]
    assert heartbeats[0] == heartbeats[1]
    assert sorted(envelope.dest for envelope in heartbeats[0]) == ["2", "3"]
