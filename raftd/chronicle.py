"""The latest things that an operator would want to know, kept in memory for whoever looks.

Each is one line: who leads and since when, what becomes of configurations, which links went down,
whether the disk has become slow. They are told from what has changed between two looks, so a server
that is busy does nothing for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from raftd.activity import NoticeView
from raftd.cluster_status.members import display_names
from raftd.cluster_status.words import natural_key
from raftd.core.leader import Leader
from raftd.core.membership import ConfigurationEntry, ConfigurationKind
from raftd.core.raft import Candidate, Raft
from raftd.core.types import Index, ServerId, Term, server_name
from raftd.inputs import LinkChanged

NOTICES_MAX = 50
"""More than fit a screen."""
TEXT_CHARACTERS_MAX = 300
"""Of one: it may repeat what another server says."""


class Chronicle:
    """The latest notices of one server."""

    def __init__(self, wall_clock_ms: Callable[[], int]) -> None:
        """Begin without one."""
        self.notices: deque[NoticeView] = deque(maxlen=NOTICES_MAX)
        """The newest last."""
        self._wall_clock_ms = wall_clock_ms
        self._led: tuple[Term, ServerId | None] = (0, None)
        self._campaign_term: Term = 0
        self._configuration_index: Index | None = None
        """The latest that was told, or that a start has found."""
        self._found_index: Index = 0
        """The latest that a start has found; what is applied up to it happened before."""
        self._connected: dict[ServerId, bool] = {}
        self._problems: frozenset[str] = frozenset()

    def note(self, kind: str, text: str) -> None:
        """Add one that is happening now.

        Args:
            kind: as in `raftd.activity.NoticeView`.
            text: one sentence.
        """
        self.notices.append(
            NoticeView(time_ms=self._wall_clock_ms(), kind=kind, text=text[:TEXT_CHARACTERS_MAX])
        )

    def follow(self, raft: Raft) -> None:
        """Add what has changed about leader and configuration; the first call only looks."""
        term, leader = raft.current_term, raft.leader_id
        if (term, leader) != self._led:
            self._note_leader(raft, leader)
            self._led = term, leader
        if isinstance(raft.role, Candidate) and self._campaign_term != term:
            self._campaign_term = term
            self.note("election", f"campaigns in term {term}")
        latest = raft.configuration
        if self._configuration_index is None:
            # What a start finds is no news.
            self._found_index = latest.index if latest is not None else 0
            self._configuration_index = self._found_index
        if latest is None:
            return
        if latest.index != self._configuration_index:
            self._note_configuration(latest.index, latest.entry)
        members = latest.configuration.members
        for server in self._connected.keys() - members:
            del self._connected[server]

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
        self._configuration_index = index
        of = f" of {entry.operation}" if entry.operation else ""
        self.note("configuration", f"{_what(index, entry)}{of} is in force: {_who(entry)}")

    def committed(self, index: Index, entry: ConfigurationEntry) -> None:
        """Add that a configuration is committed."""
        if index <= self._found_index:
            return
        if index > (self._configuration_index or 0):
            self._note_configuration(index, entry)
        self.note("configuration", f"{_what(index, entry)} is committed")

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

    def snapshot(self, included_index: Index, *, installed: bool) -> None:
        """Add that there is a newer snapshot, taken here or sent by a leader."""
        how = "a snapshot of the leader was put in force" if installed else "took a snapshot"
        self.note("snapshot", f"{how}, which includes entry {included_index}")

    def problems(self, found: Mapping[str, str]) -> None:
        """Add what has become a problem, and what is none any more.

        Args:
            found: all of now, in words, by what stays the same while the words change.
        """
        for key, words in found.items():
            if key not in self._problems:
                self.note("disk" if "disk" in key else "warning", words)
        for key in self._problems - found.keys():
            self.note("disk" if "disk" in key else "warning", f"no longer: {key}")
        self._problems = frozenset(found)


_WORDS = {
    ConfigurationKind.JOINT: "C_old,new",
    ConfigurationKind.FINAL: "C_new",
    ConfigurationKind.ABORT: "C_old, again,",
}


def _what(index: Index, entry: ConfigurationEntry) -> str:
    return f"{_WORDS.get(entry.kind, 'the configuration')} at index {index}"


def _who(entry: ConfigurationEntry) -> str:
    configuration = entry.configuration
    names = display_names(configuration.members)

    def listed(servers: Iterable[ServerId]) -> str:
        return " ".join(sorted((names[server] for server in servers), key=natural_key))

    voters = listed(configuration.voters)
    if configuration.is_joint:
        voters = f"{listed(configuration.outgoing)} and {voters}"
    learners = listed(configuration.learners)
    return f"voters {voters}; learners {learners}" if learners else f"voters {voters}"
