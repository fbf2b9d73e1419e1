"""What people see of a plan: its phases, what it copies, what it warns of."""

from __future__ import annotations

import attrs
import pytest

from raftd.core.membership import ConfigurationAt
from raftd.plan_views import CATCH_UP_ROUNDS, COPY_BYTES_PER_SECOND_MAX, Copy
from raftd.protocol import MemberChange, PlanPhase, PlanView
from tests.node.test_planning import HEARTBEAT_MS, PACE, at, planned
from tests.node.world import become, drop, new, readdress

ROUNDS_MS = CATCH_UP_ROUNDS * HEARTBEAT_MS
SNAPSHOT = Copy(snapshot_bytes=8_000_000, log_bytes=500_000)
SNAPSHOT_MS = 8_500


def seen(latest: ConfigurationAt, *changes: MemberChange, **more: object) -> PlanView:
    return planned(latest, "apply", *changes, **more)[1]


def phase(plan_view: PlanView, name: str) -> PlanPhase:
    (found,) = [phase for phase in plan_view.phases if phase.name == name]
    return found


@pytest.mark.parametrize(
    ("latest", "changes", "names"),
    [
        (at("n1 n2 n3"), [new("n4")], "settled joining catching-up joint final"),
        (at("n1 n2 n3"), [new("n4", "learner")], "settled joining final"),
        (at("n1 n2 n3"), [drop("n3")], "settled joint final"),
        (at("n1 n2", "n3"), [become("n3", "voter")], "settled catching-up joint final"),
        (at("n1 n2"), [become("n2", "learner")], "settled joint final"),
        (at("n1 n2", "n3"), [drop("n3")], "settled final"),
        (at("n1 n2"), [readdress("n2", "x:1")], "settled final"),
        (
            at("n1 n2"),
            [readdress("n2", "x:1"), drop("n1"), new("n3")],
            "settled joining catching-up joint final",
        ),
    ],
)
def test_a_plan_goes_through_the_phases_that_it_needs(
    latest: ConfigurationAt, changes: list[MemberChange], names: str
) -> None:
    plan_view = seen(latest, *changes)
    assert [phase.name for phase in plan_view.phases] == names.split()
    assert all(phase.words for phase in plan_view.phases)
    assert phase(plan_view, "settled").tolerance == plan_view.tolerance_before
    assert phase(plan_view, "final").tolerance == plan_view.tolerance_after
    if plan_view.joint:
        assert phase(plan_view, "joint").tolerance == plan_view.tolerance_during


def test_the_joint_phase_needs_both_majorities_and_says_who_of_them_answers() -> None:
    changes = [drop("n3"), new("n4"), new("n5")]
    plan_view = seen(at("n1 n2 n3"), *changes, reachable="n1 n2")
    old, fresh = phase(plan_view, "joint").quorums
    assert (old.voters, old.needed, old.alive) == (("n1/a", "n2/a", "n3/a"), 2, ("n1/a", "n2/a"))
    assert (fresh.voters, fresh.needed) == (("n1/a", "n2/a", "n4/b", "n5/b"), 3)
    assert fresh.alive == fresh.voters
    for name in ("settled", "joining", "catching-up"):
        assert phase(plan_view, name).quorums == (old,)
    assert phase(plan_view, "final").quorums == (fresh,)
    assert [found.tolerance for found in plan_view.phases] == [0, 0, 0, 0, 1]


# --- how much and how long ----------------------------------------------------------------------


def test_what_is_copied_is_the_snapshot_and_the_log_for_each_new_server() -> None:
    copies = {"n4/b": SNAPSHOT, "n5/b": Copy(log_bytes=300)}
    plan_view = seen(at("n1 n2 n3"), new("n4"), new("n5"), copies=copies)
    assert plan_view.bytes_to_copy == 8_500_300
    # All are fed at the same time: the slowest counts.
    assert phase(plan_view, "catching-up").expected_ms == SNAPSHOT_MS + ROUNDS_MS
    assert plan_view.expected_ms == SNAPSHOT_MS + ROUNDS_MS + 3 * HEARTBEAT_MS


def test_a_learner_that_has_caught_up_has_nothing_to_copy() -> None:
    plan_view = seen(at("n1 n2", "n3"), become("n3", "voter"))
    assert plan_view.bytes_to_copy == 0
    assert phase(plan_view, "catching-up").expected_ms == ROUNDS_MS


def test_a_new_learner_is_not_waited_for() -> None:
    plan_view = seen(at("n1"), new("n2", "learner"), copies={"n2/b": SNAPSHOT})
    assert plan_view.bytes_to_copy == SNAPSHOT.size_bytes
    assert plan_view.expected_ms == 2 * HEARTBEAT_MS


