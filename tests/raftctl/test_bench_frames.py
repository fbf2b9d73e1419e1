"""Requests of a benchmark that are packed by hand: the codec reads what they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftctl.bench_frames import (
    KEYS_MAX,
    NUMBERS_MAX,
    PREFIX_BYTES_MAX,
    SERIAL_MAX,
    Frames,
    key_name,
    key_number,
    unpack_reply,
    value_of,
)
from raftd.codec import FrameDecoder, decode_request, encode_reply
from raftd.commands import KEY_BYTES_MAX, VALUE_BYTES_MAX
from raftd.protocol import (
    DeleteRequest,
    GetRequest,
    OpenSessionRequest,
    PutRequest,
    Request,
    WriteReply,
)

SESSION = "00112233445566778899aabbccddeeff"
prefixes = st.text(min_size=1, max_size=40).filter(
    lambda text: (
        len(text.encode("utf-8", "replace")) <= PREFIX_BYTES_MAX
        and text == text.encode("utf-8", "ignore").decode()
    )
)
keys = st.integers(0, KEYS_MAX - 1)
numbers = st.integers(0, NUMBERS_MAX - 1)
serials = st.integers(1, SERIAL_MAX)


def frames(prefix: str = "raftctl-bench/", size: int = 3, *, stale: bool = False) -> Frames:
    return Frames(
        session=SESSION, prefix=prefix, value=value_of(size), stale=stale, numbers=NUMBERS_MAX
    )


def decoded(frame: bytes) -> tuple[int, Request]:
    """Return what a server makes of a frame that comes all at once."""
    (payload,) = FrameDecoder().feed(frame)
    return decode_request(payload)


@given(prefixes, st.integers(0, 300), numbers, keys, serials, serials)
def test_a_write_is_what_the_codec_would_have_sent(
    prefix: str, size: int, number: int, key: int, serial: int, lowest: int
) -> None:
    made = frames(prefix, size)
    name = f"{prefix}bench-{key:07d}"
    assert decoded(made.put(number, key, serial, lowest)) == (
        number,
        PutRequest(
            session=SESSION,
            serial=serial,
            lowest_unacknowledged=lowest,
            key=name,
            value=value_of(size),
        ),
    )
    assert decoded(made.delete(number, key, serial, lowest)) == (
        number,
        DeleteRequest(session=SESSION, serial=serial, lowest_unacknowledged=lowest, key=name),
    )


@given(prefixes, numbers, keys, st.booleans())
def test_a_read_is_what_the_codec_would_have_sent(
    prefix: str, number: int, key: int, stale: bool
) -> None:
    made = frames(prefix, stale=stale)
    wanted = GetRequest(key=f"{prefix}bench-{key:07d}", stale=stale)
    assert decoded(made.get(number, key)) == (number, wanted)


@pytest.mark.parametrize("size", [0, 255, 256, 65_535, 65_536, VALUE_BYTES_MAX])
def test_values_of_every_size_fit(size: int) -> None:
    _, request = decoded(frames(size=size).put(0, 1, 1, 1))
    assert isinstance(request, PutRequest)
    assert len(request.value) == size


def test_a_session_is_opened_under_the_name_that_its_writes_have() -> None:
    assert decoded(frames().open_session(5)) == (5, OpenSessionRequest(session=SESSION))


def test_the_longest_prefix_leaves_room_for_the_key() -> None:
    name = key_name("p" * PREFIX_BYTES_MAX, KEYS_MAX - 1)
    assert len(name.encode()) == KEY_BYTES_MAX


@given(prefixes, keys)
def test_the_number_of_a_key_is_found_again(prefix: str, key: int) -> None:
    assert key_number(prefix, key_name(prefix, key)) == key


@pytest.mark.parametrize(
    "name",
    [
        *("p/bench-000001", "p/bench-00000001", "p/bench-000000x", "p/bench-٠٠٠٠٠٠١"),
        *("p/other", "q/bench-0000001", "p/"),
    ],
)
def test_a_key_of_somebody_else_has_no_number(name: str) -> None:
    assert key_number("p/", name) is None


def test_a_reply_of_a_newer_server_may_have_more_in_it() -> None:
    payload = encode_reply(7, WriteReply(applied=True, revision=9))
    assert unpack_reply(payload) == (7, "write", {"applied": True, "revision": 9})
    longer = b"\x94" + payload[1:] + b"\xc3"
    assert unpack_reply(longer)[:2] == (7, "write")
