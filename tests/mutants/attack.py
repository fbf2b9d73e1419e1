"""What kills a mutant: the simulator's search, and its scripted test."""

from __future__ import annotations

import json
import threading
from enum import Enum
from pathlib import Path
from typing import Any

import attrs

from tests.mutants.mutant import Mutant
from tests.mutants.workspace import Finished, Workspace

TEST_SECONDS_MAX = 150.0
"""For one scripted test: none takes longer than a few seconds without a bug, and pytest's own
limit of 120 s for a test comes first."""
SIMULATION_START_SECONDS_MAX = 60.0
"""For a search without seeds."""
SEED_SECONDS_MAX = 10.0
"""More for each seed. A seed without a bug takes a second or two."""
SEARCH_SEEDS = 2_000
"""Simulated runs at least for a mutant that the simulator has to find."""
HANG_KILLS = True
"""Whether it counts when a time limit above passes: without the bug nothing comes near to one."""
CRASH_KILLS = False
"""Whether it counts when the changed tree does not even start. That is no bug that one has to look
for, and the mutant should be a better one."""


class Verdict(Enum):
    """What came of an attempt to notice a mutant's bug."""

    KILLED = "killed"
    SURVIVED = "survived"
    HANG = "hang"
    """A time limit has passed."""
    CRASH = "crash"
    """The changed tree does not start."""
    ERROR = "error"
    """The attempt itself went wrong; it says nothing about the mutant."""
    NOT_TRIED = "not tried"

    @property
    def kills(self) -> bool:
        """Whether the mutant is caught by it."""
        return (
            self is Verdict.KILLED
            or (self is Verdict.HANG and HANG_KILLS)
            or (self is Verdict.CRASH and CRASH_KILLS)
        )


@attrs.frozen(kw_only=True)
class Attempt:
    """One way to notice a bug, and what came of it."""

    verdict: Verdict
    property: str = ""
    """Which property did not hold, where a simulated run has shown it."""
    seeds: int = 0
    """How many seeds were needed, or were tried in vain."""
    details: str = ""
    """The message of the failure, or why the attempt went wrong."""


NOT_TRIED = Attempt(verdict=Verdict.NOT_TRIED)


@attrs.frozen
class Result:
    """A mutant after everything was tried."""

    mutant: Mutant
    simulation: Attempt = NOT_TRIED
    test: Attempt = NOT_TRIED

    @property
    def killed(self) -> bool:
        """Whether the bug was noticed: by the simulator, if it has to be, else by anything."""
        if self.mutant.found_by_search and self.simulation.verdict is not Verdict.NOT_TRIED:
            return self.simulation.verdict.kills
        return self.simulation.verdict.kills or self.test.verdict.kills


@attrs.frozen(kw_only=True)
class Plan:
    """What is tried."""

    tests: bool = True
    seeds: int = 0
    """How many simulated runs each mutant is given at most; 0 for no simulation."""
    ignored: str = ""
    """A property that the simulator does not look at; empty for none."""


class Attacker:
    """Tries to kill mutants. Used by several threads."""

    def __init__(self, workspace: Workspace, plan: Plan) -> None:
        self._workspace = workspace
        self._plan = plan
        self._lock = threading.Lock()
        self._sound_seeds: dict[int, bool] = {}
        """Whether a seed passes without any bug."""

    def attack(self, mutant: Mutant) -> Result:
        """Try what the plan says on `mutant`.

        Raises:
            Stopped: the workspace was stopped.
        """
        root = self._workspace.mutate(mutant)
        try:
            simulation = test = NOT_TRIED
            if self._plan.seeds and not mutant.unreachable:
                simulation = self._simulate(root, found_by_search=mutant.found_by_search)
            if self._plan.tests:
                test = self.run_tests(root, (mutant.test,))
            return Result(mutant, simulation, test)
        finally:
            self._workspace.discard(root)

    def run_tests(self, root: Path, tests: tuple[str, ...]) -> Attempt:
        """Run scripted tests in the copy at `root` until one fails."""
        finished = self._workspace.run(
            root,
            ["-m", "pytest", "-p", "no:cacheprovider", "-x", "-q", *tests],
            TEST_SECONDS_MAX * len(tests),
        )
        return Attempt(verdict=_test_verdict(finished), details=_tail(finished))

    def _simulate(self, root: Path, *, found_by_search: bool) -> Attempt:
        seeds = self._plan.seeds
        if found_by_search:
            seeds = max(seeds, SEARCH_SEEDS)
        attempt = self._search(root, 1, seeds)
        if attempt.verdict is Verdict.KILLED and not self._is_sound(attempt.seeds):
            return attrs.evolve(
                attempt,
                verdict=Verdict.ERROR,
                details=f"seed {attempt.seeds} fails without the bug too",
            )
        return attempt

    def _is_sound(self, seed: int) -> bool:
        """Return whether `seed` passes in the unchanged tree: else it proves nothing."""
        with self._lock:
            known = self._sound_seeds.get(seed)
        if known is None:
            attempt = self._search(self._workspace.unchanged, seed, 1)
            known = attempt.verdict is Verdict.SURVIVED
            with self._lock:
                self._sound_seeds[seed] = known
        return known

    def _search(self, root: Path, first_seed: int, seeds: int) -> Attempt:
        finished = self._workspace.run(
            root,
            [
                *("-m", "tests.simulation", "search", "--json"),
                *("--first-seed", str(first_seed), "--seeds", str(seeds)),
                *(("--ignore", self._plan.ignored) if self._plan.ignored else ()),
            ],
            SIMULATION_START_SECONDS_MAX + SEED_SECONDS_MAX * seeds,
        )
        return search_result(finished, first_seed, seeds)


def search_result(finished: Finished, first_seed: int, seeds: int) -> Attempt:
    """Return what a search of the simulator has said."""
    if finished.exit_code is None:
        return Attempt(verdict=Verdict.HANG, seeds=seeds, details=_tail(finished))
    if finished.exit_code in (0, 1):
        lines = finished.stdout.strip().splitlines()
        try:
            document: dict[str, Any] = json.loads(lines[-1])
            failed_seed = document["failed_seed"]
            if (failed_seed is None) == (finished.exit_code == 0):
                if failed_seed is None:
                    return Attempt(verdict=Verdict.SURVIVED, seeds=document["seeds_run"])
                return Attempt(
                    verdict=Verdict.KILLED,
                    property=str(document["property"]),
                    seeds=failed_seed - first_seed + 1,
                    details=str(document["error"]),
                )
        except (IndexError, KeyError, TypeError, ValueError):
            pass
    return Attempt(verdict=Verdict.CRASH, details=_tail(finished))


def _test_verdict(finished: Finished) -> Verdict:
    match finished.exit_code:
        case 0:
            return Verdict.SURVIVED
        case 1:
            # Of pytest-timeout, which ends a test that hangs before our own limit does.
            return Verdict.HANG if "Timeout (>" in finished.stdout else Verdict.KILLED
        case 2:
            return Verdict.CRASH
        case None:
            return Verdict.HANG
        case 4 if "ImportError while loading conftest" in finished.stderr:
            return Verdict.CRASH
        case _:
            return Verdict.ERROR


def _tail(finished: Finished) -> str:
    """Return the end of what a command has printed."""
    return (finished.stdout + finished.stderr)[-2_000:]
