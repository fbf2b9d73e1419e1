"""Steps of a transaction and what becomes of them: values, and how they are packed.

A transaction is one entry of the log: everything in it happens at once, or nothing. Its steps are
carried out in their order, each on what those before it have left; a step that cannot be carried
out says so in its outcome, and the others are carried out all the same. Conditions decide before
the first step whether anything is done at all.

A step is packed as the msgpack array `[code, field, ...]`, an outcome as `[field, ...]`. The limits
below belong to the format of the log: every server refuses the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import attrs
import msgpack

from raftd.values import Value

STEPS_MAX = 1024
"""Steps of one transaction, and likewise its conditions: applying so many takes a few
milliseconds, in which no other command is applied."""
LIFE_MS_MAX = 2**53 - 1
"""Milliseconds of a key's life, 285,000 years: what JSON and every client can name exactly."""
STEP_NUMBER_MIN, STEP_NUMBER_MAX = -(2**63), 2**63 - 1
"""Of the numbers in a step: 64 bits with a sign."""
RETURNED_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of the values that one transaction returns: they fit a frame of the native protocol."""
WRITTEN_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of the values that one transaction writes: twice what its entry can hold. A step that
appends one byte writes the whole value again, so that what it takes to apply an entry, in memory
and in time, is not seen from its length."""
SESSION_RETURNED_BYTES_MAX = 64 * 1024
"""Bytes of the values that the kept results of one session hold together: they are in the state
until the client acknowledges them, and are written again with each batch that the session is in."""

NOT_A_NUMBER = "not-a-number"
OVERFLOW = "overflow"
TOO_LONG = "too-long"


@attrs.frozen(repr=False, eq=False)
class SetKey(Value):
    """Set `key` to `value`.

    Its outcome says whether it was set. It lives for ever from then on, unless the fields say
    otherwise.
    """

    key: str
    value: bytes
    ttl_ms: int = 0
    """It lives for so many milliseconds from when the leader takes the command, 1 to
    `LIFE_MS_MAX`; 0 for ever."""
    keep_life: bool = False
    """It goes on with the life that it has; `ttl_ms` is 0."""
    if_absent: bool = False
    if_present: bool = False
    want_old: bool = False
    """The outcome has the value from before, also where it was not set."""


@attrs.frozen(repr=False, eq=False)
class RemoveKey(Value):
    """Remove `key`. Its outcome says whether it was there."""

    key: str
    want_old: bool = False
    """The outcome has the value from before."""


@attrs.frozen(repr=False, eq=False)
class AddTo(Value):
    """Add to the number that is the value of `key`, as `raftd.commands.Increment` does.

    The number of its outcome is the new one; its codes are `not-a-number` and `overflow`, and then
    the key is as it was. The key keeps its life.
    """

    key: str
    by: int
    """Within 64 bits, with a sign."""


@attrs.frozen(repr=False, eq=False)
class Append(Value):
    """Add bytes to the end of the value of `key`; a missing one is empty.

    The number of its outcome is the new length; its code is `too-long`, and then the key is as it
    was. The key keeps its life.
    """

    key: str
    tail: bytes


@attrs.frozen(repr=False, eq=False)
class SetLife(Value):
    """Let `key` live for `ttl_ms` from when the leader takes the command.

    Its outcome says whether that was done: the key has to be there, and the condition to hold. It
    is no change of the key: value and revisions stay as they are.
    """

    key: str
    ttl_ms: int
    """0: for ever, done only where it had a life. Below 0: the key is removed at once."""
    condition: str = ""
    """Empty, or nx (only if it has no life yet), xx (only if it has one), gt or lt (only if its
    life becomes longer or shorter; to live for ever is the longest life)."""


@attrs.frozen(repr=False, eq=False)
class ReadKey(Value):
    """Return what `key` is at this step.

    Its outcome says whether it is there, and has its value, what is left of its life, and as its
    number the key's mod revision.
    """

    key: str


Step: TypeAlias = SetKey | RemoveKey | AddTo | Append | SetLife | ReadKey


