"""The durable log: hard state and entries in one ordered stream, in segments.

`Wal.append` makes one *batch* durable with one write and one sync. A segment is a file of batches.
All records are those of `raftd.records`, numbers are little endian.

A segment is

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

A batch header never crosses a sector boundary; zeros fill the gap before it. A *faint* sector has
at most one bit set.

Segments are named `log-SEQUENCE.open` while they are written and `log-SEQUENCE.closed` afterwards.
The next segment is published first, then the old one is renamed, then the next one is used. So the
newest segment is always open: if it is closed, its successor was lost.

**What recovery cuts and what it refuses.** A batch is written only after the one before it was
synced. So only the last batch of the newest segment can be torn, and nobody was told that it is
durable. Everything else that does not fit is damage to synced data, and cutting it off would
silently forget votes and acknowledged entries: the server refuses to start. Disks write sectors of
512 bytes whole or not at all, in any order; a file system may also keep any prefix of a write.
Over a torn batch zeros show through, since the segment was zeros before:

- the file ends within the batch, or the batch's last byte, which is never zero, is zero;
- more of its sectors are all zeros than its header calls faint. (A flipped bit can turn one faint
  sector into zeros; that is not more);
- its header is missing: the header's whole sector is zeros from there on, no later batch is found,
  and what is left is more than one bit.

A last batch that is wholly there and wrong, a header that is there and wrong, and a lone bit in the
zeros are damage.

Source: dissertation section 3.8 (what must be durable); Alagappan et al., "Protocol-Aware Recovery
for Consensus-Based Storage" (2018), for telling a crash from corruption.
"""

from __future__ import annotations

import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import attrs

from raftd.core.types import Entry, HardState, Index, Term
from raftd.records import (
    RECORD_HEADER,
    RecordError,
    decode_entries,
    decode_record,
    encode_entry,
    encode_record,
)
from raftd.storage.files import (
    TEMPORARY_SUFFIX,
    FileSystem,
    OpenFile,
    StorageFault,
    make_directories,
    publish,
)

FORMAT_VERSION = 1
"""Of the segments that this release writes and reads."""
SEGMENT_BYTES = 64 * 1024 * 1024
"""Where the next segment starts: small enough to read into memory at once."""
PREALLOCATION_BYTES = 1024 * 1024
"""Zeros written at a time: some milliseconds on a slow disk, once for thousands of entries."""
SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""

SEGMENT_HEADER = 2
BATCH_HEADER = 3
HARD_STATE = 4
"""Kinds of records, beside `raftd.records.ENTRY`."""

_SEGMENT_BODY = struct.Struct("<IQQQ")
_BATCH_BODY = struct.Struct("<QQQIII")
_HARD_STATE_BODY = struct.Struct("<QB")
BATCH_HEADER_BYTES = RECORD_HEADER.size + _BATCH_BODY.size
TRAILER = bytes((0xA5, 0x5A, 0xC3, 0x3C))
"""Ends a batch. No single flipped bit makes one of its bytes zero."""

