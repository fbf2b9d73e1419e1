"""Snapshots of real processes: servers that die with -9 while they take, publish or install one."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from pathlib import Path
from types import TracebackType

import pytest

from raftctl.client import Cluster as Client
from raftctl.client import expect
from raftd.protocol import GetReply, GetRequest, PeerView, PutRequest, WriteReply
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, Server, voter, wait_for
from tests.cluster.workload import Workload

SMALL = "snapshot_log_size: 64KiB"
BALLAST_BYTES = 16 * 1024
BALLAST_KEYS = 64
"""A state of a megabyte, so that every snapshot takes a moment."""
LARGE_BYTES = 512 * 1024
LARGE_COUNT = 100
"""A state of 50 MiB, which takes seconds to be sent and seconds to be worked in."""
REBUILT = "builds it from"
INSTALLED = "installed a snapshot"


def put(client: Client, key: str, value: bytes) -> None:
    reply = client.write(
        lambda session, serial, lowest: PutRequest(
            session=session, serial=serial, lowest_unacknowledged=lowest, key=key, value=value
        )
    )
    assert expect(reply, WriteReply).applied


class Ballast(threading.Thread):
    """A client that overwrites a few large values, so that the log grows and the state does not."""

    def __init__(self, client: Client, *, keys: int = BALLAST_KEYS) -> None:
        super().__init__(daemon=True)
        self.acknowledged: dict[str, int] = {}
        """The number that each key has at least."""
        self._client = client
        self._keys = keys
        self._stop_event = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        number = 0
        try:
            with self._client as client:
                while not self._stop_event.is_set():
                    key = f"ballast/{number % self._keys:03d}"
                    put(client, key, f"{number}".encode().ljust(BALLAST_BYTES))
                    self.acknowledged[key] = number
                    number += 1
        except Exception as error:
            self._error = error

    def __enter__(self) -> Ballast:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_event.set()
        self.join(40.0)

    def stop(self) -> None:
        """End it; it finishes the write that it is waiting for."""
        self.__exit__(None, None, None)
        if self._error is not None:
            raise AssertionError(f"the ballast: {self._error!r}") from self._error
        assert not self.is_alive()

    def check_nothing_is_lost(self, client: Client) -> None:
        for key, number in self.acknowledged.items():
            reply = expect(client.ask(GetRequest(key=key)), GetReply)
            assert int(reply.value) >= number, f"{key} went back"


def large(number: int) -> bytes:
    return number.to_bytes(2, "big") * (LARGE_BYTES // 2)


def first_index(server: Server) -> int:
    status = server.status()
    return status.first_index if status is not None else 0


def wait_compacted(cluster: RunningCluster, index: int) -> None:
    """Wait until the leader has dropped the entry at `index`."""

    def is_gone() -> bool:
        leader = cluster.confirmed_leader()
        return leader is not None and first_index(leader) > index

    wait_for(f"entry {index} is compacted", is_gone)


def last_index(server: Server) -> int:
    status = server.status()
    assert status is not None
    return status.last_index


def peer_view(cluster: RunningCluster, name: str) -> PeerView | None:
    """Return what the leader knows of `name`."""
    leader = cluster.confirmed_leader()
    status = leader.status() if leader is not None else None
    peers = status.peers if status is not None else ()
    return next((peer for peer in peers if peer.server.startswith(f"{name}/")), None)


def workers_of(server: Server) -> list[int]:
    """Return the workers of a server, by what stands in their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"raftd.storage.worker" in words and any(
                word.startswith(os.fsencode(server.data_dir)) for word in words
            ):
                found.append(int(entry.name))
    return found


def received_file_bytes(server: Server) -> int:
    """Return how much of a snapshot lies on the disk of a server that receives one."""
    return sum(path.stat().st_size for path in (server.data_dir / "snapshots").glob("*.part"))


def snapshot_index(server: Server) -> int:
    status = server.status()
    return status.snapshot_index if status is not None else 0


