"""Long answers in portions: what one turn of the driver gives to clients of the native protocol.

A question of a few bytes may be answered with megabytes, and one connection may ask hundreds of
them at once. All of them in one turn would hold up heartbeats and votes until this server is taken
for dead, and fill the memory before the first answer has left. So the questions behind the first
portion wait for the next turns, in their order. What they are told is younger by that, and never
older.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

PORTION_BYTES = 4 * 1024 * 1024
"""Given in one turn, and the rest of the answer that exceeds it: some 10 ms, or some 40 ms for the
longest list of short entries."""
ANSWER_BYTES = 400
"""What an answer, or an entry of a list, counts beside its keys and values: to make it takes about
as long as to copy several times as many bytes."""


class Portions:
    """What was asked and may take long to answer.

    What waits is bounded by the requests that connections may have unanswered.
    """

    def __init__(self) -> None:
        """Begin with a whole portion."""
        self._left_bytes = PORTION_BYTES
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def has_more(self) -> bool:
        """Whether something waits for the next turn."""
        return bool(self._waiting)

    @property
    def is_spent(self) -> bool:
        """Whether this turn has given all that it may."""
        return self._left_bytes <= 0

    def begin_turn(self) -> None:
        """Give the next portion, first of all to what has waited."""
        self._left_bytes = PORTION_BYTES
        waiting = self._waiting
        while waiting and self._left_bytes > 0:
            waiting.popleft()()

    def do(self, answer: Callable[[], None]) -> None:
        """Call `answer` now, or in a later turn; it does not raise, and says what it has spent."""
        if self._waiting or self._left_bytes <= 0:
            self._waiting.append(answer)
        else:
            answer()

    def spend(self, content_bytes: int, entries: int = 1) -> None:
        """Count an answer with so many bytes of keys and values in so many entries."""
        self._left_bytes -= content_bytes + ANSWER_BYTES * entries
