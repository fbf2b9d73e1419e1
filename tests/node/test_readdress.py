"""Members that have moved: found again, asked who they are, and written into the log."""

from __future__ import annotations

import attrs
import pytest

from raftd.commands import (
    CATCHING_UP,
    ENDED,
    BeginOperation,
    Operation,
    Plan,
    structure_operation,
    unstructure,
)
from raftd.core.membership import ConfigurationKind
from raftd.planning import names
from raftd.protocol import (
    ChangeReply,
    ErrorReply,
    MemberChange,
    TargetMember,
    WriteReply,
)
from tests.node.asking import refused, to
from tests.node.world import (
    CATCH_UP_TICKS,
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    Server,
    World,
    become,
    drop,
    is_joint,
    new,
    readdress,
)


@pytest.fixture
def world() -> World:
    return World(features_max=3)


def form(world: World, count: int, learners: int = 0) -> Server:
    """Form a cluster in which all features are switched on."""
    leader = world.form(count, learners)
    world.until(lambda: all(server.state.features == 3 for server in world.up()))
    return leader


def restart_at(world: World, old: Server, address: str) -> Server:
    """Start a server that has ended at another address; its own file says so."""
    assert old.node is None
    server = world.boot(old.name, address, old.disk)
    server.file = {old.name: address}
    return server


def move(world: World, name: str, address: str) -> Server:
    world[name].kill()
    return restart_at(world, world[name], address)


def addresses(server: Server) -> dict[str, str]:
    """Return where the latest configuration of `server` says that everybody is."""
    latest = server.running.raft.configuration
    assert latest is not None
    return {member.partition("/")[0]: at for member, at in latest.entry.addresses.items()}


# --- one that moved -----------------------------------------------------------------------------


def test_a_member_that_moved_is_readdressed_by_one_entry_and_follows_again(world: World) -> None:
    leader = form(world, 3)
    moved = move(world, "n3", "n3:7200")
    world.run(ELECTION_TICKS)
    before = leader.status.configuration
    assert not next(link for link in leader.status.links if link.server == moved.id).connected
    operation = world.started(world.change("readdress", readdress("n3", "n3:7200")))
    record = world.finish(operation)
    assert record.result == "done"
    assert [at.phase for at in record.phases] == [CATCHING_UP, ENDED]
    (entry,) = leader.running.raft.log.configurations.since(before.index)
    assert entry.entry.kind is ConfigurationKind.SIMPLE
    assert entry.entry.addresses[moved.id] == "n3:7200"
    world.until(world.is_settled)
    assert moved.status.configuration.addresses == leader.status.configuration.addresses
    assert moved.status.issues == ()


def test_a_member_that_does_not_answer_at_its_new_address_leaves_the_log_untouched(
    world: World,
) -> None:
    leader = form(world, 3)
    index = leader.status.configuration.index
    reply = refused(world, world.change("readdress", readdress("n3", "n3:7299")))
    assert reply.code == "refused"
    assert "cannot readdress n3: no raftd answers at n3:7299" in reply.message
    assert leader.status.configuration.index == index


def test_a_wiped_server_is_not_readdressed(world: World) -> None:
    form(world, 3)
    lost = world["n3"]
    lost.kill()
    fresh = world.boot("n3", "n3:7200")
    reply = refused(world, world.change("readdress", readdress("n3", "n3:7200")))
    assert "another disk answers at n3:7200" in reply.message
    assert lost.id in reply.cause
    assert fresh.id in reply.cause
    assert reply.hint == "raftctl replace n3 n3=n3:7200"


def test_the_place_of_another_member_is_no_new_address(world: World) -> None:
    form(world, 3)
    move(world, "n3", "n3:7200")
    # n1 has gone from its old place, so that the address is free, but there is nobody or n3.
    reply = refused(world, world.change("readdress", readdress("n2", "n3:7200")))
    assert "n3:7200 is n3" in reply.message
    reply = refused(world, world.change("readdress", readdress("n2", "n1:7100")))
    assert "n1:7100 is the address of n1" in reply.message


def test_a_leader_that_is_to_be_dialled_elsewhere_asks_at_its_own_new_address(
    world: World,
) -> None:
    leader = form(world, 3)
    assert leader.name == "n1"
    reply = refused(world, world.change("readdress", readdress("n1", "n1:7200")))
    assert "no raftd answers at n1:7200" in reply.message
    # A second way to the same process, as of a machine with two networks.
    world.servers["n1:7200"] = leader
    record = world.finish(world.started(world.change("readdress", readdress("n1", "n1:7200"))))
    assert record.result == "done"
    assert addresses(leader)["n1"] == "n1:7200"
    # The configuration is newer than the file.
    assert leader.status.leader_address == "n1:7200"


def test_addresses_are_not_changed_before_every_member_can_record_it() -> None:
    world = World()
    leader = world.form(3)
    assert leader.state.features == 0
    reply = refused(world, world.change("readdress", readdress("n3", "n3:7200")))
    assert "n3 cannot be readdressed yet" in reply.message
    assert "version 3" in reply.cause


