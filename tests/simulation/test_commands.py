"""The command line of the simulator, and the tables that it prints."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.history.__main__ import main as judge
from tests.simulation.__main__ import (
    EXIT_FOUND,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_FOUND,
    EXIT_USAGE,
    main,
)
from tests.simulation.broken import does_not_sync
from tests.simulation.machine import POINTS
from tests.simulation.report import Failure, Schedule, Tally, crash_points, summary
from tests.simulation.run import simulate
from tests.simulation.soak import run_chunk

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "tests.simulation")
ENDING_SECONDS_MAX = 60.0
"""For a soak that was interrupted, on a machine that is busy; usually a second or two."""


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# --- search ---


def test_a_search_that_finds_nothing_ends_with_a_line_of_json(seed: int) -> None:
    finished = subprocess.run(
        [*COMMAND, "search", "--first-seed", str(seed), "--seeds", "3", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == EXIT_NOTHING_FOUND
    assert finished.stderr == ""
    assert json.loads(finished.stdout.splitlines()[-1]) == {
        "seeds_run": 3,
        "failed_seed": None,
        "property": None,
        "error": None,
    }


def test_a_search_stops_at_the_first_seed_that_fails(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    does_not_sync(monkeypatch)
    first = seed * 1_000
    arguments = ["search", "--first-seed", str(first), "--seeds", "60", "--json"]
    assert main(arguments) == EXIT_FOUND
    out = capsys.readouterr().out
    document = json.loads(out.splitlines()[-1])
    assert list(document) == ["seeds_run", "failed_seed", "property", "error"]
    failed = document["failed_seed"]
    assert failed == first + document["seeds_run"] - 1
    outcome = simulate(failed)
    assert document["property"] == outcome.property
    assert document["error"] == outcome.error.splitlines()[0]
    assert f"python -m tests.simulation replay {failed}" in out
    assert f"python -m tests.simulation shrink {failed}" in out
    assert main(["search", "--first-seed", str(failed), "--seeds", "5", "--json"]) == EXIT_FOUND
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["seeds_run"] == 1


# --- soak ---


def test_a_soak_adds_up_the_runs_of_all_processes(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "soak.json"
    arguments = ["soak", "--first-seed", str(seed), "--seeds", "6", "--jobs", "2"]
    assert main([*arguments, "--json", str(path)]) == EXIT_NOTHING_FOUND
    tally = run_chunk(range(seed, seed + 6), True)
    document = json.loads(path.read_text())
    assert document["counted"] == tally.counted
    assert document["runs_with"] == tally.runs_with
    assert document["events"] == tally.events
    assert document["seeds_run"] == 6
    assert document["failures"] == []
    assert not document["interrupted"]
    printed = capsys.readouterr()
    assert summary(tally) in printed.out
    assert "seeds/s, 0 failures" in printed.err


def workers_of(pid: int) -> list[int]:
    """Return the processes that a soak has started to run seeds, however far they have come."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_soak_ends_with_the_summary_so_far(
    tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    with subprocess.Popen(
        [*COMMAND, "soak", "--time", "1h", "--jobs", "2", "--json", str(tmp_path / "soak.json")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        deadline = time.monotonic() + ENDING_SECONDS_MAX
        while len(workers_of(process.pid)) < workers:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # As a terminal does: everybody gets it, also processes that are just being started.
        os.killpg(process.pid, number)
        out, errors = process.communicate(timeout=ENDING_SECONDS_MAX)
    assert process.returncode == EXIT_INTERRUPTED, out
    assert "nothing found in" in out
    assert "interrupted" in out
    assert "Traceback" not in errors
    document = json.loads((tmp_path / "soak.json").read_text())
    assert document["interrupted"]


def test_a_worker_goes_on_after_a_failure_only_if_it_is_to(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    does_not_sync(monkeypatch)
    seeds = range(seed * 1_000, seed * 1_000 + 12)
    everything = run_chunk(seeds, True)
    assert everything.seeds == len(seeds)
    assert len(everything.failures) > 1
    first = run_chunk(seeds, False)
    assert first.failures == everything.failures[:1]
    assert first.seeds == first.failures[0].seed - seeds[0] + 1


# --- the summary ---


def test_the_summary_shows_counters_that_nobody_has_heard_of(seed: int) -> None:
    outcome = simulate(seed)
    counted = Counter({"moons seen": 12_345, "fault: earthquake": 7, "weather of mars: dust": 3})
    tally = Tally()
    tally.add(outcome)
    tally.add(attrs.evolve(outcome, counted=outcome.counted + counted))
    blocks = {text.splitlines()[0]: text for text in summary(tally).split("\n\n")}
    rows = {
        "moons seen": "runs",
        "earthquake": "faults injected",
        "dust": "weather of mars",
    }
    for label, title in rows.items():
        (row,) = (line for line in blocks[title].splitlines() if line.strip().startswith(label))
        assert row.endswith("in 1 runs")
    assert "12,345" in blocks["runs"]
    assert tally.document()["counted"] == {
        name: 2 * outcome.counted[name] + counted[name] for name in outcome.counted | counted
    }


def test_the_summary_explains_every_numbered_point() -> None:
    assert sorted(crash_points()) == list(range(1, POINTS + 1))
    tally = Tally(counted=Counter({"fault: crash armed at point 3": 5, "crash at point 3": 2}))
    (row,) = (line for line in summary(tally).splitlines() if crash_points()[3] in line)
    assert row.split()[:3] == ["3", "5", "2"]


def test_the_summary_shows_failures_by_property_with_their_commands() -> None:
    failures = [Failure(seed=seed, property="Log Matching", error="differ") for seed in range(30)]
    failures.append(Failure(seed=77, property="Liveness", error="x" * 500))
    text = summary(Tally(seeds=100, failures=failures))
    assert "FAILURES: 31 in 100 seeds" in text
    assert "Log Matching (30)" in text
    assert "Liveness (1)" in text
    assert "python -m tests.simulation replay 0\n" in text
    assert "python -m tests.simulation replay 77\n" in text
    assert "also: 10, 11, 12" in text
    assert max(map(len, text.splitlines())) < 250
    assert failures[-1].document()["shrink"] == "python -m tests.simulation shrink 77"


# --- replay ---


def test_a_replay_writes_what_other_commands_read(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, history = tmp_path / "trace.jsonl", tmp_path / "history.jsonl"
    arguments = ["replay", str(seed), "--trace", str(trace), "--history", str(history)]
    assert main(arguments) == EXIT_NOTHING_FOUND
    out = capsys.readouterr().out
    outcome = simulate(seed)
    assert f"hash {outcome.hash}" in out
    assert "nothing found" in out
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    assert all({"time_us", "event"} <= event.keys() for event in events)
    assert {"start", "term", "vote", "role", "append", "commit", "apply", "heals"} <= {
        event["event"] for event in events
    }
    read = [json.loads(line) for line in history.read_text().splitlines()]
    assert read == list(outcome.history)
    assert judge([str(history)]) == 0


def test_a_replay_obeys_what_is_kept_and_dropped(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["replay", str(seed), "--keep", "3,1", "--without", "malice,loss,m2"]
    assert main(arguments) == EXIT_NOTHING_FOUND
    outcome = simulate(seed, kept=(1, 3), dropped=("malice", "loss", "m2"))
    assert f"hash {outcome.hash}" in capsys.readouterr().out


def test_a_replay_of_a_failure_shows_trace_machines_and_commands(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    does_not_sync(monkeypatch)
    (failure, *_) = run_chunk(range(seed * 1_000, seed * 1_000 + 60), False).failures
    assert main(["replay", str(failure.seed)]) == EXIT_FOUND
    blocks = {
        block.splitlines()[0]: block.splitlines()[1:]
        for block in capsys.readouterr().out.split("\n\n")
    }
    assert f"FAILS: {failure.property}" in blocks
    assert len(blocks["the end of its trace"]) == 60
    assert all(line.startswith("n") for line in blocks["its machines"])
    assert f"again:   python -m tests.simulation replay {failure.seed}" in "\n".join(blocks)


# --- what is wrong with a command line ---


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required"),
        (["attack"], "invalid choice"),
        (["search", "--seeds", "0"], "0 is less than 1"),
        (["search", "--first-seed", "-1"], "-1 is less than 0"),
        (["search", "--seeds", "many"], "invalid number value: 'many'"),
        (["soak", "--seeds", "5", "--time", "5s"], "not allowed with"),
        (["soak", "--time", "10"], "is not a duration"),
        (["soak", "--jobs", "0"], "0 is less than 1"),
        (["replay"], "SEED"),
        (["replay", "1", "--keep", "0"], "0 is less than 1"),
        (["replay", "1", "--keep", "a"], "no list of numbers"),
        (["soak", "--time", "0s"], "nothing can be run"),
        (["replay", "1", "--without", "rain"], "'rain' is none of malice, limits, loss"),
        (["replay", "1", "--without", "m0"], "'m0' is none of"),
        (["shrink", "1", "--budget", "2 m"], "is not a duration"),
    ],
)
def test_a_wrong_command_line_is_refused_with_its_reason(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == EXIT_USAGE
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--keep", "99999"], "--keep: seed 1 has the steps 1 to "),
        (["--trace", "both", "--history", "both"], "--trace and --history: both are both"),
    ],
)
def test_a_replay_of_what_there_is_not_is_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", "1", *arguments]) == EXIT_USAGE
    assert says in capsys.readouterr().err


def test_what_was_not_looked_at_is_named_in_the_result_and_in_what_repeats_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ignored = ["--ignore", "Election Safety"]
    assert main(["search", "--seeds", "1", *ignored]) == EXIT_NOTHING_FOUND
    assert "without looking at: Election Safety" in capsys.readouterr().out
    again = Schedule(seed=7, ignored=("Election Safety",)).command("replay")
    assert again == 'python -m tests.simulation replay 7 --ignore "Election Safety"'


def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "missing" / "soak.json"
    assert main(["soak", "--time", "1h", "--json", str(path)]) == EXIT_USAGE
    printed = capsys.readouterr()
    assert printed.err == f"error: {path}: No such file or directory\n"
    assert printed.out == ""


@pytest.mark.parametrize("command", ["search", "soak", "replay", "shrink"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])
    assert raised.value.code == 0
    assert "usage: python -m tests.simulation" in capsys.readouterr().out
