"""How a change was undone: the story in the record, as people read it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import attrs
import pytest

from raftctl.cli import main
from raftctl.rollback_text import POINT_OF_NO_RETURN, cause_lines, next_step
from raftd.cluster_status.operations import story_of, summary
from raftd.commands import Operation
from raftd.protocol import OperationView
from tests.raftctl.golden_files import Golden, Terminal
from tests.raftctl.leading import Leader
from tests.raftctl.speaking_servers import operation_record

pytestmark = pytest.mark.usefixtures("no_surroundings")

LOST_HALF = (
    "no majority of the new voters stored C_old,new: 2 of 3 are needed, silent: n4, n5, n6; "
    "C_new has it on 0 of 3 and needs 2, without n4 (silent for 4.1 s), n5 (silent for 4.1 s), "
    "n6 (it answers); restored: voters n1, n2, n3, learners none; next: see with `raftctl status` "
    "what became of these servers, then repeat the command whenever you like: what its new "
    "servers have received, they keep"
)
"""What a leader writes when the new half dies."""
NEW_HALF = ("n4/d", "n5/e", "n6/f")


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def undone(explanation: str = LOST_HALF) -> Operation:
    return operation_record(
        "joining",
        "catching-up",
        "joint",
        "ended",
        kind="replace",
        changes=(
            *(("remove", server) for server in ("n1/a", "n2/b", "n3/c")),
            *(("voter", server) for server in NEW_HALF),
        ),
        addresses={server: f"10.0.0.{server[1]}:7100" for server in NEW_HALF},
        voters_after=NEW_HALF,
        result="aborted",
        explanation=explanation,
    )


def test_the_story_has_its_parts_in_order() -> None:
    assert [label for label, _ in story_of(undone())] == [
        "stopped",
        "missing",
        "restored",
        "next",
    ]
    assert cause_lines(undone())[-1] == "restored: voters n1, n2, n3, learners none"
    assert next_step(undone()).startswith("see with `raftctl status` what became")


@pytest.mark.parametrize(
    ("explanation", "parts"),
    [
        ("", []),
        ("n4 was unreachable", [("stopped", "n4 was unreachable")]),
        (
            "aborted by bob: a; b; c; the configuration was never touched; next: repeat it",
            [
                ("stopped", "aborted by bob: a; b; c"),
                ("restored", "the configuration was never touched"),
                ("next", "repeat it"),
            ],
        ),
        (
            "no; restored: voters n1; kept, because it was verified: n2 at h:1; next: go",
            [
                ("stopped", "no"),
                ("restored", "voters n1"),
                ("kept", "n2 at h:1"),
                ("next", "go"),
            ],
        ),
        ("\x1b[2J", [("stopped", "\\x1b[2J")]),
    ],
)
def test_every_explanation_has_a_story(explanation: str, parts: list[tuple[str, str]]) -> None:
    assert story_of(undone(explanation)) == parts


def test_an_undone_change_looks_as_approved(
    leader: Leader, columns: int, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader.views = [OperationView(record=undone())]
    stdout = Terminal()
    monkeypatch.setattr("sys.stdout", stdout)
    assert main(["operation", "show", "op-1", "-e", leader.server.address]) == 0
    golden(f"operation_undone_{columns}", stdout.getvalue())


def test_the_error_of_an_undone_change_tells_the_story(
    leader: Leader, golden: Golden, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.views = [OperationView(record=undone())]
    assert main(["add", "n4=10.0.0.4:7100", "-e", leader.server.address]) == 1
    error = capsys.readouterr().err.partition("error: ")
    golden("error_of_an_undone_change", "".join(error[1:]).replace(leader.server.address, "HOST:1"))


def test_the_story_in_json_has_a_name_for_each_part(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.views = [OperationView(record=undone())]
    assert main(["operation", "show", "-e", leader.server.address, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["explanation"] == LOST_HALF
    assert [part["part"] for part in document["story"]] == [
        "stopped",
        "missing",
        "restored",
        "next",
    ]


def past_return() -> OperationView:
    return OperationView(record=operation_record("joining", "joint"), step="committing-final")


def test_past_the_point_of_no_return_show_says_so(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.views = [past_return()]
    assert main(["operation", "show", "-e", leader.server.address]) == 0
    assert POINT_OF_NO_RETURN in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("is_past", [True, False])
def test_a_stuck_change_offers_to_abort_it_only_while_that_is_possible(
    is_past: bool, leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    view = past_return()
    leader.views = [view if is_past else attrs.evolve(view, step="committing-joint")]
    words = ["operation", "watch", "op-1", "-e", leader.server.address, "--timeout", "200ms"]
    assert main(words) == 4
    error = capsys.readouterr().err
    assert (POINT_OF_NO_RETURN in error) == is_past
    assert ("operation abort op-1" in error) != is_past


def test_what_an_apply_and_a_readdress_are_about_is_said_in_a_few_words() -> None:
    record = undone()
    plan = attrs.evolve(record.plan, moved={"n2/b": "h:1"}, changes=(("voter", "n4/d"),))
    assert summary(attrs.evolve(record, kind="readdress", plan=plan)) == "readdress n4 n2"
    changes = (("remove", "n3/c"), ("voter", "n4/d"), ("learner", "n1/a"))
    plan = attrs.evolve(plan, changes=changes)
    assert summary(attrs.evolve(record, kind="apply", plan=plan)) == "apply +n4 -n3 ~n1 ~n2"
