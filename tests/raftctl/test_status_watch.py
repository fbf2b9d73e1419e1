"""`raftctl status --watch` on a terminal: redrawn in place, with rates; the cursor comes back."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from raftctl import screen as screens
from raftctl.commands.status import RATE_WINDOW_S, Measured
from raftctl.render import width_of
from raftctl.screen import Screen
from raftctl.status_text import Layout, Rates, text
from raftd.cluster_status.view import ClusterView, view
from raftd.protocol import StatusReply
from tests.raftctl.scripted_servers import scripted_servers
from tests.raftctl.status_answers import THREE, all_of, answers, reply
from tests.raftctl.test_status import healthy, write_cluster_file

WITHIN_S = 20.0
CLEAR_SCREEN = "\x1b[2J"


# --- frames ----------------------------------------------------------------------------------


def frames_of(capsys: pytest.CaptureFixture[str], *frames: list[str]) -> list[str]:
    """Draw frames one after the other and return what was written for each."""
    drawn = []
    screen = Screen()
    for lines in frames:
        screen.draw(lines, "the end")
        drawn.append(capsys.readouterr().out)
    return drawn


def test_a_frame_is_drawn_over_the_one_before_and_clears_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "20")
    first, second, third = frames_of(capsys, ["a", "b", "c"], ["d"], ["e", "f"])

    # Five lines with the empty one and the footer: that far it goes up again.
    assert first == "\ra\x1b[K\nb\x1b[K\nc\x1b[K\n\x1b[K\nthe end\x1b[K\n\x1b[J"
    assert second == "\x1b[5A\rd\x1b[K\n\x1b[K\nthe end\x1b[K\n\x1b[J"
    assert third.startswith("\x1b[3A\re\x1b[K\n")


def test_a_frame_that_is_too_large_is_cut_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "6")
    (frame,) = frames_of(capsys, [f"line {number} {'x' * 60}" for number in range(20)])

    lines = frame.removeprefix("\r").removesuffix("\x1b[J").splitlines()
    assert [line.removesuffix("\x1b[K").rstrip("x…") for line in lines] == [
        "line 0 ",
        "line 1 ",
        "line 2 ",
        "(17 more lines: the terminal is too low)",
        "the end",
    ]
    assert all(width_of(line) <= 40 for line in lines)


def test_after_a_change_of_size_it_starts_at_the_top(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    for columns in ("40", "30", "30"):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("LINES", "20")
        screen.draw(["a"], "the end")
    starts = re.findall(r"(\r|\x1b\[H|\x1b\[3A\r)a", capsys.readouterr().out)
    assert starts == ["\r", "\x1b[H", "\x1b[3A\r"]


def test_handlers_are_as_before_when_the_screen_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = (*screens.ENDING_SIGNALS, signal.SIGTSTP)
    before = [signal.getsignal(number) for number in numbers]

    def fail_while_drawn() -> None:
        with screens.drawn():
            assert [signal.getsignal(number) for number in numbers] != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_drawn()
    assert [signal.getsignal(number) for number in numbers] == before
    assert capsys.readouterr().out == screens.HIDE_CURSOR + screens.SHOW_CURSOR


# --- rates -----------------------------------------------------------------------------------


def at(commit_index: int, revision: int) -> ClusterView:
    replies = [
        attrs.evolve(each, commit_index=commit_index, revision=revision) for each in all_of(THREE)
    ]
    return view(answers(*replies))


def test_rates_are_those_of_the_last_seconds() -> None:
    measured = Measured()
    assert measured.add(100.0, at(1_000, 500)) is None
    assert measured.add(101.0, at(3_000, 1_500)) == Rates(
        commits_per_second=2_000.0, revisions_per_second=1_000.0
    )
    for second in range(2, 20):
        measured.add(100.0 + second, at(3_000, 1_500))
    still = measured.add(100.0 + 20, at(3_000, 1_500))
    assert still == Rates(commits_per_second=0.0, revisions_per_second=0.0)
    assert RATE_WINDOW_S < 18


def test_numbers_of_a_server_that_is_behind_the_one_before_make_no_negative_rate() -> None:
    measured = Measured()
    measured.add(100.0, at(1_000, 500))
    assert measured.add(101.0, at(900, 450)) is None
    assert measured.add(102.0, at(1_000, 500)) == Rates(
        commits_per_second=100.0, revisions_per_second=50.0
    )
    silent = view(answers(silent=["n1"]))
    assert measured.add(103.0, silent) is None


def test_rates_stand_beside_their_numbers() -> None:
    rates = Rates(commits_per_second=1_204.4, revisions_per_second=1_190.0)
    lines = text(view(answers(*all_of(THREE))), Layout(width=100), rates)
    assert lines[2].endswith("commit 100 (+1,204/s)   revision 60 (+1,190/s)")


# --- on a real terminal ----------------------------------------------------------------------


class Watcher:
    """A raftctl that watches, on a terminal of its own."""

    def __init__(self, file: Path, *words: str, env: dict[str, str] | None = None) -> None:
        self._leader, follower = pty.openpty()
        environment = {name: at for name, at in os.environ.items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raftctl", "-c", str(file), "status", "--watch", *words],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={**environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "30", **(env or {})},
            # Whoever runs the tests in the background ignores it, and children would, too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(follower)
        self.seen = ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)

    def read_until(
        self, reached: Callable[[str], bool], *, sending: signal.Signals | None = None
    ) -> None:
        """Read what it writes until `reached`, and send it a signal again and again meanwhile."""
        deadline_s = time.monotonic() + WITHIN_S
        while not reached(self.seen):
            assert time.monotonic() < deadline_s, self.seen
            if sending is not None:
                self.process.send_signal(sending)
            if select.select([self._leader], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._leader, 65_536).decode()
                except OSError:
                    # Nobody has the other end open any more.
                    break
        assert reached(self.seen), self.seen


@contextmanager
def watching(file: Path, *words: str, env: dict[str, str] | None = None) -> Iterator[Watcher]:
    watcher = Watcher(file, *words, env=env)
    try:
        yield watcher
    finally:
        watcher.close()


def test_the_cursor_comes_back_after_sigterm_and_the_last_frame_stays(tmp_path: Path) -> None:
    with scripted_servers(3) as servers:
        healthy(servers)
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        with watching(file) as watcher:
            watcher.read_until(lambda seen: seen.count("HEALTHY") >= 2)
            assert screens.SHOW_CURSOR not in watcher.seen
            watcher.process.send_signal(signal.SIGTERM)
            watcher.read_until(lambda seen: seen.endswith(screens.SHOW_CURSOR))
            assert watcher.process.wait(WITHIN_S) == -signal.SIGTERM

    assert watcher.seen.startswith(screens.HIDE_CURSOR)
    assert CLEAR_SCREEN not in watcher.seen
    # The second frame goes up by as many lines as the first one had.
    first, second = re.split(r"\x1b\[\d+A\r", watcher.seen)[:2]
    assert re.search(rf"\x1b\[{first.count(chr(10))}A\r", watcher.seen)
    assert "commit 100 (+0/s)" in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", second)


def test_ctrl_c_ends_the_watch_with_130_and_ctrl_z_gives_the_cursor_back(tmp_path: Path) -> None:
    with scripted_servers(3) as servers:
        healthy(servers)
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        with watching(file, "n2", env={"NO_COLOR": "1"}) as watcher:
            watcher.read_until(lambda seen: "SERVER   n2   ok" in seen)
            watcher.process.send_signal(signal.SIGTSTP)
            watcher.read_until(lambda seen: screens.SHOW_CURSOR in seen)
            # The first one may come before it has stopped.
            watcher.read_until(
                lambda seen: seen.count(screens.HIDE_CURSOR) == 2, sending=signal.SIGCONT
            )
            watcher.process.send_signal(signal.SIGINT)
            watcher.read_until(lambda seen: seen.endswith(screens.SHOW_CURSOR))
            assert watcher.process.wait(WITHIN_S) == 130
    # Without colours nothing is left but what moves the cursor and clears the rest of a line.
    assert set(re.findall(r"\x1b\[[0-9;?]*([A-Za-z])", watcher.seen)) <= set("lhAKJ")


def test_nobody_leads_and_the_watch_goes_on(tmp_path: Path) -> None:
    with scripted_servers(2) as servers:
        confirmed: list[StatusReply] = []
        servers[0].status = lambda: confirmed[0] if confirmed else reply("n1/a", None, leader="")
        file = write_cluster_file(tmp_path, [servers[0].address])
        with watching(file) as watcher:
            watcher.read_until(lambda seen: "UNAVAILABLE" in seen)
            healthy(servers)
            confirmed.append(servers[0].status)  # type: ignore[arg-type]
            watcher.read_until(lambda seen: "leader n1" in seen)
