"""Servers on real sockets that answer a status request with what a test says."""

from __future__ import annotations

import contextlib
import socket
import threading
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


class ScriptedServer:
    """Listens on a free loopback port; `status` is what it answers, or None for silence."""

    def __init__(self) -> None:
        self.status: StatusReply | Callable[[], StatusReply] | None = None
        self.asked_count = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop listening and end all threads."""
        # Only shutting it down wakes a thread that waits in accept.
        for stream in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for thread in self._threads[1:]:
            thread.join()
        for stream in (self._listener, *self._connections):
            stream.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
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
