"""What a COMMAND entry of the log says, what applying it answers, and the operation records.

A command travels as msgpack: `[code, session, serial, lowest_unacknowledged, ...arguments]`. The
commands of applications are packed by hand, since they are the hot path; those of operators are
rare and go through cattrs.

Source: dissertation section 6.3 for sessions and serials.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import attrs
import msgpack

from raftd.core.membership import ChangeStep
from raftd.core.types import Index, ServerId

KEY_BYTES_MAX = 480
"""UTF-8 bytes of a key: with its prefix it fits the key of every common ordered store."""
VALUE_BYTES_MAX = 1024 * 1024
"""Bytes of a value: a frame, a log record and a batch stay small enough to hold in memory."""
SESSION_BYTES_MAX = 128
"""UTF-8 bytes of the name of a session: room for any random number a client may choose."""


@attrs.frozen
class OpenSession:
    """Register a session. Opening the same one again changes nothing."""


@attrs.frozen
class Put:
    """Set `key` to `value`, always or under one condition."""

    key: str
    value: bytes
    if_absent: bool = False
    """Only if the key does not exist."""
    if_revision: int | None = None
    """Only if the key's mod revision is this; 0 means that the key does not exist."""


@attrs.frozen
class Delete:
    """Remove `key`; no error if it does not exist."""

    key: str


@attrs.frozen
class CompareAndSet:
    """Set `key` to `value` if its value is `expected` byte for byte."""

    key: str
    expected: bytes
    value: bytes


@attrs.frozen(kw_only=True)
class Plan:
    """What a membership operation is to bring about, with every name resolved to an identity."""

    changes: tuple[ChangeStep, ...]
    """What `enter_joint` or `change_learners` is called with."""
    addresses: dict[ServerId, str] = attrs.field(factory=dict)
    """HOST:PORT of the servers that are new to the configuration."""
    joint: bool
    """Whether votes change, so that the change needs C_old,new and C_new."""
    configuration_index: Index
    """The configuration that the plan was made for; the operation starts only while it is the
    latest one."""
    voters_before: tuple[ServerId, ...] = ()
    learners_before: tuple[ServerId, ...] = ()
    voters_after: tuple[ServerId, ...] = ()
    learners_after: tuple[ServerId, ...] = ()


@attrs.frozen(kw_only=True)
class BeginOperation:
    """Start a membership operation, unless another one runs or the configuration has moved."""

    kind: str
    """The verb that the operator used: add, remove, replace, promote, demote, init."""
    author: str
    reason: str
    time_ms: int
    """The proposing leader's wall clock, milliseconds since 1970. For people only."""
    plan: Plan


@attrs.frozen(kw_only=True)
class AbortOperation:
    """Ask that a running operation be undone. The answer says whether it still could be."""

    operation: str
    author: str
    reason: str
    time_ms: int


@attrs.frozen(kw_only=True)
class EndOperation:
    """Close an operation that has touched no configuration. Closing it again changes nothing."""

    operation: str
    outcome: str
    """failed or aborted."""
    reason: str
    time_ms: int


CommandBody: TypeAlias = (
    OpenSession | Put | Delete | CompareAndSet | BeginOperation | AbortOperation | EndOperation
)


@attrs.frozen
class Command:
    """A command and the session that makes it happen once."""

    body: CommandBody
    session: str = ""
    """Chosen by the client at random; empty only for the leader's own idempotent commands."""
    serial: int = 0
    """Grows by one with each command of the session, from 1."""
    lowest_unacknowledged: int = 0
    """The client has the answers to all serials below: they are forgotten."""


@attrs.frozen
class Result:
    """What applying a command answered. Equal on every server.

    `code` is empty for success. `applied` is False when a condition did not hold.
    """

    applied: bool = True
    revision: int = 0
    """The global revision after the command."""
    operation: str = ""
    """The id of the operation that was started, or that stands in the way."""
    code: str = ""
    """session-expired, stale-serial, too-many-unacknowledged, operation-running,
    configuration-moved, no-such-operation, operation-ended, invalid (a size over its limit)."""
    message: str = ""


@attrs.frozen(kw_only=True)
class PhaseAt:
    """A phase of an operation, when it began and at which log index."""

    phase: str
    index: Index
    time_ms: int


JOINING = "joining"
"""The new servers are told which cluster they belong to."""
CATCHING_UP = "catching-up"
"""They are learners and receive the log."""
JOINT = "joint"
"""C_old,new is committed; C_new follows by itself."""
ENDED = "ended"

DONE = "done"
FAILED = "failed"
ABORTED = "aborted"


@attrs.frozen(kw_only=True)
class Operation:
    """The replicated record of a membership operation: its story for people, its state for leaders.

    The next leader resumes it in any phase: `phase` and the latest configuration of the log say
    where it stands.
    """

    id: str
    """op-1, op-2, ..."""
    kind: str
    author: str
    reason: str
    plan: Plan
    phase: str
    result: str = ""
    """Empty while it runs; then done, failed or aborted."""
    explanation: str = ""
    """Why it did not end as planned."""
    abort_requested_by: str = ""
    abort_reason: str = ""
    phases: tuple[PhaseAt, ...] = ()
    session: str = ""
    serial: int = 0
    configuration_index: Index = 0
    """The latest configuration entry that belongs to it; 0 if it has touched none."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.phase != ENDED


_CODES: dict[type, int] = {
    OpenSession: 1,
    Put: 2,
    Delete: 3,
    CompareAndSet: 4,
    BeginOperation: 16,
    AbortOperation: 17,
    EndOperation: 18,
}
_TYPES = {code: kind for kind, code in _CODES.items()}
_ADMINISTRATIVE = (BeginOperation, AbortOperation, EndOperation)
_ADMINISTRATIVE_CODE_MIN = 16


@cache
def _converter() -> Any:
    # Imported on first use: commands of applications, and so most of raftctl, never need it.
    from cattrs.preconf.msgpack import make_converter

    return make_converter()


def unstructure(value: object) -> Any:
    """Return an operation record or a part of it as plain data."""
    return _converter().unstructure(value)


def structure_operation(data: Any) -> Operation:
    """Return the operation record that `unstructure` took apart."""
    operation: Operation = _converter().structure(data, Operation)
    return operation


def encode_command(command: Command) -> bytes:
    """Return the data of the COMMAND entry for `command`."""
    body = command.body
    head = [
        _CODES[type(body)],
        command.session,
        command.serial,
        command.lowest_unacknowledged,
    ]
    if isinstance(body, Put):
        head += [body.key, body.value, body.if_absent, body.if_revision]
    elif isinstance(body, Delete):
        head.append(body.key)
    elif isinstance(body, CompareAndSet):
        head += [body.key, body.expected, body.value]
    elif isinstance(body, _ADMINISTRATIVE):
        head.append(unstructure(body))
    packed: bytes = msgpack.packb(head)
    return packed


def decode_command(data: bytes) -> Command:
    """Return the command in the data of a COMMAND entry.

    Raises:
        ValueError: not a command of this version. A leader appends only what it has encoded
            itself, so that is a bug or a newer version.
    """
    try:
        code, session, serial, lowest_unacknowledged, *arguments = msgpack.unpackb(data)
        kind = _TYPES[code]
        body: Any
        # Rare kinds have the high codes: one comparison is all that the hot path pays for them.
        if code >= _ADMINISTRATIVE_CODE_MIN:
            (fields,) = arguments
            body = _converter().structure(fields, kind)
        else:
            body = kind(*arguments)
    except Exception as error:
        raise ValueError(f"not a command of this version: {error!r}") from error
    return Command(body, session, serial, lowest_unacknowledged)
