"""The ordered map under the state machine, and its implementation in memory.

The state machine keeps everything that it knows in one `Store`: a copy of the store is a copy of
the state, and two servers that have applied the same entries hold the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Protocol

from sortedcontainers import SortedDict

STORE_KEY_BYTES_MAX = 511
"""Bytes of a key: what LMDB takes in its usual build, so that every store takes the same keys."""


class Store(Protocol):
    """An ordered map of bytes to bytes with one writer, changed in transactions.

    Keys have 1 to `STORE_KEY_BYTES_MAX` bytes and are ordered byte by byte; a key that is a prefix
    of another one comes first. To put a longer or an empty one is a bug, to look for it is not: it
    is not there. Values are of any length, also empty. Reads are allowed at any time, and inside a
    transaction they see what it has written so far.
    """

    def transaction(self) -> AbstractContextManager[None]:
        """Make the changes of the `with` block visible together when it ends.

        If the block raises, none of them is, and the exception goes on. Transactions do not nest:
        to open a second one is a bug.
        """
        ...

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None if there is none."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` to `value`. Only inside a transaction."""
        ...

    def delete(self, key: bytes) -> bool:
        """Remove `key` and return whether it was there. Only inside a transaction."""
        ...

    def scan(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the first `limit` pairs with `start <= key < end`, in order of their keys.

        `limit` is 0 or more, the bounds are bytes of any length. The pairs are held in memory:
        whoever does not know how long the values are asks for few at a time.
        """
        ...


class CountedStore(Store, Protocol):
    """A store that also tells about its keys alone, and how many there are."""

    def keys(self, start: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return the first `limit` keys with `start <= key < end`, in order, as `scan` does.

        No value is read, however long it is.
        """
        ...

    @property
    def pair_count(self) -> int:
        """Pairs in the store, as of the latest transaction that has ended."""
        ...


class MemoryStore:
    """A `Store` that lives as long as its process. Nothing of it is durable."""

    def __init__(self) -> None:
        self._pairs: SortedDict[bytes, bytes] = SortedDict()
        self._undo: list[tuple[bytes, bytes | None]] | None = None
        """While a transaction is open: each changed key with what it had before, oldest first."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep the changes of the block if it ends, undo them all if it raises."""
        assert self._undo is None, "transactions do not nest"
        self._undo = []
        try:
            yield
        except BaseException:
            # Newest first: a key that was changed twice gets its oldest value last.
            for key, before in reversed(self._undo):
                if before is None:
                    self._pairs.pop(key, None)
                else:
                    self._pairs[key] = before
            raise
        finally:
            self._undo = None

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None if there is none."""
        value: bytes | None = self._pairs.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` to `value`. Only inside a transaction."""
        assert self._undo is not None, "put outside of a transaction"
        assert 0 < len(key) <= STORE_KEY_BYTES_MAX, f"a key of {len(key)} bytes"
        self._undo.append((key, self._pairs.get(key)))
        self._pairs[key] = value

    def delete(self, key: bytes) -> bool:
        """Remove `key` and return whether it was there. Only inside a transaction."""
        assert self._undo is not None, "delete outside of a transaction"
        before = self._pairs.pop(key, None)
        if before is None:
            return False
        self._undo.append((key, before))
        return True

    def scan(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the first `limit` pairs with `start <= key < end`, in order of their keys."""
        pairs = self._pairs
        keys = pairs.irange(start, end, inclusive=(True, False))
        return [(key, pairs[key]) for key in islice(keys, limit)]

    def keys(self, start: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return the first `limit` keys with `start <= key < end`, in order."""
        return list(islice(self._pairs.irange(start, end, inclusive=(True, False)), limit))

    @property
    def pair_count(self) -> int:
        """Pairs in the store."""
        return len(self._pairs)
