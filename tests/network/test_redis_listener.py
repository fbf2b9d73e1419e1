"""Clients of the Redis protocol, with real sockets: what they are told, and in which order."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio

from raftd.commands import VALUE_BYTES_MAX
from raftd.inputs import CommandsArrived, Input, KeysArrived
from raftd.network.redis_listener import PIPELINE_MAX
from raftd.protocol import NOT_NOW, ErrorReply
from tests.network.redis_bed import (
    Bed,
    Client,
    encoded,
    opened_bed,
    text,
)

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
