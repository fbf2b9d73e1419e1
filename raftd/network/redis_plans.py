"""Commands on keys as steps of a transaction: what is to be done, and how its outcome is told.

One plan serves alone, in MULTI and in `RAFT.DO`. One that only reads needs no entry of the log
where it stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TypeAlias

import attrs

from raftd.commands import (
    INTEGER_MAX,
    INTEGER_MIN,
    AddTo,
    Append,
    Outcome,
    ReadKey,
    RemoveKey,
    SetKey,
    SetLife,
    Step,
)
from raftd.network.redis_actions import (
    SYNTAX_ERROR,
    CommandError,
    Session,
    integer_of,
    key_text,
    name_of,
    text_of,
    value_2,
    value_3,
    value_of,
    wrong_number,
)
from raftd.network.redis_framing import OK, array, bulk, error, integer, simple
from raftd.transactions import LIFE_MS_MAX, NOT_A_NUMBER, OVERFLOW, STEPS_MAX, TOO_LONG

OutcomesForm: TypeAlias = Callable[[Sequence[Outcome]], bytes]
"""Makes a reply of the outcomes of all steps of a plan."""

MIDDLE_MS = 500
"""Seconds that are left of a life are rounded, as Redis does."""


@attrs.frozen
class Plan:
    """The steps of one command."""

    steps: tuple[Step, ...]
    form: OutcomesForm
    key: bytes = b""
    """For the slot of a redirection."""
    conditions: tuple[tuple[str, int], ...] = ()
    """As those of a transaction. Such a plan stands alone."""

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing."""
        return not self.conditions and all(type(step) is ReadKey for step in self.steps)


Planner: TypeAlias = Callable[[list[bytes], Session], Plan]


# --- forms ----------------------------------------------------------------------------------


def _ok(outcomes: Sequence[Outcome]) -> bytes:
    return OK


def _applied_count(outcomes: Sequence[Outcome]) -> bytes:
    return integer(sum([outcome.applied for outcome in outcomes]))


def _value_form(session: Session) -> OutcomesForm:
    form = value_3 if session.protocol >= 3 else value_2
    return lambda outcomes: form(outcomes[0].value)


def _ok_or_null(session: Session) -> OutcomesForm:
    null = session.null
    return lambda outcomes: OK if outcomes[0].applied else null


def _number(outcomes: Sequence[Outcome]) -> bytes:
    (outcome,) = outcomes
    return integer(outcome.number) if not outcome.code else error(_CODES[outcome.code])


_CODES = {
    NOT_A_NUMBER: "ERR value is not an integer or out of range",
    OVERFLOW: "ERR increment or decrement would overflow",
    TOO_LONG: "ERR string exceeds maximum allowed size of this server",
}


# --- moments and spans ----------------------------------------------------------------------


@attrs.frozen
class _Unit:
    """How a command counts time."""

    ms: int
    is_moment: bool = False
    """Whether it names a moment, counted from 1970, and not a span from now on."""


_OPTION_UNITS = {
    b"EX": _Unit(1000),
    b"PX": _Unit(1),
    b"EXAT": _Unit(1000, is_moment=True),
    b"PXAT": _Unit(1, is_moment=True),
}
_EXPIRE_UNITS = {
    b"EXPIRE": _Unit(1000),
    b"PEXPIRE": _Unit(1),
    b"EXPIREAT": _Unit(1000, is_moment=True),
    b"PEXPIREAT": _Unit(1, is_moment=True),
}


def _span_ms(argument: bytes, unit: _Unit, command: list[bytes], session: Session) -> int:
    """Return how long a key lives on; 0 or less for not at all."""
    span_ms = integer_of(argument) * unit.ms
    if unit.is_moment:
        span_ms -= session.surroundings.wall_clock_ms()
    if span_ms > LIFE_MS_MAX:
        raise _invalid_expire(command)
    return span_ms


def _life_ms(argument: bytes, unit: _Unit, command: list[bytes], session: Session) -> int:
    """Return how long a key lives that is set: a moment ago is as soon as possible."""
    if integer_of(argument) <= 0:
        raise _invalid_expire(command)
    return max(1, _span_ms(argument, unit, command, session))


def _invalid_expire(command: list[bytes]) -> CommandError:
    return CommandError(f"ERR invalid expire time in '{name_of(command).lower()}' command")


# --- setting --------------------------------------------------------------------------------


