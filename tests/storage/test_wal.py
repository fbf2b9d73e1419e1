"""The log gives back exactly what was acknowledged, or says why it cannot."""

from __future__ import annotations

import base64
import itertools
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd.core.types import Entry, EntryKind, HardState
from raftd.records import encode_record
from raftd.storage.files import OsFileSystem, Remedy, StorageFault, unlink_in_order
from raftd.storage.wal import (
    BATCH_HEADER_BYTES,
    FORMAT_VERSION,
    PREALLOCATION_BYTES,
    SEGMENT_HEADER,
    TRAILER,
    CorruptLog,
    Recovered,
    Wal,
)
from raftd.storage.wal_recovery import MissingSegment
from tests.storage.memory_files import Crash, MemoryFileSystem

FILES = OsFileSystem()
LOG = Path("/data/wal")
"""The directory of logs on a disk in memory."""

Append = tuple[HardState | None, list[Entry]]

EARLIER_LOG = {
    "log-0000000000000001.closed": (
        "c-m8CU|_iQaP~VUMj!)(@d6bfo>_aeo*AZ64@yfxX`S>_;V{L#Kzuhr;vWl4F=L*ge&W)o!!{seYOnvD"
        "!^{MgDTUH4P+HSkZY496Ee6D^%>NcM!i|B^Wr;bZsUYcBvs%3vnXpP*0$CH6tUScXj4sVUBmg-W0H!n`"
        "tN"
    ),
    "log-0000000000000003.closed": (
        "c-qrsU|<OOcI+?{Bap$&00A(X5uMI6)K63aGS)FDmN3Iq8A0jIP&z0mb~zK2%?ZR^52hbsfeA2(0rAJ%"
        "XA~J>+F>$`Wr;bZsii>Hrhjw$7+KJzE9d~0Mjf^R0K`i~F#"
    ),
    "log-0000000000000004.open": (
        "c-m8CU|@(paD|D95y)U+fB+cHghn%{0P*$-XCs(lD)gZAGbn8|F?<;#lzkJ3U!M|GV`N1$hLM4hiJ66!"
        "jh%y&i<^g+k6%DgNLWNvOk6@zN?Jx%PF_J#Nm)fzO<hA%OIt@*Pv5}M$k@cx%-q7#%G$=(&fdY%$=Su#"
        "&E3P(%iG7-&p#kAC^#fEEIcAIDmo@ME<PbKDLExIEj=SMD?2AQFTbF$sJNuGth}PKs=B7OuD+qMskx=K"
        "t-YhOtGlPSuYbbCNt35coi=^O%vrPN%$+xX!NNt0mn>bje8tLDtJkbuw|>LMO`ErD-L`$l&Rx6r?A^Ej"
        "z`;X@j~qRAd}-8S8&HsJ`06^D8RknzsQ)dYeDP~bgJ40z3&f>X+^j6ju%O5@(oYftGT0N0&cOo;E?btE"
        "Q<@601prtAX3h"
    ),
}
"""The segments of an earlier release: zlib, in base 85, without the zeros at the end."""


def entry(index: int, term: int = 1, data: bytes = b"value") -> Entry:
    return Entry(index, term, EntryKind.COMMAND, data)


def entries(first: int, last: int, term: int = 1, data: bytes = b"value") -> list[Entry]:
    return [entry(index, term, data) for index in range(first, last + 1)]


def noise(size_bytes: int, seed: int = 0) -> bytes:
    return Random(seed).randbytes(size_bytes)


def expected(appends: Sequence[Append]) -> tuple[HardState, tuple[Entry, ...]]:
    """Return what a log says after `appends`: the model."""
    hard_state, live = HardState(), list[Entry]()
    for new_state, new_entries in appends:
        hard_state = new_state or hard_state
        if new_entries:
            del live[new_entries[0].index - 1 :]
            live += new_entries
    return hard_state, tuple(live)


def state_of(recovered: Recovered) -> tuple[HardState, tuple[Entry, ...]]:
    return recovered.hard_state, recovered.entries


def write_log(
    directory: Path,
    appends: Sequence[Append],
    files: OsFileSystem | MemoryFileSystem = FILES,
    segment_bytes: int = 4096,
) -> int:
    """Make a log of `appends`; return where the last batch begins in the last segment."""
    Wal.create(directory, files)
    wal, _ = Wal.open(directory, files, segment_bytes=segment_bytes)
    begin = 0
    for hard_state, new_entries in appends:
        begin = wal.segments[-1].used_bytes
        wal.append(hard_state, new_entries)
    wal.close()
    return begin


