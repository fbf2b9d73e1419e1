"""What people are shown fits their terminal, from 40 columns to 200, and is plain without colours.

Only what would be of no use in pieces may be longer than a line: a command that is to be copied,
and a single word such as an address. The scenes are those that the golden files show at two widths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftctl import doctor_text, history_text, server_text, status_text, what_if_text
from raftctl.cli import main
from raftctl.doctor import judge
from raftctl.plan_text import plan_text
from raftctl.render import Style, width_of
from raftctl.status_text import Layout
from raftctl.what_if import Assumption, predict, predict_each
from raftd.protocol import OperationView
from tests.raftctl import (
    examinations,
    test_doctor_output,
    test_history,
    test_plan_commands,
    test_status_flags,
    test_status_rolling,
    test_status_server,
    test_what_if,
)
from tests.raftctl.golden_files import Terminal
from tests.raftctl.leading import Leader
from tests.raftctl.rolling_world import RollingWorld
from tests.raftctl.speaking_servers import closed_address, speaking_servers
from tests.raftctl.test_rollback_text import undone

pytestmark = pytest.mark.usefixtures("no_surroundings")

WIDTHS = (40, 60, 80, 100, 120, 200)
_COMMAND = re.compile(r"\s*([\w ]+: )?(raftctl|raftd) [a-z-]|command:? ")
"""A line that is a command, after the word that says what for, or shows one of the operator's."""
_ESCAPE = "\x1b"


def too_long(text: str, columns: int) -> list[str]:
    """Return the lines of `text` that do not fit, and could."""
    return [
        line
        for line in text.splitlines()
        if width_of(line) > columns and not _COMMAND.match(line) and len(line.split()) > 1
    ]


# --- what is made of what is known ------------------------------------------------------------


Scene = Callable[[Layout], str]


def scenes(folder: Path) -> Iterator[tuple[str, Scene]]:
    """Yield the name of each scene, and what draws it."""
    for situation in (test_status_flags.bad_day, test_status_flags.joint_change):
        yield (
            situation.__name__,
            lambda layout, situation=situation: _lines(status_text.text(situation(), layout)),
        )
    yield "busy", lambda layout: _lines(status_text.text(test_status_flags.busy(), layout))
    rolling = test_status_rolling.seen(test_status_rolling.rolling("alice@desk"))
    yield "status while rolling", lambda layout: _lines(status_text.text(rolling, layout))
    for at_server in (
        test_status_server.healthy_server,
        test_status_server.catching_up,
        test_status_server.silent_server,
    ):
        yield at_server.__name__, lambda layout, at_server=at_server: _server(at_server, layout)
    for what in (
        test_what_if.zoned,
        test_what_if.waiting,
        test_what_if.stopping,
        test_what_if.removing,
        test_what_if.refused,
    ):
        yield f"what-if {what.__name__}", lambda layout, what=what: _what_if(what, layout)
    healthy = examinations.examination(*examinations.members(examinations.THREE))
    yield "doctor of the healthy", lambda layout: _doctor(healthy, layout)
    yield "doctor of the ill", lambda layout: _doctor(test_doctor_output.ill(folder), layout)
    for plan in ("full_plan", "learners_plan", "large_plan"):
        made = getattr(test_plan_commands, plan)()
        yield plan, lambda layout, made=made: plan_text(made, layout.paint, width=layout.width)
    records = test_history.story()
    shown = history_text.paired(records, len(records))
    yield (
        "history",
        lambda layout: history_text.text(
            shown, width=layout.width, paint=layout.paint, from_newest=True
        ),
    )


def _lines(lines: list[str]) -> str:
    return "\n".join(lines)


def _server(situation: Callable[..., object], layout: Layout) -> str:
    cluster, at = situation()
    return _lines(server_text.server_text(cluster.rows[at], cluster, layout))


def _what_if(situation: Callable[..., object], layout: Layout) -> str:
    cluster, assumption = situation()
    each = predict_each(cluster) if assumption == Assumption() else []
    return _lines(what_if_text.text(predict(cluster, assumption), each, cluster, layout))


def _doctor(found: object, layout: Layout) -> str:
    return _lines(doctor_text.text(found, judge(found), layout, "raftctl {}".format))


