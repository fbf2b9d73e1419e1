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
    """One JSON object a line: time, level, logger, server, message."""

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
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _QueueHandler(logging.Handler):
    """Passes records on to the thread that writes; drops them when the queue is full.

    Logging must never hold up a vote.
    """

    def __init__(self, records: queue.Queue[logging.LogRecord | None]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        # The arguments may change before the line is written.
        record.msg, record.args = record.getMessage(), None
        with suppress(queue.Full):
            self._records.put_nowait(record)


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
        level: debug, info, warning or error.
    """
    formatter = TextFormatter(server) if sys.stderr.isatty() else JsonFormatter(server)
    records: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_RECORDS_MAX)
    handler = _QueueHandler(records)
    # A daemon: it may be stuck in a write to a pipe that nobody reads when the process ends.
    writer = threading.Thread(
        target=_write_lines, args=(records, formatter, sys.stderr.fileno()), daemon=True
    )
    root = logging.getLogger("raftd")
    root.setLevel(level.upper())
    root.addHandler(handler)
    writer.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        deadline = time.monotonic() + FLUSH_SECONDS_MAX
        with suppress(queue.Full):
            records.put(None, timeout=FLUSH_SECONDS_MAX)
            writer.join(max(0.0, deadline - time.monotonic()))
