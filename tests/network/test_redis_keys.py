"""What commands on keys do to the state, and what they answer: alone, and in the words of Redis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import VALUE_BYTES_MAX
from raftd.network.redis_transactions import READ_BYTES_MAX
from tests.network.redis_console import TIME_MS, Console

WRONG_NUMBER = "ERR value is not an integer or out of range"


@pytest.fixture
def console() -> Console:
    return Console()


# --- setting --------------------------------------------------------------------------------


def test_set_obeys_its_conditions_and_tells_of_the_value_before(console: Console) -> None:
    assert console.all(
        *("SET a 1 XX", "GET a", "SET a 1 NX", "SET a 2 NX", "GET a", "SET a 2 XX", "GET a"),
        *("SET a 3 GET", "SET b 1 GET", "SET a 4 NX GET", "GET a", "SET c 1 XX GET", "EXISTS c"),
        *("SETNX a 9", "SETNX d 9", "GETSET a 5", "GETSET e 5", "GET e"),
    ) == [
        *(None, None, b"OK", None, b"1", b"OK", b"2"),
        *(b"2", None, b"3", b"3", None, 0),
        *(0, 1, b"3", None, b"5"),
    ]


def test_several_keys_are_set_together_or_not_at_all(console: Console) -> None:
    assert console.all(
        *("MSETNX a 1 b 2", "MSETNX b 3 c 4", "MGET a b c", "MSETNX d 1 d 2", "GET d"),
    ) == [1, 0, [b"1", b"2", None], 1, b"2"]


def test_a_value_grows_at_its_end_and_is_read_in_parts(console: Console) -> None:
    assert console.all(
        *("APPEND a Hello", "APPEND a -World", "STRLEN a", "STRLEN none", "GETRANGE a 0 4"),
        *("GETRANGE a -5 -1", "GETRANGE a 6 100", "GETRANGE a 5 4", "GETRANGE a -3 -5"),
        *("GETRANGE a 0 -100", "GETRANGE none 0 -1", "SUBSTR a 1 1", "GETRANGE a 99 100"),
    ) == [
        *(5, 11, 11, 0, b"Hello"),
        *(b"World", b"World", b"", b""),
        *(b"H", b"", b"e", b""),
    ]
    console.ask([b"SET", b"long", b"x" * VALUE_BYTES_MAX])
    assert "maximum allowed size" in console.refused("APPEND long x")
    assert console.ask("STRLEN long") == VALUE_BYTES_MAX


def test_a_value_is_taken_away_with_its_key(console: Console) -> None:
    assert console.all("SET a 1", "GETDEL a", "GETDEL a", "EXISTS a") == [b"OK", b"1", None, 0]


def test_keys_are_counted_as_often_as_they_are_named(console: Console) -> None:
    console.all("SET a 1", "SET b 1")
    assert console.all("EXISTS a b a c", "TOUCH a c", "DEL a a c", "UNLINK b") == [3, 1, 1, 1]


def test_values_are_strings_and_some_are_numbers(console: Console) -> None:
    console.all("SET n 12", "SET t 12x")
    assert console.all(
        *("TYPE n", "TYPE none", "OBJECT ENCODING n", "OBJECT encoding t", "OBJECT ENCODING none")
    ) == [b"string", b"none", b"int", b"raw", None]


# --- lives ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "ttl_ms"),
    [
        ("SET a 1 EX 5", 5_000),
        ("SET a 1 PX 5", 5),
        ("SET a 1 EXAT 1005", 5_000),
        ("SET a 1 PXAT 1000005", 5),
        ("SET a 1 pxat 5", 1),
        ("SETEX a 5 1", 5_000),
        ("PSETEX a 5 1", 5),
    ],
)
def test_a_key_is_set_with_a_life(console: Console, line: str, ttl_ms: int) -> None:
    console.ask(line)
    assert console.all("GET a", "PTTL a", "PEXPIRETIME a") == [b"1", ttl_ms, TIME_MS + ttl_ms]


def test_what_is_left_of_a_life_is_told_in_every_way(console: Console) -> None:
    console.all("SET a 1", "SET b 1 PX 2600")
    assert console.all("TTL a", "PTTL a", "EXPIRETIME a", "TTL none") == [-1, -1, -1, -2]
    assert console.all("TTL b", "EXPIRETIME b", "PEXPIRETIME b") == [3, 1003, TIME_MS + 2600]
    console.world.time_ms += 1_200
    assert console.all("TTL b", "PTTL b") == [1, 1_400]
    # It ends when the cluster says so; until then it is there, and on its last.
    console.world.time_ms += 2_000
    assert console.all("PTTL b", "GET b") == [0, b"1"]


def test_what_sets_a_key_ends_its_life_and_what_changes_it_does_not(console: Console) -> None:
    for line, is_kept in (
        *(("SET a 2", False), ("SET a 2 KEEPTTL", True), ("MSET a 1", False), ("INCR a", True)),
        *(("INCRBY a 2", True), ("APPEND a 1", True), ("GETSET a 1", False), ("SETNX a 2", True)),
        *(("SET a 1 XX", False), ("DECR a", True), ("GETEX a", True), ("GETEX a PERSIST", False)),
    ):
        console.ask("SET a 1 EX 100")
        console.ask(line)
        assert (console.ask("TTL a") == 100) is is_kept, line


def test_a_life_is_changed_under_conditions(console: Console) -> None:
    console.ask("SET a 1")
    assert console.all(
        *("EXPIRE a 10 XX", "EXPIRE a 10 GT", "EXPIRE a 10 NX", "EXPIRE a 20 NX", "TTL a"),
        *("EXPIRE a 5 GT", "EXPIRE a 20 GT", "TTL a", "EXPIRE a 30 LT", "EXPIRE a 15 LT", "TTL a"),
        *("EXPIRE a 40 XX GT", "PEXPIRE a 1500", "PTTL a", "PERSIST a", "PERSIST a", "TTL a"),
        *("EXPIRE none 10", "PERSIST none", "EXPIREAT a 1100", "TTL a", "PEXPIREAT a 1200000"),
        "TTL a",
    ) == [
        *(0, 0, 1, 0, 10),
        *(0, 1, 20, 0, 1, 15),
        *(1, 1, 1500, 1, 0, -1),
        *(0, 0, 1, 100, 1),
        200,
    ]


@pytest.mark.parametrize(
    "line", ["EXPIRE a 0", "EXPIRE a -5", "EXPIREAT a 5", "PEXPIREAT a 999999"]
)
def test_a_key_whose_life_is_over_is_gone_at_once(console: Console, line: str) -> None:
    console.ask("SET a 1")
    assert console.all(line, "EXISTS a", line) == [1, 0, 0]


def test_a_value_is_read_and_its_life_changed_at_once(console: Console) -> None:
    console.ask("SET a 1")
    assert console.all("GETEX a EX 7", "TTL a", "GETEX a pxat 1000009", "PTTL a") == [
        *(b"1", 7),
        *(b"1", 9),
    ]
    assert console.all("GETEX a PERSIST", "TTL a", "GETEX none EX 1") == [b"1", -1, None]


# --- numbers --------------------------------------------------------------------------------


def test_what_is_no_number_is_not_counted_with(console: Console) -> None:
    console.all("SET a x", f"SET b {2**63 - 1}")
    assert console.refused("INCR a") == WRONG_NUMBER
    assert "overflow" in console.refused("INCR b")
    assert console.all("MULTI", "INCR a", "INCR b", "INCRBY c 5", "EXEC")[-1][2] == 5
    assert console.all("GET a", "GET b") == [b"x", b"%d" % (2**63 - 1)]


# --- several at one point -------------------------------------------------------------------


def test_what_would_take_too_much_memory_at_once_is_refused(console: Console) -> None:
    console.ask([b"SET", b"a", b"x" * VALUE_BYTES_MAX])
    count = READ_BYTES_MAX // VALUE_BYTES_MAX
    assert len(console.ask("MGET" + " a" * count)) == count
    assert "ask for fewer keys" in console.refused("MGET" + " a" * (count + 1))


def test_nulls_are_those_of_the_protocol(console: Console) -> None:
    console.session.protocol = 3
    assert console.reply("MGET a") == b"*1\r\n_\r\n"
    assert console.reply("SET a 1 XX") == b"_\r\n"
    assert console.reply("GETDEL a") == b"_\r\n"
    console.session.protocol = 2
    assert console.reply("MGET a") == b"*1\r\n$-1\r\n"
    assert console.reply("SET a 1 XX") == b"$-1\r\n"


# --- alone and in a transaction -------------------------------------------------------------

_ARGUMENTS = st.sampled_from(
    ["a", "b", "c", "1", "-3", "0", "x", "NX", "XX", "GET", "EX", "PX", "KEEPTTL", "PERSIST"]
)
_LINES = st.builds(
    lambda name, arguments: " ".join([name, *arguments]),
    st.sampled_from(
        [
            *("SET", "SETNX", "SETEX", "GETSET", "MSET", "APPEND", "INCR", "INCRBY", "DECRBY"),
            *("GET", "MGET", "STRLEN", "GETRANGE", "EXISTS", "TYPE", "DEL", "GETDEL", "EXPIRE"),
            *("PERSIST", "GETEX", "TTL", "PTTL", "EXPIRETIME", "OBJECT ENCODING"),
        ]
    ),
    st.lists(_ARGUMENTS, max_size=4),
)


@given(st.lists(_LINES, max_size=8))
def test_commands_do_and_answer_the_same_alone_and_in_a_transaction(lines: list[str]) -> None:
    alone, together = Console(), Console()
    expected: list[Any] = []
    for line in lines:
        reply = alone.reply(line)
        expected.append(reply)
    is_refused = False
    together.ask("MULTI")
    kept = []
    for line, reply in zip(lines, expected, strict=True):
        queued = together.reply(line)
        if queued.startswith(b"-"):
            # What it does not take it would not have taken alone.
            assert queued == reply
            is_refused = True
        else:
            kept.append(reply)
    executed = together.reply("EXEC")
    if is_refused:
        assert executed.startswith(b"-EXECABORT")
        return
    assert executed == b"*%d\r\n%b" % (len(kept), b"".join(kept))
    everything = "MGET a b c 1 -3 0 x"
    assert alone.reply(everything) == together.reply(everything)
    for key in ("a", "b", "c", "1"):
        assert alone.reply(f"PTTL {key}") == together.reply(f"PTTL {key}")
