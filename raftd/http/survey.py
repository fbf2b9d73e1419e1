"""Asks the other servers how they see the cluster, so that one page shows all of it.

Every server that the configuration or the cluster file names is dialled as a client dials it, at
once and with a short time-out. That happens only while somebody looks, and once in a while however
many do (`FRESH_SECONDS`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import trio

from raftd.cluster_status.answers import Answer
from raftd.cluster_status.document import document
from raftd.cluster_status.view import ClusterView, view
from raftd.codec import WireError
from raftd.config_values import format_duration
from raftd.core.types import ServerId, server_name
from raftd.network.connection import describe
from raftd.network.dialling import Dial, DialError, connect, introduce
from raftd.protocol import (
    ActivityReply,
    ActivityRequest,
    ErrorReply,
    Hello,
    StatusReply,
    StatusRequest,
)

FRESH_SECONDS = 1.0
"""What was asked is good for so long."""
ANSWER_SECONDS = 1.0
"""For one server. All are asked at once."""
ADDRESSES_MAX = 64
"""Many more than a cluster has; a server that talks nonsense cannot make us dial the world."""
SETTLE_ATTEMPTS = 2
"""How often a look that shows nothing but differences of the moment is repeated."""
SETTLE_SECONDS = 0.1


@attrs.frozen(kw_only=True)
class Sight:
    """The cluster at one moment."""

    cluster: ClusterView
    leader_activity: ActivityReply | None
    """The last minutes of the leader; None where it cannot be asked."""
    document: dict[str, Any]
    """As `raftctl status -o json` prints it."""
    text: bytes
    """The same as JSON."""


@attrs.define
class _Found:
    answer: Answer
    activity: ActivityReply | None = None


class Survey:
    """Looks at the cluster from one of its servers."""

    def __init__(
        self,
        *,
        address: str,
        own_status: Callable[[], StatusReply],
        own_activity: Callable[[], ActivityReply],
        dial: Dial,
        wall_clock_ms: Callable[[], int],
        cluster_name: str,
        file_addresses: Mapping[str, str],
        file_zones: Mapping[str, str],
    ) -> None:
        """Prepare it; nobody is asked before `look`.

        Args:
            address: HOST:PORT where the others dial this server, which does not dial itself.
            own_status, own_activity: what it says itself.
            dial: opens a stream to HOST:PORT.
            wall_clock_ms: milliseconds since 1970.
            cluster_name: from the cluster file.
            file_addresses, file_zones: of the servers there, by name.
        """
        self._address = address
        self._own_status, self._own_activity = own_status, own_activity
        self._dial = dial
        self._wall_clock_ms = wall_clock_ms
        self._cluster_name = cluster_name
        self._file_addresses = {at: name for name, at in file_addresses.items()}
        self._file_zones = dict(file_zones)
        self._lock = trio.Lock()
        self._sight: Sight | None = None
        self._looked_at = 0.0

    async def look(self) -> Sight:
        """Return what the servers say, at most `FRESH_SECONDS` old. Whoever comes meanwhile waits
        for the same answers."""
        async with self._lock:
            now = trio.current_time()
            if self._sight is None or now - self._looked_at >= FRESH_SECONDS:
                self._sight = await self._settled()
                self._looked_at = now
            return self._sight

    async def _settled(self) -> Sight:
        """Ask; once more a moment later where the servers differ only since they were asked at
        slightly different moments."""
        sight = await self._once()
        for _ in range(SETTLE_ATTEMPTS):
            if not sight.cluster.momentary:
                break
            await trio.sleep(SETTLE_SECONDS)
            sight = await self._once()
        return sight

    async def _once(self) -> Sight:
        found: dict[str, _Found] = {}
        names = {**self._file_addresses}
        own = self._own_status()
        self._note_own(own, found)
        names |= _members(own)
        names.setdefault(self._address, server_name(own.server))
        waiting = [address for address in names if address not in found]
        # Who answers may name others, which are asked then.
        while waiting:
            async with trio.open_nursery() as nursery:
                for address in waiting[: max(0, ADDRESSES_MAX - len(found))]:
                    nursery.start_soon(self._ask, address, names[address], own, found)
            known = len(names)
            for each in list(found.values()):
                if each.answer.reply is not None:
                    names = _members(each.answer.reply) | names
            waiting = [address for address in names if address not in found]
            if len(names) == known:
                break
        listed = [found[address] for address in self._file_addresses if address in found]
        others = [
            found[address] for address in sorted(found) if address not in self._file_addresses
        ]
        return self._sight_of([*listed, *others])

    def _note_own(self, own: StatusReply, found: dict[str, _Found]) -> None:
        leads = own.role == "leader" and own.leadership_confirmed
        found[self._address] = _Found(
            Answer(
                address=self._address,
                name=server_name(own.server),
                listed=self._address in self._file_addresses,
                reply=own,
                round_trip_ms=0.0,
                clock_ahead_ms=0.0,
            ),
            self._own_activity() if leads else None,
        )

    def _sight_of(self, found: list[_Found]) -> Sight:
        cluster = view([each.answer for each in found], self._cluster_name, self._file_zones)
        leader = cluster.leader
        activity = next(
            (
                each.activity
                for each in found
                if each.activity is not None
                and leader is not None
                and each.activity.server == leader.server
            ),
            None,
        )
        content = document(cluster)
        return Sight(
            cluster=cluster,
            leader_activity=activity,
            document=content,
            text=json.dumps(content, ensure_ascii=False).encode() + b"\n",
        )

    async def _ask(
        self, address: str, name: str, own: StatusReply, found: dict[str, _Found]
    ) -> None:
        """Put what the server at `address` says, or why it says nothing, into `found`."""
        each = _Found(
            Answer(address=address, name=name, listed=address in self._file_addresses, reply=None)
        )
        failure = ""
        try:
            with trio.fail_after(ANSWER_SECONDS):
                await self._talk(address, own.server if own.cluster_id else "", each)
        except trio.TooSlowError:
            failure = f"no answer within {format_duration(ANSWER_SECONDS * 1000)}"
        except WireError as error:
            failure = f"it does not speak the protocol of raftd: {error}"
        except DialError as error:
            failure = str(error)
        except trio.BrokenResourceError as error:
            failure = describe(error)
        if each.answer.reply is None:
            each.answer = attrs.evolve(each.answer, failure=failure)
        found[address] = each

    async def _talk(self, address: str, source: ServerId, each: _Found) -> None:
        stream = await connect(self._dial, address)
        hello = Hello(role="client", cluster_id="", source=source, dest="")
        introduced = await introduce(stream, hello)
        try:
            asked_at = trio.current_time()
            reply = await introduced.ask(1, StatusRequest())
            round_trip_ms = (trio.current_time() - asked_at) * 1000
            if isinstance(reply, ErrorReply):
                raise DialError(f"it does not say how it is: {reply.message}")
            if not isinstance(reply, StatusReply):
                raise DialError(f"it does not say how it is: {type(reply).__name__}")
            ahead_ms = None
            if reply.wall_clock_ms:
                ahead_ms = reply.wall_clock_ms - (self._wall_clock_ms() - round_trip_ms / 2)
            each.answer = attrs.evolve(
                each.answer, reply=reply, round_trip_ms=round_trip_ms, clock_ahead_ms=ahead_ms
            )
            # One that is older would take the question for garbage.
            if reply.role == "leader" and reply.leadership_confirmed and reply.http is not None:
                activity = await introduced.ask(2, ActivityRequest())
                each.activity = activity if isinstance(activity, ActivityReply) else None
        finally:
            await trio.aclose_forcefully(stream)


def _members(reply: StatusReply) -> dict[str, str]:
    """Return the names of the members at their addresses, as `reply` has them."""
    if reply.configuration is None:
        return {}
    addresses = reply.configuration.addresses
    return {address: server_name(server) for server, address in addresses.items()}
