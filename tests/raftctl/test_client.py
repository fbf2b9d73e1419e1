"""The blocking client: finding the leader, exactly-once writes, what each failure means."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import attrs
import pytest

from raftctl.client import Cluster, Connection, ConnectionProblem, Deadline, expect
from raftctl.endpoints import Endpoints
from raftctl.errors import OutcomeUnknown, Refused, Unreachable, Unsafe
from raftd.codec import encode_frame, encode_opening
from raftd.protocol import (
    ChangeRequest,
    DoneReply,
    ErrorReply,
    GetReply,
    GetRequest,
    Hello,
    MemberChange,
    OpenSessionRequest,
    OperationsReply,
    OperationsRequest,
    OperationView,
    PutRequest,
    Refusal,
    Request,
    StatusRequest,
    TransferRequest,
    WriteReply,
)
from tests.raftctl.speaking_servers import (
    LOSE,
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

FOUND = GetReply(found=True, value=b"v")
GET = GetRequest(key="k")


def _cluster(
    *addresses: str | SpeakingServer,
    timeout_ms: float = 5_000,
    notice: Callable[[str], None] = lambda text: None,
) -> Cluster:
    dialled = tuple(at if isinstance(at, str) else at.address for at in addresses)
    endpoints = Endpoints(
        addresses=dialled,
        names={address: f"n{number}" for number, address in enumerate(dialled, 1)},
        source="a test",
    )
    return Cluster(endpoints, timeout_ms=timeout_ms, notice=notice)


def _put(session: str, serial: int, lowest: int) -> PutRequest:
    return PutRequest(
        session=session, serial=serial, lowest_unacknowledged=lowest, key="k", value=b"v"
    )


def _answers(*answers: Answer) -> Callable[[Request], Answer]:
    """Answer the requests that are no session opening one after the other, the last one forever."""
    waiting = list(answers)

    def answer(request: Request) -> Answer:
        if isinstance(request, OpenSessionRequest):
            return DoneReply()
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return answer


# --- one connection ---------------------------------------------------------------------------


def test_a_connection_knows_who_answered() -> None:
    with speaking_servers("n1/a", cluster_id="c7") as [server]:
        connection = Connection.open(server.address, Deadline.after_ms(5_000))
        connection.close()
    assert (connection.server, connection.cluster_id) == ("n1/a", "c7")


def test_a_closed_port_is_connection_refused() -> None:
    with pytest.raises(ConnectionProblem, match="connection refused") as raised:
        Connection.open(closed_address(), Deadline.after_ms(5_000))
    assert (raised.value.kind, raised.value.sent) == ("refused", False)


@pytest.fixture
def stranger() -> Iterator[Callable[[bytes], str]]:
    """Starts a listener that sends some bytes to whoever connects, and closes."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(greeting: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        threads.append(thread)
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for thread in threads:
        thread.join()
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x04\x00\x00\x00ABCD",
        b"\xff\xff\xff\xff",
        encode_frame(encode_opening(Hello(role="client", cluster_id="", source="", dest=""))),
    ],
    ids=["closed", "http", "garbage", "huge", "a client"],
)
def test_something_else_that_listens_is_told_apart(
    greeting: bytes, stranger: Callable[[bytes], str]
) -> None:
    with pytest.raises(ConnectionProblem) as raised:
        Connection.open(stranger(greeting), Deadline.after_ms(5_000))
    assert raised.value.kind == "not-raftd"


def test_a_refused_greeting_says_why() -> None:
    with speaking_servers("n1/a") as [server]:
        server.refusal = Refusal(code="version", message="only version 9 is spoken here")
        with pytest.raises(ConnectionProblem, match="only version 9") as raised:
            Connection.open(server.address, Deadline.after_ms(5_000))
    assert raised.value.kind == "refusal"


def test_a_silent_server_costs_no_more_than_the_deadline() -> None:
    with speaking_servers("n1/a") as [server]:
        connection = Connection.open(server.address, Deadline.after_ms(5_000))
        with pytest.raises(ConnectionProblem, match="no answer within") as raised:
            connection.ask(StatusRequest(), Deadline.after_ms(50))
    assert (raised.value.kind, raised.value.sent) == ("timed-out", True)


def test_a_host_name_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConnectionProblem, match=r"no-such-host\.invalid"):
        Connection.open("no-such-host.invalid:7101", Deadline.after_ms(5_000))


# --- finding the leader -----------------------------------------------------------------------


def test_the_next_server_is_asked_when_one_is_down() -> None:
    with speaking_servers("n2/b") as [server], _cluster(closed_address(), server) as cluster:
        server.answer = lambda request: FOUND
        assert cluster.ask(GET) == FOUND


