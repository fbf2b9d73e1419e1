"""One membership change at a time, and each joint entry is left once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import attrs

from raftd.core.leader import Leader
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    decode_configuration,
)
from raftd.core.messages import AppendEntries, Envelope
from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId, Term
from tests.simulation.invariants import Durable, Invariant, Server

_LEAVES_JOINT = (ConfigurationKind.FINAL, ConfigurationKind.ABORT)
_BEGINS = (ConfigurationKind.SIMPLE, ConfigurationKind.JOINT)

_decoded: Callable[[bytes], ConfigurationEntry] = lru_cache(maxsize=1024)(decode_configuration)


@attrs.frozen
class _At:
    index: Index
    term: Term
    entry: ConfigurationEntry

    def __str__(self) -> str:
        return (
            f"{self.entry.kind.name} at index {self.index} of term {self.term}, "
            f"{self.entry.configuration}"
        )


@attrs.define
class _Leading:
    """What a leader has appended and counted in its term."""

    process: int
    term: Term
    looked_at: Index
    """Entries up to here were looked at."""
    latest: _At | None
    """The newest configuration among them."""
    counted: Index = 0
    """Its commit index, as far as it has counted itself in this term."""
    counted_jointly: Index = 0
    """The same, counted under two majorities."""


class OneUnfinishedConfiguration(Invariant):
    """A change begins when the one before has ended, and a joint entry is followed by its end.

    In every log, whoever wrote it, configurations follow each other like this: first BOOTSTRAP,
    at index 1; after JOINT one FINAL or one ABORT of just that entry; and neither of them
    elsewhere. So a log has at most one FINAL or ABORT for each JOINT. It is not so for two logs:
    a leader that does not know of its predecessor's FINAL may append its own, or an ABORT, and at
    most one of them is ever committed.

    What a leader appends in its own term stands on what it has committed in that term:

    | it appends | when it has committed, in this term |
    |---|---|
    | SIMPLE, JOINT | at or after the configuration before, which is not joint |
    | FINAL | at or after JOINT, under both majorities |
    | ABORT | the same, or nothing if JOINT is its own of this term |

    What it inherits says nothing: after a restart it knows of no commit at all.
    """

    title = "One unfinished configuration at a time"
    source = (
        "Raft paper, section 6; dissertation 4.1 and 4.3, and the correction to single-server "
        "changes of 2015; MaxOneReconfigurationAtATime in RaftWithReconfigJointConsensus.tla"
    )

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._stored: dict[ServerId, list[_At]] = {}
        """The configurations on each disk, oldest first."""
        self._leading: dict[ServerId, _Leading] = {}

    # --- any log ---

    def started(self, server: Server) -> None:
        self._stored[server.id] = []
        self._store(server, server.durable.entries)

    def appended(
        self, server: Server, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> None:
        if entries:
            self._store(server, entries)

    def restored(self, server: Server, snapshot: Snapshot) -> None:
        self._stored[server.id] = []
        self._store(server, server.durable.entries)

    def _store(self, server: Server, entries: Iterable[Entry]) -> None:
        stored = self._stored.setdefault(server.id, [])
        first = next(iter(entries), None)
        while first is not None and stored and stored[-1].index >= first.index:
            stored.pop()
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                found = _at(entry)
                _check_order(server, stored[-1] if stored else None, found)
                stored.append(found)

    # --- a leader's own ---

    def committed(
        self, server: Server, configuration: Configuration, old: Index, new: Index
    ) -> None:
        leading = self._leading_of(server)
        assert leading is not None, f"{server.id} commits index {new} and does not lead"
        # C_new is appended by the call that counts, so it may be in the log already. Whatever
        # else is in the log was appended when the leader had not counted this yet.
        if configuration.outgoing:
            leading.counted_jointly = new
        self._look(server, leading)
        leading.counted = new

    def sent(self, server: Server, envelope: Envelope) -> None:
        if isinstance(envelope.message, AppendEntries):
            self._look(server, self._leading_of(server))

    def turned(self, server: Server) -> None:
        if isinstance(server.raft.role, Leader):
            self._look(server, self._leading_of(server))

    def _leading_of(self, server: Server) -> _Leading | None:
        raft = server.raft
        if not isinstance(raft.role, Leader):
            return None
        leading = self._leading.get(server.id)
        if (
            leading is None
            or leading.term != raft.current_term
            or leading.process != server.process
        ):
            leading = self._leading[server.id] = self._begin(server)
        return leading

    def _begin(self, server: Server) -> _Leading:
        log, term = server.raft.log, server.raft.current_term
        inherited = log.last_index
        while log.term_at(inherited) == term:
            inherited -= 1
        # Whoever leads has been a candidate, and a candidate's log is on its disk.
        before = [at for at in self._stored[server.id] if at.index <= inherited]
        return _Leading(server.process, term, inherited, before[-1] if before else None)

    def _look(self, server: Server, leading: _Leading | None) -> None:
        log = server.raft.log
        if leading is None or leading.looked_at == log.last_index:
            return
        for entry in log.entries(leading.looked_at + 1, log.last_index):
            if entry.kind is EntryKind.CONFIGURATION:
                found = _at(entry)
                _check_order(server, leading.latest, found)
                _check_ground(server, leading, found)
                leading.latest = found
        leading.looked_at = log.last_index


def _at(entry: Entry) -> _At:
    return _At(entry.index, entry.term, _decoded(entry.data))


def _check_order(server: Server, before: _At | None, found: _At) -> None:
    """Assert that a configuration may follow another one in a log."""
    kind, configuration = found.entry.kind, found.entry.configuration
    if before is None or kind is ConfigurationKind.BOOTSTRAP:
        assert (before, kind, found.index) == (None, ConfigurationKind.BOOTSTRAP, 1), (
            f"the log of {server.id} has {found} after {before}: expected BOOTSTRAP at index 1, "
            "and only there"
        )
        return
    is_joint = before.entry.kind is ConfigurationKind.JOINT
    assert (kind in _LEAVES_JOINT) == is_joint, (
        f"the log of {server.id} has two unfinished changes, or one that was ended twice: expected "
        f"{'FINAL or ABORT' if is_joint else 'SIMPLE or JOINT'} after {before}, found {found}"
    )
    old = before.entry.configuration
    expected = {
        ConfigurationKind.SIMPLE: Configuration(voters=old.voters),
        ConfigurationKind.JOINT: Configuration(voters=configuration.voters, outgoing=old.voters),
        ConfigurationKind.FINAL: Configuration(voters=old.voters),
        ConfigurationKind.ABORT: Configuration(voters=old.outgoing),
    }[kind]
    assert (configuration.voters, configuration.outgoing) == (
        expected.voters,
        expected.outgoing,
    ), f"the log of {server.id} has {found} after {before}: expected the votes of {expected}"


def _check_ground(server: Server, leading: _Leading, found: _At) -> None:
    """Assert that a leader was allowed to append a configuration when it did."""
    kind, before = found.entry.kind, leading.latest
    assert before is not None
    if kind in _BEGINS:
        needed, counted, how = max(before.index, 1), leading.counted, "committed"
    else:
        needed, counted, how = before.index, leading.counted_jointly, "committed jointly"
        if kind is ConfigurationKind.ABORT and before.term == leading.term:
            return
    assert counted >= needed, (
        f"{server.id}, leader of term {leading.term}, has appended {found} too early: expected "
        f"index {needed} {how} in this term before, found {counted}; the configuration before "
        f"was {before}"
    )
