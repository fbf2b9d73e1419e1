"""The clients of a benchmark: each a session, a connection, and some requests on their way.

A request that changes something keeps its session and serial until somebody has answered it,
however often it has to be sent: the cluster does it once (dissertation section 6.3). Its time
counts from the first attempt. What became of each attempt is counted by class, see `Errors`.
"""

from __future__ import annotations

import os
import selectors
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs

from raftctl.bench_frames import Frames, unpack_reply
from raftctl.bench_links import BUSY, NANOSECONDS, Link
from raftctl.latencies import Latencies
from raftd.codec import WireError

PUT, GET, DELETE, OPEN = "put", "get", "delete", "open"
"""What a request asks for; `OPEN` opens the session of its client."""
_IDLE, _PAUSED = "", "paused"
"""What a slot does instead of a request; one that pauses goes on by itself."""
_ANSWERS = {PUT: "write", DELETE: "write", GET: "get", OPEN: "done"}
RETRY_NS = 20_000_000
"""Before a request is sent again that was not taken."""
REFUSED_NS = 100_000_000
"""Before the next request of whoever was refused one: a full disk is not freed in milliseconds."""
REPLY_TIMEOUT_NS = 5 * NANOSECONDS
"""Longer than any election; a server that is stopped is then left for the next."""
CONNECT_TIMEOUT_NS = 2 * NANOSECONDS
"""To connect and be welcomed."""
REDIAL_NS = 50_000_000
"""Between two attempts to reach a server."""
SERIALS_WINDOW = 256
"""Between the lowest unacknowledged serial of a session and the next one: the cluster keeps the
results of so many and more."""

Task = tuple[str, int]
"""What to ask for, and the number of the key."""
Source = Callable[[], Task | None]
"""Says what to do next; None for nothing more."""


@attrs.define(kw_only=True)
class Errors:
    """Attempts that brought no result, by what is known of them."""

    redirected: int = 0
    """Another server leads; nothing was done, and it was sent there."""
    not_applied: int = 0
    """Nothing was done, since there was no leader, or a read got no answer; it was sent again."""
    unknown: int = 0
    """A write whose answer was lost: it may have been done. It was sent again under its serial, so
    that it was done once."""
    refused: int = 0
    """The cluster has said no; it was not sent again."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.redirected + self.not_applied + self.unknown + self.refused


class Ended(Exception):
    """Nothing can be measured any more: the message says why, in words, `code` for programs."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Surroundings(Protocol):
    """What clients need of the benchmark that they belong to."""

    errors: Errors
    is_measuring: bool
    """Whether requests that start now count."""
    is_strict: bool
    """Whether a refusal ends it all."""
    active: int
    """Pipelines that have something to do."""
    refusal: str
    """The first refusal, in words; empty without one."""
    written: Callable[[int, object], None] | None
    """Told the key and the revision of each put that was acknowledged."""
    missed: int
    """Reads that found no key."""

    @property
    def leader(self) -> str:
        """HOST:PORT; empty while none is known."""

    def server_for(self, client: int, attempt: int) -> str:
        """Return where a client reads that does not ask the leader; empty if nobody knows."""

    def pointed_at(self, address: str, by: str) -> None:
        """Take in whom a server names as the leader."""

    def lost(self, address: str) -> None:
        """Take in that a server does not answer."""

    def doubt(self) -> None:
        """Take in that the leader cannot serve."""

    def later(self, act: Callable[[], None], pause_ns: int) -> None:
        """Call `act` after a pause."""

    def gave_up(self, slot: Slot) -> None:
        """Take in that nobody will know whether a write was done."""

    def heard(self, now_ns: int) -> None:
        """Take in that results have come at this moment."""


class Slot:
    """One of the requests that a client may have on their way."""

    __slots__ = (
        "client",
        "counted",
        "doubtful",
        "key",
        "kind",
        "lane",
        "number",
        "serial",
        "started_ns",
    )

    def __init__(self, client: BenchClient, number: int) -> None:
        self.client = client
        self.number = number
        """Of its requests: it has one at a time."""
        self.kind = _IDLE
        """What its request asks for."""
        self.key = 0
        self.serial = 0
        self.started_ns = 0
        self.counted = False
        """Whether it began while the benchmark measures."""
        self.doubtful = False
        """Whether an attempt may have been executed without an answer."""
        self.lane: Lane | None = None
        """Where its request is on its way; None if it is not."""


