"""What raftd is to reach, in relation to others, and what a run says about it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import attrs

from tests.benchmarks.tables import Table


class Verdict(StrEnum):
    """How a measured value stands to its target."""

    AIM = "aim reached"
    REACHED = "reached"
    MISSED = "MISSED"
    UNKNOWN = "not measured"


@attrs.frozen(kw_only=True)
class Target:
    """A row of the table."""

    what: str
    required: float
    """At least that; at most, where lower is better."""
    aim: float | None = None
    lower_is_better: bool = False
    unit: str = "x"

    def verdict(self, measured: float | None) -> Verdict:
        """Return how `measured` stands to it; None is what was not measured."""
        if measured is None:
            return Verdict.UNKNOWN
        if self.aim is not None and self._meets(measured, self.aim):
            return Verdict.AIM
        return Verdict.REACHED if self._meets(measured, self.required) else Verdict.MISSED

    def _meets(self, measured: float, wanted: float) -> bool:
        return measured <= wanted if self.lower_is_better else measured >= wanted


def target_table(name: str, title: str, rows: Iterable[tuple[Target, float | None]]) -> Table:
    """Return a table of targets and of what was measured."""
    table = Table(
        name=name, title=title, columns=["", "at least", "aim", "measured", "", "verdict"]
    )
    for target, measured in rows:
        bound = "<= " if target.lower_is_better else ""
        table.add(
            target.what,
            f"{bound}{target.required:g}",
            f"{bound}{target.aim:g}" if target.aim is not None else None,
            f"{measured:.2f}" if measured is not None else None,
            target.unit,
            str(target.verdict(measured)),
        )
    return table
