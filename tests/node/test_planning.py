"""Refusals and plans as pure functions, case by case."""

from __future__ import annotations

import pytest

from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationEntry,
    ConfigurationKind,
)
from raftd.planning import (
    MEMBERS_MAX,
    TEXT_CHARACTERS_MAX,
    Intent,
    NewServer,
    Refused,
    assess,
    identify,
    make_plan,
    names,
    resolve,
    shortened,
    tolerance,
)
from raftd.protocol import ChangeRequest, MemberChange, StatusReply
from raftd.storage.identity import INCARNATION_DIGITS
from tests.node.asking import assert_hint_is_a_command
from tests.node.world import become, drop, new


def at(voters: str, learners: str = "", index: int = 9) -> ConfigurationAt:
    """Return a settled configuration; `n1` stands for `n1/a` at `n1:7100`."""
    voters_, learners_ = ([f"{name}/a" for name in text.split()] for text in (voters, learners))
    entry = ConfigurationEntry(
        configuration=Configuration(voters=voters_, learners=learners_),
        addresses={server: f"{server.partition('/')[0]}:7100" for server in [*voters_, *learners_]},
        kind=ConfigurationKind.FINAL,
    )
    return ConfigurationAt(index, entry)


def request(kind: str, *changes: MemberChange) -> ChangeRequest:
    return ChangeRequest(session="s", serial=1, kind=kind, changes=changes, author="ann")


def planned(latest: ConfigurationAt, kind: str, *changes: MemberChange, reachable: str = ""):
    """Return plan and view; new servers have the incarnation `b`."""
    intent = resolve(request(kind, *changes), latest)
    assert isinstance(intent, Intent)
    identities = {server.name: f"{server.name}/b" for server in intent.new}
    plan, _ = make_plan(intent, identities, latest)
    up = {f"{name}/a" for name in reachable.split()} if reachable else latest.configuration.members
    return plan, assess(plan, latest, up | set(identities.values()), commit_index=latest.index)


REFUSALS = [
    # what is asked, of which cluster, the server that is named, the rule, a part of the hint
    ("nobody", at("n1"), ("add", []), "names no server", "", ""),
    (
        "stranger removed",
        at("n1 n2 n3"),
        ("remove", [drop("n9")]),
        "n9 is not a member",
        "n1, n2, n3",
        "raftctl status",
    ),
    (
        "stranger promoted",
        at("n1"),
        ("promote", [become("n9", "voter")]),
        "n9 is not a member",
        "n1",
        "raftctl add n9=HOST:PORT",
    ),
    (
        "stranger demoted",
        at("n1 n2"),
        ("demote", [become("n9", "learner")]),
        "n9 is not a member",
        "n1, n2",
        "raftctl add n9=",
    ),
    (
        "named twice",
        at("n1 n2"),
        ("add", [new("n3"), new("n3", address="x:1")]),
        "n3 is named twice",
        "once",
        "",
    ),
    (
        "removed twice",
        at("n1 n2"),
        ("remove", [drop("n2"), drop("n2")]),
        "n2 is named twice",
        "once",
        "",
    ),
    (
        "removed and demoted",
        at("n1 n2"),
        ("remove", [drop("n2"), become("n2", "learner")]),
        "n2 is named twice",
        "once",
        "",
    ),
    (
        "voter added again",
        at("n1 n2"),
        ("add", [new("n2", address="x:1")]),
        "n2 is already a member",
        "voter at n2:7100",
        "raftctl replace n2 n2=x:1",
    ),
    (
        "learner added again",
        at("n1", "n2"),
        ("add", [new("n2", address="x:1")]),
        "n2 is already a member",
        "learner at n2:7100",
        "raftctl promote n2",
    ),
    (
        "address of a member",
        at("n1 n2"),
        ("add", [new("n3", address="n2:7100")]),
        "n2:7100 is the address of n2",
        "share an address",
        "n3",
    ),
    (
        "address of two",
        at("n1"),
        ("add", [new("n2", address="x:1"), new("n3", address="x:1")]),
        "n2 and n3 have the same address x:1",
        "share",
        "n3",
    ),
    (
        "address without port",
        at("n1"),
        ("add", [new("n2", address="host")]),
        "'host' is no address",
        "HOST:PORT",
        "n2=127.0.0.1",
    ),
    (
        "address without host",
        at("n1"),
        ("add", [new("n2", address=":1")]),
        "':1' is no address",
        "HOST:PORT",
        "n2=",
    ),
    ("port 0", at("n1"), ("add", [new("n2", address="h:0")]), "'h:0' is no address", "65535", ""),
    (
        "port too large",
        at("n1"),
        ("add", [new("n2", address="h:65536")]),
        "no address",
        "65535",
        "",
    ),
    (
        "port of letters",
        at("n1"),
        ("add", [new("n2", address="h:http")]),
        "no address",
        "65535",
        "",
    ),
    (
        "no role",
        at("n1 n2"),
        ("add", [become("n2", "king")]),
        "'king' is no role",
        "voter and learner",
        "",
    ),
    (
        "removed with an address",
        at("n1 n2"),
        ("remove", [MemberChange(role="remove", name="n2", address="n2:7100")]),
        "n2 is removed",
        "n2:7100",
        "raftctl remove n2",
    ),
    (
        "last voter removed",
        at("n1"),
        ("remove", [drop("n1")]),
        "cannot remove n1",
        "leaves no voter",
        "raftctl replace n1 NEW=HOST:PORT",
    ),
    (
        "last voter removed, learner there",
        at("n1", "n2"),
        ("remove", [drop("n1")]),
        "cannot remove n1",
        "leaves no voter",
        "raftctl replace n1",
    ),
    (
        "all voters removed",
        at("n1 n2"),
        ("remove", [drop("n1"), drop("n2")]),
        "cannot remove n1, n2",
        "leaves no voter",
        "at least one voter",
    ),
    (
        "all voters demoted",
        at("n1 n2"),
        ("demote", [become("n1", "learner"), become("n2", "learner")]),
        "cannot demote n1, n2",
        "leaves no voter",
        "at least one voter",
    ),
    (
        "last voter replaced by a learner",
        at("n1"),
        ("replace", [drop("n1"), new("n2", "learner")]),
        "cannot replace n1",
        "leaves no voter",
        "",
    ),
    (
        "too many",
        at("n1"),
        ("add", [new(f"m{n}") for n in range(MEMBERS_MAX)]),
        f"{MEMBERS_MAX + 1} members are too many",
        str(MEMBERS_MAX),
        "remove",
    ),
]


