"""HTTP/1.1 for a handful of readers: requests in, answers out, everything bounded.

Only GET and HEAD are answered, and no request has a body: nothing can be changed here. A connection
that misbehaves is told so and closed. All of it together takes so little of the process that the
driver does not notice it, however many ask (`REQUESTS_PER_SECOND_MAX`).

Source: RFC 9110, RFC 9112; framing by h11.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

import attrs
import h11
import trio

from raftd.codec import begins_as_opening
from raftd.http.secured import SecuredReaders
from raftd.network.accepting import serve_streams

logger = logging.getLogger("raftd.http")

CONNECTIONS_MAX = 64
"""Open connections: those that follow the status page, and as many others that ask and leave."""
REFUSALS_MAX = 16
"""Beyond, connections that are told that there are too many; any more are closed without a word."""
HEAD_BYTES_MAX = 16 * 1024
"""Of a request: several times what browsers send, also with cookies of others on this host."""
RECEIVE_BYTES = 16 * 1024
"""Asked of a stream at once."""
IDLE_SECONDS = 30.0
"""From the end of an answer, or the beginning of a connection, to the end of the next request."""
SEND_SECONDS = 30.0
"""For whoever reads an answer; live ones have less, see `LIVE_SEND_SECONDS`."""
LIVE_SEND_SECONDS = 10.0
"""A reader of live events that takes none of them for so long has gone, or is too slow for them."""
LINGER_SECONDS = 1.0
LINGER_BYTES_MAX = 256 * 1024
"""So much is read and thrown away after a refusal, or the system would take the refusal back."""
BUG_INTERVAL_SECONDS = 60.0
"""An error that nobody expects is told of so often: a page that is looked at asks each second."""
REQUESTS_PER_SECOND_MAX = 200
"""Of all connections together. One takes a third of a millisecond of the event loop that the driver
shares: all of them are a few hundredths of it. Whoever asks more often waits."""
QUERY_FIELDS_MAX = 16

SECURITY_HEADERS = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
)
"""With every answer: pages may use what this server has and nothing else, and be framed nowhere."""
TEXT = "text/plain; charset=utf-8"


@attrs.frozen(kw_only=True)
class HttpRequest:
    """A request that may be answered."""

    path: str
    """As it was sent, without the query."""
    query: Mapping[str, str] = attrs.field(factory=dict)
    """The last value of each field; empty for one without a value."""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """By name in lower case; only the last one of each."""


@attrs.frozen(kw_only=True)
class Answer:
    """An answer that is there as a whole."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    content_type: str = TEXT
    cache: str = "no-store"
    """What may be kept of it, as Cache-Control says it."""
    headers: tuple[tuple[str, str], ...] = ()


Send: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends a piece of a live answer. Raises trio.TooSlowError or trio.BrokenResourceError when the
reader does not read, or is gone: let it through."""


@attrs.frozen(kw_only=True)
class Live:
    """An answer that goes on until its reader leaves."""

    content_type: str
    run: Callable[[Send], Awaitable[None]]
    """Sends the pieces; when it returns, the answer is over."""


Respond: TypeAlias = Callable[[HttpRequest], Awaitable[Answer | Live]]


def text_answer(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer of plain text."""
    return Answer(status=status, body=(text + "\n").encode(), headers=headers)


def allowed_hosts(addresses: Iterable[str]) -> frozenset[str]:
    """Return the names of the hosts in `addresses`, HOST:PORT each, as `is_host_allowed` wants."""
    return frozenset(address.rpartition(":")[0].strip("[]").lower() for address in addresses)


