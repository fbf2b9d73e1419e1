"""The bytes of one connection: a greeting, then numbered requests and their replies.

Neither sockets nor waiting: a driver carries the bytes.
"""

from __future__ import annotations

from raftd.client.errors import ConnectionProblem
from raftd.codec import (
    FrameDecoder,
    WireError,
    decode_opening,
    decode_reply,
    encode_frame,
    encode_opening,
    encode_request,
)
from raftd.protocol import Hello, Refusal, Reply, Request, Welcome

CERTIFICATE_CODES = ("tls", "forbidden")
"""Of refusals that another certificate would spare us."""


class Conversation:
    """What has been said on a connection to the server at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._decoder = FrameDecoder()
        self._number = 0

    def opening(self) -> bytes:
        """Return what the side that dialled says first."""
        return encode_frame(encode_opening(Hello(role="client", cluster_id="", source="", dest="")))

    def payloads(self, received: bytes | bytearray) -> list[bytes]:
        """Return the messages that `received` completes.

        Raises:
            WireError: no raftd sends that.
        """
        return self._decoder.feed(received)

    def welcome(self, payload: bytes) -> Welcome:
        """Return what the first message says.

        Raises:
            ConnectionProblem: we are not welcome, or it is no server.
        """
        try:
            opening = decode_opening(payload)
        except WireError as error:
            raise self.stranger(error) from None
        if isinstance(opening, Refusal):
            reason = f"it refused the connection: {opening.message}"
            kind = "certificate" if opening.code in CERTIFICATE_CODES else "refusal"
            raise ConnectionProblem(self.address, kind, reason)
        if isinstance(opening, Hello):
            raise ConnectionProblem(self.address, "not-raftd", "it greets like a client")
        return opening

    def stranger(self, error: WireError | None) -> ConnectionProblem:
        """Return what a greeting that cannot be read, or none at all, means."""
        if error is None:
            reason = "it closed the connection without a greeting"
        else:
            reason = f"something else than raftd listens there ({error})"
        return ConnectionProblem(self.address, "not-raftd", reason)

    def request(self, request: Request) -> tuple[int, bytes]:
        """Return a new number and the bytes of `request` under it."""
        self._number += 1
        return self._number, encode_frame(encode_request(self._number, request))

    def reply(self, payload: bytes) -> tuple[int, Reply]:
        """Return the number of a request and its reply.

        Raises:
            WireError: it is none that this release understands.
        """
        return decode_reply(payload)
