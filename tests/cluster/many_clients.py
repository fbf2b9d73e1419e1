"""Many clients in one process and one thread: each sends what it is given, round by round.

Cheap on purpose, so that the servers are what is busy: what a client sends was encoded before, and
of its replies nothing is looked at but their bytes.
"""

from __future__ import annotations

import resource
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

SILENCE_S = 20.0
"""Nobody is answered for so long: something hangs."""
RECEIVE_BYTES = 64 * 1024


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Let this process open as many as `count`, where the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(hard, count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(address: str) -> socket.socket:
    """Connect to HOST:PORT."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), SILENCE_S)


class Client:
    """One connection, and what is sent on it."""

    def __init__(
        self, address: str, rounds: Sequence[bytes], is_answered: Callable[[bytes, int], bool]
    ) -> None:
        """Connect.

        Args:
            address: HOST:PORT.
            rounds: each is sent once the one before is answered.
            is_answered: returns whether all replies of so many rounds are among what has come.
        """
        self.stream = connect(address)
        self.received = b""
        """All that has come."""
        self._rounds = rounds
        self._is_answered = is_answered
        self._sent = 0

    def go_on(self) -> bool:
        """Send the next round if the one before is answered; return whether all are."""
        if self._is_answered(self.received, self._sent):
            if self._sent == len(self._rounds):
                return True
            self.stream.sendall(self._rounds[self._sent])
            self._sent += 1
        return False


def serve(clients: Sequence[Client], half_done: Callable[[], None] = lambda: None) -> None:
    """Let all clients send all of their rounds, all at the same time.

    Args:
        half_done: called once, when half of them have got their answers.
    """
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.stream, selectors.EVENT_READ, client)
            client.go_on()
        left = len(clients)
        answered_at = time.monotonic()
        while left:
            for key, _ in selector.select(1.0):
                client = key.data
                received = client.stream.recv(RECEIVE_BYTES)
                assert received, "a server has closed a connection that has done nothing wrong"
                answered_at = time.monotonic()
                client.received += received
                if client.go_on():
                    selector.unregister(client.stream)
                    left -= 1
                    if left == len(clients) // 2:
                        half_done()
            assert time.monotonic() - answered_at < SILENCE_S, f"{left} clients have no answer"
