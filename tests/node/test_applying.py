"""A new server stores its log first and applies it then; whoever has a vote does both at once."""

from __future__ import annotations

import pytest

from raftd import applying
from raftd.applying import PUT_OFF_TICKS
from raftd.core import leader as leader_module
from tests.node.growing import fill
from tests.node.world import ELECTION_TICKS, Server, World, new

WRITES = 30


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    # What a server lacks takes many messages.
    monkeypatch.setattr(leader_module, "APPEND_ENTRIES_MAX", 2)
    return World()


def given_a_log(world: World) -> Server:
    """Return a learner at the moment when it has all of the log."""
    leader = world.form(3)
    fill(world, WRITES)
    joining = world.boot("n4")
    world.started(world.change("add", new("n4", "learner")))
    world.until(lambda: joining.disk.last_index >= WRITES)
    assert joining.disk.last_index == leader.disk.last_index
    return joining


def test_a_new_server_applies_its_log_once_it_has_all_of_it(world: World) -> None:
    joining = given_a_log(world)
    assert joining.running.raft.log.commit_index >= WRITES
    assert joining.state.applied_index == 0
    # Nobody has to wake it up: it has nothing to do.
    assert not joining.running.is_behind
    world.run(PUT_OFF_TICKS + 1)
    assert joining.state.applied_index == world.leader().state.applied_index


@pytest.mark.parametrize(
    ("limit", "most"), [("PUT_OFF_ENTRIES_MAX", 5), ("PUT_OFF_BYTES_MAX", 1_000)]
)
def test_no_more_than_so_much_waits_to_be_applied(
    world: World, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(applying, limit, most)
    joining = given_a_log(world)
    assert joining.state.applied_index > WRITES / 2


def test_a_learner_that_has_caught_up_applies_what_comes_in(world: World) -> None:
    world.form(3, learners=1)
    for _ in range(5):
        fill(world, 1)
        world.run(1)
        assert world["n4"].state.applied_index == world.leader().state.applied_index


def test_a_voter_that_was_away_applies_what_comes_in(world: World) -> None:
    """It may have to lead at any moment."""
    world.form(3)
    follower = world["n3"]
    follower.kill()
    world.run(2 * ELECTION_TICKS)
    fill(world, WRITES)
    follower.start()
    world.until(lambda: follower.disk.last_index >= WRITES)
    assert follower.state.applied_index == world.leader().state.applied_index