def is_host_allowed(host: str, allowed: frozenset[str]) -> bool:
    """Return whether a Host field names this server rather than some page that was bound to it.

    A page of somebody else whose name leads to this address (DNS rebinding) has that name here,
    and would otherwise read whatever its visitor can reach. Addresses and localhost can be nobody
    else's name.

    Args:
        host: HOST or HOST:PORT, as it was sent.
        allowed: see `allowed_hosts`.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    name = name.rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in allowed:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class HttpServer:
    """Accepts connections and has their requests answered."""

    def __init__(
        self, respond: Respond, hosts: frozenset[str], readers: SecuredReaders | None = None
    ) -> None:
        """Prepare it; nothing is opened before `serve`.

        Args:
            respond: answers a request whose form is right.
            hosts: names that a Host field may have beside localhost and addresses.
            readers: shakes hands with everybody first; None for plain connections.
        """
        self._readers = readers
        self._bugs = Bugs()
        self._respond = respond
        self._hosts = hosts
        self.connection_count = 0
        """Open connections."""
        self.answers: dict[int, int] = {}
        """How many there were of each status, since the start."""
        self._free_at = 0.0
        """When the next request may be answered, by trio's clock."""

    async def serve(
        self,
        listeners: list[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve those who connect to `listeners` until cancelled; reports where that is."""

        def announce(addresses: list[str]) -> None:
            tls = "" if self._readers is None else " with TLS"
            logger.info("listening for HTTP clients%s on %s", tls, ", ".join(addresses))

        await serve_streams(listeners, self.handle, announce, task_status)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until it ends. Nothing that is sent on it raises."""
        self.connection_count += 1
        served: trio.abc.Stream | None = None
        try:
            if self.connection_count <= CONNECTIONS_MAX + REFUSALS_MAX:
                served = stream
                if self._readers is not None:
                    assert isinstance(stream, trio.SocketStream)
                    served = await self._readers.secured(stream)
                if served is not None:
                    await _Conversation(self, served).run()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            logger.debug("an HTTP connection ended: %r", error)
        finally:
            self.connection_count -= 1
            if served is not None:
                await trio.aclose_forcefully(served)
            await trio.aclose_forcefully(stream)

    @property
    def is_full(self) -> bool:
        """Whether there are more connections than there may be."""
        return self.connection_count > CONNECTIONS_MAX

    async def answer(self, request: HttpRequest) -> Answer | Live:
        """Have a request answered, when it is its turn."""
        now = trio.current_time()
        turn_at = max(now, self._free_at)
        self._free_at = turn_at + 1 / REQUESTS_PER_SECOND_MAX
        await trio.sleep_until(turn_at)
        try:
            return await self._respond(request)
        except Exception:
            # What shows the state must not end what keeps it: all servers show the same, and so
            # would end together.
            self._bugs.tell("the answer to an HTTP request failed")
            return text_answer(
                HTTPStatus.INTERNAL_SERVER_ERROR, "the answer failed; the server's log says how"
            )

    def count(self, status: int) -> None:
        """Note that an answer was sent."""
        self.answers[status] = self.answers.get(status, 0) + 1

    def refusal(self, event: h11.Request) -> Answer | None:
        """Return why a request is not answered, if that is seen from its head."""
        # What came in one piece was complete before the parser counted its bytes.
        if _head_bytes(event) > HEAD_BYTES_MAX:
            return text_answer(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the head of a request has at most {HEAD_BYTES_MAX:,} bytes here",
            )
        headers = _headers(event)
        host = headers.get("host", "")
        # Before HTTP/1.1 there was none; browsers always send it.
        if host and not is_host_allowed(host, self._hosts):
            return text_answer(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"this server is not called {_shown(host)}; use its address, or the host that "
                "`http` has in the cluster file",
            )
        if event.method not in (b"GET", b"HEAD"):
            allow = ("allow", "GET, HEAD")
            return text_answer(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", allow)
        if headers.get("content-length", "0").strip("0") or "transfer-encoding" in headers:
            return text_answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "requests have no content here")
        return None


def _head_bytes(event: h11.Request) -> int:
    """Return about how long the head of a request was."""
    fields = sum(len(name) + len(value) + len(b": \r\n") for name, value in event.headers)
    return len(event.target) + fields


class Bugs:
    """Tells of errors that nobody expects, and of one that comes again and again now and then."""

    def __init__(self) -> None:
        """Begin without any."""
        self._told_at = -BUG_INTERVAL_SECONDS

    def tell(self, what: str) -> None:
        """Log the exception that is being handled, unless one was logged lately."""
        now = trio.current_time()
        if now - self._told_at >= BUG_INTERVAL_SECONDS:
            self._told_at = now
            logger.exception("%s: this is a bug of raftd, and all else goes on", what)


class _Conversation:
    """One connection."""

    def __init__(self, server: HttpServer, stream: trio.abc.Stream) -> None:
        self._server = server
        self._stream = stream
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._is_head = False
        """Whether the request asks for the head of its answer alone."""

    async def run(self) -> None:
        """Answer one request after the other."""
        if self._server.is_full:
            await self._refuse(
                text_answer(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"{CONNECTIONS_MAX} connections are open already; try again later",
                    ("retry-after", "5"),
                )
            )
            return
        while True:
            # Of a request that cannot be read nobody knows what it would have asked for.
            self._is_head = False
            try:
                with trio.fail_after(IDLE_SECONDS):
                    event = await self._next_request()
            except trio.TooSlowError:
                if self._protocol.trailing_data[0]:
                    await self._refuse(
                        text_answer(
                            HTTPStatus.REQUEST_TIMEOUT,
                            f"the request was not complete within {IDLE_SECONDS:.0f} s",
                        )
                    )
                return
            except h11.RemoteProtocolError as error:
                status = HTTPStatus(error.error_status_hint)
                await self._refuse(text_answer(status, _shown(str(error))))
                return
            if event is None:
                return
            self._is_head = event.method == b"HEAD"
            refusal = self._server.refusal(event)
            if refusal is not None:
                await self._refuse(refusal)
                return
            await self._answer(event)
            if self._protocol.our_state is not h11.DONE:
                return
            if self._protocol.their_state is not h11.DONE:
                return
            self._protocol.start_next_cycle()

    async def _next_request(self) -> h11.Request | None:
        """Return the head of the next request; None if the client has left."""
        while True:
            event = self._protocol.next_event()
            if event is h11.NEED_DATA:
                received = await self._stream.receive_some(RECEIVE_BYTES)
                if begins_as_opening(received):
                    raise h11.RemoteProtocolError(
                        "HTTP clients are answered here, raftd and raftctl at `address`"
                    )
                self._protocol.receive_data(bytes(received))
            elif isinstance(event, h11.Request):
                return event
            else:
                return None

    async def _answer(self, event: h11.Request) -> None:
        """Answer a request that has no content: its end is known already."""
        ended = self._protocol.next_event()
        assert isinstance(ended, h11.EndOfMessage)
        try:
            target = urlsplit(event.target.decode("ascii"))
            query = parse_qsl(target.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
        except ValueError:
            await self._refuse(text_answer(HTTPStatus.BAD_REQUEST, "the target cannot be read"))
            return
        request = HttpRequest(path=target.path, query=dict(query), headers=_headers(event))
        answer = await self._server.answer(request)
        if isinstance(answer, Answer):
            await self._send_whole(answer, ())
        elif self._is_head:
            # Its head says all that there is to say of it.
            head = Answer(content_type=answer.content_type)
            await self._send_whole(head, (("connection", "close"),))
        else:
            await self._send_live(answer)

    async def _refuse(self, answer: Answer) -> None:
        """Say why, and let the other side read it before the connection is closed."""
        if self._protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self._send_whole(answer, (("connection", "close"),))
        with trio.move_on_after(LINGER_SECONDS):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            left_bytes = LINGER_BYTES_MAX
            while left_bytes > 0:
                received = await self._stream.receive_some(RECEIVE_BYTES)
                if not received:
                    return
                left_bytes -= len(received)

    async def _send_whole(self, answer: Answer, more: tuple[tuple[str, str], ...]) -> None:
        response = h11.Response(
            status_code=answer.status,
            reason=answer.status.phrase,
            headers=[
                ("content-type", answer.content_type),
                ("content-length", str(len(answer.body))),
                ("cache-control", answer.cache),
                *SECURITY_HEADERS,
                *answer.headers,
                *more,
            ],
        )
        self._server.count(answer.status)
        pieces = [self._protocol.send(response)]
        if not self._is_head and answer.status is not HTTPStatus.NOT_MODIFIED:
            pieces.append(self._protocol.send(h11.Data(data=answer.body)))
        pieces.append(self._protocol.send(h11.EndOfMessage()))
        with trio.fail_after(SEND_SECONDS):
            await self._stream.send_all(b"".join(piece for piece in pieces if piece))

    async def _send_live(self, answer: Live) -> None:
        response = h11.Response(
            status_code=HTTPStatus.OK,
            reason="OK",
            headers=[
                ("content-type", answer.content_type),
                ("cache-control", "no-store"),
                *SECURITY_HEADERS,
            ],
        )
        self._server.count(HTTPStatus.OK)
        await self._send(self._protocol.send(response))

        async def send(piece: bytes) -> None:
            await self._send(self._protocol.send(h11.Data(data=piece)))

        await answer.run(send)
        await self._send(self._protocol.send(h11.EndOfMessage()))

    async def _send(self, piece: bytes | None) -> None:
        with trio.fail_after(LIVE_SEND_SECONDS):
            await self._stream.send_all(piece or b"")


def _headers(event: h11.Request) -> dict[str, str]:
    return {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}


def _shown(text: str) -> str:
    """Return what a stranger sent so that it can be sent back."""
    return "".join(character if character.isprintable() else "?" for character in text)[:200]
