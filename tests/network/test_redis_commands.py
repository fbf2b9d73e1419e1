"""What each command of the Redis protocol asks for, answers and refuses."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import (
    INTEGER_MAX,
    INTEGER_MIN,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Command,
    CommandBody,
    Delete,
    DeleteMany,
    Increment,
    Put,
    PutMany,
    Result,
    decode_command,
    parse_integer,
)
from raftd.network.redis_actions import (
    CommandError,
    Query,
    Read,
    Reply,
    Session,
    Write,
)
from raftd.network.redis_catalogue import DESCRIPTIONS
from raftd.network.redis_commands import interpret
from raftd.network.redis_unsupported import ADVICE

LIVES = 5


def asked(line: str, session: Session | None = None, features: int = LIVES) -> Any:
    words = [word.encode() for word in line.split()]
    return interpret(words, session or Session(), features)


def refused(line: str | list[bytes], features: int = LIVES) -> str:
    words = line if isinstance(line, list) else [word.encode() for word in line.split()]
    session = Session()
    with pytest.raises(CommandError) as refusal:
        interpret(words, session, features)
    assert session == Session()
    return str(refusal.value)


def read(reply: bytes) -> Any:
    reader = hiredis.Reader()
    reader.feed(reply)
    found = reader.gets()
    assert reader.gets() is False
    return found


# --- writes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("SET a 1", Put("a", b"1")),
        ("set a 1", Put("a", b"1")),
        ("SET a 1 nx", Put("a", b"1", if_absent=True)),
        ("DEL a", Delete("a")),
        ("UNLINK a", Delete("a")),
        ("DEL a b a", DeleteMany(["a", "b", "a"])),
        ("INCR a", Increment("a", 1)),
        ("DECR a", Increment("a", -1)),
        ("INCRBY a -7", Increment("a", -7)),
        ("INCRBY a 9223372036854775807", Increment("a", INTEGER_MAX)),
        ("INCRBY a -9223372036854775808", Increment("a", INTEGER_MIN)),
        ("DECRBY a 7", Increment("a", -7)),
        ("DECRBY a 9223372036854775807", Increment("a", -INTEGER_MAX)),
        ("DECRBY a -9223372036854775807", Increment("a", INTEGER_MAX)),
    ],
)
def test_a_write_is_a_command_for_the_log(line: str, body: CommandBody) -> None:
    write = asked(line)
    assert isinstance(write, Write)
    assert decode_command(write.encoded) == Command(body)
    assert write.key == b"a"


def test_several_keys_are_set_by_one_command() -> None:
    write = asked("MSET a 1 b 2 a 3")
    pairs = [["a", b"1"], ["b", b"2"], ["a", b"3"]]
    decoded = decode_command(write.encoded).body
    assert isinstance(decoded, PutMany)
    assert [list(pair) for pair in decoded.pairs] == pairs


APPLIED = Result(True, 5)
NOT_APPLIED = Result(False, 5)
REFUSED = Result(False, 5, code="not-a-number", message="value is not an integer")


@pytest.mark.parametrize(
    ("line", "result", "expected"),
    [
        ("SET a 1", APPLIED, b"OK"),
        ("SET a 1 NX", APPLIED, b"OK"),
        ("SET a 1 NX", NOT_APPLIED, None),
        ("MSET a 1 b 2", APPLIED, b"OK"),
        ("DEL a", APPLIED, 1),
        ("DEL a", NOT_APPLIED, 0),
        ("DEL a b", Result(True, 5, number=2), 2),
        ("DEL a b", Result(False, 5, number=0), 0),
        ("INCR a", Result(True, 5, number=-3), -3),
        ("INCR a", Result(True, 5, number=0), 0),
    ],
)
def test_the_result_of_a_write_becomes_a_reply(line: str, result: Result, expected: Any) -> None:
    assert read(asked(line).form(result)) == expected
    assert read(asked(line, Session(protocol=3)).form(result)) == expected


@pytest.mark.parametrize(
    "line", ["SET a 1", "SET a 1 NX", "MSET a 1", "DEL a", "DEL a b", "INCR a"]
)
def test_a_refusal_of_the_state_becomes_an_error(line: str) -> None:
    error = read(asked(line).form(REFUSED))
    assert isinstance(error, hiredis.ReplyError)
    assert str(error) == "ERR value is not an integer"


@pytest.mark.parametrize(
    "line", ["INCR a", "DECR a", "INCRBY a 1", "DECRBY a 1", "MSET a 1", "DEL a b", "UNLINK a b"]
)
def test_what_not_every_server_can_apply_is_refused(line: str) -> None:
    for features in (0, 3):
        assert "needs every server of the cluster" in refused(line, features)
        assert line.split()[0] in refused(line, features)


@pytest.mark.parametrize(
    "line",
    [
        "SET a 1 EX 5",
        "SETNX a 1",
        "APPEND a 1",
        "EXPIRE a 1",
        "MULTI",
        "WATCH a",
        "RAFT.DO s 1 SET a 1",
    ],
)
def test_what_needs_transactions_is_refused_before_every_server_has_them(line: str) -> None:
    assert "needs every server of the cluster" in refused(line, 4)


def test_what_every_release_can_apply_is_never_refused() -> None:
    for line in ("SET a 1", "SET a 1 NX", "DEL a", "GET a", "EXISTS a"):
        assert isinstance(asked(line, features=0), (Write, Read))


# --- reads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", [False, True])
def test_reads_are_those_of_one_key(stale: bool) -> None:
    session = Session(stale_reads=stale)
    for line in ("GET a", "EXISTS a"):
        found = asked(line, session)
        assert (found.key, found.stale) == (b"a", stale)


def test_the_nulls_are_those_of_the_protocol_that_was_asked_for() -> None:
    two, three = Session(), Session(protocol=3)
    assert asked("GET a", two).form(None) == b"$-1\r\n"
    assert asked("GET a", three).form(None) == b"_\r\n"
    assert asked("SET a 1 NX", two).form(NOT_APPLIED) == b"$-1\r\n"
    assert asked("SET a 1 NX", three).form(NOT_APPLIED) == b"_\r\n"
    for session in (two, three):
        assert asked("GET a", session).form(b"") == b"$0\r\n\r\n"
        assert asked("EXISTS a", session).form(None) == b":0\r\n"
        assert asked("EXISTS a", session).form(b"") == b":1\r\n"


# --- what is known at once ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("PING", b"PONG"),
        ("PING hello", b"hello"),
        ("ECHO hello", b"hello"),
        ("CONFIG GET save", [b"save", b""]),
        ("CONFIG GET none", []),
        (
            "CONFIG GET append* databases",
            [b"appendfsync", b"always", b"appendonly", b"yes", b"databases", b"1"],
        ),
        ("CLIENT SETNAME me", b"OK"),
        ("CLIENT SETINFO lib-name x", b"OK"),
        ("CLIENT SETINFO LIB-VER 1", b"OK"),
        ("CLIENT GETNAME", None),
        ("CLIENT ID", 0),
        ("CLIENT NO-EVICT on", b"OK"),
        ("CLIENT REPLY ON", b"OK"),
        ("CLIENT GETREDIR", -1),
        ("SELECT 0", b"OK"),
        ("READONLY", b"OK"),
        ("READWRITE", b"OK"),
    ],
)
def test_some_commands_are_answered_at_once(line: str, expected: Any) -> None:
    reply = asked(line)
    assert isinstance(reply, Reply)
    assert (read(reply.content), reply.closes) == (expected, False)


def test_info_names_both_versions() -> None:
    found = read(asked("INFO server").content)
    assert b"redis_version:7." in found
    assert b"raftd_version:" in found


def test_quit_ends_the_connection_and_so_does_a_request_of_a_browser() -> None:
    assert asked("QUIT") == Reply(b"+OK\r\n", closes=True)
    assert asked("POST / HTTP/1.1").closes
    assert asked("host: localhost").closes


def test_readonly_and_readwrite_change_the_reads_behind_them() -> None:
    session = Session()
    asked("READONLY", session)
    assert asked("GET a", session).stale
    asked("READWRITE", session)
    assert not asked("GET a", session).stale


def test_hello_is_a_map_in_the_protocol_that_it_asks_for() -> None:
    session = Session()
    assert session.protocol == 2
    flat = read(asked("HELLO", session).content)
    assert flat[:2] == [b"server", b"raftd"]
    found = read(asked("HELLO 3 SETNAME me", session).content)
    assert session.name == "me"
    assert (found[b"proto"], found[b"role"], found[b"modules"]) == (3, b"master", [])
    assert session.protocol == 3
    assert read(asked("CONFIG GET save", session).content) == {b"save": b""}
    assert isinstance(read(asked("HELLO 2", session).content), list)
    assert session.protocol == 2


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        *("SET", "SET a", "GET", "GET a b", "DEL", "MSET", "MSET a", "MSET a 1 b", "INCR"),
        *("INCR a b", "DECR", "INCRBY a", "INCRBY a 1 2", "DECRBY a", "PING a b", "ECHO"),
    ],
)
def test_a_wrong_number_of_arguments_is_refused(line: str) -> None:
    name = line.split()[0].lower()
    assert refused(line) == f"ERR wrong number of arguments for '{name}' command"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("FLUSHALL", "ERR unknown command 'FLUSHALL', not supported by this server: it would not"),
        ("hset a b c", "ERR unknown command 'hset', not supported by this server: values are"),
        ("NONSENSE", "COMMAND LIST names those"),
        ("SET a 1 EX", "ERR syntax error"),
        ("SET a 1 EX 0", "ERR invalid expire time in 'set' command"),
        ("SET a 1 EX 1 PX 1", "ERR syntax error"),
        ("SET a 1 EX 1 KEEPTTL", "ERR syntax error"),
        ("SET a 1 KEEPTTL EX 1", "ERR syntax error"),
        ("SET a 1 NX XX", "ERR syntax error"),
        ("SET a 1 ever", "ERR syntax error"),
        ("SET a 1 EX 9223372036854775807", "ERR invalid expire time in 'set' command"),
        ("SETEX a 0 1", "ERR invalid expire time in 'setex' command"),
        ("PSETEX a -1 1", "ERR invalid expire time in 'psetex' command"),
        ("GETEX a EX", "ERR syntax error"),
        ("GETEX a EX 1 PERSIST", "ERR syntax error"),
        ("EXPIRE a 1 NX XX", "not compatible"),
        ("EXPIRE a 1 GT LT", "not compatible"),
        ("EXPIRE a 1 XX LT", "not supported"),
        ("EXPIRE a 1 NOW", "Unsupported option NOW"),
        ("EXPIRE a 9223372036854775807", "ERR invalid expire time in 'expire' command"),
        ("MSETNX a 1 b", "wrong number"),
        ("OBJECT FREQ a", "only ENCODING is"),
        ("OBJECT ENCODING", "wrong number"),
        ("SCAN x", "invalid cursor"),
        ("SCAN -1", "invalid cursor"),
        ("SCAN 18446744073709551616", "invalid cursor"),
        ("SCAN 0 COUNT 0", "syntax error"),
        ("SCAN 0 MATCH", "syntax error"),
        ("SCAN 0 LIMIT 5", "syntax error"),
        ("CLUSTER FORGET x", "changed with raftctl"),
        ("CLUSTER RESET", "changed with raftctl"),
        ("CLUSTER KEYSLOT", "wrong number"),
        ("COMMAND HELP", "unknown subcommand"),
        ("COMMAND GETKEYS PING", "no key arguments"),
        ("COMMAND GETKEYS GET", "Invalid number"),
        ("COMMAND GETKEYS nope a", "Invalid command"),
        ("RAFT REMOVE n1", "ERR syntax error, try RAFT HELP"),
        ("RAFT REMOVE", "changed with raftctl"),
        ("RAFT.DO s 0 INCR a", "serials count from 1 on"),
        ("RAFT.DO s 2 LOWEST 3 INCR a", "serials count from 1 on"),
        ("RAFT.DO s 2 LOWEST 2", "syntax error"),
        ("RAFT.DO s 1 GET a", "GET is none"),
        ("RAFT.DO s 1 PING", "PING is none"),
        ("RAFT.DO s 1 INCR", "wrong number of arguments for 'incr'"),
        ("RAFT.DO s 1 EXEC", "EXEC without MULTI"),
        ("EXEC", "EXEC without MULTI"),
        ("DISCARD", "DISCARD without MULTI"),
        ("WAIT x 1", "not an integer"),
        ("INCRBY a x", "not an integer or out of range"),
        ("INCRBY a 1.5", "not an integer or out of range"),
        ("INCRBY a +1", "not an integer or out of range"),
        ("INCRBY a 01", "not an integer or out of range"),
        ("INCRBY a 1_0", "not an integer or out of range"),
        ("INCRBY a 9223372036854775808", "not an integer or out of range"),
        ("DECRBY a -9223372036854775808", "decrement would overflow"),
        ("HELLO 4", "NOPROTO"),
        ("HELLO x", "NOPROTO"),
        ("HELLO 3 SETNAME", "Syntax error in HELLO"),
        ("CONFIG SET save x", "CONFIG knows only GET"),
        ("CONFIG", "wrong number"),
        ("CONFIG GET", "CONFIG knows only GET"),
        ("CLIENT KILL x", "CLIENT KILL is not supported"),
        ("CLIENT SETNAME", "not with so many"),
        ("CLIENT SETINFO lib-x y", "Unrecognized option"),
        ("CLIENT REPLY OFF", "knows only ON"),
        ("CLIENT", "wrong number"),
        ("SELECT 1", "one database"),
        ("SELECT", "wrong number"),
    ],
)
def test_what_is_not_supported_is_refused_in_words(line: str, why: str) -> None:
    assert why in refused(line)


@pytest.mark.parametrize("name", ["SET", "GET", "DEL", "EXISTS", "INCR", "MSET"])
@pytest.mark.parametrize("key", [b"", b"x" * (KEY_BYTES_MAX + 1), b"\xff"])
def test_keys_are_text_of_bounded_length(name: str, key: bytes) -> None:
    rest = [b"1"] if name in ("SET", "MSET") else []
    assert "ERR a key " in refused([name.encode(), key, *rest])
    if name in ("DEL", "MSET"):
        assert "ERR a key " in refused([name.encode(), b"good", *rest, key, *rest])


def test_keys_and_values_may_be_as_long_as_the_limits() -> None:
    key, value = b"k" * KEY_BYTES_MAX, b"v" * VALUE_BYTES_MAX
    assert isinstance(interpret([b"SET", key, value], Session(), 0), Write)
    assert "at most 1048576 bytes" in refused([b"SET", key, value + b"x"])
    assert "at most 1048576 bytes" in refused([b"MSET", b"a", b"1", key, value + b"x"])


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=5), st.sampled_from([0, 5]))
def test_any_words_are_an_action_or_refused(words: list[bytes], features: int) -> None:
    names = sorted({*DESCRIPTIONS, *ADVICE})
    for command in (words, *([name, *words] for name in names)):
        try:
            answer: Any = interpret(command, Session(), features)
        except CommandError as refusal:
            answer = str(refusal).partition(" ")[0]
        expected = (Reply, Write, Read, Query)
        assert isinstance(answer, expected) or answer in ("ERR", "NOPROTO", "WRONGPASS")


# --- numbers --------------------------------------------------------------------------------


@given(st.integers(-(2**70), 2**70))
def test_a_number_is_read_as_it_is_written(number: int) -> None:
    within = INTEGER_MIN <= number <= INTEGER_MAX
    assert parse_integer(b"%d" % number) == (number if within else None)


@pytest.mark.parametrize(
    "digits",
    [
        *(b"", b"-", b"-0", b"+1", b"00", b"01", b"-01", b" 1", b"1 ", b"1\n", b"1.0", b"1e3"),
        *(b"0x1", b"\xd9\xa1", b"1_0", b"9" * 5_000),
    ],
)
def test_there_is_one_way_to_write_a_number(digits: bytes) -> None:
    assert parse_integer(digits) is None
