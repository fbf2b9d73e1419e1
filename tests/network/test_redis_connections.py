"""Connections of Redis clients: how they are let in, misbehave and end, with real sockets."""

from __future__ import annotations

import contextlib
import resource
import socket

import pytest
import trio

from raftd.commands import VALUE_BYTES_MAX
from raftd.network.redis_listener import PIPELINE_MAX, STALL_SECONDS
from tests.network.redis_bed import (
    PATIENCE_SECONDS,
    Bed,
    Client,
    big_values,
    encoded,
    opened_bed,
    text,
)

# --- those who do not read ------------------------------------------------------------------


async def test_who_does_not_read_holds_up_nobody_else_and_is_closed(bed: Bed) -> None:
    await big_values(bed, 2)
    slow, other = await bed.client(), await bed.client()
    await slow.send(*[["GET", "big0"]] * 500)
    await bed.until(lambda: bool(bed.listener._stalled))
    assert await other.ask("SET", "a", "1") == b"OK"
    assert await other.ask("GET", "big1") == b"\1" * VALUE_BYTES_MAX
    assert bed.listener.outboxes_bytes < 6 * VALUE_BYTES_MAX
    assert await bed.turns_taken() < 20
    bed.tick(29)
    await bed.turns_taken()
    assert len(bed.listener._connections) == 3
    bed.tick(1)
    await bed.until(lambda: len(bed.listener._connections) == 2)
    assert bed.listener.outboxes_bytes == 0
    await slow.gone()
    assert await other.ask("GET", "a") == b"1"


async def test_who_reads_slowly_gets_everything(bed: Bed) -> None:
    values = await big_values(bed, 3)
    slow = await bed.client()
    order = [0, 2, 1, 0, 1] * 10
    await slow.send(*[["GET", f"big{number}"] for number in order], ["GET", "none"], ["PING"])
    for number in order:
        bed.tick(5)
        assert await slow.reply() == values[number]
        assert bed.listener.outboxes_bytes <= 6 * VALUE_BYTES_MAX
    assert await slow.replies(2) == [None, b"PONG"]


async def test_values_that_do_not_fit_at_once_are_asked_for_again(bed: Bed) -> None:
    values = await big_values(bed, 6, 1_000)
    bed.values_bytes_max = 2_500
    first, second = await bed.client(), await bed.client()
    for client in (first, second):
        await client.send(
            *[["GET", f"big{number}"] for number in range(6)],
            ["READONLY"],
            *[["GET", f"big{number}"] for number in range(6)],
            ["SET", "big0", "x"],
        )
    for client in (first, second):
        found = await client.replies(14)
        assert found[1:6] == found[8:13] == values[1:]
        assert found[6] == found[13] == b"OK"


