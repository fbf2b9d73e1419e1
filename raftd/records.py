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
    if entry.encoded is None:
        body = _ENTRY_BODY.pack(entry.index, entry.term, entry.kind) + entry.data
        entry.encoded = encode_record(ENTRY, body)
    return entry.encoded


def decode_entry_body(body: bytes) -> Entry:
    """Return the entry in the body of an `ENTRY` record.

    Raises:
        RecordError: too short, or of an unknown kind.
    """
    if len(body) < _ENTRY_BODY.size:
        raise RecordError("the entry is cut short")
    index, term, kind = _ENTRY_BODY.unpack_from(body)
    try:
        return Entry(index, term, EntryKind(kind), body[_ENTRY_BODY.size :])
    except ValueError:
        raise RecordError(f"unknown kind of entry {kind}") from None


def encode_entries(entries: tuple[Entry, ...]) -> bytes:
    """Return the records of `entries`, one after the other."""
    return b"".join([encode_entry(entry) for entry in entries])


def decode_entries(blob: bytes) -> tuple[Entry, ...]:
    """Return the entries of a blob made by `encode_entries`, each keeping its bytes.

    Raises:
        RecordError: damaged, cut short, or something else than entries.
    """
    entries = []
    offset = 0
    while offset < len(blob):
        kind, body, end = decode_record(blob, offset)
        if kind != ENTRY:
            raise RecordError(f"a record of kind {kind} among entries")
        entry = decode_entry_body(body)
        entry.encoded = blob[offset:end]
        entries.append(entry)
        offset = end
    return tuple(entries)
