"""The long attacks: `pytest -m chaos`, about a quarter of an hour. Seeds start at `--seed`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.conftest import Attack
from tests.chaos.network import why_no_namespaces
from tests.chaos.run import Options

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

SECONDS = 45.0
NAMESPACES_SECONDS = 30
COMMAND_TIMEOUT_S = 500.0


@pytest.mark.parametrize(
    ("number", "servers"), [(0, 7), (1, 5), (2, 6), (3, 7), (4, 5), (5, 7), (6, 6), (7, 7)]
)
def test_a_cluster_under_attack_keeps_every_promise(
    attack: Attack, seed: int, number: int, servers: int
) -> None:
    attack(Options(seed=1_000 * seed + number, seconds=SECONDS, servers=servers))


@pytest.mark.parametrize("number", [0, 1])
def test_a_cluster_whose_cables_are_pulled_keeps_every_promise(seed: int, number: int) -> None:
    why = why_no_namespaces()
    if why:
        pytest.skip(f"network namespaces cannot be used here: {why}")
    words = ["--seed", str(1_000 * seed + 500 + number), "--seconds", str(NAMESPACES_SECONDS)]
    command = [sys.executable, "-m", "tests.chaos", "--network", "namespaces", *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
