"""Servers without a protocol, on which a test plays out what an invariant has to see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import attrs
import pytest

from raftd.core.leader import Leader
from raftd.core.log import RaftLog
from raftd.core.membership import Configuration
from raftd.core.messages import AppendEntries, AppendEntriesResponse, Envelope, Message
from raftd.core.raft import Follower, Raft
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, HardState, Index, ServerId, Term
from raftd.protocol import PROTOCOL_VERSION_MAX
from tests.core.harness import OPTIONS, founding_entry
from tests.core.scenario import command
from tests.simulation.invariants import Durable, Invariant

A, B, C, D, E, F = (f"n{number}/{number}" for number in range(1, 7))
ABC = (A, B, C)
DEF = (D, E, F)
FOUNDING = founding_entry(ABC, DEF)
"""Entry 1: A, B and C vote, D, E and F learn."""


@attrs.define(eq=False)
class Disk:
    """What a server's disk has kept."""

    hard_state: HardState = attrs.field(factory=lambda: HardState(1))
    entries: list[Entry] = attrs.field(factory=list)
    base_index: Index = 0
    snapshot: Snapshot | None = None


@attrs.define(eq=False)
class State:
    """As much of a state machine as invariants look at."""

    applied_index: Index = 0
    effects_hash: int = 0
    features: int = 0
    history_is_complete: bool = False

    def history(self, limit: int, below_index: Index, bytes_max: int) -> tuple[tuple[()], bool]:
        """Return that nothing was recorded."""
        return (), False


@attrs.define(eq=False)
class Server:
    """A server in the hands of the test: its core does what the test writes into it."""

    id: ServerId
    durable: Disk
    process: int = 0
    version: int = PROTOCOL_VERSION_MAX
    raft: Any = None
    state: Any = attrs.field(factory=State)
    state_hash: int = 0
    holds_lease: bool = False

    def lease_is_held(self) -> bool:
        """Return what the test has written."""
        return self.holds_lease

    @property
    def log(self) -> RaftLog:
        log: RaftLog = self.raft.log
        return log

    @property
    def term(self) -> Term:
        term: Term = self.raft.current_term
        return term


class Stage:
    """Servers that obey no protocol, and one invariant that is told what they do."""

    def __init__(self, kind: type[Invariant], servers: Iterable[ServerId] = ABC) -> None:
        self.durable: dict[ServerId, Durable] = {}
        self.invariant = kind(self.durable)
        self.servers = {server: self.start(server) for server in servers}

    def __getitem__(self, server: ServerId) -> Server:
        return self.servers[server]

    def start(self, server_id: ServerId, entries: Sequence[Entry] = (FOUNDING,)) -> Server:
        """Start a new server whose disk has `entries`."""
        disk = self.durable[server_id] = Disk(entries=list(entries))
        server = Server(server_id, disk)
        self.restart(server)
        return server

    def restart(self, server: Server) -> None:
        """Begin the next process of a server, from its disk."""
        if server.raft is not None:
            self.invariant.ended(server)
        server.process += 1
        server.state = State()
        disk = server.durable
        server.raft = raft_of(server.id, disk.entries, disk.hard_state, disk.snapshot)
        if disk.base_index:
            server.log.commit_index = server.log.handed_index = disk.base_index
            server.log.compact(disk.base_index)
            server.state.applied_index = disk.base_index
        self.invariant.started(server)

    def write(self, server: Server, *entries: Entry, hard_state: HardState | None = None) -> None:
        """Make both durable."""
        disk = server.durable
        if hard_state is not None:
            disk.hard_state = hard_state
        if entries:
            del disk.entries[entries[0].index - 1 :]
            disk.entries += [attrs.evolve(entry) for entry in entries]
        server.log.durable_index = min(server.log.last_index, len(disk.entries))
        self.invariant.appended(server, hard_state, entries)

    def receive(self, server: Server, *entries: Entry, commit: Index = 0) -> None:
        """Let a server store `entries`, in memory and on its disk, and end its turn."""
        server.log.merge(entries)
        server.log.commit_index = max(server.log.commit_index, commit)
        fresh = server.log.unpersisted()
        if fresh:
            self.write(server, *fresh)
        self.turn(server)

    def adopt(self, server: Server, term: Term, voted_for: ServerId | None = None) -> None:
        """Let a server follow in a term, durably."""
        raft = server.raft
        raft.current_term, raft.voted_for, raft.role = term, voted_for, Follower()
        raft.leader_id = None
        self.write(server, hard_state=HardState(term, voted_for))

    def elect(self, server: Server, term: Term) -> Server:
        """Let a server lead in a term; its no-op is on its disk."""
        self.adopt(server, term, server.id)
        raft = server.raft
        raft.leader_id, raft.role = server.id, Leader(raft)
        raft.role.begin()
        self.write(server, server.log.entry(server.log.last_index))
        self.turn(server)
        return server

    def propose(self, server: Server, entry: Entry | None = None) -> Entry:
        """Let a leader append an entry of its term, in memory and on its disk."""
        entry = entry or command(server.log.last_index + 1, server.term)
        server.log.append([entry])
        self.write(server, entry)
        return entry

    def count(self, server: Server, new: Index, configuration: Configuration | None = None) -> None:
        """Let a leader commit up to `new`, under what is in force or another configuration."""
        old = server.log.commit_index
        server.log.commit_index = new
        if configuration is None:
            configuration = server.raft.configuration.configuration
        self.invariant.committed(server, configuration, old, new)

    def apply(self, server: Server, *entries: Entry) -> None:
        """Let a state machine apply `entries`."""
        server.state.applied_index = entries[-1].index
        server.log.handed_index = max(server.log.handed_index, entries[-1].index)
        self.invariant.applied(server, entries)

    def take(self, server: Server, index: Index) -> Snapshot:
        """Let a server publish a snapshot of its own log up to `index`."""
        snapshot = snapshot_at(server, index)
        server.durable.snapshot = server.raft.snapshot = snapshot
        self.invariant.published(server, snapshot, StateContent(server))
        return snapshot

    def compact(self, server: Server, index: Index) -> None:
        """Let a server forget its log up to `index`, in memory and on its disk."""
        server.log.compact(index)
        server.durable.base_index = index
        self.invariant.compacted(server, index)

    def install(self, server: Server, snapshot: Snapshot, entries: Sequence[Entry]) -> None:
        """Let a server install a snapshot of `entries`, and forget all that follows."""
        disk, index = server.durable, snapshot.id.last_included_index
        has_end = index <= len(disk.entries) and disk.entries[index - 1] == entries[index - 1]
        if not has_end:
            disk.entries = list(entries[:index])
            disk.base_index = index
        disk.snapshot = server.raft.snapshot = snapshot
        server.log.restore(snapshot)
        self.invariant.published(server, snapshot, StateContent(server))
        if server.log.last_index == index:
            del disk.entries[index:]
        disk.base_index = index
        self.invariant.compacted(server, index)
        server.state.applied_index = index
        self.invariant.restored(server, snapshot)

    def send(self, server: Server, dest: ServerId, message: Message) -> None:
        self.invariant.sent(server, Envelope(server.id, dest, message))

    def turn(self, server: Server) -> None:
        self.invariant.turned(server)


