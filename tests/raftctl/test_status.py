"""What `raftctl status` and `raftctl wait` make of the answers of servers."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from raftctl.cli import main
from raftctl.commands import status as status_command
from raftctl.endpoints import Endpoints
from raftctl.render import width_of
from raftctl.status import signature
from raftctl.status_text import Layout, lacks, prospects, text
from raftctl.survey import survey
from raftd.cluster_status.answers import Answer
from raftd.cluster_status.document import document
from raftd.cluster_status.view import Health, is_stable, view
from raftd.protocol import ConfigurationView, StatusReply
from tests.raftctl.scripted_servers import ScriptedServer, scripted_servers
from tests.raftctl.status_answers import (
    CLUSTER_ID,
    FIVE,
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

# --- health and tolerance --------------------------------------------------------------------


def test_three_of_three_are_healthy_and_survive_one_failure() -> None:
    cluster = view(answers(*all_of(THREE)))

    assert cluster.health is Health.HEALTHY
    assert cluster.failure_tolerance == 1
    assert prospects(cluster) == "survives any 1 failure; fatal: any 2 of n1 n2 n3"


def test_a_dead_server_is_already_counted() -> None:
    gone = leader(THREE, peers=(peer("n2/b"), peer("n3/c", last_contact_ms=9_000.0)))
    cluster = view(answers(gone, reply("n2/b", THREE), silent=["n3"]))

    assert cluster.health is Health.DEGRADED
    assert cluster.failure_tolerance == 0
    assert prospects(cluster) == ("survives no further failure; fatal: n1 or n2 (n3 is missing)")


def test_a_server_killed_this_instant_counts_as_dead_before_the_leader_notices() -> None:
    cluster = view(answers(leader(FIVE), *all_of(FIVE)[2:], silent=["n2"]))

    assert cluster.failure_tolerance == 1


def test_a_server_that_answers_us_but_not_the_leader_does_not_count() -> None:
    cut_off = leader(THREE, peers=(peer("n2/b"), peer("n3/c", last_contact_ms=501.0)))
    cluster = view(answers(cut_off, reply("n2/b", THREE), reply("n3/c", THREE)))

    assert cluster.failure_tolerance == 0
    assert rows(cluster)["n3"]["reachable"] is True
    assert rows(cluster)["n3"]["issues"] == ["no-contact: the leader last heard from it 501ms ago"]


def test_a_fenced_server_does_not_count() -> None:
    fenced = peer("n3/c", fenced=True)
    cluster = view(
        answers(
            leader(THREE, peers=(peer("n2/b"), fenced)), reply("n2/b", THREE), reply("n3/c", THREE)
        )
    )

    assert cluster.failure_tolerance == 0
    assert rows(cluster)["n3"]["issues"] == [
        "fenced: it lacks entries that it had acknowledged: its disk went back in time, so it "
        "counts for nothing; repair: stop n3, empty its data directory, start it again, then "
        "raftctl replace n3 n3=127.0.0.1:7103"
    ]
    lines = text(cluster, Layout())
    assert lines[-2:] == [
        "    repair: stop n3, empty its data directory, start it again, then",
        "    raftctl replace n3 n3=127.0.0.1:7103",
    ]


def test_five_servers_survive_two_failures() -> None:
    cluster = view(answers(*all_of(FIVE)))

    assert cluster.failure_tolerance == 2
    assert prospects(cluster) == "survives any 2 failures; fatal: any 3 of n1 n2 n3 n4 n5"


def test_while_joint_the_smaller_half_decides() -> None:
    joint = configuration("n1/a", outgoing="n1/a n2/b n3/c n4/d n5/e")
    cluster = view(answers(*all_of(joint)))

    assert cluster.health is Health.DEGRADED
    assert cluster.failure_tolerance == 0
    # Losing n2 alone stops nothing: only n1 is indispensable, in the new half.
    assert prospects(cluster) == "survives no failure; fatal: n1, or any 3 of n2 n3 n4 n5"


def test_learners_do_not_count() -> None:
    known = configuration("n1/a n2/b", learners="n3/c")
    cluster = view(answers(*all_of(known)))

    assert cluster.failure_tolerance == 0
    assert rows(cluster)["n3"]["voter"] is False
    assert cluster.health is Health.HEALTHY


def test_without_a_confirmed_leader_the_cluster_is_unavailable_and_tolerates_nothing() -> None:
    unconfirmed = leader(THREE, leadership_confirmed=False)
    cluster = view(answers(unconfirmed, reply("n2/b", THREE), reply("n3/c", THREE)))

    found = document(cluster)
    assert found["health"] == "unavailable"
    assert found["leader"] is None
    assert found["failure_tolerance"] == 0
    assert found["configuration"]["voters"] == ["n1", "n2", "n3"]
    assert found["servers"][0]["role"] == "leader"
    assert prospects(cluster) == "n1 leads, but no quorum has confirmed it yet"


def test_a_lost_majority_is_named_with_the_servers_to_start() -> None:
    cluster = view(answers(reply("n1/a", THREE, leader=""), silent=["n2", "n3"]))

    assert prospects(cluster) == "1 of 3 voters answers, 2 are needed: start n2 or n3"


def test_the_half_that_lacks_its_majority_is_named() -> None:
    joint = configuration("n1/a n4/d n5/e", outgoing="n1/a n2/b n3/c")
    alive = [reply(each, joint, leader="") for each in ("n1/a", "n2/b", "n3/c")]
    cluster = view(answers(*alive, silent=["n4", "n5"]))

    assert prospects(cluster) == "1 of 3 new voters answers, 2 are needed: start n4 or n5"


def test_the_confirmed_leader_of_the_highest_term_is_believed() -> None:
    old = leader(THREE, term=6, commit_index=500)
    new = leader(THREE, server="n2/b", term=7)
    cluster = view(answers(old, new, reply("n3/c", THREE, leader="n2/b")))

    assert document(cluster)["leader"] == "n2"
    assert document(cluster)["commit_index"] == 100


# --- rows ------------------------------------------------------------------------------------


def test_the_document_has_exactly_the_fields_of_the_contract() -> None:
    found = document(view(answers(*all_of(THREE)), "from-the-file"))

    assert list(found) == [
        *("format", "cluster", "health", "failure_tolerance", "leader", "term", "commit_index"),
        *("revision", "configuration", "servers", "operation", "rolling"),
        *("fatal_sets", "fatal_set_count", "fatal_zones", "notes"),
    ]
    assert found["format"] == "1.0"
    assert found["cluster"] == {"name": "orders", "id": CLUSTER_ID}
    assert found["configuration"] == {
        "index": 40,
        "committed": True,
        "joint": False,
        "voters": ["n1", "n2", "n3"],
        "outgoing": [],
        "learners": [],
    }
    assert found["servers"][1] == {
        "id": "n2",
        "address": "127.0.0.1:7102",
        "incarnation": "b",
        "role": "follower",
        "voter": True,
        "reachable": True,
        "term": 7,
        "first_index": 1,
        "last_index": 100,
        "match_index": 100,
        "commit_index": 100,
        "applied_index": 100,
        "lag_entries": 0,
        "last_contact_ms": 12.0,
        "snapshot_index": 0,
        "version": "0.1.0",
        "issues": [],
        "warnings": [],
        "zone": None,
        "cpu_ms": None,
        "rss_bytes": None,
        "rss_anon_bytes": None,
        "certificate_expires_ms": None,
    }


def test_an_unreachable_member_keeps_its_row_with_the_leaders_numbers_only() -> None:
    row = rows(view(answers(leader(THREE), reply("n2/b", THREE), silent=["n3"])))["n3"]

    assert row["reachable"] is False
    assert row["role"] == "unknown"
    assert row["voter"] is True
    assert row["match_index"] == 100
    nulls = ("term", "first_index", "last_index", "commit_index", "applied_index", "version")
    assert [row[field] for field in nulls] == [None] * 6
    assert row["issues"] == ["unreachable: connection refused"]


def test_a_wiped_member_answers_and_counts_for_nothing() -> None:
    cluster = view(answers(leader(THREE), blank("n2/zz"), reply("n3/c", THREE)))

    row = rows(cluster)["n2"]
    assert len(document(cluster)["servers"]) == 3
    assert (row["reachable"], row["role"], row["incarnation"]) == (True, "blank", "zz")
    assert row["issues"] == [
        "wiped: its disk is new (incarnation zz, the cluster knows b), so it counts for nothing; "
        "repair: raftctl replace n2 n2=127.0.0.1:7102"
    ]
    assert cluster.health is Health.DEGRADED
    assert cluster.failure_tolerance == 0


def test_two_incarnations_of_a_name_have_a_row_each() -> None:
    joint = configuration(
        "n1/a n2/new n3/c",
        outgoing="n1/a n2/old n3/c",
        addresses={
            "n1/a": "127.0.0.1:7101",
            "n2/new": "127.0.0.1:7102",
            "n2/old": "127.0.0.1:7102",
            "n3/c": "127.0.0.1:7103",
        },
    )
    cluster = view(answers(leader(joint), reply("n2/new", joint), reply("n3/c", joint)))

    second = [row for row in document(cluster)["servers"] if row["id"] == "n2"]
    assert [(row["incarnation"], row["reachable"]) for row in second] == [
        ("new", True),
        ("old", False),
    ]
    # The new disk must not count for the old one: in C_old only n1 and n3 are left.
    assert cluster.failure_tolerance == 0
    old, new = cluster.halves
    assert (old.alive, new.alive) == (("n1", "n3"), ("n1", "n2/new", "n3"))


def test_a_blank_server_of_the_file_has_a_row_and_does_not_make_the_cluster_ill() -> None:
    cluster = view(answers(*all_of(THREE), blank("n4/x")))

    row = rows(cluster)["n4"]
    assert (row["role"], row["voter"]) == ("blank", False)
    assert row["issues"] == [
        "blank: it belongs to no cluster yet; next: raftctl add n4=127.0.0.1:7104"
    ]
    assert cluster.health is Health.HEALTHY


def test_a_server_of_another_cluster_lends_us_no_numbers() -> None:
    stranger = leader(
        configuration("n4/x"), server="n4/x", term=99, cluster_id="ffff", cluster_name="staging"
    )
    cluster = view(answers(*all_of(THREE), stranger))

    row = rows(cluster)["n4"]
    assert document(cluster)["leader"] == "n1"
    assert (row["role"], row["term"], row["voter"]) == ("unknown", None, False)
    assert row["issues"] == ["other-cluster: n4/x answers, of cluster staging (ffff)"]


def test_a_stranger_in_the_place_of_a_member_is_no_member() -> None:
    stranger = reply("n3/zz", configuration("n3/zz"), cluster_id="ffff", cluster_name="staging")
    cluster = view(answers(leader(THREE), reply("n2/b", THREE), stranger))

    assert rows(cluster)["n3"]["issues"] == [
        "other-cluster: n3/zz answers, of cluster staging (ffff); repair: start n3 with its own "
        "data directory there, or with an empty one if it is lost"
    ]
    assert cluster.failure_tolerance == 0


def test_a_removed_server_that_still_answers_has_a_row_and_a_silent_one_has_none() -> None:
    removed = reply("n4/d", THREE, role="removed")
    cluster = view(answers(*all_of(THREE), removed, silent=["n5"]))

    assert rows(cluster)["n4"]["role"] == "removed"
    assert rows(cluster)["n4"]["issues"] == [
        "removed: it was removed from the cluster for good and is about to stop; with an empty "
        "data directory it can be added as a new server"
    ]
    assert "n5" not in rows(cluster)
    assert cluster.outdated == ("n5",)
    assert cluster.health is Health.HEALTHY
    assert "also lists n5, which is no member" in " ".join(text(cluster, Layout()))


def test_a_readdressed_member_is_known_by_its_identity() -> None:
    moved = attrs.evolve(THREE, addresses=dict(THREE.addresses) | {"n3/c": "127.0.0.1:7999"})
    found = answers(leader(moved), reply("n2/b", moved), silent=["n3"])
    found.append(
        Answer(address="127.0.0.1:7999", name="n3", listed=False, reply=reply("n3/c", moved))
    )
    cluster = view(found)

    assert rows(cluster)["n3"]["address"] == "127.0.0.1:7999"
    assert cluster.health is Health.HEALTHY
    assert cluster.outdated == ()


@pytest.mark.parametrize(
    ("fields", "issue"),
    [
        ({"term": 6}, "term: it is in term 6, the leader in 7"),
        ({"leader": ""}, "leader: it knows no leader; n1 leads"),
        ({"leader": "n2/b"}, "leader: it follows n2; n1 leads"),
        ({"version": "0.2.0"}, "version: it runs 0.2.0, the leader runs 0.1.0"),
        ({"applied_index": 100, "commit_index": 5_000}, "applying: 4,900 committed entries"),
        ({"issues": ("fsync is slow",)}, "reported: fsync is slow"),
        (
            {"configuration": configuration("n1/a n2/b", index=30)},
            "configuration: its configuration is that of index 30, the leader's is that of 40",
        ),
    ],
)
def test_a_member_that_differs_from_its_leader_is_an_issue(
    fields: dict[str, Any], issue: str
) -> None:
    other = attrs.evolve(reply("n3/c", THREE), **fields)
    cluster = view(answers(leader(THREE), reply("n2/b", THREE), other))

    assert len(rows(cluster)["n3"]["issues"]) == 1
    assert rows(cluster)["n3"]["issues"][0].startswith(issue)
    assert cluster.health is Health.DEGRADED


@pytest.mark.parametrize(
    ("lag", "caught_up", "lagging"),
    [(1000, True, False), (1001, True, True), (5, False, True), (0, False, False)],
)
def test_a_voter_lags_when_it_is_far_behind_or_not_caught_up(
    lag: int, caught_up: bool, lagging: bool
) -> None:
    behind = peer("n3/c", lag_entries=lag, caught_up=caught_up)
    cluster = view(
        answers(
            leader(THREE, peers=(peer("n2/b"), behind)),
            reply("n2/b", THREE),
            reply("n3/c", THREE),
        )
    )

    assert (cluster.health is Health.DEGRADED) is lagging
    # A slow server is alive: it still votes.
    assert cluster.failure_tolerance == 1


def test_before_init_every_server_of_the_file_has_a_row() -> None:
    cluster = view(answers(blank("n1/a"), blank("n2/b"), silent=["n3"]), "orders")

    found = document(cluster)
    assert found["cluster"] == {"name": "orders", "id": None}
    assert found["configuration"]["voters"] == []
    assert [row["reachable"] for row in found["servers"]] == [True, True, False]
    assert prospects(cluster) == (
        "there is no cluster yet: n1 and n2 are blank; "
        "start n3, then `raftctl init` brings all of them together"
    )


def test_after_an_interrupted_restore_the_headline_names_the_restore() -> None:
    held = attrs.evolve(blank("n1/a"), snapshot_index=1500)
    cluster = view(answers(held, blank("n2/b")), "orders")
    assert prospects(cluster) == (
        "there is no cluster yet, a restore was interrupted: n1 holds a backup up to entry 1,500; "
        "`raftctl restore FILE` with that backup finishes it; to start over empty the data of n1"
    )
    cluster = view(answers(held, silent=["n2"]), "orders")
    assert "; start n2, then `raftctl restore FILE` with" in prospects(cluster)
    assert "raftctl init" not in "\n".join(text(cluster, Layout()))


def test_nobody_answers_and_the_document_still_comes() -> None:
    found = document(view(answers(silent=["n1", "n2", "n3"]), "orders"))

    assert found["health"] == "unavailable"
    assert [row["id"] for row in found["servers"]] == ["n1", "n2", "n3"]
    assert {row["reachable"] for row in found["servers"]} == {False}
    assert found["term"] is None


# --- operation and goals ---------------------------------------------------------------------


def test_a_running_operation_stands_in_the_document_and_an_ended_one_does_not() -> None:
    running = view(answers(leader(JOINT, operation=operation())))
    ended = view(answers(leader(THREE, operation=operation("ended", "done"))))

    found = document(running)["operation"]
    assert found is not None
    wanted = ("id", "kind", "phase", "step", "author", "reason", "started_ms")
    assert [found[field] for field in wanted] == [
        *("op-17", "replace", "joint", "committing-joint", "bob@desk", "disk is old"),
        1_700_000_000_000,
    ]
    assert document(ended)["operation"] is None


def test_each_goal_says_what_is_missing_and_nothing_once_it_is_reached() -> None:
    healthy = view(answers(*all_of(THREE)))
    joint = view(answers(*all_of(JOINT), silent=[]))
    changing = view(answers(leader(THREE, operation=operation("catching-up"))))
    uncommitted = view(answers(leader(attrs.evolve(THREE, committed=False))))
    leaderless = view(answers(reply("n1/a", THREE), silent=["n2", "n3"]))

    assert [lacks(healthy, goal) for goal in ("leader", "healthy", "stable")] == ["", "", ""]
    assert lacks(joint, "leader") == ""
    assert lacks(joint, "healthy").startswith("the configuration is joint")
    assert lacks(joint, "stable").startswith("JOINT since index 91,377")
    assert lacks(changing, "stable").startswith("op-17 replace n3 by n4")
    assert lacks(uncommitted, "stable").startswith("not committed yet, index 40")
    assert "2 are needed" in lacks(leaderless, "stable")
    assert is_stable(healthy)
    assert not is_stable(leaderless)


def test_growing_counters_are_no_news_and_a_lost_server_is() -> None:
    before = view(answers(*all_of(THREE)))
    later = [attrs.evolve(each, commit_index=900, last_index=905) for each in all_of(THREE)]

    assert signature(view(answers(*later))) == signature(before)
    assert signature(view(answers(*later[:2], silent=["n3"]))) != signature(before)


# --- text ------------------------------------------------------------------------------------


def test_the_text_of_a_healthy_cluster() -> None:
    lines = text(view(answers(*all_of(THREE))), Layout())

    assert lines == [
        "CLUSTER  orders (a02e17c4)   HEALTHY   leader n1   term 7",
        "         survives any 1 failure; fatal: any 2 of n1 n2 n3",
        "CONFIG   stable since index 40: 3 voters   commit 100   revision 60",
        "",
        "ID  ROLE      STATE  TERM  LAST  COMMIT  APPLIED  LAG  CONTACT  ADDRESS",
        "n1  leader    ok        7   100     100      100    0        -  127.0.0.1:7101",
        "n2  follower  ok        7   100     100      100    0     12ms  127.0.0.1:7102",
        "n3  follower  ok        7   100     100      100    0     12ms  127.0.0.1:7103",
    ]


def test_the_text_of_a_change_names_both_majorities_and_the_operation() -> None:
    replies = all_of(JOINT)
    replies[0] = attrs.evolve(replies[0], operation=operation())
    lines = text(view(answers(*replies)), Layout(width=100))

    assert lines[2] == (
        "CONFIG   JOINT since index 91,377: needs a majority of {n1 n2 n3} AND of {n1 n2 n4}"
    )
    assert lines[4] == (
        "CHANGE   op-17 replace n3 by n4: committing-joint, started by bob@desk (disk is old)"
    )
    assert [line.split()[2] for line in lines[7:11]] == ["both", "both", "old", "new"]


@pytest.mark.parametrize("scale", [1, 1_000, 100_000_000])
@pytest.mark.parametrize("dead", [False, True])
def test_three_servers_fit_eighty_columns(scale: int, dead: bool) -> None:
    replies = [
        attrs.evolve(
            each,
            **{
                field: getattr(each, field) * scale
                for field in ("last_index", "commit_index", "applied_index", "term")
            },
        )
        for each in all_of(THREE)
    ]
    cluster = view(answers(*replies[:2], silent=["n3"]) if dead else answers(*replies), "orders")
    lines = text(cluster, Layout(width=80))

    assert max(width_of(line) for line in lines) <= 80
    assert all(address_of(name) in "\n".join(lines) for name in ("n1", "n2", "n3"))


def test_a_wide_table_has_every_column_in_full() -> None:
    first, second, third = all_of(THREE)
    second = attrs.evolve(second, cpu_ms=61_000, rss_anon_bytes=41 << 20)
    lines = text(view(answers(first, second, third)), Layout(wide=True))

    header = next(line for line in lines if line.startswith("ID"))
    for title in ("FIRST", "MATCH", "SNAPSHOT", "CPU", "MEMORY", "INCARNATION", "VERSION"):
        assert title in header.split()
    assert "1m 01s  41.0 MiB" in next(line for line in lines if line.startswith("n2"))


def test_what_servers_say_cannot_move_the_cursor() -> None:
    evil = attrs.evolve(reply("n3/c", THREE), version="\x1b[2J", issues=("a\nb\x1b[31m",))
    lines = text(view(answers(leader(THREE), reply("n2/b", THREE), evil)), Layout(wide=True))

    assert "\x1b" not in "".join(lines)
    assert not any(line == "b" for line in lines)


# --- the survey, on real sockets -------------------------------------------------------------


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def at_their_addresses(servers: Sequence[ScriptedServer], **fields: Any) -> ConfigurationView:
    identities = [f"n{number}/{'abcde'[number - 1]}" for number in range(1, len(servers) + 1)]
    return attrs.evolve(
        configuration(" ".join(identities)),
        addresses={
            identity: server.address for identity, server in zip(identities, servers, strict=True)
        },
        **fields,
    )


def endpoints_of(*addresses: str) -> Endpoints:
    return Endpoints(addresses=addresses, source="the test")


def test_the_survey_follows_configurations_to_servers_that_nobody_listed() -> None:
    with scripted_servers(3) as servers:
        known = at_their_addresses(servers)
        first = attrs.evolve(known, addresses={"n2/b": servers[1].address})
        servers[0].status = reply("n1/a", first)
        servers[1].status = leader(known, server="n2/b")
        servers[2].status = reply("n3/c", known)
        found = survey(endpoints_of(servers[0].address))

        assert [answer.listed for answer in found] == [True, False, False]
        assert [answer.name for answer in found] == ["", "n2", "n3"]
        assert [answer.reply.server for answer in found if answer.reply] == ["n1/a", "n2/b", "n3/c"]
        assert [server.asked_count for server in servers] == [1, 1, 1]


def test_a_server_that_hangs_costs_its_own_time_out_and_no_more() -> None:
    with scripted_servers(2) as servers:
        servers[1].status = reply("n2/b", THREE)
        found = survey(endpoints_of(servers[0].address, servers[1].address), 300)

        assert found[0].reply is None
        assert "no answer within" in found[0].failure
        assert found[1].reply is not None


def test_the_survey_says_why_a_server_could_not_be_asked() -> None:
    found = survey(endpoints_of(free_address()))

    assert [(answer.reply, answer.failure) for answer in found] == [(None, "connection refused")]


# --- the commands ----------------------------------------------------------------------------


def write_cluster_file(folder: Path, addresses: Sequence[str]) -> Path:
    file = folder / "cluster.yaml"
    lines = [f"  n{number}: {{address: {at}}}" for number, at in enumerate(addresses, start=1)]
    file.write_text("\n".join(["cluster: orders", "servers:", *lines]) + "\n")
    return file


def healthy(servers: Sequence[ScriptedServer]) -> None:
    known = at_their_addresses(servers)
    servers[0].status = leader(known)
    for number, server in enumerate(servers[1:], start=2):
        server.status = reply(f"n{number}/{'abcde'[number - 1]}", known)


def test_status_prints_the_document_and_check_succeeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_servers(3) as servers:
        healthy(servers)
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        code = main(["-c", str(file), "status", "--check", "-o", "json"])

    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (found["health"], found["leader"]) == ("healthy", "n1")


def test_check_exits_with_1_if_a_member_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_servers(3) as servers:
        healthy(servers)
        servers[2].close()
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        plain = main(["-c", str(file), "status"])
        checked = main(["-c", str(file), "status", "--check"])

    assert (plain, checked) == (0, 1)
    assert "n3: unreachable: connection refused" in capsys.readouterr().out


def test_nobody_answering_exits_with_3_and_prints_every_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_cluster_file(tmp_path, [free_address(), free_address()])
    code = main(["-c", str(file), "status", "-o", "json"])

    found = json.loads(capsys.readouterr().out)
    assert code == 3
    assert [row["reachable"] for row in found["servers"]] == [False, False]
    assert found["cluster"]["name"] == "orders"


def test_a_difference_of_the_moment_is_looked_at_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_servers(3) as servers:
        healthy(servers)
        late, current = reply("n3/c", at_their_addresses(servers), term=6), servers[2].status

        def first_late() -> StatusReply:
            assert isinstance(current, StatusReply)
            return late if servers[2].asked_count == 0 else current

        servers[2].status = first_late
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        assert main(["-c", str(file), "status", "--check"]) == 0
    assert "HEALTHY" in capsys.readouterr().out


def test_color_always_colours_a_status_that_goes_to_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_servers(3) as servers:
        healthy(servers)
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        assert main(["-c", str(file), "status"]) == 0
        plain = capsys.readouterr().out
        assert main(["-c", str(file), "status", "--color", "always"]) == 0

    assert "\x1b[" not in plain
    assert "\x1b[" in capsys.readouterr().out


def test_wait_returns_as_soon_as_the_goal_is_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_servers(3) as servers:
        healthy(servers)
        known = at_their_addresses(servers)
        confirmed = servers[0].status

        def at_last() -> StatusReply:
            assert isinstance(confirmed, StatusReply)
            if servers[0].asked_count >= 2:
                return confirmed
            return leader(known, leadership_confirmed=False)

        servers[0].status = at_last
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        code = main(["-c", str(file), "wait", "--for", "leader", "--timeout", "20s"])

    captured = capsys.readouterr()
    assert code == 0
    assert captured.out == ("leader n1, term 7; survives any 1 failure; fatal: any 2 of n1 n2 n3\n")
    assert "waiting for leader: n1 leads, but no quorum has confirmed it yet" in captured.err


def test_wait_says_a_thing_once_although_a_time_in_it_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_servers(3) as servers:
        healthy(servers)
        known = at_their_addresses(servers)

        def silent_for_longer() -> StatusReply:
            peers = (
                peer("n2/b"),
                peer("n3/c", last_contact_ms=10_000.0 + 100 * servers[0].asked_count),
            )
            return leader(known, peers=peers)

        servers[0].status = silent_for_longer
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        assert main(["-c", str(file), "wait", "--for", "healthy", "--timeout", "1500ms"]) == 4
        assert servers[0].asked_count > 3
    said = [line for line in capsys.readouterr().err.splitlines() if "waiting for healthy" in line]
    assert len(said) == 1


def test_wait_times_out_with_4_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_servers(3) as servers:
        healthy(servers)
        servers[2].close()
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        arguments = ["-c", str(file), "wait", "--for", "healthy", "--timeout", "300ms"]
        code = main([*arguments, "-o", "json"])

    captured = capsys.readouterr()
    assert code == 4
    assert json.loads(captured.out)["health"] == "degraded"
    assert json.loads(captured.err)["error"]["cause"] == "n3: unreachable: connection refused"


def test_watch_off_a_terminal_prints_one_block_per_change_and_ctrl_c_ends_with_130(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_command, "WATCH_INTERVAL_S", 0.0)
    with scripted_servers(3) as servers:
        healthy(servers)
        second = leader(at_their_addresses(servers), issues=("its disk is slow",))
        looks = 0
        confirmed = servers[0].status

        def three_looks() -> StatusReply:
            assert isinstance(confirmed, StatusReply)
            return confirmed if servers[0].asked_count < 3 else second

        def interrupt_later(_: float) -> None:
            nonlocal looks
            looks += 1
            if looks == 5:
                raise KeyboardInterrupt

        servers[0].status = three_looks
        monkeypatch.setattr(status_command.time, "sleep", interrupt_later)
        file = write_cluster_file(tmp_path, [server.address for server in servers])
        code = main(["-c", str(file), "status", "--watch"])

    blocks = capsys.readouterr().out.strip().split("\n\nCLUSTER")
    assert code == 130
    assert len(blocks) == 2
    assert "HEALTHY" in blocks[0]
    assert "DEGRADED" in blocks[1]
