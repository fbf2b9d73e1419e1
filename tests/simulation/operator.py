"""The operator of a simulated cluster: changes it all the time, also when that is unwise.

It asks whoever leads, sometimes somebody else, and does not wait for one change to end before it
asks for the next. What it asks for is drawn when its time has come, from what the asked server
believes to be the configuration.

It also drives rolling operations, from two terminals that do not know of each other: each has seen
the record at some time, and asks for what would come next by that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import attrs

from raftd.commands import ABORTED, DONE, FAILED, PENDING, RUNNING, SKIPPED, Operation, RollingStep
from raftd.core.membership import Configuration, ConfigurationAt
from raftd.core.types import server_name
from raftd.protocol import (
    AbortRequest,
    BeginRollingRequest,
    ChangeReply,
    ChangeRequest,
    DoneReply,
    ErrorReply,
    MemberChange,
    OpenSessionRequest,
    Reply,
    Request,
    RollingReply,
    TargetMember,
    TransferRequest,
    UpdateRollingRequest,
)
from tests.simulation.machine import Machine
from tests.simulation.network import Network
from tests.simulation.profile import MILLISECOND, ROLLING, SERVERS_MAX
from tests.simulation.world import World

ATTEMPTS = 3
"""A request is sent so often at most."""
PATIENCE_US = 1_500 * MILLISECOND
REFUSALS = {
    "refused",
    "unsafe",
    "not-leader",
    "unavailable",
    "unknown-outcome",
    "session-expired",
}
TERMINALS = 2
"""From so many, rolling operations are driven at once."""


@attrs.frozen
class Acknowledged:
    """A change of a rolling operation's record that was answered with success."""

    operation: str
    version: int
    """Of the record, after the change."""
    session: str
    serial: int


