"""The properties of one server that the core itself can check."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

import attrs

from raftd.core.invariants import InvariantChecker
from raftd.core.raft import Raft
from raftd.core.types import ServerId
from tests.simulation.invariants import Durable, Invariant, Server

TURNS_BETWEEN_CHECKS = 32
"""A check walks over the whole log, so it is not made in every turn; a server takes many more
turns than this between two faults, and a change of its role is a reason of its own."""


@attrs.define
class _Checked:
    process: int
    raft: Raft
    checker: InvariantChecker
    role: type
    turns: int = 0


class CoreInvariants(Invariant):
    """What `raftd.core.invariants` says of one process, looked at when its role has changed."""

    title = "Invariants of one server"
    source = (
        "Raft paper, Figures 2 and 3; dissertation 3 and 4; raftd.core.invariants; "
        "MonoLogInv and LogConfigurationConsistentInv in ccfraft.tla"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._checked: dict[ServerId, _Checked] = {}

    def started(self, server: Server) -> None:
        self._watch(server)

    def turned(self, server: Server) -> None:
        checked = self._checked[server.id]
        raft = server.raft
        if raft is not checked.raft:
            # A blank server that founds a cluster begins anew within its process.
            checked = self._watch(server)
        role = type(raft.role)
        checked.turns += 1
        if checked.turns < TURNS_BETWEEN_CHECKS and role is checked.role:
            return
        checked.turns, checked.role = 0, role
        self._check(server, checked)

    def _watch(self, server: Server) -> _Checked:
        raft = server.raft
        checked = _Checked(server.process, raft, InvariantChecker(raft), type(raft.role))
        self._checked[server.id] = checked
        return checked

    @staticmethod
    def _check(server: Server, checked: _Checked) -> None:
        try:
            checked.checker.check()
        except AssertionError as error:
            raft = server.raft
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise AssertionError(
                f"{server.id} (process {server.process}, {checked.role.__name__.lower()} of term "
                f"{raft.current_term}): expected `{place.line}` in {place.name}, found it false"
                f"{f': {error}' if str(error) else ''}; commit index {raft.log.commit_index}, "
                f"last index {raft.log.last_index}"
            ) from error
