"""Runs many seeds on all cores, until they are done, time is up, or somebody has seen enough.

Seeds are handed out in small chunks, a few of them ahead, so what waits is bounded and everybody
ends soon after being asked to. A worker that dies takes its chunk with it: this is reported as a
failure, since no run may bring down its interpreter.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from types import FrameType

import attrs

from tests.simulation.report import Failure, Tally
from tests.simulation.search import run_seed

CHUNK_SEEDS = 4
"""A second of work: little beside it is spent on handing it out."""
CHUNKS_AHEAD = 2
"""Handed out for each worker at a time: the one that it runs and the next one."""
FAILURES_MAX = 1_000
"""After so many the rest would tell nothing new."""
DIED = "Worker died"
LOOK_SECONDS = 0.2
"""Between two looks at whether somebody has interrupted us."""
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@attrs.frozen(kw_only=True)
class Plan:
    """What a soak runs."""

    first_seed: int = 1
    seeds: int | None = None
    """None: as many as there is time for."""
    seconds: float | None = None
    """By the clock; None for no limit."""
    jobs: int = 1
    """Processes."""
    keeps_going: bool = True
    """False: no further seeds once one has failed."""


@attrs.define
class Progress:
    """How far a soak has come."""

    tally: Tally = attrs.field(factory=Tally)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def seeds_per_second(self) -> float:
        """By the clock, since the start."""
        return self.tally.seeds / self.seconds if self.seconds else 0.0

    def document(self) -> dict[str, object]:
        """Return everything for JSON."""
        return {
            **self.tally.document(),
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
        }


def soak(plan: Plan, say: Callable[[Progress], None], *, say_every_s: float) -> Progress:
    """Run what `plan` says and return what came of it.

    SIGINT and SIGTERM end it early, with what was done so far. Only in the main thread.

    Args:
        say: gets the progress at the beginning and every `say_every_s` seconds.
    """
    begin = said = time.monotonic()
    progress = Progress()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    chunks = _chunks(plan, begin)
    running: dict[Future[Tally], range] = {}
    with (
        _interruptible(progress),
        ProcessPoolExecutor(
            plan.jobs, mp_context=context, initializer=_begin_worker, initargs=(stop,)
        ) as executor,
    ):
        say(progress)
        while not progress.interrupted and not _has_seen_enough(plan, progress.tally):
            while len(running) < plan.jobs * CHUNKS_AHEAD and (chunk := next(chunks, None)):
                with _signals_held():
                    running[executor.submit(run_chunk, chunk, plan.keeps_going)] = chunk
            if not running:
                break
            done, _ = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
            _collect(progress, running, done)
            progress.seconds = time.monotonic() - begin
            if time.monotonic() - said >= say_every_s:
                said = time.monotonic()
                say(progress)
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)
    _collect(progress, running, {future for future in running if not future.cancelled()})
    progress.seconds = time.monotonic() - begin
    return progress


def _chunks(plan: Plan, begin: float) -> Iterator[range]:
    """Yield the seeds of one chunk after the other until there are enough, or time is up."""
    seed = plan.first_seed
    end = plan.first_seed + plan.seeds if plan.seeds is not None else None
    while end is None or seed < end:
        if plan.seconds is not None and time.monotonic() - begin >= plan.seconds:
            return
        following = seed + CHUNK_SEEDS if end is None else min(seed + CHUNK_SEEDS, end)
        yield range(seed, following)
        seed = following


def _has_seen_enough(plan: Plan, tally: Tally) -> bool:
    found = tally.failures
    if any(failure.property == DIED for failure in found) or len(found) >= FAILURES_MAX:
        return True
    return bool(found) and not plan.keeps_going


def _collect(
    progress: Progress, running: dict[Future[Tally], range], done: set[Future[Tally]]
) -> None:
    """Add the results of chunks that are done, and forget these."""
    lost = []
    for future in done:
        chunk = running.pop(future)
        try:
            progress.tally.merge(future.result())
        except BrokenProcessPool:
            lost.append(chunk)
    if lost:
        lost.sort(key=lambda chunk: chunk[0])
        chunks = ", ".join(f"{chunk[0]} to {chunk[-1]}" for chunk in lost)
        text = f"a process has ended abruptly, at one of the seeds {chunks}"
        progress.tally.failures.append(Failure(seed=lost[0][0], property=DIED, error=text))


@contextmanager
def _interruptible(progress: Progress) -> Iterator[None]:
    """Note SIGINT and SIGTERM in `progress`; only the second one ends everything at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if progress.interrupted:
            raise KeyboardInterrupt
        progress.interrupted = True

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back signals; a process that is started in the block does so for ever.

    A terminal interrupts all processes at once, and workers, which are told what to do by the first
    one, must not die of it while they start.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)


# --- in a worker ---

_stop: Event | None = None


def _begin_worker(stop: Event) -> None:
    global _stop
    _stop = stop
    logging.disable(logging.CRITICAL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the first process does, in whatever way: nobody else would collect the result."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_chunk(seeds: range, keeps_going: bool) -> Tally:
    """Run some seeds; fewer if the soak ends, or one fails and nobody wants more."""
    tally = Tally()
    for seed in seeds:
        if _stop is not None and _stop.is_set():
            break
        tally.add(run_seed(seed))
        if tally.failures and not keeps_going:
            break
    return tally
