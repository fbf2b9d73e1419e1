"""Certificates on connections of the native protocol: who gets in, as whom, and what they may ask.

Real sockets: what a certificate is worth shows in the handshake.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import attrs
import pytest
import trio

from raftd.certificate_files import TlsFiles
from raftd.codec import decode_reply, encode_request
from raftd.core.messages import AppendEntries, Envelope
from raftd.network import secured as secured_module
from raftd.network.complaints import COMPLAINTS_PER_HOST_MAX
from raftd.network.connection import OpeningError
from raftd.network.dialling import DialError, connect, dial_tcp, introduce, split_address
from raftd.network.inputs import Contacted, Requested
from raftd.network.secured import Handshakes, dial_tls
from raftd.network.secured_stream import RECORD_BYTES, SecuredStream
from raftd.protocol import (
    ErrorReply,
    GetRequest,
    Hello,
    JoinRequest,
    PutRequest,
    Refusal,
    Request,
    StatusRequest,
    TransferRequest,
    Welcome,
)
from raftd.roles import ALLOWED, FORBIDDEN
from raftd.tls import ADMIN, APPLICATION, SERVER, CurrentCredentials, client_context
from tests.certificates import OVER, TestAuthority
from tests.network.harness import CLIENT_HELLO, Server, Stranger, hello_of, linked, until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("foreign"), "another CA")


def server_of(authority: TestAuthority, name: str, **options: object) -> Server:
    files = authority.server(name, **options)
    return Server(f"{name}/a", dial_tcp, credentials=CurrentCredentials(files, name))


async def start(nursery: trio.Nursery, server: Server) -> str:
    await nursery.start(server.network.run)
    (address,) = await nursery.start(server.network.serve, "127.0.0.1:0")
    assert isinstance(address, str)
    return address


class Dialler:
    """Makes connections, and closes them when the test is over."""

    def __init__(self) -> None:
        self._streams: list[trio.SocketStream] = []

    async def __call__(
        self,
        address: str,
        ca: Path,
        own: TlsFiles | None,
        version: ssl.TLSVersion | None = None,
    ) -> Stranger:
        """Return a connection with the certificate of `own`; our side's handshake is over."""
        stream = await dial_tcp(address)
        assert isinstance(stream, trio.SocketStream)
        self._streams.append(stream)
        context = client_context(ca, own)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        host, _ = split_address(address)
        secured = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        await secured.do_handshake()
        return Stranger(secured)

    async def close(self) -> None:
        for stream in self._streams:
            await trio.aclose_forcefully(stream)


@pytest.fixture
async def dial() -> AsyncIterator[Dialler]:
    dialler = Dialler()
    yield dialler
    await dialler.close()


# --- who gets in ----------------------------------------------------------------------------------


async def test_servers_speak_over_tls_and_name_each_other_by_their_certificates(
    nursery: trio.Nursery, authority: TestAuthority
) -> None:
    n1, n2 = server_of(authority, "n1"), server_of(authority, "n2")
    addresses = {"n1/a": await start(nursery, n1), "n2/a": await start(nursery, n2)}
    for server in (n1, n2):
        server.network.set_members(addresses)
    await until(lambda: linked(n1, "n2/a") and linked(n2, "n1/a"))
    n1.send("n2/a", AppendEntries(1, 0, 0, (), 0, 1))
    assert await n2.receive() == [Envelope("n1/a", "n2/a", AppendEntries(1, 0, 0, (), 0, 1))]
    connection = n2.network.listener.peers["n1/a"]
    assert isinstance(connection._stream, SecuredStream)


@pytest.mark.parametrize(
    ("who", "logged"),
    [
        ("nobody", "it shows no certificate"),
        ("foreign", "its certificate is not signed by our CA"),
        ("expired", "its certificate has expired"),
        ("plain", "it does not speak TLS"),
        ("old tls", "it speaks older versions of TLS only"),
    ],
)
async def test_who_shows_no_good_certificate_does_not_even_get_to_say_hello(
    nursery: trio.Nursery,
    dial: Dialler,
    authority: TestAuthority,
    foreign: TestAuthority,
    caplog: pytest.LogCaptureFixture,
    who: str,
    logged: str,
) -> None:
    n1 = server_of(authority, "n1")
    address = await start(nursery, n1)
    own = {
        "foreign": foreign.admin,
        "expired": lambda: authority.admin(stem="expired", valid=OVER),
        "old tls": authority.admin,
    }.get(who)
    version = ssl.TLSVersion.TLSv1_2 if who == "old tls" else None

    async def call() -> None:
        if who == "plain":
            await introduce(await connect(dial_tcp, address), CLIENT_HELLO)
        else:
            stranger = await dial(address, authority.ca, own() if own else None, version)
            await stranger.greet(CLIENT_HELLO)

    with caplog.at_level(logging.WARNING, "raftd.network"), trio.fail_after(10):
        with pytest.raises(
            (trio.BrokenResourceError, EOFError, OpeningError, DialError)
        ) as refused:
            await call()
        if who == "plain":
            assert "refused: it speaks TLS, and wants to see a certificate" in str(refused.value)
        await until(lambda: logged in caplog.text)


