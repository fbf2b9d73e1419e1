"""How raftctl follows a membership operation: what it shows, and what it ends with."""

from __future__ import annotations

import json

import attrs
import pytest

from raftctl import watch as watching
from raftctl.cli import main
from raftctl.render import Style, width_of
from raftd.commands import PhaseAt
from raftd.protocol import (
    ChangeReply,
    OperationsReply,
    OperationsRequest,
    OperationView,
    PeerView,
    Request,
    StatusRequest,
)
from tests.raftctl.golden_files import attached_terminal
from tests.raftctl.leading import ENDED, Leader, new_peer, story
from tests.raftctl.speaking_servers import (
    LOSE,
    Answer,
    configuration,
    operation_record,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")


def test_progress_off_a_terminal_is_plain_lines(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.views = story()

    assert leader.run("add", "n4=127.0.0.1:7104") == 0

    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert "\x1b" not in captured.err
    assert lines[0] == "op-1: add n4"
    assert "joining the new servers" in lines
    assert any(
        line.startswith("n4: catching up: 124 of 1,000 entries, 12%") and "876 remaining" in line
        for line in lines
    )
    assert any(line.startswith("n4: catching up: 510 of 1,000 entries, 51%") for line in lines)
    assert "n4: caught up at 1,000 in 2 rounds" in lines
    assert (
        "C_old,new at index 20, stored by old half 2 of 3 (n1 n2), 2 needed; "
        "new half 2 of 4 (n1 n2), 3 needed"
    ) in lines
    assert any(line.startswith("C_old,new committed at index 30: by a majority") for line in lines)
    assert "C_new committed at index 40" in lines
    assert "op-1: done in 3.0s" in lines
    assert captured.out.splitlines()[0] == "configuration 30, stable"
    assert captured.out.splitlines()[-1].split() == ["n4", "voter", "127.0.0.1:7104"]


def test_an_even_number_of_voters_is_remarked_on(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.views = [ENDED]
    assert leader.run("add", "n4=127.0.0.1:7104") == 0
    assert "4 voters survive no more failures than 3" in capsys.readouterr().err


def test_numbers_that_move_a_little_do_not_flood_the_log(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    record = operation_record("catching-up")
    leader.views = [
        OperationView(record=record, step="catching-up", peers=(new_peer(index),), last_index=1000)
        for index in range(10, 1000, 10)
    ] + [ENDED]

    assert leader.run("add", "n4=127.0.0.1:7104") == 0

    shown = [line for line in capsys.readouterr().err.splitlines() if "catching up:" in line]
    assert len(shown) == 4


def _installing(received: int, installed: int = 0, rate: int = 4 << 20) -> PeerView:
    return attrs.evolve(
        new_peer(0, rounds=0),
        snapshot_bytes=50 << 20,
        snapshot_received_bytes=received << 20,
        snapshot_installed_bytes=installed << 20,
        lag_bytes=3 << 19,
        catch_up_bytes_per_second=rate,
    )


@pytest.mark.parametrize(
    ("peer", "line"),
    [
        (
            _installing(12),
            "12.0 MiB of a snapshot of 50.0 MiB received, 4.0 MiB/s, received in about 9.5s, then "
            "it is installed, 1.5 MiB of entries after it, round 1",
        ),
        (
            _installing(50, 30),
            "30.0 MiB of a snapshot of 50.0 MiB installed, 4.0 MiB/s, installed in about 5.0s, "
            "1.5 MiB of entries after it, round 1",
        ),
        (
            _installing(0, rate=0),
            "0 B of a snapshot of 50.0 MiB received, then it is installed, 1.5 MiB of entries "
            "after it, round 1",
        ),
        (
            attrs.evolve(new_peer(400), lag_bytes=6 << 10),
            "400 of 1,000 entries, 40%, 600 remaining (6.0 KiB), round 3",
        ),
    ],
)
def test_a_server_that_catches_up_shows_bytes_rate_remaining_time_and_round(
    peer: PeerView, line: str
) -> None:
    assert watching.describe_peer(peer, 1000, None) == f"n4: catching up: {line}"


def test_the_rate_of_entries_is_said_in_bytes_as_well() -> None:
    peer = attrs.evolve(new_peer(400), lag_bytes=6 << 10, catch_up_bytes_per_second=2048)
    assert "200/s (2.0 KiB/s), 600 remaining (6.0 KiB), about 3.0s" in watching.describe_peer(
        peer, 1000, 200.0
    )


ENTRIES_LEFT = attrs.evolve(
    new_peer(412_345), lag_bytes=300 << 20, catch_up_bytes_per_second=4 << 20
)


@pytest.mark.parametrize(
    ("peer", "width", "line"),
    [
        (
            ENTRIES_LEFT,
            79,
            "n4: 412,345 of 1,000,000 entries, 41%, 12,000/s (4.0 MiB/s), about 49.0s",
        ),
        (ENTRIES_LEFT, 59, "n4: 41%, 12,000/s (4.0 MiB/s), about 49.0s"),
        (ENTRIES_LEFT, 39, "n4: 41%, 12,000/s, about 49.0s"),
        (
            _installing(12),
            79,
            "n4: 12.0 MiB of a snapshot of 50.0 MiB received, 4.0 MiB/s, about 9.5s",
        ),
        (_installing(12), 59, "n4: 24% received, 4.0 MiB/s, about 9.5s"),
        (_installing(50, 30), 39, "n4: 60% installed, 4.0 MiB/s, about 5.0s"),
    ],
)
def test_where_there_is_little_room_the_share_the_rate_and_the_time_left_stay(
    peer: PeerView, width: int, line: str
) -> None:
    assert watching.describe_peer(peer, 1_000_000, 12_000.0, width=width) == line


def test_the_bar_of_a_server_is_the_first_to_go() -> None:
    view = OperationView(
        record=operation_record("catching-up"),
        step="catching-up",
        peers=(_installing(50, 30),),
        last_index=1000,
    )
    (whole,) = watching.live_lines(watching.Reporter(), view, Style(False), width=160)
    words = watching.describe_peer(view.peers[0], 1000, None)
    assert whole.endswith(f" {words}")
    assert whole != words
    room = width_of(whole) - 1
    assert watching.live_lines(watching.Reporter(), view, Style(False), width=room) == [words]


def test_a_snapshot_that_moves_a_little_does_not_flood_the_log(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    record = operation_record("catching-up")
    leader.views = [
        OperationView(
            record=record,
            step="catching-up",
            peers=(_installing(received),),
            last_index=1000,
            blocked_by=f"n4 to catch up; n4 has {received} of 50",
        )
        for received in range(1, 51)
    ] + [ENDED]

    assert leader.run("add", "n4=127.0.0.1:7104") == 0

    shown = [line for line in capsys.readouterr().err.splitlines() if "catching up:" in line]
    # Half of the way is receiving: a line at its beginning, at a quarter and at the half.
    assert len(shown) == 3


def test_a_snapshot_that_arrives_is_progress_although_no_entry_does(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "POLL_MS_MAX", 100.0)
    record = operation_record("catching-up")
    leader.views = [
        OperationView(record=record, step="catching-up", peers=(_installing(received),))
        for received in range(1, 9)
    ] + [ENDED]
    words = ["add", "n4=127.0.0.1:7104", "-e", leader.server.address, "--timeout", "350ms"]
    assert main(words) == 0


@pytest.fixture
def sleeps_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have slept between two questions of a minute each."""
    slept: list[float] = []
    monkeypatch.setattr("raftctl.watch.time.sleep", slept.append)
    monkeypatch.setattr(watching, "POLL_MS_MIN", 60_000.0)
    monkeypatch.setattr(watching, "POLL_MS_MAX", 60_000.0)
    return slept


def test_a_leader_may_hold_back_its_answer_until_the_operation_has_ended(
    leader: Leader, sleeps_s: list[float]
) -> None:
    leader.views = [OperationView(record=operation_record("catching-up")), ENDED]
    assert leader.run("add", "n4=127.0.0.1:7104") == 0
    asked = [r.wait_ms for r in leader.server.requests if isinstance(r, OperationsRequest)]
    # What it does now is shown at once.
    assert asked == [0, 60_000]
    assert sleeps_s == [0.0]


def test_who_answers_at_once_is_not_asked_again_at_once(
    leader: Leader, sleeps_s: list[float]
) -> None:
    """A server of an older release knows of no waiting."""
    running = OperationView(record=operation_record("catching-up"))
    leader.views = [running, running, running, ENDED]
    assert leader.run("add", "n4=127.0.0.1:7104") == 0
    assert sleeps_s[0] == 0.0
    assert len(sleeps_s) == 3
    assert all(30 < seconds <= 60 for seconds in sleeps_s[1:])


def test_entries_that_came_with_a_snapshot_are_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are all there at a stroke: a time made of that would be far too short."""
    now_s = 100.0
    monkeypatch.setattr("raftctl.watch.time.monotonic", lambda: now_s)
    reporter = watching.Reporter()
    record = operation_record("catching-up")
    rates = []
    for peer in (
        _installing(50, 10),
        _installing(50, 50),
        new_peer(500),
        new_peer(505),
        new_peer(510),
    ):
        now_s += 0.5
        reporter.show(OperationView(record=record, peers=(peer,)))
        rates.append(reporter.rate(peer))
    assert rates == [None, None, None, 10.0, 10.0]


def test_progress_as_json_has_the_numbers_of_a_snapshot(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    record = operation_record("catching-up")
    leader.views = [
        OperationView(record=record, step="catching-up", peers=(_installing(12),)),
        ENDED,
    ]
    assert leader.run("add", "n4=127.0.0.1:7104", "-o", "json") == 0
    (server,) = json.loads(capsys.readouterr().out.splitlines()[0])["servers"]
    assert server["snapshot_bytes"] == 50 << 20
    assert server["snapshot_received_bytes"] == 12 << 20
    assert server["snapshot_installed_bytes"] == 0
    assert server["bytes_per_second"] == 4 << 20
    assert server["lag_bytes"] == 3 << 19
    # Of this part alone: the others go at a rate that nobody knows yet.
    assert (server["part"], server["remaining_ms"]) == ("receiving", 9_500)


def test_progress_as_json_is_lines_and_the_last_one_is_the_result(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.views = story()

    assert leader.run("add", "n4=127.0.0.1:7104", "-o", "json") == 0

    captured = capsys.readouterr()
    assert captured.err == ""
    *progress, result = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["step"] for line in progress] == [
        "joining",
        "catching-up",
        "catching-up",
        "committing-joint",
    ]
    assert progress[1]["servers"][0]["match_index"] == 124
    assert progress[3]["old"] == {
        "servers": ["n1", "n2", "n3"],
        "acknowledged": ["n1", "n2"],
        "needed": 2,
    }
    assert result == {
        "operation": "op-1",
        "result": "done",
        "configuration": {
            "index": 30,
            "committed": True,
            "joint": False,
            "voters": ["n1", "n2", "n3", "n4"],
            "outgoing": [],
            "learners": [],
        },
    }


def test_progress_on_a_terminal_is_drawn_over(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = attached_terminal(monkeypatch)
    leader.views = story()
    assert leader.run("add", "n4=127.0.0.1:7104", "--color", "never") == 0
    shown = terminal.getvalue()
    assert "\x1b[1A\r\x1b[J" in shown
    assert "█" in shown
    assert shown.rstrip().splitlines()[-2].endswith("op-1: done in 3.0s")


@pytest.mark.parametrize("result", ["failed", "aborted"])
def test_an_operation_that_ends_badly_exits_with_1_and_says_why(
    result: str, leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    record = operation_record(
        "joining", "ended", result=result, explanation="n4 did not answer within 30s"
    )
    leader.views = [OperationView(record=record)]

    assert leader.run("add", "n4=127.0.0.1:7104") == 1

    error = capsys.readouterr().err
    assert f"op-1 (add n4) {'was aborted' if result == 'aborted' else 'failed'}" in error
    assert "n4 did not answer within 30s" in error
    assert "operation show op-1" in error


def test_no_wait_prints_the_operation_and_returns(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leader.run("add", "n4=127.0.0.1:7104", "--no-wait") == 0
    captured = capsys.readouterr()
    assert captured.out == "op-1\n"
    assert "operation watch op-1" in captured.err
    assert not any(isinstance(request, OperationsRequest) for request in leader.server.requests)


def test_nothing_to_do_exits_with_0(leader: Leader, capsys: pytest.CaptureFixture[str]) -> None:
    leader.change_reply = ChangeReply(operation="", nothing_to_do="n3 is a voter already")
    assert leader.run("promote", "n3", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["operation"], document["result"]) == (None, "done")


def test_without_progress_the_watch_ends_with_4_and_the_operation_goes_on(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck = OperationView(
        record=operation_record("catching-up"),
        step="catching-up",
        peers=(new_peer(124),),
        last_index=1000,
        blocked_by="n4 does not answer",
    )
    leader.views = [stuck]

    words = ["add", "n4=127.0.0.1:7104", "-e", leader.server.address, "--timeout", "200ms"]
    assert main([*words, "-o", "json"]) == 4

    error = json.loads(capsys.readouterr().err)["error"]
    assert error["operation"] == "op-1"
    assert "124 of 1,000" in error["cause"]
    assert "n4 does not answer" in error["cause"]
    assert "operation watch op-1" in error["hint"]


def test_the_time_without_progress_starts_again_with_each_step(leader: Leader) -> None:
    record = operation_record("catching-up")
    leader.views = [
        OperationView(record=record, step="catching-up", peers=(new_peer(index),), last_index=1000)
        for index in range(150)
    ] + [ENDED]
    # All the questions together take longer than this.
    words = ["add", "n4=127.0.0.1:7104", "-e", leader.server.address, "--timeout", "400ms"]
    assert main(words) == 0


def test_control_c_detaches_and_says_how_to_come_back(
    leader: Leader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "look", interrupt)
    assert leader.run("add", "n4=127.0.0.1:7104") == 130
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"still running: raftctl -e {leader.server.address} operation watch op-1"


def test_the_watch_goes_on_when_the_leader_dies_and_a_new_server_leads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a", "n4/d") as [old, new]:
        first, second = Leader(old), Leader(new)
        view = configuration(old, new, index=20)
        first.before = first.after = second.before = second.after = view
        second.views = [ENDED]
        catching_up = OperationView(
            record=operation_record("catching-up", addresses={"n4/d": new.address}),
            step="catching-up",
            peers=(new_peer(10),),
            last_index=1000,
        )

        def answer_and_die(request: Request) -> Answer:
            if len(old.requests) > 6:
                return LOSE
            first.views = [catching_up]
            return first.answer(request)

        old.answer = answer_and_die
        assert first.run("add", f"n4={new.address}") == 0
    assert "op-1: done" in capsys.readouterr().err


def test_a_follower_that_has_applied_the_end_is_believed() -> None:
    with speaking_servers("n1/a", "n2/b") as [leader_server, follower]:
        leader = Leader(leader_server)
        leader.after = leader.before = configuration(leader_server, follower)

        def silent_after_the_start(request: Request) -> Answer:
            if isinstance(request, OperationsRequest):
                return LOSE
            return leader.answer(request)

        leader_server.answer = silent_after_the_start
        ended = OperationsReply(operations=(ENDED,))
        follower.answer = lambda request: (
            status_of(follower, role="follower", view=leader.after)
            if isinstance(request, StatusRequest)
            else ended
        )
        assert leader.run("add", "n4=127.0.0.1:7104") == 0


def test_a_joint_change_that_was_rolled_back_is_not_called_committed(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    """An abort may come before the new half has stored anything."""
    times = {"joining": 10, "catching-up": 15, "joint": 20, "ended": 21}
    phases = tuple(
        PhaseAt(phase=phase, index=index, time_ms=1000 * index) for phase, index in times.items()
    )
    record = attrs.evolve(ENDED.record, result="aborted", explanation="silent: n4", phases=phases)
    leader.views = [attrs.evolve(ENDED, record=record)]
    assert leader.run("add", "n4=127.0.0.1:7104") == 1
    lines = capsys.readouterr().err.splitlines()
    assert "C_old,new at index 20 is rolled back" in lines
    assert "restored at index 21: the voters are (n1 n2 n3), as before" in lines
    assert not any("committed" in line for line in lines)
