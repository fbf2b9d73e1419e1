"""The Python client against real servers that are killed and replaced under it."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict

import trio

from raftd.client import AsyncClient, Client, KeyEvent, NotApplied, OutcomeUnknown, Refused
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import removal, voter, wait_for

TASKS = 4
IMPATIENT_MS = 40.0
"""For a write: less than an election takes, so that some end without an answer."""
PATIENT_MS = 30_000.0
LEADERS_KILLED = 2
IDLE_MS = 2_000.0
"""After the last write: then the watch has seen all there is."""


class Load(threading.Thread):
    """Tasks that share one client, and a watch; on trio in a thread of its own.

    Each task counts in a key of its own and in one of all, so that a write that is lost or done
    twice shows in the very next number.
    """

    def __init__(self, addresses: list[str]) -> None:
        super().__init__(name="load", daemon=True)
        self.counted: Counter[str] = Counter()
        """Acknowledged, by key."""
        self.unknown = 0
        """Writes that ended without an answer, and were settled."""
        self.not_applied = 0
        self.events: list[KeyEvent] = []
        self.error: BaseException | None = None
        self.stop = threading.Event()
        self._addresses = addresses

    def run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:
            self.error = error

    async def _main(self) -> None:
        async with AsyncClient(self._addresses, timeout_ms=PATIENT_MS) as client:
            revision = (await client.page()).revision
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, client, revision)
                for number in range(TASKS):
                    nursery.start_soon(self._count, client, f"count/{number}")

    async def _count(self, client: AsyncClient, key: str) -> None:
        while not self.stop.is_set():
            number = await self._increment(client, key)
            if number is not None:
                self.counted[key] += 1
                assert number == self.counted[key]
            if await self._increment(client, "count/all") is not None:
                self.counted["count/all"] += 1

    async def _increment(self, client: AsyncClient, key: str) -> int | None:
        try:
            return await client.increment(key, timeout_ms=IMPATIENT_MS)
        except NotApplied:
            self.not_applied += 1
            await trio.sleep(0.01)
            return None
        except OutcomeUnknown as unknown:
            self.unknown += 1
            return int(await client.settle(unknown))

    async def _watch(self, client: AsyncClient, revision: int) -> None:
        while not self.stop.is_set():
            watch = client.watch("count/", after_revision=revision, idle_ms=IDLE_MS)
            async for event in watch:
                self.events.append(event)
                revision = event.revision


def test_each_write_happens_once_while_leaders_are_killed_and_a_server_is_replaced(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    addresses = [server.address for server in cluster.servers.values()]
    with Client(addresses, timeout_ms=PATIENT_MS) as client:

        def counts() -> bool:
            try:
                return client.increment("ready") > 0
            except Refused:
                return False

        wait_for("features for counters", counts)
    load = Load(addresses)
    load.start()

    def progress() -> None:
        before = load.counted.total()
        wait_for(
            "more writes",
            lambda: load.error is not None or load.counted.total() >= before + 20,
        )
        assert load.error is None, load.error

    progress()
    for _ in range(LEADERS_KILLED):
        leader = cluster.wait_leader()
        leader.kill()
        cluster.wait_leader()
        progress()
        leader.start()
        wait_for(f"{leader.name} answers", leader.status)
    cluster.start_blank("n4")
    with cluster.client() as admin:
        cluster.change(admin, "replace", voter(cluster["n4"]), removal("n1"))
    progress()
    # Whether a kill falls into a write is left to chance; a leader without its followers is sure to
    # have taken some.
    followers = cluster.followers(cluster.wait_leader())
    for server in followers:
        server.pause()
    wait_for("a write without an answer", lambda: load.error is not None or load.unknown > 0)
    for server in followers:
        server.resume()
    progress()
    load.stop.set()
    load.join(60)
    assert not load.is_alive()
    assert load.error is None, load.error
    with Client([cluster["n4"].address], timeout_ms=PATIENT_MS) as client:
        found = {item.key: item for item in client.list("count/")}
    assert {key: int(item.value) for key, item in found.items()} == dict(load.counted)
    assert {key: item.version for key, item in found.items()} == dict(load.counted)
    versions: dict[str, list[int]] = defaultdict(list)
    for event in load.events:
        versions[event.key].append(event.version)
    for key, count in load.counted.items():
        assert versions[key] == [*range(1, count + 1)], key
