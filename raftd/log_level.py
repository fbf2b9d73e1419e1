"""How much a process logs, as an administrator may change it while it runs.

A change is not kept: the next start goes by the command line and the cluster file again. It may be
for a while only, so that nobody has to remember to take it back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from raftd.config import ServerConfig
from raftd.config_values import LOG_LEVELS, format_duration
from raftd.event_log import tell
from raftd.log_level_protocol import LOG_LEVEL_FOR_MS_MAX
from raftd.logs import level, set_level
from raftd.protocol import LogLevelReply, LogLevelRequest, Reply
from raftd.replies import invalid

logger = logging.getLogger("raftd.logs")


class LogLevel:
    """The level of this process, and when it goes back by itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with the level that is in force.

        Args:
            clock: seconds that never go back.
        """
        self._clock = clock
        self._back_to = ""
        """What it goes back to, if it does."""
        self._back_at = 0.0

    def answer(self, request: LogLevelRequest) -> Reply:
        """Change the level, if a change is asked for; say what it is now."""
        problem = bad_log_level(request)
        if problem:
            return invalid(problem)
        previous = level()
        if request.level:
            self._change(request.level, request.for_ms, previous)
        remaining_ms = max(0.0, self._back_at - self._clock()) * 1000 if self._back_to else None
        return LogLevelReply(
            level=level(), previous=previous, back_to=self._back_to, back_in_ms=remaining_ms
        )

    def set(self, word: str, why: str) -> None:
        """Log at a level from now on and for good, and say so."""
        self._back_to = ""
        if word != level():
            self._switch(word, why)

    def tick(self) -> None:
        """Go back, if it is time."""
        if self._back_to and self._clock() >= self._back_at:
            word, self._back_to = self._back_to, ""
            self._switch(word, "as the time is over for which it was to be otherwise")

    def _change(self, word: str, for_ms: float, previous: str) -> None:
        # A change for a while on top of another one goes back to what was before both.
        before = self._back_to or previous
        self._back_to = before if for_ms and before != word else ""
        self._back_at = self._clock() + for_ms / 1000
        if word != previous:
            lasts = f"for {format_duration(for_ms)}" if self._back_to else "until the next start"
            self._switch(word, f"{lasts}, as was asked")

    def _switch(self, word: str, why: str) -> None:
        """Log at another level, and say so at the one of both at which more is logged."""
        previous = level()
        if _number(word) < _number(previous):
            set_level(word)
        words = "logs at %s from now on, at %s until now: %s"
        # It matters to whoever misses lines later on.
        tell(
            *(logger, "log-level", words, word, previous, why),
            level=max(logging.INFO, min(_number(word), _number(previous))),
            log_level=word,
            previous=previous,
        )
        set_level(word)


PROCESS = LogLevel()
"""That of this process: there is one, however many nodes a test has in it."""


class LevelOfFile:
    """Follows the cluster file where that changes its mind, and only there.

    What an administrator or the command line has said stays when the file is read again for the
    sake of something else.
    """

    def __init__(self, word: str) -> None:
        """Begin with what the file said at the start."""
        self._word = word

    def reload(self, server: ServerConfig) -> str:
        """Take in what the file says now. What has changed is said here, so nothing is returned."""
        if server.log_level != self._word:
            self._word = server.log_level
            PROCESS.set(server.log_level, "as the cluster file says")
        return ""


def bad_log_level(request: LogLevelRequest) -> str:
    """Return what is wrong with a request in itself; empty if nothing is."""
    if request.level and request.level not in LOG_LEVELS:
        listed = ", ".join(LOG_LEVELS)
        return f"{request.level[:40]!r} is no level; the levels are {listed}"
    if not 0 <= request.for_ms <= LOG_LEVEL_FOR_MS_MAX:
        limit = format_duration(LOG_LEVEL_FOR_MS_MAX)
        return f"a level for {request.for_ms} ms; 0 to {limit} are allowed"
    if request.for_ms and not request.level:
        return "a duration without a level"
    return ""


def _number(word: str) -> int:
    number: int = logging.getLevelNamesMapping()[word.upper()]
    return number
