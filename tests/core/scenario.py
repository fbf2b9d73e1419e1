"""Ways to put servers into situations.

`Solo` is one server whose peers are the test itself: a message goes in, the `Ready` comes out. The
functions after it bring a `Solo` or a whole `Cluster` to some point of a membership change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import TypeVar

import attrs

from raftd.core.invariants import InvariantChecker
from raftd.core.log import RaftLog
from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationEntry,
    ConfigurationKind,
    MembershipChange,
    decode_configuration,
    encode_configuration,
)
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    PreVoteResponse,
    RequestVoteResponse,
)
from raftd.core.options import Options
from raftd.core.progress import SNAPSHOT_CHUNK_BYTES
from raftd.core.raft import Raft
from raftd.core.ready import Chunk, ReadAnswer, Ready
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId, Term
from tests.core.harness import (
    OPTIONS,
    Cluster,
    address_of,
    appends,
    founding_entry,
)

M = TypeVar("M")

SNAPSHOT_BYTES = 10 * SNAPSHOT_CHUNK_BYTES
"""Ten parts: more than may be unanswered at once."""


def command(index: Index, term: Term, text: bytes | None = None) -> Entry:
    """Return a command entry; by default its data says where it was made."""
    return Entry(index, term, EntryKind.COMMAND, text or f"{index}.{term}".encode())


def configuration_entry(
    index: Index, term: Term, kind: ConfigurationKind, configuration: Configuration, **extra: object
) -> Entry:
    """Return a configuration entry with an address for every member."""
    addresses = {server: address_of(server) for server in sorted(configuration.members)}
    body = ConfigurationEntry(
        configuration=configuration,
        addresses={**addresses, **extra.pop("addresses", {})},  # type: ignore[dict-item]
        kind=kind,
        **extra,  # type: ignore[arg-type]
    )
    return Entry(index, term, EntryKind.CONFIGURATION, encode_configuration(body))


def log_of(terms: Sequence[Term], founding: Entry | None = None) -> list[Entry]:
    """Return a log whose entries have `terms`; the first one is `founding`, if there is one."""
    entries = [command(index, term) for index, term in enumerate(terms, start=1)]
    if founding is not None:
        entries[0] = attrs.evolve(founding, term=terms[0])
    return entries


def snapshot_at(
    index: Index,
    term: Term,
    configuration: ConfigurationAt | None = None,
    *,
    voters: Iterable[ServerId] = ("1", "2", "3"),
    size_bytes: int = SNAPSHOT_BYTES,
    checksum: str = "c",
) -> Snapshot:
    """Return a snapshot up to an entry; its configuration is the founding one by default."""
    founding = ConfigurationAt(1, decode_configuration(founding_entry(voters).data))
    identity = SnapshotId(
        last_included_index=index,
        last_included_term=term,
        size_bytes=size_bytes,
        checksum=checksum,
    )
    return Snapshot(identity, configuration or founding)


class Solo:
    """One server. Every input is followed by all the work that the server asks for."""

    def __init__(
        self,
        server: ServerId = "1",
        voters: Iterable[ServerId] = ("1", "2", "3"),
        *,
        learners: Iterable[ServerId] = (),
        terms: Sequence[Term] = (1,),
        entries: Iterable[Entry] | None = None,
        term: Term | None = None,
        voted_for: ServerId | None = None,
        options: Options = OPTIONS,
        seed: object = 0,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Start `server` on a disk with a log of `terms`, or with `entries` after `snapshot`."""
        stored = (
            log_of(terms, founding_entry(voters, learners)) if entries is None else list(entries)
        )
        base_index = snapshot.id.last_included_index if snapshot else 0
        base_term = snapshot.id.last_included_term if snapshot else 0
        last_term = stored[-1].term if stored else base_term
        self.raft = Raft(
            server=server,
            log=RaftLog(stored, base_index=base_index, base_term=base_term, snapshot=snapshot),
            snapshot=snapshot,
            hard_state=HardState(last_term if term is None else term, voted_for),
            options=options,
            random=Random(str(seed)),
        )
        self.checker = InvariantChecker(self.raft)
        self.readies: list[Ready] = []
        self.sent: list[Envelope] = []
        self.reads: list[ReadAnswer] = []
        self.applied: list[Entry] = []
        self.chunks: list[Chunk] = []
        """The parts of snapshots that were to be sent."""
        self.stored: list[Envelope] = []
        """The parts of snapshots that were to be stored."""
        self.restored: list[Snapshot] = []

    @property
    def role(self) -> str:
        return self.raft.status().role

    @property
    def term(self) -> Term:
        return self.raft.current_term

    @property
    def commit_index(self) -> Index:
        return self.raft.log.commit_index

    @property
    def last_index(self) -> Index:
        return self.raft.log.last_index

    @property
    def terms(self) -> list[Term]:
        """The terms of the log, from its first entry on."""
        log = self.raft.log
        return [entry.term for entry in log.entries(log.first_index, log.last_index)]

    def work(self) -> list[Envelope]:
        """Do what the Readys say; return what was sent."""
        self.checker.check()
        sent: list[Envelope] = []
        while (ready := self.raft.take_ready()) is not None:
            self.readies.append(ready)
            sent += ready.early_messages
            if ready.restore is not None:
                self.restored.append(ready.restore)
            self.raft.persisted(ready)
            self.checker.check()
            sent += ready.messages
            self.chunks += ready.chunks_to_send
            self.stored += ready.chunks_received
            self.applied += ready.committed
            self.reads += ready.reads
        self.sent += sent
        return sent

    def give(self, action: Callable[[Raft], object]) -> list[Envelope]:
        """Put one input in and work; return what was sent."""
        action(self.raft)
        return self.work()

    def step(self, source: ServerId, message: Message) -> list[Message]:
        """Put one message in; return the messages that went back to `source`."""
        envelope = Envelope(source, self.raft.server, message)
        sent = self.give(lambda raft: raft.step(envelope))
        return [answer.message for answer in sent if answer.dest == source]

    def answer(self, source: ServerId, message: Message) -> Message:
        """Put one message in; return the one message that went back to `source`."""
        answers = self.step(source, message)
        assert len(answers) == 1, f"{len(answers)} answers: {answers}"
        return answers[0]

    def tick(self, count: int = 1) -> list[Envelope]:
        sent: list[Envelope] = []
        for _ in range(count):
            sent += self.give(lambda raft: raft.tick())
        return sent

    def time_out(self) -> list[Envelope]:
        """Let the election timer run out once; return what was sent then."""
        for _ in range(2 * self.raft.options.election_ticks):
            before = self.raft.role
            sent = self.tick()
            if self.raft.role is not before:
                return sent
        raise AssertionError("the election timer did not run out")

    def campaign(self) -> list[Envelope]:
        """Get to the candidate of a new term: time out, and have every pre-vote granted."""
        sent = self.time_out()
        latest = self.raft.configuration
        assert latest is not None
        for voter in sorted(latest.configuration.all_voters - {self.raft.server}):
            if self.role == "precandidate":
                reply = PreVoteResponse(self.term, self.term + 1, vote_granted=True)
                sent = self.give(
                    lambda raft, voter=voter, reply=reply: raft.step(  # type: ignore[misc]
                        Envelope(voter, raft.server, reply)
                    )
                )
        assert self.role in ("candidate", "leader")
        return sent

    def lead(self) -> list[Envelope]:
        """Get to the leader of a new term: campaign, and have every vote granted."""
        sent = self.campaign()
        latest = self.raft.configuration
        assert latest is not None
        for voter in sorted(latest.configuration.all_voters - {self.raft.server}):
            if self.role == "candidate":
                reply = Envelope(voter, self.raft.server, RequestVoteResponse(self.term, True))
                sent = self.give(lambda raft, reply=reply: raft.step(reply))  # type: ignore[misc]
        assert self.role == "leader"
        return sent

    def acknowledge(self, source: ServerId, index: Index | None = None) -> list[Envelope]:
        """Have `source` acknowledge everything up to `index` (default: the whole log)."""
        match = self.last_index if index is None else index
        response = AppendEntriesResponse(
            term=self.term,
            success=True,
            round=self.round,
            match_index=match,
            commit_index=min(self.commit_index, match),
        )
        return self.give(lambda raft: raft.step(Envelope(source, raft.server, response)))

    @property
    def round(self) -> int:
        """The latest round in which something was sent."""
        rounds = [e.message.round for e in self.sent if isinstance(e.message, AppendEntries)]
        return max([*rounds, *(chunk.round for chunk in self.chunks)], default=0)

    # --- snapshots ---

    def compact(self, index: Index, *, to: Index | None = None, **extra: object) -> Snapshot:
        """Take a snapshot up to `index`, and forget the log up to there, or up to `to`."""
        log = self.raft.log
        snapshot = snapshot_at(
            index,
            log.term_at(index) or 0,
            log.configurations.at(index),
            **extra,  # type: ignore[arg-type]
        )
        self.give(lambda raft: raft.snapshot_taken(snapshot))
        self.give(lambda raft: raft.compact(index if to is None else to))
        return snapshot

    def chunks_to(self, server: ServerId) -> list[tuple[int, int]]:
        """Take out offset and size of the parts that were sent to `server`, no heartbeats."""
        mine = [c for c in self.chunks if c.dest == server]
        self.chunks = [c for c in self.chunks if c.dest != server]
        return [(c.offset, c.size_bytes) for c in mine if c.size_bytes]

    def has_received(
        self, source: ServerId, snapshot: Snapshot, received_bytes: int, **fields: object
    ) -> list[Envelope]:
        """Have `source` answer how much of a snapshot it has; return what was sent then."""
        response = InstallSnapshotResponse(
            **{
                "term": self.term,
                "snapshot": snapshot.id,
                "round": self.round,
                "received_bytes": received_bytes,
                "installed_bytes": 0,
                "match_index": 0,
                "commit_index": 0,
                **fields,
            }  # type: ignore[arg-type]
        )
        return self.give(lambda raft: raft.step(Envelope(source, raft.server, response)))

    def receive(
        self, source: ServerId, snapshot: Snapshot, term: Term | None = None, **fields: object
    ) -> list[Message]:
        """Put a part of `snapshot` in, all of it by default; return what went back at once."""
        message = InstallSnapshot(
            **{
                "term": self.term if term is None else term,
                "snapshot": snapshot.id,
                "offset": 0,
                "data": b"x",
                "round": 1,
                **fields,
            }  # type: ignore[arg-type]
        )
        return self.step(source, message)

    def received(self, snapshot: Snapshot) -> list[Message]:
        """Say that `snapshot` is there as a whole; return what was sent then."""
        sent = self.give(lambda raft: raft.snapshot_received(snapshot))
        return [envelope.message for envelope in sent]

    def heartbeat(
        self,
        source: ServerId,
        term: Term | None = None,
        *,
        prev: Index | None = None,
        entries: Iterable[Entry] = (),
        commit: Index = 0,
        prev_term: Term | None = None,
    ) -> Message:
        """Send AppendEntries from the leader `source`; `prev` is the last entry by default."""
        index = self.last_index if prev is None else prev
        known = self.raft.log.term_at(index) or 0
        return self.answer(
            source,
            AppendEntries(
                term=self.term if term is None else term,
                prev_log_index=index,
                prev_log_term=known if prev_term is None else prev_term,
                entries=tuple(entries),
                leader_commit=commit,
                round=1,
            ),
        )


