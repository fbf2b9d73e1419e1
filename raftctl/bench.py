"""A benchmark: load on a cluster in our own protocol, and what its clients notice.

One thread and one selector do everything, since the generator shares the machine with the servers
more often than not: whatever it uses, they lack. Its memory does not grow while it runs.

Requests that begin while it measures count, also those that end later: whoever waits for an answer
while a new leader is elected is not left out.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import random
import selectors
import ssl
import time
from collections.abc import Callable, Iterable, Sequence

import attrs

from raftctl.bench_clients import (
    DELETE,
    GET,
    OPEN,
    PUT,
    BenchClient,
    Ended,
    Errors,
    Slot,
    Source,
    Task,
)
from raftctl.bench_frames import Frames, value_of
from raftctl.bench_keys import Acknowledged
from raftctl.bench_links import NANOSECONDS, serve
from raftctl.bench_servers import Servers, ServerUse
from raftctl.latencies import Latencies

TEND_NS = 20_000_000
"""Between two looks at what the time asks for."""
REPORT_NS = NANOSECONDS
"""Between two reports of progress."""
SAMPLE_WAIT_NS = NANOSECONDS // 2
"""For the servers to say what they have used; whoever is slower is left out."""
BATCH_SLOTS = 16
"""Requests of a client on their way at once while keys are written before, and removed afterwards:
that is not measured, and somebody waits for it."""
BATCH_BYTES_MAX = 64 * 1024 * 1024
"""Of all values that are on their way then."""
INTERRUPTED_PATIENCE_NS = 2 * NANOSECONDS
"""Without an answer: somebody has pressed Ctrl-C and waits."""
CONNECTING, FILLING, WARMING_UP, MEASURING = "connecting", "filling", "warming-up", "measuring"
FINISHING, REMOVING = "finishing", "removing"


@attrs.frozen(kw_only=True)
class Options:
    """What load, for how long."""

    read_fraction: float
    """Of the requests, 0 to 1."""
    clients: int
    pipeline: int
    """Requests of a client that are on their way at once."""
    value_bytes: int
    keys: int
    prefix: str
    """What the names of all keys begin with."""
    stale: bool
    """Whether reads go to all servers, and take what those have."""
    duration_ms: float
    warm_up_ms: float
    timeout_ms: float
    """Without an answer for so long it ends; 0 for never."""
    verify: bool
    """Whether to note what was acknowledged, so that it can be compared with what is there."""


@attrs.frozen(kw_only=True)
class Progress:
    """How far a benchmark is."""

    phase: str
    seconds: float
    """Since the phase began."""
    total_seconds: float | None
    """How long it takes; None if nobody can say."""
    done: int
    """Keys that were written or removed, and while it measures requests."""
    total: int | None
    """Of these, where that is known."""
    latest: Latencies
    """What was measured since the report before."""
    latest_seconds: float
    errors: Errors
    """While it measures: all so far."""
    leader: str
    """Its name; empty while there is none."""


@attrs.frozen(kw_only=True)
class Result:
    """What a benchmark has measured."""

    options: Options
    seconds: float
    """How long it has measured."""
    interrupted: bool
    latencies: dict[str, Latencies]
    """Of puts and gets, as far as there were to be any."""
    errors: Errors
    unresolved: int
    """Writes of which nobody knows whether they were done, or will be."""
    missed: int
    """Reads that found no key."""
    refusal: str
    """The first one, in words."""
    longest_gap_ms: float
    """Without any result for any client."""
    leaders: tuple[tuple[float, str], ...]
    """Seconds after the beginning, and who led from then on."""
    servers: tuple[ServerUse, ...]
    generator_fraction: float
    """What the generator has used of one processor."""

    @property
    def count(self) -> int:
        """Requests that were answered with a result."""
        return sum(each.count for each in self.latencies.values())

    def per_second(self, count: int) -> float:
        """Return a rate over the time that was measured."""
        return count / self.seconds if self.seconds else 0.0


class Bench:
    """One benchmark. Its phases are called in turn: `load`, then `remove`, then `close`."""

    def __init__(
        self,
        options: Options,
        *,
        cluster_id: str,
        addresses: Sequence[str],
        leader: str,
        tls: ssl.SSLContext | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Prepare it; nothing is sent yet.

        Args:
            options: what load.
            cluster_id: servers of other clusters are not asked.
            addresses: of the members, HOST:PORT.
            leader: which of them leads.
            tls: how connections are protected; None for not at all.
            report: called about once a second.
        """
        self.options = options
        self.errors = Errors()
        self.is_measuring = False
        self.is_strict = False
        self.active = 0
        self.refusal = ""
        self.unresolved = 0
        self.missed = 0
        self.is_interrupted = False
        self.has_measured = False
        """Whether there is anything to show."""
        self.acknowledged = Acknowledged(options.keys) if options.verify else None
        self.written: Callable[[int, object], None] | None = None
        if self.acknowledged is not None:
            self.written = self.acknowledged.note
        self.touched = bytearray(options.keys)
        """1 for each key that was written, or may be."""
        self._report = report
        self._selector = selectors.DefaultSelector()
        self._servers = Servers(self._selector, cluster_id, addresses, tls)
        self._servers.leader = leader
        self._latencies = {
            kind: Latencies()
            for kind, share in ((PUT, 1 - options.read_fraction), (GET, options.read_fraction))
            if share
        }
        self._clients = self._make_clients(cluster_id, tls)
        self._pauses: list[tuple[int, int, Callable[[], None]]] = []
        self._pause_numbers = itertools.count()
        self._tend_ns = 0
        self._heard_ns = time.monotonic_ns()
        self._longest_gap_ns = 0
        self._began_ns = self._ended_ns = 0
        self._began_cpu_ns = self._ended_cpu_ns = 0
        self._phase = _Phase(name=CONNECTING, began_ns=self._heard_ns)

    def _make_clients(self, cluster_id: str, tls: ssl.SSLContext | None) -> list[BenchClient]:
        options = self.options
        value = value_of(options.value_bytes)
        slots = max(options.pipeline, BATCH_SLOTS)

        def frames(session: str) -> Frames:
            return Frames(
                session=session,
                prefix=options.prefix,
                value=value,
                stale=options.stale,
                numbers=slots,
            )

        return [
            BenchClient(
                self,
                number,
                selector=self._selector,
                cluster_id=cluster_id,
                tls=tls,
                slots=slots,
                make_frames=frames,
                latencies=self._latencies,
                reads_elsewhere=options.stale,
            )
            for number in range(options.clients)
        ]

    # --- what it is told to do ---

    def interrupt(self) -> None:
        """Stop to measure, or to wait, as soon as possible; to be called from a signal handler."""
        self.is_interrupted = True

    def connect(self) -> None:
        """Connect every client and open its session.

        Raises:
            Ended: that is not possible.
        """
        waiting = [True] * len(self._clients)

        def once(number: int) -> Source:
            def task() -> Task | None:
                if waiting[number]:
                    waiting[number] = False
                    return OPEN, 0
                self._phase.done += 1
                return None

            return task

        self._enter(CONNECTING, total=len(self._clients), strict=True)
        for client in self._clients:
            client.start(once(client.number), slots=1)
        self._loop(lambda now_ns: not self.active)

    def load(self) -> None:
        """Fill the keys if some are to be read, warm up, measure, and wait for the last answers.

        Raises:
            Ended: it could not begin, or nobody answers any more. What was measured until then is
                in `result`.
        """
        try:
            if self.options.read_fraction and not self.is_interrupted:
                self._fill()
            if not self.is_interrupted:
                self._load()
        except Ended:
            self._abandon()
            raise

    def remove(self, numbers: Iterable[int], *, until_interrupted: bool = False) -> int:
        """Remove the keys of these numbers; return how many that were.

        Args:
            numbers: of the keys.
            until_interrupted: whether an interruption ends it.

        Raises:
            Ended: nobody answers any more, or they are refused.
        """
        waiting = iter(numbers)
        self._enter(REMOVING, strict=True)

        def task() -> Task | None:
            number = next(waiting, None)
            if number is None or (until_interrupted and self.is_interrupted):
                return None
            self._phase.done += 1
            return DELETE, number

        self._start(task, slots=BATCH_SLOTS)
        self._loop(lambda now_ns: not self.active, heeds_interruption=False)
        return self._phase.done

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            client.close()
        self._servers.close()
        self._selector.close()

    def result(self) -> Result:
        """Return what was measured, right after `load`."""
        passed_ns = self._ended_ns - self._began_ns
        leaders = [
            (max(0.0, (moment_ns - self._began_ns) / NANOSECONDS), name)
            for moment_ns, name in self._servers.leaders
        ]
        # Of those before the beginning only the last one matters.
        begun = sum(1 for seconds, _ in leaders if not seconds)
        return Result(
            options=self.options,
            seconds=passed_ns / NANOSECONDS,
            interrupted=self.is_interrupted,
            latencies=self._latencies,
            errors=self.errors,
            unresolved=self.unresolved,
            missed=self.missed,
            refusal=self.refusal,
            longest_gap_ms=self._longest_gap_ns / 1e6,
            leaders=tuple(leaders[max(0, begun - 1) :]),
            servers=tuple(self._servers.uses()),
            generator_fraction=(
                (self._ended_cpu_ns - self._began_cpu_ns) / passed_ns if passed_ns else 0.0
            ),
        )

    # --- phases ---

    def _enter(
        self,
        phase: str,
        *,
        total: int | None = None,
        duration_ms: float | None = None,
        strict: bool = False,
    ) -> None:
        now_ns = time.monotonic_ns()
        self.is_strict = strict
        self._phase = _Phase(
            name=phase,
            began_ns=now_ns,
            total=total,
            total_seconds=None if duration_ms is None else duration_ms / 1000,
            reported_ns=now_ns,
        )

    def _start(self, source: Source, slots: int) -> None:
        for client in self._clients:
            client.start(source, slots=slots)

    def _fill(self) -> None:
        self._enter(FILLING, total=self.options.keys, strict=True)
        numbers = iter(range(self.options.keys))

        def task() -> Task | None:
            number = next(numbers, None)
            if number is None or self.is_interrupted:
                return None
            self.touched[number] = 1
            self._phase.done += 1
            return PUT, number

        round_bytes = self.options.clients * max(1, self.options.value_bytes)
        self._start(task, slots=max(1, min(BATCH_SLOTS, BATCH_BYTES_MAX // round_bytes)))
        self._loop(lambda now_ns: not self.active, heeds_interruption=False)

    def _load(self) -> None:
        is_over = False
        draw = random.Random().random
        keys, reads, touched = self.options.keys, self.options.read_fraction, self.touched

        def task() -> Task | None:
            if is_over:
                return None
            key = int(draw() * keys)
            if draw() < reads:
                return GET, key
            touched[key] = 1
            return PUT, key

        # A pause of the generator would look like one of the cluster; nothing here is cyclic.
        gc.collect()
        gc.disable()
        try:
            self._enter(WARMING_UP, duration_ms=self.options.warm_up_ms)
            end_ns = self._phase.began_ns + int(self.options.warm_up_ms * 1e6)
            self._start(task, slots=self.options.pipeline)
            self._loop(lambda now_ns: now_ns >= end_ns)
            self._ask_servers()
            self._begin()
            self._loop(self.is_measured)
        finally:
            is_over = True
            self._end()
            gc.enable()
        self._ask_servers()
        self._enter(FINISHING)
        self._loop(lambda now_ns: not self.active, heeds_interruption=False)

    def is_measured(self, now_ns: int) -> bool:
        """Whether it has measured for as long as it was told to."""
        return now_ns >= self._began_ns + self.options.duration_ms * 1e6

    def _begin(self) -> None:
        self._enter(MEASURING, duration_ms=self.options.duration_ms)
        self._servers.begin()
        self._longest_gap_ns = 0
        self._began_cpu_ns = time.process_time_ns()
        self._began_ns = self._heard_ns = time.monotonic_ns()
        self.missed = 0
        self.has_measured = self.is_measuring = not self.is_interrupted

    def _end(self) -> None:
        self.is_measuring = False
        self._ended_ns = time.monotonic_ns()
        self._ended_cpu_ns = time.process_time_ns()

    def _abandon(self) -> None:
        """Note what nobody will be asked about any more."""
        self.heard(time.monotonic_ns())
        for client in self._clients:
            for slot in client.undecided():
                self.gave_up(slot)

    def _ask_servers(self) -> None:
        """Let the servers say what they use now, under the load as it is."""
        asked_ns = time.monotonic_ns()
        self._servers.ask_all()
        self._loop(
            lambda now_ns: (
                now_ns - asked_ns > SAMPLE_WAIT_NS or self._servers.answered_since(asked_ns)
            ),
            heeds_interruption=False,
        )

    # --- the loop ---

    def _loop(self, until: Callable[[int], bool], *, heeds_interruption: bool = True) -> None:
        """Let everything go on until `until(now_ns)`.

        Raises:
            Ended: a client has found that it cannot go on, or nobody answers.
        """
        pauses = self._pauses
        while True:
            now_ns = time.monotonic_ns()
            while pauses and pauses[0][0] <= now_ns:
                heapq.heappop(pauses)[2]()
            if now_ns >= self._tend_ns:
                self._tend_ns = now_ns + TEND_NS
                self._tend(now_ns)
            if until(now_ns) or (heeds_interruption and self.is_interrupted):
                return
            wake_ns = min(self._tend_ns, pauses[0][0]) if pauses else self._tend_ns
            serve(self._selector, max(0, wake_ns - now_ns) / NANOSECONDS)

    def _tend(self, now_ns: int) -> None:
        self._servers.tend(now_ns)
        for client in self._clients:
            client.tend(now_ns)
        if now_ns - self._phase.reported_ns >= REPORT_NS:
            self._tell(now_ns)
        patience_ns = int(self.options.timeout_ms * 1e6)
        if self.is_interrupted:
            patience_ns = min(patience_ns or INTERRUPTED_PATIENCE_NS, INTERRUPTED_PATIENCE_NS)
        waiting_ns = now_ns - max(self._heard_ns, self._phase.began_ns)
        if self.active and patience_ns and waiting_ns > patience_ns:
            raise Ended("nobody answers", "silence")

    def _tell(self, now_ns: int) -> None:
        phase = self._phase
        measured = self._latencies.values() if phase.name == MEASURING else ()
        so_far = Latencies().plus(measured)
        progress = Progress(
            phase=phase.name,
            seconds=(now_ns - phase.began_ns) / NANOSECONDS,
            total_seconds=phase.total_seconds,
            done=so_far.count if phase.name == MEASURING else phase.done,
            total=phase.total,
            latest=so_far.since(phase.told),
            latest_seconds=(now_ns - phase.reported_ns) / NANOSECONDS,
            errors=attrs.evolve(self.errors),
            leader=self._servers.leader_name,
        )
        phase.told, phase.reported_ns = so_far, now_ns
        self._report(progress)

    # --- what its clients say ---

    @property
    def leader(self) -> str:
        """HOST:PORT of the leader; empty while none is known."""
        return self._servers.leader

    def server_for(self, client: int, attempt: int) -> str:
        """Return where a client reads that does not ask the leader."""
        addresses = self._servers.addresses
        return addresses[(client + attempt) % len(addresses)] if addresses else ""

    def pointed_at(self, address: str, by: str) -> None:
        """Take in whom a server names as the leader."""
        self._servers.pointed_at(address, by)

    def lost(self, address: str) -> None:
        """Take in that a server does not answer."""
        self._servers.lost(address)

    def doubt(self) -> None:
        """Take in that the leader cannot serve."""
        self._servers.doubt()

    def later(self, act: Callable[[], None], pause_ns: int) -> None:
        """Call `act` after a pause."""
        due_ns = time.monotonic_ns() + pause_ns
        heapq.heappush(self._pauses, (due_ns, next(self._pause_numbers), act))

    def heard(self, now_ns: int) -> None:
        """Take in that results have come."""
        gap_ns = now_ns - self._heard_ns
        if gap_ns > self._longest_gap_ns:
            self._longest_gap_ns = gap_ns
        self._heard_ns = now_ns

    def gave_up(self, slot: Slot) -> None:
        """Take in that nobody will know whether a write was done."""
        self.unresolved += 1
        if slot.kind == PUT and self.acknowledged is not None:
            self.acknowledged.doubtful[slot.key] += 1


@attrs.define(kw_only=True)
class _Phase:
    """What a benchmark does at the moment, and what of it was reported."""

    name: str
    began_ns: int
    total: int | None = None
    total_seconds: float | None = None
    done: int = 0
    told: Latencies = attrs.field(factory=Latencies)
    reported_ns: int = 0
