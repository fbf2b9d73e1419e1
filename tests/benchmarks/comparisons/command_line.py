"""The command line of the comparisons: `python -m tests.benchmarks COMPARISON [options]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.comparisons import fail_over, idle, replacement, side_by_side
from tests.benchmarks.comparisons.catalogue import SYSTEMS
from tests.benchmarks.comparisons.generator import FAILURES, available_drivers, build
from tests.benchmarks.comparisons.points import PointsFile
from tests.benchmarks.comparisons.systems import Stage, System, chosen_systems
from tests.benchmarks.tables import Table, machine

EXIT_OK = 0
EXIT_PROBLEM = 1
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell says it."""
ROUNDS = 3
QUIET_SECONDS = 20.0
CLIENTS = (1, 16, 64, 256)
OPERATIONS = ("put", "get")
VALUE_BYTES = 256
KEYS = 10_000
FOREGROUND_CLIENTS = 16

COMPARISONS = ("side-by-side", "fail-over", "replacement", "idle", "build-generator")
HELP = """\
comparisons, each with --help of its own:
  side-by-side     throughput and latency of raftd and of its peers, in turns (12 minutes)
  fail-over        time without writes after kill -9 of the leader, raftd and etcd (9 minutes)
  replacement      replacing one of three servers, raftd and etcd (8 minutes, 12 GiB)
  idle             processor and memory of servers without clients (4 minutes)
  build-generator  only build the load generator, for runs by hand

A machine on which other processes are busy adds up to --quiet-seconds to each point. What is not
installed is left out, and said.
"""


