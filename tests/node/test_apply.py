"""A cluster file applied to live clusters: any number of servers by one joint change."""

from __future__ import annotations

import attrs
import pytest

from raftd.plan_views import CATCH_UP_ROUNDS
from raftd.planning import MEMBERS_MAX
from raftd.protocol import ChangeReply, ErrorReply, PlanView, TargetMember
from raftd.replies import CHANGES_MAX
from tests.node.asking import abort, refused
from tests.node.world import (
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    TICK_MS,
    World,
    become,
    is_joint,
    new,
)

MIB = 1024 * 1024


@pytest.fixture
def world() -> World:
    return World()


def target(voters: str, learners: str = "") -> tuple[TargetMember, ...]:
    return tuple(
        TargetMember(name=name, role=role, address=f"{name}:7100")
        for role, names in (("voter", voters), ("learner", learners))
        for name in names.split()
    )


def dry_run(world: World, *members: TargetMember, **more: object) -> PlanView:
    request = world.change("apply", target=members, dry_run=True, session="", serial=0, **more)
    reply = world.call(world.leader(), request)
    assert isinstance(reply, ChangeReply), reply
    assert reply.plan is not None
    return reply.plan


APPLIED = [
    ("n1 n2 n3 n5 n6", "n4"),
    ("n1 n2 n3", "n4 n5 n6"),
    ("n5 n6 n7", ""),
    ("n1 n4 n5", "n2 n6"),
    ("n4", ""),
    ("n2 n3", "n1 n4"),
    ("n1 n2 n3", ""),
]


@pytest.mark.parametrize(("voters", "learners"), APPLIED)
def test_a_file_is_applied_by_at_most_one_joint_change_and_then_changes_nothing(
    world: World, voters: str, learners: str
) -> None:
    world.form(3, learners=1)
    for name in ("n5", "n6", "n7"):
        world.boot(name)
    wanted = target(voters, learners)
    plan = dry_run(world, *wanted)
    before = world.leader().status.configuration.index
    record = world.finish(
        world.started(world.change("apply", target=wanted, at_index=plan.before.index))
    )
    assert (record.kind, record.result) == ("apply", "done"), record.explanation
    world.until(world.is_settled)
    leader = world.leader()
    after = (set(voters.split()), set(), set(learners.split()))
    assert world.configuration_of(leader) == after
    configurations = leader.running.raft.log.configurations.since(before)
    assert sum(item.configuration.is_joint for item in configurations) == plan.joint
    world.run(ELECTION_TICKS)
    world.open_session("t")
    last_index = world.leader().status.last_index
    request = world.change("apply", target=wanted, session="t", serial=1)
    reply = world.call(world.leader(), request)
    assert isinstance(reply, ChangeReply)
    assert reply.operation == ""
    assert reply.nothing_to_do.startswith(f"the cluster is as asked: voters {voters[:2]}")
    assert world.leader().status.last_index == last_index


def test_a_file_that_is_not_the_plan_any_more_is_refused(world: World) -> None:
    leader = world.form(3)
    index = leader.status.configuration.index
    world.finish(world.started(world.change("demote", become("n3", "learner"))))
    reply = refused(world, world.change("apply", target=target("n1 n2"), at_index=index))
    assert f"the configuration has moved since index {index}" in reply.message


