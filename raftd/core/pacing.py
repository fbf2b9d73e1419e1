"""How much of a leader's time servers get that catch up.

Nobody else knows when its clients need it: as long as they ask for nothing, a new server is sent
all that its window takes. While they do, it gets a share that leaves them most of the leader.
"""

from __future__ import annotations

import attrs

from raftd.core.log import RaftLog
from raftd.core.options import Options
from raftd.core.types import Index

GAIN = 2
"""Servers that catch up are sent at least so many times what clients write, or they never would."""
ENTRY_COST_BYTES = 2048
"""What a leader does for one entry takes it as long as to send so much of a snapshot."""

ENTRIES_MIN = 32
"""But that never keeps a server from getting so many short ones in a tick."""


@attrs.frozen
class Share:
    """What a server that catches up may be sent in a tick."""

    size_bytes: int
    entry_bytes: int = 0
    """What each entry counts for beyond its own bytes."""


class CatchUpPace:
    """What each server that catches up may be sent in a tick."""

    def __init__(self, options: Options, last_index: Index) -> None:
        """Begin with a log that ends at `last_index`."""
        self._options = options
        self._last_index = last_index
        self._has_read = False

    def note_reads(self) -> None:
        """Note that clients read in this tick; that they write shows in the log."""
        self._has_read = True

    def share(self, log: RaftLog, servers: int) -> Share:
        """Return the share for the next tick, at the end of one.

        Args:
            servers: how many catch up, at least 1; together they get no more than one alone.
        """
        full_bytes = self._options.catch_up_bytes_per_tick
        busy_bytes = self._options.busy_catch_up_bytes_per_tick
        first, self._last_index = max(self._last_index, log.base_index), log.last_index
        has_read, self._has_read = self._has_read, False
        if not busy_bytes or not (has_read or self._last_index > first):
            return Share(full_bytes)
        written = self._last_index - first
        written_bytes = log.bytes_between(first, self._last_index) + ENTRY_COST_BYTES * written
        size_bytes = min(full_bytes, max(busy_bytes // servers, GAIN * written_bytes, 1))
        return Share(size_bytes, min(ENTRY_COST_BYTES, size_bytes // ENTRIES_MIN))
