"""One seed: form a cluster, attack it, heal it, and see whether everything is still right.

1. **Forming**, in calm weather: one server founds the cluster, one joint change brings in the rest.
2. **Safety**: anything goes. Every invariant is looked at after every step.
3. **Liveness**: everything works again. Within bounded time there is a leader, every change is
   finished or rolled back, lost members are replaced, every client has its answer, all members hold
   the same state, new writes are served, and the history of the clients is linearizable.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import attrs

from raftd.cluster_time import CLOCK_INTERVAL_MS
from raftd.commands import FEATURES_MAX
from raftd.core.errors import Divergence
from raftd.core.membership import Configuration
from raftd.core.types import Entry, ServerId, server_name
from raftd.protocol import BootstrapReply, BootstrapRequest, Reply
from raftd.surroundings import Settings
from tests.history.checker import check
from tests.history.recorder import Recorder
from tests.simulation.adversary import Adversary
from tests.simulation.batches import BatchingClient
from tests.simulation.clients import Client
from tests.simulation.coverage import Coverage
from tests.simulation.durable import Durable
from tests.simulation.invariants import Invariant
from tests.simulation.invariants.all import ALL
from tests.simulation.invariants.ledger_rules import LedgerRules
from tests.simulation.limits import small_limits
from tests.simulation.lives import TTL_MS
from tests.simulation.machine import OLD_FEATURES, RETRY_US, Machine, describe
from tests.simulation.network import Network
from tests.simulation.operator import Operator, drop
from tests.simulation.profile import (
    ADVERSARY,
    MILLISECOND,
    MORE_ADVERSARY,
    SECOND,
    SERVERS_MAX,
    Profile,
    Step,
    draw,
)
from tests.simulation.watch import Violated, Watch
from tests.simulation.world import World

CLUSTER = "simulated"
FORMING_US = 60 * SECOND
LEADER_ELECTIONS = 20
"""A healed cluster has a leader within so many election timeouts: the first is for noticing that
there is none, each further one for a vote that was split. Five are what runs take at most."""
HEALING_US = 10 * SECOND
"""And has done everything else within this, beside what a change may take that is under way."""
LIVES_US = HEALING_US + CLOCK_INTERVAL_MS * MILLISECOND + max(TTL_MS) * MILLISECOND
"""All lives have ended within this, counted on from the last time that was written down."""
REMOVAL_US = 10 * SECOND
"""A server that was removed has ended within this, as the contract says."""
FORGETTING_US = 10 * SECOND
"""A server that was left out and does not answer is fed no longer than this: then features that it
does not know can be switched on."""
REPLACEMENTS_MAX = 3
"""So often at most the operator asks for the replacement of lost members. Nothing is in its way but
that its session may have expired."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a run."""

    seed: int
    property: str
    """What does not hold; empty if everything does."""
    error: str
    """The message, or the traceback of an exception."""
    hash: str
    """Of the whole trace and history: equal for equal runs."""
    simulated_us: int
    events: int
    counted: Counter[str]
    trace: tuple[str, ...]
    """The last lines of the trace."""
    history: tuple[dict[str, object], ...]


class NotAlive(AssertionError):
    """Something that has to come in a healed cluster did not."""


def simulate(
    seed: int,
    *,
    kept: Collection[int] | None = None,
    dropped: Collection[str] = (),
    emit: Callable[[str], None] | None = None,
    invariants: tuple[type[Invariant], ...] = ALL,
) -> Outcome:
    """Run a seed to its end and return what came of it.

    Args:
        kept: numbers of the scheduled steps that happen; None for all.
        dropped: kinds of faults that do not happen: loss, duplication, reordering, malice, limits,
            clients (all but one), or `m7` for the seventh malicious act.
        emit: gets each line of the trace.
    """
    profile = draw(seed).without(dropped)
    simulation = Simulation(profile, kept, frozenset(dropped), emit, invariants)
    property, error = "", ""
    with small_limits(profile.limits), simulation.watch.counting():
        try:
            simulation.run()
        except Violated as violated:
            property, error = violated.title, f"{violated}\n{_where(violated.__cause__)}"
        except NotAlive as failure:
            property, error = "Liveness", f"{failure}\n{simulation.describe()}"
        except Divergence as failure:
            property, error = "Divergence", f"{failure}\n{_where(failure)}"
        except Exception as failure:
            property, error = "Exception", f"{failure!r}\n{_where(failure)}"
    return simulation.outcome(property, error)


