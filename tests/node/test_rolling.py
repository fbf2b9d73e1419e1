"""Rolling operations on live clusters: who may change what, and what outlives a leader."""

from __future__ import annotations

import attrs
import pytest

from raftd.commands import (
    ABORTED,
    DONE,
    FEATURES_MAX,
    ROLLING_COMMAND_BYTES_MAX,
    ROLLING_REPLACE,
    ROLLING_RESTART,
    RUNNING,
    BeginRolling,
    Operation,
    Rolling,
    RollingStep,
    decode_command,
)
from raftd.core.types import EntryKind
from raftd.planning import MEMBERS_MAX
from raftd.protocol import (
    AbortReply,
    AbortRequest,
    BeginRollingRequest,
    ChangeReply,
    ErrorReply,
    RollingReply,
    UpdateRollingRequest,
    WriteReply,
)
from raftd.replies import TEXT_BYTES_MAX
from tests.node.asking import refused, to
from tests.node.world import Server, World, drop, is_joint, new

FIRST = "op-2"
"""The operation after the one that formed the cluster."""
STEPS = (
    RollingStep(name="n2", replacement="n4=n4:7100"),
    RollingStep(name="n3", replacement="n5=n5:7100"),
)


@pytest.fixture
def world() -> World:
    world = World(features_max=FEATURES_MAX)
    world.form(3)
    world.until(lambda: {server.state.features for server in world.up()} == {FEATURES_MAX})
    for name in ("n4", "n5"):
        world.boot(name)
    return world


def begin(world: World, steps: tuple[RollingStep, ...] = STEPS) -> BeginRollingRequest:
    return BeginRollingRequest(
        session="s",
        serial=world.serial("s"),
        kind=ROLLING_REPLACE,
        author="ann",
        steps=steps,
        reason="old disks",
    )


def restart(world: World, **more: object) -> BeginRollingRequest:
    fields = {"kind": ROLLING_RESTART, "command": "true", "steps": (RollingStep(name="n2"),)}
    return attrs.evolve(begin(world), **{**fields, **more})


def update(world: World, action: str, version: int, **more: object) -> UpdateRollingRequest:
    return UpdateRollingRequest(
        session="s",
        serial=world.serial("s"),
        operation=FIRST,
        action=action,
        author="ann",
        version=version,
        **more,
    )


def begun(world: World) -> None:
    """Begin a rolling operation and its first step."""
    assert world.call(world.leader(), begin(world)) == RollingReply(operation=FIRST, version=1)
    step = RollingStep(name="n2", state=RUNNING)
    reply = world.call(world.leader(), update(world, "step", 1, step=step))
    assert reply == RollingReply(operation=FIRST, version=2)


def record(server: Server) -> Operation:
    found = server.state.operation(FIRST)
    assert found is not None
    return found


def rolling(server: Server) -> Rolling:
    found = record(server).rolling
    assert found is not None
    return found


def error(world: World, request: object) -> ErrorReply:
    reply = world.call(world.leader(), request)
    assert isinstance(reply, ErrorReply), reply
    return reply


# --- beginning --------------------------------------------------------------------------------


def test_every_server_has_the_record_and_says_so_in_its_status(world: World) -> None:
    begun(world)
    world.until(world.is_settled)
    for name in ("n1", "n2", "n3"):
        view = world[name].status.rolling
        assert view is not None
        assert (view.record.id, view.step) == (FIRST, "rolling")
        assert (view.record.author, view.record.reason) == ("ann", "old disks")
        assert [step.state for step in rolling(world[name]).steps] == [RUNNING, "pending"]
        assert world[name].status.operation is None
    world.call(world.leader(), update(world, "pause", 2, reason="lunch"))
    view = world.leader().status.rolling
    assert view is not None
    assert view.step == "paused"


