"""`raftctl history`: what people and programs see of the configurations of the past."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest

from raftctl.cli import main
from raftd.commands import ConfigurationRecord, PhaseAt
from raftd.protocol import (
    ErrorReply,
    HistoryReply,
    HistoryRequest,
    LinkView,
    Request,
    StatusRequest,
)
from tests.raftctl.golden_files import Golden, Terminal
from tests.raftctl.speaking_servers import (
    LOSE,
    Answer,
    SpeakingServer,
    configuration,
    not_leader,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")

NOON_MS = 1_763_726_400_000
"""2025-11-21 12:00:00 UTC."""
ADDRESSES = {name: f"10.0.0.{name[1]}:7100" for name in ("n1/a", "n2/b", "n3/c", "n4/d", "n5/e")}


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def phases(*times: tuple[str, float]) -> tuple[PhaseAt, ...]:
    """Return phases that began so many seconds after noon."""
    return tuple(
        PhaseAt(phase=name, index=number, time_ms=round(NOON_MS + 1000 * at_s))
        for number, (name, at_s) in enumerate(times, 1)
    )


def record(
    index: int, at_s: float, kind: str, voters: str, outgoing: str = "", **more: Any
) -> ConfigurationRecord:
    """Return the record of a configuration; voters are given as `n1/a n2/b`."""
    members = tuple(voters.split())
    return ConfigurationRecord(
        **{
            "index": index,
            "term": 2 if index < 4_000 else 7,
            "time_ms": round(NOON_MS + 1000 * at_s),
            "leader": "n1/a" if index < 4_000 else "n2/b",
            "kind": kind,
            "voters": members,
            "outgoing": tuple(outgoing.split()),
            "addresses": {name: ADDRESSES[name] for name in members},
        }
        | more
    )


def operation(id: str, kind: str, reason: str, *times: tuple[str, float]) -> dict[str, Any]:
    return {
        "operation": id,
        "operation_kind": kind,
        "author": "ann@desk",
        "reason": reason,
        "phases": phases(*times),
    }


def story() -> list[ConfigurationRecord]:
    """Return the history of a cluster, the newest first."""
    init = [("joining", 1.0), ("catching-up", 1.2), ("joint", 1.5), ("ended", 1.6)]
    replaced = [("joining", 90.0), ("catching-up", 90.2), ("joint", 215.0), ("ended", 215.1)]
    failed = [("joining", 400.0), ("catching-up", 401.0), ("joint", 403.0), ("ended", 413.5)]
    three, joined = "n1/a n2/b n3/c", "n1/a n2/b n4/d"
    undone = (
        "C_new's majority was lost for 10.0 s: n5 (10.0.0.5:7100) does not answer, and with n4 "
        "alone nothing can be committed"
    )
    why = "the disk of n3 reports reallocated sectors, ticket OPS-4711; replaced by the new machine"
    first = [operation("op-1", "init", "", *init[:count]) for count in (2, 3, 4)]
    second = [operation("op-2", "replace", why, *replaced[:count]) for count in (2, 3, 4)]
    third = [operation("op-4", "replace", "spare", *failed[:count]) for count in (2, 3)]
    third.append(operation("op-4", "replace", undone, *failed))
    moved = operation("op-5", "readdress", "", ("catching-up", 86_399.9), ("ended", 86_400))
    addresses = {name: ADDRESSES[name] for name in joined.split()}
    oldest_first = [
        record(1, 0, "bootstrap", "n1/a", term=1),
        record(4, 1.2, "simple", "n1/a", learners=("n2/b", "n3/c"), **first[0]),
        record(7, 1.5, "joint", three, "n1/a", **first[1]),
        record(8, 1.6, "final", three, outcome="done", **first[2]),
        record(20, 90.2, "simple", three, learners=("n4/d",), **second[0]),
        record(3_120, 215.0, "joint", joined, three, **second[1]),
        record(3_121, 215.1, "final", joined, outcome="done", removed=("n3/c",), **second[2]),
        record(4_100, 401, "simple", joined, learners=("n5/e",), **third[0]),
        record(4_182, 403, "joint", "n4/d n5/e", joined, learners_next=("n1/a",), **third[1]),
        record(4_183, 413.5, "abort", joined, outcome="aborted", **third[2]),
        record(
            1_204_207,
            86_400,
            "simple",
            joined,
            outcome="done",
            **moved | {"addresses": addresses | {"n2/b": "10.9.0.2:7100"}},
        ),
    ]
    return oldest_first[::-1]


def serve(
    server: SpeakingServer,
    records: Sequence[ConfigurationRecord],
    *,
    role: str = "leader",
    complete: bool = True,
    page: int = 1_000,
    **status: Any,
) -> None:
    """Let a server answer with `records`, at most `page` of them at once."""
    found = status_of(
        server,
        role=role,
        view=configuration(server),
        leader=server if role == "leader" else None,
    )
    found = attrs.evolve(found, **{"features": 3, "protocol_version_max": 3} | status)

    def answer(request: Request) -> Answer:
        if isinstance(request, StatusRequest):
            return found
        if not isinstance(request, HistoryRequest):
            return not_leader()
        if not found.features:
            # A release that does not know the request takes it for garbage.
            return LOSE
        below = request.below_index or 2**63
        chosen = [record for record in records if record.index < below]
        cut = min(request.limit, page)
        return HistoryReply(records=tuple(chosen[:cut]), more=len(chosen) > cut, complete=complete)

    server.answer = answer


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `raftctl history` against a server; return exit code, stdout and stderr."""

    def ran(server: SpeakingServer, *words: str) -> tuple[int, str, str]:
        code = main(["history", "-e", server.address, "--timeout", "2s", *words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return ran


def shown_indexes(text: str) -> list[int]:
    return [one["index"] for one in json.loads(text)["configurations"]]


def test_the_history_on_a_terminal(
    columns: int, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with speaking_servers("n1/a") as (server,):
        serve(server, story())
        assert main(["history", "-e", server.address]) == 0
    shown = terminal.getvalue()
    assert max(map(len, shown.splitlines())) <= columns
    golden(f"history_{columns}", shown)


def test_what_is_piped_is_not_wrapped_and_a_row_says_all_of_its_configuration(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, story())
        code, out, err = run(server)
    assert (code, err) == (0, "")
    assert "joint: +n4 -n3; (n1 n2 n3) and (n1 n2 n4) decide" in out
    assert "\x1b" not in out


def test_programs_get_the_records_with_the_length_of_each_phase(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, story())
        code, out, _ = run(server, "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert document.keys() == {
        *("server", "leader", "features", "configurations", "more", "complete")
    }
    assert (document["server"], document["leader"], document["features"]) == ("n1", "n1", 3)
    assert (document["more"], document["complete"]) == (False, True)
    (abort,) = [one for one in document["configurations"] if one["kind"] == "abort"]
    assert abort == {
        "index": 4183,
        "term": 7,
        "time_ms": NOON_MS + 413_500,
        "leader": "n2",
        "kind": "abort",
        "change": "abort: n1 n2 n4 again",
        "voters": ["n1", "n2", "n4"],
        "outgoing": [],
        "learners": [],
        "addresses": {name[:2]: ADDRESSES[name] for name in ("n1/a", "n2/b", "n4/d")},
        "removed": [],
        "operation": "op-4",
        "operation_kind": "replace",
        "parent": None,
        "outcome": "aborted",
        "author": "ann@desk",
        "reason": story()[1].reason,
        "phases": [
            {"phase": "joining", "index": 1, "time_ms": NOON_MS + 400_000, "took_ms": 1_000},
            {"phase": "catching-up", "index": 2, "time_ms": NOON_MS + 401_000, "took_ms": 2_000},
            {"phase": "joint", "index": 3, "time_ms": NOON_MS + 403_000, "took_ms": 10_500},
        ],
    }
    assert document["configurations"][0]["change"] == (
        "simple: n2 at 10.9.0.2:7100 (was 10.0.0.2:7100)"
    )


def test_a_limit_shows_the_newest_and_says_how_to_go_on(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, story())
        code, out, err = run(server, "--limit", "2")
        assert code == 0
        # What the last one has changed is known, though the one before it is not shown.
        assert "abort: n1 n2 n4 again" in out
        assert "4,182" not in out
        assert "there are older ones (2 configurations shown)" in err
        assert err.endswith(f"raftctl -e {server.address} history --limit 2 --before 4183\n")
        _, out, _ = run(server, "--before", "4183", "--limit", "2", "-o", "json")
        assert shown_indexes(out) == [4182, 4100]
        assert json.loads(out)["more"]


def test_all_pages_are_fetched(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, story(), page=2)
        _, out, _ = run(server, "-o", "json")
        assert shown_indexes(out) == [one.index for one in story()]
        _, out, _ = run(server, "-o", "json", "--limit", "5")
        assert shown_indexes(out) == [one.index for one in story()][:5]


def test_since_leaves_out_what_is_older(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: (NOON_MS + 500_000) * 1_000_000)
    with speaking_servers("n1/a") as (server,):
        serve(server, story(), page=3)
        for since, indexes in (
            ("99s", [1204207, 4183, 4182, 4100]),
            ("97s", [1204207, 4183, 4182]),
        ):
            _, out, _ = run(server, "--since", since, "-o", "json")
            assert shown_indexes(out) == indexes
            assert not json.loads(out)["more"]
        _, out, _ = run(server, "--since", "99s", "--limit", "3", "-o", "json")
        assert json.loads(out)["more"]
        _, _, err = run(server, "--since", "99s", "--limit", "3")
        assert err.endswith("history --limit 3 --since 99s --before 4182\n")


def test_a_history_that_began_with_an_upgrade_says_from_where(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, story()[:4], complete=False)
        code, out, err = run(server)
    assert code == 0
    assert "simple: voters n1 n2 n4, learners n5" in out
    assert "what came before configuration 4,100 is not recorded" in err


def test_an_unknown_term_is_no_number(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, [attrs.evolve(story()[-1], term=0)])
        assert "   ?  2025-11-21" in run(server)[1]
        assert json.loads(run(server, "-o", "json")[1])["configurations"][0]["term"] is None


def test_before_features_are_on_it_says_who_is_missing(run: Run) -> None:
    links = (
        LinkView(server="n2/b", address="h:2", connected=True, version=2),
        LinkView(server="n3/c", address="h:3", connected=False, problem="refused"),
        LinkView(server="n4/d", address="h:4", connected=True, version=3),
    )
    with speaking_servers("n1/a") as (server,):
        serve(server, (), features=0, links=links)
        code, out, err = run(server)
        assert (code, out) == (0, "")
        assert "there is no history yet" in err
        assert "not yet: n2 (speaks 2), n3 (down)" in err
        _, out, _ = run(server, "-o", "json")
        assert json.loads(out)["configurations"] == []
        serve(server, (), features=0, protocol_version_max=2)
        assert "not yet: n1 (speaks 2)" in run(server)[2]


def test_without_a_leader_any_server_tells_what_it_has(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, story()[-1:], role="follower")
        code, out, err = run(server)
    assert code == 0
    assert "founded with n1" in out
    assert "there is no leader; this is the state of one server" in err


def test_a_running_operation_is_shown_as_such(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, story()[2:])
        _, out, _ = run(server)
    assert "op-4  replace, running, joint\n" in out


def test_a_step_of_a_rolling_operation_names_it(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, [attrs.evolve(one, parent="op-9") for one in story()[:1]])
        assert "op-5  readdress (a step of op-9), done in 100ms" in run(server)[1]


def test_words_of_operators_cannot_move_the_cursor(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, [attrs.evolve(story()[0], reason="a\x1b[2Jb", author="c\nd")])
        _, out, _ = run(server)
    assert "by c\\nd (a\\x1b[2Jb)" in out


def test_a_server_that_refuses_ends_it_with_its_reason(run: Run) -> None:
    with speaking_servers("n1/a") as (server,):
        serve(server, ())
        answer = server.answer
        server.answer = lambda request: (
            ErrorReply(code="invalid", message="no", cause="because")
            if isinstance(request, HistoryRequest)
            else answer(request)
        )
        code, _, err = run(server)
    assert code == 1
    assert "because" in err
