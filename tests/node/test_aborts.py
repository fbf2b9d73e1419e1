"""Operations that are undone, by request and by themselves."""

from __future__ import annotations

import re

import attrs
import pytest

from raftd.core.messages import AppendEntriesResponse
from raftd.planning import TEXT_CHARACTERS_MAX
from raftd.protocol import (
    AbortReply,
    AbortRequest,
    ChangeReply,
    ErrorReply,
    WriteReply,
)
from raftd.replies import TEXT_BYTES_MAX
from tests.node.asking import abort, refused, to
from tests.node.world import (
    ELECTION_TICKS,
    JOINT_TICKS,
    Server,
    World,
    drop,
    is_final,
    is_joint,
    new,
)


@pytest.fixture
def world() -> World:
    return World()


def test_an_abort_without_an_operation_is_refused(world: World) -> None:
    world.form(3)
    reply = refused(world, abort(world))
    assert reply.message == "no operation is running"
    reply = world.call(world.leader(), abort(world, "op-7"))
    assert isinstance(reply, ErrorReply)
    assert "op-7" in reply.cause
    reply = world.call(world.leader(), abort(world, "op-1"))
    assert isinstance(reply, ErrorReply)
    assert "ended already: done" in reply.cause


def test_an_abort_while_joining_leaves_the_configuration_untouched(world: World) -> None:
    leader = world.form(3)
    before = leader.status.configuration
    world.boot("n4")
    world["n4"].power.fail_at_next = "publish"
    operation = world.started(world.change("add", new("n4")))
    assert world.call(leader, abort(world)) == AbortReply(operation=operation)
    record = world.finish(operation)
    assert record.result == "aborted"
    assert record.explanation.startswith(
        "aborted by bob: enough; the configuration was never touched; next: repeat"
    )
    assert leader.status.configuration == before


def test_an_abort_while_catching_up_removes_the_learners_again(world: World) -> None:
    leader = world.form(3, learners=1)
    before = leader.status.configuration
    world.boot("n5")
    world.passes = lambda envelope: not to(envelope, "n5")
    operation = world.started(world.change("add", new("n5")))
    assert world.configuration_of(leader)[2] == {"n4", "n5"}
    world.call(leader, abort(world, operation))
    record = world.finish(operation)
    assert record.result == "aborted"
    assert record.explanation.startswith(
        "aborted by bob: enough; restored: voters n1, n2, n3, learners n4; next: repeat"
    )
    assert attrs.evolve(leader.status.configuration, index=before.index) == before
    world.passes = lambda envelope: True
    assert world.finish(world.started(world.change("add", new("n5")))).result == "done"


def test_an_abort_while_joint_restores_the_old_configuration(world: World) -> None:
    leader = world.form(3)
    before = leader.status.configuration
    world.boot("n4")
    world.boot("n5")
    # C_old,new reaches a majority of the old half and not of the new one.
    world.passes = lambda envelope: not (is_joint(envelope) and to(envelope, "n3", "n4", "n5"))
    operation = world.started(world.change("add", new("n4"), new("n5")))
    world.until(lambda: leader.running.raft.configuration.configuration.is_joint)
    view = world.operation_view(operation)
    assert view.step == "committing-joint"
    assert (len(view.old.acknowledged), view.old.needed) == (2, 2)
    assert (len(view.new.acknowledged), view.new.needed) == (2, 3)
    world.call(leader, abort(world, operation))
    record = world.finish(operation)
    assert record.result == "aborted"
    assert record.explanation.startswith(
        "aborted by bob: enough; C_new has it on 2 of 5 and needs 3, without n3 (it answers), "
        "n4 (it answers), n5 (it answers); restored: voters n1, n2, n3, learners none; next: "
    )
    assert attrs.evolve(leader.status.configuration, index=before.index) == before