def test_the_times_of_steps_are_those_of_the_leader(world: World) -> None:
    begun(world)
    world.run(20)
    before_ms = world.wall_clock_ms()
    world.call(world.leader(), update(world, "step", 2, step=RollingStep(name="n2", state=DONE)))
    step = rolling(world.leader()).steps[0]
    assert record(world.leader()).phases[0].time_ms <= step.started_ms < before_ms
    assert before_ms <= step.ended_ms <= world.wall_clock_ms()


def test_without_the_features_nothing_is_appended() -> None:
    world = World(features_max=0)
    world.form(3)
    reply = refused(world, begin(world))
    assert (reply.code, "version 3" in reply.cause) == ("refused", True)
    assert refused(world, update(world, "pause", 1)).code == "refused"


def test_of_the_steps_that_a_client_sends_only_names_and_replacements_get_into_the_log(
    world: World,
) -> None:
    forged = tuple(
        attrs.evolve(step, state="done", operation="op-9", ended_ms=7, note="x" * TEXT_BYTES_MAX)
        for step in STEPS
    )
    leader = world.leader()
    assert world.call(leader, begin(world, forged)) == RollingReply(operation=FIRST, version=1)
    log = leader.running.raft.log
    (body,) = [
        body
        for entry in log.entries(log.base_index + 1, log.last_index)
        if entry.kind is EntryKind.COMMAND
        and isinstance(body := decode_command(entry.data).body, BeginRolling)
    ]
    assert body.steps == STEPS


def test_a_request_that_is_sent_again_does_nothing_twice(world: World) -> None:
    beginning = begin(world)
    for _ in range(2):
        assert world.call(world.leader(), beginning) == RollingReply(operation=FIRST, version=1)
    pause = update(world, "pause", 1)
    for _ in range(2):
        assert world.call(world.leader(), pause) == RollingReply(operation=FIRST, version=2)
    assert rolling(world.leader()).version == 2
    assert [one.id for one in world.leader().state.operations()] == ["op-1", FIRST]


def test_each_change_is_told_its_own_version_although_another_one_follows_at_once(
    world: World,
) -> None:
    begun(world)
    leader = world.leader()
    step = update(world, "step", 2, step=RollingStep(name="n2", state=DONE))
    both = [world.ask_later(leader, one) for one in (step, update(world, "pause", 3))]
    world.until(lambda: not any(asked.open for asked in both))
    assert [asked.reply for asked in both] == [
        RollingReply(operation=FIRST, version=3),
        RollingReply(operation=FIRST, version=4),
    ]


def test_a_follower_sends_the_driver_to_the_leader(world: World) -> None:
    for request in (begin(world), update(world, "pause", 1)):
        reply = world.call(world["n2"], request)
        assert isinstance(reply, ErrorReply)
        assert (reply.code, reply.leader) == ("not-leader", world.leader().id)


# --- other changes meanwhile --------------------------------------------------------------------


def test_another_change_is_refused_before_it_is_in_the_log(world: World) -> None:
    begun(world)
    reply = refused(world, world.change("remove", drop("n3")))
    assert (reply.code, reply.operation) == ("refused", FIRST)
    assert "0 of 2 steps" in reply.cause
    assert f"rolling pause {FIRST}" in reply.hint
    result = error(world, begin(world))
    assert (result.code, result.operation) == ("refused", FIRST)


def test_a_step_begins_and_names_its_parent(world: World) -> None:
    begun(world)
    request = world.change("replace", drop("n2"), new("n4"), parent=FIRST)
    operation = world.started(request)
    assert world.finish(operation).parent == FIRST
    assert record(world.leader()).running
    assert world.configuration_of(world.leader())[0] == {"n1", "n3", "n4"}
    assert (
        world.finish(
            world.started(world.change("replace", drop("n3"), new("n5"), parent=FIRST))
        ).result
        == "done"
    )