def test_a_plan_in_which_nobody_moves_is_recorded_as_older_servers_do() -> None:
    plan = Plan(changes=(), joint=False, configuration_index=7)
    body = BeginOperation(kind="add", author="", reason="", time_ms=0, plan=plan)
    record = Operation(id="op-1", kind="add", author="", reason="", plan=plan, phase=CATCHING_UP)
    assert "moved" not in unstructure(body)["plan"]
    assert "moved" not in unstructure(record)["plan"]
    moved = attrs.evolve(record, plan=attrs.evolve(plan, moved={"n1/a": "x:1"}))
    assert structure_operation(unstructure(moved)) == moved


def test_a_member_that_is_there_already_is_nothing_to_do(world: World) -> None:
    leader = form(world, 3)
    before = leader.status.last_index
    reply = world.call(leader, world.change("readdress", readdress("n3", "n3:7100")))
    assert reply == ChangeReply(operation="", nothing_to_do="n3 is at n3:7100 already")
    assert leader.status.last_index == before


# --- all of them --------------------------------------------------------------------------------


def move_all(world: World, places: dict[str, str]) -> list[Server]:
    """Stop all servers and start them elsewhere; each has a file that says where."""
    old = [world[name] for name in places]
    for server in old:
        server.kill()
    servers = [restart_at(world, server, places[server.name]) for server in old]
    for server in servers:
        server.file = places
    return servers


@pytest.mark.parametrize(
    "places",
    [
        {"n1": "n1:7200", "n2": "n2:7200", "n3": "n3:7200"},
        # Everybody is where another one was.
        {"n1": "n2:7100", "n2": "n3:7100", "n3": "n1:7100"},
    ],
)
def test_servers_that_all_moved_while_stopped_find_each_other_and_write_it_down(
    world: World, places: dict[str, str]
) -> None:
    form(world, 3)
    servers = move_all(world, places)
    leader = world.leader()
    for server in servers:
        world.until(lambda server=server: server.status.leader == leader.id)
        # Clients are sent where the leader answers, not where the log says that it is.
        assert server.status.leader_address == places[leader.name]
        (issue,) = server.status.issues
        assert f"raftctl readdress {server.name}={places[server.name]}" in issue
        assert "raftctl apply -f FILE" in issue
        links = {link.server: link.address for link in server.status.links}
        assert links == {s.id: places[s.name] for s in servers if s is not server}
    follower = next(server for server in servers if server is not leader)
    reply = world.call(follower, world.put("a"))
    assert isinstance(reply, ErrorReply)
    assert (reply.code, reply.leader_address) == ("not-leader", places[leader.name])
    world.open_session("t")
    changes = [readdress(name, address) for name, address in places.items()]
    record = world.finish(world.started(world.change("readdress", *changes, session="t", serial=1)))
    assert record.result == "done"
    assert not record.plan.joint
    assert record.plan.moved == {server.id: places[server.name] for server in servers}
    world.until(world.is_settled)
    for server in servers:
        assert addresses(server) == places
        assert server.status.issues == ()
    # Nobody needs the files any more.
    for server in servers:
        server.kill()
        server.file = {}
    for server in servers:
        server.start()
    assert isinstance(world.call(world.leader(), world.put("b")), WriteReply)


def test_without_their_files_servers_that_all_moved_do_not_find_each_other(world: World) -> None:
    form(world, 3)
    servers = move_all(world, {name: f"{name}:7200" for name in ("n1", "n2", "n3")})
    for server in servers:
        server.file = {}
    world.run(6 * ELECTION_TICKS)
    assert not any(server.leads for server in servers)


# --- together with votes ------------------------------------------------------------------------


def apply(world: World, *members: TargetMember):
    return world.change("apply", target=members)


def member(name: str, address: str = "", role: str = "voter") -> TargetMember:
    return TargetMember(name=name, role=role, address=address or f"{name}:7100")


@pytest.mark.parametrize("brings_in", [True, False])
def test_new_addresses_ride_on_a_change_of_votes(world: World, brings_in: bool) -> None:
    leader = form(world, 3, learners=1)
    moved = move(world, "n2", "n2:7200")
    world.run(HEARTBEAT_TICKS)
    if brings_in:
        world.boot("n5")
        added, voters = member("n5"), {"n1", "n2", "n5"}
    else:
        added, voters = member("n4"), {"n1", "n2", "n4"}
    before = leader.status.configuration.index
    record = world.finish(world.started(apply(world, member("n1"), member("n2", "n2:7200"), added)))
    assert record.result == "done", record.explanation
    assert record.plan.moved == {moved.id: "n2:7200"}
    world.until(world.is_settled)
    leader = world.leader()
    assert world.configuration_of(leader)[0] == voters
    assert addresses(leader)["n2"] == "n2:7200"
    configurations = leader.running.raft.log.configurations.since(before)
    assert [item.entry.kind for item in configurations] == [
        ConfigurationKind.SIMPLE,
        ConfigurationKind.JOINT,
        ConfigurationKind.FINAL,
    ]
    assert all(item.entry.addresses[moved.id] == "n2:7200" for item in configurations)


