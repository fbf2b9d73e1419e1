"""The command line of the daemon: what it is told, and how it is refused."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from raftd import __version__
from raftd.config import LOG_LEVELS, ConfigError, load
from raftd.logs import logging_to_stderr
from raftd.server import EXIT_USAGE, run
from raftd.trace import tracing_to_file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="raftd",
        description="One server of a Raft cluster. With an empty data directory it starts blank "
        "and waits for `raftctl init`, or to be added to a cluster.",
        epilog="Exit codes: 0 stopped by a signal, 2 usage or configuration, 70 removed from the "
        "cluster for good, 74 storage, 1 anything else.",
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="cluster file")
    parser.add_argument("--id", required=True, metavar="ID", help="which server of the file to be")
    parser.add_argument("--data-dir", metavar="DIR", help="instead of the file's")
    parser.add_argument("--log-level", choices=LOG_LEVELS, help="instead of the file's")
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="append what the server does to FILE, one JSON object a line; "
        "`python -m raftd.trace FILE...` prints it",
    )
    parser.add_argument("--version", action="version", version=f"raftd {__version__}")
    return parser


def main() -> None:
    """Run one server; the exit code of the process is that of contract and sysexits."""
    arguments = _parser().parse_args()
    try:
        cluster = load(arguments.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_USAGE)
    server = cluster.servers.get(arguments.id)
    if server is None:
        known = ", ".join(sorted(cluster.servers))
        print(
            f"error: {arguments.config} has no server {arguments.id!r}\n"
            f"cause: it has {known}\n"
            f"  try: raftd --config {arguments.config} --id {sorted(cluster.servers)[0]}",
            file=sys.stderr,
        )
        sys.exit(EXIT_USAGE)
    if arguments.data_dir == "":
        print("error: --data-dir is empty\n  try: --data-dir DIR", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    data_dir = Path(arguments.data_dir).absolute() if arguments.data_dir else server.data_dir
    with ExitStack() as stack:
        stack.enter_context(logging_to_stderr(server.id, arguments.log_level or server.log_level))
        emit = None
        if arguments.trace is not None:
            try:
                emit = stack.enter_context(tracing_to_file(arguments.trace))
            except OSError as error:
                print(
                    f"error: cannot open the trace {arguments.trace}\n"
                    f"cause: {error.strerror or error}\n"
                    "  try: --trace FILE, in a folder that exists and may be written to",
                    file=sys.stderr,
                )
                sys.exit(EXIT_USAGE)
        code = run(cluster, server, data_dir, emit)
    sys.exit(code)