async def test_a_host_that_is_refused_again_and_again_does_not_fill_the_log(
    nursery: trio.Nursery,
    dial: Dialler,
    authority: TestAuthority,
    foreign: TestAuthority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    n1 = server_of(authority, "n1")
    address = await start(nursery, n1)
    own = foreign.admin()
    for _ in range(COMPLAINTS_PER_HOST_MAX + 2):
        stranger = await dial(address, authority.ca, own)
        with pytest.raises((trio.BrokenResourceError, EOFError)):
            await stranger.greet(CLIENT_HELLO)
    await until(lambda: n1.network.listener._complaints._untold == 2)
    lines = [record for record in caplog.records if "not signed by our CA" in record.getMessage()]
    assert len(lines) == COMPLAINTS_PER_HOST_MAX


# --- as whom --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "name", "hello", "welcome"),
    [
        (SERVER, "n2", hello_of("n2/b", "n1/a"), True),
        (SERVER, "n3", hello_of("n2/b", "n1/a"), False),
        (ADMIN, "n2", hello_of("n2/b", "n1/a"), False),
        (APPLICATION, "n2", hello_of("n2/b", "n1/a"), False),
        (SERVER, "n2", attrs.evolve(CLIENT_HELLO, source="n2/b"), True),
        (SERVER, "n3", attrs.evolve(CLIENT_HELLO, source="n2/b"), False),
        (ADMIN, "n2", attrs.evolve(CLIENT_HELLO, source="n2/b"), False),
        (SERVER, "n2", CLIENT_HELLO, True),
        (ADMIN, "alice", CLIENT_HELLO, True),
        (APPLICATION, "orders", CLIENT_HELLO, True),
    ],
)
async def test_only_the_certificate_of_a_server_speaks_for_it(
    nursery: trio.Nursery,
    dial: Dialler,
    authority: TestAuthority,
    caplog: pytest.LogCaptureFixture,
    role: str,
    name: str,
    hello: Hello,
    welcome: bool,
) -> None:
    n1 = server_of(authority, "n1")
    address = await start(nursery, n1)
    own = authority.issue(role, name, stem=f"{role}-{name}")
    answer = await (await dial(address, authority.ca, own)).greet(hello)
    if welcome:
        assert isinstance(answer, Welcome)
    else:
        assert isinstance(answer, Refusal)
        assert answer.code == FORBIDDEN
        assert f"needs the certificate of server n2, and shows that of {role} {name}" in (
            answer.message
        )
        assert answer.message in caplog.text


