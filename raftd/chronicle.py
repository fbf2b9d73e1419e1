"""The latest events of the log (`raftd.event_log`), kept in memory for whoever looks at a server.

A handler like any other: it takes nothing that the log does not say at its level of now.
"""

from __future__ import annotations

import logging
from collections import deque

from raftd.activity import NoticeView

NOTICES_MAX = 50
"""More than fit a screen."""
TEXT_CHARACTERS_MAX = 300
"""Of one: it may repeat what another server says."""
LOGGER = "raftd"
"""All that a server logs comes by this one."""

_KINDS = {
    "election": ("leader-lost", "campaign", "election-lost", "step-down"),
    "leader": ("leader", "follower"),
    "configuration": ("operation", "configuration"),
    "link": ("link-up", "link-down", "peer-silent", "peer-back", "peer-slow", "peer-caught-up"),
    "snapshot": ("snapshot-taken", "snapshot-sent", "snapshot-installed", "snapshot-failed"),
    "disk": ("slow-disk", "stall", "disk-full", "disk-fault"),
    "server": ("start", "listening", "stopping", "stop", "joined", "removed", "features"),
}
_KIND_OF = {event: kind for kind, events in _KINDS.items() for event in events}
"""What is not here is a warning."""


class Chronicle(logging.Handler):
    """The latest notices of one server. Use it as a context manager while the server runs."""

    def __init__(self) -> None:
        """Begin without one."""
        super().__init__(logging.INFO)
        self.notices: deque[NoticeView] = deque(maxlen=NOTICES_MAX)
        """The newest last."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is an event."""
        event = getattr(record, "event", "")
        if event:
            self.note(record.created, _KIND_OF.get(event, "warning"), record.getMessage())

    def note(self, time_s: float, kind: str, text: str) -> None:
        """Keep what was not logged, or before this one listened.

        Args:
            time_s: seconds since 1970.
            kind: as in `NoticeView`.
            text: one sentence.
        """
        time_ms = round(time_s * 1000)
        self.notices.append(NoticeView(time_ms=time_ms, kind=kind, text=text[:TEXT_CHARACTERS_MAX]))

    def __enter__(self) -> Chronicle:
        """Listen from now on."""
        logging.getLogger(LOGGER).addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        """Listen no more."""
        logging.getLogger(LOGGER).removeHandler(self)
