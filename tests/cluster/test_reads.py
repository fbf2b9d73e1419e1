"""Reads of real servers: answered by who does not lead, and by leases."""

from __future__ import annotations

from raftctl.client import Cluster as Client
from raftctl.client import Connection, Deadline, expect
from raftd.protocol import ErrorReply, GetReply, GetRequest, PutRequest, WriteReply
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import Server, wait_for
from tests.cluster.proxy import Fate, Passing

HERE = GetRequest(key="k", through_follower=True)
READS = 50


def put(client: Client, value: bytes) -> None:
    reply = client.write(
        lambda session, serial, lowest: PutRequest(
            session=session, serial=serial, lowest_unacknowledged=lowest, key="k", value=value
        )
    )
    assert expect(reply, WriteReply).applied


def value_here(server: Server) -> bytes | None:
    """Return what a server answers by itself; None if it cannot."""
    reply = server.ask(HERE)
    return reply.value if isinstance(reply, GetReply) else None


def leads(server: Server) -> bool:
    status = server.status()
    return status is not None and status.role == "leader" and status.leadership_confirmed


def test_a_follower_answers_only_once_it_has_what_was_acknowledged_elsewhere(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    assert cluster.proxy is not None
    leader = cluster.wait_leader()
    late, other = cluster.followers(leader)

    def entries_are_late(passing: Passing) -> Fate:
        return Fate.DROP if passing.dest == late.name and passing.entries else Fate.PASS

    with cluster.client() as client:
        put(client, b"old")
        wait_for("both have it", lambda: value_here(late) == value_here(other) == b"old")
        cluster.proxy.obey(entries_are_late)
        put(client, b"new")
        # The answer would be old: there is none, and it says how far the server is.
        assert value_here(other) == b"new"
        refused = late.ask(HERE)
        assert isinstance(refused, ErrorReply)
        assert (refused.code, refused.leader_address) == ("unavailable", leader.address)
        assert f"{late.name} has applied" in refused.cause
        stale = late.ask(GetRequest(key="k", stale=True))
        assert isinstance(stale, GetReply)
        assert stale.value == b"old"
        cluster.proxy.heal()
        assert wait_for("it has caught up", lambda: value_here(late)) == b"new"
    shown = cluster.ctl("get", "k", "--from", late.name)
    assert (shown.code, shown.stdout) == (0, "new")
    refused_here = cluster.ctl("get", "k", "--from", "n9")
    assert refused_here.code == 2, refused_here.stderr


def test_a_leader_that_was_stopped_never_answers_by_a_lease_of_the_past(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", settings="reads: lease")
    leader = cluster.wait_leader()
    followers = cluster.followers(leader)
    with cluster.client() as client:
        put(client, b"old")

    def holds_lease() -> bool:
        status = leader.status()
        return status is not None and bool(status.lease_remaining_ms)

    wait_for("a lease", holds_lease)
    shown = cluster.ctl("status", leader.name)
    assert "reads by lease (held for" in " ".join(shown.stdout.split()), shown.stdout
    deadline = Deadline.after_ms(20_000)
    connections = [Connection.open(leader.listen, deadline) for _ in range(READS)]
    try:
        leader.pause()
        wait_for("another leader", lambda: any(leads(server) for server in followers))
        with cluster.client([server.name for server in followers]) as client:
            put(client, b"new")
        # They wait in the sockets of a process that believes in its lease when it goes on.
        for connection in connections:
            connection.send(GetRequest(key="k"), deadline)
        leader.resume()
        replies = [connection.receive(deadline) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    for reply in replies:
        if isinstance(reply, GetReply):
            assert reply.value == b"new"
        else:
            assert isinstance(reply, ErrorReply)
            assert reply.code in ("not-leader", "unavailable")
    wait_for("it follows and answers by itself", lambda: value_here(leader) == b"new")

    # Whoever restarts is bound by what it may have promised; the cluster comes back all the same.
    for server in cluster.servers.values():
        server.kill()
    for server in cluster.servers.values():
        server.start()
    assert value_here(cluster.wait_leader()) == b"new"
