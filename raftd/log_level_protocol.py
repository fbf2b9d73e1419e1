"""How much a server logs, asked and changed over the native protocol: a part of it."""

from __future__ import annotations

import attrs

from raftd.values import Value

LOG_LEVEL_FOR_MS_MAX = 7 * 24 * 3_600_000.0
"""For a week at most; what is to last is written into the cluster file."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class LogLevelRequest(Value):
    """Ask at which level this server logs, or change it. Every server answers, blank or not.

    A change is not kept: the next start goes by the command line and the cluster file again.
    """

    level: str = ""
    """One of `LOG_LEVELS`; empty: only ask."""
    for_ms: float = 0.0
    """After so long it goes back by itself, at most `LOG_LEVEL_FOR_MS_MAX`; 0: it does not."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class LogLevelReply(Value):
    level: str
    """What it is now."""
    previous: str
    """What it was before the request."""
    back_to: str = ""
    """What it goes back to by itself; empty if it does not."""
    back_in_ms: float | None = None
    """When; None if it does not."""
