"""The bytes of the log: segments and batches.

All records are those of `raftd.records`, numbers are little endian. A segment is

1. a segment header, record of kind 2: format version (4), sequence number of its first batch (8),
   last index (8) and last term (8) before it, hard state before it, as in a record of kind 4;
2. batches, each with the next sequence number, from 1;
3. zeros, written and synced ahead, so that an append changes no file size and no block map.

A batch is

1. a batch header, record of kind 3: sequence number (8), its own offset in the file (8), how many
   bytes of the batch follow (8), their CRC-32 (4), number of entries (4), faint sectors (4);
2. the hard state if it changed, record of kind 4: current term (8), is there a vote (1), vote;
3. entries, records of kind 1; one at or below the last index replaces everything from there on;
4. a trailer of four bytes, none of them zero.

In place of 2 and 3 there may be a reset, record of kind 5: index (8), term (8). It drops all
entries; the next one has the index after that.

A batch header never crosses a sector boundary; zeros fill the gap before it. A *faint* sector has
at most one bit set.

Segments are named `log-SEQUENCE.open` while they are written and `log-SEQUENCE.closed` afterwards.

Releases before resets wrote the same format 1 and read everything but a reset, which they take for
damage. They also take a log whose oldest segments were forgotten for one that lost them. So they
refuse such logs, and misread none.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import attrs

from raftd.core.types import Entry, HardState, Index, Term
from raftd.records import (
    RECORD_HEADER,
    RecordError,
    decode_entries,
    decode_record,
    encode_record,
)
from raftd.storage.files import FileSystem, Remedy, StorageFault

FORMAT_VERSION = 1
"""Of the segments that this release writes and reads."""
SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""

SEGMENT_HEADER = 2
BATCH_HEADER = 3
HARD_STATE = 4
RESET = 5
"""Kinds of records, beside `raftd.records.ENTRY`."""

_SEGMENT_BODY = struct.Struct("<IQQQ")
_BATCH_BODY = struct.Struct("<QQQIII")
_HARD_STATE_BODY = struct.Struct("<QB")
_RESET_BODY = struct.Struct("<QQ")
BATCH_HEADER_BYTES = RECORD_HEADER.size + _BATCH_BODY.size
TRAILER = bytes((0xA5, 0x5A, 0xC3, 0x3C))
"""Ends a batch. No single flipped bit makes one of its bytes zero."""

_SEGMENT_NAME = re.compile(r"log-([0-9]{16})\.(open|closed)")
# Among the 512 bytes of a sector with at most one set bit, at least so many zeros are in a row.
_FAINT_RUN = bytes(SECTOR_BYTES // 2)
_BATCH_HEADER_LENGTH = struct.pack("<I", _BATCH_BODY.size)


@attrs.frozen(kw_only=True)
class Segment:
    """One file of the log."""

    name: str
    first_sequence: int
    """Sequence number of its first batch."""
    after_index: Index
    """Last index of the log when the segment was begun."""
    after_term: Term
    """The term at `after_index`."""
    used_bytes: int
    """Up to the end of its last batch; zeros follow."""
    batches: int = 0
    lowest_index: Index | None = None
    """Of the entries in it, replaced ones too; None without any. At or below `after_index` if a
    batch in it replaces entries of older segments."""

    def with_batch(self, end: int, entries: Sequence[Entry]) -> Segment:
        """Return the segment with one more batch, of these entries, that ends at `end`."""
        lowest_index = self.lowest_index
        if entries and (lowest_index is None or entries[0].index < lowest_index):
            lowest_index = entries[0].index
        return attrs.evolve(
            self, used_bytes=end, batches=self.batches + 1, lowest_index=lowest_index
        )


@attrs.frozen(kw_only=True)
class SegmentHeader:
    first_sequence: int
    after_index: Index
    after_term: Term
    hard_state: HardState


FIRST_SEGMENT = SegmentHeader(first_sequence=1, after_index=0, after_term=0, hard_state=HardState())
"""How every log begins."""


@attrs.frozen(kw_only=True)
class BatchHeader:
    sequence: int
    offset: int
    following_bytes: int
    checksum: int
    entry_count: int
    faint_sectors: int

    @property
    def end(self) -> int:
        return self.offset + BATCH_HEADER_BYTES + self.following_bytes


@attrs.frozen
class Reset:
    """The log starts over after a snapshot."""

    index: Index
    """The last one that the snapshot has."""
    term: Term
    """The term of that entry."""


@attrs.frozen(kw_only=True)
class Batch:
    """What a batch says: a reset, or hard state and entries."""

    hard_state: HardState | None
    entries: tuple[Entry, ...]
    reset: Reset | None


class Damage(Exception):
    """Where in a segment it is damaged, and how."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


