"""The wire: frames, and what stands in them.

A connection is a stream of frames, a frame is a length (u32, little endian) and a payload:

| payload | who sends it | bytes |
|---|---|---|
| opening | both sides, once, first | `OPENING_MAGIC`, then msgpack `[tag, {field: value}]` |
| message | servers | msgpack `[tag, field, ...]`; entries are one blob of `raftd.records` |
| request, reply | clients | msgpack `[number, tag, {field: value}]` |

Types are strict: `"12"` is not 12, 1 is not true, bytes are no text, and every integer of the
protocol is a count, an index, a term or a revision, hence between 0 and `INTEGER_MAX`. So that a
cluster can be upgraded one server at a time, unknown fields are ignored, and missing ones get
their defaults if they have one.

The bytes come from strangers: every decoder raises `WireError` and nothing else.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, assert_never, cast, get_args, get_origin

import attrs
import msgpack

from raftd import protocol
from raftd.core import messages
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    StateMessage,
)
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry, ServerId
from raftd.protocol import FRAME_BYTES_MAX, Hello, Refusal, Reply, Request, Welcome
from raftd.records import decode_entries, encode_entries

if TYPE_CHECKING:
    from cattrs import Converter

Opening: TypeAlias = Hello | Welcome | Refusal

OPENING_MAGIC = b"raftd\x00"
"""Starts every opening: a stranger's bytes are told apart before anything is made of them."""
OPENING_BYTES_MAX = 4096
"""Bytes of an opening. A stranger cannot make us hold more than this before it is admitted."""
INTEGER_MAX = 2**63 - 1
"""The largest integer of the protocol; it leaves room to add to one and to store it signed."""

_LENGTH = struct.Struct("<I")
_LARGE_PAYLOAD_BYTES = 64 * 1024
"""From here on a second copy costs more than to avoid it."""
_TEXT_SHOWN_BYTES = 100
"""Of a line of text instead of a frame: a server of something else says so in its first words."""
_RECEIVED_SHOWN_CHARACTERS = 40
"""How much of an ill-typed value an error message repeats."""


class WireError(ValueError):
    """Bytes that are not what the protocol asks for; the message says why."""


# --- frames ---------------------------------------------------------------------------------


def encode_frame(payload: bytes) -> bytes:
    """Return `payload`, at most `FRAME_BYTES_MAX` bytes, as a frame."""
    assert len(payload) <= FRAME_BYTES_MAX
    return _LENGTH.pack(len(payload)) + payload


