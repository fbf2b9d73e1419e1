"""What a benchmark sees of the servers meanwhile: who leads, and what each of them uses.

Every member is asked for its status once a second, and at once when the leader is lost. The
connections are those of the loop that makes the load: they cost it next to nothing.
"""

from __future__ import annotations

import selectors
import ssl
import time
from collections.abc import Mapping, Sequence

import attrs

from raftctl.bench_links import NANOSECONDS, Link
from raftd.codec import decode_reply, encode_frame, encode_request
from raftd.config_values import parse_address
from raftd.core.types import server_name
from raftd.protocol import ErrorReply, StatusReply, StatusRequest

ASK_NS = NANOSECONDS
"""Between two questions to a server."""
SEARCH_NS = 50_000_000
"""The same while no leader is known: short against an election."""
REDIAL_NS = 200_000_000
"""Between two attempts to reach a server."""
SILENCE_NS = 2 * NANOSECONDS
"""A server that says nothing for so long is dialled anew."""
SERVERS_MAX = 100
"""Far more than a cluster has; a server that talks nonsense cannot make us dial the world."""
LEADERS_MAX = 100
"""Changes of the leader that are remembered: with more of them nothing was measured but these."""


@attrs.frozen(kw_only=True)
class Sample:
    """What a server has used when it was asked."""

    time_ns: int
    """When it answered, on the monotonic clock here."""
    uptime_ms: int
    cpu_ms: int | None
    rss_bytes: int | None
    rss_anon_bytes: int | None


@attrs.frozen(kw_only=True)
class ServerUse:
    """What a server has used while it was looked at."""

    name: str
    role: str
    """As it said last."""
    reachable: bool
    """Whether it answered at the end."""
    restarted: bool
    """Whether its process was started meanwhile: what it used before is not known then."""
    cpu_ms: int | None
    """Processor time; None if it does not say."""
    cpu_fraction: float | None
    """Of one processor, over the time that `cpu_ms` was used in."""
    rss_bytes: int | None
    """Resident memory at the end."""
    rss_anon_bytes: int | None
    """Of that, what belongs to no file."""
    rss_anon_max_bytes: int | None
    """The most of it that was seen."""


class _Observer(Link):
    """Asks one server, again and again."""

    def __init__(
        self, servers: Servers, selector: selectors.BaseSelector, cluster_id: str, address: str
    ) -> None:
        super().__init__(selector, cluster_id, servers.tls)
        self._servers = servers
        self.at = address
        self.name = ""
        self.role = ""
        self.is_asking = False
        self.asked_ns = 0
        self.first: Sample | None = None
        """Since the measurement began, or since its process began if that was later."""
        self.last: Sample | None = None
        self.restarted = False
        self.rss_anon_max_bytes: int | None = None
        self._number = 0

    def tend(self, now_ns: int) -> None:
        """Ask it if it is time to, or dial it."""
        interval_ns = ASK_NS if self._servers.leader else SEARCH_NS
        if self.stream is None:
            if now_ns - self.dialled_ns >= REDIAL_NS:
                self.dial(self.at)
        elif self.is_asking or not self.is_up:
            if now_ns - max(self.asked_ns, self.dialled_ns) >= SILENCE_NS:
                self.fail("it does not answer")
        elif now_ns - self.asked_ns >= interval_ns:
            self.ask()

    def ask(self) -> None:
        """Ask it now, unless it has not answered yet."""
        if self.is_up and not self.is_asking:
            self.is_asking = True
            self.asked_ns = time.monotonic_ns()
            self._number += 1
            self.queue(encode_frame(encode_request(self._number, StatusRequest())))
            self.flush()

    def begin(self) -> None:
        """Count what it uses from now on."""
        self.first = self.last
        self.restarted = False
        self.rss_anon_max_bytes = self.last.rss_anon_bytes if self.last is not None else None

    def up(self) -> None:
        """Ask at once."""
        self.ask()

    def received(self, payloads: Sequence[bytes]) -> None:
        """Take in what it says of itself."""
        for payload in payloads:
            _, reply = decode_reply(payload)
            self.is_asking = False
            if isinstance(reply, StatusReply):
                self._note(reply)
            elif not isinstance(reply, ErrorReply):
                self.fail("it answers something else")
                return

    def _note(self, reply: StatusReply) -> None:
        self.name, self.role = server_name(reply.server), reply.role
        sample = Sample(
            time_ns=time.monotonic_ns(),
            uptime_ms=reply.uptime_ms,
            cpu_ms=reply.cpu_ms,
            rss_bytes=reply.rss_bytes,
            rss_anon_bytes=reply.rss_anon_bytes,
        )
        if self.last is not None and reply.uptime_ms < self.last.uptime_ms:
            self.restarted = True
            self.first = attrs.evolve(sample, uptime_ms=0, cpu_ms=0)
        elif self.first is None:
            self.first = sample
        self.last = sample
        if reply.rss_anon_bytes is not None:
            self.rss_anon_max_bytes = max(self.rss_anon_max_bytes or 0, reply.rss_anon_bytes)
        self._servers.heard(self, reply)

    def down(self, problem: str, code: str) -> None:
        """Note that it is gone; it is dialled again in time."""
        self.is_asking = False
        self._servers.lost(self.at)

    def use(self) -> ServerUse:
        """Return what it has used since `begin`."""
        first, last = self.first, self.last
        cpu_ms = fraction = None
        if first is not None and last is not None and None not in (first.cpu_ms, last.cpu_ms):
            assert first.cpu_ms is not None
            assert last.cpu_ms is not None
            cpu_ms = max(0, last.cpu_ms - first.cpu_ms)
            passed_ms = last.uptime_ms - first.uptime_ms
            fraction = cpu_ms / passed_ms if passed_ms > 0 else None
        return ServerUse(
            name=self.name,
            role=self.role,
            reachable=self.is_up,
            restarted=self.restarted,
            cpu_ms=cpu_ms,
            cpu_fraction=fraction,
            rss_bytes=last.rss_bytes if last is not None else None,
            rss_anon_bytes=last.rss_anon_bytes if last is not None else None,
            rss_anon_max_bytes=self.rss_anon_max_bytes,
        )


