"""A server whose disk went back in time is told so by the leader, and says so itself."""

from __future__ import annotations

import logging

import attrs
import pytest

from raftd.fencing import TELL_MS
from raftd.inputs import PeerRefused
from raftd.protocol import Hello, Refusal, Welcome
from tests.node.disks import MemoryDisk
from tests.node.world import ELECTION_TICKS, TICK_MS, Server, World


@pytest.fixture
def fenced() -> Server:
    """A follower that lacks entries that it has acknowledged to its leader, which still leads."""
    world = World()
    world.form(3)
    server = world["n3"]
    world.call(world.leader(), world.put("a"))
    world.run(5)
    disk = server.disk
    assert isinstance(disk, MemoryDisk)
    older = list(disk.entries)
    for number in range(5):
        world.call(world.leader(), world.put(f"k{number}"))
    world.run(5)
    assert len(disk.entries) > len(older)
    server.kill()
    disk.entries = older
    server.start()
    return server


def fencing_of(server: Server) -> list[str]:
    return [issue for issue in server.status.issues if "has fenced this server" in issue]


def test_a_fenced_server_says_so_itself_with_the_way_back(
    fenced: Server, caplog: pytest.LogCaptureFixture
) -> None:
    world = fenced.world
    leader = world.leader()
    lost = leader.status.last_index
    with caplog.at_level(logging.WARNING, "raftd.fencing"):
        world.until(lambda: fencing_of(fenced), what="it knows")
        world.run(4 * ELECTION_TICKS)
    (issue,) = fencing_of(fenced)
    assert issue.startswith("n1, which leads, has fenced this server")
    assert f"lacks entries up to {lost}" in issue
    assert issue.endswith(f"raftctl replace n3 n3={fenced.address}")
    # Each of both says it once.
    told = [record for record in caplog.records if record.name == "raftd.fencing"]
    assert len(told) == 2
    assert leader.status.issues == ()
    assert world.leader() is leader


def test_who_was_told_is_admitted_again_and_told_again_later(fenced: Server) -> None:
    world = fenced.world
    world.until(lambda: fencing_of(fenced))
    leader = world.leader()
    world.until(lambda: leader.id in fenced.links, what="it is connected again")
    # After a restart it knows nothing of it, until it is told again.
    fenced.restart()
    world.run(round(TELL_MS / TICK_MS) // 2)
    assert fencing_of(fenced) == []
    assert leader.id in fenced.links
    world.until(lambda: fencing_of(fenced), ticks=round(TELL_MS / TICK_MS))


def test_for_the_next_leader_nothing_is_wrong_with_it(fenced: Server) -> None:
    world = fenced.world
    world.until(lambda: fencing_of(fenced))
    old = world.leader()
    old.kill()
    world.until(lambda: world["n2"].leads)
    world.until(lambda: fenced.status.last_index == world["n2"].status.last_index)
    world.until(lambda: fencing_of(fenced) == [])


def test_a_healthy_server_and_a_client_are_not_refused(fenced: Server) -> None:
    world = fenced.world
    leader = world.leader()
    world.until(lambda: any(peer.fenced for peer in leader.status.peers))
    cluster_id = leader.status.cluster_id
    for role, source in (("peer", world["n2"].id), ("client", "")):
        hello = Hello(role=role, cluster_id=cluster_id, source=source, dest=leader.id)
        assert isinstance(leader.running.admit(hello), Welcome)


def test_the_word_of_another_cluster_counts_nothing(fenced: Server) -> None:
    world = fenced.world
    healthy = world["n2"]
    refusal = Refusal(code="fenced", message="m", server="n1/x", cluster_id="another")
    for wrong in (
        refusal,
        attrs.evolve(refusal, code="busy", cluster_id=healthy.status.cluster_id),
    ):
        healthy.running.turn([PeerRefused(world.leader().id, wrong)], tick=False)
        assert fencing_of(healthy) == []
