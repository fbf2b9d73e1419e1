"""The encoding of commands and of operation records."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import (
    INTEGER_MAX,
    INTEGER_MIN,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    AbortOperation,
    BeginOperation,
    Command,
    CompareAndSet,
    Delete,
    DeleteMany,
    EndOperation,
    Increment,
    OpenSession,
    Operation,
    PhaseAt,
    Plan,
    Put,
    PutMany,
    decode_command,
    encode_command,
    encode_put,
    structure_operation,
    unstructure,
)
from raftd.records import RECORD_BODY_BYTES_MAX

texts = st.text(max_size=20)
blobs = st.binary(max_size=20)
numbers = st.integers(0, (1 << 64) - 1)
servers = st.tuples(texts, texts).map("/".join)
plans = st.builds(
    Plan,
    changes=st.lists(
        st.tuples(st.sampled_from(["voter", "learner", "remove"]), servers), max_size=3
    ).map(tuple),
    addresses=st.dictionaries(servers, texts, max_size=3),
    joint=st.booleans(),
    configuration_index=numbers,
    voters_before=st.lists(servers, max_size=3).map(tuple),
    learners_before=st.lists(servers, max_size=3).map(tuple),
    voters_after=st.lists(servers, max_size=3).map(tuple),
    learners_after=st.lists(servers, max_size=3).map(tuple),
)
bodies = st.one_of(
    st.builds(OpenSession),
    st.builds(Put, texts, blobs, st.booleans(), st.one_of(st.none(), numbers)),
    st.builds(Delete, texts),
    st.builds(CompareAndSet, texts, blobs, blobs),
    st.builds(Increment, texts, st.integers(INTEGER_MIN, INTEGER_MAX)),
    st.builds(PutMany, st.lists(st.tuples(texts, blobs).map(list), max_size=4)),
    st.builds(DeleteMany, st.lists(texts, max_size=4)),
    st.builds(BeginOperation, kind=texts, author=texts, reason=texts, time_ms=numbers, plan=plans),
    st.builds(AbortOperation, operation=texts, author=texts, reason=texts, time_ms=numbers),
    st.builds(EndOperation, operation=texts, outcome=texts, reason=texts, time_ms=numbers),
)
commands = st.builds(Command, bodies, texts, numbers, numbers)
operations = st.builds(
    Operation,
    id=texts,
    kind=texts,
    author=texts,
    reason=texts,
    plan=plans,
    phase=texts,
    result=texts,
    explanation=texts,
    abort_requested_by=texts,
    abort_reason=texts,
    phases=st.lists(
        st.builds(PhaseAt, phase=texts, index=numbers, time_ms=numbers), max_size=3
    ).map(tuple),
    session=texts,
    serial=numbers,
    configuration_index=numbers,
)


@given(command=commands)
def test_a_command_survives_its_encoding(command: Command) -> None:
    assert decode_command(encode_command(command)) == command


@given(operation=operations)
def test_a_record_survives_its_encoding(operation: Operation) -> None:
    packed = msgpack.packb(unstructure(operation))
    assert structure_operation(msgpack.unpackb(packed)) == operation


@given(command=commands, cut=st.integers(1, 30))
def test_a_command_that_is_cut_short_is_refused(command: Command, cut: int) -> None:
    data = encode_command(command)
    with pytest.raises(ValueError, match="not a command of this version"):
        decode_command(data[:-cut] if cut < len(data) else b"")


@pytest.mark.parametrize(
    "fields",
    [
        [99, "s", 1, 1],
        [2, "s", 1, 1],
        [2, "s", 1, 1, "k", b"v", False, None, "more"],
        [1, "s", 1],
        [5, "s", 1, 1, "k"],
        [5, "s", 1, 1, "k", 1, 2],
        [6, "s", 1, 1],
        [7, "s", 1, 1, ["k"], ["l"]],
        [8, "s", 1, 1],
        [16, "s", 1, 1],
        [16, "s", 1, 1, {"kind": "add"}],
        [None, "s", 1, 1],
        [[], "s", 1, 1],
        [],
        7,
        None,
    ],
    ids=str,
)
def test_what_is_no_command_of_this_version_is_refused(fields: object) -> None:
    with pytest.raises(ValueError, match="not a command of this version"):
        decode_command(msgpack.packb(fields))


def test_the_largest_command_fits_a_record() -> None:
    value = b"v" * VALUE_BYTES_MAX
    body = CompareAndSet("k" * KEY_BYTES_MAX, value, value)
    data = encode_command(Command(body, "s" * 128, 1 << 63, 1 << 63))
    assert len(data) < RECORD_BODY_BYTES_MAX


@given(key=texts, value=blobs, if_absent=st.booleans())
def test_the_quick_way_to_encode_a_put_is_the_same(key: str, value: bytes, if_absent: bool) -> None:
    assert encode_put(key, value, if_absent=if_absent) == encode_command(
        Command(Put(key, value, if_absent))
    )


def test_text_that_is_no_utf8_never_becomes_a_command() -> None:
    """It would stop every server that applies it."""
    with pytest.raises(UnicodeEncodeError):
        encode_command(Command(Delete("\ud800")))
