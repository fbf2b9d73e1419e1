"""The store as the entry that is being applied writes to it, and what goes into the effects hash.

`raftd.storage.state` says what the hash is for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from zlib import crc32

import msgpack

from raftd.commands import Result
from raftd.storage.store import Store
from raftd.transactions import pack_outcome

CHECKSUM_MASK = 2**32 - 1
_DELETED = 1 << 31
"""In the place of a key's length, which is less."""


class Effects:
    """The store as the entry that is being applied writes to it: takes note of every change.

    `checksum` covers what the entry has written and removed so far, in that order; whoever applies
    an entry sets it before and reads it afterwards. What is kept back until the batch ends is
    written to the store directly, since batches differ between servers, and is noted here when
    the entry changes it.
    """

    __slots__ = ("_delete", "_put", "checksum", "get", "scan", "transaction", "worked_bytes")

    get: Callable[[bytes], bytes | None]
    scan: Callable[[bytes, bytes, int], list[tuple[bytes, bytes]]]
    transaction: Callable[[], AbstractContextManager[None]]

    def __init__(self, store: Store) -> None:
        self.checksum = 0
        """32 bits."""
        self.worked_bytes = 0
        """What transactions have written, also those that came to nothing, and a part of what they
        have read, for whoever bounds it; nothing of that is in the hash."""
        self.get, self.scan, self.transaction = store.get, store.scan, store.transaction
        self._put, self._delete = store.put, store.delete

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` to `value`."""
        self._put(key, value)
        # With the length in between, no byte can move from the key to the value unnoticed.
        self.checksum = crc32(value, crc32(key, self.checksum) ^ len(key))

    def delete(self, key: bytes) -> bool:
        """Remove `key` and return whether it was there."""
        deleted = self._delete(key)
        if deleted:
            self.checksum = crc32(key, self.checksum) ^ _DELETED
        return deleted

    def add(self, number: int) -> None:
        """Note a number that the entry has changed and that is written later."""
        self.checksum = (self.checksum + number) & CHECKSUM_MASK

    def answer(self, result: Result) -> int:
        """Note the answer, and return the number that stands for it besides."""
        if result.number:
            self.checksum = crc32(b"%d" % result.number, self.checksum)
        if result.outcomes:
            outcomes = [pack_outcome(outcome) for outcome in result.outcomes]
            self.checksum = crc32(msgpack.packb(outcomes), self.checksum)
        if result.applied and not result.code and not result.operation:
            return result.revision
        # Not the message: two releases may say the same in other words.
        told = (result.applied, result.revision, result.operation, result.code)
        self.checksum = crc32(msgpack.packb(told), self.checksum)
        return 0
