"""What came of asking one address how its server is."""

from __future__ import annotations

import attrs

from raftd.protocol import StatusReply


@attrs.frozen(kw_only=True)
class Answer:
    """What came of asking one address."""

    address: str
    name: str
    """Who is expected there, by the cluster file or a configuration; empty if nobody says."""
    listed: bool
    """Whether the cluster file or the command line names the address."""
    reply: StatusReply | None
    failure: str = ""
    """In words, why there is no reply."""
    round_trip_ms: float | None = None
    """From the question to the reply, on a connection that was there."""
    clock_ahead_ms: float | None = None
    """How far its wall clock is ahead of the one here; wrong by at most half the round trip. None
    if it does not state the time."""
