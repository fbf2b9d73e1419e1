"""A snapshot file gives back exactly the pairs that were written, or says where it is damaged."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import attrs
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd.commands import Command, OpenSession, Put, encode_command
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    encode_configuration,
)
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry, EntryKind
from raftd.records import RECORD_HEADER, encode_record
from raftd.storage import snapshot_file
from raftd.storage.files import OsFileSystem, Remedy, StorageFault
from raftd.storage.snapshot_file import (
    BLOCK,
    BLOCK_BYTES,
    FORMAT_VERSION,
    HEAD,
    PAIR_BYTES_MAX,
    TAIL,
    TAIL_BYTES,
    CorruptSnapshot,
    Pairs,
    SnapshotHead,
    SnapshotReader,
    SnapshotWriter,
    UnknownSnapshotFormat,
    head_of,
    intact_records,
    open_ends,
    snapshot_of,
    verify,
)
from raftd.storage.state import StateMachine
from raftd.storage.store import STORE_KEY_BYTES_MAX, MemoryStore
from tests.storage.memory_files import MemoryFileSystem
from tests.storage.stores import contents

FILE = Path("/a.snap")
CONFIGURATION = ConfigurationEntry(
    configuration=Configuration(voters={"n1/1"}, learners={"n2/2"}),
    addresses={"n1/1": "127.0.0.1:7101", "n2/2": "127.0.0.1:7102"},
    kind=ConfigurationKind.SIMPLE,
)
ONE_VOTER = ConfigurationEntry(
    configuration=Configuration(voters={"n1/1"}), kind=ConfigurationKind.BOOTSTRAP
)


def make_head(
    index: int = 10, term: int = 2, configuration: ConfigurationEntry = ONE_VOTER
) -> SnapshotHead:
    return SnapshotHead(
        last_included_index=index,
        last_included_term=term,
        configuration_index=1,
        configuration=encode_configuration(configuration),
        revision=7,
        state_format=3,
        cluster_id="0123",
    )


def make_pairs(count: int, size_bytes: int = 10) -> Pairs:
    return [
        (b"K%08d" % number, bytes((number % 256,)) * (size_bytes - 9)) for number in range(count)
    ]


def write(
    lists: Iterable[Pairs],
    head: SnapshotHead | None = None,
    path: Path = FILE,
    files: MemoryFileSystem | None = None,
) -> tuple[MemoryFileSystem, SnapshotId]:
    files = files or MemoryFileSystem()
    file = files.create(path)
    writer = SnapshotWriter(file, head or make_head())
    for pairs in lists:
        writer.add(pairs)
    id = writer.finish()
    assert writer.written_bytes == id.size_bytes == files.size(path)
    file.close()
    return files, id


def read(files: MemoryFileSystem, path: Path = FILE) -> Pairs:
    return [pair for pairs in SnapshotReader(files, path).blocks() for pair in pairs]


def records_of(content: bytes) -> list[bytes]:
    found = []
    while content:
        end = RECORD_HEADER.size + RECORD_HEADER.unpack_from(content)[0]
        found.append(content[:end])
        content = content[end:]
    return found


def disk_with(content: bytes) -> MemoryFileSystem:
    files = MemoryFileSystem()
    files.replace(FILE, content)
    return files


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file of some hundred bytes have several blocks."""
    monkeypatch.setattr(snapshot_file, "BLOCK_BYTES", 30)


@pytest.fixture
def small_file(small_blocks: None) -> bytes:
    files, _ = write([make_pairs(7)])
    return files.read(FILE)


# --- round trips -------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=60)), st.data())
def test_what_was_written_is_read_however_it_was_handed_over(
    stored: dict[bytes, bytes], data: st.DataObject
) -> None:
    pairs = sorted(stored.items())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pairs)), max_size=5)))
    lists = [pairs[begin:end] for begin, end in pairwise([0, *cuts, len(pairs)])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot_file, "BLOCK_BYTES", data.draw(st.integers(1, 200)))
        files, id = write(lists)
        other, other_id = write([pairs])
    assert read(files) == pairs
    assert files.read(FILE) == other.read(FILE)
    assert id == other_id == verify(files, FILE).id
    assert open_ends(files, FILE) == (make_head(), id)


