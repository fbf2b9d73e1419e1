"""The sockets of all established connections, in one epoll set.

trio waits for the set as a whole, and each readable socket is read where the driver closes a batch.
A task for each connection would cost more than all that is done for a message. What is rare or
takes its time (dialling, accepting, greetings, writing what the kernel does not take) stays with
trio.

A busy driver does not go through the event loop at all: it looks at the set again after each turn.
"""

from __future__ import annotations

import select
from collections.abc import Callable

import trio

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
ENDED = select.EPOLLERR | select.EPOLLHUP
"""Reported whether it was asked for or not, again and again."""


class SocketSet:
    """Sockets, and who is called when one of them is ready."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._descriptor = self._epoll.fileno()
        self._ready: dict[int, Callable[[int], None]] = {}

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, descriptor: int, ready: Callable[[int], None], events: int = READABLE) -> None:
        """Watch a socket, which does not block, until `remove`.

        Args:
            descriptor: of the socket.
            ready: called by `poll` with the events that there are. It may close this socket and no
                other one, whose descriptor could be that of a new connection by the time when its
                own turn comes.
            events: to watch for.

        Raises:
            OSError: the system lacks memory for it.
        """
        self._epoll.register(descriptor, events)
        self._ready[descriptor] = ready

    def watch(self, descriptor: int, events: int) -> None:
        """Watch for these events from now on."""
        self._epoll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Watch it no more; to be called before it is closed. One that is not there is ignored."""
        if self._ready.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def poll(self, timeout_seconds: float = 0.0) -> bool:
        """Call those whose sockets are ready, each once; return whether there were any.

        Args:
            timeout_seconds: to wait for the first one, while nothing else in this process goes on.
        """
        ready = self._ready
        found = self._epoll.poll(timeout_seconds)
        for descriptor, events in found:
            call = ready.get(descriptor)
            if call is not None:
                call(events)
        return bool(found)

    async def wait(self) -> None:
        """Wait until some socket is ready."""
        await trio.lowlevel.wait_readable(self._descriptor)
