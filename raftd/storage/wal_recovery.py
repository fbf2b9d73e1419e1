"""Reading the log: what recovery finds, cuts and refuses.

**What it cuts and what it refuses.** A batch is written only after the one before it was
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

**A log whose first segment is not the first that ever was.** The older ones were forgotten, or
lost; the log cannot tell. What stands before its first entry is its *base*, and only a snapshot
that reaches up to there makes the log complete. A crash while segments are forgotten may leave a
first segment with a batch that replaces entries at or below its `after_index`. What such a batch
follows is not known any more, so its first entry becomes the base: that one, too, is in the
snapshot for which the segments were forgotten.

Source: Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage" (2018), for telling
a crash from corruption.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from raftd.core.types import Entry, HardState, Index, Term
from raftd.records import RecordError
from raftd.storage.files import FileSystem, Remedy, StorageFault
from raftd.storage.wal_position import Position, Terms
from raftd.storage.wal_segments import (
    BATCH_HEADER_BYTES,
    FIRST_SEGMENT,
    SECTOR_BYTES,
    Batch,
    BatchHeader,
    Damage,
    Segment,
    SegmentHeader,
    batch_start,
    begins_batch_header,
    decode_batch,
    decode_batch_header,
    decode_segment_header,
    find_batch_header,
    is_whole,
    named_sequence,
    segment_names,
    segment_of,
    written_end,
    zero_sectors,
)

_REFUSAL = "A server that went on could break promises that it has made, so it does not start"


class CorruptLog(StorageFault):
    """Synced data is damaged or missing; going on would forget votes or acknowledged entries."""

    def __init__(
        self, path: Path, offset: int, reason: str, first_lost_index: Index, what: str = ""
    ) -> None:
        """Keep what is known; `what` is said of the file instead of place and reason."""
        what = what or f"{path}: damaged at byte {offset}: {reason}."
        super().__init__(
            f"{what} Entries from index {first_lost_index} on, and any vote stored since, are "
            f"lost. {_REFUSAL}",
            Remedy.REPLACE,
        )
        self.path = path
        self.offset = offset
        """Bytes from the start of the file."""
        self.reason = reason
        self.first_lost_index = first_lost_index
        """The entries before it could be read, or are in the snapshot."""


class MissingEntries(CorruptLog):
    """Between the snapshot and the log there is a gap. `path` is the directory of the log."""

    def __init__(self, directory: Path, snapshot_index: Index, base_index: Index) -> None:
        has = f"the newest snapshot ends at index {snapshot_index}"
        self.path = directory
        self.offset = 0
        self.reason = (
            f"the log begins after index {base_index}, but "
            f"{has if snapshot_index else 'there is no snapshot'}"
        )
        self.first_lost_index = snapshot_index + 1
        self.last_lost_index = base_index
        lost = f"entries {self.first_lost_index} to {base_index} are lost"
        if self.first_lost_index == base_index:
            lost = f"entry {base_index} is lost"
        StorageFault.__init__(
            self,
            f"{directory}: {lost}: "
            f"{self.reason}. If a newer snapshot, or older segments of the log, are somewhere "
            f"else, put them back. {_REFUSAL}",
            Remedy.REPLACE,
        )


class MissingSegment(CorruptLog):
    """Between two segments there is a gap. `path` is the segment after it."""

    def __init__(
        self, path: Path, before: Segment, position: Position, after: SegmentHeader, lost: Index
    ) -> None:
        """Keep what is known.

        Args:
            path: The segment after the gap.
            before: The one before it.
            position: What was read so far comes to.
            after: The header of the segment after the gap.
            lost: The first entry that neither the log before the gap nor the snapshot has.
        """
        last_index = position.terms.last_index
        last_sequence, next_sequence = position.next_sequence - 1, after.first_sequence
        missing = f"batches {last_sequence + 1} to {next_sequence - 1}"
        # In the gap entries may have been replaced, and none added.
        if after.after_index > last_index:
            missing = f"entries {last_index + 1} to {after.after_index}"
        reason = (
            f"a segment is missing: {before.name} ends with batch {last_sequence} and entry "
            f"{last_index}, {path.name} begins with batch {next_sequence} after entry "
            f"{after.after_index}"
        )
        what = (
            f"{path.parent}: {missing} are missing: {reason}. If the segment between them is "
            "somewhere else, put it back."
        )
        super().__init__(path, 0, reason, lost, what)


@attrs.frozen
class Recovered:
    """What a log says when it is opened."""

    hard_state: HardState
    entries: tuple[Entry, ...]
    """The live ones, contiguous, from `base_index` + 1; what was replaced is left out."""
    cut_bytes: int
    """Length of the torn batch that was cut off, 0 if there was none."""
    base_index: Index = 0
    """What stands before the first entry; 0 if the log goes back to the beginning."""
    base_term: Term = 0
    """The term at `base_index`."""


@attrs.frozen(kw_only=True)
class WalInspection:
    """What a log holds, and how far it is good."""

    segments: tuple[Segment, ...]
    """Those that were read, oldest first. If there is damage, the last one up to there."""
    unread: tuple[str, ...]
    """Names of the segments behind the damage; without it, there are none."""
    hard_state: HardState
    """The last one before the damage."""
    base_index: Index
    """What stands before the first entry."""
    base_term: Term
    entries: tuple[Entry, ...]
    """The live ones before the damage, contiguous."""
    torn_bytes: int
    """Length of a torn last batch, which the next start cuts off; 0 if there is none."""
    damage: CorruptLog | None
    """What a start would refuse: file, offset, reason, first lost index."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever appended, as far as can be seen."""
        return (
            self.damage is None
            and not self.torn_bytes
            and [(each.first_sequence, each.batches) for each in self.segments] == [(1, 0)]
        )


