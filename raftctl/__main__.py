"""The command line of the admin CLI."""

from __future__ import annotations

from raftctl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
