"""`raftctl recover` with real servers: a majority is lost for good, and the rest goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raftctl.client import expect
from raftd.core.types import server_name
from raftd.protocol import PutRequest, WriteReply
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import Outcome, RunningCluster, wait_for

KEYS = 20


def write(cluster: RunningCluster, first: int = 0) -> None:
    with cluster.client() as client:
        for key in range(first, first + KEYS):
            reply = client.write(
                lambda session, serial, lowest, key=key: PutRequest(
                    session=session,
                    serial=serial,
                    lowest_unacknowledged=lowest,
                    key=f"key/{key:03d}",
                    value=str(key).encode(),
                )
            )
            assert expect(reply, WriteReply).applied


def recover(cluster: RunningCluster, *words: str) -> Outcome:
    return cluster.ctl("recover", *words)


def document(outcome: Outcome) -> Any:
    return json.loads(outcome.stdout.splitlines()[-1])


@pytest.fixture
def lost(make_cluster: MakeCluster) -> RunningCluster:
    """A cluster of five of which n1, n2 and their disks are left, n2 behind."""
    cluster = make_cluster("n1", "n2", "n3", "n4", "n5")
    cluster.ctl("transfer", "n1")
    write(cluster)
    cluster["n2"].kill()
    write(cluster, KEYS)
    for server in cluster.servers.values():
        server.kill()
    return cluster


def test_from_the_loss_of_a_majority_to_a_new_cluster_that_the_dead_cannot_enter(
    lost: RunningCluster,
) -> None:
    n1, n2 = (str(lost[name].data_dir) for name in ("n1", "n2"))
    plan = recover(lost, "plan", n1, n2)
    assert plan.code == 0, plan.stderr
    assert "n3, n4 and n5" in plan.stdout
    assert "may be lost" in plan.stdout
    found = document(recover(lost, "plan", n1, n2, "-o", "json"))
    assert found["chosen"] == "n1"
    assert found["lost"] == ["n3", "n4", "n5"]
    assert found["voter_sets"][0]["needed"] == 3
    backup = lost.folder / "saved.backup"
    unasked = recover(lost, "apply", n1, n2, "--backup", str(backup))
    assert unasked.code == 2
    assert not backup.exists()
    done = recover(lost, "apply", n1, n2, "--backup", str(backup), "--yes", "-o", "json")
    assert done.code == 0, done.stderr
    result = document(done)
    assert result["index"] == found["last_index"]
    assert [aside["id"] for aside in result["set_aside"]] == ["n2", "n1"]
    assert not lost["n1"].data_dir.exists()
    assert lost["n1"].data_dir.with_name("n1.before-recovery-1").is_dir()

    # n1 and n2 are all that there is: they come back blank.
    lost.write_config(lost.config_path, [lost["n1"], lost["n2"]])
    for name in ("n1", "n2"):
        lost[name].start()
        wait_for(f"{name} answers", lost[name].status)
    restored = lost.ctl("restore", str(backup), "--yes")
    assert restored.code == 0, restored.stderr
    verified = recover(lost, "verify", str(backup), "-o", "json")
    assert verified.code == 0, verified.stdout + verified.stderr
    assert {check["result"] for check in document(verified)["checks"]} == {"pass"}
    kept = document(lost.ctl("list", "key/", "-o", "json"))["entries"]
    assert [(entry["key"], entry["value"]) for entry in kept] == [
        (f"key/{key:03d}", str(key)) for key in range(2 * KEYS)
    ]
    write(lost, 2 * KEYS)

    # One of the dead comes back with its disk: it is a stranger, and disturbs nobody.
    term = lost.wait_leader(["n1", "n2"]).status()
    assert term is not None
    lost["n3"].start()
    stranger = wait_for("n3 answers", lost["n3"].status)
    assert stranger.cluster_id == found["cluster_id"]
    again = recover(lost, "verify", str(backup))
    assert again.code == 0, again.stdout
    now = lost.wait_leader(["n1", "n2"]).status()
    assert now is not None
    assert now.term == term.term
    assert server_name(now.server) == server_name(term.server)


def test_an_apply_that_was_interrupted_is_finished_by_repeating_it(lost: RunningCluster) -> None:
    n1, n2 = lost["n1"].data_dir, lost["n2"].data_dir
    backup = lost.folder / "saved.backup"
    # What a kill leaves between the two renames, and of a backup that was being written.
    n2.rename(n2.with_name("n2.before-recovery-1"))
    left = lost.folder / ".saved.backup.salvage-x"
    left.mkdir()
    neighbour = lost.folder / "saved.backup.n1"
    neighbour.mkdir()
    done = recover(lost, "apply", str(n1), str(n2), "--backup", str(backup), "--yes")
    assert done.code == 0, done.stderr
    assert not n1.exists()
    assert backup.exists()
    assert not left.exists()
    assert neighbour.exists()
    assert lost.ctl("inspect", str(backup)).code == 0


def test_nothing_is_recovered_beside_a_living_server_or_with_a_majority(
    lost: RunningCluster,
) -> None:
    directories = {name: str(server.data_dir) for name, server in lost.servers.items()}
    backup = str(lost.folder / "saved.backup")

    # A majority is left.
    three = [directories[name] for name in ("n1", "n2", "n3")]
    refused = recover(lost, "apply", *three, "--backup", backup, "--yes")
    assert refused.code == 1
    assert "3 voters of 5 left" in refused.stderr
    assert "start n1, n2 and n3" in refused.stderr

    # One that was declared dead answers.
    lost["n4"].start()
    wait_for("n4 answers", lost["n4"].status)
    refused = recover(lost, "apply", directories["n1"], "--backup", backup, "--yes")
    assert refused.code == 1
    assert f"n4 answers at {lost['n4'].address}" in refused.stderr
    # Or it is there and only hangs.
    lost["n4"].pause()
    refused = recover(lost, "apply", directories["n1"], "--backup", backup, "--yes")
    assert refused.code == 1
    assert f"n4 at {lost['n4'].address} takes connections and does not answer" in refused.stderr
    lost["n4"].kill()

    # The directory is that of a running server.
    lost["n1"].start()
    wait_for("n1 answers", lost["n1"].status)
    refused = recover(lost, "apply", directories["n1"], "--backup", backup, "--yes")
    assert refused.code == 1
    assert "in use by" in recover(lost, "inspect", directories["n1"]).stdout
    lost["n1"].kill()

    # What is damaged is not chosen.
    segment = next(lost["n1"].data_dir.glob("wal/*"))
    content = bytearray(segment.read_bytes())
    content[200] ^= 1
    segment.write_bytes(bytes(content))
    found = document(recover(lost, "plan", directories["n1"], directories["n2"], "-o", "json"))
    assert found["chosen"] == "n2"
    assert found["directories"][0]["problem"].startswith("damaged")
    assert not (lost.folder / "saved.backup").exists()
    assert all(server.data_dir.is_dir() for server in lost.servers.values())
