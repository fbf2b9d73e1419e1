"""Contacts: a few requests to somebody, and each way to fail in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from trio.testing import MockClock

from raftd.codec import decode_opening, decode_request, encode_opening, encode_reply
from raftd.network.dialling import dial_tcp
from raftd.network.inputs import Contacted, Requested
from raftd.network.network import CONTACTS_KEPT_FOR_JOINS, CONTACTS_MAX
from raftd.protocol import (
    DoneReply,
    ErrorReply,
    JoinRequest,
    Refusal,
    StatusRequest,
    Welcome,
    WriteReply,
)
from tests.network.harness import CLIENT_HELLO, CLUSTER, Fabric, Server, Stranger, silence

WELCOME = Welcome(server="n4/d", cluster_id="", version=1)
JOIN = JoinRequest(cluster_id=CLUSTER, cluster_name="orders", name="n4", incarnation="d")


async def contacted(
    nursery: trio.Nursery,
    answer: Callable[[Stranger], Awaitable[None]] | None,
    *requests: StatusRequest | JoinRequest,
) -> Contacted:
    fabric = Fabric(nursery)
    server = fabric.server("n1/a")
    if answer is not None:

        async def greeted(stream: trio.abc.Stream) -> None:
            await Stranger(stream).receive()
            await answer(Stranger(stream))

        fabric.answers["n4:1"] = greeted
    await nursery.start(server.network.run)
    server.network.contact("token", "n4:1", requests, 2000)
    (result,) = await server.take(Contacted)
    assert result.token == "token"
    nursery.cancel_scope.cancel()
    return result


async def test_requests_are_sent_in_order_and_the_last_reply_is_told(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    asked: list[object] = []

    async def answer(peer: Stranger) -> None:
        await peer.send(encode_opening(WELCOME))
        for revision in (1, 2):
            number, request = decode_request(await peer.receive())
            asked.append(request)
            await peer.send(encode_reply(number, WriteReply(applied=True, revision=revision)))

    result = await contacted(nursery, answer, StatusRequest(), JOIN)

    assert asked == [StatusRequest(), JOIN]
    assert result == Contacted(
        token="token", reply=WriteReply(applied=True, revision=2), welcome=WELCOME, problem=""
    )


async def test_the_quickest_answer_is_the_round_trip(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def answer(peer: Stranger) -> None:
        await trio.sleep(0.3)
        await peer.send(encode_opening(WELCOME))
        for seconds in (0.2, 0.05, 0.1):
            number, _ = decode_request(await peer.receive())
            await trio.sleep(seconds)
            await peer.send(encode_reply(number, DoneReply()))

    result = await contacted(nursery, answer, *3 * (StatusRequest(),))
    assert result.round_trip_ms == pytest.approx(50)


async def test_without_an_answer_there_is_no_round_trip(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    assert (await contacted(nursery, None, StatusRequest())).round_trip_ms is None


async def test_a_contact_says_which_server_asks(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    server = fabric.server("n1/a")
    heard: list[object] = []

    async def answer(stream: trio.abc.Stream) -> None:
        heard.append(decode_opening(await Stranger(stream).receive()))
        await stream.aclose()

    fabric.answers["n4:1"] = answer
    await nursery.start(server.network.run)
    for server.blank in (False, True):
        server.network.contact("token", "n4:1", (), 2000)
        await server.take(Contacted)
    assert heard == [attrs.evolve(CLIENT_HELLO, source="n1/a"), CLIENT_HELLO]


async def test_without_requests_it_only_asks_who_is_there(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def answer(peer: Stranger) -> None:
        await peer.send(encode_opening(WELCOME))

    result = await contacted(nursery, answer)
    assert result == Contacted(token="token", reply=None, welcome=WELCOME, problem="")


async def test_an_error_is_the_last_reply(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    error = ErrorReply(code="refused", message="already in another cluster")

    async def answer(peer: Stranger) -> None:
        await peer.send(encode_opening(WELCOME))
        number, _ = decode_request(await peer.receive())
        await peer.send(encode_reply(number, error))
        await peer.receive_end()

    result = await contacted(nursery, answer, JOIN, StatusRequest())
    assert result.reply == error
    assert result.problem == ""


async def test_nobody_there(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    result = await contacted(nursery, None, JOIN)
    assert result.problem == "connecting to n4:1: connection refused"
    assert result.reply is None
    assert result.welcome is None


async def test_silence_instead_of_a_welcome(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def answer(peer: Stranger) -> None:
        await trio.sleep_forever()

    result = await contacted(nursery, answer, JOIN)
    assert result.problem == "greeting n4:1: no answer for 2.0 s"
    assert trio.current_time() == pytest.approx(2)


async def test_silence_instead_of_a_reply(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def answer(peer: Stranger) -> None:
        await peer.send(encode_opening(WELCOME))
        await trio.sleep_forever()

    result = await contacted(nursery, answer, JOIN)
    assert result.problem == "waiting for n4:1 to answer JoinRequest: no answer for 2.0 s"
    assert result.welcome == WELCOME


async def test_a_refusal(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    refusal = Refusal(code="busy", message="too many connections")

    async def answer(peer: Stranger) -> None:
        await peer.send(encode_opening(refusal))

    result = await contacted(nursery, answer, JOIN)
    assert result.problem == "greeting n4:1: refused: too many connections"
    assert result.refusal == refusal


async def test_no_raftd(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def answer(peer: Stranger) -> None:
        await peer.stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")

    result = await contacted(nursery, answer, JOIN)
    assert result.problem.startswith("greeting n4:1: it does not speak the protocol of raftd")


async def test_a_connection_that_is_closed_instead_of_a_welcome(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def answer(peer: Stranger) -> None:
        await peer.stream.aclose()

    result = await contacted(nursery, answer, JOIN)
    assert result.problem == "greeting n4:1: it closed the connection without a greeting"


async def test_a_connection_that_is_closed_instead_of_a_reply(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def answer(peer: Stranger) -> None:
        await peer.send(encode_opening(WELCOME))
        await peer.receive()
        await peer.stream.aclose()

    result = await contacted(nursery, answer, JOIN)
    assert result.problem == "waiting for n4:1 to answer JoinRequest: it closed the connection"


@pytest.mark.parametrize("payload", [b"garbage", encode_reply(99, DoneReply())])
async def test_garbage_instead_of_a_reply(
    nursery: trio.Nursery, autojump_clock: MockClock, payload: bytes
) -> None:
    async def answer(peer: Stranger) -> None:
        await peer.send(encode_opening(WELCOME))
        await peer.receive()
        await peer.send(payload)

    result = await contacted(nursery, answer, JOIN)
    assert result.problem.startswith(
        "waiting for n4:1 to answer JoinRequest: it does not speak the protocol of raftd"
    )
    assert result.reply is None


async def test_an_address_that_is_none(nursery: trio.Nursery) -> None:
    server = Server("n1/a", dial_tcp)
    await nursery.start(server.network.run)
    for address in ("localhost", "localhost:", ":7101", "host:70000", "host:²", "host:-1"):
        server.network.contact("token", address, (), 2000)
        (result,) = await server.take(Contacted)
        assert (
            result.problem == f"connecting to {address}: {address!r} is not of the form HOST:PORT"
        )


async def test_a_contact_reaches_a_real_listener(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n4 = fabric.server("n1/a"), fabric.server("n4/d", "n4:1")
    await nursery.start(n1.network.run)

    n1.network.contact("token", "n4:1", [JOIN], 2000)

    (requested,) = await n4.take(Requested)
    assert requested.request == JOIN
    requested.respond(DoneReply())
    (result,) = await n1.take(Contacted)
    assert result.reply == DoneReply()
    assert result.welcome == Welcome(server="n4/d", cluster_id=CLUSTER, version=1)


async def test_contacts_beyond_the_bound_are_told_so_at_once(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    server = fabric.server("n1/a")
    fabric.answers["n4:1"] = silence
    await nursery.start(server.network.run)

    usual = CONTACTS_MAX - CONTACTS_KEPT_FOR_JOINS
    for number in range(usual + 1):
        server.network.contact(number, "n4:1", (StatusRequest(),), 2000)

    (surplus,) = await server.take(Contacted)
    assert surplus.token == usual
    assert f"{usual} contacts are under way" in surplus.problem
    assert not surplus.tried
    # A change that runs does not wait for those that only ask.
    for number in range(CONTACTS_KEPT_FOR_JOINS + 1):
        server.network.contact(-number, "n4:1", (JOIN,), 2000)
    (surplus,) = await server.take(Contacted)
    assert surplus.token == -CONTACTS_KEPT_FOR_JOINS
    assert f"{CONTACTS_MAX} contacts are under way" in surplus.problem
    assert all(contacted.tried for contacted in await server.take(Contacted, CONTACTS_MAX))
