"""A client of the Redis protocol that keeps to the rules about what may be asked again."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import hiredis

from raftd.network.redis_framing import array, bulk

ANSWER_TIMEOUT_S = 10.0
RETRY_S = 0.05
NOT_DONE = ("MOVED", "CLUSTERDOWN", "TRYAGAIN")
"""The first words of errors that promise that nothing was done."""


class Connection:
    """One connection. Whatever is wrong with it is an OSError."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), ANSWER_TIMEOUT_S)
        self._reader = hiredis.Reader()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *commands: Sequence[Any]) -> None:
        """Send commands without waiting for their replies."""
        self._socket.sendall(
            b"".join(
                array([bulk(word if isinstance(word, bytes) else str(word).encode()) for word in c])
                for c in commands
            )
        )

    def reply(self) -> Any:
        """Return the next reply; an error is a `hiredis.ReplyError`."""
        while (reply := self._reader.gets()) is False:
            received = self._socket.recv(65_536)
            if not received:
                raise ConnectionResetError("closed where a reply is due")
            self._reader.feed(received)
        return reply

    def ask(self, *words: Any) -> Any:
        """Send one command and return its reply."""
        self.send(words)
        return self.reply()


class Counting(threading.Thread):
    """Counts a key up without a pause, some commands at a time, from whichever server leads."""

    def __init__(self, addresses: Sequence[str], key: str, *, pipeline: int) -> None:
        super().__init__(name=f"counts {key}", daemon=True)
        self.numbers: list[int] = []
        """What was acknowledged, in this order."""
        self.uncertain = 0
        """How many commands may have been carried out, or may not."""
        self.stops = threading.Event()
        self.error: Exception | None = None
        self._addresses = list(addresses)
        self._key = key
        self._pipeline = pipeline

    def run(self) -> None:
        try:
            address = self._addresses[0]
            while not self.stops.is_set():
                address = self._count_at(address)
        except Exception as error:
            self.error = error

    def _count_at(self, address: str) -> str:
        """Count there for as long as it goes well; return where to try next."""
        following = self._addresses[(self._addresses.index(address) + 1) % len(self._addresses)]
        sent = 0
        try:
            with Connection(address) as connection:
                while not self.stops.is_set():
                    connection.send(*[("INCR", self._key)] * self._pipeline)
                    sent = self._pipeline
                    moved = ""
                    while sent:
                        reply = connection.reply()
                        sent -= 1
                        moved = self._take(reply) or moved
                    if moved:
                        time.sleep(RETRY_S)
                        return moved if moved in self._addresses else following
        except OSError:
            # Whatever of these is done or not, nobody will ever say.
            self.uncertain += sent
            time.sleep(RETRY_S)
            return following
        return address

    def _take(self, reply: Any) -> str:
        """Take note of a reply; return where to go if it says that another server leads."""
        if isinstance(reply, int):
            self.numbers.append(reply)
            return ""
        assert isinstance(reply, hiredis.ReplyError), reply
        word, *rest = str(reply).split()
        if word == "UNCERTAIN":
            self.uncertain += 1
            return "somewhere else"
        assert word in NOT_DONE, reply
        return rest[1] if word == "MOVED" else "somewhere else"
