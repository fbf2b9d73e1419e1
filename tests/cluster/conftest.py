"""Fixtures for clusters of real processes; what their servers said is shown when a test fails."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster import processes
from tests.cluster.processes import RunningCluster, tails
from tests.cluster.warm import Originals, is_supported

MakeCluster = Callable[..., RunningCluster]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"stderr of {title}", text) for title, text in tails()]
    return report


@pytest.fixture(scope="package", autouse=True)
def warm_starts(request: pytest.FixtureRequest) -> Iterator[Originals | None]:
    """Have `raftd` and `raftctl` started by processes that have imported them already."""
    if request.config.getoption("--cold-starts") or not is_supported():
        yield None
        return
    originals = processes.originals = Originals()
    try:
        yield originals
    finally:
        processes.originals = None
        originals.close()


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Return a function that makes a cluster of the servers that it is given the names of."""
    with ExitStack() as stack:
        count = itertools.count(1)

        def make(
            *names: str,
            proxied: bool = False,
            redis: bool = False,
            http: bool = False,
            settings: str = "",
        ) -> RunningCluster:
            folder = tmp_path / f"cluster-{next(count)}"
            folder.mkdir()
            cluster = RunningCluster(
                folder, proxied=proxied, redis=redis, http=http, settings=settings
            )
            stack.callback(cluster.close)
            if names:
                cluster.form(*names)
            return cluster

        yield make


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster of three for all tests of a module that leave it as they found it."""
    cluster = RunningCluster(tmp_path_factory.mktemp("shared"))
    try:
        cluster.form("n1", "n2", "n3")
        yield cluster
    finally:
        cluster.close()
