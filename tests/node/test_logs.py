"""Lines on stderr: for programs, for people on a terminal, and for nobody who reads them."""

from __future__ import annotations

import json
import logging
import os
import pty
import sys
import threading
import time
from collections.abc import Callable

import pytest

from raftd import logs
from raftd.event_log import tell
from raftd.logs import logging_to_stderr

logger = logging.getLogger("raftd.test")


class Descriptor:
    """A stderr that writes to a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


def written_to(
    ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch, log: Callable[[], None], **more: str
) -> str:
    """Return what `log` writes to the second of `ends`, read from the first."""
    reader, writer = ends
    monkeypatch.setattr(sys, "stderr", Descriptor(writer))
    try:
        with logging_to_stderr("n1", **{"level": "info"} | more):
            log()
        return os.read(reader, 65_536).decode()
    finally:
        os.close(reader)
        os.close(writer)


def test_off_a_terminal_each_line_is_one_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def log() -> None:
        logger.info("leads in term %d", 7)
        logger.warning("ein Wort: %s", "grün\nzwei")

    lines = [json.loads(line) for line in written_to(os.pipe(), monkeypatch, log).splitlines()]
    assert [line["message"] for line in lines] == ["leads in term 7", "ein Wort: grün\nzwei"]
    assert [line["level"] for line in lines] == ["info", "warning"]
    assert {line["server"] for line in lines} == {"n1"}
    assert {line["logger"] for line in lines} == {"raftd.test"}
    assert all(line["time"].endswith("Z") and "T" in line["time"] for line in lines)


def test_an_event_has_its_kind_and_fields_beside_the_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def log() -> None:
        tell(logger, "leader", "leads in term %d", 7, term=7, votes=["n1/a"], server="forged")

    line = json.loads(written_to(os.pipe(), monkeypatch, log))
    assert (line["message"], line["event"]) == ("leads in term 7", "leader")
    assert (line["term"], line["votes"]) == (7, ["n1/a"])
    # What every line has stays what it is.
    assert line["server"] == "n1"
    assert list(line)[:5] == ["time", "level", "logger", "server", "message"]


def test_an_exception_is_a_field_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def log() -> None:
        try:
            raise ValueError("why")
        except ValueError:
            logger.exception("it failed")

    line = json.loads(written_to(os.pipe(), monkeypatch, log))
    assert line["message"] == "it failed"
    assert line["exception"].endswith("ValueError: why")


def test_on_a_terminal_lines_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written_to(pty.openpty(), monkeypatch, lambda: logger.info("leads in term %d", 7))
    assert text.rstrip("\r\n").endswith("n1 info    raftd.test: leads in term 7")
    assert "{" not in text


def test_lines_below_the_level_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def log() -> None:
        logger.info("quiet")
        logger.error("loud")

    text = written_to(os.pipe(), monkeypatch, log, level="warning")
    assert "loud" in text
    assert "quiet" not in text


def test_a_message_is_written_as_it_was_when_it_was_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changing = ["before"]

    def log() -> None:
        logger.info("it is %s", changing)
        changing[0] = "after"

    assert "before" in written_to(os.pipe(), monkeypatch, log)


def fill_pipe() -> tuple[int, int]:
    """Return a pipe that takes nothing more until somebody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b" " * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return reader, writer


def test_a_reader_that_stands_still_holds_up_neither_the_logging_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "QUEUE_RECORDS_MAX", 10)
    monkeypatch.setattr(logs, "FLUSH_SECONDS_MAX", 0.05)
    reader, writer = fill_pipe()
    monkeypatch.setattr(sys, "stderr", Descriptor(writer))
    threads = set(threading.enumerate())
    started = time.monotonic()
    with logging_to_stderr("n1", "info"):
        for number in range(1000):
            logger.info("line %d", number)
    assert time.monotonic() - started < 5
    (stuck,) = set(threading.enumerate()) - threads
    assert stuck.daemon
    # Nobody reads any more: the write fails, and the thread goes on to what is left.
    os.close(reader)
    monkeypatch.undo()
    os.close(writer)


def test_of_too_many_lines_the_first_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "QUEUE_RECORDS_MAX", 10)
    reader, writer = fill_pipe()
    monkeypatch.setattr(sys, "stderr", Descriptor(writer))
    received = b""
    with logging_to_stderr("n1", "info"):
        for number in range(1000):
            logger.info("line %d", number)
        while b"line 5" not in received:
            received += os.read(reader, 65_536)
    os.close(writer)
    while chunk := os.read(reader, 65_536):
        received += chunk
    os.close(reader)
    assert b"line 0" in received
    assert b"line 999" not in received
    lines = [json.loads(line) for line in received.decode().split("\n") if line.strip()]
    missing = [line for line in lines if line.get("event") == "dropped"]
    assert {line["level"] for line in missing} == {"warning"}
    assert sum(line["count"] for line in missing) == 1000 - (len(lines) - len(missing))
