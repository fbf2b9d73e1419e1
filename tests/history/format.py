"""Events, and the operations that they tell of. The package's docstring describes the format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

GET = "get"
PUT = "put"
PUT_IF_ABSENT = "put-if-absent"
DELETE = "delete"
CAS = "cas"
APPEND = "append"
INCREMENT = "increment"

ARGUMENTS: dict[str, tuple[str, ...]] = {
    GET: (),
    PUT: ("value",),
    PUT_IF_ABSENT: ("value",),
    DELETE: (),
    CAS: ("expected", "value"),
    APPEND: ("token",),
    INCREMENT: (),
}
"""The fields of the invocation of each kind; all are strings."""

OK = "ok"
FAIL = "fail"
UNKNOWN = "unknown"
INVOKE = "invoke"
FINAL = "final"
COMPLETIONS = (OK, FAIL, UNKNOWN)
NO_REGISTERS = (APPEND, INCREMENT)
"""Kinds that no other kind may stand beside on its key. Their keys have a final value."""
_RESULTS = {GET: "value", CAS: "applied", PUT_IF_ABSENT: "applied", INCREMENT: "number"}
"""The field of the result of each kind that has one."""

SHOWN_CHARACTERS_MAX = 60
"""Of a value or a line in a message: enough to find it in the file."""


class HistoryError(ValueError):
    """The events are not a history. `line` counts them from 1, as the lines of a file."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line


@attrs.define(kw_only=True, eq=False)
class Operation:
    """One operation of a client, from its invocation to what became of it."""

    number: int
    client: str
    kind: str
    key: str
    invoked: int
    """The line of its invocation, from 1."""
    arguments: Mapping[str, Any]
    outcome: str = UNKNOWN
    """ok, fail or unknown; unknown too as long as there is no completion."""
    completed: int | None = None
    """The line of its completion."""
    result: Any = None
    """Of an acknowledged get the value, of a conditional write whether it was applied, of an
    increment the number that it has led to."""

    @property
    def token(self) -> str:
        """What an append appends."""
        token: str = self.arguments["token"]
        return token

    @property
    def failed(self) -> bool:
        """Whether it certainly had no effect."""
        return self.outcome == FAIL

    @property
    def acknowledged(self) -> bool:
        """Whether it was answered with ok."""
        return self.outcome == OK

    def __str__(self) -> str:
        arguments = " ".join(shown(self.arguments[name]) for name in ARGUMENTS[self.kind])
        call = f"{self.kind} {arguments}".rstrip()
        if not self.acknowledged:
            answer = self.outcome
        elif self.kind == GET:
            answer = shown(self.result)
        elif self.kind in (CAS, PUT_IF_ABSENT):
            answer = "applied" if self.result else "not applied"
        elif self.kind == INCREMENT:
            answer = f"{self.result}"
        else:
            answer = OK
        return f"op {self.number} by {self.client}: {call} -> {answer}"


@attrs.frozen(kw_only=True)
class Final:
    """The value of an append key or a counter at the end."""

    line: int
    value: str | None


@attrs.frozen
class History:
    """All operations and final values, by key."""

    operations: dict[str, list[Operation]]
    """Of each key, in the order of their invocations."""
    finals: dict[str, list[Final]]

    @property
    def keys(self) -> list[str]:
        """Every key that occurs, sorted."""
        return sorted(self.operations.keys() | self.finals.keys())

    @property
    def operation_count(self) -> int:
        """How many operations were invoked."""
        return sum(len(operations) for operations in self.operations.values())