class Lane(Link):
    """A connection of a client: to the leader, or for stale reads to one server of its own."""

    def __init__(
        self,
        client: BenchClient,
        selector: selectors.BaseSelector,
        cluster_id: str,
        *,
        tls: ssl.SSLContext | None,
        follows_leader: bool,
    ) -> None:
        super().__init__(selector, cluster_id, tls)
        self._client = client
        self._bench = client.bench
        self._follows_leader = follows_leader
        self._waiting: list[Slot] = []
        """Those whose request is to be sent once the link is up."""
        self._in_flight = 0
        self._is_leaving = False
        """Whether nothing more is sent to this server, and the link closed after the last reply."""
        self._heard_ns = 0
        self._attempt = 0

    def submit(self, slot: Slot) -> None:
        """Queue the request of `slot`, or keep it until the link is up."""
        if not self.is_up or self._is_leaving:
            self._waiting.append(slot)
            return
        if not self._in_flight:
            self._heard_ns = time.monotonic_ns()
        self._in_flight += 1
        slot.lane = self
        self.queue(self._client.frame(slot))

    def tend(self, now_ns: int) -> None:
        """Dial, redial or give up as the time asks for; to be called often."""
        if self.stream is None:
            if self._waiting and now_ns - self.dialled_ns >= REDIAL_NS:
                address = self._destination()
                if address:
                    self.dial(address)
        elif not self.is_up:
            if now_ns - self.dialled_ns >= CONNECT_TIMEOUT_NS:
                self.fail("no connection in time")
        elif self._in_flight and now_ns - self._heard_ns >= REPLY_TIMEOUT_NS:
            self.fail("no answer in time")
        elif self._follows_leader and self._bench.leader not in ("", self.address):
            self._leave()

    def _destination(self) -> str:
        if self._follows_leader:
            return self._bench.leader
        return self._bench.server_for(self._client.number, self._attempt)

    def _leave(self) -> None:
        """Go to another server, as soon as this one has answered everything."""
        self._is_leaving = True
        if not self._in_flight:
            self.close()
            self._is_leaving = False
            self.dialled_ns = 0

    # --- what the link brings ---

    def up(self) -> None:
        """Send what has waited, in the order of the serials."""
        self._is_leaving = False
        self._in_flight = 0
        waiting, self._waiting = self._waiting, []
        for slot in sorted(waiting, key=lambda slot: slot.serial):
            self.submit(slot)
        self.flush()

    def received(self, payloads: Sequence[bytes]) -> None:
        """Take in replies, and let each slot go on."""
        now_ns = time.monotonic_ns()
        self._heard_ns = now_ns
        client = self._client
        slots = client.slots
        done = False
        for payload in payloads:
            try:
                number, tag, fields = unpack_reply(payload)
                slot = slots[number]
            except (ValueError, TypeError, IndexError) as error:
                raise WireError(f"a reply that is none: {error}") from None
            if slot.lane is not self or type(fields) is not dict:
                raise WireError(f"a reply to request {number}, which was not sent")
            slot.lane = None
            self._in_flight -= 1
            if tag == _ANSWERS[slot.kind]:
                client.done(slot, fields, now_ns)
                done = True
            elif tag == "error":
                self._on_error(slot, fields)
            else:
                raise WireError(f"a reply of the kind {tag!r:.40} to a {slot.kind}")
        if done:
            self._bench.heard(now_ns)
        client.flush()
        if self._is_leaving and self.stream is not None:
            self._leave()

    def _on_error(self, slot: Slot, fields: dict[str, Any]) -> None:
        """Send a request again where that may help; what was refused for good is over."""
        code = fields.get("code")
        bench, errors = self._bench, self._client.errors_of(slot)
        if code == "not-leader":
            errors.redirected += 1
            bench.pointed_at(str(fields.get("leader_address") or ""), self.address)
            self._is_leaving = True
            self._waiting.append(slot)
        elif code == "unavailable":
            errors.not_applied += 1
            bench.doubt()
            self._client.again(slot, RETRY_NS)
        elif code == "unknown-outcome":
            errors.unknown += 1
            slot.doubtful = True
            bench.doubt()
            self._client.again(slot, RETRY_NS)
        else:
            errors.refused += 1
            self._client.refused(slot, str(code), f"{fields.get('message')}: {fields.get('cause')}")

    def down(self, problem: str, code: str) -> None:
        """Keep every request that was on its way for the next link; of writes nobody knows."""
        self._in_flight = 0
        self._is_leaving = False
        self._attempt += 1
        for slot in self._client.slots:
            if slot.lane is self:
                slot.lane = None
                self._waiting.append(slot)
                errors = self._client.errors_of(slot)
                if slot.kind in (PUT, DELETE):
                    errors.unknown += 1
                    slot.doubtful = True
                else:
                    errors.not_applied += 1
        if code == BUSY and self._bench.is_strict:
            raise Ended(f"{self.address}: {problem}", BUSY)
        if self._follows_leader and code != BUSY:
            self._bench.lost(self.address)


