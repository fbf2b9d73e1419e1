"""All measurements of snapshots, catch-up and large states, from the command line.

    python -m tests.benchmarks [--quick] [--only NAME ...] [--rounds N] [--json FILE] [--dir DIR]
    python -m tests.benchmarks side-by-side|fail-over|replacement|idle [options]

The second form compares raftd with its peers, see `tests.benchmarks.comparisons`; the rest of this
is about the first one.

Real servers on 127.0.0.1, with real files and real syncs. What is compared is measured in turns in
the same run. Nothing is judged: the tables are for people, who know what else the machine did.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.bed import Bed
from tests.benchmarks.comparisons.command_line import COMPARISONS
from tests.benchmarks.comparisons.command_line import HELP as COMPARISONS_HELP
from tests.benchmarks.comparisons.command_line import main as compare
from tests.benchmarks.log_size import measure_log_size
from tests.benchmarks.memory import measure_memory
from tests.benchmarks.restarts import measure_restarts
from tests.benchmarks.tables import Table, machine
from tests.benchmarks.writes import measure_full_log, measure_learner, measure_writes

ROUNDS = 3
"""Of what is measured in turns, unless another number is asked for."""
EXIT_OK = 0
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell says it."""
FULL_DISK_BYTES = 20 * 1024**3
QUICK_DISK_BYTES = 2 * 1024**3
"""What the largest measurement takes at its height, generously."""

MEASUREMENTS: dict[str, Callable[[Bed], list[Table]]] = {
    "restart": measure_restarts,
    "writes": measure_writes,
    "full-log": measure_full_log,
    "memory": measure_memory,
    "learner": measure_learner,
    "log-size": measure_log_size,
}
QUICK = tuple(name for name in MEASUREMENTS if name != "full-log")
"""What a quick run does unless it is told: a short log that is full says nothing new."""
HELP = """\
measurements:
  restart   restart, rebuild and catch-up for small and large states; lists in a large one
  writes    latency of steady writes alone, during a snapshot and during a catch-up
  full-log  the same for one snapshot by default settings, when the log is as long as it gets
  memory    anonymous memory of leader, follower and new server: idle, snapshot, install
  learner   what `raftctl add` prints while it brings a server in under load
  log-size  the disk of a server during a day's worth of overwrites, scaled down

The full run takes about 20 minutes and 20 GiB below --dir, which is removed at the end; --quick
takes a state of 50 MB instead of 1 GB, fewer rounds, no full-log, and about 90 seconds. Results
come to standard output, progress to standard error. Exit codes: 0 done, 2 wrong command line,
130 interrupted.
"""


def say(line: str) -> None:
    """Tell what happens, on standard error."""
    print(line, file=sys.stderr, flush=True)


def measure(names: Sequence[str], *, quick: bool, rounds: int, folder: Path | None) -> list[Table]:
    """Do the measurements `names`, print each table when it is there, and return all of them."""
    path = Path(tempfile.mkdtemp(prefix="raftd-benchmark-", dir=folder))
    tables: list[Table] = []
    try:
        bed = Bed(path, say, quick=quick, rounds=rounds)
        for name in names:
            started_s = time.monotonic()
            say(f"== {name}")
            found = MEASUREMENTS[name](bed)
            say(f"   {time.monotonic() - started_s:.0f} s")
            for table in found:
                print(f"\n{table.text()}", flush=True)
            tables += found
    finally:
        shutil.rmtree(path, ignore_errors=True)
    return tables


def main(arguments: Sequence[str]) -> int:
    """Do what is asked for; return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments and arguments[0] in COMPARISONS:
        return compare(arguments)
    options = _parse(arguments)
    description = machine()
    print(description)
    if options.quick:
        print("quick: small states and few rounds; the numbers say little")
    try:
        tables = measure(
            options.only or (QUICK if options.quick else tuple(MEASUREMENTS)),
            quick=options.quick,
            rounds=options.rounds or (1 if options.quick else ROUNDS),
            folder=options.dir,
        )
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED
    if options.json is not None:
        document = {
            "machine": description,
            "quick": options.quick,
            "tables": [table.document() for table in tables],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return EXIT_OK


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure snapshots, catch-up, and what they cost. Prints tables.",
        epilog=f"{HELP}\n{COMPARISONS_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a small state and few rounds")
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), metavar="NAME", default=[])
    parser.add_argument(
        "--rounds", type=int, metavar="N", help=f"of what is measured in turns ({ROUNDS}; quick: 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same numbers there")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="where the data goes (the folder for temporaries)"
    )
    options = parser.parse_args(arguments)
    folder = options.dir if options.dir is not None else Path(tempfile.gettempdir())
    if not folder.is_dir():
        parser.error(f"--dir: {folder} is no folder")
    needed_bytes = QUICK_DISK_BYTES if options.quick else FULL_DISK_BYTES
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        parser.error(
            f"{folder} has {free_bytes / 1024**3:.1f} GiB left, {needed_bytes / 1024**3:.0f} are "
            "needed; choose another folder with --dir"
        )
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
