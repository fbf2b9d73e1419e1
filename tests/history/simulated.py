"""Histories of an atomic register, and mutations of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from random import Random
from typing import Any

import attrs

from tests.history.brute_force import execute
from tests.history.format import (
    CAS,
    DELETE,
    FAIL,
    GET,
    OK,
    PUT,
    PUT_IF_ABSENT,
    UNKNOWN,
    Operation,
)
from tests.history.recorder import Recorder

Event = dict[str, Any]


@attrs.frozen(kw_only=True)
class Load:
    """What the clients of a simulated register do."""

    operations: int
    clients: int
    keys: int = 1
    unknown_rate: float = 0.1
    fail_rate: float = 0.05
    values: int | None = 3
    """How many different values there are; None: every write has a value of its own."""
    reads_rate: float = 0.4
    blind_rate: float = 0.5
    """Of the writes: put and delete, as opposed to conditional ones."""


@attrs.define(kw_only=True, eq=False)
class _Call:
    number: int
    client: str
    operation: Operation
    has_effect: bool = False
    answer: object = None


class SimulatedRegisters:
    """Registers that execute every operation at one instant, under clients that wait or give up.

    A client that gives up begins its next operation at once; the one that it gave up may take
    effect at any later time.
    """

    def __init__(self, random: Random, load: Load) -> None:
        self.recorder = Recorder()
        self._random = random
        self._load = load
        self._values: dict[str, str | None] = {f"k{key}": None for key in range(load.keys)}
        self._seen: dict[str, str | None] = {}
        self._calls: dict[str, _Call] = {}
        self._given_up: list[_Call] = []
        self._time_us = count()
        self._next_value = count()

    def run(self) -> list[Event]:
        """Return the events of the whole run. Some operations stay open at the end."""
        begun = 0
        while begun < self._load.operations or self._calls:
            client = f"c{self._random.randrange(self._load.clients)}"
            if client in self._calls:
                self._advance(self._calls[client])
            elif begun < self._load.operations:
                self._begin(client)
                begun += 1
            elif self._random.random() < 0.05:
                break
            if self._given_up and self._random.random() < 0.1:
                self._take_effect(self._random.choice(self._given_up))
        return self.recorder.events

    def _begin(self, client: str) -> None:
        key = self._random.choice(sorted(self._values))
        kind, fields = self._draw(client, key)
        number = self.recorder.invoke(client, kind, key, time_us=next(self._time_us), **fields)
        operation = Operation(
            number=number, client=client, kind=kind, key=key, invoked=0, arguments=fields
        )
        self._calls[client] = _Call(number=number, client=client, operation=operation)

    def _draw(self, client: str, key: str) -> tuple[str, Event]:
        random, load = self._random, self._load
        if random.random() < load.reads_rate:
            return GET, {}
        if random.random() < load.blind_rate:
            return (DELETE, {}) if random.random() < 0.2 else (PUT, {"value": self._value()})
        seen = self._seen.get(f"{client} {key}")
        if seen is None or random.random() < 0.2:
            return PUT_IF_ABSENT, {"value": self._value()}
        return CAS, {"expected": seen, "value": self._value()}

    def _value(self) -> str:
        if self._load.values is None:
            return f"v{next(self._next_value)}"
        return f"v{self._random.randrange(self._load.values)}"

    def _advance(self, call: _Call) -> None:
        random, time_us = self._random, next(self._time_us)
        if random.random() < self._load.unknown_rate / 2:
            del self._calls[call.client]
            if not call.has_effect:
                self._given_up.append(call)
            if random.random() < 0.5:
                self.recorder.unknown(call.number, time_us=time_us, error="timed out")
        elif not call.has_effect and random.random() < self._load.fail_rate:
            del self._calls[call.client]
            self.recorder.fail(call.number, time_us=time_us, error="not-leader")
        elif not call.has_effect:
            self._take_effect(call)
        else:
            del self._calls[call.client]
            kind = call.operation.kind
            fields: Event = {}
            if kind == GET:
                assert call.answer is None or isinstance(call.answer, str)
                fields["value"] = call.answer
                self._seen[f"{call.client} {call.operation.key}"] = call.answer
            elif kind in (CAS, PUT_IF_ABSENT):
                fields["applied"] = call.answer
            self.recorder.ok(call.number, time_us=time_us, **fields)

    def _take_effect(self, call: _Call) -> None:
        if call.has_effect:
            return
        key = call.operation.key
        self._values[key], call.answer = execute(call.operation, self._values[key])
        call.has_effect = True
        if call in self._given_up:
            self._given_up.remove(call)


def simulated_history(seed: int, load: Load) -> list[Event]:
    """Return a linearizable history that depends on nothing but the arguments."""
    return SimulatedRegisters(Random(seed), load).run()


def mutated(random: Random, events: Sequence[Event]) -> list[Event]:
    """Return the history with one event changed. It may be linearizable all the same."""
    history = [dict(event) for event in events]
    changes = list(_changes(history))
    random.shuffle(changes)
    if changes:
        index, fields = changes[0]
        if index is None:
            _swap_somewhere(random, history)
        else:
            history[index] |= fields
            # Without a completion it is as unknown as with one that says so.
            if history[index]["type"] == UNKNOWN:
                del history[index]
    return history


def _changes(history: Sequence[Event]) -> Iterator[tuple[int | None, Event]]:
    values = sorted({event["value"] for event in history if event.get("value")})
    yield None, {}
    yield None, {}
    for index, event in enumerate(history):
        if event["type"] == OK and "applied" in event:
            yield index, {"applied": not event["applied"]}
        if event["type"] == OK and "value" in event:
            for value in [None, *values]:
                if value != event["value"]:
                    yield index, {"value": value}
        if event["type"] in (OK, UNKNOWN):
            yield index, {"type": FAIL}
        if event["type"] == OK:
            yield index, {"type": UNKNOWN}


def _swap_somewhere(random: Random, history: list[Event]) -> None:
    # A completion moves up, over the invocations of others: their intervals overlap no longer.
    completions = [index for index, event in enumerate(history) if event["type"] == OK]
    if not completions:
        return
    index = random.choice(completions)
    event = history.pop(index)
    while index > 0 and history[index - 1].get("op") != event["op"] and random.random() < 0.8:
        index -= 1
    history.insert(index, event)