async def test_a_certificate_of_our_ca_that_says_no_role_is_refused_with_the_reason(
    nursery: trio.Nursery, dial: Dialler, authority: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    n1 = server_of(authority, "n1")
    address = await start(nursery, n1)
    monkeypatch.setattr("raftctl.certificates.uri_of", lambda holder: "urn:example:server:n2")
    own = authority.server("none")
    answer = await (await dial(address, authority.ca, own)).greet(CLIENT_HELLO)
    assert isinstance(answer, Refusal)
    assert answer.code == FORBIDDEN
    assert "says no role" in answer.message


async def test_a_server_does_not_talk_to_one_whose_certificate_names_another(
    nursery: trio.Nursery, authority: TestAuthority
) -> None:
    n1, impostor = server_of(authority, "n1"), server_of(authority, "n3")
    impostor.id = "n2/a"
    n1.network.set_members({"n2/a": await start(nursery, impostor)})
    await start(nursery, n1)
    link = n1.network._links["n2/a"]
    with trio.fail_after(10):
        await until(lambda: "that of server n3, not of n2" in (link._problem or ""))


@pytest.mark.parametrize(
    ("role", "hosts", "problem"),
    [
        (APPLICATION, ("127.0.0.1",), "not meant for this purpose"),
        (SERVER, ("n9.example.org",), "its certificate is not one for '127.0.0.1'"),
        (SERVER, ("127.0.0.1",), ""),
    ],
)
async def test_a_stranger_that_is_asked_has_to_be_a_server_for_the_host_that_was_dialled(
    nursery: trio.Nursery, authority: TestAuthority, role: str, hosts: tuple[str, ...], problem: str
) -> None:
    n1, n9 = server_of(authority, "n1"), server_of(authority, "n9")
    await start(nursery, n1)
    credentials = n9.network.listener._credentials
    assert credentials is not None
    files = authority.issue(role, "n9", hosts=hosts, stem=f"{role}-{len(hosts[0])}")
    native = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    native.load_cert_chain(files.cert, files.key)
    credentials.now = attrs.evolve(credentials.now, native=native)
    address = await start(nursery, n9)
    with trio.fail_after(10):
        n1.network.contact("token", address, (), 2_000)
        (contacted,) = await n1.take(Contacted)
    if problem:
        assert problem in contacted.problem
    else:
        # It was dialled well, and misses our certificate, which it never asked for.
        assert "its certificate" not in contacted.problem


async def test_who_dials_learns_that_its_own_certificate_was_refused(
    nursery: trio.Nursery, authority: TestAuthority, foreign: TestAuthority
) -> None:
    n1 = server_of(authority, "n1")
    address = await start(nursery, n1)
    files = foreign.server("n2")
    credentials = CurrentCredentials(files, "n2")
    trusting = client_context(authority.ca, files)
    credentials.now = attrs.evolve(credentials.now, members=trusting, strangers=trusting)
    with pytest.raises(DialError, match="it does not know the CA of the certificate that it was"):
        await introduce(await connect(dial_tls(credentials, "n1"), address), CLIENT_HELLO)


# --- what they may ask ----------------------------------------------------------------------------

RIGHTS = {
    "StatusRequest": {SERVER, ADMIN, APPLICATION},
    "GetRequest": {ADMIN, APPLICATION},
    "ListRequest": {ADMIN, APPLICATION},
    "OpenSessionRequest": {ADMIN, APPLICATION},
    "PutRequest": {ADMIN, APPLICATION},
    "DeleteRequest": {ADMIN, APPLICATION},
    "CompareAndSetRequest": {ADMIN, APPLICATION},
    "TransactionRequest": {ADMIN, APPLICATION},
    "WatchRequest": {ADMIN, APPLICATION},
    "ReadIndexRequest": {ADMIN, APPLICATION},
    "ChangeRequest": {ADMIN},
    "OperationsRequest": {ADMIN},
    "AbortRequest": {ADMIN},
    "TransferRequest": {ADMIN},
    "BootstrapRequest": {ADMIN},
    "JoinRequest": {SERVER, ADMIN},
    "BackupRequest": {ADMIN},
    "BackupChunkRequest": {ADMIN},
    "RestoreRequest": {ADMIN},
    "HistoryRequest": {ADMIN},
    "BeginRollingRequest": {ADMIN},
    "UpdateRollingRequest": {ADMIN},
    "CheckupRequest": {ADMIN},
    "LogLevelRequest": {ADMIN},
    "ActivityRequest": {SERVER, ADMIN},
}
"""Whoever adds a kind of request decides here, and in `raftd.roles`, who may make it."""


def test_every_kind_of_request_is_decided_on_for_every_role() -> None:
    kinds: dict[str, type[Request]] = {kind.__name__: kind for kind in get_args(Request)}
    assert set(kinds) == set(RIGHTS)
    found = {
        name: {role for role, allowed in ALLOWED.items() if kind in allowed}
        for name, kind in kinds.items()
    }
    assert found == RIGHTS


REQUESTS: dict[str, Request] = {
    "status": StatusRequest(),
    "get": GetRequest(key="k"),
    "put": PutRequest(session="s", serial=1, lowest_unacknowledged=1, key="k", value=b"v"),
    "transfer": TransferRequest(),
    "join": JoinRequest(cluster_id="c", cluster_name="c", name="n1", incarnation="a"),
}


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (SERVER, {"status", "join"}),
        (ADMIN, {"status", "get", "put", "transfer", "join"}),
        (APPLICATION, {"status", "get", "put"}),
    ],
)
async def test_a_role_is_served_what_it_may_ask_and_told_what_it_may_not(
    nursery: trio.Nursery, dial: Dialler, authority: TestAuthority, role: str, allowed: set[str]
) -> None:
    n1 = server_of(authority, "n1")
    address = await start(nursery, n1)
    own = authority.issue(role, "x1", stem=f"{role}-x1")
    client = await dial(address, authority.ca, own)
    assert isinstance(await client.greet(CLIENT_HELLO), Welcome)
    await client.send(
        *(encode_request(number, request) for number, request in enumerate(REQUESTS.values(), 1))
    )
    served = await n1.take(Requested, len(allowed))
    assert {type(each.request) for each in served} == {type(REQUESTS[name]) for name in allowed}
    names = dict(enumerate(REQUESTS, 1))
    refused = {}
    for _ in range(len(REQUESTS) - len(allowed)):
        number, reply = decode_reply(await client.receive())
        assert isinstance(reply, ErrorReply)
        refused[names[number]] = reply
    assert set(refused) == set(REQUESTS) - allowed
    for reply in refused.values():
        assert reply.code == FORBIDDEN
        assert f"is not for the role {role}" in reply.message
        assert "this needs the role" in reply.cause


