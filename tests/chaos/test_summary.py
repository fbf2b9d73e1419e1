"""What a person and a script are told about a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import attrs
import pytest

from tests.chaos import __main__ as command_line
from tests.chaos.clients import Tally
from tests.chaos.run import Options, Report, Run
from tests.chaos.summary import summary, total
from tests.chaos.verdicts import verdict

GOOD = Report(
    options=Options(seed=4, seconds=30, servers=5),
    verdicts=(verdict("one", []), verdict("two", [], "7 of them")),
    faults=Counter({"kill": 3, "halves": 1}),
    commands=Counter({"replace": 2}),
    skipped=Counter(),
    exits=Counter({0: 1, 4: 1}),
    phases=Counter({"joint": 1}),
    changes=Counter({"done": 1, "aborted": 1}),
    operations=Tally(ok=900, failed=2, unknown=3),
    longest_gap_s=4.25,
    healing_s=6.5,
)
BAD = attrs.evolve(
    GOOD, verdicts=(*GOOD.verdicts, verdict("the last state hashes are equal", ["n2: b"]))
)


def test_a_good_run_is_told_with_its_numbers_and_its_seed() -> None:
    text = summary(GOOD)
    assert GOOD.ok
    assert "kill 3, halves 1" in text
    assert "0 1, 4 1" in text
    assert "done 1, aborted 1" in text
    assert "ok 900, failed 2, unknown 3" in text
    assert "4.2 s without a success" in text
    assert "python -m tests.chaos --seed 4 --seconds 30 --servers 5 --network proxy" in text
    assert "FAIL" not in text


def test_one_claim_that_does_not_hold_fails_the_run() -> None:
    assert not BAD.ok
    assert "FAIL  the last state hashes are equal\n          n2: b\n" in summary(BAD)
    assert "1 FAILED" in total([GOOD, BAD])
    assert "every claim holds" in total([GOOD, GOOD])


def test_more_problems_than_a_person_reads_are_counted() -> None:
    assert verdict("many", [f"problem {number}" for number in range(40)]).problems[-1] == (
        "and 35 more"
    )


@pytest.mark.parametrize(("report", "code"), [(GOOD, 0), (BAD, 1)])
def test_a_failed_run_keeps_its_folder_and_ends_with_1(
    report: Report,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"

    def make_folder(prefix: str) -> str:
        folder.mkdir()
        return str(folder)

    def go(run: Run) -> Report:
        run._recorder.close()
        return report

    monkeypatch.setattr(command_line.tempfile, "mkdtemp", make_folder)
    monkeypatch.setattr(Run, "go", go)
    assert command_line.main(["--seed", "4"]) == code
    assert folder.exists() == bool(code)
    assert (f"kept    {folder}" in capsys.readouterr().out) == bool(code)
    if code:
        assert "FAIL" in (folder / "summary.txt").read_text()
        assert (folder / "history.jsonl").exists()


def test_a_wrong_number_of_servers_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line.main(["--servers", "4"])
    assert caught.value.code == command_line.EXIT_USAGE
    assert "--servers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seed -1", "--seed: at least 0"),
        ("--runs 0", "--runs: at least 1"),
        ("--clients 0", "--clients: at least 1"),
        ("--seconds 0", "--seconds: above 0 and at most 600"),
        ("--seconds nan", "--seconds: above 0 and at most 600"),
        ("--seconds 601", "--seconds: above 0 and at most 600"),
    ],
)
def test_each_wrong_number_is_refused_by_its_name(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line.main(words.split())
    assert caught.value.code == command_line.EXIT_USAGE
    assert capsys.readouterr().err.splitlines()[-1] == f"python -m tests.chaos: error: {message}"


def test_plans_of_several_runs_are_told_apart_by_their_seeds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command_line.main(["--plan", "--seed", "4", "--runs", "2", "--seconds", "9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    plans = [Options(seed=seed, seconds=9).schedule for seed in (4, 5)]
    assert lines == [
        f"== seed 4: {len(plans[0])} actions",
        *map(str, plans[0]),
        f"== seed 5: {len(plans[1])} actions",
        *map(str, plans[1]),
    ]


def test_an_interrupted_run_is_said_to_be_one_and_exits_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def go(run: Run) -> Report:
        run._recorder.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.setattr(Run, "go", go)
    assert command_line.main([]) == command_line.EXIT_INTERRUPTED
    assert capsys.readouterr().err == f"  broken off, kept {tmp_path}\ninterrupted\n"


def test_a_run_whose_output_nobody_reads_ends_without_a_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=60,
        check=False,
    )
    os.close(writer)
    (folder,) = tmp_path.iterdir()
    assert done.returncode == command_line.EXIT_BROKEN_PIPE
    assert done.stderr == f"  broken off, kept {folder}\n"


def test_a_plan_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos", "--plan"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == command_line.EXIT_OUTPUT
    assert done.stderr == "error: output: No space left on device\n"
