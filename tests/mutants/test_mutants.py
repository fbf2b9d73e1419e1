"""The mutants fit the tree as it is; what they show is for `python -m tests.mutants`."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path

import attrs
import pytest

from tests.mutants.__main__ import main
from tests.mutants.attack import Attacker, Plan, Verdict, search_result
from tests.mutants.catalogue import ALL
from tests.mutants.mutant import Mutant, PlaceNotFound
from tests.mutants.workspace import ROOT, Finished, Stopped, Workspace

MUTANTS_MIN = 40


@cache
def source(file: str) -> str:
    return (ROOT / file).read_text()


@cache
def names_of_tests(file: str) -> frozenset[str]:
    """Return the test functions in `file`."""
    tree = ast.parse(source(file))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


def test_there_are_enough_mutants_and_each_has_a_name_of_its_own() -> None:
    assert len(ALL) >= MUTANTS_MIN
    assert len({mutant.name for mutant in ALL}) == len(ALL)
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in ALL}) == len(ALL)


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_line_at_the_one_place_that_it_means(mutant: Mutant) -> None:
    mutated = mutant.mutated(source(mutant.file))
    assert mutated != source(mutant.file)
    assert mutant.changed_lines() == 1
    compile(mutated, mutant.file, "exec")
    assert mutant.why


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_mutant_names_the_test_that_kills_it_or_why_none_can(mutant: Mutant) -> None:
    assert bool(mutant.test) != bool(mutant.equivalent)
    if mutant.test:
        file, _, test = mutant.test.partition("::")
        assert test.partition("[")[0] in names_of_tests(file)


@pytest.mark.parametrize("count", [0, 2])
def test_a_place_that_is_not_there_exactly_once_is_an_error(count: int) -> None:
    mutant = attrs.evolve(ALL[0], old="old", new="new")
    with pytest.raises(PlaceNotFound, match=f"{ALL[0].name}: .* {count} times"):
        mutant.mutated("old " * count)


def test_a_name_of_no_mutant_is_an_error_that_names_the_next_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["vote-not-persistent"]) == 2
    assert "did you mean vote-not-persisted?" in capsys.readouterr().err


# --- the machinery, on one mutant ---


def test_a_copy_with_a_bug_is_what_its_tests_import(tmp_path: Path) -> None:
    """Also where an editable install points to the original."""
    workspace = Workspace(tmp_path)
    mutant = next(m for m in ALL if m.name == "half-of-an-even-number-is-a-majority")
    attacker = Attacker(workspace, Plan())
    assert attacker.run_tests(workspace.unchanged, (mutant.test,)).verdict is Verdict.SURVIVED
    assert attacker.attack(mutant).test.verdict is Verdict.KILLED
    assert [path.name for path in tmp_path.iterdir()] == ["unchanged"]


@pytest.fixture
def empty_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace without a copy of anything."""
    monkeypatch.setattr("tests.mutants.workspace.PARTS", ())
    return Workspace(tmp_path)


def test_a_command_that_takes_too_long_is_ended(empty_workspace: Workspace) -> None:
    finished = empty_workspace.run(
        empty_workspace.unchanged, ["-c", "import signal; signal.pause()"], 0.1
    )
    assert finished.exit_code is None


def test_after_an_interruption_nothing_is_started(empty_workspace: Workspace) -> None:
    empty_workspace.stop()
    with pytest.raises(Stopped):
        empty_workspace.run(empty_workspace.unchanged, ["-c", ""], 10.0)


def searched(exit_code: int | None, document: object) -> Finished:
    return Finished(exit_code, f"seed 1 ...\n{json.dumps(document)}\n", "")


def test_what_a_search_says_is_understood() -> None:
    nothing = {"seeds_run": 20, "failed_seed": None, "property": None, "error": None}
    found = {"seeds_run": 5, "failed_seed": 7, "property": "Log Matching", "error": "term 3"}
    survived = search_result(searched(0, nothing), 3, 20)
    assert (survived.verdict, survived.seeds) == (Verdict.SURVIVED, 20)
    killed = search_result(searched(1, found), 3, 20)
    assert killed.verdict is Verdict.KILLED
    assert (killed.property, killed.seeds, killed.details) == ("Log Matching", 5, "term 3")
    assert search_result(searched(None, nothing), 3, 20).verdict is Verdict.HANG


@pytest.mark.parametrize(
    "finished",
    [
        searched(0, {"seeds_run": 5, "failed_seed": 7, "property": "Log Matching", "error": ""}),
        searched(1, {"seeds_run": 20, "failed_seed": None, "property": None, "error": None}),
        searched(1, ["no object"]),
        Finished(1, "", "Traceback"),
        Finished(2, "", "usage"),
    ],
)
def test_a_search_that_ends_in_another_way_is_a_crash_and_no_kill(finished: Finished) -> None:
    attempt = search_result(finished, 1, 20)
    assert attempt.verdict is Verdict.CRASH
    assert not attempt.verdict.kills
