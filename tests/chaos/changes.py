"""The operator: changes the cluster by `raftctl` all the time, whatever else happens to it.

At least three voters stay, and one disk at a time is lost: what is beyond that may lose writes by
design and would prove nothing. Changes that take votes away name the configuration that they were
decided for, so that two of them at once do not go further than each of them meant to.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

import attrs

from raftctl.client import Connection, ConnectionProblem, Deadline
from raftd.core.types import server_name
from raftd.protocol import (
    ConfigurationView,
    OperationsReply,
    OperationsRequest,
    OperationView,
)
from tests.chaos.bed import ChaosCluster, Command, Observer, View, names_of
from tests.chaos.faults import Faults, Say
from tests.chaos.network import ProxyNetwork, Trap
from tests.chaos.schedule import (
    ABORT,
    ADD,
    DEMOTE,
    LEADER,
    PHASE,
    PROMOTE,
    REMOVE,
    REPLACE,
    REPLACE_SEVERAL,
    TRANSFER,
    WIPE,
    Action,
)

VOTERS_MIN = 3
PATIENCE_S = 6.0
"""How long an action waits for a state of the cluster in which it makes sense."""
TRAP_S = 8.0
"""For the moment that a trap waits for; the change may have been refused."""
COMMAND_TIMEOUT = "6s"
"""Of raftctl, without progress."""
COMMAND_S_MAX = 120.0
"""After which a raftctl hangs."""
RETRY_S = 2.0
"""Between two attempts to replace a server that lost its disk."""
EXITS = (0, 1, 3, 4, 5, 6)
"""All that a raftctl with correct arguments may end with."""
TICK_S = 0.005
"""Between two looks at an operation whose phases pass within milliseconds."""
LOOK_TIMEOUT_MS = 300.0


class PhaseWatch:
    """Waits for a phase of the next change by asking the leader; where messages cannot be seen."""

    def __init__(self, address: str, phase: str) -> None:
        self.caught = threading.Event()
        self.leader = ""
        self._address = address
        self._phase = phase
        self._stop_event = threading.Event()
        self._thread = threading.Thread(target=self._run, name="phase watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop_event.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            connection = Connection.open(self._address, Deadline.after_ms(LOOK_TIMEOUT_MS))
        except ConnectionProblem:
            return
        try:
            while not self._stop_event.wait(TICK_S) and not self.caught.is_set():
                deadline = Deadline.after_ms(LOOK_TIMEOUT_MS)
                reply = connection.ask(OperationsRequest(), deadline)
                assert isinstance(reply, OperationsReply)
                if reply.operations and self._is_there(reply.operations[-1]):
                    self.leader = server_name(connection.server)
                    self.caught.set()
        except ConnectionProblem:
            return
        finally:
            connection.close()

    def _is_there(self, view: OperationView) -> bool:
        if not view.record.running:
            return False
        order = ("joining", "catching-up", "committing-joint", "committing-final")
        wanted = {
            "begin": 0,
            "learners": 1,
            "joint": 2,
            "joint-committed": 3,
            "final": 3,
            "final-committed": 3,
        }
        return view.step in order and order.index(view.step) >= wanted[self._phase]


@attrs.define(kw_only=True, eq=False)
class _Running:
    """A raftctl that was started."""

    label: str
    command: Command
    names: tuple[str, ...]
    """Servers that it brings in; nobody else may have them meanwhile."""


@attrs.define(kw_only=True, eq=False)
class _Pending:
    """An action that waits for its moment."""

    action: Action
    until_s: float
    from_s: float = 0.0


class Operator:
    """Starts raftctl, watches what becomes of it, and kills leaders at chosen moments.

    Main thread only.
    """

    def __init__(self, cluster: ChaosCluster, observer: Observer, faults: Faults, say: Say) -> None:
        self.counts: Counter[str] = Counter()
        """Commands that were started, by kind."""
        self.skipped: Counter[str] = Counter()
        """Actions for which the moment did not come, by kind."""
        self.exits: Counter[int] = Counter()
        """How the commands ended."""
        self.caught: Counter[str] = Counter()
        """Leaders that were killed, by the phase."""
        self.problems: list[str] = []
        self.wiped: set[str] = set()
        """Members that lost their disk and are not replaced yet."""
        self._cluster = cluster
        self._observer = observer
        self._faults = faults
        self._say = say
        self._pending: list[_Pending] = []
        self._running: list[_Running] = []
        self._trap: Trap | PhaseWatch | None = None
        self._trapped: Action | None = None
        self._trap_until_s = 0.0
        self._replace_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no command runs, and no lost disk waits to be replaced."""
        return not self._running and not self.wiped

    def begin(self, action: Action) -> None:
        """Do it as soon as the cluster is in a state for it, or skip it."""
        self._pending.append(_Pending(action=action, until_s=time.monotonic() + PATIENCE_S))

    def tick(self) -> None:
        """Go on with everything. Called all the time."""
        for running in list(self._running):
            self._look_at(running)
        self._look_at_trap()
        self._look_at_wiped()
        now_s = time.monotonic()
        for pending in list(self._pending):
            if pending.from_s > now_s:
                continue
            if self._try(pending.action):
                self._pending.remove(pending)
            elif now_s >= pending.until_s:
                self._pending.remove(pending)
                self.skipped[pending.action.kind] += 1
                self._say(f"{pending.action.kind}: skipped, it makes no sense now")

    def calm_down(self) -> None:
        """Start nothing new but what has to be repaired."""
        self._pending.clear()
        self._clear_trap()

    # --- what a command is told ---

    def _try(self, action: Action) -> bool:
        """Start what `action` says; return False if the cluster is in no state for it."""
        if action.kind == ABORT and action.phase:
            self._start(ABORT, ["operation", "abort", "--reason", "chaos"])
            return True
        view = self._observer.view()
        configuration = view.configuration
        if configuration is None or configuration.joint:
            return False
        if action.kind == WIPE:
            return self._wipe(action, view)
        if action.kind == TRANSFER:
            voters = names_of(configuration.voters)
            target = [] if action.target == LEADER else [voters[action.choice % len(voters)]]
            self._start(TRANSFER, ["transfer", *target])
            return True
        if action.kind == PHASE:
            return self._kill_in_phase(action, view)
        return self._change(action, configuration, view)

    def _change(self, action: Action, configuration: ConfigurationView, view: View) -> bool:
        kind, count = action.kind, action.count
        voters, learners = names_of(configuration.voters), names_of(configuration.learners)
        removable = max(0, len(voters) - VOTERS_MIN)
        spares = self._spares(configuration)[:count]
        at_index = ["--at-index", str(configuration.index)]
        if kind == ADD and spares:
            role = ["--learner"] if action.choice % 3 == 0 else []
            self._start(ADD, ["add", *self._addressed(spares), *role], spares)
        elif kind == PROMOTE and learners:
            self._start(PROMOTE, ["promote", *self._picked(learners, action)])
        elif kind == PROMOTE and spares:
            # The next one has somebody to promote.
            self._start(ADD, ["add", *self._addressed(spares[:1]), "--learner"], spares[:1])
        elif kind == DEMOTE and removable:
            victim = self._picked(voters, action, view)[:1]
            self._start(DEMOTE, ["demote", *victim, *at_index])
        elif (
            kind in (REPLACE, REPLACE_SEVERAL, ABORT, REMOVE, DEMOTE)
            and spares
            and (kind != REMOVE or not removable)
        ):
            self._replace(action, voters, spares, view)
        elif kind != PROMOTE and (removable or learners):
            # Where there is no spare, one that is removed becomes one.
            victims = self._picked(voters, action, view)[:removable] or learners[:1]
            self._start(REMOVE, ["remove", *victims, *at_index])
        else:
            return False
        return True

    def _replace(self, action: Action, voters: list[str], spares: list[str], view: View) -> None:
        # A single one where only one disk changes hands; as many as there are spares otherwise.
        count = 1 if action.kind in (REPLACE, PHASE) else len(spares)
        victims = self._picked(voters, attrs.evolve(action, count=count), view)
        pairs = zip(victims, self._addressed(spares), strict=False)
        words = [word for pair in pairs for word in pair]
        kind = REPLACE if count == 1 else REPLACE_SEVERAL
        self._start(kind, ["replace", *words], spares[:count])
        if action.kind == ABORT:
            now_s = time.monotonic()
            self._pending.append(
                _Pending(
                    action=attrs.evolve(action, phase="any"),
                    from_s=now_s + action.for_ms / 1000,
                    until_s=now_s + PATIENCE_S,
                )
            )

    def _picked(self, names: list[str], action: Action, view: View | None = None) -> list[str]:
        """Return `action.count` of `names`, beginning with the leader if that is the target."""
        start = action.choice % len(names)
        turned = names[start:] + names[:start]
        if view is not None and action.target == LEADER and view.leader_name in turned:
            turned.remove(view.leader_name)
            turned.insert(0, view.leader_name)
        return turned[: action.count]

    def _spares(self, configuration: ConfigurationView) -> list[str]:
        members = names_of(configuration.addresses)
        taken = {name for running in self._running for name in running.names}
        return [
            server.name
            for server in self._cluster.servers.values()
            if server.running and not server.is_paused and server.up_again_s is None
            if server.name not in members and server.name not in taken
        ]

    def _addressed(self, names: list[str]) -> list[str]:
        return [f"{name}={self._cluster[name].address}" for name in names]

    # --- a lost disk ---

    def _wipe(self, action: Action, view: View) -> bool:
        configuration = view.configuration
        if configuration is None or not view.is_stable or self._running or self.wiped:
            return False
        voters = names_of(configuration.voters)
        if len(voters) < VOTERS_MIN:
            return False
        name = self._picked(voters, attrs.evolve(action, count=1), view)[0]
        server = self._cluster[name]
        if not server.running or server.is_paused:
            return False
        self.wiped.add(name)
        self.counts[WIPE] += 1
        self._say(f"{WIPE}: {name} loses its disk, and starts with an empty one")
        server.kill()
        server.wipe()
        server.start()
        self._replace_s = time.monotonic() + RETRY_S
        return True

    def _look_at_wiped(self) -> None:
        """Replace each server that lost its disk by itself, again and again until it is done."""
        if not self.wiped:
            return
        view = self._observer.view()
        configuration = view.configuration
        for name in list(self.wiped):
            status = view.statuses.get(name)
            if status is None or configuration is None or time.monotonic() < self._replace_s:
                return
            members = configuration.addresses
            if view.is_stable and (status.server in members or name not in names_of(members)):
                self.wiped.discard(name)
                self._say(f"{name} is itself again" if status.server in members else f"{name} left")
            elif any(name in running.names for running in self._running) or not view.is_stable:
                continue
            else:
                self._replace_s = time.monotonic() + RETRY_S
                self._start(REPLACE, ["replace", name, *self._addressed([name])], [name])

    # --- the leader's death at a moment ---

    def _kill_in_phase(self, action: Action, view: View) -> bool:
        configuration = view.configuration
        assert configuration is not None
        voters, spares = names_of(configuration.voters), self._spares(configuration)[:1]
        possible = spares or (len(voters) > VOTERS_MIN and action.phase != "learners")
        if self._trap is not None or not possible or not view.is_stable:
            return False
        network = self._cluster.network
        if isinstance(network, ProxyNetwork):
            self._trap = Trap(phase=action.phase, reach=action.reach, floor=view.last_index)
            network.set_trap(self._trap)
        else:
            leader = self._cluster[view.leader_name]
            self._trap = PhaseWatch(leader.listen, action.phase)
        self._trapped = action
        self._trap_until_s = time.monotonic() + TRAP_S
        self._say(f"{PHASE}: the leader dies at: {action.phase} (reaching {action.reach})")
        if spares:
            self._replace(action, voters, spares, view)
        else:
            victim = self._picked(voters, attrs.evolve(action, count=1), view)
            self._start(REMOVE, ["remove", *victim, "--at-index", str(configuration.index)])
        return True

    def _look_at_trap(self) -> None:
        if self._trap is None or self._trapped is None:
            return
        if self._trap.caught.is_set():
            action, leader = self._trapped, self._cluster[self._trap.leader]
            if leader.running and leader.up_again_s is None:
                self._faults.crash(leader, action.for_ms)
                self.caught[action.phase] += 1
                self._say(
                    f"{PHASE}: {leader.name} (leader) killed at: {action.phase}, "
                    f"back after {action.for_ms} ms"
                )
            self._clear_trap()
        elif time.monotonic() >= self._trap_until_s:
            self._say(f"{PHASE}: the moment has not come: {self._trapped.phase}")
            self.skipped[PHASE] += 1
            self._clear_trap()

    def _clear_trap(self) -> None:
        if isinstance(self._trap, PhaseWatch):
            self._trap.stop()
        elif self._trap is not None:
            network = self._cluster.network
            assert isinstance(network, ProxyNetwork)
            network.clear_trap()
        self._trap = self._trapped = None

    # --- commands ---

    def _start(self, kind: str, words: list[str], names: list[str] | None = None) -> None:
        self.counts[kind] += 1
        command = self._cluster.start_raftctl(*words, "-y", "--timeout", COMMAND_TIMEOUT)
        self._running.append(
            _Running(label=" ".join(words), command=command, names=tuple(names or ()))
        )
        self._say(f"raftctl {' '.join(words)}")

    def _look_at(self, running: _Running) -> None:
        command = running.command
        code = command.code
        if code is None:
            if time.monotonic() - command.started_s < COMMAND_S_MAX:
                return
            self.problems.append(f"raftctl {running.label} hangs; see {command.path.name}")
            command.process.kill()
            code = command.process.wait()
        self._running.remove(running)
        self.exits[code] += 1
        stderr = command.stderr
        if code not in EXITS or "Traceback" in stderr:
            self.problems.append(
                f"raftctl {running.label}: exit code {code}; see {command.path.name}"
            )
        why = [line for line in stderr.splitlines() if line.startswith(("error:", "cause:"))]
        self._say(f"raftctl {running.label} -> {code}" + (f"  {'; '.join(why)}" if code else ""))


def removed_but_alive(cluster: ChaosCluster, view: View, removed: set[str]) -> list[str]:
    """Return the servers that still run although a finished change has removed them."""
    return sorted(
        name
        for name, status in view.statuses.items()
        if status.server in removed and cluster[name].running
    )
