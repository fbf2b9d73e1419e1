"""A snapshot is the state that the committed entries up to its end make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raftd.core.membership import ConfigurationAt, decode_configuration
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, EntryKind, Index, ServerId, Term
from raftd.storage.state import read_head
from tests.simulation.invariants import Content, Durable, Invariant, Server


class SnapshotContent(Invariant):
    """A published snapshot has only what was committed, and is what a server had there.

    Its end is an entry that somebody has applied, of the same term; its configuration is the
    newest one up to there, with its own index, in its joint form if it is one; its contents are
    what the state machine of a server that has applied just that has held; and two snapshots that
    end at the same index are equal byte for byte, whoever took them.
    """

    title = "A snapshot is the state at its index"
    source = "dissertation 5.1 and 5.1.1; Raft paper, section 7"

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._terms: list[Term] = [0]
        """Of all entries that were applied by anybody, by their index."""
        self._configurations: list[ConfigurationAt] = []
        self._states: dict[Index, tuple[int, int]] = {}
        """By index: the hash of the contents and that of the effects, as somebody had them."""
        self._ids: dict[Index, tuple[SnapshotId, ServerId]] = {}

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        for entry in entries[len(self._terms) - entries[0].index :] if entries else ():
            self._terms.append(entry.term)
            if entry.kind is EntryKind.CONFIGURATION:
                found = ConfigurationAt(entry.index, decode_configuration(entry.data))
                self._configurations.append(found)
        hashes = (server.state_hash, server.state.effects_hash)
        self._states.setdefault(server.state.applied_index, hashes)

    def published(self, server: Server, snapshot: Snapshot, content: Content) -> None:
        index, term = snapshot.id.last_included_index, snapshot.id.last_included_term
        last = len(self._terms) - 1
        assert index <= last, (
            f"{server.id} publishes a snapshot up to entry {index}: expected at most {last}, which "
            "is all that anybody has applied"
        )
        assert term == self._terms[index], (
            f"{server.id} publishes a snapshot up to entry {index} of term {term}: expected that "
            f"of term {self._terms[index]}, which was committed"
        )
        expected = [at for at in self._configurations if at.index <= index]
        assert expected, f"{server.id} publishes a snapshot from before the first configuration"
        assert snapshot.configuration == expected[-1], (
            f"{server.id} publishes a snapshot up to entry {index} with another configuration: "
            f"expected {expected[-1].configuration} of index {expected[-1].index}, found "
            f"{snapshot.configuration.configuration} of index {snapshot.configuration.index}"
        )
        found = (content.state_hash, read_head(content).effects_hash)
        known = self._states.get(index)
        assert found == known, (
            f"{server.id} publishes a snapshot up to entry {index} with another state than the "
            f"servers had there: expected hashes {known}, found {found}"
        )
        id, first = self._ids.setdefault(index, (snapshot.id, server.id))
        assert id == snapshot.id, (
            f"{server.id} publishes another snapshot up to entry {index} than {first}: expected "
            f"{id.checksum} of {id.size_bytes} bytes, found {snapshot.id.checksum} of "
            f"{snapshot.id.size_bytes}"
        )
