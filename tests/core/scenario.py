"""Ways to put servers into situations: one server alone, or a group that chance pushes around.

`Solo` is one server whose peers are the test itself: a message goes in, the `Ready` comes out.
`Walk` is a group under random faults, driven by one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import TypeVar

import attrs

from raftd.core.errors import MembershipError, RequestRefused
from raftd.core.invariants import InvariantChecker
from raftd.core.leader import Leader
from raftd.core.log import RaftLog
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    encode_configuration,
)
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    Message,
    PreVoteResponse,
    RequestVoteResponse,
)
from raftd.core.options import Options
from raftd.core.raft import Raft
from raftd.core.ready import ReadAnswer, Ready
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId, Term
from tests.core.harness import OPTIONS, Cluster, Server, address_of, founding_entry

M = TypeVar("M")


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
    ) -> None:
        """Start `server` on a disk with a log of `terms`, or with `entries`."""
        stored = (
            log_of(terms, founding_entry(voters, learners)) if entries is None else list(entries)
        )
        last_term = stored[-1].term if stored else 0
        self.raft = Raft(
            server=server,
            log=RaftLog(stored),
            hard_state=HardState(last_term if term is None else term, voted_for),
            options=options,
            random=Random(str(seed)),
        )
        self.checker = InvariantChecker(self.raft)
        self.readies: list[Ready] = []
        self.sent: list[Envelope] = []
        self.reads: list[ReadAnswer] = []
        self.applied: list[Entry] = []

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
            self.raft.persisted(ready)
            self.checker.check()
            sent += ready.messages
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
            before = self.role, self.term, len(self.readies)
            sent = self.tick()
            if (self.role, self.term, len(self.readies)) != before:
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
        """The round of the latest AppendEntries that was sent."""
        return max(
            (e.message.round for e in self.sent if isinstance(e.message, AppendEntries)), default=0
        )

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


def only(kind: type[M], messages: Iterable[object]) -> M:
    """Return the one message of `kind` among `messages`, envelopes or bare."""
    found = of(kind, messages)
    assert len(found) == 1, f"{len(found)} of {kind.__name__}: {found}"
    return found[0]


def of(kind: type[M], messages: Iterable[object]) -> list[M]:
    """Return the messages of `kind` among `messages`, envelopes or bare."""
    bare = [m.message if isinstance(m, Envelope) else m for m in messages]
    return [message for message in bare if isinstance(message, kind)]


# --- a group under random faults ---


class PowerLoss(Exception):
    """The server that is at work stops here; what its disk has not got is gone."""


@attrs.frozen
class Faults:
    """How bad the weather is; drawn from the seed."""

    loss: float
    """Chance that a message that is due is lost."""
    duplication: float
    """Chance that it is delivered and stays in the network."""
    reordering: float
    """Chance that any message is next, not the oldest."""
    power_loss: float
    """Chance that a Ready's work is interrupted at one of its gaps."""
    calm: float
    """Chance that a step is a few undisturbed ticks of everybody."""
    membership: float
    """Weight of changes, aborts and transfers among the actions."""
    malice: float
    """Chance that something is aimed at a configuration that a leader has just appended."""


