"""What a COMMAND entry of the log says, what applying it answers, and the operation records.

A command travels as msgpack: `[code, session, serial, lowest_unacknowledged, ...arguments]`. The
commands of applications are packed by hand, since they are the hot path; those of operators are
rare and go through cattrs.

Source: dissertation section 6.3 for sessions and serials.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

import attrs
import msgpack

from raftd.core.membership import ChangeStep
from raftd.core.types import Index, ServerId, Term
from raftd.transactions import AddTo as AddTo
from raftd.transactions import Append as Append
from raftd.transactions import Outcome as Outcome
from raftd.transactions import ReadKey as ReadKey
from raftd.transactions import RemoveKey as RemoveKey
from raftd.transactions import SetKey as SetKey
from raftd.transactions import SetLife as SetLife
from raftd.transactions import Step as Step
from raftd.transactions import pack_step, unpack_steps
from raftd.values import Value

KEY_BYTES_MAX = 480
"""UTF-8 bytes of a key: with its prefix it fits the key of every common ordered store."""
VALUE_BYTES_MAX = 1024 * 1024
"""Bytes of a value: a frame, a log record and a batch stay small enough to hold in memory."""
SESSION_BYTES_MAX = 128
"""UTF-8 bytes of the name of a session: room for any random number a client may choose."""
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
"""Of a counter: what other key-value stores count with as well."""
FEATURES_HISTORY = 3
"""The version whose features include the history of configurations and rolling operations."""
FEATURES_COUNTERS = 4
"""The version whose features include counters, and commands for several keys."""
FEATURES_LIVES = 5
"""The version whose features include keys with a life, and transactions."""
FEATURES_MAX = FEATURES_LIVES
"""The newest version with features in the replicated state, which are switched on once all members
can apply them. What later versions of the protocol bring needs nothing there."""
ROLLING_COMMAND_BYTES_MAX = 4 * 1024
"""UTF-8 bytes of the command of a rolling restart: a page of shell. What is longer is a script."""


@attrs.frozen(repr=False, eq=False)
class OpenSession(Value):
    """Register a session. Opening the same one again changes nothing."""


@attrs.frozen(repr=False, eq=False)
class Put(Value):
    """Set `key` to `value`, always or under one condition."""

    key: str
    value: bytes
    if_absent: bool = False
    """Only if the key does not exist."""
    if_revision: int | None = None
    """Only if the key's mod revision is this; 0 means that the key does not exist."""


@attrs.frozen(repr=False, eq=False)
class Delete(Value):
    """Remove `key`; no error if it does not exist."""

    key: str


@attrs.frozen(repr=False, eq=False)
class CompareAndSet(Value):
    """Set `key` to `value` if its value is `expected` byte for byte."""

    key: str
    expected: bytes
    value: bytes


@attrs.frozen(repr=False, eq=False)
class Increment(Value):
    """Add to the number that is the value of `key`, in decimal digits; a missing one is 0.

    The answer has the new one. A value that is no integer of 64 bits is left alone, and so is one
    that would become too large.
    """

    key: str
    by: int
    """Within 64 bits, with a sign."""


@attrs.frozen(repr=False, eq=False)
class PutMany(Value):
    """Set several keys at once, in this order. Nobody ever sees only some of them set."""

    pairs: list[tuple[str, bytes]]


@attrs.frozen(repr=False, eq=False)
class DeleteMany(Value):
    """Remove several keys at once. The answer has how many there were."""

    keys: list[str]


@attrs.frozen(repr=False, eq=False)
class Transaction(Value):
    """Carry out `steps`, in one piece, if every condition holds. See `raftd.transactions`.

    The answer has one outcome for each step, and is not applied where a condition does not hold:
    then nothing is done, and there are no outcomes.
    """

    conditions: tuple[tuple[str, int], ...]
    """Keys and the mod revisions that they must have; 0 means that the key must not exist."""
    steps: tuple[Step, ...]
    time_ms: int = 0
    """Cluster time when the leader took it. The leader puts it in, see `stamp`: whoever makes a
    transaction leaves it 0."""


