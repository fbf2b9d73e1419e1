"""The rules of a call: whom to ask next, what may be sent again, and what is known at the end."""

from __future__ import annotations

import pytest

from raftd.client.calls import RETRY_MS_MAX, RETRY_SPREAD, Ask, Pause, check_before_asking
from raftd.client.errors import (
    ClientClosed,
    ConnectionProblem,
    Forbidden,
    InvalidRequest,
    NoCluster,
    NoLeader,
    NotApplied,
    OutcomeUnknown,
    Refused,
    ServerTooOld,
    SessionExpired,
    Unreachable,
    WriteInterrupted,
)
from raftd.protocol import (
    ErrorReply,
    GetReply,
    GetRequest,
    PutRequest,
    StatusRequest,
    TransferRequest,
    Welcome,
    WriteReply,
)
from tests.client.scripts import (
    ADDRESSES,
    BLANK,
    EXPIRED,
    LOST,
    REFUSED,
    TOO_OLD,
    UNAVAILABLE,
    UNKNOWN,
    Script,
    follower,
)

GET = GetRequest(key="k")
FOUND = GetReply(found=True, value=b"v")
DONE = WriteReply(applied=True, revision=1)
DISK_FULL = ErrorReply(code="disk-full", message="the disk is nearly full", cause="on n1")


def put(session: str, serial: int, lowest: int) -> PutRequest:
    return PutRequest(
        session=session, serial=serial, lowest_unacknowledged=lowest, key="k", value=b"v"
    )


def get(script: Script, timeout_ms: float = 1_000) -> object:
    return script.drive(script.calls.ask(GET, script.deadline(timeout_ms)))


def write(script: Script, timeout_ms: float = 1_000) -> object:
    return script.drive(script.calls.write(put, script.deadline(timeout_ms)))


# --- whom to ask ------------------------------------------------------------------------------


def test_servers_are_asked_in_their_order_until_one_serves() -> None:
    script = Script(REFUSED, UNAVAILABLE, FOUND)
    assert get(script) == FOUND
    assert [address for address, _ in script.asked] == list(ADDRESSES)


def test_whom_a_follower_names_is_asked_next_and_first_from_then_on() -> None:
    script = Script(follower("n9/i", "127.0.0.1:9"), FOUND)
    assert get(script) == FOUND
    assert [address for address, _ in script.asked] == [ADDRESSES[0], "127.0.0.1:9"]
    get(script)
    assert script.asked[-1][0] == "127.0.0.1:9"


def test_a_leader_that_fails_is_not_asked_first_any_more() -> None:
    script = Script(REFUSED, FOUND)
    get(script)
    script.then(REFUSED, FOUND)
    get(script)
    script.then(FOUND)
    get(script)
    assert [address for address, _ in script.asked] == [
        *(ADDRESSES[0], ADDRESSES[1]),
        *(ADDRESSES[1], ADDRESSES[0]),
        ADDRESSES[0],
    ]


def test_pauses_grow_to_a_bound_and_are_spread() -> None:
    for random, factor in ((lambda: 0.0, 1 - RETRY_SPREAD), (lambda: 0.5, 1.0)):
        script = Script(UNAVAILABLE, random=random)
        with pytest.raises(NoLeader):
            get(script, timeout_ms=2_000)
        pauses = [step.duration_ms for step in script.steps if isinstance(step, Pause)]
        assert pauses[:3] == [10 * factor, 20 * factor, 40 * factor]
        assert max(pauses) == RETRY_MS_MAX * factor


def test_what_servers_have_said_counts_more_than_that_they_were_too_slow_at_the_very_end() -> None:
    hurried = ConnectionProblem("", "timed-out", "connected, but no answer within 16ms")
    script = Script(TOO_OLD, REFUSED, REFUSED, hurried)
    with pytest.raises(NotApplied) as raised:
        get(script, timeout_ms=300)
    assert "too old" in raised.value.cause
    assert "16ms" not in raised.value.cause


