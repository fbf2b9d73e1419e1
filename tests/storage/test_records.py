"""Records: the same bytes on the wire and in the log, and no damage that goes unnoticed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.core.types import Entry, EntryKind
from raftd.records import (
    ENTRY,
    RECORD_BODY_BYTES_MAX,
    RECORD_HEADER,
    RecordError,
    decode_entries,
    decode_record,
    encode_entries,
    encode_entry,
    encode_record,
)

ENTRIES = st.builds(
    Entry,
    st.integers(1, 2**64 - 1),
    st.integers(1, 2**64 - 1),
    st.sampled_from(EntryKind),
    st.binary(max_size=100),
)


@given(kind=st.integers(0, 255), body=st.binary(max_size=300), before=st.binary(max_size=9))
def test_a_record_comes_back_from_wherever_it_stands(kind: int, body: bytes, before: bytes) -> None:
    record = encode_record(kind, body)
    end = len(before) + len(record)
    assert decode_record(before + record + b"after", len(before)) == (kind, body, end)
    assert decode_record(memoryview(before + record), len(before)) == (kind, body, end)


@given(entries=st.lists(ENTRIES, max_size=5).map(tuple))
def test_entries_come_back_and_keep_their_bytes(entries: tuple[Entry, ...]) -> None:
    blob = encode_entries(entries)
    decoded = decode_entries(blob)
    assert decoded == entries
    assert [entry.encoded for entry in decoded] == [entry.encoded for entry in entries]
    assert b"".join(entry.encoded or b"" for entry in decoded) == blob


def test_an_entry_is_encoded_once() -> None:
    entry = Entry(1, 1, EntryKind.COMMAND, b"data")
    assert encode_entry(entry) is encode_entry(entry)


def test_the_layout_is_the_one_that_other_releases_read() -> None:
    encoded = encode_entry(Entry(2, 1, EntryKind.COMMAND, b"ab"))
    assert encoded.hex() == "13000000" + encoded[4:8].hex() + (
        "01" + "0200000000000000" + "0100000000000000" + "01" + "6162"
    )
    assert encode_record(ENTRY, b"").hex() == "00000000" + "1bdf05a5" + "01"


def test_every_flipped_bit_of_a_record_is_noticed() -> None:
    record = encode_entry(Entry(5, 3, EntryKind.COMMAND, bytes(20) + b"value"))
    for bit in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordError):
            decode_record(bytes(flipped) + bytes(300), 0)


def test_a_record_that_is_cut_short_anywhere_is_noticed() -> None:
    record = encode_record(ENTRY, b"value")
    for end in range(len(record)):
        with pytest.raises(RecordError, match="cut short"):
            decode_record(record[:end], 0)


def test_zeros_are_no_record() -> None:
    with pytest.raises(RecordError, match="checksum"):
        decode_record(bytes(100), 0)


def test_a_length_beyond_the_limit_is_refused_before_the_body_is_looked_at() -> None:
    header = RECORD_HEADER.pack(RECORD_BODY_BYTES_MAX + 1, 0, ENTRY)
    with pytest.raises(RecordError, match="is more than"):
        decode_record(header, 0)


def test_a_body_of_the_greatest_length_is_a_record() -> None:
    record = encode_record(ENTRY, bytes(RECORD_BODY_BYTES_MAX))
    assert decode_record(record, 0)[2] == len(record)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "cut short"),
        (struct.pack("<QQ", 1, 1), "cut short"),
        (struct.pack("<QQB", 1, 1, 9), "unknown kind of entry 9"),
    ],
)
def test_a_body_that_is_no_entry_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        decode_entries(encode_record(ENTRY, body))


def test_another_record_among_entries_is_refused() -> None:
    blob = encode_entries((Entry(1, 1, EntryKind.NOOP, b""),)) + encode_record(7, b"")
    with pytest.raises(RecordError, match="of kind 7"):
        decode_entries(blob)


@given(blob=st.binary(max_size=200))
def test_any_bytes_are_entries_or_refused(blob: bytes) -> None:
    try:
        entries = decode_entries(blob)
    except RecordError:
        return
    assert encode_entries(entries) == blob
