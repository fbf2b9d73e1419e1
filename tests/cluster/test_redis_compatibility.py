"""A program that was written for Redis, with redis-py: run against a Redis, and against a cluster.

Nothing below the fixtures knows which of the two it talks to.
"""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from raftd.commands import FEATURES_LIVES
from tests.cluster.processes import RunningCluster, wait_for

NAMES = itertools.count()


@pytest.fixture(scope="module", params=["redis-server", "raftd"])
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where a server for Redis clients answers."""
    folder = tmp_path_factory.mktemp("compatibility")
    if request.param == "raftd":
        cluster = RunningCluster(folder, redis=True)
        try:
            cluster.form("n1", "n2", "n3")
            wait_for(
                "transactions everywhere",
                lambda: all(s.features >= FEATURES_LIVES for s in cluster.statuses().values()),
            )
            yield cluster.wait_leader().redis
        finally:
            cluster.close()
    elif shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    else:
        yield from _redis_server(folder)


def _redis_server(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"port": port, "bind": "127.0.0.1", "save": "", "dir": folder}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["redis-server", *words], stdout=log, stderr=log)
    try:

        def answers() -> bool:
            with redis.Redis(port=port) as client:
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

        wait_for("an answer of Redis", answers)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def client(request: pytest.FixtureRequest, address: str) -> Iterator[redis.Redis]:
    """A connection pool, in both versions of the protocol."""
    host, _, port = address.rpartition(":")
    with redis.Redis(host, int(port), protocol=request.param) as client:
        yield client


@pytest.fixture
def key() -> str:
    """A key that nobody else uses: what keys are there before is nobody's business."""
    return f"key:{next(NAMES)}"


# --- strings --------------------------------------------------------------------------------


def test_strings(client: redis.Redis, key: str) -> None:
    assert client.get(key) is None
    assert client.set(key, "value") is True
    assert client.get(key) == b"value"
    assert client.set(key, b"\x00\xff\r\n") is True
    assert client.get(key) == b"\x00\xff\r\n"
    assert client.strlen(key) == 4
    assert client.append(key, "more") == 8
    assert client.getrange(key, -4, -1) == b"more"
    assert client.getset(key, "new") == b"\x00\xff\r\nmore"
    assert client.getdel(key) == b"new"
    assert client.exists(key) == 0
    assert client.setnx(key, 1) is True
    assert client.setnx(key, 2) is False
    assert client.set(key, 3, nx=True) is None
    assert client.set(key, 3, xx=True) is True
    assert client.set(key, 4, get=True) == b"3"
    assert client.set(f"{key}:other", 4, xx=True) is None
    assert client.type(key) == b"string"
    assert client.type(f"{key}:other") == b"none"


def test_several_keys(client: redis.Redis, key: str) -> None:
    names = [f"{key}:{number}" for number in range(5)]
    assert client.mset(dict(zip(names, range(5), strict=True))) is True
    assert client.mget([*names, f"{key}:none"]) == [b"0", b"1", b"2", b"3", b"4", None]
    assert client.exists(*names, names[0]) == 6
    assert client.msetnx({names[0]: 9, f"{key}:new": 9}) in (False, 0)
    assert client.msetnx({f"{key}:a": 9, f"{key}:b": 9}) in (True, 1)
    assert client.delete(names[0], names[1], f"{key}:none") == 2
    assert client.unlink(*names) == 3
    assert client.touch(f"{key}:a", f"{key}:b", names[0]) == 2


def test_counters(client: redis.Redis, key: str) -> None:
    assert client.incr(key) == 1
    assert client.incr(key, 41) == 42
    assert client.decr(key) == 41
    assert client.decr(key, 50) == -9
    assert client.incrby(key, -1) == -10
    assert client.get(key) == b"-10"
    client.set(key, 2**63 - 1)
    with pytest.raises(redis.ResponseError, match="overflow"):
        client.incr(key)
    client.set(key, "ten")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.incr(key)
    assert client.get(key) == b"ten"


# --- lives ----------------------------------------------------------------------------------


