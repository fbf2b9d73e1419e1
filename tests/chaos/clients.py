"""Clients that never rest, and the history of what they were told.

Each is a thread with a session of its own. It reads and writes a few keys that all of them fight
for, appends unique tokens to others, and puts keys of its own that nobody else writes: such a key
has version 1 for ever unless a write that was sent again was also done again.

Contended keys change their names every few seconds, so that each has a short history to judge.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable

import attrs

from raftctl.client import Cluster as Client
from raftctl.client import expect
from raftctl.errors import CliError, OutcomeUnknown, Refused, Unreachable, Unsafe
from raftd.protocol import (
    CompareAndSetRequest,
    DeleteRequest,
    GetReply,
    GetRequest,
    PutRequest,
    Request,
    WriteReply,
)
from tests.history.recorder import Recorder

OPERATION_TIMEOUT_MS = 5_000.0
"""Longer than an election. What is not answered by then is unknown."""
HASTY_MS = 1_000.0
"""For one server's answer; then the next one is asked the same under the same serial. Every other
client is as patient as an operation is long: what a leader that was frozen answers when it goes
on, before it has heard of its successor, must reach somebody."""
APPEND_ATTEMPTS_MAX = 50
"""For one token; the keys are contended, and the cluster may be away for a while."""
THINK_S_MAX = 0.03
"""Between two operations: a history that can be judged, not a benchmark."""
REGISTER_KEYS = 3
APPEND_KEYS = 2
EPOCH_S = 5.0
"""After this time contended keys have new names."""
JOIN_TIMEOUT_S = 60.0
"""For a client to finish what it is doing after it was told to stop."""
ONCE_PREFIX = "once/"

KINDS = (
    "get",
    "get",
    "get",
    "put",
    "put",
    "cas",
    "cas",
    "put-if-absent",
    "delete",
    "append",
    "once",
)

Build = Callable[[str, int, int], Request]


@attrs.define
class Tally:
    """How the operations of a client ended."""

    ok: int = 0
    failed: int = 0
    """Certainly not applied, nor will they be."""
    unknown: int = 0

    def add(self, other: Tally) -> None:
        """Add the numbers of `other`."""
        self.ok += other.ok
        self.failed += other.failed
        self.unknown += other.unknown


class History:
    """The recorder and its clock, for all clients of a run."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._started_s = time.monotonic()

    @property
    def now_us(self) -> int:
        """Since the start, in microseconds."""
        return round(1e6 * (time.monotonic() - self._started_s))

    @property
    def epoch(self) -> int:
        """The number in the names of contended keys."""
        return int((time.monotonic() - self._started_s) / EPOCH_S)

    def keys(self, kind: str) -> list[str]:
        """Return the keys of all operations so far of append keys, or of all others."""
        return sorted(
            {
                event["key"]
                for event in self.recorder.events
                if event["type"] == "invoke" and (event["kind"] == "append") == (kind == "append")
            }
        )


