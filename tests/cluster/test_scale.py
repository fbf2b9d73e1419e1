"""Thousands of clients, many servers, large values: everybody is served, and memory is bounded."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import hiredis
import pytest

from raftd.codec import FrameDecoder, decode_reply, encode_frame, encode_opening, encode_request
from raftd.commands import FEATURES_COUNTERS, VALUE_BYTES_MAX
from raftd.network.redis_framing import array, bulk
from raftd.protocol import GetReply, GetRequest, Hello
from tests.cluster.conftest import MakeCluster
from tests.cluster.many_clients import Client, connect, descriptors, serve
from tests.cluster.processes import RunningCluster, Server, wait_for
from tests.cluster.redis_client import Connection

MEBIBYTE = 1024 * 1024
PATIENT = "election_timeout: 2s"
"""That a busy machine keeps a leader waiting is not what is asked here."""
IDLE, BUSY, NATIVE = 1_000, 1_000, 200
COMMANDS = 20
"""Of each busy client."""
HOARDERS, HOARDED = 10, 300
"""Clients of each sort that ask so many large values and read nothing."""
MEMORY_BYTES = 100 * MEBIBYTE
"""Of a server with all these clients: twice what it has without them, some kilobytes for each."""
MEMORY_WITH_HOARDERS_BYTES = 640 * MEBIBYTE
"""Besides, what is kept of replies: 128 MiB for Redis clients, 256 MiB and a turn for native ones.
They have asked for six thousand."""
MEMORY_WITH_LARGE_VALUES_BYTES = 280 * MEBIBYTE
"""Of a leader: the values in its log, copies on their way to six servers, 8 MiB to each at most,
and what a snapshot and its allocator hold for a while. All that is written would not fit."""

HELLO = encode_frame(encode_opening(Hello(role="client", cluster_id="", source="", dest="")))


def command(*words: str | bytes) -> bytes:
    return array([bulk(word if isinstance(word, bytes) else word.encode()) for word in words])


def anonymous_bytes(server: Server) -> int:
    """Return the memory of a server that is no file's."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not say")


