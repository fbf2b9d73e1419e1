"""`raftctl operation` where nobody answers, nobody leads, or there is much to show."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from raftctl.cli import main
from raftd.protocol import (
    ErrorReply,
    OperationsReply,
    OperationsRequest,
    OperationView,
    Request,
    StatusRequest,
)
from tests.raftctl.speaking_servers import (
    SILENCE,
    Answer,
    SpeakingServer,
    closed_address,
    configuration,
    not_leader,
    operation_record,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")


def timed(*words: str) -> tuple[int, float]:
    started_s = time.monotonic()
    code = main([*words, "--timeout", "1s", "-o", "json"])
    return code, time.monotonic() - started_s


def error_of(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().err)["error"]


@pytest.mark.parametrize("words", ["list", "show", "show op-1", "watch", "watch op-1"])
def test_without_any_server_it_ends_with_3_within_the_time_out(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, took_s = timed("operation", *words.split(), "-e", closed_address())
    assert code == 3
    assert 0.9 < took_s < 1.6
    assert error_of(capsys)["message"] == "no server answered within 1s"


@pytest.mark.parametrize("words", ["list", "watch op-1"])
def test_where_one_says_hello_and_nothing_more_it_takes_no_longer(words: str) -> None:
    with speaking_servers("n1/a") as (server,):
        server.answer = lambda request: SILENCE
        code, took_s = timed("operation", *words.split(), "-e", server.address)
    assert code == 3
    assert took_s < 1.6


def follower_of_nobody(server: SpeakingServer, *views: OperationView) -> None:
    def answer(request: Request) -> Answer:
        if isinstance(request, StatusRequest):
            return status_of(server, role="follower", view=configuration(server))
        if isinstance(request, OperationsRequest):
            wanted = request.operation
            return OperationsReply(
                operations=tuple(v for v in views if wanted in ("", v.record.id))
            )
        return not_leader()

    server.answer = answer


def test_without_a_leader_any_server_shows_its_records_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = operation_record("joining", "joint", "ended", id="op-1", result="done")
    with speaking_servers("n1/a") as (server,):
        follower_of_nobody(server, OperationView(record=record))
        words = ["-e", server.address, "--timeout", "1s"]
        started_s = time.monotonic()
        assert main(["operation", "list", *words]) == 0
        assert time.monotonic() - started_s < 1.5
        shown = capsys.readouterr()
        assert "op-1" in shown.out
        assert "there is no leader; this is the state of one server" in shown.err
        assert main(["operation", "show", "op-2", *words, "-o", "json"]) == 1
        assert "the server that answered, which does not lead," in error_of(capsys)["cause"]


def leading(server: SpeakingServer, count: int, shown: int) -> None:
    """Let `server` know `count` operations, of which only `shown` fit one reply."""
    views = [
        OperationView(record=operation_record("joining", "ended", id=f"op-{number}", result="done"))
        for number in range(1, count + 1)
    ]

    def answer(request: Request) -> Answer:
        if isinstance(request, StatusRequest):
            return status_of(server, role="leader", view=configuration(server))
        if isinstance(request, OperationsRequest):
            if not request.operation:
                return OperationsReply(operations=tuple(views[-shown:]))
            found = [view for view in views if view.record.id == request.operation]
            return OperationsReply(operations=tuple(found))
        return ErrorReply(code="invalid", message="unexpected")

    server.answer = answer


def test_operations_that_do_not_fit_one_reply_are_listed_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a") as (server,):
        leading(server, 30, 4)
        assert main(["operation", "list", "-e", server.address, "-o", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)["operations"]
    assert [each["id"] for each in listed] == [f"op-{number}" for number in range(1, 31)]