def recover(
    directory: Path, files: OsFileSystem | MemoryFileSystem = FILES, segment_bytes: int = 4096
) -> Recovered:
    wal, recovered = Wal.open(directory, files, segment_bytes=segment_bytes)
    wal.close()
    return recovered


def segment_paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("log-*"))


def written_end(path: Path) -> int:
    return len(path.read_bytes().rstrip(b"\0"))


# --- what is appended comes back --------------------------------------------------------------


def test_a_new_log_is_empty(tmp_path: Path) -> None:
    Wal.create(tmp_path / "wal", FILES)
    wal, recovered = Wal.open(tmp_path / "wal", FILES)
    wal.close()
    assert recovered == Recovered(HardState(), (), 0)
    assert wal.is_empty
    assert wal.last_index == 0


def test_hard_state_and_entries_come_back_from_one_stream(tmp_path: Path) -> None:
    appends: list[Append] = [
        (HardState(1, "n1/a"), []),
        (None, entries(1, 3)),
        (HardState(2, "n2/b"), entries(4, 5, term=2)),
        (HardState(3), []),
    ]
    write_log(tmp_path / "wal", appends)
    assert state_of(recover(tmp_path / "wal")) == expected(appends)
    assert recover(tmp_path / "wal").hard_state == HardState(3, None)


def test_an_empty_vote_is_not_the_absence_of_a_vote(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [(HardState(1, ""), [])])
    assert recover(tmp_path / "wal").hard_state.voted_for == ""


def test_an_entry_keeps_the_bytes_that_go_over_the_wire(tmp_path: Path) -> None:
    sent = entry(1)
    write_log(tmp_path / "wal", [(None, [sent])])
    assert sent.encoded is not None
    assert recover(tmp_path / "wal").entries[0].encoded == sent.encoded


def test_an_entry_at_or_below_the_last_index_replaces_everything_from_there_on(
    tmp_path: Path,
) -> None:
    write_log(
        tmp_path / "wal",
        [(None, entries(1, 9, term=1)), (None, entries(4, 5, term=3)), (None, [entry(6, 4)])],
        segment_bytes=512,
    )
    wal, recovered = Wal.open(tmp_path / "wal", FILES, segment_bytes=512)
    wal.close()
    assert [(each.index, each.term) for each in recovered.entries] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 3),
        (5, 3),
        (6, 4),
    ]
    assert wal.last_index == 6


def test_appending_goes_on_after_a_restart(tmp_path: Path) -> None:
    appends: list[Append] = [(None, entries(1, 2)), (HardState(2), [entry(3, 2)])]
    Wal.create(tmp_path / "wal", FILES)
    for hard_state, new_entries in appends:
        wal, _ = Wal.open(tmp_path / "wal", FILES)
        wal.append(hard_state, new_entries)
        wal.close()
    assert state_of(recover(tmp_path / "wal")) == expected(appends)


@pytest.mark.parametrize(
    ("new_entries", "reason"),
    [
        ([entry(5, 2)], "does not continue"),
        ([entry(0, 2)], "does not continue"),
        ([entry(4, 1)], "follows one of term 2"),
        ([entry(2, 0)], "follows one of term 1"),
        ([entry(4, 2), entry(6, 2)], "stands where 5 is due"),
        ([entry(4, 3), entry(5, 2)], "follows one of term 3"),
    ],
)
def test_entries_that_do_not_fit_are_never_written(
    tmp_path: Path, new_entries: list[Entry], reason: str
) -> None:
    appends: list[Append] = [(None, [entry(1, 1), entry(2, 2), entry(3, 2)])]
    write_log(tmp_path / "wal", appends)
    wal, _ = Wal.open(tmp_path / "wal", FILES)
    with pytest.raises(AssertionError, match=reason):
        wal.append(None, new_entries)
    wal.close()
    assert state_of(recover(tmp_path / "wal")) == expected(appends)


def test_the_current_term_never_falls(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [(HardState(5), [])])
    wal, _ = Wal.open(tmp_path / "wal", FILES)
    with pytest.raises(AssertionError, match="falls from 5 to 4"):
        wal.append(HardState(4), [])
    wal.close()


# --- segments ---------------------------------------------------------------------------------