@pytest.mark.parametrize(
    ("latest", "asked", "message", "rule", "hint"),
    [case[1:] for case in REFUSALS],
    ids=[case[0] for case in REFUSALS],
)
def test_a_request_against_the_rules_is_refused_in_words(
    latest: ConfigurationAt,
    asked: tuple[str, list[MemberChange]],
    message: str,
    rule: str,
    hint: str,
) -> None:
    kind, changes = asked
    with pytest.raises(Refused) as refused:
        resolve(request(kind, *changes), latest)
    refusal = refused.value
    assert refusal.code in ("refused", "invalid")
    assert message in refusal.message
    assert rule in refusal.cause
    assert hint in refusal.hint
    assert_hint_is_a_command(refusal.hint)


@pytest.mark.parametrize(
    ("latest", "change", "why"),
    [
        (at("n1 n2"), become("n2", "voter"), "n2 is a voter already"),
        (at("n1", "n2"), become("n2", "learner"), "n2 is a learner already"),
    ],
)
def test_what_is_so_already_is_nothing_to_do(
    latest: ConfigurationAt, change: MemberChange, why: str
) -> None:
    assert resolve(request("promote", change), latest) == why


def test_something_to_do_beside_nothing_to_do_is_done() -> None:
    intent = resolve(
        request("promote", become("n1", "voter"), become("n2", "voter")), at("n1", "n2")
    )
    assert isinstance(intent, Intent)


def status(server: str, cluster_id: str = "", role: str = "blank") -> StatusReply:
    return StatusReply(
        server=server,
        version="",
        cluster_id=cluster_id,
        cluster_name="theirs" if cluster_id else "",
        role=role,
        term=0,
        leader="",
        leader_address="",
        leadership_confirmed=False,
        first_index=1,
        last_index=0,
        commit_index=0,
        applied_index=0,
        snapshot_index=0,
        revision=0,
        configuration=None,
    )


NEWCOMER = NewServer(name="n4", address="h:7104", voter=True)
OLD, NEW = "n4/" + "a" * INCARNATION_DIGITS, "n4/" + "b" * INCARNATION_DIGITS
FRAME = "f" * 4_000_000
"""A text that a stranger sends, nearly as long as a frame."""


def identified(answer: StatusReply | None, problem: str = "", removed_index: int | None = None):
    return identify(
        NEWCOMER,
        answer,
        problem,
        cluster_id="c1",
        cluster_name="orders",
        members={"n1/a", OLD},
        removed_index=removed_index,
    )


@pytest.mark.parametrize("cluster_id", ["", "c1"])
def test_a_blank_server_and_one_that_was_never_finished_may_come_in(cluster_id: str) -> None:
    assert identified(status(NEW, cluster_id, "learner")) == NEW


