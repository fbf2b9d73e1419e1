"""Golden files: what people see, compared line by line with what was approved.

Any test of an output for people may use it, at 80 and at 120 columns:

    def test_the_plan_at_a_width(columns: int, golden: Golden, ...) -> None:
        ...
        golden(f"plan_{columns}", shown)

`golden(name, text)` compares `text` with `tests/raftctl/golden/NAME.txt`. After a wanted change
`pytest tests/raftctl --update-golden` writes the files anew; the difference is reviewed like code.
What is another one in each run (ports, times) is replaced by the test before it compares.

The fixture `columns` runs a test twice, on terminals of both widths. A test that captures what is
printed puts `Terminal()` in the place of `sys.stdout` or `sys.stderr` by itself, since pytest puts
its own streams there before each phase.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "golden"
WIDTHS = (80, 120)
"""A terminal as it comes, and one that somebody has made wide."""

Golden = Callable[[str, str], None]


class Terminal(io.StringIO):
    """A stream that takes itself for a terminal, and keeps what is written to it."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


def attached_terminal(monkeypatch: pytest.MonkeyPatch, typed: str = "") -> Terminal:
    """Put a terminal on stdin and stderr, with `typed` waiting in it; return its stderr.

    Called by the test itself, since pytest puts its own streams in place before each phase.
    """
    stream = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return stream


@pytest.fixture(params=WIDTHS)
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The width of the terminal."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return int(request.param)


@pytest.fixture
def golden(update_golden: bool) -> Golden:
    """Return the function that compares a text with the golden file of a name, or writes it."""

    def compare(name: str, text: str) -> None:
        path = FOLDER / f"{name}.txt"
        text = text.rstrip("\n") + "\n"
        if update_golden:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
            return
        assert path.exists(), f"no golden file {path.name}: run with --update-golden"
        assert text.splitlines() == path.read_text().splitlines()

    return compare
