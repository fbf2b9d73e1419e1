"""transfer: who gets the leadership, whether that is waited for, and what is refused before."""

from __future__ import annotations

import json

import attrs
import pytest

from raftctl.cli import main
from raftd.protocol import (
    ErrorReply,
    PeerView,
    Request,
    StatusRequest,
    TransferReply,
    TransferRequest,
)
from tests.raftctl.leading import Leader
from tests.raftctl.speaking_servers import (
    LOSE,
    Answer,
    configuration,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")


def test_transfer_says_who_leads_now(leader: Leader, capsys: pytest.CaptureFixture[str]) -> None:
    answer = leader.answer
    leader.server.answer = lambda request: (
        TransferReply(leader="n2/b", term=4)
        if isinstance(request, TransferRequest)
        else answer(request)
    )
    assert leader.run("transfer", "n2") == 0
    assert TransferRequest(target="n2") in leader.server.requests
    assert capsys.readouterr().out == "n2 leads now (term 4); it was n1\n"


def _peers(*match_indexes: int, cut_off: str = "") -> tuple[PeerView, ...]:
    servers = ("n2/b", "n3/c", "n9/l")
    return tuple(
        PeerView(
            server=server,
            match_index=index,
            lag_entries=0,
            last_contact_ms=3.0,
            caught_up=True,
            rounds=0,
            connected=server != cut_off,
        )
        for server, index in zip(servers, match_indexes, strict=False)
    )


@pytest.mark.parametrize(
    ("words", "cut_off", "heir"),
    [([], "", "n3"), (["n2"], "", "n2"), ([], "n3/c", "n2"), (["n1"], "", "n1")],
)
def test_a_dry_run_of_a_transfer_says_who_would_lead_and_asks_for_nothing(
    leader: Leader,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    cut_off: str,
    heir: str,
) -> None:
    # n9 is furthest, and no voter.
    status = attrs.evolve(
        status_of(leader.server, role="leader", view=leader.before),
        peers=_peers(8, 9, 10, cut_off=cut_off),
    )
    leader.server.answer = lambda _: status
    assert leader.run("transfer", *words, "--dry-run", "-o", "json", "--reason", "patch") == 0
    document = json.loads(capsys.readouterr().out)
    assert {key: document[key] for key in ("result", "leader", "target", "reason")} == {
        "result": "planned",
        "leader": "n1",
        "target": heir,
        "reason": "patch",
    }
    assert leader.run("transfer", *words, "--dry-run") == 0
    assert capsys.readouterr().out.startswith(f"{heir} ")
    assert {type(request) for request in leader.server.requests} == {StatusRequest}


@pytest.mark.parametrize("words", [["n3", "--dry-run"], ["n9", "--dry-run"], ["--at-index", "6"]])
def test_a_transfer_that_cannot_be_is_refused_before_it_is_asked_for(
    leader: Leader, words: list[str]
) -> None:
    status = attrs.evolve(
        status_of(leader.server, role="leader", view=leader.before),
        peers=_peers(8, 9, 10, cut_off="n3/c"),
    )
    leader.server.answer = lambda _: status
    assert leader.run("transfer", *words) == 1
    assert {type(request) for request in leader.server.requests} == {StatusRequest}


def test_a_transfer_that_is_not_waited_for_ends_once_it_was_sent(
    leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = leader.answer
    reply: Answer = LOSE
    leader.server.answer = lambda request: (
        reply if isinstance(request, TransferRequest) else answer(request)
    )
    words = ("transfer", "n2", "--no-wait", "--at-index", "30")
    assert leader.run(*words) == 0
    assert capsys.readouterr().out == "n1 was asked to hand leadership to n2\n"
    assert TransferRequest(target="n2") in leader.server.requests
    reply = ErrorReply(code="refused", message="leadership was not transferred")
    assert leader.run(*words) == 1


def test_a_transfer_whose_answer_was_lost_is_settled_by_looking(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a", "n2/b") as [old, new]:
        view = configuration(old, new)
        moved = False

        def answer_old(request: Request) -> Answer:
            nonlocal moved
            if isinstance(request, TransferRequest):
                moved = True
                return LOSE
            role = "follower" if moved else "leader"
            return status_of(old, role=role, view=view, leader=new if moved else old)

        old.answer = answer_old
        new.answer = lambda request: status_of(new, role="leader", view=view, term=4)
        assert main(["transfer", "n2", "-e", old.address, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["leader"], document["term"]) == ("n2", 4)