def test_a_follower_points_at_a_leader_that_the_file_does_not_have() -> None:
    with speaking_servers("n1/a", "n9/i") as [follower, leader], _cluster(follower) as cluster:
        follower.answer = lambda request: not_leader(leader)
        leader.answer = lambda request: FOUND
        assert cluster.ask(GET) == FOUND
        assert cluster.addresses == (follower.address, leader.address)
        assert cluster.names[leader.address] == "n9"


def test_the_leader_is_asked_first_the_next_time() -> None:
    with speaking_servers("n1/a", "n2/b") as servers, _cluster(*servers) as cluster:
        follower, leader = servers
        follower.answer = lambda request: not_leader(leader)
        leader.answer = lambda request: FOUND
        cluster.ask(GET)
        cluster.ask(GET)
    assert len(follower.requests) == 1
    assert len(leader.requests) == 2


def test_it_waits_while_there_is_no_leader() -> None:
    with speaking_servers("n1/a") as [server], _cluster(server) as cluster:
        unavailable = ErrorReply(code="unavailable", message="an election is on")
        server.answer = _answers(not_leader(), unavailable, FOUND)
        assert cluster.ask(GET) == FOUND
    assert len(server.requests) == 3


def test_two_followers_that_point_at_each_other_do_not_loop() -> None:
    with speaking_servers("n1/a", "n2/b") as servers, _cluster(*servers) as cluster:
        one, two = servers
        one.answer = lambda request: not_leader(two)
        two.answer = _answers(not_leader(one), not_leader(one), FOUND)
        assert cluster.ask(GET) == FOUND
    assert len(one.requests) <= 3


def test_the_members_of_a_configuration_outlive_the_servers_of_the_file() -> None:
    with speaking_servers("n1/a", "n4/d") as [old, new], _cluster(old) as cluster:
        status = status_of(old, role="leader", view=configuration(old, new))
        old.answer = lambda request: status
        new.answer = lambda request: FOUND
        cluster.ask(StatusRequest())
        old.close()
        assert cluster.ask(GET) == FOUND


def test_leader_status_passes_over_followers_and_deposed_leaders() -> None:
    with speaking_servers("n1/a", "n2/b", "n3/c") as servers, _cluster(*servers) as cluster:
        deposed, follower, leader = servers
        deposed.answer = lambda request: attrs.evolve(
            status_of(deposed, role="leader"), leadership_confirmed=False
        )
        follower.answer = lambda request: status_of(follower, role="follower", leader=leader)
        leader.answer = lambda request: status_of(
            leader, role="leader", view=configuration(deposed, follower, leader)
        )
        assert cluster.leader_status().server == "n3/c"


def test_a_server_of_another_cluster_is_not_asked() -> None:
    with (
        speaking_servers("n1/a") as [ours],
        speaking_servers("n2/b", cluster_id="other") as [theirs],
        _cluster(ours, theirs, timeout_ms=400) as cluster,
    ):
        ours.answer = lambda request: not_leader()
        theirs.answer = lambda request: FOUND
        with pytest.raises(Unreachable) as raised:
            cluster.ask(GET)
    assert theirs.requests == []
    assert "another cluster" in raised.value.cause


def test_a_read_from_any_server_takes_the_first_that_answers() -> None:
    with speaking_servers("n2/b") as [server], _cluster(closed_address(), server) as cluster:
        server.answer = lambda request: FOUND
        assert cluster.ask_any(GetRequest(key="k", stale=True)) == FOUND


# --- giving up --------------------------------------------------------------------------------


def test_each_server_is_named_with_how_it_failed() -> None:
    gone = closed_address()
    with speaking_servers("n2/b", "n3/c") as [follower, silent]:
        follower.answer = lambda request: ErrorReply(
            code="not-leader", message="", leader="n1/a", leader_address=gone
        )
        with (
            _cluster(gone, follower, silent, timeout_ms=1_000) as cluster,
            pytest.raises(Unreachable) as raised,
        ):
            cluster.ask(GET)
    assert raised.value.exit_code == 3
    assert raised.value.code == "no-leader"
    one, two, three = raised.value.cause.split("; ")
    assert one == f"n1 {gone}: connection refused"
    assert two == f"n2 {follower.address}: follower of n1, but n1 does not answer"
    assert three.startswith(f"n3 {silent.address}: no answer within")