def test_an_undone_change_keeps_the_addresses_that_were_verified_and_says_so(
    world: World,
) -> None:
    leader = form(world, 3)
    move(world, "n2", "n2:7200")
    world.run(HEARTBEAT_TICKS)
    for name in ("n4", "n5"):
        world.boot(name)
    world.passes = lambda envelope: not (is_joint(envelope) and to(envelope, "n4", "n5"))
    members = [member("n2", "n2:7200"), member("n4"), member("n5")]
    operation = world.started(apply(world, *members))
    world.until(lambda: leader.running.raft.configuration.configuration.is_joint)
    for name in ("n4", "n5"):
        world[name].kill()
    record = world.finish(operation)
    assert record.result == "aborted"
    assert "restored: voters n1, n2, n3, learners none" in record.explanation
    assert "kept, because it was verified: n2 at n2:7200" in record.explanation
    assert addresses(leader) == {"n1": "n1:7100", "n2": "n2:7200", "n3": "n3:7100"}
    assert world.configuration_of(leader) == ({"n1", "n2", "n3"}, set(), set())


def test_a_change_that_fails_before_anything_was_appended_keeps_nothing(world: World) -> None:
    leader = form(world, 3)
    move(world, "n2", "n2:7200")
    world.run(HEARTBEAT_TICKS)
    world.boot("n4")
    world["n4"].power.fail_at_next = "publish"
    members = [member("n1"), member("n2", "n2:7200"), member("n4")]
    operation = world.started(apply(world, *members))
    record = world.finish(operation)
    assert record.result == "failed"
    assert "the configuration was never touched" in record.explanation
    assert addresses(leader)["n2"] == "n2:7100"


# --- crashes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["readdress", "apply"])
def test_a_change_of_addresses_ends_wherever_its_leader_crashes(kind: str) -> None:
    steps = 200
    crash_step = 0
    while crash_step < steps:
        crash_step += 3
        world = World(3, checks_invariants=False, features_max=3)
        leader = form(world, 3)
        moved = move(world, "n3", "n3:7200")
        world.boot("n4")
        world.run(HEARTBEAT_TICKS)
        taken = len(leader.power.steps)
        leader.power.fail_at = taken + crash_step
        request = (
            world.change("readdress", readdress("n3", "n3:7200"))
            if kind == "readdress"
            else apply(world, member("n1"), member("n2"), member("n3", "n3:7200"), member("n4"))
        )
        world.ask(leader, request)
        world.run(ELECTION_TICKS)
        steps = min(steps, len(leader.power.steps) - taken) if leader.node else steps
        leader.power.fail_at = 0
        if leader.node is None:
            leader.start()
        reply: object = None
        for _ in range(20):
            reply = world.call(world.leader(), request)
            if not (isinstance(reply, ErrorReply) and reply.code in ("unavailable", "not-leader")):
                break
            world.run(2)
        assert isinstance(reply, ChangeReply), reply
        record = world.finish(reply.operation)
        assert record.result == "done", f"step {crash_step}: {record.explanation}"
        world.until(world.is_settled, CATCH_UP_TICKS * 4)
        assert addresses(world.leader())["n3"] == "n3:7200"
        assert moved.status.configuration.addresses[moved.id] == "n3:7200"
        if kind == "apply":
            assert world.configuration_of(world.leader())[0] == {"n1", "n2", "n3", "n4"}


# --- what is asked at once ----------------------------------------------------------------------


def test_a_change_that_is_carried_out_is_not_begun_again_by_a_copy(world: World) -> None:
    leader = form(world, 3)
    move(world, "n3", "n3:7200")
    request = world.change("readdress", readdress("n3", "n3:7200"))
    operation = world.started(request)
    world.finish(operation)
    before = leader.status.last_index
    assert world.started(request) == operation
    assert leader.status.last_index == before


@pytest.mark.parametrize(
    "changes",
    [
        [readdress("n3", "n3:7200")],
        [readdress("n3", "n3:7200"), drop("n2"), become("n1", "voter")],
        [readdress("n3", "n3:7200"), new("n4")],
    ],
)
def test_a_dry_run_asks_and_appends_nothing(world: World, changes: list[MemberChange]) -> None:
    leader = form(world, 3)
    moved = move(world, "n3", "n3:7200")
    world.boot("n4")
    world.run(HEARTBEAT_TICKS)
    before = leader.status.last_index
    request = world.change("readdress", *changes, dry_run=True, session="", serial=0)
    reply = world.call(leader, request)
    assert isinstance(reply, ChangeReply)
    assert reply.plan.after.addresses[moved.id] == "n3:7200"
    assert f"{names([moved.id])} moves from n3:7100 to n3:7200" in reply.plan.changes
    assert leader.status.last_index == before
