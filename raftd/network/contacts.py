"""A few requests to a server that need not be a member: blank ones, and those of a preflight."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from raftd.codec import WireError
from raftd.core.types import ServerId
from raftd.network.connection import describe
from raftd.network.dialling import Dial, DialError, connect, introduce
from raftd.network.inputs import Contacted
from raftd.protocol import ErrorReply, Hello, Refusal, Reply, Request, Welcome


class Contact:
    """One contact: dial, introduce ourselves as a client, ask one request after the other."""

    def __init__(
        self, token: object, address: str, requests: Sequence[Request], source: ServerId = ""
    ) -> None:
        """Prepare the contact in the name of `source`; nothing is dialled before `run`."""
        self._token = token
        self._address = address
        self._source = source
        self._requests = tuple(requests)
        self._step = ""
        self._welcome: Welcome | None = None
        self._refusal: Refusal | None = None
        self._reply: Reply | None = None
        self._round_trip_ms: float | None = None

    async def run(self, dial: Dial, timeout_seconds: float) -> Contacted:
        """Carry the contact out within `timeout_seconds` altogether and return how it ended."""
        problem = ""
        try:
            with trio.fail_after(timeout_seconds):
                await self._ask(dial)
        except trio.TooSlowError:
            problem = f"{self._step}: no answer for {timeout_seconds:.1f} s"
        except DialError as error:
            self._refusal = error.refusal
            problem = f"{self._step}: {error}"
        except WireError as error:
            problem = f"{self._step}: it does not speak the protocol of raftd: {error}"
        except trio.BrokenResourceError as error:
            problem = f"{self._step}: {describe(error)}"
        return Contacted(
            token=self._token,
            reply=self._reply,
            welcome=self._welcome,
            problem=problem,
            refusal=self._refusal,
            round_trip_ms=self._round_trip_ms,
        )

    async def _ask(self, dial: Dial) -> None:
        self._step = f"connecting to {self._address}"
        stream = await connect(dial, self._address)
        self._step = f"greeting {self._address}"
        hello = Hello(role="client", cluster_id="", source=self._source, dest="")
        introduced = await introduce(stream, hello)
        try:
            self._welcome = introduced.welcome
            for number, request in enumerate(self._requests, start=1):
                name = type(request).__name__
                self._step = f"waiting for {self._address} to answer {name}"
                sent_at = trio.current_time()
                self._reply = await introduced.ask(number, request)
                round_trip_ms = (trio.current_time() - sent_at) * 1000
                if self._round_trip_ms is None or round_trip_ms < self._round_trip_ms:
                    self._round_trip_ms = round_trip_ms
                if isinstance(self._reply, ErrorReply):
                    return
        finally:
            await trio.aclose_forcefully(stream)
