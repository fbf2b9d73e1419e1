"""Room on the disk for all pages that a transaction of LMDB may write through its map.

A page that is written through a map has to be in the file, and has to have its place on the disk:
beyond the end of the file, or in a hole of it while the disk is full, the process would be ended by
SIGBUS in the middle of a change. So the file is made longer before LMDB can come to its end, and
really allocated; what does not fit is found out there, as an error.

The map is as long as the database may ever become, and the file ends where the room ends: the map
is never moved, so the file may grow in the middle of a transaction and under cursors that are open.

LMDB does not tell an open transaction how far into the file it has come. What is known is how far
it was before, which pages its tree has by now, and what it was told to change. `MapRoom` reckons
with the most pages that this can have taken:

- Each page of the tree is copied when it is changed for the first time, and later changed in place.
- A change copies the pages on the way to its leaf, and one neighbour of each where it merges pages;
  it splits each of them at most once. A page that is given back within the transaction is taken
  again before a new one. So there are no more new pages than the tree has, apart from those that
  deletions have merged since: that is what bounds many changes of a small tree.
- A long value has pages of its own.
- The list of the free pages takes 8 bytes for each page of the file, and the commit may write it
  more than once, to new pages.

That free pages are used again before the file gets longer is not counted upon.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import lmdb

GROWTH_BYTES_MIN = 2 * 1024 * 1024
"""What the file grows by, beyond what is needed: little, since there may be many small servers on
one disk, and enough for a few dozens of changes between two looks at the tree."""
GROWTH_BYTES_MAX = 64 * 1024 * 1024
"""Likewise, of a large file: some tens of GB/s are allocated, so that it takes about a ms."""
GROWTH_SHARE = 8
"""In between it grows by the eighth part."""
FREE_LIST_BYTES_MIN = 256 * 1024
"""What is kept for the list of the free pages, and for the tree that it is in."""
FREE_LIST_SHARE = 32
"""And the 32nd part of the file: 16 times the list of all of its pages."""
LEVELS_MIN = 8
"""Levels of the tree that are reckoned with between two looks at it; 2 more than it has, if it has
more than 6. Within `GROWTH_BYTES_MAX` it can not grow by more."""
LEAVES_OF_CHANGE = 2
"""A leaf, and one that it is split into or merged with."""
BRANCHES_OF_CHANGE = 3
"""On each level above the leaf: likewise, and one for a longer key that splits it once more."""
APPEND_FACTOR = 4
"""Bytes of pages for a byte of pairs that are appended: two nodes that follow one another have more
than one page, the levels above have no more than half of the pages below them, and a long value
wastes less than the half of its pages."""
NODE_BYTES = 12
"""Of a pair in a page, beside its key and value: a head of 8, an index of 2, and an even end."""
_NO_LIMIT = 1 << 62


class MapRoom:
    """The file below the map of the one environment that writes to a database.

    Invariant: when LMDB is told to change something, `[0, end)` of the file is allocated, and no
    page at or after `end` can be touched by that change or by the commit.

    Raises:
        OSError: in `begin` and in what announces a change: the disk is full, or failed. Nothing of
            the database has changed by it.
    """

    def __init__(self, environment: lmdb.Environment, path: Path, size_bytes: int) -> None:
        """Cut the file at `path`, which LMDB has made as long as its map.

        Args:
            size_bytes: how long it was before, 0 if it is new. What of it is more than it needs
                is given back to the disk.
        """
        self._environment = environment
        self._tree = environment.open_db()
        stat = environment.stat()
        self._page_bytes = stat["psize"]
        self._map_bytes = environment.info()["map_size"]
        # The longest value that is certain to be in a leaf: a node has nearly half of a page.
        self._short_bytes = self._page_bytes // 2 - 540
        self._change_bytes = self._bytes_of_change(stat["depth"])
        self._transaction: lmdb.Transaction[bytes] | None = None
        self._changes = 0
        self._deletions = 0
        self._value_bytes = 0
        """Pages of long values and of what was appended."""
        self._left_bytes = 0
        """What may be taken before the next look at the tree."""
        self._end_bytes = 0
        """Up to here all is allocated, as far as is known: an old file may have holes."""
        used_bytes = self._used_bytes()
        enough_bytes = used_bytes + self._free_list_bytes(used_bytes) + _growth_bytes(used_bytes)
        self._descriptor = os.open(path, os.O_RDWR)
        try:
            os.ftruncate(self._descriptor, max(used_bytes, min(size_bytes, enough_bytes)))
        except OSError:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        """Give the file back; once."""
        os.close(self._descriptor)

    def begin(self, transaction: lmdb.Transaction[bytes]) -> None:
        """Make room for the beginning of `transaction`, which has not changed anything yet."""
        self._transaction = transaction
        self._changes = self._deletions = self._value_bytes = 0
        self._look()

    def put(self, value_bytes: int) -> None:
        """Make room for one pair with a value of so many bytes."""
        self._changes += 1
        taken_bytes = self._change_bytes
        if value_bytes > self._short_bytes:
            own_bytes = value_bytes + 2 * self._page_bytes
            self._value_bytes += own_bytes
            taken_bytes += own_bytes
        self._left_bytes -= taken_bytes
        if self._left_bytes < 0:
            self._look()

    def delete(self) -> None:
        """Make room for one pair less."""
        self._changes += 1
        self._deletions += 1
        self._left_bytes -= self._change_bytes
        if self._left_bytes < 0:
            self._look()

    def append(self, count: int, pairs_bytes: int) -> None:
        """Make room for `count` pairs after the last one, with keys and values of so many bytes."""
        taken_bytes = APPEND_FACTOR * (pairs_bytes + count * NODE_BYTES)
        if self._value_bytes == 0:
            # The way to the last leaf is copied once.
            taken_bytes += self._change_bytes
        self._value_bytes += taken_bytes
        self._left_bytes -= taken_bytes
        if self._left_bytes < 0:
            self._look()

    def _look(self) -> None:
        """See how much room is left, and make more if that is little."""
        taken_bytes = self._used_bytes() + self._taken_bytes()
        taken_bytes += self._free_list_bytes(taken_bytes)
        growth_bytes = _growth_bytes(taken_bytes)
        if self._end_bytes - taken_bytes < growth_bytes // 2:
            self._grow(taken_bytes, growth_bytes)
        if self._end_bytes == self._map_bytes:
            # There LMDB itself says that it is full.
            self._left_bytes = _NO_LIMIT
        else:
            self._left_bytes = min(self._end_bytes - taken_bytes, GROWTH_BYTES_MAX)

    def _grow(self, needed_bytes: int, more_bytes: int) -> None:
        """Make the file `needed_bytes` long, and longer by `more_bytes` if the disk has so much."""
        try:
            self._allocate(needed_bytes + more_bytes)
        except OSError:
            # A fault is only what may not fit.
            self._allocate(needed_bytes)

    def _allocate(self, end_bytes: int) -> None:
        end_bytes += -end_bytes % self._page_bytes
        end_bytes = min(end_bytes, self._map_bytes)
        if end_bytes > self._end_bytes:
            try:
                os.posix_fallocate(self._descriptor, self._end_bytes, end_bytes - self._end_bytes)
            except OSError:
                # Some file systems keep what they had allocated: the last of a full disk, which
                # the log needs.
                os.ftruncate(self._descriptor, max(self._end_bytes, self._used_bytes()))
                raise
            self._end_bytes = end_bytes

    def _taken_bytes(self) -> int:
        """Return the most that the open transaction may have taken, the announced change included.

        Without what its commit writes.
        """
        if self._changes == 0:
            return self._value_bytes
        assert self._transaction is not None
        stat = self._transaction.stat(self._tree)
        depth = stat["depth"]
        self._change_bytes = self._bytes_of_change(depth)
        leaves = min(LEAVES_OF_CHANGE * self._changes, stat["leaf_pages"] + self._deletions)
        branches = min(
            BRANCHES_OF_CHANGE * self._changes * depth,
            stat["branch_pages"] + self._deletions * depth,
        )
        # The tree is that before the announced change.
        return (leaves + branches) * self._page_bytes + self._value_bytes + self._change_bytes

    def _bytes_of_change(self, depth: int) -> int:
        levels = max(LEVELS_MIN, depth + 2)
        return (LEAVES_OF_CHANGE + BRANCHES_OF_CHANGE * levels) * self._page_bytes

    def _used_bytes(self) -> int:
        """Return where the pages end that were ever used, as of the latest commit."""
        return (self._environment.info()["last_pgno"] + 1) * self._page_bytes

    @staticmethod
    def _free_list_bytes(file_bytes: int) -> int:
        return FREE_LIST_BYTES_MIN + file_bytes // FREE_LIST_SHARE


def _growth_bytes(file_bytes: int) -> int:
    return min(max(file_bytes // GROWTH_SHARE, GROWTH_BYTES_MIN), GROWTH_BYTES_MAX)


def longest_file_bytes(path: Path, limit_bytes: int, size_bytes: int) -> int:
    """Return how long the file at `path` may be made: `limit_bytes`, or that halved some times.

    A file system may have a limit, and a process one of its own.

    Args:
        size_bytes: how long the file is afterwards, and it may be this long in any case.

    Raises:
        OSError: the disk failed.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        while limit_bytes > size_bytes:
            with suppress(OSError):
                os.ftruncate(descriptor, limit_bytes)
                break
            limit_bytes //= 2
        os.ftruncate(descriptor, size_bytes)
    finally:
        os.close(descriptor)
    return limit_bytes
