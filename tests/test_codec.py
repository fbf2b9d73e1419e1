"""The wire: every value survives it, and nothing else gets through."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd import codec
from raftd.codec import (
    INTEGER_MAX,
    OPENING_BYTES_MAX,
    OPENING_MAGIC,
    FrameDecoder,
    WireError,
    decode_message,
    decode_opening,
    decode_reply,
    decode_request,
    encode_frame,
    encode_message,
    encode_opening,
    encode_reply,
    encode_request,
)
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Message,
    PreVote,
    RequestVote,
    StateMessage,
)
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry, EntryKind
from raftd.protocol import (
    FRAME_BYTES_MAX,
    ErrorReply,
    GetReply,
    GetRequest,
    Hello,
    PutRequest,
    Refusal,
    Reply,
    Request,
    StatusReply,
    StatusRequest,
    Welcome,
    WriteReply,
)

_SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, INTEGER_MAX),
    bool: st.booleans(),
    str: st.text(max_size=20),
    bytes: st.binary(max_size=40),
    float: st.floats(allow_nan=False, allow_infinity=False),
    types.NoneType: st.none(),
    EntryKind: st.sampled_from(EntryKind),
}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Everything that a type of the protocol admits, read off its annotations."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind is SnapshotId:
        # Its checksum becomes a part of a file's name, so that it is held to its digits.
        return st.builds(
            SnapshotId,
            last_included_index=_SCALARS[int],
            last_included_term=_SCALARS[int],
            size_bytes=_SCALARS[int],
            checksum=st.text("0123456789abcdef", min_size=1, max_size=64),
        )
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(argument) for argument in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*[values_of(argument) for argument in arguments])
    if origin is dict:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=3)
    hints = get_type_hints(kind)
    return st.builds(
        kind,
        **{
            field.name: values_of(hints[field.name])
            for field in attrs.fields(kind)
            if field.name != "encoded"
        },
    )


OPENINGS = values_of(Hello | Welcome | Refusal)
REQUESTS = values_of(Request)
REPLIES = values_of(Reply)
MESSAGES = values_of(Message | StateMessage)
NUMBERS = st.integers(0, INTEGER_MAX)

Decoder = Callable[[bytes], Any]
DECODERS: list[Decoder] = [decode_opening, decode_message, decode_request, decode_reply]


# --- round trips ----------------------------------------------------------------------------


@given(OPENINGS)
def test_every_opening_survives_the_wire(opening: Any) -> None:
    assert decode_opening(encode_opening(opening)) == opening


@given(MESSAGES)
def test_every_message_survives_the_wire(message: Any) -> None:
    decoded = decode_message(encode_message(message))
    assert decoded == message
    assert type(decoded) is type(message)


@given(NUMBERS, REQUESTS)
def test_every_request_survives_the_wire(number: int, request: Any) -> None:
    assert decode_request(encode_request(number, request)) == (number, request)


@given(NUMBERS, REPLIES)
def test_every_reply_survives_the_wire(number: int, reply: Any) -> None:
    assert decode_reply(encode_reply(number, reply)) == (number, reply)


def test_every_member_of_the_unions_has_a_tag() -> None:
    for union, table in [
        (Hello | Welcome | Refusal, codec._OPENINGS),
        (Request, codec._REQUESTS),
        (Reply, codec._REPLIES),
    ]:
        assert set(table.values()) == set(get_args(union))
    assert {kind for kind, _, _ in codec._MESSAGES.values()} == set(
        get_args(Message | StateMessage)
    )


def test_entries_keep_their_bytes_on_the_way_from_one_log_to_another() -> None:
    entries = tuple(Entry(i, 1, EntryKind.COMMAND, b"x" * i) for i in range(1, 4))
    message = AppendEntries(1, 0, 0, entries, 0, 1)

    decoded = decode_message(encode_message(message))

    assert isinstance(decoded, AppendEntries)
    assert [entry.encoded for entry in decoded.entries] == [entry.encoded for entry in entries]
    assert all(entry.encoded for entry in decoded.entries)


# --- strict types, lenient shapes -------------------------------------------------------------

PUT: dict[str, Any] = {
    "session": "s",
    "serial": 1,
    "lowest_unacknowledged": 1,
    "key": "k",
    "value": b"v",
}


def put_with(**fields: Any) -> bytes:
    return msgpack.packb([7, "put", {**PUT, **fields}])


def test_a_request_as_it_is_written_by_hand_is_understood() -> None:
    assert decode_request(put_with()) == (7, PutRequest(**PUT))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"serial": "12"}, "expected an integer"),
        ({"serial": 1.0}, "expected an integer"),
        ({"serial": True}, "expected an integer"),
        ({"serial": None}, "expected an integer"),
        ({"serial": -1}, "expected an integer"),
        ({"serial": 2**63}, "expected an integer"),
        ({"if_absent": 1}, "expected true or false"),
        ({"if_absent": None}, "expected true or false"),
        ({"key": b"k"}, "expected text"),
        ({"key": 5}, "expected text"),
        ({"key": None}, "expected text"),
        ({"value": "v"}, "expected bytes"),
        ({"value": [1, 2]}, "expected bytes"),
        ({"if_revision": "0"}, "expected an integer"),
        ({"if_revision": False}, "expected an integer"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_and_never_converted(
    fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(WireError, match=complaint):
        decode_request(put_with(**fields))


@pytest.mark.parametrize("changes", ["ab", {"a": 1}, 5, None, ["x"], [None], [[]], [{"role": "x"}]])
def test_an_array_of_something_else_is_refused(changes: object) -> None:
    fields = {"session": "s", "serial": 1, "kind": "add", "author": "a", "changes": changes}
    with pytest.raises(WireError):
        decode_request(msgpack.packb([1, "change", fields]))


@pytest.mark.parametrize("issues", ["ab", b"ab", {"a": 1}, {}, 5, None])
def test_text_or_a_map_in_the_place_of_an_array_is_refused(issues: object) -> None:
    reply = msgpack.unpackb(encode_reply(1, _status()))
    reply[2]["issues"] = issues
    with pytest.raises(WireError, match="expected an array"):
        decode_reply(msgpack.packb(reply))


def test_a_number_that_is_not_finite_is_refused() -> None:
    reply = msgpack.unpackb(encode_reply(1, _status()))
    for value in (float("nan"), float("inf"), "50", True):
        reply[2]["heartbeat_interval_ms"] = value
        with pytest.raises(WireError, match="number"):
            decode_reply(msgpack.packb(reply))


def test_an_integer_counts_as_a_number() -> None:
    reply = msgpack.unpackb(encode_reply(1, _status()))
    reply[2]["heartbeat_interval_ms"] = 50
    decoded = decode_reply(msgpack.packb(reply))[1]
    assert isinstance(decoded, StatusReply)
    assert decoded.heartbeat_interval_ms == 50
    assert type(decoded.heartbeat_interval_ms) is float


def _status() -> StatusReply:
    return StatusReply(
        server="n1/a",
        version="0",
        cluster_id="",
        cluster_name="",
        role="blank",
        term=0,
        leader="",
        leader_address="",
        leadership_confirmed=False,
        first_index=1,
        last_index=0,
        commit_index=0,
        applied_index=0,
        snapshot_index=0,
        revision=0,
        configuration=None,
    )


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert decode_request(put_with(colour="red")) == (7, PutRequest(**PUT))
    assert decode_request(msgpack.packb([7, "put", PUT, "more"])) == (7, PutRequest(**PUT))
    assert decode_message(msgpack.packb([1, 5, 4, 3, "more"])) == PreVote(5, 4, 3)
    hello = Hello(role="client", cluster_id="", source="", dest="")
    newer = OPENING_MAGIC + msgpack.packb(["hello", {**attrs.asdict(hello), "colour": 1}, "more"])
    assert decode_opening(newer) == hello


def test_fields_that_an_older_version_does_not_send_get_their_defaults() -> None:
    assert decode_request(msgpack.packb([1, "get", {"key": "k"}])) == (1, GetRequest(key="k"))
    assert decode_reply(msgpack.packb([1, "get", {"found": False}])) == (1, GetReply(found=False))
    assert decode_message(msgpack.packb([3, 5, 4, 3])) == RequestVote(5, 4, 3)
    assert decode_message(msgpack.packb([6, 1, True, 2, 3, 4])) == AppendEntriesResponse(
        1, True, 2, 3, 4
    )


def test_a_missing_field_without_default_is_refused_by_name() -> None:
    with pytest.raises(WireError, match="'key' is missing"):
        decode_request(msgpack.packb([1, "get", {}]))
    with pytest.raises(WireError, match="PreVote has 3"):
        decode_message(msgpack.packb([1, 5, 4]))


@pytest.mark.parametrize(
    "fields",
    [
        [1, -1, 0, 0],
        [1, "5", 0, 0],
        [1, True, 0, 0],
        [1, 2**63, 0, 0],
        [4, 1, 1],
        [5, 1, 0, 0, [], 0, 1],
        [5, 1, 0, 0, "", 0, 1],
        [0, 1, 1, 1],
        [99, 1],
        ["1", 1, 1, 1],
        [None],
        [[1], 1],
        [],
        {},
        5,
        "text",
        None,
    ],
)
def test_an_ill_formed_message_is_refused(fields: object) -> None:
    with pytest.raises(WireError):
        decode_message(msgpack.packb(fields))


def test_a_damaged_entry_is_refused_wherever_it_is_hit() -> None:
    entry = Entry(1, 1, EntryKind.COMMAND, b"value")
    whole = encode_message(AppendEntries(1, 0, 0, (entry,), 0, 1))
    assert entry.encoded is not None
    start = whole.index(entry.encoded)
    for offset in range(start, start + len(entry.encoded)):
        damaged = bytearray(whole)
        damaged[offset] ^= 0x10
        with pytest.raises(WireError):
            decode_message(bytes(damaged))


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x81\xa1a" * 100_000,
        b"\x93\x01\xa3put\xc1",
        b"\x93\x01\xa1\xff\x80",
        msgpack.packb([1, "status", {}]) + b"\x00",
        msgpack.packb([1, "status"]),
        msgpack.packb([1, "status", []]),
        msgpack.packb([1, "status", None]),
        msgpack.packb([1, "unknown", {}]),
        msgpack.packb([1, ["status"], {}]),
        msgpack.packb([True, "status", {}]),
        msgpack.packb(["1", "status", {}]),
        msgpack.packb([-1, "status", {}]),
        msgpack.packb({"1": "status"}),
        msgpack.packb([1, "status", {1: 2}]),
        msgpack.packb([msgpack.ExtType(5, b"x"), "status", {}]),
        msgpack.packb([1, "status", {"key": msgpack.Timestamp(1)}])[:-1],
    ],
)
def test_garbage_is_a_wire_error_and_nothing_else(decode: Decoder, garbage: bytes) -> None:
    with pytest.raises(WireError):
        decode(garbage)
    with pytest.raises(WireError):
        decode(OPENING_MAGIC + garbage)


def _accepts_or_refuses(decode: Decoder, payload: bytes) -> None:
    with contextlib.suppress(WireError):
        decode(payload)


@given(st.sampled_from(DECODERS), st.binary(max_size=200), st.booleans())
def test_random_bytes_are_decoded_or_refused(
    decode: Decoder, payload: bytes, with_magic: bool
) -> None:
    _accepts_or_refuses(decode, OPENING_MAGIC * with_magic + payload)


@given(
    st.one_of(
        OPENINGS.map(encode_opening),
        MESSAGES.map(encode_message),
        REQUESTS.map(lambda request: encode_request(1, request)),
        REPLIES.map(lambda reply: encode_reply(1, reply)),
    ),
    st.sampled_from(DECODERS),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 10_000),
)
def test_mutations_of_what_is_valid_are_decoded_or_refused(
    payload: bytes, decode: Decoder, changes: list[tuple[int, int]], cut: int
) -> None:
    mutated = bytearray(payload)
    for offset, value in changes:
        mutated[offset % len(mutated)] = value
    _accepts_or_refuses(decode, bytes(mutated))
    _accepts_or_refuses(decode, bytes(mutated[:cut]))


def test_an_opening_is_held_to_its_own_length() -> None:
    fields = {"role": "peer", "cluster_id": "", "source": "n" * OPENING_BYTES_MAX, "dest": ""}
    with pytest.raises(WireError, match="more than"):
        decode_opening(OPENING_MAGIC + msgpack.packb(["hello", fields]))


def test_an_error_does_not_repeat_what_a_stranger_sent_at_length() -> None:
    with pytest.raises(WireError) as caught:
        decode_request(put_with(serial="x" * 100_000))
    assert len(str(caught.value)) < 300


# --- frames ---------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=50), max_size=10), st.lists(st.integers(1, 40), max_size=30))
def test_frames_come_out_whole_however_the_stream_is_cut(
    payloads: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(encode_frame(payload) for payload in payloads)
    decoder = FrameDecoder()
    decoded: list[bytes] = []

    position = 0
    for size in [*cuts, len(stream)]:
        decoded += decoder.feed(stream[position : position + size])
        position += size

    assert decoded == payloads
    assert decoder.buffered_bytes == 0


def test_a_payload_is_handed_out_as_soon_as_its_last_byte_is_there() -> None:
    decoder = FrameDecoder()
    frame = encode_frame(b"abc")
    for byte in frame[:-1]:
        assert decoder.feed(bytes((byte,))) == []
    assert decoder.feed(frame[-1:] + frame[:2]) == [b"abc"]
    assert decoder.buffered_bytes == 2


def test_a_length_over_the_limit_is_refused_before_its_body_is_kept() -> None:
    decoder = FrameDecoder()
    with pytest.raises(WireError, match=str(FRAME_BYTES_MAX + 1)):
        decoder.feed(struct.pack("<I", FRAME_BYTES_MAX + 1) + b"x" * 1000)
    assert decoder.buffered_bytes == 0


def test_the_longest_frame_passes() -> None:
    payload = bytes(FRAME_BYTES_MAX)
    assert FrameDecoder().feed(encode_frame(payload)) == [payload]
    with pytest.raises(AssertionError):
        encode_frame(payload + b"x")


def test_a_long_payload_comes_out_of_its_pieces() -> None:
    decoder = FrameDecoder()
    for number in range(3):
        payload = bytes([number]) * 300_000
        frame = encode_frame(payload)
        assert decoder.feed(frame[:100_000]) == []
        assert decoder.feed(frame[100_000:] + frame[:50_000]) == [payload]
        assert decoder.feed(frame[50_000:]) == [payload]


def test_what_a_frame_lacks_is_known_once_its_length_is_there() -> None:
    decoder = FrameDecoder()
    frame = encode_frame(bytes(1_000))
    for piece, missing_bytes in ((frame[:3], 0), (frame[3:4], 1_000), (frame[4:904], 100)):
        decoder.feed(piece)
        assert decoder.missing_bytes == missing_bytes
    decoder.feed(frame[904:])
    assert decoder.missing_bytes == 0
    decoder.feed(frame + frame + frame[:504])
    assert decoder.missing_bytes == 500


def test_the_first_frame_may_be_held_to_a_shorter_length() -> None:
    with pytest.raises(WireError):
        FrameDecoder(first_frame_bytes_max=3).feed(encode_frame(b"four"))
    decoder = FrameDecoder(first_frame_bytes_max=3)
    assert decoder.feed(encode_frame(b"abc") + encode_frame(b"longer")) == [b"abc", b"longer"]


@pytest.mark.parametrize(
    ("greeting", "shown"),
    [
        (b"GET / HTTP/1.1\r\nHost: a", "it says 'GET / HTTP/1.1'"),
        (b"SSH-2.0-x", "it says 'SSH-2.0-x'"),
        (b"-ERR " + b"x" * 200, f"it says '-ERR {'x' * 95}'"),
        (b"-ERR \x1b[2J", "a frame of "),
        (b"\x16\x03\x01\x02\x00", "a frame of "),
    ],
)
def test_other_protocols_are_told_apart_by_their_first_bytes(greeting: bytes, shown: str) -> None:
    with pytest.raises(WireError) as raised:
        FrameDecoder().feed(greeting)
    assert str(raised.value).startswith(shown)


def test_the_buffer_keeps_no_more_than_the_frame_that_has_begun() -> None:
    decoder = FrameDecoder()
    frame = encode_frame(b"x" * 100)
    for _ in range(50):
        decoder.feed(frame[:60])
        assert decoder.buffered_bytes == 60
        assert len(decoder.feed(frame[60:])) == 1
        assert decoder.buffered_bytes == 0


# --- importing ------------------------------------------------------------------------------


def test_importing_the_codec_does_not_import_trio() -> None:
    script = "import sys, raftd.codec; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_replies_that_carry_an_error_keep_all_lines() -> None:
    error = ErrorReply(code="refused", message="m", cause="c", hint="h")
    assert decode_reply(encode_reply(3, error)) == (3, error)
    assert decode_reply(encode_reply(3, WriteReply(applied=True, revision=9)))[0] == 3
    assert decode_request(encode_request(3, StatusRequest())) == (3, StatusRequest())
