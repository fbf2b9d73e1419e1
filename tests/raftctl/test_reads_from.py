"""`get` and `list` with --from: one server answers, whether it leads or not."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from raftctl.cli import main
from raftd.protocol import (
    ErrorReply,
    GetReply,
    GetRequest,
    ListReply,
    ListRequest,
    Reply,
    Request,
    StatusRequest,
)
from tests.raftctl.speaking_servers import (
    LOSE,
    Answer,
    SpeakingServer,
    closed_address,
    speaking_servers,
)
from tests.raftctl.status_answers import configuration
from tests.raftctl.status_answers import reply as status_of

VALUE = GetReply(found=True, value=b"new")
UNAVAILABLE = ErrorReply(
    code="unavailable",
    message="the read could not be answered here",
    cause="n2 has applied 3 of 5 entries",
    hint="try again in some seconds; `raftctl status` shows who leads",
)
NOT_LEADER = ErrorReply(
    code="not-leader",
    message="n2 is not the leader",
    cause="the leader of term 5 is n1",
    hint="ask the leader: `raftctl status` shows where it is",
)


def cluster_of(servers: list[SpeakingServer], answers: Callable[[Request], Answer]) -> None:
    """Let n1 and n2 know the members and where they are; only n2 answers reads."""
    addresses = (servers[0].address, servers[1].address, closed_address())
    known = configuration(
        "n1/a n2/b n3/c", addresses=dict(zip(("n1/a", "n2/b", "n3/c"), addresses, strict=True))
    )

    def answer_of(server: SpeakingServer) -> Callable[[Request], Answer]:
        def answer(request: Request) -> Answer:
            if isinstance(request, StatusRequest):
                return status_of(server.server, known)
            return answers(request) if server is servers[1] else LOSE

        return answer

    for server in servers:
        server.answer = answer_of(server)


def reads(server: SpeakingServer) -> list[Request]:
    return [request for request in server.requests if not isinstance(request, StatusRequest)]


def test_the_server_that_is_named_answers_linearizably(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a", "n2/b") as servers:
        cluster_of(servers, lambda request: VALUE)
        # Only n1 is dialled: where n2 is, the cluster says.
        assert main(["get", "k", "--from", "n2", "-e", servers[0].address]) == 0
        assert capsys.readouterr().out == "new"
        assert reads(servers[0]) == []
        assert reads(servers[1]) == [GetRequest(key="k", through_follower=True)]


def test_a_list_goes_on_at_the_same_server(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a", "n2/b") as servers:
        entries = ListReply(revision=7, entries=(), more=True)
        cluster_of(servers, lambda request: entries)
        code = main(["list", "p", "--from", "n2", "-e", servers[0].address, "-o", "json"])
        assert code == 0
        assert json.loads(capsys.readouterr().out)["more"] is True
        assert reads(servers[1]) == [ListRequest(prefix="p", through_follower=True)]


def test_with_stale_it_answers_from_its_own_state_as_it_is() -> None:
    with speaking_servers("n1/a", "n2/b") as servers:
        cluster_of(servers, lambda request: VALUE)
        assert main(["get", "k", "--from", "n2", "--stale", "-e", servers[0].address]) == 0
        assert reads(servers[1]) == [GetRequest(key="k", stale=True, through_follower=True)]


def test_it_asks_again_while_the_server_cannot_answer_yet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a", "n2/b") as servers:
        answers: list[Reply] = [UNAVAILABLE, UNAVAILABLE, VALUE]
        cluster_of(servers, lambda request: answers.pop(0))
        assert main(["get", "k", "--from", "n2", "-e", servers[0].address]) == 0
    assert capsys.readouterr().out == "new"


@pytest.mark.parametrize(
    ("name", "answer", "exit_code", "code", "cause", "hint"),
    [
        ("n2", UNAVAILABLE, 3, "unavailable", "n2 has applied 3 of 5 entries", "raftctl status"),
        ("n2", NOT_LEADER, 1, "not-leader", "the leader of term 5 is n1, and n2", "raftctl get k"),
        ("n2", LOSE, 3, "unreachable", "the connection was lost", "raftctl -e"),
        ("n3", VALUE, 3, "unreachable", "connection refused", "raftctl -e"),
        ("n9", VALUE, 2, "server", "the members are n1, n2 and n3", "raftctl -e"),
    ],
)
def test_what_the_server_cannot_do_is_said_and_no_other_one_answers(
    name: str,
    answer: Answer,
    exit_code: int,
    code: str,
    cause: str,
    hint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a", "n2/b") as servers:
        cluster_of(servers, lambda request: answer)
        words = ["get", "k", "--from", name, "-e", servers[0].address, "--timeout", "300ms"]
        assert main([*words, "-o", "json"]) == exit_code
        error = json.loads(capsys.readouterr().err)["error"]
        assert error["code"] == code
        assert cause in error["cause"]
        assert hint in error["hint"]
        assert "--from" not in error["hint"]
        assert reads(servers[0]) == []
