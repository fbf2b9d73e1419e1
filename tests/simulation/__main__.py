"""Simulated clusters under attack, from the command line.

Each seed draws a cluster, a schedule of faults and of membership changes, and everything else that
may vary; the same seed makes the same run, byte for byte. A run forms its cluster, attacks it while
every invariant is looked at after every step, then heals it and waits for what has to come.

  search   run seeds one after the other, up to the first one that fails
  soak     run many seeds on all cores, and add up what they have met and found
  replay   run one seed again, and tell what has happened in it
  shrink   leave out of a failing seed's schedule what the failure does not need

    python -m tests.simulation soak --time 10m
    python -m tests.simulation replay 17 --trace trace.jsonl --history history.jsonl
    python -m raftd.trace trace.jsonl
    python -m tests.history history.jsonl

The exit code is 0 if nothing was found, 1 if something was, 2 if the command line is wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from raftd.config_values import parse_duration_ms

if TYPE_CHECKING:
    from tests.simulation.report import Schedule
    from tests.simulation.soak import Progress

EXIT_NOTHING_FOUND = 0
EXIT_FOUND = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
SEARCH_SEEDS = 100
SOAK_SEEDS = 1_000
JOBS_MAX = 256
"""More processes than any machine of ours has cores."""
SEEDS_SHOWN = 10
"""Failing seeds in a line of progress."""
SAY_SECONDS = 5.0
"""Between two lines about the progress of a soak."""
_ACT = re.compile(r"m[1-9]\d*")


class UsageProblem(Exception):
    """The command line asks for what there is not; the message says why."""


# --- values of options ---


def _number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is less than {least}")
        return number

    parse.__name__ = "number"
    return parse


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration_ms(text) / 1_000
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"in {text} nothing can be run")
    return seconds


def _steps(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return tuple(sorted({_number(1)(word) for word in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers") from None


def _features(text: str) -> tuple[str, ...]:
    from tests.simulation.shrink import FEATURES

    words = tuple(dict.fromkeys(text.split(",")))
    for word in words:
        if word not in FEATURES and not _ACT.fullmatch(word):
            known = ", ".join(FEATURES)
            raise argparse.ArgumentTypeError(f"{word!r} is none of {known}, m1, m2, ...")
    return words


# --- commands ---


def _search(options: argparse.Namespace, files: ExitStack) -> int:
    from tests.simulation.replay import commands
    from tests.simulation.report import Schedule
    from tests.simulation.search import search

    found = search(options.first_seed, options.seeds, ignored=options.ignore)
    if found.failed is None:
        without = f", without looking at: {', '.join(options.ignore)}" if options.ignore else ""
        print(f"nothing found in {found.seeds_run:,} seeds{without}")
    else:
        seed = found.failed.seed
        print(f"seed {seed} FAILS: {found.failed.property}\n{found.failed.error}")
        print(commands(Schedule(seed=seed, ignored=tuple(options.ignore))))
    if options.json:
        print(json.dumps(found.document()))
    return EXIT_NOTHING_FOUND if found.failed is None else EXIT_FOUND


def _soak(options: argparse.Namespace, files: ExitStack) -> int:
    from tests.simulation.report import summary
    from tests.simulation.soak import Plan, soak

    # Opened first: what many hours have shown must not be lost for a wrong folder.
    json_file = _open(options.json, files)
    seeds = SOAK_SEEDS if options.seeds is None and options.time is None else options.seeds
    plan = Plan(
        first_seed=options.first_seed,
        seeds=seeds,
        seconds=options.time,
        jobs=options.jobs,
        keeps_going=options.keeps_going,
    )
    progress = soak(plan, _say_progress, say_every_s=SAY_SECONDS)
    print(summary(progress.tally))
    print(f"\n{_speed(progress)}{', interrupted' if progress.interrupted else ''}")
    if json_file is not None:
        json.dump(progress.document(), json_file, indent=2)
        json_file.write("\n")
    if progress.tally.failures:
        return EXIT_FOUND
    return EXIT_INTERRUPTED if progress.interrupted else EXIT_NOTHING_FOUND


def _say_progress(progress: Progress) -> None:
    failed = progress.tally.failures
    line = f"{_speed(progress)}, {len(failed):,} failures"
    if failed:
        # At once: a run of hours need not come to its end first.
        line += f" (seeds {', '.join(str(failure.seed) for failure in failed[:SEEDS_SHOWN])})"
    print(line, file=sys.stderr)


def _speed(progress: Progress) -> str:
    minutes, seconds = divmod(round(progress.seconds), 60)
    return (
        f"{progress.tally.seeds:,} seeds in {minutes} min {seconds:02d} s, "
        f"{progress.seeds_per_second:.1f} seeds/s"
    )


def _chosen(options: argparse.Namespace) -> Schedule:
    """Return the run that is meant; end with a usage error if it names steps that do not exist."""
    from tests.simulation.profile import draw
    from tests.simulation.report import Schedule

    steps = {step.number for step in draw(options.seed).steps}
    missing = sorted(set(options.keep or ()) - steps)
    if missing:
        raise UsageProblem(
            f"--keep: seed {options.seed} has the steps 1 to {max(steps, default=0)}, "
            f"not {', '.join(map(str, missing))}"
        )
    return Schedule(
        seed=options.seed,
        kept=options.keep,
        dropped=options.without,
        ignored=tuple(options.ignore),
    )


def _replay(options: argparse.Namespace, files: ExitStack) -> int:
    from tests.simulation.replay import replay, report

    schedule = _chosen(options)
    if options.trace is not None and options.trace == options.history:
        raise UsageProblem(f"--trace and --history: both are {options.trace}")
    history_file = _open(options.history, files)
    replayed = replay(schedule, trace_file=_open(options.trace, files))
    if history_file is not None:
        for event in replayed.outcome.history:
            history_file.write(json.dumps(event, separators=(",", ":")) + "\n")
    print(report(replayed))
    return EXIT_FOUND if replayed.outcome.property else EXIT_NOTHING_FOUND


def _shrink(options: argparse.Namespace, files: ExitStack) -> int:
    from tests.simulation.shrink import report, shrink

    schedule = _chosen(options)
    shrunk = shrink(schedule, budget_seconds=options.budget, say=_say)
    if shrunk is None:
        print(f"nothing to shrink: seed {schedule.seed} does not fail")
        return EXIT_NOTHING_FOUND
    print(report(shrunk))
    return EXIT_FOUND


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _open(path: Path | None, files: ExitStack) -> TextIO | None:
    return None if path is None else files.enter_context(path.open("w", encoding="utf-8"))


# --- the command line ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    search = _command(commands, "search", _search, "Run seeds up to the first one that fails.")
    _first_seed(search)
    _option(search, "--seeds", _number(1), "N", "how many at most", SEARCH_SEEDS)
    _ignore(search)
    search.add_argument(
        "--json",
        action="store_true",
        help="end with one line of JSON: seeds_run, failed_seed, property, error",
    )

    soak = _command(commands, "soak", _soak, "Run many seeds on all cores; Ctrl-C shows so far.")
    _first_seed(soak)
    length = soak.add_mutually_exclusive_group()
    length.add_argument(
        "--seeds", type=_number(1), metavar="N", help=f"how many (default: {SOAK_SEEDS:,})"
    )
    length.add_argument(
        "--time", type=_seconds, metavar="DURATION", help="by the clock: 90s, 10m, 8h"
    )
    _option(soak, "--jobs", _jobs, "N", "processes", os.cpu_count() or 1)
    soak.add_argument(
        "--keep-going",
        dest="keeps_going",
        action="store_true",
        default=True,
        help="show all that fail (default)",
    )
    soak.add_argument(
        "--stop", dest="keeps_going", action="store_false", help="end as soon as one has failed"
    )
    soak.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")

    replay = _command(commands, "replay", _replay, "Run one seed again, and tell about it.")
    _schedule(replay)
    replay.add_argument(
        "--trace", type=Path, metavar="FILE", help="what happened; `python -m raftd.trace FILE`"
    )
    replay.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="what clients saw; `python -m tests.history FILE`",
    )

    shrink = _command(commands, "shrink", _shrink, "Leave out what a failure does not need.")
    _schedule(shrink)
    _option(shrink, "--budget", _seconds, "DURATION", "by the clock", "2m")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace, ExitStack], int],
    description: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, description=description, help=description)
    command.set_defaults(run=run)
    return command


def _option(
    command: argparse.ArgumentParser,
    name: str,
    parse: Callable[[str], object],
    metavar: str,
    text: str,
    default: object,
) -> None:
    command.add_argument(
        name, type=parse, metavar=metavar, default=default, help=f"{text} (default: %(default)s)"
    )


def _first_seed(command: argparse.ArgumentParser) -> None:
    _option(command, "--first-seed", _number(0), "N", "the others follow it", 1)


def _property(text: str) -> str:
    from tests.simulation.invariants.all import ALL

    titles = [kind.title for kind in ALL]
    if text not in titles:
        raise argparse.ArgumentTypeError(f"{text!r} is none of: {', '.join(titles)}")
    return text


def _ignore(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ignore",
        type=_property,
        action="append",
        metavar="PROPERTY",
        default=[],
        help="a property that is not looked at, by its title; may be repeated. Without the one "
        "that states a rule, the harm that breaking the rule does is found",
    )


def _jobs(text: str) -> int:
    return min(_number(1)(text), JOBS_MAX)


def _schedule(command: argparse.ArgumentParser) -> None:
    command.add_argument("seed", type=_number(0), metavar="SEED")
    command.add_argument(
        "--keep",
        type=_steps,
        metavar="3,7,12",
        help="only these steps of its schedule happen; `none`: none of them",
    )
    command.add_argument(
        "--without",
        type=_features,
        metavar="loss,m4",
        default=(),
        help="what does not happen: malice, or m4 for its fourth act, limits, loss, duplication, "
        "reordering; clients for all but one",
    )
    _ignore(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what `arguments` ask for and return the exit code."""
    options = _parser().parse_args(arguments)
    # Nobody reads what simulated servers say, and saying it takes time.
    logging.disable(logging.CRITICAL)
    try:
        with ExitStack() as files:
            return options.run(options, files)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except UsageProblem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    sys.exit(main())
