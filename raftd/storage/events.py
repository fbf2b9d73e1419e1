"""The last changes of keys, in memory, for those who watch.

Every change of a key takes the next revision, so that a revision names one change: the same one on
every server. Which changes a server still has is its own business, and no part of the state.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import TypeAlias

import attrs

EVENTS_MAX = 65_536
"""Changes that are kept at least, if they are small: whoever watches may be away for so many, some
seconds of a busy cluster."""
EVENTS_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of the keys and values in all that is kept."""
_SEGMENT_EVENTS = 1_024
_SEGMENT_BYTES = 256 * 1024
"""Changes are kept and dropped by segments: to look after each single one would cost more."""

_REVISIONS = struct.Struct(">QQQ")
_KEY_PREFIX_BYTES = 1

DELETED, EXPIRED = b"", b"\0"
"""What a change has in the place of what the store has under the key, where it has nothing any
more: less than the revisions that everything else begins with."""

PUT_EVENT, DELETE_EVENT, EXPIRED_EVENT = "put", "delete", "expired"

Change: TypeAlias = tuple[bytes, bytes]
"""A key as the store has it, and what it has come to: its revisions and its value as the store has
them, `DELETED` or `EXPIRED`."""


@attrs.frozen
class Event:
    """One change of a key."""

    revision: int
    kind: str
    """put, delete (somebody removed it) or expired (its life was over)."""
    key: str
    value: bytes = b""
    create_revision: int = 0
    version: int = 0
    """Of a put; else empty and 0."""


class _Segment:
    """Changes with revisions in a row."""

    __slots__ = ("bytes", "changes", "first_revision")

    def __init__(self, first_revision: int) -> None:
        self.first_revision = first_revision
        self.changes: list[Change] = []
        self.bytes = 0


class EventRing:
    """The changes with the revisions `oldest_revision` to `revision`, without a gap."""

    def __init__(self, revision: int) -> None:
        """Begin behind `revision`, with nothing."""
        self._segments: deque[_Segment] = deque()
        self._count = self._bytes = 0
        self.restart(revision)

    def restart(self, revision: int) -> None:
        """Begin again behind `revision`: what comes next has no connection to what was kept."""
        self.revision = revision
        """Of the newest change that is kept, or of the last one before."""
        self._segments.clear()
        self._segments.append(_Segment(revision + 1))
        self._count = self._bytes = 0

    @property
    def oldest_revision(self) -> int:
        """The first revision that is kept; where nothing is kept, the next one that will be."""
        return self._segments[0].first_revision

    def extend(self, changes: list[Change]) -> None:
        """Add the changes with the next revisions, in their order. The list stays the caller's."""
        segment = self._segments[-1]
        segment.changes += changes
        size = sum(map(len, chain.from_iterable(changes)))
        segment.bytes += size
        self._bytes += size
        count = len(changes)
        self._count += count
        self.revision += count
        if len(segment.changes) >= _SEGMENT_EVENTS or segment.bytes >= _SEGMENT_BYTES:
            self._close_segment()

    def _close_segment(self) -> None:
        """Begin a new segment, and drop the oldest ones that are too much."""
        segments = self._segments
        segments.append(_Segment(self.revision + 1))
        while len(segments) > 1 and (
            self._count - len(segments[0].changes) >= EVENTS_MAX or self._bytes > EVENTS_BYTES_MAX
        ):
            oldest = segments.popleft()
            self._count -= len(oldest.changes)
            self._bytes -= oldest.bytes

    def after(
        self, revision: int, prefix: bytes, limit: int, bytes_max: int
    ) -> tuple[list[Event], int]:
        """Return the first changes behind `revision` of keys that start with `prefix`.

        At most `limit` of them, and at most `bytes_max` bytes of keys and values; one is returned
        however long it is.

        Returns:
            The changes, and the revision up to which there are no more that count.
        """
        assert revision >= self.oldest_revision - 1, f"revision {revision} is gone"
        events: list[Event] = []
        skipped = _KEY_PREFIX_BYTES
        for at, key, stored in self._behind(revision):
            if not key.startswith(prefix, skipped):
                revision = at
                continue
            bytes_max -= len(key) + len(stored)
            if len(events) >= limit or (events and bytes_max < 0):
                break
            revision = at
            events.append(_event(at, key[skipped:].decode(), stored))
        return events, revision

    def prefixes_of(self, revision: int, prefixes: set[bytes]) -> set[bytes]:
        """Return those of `prefixes` that a key has which has changed behind `revision`."""
        assert revision >= self.oldest_revision - 1, f"revision {revision} is gone"
        ends = {_KEY_PREFIX_BYTES + len(prefix) for prefix in prefixes}
        keys = {key for _, key, _ in self._behind(revision)}
        found: set[bytes] = set()
        for end in ends:
            found.update([key[_KEY_PREFIX_BYTES:end] for key in keys])
        return found & prefixes

    def _behind(self, revision: int) -> Iterator[tuple[int, bytes, bytes]]:
        position = len(self._segments) - 1
        while position > 0 and self._segments[position].first_revision > revision + 1:
            position -= 1
        for segment in list(self._segments)[position:]:
            first = segment.first_revision
            for at in range(max(0, revision + 1 - first), len(segment.changes)):
                yield first + at, *segment.changes[at]


def _event(revision: int, key: str, stored: bytes) -> Event:
    if len(stored) < _REVISIONS.size:
        return Event(revision, EXPIRED_EVENT if stored == EXPIRED else DELETE_EVENT, key)
    create_revision, _, version = _REVISIONS.unpack_from(stored)
    return Event(revision, PUT_EVENT, key, stored[_REVISIONS.size :], create_revision, version)