def inspect_wal(
    directory: Path, files: FileSystem, *, snapshot_index: Index | None = None
) -> WalInspection:
    """Read the log in `directory`, verify every checksum, and change nothing.

    It reads as a start does and stops where that refuses. For the log of a server that is stopped:
    one that is written meanwhile may look torn or damaged.

    Args:
        snapshot_index: Up to where the newest snapshot reaches, 0 if there is none. A gap between
            it and the log is damage then; None if the gap is not looked for.

    Raises:
        StorageFault: there is no log, a newer release wrote it, or the disk failed.
    """
    reading = WalReading(directory, files, snapshot_index)
    damage = None
    try:
        reading.read_all()
    except CorruptLog as corrupt:
        damage = corrupt
    terms = reading.position.terms
    return WalInspection(
        segments=tuple(reading.segments),
        unread=tuple(reading.unread),
        hard_state=reading.position.hard_state,
        base_index=terms.after_index,
        base_term=terms.after_term,
        entries=tuple(reading.entries),
        torn_bytes=reading.cut_bytes,
        damage=damage,
    )


class WalReading:
    """One pass over all segments. Changes nothing on the disk.

    It holds the live entries and one segment at a time.
    """

    def __init__(
        self, directory: Path, files: FileSystem, snapshot_index: Index | None = None
    ) -> None:
        self.directory = directory
        self.files = files
        self._snapshot_index = snapshot_index
        self._base_may_move = False
        self.position = Position(FIRST_SEGMENT)
        self.entries: list[Entry] = []
        self.segments: list[Segment] = []
        self.unread: list[str] = []
        """Names of the segments that were not begun."""
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
        self.unread = segment_names(self.directory, self.files)
        if not self.unread:
            raise StorageFault(f"{self.directory}: there is no log", Remedy.REPLACE)
        while self.unread:
            name = self.unread.pop(0)
            self._read_file(name, is_last=not self.unread)
        # Asked last, so that damage is reported where it is.
        last = self.segments[-1]
        if last.name.endswith(".closed"):
            raise self._corrupt(
                last.name,
                last.used_bytes,
                "the segment is closed, but the one that continues it is missing",
            )
        base_index = self.position.terms.after_index
        if self._snapshot_index is not None and base_index > self._snapshot_index:
            raise MissingEntries(self.directory, self._snapshot_index, base_index)

    def recovered(self) -> Recovered:
        """Return what was read, after `read_all`."""
        terms = self.position.terms
        return Recovered(
            self.position.hard_state,
            tuple(self.entries),
            self.cut_bytes,
            terms.after_index,
            terms.after_term,
        )

    def _corrupt(self, name: str, offset: int, reason: str) -> CorruptLog:
        return CorruptLog(self.directory / name, offset, reason, self._first_lost_index())

    def _first_lost_index(self) -> Index:
        return max(self.position.terms.last_index, self._snapshot_index or 0) + 1

    def _read_file(self, name: str, *, is_last: bool) -> None:
        # The content is let go of at the end, before the next one is read.
        content = self.files.read(self.directory / name)
        try:
            header, offset = decode_segment_header(self.directory / name, content)
            self._begin(name, header)
            self.segments.append(segment_of(name, header, offset))
            self._read_batches(content, is_last=is_last)
        except Damage as damage:
            raise self._corrupt(name, damage.offset, damage.reason) from None

    def _begin(self, name: str, header: SegmentHeader) -> None:
        """Check that the segment continues the one before; if it is the first, begin there."""
        if header.first_sequence != named_sequence(name):
            raise Damage(
                0,
                f"the segment begins with batch {header.first_sequence}, "
                "but has the name of another one",
            )
        if not self.segments and header.first_sequence != FIRST_SEGMENT.first_sequence:
            self.position = Position(header)
            self._base_may_move = True
        if self.segments and header.first_sequence > self.position.next_sequence:
            raise MissingSegment(
                self.directory / name,
                self.segments[-1],
                self.position,
                header,
                self._first_lost_index(),
            )
        if header != self.position.header():
            raise Damage(
                0,
                f"the segment begins with batch {header.first_sequence} after entry "
                f"{header.after_index}, where batch {self.position.next_sequence} after entry "
                f"{self.position.terms.last_index} is due: it is from elsewhere",
            )

    def _read_batches(self, content: bytes, *, is_last: bool) -> None:
        self.last_size_bytes = len(content)
        self.last_batch = b""
        offset = self.segments[-1].used_bytes
        end = written_end(content)
        while offset < end:
            start = batch_start(offset)
            if any(content[offset:start]):
                raise Damage(offset, "the gap before a batch is not zero")
            header = decode_batch_header(content, start)
            if header is None or not is_whole(header, content):
                reason = _why_not_torn(content, start, end, header, self.position.next_sequence)
                if not is_last:
                    reason = reason or "a batch was never written completely"
                if reason:
                    raise Damage(start, reason)
                self.cut_bytes = end - offset
                break
            batch = self._take_in(header, content)
            self.segments[-1] = self.segments[-1].with_batch(header.end, batch.entries)
            self.last_batch = content[start : header.end]
            offset = header.end

    def _take_in(self, header: BatchHeader, content: bytes) -> Batch:
        """Apply a batch whose checksum is right, and return it."""
        if header.sequence != self.position.next_sequence:
            raise Damage(
                header.offset,
                f"batch {header.sequence} stands where {self.position.next_sequence} is due",
            )
        try:
            batch = decode_batch(header, content)
        except RecordError as error:
            raise Damage(header.offset, f"batch {header.sequence}: {error}") from None
        if batch.reset is not None:
            self.position.start_over(batch.reset)
            self.entries.clear()
            # All that follows was appended to this base.
            self._base_may_move = False
            return batch
        entries = batch.entries
        after_index = self.position.terms.after_index
        if self._base_may_move and entries and 0 < entries[0].index <= after_index:
            self.position.terms = Terms(entries[0].index, entries[0].term)
            self.entries.clear()
            entries = entries[1:]
        refusal = self.position.refusal(batch.hard_state, entries)
        if refusal:
            raise Damage(header.offset, f"batch {header.sequence}: {refusal}")
        self.position.advance(batch.hard_state, entries)
        if entries:
            del self.entries[entries[0].index - self.position.terms.after_index - 1 :]
            self.entries += entries
        return batch


