"""Refusals and plans as pure functions, case by case."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from raftd import planning
from raftd.config_values import parse_address
from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationEntry,
    ConfigurationKind,
)
from raftd.core.types import ServerId, server_name
from raftd.plan_views import Pace, Situation, assess
from raftd.planning import (
    MEMBERS_MAX,
    TEXT_CHARACTERS_MAX,
    Intent,
    MovedServer,
    NewServer,
    Refused,
    identify,
    identify_moved,
    make_plan,
    names,
    refuse_other_disk,
    resolve,
    shortened,
)
from raftd.protocol import MemberChange, StatusReply
from raftd.storage.identity import INCARNATION_DIGITS
from tests.node.asking import assert_hint_is_a_command
from tests.node.world import become, drop, new, readdress


def at(voters: str, learners: str = "", index: int = 9) -> ConfigurationAt:
    """Return a settled configuration; `n1` stands for `n1/a` at `n1:7100`."""
    voters_, learners_ = ([f"{name}/a" for name in text.split()] for text in (voters, learners))
    entry = ConfigurationEntry(
        configuration=Configuration(voters=voters_, learners=learners_),
        addresses={server: f"{server.partition('/')[0]}:7100" for server in [*voters_, *learners_]},
        kind=ConfigurationKind.FINAL,
    )
    return ConfigurationAt(index, entry)


HEARTBEAT_MS = 50
PACE = Pace(
    heartbeat_interval_ms=HEARTBEAT_MS,
    catch_up_bytes_per_second=1_000_000,
)


def planned(
    latest: ConfigurationAt, kind: str, *changes: MemberChange, reachable: str = "", **more: Any
):
    """Return plan and view; new servers have the incarnation `b`."""
    intent = resolve(kind, changes, latest)
    assert isinstance(intent, Intent)
    identities = {server.name: f"{server.name}/b" for server in intent.new}
    plan, _ = make_plan(intent, identities, latest)
    up = {f"{name}/a" for name in reachable.split()} if reachable else latest.configuration.members
    situation = Situation(
        commit_index=latest.index,
        reachable=frozenset(up | set(identities.values()) | plan.moved.keys()),
        **{"pace": PACE, **more},
    )
    return plan, assess(plan, latest, situation)


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
        "raftctl status",
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
        "stranger readdressed",
        at("n1 n2"),
        ("readdress", [readdress("n9", "x:1")]),
        "n9 is not a member",
        "n1, n2",
        "raftctl status",
    ),
    (
        "readdressed to nowhere",
        at("n1 n2"),
        ("readdress", [readdress("n2", "")]),
        "no new address was given for n2",
        "answers now",
        "raftctl readdress n2=HOST:PORT",
    ),
    (
        "readdressed to no address",
        at("n1 n2"),
        ("readdress", [readdress("n2", "x")]),
        "'x' is no address",
        "HOST:PORT",
        "n2=",
    ),
    (
        "readdressed twice",
        at("n1 n2"),
        ("readdress", [readdress("n2", "x:1"), readdress("n2", "x:2")]),
        "n2 is named twice",
        "once",
        "",
    ),
    (
        "readdressed to the place of another",
        at("n1 n2"),
        ("readdress", [readdress("n1", "n2:7100")]),
        "n2:7100 is the address of n2",
        "share an address",
        "raftctl readdress n1=HOST:PORT",
    ),
    (
        "two readdressed to one place",
        at("n1 n2"),
        ("readdress", [readdress("n1", "x:1"), readdress("n2", "x:1")]),
        "n1 and n2 have the same address x:1",
        "share an address",
        "n2",
    ),
    (
        "readdressed and removed",
        at("n1 n2"),
        ("apply", [drop("n2"), readdress("n2", "x:1")]),
        "n2 is removed",
        "x:1",
        "raftctl remove n2",
    ),
    (
        "readdressed and added",
        at("n1 n2"),
        ("apply", [readdress("n2", "x:1"), new("n2", address="x:2")]),
        "n2 is named twice",
        "once",
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
        resolve(kind, changes, latest)
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
        (at("n1 n2"), readdress("n2", "n2:7100"), "n2 is at n2:7100 already"),
        (at("n1 n2"), readdress("n2", "N2.:7100"), "n2 is at N2.:7100 already"),
    ],
)
def test_what_is_so_already_is_nothing_to_do(
    latest: ConfigurationAt, change: MemberChange, why: str
) -> None:
    assert resolve("promote", [change], latest) == why


def test_something_to_do_beside_nothing_to_do_is_done() -> None:
    intent = resolve("promote", [become("n1", "voter"), become("n2", "voter")], at("n1", "n2"))
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


def test_who_is_there_already_stays_while_others_move() -> None:
    changes = [readdress("n1", "n1:7100"), readdress("n2", "x:1")]
    intent = resolve("readdress", changes, at("n1 n2"))
    assert isinstance(intent, Intent)
    assert intent.moved == (MovedServer(server="n2/a", address="x:1"),)


def test_two_members_may_exchange_their_addresses() -> None:
    changes = [readdress("n1", "n2:7100"), readdress("n2", "n1:7100")]
    plan, plan_view = planned(at("n1 n2 n3"), "readdress", *changes)
    assert plan.moved == {"n1/a": "n2:7100", "n2/a": "n1:7100"}
    assert (plan.changes, plan.addresses, plan.joint) == ((), {}, False)
    assert plan_view.after.voters == plan_view.before.voters
    assert plan_view.after.addresses == {
        "n1/a": "n2:7100",
        "n2/a": "n1:7100",
        "n3/a": "n3:7100",
    }
    assert plan_view.changes == (
        "n1 moves from n1:7100 to n2:7100",
        "n2 moves from n2:7100 to n1:7100",
    )


def test_the_address_that_a_member_leaves_may_be_given_to_a_new_one() -> None:
    changes = [readdress("n1", "x:1"), new("n4", address="n1:7100")]
    plan, _ = planned(at("n1 n2 n3"), "apply", *changes)
    assert plan.moved == {"n1/a": "x:1"}
    assert plan.addresses == {"n4/b": "n1:7100"}


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


def test_a_refusal_for_want_of_a_voter_names_servers_without_their_incarnations() -> None:
    voters = frozenset({OLD, "n-5/00000000000000ff"})
    latest = at("n1")
    latest = attrs.evolve(
        latest,
        entry=attrs.evolve(
            latest.entry,
            configuration=Configuration(voters=voters),
            addresses={server: f"{server_name(server)}:7100" for server in voters},
        ),
    )
    with pytest.raises(Refused) as refused:
        resolve("remove", [drop("n4"), drop("n-5")], latest)
    assert "at least one of n-5, n4 or a new server" in refused.value.cause


@pytest.mark.parametrize(
    ("answer", "problem", "removed_index", "message", "cause"),
    [
        (None, "connection refused", None, "no raftd answers at h:7104", "connection refused"),
        (None, FRAME, None, "no raftd answers at h:7104", "nothing was changed"),
        (None, "dialling: TLS: its certificate ...", None, "no connection to h:7104", "its cert"),
        (status(NEW.replace("4", "5")), "", None, "h:7104 is n5", "calls itself n5"),
        (status(OLD, "c1"), "", None, "it is a member already", "the member n4 itself"),
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


def test_a_new_server_of_an_older_release_is_refused_with_both_versions() -> None:
    old = attrs.evolve(status(NEW), protocol_version_max=2, version="0.0.9")
    assert identify_with(old, features=2) == NEW
    with pytest.raises(Refused) as refused:
        identify_with(old, features=3)
    assert "its release is too old" in refused.value.message
    assert "runs 0.0.9 and speaks versions up to 2" in refused.value.cause
    assert "features of version 3" in refused.value.cause


def identify_with(answer: StatusReply, features: int) -> ServerId:
    return identify(
        NEWCOMER,
        answer,
        "",
        cluster_id="c1",
        cluster_name="orders",
        members={"n1/a"},
        removed_index=None,
        features=features,
    )


MOVED = MovedServer(server=OLD, address="new:7104")


def test_a_member_that_answers_at_its_new_address_may_move() -> None:
    identify_moved(MOVED, status(OLD, "c1", "follower"), "", cluster_id="c1")


@pytest.mark.parametrize(
    ("answer", "problem", "message", "cause", "hint"),
    [
        (
            None,
            "connection refused",
            "no raftd answers at new:7104",
            "nothing was changed",
            "--id n4",
        ),
        (None, FRAME, "no raftd answers", "fff", "--id n4"),
        (
            status(NEW.replace("4", "5"), "c1"),
            "",
            "new:7104 is n5",
            "the raftd at new:7104 is n5, not n4",
            "raftctl readdress n4=HOST:PORT",
        ),
        (
            status(NEW),
            "",
            "another disk answers at new:7104",
            f"the member is {OLD}, at new:7104 is {NEW}",
            "raftctl replace n4 n4=new:7104",
        ),
        (status("n4/b"), "", "is no raftd", "'b' is not an incarnation", "check the address"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_member_is_not_dialled_where_it_does_not_answer_itself(
    answer: StatusReply | None, problem: str, message: str, cause: str, hint: str
) -> None:
    with pytest.raises(Refused) as refused:
        identify_moved(MOVED, answer, problem, cluster_id="c1")
    assert refused.value.code == "refused"
    assert refused.value.message.startswith("cannot readdress n4: ")
    assert message in refused.value.message
    assert cause in refused.value.cause
    assert hint in refused.value.hint
    assert_hint_is_a_command(refused.value.hint)


def test_a_disk_that_was_lost_is_not_taken_for_the_member_that_had_it() -> None:
    with pytest.raises(Refused) as refused:
        refuse_other_disk(OLD, "h:7104", status(NEW))
    assert "n4 is not the server that it was" in refused.value.message
    assert refused.value.hint == "raftctl replace n4 n4=h:7104"
    # Whoever else may be there says nothing about the member.
    for answer in (None, status(OLD, "c1"), status(NEW.replace("4", "5")), status("x")):
        refuse_other_disk(OLD, "h:7104", answer)


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


def count_parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where the addresses are noted that are parsed from now on."""
    parsed: list[str] = []

    def parse(text: str) -> tuple[str, int]:
        parsed.append(text)
        return parse_address(text)

    monkeypatch.setattr(planning, "parse_address", parse)
    return parsed


