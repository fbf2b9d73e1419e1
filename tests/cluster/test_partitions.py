"""Servers that are away for a while: down and back, or cut off and back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from raftctl.client import Cluster as Client
from raftctl.client import expect
from raftctl.errors import OutcomeUnknown
from raftd.commands import Put, decode_command
from raftd.core.types import EntryKind
from raftd.protocol import (
    ErrorReply,
    GetReply,
    GetRequest,
    OpenSessionRequest,
    PutRequest,
    WriteReply,
)
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, Server, wait_for
from tests.cluster.proxy import Fate, Passing, where


def put(client: Client, key: str, value: bytes) -> None:
    reply = client.write(
        lambda session, serial, lowest: PutRequest(
            session=session, serial=serial, lowest_unacknowledged=lowest, key=key, value=value
        )
    )
    assert expect(reply, WriteReply).applied


def carries_put(passing: Passing) -> bool:
    return any(
        entry.kind is EntryKind.COMMAND and isinstance(decode_command(entry.data).body, Put)
        for entry in passing.entries
    )


def own_value(server: Server, key: str) -> bytes | None:
    """Return what the server's own state has for `key`; None if it has none."""
    reply = server.ask(GetRequest(key=key, stale=True))
    return reply.value if isinstance(reply, GetReply) and reply.found else None


def wait_everywhere(cluster: RunningCluster, key: str, value: bytes) -> None:
    servers = cluster.servers.values()
    wait_for(
        f"all have {key}",
        lambda: all(own_value(server, key) == value for server in servers),
    )


def test_a_write_at_a_follower_reaches_the_leader_by_itself(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    for follower in cluster.followers(cluster.wait_leader()):
        written = cluster.ctl("-e", follower.address, "put", follower.name, "1")
        assert written.code == 0, written.stderr
        wait_everywhere(cluster, follower.name, b"1")


def test_one_follower_down_and_then_two_catch_up_when_they_are_back(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    leader = cluster.wait_leader()
    first, second = cluster.followers(leader)
    with cluster.client(timeout_ms=1_500) as client:
        put(client, "all", b"1")
        first.kill()
        put(client, "one is down", b"1")
        first.start()
        wait_everywhere(cluster, "one is down", b"1")
        cluster.wait_settled(["n1", "n2", "n3"])
        first.kill()
        second.kill()
        with pytest.raises(OutcomeUnknown):
            put(client, "two are down", b"1")
        first.start()
        second.start()
        cluster.wait_settled(["n1", "n2", "n3"])
        put(client, "all are back", b"1")
    wait_everywhere(cluster, "all are back", b"1")


def test_a_leader_cut_off_with_a_minority_gives_up_and_its_pending_write_is_unknown(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    assert cluster.proxy is not None
    leader = cluster.wait_leader()
    majority = [server.name for server in cluster.followers(leader)]
    with cluster.client() as client:
        put(client, "a", b"before")
        client.ask(OpenSessionRequest(session="pending"))
        pending = PutRequest(
            session="pending", serial=1, lowest_unacknowledged=1, key="a", value=b"dropped"
        )
        cluster.proxy.partition([leader.name], majority)
        with ThreadPoolExecutor() as executor:
            answer = executor.submit(leader.ask, pending)
            new_leader = cluster.wait_leader(majority)
            reply = answer.result()
        assert isinstance(reply, ErrorReply)
        assert reply.code == "unknown-outcome"
    # It knows by now that it leads no more, and takes nothing.
    at_old = cluster.ctl("-e", leader.address, "--timeout", "1s", "put", "a", "refused")
    assert at_old.code == 3, at_old.stderr
    with cluster.client(majority) as client:
        put(client, "a", b"kept")
    term = cluster.term()
    assert own_value(leader, "a") == b"before"
    cluster.proxy.heal()
    wait_everywhere(cluster, "a", b"kept")
    status = cluster.wait_settled(["n1", "n2", "n3"])
    # The stale leader has come back as a follower and has not disturbed anybody.
    assert status.server.startswith(f"{new_leader.name}/")
    assert status.term == term
    with cluster.client() as client:
        reply = expect(client.ask(GetRequest(key="a")), GetReply)
        assert (reply.value, reply.version) == (b"kept", 2)


def test_raftctl_says_unknown_of_a_write_that_a_cut_off_leader_has_taken(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    assert cluster.proxy is not None
    leader = cluster.wait_leader()
    # A session can be opened; the write itself gets through to nobody, whoever leads.
    cluster.proxy.obey(where(carries_put, Fate.CUT))
    at_leader = ("-e", leader.address, "--timeout", "3s", "-o", "json")
    unknown = cluster.ctl(*at_leader, "put", "a", "1")
    assert unknown.code == 5, unknown.stderr
    assert unknown.error["code"] == "unknown-outcome"
    assert "may or may not have taken effect" in unknown.error["message"]
    cluster.proxy.heal()
    cluster.wait_settled(["n1", "n2", "n3"])


def test_a_leader_on_the_side_of_the_majority_goes_on_without_an_election(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    assert cluster.proxy is not None
    leader = cluster.wait_leader()
    lonely, other = cluster.followers(leader)
    term = cluster.term()
    cluster.proxy.partition([lonely.name], [leader.name, other.name])
    with cluster.client() as client:
        put(client, "a", b"1")
        # Long enough for several elections, all of which end at the pre-vote.
        wait_for(
            f"{lonely.name} knows no leader and asks",
            lambda: lonely.log.count("asks whether it could win") >= 1,
        )
        put(client, "a", b"2")
        assert own_value(lonely, "a") is None
        cluster.proxy.heal()
        wait_everywhere(cluster, "a", b"2")
    status = cluster.wait_settled(["n1", "n2", "n3"])
    assert status.server.startswith(f"{leader.name}/")
    assert status.term == term


def test_a_leader_that_was_stopped_for_a_while_comes_back_as_a_follower(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    stale = cluster.wait_leader()
    rest = [server.name for server in cluster.followers(stale)]
    stale.pause()
    new_leader = wait_for(
        "another leader",
        lambda: next(
            (
                cluster[name]
                for name in rest
                if (status := cluster[name].status()) and status.role == "leader"
            ),
            None,
        ),
    )
    with cluster.client(rest) as client:
        put(client, "a", b"new")
        stale.resume()
        # It is asked first, and must not answer from what it knew before.
        with cluster.client([stale.name]) as old_client:
            assert expect(old_client.ask(GetRequest(key="a")), GetReply).value == b"new"
    status = cluster.wait_settled(["n1", "n2", "n3"])
    assert status.server.startswith(f"{new_leader.name}/")
