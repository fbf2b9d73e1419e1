"""Connections of `AsyncClient` over real sockets: what is wrong is said as the blocking ones do."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from pathlib import Path

import pytest
import trio

from raftd.client import AsyncClient, CertificateRefused, Client, NotApplied
from raftd.client.errors import ConnectionProblem
from raftd.client.links import open_link
from raftd.codec import encode_frame, encode_opening
from raftd.protocol import DoneReply, GetReply, Hello, OpenSessionRequest, Refusal, WriteReply
from raftd.tls import CurrentCredentials
from tests.certificates import TestAuthority
from tests.client.network import Server, answering
from tests.raftctl.speaking_servers import closed_address, speaking_servers


async def _problem_at(address: str) -> ConnectionProblem:
    with trio.fail_after(10), pytest.raises(ConnectionProblem) as raised:
        await open_link(address, None)
    return raised.value


async def test_a_closed_port_is_connection_refused() -> None:
    problem = await _problem_at(closed_address())
    assert (problem.kind, str(problem), problem.sent) == ("refused", "connection refused", False)


async def test_a_host_name_that_does_not_exist_is_named() -> None:
    problem = await _problem_at("no-such-host.invalid:7101")
    assert problem.kind == "unresolved"
    assert "no-such-host.invalid" in str(problem)


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xff\xff\xff",
        encode_frame(encode_opening(Hello(role="client", cluster_id="", source="", dest=""))),
    ],
    ids=["closed", "http", "huge", "a client"],
)
async def test_something_else_that_listens_is_told_apart(greeting: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(greeting)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        _, port = listeners[0].socket.getsockname()[:2]
        problem = await _problem_at(f"127.0.0.1:{port}")
        nursery.cancel_scope.cancel()
    assert problem.kind == "not-raftd"


async def test_a_refused_greeting_says_why() -> None:
    with speaking_servers("n1/a") as [server]:
        server.refusal = Refusal(code="busy", message="too many connections")
        problem = await _problem_at(server.address)
    assert (problem.kind, "too many connections" in str(problem)) == ("refusal", True)


async def test_a_listener_that_hangs_does_not_use_up_the_time_of_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging, speaking_servers("n2/b") as [server]:
        server.answer = lambda request: GetReply(found=False)
        address = f"127.0.0.1:{hanging.getsockname()[1]}"
        async with AsyncClient([address, server.address], timeout_ms=1_000) as client:
            assert await client.get("k") is None
        async with AsyncClient([address], timeout_ms=100) as client:
            with pytest.raises(NotApplied, match="no connection within"):
                await client.get("k")


async def test_real_sockets_carry_reads_and_writes() -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: (
            DoneReply()
            if isinstance(request, OpenSessionRequest)
            else WriteReply(applied=True, revision=1)
        )
        async with AsyncClient([server.address]) as client, trio.open_nursery() as tasks:
            for number in range(20):
                tasks.start_soon(client.put, f"k{number}", b"v" * 100_000)
    assert len(server.requests) == 21


# --- TLS --------------------------------------------------------------------------------------


async def test_both_clients_speak_tls_with_a_context_of_the_standard_library(
    tmp_path: Path,
) -> None:
    authority = TestAuthority(tmp_path)
    own = authority.application()
    tls = ssl.create_default_context(cafile=str(authority.ca))
    tls.load_cert_chain(own.cert, own.key)
    without = ssl.create_default_context(cafile=str(authority.ca))
    server = Server("n1", "")
    server.handle = answering(GetReply(found=True, value=b"v"))
    credentials = CurrentCredentials(authority.server("n1"), "n1").now

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_ssl_over_tcp, server.serve, 0, credentials.native, host="127.0.0.1")
        )
        _, port = listeners[0].transport_listener.socket.getsockname()[:2]
        addresses = [f"127.0.0.1:{port}"]

        def ask(context: ssl.SSLContext | None) -> bytes:
            with Client(addresses, tls=context, timeout_ms=2_000) as client:
                found = client.get("k")
                assert found is not None
                return found.value

        assert await trio.to_thread.run_sync(ask, tls) == b"v"
        async with AsyncClient(addresses, tls=tls) as client:
            found = await client.get("k")
            assert found is not None
            assert found.value == b"v"
        with pytest.raises(CertificateRefused):
            await trio.to_thread.run_sync(ask, without)
        async with AsyncClient(addresses, tls=without) as client:
            with pytest.raises(CertificateRefused):
                await client.get("k")
        nursery.cancel_scope.cancel()
