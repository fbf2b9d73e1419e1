"""Restarting one server by a command: placeholders, its end, and whether it was restarted."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from raftctl import restarting
from raftctl.restarting import (
    Sighting,
    expand,
    run_command,
    unknown_placeholders,
    was_restarted,
)

OLD = "0.1.0"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ssh {host} restart {id}", "ssh 10.0.0.2 restart n2"),
        ("x {address}", "x 10.0.0.2:7100"),
        ("echo ${HOME} {a,b} {ids} {}", "echo ${HOME} {a,b} {ids} {}"),
    ],
)
def test_placeholders_are_replaced_and_other_braces_are_the_shells(
    command: str, expected: str
) -> None:
    assert expand(command, "n2", "10.0.0.2:7100") == expected


def test_what_replaces_a_placeholder_is_quoted() -> None:
    assert expand("x {address} {host}", "n2", "[::1]:7100") == "x '[::1]:7100' ::1"
    assert expand("x {id}", "n2; rm -rf /", "h:1") == "x 'n2; rm -rf /'"


def test_a_command_has_the_server_in_its_environment() -> None:
    command = 'echo "$RAFTCTL_SERVER $RAFTCTL_ADDRESS $RAFTCTL_HOST"; exit 7'
    end = run_command(command, "n2", "h:7100", timeout_ms=5000, waiting=lambda: None)
    assert (end.code, end.output) == (7, "n2 h:7100 h")
    assert end.words == "ended with exit code 7"


def test_what_a_command_leaves_running_keeps_nobody_waiting() -> None:
    began_s = time.monotonic()
    end = run_command("sleep 5 & echo $!", "n2", "h:1", timeout_ms=0, waiting=lambda: None)
    assert end.code == 0
    assert time.monotonic() - began_s < 4
    # It was not ended, and has no pipe that could break.
    run_command(f"kill {end.output}", "n2", "h:1", timeout_ms=0, waiting=lambda: None)


def test_of_a_long_output_the_end_is_kept() -> None:
    end = run_command("seq 1 5000; exit 1", "n2", "h:1", timeout_ms=0, waiting=lambda: None)
    assert end.output.splitlines()[-1] == "5000"
    assert len(end.output) < 2_100


def test_a_process_is_a_later_one_only_if_that_is_certain() -> None:
    def at(moment_s: float, uptime_ms: int, rtt_s: float = 0.01) -> Sighting:
        return Sighting.of(uptime_ms, OLD, asked_s=moment_s, answered_s=moment_s + rtt_s)

    before = at(100, 60_000)
    assert not at(105, 65_000).is_later_than(before)
    assert not at(105, 64_990, rtt_s=2.0).is_later_than(before)
    assert at(105, 2_000).is_later_than(before)
    assert at(105, 0).is_later_than(before)
    young = at(100, 5)
    assert not at(103, 3_005, rtt_s=3.0).is_later_than(young)


@pytest.mark.parametrize(
    ("uptime_ms", "before_ms", "elapsed_ms", "expected"),
    [
        (500, 90_000, 4_000, True),
        (94_000, 90_000, 4_000, False),
        (3_000, 0, 4_000, True),
        (5_000, 0, 4_000, False),
        # The clock of the leader of now is an hour behind that of the leader of then.
        (94_000, 90_000, -3_600_000, False),
        (500, 90_000, -3_600_000, True),
    ],
)
def test_whoever_was_not_there_believes_in_a_restart_only_with_a_reason(
    uptime_ms: int, before_ms: int, elapsed_ms: int, expected: bool
) -> None:
    found = was_restarted(uptime_ms=uptime_ms, uptime_before_ms=before_ms, elapsed_ms=elapsed_ms)
    assert found is expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("x {idd} {host} {Port} {idd}", ("idd", "Port")),
        ("x {ID}", ("ID",)),
        ("echo ${HOME} {a,b} {1..3} {} {{.Names}} $(f) { true; }", ()),
        ("awk '{ print }'", ()),
    ],
)
def test_a_word_in_braces_that_is_no_placeholder_is_found(
    command: str, expected: tuple[str, ...]
) -> None:
    assert unknown_placeholders(command) == expected


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # Nobody may be there to reap it: a zombie is dead.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("deaf", [False, True])
def test_a_command_that_takes_too_long_is_ended_with_its_children(
    deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarting, "GRACE_S", 0.2)
    trap = "trap '' TERM; " if deaf else ""
    command = f"{trap}sleep 600 & echo $!; sleep 601; true"
    end = run_command(command, "n2", "h:1", timeout_ms=300, waiting=lambda: None)
    assert end.code is None
    assert end.words == "did not end in time and was killed with all that it had started"
    child = int(end.output)
    deadline_s = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline_s:
        os.sched_yield()
    assert not is_alive(child)