def test_a_server_that_is_silent_for_as_long_as_any_may_be_has_said_nothing() -> None:
    script = Script(TOO_OLD, REFUSED, REFUSED, ConnectionProblem("", "timed-out", "no connection"))
    with pytest.raises(NotApplied) as raised:
        get(script, timeout_ms=60_000)
    assert "no connection" in raised.value.cause


def test_each_server_gets_its_share_of_the_time_to_connect() -> None:
    script = Script(REFUSED)
    with pytest.raises(Unreachable):
        get(script, timeout_ms=300)
    asks = [step for step in script.steps if isinstance(step, Ask)]
    assert asks[0].connect_timeout_ms == pytest.approx(100)
    assert asks[2].connect_timeout_ms == pytest.approx(298)


def test_waiting_is_told_once() -> None:
    notices: list[str] = []
    script = Script(UNAVAILABLE, notice=notices.append)
    with pytest.raises(NoLeader):
        get(script, timeout_ms=5_000)
    assert len(notices) == 1
    assert "n2 127.0.0.1:2: an election is on" in notices[0]


# --- giving up --------------------------------------------------------------------------------


def test_silence_everywhere_is_told_from_the_lack_of_a_leader() -> None:
    with pytest.raises(Unreachable) as nobody:
        get(Script(REFUSED))
    assert str(nobody.value).startswith("no server answered within 1s: n1 127.0.0.1:1: conn")
    with pytest.raises(NoLeader) as followers:
        get(Script(follower()))
    assert followers.value.cause.count("follower, knows no leader") == 3


@pytest.mark.parametrize(("problem", "error"), [(BLANK, NoCluster), (TOO_OLD, ServerTooOld)])
def test_what_waiting_cannot_help_ends_at_once(problem: Exception, error: type[NotApplied]) -> None:
    script = Script(problem)  # type: ignore[arg-type]
    with pytest.raises(error):
        get(script, timeout_ms=0)
    assert len(script.asked) == 3


def test_nothing_is_asked_of_a_server_that_does_not_understand_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = Welcome(server="n1/a", cluster_id="c", version=3)
    blank = Welcome(server="n1/a", cluster_id="", version=3)
    assert check_before_asking("a", old, GET) is None
    problem = check_before_asking("a", blank, GET)
    assert problem is not None
    assert problem.kind == "blank"
    assert check_before_asking("a", blank, StatusRequest()) is None
    monkeypatch.setitem(_versions(), GetRequest, 4)
    problem = check_before_asking("a", old, GET)
    assert problem is not None
    assert (problem.kind, problem.sent) == ("too-old", False)


def _versions() -> dict[type, int]:
    from raftd.client import judging

    return judging._VERSION_MIN


# --- what is known of a write -----------------------------------------------------------------


def test_a_write_that_no_server_took_is_not_applied() -> None:
    for answer in (REFUSED, UNAVAILABLE, follower()):
        with pytest.raises(NotApplied, match="nothing was changed"):
            write(Script(answer))


@pytest.mark.parametrize("answer", [LOST, UNKNOWN], ids=["lost", "unknown outcome"])
def test_a_write_that_was_sent_and_never_answered_is_unknown(answer: object) -> None:
    script = Script(answer, UNAVAILABLE)  # type: ignore[arg-type]
    with pytest.raises(OutcomeUnknown) as raised:
        write(script)
    assert script.session is not None
    assert (raised.value.session, raised.value.serial) == (script.session.id, 1)


def test_a_write_is_sent_again_as_it_was() -> None:
    script = Script(LOST, UNKNOWN, UNAVAILABLE, DONE)
    assert write(script) == DONE
    assert len(script.asked) == 4
    assert len({repr(request) for _, request in script.asked}) == 1


