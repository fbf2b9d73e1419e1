"""The network behind one object.

What the node calls on it never waits; what the node is told comes through the inbox.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import trio

from raftd.codec import encode_message
from raftd.core.messages import (
    AppendEntriesResponse,
    Envelope,
    InstallSnapshot,
    InstallSnapshotResponse,
    PreVoteResponse,
    ReadIndex,
    ReadIndexResponse,
    RequestVoteResponse,
    StateCheck,
    StateCheckResponse,
    StateVerdict,
)
from raftd.core.types import ServerId, server_name
from raftd.network.connection import Connection
from raftd.network.contacts import Contact
from raftd.network.dialling import Dial, dial_tcp, split_address
from raftd.network.inputs import Contacted, Inbox
from raftd.network.links import Link, OurHello
from raftd.network.listener import CONNECTIONS_MAX, Admit, Listener
from raftd.network.secured import dial_tls
from raftd.protocol import JoinRequest, Request
from raftd.tls import CurrentCredentials

CONTACTS_MAX = 160
"""Contacts at one time: every server of a large change, several changes being planned, and the
members that a checkup dials."""
CONTACTS_KEPT_FOR_JOINS = 32
"""Of these, as many as a change can bring in: one that runs goes on while others are planned, and
checkups made."""
PUSH_BYTES = 256 * 1024
"""So much is on its way before the next message is encoded: its receiver works meanwhile."""

_RESPONSES = (
    PreVoteResponse,
    RequestVoteResponse,
    AppendEntriesResponse,
    InstallSnapshotResponse,
    StateCheckResponse,
    ReadIndexResponse,
)
_SINCE_VERSION_2 = (
    InstallSnapshot,
    InstallSnapshotResponse,
    StateCheck,
    StateCheckResponse,
    StateVerdict,
)
_SINCE_VERSION_4 = (ReadIndex, ReadIndexResponse)
"""A server of an older release would close the connection for them."""


class Network:
    """Links to the members, the listener, and contacts with strangers.

    The composition root starts `run` and `serve` in one nursery and cancels both to end. All
    other methods are synchronous and never block; call them from the same trio thread. Our own
    identity is never stored: each connection carries the one that `admit` and `our_hello` gave
    it, since a blank server gets a cluster while it runs.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        admit: Admit,
        our_hello: OurHello,
        randomness: random.Random,
        dial: Dial = dial_tcp,
        connections_max: int = CONNECTIONS_MAX,
        file_addresses: Mapping[str, str] | None = None,
        credentials: CurrentCredentials | None = None,
    ) -> None:
        """Prepare the network; nothing is opened before `run` and `serve`.

        Args:
            inbox: where everything that happens is told.
            admit: decides about every inbound Hello; called synchronously.
            our_hello: the Hello for the link to a server, or None to not dial it now; asked again
                before each attempt.
            randomness: jitters the pauses between attempts.
            dial: opens a stream to HOST:PORT.
            connections_max: inbound connections at one time; the others are refused as `busy`.
            file_addresses: HOST:PORT of servers by name, as our cluster file has them: a member
                that does not answer where `set_members` says is dialled there too, as long as
                that is what it said of the member at first.
            credentials: all connections are encrypted, and both sides of them show certificates;
                `dial` is not used then. None: plain connections.
        """
        self._inbox = inbox
        self._our_hello = our_hello
        self._randomness = randomness
        self._credentials = credentials
        self.dial = dial if credentials is None else dial_tls(credentials)
        """Opens a stream to any server, HOST:PORT."""
        self._file_addresses = dict(file_addresses or {})
        self._first_addresses: dict[ServerId, str] = {}
        """Of the members, as `set_members` said first."""
        self._links: dict[ServerId, Link] = {}
        self._nursery: trio.Nursery | None = None
        self._contact_count = 0
        self.listener = Listener(
            inbox, admit, self._hurry, connections_max=connections_max, credentials=credentials
        )
        self.dropped_messages = 0
        """Raft messages that found no connection, or one whose outbox was full."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the links and contacts going until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for link in self._links.values():
                nursery.start_soon(link.run)
            task_status.started()
            await trio.sleep_forever()

    async def serve(
        self,
        listen_address: str,
        *,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen on HOST:PORT until cancelled; reports the bound addresses.

        Raises:
            OSError: the address is in use, or not one of this host.
            ValueError: not of the form HOST:PORT.
        """
        host, port = split_address(listen_address)
        await self.listener.serve(host, port, task_status=task_status)

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Send messages, in order for each addressee; those that cannot be queued are dropped.

        What the kernel takes is on its way when this returns. Requests go out on our own link.
        Responses go back on the newest connection of the server that asked, which it keeps even
        when we are not able to dial it.
        """
        if not envelopes:
            return
        offered: dict[Connection, None] = {}
        for envelope in envelopes:
            connection = self._connection_for(envelope)
            if (
                connection is None
                or not connection.accepts
                or (connection.version < 2 and isinstance(envelope.message, _SINCE_VERSION_2))
                or (connection.version < 4 and isinstance(envelope.message, _SINCE_VERSION_4))
            ):
                self.dropped_messages += 1
            else:
                connection.offer(encode_message(envelope.message), wake_writer=False)
                offered[connection] = None
                if connection.outbox_bytes >= PUSH_BYTES:
                    connection.push()
        for connection in offered:
            connection.push()

    def _connection_for(self, envelope: Envelope) -> Connection | None:
        if isinstance(envelope.message, _RESPONSES):
            return self.listener.peers.get(envelope.dest)
        link = self._links.get(envelope.dest)
        return link.connection if link is not None else None

    def set_members(self, addresses: Mapping[ServerId, str]) -> None:
        """Keep links to exactly these servers, except to ourselves.

        Links to others are closed, a changed address is dialled anew unless that is where the link
        leads already, the rest is left alone.
        """
        self._first_addresses = {
            server: self._first_addresses.get(server, address)
            for server, address in addresses.items()
        }
        for server, link in list(self._links.items()):
            if server not in addresses or not link.readdress(
                self._candidates(server, addresses[server])
            ):
                link.close()
                del self._links[server]
        for server, address in sorted(addresses.items()):
            if server in self._links:
                continue
            link = Link(
                server,
                self._candidates(server, address),
                inbox=self._inbox,
                dial=self._dial_member(server),
                our_hello=self._our_hello,
                randomness=self._randomness,
                is_heard=self.listener.peers.__contains__,
            )
            self._links[server] = link
            if self._nursery is not None:
                self._nursery.start_soon(link.run)

    def _dial_member(self, server: ServerId) -> Dial:
        if self._credentials is None:
            return self.dial
        return dial_tls(self._credentials, server_name(server))

    def _candidates(self, server: ServerId, address: str) -> tuple[str, ...]:
        if address != self._first_addresses[server]:
            # The log has news of it, which our file, read at the start, cannot have.
            return (address,)
        return tuple(
            dict.fromkeys((address, self._file_addresses.get(server_name(server), address)))
        )

    def redis_address(self, server: ServerId) -> str:
        """Return HOST:PORT where `server` serves clients of the Redis protocol; empty if unknown.

        It says so itself when our link to it comes up.
        """
        link = self._links.get(server)
        return link.redis_address if link is not None else ""

    def is_connected(self, server: ServerId) -> bool:
        """Return whether our own link to `server` is up."""
        link = self._links.get(server)
        return link is not None and link.connection is not None

    def close_peer(self, server: ServerId, problem: str) -> None:
        """Close the inbound connection of `server`, which then has to say Hello again."""
        connection = self.listener.peers.get(server)
        if connection is not None:
            connection.close(problem)

    def contact(
        self, token: object, address: str, requests: Sequence[Request], timeout_ms: float
    ) -> None:
        """Dial `address` as a client and send `requests`, each once the one before is answered.

        Ends with exactly one `Contacted` in the inbox, within `timeout_ms` altogether. A request
        that is answered with an `ErrorReply` is the last one. With too many contacts under way it
        is not tried, and says so. Call it while `run` runs.
        """
        assert self._nursery is not None, "contacts need the network to run"
        joins = any(isinstance(request, JoinRequest) for request in requests)
        if self._contact_count >= CONTACTS_MAX - (0 if joins else CONTACTS_KEPT_FOR_JOINS):
            self._inbox.put_nowait(
                Contacted(
                    token=token,
                    reply=None,
                    welcome=None,
                    problem=f"{address} was not tried: {self._contact_count} contacts are under "
                    "way",
                    tried=False,
                )
            )
            return
        self._contact_count += 1
        us = self._our_hello("")
        contact = Contact(token, address, requests, source=us.source if us is not None else "")
        self._nursery.start_soon(self._contact, contact, timeout_ms)

    async def _contact(self, contact: Contact, timeout_ms: float) -> None:
        try:
            contacted = await contact.run(self.dial, timeout_ms / 1000)
        finally:
            self._contact_count -= 1
        self._inbox.put_nowait(contacted)

    async def flush(self, timeout_ms: float) -> None:
        """Wait until everything that was queued has been handed to the system, or the time is up.

        For the end of the process: replies that are queued would be lost with it.
        """
        with trio.move_on_after(timeout_ms / 1000):
            for connection in self._connections():
                await connection.flush()

    def _connections(self) -> list[Connection]:
        outbound = [link.connection for link in self._links.values() if link.connection]
        return [*outbound, *self.listener.peers.values(), *self.listener.clients]

    def _hurry(self, server: ServerId) -> None:
        link = self._links.get(server)
        if link is not None:
            link.hurry()
