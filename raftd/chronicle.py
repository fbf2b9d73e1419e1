"""The latest things that an operator would want to know, kept in memory for whoever looks.

Each is one line: who leads and since when, what becomes of configurations, which links went down,
whether the disk has become slow. They are told from what has changed between two looks, so a server
that is busy does nothing for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from raftd.core.leader import Leader
from raftd.core.membership import ConfigurationEntry
from raftd.core.raft import Candidate, Raft
from raftd.core.types import Index, ServerId, Term, server_name
from raftd.inputs import LinkChanged
from raftd.protocol import EventView

EVENTS_MAX = 50
"""More than fit a screen."""
TEXT_CHARACTERS_MAX = 300
"""Of one event: it may repeat what another server says."""


class Chronicle:
    """The latest events of one server."""

    def __init__(self, wall_clock_ms: Callable[[], int]) -> None:
        """Begin without an event."""
        self.events: deque[EventView] = deque(maxlen=EVENTS_MAX)
        """The newest last."""
        self._wall_clock_ms = wall_clock_ms
        self._led: tuple[Term, ServerId | None] = (0, None)
        self._campaign_term: Term = 0
        self._configuration_index: Index = 0
        self._connected: dict[ServerId, bool] = {}

    def note(self, kind: str, text: str) -> None:
        """Add an event that is happening now.

        Args:
            kind: as in `raftd.protocol.EventView`.
            text: one sentence.
        """
        self.events.append(
            EventView(time_ms=self._wall_clock_ms(), kind=kind, text=text[:TEXT_CHARACTERS_MAX])
        )

    def follow(self, raft: Raft) -> None:
        """Add what has changed about leader and configuration."""
        term, leader = raft.current_term, raft.leader_id
        if (term, leader) != self._led:
            self._note_leader(raft, leader)
            self._led = term, leader
        if isinstance(raft.role, Candidate) and self._campaign_term != term:
            self._campaign_term = term
            self.note("election", f"campaigns in term {term}")
        latest = raft.configuration
        index = latest.index if latest is not None else 0
        if latest is not None and index != self._configuration_index:
            # What a start finds is no news.
            if self._configuration_index or raft.now:
                self._note_configuration(index, latest.entry)
            self._configuration_index = index
            members = latest.configuration.members
            self._connected = {
                server: up for server, up in self._connected.items() if server in members
            }

    def _note_leader(self, raft: Raft, leader: ServerId | None) -> None:
        term, (_, before) = raft.current_term, self._led
        if isinstance(raft.role, Leader):
            self.note("leader", f"leads in term {term}")
        elif leader is not None:
            self.note("leader", f"follows {server_name(leader)} in term {term}")
        elif before is not None:
            who = "leads no longer" if before == raft.server else f"has lost {server_name(before)}"
            self.note("election", f"{who}, and knows no leader in term {term}")

    def _note_configuration(self, index: Index, entry: ConfigurationEntry) -> None:
        what = f"configuration {index} ({entry.kind.value}) is in force: {entry.configuration}"
        because = f"; {entry.operation}" if entry.operation else ""
        self.note("configuration", f"{what}{because}")

    def committed(self, index: Index, entry: ConfigurationEntry) -> None:
        """Add that a configuration is committed."""
        self.note("configuration", f"configuration {index} ({entry.kind.value}) is committed")

    def link(self, change: LinkChanged) -> None:
        """Add that a link is up, or that one is down that was up."""
        name, was = server_name(change.server), self._connected.get(change.server)
        if was == change.connected:
            return
        self._connected[change.server] = change.connected
        if change.connected:
            self.note("link", f"connected to {name}")
        elif was is not None:
            self.note("link", f"the connection to {name} is down: {change.problem}")
