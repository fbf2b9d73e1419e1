"""Members that are not who they should be: what `raftctl status` says, and what repairs them."""

from __future__ import annotations

import attrs
import pytest

from raftctl.render import width_of
from raftctl.status_text import Layout, text
from raftd.cluster_status.answers import Answer
from raftd.cluster_status.view import Health, view
from tests.raftctl.status_answers import (
    THREE,
    answers,
    blank,
    configuration,
    leader,
    reply,
    rows,
)


@pytest.mark.parametrize("columns", [40, 80])
def test_the_command_that_repairs_a_wiped_member_is_never_broken(columns: int) -> None:
    found = answers(leader(THREE), blank("n2/0123456789abcdef"), reply("n3/c", THREE))

    lines = text(view(found), Layout(width=columns))
    assert lines[-1] == "    repair: raftctl replace n2 n2=127.0.0.1:7102"
    assert all(width_of(line) <= columns for line in lines[:-1] if "wiped" in line)


def test_an_address_in_brackets_is_quoted_for_the_shell() -> None:
    moved = attrs.evolve(THREE, addresses=dict(THREE.addresses) | {"n2/b": "[::1]:7102"})
    found = answers(leader(moved), reply("n3/c", moved))
    found.append(Answer(address="[::1]:7102", name="n2", listed=False, reply=blank("n2/zz")))

    (issue,) = rows(view(found))["n2"]["issues"]
    assert issue.endswith("repair: raftctl replace n2 'n2=[::1]:7102'")


def test_a_wiped_member_that_had_been_told_its_cluster_already_is_repaired_alike() -> None:
    # Left over by a replacement that was rolled back: it belongs to the cluster, and is no member.
    joined = reply("n2/zz", None, role="learner", leader="")
    (issue,) = rows(view(answers(leader(THREE), joined, reply("n3/c", THREE))))["n2"]["issues"]
    assert issue.startswith("wiped: ")
    assert issue.endswith("repair: raftctl replace n2 n2=127.0.0.1:7102")


def test_without_a_leader_a_wiped_member_is_shown_without_a_command_that_would_fail() -> None:
    two = configuration("n1/a n2/b")
    cluster = view(answers(reply("n1/a", two, role="candidate", leader=""), blank("n2/zz")))

    assert cluster.health is Health.UNAVAILABLE
    assert rows(cluster)["n2"]["issues"] == [
        "wiped: its disk is new (incarnation zz, the cluster knows b), so it counts for nothing; "
        "it can be replaced as soon as there is a leader"
    ]


def test_the_data_of_a_removed_incarnation_in_the_place_of_a_member_is_named() -> None:
    removed = reply("n2/old", THREE, role="removed")
    cluster = view(answers(leader(THREE), removed, reply("n3/c", THREE)))

    assert rows(cluster)["n2"]["issues"] == [
        "unreachable: n2/old answers at its address, which was removed for good; the cluster knows "
        "b; repair: start n2 with the data directory of b"
    ]
    assert cluster.failure_tolerance == 0


@pytest.mark.parametrize(("uptime_ms", "cloned"), [(60_000, False), (61_000, False), (5, True)])
def test_two_processes_with_one_identity_are_named_and_two_addresses_of_one_are_not(
    uptime_ms: int, cloned: bool
) -> None:
    own = reply("n3/c", THREE, uptime_ms=60_000)
    found = answers(leader(THREE), reply("n2/b", THREE), own)
    other = attrs.evolve(own, uptime_ms=uptime_ms)
    found.insert(0, Answer(address="127.0.0.1:7999", name="n3", listed=True, reply=other))
    cluster = view(found)

    issues = rows(cluster)["n3"]["issues"]
    expected = [
        "cloned: another process at 127.0.0.1:7999 is n3/c too: its data directory was copied, and "
        "together they may vote twice; repair: stop the copy at 127.0.0.1:7999 and delete its data "
        "directory"
    ]
    assert issues == (expected if cloned else [])
    assert cluster.health is (Health.DEGRADED if cloned else Health.HEALTHY)


def test_a_blank_server_with_the_name_of_a_member_elsewhere_can_take_its_place() -> None:
    found = answers(leader(THREE), reply("n2/b", THREE), silent=["n3"])
    found.append(Answer(address="127.0.0.1:7199", name="", listed=True, reply=blank("n3/x")))

    (stranger,) = [row for row in view(found).rows if not row.member]
    assert str(stranger.issues[0]) == (
        "blank: it belongs to no cluster yet; next: raftctl replace n3 n3=127.0.0.1:7199"
    )
