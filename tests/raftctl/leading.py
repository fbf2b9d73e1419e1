"""A server that leads, starts what it is asked for, and shows how that goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raftctl.cli import main
from raftd.protocol import (
    AbortReply,
    AbortRequest,
    ChangeReply,
    ChangeRequest,
    DoneReply,
    ErrorReply,
    MajorityView,
    OpenSessionRequest,
    OperationsReply,
    OperationsRequest,
    OperationView,
    PeerView,
    PlanView,
    Request,
    StatusRequest,
)
from tests.raftctl.speaking_servers import (
    Answer,
    SpeakingServer,
    configuration,
    operation_record,
    speaking_servers,
    status_of,
)

BEFORE = ("n1/a", "127.0.0.1:7101"), ("n2/b", "127.0.0.1:7102"), ("n3/c", "127.0.0.1:7103")
ENDED = OperationView(record=operation_record("joining", "joint", "ended", result="done"))
OLD = MajorityView(servers=("n1/a", "n2/b", "n3/c"), acknowledged=("n1/a", "n2/b"), needed=2)
NEW = MajorityView(
    servers=("n1/a", "n2/b", "n3/c", "n4/d"), acknowledged=("n1/a", "n2/b"), needed=3
)


class Leader:
    """A server that leads, starts one operation and shows its views one after the other."""

    def __init__(self, server: SpeakingServer) -> None:
        self.server = server
        self.before = configuration(*BEFORE, index=7)
        self.after = configuration(*BEFORE, ("n4/d", "127.0.0.1:7104"), index=30)
        self.views: list[OperationView] = []
        self.change_reply: Answer = ChangeReply(operation="op-1")
        self.refusal: ErrorReply | None = None
        self.nothing_to_do = ""
        """Why there is no plan, if there is none."""
        self.cluster_name = "orders"
        self.plan = PlanView(
            changes=("n4 joins as a voter",),
            joint=True,
            before=self.before,
            after=self.after,
            tolerance_before=1,
            tolerance_during=1,
            tolerance_after=1,
            warnings=("4 voters survive no more failures than 3",),
        )
        server.answer = self.answer

    @property
    def running(self) -> bool:
        return bool(self.views) and self.views[0].record.running

    def run(self, *words: str) -> int:
        """Run raftctl against this server; return its exit code."""
        return main([*words, "-e", self.server.address, "--timeout", "5s"])

    def changes(self) -> list[ChangeRequest]:
        return [request for request in self.server.requests if isinstance(request, ChangeRequest)]

    def answer(self, request: Request) -> Answer:
        match request:
            case StatusRequest():
                view = self.before if self.running else self.after
                name = self.cluster_name
                return status_of(self.server, role="leader", view=view, cluster_name=name)
            case OpenSessionRequest():
                return DoneReply()
            case ChangeRequest(dry_run=True):
                if self.nothing_to_do:
                    return ChangeReply(operation="", nothing_to_do=self.nothing_to_do)
                return self.refusal or ChangeReply(operation="", plan=self.plan)
            case ChangeRequest():
                return self.change_reply
            case OperationsRequest():
                view = self.views.pop(0) if len(self.views) > 1 else self.views[0]
                return OperationsReply(operations=(view,))
            case AbortRequest():
                return AbortReply(operation="op-1")
        return ErrorReply(code="invalid", message=f"unexpected {type(request).__name__}")


@pytest.fixture
def leader() -> Iterator[Leader]:
    """Yield the leader of a cluster, as one server that speaks."""
    with speaking_servers("n1/a") as [server]:
        yield Leader(server)


def new_peer(match_index: int, *, caught_up: bool = False, rounds: int = 2) -> PeerView:
    """Return how a new server is seen that has so much of a log of 1000 entries."""
    return PeerView(
        server="n4/d",
        match_index=match_index,
        lag_entries=1000 - match_index,
        last_contact_ms=3.0,
        caught_up=caught_up,
        rounds=rounds,
        connected=True,
    )


def story() -> list[OperationView]:
    """Return the views of a joint change from its first moment to its end."""
    catching_up = operation_record("joining", "catching-up")
    return [
        OperationView(record=operation_record("joining"), step="joining"),
        OperationView(
            record=catching_up, step="catching-up", peers=(new_peer(124),), last_index=1000
        ),
        OperationView(
            record=catching_up, step="catching-up", peers=(new_peer(510),), last_index=1000
        ),
        OperationView(
            record=catching_up,
            step="committing-joint",
            index=20,
            old=OLD,
            new=NEW,
            peers=(new_peer(1000, caught_up=True),),
            last_index=1000,
        ),
        OperationView(
            record=operation_record("joining", "catching-up", "joint", "ended", result="done")
        ),
    ]
