"""What only real sockets show: refused ports, resets, ports in use, TCP connecting to itself."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from raftd.codec import (
    decode_reply,
    encode_frame,
    encode_message,
    encode_opening,
    encode_request,
)
from raftd.core.messages import AppendEntries, Envelope
from raftd.core.types import Entry, EntryKind
from raftd.network import network as network_module
from raftd.network.connection import RECEIVE_BYTES_MAX, RECEIVE_LARGE_BYTES_MAX
from raftd.network.dialling import dial_tcp, split_address
from raftd.network.inputs import Contacted, LinkChanged, Requested
from raftd.network.network import PUSH_BYTES
from raftd.protocol import DoneReply, StatusRequest, Welcome
from tests.network.harness import (
    CLIENT_HELLO,
    CLUSTER,
    Server,
    Stranger,
    hello_of,
    linked,
    until,
)


@pytest.fixture
def closed_address() -> Iterator[str]:
    """A port that is bound, so that nobody else takes it, and where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


async def start(nursery: trio.Nursery, server: Server) -> str:
    await nursery.start(server.network.run)
    (address,) = await nursery.start(server.network.serve, "127.0.0.1:0")
    assert isinstance(address, str)
    return address


async def test_two_servers_and_a_client_over_loopback(nursery: trio.Nursery) -> None:
    n1, n2 = Server("n1/a", dial_tcp), Server("n2/b", dial_tcp)
    addresses = {"n1/a": await start(nursery, n1), "n2/b": await start(nursery, n2)}
    for server in (n1, n2):
        server.network.set_members(addresses)
    await until(lambda: linked(n1, "n2/b") and linked(n2, "n1/a"))

    entries = tuple(Entry(i, 1, EntryKind.COMMAND, bytes(500_000)) for i in range(1, 5))
    append = AppendEntries(1, 0, 0, entries, 0, 1)
    n1.send("n2/b", append)
    assert await n2.receive() == [Envelope("n1/a", "n2/b", append)]

    async with await dial_tcp(addresses["n1/a"]) as stream:
        client = Stranger(stream)
        assert await client.greet(CLIENT_HELLO) == Welcome(
            server="n1/a", cluster_id=CLUSTER, version=1
        )
        await client.send(encode_request(8, StatusRequest()))
        (requested,) = await n1.take(Requested)
        requested.respond(DoneReply())
        assert decode_reply(await client.receive()) == (8, DoneReply())


@asynccontextmanager
async def link_to_a_socket(
    nursery: trio.Nursery,
) -> AsyncIterator[tuple[Server, socket.socket]]:
    """Yield n1 and the socket of n2, which takes nothing by itself."""
    n1 = Server("n1/a", dial_tcp)
    await start(nursery, n1)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    n1.network.set_members({"n2/b": address})
    stream = await listeners[0].accept()
    assert isinstance(stream, trio.SocketStream)
    stranger = Stranger(stream)
    await stranger.receive()
    welcome = Welcome(server="n2/b", cluster_id=CLUSTER, version=1)
    await stranger.send(encode_opening(welcome))
    await until(lambda: linked(n1, "n2/b"))
    with socket.socket(fileno=os.dup(stream.socket.fileno())) as arrived:
        yield n1, arrived
    await stream.aclose()
    await listeners[0].aclose()
    nursery.cancel_scope.cancel()


async def test_a_message_is_on_its_way_before_the_sender_yields(nursery: trio.Nursery) -> None:
    # The leader's followers work while the leader, which does not yield, syncs its own disk.
    async with link_to_a_socket(nursery) as (n1, arrived):
        append = AppendEntries(1, 0, 0, (), 0, 1)
        n1.send("n2/b", append)
        # No await up to here: only the kernel has had a chance to work.
        assert arrived.recv(65_536) == encode_frame(encode_message(append))


