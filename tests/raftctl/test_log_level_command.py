"""`raftctl log-level` and servers that cannot be asked, or do not know the question."""

from __future__ import annotations

import json

import attrs
import pytest

from raftctl.cli import main
from raftd.protocol import LogLevelReply, LogLevelRequest, Request, StatusRequest
from tests.raftctl.speaking_servers import Answer, closed_address, speaking_servers, status_of

pytestmark = pytest.mark.usefixtures("no_surroundings")


def test_a_release_that_cannot_change_its_level_is_not_asked_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a") as (server,):
        status = attrs.evolve(status_of(server, role="blank"), version="0.0.9")
        server.answer = lambda request: status
        assert main(["-e", server.address, "log-level", "debug"]) == 1
        assert [type(request) for request in server.requests] == [StatusRequest]
    told = "its release, 0.0.9, changes its level only with `raftd --log-level`"
    assert told in capsys.readouterr().out


def test_who_does_not_answer_has_a_row_and_the_others_are_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(request: Request) -> Answer:
        if isinstance(request, LogLevelRequest):
            assert (request.level, request.for_ms) == ("debug", 600_000.0)
            return LogLevelReply(
                level="debug", previous="info", back_to="info", back_in_ms=600_000.0
            )
        return attrs.evolve(status_of(server, role="blank"), log_level="info")

    with speaking_servers("n1/a") as (server,):
        server.answer = answer
        nobody = closed_address()
        words = ["-e", f"{server.address},{nobody}", "log-level", "debug", "--for", "10m"]
        assert main([*words, "-o", "json"]) == 1
        rows = json.loads(capsys.readouterr().out)["servers"]
        assert main(words) == 1
    assert [(row["id"], row["level"]) for row in rows] == [(nobody, None), ("n1", "debug")]
    assert "connection refused" in rows[0]["problem"]
    assert "was info; info again in 10m" in capsys.readouterr().out


def test_a_server_that_is_not_there_is_refused_before_any_is_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a") as (server,):
        status = attrs.evolve(status_of(server, role="blank"), log_level="info")
        server.answer = lambda request: status
        words = ["-e", server.address, "log-level", "error", "--server", "n7", "-o", "json"]
        assert main(words) == 1
        assert {type(request) for request in server.requests} == {StatusRequest}
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["message"] == "there is no server n7"
    assert "there are n1; nothing was changed" in error["cause"]


def test_where_nobody_answers_nothing_was_changed() -> None:
    assert main(["-e", closed_address(), "log-level", "-o", "json"]) == 3


@pytest.mark.parametrize("words", [["loud"], ["--for", "10m"], ["debug", "--for", "10"]])
def test_what_makes_no_sense_is_a_usage_error(words: list[str]) -> None:
    assert main(["-e", closed_address(), "log-level", *words]) == 2
