"""When a server applies what is committed, where it has something better to do.

A new server is waited for until its log is complete; what it makes of the entries nobody asks for
before it votes. So entries that come in go first, as long as the leader has committed more than
this server has: they are stored and acknowledged, and applied once none have come for a moment.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.core.raft import Raft
from raftd.core.types import Entry

TURN_ENTRIES_MAX = 512
"""Entries applied in one turn, beside those of the last portion: some 10 ms, in which no heartbeat
is answered and no vote given."""
TURN_BYTES_MAX = 256 * 1024
"""Bytes of entries applied in one turn, likewise: for commands that have many keys."""

PUT_OFF_ENTRIES_MAX = 16_384
"""Committed entries that wait to be applied: some 0.2 s of work, for the day when it has a vote."""
PUT_OFF_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of them: until an entry is applied it is in memory as it came, too."""


PUT_OFF_TICKS = 1
"""So long after some entries the next ones may be on their way."""


class TurnShare:
    """What one turn of the driver applies: after a restart there may be a million entries to apply.

    A server that does nothing else for seconds is taken for dead.
    """

    def __init__(self, raft: Raft) -> None:
        """Begin a turn."""
        self._raft = raft
        self._left_entries = 0 if puts_off_applying(raft) else TURN_ENTRIES_MAX
        self._left_bytes = TURN_BYTES_MAX

    @property
    def is_left(self) -> bool:
        """Whether more entries may be handed out in this turn."""
        return self._left_entries > 0 and self._left_bytes > 0

    def took(self, handed: Sequence[Entry]) -> None:
        """Count entries that were handed out, and applied but for those that were given back."""
        self._left_entries -= len(handed)
        self._left_bytes -= sum([len(entry.data) for entry in handed])
        if handed and handed[-1].index > self._raft.log.handed_index:
            # They have made more work than their length says.
            self._left_entries = 0


def puts_off_applying(raft: Raft) -> bool:
    """Return whether a server applies nothing for now, since it is being given what it lacks."""
    log, latest = raft.log, raft.configuration
    if raft.behind_tick < 0 or raft.now - raft.behind_tick > PUT_OFF_TICKS:
        return False
    if latest is not None and raft.server in latest.configuration.all_voters:
        return False
    waiting = log.commit_index - log.handed_index
    return (
        waiting <= PUT_OFF_ENTRIES_MAX
        and log.bytes_between(log.handed_index, log.commit_index) <= PUT_OFF_BYTES_MAX
    )
