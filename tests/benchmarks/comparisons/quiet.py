"""What other processes do meanwhile: waiting for a quiet machine, and taking note where it is not.

On a shared machine numbers of different minutes cannot be compared. A point is measured when the
others are quiet, or after a bounded wait, and says how much of the processors they had.
"""

from __future__ import annotations

import time
from pathlib import Path

import attrs

from tests.benchmarks.comparisons.children import TICKS_PER_SECOND, foreign_seconds

LOOK_SECONDS = 0.4
"""One look at what the others do takes so long."""
QUIET_CORES = 0.15
"""The machine is quiet when the others use less."""
NOISY_CORES = 0.25
"""A point during which the others used more is measured again."""


@attrs.frozen(kw_only=True)
class Noise:
    """What others used, in cores, on average over a stretch of time."""

    foreign_cores: float
    """Processes that this run has not started."""
    stolen_cores: float
    """Processors that the hypervisor gave to other machines."""


class Listening:
    """Takes note of the noise while its block runs; `noise` is there afterwards."""

    noise: Noise

    def __enter__(self) -> Listening:
        self._foreign_s, self._stolen_s = foreign_seconds(), _stolen_seconds()
        self._began_s = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        taken_s = max(time.monotonic() - self._began_s, 1e-6)
        # A foreign process may take the time of children with it that nobody had waited for.
        foreign_s = max(0.0, foreign_seconds() - self._foreign_s)
        self.noise = Noise(
            foreign_cores=foreign_s / taken_s,
            stolen_cores=(_stolen_seconds() - self._stolen_s) / taken_s,
        )


def wait_quiet(limit_seconds: float) -> float:
    """Wait until the others are quiet, at most so long; return the seconds waited."""
    began_s = time.monotonic()
    while True:
        with Listening() as listening:
            time.sleep(LOOK_SECONDS)
        waited_s = time.monotonic() - began_s
        if listening.noise.foreign_cores < QUIET_CORES or waited_s >= limit_seconds:
            return waited_s


def _stolen_seconds() -> float:
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    return int(fields[8]) / TICKS_PER_SECOND
