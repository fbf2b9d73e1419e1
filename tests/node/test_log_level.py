"""How much is logged, changed while the process runs: who may say it, and for how long it holds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftd.config import ServerConfig, load
from raftd.log_level import PROCESS, LevelOfFile, LogLevel
from raftd.log_level_protocol import LOG_LEVEL_FOR_MS_MAX
from raftd.logs import level, set_level
from raftd.protocol import ErrorReply, LogLevelReply, LogLevelRequest
from tests.node.world import World


@pytest.fixture(autouse=True)
def usual_level() -> Iterator[None]:
    number = logging.getLogger("raftd").level
    set_level("info")
    yield
    PROCESS.set("info", "as before")
    logging.getLogger("raftd").setLevel(number)


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def answered(levels: LogLevel, **request: object) -> LogLevelReply:
    reply = levels.answer(LogLevelRequest(**request))  # type: ignore[arg-type]
    assert isinstance(reply, LogLevelReply), reply
    return reply


def test_any_server_says_at_which_level_it_logs_and_changes_it() -> None:
    world = World()
    server = world.boot("n1")
    assert server.status.log_level == "info"
    reply = world.call(server, LogLevelRequest())
    assert reply == LogLevelReply(level="info", previous="info")
    reply = world.call(server, LogLevelRequest(level="debug"))
    assert reply == LogLevelReply(level="debug", previous="info")
    assert (level(), server.status.log_level) == ("debug", "debug")


def test_a_change_for_a_while_goes_back_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    levels = LogLevel(clock)
    reply = answered(levels, level="debug", for_ms=60_000.0)
    assert (reply.level, reply.back_to, reply.back_in_ms) == ("debug", "info", 60_000.0)
    clock.seconds += 59.9
    levels.tick()
    assert level() == "debug"
    clock.seconds += 0.1
    levels.tick()
    assert level() == "info"
    assert answered(levels).back_to == ""
    words = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert words == [
        "logs at debug from now on, at info until now: for 1m, as was asked",
        "logs at info from now on, at debug until now: as the time is over for which it was to be "
        "otherwise",
    ]


def test_a_change_on_top_of_one_for_a_while_goes_back_to_what_was_before_both() -> None:
    clock = Clock()
    levels = LogLevel(clock)
    answered(levels, level="warning", for_ms=60_000.0)
    assert answered(levels, level="debug", for_ms=10_000.0).back_to == "info"
    clock.seconds += 10.0
    levels.tick()
    assert level() == "info"


def test_a_change_for_good_ends_one_for_a_while() -> None:
    clock = Clock()
    levels = LogLevel(clock)
    answered(levels, level="debug", for_ms=60_000.0)
    assert answered(levels, level="debug").back_to == ""
    clock.seconds += 3600
    levels.tick()
    assert level() == "debug"


def test_a_change_to_less_is_said_before_it_is_in_force(caplog: pytest.LogCaptureFixture) -> None:
    answered(LogLevel(), level="error")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert level() == "error"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (LogLevelRequest(level="loud"), "'loud' is no level; the levels are debug, info"),
        (LogLevelRequest(level="x" * 1000), "is no level"),
        (LogLevelRequest(level="debug", for_ms=-1.0), "0 to "),
        (LogLevelRequest(level="debug", for_ms=LOG_LEVEL_FOR_MS_MAX + 1), "0 to "),
        (LogLevelRequest(level="debug", for_ms=math.nan), "0 to "),
        (LogLevelRequest(for_ms=1.0), "without a level"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(request_: LogLevelRequest, words: str) -> None:
    reply = LogLevel().answer(request_)
    assert isinstance(reply, ErrorReply)
    assert reply.code == "invalid"
    assert words in reply.cause
    assert len(reply.cause) < 200
    assert level() == "info"


def server_of(path: Path, log_level: str) -> ServerConfig:
    path.write_text(
        f"cluster: c\ndefaults: {{log_level: {log_level}}}\n"
        "servers:\n  n1: {address: 127.0.0.1:7101}\n"
    )
    return load(path).servers["n1"]


def test_the_file_that_is_read_again_counts_only_where_it_has_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cluster.yaml"
    followed = LevelOfFile(server_of(path, "info").log_level)
    answered(PROCESS, level="debug")
    # Read again for the sake of something else.
    followed.reload(server_of(path, "info"))
    assert level() == "debug"
    followed.reload(server_of(path, "warning"))
    assert level() == "warning"
    assert "as the cluster file says" in caplog.text
