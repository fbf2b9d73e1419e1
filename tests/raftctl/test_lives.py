"""`put --ttl`, what is shown of lives, and `watch`: what is asked, and what is printed."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest
import yaml

from raftctl.cli import main
from raftctl.commands.watch_keys import WAIT_MS
from raftd.protocol import (
    LIVES_VERSION,
    REVISION_GONE,
    DoneReply,
    ErrorReply,
    EventView,
    GetReply,
    GetRequest,
    ListEntry,
    ListReply,
    OpenSessionRequest,
    Request,
    TransactionReply,
    TransactionRequest,
    WatchReply,
    WatchRequest,
)
from raftd.transactions import SetKey, decode_steps
from raftd.watching import revision_gone
from tests.raftctl.documented import problem_of
from tests.raftctl.speaking_servers import (
    LOSE,
    Answer,
    SpeakingServer,
    not_leader,
    speaking_servers,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")


def run(servers: SpeakingServer | list[SpeakingServer], *words: str) -> int:
    some = servers if isinstance(servers, list) else [servers]
    for server in some:
        server.version = LIVES_VERSION
    return main([*words, "-e", ",".join(server.address for server in some), "--timeout", "5s"])


def event(revision: int, kind: str = "put", key: str = "k", value: bytes = b"v") -> EventView:
    if kind != "put":
        return EventView(revision=revision, kind=kind, key=key)
    return EventView(
        revision=revision,
        kind=kind,
        key=key,
        value=value,
        create_revision=1,
        mod_revision=revision,
        version=revision,
    )


def changes(*events: EventView, after: int = 0, leader: str = "n1/a") -> WatchReply:
    last = events[-1].revision if events else after
    return WatchReply(events=events, next_after_revision=last, revision=last, leader=leader)


# --- put --ttl ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "conditions"),
    [
        ([], ()),
        (["--if-absent"], (("k", 0),)),
        (["--if-revision", "1,042"], (("k", 1042),)),
    ],
)
@pytest.mark.parametrize("applied", [True, False])
def test_a_key_is_set_with_its_life_in_one_step_under_its_condition(
    options: list[str],
    conditions: tuple[tuple[str, int], ...],
    applied: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(request: Request) -> Answer:
        if isinstance(request, OpenSessionRequest):
            return DoneReply()
        return TransactionReply(applied=applied or not conditions, revision=9, outcomes=b"\x90")

    with speaking_servers("n1/a") as [server]:
        server.answer = answer
        code = run(server, "put", "k", "v", "--ttl", "1500ms", *options, "-o", "json")
    assert code == (0 if applied or not conditions else 1)
    request = server.requests[-1]
    assert isinstance(request, TransactionRequest)
    assert (request.serial, request.lowest_unacknowledged) == (1, 1)
    assert decode_steps(request.content) == (conditions, (SetKey("k", b"v", 1500),))
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "key": "k",
        "revision": 9,
        "applied": applied or not conditions,
    }


@pytest.mark.parametrize("ttl", ["0", "0.1ms", "30", "-1s"])
def test_a_life_of_no_length_or_without_a_unit_is_a_mistake(
    ttl: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking_servers("n1/a") as [server]:
        assert run(server, "put", "k", "v", f"--ttl={ttl}") == 2
    assert server.requests == []
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["put", "k", "v", "--ttl", "1s"], ["watch", "--from", "1"]])
def test_servers_that_are_too_old_are_named_as_such_and_asked_nothing(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking_servers("n1/a") as [server]:
        server.version = LIVES_VERSION - 1
        server.answer = lambda request: DoneReply()
        assert main([*words, "-e", server.address, "--timeout", "5s"]) == 1
    printed = capsys.readouterr().err
    assert "no server is of a release that knows this request" in printed
    assert f"it speaks version {LIVES_VERSION - 1} of the protocol" in printed
    assert not any(
        isinstance(request, TransactionRequest | WatchRequest) for request in server.requests
    )


# --- what is shown --------------------------------------------------------------------------


@pytest.mark.parametrize(("ttl_ms", "words"), [(1_500, "it lives for 1.5s more"), (None, "")])
def test_get_tells_what_is_left_of_a_life(
    ttl_ms: int | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = GetReply(found=True, value=b"v", ttl_ms=ttl_ms)
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: reply
        assert run(server, "get", "k", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out)["ttl_ms"] == ttl_ms
        assert run(server, "get", "k", "-o", "wide") == 0
        printed = capsys.readouterr()
        # The value and nothing else stands where it is read.
        assert printed.out == "v"
        assert printed.err.strip() == words


def test_list_has_a_column_for_it_if_asked_for_more(capsys: pytest.CaptureFixture[str]) -> None:
    entries = tuple(
        ListEntry(key=key, value=b"v", create_revision=1, mod_revision=1, version=1, ttl_ms=ttl_ms)
        for key, ttl_ms in (("a", 60_000), ("b", None), ("c", 0))
    )
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: ListReply(revision=1, entries=entries, more=False)
        assert run(server, "list", "-o", "wide") == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert [row[5] for row in rows] == ["TTL", "1m", "-", "0ms"]
        assert run(server, "list") == 0
        assert "TTL" not in capsys.readouterr().out


# --- watch ----------------------------------------------------------------------------------


def test_watch_begins_now_and_goes_on_behind_what_it_has_heard(
    capsys: pytest.CaptureFixture[str],
) -> None:
    replies = [changes(event(6), event(8, "delete")), changes(after=11), changes(event(12))]

    def answer(request: Request) -> Answer:
        if isinstance(request, GetRequest):
            return GetReply(found=False, revision=5)
        return replies.pop(0)

    with speaking_servers("n1/a") as [server]:
        server.answer = answer
        assert run(server, "watch", "orders/", "--limit", "3") == 0
    first, *asked = server.requests
    # Whoever leads confirms the revision: what was acknowledged before does not come.
    assert isinstance(first, GetRequest)
    assert not first.stale
    assert [
        (request.after_revision, request.prefix)
        for request in asked
        if isinstance(request, WatchRequest)
    ] == [(5, "orders/"), (8, "orders/"), (11, "orders/")]
    printed = capsys.readouterr()
    assert [line.split() for line in printed.out.splitlines()] == [
        ["6", "put", "k", "v"],
        ["8", "delete", "k"],
        ["12", "put", "k", "v"],
    ]
    assert printed.err == "watching from revision 6 on; Ctrl-C ends it\n"


def test_watch_from_a_revision_on_has_that_one(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: changes(event(7), event(8))
        assert run(server, "watch", "--from", "7", "--limit", "1") == 0
    (request,) = server.requests
    assert isinstance(request, WatchRequest)
    assert (request.after_revision, request.prefix) == (6, "")
    # Half of --timeout, so that another server has its turn as well.
    assert 0 < request.wait_ms <= min(WAIT_MS, 2_500)
    assert capsys.readouterr().out.split() == ["7", "put", "k", "v"]


def test_every_change_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    events = event(1, value=b"\xff"), event(2, "delete"), event(3, "expired")
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: changes(*events)
        assert run(server, "watch", "--from", "1", "--limit", "3", "-o", "json") == 0
        printed = capsys.readouterr()
        assert run(server, "watch", "--from", "1", "--limit", "3", "-o", "yaml") == 0
    documents = [json.loads(line) for line in printed.out.splitlines()]
    gone = dict.fromkeys(("value", "encoding", "create_revision", "mod_revision", "version"))
    assert documents == [
        {
            "revision": 1,
            "kind": "put",
            "key": "k",
            "value": "/w==",
            "encoding": "base64",
            "create_revision": 1,
            "mod_revision": 1,
            "version": 1,
        },
        {"revision": 2, "kind": "delete", "key": "k", **gone},
        {"revision": 3, "kind": "expired", "key": "k", **gone},
    ]
    assert [problem_of(document, "raftctl watch") for document in documents] == ["", "", ""]
    assert printed.err == ""
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == documents


def test_what_no_server_has_any_more_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: revision_gone(4, 4_182)
        assert run(server, "watch", "--from", "5", "-o", "json") == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == REVISION_GONE
    assert "from revision 5 on are not all kept" in error["message"]
    assert "has revision 4,182" in error["cause"]
    assert " list`" in error["hint"]


def _loses(request: Request) -> Answer:
    return LOSE


def _without_a_leader(request: Request) -> Answer:
    return changes(leader="")


def _busy(request: Request) -> Answer:
    return ErrorReply(code="unavailable", message="too many watch")


@pytest.mark.parametrize("answer", [_loses, _without_a_leader, _busy, lambda _: not_leader()])
def test_another_server_goes_on_where_one_is_gone_or_alone(
    answer: Callable[[Request], Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking_servers("n1/a", "n2/b") as [first, second]:
        first.answer = answer
        second.answer = lambda request: changes(event(2))
        assert run([first, second], "watch", "--from", "1", "--limit", "2") == 0
    assert len(first.requests) == 1
    assert len(second.requests) == 2
    assert capsys.readouterr().out.count("put") == 2


def test_nobody_that_answers_ends_it_after_the_time_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: LOSE
        server.version = LIVES_VERSION
        words = ["watch", "--from", "1", "-e", server.address, "--timeout", "200ms"]
        assert main(words) == 3
    assert "no server answered within" in capsys.readouterr().err


def test_interrupted_it_ends_with_what_was_printed_and_nothing_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(request: Request) -> Answer:
        assert isinstance(request, WatchRequest)
        if request.after_revision == 0:
            return changes(event(1))
        signal.raise_signal(signal.SIGINT)
        return changes(after=1)

    with speaking_servers("n1/a") as [server]:
        server.answer = answer
        assert run(server, "watch", "--from", "1") == 130
    printed = capsys.readouterr()
    assert printed.out.split() == ["1", "put", "k", "v"]
    assert printed.err == "watching from revision 1 on; Ctrl-C ends it\n"


@pytest.mark.parametrize("words", [["--from", "0"], ["--limit", "0"], ["k" * 481]])
def test_what_cannot_be_watched_is_refused_before_anybody_is_asked(words: list[str]) -> None:
    with speaking_servers("n1/a") as [server]:
        assert run(server, "watch", *words) == 2
    assert server.requests == []
