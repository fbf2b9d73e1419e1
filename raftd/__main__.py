"""Where the daemon starts."""

from __future__ import annotations

import gc


def main() -> None:
    """Run one server; the exit code of the process is that of contract and sysexits."""
    # Loading makes a hundred thousand objects, of which none is garbage: looking for some would
    # take a tenth of the time. `raftd.garbage` decides when it is looked for from then on.
    gc.disable()
    from raftd.command_line import main as run

    run()


if __name__ == "__main__":
    main()
