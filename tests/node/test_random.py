"""Random walks: writes, reads, membership changes, crashes at any step, partitions, lost disks.

Afterwards everything works again, and what has to come then comes: a leader, the end of every
operation, the same state everywhere, each acknowledged write once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from raftd.core.membership import Configuration
from raftd.core.types import server_name
from raftd.protocol import AbortRequest, ErrorReply, MemberChange, TransferRequest
from tests.node.clients import Client
from tests.node.growing import EAGER
from tests.node.world import Asked, World, become, drop, new

WALKS = 60
WALK_TICKS = 250
HEALING_TICKS = 400
"""Enough for elections, for a catch-up that fails and for a joint change that is rolled back."""
CLIENTS = 3
NO_SNAPSHOTS = 1 << 30
LOG_BYTES = (EAGER, 500, 4000, NO_SNAPSHOTS)
"""Sizes of the log at which a snapshot is taken, in turn: after each entry, seldom, never."""
NAMES = tuple(f"n{number}" for number in range(1, 9))
ADMINISTRATIVE_ERRORS = {"refused", "unsafe", "not-leader", "unavailable", "unknown-outcome"}


class Walk:
    """One random walk, and what is asserted at its end."""

    def __init__(
        self, seed: int, *, checks_invariants: bool = False, log_bytes: int = NO_SNAPSHOTS
    ) -> None:
        self.random = Random(seed)
        self.world = World(seed, checks_invariants=checks_invariants, snapshot_log_bytes=log_bytes)
        self.world.form(3)
        self.world.shuffled = True
        for name in NAMES[3:6]:
            self.world.boot(name)
        self.clients = [
            Client(self.world, f"c{number}", Random(seed * CLIENTS + number))
            for number in range(CLIENTS)
        ]
        self.asked: list[Asked] = []

    def step(self) -> None:
        """Let one tick pass in which anything may happen."""
        world, random = self.world, self.random
        for client in self.clients:
            client.act()
            if random.random() < 0.2:
                client.read()
        for probability, action in (
            (0.10, self.ask_for_something),
            (0.05, self.crash),
            (0.12, self.start_one),
            (0.03, self.partition),
            (0.10, world.heal),
            (0.05, self.change_the_weather),
        ):
            if random.random() < probability:
                action()
        world.tick()

    # --- what may happen ---

    def ask_for_something(self) -> None:
        world, random = self.world, self.random
        running = world.up()
        leaders = [server for server in running if server.leads]
        if not running:
            return
        server = random.choice(leaders or running)
        latest = server.running.raft.configuration
        if latest is None:
            return
        kind = random.choice(("change",) * 6 + ("abort", "transfer", "lose-disk", "lose-disk"))
        if kind == "abort":
            request = AbortRequest(session="s", serial=world.serial("s"), operation="", author="x")
            self.asked.append(world.ask_later(server, request))
        elif kind == "transfer":
            self.asked.append(world.ask_later(server, TransferRequest()))
        else:
            changes = (
                self.random_changes(latest.configuration)
                if kind == "change"
                else self.lose_a_disk(latest.configuration)
            )
            if changes:
                self.asked.append(world.ask_later(server, world.change(kind, *changes)))

    def random_changes(self, configuration: Configuration) -> list[MemberChange]:
        random = self.random
        members, voters, learners = (
            sorted({server_name(server) for server in servers})
            for servers in (configuration.members, configuration.voters, configuration.learners)
        )
        strangers = [name for name in NAMES if name not in members]
        random.shuffle(strangers)
        match random.choice(("add", "learner", "remove", "replace", "all", "promote", "demote")):
            case "add":
                return [new(name) for name in strangers[: random.randint(1, 2)]]
            case "learner":
                return [new(name, "learner") for name in strangers[:1]]
            case "remove":
                return [drop(random.choice(members))]
            case "replace" if strangers:
                return [drop(random.choice(voters)), new(strangers[0])]
            case "all" if len(strangers) >= len(voters):
                newcomers = strangers[: len(voters)]
                return [drop(name) for name in voters] + [new(name) for name in newcomers]
            case "promote" if learners:
                return [become(random.choice(learners), "voter")]
            case "demote":
                return [become(random.choice(voters), "learner")]
        return []

    def lose_a_disk(self, configuration: Configuration) -> list[MemberChange]:
        """Wipe a voter that is down, and ask that it be replaced by itself."""
        disks = {server.id for server in self.world.servers.values()}
        down = [
            server
            for server in self.world.servers.values()
            if server.node is None and server.id in configuration.voters
        ]
        # More than one lost disk at a time is more than a cluster promises to survive.
        if not down or not self.is_calm() or not configuration.members <= disks:
            return []
        name = self.random.choice(down).name
        self.world.boot(name)
        return [drop(name), new(name)]

    def is_calm(self) -> bool:
        """Whether there is one leader, the newest, with three voters or more and no change."""
        leaders = [server for server in self.world.up() if server.leads]
        if len(leaders) != 1 or any(asked.open for asked in self.asked):
            return False
        leader = leaders[0]
        configuration = leader.status.configuration
        return (
            leader.status.term == max(server.status.term for server in self.world.up())
            and leader.status.leadership_confirmed
            and leader.state.running_operation is None
            and configuration.committed
            and not configuration.joint
            and len(configuration.voters) > 2
        )

    def crash(self) -> None:
        running = self.world.up()
        if not running:
            return
        server = self.random.choice(running)
        kind = self.random.random()
        if kind < 0.3:
            server.kill(keeps_cache=kind < 0.1)
        elif kind < 0.5:
            # Within taking, receiving, publishing or removing a snapshot.
            files = server.disk.files
            files.crash_at = len(files.calls) + self.random.randint(1, 8)
        else:
            server.power.fail_at = len(server.power.steps) + self.random.randint(1, 30)

    def start_one(self) -> None:
        down = [server for server in self.world.servers.values() if server.node is None]
        if not down:
            return
        server = self.random.choice(down)
        if server.disk.identity.removed_index:
            # Its operator empties the data folder and uses the machine again.
            self.world.boot(server.name)
        else:
            server.start(keeps_state=self.random.random() < 0.3)

    def partition(self) -> None:
        names = list(NAMES)
        self.random.shuffle(names)
        if self.random.random() < 0.3:
            self.world.cut_one_way(names[0], names[1])
        else:
            at = self.random.randint(1, len(names) - 1)
            self.world.cut(names[:at], names[at:])

    def change_the_weather(self) -> None:
        self.world.loss = self.random.choice((0.0, 0.0, 0.05, 0.3))
        self.world.delay_ticks = self.random.choice(((0, 0), (0, 1), (0, 3), (1, 2)))

    # --- the end ---

    def heal(self) -> None:
        """Let everything work again, and wait for what has to come then."""
        world = self.world
        world.heal()
        world.loss, world.delay_ticks = 0.0, (0, 0)
        for server in world.servers.values():
            server.power.fail_at = server.disk.files.crash_at = 0
            if server.node is None and not server.disk.identity.removed_index:
                server.start()
        for client in self.clients:
            client.stopped = True
        for _ in range(HEALING_TICKS):
            for client in self.clients:
                client.act()
            world.tick()
            if self.is_at_rest():
                return
        raise AssertionError(f"not at rest:\n{self.describe()}")

    def is_at_rest(self) -> bool:
        leaders = [server for server in self.world.up() if server.leads]
        return (
            all(client.finished for client in self.clients)
            and self.world.is_settled()
            and all(leader.state.running_operation is None for leader in leaders)
            and not any(asked.open for asked in self.asked)
        )

    def describe(self) -> str:
        """Return a line for each server."""
        lines = []
        for server in self.world.servers.values():
            if server.node is None:
                lines.append(f"{server.id} is down: {server.exit}")
                continue
            status, latest = server.status, server.running.raft.configuration
            lines.append(
                f"{server.id} {status.role} of term {status.term}, {status.applied_index} applied, "
                f"{status.commit_index} committed, {status.last_index} in the log, "
                f"{latest.configuration if latest else 'no configuration'}, "
                f"{status.operation.step if status.operation else 'no operation'}"
            )
        return "\n".join(lines)

    def check(self) -> None:
        """Assert that nothing is lost, nothing is double, and everybody holds the same."""
        leader = self.world.leader()
        for client in self.clients:
            for serial in range(2, client.acknowledged + 1, 2):
                found = leader.state.get(f"{client.name}-{serial:06d}")
                assert found is not None, f"{client.name} {serial} was acknowledged and is gone"
                assert found.version == 1, f"{client.name} {serial} was done twice"
            register = leader.state.get(f"{client.name}-register")
            written = 0 if register is None else register.version
            assert written == (client.acknowledged + 1) // 2
        state = leader.state.dump()
        latest = leader.running.raft.configuration
        assert latest is not None
        assert not latest.configuration.is_joint
        for server in self.world.up():
            if server.id in latest.configuration.members:
                assert server.state.dump() == state, f"{server} holds another state"
        for asked in self.asked:
            if isinstance(asked.reply, ErrorReply):
                assert asked.reply.code in ADMINISTRATIVE_ERRORS, asked.reply


def walk(seed: int, *, checks_invariants: bool) -> Walk:
    """Go the walk of `seed` to its end and return it."""
    log_bytes = LOG_BYTES[seed % len(LOG_BYTES)]
    walk = Walk(seed, checks_invariants=checks_invariants, log_bytes=log_bytes)
    for _ in range(WALK_TICKS):
        walk.step()
    walk.heal()
    walk.check()
    return walk


def count(walks: Sequence[Walk]) -> Counter[str]:
    """Return how often what happened."""
    counted: Counter[str] = Counter()
    for each in walks:
        counted["acknowledged"] += sum(client.acknowledged for client in each.clients)
        counted["reads"] += sum(client.reads for client in each.clients)
        leader = each.world.leader()
        counted["terms"] += leader.status.term
        for server in each.world.servers.values():
            counted.update(event[0] for event in server.journal)
        counted.update(record.result for record in leader.state.operations())
        counted["removed"] += sum(
            bool(server.disk.identity.removed_index) for server in each.world.servers.values()
        )
    return counted


GROUPS = 12


@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_happens_nothing_is_lost_or_done_twice_and_no_operation_is_stuck(
    seed: int, group: int
) -> None:
    walks = []
    for number in range(WALKS // GROUPS):
        walk_seed = (seed * GROUPS + group) * (WALKS // GROUPS) + number
        try:
            walks.append(walk(walk_seed, checks_invariants=number == 0))
        except AssertionError as error:
            raise AssertionError(f"the walk of seed {walk_seed}: {error}") from error
    # A walk in which nothing happens would prove nothing.
    counted = count(walks)
    assert counted["acknowledged"] > 300
    assert counted["reads"] > 30
    assert counted["done"] > 10
    assert counted["terms"] > 15
    assert counted["publish-snapshot"] > 30
    assert counted["install"] > 3