def test_a_step_of_nothing_that_runs_is_refused_before_it_is_in_the_log(world: World) -> None:
    change = ("replace", drop("n2"), new("n4"))
    reply = refused(world, world.change(*change, parent="op-1"))
    assert (reply.code, reply.operation) == ("refused", "op-1")
    begun(world)
    world.call(world.leader(), update(world, "pause", 2))
    reply = refused(world, world.change(*change, parent=FIRST))
    assert "paused by ann" in reply.cause
    assert f"rolling resume {FIRST}" in reply.hint
    assert refused(world, world.change(*change, parent="op-1")).operation == "op-1"


def test_while_it_is_paused_another_change_goes_through(world: World) -> None:
    begun(world)
    world.call(world.leader(), update(world, "pause", 2))
    world.passes = lambda envelope: not to(envelope, "n4")
    operation = world.started(world.change("add", new("n4")))
    reply = error(world, update(world, "resume", 3))
    assert (reply.code, reply.operation) == ("refused", operation)
    world.passes = lambda envelope: True
    assert world.finish(operation).result == "done"
    assert world.call(world.leader(), update(world, "resume", 3)) == RollingReply(
        operation=FIRST, version=4
    )


# --- two drivers, and leaders that die ----------------------------------------------------------


def test_whoever_has_not_seen_the_latest_version_is_refused(world: World) -> None:
    begun(world)
    world.call(world.leader(), attrs.evolve(update(world, "resume", 2), author="bob"))
    reply = error(world, update(world, "step", 2, step=RollingStep(name="n2", state=DONE)))
    assert (reply.code, reply.operation) == ("refused", FIRST)
    assert "version 3" in reply.cause
    assert "driven by bob" in reply.cause
    assert rolling(world.leader()).steps[0].state == RUNNING


def test_the_record_and_its_step_outlive_the_leader(world: World) -> None:
    begun(world)
    world.passes = lambda envelope: not to(envelope, "n4")
    operation = world.started(world.change("replace", drop("n2"), new("n4"), parent=FIRST))
    old = world.leader()
    old.kill()
    world.passes = lambda envelope: True
    leader = world.leader()
    assert leader is not old
    assert world.finish(operation).result == "done"
    assert (rolling(leader).version, record(leader).running) == (2, True)
    step = RollingStep(name="n2", state=DONE, operation=operation)
    assert world.call(leader, update(world, "step", 2, step=step)) == RollingReply(
        operation=FIRST, version=3
    )


def test_the_record_outlives_a_restart_of_everybody(world: World) -> None:
    begun(world)
    world.until(world.is_settled)
    before = record(world.leader())
    for name in ("n1", "n2", "n3"):
        world[name].kill()
    for name in ("n1", "n2", "n3"):
        world[name].start()
    leader = world.leader()
    world.until(lambda: leader.status.rolling is not None)
    assert record(leader) == before
    assert refused(world, world.change("remove", drop("n3"))).operation == FIRST


# --- abort --------------------------------------------------------------------------------------


def aborting(world: World, operation: str = FIRST) -> AbortRequest:
    return AbortRequest(session="", serial=0, operation=operation, author="bob", reason="enough")


def test_an_abort_ends_it_and_undoes_the_step_that_catches_up(world: World) -> None:
    begun(world)
    before = world.configuration_of(world.leader())
    world.passes = lambda envelope: not to(envelope, "n4")
    operation = world.started(world.change("replace", drop("n2"), new("n4"), parent=FIRST))
    assert world.call(world.leader(), aborting(world)) == AbortReply(operation=FIRST)
    assert (record(world.leader()).result, record(world.leader()).running) == (ABORTED, False)
    assert world.finish(operation).result == "aborted"
    assert world.configuration_of(world.leader()) == before
    world.passes = lambda envelope: True
    assert world.finish(world.started(world.change("replace", drop("n2"), new("n4")))).result
    assert error(world, update(world, "resume", 3)).cause.startswith(f"{FIRST} has ended")