class BenchClient:
    """A session, its connections, and its slots."""

    def __init__(
        self,
        bench: Surroundings,
        number: int,
        *,
        selector: selectors.BaseSelector,
        cluster_id: str,
        tls: ssl.SSLContext | None,
        slots: int,
        make_frames: Callable[[str], Frames],
        latencies: dict[str, Latencies],
        reads_elsewhere: bool,
    ) -> None:
        """Prepare a client; nothing is sent before `start`.

        Args:
            bench: what it belongs to.
            number: which client it is, from 0.
            selector: of the loop.
            cluster_id: of the cluster that is meant.
            tls: how its connections are protected; None for not at all.
            slots: requests that may be on their way at once.
            make_frames: makes the frames of a session.
            latencies: where to count those of puts and gets.
            reads_elsewhere: whether reads go to a server of its own and not to the leader.
        """
        self.bench = bench
        self.number = number
        self.slots = [Slot(self, at) for at in range(slots)]
        self._frames = make_frames(os.urandom(16).hex())
        self._latencies = latencies
        self._source: Source = lambda: None
        self._serial = 0
        self._unacknowledged: dict[int, None] = {}
        """Serials whose results are not known, oldest first."""
        self._uncounted = Errors()
        self._lane = Lane(self, selector, cluster_id, tls=tls, follows_leader=True)
        self._reading = self._lane
        if reads_elsewhere:
            self._reading = Lane(self, selector, cluster_id, tls=tls, follows_leader=False)
        self._lanes = tuple({self._lane: None, self._reading: None})

    # --- for the benchmark ---

    def start(self, source: Source, slots: int) -> None:
        """Let so many slots that have nothing to do do what `source` says, until it says None."""
        self._source = source
        now_ns = time.monotonic_ns()
        for slot in self.slots[:slots]:
            if slot.kind == _IDLE:
                self.bench.active += 1
                self._next(slot, now_ns)
        self.flush()

    def tend(self, now_ns: int) -> None:
        """Do what the time asks for."""
        for lane in self._lanes:
            lane.tend(now_ns)

    def flush(self) -> None:
        """Send what is queued."""
        for lane in self._lanes:
            lane.flush()

    def close(self) -> None:
        """Close the connections."""
        for lane in self._lanes:
            lane.close()

    def undecided(self) -> list[Slot]:
        """Return the slots of writes that were sent and whose outcome is not known."""
        return [
            slot
            for slot in self.slots
            if slot.kind in (PUT, DELETE) and (slot.doubtful or slot.lane is not None)
        ]

    # --- for its lanes ---

    def errors_of(self, slot: Slot) -> Errors:
        """Return where to count what went wrong with a request."""
        return self.bench.errors if slot.counted else self._uncounted

    def frame(self, slot: Slot) -> bytes:
        """Return the request of `slot`."""
        kind = slot.kind
        if kind == GET:
            return self._frames.get(slot.number, slot.key)
        if kind == OPEN:
            return self._frames.open_session(slot.number)
        lowest = next(iter(self._unacknowledged))
        if kind == PUT:
            return self._frames.put(slot.number, slot.key, slot.serial, lowest)
        return self._frames.delete(slot.number, slot.key, slot.serial, lowest)

    def done(self, slot: Slot, fields: dict[str, Any], now_ns: int) -> None:
        """Count a result, and go on."""
        kind = slot.kind
        if kind == GET:
            if not fields.get("found"):
                self.bench.missed += 1
        elif kind != OPEN:
            del self._unacknowledged[slot.serial]
            if kind == PUT and self.bench.written is not None:
                self.bench.written(slot.key, fields.get("revision"))
        if slot.counted:
            self._latencies[kind].add(now_ns - slot.started_ns)
        self._next(slot, now_ns)

    def again(self, slot: Slot, pause_ns: int) -> None:
        """Send the request of `slot` again after a pause."""

        def act() -> None:
            self._lane_of(slot).submit(slot)
            self.flush()

        self.bench.later(act, pause_ns)

    def refused(self, slot: Slot, code: str, words: str) -> None:
        """Give a request up, and go on with another one after a pause."""
        self.bench.refusal = self.bench.refusal or words
        if self.bench.is_strict or code in ("session-expired", "invalid"):
            raise Ended(words, code)
        if slot.kind in (PUT, DELETE):
            del self._unacknowledged[slot.serial]
            if slot.doubtful:
                # It was refused before anybody looked whether an earlier attempt has done it.
                self.bench.gave_up(slot)
        self._resume(slot, REFUSED_NS)

    def _resume(self, slot: Slot, pause_ns: int) -> None:
        """Let a slot go on after a pause."""
        slot.kind = _PAUSED

        def act() -> None:
            self._next(slot, time.monotonic_ns())
            self.flush()

        self.bench.later(act, pause_ns)

    def _lane_of(self, slot: Slot) -> Lane:
        return self._reading if slot.kind == GET else self._lane

    def _next(self, slot: Slot, now_ns: int) -> None:
        """Let a slot do what is to be done next, if anything is."""
        unacknowledged = self._unacknowledged
        if unacknowledged and self._serial - next(iter(unacknowledged)) >= SERIALS_WINDOW:
            # One write has waited for long; the session cannot remember any number of later ones.
            self._resume(slot, RETRY_NS)
            return
        task = self._source()
        if task is None:
            slot.kind = _IDLE
            self.bench.active -= 1
            return
        kind, slot.key = task
        slot.kind = kind
        slot.started_ns = now_ns
        slot.doubtful = False
        slot.counted = self.bench.is_measuring
        if kind == GET:
            self._reading.submit(slot)
            return
        if kind != OPEN:
            self._serial += 1
            slot.serial = self._serial
            unacknowledged[self._serial] = None
        self._lane.submit(slot)
