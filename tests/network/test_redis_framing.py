"""The bytes of the Redis protocol: whatever comes is cut into commands, or refused in time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Sequence

import hiredis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raftd.codec import OPENING_MAGIC, encode_frame
from raftd.network.redis_framing import (
    ARGUMENT_MEMORY_BYTES,
    ARGUMENTS_MAX,
    COMMAND_BYTES_MAX,
    LINE_BYTES_MAX,
    NULL_2,
    NULL_3,
    OK,
    CommandDecoder,
    FramingError,
    array,
    bulk,
    error,
    integer,
    mapping,
    only_command,
    simple,
    split_line,
)

MANY = 1 << 30
PING = b"*1\r\n$4\r\nPING\r\n"
PIECE_BYTES_MAX = 200_000

arguments = st.binary(max_size=40) | st.sampled_from(
    [b"", b"\r\n", b"*1\r\n$4\r\nPING\r\n", b"\r\n$3\r\n", b"x" * 1023, b"y" * 1024, b"*99999\r\n"]
)
words = st.binary(min_size=1, max_size=8).filter(
    lambda word: len(word.split()) == 1 and not {b"'", b'"'} & {word[i : i + 1] for i in range(8)}
)


def is_typed_by_hand(command: Sequence[bytes]) -> bool:
    """Whether it can be: nothing in it ends a word, and it does not begin as an array does."""
    return b" ".join(command).split() == list(command) and not command[0].startswith(b"*")


def encoded(command: Sequence[bytes]) -> bytes:
    return array([bulk(argument) for argument in command])


def cut(content: bytes, places: Iterable[int]) -> list[bytes]:
    """Return the pieces of `content`, none of them empty."""
    ends = sorted({place % len(content) for place in places} - {0}) if content else []
    starts = [0, *ends]
    return [content[a:b] for a, b in zip(starts, [*ends, len(content)], strict=True)]


def decoded(pieces: Iterable[bytes], count_max: int = MANY) -> list[list[bytes]]:
    decoder = CommandDecoder()
    commands: list[list[bytes]] = []
    for piece in pieces:
        decoder.feed(piece)
        while found := decoder.take(count_max):
            assert len(found) <= count_max
            commands += found
    return commands


def refusal(pieces: Iterable[bytes]) -> tuple[str, list[list[bytes]], int]:
    """Return why they are refused, the commands before, and how many bytes that took."""
    decoder = CommandDecoder()
    commands: list[list[bytes]] = []
    fed_bytes = 0
    for piece in pieces:
        decoder.feed(piece)
        fed_bytes += len(piece)
        try:
            while found := decoder.take(MANY):
                commands += found
        except FramingError as problem:
            with pytest.raises(FramingError):
                decoder.take(MANY)
            return str(problem), commands, fed_bytes
    raise AssertionError(f"not refused, {len(commands)} commands")


def in_single_bytes(content: bytes) -> list[bytes]:
    return [content[place : place + 1] for place in range(len(content))]


# --- commands -------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.lists(arguments, min_size=1, max_size=12), st.just(False))
        | st.tuples(st.lists(words, min_size=1, max_size=5), st.just(True)),
        max_size=12,
    ),
    st.lists(st.integers(0, 5_000), max_size=20),
    st.sampled_from([1, 2, 7, MANY]),
)
def test_the_commands_are_the_same_however_the_stream_is_cut(
    written: list[tuple[list[bytes], bool]], places: list[int], count_max: int
) -> None:
    content = b"".join(
        b" ".join(command) + b"\r\n" if by_hand and is_typed_by_hand(command) else encoded(command)
        for command, by_hand in written
    )
    commands = [command for command, _ in written]
    assert decoded(cut(content, places), count_max) == commands
    assert decoded(in_single_bytes(content), count_max) == commands


def test_a_server_that_dials_the_wrong_port_is_not_waited_for() -> None:
    opening = encode_frame(OPENING_MAGIC + b"x")
    for pieces in ([opening], in_single_bytes(opening), [PING, opening]):
        problem, _, _ = refusal(pieces)
        assert "raftd and raftctl at `address`" in problem


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"set a b", [b"set", b"a", b"b"]),
        (b"  SET  \"a b\"\t'c d' ", [b"SET", b"a b", b"c d"]),
        (b"SET \"\" ''", [b"SET", b"", b""]),
        (
            b'SET a "x\\"y\\\\\\n\\r\\t\\a\\b\\x00\\xfF\\q"',
            [b"SET", b"a", b'x"y\\\n\r\t\a\b\0\xffq'],
        ),
        (b"SET a 'it\\'s \\n'", [b"SET", b"a", b"it's \\n"]),
        (b'SET a "\\xg1"', [b"SET", b"a", b"xg1"]),
    ],
)
def test_words_that_are_typed_by_hand_may_stand_in_quotes(
    line: bytes, expected: list[bytes]
) -> None:
    assert split_line(line) == expected
    assert decoded(in_single_bytes(line + b"\r\n")) == [expected]


@pytest.mark.parametrize(
    "line",
    [b'SET a "b', b"SET a 'b", b'SET a "b"c', b"SET a 'b'c", b'SET a b"c', b'"', b'SET "a\\"'],
)
def test_quotes_that_are_not_closed_are_refused(line: bytes) -> None:
    problem, commands, _ = refusal([PING, line + b"\r\n"])
    assert "unbalanced quotes" in problem
    assert commands == [[b"PING"]]


@given(
    st.lists(st.lists(arguments, min_size=1, max_size=12), max_size=12),
    st.lists(st.integers(0, 5_000), max_size=20),
)
def test_the_commands_are_those_that_hiredis_reads(
    commands: list[list[bytes]], places: list[int]
) -> None:
    content = b"".join(map(encoded, commands))
    reader = hiredis.Reader()
    expected = []
    for piece in cut(content, places):
        reader.feed(piece)
        while (command := reader.gets()) is not False:
            expected.append(command)
    assert decoded(cut(content, places)) == expected == commands


@given(st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=9), st.data())
@example(b"%1\r\n*0\r\n+a\r\n", [], None)
@example(b"*1\r\n%1\r\n*0\r\n+a\r\n", [], None)
@example(b"|1\r\n+a\r\n+b\r\n", [3], None)
def test_any_bytes_are_commands_or_refused_and_how_they_are_cut_makes_no_difference(
    noise: bytes, places: list[int], data: st.DataObject | None
) -> None:
    content = PING + noise
    if data is not None:
        # Bytes that are nearly a command.
        whole = bytearray(encoded([b"SET", b"key", b"value"]) * 2)
        for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
            whole[place] = data.draw(st.sampled_from(b"\r\n*$%0123456789-x"))
        content += bytes(whole)
    outcomes = []
    for pieces in ([content], cut(content, places), in_single_bytes(content)):
        try:
            outcomes.append(("", decoded(pieces)))
        except FramingError:
            outcomes.append(("refused", refusal(pieces)[1]))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][1][0] == [b"PING"]


@given(st.lists(arguments, min_size=1, max_size=6), st.data())
def test_a_command_that_comes_alone_is_the_same_to_the_quick_reader_or_left_to_the_other(
    command: list[bytes], data: st.DataObject
) -> None:
    content = encoded(command)
    found = only_command(content)
    is_plain = len(command) <= 4 and not any(b"\r\n" in argument for argument in command)
    assert found == (command if is_plain else None)
    damaged = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        damaged[place] = data.draw(st.sampled_from(b"\r\n*$%0123456789-x"))
    cut_short = bytes(damaged[: data.draw(st.integers(0, len(content)))])
    for near in (bytes(damaged), cut_short, content + cut_short, content + b"\r\n"):
        found = only_command(near)
        if found is not None:
            assert decoded([near]) == [found]


def test_a_command_is_there_with_its_last_byte_and_not_before() -> None:
    decoder = CommandDecoder()
    content = encoded([b"SET", b"k", b"x" * 5_000])
    decoder.feed(content[:-1])
    assert decoder.take(MANY) == []
    assert decoder.missing_bytes == 1
    decoder.feed(content[-1:])
    assert decoder.take(MANY) == [[b"SET", b"k", b"x" * 5_000]]
    assert (decoder.buffered_bytes, decoder.missing_bytes) == (0, 0)


def test_no_more_commands_are_taken_than_were_asked_for() -> None:
    decoder = CommandDecoder()
    decoder.feed(PING * 5 + b"PING\n" * 2 + PING[:3])
    assert [len(decoder.take(3)) for _ in range(4)] == [3, 3, 1, 0]
    assert decoder.buffered_bytes == 3


def test_arrays_without_elements_are_passed_over() -> None:
    assert decoded([b"*0\r\n" + PING + b"*0\r\n*0\r\n" + PING]) == [[b"PING"]] * 2


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_that_are_typed_by_hand_are_commands(end: bytes) -> None:
    lines = [b"SET  a   b", b"", b"   ", b"\tGET a "]
    content = b"".join(line + end for line in lines) + PING + b"PING" + end
    expected = [[b"SET", b"a", b"b"], [b"GET", b"a"], [b"PING"], [b"PING"]]
    assert decoded([content]) == decoded(in_single_bytes(content)) == expected


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"*1\r\n:1\r\n", "an array of bulk strings"),
        (b"*1\r\n+PING\r\n", "an array of bulk strings"),
        (b"*1\r\n*1\r\n$4\r\nPING\r\n", "an array of bulk strings"),
        (b"*2\r\n$4\r\nPING\r\n%1\r\n", "an array of bulk strings"),
        (b"*1\r\n_\r\n", "an array of bulk strings"),
        (b"*-1\r\n", "decimal digits"),
        (b"*1\r\n$-1\r\n", "decimal digits"),
        (b"*+1\r\n", "decimal digits"),
        (b"*01\r\n", "decimal digits"),
        (b"*1\r\n$04\r\nPING\r\n", "decimal digits"),
        (b"*1\r\n$\r\n", "decimal digits"),
        (b"*\xb2\r\n", "decimal digits"),
        (b"*1\r\n$3\r\nPING\r\n", "more than the 3 bytes"),
        (b"*1\r\n$4\r\nPINGxx", "more than the 4 bytes"),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_what_is_no_array_of_bulk_strings_is_refused_after_the_commands_before_it(
    content: bytes, why: str, split: bool
) -> None:
    whole = PING * 3 + content
    problem, commands, _ = refusal(in_single_bytes(whole) if split else [whole])
    assert why in problem
    assert commands == [[b"PING"]] * 3


def test_a_command_may_have_so_many_arguments_and_no_more() -> None:
    most = [b"a"] * ARGUMENTS_MAX
    assert decoded([encoded(most)]) == [most]
    problem, _, fed_bytes = refusal(in_single_bytes(encoded([*most, b"a"])))
    assert str(ARGUMENTS_MAX + 1) in problem
    assert fed_bytes == len(b"*8193\r\n")
    assert decoded([b" ".join(most) + b"\n"]) == [most]
    with pytest.raises(FramingError, match="arguments"):
        decoded([b" ".join([*most, b"a"]) + b"\n"])


def test_a_command_may_have_so_many_bytes_and_no_more() -> None:
    head = encoded([b"SET", b"k"])[len(b"*2\r\n") :]
    framing_bytes = len(b"*3\r\n") + len(head) + len(b"$4194304\r\n") + 2
    value = b"v" * (COMMAND_BYTES_MAX - framing_bytes)
    content = encoded([b"SET", b"k", value])
    assert len(content) == COMMAND_BYTES_MAX
    pieces = cut(content, range(0, len(content), PIECE_BYTES_MAX))
    assert decoded([content]) == decoded(pieces) == [[b"SET", b"k", value]]
    longer = encoded([b"SET", b"kk", value])
    problem, commands, fed_bytes = refusal([longer[:40], longer[40:]])
    assert f"more than {COMMAND_BYTES_MAX} bytes" in problem
    assert (commands, fed_bytes) == ([], 40)


@pytest.mark.parametrize(
    "announcement",
    [
        b"*99999999\r\n",
        b"*4294967296\r\n",
        b"*2147483647\r\n$1\r\na\r\n",
        b"*9" + b"9" * 20,
        b"*1\r\n$5000000\r\n",
        b"*1\r\n$9999999999\r\n",
        b"*1\r\n$9" + b"9" * 20,
        b"*2\r\n$1\r\na\r\n*8000\r\n*8000\r\n*8000\r\n",
        b"*8000\r\n*8000\r\n*8000\r\n*8000\r\n",
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_what_is_announced_too_large_is_refused_before_memory_is_taken(
    announcement: bytes, split: bool
) -> None:
    content = PING + announcement * 50
    pieces = in_single_bytes(content) if split else [content]
    tracemalloc.start()
    try:
        _, commands, fed_bytes = refusal(pieces)
        taken_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken_bytes < 100_000
    assert commands == [[b"PING"]]
    if split:
        assert fed_bytes <= len(PING + announcement)


def test_the_same_bytes_within_a_value_are_a_value() -> None:
    value = b"\r\n*99999999\r\n$9999999999\r\n%99999\r\n" * 100
    command = [b"SET", b"*99999\r\n", value]
    content = encoded(command) * 3
    assert decoded([content]) == decoded(in_single_bytes(content)) == [command] * 3


def test_a_line_without_end_is_refused() -> None:
    assert "a line" in refusal([b"x" * LINE_BYTES_MAX, b"x"])[0]
    word = b"x" * LINE_BYTES_MAX
    assert decoded([word, b"\n"]) == [[word]]


@pytest.mark.parametrize(
    "content",
    [
        encoded([b"SET", b"k", b"v" * 1_000_000]),
        encoded([b"MSET", *[b"k"] * (ARGUMENTS_MAX - 1)]),
        encoded([b"DEL", *[b""] * (ARGUMENTS_MAX - 1)]),
        encoded([b"DEL", *[b"\r\n" * 150] * (ARGUMENTS_MAX - 1)]),
    ],
    ids=["one long value", "many arguments", "many empty ones", "many with ends of lines"],
)
def test_what_is_held_is_what_has_come_of_one_command(content: bytes) -> None:
    decoder = CommandDecoder()
    most_bytes = 0
    for start in range(0, len(content) - 1, 1_000):
        decoder.feed(content[start : min(start + 1_000, len(content) - 1)])
        assert decoder.take(MANY) == []
        most_bytes = max(most_bytes, decoder.buffered_bytes)
    held_bytes = len(content) + ARGUMENTS_MAX * ARGUMENT_MEMORY_BYTES
    assert len(content) - 2_000 < most_bytes < held_bytes
    decoder.feed(content[-1:])
    assert len(decoder.take(MANY)) == 1
    assert decoder.buffered_bytes == 0


# --- replies --------------------------------------------------------------------------------


def read(reply: bytes, count: int = 1) -> object:
    reader = hiredis.Reader()
    reader.feed(reply)
    replies = [reader.gets() for _ in range(count)]
    assert reader.gets() is False
    return replies[0] if count == 1 else replies


def test_replies_are_what_a_client_reads() -> None:
    assert read(OK) == b"OK"
    assert read(simple("PONG")) == b"PONG"
    assert read(NULL_2 + NULL_3, 2) == [None, None]
    assert read(bulk(b"a\r\nb")) == b"a\r\nb"
    assert read(bulk(b"")) == b""
    assert read(integer(-(2**63))) == -(2**63)
    assert read(array([integer(1), bulk(b"x"), array([])])) == [1, b"x", []]
    pairs = [(bulk(b"a"), integer(1)), (bulk(b"b"), integer(2))]
    assert read(mapping(pairs, 3)) == {b"a": 1, b"b": 2}
    assert read(mapping(pairs, 2)) == [b"a", 1, b"b", 2]


@given(st.text(max_size=50))
def test_an_error_is_one_line_whatever_it_says(text: str) -> None:
    found = read(error(f"ERR {text}"))
    assert isinstance(found, hiredis.ReplyError)
    assert str(found) == f"ERR {text}".replace("\r", " ").replace("\n", " ")
