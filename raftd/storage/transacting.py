"""Transactions: conditions and steps on a draft of the keys, which becomes the state or nothing.

What a transaction returns is bounded, and nobody knows how much that is before its steps were
carried out. So they are carried out on a draft: where it is too much, the draft is forgotten.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, assert_never

from raftd.commands import (
    FEATURES_LIVES,
    INTEGER_MAX,
    INTEGER_MIN,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Transaction,
    parse_integer,
)
from raftd.storage.effects import Effects
from raftd.storage.events import DELETED, Change
from raftd.storage.lives import Lives
from raftd.storage.results import OUTCOME_BYTES
from raftd.transactions import (
    LIFE_CONDITIONS,
    LIFE_MS_MAX,
    NOT_A_NUMBER,
    OVERFLOW,
    SESSION_RETURNED_BYTES_MAX,
    STEP_NUMBER_MAX,
    STEP_NUMBER_MIN,
    STEPS_MAX,
    TOO_LONG,
    WRITTEN_BYTES_MAX,
    AddTo,
    Append,
    Outcome,
    ReadKey,
    RemoveKey,
    SetKey,
    SetLife,
    Step,
)

FEATURES_OFF = (
    f"the cluster's features of version {FEATURES_LIVES} are not switched on: upgrade every member"
)
"""Why nothing becomes of what belongs to them."""

READ_SHARE = 8
"""To read so many bytes takes about as long as to write one."""

_REVISIONS = struct.Struct(">QQQ")
_KEY = b"K"


def problem_of(transaction: Transaction) -> str:
    """Return what is wrong with a transaction in itself; empty if nothing is."""
    for what, there in (
        ("conditions", len(transaction.conditions)),
        ("steps", len(transaction.steps)),
    ):
        if there > STEPS_MAX:
            return f"a transaction has at most {STEPS_MAX} {what}, not {there}"
    for key, revision in transaction.conditions:
        if not 0 < len(key.encode()) <= KEY_BYTES_MAX:
            return _bad_key(key)
        if revision < 0:
            return f"a revision is 0 or more, not {revision}"
    for step in transaction.steps:
        problem = _problem_of(step)
        if problem:
            return problem
    return ""


def _problem_of(step: Step) -> str:
    if not 0 < len(step.key.encode()) <= KEY_BYTES_MAX:
        return _bad_key(step.key)
    match step:
        case SetKey():
            if len(step.value) > VALUE_BYTES_MAX:
                return f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(step.value)}"
            if not 0 <= step.ttl_ms <= LIFE_MS_MAX:
                return f"a life has 1 to {LIFE_MS_MAX} ms, not {step.ttl_ms}"
            if step.ttl_ms and step.keep_life:
                return "a key cannot keep its life and have a new one"
        case Append():
            if len(step.tail) > VALUE_BYTES_MAX:
                return f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(step.tail)}"
        case AddTo():
            if not STEP_NUMBER_MIN <= step.by <= STEP_NUMBER_MAX:
                return f"what is added has 64 bits, {step.by} has more"
        case SetLife():
            if not STEP_NUMBER_MIN <= step.ttl_ms <= LIFE_MS_MAX:
                return f"a life has at most {LIFE_MS_MAX} ms, not {step.ttl_ms}"
            if step.condition not in LIFE_CONDITIONS:
                return f"no condition of a life: {step.condition[:20]!r}"
        case RemoveKey() | ReadKey():
            pass
        case _:
            assert_never(step)
    return ""


def _bad_key(key: str) -> str:
    return f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key.encode())}"


class Draft:
    """The keys as a transaction has left them so far. Nothing of it is in the store."""

    def __init__(self, effects: Effects, lives: Lives, revision: int) -> None:
        """Begin with the state as it is.

        Args:
            effects: the store, which is only read before `commit`.
            lives: what time it is, and how long the keys live.
            revision: the last one that was taken.
        """
        self.revision = revision
        """The last one that it has taken."""
        self.changes: list[Change] = []
        """What it has done to keys, in order."""
        self.written_bytes = 0
        """Of all values that it has given to keys, also of those that it has replaced again."""
        self._written: dict[bytes, bytes | None] = {}
        """Keys of the store with what they come to; None for what is removed."""
        self._deadlines: dict[bytes, int] = {}
        """Keys whose life it has changed, with their deadlines; 0 for those that have none."""
        self._effects = effects
        self._lives = lives
        self._handlers: dict[type, Callable[[Any], Outcome]] = {
            SetKey: self._set,
            RemoveKey: self._remove,
            AddTo: self._add,
            Append: self._append,
            SetLife: self._set_life,
            ReadKey: self._read,
        }

    def holds(self, conditions: Iterable[tuple[str, int]]) -> bool:
        """Return whether these keys have these mod revisions, 0 for one that is not there."""
        for key, revision in conditions:
            stored = self._stored(key.encode())
            if revision != (0 if stored is None else _REVISIONS.unpack_from(stored)[1]):
                return False
        return True

    def carry_out(self, steps: Iterable[Step], returned_max: int) -> tuple[Outcome, ...] | None:
        """Carry out `steps` and return what became of each.

        Returns:
            None where the outcomes would take more than `returned_max` bytes, or the values that
            are written more than `WRITTEN_BYTES_MAX`: forget the draft, `refusal` says why.
        """
        outcomes = []
        returned_bytes = 0
        for step in steps:
            outcome = self._handlers[type(step)](step)
            returned_bytes += OUTCOME_BYTES + len(outcome.value or b"")
            if returned_bytes > returned_max or self.written_bytes > WRITTEN_BYTES_MAX:
                return None
            outcomes.append(outcome)
        return tuple(outcomes)

    def refusal(self, returned_max: int, session: str) -> tuple[str, str]:
        """Return the code of a transaction that could not be carried out, and why it could not.

        Args:
            returned_max: as in `carry_out`.
            session: whose transaction it is; empty for none.
        """
        if self.written_bytes > WRITTEN_BYTES_MAX:
            return "too-much-written", f"it would write more than {WRITTEN_BYTES_MAX} bytes"
        why = f"it would return more than {returned_max} bytes of values"
        if session:
            limit = f"the unacknowledged results of session {session} may have"
            why += f": {limit} {SESSION_RETURNED_BYTES_MAX} together"
        return "too-much-returned", why

    def commit(self) -> None:
        """Write what it has come to into the store. It is of no use any more then."""
        effects = self._effects
        for store_key, stored in self._written.items():
            if stored is None:
                effects.delete(store_key)
            else:
                effects.put(store_key, stored)
        for key, deadline in self._deadlines.items():
            self._lives.set(key, deadline)

    # --- the steps ---

    def _set(self, step: SetKey) -> Outcome:
        key = step.key.encode()
        stored = self._stored(key)
        old = _value(stored) if step.want_old else None
        if step.if_absent if stored is not None else step.if_present:
            return Outcome(False, value=old)
        self._write(key, step.value, stored)
        if not step.keep_life:
            self._live(key, self._lives.clock_ms + step.ttl_ms if step.ttl_ms else 0)
        return Outcome(value=old)

    def _remove(self, step: RemoveKey) -> Outcome:
        key = step.key.encode()
        stored = self._stored(key)
        if stored is None:
            return Outcome(False)
        self._delete(key)
        return Outcome(value=_value(stored) if step.want_old else None)

    def _add(self, step: AddTo) -> Outcome:
        key = step.key.encode()
        stored = self._stored(key)
        number = 0 if stored is None else parse_integer(stored[_REVISIONS.size :])
        if number is None:
            return Outcome(False, code=NOT_A_NUMBER)
        number += step.by
        if not INTEGER_MIN <= number <= INTEGER_MAX:
            return Outcome(False, code=OVERFLOW)
        self._write(key, b"%d" % number, stored)
        return Outcome(number=number)

    def _append(self, step: Append) -> Outcome:
        key = step.key.encode()
        stored = self._stored(key)
        value = (_value(stored) or b"") + step.tail
        if len(value) > VALUE_BYTES_MAX:
            return Outcome(False, code=TOO_LONG)
        self._write(key, value, stored)
        return Outcome(number=len(value))

    def _set_life(self, step: SetLife) -> Outcome:
        key = step.key.encode()
        if self._stored(key) is None:
            return Outcome(False)
        before = self._deadline(key)
        now_ms = self._lives.clock_ms
        after = now_ms + step.ttl_ms if step.ttl_ms else 0
        if not _life_may_change(step.condition, before, after):
            return Outcome(False, ttl_ms=self._remaining(before))
        if step.ttl_ms < 0:
            self._delete(key)
            return Outcome()
        if not before and not after:
            return Outcome(False)
        self._live(key, after)
        return Outcome(ttl_ms=self._remaining(after))

    def _read(self, step: ReadKey) -> Outcome:
        key = step.key.encode()
        stored = self._stored(key)
        if stored is None:
            return Outcome(False)
        mod_revision = _REVISIONS.unpack_from(stored)[1]
        remaining = self._remaining(self._deadline(key))
        return Outcome(number=mod_revision, value=_value(stored), ttl_ms=remaining)

    # --- the draft ---

    def _stored(self, key: bytes) -> bytes | None:
        store_key = _KEY + key
        if store_key in self._written:
            return self._written[store_key]
        stored = self._effects.get(store_key)
        if stored is not None:
            self._effects.worked_bytes += len(stored) // READ_SHARE
        return stored

    def _write(self, key: bytes, value: bytes, stored: bytes | None) -> None:
        self.revision += 1
        self.written_bytes += len(value)
        self._effects.worked_bytes += len(value)
        written = with_revisions(value, stored, self.revision)
        store_key = _KEY + key
        self._written[store_key] = written
        self.changes.append((store_key, written))

    def _delete(self, key: bytes) -> None:
        self.revision += 1
        store_key = _KEY + key
        self._written[store_key] = None
        self.changes.append((store_key, DELETED))
        self._live(key, 0)

    def _deadline(self, key: bytes) -> int:
        known = self._deadlines.get(key)
        return self._lives.deadline(key) if known is None else known

    def _live(self, key: bytes, deadline: int) -> None:
        if self._deadline(key) != deadline:
            self._deadlines[key] = deadline

    def _remaining(self, deadline: int) -> int | None:
        return max(0, deadline - self._lives.clock_ms) if deadline else None


def with_revisions(value: bytes, stored: bytes | None, revision: int) -> bytes:
    """Return what the store gets for a key that is written at `revision` and has `stored` now."""
    if stored is None:
        return _REVISIONS.pack(revision, revision, 1) + value
    create_revision, _, version = _REVISIONS.unpack_from(stored)
    return _REVISIONS.pack(create_revision, revision, version + 1) + value


def _value(stored: bytes | None) -> bytes | None:
    return None if stored is None else stored[_REVISIONS.size :]


def _life_may_change(condition: str, before: int, after: int) -> bool:
    """Return whether a deadline may become another one; 0 is none, and later than any other."""
    match condition:
        case "nx":
            return not before
        case "xx":
            return bool(before)
        case "gt":
            return bool(before) and (not after or after > before)
        case "lt":
            return bool(after) and (not before or after < before)
        case _:
            return True
