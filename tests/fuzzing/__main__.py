"""`python -m tests.fuzzing`: send streams of bytes to every listener of a real server.

Prints for each protocol how many streams and bytes were sent, how long a client that behaves had to
wait at most meanwhile, and what the process took of memory before and after. Exit codes: 0 all
holds; 1 something does not, and the seed of the streams is printed; 2 usage.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzzing.bed import FuzzingBed
from tests.fuzzing.run import GROWTH_BYTES_MAX, PROTOCOLS, Run, run_protocol

MIB = 1024 * 1024


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("protocols", nargs="*", choices=[*PROTOCOLS, []], metavar="PROTOCOL")
    parser.add_argument("--streams", type=int, default=20_000, help="for each protocol")
    parser.add_argument("--seed", type=int, default=1, help="of the first stream")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raftd-fuzzing-") as folder:
        bed = FuzzingBed(Path(folder))
        try:
            for protocol in options.protocols or PROTOCOLS:
                start = time.monotonic()
                run = run_protocol(bed, protocol, first_seed=options.seed, count=options.streams)
                print(line(run, time.monotonic() - start), flush=True)
                if not run.holds:
                    print(
                        f"error: memory grew by more than {GROWTH_BYTES_MAX // MIB} MiB; streams "
                        f"from seed {options.seed} on",
                        file=sys.stderr,
                    )
                    return 1
        except BaseException:
            print(f"error: in {protocol}, streams from seed {options.seed} on", file=sys.stderr)
            print(bed.server.log[-5_000:], file=sys.stderr)
            raise
        finally:
            bed.close()
    return 0


def line(run: Run, seconds: float) -> str:
    """Return the figures of one protocol."""
    figures = run.figures
    return (
        f"{run.protocol:<7} {figures.streams:>8,} streams "
        f"{figures.sent_bytes / MIB:>8,.1f} MiB sent "
        f"{figures.read_bytes / MIB:>8,.1f} MiB read  {figures.cut_by_server:>7,} cut  "
        f"{figures.refused:>5,} refused  others: {figures.asked:,} asked, longest wait "
        f"{figures.longest_wait_seconds * 1000:,.0f} ms  memory {run.before_bytes / MIB:.1f} -> "
        f"{run.after_bytes / MIB:.1f} MiB  {seconds:,.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
