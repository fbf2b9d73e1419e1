"""The load generator itself, built with Go's own library alone, against a server of a few lines."""

from __future__ import annotations

import itertools
import json
import os
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.benchmarks.comparisons.children import Children, installed
from tests.benchmarks.comparisons.generator import (
    ComparisonProblem,
    Generator,
    Report,
    Workload,
    build,
)
from tests.cluster.processes import wait_for

DELAY_SECONDS = 0.005
"""How late the answers are that are late."""

REQUESTS = 40
"""A load that counts what comes of single requests has at least so many."""


class _Store(socketserver.ThreadingTCPServer):
    """SET and GET of the Redis protocol, as far as the generator uses it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.sets = 0
        self.redirected_sets = 0
        """So many are refused first, as a server does that does not lead."""
        self.requests = 0
        self.late_every = 0
        """Of so many requests one is answered late; 0: none is."""
        super().__init__(("127.0.0.1", 0), _Connection)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.StreamRequestHandler):
    server: _Store

    def handle(self) -> None:
        while head := self.rfile.readline():
            words = [self._bulk() for _ in range(int(head[1:]))]
            self.wfile.write(self._answer(*words))

    def _bulk(self) -> bytes:
        length = int(self.rfile.readline()[1:])
        return self.rfile.read(length + 2)[:length]

    def _answer(self, name: bytes, key: bytes, value: bytes | None = None) -> bytes:
        store = self.server
        store.requests += 1
        if store.late_every and store.requests % store.late_every == 0:
            time.sleep(DELAY_SECONDS)
        if name == b"GET":
            found = store.values.get(key)
            return b"$-1\r\n" if found is None else b"$%d\r\n%b\r\n" % (len(found), found)
        assert name == b"SET"
        assert value is not None
        store.sets += 1
        if store.sets <= store.redirected_sets:
            return b"-MOVED 1 127.0.0.1:1\r\n"
        store.values[key] = value
        return b"+OK\r\n"


@contextmanager
def _store() -> Iterator[_Store]:
    with _Store() as store:
        thread = threading.Thread(target=store.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield store
        finally:
            store.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not installed("go"):
        pytest.skip("there is no Go here: apt-get install golang-go")
    path = tmp_path_factory.mktemp("generator") / "generator"
    build(path, drivers=())
    return path


@pytest.fixture
def generator(built: Path) -> Iterator[Generator]:
    with Children() as children:
        yield Generator(built, (), children)


def _load(
    generator: Generator,
    store: _Store,
    operation: str,
    pids: Sequence[int] = (),
    *,
    keys: int,
    value_bytes: int,
) -> Report:
    """Load a store with one client until it has been asked so often, however long it takes."""
    began = store.requests
    workload = Workload(
        operation=operation,
        clients=1,
        seconds=0.0,
        warm_up_seconds=0.0,
        keys=keys,
        value_bytes=value_bytes,
    )
    process = generator.start_load("redis", [store.address], pids, workload)
    wait_for("the load runs", lambda: store.requests >= began + REQUESTS)
    return generator.finish_load(process, within_seconds=20.0)


def test_generator_fills_loads_and_counts(generator: Generator) -> None:
    with _store() as store:
        store.redirected_sets = 1
        with pytest.raises(ComparisonProblem, match="MOVED 1 "):
            generator.fill("redis", [store.address], keys=50, value_bytes=32, clients=2)
        assert len(store.values) == 50
        assert {len(value) for value in store.values.values()} == {32}
        store.late_every = 2
        report = _load(generator, store, "mixed", [os.getpid()], keys=50, value_bytes=32)
        assert report.errors == {}
        assert report.operations >= REQUESTS - 1
        latency = report.latency_us
        # Every second answer was late; a percentile is right to less than a percent.
        assert latency.p50 < latency.max
        assert latency.p90 >= 0.99e6 * DELAY_SECONDS
        assert 0 < latency.p50 <= latency.p90 <= latency.p99 <= latency.p999 <= latency.max
        assert [server.pid for server in report.servers] == [os.getpid()]
        assert report.servers[0].rss_mib > 1
        # Keys that nobody has written, and values of another length, are errors and no answers.
        report = _load(generator, store, "get", keys=100, value_bytes=32)
        assert report.errors["no-key"] > 0
        report = _load(generator, store, "get", keys=50, value_bytes=33)
        assert set(report.errors) == {"wrong-value"}
        assert report.operations == 0


def test_generator_pipelines_and_counts_answers_by_intervals(generator: Generator) -> None:
    with _store() as store:
        process = generator.start_load(
            "redis",
            [store.address],
            [],
            Workload(operation="put", clients=2, seconds=0.0, warm_up_seconds=0.0, keys=10),
            "-pipeline=4",
            "-series=20ms",
        )
        wait_for("the load runs", lambda: store.sets >= 100)
        # Closing its standard input ends it.
        report = generator.finish_load(process, within_seconds=20.0)
    assert report.pipeline == 4
    assert report.operations >= 100 - 2 * 4
    assert abs(store.sets - report.operations) <= 2 * 4
    assert 0 < sum(report.series) <= store.sets


def test_probe_tells_each_success_by_the_clock_that_all_processes_share(
    generator: Generator,
) -> None:
    with _store() as store:
        began_ns = time.monotonic_ns()
        # Nobody listens at the second address, as after a kill.
        process = generator.start_probe("redis", [store.address, "127.0.0.1:1"], seconds=20.0)
        assert process.stdout is not None
        assert process.stdin is not None
        lines = iter(map(json.loads, process.stdout))
        before = list(itertools.takewhile(lambda line: "event" not in line, lines))
        process.stdin.close()
        *_, summary = lines
        ended_ns = time.monotonic_ns()
    # It says that it has started after 20 rounds.
    assert len(before) >= 10
    assert {success["address"] for success in before} == {0}
    assert all(began_ns < one["start_ns"] < one["end_ns"] < ended_ns for one in before)
    assert summary["errors"]["connection"] > 0


def test_generator_refuses_what_it_cannot_do(generator: Generator) -> None:
    workload = Workload(operation="put", clients=1, seconds=0.1)
    with pytest.raises(ComparisonProblem, match='no driver "etcd" was compiled in'):
        generator.load("etcd", ["127.0.0.1:1"], [], workload)
    with pytest.raises(ComparisonProblem, match="connection refused"):
        generator.load("redis", ["127.0.0.1:1"], [], workload)
