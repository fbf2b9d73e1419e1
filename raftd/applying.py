"""When a server applies what is committed, where it has something better to do.

A new server is waited for until its log is complete; what it makes of the entries nobody asks for
before it votes. So entries that come in go first, as long as the leader has committed more than
this server has: they are stored and acknowledged, and applied once none have come for a moment.
"""

from __future__ import annotations

from raftd.core.raft import Raft

PUT_OFF_ENTRIES_MAX = 16_384
"""Committed entries that wait to be applied: some 0.2 s of work, for the day when it has a vote."""
PUT_OFF_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of them: until an entry is applied it is in memory as it came, too."""


PUT_OFF_TICKS = 1
"""So long after some entries the next ones may be on their way."""


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
