"""The operator of a simulated cluster: changes it all the time, also when that is unwise.

It asks whoever leads, sometimes somebody else, and does not wait for one change to end before it
asks for the next. What it asks for is drawn when its time has come, from what the asked server
believes to be the configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from raftd.core.membership import Configuration
from raftd.core.types import server_name
from raftd.protocol import (
    AbortRequest,
    ChangeReply,
    ChangeRequest,
    DoneReply,
    ErrorReply,
    MemberChange,
    OpenSessionRequest,
    Reply,
    Request,
    TransferRequest,
)
from tests.simulation.machine import Machine
from tests.simulation.network import Network
from tests.simulation.profile import MILLISECOND, SERVERS_MAX
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


class Operator:
    """Asks for changes of the membership, for transfers and for aborts."""

    def __init__(self, world: World, network: Network) -> None:
        self._world = world
        self._network = network
        self._session = ""
        self._sessions = 0
        self._serial = 0

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
    ) -> None:
        """Ask for one change, in a session that is opened first if there is none."""
        if not self._session:
            self.open_session(machine)
            return
        self._serial += 1
        self._world.note("asks", kind=kind, changes=[str(change) for change in changes])
        self._ask(
            machine,
            ChangeRequest(
                session=self._session,
                serial=self._serial,
                kind=kind,
                changes=tuple(changes),
                author="simulation",
                at_index=at_index,
            ),
        )

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
                assert reply.code in REFUSALS, reply
                if reply.code == "session-expired":
                    self._session = ""
                self._world.count(f"requests of the operator answered: {reply.code}")
            elif isinstance(reply, ChangeReply) and reply.operation:
                self._world.count("changes begun")

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

    def _recycle(self, random: Random) -> None:
        """Empty the disk of a server that was removed for good, and use the machine again."""
        removed = [
            machine for machine in self._network.machines.values() if machine.exit == "removed"
        ]
        if removed:
            machine = random.choice(removed)
            machine.wipe()
            machine.start()


def drop(name: str) -> MemberChange:
    """Return the change that removes a server."""
    return MemberChange(role="remove", name=name)


def become(name: str, role: str) -> MemberChange:
    """Return the change of a member's role."""
    return MemberChange(role=role, name=name)