# --- names --------------------------------------------------------------------------------------


def open_name(first_sequence: int) -> str:
    return f"log-{first_sequence:016d}.open"


def closed_name(first_sequence: int) -> str:
    return f"log-{first_sequence:016d}.closed"


def named_sequence(name: str) -> int:
    """Return the sequence number in the name of a segment."""
    match = _SEGMENT_NAME.fullmatch(name)
    assert match is not None
    return int(match[1])


def segment_names(directory: Path, files: FileSystem) -> list[str]:
    """Return the names of the segments, oldest first; none if there is no such directory."""
    if not files.exists(directory):
        return []
    return sorted(name for name in files.names(directory) if _SEGMENT_NAME.fullmatch(name))


# --- segments -----------------------------------------------------------------------------------


def segment_of(name: str, header: SegmentHeader, used_bytes: int) -> Segment:
    """Return the segment that begins with `header`, without batches so far."""
    return Segment(
        name=name,
        first_sequence=header.first_sequence,
        after_index=header.after_index,
        after_term=header.after_term,
        used_bytes=used_bytes,
    )


def encode_segment_header(header: SegmentHeader) -> bytes:
    return encode_record(
        SEGMENT_HEADER,
        _SEGMENT_BODY.pack(
            FORMAT_VERSION, header.first_sequence, header.after_index, header.after_term
        )
        + _encode_hard_state(header.hard_state),
    )


def decode_segment_header(path: Path, content: bytes) -> tuple[SegmentHeader, int]:
    """Return the header of a segment and its end.

    Raises:
        Damage: it is not one. Segments are published whole, so it was one before.
        StorageFault: a newer release wrote it.
    """
    try:
        kind, body, end = decode_record(content, 0)
        if kind != SEGMENT_HEADER or len(body) < _SEGMENT_BODY.size:
            raise RecordError("the record is not a segment header")
        version, first_sequence, after_index, after_term = _SEGMENT_BODY.unpack_from(body)
        if version != FORMAT_VERSION:
            raise StorageFault(
                f"{path}: written in format {version} of the log; this release reads format "
                f"{FORMAT_VERSION}. Start the release that wrote it",
                Remedy.NAMED,
            )
        hard_state = _decode_hard_state(body[_SEGMENT_BODY.size :])
    except RecordError as error:
        raise Damage(0, f"the header of the segment: {error}") from None
    header = SegmentHeader(
        first_sequence=first_sequence,
        after_index=after_index,
        after_term=after_term,
        hard_state=hard_state,
    )
    return header, end


# --- batches ------------------------------------------------------------------------------------


def batch_start(offset: int) -> int:
    """Return where a batch begins if the one before it ends at `offset`."""
    room = SECTOR_BYTES - offset % SECTOR_BYTES
    return offset if room >= BATCH_HEADER_BYTES else offset + room


def encode_batch_header(header: BatchHeader) -> bytes:
    return encode_record(
        BATCH_HEADER,
        _BATCH_BODY.pack(
            header.sequence,
            header.offset,
            header.following_bytes,
            header.checksum,
            header.entry_count,
            header.faint_sectors,
        ),
    )


def decode_batch_header(content: bytes, offset: int) -> BatchHeader | None:
    """Return the batch header at `offset`, None if there is none or it belongs elsewhere."""
    try:
        kind, body, _ = decode_record(content, offset)
    except RecordError:
        return None
    if kind != BATCH_HEADER or len(body) != _BATCH_BODY.size:
        return None
    sequence, own_offset, following_bytes, checksum, entry_count, faint_sectors = (
        _BATCH_BODY.unpack(body)
    )
    if own_offset != offset:
        return None
    return BatchHeader(
        sequence=sequence,
        offset=offset,
        following_bytes=following_bytes,
        checksum=checksum,
        entry_count=entry_count,
        faint_sectors=faint_sectors,
    )


def begins_batch_header(remnant: bytes, start: int, sequence: int) -> bool:
    """Return whether `remnant` is the beginning of the header of that batch, as far as known."""
    known = _BATCH_HEADER_LENGTH, bytes((BATCH_HEADER,)) + struct.pack("<QQ", sequence, start)
    checksum_end = RECORD_HEADER.size - 1
    return known[0].startswith(remnant[: len(known[0])]) and known[1].startswith(
        remnant[checksum_end : checksum_end + len(known[1])]
    )


