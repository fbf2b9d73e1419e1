"""Clients of a simulated run as those of the Redis listener: batches, and no sessions.

Such a client sends several commands at once, or reads several keys, and never asks again: what was
not answered may have been done. As the listener does, it sends what only the newest release can
apply as long as the server knows that all of them can.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import attrs

from raftd.commands import (
    FEATURES_COUNTERS,
    FEATURES_LIVES,
    Command,
    CommandBody,
    Delete,
    DeleteMany,
    Increment,
    Put,
    PutMany,
    Result,
    Transaction,
    encode_command,
    encode_put,
)
from raftd.inputs import CommandsArrived, Input, KeysArrived
from raftd.protocol import ErrorReply, Reply
from tests.history.recorder import Recorder
from tests.simulation.clients import COUNTER_KEY, NOT_TAKEN, PATIENCE_US
from tests.simulation.lives import Promise, Promises
from tests.simulation.machine import RETRY_US, Machine
from tests.simulation.network import Network
from tests.simulation.world import World

COMMANDS_MAX = 4
"""Of one batch."""
PAUSE_FACTOR = 3
"""So much longer than others such a client rests: with each batch it does as much more."""
_SINCE = {
    **dict.fromkeys((Increment, PutMany, DeleteMany), FEATURES_COUNTERS),
    Transaction: FEATURES_LIVES,
}
"""The features without which the listener refuses a command."""


@attrs.define(eq=False)
class _Waiter:
    """Waits on the server for one command. What it is told goes back to the client."""

    answer: Callable[..., None]
    tell: Callable[[Result | ErrorReply], None]
    told: bool = False

    def done(self, result: Result) -> None:
        self._take(result)

    def failed(self, error: ErrorReply) -> None:
        self._take(error)

    def _take(self, outcome: Result | ErrorReply) -> None:
        assert not self.told, f"told twice, at last {outcome}"
        self.told = True
        self.answer(self.tell, outcome)


@attrs.define(eq=False)
class _Sent:
    """A command of a batch, and the operations of the history that it is."""

    body: CommandBody
    operations: list[int]
    open: bool = True
    promise: Promise | None = None
    """Of a key with a life, what is known of it; then it is no operation of the history."""
    sent_us: int = 0


class BatchingClient:
    """One client. `act` begins the next batch; everything after that is answers and time."""

    def __init__(
        self, name: str, *, world: World, network: Network, recorder: Recorder, keys: int
    ) -> None:
        self.name = name
        self.stops = False
        """Finish what is under way, begin nothing else."""
        self.finished = False
        self.asked_patiently = False
        """Of no consequence: it never asks twice."""
        self._world = world
        self._network = network
        self._recorder = recorder
        self._keys = [f"k{number}" for number in range(keys)]
        self._random = world.random(f"client {name}")
        self._promises = Promises(name, world)
        self._values = 0
        self._batch = 0
        """Grows with each batch: answers to an earlier one are not waited for any more."""

    def act(self) -> None:
        """Begin the next thing."""
        if self.stops:
            self.finished = True
            return
        up = self._network.up()
        leading = [machine for machine in up if machine.leads]
        chosen = leading if leading and self._random.random() < 0.9 else up
        if not chosen:
            self._world.after(RETRY_US, self.act)
            return
        self._batch += 1
        machine = self._random.choice(chosen)
        if self._random.random() < 0.4:
            self._read(machine)
        else:
            self._write(machine)

    def _rest(self) -> None:
        pause_us = PAUSE_FACTOR * self._world.profile.client_pause_us
        self._world.after(round(self._random.expovariate(1 / pause_us)), self.act)

    def _invoke(self, kind: str, key: str, **fields: str) -> int:
        self._world.count("operations of batching clients")
        return self._recorder.invoke(self.name, kind, key, time_us=self._world.now_us, **fields)

    def _new_value(self) -> str:
        self._values += 1
        return f"{self.name}-{self._values}"

    # --- writes ---

    def _write(self, machine: Machine) -> None:
        count = self._random.randint(1, COMMANDS_MAX)
        batch, sent = self._batch, [self._command() for _ in range(count)]
        life = self._promises.command()
        if life is not None:
            body, promise = life
            sent.append(_Sent(body, [], promise=promise, sent_us=self._world.now_us))

        def make(answer: Callable[..., None]) -> Input | None:
            commands, waiters = [], []
            for each in sent:
                tell = functools.partial(take, each)
                if machine.state.features >= _SINCE.get(type(each.body), 0):
                    commands.append(_encoded(each.body))
                    waiters.append(_Waiter(answer, tell))
                else:
                    refusal = ErrorReply(code="unavailable", message="not every server knows it")
                    self._world.after(0, tell, refusal)
            return CommandsArrived(commands, waiters) if commands else None

        def take(each: _Sent, outcome: Result | ErrorReply) -> None:
            if each.open:
                each.open = False
                self._note(each, outcome)
                if batch == self._batch and not any(other.open for other in sent):
                    self._batch += 1
                    self._rest()

        def silence() -> None:
            if batch == self._batch:
                self._batch += 1
                for each in sent:
                    if each.open:
                        each.open = False
                        self._end(each, self._recorder.unknown)
                self._rest()

        self._network.hand_over(self.name, machine, make)
        self._world.after(PATIENCE_US, silence)

    def _command(self) -> _Sent:
        """Draw a command; of several keys it is an operation on each, at the same time."""
        draw = self._random.random()
        key = self._random.choice(self._keys)
        if draw < 0.3:
            self._world.count("commands of batches: increments")
            return _Sent(Increment(COUNTER_KEY, 1), [self._invoke("increment", COUNTER_KEY)])
        if draw < 0.5:
            value = self._new_value()
            return _Sent(Put(key, value.encode()), [self._invoke("put", key, value=value)])
        if draw < 0.6:
            return _Sent(Delete(key), [self._invoke("delete", key)])
        count = self._random.randint(1, len(self._keys))
        keys = self._random.sample(self._keys, count)
        if draw < 0.85:
            self._world.count("commands of batches: several keys set")
            pairs = [(each, self._new_value()) for each in keys]
            operations = [self._invoke("put", each, value=value) for each, value in pairs]
            return _Sent(PutMany([(each, value.encode()) for each, value in pairs]), operations)
        self._world.count("commands of batches: several keys deleted")
        return _Sent(DeleteMany(keys), [self._invoke("delete", each) for each in keys])

    def _note(self, sent: _Sent, outcome: Result | ErrorReply) -> None:
        if isinstance(outcome, ErrorReply):
            assert outcome.code in (*NOT_TAKEN, "unknown-outcome"), outcome
            is_certain = outcome.code in NOT_TAKEN
            self._end(sent, self._recorder.fail if is_certain else self._recorder.unknown)
            return
        assert not outcome.code, outcome
        if sent.promise is not None:
            assert isinstance(sent.body, Transaction)
            self._promises.answered(sent.body, sent.promise, sent.sent_us, outcome)
        for operation in sent.operations:
            fields = {"number": outcome.number} if isinstance(sent.body, Increment) else {}
            self._recorder.ok(operation, time_us=self._world.now_us, **fields)

    def _end(self, sent: _Sent, note: Callable[..., None]) -> None:
        for operation in sent.operations:
            note(operation, time_us=self._world.now_us)

    # --- reads ---

    def _read(self, machine: Machine) -> None:
        batch = self._batch
        keys = self._random.sample(self._keys, self._random.randint(1, len(self._keys)))
        operations = [self._invoke("get", key) for key in keys]
        promises = self._promises.to_read()
        keys += [promise.key for promise in promises]
        # To the invariants it is what tells two reads apart.
        called: list[object] = []

        def make(answer: Callable[..., None]) -> Input:
            machine.watch.tell("read_arrived", machine, called)

            def respond(values: Sequence[bytes | None]) -> None:
                assert not called
                assert 1 <= len(values) <= len(keys)
                machine.watch.tell("read_answered", machine, called)
                called.append(values)
                answer(take, list(values))

            def failed(reply: Reply) -> None:
                assert not called
                called.append(reply)
                answer(take, [])

            return KeysArrived([key.encode() for key in keys], respond, failed)

        def take(values: list[bytes | None]) -> None:
            if batch == self._batch:
                end(values)

        def end(values: list[bytes | None]) -> None:
            self._batch += 1
            now_us = self._world.now_us
            for operation, value in zip(operations, values, strict=False):
                found = value.decode() if value is not None else None
                self._recorder.ok(operation, time_us=now_us, value=found)
            for operation in operations[len(values) :]:
                self._recorder.unknown(operation, time_us=now_us)
            for promise, value in zip(promises, values[len(operations) :], strict=False):
                self._promises.read(promise, value)
            if 0 < len(values) < len(keys):
                self._world.count("reads of which a part was answered")
            self._rest()

        self._network.hand_over(self.name, machine, make)
        self._world.after(PATIENCE_US, lambda: take([]))


def _encoded(body: CommandBody) -> bytes:
    if isinstance(body, Put):
        return encode_put(body.key, body.value)
    return encode_command(Command(body))