@pytest.mark.parametrize(
    ("code", "error"),
    [("refused", Refused), ("invalid", InvalidRequest), ("forbidden", Forbidden)],
)
def test_a_refusal_of_the_first_attempt_is_certain(code: str, error: type[Refused]) -> None:
    script = Script(REFUSED, UNAVAILABLE, ErrorReply(code=code, message="no", cause="because"))
    with pytest.raises(error, match="no: because"):
        write(script)


def test_a_refusal_after_a_lost_answer_says_nothing_of_the_first_attempt() -> None:
    with pytest.raises(OutcomeUnknown) as raised:
        write(Script(LOST, DISK_FULL))
    assert raised.value.refused_later
    assert "nearly full" in raised.value.cause


def test_what_is_wrong_in_itself_was_wrong_the_first_time() -> None:
    with pytest.raises(InvalidRequest):
        write(Script(LOST, ErrorReply(code="invalid", message="too long")))


def test_an_expired_session_is_replaced_only_if_nothing_was_sent_before() -> None:
    script = Script(UNAVAILABLE, EXPIRED, DONE)
    assert write(script) == DONE
    assert len({request.session for _, request in script.asked}) == 2  # type: ignore[union-attr]
    with pytest.raises(SessionExpired):
        write(Script(LOST, EXPIRED))


def test_sessions_that_expire_one_after_the_other_end_the_call() -> None:
    with pytest.raises(Refused) as raised:
        write(Script(EXPIRED))
    assert raised.value.code == "session-expired"


def test_what_may_not_be_repeated_is_not() -> None:
    script = Script(LOST, DONE)
    with pytest.raises(OutcomeUnknown):
        script.drive(script.calls.ask(TransferRequest(), script.deadline()))
    assert len(script.asked) == 1


def test_an_unanswered_write_holds_back_what_is_acknowledged() -> None:
    script = Script(LOST, UNAVAILABLE)
    with pytest.raises(OutcomeUnknown) as raised:
        write(script)
    script.then(DONE)
    write(script)
    write(script)
    lowest = [(r.serial, r.lowest_unacknowledged) for _, r in script.asked[-2:]]  # type: ignore[union-attr]
    assert lowest == [(2, 1), (3, 1)]
    raised.value.release()
    write(script)
    assert script.asked[-1][1].lowest_unacknowledged == 4  # type: ignore[union-attr]


def test_a_write_that_was_certainly_not_done_holds_back_nothing() -> None:
    script = Script(UNAVAILABLE)
    with pytest.raises(NoLeader):
        write(script)
    script.then(DONE)
    write(script)
    assert script.asked[-1][1].lowest_unacknowledged == 2  # type: ignore[union-attr]


# --- calls that end from outside --------------------------------------------------------------


def _until_sent(script: Script, *, sent: bool) -> tuple[object, Ask]:
    steps = script.calls.write(put, script.deadline())
    script._take(next(steps))
    ask = next(steps)
    assert isinstance(ask, Ask)
    ask.sent = sent
    return steps, ask


@pytest.mark.parametrize("sent", [False, True])
def test_control_c_says_whether_the_write_was_on_its_way(sent: bool) -> None:
    steps, _ = _until_sent(Script(DONE), sent=sent)
    with pytest.raises(KeyboardInterrupt) as raised:
        steps.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert isinstance(raised.value, WriteInterrupted) == sent


@pytest.mark.parametrize(("sent", "error"), [(False, ClientClosed), (True, OutcomeUnknown)])
def test_a_client_that_is_closed_says_what_is_known(sent: bool, error: type[Exception]) -> None:
    steps, _ = _until_sent(Script(DONE), sent=sent)
    with pytest.raises(error):
        steps.throw(ClientClosed("the client is closed"))  # type: ignore[attr-defined]


def test_a_call_that_is_given_up_is_asked_for_by_nobody() -> None:
    script = Script(DONE)
    steps, _ = _until_sent(script, sent=True)
    steps.close()  # type: ignore[attr-defined]
    assert script.session is not None
    assert script.session.lowest == 2
