"""Notices that the disk is getting full, before a write that cannot be refused fails."""

from __future__ import annotations

import logging
from collections.abc import Callable

from raftd.event_log import Sparing, left_out_words, tell
from raftd.replies import size_text

logger = logging.getLogger("raftd.disk_space")


class DiskSpace:
    """What the disk of this server has left, and whether that is enough."""

    def __init__(
        self, free_bytes: Callable[[], int], reserve_bytes: int, clock: Callable[[], float]
    ) -> None:
        """Look for the first time.

        Args:
            free_bytes: asks the disk.
            reserve_bytes: with less than this left, clients' writes are refused.
            clock: seconds that never go back.
        """
        self._sparing = Sparing(clock)
        self.problem = ""
        """Why writes are refused because of this disk, in words; empty if they are not."""
        self._ask = free_bytes
        self._reserve_bytes = reserve_bytes
        self.look()

    def look(self) -> None:
        """Ask the disk; cheap enough for every tick."""
        self.free_bytes = self._ask()
        """What was left when it was asked last."""
        problem = ""
        if self.free_bytes < self._reserve_bytes:
            problem = (
                f"{size_text(self.free_bytes)} of disk left, "
                f"{size_text(self._reserve_bytes)} are reserved"
            )
        if bool(problem) != bool(self.problem) and self._sparing.admits():
            words = (
                f"{problem}: writes are refused while this server leads, or a majority is as short"
            )
            if not problem:
                words = f"there is enough disk again, {size_text(self.free_bytes)}"
            tell(
                *(logger, "disk-full", "%s%s", words, left_out_words(self._sparing.left_out())),
                level=logging.WARNING if problem else logging.INFO,
                free_bytes=self.free_bytes,
            )
        self.problem = problem
