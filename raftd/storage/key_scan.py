"""The keys of applications alone, without their values: in order, and how many there are."""

from __future__ import annotations

from raftd.storage.store import CountedStore

_KEY, _KEY_END = b"K", b"L"
_OTHERS = ((b"\0", b"D"), (b"F", _KEY), (_KEY_END, b"S"), (b"T", b"U"), (b"V", b"\xff"))
"""Where all else stands, but for sessions and lives: these are counted where they change."""


def scan_keys(store: CountedStore, start: bytes, end: bytes, limit: int) -> list[bytes]:
    """Return the first `limit` keys at `start` or behind it and before `end`, in their order.

    An empty `end` stands for the end of all.
    """
    last = _KEY + end if end else _KEY_END
    return [key[len(_KEY) :] for key in store.keys(_KEY + start, last, limit)]


def count_keys(store: CountedStore, sessions: int, lives: int, counted_max: int) -> int | None:
    """Return how many keys there are in the store of a state; None if that would take too long.

    All else is counted instead, which is far less.

    Args:
        sessions: how many are open.
        lives: how many keys have one.
        counted_max: how many things may be counted one by one.
    """
    # Each of them stands there twice: by its name, and in the order in which it ends.
    others = 2 * (sessions + lives)
    for start, end in _OTHERS:
        found = len(store.keys(start, end, counted_max + 1))
        counted_max -= found
        if counted_max < 0:
            return None
        others += found
    return store.pair_count - others