def _why_not_torn(
    content: bytes, start: int, end: int, header: BatchHeader | None, sequence: int
) -> str:
    """Return why the bad batch at `start` is damage, or an empty text if it is torn.

    Args:
        content: The whole segment.
        start: Where the batch begins.
        end: Just after the last byte of the segment that is not zero.
        header: Its header, None if that is missing or wrong.
        sequence: The sequence number that is due.
    """
    if header is not None:
        if header.sequence != sequence:
            return f"batch {header.sequence} stands where {sequence} is due"
        if header.end > len(content):
            return ""
        if end > header.end:
            return f"the checksum of batch {sequence} is wrong, and it was synced: others follow"
        if content[header.end - 1] == 0:
            return ""
        if zero_sectors(content, start, header.end) > header.faint_sectors:
            return ""
        return f"the checksum of batch {sequence} is wrong, and all of it was written"
    if start >= end or int.from_bytes(content[start:end], "little").bit_count() < 2:
        return "a bit is set among the zeros after the last batch"
    header_end = start + BATCH_HEADER_BYTES
    if any(content[start:header_end]):
        # A header is in one sector, so a torn one is missing. One that was cut short at a byte
        # is right as far as it goes and has nothing after it.
        if end <= header_end and begins_batch_header(content[start:end], start, sequence):
            return ""
        return f"the header of batch {sequence} is wrong"
    sector_end = start - start % SECTOR_BYTES + SECTOR_BYTES
    if any(content[header_end:sector_end]):
        return f"the header of batch {sequence} is zero in a sector that was written"
    later = find_batch_header(content, start + 1)
    if later is not None:
        return f"batch {sequence} is missing, and it was synced: batch {later.sequence} follows"
    return ""
