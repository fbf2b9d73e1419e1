"""Keys with a life, and watching, with real servers whose leaders are killed."""

from __future__ import annotations

import json
import time
from typing import Any

from raftctl.client import Cluster as Client
from raftctl.client import expect
from raftd.protocol import PutRequest, WriteReply
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import Outcome, RunningCluster, wait_for

TTL_MS = 3_000
WRITES = 25


def events_of(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr == ""
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def write(client: Client, count: int, written: dict[int, str]) -> None:
    """Set keys that nobody else sets, and note which revisions that took."""
    for _ in range(count):
        key = f"w/{len(written):03d}"
        reply = client.write(
            lambda session, serial, lowest, key=key: PutRequest(
                session=session, serial=serial, lowest_unacknowledged=lowest, key=key, value=b"v"
            )
        )
        reply = expect(reply, WriteReply)
        assert reply.applied
        assert reply.revision not in written
        written[reply.revision] = key


def leases(cluster: RunningCluster) -> list[str]:
    listed = cluster.ctl("list", "lease/", "-o", "json").document
    return [entry["key"] for entry in listed["entries"]]


def test_lives_end_and_watchers_hear_of_everything_once_while_leaders_are_killed(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    # Of the writes, and of the beginning and the end of two lives.
    total = 3 * WRITES + 4
    watching = cluster.start_ctl("watch", "--from", "1", "--limit", str(total), "-o", "json")
    of_some = cluster.start_ctl(
        "watch", "w/", "--from", "1", "--limit", str(3 * WRITES), "-o", "json"
    )
    written: dict[int, str] = {}
    with cluster.client() as client:
        began_s = time.monotonic()
        for number in range(2):
            put = cluster.ctl("put", f"lease/{number}", "me", "--ttl", f"{TTL_MS}ms", "-o", "json")
            assert put.code == 0, put.stderr
        taken = cluster.ctl("put", "lease/0", "you", "--if-absent", "--ttl", "1h", "-o", "json")
        assert (taken.code, taken.document["applied"]) == (1, False)
        assert 0 < cluster.ctl("get", "lease/1", "-o", "json").document["ttl_ms"] <= TTL_MS
        write(client, WRITES, written)
        leader = cluster.wait_leader()
        leader.kill()
        write(client, WRITES, written)
        if time.monotonic() - began_s < TTL_MS / 1000 - 1:
            assert leases(cluster) == ["lease/0", "lease/1"]
        leader.start()
        cluster.wait_settled(["n1", "n2", "n3"])
        wait_for("all lives are over", lambda: not leases(cluster))
        cluster.wait_leader().terminate()
        write(client, WRITES, written)

    heard = events_of(cluster.finish(watching))
    assert [event["revision"] for event in heard] == list(range(1, total + 1))
    assert {e["revision"]: e["key"] for e in heard if e["key"].startswith("w/")} == written
    assert [(e["kind"], e["key"]) for e in heard if e["key"].startswith("lease/")] == [
        ("put", "lease/0"),
        ("put", "lease/1"),
        ("expired", "lease/0"),
        ("expired", "lease/1"),
    ]
    some = events_of(cluster.finish(of_some))
    assert some == [event for event in heard if event["key"].startswith("w/")]