@attrs.frozen(repr=False, eq=False)
class AdvanceClock(Value):
    """Let cluster time be at least `time_ms`, and remove keys whose life is over by then.

    Those that lapsed first go first, a bounded number with each entry. The answer has how many.
    """

    time_ms: int


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Plan(Value):
    """What a membership operation is to bring about, with every name resolved to an identity."""

    changes: tuple[ChangeStep, ...]
    """What `enter_joint` or `change_learners` is called with."""
    addresses: dict[ServerId, str] = attrs.field(factory=dict)
    """HOST:PORT of the servers that are new to the configuration."""
    moved: dict[ServerId, str] = attrs.field(factory=dict)
    """New HOST:PORT of members, each verified: that very server answered there."""
    joint: bool
    """Whether votes change, so that the change needs C_old,new and C_new."""
    configuration_index: Index
    """The configuration that the plan was made for; the operation starts only while it is the
    latest one."""
    voters_before: tuple[ServerId, ...] = ()
    learners_before: tuple[ServerId, ...] = ()
    voters_after: tuple[ServerId, ...] = ()
    learners_after: tuple[ServerId, ...] = ()


@attrs.frozen(kw_only=True, repr=False, eq=False)
class BeginOperation(Value):
    """Start a membership operation, unless another one runs or the configuration has moved."""

    kind: str
    """The verb that the operator used: add, remove, replace, promote, demote, readdress, apply,
    init."""
    author: str
    reason: str
    time_ms: int
    """The proposing leader's wall clock, milliseconds since 1970. For people only."""
    plan: Plan
    parent: str = ""
    """The rolling operation that it is a step of; empty for none."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class AbortOperation(Value):
    """Ask that a running operation be undone. The answer says whether it still could be."""

    operation: str
    author: str
    reason: str
    time_ms: int


@attrs.frozen(kw_only=True, repr=False, eq=False)
class EndOperation(Value):
    """Close an operation that has touched no configuration. Closing it again changes nothing."""

    operation: str
    outcome: str
    """failed or aborted."""
    reason: str
    time_ms: int


@attrs.frozen(kw_only=True, repr=False, eq=False)
class SwitchOn(Value):
    """Switch on the features of a protocol version: every member can apply them.

    Applying it again, or an older version, changes nothing.

    Source: an upgrade of one server at a time needs a moment from which on all of them agree.
    """

    version: int
    time_ms: int
    configuration_term: Term = 0
    """Of the configuration that is in force there, with which the history begins; 0 if the log of
    the proposing leader does not have its entry any more."""


PENDING = "pending"
RUNNING = "running"
SKIPPED = "skipped"


@attrs.frozen(kw_only=True, repr=False, eq=False)
class RollingStep(Value):
    """One server of a rolling operation, and how far it is with it."""

    name: str
    """The server that is restarted or replaced."""
    replacement: str = ""
    """NEW=HOST:PORT for a replacement; empty for a restart."""
    state: str = PENDING
    """pending, running, done, skipped or failed."""
    operation: str = ""
    """The membership operation of this step, once there is one."""
    started_ms: int = 0
    """When it began, by the clock of the leader of that time, milliseconds since 1970; 0 before."""
    ended_ms: int = 0
    """When it ended, likewise; 0 before."""
    note: str = ""
    """What happened, in words: why it failed or was skipped, which leader was moved."""
    uptime_ms: int = 0
    """For a restart: how long the server's process had run when the step began; 0 if it did not
    answer. Whoever goes on can tell by it whether the server was restarted."""
    version_before: str = ""
    """For a restart: the release of the server when the step began; empty if it did not answer."""
    version_after: str = ""
    """For a restart: the release that answers since."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Rolling(Value):
    """What the record of a rolling operation has beyond that of a membership operation."""

    steps: tuple[RollingStep, ...]
    """In the order in which they were planned; the next one is whichever the driver says."""
    command: str = ""
    """For a restart: what restarts one server, as the operator gave it."""
    driver: str = ""
    """Who began it, or resumed it last."""
    paused_by: str = ""
    """Who paused it; empty while it may go on."""
    paused_reason: str = ""
    changed_ms: int = 0
    """When the record was changed last, by the clock of the leader of that time."""
    version: int = 1
    """Grows by one with every change of the record."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class BeginRolling(Value):
    """Start a rolling operation, unless another operation runs."""

    kind: str
    """rolling-replace or rolling-restart."""
    author: str
    reason: str
    time_ms: int
    steps: tuple[RollingStep, ...]
    """Of each only the name and the replacement count."""
    command: str = ""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class UpdateRolling(Value):
    """Change the record of a rolling operation, unless `version` is not the one that it has."""

    operation: str
    action: str
    """step, pause, resume or end."""
    author: str
    version: int
    time_ms: int
    """The proposing leader's wall clock, milliseconds since 1970."""
    position: int = 0
    """For a step: which one, from 0."""
    step: RollingStep | None = None
    """For a step: how it is now. Its name, its replacement and its times are not taken over."""
    outcome: str = ""
    """For end: done, failed or aborted."""
    reason: str = ""
    """For pause and end: why."""