async def test_the_first_of_many_long_messages_is_on_its_way_before_the_next_is_encoded(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived_bytes: list[int] = []
    entries = (Entry(1, 1, EntryKind.COMMAND, bytes(PUSH_BYTES)),)
    appends = [AppendEntries(1, 0, 0, entries, 0, round) for round in (1, 2)]
    async with link_to_a_socket(nursery) as (n1, arrived):

        def encode(message: AppendEntries) -> bytes:
            with suppress(BlockingIOError):
                arrived_bytes.append(len(arrived.recv(65_536, socket.MSG_PEEK)))
            return encode_message(message)

        monkeypatch.setattr(network_module, "encode_message", encode)
        n1.network.send([Envelope("n1/a", "n2/b", append) for append in appends])
        # Nothing had arrived when the first one was encoded.
        assert len(arrived_bytes) == 1
        assert arrived_bytes[0] > 0


async def test_long_messages_arrive_in_few_reads(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    n1, n2 = Server("n1/a", dial_tcp), Server("n2/b", dial_tcp)
    addresses = {"n1/a": await start(nursery, n1), "n2/b": await start(nursery, n2)}
    for server in (n1, n2):
        server.network.set_members(addresses)
    await until(lambda: linked(n1, "n2/b") and linked(n2, "n1/a"))
    connection = n2.network.listener.peers["n1/a"]
    wanted: list[int] = []
    receive_bytes = connection._receive_bytes

    def ask_for() -> int:
        wanted.append(receive_bytes())
        return wanted[-1]

    monkeypatch.setattr(connection, "_receive_bytes", ask_for)
    for size_bytes in (10, 700_000, 3_000_000, 10):
        entry = Entry(1, 1, EntryKind.COMMAND, bytes(size_bytes))
        append = AppendEntries(1, 0, 0, (entry,), 0, 1)
        n1.send("n2/b", append)
        assert await n2.receive() == [Envelope("n1/a", "n2/b", append)]
    assert max(wanted) == RECEIVE_LARGE_BYTES_MAX
    # No more is asked for than a frame lacks.
    assert wanted[-1] == RECEIVE_BYTES_MAX


async def test_connections_are_not_delayed_and_notice_a_dead_host(nursery: trio.Nursery) -> None:
    n1 = Server("n1/a", dial_tcp)
    address = await start(nursery, n1)
    async with await dial_tcp(address) as stream:
        assert isinstance(stream, trio.SocketStream)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
        await Stranger(stream).greet(hello_of("n2/b", "n1/a"))
        inbound = n1.network.listener.peers["n2/b"]._stream
        assert isinstance(inbound, trio.SocketStream)
        assert inbound.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


async def test_a_port_where_nobody_listens_is_refused_in_words(
    nursery: trio.Nursery, closed_address: str
) -> None:
    n1 = Server("n1/a", dial_tcp)
    await start(nursery, n1)
    n1.network.contact(1, closed_address, [], 2000)
    n1.network.set_members({"n2/b": closed_address})
    (contacted,) = await n1.take(Contacted)
    assert contacted.problem == f"connecting to {closed_address}: connection refused"
    changed = [item for item in n1.taken if isinstance(item, LinkChanged)]
    changed = changed or await n1.take(LinkChanged)
    assert changed == [LinkChanged("n2/b", False, "connection refused")]


async def test_a_connection_to_ourselves_counts_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A socket that is bound to the port that it dials is connected to itself by the kernel.
    async def dial_from_the_same_port(host: str, port: int) -> trio.SocketStream:
        itself = trio.socket.socket()
        await itself.bind((host, port))
        await itself.connect((host, port))
        return trio.SocketStream(itself)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(trio, "open_tcp_stream", dial_from_the_same_port)
    with pytest.raises(ConnectionRefusedError) as caught:
        await dial_tcp(f"127.0.0.1:{port}")
    assert caught.value.errno == errno.ECONNREFUSED


async def test_a_port_in_use_is_an_error_for_the_caller(nursery: trio.Nursery) -> None:
    address = await start(nursery, Server("n1/a", dial_tcp))
    with pytest.raises(OSError, match="in use") as caught:
        await nursery.start(Server("n2/b", dial_tcp).network.serve, address)
    assert caught.value.errno == errno.EADDRINUSE


async def test_a_reset_ends_only_that_connection(nursery: trio.Nursery) -> None:
    n1 = Server("n1/a", dial_tcp)
    host, port = split_address(await start(nursery, n1))
    nursery.start_soon(n1.drive)
    for greeted in (True, False):
        stream = await trio.open_tcp_stream(host, port)
        if greeted:
            await Stranger(stream).greet(hello_of("n2/b", "n1/a"))
        await stream.send_all(encode_frame(b"")[:2])
        # Closing with this option set sends a reset instead of an orderly end.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        await trio.aclose_forcefully(stream)
        await until(lambda: n1.network.listener._connection_count == 0)

    async with await dial_tcp(f"{host}:{port}") as stream:
        assert isinstance(await Stranger(stream).greet(CLIENT_HELLO), Welcome)


async def test_a_restarted_server_is_reached_within_a_fraction_of_an_election_timeout(
    nursery: trio.Nursery,
) -> None:
    n1 = Server("n1/a", dial_tcp)
    addresses = {"n1/a": await start(nursery, n1)}
    nursery.start_soon(n1.drive)
    async with trio.open_nursery() as first_life:
        n2 = Server("n2/b", dial_tcp)
        addresses["n2/b"] = await start(first_life, n2)
        n1.network.set_members(addresses)
        await until(lambda: linked(n1, "n2/b"))
        first_life.cancel_scope.cancel()
    await until(lambda: not linked(n1, "n2/b"))
    await trio.sleep(1.5)

    n2 = Server("n2/b", dial_tcp)
    await nursery.start(n2.network.run)
    await nursery.start(n2.network.serve, addresses["n2/b"])
    restarted_at = trio.current_time()
    n2.network.set_members(addresses)
    await until(lambda: linked(n1, "n2/b") and linked(n2, "n1/a"))

    assert trio.current_time() - restarted_at < 0.25


def test_addresses_are_split_at_the_last_colon() -> None:
    assert split_address("127.0.0.1:7101") == ("127.0.0.1", 7101)
    assert split_address("[::1]:7101") == ("::1", 7101)
    assert split_address("db.example:1") == ("db.example", 1)
