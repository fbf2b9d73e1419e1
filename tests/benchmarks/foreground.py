"""Clients that write steadily from one cheap process, and what they have seen.

    python -m tests.benchmarks.foreground OUT_FILE ADDRESS... [--clients N] [--value-bytes N]
        [--keys N] [--writes N] [--seed N]

No threads and no event loop of a library: one selector over plain sockets. Each client has a
session and one request under way; it sends the next one when the answer is there. The process ends
when its standard input is closed, or after so many writes, and leaves its samples in OUT_FILE: one
line of JSON, then pairs of 64-bit integers, when a write was acknowledged and how long it took, in
nanoseconds of the monotonic clock, which all processes share.

A write whose server has gone or does not lead is sent again to another one, under the same session
and serial, and its time goes on.
"""

from __future__ import annotations

import argparse
import bisect
import gc
import itertools
import json
import random
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

import attrs

from raftd.codec import (
    FrameDecoder,
    decode_opening,
    decode_reply,
    encode_frame,
    encode_opening,
    encode_request,
)
from raftd.config_values import parse_address
from raftd.protocol import (
    DoneReply,
    ErrorReply,
    Hello,
    OpenSessionRequest,
    PutRequest,
    Reply,
    Welcome,
    WriteReply,
)
from tests.benchmarks.states import Values, key_name

RETRY_NS = 20_000_000
"""Pause before a refused write is sent again."""
REPLY_TIMEOUT_NS = 5_000_000_000
"""Without an answer for so long another server is asked: longer than any election."""
RECEIVE_BYTES = 64 * 1024
NANOSECONDS = 1_000_000_000


# --- in the process of the clients -----------------------------------------------------------


class _Client:
    """One session; either a request is under way or the next attempt has its time."""

    def __init__(self, load: _Process) -> None:
        self.load = load
        self.session = secrets.token_hex(8)
        self.serial = 0
        self.stream: socket.socket | None = None
        self.is_welcome = False
        self.decoder = FrameDecoder()
        self.request: OpenSessionRequest | PutRequest = OpenSessionRequest(session=self.session)
        self.started_ns = 0
        self.number = 0
        self.retry_ns: int | None = 0
        self.sent_ns = 0

    def connect(self) -> None:
        """Dial the server that is believed to lead."""
        self.close()
        self.decoder, self.is_welcome = FrameDecoder(), False
        try:
            stream = socket.create_connection(parse_address(self.load.address), timeout=1.0)
        except OSError:
            self.load.try_another()
            return
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = stream
        self.load.selector.register(stream, selectors.EVENT_READ, self)
        self.send(encode_opening(Hello(role="client", cluster_id="", source="", dest="")))

    def close(self) -> None:
        """Leave the server."""
        if self.stream is not None:
            self.load.selector.unregister(self.stream)
            self.stream.close()
            self.stream = None

    def attempt(self) -> None:
        """Send what is under way, to the server that is believed to lead."""
        self.retry_ns = None
        self.sent_ns = time.monotonic_ns()
        if self.stream is None:
            self.connect()
            if self.stream is None:
                self.retry_ns = self.sent_ns + RETRY_NS
            return
        self.number += 1
        self.send(encode_request(self.number, self.request))

    def send(self, payload: bytes) -> None:
        """Send a frame; a request fits the buffer of its socket, so this does not wait."""
        assert self.stream is not None
        try:
            self.stream.sendall(encode_frame(payload))
        except OSError:
            self.fail(another=True)

    def fail(self, *, another: bool) -> None:
        """Try again a little later, perhaps somewhere else."""
        self.close()
        if another:
            self.load.try_another()
        self.retry_ns = time.monotonic_ns() + RETRY_NS

    def receive(self) -> None:
        """Take in what the server says."""
        assert self.stream is not None
        try:
            received = self.stream.recv(RECEIVE_BYTES)
        except OSError:
            received = b""
        if not received:
            self.fail(another=True)
            return
        for payload in self.decoder.feed(received):
            if not self.is_welcome:
                if not isinstance(decode_opening(payload), Welcome):
                    self.fail(another=True)
                    return
                self.is_welcome = True
                self.attempt()
                continue
            number, reply = decode_reply(payload)
            if number == self.number and self.retry_ns is None:
                self.answered(reply)

    def answered(self, reply: Reply) -> None:
        """Note an acknowledgement and go on with the next write, or try again."""
        if isinstance(reply, ErrorReply):
            if reply.code == "session-expired":
                raise RuntimeError(reply.message)
            if reply.leader_address:
                self.load.address = reply.leader_address
                self.fail(another=False)
            else:
                self.fail(another=reply.code == "not-leader")
            return
        assert isinstance(reply, WriteReply | DoneReply)
        now_ns = time.monotonic_ns()
        if isinstance(reply, WriteReply):
            self.load.samples.extend((now_ns, now_ns - self.started_ns))
        self.serial += 1
        self.request = self.load.next_write(self.session, self.serial)
        self.started_ns = now_ns
        self.attempt()