class Operator:
    """Asks for changes of the membership, for transfers and for aborts."""

    def __init__(self, world: World, network: Network) -> None:
        self._world = world
        self._network = network
        self._session = ""
        self._sessions = 0
        self._serial = 0
        self._seen: list[Operation | None] = [None] * TERMINALS
        """The record of a rolling operation as each terminal has seen it last."""
        self.acknowledged: list[Acknowledged] = []
        """What the cluster must not forget."""

    def believed_leader(self) -> Machine | None:
        """Return a machine that leads, the one with the highest term; None if there is none."""
        leaders = [machine for machine in self._network.up() if machine.leads]
        return max(leaders, key=lambda machine: machine.raft.current_term, default=None)

    def act(self, kind: str, random: Random) -> None:
        """Do one thing that has its turn."""
        up = self._network.up()
        if not up:
            return
        machine = self.believed_leader()
        if machine is None or random.random() < 0.1:
            machine = random.choice(up)
        latest = machine.raft.configuration
        if latest is None:
            return
        if kind == "transfer":
            target = random.choice(("", *sorted(latest.configuration.members)))
            self._ask(machine, TransferRequest(target=target))
        elif kind == "abort":
            running = machine.state.running_operation
            if running is not None:
                self.abort(machine, running.id, in_session=random.random() < 0.3)
        elif kind == "recycle":
            self._recycle(random)
        elif kind == "apply":
            self._apply(machine, latest, random)
        elif kind == "readdress":
            self.readdress(machine, latest, random.sample(self._machines(), 2))
        elif kind == ROLLING:
            self._roll(machine, latest.configuration, random)
        else:
            changes = self._changes(kind, latest.configuration, random)
            if changes:
                # Often only if nobody has changed anything meanwhile.
                at_index = latest.index if random.random() < 0.3 else None
                self.change(machine, kind, changes, at_index)

    def transfer(self, target: Machine) -> None:
        """Ask for a hand-over of leadership to a server."""
        leader = self.believed_leader()
        if leader is not None:
            self._ask(leader, TransferRequest(target=target.id))

    def abort(self, machine: Machine, operation: str, *, in_session: bool = False) -> None:
        """Ask for an abort of an operation; since it is named, no session is needed."""
        session, serial = "", 0
        if in_session and self._session:
            self._serial += 1
            session, serial = self._session, self._serial
        self._ask(
            machine,
            AbortRequest(session=session, serial=serial, operation=operation, author="simulation"),
        )

    def change(
        self,
        machine: Machine,
        kind: str,
        changes: list[MemberChange],
        at_index: int | None = None,
        *,
        parent: str = "",
        target: tuple[TargetMember, ...] = (),
    ) -> None:
        """Ask for one change, in a session that is opened first if there is none."""
        asked = [str(change) for change in (*changes, *target)]
        self._world.note("asks", kind=kind, changes=asked, parent=parent)
        self._ask_in_session(
            machine,
            lambda session, serial: ChangeRequest(
                session=session,
                serial=serial,
                kind=kind,
                changes=tuple(changes),
                author="simulation",
                at_index=at_index,
                parent=parent,
                target=target,
            ),
        )

    def _ask_in_session(self, machine: Machine, build: Callable[[str, int], Request]) -> None:
        """Ask under the next serial; without a session, open one instead."""
        if not self._session:
            self.open_session(machine)
            return
        self._serial += 1
        self._ask(machine, build(self._session, self._serial))

    def open_session(self, machine: Machine) -> None:
        """Ask for a session to make changes in."""
        self._sessions += 1
        session = f"operator.{self._sessions}"

        def opened(reply: Reply) -> None:
            if isinstance(reply, DoneReply):
                self._session, self._serial = session, 0

        self._network.ask("operator", machine, OpenSessionRequest(session=session), opened)

    @property
    def has_session(self) -> bool:
        """Whether a change can be asked for."""
        return bool(self._session)

    def _ask(self, machine: Machine, request: Request, attempts: int = ATTEMPTS) -> None:
        """Ask, and after a silence ask again, whoever leads then, under the same serial."""
        heard: list[Reply] = []

        def silence() -> None:
            if not heard and attempts > 1:
                again = self.believed_leader() or machine
                self._world.count("requests of the operator sent again")
                self._ask(again, request, attempts - 1)

        def answered(reply: Reply) -> None:
            heard.append(reply)
            if isinstance(reply, ErrorReply):
                assert reply.code in REFUSALS or _may_be_invalid(request), reply
                if reply.code == "session-expired":
                    self._session = ""
                self._world.count(f"requests of the operator answered: {reply.code}")
            elif isinstance(reply, ChangeReply) and reply.operation:
                self._world.count("changes begun")
                if isinstance(request, ChangeRequest) and request.kind in ("apply", "readdress"):
                    self._world.count(f"changes begun: {request.kind}")
                    _compare_with_target(request, reply)
            elif isinstance(reply, RollingReply):
                self._note_rolling(request, reply)

        self._network.ask("operator", machine, request, answered)
        self._world.after(PATIENCE_US, silence)

    # --- what it asks for ---

    def _changes(
        self, kind: str, configuration: Configuration, random: Random
    ) -> list[MemberChange]:
        members, voters, learners = (
            sorted({server_name(server) for server in servers})
            for servers in (configuration.members, configuration.voters, configuration.learners)
        )
        strangers = [
            machine.name
            for machine in self._network.machines.values()
            if machine.name not in members and machine.exit != "removed"
        ]
        random.shuffle(strangers)
        makers: dict[str, Callable[[], list[MemberChange]]] = {
            "add": lambda: [self.new(name) for name in strangers[: random.randint(1, 3)]],
            "add-learner": lambda: [self.new(name, "learner") for name in strangers[:1]],
            "remove": lambda: [
                drop(name)
                for name in random.sample(members, random.randint(1, min(2, len(members))))
            ],
            "replace": lambda: (
                [drop(random.choice(voters)), self.new(strangers[0])] if strangers else []
            ),
            "replace-all": lambda: self._replace_all(voters, strangers),
            "replace-lost": lambda: self.replace_lost(configuration),
            "promote": lambda: [become(name, "voter") for name in learners],
            "demote": lambda: [become(random.choice(voters), "learner")],
        }
        changes = makers[kind]()
        added = sum(1 for change in changes if change.role != "remove" and change.address)
        removed = sum(1 for change in changes if change.role == "remove")
        return changes if len(members) + added - removed <= SERVERS_MAX else []

    def _replace_all(self, voters: list[str], strangers: list[str]) -> list[MemberChange]:
        if not strangers:
            return []
        return [drop(name) for name in voters] + [self.new(name) for name in strangers]

    def replace_lost(self, configuration: Configuration) -> list[MemberChange]:
        """Return the change that brings in again the members whose disk was replaced."""
        lost = [
            machine.name
            for machine in self._network.machines.values()
            if machine.node is not None
            and machine.id not in configuration.members
            and machine.name in {server_name(server) for server in configuration.members}
        ]
        roles = {
            server_name(server): "learner" if server in configuration.learners else "voter"
            for server in sorted(configuration.members)
        }
        return [drop(name) for name in lost] + [self.new(name, roles[name]) for name in lost]

    def new(self, name: str, role: str = "voter") -> MemberChange:
        """Return the change that brings in a server."""
        machines = self._network.machines.values()
        address = next(machine.address for machine in machines if machine.name == name)
        return MemberChange(role=role, name=name, address=address)

    # --- whole clusters ---

    def _machines(self) -> list[Machine]:
        return list(self._network.machines.values())

    def _apply(self, machine: Machine, latest: ConfigurationAt, random: Random) -> None:
        """Ask for a cluster as it is to be: most of what there is, and perhaps somebody else."""
        configuration = latest.configuration
        members = {server_name(server): server for server in sorted(configuration.members)}
        target = []
        for other in self._machines():
            member = members.get(other.name)
            if random.random() < (0.2 if member else 0.7):
                continue
            is_voter = member in configuration.voters if member else True
            if random.random() < 0.2:
                is_voter = not is_voter
            role = "voter" if is_voter else "learner"
            address = other.address
            if member and random.random() < 0.3:
                # The file is older than the move.
                address = latest.entry.addresses.get(member, address)
            target.append(TargetMember(name=other.name, role=role, address=address))
        random.shuffle(target)
        target = target[:SERVERS_MAX]
        if target and not any(member.role == "voter" for member in target):
            target[0] = attrs.evolve(target[0], role="voter")
        if target:
            at_index = latest.index if random.random() < 0.3 else None
            self.change(machine, "apply", [], at_index, target=tuple(target))

    def misplaced(self, latest: ConfigurationAt) -> list[Machine]:
        """Return the machines of members that a configuration has elsewhere than they are."""
        addresses = latest.entry.addresses
        return [m for m in self._machines() if addresses.get(m.id, m.address) != m.address]

    def corrections(
        self, latest: ConfigurationAt, others: Sequence[Machine] = ()
    ) -> list[MemberChange]:
        """Return the changes that lead to where members are, and `others` as far as they are."""
        names = {server_name(server) for server in latest.configuration.members}
        return [
            MemberChange(role="readdress", name=m.name, address=m.address)
            for m in dict.fromkeys((*self.misplaced(latest), *others))
            if m.name in names
        ]

    def readdress(
        self, machine: Machine, latest: ConfigurationAt, others: Sequence[Machine] = ()
    ) -> None:
        """Ask for the true addresses of all members that have moved, and for those of others."""
        changes = self.corrections(latest, others)
        if changes:
            self.change(machine, "readdress", changes)

    # --- rolling operations ---

    def _roll(self, machine: Machine, configuration: Configuration, random: Random) -> None:
        """Begin a rolling operation, or do something about the one that runs."""
        rolling = machine.state.rolling_operation
        draw = random.random()
        if rolling is None and draw < 0.8:
            self._begin_rolling(machine, configuration, random)
        elif draw < 0.75:
            self._drive_rolling(machine, random)
        elif draw < 0.97 or rolling is None:
            self._change_as_step(machine, configuration, random)
        else:
            self.abort(machine, rolling.id)

    def _begin_rolling(
        self, machine: Machine, configuration: Configuration, random: Random
    ) -> None:
        names = sorted({server_name(server) for server in configuration.members})
        random.shuffle(names)
        kind = random.choice(("rolling-restart", "rolling-replace"))
        steps = tuple(
            RollingStep(name=name, replacement="" if kind == "rolling-restart" else f"{name}=x:1")
            for name in names[:3]
        )
        self._ask_in_session(
            machine,
            lambda session, serial: BeginRollingRequest(
                session=session,
                serial=serial,
                kind=kind,
                author="terminal 0",
                steps=steps,
                command="true" if kind == "rolling-restart" else "",
            ),
        )

    def _drive_rolling(self, machine: Machine, random: Random) -> None:
        """Do what would come next, by a record that a terminal sees now or has seen before."""
        terminal = random.randrange(TERMINALS)
        if random.random() < 0.8 or self._seen[terminal] is None:
            self._seen[terminal] = machine.state.rolling_operation
        seen = self._seen[terminal]
        if seen is None:
            return
        update = _next_update(seen, random)
        if random.random() < 0.08:
            update = attrs.evolve(update, version=update.version + random.choice((-1, 1)))
        if random.random() < 0.08:
            update = attrs.evolve(update, position=random.choice((-1, 0, 1, 9)))
        self._update_rolling(machine, attrs.evolve(update, author=f"terminal {terminal}"))

    def finish_rolling(self, machine: Machine, random: Random) -> None:
        """Bring the rolling operation that runs nearer to its end, or abort it."""
        seen = machine.state.rolling_operation
        assert seen is not None
        if random.random() < 0.2:
            self.abort(machine, seen.id)
        else:
            self._update_rolling(machine, _next_update(seen, None))

    def _update_rolling(self, machine: Machine, update: UpdateRollingRequest) -> None:
        self._ask_in_session(
            machine, lambda session, serial: attrs.evolve(update, session=session, serial=serial)
        )

    def _note_rolling(self, request: Request, reply: RollingReply) -> None:
        assert isinstance(request, BeginRollingRequest | UpdateRollingRequest)
        what = request.action if isinstance(request, UpdateRollingRequest) else "begin"
        self._world.count(f"rolling operations: {what}")
        self.acknowledged.append(
            Acknowledged(reply.operation, reply.version, request.session, request.serial)
        )

    def _change_as_step(
        self, machine: Machine, configuration: Configuration, random: Random
    ) -> None:
        """Ask for a change as a step of the rolling operation, or of one that is none."""
        rolling = machine.state.rolling_operation
        parent = rolling.id if rolling is not None and random.random() < 0.8 else "op-1"
        kind = random.choice(("add", "replace", "remove", "promote", "demote", "replace-lost"))
        changes = self._changes(kind, configuration, random)
        if changes:
            self.change(machine, kind, changes, parent=parent)

    def _recycle(self, random: Random) -> None:
        """Empty the disk of a server that was removed for good, and use the machine again."""
        removed = [
            machine for machine in self._network.machines.values() if machine.exit == "removed"
        ]
        if removed:
            machine = random.choice(removed)
            machine.wipe()
            machine.start()


