"""What is decoded by hand is decoded as the converter would do it."""

from __future__ import annotations

from typing import Any

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd import codec, protocol
from raftd.codec import (
    OPENING_MAGIC,
    WireError,
    decode_opening,
    decode_reply,
    decode_request,
    encode_opening,
    encode_reply,
    encode_request,
)

REQUESTS = [
    protocol.GetRequest,
    protocol.PutRequest,
    protocol.DeleteRequest,
    protocol.CompareAndSetRequest,
    protocol.OpenSessionRequest,
]
OPENINGS = [protocol.Hello, protocol.Welcome]
REPLIES = [protocol.WriteReply, protocol.GetReply]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.lists(st.integers(0, 3), max_size=2),
)
FITTING = {
    "str": st.text(max_size=8),
    "ServerId": st.text(max_size=8),
    "bytes": st.binary(max_size=8),
    "int": st.integers(0, 2**63 - 1),
    "bool": st.booleans(),
    "int | None": st.none() | st.integers(0, 2**63 - 1),
}


def fitting(annotation: object) -> st.SearchStrategy[object]:
    """Return values for an annotation, which attrs may have resolved or not."""
    return FITTING[str(getattr(annotation, "__name__", annotation))]


def outcome(decode: Any, payload: bytes) -> object:
    try:
        return decode(payload)
    except WireError:
        return "refused"


@pytest.mark.parametrize("kind", [*REQUESTS, *REPLIES], ids=lambda kind: kind.__name__)
@given(chosen=st.data())
def test_a_hand_made_decoder_takes_and_refuses_what_the_converter_does(
    kind: type, chosen: st.DataObject
) -> None:
    decode = decode_request if kind in REQUESTS else decode_reply
    fields = {}
    for field in attrs.fields(kind):
        odds = chosen.draw(st.integers(0, 9))
        if odds == 0:
            continue
        fields[field.name] = chosen.draw(VALUES if odds == 1 else fitting(field.type))
    if chosen.draw(st.booleans()):
        fields["of_a_newer_release"] = 1
    payload = msgpack.packb([7, codec._TAGS[kind], fields])
    by_hand = outcome(decode, payload)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_QUICK_DECODERS", {})
        assert by_hand == outcome(decode, payload)


@pytest.mark.parametrize("kind", [*REQUESTS, *REPLIES], ids=lambda kind: kind.__name__)
@given(chosen=st.data())
def test_what_is_encoded_by_hand_are_the_bytes_of_the_converter(
    kind: type, chosen: st.DataObject
) -> None:
    value = kind(**{field.name: chosen.draw(fitting(field.type)) for field in attrs.fields(kind)})
    encode: Any = encode_request if kind in REQUESTS else encode_reply
    by_hand = encode(7, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_QUICK_FIELDS", {})
        assert by_hand == encode(7, value)


@pytest.mark.parametrize("kind", OPENINGS, ids=lambda kind: kind.__name__)
@given(chosen=st.data())
def test_a_greeting_is_taken_apart_and_made_as_the_converter_does(
    kind: type, chosen: st.DataObject
) -> None:
    fields = {}
    for field in attrs.fields(kind):
        odds = chosen.draw(st.integers(0, 9))
        if odds:
            fields[field.name] = chosen.draw(VALUES if odds == 1 else fitting(field.type))
    payload = OPENING_MAGIC + msgpack.packb([codec._TAGS[kind], fields])
    value = kind(**{field.name: chosen.draw(fitting(field.type)) for field in attrs.fields(kind)})
    taken, made = outcome(decode_opening, payload), encode_opening(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_QUICK_DECODERS", {})
        patch.setattr(codec, "_QUICK_FIELDS", {})
        assert taken == outcome(decode_opening, payload)
        assert made == encode_opening(value)