def say(line: str) -> None:
    """Tell what happens, on standard error."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Do the comparison that is asked for; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], None] = options.run
        run(options)
    except FAILURES as problem:
        say(f"error: {str(problem) or traceback.format_exc()}")
        return EXIT_PROBLEM
    except KeyboardInterrupt:
        say("interrupted; everything that was started has been ended")
        return EXIT_INTERRUPTED
    return EXIT_OK


# --- the comparisons -----------------------------------------------------------------------------


def _side_by_side(options: argparse.Namespace) -> None:
    systems = _systems(options)
    plan = side_by_side.Plan(
        rounds=options.rounds,
        seconds=options.seconds,
        clients=options.clients,
        operations=options.operations,
        keys=options.keys,
        value_bytes=options.value_bytes,
        read_share=options.read_share,
        quiet_seconds=options.quiet_seconds,
    )
    _run(
        options,
        systems,
        lambda stage, points: side_by_side.measure_side_by_side(stage, systems, plan, points),
    )


def _fail_over(options: argparse.Namespace) -> None:
    _run(
        options,
        [SYSTEMS["etcd"], SYSTEMS["raftd"]],
        lambda stage, points: fail_over.measure_fail_over(
            stage, runs=options.runs, quiet_seconds=options.quiet_seconds, points=points
        ),
    )


def _replacement(options: argparse.Namespace) -> None:
    _run(
        options,
        [SYSTEMS["etcd"], SYSTEMS["raftd"]],
        lambda stage, points: replacement.measure_replacement(
            stage,
            [replacement.SIZES[name] for name in options.sizes],
            rounds=options.rounds,
            clients=options.clients,
            quiet_seconds=options.quiet_seconds,
            points=points,
        ),
    )


def _idle(options: argparse.Namespace) -> None:
    systems = _systems(options)
    _run(
        options,
        systems,
        lambda stage, points: idle.measure_idle(
            stage,
            systems,
            seconds=options.seconds,
            keys=options.keys,
            value_bytes=options.value_bytes,
            quiet_seconds=options.quiet_seconds,
            points=points,
        ),
    )


def _build_generator(options: argparse.Namespace) -> None:
    drivers = available_drivers()
    build(options.path.absolute(), drivers)
    print(f"{options.path} {', '.join(['redis', *drivers])}")


def _run(
    options: argparse.Namespace,
    systems: Sequence[System],
    measure: Callable[[Stage, PointsFile], list[Table]],
) -> None:
    description = machine()
    print(description, flush=True)
    versions = {system.name: system.version() for system in systems if system.missing() is None}
    for name, version in versions.items():
        print(f"{name}: {SYSTEMS[name].title} ({version})", flush=True)
    points = PointsFile(options.jsonl)
    points.write("run", {"machine": description, "versions": versions, "options": sys.argv[1:]})
    with Stage(options.dir, say) as stage:
        tables = measure(stage, points)
    for table in tables:
        print(f"\n{table.text()}", flush=True)


def _systems(options: argparse.Namespace) -> list[System]:
    return chosen_systems(SYSTEMS, options.systems, say)


# --- the command line ----------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Compare raftd with its peers. Prints tables.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMPARISON")

    side = _command(commands, "side-by-side", _side_by_side, side_by_side.__doc__)
    _systems_option(side)
    side.add_argument("--rounds", type=_positive, default=ROUNDS, metavar="N", help=f"({ROUNDS})")
    side.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each point (3)")
    side.add_argument(
        "--clients", type=_positive, nargs="+", default=CLIENTS, metavar="N", help="(1 16 64 256)"
    )
    side.add_argument(
        "--operations",
        nargs="+",
        choices=["put", "get", "mixed"],
        default=OPERATIONS,
        help="(put get)",
    )
    side.add_argument(
        "--read-share", type=float, default=0.5, metavar="S", help="gets in a mixed load (0.5)"
    )
    _state_options(side)

    kills = _command(commands, "fail-over", _fail_over, fail_over.__doc__)
    kills.add_argument(
        "--runs", type=_positive, default=fail_over.RUNS, metavar="N", help=f"({fail_over.RUNS})"
    )

    replaced = _command(commands, "replacement", _replacement, replacement.__doc__)
    replaced.add_argument(
        "--rounds", type=_positive, default=ROUNDS, metavar="N", help=f"({ROUNDS})"
    )
    replaced.add_argument(
        "--sizes",
        nargs="+",
        choices=list(replacement.SIZES),
        default=list(replacement.SIZES),
        help="(both)",
    )
    replaced.add_argument(
        "--clients",
        type=_positive,
        default=FOREGROUND_CLIENTS,
        metavar="N",
        help=f"that write meanwhile ({FOREGROUND_CLIENTS})",
    )

    without_load = _command(commands, "idle", _idle, idle.__doc__)
    _systems_option(without_load)
    without_load.add_argument(
        "--seconds",
        type=float,
        default=idle.IDLE_SECONDS,
        metavar="S",
        help=f"({idle.IDLE_SECONDS:g})",
    )
    _state_options(without_load)

    build_only = commands.add_parser("build-generator")
    build_only.add_argument("path", type=Path, help="where the program goes")
    build_only.set_defaults(run=_build_generator)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], None],
    description: str | None,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.set_defaults(run=run)
    command.add_argument("--jsonl", type=Path, metavar="FILE", help="append every point to it")
    command.add_argument(
        "--dir",
        type=_folder,
        metavar="DIR",
        help=f"where the servers' data goes ({tempfile.gettempdir()})",
    )
    command.add_argument(
        "--quiet-seconds",
        type=float,
        default=QUIET_SECONDS,
        metavar="S",
        help=f"wait at most so long until other processes are quiet ({QUIET_SECONDS:g})",
    )
    return command


def _systems_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--systems", nargs="+", choices=list(SYSTEMS), metavar="NAME", help=", ".join(SYSTEMS)
    )


def _state_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--keys", type=_positive, default=KEYS, metavar="N", help=f"({KEYS:,})")
    command.add_argument(
        "--value-bytes", type=_positive, default=VALUE_BYTES, metavar="N", help=f"({VALUE_BYTES})"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is no folder")
    return path
