"""Why a server campaigned, won, lost or stepped down: notes for people, which decide nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING

import attrs

from raftd.core.types import ServerId, Term

if TYPE_CHECKING:
    from raftd.core.raft import Raft

CHANGES_MAX = 32
"""Notes that wait for the driver, which takes them after each batch of inputs: a server that has
nobody to ask goes through three roles in one. Of more than these the oldest are dropped."""


class Why(Enum):
    """The reason of a change of role."""

    SILENCE = "silence"
    """No leader was heard within the election time-out."""
    LEADER_ENDED = "leader-ended"
    """The process of the leader is known to be gone."""
    RIVAL = "rival"
    """Another server asks for pre-votes whose log is too old to win."""
    SPLIT_VOTE = "split-vote"
    """Nobody won the election before, and it is this server that tries again first."""
    ASKED = "asked"
    """The driver wants it, be it that there is nobody else."""
    TRANSFER = "transfer"
    """The leader hands leadership over."""
    PRE_VOTES = "pre-votes"
    """A quorum would vote for it."""
    VOTES = "votes"
    """A quorum has voted for it."""
    REFUSED = "refused"
    """No quorum is left that could vote for it."""
    HIGHER_TERM = "higher-term"
    """Another server has shown a higher term."""
    LEADER_HEARD = "leader-heard"
    """The leader of its own term has spoken."""
    QUORUM_LOST = "quorum-lost"
    """A leader has not heard from a quorum for an election timeout."""
    RETIRED = "retired"
    """A leader has no vote in the committed configuration."""
    SNAPSHOT = "snapshot"
    """It asked for votes for a log that a snapshot has replaced."""


@attrs.frozen(kw_only=True)
class RoleChange:
    """One change of role, or one more election of a server that has been asking for votes."""

    role: str
    """What the server is from now on: follower, precandidate, candidate or leader."""
    before: str
    """What it was."""
    term: Term
    """The term that it is in from now on."""
    why: Why
    server: ServerId | None = None
    """Who is the reason: the leader that has ended or was heard, who has the higher term, who hands
    over, the rival; None: nobody."""
    votes: Mapping[ServerId, bool] = attrs.field(factory=dict)
    """The answers to the election that was under way, its own included; empty without one."""
    silent_ticks: Mapping[ServerId, int | None] = attrs.field(factory=dict)
    """How long who had not been heard: the leader that is given up, or all others of a leader that
    has lost its quorum. None: never."""


class RoleChanges:
    """The latest changes of one server, until somebody takes them."""

    def __init__(self) -> None:
        """Begin without one."""
        self._changes: deque[RoleChange] = deque(maxlen=CHANGES_MAX)

    def take(self) -> list[RoleChange]:
        """Return those that have come since the last call, the oldest first."""
        changes = list(self._changes)
        self._changes.clear()
        return changes

    def note(
        self, raft: Raft, role: str, why: Why, *, term: Term, server: ServerId | None = None
    ) -> None:
        """Note that `raft` becomes `role`; to be called while it still is what it was.

        Args:
            term: the one that it is in from now on.
            server: who is the reason, if anybody is.
        """
        before = raft.role
        silent_ticks: dict[ServerId, int | None] = {}
        if why is Why.QUORUM_LOST:
            progress = raft.leader().progress
            silent_ticks = {other: seen.contact_age(raft.now) for other, seen in progress.items()}
        elif role == "precandidate" and raft.leader_id is not None:
            silent_ticks = {raft.leader_id: raft.leader_contact_age}
        self._changes.append(
            RoleChange(
                role=role,
                before=type(before).__name__.lower(),
                term=term,
                why=why,
                server=server,
                votes=dict(getattr(before, "votes", {})),
                silent_ticks=silent_ticks,
            )
        )