def test_no_server_at_all_is_told_from_no_leader() -> None:
    with (
        _cluster(closed_address(), closed_address(), timeout_ms=200) as cluster,
        pytest.raises(Unreachable) as raised,
    ):
        cluster.write(_put)
    assert raised.value.code == "unreachable"
    assert raised.value.message.startswith("no server answered within")


def test_a_server_that_hangs_does_not_use_up_the_time_of_the_others() -> None:
    # A listener that never accepts: connecting works, and nobody answers.
    with socket.create_server(("127.0.0.1", 0)) as hanging, speaking_servers("n2/b") as [server]:
        server.answer = lambda request: FOUND
        address = f"127.0.0.1:{hanging.getsockname()[1]}"
        with _cluster(address, server, timeout_ms=1_000) as cluster:
            assert cluster.ask(GET) == FOUND


def test_a_cluster_of_blank_servers_is_reported_at_once() -> None:
    with (
        speaking_servers("n1/a", "n2/b", cluster_id="") as servers,
        _cluster(*servers, timeout_ms=0) as cluster,
        pytest.raises(Unreachable) as raised,
    ):
        cluster.ask(GET)
    assert raised.value.code == "blank"
    assert "init" in raised.value.hint
    assert servers[0].requests == []


def test_a_blank_server_that_joins_is_asked_the_next_time() -> None:
    with speaking_servers("n1/a", cluster_id="") as [server]:
        server.answer = lambda request: FOUND
        with _cluster(server, closed_address()) as cluster:
            with pytest.raises(Unreachable):
                cluster.ask(GET, deadline=Deadline.after_ms(100))
            server.cluster_id = "c1"
            assert cluster.ask(GET) == FOUND


def test_a_person_is_told_what_is_being_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftd.client.calls.NOTICE_MS", 50.0)
    notices: list[str] = []
    with (
        _cluster(closed_address(), timeout_ms=600, notice=notices.append) as cluster,
        pytest.raises(Unreachable),
    ):
        cluster.ask(GET)
    assert len(notices) == 1
    assert "connection refused" in notices[0]


@pytest.mark.parametrize(
    ("code", "error"), [("refused", Refused), ("invalid", Refused), ("unsafe", Unsafe)]
)
def test_a_refusal_is_final_and_keeps_the_words_of_the_server(
    code: str, error: type[Refused] | type[Unsafe]
) -> None:
    reply = ErrorReply(code=code, message="no", cause="because", hint="do this")
    with speaking_servers("n1/a") as [server], _cluster(server) as cluster:
        server.answer = _answers(reply)
        with pytest.raises(error) as raised:
            cluster.write(_put)
    assert (raised.value.message, raised.value.cause, raised.value.hint) == (
        "no",
        "because",
        "do this",
    )
    assert raised.value.exit_code == (6 if code == "unsafe" else 1)


def test_a_reply_of_the_wrong_kind_is_an_error_and_no_crash() -> None:
    with pytest.raises(Exception, match="instead of a GetReply"):
        expect(DoneReply(), GetReply)


# --- exactly once -----------------------------------------------------------------------------


def test_writes_share_a_session_and_count_up() -> None:
    with speaking_servers("n1/a") as [server], _cluster(server) as cluster:
        server.answer = _answers(WriteReply(applied=True, revision=1))
        cluster.write(_put)
        cluster.write(_put)
    opening, first, second = server.requests
    assert isinstance(opening, OpenSessionRequest)
    assert isinstance(first, PutRequest)
    assert isinstance(second, PutRequest)
    assert first.session == second.session == opening.session
    assert (first.serial, first.lowest_unacknowledged) == (1, 1)
    assert (second.serial, second.lowest_unacknowledged) == (2, 2)


def test_two_clients_have_two_sessions() -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = _answers(WriteReply(applied=True, revision=1))
        for _ in range(2):
            with _cluster(server) as cluster:
                cluster.write(_put)
    sessions = {request.session for request in server.requests if isinstance(request, PutRequest)}
    assert len(sessions) == 2


@pytest.mark.parametrize(
    "first_answer",
    [LOSE, ErrorReply(code="unknown-outcome", message="leadership was lost")],
    ids=["lost connection", "unknown outcome"],
)
def test_an_open_outcome_is_settled_with_the_same_session_and_serial(first_answer: Answer) -> None:
    with speaking_servers("n1/a") as [server], _cluster(server) as cluster:
        server.answer = _answers(first_answer, not_leader(), WriteReply(applied=True, revision=8))
        assert cluster.write(_put) == WriteReply(applied=True, revision=8)
    puts = [request for request in server.requests if isinstance(request, PutRequest)]
    assert len(puts) == 3
    assert puts[0] == puts[1] == puts[2]


