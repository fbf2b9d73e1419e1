"""HTTP over TLS: any role may read what is shown, and nobody else."""

from __future__ import annotations

import logging

import trio

from raftd.network.complaints import Complaints
from raftd.network.connection import remote_address
from raftd.network.secured import HandshakeError, Handshakes, accept, host_of
from raftd.network.secured_stream import SecuredStream
from raftd.tls import CurrentCredentials

_WORDS = b"this port speaks https, and wants to see a certificate\n"
_TLS_ONLY = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_WORDS), _WORDS)
)

logger = logging.getLogger("raftd.http")


class SecuredReaders:
    """Shakes hands with those who come to read."""

    def __init__(self, credentials: CurrentCredentials) -> None:
        """Use `credentials`, those that are in force at each handshake."""
        self._credentials = credentials
        self._handshakes = Handshakes()
        self._complaints = Complaints()

    async def secured(self, stream: trio.SocketStream) -> SecuredStream | None:
        """Return a stream with TLS for one that has just come; None if it was refused.

        `stream` is used up.
        """
        remote = remote_address(stream)
        try:
            secured = await accept(
                stream, self._credentials.now.clients, self._handshakes, to_plain=_TLS_ONLY
            )
        except HandshakeError as error:
            if not error.silent:
                self._complain(remote, str(error))
            return None
        if secured.holder is None:
            self._complain(remote, secured.problem)
            secured.stream.close()
            return None
        return secured.stream

    def _complain(self, remote: str, problem: str) -> None:
        self._complaints.warn(
            "closed the HTTP connection from %s: %s", remote, problem, host=host_of(remote)
        )
