"""What administrators ask a server besides changes: history, rolling operations, checkups.

One object for all of it, so that the driver has one place to send these requests to. It also
switches on the features that every member can apply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import assert_never

from raftd.checkup import Checkups
from raftd.core.raft import Raft
from raftd.core.types import ServerId
from raftd.features import Features
from raftd.inputs import Contacted, LinkChanged
from raftd.operations import Contacts, Propose, Respond
from raftd.protocol import (
    HISTORY_LIMIT_MAX,
    BeginRollingRequest,
    CheckupRequest,
    HistoryReply,
    HistoryRequest,
    Reply,
    UpdateRollingRequest,
)
from raftd.replies import invalid
from raftd.rolling import Rollings
from raftd.storage.state import StateMachine

AdministrationRequest = HistoryRequest | BeginRollingRequest | UpdateRollingRequest | CheckupRequest

HISTORY_BYTES_MAX = 4 * 1024 * 1024
"""Records of one reply, by what they take in the store: half a frame."""


class Administration:
    """Answers `AdministrationRequest`s, from the applied state and from asking around."""

    def __init__(
        self,
        state: StateMachine,
        contacts: Contacts,
        propose: Propose,
        wall_clock_ms: Callable[[], int],
        features_max: int,
    ) -> None:
        """Make it for one server; it switches features on up to those of `features_max`."""
        self._state = state
        self._rollings = Rollings(state=state, propose=propose, wall_clock_ms=wall_clock_ms)
        self._checkups = Checkups(contacts=contacts, wall_clock_ms=wall_clock_ms)
        self._features = Features(
            state=state,
            propose=propose,
            wall_clock_ms=wall_clock_ms,
            features_max=features_max,
        )

    def answer(self, raft: Raft, request: AdministrationRequest, respond: Respond) -> None:
        """Answer now or later, exactly once.

        Raises:
            NotLeader: only the leader can, and this server does not lead.
        """
        match request:
            case HistoryRequest():
                respond(self._history(request))
            case BeginRollingRequest():
                self._rollings.begin(raft, request, respond)
            case UpdateRollingRequest():
                self._rollings.update(raft, request, respond)
            case CheckupRequest():
                self._checkups.request(raft.server, request, respond)
            case _:
                assert_never(request)

    def _history(self, request: HistoryRequest) -> Reply:
        if not 1 <= request.limit <= HISTORY_LIMIT_MAX:
            return invalid(f"a limit of {request.limit}; 1 to {HISTORY_LIMIT_MAX} are allowed")
        records, more = self._state.history(request.limit, request.below_index, HISTORY_BYTES_MAX)
        return HistoryReply(records=records, more=more, complete=self._state.history_is_complete)

    def contacted(self, contacted: Contacted) -> bool:
        """Take in the answer of a server that a checkup has dialled; False if it is not for it."""
        return self._checkups.contacted(contacted)

    def proposed_features(self, raft: Raft) -> int:
        """Return the version whose features this leader has proposed in its term; 0 for none."""
        return self._features.proposed(raft)

    def advance(
        self, raft: Raft, links: Mapping[ServerId, LinkChanged], *, change_begins: bool
    ) -> None:
        """Switch on what every member can apply, if this server leads. See `Features.advance`."""
        self._features.advance(raft, links, change_begins=change_begins)
