"""What a node tells people in the log: roles, members, configurations, one object for all three."""

from __future__ import annotations

import logging
from collections.abc import Callable

from raftd.core.membership import ConfigurationEntry
from raftd.core.raft import Raft
from raftd.core.types import Index
from raftd.event_log import tell
from raftd.log_level import PROCESS
from raftd.membership_log import ConfigurationLog
from raftd.peer_log import PeerLog
from raftd.role_log import RoleLog
from raftd.storage.identity import Identity
from raftd.surroundings import Settings

logger = logging.getLogger("raftd.node")


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
        """Look at the members, if this server leads, and whether the level of the log goes back."""
        self._peers.tick(raft)
        PROCESS.tick()

    def turned(self, raft: Raft) -> None:
        """Look at the role and the leader after a turn."""
        self._roles.report(raft)

    def joined(self, did: str, member: Identity) -> None:
        """Say that this server has founded or joined a cluster."""
        name, id = member.cluster_name, member.cluster_id
        tell(logger, "joined", "%s cluster %s (%s)", did, name, id, cluster_id=id)

    def removed(self, message: str, index: Index) -> None:
        """Say that this server belongs to no cluster any more."""
        tell(logger, "removed", "%s", message, level=logging.WARNING, index=index)

    def configuration_applied(self, raft: Raft, index: Index, entry: ConfigurationEntry) -> None:
        """Take note of a configuration that is committed."""
        self._configurations.applied(raft, index, entry)
