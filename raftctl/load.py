"""Clients that write without a pause, to watch what a change of the cluster costs them.

Each client is a thread with a session of its own: every write happens once, however often it has
to be sent. What was acknowledged is remembered, and at the end each key is read back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import attrs

from raftctl.client import Cluster, expect
from raftd.protocol import GetReply, GetRequest, PutRequest, WriteReply

CLIENTS_MAX = 64
"""Threads of this process: more would measure Python, not the cluster."""
KEYS_PER_CLIENT = 100
"""Each client goes round its own keys, so that the state stays small however long it runs."""
KEY_PREFIX = "load/"


@attrs.frozen(kw_only=True)
class Sample:
    """What the clients have seen so far."""

    seconds: float
    acknowledged: int
    longest_gap_ms: float
    """Between two acknowledgements of the same client, waiting for one now included."""
    waiting: int
    """Clients that have waited for more than half a second."""


class _Client(threading.Thread):
    """One client: writes, and notes what was acknowledged."""

    def __init__(self, number: int, cluster: Cluster, stop: threading.Event) -> None:
        super().__init__(name=f"load-{number}", daemon=True)
        self.number = number
        self.cluster = cluster
        self.acknowledged = 0
        self.last: dict[str, int] = {}
        self.longest_gap_s = 0.0
        self.last_answer_s = time.monotonic()
        self.error: Exception | None = None
        self._stop_requested = stop

    def run(self) -> None:
        while not self._stop_requested.is_set():
            count = self.acknowledged + 1
            key = f"{KEY_PREFIX}{self.number}/{count % KEYS_PER_CLIENT:02d}"
            try:
                self._put(key, count)
            except Exception as error:
                # Whoever looks on raises it: a thread would print a trace over the output.
                self.error = error
                return
            self.acknowledged = count
            self.last[key] = count
            now_s = time.monotonic()
            self.longest_gap_s = max(self.longest_gap_s, now_s - self.last_answer_s)
            self.last_answer_s = now_s

    def _put(self, key: str, count: int) -> None:
        reply = self.cluster.write(
            lambda session, serial, lowest: PutRequest(
                session=session,
                serial=serial,
                lowest_unacknowledged=lowest,
                key=key,
                value=str(count).encode(),
            )
        )
        expect(reply, WriteReply)


class Load:
    """Several clients that write until they are told to stop."""

    def __init__(self, make_cluster: Callable[[], Cluster], clients: int) -> None:
        """Prepare `clients` clients, in [1, CLIENTS_MAX]; nothing is sent before `start`."""
        self._stop = threading.Event()
        self._clients = [_Client(number, make_cluster(), self._stop) for number in range(clients)]
        self._started_s = time.monotonic()

    def start(self) -> None:
        """Start to write."""
        self._started_s = time.monotonic()
        for client in self._clients:
            client.last_answer_s = self._started_s
            client.start()

    def sample(self) -> Sample:
        """Return how it goes."""
        now_s = time.monotonic()
        waits_s = [now_s - each.last_answer_s if each.is_alive() else 0.0 for each in self._clients]
        gaps_s = [*waits_s, *(client.longest_gap_s for client in self._clients)]
        return Sample(
            seconds=now_s - self._started_s,
            acknowledged=sum(client.acknowledged for client in self._clients),
            longest_gap_ms=1000 * max(gaps_s),
            waiting=sum(1 for wait_s in waits_s if wait_s > 0.5),
        )

    def failure(self) -> Exception | None:
        """Return why a client has given up, if one has."""
        return next((client.error for client in self._clients if client.error), None)

    def stop(self) -> Sample:
        """Let every client finish its write; return the last sample."""
        self._stop.set()
        for client in self._clients:
            client.join()
        return self.sample()

    def missing(self) -> list[str]:
        """Read every key back, linearizably; return those that lost an acknowledged write."""
        lost = []
        for client in self._clients:
            for key, count in sorted(client.last.items()):
                reply = expect(client.cluster.ask(GetRequest(key=key)), GetReply)
                if reply.value != str(count).encode():
                    lost.append(f"{key}: acknowledged {count}, found {reply.value!r}")
        return lost

    def close(self) -> None:
        """Stop all clients, if they have not been, and close their connections."""
        self.stop()
        for client in self._clients:
            client.cluster.close()
