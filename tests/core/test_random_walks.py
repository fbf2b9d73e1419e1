"""Random walks over a group under faults: what must hold holds after every input.

Each walk has one to six servers, random delivery order, loss, duplication, power losses in the
gaps of a Ready, partitions, and membership changes of any size, aborted and transferred at random;
snapshots are taken, logs compacted, snapshots sent and installed, at random times too. The
invariants of each server, Election Safety, Leader Completeness, State Machine Safety, Log Matching
(Figure 3 of the paper), fresh reads, and that an installed state is the one that others have
applied, are checked all along; at the end everybody comes back and the group has to become whole.
A failure names its seed: `Walk(seed).run()` repeats it.
"""

from __future__ import annotations

import pytest

from raftd.core.leader import Leader
from tests.core.walks import MidChangeWalk, SnapshotWalk, Walk

SEEDS_IN_A_BLOCK = 25


def _walk(kind: type[Walk], seeds: range) -> None:
    for seed in seeds:
        try:
            kind(seed).run()
        except Exception as failure:
            raise AssertionError(f"{kind.__name__}({seed}): {failure}") from failure


def _block(number: int, size: int = SEEDS_IN_A_BLOCK) -> range:
    return range(number * size, (number + 1) * size)


@pytest.mark.parametrize("block", range(12))
def test_what_must_hold_holds_under_random_faults(block: int) -> None:
    _walk(Walk, _block(block))


@pytest.mark.parametrize("block", range(8))
def test_what_must_hold_holds_when_a_leader_died_in_the_middle_of_a_change(block: int) -> None:
    _walk(MidChangeWalk, _block(block))


@pytest.mark.parametrize("block", range(6))
def test_what_must_hold_holds_while_snapshots_are_sent(block: int) -> None:
    _walk(SnapshotWalk, _block(block))


def test_the_walks_install_snapshots() -> None:
    """Else they would prove nothing about it."""
    walks = [SnapshotWalk(seed) for seed in range(20)]
    for walk in walks:
        walk.run()
    assert sum(walk.cluster.installed for walk in walks) > 20


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", [Walk, MidChangeWalk, SnapshotWalk])
@pytest.mark.parametrize("block", range(1000, 1100))
def test_what_must_hold_holds_for_long(block: int, kind: type[Walk]) -> None:
    _walk(kind, _block(block, 1000))


def test_the_walks_find_what_a_looser_abort_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A joint entry that is known to be committed is not reason enough to abort it.

    Some leader may have appended C_new, and may win with it alone, while C_old decides here.
    """
    strict = Leader.abort_obstacle

    def loose(leader: Leader) -> str:
        latest = leader._latest()
        known = leader._log.commit_index >= latest.index
        return "" if latest.configuration.is_joint and known else strict(leader)

    monkeypatch.setattr(Leader, "abort_obstacle", loose)
    with pytest.raises(AssertionError, match=r"two leaders|two entries committed|leader lacks"):
        _walk(MidChangeWalk, range(400))


def test_a_seed_gives_the_same_walk_again() -> None:
    def steps(seed: int) -> list[str]:
        log: list[str] = []
        Walk(seed, steps=150, log=log).run()
        return log

    assert steps(5) == steps(5)
    assert steps(5) != steps(6)
