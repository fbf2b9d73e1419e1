"""Sessions: what makes a write happen once, however often it is sent (dissertation section 6.3)."""

from __future__ import annotations

import os

SESSION_SERIALS_MAX = 256
"""Serials from the lowest unanswered one to the newest. The cluster keeps the answers to all of
them, 512 at most: half of that leaves room for whatever is still on its way. A session with more
takes no new writes, and the next write opens another one."""


class Session:
    """A session of the cluster, and which of its serials have been answered.

    A serial whose outcome nobody knows stays unanswered, so that the cluster keeps what it was
    answered with until somebody has asked for it.
    """

    def __init__(self) -> None:
        self.id = os.urandom(16).hex()
        self.expired = False
        """Whether the cluster has forgotten it."""
        self._newest = 0
        self._unanswered: dict[int, None] = {}
        """In ascending order, as they were taken."""

    @property
    def usable(self) -> bool:
        """Whether it takes new writes."""
        return not self.expired and self._newest - self.lowest + 1 < SESSION_SERIALS_MAX

    @property
    def lowest(self) -> int:
        """The lowest serial that is not answered; the next one if all are."""
        return next(iter(self._unanswered), self._newest + 1)

    def take(self) -> int:
        """Return the serial of a new write, from 1."""
        self._newest += 1
        self._unanswered[self._newest] = None
        return self._newest

    def answered(self, serial: int) -> None:
        """Note that nobody will ask for `serial` again; noting it again does nothing."""
        self._unanswered.pop(serial, None)
