"""What a running server reads again when it gets SIGHUP: the cluster file, and what that names.

Each part takes the server as the file describes it now, and either is in force afterwards or leaves
all as it was. The others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from raftd.config import ClusterConfig, ConfigError, ServerConfig, load
from raftd.event_log import tell
from raftd.tls import TlsProblem

Part: TypeAlias = Callable[[ServerConfig], str]
"""Makes something of the file effective; returns what it did, in words, empty for nothing. Raises
`TlsProblem` where that is impossible; then what was in force stays."""

logger = logging.getLogger("raftd.reloading")


class Reloading:
    """The parts of one server that can be changed while it runs."""

    def __init__(
        self,
        cluster: ClusterConfig,
        server: ServerConfig,
        parts: Sequence[Part],
        fields: frozenset[str],
    ) -> None:
        """Prepare it.

        Args:
            cluster: the cluster file as it was read at the start.
            server: what it said about this server.
            parts: done in this order.
            fields: those of `ServerConfig` that the parts take care of.
        """
        self._path = cluster.path
        self._started_with = server
        self._parts = parts
        self._fields = fields

    def reload(self) -> None:
        """Read everything again, and log what became of it. Nothing is raised."""
        tell(logger, "reload", "reads %s again", self._path)
        try:
            server = load(self._path).servers.get(self._started_with.id)
        except ConfigError as error:
            self._refuse(f"the cluster file cannot be used: {error}")
            return
        if server is None:
            self._refuse(f"{self._path} does not name {self._started_with.id} any more")
            return
        for part in self._parts:
            try:
                done = part(server)
            except TlsProblem as problem:
                tell(logger, "reload", "what was in force stays: %s", problem, level=logging.ERROR)
                continue
            if done:
                tell(logger, "reload", "%s", done)
        late = [
            field.name
            for field in attrs.fields(ServerConfig)
            if field.name not in self._fields
            and getattr(server, field.name) != getattr(self._started_with, field.name)
        ]
        if (server.tls is None) != (self._started_with.tls is None):
            late.append("tls")
        if late:
            words = "takes effect at the next start only: %s"
            tell(logger, "reload", words, ", ".join(late), level=logging.WARNING)

    def _refuse(self, why: str) -> None:
        words = "all stays as it was, since %s"
        tell(logger, "reload", words, why, level=logging.ERROR)
