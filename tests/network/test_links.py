"""Links between servers: kept up, bounded, independent of each other."""

from __future__ import annotations

import itertools
import logging

import attrs
import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from raftd.codec import OPENING_MAGIC, decode_message, encode_message, encode_opening
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    Message,
    PreVote,
    PreVoteResponse,
    ReadIndex,
    RequestVoteResponse,
    StateCheck,
    StateMessage,
    TimeoutNow,
)
from raftd.core.types import Entry, EntryKind
from raftd.network import links
from raftd.network.connection import WRITE_STALL_TIMEOUT_SECONDS
from raftd.network.inputs import LinkChanged, PeerRefused
from raftd.network.links import (
    DIAL_TIMEOUT_SECONDS,
    LINES_MAX,
    LINES_PERIOD_SECONDS,
    RETRY_SECONDS_MAX,
    RETRY_SECONDS_MIN,
)
from raftd.protocol import Refusal, Welcome
from tests.network.harness import (
    CLUSTER,
    Fabric,
    Server,
    Stranger,
    call,
    hello_of,
    join,
    linked,
    silence,
    until,
)

HEARTBEAT = AppendEntries(1, 0, 0, (), 0, 1)
WELCOME = Welcome(server="n2/b", cluster_id=CLUSTER, version=1)


def large_append(index: int) -> AppendEntries:
    entry = Entry(index, 1, EntryKind.COMMAND, bytes(1024 * 1024))
    return AppendEntries(1, index - 1, 1, (entry,), 0, index)


