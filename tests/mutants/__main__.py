"""`python -m tests.mutants`: put one bug after the other into a copy, and see who notices.

For each mutant one line: which property a simulated run has found broken, how many seeds that took,
and which scripted test fails. At the end the kill rate, and what has survived.

Exit codes: 0 every mutant was killed; 1 one has survived; 2 a mutant does not fit the tree, there
is none of that name, or an attempt itself went wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path

from tests.mutants.attack import Attacker, Attempt, Plan, Result, Verdict
from tests.mutants.catalogue import ALL
from tests.mutants.mutant import Mutant, PlaceNotFound
from tests.mutants.workspace import ROOT, Stopped, Workspace, WrongTree

SEEDS_DEFAULT = 100
"""Simulated runs for each mutant at most; most bugs show within a few."""
NAME_WIDTH = 58
PROPERTY_WIDTH = 50
SEEDS_WIDTH = 7
EXIT_SURVIVED = 1
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    try:
        mutants = _chosen(options.names)
        for mutant in mutants:
            mutant.mutated((ROOT / mutant.file).read_text())
    except (LookupError, PlaceNotFound) as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return EXIT_ERROR
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:<{NAME_WIDTH}} {mutant.why}")
        return 0
    plan = Plan(
        tests=not options.simulation_only,
        seeds=0 if options.tests_only else options.seeds,
        ignored=options.ignore or "",
    )
    # As Ctrl-C, so that the copies are removed and no command is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="raftd-mutants-") as folder:
        return _run(mutants, plan, jobs=options.jobs, folder=Path(folder).resolve())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description="Change one line at a time into a bug, and see whether the simulator and the "
        "scripted tests notice.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants; default: all")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1)
    parser.add_argument(
        "--seeds",
        type=_positive,
        default=SEEDS_DEFAULT,
        help="simulated runs for each mutant at most (default: %(default)s)",
    )
    parser.add_argument(
        "--ignore",
        type=_property,
        metavar="PROPERTY",
        default=None,
        help="a property that the simulator does not look at: without the one that states a rule, "
        "it finds the harm that breaking the rule does",
    )
    parser.add_argument("--list", action="store_true", help="print the names, and what they break")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--tests-only", action="store_true", help="no simulation")
    only.add_argument("--simulation-only", action="store_true", help="no scripted tests")
    return parser.parse_args(arguments)


def _property(text: str) -> str:
    from tests.simulation.invariants.all import ALL as PROPERTIES

    titles = [kind.title for kind in PROPERTIES]
    if text not in titles:
        raise argparse.ArgumentTypeError(f"{text!r} is none of: {', '.join(titles)}")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it has to be 1 or more")
    return number


def _chosen(names: Sequence[str]) -> tuple[Mutant, ...]:
    """Return the mutants of these names, all of them if there are none.

    Raises:
        LookupError: there is no such mutant.
    """
    by_name = {mutant.name: mutant for mutant in ALL}
    for name in names:
        if name not in by_name:
            close = get_close_matches(name, by_name, n=1)
            raise LookupError(
                f"there is no mutant {name!r}" + (f"; did you mean {close[0]}?" if close else "")
            )
    return tuple(by_name[name] for name in names) or ALL


def _run(mutants: Sequence[Mutant], plan: Plan, *, jobs: int, folder: Path) -> int:
    tried = [mutant for mutant in mutants if not mutant.equivalent]
    results: list[Result] = []
    executor = ThreadPoolExecutor(jobs)
    workspace = Workspace(folder)
    attacker = Attacker(workspace, plan)
    try:
        if plan.tests:
            _say(f"{len(tried)} mutants; first their tests without any of the bugs")
            tests = tuple(sorted({mutant.test for mutant in tried}))
            attempt = attacker.run_tests(workspace.unchanged, tests)
            if tests and attempt.verdict is not Verdict.SURVIVED:
                print(attempt.details, file=sys.stderr)
                print("error: the tests fail without any mutant", file=sys.stderr)
                return EXIT_ERROR
        _print_row("mutant", "killed by (property)", "seeds", "scripted test that fails")
        futures = [executor.submit(attacker.attack, mutant) for mutant in tried]
        for number, (mutant, future) in enumerate(zip(tried, futures, strict=True), start=1):
            _say(f"{number} of {len(tried)}: {mutant.name}")
            result = future.result()
            results.append(result)
            _print_result(result)
    except (KeyboardInterrupt, Stopped):
        _say("interrupted")
        _print_summary(results, mutants)
        return EXIT_INTERRUPTED
    except (PlaceNotFound, WrongTree) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    finally:
        # Cleaning up takes a moment, and is not to be interrupted a second time.
        for interruption in (signal.SIGINT, signal.SIGTERM):
            signal.signal(interruption, signal.SIG_IGN)
        workspace.stop()
        executor.shutdown(wait=True, cancel_futures=True)
    return _print_summary(results, mutants)


# --- telling ---


def _print_row(name: str, killed_by: str, seeds: str, test: str) -> None:
    print(
        f"{name:<{NAME_WIDTH}} | {killed_by:<{PROPERTY_WIDTH}} | {seeds:>{SEEDS_WIDTH}} | {test}",
        flush=True,
    )


def _print_result(result: Result) -> None:
    simulation, mutant = result.simulation, result.mutant
    seeds = str(simulation.seeds) if simulation.seeds else "-"
    if mutant.unreachable:
        killed_by = "(beyond simulation)"
    else:
        killed_by = simulation.property or _word(simulation)
    test = mutant.test if result.test.verdict is Verdict.KILLED else _word(result.test)
    _print_row(mutant.name, killed_by, seeds, test)
    for attempt in (simulation, result.test):
        if attempt.verdict in (Verdict.CRASH, Verdict.ERROR):
            print(f"{mutant.name}: {attempt.verdict.value}\n{attempt.details}", file=sys.stderr)


def _word(attempt: Attempt) -> str:
    return "-" if attempt.verdict is Verdict.NOT_TRIED else f"({attempt.verdict.value})"


def _print_summary(results: Sequence[Result], mutants: Iterable[Mutant]) -> int:
    """Print the kill rate and what has survived; return the exit code that it deserves."""
    killed = [result for result in results if result.killed]
    simulated = [r for r in results if r.simulation.verdict is not Verdict.NOT_TRIED]
    tested = [r for r in results if r.test.verdict is not Verdict.NOT_TRIED]
    tried = [r for r in results if r in simulated or r in tested]
    print()
    if simulated:
        found = sum(result.simulation.verdict.kills for result in simulated)
        print(f"killed by simulation:      {_rate(found, len(simulated))}")
    if tested:
        failed = sum(result.test.verdict.kills for result in tested)
        print(f"killed by scripted tests:  {_rate(failed, len(tested))}")
    print(f"killed:                    {_rate(len(killed), len(tried))}")
    for result in tried:
        if not result.killed:
            print(f"survived: {result.mutant.name}: {result.mutant.why}")
    for mutant in mutants:
        if mutant.equivalent:
            print(f"equivalent: {mutant.name}: {mutant.equivalent}")
    attempts = [attempt for result in results for attempt in (result.simulation, result.test)]
    if any(attempt.verdict in (Verdict.ERROR, Verdict.CRASH) for attempt in attempts):
        return EXIT_ERROR
    return EXIT_SURVIVED if len(killed) < len(tried) else 0


def _rate(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.1f} %)" if whole else "")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
