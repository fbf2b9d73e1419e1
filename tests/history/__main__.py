"""`python -m tests.history FILE...`: judge histories. The package's docstring says how."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import tests.history
from tests.history.checker import Verdict, check
from tests.history.format import HistoryError, read_events

EXIT_FINE = 0
EXIT_VIOLATION = 1
EXIT_MALFORMED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the files named in `arguments`, print the verdicts, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.history",
        description="Judge client histories: linearizability and exactly-once.",
        epilog=tests.history.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="a JSON-lines history")
    exit_code = EXIT_FINE
    for path in parser.parse_args(arguments).files:
        exit_code = max(exit_code, judge(path))
    return exit_code


def judge(path: Path) -> int:
    """Judge one file, print its verdict, return its exit code."""
    try:
        verdict = check(read_events(path))
    except OSError as error:
        print(f"{path}: {error.strerror}", file=sys.stderr)
        return EXIT_MALFORMED
    except HistoryError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return EXIT_MALFORMED
    print(f"{path}: {_summary(verdict)}")
    for text in verdict.problems + verdict.undecided:
        print("\n".join(f"  {line}" for line in text.splitlines()))
    return EXIT_FINE if verdict.ok else EXIT_VIOLATION


def _summary(verdict: Verdict) -> str:
    judgements = []
    if verdict.problems:
        judgements.append(f"VIOLATED ({len(verdict.problems)})")
    if verdict.undecided:
        judgements.append(f"UNDECIDED ({len(verdict.undecided)})")
    judgement = ", ".join(judgements) or "ok"
    return f"{judgement}: {verdict.operations} operations on {verdict.keys} keys"


if __name__ == "__main__":
    sys.exit(main())
