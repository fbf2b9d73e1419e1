"""Features in the replicated state that are switched on once every member can apply them.

A cluster is upgraded one server at a time. As long as one member runs an older release, everybody
writes what that release writes; the leader appends `SwitchOn` when there is none left. From the
moment that a server has applied it, `raftd.admission` keeps older servers away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from raftd.commands import Command, Result, SwitchOn
from raftd.core.leader import Leader
from raftd.core.raft import Raft
from raftd.core.types import ServerId, Term
from raftd.event_log import tell
from raftd.inputs import LinkChanged
from raftd.operations import Propose
from raftd.protocol import Reply
from raftd.storage.state import StateMachine

logger = logging.getLogger("raftd.features")


class Features:
    """Proposes `SwitchOn` as soon as all members speak a newer version than the state uses."""

    def __init__(
        self,
        *,
        state: StateMachine,
        propose: Propose,
        wall_clock_ms: Callable[[], int],
        features_max: int,
    ) -> None:
        """Switch features on up to those of version `features_max`; 0 for none."""
        self._state = state
        self._propose = propose
        self._wall_clock_ms = wall_clock_ms
        self._features_max = features_max
        self._proposed_term: Term = 0
        """In which this server has proposed it as the leader; 0 if that has failed."""

    def proposed(self, raft: Raft) -> int:
        """Return the version that this leader has proposed in its term; 0 for none.

        Whoever comes in behind it in the log has to be able to apply it.
        """
        return self._features_max if raft.current_term == self._proposed_term else 0

    def advance(
        self, raft: Raft, links: Mapping[ServerId, LinkChanged], *, change_begins: bool
    ) -> None:
        """Propose it if this server leads and nobody stands against it, once in a term.

        To be called in every turn of the driver.

        Args:
            raft: its latest configuration says who has to be able.
            links: the latest news of the connections to the others.
            change_begins: whether a change of the membership is in the log of this leader that is
                not applied: it may bring in a server that was examined before.
        """
        state = self._state
        if state.features >= self._features_max:
            return
        leader = raft.role
        if not isinstance(leader, Leader) or raft.current_term == self._proposed_term:
            return
        # What earlier leaders have begun has to be known here, and an entry of this term committed.
        if state.applied_index < leader.term_start or change_begins:
            return
        if not self._all_can_apply(raft, links):
            return
        latest = raft.configuration
        assert latest is not None
        body = SwitchOn(
            version=self._features_max,
            time_ms=self._wall_clock_ms(),
            configuration_term=raft.log.term_at(latest.index) or 0,
        )
        self._proposed_term = raft.current_term
        self._propose(Command(body), self._applied, self._failed)

    def _all_can_apply(self, raft: Raft, links: Mapping[ServerId, LinkChanged]) -> bool:
        running = self._state.running_operation
        if running is not None and running.plan.addresses:
            # It may be about to bring in a server that was examined before.
            return False
        # Those that were removed and have to learn of it are among them: they would stop at the
        # entry that they cannot apply, and never know.
        for server in raft.addresses():
            link = links.get(server)
            if link is None or not link.connected or link.version < self._features_max:
                return False
        return True

    def _applied(self, result: Result) -> None:
        version = self._state.features
        words = "the features of version %d are switched on: all members can apply them"
        tell(logger, "features", words, version, version=version)

    def _failed(self, reply: Reply) -> None:
        self._proposed_term = 0
