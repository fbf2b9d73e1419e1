"""A cluster for tests of `raftctl bench`: speaking servers around one state, and what they saw."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable

import attrs

from raftd.protocol import (
    DeleteRequest,
    DoneReply,
    ErrorReply,
    GetReply,
    GetRequest,
    ListEntry,
    ListReply,
    ListRequest,
    OpenSessionRequest,
    PutRequest,
    Reply,
    Request,
    StatusRequest,
    WriteReply,
)
from tests.raftctl.speaking_servers import (
    Answer,
    SpeakingServer,
    configuration,
    not_leader,
    status_of,
)

Trouble = Callable[[SpeakingServer, Request], Answer | None]


@attrs.define
class _Entry:
    value: bytes
    created: int
    modified: int
    version: int


class BenchedCluster:
    """The first server leads; `trouble` may answer in its place, None lets it answer as ever."""

    def __init__(self, *servers: SpeakingServer) -> None:
        self.servers = servers
        self.leader = servers[0]
        self.trouble: Trouble = lambda server, request: None
        self.revision = 0
        self.state: dict[str, _Entry] = {}
        self.touched: set[str] = set()
        self.writes: dict[str, list[int]] = defaultdict(list)
        """The serials of each session, in the order in which they were asked for."""
        self.attempts: Counter[tuple[str, int]] = Counter()
        self.asked: Counter[str] = Counter()
        """Requests of each kind."""
        self.asked_of: Counter[str] = Counter()
        """Gets that each server was asked for."""
        self._results: dict[tuple[str, int], WriteReply] = {}
        self._lock = threading.RLock()
        for server in servers:
            server.answer = lambda request, server=server: self._answer(server, request)

    @property
    def endpoints(self) -> str:
        """What to give to `-e`."""
        return ",".join(server.address for server in self.servers)

    @property
    def executed(self) -> int:
        """Writes that have had an effect."""
        return len(self._results)

    def apply(self, request: Request) -> Reply:
        """Do what a leader does, once for each session and serial."""
        with self._lock:
            match request:
                case OpenSessionRequest():
                    return DoneReply()
                case PutRequest() | DeleteRequest():
                    command = (request.session, request.serial)
                    if command not in self._results:
                        self._results[command] = self._write(request)
                    return self._results[command]
                case GetRequest():
                    found = self.state.get(request.key)
                    return GetReply(found=found is not None, value=found.value if found else b"")
                case ListRequest():
                    return self._list(request)
        raise AssertionError(request)

    def _write(self, request: PutRequest | DeleteRequest) -> WriteReply:
        self.revision += 1
        self.touched.add(request.key)
        before = self.state.pop(request.key, None)
        if isinstance(request, PutRequest):
            created = before.created if before else self.revision
            version = before.version + 1 if before else 1
            self.state[request.key] = _Entry(request.value, created, self.revision, version)
        applied = isinstance(request, PutRequest) or before is not None
        return WriteReply(applied=applied, revision=self.revision)

    def _list(self, request: ListRequest) -> ListReply:
        keys = [
            key
            for key in sorted(self.state)
            if key.startswith(request.prefix) and key > request.after
        ]
        entries = [
            ListEntry(
                key=key,
                value=self.state[key].value,
                create_revision=self.state[key].created,
                mod_revision=self.state[key].modified,
                version=self.state[key].version,
            )
            for key in keys[: request.limit]
        ]
        return ListReply(
            revision=self.revision, entries=tuple(entries), more=len(keys) > request.limit
        )

    def _answer(self, server: SpeakingServer, request: Request) -> Answer:
        with self._lock:
            self.asked[type(request).__name__] += 1
            if isinstance(request, PutRequest | DeleteRequest):
                self.writes[request.session].append(request.serial)
                self.attempts[request.session, request.serial] += 1
            if isinstance(request, GetRequest):
                self.asked_of[server.server] += 1
            troubled = self.trouble(server, request)
            if troubled is not None:
                return troubled
            if isinstance(request, StatusRequest):
                role = "leader" if server is self.leader else "follower"
                view = configuration(*self.servers)
                return status_of(server, role=role, view=view, leader=self.leader)
            is_stale = isinstance(request, GetRequest) and request.stale
            if server is not self.leader and not is_stale:
                return not_leader(self.leader)
            return self.apply(request)


def unavailable() -> ErrorReply:
    """Return the answer of a server that cannot take a request now."""
    return ErrorReply(code="unavailable", message="no leader", cause="at the moment")
