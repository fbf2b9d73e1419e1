"""A leader whose published snapshot has gone bad while it runs."""

from __future__ import annotations

import logging

import pytest

from tests.node.growing import (
    assert_all_hold,
    fill,
    fill_until_compacted,
    snapshot_index_of,
    snapshot_world,
)
from tests.node.world import drop, new


def test_a_leader_replaces_a_snapshot_that_nobody_can_use(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = snapshot_world()
    leader = world.form(3)
    written = fill_until_compacted(world, leader)
    damaged_index = snapshot_index_of(leader)
    directory = leader.snapshots.directory
    node = leader.disk.files.node(directory.path_of(directory.latest.id))
    node.content[len(node.content) // 2] ^= 1
    # Something that the damaged one does not have yet.
    written |= fill(world, 1, first=1_000)

    world.boot("n4")
    world.started(world.change("replace", drop("n3"), new("n4")))

    with caplog.at_level(logging.WARNING):
        world.until(lambda: snapshot_index_of(leader) > damaged_index, 400, "another snapshot")
    assert "could not use it" in caplog.text
    world.until(
        lambda: any(voter.startswith("n4/") for voter in leader.status.configuration.voters),
        400,
        "the new server votes",
    )
    assert_all_hold(world, written)
