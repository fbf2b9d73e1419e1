"""Health, measurements and the live state by HTTP, on real servers whose leader dies."""

from __future__ import annotations

import http.client
import json
from typing import Any

import attrs
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, Server, wait_for
from tests.raftctl.documented import problem_of

TIMEOUT_S = 10.0
MOVING = {
    *("last_contact_ms", "cpu_ms", "rss_bytes", "rss_anon_bytes", "warnings"),
    *("first_index", "last_index", "match_index", "commit_index", "applied_index", "lag_entries"),
}
"""Numbers that differ between two looks at a cluster where nothing happens."""


@attrs.frozen
class Answer:
    status: int
    text: str


def get(server: Server, path: str) -> Answer | None:
    """Return what a server answers; None if nobody does."""
    host, _, port = server.http.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())
    except OSError:
        return None
    finally:
        connection.close()


def text_of(server: Server, path: str) -> str:
    answer = get(server, path)
    assert answer is not None
    return answer.text


def status_of(server: Server, path: str) -> int | None:
    answer = get(server, path)
    return answer.status if answer is not None else None


def measured(server: Server) -> dict[str, float]:
    """Return the measurements that have no label, by name."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text_of(server, "/metrics"))
        for sample in family.samples
        if not sample.labels
    }


def still(document: Any) -> Any:
    """Return a document of status without what moves by itself."""
    if isinstance(document, dict):
        return {key: still(value) for key, value in document.items() if key not in MOVING}
    return [still(each) for each in document] if isinstance(document, list) else document


def first_event(server: Server) -> Any:
    """Return the first live event."""
    host, _, port = server.http.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    connection.request("GET", "/events")
    response = connection.getresponse()
    assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
    try:
        while not (line := response.readline()).startswith(b"data: "):
            assert line
        return json.loads(line.removeprefix(b"data: "))
    finally:
        connection.close()


def agrees_with_raftctl(cluster: RunningCluster, server: Server) -> bool:
    document = json.loads(text_of(server, "/status.json"))
    assert problem_of(document, "raftctl status") == ""
    return bool(still(document) == still(cluster.json_status()))


def test_each_server_says_how_it_and_the_cluster_are_through_the_death_of_the_leader(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", http=True)
    servers = list(cluster.servers.values())
    leader = cluster.wait_leader()
    for server in servers:
        wait_for(f"{server.name} is ready", lambda s=server: status_of(s, "/readyz") == 200)
        assert text_of(server, "/livez") == "ok\n"
        assert text_of(server, "/readyz?verbose").endswith("readyz check passed\n")
        assert text_of(server, "/").lower().startswith("<!doctype html>")
        wait_for("they agree", lambda s=server: agrees_with_raftctl(cluster, s))

    # A server that is no member is alive, and shows what its cluster file names: itself.
    blank = cluster.add_server("n4")
    wait_for("n4 lives", lambda: status_of(blank, "/livez") == 200)
    answer = get(blank, "/readyz")
    assert answer is not None
    assert answer.status == 503
    assert "[-]member failed: blank: it belongs to no cluster yet" in answer.text
    assert json.loads(text_of(blank, "/status.json"))["health"] == "unavailable"

    before = {server.name: measured(server) for server in servers}
    assert [name for name, found in before.items() if found["raftd_is_leader"]] == [leader.name]
    assert cluster.ctl("put", "a", "1").code == 0
    follower = cluster.followers(leader)[0]

    def shows_the_write() -> bool:
        rates = first_event(follower)["rates"]
        return bool(rates["source"] == leader.name and max(rates["commits_per_second"], default=0))

    wait_for("a follower shows the rates of its leader", shows_the_write)
    assert measured(leader)["raftd_commit_seconds_count"] > 0

    leader.kill()
    rest = [server for server in servers if server is not leader]
    successor = cluster.wait_leader([server.name for server in rest])
    for server in rest:
        old = before[server.name]
        # It is ready until it misses its leader, which may be later than the other has another one.
        wait_for(
            f"{server.name} has another leader",
            lambda s=server, old=old: measured(s)["raftd_term"] > old["raftd_term"],
        )
        wait_for(f"{server.name} is ready again", lambda s=server: status_of(s, "/readyz") == 200)
        found = measured(server)
        assert found["raftd_leader_changes_total"] > old["raftd_leader_changes_total"]
        assert found["raftd_is_leader"] == (server is successor)
        wait_for("they agree", lambda s=server: agrees_with_raftctl(cluster, s))
    event = first_event(successor)
    assert event["status"]["health"] == "degraded"
    told = [each["text"] for each in event["recent"] if each["server"] == successor.name]
    leads = f"leads in term {event['status']['term']}: elected by "
    assert any(text.startswith(leads) for text in told)
    assert told[0] == "has started, version 0.1.0"

    # Alone it is alive, and nobody to be sent clients.
    other = next(server for server in rest if server is not successor)
    other.kill()
    wait_for("it is not ready", lambda: status_of(successor, "/readyz") == 503)
    assert "[-]leader failed" in text_of(successor, "/readyz")
    assert status_of(successor, "/livez") == 200

    # Whoever follows its events does not keep it from ending.
    host, _, port = successor.http.rpartition(":")
    viewer = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        viewer.request("GET", "/events")
        assert viewer.getresponse().status == 200
        successor.terminate()
        assert successor.wait_exit() == 0
    finally:
        viewer.close()
