"""Changes that are refused: each with what it is, why, and what to do instead; nothing changes.

Most tests share one cluster of three; every one of them leaves it as it found it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import Outcome, RunningCluster, free_port, wait_for
from tests.cluster.proxy import Fate, where
from tests.raftctl.hint_commands import problems_of_hint


@pytest.fixture
def cluster(shared: RunningCluster) -> Iterator[RunningCluster]:
    """The shared cluster; afterwards its configuration has to be the one from before."""
    before = shared.wait_settled(["n1", "n2", "n3"]).configuration
    yield shared
    assert shared.wait_settled(["n1", "n2", "n3"]).configuration == before


def refused(outcome: Outcome, *, code: int = 1) -> Any:
    """Return the error of a raftctl that was run with `-o json`."""
    assert outcome.code == code, outcome
    assert outcome.stdout == ""
    error = outcome.error
    assert error["cause"]
    assert list(problems_of_hint(error["hint"])) == []
    return error


def test_a_server_of_another_cluster_is_refused(
    cluster: RunningCluster, make_cluster: MakeCluster
) -> None:
    other = make_cluster("n4")
    error = refused(cluster.ctl("add", f"n4={other['n4'].address}", "-o", "json"))
    assert "it belongs to another cluster" in error["message"]
    assert "empty data_dir" in error["hint"]


def test_a_name_that_is_a_member_already_is_refused(cluster: RunningCluster) -> None:
    error = refused(cluster.ctl("add", f"n2=127.0.0.1:{free_port()}", "-o", "json"))
    assert "n2 is already a member" in error["message"]
    assert f"voter at {cluster['n2'].address}" in error["cause"]


def test_an_address_that_a_member_has_is_refused(cluster: RunningCluster) -> None:
    error = refused(cluster.ctl("add", f"n4={cluster['n2'].address}", "-o", "json"))
    assert f"{cluster['n2'].address} is the address of n2" in error["message"]


def test_a_server_that_answers_under_another_name_is_refused(cluster: RunningCluster) -> None:
    cluster.start_blank("n9")
    error = refused(cluster.ctl("add", f"n4={cluster['n9'].address}", "-o", "json"))
    assert "calls itself n9" in error["cause"]
    assert f"n9={cluster['n9'].address}" in error["hint"]
    cluster["n9"].kill()


def test_a_server_that_is_no_member_cannot_be_removed(cluster: RunningCluster) -> None:
    error = refused(cluster.ctl("remove", "n7", "-y", "-o", "json"))
    assert "n7 is not a member" in error["message"]
    assert all(name in error["cause"] for name in ("n1", "n2", "n3"))


def test_a_server_that_is_no_member_cannot_be_replaced(cluster: RunningCluster) -> None:
    words = ("n7", f"n4=127.0.0.1:{free_port()}", "-y", "-o", "json")
    error = refused(cluster.ctl("replace", *words))
    assert "n7 is not a member" in error["message"]


def test_a_name_that_is_given_twice_is_a_usage_error(cluster: RunningCluster) -> None:
    first, second = free_port(), free_port()
    words = (f"n4=127.0.0.1:{first}", f"n4=127.0.0.1:{second}")
    error = refused(cluster.ctl("add", *words, "-o", "json"), code=2)
    assert "named twice: n4" in error["message"]


def test_an_address_that_is_given_twice_is_a_usage_error(cluster: RunningCluster) -> None:
    address = f"127.0.0.1:{free_port()}"
    error = refused(cluster.ctl("add", f"n4={address}", f"n5={address}", "-o", "json"), code=2)
    assert f"the address was given twice: {address}" in error["message"]


def test_removing_every_voter_is_refused(cluster: RunningCluster) -> None:
    error = refused(cluster.ctl("remove", "n1", "n2", "n3", "-y", "-o", "json"))
    assert "cannot remove n1, n2, n3" in error["message"]


def test_demoting_every_voter_is_refused(cluster: RunningCluster) -> None:
    error = refused(cluster.ctl("demote", "n1", "n2", "n3", "-y", "-o", "json"))
    assert "cannot demote n1, n2, n3" in error["message"]


def test_a_change_for_an_older_configuration_is_refused(cluster: RunningCluster) -> None:
    error = refused(cluster.ctl("remove", "n3", "-y", "--at-index", "1", "-o", "json"))
    assert "the configuration has moved since index 1" in error["message"]


def test_a_change_that_would_lose_the_quorum_is_unsafe(cluster: RunningCluster) -> None:
    leader = cluster.wait_leader()
    alive, dead = cluster.followers(leader)
    dead.kill()

    def notices() -> bool:
        status = leader.status()
        assert status is not None
        peers = {peer.server.partition("/")[0]: peer for peer in status.peers}
        contact_ms = peers[dead.name].last_contact_ms
        return contact_ms is not None and contact_ms > status.election_timeout_ms

    wait_for("the leader misses the dead server", notices)
    error = refused(cluster.ctl("remove", alive.name, "-y", "-o", "json"), code=6)
    assert error["code"] == "unsafe"
    assert "would lose the quorum" in error["message"]
    assert dead.name in error["cause"]
    assert f" replace {dead.name} NEW=HOST:PORT" in error["hint"]
    dead.start()


def test_the_last_voter_cannot_be_removed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1")
    error = refused(cluster.ctl("remove", "n1", "-y", "-o", "json"))
    assert "cannot remove n1" in error["message"]
    # It dials as this command did, so that it can be copied.
    assert error["hint"] == f"raftctl -c {cluster.config_path} replace n1 NEW=HOST:PORT"


def test_a_change_is_refused_while_another_one_runs(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True)
    cluster.start_blank("n4", "n5")
    assert cluster.proxy is not None
    cluster.proxy.obey(where(lambda passing: passing.dest == "n4", Fate.CUT))
    first = cluster.ctl("add", f"n4={cluster['n4'].address}", "--no-wait", "-o", "json")
    assert first.document["operation"] == "op-2"
    error = refused(cluster.ctl("add", f"n5={cluster['n5'].address}", "-o", "json"))
    assert "op-2 is running" in error["message"]
    assert error["operation"] == "op-2"
    assert "operation watch op-2" in error["hint"]
    cluster.proxy.heal()
    assert cluster.ctl("operation", "watch", "op-2").code == 0
    assert cluster.ctl("add", f"n5={cluster['n5'].address}").code == 0


def test_a_removed_server_never_comes_back_with_its_old_data(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    leader = cluster.wait_leader()
    removed = cluster.followers(leader)[0]
    # It is away when it is removed, so that it learns of it only when it starts again.
    removed.kill()
    result = cluster.ctl("remove", removed.name, "-y")
    assert result.code == 0, result.stderr
    rest = sorted({"n1", "n2", "n3"} - {removed.name})
    # A later leader, after a later change, does not feed it any more: the others have to tell it.
    cluster.start_blank("n4")
    assert cluster.ctl("add", "--learner", f"n4={cluster['n4'].address}").code == 0
    assert cluster.ctl("transfer").code == 0
    before = cluster.wait_settled(rest, ["n4"])
    removed.start()
    assert removed.wait_exit() == 70
    after = cluster.wait_settled(rest, ["n4"])
    assert (after.term, after.server) == (before.term, before.server)
    # A second start ends at once, from what it has on its own disk.
    removed.start()
    assert removed.wait_exit() == 70
    assert "removed" in removed.log.splitlines()[-1]
    words = ("add", f"{removed.name}={removed.address}", "-o", "json")
    refused(cluster.ctl(*words))
    # With an empty disk it is another server under the same name.
    removed.wipe()
    removed.start()
    wait_for("it answers", removed.status)
    assert cluster.ctl(*words).code == 0
    cluster.wait_settled(["n1", "n2", "n3"], ["n4"])


def test_without_a_leader_raftctl_names_each_server_and_how_it_failed(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    leader = cluster.wait_leader()
    dead, alive = cluster.followers(leader)
    dead.kill()
    leader.pause()
    outcome = cluster.ctl("remove", "n3", "-y", "--timeout", "2s", "-o", "json")
    error = refused(outcome, code=3)
    assert f"{dead.name} {dead.address}: connection refused" in error["cause"]
    assert f"{leader.name} {leader.address}: " in error["cause"]
    assert f"{alive.name} {alive.address}: " in error["cause"]
    leader.resume()


def test_a_file_of_another_cluster_reaches_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1")
    before = cluster.json_status()
    other = cluster.folder / "other.yaml"
    other.write_text(cluster.config_path.read_text().replace("cluster: orders", "cluster: other"))
    env = {"RAFTCTL_CONFIG": str(other), "RAFTCTL_ENDPOINTS": ""}
    command = [sys.executable, "-m", "raftctl", "-c", str(other), "--timeout", "2s"]
    for words in (["put", "k", "v"], ["add", "n9=127.0.0.1:1"], ["get", "k"]):
        refused = subprocess.run(
            [*command, *words], capture_output=True, text=True, env={**os.environ, **env}
        )
        assert refused.returncode == 3, refused.stderr
        assert "belongs to the cluster 'orders', the file describes 'other'" in refused.stderr
    assert cluster.json_status()["commit_index"] == before["commit_index"]
