"""What servers of a `World` log, line by line, with the server that said it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from tests.node.world import Server


@attrs.frozen
class Line:
    """One line of the log."""

    server: str
    """The name of the server whose turn it was."""
    level: str
    event: str
    """Empty for what is no event."""
    message: str
    fields: dict[str, object]


class Capture(logging.Handler):
    """Takes every line at info level and above."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Line] = []
        self.server = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(
            Line(
                self.server,
                record.levelname.lower(),
                getattr(record, "event", ""),
                record.getMessage(),
                getattr(record, "fields", {}),
            )
        )

    def take(self) -> list[Line]:
        """Return the lines that have come since the last call."""
        lines, self.lines = self.lines, []
        return lines

    def text(self) -> str:
        """Return them as a listing, durations masked, and forget them."""
        return "\n".join(
            f"{line.server} {line.level:<7} {line.event:<14} {masked(line.message)}"
            for line in self.take()
        )


def masked(message: str) -> str:
    """Return a message without the numbers that measure a time."""
    return re.sub(r"[0-9][0-9,.]* m?s\b", "# ms", message)


@contextmanager
def captured() -> Iterator[Capture]:
    """Capture what the servers say that take their turns meanwhile."""
    capture = Capture()
    root = logging.getLogger("raftd")
    level, turn, start = root.level, Server.turn, Server.start

    def named_turn(server: Server, *, tick: bool, count: int | None = None) -> None:
        capture.server = server.name
        turn(server, tick=tick, count=count)

    def named_start(server: Server, *, keeps_state: bool = False) -> None:
        capture.server = server.name
        start(server, keeps_state=keeps_state)

    root.setLevel(logging.INFO)
    root.addHandler(capture)
    Server.turn, Server.start = named_turn, named_start  # type: ignore[method-assign]
    try:
        yield capture
    finally:
        Server.turn, Server.start = turn, start  # type: ignore[method-assign]
        root.removeHandler(capture)
        root.setLevel(level)