# --- limits ---------------------------------------------------------------------------------------


async def test_who_does_not_shake_hands_is_left_after_a_while(
    nursery: trio.Nursery,
    authority: TestAuthority,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(secured_module, "TLS_HANDSHAKE_TIMEOUT_SECONDS", 0.05)
    n1 = server_of(authority, "n1")
    stream = await dial_tcp(await start(nursery, n1))
    with trio.fail_after(10):
        assert await stream.receive_some(1) == b""
        await until(lambda: "no TLS handshake for" in caplog.text)
    await stream.aclose()


async def test_one_host_leaves_room_for_the_handshakes_of_others(autojump_clock: object) -> None:
    handshakes = Handshakes()
    under_way: list[str] = []

    async def hold(host: str) -> None:
        async with handshakes.turn(host):
            under_way.append(host)
            await trio.sleep(10)
            under_way.remove(host)

    async with trio.open_nursery() as nursery:
        for _ in range(3 * secured_module.HANDSHAKES_MAX):
            nursery.start_soon(hold, "10.0.0.1")
        await trio.sleep(1)
        assert len(under_way) == secured_module.HANDSHAKES_PER_HOST_MAX
        nursery.start_soon(hold, "10.0.0.2")
        await trio.sleep(1)
        assert "10.0.0.2" in under_way
        for number in range(3, 200):
            nursery.start_soon(hold, f"10.0.0.{number}")
        await trio.sleep(1)
        assert len(under_way) == secured_module.HANDSHAKES_MAX
    assert under_way == []
    assert handshakes._hosts == {}


# --- bytes ----------------------------------------------------------------------------------------


@pytest.fixture
async def pair(
    nursery: trio.Nursery, authority: TestAuthority
) -> AsyncIterator[tuple[SecuredStream, SecuredStream]]:
    """Both ends of one connection: that of the server n1, and that of an administrator."""
    credentials = CurrentCredentials(authority.server("n1"), "n1")
    accepted: list[SecuredStream] = []

    async def serve(stream: trio.SocketStream) -> None:
        secured = await secured_module.accept(stream, credentials.now.native, Handshakes())
        accepted.append(secured.stream)
        await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, listeners)
    stream = await dial_tcp(f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
    assert isinstance(stream, trio.SocketStream)
    context = client_context(authority.ca, authority.admin())
    client = secured_module._secured(stream, context, "127.0.0.1")
    await client.shake_hands()
    await until(lambda: bool(accepted))
    yield accepted[0], client
    client.close()
    accepted[0].close()
    nursery.cancel_scope.cancel()


async def test_what_is_sent_piecemeal_without_waiting_arrives_whole(
    pair: tuple[SecuredStream, SecuredStream],
) -> None:
    # Far more than the kernel takes, so that many pieces are offered again, and longer each time.
    server, client = pair
    content = bytes(range(256)) * (16 * 1024)
    left, grown = memoryview(content)[: 1024 * 1024], len(content) - 1024 * 1024
    received = bytearray()
    while len(received) < len(content):
        try:
            left = left[server.send(left) :]
        except BlockingIOError:
            if grown:
                end = len(content) - grown
                step = min(grown, 300_000)
                left = memoryview(bytes(left) + content[end : end + step])
                grown -= step
        else:
            if not left and grown:
                left, grown = memoryview(content)[len(content) - grown :], 0
        while True:
            try:
                received += client.recv(64 * 1024)
            except BlockingIOError:
                break
    assert bytes(received) == content
    client.close()
    with trio.fail_after(10):
        assert await server.receive_some() == b""


async def test_a_read_leaves_nothing_behind_that_a_set_of_sockets_does_not_know(
    pair: tuple[SecuredStream, SecuredStream],
) -> None:
    server, client = pair
    await client.send_all(bytes(100_000))
    with trio.fail_after(10):
        total = 0
        while total < 100_000:
            total += len(await server.receive_some(RECORD_BYTES))
            assert server._socket.pending() == 0