class FrameDecoder:
    """Cuts a stream of bytes into payloads.

    Holds at most one frame and what one call of `feed` brought. After a `WireError` the stream
    has no meaning any more: close the connection.
    """

    def __init__(self, *, first_frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        """Start before the first frame, which may be held to a shorter length than the others."""
        self._buffer = bytearray()
        self._frame_end = 0
        """Of the frame that has begun, in the buffer; 0 while its length is not there."""
        self._frame_bytes_max = first_frame_bytes_max

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the frame that has begun and is not complete."""
        return len(self._buffer)

    @property
    def missing_bytes(self) -> int:
        """Bytes that a frame that has begun still lacks; 0 where nobody knows yet."""
        return max(0, self._frame_end - len(self._buffer))

    def feed(self, received: bytes | bytearray) -> list[bytes]:
        """Return the payloads that `received` completes, in order.

        Raises:
            WireError: a frame is announced that is longer than allowed. Nothing of its body has
                been kept, and payloads before it in `received` are lost with the connection.
        """
        source: bytes | bytearray = received
        if self._buffer:
            self._buffer += received
            source = self._buffer
        payloads: list[bytes] = []
        start = self._frame_end = 0
        available = len(source)
        while available - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(source, start)
            if length > self._frame_bytes_max:
                line = bytes(source[start : start + _TEXT_SHOWN_BYTES]).partition(b"\n")[0].strip()
                if line.isascii() and (text := line.decode()).isprintable() and text:
                    raise WireError(f"it says {text!r}")
                raise WireError(
                    f"a frame of {length} bytes is announced, more than {self._frame_bytes_max}"
                )
            end = start + _LENGTH.size + length
            if end > available:
                self._frame_end = end - start
                break
            if length < _LARGE_PAYLOAD_BYTES:
                payloads.append(bytes(source[start + _LENGTH.size : end]))
            else:
                with memoryview(source)[start + _LENGTH.size : end] as payload:
                    payloads.append(bytes(payload))
            self._frame_bytes_max = FRAME_BYTES_MAX
            start = end
        if source is self._buffer:
            del self._buffer[:start]
        elif start < available:
            self._buffer += memoryview(source)[start:]
        return payloads


# --- what may go wrong ----------------------------------------------------------------------


def _refuse(expected: str, value: object) -> NoReturn:
    # Only the kind of a container is shown: its contents may be of any depth and size.
    if isinstance(value, str | bytes):
        shown = repr(value[:_RECEIVED_SHOWN_CHARACTERS])
    elif isinstance(value, bool | int | float | None):
        shown = repr(value)
    else:
        shown = type(value).__name__
    raise WireError(f"expected {expected}, not {shown}")


def _integer(value: object, _: object = int) -> int:
    if type(value) is not int or not 0 <= value <= INTEGER_MAX:
        _refuse(f"an integer of 0 to {INTEGER_MAX}", value)
    return value


def _boolean(value: object, _: object = bool) -> bool:
    if type(value) is not bool:
        _refuse("true or false", value)
    return value


def _text(value: object, _: object = str) -> str:
    if type(value) is not str:
        _refuse("text", value)
    return value


def _bytes(value: object, _: object = bytes) -> bytes:
    if type(value) is not bytes:
        _refuse("bytes", value)
    return value


def _number(value: object, _: object = float) -> float:
    # An integer is a number: `0` is how the default of a float field is packed.
    if type(value) is not float and type(value) is not int:
        _refuse("a number", value)
    number = float(value)
    if not math.isfinite(number):
        _refuse("a finite number", value)
    return number


def _unpack(payload: bytes) -> Any:
    """Return the one msgpack value in `payload`; arrays are lists, keys of maps are text."""
    return msgpack.unpackb(payload, use_list=True, raw=False, strict_map_key=True)


def _guarded(what: str, decode: Callable[[bytes], Any], payload: bytes) -> Any:
    """Return `decode(payload)`; whatever goes wrong in it becomes a `WireError`.

    msgpack, cattrs and the records raise some fifteen types between them, and which of them a
    given garbage provokes is nobody's promise. Nothing but decoding happens in here.
    """
    try:
        return decode(payload)
    except WireError as error:
        raise WireError(f"{what}: {error}") from None
    except KeyError as error:
        raise WireError(f"{what}: the field {error} is missing") from None
    except Exception as error:
        raise WireError(f"{what}: {type(error).__name__}: {error}") from error


# --- openings, requests and replies: maps of fields, through cattrs ---------------------------

_OPENINGS: dict[str, type] = {"hello": Hello, "welcome": Welcome, "refusal": Refusal}
_REQUESTS: dict[str, type] = {
    "status": protocol.StatusRequest,
    "get": protocol.GetRequest,
    "list": protocol.ListRequest,
    "open-session": protocol.OpenSessionRequest,
    "put": protocol.PutRequest,
    "delete": protocol.DeleteRequest,
    "compare-and-set": protocol.CompareAndSetRequest,
    "change": protocol.ChangeRequest,
    "operations": protocol.OperationsRequest,
    "abort": protocol.AbortRequest,
    "transfer": protocol.TransferRequest,
    "bootstrap": protocol.BootstrapRequest,
    "join": protocol.JoinRequest,
    "read-index": protocol.ReadIndexRequest,
    "backup": protocol.BackupRequest,
    "backup-chunk": protocol.BackupChunkRequest,
    "restore": protocol.RestoreRequest,
    "history": protocol.HistoryRequest,
    "begin-rolling": protocol.BeginRollingRequest,
    "update-rolling": protocol.UpdateRollingRequest,
    "checkup": protocol.CheckupRequest,
    "activity": protocol.ActivityRequest,
    "log-level": protocol.LogLevelRequest,
    "transaction": protocol.TransactionRequest,
    "watch": protocol.WatchRequest,
}
_REPLIES: dict[str, type] = {
    "status": protocol.StatusReply,
    "get": protocol.GetReply,
    "list": protocol.ListReply,
    "write": protocol.WriteReply,
    "change": protocol.ChangeReply,
    "operations": protocol.OperationsReply,
    "abort": protocol.AbortReply,
    "transfer": protocol.TransferReply,
    "bootstrap": protocol.BootstrapReply,
    "read-index": protocol.ReadIndexReply,
    "backup": protocol.BackupReply,
    "backup-chunk": protocol.BackupChunkReply,
    "restore": protocol.RestoreReply,
    "history": protocol.HistoryReply,
    "rolling": protocol.RollingReply,
    "checkup": protocol.CheckupReply,
    "activity": protocol.ActivityReply,
    "log-level": protocol.LogLevelReply,
    "transaction": protocol.TransactionReply,
    "watch": protocol.WatchReply,
    "done": protocol.DoneReply,
    "error": protocol.ErrorReply,
}
_TAGS: dict[type, str] = {
    kind: tag for table in (_OPENINGS, _REQUESTS, _REPLIES) for tag, kind in table.items()
}


@functools.cache
def _converter() -> Converter:
    """Return the strict converter, made at the first use: cattrs is slow to import."""
    from cattrs.preconf.msgpack import make_converter

    converter = make_converter(detailed_validation=False)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bytes, _bytes)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_factory(
        lambda kind: cast("Any", get_origin(kind)) is tuple,
        functools.partial(_tuple_hook, converter),
    )
    converter.register_structure_hook_factory(
        lambda kind: cast("Any", get_origin(kind)) is dict, functools.partial(_dict_hook, converter)
    )
    return converter


def _tuple_hook(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """Return the hook for a tuple type; on the wire it is an array and nothing else."""
    arguments = get_args(kind)
    hooks = [
        (converter.get_structure_hook(argument), argument)
        for argument in arguments
        if argument is not Ellipsis
    ]

    def of_any_length(value: object, _: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            _refuse("an array", value)
        hook, argument = hooks[0]
        return tuple([hook(element, argument) for element in value])

    def of_one_length(value: object, _: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(hooks):
            _refuse(f"an array of {len(hooks)}", value)
        return tuple(
            [
                hook(element, argument)
                for element, (hook, argument) in zip(value, hooks, strict=True)
            ]
        )

    return of_any_length if Ellipsis in arguments else of_one_length


def _dict_hook(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """Return the hook for a mapping type; on the wire it is a map and nothing else."""
    key_kind, value_kind = get_args(kind)
    key_hook = converter.get_structure_hook(key_kind)
    value_hook = converter.get_structure_hook(value_kind)

    def structure(value: object, _: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            _refuse("a map", value)
        return {
            key_hook(key, key_kind): value_hook(item, value_kind) for key, item in value.items()
        }

    return structure


def _structure(table: dict[str, type], tag: object, fields: object) -> Any:
    kind = table.get(_text(tag))
    if kind is None:
        _refuse(f"one of {', '.join(table)}", tag)
    if type(fields) is not dict:
        _refuse(f"the fields of {tag}", fields)
    quick = _QUICK_DECODERS.get(kind)
    return _converter().structure(fields, kind) if quick is None else quick(fields)


# What clients ask and hear all the time is taken apart and put together by hand: whatever the
# converter learns to do, a write never pays for it.


def _decode_get(fields: dict[str, Any]) -> protocol.GetRequest:
    return protocol.GetRequest(
        key=_text(fields["key"]),
        stale=_boolean(fields.get("stale", False)),
        through_follower=_boolean(fields.get("through_follower", False)),
    )


def _decode_put(fields: dict[str, Any]) -> protocol.PutRequest:
    if_revision = fields.get("if_revision")
    return protocol.PutRequest(
        session=_text(fields["session"]),
        serial=_integer(fields["serial"]),
        lowest_unacknowledged=_integer(fields["lowest_unacknowledged"]),
        key=_text(fields["key"]),
        value=_bytes(fields["value"]),
        if_absent=_boolean(fields.get("if_absent", False)),
        if_revision=None if if_revision is None else _integer(if_revision),
    )


def _decode_delete(fields: dict[str, Any]) -> protocol.DeleteRequest:
    return protocol.DeleteRequest(
        session=_text(fields["session"]),
        serial=_integer(fields["serial"]),
        lowest_unacknowledged=_integer(fields["lowest_unacknowledged"]),
        key=_text(fields["key"]),
    )


def _decode_compare_and_set(fields: dict[str, Any]) -> protocol.CompareAndSetRequest:
    return protocol.CompareAndSetRequest(
        session=_text(fields["session"]),
        serial=_integer(fields["serial"]),
        lowest_unacknowledged=_integer(fields["lowest_unacknowledged"]),
        key=_text(fields["key"]),
        expected=_bytes(fields["expected"]),
        value=_bytes(fields["value"]),
    )


def _decode_open_session(fields: dict[str, Any]) -> protocol.OpenSessionRequest:
    return protocol.OpenSessionRequest(session=_text(fields["session"]))


def _decode_write_reply(fields: dict[str, Any]) -> protocol.WriteReply:
    return protocol.WriteReply(
        applied=_boolean(fields["applied"]), revision=_integer(fields["revision"])
    )


def _decode_get_reply(fields: dict[str, Any]) -> protocol.GetReply:
    ttl_ms = fields.get("ttl_ms")
    return protocol.GetReply(
        found=_boolean(fields["found"]),
        value=_bytes(fields.get("value", b"")),
        create_revision=_integer(fields.get("create_revision", 0)),
        mod_revision=_integer(fields.get("mod_revision", 0)),
        version=_integer(fields.get("version", 0)),
        revision=_integer(fields.get("revision", 0)),
        ttl_ms=None if ttl_ms is None else _integer(ttl_ms),
    )


def _decode_hello(fields: dict[str, Any]) -> Hello:
    return Hello(
        role=_text(fields["role"]),
        cluster_id=_text(fields["cluster_id"]),
        source=_text(fields["source"]),
        dest=_text(fields["dest"]),
        version_min=_integer(fields.get("version_min", protocol.PROTOCOL_VERSION_MIN)),
        version_max=_integer(fields.get("version_max", protocol.PROTOCOL_VERSION_MAX)),
    )


def _decode_welcome(fields: dict[str, Any]) -> Welcome:
    return Welcome(
        server=_text(fields["server"]),
        cluster_id=_text(fields["cluster_id"]),
        version=_integer(fields["version"]),
        cluster_name=_text(fields.get("cluster_name", "")),
        redis=_text(fields.get("redis", "")),
    )


_QUICK_DECODERS: dict[type, Callable[[dict[str, Any]], Request | Reply | Opening]] = {
    Hello: _decode_hello,
    Welcome: _decode_welcome,
    protocol.GetRequest: _decode_get,
    protocol.PutRequest: _decode_put,
    protocol.DeleteRequest: _decode_delete,
    protocol.CompareAndSetRequest: _decode_compare_and_set,
    protocol.OpenSessionRequest: _decode_open_session,
    protocol.WriteReply: _decode_write_reply,
    protocol.GetReply: _decode_get_reply,
}
_QUICK_FIELDS: dict[type, tuple[str, ...]] = {
    kind: tuple([field.name for field in attrs.fields(kind)])
    for kind in (*_QUICK_DECODERS, protocol.DoneReply)
}
"""Of what consists of numbers, texts and bytes alone, and so goes over the wire as it is."""


def _fields_of(value: Any) -> Any:
    names = _QUICK_FIELDS.get(type(value))
    if names is None:
        return _converter().unstructure(value)
    return {name: getattr(value, name) for name in names}


def encode_opening(value: Opening) -> bytes:
    """Return the payload of a connection's first frame in either direction."""
    tagged = [_TAGS[type(value)], _fields_of(value)]
    payload = OPENING_MAGIC + cast("bytes", msgpack.packb(tagged))
    assert len(payload) <= OPENING_BYTES_MAX
    return payload


def begins_as_opening(received: bytes | bytearray, position: int = 0) -> bool:
    """Return whether `received` goes on at `position` as a connection of this protocol begins.

    For listeners of other protocols, which would wait in vain for what they call complete.
    """
    return received.startswith(OPENING_MAGIC, position + _LENGTH.size)


def decode_opening(payload: bytes) -> Opening:
    """Return the Hello, Welcome or Refusal in the first frame of a connection.

    Raises:
        WireError: something else, or too long for one.
    """
    return cast("Opening", _guarded("opening", _decode_opening, payload))


def _decode_opening(payload: bytes) -> Opening:
    if not payload.startswith(OPENING_MAGIC):
        raise WireError("the other side does not speak this protocol")
    if len(payload) > OPENING_BYTES_MAX:
        raise WireError(f"{len(payload)} bytes, more than {OPENING_BYTES_MAX}")
    tag, fields, *_ = _unpack(payload[len(OPENING_MAGIC) :])
    return cast("Opening", _structure(_OPENINGS, tag, fields))


def encode_request(number: int, request: Request) -> bytes:
    """Return the payload of `request`; its reply will carry the same `number`."""
    return _encode_numbered(number, request)


def decode_request(payload: bytes) -> tuple[int, Request]:
    """Return number and request.

    Raises:
        WireError: the payload is no request of this version.
    """
    return cast("tuple[int, Request]", _guarded("request", _decode_request, payload))


def _decode_request(payload: bytes) -> tuple[int, Request]:
    number, tag, fields, *_ = _unpack(payload)
    return _integer(number), _structure(_REQUESTS, tag, fields)


def encode_reply(number: int, reply: Reply) -> bytes:
    """Return the payload of the reply to the request of this `number`."""
    return _encode_numbered(number, reply)


def decode_reply(payload: bytes) -> tuple[int, Reply]:
    """Return the number of the request and its reply.

    Raises:
        WireError: the payload is no reply of this version.
    """
    return cast("tuple[int, Reply]", _guarded("reply", _decode_reply, payload))


def _decode_reply(payload: bytes) -> tuple[int, Reply]:
    number, tag, fields, *_ = _unpack(payload)
    return _integer(number), _structure(_REPLIES, tag, fields)


def _encode_numbered(number: int, value: Request | Reply) -> bytes:
    tagged = [number, _TAGS[type(value)], _fields_of(value)]
    return cast("bytes", msgpack.packb(tagged))


# --- Raft messages: arrays of fields, packed by hand ------------------------------------------


def _entries(value: object) -> tuple[Entry, ...]:
    return decode_entries(_bytes(value))


def _snapshot_id(value: object) -> SnapshotId:
    if type(value) is not list or len(value) < len(_SNAPSHOT_ID):
        _refuse("the four fields of a snapshot's id", value)
    index, term, size_bytes, checksum = (
        check(field) for check, field in zip(_SNAPSHOT_ID, value, strict=False)
    )
    if not _CHECKSUM.fullmatch(checksum):
        _refuse("hexadecimal digits", checksum)
    return SnapshotId(
        last_included_index=index,
        last_included_term=term,
        size_bytes=size_bytes,
        checksum=checksum,
    )


def _index_or_none(value: object) -> int | None:
    return None if value is None else _integer(value)


def _servers(value: object) -> tuple[ServerId, ...]:
    if type(value) is not list:
        _refuse("an array of servers", value)
    return tuple([_text(server) for server in value])


_Field: TypeAlias = Callable[[Any], Any]
_CHECKSUM = re.compile(r"[0-9a-f]{1,64}")
_SNAPSHOT_ID: tuple[_Field, ...] = (_integer, _integer, _integer, _text)
_MESSAGES: dict[int, tuple[type, int, tuple[_Field, ...]]] = {
    # tag: type, how many fields a message must have, the checks of all fields in their order
    1: (messages.PreVote, 3, (_integer, _integer, _integer)),
    2: (messages.PreVoteResponse, 3, (_integer, _integer, _boolean)),
    3: (messages.RequestVote, 3, (_integer, _integer, _integer, _boolean)),
    4: (messages.RequestVoteResponse, 2, (_integer, _boolean, _integer)),
    5: (AppendEntries, 6, (_integer, _integer, _integer, _entries, _integer, _integer)),
    6: (
        AppendEntriesResponse,
        5,
        (_integer, _boolean, *6 * (_integer,), _boolean, _integer),
    ),
    7: (messages.TimeoutNow, 1, (_integer,)),
    8: (InstallSnapshot, 5, (_integer, _snapshot_id, _integer, _bytes, _integer)),
    9: (
        InstallSnapshotResponse,
        7,
        (_integer, _snapshot_id, *5 * (_integer,), _index_or_none),
    ),
    10: (messages.StateCheck, 3, (_integer, _integer, _integer)),
    11: (messages.StateCheckResponse, 3, (_integer, _integer, _integer)),
    12: (messages.StateVerdict, 5, (_integer, _integer, _integer, _servers, _servers)),
    13: (messages.ReadIndex, 2, (_integer, _integer)),
    14: (messages.ReadIndexResponse, 3, (_integer, _integer, _index_or_none)),
}


def _snapshot_fields(snapshot: SnapshotId) -> tuple[object, ...]:
    return (
        snapshot.last_included_index,
        snapshot.last_included_term,
        snapshot.size_bytes,
        snapshot.checksum,
    )


def encode_message(message: Message | StateMessage) -> bytes:
    """Return the payload of a message. Entries keep the bytes that they have in the log."""
    match message:
        case AppendEntries():
            fields: tuple[object, ...] = (
                5,
                message.term,
                message.prev_log_index,
                message.prev_log_term,
                encode_entries(message.entries),
                message.leader_commit,
                message.round,
            )
        case AppendEntriesResponse():
            fields = (
                6,
                message.term,
                message.success,
                message.round,
                message.match_index,
                message.commit_index,
                message.conflict_term,
                message.conflict_index,
                message.last_log_index,
                message.short_of_space,
                message.vote_withheld_ms,
            )
        case messages.PreVote():
            fields = (1, message.term, message.last_log_index, message.last_log_term)
        case messages.PreVoteResponse():
            fields = (2, message.term, message.request_term, message.vote_granted)
        case messages.RequestVote():
            fields = (
                3,
                message.term,
                message.last_log_index,
                message.last_log_term,
                message.leadership_transfer,
            )
        case messages.RequestVoteResponse():
            fields = (4, message.term, message.vote_granted, message.request_term)
        case messages.TimeoutNow():
            fields = (7, message.term)
        case InstallSnapshot():
            fields = (
                8,
                message.term,
                _snapshot_fields(message.snapshot),
                message.offset,
                message.data,
                message.round,
            )
        case InstallSnapshotResponse():
            fields = (
                9,
                message.term,
                _snapshot_fields(message.snapshot),
                message.round,
                message.received_bytes,
                message.installed_bytes,
                message.match_index,
                message.commit_index,
                message.last_log_index,
            )
        case messages.ReadIndex():
            fields = (13, message.term, message.id)
        case messages.ReadIndexResponse():
            fields = (14, message.term, message.id, message.index)
        case messages.StateCheck() | messages.StateCheckResponse() | messages.StateVerdict():
            fields = _state_fields(message)
        case _:
            assert_never(message)
    return cast("bytes", msgpack.packb(fields))


def _state_fields(message: StateMessage) -> tuple[object, ...]:
    """Return the tag and fields of a message in which servers compare their states."""
    match message:
        case messages.StateCheck():
            return 10, message.term, message.index, message.state_hash
        case messages.StateCheckResponse():
            return 11, message.term, message.index, message.state_hash
        case messages.StateVerdict():
            agreeing, differing = message.agreeing, message.differing
            return 12, message.term, message.index, message.state_hash, agreeing, differing
        case _:
            assert_never(message)


def decode_message(payload: bytes) -> Message | StateMessage:
    """Return the message; its entries have passed their checksums.

    Raises:
        WireError: the payload is no message of this version, or an entry is damaged.
    """
    return cast("Message | StateMessage", _guarded("message", _decode_message, payload))


def _decode_message(payload: bytes) -> Message | StateMessage:
    tag, *values = _unpack(payload)
    known = _MESSAGES.get(_integer(tag))
    if known is None:
        _refuse("the tag of a message", tag)
    kind, required_count, fields = known
    if len(values) < required_count:
        raise WireError(f"{len(values)} fields, but {kind.__name__} has {required_count}")
    # Not strict on purpose: a newer server may send fields that this one does not know.
    arguments = [check(value) for check, value in zip(fields, values, strict=False)]
    return cast("Message | StateMessage", kind(*arguments))