def test_each_address_is_parsed_once_and_not_for_every_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = at(" ".join(f"n{number}" for number in range(MEMBERS_MAX // 2)))
    servers = [new(f"m{n}", address=f"[2001:db8::{n + 1:x}]:7100") for n in range(MEMBERS_MAX // 2)]
    parsed = count_parsed(monkeypatch)
    assert isinstance(resolve("add", servers, members), Intent)
    assert len(parsed) == MEMBERS_MAX


def test_too_many_members_are_refused_before_their_addresses_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed = count_parsed(monkeypatch)
    with pytest.raises(Refused, match="too many"):
        resolve("add", [new(f"m{n}") for n in range(2 * MEMBERS_MAX)], at("n1"))
    assert parsed == []


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


def test_a_change_of_learners_is_safe_whoever_is_silent() -> None:
    _, plan_view = planned(at("n1 n2 n3"), "add", new("n4", "learner"), reachable="n1 n2")
    assert plan_view.warnings == ("n3 does not answer now",)


def test_names_show_the_incarnation_only_where_it_tells() -> None:
    assert names(["n2/b", "n1/a"]) == "n1, n2"
    assert names(["n2/b", "n2/a", "n1/a"]) == "n1, n2/a, n2/b"
    assert names([]) == "none"


def test_names_are_in_the_order_in_which_people_count() -> None:
    assert names({"n10/a", "n9/a", "n11/a"}) == "n9, n10, n11"
