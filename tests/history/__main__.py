"""`python -m tests.history FILE...`: judge histories. The package's docstring says how."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import tests.history
from tests.history.checker import Verdict, check
from tests.history.format import HistoryError, read_events

EXIT_FINE = 0
EXIT_VIOLATION = 1
EXIT_MALFORMED = 2
EXIT_INCOMPLETE = 2
EXIT_OUTPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the files named in `arguments`, print the verdicts, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.history",
        description="Judge client histories: linearizability and exactly-once.",
        epilog=tests.history.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="a JSON-lines history")
    files = parser.parse_args(arguments).files
    # Python has no stream at all in place of a descriptor that was closed before its start.
    if sys.stdout is None:
        print("error: output: standard output is closed", file=sys.stderr)
        return EXIT_OUTPUT
    _escape_what_cannot_be_encoded(sys.stdout)
    exit_code = EXIT_FINE
    try:
        for path in files:
            exit_code = max(exit_code, judge(path))
        sys.stdout.flush()
    except OSError as error:
        # What it still holds would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: output: {error.strerror}", file=sys.stderr)
        return EXIT_OUTPUT
    return exit_code


def _escape_what_cannot_be_encoded(stream: TextIO) -> None:
    """Let a lone surrogate, which JSON can hold and UTF-8 cannot, be printed as its escape."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def judge(path: Path) -> int:
    """Judge one file, print its verdict, return its exit code.

    Raises:
        OSError: the verdict cannot be written.
    """
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
    if verdict.ok:
        return EXIT_FINE
    is_incomplete = verdict.missing == verdict.problems and not verdict.undecided
    return EXIT_INCOMPLETE if is_incomplete else EXIT_VIOLATION


def _summary(verdict: Verdict) -> str:
    judgements = []
    violations = len(verdict.problems) - len(verdict.missing)
    if violations:
        judgements.append(f"VIOLATED ({violations})")
    if verdict.missing:
        judgements.append(f"INCOMPLETE ({len(verdict.missing)})")
    if verdict.undecided:
        judgements.append(f"UNDECIDED ({len(verdict.undecided)})")
    judgement = ", ".join(judgements) or "ok"
    return f"{judgement}: {verdict.operations} operations on {verdict.keys} keys"


if __name__ == "__main__":
    sys.exit(main())
