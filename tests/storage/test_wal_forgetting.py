"""A log that was compacted or reset is still all that was acknowledged and is needed."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd.core.types import Entry, HardState, Index, Term
from raftd.records import (
    RecordError,
    decode_entries,
    encode_entries,
    encode_record,
)
from raftd.storage.files import StorageFault, unlink_in_order
from raftd.storage.identity import DataDirectory
from raftd.storage.wal import (
    RESET,
    TRAILER,
    CorruptLog,
    MissingEntries,
    Recovered,
    Wal,
)
from raftd.storage.wal_segments import (
    FIRST_SEGMENT,
    BatchHeader,
    Reset,
    SegmentHeader,
    batch_start,
    encode_batch_header,
    encode_hard_state,
    encode_reset,
    encode_segment_header,
    open_name,
)
from tests.storage.memory_files import Crash, MemoryFileSystem
from tests.storage.test_wal import FILES, LOG, entries, entry, flip, noise, segment_paths

SEGMENT_BYTES = 512
"""One batch of eight short entries each."""
DISTANCE = 8


def new_log(files: MemoryFileSystem, segment_bytes: int = SEGMENT_BYTES) -> Wal:
    Wal.create(LOG, files)
    return Wal.open(LOG, files, segment_bytes=segment_bytes)[0]


def reopen(
    files: MemoryFileSystem, snapshot_index: Index = 0, segment_bytes: int = SEGMENT_BYTES
) -> tuple[Wal, Recovered]:
    return Wal.open(LOG, files, snapshot_index=snapshot_index, segment_bytes=segment_bytes)


def recover(
    files: MemoryFileSystem, snapshot_index: Index = 0, segment_bytes: int = SEGMENT_BYTES
) -> Recovered:
    wal, recovered = reopen(files, snapshot_index, segment_bytes)
    wal.close()
    return recovered


def fill(wal: Wal, last: Index, term: Term = 1) -> None:
    """Append up to `last`, one segment for every eight entries."""
    for index in range(wal.last_index + 1, last + 1, DISTANCE):
        wal.append(None, entries(index, min(index + DISTANCE - 1, last), term))


def sequences(paths: Sequence[Path]) -> list[int]:
    return [int(path.name[4:20]) for path in paths]


@attrs.define
class Model:
    """What a log has to say, had it never forgotten anything but by a reset."""

    hard_state: HardState = attrs.field(factory=HardState)
    base: tuple[Index, Term] = (0, 0)
    entries: list[Entry] = attrs.field(factory=list)
    snapshot_index: Index = 0

    def append(self, hard_state: HardState | None, new_entries: Sequence[Entry]) -> None:
        self.hard_state = hard_state or self.hard_state
        if new_entries:
            del self.entries[new_entries[0].index - self.base[0] - 1 :]
            self.entries += new_entries

    def reset(self, index: Index, term: Term) -> None:
        self.base, self.entries = (index, term), []
        self.snapshot_index = index

    @property
    def last_index(self) -> Index:
        return self.base[0] + len(self.entries)

    def term(self, index: Index) -> Term:
        return (
            self.base[1] if index == self.base[0] else self.entries[index - self.base[0] - 1].term
        )

    def agrees(self, recovered: Recovered) -> bool:
        """Return whether nothing is wrong, and nothing missing but what the snapshot has."""
        begin = recovered.base_index
        return (
            self.base[0] <= begin <= min(max(self.snapshot_index, self.base[0]), self.last_index)
            and recovered.hard_state == self.hard_state
            and recovered.base_term == self.term(begin)
            and recovered.entries == tuple(self.entries[begin - self.base[0] :])
        )


# --- compaction ---------------------------------------------------------------------------------


def test_compaction_gives_up_the_closed_segments_that_a_snapshot_has_whole() -> None:
    files = MemoryFileSystem()
    wal = new_log(files)
    fill(wal, 40)
    assert len(wal.segments) == 5
    before = list(files.calls)
    assert wal.compact(7) == []
    assert sequences(wal.compact(8)) == [1]
    assert wal.compact(8) == []
    assert (wal.base_index, wal.base_term) == (8, 1)
    assert sequences(wal.compact(31)) == [2, 3]
    assert [segment.after_index for segment in wal.segments] == [24, 32]
    assert files.calls == before, "it writes nothing and unlinks nothing"
    # The segment that is being written stays, whatever is in it.
    assert sequences(wal.compact(40)) == [4]
    assert (wal.base_index, wal.last_index) == (32, 40)
    wal.close()


def test_a_compacted_log_begins_after_its_base_and_goes_on() -> None:
    files = MemoryFileSystem()
    wal = new_log(files)
    wal.append(HardState(3, "n1/a"), entries(1, 6, 2))
    fill(wal, 30, 3)
    unlink_in_order(files, wal.compact(25))
    wal.append(HardState(4), entries(31, 33, 4))
    assert wal.size_bytes == sum(segment.used_bytes for segment in wal.segments)
    wal.close()
    wal, recovered = reopen(files, 25)
    assert recovered == Recovered(
        HardState(4), (*entries(23, 30, 3), *entries(31, 33, 4)), 0, base_index=22, base_term=3
    )
    assert (wal.base_index, wal.base_term, wal.last_index) == (22, 3, 33)
    assert not wal.is_empty
    wal.append(None, entries(30, 34, 4))
    wal.close()
    assert recover(files, 25).entries == (*entries(23, 29, 3), *entries(30, 34, 4))


def test_a_vote_that_only_a_forgotten_segment_had_is_kept() -> None:
    files = MemoryFileSystem()
    wal = new_log(files)
    wal.append(HardState(7, "n2/b"), [])
    fill(wal, 32)
    unlink_in_order(files, wal.compact(32))
    wal.close()
    assert recover(files, 32).hard_state == HardState(7, "n2/b")


def test_nothing_above_the_last_entry_is_compacted() -> None:
    wal = new_log(MemoryFileSystem())
    fill(wal, 10)
    with pytest.raises(AssertionError, match="11 is above 10"):
        wal.compact(11)
    wal.close()


def test_what_was_given_up_is_never_replaced() -> None:
    wal = new_log(MemoryFileSystem())
    fill(wal, 24)
    wal.compact(16)
    with pytest.raises(AssertionError, match="entry 16 does not continue a log of entries 17 to"):
        wal.append(None, [entry(16, 2)])
    wal.append(None, [entry(17, 2)])
    wal.close()


def a_log_that_was_cut_back(files: MemoryFileSystem) -> Wal:
    """Segments after 0, 8 and 16, of which the third replaces 6 and what follows, and after 13."""
    wal = new_log(files)
    fill(wal, 16)
    wal.append(None, entries(6, 13, 2))
    fill(wal, 30, 2)
    assert [(each.after_index, each.lowest_index) for each in wal.segments] == [
        (0, 1),
        (8, 9),
        (16, 6),
        (13, 14),
        (21, 22),
    ]
    return wal


def test_one_more_segment_is_kept_if_a_later_batch_goes_back_behind_its_beginning() -> None:
    wal = a_log_that_was_cut_back(MemoryFileSystem())
    # The second segment begins after entry 8, but the third replaces entries from 6 on.
    assert wal.compact(12) == []
    assert wal.base_index == 0
    assert sequences(wal.compact(13)) == [1, 2, 3]
    assert wal.base_index == 13
    wal.close()


def test_a_segment_never_becomes_the_first_if_its_own_batches_go_back_behind_its_beginning() -> (
    None
):
    wal = new_log(MemoryFileSystem())
    fill(wal, 24)
    wal.append(None, entries(20, 27, 2))
    assert [segment.after_index for segment in wal.segments] == [0, 8, 16, 24]
    # The fourth segment begins after 24, but replaces entries from 20 on.
    assert sequences(wal.compact(26)) == [1, 2]
    assert wal.base_index == 16
    wal.close()


def test_what_a_batch_goes_back_to_is_known_after_a_restart() -> None:
    files = MemoryFileSystem()
    a_log_that_was_cut_back(files).close()
    wal, _ = reopen(files)
    assert wal.compact(12) == []
    assert sequences(wal.compact(13)) == [1, 2, 3]
    wal.close()


@pytest.mark.parametrize(
    ("unlinked", "base"), [(0, (0, 0)), (1, (6, 2)), (2, (6, 2)), (3, (13, 2))]
)
def test_every_number_of_unlinked_segments_leaves_a_log_that_opens(
    unlinked: int, base: tuple[Index, Term]
) -> None:
    files = MemoryFileSystem()
    wal = a_log_that_was_cut_back(files)
    paths = wal.compact(13)
    unlink_in_order(files, paths[:unlinked])
    wal.close()
    wal, recovered = reopen(files, 13)
    assert (recovered.base_index, recovered.base_term) == base
    assert recovered.entries == (
        (*entries(1, 5), *entries(6, 30, 2)) if not unlinked else tuple(entries(base[0] + 1, 30, 2))
    )
    # The rest goes with the next compaction.
    assert wal.compact(13) == paths[unlinked:]
    wal.append(None, [entry(30, 3)])
    wal.close()


def test_segments_are_unlinked_from_the_oldest_on_each_durably_before_the_next() -> None:
    files = MemoryFileSystem()
    wal = new_log(files)
    fill(wal, 40)
    before = len(files.calls)
    unlink_in_order(files, wal.compact(24))
    names = [f"log-{sequence:016d}.closed" for sequence in (1, 2, 3)]
    assert files.calls[before:] == [
        call for name in names for call in (f"unlink {name}", "sync_directory wal")
    ]
    wal.close()


def test_segments_are_unlinked_on_a_real_disk(tmp_path: Path) -> None:
    Wal.create(tmp_path / "wal", FILES)
    wal, _ = Wal.open(tmp_path / "wal", FILES, segment_bytes=SEGMENT_BYTES)
    fill(wal, 40)
    unlink_in_order(FILES, wal.compact(24))
    wal.close()
    assert sequences(segment_paths(tmp_path / "wal")) == [4, 5]
    wal, recovered = Wal.open(tmp_path / "wal", FILES, snapshot_index=24)
    wal.close()
    assert recovered.entries == tuple(entries(25, 40))


def test_beginning_a_segment_takes_a_handful_of_calls() -> None:
    files = MemoryFileSystem()
    wal = new_log(files)
    fill(wal, 8)
    before = len(files.calls)
    wal.append(None, entries(9, 16))
    assert [call.split()[0] for call in files.calls[before:]] == [
        *("create", "write", "sync", "rename", "sync_directory"),  # the next one is published
        *("rename", "sync_directory"),  # the old one is closed
        *("write", "sync"),  # zeros ahead
        *("write", "sync"),
    ]
    wal.close()


# --- a log that begins late ---------------------------------------------------------------------


def a_compacted_log(files: MemoryFileSystem) -> Wal:
    """Entries 15 to 38 in three segments; the last one has room for a reset."""
    wal = new_log(files)
    wal.append(HardState(1, "n1/a"), entries(1, 6))
    fill(wal, 36)
    wal.append(HardState(2), entries(37, 38, 2))
    unlink_in_order(files, wal.compact(20))
    return wal


@pytest.mark.parametrize(
    ("snapshot_index", "reason"),
    [(0, "there is no snapshot"), (9, "the newest snapshot ends at index 9")],
)
def test_a_gap_between_snapshot_and_log_is_refused_and_nothing_is_changed(
    snapshot_index: Index, reason: str
) -> None:
    files = MemoryFileSystem()
    a_compacted_log(files).close()
    calls = list(files.calls)
    with pytest.raises(MissingEntries) as raised:
        reopen(files, snapshot_index)
    assert (raised.value.first_lost_index, raised.value.last_lost_index) == (snapshot_index + 1, 14)
    for part in (f"{LOG}: entries {snapshot_index + 1} to 14 are lost", reason, "raftctl replace"):
        assert part in str(raised.value)
    assert files.calls == calls


@pytest.mark.parametrize("snapshot_index", [14, 15, 40, 99])
def test_a_snapshot_that_reaches_the_log_makes_it_complete(snapshot_index: Index) -> None:
    files = MemoryFileSystem()
    a_compacted_log(files).close()
    recovered = recover(files, snapshot_index)
    assert (recovered.base_index, recovered.base_term) == (14, 1)
    assert recovered.entries == (*entries(15, 36), *entries(37, 38, 2))


def test_a_segment_missing_behind_the_first_is_refused_whatever_the_snapshot_has() -> None:
    for missing in (1, 2):
        files = MemoryFileSystem()
        wal = a_compacted_log(files)
        segment = wal.segments[missing]
        wal.close()
        files.unlink(LOG / segment.name)
        with pytest.raises(CorruptLog, match="is missing") as raised:
            reopen(files, 20)
        assert not isinstance(raised.value, MissingEntries)
        assert raised.value.first_lost_index == max(20, segment.after_index) + 1


def test_a_segment_under_the_name_of_another_one_is_refused() -> None:
    files = MemoryFileSystem()
    wal = a_compacted_log(files)
    first = wal.segments[0]
    wal.close()
    files.rename(LOG / first.name, LOG / "log-0000000000000002.closed")
    with pytest.raises(CorruptLog, match="has the name of another one"):
        reopen(files, 20)


def crafted(files: MemoryFileSystem, header: SegmentHeader, *batches: bytes) -> None:
    """Make a log of one segment, with right checksums whatever the batches say.

    A batch is given as its records; those that are entries only are counted.
    """
    content = encode_segment_header(header)
    for number, records in enumerate(batches):
        content += bytes(batch_start(len(content)) - len(content))
        following = records + TRAILER
        try:
            entry_count = len(decode_entries(records))
        except RecordError:
            entry_count = 0
        content += encode_batch_header(
            BatchHeader(
                sequence=header.first_sequence + number,
                offset=len(content),
                following_bytes=len(following),
                checksum=zlib.crc32(following),
                entry_count=entry_count,
                faint_sectors=0,
            )
        )
        content += following
    files.directories.setdefault(LOG, MemoryFileSystem().directories[Path("/")])
    files.replace(LOG / open_name(header.first_sequence), content)


def encoded(*numbers: Entry) -> bytes:
    return encode_entries(numbers)


LATE = SegmentHeader(first_sequence=5, after_index=10, after_term=1, hard_state=HardState(1))
"""Of a log that lost its older segments, or forgot them."""


def test_a_batch_that_replaces_the_base_of_a_late_log_gives_it_a_new_one() -> None:
    files = MemoryFileSystem()
    crafted(files, LATE, encoded(*entries(7, 12, 2)), encoded(*entries(5, 6, 3)))
    assert recover(files, 10) == Recovered(HardState(1), (entry(6, 3),), 0, 5, 3)
    crafted(files, LATE, encoded(*entries(11, 12, 2)), encoded(entry(10, 3)))
    assert recover(files, 10) == Recovered(HardState(1), (), 0, 10, 3)
    # What a batch follows that replaces the base is not known, so the base has to be in a snapshot.
    with pytest.raises(MissingEntries, match="entry 10 is lost"):
        reopen(files, 9)


@pytest.mark.parametrize(
    ("header", "batches", "reason"),
    [
        (FIRST_SEGMENT, [encode_reset(Reset(20, 1)), encoded(entry(9))], "does not continue"),
        (LATE, [encode_reset(Reset(20, 1)), encoded(entry(20))], "does not continue"),
        (LATE, [encoded(entry(0))], "does not continue"),
        (LATE, [encoded(entry(12))], "does not continue"),
        (LATE, [encoded(entry(9), entry(11))], "entry 11 does not continue"),
        (LATE, [encode_reset(Reset(20, 1)) + encoded(entry(21))], "a reset is not alone"),
        (LATE, [encode_hard_state(HardState(2)) + encode_reset(Reset(20, 1))], "kind 5"),
        (LATE, [encoded(entry(11)) + encode_reset(Reset(20, 1))], "kind 5"),
        (LATE, [encode_record(RESET, bytes(15))], "a reset of 15 bytes"),
        (LATE, [encode_reset(Reset(0, 1))], "before the first entry"),
        (LATE, [encode_record(6, b"from a newer release")], "kind 6"),
    ],
)
def test_a_batch_that_no_log_would_write_is_refused(
    header: SegmentHeader, batches: list[bytes], reason: str
) -> None:
    files = MemoryFileSystem()
    crafted(files, header, *batches)
    with pytest.raises(CorruptLog, match=reason):
        reopen(files, 99)


def test_a_late_log_without_identity_is_the_log_of_nobody(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path, "n1", FILES).close()
    wal, _ = Wal.open(tmp_path / "wal", FILES)
    unlink_in_order(FILES, wal.reset(9, 1))
    wal.close()
    (tmp_path / "identity.json").unlink()
    with pytest.raises(StorageFault, match=r"identity\.json is missing"):
        DataDirectory.open(tmp_path, "n1", FILES)


# --- reset --------------------------------------------------------------------------------------


def test_a_reset_drops_all_entries_and_keeps_term_and_vote() -> None:
    for index, last in ((5, 20), (20, 20), (99, 20), (99, 0)):
        files = MemoryFileSystem()
        wal = new_log(files)
        wal.append(HardState(3, "n1/a"), [])
        fill(wal, last, 2)
        paths = wal.reset(index, 3)
        assert [path.name for path in paths] == files.names(LOG)[:-1]
        assert (wal.base_index, wal.base_term, wal.last_index) == (index, 3, index)
        found = Recovered(HardState(3, "n1/a"), (), 0, index, 3)
        assert recover(files, index) == found
        unlink_in_order(files, paths)
        assert recover(files, index) == found
        wal.append(HardState(4), entries(index + 1, index + 2, 4))
        wal.close()
        (name,) = files.names(LOG)
        assert name == f"log-{len(paths) and wal.segments[0].first_sequence:016d}.open"
        following = tuple(entries(index + 1, index + 2, 4))
        assert recover(files, index) == Recovered(HardState(4), following, 0, index, 3)
        with pytest.raises(MissingEntries, match=f"entries 1 to {index} are lost"):
            reopen(files)


def test_an_empty_log_is_reset() -> None:
    files = MemoryFileSystem()
    wal = new_log(files)
    assert sequences(wal.reset(7, 2)) == [1]
    assert not wal.is_empty
    wal.append(None, [entry(8, 2)])
    wal.close()
    assert recover(files, 7) == Recovered(HardState(), (entry(8, 2),), 0, 7, 2)


def test_after_a_reset_only_what_follows_it_is_appended() -> None:
    wal = new_log(MemoryFileSystem())
    fill(wal, 8)
    wal.reset(20, 3)
    for refused in (entry(20, 3), entry(9, 3), entry(22, 3), entry(21, 2)):
        with pytest.raises(AssertionError, match=r"does not continue|follows one of term 3"):
            wal.append(None, [refused])
    wal.append(None, [entry(21, 3)])
    wal.close()


@pytest.mark.parametrize("index_and_term", [(0, 1), (1, 0)])
def test_a_log_is_not_reset_to_before_its_first_entry(index_and_term: tuple[Index, Term]) -> None:
    wal = new_log(MemoryFileSystem())
    with pytest.raises(AssertionError, match=r"at least one entry|no entry has term 0"):
        wal.reset(*index_and_term)
    wal.close()


def test_a_reset_is_durable_when_it_returns() -> None:
    for seed in range(8):
        files = MemoryFileSystem()
        wal = new_log(files)
        wal.append(HardState(3, "n1/a"), entries(1, 8))
        wal.reset(20, 3)
        files = files.after_crash(Random(seed))
        assert recover(files, 20) == Recovered(HardState(3, "n1/a"), (), 0, 20, 3)
        assert files.names(LOG)[-1] == "log-0000000000000003.open"


def test_what_a_reset_dropped_goes_with_the_next_compaction_after_a_crash() -> None:
    files = MemoryFileSystem()
    wal = new_log(files)
    fill(wal, 24)
    paths = wal.reset(20, 2)
    wal.close()
    wal, recovered = reopen(files, 20)
    assert (recovered.entries, recovered.base_index) == ((), 20)
    assert wal.compact(20) == paths
    assert wal.base_index == 20
    wal.close()


def test_a_log_is_reset_and_compacted_again_and_again() -> None:
    files, model = MemoryFileSystem(), Model()
    wal = new_log(files)
    for turn in range(1, 6):
        fill(wal, wal.last_index + 20, turn)
        unlink_in_order(files, wal.compact(wal.last_index - 5))
        unlink_in_order(files, wal.reset(wal.last_index + 3 - turn, turn))
        model.reset(wal.last_index, turn)
        wal.close()
        assert len(files.names(LOG)) == 1
        wal, recovered = reopen(files, model.snapshot_index)
        assert model.agrees(recovered)
    wal.close()


# --- torn tails and flipped bits ----------------------------------------------------------------


def a_log_that_ends_in_a_reset(files: MemoryFileSystem) -> tuple[Path, int]:
    """Compact, then crash in a reset after its batch; return the file, and where that begins."""
    wal = a_compacted_log(files)
    begin = wal.segments[-1].used_bytes
    # Batch and its sync; then the next segment is made.
    files.crash_at = len(files.calls) + 3
    with pytest.raises(Crash):
        wal.reset(60, 2)
    files.crash_at = 0
    path = LOG / wal.segments[-1].name
    return path, begin


def test_a_reset_that_was_torn_at_any_byte_leaves_the_log_as_it_was() -> None:
    files = MemoryFileSystem()
    path, begin = a_log_that_ends_in_a_reset(files)
    content = files.read(path)
    end = len(content.rstrip(b"\0"))
    before = Recovered(HardState(2), (*entries(15, 36), *entries(37, 38, 2)), 0, 14, 1)
    assert recover(files, 60) == Recovered(HardState(2), (), 0, 60, 2)
    for cut in range(begin, end):
        for torn in (content[:cut], content[:cut] + bytes(len(content) - cut)):
            files.replace(path, torn)
            assert attrs.evolve(recover(files, 60), cut_bytes=0) == before
            assert not any(files.read(path)[begin:])
    sector_end = begin - begin % 512 + 512
    if sector_end < end:
        files.replace(path, content[:begin] + bytes(sector_end - begin) + content[sector_end:])
        assert attrs.evolve(recover(files, 60), cut_bytes=0) == before


def test_every_flipped_bit_of_a_compacted_log_that_ends_in_a_reset_is_noticed() -> None:
    files = MemoryFileSystem()
    a_log_that_ends_in_a_reset(files)
    assert len(files.names(LOG)) == 3
    for name in files.names(LOG):
        path = LOG / name
        content = files.read(path)
        for bit in range(len(content) * 8):
            files.replace(path, flip(content, bit))
            with pytest.raises(CorruptLog) as raised:
                reopen(files, 60)
            assert raised.value.path == path
            assert raised.value.first_lost_index == 61
        files.replace(path, content)
    assert recover(files, 60).base_index == 60


def test_every_flipped_bit_after_a_reset_is_noticed() -> None:
    files = MemoryFileSystem()
    wal = new_log(files)
    wal.append(HardState(1, "n1/a"), entries(1, 3))
    paths = wal.reset(9, 1)
    wal.append(None, entries(10, 12))
    wal.close()
    for snapshot_index, given_up in ((9, []), (9, paths)):
        unlink_in_order(files, given_up)
        for name in files.names(LOG):
            content = files.read(LOG / name)
            for bit in range(len(content) * 8):
                files.replace(LOG / name, flip(content, bit))
                with pytest.raises(CorruptLog) as raised:
                    reopen(files, snapshot_index)
                assert raised.value.path == LOG / name
            files.replace(LOG / name, content)
    assert recover(files, 9).entries == tuple(entries(10, 12))


def test_a_compacted_log_cut_off_at_any_byte_of_its_last_batch_forgets_that_batch() -> None:
    files = MemoryFileSystem()
    a_compacted_log(files).close()
    wal, _ = reopen(files, 20, 4096)
    begin = wal.segments[-1].used_bytes
    wal.append(HardState(5), entries(36, 38, 5))
    assert len(wal.segments) == 3
    path = LOG / wal.segments[-1].name
    wal.close()
    content = files.read(path)
    for cut in range(begin, len(content.rstrip(b"\0"))):
        files.replace(path, content[:cut] + bytes(len(content) - cut))
        recovered = recover(files, 20)
        assert recovered.hard_state == HardState(2)
        assert recovered.entries == (*entries(15, 36), *entries(37, 38, 2))


# --- crashes and faults -------------------------------------------------------------------------

Step = Callable[[Wal, MemoryFileSystem], None]


def script() -> list[tuple[str, Step, Callable[[Model], None]]]:
    """Return what is done to the log, and what it comes to.

    Two snapshots are its own, one is installed below the end of the log, and one above it.
    """

    def appends(hard_state: HardState | None, new: list[Entry]) -> None:
        steps.append(
            (
                "append",
                lambda wal, files: wal.append(hard_state, new),
                lambda model: model.append(hard_state, new),
            )
        )

    def compacts(index: Index) -> None:
        # The snapshot is published before, so it counts whether or not the step ends.
        steps.append(("snapshot", lambda wal, files: None, snapshot(index)))
        steps.append(
            (
                "compact",
                lambda wal, files: unlink_in_order(files, wal.compact(index)),
                lambda _: None,
            )
        )

    def resets(index: Index, term: Term) -> None:
        steps.append(("snapshot", lambda wal, files: None, snapshot(index)))
        steps.append(
            (
                "reset",
                lambda wal, files: unlink_in_order(files, wal.reset(index, term)),
                lambda model: model.reset(index, term),
            )
        )

    def snapshot(index: Index) -> Callable[[Model], None]:
        return lambda model: setattr(model, "snapshot_index", index)

    steps: list[tuple[str, Step, Callable[[Model], None]]] = []
    appends(HardState(1, "n1/a"), entries(1, 9))
    appends(None, entries(10, 15))
    appends(HardState(2), entries(6, 13, 2, noise(70)))
    appends(None, entries(14, 22, 2))
    appends(HardState(2, "n2/b"), entries(23, 30, 2))
    compacts(13)
    appends(None, entries(31, 33, 2, noise(300)))
    appends(HardState(3), entries(28, 29, 3))
    resets(20, 2)
    appends(HardState(4, "n1/a"), entries(21, 29, 4))
    appends(None, entries(30, 38, 4))
    compacts(38)
    appends(None, entries(39, 41, 4))
    resets(90, 5)
    appends(HardState(6), entries(91, 99, 6))
    appends(None, entries(100, 108, 6))
    return steps


def run_script(files: MemoryFileSystem, acknowledged: Model, attempted: Model) -> None:
    """Do the script; the models follow, `attempted` with the step that is being done."""
    wal = new_log(files)
    for _, step, follow in script():
        follow(attempted)
        step(wal, files)
        follow(acknowledged)
    wal.close()


def check(files: MemoryFileSystem, models: Sequence[Model], random: Random) -> None:
    """Recover, with a crash in between, and see that the log is one of the models."""
    snapshot_index = max(model.snapshot_index for model in models)
    files.crash_at = random.randint(1, 8)
    try:
        recover(files, snapshot_index)
    except Crash:
        files = files.after_crash(random)
    files.crash_at = 0
    recovered = recover(files, snapshot_index)
    found = [
        model
        for model in models
        if attrs.evolve(model, snapshot_index=snapshot_index).agrees(recovered)
    ]
    assert found, recovered
    # What was recovered once stays. What a crash left is given up, and the log goes on.
    files = files.after_crash(random)
    wal, again = reopen(files, snapshot_index)
    assert again == attrs.evolve(recovered, cut_bytes=0)
    if snapshot_index <= wal.last_index:
        unlink_in_order(files, wal.compact(snapshot_index))
    else:
        unlink_in_order(files, wal.reset(snapshot_index, 9))
        assert len(files.names(LOG)) == 1
    following = entry(wal.last_index + 1, 9)
    wal.append(HardState(9), [following])
    wal.close()
    files = files.after_crash(random)
    last = recover(files, snapshot_index)
    assert (last.entries[-1], last.hard_state) == (following, HardState(9))


def calls_of_the_script() -> int:
    files = MemoryFileSystem()
    run_script(files, Model(), Model())
    assert sum(call.startswith("unlink") for call in files.calls) >= 10
    return len(files.calls)


def test_a_power_failure_at_any_call_of_a_life_loses_nothing_that_is_needed() -> None:
    for crash_at in range(1, calls_of_the_script() + 1):
        for seed in range(6):
            files = MemoryFileSystem(crash_at=crash_at)
            acknowledged, attempted = Model(), Model()
            with pytest.raises(Crash):
                run_script(files, acknowledged, attempted)
            random = Random(f"{crash_at} {seed}")
            files = files.after_crash(random)
            if not Wal.exists(LOG, files):
                assert not acknowledged.entries
                Wal.create(LOG, files)
            check(files, (acknowledged, attempted), random)


def test_a_fault_at_any_call_of_a_life_and_a_restart_lose_nothing_that_is_needed() -> None:
    for fail_at in range(1, calls_of_the_script() + 1):
        files = MemoryFileSystem(fail_at=fail_at)
        acknowledged, attempted = Model(), Model()
        with pytest.raises(StorageFault):
            run_script(files, acknowledged, attempted)
        files.fail_at = 0
        if not Wal.exists(LOG, files):
            Wal.create(LOG, files)
        files.calls.clear()
        check(files, (acknowledged, attempted), Random(fail_at))


@pytest.mark.parametrize("call", range(1, 9))
def test_after_a_fault_in_a_reset_the_log_refuses_all_further_use(call: int) -> None:
    files = MemoryFileSystem()
    wal = new_log(files)
    wal.append(None, [entry(1)])
    files.fail_at = len(files.calls) + call
    with pytest.raises(StorageFault):
        wal.reset(5, 1)
    done = len(files.calls)
    for use in (
        lambda: wal.reset(5, 1),
        lambda: wal.compact(1),
        lambda: wal.append(None, [entry(6)]),
    ):
        with pytest.raises(StorageFault, match="not used any more"):
            use()
    assert len(files.calls) == done
    wal.close()


# --- the model ----------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 32), segment_bytes=st.sampled_from((300, 600, 2048)))
def test_any_life_with_restarts_in_it_gives_what_the_model_says(
    seed: int, segment_bytes: int
) -> None:
    random, files, model = Random(seed), MemoryFileSystem(), Model()
    wal, term, given_up = new_log(files, segment_bytes), 1, list[Path]()
    for _ in range(random.randint(5, 40)):
        step = random.choice(
            ("append", "append", "append", "append", "compact", "reset", "restart")
        )
        if step == "append":
            # What is in a snapshot is committed and never replaced.
            lowest = max(model.snapshot_index, model.base[0]) + 1
            first = random.choice(
                (model.last_index + 1, random.randint(lowest, model.last_index + 1))
            )
            term += random.random() < 0.3
            new = entries(first, first + random.randint(0, 5), term, noise(random.choice((3, 90))))
            hard_state = random.choice((None, HardState(term, "n1/a")))
            wal.append(hard_state, new)
            model.append(hard_state, new)
        elif step == "compact" and model.last_index > model.snapshot_index:
            model.snapshot_index = random.randint(model.snapshot_index, model.last_index)
            given_up += wal.compact(model.snapshot_index)
        elif step == "reset" and random.random() < 0.3:
            model.reset(
                max(model.snapshot_index, model.last_index + random.randint(-9, 9), 1), term
            )
            given_up += wal.reset(*model.base)
        elif step == "restart":
            # As far as the unlinking has come.
            unlink_in_order(files, given_up[: random.randint(0, len(given_up))])
            given_up.clear()
            wal.close()
            files = files.after_crash(random)
            wal, recovered = reopen(files, model.snapshot_index, segment_bytes)
            assert model.agrees(recovered)
        assert wal.last_index == model.last_index
        assert wal.base_index <= max(model.snapshot_index, model.base[0])
    unlink_in_order(files, given_up)
    wal.close()
    assert model.agrees(recover(files, model.snapshot_index))


# --- memory -------------------------------------------------------------------------------------


def test_a_start_holds_no_more_than_the_live_entries_and_one_segment(tmp_path: Path) -> None:
    # So much that what other threads of the tests hold meanwhile makes no difference.
    segment_bytes, live_bytes = 1 << 22, 1 << 20
    Wal.create(tmp_path / "wal", FILES)
    wal, _ = Wal.open(tmp_path / "wal", FILES, segment_bytes=segment_bytes)
    for term in range(1, 33):
        for index in range(1, 17):
            wal.append(None, [entry(index, term, noise(live_bytes // 16))])
    assert len(wal.segments) > 7
    wal.close()
    tracemalloc.start()
    wal, recovered = Wal.open(tmp_path / "wal", FILES, segment_bytes=segment_bytes)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    wal.close()
    assert len(recovered.entries) == 16
    # Entries are there twice, as values and as the bytes that go over the wire.
    assert segment_bytes < peak_bytes < segment_bytes + 3 * live_bytes
