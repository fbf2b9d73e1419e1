"""When Python's cyclic garbage collector looks at everything.

Of itself it does so in the middle of a request, and takes 30 ms for each 100,000 entries of the
log, of which none is ever garbage. So young objects are left to it, as ever, and old ones are
looked at only now and then, preferably when the log has just become short.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

YOUNG_OBJECTS = 5_000
"""New objects between two looks at the young ones: a fraction of a millisecond."""
MIDDLE_LOOKS = 20
"""Looks at the young ones between two at those that have survived one."""
NEVER = 1 << 30
"""Looks at the middle ones between two at the old ones."""
DUE_SECONDS = 60.0
"""Old garbage is cycles of what lived long, such as connections: a minute's worth is little."""
OVERDUE_SECONDS = 1_800.0
"""With a log that is never short it is looked for all the same."""
SHORT_LOG_ENTRIES = 50_000
"""A look at so many entries takes some 15 ms."""


def put_off() -> None:
    """Look at nothing while the log is read: a million new objects, none of them garbage."""
    gc.disable()


class GarbageCollection:
    """Chooses the moments. Made once the log was read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Look at everything now, and from then on only when `tend` finds it right.

        Args:
            clock: seconds of a clock that never goes back.
        """
        self._clock = clock
        gc.collect()
        gc.enable()
        gc.set_threshold(YOUNG_OBJECTS, MIDDLE_LOOKS, NEVER)
        self._last = clock()

    def tend(self, entry_count: int) -> None:
        """Collect if that is due; call it between two turns of the driver.

        Args:
            entry_count: how long the log is in memory.
        """
        waited_seconds = self._clock() - self._last
        if waited_seconds < DUE_SECONDS:
            return
        if entry_count <= SHORT_LOG_ENTRIES or waited_seconds >= OVERDUE_SECONDS:
            gc.collect()
            self._last = self._clock()
