"""Changes that a watch has been told of and has not handed out, and how long it waits for more."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from raftd.client.results import KeyEvent

WATCH_POLL_MS = 10_000
"""How long a server is asked to wait for a change. A server that dies without a word is noticed
some seconds after that."""


class PendingEvents:
    """The state of one watch, without waiting.

    Args:
        after_revision: only changes behind it.
        idle_ms: after which nothing more is waited for; 0 for never.
    """

    def __init__(self, after_revision: int, idle_ms: float) -> None:
        self.events: deque[KeyEvent] = deque()
        self.asked_after = after_revision
        """Behind this revision to ask next."""
        self._reached = after_revision
        self._idle_ms = idle_ms
        self._idle_since_s: float | None = None

    @property
    def reached(self) -> int:
        """Up to here everything has been handed out."""
        return self._reached if self.events else self.asked_after

    def idle_is_over(self, now_s: float) -> bool:
        """Return whether nothing has come for as long as was to be waited."""
        return self._idle_ms > 0 and self._left_ms(now_s) <= 0

    def wait_ms(self, now_s: float) -> int:
        """Return how long to have the server wait."""
        if not self._idle_ms:
            return WATCH_POLL_MS
        return min(WATCH_POLL_MS, max(1, round(self._left_ms(now_s))))

    def take(self, events: Iterable[KeyEvent], next_after_revision: int) -> None:
        """Note what a server has answered."""
        self.events.extend(events)
        self.asked_after = max(self.asked_after, next_after_revision)

    def next(self) -> KeyEvent:
        """Return the next change, of which there is one."""
        event = self.events.popleft()
        # Whoever goes on from there must not miss another change of the same revision.
        has_more = bool(self.events) and self.events[0].revision == event.revision
        self._reached = event.revision - has_more
        self._idle_since_s = None
        return event

    def _left_ms(self, now_s: float) -> float:
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        return self._idle_ms - 1000 * (now_s - self._idle_since_s)
