"""Questions to the state, transactions, and the end of a connection, at the listener."""

from __future__ import annotations

import pytest
import trio

from raftd.commands import VALUE_BYTES_MAX
from raftd.inputs import StateAsked
from raftd.protocol import ErrorReply
from tests.network.redis_bed import Bed, big_values, text

# --- questions to the state -----------------------------------------------------------------


async def test_questions_keep_their_place_between_reads_and_writes(bed: Bed) -> None:
    client = await bed.client()
    await client.send(
        *(["SET", "a", "1"], ["MGET", "a", "b"], ["GET", "a"], ["TTL", "a"], ["SET", "a", "2"]),
        *(["EXISTS", "a", "a"], ["GET", "a"], ["DEL", "a"], ["MGET", "a"], ["SCAN", "0"]),
        *(["READONLY"], ["MGET", "a"], ["GET", "a"], ["READWRITE"], ["STRLEN", "a"]),
    )
    assert await client.replies(15) == [
        *(b"OK", [b"1", None], b"1", -1, b"OK"),
        *(2, b"2", 1, [None], [b"0", []]),
        *(b"OK", [None], None, b"OK", 0),
    ]


async def test_questions_of_many_clients_are_one_input_and_answered_at_one_point(bed: Bed) -> None:
    bed.holds = True
    clients = [await bed.client() for _ in range(5)]
    for number, client in enumerate(clients):
        await client.send(["GET", "a"], ["MGET", "a", "b"], ["STRLEN", "a"])
        await bed.until(lambda count=number: bed.listener.under_way == 3 * count + 3)
    assert all(isinstance(item, StateAsked) for item in bed.held)
    bed.release()
    for client in clients:
        assert await client.replies(3) == [None, [None, None], 0]


async def test_a_question_that_is_refused_by_what_it_finds_is_an_error_of_its_own(bed: Bed) -> None:
    await big_values(bed, 1)
    client = await bed.client()
    await client.send(["MGET", *["big0"] * 17], ["GET", "a"])
    refused, value = await client.replies(2)
    assert "ask for fewer keys" in text(refused)
    assert value is None


async def test_long_answers_to_questions_wait_for_room(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.OUTBOX_BYTES_MAX", 100_000)
    values = await big_values(bed, 3)
    client = await bed.client()
    asked = [["MGET", "big0", "big1"], ["GET", "big2"], ["STRLEN", "big0"], ["MGET", "big2"]]
    await client.send(*asked, *asked)
    expected = [values[:2], values[2], VALUE_BYTES_MAX, values[2:]]
    assert await client.replies(8) == expected * 2


async def test_questions_of_a_client_that_has_gone_are_not_answered(bed: Bed) -> None:
    bed.holds = True
    client = await bed.client()
    await client.send(["MGET", "a", "b"], ["WATCH", "a"])
    await bed.until(lambda: bed.listener.under_way == 2)
    client.reset()
    await bed.until(lambda: not bed.listener._connections)
    bed.clients.remove(client)
    bed.release()
    assert bed.listener.under_way == 0


async def test_many_costly_questions_do_not_hold_up_the_others(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.TURN_COMMANDS_MAX", 50)
    bed.holds = True
    client, other = await bed.client(), await bed.client()
    await client.send(*[["MGET", *["a"] * 40]] * 10)
    # Two of them take more than a turn may.
    await bed.until(lambda: len(bed.held) == 5)
    assert bed.listener.under_way == 10
    bed.release()
    assert await other.ask("GET", "a") is None
    assert await client.replies(10) == [[None] * 40] * 10


# --- transactions ---------------------------------------------------------------------------


async def test_exec_waits_for_the_keys_that_it_depends_on(bed: Bed) -> None:
    client, other = await bed.client(), await bed.client()
    assert await other.ask("SET", "a", "1") == b"OK"
    await client.send(
        *(["WATCH", "a"], ["MULTI"], ["INCR", "a"], ["GET", "a"], ["EXEC"], ["GET", "a"]),
    )
    assert await client.replies(6) == [b"OK", b"OK", b"QUEUED", b"QUEUED", [2, b"2"], b"2"]
    assert await client.ask("WATCH", "a") == b"OK"
    assert await other.ask("SET", "a", "7") == b"OK"
    await client.send(["MULTI"], ["INCR", "a"], ["EXEC"], ["GET", "a"])
    assert await client.replies(4) == [b"OK", b"QUEUED", None, b"7"]


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("not-leader", "CLUSTERDOWN"),
        ("unavailable", "CLUSTERDOWN"),
        ("unknown-outcome", "UNCERTAIN"),
    ],
)
async def test_exec_alone_says_what_became_of_a_transaction(bed: Bed, code: str, word: str) -> None:
    client = await bed.client()
    await client.send(["MULTI"], ["SET", "a", "1"], ["RAFT.DO", "s", "1", "GET", "a"])
    assert (await client.replies(3))[:2] == [b"OK", b"QUEUED"]
    assert await client.ask("DISCARD") == b"OK"
    await client.send(["MULTI"], ["SET", "a", "1"])
    await client.replies(2)
    bed.refusal = ErrorReply(code=code, message="so it is")
    assert text(await client.ask("EXEC")).startswith(word)
    assert text(await client.ask("WATCH", "a")).startswith(word)
    bed.refusal = None
    # What could not be watched lets the next transaction do nothing, and only that.
    await client.send(
        ["MULTI"], ["SET", "a", "1"], ["EXEC"], ["MULTI"], ["SET", "a", "2"], ["EXEC"]
    )
    *_, refused, started, queued, executed = await client.replies(6)
    assert text(refused).startswith("EXECABORT")
    assert (started, queued, executed) == (b"OK", b"QUEUED", [b"OK"])