def test_a_block_ends_with_the_pair_that_fills_it() -> None:
    files, _ = write([make_pairs(1000, size_bytes=1000)])
    blocks = list(SnapshotReader(files, FILE).blocks())
    full = -(-BLOCK_BYTES // 1000)
    assert [len(pairs) for pairs in blocks] == [full] * (1000 // full) + [1000 % full]


def test_the_longest_pairs_fit_into_a_block_that_is_almost_full() -> None:
    # As many short keys as there can be: their envelopes are longer than they are.
    short = [(bytes((first, second)), b"") for first in range(256) for second in range(256)]
    longest = (b"\xff" * STORE_KEY_BYTES_MAX, bytes(PAIR_BYTES_MAX - STORE_KEY_BYTES_MAX))
    pairs = [*short[1:], (b"\xff\xff\x01", bytes(BLOCK_BYTES - 131_074)), longest]
    files, _ = write([pairs])
    blocks = list(SnapshotReader(files, FILE).blocks())
    assert [len(pairs) for pairs in blocks] == [len(pairs)]
    assert blocks[0] == pairs


def test_a_snapshot_of_an_empty_store_has_no_blocks() -> None:
    files, id = write([[], []])
    assert read(files) == []
    assert len(records_of(files.read(FILE))) == 2
    assert verify(files, FILE).id == id


def test_the_head_is_what_the_state_machine_says_and_the_pairs_make_the_same_one() -> None:
    store = MemoryStore()
    commands = [
        Command(session="s", body=OpenSession()),
        Command(session="s", serial=1, body=Put(key="a", value=b"1")),
        Command(session="s", serial=2, body=Put(key="b", value=b"2")),
    ]
    entries = [
        Entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(CONFIGURATION)),
        *(
            Entry(index, 3, EntryKind.COMMAND, encode_command(command))
            for index, command in enumerate(commands, start=2)
        ),
        Entry(5, 4, EntryKind.NOOP, b""),
    ]
    StateMachine(store).apply(entries)
    head = head_of(store, "cluster")
    files, id = write([contents(store)], head)
    assert (id.last_included_index, id.last_included_term) == (5, 4)
    snapshot = snapshot_of(*open_ends(files, FILE))
    assert snapshot.id == id
    assert snapshot.configuration.index == 1
    assert snapshot.configuration.entry == CONFIGURATION

    copy = MemoryStore()
    with copy.transaction():
        for key, value in read(files):
            copy.put(key, value)
    assert head_of(copy, "cluster") == head
    machine = StateMachine(copy)
    assert (machine.applied_index, machine.revision) == (5, 2)
    assert machine.session_result("s", 2) is not None


def test_the_bytes_are_those_of_earlier_releases(small_blocks: None) -> None:
    def record(kind: int, body: bytes) -> bytes:
        checksum = zlib.crc32(bytes((kind,)) + body)
        return struct.pack("<IIB", len(body), checksum, kind) + body

    configuration = encode_configuration(ONE_VOTER)
    fields = [10, 2, 1, configuration, 7, 3, "0123"]
    content = record(16, struct.pack("<I", 1) + msgpack.packb(fields))
    content += record(17, msgpack.packb([b"a", b"1" * 20, b"b", b"2" * 20]))
    content += record(17, msgpack.packb([b"c", b""]))
    digest = hashlib.blake2b(content, digest_size=16)
    content += record(18, struct.pack("<QQ", 3, len(content)) + digest.digest())

    files, id = write([[(b"a", b"1" * 20), (b"b", b"2" * 20), (b"c", b"")]])
    assert files.read(FILE) == content
    assert id == SnapshotId(
        last_included_index=10,
        last_included_term=2,
        size_bytes=len(content),
        checksum=digest.hexdigest(),
    )


def test_real_files_are_written_and_read(tmp_path: Path) -> None:
    files = OsFileSystem()
    file = files.create(tmp_path / "a")
    writer = SnapshotWriter(file, make_head())
    writer.add(make_pairs(50_000))
    id = writer.finish()
    file.close()
    memory, memory_id = write([make_pairs(50_000)])
    assert id == memory_id
    assert (tmp_path / "a").read_bytes() == memory.read(FILE)
    assert verify(files, tmp_path / "a").id == id


# --- streaming ---------------------------------------------------------------------------------


class _Reads(MemoryFileSystem):
    """Notes how much is read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def read(self, path: Path) -> bytes:
        raise AssertionError("a whole file is read into memory")

    def read_at(self, path: Path, offset: int, size_bytes: int) -> bytes:
        self.sizes.append(size_bytes)
        return super().read_at(path, offset, size_bytes)


def test_neither_end_holds_more_than_a_block_in_memory() -> None:
    files = _Reads()
    file = files.create(FILE)
    writer = SnapshotWriter(file, make_head())
    added_bytes = 0
    for begin in range(0, 20_000, 100):
        pairs = [(b"%08d" % number, bytes(100)) for number in range(begin, begin + 100)]
        writer.add(pairs)
        added_bytes += 100 * 108
        assert added_bytes - writer.written_bytes < BLOCK_BYTES + 100 * 108
    id = writer.finish()
    verify(files, FILE)
    assert id.size_bytes > 7 * BLOCK_BYTES
    assert max(files.sizes) < 2 * BLOCK_BYTES


def test_the_ends_are_read_without_what_is_between_them() -> None:
    files = _Reads()
    write([make_pairs(100_000)], files=files)
    open_ends(files, FILE)
    assert sum(files.sizes) < 1000


# --- a file that is still being received -------------------------------------------------------


class Arriving:
    """A file that grows by a few bytes whenever somebody waits for more of it."""

    def __init__(self, content: bytes, step_bytes: int) -> None:
        self.files = disk_with(b"")
        self._content = content
        self._step_bytes = step_bytes

    def wait(self, end: int) -> None:
        here_bytes = self.files.size(FILE)
        assert end <= len(self._content), "nobody waits for what will never come"
        while here_bytes < end:
            here_bytes += self._step_bytes
            self.files.replace(FILE, self._content[:here_bytes])

    def reader(self, announced: SnapshotId) -> SnapshotReader:
        return SnapshotReader(self.files, FILE, announced=announced, arrived=self.wait)


@pytest.mark.parametrize("step_bytes", [1, 7, 100, 100_000])
def test_a_snapshot_that_arrives_is_read_as_far_as_it_is_there(
    small_file: bytes, step_bytes: int
) -> None:
    id = open_ends(disk_with(small_file), FILE)[1]
    arriving = Arriving(small_file, step_bytes)
    reader = arriving.reader(id)
    found: Pairs = []
    for pairs in reader.blocks():
        found += pairs
        assert reader.read_bytes <= arriving.files.size(FILE) <= reader.read_bytes + step_bytes
    assert found == make_pairs(7)
    assert (reader.id, reader.pair_count, reader.read_bytes) == (id, 7, id.size_bytes)


def test_every_flipped_bit_is_noticed_in_a_snapshot_that_arrives(small_file: bytes) -> None:
    id = open_ends(disk_with(small_file), FILE)[1]
    for offset in range(len(small_file)):
        damaged = bytearray(small_file)
        damaged[offset] ^= 1 << offset % 8
        with pytest.raises((CorruptSnapshot, UnknownSnapshotFormat)):
            list(Arriving(bytes(damaged), 10).reader(id).blocks())


@pytest.mark.parametrize("field", ["last_included_index", "last_included_term", "checksum"])
def test_a_snapshot_that_arrives_is_compared_with_what_was_announced(
    small_file: bytes, field: str
) -> None:
    id = open_ends(disk_with(small_file), FILE)[1]
    other = "0" * len(id.checksum) if field == "checksum" else getattr(id, field) + 1
    with pytest.raises(CorruptSnapshot):
        list(Arriving(small_file, 10).reader(attrs.evolve(id, **{field: other})).blocks())


def test_a_snapshot_that_arrives_is_of_the_announced_size(small_file: bytes) -> None:
    id = open_ends(disk_with(small_file), FILE)[1]
    record = len(records_of(small_file)[-2])
    for size_bytes in (id.size_bytes - record, id.size_bytes + record):
        announced = attrs.evolve(id, size_bytes=size_bytes)
        content = (small_file + small_file)[:size_bytes]
        with pytest.raises(CorruptSnapshot):
            list(Arriving(content, 10).reader(announced).blocks())


@pytest.mark.parametrize(
    ("pair_count", "digest", "reason"),
    [(8, None, "7 pairs where 8"), (7, bytes(16), "another snapshot than was announced")],
)
def test_a_tail_that_does_not_fit_the_file_before_it_is_noticed(
    small_file: bytes, pair_count: int, digest: bytes | None, reason: str
) -> None:
    """All else is right: the tail in itself, and the file as it was announced."""
    id = open_ends(disk_with(small_file), FILE)[1]
    body = struct.pack(
        "<QQ16s", pair_count, id.size_bytes - TAIL_BYTES, digest or bytes.fromhex(id.checksum)
    )
    content = small_file[:-TAIL_BYTES] + encode_record(TAIL, body)
    with pytest.raises(CorruptSnapshot, match=reason):
        list(Arriving(content, 10).reader(id).blocks())


def test_progress_grows_up_to_the_whole_file_and_may_give_up() -> None:
    files, id = write([make_pairs(100_000)])
    seen: list[int] = []
    verify(files, FILE, seen.append)
    assert seen == sorted(set(seen))
    assert len(seen) > 3
    assert seen[-1] == id.size_bytes

    def give_up(read_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(files, FILE, give_up)


# --- damage ------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(small_file: bytes) -> None:
    assert len(records_of(small_file)) == 5
    for offset in range(len(small_file)):
        for bit in range(8):
            damaged = bytearray(small_file)
            damaged[offset] ^= 1 << bit
            with pytest.raises(CorruptSnapshot) as caught:
                read(disk_with(bytes(damaged)))
            assert caught.value.offset <= offset


def test_every_missing_end_is_noticed_without_reading_the_pairs(small_file: bytes) -> None:
    for size_bytes in range(len(small_file)):
        with pytest.raises(CorruptSnapshot):
            open_ends(disk_with(small_file[:size_bytes]), FILE)


@pytest.mark.parametrize("more", [b"\0", bytes(TAIL_BYTES), b"tail"])
def test_bytes_behind_the_tail_are_noticed_without_reading_the_pairs(
    small_file: bytes, more: bytes
) -> None:
    with pytest.raises(CorruptSnapshot):
        open_ends(disk_with(small_file + more), FILE)
    with pytest.raises(CorruptSnapshot, match=r"bytes were written|were written"):
        open_ends(disk_with(small_file + small_file[-TAIL_BYTES:]), FILE)


def test_records_that_are_missing_doubled_or_moved_are_noticed(small_file: bytes) -> None:
    head, *blocks, tail = records_of(small_file)
    for wrong in (
        [head, *blocks[1:], tail],
        [head, *blocks[::-1], tail],
        [head, blocks[0], *blocks, tail],
        [head, head, *blocks, tail],
        [*blocks, tail],
        [head, *blocks],
        [head, *blocks, tail, tail],
    ):
        with pytest.raises(CorruptSnapshot):
            read(disk_with(b"".join(wrong)))
    # Also where the tail agrees with the bytes that are there.
    for wrong, reason in (
        ([head, *blocks[::-1]], "do not ascend"),
        ([head, *blocks, blocks[0]], "do not ascend"),
        ([head, *blocks[1:]], "pairs where 7 were written"),
        ([head, head, *blocks], "is not due"),
    ):
        with pytest.raises(CorruptSnapshot, match=reason):
            read(disk_with(with_tail(wrong, pair_count=7)))


def with_tail(records: list[bytes], pair_count: int) -> bytes:
    """Return a file of these records, with the tail that belongs to them."""
    before = b"".join(records)
    digest = hashlib.blake2b(before, digest_size=16).digest()
    return before + encode_record(TAIL, struct.pack("<QQ", pair_count, len(before)) + digest)


def test_a_record_that_is_good_by_itself_and_not_what_was_written_is_noticed(
    small_file: bytes,
) -> None:
    head, block, *others = records_of(small_file)
    body = bytearray(block[RECORD_HEADER.size :])
    body[-1] ^= 1
    changed = [head, encode_record(BLOCK, bytes(body)), *others]
    with pytest.raises(CorruptSnapshot, match="the digest of the file does not match"):
        read(disk_with(b"".join(changed)))
    assert len(read(disk_with(with_tail(changed[:-1], pair_count=7)))) == 7


@pytest.mark.parametrize(
    ("flat", "reason"),
    [
        ([b"b", b"", b"a", b""], "do not ascend"),
        ([b"a", b"", b"a", b""], "do not ascend"),
        ([b"", b""], "do not ascend"),
        ([b"a"], "not a list"),
        ([], "not a list"),
        ([b"a", "text"], "not a list"),
        ({b"a": b"b"}, "not a list"),
        ([b"a" * 512, b""], "more than 511 bytes"),
    ],
)
def test_a_block_that_no_writer_makes_is_refused(flat: object, reason: str) -> None:
    head, tail = records_of(write([])[0].read(FILE))
    block = encode_record(BLOCK, msgpack.packb(flat))
    body = bytearray(tail[RECORD_HEADER.size :])
    struct.pack_into("<Q", body, 8, len(head) + len(block))
    files = disk_with(head + block + encode_record(TAIL, bytes(body)))
    with pytest.raises(CorruptSnapshot, match=reason) as caught:
        read(files)
    assert caught.value.offset == len(head)


def test_a_refusal_names_file_place_and_reason(small_file: bytes) -> None:
    damaged = bytearray(small_file)
    damaged[-TAIL_BYTES - 1] ^= 1
    with pytest.raises(CorruptSnapshot) as caught:
        read(disk_with(bytes(damaged)))
    blocks = records_of(small_file)[:-2]
    offset = sum(map(len, blocks))
    assert caught.value.path == FILE
    assert caught.value.offset == offset
    assert f"{FILE}: damaged at byte {offset}: the checksum does not match" in str(caught.value)
    # Whether it can be had again is for whoever asked for it to say.
    assert caught.value.remedy is Remedy.RESTART
    assert "raftctl replace" not in str(caught.value)


def test_a_refusal_of_the_snapshot_that_a_server_starts_from_says_what_is_lost() -> None:
    corrupt = CorruptSnapshot(FILE, 7, "no", 90)
    assert corrupt.remedy is Remedy.REPLACE
    assert corrupt.what.startswith(f"{FILE}: damaged at byte 7: no. ")
    assert "the effects of entries 1 to 90 are lost" in corrupt.what
    assert "raftctl replace" in str(corrupt)


# --- the head ----------------------------------------------------------------------------------


def file_with_head(body: bytes) -> MemoryFileSystem:
    head = encode_record(HEAD, body)
    tail = struct.pack("<QQ16s", 0, len(head), bytes(16))
    return disk_with(head + encode_record(TAIL, tail))


def head_body(*fields: object, version: int = FORMAT_VERSION) -> bytes:
    return struct.pack("<I", version) + msgpack.packb(fields)


FIELDS = attrs.astuple(make_head())


@pytest.mark.parametrize("number", range(len(FIELDS)))
@pytest.mark.parametrize("value", [-1, 0, 1 << 63, None, True, 1.5, "", b"", [], "1", b"{}"])
def test_a_field_of_the_head_that_cannot_be_is_refused(number: int, value: object) -> None:
    fields = [*FIELDS]
    fields[number] = value
    if (number, value) in [(4, 0), (6, "1")]:
        # The first revision and another cluster id are as good as any.
        open_ends(file_with_head(head_body(*fields)), FILE)
        return
    with pytest.raises(CorruptSnapshot) as caught:
        open_ends(file_with_head(head_body(*fields)), FILE)
    assert caught.value.offset == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\1\0",
        head_body(*FIELDS, version=0),
        head_body(*FIELDS[:-1]),
        head_body(*FIELDS, 1),
        head_body(*FIELDS) + b"\0",
        head_body(*FIELDS)[:-1],
        struct.pack("<I", FORMAT_VERSION) + msgpack.packb("text"),
        struct.pack("<I", FORMAT_VERSION) + msgpack.packb(dict(enumerate(FIELDS))),
        # 10 in eight bytes, where one is enough.
        head_body(*FIELDS).replace(b"\x97\x0a", b"\x97\xcf" + (10).to_bytes(8)),
        # A later configuration than the snapshot's last entry.
        head_body(10, 2, 11, *FIELDS[3:]),
    ],
)
def test_a_head_that_no_writer_makes_is_refused(body: bytes) -> None:
    assert body != head_body(*FIELDS)
    with pytest.raises(CorruptSnapshot):
        open_ends(file_with_head(body), FILE)


def test_a_file_of_a_newer_release_says_which_release_reads_it() -> None:
    files = file_with_head(head_body("anything", version=FORMAT_VERSION + 1))
    for attempt in (open_ends, verify):
        with pytest.raises(UnknownSnapshotFormat, match="Start the release that wrote it"):
            attempt(files, FILE)


# --- a part of a file --------------------------------------------------------------------------


def test_of_an_unfinished_copy_the_whole_records_are_found(small_file: bytes) -> None:
    id = verify(disk_with(small_file), FILE).id
    records = records_of(small_file)
    ends = [sum(map(len, records[: count + 1])) for count in range(len(records))]
    for size_bytes in range(len(small_file) + 1):
        found = list(intact_records(disk_with(small_file[:size_bytes]), FILE, id))
        assert found == records[: sum(end <= size_bytes for end in ends)]
    too_long = disk_with(small_file + small_file)
    assert list(intact_records(too_long, FILE, id)) == records


def test_of_a_damaged_copy_the_records_before_the_damage_are_found(small_file: bytes) -> None:
    id = verify(disk_with(small_file), FILE).id
    records = records_of(small_file)
    for size_bytes in (len(small_file), len(small_file) - TAIL_BYTES):
        for offset in range(size_bytes):
            damaged = bytearray(small_file[:size_bytes])
            damaged[offset] ^= 1 << (offset % 8)
            found = list(intact_records(disk_with(bytes(damaged)), FILE, id))
            assert found == records[: len(found)]
            before = sum(map(len, found))
            assert before <= offset < before + len(records[len(found)])


def test_the_copy_of_another_snapshot_has_nothing_in_common(small_file: bytes) -> None:
    id = verify(disk_with(small_file), FILE).id
    for other in (
        attrs.evolve(id, last_included_index=11),
        attrs.evolve(id, last_included_term=3),
    ):
        assert list(intact_records(disk_with(small_file), FILE, other)) == []
    other_digest = attrs.evolve(id, checksum="0" * 32)
    records = records_of(small_file)
    assert list(intact_records(disk_with(small_file), FILE, other_digest)) == records[:-1]


# --- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lists",
    [
        [[(b"b", b""), (b"a", b"")]],
        [[(b"a", b""), (b"a", b"")]],
        [[(b"b", b"")], [(b"a", b"")]],
        [[(b"b", b"")], [(b"b", b"")]],
        [[(b"", b"")]],
    ],
)
def test_keys_that_do_not_ascend_are_a_bug_of_the_caller(lists: list[Pairs]) -> None:
    with pytest.raises(AssertionError, match="ascend"):
        write(lists)


def test_a_full_disk_is_a_fault_in_the_words_of_the_system() -> None:
    files = OsFileSystem()
    file = files.open(Path("/dev/full"))
    with pytest.raises(StorageFault, match="No space left on device"):
        SnapshotWriter(file, make_head())
    file.close()


def test_a_fault_while_writing_comes_through() -> None:
    for fail_at in (1, 2, 3):
        files = MemoryFileSystem(fail_at=fail_at)
        with pytest.raises(StorageFault):
            write([make_pairs(10)], files=files)
        assert len(files.calls) == fail_at
