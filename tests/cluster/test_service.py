"""A server under a service manager, which here is the test: it listens where systemd would."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import HEARTBEAT_MS, Server

WATCHDOG_S = 1.6
WAIT_S = 20.0


class Manager:
    """Takes what servers say, in the order of its arrival."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)

    def next(self, timeout_s: float = WAIT_S) -> str:
        """Return what is said next; empty if nothing is in time."""
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv(4096).decode()
        except TimeoutError:
            return ""

    def wait_for(self, line: str) -> str:
        """Return the next datagram with `line` in it."""
        deadline_s = time.monotonic() + WAIT_S
        while line not in (said := self.next()):
            assert said, f"{line} was never said"
            assert time.monotonic() < deadline_s, f"waited for {line}, was told {said}"
        return said

    def forget(self) -> None:
        """Drop what has come and was not looked at."""
        while self.next(0.001):
            pass

    def close(self) -> None:
        self._socket.close()


@contextmanager
def manager() -> Iterator[Manager]:
    # A path of a Unix socket is short.
    with tempfile.TemporaryDirectory() as folder:
        managing = Manager(str(Path(folder, "notify")))
        try:
            yield managing
        finally:
            managing.close()


def start_supervised(server: Server, managing: Manager) -> None:
    """Start it as a service manager does."""
    environment = {
        **os.environ,
        "NOTIFY_SOCKET": managing.path,
        "WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000)),
    }
    words = [sys.executable, "-m", "raftctl.playground_child", str(os.getpid())]
    words += [sys.executable, "-m", "raftd"]
    words += ["--config", str(server.config_path), "--id", server.name]
    with server.log_path.open("ab") as log:
        server.process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)


def test_a_service_manager_hears_that_it_serves_goes_on_stands_still_and_ends(
    make_cluster: MakeCluster,
) -> None:
    # So long a time-out that an idle server would sleep for many times the watchdog.
    cluster = make_cluster(settings="election_timeout: 30s")
    server = cluster.add_server("n1", start=False)
    cluster.write_config(cluster.config_path, [server])
    assert HEARTBEAT_MS < WATCHDOG_S * 1000 / 4
    with manager() as managing:
        start_supervised(server, managing)
        ready = managing.next()
        assert ready.startswith("READY=1\nSTATUS=blank")
        # At that moment it answers: nobody has to wait any more.
        assert server.status() is not None

        # Nobody asks it anything, and it has nothing to do.
        for _ in range(3):
            started_s = time.monotonic()
            managing.wait_for("WATCHDOG=1")
            assert time.monotonic() - started_s < WATCHDOG_S

        # Its address is held by a process that does not move: that is what is to be noticed.
        server.pause()
        managing.forget()
        assert managing.next(1.5 * WATCHDOG_S) == ""
        server.resume()
        managing.wait_for("WATCHDOG=1")

        assert cluster.ctl("init").code == 0
        assert managing.wait_for("STATUS=").startswith("STATUS=leads in term ")

        server.signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in managing.wait_for("RELOADING=1")
        # Each of them is said once.
        assert managing.next().startswith("READY=1")
        assert not managing.next().startswith("READY=1")

        server.terminate()
        managing.wait_for("STOPPING=1")
        assert managing.wait_for("STOPPING=1").endswith("STATUS=stopped by a signal")
        assert server.wait_exit() == 0


def test_a_manager_that_has_gone_disturbs_nobody(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1")
    server = cluster["n1"]
    server.terminate()
    assert server.wait_exit() == 0
    with manager() as managing:
        start_supervised(server, managing)
        assert managing.next().startswith("READY=1")
    # The socket is gone now.
    cluster.wait_leader()
    assert cluster.ctl("put", "a", "1").code == 0
    server.terminate()
    assert server.wait_exit() == 0
    assert server.log.count("service manager cannot be told") == 1
