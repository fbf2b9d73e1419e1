"""A node of PySyncObj with a key-value store, told by lines of JSON what to do.

    python -m tests.benchmarks.comparisons.pysyncobj_node SELF PEER,PEER JOURNAL batched|unbatched

Its clients are in the node itself: a put is a method call and its answer a callback, with no
connection in between. That is as good as it gets for PySyncObj, whose users embed it like this.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated

from tests.benchmarks.comparisons.medians import percentile

READY_SECONDS = 30.0
GRACE_SECONDS = 60.0
UNBATCHED_TICK_SECONDS = 0.001
"""Without batches a command is sent at the next tick; the stock one is 50 ms."""


class Store(SyncObj):
    """A dict that is replicated."""

    def __init__(self, own: str, peers: list[str], journal: str, *, is_batched: bool) -> None:
        stock = {} if is_batched else {"autoTickPeriod": UNBATCHED_TICK_SECONDS}
        super().__init__(
            own,
            peers,
            conf=SyncObjConf(
                journalFile=journal,
                fullDumpFile=f"{journal}.dump",
                appendEntriesUseBatch=is_batched,
                **stock,
            ),
        )
        self.values: dict[str, str] = {}

    @replicated
    def put(self, key: str, value: str) -> None:
        """Set a key on all nodes."""
        self.values[key] = value


class Load:
    """Closed loops of clients: the answer to a put starts the next one."""

    def __init__(self, store: Store, task: dict[str, Any]) -> None:
        self._store = store
        self._random = random.Random(1)
        self._keys = [f"key-{number:09d}" for number in range(task["keys"])]
        self._value = "v" * task["value_bytes"]
        self._clients = task["clients"]
        self._start_s = time.monotonic() + task["warm_up_seconds"]
        self._end_s = self._start_s + task["seconds"]
        self._running = self._clients
        self._done = threading.Event()
        self._taken_us: list[float] = []
        self._errors: dict[str, int] = {}

    def run(self) -> dict[str, Any]:
        """Return what was measured."""
        for _ in range(self._clients):
            self._put()
        has_ended = self._done.wait(self._end_s - time.monotonic() + GRACE_SECONDS)
        taken = sorted(self._taken_us)
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
        return {
            "operations": len(taken),
            "per_second": len(taken) / (self._end_s - self._start_s),
            "latency_us": {name: percentile(taken, share) for name, share in shares.items()},
            "errors": self._errors if has_ended else {**self._errors, "timeout": self._running},
        }

    def _put(self) -> None:
        sent_s = time.monotonic()

        def answered(_: object, failure: object) -> None:
            now_s = time.monotonic()
            if failure:
                self._errors[str(failure)] = self._errors.get(str(failure), 0) + 1
            elif self._start_s <= now_s < self._end_s:
                self._taken_us.append((now_s - sent_s) * 1e6)
            if now_s < self._end_s:
                self._put()
                return
            self._running -= 1
            if not self._running:
                self._done.set()

        self._store.put(self._random.choice(self._keys), self._value, callback=answered)


def _fill(store: Store, keys: int, value_bytes: int) -> dict[str, Any]:
    left = [keys]
    done = threading.Event()

    def answered(_: object, failure: object) -> None:
        left[0] -= not failure
        if not left[0]:
            done.set()

    for number in range(keys):
        store.put(f"key-{number:09d}", "v" * value_bytes, callback=answered)
    done.wait(GRACE_SECONDS)
    return {"missing": left[0]}


def main() -> None:
    """Run the node until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("own")
    parser.add_argument("peers")
    parser.add_argument("journal")
    parser.add_argument("mode", choices=["batched", "unbatched"])
    options = parser.parse_args()
    store = Store(
        options.own,
        options.peers.split(","),
        options.journal,
        is_batched=options.mode == "batched",
    )
    deadline_s = time.monotonic() + READY_SECONDS
    while not store.isReady() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    print(json.dumps({"ready": store.isReady()}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        if task["do"] == "leader":
            answer: dict[str, Any] = {"leader": bool(store._isLeader())}
        elif task["do"] == "fill":
            answer = _fill(store, task["keys"], task["value_bytes"])
        else:
            answer = Load(store, task).run()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
