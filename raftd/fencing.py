"""Telling people that a server is fenced: its disk went back in time under this leader.

Whoever was fenced is not fed any more, so that it would only see that nobody leads it. The leader
tells it on the one occasion that it has: it closes the connection that the fenced server has opened
and refuses its next Hello, with the reason. What it loses by that is one second of a connection
that the leader has no use for.
"""

from __future__ import annotations

import logging
import shlex

from raftd.core.leader import Leader
from raftd.core.raft import Raft
from raftd.core.types import Index, ServerId, Term, server_name
from raftd.event_log import tell
from raftd.protocol import Hello, Refusal, Welcome
from raftd.storage.identity import Identity
from raftd.surroundings import Network, Settings
from raftd.views import member_address

TELL_MS = 60_000.0
"""Between two times that a fenced server is told: it may have been started again since, and it is
a line in the logs of both, which should not be overlooked and not fill them."""
REFUSAL_CODE = "fenced"

logger = logging.getLogger("raftd.fencing")


class Fencing:
    """What a leader says of the servers that it has fenced, and what a fenced one makes of it."""

    def __init__(self, settings: Settings) -> None:
        self._address = settings.address
        self._tell_ticks = settings.ticks(TELL_MS)
        self._fenced: dict[ServerId, int] = {}
        """Those that this leader has fenced, and when each is to be told next, in ticks."""
        self._untold: set[ServerId] = set()
        """Those whose next Hello is refused."""
        self.problem = ""
        """Why this server counts for nothing, for status; empty if it is not fenced."""
        self._term: Term = 0
        """The term in which it was told so."""

    # --- as a leader ---

    def tick(self, raft: Raft, network: Network) -> None:
        """Log who was fenced since the last call, and tell those who are to be told."""
        if raft.leader_id is not None and raft.current_term > self._term:
            # For another leader it is a follower that lags.
            self.problem = ""
        known, self._fenced = self._fenced, {}
        leader = raft.role
        if not isinstance(leader, Leader):
            self._untold.clear()
            return
        for server, progress in sorted(leader.progress.items()):
            if not progress.fenced:
                continue
            if server not in known:
                _log_fenced(raft, server, progress.match_index)
            due = known.get(server, raft.now)
            if raft.now >= due:
                due = raft.now + self._tell_ticks
                self._untold.add(server)
                network.close_peer(server, "its disk went back in time")
            self._fenced[server] = due
        self._untold &= self._fenced.keys()

    def admit(self, hello: Hello, answer: Welcome | Refusal, raft: Raft) -> Welcome | Refusal:
        """Return `answer`, or the refusal that tells a server that it is fenced."""
        leader, server = raft.role, hello.source
        if (
            isinstance(answer, Refusal)
            or hello.role != "peer"
            or server not in self._untold
            or not isinstance(leader, Leader)
        ):
            return answer
        self._untold.discard(server)
        lost_index = leader.progress[server].match_index if server in leader.progress else 0
        return Refusal(
            code=REFUSAL_CODE,
            message=f"{server} lacks entries up to {lost_index}, which it had acknowledged to the "
            f"leader of term {raft.current_term}: its disk went back in time",
            server=answer.server,
            cluster_id=answer.cluster_id,
        )

    # --- as the fenced server ---

    def refused(self, refusal: Refusal, identity: Identity, raft: Raft) -> None:
        """Take note of what a leader has refused this server with; log it once."""
        if refusal.code != REFUSAL_CODE or refusal.cluster_id != identity.cluster_id:
            return
        problem = (
            f"{server_name(refusal.server)}, which leads, has fenced this server, so it counts for "
            f"nothing: {refusal.message}. {_way_back(identity.name, self._address)}"
        )
        if problem != self.problem:
            tell(logger, "fenced", "%s", problem, level=logging.WARNING)
        self.problem, self._term = problem, raft.current_term


def _log_fenced(raft: Raft, server: ServerId, match_index: Index) -> None:
    name = server_name(server)
    tell(
        logger,
        "fenced",
        "%s is fenced, it counts for nothing: it lacks entries up to %d, which it had acknowledged "
        "to this leader, so its disk went back in time. %s",
        server,
        match_index,
        _way_back(name, member_address(raft, server) or "HOST:PORT"),
        level=logging.WARNING,
        peer=server,
        match_index=match_index,
    )


def _way_back(name: str, address: str) -> str:
    return (
        f"To get {name} back: stop it, empty its data directory, start it again (it is blank "
        f"then), and run: raftctl replace {name} {shlex.quote(f'{name}={address}')}"
    )
