"""Where members answer, which need not be where the configuration in force says.

All servers of a cluster may have moved while they were stopped. Their log has the old addresses
then, and they find each other by those of their cluster files (`raftd.network.links`). Until
`raftctl readdress` has written the truth into the log, clients are sent to where the links work.

| whose address | where it answers |
|---|---|
| another member, its link is up | there |
| another member | as the latest configuration says |
| our own | as our cluster file says, unless a configuration has changed it since we started |
"""

from __future__ import annotations

from collections.abc import Mapping

from raftd.core.raft import Raft
from raftd.core.types import ServerId, server_name
from raftd.inputs import LinkChanged
from raftd.planning import is_same_address
from raftd.views import member_address


class Whereabouts:
    """What one server knows about the addresses of the members."""

    def __init__(self, own_address: str, links: Mapping[ServerId, LinkChanged], raft: Raft) -> None:
        """Note what the log says of this server when its process starts.

        Args:
            own_address: what its cluster file says.
            links: the latest news of each link; looked at whenever it is asked.
        """
        self._own_address = own_address
        self._links = links
        self._address_at_start = member_address(raft, raft.server)

    def address(self, raft: Raft, server: ServerId) -> str:
        """Return HOST:PORT where `server` answers, as far as is known; empty if nothing is."""
        if server == raft.server:
            return self._own_address if self._has_moved(raft) else member_address(raft, server)
        link = self._links.get(server)
        if link is not None and link.connected and link.address:
            return link.address
        return member_address(raft, server)

    def problems(self, raft: Raft) -> list[str]:
        """Return in words that file and log differ about this server; empty if they do not."""
        if not self._has_moved(raft):
            return []
        latest = raft.configuration
        assert latest is not None
        name, listed = server_name(raft.server), member_address(raft, raft.server)
        return [
            f"its cluster file says that it is at {self._own_address}, configuration "
            f"{latest.index} says {listed}: if it has moved, run raftctl readdress "
            f"{name}={self._own_address} (or raftctl apply -f FILE for all); else correct its file"
        ]

    def _has_moved(self, raft: Raft) -> bool:
        """Whether our file names another address than the log, and the log is not the newer one."""
        listed = member_address(raft, raft.server)
        return (
            bool(listed)
            and listed == self._address_at_start
            and not is_same_address(listed, self._own_address)
        )
