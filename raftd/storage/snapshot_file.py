"""The file of one snapshot: every pair of the store, in the order of the keys, with checksums.

It is a logical copy, so it is the same for every kind of store, and byte for byte the same on any
two servers that take a snapshot at the same index: nothing in it depends on a clock, on the server
or on how the pairs were handed over. Its records are those of `raftd.records`:

1. a head, record of kind 16: format version (4 bytes, little endian), then msgpack of a list of
   last included index and term, index and bytes of the configuration entry, revision, format of
   the state, cluster id;
2. blocks, records of kind 17: msgpack of a flat list of key, value, key, value and so on. A block
   ends with the pair by which its keys and values reach `BLOCK_BYTES`, the last one ends earlier;
3. a tail, record of kind 18: number of pairs (8), bytes before the tail (8), both little endian,
   and the BLAKE2b digest (16) of all bytes before the tail.

The digest and the size of the file are its name among servers, a
`raftd.core.snapshot.SnapshotId`. The records' own checksums tell which part of a file is good that
was received only partly, and where a damaged one is damaged. Writing and reading hold one block in
memory, however long the file is.

Source: dissertation section 5.1, on what a snapshot of an in-memory state machine holds.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import accumulate, chain, islice
from operator import lt
from pathlib import Path
from typing import TypeAlias

import attrs
import msgpack

from raftd.core.membership import ConfigurationAt, decode_configuration
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Index, Term
from raftd.records import (
    RECORD_BODY_BYTES_MAX,
    RECORD_HEADER,
    RecordError,
    decode_record,
    encode_record,
)
from raftd.storage.files import FileSystem, OpenFile, Remedy, StorageFault
from raftd.storage.state import StateError, read_head, refuse_unknown_format
from raftd.storage.store import STORE_KEY_BYTES_MAX, Store

FORMAT_VERSION = 1
"""Of the snapshot files that this release writes and reads."""
BLOCK_BYTES = 256 * 1024
"""Where a block ends: long enough that a record costs nothing for each pair, short enough that
little is fetched again after a broken link and that a block is a small step for its reader."""
PAIR_BYTES_MAX = RECORD_BODY_BYTES_MAX - 4 * BLOCK_BYTES
"""Bytes of one key and its value: it fits in a record even after many short pairs in its block."""
DIGEST_BYTES = 16
NUMBER_MAX = (1 << 63) - 1
"""Index, term, revision and size: as far as a file can be long, too."""

HEAD = 16
BLOCK = 17
TAIL = 18
"""Kinds of records, beside those of `raftd.records` and `raftd.storage.wal`."""

_VERSION = struct.Struct("<I")
_TAIL_BODY = struct.Struct(f"<QQ{DIGEST_BYTES}s")
TAIL_BYTES = RECORD_HEADER.size + _TAIL_BODY.size
"""The whole record at the end of the file."""

Pairs: TypeAlias = list[tuple[bytes, bytes]]


class CorruptSnapshot(StorageFault):
    """A snapshot file is damaged. Nothing of it may be used."""

    def __init__(self, path: Path, offset: int, reason: str, last_lost_index: Index = 0) -> None:
        """Keep what is known.

        Args:
            last_lost_index: Set if the server starts from this snapshot: how far it reaches. One
                that is only being taken or received can be had again.
        """
        what = f"{path}: damaged at byte {offset}: {reason}"
        if last_lost_index:
            what += (
                ". The server starts from this snapshot: the effects of entries 1 to "
                f"{last_lost_index} are lost, and those of later ones with them, so it does not "
                "start"
            )
        super().__init__(what, Remedy.REPLACE if last_lost_index else Remedy.RESTART)
        self.path = path
        self.offset = offset
        """Bytes from the start of the file."""
        self.reason = reason


class UnknownSnapshotFormat(StorageFault):
    """The file is whole, and in a format that this release does not read."""


@attrs.frozen(kw_only=True)
class SnapshotHead:
    """What a snapshot file says before its pairs."""

    last_included_index: Index
    last_included_term: Term
    configuration_index: Index
    configuration: bytes
    """The data of the configuration entry there: the latest at or below `last_included_index`."""
    revision: int
    state_format: int
    """Layout of the pairs, `raftd.storage.state.STATE_FORMAT` of who wrote them."""
    cluster_id: str


def head_of(store: Store, cluster_id: str) -> SnapshotHead:
    """Return the head of a snapshot of what `store` holds now.

    The pairs that follow it have to come from the same read transaction. At least one
    configuration was applied: the log of every cluster begins with one.
    """
    state = read_head(store)
    head = SnapshotHead(
        last_included_index=state.applied_index,
        last_included_term=state.applied_term,
        configuration_index=state.configuration_index,
        configuration=state.configuration,
        revision=state.revision,
        state_format=state.format,
        cluster_id=cluster_id,
    )
    refusal = _refusal_of(head)
    assert not refusal, refusal
    return head


def snapshot_of(head: SnapshotHead, id: SnapshotId) -> Snapshot:
    """Return what the protocol wants to know of the snapshot `id` with this head."""
    assert _is_of(id, head)
    entry = decode_configuration(head.configuration)
    return Snapshot(id, ConfigurationAt(head.configuration_index, entry))


class SnapshotWriter:
    """Writes one snapshot file from its beginning. Never syncs: that is left to the caller."""

    def __init__(self, file: OpenFile, head: SnapshotHead) -> None:
        """Write the head into the empty `file`.

        Raises:
            StorageFault: the disk failed or is full, here and in every other method.
        """
        refusal = _refusal_of(head)
        assert not refusal, refusal
        self.written_bytes = 0
        """The length of the file so far; up to one block more is held back."""
        self._file = file
        self._head = head
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self._pack = msgpack.Packer().pack
        self._pending: list[bytes] = []
        """Keys and values of the block that is not full yet."""
        self._pending_bytes = 0
        self._pair_count = 0
        self._last_key = b""
        self._is_finished = False
        self._append(encode_record(HEAD, _encode_head(head)))

    def add(self, pairs: Pairs) -> None:
        """Write `pairs`, which go on after those before, in ascending order of their keys.

        How many are handed over at a time has no influence on the bytes of the file. A pair has at
        most `PAIR_BYTES_MAX` bytes, which the limits on keys, values and sessions see to.
        """
        assert not self._is_finished
        if not pairs:
            return
        # A million pairs come through here: everything that is done for each of them is done in C.
        flat = list(chain.from_iterable(pairs))
        keys = flat[::2]
        assert self._last_key < keys[0], "keys that do not ascend"
        assert all(map(lt, keys, islice(keys, 1, None))), "keys that do not ascend"
        self._last_key = keys[-1]
        self._pair_count += len(keys)
        ends = list(accumulate(map(len, flat)))[1::2]
        first, before = 0, 0
        while True:
            last = bisect_left(ends, before + BLOCK_BYTES - self._pending_bytes, first)
            if last == len(ends):
                break
            self._pending += flat[2 * first : 2 * (last + 1)]
            self._write_block()
            first, before = last + 1, ends[last]
        self._pending += flat[2 * first :]
        self._pending_bytes += ends[-1] - before

    def finish(self) -> SnapshotId:
        """Write what was held back and the tail; return the id. Nothing is durable by that."""
        assert not self._is_finished
        self._is_finished = True
        if self._pending:
            self._write_block()
        digest = self._digest.digest()
        tail = _TAIL_BODY.pack(self._pair_count, self.written_bytes, digest)
        self._append(encode_record(TAIL, tail))
        return _id(self._head, self.written_bytes, digest)

    def _write_block(self) -> None:
        self._append(encode_record(BLOCK, self._pack(self._pending)))
        self._pending = []
        self._pending_bytes = 0

    def _append(self, record: bytes) -> None:
        self._digest.update(record)
        self._file.write(record, self.written_bytes)
        self.written_bytes += len(record)


class SnapshotReader:
    """Reads one snapshot file as a stream, and believes no byte of it."""

    def __init__(
        self,
        files: FileSystem,
        path: Path,
        *,
        announced: SnapshotId | None = None,
        arrived: Callable[[int], None] = lambda end: None,
    ) -> None:
        """Read the head, and the tail of a file that is whole.

        Args:
            announced: what a file that is still being received is to become; its tail is read last.
            arrived: called with an offset before anything in front of it is read; returns once
                that is there.

        Raises:
            CorruptSnapshot: one of them is damaged, or the file is cut short or too long, or not
                what was announced; here and in `blocks`.
            UnknownSnapshotFormat: another release wrote it, in another format.
            StorageFault: the disk failed, here and in `blocks`.
        """
        self._files = files
        self._path = path
        self._arrived = arrived
        self._tail_is_read = announced is None
        self.pair_count = 0
        """As the tail says it, once it was read; proven once `blocks` has come to its end."""
        if announced is None:
            ends = _read_ends(files, path)
            self.head, self.id, self.pair_count = ends.head, ends.id, ends.pair_count
        else:
            self.head, self.id = self._read_head(announced), announced
        self.read_bytes = 0
        """How far `blocks` has come in the file: up to the end of the latest block, and to the end
        of the file once all is verified."""

    def blocks(self) -> Iterator[Pairs]:
        """Return the pairs in the order of their keys, a block at a time.

        Each block was verified by itself when it comes, and holds at least one pair. Only after
        the last one the digest is compared: before the iterator has ended without an exception,
        nothing that came out of it may be put into force.
        """
        tail_offset = self.id.size_bytes - TAIL_BYTES
        digest = blake2b(digest_size=DIGEST_BYTES)
        pair_count, last_key, offset = 0, b"", 0
        while offset < tail_offset:
            record, kind, body = self._read_record(offset, tail_offset)
            digest.update(record)
            if kind != (BLOCK if offset else HEAD):
                raise CorruptSnapshot(self._path, offset, f"a record of kind {kind} is not due")
            if kind == BLOCK:
                try:
                    pairs = _decode_block(body, last_key)
                except ValueError as error:
                    raise CorruptSnapshot(self._path, offset, str(error)) from error
                pair_count += len(pairs)
                last_key = pairs[-1][0]
                self.read_bytes = offset + len(record)
                yield pairs
            offset += len(record)
        if digest.hexdigest() != self.id.checksum:
            raise CorruptSnapshot(self._path, tail_offset, "the digest of the file does not match")
        if not self._tail_is_read:
            self.pair_count = self._read_tail()
        if pair_count != self.pair_count:
            raise CorruptSnapshot(
                self._path, tail_offset, f"{pair_count} pairs where {self.pair_count} were written"
            )
        self.read_bytes = self.id.size_bytes

    def _read_head(self, announced: SnapshotId) -> SnapshotHead:
        _, kind, body = self._read_record(0, announced.size_bytes - TAIL_BYTES)
        if kind != HEAD:
            raise CorruptSnapshot(self._path, 0, "it does not begin with the head of a snapshot")
        head = _decode_head(self._path, body)
        if not _is_of(announced, head):
            raise CorruptSnapshot(self._path, 0, "it is another snapshot than was announced")
        return head

    def _read_tail(self) -> int:
        """Return how many pairs the tail says; it has to be that of the announced snapshot."""
        tail_offset = self.id.size_bytes - TAIL_BYTES
        self._arrived(self.id.size_bytes)
        ends = _read_ends(self._files, self._path)
        if ends.id != self.id:
            raise CorruptSnapshot(
                self._path, tail_offset, "it is another snapshot than was announced"
            )
        return ends.pair_count

    def _read_record(self, offset: int, end: int) -> tuple[bytes, int, bytes]:
        return _read_record(self._files, self._path, offset, end, self._arrived)


def verify(
    files: FileSystem, path: Path, progress: Callable[[int], None] = lambda read_bytes: None
) -> SnapshotReader:
    """Read the whole file at `path` and return its reader; `head` and `id` are proven then.

    Args:
        progress: Told, after each block, how many bytes are verified. May wait, to be slow on
            purpose, and may raise, to give up.

    Raises:
        CorruptSnapshot: a byte is wrong, missing or too much.
        UnknownSnapshotFormat: another release wrote it, in another format.
        StorageFault: the disk failed.
    """
    reader = SnapshotReader(files, path)
    for _ in reader.blocks():
        progress(reader.read_bytes)
    progress(reader.read_bytes)
    return reader


def open_ends(files: FileSystem, path: Path) -> tuple[SnapshotHead, SnapshotId]:
    """Return what head and tail of the file at `path` say; what is between them is not looked at.

    Notices a file that is cut short or goes on after its tail. Two short reads.

    Raises:
        CorruptSnapshot: head, tail or size of the file are wrong.
        UnknownSnapshotFormat: another release wrote it, in another format.
        StorageFault: the disk failed.
    """
    ends = _read_ends(files, path)
    return ends.head, ends.id


def intact_records(files: FileSystem, path: Path, id: SnapshotId) -> Iterator[bytes]:
    """Return the records at the beginning of an unfinished copy of `id` that are whole and good.

    One at a time, all bytes of each, the tail among them if they are all there.

    Raises:
        StorageFault: the disk failed.
    """
    size_bytes = min(files.size(path), id.size_bytes)
    tail_offset = id.size_bytes - TAIL_BYTES
    head: SnapshotHead | None = None
    offset = 0
    while offset < size_bytes:
        end = tail_offset if offset < tail_offset else id.size_bytes
        try:
            record, kind, body = _read_record(files, path, offset, min(end, size_bytes))
            if head is None:
                head = _decode_head(path, body) if kind == HEAD else None
                fits = head is not None and _is_of(id, head)
            elif offset < tail_offset:
                fits = kind == BLOCK
            else:
                fits = kind == TAIL and _decode_tail(path, head, id.size_bytes, body).id == id
        except (CorruptSnapshot, UnknownSnapshotFormat):
            return
        if not fits:
            return
        yield record
        offset += len(record)


# --- what the records hold ---------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Ends:
    head: SnapshotHead
    id: SnapshotId
    pair_count: int


def _read_ends(files: FileSystem, path: Path) -> _Ends:
    size_bytes = files.size(path)
    tail_offset = size_bytes - TAIL_BYTES
    if tail_offset <= 0:
        raise CorruptSnapshot(path, size_bytes, "the file is cut short")
    _, kind, body = _read_record(files, path, 0, tail_offset)
    if kind != HEAD:
        raise CorruptSnapshot(path, 0, "it does not begin with the head of a snapshot")
    head = _decode_head(path, body)
    _, kind, body = _read_record(files, path, tail_offset, size_bytes)
    if kind != TAIL:
        raise CorruptSnapshot(path, tail_offset, "it does not end with the tail of a snapshot")
    return _decode_tail(path, head, size_bytes, body)


def _read_record(
    files: FileSystem,
    path: Path,
    offset: int,
    end: int,
    arrived: Callable[[int], None] = lambda end: None,
) -> tuple[bytes, int, bytes]:
    """Return all bytes, the kind and the body of the record at `offset`, which ends by `end`."""
    arrived(min(offset + RECORD_HEADER.size, end))
    header = files.read_at(path, offset, min(RECORD_HEADER.size, end - offset))
    if len(header) < RECORD_HEADER.size:
        raise CorruptSnapshot(path, offset, "the header of a record is cut short")
    length = RECORD_HEADER.unpack(header)[0]
    # Before so much is read: a damaged length may be anything.
    if length > min(RECORD_BODY_BYTES_MAX, end - offset - RECORD_HEADER.size):
        raise CorruptSnapshot(path, offset, f"no record of {length} bytes can be here")
    arrived(offset + RECORD_HEADER.size + length)
    record = files.read_at(path, offset, RECORD_HEADER.size + length)
    try:
        kind, body, record_end = decode_record(record, 0)
    except RecordError as error:
        raise CorruptSnapshot(path, offset, str(error)) from error
    if record_end != len(record):
        raise CorruptSnapshot(path, offset, "it changed while it was read")
    return record, kind, body


def _is_of(id: SnapshotId, head: SnapshotHead) -> bool:
    return (id.last_included_index, id.last_included_term) == (
        head.last_included_index,
        head.last_included_term,
    )


def _encode_head(head: SnapshotHead) -> bytes:
    fields: bytes = msgpack.packb(attrs.astuple(head))
    return _VERSION.pack(FORMAT_VERSION) + fields


def _decode_head(path: Path, body: bytes) -> SnapshotHead:
    version = _VERSION.unpack_from(body)[0] if len(body) >= _VERSION.size else 0
    if version > FORMAT_VERSION:
        raise UnknownSnapshotFormat(
            f"{path}: written in format {version} of snapshots; this release reads format "
            f"{FORMAT_VERSION}. Start the release that wrote it",
            Remedy.NAMED,
        )
    try:
        if version != FORMAT_VERSION:
            raise ValueError(f"there is no format {version} of snapshots")
        names = [field.name for field in attrs.fields(SnapshotHead)]
        values = msgpack.unpackb(body[_VERSION.size :])
        if type(values) is not list:
            raise ValueError("the fields of the head are no list")
        head = SnapshotHead(**dict(zip(names, values, strict=True)))
        refusal = _refusal_of(head)
        if refusal:
            raise ValueError(refusal)
        if body != _encode_head(head):
            raise ValueError("the head is not as it would be written")
    except (ValueError, TypeError) as error:
        raise CorruptSnapshot(path, 0, str(error)) from error
    try:
        refuse_unknown_format(head.state_format)
    except StateError as error:
        raise UnknownSnapshotFormat(f"{path}: {error}", Remedy.NAMED) from error
    return head


def _refusal_of(head: SnapshotHead) -> str:
    """Return why there is no snapshot with this head, or an empty text if there may be one."""
    numbers = {
        "last_included_index": (head.last_included_index, 1),
        "last_included_term": (head.last_included_term, 1),
        "configuration_index": (head.configuration_index, 1),
        "revision": (head.revision, 0),
        "state_format": (head.state_format, 1),
    }
    for name, (number, least) in numbers.items():
        if type(number) is not int or not least <= number <= NUMBER_MAX:
            return f"{name} is {number!r}"
    if head.configuration_index > head.last_included_index:
        return f"the configuration of index {head.configuration_index} is a later one"
    if type(head.cluster_id) is not str or not head.cluster_id:
        return f"the cluster id is {head.cluster_id!r}"
    if type(head.configuration) is not bytes:
        return "the configuration is not bytes"
    try:
        decode_configuration(head.configuration)
    except ValueError as error:
        return str(error)
    return ""


def _decode_block(body: bytes, last_key: bytes) -> Pairs:
    """Return the pairs of a block that follows one that ends with `last_key`.

    Raises:
        ValueError: no writer makes such a block.
    """
    flat = msgpack.unpackb(body)
    if type(flat) is not list or not flat or len(flat) % 2 or set(map(type, flat)) != {bytes}:
        raise ValueError("the block is not a list of keys and values")
    keys = flat[::2]
    if not last_key < keys[0] or not all(map(lt, keys, islice(keys, 1, None))):
        raise ValueError("the keys do not ascend")
    if max(map(len, keys)) > STORE_KEY_BYTES_MAX:
        raise ValueError(f"a key has more than {STORE_KEY_BYTES_MAX} bytes")
    following = iter(flat)
    return list(zip(following, following, strict=True))


def _decode_tail(path: Path, head: SnapshotHead, size_bytes: int, body: bytes) -> _Ends:
    tail_offset = size_bytes - TAIL_BYTES
    if len(body) != _TAIL_BODY.size:
        raise CorruptSnapshot(path, tail_offset, "the tail has a wrong length")
    pair_count, bytes_before, digest = _TAIL_BODY.unpack(body)
    if bytes_before != tail_offset:
        raise CorruptSnapshot(
            path,
            tail_offset,
            f"the file has {size_bytes} bytes, {bytes_before + TAIL_BYTES} were written",
        )
    return _Ends(head=head, id=_id(head, size_bytes, digest), pair_count=pair_count)


def _id(head: SnapshotHead, size_bytes: int, digest: bytes) -> SnapshotId:
    return SnapshotId(
        last_included_index=head.last_included_index,
        last_included_term=head.last_included_term,
        size_bytes=size_bytes,
        checksum=digest.hex(),
    )
