"""What the service manager is told, datagram by datagram; and the unit that ships for systemd."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from raftd.config import load
from raftd.node import EXIT_REMOVED
from raftd.server import (
    DESCRIPTORS_WANTED,
    DRAIN_ELECTION_TIMEOUTS,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STORAGE,
    EXIT_USAGE,
    FLUSH_TIMEOUT_MS,
)
from raftd.service_notify import (
    PINGS_PER_WATCHDOG,
    STATUS_CHARACTERS_MAX,
    STATUS_SECONDS_MIN,
    ServiceNotify,
    describe,
)
from tests.node.world import World

CONFIGS = Path(__file__).parent.parent / "configs"
UNIT = CONFIGS / "systemd" / "raftd@.service"
EXPOSURE_MAX = 2.0
"""What `systemd-analyze security` may say, of 10: below 2 is what it calls OK."""


Start: TypeAlias = Callable[..., ServiceNotify]


class Manager:
    """The side of the service manager: a socket, and what arrived at it."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._socket.setblocking(False)

    def received(self) -> list[str]:
        """Return the datagrams that have come since the last call."""
        datagrams = []
        while True:
            try:
                datagrams.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return datagrams

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Return what starts a service in an environment."""
    with ExitStack() as stack:

        def start(environment: dict[str, str], **more: Any) -> ServiceNotify:
            service = ServiceNotify.from_environment(environment, **more)
            stack.callback(service.close)
            return service

        yield start


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    # A path of a Unix socket is short.
    with tempfile.TemporaryDirectory() as folder:
        yield f"{folder}/notify" if request.param == "path" else f"@raftd-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    yield manager
    manager.close()


def test_a_life_is_told_from_the_start_to_the_end(
    address: str, manager: Manager, start: Start
) -> None:
    service = start({"NOTIFY_SOCKET": address})
    assert manager.received() == []
    service.ready("follows n1\nREADY=0")
    service.reloading()
    service.ready()
    service.stopping("stopped by a signal")
    ready, reloading, again, stopping = manager.received()
    # What is said cannot become an assignment of its own.
    assert ready == "READY=1\nSTATUS=follows n1 READY=0"
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", reloading)
    assert again == "READY=1"
    assert stopping == "STOPPING=1\nSTATUS=stopped by a signal"


def test_without_a_manager_nothing_is_sent_or_watched(start: Start) -> None:
    environment = {"WATCHDOG_USEC": "30000000", "PATH": "/bin"}
    service = start(environment)
    service.ready("serves")
    service.stopping()
    assert service.quiet_ticks_max(0.025) is None
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize("gone", ["never there", "vsock:2:1234", "/" + "x" * 200])
def test_a_manager_that_cannot_be_reached_is_named_once_and_disturbs_nobody(
    gone: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    if gone == "never there":
        gone = "/nowhere/notify"
    service = start({"NOTIFY_SOCKET": gone})
    for _ in range(3):
        service.ready("serves")
    (record,) = caplog.records
    assert "manager" in record.getMessage()


def test_a_manager_that_reads_nothing_holds_nobody_up(
    address: str, manager: Manager, start: Start
) -> None:
    service = start({"NOTIFY_SOCKET": address})
    for _ in range(2000):
        service.ready("x" * STATUS_CHARACTERS_MAX)
    assert manager.received()
    service.stopping()
    assert manager.received()[-1] == "STOPPING=1"


def test_who_is_watched_is_another_process(address: str, manager: Manager, start: Start) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    service = start(environment)
    assert service.quiet_ticks_max(0.025) is None
    assert environment == {}


def test_pings_come_at_half_of_the_watchdog_however_the_loop_sleeps(
    address: str, manager: Manager, start: Start
) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"}
    environment["WATCHDOG_PID"] = str(os.getpid())
    service = start(environment, now=100.0)
    raft = World().form(1).running.raft
    tick_seconds = 0.05
    quiet = service.quiet_ticks_max(tick_seconds)
    assert quiet is not None
    # An idle loop wakes after as many ticks as it may sleep through, a busy one all the time.
    now = 100.0
    for step in ((quiet + 1) * tick_seconds, tick_seconds, 2.0 / PINGS_PER_WATCHDOG):
        now = pinged = now + 10.0
        service.tick(raft, now)
        manager.received()
        gaps = []
        for _ in range(1000):
            now += step
            service.tick(raft, now)
            if "WATCHDOG=1" in manager.received():
                gaps.append(now - pinged)
                pinged = now
        assert gaps
        assert max(gaps) <= 1.0
        # Nor more often than is any use.
        assert min(gaps) >= 0.5 - 1e-6


def test_who_leads_is_told_when_it_changes_and_once_a_second_at_most(
    address: str, manager: Manager, start: Start
) -> None:
    service = start({"NOTIFY_SOCKET": address})
    world = World()
    leader = world.form(3)
    raft = leader.running.raft
    service.tick(raft, 10.0)
    for passed in range(100):
        service.tick(raft, 11.0 + passed)
    assert manager.received() == [f"STATUS=leads in term {raft.current_term}"]
    follower = next(server for server in world.up() if server is not leader)
    service.tick(follower.running.raft, 200.0)
    service.tick(raft, 200.0 + STATUS_SECONDS_MIN / 2)
    follows = f"STATUS=follows {leader.name} in term {raft.current_term}"
    assert manager.received() == [follows]
    service.tick(raft, 200.0 + STATUS_SECONDS_MIN)
    assert manager.received() == [f"STATUS=leads in term {raft.current_term}"]


def test_a_blank_server_says_what_it_waits_for() -> None:
    assert "raftctl init" in describe(World().boot("n1").running.raft)


# --- the unit -----------------------------------------------------------------------------------


class _Unit(configparser.RawConfigParser):
    def __init__(self) -> None:
        super().__init__(delimiters="=", comment_prefixes="#", strict=False, interpolation=None)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture(scope="module")
def service_section() -> configparser.SectionProxy:
    unit = _Unit()
    unit.read_string(UNIT.read_text())
    return unit["Service"]


def test_the_unit_starts_again_what_gets_better_by_itself_and_nothing_else(
    service_section: configparser.SectionProxy,
) -> None:
    assert service_section["Restart"] == "always"
    kept_down = {int(code) for code in service_section["RestartPreventExitStatus"].split()}
    assert kept_down == {EXIT_USAGE, EXIT_REMOVED, EXIT_STORAGE}
    assert not kept_down & {EXIT_DONE, EXIT_FAILED}


def test_the_unit_gives_a_server_the_time_and_the_files_that_it_wants(
    service_section: configparser.SectionProxy,
) -> None:
    defaults = load(CONFIGS / "local3.yaml").servers["n1"]
    drains_ms = DRAIN_ELECTION_TIMEOUTS * defaults.election_timeout_ms + 2 * FLUSH_TIMEOUT_MS
    assert int(service_section["TimeoutStopSec"].removesuffix("s")) * 1000 >= 10 * drains_ms
    watchdog_ms = int(service_section["WatchdogSec"].removesuffix("s")) * 1000
    assert watchdog_ms >= 4 * defaults.heartbeat_interval_ms
    assert int(service_section["LimitNOFILE"]) >= DESCRIPTORS_WANTED
    words = service_section["ExecStart"].split()
    written = words[words.index("--data-dir") + 1].removeprefix("/var/lib/")
    assert written in service_section["StateDirectory"].split()


@pytest.fixture
def installed_unit(tmp_path: Path) -> Path:
    """The unit as it is installed, with a program that is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt install systemd")
    program = tmp_path / "bin" / "raftd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "raftd@n1.service"
    unit.write_text(UNIT.read_text().replace("/opt/raftd/bin/raftd", str(program)))
    return unit


def analyze(unit: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--man=no", "--no-pager", *words, unit.name],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{unit.parent}:"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_systemd_has_nothing_against_the_unit(installed_unit: Path) -> None:
    verified = analyze(installed_unit, "verify")
    # It complains of keys that it does not know and returns 0.
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    installed_unit.write_text(installed_unit.read_text().replace("WatchdogSec", "WatchDogSec"))
    assert "WatchDogSec" in analyze(installed_unit, "verify").stderr


def test_the_unit_leaves_little_to_whoever_takes_the_server_over(installed_unit: Path) -> None:
    said = analyze(installed_unit, "security", "--offline=true").stdout
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) < EXPOSURE_MAX
