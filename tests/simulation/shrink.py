"""Makes a failing schedule shorter: leaves out what the failure does not need.

Delta debugging (Zeller and Hildebrandt 2002), of which only the complements are tried: a failure
usually needs several things together, which no small part of the schedule has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import attrs

from tests.simulation.profile import SECOND, Step, draw
from tests.simulation.report import Schedule, first_line, headline, shortened
from tests.simulation.run import Outcome
from tests.simulation.search import BROKEN, run_seed, without

T = TypeVar("T")

FEATURES = ("malice", "limits", "loss", "duplication", "reordering", "clients")
"""What a run can do without, beside its steps."""
ROUNDS_MAX = 10
"""Each removes something; usually the second one finds nothing more."""
MALICIOUS_ACTS_MAX = 1_000
BUDGET_SECONDS = 120.0


def smallest(items: Sequence[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """Return items that still fail together, in their order, none of which can be left out.

    `fails(items)` is known. If `fails` begins to say no to everything, this ends soon with the
    best so far.
    """
    if not items or fails([]):
        return []
    current = list(items)
    size = max(1, len(current) // 2)
    while True:
        removed = False
        start = 0
        while start < len(current):
            rest = current[:start] + current[start + size :]
            # Without any was tried at first.
            if rest and fails(rest):
                current, removed = rest, True
            else:
                start += size
        if size == 1 and not removed:
            return current
        size = max(1, size // 2)


@attrs.frozen(kw_only=True)
class Shrunk:
    """A schedule that still fails in the same way."""

    schedule: Schedule
    outcome: Outcome
    runs: int
    """How many were tried."""
    is_minimal: bool
    """Whether nothing else can be left out alone; False if the budget was used up before."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that are left."""
        steps = draw(self.schedule.seed).steps
        kept = self.schedule.kept
        return tuple(step for step in steps if kept is None or step.number in kept)


def shrink(
    schedule: Schedule,
    *,
    budget_seconds: float = BUDGET_SECONDS,
    say: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
) -> Shrunk | None:
    """Return a smaller schedule that fails in the same property; None if this one does not fail.

    Ends with the best so far after `budget_seconds`, and what the run takes that it is in.
    """
    return _Shrinker(schedule, clock() + budget_seconds, say, clock).shrink()


class _Shrinker:
    def __init__(
        self,
        schedule: Schedule,
        deadline: float,
        say: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._best = schedule
        self._deadline = deadline
        self._say = say
        self._clock = clock
        self._runs = 0
        self._outcome: Outcome
        """Of the best."""
        self._tried: dict[Schedule, bool] = {}
        self._is_out_of_time = False

    def shrink(self) -> Shrunk | None:
        first = self._outcome = self._run(self._best)
        if not first.property:
            return None
        self._say(f"{first.property}: {shortened(headline(first), 120)}")
        if self._best.kept is None:
            steps = tuple(step.number for step in draw(self._best.seed).steps)
            self._best = attrs.evolve(self._best, kept=steps)
        for _ in range(ROUNDS_MAX):
            before = self._best
            self._leave_out_features(FEATURES)
            self._leave_out_steps()
            if "malice" not in self._best.dropped:
                self._leave_out_features(self._malicious_acts())
            if self._best == before:
                break
        return Shrunk(
            schedule=self._best,
            outcome=self._outcome,
            runs=self._runs,
            is_minimal=not self._is_out_of_time,
        )

    def _leave_out_steps(self) -> None:
        best = self._best
        assert best.kept is not None
        smallest(best.kept, lambda kept: self._fails(attrs.evolve(best, kept=tuple(kept))))

    def _leave_out_features(self, features: Iterable[str]) -> None:
        best = self._best
        present = [feature for feature in features if feature not in best.dropped]

        def fails(needed: list[str]) -> bool:
            left_out = tuple(feature for feature in present if feature not in needed)
            return self._fails(attrs.evolve(best, dropped=best.dropped + left_out))

        smallest(present, fails)

    def _malicious_acts(self) -> list[str]:
        """Return the names of those that may happen in the best run, and perhaps a few more.

        Each is aimed at a configuration that a leader has appended.
        """
        roles: dict[str, str] = {}
        count = 0

        def emit(line: str) -> None:
            nonlocal count
            event = json.loads(line)
            match event.get("event"):
                case "role":
                    roles[event["server"]] = event["role"]
                case "configuration" if roles.get(event["server"]) == "leader":
                    count += 1
                case "ended":
                    # The process may have ended between the append and its line in the trace.
                    count += roles.pop(event["server"], "") == "leader"

        self._run(self._best, emit)
        return [f"m{number}" for number in range(1, min(count, MALICIOUS_ACTS_MAX) + 1)]

    def _fails(self, schedule: Schedule) -> bool:
        """Return whether `schedule` fails in the same way; if so, it is the best from now on."""
        if schedule not in self._tried:
            if self._clock() >= self._deadline:
                self._is_out_of_time = True
                return False
            outcome = self._run(schedule)
            self._tried[schedule] = _way(outcome) == _way(self._outcome)
            if self._tried[schedule]:
                self._best, self._outcome = schedule, outcome
                self._say(self._progress())
        return self._tried[schedule]

    def _run(self, schedule: Schedule, emit: Callable[[str], None] | None = None) -> Outcome:
        self._runs += 1
        return run_seed(
            schedule.seed,
            kept=schedule.kept,
            dropped=schedule.dropped,
            emit=emit,
            invariants=without(schedule.ignored),
        )

    def _progress(self) -> str:
        best = self._best
        without = f", without {_brief(best.dropped)}" if best.dropped else ""
        return (
            f"{self._runs} runs: {len(best.kept or ())} steps, "
            f"{self._outcome.simulated_us / SECOND:.1f} simulated seconds{without}"
        )


def _way(outcome: Outcome) -> tuple[str, str]:
    """Return in which way a run fails. Another exception is another failure."""
    if outcome.property != BROKEN:
        return outcome.property, ""
    return outcome.property, first_line(outcome.error).partition("(")[0]


def _brief(dropped: Sequence[str]) -> str:
    features = [name for name in dropped if name in FEATURES]
    acts = len(dropped) - len(features)
    return ", ".join([*features, *([f"{acts} malicious acts"] if acts else [])])


def report(shrunk: Shrunk) -> str:
    """Return what is left of a schedule, for people."""
    schedule, outcome = shrunk.schedule, shrunk.outcome
    lines = [
        f"{outcome.property}: {headline(outcome)}",
        f"after {shrunk.runs} runs: {len(shrunk.steps)} of {len(draw(schedule.seed).steps)} steps "
        "are left"
        + ("" if shrunk.is_minimal else "; the budget was used up, so perhaps fewer are needed"),
        *(
            f"  {step.number:>4}  {step.at_us / SECOND:8.3f} s  {step.kind}"
            for step in shrunk.steps
        ),
    ]
    if schedule.dropped:
        lines.append(f"  without {_brief(schedule.dropped)}")
    lines.append(f"again:   {schedule.command('replay')}")
    return "\n".join(lines)
