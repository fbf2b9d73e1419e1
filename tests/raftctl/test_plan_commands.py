"""plan, diff and apply against a scripted leader, and what plans look like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from raftctl.cli import main
from raftctl.plan_text import Member, differences, plan_text
from raftctl.render import Style
from raftd.protocol import (
    ChangeReply,
    ChangeRequest,
    ErrorReply,
    OpenSessionRequest,
    OperationView,
    PlanPhase,
    PlanView,
    Quorum,
    StatusRequest,
    TargetMember,
)
from tests.raftctl.golden_files import Golden, Terminal
from tests.raftctl.leading import BEFORE, Leader
from tests.raftctl.speaking_servers import (
    configuration,
    operation_record,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")

N4 = ("n4/d", "127.0.0.1:7104")
ENDED = OperationView(
    record=operation_record(
        "joining", "joint", "ended", kind="apply", changes=(("voter", "n4/d"),), result="done"
    )
)


@pytest.fixture
def leader() -> Iterator[Leader]:
    with speaking_servers("n1/a") as [server]:
        leader = Leader(server)
        leader.before = leader.after = configuration(
            (server.server, server.address), *BEFORE[1:], index=7
        )
        leader.views = [ENDED]
        yield leader


def cluster_file(path: Path, leader: Leader, *others: str, cluster: str = "orders") -> str:
    """Write a cluster file with n1 and what is said about other servers."""
    lines = [f"cluster: {cluster}", "servers:", f"  n1: {{address: {leader.server.address}}}"]
    path.write_text("\n".join([*lines, *(f"  {other}" for other in others)]) + "\n")
    return str(path)


UNCHANGED = ("n2: {address: 127.0.0.1:7102}", "n3: {address: 127.0.0.1:7103}")
WITH_N4 = (*UNCHANGED, "n4: {address: 127.0.0.1:7104, zone: east}")
REPLACED = ("n2: {address: 127.0.0.1:7102}", "n4: {address: 127.0.0.1:7104, role: learner}")


def replacing(leader: Leader) -> PlanView:
    """Return a plan that brings in n4 and removes n3."""
    after = configuration(*BEFORE[:2], N4)
    return attrs.evolve(leader.plan, before=leader.before, after=after)


# --- what is sent -----------------------------------------------------------------------------


def test_plan_sends_the_whole_file_and_changes_nothing(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *WITH_N4)

    assert main(["plan", "-f", path]) == 0

    (request,) = leader.changes()
    assert (request.kind, request.dry_run, request.changes) == ("apply", True, ())
    assert request.target == (
        TargetMember(name="n1", role="voter", address=leader.server.address),
        TargetMember(name="n2", role="voter", address="127.0.0.1:7102"),
        TargetMember(name="n3", role="voter", address="127.0.0.1:7103"),
        TargetMember(name="n4", role="voter", address="127.0.0.1:7104"),
    )
    assert request.zones == {"n4": "east"}
    assert not any(isinstance(one, OpenSessionRequest) for one in leader.server.requests)
    # The command that applies it stands alone in its line, to be copied.
    assert capsys.readouterr().out.splitlines()[-1] == f"raftctl apply -f {path} --at-index 7"


def test_the_command_that_applies_a_plan_dials_where_the_plan_was_made(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "my wish.yaml", leader, *WITH_N4)
    address = leader.server.address

    assert main(["plan", "-f", path, "-e", address]) == 0

    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"raftctl -e {address} apply -f '{path}' --at-index 7"


def test_with_a_config_its_servers_are_dialled_and_not_those_of_the_file(
    leader: Leader, tmp_path: Path
) -> None:
    live = cluster_file(tmp_path / "live.yaml", leader, *UNCHANGED)
    (tmp_path / "wish.yaml").write_text("cluster: orders\nservers:\n  n9: {address: 127.0.0.1:1}\n")

    assert main(["plan", "-f", "wish.yaml", "-c", live]) == 0

    assert [member.name for member in leader.changes()[0].target] == ["n9"]


def test_apply_pins_the_configuration_that_was_planned_for(leader: Leader, tmp_path: Path) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *WITH_N4)

    assert main(["apply", "-f", path, "--reason", "more room"]) == 0

    asked, started = leader.changes()
    assert (asked.dry_run, started.dry_run) == (True, False)
    assert (started.kind, started.at_index, started.reason) == ("apply", 7, "more room")
    assert started.target == asked.target


def test_changes_by_hand_send_the_zones_of_the_cluster_file(leader: Leader, tmp_path: Path) -> None:
    path = cluster_file(tmp_path / "cluster.yaml", leader, *WITH_N4)
    assert main(["remove", "n3", "-y", "-c", path]) == 0
    assert [request.zones for request in leader.changes()] == [{"n4": "east"}] * 2


def test_zones_come_from_a_cluster_file_that_does_not_say_where_to_dial(
    leader: Leader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cluster_file(tmp_path / "cluster.yaml", leader, *WITH_N4)
    monkeypatch.setenv("RAFTCTL_CONFIG", path)
    assert main(["promote", "n3", "-e", leader.server.address]) == 0
    assert [request.zones for request in leader.changes()] == [{"n4": "east"}] * 2


def test_a_broken_cluster_file_does_not_keep_a_change_from_being_made(
    leader: Leader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.yaml").write_text("servers: 7\n")
    monkeypatch.setenv("RAFTCTL_CONFIG", "broken.yaml")
    assert main(["remove", "n3", "-y", "-e", leader.server.address]) == 0
    assert [request.zones for request in leader.changes()] == [{}, {}]


# --- asking first -----------------------------------------------------------------------------


def test_apply_asks_for_nothing_where_nobody_goes(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *WITH_N4)
    leader.plan = attrs.evolve(
        leader.plan, before=leader.before, after=configuration(*BEFORE, N4, index=0)
    )
    assert main(["apply", "-f", path]) == 0
    assert "+ n4 127.0.0.1:7104 voter" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["removes", "demotes"])
def test_apply_without_a_terminal_refuses_what_it_would_have_to_ask(
    what: str, leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *REPLACED)
    leader.plan = replacing(leader)
    if what == "demotes":
        after = configuration(*BEFORE, learners=("n3/c",))
        leader.plan = attrs.evolve(leader.plan, after=after)

    assert main(["apply", "-f", path]) == 2

    assert [request.dry_run for request in leader.changes()] == [True]
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == f"  try: raftctl apply -f {path} --dry-run"
    assert lines[-1] == f"       raftctl apply -f {path} --yes"


@pytest.mark.parametrize("typed", ["y\n", "n\n"])
def test_apply_shows_the_plan_and_then_asks(
    typed: str, leader: Leader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *REPLACED)
    leader.plan = replacing(leader)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("sys.stderr", terminal)

    code = main(["apply", "-f", path, "--color", "never"])

    shown = terminal.getvalue()
    assert shown.index("- n3") < shown.index("removed for good") < shown.index("Proceed?")
    assert (code, len(leader.changes())) == ((0, 2) if typed == "y\n" else (1, 1))
    if typed == "n\n":
        assert f"  try: raftctl apply -f {path} --color never --yes" in shown


# --- what ends it early -----------------------------------------------------------------------


@pytest.mark.parametrize("word", ["plan", "apply"])
def test_the_same_state_changes_nothing_and_says_so(
    word: str, leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *UNCHANGED)
    leader.nothing_to_do = "the cluster is as asked"

    assert main([word, "-f", path]) == 0

    captured = capsys.readouterr()
    assert "no changes: the cluster is as asked\n" in captured.out + captured.err
    assert all(request.dry_run for request in leader.changes())


def test_a_plan_of_nothing_as_json_has_no_plan(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *UNCHANGED)
    leader.nothing_to_do = "the cluster is as asked"
    assert main(["plan", "-f", path, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["result"], document["plan"]) == ("unchanged", None)
    assert document["configuration"]["index"] == 7


@pytest.mark.parametrize(("word", "code"), [("plan", 1), ("apply", 1), ("diff", 2)])
def test_the_file_of_another_cluster_is_refused_with_both_names(
    word: str, code: int, leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *WITH_N4, cluster="billing")

    assert main([word, "-f", path]) == code

    assert leader.changes() == []
    error = capsys.readouterr().err
    assert "describes the cluster billing, but orders answers" in error
    assert f"raftctl -e {leader.server.address} config export" in error


@pytest.mark.parametrize("word", ["plan", "apply", "diff"])
def test_every_problem_of_the_file_is_named_and_nothing_is_sent(
    word: str, leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, "n2: {adress: 127.0.0.1:7102}", "N3: {}")

    assert main([word, "-f", path]) == 2

    error = capsys.readouterr().err
    assert f"{path}:4:" in error
    assert f"{path}:5:" in error
    assert "did you mean" in error
    assert leader.server.requests == []


def test_at_index_of_the_past_is_refused_with_the_command_that_plans_anew(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *WITH_N4)

    assert main(["apply", "-f", path, "--at-index", "4"]) == 1

    assert leader.changes() == []
    error = capsys.readouterr().err
    assert "the configuration has moved since index 4" in error
    assert f"raftctl plan -f {path}\n" in error


def test_a_file_of_blank_servers_says_how_the_live_cluster_is_named(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = leader.server
    server.cluster_id = ""
    server.answer = lambda request: status_of(server, role="blank")
    path = cluster_file(tmp_path / "wish.yaml", leader)

    assert main(["apply", "-f", path]) == 3

    error = capsys.readouterr().err
    assert "every server that was asked is blank" in error
    moving = f"try: raftctl -c LIVE-FILE apply -f {path}\n"
    founding = f"or found a NEW cluster of the servers of {path}: `raftctl -c {path} init`\n"
    assert error.index(moving) < error.index(founding)


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_file_of_blank_servers_is_applied_through_the_live_file_at_hand(
    leader: Leader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    by_variable: bool,
) -> None:
    server = leader.server
    server.cluster_id = ""
    server.answer = lambda request: status_of(server, role="blank")
    path = cluster_file(tmp_path / "wish.yaml", leader)
    live = cluster_file(tmp_path / ("live.yaml" if by_variable else "cluster.yaml"), leader)
    monkeypatch.chdir(tmp_path)
    if by_variable:
        # It is not dialled: what is typed beats it.
        monkeypatch.setenv("RAFTCTL_CONFIG", live)

    assert main(["apply", "-f", path, f"--config={path}", "-y"]) == 3

    shown = live if by_variable else "./cluster.yaml"
    error = capsys.readouterr().err
    assert f"try: raftctl -c {shown} apply -f {path} -y\n" in error
    assert "--config" not in error


@pytest.mark.parametrize(("name", "other"), [("cluster.yaml", ""), ("wish.yaml", "billing")])
def test_the_file_itself_and_that_of_another_cluster_are_no_way_to_the_live_one(
    leader: Leader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    other: str,
) -> None:
    server = leader.server
    server.cluster_id = ""
    server.answer = lambda request: status_of(server, role="blank")
    cluster_file(tmp_path / name, leader)
    if other:
        cluster_file(tmp_path / "cluster.yaml", leader, cluster=other)
    monkeypatch.chdir(tmp_path)
    assert main(["apply", "-f", name]) == 3
    assert f"try: raftctl -c LIVE-FILE apply -f {name}\n" in capsys.readouterr().err


NOT_THERE = configuration(("n4/d", "127.0.0.1:7104"), ("n10/e", "127.0.0.1:7110"), index=30)
STALE = "none of the servers of {} is a member now; from now on use -c {}"


@pytest.mark.parametrize("given", [True, False])
def test_after_a_move_to_other_servers_apply_says_which_file_leads_to_them(
    leader: Leader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = cluster_file(tmp_path / "new.yaml", leader, *WITH_N4)
    live = tmp_path / "cluster.yaml"
    live.write_text("cluster: orders\nservers:\n  n9: {address: 127.0.0.1:7999}\n")
    if given:
        cluster_file(live, leader)
        leader.after = NOT_THERE

    assert main(["apply", "-f", path, "-y", *(["-c", str(live)] if given else [])]) == 0

    last = capsys.readouterr().err.splitlines()[-1]
    assert last == STALE.format(live if given else "./cluster.yaml", path)


def test_after_a_replacement_of_all_servers_the_file_of_the_new_ones_is_to_be_made(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "old.yaml", leader)
    words = ["replace", "n1", "n4=127.0.0.1:7104", "-y"]
    assert main([*words, "-c", path]) == 0
    assert "from now on" not in capsys.readouterr().err

    leader.before = configuration(*BEFORE, index=7)
    leader.after = attrs.evolve(NOT_THERE, index=7)
    leader.views = [attrs.evolve(ENDED)]
    words = ["add", "n7=127.0.0.1:7104"]
    assert main([*words, "-c", path]) == 0
    export = "raftctl -e 127.0.0.1:7104,127.0.0.1:7110 config export > NEW.yaml"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == STALE.format(path, f"NEW.yaml, made by `{export}`")

    # What dials by addresses has no file that could be out of date.
    assert main([*words, "-e", leader.server.address]) == 0
    assert "from now on" not in capsys.readouterr().err


def test_a_file_whose_servers_have_all_moved_is_said_to_have_old_addresses(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "old.yaml", leader)
    leader.after = configuration(("n1/a", "127.0.0.1:7201"), index=30)
    assert main(["readdress", "n1=127.0.0.1:7201", "-c", path]) == 0
    assert f"no member is at an address of {path} now; " in capsys.readouterr().err


def test_what_the_leader_refuses_changes_nothing(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.refusal = ErrorReply(code="unsafe", message="it would lose the quorum", cause="2 of 3")
    path = cluster_file(tmp_path / "wish.yaml", leader, *WITH_N4)
    assert main(["apply", "-f", path]) == 6
    assert "it would lose the quorum" in capsys.readouterr().err
    assert not any(isinstance(one, OpenSessionRequest) for one in leader.server.requests)


# --- diff -------------------------------------------------------------------------------------


def test_diff_of_the_same_prints_nothing_and_exits_with_0(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *UNCHANGED)
    assert main(["diff", "-f", path]) == 0
    assert capsys.readouterr() == ("", "")
    # Whether it could be done is not asked, so that servers that are not there yet do no harm.
    assert not any(isinstance(one, ChangeRequest) for one in leader.server.requests)


def test_diff_prints_the_difference_and_exits_with_1(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(
        tmp_path / "wish.yaml",
        leader,
        "n2: {address: 127.0.0.1:7202, role: learner}",
        "n10: {address: 127.0.0.1:7110}",
        "n4: {address: 127.0.0.1:7104, role: learner}",
    )
    assert main(["diff", "-f", path]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "+ n4 127.0.0.1:7104 learner",
        "+ n10 127.0.0.1:7110 voter",
        "- n3",
        "~ n2 voter -> learner",
        "~ n2 address 127.0.0.1:7102 -> 127.0.0.1:7202",
    ]


def test_diff_as_json_has_both_sides(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *REPLACED)
    assert main(["diff", "-f", path, "-o", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["same"] is False
    assert document["differences"] == [
        {
            "change": "add",
            "id": "n4",
            "before": None,
            "after": {"role": "learner", "address": "127.0.0.1:7104"},
        },
        {
            "change": "remove",
            "id": "n3",
            "before": {"role": "voter", "address": "127.0.0.1:7103"},
            "after": None,
        },
    ]
    assert document["configuration"]["voters"] == ["n1", "n2", "n3"]


def test_a_diff_that_fails_never_says_that_there_are_differences(tmp_path: Path) -> None:
    (tmp_path / "wish.yaml").write_text("cluster: orders\nservers:\n  n1: {address: 127.0.0.1:1}\n")
    assert main(["diff", "-f", "wish.yaml", "--timeout", "100ms"]) == 3
    assert main(["diff", "-f", "missing.yaml"]) == 2


def test_two_spellings_of_one_address_are_no_difference() -> None:
    before = {"n1": Member(name="n1", role="voter", address="localhost:7101")}
    after = {"n1": Member(name="n1", role="voter", address="127.0.0.1:7101")}
    assert differences(before, after) == []


def test_a_new_incarnation_of_a_name_is_one_that_goes_and_one_that_comes() -> None:
    before = {"n2/a": Member(name="n2", role="voter", address="127.0.0.1:7102")}
    after = {"n2/b": Member(name="n2", role="voter", address="127.0.0.1:7102")}
    assert [one.text() for one in differences(before, after)] == [
        "+ n2 127.0.0.1:7102 voter (new incarnation)",
        "- n2",
    ]


# --- what a plan looks like -------------------------------------------------------------------


def quorum(*names: str, dead: str = "") -> Quorum:
    voters = tuple(f"{name}/{name}" for name in names)
    alive = tuple(server for server in voters if server != f"{dead}/{dead}")
    return Quorum(voters=voters, needed=len(names) // 2 + 1, alive=alive)


def view(*names: str, learners: tuple[str, ...] = (), index: int = 0) -> configuration:
    servers = [(f"{name}/{name}", f"10.0.0.{name[1:]}:7100") for name in (*names, *learners)]
    return configuration(
        *servers, index=index, learners=tuple(f"{name}/{name}" for name in learners)
    )


def full_plan() -> PlanView:
    """A plan with everything in it: three servers replaced, one of them down."""
    old = quorum("n1", "n2", "n3", dead="n3")
    new = quorum("n4", "n5", "n6")
    phases = (
        ("settled", "n1, n2, n3 decide, as now", (old,), 0, None),
        ("joining", "n4, n5, n6 learn which cluster it is, and listen", (old,), 0, 50),
        ("catching-up", "n4, n5, n6 receive about 410 MiB", (old,), 0, 12_800),
        (
            "joint",
            "C_old,new: a majority of n1, n2, n3 and one of n4, n5, n6 decide",
            (old, new),
            0,
            50,
        ),
        ("final", "C_new: n4, n5, n6 decide", (new,), 1, 50),
    )
    return PlanView(
        changes=(),
        joint=True,
        before=view("n1", "n2", "n3", index=4182),
        after=view("n4", "n5", "n6"),
        tolerance_before=0,
        tolerance_during=0,
        tolerance_after=1,
        warnings=(
            "zone east has 2 of 3 voters (n4, n5): without it there is no majority",
            "n3 cannot be told now; started again with its old data it is told that it was "
            "removed, and stops",
        ),
        phases=tuple(
            PlanPhase(name=name, words=words, quorums=quorums, tolerance=left, expected_ms=takes)
            for name, words, quorums, left, takes in phases
        ),
        bytes_to_copy=430_000_000,
        expected_ms=12_950,
    )


def learners_plan() -> PlanView:
    """A plan without a joint phase: a learner comes and a server moves."""
    before = view("n1", "n2", "n3", index=12)
    after = view("n1", "n2", "n3", learners=("n4",))
    moved = attrs.evolve(after, addresses={**after.addresses, "n2/n2": "10.0.1.2:7100"})
    decide = quorum("n1", "n2", "n3")
    words = ("n1, n2, n3 decide, as now", "one entry says who listens and who is where")
    return PlanView(
        changes=(),
        joint=False,
        before=before,
        after=moved,
        tolerance_before=1,
        tolerance_during=1,
        tolerance_after=1,
        phases=(
            PlanPhase(name="settled", words=words[0], quorums=(decide,), tolerance=1),
            PlanPhase(name="final", words=words[1], quorums=(decide,), tolerance=1, expected_ms=50),
        ),
        expected_ms=50,
    )


def large_plan() -> PlanView:
    """A plan whose quorums fit no line."""
    names = tuple(f"n{number}" for number in range(1, 22))
    before, after = quorum(*names[:9]), quorum(*names)
    return PlanView(
        changes=(),
        joint=True,
        before=view(*names[:9], index=7),
        after=view(*names),
        tolerance_before=4,
        tolerance_during=4,
        tolerance_after=10,
        phases=(
            PlanPhase(name="settled", words="as now", quorums=(before,), tolerance=4),
            PlanPhase(name="joint", words="both", quorums=(before, after), tolerance=4),
            PlanPhase(name="final", words="all of them", quorums=(after,), tolerance=10),
        ),
    )


@pytest.mark.parametrize(
    ("name", "plan"),
    [("full", full_plan()), ("learners", learners_plan()), ("large", large_plan())],
)
def test_a_plan_looks_as_approved(name: str, plan: PlanView, columns: int, golden: Golden) -> None:
    shown = plan_text(plan, Style(False), width=columns)
    assert all(len(line) <= columns for line in shown.splitlines())
    golden(f"plan_{name}_{columns}", shown)


def test_the_whole_output_of_plan_looks_as_approved(
    leader: Leader,
    tmp_path: Path,
    columns: int,
    golden: Golden,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *WITH_N4)
    leader.plan = full_plan()
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert main(["plan", "-f", path]) == 0
    golden(f"plan_command_{columns}", terminal.getvalue().replace(str(tmp_path), "FOLDER"))


def test_the_plan_as_json_is_the_whole_plan(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *WITH_N4)
    leader.plan = full_plan()

    assert main(["plan", "-f", path, "-o", "json"]) == 0

    document = json.loads(capsys.readouterr().out)
    assert (document["operation"], document["result"]) == (None, "planned")
    plan = document["plan"]
    assert plan["configuration_index"] == 4182
    assert plan["command"] == f"raftctl apply -f {path} --at-index 4182"
    assert [one["change"] for one in plan["differences"]] == ["add"] * 3 + ["remove"] * 3
    assert [phase["phase"] for phase in plan["phases"]] == [
        "settled",
        "joining",
        "catching-up",
        "joint",
        "final",
    ]
    assert plan["phases"][3]["quorums"] == [
        {"voters": ["n1", "n2", "n3"], "needed": 2, "alive": ["n1", "n2"]},
        {"voters": ["n4", "n5", "n6"], "needed": 2, "alive": ["n4", "n5", "n6"]},
    ]
    assert (plan["bytes_to_copy"], plan["expected_ms"]) == (430_000_000, 12_950)
    assert len(plan["warnings"]) == 2
    assert plan["after"]["voters"] == ["n4", "n5", "n6"]


def test_a_leader_of_the_release_before_has_no_phases_and_is_shown_all_the_same(
    leader: Leader,
) -> None:
    lines = plan_text(leader.plan, Style(False), width=80).splitlines()
    assert [line.split()[0] for line in lines if line[:1].isalpha()][1:5] == [
        "PHASE",
        "now",
        "joint",
        "after",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["add", "n4=127.0.0.1:7104"],
        ["remove", "n3"],
        ["replace", "n3", "n4=127.0.0.1:7104"],
        ["promote", "n3"],
        ["demote", "n3"],
        ["readdress", "n3=127.0.0.1:7104"],
    ],
)
def test_a_dry_run_of_every_change_is_this_plan(
    words: list[str], leader: Leader, capsys: pytest.CaptureFixture[str]
) -> None:
    leader.plan = full_plan()
    leader.nothing_to_do = ""
    assert main([*words, "-e", leader.server.address, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(plan_text(full_plan(), Style(False), width=80))
    last = shown.splitlines()[-1]
    assert last.startswith(f"raftctl {' '.join(words)} -e {leader.server.address}")
    assert last.endswith(" --at-index 4182")


def test_a_dry_run_of_init_is_a_plan_as_well(
    tmp_path: Path, columns: int, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    with speaking_servers("n1/a", "n2/b", "n3/c", "n4/d", cluster_id="") as servers:
        for server in servers:
            server.answer = lambda _, server=server: status_of(server, role="blank")
        lines = ["cluster: orders", "servers:"]
        for server, role in zip(servers, ("voter", "voter", "voter", "learner"), strict=True):
            name = server.server.partition("/")[0]
            lines.append(f"  {name}: {{address: {server.address}, role: {role}}}")
        (tmp_path / "orders.yaml").write_text("\n".join(lines) + "\n")
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        assert main(["init", "-c", "orders.yaml", "--dry-run"]) == 0
        shown = terminal.getvalue()
        for number, server in enumerate(servers, 1):
            shown = shown.replace(server.address, f"10.0.0.{number}:7100")
        golden(f"plan_init_{columns}", shown)
        assert all(type(one) is StatusRequest for server in servers for one in server.requests)


def test_the_reply_of_a_started_apply_without_an_operation_is_no_change(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *WITH_N4)
    leader.change_reply = ChangeReply(operation="", nothing_to_do="another one did it meanwhile")
    assert main(["apply", "-f", path]) == 0
    assert "no changes: another one did it meanwhile" in capsys.readouterr().err


def test_plans_of_servers_that_say_what_they_like_are_printable(
    leader: Leader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster_file(tmp_path / "wish.yaml", leader, *WITH_N4)
    leader.plan = attrs.evolve(leader.plan, warnings=("n4 does not answer: \x1b[2J",))
    assert main(["plan", "-f", path]) == 0
    assert "\x1b" not in capsys.readouterr().out