@pytest.mark.parametrize("run", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_kills_at_random_moments_of_taking_publishing_and_installing_lose_nothing(
    make_cluster: MakeCluster, run: int
) -> None:
    moments = random.Random(run)
    settings = f"{SMALL}\nsnapshot_rate: 2MiB\ncatch_up_rate: 4MiB"
    cluster = make_cluster("n1", "n2", "n3", settings=settings)
    with Workload(cluster.client, writers=1) as workload, Ballast(cluster.client()) as ballast:
        wait_for("a snapshot", lambda: snapshot_index(cluster.wait_leader()))
        for number in range(4):
            leader = cluster.wait_leader()
            victim = leader if number % 2 == 0 else moments.choice(cluster.followers(leader))
            time.sleep(moments.uniform(0.0, 0.6))
            index = last_index(victim)
            victim.kill()
            if number % 2:
                # Away for so long that it needs a snapshot; killed once more while it gets it.
                wait_compacted(cluster, index)
                victim.start()
                wait_for(f"{victim.name} answers", victim.status)
                time.sleep(moments.uniform(0.0, 1.0))
                victim.kill()
            victim.start()
            wait_for(f"{victim.name} answers", victim.status)
        workload.wait_writes(20)
        workload.stop()
        ballast.stop()
    with cluster.client() as client:
        workload.check_nothing_is_lost(client)
        ballast.check_nothing_is_lost(client)
    cluster.wait_settled(["n1", "n2", "n3"])
    logs = "".join(server.log for server in cluster.servers.values())
    assert INSTALLED in logs
    assert logs.count("snapshot of") > 6
    for server in cluster.servers.values():
        assert server.running
        # Old snapshots, logs and states are removed.
        assert len(list((server.data_dir / "snapshots").glob("*.snap"))) <= 2


def test_a_server_added_under_load_and_killed_twice_while_it_installs_resumes_and_is_promoted(
    make_cluster: MakeCluster,
) -> None:
    settings = "snapshot_log_size: 2MiB\nsnapshot_rate: 16MiB\ncatch_up_rate: 16MiB"
    cluster = make_cluster("n1", "n2", "n3", settings=settings)
    with cluster.client() as client:
        for number in range(LARGE_COUNT):
            put(client, f"large/{number:03d}", large(number))
    wait_for(
        "a snapshot of most of it",
        lambda: snapshot_index(cluster.wait_leader()) > 0.8 * LARGE_COUNT,
    )
    cluster.start_blank("n4")
    joining = cluster["n4"]
    with (
        Workload(cluster.client, writers=1) as workload,
        cluster.client(["n1", "n2", "n3"]) as client,
    ):
        operation = cluster.start_change(client, "add", voter(joining))

        def receives_half() -> PeerView | None:
            peer = peer_view(cluster, "n4")
            half = peer is not None and peer.snapshot_received_bytes > peer.snapshot_bytes / 3
            return peer if half and peer.snapshot_bytes else None

        peer = wait_for("n4 has a third of the snapshot", receives_half)
        assert peer.snapshot_received_bytes < peer.snapshot_bytes
        joining.kill()
        before_bytes = received_file_bytes(joining)
        assert before_bytes >= peer.snapshot_received_bytes * 0.9
        joining.start()
        wait_for("n4 answers", joining.status)
        # All but the record that was cut.
        assert received_file_bytes(joining) > before_bytes - 2 * 1024 * 1024

        def builds() -> PeerView | None:
            # What comes in is worked in at once. Bytes that it checks after its restart are fewer.
            peer = peer_view(cluster, "n4")
            installed_bytes = peer.snapshot_installed_bytes if peer is not None else 0
            return peer if peer and 0.6 * peer.snapshot_bytes < installed_bytes else None

        peer = wait_for("n4 works the snapshot in", builds, within_s=40.0)
        assert INSTALLED not in joining.log
        joining.kill()
        before_bytes = received_file_bytes(joining)
        assert before_bytes >= peer.snapshot_received_bytes * 0.9
        joining.start()
        wait_for("n4 answers", joining.status)
        assert received_file_bytes(joining) > before_bytes - 2 * 1024 * 1024

        record = cluster.wait_operation(client, operation)
        assert record.result == "done", record.explanation
        workload.wait_writes(5)
        workload.stop()
    with cluster.client() as client:
        workload.check_nothing_is_lost(client)
        for number in (0, LARGE_COUNT // 2, LARGE_COUNT - 1):
            reply = expect(client.ask(GetRequest(key=f"large/{number:03d}")), GetReply)
            assert reply.value == large(number)
    status = cluster.wait_settled(["n1", "n2", "n3", "n4"])
    assert joining.log.count(INSTALLED) == 1
    assert first_index(joining) > LARGE_COUNT / 2
    assert status.term == cluster.term()


def test_a_restart_uses_the_state_on_disk_if_it_can_prove_itself_and_else_builds_it(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", settings=SMALL)
    server = cluster["n1"]
    with cluster.client() as client:
        for number in range(20):
            put(client, f"k{number}", f"{number}".encode().ljust(BALLAST_BYTES))
        wait_for("a snapshot", lambda: snapshot_index(server))

        def restarted() -> str:
            """Start the server again and return what it has logged since."""
            before = len(server.log)
            server.start()
            cluster.wait_leader()
            for number in range(20):
                reply = expect(client.ask(GetRequest(key=f"k{number}")), GetReply)
                assert int(reply.value) == number
            return server.log[before:]

        server.kill()
        assert REBUILT not in restarted()
        server.kill()
        (server.data_dir / "state" / "live" / "proof.json").unlink()
        assert REBUILT in restarted()
        # What it has built proves itself again.
        server.kill()
        assert REBUILT not in restarted()
        server.terminate()
        assert server.wait_exit() == 0
        proof = json.loads((server.data_dir / "state" / "live" / "proof.json").read_text())
        assert proof["clean_file_bytes"] > 0
        assert REBUILT not in restarted()


def test_a_worker_does_not_outlive_its_server_whether_that_is_killed_or_stopped(
    make_cluster: MakeCluster,
) -> None:
    # A snapshot of a megabyte takes a quarter of a minute.
    cluster = make_cluster("n1", settings=f"{SMALL}\nsnapshot_rate: 64KiB")
    server = cluster["n1"]
    with cluster.client() as client:
        for number in range(BALLAST_KEYS):
            put(client, f"k{number}", bytes(BALLAST_BYTES))
        wait_for("a worker", lambda: workers_of(server))
        server.kill()
        wait_for("its end", lambda: not workers_of(server))
        server.start()
        cluster.wait_leader()
        put(client, "k", bytes(BALLAST_BYTES))
        wait_for("a worker", lambda: workers_of(server))
        server.terminate()
        assert server.wait_exit() == 0
        wait_for("its end", lambda: not workers_of(server))
    assert list((server.data_dir / "snapshots").glob("*.snap")) == []
