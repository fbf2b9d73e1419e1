"""Runs a `Playground` whose servers do nothing but live: its care for processes, without a cluster.

    python -m tests.raftctl.playground_of_sleepers RUNTIME_FILE DIRECTORY COUNT

DIRECTORY `-` means a temporary one. A sleeper ends with 70 on SIGUSR1, with 0 on SIGTERM, and one
whose name is n9 does not heed SIGTERM.
"""

from __future__ import annotations

import sys
from pathlib import Path

from raftctl.errors import CliError
from raftctl.playground import Playground

SLEEPER = """
import signal, sys
print("sleeping", *sys.argv[1:], flush=True)
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(70))
signal.signal(signal.SIGTERM, signal.SIG_IGN if "n9" in sys.argv else lambda *_: sys.exit(0))
while True:
    signal.pause()
"""


def main() -> int:
    runtime_file, directory, count = sys.argv[1:]
    try:
        with Playground(
            runtime_file=Path(runtime_file),
            directory=None if directory == "-" else Path(directory),
            servers_count=int(count),
            keep=False,
            report=lambda event: print(event.document(), flush=True),
            program=(sys.executable, "-S", "-c", SLEEPER),
        ) as playground:
            playground.start_all()
            playground.publish()
            print("ready", flush=True)
            playground.serve()
    except CliError as error:
        print(error.text(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