def shown(value: str | None) -> str:
    """Return `value` as it stands in the file, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}..."


def read_events(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the events of a file, one for each line.

    Raises:
        HistoryError: a line is not a JSON object.
        OSError: the file cannot be read.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError) as error:
                start = line[:SHOWN_CHARACTERS_MAX].decode(errors="replace").rstrip("\n")
                raise HistoryError(number, f"not JSON ({error}): {start!r}") from None
            yield event


def read_history(events: Iterable[Mapping[str, Any]]) -> History:
    """Return the operations that `events` tell of.

    Raises:
        HistoryError: an event has a wrong form, or does not fit the ones before it.
    """
    history = History({}, {})
    operations: dict[int, Operation] = {}
    for line, event in enumerate(events, start=1):
        if not isinstance(event, Mapping):
            raise HistoryError(line, f"an event is a JSON object, not {event!r}")
        _field(line, event, "time_us", int, required=False)
        kind = event.get("type")
        if kind == INVOKE:
            operation = _invocation(line, event)
            if operation.number in operations:
                earlier = operations[operation.number].invoked
                raise HistoryError(line, f"op {operation.number} was invoked in line {earlier}")
            operations[operation.number] = operation
            history.operations.setdefault(operation.key, []).append(operation)
        elif kind in COMPLETIONS:
            _complete(line, event, operations)
        elif kind == FINAL:
            key = _field(line, event, "key", str)
            value = _field(line, event, "value", (str, type(None)))
            history.finals.setdefault(key, []).append(Final(line=line, value=value))
        else:
            raise HistoryError(line, f"type is {kind!r}, not invoke, ok, fail, unknown or final")
    _refuse_mixed_keys(history)
    _refuse_repeated_tokens(history)
    return history


def check_arguments(kind: object, fields: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an invocation, or None."""
    if not isinstance(kind, str) or kind not in ARGUMENTS:
        return f"kind is {kind!r}, not one of {', '.join(ARGUMENTS)}"
    for name in ARGUMENTS[kind]:
        if not isinstance(fields.get(name), str):
            return f"a {kind} needs the string {name!r}"
    if kind == APPEND and (not fields["token"] or " " in fields["token"]):
        return "a token is not empty and has no spaces"
    return None


def check_results(kind: str, fields: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the results of an acknowledged operation, or None."""
    if kind == GET and not ("value" in fields and isinstance(fields["value"], str | None)):
        return "an acknowledged get needs 'value', a string or null"
    if kind in (CAS, PUT_IF_ABSENT) and not isinstance(fields.get("applied"), bool):
        return f"an acknowledged {kind} needs 'applied', true or false"
    if kind == INCREMENT and type(fields.get("number")) is not int:
        return "an acknowledged increment needs 'number', a whole number"
    return None


def _invocation(line: int, event: Mapping[str, Any]) -> Operation:
    problem = check_arguments(event.get("kind"), event)
    if problem is not None:
        raise HistoryError(line, problem)
    return Operation(
        number=_field(line, event, "op", int),
        client=_field(line, event, "client", str),
        kind=event["kind"],
        key=_field(line, event, "key", str),
        invoked=line,
        arguments=event,
    )


def _complete(line: int, event: Mapping[str, Any], operations: Mapping[int, Operation]) -> None:
    number = _field(line, event, "op", int)
    operation = operations.get(number)
    if operation is None:
        raise HistoryError(line, f"op {number} was never invoked")
    if operation.completed is not None:
        raise HistoryError(line, f"op {number} was completed in line {operation.completed}")
    operation.outcome = event["type"]
    operation.completed = line
    if operation.acknowledged:
        problem = check_results(operation.kind, event)
        if problem is not None:
            raise HistoryError(line, f"op {number}: {problem}")
        operation.result = event.get(_RESULTS.get(operation.kind, ""))


def _field(
    line: int,
    event: Mapping[str, Any],
    name: str,
    expected: type | tuple[type, ...],
    *,
    required: bool = True,
) -> Any:
    if name not in event:
        if required:
            raise HistoryError(line, f"{name!r} is missing")
        return None
    value = event[name]
    # To Python true and false are whole numbers, to a history they are not.
    if not isinstance(value, expected) or isinstance(value, bool):
        raise HistoryError(line, f"{name!r} is {value!r}, which has the wrong type")
    return value


def _refuse_mixed_keys(history: History) -> None:
    for key, operations in history.operations.items():
        first = operations[0].kind
        for operation in operations:
            if operation.kind != first and {operation.kind, first} & {*NO_REGISTERS}:
                raise HistoryError(
                    operation.invoked,
                    f"key {shown(key)} has both {first} and {operation.kind}, "
                    f"such as op {operations[0].number} and op {operation.number}",
                )
        if key in history.finals and first not in NO_REGISTERS:
            raise HistoryError(
                history.finals[key][0].line,
                f"key {shown(key)} has register operations: record a get instead of a final value",
            )


def _refuse_repeated_tokens(history: History) -> None:
    for key, operations in history.operations.items():
        if operations[0].kind != APPEND:
            continue
        appends: dict[str, Operation] = {}
        for operation in operations:
            earlier = appends.setdefault(operation.token, operation)
            if earlier is not operation:
                raise HistoryError(
                    operation.invoked,
                    f"op {operation.number} appends {shown(operation.token)} to {shown(key)}, "
                    f"as op {earlier.number} did: a token is used once",
                )