def hold_joint(world: World, leader: Server) -> str:
    """Begin to add four servers, whose acknowledgements of C_old,new are lost."""
    newcomers = ["n4", "n5", "n6", "n7"]
    for name in newcomers:
        if f"{name}:7100" not in world.servers:
            world.boot(name)
    ids = {world[name].id for name in newcomers}
    world.passes = lambda envelope: (
        not (
            envelope.source in ids
            and isinstance(envelope.message, AppendEntriesResponse)
            and leader.running.raft.configuration.configuration.is_joint
        )
    )
    operation = world.started(world.change("add", *map(new, newcomers)))
    world.until(lambda: leader.running.raft.configuration.configuration.is_joint)
    return operation


def test_an_abort_while_joint_needs_no_quorum(world: World) -> None:
    leader = world.form(3)
    operation = hold_joint(world, leader)
    world.cut()
    request = AbortRequest(
        session="", serial=0, operation=operation, author="bob", reason="x" * TEXT_BYTES_MAX
    )
    asked = world.ask_later(leader, request)
    leader.turn(tick=False)
    assert not leader.running.raft.configuration.configuration.is_joint
    assert asked.open
    world.heal()
    world.until(lambda: not asked.open)
    assert asked.reply == AbortReply(operation=operation)
    record = world.finish(operation)
    assert record.result == "aborted"
    assert record.explanation.startswith("aborted by bob: xxx")
    cause, _, _ = record.explanation.partition("; ")
    assert len(cause) == TEXT_CHARACTERS_MAX


def test_an_abort_of_a_session_that_is_not_open_undoes_nothing(world: World) -> None:
    leader = world.form(3)
    operation = hold_joint(world, leader)
    request = AbortRequest(session="never-opened", serial=1, operation=operation, author="bob")
    asked = world.ask(leader, request)
    world.passes = lambda envelope: True
    world.until(lambda: not asked.open)
    assert asked.error.code == "session-expired"
    assert world.finish(operation).result == "done"


def test_a_late_copy_of_an_abort_does_not_undo_the_next_joint_change(world: World) -> None:
    leader = world.form(3)
    first = hold_joint(world, leader)
    request = abort(world)
    asked = world.ask(leader, request)
    world.passes = lambda envelope: True
    assert world.finish(first).result == "aborted"
    assert asked.reply == AbortReply(operation=first)
    # The next request of the session acknowledges the answer to the first.
    second = hold_joint(world, leader)
    assert second != first
    late = world.ask(leader, request)
    world.passes = lambda envelope: True
    world.until(lambda: not late.open)
    assert "was acknowledged" in late.error.cause
    assert world.finish(second).result == "done"


def test_an_abort_that_took_effect_is_never_answered_as_refused(world: World) -> None:
    leader = world.form(3)
    operation = hold_joint(world, leader)
    request = abort(world, operation)
    # Applied just before it, a write of the same session says that the abort was answered.
    write = world.put("a")
    world.ask_later(leader, attrs.evolve(write, lowest_unacknowledged=write.serial))
    asked = world.ask(leader, request)
    assert not leader.running.raft.configuration.configuration.is_joint
    world.passes = lambda envelope: True
    world.until(lambda: not asked.open)
    assert asked.reply == AbortReply(operation=operation)
    assert world.finish(operation).result == "aborted"


def test_an_abort_past_the_point_of_no_return_is_refused_and_the_change_is_done(
    world: World,
) -> None:
    leader = world.form(3)
    world.passes = lambda envelope: not is_final(envelope)
    operation = world.started(world.change("remove", drop("n3")))
    world.until(lambda: leader.status.configuration.outgoing == ())
    assert world.operation_view(operation).step == "committing-final"
    reply = world.call(leader, abort(world, operation))
    assert isinstance(reply, ErrorReply)
    assert "past the point of no return" in reply.message
    world.passes = lambda envelope: True
    assert world.finish(operation).result == "done"


