"""Chaos on real processes, from the command line.

    python -m tests.chaos [--seed N] [--runs N] [--seconds N] [--servers N]
                          [--network proxy|namespaces] [--keep] [--plan]

Prints what happens as it happens, then a summary. The same seed makes the same schedule. A run that
fails leaves its folder with logs, traces, the history and the output of every raftctl.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from tests.chaos.network import enter, inside, why_no_namespaces
from tests.chaos.run import Options, Report, Run
from tests.chaos.summary import summary, total

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_OUTPUT = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell says it."""
EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE, likewise."""
SECONDS_MAX = 600.0
"""Of faults in one run: the history has to be judged in memory."""
HELP = f"""\
exit codes:
  {EXIT_OK}    every claim holds in every run
  {EXIT_FAILED}    a claim does not hold: the folder of the run is kept
  {EXIT_USAGE}    wrong command line, no namespaces to be had, or output that cannot be written
  {EXIT_INTERRUPTED}  interrupted by SIGINT; {EXIT_BROKEN_PIPE}: nobody reads the output any more

networks:
  proxy       needs nothing but free ports of 127.0.0.1; it cuts links in one direction as well
  namespaces  needs Linux with the programs unshare, nsenter and ip, and either root or the right to
              make user namespaces; it takes away interfaces, in both directions
"""


class OutputLost(Exception):
    """What happens cannot be printed any more; its cause is the OSError."""


def tell(line: str) -> None:
    """Print a line at once.

    Raises:
        OutputLost: it cannot be written. An OSError of a cluster or a folder is never taken for it.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        raise OutputLost from error


def complain(line: str) -> None:
    """Print a line on stderr, if anybody takes it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _let_go_of(sys.stderr)


def _let_go_of(stream: TextIO) -> None:
    # What it still holds would fail once more, and be complained about, when the interpreter ends.
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, stream.fileno())
    os.close(descriptor)


def run_once(options: Options, folder: Path) -> Report:
    """Do one run in `folder`, print it as it happens, and write its summary into the folder.

    Raises:
        OutputLost: it cannot be printed any more; no process is left.
    """
    tell(f"== seed {options.seed}: {len(options.schedule)} actions in {folder}")
    with (folder / "events.log").open("w", encoding="utf-8") as log:

        def say(line: str) -> None:
            print(line, file=log, flush=True)
            tell(line)

        report = Run(options, folder, say).go()
    text = summary(report)
    (folder / "summary.txt").write_text(text + "\n", encoding="utf-8")
    tell(text)
    return report


def main(arguments: Sequence[str]) -> int:
    """Do what is asked for; return the exit code: 0 if every claim held in every run."""
    options = _parse(arguments)
    try:
        if options.plan:
            _print_plans(options)
            return EXIT_OK
        if options.network == "namespaces" and not inside():
            why = why_no_namespaces()
            if why:
                complain(f"error: network namespaces cannot be used here\ncause: {why}")
                return EXIT_USAGE
            enter(arguments)
        return _run_all(options)
    except KeyboardInterrupt:
        complain("interrupted")
        return EXIT_INTERRUPTED
    except OutputLost as problem:
        _let_go_of(sys.stdout)
        error = problem.__cause__
        assert isinstance(error, OSError)
        if isinstance(error, BrokenPipeError):
            return EXIT_BROKEN_PIPE
        complain(f"error: output: {error.strerror}")
        return EXIT_OUTPUT


def _chosen(options: argparse.Namespace) -> list[Options]:
    """Return what to do in each run."""
    return [
        Options(
            seed=seed,
            seconds=options.seconds,
            servers=options.servers,
            clients=options.clients,
            network=options.network,
        )
        for seed in range(options.seed, options.seed + options.runs)
    ]


def _print_plans(options: argparse.Namespace) -> None:
    for chosen in _chosen(options):
        if options.runs > 1:
            tell(f"== seed {chosen.seed}: {len(chosen.schedule)} actions")
        tell("\n".join(str(action) for action in chosen.schedule))


def _run_all(options: argparse.Namespace) -> int:
    """Do all runs, print what came of them together, and return the exit code."""
    reports = []
    for chosen in _chosen(options):
        folder = Path(tempfile.mkdtemp(prefix=f"raftd-chaos-{chosen.seed}-"))
        try:
            report = run_once(chosen, folder)
        except BaseException:
            complain(f"  broken off, kept {folder}")
            raise
        reports.append(report)
        if report.ok and not options.keep:
            shutil.rmtree(folder)
        else:
            tell(f"  kept    {folder}")
    if len(reports) > 1:
        tell(total(reports))
    return EXIT_OK if all(report.ok for report in reports) else EXIT_FAILED


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Attack clusters of real servers, and judge what they do.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first run (%(default)s)")
    parser.add_argument("--runs", type=int, default=1, help="with following seeds (%(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=40.0,
        help=f"of faults in each run, at most {SECONDS_MAX:g} (%(default)s)",
    )
    parser.add_argument(
        "--servers", type=int, default=7, choices=range(5, 8), help="spares included (%(default)s)"
    )
    parser.add_argument("--clients", type=int, default=5, help="at once (%(default)s)")
    parser.add_argument(
        "--network",
        choices=("proxy", "namespaces"),
        default="proxy",
        help="how links are cut (%(default)s)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder of a good run, too")
    parser.add_argument("--plan", action="store_true", help="print the schedule and do nothing")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        parser.error("--seed: at least 0")
    if options.runs < 1:
        parser.error("--runs: at least 1")
    if options.clients < 1:
        parser.error("--clients: at least 1")
    if not 0 < options.seconds <= SECONDS_MAX:
        parser.error(f"--seconds: above 0 and at most {SECONDS_MAX:g}")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
