"""Warnings about strangers, who must not be able to fill the log."""

from __future__ import annotations

import logging

import trio

from raftd.event_log import tell

COMPLAINTS_MAX = 5
"""Log lines about misbehaving connections in each `COMPLAINTS_SECONDS`; the others are counted."""
COMPLAINTS_PER_HOST_MAX = 2
"""Of these, how many about one host: it must not hide what the others do."""
COMPLAINTS_SECONDS = 10.0

logger = logging.getLogger("raftd.network")


class Complaints:
    """Warnings about strangers, who must not be able to fill the log."""

    def __init__(self) -> None:
        """Start with a full allowance."""
        self._period_start = -COMPLAINTS_SECONDS
        self._told = 0
        self._untold = 0
        self._hosts: dict[str, int] = {}
        """How often each host was complained about; no more hosts than complaints."""

    def warn(self, message: str, *arguments: object, host: str = "") -> None:
        """Log a warning, or count it if there were too many lately, altogether or about `host`."""
        now = trio.current_time()
        if now - self._period_start >= COMPLAINTS_SECONDS:
            if self._untold:
                words = "%d more complaints about connections"
                tell(logger, "refused", words, self._untold, level=logging.WARNING)
            self._period_start, self._told, self._untold = now, 0, 0
            self._hosts.clear()
        told_of_host = self._hosts.get(host, 0) if host else 0
        if self._told < COMPLAINTS_MAX and told_of_host < COMPLAINTS_PER_HOST_MAX:
            self._told += 1
            if host:
                self._hosts[host] = told_of_host + 1
            tell(logger, "refused", message, *arguments, level=logging.WARNING)
        else:
            self._untold += 1
