"""What the service manager is told: that the server serves, who leads, and that its loop goes on.

The protocol is that of systemd: datagrams of `NAME=value` lines to the socket that the environment
names. Without one nothing is sent, and nothing costs anything. No failure to send disturbs the
server: the manager draws its own conclusions from silence.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Protocol

from raftd.core.leader import Leader
from raftd.core.raft import Candidate, PreCandidate, Raft
from raftd.core.types import ServerId, Term, server_name

STATUS_SECONDS_MIN = 1.0
"""Between two status lines: elections in a row are one piece of news for who reads them."""
STATUS_CHARACTERS_MAX = 300
"""Of a status line: a terminal shows about so many, and the whole datagram has to stay small."""
PINGS_PER_WATCHDOG = 4
"""The loop looks so many times in the manager's time-out whether a ping is due. A ping therefore
leaves every quarter to every half of it, as is advised, however the ticks fall."""

_ENVIRONMENT = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

logger = logging.getLogger("raftd.service")


class Manager(Protocol):
    """Where a service manager listens."""

    def send(self, datagram: bytes) -> None:
        """Send without waiting; raises OSError where that is impossible."""

    def close(self) -> None:
        """Give back what it takes to send."""


class ServiceNotify:
    """Speaks to one service manager, or to none.

    Times are seconds of a clock that never goes back, the same in all calls.
    """

    def __init__(
        self, manager: Manager | None, *, watchdog_seconds: float | None = None, now: float = 0.0
    ) -> None:
        """Begin; nothing is sent before `ready`.

        Args:
            manager: takes what is said; None: nobody listens.
            watchdog_seconds: the manager ends a server that is silent for so long; None: never.
        """
        self._manager = manager
        self._watchdog_seconds = watchdog_seconds if manager is not None else None
        self._pinged_at = now
        self._told_at = now - STATUS_SECONDS_MIN
        self._told: tuple[type, Term, ServerId | None] | None = None
        self._failure = ""
        """Why the last datagram could not be sent; the log has it once."""

    @classmethod
    def from_environment(
        cls, environment: MutableMapping[str, str], *, now: float = 0.0
    ) -> ServiceNotify:
        """Return one that speaks to whom `environment` names.

        The names are taken out of it: no process that this one starts may speak in its place.
        """
        address, watchdog_us, pid = (environment.pop(name, "") for name in _ENVIRONMENT)
        if not address:
            return cls(None)
        if address[0] not in "/@":
            logger.warning("cannot tell the service manager anything: it listens at %s", address)
            return cls(None)
        watches = watchdog_us.isdigit() and int(watchdog_us) > 0
        if pid and pid != str(os.getpid()):
            # It is another process that is watched.
            watches = False
        return cls(
            _Socket(address),
            watchdog_seconds=int(watchdog_us) / 1_000_000 if watches else None,
            now=now,
        )

    # --- the life of a server ---

    def ready(self, status: str = "") -> None:
        """Say that the server serves: it listens and its log is read. Also after `reloading`."""
        self._tell("READY=1", status)

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` has to follow."""
        self._tell("RELOADING=1", more=f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def stopping(self, status: str = "") -> None:
        """Say that the server ends; why, if there is anything to say."""
        self._tell("STOPPING=1", status)

    def close(self) -> None:
        """Say nothing any more."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    # --- from the loop ---

    def quiet_ticks_max(self, tick_seconds: float) -> int | None:
        """Return how many ticks the loop may sleep through; None for any number."""
        if self._watchdog_seconds is None:
            return None
        return max(0, int(self._watchdog_seconds / PINGS_PER_WATCHDOG / tick_seconds) - 1)

    def tick(self, raft: Raft, now: float) -> None:
        """Say that the loop goes on, and who leads if that has changed, as far as either is due.

        To be called by the loop itself after a turn, so after its disk has done all it was asked:
        a loop or a disk that stands still is silent.
        """
        if self._manager is None:
            return
        if (
            self._watchdog_seconds is not None
            and now - self._pinged_at >= self._watchdog_seconds / PINGS_PER_WATCHDOG
        ):
            self._pinged_at = now
            self._tell("WATCHDOG=1")
        standing = (type(raft.role), raft.current_term, raft.leader_id)
        if standing != self._told and now - self._told_at >= STATUS_SECONDS_MIN:
            self._told, self._told_at = standing, now
            self._tell("", describe(raft))

    # --- sending ---

    def _tell(self, line: str, status: str = "", more: str = "") -> None:
        if self._manager is None:
            return
        lines = [line, more]
        if status:
            # A line break would begin another assignment.
            lines.append(f"STATUS={' '.join(status.split())[:STATUS_CHARACTERS_MAX]}")
        try:
            self._manager.send("\n".join(filter(None, lines)).encode(errors="replace"))
        except OSError as error:
            failure = error.strerror or str(error)
            if failure != self._failure:
                logger.warning("the service manager cannot be told anything: %s", failure)
            self._failure = failure
        else:
            self._failure = ""


def describe(raft: Raft) -> str:
    """Return in a line what a server is: its role, the term and the leader."""
    term = raft.current_term
    if raft.configuration is None:
        return "blank: belongs to no cluster; waits for raftctl init, or to be added to one"
    if isinstance(raft.role, Leader):
        return f"leads in term {term}"
    if raft.leader_id is not None:
        return f"follows {server_name(raft.leader_id)} in term {term}"
    if isinstance(raft.role, PreCandidate | Candidate):
        return f"no leader in term {term}: asks for votes"
    return f"no leader in term {term}"


class _Socket:
    """Sends to a path, or to an abstract address that is written with an @."""

    def __init__(self, address: str) -> None:
        self._target = "\0" + address[1:] if address[0] == "@" else address
        flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, flags)

    def send(self, datagram: bytes) -> None:
        # Not connected: the manager may have been started again at the same place.
        self._socket.sendto(datagram, self._target)

    def close(self) -> None:
        self._socket.close()
