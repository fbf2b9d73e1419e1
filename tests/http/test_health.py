"""Which servers live, which are ready, and what those that are not say."""

from __future__ import annotations

import pytest

from raftd.core.messages import AppendEntries, Envelope
from raftd.http.health import LOOP_SECONDS_MAX, Check, Health, passes, report
from raftd.inputs import Received
from tests.http.sources import health_of, problems_of
from tests.node.world import ELECTION_TICKS, World, settings


@pytest.fixture
def world() -> World:
    world = World()
    world.form(3)
    return world


def test_every_member_of_a_cluster_that_works_is_ready(world):
    for server in world.up():
        assert problems_of(health_of(world, server)) == {}


def test_a_blank_server_is_not_ready_and_says_why():
    world = World()
    blank = world.boot("n1")
    assert problems_of(health_of(world, blank)) == {
        "member": "blank: it belongs to no cluster yet",
        "leader": "it knows no leader in term 0",
        "caught-up": "it has not heard yet what is committed",
    }


def test_a_follower_that_hears_nobody_is_not_ready_before_it_gives_its_leader_up(world):
    leader = world.leader()
    follower = next(server for server in world.up() if server is not leader)
    health = health_of(world, follower)
    world.cut([follower.name])

    said = []
    for _ in range(2 * ELECTION_TICKS + 1):
        world.tick()
        said.append(problems_of(health).get("leader", ""))

    # Ready for an election timeout, then not: first it still follows, then it knows nobody.
    assert said[: ELECTION_TICKS - 2] == [""] * (ELECTION_TICKS - 2)
    heard = f"{leader.name} leads, and was last heard 400ms ago; the election timeout is 400ms"
    assert heard in said
    assert said[-1].startswith("it knows no leader in term ")

    world.heal()
    world.until(lambda: not problems_of(health), what="it is ready again")


def test_a_leader_without_a_quorum_is_not_ready(world):
    leader = world.leader()
    health = health_of(world, leader)
    world.cut([leader.name])
    said = set()
    for _ in range(2 * ELECTION_TICKS):
        world.tick()
        said.add(problems_of(health).get("leader", ""))
    assert any(words.startswith("it knows no leader") for words in said), said


def test_a_server_is_ready_once_it_has_what_was_committed_when_it_was_started(world):
    leader = world.leader()
    follower = next(server for server in world.up() if server is not leader)
    health = health_of(world, follower)
    raft = follower.running.raft
    applied_index = follower.status.applied_index
    # The leader has committed two entries that are still on their way.
    follower.running.turn(
        [
            Received(
                Envelope(
                    leader.id,
                    follower.id,
                    AppendEntries(
                        term=raft.current_term,
                        prev_log_index=raft.log.last_index,
                        prev_log_term=raft.log.last_term,
                        entries=(),
                        leader_commit=applied_index + 2,
                        round=1,
                    ),
                )
            )
        ],
        tick=False,
    )
    assert problems_of(health) == {
        "caught-up": f"{applied_index} entries are applied of the {applied_index + 2} that were "
        "committed when it was started"
    }

    world.open_session("s")
    world.call(leader, world.put("a"))
    world.run(4)
    assert follower.status.applied_index >= applied_index + 2
    assert problems_of(health) == {}


def test_whoever_drains_is_alive_and_not_ready(world):
    health = health_of(world, world.leader(), draining=lambda: True)
    assert problems_of(health) == {"stopping": "it is told to stop, and drains"}


async def test_a_server_is_alive_while_its_driver_takes_turns(world, autojump_clock):
    assert [str(check) for check in await health_of(world, world.leader()).live()] == ["[+]loop ok"]


async def test_a_driver_that_takes_no_turn_makes_it_dead(world, autojump_clock):
    leader = world.leader()
    health = Health(
        leader.running, settings(leader.address), wake=lambda: None, is_draining=lambda: False
    )
    (check,) = await health.live()
    assert check == Check("loop", f"the driver has taken no turn for {LOOP_SECONDS_MAX:.0f} s")
    assert [each.name for each in await health.ready() if each.problem] == ["loop"]


def test_the_report_is_short_where_all_is_well_and_names_each_check_else():
    well, ill = Check("loop"), Check("leader", "nobody leads")
    assert report("readyz", [well], verbose=False) == "ok"
    assert report("readyz", [well], verbose=True) == "[+]loop ok\nreadyz check passed"
    for verbose in (False, True):
        assert report("readyz", [well, ill], verbose=verbose) == (
            "[+]loop ok\n[-]leader failed: nobody leads\nreadyz check failed"
        )
    assert passes([well])
    assert not passes([well, ill])
