"""Only a completed removal removes a server for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raftd.core.membership import ConfigurationKind, decode_configuration
from raftd.core.types import Entry, EntryKind, Index, ServerId
from tests.simulation.invariants import Durable, Invariant, Server


class Removal(Invariant):
    """A server ends as removed only if a committed configuration has removed just that identity.

    What an abort or a change that failed leaves out may be added again with its data, so it is not
    removed for good; and no configuration lists an identity again after its removal.
    """

    title = "Only a completed removal is for good"
    source = "dissertation 4.2.2"

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._removed: dict[ServerId, Index] = {}
        self._seen: Index = 0

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        """Look at each committed configuration once."""
        for entry in entries:
            if entry.index <= self._seen:
                continue
            self._seen = entry.index
            if entry.kind is not EntryKind.CONFIGURATION:
                continue
            configuration = decode_configuration(entry.data)
            back = configuration.configuration.members & self._removed.keys()
            assert not back, f"configuration {entry.index} lists {sorted(back)} again"
            if configuration.tombstones:
                completes = configuration.outcome == "done" and configuration.kind in (
                    ConfigurationKind.FINAL,
                    ConfigurationKind.SIMPLE,
                )
                assert completes, (
                    f"configuration {entry.index} ({configuration.kind.value}, outcome "
                    f"{configuration.outcome!r}) removes for good: "
                    f"{sorted(configuration.tombstones)}"
                )
            for removed in configuration.tombstones:
                self._removed[removed] = entry.index

    def removed(self, server: Server) -> None:
        """Compare with what was committed."""
        assert server.id in self._removed, f"{server.id} ends as removed, and nobody removed it"
