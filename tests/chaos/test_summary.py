"""What a person and a script are told about a run."""

from __future__ import annotations

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
