"""The history lists exactly the configurations that were committed since it began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import msgpack

from raftd import commands
from raftd.commands import ConfigurationRecord, SwitchOn, decode_command
from raftd.core.membership import decode_configuration
from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, EntryKind, Index, ServerId
from raftd.storage import history
from raftd.storage.history import configuration_record
from tests.simulation.invariants import Durable, Invariant, Server

_BYTES_MAX = 1 << 40
"""As many as there are."""


class CompleteHistory(Invariant):
    """On every server the history has what was committed, in order, from where it began.

    It begins with the configuration that is in force when the features are switched on. Looked at
    is what a server has added since the last look, and all of it after a start or an install; what
    the records take from their operations is compared by Equal State.
    """

    title = "The history is complete"
    source = "none of Raft's; the state machine's promise"

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._seen: Index = 0
        self._in_force: Entry | None = None
        """The configuration entry that was committed last."""
        self._has_begun = False
        self._expected: list[ConfigurationRecord] = []
        self._known_from: list[Index] = []
        """The entry with which each of them came into the history."""
        self._looked_at: dict[tuple[ServerId, int], int] = {}
        """How many of them a process had when it was looked at last."""

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.index > self._seen:
                self._seen = entry.index
                self._take_in(entry)
        looked_at = self._looked_at.get((server.id, server.process), 0)
        count = self._count(server.state.applied_index)
        if count != looked_at:
            self._compare(server, count, count - looked_at)

    def started(self, server: Server) -> None:
        self._look_at_all(server)

    def restored(self, server: Server, snapshot: Snapshot) -> None:
        self._look_at_all(server)

    def _take_in(self, entry: Entry) -> None:
        if entry.kind is EntryKind.CONFIGURATION:
            self._in_force = entry
            if self._has_begun:
                self._expect(entry, entry.term, entry.index)
        elif not self._has_begun and entry.kind is EntryKind.COMMAND:
            if msgpack.unpackb(entry.data)[0] != commands._CODES[SwitchOn]:
                return
            body = decode_command(entry.data).body
            assert isinstance(body, SwitchOn)
            self._has_begun = True
            assert self._in_force is not None
            term = body.configuration_term
            assert term in (0, self._in_force.term), (
                f"entry {entry.index} says that configuration {self._in_force.index} is of term "
                f"{term}: expected {self._in_force.term}"
            )
            self._expect(self._in_force, term, entry.index)

    def _expect(self, configuration: Entry, term: int, known_from: Index) -> None:
        decoded = decode_configuration(configuration.data)
        self._expected.append(configuration_record(decoded, configuration.index, term, None))
        self._known_from.append(known_from)

    def _count(self, index: Index) -> int:
        """Return how many records there are once the entry at `index` is applied."""
        count = len(self._known_from)
        while count and self._known_from[count - 1] > index:
            count -= 1
        return count

    def _look_at_all(self, server: Server) -> None:
        count = self._count(server.state.applied_index)
        self._compare(server, count, count)
        kept = min(count, history.HISTORY_MAX)
        _, more = server.state.history(max(1, kept), 0, _BYTES_MAX)
        assert not more, f"{server.id} has more than {kept} records of the past"

    def _compare(self, server: Server, count: int, newest: int) -> None:
        """Compare the newest records, and one before them, of `count` that there should be."""
        self._looked_at[server.id, server.process] = count
        wanted = self._expected[max(0, count - min(newest + 1, history.HISTORY_MAX)) : count]
        found, _ = server.state.history(max(1, len(wanted)), 0, _BYTES_MAX)
        told = [_without_operation(record) for record in reversed(found)]
        expected = [_without_operation(record) for record in wanted]
        assert told == expected, (
            f"the history of {server.id} (process {server.process}, {server.state.applied_index} "
            f"applied) has {_indexes(found[::-1])} as its newest: expected {_indexes(wanted)}; "
            f"found {told}, expected {expected}"
        )
        is_complete = count > 0 and self._expected[0].index == 1 and count <= history.HISTORY_MAX
        assert server.state.history_is_complete == is_complete, (
            f"{server.id} says that its history is "
            f"{'complete' if server.state.history_is_complete else 'incomplete'}"
        )


def _without_operation(record: ConfigurationRecord) -> ConfigurationRecord:
    return attrs.evolve(record, operation_kind="", parent="", phases=(), author="", reason="")


def _indexes(records: Sequence[ConfigurationRecord]) -> list[Index]:
    return [record.index for record in records]
