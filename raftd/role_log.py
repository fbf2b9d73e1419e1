"""Elections in the log for people: who campaigns and why, who won, and who steps down.

The core notes each change of role with its reason (`raftd.core.role_changes`); here the notes
become lines, with times instead of ticks. A server that finds no leader for long says so now and
then, not at each attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from raftd.core.membership import Configuration
from raftd.core.raft import Raft
from raftd.core.role_changes import RoleChange, Why
from raftd.core.types import ServerId, Term, server_name
from raftd.event_log import tell
from raftd.log_words import milliseconds, voters
from raftd.planning import names

STILL_MS = 30_000.0
"""While there is no leader, a server says so again after so long: long enough to read, short enough
for the log to show that it has not got better."""


logger = logging.getLogger("raftd.node")


class RoleLog:
    """Remembers what was said last, and since when there has been no leader."""

    def __init__(self, tick_ms: float) -> None:
        self._tick_ms = tick_ms
        self._reported: tuple[type, Term, ServerId | None] = (type(None), 0, None)
        self._voted: tuple[Term, ServerId] = (0, "")
        self._raft: Raft | None = None
        self._leader: ServerId | None = None
        """The last one that was followed, or this server itself."""
        self._leader_term: Term = 0
        self._heard_tick = 0
        """When it was heard last, as far as is known."""
        self._is_lost = False
        self._attempts = 0
        """Elections that this server has begun since."""
        self._told_tick = 0

    def report(self, raft: Raft) -> None:
        """Say what has changed since the last call, if anything has."""
        if raft is not self._raft:
            # Its ticks begin anew.
            self._raft, self._leader = raft, None
            self._heard_tick = self._told_tick = raft.now
        for change in raft.role_changes.take():
            self._tell_change(raft, change)
        vote = raft.voted_for
        if vote is not None and (raft.current_term, vote) != self._voted:
            self._voted = raft.current_term, vote
            logger.debug("votes for %s in term %d", server_name(vote), raft.current_term)
        now = (type(raft.role), raft.current_term, raft.leader_id)
        if now != self._reported:
            self._reported = now
            if raft.leader_id is not None and raft.leader_id != raft.server:
                self._tell_leader(raft, raft.leader_id)
            elif raft.leader_id is None and not raft.may_campaign():
                self._tell_silence(raft)
        if raft.leader_id is not None:
            self._heard_tick = raft.now - (raft.leader_contact_age or 0)

    # --- what there is to say ---

    def _tell_change(self, raft: Raft, change: RoleChange) -> None:
        match change.role:
            case "precandidate":
                self._tell_attempt(raft, change)
            case "candidate":
                self._tell_campaign(raft, change)
            case "leader":
                self._tell_victory(raft, change)
            case _ if change.before == "leader":
                self._tell_step_down(raft, change)
            case _ if change.before == "candidate":
                self._tell_defeat(change)

    def _tell_attempt(self, raft: Raft, change: RoleChange) -> None:
        """Say that this server looks for votes, the first time; later on only now and then."""
        self._attempts += 1
        if change.why is Why.ASKED:
            return
        if self._attempts > 1:
            self._tell_that_it_goes_on(raft, change)
            return
        reason = self._why_there_is_no_leader(raft, change)
        self._is_lost, self._told_tick = True, raft.now
        tell(
            logger,
            "leader-lost",
            "%s: asks whether it could win term %d",
            reason,
            change.term + 1,
            level=logging.WARNING,
            term=change.term,
            leader=self._leader,
            reason=change.why.value,
        )

    def _why_there_is_no_leader(self, raft: Raft, change: RoleChange) -> str:
        who = server_name(change.server or "")
        if change.why is Why.LEADER_ENDED:
            return f"the process of {self._leader_words()} has ended"
        silence = self._silence_words(raft)
        if change.why is Why.RIVAL:
            return f"{silence}, and {who} asks for votes although its log is too old to win"
        if change.why is Why.SPLIT_VOTE:
            return f"{silence}, and the vote was split with {who}"
        return silence

    def _tell_that_it_goes_on(self, raft: Raft, change: RoleChange) -> None:
        if (raft.now - self._told_tick) * self._tick_ms < STILL_MS:
            return
        self._told_tick = raft.now
        tell(
            logger,
            "leader-lost",
            "still no leader, for %s now: asked %d times; %s",
            self._ms(raft.now - self._heard_tick),
            self._attempts,
            _answers(raft, change.votes),
            level=logging.WARNING,
            term=change.term,
            leader=self._leader,
            reason=change.why.value,
            attempts=self._attempts,
        )

    def _tell_campaign(self, raft: Raft, change: RoleChange) -> None:
        if change.why is Why.TRANSFER:
            reason = f"{self._leader_words()} hands leadership over"
        else:
            reason = f"{names(_granted(change.votes))} would vote for it"
        tell(
            logger,
            "campaign",
            "campaigns in term %d: %s",
            change.term,
            reason,
            term=change.term,
            reason=change.why.value,
        )

    def _tell_victory(self, raft: Raft, change: RoleChange) -> None:
        votes = _granted(change.votes)
        tell(
            logger,
            "leader",
            "leads in term %d: elected by %s of %s%s",
            change.term,
            names(votes),
            voters(_configuration(raft)),
            self._without_leader(raft),
            term=change.term,
            votes=sorted(votes),
            leaderless_ms=self._leaderless_ms(raft),
        )
        self._found_leader(raft.server, change.term)

    def _tell_step_down(self, raft: Raft, change: RoleChange) -> None:
        level = logging.WARNING
        match change.why:
            case Why.HIGHER_TERM:
                reason = f"{server_name(change.server or '')} has term {change.term}"
                level = logging.INFO
            case Why.QUORUM_LOST:
                reason = self._quorum_words(raft, change)
            case Why.RETIRED:
                reason = "it has no vote in the configuration any more"
                level = logging.INFO
            case _:
                reason = f"{server_name(change.server or '')} leads"
        tell(
            logger,
            "step-down",
            "leads no more (it led in term %d): %s",
            self._leader_term,
            reason,
            level=level,
            term=change.term,
            reason=change.why.value,
            peer=change.server,
        )
        self._is_lost, self._told_tick = True, raft.now

    def _quorum_words(self, raft: Raft, change: RoleChange) -> str:
        timeout_ticks = raft.options.election_ticks
        silent = [
            f"{server_name(server)} ({'never' if age is None else self._ms(age)})"
            for server, age in sorted(change.silent_ticks.items())
            if age is None or age >= timeout_ticks
        ]
        words = f"no majority of {voters(_configuration(raft))} has answered for "
        words += self._ms(timeout_ticks)
        return words + (f"; silent: {', '.join(silent)}" if silent else "")

    def _tell_defeat(self, change: RoleChange) -> None:
        if change.why is Why.REFUSED:
            refused = sorted(server for server, granted in change.votes.items() if not granted)
            reason = f"refused by {names(refused)}"
        elif change.why is Why.HIGHER_TERM:
            reason = f"{server_name(change.server or '')} has term {change.term}"
        else:
            # It says next whom it follows.
            return
        tell(
            logger,
            "election-lost",
            "has not won the election: %s",
            reason,
            term=change.term,
            reason=change.why.value,
            peer=change.server,
        )

    def _tell_leader(self, raft: Raft, leader: ServerId) -> None:
        tell(
            logger,
            "follower",
            "follows %s in term %d%s",
            server_name(leader),
            raft.current_term,
            self._without_leader(raft),
            term=raft.current_term,
            leader=leader,
            leaderless_ms=self._leaderless_ms(raft),
        )
        self._found_leader(leader, raft.current_term)

    def _tell_silence(self, raft: Raft) -> None:
        """Say that a server that may not campaign hears no leader any more."""
        is_member = raft.server in _configuration(raft).members if raft.configuration else False
        if self._leader is None or self._is_lost or not is_member:
            return
        self._is_lost = True
        tell(
            logger,
            "leader-lost",
            "%s: waits for one, since it has no vote to ask for",
            self._silence_words(raft),
            level=logging.WARNING,
            term=raft.current_term,
            leader=self._leader,
        )

    # --- since when there is no leader ---

    def _silence_words(self, raft: Raft) -> str:
        silent = self._ms(raft.now - self._heard_tick)
        if self._leader is None:
            return f"no word from any leader for {silent}, since it started"
        if self._leader == raft.server:
            return f"no leader for {silent}, since it led in term {self._leader_term} itself"
        return f"no word from {self._leader_words()} for {silent}"

    def _found_leader(self, leader: ServerId, term: Term) -> None:
        self._leader, self._leader_term = leader, term
        self._is_lost = False
        self._attempts = 0

    def _leaderless_ms(self, raft: Raft) -> float | None:
        """Return for how long there was no leader; None for a first one, or for no time at all."""
        silent_ticks = raft.now - self._heard_tick
        if self._leader is None or not silent_ticks:
            return None
        return round(silent_ticks * self._tick_ms)

    def _without_leader(self, raft: Raft) -> str:
        silent_ms = self._leaderless_ms(raft)
        return "" if silent_ms is None else f", after {milliseconds(silent_ms)} without a leader"

    def _leader_words(self) -> str:
        if self._leader is None:
            return "the leader"
        return f"{server_name(self._leader)} (leader of term {self._leader_term})"

    def _ms(self, ticks: int) -> str:
        return milliseconds(ticks * self._tick_ms)


def _configuration(raft: Raft) -> Configuration:
    latest = raft.configuration
    assert latest is not None
    return latest.configuration


def _granted(votes: Mapping[ServerId, bool]) -> list[ServerId]:
    return sorted(server for server, granted in votes.items() if granted)


def _answers(raft: Raft, votes: Mapping[ServerId, bool]) -> str:
    """Return what the other voters have said to the attempt before."""
    others = _configuration(raft).all_voters - {raft.server}
    said = {
        "would vote for it": sorted(server for server in others if votes.get(server)),
        "refused": sorted(server for server in others if votes.get(server) is False),
        "did not answer": sorted(others - votes.keys()),
    }
    return "; ".join(f"{names(servers)} {words}" for words, servers in said.items() if servers)
