"""Medians, percentiles, and ratios of what was measured in the same round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import attrs


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least a share of all does not exceed; -1 of none.

    Args:
        ordered: ascending.
        share: 0 to 1.
    """
    if not ordered:
        return -1.0
    rank = -int(-share * len(ordered) // 1)
    return ordered[min(len(ordered), max(1, rank)) - 1]


@attrs.frozen(kw_only=True)
class Ratio:
    """The ratios of all rounds, summed up."""

    median: float
    lowest: float
    highest: float
    rounds: int

    def text(self) -> str:
        """Return it for a table."""
        if self.rounds == 1:
            return f"{self.median:.2f}"
        return f"{self.median:.2f} [{self.lowest:.2f}-{self.highest:.2f}]"


def ratio_of(measured: Mapping[int, float], base: Mapping[int, float]) -> Ratio | None:
    """Return how the values of rounds compare with those of the same rounds of something else.

    What the machine did to a round it did to both, so the median of ratios is steadier than the
    ratio of medians. None: there is no round with both.
    """
    found = [
        measured[number] / base[number] for number in sorted(measured) if base.get(number, 0.0) > 0
    ]
    if not found:
        return None
    return Ratio(
        median=statistics.median(found),
        lowest=min(found),
        highest=max(found),
        rounds=len(found),
    )


def best_of(candidates: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Return the highest value of each round."""
    best: dict[int, float] = {}
    for values in candidates:
        for number, value in values.items():
            best[number] = max(value, best.get(number, value))
    return best
