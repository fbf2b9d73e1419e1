"""How long the commands of raftctl take that people wait for. Prints medians; judges nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.processes import RunningCluster

ROUNDS = 15
"""Runs of each command, taken in turns, so that noise of the machine meets all alike."""


def _run_ms(arguments: Sequence[str]) -> float:
    started_s = time.perf_counter()
    # Without a time-out, whose polling would round the times up.
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - started_s)


@pytest.mark.benchmark
def test_start_up_of_raftctl_in_milliseconds(tmp_path: Path) -> None:
    cluster = RunningCluster(tmp_path)
    try:
        cluster.form("n1", "n2", "n3")
        flags = ("-m", "raftctl", "-c", str(cluster.config_path))
        commands = {
            "python -c pass": ("-c", "pass"),
            "raftctl --help": ("-m", "raftctl", "--help"),
            "raftctl put": (*flags, "put", "key", "value"),
            "raftctl get": (*flags, "get", "key"),
            "raftctl status": (*flags, "status"),
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, arguments in commands.items():
                taken[name].append(_run_ms(arguments))
    finally:
        cluster.close()
    print(f"\n{'command':<16} {'median':>8} {'best':>8} {'worst':>8}   ms, {ROUNDS} rounds")
    for name, times in taken.items():
        median, best, worst = statistics.median(times), min(times), max(times)
        print(f"{name:<16} {median:>8.0f} {best:>8.0f} {worst:>8.0f}")
