"""Runs seeds one after the other in this process, up to the first one that fails.

A run that does not come to an end is a failure like any other: it is stopped after more processor
time than any run needs.
"""

from __future__ import annotations

import signal
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

import attrs

from tests.simulation.invariants import Invariant
from tests.simulation.invariants.all import ALL
from tests.simulation.report import first_line
from tests.simulation.run import Outcome, simulate

SEED_SECONDS_MAX = 30.0
"""Of processor time, for one run: some hundred times what the usual one takes."""
ENDLESS = "Termination"
"""The property that does not hold if a run takes longer."""
BROKEN = "Exception"
"""The property that does not hold if the simulator itself breaks down."""


class _TooLong(BaseException):
    """Not an Exception: nothing in between may handle it."""


@attrs.frozen(kw_only=True)
class Found:
    """What a search has come to."""

    seeds_run: int
    failed: Outcome | None = None
    """Of the last of these seeds; None if none fails."""

    def document(self) -> dict[str, object]:
        """Return what `search --json` prints."""
        failed = self.failed
        return {
            "seeds_run": self.seeds_run,
            "failed_seed": failed.seed if failed else None,
            "property": failed.property if failed else None,
            "error": first_line(failed.error) if failed else None,
        }


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` in the block once this process has used so much processor time in it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def without(ignored: Collection[str]) -> tuple[type[Invariant], ...]:
    """Return all properties but those with these titles."""
    return tuple(kind for kind in ALL if kind.title not in ignored)


def run_seed(
    seed: int,
    *,
    kept: Collection[int] | None = None,
    dropped: Collection[str] = (),
    emit: Callable[[str], None] | None = None,
    invariants: tuple[type[Invariant], ...] = ALL,
    seconds_max: float = SEED_SECONDS_MAX,
) -> Outcome:
    """Run a seed as `simulate` does, but always return: it is stopped if it takes too long.

    In the main thread only, since it needs a timer of processor time.
    """
    try:
        with _stopped_after(seconds_max):
            return simulate(seed, kept=kept, dropped=dropped, emit=emit, invariants=invariants)
    except _TooLong:
        where = traceback.format_exc()
        text = f"the run has not ended after {seconds_max:g} s of processor time\n{where}"
        return _no_outcome(seed, ENDLESS, text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return _no_outcome(seed, BROKEN, f"{error!r}\n{traceback.format_exc()}")


def _no_outcome(seed: int, property: str, error: str) -> Outcome:
    return Outcome(
        seed=seed,
        property=property,
        error=error,
        hash="",
        simulated_us=0,
        events=0,
        counted=Counter(),
        trace=(),
        history=(),
    )


def search(first_seed: int, seeds: int, *, ignored: Collection[str] = ()) -> Found:
    """Run the seeds from `first_seed` on, `seeds` of them, until one fails.

    Args:
        ignored: titles of properties that are not looked at. Without the one that states a rule,
            a search shows the harm that breaking the rule does.
    """
    invariants = without(ignored)
    for number in range(seeds):
        outcome = run_seed(first_seed + number, invariants=invariants)
        if outcome.property:
            return Found(seeds_run=number + 1, failed=outcome)
    return Found(seeds_run=seeds)
