"""Clients that write without a pause, and what they were told.

Each client has a session of its own and writes each of its keys once. So afterwards every
acknowledged key has to be there, in version 1: a write that was lost is missing, one that was
applied twice has version 2.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from raftctl.client import Cluster as Client
from raftctl.client import expect
from raftd.protocol import LIST_LIMIT_MAX, ListReply, ListRequest, PutRequest, WriteReply
from tests.cluster.processes import wait_for

JOIN_TIMEOUT_S = 40.0
"""Longer than the time-out of one write."""


class Writer(threading.Thread):
    """One client: writes `NAME/000000`, `NAME/000001`, ... until it is told to stop."""

    def __init__(self, name: str, client: Client, stop: threading.Event) -> None:
        super().__init__(name=f"writer {name}", daemon=True)
        self.prefix = f"{name}/"
        self.acknowledged_s: list[float] = []
        """When each write was acknowledged, on the monotonic clock."""
        self.error: Exception | None = None
        self._client = client
        self._stop_event = stop

    def run(self) -> None:
        try:
            with self._client as client:
                while not self._stop_event.is_set():
                    self._write(client, len(self.acknowledged_s))
        except Exception as error:
            self.error = error

    def _write(self, client: Client, number: int) -> None:
        key, value = f"{self.prefix}{number:06d}", f"{number}".encode()
        reply = client.write(
            lambda session, serial, lowest: PutRequest(
                session=session, serial=serial, lowest_unacknowledged=lowest, key=key, value=value
            )
        )
        assert expect(reply, WriteReply).applied
        self.acknowledged_s.append(time.monotonic())


class Workload:
    """Several writers at once. As a context manager it stops them when a test fails."""

    def __init__(self, make_client: Callable[[], Client], *, writers: int = 3) -> None:
        self._stop_event = threading.Event()
        self.writers = [
            Writer(f"w{number}", make_client(), self._stop_event) for number in range(writers)
        ]

    def __enter__(self) -> Workload:
        for writer in self.writers:
            writer.start()
        self.wait_writes(5)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_event.set()
        for writer in self.writers:
            writer.join(JOIN_TIMEOUT_S)

    def wait_writes(self, count: int, *, within_s: float = 20.0) -> None:
        """Wait until each writer has had `count` more acknowledgements."""
        before = [len(writer.acknowledged_s) for writer in self.writers]

        def reached() -> bool:
            self._raise_errors()
            return all(
                len(writer.acknowledged_s) >= start + count
                for writer, start in zip(self.writers, before, strict=True)
            )

        wait_for(f"{count} more writes of each client", reached, within_s=within_s)

    def stop(self) -> None:
        """End the writers; each finishes the write that it is waiting for."""
        self.__exit__(None, None, None)
        self._raise_errors()
        assert not any(writer.is_alive() for writer in self.writers)

    @property
    def longest_gap_s(self) -> float:
        """The longest time between two acknowledgements of one client."""
        return max(
            later - earlier
            for writer in self.writers
            for earlier, later in zip(
                writer.acknowledged_s, writer.acknowledged_s[1:], strict=False
            )
        )

    def check_nothing_is_lost(self, client: Client) -> None:
        """Assert that every acknowledged write is there, with its value, applied once."""
        for writer in self.writers:
            found = _listed(client, writer.prefix)
            expected = {
                f"{writer.prefix}{number:06d}": (f"{number}".encode(), 1)
                for number in range(len(writer.acknowledged_s))
            }
            # One write may have taken effect without an answer: that of the moment of the end.
            assert len(found) - len(expected) in (0, 1)
            assert {key: found.get(key) for key in expected} == expected

    def _raise_errors(self) -> None:
        for writer in self.writers:
            if writer.error is not None:
                raise AssertionError(f"{writer.name}: {writer.error!r}") from writer.error


def _listed(client: Client, prefix: str) -> dict[str, tuple[bytes, int]]:
    """Return value and version of every key that begins with `prefix`."""
    found: dict[str, tuple[bytes, int]] = {}
    more = True
    while more:
        request = ListRequest(prefix=prefix, limit=LIST_LIMIT_MAX, after=max(found, default=""))
        reply = expect(client.ask(request), ListReply)
        found |= {entry.key: (entry.value, entry.version) for entry in reply.entries}
        more = reply.more
    return found
