"""Unmodified Redis clients on a cluster whose leader moves, dies, and is replaced."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from raftd.commands import FEATURES_LIVES
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, Server, wait_for

ROOT = Path(__file__).parent.parent.parent
JOIN_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 20.0
REDIS_CLI = shutil.which("redis-cli")
needs_redis_cli = pytest.mark.skipif(
    REDIS_CLI is None, reason="redis-cli is not installed: apt-get install redis-tools"
)


def formed(make_cluster: MakeCluster) -> RunningCluster:
    """Return three servers that serve Redis clients, with transactions switched on."""
    cluster = make_cluster("n1", "n2", "n3", redis=True)
    wait_for(
        "transactions everywhere",
        lambda: all(s.features >= FEATURES_LIVES for s in cluster.statuses().values()),
    )
    cluster.wait_settled(["n1", "n2", "n3"])
    return cluster


def port_of(server: Server) -> int:
    return int(server.redis.rpartition(":")[2])


def cluster_client(servers: list[Server], **options: Any) -> RedisCluster:
    nodes = [ClusterNode("127.0.0.1", port_of(server)) for server in servers]
    return RedisCluster(startup_nodes=nodes, **options)


def redis_cli(port: int, *words: str, stdin: str = "") -> str:
    """Return what redis-cli prints."""
    assert REDIS_CLI is not None
    ended = subprocess.run(
        [REDIS_CLI, "-c", "-p", str(port), *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    return ended.stdout + ended.stderr


def documented(name: str) -> Any:
    """Return what the README's program for redis-py defines under a name."""
    text = (ROOT / "README.md").read_text()
    (program,) = [
        code
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if f"class {name}" in code
    ]
    assert program.count("\n") < 60
    namespace: dict[str, Any] = {}
    exec(compile(program, "README.md", "exec"), namespace)
    return namespace[name]


class Doing(threading.Thread):
    """Does one thing after the other until it is told to stop."""

    def __init__(self, do: Callable[[int], None]) -> None:
        super().__init__(daemon=True)
        self.done = 0
        self.problem: BaseException | None = None
        self._do = do
        self._stops = threading.Event()

    def run(self) -> None:
        try:
            while not self._stops.is_set():
                self._do(self.done)
                self.done += 1
        except BaseException as problem:
            self.problem = problem

    def wait_more(self, count: int = 10) -> None:
        """Wait until it has done some more."""
        before = self.done
        wait_for("more is done", lambda: self.done >= before + count or self.problem is not None)
        assert self.problem is None, repr(self.problem)

    def stop(self) -> None:
        """Let it end, and see that it went well."""
        self._stops.set()
        self.join(JOIN_TIMEOUT_S)
        assert not self.is_alive()
        assert self.problem is None, repr(self.problem)


@needs_redis_cli
def test_cluster_clients_follow_the_leader_without_an_error(make_cluster: MakeCluster) -> None:
    cluster = formed(make_cluster)
    for protocol in (2, 3):
        leader = cluster.wait_leader()
        followers = cluster.followers(leader)
        # It may begin with any of them.
        with cluster_client([followers[0]], protocol=protocol) as client:
            key = f"{{moving}}:{protocol}"
            assert client.set(key, 0) is True
            assert client.get_primaries()[0].port == port_of(leader)
            assert len(client.get_replicas()) == 2
            moved = cluster.ctl("transfer", followers[1].name, "-y")
            assert moved.code == 0, moved.stderr
            assert [client.incr(key) for _ in range(20)] == list(range(1, 21))
            assert client.mget([key, "{moving}:none"]) == [b"20", None]
            assert client.get_primaries()[0].port == port_of(followers[1])
            with client.pipeline() as pipeline:
                assert pipeline.set(f"{key}:2", 1).incr(key).execute() == [True, 21]
            assert {name.decode() for name in client.scan_iter(match="{moving}*")} >= {key}
            assert client.info(target_nodes=RedisCluster.DEFAULT_NODE)["cluster_enabled"] == 1
    leader = cluster.wait_leader()
    follower = cluster.followers(leader)[0]
    told = redis_cli(
        port_of(follower),
        stdin="SET typed 'a value'\nGET typed\nMULTI\nINCR {typed}n\nEXEC\nREADONLY\nGET typed\n",
    )
    redirected, *told_there = told.splitlines()
    assert redirected.endswith(leader.redis)
    assert told_there == ["OK", "a value", "OK", "QUEUED", "1", "OK", "a value"]
    found = redis_cli(port_of(leader), "--scan", "--pattern", "{typed}*")
    assert found.splitlines() == ["{typed}n"]
    with redis.Redis(port=port_of(follower)) as plain:
        with pytest.raises(redis.exceptions.MovedError):
            plain.get("typed")
        plain.execute_command("READONLY")
        wait_for("the write at a follower", lambda: plain.get("typed") == b"a value")


