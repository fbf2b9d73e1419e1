"""Checksummed records: the bytes of log entries, the same on the wire and in the log file.

| offset | bytes | meaning |
|---|---|---|
| 0 | 4 | length of the body, little endian |
| 4 | 4 | CRC-32 of kind and body |
| 8 | 1 | kind of the record |
| 9 | length | body |

The body of an `ENTRY` record is index (8), term (8), entry kind (1), data. Other kinds belong to
the log file alone and are described there.
"""

from __future__ import annotations

import struct
import zlib

from raftd.core.types import Entry, EntryKind

RECORD_HEADER = struct.Struct("<IIB")
_ENTRY_BODY = struct.Struct("<QQB")
ENTRY = 1
"""Kind of the records that hold one log entry."""

RECORD_BODY_BYTES_MAX = 4 * 1024 * 1024
"""A value of 1 MiB, its key and its envelope, with room; a longer length is damage or an attack."""


_ENTRY_CHECKSUM = zlib.crc32(bytes((ENTRY,)))
"""Where the checksum of an `ENTRY` record goes on."""
_ENTRY_KINDS = {int(kind): kind for kind in EntryKind}


class RecordError(ValueError):
    """Bytes that are no record; the message says why."""


def encode_record(kind: int, body: bytes) -> bytes:
    """Return a record of `kind` around `body`."""
    assert len(body) <= RECORD_BODY_BYTES_MAX
    checksum = zlib.crc32(body, zlib.crc32(bytes((kind,))))
    return RECORD_HEADER.pack(len(body), checksum, kind) + body


def decode_record(buffer: bytes | memoryview, offset: int) -> tuple[int, bytes, int]:
    """Return kind, body and end of the record at `offset`.

    Raises:
        RecordError: the record is cut short, longer than any record, or fails its checksum.
    """
    start = offset + RECORD_HEADER.size
    if start > len(buffer):
        raise RecordError("the header is cut short")
    length, checksum, kind = RECORD_HEADER.unpack_from(buffer, offset)
    if length > RECORD_BODY_BYTES_MAX:
        raise RecordError(f"the length {length} is more than {RECORD_BODY_BYTES_MAX}")
    if start + length > len(buffer):
        raise RecordError("the body is cut short")
    body = bytes(buffer[start : start + length])
    if zlib.crc32(body, zlib.crc32(bytes((kind,)))) != checksum:
        raise RecordError("the checksum does not match")
    return kind, body, start + length


def encode_entry(entry: Entry) -> bytes:
    """Return the record of `entry`; made once, then kept in `entry.encoded`."""
    encoded = entry.encoded
    if encoded is None:
        data = entry.data
        head = _ENTRY_BODY.pack(entry.index, entry.term, entry.kind)
        length = len(head) + len(data)
        assert length <= RECORD_BODY_BYTES_MAX
        checksum = zlib.crc32(data, zlib.crc32(head, _ENTRY_CHECKSUM))
        encoded = RECORD_HEADER.pack(length, checksum, ENTRY) + head + data
        entry.encoded = encoded
    return encoded


def encode_entries(entries: tuple[Entry, ...]) -> bytes:
    """Return the records of `entries`, one after the other."""
    return b"".join([encode_entry(entry) for entry in entries])


def decode_entries(blob: bytes) -> tuple[Entry, ...]:
    """Return the entries of a blob made by `encode_entries`, each keeping its bytes.

    Raises:
        RecordError: damaged, cut short, or something else than entries.
    """
    entries = []
    offset, blob_end = 0, len(blob)
    header, head, kinds, crc32 = RECORD_HEADER, _ENTRY_BODY, _ENTRY_KINDS, zlib.crc32
    data_offset = header.size + head.size
    while offset < blob_end:
        if offset + header.size > blob_end:
            raise RecordError("the header is cut short")
        length, checksum, record_kind = header.unpack_from(blob, offset)
        body_offset = offset + header.size
        end = body_offset + length
        if record_kind != ENTRY:
            raise RecordError(f"a record of kind {record_kind} among entries")
        if length > RECORD_BODY_BYTES_MAX:
            raise RecordError(f"the length {length} is more than {RECORD_BODY_BYTES_MAX}")
        if length < head.size:
            raise RecordError("the entry is cut short")
        if end > blob_end:
            raise RecordError("the body is cut short")
        encoded = blob[offset:end]
        data = encoded[data_offset:]
        head_bytes = encoded[header.size : data_offset]
        if crc32(data, crc32(head_bytes, _ENTRY_CHECKSUM)) != checksum:
            raise RecordError("the checksum does not match")
        index, term, number = head.unpack(head_bytes)
        kind = kinds.get(number)
        if kind is None:
            raise RecordError(f"unknown kind of entry {number}")
        entries.append(Entry(index, term, kind, data, encoded))
        offset = end
    return tuple(entries)
