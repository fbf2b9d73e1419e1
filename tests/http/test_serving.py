"""HTTP on one connection: what is answered, what is refused, and what is bounded."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import h11
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MemorySendStream, memory_stream_pair

from raftd.codec import OPENING_MAGIC, encode_frame
from raftd.http import serving
from raftd.http.serving import (
    CONNECTIONS_MAX,
    HEAD_BYTES_MAX,
    IDLE_SECONDS,
    LIVE_SEND_SECONDS,
    REFUSALS_MAX,
    REQUESTS_PER_SECOND_MAX,
    Answer,
    HttpRequest,
    HttpServer,
    Live,
    Send,
    allowed_hosts,
    is_host_allowed,
)

HOSTS = allowed_hosts(["n1.example.org:8101"])
GET = b"GET %s HTTP/1.1\r\nHost: localhost:8101\r\n\r\n"


async def echo(request: HttpRequest) -> Answer | Live:
    return Answer(body=f"{request.path} {dict(request.query)}".encode())


def server(respond: Callable[[HttpRequest], Awaitable[Answer | Live]] = echo) -> HttpServer:
    return HttpServer(respond, HOSTS)


class Received:
    """What came back on one connection."""

    def __init__(self, data: bytes, method: bytes = b"GET") -> None:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("host", "localhost")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        client.receive_data(b"")
        event = client.next_event()
        assert isinstance(event, h11.Response), event
        self.status = event.status_code
        self.headers = {name.decode(): value.decode() for name, value in event.headers}
        self.body = b""
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data), event
            self.body += bytes(event.data)


async def exchange(http: HttpServer, data: bytes) -> bytes:
    """Send `data` and no more; return all that comes back until the connection ends."""
    ours, theirs = memory_stream_pair()
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.handle, theirs)
        await ours.send_all(data)
        await ours.send_eof()
        with contextlib.suppress(trio.BrokenResourceError):
            while piece := await ours.receive_some():
                received += piece
    return received


async def ask(http: HttpServer, data: bytes, method: bytes = b"GET") -> Received:
    return Received(await exchange(http, data), method)


async def test_a_request_is_answered_with_its_path_and_query(autojump_clock):
    found = await ask(server(), GET % b"/readyz?verbose&a=b%20c")

    assert (found.status, found.body) == (200, b"/readyz {'verbose': '', 'a': 'b c'}")
    assert found.headers["content-length"] == str(len(found.body))


async def test_every_answer_forbids_what_a_page_does_not_need(autojump_clock):
    for data in (GET % b"/", b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"garbage\r\n\r\n"):
        headers = (await ask(server(), data)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "set-cookie" not in headers


async def test_one_connection_asks_many_times(autojump_clock):
    received = await exchange(server(), GET % b"/a" + GET % b"/b" + GET % b"/c")

    assert [received.count(path) for path in (b"/a {}", b"/b {}", b"/c {}")] == [1, 1, 1]


async def test_an_answer_that_fails_ends_nothing_and_is_told_of_now_and_then(
    autojump_clock, caplog
):
    async def fail(request: HttpRequest) -> Answer | Live:
        raise ZeroDivisionError(request.path)

    http = server(fail)
    for _ in range(3):
        assert (await ask(http, GET % b"/status.json")).status == 500
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]
    await trio.sleep(serving.BUG_INTERVAL_SECONDS)
    assert (await ask(http, GET % b"/")).status == 500
    assert len(caplog.records) == 2


async def test_head_is_answered_with_the_head_alone(autojump_clock):
    head = await ask(server(), GET.replace(b"GET", b"HEAD") % b"/a", b"HEAD")
    get = await ask(server(), GET % b"/a")

    assert head.body == b""
    assert head.headers == get.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"])
async def test_only_get_and_head_are_answered(autojump_clock, method):
    found = await ask(server(), f"{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    assert (found.status, found.headers["allow"]) == (405, "GET, HEAD")
    assert found.headers["connection"] == "close"


@pytest.mark.parametrize(
    "fields", ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
async def test_a_request_with_content_is_refused_unread(autojump_clock, fields):
    found = await ask(server(), f"GET / HTTP/1.1\r\nHost: localhost\r\n{fields}".encode())

    assert (found.status, found.headers["connection"]) == (413, "close")


async def test_empty_content_is_none(autojump_clock):
    data = b"GET /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"

    assert (await ask(server(), data)).status == 200


async def test_a_head_without_end_is_refused_when_it_is_too_long(autojump_clock):
    data = b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * (2 * HEAD_BYTES_MAX)

    assert (await ask(server(), data)).status == 431


async def test_a_head_that_comes_whole_is_refused_when_it_is_too_long(autojump_clock):
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nA: "

    longest = await ask(server(), head + b"a" * (HEAD_BYTES_MAX - 60) + b"\r\n\r\n")
    assert longest.status == 200
    longer = await ask(server(), head + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n")
    assert (longer.status, longer.headers["connection"]) == (431, "close")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (GET % (b"/?" + b"&".join([b"a=b"] * 100)), 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_closed(
    autojump_clock, data, status
):
    found = await ask(server(), data)

    assert (found.status, found.headers["connection"]) == (status, "close")


async def test_a_server_that_dials_the_wrong_port_is_told_at_once(autojump_clock):
    ours, theirs = memory_stream_pair()
    begun_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server().handle, theirs)
        await ours.send_all(encode_frame(OPENING_MAGIC + b"x"))
        answer = await ours.receive_some()
        assert b"raftd and raftctl at `address`" in answer
        assert trio.current_time() == begun_at
        await ours.aclose()


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LOCALHOST:8101", True),
        ("n1.localhost:1", True),
        ("127.0.0.1:8101", True),
        ("10.1.2.3", True),
        ("[::1]:8101", True),
        ("n1.example.org:8101", True),
        ("N1.Example.ORG.:8101", True),
        ("example.org", False),
        ("n1.example.org.evil.test", False),
        ("localhost.evil.test", False),
        ("127.0.0.1.evil.test:8101", False),
        ("", False),
        ("[::1", False),
        ("user@localhost.evil.test", False),
    ],
)
def test_only_names_of_this_server_may_stand_in_host(host, allowed):
    assert is_host_allowed(host, HOSTS) is allowed


async def test_a_page_whose_name_was_bound_to_this_address_reads_nothing(autojump_clock):
    found = await ask(server(), b"GET / HTTP/1.1\r\nHost: evil.test:8101\r\n\r\n")

    assert (found.status, found.headers["connection"]) == (421, "close")
    assert b"not called evil.test:8101" in found.body


async def test_http_1_0_is_answered_and_the_connection_closed(autojump_clock):
    found = await ask(server(), b"GET /a HTTP/1.0\r\n\r\n")

    assert (found.status, found.body, found.headers["connection"]) == (200, b"/a {}", "close")


# --- what is bounded ----------------------------------------------------------------------------


async def test_a_connection_without_a_request_is_closed_in_silence(autojump_clock):
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server().handle, theirs)
        began = trio.current_time()
        assert await ours.receive_some() == b""
        assert trio.current_time() - began == pytest.approx(IDLE_SECONDS)


async def test_whoever_trickles_a_request_has_no_more_time_than_others(autojump_clock):
    ours, theirs = memory_stream_pair()
    received = b""

    async def trickle() -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for byte in GET % (b"/" + b"a" * 400):
                await ours.send_all(bytes([byte]))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server().handle, theirs)
        nursery.start_soon(trickle)
        began = trio.current_time()
        while piece := await ours.receive_some():
            received += piece
        nursery.cancel_scope.cancel()
    assert Received(received).status == 408
    assert trio.current_time() - began <= IDLE_SECONDS + serving.LINGER_SECONDS + 1


async def test_too_many_connections_are_told_so_and_still_more_are_closed(mock_clock):
    http = server()
    async with trio.open_nursery() as nursery:
        kept = []
        for _ in range(CONNECTIONS_MAX):
            ours, theirs = memory_stream_pair()
            nursery.start_soon(http.handle, theirs)
            kept.append(ours)
        await trio.testing.wait_all_tasks_blocked()
        refused = []
        for _ in range(REFUSALS_MAX + 1):
            ours, theirs = memory_stream_pair()
            nursery.start_soon(http.handle, theirs)
            refused.append(ours)
        await trio.testing.wait_all_tasks_blocked()
        said = [bytes(await ours.receive_some()) for ours in refused]
        assert said.count(b"") == 1
        assert {Received(each).status for each in said if each} == {503}
        # A place that is free again is there for the next one.
        await kept[0].aclose()
        for ours in refused:
            await ours.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await ask(http, GET % b"/a")).status == 200
        nursery.cancel_scope.cancel()


async def test_requests_beyond_the_rate_wait_for_their_turn(autojump_clock):
    http = server()
    count = REQUESTS_PER_SECOND_MAX // 4
    began = trio.current_time()

    await exchange(http, (GET % b"/a") * count)

    assert http.answers == {200: count}
    assert trio.current_time() - began == pytest.approx(0.25, rel=0.1)


# --- live answers -------------------------------------------------------------------------------


async def three_pieces(send: Send) -> None:
    for piece in (b"one ", b"two ", b"three"):
        await send(piece)
        await trio.sleep(1)


async def live(request: HttpRequest) -> Answer | Live:
    return Live(content_type="text/event-stream", run=three_pieces)


async def test_a_live_answer_comes_piece_by_piece(autojump_clock):
    found = await ask(server(live), GET % b"/events")

    assert (found.status, found.body) == (200, b"one two three")
    assert found.headers["transfer-encoding"] == "chunked"


async def test_the_head_of_a_live_answer_does_not_begin_it(autojump_clock):
    found = await ask(server(live), GET.replace(b"GET", b"HEAD") % b"/events", b"HEAD")

    assert (found.headers["content-type"], found.body) == ("text/event-stream", b"")


async def test_a_reader_that_does_not_read_is_dropped(autojump_clock):
    ours, theirs = memory_stream_pair()
    http = server(live)

    async def blocked() -> None:
        await trio.sleep_forever()

    assert isinstance(theirs.send_stream, MemorySendStream)
    theirs.send_stream.send_all_hook = blocked
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, GET % b"/events")
        await http.handle(theirs)
    assert trio.current_time() - began == pytest.approx(LIVE_SEND_SECONDS)
    assert http.connection_count == 0


async def test_a_reader_that_leaves_ends_its_answer(autojump_clock):
    ours, theirs = memory_stream_pair()
    http = server(live)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.handle, theirs)
        await ours.send_all(GET % b"/events")
        await ours.receive_some()
        await ours.aclose()
    assert http.connection_count == 0


# --- whatever comes -----------------------------------------------------------------------------

TOKENS = st.sampled_from(
    [
        *(GET % b"/a", GET % b"/events", GET.replace(b"GET", b"HEAD") % b"/a"),
        *(GET.replace(b"1.1", b"1.0") % b"/events", b"HEAD /events HTTP/1.0\r\n\r\n"),
        *(b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n\r\n\r\n"),
        *(b"GET ", b"HEAD ", b"POST ", b"/", b"/events", b"http://a/", b"*", b"?a=b", b"%zz"),
        *(b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b"\r\n", b"\n", b"\r\n\r\n", b"\0", b"\xff"),
        *(b"Host: localhost", b"Host: evil", b"Host:", b"Content-Length: 5", b"Connection: close"),
        *(b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: h2c", b"5\r\n", b"0"),
        *(b"Connection: upgrade", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"Content-Length: -1"),
    ]
)
GARBAGE = st.lists(TOKENS | st.binary(max_size=40), max_size=30).map(b"".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(pieces=st.lists(GARBAGE, min_size=1, max_size=5))
def test_no_bytes_end_the_server_or_leave_a_connection_behind(pieces):
    async def either(request: HttpRequest) -> Answer | Live:
        return await (live if request.path == "/events" else echo)(request)

    async def run() -> None:
        http = server(either)
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.handle, theirs)
            with contextlib.suppress(trio.BrokenResourceError):
                for piece in pieces:
                    await ours.send_all(piece)
                await ours.send_eof()
                while await ours.receive_some():
                    pass
        assert http.connection_count == 0
        assert set(http.answers) <= {int(status) for status in HTTPStatus}
        assert 500 not in http.answers

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_what_cannot_be_read_behind_a_request_for_a_head_is_refused_with_its_reason() -> None:
    head = GET.replace(b"GET", b"HEAD") % b"/"
    received = await exchange(server(), head + b"GET / HTTP/1.1\r\n\r\n")
    *_, refusal = received.split(b"HTTP/1.1 ")
    assert refusal.startswith(b"400 ")
    assert b"Host" in refusal.partition(b"\r\n\r\n")[2]
