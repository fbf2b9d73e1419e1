"""The command line of the admin CLI."""

from __future__ import annotations


def main() -> int:
    """Run `raftctl` and return its exit code; Ctrl-C while it is being loaded prints no trace."""
    try:
        from raftctl.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