def test_one_typo_in_a_file_leaves_the_log_untouched(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    index = leader.status.configuration.index
    reply = refused(world, world.change("apply", target=target("n1 n2 n4 n5")))
    assert "no raftd answers at n5:7100" in reply.message
    assert leader.status.configuration.index == index
    assert world["n4"].status.role == "blank"


def test_all_servers_that_may_not_come_in_are_named_at_once() -> None:
    # Members can be readdressed from version 3 on.
    world = World(features_max=3)
    leader = world.form(3)
    world.until(lambda: all(server.state.features == 3 for server in world.up()))
    world.boot("n5")
    last_index = leader.status.last_index
    moved = [attrs.evolve(one, address="n3:9") for one in target("n3")]
    wanted = (*target("n1 n2 n4 n5", "n6"), *moved)
    reply = refused(world, world.change("apply", target=wanted))
    assert reply.code == "refused"
    assert reply.message == (
        "cannot bring in n4: no raftd answers at n4:7100; "
        "cannot bring in n6: no raftd answers at n6:7100; "
        "cannot readdress n3: no raftd answers at n3:9"
    )
    assert [line.split(":")[0] for line in reply.cause.splitlines()] == [
        "n4 at n4",
        "n6 at n6",
        "n3 at n3",
    ]
    assert reply.hint.count("\n") == 2
    assert leader.status.last_index == last_index


def test_a_wiped_server_of_the_file_is_not_silently_taken_for_the_member(world: World) -> None:
    world.form(3)
    lost = world["n3"]
    lost.kill()
    world.boot("n3")
    world.boot("n4")
    world.run(ELECTION_TICKS)
    for wanted in ("n1 n2 n3", "n1 n2 n3 n4"):
        reply = refused(world, world.change("apply", target=target(wanted)))
        assert "another disk answers at n3:7100" in reply.message
        assert lost.id in reply.cause
        assert reply.hint == "raftctl replace n3 n3=n3:7100"
    # Without it the file can be applied.
    record = world.finish(world.started(world.change("apply", target=target("n1 n2 n4"))))
    assert record.result == "done"


def test_a_server_of_the_file_that_is_down_is_named_and_no_obstacle(world: World) -> None:
    leader = world.form(3)
    world["n3"].kill()
    world.run(ELECTION_TICKS)
    reply = world.call(leader, world.change("apply", target=target("n1 n2 n3")))
    assert isinstance(reply, ChangeReply)
    assert reply.nothing_to_do.endswith("; n3 does not answer")
    world.boot("n4")
    world.boot("n5")
    plan = dry_run(world, *target("n1 n2 n3 n4 n5"))
    assert "n3 does not answer now: connection refused" in plan.warnings
    record = world.finish(world.started(world.change("apply", target=target("n1 n2 n3 n4 n5"))))
    assert record.result == "done"


def test_a_file_that_would_lose_the_quorum_is_unsafe(world: World) -> None:
    world.form(3)
    world["n3"].kill()
    world.run(ELECTION_TICKS)
    reply = refused(world, world.change("apply", target=target("n1 n3")))
    assert reply.code == "unsafe"
    assert "n1, n3 need 2 of 2" in reply.cause


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"target": ()}, "names a target and no changes"),
        ({"changes": (new("n4"),)}, "names a target and no changes"),
        ({"kind": "add", "changes": ()}, "the other way round"),
        ({"target": target(" ".join(f"m{n}" for n in range(CHANGES_MAX + 1)))}, "at most 64"),
        ({"zones": {f"m{n}": "east" for n in range(CHANGES_MAX + 1)}}, "at most 64"),
        ({"zones": {"n1": "z" * 2000}}, "a text of 2000 bytes"),
        ({"parent": "p" * 2000}, "a text of 2000 bytes"),
        (
            {"target": (TargetMember(name="n" * 2000, role="voter", address="n1:7100"),)},
            "a text of 2000 bytes",
        ),
    ],
)
def test_a_request_beyond_its_bounds_is_not_even_looked_at(
    world: World, more: dict[str, object], problem: str
) -> None:
    leader = world.bootstrap("n1")
    values = {"kind": "apply", "changes": (), "target": target("n1"), **more}
    kind, changes = values.pop("kind"), values.pop("changes")
    reply = world.call(leader, world.change(kind, *changes, **values))
    assert isinstance(reply, ErrorReply)
    assert reply.code == "invalid"
    assert problem in reply.cause


def test_a_target_that_is_no_cluster_is_refused_in_words(world: World) -> None:
    world.bootstrap("n1")
    many = target(" ".join(f"m{n}" for n in range(MEMBERS_MAX + 1)))
    reply = refused(world, world.change("apply", target=many))
    assert (reply.code, reply.cause) == ("invalid", "a cluster has 1 to 32 servers")


# --- what the leader knows ----------------------------------------------------------------------


