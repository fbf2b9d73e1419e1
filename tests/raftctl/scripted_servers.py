"""Servers on real sockets that answer a status request with what a test says."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

from raftd.codec import (
    FrameDecoder,
    decode_opening,
    decode_request,
    encode_frame,
    encode_opening,
    encode_reply,
)
from raftd.protocol import Hello, StatusReply, StatusRequest, Welcome
from tests.raftctl.speaking_servers import ListeningServer


class ScriptedServer(ListeningServer):
    """A server of which `status` is what it answers, or None for silence."""

    def __init__(self) -> None:
        self.status: StatusReply | Callable[[], StatusReply] | None = None
        self.asked_count = 0
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        decoder = FrameDecoder()
        greeted = False
        with contextlib.suppress(OSError):
            while received := connection.recv(65536):
                for payload in decoder.feed(received):
                    status = self.status() if callable(self.status) else self.status
                    if status is None:
                        continue
                    if greeted:
                        number, request = decode_request(payload)
                        assert isinstance(request, StatusRequest)
                        self.asked_count += 1
                        connection.sendall(encode_frame(encode_reply(number, status)))
                        continue
                    assert isinstance(decode_opening(payload), Hello)
                    greeted = True
                    welcome = Welcome(server=status.server, cluster_id=status.cluster_id, version=1)
                    connection.sendall(encode_frame(encode_opening(welcome)))


@contextlib.contextmanager
def scripted_servers(count: int) -> Iterator[list[ScriptedServer]]:
    """Yield `count` servers that are silent until their `status` is set."""
    servers = [ScriptedServer() for _ in range(count)]
    try:
        yield servers
    finally:
        for server in servers:
            server.close()
