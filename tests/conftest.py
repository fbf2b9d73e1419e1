"""Options and settings that all tests share."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import settings

from raftd.config import ClusterConfig, load

SEED_DEFAULT = 1
"""Runs are repeatable unless another seed is asked for."""

WORKERS = 2
"""Processes that share the whole suite: it is balanced for them, and no test needs more."""
PROCESSES = "processes"
"""The unit of work that all tests with real servers belong to."""
WITH_PROCESSES = (
    *("tests/cluster/", "tests/chaos/", "tests/benchmarks/"),
    *("tests/node/test_daemon.py", "tests/raftctl/test_playground"),
)
"""Where they are. They run one after the other: their time-outs are for a machine that is not full
of servers, and the port of a server that is down for a moment stays free."""

# Hypothesis draws the same examples every time, and a slow machine is no failure.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the golden transcripts print now into their files; review the diff",
    )
    parser.addoption(
        "--seed",
        type=int,
        default=SEED_DEFAULT,
        help="where the randomised runs start (default: %(default)s)",
    )
    parser.addoption(
        "--cold-starts",
        action="store_true",
        help="start every raftd and raftctl with an interpreter of its own, which takes longer",
    )
    parser.addoption(
        "--screenshots",
        metavar="DIR",
        help="keep pictures of the status page in DIR",
    )


def is_whole_suite(config: pytest.Config) -> bool:
    """Return whether this is `pytest` as it is, maybe with words about what is printed."""
    option = config.option
    return (
        config.args_source is pytest.Config.ArgsSource.TESTPATHS
        and option.markexpr in config.getini("addopts")
        and not (option.keyword or option.collectonly or option.usepdb or option.capture == "no")
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    # Everything else stays in this process: a part is sooner done than two workers are ready, and
    # measurements and debuggers want the machine and the terminal for themselves.
    if (
        config.pluginmanager.hasplugin("xdist")
        and not hasattr(config, "workerinput")
        and config.option.numprocesses is None
        and (os.cpu_count() or 1) >= WORKERS
        and is_whole_suite(config)
    ):
        config.option.numprocesses = WORKERS


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        """Gives a worker one file after the other, or all tests with real servers."""

        def _split_scope(self, nodeid: str) -> str:
            return PROCESSES if nodeid.startswith(WITH_PROCESSES) else nodeid.partition("::")[0]

    # In their order: the tests with real servers take the longest and stand first.
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what it runs in the background with interruptions ignored, for all that is
    # started from there too: tests interrupt what they test.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.dont_write_bytecode:
        # Hundreds of processes are started: each would compile all of the sources once more. What
        # they compile goes where it was asked for: nowhere near the sources.
        folder = tempfile.TemporaryDirectory(prefix="raftd-bytecode-")
        config.add_cleanup(folder.cleanup)
        os.environ["PYTHONPYCACHEPREFIX"] = folder.name
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_report_header(config: pytest.Config) -> str:
    seed = config.getoption("--seed")
    return f"seed: {seed} (the same run again: pytest --seed={seed})"


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The number from which all randomness of a test is derived."""
    return int(request.config.getoption("--seed"))


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are rewritten instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str | bytes], ClusterConfig]:
    """Return a function that writes a cluster file and loads it."""

    def write_and_load(text: str | bytes) -> ClusterConfig:
        file = tmp_path / "cluster.yaml"
        file.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return load(file)

    return write_and_load