def test_the_plan_knows_the_zones_of_the_servers_that_it_asks() -> None:
    world = World(zone="east")
    world.form(2)
    world.boot("n3")
    plan = dry_run(world, *target("n1 n2 n3"))
    # n2 was not asked: only n1, which leads, and n3 have said where they are.
    assert any("zone east has 2 of 3 voters (n1, n3)" in text for text in plan.warnings)
    plan = dry_run(world, *target("n1 n2 n3"), zones={"n1": "north", "n2": "west"})
    assert not any("zone" in text for text in plan.warnings)


def test_the_plan_says_how_much_a_new_server_has_to_receive_and_how_long_it_takes() -> None:
    world = World(catch_up_bytes_per_second=MIB)
    leader = world.form(3)
    for number in range(20):
        world.call(leader, world.put(f"k{number}", "v" * 50_000))
    world.boot("n4")
    world.boot("n5")
    log_bytes = leader.running.raft.log.size_bytes
    assert log_bytes > 1_000_000
    plan = dry_run(world, *target("n1 n2 n3 n4 n5"))
    assert plan.bytes_to_copy == pytest.approx(2 * log_bytes, rel=0.01)
    heartbeat_ms = HEARTBEAT_TICKS * TICK_MS
    sending_ms = log_bytes * 1000 / MIB
    expected_ms = sending_ms + (3 + CATCH_UP_ROUNDS) * heartbeat_ms
    assert plan.expected_ms == pytest.approx(expected_ms, rel=0.01)


def test_the_plan_knows_that_a_snapshot_is_sent_once_the_log_is_shorter() -> None:
    world = World(
        catch_up_bytes_per_second=MIB,
        snapshot_log_bytes=100_000,
    )
    leader = world.form(3)
    for number in range(20):
        world.call(leader, world.put(f"k{number}", "v" * 50_000))
    world.until(lambda: leader.running.raft.log.base_index > 0)
    world.boot("n4")
    plan = dry_run(world, *target("n1 n2 n3 n4"))
    raft = leader.running.raft
    snapshot_bytes = raft.snapshot.id.size_bytes
    log_bytes = raft.log.bytes_between(raft.snapshot_index, raft.log.last_index)
    assert plan.bytes_to_copy == snapshot_bytes + log_bytes
    # It is worked in while it is received.
    expected_ms = (snapshot_bytes + log_bytes) * 1000 / MIB
    expected_ms += (3 + CATCH_UP_ROUNDS) * HEARTBEAT_TICKS * TICK_MS
    assert plan.expected_ms == pytest.approx(expected_ms, rel=0.01)


def test_a_server_that_has_its_data_still_is_not_counted_as_empty() -> None:
    world = World(catch_up_bytes_per_second=MIB)
    leader = world.form(3)
    for number in range(10):
        world.call(leader, world.put(f"k{number}", "v" * 50_000))
    world.boot("n4")
    world.finish(world.started(world.change("add", new("n4", "learner"))))
    world.until(world.is_settled)
    assert dry_run(world, *target("n1 n2 n3 n4")).bytes_to_copy == 0
    # One that was let in and whose vote was undone comes again with what it has.
    world.boot("n5")
    world.passes = lambda envelope: not is_joint(envelope)
    operation = world.started(world.change("add", new("n5")))
    world.until(lambda: leader.running.raft.configuration.configuration.is_joint)
    world.ask(leader, abort(world, operation))
    world.passes = lambda envelope: True
    assert world.finish(operation).result == "aborted"
    assert world["n5"].status.last_index > 10
    assert dry_run(world, *target("n1 n2 n3 n5")).bytes_to_copy < 50_000


def test_a_new_server_of_an_older_release_is_not_let_in_once_it_could_not_follow() -> None:
    world = World(features_max=3)
    leader = world.form(3)
    world.until(lambda: leader.state.features == 3)
    old = world.boot("n4")
    status = old.running.status()
    old.running.status = lambda: attrs.evolve(status, protocol_version_max=2)
    reply = refused(world, world.change("apply", target=target("n1 n2 n3 n4")))
    assert "its release is too old" in reply.message
    assert "versions up to 2" in reply.cause
    assert "features of version 3" in reply.cause
