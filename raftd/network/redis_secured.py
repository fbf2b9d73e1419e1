"""Clients of the Redis protocol that come with TLS: let in by certificate, or by password.

Once the handshake is over, such a connection is one like any other in the set of the driver.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import trio

from raftd.network.accepting import BACKLOG, serve_streams
from raftd.network.complaints import Complaints
from raftd.network.connection import remote_address
from raftd.network.redis_framing import error
from raftd.network.secured import HandshakeError, Handshakes, Secured, accept, host_of
from raftd.network.secured_stream import SecuredStream
from raftd.passwords import CurrentPassword
from raftd.roles import REDIS_ROLES
from raftd.tls import CurrentCredentials

GREETING_CONNECTIONS_MAX = 512
"""Connections that have not shaken hands yet; beyond, new ones are closed at once. Each takes some
kilobytes, and is gone after the time of a handshake."""

logger = logging.getLogger("raftd.network")


class SecuredClients:
    """Accepts clients at one address, and hands over those that may come in."""

    def __init__(
        self,
        credentials: CurrentCredentials,
        password: CurrentPassword,
        accepted: Callable[[SecuredStream, str, bool], None],
    ) -> None:
        """Prepare it; nothing is bound before `serve`.

        Args:
            credentials: those in force at each handshake are used.
            password: without one, who shows no good certificate is refused.
            accepted: takes each connection, where it comes from, and whether its certificate says
                who it is; else it has to know the password. It does not raise.
        """
        self._credentials = credentials
        self._password = password
        self._accepted = accepted
        self._handshakes = Handshakes()
        self._complaints = Complaints()
        self._greeting_count = 0

    async def serve(
        self,
        host: str,
        port: int,
        *,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled; reports the bound addresses as HOST:PORT.

        Raises:
            OSError: the address is in use, or not one of this host.
        """

        def announce(addresses: list[str]) -> None:
            logger.info("listening for Redis clients with TLS on %s", ", ".join(addresses))

        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        await serve_streams(listeners, self._greet, announce, task_status)

    async def _greet(self, stream: trio.SocketStream) -> None:
        if self._greeting_count >= GREETING_CONNECTIONS_MAX:
            await trio.aclose_forcefully(stream)
            return
        self._greeting_count += 1
        remote = remote_address(stream)
        try:
            secured = await self._shake_hands(stream, remote)
        finally:
            self._greeting_count -= 1
        if secured is None:
            return
        is_known = secured.holder is not None and secured.holder.role in REDIS_ROLES
        if is_known or self._password.is_set:
            self._accepted(secured.stream, remote, is_known)
            return
        shown = f"its certificate is that of {secured.holder}" if secured.holder else ""
        problem = shown or secured.problem
        self._complaints.warn(
            "refused a Redis client from %s: %s", remote, problem, host=host_of(remote)
        )
        with contextlib.suppress(OSError):
            secured.stream.send(error(f"NOPERM {problem}, and no password would help"))
        secured.stream.close()

    async def _shake_hands(self, stream: trio.SocketStream, remote: str) -> Secured | None:
        now = self._credentials.now
        context = now.clients_with_password if self._password.is_set else now.clients
        try:
            return await accept(
                stream,
                context,
                self._handshakes,
                to_plain=error("ERR this port speaks TLS only"),
            )
        except HandshakeError as problem:
            if not problem.silent:
                self._complaints.warn(
                    "closed the connection of a Redis client from %s: %s",
                    remote,
                    problem,
                    host=host_of(remote),
                )
            return None
