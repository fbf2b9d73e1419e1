"""From a cluster file to the changes that lead there, case by case."""

from __future__ import annotations

import pytest

from raftd.core.membership import ConfigurationAt
from raftd.planning import MEMBERS_MAX, Intent, Refused, resolve
from raftd.protocol import MemberChange, TargetMember
from raftd.target import check_target, difference
from tests.node.asking import assert_hint_is_a_command
from tests.node.test_planning import at, count_parsed
from tests.node.world import become, drop, new, readdress


def target(voters: str, learners: str = "", **addresses: str) -> list[TargetMember]:
    """Return the servers of a file; they are at their usual address, or at the one that is given"""
    return [
        TargetMember(name=name, role=role, address=addresses.get(name, f"{name}:7100"))
        for role, names in (("voter", voters), ("learner", learners))
        for name in names.split()
    ]


DIFFERENCES = [
    # what is wanted, of which cluster, what is to be done
    ("the same", at("n1 n2 n3", "n4"), target("n1 n2 n3", "n4"), []),
    ("in another order", at("n1 n2", "n3"), target("n2 n1", "n3"), []),
    ("another spelling", at("n1 n2"), target("n1 n2", n2="N2.:7100"), []),
    ("one more", at("n1"), target("n1 n2"), [new("n2")]),
    ("one more learner", at("n1"), target("n1", "n2"), [new("n2", "learner")]),
    ("one less", at("n1 n2", "n3"), target("n1 n2"), [drop("n3")]),
    ("promoted", at("n1", "n2"), target("n1 n2"), [become("n2", "voter")]),
    ("demoted", at("n1 n2"), target("n1", "n2"), [become("n2", "learner")]),
    ("moved", at("n1 n2"), target("n1 n2", n2="x:1"), [readdress("n2", "x:1")]),
    (
        "demoted and moved",
        at("n1 n2"),
        target("n1", "n2", n2="x:1"),
        [become("n2", "learner"), readdress("n2", "x:1")],
    ),
    (
        "all others",
        at("n1 n2 n3"),
        target("n4 n5 n6"),
        [new("n4"), new("n5"), new("n6"), drop("n1"), drop("n2"), drop("n3")],
    ),
    (
        "exchanged",
        at("n1 n2"),
        target("n1 n2", n1="n2:7100", n2="n1:7100"),
        [readdress("n1", "n2:7100"), readdress("n2", "n1:7100")],
    ),
    (
        "everything at once",
        at("n1 n2 n3", "n4 n5"),
        target("n1 n4 n6", "n2 n7", n1="x:1"),
        [
            readdress("n1", "x:1"),
            become("n4", "voter"),
            new("n6"),
            become("n2", "learner"),
            new("n7", "learner"),
            drop("n3"),
            drop("n5"),
        ],
    ),
]


@pytest.mark.parametrize(
    ("latest", "wanted", "changes"),
    [case[1:] for case in DIFFERENCES],
    ids=[case[0] for case in DIFFERENCES],
)
def test_the_difference_names_every_change_and_no_other(
    latest: ConfigurationAt, wanted: list[TargetMember], changes: list[MemberChange]
) -> None:
    found = difference(wanted, latest)
    assert list(found) == changes
    if found:
        # It is one that can be made.
        assert isinstance(resolve("apply", found, latest), Intent)


def test_each_address_of_a_target_is_compared_once_and_not_for_every_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = target(" ".join(f"m{number}" for number in range(MEMBERS_MAX)))
    parsed = count_parsed(monkeypatch)
    check_target(wanted)
    assert len(parsed) == MEMBERS_MAX


BAD_TARGETS = [
    ("nobody", [], "a cluster of 0 servers", "1 to 32"),
    (
        "too many",
        target(" ".join(f"m{n}" for n in range(MEMBERS_MAX + 1))),
        "a cluster of 33 servers",
        "1 to 32",
    ),
    ("no name", target("n1 N2"), "cannot be", "is not a name"),
    ("no address", target("n1 n2", n2="x"), "cannot be", "lacks a port"),
    ("wildcard", target("n1 n2", n2="0.0.0.0:1"), "cannot be", "nobody can dial it"),
    (
        "no role",
        [TargetMember(name="n1", role="king", address="n1:1")],
        "'king' is no role",
        "voter and learner",
    ),
    ("named twice", target("n1 n1"), "n1 is listed twice", "one entry"),
    ("voter and learner", target("n1", "n1"), "n1 is listed twice", "one entry"),
    (
        "address twice",
        target("n1 n2", n2="N1:7100"),
        "n1 and n2 have the same address N1:7100",
        "share an address",
    ),
    ("learners only", target("", "n1 n2"), "nobody would vote", "at least one voter"),
]


@pytest.mark.parametrize(
    ("wanted", "message", "cause"),
    [case[1:] for case in BAD_TARGETS],
    ids=[case[0] for case in BAD_TARGETS],
)
def test_a_target_that_is_no_cluster_is_refused(
    wanted: list[TargetMember], message: str, cause: str
) -> None:
    with pytest.raises(Refused) as refused:
        difference(wanted, at("n1 n2 n3"))
    assert refused.value.code == "invalid"
    assert message in refused.value.message
    assert cause in refused.value.cause
    assert_hint_is_a_command(refused.value.hint)