def _where(error: BaseException | None) -> str:
    return "".join(traceback.format_exception(error)) if error is not None else ""


class Simulation:
    """Everything of one run."""

    def __init__(
        self,
        profile: Profile,
        kept: Collection[int] | None,
        dropped: frozenset[str],
        emit: Callable[[str], None] | None,
        invariants: tuple[type[Invariant], ...],
    ) -> None:
        self.profile = profile
        self._kept = kept
        self.world = World(profile, emit)
        self.network = Network(self.world)
        self.durable: dict[ServerId, Durable] = {}
        self.committed: list[Entry] = []
        self.coverage = Coverage(self.durable)
        self.watch = Watch(invariants, self.durable)
        self.watch.add(self.coverage)
        self.coverage.world = self.world
        self.recorder = Recorder()
        self.operator = Operator(self.world, self.network)
        self.adversary = Adversary(self.world, self.network, self.operator, self.durable, dropped)
        self.machines = [
            self._machine(f"n{number}") for number in range(1, profile.voters + profile.spares + 1)
        ]
        self.clients: list[Client | BatchingClient] = [
            self._client(f"c{number}") for number in range(profile.clients)
        ]
        for number in range(profile.batching_clients):
            self.clients.append(
                BatchingClient(
                    f"b{number}",
                    world=self.world,
                    network=self.network,
                    recorder=self.recorder,
                    keys=profile.keys,
                )
            )

    def _machine(self, name: str) -> Machine:
        profile = self.profile
        tick_ms = profile.tick_us / MILLISECOND
        settings = Settings(
            address=f"{name}:7100",
            version="0.1.0",
            tick_ms=tick_ms,
            heartbeat_interval_ms=profile.heartbeat_ticks * tick_ms,
            election_timeout_ms=profile.election_ticks * tick_ms,
            catch_up_timeout_ms=profile.catch_up_ticks * tick_ms,
            joint_timeout_ms=profile.joint_ticks * tick_ms,
            # Servers need not have the same configuration: some keep more of the log.
            snapshot_log_bytes=profile.snapshot_log_bytes
            * self.world.random(f"log of {name}").choice((1, 1, 3)),
            catch_up_bytes_per_second=profile.catch_up_bytes_per_second,
            disk_reserve_bytes=profile.disk_reserve_bytes,
        )
        machine = Machine(
            name,
            world=self.world,
            network=self.network,
            watch=self.watch,
            durable=self.durable,
            committed=self.committed,
            settings=settings,
        )
        # A founder of the new release is the only member, so that it switches on its features
        # before it lets anybody in.
        is_founder = name == "n1"
        draw = self.world.random(f"release of {name}").random()
        if profile.old_chance and (is_founder or draw < profile.old_chance):
            machine.version = profile.old_version
        if self.world.random(f"leases of {name}").random() < profile.lease_chance:
            machine.use_leases(profile.clock_drift)
        machine.may_reconfigure = profile.reconfigures and profile.lease_chance > 0
        machine.on_append = self.adversary.on_append
        machine.on_received = self.adversary.on_received
        machine.on_elected = self.adversary.on_elected
        machine.went_down = self.adversary.went_down
        return machine

    def _client(self, name: str) -> Client:
        return Client(
            name,
            world=self.world,
            network=self.network,
            recorder=self.recorder,
            keys=self.profile.keys,
        )

    def run(self) -> None:
        """Go through the three phases.

        Raises:
            Violated: an invariant does not hold.
            NotAlive: something that has to come does not.
        """
        self._form()
        self._attack()
        self._check(self._heal())

    def _wait(self, condition: Callable[[], bool], within_us: int, what: str) -> None:
        # Looked at now and then: to ask after every event would cost more than the events.
        deadline_us = self.world.now_us + within_us
        while not condition():
            if self.world.now_us >= deadline_us:
                raise NotAlive(f"not within {within_us / SECOND:.1f} s: {what}")
            self.world.run_until(self.world.now_us + self.profile.tick_us)

    # --- forming ---

    def _form(self) -> None:
        for machine in self.machines:
            machine.start()
        first = self.machines[0]
        replies: list[Reply] = []
        assert first.node is not None
        self.network.ask(
            "operator",
            first,
            BootstrapRequest(
                cluster_name=CLUSTER,
                incarnation=first.node.identity.incarnation,
                address=first.address,
            ),
            replies.append,
        )
        self._wait(lambda: bool(replies), FORMING_US, "the cluster is founded")
        assert isinstance(replies[0], BootstrapReply), replies
        self._wait(self._has_operator_session, FORMING_US, "the operator has a session")
        others = [machine.name for machine in self.machines[1 : self.profile.voters]]
        if others:
            self.operator.change(first, "init", [self.operator.new(name) for name in others])
            self._wait(
                lambda: self._is_stable() and len(self._voters()) == self.profile.voters,
                FORMING_US,
                "the cluster is formed",
            )
        for client in self.clients:
            client.act()

    def _has_operator_session(self) -> bool:
        leader = self.operator.believed_leader()
        if leader is not None and not self.operator.has_session:
            self.operator.open_session(leader)
        return self.operator.has_session

    def _voters(self) -> frozenset[ServerId]:
        leader = self._ready_leader()
        latest = leader.raft.configuration if leader else None
        return latest.configuration.voters if latest else frozenset()

    # --- attacking ---

    def _attack(self) -> None:
        begin_us = self.world.now_us
        self.network.is_calm = False
        self.network.is_bad = self.profile.begins_bad
        self.adversary.is_active = True
        spread = self.profile.clock_spread
        random = self.world.random("clocks")
        for machine in self.machines:
            machine.clock_rate = random.uniform(1 - spread, 1 + spread)
        for step in self.profile.steps:
            if self._kept is None or step.number in self._kept:
                self.world.at(begin_us + step.at_us, self._take, step)
        self.world.run_until(begin_us + self.profile.duration_us)

    def _take(self, step: Step) -> None:
        random = self.world.random(f"step {step.number}")
        if step.kind in ADVERSARY or step.kind in MORE_ADVERSARY:
            self.adversary.act(step.kind, random)
        else:
            self.operator.act(step.kind, random)

    # --- healing ---

    def _heal(self) -> bool:
        """Let everything work again; return whether that was possible."""
        world = self.world
        world.note("heals")
        self.adversary.is_active = False
        self.network.calm_down()
        for machine in self.machines:
            if machine.moves_to:
                machine.end(loses_power=False)
                machine.move()
        for machine in self.machines:
            machine.disarm()
            machine.paused_until_us = machine.background_from_us = 0
            machine.clock_rate = 1.0
            machine.is_held = False
            machine.disk.fails_next = ""
            machine.disk.make_room()
            if machine.drains:
                machine.end(loses_power=False)
            if machine.is_damaged and machine.node is not None:
                # Nobody can install its snapshot: it serves until somebody needs that.
                world.count("disks replaced because of a damaged snapshot")
                machine.end(loses_power=True)
                machine.wipe()
            self._bring_up_to_date(machine)
            self.adversary.start_again(machine)
            if machine.exit == "refuses":
                # Its disk was damaged, or else nothing excuses it.
                if not machine.is_damaged:
                    raise Violated(
                        "Durability", f"{machine.name} does not start on an undamaged disk"
                    )
                self.adversary.start_again(machine)
        if self.adversary.has_lost_a_quorum():
            world.count("runs that end early: a change began in the moment of a disk's loss")
            return False
        self._wait_for_leader()
        # Where appends are tiny, a new server may never catch up with clients that go on writing.
        for client in self.clients:
            client.stops = client.asked_patiently = True
        self._wait(self._is_stable, self._change_us(), "no change is under way")
        self._wait(
            lambda: all(client.finished for client in self.clients),
            HEALING_US,
            "all clients have their answers",
        )
        assert all(m.node is not None or m.exit == "removed" for m in self.machines)
        # Only now: where few sessions are allowed, clients could keep the operator from having one.
        self._replace_lost_members()
        self._correct_addresses()
        if self.profile.loses_new_half:
            self._lose_a_new_half()
        self._wait(self._is_settled, self._settling_us(), "all members hold the same")
        self._await_features()
        self._write_and_read_everything()
        self._wait(self._lives_have_ended, LIVES_US, "all keys whose life is over are gone")
        self._wait(self._removed_have_ended, REMOVAL_US, "removed servers have ended")
        self._wait(
            self._are_short, self._shortening_us(), "logs are short, and what was given up is gone"
        )
        self._finish_rolling()
        self._check_ledger()
        world.count("runs to the end")
        return True

    def _bring_up_to_date(self, machine: Machine) -> None:
        """Let a machine start anew that has an older release, or whose cluster file is outdated."""
        if self.profile.release == "upgraded" and machine.is_old:
            machine.is_upgraded_next = True
        addresses = {other.name: other.address for other in self.machines}
        is_outdated = self.profile.moves and machine.file_addresses != addresses
        if is_outdated or machine.is_upgraded_next:
            machine.end(loses_power=False)

    def _finish_rolling(self) -> None:
        """Bring a rolling operation to its end: while it runs, members are only changed by it."""
        random = self.world.random("end of the rolling operation")
        asked_us = -SECOND

        def has_ended() -> bool:
            nonlocal asked_us
            leader = self._ready_leader()
            if leader is None or leader.state.rolling_operation is None:
                return leader is not None
            if self.world.now_us - asked_us >= RETRY_US:
                asked_us = self.world.now_us
                self.operator.finish_rolling(leader, random)
            return False

        self._wait(has_ended, HEALING_US, "the rolling operation has ended")

    def _correct_addresses(self) -> None:
        """Write into the log where members are that have moved."""
        if not self.profile.moves:
            return
        self._await_features()
        for attempt in range(REPLACEMENTS_MAX + 1):
            self._finish_rolling()
            leader, _ = self._stable_leader()
            latest = leader.raft.configuration
            assert latest is not None
            if not self.operator.misplaced(latest):
                return
            if attempt == REPLACEMENTS_MAX:
                raise NotAlive(f"addresses are not corrected after {attempt} attempts")
            self._wait(self._has_operator_session, HEALING_US, "the operator has a session")
            self.operator.readdress(leader, latest)
            self.world.run_until(self.world.now_us + 10 * RETRY_US)

    def _await_features(self) -> None:
        """Wait until the members use what all of them know, or see that none uses anything."""
        wanted = FEATURES_MAX
        if self.profile.release == "old":
            wanted = OLD_FEATURES[self.profile.old_version]

        def use() -> bool:
            leader = self._ready_leader()
            return leader is not None and leader.state.features == wanted

        self._wait(use, HEALING_US + FORGETTING_US, f"the features of version {wanted} are on")

    def _wait_for_leader(self) -> None:
        """A leader is ready once it has committed something, which may take a voter that has to
        get a snapshot first, as fast as that may go."""
        election_us = self.profile.election_ticks * self.profile.tick_us
        within_us = LEADER_ELECTIONS * election_us + self._snapshot_us()
        self._wait(lambda: self._ready_leader() is not None, within_us, "a leader")

    def _snapshot_us(self) -> int:
        """Return how long the sending of a snapshot takes where its rate is limited."""
        rate = self.profile.catch_up_bytes_per_second
        latest = [m.snapshots.latest for m in self.network.up()]
        size_bytes = max((s.id.size_bytes for s in latest if s is not None), default=0)
        return size_bytes * SECOND // rate if rate else 0

    def _change_us(self) -> int:
        """Return how long a change may take to end, one way or the other."""
        ticks = self.profile.catch_up_ticks + self.profile.joint_ticks
        return self._settling_us() + ticks * self.profile.tick_us

    def _shortening_us(self) -> int:
        """Return how long a log may take to go where only one entry is forgotten in each turn."""
        entries = max(
            (
                m.raft.log.last_index - m.raft.log.base_index
                for m in self.machines
                if m.node is not None
            ),
            default=0,
        )
        return HEALING_US + entries * self.profile.tick_us

    def _settling_us(self) -> int:
        """Return how long a learner may take to get the last entry.

        A batch is not cut at the share of a tick. Whoever got all of a log in one batch owes that
        much, and gets nothing more before it is paid back.
        """
        rate = self.profile.catch_up_bytes_per_second
        owed_bytes = max(
            (m.raft.log.size_bytes for m in self.machines if m.node is not None), default=0
        )
        return HEALING_US + (owed_bytes * SECOND // rate if rate else 0)

    def _stable_leader(self) -> tuple[Machine, Configuration]:
        """Wait until no change is under way; return who leads, and the configuration."""
        self._wait(self._is_stable, self._change_us(), "a leader, and no change under way")
        leader = self._ready_leader()
        assert leader is not None
        latest = leader.raft.configuration
        assert latest is not None
        return leader, latest.configuration

    def _replace_lost_members(self) -> None:
        for attempt in range(REPLACEMENTS_MAX + 1):
            # A request that begins one may have been on its way.
            self._finish_rolling()
            leader, configuration = self._stable_leader()
            changes = self.operator.replace_lost(configuration)
            if not changes:
                return
            latest = leader.raft.configuration
            if self.profile.moves and latest is not None:
                # A lost one may be where the log still has a member that has moved.
                changes += self.operator.corrections(latest)
            if attempt == REPLACEMENTS_MAX:
                raise NotAlive(f"lost members are not replaced after {attempt} attempts")
            self._wait(self._has_operator_session, HEALING_US, "the operator has a session")
            self.operator.change(leader, "replace", changes)
            self.world.run_until(self.world.now_us + 10 * RETRY_US)

    def _lose_a_new_half(self) -> None:
        """Let all servers of a new half die before they have heard of C_old,new.

        Nobody could be elected any more, so the leader has to restore C_old by itself.
        """
        leader, configuration = self._stable_leader()
        members = configuration.members
        strangers = [m for m in self.network.up() if m.id not in members]
        if not strangers or len(strangers) + len(members) > SERVERS_MAX:
            return
        struck: list[Machine] = []

        def strike(machine: Machine, entries: Sequence[Entry]) -> None:
            now = machine.raft.configuration
            if not struck and machine.leads and now and now.configuration.is_joint:
                struck.extend(strangers)
                for stranger in strangers:
                    self.world.at(self.world.now_us, stranger.keep_down)

        # Whoever leads by then.
        for machine in self.machines:
            machine.on_append = strike
        new = [self.operator.new(machine.name) for machine in strangers]
        old = [drop(server_name(server)) for server in sorted(configuration.voters)]
        self._wait(self._has_operator_session, HEALING_US, "the operator has a session")
        self.operator.change(leader, "replace-all", [*old, *new])
        self.world.run_until(self.world.now_us + 10 * RETRY_US)
        try:
            self._wait(self._is_stable, self._change_us(), "C_old is restored without the new half")
        except NotAlive:
            # A request to campaign may have been on its way before C_old,new was appended: then the
            # leader is deposed before it can take that back. Who comes back helps.
            if not self.adversary.has_lost_a_quorum():
                raise
            self.world.count("leaders deposed between C_old,new and its abort")
        for machine in struck:
            machine.is_held = False
            self.adversary.start_again(machine)
        self.world.count("new halves lost for good")

    def _removed_have_ended(self) -> bool:
        """Return whether everybody has ended who was removed and knows a member to hear it from."""
        leader = self._ready_leader()
        latest = leader.raft.configuration if leader else None
        if leader is None or latest is None:
            return False
        return not any(
            leader.state.tombstone(machine.id) is not None
            and machine.members.keys() & latest.configuration.members
            for machine in self.network.up()
        )

    def _check_ledger(self) -> None:
        """Look at what the cluster has written down about the operations."""
        leader, _ = self._stable_leader()
        asked: set[tuple[str, int]] = set()
        for operation in leader.state.operations():
            request = (operation.session, operation.serial)
            self.world.count(f"operations ended: {operation.result}")
            if request in asked:
                raise Violated("Exactly once", f"{operation.id} is a second one of {request}")
            asked.add(request)
        ledger = self.watch.invariants.get(LedgerRules)
        if isinstance(ledger, LedgerRules):
            for change in self.operator.acknowledged:
                found = ledger.changes.get((change.operation, change.version))
                if found != (change.session, change.serial):
                    raise Violated("Exactly once", f"{change} was answered, the log has {found}")

    def _ready_leader(self) -> Machine | None:
        leader = self.operator.believed_leader()
        if leader is None:
            return None
        role = leader.raft.leader()
        is_ready = (
            role.in_contact_with_quorum()
            and role.has_committed_in_term
            and leader.state.applied_index >= role.term_start
        )
        return leader if is_ready else None

    def _is_stable(self) -> bool:
        leader = self._ready_leader()
        if leader is None:
            return False
        latest = leader.raft.configuration
        return (
            latest is not None
            and latest.index <= leader.raft.log.commit_index
            and not latest.configuration.is_joint
            and leader.state.running_operation is None
        )

    def _is_settled(self) -> bool:
        leader = self._ready_leader()
        if leader is None:
            return False
        latest = leader.raft.configuration
        assert latest is not None
        last_index = leader.raft.log.last_index
        members = [m for m in self.network.up() if m.id in latest.configuration.members]
        return len(members) == len(latest.configuration.members) and all(
            member.state.applied_index == last_index
            and member.state_hash == leader.state_hash
            and member.raft.log.commit_index == last_index
            for member in members
        )

    def _are_short(self) -> bool:
        """Return whether all logs are as short as `raftd.compaction` wants them, on disk too."""
        return all(machine.log_is_short() and not machine.waste() for machine in self.network.up())

    def _lives_have_ended(self) -> bool:
        leader = self._ready_leader()
        return leader is not None and not leader.state.life_count and self._is_settled()

    def _write_and_read_everything(self) -> None:
        """Let a client that was not there before write, and read every key."""
        last = self._client("last")
        self.clients.append(last)
        last.asked_patiently = True
        done: list[bool] = []
        last.conclude(lambda: done.append(True))
        self._wait(lambda: bool(done), HEALING_US, "new writes and reads are served")

    def _check(self, is_complete: bool) -> None:
        events = self.recorder.events
        if not is_complete:
            # Nobody could read in the end what was appended and counted.
            kinds = ("append", "increment")
            judged = {event["op"] for event in events if event.get("kind") in kinds}
            events = [event for event in events if event.get("op") not in judged]
        verdict = check(events)
        if not verdict.ok:
            raise Violated("Linearizability", "\n".join((*verdict.problems, *verdict.undecided)))

    # --- telling ---

    def describe(self) -> str:
        """Return a line for each machine."""
        return "\n".join(describe(machine) for machine in self.machines)

    def outcome(self, property: str, error: str) -> Outcome:
        """Return what became of the run."""
        world = self.world
        trace = tuple(world.recent)
        for event in self.recorder.events:
            world.write(dict(event))
        return Outcome(
            seed=self.profile.seed,
            property=property,
            error=error,
            hash=world.hash(),
            simulated_us=world.now_us,
            events=world.event_count,
            counted=world.counted,
            trace=trace,
            history=tuple(self.recorder.events),
        )