async def test_what_a_client_has_begun_is_forgotten_with_it(bed: Bed) -> None:
    client = await bed.client()
    await client.send(["MULTI"], ["SET", "a", b"x" * 100_000])
    await client.replies(2)
    assert bed.listener.surroundings.queued_bytes > 100_000
    client.reset()
    await bed.until(lambda: not bed.listener._connections)
    bed.clients.remove(client)
    assert bed.listener.surroundings.queued_bytes == 0


# --- the end of a connection ----------------------------------------------------------------


async def test_who_is_refused_hears_why_whatever_it_goes_on_sending(bed: Bed) -> None:
    client = await bed.client()
    await client.send(["SET", "a", "1"])
    await client.write(b"*1\r\n$9999999\r\n" + b"x" * 300_000)
    await bed.turns_taken()
    # It is not reset, which would take away what was said to it.
    await client.write(b"x" * 300_000)
    assert await client.reply() == b"OK"
    assert "more than" in text(await client.reply())
    await client.end()
    await client.stream.aclose()
    await bed.until(lambda: not bed.listener._connections)


async def test_who_goes_on_sending_for_too_long_or_too_much_is_closed(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_listener.LINGER_BYTES_MAX", 1_000_000)
    slow, fast = await bed.client(), await bed.client()
    for client in (slow, fast):
        await client.write(b"nonsense\r\n*x\r\n")
        assert "unknown command" in text(await client.reply())
        assert "decimal digits" in text(await client.reply())
        await client.end()
    assert len(bed.listener._lingering) == 2

    async def send_on() -> None:
        while True:
            await fast.write(b"x" * 100_000)
            await bed.turns_taken(20)

    with pytest.raises(trio.BrokenResourceError):
        await send_on()
    assert len(bed.listener._lingering) == 1
    bed.tick(1)
    await bed.until(lambda: not bed.listener._connections)


async def test_clients_are_counted_and_numbered(bed: Bed) -> None:
    first, second = await bed.client(), await bed.client()
    numbers = {await first.ask("CLIENT", "ID"), await second.ask("CLIENT", "ID")}
    assert len(numbers) == 2
    assert b"connected_clients:2\r\n" in await first.ask("INFO", "clients")
    assert b"addr=127.0.0.1:" in await first.ask("CLIENT", "INFO")