def test_what_sessions_count_is_exact_although_leaders_are_killed(
    make_cluster: MakeCluster,
) -> None:
    cluster = formed(make_cluster)
    addresses = [server.redis for server in cluster.servers.values()]
    exactly_once = documented("ExactlyOnce")
    clients = [exactly_once(addresses[i:] + addresses[:i]) for i in range(3)]
    found: list[list[int]] = [[] for _ in clients]

    def count(client: Any, numbers: list[int]) -> Callable[[int], None]:
        return lambda _: numbers.append(client.do("INCR", "total"))

    counting = [Doing(count(*each)) for each in zip(clients, found, strict=True)]
    for each in counting:
        each.start()
    for _ in range(2):
        for each in counting:
            each.wait_more(20)
        killed = cluster.wait_leader()
        killed.kill()
        for each in counting:
            each.wait_more(20)
        killed.start()
        cluster.wait_settled(["n1", "n2", "n3"])
    for each in counting:
        each.stop()
    for client in clients:
        client.close()
    numbers = [number for each in found for number in each]
    # Every one was acknowledged in the end, and none has counted twice.
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    with redis.Redis(port=port_of(cluster.wait_leader())) as plain:
        assert plain.get("total") == b"%d" % len(numbers)


@needs_redis_cli
def test_every_command_is_acknowledged_or_reported_while_servers_are_replaced(
    make_cluster: MakeCluster,
) -> None:
    cluster = formed(make_cluster)
    cluster.start_blank("n4", "n5", "n6")
    ports = [port_of(server) for server in cluster.servers.values()]
    acknowledged: list[str] = []
    reported: list[str] = []

    def with_redis_py(client: RedisCluster) -> Callable[[int], None]:
        def write(number: int) -> None:
            key = f"py:{client.connection_number}:{number}"
            try:
                assert client.set(key, key) is True
                acknowledged.append(key)
            except redis.RedisError as problem:
                reported.append(f"{key}: {problem!r}")

        return write

    def with_plain_redis_py(number: int) -> None:
        key, port = f"plain:{number}", ports[number % len(ports)]
        with redis.Redis(port=port, retry=Retry(NoBackoff(), 0), socket_timeout=5) as client:
            try:
                with client.pipeline() as pipeline:
                    pipeline.set(key, key).set(f"{key}:2", key).execute()
                acknowledged.extend((key, f"{key}:2"))
            except redis.RedisError as problem:
                reported.append(f"{key}: {problem!r}")

    def with_redis_cli(number: int) -> None:
        key = f"cli:{number}"
        told = redis_cli(ports[number % len(ports)], "SET", key, key)
        if told == "OK\n":
            acknowledged.append(key)
        else:
            # It exits with 0 for some of them, but it always says what is the matter.
            problems = "error|refused|MOVED|CLUSTERDOWN|TRYAGAIN|UNCERTAIN|closed"
            assert re.search(problems, told, re.IGNORECASE), told
            reported.append(f"{key}: {told}")
        time.sleep(0.02)

    clients = [cluster_client(list(cluster.servers.values())[:3]) for _ in range(2)]
    for number, client in enumerate(clients):
        client.connection_number = number
    writing = [Doing(with_redis_py(client)) for client in clients]
    writing += [Doing(with_redis_cli), Doing(with_plain_redis_py)]
    for each in writing:
        each.start()
    known = ["n1", "n2", "n3"]
    for old, new in (("n1", "n4"), ("n2", "n5"), ("n3", "n6")):
        endpoints = ",".join(cluster[name].address for name in known)
        pair = (old, f"{new}={cluster[new].address}")
        result = cluster.ctl("replace", *pair, "-y", "-e", endpoints)
        assert result.code == 0, result.stderr
        known = [new if name == old else name for name in known]
        for each in writing:
            each.wait_more(5)
    cluster.wait_settled(["n4", "n5", "n6"])
    before = len(acknowledged)
    writing[0].wait_more(20)
    for each in writing:
        each.stop()
    # Clients that knew none of these servers at their start still get through.
    assert len(acknowledged) > before
    assert len(acknowledged) > len(reported), reported[-5:]
    with redis.Redis(port=port_of(cluster.wait_leader(["n4", "n5", "n6"]))) as plain:
        for start in range(0, len(acknowledged), 500):
            keys = acknowledged[start : start + 500]
            expected = [
                key.removesuffix(":2").encode() if key.startswith("plain") else key.encode()
                for key in keys
            ]
            assert plain.mget(keys) == expected
    for client in clients:
        client.close()