def settled_leader(
    voters: Iterable[ServerId] = ("1", "2", "3"),
    learners: Iterable[ServerId] = (),
    **extra: object,
) -> Solo:
    """Return server 1 as a leader whose whole log everybody has, so that changes are allowed."""
    solo = Solo("1", voters, learners=learners, **extra)  # type: ignore[arg-type]
    solo.lead()
    acknowledge_all(solo)
    assert solo.commit_index == solo.last_index
    return solo


def acknowledge_all(solo: Solo, *but: ServerId) -> None:
    """Have everybody that `solo` feeds acknowledge its whole log, except those of `but`."""
    last = solo.last_index
    for peer in solo.raft.status().peers:
        if peer.server not in but:
            solo.acknowledge(peer.server, last)


def change_of(*changes: tuple[str, ServerId], **extra: object) -> MembershipChange:
    """Return a change with an address for every server that it brings in."""
    addresses = {server: address_of(server) for role, server in changes if role != "remove"}
    return MembershipChange(changes=changes, addresses=addresses, **extra)  # type: ignore[arg-type]


def joint_leader(
    old: Iterable[ServerId] = ("1", "2", "3"), new: Iterable[ServerId] = ("4", "5", "6")
) -> Solo:
    """Return server 1, leading `old`, right after it has appended C_old,new to `new` itself."""
    old, new = tuple(old), tuple(new)
    solo = settled_leader(old, [server for server in new if server not in old])
    changes = [("voter", server) for server in new]
    changes += [("remove", server) for server in old if server not in new]
    solo.give(lambda raft: raft.change_membership(change_of(*changes, operation="op-1")))
    assert solo.raft.configuration is not None
    assert solo.raft.configuration.configuration.is_joint
    return solo


