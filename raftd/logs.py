"""Logging to stderr: text for people on a terminal, one JSON object a line for everybody else."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

QUEUE_RECORDS_MAX = 10_000
"""Log lines that wait for a slow reader of stderr; more are dropped, the event loop never waits."""
FLUSH_SECONDS_MAX = 2.0
"""At the end, a reader of stderr has so long to take what is left. Who does not read at all must
not keep the process from ending."""


ROOT = "raftd"
"""The logger above all others: its level is that of the process."""


def level() -> str:
    """Return the least important level that is logged now: debug, info, warning or error."""
    return logging.getLevelName(logging.getLogger(ROOT).level).lower()


def set_level(word: str) -> None:
    """Log what is as important as that from now on; debug, info, warning or error."""
    logging.getLogger(ROOT).setLevel(word.upper())


class TextFormatter(logging.Formatter):
    """`12:00:01.250 n1 info  raftd.node: leads in term 7`."""

    def __init__(self, server: str) -> None:
        super().__init__()
        self._server = server

    def format(self, record: logging.LogRecord) -> str:
        """Return one line for people."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = (
            f"{clock}.{int(record.msecs):03d} {self._server} {record.levelname.lower():<7} "
            f"{record.name}: {record.getMessage()}"
        )
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, server, message.

    An event (`raftd.event_log`) has its kind and its fields behind these.
    """

    def __init__(self, server: str) -> None:
        super().__init__()
        self._server = server

    def format(self, record: logging.LogRecord) -> str:
        """Return one line for programs."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "server": self._server,
            "message": record.getMessage(),
        }
        event = getattr(record, "event", None)
        if event is not None:
            # What every line has stays what it is.
            line |= {"event": event, **getattr(record, "fields", {}), **line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _QueueHandler(logging.Handler):
    """Passes records on to the thread that writes; drops them when the queue is full.

    Logging must never hold up a vote. How many were dropped is said where they are missing.
    """

    def __init__(self, records: queue.Queue[logging.LogRecord | None]) -> None:
        super().__init__()
        self._records = records
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        # The arguments may change before the line is written.
        record.msg, record.args = record.getMessage(), None
        try:
            self.say_what_was_dropped()
            self._records.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def say_what_was_dropped(self, timeout_seconds: float = 0.0) -> None:
        """Queue a line about it, if there is anything to say.

        Raises:
            queue.Full: there is no room for it either.
        """
        if self._dropped:
            message = f"{self._dropped} lines are missing here: stderr was not read fast enough"
            fields = {"event": "dropped", "fields": {"count": self._dropped}}
            record = logging.makeLogRecord(
                {"name": __name__, "levelname": "WARNING", "msg": message, **fields}
            )
            self._records.put(record, block=timeout_seconds > 0, timeout=timeout_seconds or None)
            self._dropped = 0


def _write_lines(
    records: queue.Queue[logging.LogRecord | None], formatter: logging.Formatter, descriptor: int
) -> None:
    """Write records until None comes. Takes no lock that anybody else may wait for at the end."""
    while True:
        record = records.get()
        if record is None:
            return
        line = memoryview((formatter.format(record) + "\n").encode(errors="backslashreplace"))
        try:
            while line:
                line = line[os.write(descriptor, line) :]
        except OSError:
            # Nobody reads stderr any more; the server goes on without it.
            continue


@contextmanager
def logging_to_stderr(server: str, level: str) -> Iterator[None]:
    """Log to stderr from a thread of its own until the context ends, then write what is left.

    Args:
        server: named in every line.
        level: debug, info, warning or error, until it is changed.
    """
    formatter = TextFormatter(server) if sys.stderr.isatty() else JsonFormatter(server)
    records: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_RECORDS_MAX)
    handler = _QueueHandler(records)
    # A daemon: it may be stuck in a write to a pipe that nobody reads when the process ends.
    writer = threading.Thread(
        target=_write_lines, args=(records, formatter, sys.stderr.fileno()), daemon=True
    )
    root = logging.getLogger(ROOT)
    set_level(level)
    root.addHandler(handler)
    writer.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        deadline = time.monotonic() + FLUSH_SECONDS_MAX
        with suppress(queue.Full):
            handler.say_what_was_dropped(FLUSH_SECONDS_MAX)
            records.put(None, timeout=max(0.001, deadline - time.monotonic()))
            writer.join(max(0.0, deadline - time.monotonic()))
