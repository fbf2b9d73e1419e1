"""Inbound connections: who is let in, as whom, and what ends a connection."""

from __future__ import annotations

import gc
import tracemalloc

import attrs
import msgpack
import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked

from raftd.codec import (
    OPENING_BYTES_MAX,
    OPENING_MAGIC,
    decode_opening,
    decode_reply,
    encode_frame,
    encode_message,
    encode_opening,
    encode_reply,
    encode_request,
)
from raftd.core.messages import AppendEntriesResponse, Envelope, PreVote, RequestVoteResponse
from raftd.network import listener as listener_module
from raftd.network.complaints import COMPLAINTS_MAX
from raftd.network.inputs import INBOX_INPUTS_MAX, LinkChanged, Requested
from raftd.network.listener import (
    CLIENT_REQUESTS_MAX,
    CONNECTIONS_FOR_PEERS,
    HANDSHAKE_TIMEOUT_SECONDS,
)
from raftd.protocol import (
    FRAME_BYTES_MAX,
    DoneReply,
    GetReply,
    GetRequest,
    PutRequest,
    Refusal,
    Reply,
    StatusRequest,
    Welcome,
)
from tests.network.harness import (
    CLIENT_HELLO,
    CLUSTER,
    Fabric,
    Server,
    Stranger,
    call,
    hello_of,
)

STATUS = encode_request(1, StatusRequest())


@pytest.fixture
def server(nursery: trio.Nursery) -> Server:
    return Server("n1/a", Fabric(nursery).dial)


async def assert_serves(nursery: trio.Nursery, server: Server) -> None:
    """The server lives: a new client is let in and gets its answer."""
    client = call(nursery, server)
    assert await client.greet(CLIENT_HELLO) == Welcome(server="n1/a", cluster_id=CLUSTER, version=1)
    await client.send(STATUS)
    (requested,) = await server.take(Requested)
    requested.respond(DoneReply())
    assert decode_reply(await client.receive()) == (1, DoneReply())
    await client.stream.aclose()


# --- strangers ------------------------------------------------------------------------------

