"""What a server has done in the last minutes, as it tells it to those who watch.

A part of the native protocol (`raftd.protocol`).
"""

from __future__ import annotations

import attrs

from raftd.core.types import ServerId
from raftd.values import Value


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ActivityRequest(Value):
    """What a server has done in the last minutes, for people who watch. See `StatusReply.http`."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class NoticeView(Value):
    """Something that a server has noticed, for people."""

    time_ms: int
    """Milliseconds since 1970, by its own clock."""
    kind: str
    """election, leader, configuration, link, disk, snapshot, server or warning."""
    text: str


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ActivityReply(Value):
    """The last minutes of a server: columns of one length, the newest point last."""

    server: ServerId
    interval_ms: int
    """Between two points."""
    last_ms: int
    """When the newest one ended, by its own clock; 0 where it keeps none."""
    commits_per_second: tuple[float, ...]
    """By the growth of its commit index."""
    commit_p50_ms: tuple[float | None, ...]
    """From the append of a batch until it was committed; None where it committed none as the
    leader."""
    commit_p99_ms: tuple[float | None, ...]
    notices: tuple[NoticeView, ...]
    """The latest, the newest last."""