class FaultyCluster(Cluster):
    """A `Cluster` with power losses inside a Ready, and with the checks that need no script.

    Beyond the harness: what is committed is looked at where the commit index moves, not where
    entries are handed out; Log Matching by induction (equal position and term: equal entry and
    equal term before it); a read sees all that any server knew to be committed when it arrived.
    """

    def __init__(
        self,
        voters: Iterable[ServerId],
        blank: Iterable[ServerId],
        options: Options,
        chance: Random,
        power_loss: float,
    ) -> None:
        super().__init__(voters, blank=blank, options=options, seed=chance.random())
        self.chance = chance
        self.power_loss = power_loss
        self.seen: dict[tuple[Index, Term], tuple[Entry, Term]] = {}
        self.commit_seen: dict[ServerId, Index] = dict.fromkeys(self.servers, 0)
        self.reads_asked = 0
        self.power_losses = 0

    def give(self, server: ServerId, action: Callable[[Raft], object]) -> object:
        if server in self.down:
            return None
        try:
            return super().give(server, action)
        except PowerLoss:
            self.power_losses += 1
            self.crash(server)
            return None

    def restart(self, server: ServerId) -> None:
        super().restart(server)
        self.commit_seen[server] = 0
        self.servers[server].reads = []

    def _gap(self) -> None:
        if self.chance.random() < self.power_loss:
            raise PowerLoss

    def _handle(self, node: Server, ready: Ready) -> None:
        self._check_log_matching(node, ready.entries)
        self._check_committed(node)
        self._gap()
        self._post(ready.early_messages)
        if self.chance.random() < self.power_loss:
            # The batch is one write: any prefix of it may have reached the disk.
            kept = ready.entries[: self.chance.randrange(len(ready.entries) + 1)]
            node.disk.append(ready.hard_state, kept)
            raise PowerLoss
        node.disk.append(ready.hard_state, ready.entries)
        self._gap()
        node.raft.persisted(ready)
        node.checker.check()
        self._check_committed(node)
        self._post(ready.messages)
        self._gap()
        node.applied.extend(ready.committed)
        node.lost_leadership += ready.lost_leadership
        for answer in ready.reads:
            floor = answer.token
            assert isinstance(floor, int)
            assert answer.read_index is None or answer.read_index >= floor, "a stale read"

    def _check_log_matching(self, node: Server, entries: Sequence[Entry]) -> None:
        for entry in entries:
            before = node.raft.log.term_at(entry.index - 1)
            assert before is not None
            known = self.seen.setdefault((entry.index, entry.term), (entry, before))
            assert known == (entry, before), f"Log Matching is broken at {entry.index}"

    def _check_committed(self, node: Server) -> None:
        log = node.raft.log
        for entry in log.entries(self.commit_seen[node.name] + 1, log.commit_index):
            self.note_committed(node, entry)
        self.commit_seen[node.name] = log.commit_index

    def read(self, server: ServerId) -> None:
        """Ask for a read whose token is the least index that its answer may have."""
        self.reads_asked += 1
        floor = max(self.committed, default=0)
        self.give(server, lambda raft: raft.read(floor))


