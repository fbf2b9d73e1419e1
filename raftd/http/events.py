"""The shape of what `GET /events` sends: server-sent events, one `status` a second.

```
event: status
data: {"format": "1.0", "viewer": {...}, "status": {...}, ...}      <- a `StatusEvent`, one line

: still here                                                        <- a comment, where it is quiet
```

Each event is whole: nothing has to be remembered from the one before, so whoever was away for a
while goes on with the next. Times are milliseconds since 1970 by the clock of the server that
states them; what nobody knows is null. Fields may be added within format 1.x; none is taken away.
All names and texts come from operators and servers: they are text, never markup.

Source: HTML Living Standard, section 9.2 (server-sent events).
"""

from __future__ import annotations

from typing import Any, TypedDict

FORMAT = "1.0"
"""Version of the events. Within 1.x fields are only added."""
EVENT_NAME = "status"
"""What stands behind `event:`."""
EVENT_SECONDS = 1.0
"""Between two events."""
RATE_POINTS_MAX = 300
"""Of the plots: five minutes, a point a second."""
RECENT_EVENTS_MAX = 50
"""Of the list of events: more than a screen of them."""


class Viewer(TypedDict):
    """The server that serves this page: all is told as it sees it."""

    id: str
    """Its name."""
    address: str
    """HOST:PORT where servers and raftctl dial it."""
    http: str
    """HOST:PORT of this listener."""
    version: str
    time_ms: int
    """Its wall clock when it made the event."""
    uptime_ms: int
    ready: bool
    """What /readyz says."""
    not_ready: list[str]
    """Why not, one sentence each."""


class Half(TypedDict):
    """One voter set, and who of it has acknowledged the configuration entry that is under way."""

    servers: list[str]
    acknowledged: list[str] | None
    """Null where the leader that counts them cannot be asked."""
    needed: int
    """How many of `servers` are a majority."""
    complete: bool
    """Whether enough have acknowledged it."""


class Joint(TypedDict):
    """A configuration entry that is under way: who has to acknowledge it, half by half."""

    index: int
    """Of the entry."""
    operation: str | None
    """Which change it belongs to, such as op-17."""
    summary: str
    """That change in a few words; empty if it is not known."""
    step: str
    """committing-joint, committing-final, rolling-back, or joint where only that is known."""
    old: Half | None
    """C_old; null once C_new alone decides."""
    new: Half
    """C_new."""
    blocked_by: str
    """What it waits for, in words, where that is a problem; else empty."""


class Position(TypedDict):
    """Where the log of one server is. The same servers, in the same order, as `status.servers`."""

    id: str
    reachable: bool
    leader: bool
    first_index: int | None
    """The first entry that its log still has: before it there is only the snapshot."""
    snapshot_index: int | None
    """What its newest snapshot includes; 0 without one."""
    applied_index: int | None
    commit_index: int | None
    last_index: int | None
    match_index: int | None
    """As the leader knows it; on the leader its own last index."""
    snapshot_bytes: int | None
    """Of a snapshot that it is being sent; null if none is."""
    snapshot_received_bytes: int | None
    snapshot_installed_bytes: int | None
    bytes_per_second: int | None
    """How fast it catches up; null unless it does."""
    http: str | None
    """HOST:PORT of its own page, where that is known."""


class Rates(TypedDict):
    """Commits and their latency in the last minutes, in columns of the same length.

    At most `RATE_POINTS_MAX` points, the newest last, one for each second.
    """

    source: str
    """Whose numbers these are: the leader's name if it can be asked, else the viewer's."""
    is_leader: bool
    """False: the viewer's own numbers. Its latencies are null: only a leader knows them."""
    interval_ms: int
    """Between two points."""
    last_ms: int
    """When the newest point ended; 0 without any."""
    commits_per_second: list[float]
    """Entries committed, by the growth of the commit index."""
    commit_p50_ms: list[float | None]
    """From being appended by the leader until committed; null where nothing was."""
    commit_p99_ms: list[float | None]


class RecentEvent(TypedDict):
    """Something that an operator would want to know."""

    time_ms: int
    server: str
    """Who noticed it: the viewer, or the leader."""
    kind: str
    """election, leader, configuration, link, disk, snapshot, server or warning."""
    text: str
    """One sentence."""


class StatusEvent(TypedDict):
    """What one event says."""

    format: str
    viewer: Viewer
    status: dict[str, Any]
    """The document of `raftctl status -o json`, which /status.json gives as well."""
    joint: Joint | None
    """Null where no configuration entry is under way."""
    positions: list[Position]
    rates: Rates
    recent: list[RecentEvent]
    """At most `RECENT_EVENTS_MAX`, the newest last."""
