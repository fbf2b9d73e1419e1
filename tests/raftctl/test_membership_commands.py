"""The membership commands: what they send and ask first, against scripted servers."""

from __future__ import annotations

import json

import pytest

from raftd.protocol import (
    ChangeReply,
    ChangeRequest,
    ErrorReply,
    MemberChange,
    OpenSessionRequest,
)
from tests.raftctl.golden_files import attached_terminal
from tests.raftctl.leading import BEFORE, ENDED, Leader
from tests.raftctl.speaking_servers import LOSE, Answer, configuration

pytestmark = pytest.mark.usefixtures("no_surroundings")


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

    assert leader.run(*words, "--reason", "because") == 0

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

    assert leader.run("replace", "n3", "n4=127.0.0.1:7104", "-y") == 0

    assert _sent(leader).changes[1].role == "learner"
    # The role was read from this configuration.
    assert _sent(leader).at_index == 7


def test_replace_of_a_stranger_is_refused_before_anything_is_sent(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leader.run("replace", "n9", "n4=127.0.0.1:7104", "-y") == 1
    assert leader.changes() == []
    error = capsys.readouterr().err
    assert "n9 is not a member" in error
    assert "n1 n2 n3" in error


def test_at_index_is_sent_along(leader: Leader) -> None:
    leader.views = [ENDED]
    assert leader.run("add", "n4=127.0.0.1:7104", "--at-index", "42") == 0
    assert _sent(leader).at_index == 42


def test_at_index_is_taken_as_it_is_printed(leader: Leader) -> None:
    leader.views = [ENDED]
    assert leader.run("add", "n4=127.0.0.1:7104", "--at-index", "1,004,182") == 0
    assert _sent(leader).at_index == 1_004_182
    assert leader.run("add", "n4=127.0.0.1:7104", "--at-index", "41,82") == 2


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
    assert leader.run(*words) == 2
    assert leader.server.requests == []


@pytest.mark.parametrize(
    ("code", "exit_code"), [("refused", 1), ("invalid", 1), ("unsafe", 6), ("session-expired", 1)]
)
def test_a_refusal_ends_with_its_code_and_the_words_of_the_leader(
    code: str, exit_code: int, leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.change_reply = ErrorReply(code=code, message="no", cause="so", hint="do this instead")
    assert leader.run("add", "n4=127.0.0.1:7104", "-o", "json") == exit_code
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

    assert leader.run("add", "n4=127.0.0.1:7104") == 0

    first, second = leader.changes()
    assert first == second


# --- asking first -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["remove", "n3"], ["replace", "n3", "n4=127.0.0.1:7104"], ["demote", "n3"]]
)
def test_what_would_have_to_ask_is_refused_at_once_without_a_terminal(
    words: list[str], leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leader.run(*words) == 2
    assert leader.server.requests == []
    assert "--yes" in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["y\n", "n\n", "\n", ""])
def test_the_effect_is_said_before_the_question(
    typed: str, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = attached_terminal(monkeypatch, typed)
    leader.views = [ENDED]

    code = leader.run("remove", "n3")

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
    assert leader.run("remove", "n3", "--yes") == 0
    assert [change.dry_run for change in leader.changes()] == [True, False]


def test_a_refused_change_has_opened_no_session(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    """A session is an entry of the log, and a refusal appends nothing."""
    leader.refusal = ErrorReply(code="refused", message="n9 is not a member")
    assert leader.run("remove", "n9", "--yes") == 1
    assert "n9 is not a member" in capsys.readouterr().err
    asked = [type(request) for request in leader.server.requests]
    assert OpenSessionRequest not in asked


def test_a_dry_run_changes_nothing_and_needs_no_yes(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leader.run("remove", "n3", "--dry-run") == 0
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
    assert leader.run("add", "n4=127.0.0.1:7104", "--dry-run", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["operation"] is None
    assert document["configuration"]["voters"] == ["n1", "n2", "n3"]
    assert document["plan"]["after"]["voters"] == ["n1", "n2", "n3", "n4"]
    assert document["plan"]["tolerance_during"] == 1
