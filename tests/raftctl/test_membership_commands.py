"""The membership commands: what they send, ask, show and end with, against scripted servers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import attrs
import pytest

from raftctl import watch as watching
from raftctl.cli import main
from raftctl.render import Style, configuration_document, display_names, width_of
from raftd.commands import PhaseAt
from raftd.protocol import (
    AbortRequest,
    ChangeReply,
    ChangeRequest,
    ConfigurationView,
    ErrorReply,
    MajorityView,
    MemberChange,
    OpenSessionRequest,
    OperationsReply,
    OperationsRequest,
    OperationView,
    PeerView,
    Request,
    StatusRequest,
)
from tests.raftctl.leading import BEFORE, Leader
from tests.raftctl.speaking_servers import (
    LOSE,
    Answer,
    configuration,
    operation_record,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")


@pytest.fixture
def leader() -> Iterator[Leader]:
    with speaking_servers("n1/a") as [server]:
        yield Leader(server)


def _run(leader: Leader, *words: str) -> int:
    return main([*words, "-e", leader.server.address, "--timeout", "5s"])


def _peer(match_index: int, *, caught_up: bool = False, rounds: int = 2) -> PeerView:
    return PeerView(
        server="n4/d",
        match_index=match_index,
        lag_entries=1000 - match_index,
        last_contact_ms=3.0,
        caught_up=caught_up,
        rounds=rounds,
        connected=True,
    )


ENDED = OperationView(record=operation_record("joining", "joint", "ended", result="done"))
OLD = MajorityView(servers=("n1/a", "n2/b", "n3/c"), acknowledged=("n1/a", "n2/b"), needed=2)
NEW = MajorityView(
    servers=("n1/a", "n2/b", "n3/c", "n4/d"), acknowledged=("n1/a", "n2/b"), needed=3
)


def _story() -> list[OperationView]:
    """The views of a joint change from its first moment to its end."""
    catching_up = operation_record("joining", "catching-up")
    return [
        OperationView(record=operation_record("joining"), step="joining"),
        OperationView(record=catching_up, step="catching-up", peers=(_peer(124),), last_index=1000),
        OperationView(record=catching_up, step="catching-up", peers=(_peer(510),), last_index=1000),
        OperationView(
            record=catching_up,
            step="committing-joint",
            index=20,
            old=OLD,
            new=NEW,
            peers=(_peer(1000, caught_up=True),),
            last_index=1000,
        ),
        OperationView(
            record=operation_record("joining", "catching-up", "joint", "ended", result="done")
        ),
    ]


# --- what is sent -----------------------------------------------------------------------------


def _sent(leader: Leader) -> ChangeRequest:
    (change,) = [change for change in leader.changes() if not change.dry_run]
    return change


@pytest.mark.parametrize(
    ("words", "kind", "changes"),
    [
        (
            ["add", "n4=127.0.0.1:7104", "n5=127.0.0.1:7105"],
            "add",
            [("voter", "n4", "127.0.0.1:7104"), ("voter", "n5", "127.0.0.1:7105")],
        ),
        (["add", "n4=127.0.0.1:7104", "--learner"], "add", [("learner", "n4", "127.0.0.1:7104")]),
        (["remove", "n2", "n3", "-y"], "remove", [("remove", "n2", ""), ("remove", "n3", "")]),
        (
            ["replace", "n3", "n4=127.0.0.1:7104", "-y"],
            "replace",
            [("remove", "n3", ""), ("voter", "n4", "127.0.0.1:7104")],
        ),
        (
            ["replace", "n2", "n2=127.0.0.1:7109", "-y"],
            "replace",
            [("remove", "n2", ""), ("voter", "n2", "127.0.0.1:7109")],
        ),
        (["promote", "n4"], "promote", [("voter", "n4", "")]),
        (
            ["readdress", "n2=127.0.0.1:7202", "n3=127.0.0.1:7203"],
            "readdress",
            [("readdress", "n2", "127.0.0.1:7202"), ("readdress", "n3", "127.0.0.1:7203")],
        ),
        (["demote", "n3", "-y"], "demote", [("learner", "n3", "")]),
    ],
)
def test_a_command_sends_one_change(
    words: list[str], kind: str, changes: list[tuple[str, str, str]], leader: Leader
) -> None:
    leader.views = [ENDED]

    assert _run(leader, *words, "--reason", "because") == 0

    change = _sent(leader)
    assert change.kind == kind
    assert change.reason == "because"
    assert change.author.startswith("alice@")
    assert change.changes == tuple(
        MemberChange(role=role, name=name, address=address) for role, name, address in changes
    )
    assert OpenSessionRequest(session=change.session) in leader.server.requests


def test_replace_takes_over_the_role_of_the_old_server(leader: Leader) -> None:
    leader.after = configuration(*BEFORE, learners=("n3/c",), index=7)
    leader.views = [ENDED]

    assert _run(leader, "replace", "n3", "n4=127.0.0.1:7104", "-y") == 0

    assert _sent(leader).changes[1].role == "learner"
    # The role was read from this configuration.
    assert _sent(leader).at_index == 7


def test_replace_of_a_stranger_is_refused_before_anything_is_sent(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(leader, "replace", "n9", "n4=127.0.0.1:7104", "-y") == 1
    assert leader.changes() == []
    error = capsys.readouterr().err
    assert "n9 is not a member" in error
    assert "n1 n2 n3" in error


def test_at_index_is_sent_along(leader: Leader) -> None:
    leader.views = [ENDED]
    assert _run(leader, "add", "n4=127.0.0.1:7104", "--at-index", "42") == 0
    assert _sent(leader).at_index == 42


def test_at_index_is_taken_as_it_is_printed(leader: Leader) -> None:
    leader.views = [ENDED]
    assert _run(leader, "add", "n4=127.0.0.1:7104", "--at-index", "1,004,182") == 0
    assert _sent(leader).at_index == 1_004_182
    assert _run(leader, "add", "n4=127.0.0.1:7104", "--at-index", "41,82") == 2


@pytest.mark.parametrize(
    "words",
    [
        ["add", "n4"],
        ["add", "N4=127.0.0.1:7104"],
        ["add", "n4=127.0.0.1"],
        ["add", "n4=127.0.0.1:99999"],
        ["add", "n4=127.0.0.1:7104", "n4=127.0.0.1:7105"],
        ["add", "n4=127.0.0.1:7104", "n5=127.0.0.1:7104"],
        ["add"],
        ["add", "n4=127.0.0.1:7104", "--at-index", "0"],
        ["remove", "n1", "n1", "-y"],
        ["remove", "n1!", "-y"],
        ["replace", "n1", "-y"],
        ["replace", "n1", "n4=127.0.0.1:7104", "n2", "-y"],
        ["replace", "n1", "n4", "-y"],
        ["replace", "n1", "n4=127.0.0.1:7104", "n1", "n5=127.0.0.1:7105", "-y"],
        ["readdress", "n1", "127.0.0.1:7104"],
        ["readdress", "n1=127.0.0.1:7104", "n2=127.0.0.1:7104"],
        ["transfer", "n1", "n2"],
    ],
)
def test_wrong_arguments_exit_with_2_and_send_nothing(words: list[str], leader: Leader) -> None:
    assert _run(leader, *words) == 2
    assert leader.server.requests == []


@pytest.mark.parametrize(
    ("code", "exit_code"), [("refused", 1), ("invalid", 1), ("unsafe", 6), ("session-expired", 1)]
)
def test_a_refusal_ends_with_its_code_and_the_words_of_the_leader(
    code: str, exit_code: int, leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.change_reply = ErrorReply(code=code, message="no", cause="so", hint="do this instead")
    assert _run(leader, "add", "n4=127.0.0.1:7104", "-o", "json") == exit_code
    assert json.loads(capsys.readouterr().err)["error"] == {
        "code": code,
        "message": "no",
        "cause": "so",
        "hint": "do this instead",
    }


def test_a_lost_answer_is_asked_for_again_with_the_same_serial(leader: Leader) -> None:
    replies: list[Answer] = [LOSE, ChangeReply(operation="op-1")]
    leader.views = [ENDED]
    answer = leader.answer
    leader.server.answer = lambda request: (
        replies.pop(0) if isinstance(request, ChangeRequest) else answer(request)
    )

    assert _run(leader, "add", "n4=127.0.0.1:7104") == 0

    first, second = leader.changes()
    assert first == second


# --- asking first -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["remove", "n3"], ["replace", "n3", "n4=127.0.0.1:7104"], ["demote", "n3"]]
)
def test_what_would_have_to_ask_is_refused_at_once_without_a_terminal(
    words: list[str], leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(leader, *words) == 2
    assert leader.server.requests == []
    assert "--yes" in capsys.readouterr().err


class _Typed(io.StringIO):
    def isatty(self) -> bool:
        return True


def _attach_terminal(monkeypatch: pytest.MonkeyPatch, typed: str = "") -> _Typed:
    """Put a terminal on stdin and stderr, with `typed` waiting in it; return its stderr.

    Called by the test itself, since pytest puts its own streams in place before each phase.
    """
    stream = _Typed()
    monkeypatch.setattr("sys.stdin", _Typed(typed))
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return stream


@pytest.mark.parametrize("typed", ["y\n", "n\n", "\n", ""])
def test_the_effect_is_said_before_the_question(
    typed: str, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = _attach_terminal(monkeypatch, typed)
    leader.views = [ENDED]

    code = _run(leader, "remove", "n3")

    shown = terminal.getvalue()
    assert "+ n4 127.0.0.1:7104 voter" in shown
    assert "2 of 3 (n1 n2 n3) and" in shown
    assert "Proceed?" in shown
    assert leader.changes()[0].dry_run
    if typed == "y\n":
        assert code == 0
        # The answer was given for this configuration.
        assert _sent(leader).at_index == leader.before.index
    else:
        assert code == (130 if not typed else 1)
        assert len(leader.changes()) == 1


def test_with_yes_nothing_is_asked(leader: Leader) -> None:
    leader.views = [ENDED]
    assert _run(leader, "remove", "n3", "--yes") == 0
    assert [change.dry_run for change in leader.changes()] == [True, False]


def test_a_refused_change_has_opened_no_session(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    """A session is an entry of the log, and a refusal appends nothing."""
    leader.refusal = ErrorReply(code="refused", message="n9 is not a member")
    assert _run(leader, "remove", "n9", "--yes") == 1
    assert "n9 is not a member" in capsys.readouterr().err
    asked = [type(request) for request in leader.server.requests]
    assert OpenSessionRequest not in asked


def test_a_dry_run_changes_nothing_and_needs_no_yes(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(leader, "remove", "n3", "--dry-run") == 0
    (change,) = leader.changes()
    assert change.dry_run
    assert not any(isinstance(request, OpenSessionRequest) for request in leader.server.requests)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "+ n4 127.0.0.1:7104 voter"
    table = [" ".join(line.split()) for line in lines[3:8]]
    assert table == [
        "PHASE HAS TO AGREE SURVIVES",
        "now 2 of 3 (n1 n2 n3) 1 failure",
        "joint 2 of 3 (n1 n2 n3) and 1 failure",
        "3 of 4 (n1 n2 n3 n4)",
        "after 3 of 4 (n1 n2 n3 n4) 1 failure",
    ]
    # What it says is the very command, for the configuration that the plan was made for.
    address = leader.server.address
    assert lines[-1] == f"raftctl remove n3 -e {address} --timeout 5s --at-index 7"


def test_a_dry_run_as_json_has_the_plan(leader: Leader, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(leader, "add", "n4=127.0.0.1:7104", "--dry-run", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["operation"] is None
    assert document["configuration"]["voters"] == ["n1", "n2", "n3"]
    assert document["plan"]["after"]["voters"] == ["n1", "n2", "n3", "n4"]
    assert document["plan"]["tolerance_during"] == 1


# --- following it -----------------------------------------------------------------------------


def test_progress_off_a_terminal_is_plain_lines(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.views = _story()

    assert _run(leader, "add", "n4=127.0.0.1:7104") == 0

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
    assert _run(leader, "add", "n4=127.0.0.1:7104") == 0
    assert "4 voters survive no more failures than 3" in capsys.readouterr().err


def test_numbers_that_move_a_little_do_not_flood_the_log(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    record = operation_record("catching-up")
    leader.views = [
        OperationView(record=record, step="catching-up", peers=(_peer(index),), last_index=1000)
        for index in range(10, 1000, 10)
    ] + [ENDED]

    assert _run(leader, "add", "n4=127.0.0.1:7104") == 0

    shown = [line for line in capsys.readouterr().err.splitlines() if "catching up:" in line]
    assert len(shown) == 4


def _installing(received: int, installed: int = 0, rate: int = 4 << 20) -> PeerView:
    return attrs.evolve(
        _peer(0, rounds=0),
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
            attrs.evolve(_peer(400), lag_bytes=6 << 10),
            "400 of 1,000 entries, 40%, 600 remaining (6.0 KiB), round 3",
        ),
    ],
)
def test_a_server_that_catches_up_shows_bytes_rate_remaining_time_and_round(
    peer: PeerView, line: str
) -> None:
    assert watching.describe_peer(peer, 1000, None) == f"n4: catching up: {line}"


def test_the_rate_of_entries_is_said_in_bytes_as_well() -> None:
    peer = attrs.evolve(_peer(400), lag_bytes=6 << 10, catch_up_bytes_per_second=2048)
    assert "200/s (2.0 KiB/s), 600 remaining (6.0 KiB), about 3.0s" in watching.describe_peer(
        peer, 1000, 200.0
    )


ENTRIES_LEFT = attrs.evolve(_peer(412_345), lag_bytes=300 << 20, catch_up_bytes_per_second=4 << 20)


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

    assert _run(leader, "add", "n4=127.0.0.1:7104") == 0

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
    assert _run(leader, "add", "n4=127.0.0.1:7104") == 0
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
    assert _run(leader, "add", "n4=127.0.0.1:7104") == 0
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
    for peer in (_installing(50, 10), _installing(50, 50), _peer(500), _peer(505), _peer(510)):
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
    assert _run(leader, "add", "n4=127.0.0.1:7104", "-o", "json") == 0
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
    leader.views = _story()

    assert _run(leader, "add", "n4=127.0.0.1:7104", "-o", "json") == 0

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
    terminal = _attach_terminal(monkeypatch)
    leader.views = _story()
    assert _run(leader, "add", "n4=127.0.0.1:7104", "--color", "never") == 0
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

    assert _run(leader, "add", "n4=127.0.0.1:7104") == 1

    error = capsys.readouterr().err
    assert f"op-1 (add n4) {'was aborted' if result == 'aborted' else 'failed'}" in error
    assert "n4 did not answer within 30s" in error
    assert "operation show op-1" in error


def test_no_wait_prints_the_operation_and_returns(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(leader, "add", "n4=127.0.0.1:7104", "--no-wait") == 0
    captured = capsys.readouterr()
    assert captured.out == "op-1\n"
    assert "operation watch op-1" in captured.err
    assert not any(isinstance(request, OperationsRequest) for request in leader.server.requests)


def test_nothing_to_do_exits_with_0(leader: Leader, capsys: pytest.CaptureFixture[str]) -> None:
    leader.change_reply = ChangeReply(operation="", nothing_to_do="n3 is a voter already")
    assert _run(leader, "promote", "n3", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["operation"], document["result"]) == (None, "done")


def test_without_progress_the_watch_ends_with_4_and_the_operation_goes_on(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck = OperationView(
        record=operation_record("catching-up"),
        step="catching-up",
        peers=(_peer(124),),
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
        OperationView(record=record, step="catching-up", peers=(_peer(index),), last_index=1000)
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
    assert _run(leader, "add", "n4=127.0.0.1:7104") == 130
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
            peers=(_peer(10),),
            last_index=1000,
        )

        def answer_and_die(request: Request) -> Answer:
            if len(old.requests) > 6:
                return LOSE
            first.views = [catching_up]
            return first.answer(request)

        old.answer = answer_and_die
        assert _run(first, "add", f"n4={new.address}") == 0
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
        assert _run(leader, "add", "n4=127.0.0.1:7104") == 0


# --- operation --------------------------------------------------------------------------------


def test_operation_list_shows_a_line_for_each(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.views = [ENDED]
    assert _run(leader, "operation", "list") == 0
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
    assert _run(leader, "operation", "show", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["id"], document["phase"], document["step"]) == (
        "op-8",
        "catching-up",
        "catching-up",
    )


def test_operation_show_tells_the_story(leader: Leader, capsys: pytest.CaptureFixture[str]) -> None:
    record = operation_record("joining", "ended", result="failed", explanation="n4 is unreachable")
    leader.views = [OperationView(record=record)]
    assert _run(leader, "operation", "show", "1") == 0
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
    assert _run(leader, "operation", word, "op-99", "-y") == 1


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
    assert _run(leader, "operation", "watch", "op-99") == 1
    assert asked > 1
    assert "no operation op-99" in capsys.readouterr().err


def test_abort_sends_who_and_why_and_waits_for_the_end(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    running = OperationView(record=operation_record("catching-up"), step="catching-up")
    aborted = OperationView(record=operation_record("catching-up", "ended", result="aborted"))
    leader.views = [running, aborted]

    assert _run(leader, "operation", "abort", "-y", "--reason", "wrong server") == 0

    (request,) = [item for item in leader.server.requests if isinstance(item, AbortRequest)]
    assert (request.operation, request.reason, request.session) == ("op-1", "wrong server", "")
    assert request.author.startswith("alice@")
    assert "undone" in capsys.readouterr().err


def test_an_abort_that_comes_too_late_exits_with_1(leader: Leader) -> None:
    leader.views = [OperationView(record=operation_record("joint")), ENDED]
    assert _run(leader, "operation", "abort", "-y") == 1


def test_abort_of_what_has_ended_is_refused_and_sends_nothing(leader: Leader) -> None:
    leader.views = [ENDED]
    assert _run(leader, "operation", "abort", "op-1", "-y") == 1
    assert not any(isinstance(request, AbortRequest) for request in leader.server.requests)


def test_abort_asks_first(leader: Leader) -> None:
    assert _run(leader, "operation", "abort") == 2
    assert leader.server.requests == []


# --- configurations as JSON -------------------------------------------------------------------


def test_names_lose_their_incarnation_unless_a_name_is_there_twice() -> None:
    assert display_names(["n1/a", "n2/b", "n2/c"]) == {
        "n1/a": "n1",
        "n2/b": "n2/b",
        "n2/c": "n2/c",
    }


def test_a_joint_configuration_shows_both_halves() -> None:
    view = ConfigurationView(
        index=5,
        committed=False,
        joint=True,
        voters=("n1/a", "n2/new"),
        outgoing=("n1/a", "n2/old"),
        learners=("n5/e",),
    )
    assert configuration_document(view) == {
        "index": 5,
        "committed": False,
        "joint": True,
        "voters": ["n1", "n2/new"],
        "outgoing": ["n1", "n2/old"],
        "learners": ["n5"],
    }


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
    assert _run(leader, "add", "n4=127.0.0.1:7104") == 1
    lines = capsys.readouterr().err.splitlines()
    assert "C_old,new at index 20 is rolled back" in lines
    assert "restored at index 21: the voters are (n1 n2 n3), as before" in lines
    assert not any("committed" in line for line in lines)