def test_keys_with_a_life(client: redis.Redis, key: str) -> None:
    assert client.ttl(key) == -2
    client.set(key, 1)
    assert client.ttl(key) == -1
    assert client.pttl(key) == -1
    assert client.expire(key, 100) in (True, 1)
    assert client.ttl(key) in (99, 100)
    assert 90_000 < client.pttl(key) <= 100_000
    assert abs(client.expiretime(key) - time.time() - 100) < 5
    assert abs(client.pexpiretime(key) - 1000 * (time.time() + 100)) < 5_000
    assert client.persist(key) in (True, 1)
    assert client.ttl(key) == -1
    assert client.expireat(key, int(time.time()) + 50) in (True, 1)
    assert client.ttl(key) in (49, 50, 51)
    assert client.pexpire(key, 200_000, nx=True) in (False, 0)
    assert client.pexpire(key, 200_000, gt=True) in (True, 1)
    assert client.expire(key, 300, lt=True) in (False, 0)
    assert client.expire(key, 30, lt=True) in (True, 1)
    assert client.ttl(key) in (29, 30)
    assert client.expire(f"{key}:none", 100) in (False, 0)
    client.set(key, 2, keepttl=True)
    assert client.ttl(key) in (29, 30)
    client.set(key, 3)
    assert client.ttl(key) == -1
    client.set(key, 4, ex=20)
    client.incr(key)
    assert client.ttl(key) in (19, 20)
    assert client.getex(key, ex=60) == b"5"
    assert client.ttl(key) in (59, 60)
    assert client.getex(key, persist=True) == b"5"
    assert client.ttl(key) == -1
    assert client.expire(key, -1) in (True, 1)
    assert client.get(key) is None
    for wrong in ({"ex": 0}, {"px": -5}):
        with pytest.raises(redis.ResponseError, match="invalid expire time"):
            client.set(key, 1, **wrong)  # type: ignore[arg-type]


def test_a_life_ends(client: redis.Redis, key: str) -> None:
    client.set(key, 1, px=150)
    client.execute_command("PSETEX", f"{key}:2", 150, 1)
    assert client.get(key) == b"1"
    wait_for("the end of both", lambda: client.exists(key, f"{key}:2") == 0)
    assert client.ttl(key) == -2
    assert client.incr(key) == 1
    assert client.ttl(key) == -1


# --- transactions ---------------------------------------------------------------------------


def test_a_pipeline_is_a_transaction(client: redis.Redis, key: str) -> None:
    with client.pipeline() as pipeline:
        pipeline.set(key, 1).incr(key).get(key).mget([key, f"{key}:none"]).expire(key, 9).ttl(key)
        done = pipeline.execute()
    assert done[:4] == [True, 2, b"2", [b"2", None]]
    assert done[4:] in ([True, 9], [1, 9], [True, 8])
    with client.pipeline() as pipeline:
        pipeline.set(key, "x").incr(key).set(f"{key}:2", 1)
        results = pipeline.execute(raise_on_error=False)
    assert results[0] is results[2] is True
    assert isinstance(results[1], redis.ResponseError)
    assert client.get(f"{key}:2") == b"1"


def test_a_pipeline_without_a_transaction_keeps_the_order(client: redis.Redis, key: str) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for number in range(100):
            pipeline.set(key, number).get(key).incr(f"{key}:n").strlen(key)
        done = pipeline.execute()
    assert done[1::4] == [b"%d" % number for number in range(100)]
    assert done[2::4] == list(range(1, 101))


def test_watched_keys(client: redis.Redis, key: str) -> None:
    client.set(key, 5)
    with client.pipeline() as pipeline:
        pipeline.watch(key)
        seen = int(pipeline.get(key))  # type: ignore[arg-type]
        pipeline.multi()
        pipeline.set(key, seen + 1)
        assert pipeline.execute() == [True]
        pipeline.watch(key)
        client.set(key, 100)
        pipeline.multi()
        pipeline.set(key, seen + 2)
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    assert client.get(key) == b"100"

    def double(pipeline: redis.client.Pipeline) -> None:
        current = int(pipeline.get(key))  # type: ignore[arg-type]
        pipeline.multi()
        pipeline.set(key, 2 * current)

    assert client.transaction(double, key) == [True]
    assert client.get(key) == b"200"


