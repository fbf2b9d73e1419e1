"""Clients of the Redis protocol on a cluster of real processes, through the death of its leader."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import hiredis
import pytest
import yaml

from raftd.commands import FEATURES_COUNTERS
from tests.cluster.processes import RunningCluster, Server, wait_for
from tests.cluster.redis_client import Connection, Counting

BENCHMARK_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Three servers that serve Redis clients, with all features switched on."""
    cluster = RunningCluster(tmp_path_factory.mktemp("redis"), redis=True)
    try:
        cluster.form("n1", "n2", "n3")
        wait_for(
            "counters everywhere",
            lambda: all(s.features >= FEATURES_COUNTERS for s in cluster.statuses().values()),
        )
        yield cluster
    finally:
        cluster.close()


def followers(cluster: RunningCluster) -> list[Server]:
    leader = cluster.wait_leader()
    return [server for server in cluster.servers.values() if server is not leader]


def redirected_to(server: Server) -> str:
    """Return where a server sends its clients; empty if it does not know."""
    try:
        with Connection(server.redis) as connection:
            reply = connection.ask("GET", "somekey")
    except OSError:
        return ""
    match = re.fullmatch(r"MOVED 11058 (\S+)", str(reply))
    return match[1] if match else ""


def test_the_leader_serves_and_the_others_say_where_it_is(cluster: RunningCluster) -> None:
    leader = cluster.wait_leader()
    with Connection(leader.redis) as connection:
        connection.send(
            *(["SET", "a", "1"], ["GET", "a"], ["INCR", "a"], ["MSET", "b", "x", "c", "y"]),
            *(["GET", "c"], ["DEL", "b", "c", "d"], ["SET", "a", "3", "NX"], ["GET", "none"]),
        )
        expected = [b"OK", b"1", 2, b"OK", b"y", 2, None, None]
        assert [connection.reply() for _ in expected] == expected
        value = bytes(range(256)) * 4_096
        assert connection.ask("SET", "big", value) == b"OK"
        assert connection.ask("GET", "big") == value
    for server in followers(cluster):
        wait_for("a redirection", lambda each=server: redirected_to(each) == leader.redis)  # type: ignore[misc]
        with Connection(server.redis) as connection:
            assert isinstance(connection.ask("INCR", "a"), hiredis.ReplyError)
            assert connection.ask("READONLY") == b"OK"
            wait_for("the write", lambda each=connection: each.ask("GET", "a") == b"2")  # type: ignore[misc]
    # What raftctl wrote and what these clients wrote are the same keys.
    assert cluster.ctl("get", "a").stdout == "2"
    assert cluster.ctl("put", "a", "7").code == 0
    with Connection(leader.redis) as connection:
        assert connection.ask("GET", "a") == b"7"
    exported = yaml.safe_load(cluster.ctl("config", "export").stdout)
    assert {name: server["redis"] for name, server in exported["servers"].items()} == {
        name: server.redis for name, server in cluster.servers.items()
    }


def test_every_acknowledged_increment_counts_once_through_the_death_of_leaders(
    cluster: RunningCluster,
) -> None:
    addresses = [server.redis for server in cluster.servers.values()]
    counting = [Counting(addresses, "counter", pipeline=pipeline) for pipeline in (1, 1, 10, 50)]

    def acknowledged() -> int:
        return sum(len(each.numbers) for each in counting)

    def wait_progress(what: str) -> None:
        before = [len(each.numbers) for each in counting]
        wait_for(
            what,
            lambda: all(
                len(each.numbers) > count + 20 or each.error is not None
                for each, count in zip(counting, before, strict=True)
            ),
        )

    for each in counting:
        each.start()
    wait_progress("all of them count")
    killed = cluster.wait_leader()
    killed.kill()
    wait_progress("all of them count at another leader")
    killed.start()
    cluster.wait_settled(["n1", "n2", "n3"])
    stopped = cluster.wait_leader()
    stopped.terminate()
    assert stopped.wait_exit() == 0
    wait_progress("all of them count after a leader was stopped")
    stopped.start()
    cluster.wait_settled(["n1", "n2", "n3"])
    for each in counting:
        each.stops.set()
    for each in counting:
        each.join(BENCHMARK_TIMEOUT_S)
        assert not each.is_alive()
        assert each.error is None
        assert each.numbers == sorted(each.numbers)
    numbers = [number for each in counting for number in each.numbers]
    assert len(set(numbers)) == len(numbers)
    with Connection(cluster.wait_leader().redis) as connection:
        counted = int(connection.ask("GET", "counter"))
    uncertain = sum(each.uncertain for each in counting)
    assert acknowledged() <= counted <= acknowledged() + uncertain
    assert max(numbers) <= counted
    # It is redirected again by those that were away.
    for server in followers(cluster):
        leader = cluster.wait_leader()
        wait_for("a redirection", lambda each=server: redirected_to(each) == leader.redis)  # type: ignore[misc]  # noqa: B023
    assert not any("divergence" in server.log for server in cluster.servers.values())


@pytest.mark.skipif(
    shutil.which("redis-benchmark") is None,
    reason="redis-benchmark is not installed: apt-get install redis-tools",
)
def test_redis_benchmark_finds_what_it_needs(cluster: RunningCluster) -> None:
    port = cluster.wait_leader().redis.rpartition(":")[2]
    command = ["redis-benchmark", "-p", port, "-t", "set,get,incr,mset", "-q"]
    for more in (["-n", "2000"], ["-n", "2000", "-P", "16"], ["-n", "100", "-3", "-c", "3"]):
        ended = subprocess.run(
            [*command, *more], capture_output=True, text=True, timeout=BENCHMARK_TIMEOUT_S
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert not re.search("rror|WARN", ended.stdout + ended.stderr)
        done = re.findall(r"(SET|GET|INCR|MSET \(10 keys\)): [\d.]+ requests", ended.stdout)
        assert done == ["SET", "GET", "INCR", "MSET (10 keys)"]
    with Connection(cluster.wait_leader().redis) as connection:
        found = connection.ask("GET", "counter:__rand_int__")
    assert found == b"4100"
