"""Whether this server lives, and whether it is ready for clients, check by check.

Alive is a server whose driver takes turns: one that is not should be restarted. Ready is one that
clients may be sent to; one that is not should be left alone until it is. Neither says anything
about the others: a server without a leader is alive, and not ready.

The form is that of Kubernetes and etcd: `ok`, or with `?verbose` and in every failure a line for
each check, `[+]leader ok` or `[-]leader failed: why`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import trio

from raftd.config_values import format_duration
from raftd.core.leader import Leader
from raftd.core.types import Index, server_name
from raftd.core.view import leader_contact_age
from raftd.node import Node
from raftd.surroundings import Settings

LOOP_SECONDS_MAX = 5.0
"""A driver that was woken takes a turn within this, or it takes none any more. Turns take
milliseconds, unless the disk hangs: then nothing here can answer either."""
LOOK_SECONDS = 0.005
"""Between two looks whether it has."""


@attrs.frozen
class Check:
    """One condition, and why it does not hold."""

    name: str
    problem: str = ""
    """In words; empty if it holds."""

    def __str__(self) -> str:
        if self.problem:
            return f"[-]{self.name} failed: {self.problem}"
        return f"[+]{self.name} ok"


class Health:
    """Looks at one server."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        *,
        wake: Callable[[], None],
        is_draining: Callable[[], bool],
    ) -> None:
        """Look at nothing yet.

        Args:
            node: the server.
            settings: its time-outs.
            wake: makes its driver take a turn.
            is_draining: whether it is about to stop.
        """
        self._node = node
        self._settings = settings
        self._wake = wake
        self._is_draining = is_draining
        self._wanted_index: Index | None = None
        """What was committed when this process first heard of it; None before."""
        self._has_caught_up = False

    async def turned(self) -> bool:
        """Have the driver take a turn, in which it hears what there is; return whether it did."""
        telemetry = self._node.telemetry
        turns = telemetry.turns
        self._wake()
        for _ in range(math.ceil(LOOP_SECONDS_MAX / LOOK_SECONDS)):
            await trio.sleep(LOOK_SECONDS)
            if telemetry.turns != turns:
                return True
        return False

    async def live(self) -> list[Check]:
        """Return the checks of /livez."""
        return [await self._loop()]

    async def ready(self) -> list[Check]:
        """Return the checks of /readyz."""
        return [await self._loop(), *self.readiness()]

    async def _loop(self) -> Check:
        if await self.turned():
            return Check("loop")
        return Check("loop", f"the driver has taken no turn for {LOOP_SECONDS_MAX:.0f} s")

    def readiness(self) -> list[Check]:
        """Return what /readyz asks of a driver that takes its turns."""
        return [
            Check("stopping", "it is told to stop, and drains" if self._is_draining() else ""),
            Check("member", self._membership()),
            Check("leader", self._leadership()),
            Check("caught-up", self._caught_up()),
        ]

    def _membership(self) -> str:
        identity, latest = self._node.identity, self._node.raft.configuration
        if identity.removed_index:
            return f"removed from the cluster for good by configuration {identity.removed_index}"
        if identity.is_blank:
            return "blank: it belongs to no cluster yet"
        if latest is None or identity.server not in latest.configuration.members:
            return "no configuration that it knows lists it"
        return ""

    def _leadership(self) -> str:
        """Return why there is no leader that it may rely on."""
        raft, timeout = self._node.raft, format_duration(self._settings.election_timeout_ms)
        if isinstance(raft.role, Leader):
            if raft.role.in_contact_with_quorum():
                return ""
            return f"it leads, and no quorum has answered it within {timeout}"
        if raft.leader_id is None:
            return f"it knows no leader in term {raft.current_term}"
        age_ticks = leader_contact_age(raft)
        name = server_name(raft.leader_id)
        if age_ticks is None:
            return f"{name} leads, and was never heard"
        if age_ticks < raft.options.election_ticks:
            return ""
        age = format_duration(round(age_ticks * self._settings.tick_ms))
        return f"{name} leads, and was last heard {age} ago; the election timeout is {timeout}"

    def _caught_up(self) -> str:
        """Return how far it still is from what was committed when it was started."""
        if self._has_caught_up:
            return ""
        applied_index = self._node.status().applied_index
        if self._wanted_index is None:
            self._wanted_index = self._committed_index()
        if self._wanted_index is None:
            return "it has not heard yet what is committed"
        if applied_index >= self._wanted_index:
            self._has_caught_up = True
            return ""
        return (
            f"{applied_index} entries are applied of the {self._wanted_index} that were committed "
            "when it was started"
        )

    def _committed_index(self) -> Index | None:
        raft = self._node.raft
        if isinstance(raft.role, Leader):
            return raft.log.commit_index if raft.role.has_committed_in_term else None
        if raft.leader_id is None or not raft.log.leader_commit_index:
            return None
        return max(raft.log.leader_commit_index, raft.log.commit_index)


def passes(checks: Sequence[Check]) -> bool:
    """Return whether every one of `checks` holds."""
    return not any(check.problem for check in checks)


def report(endpoint: str, checks: Sequence[Check], *, verbose: bool) -> str:
    """Return what `endpoint`, such as readyz, says."""
    passed = passes(checks)
    if passed and not verbose:
        return "ok"
    outcome = "passed" if passed else "failed"
    return "\n".join([*map(str, checks), f"{endpoint} check {outcome}"])
