"""Chaos on real processes, from the command line.

    python -m tests.chaos [--seed N] [--runs N] [--seconds N] [--servers N]
                          [--network proxy|namespaces] [--keep] [--plan]

Prints what happens as it happens, then a summary. The same seed makes the same schedule. A run that
fails leaves its folder with logs, traces, the history and the output of every raftctl.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.network import enter, inside, why_no_namespaces
from tests.chaos.run import Options, Report, Run
from tests.chaos.summary import summary, total

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
SECONDS_MAX = 600.0
"""Of faults in one run: the history has to be judged in memory."""


def run_once(options: Options, folder: Path) -> Report:
    """Do one run in `folder`, print it as it happens, and write its summary into the folder."""
    print(f"== seed {options.seed}: {len(options.schedule)} actions in {folder}", flush=True)
    with (folder / "events.log").open("w", encoding="utf-8") as log:

        def say(line: str) -> None:
            print(line, flush=True)
            print(line, file=log, flush=True)

        report = Run(options, folder, say).go()
    text = summary(report)
    (folder / "summary.txt").write_text(text + "\n", encoding="utf-8")
    print(text, flush=True)
    return report


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; return the exit code: 0 if every claim held in every run."""
    options = _parse(arguments)
    if options.network == "namespaces" and not inside():
        why = why_no_namespaces()
        if why:
            print(f"error: network namespaces cannot be used here\ncause: {why}", file=sys.stderr)
            return EXIT_USAGE
        enter(arguments)
    reports = []
    for seed in range(options.seed, options.seed + options.runs):
        chosen = Options(
            seed=seed,
            seconds=options.seconds,
            servers=options.servers,
            clients=options.clients,
            network=options.network,
        )
        if options.plan:
            print(*chosen.schedule, sep="\n")
            continue
        folder = Path(tempfile.mkdtemp(prefix=f"raftd-chaos-{seed}-"))
        try:
            report = run_once(chosen, folder)
        except BaseException:
            print(f"  broken off, kept {folder}", flush=True)
            raise
        reports.append(report)
        if report.ok and not options.keep:
            shutil.rmtree(folder)
        else:
            print(f"  kept    {folder}", flush=True)
    if len(reports) > 1:
        print(total(reports), flush=True)
    return EXIT_OK if all(report.ok for report in reports) else EXIT_FAILED


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Attack clusters of real servers, and judge what they do.",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first run (%(default)s)")
    parser.add_argument("--runs", type=int, default=1, help="with following seeds (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=40.0, help="of faults in each run (%(default)s)"
    )
    parser.add_argument(
        "--servers", type=int, default=7, choices=range(5, 8), help="spares included (%(default)s)"
    )
    parser.add_argument("--clients", type=int, default=5, help="at once (%(default)s)")
    parser.add_argument(
        "--network", choices=("proxy", "namespaces"), default="proxy", help="how links are cut"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder of a good run, too")
    parser.add_argument("--plan", action="store_true", help="print the schedule and do nothing")
    options = parser.parse_args(arguments)
    if options.runs < 1 or options.clients < 1 or not 0 < options.seconds <= SECONDS_MAX:
        parser.error(f"runs and clients are at least 1, seconds at most {SECONDS_MAX:g}")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