def only(kind: type[M], messages: Iterable[object]) -> M:
    """Return the one message of `kind` among `messages`, envelopes or bare."""
    found = of(kind, messages)
    assert len(found) == 1, f"{len(found)} of {kind.__name__}: {found}"
    return found[0]


def of(kind: type[M], messages: Iterable[object]) -> list[M]:
    """Return the messages of `kind` among `messages`, envelopes or bare."""
    bare = [m.message if isinstance(m, Envelope) else m for m in messages]
    return [message for message in bare if isinstance(message, kind)]


# --- a group in the middle of a change ---


def latest_entry(solo: Solo) -> ConfigurationEntry:
    latest = solo.raft.configuration
    assert latest is not None
    return latest.entry


def kinds(cluster: Cluster, server: str) -> list[str]:
    """The configuration entries in the log of `server`, in order."""
    log = cluster.raft(server).log
    return [at.entry.kind.value for at in log.configurations.since(0)]


def with_learners(voters: str, learners: str, leader: str = "1") -> Cluster:
    """A cluster that `leader` leads, whose learners have caught up."""
    cluster = Cluster(voters, blank=learners)
    cluster.elect(leader)
    if learners:
        cluster.change([("learner", server) for server in learners])
    cluster.run(4)
    return cluster


def replacement(old: Iterable[str], new: Iterable[str]) -> list[tuple[str, str]]:
    old, new = list(old), list(new)
    return [("voter", server) for server in new] + [("remove", s) for s in old if s not in new]


def deliver_only_to(cluster: Cluster, receivers: str) -> None:
    """Deliver the leader's queued entries to `receivers` alone, and lose every other message."""
    for envelope in cluster.take(lambda envelope: envelope.dest in receivers):
        cluster.deliver(envelope)
    cluster.queue.clear()


def all_come_back(cluster: Cluster) -> None:
    for server in sorted(cluster.down):
        cluster.restart(server)
    cluster.heal()
    cluster.run(12 * cluster.options.election_ticks)


def assert_finished(cluster: Cluster, after: Configuration) -> None:
    for server in sorted(after.members):
        assert cluster.configuration(server) == after, server
        log = cluster.raft(server).log
        assert log.commit_index == log.last_index
    assert cluster.leader() in after.voters


def deliver_until_final(cluster: Cluster) -> None:
    """Deliver until server 1 has appended C_new, and nothing that carries it."""
    while cluster.raft("1").log.configurations.latest.entry.kind is not ConfigurationKind.FINAL:  # type: ignore[union-attr]
        cluster.deliver(cluster.queue.pop(0))
    cluster.queue = [
        envelope for envelope in cluster.queue if envelope.source == "1" and appends(envelope)
    ]
