"""How connections are accepted: each in a task of its own, or in the set of the driver.

In the set they are accepted where a batch is closed. A system that has no descriptor or no memory
for one more connection says all the time that there is one to accept. So it is left waiting for a
while then.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from raftd.network.connection import describe, join_address
from raftd.network.sockets import READABLE, SocketSet

BACKLOG = 1024
"""Connections that wait to be accepted: a thousand clients may start at once."""
ACCEPTS_MAX = 128
"""Connections accepted in one turn, so that a flood of them does not hold up the others."""
ACCEPT_PAUSE_SECONDS = 0.5
"""No connection is accepted for so long when the system has no descriptor or no memory for it."""

_SHORT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC)
"""What the system may lack for a connection, and have again later."""

logger = logging.getLogger("raftd.network")


async def serve_streams(
    listeners: list[trio.SocketListener],
    handle: Callable[[trio.SocketStream], Awaitable[object]],
    announce: Callable[[list[str]], None],
    task_status: trio.TaskStatus[list[str]],
) -> None:
    """Serve each connection to `listeners` in a task of its own until cancelled.

    Args:
        listeners: closed when this ends.
        handle: serves one connection, and closes it.
        announce: called with the bound addresses, HOST:PORT each, once connections are accepted.
        task_status: is told the same addresses, afterwards.
    """
    addresses = [join_address(*listener.socket.getsockname()[:2]) for listener in listeners]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        announce(addresses)
        task_status.started(addresses)


class Acceptor:
    """Accepts connections of one kind of clients at one address."""

    def __init__(
        self,
        sockets: SocketSet,
        accepted: Callable[[socket.socket, str], None],
        *,
        whom: str,
        clock: Callable[[], float],
    ) -> None:
        """Prepare it; nothing is bound before `bind`.

        Args:
            sockets: the set that the bound sockets join.
            accepted: takes each connection, which does not block, and where it comes from. Whatever
                it raises as OSError is taken for a lack of the system; it has closed it then.
            whom: what the clients are called in the log.
            clock: seconds that never go back.
        """
        self._set = sockets
        self._accepted = accepted
        self._whom = whom
        self._clock = clock
        self._bound: list[socket.socket] = []
        self.again_at: float | None = None
        """Set while none are accepted, since the system lacks something."""
        self._lacks = False
        """Whether it did when a connection was to be accepted last."""

    async def bind(self, host: str, port: int) -> list[str]:
        """Listen; return the bound addresses as HOST:PORT.

        Raises:
            OSError: the address is in use, or not one of this host.
        """
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        addresses = []
        for listener in listeners:
            bound = socket.socket(fileno=listener.socket.detach())
            bound.setblocking(False)
            self._bound.append(bound)
            self._set.add(bound.fileno(), partial(self._accept, bound))
            addresses.append(join_address(*bound.getsockname()[:2]))
        return addresses

    def close(self) -> None:
        """Listen no more."""
        for bound in self._bound:
            self._set.remove(bound.fileno())
            bound.close()
        self._bound.clear()

    def tick(self, now: float) -> None:
        """Accept again, once the pause is over."""
        if self.again_at is not None and now >= self.again_at:
            self.again_at = None
            self._watch(READABLE)

    def _accept(self, bound: socket.socket, events: int) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                connected, address = bound.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORT_OF:
                    self._pause(error)
                    return
                # It was reset before it was accepted.
                continue
            connected.setblocking(False)
            try:
                self._accepted(connected, join_address(*address[:2]))
            except OSError as error:
                self._pause(error)
                return
            self._lacks = False

    def _pause(self, problem: OSError) -> None:
        """Leave new connections waiting: the set would say all the time that there are some."""
        if not self._lacks:
            logger.warning("accepts no %s for now: %s", self._whom, describe(problem))
        self._lacks = True
        self.again_at = self._clock() + ACCEPT_PAUSE_SECONDS
        self._watch(0)

    def _watch(self, events: int) -> None:
        for bound in self._bound:
            self._set.watch(bound.fileno(), events)
