"""Options and settings that all tests share."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest
from hypothesis import settings

SEED_DEFAULT = 1
"""Runs are repeatable unless another seed is asked for."""

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


def pytest_configure(config: pytest.Config) -> None:
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
