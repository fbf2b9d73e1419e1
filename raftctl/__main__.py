"""The command line of the admin CLI."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000
"""New objects between two looks for cyclic garbage: most commands end before the first one."""


def main() -> int:
    """Run `raftctl` and return its exit code; Ctrl-C while it is being loaded prints no trace."""
    gc.set_threshold(YOUNG_OBJECTS)
    try:
        from raftctl.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