@pytest.mark.parametrize("columns", WIDTHS)
def test_no_line_is_longer_than_the_terminal(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    long = {}
    for name, draw in scenes(Path()):
        for colored in (False, True):
            shown = draw(Layout(width=columns, paint=Style(colored)))
            assert (_ESCAPE in shown) <= colored, name
            long[name] = too_long(shown, columns)
    assert {name: lines for name, lines in long.items() if lines} == {}


def test_colours_change_nothing_but_the_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    escapes = re.compile(r"\x1b\[[0-9;]*m")
    for name, draw in scenes(Path()):
        plain = draw(Layout(width=80))
        colored = draw(Layout(width=80, paint=Style(True)))
        assert escapes.sub("", colored) == plain, name


# --- whole commands ---------------------------------------------------------------------------


@pytest.fixture
def leader() -> Iterator[Leader]:
    with speaking_servers("n1/a") as [server]:
        leader = Leader(server)
        leader.views = [OperationView(record=undone())]
        yield leader


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RollingWorld]:
    folder = tmp_path / "servers"
    folder.mkdir()
    world = RollingWorld(folder)
    try:
        yield world
    finally:
        world.close()


class Terminals:
    """Runs commands on a terminal and keeps what they have shown."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)

    def run(self, *words: str, columns: int = 80) -> tuple[str, str]:
        """Run a command and return its stdout and its stderr."""
        self._monkeypatch.setenv("COLUMNS", str(columns))
        stdout, stderr = Terminal(), Terminal()
        self._monkeypatch.setattr("sys.stdout", stdout)
        self._monkeypatch.setattr("sys.stderr", stderr)
        main(list(words))
        return stdout.getvalue(), stderr.getvalue()


@pytest.fixture
def terminals(monkeypatch: pytest.MonkeyPatch) -> Terminals:
    return Terminals(monkeypatch)


RESTART = "ssh {host} sudo systemctl restart raftd.service && sleep 1 # one after the other"


def commands(leader: Leader, world: RollingWorld) -> Iterator[list[str]]:
    """Yield the commands for people whose output is made where they run."""
    led, rolled = ["-e", leader.server.address], ["-e", world.endpoints]
    yield ["operation", "list", *led]
    yield ["operation", "show", "op-1", *led]
    yield ["remove", "n4", "--dry-run", *led]
    yield ["rolling", "restart", "--command", RESTART, "--dry-run", *rolled]
    yield ["rolling", "restart", "--command", world.restart_command, "-y", *rolled]
    yield ["operation", "list", *rolled]
    yield ["rolling", "show", "op-1", *rolled]
    yield ["operation", "show", "op-1", *rolled]
    yield ["status", *rolled]
    yield ["status", "n1", *rolled]
    yield ["status", "-e", closed_address()]
    yield ["what-if", *rolled]
    yield ["doctor", *rolled]
    yield ["schema"]


@pytest.mark.parametrize("columns", WIDTHS)
def test_no_command_prints_a_line_that_is_longer_than_the_terminal(
    columns: int, leader: Leader, world: RollingWorld, terminals: Terminals
) -> None:
    long = {}
    for words in commands(leader, world):
        shown, _ = terminals.run(*words, "--color", "never", columns=columns)
        assert shown, words
        long[" ".join(words)] = too_long(shown, columns)
    assert {command: lines for command, lines in long.items() if lines} == {}


PLAIN = ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""})


@pytest.mark.parametrize("surroundings", PLAIN, ids=["NO_COLOR", "dumb", "no TERM"])
def test_no_escape_sequence_where_no_colour_is_wanted(
    surroundings: dict[str, str],
    leader: Leader,
    world: RollingWorld,
    terminals: Terminals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    for words in commands(leader, world):
        shown = "".join(terminals.run(*words))
        colours = re.findall(r"\x1b\[[0-9;]*m", shown)
        assert colours == [], words
        if "TERM" in surroundings:
            # Nor is anything drawn over.
            assert _ESCAPE not in shown, words


def test_colours_where_they_are_wanted(
    leader: Leader, world: RollingWorld, terminals: Terminals
) -> None:
    for words in (["status", "-e", world.endpoints], ["nonsense"]):
        assert _ESCAPE in "".join(terminals.run(*words))
        assert _ESCAPE not in "".join(terminals.run(*words, "--color", "never"))


FAILING = (["remove", "n1", "-y"], ["delete", "k" * 481], ["status", "--check", "--watch"])


@pytest.mark.parametrize("columns", WIDTHS)
def test_errors_wrap_but_for_the_commands_in_them(columns: int, terminals: Terminals) -> None:
    for words in FAILING:
        reaching = ["-e", closed_address(), "--timeout", "50ms"]
        _, error = terminals.run(*words, *reaching, columns=columns)
        sentences, hint, _ = error.partition("  try: ")
        assert hint, words
        assert too_long(sentences, columns) == [], words