def test_a_write_that_stays_open_ends_as_unknown() -> None:
    with speaking_servers("n1/a") as [server], _cluster(server, timeout_ms=400) as cluster:
        server.answer = _answers(LOSE, not_leader())
        with pytest.raises(OutcomeUnknown) as raised:
            cluster.write(_put)
    assert raised.value.exit_code == 5
    assert "get k" in raised.value.hint


def test_a_write_that_was_never_appended_is_not_unknown() -> None:
    with speaking_servers("n1/a") as [server], _cluster(server, timeout_ms=300) as cluster:
        server.answer = _answers(ErrorReply(code="unavailable", message="overloaded"))
        with pytest.raises(Unreachable) as raised:
            cluster.write(_put)
    assert "nothing was changed" in raised.value.message
    assert "overloaded" in raised.value.cause


def test_a_read_that_was_lost_is_never_unknown() -> None:
    with speaking_servers("n1/a") as [server], _cluster(server, timeout_ms=300) as cluster:
        server.answer = _answers(LOSE)
        with pytest.raises(Unreachable):
            cluster.ask(GET)


def test_an_expired_session_is_replaced_if_the_write_cannot_have_happened() -> None:
    expired = ErrorReply(code="session-expired", message="the session was forgotten")
    with speaking_servers("n1/a") as [server], _cluster(server) as cluster:
        server.answer = _answers(expired, WriteReply(applied=True, revision=1))
        assert cluster.write(_put) == WriteReply(applied=True, revision=1)
    puts = [request for request in server.requests if isinstance(request, PutRequest)]
    assert puts[0].session != puts[1].session


def test_an_expired_session_after_a_lost_answer_is_unknown() -> None:
    expired = ErrorReply(code="session-expired", message="the session was forgotten")
    with speaking_servers("n1/a") as [server], _cluster(server) as cluster:
        server.answer = _answers(LOSE, expired)
        with pytest.raises(OutcomeUnknown):
            cluster.write(_put)
    assert len([request for request in server.requests if isinstance(request, PutRequest)]) == 2


def test_a_change_that_is_refused_when_it_is_repeated_may_have_been_started() -> None:
    def change(session: str, serial: int, lowest: int) -> ChangeRequest:
        removal = MemberChange(role="remove", name="n3")
        return ChangeRequest(
            session=session, serial=serial, kind="remove", changes=(removal,), author="ann"
        )

    refused = ErrorReply(code="refused", message="n3 is not a member", operation="op-2")
    with speaking_servers("n1/a") as [server], _cluster(server) as cluster:
        server.answer = _answers(LOSE, refused)
        with pytest.raises(OutcomeUnknown) as raised:
            cluster.write(change)
        assert "n3 is not a member" in raised.value.cause
        assert "operation list" in raised.value.hint
        server.answer = _answers(refused)
        with pytest.raises(Refused):
            cluster.write(change)


def test_a_transfer_is_not_sent_twice() -> None:
    with speaking_servers("n1/a") as [server], _cluster(server) as cluster:
        server.answer = _answers(LOSE)
        with pytest.raises(OutcomeUnknown):
            cluster.ask(TransferRequest(target="n2"))
    assert len(server.requests) == 1


def test_control_c_during_a_write_says_that_the_outcome_is_open() -> None:
    with speaking_servers("n1/a") as [server], _cluster(server) as cluster:
        server.answer = _answers(WriteReply(applied=True, revision=1))
        cluster.write(_put)

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        cluster.connect(server.address, Deadline.after_ms(1_000)).ask = interrupt  # type: ignore[method-assign, assignment]
        with pytest.raises(Exception, match="may or may not") as raised:
            cluster.write(_put)
    assert getattr(raised.value, "exit_code", None) == 130


def test_a_silent_server_is_left_for_the_next_one() -> None:
    with speaking_servers("n1/a", "n2/b") as servers, _cluster(*servers) as cluster:
        stopped, leader = servers
        stopped.answer = lambda request: SILENCE
        leader.answer = lambda request: FOUND
        assert cluster.ask(GET, reply_timeout_ms=100) == FOUND


def test_operations_of_a_running_change_make_its_servers_known() -> None:
    record = operation_record("catching-up", addresses={"n4/d": "127.0.0.1:9"})
    with speaking_servers("n1/a") as [server], _cluster(server) as cluster:
        server.answer = lambda request: OperationsReply(operations=(OperationView(record=record),))
        cluster.ask(OperationsRequest())
        assert cluster.addresses == (server.address, "127.0.0.1:9")
