"""Asks every server of the cluster at once how it sees things.

The servers to ask are those that were named, and those that the configuration in any answer names,
and so on: a cluster file that lags behind the cluster still finds all of it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from raftctl.client import Connection, ConnectionProblem, Deadline
from raftctl.endpoints import Endpoints
from raftd.cluster_status.answers import Answer
from raftd.config_values import format_duration
from raftd.core.types import server_name
from raftd.protocol import ErrorReply, StatusReply, StatusRequest

if TYPE_CHECKING:
    import ssl

ANSWER_TIMEOUT_MS = 2_000.0
"""For one server. All are asked at once, so one that hangs costs this much and no more."""
RESOLVER_TIMEOUT_S = 1.0
"""On top of it: looking up a host name obeys no time-out of ours."""
ADDRESSES_MAX = 200
"""Far more than a cluster has; a server that talks nonsense cannot make us dial the world."""


def survey(endpoints: Endpoints, timeout_ms: float = ANSWER_TIMEOUT_MS) -> list[Answer]:
    """Return one answer for each address: first the named ones in their order, then the others.

    Args:
        endpoints: the addresses to start with.
        timeout_ms: for each server, at most `ANSWER_TIMEOUT_MS`; 0 means that.
    """
    return _Survey(endpoints, min(timeout_ms or ANSWER_TIMEOUT_MS, ANSWER_TIMEOUT_MS)).run()


class _Survey:
    """The threads that are on their way, and what they have brought."""

    def __init__(self, endpoints: Endpoints, timeout_ms: float) -> None:
        self._timeout_ms = timeout_ms
        self._listed = endpoints.addresses
        self._tls = endpoints.tls
        self._names: dict[str, str] = dict(endpoints.names)
        self._give_up_s: dict[str, float] = {}
        """When to stop waiting for an address, on the monotonic clock."""
        self._answers: dict[str, Answer] = {}
        self._arrived: queue.SimpleQueue[_Arrival] = queue.SimpleQueue()

    def run(self) -> list[Answer]:
        self._ask({address: self._names.get(address, "") for address in self._listed})
        while waiting := self._give_up_s.keys() - self._answers.keys():
            patience_s = min(self._give_up_s[address] for address in waiting) - time.monotonic()
            try:
                arrival = self._arrived.get(timeout=max(0.0, patience_s))
            except queue.Empty:
                self._give_up(waiting)
                continue
            if arrival.address in self._answers:
                continue
            self._note(arrival)
            if arrival.reply is not None and arrival.reply.configuration is not None:
                addresses = arrival.reply.configuration.addresses
                self._ask({address: server_name(server) for server, address in addresses.items()})
        found = sorted(self._answers.keys() - set(self._listed), key=self._place)
        return [self._answers[address] for address in (*self._listed, *found)]

    def _place(self, address: str) -> tuple[str, str]:
        return self._names.get(address, ""), address

    def _ask(self, names: Mapping[str, str]) -> None:
        """Start asking those addresses that have not been asked yet."""
        for address, name in names.items():
            if address in self._give_up_s or len(self._give_up_s) >= ADDRESSES_MAX:
                continue
            self._names.setdefault(address, name)
            self._give_up_s[address] = (
                time.monotonic() + self._timeout_ms / 1000 + RESOLVER_TIMEOUT_S
            )
            # Daemons: a look-up of a host name that hangs must not keep the command from ending.
            threading.Thread(
                target=_ask_one,
                args=(address, self._timeout_ms, self._tls, self._arrived),
                daemon=True,
            ).start()

    def _give_up(self, waiting: set[str]) -> None:
        now_s = time.monotonic()
        for address in waiting:
            if self._give_up_s[address] <= now_s:
                failure = f"no answer within {format_duration(self._timeout_ms)}"
                self._note(_Arrival(address=address, failure=failure))

    def _note(self, arrival: _Arrival) -> None:
        address, reply = arrival.address, arrival.reply
        clock_ahead_ms = None
        if reply is not None and reply.wall_clock_ms:
            clock_ahead_ms = reply.wall_clock_ms - arrival.middle_ms
        self._answers[address] = Answer(
            address=address,
            name=self._names[address],
            listed=address in self._listed,
            reply=reply,
            failure=arrival.failure,
            round_trip_ms=arrival.round_trip_ms if reply is not None else None,
            clock_ahead_ms=clock_ahead_ms,
        )


@attrs.frozen(kw_only=True)
class _Arrival:
    """What a thread brings."""

    address: str
    reply: StatusReply | None = None
    failure: str = ""
    round_trip_ms: float = 0.0
    middle_ms: float = 0.0
    """The wall clock here, half-way between question and answer."""


def _ask_one(
    address: str,
    timeout_ms: float,
    tls: ssl.SSLContext | None,
    arrived: queue.SimpleQueue[_Arrival],
) -> None:
    """Put the answer of one server, or why there is none, into `arrived`."""
    deadline = Deadline.after_ms(timeout_ms)
    try:
        connection = Connection.open(address, deadline, tls=tls)
        try:
            asked_s = time.monotonic()
            reply = connection.ask(StatusRequest(), deadline)
            round_trip_ms = (time.monotonic() - asked_s) * 1000
            middle_ms = time.time() * 1000 - round_trip_ms / 2
        finally:
            connection.close()
    except ConnectionProblem as problem:
        arrived.put(_Arrival(address=address, failure=str(problem)))
    except Exception as error:
        # A thread that dies in silence would leave the survey waiting for it.
        arrived.put(_Arrival(address=address, failure=f"{type(error).__name__}: {error}"))
    else:
        if isinstance(reply, StatusReply):
            arrived.put(
                _Arrival(
                    address=address,
                    reply=reply,
                    round_trip_ms=round_trip_ms,
                    middle_ms=middle_ms,
                )
            )
        else:
            refused = reply.message if isinstance(reply, ErrorReply) else type(reply).__name__
            failure = f"it does not say how it is: {refused}"
            arrived.put(_Arrival(address=address, failure=failure))
