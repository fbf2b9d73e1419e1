"""The books of the museum are in order: every exhibit is there, and what it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.museum.catalogue import Exhibit
from tests.museum.membership import MEMBERSHIP
from tests.museum.protocol import PROTOCOL

NUMBER_MAX = 92
TESTS = Path(__file__).parent.parent
ALL = MEMBERSHIP + PROTOCOL
every_exhibit = pytest.mark.parametrize("exhibit", ALL, ids=lambda exhibit: f"{exhibit.number:03}")


@cache
def functions_of(path: Path) -> frozenset[str]:
    """Return the names of the test functions of a file, `Class::name` if they are in a class."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, functions):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{m.name}" for m in node.body if isinstance(m, functions)}
    return frozenset(name for name in found if name.rpartition("::")[2].startswith("test"))


def scripts_of_the_museum() -> list[tuple[str, str]]:
    """Return the file and the name of every test that belongs to an exhibit."""
    return [
        (path.name, name)
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        if path != Path(__file__)
        for name in sorted(functions_of(path))
    ]


def test_every_number_is_there_once() -> None:
    assert [exhibit.number for exhibit in ALL] == list(range(1, NUMBER_MAX + 1))


@every_exhibit
def test_an_exhibit_is_shown_or_cannot_apply(exhibit: Exhibit) -> None:
    assert bool(exhibit.cannot_apply) != bool(exhibit.shown_by)


@every_exhibit
def test_an_exhibit_tells_what_happened_and_where(exhibit: Exhibit) -> None:
    assert exhibit.title
    assert exhibit.seen_in
    assert all(exhibit.seen_in)
    assert len(exhibit.story.split()) >= 10
    assert "  " not in exhibit.story


@every_exhibit
def test_what_shows_an_exhibit_exists(exhibit: Exhibit) -> None:
    assert len(set(exhibit.shown_by)) == len(exhibit.shown_by)
    for shown_by in exhibit.shown_by:
        path, _, name = shown_by.partition("::")
        assert (TESTS / path).is_file(), f"no file tests/{path}"
        if path.startswith("golden/") and path.endswith(".txt"):
            assert not name, f"a transcript has no parts: {shown_by}"
        else:
            function = name.partition("[")[0]
            assert function in functions_of(TESTS / path), f"no test {function} in tests/{path}"


@pytest.mark.parametrize(("file", "name"), scripts_of_the_museum())
def test_a_test_of_the_museum_is_listed_by_the_exhibit_of_its_number(file: str, name: str) -> None:
    parts = re.fullmatch(r"test_(\d{3})_\w+", name.rpartition("::")[2])
    assert parts, f"{name} is not called test_NNN_ and its claim"
    listed = {
        shown_by.partition("[")[0]
        for exhibit in ALL
        if exhibit.number == int(parts[1])
        for shown_by in exhibit.shown_by
    }
    assert f"museum/{file}::{name}" in listed
