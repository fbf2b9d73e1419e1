"""Time, chance and memory of a simulated run: one queue of events, and what was seen.

Everything that happens is an event at a time; equal times keep the order in which they were asked
for. Nothing looks at a real clock, at the order of a set, or at a hash that changes from process
to process, so a seed repeats its run byte for byte.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any

from tests.simulation.profile import Profile

REMEMBERED_LINES = 400
"""Of the trace, shown when a run fails."""
EPOCH_MS = 1_700_000_000_000


class World:
    """The clock, the queue of events, the trace and the counters of one run."""

    def __init__(self, profile: Profile, emit: Callable[[str], None] | None = None) -> None:
        """Begin at time 0. `emit` gets each line of the trace; the last ones are kept anyway."""
        self.profile = profile
        self.now_us = 0
        self.counted: Counter[str] = Counter()
        """Faults by kind, changes by outcome, phases and crash points that were met."""
        self.recent: deque[str] = deque(maxlen=REMEMBERED_LINES)
        self.event_count = 0
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = 0
        self._emit = emit
        self._digest = hashlib.sha256()
        self._minted = 0

    def random(self, purpose: str) -> Random:
        """Return a generator of its own for `purpose`: what one draws does not shift another."""
        return Random(f"{self.profile.seed} {purpose}")

    def at(self, at_us: int, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action` at a time, or now if that has passed."""
        self._pushed += 1
        heapq.heappush(self._queue, (max(at_us, self.now_us), self._pushed, action, arguments))

    def after(self, delay_us: int, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action` after a delay."""
        self.at(self.now_us + delay_us, action, *arguments)

    def run_until(self, end_us: int, done: Callable[[], bool] | None = None) -> bool:
        """Let events happen up to `end_us`, or until `done`; return whether it was done."""
        queue = self._queue
        while queue and queue[0][0] <= end_us:
            self.now_us, _, action, arguments = heapq.heappop(queue)
            self.event_count += 1
            action(*arguments)
            if done is not None and done():
                return True
        self.now_us = max(self.now_us, end_us)
        return False

    # --- what is seen ---

    def note(self, event: str, /, **fields: Any) -> None:
        """Write a line of the trace."""
        self.write({"time_us": self.now_us, "event": event, **fields})

    def write(self, line: dict[str, Any]) -> None:
        """Write a line of the trace that somebody else has made."""
        text = json.dumps(line, separators=(",", ":"))
        self._digest.update(text.encode())
        self.recent.append(text)
        if self._emit is not None:
            self._emit(text)

    def hash(self) -> str:
        """Return the hash of the whole trace so far."""
        return self._digest.hexdigest()

    def count(self, what: str, by: int = 1) -> None:
        """Count something for the summary."""
        self.counted[what] += by

    # --- what servers ask of the outside ---

    def wall_clock_ms(self) -> int:
        """Return the time for people."""
        return EPOCH_MS + self.now_us // 1_000

    def mint(self) -> str:
        """Return 16 hexadecimal digits that were never used."""
        self._minted += 1
        return hashlib.blake2b(
            f"{self.profile.seed} {self._minted}".encode(), digest_size=8
        ).hexdigest()
