"""Each invariant is content with what obeys its property, and notices what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any
from zlib import crc32

import attrs
import pytest

import tests.core.walks as walks_module
from raftd.core.leader import Leader
from raftd.core.log import RaftLog
from raftd.core.membership import Configuration, ConfigurationKind
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    Message,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raftd.core.raft import Candidate, Follower, Raft
from raftd.core.ready import Ready
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId, Term
from tests.core.harness import OPTIONS, founding_entry
from tests.core.harness import Server as CoreServer
from tests.core.scenario import command, configuration_entry
from tests.core.walks import FaultyCluster, PowerLoss, Walk
from tests.simulation.invariants import Durable, Invariant
from tests.simulation.invariants.all import ALL
from tests.simulation.invariants.committed_never_changes import CommittedNeverChanges
from tests.simulation.invariants.committed_on_quorum import CommittedOnQuorum
from tests.simulation.invariants.core_invariants import TURNS_BETWEEN_CHECKS, CoreInvariants
from tests.simulation.invariants.durable_before_sent import DurableBeforeSent
from tests.simulation.invariants.election_safety import ElectionSafety
from tests.simulation.invariants.equal_state import EqualState
from tests.simulation.invariants.leader_append_only import LOOKED_BACK, LeaderAppendOnly
from tests.simulation.invariants.leader_completeness import LeaderCompleteness
from tests.simulation.invariants.log_matching import LogMatching
from tests.simulation.invariants.monotonic_positions import MonotonicPositions
from tests.simulation.invariants.one_unfinished_configuration import OneUnfinishedConfiguration
from tests.simulation.invariants.recovery import Recovery
from tests.simulation.invariants.state_machine_safety import StateMachineSafety
from tests.simulation.watch import Watch

A, B, C, D, E, F = (f"n{number}/{number}" for number in range(1, 7))
ABC = (A, B, C)
DEF = (D, E, F)
FOUNDING = founding_entry(ABC, DEF)
"""Entry 1: A, B and C vote, D, E and F learn."""


@attrs.define(eq=False)
class Disk:
    """What a server's disk has kept."""

    hard_state: HardState = HardState(1)
    entries: list[Entry] = attrs.field(factory=list)


@attrs.define(eq=False)
class State:
    """As much of a state machine as invariants look at."""

    applied_index: Index = 0


@attrs.define(eq=False)
class Server:
    """A server in the hands of the test: its core does what the test writes into it."""

    id: ServerId
    durable: Disk
    process: int = 0
    raft: Any = None
    state: State = attrs.field(factory=State)
    state_hash: int = 0

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
        server.raft = raft_of(server.id, server.durable.entries, server.durable.hard_state)
        self.invariant.started(server)

    def write(
        self, server: Server, *entries: Entry, hard_state: HardState | None = None
    ) -> None:
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
        last = server.log.last_index
        server.log.merge(entries)
        fresh = [entry for entry in entries if entry.index > last or entry not in server.durable.entries]
        server.log.commit_index = max(server.log.commit_index, commit)
        if fresh:
            self.write(server, *server.log.entries(fresh[0].index, server.log.last_index))
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

    def count(
        self, server: Server, new: Index, configuration: Configuration | None = None
    ) -> None:
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

    def send(self, server: Server, dest: ServerId, message: Message) -> None:
        self.invariant.sent(server, Envelope(server.id, dest, message))

    def turn(self, server: Server) -> None:
        self.invariant.turned(server)


def raft_of(server: ServerId, entries: Iterable[Entry], hard_state: HardState) -> Raft:
    return Raft(
        server=server,
        log=RaftLog(entries),
        hard_state=hard_state,
        options=OPTIONS,
        random=Random(0),
    )


def noticed(*parts: str) -> Any:
    """Return what expects an AssertionError whose message has all the parts in this order."""
    return pytest.raises(AssertionError, match=".*".join(parts))


# --- all of them, over cores under random faults ---


class _Walker:
    """A server of `tests.core.harness`, as invariants may look at it."""

    def __init__(self, node: CoreServer) -> None:
        self.node = node
        self.id = node.name
        self.process = 0
        self.state = State()
        self.state_hash = 0

    @property
    def raft(self) -> Raft:
        return self.node.raft

    @property
    def durable(self) -> Durable:
        return self.node.disk


class WatchedCluster(FaultyCluster):
    """A cluster whose invariants are told of everything that it does."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.watch_from_here(ALL)

    def watch_from_here(self, kinds: Sequence[type[Invariant]]) -> None:
        """Begin with new invariants, which have not seen what was before."""
        self.disks: dict[ServerId, Durable] = {}
        self.walkers: dict[ServerId, _Walker] = {}
        self.watch = Watch(kinds, self.disks)
        for server in self.servers.values():
            self.disks[server.name] = server.disk
            self.walkers[server.name] = _Walker(server)
            self._tell_start(server)

    def _tell_start(self, node: CoreServer) -> None:
        walker = self.walkers[node.name]
        walker.process += 1
        walker.state, walker.state_hash = State(), 0
        self.watch.tell("started", walker)

    def give(self, server: ServerId, action: Callable[[Raft], object]) -> object:
        self.watch.working = self.walkers[server]
        with self.watch.counting():
            result = super().give(server, action)
        if server not in self.down:
            self.watch.tell("turned", self.walkers[server])
        return result

    def crash(self, server: ServerId) -> None:
        if server not in self.down:
            self.watch.tell("ended", self.walkers[server])
        super().crash(server)

    def restart(self, server: ServerId) -> None:
        super().restart(server)
        self._tell_start(self.servers[server])

    def _handle(self, node: CoreServer, ready: Ready) -> None:
        walker = self.walkers[node.name]
        for envelope in ready.early_messages:
            self.watch.tell("sent", walker, envelope)
        self._post(ready.early_messages)
        if ready.hard_state is not None or ready.entries:
            if self.chance.random() < self.power_loss:
                kept = ready.entries[: self.chance.randrange(len(ready.entries) + 1)]
                node.disk.append(ready.hard_state, kept)
                raise PowerLoss
            node.disk.append(ready.hard_state, ready.entries)
            self.watch.tell("appended", walker, ready.hard_state, ready.entries)
            self._gap()
        node.raft.persisted(ready)
        for envelope in ready.messages:
            self.watch.tell("sent", walker, envelope)
        self._post(ready.messages)
        self._gap()
        if ready.committed:
            for entry in ready.committed:
                walker.state_hash = crc32(entry.data, walker.state_hash)
                self.note_committed(node, entry)
            walker.state.applied_index = ready.committed[-1].index
            self.watch.tell("applied", walker, ready.committed)
        node.applied.extend(ready.committed)


@pytest.mark.parametrize("block", range(4))
def test_no_invariant_complains_about_the_cores_under_random_faults(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks_module, "FaultyCluster", WatchedCluster)
    for seed in range(10_000 + 10 * block, 10_010 + 10 * block):
        try:
            Walk(seed).run()
        except AssertionError as failure:
            raise AssertionError(f"Walk({seed}): {failure}") from failure
