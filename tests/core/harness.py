"""A group of servers in one thread: messages are delivered when a test says so.

The harness is a driver in the sense of `raftd.core.ready`: it does what each `Ready` says in its
order, on disks that survive `crash`. After every input the invariants of each server hold, and the
properties across servers of Figure 3 of the paper hold too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
from raftd.core.messages import AppendEntries, Envelope, InstallSnapshot
from raftd.core.options import Options
from raftd.core.raft import Raft
from raftd.core.ready import ReadAnswer, Ready
from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, EntryKind, Index, ServerId, Term
from tests.core.disk import Disk, decode_state, snapshot_of

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


class PowerLoss(Exception):
    """The server that is at work stops here; what its disk has not got is gone."""


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
        self.received: Snapshot | None = None
        """A snapshot that is there as a whole; the core has not been told yet."""
        self.start()

    def start(self, applied: Sequence[Entry] = ()) -> None:
        """Start from the disk; the state comes from the newest snapshot.

        Args:
            applied: a state that has outlived the process. It is used if it reaches further.
        """
        disk = self.disk
        disk.recover()
        self.applied = max(disk.state(), list(applied), key=len)
        self.raft = Raft(
            server=self.name,
            log=RaftLog(
                disk.entries,
                base_index=disk.base_index,
                base_term=disk.base_term,
                snapshot=disk.snapshot,
                applied_index=len(self.applied),
            ),
            hard_state=disk.hard_state,
            options=self.options,
            random=self.random,
            snapshot=disk.snapshot,
        )
        self.checker = InvariantChecker(self.raft)
        self.received = None


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
        self.installs_at_once = True
        """Whether a snapshot is put in force as soon as its last part has arrived."""
        self.power_loss_at: tuple[ServerId, str] | None = None
        """The server and the step after which it dies, once."""
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
        try:
            result = action(self.raft(server))
            self.settle(server)
            return result
        except PowerLoss:
            self.crash(server)
            return None

    def settle(self, server: ServerId) -> None:
        """Do what the server's Readys say, in their order."""
        node = self.servers[server]
        node.checker.check()
        while (ready := node.raft.take_ready()) is not None:
            self._handle(node, ready)
            if node.received is not None and self.installs_at_once:
                self._tell_received(node)
        node.disk.keep(node.raft.snapshots_in_use())
        self._check_across(node)

    def _handle(self, node: Server, ready: Ready) -> None:
        self._post(ready.early_messages)
        if ready.restore is not None:
            self._install(node, ready.restore)
        if ready.hard_state is not None or ready.entries:
            node.disk.append(ready.hard_state, ready.entries)
        node.raft.persisted(ready)
        node.checker.check()
        self._post(ready.messages)
        self._handle_chunks(node, ready)
        self._apply(node, ready)
        node.reads.extend(ready.reads)
        node.lost_leadership += ready.lost_leadership

    def _apply(self, node: Server, ready: Ready) -> None:
        for entry in ready.committed:
            assert entry.index == len(node.applied) + 1, "applied out of order"
            self.note_committed(node, entry)
            node.applied.append(entry)

    def _gap(self, node: Server, step: str) -> None:
        """Stand between two steps of `node`; raise `PowerLoss` if it dies here."""
        if self.power_loss_at == (node.name, step):
            self.power_loss_at = None
            raise PowerLoss

    # --- snapshots ---

    def take_snapshot(self, server: ServerId, applied: Index | None = None) -> Snapshot:
        """Let `server` write a snapshot of its state, or of what it was after fewer entries."""
        node = self.servers[server]
        snapshot, encoded = snapshot_of(node.applied[:applied])

        def publish(raft: Raft) -> None:
            self._gap(node, "written")
            is_newest = node.disk.publish(snapshot, encoded)
            self._gap(node, "published")
            if is_newest:
                raft.snapshot_taken(snapshot)

        self.give(server, publish)
        return snapshot

    def compact(self, server: ServerId, index: Index | None = None) -> None:
        """Let `server` forget its log up to `index`, by default all that its snapshot has."""
        node = self.servers[server]
        assert node.raft.snapshot is not None
        last = node.raft.snapshot.id.last_included_index if index is None else index

        def forget(raft: Raft) -> None:
            raft.compact(last)
            self._gap(node, "forgotten")
            node.disk.compact(last)

        self.give(server, forget)

    def take_and_compact(self, server: ServerId) -> Snapshot:
        """Let `server` take a snapshot, and forget all of its log that the snapshot has."""
        snapshot = self.take_snapshot(server)
        self.compact(server)
        return snapshot

    def finish_receiving(self, server: ServerId) -> None:
        """Tell `server` that the snapshot is there as a whole, where that waits for a test."""
        node = self.servers[server]
        self.give(server, lambda raft: self._tell_received(node))

    def _tell_received(self, node: Server) -> None:
        snapshot, node.received = node.received, None
        assert snapshot is not None
        if not node.raft.snapshot_received(snapshot):
            node.disk.partial = None

    def _handle_chunks(self, node: Server, ready: Ready) -> None:
        for chunk in ready.chunks_to_send:
            end = chunk.offset + chunk.size_bytes
            assert end <= chunk.snapshot.size_bytes, "a part that is not there"
            message = InstallSnapshot(
                term=chunk.term,
                snapshot=chunk.snapshot,
                offset=chunk.offset,
                data=node.disk.snapshots[chunk.snapshot][chunk.offset : end],
                round=chunk.round,
            )
            self._post([Envelope(node.name, chunk.dest, message)])
        for envelope in ready.chunks_received:
            part = envelope.message
            assert isinstance(part, InstallSnapshot)
            if part.snapshot.last_included_index <= node.raft.log.commit_index:
                continue
            received_bytes = node.disk.receive(part.snapshot, part.offset, part.data)
            self._gap(node, "stored")
            node.raft.snapshot_progress(part.snapshot, received_bytes, received_bytes // 2)
            node.received = node.disk.received()

    def _install(self, node: Server, snapshot: Snapshot) -> None:
        disk, index = node.disk, snapshot.id.last_included_index
        assert disk.partial is not None
        id_, encoded = disk.partial
        assert id_ == snapshot.id
        self._gap(node, "received")
        assert disk.publish(snapshot, encoded), "an older snapshot takes the place of a newer one"
        disk.partial = None
        self._gap(node, "published")
        if node.raft.log.durable_index > index:
            disk.compact(index)
        else:
            disk.reset(index, snapshot.id.last_included_term)
        self._gap(node, "log changed")
        before = node.applied
        node.applied = decode_state(encoded)
        assert node.applied[: len(before)] == before, "the snapshot is of another history"
        for entry in node.applied:
            assert self.committed.get(entry.index) == entry, "a snapshot of what nobody committed"

    # --- across servers ---

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
            if index >= raft.log.base_index and self.committed_in[index] < raft.current_term:
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

    def restart(self, server: ServerId, *, state_is_kept: bool = False) -> None:
        """Start `server` from its disk, and from the state that it had if that is to be trusted."""
        self.down.discard(server)
        node = self.servers[server]
        node.start(node.applied if state_is_kept else ())

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
