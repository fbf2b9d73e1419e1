"""What was committed at an index stays there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from raftd.core.leader import Leader
from raftd.core.membership import Configuration
from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, HardState, Index, ServerId, Term
from tests.simulation.invariants import Durable, Invariant, Server
from tests.simulation.invariants.words import Content, content, in_words


@attrs.define
class _Committed:
    content: Content
    committed_in: Term
    """The lowest term whose leader has counted it."""
    leader: ServerId


@attrs.define
class _Process:
    number: int
    known: Index = 0
    """The commit index that it was last seen with."""
    led_term: Term = 0


class CommittedNeverChanges(Invariant):
    """Once an index is committed, nobody commits, believes or applies anything else there.

    - Each leader that counts an index counts the same entry.
    - A server that learns that an index is committed has that entry there, and some leader has
      counted it. What a server has learned, no later write replaces on its disk, also not after a
      restart, when the server itself knows of no commit any more.
    - A leader has nothing else at an index that was committed in a term before its own. That does
      not hold for a leader of an *older* term: cut off, it may hold its own entries at the
      indexes that its successor commits, and followers that it reaches hold them too, until they
      are replaced.
    """

    title = "Committed never changes"
    source = (
        "Raft paper, sections 5.4.2 and 5.4.3; dissertation 3.6; "
        "CommittedLogAppendOnlyProp and LogInv in ccfraft.tla"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._committed: dict[Index, _Committed] = {}
        """Without gaps from index 1 on."""
        self._known: dict[ServerId, Index] = {}
        """What each server has ever known to be committed, in any of its processes."""
        self._processes: dict[ServerId, _Process] = {}

    def started(self, server: Server) -> None:
        self._processes[server.id] = _Process(server.process)
        self._known.setdefault(server.id, 0)

    def appended(
        self, server: Server, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> None:
        known = self._known.get(server.id, 0)
        if not entries or entries[0].index > known:
            return
        for entry in entries:
            if entry.index > known:
                return
            self._compare(server, entry, "writes to its disk")
        assert entries[-1].index >= known, (
            f"{server.id} deletes what it knew to be committed from its disk: expected to keep "
            f"index {known}, found a write that ends with index {entries[-1].index} of term "
            f"{entries[-1].term}"
        )

    def committed(
        self, server: Server, configuration: Configuration, old: Index, new: Index
    ) -> None:
        log, term = server.raft.log, server.raft.current_term
        assert old <= len(self._committed), (
            f"{server.id}, leader of term {term}, counts on from index {old}, which nobody has "
            f"committed: expected at most {len(self._committed)}"
        )
        if old > log.base_index:
            # By Log Matching this speaks for everything below as well.
            self._compare(server, log.entry(old), "commits on top of")
        for entry in log.entries(old + 1, new):
            known = self._committed.get(entry.index)
            if known is None:
                self._committed[entry.index] = _Committed(content(entry), term, server.id)
            else:
                self._compare(server, entry, "commits")
                known.committed_in = min(known.committed_in, term)

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._compare(server, entry, "applies")

    def restored(self, server: Server, snapshot: Snapshot) -> None:
        index, term = snapshot.id.last_included_index, snapshot.id.last_included_term
        known = self._committed.get(index)
        assert known is not None, (
            f"{server.id} installs a snapshot up to entry {index}, which no leader has committed: "
            f"expected at most index {len(self._committed)}"
        )
        assert known.content[0] == term, (
            f"{server.id} installs a snapshot of another log: expected that entry {index} is of "
            f"term {known.content[0]}, found {term}"
        )

    def turned(self, server: Server) -> None:
        raft = server.raft
        process = self._processes[server.id]
        commit_index = raft.log.commit_index
        if isinstance(raft.role, Leader) and raft.current_term != process.led_term:
            process.led_term = raft.current_term
            self._look_at_leader(server)
        if commit_index == process.known:
            return
        self._look_at_commit(server, commit_index)
        process.known = commit_index

    def _look_at_commit(self, server: Server, commit_index: Index) -> None:
        """Compare what the server knows to be committed now and has never known before."""
        log = server.raft.log
        known = self._known[server.id]
        if commit_index <= known:
            # It has started again and learns what it knew, and its log is that of its disk.
            # What is at or below its base came with a snapshot, which was looked at then.
            for entry in log.entries(commit_index, commit_index):
                self._compare(server, entry, "believes committed")
            return
        for entry in log.entries(known + 1, commit_index):
            self._compare(server, entry, "believes committed")
        assert log.last_index >= commit_index, (
            f"{server.id} believes index {commit_index} committed in term "
            f"{server.raft.current_term} and does not have it: expected an entry there, found its "
            f"last one at {log.last_index}"
        )
        self._known[server.id] = commit_index

    def _look_at_leader(self, server: Server) -> None:
        log, term = server.raft.log, server.raft.current_term
        index = max(self._known[server.id], log.base_index) + 1
        while index in self._committed and self._committed[index].committed_in < term:
            known = self._committed[index]
            found = content(log.entry(index)) if index <= log.last_index else None
            assert found == known.content, (
                f"{server.id} leads in term {term} and has another entry at index {index} than "
                f"{known.leader} committed in term {known.committed_in}: expected "
                f"{in_words(known.content)}, found {in_words(found)}"
            )
            index += 1

    def _compare(self, server: Server, entry: Entry, does: str) -> None:
        known = self._committed.get(entry.index)
        found = content(entry)
        assert known is not None, (
            f"{server.id} {does} entry {entry.index}, which no leader has committed: expected at "
            f"most index {len(self._committed)}, found {in_words(found)}"
        )
        assert found == known.content, (
            f"{server.id} {does} another entry at index {entry.index} than {known.leader} "
            f"committed in term {known.committed_in}: expected {in_words(known.content)}, found "
            f"{in_words(found)}"
        )