def _set(command: list[bytes], session: Session) -> Plan:
    key, value = command[1], value_of(command[2])
    ttl_ms, flags = 0, set()
    options = iter(command[3:])
    for option in options:
        word = option.upper()
        unit = _OPTION_UNITS.get(word)
        if unit is not None:
            argument = next(options, None)
            if argument is None or ttl_ms or b"KEEPTTL" in flags:
                raise CommandError(SYNTAX_ERROR)
            ttl_ms = _life_ms(argument, unit, command, session)
        elif word in (b"NX", b"XX", b"GET", b"KEEPTTL"):
            flags.add(word)
        else:
            raise CommandError(SYNTAX_ERROR)
    if {b"NX", b"XX"} <= flags or (ttl_ms and b"KEEPTTL" in flags):
        raise CommandError(SYNTAX_ERROR)
    step = SetKey(
        key_text(key),
        value,
        ttl_ms,
        b"KEEPTTL" in flags,
        b"NX" in flags,
        b"XX" in flags,
        b"GET" in flags,
    )
    form = _value_form(session) if b"GET" in flags else _ok_or_null(session)
    return Plan((step,), form, key)


def _setnx(command: list[bytes], session: Session) -> Plan:
    step = SetKey(key_text(command[1]), value_of(command[2]), if_absent=True)
    return Plan((step,), _applied_count, command[1])


def _setex(command: list[bytes], session: Session) -> Plan:
    unit = _OPTION_UNITS[b"PX" if command[0].upper() == b"PSETEX" else b"EX"]
    ttl_ms = _life_ms(command[2], unit, command, session)
    step = SetKey(key_text(command[1]), value_of(command[3]), ttl_ms)
    return Plan((step,), _ok, command[1])


def _getset(command: list[bytes], session: Session) -> Plan:
    step = SetKey(key_text(command[1]), value_of(command[2]), want_old=True)
    return Plan((step,), _value_form(session), command[1])


def _pairs(command: list[bytes]) -> list[SetKey]:
    if len(command) % 2 == 0:
        raise wrong_number(command)
    keys, values = islice(command, 1, None, 2), islice(command, 2, None, 2)
    return [SetKey(key_text(key), value_of(value)) for key, value in zip(keys, values, strict=True)]


def _mset(command: list[bytes], session: Session) -> Plan:
    return Plan(tuple(_pairs(command)), _ok, command[1])


def _msetnx(command: list[bytes], session: Session) -> Plan:
    steps = _pairs(command)
    conditions = {step.key: 0 for step in steps}

    def form(outcomes: Sequence[Outcome]) -> bytes:
        # None has been carried out where a condition did not hold.
        return integer(int(bool(outcomes)))

    return Plan(tuple(steps), form, command[1], tuple(conditions.items()))


def _append(command: list[bytes], session: Session) -> Plan:
    step = Append(key_text(command[1]), value_of(command[2]))
    return Plan((step,), _number, command[1])


# --- numbers --------------------------------------------------------------------------------


def _add(command: list[bytes], by: int) -> Plan:
    if not INTEGER_MIN <= by <= INTEGER_MAX:
        raise CommandError("ERR decrement would overflow")
    return Plan((AddTo(key_text(command[1]), by),), _number, command[1])


# --- reading --------------------------------------------------------------------------------


def _reads(keys: Sequence[bytes], form: OutcomesForm) -> Plan:
    return Plan(tuple([ReadKey(key_text(key)) for key in keys]), form, keys[0])


def _get(command: list[bytes], session: Session) -> Plan:
    return _reads(command[1:2], _value_form(session))


def _mget(command: list[bytes], session: Session) -> Plan:
    form = value_3 if session.protocol >= 3 else value_2
    return _reads(command[1:], lambda outcomes: array([form(each.value) for each in outcomes]))


def _strlen(command: list[bytes], session: Session) -> Plan:
    return _reads(command[1:], lambda outcomes: integer(len(outcomes[0].value or b"")))


def _getrange(command: list[bytes], session: Session) -> Plan:
    first, last = integer_of(command[2]), integer_of(command[3])

    def form(outcomes: Sequence[Outcome]) -> bytes:
        value = outcomes[0].value or b""
        if first < 0 and last < 0 and first > last:
            return bulk(b"")
        # Whoever counts from the end to before the beginning gets as far as that.
        start = max(0, first + len(value)) if first < 0 else first
        end = max(0, last + len(value)) if last < 0 else last
        return bulk(value[start : end + 1])

    return _reads(command[1:2], form)


def _exists(command: list[bytes], session: Session) -> Plan:
    return _reads(command[1:], _applied_count)


def _type(command: list[bytes], session: Session) -> Plan:
    return _reads(command[1:], lambda outcomes: simple("string" if outcomes[0].applied else "none"))


def _object(command: list[bytes], session: Session) -> Plan:
    if command[1].upper() != b"ENCODING":
        raise CommandError(
            f"ERR OBJECT {text_of(command[1])} is not supported by this server, only ENCODING is"
        )
    if len(command) != 3:
        raise wrong_number(command)
    null = session.null

    def form(outcomes: Sequence[Outcome]) -> bytes:
        value = outcomes[0].value
        # They are all kept in one way. What is a number can be counted with.
        return null if value is None else bulk(b"int" if _is_number(value) else b"raw")

    return _reads(command[2:], form)


def _is_number(value: bytes) -> bool:
    try:
        integer_of(value)
    except CommandError:
        return False
    return True


