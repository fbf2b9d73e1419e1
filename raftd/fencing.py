"""Telling an operator that a server was fenced: its disk went back in time under this leader."""

from __future__ import annotations

import logging
import shlex

from raftd.core.leader import Leader
from raftd.core.raft import Raft
from raftd.core.types import ServerId, server_name
from raftd.views import member_address

logger = logging.getLogger("raftd.fencing")


class FencingLog:
    """Logs each fencing once, with the way back."""

    def __init__(self) -> None:
        self._known: frozenset[ServerId] = frozenset()

    def report(self, raft: Raft) -> None:
        """Log who was fenced since the last call; nothing on a server that does not lead."""
        leader, known = raft.role, self._known
        self._known = frozenset()
        if not isinstance(leader, Leader):
            return
        self._known = frozenset(
            server for server, progress in leader.progress.items() if progress.fenced
        )
        for server in sorted(self._known - known):
            name = server_name(server)
            member = shlex.quote(f"{name}={member_address(raft, server) or 'HOST:PORT'}")
            logger.warning(
                "%s is fenced, it counts for nothing: it lacks entries up to %d, which it had "
                "acknowledged to this leader, so its disk went back in time. To get %s back: stop "
                "it, empty its data directory, start it again (it is blank then), and run: "
                "raftctl replace %s %s",
                server,
                leader.progress[server].match_index,
                name,
                name,
                member,
            )