async def test_messages_arrive_in_order_under_the_senders_identity(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    await join(fabric, n1, n2)
    messages = [PreVote(term, term, 0) for term in range(1, 50)]

    n1.network.send([Envelope("n1/a", "n2/b", message) for message in messages])

    assert await n2.receive(49) == [Envelope("n1/a", "n2/b", message) for message in messages]


async def test_a_response_goes_back_on_the_connection_that_the_asker_opened(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n2 = fabric.server("n2/b")
    stranger = call(nursery, n2)
    await stranger.greet(hello_of("n1/a", "n2/b"))

    n2.send("n1/a", RequestVoteResponse(1, True))

    assert decode_message(await stranger.receive()) == RequestVoteResponse(1, True)
    assert fabric.dials == []


async def test_a_request_is_not_sent_on_an_inbound_connection(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n2 = fabric.server("n2/b")
    stranger = call(nursery, n2)
    await stranger.greet(hello_of("n1/a", "n2/b"))

    n2.send("n1/a", TimeoutNow(1))

    assert n2.network.dropped_messages == 1


async def test_a_response_to_nobody_is_dropped_and_counted(fabric: Fabric) -> None:
    n1 = fabric.server("n1/a")
    n1.send("n2/b", AppendEntriesResponse(1, True, 1, 1, 1))
    assert n1.network.dropped_messages == 1


async def test_responses_come_back_on_our_own_link(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/a")

    async def answer(stream: trio.abc.Stream) -> None:
        peer = Stranger(stream)
        await peer.receive()
        await peer.send(encode_opening(WELCOME), encode_message(PreVoteResponse(3, 4, False)))
        await trio.sleep_forever()

    fabric.answers["n2:1"] = answer
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)

    assert await n1.receive() == [Envelope("n2/b", "n1/a", PreVoteResponse(3, 4, False))]


async def test_where_a_member_serves_redis_clients_is_what_it_said_last(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n2, n3 = (fabric.server(f"n{number}/x") for number in (1, 2, 3))
    n2.redis = "10.0.0.2:6379"
    await join(fabric, n1, n2, n3)
    found = [n1.network.redis_address(server) for server in ("n2/x", "n3/x", "n9/x")]
    assert found == ["10.0.0.2:6379", "", ""]
    # It comes back with another configuration.
    n2.redis = "10.0.0.2:6380"
    n2.network.close_peer("n1/x", "restarted")
    await until(lambda: not linked(n1, "n2/x"))
    assert n1.network.redis_address("n2/x") == "10.0.0.2:6379"
    await until(lambda: linked(n1, "n2/x"))
    assert n1.network.redis_address("n2/x") == "10.0.0.2:6380"


async def test_a_link_backs_off_with_jitter_up_to_a_bound(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/a")
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)

    await trio.sleep(20)

    times = [time for time, _ in fabric.dials]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    bounds = [min(RETRY_SECONDS_MIN * 2**i, RETRY_SECONDS_MAX) for i in range(len(pauses))]
    assert len(pauses) > 15
    for pause, bound in zip(pauses, bounds, strict=True):
        assert bound / 2 - 1e-6 <= pause <= bound + 1e-6
    assert len({round(pause, 6) for pause in pauses[-5:]}) == 5
    # A server that restarts within an election timeout of 500 ms is tried five times meanwhile.
    assert times[5] - times[0] < 0.7


async def test_an_outage_is_told_once_and_its_end_once(
    nursery: trio.Nursery,
    fabric: Fabric,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "raftd.network")
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)
    await trio.sleep(10)

    fabric.answers["n2:1"] = n2.network.listener.handle
    await until(lambda: linked(n1, "n2/b"))

    assert await n1.take(LinkChanged, 2) == [
        LinkChanged("n2/b", False, "connection refused"),
        LinkChanged("n2/b", True, "", version=1, address="n2:1"),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "link to n2/b at n2:1 is down: connection refused; dialling again",
        "link to n2/b at n2:1 is up",
    ]


async def test_a_link_that_breaks_all_the_time_does_not_fill_the_log(
    fabric: Fabric, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    await join(fabric, n1, n2)
    await trio.sleep(LINES_PERIOD_SECONDS)
    caplog.set_level(logging.INFO, "raftd.network")
    caplog.clear()
    for _ in range(10):
        n2.network.close_peer("n1/a", "test")
        await until(lambda: not linked(n1, "n2/b"))
        await until(lambda: linked(n1, "n2/b"))
    told = [line for line in caplog.messages if line.startswith("link to n2/b")]
    assert len(told) == LINES_MAX
    await trio.sleep(LINES_PERIOD_SECONDS)
    n2.network.close_peer("n1/a", "test")
    await until(lambda: not linked(n1, "n2/b"))
    await until(lambda: linked(n1, "n2/b"))
    down, up = [line for line in caplog.messages if line.startswith("link to n2/b")][LINES_MAX:]
    assert down.endswith(f"dialling again ({20 - LINES_MAX} more like this were not logged)")
    assert up.endswith("is up")


async def test_a_broken_link_is_dialled_again_within_a_few_milliseconds(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    await join(fabric, n1, n2)
    await trio.sleep(60)

    n2.network.close_peer("n1/a", "test")
    broken_at = trio.current_time()
    await until(lambda: not linked(n1, "n2/b"))
    await until(lambda: linked(n1, "n2/b"))

    assert trio.current_time() - broken_at < 0.05


async def told_ended(server: Server, seconds: float = 5.0) -> bool:
    """Return whether a link of `server` has said by then that the process there has ended."""
    await trio.sleep(seconds)
    server.inbox.wake()
    batch, _ = await server.inbox.take()
    return any(isinstance(item, LinkChanged) and item.process_ended for item in batch)


async def test_a_process_has_ended_whose_connections_broke_and_whose_port_is_closed(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    await join(fabric, n1, n2)
    assert not await told_ended(n1)

    # A process that has ended does not dial either.
    fabric.answers.clear()
    for one, other in ((n1, n2), (n2, n1)):
        one.network.close_peer(other.id, "its process ends")

    assert await told_ended(n1, 0.02)
    fabric.answers["n2/b:1"] = n2.network.listener.handle
    assert not await told_ended(n1)


async def test_a_process_that_keeps_its_own_connection_to_us_has_not_ended(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    """Something stands before its port, say; it still leads, and we hear it."""
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    await join(fabric, n1, n2)
    del fabric.answers["n2/b:1"]
    n2.network.close_peer("n1/a", "test")
    assert not await told_ended(n1)

    # Its own connection breaks later.
    del fabric.answers["n1/a:1"]
    n1.network.close_peer("n2/b", "test")
    assert await told_ended(n1)


async def test_a_port_that_was_never_open_says_nothing_about_a_process(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    """Its address may be wrong here."""
    n1 = fabric.server("n1/a")
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)
    assert not await told_ended(n1)


async def test_a_silent_address_says_nothing_about_a_process(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    """Its machine may be cut off."""
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    await join(fabric, n1, n2)
    fabric.answers["n2/b:1"] = silence
    for one, other in ((n1, n2), (n2, n1)):
        one.network.close_peer(other.id, "test")
    assert not await told_ended(n1)


async def test_a_link_that_is_dropped_as_soon_as_it_is_up_keeps_backing_off(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/a")

    async def answer(stream: trio.abc.Stream) -> None:
        peer = Stranger(stream)
        await peer.receive()
        await peer.send(encode_opening(WELCOME))
        await stream.aclose()

    fabric.answers["n2:1"] = answer
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)
    await trio.sleep(30)

    assert len(fabric.dials) < 80


async def test_a_server_that_dials_us_is_dialled_at_once(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)
    await trio.sleep(30)

    attempts = len(fabric.dials)
    await until(lambda: len(fabric.dials) > attempts)
    fabric.answers["n2:1"] = n2.network.listener.handle
    await call(nursery, n1).greet(hello_of("n2/b", "n1/a"))
    hurried_at = trio.current_time()
    await until(lambda: linked(n1, "n2/b"))

    assert trio.current_time() - hurried_at < 0.01


async def test_a_silent_address_is_given_up_after_the_dial_timeout(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/a")
    fabric.answers["n2:1"] = silence
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)

    assert await n1.take(LinkChanged) == [LinkChanged("n2/b", False, "no answer for 2.0 s")]
    assert trio.current_time() == pytest.approx(fabric.dials[0][0] + DIAL_TIMEOUT_SECONDS)


async def test_a_refusal_is_told_with_its_reason(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    refusal = Refusal(code="removed", message="n1/a was removed", removed_index=9)
    n2.refusals["n1/a"] = refusal
    fabric.answers["n2:1"] = n2.network.listener.handle
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)

    assert await n1.take(PeerRefused) == [PeerRefused("n2/b", refusal)]
    assert LinkChanged("n2/b", False, "refused: n1/a was removed") in n1.taken


async def test_a_link_is_not_used_when_another_server_answers(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/a")

    async def answer(stream: trio.abc.Stream) -> None:
        peer = Stranger(stream)
        await peer.receive()
        await peer.send(encode_opening(Welcome(server="n2/c", cluster_id=CLUSTER, version=1)))
        await peer.receive_end()

    fabric.answers["n2:1"] = answer
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)

    assert await n1.take(LinkChanged) == [
        LinkChanged("n2/b", False, "another server answers there: n2/c")
    ]


@pytest.mark.parametrize(
    ("bytes_sent", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the protocol"),
        (b"\x05\x00\x00\x00hello", "does not speak the protocol"),
        (b"\x08\x00\x00\x00" + OPENING_MAGIC + b"\xc1\xc1", "does not speak the protocol"),
        (b"", "closed the connection without a greeting"),
    ],
)
async def test_what_is_no_raftd_is_told_in_words(
    nursery: trio.Nursery,
    fabric: Fabric,
    autojump_clock: MockClock,
    bytes_sent: bytes,
    problem: str,
) -> None:
    n1 = fabric.server("n1/a")

    async def answer(stream: trio.abc.Stream) -> None:
        await Stranger(stream).receive()
        if bytes_sent:
            await stream.send_all(bytes_sent)
        await stream.aclose()

    fabric.answers["n2:1"] = answer
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)

    (changed,) = await n1.take(LinkChanged)
    assert problem in changed.problem


async def test_garbage_on_a_link_breaks_that_link_and_it_comes_back(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    garbage_sent = False

    async def answer(stream: trio.abc.Stream) -> None:
        nonlocal garbage_sent
        if garbage_sent:
            await n2.network.listener.handle(stream)
            return
        garbage_sent = True
        peer = Stranger(stream)
        await peer.receive()
        await peer.send(encode_opening(WELCOME), b"garbage")
        await peer.receive_end()

    fabric.answers["n2:1"] = answer
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)

    changes = await n1.take(LinkChanged, 3)
    assert [change.connected for change in changes] == [True, False, True]
    assert "message" in changes[1].problem


def stalled_stream(nursery: trio.Nursery) -> trio.abc.Stream:
    """Return a stream to a server that says welcome, and then takes nothing."""
    ours, theirs = lockstep_stream_pair()

    async def greet_and_stop() -> None:
        peer = Stranger(theirs)
        await peer.receive()
        await peer.send(encode_opening(WELCOME))
        await trio.sleep_forever()

    nursery.start_soon(greet_and_stop)
    return ours


async def test_a_silent_peer_does_not_hold_up_another_one(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n3 = fabric.server("n1/a"), fabric.server("n3/c")

    async def dial(address: str) -> trio.abc.Stream:
        if address != "n2:1":
            return await fabric.dial(address)
        return stalled_stream(nursery)

    n1.network.dial = dial
    fabric.answers["n3:1"] = n3.network.listener.handle
    n1.network.set_members({"n2/b": "n2:1", "n3/c": "n3:1"})
    nursery.start_soon(n1.network.run)
    await until(lambda: linked(n1, "n2/b") and linked(n1, "n3/c"))
    started_at = trio.current_time()

    for index in range(1, 101):
        n1.network.send(
            [
                Envelope("n1/a", "n2/b", large_append(index)),
                Envelope("n1/a", "n3/c", PreVote(index, 0, 0)),
            ]
        )

    assert len(await n3.receive(100)) == 100
    assert trio.current_time() - started_at < 0.1
    assert n1.network.dropped_messages > 80
    silent = n1.network._links["n2/b"].connection
    assert silent is not None
    assert silent.outbox_bytes < links.PEER_OUTBOX_BYTES_MAX + 2 * 1024 * 1024


async def test_a_link_on_which_nothing_can_be_written_is_closed(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/a")

    async def dial(address: str) -> trio.abc.Stream:
        return stalled_stream(nursery)

    n1.network.dial = dial
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)
    await n1.take(LinkChanged)
    started_at = trio.current_time()

    n1.send("n2/b", HEARTBEAT)

    (changed,) = await n1.take(LinkChanged)
    assert changed == LinkChanged("n2/b", False, "nothing could be written for 5.0 s")
    assert trio.current_time() - started_at == pytest.approx(WRITE_STALL_TIMEOUT_SECONDS)


async def test_all_that_is_queued_leaves_in_one_send(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    sends: list[int] = []
    n1 = fabric.server("n1/a")

    async def dial(address: str) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()

        async def count() -> None:
            sends.append(1)

        async def answer() -> None:
            peer = Stranger(theirs)
            await peer.receive()
            ours.send_stream.send_all_hook = count
            await peer.send(encode_opening(WELCOME))
            for _ in range(50):
                await peer.receive()

        nursery.start_soon(answer)
        return ours

    n1.network.dial = dial
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)
    await n1.take(LinkChanged)

    n1.network.send([Envelope("n1/a", "n2/b", HEARTBEAT)] * 50)
    await wait_all_tasks_blocked()

    assert len(sends) == 1


async def test_nothing_is_kept_for_a_link_that_is_down(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)
    await n1.take(LinkChanged)

    n1.send("n2/b", PreVote(1, 0, 0))
    fabric.answers["n2:1"] = n2.network.listener.handle
    await until(lambda: linked(n1, "n2/b"))
    n1.send("n2/b", PreVote(2, 0, 0))

    assert [envelope.message for envelope in await n2.receive()] == [PreVote(2, 0, 0)]
    assert n1.network.dropped_messages == 1


async def test_members_that_go_lose_their_link_and_moved_ones_are_dialled_anew(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    servers = [fabric.server(name) for name in ("n1/a", "n2/b", "n3/c")]
    n1, n2, n3 = servers
    await join(fabric, *servers)
    kept = n1.network._links["n2/b"].connection
    fabric.answers["elsewhere:1"] = n3.network.listener.handle

    n1.network.set_members({"n1/a": "n1/a:1", "n2/b": "n2/b:1", "n3/c": "elsewhere:1"})
    await until(lambda: linked(n1, "n3/c"))
    assert fabric.dials[-1][1] == "elsewhere:1"
    assert n1.network._links["n2/b"].connection is kept

    n1.network.set_members({"n1/a": "n1/a:1", "n3/c": "elsewhere:1"})
    await until(lambda: "n1/a" not in n2.network.listener.peers)
    n1.send("n2/b", HEARTBEAT)
    assert n1.network.dropped_messages == 1


async def test_a_server_never_dials_itself(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/a")
    n1.network.set_members({"n1/a": "n1:1"})
    nursery.start_soon(n1.network.run)
    await trio.sleep(5)
    assert fabric.dials == []


async def test_a_blank_server_dials_nobody_until_it_has_a_cluster(
    nursery: trio.Nursery, fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1 = fabric.server("n1/a")
    fabric.server("n2/b", "n2:1")
    n1.blank = True
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)
    await call(nursery, n1).greet(hello_of("n2/b", "n1/a"))
    await trio.sleep(5)
    assert fabric.dials == []

    n1.blank = False
    await until(lambda: linked(n1, "n2/b"))


async def test_flush_waits_for_what_is_queued_and_no_longer_than_it_may(
    fabric: Fabric, autojump_clock: MockClock
) -> None:
    n1, n2 = fabric.server("n1/a"), fabric.server("n2/b")
    await join(fabric, n1, n2)
    n1.send("n2/b", HEARTBEAT)
    connection = n1.network._links["n2/b"].connection
    assert connection is not None
    assert connection.outbox_bytes > 0

    await n1.network.flush(1000)
    assert connection.outbox_bytes == 0

    async def stuck(_: bytes) -> None:
        await trio.sleep_forever()

    connection._stream.send_all = stuck  # type: ignore[method-assign]
    n1.send("n2/b", HEARTBEAT)
    started_at = trio.current_time()
    await n1.network.flush(1000)
    assert trio.current_time() - started_at == pytest.approx(1)


@pytest.mark.parametrize(("version", "unknown"), [(1, StateCheck(1, 2, 3)), (3, ReadIndex(1, 2))])
async def test_what_an_older_release_does_not_know_is_not_sent_to_it(
    nursery: trio.Nursery,
    fabric: Fabric,
    autojump_clock: MockClock,
    version: int,
    unknown: Message | StateMessage,
) -> None:
    n1 = fabric.server("n1/a")
    received: list[object] = []

    async def answer(stream: trio.abc.Stream) -> None:
        peer = Stranger(stream)
        await peer.receive()
        await peer.send(encode_opening(attrs.evolve(WELCOME, version=version)))
        received.append(decode_message(await peer.receive()))
        await trio.sleep_forever()

    fabric.answers["n2:1"] = answer
    n1.network.set_members({"n2/b": "n2:1"})
    nursery.start_soon(n1.network.run)
    await n1.take(LinkChanged)

    n1.send("n2/b", unknown)
    n1.send("n2/b", TimeoutNow(1))

    await trio.sleep(1)
    # It would have closed the connection because of the first one.
    assert received == [TimeoutNow(1)]
    assert n1.network.dropped_messages == 1