@pytest.mark.parametrize("kind", ["values", "echoes"])
async def test_replies_that_nobody_takes_do_not_fill_the_memory(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    limit = 8 * VALUE_BYTES_MAX
    monkeypatch.setattr("raftd.network.redis_listener.OUTBOXES_BYTES_MAX", limit)
    await big_values(bed, 1)
    asked = ["GET", "big0"] if kind == "values" else ["ECHO", b"x" * VALUE_BYTES_MAX]
    slow = [await bed.client() for _ in range(10)]
    other = await bed.client()

    async def ask(client: Client) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await client.stream.send_all(encoded(asked) * 30)

    async with trio.open_nursery() as nursery:
        for client in slow:
            nursery.start_soon(ask, client)
        await bed.until(lambda: bed.listener.outboxes_bytes > limit)
        assert bed.listener.outboxes_bytes <= limit + 2 * VALUE_BYTES_MAX
        # Writes go on. Reads of others wait, but not for long.
        assert await other.ask("SET", "a", "1") == b"OK"
        await other.send(["GET", "a"])
        for _ in range(20):
            assert bed.listener.outboxes_bytes <= limit + 2 * VALUE_BYTES_MAX
            assert await bed.turns_taken() < 50
            bed.tick(2)
        assert await other.reply() == b"1"
        # Some got room only when others had been closed, and have their time from then on.
        with trio.fail_after(PATIENCE_SECONDS):
            while len(bed.listener._connections) > 2:
                bed.tick(2)
                await bed.turns_taken()
        nursery.cancel_scope.cancel()


async def test_a_client_that_waits_for_others_reads_is_not_the_one_that_is_closed(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.OUTBOXES_BYTES_MAX", 2 * VALUE_BYTES_MAX)
    values = await big_values(bed, 4)
    slow, patient = await bed.client(), await bed.client()
    await slow.send(*[["GET", "big0"]] * 20)
    await bed.until(lambda: bed.listener.outboxes_bytes > 2 * VALUE_BYTES_MAX)
    await patient.send(*[["GET", f"big{number}"] for number in range(4)])
    await bed.until(lambda: bool(bed.listener._crowded))
    bed.tick(2)
    assert await patient.replies(4) == values
    await slow.gone()


# --- those who send slowly, or too much -----------------------------------------------------


async def test_a_long_value_may_come_in_small_pieces(bed: Bed) -> None:
    client, other = await bed.client(), await bed.client()
    value = b"\r\n*99999999\r\n" * 40_000
    content = encoded(["SET", "a", value])
    for start in range(0, len(content), 9_999):
        bed.tick(20)
        await client.write(content[start : start + 9_999])
        assert await other.ask("PING") == b"PONG"
    assert await client.reply() == b"OK"
    assert await client.ask("GET", "a") == value


async def test_who_does_not_end_its_command_is_closed_and_who_is_idle_is_not(bed: Bed) -> None:
    idle, begun = await bed.client(), await bed.client()
    assert await idle.ask("PING") == b"PONG"
    await begun.write(b"*1\r\n$4\r\nPI")
    await bed.until(lambda: bool(bed.listener._begun))
    bed.tick(29)
    await bed.turns_taken()
    await begun.write(b"N")
    await bed.turns_taken()
    bed.tick(29)
    await begun.write(b"G\r\n")
    assert await begun.reply() == b"PONG"
    bed.tick(1_000)
    await bed.turns_taken()
    await begun.write(b"PIN")
    await bed.until(lambda: bool(bed.listener._begun))
    bed.tick(30)
    await begun.end()
    assert await idle.ask("PING") == b"PONG"


async def test_commands_that_wait_for_others_are_not_taken_for_half_ones(bed: Bed) -> None:
    bed.holds = True
    client = await bed.client()
    await client.send(*[["INCR", "a"]] * PIPELINE_MAX * 2)
    await client.write(b"*2\r\n")
    await bed.until(lambda: bed.listener.under_way == PIPELINE_MAX)
    bed.tick(1_000)
    await bed.turns_taken()
    bed.release()
    assert (await client.replies(2 * PIPELINE_MAX))[-1] == 2 * PIPELINE_MAX


async def test_too_many_long_commands_at_once_are_refused_and_short_ones_are_not(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.BUFFERED_BYTES_MAX", 3 * VALUE_BYTES_MAX // 2)
    content = encoded(["SET", "a", b"x" * VALUE_BYTES_MAX])
    first, second, third = [await bed.client() for _ in range(3)]
    await first.write(content[:-1])
    await bed.until(lambda: bed.listener._buffered_bytes > len(content) - 10)
    await second.send(["INCR", "b"])
    # It may be closed before it has written all.
    with contextlib.suppress(trio.BrokenResourceError):
        await second.write(content[:-1])
    assert await second.reply() == 1
    assert "too many long commands" in text(await second.reply())
    await second.gone()
    assert await third.ask("SET", "c", b"y" * 100_000) == b"OK"
    await first.write(content[-1:])
    assert await first.reply() == b"OK"


async def test_what_is_no_command_ends_the_connection_after_the_replies_that_are_due(
    bed: Bed,
) -> None:
    bed.holds = True
    client = await bed.client()
    await client.write(encoded(["INCR", "a"]) * 3 + b"*1\r\n:1\r\n" + encoded(["INCR", "a"]))
    await bed.until(lambda: bed.listener.under_way > 2)
    bed.release()
    assert await client.replies(3) == [1, 2, 3]
    assert text(await client.reply()).startswith("ERR Protocol error: ")
    await client.gone()
    assert bed.state.revision == 3


async def test_a_web_page_carries_out_nothing(bed: Bed) -> None:
    client = await bed.client()
    await client.write(
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nSET a 1\r\n"
    )
    assert "no web server" in text(await client.reply())
    await client.gone()
    other = await bed.client()
    await other.write(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nSET a 1\r\n")
    assert "wrong number of arguments" in text(await other.reply())
    assert "no web server" in text(await other.reply())
    await other.gone()
    assert bed.state.revision == 0


async def test_many_half_commands_do_not_take_the_memory_together(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.BUFFERED_BYTES_MAX", 1_000_000)
    monkeypatch.setattr("raftd.network.redis_listener.BUFFERED_BYTES_END", 2_000_000)
    half = encoded(["SET", "a", b"x" * VALUE_BYTES_MAX])
    clients = [await bed.client() for _ in range(40)]
    for number, client in enumerate(clients):
        with contextlib.suppress(trio.BrokenResourceError):
            await client.write(half[: 100_000 + number * 1_000])
        await bed.turns_taken(20)
        assert bed.listener._buffered_bytes <= 2_000_000
    left = len(bed.listener._connections) - len(bed.listener._lingering)
    assert 5 < left < 20
    assert await (await bed.client()).ask("SET", "b", "1") == b"OK"


# --- the ends of connections ----------------------------------------------------------------


async def test_who_says_that_nothing_more_comes_still_gets_its_answers(bed: Bed) -> None:
    bed.holds = True
    client = await bed.client()
    await client.send(*[["INCR", "a"]] * 2_000, ["GET", "a"])
    await client.write(b"*1\r\n$4\r\nPI")
    await client.stream.send_eof()
    await bed.until(lambda: bed.listener.under_way == PIPELINE_MAX)
    assert await bed.turns_taken() < 20
    bed.release()
    assert await client.replies(2_001) == [*range(1, 2_001), b"2000"]
    await client.end()


async def test_what_is_under_way_when_nothing_more_comes_is_answered(bed: Bed) -> None:
    bed.holds = True
    client = await bed.client()
    await client.send(*[["INCR", "a"]] * 3)
    await bed.until(lambda: bed.listener.under_way == 3)
    await client.stream.send_eof()
    await bed.until(lambda: all(c.ended for c in bed.listener._connections.values()))
    bed.release()
    assert await client.replies(3) == [1, 2, 3]
    await client.end()


async def test_a_client_may_let_its_replies_wait_for_as_long_as_the_listener_says(bed: Bed) -> None:
    client = await bed.client()
    assert await client.ask("PING") == b"PONG"
    (connection,) = bed.listener._connections.values()
    kernel_ms = connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert kernel_ms > STALL_SECONDS * 1000


async def test_who_leaves_without_a_word_is_forgotten(bed: Bed) -> None:
    for _ in range(3):
        await (await bed.client()).stream.aclose()
        client = await bed.client()
        assert await client.ask("PING") == b"PONG"
        client.reset()
    await bed.until(lambda: not bed.listener._connections)


@pytest.mark.parametrize("end", ["QUIT", "eof", "garbage"])
async def test_a_reset_of_a_connection_that_waits_for_its_last_answers_does_not_spin(
    bed: Bed, end: str
) -> None:
    bed.holds = True
    client = await bed.client()
    await client.send(["INCR", "a"])
    if end == "QUIT":
        await client.send(["QUIT"])
    elif end == "garbage":
        await client.write(b"*-5\r\n")
    else:
        await client.stream.send_eof()
    await bed.until(lambda: all(c.ended for c in bed.listener._connections.values()))
    assert await bed.turns_taken() < 20
    client.reset()
    await bed.until(lambda: not bed.listener._connections)
    assert await bed.turns_taken() < 20


async def test_quit_is_answered_after_everything_before_it_and_nothing_behind_it_is_done(
    bed: Bed,
) -> None:
    bed.holds = True
    client = await bed.client()
    await client.send(["INCR", "a"], ["QUIT"], ["INCR", "a"], ["PING"])
    await bed.until(lambda: bed.listener.under_way == 2)
    bed.release()
    assert await client.replies(2) == [1, b"OK"]
    await client.end()
    assert bed.state.revision == 1


async def test_replies_that_are_due_leave_before_the_process_ends(bed: Bed) -> None:
    values = await big_values(bed, 3)
    reader, idle = await bed.client(), await bed.client()
    assert await idle.ask("PING") == b"PONG"
    await reader.send(*[["GET", f"big{number}"] for number in range(3)] * 3)
    await bed.until(lambda: bed.listener.outboxes_bytes > VALUE_BYTES_MAX)
    due_bytes = bed.listener.outboxes_bytes
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bed.listener.drain, 20_000)
        for value in values[: due_bytes // VALUE_BYTES_MAX]:
            assert await reader.reply() == value
        while bed.listener.outboxes_bytes:
            await reader.stream.receive_some(1 << 20)
    with trio.fail_after(1):
        await bed.listener.drain(20_000)


async def test_the_end_waits_no_longer_than_it_is_told_to_for_who_does_not_read(bed: Bed) -> None:
    await big_values(bed, 1)
    client = await bed.client()
    await client.send(*[["GET", "big0"]] * 20)
    await bed.until(lambda: bool(bed.listener._stalled))
    with trio.fail_after(10):
        await bed.listener.drain(1)


# --- being let in ---------------------------------------------------------------------------


async def test_one_connection_too_many_is_told_so() -> None:
    async with opened_bed(connections_max=2) as bed:
        first, second = await bed.client(), await bed.client()
        assert await first.ask("PING") == await second.ask("PING") == b"PONG"
        third = await bed.client()
        assert "max number of clients" in text(await third.reply())
        await third.end()
        await first.stream.aclose()
        await bed.until(lambda: len(bed.listener._connections) == 1)
        assert await (await bed.client()).ask("PING") == b"PONG"


async def test_a_thousand_connections_are_served_at_once() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2_500 if hard == resource.RLIM_INFINITY else min(hard, 2_500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        async with opened_bed() as bed:
            clients = [await bed.client() for _ in range(1_000)]
            for number, client in enumerate(clients):
                await client.send(["SET", f"k{number}", number], ["GET", f"k{number}"])
            for number, client in enumerate(clients):
                assert await client.replies(2) == [b"OK", str(number).encode()]
            assert len(bed.listener._connections) == 1_000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_descriptors_those_who_wait_are_accepted_later(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    old = await bed.client()
    assert await old.ask("PING") == b"PONG"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sockets = [socket.socket() for _ in range(3)]
    lowest = socket.socket()
    free = lowest.fileno()
    lowest.close()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        for waiting in sockets:
            waiting.connect(bed.address)
        await bed.until(lambda: "accepts no Redis clients for now" in caplog.text)
        assert await bed.turns_taken() < 20
        assert await old.ask("SET", "a", "1") == b"OK"
        for _ in range(3):
            bed.tick(1)
            assert await bed.turns_taken() < 20
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caplog.text.count("accepts no Redis clients for now") == 1
    bed.tick(1)
    for waiting in sockets:
        waiting.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(waiting))
        with trio.fail_after(20):
            await stream.send_all(encoded(["GET", "a"]))
            assert await stream.receive_some() == b"$1\r\n1\r\n"
        await stream.aclose()


async def test_an_address_that_is_taken_is_an_error(bed: Bed) -> None:
    other = Bed()
    with pytest.raises(OSError, match="in use"):
        await other.listener.serve(*bed.address)
    assert other.listener.collect() == []
