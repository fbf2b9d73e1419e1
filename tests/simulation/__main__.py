"""Simulated clusters under attack, from the command line; `--help` says what there is."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

EXIT_NOTHING_FOUND = 0
EXIT_FOUND = 1


def _search(options: argparse.Namespace) -> int:
    from tests.simulation.search import search

    found = search(options.first_seed, options.seeds)
    if found.failed is not None:
        print(found.failed.error)
    if options.json:
        print(json.dumps(found.document()))
    return EXIT_NOTHING_FOUND if found.failed is None else EXIT_FOUND


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("search")
    command.add_argument("--first-seed", type=int, default=1)
    command.add_argument("--seeds", type=int, default=100)
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_search)
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
