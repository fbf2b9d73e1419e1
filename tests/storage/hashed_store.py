"""A store that knows a hash of its contents, so that servers can be compared by one number.

The hash is the sum, modulo 2**64, of a hash of each pair. A change costs two hashes of one pair,
however much the store holds, and equal contents have equal hashes whatever their history.

Source: Bellare and Micciancio, "A New Paradigm for Collision-free Hashing" (AdHash). A sum of 64
bits shows up accidents; it keeps nobody out who looks for two states with one hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from raftd.storage.store import STORE_KEY_BYTES_MAX, Store

HASH_BYTES = 8
_HASH_MASK = 2 ** (8 * HASH_BYTES) - 1
_KEY_LENGTH_BYTES = 2
_SCAN_PAIRS = 32
"""Pairs that are read at once at the start: values of 1 MiB make this 32 MiB."""


def _pair_hash(key: bytes, value: bytes) -> int:
    # With the length in front, no byte can move from the key to the value unnoticed.
    digest = blake2b(len(key).to_bytes(_KEY_LENGTH_BYTES, "big"), digest_size=HASH_BYTES)
    digest.update(key)
    digest.update(value)
    return int.from_bytes(digest.digest(), "big")


class HashedStore:
    """A `Store` around another one, which from then on is changed through this one only.

    Invariant: `state_hash` is that of all pairs, inside a transaction of those it has written so
    far; a transaction that is undone restores it.
    """

    def __init__(self, store: Store) -> None:
        """Wrap `store`; reads all that it holds already."""
        self.state_hash = 0
        """0 to 2**64 - 1; 0 for an empty store."""
        self._store = store
        end = b"\xff" * (STORE_KEY_BYTES_MAX + 1)
        start = b""
        while pairs := store.scan(start, end, _SCAN_PAIRS):
            for key, value in pairs:
                self._add(_pair_hash(key, value))
            start = pairs[-1][0] + b"\x00"

    def _add(self, amount: int) -> None:
        self.state_hash = (self.state_hash + amount) & _HASH_MASK

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep the changes of the block if it ends, undo them and the hash if it raises."""
        before = self.state_hash
        try:
            with self._store.transaction():
                yield
        except BaseException:
            self.state_hash = before
            raise

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None if there is none."""
        return self._store.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` to `value`. Only inside a transaction."""
        before = self._store.get(key)
        self._store.put(key, value)
        if before is not None:
            self._add(-_pair_hash(key, before))
        self._add(_pair_hash(key, value))

    def delete(self, key: bytes) -> bool:
        """Remove `key` and return whether it was there. Only inside a transaction."""
        before = self._store.get(key)
        deleted = self._store.delete(key)
        if before is not None:
            self._add(-_pair_hash(key, before))
        return deleted

    def scan(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the first `limit` pairs with `start <= key < end`, in order of their keys."""
        return self._store.scan(start, end, limit)

    def keys(self, start: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return the first `limit` keys with `start <= key < end`, in order."""
        return self._store.keys(start, end, limit)

    @property
    def pair_count(self) -> int:
        """Pairs in the store."""
        return self._store.pair_count
