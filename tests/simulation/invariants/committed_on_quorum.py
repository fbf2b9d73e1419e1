"""What a leader commits is on the disks of a quorum, under each half of the configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from raftd.core.membership import Configuration
from raftd.core.types import Index, ServerId, Term
from tests.simulation.invariants import Durable, Invariant, Server


class CommittedOnQuorum(Invariant):
    """At the moment when a leader commits an entry, majorities have it on their disks.

    A majority of each half is needed, by the configuration under which the leader has counted:
    C_old alone commits the joint entry that its own leader has just aborted. What counts is what
    a disk has, not what a server has said, and the leader's own disk counts like any other. The
    entry that the commit index moves to is of the leader's term (Figure 8).

    The highest index would be enough: who has it with its term has everything before it (Log
    Matching). The entries between are counted as well, each once, when they are committed for the
    first time anywhere. Majorities are counted here without the code that is examined.
    """

    title = "Committed on a quorum of each active configuration"
    source = (
        "Raft paper, Figure 2 and sections 5.4.2 and 6; dissertation 3.6.2 and 4.3; "
        "QuorumLogInv and NeverCommitEntryPrevTermsProp in ccfraft.tla, "
        "CommittedEntriesReachMajority in RaftWithReconfigJointConsensus.tla, "
        "CommittedIsDurableInv in etcdraft.tla"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._highest: Index = 0
        """All entries up to here were counted."""

    def committed(
        self, server: Server, configuration: Configuration, old: Index, new: Index
    ) -> None:
        raft = server.raft
        log, leader_term = raft.log, raft.current_term
        term = log.term_at(new)
        assert term is not None, (
            f"{server.id}, leader of term {leader_term}, commits entry {new}, which it does not "
            f"have: expected at most {log.last_index}"
        )
        assert term == leader_term, (
            f"{server.id} commits entry {new} by counting: expected an entry of its own term "
            f"{leader_term}, found one of term {term}"
        )
        for index in range(max(old, self._highest) + 1, new):
            self._count(server, configuration, index)
        self._count(server, configuration, new)
        self._highest = max(self._highest, new)

    def _count(self, server: Server, configuration: Configuration, index: Index) -> None:
        term = server.raft.log.term_at(index) or 0
        for name, half in (("C_new", configuration.voters), ("C_old", configuration.outgoing)):
            if not half and name == "C_old":
                continue
            holders = [voter for voter in half if self._has(voter, index, term)]
            assert 2 * len(holders) > len(half), (
                f"{server.id}, leader of term {server.raft.current_term}, commits entry {index} "
                f"of term {term} under {configuration}: expected it on the disks of a majority "
                f"of {name if configuration.outgoing else 'the voters'}, found it on "
                f"{len(holders)} of {len(half)}: {self._in_words(half, index)}"
            )

    def _has(self, voter: ServerId, index: Index, term: Term) -> bool:
        return self._stored_term(voter, index) == term

    def _stored_term(self, voter: ServerId, index: Index) -> Term | None:
        disk = self.durable.get(voter)
        if disk is None or index > len(disk.entries):
            return None
        return disk.entries[index - 1].term

    def _in_words(self, half: Collection[ServerId], index: Index) -> str:
        stored = {voter: self._stored_term(voter, index) for voter in sorted(half)}
        return ", ".join(
            f"{voter} has {'nothing' if term is None else f'term {term}'}"
            for voter, term in stored.items()
        )