def test_small_segments_roll_over_and_are_read_in_order(tmp_path: Path) -> None:
    appends: list[Append] = [
        (HardState(index, f"n{index}/x") if index % 3 == 0 else None, [entry(index, index // 7)])
        for index in range(1, 40)
    ]
    write_log(tmp_path / "wal", appends, segment_bytes=600)
    assert state_of(recover(tmp_path / "wal", segment_bytes=600)) == expected(appends)
    suffixes = [path.suffix for path in segment_paths(tmp_path / "wal")]
    assert len(suffixes) > 5
    assert suffixes == [".closed"] * (len(suffixes) - 1) + [".open"]
    assert all(path.stat().st_size <= 600 for path in segment_paths(tmp_path / "wal"))


def test_a_segment_names_what_it_continues(tmp_path: Path) -> None:
    write_log(
        tmp_path / "wal", [(None, entries(1, 9)), (None, entries(10, 19, term=2))], FILES, 512
    )
    wal, _ = Wal.open(tmp_path / "wal", FILES, segment_bytes=512)
    wal.append(None, entries(20, 29, term=3))
    first, second, third = wal.segments
    wal.close()
    assert (first.after_index, first.after_term, first.first_sequence) == (0, 0, 1)
    assert (second.after_index, second.after_term, second.first_sequence) == (9, 1, 2)
    assert (third.after_index, third.after_term, third.first_sequence) == (19, 2, 3)
    assert [segment.name for segment in wal.segments] == [
        path.name for path in segment_paths(tmp_path / "wal")
    ]
    assert wal.size_bytes == sum(written_end(path) for path in segment_paths(tmp_path / "wal"))


def test_a_segment_is_durably_closed_before_its_successor_is_used() -> None:
    files = MemoryFileSystem()
    Wal.create(LOG, files)
    wal, _ = Wal.open(LOG, files, segment_bytes=512)
    wal.append(None, entries(1, 9))
    wal.append(None, [entry(10, data=noise(300))])
    wal.close()
    for seed in range(8):
        survivor = files.after_crash(Random(seed))
        assert survivor.names(LOG) == ["log-0000000000000001.closed", "log-0000000000000002.open"]


def test_a_batch_larger_than_a_segment_gets_a_segment_of_its_own_size(tmp_path: Path) -> None:
    appends: list[Append] = [
        (None, [entry(1)]),
        (None, [entry(2, data=noise(5000))]),
        (None, [entry(3)]),
    ]
    write_log(tmp_path / "wal", appends, segment_bytes=1024)
    sizes = [path.stat().st_size for path in segment_paths(tmp_path / "wal")]
    assert len(sizes) == 3
    assert sizes[0] == sizes[2] == 1024
    assert 5000 < sizes[1] < 5300
    assert state_of(recover(tmp_path / "wal", segment_bytes=1024)) == expected(appends)


def test_an_ordinary_append_is_one_write_and_one_sync_and_changes_no_size() -> None:
    files = MemoryFileSystem()
    Wal.create(LOG, files)
    wal, _ = Wal.open(LOG, files)
    before = len(files.calls)
    path = LOG / wal.segments[-1].name
    for index in range(1, 101):
        wal.append(HardState(index), [entry(index)])
        assert files.size(path) == PREALLOCATION_BYTES
    assert files.calls[before:] == [f"write {path.name}", f"sync {path.name}"] * 100


def test_preallocation_goes_in_steps_and_is_synced_before_the_batch() -> None:
    files = MemoryFileSystem()
    Wal.create(LOG, files)
    wal, _ = Wal.open(LOG, files)
    wal.append(None, [entry(1, data=noise(PREALLOCATION_BYTES - 1000))])
    before = len(files.calls)
    wal.append(None, [entry(2, data=noise(2000))])
    assert [call.split()[0] for call in files.calls[before:]] == ["write", "sync"] * 2
    assert files.size(LOG / wal.segments[-1].name) == 2 * PREALLOCATION_BYTES


# --- a torn tail is cut -----------------------------------------------------------------------


def a_log(directory: Path, last: list[Entry]) -> tuple[Path, int, tuple[object, object]]:
    """Write a log; return its file, where its last batch begins, and the state before that."""
    before: list[Append] = [(HardState(1, "n1/a"), []), (None, entries(1, 3))]
    begin = write_log(directory, [*before, (None, last)])
    return segment_paths(directory)[0], begin, expected(before)


def test_a_last_batch_that_the_file_cuts_off_at_any_byte_is_forgotten(tmp_path: Path) -> None:
    path, begin, before = a_log(tmp_path / "wal", entries(4, 8, data=b"0123456789"))
    content = path.read_bytes()
    for end in range(begin, written_end(path)):
        path.write_bytes(content[:end])
        recovered = recover(tmp_path / "wal")
        assert state_of(recovered) == before
        assert recovered.cut_bytes == len(content[begin:end].rstrip(b"\0"))
        assert not any(path.read_bytes()[begin:])


def test_a_last_batch_that_was_written_up_to_any_byte_is_forgotten(tmp_path: Path) -> None:
    path, begin, before = a_log(tmp_path / "wal", entries(4, 8, data=b"0123456789"))
    content = path.read_bytes()
    for end in range(begin, written_end(path)):
        path.write_bytes(content[:end] + bytes(len(content) - end))
        recovered = recover(tmp_path / "wal")
        assert state_of(recovered) == before
        assert path.read_bytes() == content[:begin] + bytes(len(content) - begin)


def test_a_last_batch_of_which_any_sectors_are_missing_is_forgotten(tmp_path: Path) -> None:
    path, begin, before = a_log(tmp_path / "wal", [entry(4, data=noise(2100))])
    content = path.read_bytes()
    cuts = [begin, *range(begin - begin % 512 + 512, written_end(path), 512), written_end(path)]
    pieces = list(itertools.pairwise(cuts))
    assert len(pieces) >= 5
    for kept in itertools.product((False, True), repeat=len(pieces)):
        torn = bytearray(content)
        for (piece_begin, piece_end), keep in zip(pieces, kept, strict=True):
            if not keep:
                torn[piece_begin:piece_end] = bytes(piece_end - piece_begin)
        path.write_bytes(torn)
        recovered = recover(tmp_path / "wal")
        assert (state_of(recovered) == before) == (not all(kept))
        assert (recovered.cut_bytes > 0) == (any(kept) and not all(kept))


def test_a_torn_batch_is_known_wherever_in_a_sector_it_begins() -> None:
    begins = set()
    for size_bytes in range(400):
        files = MemoryFileSystem()
        before: list[Append] = [(None, [entry(1, data=noise(size_bytes))])]
        write_log(LOG, [*before, (None, [entry(2, data=noise(600))])], files)
        path = LOG / files.names(LOG)[0]
        content = files.read(path)
        begin = content.rindex(b"\x24\0\0\0")
        begins.add(begin % 512)
        sector_end = begin - begin % 512 + 512
        for torn in (
            content[:begin] + bytes(sector_end - begin) + content[sector_end:],
            content[:sector_end] + bytes(len(content) - sector_end),
        ):
            files.replace(path, torn)
            assert state_of(recover(LOG, files)) == expected(before)
    assert 0 in begins
    assert len(begins) > 350


def test_appends_after_a_cut_are_read_back(tmp_path: Path) -> None:
    path, _, _ = a_log(tmp_path / "wal", [entry(4, data=noise(900))])
    content = path.read_bytes()
    path.write_bytes(content[: written_end(path) - 500])
    wal, recovered = Wal.open(tmp_path / "wal", FILES, segment_bytes=4096)
    assert recovered.cut_bytes > 0
    wal.append(HardState(2), [entry(4, 2, b"another")])
    wal.close()
    recovered = recover(tmp_path / "wal")
    assert recovered.cut_bytes == 0
    assert recovered.entries == (*entries(1, 3), entry(4, 2, b"another"))


def test_torn_tail_is_cut_durably_before_the_first_append() -> None:
    files = MemoryFileSystem()
    begin = write_log(LOG, [(None, [entry(1)]), (None, [entry(2, data=noise(900))])], files)
    path = LOG / files.names(LOG)[0]
    torn = files.read(path)[: begin + 600]
    files.replace(path, torn + bytes(4096 - len(torn)))
    wal, recovered = Wal.open(LOG, files, segment_bytes=4096)
    assert recovered.cut_bytes == 600
    survivor = files.after_crash(Random(1))
    assert not any(survivor.read(path)[begin:])
    assert survivor.size(path) == 4096
    assert recover(LOG, survivor) == Recovered(HardState(), (entry(1),), 0)
    wal.close()


def test_a_lost_sector_is_known_even_if_the_batch_has_zero_sectors_of_its_own(
    tmp_path: Path,
) -> None:
    value = noise(700, 1) + bytes(1200) + noise(700, 2)
    path, begin, before = a_log(tmp_path / "wal", [entry(4, data=value)])
    content = bytearray(path.read_bytes())
    second = begin - begin % 512 + 512
    assert any(content[second : second + 512])
    content[second : second + 512] = bytes(512)
    path.write_bytes(content)
    assert state_of(recover(tmp_path / "wal")) == before


def test_a_copy_of_a_batch_header_inside_a_torn_value_is_not_mistaken_for_a_later_batch(
    tmp_path: Path,
) -> None:
    path, begin, _ = a_log(tmp_path / "other", [entry(4)])
    header = path.read_bytes()[begin : begin + BATCH_HEADER_BYTES]
    path, begin, before = a_log(tmp_path / "wal", [entry(4, data=noise(600) + header * 20)])
    content = path.read_bytes()
    sector_end = begin - begin % 512 + 512
    path.write_bytes(content[:begin] + bytes(sector_end - begin) + content[sector_end:])
    assert state_of(recover(tmp_path / "wal")) == before


# --- damage is refused ------------------------------------------------------------------------


def flip(content: bytes, bit: int) -> bytes:
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def test_every_flipped_bit_of_a_synced_log_is_noticed() -> None:
    appends: list[Append] = [
        (HardState(1, "n1/a"), [entry(1)]),
        (None, entries(2, 3)),
        (HardState(2, "n2/b"), [entry(3, 2, b"\0\0")]),
        (None, entries(4, 6, term=2)),
        (HardState(3), entries(7, 8, term=3)),
        (None, entries(9, 11, term=3)),
    ]
    # Ten thousand starts: in memory, since opening so many files takes a disk a minute.
    files = MemoryFileSystem()
    write_log(LOG, appends, files, segment_bytes=400)
    paths = [LOG / name for name in files.names(LOG)]
    assert len(paths) == 3
    for path in paths:
        content = files.read(path)
        for bit in range(len(content) * 8):
            files.replace(path, flip(content, bit))
            with pytest.raises(CorruptLog) as raised:
                recover(LOG, files, segment_bytes=400)
            assert raised.value.path == path
        files.replace(path, content)
    assert state_of(recover(LOG, files, segment_bytes=400)) == expected(appends)


@pytest.mark.parametrize(
    "value",
    [bytes(2000), bytes(900) + b"\x01" + bytes(1099), noise(700) + b"\x80" * 3 + bytes(1400)],
    ids=["zeros", "one bit", "mixed"],
)
def test_every_flipped_bit_of_a_last_batch_with_faint_sectors_is_noticed(value: bytes) -> None:
    files = MemoryFileSystem()
    begin = write_log(LOG, [(None, [entry(1)]), (None, [entry(2, data=value)])], files)
    path = LOG / files.names(LOG)[0]
    content = files.read(path)
    for bit in range(begin * 8, len(content.rstrip(b"\0")) * 8):
        files.replace(path, flip(content, bit))
        with pytest.raises(CorruptLog):
            recover(LOG, files)


def test_a_flipped_bit_in_the_gap_before_a_batch_is_noticed() -> None:
    files = MemoryFileSystem()
    Wal.create(LOG, files)
    wal, _ = Wal.open(LOG, files, segment_bytes=4096)
    wal.append(None, [entry(1)])
    room = 512 - wal.segments[0].used_bytes
    wal.append(None, [entry(2, data=bytes(1 + room - 110))])
    end = wal.segments[0].used_bytes
    wal.append(None, [entry(3)])
    path = LOG / wal.segments[0].name
    content = files.read(path)
    assert 0 < 512 - end < BATCH_HEADER_BYTES
    assert content[512:516] == b"\x24\0\0\0"
    for bit in range(end * 8, 512 * 8):
        files.replace(path, flip(content, bit))
        with pytest.raises(CorruptLog):
            recover(LOG, files)


def test_a_lone_bit_anywhere_in_the_zeros_after_the_last_batch_is_noticed() -> None:
    files = MemoryFileSystem()
    write_log(LOG, [(None, entries(1, 2))], files)
    path = LOG / files.names(LOG)[0]
    content = files.read(path)
    for offset in range(len(content.rstrip(b"\0")), len(content)):
        files.replace(path, flip(content, offset * 8 + offset % 8))
        with pytest.raises(CorruptLog):
            recover(LOG, files)


def test_a_bad_batch_before_a_good_one_is_damage_and_says_what_is_lost(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [(None, entries(1, 3)), (None, entries(4, 6)), (None, [entry(7)])])
    path = segment_paths(tmp_path / "wal")[0]
    content = bytearray(path.read_bytes())
    middle = content.index(b"value", content.index(b"value") + 90)
    content[middle : middle + 5] = bytes(5)
    path.write_bytes(content)
    with pytest.raises(CorruptLog) as raised:
        recover(tmp_path / "wal")
    assert raised.value.first_lost_index == 4
    assert 0 < raised.value.offset < middle
    for part in (str(path), f"byte {raised.value.offset}", "from index 4 on", "raftctl replace"):
        assert part in str(raised.value)


def test_sectors_that_vanished_before_a_good_batch_are_damage(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [(None, [entry(1, data=noise(1500))]), (None, entries(2, 3))])
    path = segment_paths(tmp_path / "wal")[0]
    content = path.read_bytes()
    header_end = content.index(b"\x24\0\0\0")
    for begin, end in ((512, 1024), (header_end, 512), (header_end, 1536)):
        path.write_bytes(content[:begin] + bytes(end - begin) + content[end:])
        with pytest.raises(CorruptLog) as raised:
            recover(tmp_path / "wal")
        assert raised.value.first_lost_index == 1


def test_a_torn_batch_in_a_closed_segment_is_damage(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [(None, entries(1, 8)), (None, entries(9, 16))], segment_bytes=512)
    path = segment_paths(tmp_path / "wal")[0]
    content = path.read_bytes()
    for end in (written_end(path) - 1, written_end(path) - 100):
        for torn in (content[:end], content[:end] + bytes(len(content) - end)):
            path.write_bytes(torn)
            with pytest.raises(CorruptLog, match="never written completely"):
                recover(tmp_path / "wal")


def test_a_refused_log_is_left_as_it_is(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [(None, entries(1, 8)), (None, entries(9, 16))], segment_bytes=512)
    first, second = segment_paths(tmp_path / "wal")
    first.write_bytes(flip(first.read_bytes(), 2000))
    second.write_bytes(second.read_bytes()[: written_end(second) - 10])
    (tmp_path / "wal" / "log-0000000000000003.open.tmp").touch()
    before = {path: path.read_bytes() for path in (tmp_path / "wal").iterdir()}
    with pytest.raises(CorruptLog):
        recover(tmp_path / "wal")
    assert {path: path.read_bytes() for path in (tmp_path / "wal").iterdir()} == before


@pytest.mark.parametrize(
    "garbage", [b"\x01", b"garbage", noise(100), TRAILER, b"\x24\0\0\0\xff" * 9]
)
@pytest.mark.parametrize("distance", [0, 1, 30, 60])
def test_bytes_after_the_last_batch_that_no_append_wrote_are_refused(
    tmp_path: Path, garbage: bytes, distance: int
) -> None:
    write_log(tmp_path / "wal", [(None, entries(1, 2))])
    path = segment_paths(tmp_path / "wal")[0]
    content = bytearray(path.read_bytes())
    begin = written_end(path) + distance
    content[begin : begin + len(garbage)] = garbage
    path.write_bytes(content)
    with pytest.raises(CorruptLog):
        recover(tmp_path / "wal")


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_segment_is_refused_wherever_it_was(tmp_path: Path, missing: int) -> None:
    appends: list[Append] = [(None, entries(begin, begin + 7)) for begin in (1, 9, 17)]
    write_log(tmp_path / "wal", appends, segment_bytes=512)
    segment_paths(tmp_path / "wal")[missing].unlink()
    reason = ("there is no snapshot", "a segment is missing", "continues it is missing")[missing]
    with pytest.raises(CorruptLog, match=reason) as raised:
        recover(tmp_path / "wal")
    assert raised.value.first_lost_index == (1, 9, 17)[missing]
    assert raised.value.remedy is Remedy.REPLACE
    if missing == 1:
        names = [path.name for path in segment_paths(tmp_path / "wal")]
        assert isinstance(raised.value, MissingSegment)
        assert raised.value.what.startswith(f"{tmp_path}/wal: entries 9 to 16 are missing: ")
        assert f"{names[0]} ends with batch 1 and entry 8, {names[1]} begins" in raised.value.what
        assert "Entries from index 9 on, and any vote stored since, are lost" in raised.value.what


def test_a_missing_segment_without_new_entries_is_named_by_its_batches(tmp_path: Path) -> None:
    appends: list[Append] = [(None, entries(1, 8)), (None, entries(1, 8, 2)), (None, [entry(9, 2)])]
    write_log(tmp_path / "wal", appends, segment_bytes=300)
    segment_paths(tmp_path / "wal")[1].unlink()
    with pytest.raises(MissingSegment, match="batches 2 to 2 are missing: a segment is missing"):
        recover(tmp_path / "wal")


def test_a_segment_of_another_log_is_refused(tmp_path: Path) -> None:
    for name, term in (("wal", 1), ("other", 2)):
        appends: list[Append] = [(None, entries(i, i + 7, term)) for i in (1, 9)]
        write_log(tmp_path / name, appends, segment_bytes=512)
    ours, theirs = (segment_paths(tmp_path / name)[1] for name in ("wal", "other"))
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(CorruptLog, match="from elsewhere"):
        recover(tmp_path / "wal")


def test_a_log_of_the_release_before_opens_and_goes_on(tmp_path: Path) -> None:
    """It was written in segments of 512 bytes, before logs could be compacted or reset."""
    (tmp_path / "wal").mkdir()
    for name, packed in EARLIER_LOG.items():
        content = zlib.decompress(base64.b85decode(packed))
        (tmp_path / "wal" / name).write_bytes(content + bytes(512 - len(content)))
    replaced = [entry(3, 2), entry(4, 2, b"x" * 100), entry(5, 3)]
    assert state_of(recover(tmp_path / "wal", segment_bytes=512)) == (
        HardState(3, "n2/b"),
        (entry(1), entry(2), *replaced),
    )
    wal, recovered = Wal.open(tmp_path / "wal", FILES, segment_bytes=512)
    assert (recovered.base_index, recovered.base_term) == (0, 0)
    wal.append(HardState(4), entries(6, 7, 4))
    unlink_in_order(FILES, wal.compact(4))
    wal.close()
    wal, recovered = Wal.open(tmp_path / "wal", FILES, snapshot_index=4)
    wal.close()
    assert recovered.entries == (entry(5, 3), *entries(6, 7, 4))


def test_a_log_of_a_newer_format_is_refused_and_says_so(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [])
    body = struct.pack("<IQQQ", FORMAT_VERSION + 1, 1, 0, 0) + bytes(9)
    segment_paths(tmp_path / "wal")[0].write_bytes(encode_record(SEGMENT_HEADER, body))
    with pytest.raises(StorageFault, match="format 2 of the log"):
        recover(tmp_path / "wal")


def test_a_directory_without_a_log_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        assert not Wal.exists(directory, FILES)
        with pytest.raises(StorageFault, match="there is no log"):
            recover(directory)


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "sync"])
def test_after_a_fault_the_log_refuses_all_further_use(call: str) -> None:
    files = MemoryFileSystem()
    Wal.create(LOG, files)
    wal, _ = Wal.open(LOG, files)
    wal.append(None, [entry(1)])
    files.fail_at = len(files.calls) + (1 if call == "write" else 2)
    with pytest.raises(StorageFault, match=r"log-0000000000000001\.open"):
        wal.append(None, [entry(2)])
    assert wal.last_index == 1
    done = len(files.calls)
    with pytest.raises(StorageFault, match="not used any more"):
        wal.append(None, [entry(2)])
    assert len(files.calls) == done


def test_a_closed_log_refuses_use(tmp_path: Path) -> None:
    Wal.create(tmp_path / "wal", FILES)
    wal, _ = Wal.open(tmp_path / "wal", FILES)
    wal.close()
    wal.close()
    with pytest.raises(StorageFault, match="closed"):
        wal.append(HardState(1), [])


def test_what_a_failed_sync_left_in_the_cache_is_durable_once_it_was_recovered() -> None:
    files = MemoryFileSystem()
    Wal.create(LOG, files)
    wal, _ = Wal.open(LOG, files)
    files.fail_at = len(files.calls) + 2
    with pytest.raises(StorageFault):
        wal.append(HardState(1), [entry(1)])
    assert recover(LOG, files).entries == (entry(1),)
    assert recover(LOG, files.after_crash(Random(0))).entries == (entry(1),)


def test_real_faults_name_the_file_and_what_failed(tmp_path: Path) -> None:
    with pytest.raises(StorageFault, match=r"missing: opening it failed: No such file"):
        FILES.open(tmp_path / "missing")
    (tmp_path / "full").symlink_to("/dev/full")
    file = FILES.open(tmp_path / "full")
    with pytest.raises(StorageFault, match=r"full: writing 1 bytes at 0 failed: No space left"):
        file.write(b"x", 0)
    file.close()
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "file").touch()
    with pytest.raises(StorageFault, match=r"directory: removing it failed"):
        FILES.unlink(directory)


