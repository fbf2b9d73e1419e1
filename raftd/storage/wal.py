"""The durable log: hard state and entries in one ordered stream, in segments.

`Wal.append` makes one *batch* durable with one write and one sync. A segment is a file of batches;
`raftd.storage.wal_segments` describes the bytes, `raftd.storage.wal_recovery` what a start cuts off
and what it refuses.

The next segment is published first, then the old one is renamed, then the next one is used. So the
newest segment is always open: if it is closed, its successor was lost.

**Forgetting.** A snapshot takes the place of all entries up to its index. `Wal.compact` then gives
up the segments that hold nothing else, and `Wal.reset` all of them, for a snapshot that came from
another server. Each segment's header has the hard state and the position before it, so nothing is
written for it: the files are unlinked, the oldest first, and what is left is a log that begins
later. The log must have no gap at any time, also after a crash: `raftd.storage.files` removes them
in their order, each durably before the next one.

Source: dissertation section 3.8 (what must be durable), section 5.1 (compaction of the log).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from raftd.core.types import Entry, HardState, Index, Term
from raftd.records import encode_entry
from raftd.storage.files import (
    TEMPORARY_SUFFIX,
    FileSystem,
    OpenFile,
    StorageFault,
    make_directories,
    publish,
)
from raftd.storage.wal_position import Position
from raftd.storage.wal_recovery import (
    CorruptLog,
    MissingEntries,
    Recovered,
    WalInspection,
    WalReading,
    inspect_wal,
)
from raftd.storage.wal_segments import (
    BATCH_HEADER,
    BATCH_HEADER_BYTES,
    FIRST_SEGMENT,
    FORMAT_VERSION,
    HARD_STATE,
    RESET,
    SECTOR_BYTES,
    SEGMENT_HEADER,
    TRAILER,
    BatchHeader,
    Reset,
    Segment,
    batch_start,
    closed_name,
    encode_batch_header,
    encode_hard_state,
    encode_reset,
    encode_segment_header,
    faint_sectors,
    open_name,
    segment_names,
    segment_of,
)

__all__ = [
    "BATCH_HEADER",
    "BATCH_HEADER_BYTES",
    "FORMAT_VERSION",
    "HARD_STATE",
    "PREALLOCATION_BYTES",
    "RESET",
    "SECTOR_BYTES",
    "SEGMENT_BYTES",
    "SEGMENT_HEADER",
    "TRAILER",
    "CorruptLog",
    "MissingEntries",
    "Recovered",
    "Segment",
    "Wal",
    "WalInspection",
    "inspect_wal",
]

SEGMENT_BYTES = 16 * 1024 * 1024
"""Where the next segment starts. What a start holds in memory beside the entries, and what stays on
the disk although a snapshot has it, is at most about that. Beginning one costs a few syncs, once in
thousands of batches."""
PREALLOCATION_BYTES = 1024 * 1024
"""Zeros written at a time: some milliseconds on a slow disk, once for thousands of entries."""

_ZEROS = bytes(PREALLOCATION_BYTES)


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
        position: Position,
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
        self.run_sync: Callable[[Callable[[], None]], None] = lambda sync: sync()
        """Calls what it is given, once: in the place of whoever wants to know how long it takes."""

    @staticmethod
    def exists(directory: Path, files: FileSystem) -> bool:
        """Return whether `directory` holds a segment, damaged or not."""
        return bool(segment_names(directory, files))

    @classmethod
    def create(cls, directory: Path, files: FileSystem) -> None:
        """Make an empty log. Durable after it returns; after a crash before, it may be repeated.

        Raises:
            StorageFault: the disk failed.
        """
        assert not cls.exists(directory, files), "a log is never made over another one"
        make_directories(files, directory)
        name = open_name(FIRST_SEGMENT.first_sequence)
        publish(files, directory / name, encode_segment_header(FIRST_SEGMENT))

    @classmethod
    def open(
        cls,
        directory: Path,
        files: FileSystem,
        *,
        snapshot_index: Index = 0,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> tuple[Wal, Recovered]:
        """Read the whole log, and do as `open_read`. A log that it refuses is left as it is.

        Args:
            snapshot_index: Up to where the newest snapshot reaches, 0 if there is none. The log
                has to have everything above, as far as there is anything.
            segment_bytes: Size at which the next segment starts; a larger batch gets a segment
                of its own size.

        Raises:
            MissingEntries: there is a gap between the snapshot and the first entry of the log.
            CorruptLog: synced data is damaged or missing.
            StorageFault: there is no log, a newer release wrote it, or the disk failed.
        """
        reading = WalReading(directory, files, snapshot_index)
        reading.read_all()
        return cls.open_read(reading, segment_bytes=segment_bytes), reading.recovered()

    @classmethod
    def open_read(cls, reading: WalReading, *, segment_bytes: int = SEGMENT_BYTES) -> Wal:
        """Cut off a torn last batch, and open for appending a log that was read and not refused.

        Whatever was read is durable then, also what a crash had left in the kernel's cache only. A
        log that was compacted may begin earlier than it did then, if a crash came before all
        segments were unlinked.

        Args:
            reading: All of the log, which nobody has changed since.
            segment_bytes: As for `open`.

        Raises:
            StorageFault: the disk failed.
        """
        directory, files = reading.directory, reading.files
        for name in files.names(directory):
            if name.endswith(TEMPORARY_SUFFIX):
                files.unlink(directory / name)
        # A crash may have come between the publication of a segment and this renaming.
        for segment in reading.segments[:-1]:
            name = open_name(segment.first_sequence)
            if segment.name == name:
                files.rename(directory / name, directory / closed_name(segment.first_sequence))
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
                    attrs.evolve(segment, name=closed_name(segment.first_sequence))
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
        return wal

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever appended."""
        return self._position.next_sequence == FIRST_SEGMENT.first_sequence

    @property
    def base_index(self) -> Index:
        """What stands before the first entry, 0 if nothing was forgotten."""
        return self._position.terms.after_index

    @property
    def base_term(self) -> Term:
        """The term at `base_index`."""
        return self._position.terms.after_term

    @property
    def last_index(self) -> Index:
        """Index of the last durable entry; `base_index` if there is none."""
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
            entries: Contiguous, with terms that never decrease. The first index is above
                `base_index` and at most one above `last_index`; if it is at or below that,
                everything from there on is replaced.

        Raises:
            StorageFault: the disk failed, now or before.
        """
        self._check_usable()
        if hard_state is None and not entries:
            return
        refusal = self._position.refusal(hard_state, entries)
        assert not refusal, refusal
        parts = [] if hard_state is None else [encode_hard_state(hard_state)]
        parts += [encode_entry(entry) for entry in entries]
        parts.append(TRAILER)
        following = b"".join(parts)
        with self._unusable_after_failure():
            end = self._write_batch(following, len(entries))
        # Memory changes only after the disk has.
        self._segment = self._segment.with_batch(end, entries)
        self._position.advance(hard_state, entries)

    def compact(self, keep_after: Index) -> list[Path]:
        """Give up the closed segments that hold nothing but entries up to `keep_after`.

        The log then begins later, after `base_index`. Nothing is written, and nothing is gone
        before the caller hands the result to `unlink_in_order`. What a crash leaves of these
        segments is part of the log again after the next start; compact then, too.

        Args:
            keep_after: At most `last_index`. A snapshot that is durable has the entries up to
                there, so they are committed and are never replaced.

        Returns:
            The files that are not needed any more, oldest first. The log never begins with a
            segment if a batch in it or in a later one replaces entries at or below its
            `after_index`: it would not be known what that batch follows.

        Raises:
            StorageFault: the disk failed before.
        """
        self._check_usable()
        assert keep_after <= self.last_index, f"{keep_after} is above {self.last_index}"
        lowest_index = self.last_index + 1
        segments = self.segments
        for count in range(len(segments) - 1, 0, -1):
            first = segments[count]
            if first.lowest_index is not None:
                lowest_index = min(lowest_index, first.lowest_index)
            if first.after_index <= keep_after and first.after_index < lowest_index:
                return self._give_up(count)
        return []

    def reset(self, index: Index, term: Term) -> list[Path]:
        """Start over after a snapshot that was installed: drop all entries, go on at `index` + 1.

        The hard state is kept. Durable after it returns; a crash before leaves all entries or none.

        Args:
            index: The last one that the snapshot has, above 0. The snapshot is durable already.
            term: The term of that entry, above 0.

        Returns:
            All files that the log had and that are not given up yet, oldest first.

        Raises:
            StorageFault: the disk failed, now or before.
        """
        self._check_usable()
        assert index > 0, "a snapshot has at least one entry"
        assert term > 0, "no entry has term 0"
        reset = Reset(index, term)
        with self._unusable_after_failure():
            end = self._write_batch(encode_reset(reset) + TRAILER, 0)
            self._segment = self._segment.with_batch(end, ())
            self._position.start_over(reset)
            # So that nothing of what was dropped shares a segment with what follows.
            self._begin_segment()
        return self._give_up(len(self._closed_segments))

    def close(self) -> None:
        """Give the file back. Nothing is written: every append is durable already."""
        self._failure = self._failure or "it was closed"
        self._file.close()

    def _check_usable(self) -> None:
        if self._failure:
            raise StorageFault(f"the log is not used any more, since {self._failure}")

    @contextmanager
    def _unusable_after_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._failure = str(error) or repr(error)
            raise

    def _give_up(self, count: int) -> list[Path]:
        """Let the log begin with its segment number `count`; return the paths before it."""
        given_up = self._closed_segments[:count]
        del self._closed_segments[:count]
        # No append may replace what only those segments have.
        self._position.terms.forget_through(self.segments[0].after_index)
        return [self._directory / segment.name for segment in given_up]

    def _write_batch(self, following: bytes, entry_count: int) -> int:
        """Write and sync one batch; return its end in the segment."""
        size_bytes = BATCH_HEADER_BYTES + len(following)
        start = batch_start(self._segment.used_bytes)
        is_fresh = self._segment.first_sequence == self._position.next_sequence
        if start + size_bytes > self._segment_bytes and not is_fresh:
            self._begin_segment()
            start = batch_start(self._segment.used_bytes)
        header = BatchHeader(
            sequence=self._position.next_sequence,
            offset=start,
            following_bytes=len(following),
            checksum=zlib.crc32(following),
            entry_count=entry_count,
            faint_sectors=faint_sectors(following, start + BATCH_HEADER_BYTES),
        )
        self._reserve(start + size_bytes)
        self._file.write(encode_batch_header(header) + following, start)
        self.run_sync(self._file.sync)
        return start + size_bytes

    def _begin_segment(self) -> None:
        """Publish the next segment, mark the current one as closed, and go over to the next."""
        header = self._position.header()
        content = encode_segment_header(header)
        name = open_name(header.first_sequence)
        publish(self._files, self._directory / name, content)
        # Only now: a closed segment promises that there is a later one.
        self._file.close()
        old = attrs.evolve(self._segment, name=closed_name(self._segment.first_sequence))
        self._files.rename(self._directory / self._segment.name, self._directory / old.name)
        self._files.sync_directory(self._directory)
        self._file = self._files.open(self._directory / name)
        self._closed_segments.append(old)
        self._segment = segment_of(name, header, len(content))
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
        self.run_sync(self._file.sync)
        self._allocated_bytes = target
