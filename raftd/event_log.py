"""Lines of the log that say that something has happened, for people and for programs.

Each has a kind and fields beside its message, so that nobody has to take the message apart: as JSON
they are keys of the line, and a handler finds them in `record.event` and `record.fields`.

| kind | it says that |
|---|---|
| `start`, `listening`, `stopping`, `stop` | the process begins, serves, is asked to end, ends |
| `leader-lost` | no leader is heard any more, and why; told again while there is none |
| `campaign`, `election-lost` | this server asks for votes, and with what result |
| `leader`, `follower` | it leads from now on, or whom it follows |
| `step-down` | it leads no more, and why |
| `operation` | a membership operation has come a step further, or has ended |
| `configuration` | a configuration is in force and committed |
| `joined`, `removed`, `features` | it belongs to a cluster, to none any more; what it can do |
| `peer-silent`, `peer-back`, `peer-slow`, `peer-caught-up` | how a leader finds a member |
| `snapshot-taken`, `snapshot-sent`, `snapshot-installed`, `snapshot-failed` | of its own state |
| `link-up`, `link-down` | whether it reaches a member |
| `refused` | a connection was refused, or closed since it misbehaved |
| `slow-disk`, `stall`, `disk-full`, `disk-fault` | what holds it up, or ends it |
| `fenced`, `divergence` | states or disks that are not what they should be |
| `drift` | the cluster file and the log differ |
| `certificate`, `reload` | what it shows who it is by; what SIGHUP has come to |
| `log-level`, `dropped` | more or less is logged from now on; lines are missing here |

What may come again and again goes through a `Sparing`, which counts what it leaves out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

LINES_MAX = 3
"""Lines of one kind of trouble in each `PERIOD_SECONDS`, where nothing else is said."""
PERIOD_SECONDS = 10.0


def tell(
    logger: logging.Logger,
    event: str,
    message: str,
    *arguments: object,
    level: int = logging.INFO,
    **fields: object,
) -> None:
    """Log an event.

    Args:
        logger: of the module that knows of it.
        event: its kind, from the table above.
        message, arguments: for people, as everywhere in `logging`.
        level: how much it matters.
        fields: for programs: plain values that are ready for JSON.
    """
    logger.log(level, message, *arguments, extra={"event": event, "fields": fields})


class Sparing:
    """Lets so many lines of a kind through in a period, and counts the others."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        lines_max: int = LINES_MAX,
        period_seconds: float = PERIOD_SECONDS,
    ) -> None:
        """Start with a full allowance.

        Args:
            clock: seconds that never go back.
        """
        self._clock = clock
        self._lines_max = lines_max
        self._period_seconds = period_seconds
        self._period_start = -math.inf
        self._told = 0
        self._left_out = 0

    def admits(self) -> bool:
        """Return whether one more may be told now; if not, it is counted."""
        now = self._clock()
        if now - self._period_start >= self._period_seconds:
            self._period_start, self._told = now, 0
        if self._told >= self._lines_max:
            self._left_out += 1
            return False
        self._told += 1
        return True

    def left_out(self) -> int:
        """Return how many were counted since this was asked last, for the next line to say so."""
        count, self._left_out = self._left_out, 0
        return count


def left_out_words(count: int) -> str:
    """Return the end of a line before which so many like it were left out; empty for none."""
    return f" ({count} more like this were not logged)" if count else ""