# --- crashes ------------------------------------------------------------------------------------

SCRIPT: list[Append] = [
    (HardState(1, "n1/a"), []),
    (None, entries(1, 3)),
    (HardState(2), entries(4, 5, term=2, data=noise(900))),
    (None, entries(3, 4, term=2)),
    (HardState(3, "n2/b"), [entry(5, 3, noise(3000))]),
    (None, entries(6, 9, term=3, data=bytes(700))),
    (HardState(4), [entry(7, 4)]),
    (None, entries(8, 9, term=4)),
]


def run_script(files: MemoryFileSystem, acknowledged: list[Append]) -> None:
    """Make a log and append the script; `acknowledged` grows with what is durable."""
    Wal.create(LOG, files)
    wal, _ = Wal.open(LOG, files, segment_bytes=2048)
    for hard_state, new_entries in SCRIPT:
        wal.append(hard_state, new_entries)
        acknowledged.append((hard_state, new_entries))
    wal.close()


def calls_of_the_script() -> int:
    files = MemoryFileSystem()
    run_script(files, [])
    assert sum(call.startswith("rename") for call in files.calls) > 5, "the script has to roll over"
    return len(files.calls)


def check_recovery(files: MemoryFileSystem, acknowledged: list[Append], random: Random) -> None:
    """Recover, with a crash in between, and see that nothing acknowledged is lost or half there."""
    files.crash_at = random.randint(1, 8)
    try:
        recover(LOG, files, segment_bytes=2048)
    except Crash:
        files = files.after_crash(random)
    files.crash_at = 0
    attempted = SCRIPT[: len(acknowledged) + 1]
    recovered = state_of(recover(LOG, files, segment_bytes=2048))
    assert recovered in (expected(acknowledged), expected(attempted))
    # What was recovered once stays, and the log goes on from there.
    files = files.after_crash(random)
    wal, again = Wal.open(LOG, files, segment_bytes=2048)
    assert state_of(again) == recovered
    assert again.cut_bytes == 0
    following = entry(wal.last_index + 1, 9)
    wal.append(HardState(9), [following])
    wal.close()
    files = files.after_crash(random)
    assert recover(LOG, files, segment_bytes=2048).entries == (*recovered[1], following)


