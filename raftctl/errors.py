"""How a command ends when it does not succeed: an exit code and three lines for people.

The exit codes are part of the interface; scripts rely on them.
"""

from __future__ import annotations

from typing import Any

from raftd.cluster_status.words import bare_command as bare_command
from raftd.cluster_status.words import dialling as dialling
from raftd.cluster_status.words import printable as printable

SENTENCE_COLUMNS_MIN = 20
"""Of an error on a terminal, however narrow that is."""
EXIT_DONE = 0
EXIT_FAILED = 1
"""Impossible, refused by the cluster, or failed with nothing half done."""
EXIT_USAGE = 2
"""A wrong command line or cluster file, or a question that nobody could have answered."""
EXIT_UNREACHABLE = 3
"""No server or no leader was reachable in time; nothing was sent."""
EXIT_STILL_RUNNING = 4
"""Waited long enough; the operation goes on."""
EXIT_UNKNOWN = 5
"""Sent, and nobody could say whether it took effect."""
EXIT_UNSAFE = 6
"""Valid in itself, but a quorum would be lost now."""
EXIT_INTERRUPTED = 130


class CliError(Exception):
    """Ends the command: `raftctl` prints it in the error form and exits with `exit_code`.

    Args:
        message: what happened, without a full stop; printed after `error:`.
        cause: why, with the numbers and the servers.
        hint: what to do next. A line that begins with raftctl or raftd is a command as a whole, to
            be copied; in a sentence a command stands in backticks.
        code: a short word for scripts, as in the JSON form; each class has its own.
        exit_code: one of the `EXIT_` constants; each class has its own.
        operation: the id of the operation that is concerned, if there is one.
    """

    exit_code: int = EXIT_FAILED
    code: str = "failed"

    def __init__(
        self,
        message: str,
        *,
        cause: str = "",
        hint: str = "",
        code: str = "",
        exit_code: int | None = None,
        operation: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.hint = hint
        self.code = code or type(self).code
        self.exit_code = type(self).exit_code if exit_code is None else exit_code
        self.operation = operation

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        body = {
            "code": self.code,
            "message": self.message,
            "cause": self.cause,
            "hint": self.hint,
        }
        if self.operation:
            body["operation"] = self.operation
        return {"error": body}

    def text(self, width: int | None = None) -> str:
        """Return the form for people: up to three labelled parts.

        Args:
            width: columns that a sentence may take; None for no limit. The hint is not broken, so
                that its commands can be copied.
        """
        lines = []
        parts = (("error:", self.message), ("cause:", self.cause), ("  try:", self.hint))
        for label, part in parts:
            # What servers, keys and files are called may hold anything.
            for line in map(printable, part.rstrip("\n").split("\n") if part else ()):
                room = None if width is None or part is self.hint else width - len(label) - 1
                for piece in _pieces(line, room):
                    lines.append(f"{label} {piece}")
                    label = " " * len(label)
        return "\n".join(lines)


def _pieces(line: str, room: int | None) -> list[str]:
    """Return a line in pieces of at most `room` columns, unless a word is longer."""
    if room is None or len(line) <= room:
        return [line]
    import textwrap

    return textwrap.wrap(
        line, max(SENTENCE_COLUMNS_MIN, room), break_long_words=False, break_on_hyphens=False
    )


class Refused(CliError):
    """The cluster will not do it; nothing was changed."""

    exit_code = EXIT_FAILED
    code = "refused"


class UsageProblem(CliError):
    """The command line or the cluster file is wrong; nothing was sent."""

    exit_code = EXIT_USAGE
    code = "usage"


class Unreachable(CliError):
    """No server or no leader answered in time; nothing was changed."""

    exit_code = EXIT_UNREACHABLE
    code = "unreachable"


class StillRunning(CliError):
    """Waited without progress; the operation goes on by itself."""

    exit_code = EXIT_STILL_RUNNING
    code = "still-running"


class OutcomeUnknown(CliError):
    """It may or may not have taken effect, and nobody could say."""

    exit_code = EXIT_UNKNOWN
    code = "unknown-outcome"


class Unsafe(CliError):
    """Valid in itself, but a quorum would be lost with the servers that are reachable."""

    exit_code = EXIT_UNSAFE
    code = "unsafe"


class Interrupted(CliError):
    """Ctrl-C; the message says what goes on without us."""

    exit_code = EXIT_INTERRUPTED
    code = "interrupted"

    def text(self, width: int | None = None) -> str:
        """Return one line: who presses Ctrl-C knows why."""
        return self.message
