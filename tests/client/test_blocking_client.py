"""`Client`: what it asks, what it makes of the answers, and what it refuses by itself."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

import raftd.client
from raftd.client import (
    AddTo,
    Client,
    ClientClosed,
    InvalidRequest,
    KeyValue,
    NotApplied,
    Outcome,
    OutcomeUnknown,
    Refused,
    RemoveKey,
    ServerTooOld,
    SessionExpired,
    SetKey,
    UnexpectedReply,
    WriteInterrupted,
    WriteResult,
)
from raftd.client.blocking import Connection
from raftd.protocol import (
    CompareAndSetRequest,
    DeleteRequest,
    DoneReply,
    ErrorReply,
    GetReply,
    GetRequest,
    ListReply,
    OpenSessionRequest,
    PutRequest,
    Request,
    TransactionReply,
    TransactionRequest,
    WriteReply,
)
from raftd.transactions import decode_steps, encode_outcomes
from tests.raftctl.speaking_servers import (
    LOSE,
    SILENCE,
    Answer,
    SpeakingServer,
    closed_address,
    configuration,
    speaking_servers,
    status_of,
)

DONE = WriteReply(applied=True, revision=7)


def _answers(*answers: Answer) -> Callable[[Request], Answer]:
    """Answer the requests that are no session opening one after the other, the last one forever."""
    waiting = list(answers)

    def answer(request: Request) -> Answer:
        if isinstance(request, OpenSessionRequest):
            return DoneReply()
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return answer


def _transacted(*outcomes: Outcome, applied: bool = True) -> TransactionReply:
    return TransactionReply(applied=applied, revision=9, outcomes=encode_outcomes(outcomes))


# --- what is asked ----------------------------------------------------------------------------


def test_each_call_becomes_its_request() -> None:
    with speaking_servers("n1/a") as [server], Client([server.address]) as client:
        server.answer = _answers(DONE)
        assert client.put("k", b"v", if_absent=True) == WriteResult(applied=True, revision=7)
        client.put("k", b"v", if_revision=3)
        client.delete("k")
        client.compare_and_set("k", b"old", b"new")
    _, absent, revision, delete, cas = server.requests
    assert isinstance(absent, PutRequest)
    assert (absent.key, absent.value, absent.if_absent, absent.serial) == ("k", b"v", True, 1)
    assert isinstance(revision, PutRequest)
    assert (revision.if_revision, revision.serial) == (3, 2)
    assert isinstance(delete, DeleteRequest)
    assert isinstance(cas, CompareAndSetRequest)
    assert (cas.expected, cas.value, cas.serial) == (b"old", b"new", 4)


def test_a_key_is_what_the_cluster_says_or_nothing() -> None:
    reply = GetReply(
        found=True, value=b"v", create_revision=1, mod_revision=5, version=3, ttl_ms=900
    )
    with speaking_servers("n1/a") as [server], Client([server.address]) as client:
        server.answer = _answers(reply, GetReply(found=False))
        assert client.get("k") == KeyValue(
            key="k", value=b"v", create_revision=1, mod_revision=5, version=3, ttl_ms=900
        )
        assert client.get("k", stale=True) is None
    assert [r.stale for r in server.requests if isinstance(r, GetRequest)] == [False, True]


def test_a_condition_that_does_not_hold_is_a_result() -> None:
    with speaking_servers("n1/a") as [server], Client([server.address]) as client:
        server.answer = _answers(WriteReply(applied=False, revision=7))
        assert not client.put("k", b"v", if_absent=True).applied
    with speaking_servers("n1/a", version=5) as [server], Client([server.address]) as client:
        server.answer = _answers(_transacted(applied=False))
        assert not client.transaction([RemoveKey("k")], {"k": 3}).applied
        assert not client.put("k", b"v", ttl_ms=5, if_absent=True).applied


def test_what_has_several_parts_is_a_transaction() -> None:
    with speaking_servers("n1/a", version=5) as [server], Client([server.address]) as client:
        server.answer = _answers(_transacted(Outcome(number=42)))
        assert client.increment("n", 2) == 42
        assert client.put("k", b"v", ttl_ms=60_000, if_revision=8).applied
    contents = [
        decode_steps(request.content)
        for request in server.requests
        if isinstance(request, TransactionRequest)
    ]
    assert contents == [
        ((), (AddTo("n", 2),)),
        ((("k", 8),), (SetKey("k", b"v", 60_000),)),
    ]


def test_a_value_that_cannot_be_counted_with_is_left_alone() -> None:
    with speaking_servers("n1/a", version=5) as [server], Client([server.address]) as client:
        server.answer = _answers(_transacted(Outcome(applied=False, code="not-a-number")))
        with pytest.raises(InvalidRequest) as raised:
            client.increment("n")
    assert raised.value.code == "not-a-number"


def test_a_server_that_is_too_old_is_not_asked() -> None:
    with (
        speaking_servers("n1/a", version=4) as [server],
        Client([server.address], timeout_ms=0) as client,
    ):
        server.answer = _answers(DONE)
        with pytest.raises(ServerTooOld, match="version 4 of the protocol, this needs 5"):
            client.increment("n")
        assert client.put("k", b"v").applied
    assert not any(isinstance(request, TransactionRequest) for request in server.requests)


def test_status_is_that_of_the_confirmed_leader() -> None:
    with speaking_servers("n1/a") as [server], Client([server.address]) as client:
        server.answer = lambda request: status_of(server, role="leader", view=configuration(server))
        assert client.status().server == "n1/a"


# --- what is refused at once ------------------------------------------------------------------


def test_what_can_never_be_done_is_refused_without_a_word_to_anybody() -> None:
    with speaking_servers("n1/a") as [server], Client([server.address]) as client:
        for call in (
            lambda: client.get(""),
            lambda: client.get("k" * 481),
            lambda: client.get("\ud800"),
            lambda: client.put("k", b"v" * (1024 * 1024 + 1)),
            lambda: client.put("k", b"v", if_absent=True, if_revision=3),
            lambda: client.put("k", b"v", if_revision=-1),
            lambda: client.put("k", b"v", ttl_ms=0),
            lambda: client.increment("k", 2**63),
            lambda: client.transaction([RemoveKey("k")] * 1025),
            lambda: client.transaction([SetKey("k", b"v" * 1024 * 1024)] * 4),
            lambda: [*client.list("k", page_size=0)],
        ):
            with pytest.raises(InvalidRequest):
                call()
        for wrong in (lambda: client.put("k", "v"), lambda: client.get(b"k")):  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                wrong()
        assert server.requests == []


@pytest.mark.parametrize("addresses", [[], ["nonsense"], "127.0.0.1:7101"])
def test_a_client_needs_addresses(addresses: list[str]) -> None:
    with pytest.raises(ValueError, match=r"address|HOST:PORT"):
        Client(addresses)


def test_a_client_that_is_closed_asks_nobody() -> None:
    with speaking_servers("n1/a") as [server]:
        client = Client([server.address])
        client.close()
        with pytest.raises(ClientClosed):
            client.get("k")
        assert server.requests == []


def test_two_threads_cannot_use_one_client_at_once() -> None:
    with speaking_servers("n1/a") as [server], Client([server.address], timeout_ms=500) as client:
        asked = threading.Event()

        def answer(request: Request) -> Answer:
            asked.set()
            return SILENCE

        server.answer = answer

        def wait() -> None:
            with pytest.raises(NotApplied):
                client.get("k")

        thread = threading.Thread(target=wait)
        thread.start()
        asked.wait(5)
        with pytest.raises(RuntimeError, match="one thread at a time"):
            client.get("k")
        thread.join()


# --- what is unknown --------------------------------------------------------------------------


def test_a_write_without_an_answer_is_settled_by_any_client_and_once() -> None:
    with speaking_servers("n1/a") as [server]:
        with Client([server.address], timeout_ms=300) as client:
            server.answer = _answers(LOSE, ErrorReply(code="unavailable", message="no"))
            with pytest.raises(OutcomeUnknown) as raised:
                client.put("k", b"v")
        with Client([server.address]) as another:
            server.answer = _answers(DONE)
            assert another.settle(raised.value) == WriteResult(applied=True, revision=7)
            asked = len(server.requests)
            assert another.settle(raised.value) == WriteResult(applied=True, revision=7)
            assert len(server.requests) == asked
    puts = [request for request in server.requests if isinstance(request, PutRequest)]
    assert len({repr(put) for put in puts}) == 1


def test_what_settling_finds_to_be_refused_stays_refused() -> None:
    with speaking_servers("n1/a") as [server], Client([server.address], timeout_ms=300) as client:
        server.answer = _answers(LOSE, ErrorReply(code="unavailable", message="no"))
        with pytest.raises(OutcomeUnknown) as raised:
            client.put("k", b"v")
        server.answer = _answers(ErrorReply(code="invalid", message="too long"), DONE)
        for _ in range(2):
            with pytest.raises(Refused, match="too long"):
                client.settle(raised.value)


def test_an_expired_session_can_never_be_settled() -> None:
    with speaking_servers("n1/a") as [server], Client([server.address], timeout_ms=300) as client:
        expired = ErrorReply(code="session-expired", message="the session was forgotten")
        server.answer = _answers(LOSE, expired)
        with pytest.raises(SessionExpired):
            client.put("k", b"v")
        server.answer = _answers(DONE)
        client.put("k", b"v")
    sessions = [r.session for r in server.requests if isinstance(r, OpenSessionRequest)]
    assert len(sessions) == 2


def test_only_writes_can_be_settled() -> None:
    with Client([closed_address()]) as client, pytest.raises(ValueError, match="settled"):
        client.settle(OutcomeUnknown("it was sent", request=None))


def test_an_answer_that_makes_no_sense_leaves_a_write_unknown_and_a_read_not() -> None:
    with speaking_servers("n1/a") as [server], Client([server.address]) as client:
        server.answer = _answers(DoneReply())
        with pytest.raises(UnexpectedReply):
            client.get("k")
        with pytest.raises(OutcomeUnknown, match="instead of a WriteReply"):
            client.put("k", b"v")
        server.answer = _answers(ListReply(revision=1, entries=(), more=True))
        assert [*client.list()] == []


def test_control_c_tells_a_write_that_was_sent_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with speaking_servers("n1/a") as [server], Client([server.address]) as client:
        server.answer = _answers(DONE)
        client.put("k", b"v")

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Connection, "ask", interrupt)
        with pytest.raises(WriteInterrupted):
            client.put("k", b"v")
        with pytest.raises(KeyboardInterrupt) as raised:
            client.get("k")
        assert not isinstance(raised.value, WriteInterrupted)


# --- the package ------------------------------------------------------------------------------


def test_every_name_of_the_package_is_there() -> None:
    for name in raftd.client.__all__:
        assert getattr(raftd.client, name).__name__ == name
    with pytest.raises(AttributeError):
        raftd.client.Nothing  # noqa: B018


def test_the_blocking_client_loads_neither_trio_nor_cattrs_nor_tls() -> None:
    program = (
        "import sys; from raftd.client import Client, OutcomeUnknown; Client(['127.0.0.1:1']); "
        "print([name for name in ('trio', 'cattrs', 'ssl', 'yaml') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_a_server_that_never_answers_is_named_in_the_error() -> None:
    with speaking_servers("n1/a") as [server], Client([server.address], timeout_ms=200) as client:
        assert isinstance(server, SpeakingServer)
        with pytest.raises(NotApplied, match=f"n1 {server.address}: no answer within"):
            client.get("k")
