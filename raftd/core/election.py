"""The roles of a server that leads nobody: follower, pre-candidate, candidate.

An election that goes wrong costs a time-out, so three things keep that from happening where many
servers notice at the same moment that their leader is gone:

- A pre-candidate gives way to a rival that is better placed, before any vote is spent.
- If the vote is split all the same, one of the candidates tries again long before the others.
- A pre-vote that was refused is asked for again: who refused may give up its leader a moment later.

What decides an election is elsewhere (`raftd.core.quorum`); nothing here makes one safe or unsafe.

Source: paper 5.2, dissertation 9.6. The authors of the paper had tried ranks between candidates and
gave them up, since a server of a high rank that fails holds up the others. Here a rank counts among
servers that are heard asking just now, and for two heartbeats.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs

from raftd.core.messages import PreVote, RequestVote
from raftd.core.options import Options
from raftd.core.types import ServerId

GIVE_WAY_HEARTBEATS = 2
"""How long a rival may take: a round trip, a sync and another trip, until its vote request or its
first heartbeat is here. If none comes, little of an election timeout is lost."""


def give_way_ticks(options: Options) -> int:
    """Return how long an election that is under way is left alone."""
    return GIVE_WAY_HEARTBEATS * options.heartbeat_ticks


@attrs.define
class Follower:
    """Answers, and waits for a leader (Figure 2, "Followers")."""


@attrs.define
class PreCandidate:
    """Asks whether it could win, before it disturbs anybody with a new term (9.6)."""

    server: ServerId
    request: PreVote
    votes: dict[ServerId, bool]
    waits_until_tick: int | None = None
    """Set once it has given way: whatever the votes say, it does not campaign before."""

    def open_voters(self, voters: Collection[ServerId]) -> list[ServerId]:
        """Return who is still to be asked, also those that have refused.

        A server that is within an election timeout of its leader now may have given it up at the
        next heartbeat.
        """
        return sorted(server for server in voters if not self.votes.get(server))

    def give_way(self, rival: ServerId, request: PreVote, now: int, options: Options) -> None:
        """Let `rival` go first if it is better placed, or both campaign and split the vote.

        All servers agree on who that is: the better log, then the higher name. Once in a round
        only: a rival that can send and not receive must not hold up the others.
        """
        ours = (self.request.last_log_term, self.request.last_log_index, self.server)
        theirs = (request.last_log_term, request.last_log_index, rival)
        if self.waits_until_tick is None and theirs > ours:
            self.waits_until_tick = now + give_way_ticks(options)

    def is_ready(self, now: int) -> bool:
        """Return whether it may campaign once it has the votes for it."""
        return self.waits_until_tick is None or now >= self.waits_until_tick


@attrs.define
class Candidate:
    """Asks for votes in its own new term (Figure 2, "Candidates")."""

    server: ServerId
    request: RequestVote
    votes: dict[ServerId, bool]
    rival: ServerId | None = None
    """The one with the highest name of those that campaign in the same term."""

    def open_voters(self, voters: Collection[ServerId]) -> list[ServerId]:
        """Return who is still to be asked: a vote that was refused is spent."""
        return sorted(server for server in voters if server not in self.votes)

    def met(self, rival: ServerId) -> None:
        """Note that `rival` asks for votes of the same term."""
        self.rival = max(self.rival or rival, rival)

    @property
    def goes_first(self) -> bool:
        """Whether the vote is split and it is this server that tries again before the others."""
        return self.rival is not None and self.rival < self.server

    def tries_again(self, elapsed_ticks: int, options: Options) -> bool:
        """Return whether to begin anew now, `elapsed_ticks` after it became a candidate.

        A winner would have been heard by then. The other candidates wait for a time-out as ever,
        so that one split is not followed by the next.
        """
        return self.goes_first and elapsed_ticks >= give_way_ticks(options)