def test_an_abort_takes_back_a_joint_step_whose_new_half_is_dead(world: World) -> None:
    world.until(world.is_settled)
    for name in ("n1", "n2", "n3"):
        assert world[name].state.features == FEATURES_MAX
    steps = (RollingStep(name="n2", replacement="n4=n4:7100"),)
    world.call(world.leader(), begin(world, steps))
    before = world.configuration_of(world.leader())

    # Nobody stores C_old,new: the abort could never be committed under it.
    world.passes = lambda envelope: not is_joint(envelope)
    operation = world.started(world.change("replace", drop("n2"), new("n4"), parent=FIRST))
    leader = world.leader()
    world.until(lambda: world.configuration_of(leader)[1])
    world.ask(leader, aborting(world))
    assert not world.configuration_of(leader)[1], "it is taken back at once"
    world.passes = lambda envelope: True
    assert world.finish(operation).result == "aborted"
    world.until(lambda: not record(leader).running)
    assert world.configuration_of(leader) == before
    assert isinstance(world.call(world.leader(), world.put("a")), WriteReply)


def test_an_abort_without_a_name_means_the_rolling_operation_if_no_step_runs(world: World) -> None:
    begun(world)
    request = AbortRequest(session="s", serial=world.serial("s"), operation="", author="bob")
    assert world.call(world.leader(), request) == AbortReply(operation=FIRST)


def test_aborting_the_step_leaves_the_rolling_operation_to_its_driver(world: World) -> None:
    begun(world)
    world.passes = lambda envelope: not to(envelope, "n4")
    operation = world.started(world.change("replace", drop("n2"), new("n4"), parent=FIRST))
    world.call(world.leader(), aborting(world, operation))
    assert world.finish(operation).result == "aborted"
    assert record(world.leader()).running
    assert isinstance(
        world.call(world.leader(), world.change("replace", drop("n2"), new("n4"), parent=FIRST)),
        ChangeReply,
    )


# --- what is wrong in itself --------------------------------------------------------------------

MANY = tuple(
    RollingStep(name=f"n{number}", replacement=f"m{number}=h:{number}")
    for number in range(1, MEMBERS_MAX + 2)
)
BAD_BEGINNINGS = [
    {"kind": "rolling-stones"},
    {"steps": ()},
    {"kind": ROLLING_REPLACE, "command": "", "steps": MANY},
    {"kind": ROLLING_REPLACE, "command": ""},
    {"kind": ROLLING_REPLACE, "steps": STEPS},
    {"kind": ROLLING_REPLACE, "command": "", "steps": (*STEPS, STEPS[0])},
    {"command": ""},
    {"command": " "},
    {"command": "x" * (ROLLING_COMMAND_BYTES_MAX + 1)},
    {"steps": STEPS},
    {"steps": (RollingStep(name="N2"),)},
    {"author": "x" * (TEXT_BYTES_MAX + 1)},
    {"session": ""},
]


@pytest.mark.parametrize("fields", BAD_BEGINNINGS)
def test_a_beginning_that_is_wrong_in_itself_is_refused(world: World, fields: dict) -> None:
    before = world.leader().status.last_index
    assert error(world, restart(world, **fields)).code == "invalid"
    assert world.leader().status.last_index == before


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": "x" * (TEXT_BYTES_MAX + 1)},
        {"step": RollingStep(name="n2", note="x" * (TEXT_BYTES_MAX + 1))},
        {"step": RollingStep(name="n2", version_after="x" * (TEXT_BYTES_MAX + 1))},
        {"session": ""},
    ],
)
def test_a_change_that_is_wrong_in_itself_is_refused(world: World, fields: dict) -> None:
    begun(world)
    before = world.leader().status.last_index
    request = attrs.evolve(update(world, "step", 2), **fields)
    assert error(world, request).code == "invalid"
    assert world.leader().status.last_index == before
    assert rolling(world.leader()).version == 2