# --- removing -------------------------------------------------------------------------------


def _del(command: list[bytes], session: Session) -> Plan:
    steps = [RemoveKey(key_text(key)) for key in command[1:]]
    return Plan(tuple(steps), _applied_count, command[1])


def _getdel(command: list[bytes], session: Session) -> Plan:
    step = RemoveKey(key_text(command[1]), want_old=True)
    return Plan((step,), _value_form(session), command[1])


# --- lives ----------------------------------------------------------------------------------


def _expire(command: list[bytes], session: Session) -> Plan:
    unit = _EXPIRE_UNITS[command[0].upper()]
    ttl_ms = _span_ms(command[2], unit, command, session)
    condition = _life_condition([option.upper() for option in command[3:]])
    # To live for no time at all is another thing than for ever, which 0 stands for.
    step = SetLife(key_text(command[1]), ttl_ms if ttl_ms > 0 else -1, condition)
    return Plan((step,), _applied_count, command[1])


def _life_condition(options: list[bytes]) -> str:
    given = set(options)
    for option in given - {b"NX", b"XX", b"GT", b"LT"}:
        raise CommandError(f"ERR Unsupported option {text_of(option)}")
    if b"NX" in given and len(given) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if {b"GT", b"LT"} <= given:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    if given == {b"XX", b"LT"}:
        raise CommandError("ERR XX and LT at the same time are not supported by this server")
    # No life is longer than that of a key without one, so that GT includes XX.
    return min(given, default=b"").decode().lower()


def _persist(command: list[bytes], session: Session) -> Plan:
    return Plan((SetLife(key_text(command[1]), 0),), _applied_count, command[1])


def _getex(command: list[bytes], session: Session) -> Plan:
    name, form = key_text(command[1]), _value_form(session)
    options = [option.upper() for option in command[2:3]] + command[3:]
    if not options:
        return _reads(command[1:2], form)
    if options == [b"PERSIST"]:
        return Plan((ReadKey(name), SetLife(name, 0)), form, command[1])
    if len(options) != 2 or options[0] not in _OPTION_UNITS:
        raise CommandError(SYNTAX_ERROR)
    ttl_ms = _life_ms(options[1], _OPTION_UNITS[options[0]], command, session)
    return Plan((ReadKey(name), SetLife(name, ttl_ms)), form, command[1])


def _ttl(command: list[bytes], session: Session) -> Plan:
    name = command[0].upper()
    in_ms = name.startswith(b"P")
    # Moments are told by the clock of this server, from what is left by that of the cluster.
    now_ms = session.surroundings.wall_clock_ms() if name.endswith(b"TIME") else 0

    def form(outcomes: Sequence[Outcome]) -> bytes:
        (outcome,) = outcomes
        if not outcome.applied:
            return integer(-2)
        if outcome.ttl_ms is None:
            return integer(-1)
        ms = now_ms + outcome.ttl_ms
        return integer(ms if in_ms else (ms + MIDDLE_MS) // 1000)

    return _reads(command[1:], form)


# --- all of them ----------------------------------------------------------------------------

PLANNERS: Mapping[bytes, Planner] = {
    b"SET": _set,
    b"SETNX": _setnx,
    b"SETEX": _setex,
    b"PSETEX": _setex,
    b"GETSET": _getset,
    b"MSET": _mset,
    b"MSETNX": _msetnx,
    b"APPEND": _append,
    b"INCR": lambda command, session: _add(command, 1),
    b"DECR": lambda command, session: _add(command, -1),
    b"INCRBY": lambda command, session: _add(command, integer_of(command[2])),
    b"DECRBY": lambda command, session: _add(command, -integer_of(command[2])),
    b"GET": _get,
    b"MGET": _mget,
    b"STRLEN": _strlen,
    b"GETRANGE": _getrange,
    b"SUBSTR": _getrange,
    b"EXISTS": _exists,
    b"TOUCH": _exists,
    b"TYPE": _type,
    b"OBJECT": _object,
    b"DEL": _del,
    b"UNLINK": _del,
    b"GETDEL": _getdel,
    b"EXPIRE": _expire,
    b"PEXPIRE": _expire,
    b"EXPIREAT": _expire,
    b"PEXPIREAT": _expire,
    b"PERSIST": _persist,
    b"GETEX": _getex,
    b"TTL": _ttl,
    b"PTTL": _ttl,
    b"EXPIRETIME": _ttl,
    b"PEXPIRETIME": _ttl,
}


def plan_of(command: list[bytes], session: Session) -> Plan:
    """Return the plan of a command whose name is one of `PLANNERS`, in any case.

    Raises:
        CommandError: it is refused.
    """
    plan = PLANNERS[command[0].upper()](command, session)
    if len(plan.steps) > STEPS_MAX and not plan.only_reads:
        raise CommandError(f"ERR more than {STEPS_MAX} steps at once, ask for fewer keys")
    return plan
