"""What a node tells people in the log: roles, members, configurations, one object for all three."""

from __future__ import annotations

from collections.abc import Callable

from raftd.core.membership import ConfigurationEntry
from raftd.core.raft import Raft
from raftd.core.types import Index
from raftd.membership_log import ConfigurationLog
from raftd.peer_log import PeerLog
from raftd.role_log import RoleLog
from raftd.surroundings import Settings


class NodeLog:
    """Told by the node what it has done; says what of that is news."""

    def __init__(
        self, settings: Settings, uptime_ns: Callable[[], int], known_index: Index
    ) -> None:
        """Begin, without a line.

        Args:
            uptime_ns: nanoseconds that never go back.
            known_index: the last entry that the log held at the start.
        """
        self._uptime_ns = uptime_ns
        self._roles = RoleLog(settings.tick_ms)
        self._peers = PeerLog(settings.tick_ms, self.clock)
        self._configurations = ConfigurationLog(known_index)

    def clock(self) -> float:
        """Return the seconds by which repeated lines are spared."""
        return self._uptime_ns() / 1_000_000_000

    def tick(self, raft: Raft) -> None:
        """Look at the members, if this server leads."""
        self._peers.tick(raft)

    def turned(self, raft: Raft) -> None:
        """Look at the role and the leader after a turn."""
        self._roles.report(raft)

    def configuration_applied(self, raft: Raft, index: Index, entry: ConfigurationEntry) -> None:
        """Take note of a configuration that is committed."""
        self._configurations.applied(raft, index, entry)