class _Process:
    """All clients."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.selector = selectors.DefaultSelector()
        self.samples = array("q")
        self.addresses: list[str] = options.addresses
        self.address = self.addresses[0]
        self._random = random.Random(options.seed)
        self._values = Values(options.value_bytes)
        self._keys = options.keys
        self._writes_max = options.writes
        self._clients = [_Client(self) for _ in range(options.clients)]

    def try_another(self) -> None:
        """Believe that the next server leads."""
        at = self.addresses.index(self.address) if self.address in self.addresses else -1
        self.address = self.addresses[(at + 1) % len(self.addresses)]

    def next_write(self, session: str, serial: int) -> PutRequest:
        """Return a write of a random key."""
        number = self._random.randrange(self._keys)
        return PutRequest(
            session=session,
            serial=serial,
            lowest_unacknowledged=serial,
            key=key_name(number),
            value=self._values.of(serial),
        )

    def run(self) -> None:
        """Write until standard input ends, or enough is written."""
        self.selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select(0.01):
                if key.data is None:
                    return
                # Closed meanwhile by what came before it.
                if key.data.stream is key.fileobj:
                    key.data.receive()
            if self._writes_max and len(self.samples) // 2 >= self._writes_max:
                return
            now_ns = time.monotonic_ns()
            for client in self._clients:
                if client.retry_ns is not None and client.retry_ns <= now_ns:
                    client.attempt()
                elif client.retry_ns is None and client.sent_ns + REPLY_TIMEOUT_NS < now_ns:
                    client.fail(another=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.foreground")
    parser.add_argument("out_file", type=Path)
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--writes", type=int, default=0, help="0: until standard input is closed")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main() -> None:
    """Write as the command line says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = _parse(sys.argv[1:])
    # Nothing here is cyclic, and a pause of the clients would look like one of the servers.
    gc.disable()
    process = _Process(options)
    started_ns, started_cpu_ns = time.monotonic_ns(), time.process_time_ns()
    process.run()
    head = {
        "seconds": (time.monotonic_ns() - started_ns) / NANOSECONDS,
        "cpu_seconds": (time.process_time_ns() - started_cpu_ns) / NANOSECONDS,
    }
    with options.out_file.open("wb") as out:
        out.write(json.dumps(head).encode() + b"\n")
        process.samples.tofile(out)


# --- in the process that measures ------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Latencies:
    """What the clients have seen in some stretches of time together."""

    seconds: float
    writes: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    gap_ms: float
    """The longest time in which no client at all had an answer."""

    @property
    def per_second(self) -> float:
        """Writes per second."""
        return self.writes / self.seconds if self.seconds else 0.0


@attrs.frozen(kw_only=True)
class Samples:
    """All acknowledgements of a load, oldest first."""

    seconds: float
    cpu_seconds: float
    """Of the process of the clients."""
    acknowledged_ns: list[int]
    taken_ns: list[int]

    def within(self, windows: Sequence[tuple[int, int]]) -> Latencies:
        """Sum up the writes that were acknowledged in `windows`, of monotonic nanoseconds."""
        taken: list[int] = []
        gap_ns = 0
        for start_ns, end_ns in windows:
            first = bisect.bisect_left(self.acknowledged_ns, start_ns)
            last = bisect.bisect_left(self.acknowledged_ns, end_ns)
            taken += self.taken_ns[first:last]
            moments = [start_ns, *self.acknowledged_ns[first:last], end_ns]
            gaps = (b - a for a, b in itertools.pairwise(moments))
            gap_ns = max(gap_ns, *gaps)
        taken.sort()
        return Latencies(
            seconds=sum(end - start for start, end in windows) / NANOSECONDS,
            writes=len(taken),
            p50_ms=_quantile_ms(taken, 0.5),
            p99_ms=_quantile_ms(taken, 0.99),
            p999_ms=_quantile_ms(taken, 0.999),
            max_ms=_quantile_ms(taken, 1.0),
            gap_ms=gap_ns / 1e6,
        )

    def stalls(self, over_ms: float, start_ns: int, end_ns: int) -> list[tuple[int, float]]:
        """Return when each stall within the window ended, and the longest write of it in ms."""
        found: list[tuple[int, float]] = []
        for acknowledged_ns, taken_ns in zip(self.acknowledged_ns, self.taken_ns, strict=True):
            taken_ms = taken_ns / 1e6
            if taken_ms < over_ms or not start_ns <= acknowledged_ns <= end_ns:
                continue
            if found and acknowledged_ns - taken_ns <= found[-1][0]:
                found[-1] = (acknowledged_ns, max(found[-1][1], taken_ms))
            else:
                found.append((acknowledged_ns, taken_ms))
        return found


def _quantile_ms(ordered_ns: Sequence[int], quantile: float) -> float:
    if not ordered_ns:
        return float("nan")
    return ordered_ns[min(len(ordered_ns) - 1, int(quantile * len(ordered_ns)))] / 1e6


class Load:
    """The process of the clients, as the one that measures sees it. A context manager."""

    def __init__(
        self,
        out_path: Path,
        addresses: Sequence[str],
        *,
        clients: int,
        keys: int,
        value_bytes: int = 256,
        writes: int = 0,
    ) -> None:
        """Start to write.

        Args:
            writes: end after so many; 0: go on until `stop`.
        """
        self._out_path = out_path
        options = {"clients": clients, "keys": keys, "value-bytes": value_bytes, "writes": writes}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.benchmarks.foreground", str(out_path), *addresses),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            stdin=subprocess.PIPE,
        )

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    @property
    def ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process.poll() is not None

    def finish(self) -> Samples:
        """Wait until it has written as much as it should; return what it has seen."""
        assert self._process.wait() == 0, "the clients have failed"
        return self._read()

    def stop(self) -> Samples:
        """End it and return what it has seen."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.finish()

    def _read(self) -> Samples:
        with self._out_path.open("rb") as file:
            head = json.loads(file.readline())
            samples = array("q")
            samples.frombytes(file.read())
        return Samples(
            acknowledged_ns=samples[::2].tolist(), taken_ns=samples[1::2].tolist(), **head
        )


if __name__ == "__main__":
    main()
