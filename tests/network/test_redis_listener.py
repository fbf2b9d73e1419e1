"""Clients of the Redis protocol, with real sockets: what they are told, and in which order."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import trio

from raftd.inputs import CommandsArrived, Input, KeysArrived
from raftd.network.redis_listener import PIPELINE_MAX, STALL_SECONDS
from raftd.protocol import NOT_NOW, ErrorReply
from tests.network.redis_bed import (
    PATIENCE_SECONDS,
    Bed,
    Client,
    big_values,
    encoded,
    opened_bed,
    text,
)

VALUE_BYTES_MAX = 1024 * 1024


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    async with opened_bed() as bed:
        yield bed


# --- order ----------------------------------------------------------------------------------


async def test_an_idle_driver_is_woken_by_a_command(bed: Bed) -> None:
    client = await bed.client()
    assert await client.ask("PING") == b"PONG"
    assert await client.ask("SET", "a", "1") == b"OK"
    assert await client.ask("GET", "a") == b"1"


async def test_a_read_sees_the_writes_before_it_in_its_pipeline_and_none_behind(bed: Bed) -> None:
    client = await bed.client()
    await client.send(
        *(["SET", "a", "1"], ["GET", "a"], ["SET", "a", "2"], ["GET", "a"], ["DEL", "a"]),
        *(["GET", "a"], ["SET", "a", "3"], ["EXISTS", "a"], ["INCR", "a"]),
    )
    assert await client.replies(9) == [b"OK", b"1", b"OK", b"2", 1, None, b"OK", 1, 4]


async def test_replies_come_in_the_order_of_the_commands(bed: Bed, seed: int) -> None:
    random = Random(seed)
    client = await bed.client()
    await client.send(["HELLO", "3"])
    await client.reply()
    model: dict[str, int] = {}
    commands: list[list[Any]] = []
    expected: list[Any] = []
    for number in range(2_000):
        key = f"k{random.randrange(5)}"
        kind = random.choice(["SET", "GET", "INCR", "DEL", "ECHO", "EXISTS", "WHAT"])
        if kind == "SET":
            model[key] = number
            commands.append(["SET", key, number])
            expected.append(b"OK")
        elif kind == "GET":
            commands.append(["GET", key])
            expected.append(str(model[key]).encode() if key in model else None)
        elif kind == "INCR":
            model[key] = model.get(key, 0) + 1
            commands.append(["INCR", key])
            expected.append(model[key])
        elif kind == "DEL":
            commands.append(["DEL", key])
            expected.append(int(model.pop(key, None) is not None))
        elif kind == "EXISTS":
            commands.append(["EXISTS", key])
            expected.append(int(key in model))
        elif kind == "ECHO":
            echoed = bytes([number % 256]) * random.choice([1, 5, 2_000])
            commands.append(["ECHO", echoed])
            expected.append(echoed)
        else:
            commands.append(["WHAT"])
            expected.append("unknown command")
    content = b"".join(map(encoded, commands))

    async def write() -> None:
        position = 0
        while position < len(content):
            piece = random.choice([1, 7, 100, 3_000, 20_000])
            await client.write(content[position : position + piece])
            position += piece

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for wanted in expected:
            found = await client.reply()
            if wanted == "unknown command":
                assert wanted in text(found)
            else:
                assert found == wanted


async def test_what_many_clients_ask_at_once_is_one_input_for_the_node(bed: Bed) -> None:
    clients = [await bed.client() for _ in range(20)]
    for client in clients:
        await client.ask("PING")
    # All of it is there when the driver looks.
    for number, client in enumerate(clients):
        client.stream.socket._sock.send(
            encoded(["SET", f"k{number}", number]) + encoded(["SET", f"l{number}", number])
        )
    for client in clients:
        assert await client.replies(2) == [b"OK", b"OK"]
    (arrived,) = bed.inputs
    assert isinstance(arrived, CommandsArrived)
    assert len(arrived.commands) == len(arrived.waiters) == 40
    bed.inputs.clear()
    for number, client in enumerate(clients):
        client.stream.socket._sock.send(encoded(["GET", f"k{number}"]))
    for number, client in enumerate(clients):
        assert await client.reply() == str(number).encode()
    (arrived,) = bed.inputs
    assert isinstance(arrived, KeysArrived)
    assert len(arrived.keys) == 20


async def test_writes_wait_for_those_under_way_to_share_the_next_batch() -> None:
    async with opened_bed(hold_seconds=1.0) as bed:
        bed.holds = True
        clients = [await bed.client() for _ in range(6)]
        await clients[0].send(*[["INCR", "a"]] * 4)
        await bed.until(lambda: bed.listener.writes_under_way == 4)
        for count in (1, 2, 3):
            await clients[count].send(["INCR", "a"])
            await bed.until(lambda count=count: len(bed.listener._commands) == count)
        await bed.turns_taken()
        assert bed.listener.writes_under_way == 4
        # As many as there are under way: they need not wait for those.
        await clients[4].send(["INCR", "a"])
        await bed.until(lambda: bed.listener.writes_under_way == 8)
        assert [len(item.commands) for item in bed.held] == [4, 4]
        await clients[5].send(["INCR", "a"])
        await bed.until(lambda: bed.listener.holds)
        bed.release()
        assert await clients[0].replies(4) == [1, 2, 3, 4]
        assert await clients[5].reply() == 9


async def test_writes_are_not_kept_back_for_longer_than_a_moment() -> None:
    async with opened_bed(hold_seconds=1.0) as bed:
        bed.holds = True
        first, second = await bed.client(), await bed.client()
        await first.send(["SET", "a", "1"], ["SET", "a", "2"])
        await bed.until(lambda: bed.listener.writes_under_way == 2)
        await second.send(["SET", "b", "1"])
        await bed.until(lambda: bool(bed.listener._commands))
        await bed.turns_taken()
        assert bed.listener.writes_under_way == 2
        # Reads do not wait with them.
        assert bed.listener.holds
        await (reader := await bed.client()).send(["GET", "a"])
        await bed.until(lambda: any(isinstance(item, KeysArrived) for item in bed.held))
        bed.tick(1.0)
        await bed.until(lambda: bed.listener.writes_under_way == 3)
        assert not bed.listener.holds
        bed.release()
        assert await second.reply() == b"OK"
        assert await reader.reply() == b"2"


async def test_commands_of_one_sort_are_under_way_together(bed: Bed) -> None:
    bed.holds = True
    client = await bed.client()
    await client.send(*[["SET", "a", n] for n in range(50)], ["GET", "a"], ["GET", "b"])
    await bed.until(lambda: len(bed.held) == 1)
    await bed.turns_taken()
    (writes,) = bed.held
    assert isinstance(writes, CommandsArrived)
    assert len(writes.commands) == 50
    bed.held = []
    bed.answer(writes)
    bed.listener.flush()
    assert await client.replies(50) == [b"OK"] * 50
    await bed.until(lambda: len(bed.held) == 1)
    (reads,) = bed.held
    assert isinstance(reads, KeysArrived)
    assert (list(reads.keys), reads.stale) == ([b"a", b"b"], False)
    bed.release()
    assert await client.replies(2) == [b"49", None]


async def test_answers_may_come_in_any_order(bed: Bed) -> None:
    bed.holds = True
    client = await bed.client()
    for number in range(3):
        await client.send(["INCR", "a"], ["PING"])
        await bed.until(lambda count=number + 1: len(bed.held) == count)  # type: ignore[misc]
    bed.held.reverse()
    bed.release()
    assert await client.replies(6) == [3, b"PONG", 2, b"PONG", 1, b"PONG"]


async def test_stale_reads_say_so_to_the_node_and_keep_their_place(bed: Bed) -> None:
    client = await bed.client()
    await client.ask("SET", "a", "1")
    bed.holds = True
    await client.send(["GET", "a"], ["READONLY"], ["GET", "a"], ["READWRITE"], ["GET", "a"])
    await bed.until(lambda: len(bed.held) == 1)
    await bed.turns_taken()
    assert [item.stale for item in bed.held if isinstance(item, KeysArrived)] == [False]
    bed.release()
    assert await client.replies(5) == [b"1", b"OK", b"1", b"OK", b"1"]
    reads = [item for item in bed.inputs if isinstance(item, KeysArrived)]
    assert [item.stale for item in reads] == [False, True, False]


async def test_the_form_of_a_reply_is_that_of_the_moment_of_its_command(bed: Bed) -> None:
    client = await bed.client()
    await client.send(["GET", "a"], ["HELLO", "3"], ["GET", "a"], ["HELLO", "2"], ["GET", "a"])
    content = b""
    while content.count(b"\r\n$-1\r\n") < 1:
        content += await client.stream.receive_some()
    assert content.startswith(b"$-1\r\n%7\r\n")
    assert b"\r\n_\r\n*14\r\n" in content
    assert content.endswith(b"*0\r\n$-1\r\n")


# --- bounds of what is under way ------------------------------------------------------------


async def test_no_more_commands_of_a_connection_are_under_way_than_the_limit(bed: Bed) -> None:
    bed.holds = True
    client, other = await bed.client(), await bed.client()
    total = 3 * PIPELINE_MAX + 10
    await client.send(*[["INCR", "a"]] * total)
    await bed.until(lambda: bed.listener.under_way == PIPELINE_MAX)
    assert await bed.turns_taken() < 20
    assert bed.listener.under_way == PIPELINE_MAX
    await other.send(["INCR", "b"])
    await bed.until(lambda: bed.listener.under_way == PIPELINE_MAX + 1)
    bed.release()
    assert await client.replies(total) == list(range(1, total + 1))
    assert await other.reply() == 1


async def test_a_full_node_is_not_asked_more_and_nobody_is_forgotten(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.UNDER_WAY_MAX", 100)
    bed.holds = True
    clients = [await bed.client() for _ in range(8)]
    for client in clients:
        await client.send(*[["INCR", "a"]] * 40)
    await bed.until(lambda: bed.listener.under_way == 100)
    # Sockets are readable all the time, and nobody can do anything about it.
    assert await bed.turns_taken() < 20
    assert bed.listener.under_way == 100
    served: list[int] = []
    while len(served) < 8 * 40:
        held, bed.held = bed.held, []
        for item in held:
            bed.answer(item)
        bed.listener.flush()
        assert bed.listener.under_way <= 100
        await bed.until(lambda: bool(bed.held) or bed.state.revision == 8 * 40)
        served = list(range(bed.state.revision))
    numbers = [await client.replies(40) for client in clients]
    assert sorted(number for each in numbers for number in each) == list(range(1, 8 * 40 + 1))
    assert all(each == sorted(each) for each in numbers)


async def test_a_turn_of_the_node_has_no_more_commands_than_are_done_between_two_heartbeats(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.TURN_COMMANDS_MAX", 10)
    clients = [await bed.client() for _ in range(5)]
    for client in clients:
        await client.send(*[["INCR", "a"]] * 20, *[["GET", "a"]] * 20)
    for client in clients:
        numbers = await client.replies(40)
        assert numbers[:20] == sorted(numbers[:20])
        assert set(map(int, numbers[20:])) <= {*range(numbers[19], 101)}
    sizes = [
        len(item.commands if isinstance(item, CommandsArrived) else item.keys)
        for item in bed.inputs
        if isinstance(item, (CommandsArrived, KeysArrived))
    ]
    assert max(sizes) == 10
    assert sum(sizes) == 5 * 40
    assert await bed.turns_taken() < 20


async def test_a_turn_has_no_more_commands_that_are_answered_at_once_either(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.TURN_COMMANDS_MAX", 100)
    clients = [await bed.client() for _ in range(10)]
    await bed.until(lambda: len(bed.listener._connections) == 10)
    before = bed.turns
    for client in clients:
        await client.send(*[["PING"], ["NONSENSE"], ["ECHO", "x"]] * 100)
    for client in clients:
        replies = await client.replies(300)
        assert replies[::3] == [b"PONG"] * 100
        assert replies[2::3] == [b"x"] * 100
    assert bed.turns - before >= 3_000 // 100
    assert await bed.turns_taken() < 20


async def test_those_who_waited_for_room_come_before_those_who_had_it(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.UNDER_WAY_MAX", 10)
    bed.holds = True
    greedy = [await bed.client() for _ in range(2)]
    for client in greedy:
        await client.send(*[["INCR", "a"]] * 2_000)
    await bed.until(lambda: bed.listener.under_way == 10)
    modest = await bed.client()
    await modest.send(["INCR", "b"])
    rounds = 0
    while bed.state.get("b") is None:
        await bed.until(lambda: bool(bed.held))
        held, bed.held = bed.held, []
        for item in held:
            bed.answer(item)
        bed.listener.flush()
        rounds += 1
    assert rounds <= 5


async def test_commands_of_a_client_that_has_gone_count_until_they_are_answered(bed: Bed) -> None:
    bed.holds = True
    for _ in range(3):
        client = await bed.client()
        before = bed.listener.under_way
        await client.send(*[["INCR", "a"]] * 100, ["GET", "a"])
        await bed.until(lambda: bed.listener.under_way == before + 100)  # noqa: B023
        client.reset()
        await bed.until(lambda: not bed.listener._connections)
    assert bed.listener.under_way == 300
    # It has the descriptor of one of them, and nothing else.
    other = await bed.client()
    await other.send(["INCR", "b"])
    await bed.until(lambda: bed.listener.under_way == 301)
    bed.release()
    assert await other.reply() == 1
    assert bed.listener.under_way == 0
    assert bed.state.get("a").value == b"300"  # type: ignore[union-attr]
    assert await other.ask("PING") == b"PONG"


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


# --- where there is no result ---------------------------------------------------------------


def refusal(code: str, message: str = "it is so", **fields: Any) -> ErrorReply:
    return ErrorReply(code=code, message=message, cause="because", **fields)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (refusal("not-leader", leader="n2/b"), "MOVED 11058 10.0.0.2:6379"),
        (
            refusal("not-leader", leader="n3/c"),
            "CLUSTERDOWN it is so: because, which serves no Redis clients as far as is known here",
        ),
        (refusal("unavailable"), "CLUSTERDOWN it is so: because"),
        (refusal("unavailable", NOT_NOW), "TRYAGAIN not now: because"),
        (refusal("unknown-outcome"), "UNCERTAIN it is so: because"),
        (refusal("disk-full"), "ERR it is so: because"),
        (refusal("invalid"), "ERR it is so: because"),
    ],
)
async def test_the_first_word_of_an_error_says_whether_to_ask_again_elsewhere(
    bed: Bed, reply: ErrorReply, expected: str
) -> None:
    bed.redis_addresses["n2/b"] = "10.0.0.2:6379"
    bed.refusal = reply
    client = await bed.client()
    await client.send(["SET", "somekey", "1"], ["GET", "somekey"], ["PING"])
    assert text(await client.reply()) == expected
    assert text(await client.reply()) == expected
    assert await client.reply() == b"PONG"
    # The connection is as good as before.
    bed.refusal = None
    assert await client.ask("INCR", "a") == 1


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("somekey", 11058),
        ("foo{hash_tag}", 2515),
        ("{hash_tag}other", 2515),
        ("foo", 12182),
        ("{foo}{bar}", 12182),
    ],
)
async def test_a_redirection_names_the_slot_of_the_key(bed: Bed, key: str, slot: int) -> None:
    bed.redis_addresses["n2/b"] = "10.0.0.2:6379"
    bed.refusal = refusal("not-leader", leader="n2/b")
    client = await bed.client()
    for command in (["SET", key, "1"], ["GET", key], ["MSET", key, "1", "b", "2"], ["DEL", key]):
        assert text(await client.ask(*command)) == f"MOVED {slot} 10.0.0.2:6379"


async def test_the_parts_of_a_key_that_are_no_tag_count_for_its_slot(bed: Bed) -> None:
    bed.redis_addresses["n2/b"] = "10.0.0.2:6379"
    bed.refusal = refusal("not-leader", leader="n2/b")
    client = await bed.client()
    slots = {text(await client.ask("GET", key)) for key in ("{}a", "{}b", "a{}", "{a", "}a{")}
    assert len(slots) == 5


# --- values that are asked again --------------------------------------------------------------


async def held(bed: Bed, count: int) -> list[Input]:
    """Wait for so many inputs, and take them away from the driver."""
    await bed.until(lambda: len(bed.held) == count)
    found, bed.held = bed.held, []
    return found


async def test_reads_whose_values_had_no_room_come_although_later_ones_were_answered_first(
    bed: Bed,
) -> None:
    client = await bed.client()
    await client.ask("SET", "k", b"v" * VALUE_BYTES_MAX)
    bed.holds = True
    await client.send(*[["GET", "k"]] * 6)
    (first,) = await held(bed, 1)
    bed.answer(first)
    bed.listener.flush()
    assert len(await client.replies(4)) == 4
    (again,) = await held(bed, 1)
    assert isinstance(again, KeysArrived)
    assert len(again.keys) == 2
    await client.send(*[["GET", "k"]] * 6)
    (later,) = await held(bed, 1)
    bed.answer(later)
    bed.answer(again)
    bed.listener.flush()
    bed.holds = False
    bed.release()
    assert await client.replies(8) == [b"v" * VALUE_BYTES_MAX] * 8


async def test_values_for_who_has_left_with_replies_behind_it_find_nobody(bed: Bed) -> None:
    client = await bed.client()
    await client.ask("SET", "k", b"v" * VALUE_BYTES_MAX)
    bed.holds = True
    await client.send(*[["GET", "k"]] * 6)
    await bed.until(lambda: len(bed.held) == 1)
    await client.send(*[["GET", "k"]] * 6)
    first, second = await held(bed, 2)
    bed.answer(first)
    client.reset()
    await bed.until(lambda: not bed.listener._connections)
    bed.answer(second)
    assert await (await bed.client()).ask("PING") == b"PONG"


async def test_no_read_of_a_connection_sees_less_than_the_one_before(bed: Bed) -> None:
    client, other = await bed.client(), await bed.client()
    old, new = b"1" * VALUE_BYTES_MAX, b"2" * VALUE_BYTES_MAX
    await client.ask("SET", "k", old)
    bed.holds = True
    await client.send(*[["GET", "k"]] * 6)
    await bed.until(lambda: len(bed.held) == 1)
    await client.send(["GET", "k"])
    first, second = await held(bed, 2)
    bed.answer(first)
    bed.listener.flush()
    found = await client.replies(4)
    await bed.turns_taken()
    again, bed.held = bed.held, []
    bed.answer(second)
    bed.holds = False
    bed.listener.flush()
    assert await other.ask("SET", "k", new) == b"OK"
    for item in again:
        bed.answer(item)
    bed.listener.flush()
    found += await client.replies(3)
    assert [value[:1] for value in found] == sorted(value[:1] for value in found)


async def test_connections_that_wait_for_a_gap_do_not_stand_in_the_way_of_all_others(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.OUTBOXES_BYTES_MAX", 2 * VALUE_BYTES_MAX)
    bed.values_bytes_max = 3 * VALUE_BYTES_MAX
    clients = [await bed.client() for _ in range(8)]
    await clients[0].ask("SET", "k", b"v" * VALUE_BYTES_MAX)
    for client in clients:
        await client.send(*[["GET", "k"]] * 12)
    async with trio.open_nursery() as nursery:

        async def take_all(client: Client) -> None:
            assert len(await client.replies(12)) == 12

        for client in clients:
            nursery.start_soon(take_all, client)
    assert await clients[0].ask("PING") == b"PONG"


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
