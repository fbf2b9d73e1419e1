"""The driver of rolling operations: what it waits for, what it puts on record, how it goes on."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from raftctl import rolling as driving
from raftctl import rolling_text
from raftctl.cli import Context, main
from raftctl.commands import rolling as commands
from raftctl.rolling_text import screen_for
from raftd.commands import (
    ABORTED,
    DONE,
    FAILED,
    FEATURES_MAX,
    PENDING,
    RUNNING,
    SKIPPED,
    Operation,
    Plan,
    Rolling,
    RollingStep,
)
from raftd.protocol import (
    BeginRollingRequest,
    ChangeRequest,
    ErrorReply,
    Request,
    StatusRequest,
    TransferReply,
    TransferRequest,
    UpdateRollingRequest,
)
from tests.raftctl.golden_files import Terminal
from tests.raftctl.rolling_world import NEW, OLD, UPTIME_MS, RollingWorld
from tests.raftctl.speaking_servers import LOSE, Answer, closed_address

pytestmark = pytest.mark.usefixtures("no_surroundings")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "POLL_MS", 5.0)
    monkeypatch.setattr(commands, "POLL_S", 0.005)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RollingWorld]:
    with world_of(tmp_path) as world:
        yield world


@contextlib.contextmanager
def world_of(tmp_path: Path, **more: int) -> Iterator[RollingWorld]:
    folder = tmp_path / "servers"
    folder.mkdir()
    world = RollingWorld(folder, **more)
    try:
        yield world
    finally:
        world.close()


def run(world: RollingWorld, *words: str, timeout: str = "5s") -> int:
    return main(["rolling", *words, "-e", world.endpoints, "--timeout", timeout])


def restart(world: RollingWorld, *words: str, **more: str) -> int:
    return run(world, "restart", "--command", world.restart_command, "-y", *words, **more)


def rolling(world: RollingWorld) -> Rolling:
    found = world.operation("op-1").rolling
    assert found is not None
    return found


def states(world: RollingWorld) -> list[tuple[str, str]]:
    return [(step.name, step.state) for step in rolling(world).steps]


def begun(world: RollingWorld, steps: tuple[RollingStep, ...], command: str = "true") -> None:
    """Have a driver that is gone now begin an operation."""
    request = BeginRollingRequest(
        session="gone",
        serial=1,
        kind="rolling-restart" if command else "rolling-replace",
        author="bob@elsewhere",
        steps=steps,
        command=command,
    )
    world.replica.open("gone")
    world._lead(request)
    for position, step in enumerate(steps):
        if step.state != PENDING:
            version = rolling(world).version
            reply = world.update(
                UpdateRollingRequest(
                    session="gone",
                    serial=2 + position,
                    operation="op-1",
                    action="step",
                    author="bob@elsewhere",
                    version=version,
                    position=position,
                    step=step,
                )
            )
            assert not isinstance(reply, ErrorReply)


def is_done(request: Request) -> bool:
    """Return whether a request notes that a step is done."""
    step = request.step if isinstance(request, UpdateRollingRequest) else None
    return step is not None and step.state == DONE


def last_json(text: str) -> Any:
    return json.loads(text.splitlines()[-1])


# --- before anything happens --------------------------------------------------------------------


def test_the_plan_has_learners_first_and_the_leader_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with world_of(tmp_path, learners=1) as world:
        command = world.restart_command
        assert run(world, "restart", "--command", command, "--dry-run") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "rolling restart of 4 servers, one at a time"
        rows = [re.split(r"  +", line.strip()) for line in lines[2:6]]
        assert [row[1:3] for row in rows] == [
            ["n4", "learner"],
            ["n2", "follower"],
            ["n3", "follower"],
            ["n1", "leader"],
        ]
        assert [row[-1] for row in rows] == ["survives 1 failure", *["survives no failure"] * 3]
        assert "leadership is handed over, then restart" in rows[3]
        assert f"command: {command}" in lines
        assert any(line.startswith("command for n4: ") and line.endswith("/n4") for line in lines)
        assert world.requests(BeginRollingRequest) == []
        assert world.restarts() == []


def test_the_plan_as_json_has_every_step(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    new = world.add("n4").address
    assert run(world, "replace", "n2", f"n4={new}", "--dry-run", "-o", "json") == 0
    assert last_json(capsys.readouterr().out) == {
        "operation": None,
        "result": "planned",
        "kind": "rolling-replace",
        "command": None,
        "steps": [
            {
                "server": "n2",
                "replacement": f"n4={new}",
                "role": "follower",
                "version": OLD,
                "tolerance": 1,
            }
        ],
    }


def test_without_a_terminal_it_does_nothing_unless_told_to(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["restart", "--command", "true"], ["resume"], ["abort"]):
        assert run(world, *words) == 2
        assert "asks before it acts" in capsys.readouterr().err
    assert world.requests(BeginRollingRequest) == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["replace", "n1"], "n1 has no counterpart"),
        (["replace", "n1", "n4"], "lacks an address"),
        (["replace", "n1", "n4=h:1", "n1", "n5=h:2"], "named twice: n1"),
        (["replace", "n1", "n4=h:1", "n2", "n5=h:1"], "the address was given twice: h:1"),
        (["restart", "--command", " "], "the command is empty"),
        (["restart", "--command", "x" * 5000], "the command has 5000 bytes"),
        (["restart", "--command", "x {idd}"], "{idd} is no placeholder (did you mean {id}?)"),
        (["restart", "--command", "true", "--servers", "n1,n1"], "named twice: n1"),
        (["restart", "--command", "true", "--servers", "n1,N2"], "'N2' is not a name"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_sent(
    world: RollingWorld, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(world, *words, "-y") == 2
    assert complaint in capsys.readouterr().err
    assert world.requests(StatusRequest) == []


def test_a_server_that_is_no_member_is_refused(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restart(world, "--servers", "n2,n9") == 1
    error = capsys.readouterr().err
    assert "n9: not in the cluster" in error
    assert "the members are n1 n2 n3" in error


def test_nothing_begins_while_another_server_is_down(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoints = world.endpoints
    world.stop("n3")
    words = ["rolling", "restart", "--command", "true", "-y", "-e", endpoints, "--timeout", "300ms"]
    assert main([*words, "--servers", "n2"]) == 6
    error = capsys.readouterr().err
    assert "n2: not now" in error
    assert "without n2 there would be no quorum: n1 is left of 3 voters, and 2 are needed" in error
    assert "n3: connection refused" in error
    assert "try: start n3" in error
    assert world.requests(BeginRollingRequest) == []
    assert main([*words, "--servers", "n3"]) == 4, "the one that is down may be started"
    assert states(world) == [("n3", RUNNING)]


def test_a_server_that_is_down_waits_for_the_others_although_a_quorum_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with world_of(tmp_path, voters=5) as world:
        endpoints = world.endpoints
        world.stop("n5")
        assert main(["rolling", "restart", "--command", "true", "-y", "-e", endpoints]) == 6
        assert "n5 is down" in capsys.readouterr().err
        assert world.requests(BeginRollingRequest) == []
        world.stop("n4")
        words = ["rolling", "restart", "--command", "true", "-y", "-e", endpoints]
        for server in ("n4", "n2"):
            assert main([*words, "--servers", server]) == 6
            error = capsys.readouterr().err
            assert "n4: connection refused" in error
            assert "n5: connection refused" in error
        world.stop("n3")
        assert main([*words, "--servers", "n3"]) == 6
        error = capsys.readouterr().err
        assert "since n4: connection refused" in error
        assert "n3 is down too (n3: connection refused" in error


def test_of_two_voters_none_can_be_restarted_and_the_safe_way_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with world_of(tmp_path, voters=2) as world:
        assert restart(world) == 6
        error = capsys.readouterr().err
        assert "1 left" in error or "n1 is left of 2 voters, and 2 are needed" in error
        assert "raftctl add ID=HOST:PORT" in error
        assert world.requests(BeginRollingRequest) == []


def test_the_only_voter_cannot_be_restarted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with world_of(tmp_path, voters=1) as world:
        assert restart(world) == 6
        error = capsys.readouterr().err
        assert "no quorum: nobody is left of 1 voter, and 1 is needed" in error
        assert world.requests(BeginRollingRequest) == []


def test_servers_of_an_older_release_are_named(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.features = 0
    world.spoken["n2"] = 2
    assert restart(world) == 1
    error = capsys.readouterr().err
    assert "not switched on in this cluster yet" in error
    assert "every member has to speak version 3: n2 do not" in error
    assert world.requests(BeginRollingRequest) == []


def test_a_second_operation_is_told_which_one_runs(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(world, (RollingStep(name="n2"),))
    assert restart(world) == 1
    error = capsys.readouterr().err
    assert "op-1 is rolling" in error
    assert "rolling resume op-1" in error


def test_a_replacement_that_the_leader_refuses_is_not_begun(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = ErrorReply(
        code="refused", message="n4 is not blank", cause="it has a cluster", hint="wipe it"
    )
    world.instead = lambda name, request: (
        refusal if isinstance(request, ChangeRequest) and request.dry_run else None
    )
    assert run(world, "replace", "n2", f"n4={closed_address()}", "-y") == 1
    assert "n4 is not blank" in capsys.readouterr().err
    assert world.requests(BeginRollingRequest) == []


# --- restarts -----------------------------------------------------------------------------------


def test_a_restart_goes_through_the_followers_and_ends_with_the_leader(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restart(world, "--reason", "new release") == 0
    assert world.restarts() == ["n2", "n3", "n1"]
    assert states(world) == [("n2", DONE), ("n3", DONE), ("n1", DONE)]
    record = world.operation("op-1")
    assert (record.result, record.reason) == (DONE, "new release")
    assert record.author.startswith("alice@")
    for step in rolling(world).steps:
        assert (step.version_before, step.version_after) == (OLD, NEW)
        assert step.uptime_ms >= UPTIME_MS
        assert record.phases[0].time_ms <= step.started_ms <= step.ended_ms
    assert world.requests(TransferRequest) == [TransferRequest(target="n2")]
    output = capsys.readouterr()
    assert "op-1: rolling restart of n2 n3 n1" in output.err
    assert "leadership moved from n1 to n2" in output.err
    assert "[3/3] n1: done in " in output.err
    assert f"({OLD} -> {NEW})" in output.err
    assert "are switched on" not in output.err, "they were before"
    assert "op-1 (rolling restart of n2 n3 n1): done in" in output.out


def test_with_json_each_step_is_a_line_and_the_last_one_is_the_result(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restart(world, "-o", "json") == 0
    output = capsys.readouterr()
    assert output.err == ""
    *progress, result = map(json.loads, output.out.splitlines())
    assert {line["type"] for line in progress} == {"progress"}
    assert {line["operation"] for line in progress} == {"op-1"}
    news = [(line["step"], line["current"]["state"]) for line in progress if not line["doing"]]
    assert news == [(n, state) for n in (1, 2, 3) for state in (RUNNING, DONE)]
    assert (result["operation"], result["result"]) == ("op-1", "done")
    assert result["configuration"]["voters"] == ["n1", "n2", "n3"]
    assert [step["server"] for step in result["steps"]] == ["n2", "n3", "n1"]
    assert {step["version_after"] for step in result["steps"]} == {NEW}


def test_a_command_that_fails_pauses_the_operation_and_resuming_repeats_it(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    switch = world.folder / "works"
    command = f"test -e {switch} || {{ echo no such unit; exit 5; }}; {world.restart_command}"
    assert run(world, "restart", "--command", command, "-y") == 1
    error = capsys.readouterr().err
    assert "the command that restarts n2 ended with exit code 5" in error
    assert "no such unit" in error
    assert "rolling resume op-1" in error
    assert states(world) == [("n2", FAILED), ("n3", PENDING), ("n1", PENDING)]
    assert rolling(world).steps[0].note == "its command ended with exit code 5: no such unit"
    assert rolling(world).paused_by.startswith("alice@")
    assert rolling(world).paused_reason == "n2 failed"
    switch.touch()
    assert run(world, "resume", "-y") == 0
    assert world.restarts() == ["n2", "n3", "n1"]
    assert world.operation("op-1").result == DONE


def test_a_command_that_takes_too_long_pauses_the_operation(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(world, "restart", "--command", "sleep 60", "-y", timeout="300ms") == 1
    assert "the command that restarts n2 did not end in time" in capsys.readouterr().err
    assert states(world)[0] == ("n2", FAILED)


def test_a_command_that_restarts_nothing_is_noticed(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(world, "restart", "--command", "true", "-y", timeout="300ms") == 4
    error = capsys.readouterr().err
    assert "op-1 is paused: the step of n2 is not finished" in error
    assert "n2 still runs as before" in error
    assert states(world)[:2] == [("n2", RUNNING), ("n3", PENDING)]
    assert "n2 still runs as before" in rolling(world).paused_reason
    assert error.count("waiting: n2 still runs as before") == 1
    assert run(world, "show") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^state +paused: waited for 300ms for: n2 still runs as", shown, re.MULTILINE)


def test_a_counter_in_what_is_waited_for_is_no_progress(
    world: RollingWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = itertools.count(1)
    monkeypatch.setattr(driving, "duration", lambda ms: f"{next(looks)}m 22s")
    monkeypatch.setattr(rolling_text, "LINE_MS", 20.0)
    assert run(world, "restart", "--command", "true", "-y", timeout="300ms") == 4
    assert capsys.readouterr().err.count("waiting: n2 still runs as before") == 1


def test_a_server_that_does_not_come_back_stops_the_operation_there(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    def instead(name: str, request: Request) -> Answer | None:
        return LOSE if name == "n2" and world.restarts() else None

    world.instead = instead
    assert restart(world, timeout="300ms") == 4
    assert "n2 does not answer yet" in capsys.readouterr().err
    assert world.restarts() == ["n2"]


def test_the_next_server_waits_until_the_one_before_has_caught_up(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    def instead(name: str, request: Request) -> Answer | None:
        # It has to catch up after its restart, and takes five looks for it.
        if isinstance(request, StatusRequest) and name == "n1":
            behind = world.lag.get("n2")
            if behind is None and world.restarts() == ["n2"]:
                world.lag["n2"] = 50
            elif behind:
                world.lag["n2"] = behind - 10
                assert world.restarts() == ["n2"]
        return None

    world.instead = instead
    assert restart(world) == 0
    error = capsys.readouterr().err
    assert re.search(r"waiting: n2: catching up, \d+ entries behind the leader", error)


def test_a_server_that_goes_down_meanwhile_stops_the_operation_before_the_next_step(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    def instead(name: str, request: Request) -> Answer | None:
        if is_done(request):
            world.down.add("n3")
        return None

    world.instead = instead
    words = ["restart", "--command", world.restart_command, "-y", "--servers", "n2,n1"]
    assert run(world, *words, timeout="300ms") == 6
    error = capsys.readouterr().err
    assert "op-1 is paused: the step of n1 was not begun" in error
    assert "n3: the connection was lost" in error
    assert "nothing has moved for 300ms; 1 of 2 steps done" in error
    assert states(world) == [("n2", DONE), ("n1", PENDING)]
    assert world.requests(TransferRequest) == []


def test_leadership_that_comes_back_stops_the_operation_at_last(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.instead = lambda name, request: (
        TransferReply(leader="n2/n2", term=4) if isinstance(request, TransferRequest) else None
    )
    assert restart(world, "--servers", "n1") == 1
    assert "leadership does not stay away from n1" in capsys.readouterr().err
    assert len(world.requests(TransferRequest)) == driving.TRANSFERS_MAX
    assert world.restarts() == []


def test_a_server_that_leads_by_now_has_its_turn_last(world: RollingWorld) -> None:
    def instead(name: str, request: Request) -> Answer | None:
        if isinstance(request, BeginRollingRequest):
            world.instead = lambda name, request: None
            reply = world._lead(request)
            world.leader = "n2"
            return reply
        return None

    world.instead = instead
    assert restart(world) == 0
    assert world.restarts() == ["n3", "n1", "n2"]


def test_at_the_end_of_an_upgrade_it_waits_for_the_features(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Request] = []

    def instead(name: str, request: Request) -> Answer | None:
        if len(world.restarts()) == 3 and isinstance(request, StatusRequest):
            world.spoken = dict.fromkeys(("n1", "n2", "n3"), FEATURES_MAX + 1)
            asked.append(request)
            if len(asked) > 12:
                world.features = FEATURES_MAX + 1
        return None

    world.instead = instead
    assert restart(world) == 0
    error = capsys.readouterr().err
    assert f"waiting: the features of version {FEATURES_MAX + 1} are not switched on yet" in error
    assert (
        f"the features of version {FEATURES_MAX + 1} are switched on now, all servers speak it"
        in error
    )


def test_servers_that_were_left_out_of_an_upgrade_are_named(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    def instead(name: str, request: Request) -> Answer | None:
        world.spoken = dict.fromkeys(world.restarts(), FEATURES_MAX + 1)
        return None

    world.instead = instead
    assert restart(world, "--servers", "n2,n3") == 0
    error = capsys.readouterr().err
    assert f"the servers run different releases: {OLD} on n1; {NEW} on n2 n3" in error
    assert (
        f"the features of version {FEATURES_MAX + 1} are off while n1 stays at an older one"
        in error
    )


# --- replacements -------------------------------------------------------------------------------


def replaced(world: RollingWorld) -> list[str]:
    """Start n4 and n5, and return the words that let them replace n1 and n2."""
    return ["n1", f"n4={world.add('n4').address}", "n2", f"n5={world.add('n5').address}"]


def test_each_replacement_is_one_change_of_the_configuration_that_was_looked_at(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(world, "replace", *replaced(world), "-y", "--reason", "old disks") == 0
    changes = [
        request
        for request in world.requests(ChangeRequest)
        if isinstance(request, ChangeRequest) and not request.dry_run
    ]
    changes.sort(key=lambda request: request.at_index or 0)
    assert [[change.name for change in request.changes] for request in changes] == [
        ["n2", "n5"],
        ["n1", "n4"],
    ]
    assert all(request.parent == "op-1" and request.at_index for request in changes)
    assert {request.reason for request in changes} == {"old disks"}
    assert states(world) == [("n2", DONE), ("n1", DONE)]
    assert [step.operation for step in rolling(world).steps] == ["op-2", "op-3"]
    assert world.operation("op-3").parent == "op-1"
    output = capsys.readouterr()
    assert "n3  voter" in output.out
    assert "n5  voter" in output.out


def test_a_replacement_keeps_the_role_of_the_server_that_leaves(tmp_path: Path) -> None:
    with world_of(tmp_path, learners=1) as world:
        assert run(world, "replace", "n4", f"n5={world.add('n5').address}", "-y") == 0
        roles = {
            change.role
            for request in world.requests(ChangeRequest)
            if isinstance(request, ChangeRequest)
            for change in request.changes
            if change.name == "n5"
        }
        assert roles == {"learner"}


def test_a_replacement_that_is_rolled_back_pauses_the_operation_and_resuming_tries_again(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.changes_end_as = FAILED
    words = replaced(world)
    assert run(world, "replace", *words, "-y") == 1
    error = capsys.readouterr().err
    assert "op-2, the replacement of n2 by n5, failed" in error
    assert "the new half is gone" in error
    assert states(world) == [("n2", FAILED), ("n1", PENDING)]
    assert rolling(world).steps[0].operation == "op-2"
    world.changes_end_as = DONE
    assert run(world, "resume", "-y") == 0
    assert [step.operation for step in rolling(world).steps] == ["op-3", "op-4"]
    assert world.operation("op-1").result == DONE


# --- going on -----------------------------------------------------------------------------------


REPLACEMENT = RollingStep(name="n2", replacement="n5=h:5", state=RUNNING)


def test_a_change_that_a_dead_driver_has_begun_is_not_begun_again(world: RollingWorld) -> None:
    address = world.add("n5").address
    step = attrs.evolve(REPLACEMENT, replacement=f"n5={address}")
    begun(world, (step,), command="")
    world.changes_end_as = ""
    change = ChangeRequest(
        session="gone",
        serial=9,
        kind="replace",
        changes=driving_changes(address),
        author="bob",
        at_index=world.replica.machine.configuration_index,
        parent="op-1",
    )
    assert not isinstance(world.apply_change(change), ErrorReply)
    asked: list[Request] = []

    def instead(name: str, request: Request) -> Answer | None:
        asked.append(request)
        if len(asked) == 12:
            world.end_change(DONE)
        return None

    world.instead = instead
    assert run(world, "resume", "-y") == 0
    assert not any(isinstance(request, ChangeRequest) for request in asked)
    assert rolling(world).steps[0].operation == "op-2"
    assert world.operation("op-1").result == DONE
    assert "n5" in world.members


def driving_changes(address: str) -> tuple[Any, ...]:
    from raftd.protocol import MemberChange

    return (
        MemberChange(role="remove", name="n2"),
        MemberChange(role="voter", name="n5", address=address),
    )


def test_a_step_whose_change_was_never_begun_begins_it(world: RollingWorld) -> None:
    step = attrs.evolve(REPLACEMENT, replacement=f"n5={world.add('n5').address}")
    begun(world, (step,), command="")
    assert run(world, "resume", "-y") == 0
    assert (rolling(world).steps[0].operation, "n5" in world.members) == ("op-2", True)


def test_a_server_that_left_meanwhile_is_skipped(world: RollingWorld) -> None:
    begun(world, (RollingStep(name="n9"), RollingStep(name="n2")), command=world.restart_command)
    assert run(world, "resume", "-y") == 0
    assert states(world) == [("n9", SKIPPED), ("n2", DONE)]
    assert rolling(world).steps[0].note == "n9 is not a member any more"


def test_a_server_that_was_restarted_by_a_dead_driver_is_not_restarted_again(
    world: RollingWorld,
) -> None:
    step = RollingStep(name="n2", state=RUNNING, uptime_ms=UPTIME_MS, version_before=OLD)
    begun(world, (step, RollingStep(name="n3")), command=world.restart_command)
    (world.folder / "n2").write_text("0.1.9")
    assert run(world, "resume", "-y") == 0
    assert rolling(world).steps[0].version_after == "0.1.9"
    assert rolling(world).steps[0].version_before == OLD
    assert (world.folder / "n2").read_text() == "0.1.9"
    assert (world.folder / "n3").read_text().strip() == NEW


def test_a_server_of_which_nobody_knows_whether_it_was_restarted_is_restarted(
    world: RollingWorld,
) -> None:
    step = RollingStep(name="n2", state=RUNNING, uptime_ms=UPTIME_MS, version_before=OLD)
    begun(world, (step,), command=world.restart_command)
    assert run(world, "resume", "-y") == 0
    assert world.restarts() == ["n2"]
    assert "done again" in rolling(world).steps[0].note


def test_with_nothing_to_go_on_with_it_says_so(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["resume", "-y"], ["pause"], ["abort", "-y"], ["show"]):
        assert run(world, *words) == 1
        error = capsys.readouterr().err
        assert "error: no rolling operation runs" in error
        assert re.search(r"try: raftctl .*operation list$", error, re.MULTILINE)
    restart(world)
    assert run(world, "resume", "op-1", "-y") == 1
    assert "it has ended: done" in capsys.readouterr().err


def test_a_driver_that_is_silent_for_long_may_be_gone_and_a_young_one_alive(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    began_ms = 1_700_000_000_000
    world.wall_clock_ms = lambda: began_ms
    begun(world, (RollingStep(name="n2"),), world.restart_command)
    world.wall_clock_ms = lambda: began_ms + 29_000
    assert run(world, "show") == 0
    assert "its last change was" not in capsys.readouterr().out
    world.wall_clock_ms = lambda: began_ms + 80_000
    assert run(world, "show") == 0
    shown = capsys.readouterr().out
    assert "; its last change was 1m 20s ago; if nobody drives it: raftctl" in shown
    assert "rolling resume op-1" in shown
    world.wall_clock_ms = lambda: began_ms + 29_000
    assert run(world, "resume", "-y") == 0
    assert (
        "the raftctl that drove op-1 (bob@elsewhere) may be alive; its last change was 29.0s ago; "
        "its next update will be refused"
    ) in capsys.readouterr().err


# --- somebody else ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "code", "words"),
    [
        ("pause", 4, "op-1 is paused by eve@elsewhere"),
        ("resume", 4, "this raftctl does not drive op-1 any more"),
        ("abort", 1, "op-1 was aborted by somebody else"),
    ],
)
def test_a_driver_stops_when_somebody_else_changes_the_operation(
    world: RollingWorld,
    action: str,
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def instead(name: str, request: Request) -> Answer | None:
        if not is_done(request):
            return None
        assert isinstance(request, UpdateRollingRequest)
        world.instead = lambda name, request: None
        reply = world.update(request)
        world.interfere(action)
        return reply

    world.instead = instead
    assert restart(world) == code
    assert words in capsys.readouterr().err
    assert world.restarts() == ["n2"]


@pytest.mark.parametrize("state", [RUNNING, DONE])
def test_a_pause_reaches_a_driver_that_waits(
    world: RollingWorld, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # For the server that has just been restarted, or for the others before the next step.
    def instead(name: str, request: Request) -> Answer | None:
        running = world.replica.machine.rolling_operation
        if world.restarts() and running is not None and running.rolling.steps[0].state == state:
            world.lag["n2"] = 10_000
            if not running.rolling.paused_by:
                world.interfere("pause")
        return None

    world.instead = instead
    assert restart(world) == 4
    assert "error: op-1 is paused by eve@elsewhere" in capsys.readouterr().err
    assert rolling(world).steps[0].state == state
    assert world.restarts() == ["n2"]


def test_pausing_says_what_goes_on_and_how_to_resume(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(world, (RollingStep(name="n2", state=RUNNING), RollingStep(name="n3")))
    assert run(world, "pause", "--reason", "lunch") == 0
    output = capsys.readouterr()
    assert output.out == "op-1 is paused, 0 of 2 steps done\n"
    assert "the step of n2 is under way" in output.err
    assert "rolling resume op-1" in output.err
    assert rolling(world).paused_reason == "lunch"
    assert run(world, "pause", "op-1") == 0
    assert "already" in capsys.readouterr().err


def test_aborting_ends_it_and_undoes_its_change(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    address = world.add("n5").address
    step = attrs.evolve(REPLACEMENT, replacement=f"n5={address}", operation="op-2")
    begun(world, (step, RollingStep(name="n3", replacement="n6=h:6")), command="")
    world.changes_end_as = ""
    world.apply_change(
        ChangeRequest(
            session="",
            serial=0,
            kind="replace",
            changes=driving_changes(address),
            author="bob",
            parent="op-1",
        )
    )
    assert run(world, "abort", "1", "-y", "--reason", "wrong servers") == 0
    output = capsys.readouterr()
    assert "op-2, its step, was undone" in output.err
    assert "aborted" in output.out
    assert world.operation("op-1").result == ABORTED
    assert world.operation("op-2").result == ABORTED
    assert "wrong servers" in world.operation("op-1").explanation


def test_ctrl_c_pauses_and_says_how_to_go_on(
    world: RollingWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.lag = {"n3": 10_000}

    class Clock:
        time, monotonic = staticmethod(time.time), staticmethod(time.monotonic)

        @staticmethod
        def sleep(seconds: float) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(driving, "time", Clock)
    assert restart(world, "--servers", "n2") == 130
    assert "op-1 is paused, 0 of 1 step done; go on: raftctl" in capsys.readouterr().err
    assert rolling(world).paused_reason == "interrupted"


def test_on_a_terminal_the_steps_are_drawn_over_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    context = Context()
    context.color = "never"
    screen = screen_for(context)

    def record(*states: str) -> Operation:
        steps = [RollingStep(name=f"n{n}", state=state) for n, state in enumerate(states, 1)]
        plan = Plan(changes=(), joint=False, configuration_index=1)
        return Operation(
            id="op-1",
            kind="rolling-restart",
            author="",
            reason="",
            plan=plan,
            phase="rolling",
            rolling=Rolling(steps=tuple(steps)),
        )

    screen.show(record(RUNNING, PENDING))
    screen.doing("restarting " + "n1 " * 40)
    screen.say("leadership moved")
    screen.show(record(DONE, PENDING))
    screen.close()
    frames = re.split(r"\x1b\[J", terminal.getvalue())
    shown = [re.sub(r"\x1b\[[0-9]*[A-Z]|\r", "", frame).splitlines() for frame in frames]
    assert shown[0] == [
        "op-1: rolling restart of n1 n2",
        "STEP  SERVER  STATE",
        "   1  n1      running",
        "   2  n2      pending",
    ]
    assert shown[1][:4] == shown[0]
    assert len(shown[1][4]) == 59
    assert shown[2][0] == "leadership moved"
    assert shown[2][1:] == shown[1]
    assert shown[3][2:] == ["   1  n1      done", "   2  n2      pending"]
    # Each frame begins at the top of the table before: 4 lines, then 5, and 5 again.
    ups = [re.findall(r"\x1b\[([0-9]+)A", frame) for frame in frames]
    assert ups == [[], ["4"], ["5"], ["5"], ["4"], []]


# --- operation commands -------------------------------------------------------------------------


def test_operation_commands_know_rolling_operations(
    world: RollingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(world, (RollingStep(name="n2", state=RUNNING), RollingStep(name="n3")))

    def operation(*words: str) -> tuple[int, str]:
        code = main(["operation", *words, "-e", world.endpoints, "--timeout", "300ms"])
        output = capsys.readouterr()
        return code, output.out + output.err

    code, text = operation("list")
    assert (code, "rolling restart of n2 n3" in text, "rolling" in text) == (0, True, True)
    code, text = operation("show", "op-1")
    assert (code, "driven by bob@elsewhere" in text) == (0, True)
    assert re.search(r"1 +n2 +running", text)
    code, text = operation("watch", "op-1")
    assert (code, "the raftctl that drives it may be gone" in text) == (4, True)
    assert "rolling resume op-1" in text
    world.interfere("pause")
    code, text = operation("watch")
    assert (code, "paused by eve@elsewhere" in text) == (4, True)
    code, text = operation("show", "-o", "json")
    assert json.loads(text)["rolling"]["steps"][0]["state"] == RUNNING
    code, text = operation("abort", "-y")
    assert (code, world.operation("op-1").result) == (0, ABORTED)
    code, text = operation("watch", "op-1")
    assert (code, "op-1 aborted" in text) == (1, True)
