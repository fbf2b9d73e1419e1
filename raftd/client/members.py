"""Whom a client may ask: the addresses that it was given, and what servers have told it since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raftd.client.errors import ConnectionProblem
from raftd.config_values import parse_address
from raftd.core.types import ServerId, server_name
from raftd.protocol import (
    ConfigurationView,
    ErrorReply,
    OperationsReply,
    Reply,
    StatusReply,
    Welcome,
)

LEARNED_ADDRESSES_MAX = 1_000
"""Far more than a cluster has; a server that talks nonsense cannot fill our memory."""


class Members:
    """The servers of one cluster, as far as a client knows.

    Takes the addresses to start with and learns those of all members from what servers say, so
    that a client goes on when every server that it started with has been replaced.

    Args:
        addresses: HOST:PORT, at least one, in the order in which to ask.
        names: of the servers that are expected there, as far as somebody has said.
        cluster_name: of the cluster that is meant; empty if any is.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        names: Mapping[str, str] | None = None,
        cluster_name: str = "",
    ) -> None:
        self.given = tuple(addresses)
        self.names: dict[str, str] = dict(names or {})
        """The name of the server at each address, where it is known."""
        self.cluster_id = ""
        """Of the first member that answered; servers of other clusters are not asked."""
        self._cluster_name = cluster_name
        self._learned: dict[str, None] = {}
        self._leader_address = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that may be dialled: those it started with, then the learned ones."""
        return tuple(dict.fromkeys((*self.given, *self._learned)))

    def label(self, address: str) -> str:
        """Return name and address of a server, or the address alone."""
        name = self.names.get(address, "")
        return f"{name} {address}" if name else address

    def leader_first(self) -> list[str]:
        """Return all addresses in the order in which it makes sense to ask for the leader."""
        first = (self._leader_address,) if self._leader_address else ()
        return list(dict.fromkeys((*first, *self.addresses)))

    def remember_leader(self, address: str) -> None:
        """Ask the server at `address` first from now on; empty forgets the leader."""
        self._leader_address = address

    def forget_leader(self, address: str) -> None:
        """Do not ask the server at `address` first any more, unless another one is by now."""
        if self._leader_address == address:
            self._leader_address = ""

    def admit(self, address: str, welcome: Welcome) -> None:
        """Note who answers at `address`.

        Raises:
            ConnectionProblem: it belongs to another cluster.
        """
        self.names[address] = server_name(welcome.server) or self.names.get(address, "")
        named = self._cluster_name
        if named and welcome.cluster_name not in ("", named):
            # Whoever gives a file means its cluster, not the one that a wrong address leads to.
            raise ConnectionProblem(
                address,
                "other-cluster",
                f"it belongs to the cluster {welcome.cluster_name!r}, the file describes {named!r}",
            )
        if welcome.cluster_id:
            self.cluster_id = self.cluster_id or welcome.cluster_id
            if welcome.cluster_id != self.cluster_id:
                raise ConnectionProblem(
                    address,
                    "other-cluster",
                    f"it belongs to another cluster ({welcome.cluster_id}, not {self.cluster_id})",
                )

    def learn(self, server: ServerId, address: str) -> None:
        """Remember that `server` can be dialled at `address`, HOST:PORT."""
        try:
            parse_address(address)
        except ValueError:
            return
        if len(self._learned) < LEARNED_ADDRESSES_MAX:
            self._learned.setdefault(address)
            self.names.setdefault(address, server_name(server))

    def learn_from(self, reply: Reply) -> None:
        """Remember every address that `reply` names."""
        if isinstance(reply, StatusReply):
            self._learn_configuration(reply.configuration)
            self.learn(reply.leader, reply.leader_address)
        elif isinstance(reply, ErrorReply):
            self.learn(reply.leader, reply.leader_address)
        elif isinstance(reply, OperationsReply):
            for view in reply.operations:
                if view.record.running:
                    plan = view.record.plan
                    for server, address in {**plan.addresses, **plan.moved}.items():
                        self.learn(server, address)

    def _learn_configuration(self, configuration: ConfigurationView | None) -> None:
        if configuration is not None:
            for server, address in configuration.addresses.items():
                self.learn(server, address)
