"""One line in the log for each change of role or leader."""

from __future__ import annotations

import logging

from raftd.core.raft import Raft
from raftd.core.types import ServerId, Term, server_name

logger = logging.getLogger("raftd.node")


class RoleLog:
    """Remembers what was said last."""

    def __init__(self) -> None:
        self._reported: tuple[str, Term, ServerId | None] = ("", 0, None)

    def report(self, raft: Raft) -> None:
        """Say what has changed since the last call, if anything has."""
        role = type(raft.role).__name__.lower()
        now = (role, raft.current_term, raft.leader_id)
        if now == self._reported:
            return
        self._reported = now
        if role == "leader":
            logger.info("leads in term %d", raft.current_term)
        elif raft.leader_id is not None:
            logger.info("follows %s in term %d", server_name(raft.leader_id), raft.current_term)
        elif role == "precandidate":
            logger.info("has not heard of a leader; asks whether it could win")
        elif role == "candidate":
            logger.info("campaigns in term %d", raft.current_term)
