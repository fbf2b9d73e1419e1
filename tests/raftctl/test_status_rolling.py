"""What status and wait say of a rolling operation."""

from __future__ import annotations

import attrs
import pytest

from raftctl.status_text import Layout, text
from raftd.cluster_status.document import document
from raftd.cluster_status.view import ClusterView, is_stable, view
from raftd.commands import DONE, Operation, Plan, Rolling, RollingStep
from raftd.protocol import OperationView
from tests.raftctl.status_answers import all_of, answers, configuration

KNOWN = configuration("n1/a n2/b n3/c")


def rolling(paused_by: str = "") -> OperationView:
    record = Operation(
        id="op-9",
        kind="rolling-restart",
        author="bob@desk",
        reason="new kernel",
        plan=Plan(changes=(), joint=False, configuration_index=0),
        phase="rolling",
        rolling=Rolling(
            steps=(
                RollingStep(name="n2", state=DONE),
                RollingStep(name="n3"),
                RollingStep(name="n1"),
            ),
            command="restart {id}",
            driver="bob@desk",
            paused_by=paused_by,
        ),
    )
    return OperationView(record=record, step="paused" if paused_by else "rolling")


def seen(operation: OperationView) -> ClusterView:
    leader, *others = all_of(KNOWN)
    return view(answers(attrs.evolve(leader, rolling=operation), *others))


def test_status_shows_how_far_a_rolling_operation_is_and_who_drives_it() -> None:
    cluster = seen(rolling())
    assert (
        "ROLLING  op-9: rolling restart of n2 n3 n1, 1 of 3 steps done, driven by bob@desk"
        in "\n".join(text(cluster, Layout(width=120)))
    )
    found = document(cluster)
    assert found["operation"] is None
    assert found["rolling"]["id"] == "op-9"


def test_a_paused_one_is_shown_with_the_command_that_goes_on_with_it() -> None:
    shown = "\n".join(text(seen(rolling("alice@desk")), Layout(width=160)))
    assert "paused by alice@desk; raftctl rolling resume op-9" in shown


def test_a_driver_of_which_nothing_was_heard_may_be_gone() -> None:
    operation = rolling()
    assert operation.record.rolling is not None
    driven = attrs.evolve(operation.record.rolling, changed_ms=1_000)
    operation = attrs.evolve(operation, record=attrs.evolve(operation.record, rolling=driven))
    leader, *others = all_of(KNOWN)

    def shown(wall_clock_ms: int) -> str:
        leading = attrs.evolve(leader, rolling=operation, wall_clock_ms=wall_clock_ms)
        return "\n".join(text(view(answers(leading, *others)), Layout(width=220)))

    words = "driven by bob@desk; its last change was 1m 20s ago; if nobody drives it: raftctl"
    assert f"{words} rolling resume op-9" in shown(81_000)
    assert "its last change" not in shown(30_000)


def test_one_that_paused_itself_says_only_why() -> None:
    operation = rolling("bob@desk")
    assert operation.record.rolling is not None
    paused = attrs.evolve(operation.record.rolling, paused_reason="n3 failed")
    operation = attrs.evolve(operation, record=attrs.evolve(operation.record, rolling=paused))
    shown = "\n".join(text(seen(operation), Layout(width=160)))
    assert ", paused: n3 failed; raftctl rolling resume op-9" in shown


@pytest.mark.parametrize(("paused_by", "stable"), [("", False), ("alice@desk", True)])
def test_wait_for_stable_waits_for_a_rolling_operation_unless_it_is_paused(
    paused_by: str, stable: bool
) -> None:
    assert is_stable(seen(rolling(paused_by))) is stable