class Servers:
    """The members of the cluster, as far as a benchmark has to know them."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        cluster_id: str,
        addresses: Sequence[str],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare to watch the servers at `addresses`; `tend` dials them."""
        self.tls = tls
        self._selector = selector
        self._cluster_id = cluster_id
        self._observers: dict[str, _Observer] = {}
        self._term = 0
        self.leader = ""
        """HOST:PORT of the leader; empty while none is known."""
        self.leaders: list[tuple[int, str]] = []
        """The names of the leaders and when, on the monotonic clock, each was first heard of."""
        for address in addresses:
            self._add(address)

    @property
    def addresses(self) -> list[str]:
        """Where servers are watched."""
        return list(self._observers)

    @property
    def leader_name(self) -> str:
        """The name of the leader; empty while none is known."""
        observer = self._observers.get(self.leader)
        return observer.name if observer is not None else ""

    def tend(self, now_ns: int) -> None:
        """Ask whom it is time to ask; to be called every few hundredths of a second."""
        for observer in tuple(self._observers.values()):
            observer.tend(now_ns)

    def ask_all(self) -> None:
        """Ask every server now."""
        for observer in tuple(self._observers.values()):
            observer.ask()

    def answered_since(self, moment_ns: int) -> bool:
        """Return whether every server that can be reached has answered since then."""
        return all(
            not each.is_up or (each.last is not None and each.last.time_ns >= moment_ns)
            for each in self._observers.values()
        )

    def begin(self) -> None:
        """Count what the servers use from now on."""
        for observer in self._observers.values():
            observer.begin()

    def uses(self) -> list[ServerUse]:
        """Return what each server has used since `begin`, of those that have ever answered."""
        return [each.use() for each in self._observers.values() if each.name]

    def lost(self, address: str) -> None:
        """Note that the server at `address` does not answer: if it led, look for another one."""
        if address == self.leader:
            self.leader = ""

    def doubt(self) -> None:
        """Ask everybody: the leader says that it cannot serve."""
        now_ns = time.monotonic_ns()
        for observer in tuple(self._observers.values()):
            if now_ns - observer.asked_ns >= SEARCH_NS:
                observer.ask()

    def pointed_at(self, address: str, by: str) -> None:
        """Note that the server at `by` does not lead, and says that the one at `address` does."""
        if self.leader in ("", by):
            self.leader = address if self._add(address) and address != by else ""

    def heard(self, observer: _Observer, reply: StatusReply) -> None:
        """Take in what a server says of the cluster."""
        if reply.configuration is not None:
            self._follow(reply.configuration.addresses)
        if reply.role == "leader" and reply.leadership_confirmed and reply.term >= self._term:
            self._term = reply.term
            self.leader = observer.at
            is_news = not self.leaders or self.leaders[-1][1] != observer.name
            if is_news and len(self.leaders) < LEADERS_MAX:
                self.leaders.append((time.monotonic_ns(), observer.name))
        elif self.leader == observer.at:
            self.leader = ""

    def close(self) -> None:
        """Close all connections."""
        for observer in self._observers.values():
            observer.close()

    def _follow(self, addresses: Mapping[str, str]) -> None:
        for address in addresses.values():
            self._add(address)

    def _add(self, address: str) -> bool:
        """Watch the server at `address`; return whether it is watched."""
        if address not in self._observers:
            try:
                parse_address(address)
            except ValueError:
                return False
            if len(self._observers) >= SERVERS_MAX:
                return False
            self._observers[address] = _Observer(self, self._selector, self._cluster_id, address)
        return True
