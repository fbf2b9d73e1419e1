"""Processes that end with this one, what they use, and what the command line refuses."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import attrs
import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.comparisons.children import Children, Process, tree, tree_seconds
from tests.benchmarks.comparisons.generator import ComparisonProblem
from tests.benchmarks.comparisons.redis import REDIS
from tests.benchmarks.comparisons.systems import chosen_systems
from tests.cluster.processes import wait_for

BURN = "import os, time\nwhile sum(os.times()[:2]) < 0.3: pass\n"
FORK_AND_WAIT = f"""
import os
if os.fork() == 0:
    exec({BURN!r})
    os._exit(0)
os.wait()
print("waited", flush=True)
input()
"""


def test_processes_are_gone_after_their_block() -> None:
    with Children() as children:
        process = children.start("sleep", "1000")
        held = children.start("sleep", "1000", held=True)
        assert process.poll() is None
    assert process.returncode == -9
    assert held.returncode == -9


def test_held_process_begins_when_it_is_told(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    with Children() as children:
        held = children.start("touch", witness, held=True)
        shell = Path(f"/proc/{held.pid}/comm")
        wait_for("the shell waits", lambda: shell.read_text() == "sh\n")
        assert not witness.exists()
        assert held.stdin is not None
        held.stdin.write("go\n")
        held.stdin.flush()
        wait_for("it has begun", witness.exists)


def test_time_of_a_process_includes_that_of_its_ended_children() -> None:
    own_before = tree_seconds([os.getpid()])[0]
    with Children() as children:
        process = children.start(sys.executable, "-c", FORK_AND_WAIT, piped=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "waited\n"
        child_seconds = tree_seconds([process.pid])[0]
    assert child_seconds >= 0.3
    # It has moved on to this process, which has waited for the one that had waited.
    assert tree_seconds([os.getpid()])[0] - own_before >= child_seconds


def test_tree_is_a_process_with_all_that_it_has_started() -> None:
    parents = {1: 0, 5: 1, 7: 5, 8: 7, 9: 1, 2: 0, 6: 2}
    processes = {pid: Process(parent=parent, ticks=0) for pid, parent in parents.items()}
    assert tree(processes, 5) == {5, 7, 8}
    assert tree(processes, 2) == {2, 6}


def test_system_that_is_not_installed_is_left_out_unless_it_is_asked_for() -> None:
    there = attrs.evolve(REDIS, name="there", missing=lambda: None)
    away = attrs.evolve(REDIS, name="away", missing=lambda: "apt-get install away")
    systems = {"there": there, "away": away}
    said: list[str] = []
    assert chosen_systems(systems, None, said.append) == [there]
    assert said == ["left out: away: apt-get install away"]
    with pytest.raises(ComparisonProblem, match="away is not installed: apt-get install away"):
        chosen_systems(systems, ["away"], said.append)


def test_generator_without_go_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["build-generator", str(tmp_path / "generator")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: the load generator is compiled, and there is no Go here")
    assert "apt-get install golang-go golang-etcd-server-dev" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["side-by-side", "--clients", "0"],
        ["side-by-side", "--systems", "mongodb"],
        ["fail-over", "--runs", "none"],
        ["replacement", "--sizes", "huge"],
        ["idle", "--dir", "/nowhere/at/all"],
    ],
)
def test_wrong_command_line_is_refused_before_anything_starts(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert "usage: python -m tests.benchmarks" in capsys.readouterr().err
