"""Clients that write and read for as long as a test lets them, and remember what they were told."""

from __future__ import annotations

from random import Random

import attrs

from raftd.protocol import (
    DoneReply,
    ErrorReply,
    GetReply,
    GetRequest,
    OpenSessionRequest,
    PutRequest,
    Request,
    WriteReply,
)
from tests.node.world import Asked, Server, World

PATIENCE_TICKS = 20
"""A client asks another server when this one has been silent for so long."""


@attrs.define(eq=False)
class Client:
    """One session that counts upwards in a register of its own and leaves a key for each write."""

    world: World
    name: str
    random: Random
    serial: int = 0
    """Of the write that is under way, or of the last one."""
    acknowledged: int = 0
    reads: int = 0
    stopped: bool = False
    """Finish the write that is under way, begin no other."""
    _opened: bool = False
    _write: Asked | None = None
    _asked_at: int = 0
    _read: Asked | None = None
    _read_least: int = 0
    _hint: str = ""
    """The address of the leader, as far as the last answer said."""
    _address: str = ""
    """Of the server that was asked last."""

    def act(self) -> None:
        """Look at the answers that have come, and ask what is to be asked next."""
        self._look_at_read()
        if self._write is not None and not self._is_answered(self._write):
            return
        self._write = None
        if self._opened and self.serial == self.acknowledged:
            if self.stopped:
                return
            self.serial += 1
        self._write = self._ask(self._request())

    def read(self) -> None:
        """Begin a linearizable read of the register."""
        if self._read is None:
            self._read_least = self.acknowledged
            self._read = self._ask(GetRequest(key=f"{self.name}-register"))

    @property
    def finished(self) -> bool:
        """Whether every write that was begun is acknowledged."""
        return self._opened and self.serial == self.acknowledged

    def _request(self) -> Request:
        if not self._opened:
            return OpenSessionRequest(session=self.name)
        # Two keys in turn: the register, and one that is written once only.
        key = "register" if self.serial % 2 else f"{self.serial:06d}"
        return PutRequest(
            session=self.name,
            serial=self.serial,
            lowest_unacknowledged=self.acknowledged + 1,
            key=f"{self.name}-{key}",
            value=str(self.serial).encode(),
        )

    def _ask(self, request: Request) -> Asked:
        servers = self.world.up()
        hinted = [server for server in servers if server.address == self._hint]
        server: Server | None = None
        if hinted and self.random.random() < 0.9:
            server = hinted[0]
        elif servers:
            server = self.random.choice(servers)
        self._hint = ""
        self._asked_at = self.world.now
        if server is None:
            return Asked(request, lost=True)
        asked = self.world.ask_later(server, request)
        self._address = server.address
        return asked

    def _is_answered(self, asked: Asked) -> bool:
        """Return whether there is something to do about a write."""
        if asked.open:
            return self.world.now - self._asked_at > PATIENCE_TICKS
        reply = asked.reply
        if isinstance(reply, WriteReply):
            assert isinstance(asked.request, PutRequest)
            assert reply.applied
            self.acknowledged = asked.request.serial
            self._hint = self._address
        elif isinstance(reply, DoneReply):
            self._opened = True
            self._hint = self._address
        elif isinstance(reply, ErrorReply):
            assert reply.code in ("not-leader", "unavailable", "unknown-outcome"), reply
            self._hint = reply.leader_address
        return True

    def _look_at_read(self) -> None:
        asked = self._read
        if asked is None or (asked.open and self.world.now - self._asked_at <= PATIENCE_TICKS):
            return
        self._read = None
        reply = asked.reply
        if isinstance(reply, GetReply):
            self.reads += 1
            # The register holds the odd serials; what was acknowledged before has to be seen.
            least = self._read_least - (self._read_least + 1) % 2
            value = int(reply.value) if reply.found else -1
            assert value >= least, f"{self.name} reads {value}, {least} was acknowledged before"
