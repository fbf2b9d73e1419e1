"""Logging to stderr: text for people on a terminal, one JSON object a line for everybody else."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

QUEUE_RECORDS_MAX = 10_000
"""Log lines that wait for a slow reader of stderr; more are dropped, the event loop never waits."""


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


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """Drops records when the queue is full: logging must never hold up a vote."""

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


@contextmanager
def logging_to_stderr(server: str, level: str) -> Iterator[None]:
    """Log to stderr from a thread of its own until the context ends, then write what is left.

    Args:
        server: named in every line.
        level: debug, info, warning or error.
    """
    stream = logging.StreamHandler(sys.stderr)
    formatter = TextFormatter(server) if sys.stderr.isatty() else JsonFormatter(server)
    stream.setFormatter(formatter)
    records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_RECORDS_MAX)
    handler = _DroppingQueueHandler(records)
    listener = logging.handlers.QueueListener(records, stream)
    root = logging.getLogger("raftd")
    root.setLevel(level.upper())
    root.addHandler(handler)
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        listener.stop()
