"""`raftctl operation`: list, show, watch and abort, also where nobody answers or leads."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from raftctl import watch as watching
from raftctl.cli import main
from raftd.protocol import (
    AbortRequest,
    ErrorReply,
    OperationsReply,
    OperationsRequest,
    OperationView,
    Request,
    StatusRequest,
)
from tests.raftctl.leading import ENDED, Leader
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


# --- with a leader ----------------------------------------------------------------------------


def test_operation_list_shows_a_line_for_each(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.views = [ENDED]
    assert leader.run("operation", "list") == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["ID", "STATE", "WHAT", "STARTED", "TOOK", "AUTHOR"]
    assert row.startswith("op-1  done   add n4")
    assert "alice@host" in row


def test_operation_show_without_op_means_the_running_one(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    running = OperationView(record=operation_record("catching-up", id="op-8"), step="catching-up")
    answer = leader.answer
    leader.server.answer = lambda request: (
        OperationsReply(operations=(ENDED, running))
        if isinstance(request, OperationsRequest)
        else answer(request)
    )
    assert leader.run("operation", "show", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["id"], document["phase"], document["step"]) == (
        "op-8",
        "catching-up",
        "catching-up",
    )


def test_operation_show_tells_the_story(leader: Leader, capsys: pytest.CaptureFixture[str]) -> None:
    record = operation_record("joining", "ended", result="failed", explanation="n4 is unreachable")
    leader.views = [OperationView(record=record)]
    assert leader.run("operation", "show", "1") == 0
    shown = capsys.readouterr().out
    assert "add n4" in shown
    assert "n4 is unreachable" in shown
    assert "voters n1 n2 n3 n4" in shown


@pytest.mark.parametrize("word", ["show", "abort"])
def test_an_operation_that_does_not_exist_exits_with_1(word: str, leader: Leader) -> None:
    answer = leader.answer
    leader.server.answer = lambda request: (
        OperationsReply(operations=())
        if isinstance(request, OperationsRequest)
        else answer(request)
    )
    assert leader.run("operation", word, "op-99", "-y") == 1


def test_operation_watch_of_an_unknown_one_gives_the_leader_time_to_apply(
    leader: Leader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "UNKNOWN_MS", 100.0)
    asked = 0

    def answer(request: Request) -> Answer:
        nonlocal asked
        if isinstance(request, OperationsRequest):
            asked += 1
            return OperationsReply(operations=())
        return leader.answer(request)

    leader.server.answer = answer
    assert leader.run("operation", "watch", "op-99") == 1
    assert asked > 1
    assert "no operation op-99" in capsys.readouterr().err


def test_abort_sends_who_and_why_and_waits_for_the_end(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    running = OperationView(record=operation_record("catching-up"), step="catching-up")
    aborted = OperationView(record=operation_record("catching-up", "ended", result="aborted"))
    leader.views = [running, aborted]

    assert leader.run("operation", "abort", "-y", "--reason", "wrong server") == 0

    (request,) = [item for item in leader.server.requests if isinstance(item, AbortRequest)]
    assert (request.operation, request.reason, request.session) == ("op-1", "wrong server", "")
    assert request.author.startswith("alice@")
    assert "undone" in capsys.readouterr().err


def test_an_abort_that_comes_too_late_exits_with_1(leader: Leader) -> None:
    leader.views = [OperationView(record=operation_record("joint")), ENDED]
    assert leader.run("operation", "abort", "-y") == 1


def test_abort_of_what_has_ended_is_refused_and_sends_nothing(leader: Leader) -> None:
    leader.views = [ENDED]
    assert leader.run("operation", "abort", "op-1", "-y") == 1
    assert not any(isinstance(request, AbortRequest) for request in leader.server.requests)


def test_abort_asks_first(leader: Leader) -> None:
    assert leader.run("operation", "abort") == 2
    assert leader.server.requests == []


# --- without one, or with much to show --------------------------------------------------------


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
