"""Members that a survey asks: real listeners in memory that answer what a test says."""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio.testing import memory_stream_pair

from raftd.activity import ActivityReply
from raftd.http.survey import Survey
from raftd.inputs import Requested
from raftd.protocol import ActivityRequest, Reply, Request, StatusReply, StatusRequest
from tests.network.harness import Server as Listening
from tests.raftctl.status_answers import THREE, address_of, leader, reply

OWN = "n2/b"


def activity(server: str, **fields: object) -> ActivityReply:
    known: dict[str, object] = {
        "interval_ms": 1000,
        "last_ms": 5000,
        "commits_per_second": (1.0, 2.5),
        "commit_p50_ms": (None, 0.5),
        "commit_p99_ms": (None, 1.5),
        "notices": (),
    }
    return ActivityReply(server=server, **(known | fields))  # type: ignore[arg-type]


class Members:
    """Where a survey dials: who answers there, who hangs, and how often each was dialled."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.answers: dict[str, Callable[[Request], Reply]] = {}
        self.hanging: set[str] = set()
        self.dials: list[str] = []

    def answering(self, status: StatusReply) -> None:
        """Have the server of `status` answer at its address with it, and with its activity."""

        def answer(request: Request) -> Reply:
            if isinstance(request, StatusRequest):
                return status
            assert isinstance(request, ActivityRequest)
            return activity(status.server)

        self.answers[address_of(status.server)] = answer

    async def dial(self, address: str) -> trio.abc.Stream:
        self.dials.append(address)
        if address in self.hanging:
            await trio.sleep_forever()
        if address not in self.answers:
            # As `trio.open_tcp_stream` does.
            refused = ConnectionRefusedError(111, "Connection refused")
            raise OSError(f"all attempts to connect to {address} failed") from ExceptionGroup(
                "attempts", [refused]
            )
        ours, theirs = memory_stream_pair()
        self.nursery.start_soon(self._serve, theirs, self.answers[address])
        return ours

    async def _serve(self, stream: trio.abc.Stream, answer: Callable[[Request], Reply]) -> None:
        server = Listening("n/x", self.dial)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer, server, answer)
            await server.network.listener.handle(stream)
            nursery.cancel_scope.cancel()

    async def _answer(self, server: Listening, answer: Callable[[Request], Reply]) -> None:
        while True:
            for item in await server.take(Requested):
                item.respond(answer(item.request))
                server.network.listener.push()


def survey_of(members: Members, own: StatusReply | None = None, **file: str) -> Survey:
    """Return the survey of n2, whose cluster file names what is in `file`."""
    status = own or reply(OWN, THREE)
    return Survey(
        address=address_of(status.server),
        own_status=lambda: status,
        own_activity=lambda: activity(status.server),
        dial=members.dial,
        wall_clock_ms=lambda: 0,
        cluster_name="orders",
        file_addresses=file,
        file_zones={},
    )


LEADER = leader(THREE, http="127.0.0.1:8101")
