"""The outbound connection to one member, kept up as long as the member is one.

Requests go out on it and their responses come back on it. Nothing is queued while it is down:
Raft sends again what got lost, and what waited would be stale.

A member may have two addresses: the one of the configuration in force, and the one that our cluster
file names for it, where these differ. Servers that moved while all of them were stopped find each
other by the second. Who answers has to be the member itself (`Hello.dest`), so that a wrong address
costs time and nothing else.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

import trio

from raftd.codec import decode_message
from raftd.core.messages import Envelope
from raftd.core.types import ServerId, server_name
from raftd.event_log import Sparing, left_out_words, tell
from raftd.network.connection import Connection
from raftd.network.dialling import Dial, DialError, Introduced, connect, introduce
from raftd.network.inputs import Inbox, LinkChanged, PeerRefused, Received
from raftd.protocol import Hello

logger = logging.getLogger("raftd.network")

OurHello: TypeAlias = Callable[[ServerId], Hello | None]
"""The Hello for the link to a server; None while there is no cluster to speak for."""

DIAL_TIMEOUT_SECONDS = 2.0
"""For connecting and both openings: room for one lost packet (TCP repeats it after a second)."""
RETRY_SECONDS_MIN = 0.005
"""First pause before dialling again, a fraction of any election timeout: a leader whose process has
ended is known by the second attempt at the latest."""
RETRY_SECONDS_MAX = 1.0
"""Longest pause. A restarted server dials us first, and that ends the pause."""
STABLE_SECONDS = 1.0
"""A link that lived this long starts over with the shortest pause; one that is accepted and then
dropped at once keeps backing off."""
LINES_MAX = 6
"""About one link in each `LINES_PERIOD_SECONDS`: it may break three times before it is too much."""
LINES_PERIOD_SECONDS = 60.0
PEER_OUTBOX_BYTES_MAX = 16 * 1024 * 1024
"""Two of the longest frames: several batches on their way to a server that is merely slow."""


def receive_messages(source: ServerId, dest: ServerId, payloads: Sequence[bytes]) -> list[Received]:
    """Return the messages in `payloads`, under the identities that the openings established.

    Raises:
        WireError: one of them is no message.
    """
    return [Received(Envelope(source, dest, decode_message(payload))) for payload in payloads]


class Link:
    """Dials `server` at its addresses, again and again, until it is closed."""

    def __init__(
        self,
        server: ServerId,
        addresses: tuple[str, ...],
        *,
        inbox: Inbox,
        dial: Dial,
        our_hello: OurHello,
        randomness: random.Random,
        is_heard: Callable[[ServerId], bool],
    ) -> None:
        """Prepare the link; nothing is dialled before `run`.

        Args:
            addresses: HOST:PORT, at least one, the one of the configuration first. In each attempt
                all of them are tried until one works, the one that worked last first.
            is_heard: returns whether a server has a connection to us.
        """
        assert addresses
        self.server = server
        self._addresses = addresses
        self._address = addresses[0]
        """The one that worked last, or the first one."""
        self._inbox = inbox
        self._dial = dial
        self._our_hello = our_hello
        self._randomness = randomness
        self._is_heard = is_heard
        self._scope = trio.CancelScope()
        self._sparing = Sparing(
            trio.current_time, lines_max=LINES_MAX, period_seconds=LINES_PERIOD_SECONDS
        )
        self._hurried = trio.Event()
        self.connection: Connection | None = None
        """The established connection; None while there is none."""
        self.redis_address = ""
        """Where it serves clients of the Redis protocol, as it said last; empty for nowhere."""
        self._problem: str | None = None
        """Why it is down, as last told; empty when it is up, None before the first attempt."""
        self._was_up = False
        self._nobody_listens = False
        """At the address that worked last, in the latest attempt."""
        self._process_ended = False
        """As last told."""

    def close(self) -> None:
        """End the link for good, without a word to the node: it is the node that wants it."""
        self._scope.cancel()

    def readdress(self, addresses: tuple[str, ...]) -> bool:
        """Use other addresses from now on; False if that takes another link.

        A connection that is up stays if it leads to the first of them.
        """
        if addresses != self._addresses:
            if self.connection is None or self._address != addresses[0]:
                return False
            self._addresses = addresses
        return True

    def hurry(self) -> None:
        """End the pause before the next attempt: the server has just shown that it is there."""
        self._hurried.set()

    async def run(self) -> None:
        """Keep the link up until `close`."""
        with self._scope:
            pause = RETRY_SECONDS_MIN
            while True:
                # Whoever hurries us from here on knows more than this attempt.
                self._hurried = trio.Event()
                lifetime = None
                hello = self._our_hello(self.server)
                if hello is not None:
                    if hello.source == self.server:
                        return
                    lifetime = await self._attempt(hello)
                if lifetime is not None and lifetime >= STABLE_SECONDS:
                    pause = RETRY_SECONDS_MIN
                # Jitter keeps servers that lost the same peer from dialling in step.
                with trio.move_on_after(self._randomness.uniform(pause / 2, pause)):
                    # Two servers whose links break as soon as they are up would hurry each other
                    # for ever.
                    hurried = self._hurried if lifetime is None else trio.Event()
                    await hurried.wait()
                pause = min(2 * pause, RETRY_SECONDS_MAX)

    async def _attempt(self, hello: Hello) -> float | None:
        """Dial and serve what comes of it; return how long it lived, None if never."""
        problems = {}
        self._nobody_listens = False
        for address in sorted(self._addresses, key=lambda address: address != self._address):
            found = await self._dial_one(address, hello)
            if isinstance(found, Introduced):
                self._address = address
                connected_at = trio.current_time()
                await self._serve(found, hello.source)
                return trio.current_time() - connected_at
            problems[address] = found
        if len(problems) > 1:
            told = [f"{problems[address]} at {address}" for address in self._addresses]
            self._went_down("; ".join(told))
        else:
            self._went_down(*problems.values())
        return None

    async def _dial_one(self, address: str, hello: Hello) -> Introduced | str:
        """Return the opened connection, or in words why there is none."""
        try:
            with trio.fail_after(DIAL_TIMEOUT_SECONDS):
                introduced = await introduce(await connect(self._dial, address), hello)
        except trio.TooSlowError:
            return f"no answer for {DIAL_TIMEOUT_SECONDS:.1f} s"
        except DialError as error:
            # That somebody else lives there is no word of the member.
            if error.refusal is not None and error.refusal.code != "identity":
                self._inbox.put_nowait(PeerRefused(self.server, error.refusal))
            if address == self._address:
                self._nobody_listens = error.nobody_listens
            return str(error)
        if introduced.welcome.server != self.server:
            await trio.aclose_forcefully(introduced.stream)
            return f"another server answers there: {introduced.welcome.server}"
        return introduced

    async def _serve(self, introduced: Introduced, us: ServerId) -> None:
        connection = Connection(
            introduced.stream,
            introduced.decoder,
            inbox=self._inbox,
            outbox_bytes_max=PEER_OUTBOX_BYTES_MAX,
            version=introduced.welcome.version,
        )

        def handle(payloads: Sequence[bytes]) -> None:
            self._inbox.arrived(receive_messages(self.server, us, payloads))

        self.connection = connection
        self.redis_address = introduced.welcome.redis
        self._came_up(connection.version)
        try:
            await connection.run(handle, introduced.payloads)
        finally:
            self.connection = None
        self._went_down(connection.problem)

    def _came_up(self, version: int) -> None:
        self._problem = ""
        self._was_up, self._process_ended = True, False
        if self._sparing.admits():
            tell(
                *(logger, "link-up", "link to %s at %s is up%s", self.server, self._address),
                left_out_words(self._sparing.left_out()),
                peer=self.server,
                address=self._address,
            )
        if self._address != self._addresses[0]:
            logger.warning(
                "%s answers at %s, as the cluster file says; the configuration says %s. To correct "
                "it: raftctl readdress %s=%s, or raftctl apply -f FILE",
                self.server,
                self._address,
                self._addresses[0],
                server_name(self.server),
                self._address,
            )
        self._inbox.put_nowait(LinkChanged(self.server, True, "", version, self._address))

    def _went_down(self, problem: str) -> None:
        # Of a link that never worked it is no news that nobody listens there. And a server that
        # still has its own connection to us is alive, whatever stands between us and its port.
        process_ended = self._was_up and self._nobody_listens and not self._is_heard(self.server)
        if problem == self._problem and process_ended == self._process_ended:
            return
        # One line for each outage; that it is now refused in another way is for status.
        if not self._problem and self._sparing.admits():
            tell(
                *(logger, "link-down", "link to %s at %s is down: %s; dialling again%s"),
                *(self.server, self._address, problem),
                left_out_words(self._sparing.left_out()),
                level=logging.WARNING,
                peer=self.server,
                address=self._address,
            )
        self._problem, self._process_ended = problem, process_ended
        self._inbox.put_nowait(
            LinkChanged(self.server, connected=False, problem=problem, process_ended=process_ended)
        )