CommandBody: TypeAlias = (
    OpenSession
    | Put
    | Delete
    | CompareAndSet
    | Increment
    | PutMany
    | DeleteMany
    | Transaction
    | AdvanceClock
    | BeginOperation
    | AbortOperation
    | EndOperation
    | SwitchOn
    | BeginRolling
    | UpdateRolling
)


@attrs.frozen(repr=False, eq=False)
class Command(Value):
    """A command and the session that makes it happen once."""

    body: CommandBody
    session: str = ""
    """Chosen by the client at random; empty only for the leader's own idempotent commands."""
    serial: int = 0
    """Grows by one with each command of the session, from 1."""
    lowest_unacknowledged: int = 0
    """The client has the answers to all serials below: they are forgotten."""


@attrs.frozen(repr=False, eq=False)
class Result(Value):
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
    configuration-moved, no-such-operation, operation-ended, rolling-moved (the record of a rolling
    operation is not as the asker has seen it), not-a-number (of a counter), too-much-returned (a
    transaction asks for more bytes of values than it may return, or than its session may keep),
    too-much-written (it writes more of them than it may), invalid (a size over its limit, or what
    no release of ours asks)."""
    message: str = ""
    number: int = 0
    """What a counter has come to, or how many keys were removed."""
    outcomes: tuple[Outcome, ...] = ()
    """Of a transaction that was applied: one for each step."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class PhaseAt(Value):
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
ROLLING = "rolling"
"""A rolling operation goes from step to step, or is paused."""
ENDED = "ended"

ROLLING_REPLACE = "rolling-replace"
ROLLING_RESTART = "rolling-restart"
"""The kinds of rolling operations."""
FEATURES_ROLLING = 3
"""The version whose features include them: before, no entry of theirs is appended."""

DONE = "done"
FAILED = "failed"
ABORTED = "aborted"


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Operation(Value):
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
    parent: str = ""
    """The rolling operation that it is a step of; empty for none."""
    rolling: Rolling | None = None
    """Its steps, if it is a rolling operation itself; then its plan is empty."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.phase != ENDED


@attrs.frozen(kw_only=True, repr=False, eq=False)
class ConfigurationRecord(Value):
    """One configuration of the cluster's history, kept when its log entry is gone."""

    index: Index
    term: Term
    """0 if it is not known: it is the first one that was recorded, and its entry was gone."""
    time_ms: int
    """When its leader appended it, by that leader's wall clock, milliseconds since 1970."""
    leader: ServerId
    kind: str
    """bootstrap, simple, joint, final or abort."""
    voters: tuple[ServerId, ...]
    outgoing: tuple[ServerId, ...] = ()
    learners: tuple[ServerId, ...] = ()
    learners_next: tuple[ServerId, ...] = ()
    """Voters of `outgoing` that become learners when the joint state is left."""
    addresses: dict[ServerId, str] = attrs.field(factory=dict)
    removed: tuple[ServerId, ...] = ()
    """Those that it removed for good."""
    operation: str = ""
    operation_kind: str = ""
    """The verb that the operator used."""
    parent: str = ""
    """The rolling operation that the operation is a step of."""
    phases: tuple[PhaseAt, ...] = ()
    """Of its operation, up to this configuration."""
    outcome: str = ""
    """How it ended its operation; empty while that went on."""
    author: str = ""
    reason: str = ""
    """Why, in the words of whoever asked for it, or why it was undone."""


_CODES: dict[type, int] = {
    OpenSession: 1,
    Put: 2,
    Delete: 3,
    CompareAndSet: 4,
    Increment: 5,
    PutMany: 6,
    DeleteMany: 7,
    Transaction: 8,
    AdvanceClock: 9,
    BeginOperation: 16,
    AbortOperation: 17,
    EndOperation: 18,
    SwitchOn: 19,
    BeginRolling: 20,
    UpdateRolling: 21,
}
_TYPES = {code: kind for kind, code in _CODES.items()}
_ADMINISTRATIVE = (
    BeginOperation,
    AbortOperation,
    EndOperation,
    SwitchOn,
    BeginRolling,
    UpdateRolling,
)
_ADMINISTRATIVE_CODE_MIN = 16
_TRANSACTION_HEAD = b"\xdc\x00\x07"
"""The array of a transaction has a longer header than it needs: it tells what is to be stamped from
all other commands, in the first byte."""
_TIME = struct.Struct(">BQ")
_TIME_TAG = 0xCF
"""Of a msgpack integer of 64 bits, so that any time can be put in the place of another."""