HELLO = encode_opening(CLIENT_HELLO)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        encode_frame(b"garbage"),
        encode_frame(OPENING_MAGIC),
        encode_frame(OPENING_MAGIC + b"\xc1"),
        encode_frame(OPENING_MAGIC + msgpack.packb(["hello", {"role": 5}])),
        (OPENING_BYTES_MAX + 1).to_bytes(4, "little"),
        encode_frame(encode_opening(Welcome(server="", cluster_id="", version=1))),
        encode_frame(encode_opening(attrs.evolve(CLIENT_HELLO, role="tourist"))),
        encode_frame(STATUS),
    ],
)
async def test_garbage_instead_of_a_greeting_closes_only_that_connection(
    nursery: trio.Nursery, server: Server, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = call(nursery, server)
    await stranger.stream.send_all(garbage)
    await stranger.receive_end()
    await wait_all_tasks_blocked()
    assert "closed the connection from" in caplog.text
    await assert_serves(nursery, server)


@pytest.mark.parametrize(
    "garbage",
    [
        encode_frame(b"garbage"),
        encode_frame(b""),
        encode_frame(encode_message(PreVote(1, 1, 1))),
        encode_frame(encode_reply(1, DoneReply())),
        encode_frame(HELLO),
        (FRAME_BYTES_MAX + 1).to_bytes(4, "little"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_garbage_from_a_client_closes_only_that_connection(
    nursery: trio.Nursery,
    server: Server,
    garbage: bytes,
    together: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stranger = call(nursery, server)
    if together:
        await stranger.stream.send_all(encode_frame(HELLO) + garbage)
    else:
        await stranger.greet(CLIENT_HELLO)
        await stranger.stream.send_all(garbage)
    await wait_all_tasks_blocked()
    assert "closed the connection" in caplog.text
    assert server.network.listener.clients == set()
    await assert_serves(nursery, server)


async def test_a_request_from_a_server_closes_its_connection(
    nursery: trio.Nursery, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    peer = call(nursery, server)
    await peer.greet(hello_of("n2/b", "n1/a"))
    await peer.send(STATUS)
    await peer.receive_end()
    await wait_all_tasks_blocked()
    assert "closed the connection of n2/b" in caplog.text
    assert server.network.listener.peers == {}
    await assert_serves(nursery, server)


async def test_a_connection_that_ends_inside_a_frame_is_complained_about(
    nursery: trio.Nursery, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    client = call(nursery, server)
    await client.greet(CLIENT_HELLO)
    await client.stream.send_all(encode_frame(STATUS)[:-1])
    await client.stream.aclose()
    await wait_all_tasks_blocked()
    assert "it ended inside a frame" in caplog.text
    await assert_serves(nursery, server)


@pytest.mark.parametrize("beginning", [b"", b"\x20", encode_frame(HELLO)[:-1]])
async def test_silence_instead_of_a_greeting_is_ended_by_the_timeout(
    nursery: trio.Nursery,
    server: Server,
    autojump_clock: MockClock,
    beginning: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stranger = call(nursery, server)
    if beginning:
        await stranger.stream.send_all(beginning)
    await stranger.receive_end()
    assert trio.current_time() == pytest.approx(HANDSHAKE_TIMEOUT_SECONDS)
    assert "no greeting for 5.0 s" in caplog.text
    await assert_serves(nursery, server)


async def test_a_port_scan_leaves_no_line_in_the_log(
    nursery: trio.Nursery, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    await call(nursery, server).stream.aclose()
    await wait_all_tasks_blocked()
    assert caplog.text == ""


async def test_strangers_cannot_fill_the_log(
    nursery: trio.Nursery,
    server: Server,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def misbehave() -> None:
        stranger = call(nursery, server)
        await stranger.stream.send_all(b"\xff\xff\xff\xff")
        await stranger.receive_end()

    for _ in range(50):
        await misbehave()
    assert len(caplog.records) == COMPLAINTS_MAX
    await trio.sleep(60)
    await misbehave()
    assert caplog.records[COMPLAINTS_MAX].getMessage() == "45 more complaints about connections"
    assert len(caplog.records) == COMPLAINTS_MAX + 2


# --- identities -----------------------------------------------------------------------------


async def test_a_refusal_reaches_the_other_side_and_the_log(
    nursery: trio.Nursery, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = Refusal(code="cluster", message="another cluster", server="n1/a")
    server.refusals["n2/b"] = refusal
    peer = call(nursery, server)
    assert await peer.greet(hello_of("n2/b", "n1/a")) == refusal
    await peer.receive_end()
    await wait_all_tasks_blocked()
    assert "refused n2/b from a local stream: another cluster (cluster)" in caplog.text


async def test_a_refusal_that_repeats_a_long_greeting_is_cut_short(
    nursery: trio.Nursery, server: Server
) -> None:
    source = "ä" * 1800
    server.refusals[source] = Refusal(code="cluster", message=f"{source} is unknown {source}")
    answer = await call(nursery, server).greet(hello_of(source, "n1/a"))
    assert isinstance(answer, Refusal)
    assert len(answer.message) == 500


async def test_what_a_server_sends_carries_the_identity_of_its_greeting(
    nursery: trio.Nursery, server: Server
) -> None:
    peer = call(nursery, server)
    await peer.greet(hello_of("n2/b", "n1/a"))
    # An envelope is no part of the wire: a field that says otherwise has no meaning.
    await peer.send(msgpack.packb([4, 7, True, 6, "n3/c", "n9/z"]))
    assert await server.receive() == [Envelope("n2/b", "n1/a", RequestVoteResponse(7, True, 6))]


@pytest.mark.parametrize("source", ["", "n1/a"])
async def test_nobody_is_let_in_as_this_server_itself_or_as_nobody(
    nursery: trio.Nursery, server: Server, source: str
) -> None:
    answer = await call(nursery, server).greet(hello_of(source, "n1/a"))
    assert isinstance(answer, Refusal)
    assert answer.code == "identity"


async def test_a_newer_connection_of_a_server_replaces_the_older_one(
    nursery: trio.Nursery, server: Server
) -> None:
    older, newer = call(nursery, server), call(nursery, server)
    await older.greet(hello_of("n2/b", "n1/a"))
    await newer.greet(hello_of("n2/b", "n1/a"))
    await older.receive_end()

    server.send("n2/b", AppendEntriesResponse(1, True, 1, 1, 1))

    await newer.receive()
    assert server.network.dropped_messages == 0


async def test_closing_a_peer_makes_it_greet_again(nursery: trio.Nursery, server: Server) -> None:
    peer = call(nursery, server)
    await peer.greet(hello_of("n2/b", "n1/a"))
    server.network.close_peer("n2/b", "removed")
    await peer.receive_end()
    server.send("n2/b", AppendEntriesResponse(1, True, 1, 1, 1))
    assert server.network.dropped_messages == 1


# --- clients --------------------------------------------------------------------------------


async def test_replies_carry_the_numbers_of_their_requests_in_any_order(
    nursery: trio.Nursery, server: Server
) -> None:
    client = call(nursery, server)
    await client.greet(CLIENT_HELLO)
    await client.send(*[encode_request(n, GetRequest(key=str(n))) for n in (5, 6, 7)])
    requested = await server.take(Requested, 3)

    for item in reversed(requested):
        assert isinstance(item.request, GetRequest)
        item.respond(GetReply(found=True, value=item.request.key.encode()))

    replies = [decode_reply(await client.receive()) for _ in range(3)]
    assert replies == [(n, GetReply(found=True, value=str(n).encode())) for n in (7, 6, 5)]


async def test_requests_that_come_with_the_greeting_are_served(
    nursery: trio.Nursery, server: Server
) -> None:
    client = call(nursery, server)
    await client.send(HELLO, STATUS)
    (requested,) = await server.take(Requested)
    requested.respond(DoneReply())
    assert isinstance(decode_opening(await client.receive()), Welcome)
    assert decode_reply(await client.receive()) == (1, DoneReply())


async def test_what_one_read_brought_is_one_batch(nursery: trio.Nursery, server: Server) -> None:
    client = call(nursery, server)
    await client.greet(CLIENT_HELLO)
    await client.send(*[encode_request(n, StatusRequest()) for n in range(100)])
    await wait_all_tasks_blocked()
    batch, _ = await server.inbox.take()
    assert len(batch) == 100


async def test_a_client_is_not_read_while_too_many_requests_are_unanswered(
    nursery: trio.Nursery, server: Server
) -> None:
    client = call(nursery, server)
    await client.greet(CLIENT_HELLO)
    count = CLIENT_REQUESTS_MAX + 50
    await client.send(*[encode_request(n, GetRequest(key=str(n))) for n in range(count)])
    requested = await server.take(Requested, CLIENT_REQUESTS_MAX)
    await wait_all_tasks_blocked()
    assert len(server.inbox) == 0
    assert len(requested) == CLIENT_REQUESTS_MAX

    for item in requested[:50]:
        item.respond(DoneReply())

    more = await server.take(Requested, 50)
    keys = [item.request.key for item in requested + more]  # type: ignore[union-attr]
    assert keys == [str(n) for n in range(count)]


async def test_a_number_that_is_in_use_closes_the_connection(
    nursery: trio.Nursery, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    client = call(nursery, server)
    await client.greet(CLIENT_HELLO)
    await client.send(STATUS)
    await client.send(STATUS)
    await client.receive_end()
    await wait_all_tasks_blocked()
    assert "request number 1 is in use" in caplog.text


async def test_a_reply_to_a_client_that_has_gone_is_ignored(
    nursery: trio.Nursery, server: Server
) -> None:
    client = call(nursery, server)
    await client.greet(CLIENT_HELLO)
    await client.send(STATUS)
    (requested,) = await server.take(Requested)
    await client.stream.aclose()
    await wait_all_tasks_blocked()
    requested.respond(DoneReply())
    await assert_serves(nursery, server)


async def test_a_second_reply_to_one_request_is_our_own_bug(
    nursery: trio.Nursery, server: Server
) -> None:
    client = call(nursery, server)
    await client.greet(CLIENT_HELLO)
    await client.send(STATUS)
    (requested,) = await server.take(Requested)
    requested.respond(DoneReply())
    with pytest.raises(AssertionError):
        requested.respond(DoneReply())


def call_slowly(nursery: trio.Nursery, server: Server) -> Stranger:
    """Return a stranger to whom the server can only send what it reads."""
    ours, theirs = lockstep_stream_pair()
    nursery.start_soon(server.network.listener.handle, theirs)
    return Stranger(ours)


async def test_a_client_that_does_not_read_its_replies_is_closed_at_the_bound(
    nursery: trio.Nursery,
    server: Server,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(listener_module, "CLIENT_OUTBOX_BYTES_MAX", 10_000)
    client = call_slowly(nursery, server)
    await client.greet(CLIENT_HELLO)
    reply: Reply = GetReply(found=True, value=bytes(3000))
    for number in range(20):
        await client.send(encode_request(number, StatusRequest()))
        (requested,) = await server.take(Requested)
        requested.respond(reply)
        if not server.network.listener.clients:
            break
        (connection,) = server.network.listener.clients
        assert connection.outbox_bytes <= 10_000 + 3100
        if connection.closed:
            break
    await wait_all_tasks_blocked()
    assert server.network.listener.clients == set()
    assert "it does not read its replies" in caplog.text
    assert trio.current_time() == 0
    await assert_serves(nursery, server)


async def test_who_holds_most_of_a_request_is_closed_where_all_hold_too_much(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, "CLIENTS_HELD_BYTES_MAX", 100_000)
    server = Server("n1/a", Fabric(nursery).dial)
    content = bytes(90_000)
    put = PutRequest(session="s", serial=1, lowest_unacknowledged=1, key="k", value=content)
    request = encode_frame(encode_request(1, put))
    greedy, modest, late = [call(nursery, server) for _ in range(3)]
    for client in (greedy, modest, late):
        await client.greet(CLIENT_HELLO)
    # What was complete, and what has gone, counts no more.
    for _ in range(2):
        await modest.stream.send_all(request)
        (requested,) = await server.take(Requested)
        requested.respond(DoneReply())
        await modest.receive()
        gone = call(nursery, server)
        await gone.greet(CLIENT_HELLO)
        await gone.stream.send_all(request[:80_000])
        await wait_all_tasks_blocked()
        await gone.stream.aclose()
        await wait_all_tasks_blocked()
    await greedy.stream.send_all(request[:60_000])
    await modest.stream.send_all(request[:30_000])
    await wait_all_tasks_blocked()
    assert len(server.network.listener.clients) == 3
    await late.stream.send_all(request[:20_000])
    await greedy.receive_end()
    await wait_all_tasks_blocked()
    assert len(server.network.listener.clients) == 2
    assert "all clients together do not end their requests" in caplog.text
    await modest.stream.send_all(request[30_000:])
    await late.stream.send_all(request[20_000:])
    assert len(await server.take(Requested, 2)) == 2
    nursery.cancel_scope.cancel()


async def test_what_a_client_has_sent_of_a_request_is_free_when_it_has_gone(
    nursery: trio.Nursery, server: Server
) -> None:
    client = call(nursery, server)
    await client.greet(CLIENT_HELLO)
    put = PutRequest(
        session="s", serial=1, lowest_unacknowledged=1, key="k", value=bytes(1_000_000)
    )
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        request = encode_frame(encode_request(1, put))[:900_000]
        await client.stream.send_all(request)
        await wait_all_tasks_blocked()
        held, _ = tracemalloc.get_traced_memory()
        await client.stream.aclose()
        await wait_all_tasks_blocked()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert server.network.listener.clients == set()
    assert held - left >= 900_000
    nursery.cancel_scope.cancel()


async def test_a_client_that_reads_nothing_is_closed_after_the_stall_timeout(
    nursery: trio.Nursery,
    server: Server,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = call_slowly(nursery, server)
    await client.greet(CLIENT_HELLO)
    await client.send(STATUS)
    (requested,) = await server.take(Requested)
    requested.respond(DoneReply())
    await trio.sleep(4.9)
    assert len(server.network.listener.clients) == 1
    await trio.sleep(0.2)
    assert server.network.listener.clients == set()
    assert "nothing could be written for 5.0 s" in caplog.text


async def test_a_full_inbox_stops_the_reading_and_not_the_server(
    nursery: trio.Nursery, server: Server
) -> None:
    server.inbox.arrived([LinkChanged("x", True, "")] * (INBOX_INPUTS_MAX + 1))
    client = call(nursery, server)
    await client.greet(CLIENT_HELLO)
    await client.send(STATUS)
    await wait_all_tasks_blocked()
    assert len(server.inbox) == INBOX_INPUTS_MAX + 1
    await server.take(Requested)


# --- how many -------------------------------------------------------------------------------


async def test_clients_beyond_their_share_are_refused_and_servers_are_let_in(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server("n1/a", Fabric(nursery).dial, connections_max=CONNECTIONS_FOR_PEERS + 2)
    clients = [call(nursery, server) for _ in range(2)]
    for client in clients:
        assert isinstance(await client.greet(CLIENT_HELLO), Welcome)

    surplus = await call(nursery, server).greet(CLIENT_HELLO)
    assert isinstance(surplus, Refusal)
    assert surplus.code == "busy"
    peer = await call(nursery, server).greet(hello_of("n2/b", "n1/a"))
    assert isinstance(peer, Welcome)

    await clients[0].stream.aclose()
    server.network.close_peer("n2/b", "test")
    await wait_all_tasks_blocked()
    assert isinstance(await call(nursery, server).greet(CLIENT_HELLO), Welcome)


async def test_a_connection_over_the_total_is_refused_without_a_greeting(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server("n1/a", Fabric(nursery).dial, connections_max=CONNECTIONS_FOR_PEERS + 1)
    for _ in range(CONNECTIONS_FOR_PEERS + 1):
        call(nursery, server)
    await wait_all_tasks_blocked()

    surplus = call(nursery, server)
    refusal = decode_opening(await surplus.receive())
    assert isinstance(refusal, Refusal)
    assert refusal.code == "busy"

    await trio.sleep(HANDSHAKE_TIMEOUT_SECONDS + 1)
    await assert_serves(nursery, server)


async def test_a_bug_in_the_node_takes_the_server_down() -> None:
    with pytest.RaisesGroup(ZeroDivisionError):
        async with trio.open_nursery() as nursery:
            server = Server("n1/a", Fabric(nursery).dial)

            def broken(_: object) -> Welcome:
                raise ZeroDivisionError

            server.network.listener._admit = broken
            await call(nursery, server).send(HELLO)