@attrs.frozen(repr=False, eq=False)
class Outcome(Value):
    """What became of one step. Equal on every server."""

    applied: bool = True
    """Whether it did what it says; each kind of step says when it does not."""
    number: int = 0
    value: bytes | None = None
    """What was asked for; None for a key that was not there, or where nothing was asked for."""
    code: str = ""
    """not-a-number, overflow or too-long; empty for none."""
    ttl_ms: int | None = None
    """What is left of the key's life after the step, 0 if it has lapsed and is about to be removed,
    for `ReadKey` and `SetLife`. None: it lives for ever, or is not there."""


_CODES: dict[type, int] = {SetKey: 1, RemoveKey: 2, AddTo: 3, Append: 4, SetLife: 5, ReadKey: 6}
_TYPES = {code: kind for kind, code in _CODES.items()}
_FIELD_TYPES: dict[type, tuple[type, ...]] = {
    SetKey: (str, bytes, int, bool, bool, bool, bool),
    RemoveKey: (str, bool),
    AddTo: (str, int),
    Append: (str, bytes),
    SetLife: (str, int, str),
    ReadKey: (str,),
}
LIFE_CONDITIONS = ("", "nx", "xx", "gt", "lt")


def pack_step(step: Step) -> list[Any]:
    """Return `step` as msgpack can pack it."""
    kind = type(step)
    return [_CODES[kind], *[getattr(step, field.name) for field in step.__attrs_attrs__]]


def unpack_steps(packed: Iterable[Sequence[Any]]) -> tuple[Step, ...]:
    """Return the steps that `pack_step` has taken apart, of an entry of the log.

    Raises:
        Exception: of any type; they are no steps of this release.
    """
    return tuple([_TYPES[code](*fields) for code, *fields in packed])


def encode_steps(conditions: Iterable[tuple[str, int]], steps: Iterable[Step]) -> bytes:
    """Return conditions and steps as they go over the wire."""
    packed: bytes = msgpack.packb([list(conditions), [pack_step(step) for step in steps]])
    return packed


def decode_steps(content: bytes) -> tuple[tuple[tuple[str, int], ...], tuple[Step, ...]]:
    """Return the conditions and steps in bytes from a stranger. Types are strict.

    Raises:
        ValueError: they are none; the message says why.
    """
    try:
        packed_conditions, packed_steps = msgpack.unpackb(content)
        if max(len(packed_conditions), len(packed_steps)) > STEPS_MAX:
            # Before they are taken apart here, and on every server that would apply them.
            raise ValueError(f"it has at most {STEPS_MAX} conditions and steps each")
        conditions = []
        for key, revision in packed_conditions:
            if type(key) is not str or type(revision) is not int:
                raise ValueError("a condition is a key and a revision")
            conditions.append((key, revision))
        steps = []
        for code, *fields in packed_steps:
            kind = _TYPES[code]
            if tuple(map(type, fields)) != _FIELD_TYPES[kind]:
                raise ValueError(f"the fields of {kind.__name__} have other types")
            steps.append(kind(*fields))
    except Exception as error:
        # msgpack and the unpacking of lists raise a dozen types between them.
        raise ValueError(f"no steps of a transaction: {error}") from error
    return tuple(conditions), tuple(steps)


def pack_outcome(outcome: Outcome) -> list[Any]:
    """Return `outcome` as msgpack can pack it, and as a session keeps it."""
    return [outcome.applied, outcome.number, outcome.value, outcome.code, outcome.ttl_ms]


def unpack_outcomes(packed: Iterable[Sequence[Any]]) -> tuple[Outcome, ...]:
    """Return the outcomes that `pack_outcome` has taken apart."""
    return tuple([Outcome(*fields) for fields in packed])


def encode_outcomes(outcomes: Iterable[Outcome]) -> bytes:
    """Return outcomes as they go over the wire."""
    packed: bytes = msgpack.packb([pack_outcome(outcome) for outcome in outcomes])
    return packed


def decode_outcomes(content: bytes) -> tuple[Outcome, ...]:
    """Return the outcomes in the bytes of a server.

    Raises:
        ValueError: they are none.
    """
    try:
        return unpack_outcomes(msgpack.unpackb(content))
    except Exception as error:
        raise ValueError(f"no outcomes of a transaction: {error}") from error