class Walk:
    """One random walk: everything in it follows from the seed."""

    def __init__(self, seed: int, steps: int = 400, log: list[str] | None = None) -> None:
        self.chance = Random(seed)
        self.steps = steps
        self.log = log
        chance = self.chance
        names = [f"n{number}/{number}" for number in range(1, chance.randint(1, 6) + 1)]
        founders = names[: chance.randint(1, len(names))]
        rough = chance.choice((0.0, 0.3, 1.0))
        self.faults = Faults(
            loss=rough * chance.random() * 0.3,
            duplication=rough * chance.random() * 0.3,
            reordering=rough * chance.random(),
            power_loss=chance.choice((0.0, 0.002, 0.02)),
            calm=chance.choice((0.02, 0.1, 0.3)),
            membership=chance.choice((0.3, 1.0, 3.0)),
            malice=chance.choice((0.0, 0.3, 0.8)),
        )
        self.options = Options(
            heartbeat_ticks=1,
            election_ticks=chance.choice((3, 5, 10)),
            joint_timeout_ticks=chance.choice((4, 30)),
            departing_ticks=30,
        )
        self.cluster = FaultyCluster(
            founders,
            blank=names[len(founders) :],
            options=self.options,
            chance=chance,
            power_loss=self.faults.power_loss,
        )
        self.names = names
        self.goal: tuple[frozenset[ServerId], frozenset[ServerId]] | None = None
        self.aimed_at: set[tuple[Index, Term]] = set()

    def run(self) -> None:
        """Walk through the faults, then let the weather clear: the group has to recover."""
        for _ in range(self.steps):
            self._step()
        self._recover()

    # --- one step ---

    def _step(self) -> None:
        chance, faults = self.chance, self.faults
        if chance.random() < faults.calm:
            self._note("calm")
            self._calm(chance.randint(1, 4))
            return
        membership = faults.membership
        (action,) = chance.choices(
            (
                self._deliver,
                self._tick,
                self._impatience,
                self._propose,
                self._read,
                self._change,
                self._abort,
                self._transfer,
                self._crash,
                self._restart,
                self._partition,
                self._heal,
                self._unreachable,
            ),
            (
                40, 12, 1.5, 5, 2, 5 * membership, 0.4 * membership, 0.5 * membership,
                0.7, 2, 0.6, 0.9, 0.3,
            ),
        )  # fmt: skip
        action()
        self._aim()

    def _note(self, text: str) -> None:
        if self.log is not None:
            self.log.append(text)

    def _up(self) -> list[ServerId]:
        return [name for name in self.names if name not in self.cluster.down]

    def _leaders(self) -> list[ServerId]:
        return [
            name for name in self._up() if isinstance(self.cluster.raft(name).role, Leader)
        ]

    def _deliver(self) -> None:
        queue = self.cluster.queue
        if not queue:
            self._tick()
            return
        faults, chance = self.faults, self.chance
        position = chance.randrange(len(queue)) if chance.random() < faults.reordering else 0
        envelope = queue[position]
        if chance.random() >= faults.duplication or len(queue) > 200:
            del queue[position]
        if chance.random() < faults.loss:
            self._note(f"lose {envelope}")
            return
        self._note(f"deliver {envelope}")
        self.cluster.deliver(envelope)

    def _tick(self) -> None:
        up = self._up()
        if up:
            server = self.chance.choice(up)
            self._note(f"tick {server}")
            self.cluster.tick(server)

    def _impatience(self) -> None:
        """Let one server time out, which hears nothing meanwhile."""
        up = self._up()
        if up:
            server = self.chance.choice(up)
            self._note(f"time out {server}")
            self.cluster.tick(server, 2 * self.options.election_ticks)

    def _calm(self, ticks: int) -> None:
        for _ in range(ticks):
            for server in self._up():
                self.cluster.tick(server)
            self._calm_messages()

    def _calm_messages(self) -> None:
        for _ in range(30):
            batch, self.cluster.queue = self.cluster.queue, []
            for envelope in batch:
                self.cluster.deliver(envelope)

    def _at_leader(self, text: str, action: Callable[[Raft], object]) -> None:
        leaders = self._leaders()
        if not leaders:
            return
        server = self.chance.choice(leaders)
        self._note(f"{text} at {server}")
        try:
            self.cluster.give(server, action)
        except (RequestRefused, MembershipError) as refusal:
            self._note(f"refused: {refusal}")

    def _propose(self) -> None:
        text = f"c{self.chance.randrange(10**9)}".encode()
        self._at_leader("propose", lambda raft: raft.propose(text))

    def _read(self) -> None:
        leaders = self._leaders()
        if leaders:
            server = self.chance.choice(leaders)
            self._note(f"read at {server}")
            self.cluster.read(server)

    def _draw_goal(self) -> None:
        names, chance = self.names, self.chance
        voters = frozenset(chance.sample(names, chance.randint(1, len(names))))
        rest = [name for name in names if name not in voters]
        self.goal = voters, frozenset(chance.sample(rest, chance.randint(0, len(rest))))

    def _change(self) -> None:
        """Ask a leader for the next change on the way to the goal."""
        leaders = self._leaders()
        if not leaders:
            return
        if self.goal is None or self.chance.random() < 0.1:
            self._draw_goal()
        assert self.goal is not None
        voters, learners = self.goal
        server = self.chance.choice(leaders)
        latest = self.cluster.raft(server).configuration
        assert latest is not None
        now = latest.configuration
        strangers = sorted((voters | learners) - now.members)
        if strangers:
            changes = [("learner", name) for name in strangers]
        elif now.voters == voters and now.learners == learners:
            self.goal = None
            return
        else:
            changes = [("voter", name) for name in sorted(voters)]
            changes += [("learner", name) for name in sorted(learners)]
            changes += [("remove", name) for name in sorted(now.members - voters - learners)]
        self._note(f"change {changes} at {server}")
        try:
            self.cluster.change(changes, server)
        except (RequestRefused, MembershipError) as refusal:
            self._note(f"refused: {refusal}")

    def _abort(self) -> None:
        self._at_leader("abort", lambda raft: raft.abort_membership_change("chance"))

    def _transfer(self) -> None:
        target = self.chance.choice(self.names)
        self._at_leader(f"transfer to {target}", lambda raft: raft.transfer_leadership(target))

    def _unreachable(self) -> None:
        target = self.chance.choice(self.names)
        self._at_leader(f"unreachable {target}", lambda raft: raft.report_unreachable(target))

    def _crash(self) -> None:
        up = self._up()
        if up:
            server = self.chance.choice(up)
            self._note(f"crash {server}")
            self.cluster.crash(server)

    def _restart(self) -> None:
        if self.cluster.down:
            server = self.chance.choice(sorted(self.cluster.down))
            self._note(f"restart {server}")
            self.cluster.restart(server)

    def _partition(self) -> None:
        sides: dict[int, list[ServerId]] = {}
        for name in self.names:
            sides.setdefault(self.chance.randrange(2), []).append(name)
        self._note(f"partition {sorted(sides.values())}")
        self.cluster.partition(*sides.values())

    def _heal(self) -> None:
        self._note("heal")
        self.cluster.heal()

    # --- aimed at a change ---

    def _aim(self) -> None:
        """Hit the leader that has just appended a configuration, before others have it."""
        for server in self._leaders():
            log = self.cluster.raft(server).log
            latest = log.configurations.latest
            assert latest is not None
            position = latest.index, log.term_at(latest.index) or 0
            if latest.index <= log.commit_index or position in self.aimed_at:
                continue
            self.aimed_at.add(position)
            if self.chance.random() < self.faults.malice:
                self._hit(server, latest.configuration)

    def _hit(self, leader: ServerId, configuration: Configuration) -> None:
        """Let the entry reach few or none, then take the leader away and let others campaign."""
        chance, cluster = self.chance, self.cluster
        reached = set(chance.sample(self.names, chance.randint(0, len(self.names) // 2)))
        self._note(f"hit {leader}; its entry reaches {sorted(reached)}")
        for envelope in cluster.take(lambda envelope: envelope.source == leader):
            if envelope.dest in reached:
                cluster.deliver(envelope)
        if chance.random() < 0.5:
            for envelope in cluster.take(lambda envelope: envelope.dest == leader):
                cluster.deliver(envelope)
        fate = chance.randrange(4)
        if fate == 0:
            cluster.crash(leader)
        elif fate == 1:
            cluster.partition([leader], [name for name in self.names if name != leader])
        elif fate == 2:
            cluster.partition(
                configuration.voters, [n for n in self.names if n not in configuration.voters]
            )
        else:
            self._partition()
        # Long enough without a leader that stickiness has ended for everybody.
        others = [name for name in self._up() if name != leader]
        for server in others:
            cluster.tick(server, self.options.election_ticks)
        for server in chance.sample(others, min(len(others), 2)):
            cluster.tick(server, self.options.election_ticks)
            self._calm_messages()

    # --- liveness ---

    def _recover(self) -> None:
        """Everybody comes back and every message arrives: the group has to become whole."""
        cluster = self.cluster
        cluster.power_loss = 0.0
        cluster.heal()
        for server in sorted(cluster.down):
            cluster.restart(server)
        self._note("recover")
        ticks_max = 60 * self.options.election_ticks
        cluster.run_until(self._is_settled, ticks_max)
        before = max(cluster.committed, default=0)
        _, index = cluster.propose(b"last")
        cluster.run_until(lambda: self._is_settled() and index in cluster.committed, ticks_max)
        assert index > before
        assert cluster.committed[index].data == b"last"

    def _is_settled(self) -> bool:
        leaders = self._leaders()
        if not leaders:
            return False
        leader = self.cluster.raft(self.cluster.leader())
        latest = leader.configuration
        assert latest is not None
        log = leader.log
        return (
            isinstance(leader.role, Leader)
            and leader.role.has_committed_in_term
            and leader.server in latest.configuration.voters
            and not latest.configuration.is_joint
            and log.commit_index == log.last_index
            and all(
                self.cluster.raft(member).log.commit_index == log.last_index
                and self.cluster.raft(member).leader_id == leader.server
                for member in latest.configuration.members
            )
        )
