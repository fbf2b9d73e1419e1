"""Checkups: a server dials every address that doctor names and says what it found there.

It dials as any client does, whatever its links to the members are like at the moment: a link that
is up says nothing of the next time, and one that is down may be so for another reason than the
network. Every server does it, leader or not, blank ones too.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from raftd.core.types import ServerId, server_name
from raftd.inputs import Contacted
from raftd.operations import Contacts, Respond
from raftd.protocol import (
    CHECKUP_ADDRESSES_MAX,
    CheckupReply,
    CheckupRequest,
    ErrorReply,
    ReachView,
    StatusReply,
    StatusRequest,
)
from raftd.replies import unavailable

DIALS_MAX = CHECKUP_ADDRESSES_MAX
"""Addresses that are being dialled at one time, for all who ask: one checkup of the largest cluster
or several of usual ones. Half of the contacts that the network has; the rest is for changes."""
ROUND_TRIPS = 3
"""Questions to each server. The quickest answer tells of the network; a single one tells as well of
whatever that server was doing just then."""


@attrs.define
class _Checkup:
    """A request whose addresses are being dialled."""

    server: ServerId
    request: CheckupRequest
    respond: Respond
    reaches: dict[int, ReachView] = attrs.field(factory=dict)
    """By position in the request."""


@attrs.frozen
class _Dialled:
    """The token of one contact."""

    checkup: int
    position: int


class Checkups:
    """Dials addresses for those who ask, a bounded number at a time."""

    def __init__(self, *, contacts: Contacts, wall_clock_ms: Callable[[], int]) -> None:
        self._contacts = contacts
        self._wall_clock_ms = wall_clock_ms
        self._running: dict[int, _Checkup] = {}
        self._count = 0

    def request(self, server: ServerId, request: CheckupRequest, respond: Respond) -> None:
        """Dial the addresses; `respond` is called once all have answered or failed to.

        That takes no longer than `request.timeout_ms`, since all are dialled at once. Refused as
        `unavailable` while `DIALS_MAX` would be exceeded.

        Args:
            server: this one.
            request: one that `bad_request` has nothing against.
            respond: called exactly once, now or later.
        """
        dialled = sum(
            len(checkup.request.addresses) - len(checkup.reaches)
            for checkup in self._running.values()
        )
        if dialled + len(request.addresses) > DIALS_MAX:
            respond(
                unavailable(
                    f"{server_name(server)} is busy with other checkups",
                    f"it dials {dialled} addresses for others, and at most {DIALS_MAX} at one time",
                )
            )
            return
        self._count += 1
        number = self._count
        checkup = self._running[number] = _Checkup(server, request, respond)
        questions = (StatusRequest(),) * ROUND_TRIPS
        for position, address in enumerate(request.addresses):
            token = _Dialled(number, position)
            self._contacts.contact(token, address, questions, request.timeout_ms)
        self._end_if_complete(number, checkup)

    def contacted(self, contacted: Contacted) -> bool:
        """Take in an answer; False if no checkup has asked for it."""
        token = contacted.token
        if not isinstance(token, _Dialled):
            return False
        checkup = self._running[token.checkup]
        address = checkup.request.addresses[token.position]
        checkup.reaches[token.position] = _reach(address, contacted)
        self._end_if_complete(token.checkup, checkup)
        return True

    def _end_if_complete(self, number: int, checkup: _Checkup) -> None:
        count = len(checkup.request.addresses)
        if len(checkup.reaches) < count:
            return
        del self._running[number]
        checkup.respond(
            CheckupReply(
                server=checkup.server,
                reaches=tuple(checkup.reaches[position] for position in range(count)),
                wall_clock_ms=self._wall_clock_ms(),
            )
        )


def _reach(address: str, contacted: Contacted) -> ReachView:
    """Return what a contact has found out about `address`."""
    reply, met = contacted.reply, contacted.welcome or contacted.refusal
    problem = contacted.problem
    if isinstance(reply, StatusReply):
        # A later question that got no answer does not matter: somebody is there and serves.
        return ReachView(
            address=address,
            server=reply.server,
            cluster_id=reply.cluster_id,
            round_trip_ms=contacted.round_trip_ms,
        )
    if isinstance(reply, ErrorReply):
        problem = f"it does not say how it is: {reply.message}"
    return ReachView(
        address=address,
        server=met.server if met is not None else "",
        cluster_id=met.cluster_id if met is not None else "",
        problem=problem or "it did not say who it is",
    )
