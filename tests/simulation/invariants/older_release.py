"""Nobody who runs an older release ever meets what that cannot apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgpack

from raftd import commands
from raftd.commands import (
    BeginOperation,
    BeginRolling,
    DeleteMany,
    Increment,
    PutMany,
    SwitchOn,
    UpdateRolling,
    decode_command,
)
from raftd.core.leader import Leader
from raftd.core.membership import decode_configuration
from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId
from tests.simulation.invariants import Durable, Invariant, Server

_SINCE = {
    **dict.fromkeys((SwitchOn, BeginRolling, UpdateRolling), 3),
    **dict.fromkeys((Increment, PutMany, DeleteMany), 4),
}
"""The version of the protocol whose release knows a command; the others are known to all."""
_LATER_COMMANDS = {commands._CODES[kind]: (kind.__name__, since) for kind, since in _SINCE.items()}
_SINCE_ADMINISTRATION = 3
"""Likewise, for what operations say beyond those of the first release."""


class OlderRelease(Invariant):
    """Features are switched on only once every member has a release that can apply them.

    Neither a member nor a server that was left out and is still fed has an older one, in the
    moment when a leader appends the entry, and when it is committed. So no server of an older
    release applies an entry, or starts from a state, that it does not know; as long as there is
    one, everybody writes what it would write.
    """

    title = "An older release meets only what it knows"
    source = "none of Raft's; an upgrade of one server at a time"

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._versions: dict[ServerId, int] = {}
        """Of the process of each that has started last."""
        self._members: frozenset[ServerId] = frozenset()
        """Of the configuration that was committed last."""
        self._seen: Index = 0

    def started(self, server: Server) -> None:
        self._versions[server.id] = server.version
        self._look_at_state(server, "starts from")

    def restored(self, server: Server, snapshot: Snapshot) -> None:
        self._look_at_state(server, "has installed")

    def appended(
        self, server: Server, hard_state: HardState | None, entries: Sequence[Entry]
    ) -> None:
        for entry in entries:
            if _code(entry) != commands._CODES[SwitchOn]:
                continue
            raft = server.raft
            if isinstance(raft.role, Leader) and entry.term == raft.current_term:
                self._look_at_versions(entry, {server.id, *raft.addresses()}, "is appended")

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        for entry in entries:
            problem = _unknown(entry, server.version)
            assert not problem, (
                f"{server.id} speaks version {server.version} and has applied entry "
                f"{entry.index}: {problem}"
            )
            if entry.index <= self._seen:
                continue
            self._seen = entry.index
            if entry.kind is EntryKind.CONFIGURATION:
                self._members = decode_configuration(entry.data).configuration.members
            elif _code(entry) == commands._CODES[SwitchOn]:
                self._look_at_versions(entry, self._members, "is committed")

    def _look_at_versions(
        self, entry: Entry, concerned: frozenset[ServerId] | set[ServerId], what: str
    ) -> None:
        body = decode_command(entry.data).body
        assert isinstance(body, SwitchOn)
        old = sorted(s for s in concerned if self._versions.get(s, 0) < body.version)
        assert not old, (
            f"entry {entry.index}, which switches on the features of version {body.version}, "
            f"{what} while {', '.join(old)} cannot apply them"
        )

    def _look_at_state(self, server: Server, what: str) -> None:
        features = server.state.features
        assert server.version >= features, (
            f"{server.id} speaks version {server.version} and {what} a state with the features of "
            f"version {features}"
        )


def _code(entry: Entry) -> int:
    """Return what kind of command an entry has; 0 for none."""
    if entry.kind != EntryKind.COMMAND:
        return 0
    code: int = msgpack.unpackb(entry.data)[0]
    return code


def _unknown(entry: Entry, version: int) -> str:
    """Return what of an entry a release does not know; empty if nothing."""
    code = _code(entry)
    name, since = _LATER_COMMANDS.get(code, ("", 0))
    if version < since:
        return name
    if code == commands._CODES[BeginOperation] and version < _SINCE_ADMINISTRATION:
        fields = msgpack.unpackb(entry.data)[4]
        later = [name for name in ("parent",) if name in fields]
        later += [name for name in ("moved",) if name in fields["plan"]]
        return f"BeginOperation with {', '.join(later)}" if later else ""
    return ""
