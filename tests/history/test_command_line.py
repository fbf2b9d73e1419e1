"""`python -m tests.history FILE...`: what it prints and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.history.__main__ import main
from tests.history.script import history

ROOT = Path(__file__).parents[2]


def write(path: Path, script: str) -> str:
    path.write_text("".join(json.dumps(event) + "\n" for event in history(script)))
    return str(path)


@pytest.fixture
def good(tmp_path: Path) -> str:
    return write(tmp_path / "good.jsonl", "put x 1 -> ok\nget x -> 1\nget y -> null")


@pytest.fixture
def bad(tmp_path: Path) -> str:
    return write(tmp_path / "bad.jsonl", "put x 1 -> ok\nget x -> 2\nget y -> 3")


@pytest.fixture
def malformed(tmp_path: Path) -> str:
    path = tmp_path / "malformed.jsonl"
    path.write_text('{"type":"ok","op":1}\n')
    return str(path)


def test_fine_files_have_a_line_each_and_exit_0(
    good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([good, good]) == 0
    assert capsys.readouterr().out == f"{good}: ok: 3 operations on 2 keys\n" * 2


def test_violations_are_told_below_their_file_and_exit_1(
    good: str, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([bad, good]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{bad}: VIOLATED (2): 3 operations on 2 keys"
    assert lines[-1] == f"{good}: ok: 3 operations on 2 keys"
    problems = [line for line in lines if "not linearizable" in line]
    assert [problem[:11] for problem in problems] == ['  key "x": ', '  key "y": ']
    assert all(line.startswith("  ") for line in lines[1:-1])


def test_malformed_file_is_told_with_its_line_and_exits_2(
    bad: str, malformed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([malformed, bad]) == 2
    output = capsys.readouterr()
    assert output.err == f"{malformed}: line 1: op 1 was never invoked\n"
    assert "VIOLATED" in output.out


def test_missing_file_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.jsonl")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'none.jsonl'}: No such file or directory\n"


def test_undecided_key_is_told_and_exits_1(
    good: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.history import checker, linearizability

    monkeypatch.setattr(
        checker, "search", lambda operations: linearizability.search(operations, visited_max=1)
    )
    assert main([good]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{good}: UNDECIDED (1): 3 operations on 2 keys",
        '  key "x": given up at line 4 after 2 states: neither right nor wrong',
    ]


def test_it_runs_as_a_module(good: str, bad: str) -> None:
    command = [sys.executable, "-m", "tests.history"]
    for files, exit_code in ((["--help"], 0), ([], 2), ([good], 0), ([bad], 1)):
        done = subprocess.run(
            [*command, *files], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == exit_code, done.stderr
    assert "VIOLATED" in done.stdout


def test_lack_of_a_final_value_is_incomplete_and_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "cut.jsonl", "append log t1 -> ok\nput x 1 -> ok")
    assert main([path]) == 2
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{path}: INCOMPLETE (1): 2 operations on 2 keys"
    assert 'key "log" has 1 acknowledged appends and no final value' in second


def test_a_violation_outweighs_the_lack_of_a_final_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "cut.jsonl", "append log t1 -> ok\nput x 1 -> ok\nget x -> 2")
    assert main([path]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"{path}: VIOLATED (1), INCOMPLETE (1): 3 operations on 2 keys"


def test_output_that_cannot_be_written_is_an_error(bad: str) -> None:
    for redirection, why in (
        (">/dev/full", "No space left on device"),
        (">&-", "standard output is closed"),
    ):
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -m tests.history "$1" {redirection}', sys.executable, bad],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (2, f"error: output: {why}\n")


def test_a_lone_surrogate_is_printed_as_its_escape(tmp_path: Path) -> None:
    path = tmp_path / "surrogate.jsonl"
    write(path, "put x 1 -> ok\nget x -> 2")
    path.write_text(path.read_text().replace('"2"', r'"\ud800"'))
    done = subprocess.run(
        [sys.executable, "-m", "tests.history", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert r"\ud800" in done.stdout
