"""The live events: what they say, to whom, and what becomes of those who do not read."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import attrs
import pytest
import trio

from raftd.activity import NoticeView
from raftd.cluster_status.view import view
from raftd.http import events
from raftd.http.feed import (
    HEARTBEAT_SECONDS,
    VIEWERS_MAX,
    Feed,
    Own,
    encode,
    joint_of,
    positions_of,
    rates_of,
    recent_of,
)
from raftd.http.health import Check
from raftd.protocol import MajorityView
from tests.http.members import LEADER, Members, activity, survey_of
from tests.raftctl.status_answers import (
    THREE,
    answers,
    configuration,
    leader,
    operation,
    peer,
    reply,
)

JOINT = configuration("n1/a n2/b n4/d", outgoing="n1/a n2/b n3/c", index=41, committed=False)


def feed_of(members: Members, problems: tuple[str, ...] = ()) -> Feed:
    own = Own(
        status=lambda: reply("n2/b", THREE),
        activity=lambda: activity("n2/b"),
        readiness=lambda: [Check("leader", problem) for problem in problems],
    )
    return Feed(survey_of(members), own, address="127.0.0.1:7102", http="127.0.0.1:8102")


class Reader:
    """Somebody who follows, and keeps what has come."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def send(self, piece: bytes) -> None:
        self.pieces.append(piece)

    @property
    def events(self) -> list[Any]:
        found = []
        for piece in self.pieces:
            if piece.startswith(b"event: status\ndata: "):
                assert piece.endswith(b"\n\n")
                assert piece.count(b"\n") == 3
                found.append(json.loads(piece.split(b"data: ", 1)[1]))
        return found


@pytest.fixture
def members(nursery: trio.Nursery) -> Members:
    members = Members(nursery)
    members.answering(LEADER)
    members.answering(reply("n3/c", THREE, http="127.0.0.1:8103"))
    return members


def shape_of(kind: type) -> set[str]:
    return set(get_type_hints(kind))


async def test_an_event_has_the_shape_that_pages_are_built_for(members, nursery, autojump_clock):
    feed, reader = feed_of(members, ("why not",)), Reader()
    nursery.start_soon(feed.run)
    nursery.start_soon(feed.follow, reader.send)
    await trio.sleep(0.5)

    (event,) = reader.events
    assert set(event) == shape_of(events.StatusEvent)
    assert set(event["viewer"]) == shape_of(events.Viewer)
    assert {frozenset(each) for each in event["positions"]} == {
        frozenset(shape_of(events.Position))
    }
    assert set(event["rates"]) == shape_of(events.Rates)
    assert event["viewer"]["id"] == "n2"
    assert (event["viewer"]["ready"], event["viewer"]["not_ready"]) == (False, ["why not"])
    assert [each["id"] for each in event["positions"]] == ["n1", "n2", "n3"]
    assert [each["id"] for each in event["status"]["servers"]] == ["n1", "n2", "n3"]
    assert event["positions"][2]["http"] == "127.0.0.1:8103"


async def test_all_who_follow_are_sent_the_same_once_a_second(members, nursery, autojump_clock):
    feed, readers = feed_of(members), [Reader() for _ in range(5)]
    nursery.start_soon(feed.run)
    for reader in readers:
        nursery.start_soon(feed.follow, reader.send)
    await trio.sleep(5.5)

    assert feed.viewer_count == 5
    assert {len(reader.events) for reader in readers} == {6}
    assert {tuple(reader.pieces) for reader in readers} == {tuple(readers[0].pieces)}
    # Six events, each made of two questions, whoever looks.
    assert len(members.dials) == 12


async def test_an_event_that_cannot_be_made_is_left_out_and_the_next_ones_come(
    members, nursery, autojump_clock, monkeypatch, caplog
):
    feed, reader = feed_of(members), Reader()
    event, failures = feed.event, [KeyError("odd"), KeyError("odd")]

    def sometimes(sight: Any) -> Any:
        if failures:
            raise failures.pop()
        return event(sight)

    monkeypatch.setattr(feed, "event", sometimes)
    nursery.start_soon(feed.run)
    nursery.start_soon(feed.follow, reader.send)
    await trio.sleep(4.5)
    assert len(reader.events) == 3
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_nobody_is_asked_while_nobody_looks(members, nursery, autojump_clock):
    feed, reader = feed_of(members), Reader()
    nursery.start_soon(feed.run)
    await trio.sleep(10)
    assert members.dials == []

    with trio.move_on_after(2.5):
        await feed.follow(reader.send)
    asked = len(members.dials)
    assert asked == 6
    assert feed.viewer_count == 0
    await trio.sleep(10)
    assert len(members.dials) <= asked + 2


async def test_whoever_is_sent_no_event_hears_that_the_connection_lives(nursery, autojump_clock):
    feed, reader = feed_of(Members(nursery)), Reader()
    nursery.start_soon(feed.follow, reader.send)
    await trio.sleep(2.5 * HEARTBEAT_SECONDS)
    assert reader.pieces[1:] == [b": still here\n\n"] * 2


