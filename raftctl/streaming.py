"""A connection with several requests on their way at once, and time that counts from progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from raftctl.client import CONNECT_TIMEOUT_MS, Connection, Deadline
from raftd.protocol import Reply, Request

if TYPE_CHECKING:
    import ssl

CHUNK_BYTES = 512 * 1024
"""Of a backup in one request or reply: some milliseconds of a server's time."""
IN_FLIGHT_MAX = 4
"""Parts that are on their way at once: the next one is there when one has been dealt with."""
SILENCE_MS = 10_000.0
"""A server that answers nothing for so long is left for another one, or asked anew."""

PAUSE_MS_MIN = 5.0
"""About what a server needs for a small state."""
PAUSE_GROWTH = 1.5
"""Nothing takes longer by more than half because it was looked at too late."""


class Patience:
    """How long to wait without progress."""

    def __init__(self, timeout_ms: float) -> None:
        """Begin to wait; 0 means for ever."""
        self._timeout_ms = timeout_ms
        self._deadline = Deadline.after_ms(timeout_ms)

    def renew(self) -> None:
        """Note that there is progress."""
        self._deadline = Deadline.after_ms(self._timeout_ms)

    @property
    def exhausted(self) -> bool:
        """Whether there was none for too long."""
        return self._deadline.expired

    def deadline(self, timeout_ms: float) -> Deadline:
        """Return the moment in `timeout_ms` milliseconds, or that at which patience ends."""
        return self._deadline.or_after_ms(timeout_ms)

    def sleep(self, milliseconds: float) -> None:
        """Let time pass, but no longer than patience lasts."""
        time.sleep(self.deadline(milliseconds).remaining_s() or 0)


class Pauses:
    """The times between two looks at something: short at first, as most of it is soon over."""

    def __init__(self, longest_ms: float) -> None:
        """Begin with `PAUSE_MS_MIN` and grow to `longest_ms`."""
        self._longest_ms = longest_ms
        self._next_ms = min(PAUSE_MS_MIN, longest_ms)

    def next_ms(self) -> float:
        """Return how long to wait before the next look."""
        pause_ms = self._next_ms
        self._next_ms = min(self._longest_ms, pause_ms * PAUSE_GROWTH)
        return pause_ms


class Stream(Connection):
    """A connection on which requests are sent without waiting for the answers to those before.

    Answers come in the order of the requests: each is answered at once. After a
    `ConnectionProblem` the connection is closed.
    """

    @classmethod
    def dial(cls, address: str, patience: Patience, *, tls: ssl.SSLContext | None) -> Stream:
        """Return a connection to `address`, HOST:PORT, protected by `tls` unless that is None.

        Raises:
            ConnectionProblem: nobody welcomes us there.
        """
        return cls.open(address, patience.deadline(CONNECT_TIMEOUT_MS), tls=tls)

    def post(self, request: Request, patience: Patience) -> None:
        """Send `request`.

        Raises:
            ConnectionProblem: the server is gone, or takes nothing.
        """
        self.send(request, patience.deadline(SILENCE_MS))

    def collect(self, patience: Patience) -> Reply:
        """Return the answer to the oldest request that is in flight.

        Raises:
            ConnectionProblem: the server is gone, silent, or says something else.
        """
        return self.receive(patience.deadline(SILENCE_MS))

    def call(self, request: Request, patience: Patience) -> Reply:
        """Return the answer to `request`, nothing else being in flight.

        Raises:
            ConnectionProblem: as `post` and `collect`.
        """
        assert not self.in_flight
        self.post(request, patience)
        return self.collect(patience)
