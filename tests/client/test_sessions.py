"""Sessions: which serials are answered, and when to open another one."""

from __future__ import annotations

from raftd.client.sessions import SESSION_SERIALS_MAX, Session


def test_the_lowest_unanswered_serial_is_what_was_taken_first() -> None:
    session = Session()
    assert session.lowest == 1
    first, second, third = (session.take() for _ in range(3))
    session.answered(second)
    assert session.lowest == first
    session.answered(first)
    assert session.lowest == third
    session.answered(third)
    session.answered(third)
    assert session.lowest == 4


def test_a_session_takes_no_more_than_the_cluster_keeps_answers_for() -> None:
    session = Session()
    pinned = session.take()
    newest = pinned
    while session.usable:
        newest = session.take()
        session.answered(newest)
    assert session.lowest == pinned
    assert newest - pinned + 1 == SESSION_SERIALS_MAX
    session.answered(pinned)
    assert session.usable


def test_an_expired_session_takes_nothing() -> None:
    session = Session()
    session.expired = True
    assert not session.usable
