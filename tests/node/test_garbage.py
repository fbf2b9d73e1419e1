"""When everything in memory is looked at for garbage, and when it is not."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from raftd.garbage import (
    DUE_SECONDS,
    OVERDUE_SECONDS,
    SHORT_LOG_ENTRIES,
    GarbageCollection,
    put_off,
)


class Cycle:
    """Garbage that only the collector finds."""

    freed = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        Cycle.freed += 1


@pytest.fixture
def clock() -> Iterator[list[float]]:
    """Give a clock that a test can set; the collector is as before afterwards."""
    threshold = gc.get_threshold()
    Cycle.freed = 0
    yield [0.0]
    gc.enable()
    gc.set_threshold(*threshold)


def old_garbage() -> None:
    cycle = Cycle()
    for _ in range(3):
        # Among the old objects, which nobody looks at in passing.
        gc.collect()
    del cycle


def test_nothing_is_looked_at_while_a_log_is_read(clock: list[float]) -> None:
    put_off()
    assert not gc.isenabled()
    GarbageCollection(lambda: clock[0])
    assert gc.isenabled()


def test_old_garbage_goes_when_it_is_due_and_the_log_is_short(clock: list[float]) -> None:
    collection = GarbageCollection(lambda: clock[0])
    old_garbage()
    collection.tend(0)
    assert Cycle.freed == 0
    clock[0] = DUE_SECONDS
    collection.tend(SHORT_LOG_ENTRIES)
    assert Cycle.freed == 1


def test_a_long_log_is_waited_for_but_not_for_ever(clock: list[float]) -> None:
    collection = GarbageCollection(lambda: clock[0])
    old_garbage()
    clock[0] = DUE_SECONDS
    collection.tend(SHORT_LOG_ENTRIES + 1)
    assert Cycle.freed == 0
    clock[0] = OVERDUE_SECONDS
    collection.tend(SHORT_LOG_ENTRIES + 1)
    assert Cycle.freed == 1
