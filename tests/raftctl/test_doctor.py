"""What `raftctl doctor` makes of what it was told: each check passes, warns and fails."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import attrs
import pytest

from raftctl.doctor import CHECKS, document, judge, results
from raftctl.doctor_reach import matrix, short
from raftctl.doctor_text import text
from raftctl.examining import Examination, Target
from raftctl.findings import Result
from raftctl.status_text import Layout
from raftd.certificate_files import DAY_MS
from raftd.protocol import (
    ConfigurationView,
    LinkView,
    ReachView,
)
from tests.raftctl.examinations import (
    CLUSTER_ID,
    FAIL,
    FIVE,
    FOUR,
    MIB,
    OLD,
    ONE,
    PASS,
    SKIP,
    THREE,
    TWO,
    WARN,
    Reaches,
    address_of,
    as_in_log,
    blank,
    blocked,
    configuration,
    examination,
    file_of,
    findings,
    members,
    only,
    status,
)

# --- a healthy cluster ------------------------------------------------------------------------


def test_a_healthy_cluster_passes_every_check(tmp_path: Path) -> None:
    found = examination(*members(THREE), config=file_of(tmp_path, as_in_log("n1", "n2", "n3")))
    assert results(judge(found)) == dict.fromkeys(CHECKS, PASS)
    assert len(judge(found)) == len(CHECKS)


def test_without_a_file_only_its_check_is_skipped() -> None:
    found = results(judge(examination(*members(THREE))))
    assert found.pop("file") is SKIP
    assert set(found.values()) == {PASS}


def test_a_cluster_of_one_has_nobody_to_reach_and_too_few_voters() -> None:
    found = examination(*members(ONE))
    assert only(found, "reachability").finding == "n1 is the only server"
    assert results(judge(found))["voters"] is WARN


def test_where_no_server_answers_only_leader_and_members_are_judged() -> None:
    found = judge(examination(silent=("n1/", "n2/")))
    assert [finding.check for finding in found if finding.result is FAIL] == [
        "leader",
        "members",
        "members",
    ]
    assert {finding.result for finding in found if finding.check not in ("leader", "members")} == {
        SKIP
    }


# --- leader -----------------------------------------------------------------------------------


def test_a_leader_that_survives_failures_passes() -> None:
    finding = only(examination(*members(THREE)), "leader")
    assert finding.result is PASS
    assert "n1 leads in term 7" in finding.finding


def test_a_cluster_that_survives_nothing_more_warns_and_names_who_is_missing() -> None:
    finding = only(examination(*members(THREE)[:2], silent=("n3/c",)), "leader")
    assert finding.result is WARN
    assert "bring back n3" in finding.remedy
    assert finding.servers == ("n3",)


def test_without_a_leader_it_fails_and_says_what_is_missing() -> None:
    alone = status("n2/b", THREE)
    finding = only(examination(alone, silent=("n1/a", "n3/c")), "leader")
    assert finding.result is FAIL
    assert "1 of 3 voters answers" in finding.finding
    assert finding.servers == ("n1", "n3")


def test_a_leader_that_has_just_lost_its_quorum_fails() -> None:
    finding = only(examination(members(THREE)[0], silent=("n2/b", "n3/c")), "leader")
    assert finding.result is FAIL


def test_blank_servers_are_told_to_form_a_cluster() -> None:
    found = examination(blank("n1/a"), blank("n2/b"))
    finding = only(found, "leader")
    assert finding.result is FAIL
    assert "raftctl init" in finding.finding
    assert results(judge(found))["members"] is SKIP
    assert results(judge(found))["voters"] is SKIP


def lost_majority() -> Examination:
    """n1 runs with an empty disk, n2 is down, n3 is alone."""
    wiped = attrs.evolve(blank("n1/z"), disk_free_bytes=1)
    return examination(wiped, status("n3/c", THREE, leader="", disk_free_bytes=1), silent=("n2/b",))


def test_after_the_loss_of_a_majority_only_what_helps_is_advised() -> None:
    finding = only(lost_majority(), "leader")
    assert finding.remedy.startswith("bring back n2 with the data of before; ")
    assert "`raftctl recover plan DATA_DIR...`" in finding.remedy
    told = [f"{each.remedy} {each.command}" for each in judge(lost_majority())]
    assert [words for words in told if "replace" in words or "add " in words] == []


def test_commands_in_remedies_dial_as_the_call_did() -> None:
    found = lost_majority()
    shown = document(found, judge(found), lambda words: f"raftctl -c x.yaml {words}")
    assert "`raftctl -c x.yaml recover plan DATA_DIR...`" in shown["checks"][0]["remedy"]
    layout = Layout(wide=True)
    lines = text(found, judge(found), layout, lambda words: f"raftctl -c x.yaml {words}")
    assert "`raftctl -c x.yaml recover plan DATA_DIR...`" in "\n".join(lines)


def all_moved(tmp_path: Path) -> Examination:
    """Everybody answers, and is reached, where the file has it; the configuration is old."""
    old = configuration("n1/a n2/b n3/c", addresses={f"{n}": f"h{n[1]}:1" for n in THREE.voters})
    replies = members(
        old,
        **{
            server[:2]: {
                "links": tuple(
                    LinkView(server=other, address=address_of(other), connected=True, version=3)
                    for other in THREE.voters
                    if other != server
                )
            }
            for server in THREE.voters
        },
    )
    at = {server: address_of(server) for server in THREE.voters}
    return examination(*replies, at=at, config=file_of(tmp_path, as_in_log("n1", "n2", "n3")))


def test_where_nobody_reaches_anybody_at_the_address_of_the_log_it_fails(tmp_path: Path) -> None:
    found = all_moved(tmp_path)
    (finding,) = [each for each in findings(found, "reachability") if each.result is not SKIP]
    assert finding.result is FAIL
    assert finding.finding.startswith("nobody reaches n1, n2 or n3 at the addresses of the conf")
    places = " ".join(f"{each[:2]}={address_of(each)}" for each in THREE.voters)
    assert finding.command == f"readdress {places}"


def test_an_address_that_is_old_in_the_log_is_no_reason_to_export(tmp_path: Path) -> None:
    places = " ".join(f"{each[:2]}={address_of(each)}" for each in THREE.voters)
    assert only(all_moved(tmp_path), "file").command == f"readdress {places}"


# --- members ----------------------------------------------------------------------------------


def test_a_member_that_nobody_reaches_fails_once() -> None:
    found = examination(*members(THREE)[:2], silent=("n3/c",))
    finding = only(found, "members")
    assert finding.result is FAIL
    assert finding.finding == "n3 does not answer at 10.0.0.3:7100: connection refused"
    assert finding.servers == ("n3",)
    assert results(judge(found))["reachability"] is PASS
    assert "nobody reaches n3" in only(found, "reachability").finding


def test_a_wiped_member_fails_with_the_command_that_brings_it_back() -> None:
    found = examination(*members(THREE)[:2], blank("n3/x"))
    finding = only(found, "members")
    assert finding.result is FAIL
    assert "n3, wiped" in finding.finding
    assert finding.command == "replace n3 n3=10.0.0.3:7100"


def test_a_member_that_lags_is_a_warning() -> None:
    leader = members(THREE)[0]
    behind = attrs.evolve(leader.peers[1], lag_entries=5_000, caught_up=False)
    leader = attrs.evolve(leader, peers=(leader.peers[0], behind))
    finding = only(examination(leader, *members(THREE)[1:]), "members")
    assert finding.result is WARN
    assert "5,000 entries behind" in finding.finding


def test_divergence_that_a_member_reports_fails() -> None:
    found = examination(*members(THREE, n2={"issues": ("divergence: n2 differs at 7",)}))
    finding = findings(found, "members")[0]
    assert finding.result is FAIL


def test_a_problem_that_a_member_reports_is_a_warning() -> None:
    problem = "no snapshot could be taken: 1 MiB are free, 2 MiB are needed"
    finding = only(examination(*members(THREE, n2={"issues": (problem,)})), "members")
    assert (finding.result, finding.finding) == (WARN, f"n2 reports: {problem}")


def test_versions_and_full_disks_are_left_to_their_own_checks() -> None:
    full = {"issues": ("the disk is nearly full: 1 B of disk left",), "version": "0.2.0"}
    assert only(examination(*members(THREE, n2=full)), "members").result is PASS


def test_a_blank_server_that_stands_by_is_no_problem() -> None:
    found = examination(*members(THREE), blank("n4/d"))
    assert only(found, "members").result is PASS
    assert [target.name for target in found.targets] == ["n1", "n2", "n3"]


# --- reachability -----------------------------------------------------------------------------


def test_one_direction_that_is_blocked_fails_and_is_named_as_that() -> None:
    found = examination(*members(THREE), reaches=blocked(("n2", "n3")))
    finding = only(found, "reachability")
    assert finding.result is FAIL
    assert finding.finding == (
        "n2 does not reach n3 at 10.0.0.3:7100: no answer for 2.0 s; raftctl and n1 do, and n3 "
        "reaches n2: one direction is blocked"
    )
    assert finding.servers == ("n2", "n3")
    assert "nc -vz 10.0.0.3 7100" in finding.remedy
    assert short(matrix(found).cells["n2", "n3"]) == "silent"
    assert matrix(found).cells["n3", "n2"].ok


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("connecting to 10.0.0.2:7100: connection refused", "connection refused"),
        ("greeting 10.0.0.2:7100: no answer for 2.0 s", "connected, but no answer for 2.0 s"),
        ("greeting 10.0.0.2:7100: refused: it is busy", "refused: it is busy"),
        (
            "waiting for 10.0.0.2:7100 to answer StatusRequest: no answer for 2.0 s",
            "connected, but no answer for 2.0 s",
        ),
        ("the wire is cut", "the wire is cut"),
    ],
)
def test_a_problem_is_told_without_the_address_that_stands_before_it(
    problem: str, words: str
) -> None:
    found = examination(
        *members(TWO),
        reaches=lambda source, target: ReachView(address=target.address, problem=problem),
    )
    assert matrix(found).cells["n1", "n2"].problem == words


def test_both_directions_are_not_called_one() -> None:
    found = examination(*members(THREE), reaches=blocked(("n2", "n3"), ("n3", "n2")))
    first, second = findings(found, "reachability")
    assert "one direction" not in first.finding + second.finding


def test_servers_that_fail_alike_share_a_finding() -> None:
    found = examination(*members(THREE), reaches=blocked(("n2", "n3"), ("n1", "n3")))
    finding = only(found, "reachability")
    assert "n1 and n2 do not reach n3" in finding.finding
    assert "raftctl does" in finding.finding


def test_a_server_that_only_we_do_not_reach_is_a_warning_of_this_check_alone() -> None:
    reached = ReachView(
        address=address_of("n3"), server="n3/c", cluster_id=CLUSTER_ID, round_trip_ms=1.0
    )
    found = examination(
        *members(THREE)[:2],
        silent=("n3/c",),
        reaches=lambda source, target: reached if target.name == "n3" else None,
        failure="no connection within 2s",
    )
    finding = only(found, "reachability")
    assert finding.result is WARN
    assert finding.finding.startswith("raftctl does not reach n3")
    assert "n1 and n2 do" in finding.finding
    assert only(found, "members").result is PASS
    assert "n3 only the other servers can reach" in only(found, "members").finding


def test_an_address_that_means_another_machine_somewhere_fails() -> None:
    stranger = ReachView(
        address=address_of("n3"), server="n9/z", cluster_id="other", round_trip_ms=1.0
    )
    found = examination(
        *members(THREE),
        reaches=lambda source, target: stranger if (source, target.name) == ("n2", "n3") else None,
    )
    finding = only(found, "reachability")
    assert finding.result is FAIL
    assert "n2 finds another server at 10.0.0.3:7100, the address of n3: n9/z" in finding.finding
    assert short(matrix(found).cells["n2", "n3"]) == "wrong"


def test_a_server_that_everybody_takes_for_another_is_left_to_the_members() -> None:
    found = examination(*members(THREE)[:2], blank("n3/x"))
    assert only(found, "reachability").result is PASS
    assert short(matrix(found).cells["n1", "n3"]) == "wrong"


def test_a_link_that_is_down_although_dialling_works_is_a_warning() -> None:
    down = LinkView(
        server="n3/c", address=address_of("n3"), connected=False, problem="refused: removed"
    )
    found = examination(*members(THREE, n2={"links": (down,)}))
    finding = only(found, "reachability")
    assert finding.result is WARN
    assert "its own connection to it is down: refused: removed" in finding.finding
    up = attrs.evolve(down, connected=True)
    assert only(examination(*members(THREE, n2={"links": (up,)})), "reachability").result is PASS


def test_a_server_that_did_not_look_is_named_and_its_row_is_unknown() -> None:
    found = examination(*members(THREE))
    visits = dict(found.visits)
    visits["n2/b"] = attrs.evolve(visits["n2/b"], reaches=None, problem="it is busy")
    found = attrs.evolve(found, visits=visits)
    well, skipped = findings(found, "reachability")
    assert (well.result, skipped.result) == (PASS, SKIP)
    assert skipped.finding == "n2 did not dial the others: it is busy"
    assert ("n2", "n1") not in matrix(found).cells


@pytest.mark.parametrize(
    ("problem", "word"),
    [
        ("connecting to 10.0.0.2:7100: connection refused", "refused"),
        ("greeting 10.0.0.2:7100: no answer for 2.0 s", "silent"),
        ("connecting to 10.0.0.2:7100: Name or service not known", "no name"),
        ("the host name n2 cannot be resolved (unknown)", "no name"),
        ("no route to host", "no route"),
        ("network is unreachable", "no route"),
        ("it does not speak the protocol of raftd: x", "no raftd"),
        ("it closed the connection without a greeting", "closed"),
        ("greeting 10.0.0.2:7100: connection reset by peer", "closed"),
        ("the wire is cut", "failed"),
    ],
)
def test_each_failure_has_a_short_word(problem: str, word: str) -> None:
    found = examination(
        *members(TWO),
        reaches=lambda source, target: ReachView(address=target.address, problem=problem),
    )
    assert short(matrix(found).cells["n1", "n2"]) == word


# --- round trips ------------------------------------------------------------------------------


def takes(round_trip_ms: float, source: str = "n2", dest: str = "n3") -> Reaches:
    def reach(name: str, target: Target) -> ReachView | None:
        if (name, target.name) != (source, dest):
            return None
        return ReachView(address=target.address, server=target.server, round_trip_ms=round_trip_ms)

    return reach


@pytest.mark.parametrize(
    ("round_trip_ms", "result"),
    [(50.0, PASS), (50.1, WARN), (250.0, WARN), (250.1, FAIL)],
)
def test_round_trips_are_judged_by_heartbeat_and_election(
    round_trip_ms: float, result: Result
) -> None:
    finding = only(examination(*members(THREE), reaches=takes(round_trip_ms)), "round-trips")
    assert finding.result is result
    assert re.search("n2 to n3", finding.finding)
    assert finding.servers == (("n2", "n3") if result is not PASS else ())


def test_only_the_slowest_pairs_are_named() -> None:
    found = examination(
        *members(FIVE),
        reaches=lambda source, target: ReachView(
            address=target.address, server=target.server, round_trip_ms=60.0
        ),
    )
    assert "and 17 more pairs" in only(found, "round-trips").finding


# --- syncs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p99_ms", "result"), [(50.0, PASS), (50.1, WARN), (250.0, WARN), (250.1, FAIL)]
)
def test_syncs_are_judged_by_heartbeat_and_election(p99_ms: float, result: Result) -> None:
    found = examination(*members(THREE, n2={"sync_p99_ms": p99_ms}))
    finding = only(found, "syncs")
    assert finding.result is result
    assert "n2" in finding.finding
    assert finding.servers == (("n2",) if result is not PASS else ())


def test_each_slow_disk_has_its_finding() -> None:
    slow = {"sync_p99_ms": 90.0}
    found = examination(*members(THREE, n2=slow, n3=slow))
    assert [finding.servers for finding in findings(found, "syncs")] == [("n2",), ("n3",)]


def test_servers_that_have_never_synced_cannot_be_judged() -> None:
    never = {"sync_p99_ms": None, "sync_p50_ms": None}
    assert only(examination(*members(ONE, n1=never)), "syncs").result is SKIP


# --- clocks -----------------------------------------------------------------------------------


def test_a_clock_that_is_seconds_ahead_is_a_warning_and_no_more() -> None:
    found = examination(*members(THREE), ahead_ms={"n2": 3_400.0})
    finding = only(found, "clocks")
    assert finding.result is WARN
    assert "the clock of n2 is 3.4s ahead of that of n1" in finding.finding
    assert "nothing else depends on clocks" in finding.finding
    assert finding.servers == ("n2", "n1")


def test_a_difference_within_a_second_and_the_error_of_measuring_passes() -> None:
    # Each clock is known to half of its round trip of 0.5 ms.
    assert only(examination(*members(TWO), ahead_ms={"n2": 1_000.5}), "clocks").result is PASS
    assert only(examination(*members(TWO), ahead_ms={"n2": 1_000.6}), "clocks").result is WARN


def test_one_clock_has_nothing_to_be_compared_with() -> None:
    assert only(examination(*members(ONE)), "clocks").result is SKIP


# --- time-outs --------------------------------------------------------------------------------


def test_servers_with_other_timeouts_than_the_rest_are_a_warning() -> None:
    found = examination(*members(THREE, n3={"election_timeout_ms": 2_000.0}))
    finding = only(found, "timeouts")
    assert finding.result is WARN
    assert "n1 and n2; heartbeat interval 50ms, election timeout 2s: n3" in finding.finding


def test_a_heartbeat_as_long_as_an_election_timeout_elsewhere_fails() -> None:
    found = examination(
        *members(THREE, n3={"heartbeat_interval_ms": 500.0, "election_timeout_ms": 5_000.0})
    )
    finding = findings(found, "timeouts")[0]
    assert finding.result is FAIL
    assert finding.servers == ("n3", "n1")


def test_timeouts_that_differ_from_the_file_are_named_with_both(tmp_path: Path) -> None:
    config = file_of(tmp_path, as_in_log("n1", "n2", "n3", more=", election_timeout: 1s"))
    found = examination(*members(THREE, n3={"election_timeout_ms": 1_000.0}), config=config)
    listed = findings(found, "timeouts")
    assert [finding.servers for finding in listed] == [("n1",), ("n2",)]
    assert "runs with heartbeat interval 50ms, election timeout 500ms" in listed[0].finding
    assert "says heartbeat interval 50ms, election timeout 1s" in listed[0].finding


# --- versions ---------------------------------------------------------------------------------


def test_a_release_that_is_behind_keeps_features_off() -> None:
    found = examination(*members(THREE, n1={"features": 0}, n2={"features": 0}, n3=OLD))
    release, features = findings(found, "versions")
    assert (release.result, features.result) == (WARN, WARN)
    assert release.servers == features.servers == ("n3",)
    assert "0.1.0: n1 and n2; 0.0.9: n3" in release.finding
    assert "features of version 3 are off, since n3 speaks only an older version" in (
        features.finding
    )


def test_features_that_wait_for_a_silent_member_say_so() -> None:
    off = {"features": 0}
    found = examination(*members(THREE, n1=off, n2=off)[:2], silent=("n3/c",))
    finding = only(found, "versions")
    assert finding.result is WARN
    assert "until n3 answers" in finding.finding


def test_features_that_are_off_for_no_reason_are_a_warning() -> None:
    off = {"features": 0}
    finding = only(examination(*members(THREE, n1=off, n2=off, n3=off)), "versions")
    assert finding.result is WARN
    assert "although every member speaks it" in finding.finding


def test_a_cluster_of_an_older_release_has_no_features_to_switch_on() -> None:
    assert only(examination(*members(THREE, n1=OLD, n2=OLD, n3=OLD)), "versions").result is PASS


# --- disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free_bytes", "result", "words"),
    [
        (512 * MIB, PASS, "reserved"),
        (512 * MIB - 1, WARN, "less than 2 times its reserve of 256.0 MiB"),
        (256 * MIB, WARN, "less than 2 times"),
        (256 * MIB - 1, FAIL, "writes are refused"),
    ],
)
def test_free_space_is_judged_by_the_reserve(free_bytes: int, result: Result, words: str) -> None:
    finding = only(examination(*members(THREE, n2={"disk_free_bytes": free_bytes})), "disk")
    assert finding.result is result
    assert words in finding.finding
    assert finding.servers == (("n2",) if result is not PASS else ())


@pytest.mark.parametrize(
    "sizes",
    [
        {"state_bytes": 600 * MIB},
        {"snapshot_bytes": 250 * MIB, "log_bytes": 50 * MIB},
    ],
)
def test_a_state_that_does_not_fit_a_second_time_is_a_warning(sizes: dict[str, int]) -> None:
    room = 256 * MIB + 600 * MIB
    enough = {**sizes, "disk_free_bytes": room}
    assert only(examination(*members(THREE, n2=enough)), "disk").result is PASS
    short_of = {**sizes, "disk_free_bytes": room - 1}
    finding = only(examination(*members(THREE, n2=short_of)), "disk")
    assert finding.result is WARN
    assert "its next snapshot may take 600.0 MiB" in finding.finding


def test_disks_of_which_nobody_knows_are_skipped() -> None:
    assert only(examination(*members(ONE, n1={"disk_free_bytes": None})), "disk").result is SKIP


# --- voters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "result", "command"),
    [
        (ONE, WARN, ""),
        (TWO, WARN, ""),
        (THREE, PASS, ""),
        (FOUR, WARN, "demote n4"),
        (FIVE, PASS, ""),
        (configuration("n1/a n2/b", learners="n3/c"), WARN, "promote n3"),
        (configuration("n1/a", learners="n2/b n3/c"), WARN, "promote n2 n3"),
        (configuration("n1/a n2/b n3/c n4/d", learners="n5/e"), WARN, "promote n5"),
    ],
)
def test_voters_should_be_an_odd_number_from_three_on(
    known: ConfigurationView, result: Result, command: str
) -> None:
    of = {server.partition("/")[0]: {"role": "learner"} for server in known.learners}
    finding = only(examination(*members(known, **of)), "voters")
    assert (finding.result, finding.command) == (result, command)


def test_of_four_voters_the_one_that_is_down_is_to_go_never_the_leader() -> None:
    replies = [reply for reply in members(FOUR) if reply.server != "n2/b"]
    assert only(examination(*replies, silent=("n2/b",)), "voters").command == "demote n2"


# --- placement --------------------------------------------------------------------------------


def test_a_zone_with_a_majority_is_a_warning() -> None:
    east, west = {"zone": "east"}, {"zone": "west"}
    finding = only(examination(*members(THREE, n1=east, n2=west, n3=east)), "placement")
    assert finding.result is WARN
    assert finding.finding == (
        "zone east has 2 of 3 voters (n1 n3): without it there is no majority"
    )
    assert finding.servers == ("n1", "n3")


def test_three_zones_for_three_voters_pass() -> None:
    zones = {name: {"zone": f"z{name}"} for name in ("n1", "n2", "n3")}
    finding = only(examination(*members(THREE, **zones)), "placement")
    assert finding.result is PASS
    assert "3 voters on 3 hosts in 3 zones" in finding.finding


def test_while_joint_a_majority_of_either_half_counts() -> None:
    joint = configuration("n4/d n5/e n6/f", outgoing="n1/a n2/b n3/c")
    zones = {f"n{number}": {"zone": f"z{number}"} for number in range(1, 7)}
    zones["n5"] = zones["n6"]
    finding = only(examination(*members(joint, **zones)), "placement")
    assert finding.servers == ("n5", "n6")


def test_a_host_with_a_majority_is_a_warning() -> None:
    known = configuration("n1/a n2/b n3/c", addresses={"n2/b": "10.0.0.1:7200"})
    found = examination(*members(known), at={"n2/b": "10.0.0.1:7200"})
    finding = only(found, "placement")
    assert finding.result is WARN
    assert "host 10.0.0.1 has 2 of 3 voters (n1 n2)" in finding.finding


def test_loopback_addresses_are_one_machine_however_they_are_written() -> None:
    addresses = {"n1/a": "127.0.0.1:7101", "n2/b": "localhost:7102", "n3/c": "[::1]:7103"}
    known = configuration("n1/a n2/b n3/c", addresses=addresses)
    finding = only(examination(*members(known), at=addresses), "placement")
    assert finding.result is WARN
    assert "all 3 voters (n1 n2 n3) run on one machine" in finding.finding


def test_two_voters_apart_are_left_to_the_number_of_voters() -> None:
    assert only(examination(*members(TWO)), "placement").result is PASS


# --- file -------------------------------------------------------------------------------------


def test_members_and_roles_that_differ_from_the_file_have_both_remedies(tmp_path: Path) -> None:
    in_file = as_in_log("n1", "n2", "n4") | as_in_log("n3", more=", role: learner")
    config = file_of(tmp_path, in_file)
    known = configuration("n1/a n2/b n3/c n5/e")
    finding = only(examination(*members(known), config=config), "file")
    assert finding.result is WARN
    assert finding.servers == ("n3", "n4", "n5")
    assert "n3 is a voter, in the file a learner" in finding.finding
    assert "n4 is in the file and no member" in finding.finding
    assert "n5 is a voter and not in the file" in finding.finding
    assert finding.command == f"apply -f {shlex.quote(str(config.path))}"
    assert "`raftctl config export`" in finding.remedy


def test_an_address_that_is_old_in_the_file_is_to_be_exported(tmp_path: Path) -> None:
    in_file = as_in_log("n1", "n2") | {"n3": "address: '10.0.0.33:7100'"}
    finding = only(examination(*members(THREE), config=file_of(tmp_path, in_file)), "file")
    assert finding.result is WARN
    assert "n3 is at 10.0.0.3:7100 by the log, at 10.0.0.33:7100 by" in finding.finding
    assert finding.command == "config export"


def test_a_member_that_has_moved_is_to_be_readdressed_and_the_file_is_right(
    tmp_path: Path,
) -> None:
    in_file = as_in_log("n1", "n2") | {"n3": "address: '10.0.0.33:7100'"}
    leader = members(THREE)[0]
    unheard = attrs.evolve(leader.peers[1], last_contact_ms=9_000.0, connected=False)
    found = examination(
        attrs.evolve(leader, peers=(leader.peers[0], unheard)),
        *members(THREE)[1:],
        at={"n3/c": "10.0.0.33:7100"},
        config=file_of(tmp_path, in_file),
    )
    assert only(found, "file").result is PASS
    commands = [finding.command for finding in findings(found, "members")]
    assert "readdress n3=10.0.0.33:7100" in commands


def test_the_file_of_another_cluster_is_named(tmp_path: Path) -> None:
    config = file_of(tmp_path, as_in_log("n1", "n2", "n3"), name="payments")
    finding = only(examination(*members(THREE), config=config), "file")
    assert finding.result is WARN
    assert "describes the cluster payments; the servers belong to orders" in finding.finding


def test_a_zone_that_differs_from_the_file_is_named(tmp_path: Path) -> None:
    config = file_of(tmp_path, as_in_log("n1", "n2", "n3", more=", zone: east"))
    finding = only(examination(*members(THREE, n3={"zone": "east"}), config=config), "file")
    assert finding.finding.startswith("n1 and n2 run in no zone; ")
    assert finding.finding.endswith("puts them into zone east")
    assert finding.servers == ("n1", "n2")


def test_while_a_change_is_under_way_the_file_is_not_compared(tmp_path: Path) -> None:
    joint = configuration("n2/b n3/c n4/d", outgoing="n1/a n2/b n3/c")
    config = file_of(tmp_path, as_in_log("n1", "n2", "n3"))
    assert only(examination(*members(joint), config=config), "file").result is SKIP


# --- certificates -----------------------------------------------------------------------------


def ending(days: float) -> dict[str, int]:
    """Return what a server says whose certificate ends in so many days."""
    now_ms = 1_800_000_000_000
    return {"wall_clock_ms": now_ms, "certificate_expires_ms": now_ms + round(days * DAY_MS)}


@pytest.mark.parametrize(
    ("days", "result", "text"),
    [
        (200.5, PASS, "the first one to end is that of n2, in 200 days"),
        (30, PASS, "in 30 days"),
        (29.9, WARN, "that of n2 ends within 30 days"),
        (3, WARN, "that of n2 ends within 4 days"),
        (2.9, FAIL, "that of n2 ends within 3 days"),
        (-0.1, FAIL, "that of n2 has ended: no new connection to it comes about"),
    ],
)
def test_certificates_are_judged_by_the_one_that_ends_first(
    days: float, result: Result, text: str
) -> None:
    others = ending(300)
    found = examination(*members(THREE, n1=others, n2=ending(days), n3=others))
    finding = only(found, "certificates")
    assert finding.result is result
    assert text in finding.finding
    if result is not PASS:
        assert finding.command == "certs issue server n2 --replace"
        assert finding.servers == ("n2",)


def test_without_certificates_it_says_that_nothing_is_encrypted() -> None:
    finding = only(examination(*members(THREE)), "certificates")
    assert (finding.result, finding.finding) == (
        PASS,
        "there are none: connections are not encrypted",
    )