def test_a_power_failure_at_any_call_loses_nothing_acknowledged_and_tears_nothing() -> None:
    for crash_at in range(1, calls_of_the_script() + 1):
        for seed in range(12):
            files, acknowledged = MemoryFileSystem(crash_at=crash_at), list[Append]()
            with pytest.raises(Crash):
                run_script(files, acknowledged)
            random = Random(f"{crash_at} {seed}")
            files = files.after_crash(random)
            if not Wal.exists(LOG, files):
                assert not acknowledged
                Wal.create(LOG, files)
            check_recovery(files, acknowledged, random)


def test_a_fault_at_any_call_and_a_restart_lose_nothing_acknowledged() -> None:
    for fail_at in range(1, calls_of_the_script() + 1):
        files, acknowledged = MemoryFileSystem(fail_at=fail_at), list[Append]()
        with pytest.raises(StorageFault):
            run_script(files, acknowledged)
        files.calls.clear()
        files.fail_at = 0
        if not Wal.exists(LOG, files):
            assert not acknowledged
            Wal.create(LOG, files)
        files.calls.clear()
        check_recovery(files, acknowledged, Random(fail_at))


# --- the model ----------------------------------------------------------------------------------


@st.composite
def steps(draw: st.DrawFn) -> list[Append | None]:
    """Return appends that fit to each other; None is a restart."""
    drawn: list[Append | None] = []
    terms: list[int] = []
    current_term = 1
    for _ in range(draw(st.integers(1, 12))):
        if draw(st.integers(0, 4)) == 0:
            drawn.append(None)
            continue
        hard_state = None
        if draw(st.booleans()):
            current_term += draw(st.integers(0, 2))
            hard_state = HardState(
                current_term, draw(st.sampled_from((None, "", "n1/a", "é" * 90)))
            )
        first = draw(st.integers(max(1, len(terms) - 3), len(terms) + 1))
        new_entries = []
        for index in range(first, first + draw(st.integers(0, 4))):
            del terms[index - 1 :]
            term = draw(st.integers(terms[-1] if terms else 1, max([current_term, *terms])))
            terms.append(term)
            size = draw(st.sampled_from((0, 1, 7, 200, 509, 512, 1400)))
            data = draw(st.sampled_from((bytes(size), noise(size, index), b"\x01" + bytes(size))))
            new_entries.append(entry(index, term, data))
        if hard_state or new_entries:
            drawn.append((hard_state, new_entries))
    return drawn


@settings(max_examples=150, deadline=None)
@given(drawn=steps(), segment_bytes=st.sampled_from((300, 1024, 4096)))
def test_any_appends_and_restarts_give_what_the_model_says(
    drawn: list[Append | None], segment_bytes: int
) -> None:
    files, done = MemoryFileSystem(), list[Append]()
    Wal.create(LOG, files)
    wal, _ = Wal.open(LOG, files, segment_bytes=segment_bytes)
    for step in [*drawn, None]:
        if step is None:
            wal.close()
            files = files.after_crash(Random(len(done)))
            wal, recovered = Wal.open(LOG, files, segment_bytes=segment_bytes)
            assert (*state_of(recovered), recovered.cut_bytes) == (*expected(done), 0)
        else:
            wal.append(*step)
            done.append(step)
        assert wal.last_index == len(expected(done)[1])
