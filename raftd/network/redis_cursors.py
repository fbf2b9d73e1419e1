"""Cursors of SCAN: positions among the keys, as numbers that any server can go on from.

A cursor has 63 bits, since that is what clients can hold, and a key may be longer. It is made of
the first bytes of the position and of a hash of all of it. The server that has handed it out
remembers the position itself; one that does not, since another one leads by now or since there were
too many in between, goes on from those first bytes. So keys may come twice, as SCAN allows, and
none is left out that was there all the time.
"""

from __future__ import annotations

from hashlib import blake2b

CURSORS_MAX = 4_096
"""Positions that are remembered, some 2 MiB: so many parts may be asked for by others between two
of the same scan, until keys come twice."""
_HASH_BITS = 39
_HASH_BYTES = 8
_PREFIX_BYTES = 3


class Cursors:
    """The positions that one listener has handed out."""

    def __init__(self) -> None:
        self._positions: dict[int, bytes] = {}
        """The one that was used last is the last."""

    def remember(self, position: bytes) -> int:
        """Return a cursor for the position, never 0."""
        prefix = int.from_bytes(position[:_PREFIX_BYTES].ljust(_PREFIX_BYTES, b"\0"), "big")
        digest = blake2b(position, digest_size=_HASH_BYTES).digest()
        number = int.from_bytes(digest, "big") % (2**_HASH_BITS - 1)
        cursor: int = (prefix << _HASH_BITS) + number + 1
        while self._positions.get(cursor, position) != position:
            # It is another one's.
            number = (number + 1) % (2**_HASH_BITS - 1)
            cursor = (prefix << _HASH_BITS) + number + 1
        self._positions.pop(cursor, None)
        self._positions[cursor] = position
        if len(self._positions) > CURSORS_MAX:
            del self._positions[next(iter(self._positions))]
        return cursor

    def position(self, cursor: int) -> bytes:
        """Return where to go on: at this key or behind it. Of 0, the beginning."""
        position = self._positions.get(cursor)
        if position is not None:
            return position
        prefix = cursor >> _HASH_BITS
        return prefix.to_bytes(8, "big")[-_PREFIX_BYTES:].rstrip(b"\0")
