"""A process finds on its disk what its predecessors were told is there."""

from __future__ import annotations

from raftd.core.membership import ConfigurationAt, decode_configuration
from raftd.core.raft import Candidate
from raftd.core.types import EntryKind, HardState
from tests.simulation.invariants import Invariant, Server
from tests.simulation.invariants.words import content, in_words


class Recovery(Invariant):
    """A start finds all that was durable, and nothing else: term, vote, log, configuration.

    The configuration in force is the newest in the log, committed or not. What is committed is
    not durable: the commit index starts at 0. One process campaigns before its first turn, the
    one that founds the cluster: its term and vote are ahead of its disk, which has only entry 1.
    """

    title = "Recovery finds what was durable"
    source = (
        "Raft paper, Figure 2 (persistent state) and section 6; dissertation 3.8 and 4.1; "
        "Restart in raft.tla, LogConfigurationConsistentInv in ccfraft.tla"
    )

    def started(self, server: Server) -> None:
        _check_hard_state(server)
        _check_log(server)
        _check_configuration(server)
        log = server.raft.log
        assert log.commit_index == log.handed_index == log.base_index == 0, (
            f"{server.id} starts in term {server.raft.current_term} with something committed: "
            f"expected commit index 0, found {log.commit_index} ({log.handed_index} handed to "
            f"the state machine, log after index {log.base_index})"
        )


def _check_hard_state(server: Server) -> None:
    raft, expected = server.raft, server.durable.hard_state
    found = HardState(raft.current_term, raft.voted_for)
    if isinstance(raft.role, Candidate) and raft.log.last_index == 1:
        expected = HardState(expected.current_term + 1, server.id)
    assert found == expected, (
        f"{server.id} starts with another term or vote than were durable: expected term "
        f"{expected.current_term} and a vote for {expected.voted_for}, found term "
        f"{found.current_term} and a vote for {found.voted_for}; its log ends at index "
        f"{raft.log.last_index}"
    )
    assert raft.durable_term == server.durable.hard_state.current_term, (
        f"{server.id} takes another term for durable than its disk has: expected "
        f"{server.durable.hard_state.current_term}, found {raft.durable_term}; its log ends at "
        f"index {raft.log.last_index}"
    )


def _check_log(server: Server) -> None:
    log, term = server.raft.log, server.raft.current_term
    stored = server.durable.entries
    found = log.entries(log.first_index, log.last_index)
    for index, (kept, entry) in enumerate(zip(stored, found, strict=False), start=1):
        assert (entry.index, content(entry)) == (index, content(kept)), (
            f"{server.id} starts in term {term} with another entry {index} than was durable: "
            f"expected {in_words(content(kept))}, found {in_words(content(entry))} of index "
            f"{entry.index}"
        )
    assert log.durable_index == log.last_index == len(stored), (
        f"{server.id} starts in term {term} with another number of entries than were durable: "
        f"expected {len(stored)}, found {log.last_index} ({log.durable_index} of them durable); "
        f"the last one kept was {in_words(content(stored[-1]) if stored else None)}"
    )


def _check_configuration(server: Server) -> None:
    newest = next(
        (e for e in reversed(server.durable.entries) if e.kind is EntryKind.CONFIGURATION), None
    )
    found = server.raft.configuration
    if newest is None:
        assert found is None, (
            f"{server.id} starts in term {server.raft.current_term} with a configuration at index "
            f"{found.index}: expected none, found {found.configuration}"
        )
        return
    expected = decode_configuration(newest.data)
    assert found == ConfigurationAt(newest.index, expected), (
        f"{server.id} starts in term {server.raft.current_term} with another configuration than "
        f"the newest in its log: expected that of index {newest.index}, {expected.configuration}, "
        f"found {f'that of index {found.index}, {found.configuration}' if found else 'none'}"
    )
