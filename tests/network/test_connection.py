"""Established connections: on sockets, which the driver reads, and on streams in memory."""

from __future__ import annotations

import fcntl
import math
import socket
import struct
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from raftd.codec import (
    FrameDecoder,
    decode_reply,
    encode_frame,
    encode_message,
    encode_opening,
    encode_request,
)
from raftd.core.messages import PreVote, PreVoteResponse
from raftd.inputs import LinkChanged, Received, Requested
from raftd.network.connection import Connection
from raftd.network.inputs import (
    BATCH_INPUTS_MAX,
    INBOX_INPUTS_MAX,
    PEERS_INPUTS_MAX,
    Inbox,
)
from raftd.network.listener import CLIENT_REQUESTS_MAX, RestrictedClient
from raftd.protocol import DoneReply, ErrorReply, GetRequest, PutRequest, TransferRequest
from raftd.roles import FORBIDDEN
from raftd.tls import APPLICATION, Holder
from tests.network.harness import (
    CLIENT_HELLO,
    Fabric,
    Server,
    Stranger,
    call,
    hello_of,
)

PATIENCE_SECONDS = 20
"""More than anything here takes, on a busy machine too."""


class Bed:
    """A server with its driver, and those who connect to it."""

    def __init__(self, nursery: trio.Nursery, *, sockets: bool) -> None:
        self.nursery = nursery
        self.sockets = sockets
        self.server = Server("n1/a", Fabric(nursery).dial)
        self.listener = self.server.network.listener
        self.turns = 0
        self.held = trio.Event()
        """Set while the driver takes."""
        self.held.set()
        self._port = 0
        self._strangers: list[Stranger] = []

    async def start(self) -> None:
        if self.sockets:
            (address,) = await self.nursery.start(self.server.network.serve, "127.0.0.1:0")
            self._port = int(address.rpartition(":")[2])
        self.nursery.start_soon(self._drive)

    async def _drive(self) -> None:
        while True:
            await self.held.wait()
            batch, _ = await self.server.inbox.take()
            self.turns += 1
            self.server.taken += batch
            self.listener.push()

    async def connect(self) -> Stranger:
        if self.sockets:
            stranger = Stranger(await trio.open_tcp_stream("127.0.0.1", self._port))
        else:
            stranger = call(self.nursery, self.server)
        self._strangers.append(stranger)
        return stranger

    async def close(self) -> None:
        """Close all that is open, and see that nothing is left of it."""
        for stranger in self._strangers:
            await trio.aclose_forcefully(stranger.stream)
        self.held.set()
        await self.until(lambda: not (self.listener.clients or self.listener.peers))
        assert len(self.server.inbox.sockets) == 0

    async def client(self) -> Stranger:
        client = await self.connect()
        await client.greet(CLIENT_HELLO)
        return client

    async def client_and_connection(self) -> tuple[Stranger, Connection]:
        """Return both ends of a client's connection."""
        before = set(self.listener.clients)
        client = await self.client()
        (connection,) = self.listener.clients - before
        return client, connection

    async def peer(self, server: str) -> Stranger:
        peer = await self.connect()
        await peer.greet(hello_of(server, "n1/a"))
        return peer

    @property
    def requested(self) -> list[Requested]:
        """The requests that came, in their order."""
        return [taken for taken in self.server.taken if isinstance(taken, Requested)]

    @property
    def keys(self) -> list[str]:
        """Of the requests that came."""
        return [r.request.key for r in self.requested if isinstance(r.request, GetRequest)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let everything else run until a condition holds."""
        with trio.fail_after(PATIENCE_SECONDS):
            while not condition():
                await trio.lowlevel.checkpoint()

    async def rest(self) -> int:
        """Let everything run for a while; return how many turns the driver takes in it."""
        before = self.turns
        for _ in range(200):
            await trio.lowlevel.checkpoint()
        return self.turns - before

    async def hold(self) -> None:
        """Let the driver take nothing, until `held` is set."""
        self.held = trio.Event()
        self.server.inbox.wake()
        await self.rest()

    async def serves(self) -> None:
        """A new client gets its answer."""
        count = len(self.requested)
        client = await self.client()
        await client.send(get(count))
        await self.until(lambda: len(self.requested) > count)
        self.requested[-1].respond(DoneReply())
        self.listener.push()
        assert decode_reply(await client.receive()) == (count, DoneReply())
        await client.stream.aclose()


@asynccontextmanager
async def opened(*, sockets: bool) -> AsyncIterator[Bed]:
    """A bed that runs."""
    async with trio.open_nursery() as nursery:
        bed = Bed(nursery, sockets=sockets)
        await bed.start()
        yield bed
        await bed.close()
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["sockets", "memory"])
async def bed(request: pytest.FixtureRequest) -> AsyncIterator[Bed]:
    async with opened(sockets=request.param == "sockets") as bed:
        yield bed


@pytest.fixture
async def socket_bed() -> AsyncIterator[Bed]:
    async with opened(sockets=True) as bed:
        yield bed


def get(number: int) -> bytes:
    """Return a request that has its own number for a key."""
    return encode_request(number, GetRequest(key=str(number)))


def gets(start: int, stop: int) -> list[bytes]:
    return [get(number) for number in range(start, stop)]


def unread_bytes(connection: Connection) -> int:
    """Return what the system has received for a connection that nobody has read."""
    descriptor = connection._descriptor
    assert descriptor is not None
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(count)


def reset(stranger: Stranger) -> None:
    """Let the other side see an error instead of an orderly end."""
    assert isinstance(stranger.stream, trio.SocketStream)
    linger = struct.pack("ii", 1, 0)
    stranger.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    stranger.stream.socket.close()


# --- a client with many requests ------------------------------------------------------------


async def test_requests_beyond_the_bound_come_one_for_each_answer_and_in_their_order(
    bed: Bed,
) -> None:
    client = await bed.client()
    count = 5 * CLIENT_REQUESTS_MAX
    answered = 0
    await client.send(*gets(0, count))
    await bed.until(lambda: len(bed.requested) == CLIENT_REQUESTS_MAX)
    for answers in (1, 2, 50, CLIENT_REQUESTS_MAX):
        assert await bed.rest() < 20
        assert len(bed.requested) == CLIENT_REQUESTS_MAX + answered
        for requested in bed.requested[answered : answered + answers]:
            requested.respond(DoneReply())
        answered += answers
        await bed.until(lambda: len(bed.requested) == CLIENT_REQUESTS_MAX + answered)  # noqa: B023
    while answered < count:
        await bed.until(lambda: len(bed.requested) > answered)  # noqa: B023
        assert len(bed.requested) <= answered + CLIENT_REQUESTS_MAX
        bed.requested[answered].respond(DoneReply())
        answered += 1
    assert bed.keys == [str(number) for number in range(count)]
    bed.listener.push()
    replies = [decode_reply(await client.receive()) for _ in range(count)]
    assert replies == [(number, DoneReply()) for number in range(count)]
    # And it goes on as before.
    await client.send(get(count))
    await bed.until(lambda: len(bed.requested) == count + 1)


async def test_a_client_with_too_many_requests_is_not_read_until_answers_leave(
    socket_bed: Bed,
) -> None:
    bed = socket_bed
    client, connection = await bed.client_and_connection()
    first = gets(0, CLIENT_REQUESTS_MAX + 3)
    await client.send(*first)
    await bed.until(lambda: len(bed.requested) == CLIENT_REQUESTS_MAX)
    await bed.rest()
    assert unread_bytes(connection) == 0
    more = gets(len(first), len(first) + 20)
    await client.send(*more)
    more_bytes = sum(map(len, map(encode_frame, more)))
    await bed.until(lambda: unread_bytes(connection) == more_bytes)
    # Others are, and the set does not say all the time that it could be read.
    await bed.serves()
    assert await bed.rest() < 20
    assert unread_bytes(connection) == more_bytes
    asked = [r for r in bed.requested if isinstance(r.request, GetRequest)][:CLIENT_REQUESTS_MAX]
    asked[0].respond(DoneReply())
    asked[1].respond(DoneReply())
    await bed.rest()
    assert unread_bytes(connection) == more_bytes
    for requested in asked[2:]:
        requested.respond(DoneReply())
    await bed.until(lambda: unread_bytes(connection) == 0)
    total = CLIENT_REQUESTS_MAX + 1 + 3 + 20
    await bed.until(lambda: len(bed.requested) == total)


@pytest.mark.parametrize("with_the_greeting", [False, True])
async def test_too_many_requests_are_held_back_also_when_they_come_with_the_greeting(
    bed: Bed, with_the_greeting: bool
) -> None:
    count = 2 * CLIENT_REQUESTS_MAX + 1
    if with_the_greeting:
        client = await bed.connect()
        await client.send(encode_opening(CLIENT_HELLO), *gets(0, count))
        await client.receive()
    else:
        client = await bed.client()
        await client.send(*gets(0, count))
    answered = 0
    while answered < count:
        await bed.until(lambda: len(bed.requested) > answered)  # noqa: B023
        assert len(bed.requested) - answered <= CLIENT_REQUESTS_MAX
        bed.requested[answered].respond(DoneReply())
        answered += 1
    assert bed.keys == [str(number) for number in range(count)]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (b"garbage", "request: ExtraData"),
        (get(CLIENT_REQUESTS_MAX - 1), "request number 255 is in use"),
    ],
    ids=["garbage", "number in use"],
)
async def test_what_is_no_request_among_those_that_wait_closes_the_connection_in_its_turn(
    bed: Bed, caplog: pytest.LogCaptureFixture, wrong: bytes, problem: str
) -> None:
    client = await bed.client()
    await client.send(*gets(0, CLIENT_REQUESTS_MAX + 1), wrong, get(CLIENT_REQUESTS_MAX + 1))
    await bed.until(lambda: len(bed.requested) == CLIENT_REQUESTS_MAX)
    await bed.rest()
    assert caplog.text == ""
    bed.requested[0].respond(DoneReply())
    await bed.until(lambda: len(bed.requested) == CLIENT_REQUESTS_MAX + 1)
    await bed.rest()
    assert len(bed.listener.clients) == 1
    # An answer for what comes before it, in the place of which its turn comes.
    bed.requested[1].respond(DoneReply())
    await bed.until(lambda: not bed.listener.clients)
    assert problem in caplog.text
    # The others are answered, and find nobody. Nothing behind it was asked.
    for requested in bed.requested[2:]:
        requested.respond(DoneReply())
    await bed.rest()
    assert len(bed.requested) == CLIENT_REQUESTS_MAX + 1
    await bed.serves()


async def test_a_reset_of_a_client_that_is_not_read_ends_it_at_once(
    socket_bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    bed = socket_bed
    client = await bed.client()
    await client.send(*gets(0, CLIENT_REQUESTS_MAX + 50))
    await bed.until(lambda: len(bed.requested) == CLIENT_REQUESTS_MAX)
    reset(client)
    await bed.until(lambda: not bed.listener.clients)
    assert await bed.rest() < 20
    # It is no misbehaviour, and what is answered now finds nobody.
    assert caplog.text == ""
    for requested in bed.requested:
        requested.respond(DoneReply())
    await bed.rest()
    assert len(bed.requested) == CLIENT_REQUESTS_MAX
    await bed.serves()


# --- how they end ---------------------------------------------------------------------------


async def test_an_end_inside_a_frame_is_complained_about_after_what_came_before_it(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    client = await bed.client()
    await client.stream.send_all(encode_frame(get(0)) + encode_frame(get(1))[:-1])
    await client.stream.aclose()
    await bed.until(lambda: not bed.listener.clients)
    assert "it ended inside a frame" in caplog.text
    assert bed.keys == ["0"]
    await bed.serves()


async def test_an_end_between_frames_is_no_complaint(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    client = await bed.client()
    await client.send(get(0))
    await client.stream.aclose()
    await bed.until(lambda: not bed.listener.clients)
    assert bed.keys == ["0"]
    assert caplog.text == ""
    await bed.serves()


@pytest.mark.parametrize("garbage", [encode_frame(b"garbage"), b"\xff\xff\xff\xff"])
async def test_garbage_ends_its_own_connection_and_no_other_one(
    bed: Bed, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    await bed.hold()
    clients = [await bed.client_and_connection() for _ in range(5)]
    for number, (client, _) in enumerate(clients):
        await client.stream.send_all(garbage if number == 2 else encode_frame(get(number)))
    if bed.sockets:
        await bed.until(lambda: all(unread_bytes(c) for _, c in clients))
    bed.held.set()
    await bed.until(lambda: len(bed.listener.clients) == 4)
    await bed.until(lambda: len(bed.requested) == 4)
    assert sorted(bed.keys) == ["0", "1", "3", "4"]
    assert "closed the connection of a client" in caplog.text
    await clients[2][0].receive_end()
    for requested in bed.requested:
        requested.respond(DoneReply())
    bed.listener.push()
    for number in (0, 1, 3, 4):
        assert decode_reply(await clients[number][0].receive()) == (number, DoneReply())


async def test_a_large_frame_that_comes_in_pieces_is_one_request(bed: Bed) -> None:
    client = await bed.client()
    value = bytes(range(256)) * 4096
    frame = encode_frame(
        encode_request(
            1, PutRequest(key="a", value=value, session="s", serial=1, lowest_unacknowledged=1)
        )
    )
    for start in range(0, len(frame), 300_001):
        await client.stream.send_all(frame[start : start + 300_001])
        await bed.rest()
    await bed.until(lambda: len(bed.requested) == 1)
    request = bed.requested[0].request
    assert isinstance(request, PutRequest)
    assert request.value == value


async def test_who_is_closed_is_not_read_though_it_has_sent(socket_bed: Bed) -> None:
    """And the one that gets its descriptor is not taken for it."""
    bed = socket_bed
    await bed.hold()
    closed, closed_connection = await bed.client_and_connection()
    other, other_connection = await bed.client_and_connection()
    await closed.send(get(1))
    await other.send(get(2))
    await bed.until(
        lambda: bool(unread_bytes(closed_connection) and unread_bytes(other_connection))
    )
    closed_connection.close("test")
    bed.held.set()
    await bed.until(lambda: bed.keys == ["2"])
    await bed.until(lambda: len(bed.listener.clients) == 1)
    await closed.receive_end()
    await closed.stream.aclose()
    newcomers = [await bed.client() for _ in range(3)]
    for number, newcomer in enumerate(newcomers, 3):
        await newcomer.send(get(number))
    await bed.until(lambda: sorted(bed.keys) == ["2", "3", "4", "5"])
    for requested in bed.requested:
        requested.respond(DoneReply())
    bed.listener.push()
    for number, client in enumerate([other, *newcomers], 2):
        assert decode_reply(await client.receive()) == (number, DoneReply())


async def test_clients_come_and_go_while_others_are_served(
    socket_bed: Bed, nursery: trio.Nursery
) -> None:
    """Descriptors are used again all the time, and everybody gets the answers to its own."""
    bed = socket_bed
    answered = 0

    async def answer() -> None:
        nonlocal answered
        while True:
            for requested in bed.requested[answered:]:
                requested.respond(DoneReply())
                answered += 1
            bed.listener.push()
            await trio.lowlevel.checkpoint()

    async def come_and_go(number: int) -> None:
        for time in range(10):
            client = await bed.client()
            await client.send(*gets(100 * number, 100 * number + 5))
            if (number + time) % 3 == 0:
                reset(client)
                continue
            for request in range(100 * number, 100 * number + 5):
                assert decode_reply(await client.receive()) == (request, DoneReply())
            if (number + time) % 3 == 1:
                await client.stream.send_all(b"\xff\xff\xff\xff")
            await client.stream.aclose()

    nursery.start_soon(answer)
    async with trio.open_nursery() as clients:
        for number in range(10):
            clients.start_soon(come_and_go, number)
    await bed.until(lambda: not bed.listener.clients)
    assert len(bed.server.inbox.sockets) == 0


# --- a full inbox, and other servers --------------------------------------------------------


def terms_heard(bed: Bed) -> list[int]:
    """Return those of the messages that came, in their order."""
    heard = [taken.envelope.message for taken in bed.server.taken if isinstance(taken, Received)]
    return [message.term for message in heard if isinstance(message, PreVote)]


async def test_a_full_inbox_is_not_filled_further_by_clients_and_goes_on_afterwards(
    bed: Bed,
) -> None:
    clients = [await bed.client_and_connection() for _ in range(5)]
    await bed.hold()
    for client, _ in clients:
        await client.send(*gets(0, 100))
    if bed.sockets:
        await bed.until(lambda: all(unread_bytes(connection) > 500 for _, connection in clients))
    else:
        # Those that read themselves have read once, before it was full.
        await bed.rest()
    inbox = bed.server.inbox
    inbox.arrived([LinkChanged(str(number), True, "") for number in range(2 * INBOX_INPUTS_MAX)])
    while inbox.is_full:
        before = len(inbox)
        batch, _ = await inbox.take()
        bed.server.taken += batch
        assert len(inbox) == before - len(batch)
    bed.held.set()
    await bed.until(lambda: len(bed.requested) == 500)


async def test_servers_are_heard_while_clients_keep_the_inbox_full(socket_bed: Bed) -> None:
    bed = socket_bed
    client, client_connection = await bed.client_and_connection()
    peer = await bed.peer("n2/b")
    (peer_connection,) = bed.listener.peers.values()
    await bed.hold()
    await client.send(*gets(0, 100))
    await peer.send(*[encode_message(PreVote(term, 1, 1)) for term in range(1, 101)])
    await bed.until(
        lambda: bool(unread_bytes(client_connection) and unread_bytes(peer_connection) > 500)
    )
    inbox = bed.server.inbox
    filling = [LinkChanged("x", True, "")] * BATCH_INPUTS_MAX
    # They have a bound as well.
    while len(inbox) <= PEERS_INPUTS_MAX:
        inbox.arrived(filling)
    await inbox.take()
    assert unread_bytes(peer_connection)
    while len(inbox) > PEERS_INPUTS_MAX:
        await inbox.take()
    # From here on as many come as are taken.
    assert terms_heard(bed) == []
    for _ in range(PEERS_INPUTS_MAX // BATCH_INPUTS_MAX + 1):
        batch, _ = await inbox.take()
        bed.server.taken += batch
        inbox.arrived(filling)
        assert inbox.is_full
    assert terms_heard(bed) == list(range(1, 101))
    assert unread_bytes(client_connection)
    bed.held.set()
    await bed.until(lambda: len(bed.requested) == 100)


async def test_the_newer_connection_of_a_server_takes_the_place_of_the_older_one(bed: Bed) -> None:
    older = await bed.peer("n2/b")
    await older.send(encode_message(PreVote(1, 1, 1)))
    await bed.until(lambda: len(bed.server.taken) == 1)
    newer = await bed.peer("n2/b")
    await older.receive_end()
    await newer.send(encode_message(PreVote(2, 1, 1)))
    await bed.until(lambda: len(bed.server.taken) == 2)
    bed.server.send("n2/b", PreVoteResponse(2, 1, True))
    await newer.receive()
    assert bed.server.network.dropped_messages == 0


async def test_a_client_may_ask_on_behind_many_requests_that_are_not_for_its_role(
    nursery: trio.Nursery,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    inbox = Inbox()
    connection = Connection(ours, FrameDecoder(), inbox=inbox, outbox_bytes_max=1 << 20)
    holder = Holder(APPLICATION, "orders")
    client = RestrictedClient(connection, inbox, lambda replied: None, holder)
    nursery.start_soon(connection.run, client.handle, [])
    stranger = Stranger(theirs)
    count = 2 * CLIENT_REQUESTS_MAX
    await stranger.send(*[encode_request(number, TransferRequest()) for number in range(count)])
    for number in range(count):
        answered, reply = decode_reply(await stranger.receive())
        assert isinstance(reply, ErrorReply)
        assert (answered, reply.code) == (number, FORBIDDEN)
    await stranger.send(encode_request(count, GetRequest(key="k")))
    with trio.fail_after(PATIENCE_SECONDS):
        inputs, _ = await inbox.take(lambda: math.inf)
    (asked,) = inputs
    assert isinstance(asked, Requested)
    connection.close("the test is over")
