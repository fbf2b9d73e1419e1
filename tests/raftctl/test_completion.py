"""`raftctl completion` and what it offers, with real shells where one is there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest
from click.shell_completion import ShellComplete

from raftctl.cli import Context, cli, main
from raftctl.endpoints import playground_file
from raftd.protocol import OperationsReply, OperationView, Request, StatusRequest
from tests.raftctl.speaking_servers import (
    Answer,
    SpeakingServer,
    closed_address,
    configuration,
    operation_record,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")


def offered(*words: str) -> list[str]:
    """Return what a shell would offer for the last of `words`."""
    found = ShellComplete(cli, {"obj": Context()}, "raftctl", "X")
    return [item.value for item in found.get_completions(list(words[:-1]), words[-1])]


def cluster_of(server: SpeakingServer) -> None:
    def answer(request: Request) -> Answer:
        if isinstance(request, StatusRequest):
            view = attrs.evolve(
                configuration(server), voters=("n1/a", "n2/b", "n10/c"), learners=("n4/d",)
            )
            return status_of(server, role="leader", view=view)
        views = (OperationView(record=operation_record("joint")),)
        return OperationsReply(operations=views)

    server.answer = answer


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_it_accepts(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_RAFTCTL_COMPLETE" in script
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_commands_and_options_are_completed() -> None:
    assert offered("pro") == ["promote"]
    assert "--dry-run" in offered("remove", "--d")


def test_servers_are_offered_in_their_order_and_by_their_role() -> None:
    with speaking_servers("n1/a") as (server,):
        cluster_of(server)
        dialled = ("-e", server.address)
        assert offered(*dialled, "remove", "n") == ["n1", "n2", "n4", "n10"]
        assert offered(*dialled, "promote", "") == ["n4"]
        assert offered(*dialled, "demote", "n1") == ["n1", "n10"]
        assert offered(*dialled, "transfer", "") == ["n1", "n2", "n10"]
        assert offered(*dialled, "status", "n4") == ["n4"]
        assert offered(*dialled, "what-if", "--lose", "n1,n1") == ["n1,n10"]


def test_a_server_that_is_named_already_is_not_offered_again() -> None:
    with speaking_servers("n1/a") as (server,):
        cluster_of(server)
        assert offered("-e", server.address, "remove", "n1", "n2", "n1") == ["n10"]


def test_operations_are_offered() -> None:
    with speaking_servers("n1/a") as (server,):
        cluster_of(server)
        assert offered("-e", server.address, "operation", "show", "op") == ["op-1"]


@pytest.mark.parametrize(
    "words",
    [
        *("operation show", "operation watch", "operation abort", "rolling show"),
        *("rolling resume", "rolling pause", "rolling abort"),
    ],
)
def test_whatever_takes_an_operation_offers_them(words: str) -> None:
    with speaking_servers("n1/a") as (server,):
        cluster_of(server)
        assert offered("-e", server.address, *words.split(), "") == ["op-1"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("replace", ["n1", "n2", "n4", "n10"]),
        ("rolling replace", ["n1", "n2", "n4", "n10"]),
        ("rolling restart --servers", ["n1", "n2", "n4", "n10"]),
        ("what-if --remove", ["n1", "n2", "n4", "n10"]),
        ("backup --from", ["n1", "n2", "n4", "n10"]),
    ],
)
def test_whatever_takes_a_member_offers_them(words: str, names: list[str]) -> None:
    with speaking_servers("n1/a") as (server,):
        cluster_of(server)
        assert offered("-e", server.address, *words.split(), "") == names


@pytest.mark.parametrize("command", ["kill", "start"])
def test_servers_of_the_playground_are_offered_whatever_is_dialled(command: str) -> None:
    assert offered("playground", command, "") == []
    playground_file().parent.mkdir(parents=True)
    servers = [{"id": f"n{number}", "address": f"127.0.0.1:750{number}"} for number in (1, 2)]
    found = {"config": "x.yaml", "pid": 1, "dir": "x", "servers": servers}
    playground_file().write_text(json.dumps(found))
    assert offered("-e", closed_address(), "playground", command, "n") == ["n1", "n2"]


def test_without_any_server_nothing_is_offered_and_nothing_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert offered("-e", closed_address(), "remove", "") == []
    assert offered("remove", "") == []
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_where_no_server_answers_the_cluster_file_knows_the_names(
    tmp_path: Path,
) -> None:
    text = f"cluster: orders\nservers:\n  n7: {{address: {closed_address()}}}\n"
    (tmp_path / "cluster.yaml").write_text(text)
    assert offered("remove", "") == ["n7"]