_SEGMENT_NAME = re.compile(r"log-([0-9]{16})\.(open|closed)")
_ZEROS = bytes(PREALLOCATION_BYTES)
# Among the 512 bytes of a sector with at most one set bit, at least so many zeros are in a row.
_FAINT_RUN = bytes(SECTOR_BYTES // 2)
_BATCH_HEADER_LENGTH = struct.pack("<I", _BATCH_BODY.size)


class CorruptLog(StorageFault):
    """Synced data is damaged or missing; going on would forget votes or acknowledged entries."""

    def __init__(self, path: Path, offset: int, reason: str, first_lost_index: Index) -> None:
        super().__init__(
            f"{path}: damaged at byte {offset}: {reason}. "
            f"Entries from index {first_lost_index} on, and any vote stored since, are lost. "
            "A server that went on could break promises that it has made, so it does not start; "
            "start one with an empty data directory and bring it in with `raftctl replace`"
        )
        self.path = path
        self.offset = offset
        """Bytes from the start of the file."""
        self.reason = reason
        self.first_lost_index = first_lost_index
        """The entries before it could be read."""


@attrs.frozen
class Recovered:
    """What a log says when it is opened."""

    hard_state: HardState
    entries: tuple[Entry, ...]
    """The live ones, contiguous; what was replaced is left out."""
    cut_bytes: int
    """Length of the torn batch that was cut off, 0 if there was none."""


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


@attrs.frozen(kw_only=True)
class _SegmentHeader:
    first_sequence: int
    after_index: Index
    after_term: Term
    hard_state: HardState


@attrs.frozen(kw_only=True)
class _BatchHeader:
    sequence: int
    offset: int
    following_bytes: int
    checksum: int
    entry_count: int
    faint_sectors: int

    @property
    def end(self) -> int:
        return self.offset + BATCH_HEADER_BYTES + self.following_bytes


class _Damage(Exception):
    """Where in a segment it is damaged, and how."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


# --- the log ----------------------------------------------------------------------------------


class Wal:
    """The log of one server, open for appending. Not for several threads at once.

    After a `StorageFault` it refuses all further use: what the disk holds is not known any more.
    """

    def __init__(
        self,
        *,
        directory: Path,
        files: FileSystem,
        file: OpenFile,
        segments: Sequence[Segment],
        allocated_bytes: int,
        segment_bytes: int,
        position: _Position,
    ) -> None:
        self._directory = directory
        self._files = files
        self._file = file
        self._closed_segments = list(segments[:-1])
        self._segment = segments[-1]
        self._allocated_bytes = allocated_bytes
        self._segment_bytes = segment_bytes
        self._position = position
        self._failure = ""

    @staticmethod
    def exists(directory: Path, files: FileSystem) -> bool:
        """Return whether `directory` holds a segment, damaged or not."""
        return files.exists(directory) and bool(_segment_names(directory, files))

    @classmethod
    def create(cls, directory: Path, files: FileSystem) -> None:
        """Make an empty log. Durable after it returns; after a crash before, it may be repeated.

        Raises:
            StorageFault: the disk failed.
        """
        assert not cls.exists(directory, files), "a log is never made over another one"
        make_directories(files, directory)
        header = _SegmentHeader(
            first_sequence=1, after_index=0, after_term=0, hard_state=HardState()
        )
        publish(files, directory / _segment_name(1), _encode_segment_header(header))

    @classmethod
    def open(
        cls, directory: Path, files: FileSystem, *, segment_bytes: int = SEGMENT_BYTES
    ) -> tuple[Wal, Recovered]:
        """Read the whole log, cut off a torn last batch, and open the log for appending.

        Whatever it returns is durable, also what a crash had left in the kernel's cache only. A
        log that it refuses is left as it is.

        Args:
            segment_bytes: Size at which the next segment starts; a larger batch gets a segment
                of its own size.

        Raises:
            CorruptLog: synced data is damaged or missing.
            StorageFault: there is no log, a newer release wrote it, or the disk failed.
        """
        reading = _Reading(directory, files)
        reading.read_all()
        for name in files.names(directory):
            if name.endswith(TEMPORARY_SUFFIX):
                files.unlink(directory / name)
        # A crash may have come between the publication of a segment and this renaming.
        for segment in reading.segments[:-1]:
            open_name = _segment_name(segment.first_sequence)
            if segment.name == open_name:
                files.rename(
                    directory / open_name, directory / _closed_name(segment.first_sequence)
                )
        files.sync_directory(directory)
        last = reading.segments[-1]
        file = files.open(directory / last.name)
        try:
            if reading.cut_bytes:
                file.truncate(last.used_bytes)
            # The last batch may never have been synced, or its sync may have failed; then the
            # kernel believes the pages to be clean, and only writing them again brings them down.
            file.write(reading.last_batch, last.used_bytes - len(reading.last_batch))
            file.sync()
            wal = cls(
                directory=directory,
                files=files,
                file=file,
                segments=[
                    attrs.evolve(segment, name=_closed_name(segment.first_sequence))
                    for segment in reading.segments[:-1]
                ]
                + [last],
                allocated_bytes=last.used_bytes if reading.cut_bytes else reading.last_size_bytes,
                segment_bytes=segment_bytes,
                position=reading.position,
            )
            if last.used_bytes < segment_bytes:
                wal._reserve(last.used_bytes + 1)
        except BaseException:
            file.close()
            raise
        return wal, Recovered(
            reading.position.hard_state, tuple(reading.entries), reading.cut_bytes
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever appended."""
        return self._position.next_sequence == 1

    @property
    def last_index(self) -> Index:
        """Index of the last durable entry, 0 if there is none."""
        return self._position.terms.last_index

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments together, zeros written ahead not counted."""
        return sum(segment.used_bytes for segment in self.segments)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The files of the log, oldest first; the last one is being written."""
        return (*self._closed_segments, self._segment)

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Make `hard_state` and `entries` durable together: after a crash both are there or none.

        One write and one sync; every `PREALLOCATION_BYTES` one more sync of zeros, and a few more
        every `segment_bytes`. Durable after it returns.

        Args:
            hard_state: The new term and vote, or None if unchanged.
            entries: Contiguous, with terms that never decrease. The first index is at most one
                above `last_index`; if it is at or below it, everything from there on is replaced.

        Raises:
            StorageFault: the disk failed, now or before.
        """
        if self._failure:
            raise StorageFault(f"the log is not used any more, since {self._failure}")
        if hard_state is None and not entries:
            return
        refusal = self._position.refusal(hard_state, entries)
        assert not refusal, refusal
        parts = [] if hard_state is None else [_encode_hard_state_record(hard_state)]
        parts += [encode_entry(entry) for entry in entries]
        parts.append(TRAILER)
        following = b"".join(parts)
        try:
            end = self._write_batch(following, len(entries))
        except BaseException as error:
            self._failure = str(error) or repr(error)
            raise
        # Memory changes only after the disk has.
        self._segment = attrs.evolve(self._segment, used_bytes=end)
        self._position.advance(hard_state, entries)

    def close(self) -> None:
        """Give the file back. Nothing is written: every append is durable already."""
        self._failure = self._failure or "it was closed"
        self._file.close()

    def _write_batch(self, following: bytes, entry_count: int) -> int:
        """Write and sync one batch; return its end in the segment."""
        size_bytes = BATCH_HEADER_BYTES + len(following)
        start = _batch_start(self._segment.used_bytes)
        is_fresh = self._segment.first_sequence == self._position.next_sequence
        if start + size_bytes > self._segment_bytes and not is_fresh:
            self._begin_segment()
            start = _batch_start(self._segment.used_bytes)
        header = _BatchHeader(
            sequence=self._position.next_sequence,
            offset=start,
            following_bytes=len(following),
            checksum=zlib.crc32(following),
            entry_count=entry_count,
            faint_sectors=_faint_sectors(following, start + BATCH_HEADER_BYTES),
        )
        self._reserve(start + size_bytes)
        self._file.write(_encode_batch_header(header) + following, start)
        self._file.sync()
        return start + size_bytes

    def _begin_segment(self) -> None:
        """Publish the next segment, mark the current one as closed, and go over to the next."""
        position = self._position
        header = _SegmentHeader(
            first_sequence=position.next_sequence,
            after_index=position.terms.last_index,
            after_term=position.terms.last_term,
            hard_state=position.hard_state,
        )
        content = _encode_segment_header(header)
        name = _segment_name(header.first_sequence)
        publish(self._files, self._directory / name, content)
        # Only now: a closed segment promises that there is a later one.
        self._file.close()
        old = self._segment
        closed_name = _closed_name(old.first_sequence)
        self._files.rename(self._directory / old.name, self._directory / closed_name)
        self._files.sync_directory(self._directory)
        self._file = self._files.open(self._directory / name)
        self._closed_segments.append(attrs.evolve(old, name=closed_name))
        self._segment = _segment(name, header, len(content))
        self._allocated_bytes = len(content)

    def _reserve(self, end: int) -> None:
        """Write zeros ahead, durably, at least up to `end`."""
        if end <= self._allocated_bytes:
            return
        steps = -(-end // PREALLOCATION_BYTES)
        target = max(end, min(steps * PREALLOCATION_BYTES, self._segment_bytes))
        offset = self._allocated_bytes
        while offset < target:
            zeros = _ZEROS[: target - offset]
            self._file.write(zeros, offset)
            offset += len(zeros)
        # Before the batch: a torn one is known by the zeros that show through.
        self._file.sync()
        self._allocated_bytes = target


class _Terms:
    """The term of every live index, as runs of equal terms."""

    def __init__(self, after_index: Index, after_term: Term) -> None:
        self.last_index = after_index
        self._first_indexes = [after_index]
        self._terms = [after_term]

    @property
    def after_index(self) -> Index:
        return self._first_indexes[0]

    @property
    def last_term(self) -> Term:
        return self._terms[-1]

    def refusal(self, entries: Sequence[Entry]) -> str:
        """Return why `entries` cannot follow, or an empty text if they can."""
        index = entries[0].index
        if not self.after_index < index <= self.last_index + 1:
            return (
                f"entry {index} does not continue a log of entries "
                f"{self.after_index + 1} to {self.last_index}"
            )
        term = self._terms[bisect_right(self._first_indexes, index - 1) - 1]
        for entry in entries:
            if entry.index != index:
                return f"entry {entry.index} stands where {index} is due"
            if entry.term < term:
                return f"entry {index} of term {entry.term} follows one of term {term}"
            term = entry.term
            index += 1
        return ""

    def replace_from(self, entries: Sequence[Entry]) -> None:
        """Let `entries`, which are not refused, take the place of everything from there on."""
        while self._first_indexes[-1] >= entries[0].index:
            del self._first_indexes[-1], self._terms[-1]
        for entry in entries:
            if entry.term != self._terms[-1]:
                self._first_indexes.append(entry.index)
                self._terms.append(entry.term)
        self.last_index = entries[-1].index


class _Position:
    """Where the log ends: what the next batch has to fit to."""

    def __init__(self, header: _SegmentHeader) -> None:
        self.next_sequence = header.first_sequence
        self.hard_state = header.hard_state
        self.terms = _Terms(header.after_index, header.after_term)

    def refusal(self, hard_state: HardState | None, entries: Sequence[Entry]) -> str:
        """Return why a batch cannot come next, or an empty text if it can."""
        if hard_state is not None and hard_state.current_term < self.hard_state.current_term:
            return (
                f"the current term falls from {self.hard_state.current_term} "
                f"to {hard_state.current_term}"
            )
        return self.terms.refusal(entries) if entries else ""

    def advance(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Take in a batch that is durable."""
        self.next_sequence += 1
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            self.terms.replace_from(entries)

    def matches(self, header: _SegmentHeader) -> bool:
        """Return whether a segment with this header comes next."""
        return header == _SegmentHeader(
            first_sequence=self.next_sequence,
            after_index=self.terms.last_index,
            after_term=self.terms.last_term,
            hard_state=self.hard_state,
        )


# --- recovery -----------------------------------------------------------------------------------


class _Reading:
    """One pass over all segments. Changes nothing on the disk."""

    def __init__(self, directory: Path, files: FileSystem) -> None:
        self._directory = directory
        self._files = files
        self.position = _Position(
            _SegmentHeader(first_sequence=1, after_index=0, after_term=0, hard_state=HardState())
        )
        self.entries: list[Entry] = []
        self.segments: list[Segment] = []
        self.cut_bytes = 0
        self.last_batch = b""
        """The last good batch of the last segment, header included."""
        self.last_size_bytes = 0
        """Of the last segment's file."""

    def read_all(self) -> None:
        """Read every segment.

        Raises:
            CorruptLog: synced data is damaged or missing.
            StorageFault: there is no log, a newer release wrote it, or the disk failed.
        """
        names = (
            _segment_names(self._directory, self._files)
            if self._files.exists(self._directory)
            else []
        )
        if not names:
            raise StorageFault(f"{self._directory}: there is no log")
        for name in names:
            content = self._files.read(self._directory / name)
            try:
                self._read_segment(name, content, is_last=name == names[-1])
            except _Damage as damage:
                raise self._corrupt(name, damage.offset, damage.reason) from None
        # Asked last, so that damage is reported where it is.
        if names[-1].endswith(".closed"):
            raise self._corrupt(
                names[-1],
                self.segments[-1].used_bytes,
                "the segment is closed, but the one that continues it is missing",
            )

    def _corrupt(self, name: str, offset: int, reason: str) -> CorruptLog:
        return CorruptLog(
            self._directory / name, offset, reason, self.position.terms.last_index + 1
        )

    def _read_segment(self, name: str, content: bytes, *, is_last: bool) -> None:
        header, offset = _decode_segment_header(self._directory / name, content)
        if not self.position.matches(header):
            raise _Damage(
                0,
                f"the segment begins with batch {header.first_sequence} after entry "
                f"{header.after_index}, where batch {self.position.next_sequence} after entry "
                f"{self.position.terms.last_index} is due: a segment is missing or from elsewhere",
            )
        self.last_size_bytes = len(content)
        self.last_batch = b""
        # Every batch ends in a byte that is not zero.
        written_end = len(content.rstrip(b"\0"))
        while offset < written_end:
            start = _batch_start(offset)
            if any(content[offset:start]):
                raise _Damage(offset, "the gap before a batch is not zero")
            batch = _decode_batch_header(content, start)
            if batch is None or not _is_whole(batch, content):
                reason = _why_not_torn(
                    content, start, written_end, batch, self.position.next_sequence
                )
                if not is_last:
                    reason = reason or "a batch was never written completely"
                if reason:
                    raise _Damage(start, reason)
                self.cut_bytes = written_end - offset
                break
            self._take_in(batch, content)
            self.last_batch = content[start : batch.end]
            offset = batch.end
        self.segments.append(_segment(name, header, offset))

    def _take_in(self, batch: _BatchHeader, content: bytes) -> None:
        """Apply a batch whose checksum is right."""
        if batch.sequence != self.position.next_sequence:
            raise _Damage(
                batch.offset,
                f"batch {batch.sequence} stands where {self.position.next_sequence} is due",
            )
        begin, end = batch.offset + BATCH_HEADER_BYTES, batch.end - len(TRAILER)
        hard_state = None
        try:
            if content[batch.end - len(TRAILER) : batch.end] != TRAILER:
                raise RecordError("the trailer is missing")
            if begin < end:
                kind, body, after = decode_record(content, begin)
                if kind == HARD_STATE:
                    hard_state, begin = _decode_hard_state(body), after
            entries = decode_entries(content[begin:end])
        except RecordError as error:
            raise _Damage(batch.offset, f"batch {batch.sequence}: {error}") from None
        refusal = self.position.refusal(hard_state, entries)
        if not refusal and len(entries) != batch.entry_count:
            refusal = f"there are {len(entries)} entries instead of {batch.entry_count}"
        if refusal:
            raise _Damage(batch.offset, f"batch {batch.sequence}: {refusal}")
        self.position.advance(hard_state, entries)
        if entries:
            del self.entries[entries[0].index - self.position.terms.after_index - 1 :]
            self.entries += entries


def _is_whole(batch: _BatchHeader, content: bytes) -> bool:
    """Return whether all of the batch is there, with the right checksum."""
    begin = batch.offset + BATCH_HEADER_BYTES
    return (
        batch.end <= len(content)
        and batch.following_bytes >= len(TRAILER)
        and zlib.crc32(memoryview(content)[begin : batch.end]) == batch.checksum
    )


def _why_not_torn(
    content: bytes, start: int, written_end: int, batch: _BatchHeader | None, sequence: int
) -> str:
    """Return why the bad batch at `start` is damage, or an empty text if it is torn.

    Args:
        content: The whole segment.
        start: Where the batch begins.
        written_end: Just after the last byte of the segment that is not zero.
        batch: Its header, None if that is missing or wrong.
        sequence: The sequence number that is due.
    """
    if batch is not None:
        if batch.sequence != sequence:
            return f"batch {batch.sequence} stands where {sequence} is due"
        if batch.end > len(content):
            return ""
        if written_end > batch.end:
            return f"the checksum of batch {sequence} is wrong, and it was synced: others follow"
        if content[batch.end - 1] == 0:
            return ""
        if _zero_sectors(content, start, batch.end) > batch.faint_sectors:
            return ""
        return f"the checksum of batch {sequence} is wrong, and all of it was written"
    if start >= written_end or int.from_bytes(content[start:written_end], "little").bit_count() < 2:
        return "a bit is set among the zeros after the last batch"
    header_end = start + BATCH_HEADER_BYTES
    if any(content[start:header_end]):
        # A header is in one sector, so a torn one is missing. One that was cut short at a byte
        # is right as far as it goes and has nothing after it.
        if written_end <= header_end and _begins_header(
            content[start:written_end], start, sequence
        ):
            return ""
        return f"the header of batch {sequence} is wrong"
    sector_end = start - start % SECTOR_BYTES + SECTOR_BYTES
    if any(content[header_end:sector_end]):
        return f"the header of batch {sequence} is zero in a sector that was written"
    later = _find_batch_header(content, start + 1)
    if later is not None:
        return f"batch {sequence} is missing, and it was synced: batch {later.sequence} follows"
    return ""


def _begins_header(remnant: bytes, start: int, sequence: int) -> bool:
    """Return whether `remnant` is the beginning of the header of that batch, as far as known."""
    known = _BATCH_HEADER_LENGTH, bytes((BATCH_HEADER,)) + struct.pack("<QQ", sequence, start)
    checksum_end = RECORD_HEADER.size - 1
    return known[0].startswith(remnant[: len(known[0])]) and known[1].startswith(
        remnant[checksum_end : checksum_end + len(known[1])]
    )


def _find_batch_header(content: bytes, offset: int) -> _BatchHeader | None:
    """Return the next batch header at or after `offset`, None if there is none.

    A header names its own place, so a copy of one inside an entry is not mistaken for one.
    """
    while (offset := content.find(_BATCH_HEADER_LENGTH, offset)) >= 0:
        header = _decode_batch_header(content, offset)
        if header is not None:
            return header
        offset += 1
    return None


def _faint_sectors(following: bytes, offset: int) -> int:
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


def _zero_sectors(content: bytes, start: int, end: int) -> int:
    """Return how many of the sectors between `start` and `end` are all zeros in there."""
    count = 0
    begin = start
    while begin < end:
        sector_end = min(begin - begin % SECTOR_BYTES + SECTOR_BYTES, end)
        count += not any(content[begin:sector_end])
        begin = sector_end
    return count


# --- bytes ------------------------------------------------------------------------------------


def _segment_name(first_sequence: int) -> str:
    return f"log-{first_sequence:016d}.open"


def _closed_name(first_sequence: int) -> str:
    return f"log-{first_sequence:016d}.closed"


def _segment_names(directory: Path, files: FileSystem) -> list[str]:
    """Return the names of the segments, oldest first."""
    return sorted(name for name in files.names(directory) if _SEGMENT_NAME.fullmatch(name))


def _segment(name: str, header: _SegmentHeader, used_bytes: int) -> Segment:
    return Segment(
        name=name,
        first_sequence=header.first_sequence,
        after_index=header.after_index,
        after_term=header.after_term,
        used_bytes=used_bytes,
    )


def _batch_start(offset: int) -> int:
    """Return where a batch begins if the one before it ends at `offset`."""
    room = SECTOR_BYTES - offset % SECTOR_BYTES
    return offset if room >= BATCH_HEADER_BYTES else offset + room


def _encode_segment_header(header: _SegmentHeader) -> bytes:
    return encode_record(
        SEGMENT_HEADER,
        _SEGMENT_BODY.pack(
            FORMAT_VERSION, header.first_sequence, header.after_index, header.after_term
        )
        + _encode_hard_state(header.hard_state),
    )


def _decode_segment_header(path: Path, content: bytes) -> tuple[_SegmentHeader, int]:
    """Return the header of a segment and its end.

    Raises:
        _Damage: it is not one. Segments are published whole, so it was one before.
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
                f"{FORMAT_VERSION}. Start the release that wrote it"
            )
        hard_state = _decode_hard_state(body[_SEGMENT_BODY.size :])
    except RecordError as error:
        raise _Damage(0, f"the header of the segment: {error}") from None
    header = _SegmentHeader(
        first_sequence=first_sequence,
        after_index=after_index,
        after_term=after_term,
        hard_state=hard_state,
    )
    return header, end


def _encode_batch_header(header: _BatchHeader) -> bytes:
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


def _decode_batch_header(content: bytes, offset: int) -> _BatchHeader | None:
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
    return _BatchHeader(
        sequence=sequence,
        offset=offset,
        following_bytes=following_bytes,
        checksum=checksum,
        entry_count=entry_count,
        faint_sectors=faint_sectors,
    )


def _encode_hard_state(hard_state: HardState) -> bytes:
    # An empty name is not the absence of a vote.
    has_vote = hard_state.voted_for is not None
    return _HARD_STATE_BODY.pack(hard_state.current_term, has_vote) + (
        hard_state.voted_for or ""
    ).encode("utf-8")


def _encode_hard_state_record(hard_state: HardState) -> bytes:
    return encode_record(HARD_STATE, _encode_hard_state(hard_state))


def _decode_hard_state(body: bytes) -> HardState:
    """Return the hard state in `body`.

    Raises:
        RecordError: it is none.
    """
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
