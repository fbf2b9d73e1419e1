"""Looking at a log that nobody uses: all that is good, and where it is not, without a change."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftd.core.types import HardState
from raftd.records import encode_record
from raftd.storage.files import StorageFault, unlink_in_order
from raftd.storage.wal import (
    SEGMENT_HEADER,
    CorruptLog,
    MissingEntries,
    Wal,
    WalInspection,
    inspect_wal,
)
from tests.storage.memory_files import MemoryFileSystem
from tests.storage.test_wal import FILES, LOG, entries, entry, flip, noise, write_log

APPENDS = [
    (HardState(1, "n1/a"), entries(1, 8)),
    (HardState(2), []),
    (None, entries(9, 16, 2)),
    (None, entries(12, 19, 2)),
    (HardState(2, "n2/b"), entries(20, 21, 2)),
]


def a_log() -> MemoryFileSystem:
    """Three segments, after 0, 8 and 16."""
    files = MemoryFileSystem()
    write_log(LOG, APPENDS, files, 512)
    assert len(files.names(LOG)) == 3
    return files


def inspect(files: MemoryFileSystem, snapshot_index: int | None = None) -> WalInspection:
    before = {name: files.read(LOG / name) for name in files.names(LOG)}
    calls = list(files.calls)
    found = inspect_wal(LOG, files, snapshot_index=snapshot_index)
    assert files.calls == calls
    assert {name: files.read(LOG / name) for name in files.names(LOG)} == before
    return found


def test_an_inspection_says_what_a_start_would_find() -> None:
    files = a_log()
    found = inspect(files)
    wal, recovered = Wal.open(LOG, files, segment_bytes=512)
    wal.close()
    assert found == WalInspection(
        segments=wal.segments,
        unread=(),
        hard_state=HardState(2, "n2/b"),
        base_index=0,
        base_term=0,
        entries=recovered.entries,
        torn_bytes=0,
        damage=None,
    )
    assert [segment.name for segment in found.segments] == files.names(LOG)
    assert [
        (each.first_sequence, each.after_index, each.batches, each.lowest_index)
        for each in found.segments
    ] == [(1, 0, 2, 1), (3, 8, 1, 9), (4, 16, 2, 12)]
    assert [each.used_bytes for each in found.segments] == [
        len(files.read(LOG / name).rstrip(b"\0")) for name in files.names(LOG)
    ]


def test_a_segment_says_the_same_of_itself_while_it_is_written_and_after_a_restart(
    tmp_path: Path,
) -> None:
    Wal.create(tmp_path / "wal", FILES)
    wal, _ = Wal.open(tmp_path / "wal", FILES, segment_bytes=512)
    for hard_state, new_entries in APPENDS:
        wal.append(hard_state, new_entries)
        assert inspect_wal(tmp_path / "wal", FILES).segments == wal.segments
    wal.reset(30, 2)
    assert inspect_wal(tmp_path / "wal", FILES).segments[-1:] == wal.segments
    wal.close()


@pytest.mark.parametrize(
    ("segment", "batches", "last_index", "hard_state"),
    [
        (0, 0, 0, HardState()),
        (1, 0, 8, HardState(2)),
        (2, 1, 19, HardState(2)),
    ],
)
def test_damage_is_reported_with_what_is_good_before_it_and_what_follows(
    segment: int, batches: int, last_index: int, hard_state: HardState
) -> None:
    files = a_log()
    segments = inspect(files).segments
    names = files.names(LOG)
    path = LOG / names[segment]
    good_bytes = segments[segment].used_bytes - 20 if segment == 2 else 60
    files.replace(path, flip(files.read(path), 8 * good_bytes))
    found = inspect(files)
    assert isinstance(found.damage, CorruptLog)
    with pytest.raises(CorruptLog) as raised:
        Wal.open(LOG, files)
    assert str(found.damage) == str(raised.value)
    assert (found.damage.path, found.damage.first_lost_index) == (path, last_index + 1)
    assert found.damage.offset == found.segments[-1].used_bytes
    assert found.segments[:-1] == segments[:segment]
    assert (found.segments[-1].name, found.segments[-1].batches) == (names[segment], batches)
    assert found.unread == tuple(names[segment + 1 :])
    assert found.hard_state == hard_state
    assert [each.index for each in found.entries] == list(range(1, last_index + 1))
    assert not found.is_empty


def test_a_segment_whose_header_is_damaged_is_reported_as_damage_alone() -> None:
    files = a_log()
    first, second, third = files.names(LOG)
    files.replace(LOG / second, flip(files.read(LOG / second), 99))
    found = inspect(files)
    assert found.damage is not None
    assert (found.damage.path, found.damage.offset) == (LOG / second, 0)
    assert [segment.name for segment in found.segments] == [first]
    assert found.unread == (third,)


def test_every_flipped_bit_is_reported_and_nothing_is_raised() -> None:
    files = a_log()
    for name in files.names(LOG):
        content = files.read(LOG / name)
        for bit in range(0, 8 * len(content), 5):
            files.replace(LOG / name, flip(content, bit))
            damage = inspect_wal(LOG, files).damage
            assert damage is not None
            assert damage.path == LOG / name
        files.replace(LOG / name, content)


def test_a_torn_tail_is_no_damage_and_is_not_cut() -> None:
    files = MemoryFileSystem()
    begin = write_log(LOG, [(None, [entry(1)]), (None, [entry(2, data=noise(900))])], files)
    path = LOG / files.names(LOG)[0]
    torn = files.read(path)[: begin + 600]
    files.replace(path, torn)
    found = inspect(files)
    assert (found.torn_bytes, found.damage, found.entries) == (600, None, (entry(1),))
    assert found.segments[0].used_bytes == begin
    assert not found.is_empty


def test_a_gap_to_the_snapshot_is_damage_if_it_is_asked_for() -> None:
    files = a_log()
    wal, _ = Wal.open(LOG, files, segment_bytes=512)
    unlink_in_order(files, wal.compact(8))
    wal.close()
    for snapshot_index in (None, 8, 50):
        found = inspect(files, snapshot_index)
        assert (found.damage, found.base_index, found.base_term) == (None, 8, 1)
        assert found.entries == tuple(entries(9, 21, 2))
    damage = inspect(files, 5).damage
    assert isinstance(damage, MissingEntries)
    assert (damage.first_lost_index, damage.last_lost_index) == (6, 8)
    assert damage.path == LOG


def test_a_missing_segment_is_damage() -> None:
    for missing, last_index, unread in ((1, 8, 0), (2, 16, 0)):
        files = a_log()
        names = files.names(LOG)
        files.unlink(LOG / names[missing])
        found = inspect(files)
        assert found.damage is not None
        assert found.damage.first_lost_index == last_index + 1
        assert [segment.name for segment in found.segments] == names[:missing]
        assert len(found.unread) == unread


def test_a_log_is_empty_only_if_nothing_was_ever_appended() -> None:
    files = MemoryFileSystem()
    Wal.create(LOG, files)
    assert inspect(files).is_empty
    wal, _ = Wal.open(LOG, files)
    wal.append(HardState(1), [])
    assert not inspect(files).is_empty
    unlink_in_order(files, wal.reset(5, 1))
    wal.close()
    found = inspect(files)
    assert not found.is_empty
    assert (found.base_index, found.base_term, found.entries) == (5, 1, ())


def test_no_log_and_a_newer_format_are_no_damage() -> None:
    files = MemoryFileSystem()
    with pytest.raises(StorageFault, match="there is no log"):
        inspect_wal(LOG, files)
    files = a_log()
    name = files.names(LOG)[0]
    newer = encode_record(SEGMENT_HEADER, (2).to_bytes(4, "little") + bytes(33))
    files.replace(LOG / name, newer)
    with pytest.raises(StorageFault, match="format 2 of the log"):
        inspect_wal(LOG, files)
