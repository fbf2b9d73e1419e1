"""Servers of two releases in one cluster: when features are switched on, and who is kept away."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from raftd.admission import admit, our_hello
from raftd.commands import (
    DONE,
    FEATURES_MAX,
    Command,
    CommandBody,
    Result,
    SwitchOn,
    decode_command,
)
from raftd.core.types import EntryKind, Index
from raftd.features import Features
from raftd.inputs import Contacted, LinkChanged
from raftd.protocol import (
    HISTORY_LIMIT_MAX,
    PROTOCOL_VERSION_MAX,
    ErrorReply,
    Hello,
    HistoryReply,
    HistoryRequest,
    Refusal,
    Reply,
    StatusReply,
    TransferRequest,
    Welcome,
)
from raftd.storage.identity import Identity
from tests.node.growing import LOG_BYTES, fill_until_compacted
from tests.node.world import Asked, Server, World, drop, new

OLD_VERSION = 2
BEFORE = {"features_max": 0}
NOW = {"features_max": FEATURES_MAX}


def formed_by_the_release_before(count: int, seed: int = 1, **more: int) -> World:
    """Return a cluster of servers of the release before."""
    world = World(seed, **BEFORE, **more)
    for number in range(1, count + 1):
        world.boot(f"n{number}").version_max = OLD_VERSION
    world.form_of(*(f"n{number}" for number in range(1, count + 1)))
    return world


def upgrade(world: World, server: Server) -> None:
    """Restart a server with this release."""
    world.settings |= NOW
    server.version_max = PROTOCOL_VERSION_MAX
    server.restart()


def switches(server: Server) -> list[Index]:
    """Return where the log of a server switches features on."""
    log = server.running.raft.log
    return [
        entry.index
        for entry in log.entries(log.base_index + 1, log.last_index)
        if entry.kind is EntryKind.COMMAND and isinstance(decode_command(entry.data).body, SwitchOn)
    ]


def features(world: World) -> set[int]:
    return {server.state.features for server in world.up()}


def history(world: World, server: Server, **more: int) -> HistoryReply:
    reply = world.call(server, HistoryRequest(**more))
    assert isinstance(reply, HistoryReply), reply
    return reply


# --- when -----------------------------------------------------------------------------------


def test_a_new_cluster_switches_on_at_once_and_only_once() -> None:
    world = World(**NOW)
    founder = world.bootstrap()
    assert founder.state.features == FEATURES_MAX
    assert switches(founder) == [3]
    for name in ("n2", "n3"):
        world.boot(name)
    world.finish(world.started(world.change("init", new("n2"), new("n3"))))
    world["n1"].restart()
    leader = world.leader()
    world.run(50)
    assert features(world) == {FEATURES_MAX}
    assert switches(leader) == [3]
    assert history(world, leader).complete


def test_features_are_off_until_the_last_server_is_of_this_release() -> None:
    world = formed_by_the_release_before(3)
    for name in ("n2", "n3"):
        upgrade(world, world[name])
        world.leader()
        world.run(30)
    world.cut(["n2", "n3"])
    world.until(lambda: world["n2"].leads or world["n3"].leads)
    world.cut(["n1", "n2", "n3"])
    leader = world.leader()
    world.run(30)
    assert leader.name != "n1"
    assert (features(world), switches(leader)) == ({0}, [])
    upgrade(world, world["n1"])
    world.until(lambda: features(world) == {FEATURES_MAX})
    world.run(50)
    assert len(switches(world.leader())) == 1
    assert not history(world, world["n1"]).complete


def test_a_member_that_is_away_may_be_of_the_release_before() -> None:
    world = formed_by_the_release_before(3)
    for name in ("n1", "n2"):
        upgrade(world, world[name])
    world["n3"].kill()
    leader = world.leader()
    world.run(200)
    assert switches(leader) == []
    world["n3"].start()
    world.run(50)
    assert switches(world.leader()) == []
    upgrade(world, world["n3"])
    world.until(lambda: features(world) == {FEATURES_MAX})


def test_a_server_that_was_removed_hears_of_it_before_the_features_that_it_cannot_apply() -> None:
    world = formed_by_the_release_before(3)
    for name in ("n1", "n2"):
        upgrade(world, world[name])
    removed = world["n3"]
    world.leader()
    # It is told only a little later: until then the leader feeds it.
    world.finish(world.started(world.change("remove", drop("n3"))))
    seen: set[int] = set()
    while removed.node is not None:
        seen |= {removed.state.features}
        world.tick()
    assert removed.exit is not None
    assert removed.exit.exit_code == 70
    assert seen == {0}
    world.until(lambda: features(world) == {FEATURES_MAX})
    assert len(switches(world.leader())) == 1


def test_features_wait_for_an_operation_that_brings_in_servers() -> None:
    world = formed_by_the_release_before(1)
    world.boot("n2")
    world.passes = lambda envelope: envelope.dest != world["n2"].id
    operation = world.started(world.change("add", new("n2")))
    upgrade(world, world["n1"])
    leader = world.leader()
    world.run(20)
    assert leader.state.running_operation is not None
    assert switches(leader) == []
    world.passes = lambda envelope: True
    assert world.finish(operation).result == DONE
    world.until(lambda: features(world) == {FEATURES_MAX})


def test_the_next_leader_switches_on_what_the_one_before_could_not_commit() -> None:
    world = formed_by_the_release_before(3)
    for name in ("n1", "n2", "n3"):
        upgrade(world, world[name])
    first = world.leader()
    # What it appends from now on stays with it.
    world.passes = lambda envelope: envelope.source != first.id
    world.until(lambda: any(server.leads and server is not first for server in world.up()))
    world.passes = lambda envelope: True
    world.until(lambda: features(world) == {FEATURES_MAX})
    world.run(50)
    assert features(world) == {FEATURES_MAX}
    assert len({server.state.effects_hash for server in world.up()}) == 1


@pytest.mark.parametrize("is_appended", [True, False])
def test_a_leader_asks_once_in_its_term_unless_nothing_was_appended(is_appended: bool) -> None:
    world = World(**BEFORE)
    server = world.form(2)
    other = world["n2"]
    links = {other.id: LinkChanged(other.id, True, "", FEATURES_MAX)}
    proposed: list[CommandBody] = []

    def propose(
        command: Command, done: Callable[[Result], None], failed: Callable[[Reply], None]
    ) -> Index | None:
        proposed.append(command.body)
        if not is_appended:
            failed(ErrorReply(code="unavailable", message="not now"))
        return None

    tried = Features(
        state=server.state, propose=propose, wall_clock_ms=lambda: 7, features_max=FEATURES_MAX
    )
    for _ in range(3):
        tried.advance(server.running.raft, links, change_begins=False)
    once = SwitchOn(version=FEATURES_MAX, time_ms=7, configuration_term=2)
    assert proposed == [once] * (1 if is_appended else 3)
    world.call(server, TransferRequest(target=other.name))
    tried.advance(server.running.raft, links, change_begins=False)
    world.call(world.leader(), TransferRequest(target=server.name))
    world.leader()
    tried.advance(server.running.raft, links, change_begins=False)
    assert proposed == [once] * (2 if is_appended else 4)


def upgraded_but_for_n2() -> tuple[World, Server, Server]:
    """Return three servers, the leader of this release and another one; n2 is of the one before."""
    world = formed_by_the_release_before(3)
    for name in ("n1", "n3"):
        upgrade(world, world[name])
        world.leader()
        world.run(30)
    # One of the two leads.
    world.cut(["n1", "n3"], ["n2"])
    world.run(60)
    world.heal()
    world.run(30)
    leader = world.leader()
    (other,) = {"n1", "n3"} - {leader.name}
    return world, leader, world[other]


def an_older_server_is_asked() -> tuple[World, Server, Asked]:
    """Return a world in which n4, of the release before, is to come in and has just answered."""
    world, leader, other = upgraded_but_for_n2()
    older = world.boot("n4")
    older.version_max = OLD_VERSION
    asked = world.ask_later(leader, world.change("add", new("n4", "learner")))
    while not older.inbox:
        leader.turn(tick=True)
        other.turn(tick=False)
    older.turn(tick=False)
    return world, leader, asked


def test_features_are_not_switched_on_behind_a_change_that_brings_in_an_older_server() -> None:
    world, leader, asked = an_older_server_is_asked()
    # In the turn in which n4 is accepted, the last member of the older release is gone.
    upgrade(world, world["n2"])
    world._dial()
    leader.turn(tick=False)
    world.run(200)

    is_member = "n4" in world.configuration_of(world.leader())[2]
    assert not asked.open
    assert not (is_member and world.leader().state.features), (
        "a member that cannot apply what is on"
    )


def test_an_older_server_is_not_let_in_behind_features_that_are_about_to_be_switched_on() -> None:
    world, leader, asked = an_older_server_is_asked()
    # Its answer waits while the leader proposes to switch on, and nobody acknowledges that.
    (answer,) = [item for item in leader.inbox if isinstance(item, Contacted)]
    leader.inbox.remove(answer)
    world.passes = lambda envelope: envelope.source != leader.id
    upgrade(world, world["n2"])
    world._dial()
    leader.turn(tick=False)
    assert switches(leader)
    assert leader.state.features == 0
    assert isinstance(answer.reply, StatusReply)
    old = attrs.evolve(answer.reply, protocol_version_max=OLD_VERSION)
    leader.inbox.append(attrs.evolve(answer, reply=old))
    leader.turn(tick=False)
    assert "its release is too old" in asked.error.message
    assert f"features of version {FEATURES_MAX}" in asked.error.cause
    world.passes = lambda envelope: True
    world.until(lambda: world.leader().state.features == FEATURES_MAX)


# --- who is kept away -----------------------------------------------------------------------


def hello(server: Server, version_max: int, role: str = "peer") -> Hello:
    is_peer = role == "peer"
    return Hello(
        role=role,
        cluster_id=server.disk.identity.cluster_id,
        source="n9/x" if is_peer else "",
        dest=server.id if is_peer else "",
        version_max=version_max,
    )


def test_an_older_server_is_refused_with_both_versions_and_an_older_raftctl_is_not() -> None:
    world = World(**NOW)
    server = world.bootstrap()
    refusal = server.running.admit(hello(server, OLD_VERSION))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "version"
    assert f"features of version {FEATURES_MAX}" in refusal.message
    assert "n9/x speaks versions 1 to 2" in refusal.message
    assert isinstance(server.running.admit(hello(server, PROTOCOL_VERSION_MAX)), Welcome)
    client = server.running.admit(hello(server, OLD_VERSION, role="client"))
    assert isinstance(client, Welcome)
    assert client.version == OLD_VERSION


def test_while_features_are_off_an_older_server_is_welcome() -> None:
    world = World(**BEFORE)
    server = world.bootstrap()
    answer = server.running.admit(hello(server, OLD_VERSION))
    assert isinstance(answer, Welcome)
    assert answer.version == OLD_VERSION
    sent = server.running.our_hello("n2/x")
    assert sent is not None
    assert sent.version_min == 1


def test_an_older_server_that_is_dialled_sees_from_our_hello_that_it_is_too_old() -> None:
    world = World(**NOW)
    server = world.bootstrap()
    sent = server.running.our_hello("n2/x")
    assert sent is not None
    assert sent.version_min == FEATURES_MAX


def test_a_removed_server_is_told_so_however_old_it_is() -> None:
    identity = Identity(name="n1", incarnation="a", cluster_id="c", cluster_name="orders")
    answer = admit(
        Hello(role="peer", cluster_id="c", source="n2/b", dest="n1/a", version_max=OLD_VERSION),
        identity,
        lambda server: 17,
        FEATURES_MAX,
    )
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.removed_index) == ("removed", 17)
    greeting = our_hello(identity, "n2/b", 0)
    assert greeting is not None
    assert greeting.version_min == 1


def test_a_server_that_went_back_to_the_release_before_is_kept_away() -> None:
    world = World(**NOW)
    world.form(3)
    world.run(10)
    world["n3"].version_max = OLD_VERSION
    world["n3"].restart()
    applied = world["n3"].state.applied_index
    world.run(100)
    leader = world.leader()
    assert leader.name != "n3"
    peers = {peer.server: peer for peer in leader.status.peers}
    assert "it speaks up to 2" in peers[world["n3"].id].problem
    world.call(leader, world.put("k"))
    world.run(20)
    assert world["n3"].state.applied_index == applied


# --- the history ----------------------------------------------------------------------------


def test_the_history_outlives_the_log_and_reaches_servers_that_come_later() -> None:
    world = World(**NOW, snapshot_log_bytes=LOG_BYTES)
    world.form(3)
    before = history(world, world.leader()).records
    fill_until_compacted(world, *world.up())
    world.boot("n4")
    world.finish(world.started(world.change("add", new("n4"))))
    world.until(world.is_settled)
    for server in world.up():
        found = history(world, server)
        assert found.records[-len(before) :] == before
        assert found.records[0].kind == "final"
        assert (found.records[0].author, found.records[0].reason) == ("ann", "because")
        assert (found.complete, found.more) == (True, False)
    assert [record.kind for record in before] == ["final", "joint", "simple", "bootstrap"]
    assert before[0].index > before[-1].index == 1


def test_pages_of_the_history_follow_one_another() -> None:
    world = World(**NOW)
    leader = world.form(3)
    everything = history(world, leader).records
    first = history(world, leader, limit=1)
    assert (first.records, first.more) == (everything[:1], True)
    rest = history(world, leader, below_index=first.records[0].index)
    assert (rest.records, rest.more) == (everything[1:], False)


@pytest.mark.parametrize("limit", [0, HISTORY_LIMIT_MAX + 1])
def test_a_page_of_an_impossible_size_is_refused(limit: int) -> None:
    world = World(**NOW)
    asked = world.ask(world.bootstrap(), HistoryRequest(limit=limit))
    assert asked.error.code == "invalid"
    assert f"a limit of {limit}" in asked.error.cause