class Memory:
    """The most that each server has had in use, looked at now and then."""

    def __init__(self, servers: list[Server]) -> None:
        self._servers = servers
        self._most = dict.fromkeys(servers, 0)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ends.wait(0.05):
            for server in self._servers:
                with suppress(OSError, AssertionError):
                    self._most[server] = max(self._most[server], anonymous_bytes(server))

    @property
    def most_bytes(self) -> int:
        """Of the server that had most."""
        return max(self._most.values())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Three servers that serve Redis clients, with all features switched on."""
    cluster = RunningCluster(tmp_path_factory.mktemp("scale"), redis=True, settings=PATIENT)
    try:
        cluster.form("n1", "n2", "n3")
        wait_for(
            "counters everywhere",
            lambda: all(s.features >= FEATURES_COUNTERS for s in cluster.statuses().values()),
        )
        yield cluster
    finally:
        cluster.close()


def term_of(server: Server) -> int:
    status = server.status()
    assert status is not None
    assert status.role == "leader"
    return status.term


def counting(leader: Server, number: int) -> Client:
    """Return a client that counts up a key of its own, and reads it in between."""
    key = f"count{number:04d}"
    rounds = 4
    step = COMMANDS // rounds - 1
    content = command("INCR", key) * step + command("GET", key)
    expected = []
    for done in range(rounds + 1):
        numbers = b"".join(
            b"".join(b":%d\r\n" % n for n in range(r * step + 1, (r + 1) * step + 1))
            + bulk(b"%d" % ((r + 1) * step))
            for r in range(done)
        )
        expected.append(numbers)

    def is_answered(received: bytes, done: int) -> bool:
        assert expected[-1].startswith(received), (received, expected[-1])
        return received == expected[done]

    return Client(leader.redis, [content] * rounds, is_answered)


def asking(leader: Server, number: int) -> Client:
    """Return a native client that reads a key, several requests at a time."""
    requests = [
        b"".join(
            encode_frame(encode_request(n, GetRequest(key="known")))
            for n in range(start, start + 5)
        )
        for start in (0, 5)
    ]

    def is_answered(received: bytes, done: int) -> bool:
        payloads = FrameDecoder().feed(received)
        replies = [decode_reply(payload) for payload in payloads[1:]]
        assert all(isinstance(r, GetReply) and r.value == b"value" for _, r in replies), replies
        assert len({n for n, _ in replies}) == len(replies)
        return len(payloads) == (1 + 5 * (done - 1) if done else 0)

    return Client(leader.listen, [HELLO, *requests], is_answered)


def test_a_thousand_idle_and_a_thousand_busy_clients_are_served_at_once(
    cluster: RunningCluster,
) -> None:
    leader = cluster.wait_leader()
    term = term_of(leader)
    servers = list(cluster.servers.values())
    with descriptors(IDLE + BUSY + NATIVE + 200), ExitStack() as stack:
        with Connection(leader.redis) as connection:
            assert connection.ask("SET", "known", "value") == b"OK"
        idle = [
            stack.enter_context(connect(servers[number % len(servers)].redis))
            for number in range(IDLE)
        ]
        clients = [counting(leader, number) for number in range(BUSY)]
        clients += [asking(leader, number) for number in range(NATIVE)]
        for client in clients:
            stack.enter_context(client.stream)

        def somebody_comes() -> None:
            for number in range(1, 11):
                with Connection(leader.redis) as connection:
                    assert connection.ask("INCR", "newcomer") == number
            for server in servers:
                assert server.status() is not None

        with Memory(servers) as memory:
            serve(clients, somebody_comes)
        assert memory.most_bytes < MEMORY_BYTES
        for stream in idle:
            stream.sendall(command("PING"))
        for stream in idle:
            assert stream.recv(100) == b"+PONG\r\n"
        with Connection(leader.redis) as connection:
            connection.send(*[("GET", f"count{number:04d}") for number in range(BUSY)])
            found = {connection.reply() for _ in range(BUSY)}
            assert found == {b"%d" % (COMMANDS - 4)}
        # Who is so busy still leads, and the others are not behind.
        assert term_of(leader) == term
    cluster.wait_settled(["n1", "n2", "n3"])
    assert term_of(leader) == term


def test_clients_that_ask_large_values_and_read_nothing_take_neither_memory_nor_service(
    cluster: RunningCluster,
) -> None:
    leader = cluster.wait_leader()
    term = term_of(leader)
    value = bytes(range(256)) * (VALUE_BYTES_MAX // 256)
    with Connection(leader.redis) as connection:
        assert connection.ask("MSET", "large", value, "known", "value") == b"OK"
    gets = b"".join(
        encode_frame(encode_request(n, GetRequest(key="large"))) for n in range(HOARDED)
    )
    with Memory([leader]) as memory:
        # Twice: what was kept for the first ones is not kept when they are gone.
        for wave in range(2):
            with ExitStack() as stack:
                for _ in range(HOARDERS):
                    hoarder = stack.enter_context(connect(leader.redis))
                    hoarder.sendall(command("GET", "large") * HOARDED)
                    hoarder = stack.enter_context(connect(leader.listen))
                    hoarder.sendall(HELLO + gets)
                for number in range(3):
                    first = BUSY + 300 * wave + 100 * number
                    clients = [counting(leader, first + client) for client in range(50)]
                    for client in clients:
                        stack.enter_context(client.stream)
                    serve(clients)
                with Connection(leader.redis) as connection:
                    connection.send(*[("GET", "large")] * 10)
                    assert [connection.reply() for _ in range(10)] == [value] * 10
                assert cluster.ctl("get", "known").stdout == "value"
    assert memory.most_bytes < MEMORY_WITH_HOARDERS_BYTES
    assert term_of(leader) == term


SEVEN = ("n1", "n2", "n3", "n4", "n5", "n6", "n7")
SIZES = (VALUE_BYTES_MAX, VALUE_BYTES_MAX - 1, 1, 700_001, VALUE_BYTES_MAX // 2, 0)
KEYS = 20
WHILE_STOPPED_BYTES = 240 * MEBIBYTE
"""Written while a server takes nothing: more than is ever kept for it."""


def value_of(number: int) -> bytes:
    """Return the value of the write with this number: of some size, and unlike all others."""
    size = SIZES[number % len(SIZES)]
    return (b"%d " % number * (size // 2 + 1))[:size]


class Writing(threading.Thread):
    """Writes one value after the other, some at a time, until it is told to stop."""

    def __init__(self, leader: Server) -> None:
        super().__init__(daemon=True)
        self.written = 0
        """Values of which it is acknowledged that they are there."""
        self.written_bytes = 0
        self.stops = threading.Event()
        self.error: Exception | None = None
        self._leader = leader

    def run(self) -> None:
        try:
            with Connection(self._leader.redis) as connection:
                while not self.stops.is_set():
                    numbers = range(self.written, self.written + 5)
                    connection.send(*[("SET", f"v{n % KEYS}", value_of(n)) for n in numbers])
                    for number in numbers:
                        assert connection.reply() == b"OK"
                        self.written += 1
                        self.written_bytes += len(value_of(number))
        except Exception as error:
            self.error = error

    def wait_bytes(self, more_bytes: int) -> None:
        """Wait until so much more is acknowledged."""
        wanted = self.written_bytes + more_bytes

        def is_written() -> bool:
            assert self.error is None, self.error
            return self.written_bytes >= wanted

        wait_for(f"{more_bytes} more bytes", is_written, within_s=60)


def hashes(server: Server) -> list[str]:
    """Return the hashes of what a server itself has of all keys."""
    with Connection(server.redis) as connection:
        assert connection.ask("READONLY") == b"OK"
        connection.send(*[("GET", f"v{number}") for number in range(KEYS)])
        return [hashlib.sha256(connection.reply()).hexdigest() for _ in range(KEYS)]


def test_seven_servers_with_one_stopped_and_one_killed_take_large_values(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(*SEVEN, redis=True, settings=f"{PATIENT}\nsnapshot_log_size: 16MiB")
    leader = cluster.wait_leader()
    term = term_of(leader)
    too_long = b"x" * (VALUE_BYTES_MAX + 1)
    with Connection(leader.redis) as connection:
        reply = connection.ask("SET", "a", too_long)
        assert isinstance(reply, hiredis.ReplyError)
        limit = f"at most {VALUE_BYTES_MAX} bytes on this server, not {len(too_long)}"
        assert str(reply) == f"ERR a value has {limit}"
        # And the connection is of use still.
        assert connection.ask("GET", "a") is None
    refused = cluster.ctl("put", "a", "-", stdin="x" * len(too_long))
    assert refused.code != 0
    assert "longer than a value can be" in refused.stderr
    put = cluster.ctl("put", "a", "-", stdin="x" * VALUE_BYTES_MAX)
    assert put.code == 0, put.stderr
    stopped, killed = cluster.followers(leader)[:2]
    writing = Writing(leader)
    with Memory([leader]) as memory:
        writing.start()
        try:
            writing.wait_bytes(2 * MEBIBYTE)
            stopped.pause()
            writing.wait_bytes(8 * MEBIBYTE)
            killed.kill()
            writing.wait_bytes(WHILE_STOPPED_BYTES)
            assert term_of(leader) == term
            killed.start()
            stopped.resume()
            writing.wait_bytes(2 * MEBIBYTE)
        finally:
            stopped.resume()
            writing.stops.set()
            writing.join(60)
        assert writing.error is None
        cluster.wait_settled(SEVEN)
        assert memory.most_bytes < MEMORY_WITH_LARGE_VALUES_BYTES
    expected = {n % KEYS: hashlib.sha256(value_of(n)).hexdigest() for n in range(writing.written)}
    for server in cluster.servers.values():
        wait_for(
            f"the state of {server.name}",
            lambda server=server: hashes(server) == [expected[n] for n in range(KEYS)],  # type: ignore[misc]
        )
    assert cluster.ctl("get", "a").stdout == "x" * VALUE_BYTES_MAX
    assert not any("divergence" in server.log for server in cluster.servers.values())