async def test_there_is_room_for_so_many_and_again_once_somebody_leaves(nursery, autojump_clock):
    feed = feed_of(Members(nursery))
    scopes = []
    for _ in range(VIEWERS_MAX):
        scope = trio.CancelScope()
        scopes.append(scope)

        async def follow(scope: trio.CancelScope = scope) -> None:
            with scope:
                await feed.follow(Reader().send)

        nursery.start_soon(follow)
    await trio.testing.wait_all_tasks_blocked()
    assert feed.is_full
    scopes[0].cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert not feed.is_full


def test_whatever_a_server_says_is_one_line_of_an_event():
    event: Any = {"text": "a\nevent: other\r\ndata: b\u2028c\0"}
    text = encode(event)
    assert text.count(b"\n") == 3
    assert json.loads(text.split(b"data: ", 1)[1]) == event


# --- what is under way --------------------------------------------------------------------------


def joint_cluster(**fields: Any) -> Any:
    running = operation("joint")
    known = attrs.evolve(
        running,
        step="committing-joint",
        index=41,
        old=MajorityView(servers=("n1/a", "n2/b", "n3/c"), acknowledged=("n1/a", "n2/b"), needed=2),
        new=MajorityView(servers=("n1/a", "n2/b", "n4/d"), acknowledged=("n1/a",), needed=2),
        blocked_by="n4 is silent",
        **fields,
    )
    return view(answers(leader(JOINT, operation=known, peers=(peer("n2/b"), peer("n4/d")))))


def test_while_joint_each_half_says_who_has_acknowledged_the_entry():
    joint = joint_of(joint_cluster())
    assert joint is not None
    assert joint["old"] == {
        "servers": ["n1", "n2", "n3"],
        "acknowledged": ["n1", "n2"],
        "needed": 2,
        "complete": True,
    }
    assert joint["new"]["acknowledged"] == ["n1"]
    assert joint["new"]["complete"] is False
    assert (joint["index"], joint["step"]) == (41, "committing-joint")
    assert (joint["blocked_by"], joint["operation"]) == ("n4 is silent", "op-17")
    assert set(joint) == shape_of(events.Joint)


def test_without_a_leader_the_halves_are_there_and_nobody_says_who_has_acknowledged():
    joint = joint_of(view(answers(reply("n2/b", JOINT, leader=""))))
    assert joint is not None
    assert joint["old"] is not None
    assert joint["old"]["servers"] == ["n1", "n2", "n3"]
    assert joint["new"]["acknowledged"] is None
    assert joint["step"] == "joint"


def test_where_nothing_is_under_way_nothing_is_joint():
    assert joint_of(view(answers(LEADER))) is None
    assert joint_of(view(answers())) is None


def test_the_match_index_of_a_position_is_what_the_leader_knows():
    cluster = view(
        answers(
            leader(THREE, peers=(peer("n2/b", match_index=70), peer("n3/c", match_index=80))),
            reply("n2/b", THREE),
        )
    )
    found = {each["id"]: each for each in positions_of(cluster)}
    assert found["n1"]["match_index"] == found["n1"]["last_index"]
    assert found["n2"]["match_index"] == 70
    assert (found["n3"]["match_index"], found["n3"]["applied_index"]) == (80, None)
    assert [found[name]["leader"] for name in ("n1", "n2", "n3")] == [True, False, False]
    assert [found[name]["reachable"] for name in ("n1", "n2", "n3")] == [True, True, False]


# --- the last minutes ---------------------------------------------------------------------------


def test_the_rates_are_those_of_the_leader_where_it_keeps_them():
    cluster = view(answers(LEADER))
    own, leading = activity("n2/b"), activity("n1/a", commits_per_second=(7.0, 8.0))
    rates = rates_of(own, leading, cluster)
    assert (rates["source"], rates["is_leader"]) == ("n1", True)
    assert rates["commits_per_second"] == [7.0, 8.0]

    keeps_none = activity(
        "n1/a", last_ms=0, commits_per_second=(), commit_p50_ms=(), commit_p99_ms=()
    )
    for without in (None, keeps_none):
        rates = rates_of(own, without, cluster)
        assert (rates["source"], rates["is_leader"]) == ("n2", False)
        assert rates["commits_per_second"] == [1.0, 2.5]


def test_recent_events_are_those_of_the_server_and_of_the_leader_in_order():
    def notices(*times: int, kind: str) -> tuple[NoticeView, ...]:
        return tuple(NoticeView(time_ms=time, kind=kind, text=f"at {time}") for time in times)

    own = activity("n2/b", notices=notices(1, 5, kind="link") + notices(6, kind="configuration"))
    leading = activity("n1/a", notices=notices(3, 4, kind="configuration"))

    found = [(each["server"], each["time_ms"]) for each in recent_of(own, leading)]
    # Configurations are the leader's to tell, or each of them would be there twice.
    assert found == [("n2", 1), ("n1", 3), ("n1", 4), ("n2", 5)]
    assert [each["time_ms"] for each in recent_of(own, None)] == [1, 5, 6]

    many = activity("n1/a", notices=notices(*range(100), kind="leader"))
    assert len(recent_of(own, many)) == events.RECENT_EVENTS_MAX