class StateContent:
    """What a snapshot of a server's state holds, as far as invariants look at it."""

    def __init__(self, server: Server) -> None:
        self.state_hash = server.state_hash

    def get(self, key: bytes) -> bytes | None:
        """Return nothing: the state of these tests knows nothing of itself."""
        return None


def snapshot_at(server: Server, index: Index) -> Snapshot:
    """Return a snapshot of a server's log up to `index`."""
    term = server.log.term_at(index)
    assert term is not None
    configuration = server.log.configurations.at(index)
    assert configuration is not None
    id = SnapshotId(
        last_included_index=index,
        last_included_term=term,
        size_bytes=100,
        checksum=f"{index:032x}",
    )
    return Snapshot(id, configuration)


def raft_of(
    server: ServerId,
    entries: Iterable[Entry],
    hard_state: HardState,
    snapshot: Snapshot | None = None,
) -> Raft:
    return Raft(
        snapshot=snapshot,
        server=server,
        log=RaftLog(entries),
        hard_state=hard_state,
        options=OPTIONS,
        random=Random(0),
    )


def noticed(*parts: str) -> Any:
    """Return what expects an AssertionError whose message has all the parts in this order."""
    return pytest.raises(AssertionError, match=".*".join(parts))


def heartbeat(
    server: Server, prev: Index | None = None, entries: Sequence[Entry] = ()
) -> AppendEntries:
    """Return what a leader sends after `prev`, by default after its whole log."""
    prev = server.log.last_index if prev is None else prev
    return AppendEntries(server.term, prev, server.log.term_at(prev) or 0, tuple(entries), 0, 1)


def acknowledgement(term: Term, index: Index, *, success: bool = True) -> AppendEntriesResponse:
    return AppendEntriesResponse(
        term=term, success=success, round=1, match_index=index, commit_index=0
    )


def figure_8(stage: Stage) -> tuple[Server, Server, Server]:
    """Bring about Figure 8 (a) to (c), where entry 2 of term 2 is on three servers."""
    first, second, third = (stage[server] for server in ABC)
    stage.elect(first, 2)
    stage.receive(second, first.log.entry(2))
    stage.elect(third, 3)
    stage.elect(first, 4)
    stage.receive(second, first.log.entry(2), first.log.entry(3))
    return first, second, third


def committed_everywhere(kind: type[Invariant]) -> Stage:
    """Return servers of which each has three entries and knows them to be committed."""
    stage = Stage(kind)
    leader = stage.elect(stage[A], 2)
    stage.propose(leader)
    for server in (stage[B], stage[C]):
        stage.receive(server, *leader.log.entries(2, 3))
    stage.count(leader, 3)
    for server in stage.servers.values():
        server.log.commit_index = 3
        stage.turn(server)
    return stage
