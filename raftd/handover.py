"""Leadership transfers that somebody waits for, and those of a server that is about to stop.

Source: dissertation section 3.10.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import attrs

from raftd.core.errors import TransferRefused
from raftd.core.leader import Leader
from raftd.core.raft import Raft
from raftd.core.types import ServerId, server_name
from raftd.event_log import tell
from raftd.planning import without_incarnations
from raftd.protocol import ErrorReply, Reply, TransferReply, TransferRequest
from raftd.replies import transfer_failed

WAIT_ELECTION_TIMEOUTS = 4
"""Who asked is answered after so long at the latest: a transfer takes one election timeout or
ends, and an election in its place seldom more than two."""

Respond = Callable[[Reply], None]

logger = logging.getLogger("raftd.node")


@attrs.define
class _Handover:
    """A transfer of leadership that somebody waits for."""

    target: ServerId
    anybody: bool
    """Nobody was named: whoever leads afterwards is right."""
    respond: Respond
    deadline_tick: int


class Handovers:
    """Begins transfers, and answers those who asked for them."""

    def __init__(self) -> None:
        self._waiting: list[_Handover] = []

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    def request(self, raft: Raft, request: TransferRequest, respond: Respond) -> None:
        """Hand leadership to the named server, or to the best one.

        Raises:
            NotLeader: this server does not lead.
        """
        leader = raft.leader()
        latest = raft.configuration
        assert latest is not None
        if request.target:
            voters = latest.configuration.voters
            named = [
                server
                for server in latest.configuration.members
                if request.target in (server, server_name(server))
            ]
            # While a server replaces one of its own name, the one that is to stay is meant.
            target = max(named, key=lambda s: (s in voters, s), default=request.target)
        else:
            target = best_target(raft, leader) or ""
        if target == raft.server:
            respond(TransferReply(leader=target, term=raft.current_term))
            return
        try:
            if not target:
                raise TransferRefused("no other voter is in contact")
            raft.transfer_leadership(target)
        except TransferRefused as refusal:
            respond(
                ErrorReply(
                    code="refused",
                    message="leadership was not transferred",
                    cause=without_incarnations(str(refusal)),
                    hint="`raftctl status` shows the voters and their last contact",
                )
            )
            return
        words = "hands leadership over to %s, as was asked"
        tell(logger, "step-down", words, server_name(target), term=raft.current_term, peer=target)
        deadline_tick = raft.now + WAIT_ELECTION_TIMEOUTS * raft.options.election_ticks
        self._waiting.append(_Handover(target, not request.target, respond, deadline_tick))

    def settle(self, raft: Raft) -> None:
        """Answer those whose transfer has ended, one way or the other."""
        if not self._waiting:
            return
        leader = raft.role
        waiting, self._waiting = self._waiting, []
        for handover in waiting:
            why = ""
            target, leader_id = handover.target, raft.leader_id
            if isinstance(leader, Leader):
                if leader.transfer_target is None:
                    why = (
                        f"{server_name(target)} did not take over within an election timeout, or "
                        "a membership change came between"
                    )
            elif leader_id is not None:
                if handover.anybody or leader_id == target:
                    handover.respond(TransferReply(leader=leader_id, term=raft.current_term))
                    continue
                why = f"{server_name(leader_id)} won the election and leads now"
            if not why and raft.now >= handover.deadline_tick:
                why = f"{server_name(raft.server)} does not know yet who leads now"
            if why:
                handover.respond(transfer_failed(target, why))
            else:
                self._waiting.append(handover)


def hand_over(raft: Raft) -> None:
    """Start a transfer before this server stops, also again after a change has cancelled one."""
    leader = raft.role
    if isinstance(leader, Leader) and leader.transfer_target is None:
        target = best_target(raft, leader)
        if target is not None:
            with contextlib.suppress(TransferRefused):
                raft.transfer_leadership(target)


def best_target(raft: Raft, leader: Leader) -> ServerId | None:
    """Return the voter that is furthest and in contact; None if there is none."""
    latest = raft.configuration
    assert latest is not None
    candidates = [
        (progress.match_index, server)
        for server, progress in leader.progress.items()
        if server in latest.configuration.voters
        and progress.in_contact(raft.now, 2 * raft.options.heartbeat_ticks)
    ]
    return max(candidates)[1] if candidates else None
