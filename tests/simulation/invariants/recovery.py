"""A process finds on its disk what its predecessors were told is there."""

from __future__ import annotations

from raftd.core.membership import ConfigurationAt, decode_configuration
from raftd.core.raft import Candidate
from raftd.core.types import EntryKind, HardState
from tests.simulation.invariants import Invariant, Server
from tests.simulation.invariants.words import content, in_words


class Recovery(Invariant):
    """A start finds all that was durable, and nothing else: term, vote, log, configuration.

    The configuration in force is the newest in the log, committed or not; where the log has none
    any more, that of the snapshot. What is committed is not durable: the commit index starts at
    what the state machine has, which is the state of a snapshot, or one that has outlived its
    process; the log goes on from there. One process campaigns before its first turn, the one that
    founds the cluster: its term and vote are ahead of its disk, which has only entry 1.
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
        _check_positions(server)


def _check_positions(server: Server) -> None:
    log, term = server.raft.log, server.raft.current_term
    snapshot = server.raft.snapshot
    snapshot_index = snapshot.id.last_included_index if snapshot is not None else 0
    applied_index = server.state.applied_index
    assert snapshot == server.durable.snapshot, (
        f"{server.id} starts in term {term} with another snapshot than was durable: expected "
        f"{server.durable.snapshot}, found {snapshot}"
    )
    assert log.base_index <= snapshot_index, (
        f"{server.id} starts in term {term} with a log after index {log.base_index}: expected "
        f"that its snapshot includes as much, found {snapshot_index}"
    )
    assert log.base_index <= applied_index <= log.last_index, (
        f"{server.id} starts in term {term} with a state of index {applied_index}: expected one "
        f"that the log of {log.base_index + 1} to {log.last_index} goes on from"
    )
    assert log.commit_index == log.handed_index == applied_index, (
        f"{server.id} starts in term {term} with something committed that it has not applied: "
        f"expected commit index {applied_index}, found {log.commit_index} ({log.handed_index} "
        "handed to the state machine)"
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
    base_index = log.base_index
    found = log.entries(log.first_index, log.last_index)
    kept_terms = [0, *(entry.term for entry in stored)]
    assert base_index == 0 or log.base_term == kept_terms[min(base_index, len(stored))], (
        f"{server.id} starts in term {term} with a log that follows entry {base_index} of term "
        f"{log.base_term}: expected what was durable, one of term "
        f"{kept_terms[min(base_index, len(stored))]}"
    )
    pairs = zip(stored[base_index:], found, strict=False)
    for index, (kept, entry) in enumerate(pairs, start=base_index + 1):
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
