"""The answers of commands as a session keeps them: packed, and as a number for the effects hash."""

from __future__ import annotations

from typing import Any, TypeAlias
from zlib import crc32

import msgpack

from raftd.commands import Result
from raftd.transactions import pack_outcome, unpack_outcomes

_APPLIED_FACTOR = 0x27D4EB2F
"""Odd: two numbers that differ by less than 2**32 differ as well when they are multiplied."""
_MESSAGE, _OUTCOMES = 4, 6
"""Where these stand among the fields."""
_VALUE = 2
"""Where a value stands among the fields of an outcome."""
OUTCOME_BYTES = 16
"""What an outcome takes besides its value, about, where it is kept."""

PackedResult: TypeAlias = int | list[Any]
"""A result as a session keeps it: the revision alone if it was applied and there is no more to
say, else [applied, revision, operation, code, message], and the number if there is one, and the
outcomes if there are any."""


def pack_result(result: Result) -> PackedResult:
    """Return what a session keeps of `result`."""
    fields = [result.applied, result.revision, result.operation, result.code, result.message]
    if result.outcomes:
        return [*fields, result.number, [pack_outcome(outcome) for outcome in result.outcomes]]
    if result.number:
        return [*fields, result.number]
    if result.applied and not (result.operation or result.code or result.message):
        return result.revision
    return fields


def unpack_result(packed: PackedResult) -> Result:
    """Return the result that `pack_result` has packed."""
    if isinstance(packed, int):
        return Result(True, packed)
    outcomes = packed[_OUTCOMES:]
    return Result(*packed[:_OUTCOMES], *map(unpack_outcomes, outcomes))


def returned_bytes(packed: PackedResult) -> int:
    """Return what the outcomes in a result take where it is kept."""
    if isinstance(packed, int) or len(packed) <= _OUTCOMES:
        return 0
    return sum([OUTCOME_BYTES + len(fields[_VALUE] or b"") for fields in packed[_OUTCOMES]])


def result_checksum(packed: PackedResult | None) -> int:
    """Return a number that stands for what a session remembers, but for the message."""
    if isinstance(packed, int):
        return packed * _APPLIED_FACTOR
    told = [*packed[:_MESSAGE], *packed[_MESSAGE + 1 :]] if packed else None
    return crc32(msgpack.packb(told))
