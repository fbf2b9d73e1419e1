"""Whatever comes in at the port of a server: that connection ends, the server lives on."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from raftd.codec import FrameDecoder, Opening, decode_opening, encode_frame, encode_opening
from raftd.network.listener import CONNECTIONS_FOR_PEERS, CONNECTIONS_MAX
from raftd.protocol import FRAME_BYTES_MAX, Hello, Refusal
from tests.cluster.processes import RunningCluster, Server, wait_for

CONNECTIONS = 2_000
"""Opened and closed again, one after the other."""
TIMEOUT_S = 15.0
"""For the server to close a connection; longer than its patience with a slow greeting."""


@pytest.fixture
def leader(shared: RunningCluster) -> Iterator[Server]:
    """The leader; afterwards it has to lead still, in the same process and term, and serve."""
    leader = shared.wait_leader()
    before = leader.status()
    assert before is not None
    yield leader
    assert leader.running
    after = leader.status()
    assert after is not None
    assert (after.role, after.term) == ("leader", before.term)
    assert after.uptime_ms > before.uptime_ms
    assert shared.ctl("put", "a", "1").code == 0


def connect(server: Server) -> socket.socket:
    host, _, port = server.listen.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def greeted(server: Server) -> socket.socket:
    stream = connect(server)
    hello = Hello(role="client", cluster_id="", source="", dest="")
    stream.sendall(encode_frame(encode_opening(hello)))
    assert stream.recv(65_536)
    return stream


def end_sending(stream: socket.socket) -> None:
    """Send no more, if the server has not cut the connection already."""
    with suppress(OSError):
        stream.shutdown(socket.SHUT_WR)


def wait_closed(stream: socket.socket) -> None:
    """Read until the server has closed the connection."""
    with stream:
        try:
            while stream.recv(65_536):
                pass
        except ConnectionResetError:
            pass


def test_random_bytes_in_place_of_a_greeting(leader: Server) -> None:
    generator = random.Random(1)
    for size_bytes in (1, 3, 4, 5, 100, 5_000, 100_000):
        stream = connect(leader)
        stream.sendall(generator.randbytes(size_bytes))
        end_sending(stream)
        wait_closed(stream)


def test_random_bytes_in_place_of_a_request(leader: Server) -> None:
    generator = random.Random(2)
    for size_bytes in (1, 4, 100, 10_000):
        stream = greeted(leader)
        stream.sendall(encode_frame(generator.randbytes(size_bytes)))
        wait_closed(stream)


@pytest.mark.parametrize("length", [FRAME_BYTES_MAX + 1, 2**31, 2**32 - 1])
def test_a_huge_length_is_refused_without_waiting_for_its_bytes(
    leader: Server, length: int
) -> None:
    for open_stream in (connect, greeted):
        stream = open_stream(leader)
        stream.sendall(struct.pack("<I", length))
        wait_closed(stream)


def test_half_a_frame_and_then_the_end(leader: Server) -> None:
    for open_stream in (connect, greeted):
        stream = open_stream(leader)
        stream.sendall(struct.pack("<I", 100) + bytes(50))
        end_sending(stream)
        wait_closed(stream)


def test_a_server_that_claims_to_be_a_peer_and_sends_garbage(leader: Server) -> None:
    status = leader.status()
    assert status is not None
    hello = Hello(
        role="peer", cluster_id=status.cluster_id, source="n9/0123456789abcdef", dest=status.server
    )
    stream = connect(leader)
    stream.sendall(encode_frame(encode_opening(hello)) + encode_frame(b"\xc1" * 100))
    wait_closed(stream)


def test_thousands_of_connections_that_are_opened_and_closed(leader: Server) -> None:
    for number in range(CONNECTIONS):
        with connect(leader) as stream:
            if number % 2:
                stream.sendall(b"\x10")


def test_more_clients_than_it_serves_are_told_so_and_the_cluster_goes_on(
    shared: RunningCluster, leader: Server
) -> None:
    with ExitStack() as stack:
        answers = []
        for _ in range(CONNECTIONS_MAX + 20):
            stream = stack.enter_context(connect(leader))
            hello = Hello(role="client", cluster_id="", source="", dest="")
            stream.sendall(encode_frame(encode_opening(hello)))
            answers.append(opening_of(stream))
        refused = [answer for answer in answers if isinstance(answer, Refusal)]
        assert {answer.code for answer in refused} == {"busy"}
        assert CONNECTIONS_FOR_PEERS <= len(refused) < len(answers)
        # The other servers have their places: nobody misses the leader.
        followers = [server for server in shared.servers.values() if server is not leader]
        statuses = [follower.status() for follower in followers]
        assert all(status is not None and status.role == "follower" for status in statuses)

    def serves_again() -> bool:
        return leader.status() is not None

    wait_for("it serves clients again", serves_again)


def opening_of(stream: socket.socket) -> Opening:
    decoder = FrameDecoder()
    payloads: list[bytes] = []
    while not payloads:
        received = stream.recv(65_536)
        assert received
        payloads += decoder.feed(received)
    return decode_opening(payloads[0])
