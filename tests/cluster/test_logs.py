"""The logs of real servers: what a failover leaves, what clients leave, and levels that change."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from raftctl.client import Connection, Deadline
from raftd.protocol import GetRequest
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import ELECTION_TIMEOUT_MS, Server, wait_for

CLIENTS = 1_000
OF_THE_MACHINE = {"stall", "slow-disk", "peer-silent", "peer-back"}
"""What a test machine may cause that is busy with other things as well."""


def lines(server: Server, *events: str) -> list[dict[str, Any]]:
    """Return what a server has logged so far, or only events of these kinds."""
    found = [json.loads(line) for line in server.log.splitlines()]
    return [line for line in found if not events or line.get("event") in events]


def levels(document: Any) -> dict[str, str]:
    return {row["id"]: row["level"] for row in document["servers"]}


def messages(found: Sequence[dict[str, Any]]) -> list[str]:
    return [line["message"] for line in found]


def test_a_failover_is_a_handful_of_lines_with_the_reasons_in_fields(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    first = cluster.wait_leader()
    before = {name: len(lines(server)) for name, server in cluster.servers.items()}
    first.kill()
    rest = [name for name in cluster.servers if name != first.name]
    leader = cluster.wait_leader(rest)
    wait_for("the leader misses the dead one", lambda: lines(leader, "peer-silent"))
    said = lines(leader)[before[leader.name] :]
    assert {line["server"] for line in said} == {leader.name}
    # Two followers may campaign at the same moment, and the vote be split.
    assert {line["event"] for line in said} - OF_THE_MACHINE <= {
        *("link-down", "leader-lost", "campaign", "election-lost", "leader", "follower")
    }
    (won,) = [line for line in said if line["event"] == "leader"]
    assert won["term"] == leader.status().term
    assert len(won["votes"]) == 2
    assert (won["leaderless_ms"] or 0) < 20 * ELECTION_TIMEOUT_MS
    (lost,) = [line for line in said if line["event"] == "link-down"]
    assert lost["peer"].startswith(f"{first.name}/")
    assert lost["level"] == "warning"

    # A process that does not run says so when it does.
    first.start()
    cluster.wait_settled(sorted(cluster.servers))
    leader = cluster.wait_leader()
    steps_down = len(lines(leader, "step-down"))
    leader.pause()
    successor = cluster.wait_leader([name for name in cluster.servers if name != leader.name])
    leader.resume()
    wait_for("it says so", lambda: lines(leader, "stall"))
    deposed = wait_for(
        "it says why it leads no more",
        lambda: lines(leader, "step-down")[steps_down:],
    )
    term = successor.status().term
    assert deposed[0]["reason"] in ("higher-term", "quorum-lost")
    assert lines(leader, "stall")[-1]["stall_ms"] >= ELECTION_TIMEOUT_MS / 2
    wait_for("it follows", lambda: lines(leader, "follower")[-1]["term"] >= term)


def test_clients_leave_nothing_and_the_level_changes_while_servers_run(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3", settings="election_timeout: 5s")
    leader = cluster.wait_leader()
    quiet, other = cluster.followers(leader)
    cluster.wait_settled(["n1", "n2", "n3"])
    before = len(lines(leader))
    deadline = Deadline.after_ms(30_000)
    with ExitStack() as stack:
        for number in range(CLIENTS):
            connection = Connection.open(leader.listen, deadline)
            stack.callback(connection.close)
            connection.ask(GetRequest(key=f"k{number}", stale=True), deadline)
    assert cluster.ctl("put", "a", "1").code == 0
    said = lines(leader)[before:]
    assert messages([line for line in said if line.get("event") not in OF_THE_MACHINE]) == []

    shown = cluster.ctl("log-level", "-o", "json")
    assert (shown.code, levels(shown.document)) == (0, dict.fromkeys(cluster.servers, "info"))
    changed = cluster.ctl("log-level", "debug", "--server", leader.name, "-o", "json")
    (row,) = changed.document["servers"]
    assert (changed.code, row["id"]) == (0, leader.name)
    assert (row["level"], row["previous"]) == ("debug", "info")
    assert leader.status() is not None
    assert "debug" in {line["level"] for line in lines(leader)[before:]}
    assert cluster.ctl("log-level", "warning", "--for", "1s", "--server", quiet.name).code == 0
    wait_for("it goes back by itself", lambda: len(lines(quiet, "log-level")) == 2)
    assert [line["log_level"] for line in lines(quiet, "log-level")] == ["warning", "info"]

    # The file is read again, and nothing else is needed.
    text = other.config_path.read_text()
    other.config_path.write_text(text.replace("defaults:\n", "defaults:\n  log_level: error\n"))
    other.signal(signal.SIGHUP)
    wait_for("it has read its file", lambda: "as the cluster file says" in other.log)
    document = cluster.ctl("log-level", "-o", "json").document
    assert levels(document)[other.name] == "error"
    # Nothing of it outlives the process.
    leader.terminate()
    assert leader.wait_exit() == 0
    leader.start()
    wait_for("it answers again", lambda: leader.status() is not None)
    status = leader.status()
    assert status is not None
    assert status.log_level == "info"
