"""Membership operations on live clusters: from the request to the record that has ended."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from raftd import operation_views, operations
from raftd.commands import CATCHING_UP, ENDED, JOINING, JOINT
from raftd.core.messages import AppendEntries, AppendEntriesResponse, Envelope, RequestVote
from raftd.core.types import server_name
from raftd.inputs import Contacted, LinkChanged, Received
from raftd.operations import CATCH_UP_ROUNDS_MAX, JOIN_ATTEMPTS_MAX
from raftd.planning import TEXT_CHARACTERS_MAX
from raftd.protocol import (
    AbortReply,
    ChangeReply,
    ChangeRequest,
    ErrorReply,
    JoinRequest,
    MemberChange,
    OperationsReply,
    OperationsRequest,
    StatusRequest,
    WriteReply,
)
from tests.node.asking import abort, refused, to
from tests.node.test_planning import FRAME
from tests.node.world import (
    CATCH_UP_TICKS,
    ELECTION_TICKS,
    EPOCH_MS,
    HEARTBEAT_TICKS,
    TICK_MS,
    Asked,
    Server,
    World,
    become,
    drop,
    is_joint,
    new,
)


@pytest.fixture
def world() -> World:
    return World()


# --- every kind of change -----------------------------------------------------------------------

CHANGES = [
    ("add", [new("n5")], "n1 n2 n3 n5", "n4"),
    ("add", [new("n5"), new("n6")], "n1 n2 n3 n5 n6", "n4"),
    ("add", [new("n5", "learner")], "n1 n2 n3", "n4 n5"),
    ("add", [new("n5"), new("n6", "learner")], "n1 n2 n3 n5", "n4 n6"),
    ("remove", [drop("n2")], "n1 n3", "n4"),
    ("remove", [drop("n1")], "n2 n3", "n4"),
    ("remove", [drop("n2"), drop("n3")], "n1", "n4"),
    ("remove", [drop("n4")], "n1 n2 n3", ""),
    ("remove", [drop("n3"), drop("n4")], "n1 n2", ""),
    ("replace", [drop("n2"), new("n5")], "n1 n3 n5", "n4"),
    ("replace", [drop("n1"), new("n5")], "n2 n3 n5", "n4"),
    ("replace", [drop("n4"), new("n5", "learner")], "n1 n2 n3", "n5"),
    ("replace", [drop("n1"), new("n5"), drop("n4"), new("n6", "learner")], "n2 n3 n5", "n6"),
    (
        "replace",
        [drop(f"n{n}") for n in (1, 2, 3)] + [new(f"n{n}") for n in (5, 6, 7)],
        "n5 n6 n7",
        "n4",
    ),
    ("promote", [become("n4", "voter")], "n1 n2 n3 n4", ""),
    ("demote", [become("n2", "learner")], "n1 n3", "n2 n4"),
    ("demote", [become("n1", "learner")], "n2 n3", "n1 n4"),
    ("demote", [become("n1", "learner"), become("n2", "learner")], "n3", "n1 n2 n4"),
    ("swap", [become("n1", "learner"), become("n4", "voter")], "n2 n3 n4", "n1"),
]


@pytest.mark.parametrize(("kind", "changes", "voters", "learners"), CHANGES)
def test_a_change_ends_as_planned_with_at_most_one_joint_configuration(
    world: World, kind: str, changes: list[MemberChange], voters: str, learners: str
) -> None:
    world.form(3, learners=1)
    for change in changes:
        if change.address:
            world.boot(change.name)
    before = world.leader().status.configuration.index
    record = world.finish(world.started(world.change(kind, *changes)))
    world.until(world.is_settled)
    leader = world.leader()
    assert record.result == "done"
    assert world.configuration_of(leader) == (set(voters.split()), set(), set(learners.split()))
    configurations = leader.running.raft.log.configurations.since(before)
    joint = [item for item in configurations if item.configuration.is_joint]
    assert len(joint) == record.plan.joint
    # Learners once, C_old,new once, C_new once; or one simple entry.
    brings_in = bool(record.plan.addresses)
    assert len(configurations) == (2 + brings_in if record.plan.joint else 1)
    assert isinstance(world.call(leader, world.put("a")), WriteReply)
    # Whoever was removed has a tombstone and ends, whoever was demoted has none and does not.
    removed = {change.name for change in changes if change.role == "remove"}
    tombstones = {s.name for s in world.servers.values() if leader.state.tombstone(s.id)}
    assert tombstones == removed
    world.until(lambda: {s.name for s in world.servers.values() if s.exit} == removed)


def test_init_brings_in_all_others_by_one_change(world: World) -> None:
    for number in range(1, 6):
        world.boot(f"n{number}")
    world.bootstrap("n1")
    others = [new(f"n{number}") for number in range(2, 5)] + [new("n5", "learner")]
    record = world.finish(world.started(world.change("init", *others)))
    assert record.result == "done"
    assert world.configuration_of(world.leader()) == ({"n1", "n2", "n3", "n4"}, set(), {"n5"})


def test_a_server_whose_disk_was_lost_is_replaced_by_its_own_new_incarnation(world: World) -> None:
    leader = world.form(3)
    lost = world["n3"]
    lost.kill()
    fresh = world.boot("n3")
    world.run(ELECTION_TICKS)
    views = {view.server: view.problem for view in leader.status.peers}
    assert f"here is {fresh.id}, not {lost.id}" in views[lost.id]
    record = world.finish(world.started(world.change("replace", drop("n3"), new("n3"))))
    assert record.result == "done"
    assert set(leader.status.configuration.voters) == {leader.id, world["n2"].id, fresh.id}
    assert leader.state.tombstone(lost.id)


def test_the_phases_of_a_record_are_in_order_with_their_times(world: World) -> None:
    world.form(3)
    world.boot("n4")
    record = world.finish(world.started(world.change("add", new("n4"))))
    assert [at.phase for at in record.phases] == [JOINING, CATCHING_UP, JOINT, ENDED]
    indexes = [at.index for at in record.phases]
    assert indexes == sorted(set(indexes))
    times = [at.time_ms for at in record.phases]
    assert times == sorted(times)
    assert times[0] >= EPOCH_MS
    assert (record.author, record.reason) == ("ann", "because")


# --- preflight ----------------------------------------------------------------------------------


def test_a_port_where_nothing_listens_leaves_the_log_untouched(world: World) -> None:
    world.form(3)
    reply = refused(world, world.change("add", new("n4")))
    assert reply.code == "refused"
    assert "no raftd answers at n4:7100" in reply.message
    assert "connecting to n4:7100: connection refused" in reply.cause


def test_a_server_that_does_not_answer_is_given_up_within_the_time_out(world: World) -> None:
    world.form(3)
    world.boot("n4")
    world.cut(["n1", "n2", "n3"], ["n4"])
    reply = refused(world, world.change("add", new("n4")))
    assert "no answer" in reply.cause


def test_one_of_several_new_servers_that_fails_refuses_all(world: World) -> None:
    world.form(3)
    blank = world.boot("n4")
    reply = refused(world, world.change("add", new("n4"), new("n5")))
    assert "n5:7100" in reply.message
    assert blank.status.role == "blank"


def test_another_server_than_expected_is_refused(world: World) -> None:
    world.form(3)
    world.boot("n5", "n4:7100")
    reply = refused(world, world.change("add", new("n4")))
    assert "n4:7100 is n5" in reply.message


def test_a_member_of_another_cluster_is_refused(world: World) -> None:
    world.form(3)
    world.boot("n4")
    world.call(
        "n4",
        JoinRequest(
            cluster_id="other",
            cluster_name="others",
            name="n4",
            incarnation=world["n4"].disk.identity.incarnation,
        ),
    )
    reply = refused(world, world.change("add", new("n4")))
    assert "another cluster" in reply.message
    assert "'others' (other)" in reply.cause


def test_a_removed_server_with_its_old_data_is_refused(world: World) -> None:
    world.form(3)
    removed = world["n3"]
    removed.kill()
    world.run(ELECTION_TICKS)
    world.finish(world.started(world.change("remove", drop("n3"))))
    # Started in a place where nobody has told it yet.
    world.passes = lambda envelope: False
    removed.start()
    world.passes = lambda envelope: True
    reply = refused(world, world.change("add", new("n3")))
    assert "removed from this cluster before" in reply.message


def test_a_dry_run_appends_nothing_and_returns_the_plan(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    before = leader.status.last_index
    reply = world.call(leader, world.change("add", new("n4"), dry_run=True, session="", serial=0))
    assert isinstance(reply, ChangeReply)
    assert reply.operation == ""
    assert reply.plan.joint
    assert [server_name(server) for server in reply.plan.after.voters] == ["n1", "n2", "n3", "n4"]
    assert leader.status.last_index == before
    assert world["n4"].status.role == "blank"


def test_a_change_for_another_configuration_is_refused(world: World) -> None:
    leader = world.form(3)
    index = leader.status.configuration.index
    reply = refused(world, world.change("remove", drop("n3"), at_index=index - 1))
    assert str(index) in reply.cause
    assert world.started(world.change("remove", drop("n3"), at_index=index))


def test_a_second_change_is_refused_while_one_runs(world: World) -> None:
    world.form(3)
    world.boot("n4")
    world.boot("n5")
    world.passes = lambda envelope: not to(envelope, "n4")
    operation = world.started(world.change("add", new("n4")))
    reply = refused(world, world.change("add", new("n5")))
    assert reply.operation == operation
    assert f"{operation} (add, by ann) is in phase catching-up, for " in reply.cause
    assert "one membership change runs at a time" in reply.cause
    assert f"raftctl operation watch {operation}" in reply.hint
    world.passes = lambda envelope: True
    assert world.finish(operation).result == "done"


def test_of_two_changes_at_the_same_time_one_is_started(world: World) -> None:
    leader = world.form(3)
    asked = [
        world.ask_later(leader, world.change("remove", drop("n2"))),
        world.ask_later(leader, world.change("remove", drop("n3"))),
    ]
    world.settle()
    assert isinstance(asked[0].reply, ChangeReply)
    assert asked[1].error.code == "refused"
    assert asked[1].error.operation == asked[0].reply.operation
    world.finish(asked[0].reply.operation)
    assert world.configuration_of(world.leader())[0] == {"n1", "n3"}


def test_nothing_to_do_starts_no_operation(world: World) -> None:
    leader = world.form(2)
    before = leader.status.last_index
    reply = world.call(leader, world.change("promote", become("n2", "voter")))
    assert reply == ChangeReply(operation="", nothing_to_do="n2 is a voter already")
    assert leader.status.last_index == before


@pytest.mark.parametrize(
    "changes",
    [
        [drop("n2")],
        [become("n2", "learner")],
        [drop("n1"), drop("n2"), new("n4")],
    ],
)
def test_a_change_that_would_lose_the_quorum_with_who_is_there_is_unsafe(
    world: World, changes: list[MemberChange]
) -> None:
    world.form(3)
    world.boot("n4")
    world["n3"].kill()
    world.run(1)
    reply = refused(world, world.change("change", *changes))
    assert reply.code == "unsafe"
    assert "n3" in reply.cause
    assert "n3" in reply.hint


def test_a_dead_server_can_be_removed_and_replaced(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    world["n3"].kill()
    world.run(1)
    reply = world.call(leader, world.change("replace", drop("n3"), new("n4")))
    assert isinstance(reply, ChangeReply)
    assert any("n3 cannot be told now" in warning for warning in reply.plan.warnings)
    assert world.finish(reply.operation).result == "done"


def test_a_leader_that_has_just_been_elected_decides_once_it_has_committed(world: World) -> None:
    world.form(3)
    world["n1"].kill()
    world.passes = lambda envelope: (
        not (isinstance(envelope.message, AppendEntriesResponse) and envelope.message.success)
    )
    second = world.until(lambda: next((s for s in world.up() if s.leads), None))
    first_index = second.status.last_index
    asked = world.ask(second, world.change("remove", drop("n1")))
    assert asked.open
    assert second.status.last_index == first_index
    world.passes = lambda envelope: True
    world.until(lambda: not asked.open)
    assert isinstance(asked.reply, ChangeReply)
    assert world.finish(asked.reply.operation).result == "done"


def test_a_leader_of_the_past_states_nothing_about_the_membership(world: World) -> None:
    past = world.form(3)
    world.cut(["n1"], ["n2", "n3", "n4"])
    others = [world["n2"], world["n3"], world.boot("n4")]

    def run_others() -> None:
        """Let time pass for all but the old leader, as if its process were stopped."""
        world.now += 1
        world._dial()
        for server in others:
            server.turn(tick=True)
        for _ in range(50):
            for server in others:
                server.turn(tick=False)

    for _ in range(4 * ELECTION_TICKS):
        run_others()
    present = next(server for server in others if server.leads)
    replaced = next(server for server in others[:2] if server is not present)
    world.ask_later(present, world.change("replace", drop(replaced.name), new("n4")))
    for _ in range(4 * ELECTION_TICKS):
        run_others()
    assert present.state.tombstone(replaced.id)
    assert past.leads
    # To the old leader it is a voter: there would be nothing to do.
    asked = [
        world.ask_later(past, world.change("promote", become(replaced.name, "voter"))),
        world.ask_later(past, world.change("remove", drop("n9"))),
        world.ask_later(past, abort(world)),
    ]
    past.turn(tick=False)
    assert all(item.open for item in asked)
    world.run(2 * ELECTION_TICKS)
    assert {item.error.code for item in asked} <= {"unavailable", "not-leader"}


def ask_until_preflight(
    world: World, leader: Server, request: ChangeRequest | None = None
) -> Asked:
    """Ask that n4 be added, and stop where the leader has just asked n4 who it is."""
    asked = world.ask_later(leader, request or world.change("add", new("n4")))
    leader.turn(tick=False)
    for server in world.up():
        if server is not leader:
            server.turn(tick=False)
    leader.turn(tick=False)
    assert len(world["n4"].inbox) == 1
    return asked


def test_leadership_lost_during_a_preflight_is_unavailable_and_starts_nothing(
    world: World,
) -> None:
    leader = world.form(3)
    world.boot("n4")
    asked = ask_until_preflight(world, leader)
    contacted = Contacted(token=None, reply=None, welcome=None, problem="")
    assert asked.open
    world["n4"].turn(tick=False)
    answer = leader.inbox.pop()
    assert isinstance(answer, type(contacted))
    # In one batch: a vote request of a later term, then the answer of the new server.
    request = RequestVote(leader.status.term + 1, 99, 99, leadership_transfer=True)
    leader.inbox += [Received(Envelope(world["n2"].id, leader.id, request)), answer]
    leader.turn(tick=False)
    assert asked.error.code == "unavailable"
    assert world.leader().state.running_operation is None


def test_an_answer_that_comes_after_leadership_was_lost_is_ignored(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    asked = ask_until_preflight(world, leader)
    world.cut(["n1"], ["n2", "n3", "n4"])
    world.run(3 * ELECTION_TICKS)
    assert asked.error.code == "unavailable"
    world.heal()
    assert len(world.leader().state.operations()) == 1


# --- joining and catching up --------------------------------------------------------------------


def test_a_server_that_ends_between_preflight_and_join_fails_the_change(world: World) -> None:
    leader = world.form(3)
    blank = world.boot("n4")
    before = leader.status.configuration
    blank.power.fail_at_next = "publish"
    operation = world.started(world.change("add", new("n4")))
    record = world.finish(operation)
    assert record.result == "failed"
    assert "n4 could not be told to join" in record.explanation
    assert "refused" in record.explanation or "closed" in record.explanation
    assert leader.status.configuration == before
    assert [at.phase for at in record.phases] == [JOINING, ENDED]


def test_a_join_is_repeated_until_the_server_is_back(world: World) -> None:
    world.form(3)
    blank = world.boot("n4")
    blank.power.fail_at_next = "publish"
    operation = world.started(world.change("add", new("n4")))
    world.run(2 * ELECTION_TICKS)
    assert JOIN_ATTEMPTS_MAX > 3
    assert world.operation_view(operation).blocked_by == (
        "n4 to be told to join: connecting to n4:7100: connection refused"
    )
    blank.start()
    assert world.finish(operation).result == "done"


def without_room(world: World, kind: type, times: int) -> None:
    """Let so many contacts that begin with a request of `kind` not be tried."""
    begin_contact, untried = world.begin_contact, []

    def begin(
        source: Server, token: object, address: str, requests: Any, timeout_ms: float
    ) -> None:
        if isinstance(requests[0], kind) and len(untried) < times:
            untried.append(token)
            problem = f"{address} was not tried: 7 contacts are under way"
            contacted = Contacted(
                token=token, reply=None, welcome=None, problem=problem, tried=False
            )
            source.inbox.append(contacted)
        else:
            begin_contact(source, token, address, requests, timeout_ms)

    world.begin_contact = begin  # type: ignore[method-assign]


def test_a_server_that_the_leader_had_no_room_to_ask_is_not_called_silent(world: World) -> None:
    world.form(3)
    world.boot("n4")
    without_room(world, StatusRequest, 1)
    reply = world.call(world.leader(), world.change("add", new("n4")))
    assert isinstance(reply, ErrorReply)
    assert reply.code == "unavailable"
    assert "too busy to ask n4" in reply.message
    assert "7 contacts are under way" in reply.cause
    assert world.finish(world.started(world.change("add", new("n4")))).result == "done"


def test_a_join_that_the_leader_had_no_room_for_is_no_attempt(world: World) -> None:
    world.form(3)
    world.boot("n4")
    without_room(world, JoinRequest, JOIN_ATTEMPTS_MAX + 2)
    assert world.finish(world.started(world.change("add", new("n4")))).result == "done"


def test_a_join_that_is_refused_fails_the_change_with_the_reason(world: World) -> None:
    world.form(3)
    blank = world.boot("n4")
    blank.power.fail_at_next = "publish"
    operation = world.started(world.change("add", new("n4")))
    # It comes back with an empty disk: another incarnation than the one that was asked.
    world.boot("n4")
    record = world.finish(operation)
    assert record.result == "failed"
    assert "n4 refused to join" in record.explanation


def test_what_a_stranger_says_is_cut_before_it_gets_into_a_record(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    world["n4"].power.fail_at_next = "publish"
    operation = world.started(world.change("add", new("n4")))
    (token,) = leader.running.operations._drive.joins.values()
    refusal = ErrorReply(code="refused", message=FRAME, cause=FRAME)
    leader.inbox.append(Contacted(token=token, reply=refusal, welcome=None, problem=""))
    record = world.finish(operation)
    assert record.result == "failed"
    assert record.explanation.startswith("n4 refused to join: fff")
    cause, _, _ = record.explanation.partition("; the configuration was never touched")
    assert len(cause) <= TEXT_CHARACTERS_MAX
    assert isinstance(world.call(leader, world.put("a")), WriteReply)


def test_why_a_link_is_down_is_cut_before_it_gets_into_a_record(world: World) -> None:
    leader = world.form(3)
    blank = world.boot("n4")
    world.passes = lambda envelope: not (to(envelope, "n4") and carries_entries(envelope))
    operation = world.started(world.change("add", new("n4")))
    leader.inbox.append(LinkChanged(blank.id, False, FRAME))
    record = world.finish(operation)
    assert record.result == "failed"
    assert "n4 has 0 of" in record.explanation
    cause, _, _ = record.explanation.partition("; restored")
    assert len(cause) == TEXT_CHARACTERS_MAX
    assert max(len(entry.data) for entry in leader.disk.entries) < 10_000


def test_a_server_that_cannot_catch_up_leaves_no_trace_in_the_configuration(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    before = leader.status.configuration
    world.passes = lambda envelope: not (to(envelope, "n4") and carries_entries(envelope))
    operation = world.started(world.change("add", new("n4")))
    view = world.operation_view(operation)
    assert (view.step, view.blocked_by) == (CATCHING_UP, "n4 to catch up")
    assert [peer.server for peer in view.peers] == [world["n4"].id]
    started = world.now
    record = world.finish(operation)
    assert record.result == "failed"
    assert "no progress while catching up: n4 has 0 of" in record.explanation
    assert world.now - started <= CATCH_UP_TICKS + 2 * ELECTION_TICKS
    after = leader.status.configuration
    assert attrs.evolve(after, index=before.index) == before
    assert leader.state.tombstone(world["n4"].id) is None


def carries_entries(envelope: Envelope) -> bool:
    return isinstance(envelope.message, AppendEntries) and bool(envelope.message.entries)


def test_a_server_that_failed_to_catch_up_can_be_added_again_with_its_data(world: World) -> None:
    world.form(3)
    world.boot("n4")
    world.passes = lambda envelope: not to(envelope, "n4")
    assert world.finish(world.started(world.change("add", new("n4")))).result == "failed"
    world.passes = lambda envelope: True
    assert world["n4"].status.cluster_id
    assert world.finish(world.started(world.change("add", new("n4")))).result == "done"


def test_a_failed_promotion_leaves_the_learner_a_learner(world: World) -> None:
    leader = world.form(3, learners=1)
    before = leader.status.configuration
    world["n4"].kill()
    world.run(ELECTION_TICKS)
    record = world.finish(world.started(world.change("promote", become("n4", "voter"))))
    assert record.result == "failed"
    assert "n4 has" in record.explanation
    assert "connection refused" in record.explanation
    assert leader.status.configuration.learners == before.learners
    assert leader.status.configuration.voters == before.voters


def test_an_old_learner_is_given_its_own_rounds_when_it_is_promoted(world: World) -> None:
    leader = world.form(3, learners=1)
    learner = world["n4"]
    # Over a long time it has completed more rounds than a new server may take, ...
    world.run((CATCH_UP_ROUNDS_MAX + 10) * HEARTBEAT_TICKS)
    assert leader.running.raft.leader().progress[learner.id].rounds > CATCH_UP_ROUNDS_MAX
    # ... and the one that ends while the operation waits took long, because it was away.
    learner.kill()
    world.run(2 * ELECTION_TICKS)
    operation = world.started(world.change("promote", become("n4", "voter")))
    learner.start()
    record = world.finish(operation)
    assert record.result == "done", record.explanation


def test_new_servers_are_learners_until_all_of_them_have_caught_up(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    world.boot("n5")
    world.passes = lambda envelope: not to(envelope, "n5")
    operation = world.started(world.change("add", new("n4"), new("n5")))
    world.run(CATCH_UP_TICKS // 2)
    assert world.configuration_of(leader) == ({"n1", "n2", "n3"}, set(), {"n4", "n5"})
    assert world.operation_view(operation).blocked_by == "n5 to catch up"
    world.passes = lambda envelope: True
    assert world.finish(operation).result == "done"


# --- requests that come again -------------------------------------------------------------------


def test_a_change_that_is_asked_for_again_before_it_is_applied_runs_once(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    request = world.change("add", new("n4"))
    copies = [world.ask_later(leader, request) for _ in range(3)]
    world.until(lambda: not any(asked.open for asked in copies))
    operations = {asked.reply.operation for asked in copies if isinstance(asked.reply, ChangeReply)}
    assert len(operations) == 1
    world.finish(operations.pop())
    assert len(leader.state.operations()) == 2


def test_a_change_that_is_carried_out_while_its_repetition_waits_is_answered_as_done(
    world: World,
) -> None:
    leader = world.form(3)
    blank = world.boot("n4")
    request = world.change("add", new("n4"))
    first = ask_until_preflight(world, leader, request)
    second = ask_until_preflight_of_copy(world, leader, request)
    # n4 answers the first question alone.
    questions, blank.inbox = blank.inbox, blank.inbox[:1]
    world.settle()
    assert isinstance(first.reply, ChangeReply)
    assert second.open
    blank.inbox += questions[1:]
    world.settle()
    assert second.reply == ChangeReply(operation=first.reply.operation)
    assert world.finish(first.reply.operation).result == "done"
    assert len(leader.state.operations()) == 2


def ask_until_preflight_of_copy(world: World, leader: Server, request: ChangeRequest) -> Asked:
    """Ask the same once more, while n4 is busy."""
    asked = world.ask_later(leader, request)
    leader.turn(tick=False)
    for name in ("n2", "n3"):
        world[name].turn(tick=False)
    leader.turn(tick=False)
    assert len(world["n4"].inbox) == 2
    return asked


def test_a_running_change_knows_the_request_whose_answer_is_forgotten(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    world.passes = lambda envelope: not to(envelope, "n4")
    request = world.change("add", new("n4"))
    operation = world.started(request)
    write = world.put("a")
    world.call(leader, attrs.evolve(write, lowest_unacknowledged=write.serial))
    assert leader.state.session_result(request.session, request.serial) is None
    assert world.call(leader, request) == ChangeReply(operation=operation)


def test_a_change_that_is_asked_for_again_after_its_end_answers_with_its_operation(
    world: World,
) -> None:
    leader = world.form(3)
    world.boot("n4")
    request = world.change("add", new("n4"), at_index=leader.status.configuration.index)
    operation = world.started(request)
    world.finish(operation)
    before = leader.status.last_index
    assert world.started(request) == operation
    assert leader.status.last_index == before


def test_an_abort_that_is_asked_for_again_is_one_abort(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    world.passes = lambda envelope: not to(envelope, "n4")
    operation = world.started(world.change("add", new("n4")))
    request = abort(world, operation)
    assert world.call(leader, request) == AbortReply(operation=operation)
    world.finish(operation)
    assert world.call(leader, request) == AbortReply(operation=operation)


def test_an_abort_that_is_asked_for_again_does_not_hit_the_next_operation(world: World) -> None:
    leader = world.form(3)
    world.boot("n4")
    world.passes = lambda envelope: not to(envelope, "n4")
    operation = world.started(world.change("add", new("n4")))
    request = abort(world)
    assert world.call(leader, request) == AbortReply(operation=operation)
    world.finish(operation)
    world.passes = lambda envelope: not (is_joint(envelope) and to(envelope, "n2", "n3"))
    world.open_session("t")
    later = world.started(world.change("remove", drop("n3"), session="t", serial=1))
    assert leader.running.raft.configuration.configuration.is_joint
    assert world.call(leader, request) == AbortReply(operation=operation)
    assert leader.running.raft.configuration.configuration.is_joint
    world.passes = lambda envelope: True
    assert world.finish(later).result == "done"


# --- the next leader goes on --------------------------------------------------------------------


def operation_steps(kind: str, changes: list[MemberChange]) -> int:
    """Return how many steps the leader takes until the change has ended."""
    world, leader, asked = begin(kind, changes, 0)
    before = asked[0]
    world.until(lambda: leader.exit or leader.state.operation("op-2").result, 60)
    return len(leader.power.steps) - before


def begin(kind: str, changes: list[MemberChange], crash_step: int):
    world = World(3, checks_invariants=False)
    leader = world.form(3)
    world.boot("n4")
    taken = len(leader.power.steps)
    leader.power.fail_at = taken + crash_step if crash_step else 0
    request = world.change(kind, *changes)
    world.ask(leader, request)
    return world, leader, (taken, request)


CRASHES = {
    "add": [new("n4")],
    "replace": [drop("n1"), new("n4")],
    "replace-another": [drop("n3"), new("n4")],
    "remove": [drop("n1")],
    "demote": [become("n1", "learner")],
}
AFTERWARDS = {
    "add": ({"n1", "n2", "n3", "n4"}, set(), set()),
    "replace": ({"n2", "n3", "n4"}, set(), set()),
    "replace-another": ({"n1", "n2", "n4"}, set(), set()),
    "remove": ({"n2", "n3"}, set(), set()),
    "demote": ({"n2", "n3"}, set(), {"n1"}),
}


@pytest.mark.parametrize("comes_back", ["at once", "later", "never"])
@pytest.mark.parametrize("kind", CRASHES)
def test_a_change_ends_wherever_its_leader_crashes(kind: str, comes_back: str) -> None:
    steps = operation_steps(kind, CRASHES[kind])
    assert steps > 20
    for crash_step in range(1, steps + 1):
        world, leader, (_, request) = begin(kind, CRASHES[kind], crash_step)
        world.run(4 * ELECTION_TICKS if comes_back == "later" else 1)
        leader.power.fail_at = 0
        if comes_back != "never" and leader.node is None and leader.exit is None:
            leader.start()
        # The operator asks again, as raftctl does after a lost answer.
        reply = None
        for _ in range(20):
            reply = world.call(world.leader(), request)
            if not (isinstance(reply, ErrorReply) and reply.code in ("unavailable", "not-leader")):
                break
            world.run(2)
        if isinstance(reply, ErrorReply):
            # Nothing had been started, and the dead leader is needed for what is asked.
            assert reply.code == "unsafe", f"step {crash_step}: {reply}"
            assert world.configuration_of(world.leader())[0] == {"n1", "n2", "n3"}
            continue
        assert isinstance(reply, ChangeReply)
        record = world.finish(reply.operation)
        assert record.result == "done", f"step {crash_step}: {record.explanation}"
        assert len(world.leader().state.operations()) == 2
        world.until(lambda world=world: world.leader().status.configuration.committed)
        assert world.configuration_of(world.leader()) == AFTERWARDS[kind]


@pytest.mark.parametrize("phase", [JOINING, CATCHING_UP, JOINT])
def test_the_next_leader_goes_on_with_an_abort_in_any_phase(world: World, phase: str) -> None:
    leader = world.form(3)
    world.boot("n4")
    world.boot("n5")
    if phase == JOINING:
        world["n4"].power.fail_at_next = "publish"
    elif phase == CATCHING_UP:
        world.passes = lambda envelope: not to(envelope, "n4")
    else:
        world.passes = lambda envelope: not (is_joint(envelope) and to(envelope, "n4", "n5"))
    operation = world.started(world.change("replace", drop("n2"), new("n4"), drop("n3"), new("n5")))
    if phase == JOINT:
        world.until(lambda: leader.running.raft.configuration.configuration.is_joint)
    leader.power.fail_at_next = "applied"
    world.ask(leader, abort(world, operation))
    world.run(2)
    leader.kill()
    world.run(ELECTION_TICKS)
    leader.start()
    if phase != JOINT:
        record = world.finish(operation)
        assert record.result in ("aborted", "failed")
        assert world.configuration_of(world.leader()) == ({"n1", "n2", "n3"}, set(), set())
    else:
        # A successor may not know whether C_new exists: it may only go forward, or back after it
        # has committed something of its own under both halves.
        world.passes = lambda envelope: True
        record = world.finish(operation)
        after = world.configuration_of(world.leader())[0]
        assert after == ({"n1", "n4", "n5"} if record.result == "done" else {"n1", "n2", "n3"})


def test_followers_show_the_record_too(world: World) -> None:
    world.form(3)
    world.boot("n4")
    world.passes = lambda envelope: not to(envelope, "n4")
    operation = world.started(world.change("add", new("n4")))
    world.run(HEARTBEAT_TICKS)
    reply = world.call("n2", OperationsRequest())
    assert isinstance(reply, OperationsReply)
    assert [view.record.id for view in reply.operations] == ["op-1", operation]
    assert [view.step for view in reply.operations] == ["ended", CATCHING_UP]
    assert world.call("n2", OperationsRequest(operation="op-9")) == OperationsReply(operations=())
    status = world.call("n1", StatusRequest())
    assert status.operation.record.id == operation


# --- whoever waits for the end ------------------------------------------------------------------


def stuck(world: World) -> str:
    """Begin an operation whose new server hears nothing for now; return its id."""
    world.form(3)
    world.boot("n4")
    world.passes = lambda envelope: not to(envelope, "n4")
    return world.started(world.change("add", new("n4")))


def waiting(operation: str, ticks: int) -> OperationsRequest:
    return OperationsRequest(operation=operation, wait_ms=round(ticks * TICK_MS))


def test_who_waits_for_an_operation_is_answered_the_moment_it_ends(world: World) -> None:
    operation = stuck(world)
    asked = world.ask("n1", waiting(operation, 100))
    world.run(HEARTBEAT_TICKS)
    assert asked.open
    world.passes = lambda envelope: True
    world.until(lambda: not world["n1"].state.operation(operation).running)
    # No time has passed since.
    assert isinstance(asked.reply, OperationsReply)
    assert [view.step for view in asked.reply.operations] == [ENDED]


def test_who_waits_for_an_operation_hears_how_far_it_is_when_the_time_is_over(
    world: World,
) -> None:
    operation = stuck(world)
    asked = world.ask("n1", waiting(operation, 5))
    world.run(4)
    assert asked.open
    world.run(1)
    assert isinstance(asked.reply, OperationsReply)
    assert [view.step for view in asked.reply.operations] == [CATCHING_UP]


def test_nobody_waits_for_what_has_ended_is_unknown_or_is_led_by_another(world: World) -> None:
    operation = stuck(world)
    for server, of in (("n1", "op-1"), ("n1", "op-9"), ("n1", ""), ("n2", operation)):
        assert not world.ask(server, waiting(of, 100)).open
    assert not world.ask("n1", OperationsRequest(operation=operation)).open


def test_who_waits_for_too_long_or_with_too_many_others_is_answered_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "WAIT_MS_MAX", 2 * TICK_MS)
    monkeypatch.setattr(operations, "WAITING_MAX", 2)
    operation = stuck(world)
    asked = [world.ask("n1", waiting(operation, 1_000_000)) for _ in range(3)]
    assert [one.open for one in asked] == [True, True, False]
    world.run(2)
    assert not any(one.open for one in asked)


def test_who_waits_is_answered_by_a_leader_that_steps_down(world: World) -> None:
    operation = stuck(world)
    asked = world.ask("n1", waiting(operation, 50))
    world.passes = lambda envelope: (
        "n1"
        not in (
            server_name(envelope.source),
            server_name(envelope.dest),
        )
    )
    world.until(lambda: not world["n1"].leads, ticks=3 * ELECTION_TICKS)
    assert isinstance(asked.reply, OperationsReply)
    assert [view.record.id for view in asked.reply.operations] == [operation]


def test_more_records_than_fit_a_reply_leave_out_the_oldest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.form(3)
    for _ in range(4):
        world.finish(world.started(world.change("demote", become("n3", "learner"))))
        world.finish(world.started(world.change("promote", become("n3", "voter"))))
    size = len(repr(leader.state.operation("op-9")))
    monkeypatch.setattr(operation_views, "VIEWS_BYTES_MAX", 3 * size + size // 2)
    reply = world.call(leader, OperationsRequest())
    assert isinstance(reply, OperationsReply)
    assert [view.record.id for view in reply.operations] == ["op-7", "op-8", "op-9"]