def find_batch_header(content: bytes, offset: int) -> BatchHeader | None:
    """Return the next batch header at or after `offset`, None if there is none.

    A header names its own place, so a copy of one inside an entry is not mistaken for one.
    """
    while (offset := content.find(_BATCH_HEADER_LENGTH, offset)) >= 0:
        header = decode_batch_header(content, offset)
        if header is not None:
            return header
        offset += 1
    return None


def is_whole(header: BatchHeader, content: bytes) -> bool:
    """Return whether all of the batch is there, with the right checksum."""
    begin = header.offset + BATCH_HEADER_BYTES
    return (
        header.end <= len(content)
        and header.following_bytes >= len(TRAILER)
        and zlib.crc32(memoryview(content)[begin : header.end]) == header.checksum
    )


def decode_batch(header: BatchHeader, content: bytes) -> Batch:
    """Return what the batch with this header says; it is whole.

    Raises:
        RecordError: it is not what `Wal` writes.
    """
    begin, end = header.offset + BATCH_HEADER_BYTES, header.end - len(TRAILER)
    if content[end : header.end] != TRAILER:
        raise RecordError("the trailer is missing")
    hard_state, reset = None, None
    if begin < end:
        kind, body, after = decode_record(content, begin)
        if kind == HARD_STATE:
            hard_state, begin = _decode_hard_state(body), after
        elif kind == RESET:
            reset, begin = _decode_reset(body), after
            if begin != end:
                raise RecordError("a reset is not alone")
    entries = decode_entries(content[begin:end])
    if len(entries) != header.entry_count:
        raise RecordError(f"there are {len(entries)} entries instead of {header.entry_count}")
    return Batch(hard_state=hard_state, entries=entries, reset=reset)


def encode_hard_state(hard_state: HardState) -> bytes:
    """Return the record of `hard_state`."""
    return encode_record(HARD_STATE, _encode_hard_state(hard_state))


def _encode_hard_state(hard_state: HardState) -> bytes:
    # An empty name is not the absence of a vote.
    has_vote = hard_state.voted_for is not None
    return _HARD_STATE_BODY.pack(hard_state.current_term, has_vote) + (
        hard_state.voted_for or ""
    ).encode("utf-8")


def _decode_hard_state(body: bytes) -> HardState:
    if len(body) < _HARD_STATE_BODY.size:
        raise RecordError("the hard state is cut short")
    current_term, has_vote = _HARD_STATE_BODY.unpack_from(body)
    vote = body[_HARD_STATE_BODY.size :]
    if has_vote > 1 or (vote and not has_vote):
        raise RecordError("the vote of the hard state is unclear")
    try:
        return HardState(current_term, vote.decode("utf-8") if has_vote else None)
    except UnicodeDecodeError:
        raise RecordError("the vote of the hard state is no text") from None


def encode_reset(reset: Reset) -> bytes:
    """Return the record of `reset`."""
    return encode_record(RESET, _RESET_BODY.pack(reset.index, reset.term))


def _decode_reset(body: bytes) -> Reset:
    if len(body) != _RESET_BODY.size:
        raise RecordError(f"a reset of {len(body)} bytes")
    reset = Reset(*_RESET_BODY.unpack(body))
    if reset.index == 0 or reset.term == 0:
        raise RecordError("a reset to before the first entry")
    return reset


# --- sectors ------------------------------------------------------------------------------------


def faint_sectors(following: bytes, offset: int) -> int:
    """Return how many whole sectors of `following`, which stands at `offset`, are faint.

    The sectors with the header and with the trailer never are.
    """
    if _FAINT_RUN not in following:
        return 0
    first = -offset % SECTOR_BYTES
    return sum(
        int.from_bytes(following[begin : begin + SECTOR_BYTES], "little").bit_count() <= 1
        for begin in range(first, len(following) - SECTOR_BYTES + 1, SECTOR_BYTES)
    )


def zero_sectors(content: bytes, start: int, end: int) -> int:
    """Return how many of the sectors between `start` and `end` are all zeros in there."""
    count = 0
    begin = start
    while begin < end:
        sector_end = min(begin - begin % SECTOR_BYTES + SECTOR_BYTES, end)
        count += not any(content[begin:sector_end])
        begin = sector_end
    return count


def written_end(content: bytes) -> int:
    """Return where the zeros at the end of `content` begin. Every batch ends in another byte."""
    # Piece by piece, since the content of a segment should not be in memory twice.
    end = len(content)
    while end:
        begin = max(0, end - 64 * SECTOR_BYTES)
        piece = content[begin:end].rstrip(b"\0")
        if piece:
            return begin + len(piece)
        end = begin
    return 0