def _next_update(seen: Operation, random: Random | None) -> UpdateRollingRequest:
    """Return what would come next for a record; without `random`, what leads to its end."""
    record = seen.rolling
    assert record is not None
    update = UpdateRollingRequest(
        session="",
        serial=0,
        operation=seen.id,
        action="end",
        author="terminal 0",
        version=record.version,
        outcome=DONE,
    )
    draw = 1.0 if random is None else random.random()
    # Sometimes what the record does not allow: a step while it is paused, or a second one.
    if record.paused_by and draw > 0.3:
        return attrs.evolve(update, action="resume", outcome="")
    if draw < 0.1:
        return attrs.evolve(update, action="pause", outcome="")
    if random is not None and random.random() < 0.05:
        return attrs.evolve(update, outcome=random.choice((DONE, FAILED, ABORTED)))
    states = [step.state for step in record.steps]
    order = (RUNNING, FAILED, PENDING) if draw > 0.2 else (PENDING, RUNNING, FAILED)
    for state in order:
        if state in states:
            position = states.index(state)
            following = RUNNING if state == PENDING else DONE
            if random is None:
                following = SKIPPED
            elif random.random() < 0.2:
                following = random.choice((FAILED, SKIPPED))
            step = attrs.evolve(record.steps[position], state=following, note="simulated")
            return attrs.evolve(update, action="step", position=position, step=step, outcome="")
    return update


def _compare_with_target(request: ChangeRequest, reply: ChangeReply) -> None:
    """See that what was begun leads to the cluster that was asked for.

    Raises:
        AssertionError: it leads elsewhere.
    """
    if not request.target or reply.plan is None:
        return
    after = reply.plan.after
    for role, servers in (("voter", after.voters), ("learner", after.learners)):
        asked = sorted(member.name for member in request.target if member.role == role)
        found = sorted(server_name(server) for server in servers)
        assert found == asked, f"the {role}s are to be {asked}, and the plan leads to {found}"


def _may_be_invalid(request: Request) -> bool:
    """Return whether the older release takes a request for garbage, or a driver asks anything."""
    if isinstance(request, ChangeRequest):
        return request.kind in ("apply", "readdress")
    return isinstance(request, BeginRollingRequest | UpdateRollingRequest)


def drop(name: str) -> MemberChange:
    """Return the change that removes a server."""
    return MemberChange(role="remove", name=name)


def become(name: str, role: str) -> MemberChange:
    """Return the change of a member's role."""
    return MemberChange(role=role, name=name)
