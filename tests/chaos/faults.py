"""Processes that die and freeze, links that fail, and what has to come back afterwards."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.chaos.bed import EXIT_REMOVED, ChaosCluster, ChaosServer, Observer, names_of
from tests.chaos.schedule import (
    DEAF,
    HALVES,
    ISOLATE,
    KILL,
    KILL_ALL,
    LEADER,
    MUTE,
    PAUSE,
    STOP,
    Action,
)

Say = Callable[[str], None]

NEW_DISK_S = 0.5
"""Between the exit of a removed server and its return as a blank one."""
EXITS_WHEN_ENDED = (0, EXIT_REMOVED, -signal.SIGKILL, -signal.SIGTERM)
"""Of a server that was killed or asked to stop, perhaps before it could even listen to that."""


class Faults:
    """Does to processes and links what a schedule says, and undoes it in time. Main thread only."""

    def __init__(self, cluster: ChaosCluster, observer: Observer, say: Say) -> None:
        self.counts: Counter[str] = Counter()
        """Faults that were injected, by kind."""
        self.problems: list[str] = []
        """Servers that ended although nobody ended them."""
        self._cluster = cluster
        self._observer = observer
        self._say = say
        self._heal_s: float | None = None

    def begin(self, action: Action) -> None:
        """Do it, or say why it cannot be done."""
        if action.kind == KILL_ALL:
            for server in self._upright():
                self._take_down(server, action.for_ms)
            self._done(action, f"all servers killed, back after {action.for_ms} ms")
        elif action.kind in (KILL, PAUSE, STOP):
            self._begin_process_fault(action)
        else:
            self._begin_network_fault(action)

    def tick(self) -> None:
        """Undo what is due, and look after servers that have ended. Called all the time."""
        now_s = time.monotonic()
        if self._heal_s is not None and now_s >= self._heal_s:
            self._heal_s = None
            self._cluster.network.heal()
            self._say("healed the network")
        for server in self._cluster.servers.values():
            if not server.running and not server.is_down_on_purpose:
                self._ended_by_itself(server)
            if server.up_again_s is not None and now_s >= server.up_again_s:
                self._bring_back(server)

    def undo_all(self) -> None:
        """Heal the network and bring everybody back now."""
        self._heal_s = None
        self._cluster.network.heal()
        for server in self._cluster.servers.values():
            if server.up_again_s is not None:
                self._bring_back(server)

    def crash(self, server: ChaosServer, down_ms: int) -> None:
        """Kill the leader in the middle of a change."""
        self._take_down(server, down_ms)

    # --- processes ---

    def _upright(self) -> list[ChaosServer]:
        return [
            server
            for server in self._cluster.servers.values()
            if server.running and not server.is_paused and server.up_again_s is None
        ]

    def _victim(self, action: Action) -> str:
        """Return whom the action hits: the leader, or one of the members, else of all servers."""
        view = self._observer.view()
        upright = sorted(server.name for server in self._upright())
        if action.target == LEADER and view.leader_name in upright:
            return view.leader_name
        configuration = view.configuration
        members = names_of(configuration.addresses) if configuration is not None else []
        candidates = [name for name in upright if name in members] or upright
        return candidates[action.choice % len(candidates)] if candidates else ""

    def _begin_process_fault(self, action: Action) -> None:
        name = self._victim(action)
        if not name:
            self._say(f"{action.kind}: nobody is left for it")
            return
        server = self._cluster[name]
        if action.kind == PAUSE:
            server.pause()
            server.up_again_s = time.monotonic() + action.for_ms / 1000
            self._done(action, f"{self._who(name)} frozen for {action.for_ms} ms")
        elif action.kind == STOP:
            server.is_down_on_purpose = True
            server.terminate()
            server.up_again_s = time.monotonic() + action.for_ms / 1000
            self._done(action, f"{self._who(name)} asked to stop, back after {action.for_ms} ms")
        else:
            who = self._who(name)
            self._take_down(server, action.for_ms)
            self._done(action, f"{who} killed, back after {action.for_ms} ms")

    def _take_down(self, server: ChaosServer, down_ms: int) -> None:
        server.kill()
        server.up_again_s = time.monotonic() + down_ms / 1000

    def _bring_back(self, server: ChaosServer) -> None:
        if server.is_paused:
            server.up_again_s = None
            server.resume()
            self._say(f"{server.name} goes on")
            return
        if server.running:
            # Its time to leave in good order is over.
            server.kill()
        code = server.process.returncode if server.process is not None else 0
        if code not in EXITS_WHEN_ENDED:
            self.problems.append(f"{server.name} ended with exit code {code}")
        if code == EXIT_REMOVED:
            server.wipe()
            self._say(f"{server.name} was removed and comes back with an empty disk")
        else:
            self._say(f"{server.name} starts again")
        server.start()

    def _ended_by_itself(self, server: ChaosServer) -> None:
        assert server.process is not None
        code = server.process.returncode
        server.is_down_on_purpose = True
        if code == EXIT_REMOVED:
            # Its identity is spent; as a new server it may come back under the same name.
            server.up_again_s = time.monotonic() + NEW_DISK_S
            return
        self.problems.append(f"{server.name} ended by itself with exit code {code}")
        self._say(f"{server.name} ENDED BY ITSELF with exit code {code}")

    # --- links ---

    def _begin_network_fault(self, action: Action) -> None:
        network = self._cluster.network
        # The one before may last longer than planned on a machine that is busy.
        network.heal()
        self._heal_s = time.monotonic() + action.for_ms / 1000
        victim = self._victim(action) or min(self._cluster.servers)
        others = sorted(name for name in self._cluster.servers if name != victim)
        lasting = f"for {action.for_ms} ms" + (", clients too" if action.clients else "")
        who = self._who(victim)
        if action.kind == ISOLATE:
            network.isolate(victim, others, clients=action.clients)
            self._done(action, f"{who} cut off {lasting}")
        elif action.kind == DEAF:
            network.deafen(victim, others, clients=action.clients)
            self._done(action, f"nothing reaches {who} {lasting}")
        elif action.kind == MUTE:
            network.silence(victim, others, clients=action.clients)
            self._done(action, f"nothing from {who} arrives {lasting}")
        else:
            assert action.kind == HALVES
            one, other = self._halves(victim, others, action.choice)
            network.halves(one, other, clients=action.clients)
            self._done(action, f"{' '.join(one)} | {' '.join(other)} {lasting}")

    def _halves(
        self, victim: str, others: Sequence[str], choice: int
    ) -> tuple[list[str], list[str]]:
        """Return two sides; `victim` is on the first one, which is the minority of the voters."""
        configuration = self._observer.view().configuration
        voters = names_of(configuration.voters) if configuration is not None else []
        rng = random.Random(choice)
        allies = rng.sample(others, len(others))
        room = (len(voters) - 1) // 2 - (victim in voters)
        one = [victim]
        for name in allies:
            if name not in voters:
                if rng.random() < 0.5:
                    one.append(name)
            elif room > 0:
                room -= 1
                one.append(name)
        return sorted(one), sorted(name for name in others if name not in one)

    def _who(self, name: str) -> str:
        return f"{name} (leader)" if name == self._observer.view().leader_name else name

    def _done(self, action: Action, text: str) -> None:
        self.counts[action.kind] += 1
        self._say(f"{action.kind}: {text}")
