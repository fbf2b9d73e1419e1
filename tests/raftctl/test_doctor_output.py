"""Doctor on operations, its remedies, its output, and asking real sockets."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import click
import pytest

from raftctl import doctor_reach, examining
from raftctl.cli import cli, main
from raftctl.doctor import CHECKS, document, judge
from raftctl.doctor_cluster import OLD_MS
from raftctl.doctor_reach import RAFTCTL, matrix
from raftctl.doctor_text import text
from raftctl.examining import Examination
from raftctl.render import width_of
from raftctl.status_text import Layout
from raftd.commands import CATCHING_UP, JOINT, Operation, PhaseAt, Plan, Rolling, RollingStep
from raftd.protocol import (
    CheckupReply,
    CheckupRequest,
    ConfigurationView,
    ErrorReply,
    OperationsReply,
    OperationsRequest,
    OperationView,
    PeerView,
    ReachView,
    Request,
    StatusRequest,
)
from tests.raftctl.examinations import (
    FAIL,
    FIVE,
    FOUR,
    MIB,
    NOW_MS,
    OLD,
    PASS,
    THREE,
    WARN,
    as_in_log,
    blank,
    blocked,
    configuration,
    examination,
    file_of,
    members,
    only,
    status,
)
from tests.raftctl.golden_files import Golden
from tests.raftctl.speaking_servers import SILENCE, SpeakingServer, closed_address, speaking_servers
from tests.raftctl.speaking_servers import Answer as Spoken

# --- operations -------------------------------------------------------------------------------


def change(phase: str, age_ms: float, **fields: Any) -> OperationView:
    record = Operation(
        id="op-3",
        kind="add",
        author="alice",
        reason="",
        plan=Plan(changes=(("voter", "n4/d"),), joint=True, configuration_index=40),
        phase=phase,
        phases=(PhaseAt(phase=phase, index=41, time_ms=int(NOW_MS - age_ms)),),
    )
    return OperationView(record=record, **fields)


def rolling(age_ms: float, *states: str, **fields: Any) -> OperationView:
    steps = tuple(
        RollingStep(name=f"n{number}", state=state, note="it did not come back")
        for number, state in enumerate(states, 1)
    )
    record = Operation(
        id="op-9",
        kind="rolling-restart",
        author="alice",
        reason="",
        plan=Plan(changes=(), joint=False, configuration_index=40),
        phase="rolling",
        rolling=Rolling(
            steps=steps, driver="alice@host", changed_ms=int(NOW_MS - age_ms), **fields
        ),
    )
    return OperationView(record=record)


def test_a_young_operation_passes_and_is_named() -> None:
    found = examination(*members(THREE), operations=(change(CATCHING_UP, 4_000.0),))
    finding = only(found, "operations")
    assert (finding.result, finding.finding) == (PASS, "op-3 add n4: catching-up for 4.0s")


ON_ITS_WAY = PeerView(
    server="n4/d",
    match_index=2,
    lag_entries=40_000,
    last_contact_ms=9.0,
    caught_up=False,
    rounds=0,
    connected=True,
)


def test_a_server_on_its_way_into_the_cluster_is_no_warning() -> None:
    known = configuration("n1/a n2/b n3/c", learners="n4/d")
    peers = (*(members(known)[0].peers[:2]), ON_ITS_WAY)
    replies = members(known, n1={"peers": peers}, n4={"role": "learner"})
    assert only(examination(*replies), "members").result is WARN
    joins = change(CATCHING_UP, 4_000.0, peers=(ON_ITS_WAY,))
    assert only(examination(*replies, operations=(joins,)), "members").result is PASS


def test_a_number_of_voters_survives_so_much_with_all_of_them_up() -> None:
    found = examination(*members(FIVE)[:3], silent=("n4/d", "n5/e"))
    assert only(found, "voters").finding == "5 voters survive 2 failures with all of them up"


def test_a_change_that_waits_for_a_server_on_its_way_is_no_warning() -> None:
    waits = change(CATCHING_UP, 4_000.0, blocked_by="n4 to catch up", peers=(ON_ITS_WAY,))
    finding = only(examination(*members(THREE), operations=(waits,)), "operations")
    assert (finding.result, finding.finding.endswith(": n4 to catch up")) == (PASS, True)
    lost = attrs.evolve(ON_ITS_WAY, connected=False, problem="connection refused")
    waits = attrs.evolve(waits, peers=(lost,))
    assert only(examination(*members(THREE), operations=(waits,)), "operations").result is WARN


def test_an_operation_that_waits_says_for_what_and_how_to_undo_it() -> None:
    waits = change(CATCHING_UP, 4_000.0, blocked_by="n4 does not answer")
    finding = only(examination(*members(THREE), operations=(waits,)), "operations")
    assert finding.result is WARN
    assert finding.finding.endswith(": n4 does not answer")
    assert (finding.command, finding.servers) == ("operation abort op-3", ("n4",))


def test_an_operation_that_stands_still_for_long_is_a_warning_one_that_moves_is_not() -> None:
    still = change(CATCHING_UP, OLD_MS + 1_000)
    assert only(examination(*members(THREE), operations=(still,)), "operations").result is WARN
    learner = PeerView(
        server="n4/d",
        match_index=0,
        lag_entries=9,
        last_contact_ms=1.0,
        caught_up=False,
        rounds=0,
        connected=True,
        catch_up_bytes_per_second=MIB,
    )
    moves = attrs.evolve(still, peers=(learner,))
    assert only(examination(*members(THREE), operations=(moves,)), "operations").result is PASS


def test_past_the_point_of_no_return_there_is_nothing_to_undo() -> None:
    waits = change(JOINT, 4_000.0, blocked_by="n4 is missing")
    finding = only(examination(*members(THREE), operations=(waits,)), "operations")
    assert finding.command == "operation watch op-3"
    joint = configuration("n1/a n2/b n3/c n4/d", outgoing="n1/a n2/b n3/c")
    finding = only(examination(*members(joint), operations=(waits,)), "operations")
    assert finding.command == "operation abort op-3"


def test_an_operation_that_has_ended_is_not_judged() -> None:
    ended = attrs.evolve(change("ended", 1.0), blocked_by="nothing")
    finding = only(examination(*members(THREE), operations=(ended,)), "operations")
    assert (finding.result, finding.finding) == (PASS, "none is running")


def test_a_joint_configuration_without_an_operation_is_a_warning() -> None:
    joint = configuration("n2/b n3/c n4/d", outgoing="n1/a n2/b n3/c")
    finding = only(examination(*members(joint)), "operations")
    assert finding.result is WARN
    assert "is joint, and no operation is running" in finding.finding


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (rolling(60_000.0, "done", "pending", paused_by="bob"), "paused by bob, for 1m 00s"),
        (rolling(60_000.0, "done", "failed"), "that of n2 failed: it did not come back"),
        (rolling(OLD_MS + 60_000.0, "done", "running"), "nothing has happened for 11m 00s"),
        (rolling(80_000.0, "done", "running"), "alice@host; its last change was 1m 20s ago"),
    ],
)
def test_rolling_operations_that_stand_still_are_to_be_resumed(
    operation: OperationView, words: str
) -> None:
    finding = only(examination(*members(THREE), operations=(operation,)), "operations")
    assert finding.result is WARN
    assert "1 of 2 steps done" in finding.finding
    assert words in finding.finding
    assert (finding.command, finding.servers) == ("rolling resume", ("n2",))


def test_a_rolling_operation_that_is_driven_passes() -> None:
    found = examination(*members(THREE), operations=(rolling(1_000.0, "done", "running"),))
    assert only(found, "operations").result is PASS


def test_the_age_of_an_operation_is_told_by_the_clock_that_wrote_it() -> None:
    # The leader's clock is a day behind ours, and so are its records.
    day_ms = 86_400_000.0
    late = examination(
        *members(THREE),
        operations=(change(CATCHING_UP, day_ms + 4_000.0),),
        ahead_ms=dict.fromkeys(("n1", "n2", "n3"), -day_ms),
    )
    assert "for 4.0s" in only(late, "operations").finding


# --- remedies ---------------------------------------------------------------------------------


def ill(tmp_path: Path) -> Examination:
    """Return a cluster in which nearly everything is wrong."""
    known = configuration("n1/a n2/b n3/c n4/d")
    replies = members(
        known,
        n1={"features": 0, "sync_p99_ms": 300.0, "sync_p50_ms": 60.0, "zone": "east"},
        n2={"features": 0, "disk_free_bytes": 100 * MIB, "zone": "east"},
        n3={**OLD, "election_timeout_ms": 1_000.0},
    )
    return examination(
        *replies[:3],
        blank("n4/x"),
        config=file_of(tmp_path, as_in_log("n1", "n2", "n5") | {"n3": "address: '10.0.0.9:7100'"}),
        reaches=blocked(("n2", "n3")),
        ahead_ms={"n3": 61_000.0},
        operations=(change(CATCHING_UP, 30_000.0, blocked_by="n4 does not answer"),),
    )


def test_each_command_of_a_remedy_exists_and_takes_its_arguments(tmp_path: Path) -> None:
    found = [*judge(ill(tmp_path)), *judge(examination(*members(FOUR)))]
    paused = examination(*members(THREE), operations=(rolling(1.0, "pending", paused_by="bob"),))
    commands = {finding.command for finding in [*found, *judge(paused)] if finding.command}
    assert len(commands) >= 5
    for words in commands:
        command: click.Command = cli
        arguments = shlex.split(words)
        context = click.Context(cli)
        while isinstance(command, click.Group):
            chosen = command.get_command(context, arguments.pop(0))
            assert chosen is not None, words
            command = chosen
        # Raises for arguments that the command does not take.
        command.make_context("raftctl", arguments)


def test_each_problem_says_what_to_do(tmp_path: Path) -> None:
    for finding in judge(ill(tmp_path)):
        if finding.result in (WARN, FAIL):
            assert finding.remedy or finding.command, finding


# --- for people -------------------------------------------------------------------------------


def shown(found: Examination, **layout: Any) -> str:
    return "\n".join(text(found, judge(found), Layout(**layout), "raftctl {}".format))


@pytest.mark.parametrize("width", [80, 120])
def test_what_people_see(
    width: int, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that the file has the same name in each run.
    monkeypatch.chdir(tmp_path)
    here = Path()
    healthy = examination(*members(THREE), config=file_of(here, as_in_log("n1", "n2", "n3")))
    golden(f"doctor_healthy_{width}", shown(healthy, width=width))
    golden(f"doctor_ill_{width}", shown(ill(here), width=width))


def test_no_line_is_wider_than_the_terminal_but_commands_and_wide_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path = Path()
    for width in (50, 80):
        lines = shown(ill(tmp_path), width=width).splitlines()
        assert all(
            width_of(line) <= width for line in lines if not line.lstrip().startswith("raftctl ")
        )
    wide = shown(ill(tmp_path), wide=True).splitlines()
    assert max(map(width_of, wide)) > 200


def test_a_matrix_that_does_not_fit_becomes_a_list_of_what_fails() -> None:
    servers = " ".join(f"n{number}/x" for number in range(1, 16)).replace("n1/x", "n1/a", 1)
    known = configuration(servers)
    well = examination(*members(known))
    lines = text(well, judge(well), Layout(width=80), str)
    assert "all 225 ways from one server to another work" in lines
    found = examination(*members(known), reaches=blocked(("n2", "n3")))
    lines = text(found, judge(found), Layout(width=80), str)
    assert "of 225 ways from one server to another 1 fail:" in lines
    assert "n2 to n3: silent" in lines


def test_what_a_server_says_cannot_move_the_cursor() -> None:
    evil = {"version": "\x1b[2J", "issues": ("\x1b[31mred\r",)}
    found = examination(*members(THREE, n2=evil))
    printed = "\n".join(text(found, judge(found), Layout(), str))
    assert "\x1b" not in printed
    assert "\r" not in printed


# --- for programs -----------------------------------------------------------------------------


def test_the_document_has_every_check_and_every_cell(tmp_path: Path) -> None:
    found = ill(tmp_path)
    told = json.loads(json.dumps(document(found, judge(found), "raftctl -c x {}".format)))
    assert told["result"] == "fail"
    assert list(dict.fromkeys(check["name"] for check in told["checks"])) == list(CHECKS)
    assert sum(told["summary"].values()) == len(CHECKS)
    for check in told["checks"]:
        assert set(check) == {"name", "result", "finding", "remedy", "command", "servers"}
        assert check["result"] in ("pass", "warn", "fail", "skip")
        assert check["finding"]
    (aborting,) = [check for check in told["checks"] if check["name"] == "operations"]
    assert aborting["command"] == "raftctl -c x operation abort op-3"
    assert aborting["remedy"].endswith(": raftctl -c x operation abort op-3")
    assert {(cell["from"], cell["to"]) for cell in told["reach"]} == set(matrix(found).cells)
    (cut,) = [cell for cell in told["reach"] if (cell["from"], cell["to"]) == ("n2", "n3")]
    assert cut == {
        "from": "n2",
        "to": "n3",
        "address": "10.0.0.3:7100",
        "ok": False,
        "round_trip_ms": None,
        "found": None,
        "problem": "no answer for 2.0 s",
    }
    assert doctor_reach.RAFTCTL == RAFTCTL == "raftctl"


# --- asking real sockets ----------------------------------------------------------------------


class Patient:
    """A member that says how it is, and what it finds where."""

    def __init__(self, server: SpeakingServer, **fields: Any) -> None:
        self.server = server
        self.fields = fields
        self.known: ConfigurationView | None = None
        self.checkups: list[CheckupRequest] = []
        self.busy = 0
        """So many checkups are refused before one is made."""
        self.mute = False
        """No checkup is ever answered."""
        server.answer = self.answer

    def answer(self, request: Request) -> Spoken:
        match request:
            case StatusRequest():
                now_ms = int(time.time() * 1000)
                stated = {"cluster_id": self.server.cluster_id, "wall_clock_ms": now_ms}
                return status(self.server.server, self.known, **(stated | self.fields))
            case OperationsRequest():
                return OperationsReply(operations=(change(CATCHING_UP, -1e9),))
            case CheckupRequest():
                return self.check_up(request)
        raise AssertionError(request)

    def check_up(self, request: CheckupRequest) -> Spoken:
        self.checkups.append(request)
        if self.mute:
            return SILENCE
        if len(self.checkups) <= self.busy:
            return ErrorReply(code="unavailable", message="busy", cause="it dials for others")
        assert self.known is not None
        by_address = {address: server for server, address in self.known.addresses.items()}
        return CheckupReply(
            server=self.server.server,
            reaches=tuple(
                ReachView(
                    address=address,
                    server=by_address[address],
                    cluster_id=self.server.cluster_id,
                    round_trip_ms=1.0,
                )
                for address in request.addresses
            ),
            wall_clock_ms=0,
        )


def form(*patients: Patient) -> str:
    """Let `patients` be the members of one cluster; return `--endpoints` for it."""
    addresses = {patient.server.server: patient.server.address for patient in patients}
    for patient in patients:
        patient.known = configuration(" ".join(addresses), addresses=addresses)
    return ",".join(addresses.values())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, no_surroundings: None) -> None:
    monkeypatch.setattr(examining, "BUSY_PAUSE_S", 0.01)
    monkeypatch.setattr(examining, "NOTICE_S", 0.05)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    code = main(["doctor", "-o", "json", *words])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def results_of(document: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for check in document["checks"]:
        found.setdefault(check["name"], check["result"])
    return found


@pytest.mark.usefixtures("quick")
def test_every_server_is_asked_to_dial_every_member(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a", "n2/b", "n3/c") as servers:
        patients = [Patient(server) for server in servers]
        endpoints = form(*patients)
        code, document, _ = told(capsys, "-e", endpoints)
    assert code == 0
    assert results_of(document)["reachability"] == "pass"
    assert len(document["reach"]) == 3 + 6
    assert all(cell["ok"] for cell in document["reach"])
    for patient in patients:
        (request,) = patient.checkups
        assert request.addresses == tuple(endpoints.split(","))
        assert request.timeout_ms == 2_000
    (operation,) = [check for check in document["checks"] if check["name"] == "operations"]
    assert operation["finding"].startswith("op-3 add n4")


@pytest.mark.usefixtures("quick")
def test_a_busy_server_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a", "n2/b") as servers:
        patients = [Patient(server) for server in servers]
        patients[1].busy = 2
        _, document, _ = told(capsys, "-e", form(*patients))
    assert len(patients[1].checkups) == 3
    assert results_of(document)["reachability"] == "pass"


@pytest.mark.usefixtures("quick")
def test_a_server_of_an_older_release_is_not_asked_for_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a", "n2/b") as servers:
        patients = [Patient(servers[0]), Patient(servers[1], **OLD)]
        _, document, _ = told(capsys, "-e", form(*patients))
    assert patients[1].checkups == []
    skipped = [check for check in document["checks"] if check["result"] == "skip"]
    assert "n2 did not dial the others: its version, 0.0.9, knows no checkup" in [
        check["finding"] for check in skipped
    ]
    assert ("n2", "n1") not in {(cell["from"], cell["to"]) for cell in document["reach"]}


@pytest.mark.usefixtures("quick")
def test_a_checkup_that_never_ends_is_given_up_within_the_timeout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a", "n2/b") as servers:
        patients = [Patient(server) for server in servers]
        patients[0].mute = True
        endpoints = form(*patients)
        started_s = time.monotonic()
        code = main(["doctor", "-e", endpoints, "--timeout", "600ms"])
        took_s = time.monotonic() - started_s
    out, err = capsys.readouterr()
    assert code == 0
    assert took_s < 1.5
    assert "n1 did not dial the others: no answer within" in " ".join(out.split())
    assert "waiting until n1 and n2 have dialled the others, up to" in err
    assert patients[1].checkups[0].timeout_ms <= 600


@pytest.mark.usefixtures("quick")
def test_clocks_are_compared_to_the_millisecond(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a", "n2/b") as servers:
        late_ms = int((time.time() - 3_600) * 1000)
        patients = [Patient(servers[0]), Patient(servers[1], wall_clock_ms=late_ms)]
        code, document, _ = told(capsys, "-e", form(*patients))
    (clocks,) = [check for check in document["checks"] if check["name"] == "clocks"]
    assert code == 0
    assert clocks["result"] == "warn"
    assert "the clock of n1 is 1h 00m ahead of that of n2" in clocks["finding"]


@pytest.mark.usefixtures("quick")
def test_a_failed_check_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a", "n2/b") as servers:
        patients = [Patient(servers[0]), Patient(servers[1], disk_free_bytes=1)]
        code, document, _ = told(capsys, "-e", form(*patients))
    assert (code, document["result"]) == (1, "fail")


@pytest.mark.usefixtures("quick")
def test_where_no_server_answers_the_document_still_comes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, document, err = told(capsys, "-e", f"{closed_address()},{closed_address()}")
    assert code == 3
    assert err == ""
    assert list(results_of(document)) == list(CHECKS)
    assert "connection refused" in json.dumps(document)