@pytest.mark.parametrize(
    ("limits", "copy", "known"),
    [
        ({"catch_up_bytes_per_second": 0}, SNAPSHOT, False),
        ({"catch_up_bytes_per_second": 1}, SNAPSHOT, True),
        ({"catch_up_bytes_per_second": 0}, Copy(), True),
    ],
)
def test_without_a_limit_nobody_can_say_how_long_a_copy_takes(
    limits: dict[str, int], copy: Copy, known: bool
) -> None:
    pace = attrs.evolve(PACE, **limits)
    plan_view = seen(at("n1"), new("n2"), copies={"n2/b": copy}, pace=pace)
    assert (phase(plan_view, "catching-up").expected_ms is not None) is known
    assert (plan_view.expected_ms is not None) is known
    assert phase(plan_view, "joint").expected_ms == HEARTBEAT_MS


def test_a_high_limit_is_no_promise() -> None:
    pace = attrs.evolve(PACE, catch_up_bytes_per_second=1 << 40)
    copy = Copy(snapshot_bytes=3 * COPY_BYTES_PER_SECOND_MAX, log_bytes=COPY_BYTES_PER_SECOND_MAX)
    plan_view = seen(at("n1"), new("n2"), copies={"n2/b": copy}, pace=pace)
    assert phase(plan_view, "catching-up").expected_ms == 4000 + ROUNDS_MS


def test_the_state_as_it_is_takes_no_time() -> None:
    plan_view = seen(at("n1 n2"), readdress("n2", "x:1"))
    assert phase(plan_view, "settled").expected_ms is None
    assert plan_view.expected_ms == HEARTBEAT_MS


# --- warnings -----------------------------------------------------------------------------------

FIVE = at("n1 n2 n3 n4 n5")


@pytest.mark.parametrize(
    ("latest", "changes", "more", "warnings"),
    [
        (at("n1 n2 n3"), [new("n4"), new("n5")], {}, []),
        (
            at("n1 n2 n3"),
            [new("n4")],
            {},
            ["4 voters survive no more failures than 3; an odd number is better (now 3)"],
        ),
        (
            FIVE,
            [drop("n5"), drop("n4")],
            {},
            ["afterwards the cluster survives one failure, now 2 failures"],
        ),
        (
            at("n1 n2 n3"),
            [drop("n3"), drop("n2")],
            {},
            [
                "one voter: the loss of this server is the loss of the cluster",
                "afterwards the cluster survives no further failure, now one failure",
            ],
        ),
        (
            FIVE,
            [drop(f"n{n}") for n in (3, 4, 5)] + [new("n6")],
            {},
            ["afterwards the cluster survives one failure, now 2 failures"],
        ),
        (
            at("n1 n2 n3"),
            [drop("n3"), new("n4")],
            {"reachable": "n1 n2"},
            [
                "n3 cannot be told now; started again with its old data it is told that it was "
                "removed, and stops"
            ],
        ),
        (
            at("n1 n2 n3"),
            [new("n4"), new("n5")],
            {"reachable": "n1 n2", "problems": {"n3/a": "connection refused"}},
            ["n3 does not answer now: connection refused"],
        ),
        (
            at("n1 n2 n3", "n4"),
            [readdress("n1", "x:1")],
            {"reachable": "n1 n2 n3"},
            ["n4 does not answer now"],
        ),
    ],
)
def test_a_plan_warns_of_what_is_allowed_and_not_wise(
    latest: ConfigurationAt,
    changes: list[MemberChange],
    more: dict[str, object],
    warnings: list[str],
) -> None:
    # Even numbers have their own warning, which is of no interest elsewhere.
    found = [text for text in seen(latest, *changes, **more).warnings if text not in warnings]
    assert [text for text in found if "an odd number is better" not in text] == []
    assert set(warnings) <= set(seen(latest, *changes, **more).warnings)


@pytest.mark.parametrize(
    ("voters", "zones", "warning"),
    [
        ("n1 n2 n3", "n1=east n2=east n3=west", "zone east has 2 of 3 voters (n1, n2)"),
        ("n1 n2 n3", "n1=east n2=west n3=north", ""),
        ("n1 n2 n3", "n1=east n2=east", "zone east has 2 of 3 voters (n1, n2)"),
        ("n1 n2 n3", "", ""),
        ("n1 n2 n3 n4 n5", "n1=east n2=east n3=west n4=west n5=north", ""),
        # Half of them is no majority, but what is left is none either.
        ("n1 n2 n3 n4", "n1=east n2=east n3=west n4=north", "zone east has 2 of 4 voters"),
    ],
)
def test_a_zone_without_which_there_is_no_majority_is_warned_of(
    voters: str, zones: str, warning: str
) -> None:
    *before, last = voters.split()
    plan_view = seen(
        at(" ".join(before)), new(last), zones=dict(pair.split("=") for pair in zones.split())
    )
    found = [text for text in plan_view.warnings if text.startswith("zone ")]
    assert len(found) == bool(warning)
    assert all(text.startswith(warning) for text in found)