def test_a_transaction_with_a_mistake_does_nothing(client: redis.Redis, key: str) -> None:
    with client.pipeline() as pipeline:
        pipeline.set(key, 1).execute_command("GET")
        with pytest.raises(redis.ResponseError, match="wrong number of arguments"):
            pipeline.execute()
    assert client.get(key) is None
    assert client.ping() is True


def test_a_lock(client: redis.Redis, key: str) -> None:
    # As one that takes no script: whoever has it put its own name there.
    assert client.set(key, "me", nx=True, px=60_000) is True
    assert client.set(key, "you", nx=True, px=60_000) is None
    with client.pipeline() as pipeline:
        pipeline.watch(key)
        assert pipeline.get(key) == b"me"
        pipeline.multi()
        pipeline.delete(key)
        assert pipeline.execute() == [1]
    assert client.set(key, "you", nx=True, px=60_000) is True


# --- going through keys ---------------------------------------------------------------------


def test_scans(client: redis.Redis, key: str) -> None:
    names = {f"{key}:scan:{number}".encode() for number in range(57)}
    client.mset(dict.fromkeys(names, 1))
    for count in (None, 1, 10, 1000):
        assert set(client.scan_iter(match=f"{key}:scan:*", count=count)) == names
    assert set(client.scan_iter(match=f"{key}:scan:?", count=20)) == {
        name for name in names if len(name) == len(f"{key}:scan:0")
    }
    assert names <= set(client.scan_iter())
    assert set(client.keys(f"{key}:scan:*")) == names
    assert sorted(client.keys(f"{key}:scan:[3-5]")) == sorted(client.keys(f"{key}:scan:[345]"))
    assert list(client.scan_iter(match=f"{key}:*", _type="hash")) == []
    assert client.dbsize() >= len(names)


# --- connections ----------------------------------------------------------------------------


def test_connections_have_names_and_numbers(address: str) -> None:
    host, _, port = address.rpartition(":")
    with redis.Redis(
        host, int(port), client_name="tester", single_connection_client=True
    ) as client:
        assert client.client_getname() in ("tester", b"tester")
        assert client.client_id() > 0
        assert client.client_info()["name"] == "tester"
        assert client.echo("hello") == b"hello"
        assert client.select(0) in (True, b"OK", "OK")
        assert abs(client.time()[0] - time.time()) < 5


def test_decoded_replies_and_a_url(address: str, key: str) -> None:
    with redis.Redis.from_url(f"redis://{address}/0", decode_responses=True) as client:
        client.set(key, "Grüße")
        assert client.get(key) == "Grüße"
        assert client.info("server")["redis_version"][0] == "7"
        assert client.config_get("save") == {"save": ""}


def test_commands_describe_themselves(client: redis.Redis) -> None:
    described = client.command()
    assert described["get"]["arity"] == 2
    assert described["mset"]["step_count"] == 2
    assert client.command_count() >= 50
    assert client.command_getkeys("MSET", "a", 1, "b", 2) in ([b"a", b"b"], ["a", "b"])


def test_mistakes_are_told_and_the_connection_goes_on(client: redis.Redis, key: str) -> None:
    for words, match in (
        (("GET",), "wrong number of arguments"),
        (("SET", key, 1, "NONSENSE"), "syntax error"),
        (("NONSENSE", key), "unknown command"),
        (("INCRBY", key, "x"), "not an integer"),
        (("EXEC",), "without MULTI"),
        (("SCAN", "x"), "invalid cursor"),
    ):
        with pytest.raises(redis.ResponseError, match=match):
            client.execute_command(*words)
    assert client.ping() is True


def test_a_client_that_repeats_nothing(address: str, key: str) -> None:
    host, _, port = address.rpartition(":")
    with redis.Redis(host, int(port), retry=Retry(NoBackoff(), 0)) as client:
        assert client.incr(key) == 1
