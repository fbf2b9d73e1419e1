"""`raftctl doctor` on real servers: all is well, one direction is blocked, a server is down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raftd.commands import FEATURES_MAX
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import Outcome, RunningCluster, wait_for

BUSY_MACHINE = {"syncs", "round-trips"}
"""What these checks find depends on what else the machine of the tests does."""


def by_name(document: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for check in document["checks"]:
        found.setdefault(check["name"], []).append(check)
    return found


def failed(document: Mapping[str, Any]) -> set[str]:
    """Return the checks that fail, but for those that the machine decides about."""
    return {
        check["name"] for check in document["checks"] if check["result"] == "fail"
    } - BUSY_MACHINE


def examined(cluster: RunningCluster) -> tuple[Outcome, dict[str, Any]]:
    outcome = cluster.ctl("doctor", "-o", "json")
    document: dict[str, Any] = outcome.document
    fails = any(check["result"] == "fail" for check in document["checks"])
    assert outcome.code == (1 if fails else 0), outcome
    return outcome, document


def ways(document: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(cell["from"], cell["to"]): cell for cell in document["reach"]}


def test_doctor_finds_nothing_then_a_blocked_direction_then_a_dead_server(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    assert cluster.proxy is not None
    cluster.wait_settled(["n1", "n2", "n3"])
    wait_for(
        "all features are switched on everywhere",
        lambda: all(status.features == FEATURES_MAX for status in cluster.statuses().values()),
    )

    _, document = examined(cluster)
    checks = by_name(document)
    assert failed(document) == set()
    assert [name for name, found in checks.items() if found[0]["result"] == "warn"] in (
        ["placement"],
        # A disk or a processor that others use as well.
        *(
            [name for name in checks if name in {"placement", *slow}]
            for slow in ({"syncs"}, {"round-trips"}, BUSY_MACHINE)
        ),
    )
    assert "run on one machine" in checks["placement"][0]["finding"]
    assert "99 of 100 take at most" in checks["syncs"][0]["finding"] or checks["syncs"][0]["remedy"]
    features = f"features of version {FEATURES_MAX} switched on"
    assert features in checks["versions"][0]["finding"]
    assert "0.1.0 on every server" in checks["versions"][0]["finding"]
    assert len(ways(document)) == 9
    assert all(cell["ok"] and cell["round_trip_ms"] > 0 for cell in document["reach"])

    leader = cluster.wait_leader()
    one, other = cluster.followers(leader)
    cluster.proxy.block(one.name, other.name)
    _, document = examined(cluster)
    # Nobody needs that way just now: only doctor knows that an election would.
    assert cluster.ctl("status", "--check").code == 0
    assert failed(document) == {"reachability"}
    (finding,) = by_name(document)["reachability"]
    assert finding["servers"] == [one.name, other.name]
    assert f"{one.name} does not reach {other.name} at {other.address}" in finding["finding"]
    assert f"{other.name} reaches {one.name}: one direction is blocked" in finding["finding"]
    assert [way for way, cell in ways(document).items() if not cell["ok"]] == [
        (one.name, other.name)
    ]
    cluster.proxy.heal()

    other.kill()
    _, document = examined(cluster)
    assert failed(document) == {"members"}
    (finding,) = by_name(document)["members"]
    assert finding["servers"] == [other.name]
    assert f"start {other.name}" in finding["remedy"]
    assert by_name(document)["leader"][0]["result"] == "warn"
    dead_ways = {way for way, cell in ways(document).items() if not cell["ok"]}
    assert dead_ways == {(source, other.name) for source in ("raftctl", leader.name, one.name)}
    assert (other.name, leader.name) not in ways(document)
