"""What `raftctl status` notices: differing views, broken servers, and what will break next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from raftctl.status_text import (
    Layout,
    operation_line,
    prospects,
    text,
)
from raftd.certificate_files import DAY_MS
from raftd.cluster_status.answers import Answer
from raftd.cluster_status.document import document
from raftd.cluster_status.notes import notes
from raftd.cluster_status.view import ClusterView, Health, view
from raftd.protocol import MajorityView, StatusReply
from tests.raftctl.status_answers import (
    JOINT,
    THREE,
    address_of,
    all_of,
    answers,
    blank,
    configuration,
    leader,
    operation,
    peer,
    reply,
    rows,
)

SILENT = peer("n3/c", match_index=0, lag_entries=100, last_contact_ms=None, caught_up=False)


def table_row(cluster: ClusterView, start: str, **layout: Any) -> dict[str, str]:
    """Return the cells of the first table line that starts with `start`, by their titles."""
    lines = text(cluster, Layout(**layout))
    titles = next(line for line in lines if line.startswith("ID ")).split()
    cells = next(line for line in lines if line.split()[:1] == [start]).split()
    return dict(zip(titles, cells, strict=True))


def three_with(**fields: Any) -> list[Answer]:
    """Return the answers of three servers, the last one with other fields."""
    third = attrs.evolve(reply("n3/c", THREE), **fields)
    return answers(leader(THREE), reply("n2/b", THREE), third)


# --- differing views -------------------------------------------------------------------------


def test_a_follower_that_takes_itself_for_the_leader_is_told_apart_from_one_that_follows() -> None:
    found = three_with(role="leader", leader="n3/c", term=6)
    assert "leader: it believes that it leads; n1 leads" in rows(view(found))["n3"]["issues"]


def test_an_older_protocol_is_an_issue_of_the_server_and_an_upgrade_of_the_cluster() -> None:
    newest = [attrs.evolve(each, protocol_version_max=3) for each in all_of(THREE)]
    newest[2] = attrs.evolve(newest[2], protocol_version_max=2)
    cluster = view(answers(*newest))

    assert rows(cluster)["n3"]["issues"] == [
        "version: it still speaks version 2 of the protocol, the leader 3"
    ]
    expected = (
        "An upgrade is under way: n3 still speaks version 2 of the protocol, the others 3; what "
        "came with version 3 is switched on once all members speak it."
    )
    assert notes(cluster) == document(cluster)["notes"] == [expected]
    assert notes(view(answers(*all_of(THREE)))) == []


def test_a_protocol_that_brings_nothing_to_be_switched_on_says_no_such_thing() -> None:
    newest = [attrs.evolve(each, protocol_version_max=5, features_max=3) for each in all_of(THREE)]
    newest[2] = attrs.evolve(newest[2], protocol_version_max=4)
    assert notes(view(answers(*newest))) == [
        "An upgrade is under way: n3 still speaks version 4 of the protocol, the others 5; what "
        "came with version 5 works between those that speak it."
    ]


def test_a_member_that_moved_away_from_its_address_gets_the_command_that_follows_it() -> None:
    moved = attrs.evolve(THREE, addresses=dict(THREE.addresses) | {"n3/c": "127.0.0.1:7999"})
    leading = leader(moved, peers=(peer("n2/b"), SILENT))
    found = answers(leading, reply("n2/b", moved), reply("n3/c", moved))
    found.append(
        Answer(
            address="127.0.0.1:7999", name="n3", listed=False, reply=None, failure="no route to it"
        )
    )
    cluster = view(found)

    assert rows(cluster)["n3"]["issues"][0] == (
        "address: it answers at 127.0.0.1:7103; the configuration has it at 127.0.0.1:7999, where "
        "there is: no route to it; repair: raftctl readdress n3=127.0.0.1:7103"
    )
    assert table_row(cluster, "n3")["STATE"] == "moved"
    # The file is right, so nobody is told to overwrite it.
    assert notes(cluster) == []


def test_whom_the_leader_hears_from_is_where_it_should_be_whatever_we_dial() -> None:
    inside = attrs.evolve(
        THREE, addresses={server: f"10.0.0.{at}:1" for at, server in enumerate(THREE.addresses)}
    )
    replies = [leader(inside), reply("n2/b", inside), reply("n3/c", inside)]
    cluster = view(answers(*replies))

    assert cluster.health is Health.HEALTHY
    assert cluster.moved == tuple(
        (f"n{at + 1}", address_of(f"n{at + 1}"), f"10.0.0.{at}:1") for at in range(3)
    )
    assert "The cluster file has n3 at 127.0.0.1:7103" in notes(cluster)[2]


def test_without_a_leader_a_moved_member_gets_no_command_that_would_fail() -> None:
    moved = attrs.evolve(THREE, addresses=dict.fromkeys(THREE.addresses, "10.0.0.1:1"))
    found = [reply(server, moved, leader="") for server in moved.voters]
    issues = rows(view(answers(*found)))["n2"]["issues"]
    assert len(issues) == 1
    assert issues[0].startswith("address: it answers at 127.0.0.1:7102")
    assert "repair" not in issues[0]


def test_the_culprit_of_a_divergence_has_the_repair_in_its_own_row() -> None:
    told = [attrs.evolve(each, differing=("n3/c",)) for each in all_of(THREE)[:2]]
    cluster = view(answers(*told, silent=["n3"]))

    unreachable, issue = rows(cluster)["n3"]["issues"]
    assert unreachable == "unreachable: connection refused"
    assert issue == (
        "diverged: it made something else of the log than a majority: its state is wrong, and it "
        "stops by itself; repair: empty the data directory of n3, start it again, then raftctl "
        "replace n3 n3=127.0.0.1:7103"
    )
    assert table_row(cluster, "n3")["STATE"] == "diverged"
    assert rows(cluster)["n1"]["issues"] == []


# --- positions and names ---------------------------------------------------------------------


def test_nobody_claims_to_know_how_far_a_server_is_that_a_new_leader_has_not_heard_yet() -> None:
    new = leader(THREE, peers=(peer("n2/b"), SILENT))
    cluster = view(answers(new, reply("n2/b", THREE), reply("n3/c", THREE)))

    shown = table_row(cluster, "n3", wide=True)
    assert (shown["LAG"], shown["MATCH"], shown["CONTACT"]) == ("-", "-", "-")
    row = rows(cluster)["n3"]
    assert (row["lag_entries"], row["last_contact_ms"]) == (100, None)
    assert row["issues"] == ["no-contact: the leader has not heard from it"]


def test_a_server_that_catches_up_says_how_fast_and_for_how_long() -> None:
    behind = peer(
        "n3/c",
        lag_entries=48_210,
        caught_up=False,
        snapshot_bytes=27 << 20,
        snapshot_received_bytes=3 << 20,
        catch_up_bytes_per_second=3 << 20,
    )
    found = answers(leader(THREE, peers=(peer("n2/b"), behind)), *all_of(THREE)[1:])
    assert rows(view(found))["n3"]["issues"] == [
        "lagging: 48,210 entries behind the leader, 3.0 MiB of a snapshot of 27.0 MiB received, "
        "3.0 MiB/s, about 8.0s"
    ]


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("0123456789abcdef", "fedcba9876543210", ["n2/0123", "n2/fedc"]),
        ("0123456789abcdef", "01234fedcba98765", ["n2/012345", "n2/01234f"]),
    ],
)
def test_two_servers_of_one_name_are_told_apart_in_the_table_and_in_their_issues(
    old: str, new: str, shown: list[str]
) -> None:
    addresses = {"n1/a": address_of("n1"), f"n2/{old}": address_of("n2"), "n3/c": address_of("n3")}
    joint = configuration(
        f"n1/a n2/{new} n3/c",
        outgoing=f"n1/a n2/{old} n3/c",
        addresses={**addresses, f"n2/{new}": "127.0.0.1:7109"},
    )
    lines = text(view(answers(leader(joint), reply("n3/c", joint), silent=["n2"])), Layout())

    names = [line.split()[0] for line in lines if line.startswith("n2/")]
    assert sorted(names[:2]) == shown
    assert [name.rstrip(":") for name in names[2:]] == names[:2]


# --- the change that runs --------------------------------------------------------------------


def joint_change() -> ClusterView:
    """Return a cluster with a replacement that waits for a server that is down."""
    waiting = attrs.evolve(
        operation(),
        index=91_377,
        old=MajorityView(servers=("n1/a", "n2/b", "n3/c"), acknowledged=("n1/a", "n2/b"), needed=2),
        new=MajorityView(servers=("n1/a", "n2/b", "n4/d"), acknowledged=("n1/a",), needed=2),
        blocked_by="a majority of C_new",
    )
    replies = all_of(JOINT)
    replies[0] = attrs.evolve(replies[0], operation=waiting)
    return view(answers(*replies[:3], silent=["n4"]))


def test_a_change_says_which_half_misses_which_servers_and_how_those_are() -> None:
    cluster = joint_change()

    assert operation_line(cluster).endswith(
        "; waits: a majority of C_new; the new half has 1 of the 2 acknowledgements that it needs, "
        "missing: n2, n4 (down)"
    )


def test_a_change_whose_halves_have_enough_names_nobody() -> None:
    enough = MajorityView(servers=("n1/a", "n2/b", "n3/c"), acknowledged=("n1/a", "n2/b"), needed=2)
    going = attrs.evolve(operation(), index=9, old=enough, new=enough)
    assert "missing" not in operation_line(view(answers(leader(JOINT, operation=going))))


# --- warnings --------------------------------------------------------------------------------


def measured(**fields: Any) -> dict[str, Any]:
    return {
        "disk_free_bytes": 10 << 30,
        "disk_reserve_bytes": 256 << 20,
        "state_bytes": 26 << 20,
        "sync_p50_ms": 1.2,
        "sync_p99_ms": 8.0,
        **fields,
    }


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({}, None),
        ({"disk_free_bytes": None, "sync_p50_ms": None, "sync_p99_ms": None}, None),
        ({"disk_free_bytes": 513 << 20}, None),
        (
            {"disk_free_bytes": 300 << 20},
            "disk: 300.0 MiB of its disk are left; below 256.0 MiB writes are refused",
        ),
        # What the server refuses writes for, it reports itself.
        ({"disk_free_bytes": 255 << 20}, None),
        # A snapshot needs as much again as the state.
        (
            {"disk_free_bytes": 2 << 30, "state_bytes": 2 << 30},
            "disk: 2.0 GiB of its disk are left; below 256.0 MiB writes are refused",
        ),
        ({"sync_p99_ms": 250.0}, None),
        (
            {"sync_p99_ms": 251.0},
            "slow-disk: a sync of its log takes 1ms, one of a hundred 251ms; the heartbeat interval"
            " is 50ms, the election timeout 500ms",
        ),
        (
            {"sync_p50_ms": 51.0, "sync_p99_ms": 90.0},
            "slow-disk: a sync of its log takes 51ms, one of a hundred 90ms; the heartbeat interval"
            " is 50ms, the election timeout 500ms",
        ),
        ({"wall_clock_ms": 1_000, "certificate_expires_ms": 1_000 + 30 * DAY_MS}, None),
        (
            {"wall_clock_ms": 1_000, "certificate_expires_ms": 999 + 30 * DAY_MS},
            "certificate: its certificate ends within 30 days; a new one counts from the next "
            "SIGHUP on; repair: raftctl certs issue server n3 --replace",
        ),
    ],
)
def test_what_will_be_a_problem_is_a_warning_and_leaves_the_cluster_healthy(
    fields: dict[str, Any], warning: str | None
) -> None:
    cluster = view(three_with(**measured(**fields)))

    row = rows(cluster)["n3"]
    assert (row["warnings"], row["issues"]) == ([warning] if warning else [], [])
    assert cluster.health is Health.HEALTHY
    assert table_row(cluster, "n3")["STATE"] == ("warn" if warning else "ok")
    if warning:
        assert f"n3: {warning.partition(' ')[0]}" in "\n".join(text(cluster, Layout(width=200)))


def clocked(*ahead_ms: float, round_trip_ms: float = 2.0) -> list[Answer]:
    found = answers(*all_of(THREE)[: len(ahead_ms)])
    return [
        attrs.evolve(answer, clock_ahead_ms=ahead, round_trip_ms=round_trip_ms)
        for answer, ahead in zip(found, ahead_ms, strict=True)
    ]


@pytest.mark.parametrize(
    ("ahead_ms", "warnings"),
    [
        # The clock here is two minutes slow, which is no business of the cluster.
        ((120_000, 120_000, 120_000), [None, None, None]),
        ((0, 0, 900), [None, None, None]),
        ((0, 10, 5_000), [None, None, "clock: its clock is 5.0s ahead of that of the others"]),
        ((-9_000, 0, 0), ["clock: its clock is 9.0s behind that of the others", None, None]),
        # Of two nobody can say which one is wrong.
        ((0, -3_000), [None, "clock: its clock is 3.0s behind that of n1"]),
    ],
)
def test_a_clock_that_differs_by_much_is_named(
    ahead_ms: tuple[float, ...], warnings: list[str | None]
) -> None:
    found = view(clocked(*ahead_ms))
    shown = [rows(found)[f"n{at + 1}"]["warnings"] for at in range(len(ahead_ms))]
    assert shown == [[warning] if warning else [] for warning in warnings]


def test_a_difference_that_slow_answers_may_have_made_is_no_difference_of_clocks() -> None:
    cluster = view(clocked(0, 0, 1_500, round_trip_ms=600.0))
    assert rows(cluster)["n3"]["warnings"] == []
    assert cluster.rows[2].clock_difference_ms == 1_500


# --- what is fatal ---------------------------------------------------------------------------


def zoned(*zones: str) -> list[StatusReply]:
    return [attrs.evolve(each, zone=zone) for each, zone in zip(all_of(THREE), zones, strict=True)]


@pytest.mark.parametrize(
    ("zones", "words", "fatal_zones"),
    [
        (("east", "east", "west"), "; loses its quorum with zone east", [["east"]]),
        (
            ("east", "north", "west"),
            "; survives the loss of any zone",
            [["east", "north"], ["east", "west"], ["north", "west"]],
        ),
        # One zone is none: all of it is everything.
        (("east", "east", "east"), "", [["east"]]),
        (("", "", ""), "", []),
    ],
)
def test_the_zones_that_stop_the_cluster_are_named(
    zones: tuple[str, ...], words: str, fatal_zones: list[list[str]]
) -> None:
    cluster = view(answers(*zoned(*zones)))
    assert prospects(cluster) == f"survives any 1 failure; fatal: any 2 of n1 n2 n3{words}"
    assert document(cluster)["fatal_zones"] == fatal_zones


def test_the_cluster_file_says_the_zone_of_a_server_that_does_not() -> None:
    file = {"n1": "east", "n2": "east", "n3": "west"}
    cluster = view(answers(*zoned("north", "", "")[:2], silent=["n3"]), zones=file)

    assert [rows(cluster)[name]["zone"] for name in ("n1", "n2", "n3")] == ["north", "east", "west"]
    assert table_row(cluster, "n3")["ZONE"] == "west"
    assert "ZONE" not in table_row(view(answers(*all_of(THREE))), "n3")


def test_the_document_lists_the_fatal_sets_and_none_once_the_cluster_is_stopped() -> None:
    found = document(view(answers(*all_of(THREE)[:2], silent=["n3"])))
    assert (found["fatal_sets"], found["fatal_set_count"]) == ([["n1"], ["n2"]], 2)

    stopped = document(view(answers(reply("n1/a", THREE, leader=""), silent=["n2", "n3"])))
    assert (stopped["fatal_sets"], stopped["fatal_set_count"]) == ([], 0)


def test_a_large_cluster_is_counted_and_not_listed_in_a_sentence() -> None:
    large = configuration(" ".join(f"n{at}/x" for at in range(1, 12)))
    leading = leader(large, "n1/x")
    replies = [leading, *(reply(f"n{at}/x", large, leader="n1/x") for at in range(2, 12))]
    cluster = view(answers(*replies))

    assert prospects(cluster) == (
        "survives any 5 failures; fatal: any 6 of the 11 voters that are alive"
    )
    found = document(cluster)
    assert (len(found["fatal_sets"]), found["fatal_set_count"]) == (64, 462)


# --- as it looks -----------------------------------------------------------------------------


def bad_day() -> ClusterView:
    """Three zones, an upgrade, a full disk, a wiped one, and one that catches up."""
    known = configuration("n1/a n2/b n3/c", learners="n4/d")
    behind = peer(
        "n4/d",
        match_index=20,
        lag_entries=48_210,
        caught_up=False,
        lag_bytes=9 << 20,
        catch_up_bytes_per_second=3 << 20,
    )
    zones = {"n1": "east", "n2": "north", "n3": "west"}
    full = attrs.evolve(reply("n2/b", known, version="0.2.0", protocol_version_max=3), **measured())
    return view(
        answers(
            leader(known, peers=(peer("n2/b"), peer("n3/c", last_contact_ms=9_000.0), behind)),
            attrs.evolve(full, disk_free_bytes=300 << 20),
            blank("n3/7f3a"),
            reply("n4/d", known, role="learner"),
            silent=["n5"],
        ),
        zones=zones,
    )


def busy() -> ClusterView:
    """Large numbers, and long names of hosts."""
    at = {server: f"{server[:2]}.orders.internal:7100" for server in THREE.voters}
    known = attrs.evolve(THREE, index=4_182_911, addresses=at)
    numbers = {
        "last_index": 91_204_518,
        "commit_index": 91_204_511,
        "applied_index": 91_204_511,
        "revision": 90_877_003,
        "term": 1_207,
    }
    replies = [
        leader(known, **numbers),
        reply("n2/b", known, **numbers),
        reply("n3/c", known, **numbers),
    ]
    return view(
        [
            Answer(address=at[each.server], name=each.server[:2], listed=True, reply=each)
            for each in replies
        ]
    )


@pytest.mark.parametrize("situation", [bad_day, joint_change, busy])
def test_status_looks_as_it_should(
    situation: Callable[[], ClusterView], columns: int, golden: Callable[[str, str], None]
) -> None:
    lines = text(situation(), Layout(width=columns))
    golden(f"status_{situation.__name__}_{columns}", "\n".join(lines))


@pytest.mark.parametrize("situation", [bad_day, joint_change, busy])
@pytest.mark.parametrize("width", [60, 70, 80, 120])
def test_no_line_is_wider_than_the_terminal_except_a_command(
    situation: Callable[[], ClusterView], width: int
) -> None:
    lines = text(situation(), Layout(width=width))
    assert [line for line in lines if len(line) > width and "raftctl" not in line] == []