class ChaosClient(threading.Thread):
    """One client, until it is told to stop."""

    def __init__(
        self, number: int, *, seed: int, client: Client, history: History, stop: threading.Event
    ) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.label = f"c{number}"
        self.tally = Tally()
        self.success_s: list[float] = []
        """When operations were acknowledged, on the monotonic clock."""
        self.once: dict[str, str] = {}
        """What became of the put of each of its own keys: ok, failed or unknown."""
        self.error: Exception | None = None
        self._rng = random.Random(f"{seed}/client/{number}")
        self._reply_timeout_ms = HASTY_MS if number % 2 else OPERATION_TIMEOUT_MS
        self._client = client
        self._history = history
        self._recorder = history.recorder
        self._stop_event = stop
        self._count = 0
        self._seen: dict[str, str] = {}
        """The value that it last saw at each key."""

    def run(self) -> None:
        try:
            with self._client:
                while not self._stop_event.wait(self._rng.uniform(0, THINK_S_MAX)):
                    self._count += 1
                    self._operate(self._rng.choice(KINDS))
        except Exception as error:
            self.error = error

    # --- operations ---

    def _operate(self, kind: str) -> None:
        epoch = self._history.epoch
        if kind == "once":
            self._put_once()
        elif kind == "append":
            self._append(f"append/{self._rng.randrange(APPEND_KEYS)}/{epoch}")
        elif kind == "get":
            self._get(f"register/{self._rng.randrange(REGISTER_KEYS)}/{epoch}")
        else:
            self._write(kind, f"register/{self._rng.randrange(REGISTER_KEYS)}/{epoch}")

    def _get(self, key: str) -> None:
        operation = self._recorder.invoke(self.label, "get", key, time_us=self._history.now_us)
        try:
            value = self._read(key)
        except CliError as error:
            self._fail(operation, error)
            return
        self._ok(operation, value=value)

    def _write(self, kind: str, key: str) -> None:
        value = f"{self.label}-{self._count}"
        fields = {} if kind == "delete" else {"value": value}
        if kind == "cas":
            fields["expected"] = self._seen.get(key, "nothing")
        invoked_us = self._history.now_us
        operation = self._recorder.invoke(self.label, kind, key, time_us=invoked_us, **fields)
        try:
            applied = self._send(_build(kind, key, value, fields.get("expected", "")))
        except OutcomeUnknown as error:
            self._unknown(operation, error)
        except (Unreachable, Refused, Unsafe) as error:
            self._fail(operation, error)
        else:
            if applied and kind != "delete":
                self._seen[key] = value
            results = {"applied": applied} if kind in ("cas", "put-if-absent") else {}
            self._ok(operation, **results)

    def _append(self, key: str) -> None:
        """Append a token by a get and a compare-and-set, until it is certain.

        Values of such a key never repeat, so an earlier attempt that is still under way can no
        longer succeed once the value has changed.
        """
        token = f"{self.label}-{self._count}"
        invoked_us = self._history.now_us
        operation = self._recorder.invoke(
            self.label, "append", key, time_us=invoked_us, token=token
        )
        error: CliError | None = None
        sent = False
        for _ in range(APPEND_ATTEMPTS_MAX):
            try:
                value = self._read(key)
                if value is not None and token in value.split(" "):
                    self._ok(operation)
                    return
                longer = token if value is None else f"{value} {token}"
                kind = "put-if-absent" if value is None else "cas"
                if self._stop_event.is_set() and error is not None:
                    break
                sent = True
                if self._send(_build(kind, key, longer, value or "")):
                    self._ok(operation)
                    return
            except (OutcomeUnknown, Unreachable, Refused) as problem:
                error = problem
        if sent:
            self._unknown(operation, error)
        else:
            self._fail(operation, error)

    def _put_once(self) -> None:
        key = f"{ONCE_PREFIX}{self.label}/{self._count:06d}"
        try:
            self._send(_build("put", key, f"{self._count}", ""))
        except OutcomeUnknown:
            self.once[key] = "unknown"
            self.tally.unknown += 1
        except (Unreachable, Refused, Unsafe):
            self.once[key] = "failed"
            self.tally.failed += 1
        else:
            self.once[key] = "ok"
            self._succeeded()

    # --- requests and their ends ---

    def _read(self, key: str) -> str | None:
        reply = expect(
            self._client.ask(GetRequest(key=key), reply_timeout_ms=self._reply_timeout_ms), GetReply
        )
        if not reply.found:
            return None
        self._seen[key] = reply.value.decode()
        return self._seen[key]

    def _send(self, build: Build) -> bool:
        reply = self._client.write(build, reply_timeout_ms=self._reply_timeout_ms)
        return expect(reply, WriteReply).applied

    def _succeeded(self) -> None:
        self.tally.ok += 1
        self.success_s.append(time.monotonic())

    def _ok(self, operation: int, **results: object) -> None:
        self._recorder.ok(operation, time_us=self._history.now_us, **results)
        self._succeeded()

    def _fail(self, operation: int, error: CliError | None) -> None:
        self._recorder.fail(operation, time_us=self._history.now_us, error=str(error))
        self.tally.failed += 1

    def _unknown(self, operation: int, error: CliError | None) -> None:
        self._recorder.unknown(operation, time_us=self._history.now_us, error=str(error))
        self.tally.unknown += 1


def _build(kind: str, key: str, value: str, expected: str) -> Build:
    """Return what makes the request of this kind, given session, serial and lowest serial."""

    def build(session: str, serial: int, lowest: int) -> Request:
        if kind == "delete":
            return DeleteRequest(
                session=session, serial=serial, lowest_unacknowledged=lowest, key=key
            )
        if kind == "cas":
            return CompareAndSetRequest(
                session=session,
                serial=serial,
                lowest_unacknowledged=lowest,
                key=key,
                expected=expected.encode(),
                value=value.encode(),
            )
        return PutRequest(
            session=session,
            serial=serial,
            lowest_unacknowledged=lowest,
            key=key,
            value=value.encode(),
            if_absent=kind == "put-if-absent",
        )

    return build


class Load:
    """All clients of a run."""

    def __init__(
        self, make_client: Callable[[], Client], *, clients: int, seed: int, history: History
    ) -> None:
        self._stop_event = threading.Event()
        self.clients = [
            ChaosClient(
                number, seed=seed, client=make_client(), history=history, stop=self._stop_event
            )
            for number in range(clients)
        ]

    def start(self) -> None:
        """Start them."""
        for client in self.clients:
            client.start()

    def stop(self) -> list[str]:
        """Let each finish what it is doing; return what went wrong with them themselves."""
        self._stop_event.set()
        deadline_s = time.monotonic() + JOIN_TIMEOUT_S
        problems = []
        for client in self.clients:
            if client.ident is not None:
                client.join(max(0.0, deadline_s - time.monotonic()))
            if client.is_alive():
                problems.append(f"{client.name} has not ended after {JOIN_TIMEOUT_S} s")
            elif client.error is not None:
                problems.append(f"{client.name}: {client.error!r}")
        return problems

    def all_succeeded_since(self, since_s: float) -> bool:
        """Return whether each client was served after `since_s`, or has ended by an error."""
        return all(
            client.error is not None or (client.success_s and client.success_s[-1] > since_s)
            for client in self.clients
        )

    @property
    def tally(self) -> Tally:
        """Of all clients together."""
        total = Tally()
        for client in self.clients:
            total.add(client.tally)
        return total

    @property
    def once(self) -> dict[str, str]:
        """What became of each key that is written once."""
        return {key: outcome for client in self.clients for key, outcome in client.once.items()}

    def longest_gap_s(self, start_s: float, end_s: float) -> float:
        """Return the longest time between these moments in which nobody was served."""
        times_s = sorted(
            at_s for client in self.clients for at_s in client.success_s if start_s < at_s < end_s
        )
        moments_s = [start_s, *times_s, end_s]
        return max(later - earlier for earlier, later in itertools.pairwise(moments_s))