def test_an_abort_that_races_with_the_end_of_the_joint_state_ends_in_one_way(world: World) -> None:
    for turns in range(12):
        world = World(turns)
        leader = world.form(3)
        world.boot("n4")
        asked = world.ask_later(leader, world.change("add", new("n4")))
        for _ in range(turns):
            for server in world.up():
                server.turn(tick=False)
        aborted = world.ask_later(leader, abort(world))
        world.until(lambda asked=asked, aborted=aborted: not (asked.open or aborted.open))
        if not isinstance(asked.reply, ChangeReply):
            continue
        record = world.finish(asked.reply.operation)
        voters = world.configuration_of(world.leader())[0]
        expected = {"n1", "n2", "n3"} | ({"n4"} if record.result == "done" else set())
        assert voters == expected
        assert record.result in ("done", "aborted")
        assert world.configuration_of(world.leader())[1:] == (set(), set())


def replacement_that_is_not_stored(world: World) -> str:
    """Let n4, n5 and n6 replace all others, without getting C_old,new; return the operation."""
    for name in ("n4", "n5", "n6"):
        world.boot(name)
    world.passes = lambda envelope: not (is_joint(envelope) and to(envelope, "n4", "n5", "n6"))
    changes = [drop(f"n{n}") for n in (1, 2, 3)] + [new(f"n{n}") for n in (4, 5, 6)]
    return world.started(world.change("replace", *changes))


def test_a_lost_new_half_rolls_the_change_back_with_its_reason(world: World) -> None:
    leader = world.form(3)
    before = leader.status.configuration
    operation = replacement_that_is_not_stored(world)
    world.until(lambda: leader.running.raft.configuration.configuration.is_joint)
    for name in ("n4", "n5", "n6"):
        world[name].kill()
    write = world.ask(leader, world.put("a"))
    record = world.finish(operation)
    assert record.result == "aborted"
    first, state, restored, next_step = record.explanation.split("; ")
    assert first == (
        "no majority of the new voters stored C_old,new: 2 of 3 are needed, silent: n4, n5, n6"
    )
    silent = ", ".join(rf"{name} \(silent for 0\.[34] s\)" for name in ("n4", "n5", "n6"))
    assert re.fullmatch(f"C_new has it on 0 of 3 and needs 2, without {silent}", state)
    assert restored == "restored: voters n1, n2, n3, learners none"
    assert next_step.startswith("next: see with `raftctl status`")
    assert attrs.evolve(leader.status.configuration, index=before.index) == before
    world.until(lambda: not write.open)
    assert isinstance(write.reply, WriteReply)
    assert world.leader() is leader


def test_who_keeps_a_joint_change_waiting_is_named_meanwhile(world: World) -> None:
    leader = world.form(3)
    operation = replacement_that_is_not_stored(world)
    world.until(lambda: leader.running.raft.configuration.configuration.is_joint)
    # That an entry is on its way is no problem.
    assert world.operation_view(operation).blocked_by == ""
    for name in ("n4", "n5"):
        world[name].kill()
    world.run(ELECTION_TICKS - 2)
    assert world.operation_view(operation).blocked_by == (
        "C_new has it on 0 of 3 and needs 2, without n4 (silent for 0.3 s), "
        "n5 (silent for 0.3 s), n6 (it answers)"
    )
    record = world.finish(operation)
    assert "silent: n4, n5; C_new has it on 0 of 3" in record.explanation


def test_a_new_half_that_answers_but_stores_nothing_rolls_the_change_back(world: World) -> None:
    leader = world.form(3)
    operation = replacement_that_is_not_stored(world)
    record = world.finish(operation, 2 * JOINT_TICKS + 2 * ELECTION_TICKS)
    assert record.result == "aborted"
    assert "none is silent" in record.explanation
    assert world.leader() is leader


def test_an_aborted_server_may_come_in_again_and_a_removed_one_may_not(world: World) -> None:
    world.form(3)
    world.boot("n4")
    world.passes = lambda envelope: not to(envelope, "n4")
    operation = world.started(world.change("replace", drop("n3"), new("n4")))
    world.call(world.leader(), abort(world))
    assert world.finish(operation).result == "aborted"
    world.passes = lambda envelope: True
    record = world.finish(world.started(world.change("replace", drop("n3"), new("n4"))))
    assert record.result == "done"
    removed = world["n3"]
    world.until(lambda: removed.exit)
    assert removed.disk.identity.removed_index