_PACK = msgpack.Packer().pack
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")


@cache
def _converter() -> Any:
    # Imported on first use: commands of applications, and so most of raftctl, never need it.
    from cattrs.gen import make_dict_unstructure_fn, override
    from cattrs.preconf.msgpack import make_converter

    # A field that this release does not know comes from a newer one: whoever passes over it makes
    # something else of the log than the servers that know it.
    converter = make_converter(forbid_extra_keys=True, detailed_validation=False)
    # Servers of the release before, which do not have these fields, have to make the same record of
    # what they can apply.
    recent = {"parent": override(omit_if_default=True)}
    for kind, fields in (
        # First, since it is a part of the others.
        (Plan, {"moved": override(omit_if_default=True)}),
        (BeginOperation, recent),
        (Operation, {**recent, "rolling": override(omit_if_default=True)}),
    ):
        unstructure_kind = make_dict_unstructure_fn(kind, converter, **fields)  # type: ignore[arg-type]
        converter.register_unstructure_hook(kind, unstructure_kind)
    return converter


def unstructure(value: object) -> Any:
    """Return an operation record or a part of it as plain data."""
    return _converter().unstructure(value)


def structure_operation(data: Any) -> Operation:
    """Return the operation record that `unstructure` took apart."""
    operation: Operation = _converter().structure(data, Operation)
    return operation


def structure_configuration_record(data: Any) -> ConfigurationRecord:
    """Return the record of a configuration that `unstructure` took apart."""
    record: ConfigurationRecord = _converter().structure(data, ConfigurationRecord)
    return record


def parse_integer(digits: bytes) -> int | None:
    """Return the number that `digits` are, in the one way to write it; None if it is none.

    None also where it takes more than 64 bits. Every server has to find the same.
    """
    if _INTEGER.fullmatch(digits) is None:
        return None
    number = int(digits)
    return number if INTEGER_MIN <= number <= INTEGER_MAX else None


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
    elif isinstance(body, Increment):
        head += [body.key, body.by]
    elif isinstance(body, PutMany):
        head.append(body.pairs)
    elif isinstance(body, DeleteMany):
        head.append(body.keys)
    elif isinstance(body, Transaction):
        head += [body.conditions, [pack_step(step) for step in body.steps]]
        time = _TIME.pack(_TIME_TAG, body.time_ms)
        without_head: bytes = msgpack.packb(head)[1:]
        return _TRANSACTION_HEAD + without_head + time
    elif isinstance(body, AdvanceClock):
        head.append(body.time_ms)
    elif isinstance(body, _ADMINISTRATIVE):
        head.append(unstructure(body))
    packed: bytes = msgpack.packb(head)
    return packed


def encode_put(key: str, value: bytes, *, if_absent: bool = False) -> bytes:
    """Return what `encode_command` does for a `Put` without a session, in a third of the time."""
    packed: bytes = _PACK((2, "", 0, 0, key, value, if_absent, None))
    return packed


def has_to_be_stamped(commands: Sequence[bytes]) -> bool:
    """Return whether there is a transaction among encoded commands, at least one."""
    # One look at the greatest of them is less than one at each.
    return is_stamped(max(commands))


def is_stamped(command: bytes) -> bool:
    """Return whether an encoded command has a place for the leader's cluster time."""
    return command[0] == _TRANSACTION_HEAD[0]


def stamp(command: bytes, time_ms: int) -> bytes:
    """Return an encoded command with the leader's cluster time in it, if its kind has a place.

    To be called by the leader that appends it, when it does.
    """
    if not is_stamped(command):
        return command
    return command[: -_TIME.size] + _TIME.pack(_TIME_TAG, time_ms)


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
        elif kind is Transaction:
            conditions, steps, time_ms = arguments
            body = Transaction(
                tuple([(key, revision) for key, revision in conditions]),
                unpack_steps(steps),
                time_ms,
            )
        else:
            body = kind(*arguments)
    except Exception as error:
        raise ValueError(f"not a command of this version: {error!r}") from error
    return Command(body, session, serial, lowest_unacknowledged)