@pytest.mark.parametrize(
    ("answer", "problem", "removed_index", "message", "cause"),
    [
        (None, "connection refused", None, "no raftd answers at h:7104", "connection refused"),
        (None, FRAME, None, "no raftd answers at h:7104", "nothing was changed"),
        (status(NEW.replace("4", "5")), "", None, "h:7104 is n5", "calls itself n5"),
        (status(OLD, "c1"), "", None, "it is a member already", OLD),
        (status(NEW, "c2"), "", None, "belongs to another cluster", "'theirs' (c2)"),
        (status(NEW, FRAME), "", None, "belongs to another cluster", "'theirs' (fff"),
        (status(NEW, "c1"), "", 7, "it was removed from this cluster before", "index 7"),
        (status(NEW, "c1", "removed"), "", None, "was removed", "never comes back"),
        (status("n4"), "", None, "is no raftd", "'' is not an incarnation"),
        (status("n4/b"), "", None, "is no raftd", "'b' is not an incarnation"),
        (status(NEW + "b"), "", None, "is no raftd", "is not an incarnation"),
        (status(NEW.upper()), "", None, "is no raftd", "is not a name"),
        (status("n4/" + "B" * INCARNATION_DIGITS), "", None, "is no raftd", "0-9 and a-f"),
        (status(NEW[:-1] + "\n"), "", None, "is no raftd", "is not an incarnation"),
        (status(f"n4/{FRAME}"), "", None, "is no raftd", "is not an incarnation"),
        (status(f"{FRAME}/{NEW}"), "", None, "is no raftd", "is not a name"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_server_that_may_not_come_in_is_refused_with_what_it_is(
    answer: StatusReply | None, problem: str, removed_index: int | None, message: str, cause: str
) -> None:
    with pytest.raises(Refused) as refused:
        identified(answer, problem, removed_index)
    assert refused.value.code == "refused"
    assert message in refused.value.message
    assert "n4" in refused.value.message
    assert cause in refused.value.cause
    assert refused.value.hint
    assert_hint_is_a_command(refused.value.hint)
    reply = (refused.value.message, refused.value.cause, refused.value.hint)
    assert max(map(len, reply)) < 2 * TEXT_CHARACTERS_MAX


def test_a_text_of_others_is_cut_and_says_so() -> None:
    assert shortened("x" * TEXT_CHARACTERS_MAX) == "x" * TEXT_CHARACTERS_MAX
    assert shortened("x" * (TEXT_CHARACTERS_MAX + 1)) == "x" * (TEXT_CHARACTERS_MAX - 1) + "…"


PLANS = [
    # cluster, change, joint, voters and learners afterwards
    ("add", at("n1 n2 n3"), [new("n4")], True, "n1/a n2/a n3/a n4/b", ""),
    ("add learner", at("n1"), [new("n2", "learner")], False, "n1/a", "n2/b"),
    ("add both", at("n1"), [new("n2"), new("n3", "learner")], True, "n1/a n2/b", "n3/b"),
    ("remove", at("n1 n2 n3"), [drop("n3")], True, "n1/a n2/a", ""),
    ("remove learner", at("n1", "n2"), [drop("n2")], False, "n1/a", ""),
    ("replace", at("n1 n2 n3"), [drop("n3"), new("n4")], True, "n1/a n2/a n4/b", ""),
    ("replace itself", at("n1 n2 n3"), [drop("n3"), new("n3")], True, "n1/a n2/a n3/b", ""),
    (
        "replace all",
        at("n1 n2"),
        [drop("n1"), new("n3"), drop("n2"), new("n4")],
        True,
        "n3/b n4/b",
        "",
    ),
    ("replace learner", at("n1", "n2"), [drop("n2"), new("n3", "learner")], False, "n1/a", "n3/b"),
    (
        "swap names",
        at("n1 n2"),
        [drop("n1"), new("n2", address="x:1"), drop("n2"), new("n1", address="x:2")],
        True,
        "n1/b n2/b",
        "",
    ),
    ("promote", at("n1", "n2"), [become("n2", "voter")], True, "n1/a n2/a", ""),
    ("demote", at("n1 n2 n3"), [become("n3", "learner")], True, "n1/a n2/a", "n3/a"),
]


@pytest.mark.parametrize(
    ("latest", "changes", "joint", "voters", "learners"),
    [case[1:] for case in PLANS],
    ids=[case[0] for case in PLANS],
)
def test_a_plan_says_what_will_be(
    latest: ConfigurationAt, changes: list[MemberChange], joint: bool, voters: str, learners: str
) -> None:
    plan, plan_view = planned(latest, "change", *changes)
    assert plan.joint is plan_view.joint is joint
    assert plan.voters_after == plan_view.after.voters == tuple(voters.split())
    assert plan.learners_after == plan_view.after.learners == tuple(learners.split())
    assert plan.voters_before == plan_view.before.voters
    assert plan.configuration_index == latest.index
    assert set(plan_view.after.addresses) == {*plan.voters_after, *plan.learners_after}
    assert len(plan_view.changes) == len(changes)


def test_the_address_of_a_replaced_server_may_be_used_again() -> None:
    plan, _ = planned(at("n1 n2"), "replace", drop("n2"), new("n3", address="n2:7100"))
    assert plan.addresses == {"n3/b": "n2:7100"}


def test_a_name_in_a_new_incarnation_is_shown_as_such() -> None:
    _, plan_view = planned(at("n1 n2 n3"), "replace", drop("n3"), new("n3"))
    assert "n3 at n3:7100 joins as a voter (new incarnation b)" in plan_view.changes
    assert "n3 (voter) is removed for good and stops" in plan_view.changes


@pytest.mark.parametrize(
    ("latest", "changes", "reachable", "before", "during", "after"),
    [
        (at("n1 n2 n3"), [new("n4")], "n1 n2 n3", 1, 1, 1),
        (at("n1 n2 n3"), [new("n4"), new("n5")], "n1 n2 n3", 1, 1, 2),
        (at("n1 n2 n3"), [new("n4"), new("n5")], "n1 n2", 0, 0, 1),
        (at("n1 n2 n3"), [drop("n3")], "n1 n2", 0, 0, 0),
        (at("n1 n2 n3"), [drop("n3"), new("n4")], "n1 n2", 0, 0, 1),
        (at("n1 n2 n3 n4 n5"), [drop("n4"), drop("n5")], "n1 n2 n3 n4 n5", 2, 1, 1),
        (at("n1"), [new("n2", "learner")], "n1", 0, 0, 0),
    ],
)
def test_a_plan_says_how_many_failures_each_phase_survives(
    latest: ConfigurationAt,
    changes: list[MemberChange],
    reachable: str,
    before: int,
    during: int,
    after: int,
) -> None:
    _, plan_view = planned(latest, "change", *changes, reachable=reachable)
    assert plan_view.tolerance_before == before
    assert plan_view.tolerance_during == during
    assert plan_view.tolerance_after == after


@pytest.mark.parametrize(
    ("latest", "changes", "reachable", "cause", "hint"),
    [
        # the live one of two leaves
        (at("n1 n2 n3"), [drop("n2")], "n1 n2", "n1, n3 need 2 of 2", "raftctl replace n3"),
        (at("n1 n2 n3"), [become("n2", "learner")], "n1 n2", "n1 does, n3 not", "start n3"),
        (at("n1 n2 n3 n4 n5"), [drop("n1"), drop("n2")], "n1 n2 n3", "n3 does", "start n4, n5"),
        # the old half has no majority even now
        (at("n1 n2 n3"), [drop("n3"), new("n4")], "n1", "n1, n2, n3 need 2 of 3", "n2"),
    ],
)
def test_a_change_that_would_lose_the_quorum_is_unsafe_and_names_the_safe_way(
    latest: ConfigurationAt,
    changes: list[MemberChange],
    reachable: str,
    cause: str,
    hint: str,
) -> None:
    with pytest.raises(Refused) as refused:
        planned(latest, "change", *changes, reachable=reachable)
    assert refused.value.code == "unsafe"
    assert cause in refused.value.cause
    assert hint in refused.value.hint
    assert_hint_is_a_command(refused.value.hint)


@pytest.mark.parametrize(
    ("latest", "changes", "reachable", "warning"),
    [
        (at("n1 n2 n3"), [new("n4")], "", "4 voters survive no more failures than 3"),
        (at("n1 n2"), [drop("n2")], "", "one voter"),
        (at("n1 n2 n3"), [drop("n3")], "n1 n2", "n3 cannot be told now"),
    ],
)
def test_a_plan_warns_of_what_is_allowed_and_not_wise(
    latest: ConfigurationAt, changes: list[MemberChange], reachable: str, warning: str
) -> None:
    _, plan_view = planned(latest, "change", *changes, reachable=reachable)
    assert any(warning in text for text in plan_view.warnings)


def test_a_change_of_learners_is_safe_whoever_is_silent() -> None:
    _, plan_view = planned(at("n1 n2 n3"), "add", new("n4", "learner"), reachable="n1 n2")
    assert plan_view.warnings == ()


@pytest.mark.parametrize(
    ("count", "alive", "survives"),
    [(1, 1, 0), (2, 2, 0), (3, 3, 1), (3, 2, 0), (3, 1, -1), (5, 5, 2), (5, 2, -1), (4, 4, 1)],
)
def test_tolerance_counts_the_dead_already(count: int, alive: int, survives: int) -> None:
    voters = [f"n{number}" for number in range(count)]
    assert tolerance(voters, voters[:alive]) == survives


def test_names_show_the_incarnation_only_where_it_tells() -> None:
    assert names(["n2/b", "n1/a"]) == "n1, n2"
    assert names(["n2/b", "n2/a", "n1/a"]) == "n1, n2/a, n2/b"
    assert names([]) == "none"
