"""A group that chance pushes around: random faults and membership changes from one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from unittest.mock import patch

import attrs

import raftd.core.leader as leader_module
from raftd.core.errors import MembershipError, RequestRefused
from raftd.core.leader import Leader
from raftd.core.membership import Configuration, ConfigurationKind
from raftd.core.options import Options
from raftd.core.raft import Raft
from raftd.core.ready import Ready
from raftd.core.types import Entry, Index, ServerId, Term
from tests.core.disk import Disk, chunks_of
from tests.core.harness import Cluster, PowerLoss, Server, appends, founding_entry
from tests.core.scenario import configuration_entry


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
    batch: int
    """Entries in one AppendEntries: with few, an entry arrives without the ones behind it."""
    compaction: float
    """Weight of snapshots and of compaction among the actions."""
    chunk: int
    """Bytes in one part of a snapshot: with few, much happens before the last one is there."""


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
        self.installed = 0

    def give(self, server: ServerId, action: Callable[[Raft], object]) -> object:
        return None if server in self.down else super().give(server, action)

    def crash(self, server: ServerId) -> None:
        super().crash(server)
        node = self.servers[server]
        if node.disk.partial is not None and self.chance.random() < 0.5:
            # What has arrived of a snapshot was not synced: a part of it may be lost.
            id_, there = node.disk.partial
            node.disk.partial = id_, there[: self.chance.randrange(len(there) + 1)]

    def restart(self, server: ServerId, *, state_is_kept: bool = False) -> None:
        super().restart(server, state_is_kept=state_is_kept)
        self.commit_seen[server] = 0
        self.servers[server].reads = []

    def _gap(self, node: Server, step: str) -> None:
        if self.chance.random() < self.power_loss:
            raise PowerLoss

    def _handle(self, node: Server, ready: Ready) -> None:
        self._check_log_matching(node, ready.entries)
        self._check_committed(node)
        self._gap(node, "nothing")
        self._post(ready.early_messages)
        if ready.restore is not None:
            self._install(node, ready.restore)
            self.installed += 1
        if self.chance.random() < self.power_loss:
            # The batch is one write: any prefix of it may have reached the disk.
            kept = ready.entries[: self.chance.randrange(len(ready.entries) + 1)]
            node.disk.append(ready.hard_state, kept)
            raise PowerLoss
        node.disk.append(ready.hard_state, ready.entries)
        self._gap(node, "appended")
        node.raft.persisted(ready)
        node.checker.check()
        self._check_committed(node)
        self._post(ready.messages)
        self._gap(node, "sent")
        self._handle_chunks(node, ready)
        self._apply(node, ready)
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
        floor = max(self.committed, default=0)
        self.give(server, lambda raft: raft.read(floor))


class Walk:
    """One random walk: everything in it follows from the seed."""

    def __init__(self, seed: int, steps: int = 400, log: list[str] | None = None) -> None:
        self.chance = Random(seed)
        # Apart, so that what is drawn for snapshots changes nothing else in a walk without them.
        self.snapshot_chance = Random(f"{seed}/snapshots")
        self.steps = steps
        self.log = log
        chance = self.chance
        # Half of the walks have quiet weather, and everything that happens is aimed at changes.
        aimed = chance.random() < 0.5
        count = chance.choice((3, 4, 5, 6, 6) if aimed else (1, 2, 3, 3, 4, 5, 5, 6))
        names = [f"n{number}/{number}" for number in range(1, count + 1)]
        founders = names[: chance.choice((chance.randint(1, count), (count + 1) // 2))]
        rough = 0.0 if aimed else chance.choice((0.0, 0.3, 1.0))
        self.faults = Faults(
            loss=rough * chance.random() * 0.3,
            duplication=rough * chance.random() * 0.3,
            reordering=rough * chance.random(),
            power_loss=0.0 if aimed else chance.choice((0.0, 0.002, 0.02)),
            calm=0.5 if aimed else chance.choice((0.02, 0.1, 0.3)),
            membership=10.0 if aimed else chance.choice((0.3, 1.0, 3.0)),
            malice=chance.choice((0.2, 0.5, 0.8) if aimed else (0.0, 0.3, 0.8)),
            batch=chance.choice((1, 2, leader_module.APPEND_ENTRIES_MAX)),
            compaction=self.snapshot_chance.choice((0.0, 1.0, 6.0)),
            chunk=self.snapshot_chance.choice((100, 400, 3000)),
        )
        if aimed:
            self.steps = steps // 3
        self.options = Options(
            heartbeat_ticks=1,
            election_ticks=chance.choice((3, 5, 10)),
            joint_timeout_ticks=chance.choice((4, 30)),
            departing_ticks=30,
            catch_up_bytes_per_tick=self.snapshot_chance.choice((0, 0, 300)),
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
        self.cluster.installs_at_once = False
        with (
            patch.object(leader_module, "APPEND_ENTRIES_MAX", self.faults.batch),
            chunks_of(self.faults.chunk, 3 * self.faults.chunk),
        ):
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
                self._upheaval,
            ),
            (
                40, 12, 1.5, 5, 2, 5 * membership, 0.4 * membership, 0.5 * membership,
                0.7, 2, 0.6, 0.9, 0.3, 1.5 * faults.malice,
            ),
        )  # fmt: skip
        action()
        self._aim()
        self._snapshots()

    def _note(self, text: str) -> None:
        if self.log is not None:
            self.log.append(text)

    def _up(self) -> list[ServerId]:
        return [name for name in self.names if name not in self.cluster.down]

    def _leaders(self) -> list[ServerId]:
        return [name for name in self._up() if isinstance(self.cluster.raft(name).role, Leader)]

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
            if self.snapshot_chance.random() < 0.5:
                self._install()

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
        leaders = self._leaders()
        now = self.cluster.configuration(leaders[0]).voters if leaders else frozenset()
        others = [name for name in names if name not in now]
        if others and chance.random() < 0.4:
            # Nobody stays: the two quorums share no server.
            self.goal = frozenset(others[:3]), frozenset()
            return
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
            state_is_kept = self.snapshot_chance.random() < 0.5
            self._note(f"restart {server}, with its state: {state_is_kept}")
            self.cluster.restart(server, state_is_kept=state_is_kept)

    # --- snapshots ---

    def _snapshots(self) -> None:
        """Perhaps take one, compact, or put one in force that has arrived."""
        compaction = self.faults.compaction
        if self.snapshot_chance.random() < 0.01 * compaction:
            self._take_snapshot()
        if self.snapshot_chance.random() < 0.02 * compaction:
            self._compact()
        if self.snapshot_chance.random() < 0.05:
            self._install()

    def _take_snapshot(self) -> None:
        """Let one server publish a snapshot, perhaps one that it began long ago."""
        chance, cluster = self.snapshot_chance, self.cluster
        ready = [name for name in self._up() if cluster.servers[name].applied]
        if ready:
            server = chance.choice(ready)
            count = len(cluster.servers[server].applied)
            index = count if chance.random() < 0.7 else chance.randint(1, count)
            self._note(f"snapshot of {index} at {server}")
            cluster.take_snapshot(server, index)

    def _compact(self) -> None:
        cluster = self.cluster
        ready = [name for name in self._up() if cluster.raft(name).snapshot is not None]
        if ready:
            server = self.snapshot_chance.choice(ready)
            raft = cluster.raft(server)
            assert raft.snapshot is not None
            last = raft.snapshot.id.last_included_index
            index = last
            if self.snapshot_chance.random() < 0.3:
                index = self.snapshot_chance.randint(raft.log.base_index, last)
            self._note(f"compact {server} to {index}")
            cluster.compact(server, index)

    def _install(self) -> None:
        """Let one server find that a snapshot is there as a whole."""
        ready = [name for name in self._up() if self.cluster.servers[name].received is not None]
        if ready:
            server = self.snapshot_chance.choice(ready)
            self._note(f"snapshot received at {server}")
            self.cluster.finish_receiving(server)

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
        self._elect_another(leader)

    def _upheaval(self) -> None:
        """Take a leader away, whatever it is doing."""
        leaders = self._leaders()
        if leaders:
            leader = self.chance.choice(leaders)
            self._hit(leader, self.cluster.configuration(leader))

    def _elect_another(self, leader: ServerId) -> None:
        """Let others campaign once stickiness has ended; their entries reach only some."""
        chance, cluster = self.chance, self.cluster
        others = [name for name in self._up() if name != leader]
        for server in others:
            cluster.tick(server, self.options.election_ticks)
        for server in chance.sample(others, min(len(others), chance.randint(1, 3))):
            cluster.tick(server, self.options.election_ticks)
            reached = set(chance.sample(self.names, chance.randint(0, len(self.names))))
            for _ in range(7):
                for envelope in cluster.take(lambda envelope: True):
                    if envelope.dest in reached or not appends(envelope):
                        cluster.deliver(envelope)
                if chance.random() < self.faults.malice:
                    chance.choice((self._abort, self._read, self._propose, self._change))()
            if chance.random() < 0.3:
                cluster.heal()

    # --- liveness ---

    def _recover(self) -> None:
        """Everybody comes back and every message arrives: the group has to become whole."""
        cluster = self.cluster
        cluster.power_loss = 0.0
        cluster.heal()
        cluster.installs_at_once = True
        for server in sorted(cluster.down):
            cluster.restart(server)
        for server in self.names:
            if cluster.servers[server].received is not None:
                cluster.finish_receiving(server)
        self._note("recover")
        ticks_max = 60 * self.options.election_ticks
        cluster.run_until(self._is_settled, ticks_max)
        before = max(cluster.committed, default=0)
        _, index = cluster.propose(b"last")
        cluster.run_until(lambda: self._is_settled() and index in cluster.committed, ticks_max)
        assert index > before
        assert cluster.committed[index].data == b"last"
        self._check_states()

    def _check_states(self) -> None:
        """Whoever has applied as much as another has the same state, however it got there."""
        for node in self.cluster.servers.values():
            expected = [self.cluster.committed[e.index] for e in node.applied]
            assert node.applied == expected
            assert len(node.applied) == node.raft.log.handed_index

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
            and leader.role.transfer_target is None
            and leader.server in latest.configuration.voters
            and not latest.configuration.is_joint
            and log.commit_index == log.last_index
            and all(
                self.cluster.raft(member).log.commit_index == log.last_index
                and self.cluster.raft(member).leader_id == leader.server
                for member in latest.configuration.members
            )
        )


class MidChangeWalk(Walk):
    """A walk that begins when the leader of a change from {1, 2, 3} to {4, 5, 6} has just died.

    The states that the dead leader can have left behind are few, and the ones that matter are far
    from an empty cluster: C_new on some servers, or an abort on some, with C_old,new known to be
    committed here and there. From there on elections, aborts and crashes follow closely.
    """

    def __init__(self, seed: int, steps: int = 40, log: list[str] | None = None) -> None:
        super().__init__(seed, steps, log)
        chance = self.chance
        self.steps = steps
        self.names = [f"n{number}/{number}" for number in range(1, 7)]
        self.faults = attrs.evolve(self.faults, loss=0.0, duplication=0.0, malice=0.7, batch=1)
        self.options = attrs.evolve(self.options, election_ticks=3)
        old, new = self.names[:3], self.names[3:]
        self.cluster = FaultyCluster(old, new, self.options, chance, power_loss=0.0)
        self._leave_behind(old, new, aborted=chance.random() < 0.5)

    def _leave_behind(self, old: list[ServerId], new: list[ServerId], *, aborted: bool) -> None:
        chance, cluster = self.chance, self.cluster
        founding = founding_entry(old, new)
        joint = configuration_entry(
            2, 1, ConfigurationKind.JOINT, Configuration(new, old), learners_before=new
        )
        if aborted:
            # The leader's own entry: under C_old, which the abort restored, two servers commit it.
            last = configuration_entry(
                3, 1, ConfigurationKind.ABORT, Configuration(old, learners=new)
            )
            with_joint = {old[0], *chance.sample(self.names, chance.randint(0, 6))}
            joint_is_committed = len(with_joint & set(old)) >= 2
        else:
            last = configuration_entry(3, 1, ConfigurationKind.FINAL, Configuration(new))
            with_joint = {old[0], chance.choice(old[1:]), *chance.sample(new, 2)}
            with_joint |= set(chance.sample(self.names, chance.randint(0, 6)))
            joint_is_committed = True
        reached = {old[0], *(name for name in sorted(with_joint) if chance.random() < 0.3)}
        for server in self.names:
            entries = [founding]
            entries += [joint] if server in with_joint else []
            entries += [last] if server in reached else []
            cluster.servers[server].disk = Disk(entries, term=1)
            cluster.restart(server)
            if joint_is_committed and server in with_joint and chance.random() < 0.5:
                # It has heard so from the leader that is dead now.
                cluster.raft(server).log.commit_index = 2
                cluster.settle(server)
        if chance.random() < 0.7:
            cluster.crash(old[0])

    def _step(self) -> None:
        (action,) = self.chance.choices(
            (
                lambda: self._elect_another(""),
                self._deliver,
                lambda: self._calm(1),
                self._abort,
                self._propose,
                self._crash,
                self._restart,
                self._partition,
                self._heal,
            ),
            (6, 10, 1, 3, 1, 0.7, 1, 1, 2),
        )
        action()
        self._snapshots()


class SnapshotWalk(Walk):
    """A walk in which servers fall behind what the others still have in their logs.

    They are then sent a snapshot, and everything else happens meanwhile.
    """

    def __init__(self, seed: int, steps: int = 250, log: list[str] | None = None) -> None:
        super().__init__(seed, steps, log)
        chance = self.snapshot_chance
        self.steps = steps
        self.faults = attrs.evolve(
            self.faults,
            compaction=chance.choice((1.0, 4.0)),
            calm=chance.choice((0.05, 0.2)),
            membership=chance.choice((0.3, 2.0)),
            power_loss=chance.choice((0.0, 0.01, 0.03)),
            malice=chance.choice((0.0, 0.2)),
        )
        self.cluster.power_loss = self.faults.power_loss

    def _step(self) -> None:
        if self.snapshot_chance.random() < 0.03:
            self._fall_behind()
        else:
            super()._step()

    def _fall_behind(self) -> None:
        """Keep one server out of it while the others go on and shorten their logs."""
        chance, cluster = self.snapshot_chance, self.cluster
        late = chance.choice(self.names)
        self._note(f"{late} falls behind")
        cluster.heal()
        cluster.partition([late], [name for name in self.names if name != late])
        self._calm(chance.randint(1, 2 * self.options.election_ticks))
        for _ in range(chance.randint(1, 4)):
            self._propose()
            if chance.random() < 0.3:
                self._change()
            self._calm(1)
        for server in self._up():
            if server != late and chance.random() < 0.7:
                self._note(f"{server} takes a snapshot and compacts")
                if cluster.servers[server].applied:
                    cluster.take_snapshot(server)
                if server not in cluster.down and cluster.raft(server).snapshot is not None:
                    cluster.compact(server)
        cluster.heal()
        if chance.random() < 0.5:
            self._calm(chance.randint(1, 3))
