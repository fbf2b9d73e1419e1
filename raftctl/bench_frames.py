"""The requests of a benchmark as bytes: packed by hand, since they are made by the million.

They say what `raftd.codec.encode_request` would say. What is the same in every request of a client
is packed once; serials have four bytes each, so that all frames of one kind have the same length.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack

from raftd.codec import encode_frame, encode_request
from raftd.commands import KEY_BYTES_MAX
from raftd.protocol import OpenSessionRequest

NUMBERS_MAX = 128
"""Requests of one connection that may be on their way: their numbers take one byte each."""
SERIAL_MAX = 2**32 - 1
"""Four bytes: at 10,000 writes a second one client would need five days to get there."""
KEY_DIGITS = 7
KEYS_MAX = 10**KEY_DIGITS
KEY_STEM = "bench-"
"""Between prefix and number: whoever gives a prefix of his own loses no key of his to us."""
PREFIX_BYTES_MAX = KEY_BYTES_MAX - len(KEY_STEM) - KEY_DIGITS
_SERIALS = struct.Struct(">I23sI")
_VALUE_TEXT = b"raftctl bench "


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


_LOWEST = _pack("lowest_unacknowledged") + b"\xce"
_UINT32 = b"\xce"
assert len(_LOWEST) == 23


def key_name(prefix: str, number: int) -> str:
    """Return the key of a number from 0 to `KEYS_MAX` - 1."""
    return f"{prefix}{KEY_STEM}{number:0{KEY_DIGITS}d}"


def key_number(prefix: str, key: str) -> int | None:
    """Return the number of a key that a benchmark has written; None if it is another one."""
    stem = prefix + KEY_STEM
    digits = key.removeprefix(stem)
    is_ours = key.startswith(stem) and len(digits) == KEY_DIGITS
    return int(digits) if is_ours and digits.isascii() and digits.isdigit() else None


def value_of(size_bytes: int) -> bytes:
    """Return the value that is written: text, so that whoever finds it knows where it is from."""
    return (_VALUE_TEXT * (size_bytes // len(_VALUE_TEXT) + 1))[:size_bytes]


class Frames:
    """Makes the requests of one client under one session."""

    def __init__(
        self, *, session: str, prefix: str, value: bytes, stale: bool, numbers: int
    ) -> None:
        """Pack what is common to all.

        Args:
            session: of the writes.
            prefix: of the keys, at most `PREFIX_BYTES_MAX` bytes of UTF-8.
            value: what every put writes.
            stale: whether any server may answer a get.
            numbers: requests have numbers below this, at most `NUMBERS_MAX`.
        """
        self._session = session
        self._numbers = numbers
        self._value = _pack("value") + _pack(value)
        key = _pack("key") + _pack(key_name(prefix, 0))
        # All keys have the same length: only the digits at the end differ.
        self._key = key[:-KEY_DIGITS].replace(b"%", b"%%") + b"%%0%dd" % KEY_DIGITS
        whose = _pack("session") + _pack(session) + _pack("serial") + _UINT32
        write_bytes = _SERIALS.size + len(key)
        self._puts = self._heads(_pack("put") + b"\x85" + whose, write_bytes + len(self._value))
        self._deletes = self._heads(_pack("delete") + b"\x84" + whose, write_bytes)
        self._gets = self._heads(_pack("get") + b"\x82" + _pack("stale") + _pack(stale), len(key))

    def _heads(self, common: bytes, rest_bytes: int) -> list[bytes]:
        """Return how a frame begins under each number."""
        length = struct.pack("<I", 2 + len(common) + rest_bytes)
        return [length + b"\x93" + bytes([number]) + common for number in range(self._numbers)]

    def open_session(self, number: int) -> bytes:
        """Return the request that opens the session."""
        return encode_frame(encode_request(number, OpenSessionRequest(session=self._session)))

    def put(self, number: int, key: int, serial: int, lowest: int) -> bytes:
        """Return the request that writes the value under the key of a number.

        Args:
            number: of the request on its connection.
            key: below `KEYS_MAX`.
            serial: at most `SERIAL_MAX`.
            lowest: the lowest serial that is not acknowledged.
        """
        serials = _SERIALS.pack(serial, _LOWEST, lowest)
        return b"".join((self._puts[number], serials, self._key % key, self._value))

    def delete(self, number: int, key: int, serial: int, lowest: int) -> bytes:
        """Return the request that removes a key; the arguments are those of `put`."""
        serials = _SERIALS.pack(serial, _LOWEST, lowest)
        return b"".join((self._deletes[number], serials, self._key % key))

    def get(self, number: int, key: int) -> bytes:
        """Return the request that reads a key; the arguments are those of `put`."""
        return self._gets[number] + self._key % key


def unpack_reply(payload: bytes) -> tuple[Any, Any, Any]:
    """Return number, tag and fields of a reply; whatever else is in it is left out.

    Raises:
        ValueError, TypeError: it is none.
    """
    number, tag, fields, *_ = msgpack.unpackb(payload)
    return number, tag, fields
