"""A group of servers in one thread: messages are delivered when a test says so.

The harness is a driver in the sense of `raftd.core.ready`: it does what each `Ready` says in its
order, on disks that survive `crash`. After every input the invariants of each server hold, and the
properties across servers of Figure 3 of the paper hold too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from raftd.core.errors import RequestRefused
from raftd.core.invariants import InvariantChecker
from raftd.core.leader import Leader
from raftd.core.log import RaftLog
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    MembershipChange,
    encode_configuration,
)
from raftd.core.messages import AppendEntries, Envelope
from raftd.core.options import Options
from raftd.core.raft import Raft
from raftd.core.ready import ReadAnswer, Ready
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId, Term

OPTIONS = Options(heartbeat_ticks=1, election_ticks=10, joint_timeout_ticks=20, departing_ticks=200)


def founding_entry(voters: Iterable[ServerId], learners: Iterable[ServerId] = ()) -> Entry:
    """Return entry 1 of a cluster that starts with `voters` and `learners`."""
    configuration = Configuration(voters=voters, learners=learners)
    founding = ConfigurationEntry(
        configuration=configuration,
        addresses={server: address_of(server) for server in sorted(configuration.members)},
        kind=ConfigurationKind.BOOTSTRAP,
    )
    return Entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(founding))


def address_of(server: ServerId) -> str:
    """Return the address that `server` has in these tests."""
    return f"{server}:1"


class Disk:
    """What survives a crash of one server."""

    def __init__(self, entries: Iterable[Entry] = (), term: Term = 0) -> None:
        self.hard_state = HardState(term)
        self.entries: list[Entry] = list(entries)

    def append(self, hard_state: HardState | None, entries: tuple[Entry, ...]) -> None:
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            first = self.entries[0].index if self.entries else entries[0].index
            del self.entries[entries[0].index - first :]
            self.entries.extend(entries)


class Server:
    """One server: its core, its disk, and what came out of it."""

    def __init__(self, server: ServerId, disk: Disk, options: Options, seed: object) -> None:
        self.name = server
        self.disk = disk
        self.options = options
        self.random = Random(f"{seed}/{server}")
        self.applied: list[Entry] = []
        self.reads: list[ReadAnswer] = []
        self.lost_leadership = 0
        self.start()

    def start(self) -> None:
        self.raft = Raft(
            server=self.name,
            log=RaftLog(self.disk.entries),
            hard_state=self.disk.hard_state,
            options=self.options,
            random=self.random,
        )
        self.checker = InvariantChecker(self.raft)
        self.applied = []


class Cluster:
    """Several servers and the messages between them."""

    def __init__(
        self,
        voters: Iterable[ServerId],
        *,
        learners: Iterable[ServerId] = (),
        blank: Iterable[ServerId] = (),
        options: Options = OPTIONS,
        seed: object = 0,
    ) -> None:
        voters, learners = tuple(voters), tuple(learners)
        self.options = options
        self.seed = seed
        self.servers: dict[ServerId, Server] = {}
        self.down: set[ServerId] = set()
        self.cut: set[tuple[ServerId, ServerId]] = set()
        self.queue: list[Envelope] = []
        self.transcript: list[str] = []
        self.leaders: dict[Term, ServerId] = {}
        self.committed: dict[Index, Entry] = {}
        self.committed_in: dict[Index, Term] = {}
        founding = founding_entry(voters, learners)
        for server in voters + learners:
            self.servers[server] = Server(server, Disk([founding], term=1), options, seed)
        for server in blank:
            self.add_blank(server)

    def add_blank(self, server: ServerId) -> None:
        """Start a server that knows nothing."""
        self.servers[server] = Server(server, Disk(), self.options, self.seed)

    # --- looking ---

    def raft(self, server: ServerId) -> Raft:
        return self.servers[server].raft

    def leader(self) -> ServerId:
        """Return the leader of the highest term among the servers that are up."""
        leading = [
            (server.raft.current_term, name)
            for name, server in self.servers.items()
            if name not in self.down and isinstance(server.raft.role, Leader)
        ]
        assert leading, "no leader"
        return max(leading)[1]

    def role(self, server: ServerId) -> str:
        return self.raft(server).status().role

    def commands(self, server: ServerId) -> list[bytes]:
        """Return the commands that `server` has applied, in order."""
        return [e.data for e in self.servers[server].applied if e.kind is EntryKind.COMMAND]

    def log(self, server: ServerId) -> list[tuple[Index, Term]]:
        log = self.raft(server).log
        return [(e.index, e.term) for e in log.entries(log.first_index, log.last_index)]

    def configuration(self, server: ServerId) -> Configuration:
        latest = self.raft(server).configuration
        assert latest is not None
        return latest.configuration

    # --- acting ---

    def give(self, server: ServerId, action: Callable[[Raft], object]) -> object:
        """Put one input into `server`, then do all the work that it asks for."""
        result = action(self.raft(server))
        self.settle(server)
        return result

    def settle(self, server: ServerId) -> None:
        """Do what the server's Readys say, in their order."""
        node = self.servers[server]
        node.checker.check()
        while (ready := node.raft.take_ready()) is not None:
            self._handle(node, ready)
        self._check_across(node)

    def _handle(self, node: Server, ready: Ready) -> None:
        self._post(ready.early_messages)
        if ready.hard_state is not None or ready.entries:
            node.disk.append(ready.hard_state, ready.entries)
        node.raft.persisted(ready)
        node.checker.check()
        self._post(ready.messages)
        for entry in ready.committed:
            self.note_committed(node, entry)
            node.applied.append(entry)
        node.reads.extend(ready.reads)
        node.lost_leadership += ready.lost_leadership

    def note_committed(self, node: Server, entry: Entry) -> None:
        """State Machine Safety (Figure 3); remember in which term `entry` was committed."""
        known = self.committed.setdefault(entry.index, entry)
        assert known == entry, f"two entries committed at index {entry.index}"
        self.committed_in.setdefault(entry.index, node.raft.current_term)

    def _check_across(self, node: Server) -> None:
        """Election Safety and Leader Completeness (Figure 3).

        Complete is a leader that has what was committed *in* earlier terms: an entry of an earlier
        term may be committed by a later leader, while one in between never had it (Figure 8).
        """
        raft = node.raft
        if not isinstance(raft.role, Leader):
            return
        known = self.leaders.setdefault(raft.current_term, node.name)
        assert known == node.name, f"two leaders in term {raft.current_term}"
        for index, entry in self.committed.items():
            if self.committed_in[index] < raft.current_term:
                assert raft.log.term_at(index) == entry.term, f"leader lacks entry {index}"

    def _post(self, envelopes: Iterable[Envelope]) -> None:
        self.queue.extend(envelopes)

    def passes(self, envelope: Envelope) -> bool:
        return (
            envelope.dest in self.servers
            and envelope.dest not in self.down
            and envelope.source not in self.down
            and (envelope.source, envelope.dest) not in self.cut
        )

    def deliver(self, envelope: Envelope) -> None:
        """Hand one message over if nothing stands in its way."""
        if self.passes(envelope):
            self.give(envelope.dest, lambda raft: raft.step(envelope))

    def deliver_all(self, rounds_max: int = 200) -> None:
        """Deliver messages, oldest first, until there are none."""
        for _ in range(rounds_max):
            if not self.queue:
                return
            batch, self.queue = self.queue, []
            for envelope in batch:
                self.deliver(envelope)
        raise AssertionError("the messages do not come to an end")

    def take(self, wanted: Callable[[Envelope], bool]) -> list[Envelope]:
        """Take the queued messages that are `wanted` out of the network."""
        taken = [envelope for envelope in self.queue if wanted(envelope)]
        self.queue = [envelope for envelope in self.queue if not wanted(envelope)]
        return taken

    def tick(self, server: ServerId, count: int = 1) -> None:
        for _ in range(count):
            self.give(server, lambda raft: raft.tick())

    def run(self, ticks: int = 1) -> None:
        """Let time pass for all that are up, delivering everything after each tick."""
        for _ in range(ticks):
            for server in sorted(self.servers):
                if server not in self.down:
                    self.tick(server)
            self.deliver_all()

    def run_until(self, condition: Callable[[], bool], ticks_max: int = 400) -> None:
        for _ in range(ticks_max):
            if condition():
                return
            self.run()
        raise AssertionError(f"not reached within {ticks_max} ticks")

    def campaign(self, server: ServerId) -> None:
        """Let the election timer of `server` run out and the election take its course."""
        for other in self.servers.values():
            if other.name != server and other.name not in self.down:
                other.raft.leader_id = None if other.raft.leader_id != other.name else other.name
        term = self.raft(server).current_term
        while self.raft(server).current_term == term and self.role(server) == "follower":
            self.tick(server)
        self.deliver_all()

    def elect(self, server: ServerId) -> None:
        """Make `server` the leader and let everybody know."""
        self.campaign(server)
        assert self.leader() == server
        self.run(2)

    def propose(self, command: bytes, server: ServerId | None = None) -> tuple[Term, Index]:
        chosen = server or self.leader()
        return self.give(chosen, lambda raft: raft.propose(command))  # type: ignore[return-value]

    def change(
        self,
        changes: Iterable[tuple[str, ServerId]],
        server: ServerId | None = None,
        **extra: object,
    ) -> tuple[Term, Index]:
        chosen = server or self.leader()
        steps = tuple(changes)
        change = MembershipChange(
            changes=steps,
            addresses={name: address_of(name) for role, name in steps if role != "remove"},
            **extra,  # type: ignore[arg-type]
        )
        return self.give(chosen, lambda raft: raft.change_membership(change))  # type: ignore[return-value]

    def refused(
        self, action: Callable[[], object], kind: type[RequestRefused] | type[ValueError]
    ) -> str:
        """Run `action`, which has to be refused; return the message."""
        try:
            action()
        except kind as refusal:
            return str(refusal)
        raise AssertionError(f"not refused with {kind.__name__}")

    def crash(self, server: ServerId) -> None:
        """Stop `server`; what its disk has not got is gone."""
        self.down.add(server)

    def restart(self, server: ServerId) -> None:
        self.down.discard(server)
        self.servers[server].start()

    def partition(self, *groups: Iterable[ServerId]) -> None:
        """Cut every link between servers of different groups."""
        sides = [set(group) for group in groups]
        self.cut = {
            (source, dest)
            for source in self.servers
            for dest in self.servers
            if not any({source, dest} <= side for side in sides) and source != dest
        }

    def heal(self) -> None:
        self.cut.clear()


def appends(envelope: Envelope) -> bool:
    """Whether it is an AppendEntries that carries entries."""
    return isinstance(envelope.message, AppendEntries) and bool(envelope.message.entries)
