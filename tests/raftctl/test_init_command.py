"""`raftctl init`: what it asks, refuses, sends and finishes, against scripted servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from raftctl.cli import main
from raftd.protocol import (
    BootstrapReply,
    BootstrapRequest,
    ChangeReply,
    ChangeRequest,
    ConfigurationView,
    DoneReply,
    MemberChange,
    OpenSessionRequest,
    OperationsReply,
    OperationsRequest,
    OperationView,
    Request,
    StatusRequest,
)
from tests.raftctl.speaking_servers import (
    SILENCE,
    Answer,
    SpeakingServer,
    closed_address,
    configuration,
    operation_record,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")


class Newcomer:
    """A server that is blank until it is bootstrapped or brought in."""

    def __init__(self, server: SpeakingServer, all_servers: list[SpeakingServer]) -> None:
        self.server = server
        self.all_servers = all_servers
        self.view: ConfigurationView | None = None
        server.answer = self.answer

    def answer(self, request: Request) -> Answer:
        match request:
            case StatusRequest():
                role = "leader" if self.view else "blank"
                return status_of(self.server, role=role, view=self.view)
            case BootstrapRequest():
                self.server.cluster_id = "c1"
                self.view = configuration(self.server, index=1)
                return BootstrapReply(cluster_id="c1")
            case OpenSessionRequest():
                return DoneReply()
            case ChangeRequest():
                self.view = configuration(*self.all_servers, index=9)
                return ChangeReply(operation="op-1")
            case OperationsRequest():
                record = operation_record("joining", "joint", "ended", kind="init", result="done")
                return OperationsReply(operations=(OperationView(record=record),))
        return SILENCE


def _cluster_file(path: Path, *servers: SpeakingServer | tuple[str, str]) -> str:
    lines = ["cluster: orders", "servers:"]
    for server in servers:
        name, address = (
            (server.server.split("/")[0], server.address)
            if isinstance(server, SpeakingServer)
            else server
        )
        lines.append(f"  {name}: {{address: '{address}'}}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def newcomers() -> Iterator[list[Newcomer]]:
    with speaking_servers("n1/a", "n2/b", "n3/c", cluster_id="") as servers:
        yield [Newcomer(server, servers) for server in servers]


def _requests(newcomer: Newcomer, kind: type[Request]) -> list[Request]:
    return [request for request in newcomer.server.requests if isinstance(request, kind)]


def test_init_bootstraps_the_first_voter_and_brings_in_the_others(
    newcomers: list[Newcomer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = newcomers
    path = _cluster_file(tmp_path / "c.yaml", *(newcomer.server for newcomer in newcomers))

    assert main(["init", "-c", path, "-o", "json"]) == 0

    assert _requests(first, BootstrapRequest) == [
        BootstrapRequest(cluster_name="orders", incarnation="a", address=first.server.address)
    ]
    (change,) = _requests(first, ChangeRequest)
    assert isinstance(change, ChangeRequest)
    assert change.kind == "init"
    assert change.changes == (
        MemberChange(role="voter", name="n2", address=second.server.address),
        MemberChange(role="voter", name="n3", address=third.server.address),
    )
    assert not _requests(second, BootstrapRequest)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["configuration"]["voters"] == ["n1", "n2", "n3"]


def test_init_names_each_server_that_is_not_ready_and_changes_nothing(
    newcomers: list[Newcomer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("raftctl.forming.PATIENCE_MS", 100.0)
    first, second, _ = newcomers
    path = _cluster_file(
        tmp_path / "c.yaml",
        first.server,
        ("n7", second.server.address),
        ("n8", closed_address()),
    )

    assert main(["init", "-c", path]) == 1

    error = capsys.readouterr().err
    assert "n2 answers there" in error
    assert "n8" in error
    assert "connection refused" in error
    assert not _requests(first, BootstrapRequest)


def test_init_refuses_a_server_of_another_cluster(
    newcomers: list[Newcomer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = newcomers
    third.server.cluster_id = "c9"
    third.server.answer = lambda request: status_of(
        third.server, role="leader", view=configuration(third.server), cluster_name="staging"
    )
    path = _cluster_file(tmp_path / "c.yaml", first.server, second.server, third.server)

    assert main(["init", "-c", path]) == 1

    error = capsys.readouterr().err
    assert "n3 belongs to staging" in error
    assert not _requests(first, BootstrapRequest)


def test_an_interrupted_init_goes_on_from_the_first_server(
    newcomers: list[Newcomer], tmp_path: Path
) -> None:
    first, second, third = newcomers
    first.answer(BootstrapRequest(cluster_name="orders", incarnation="a", address="x:1"))
    # It was told which cluster it belongs to before the operation failed.
    second.server.cluster_id = "c1"
    path = _cluster_file(tmp_path / "c.yaml", *(newcomer.server for newcomer in newcomers))

    assert main(["init", "-c", path]) == 0

    assert not _requests(first, BootstrapRequest)
    (change,) = _requests(first, ChangeRequest)
    assert isinstance(change, ChangeRequest)
    assert [member.name for member in change.changes] == ["n2", "n3"]
    assert third.server.cluster_id == ""


def test_an_init_that_is_running_is_watched(newcomers: list[Newcomer], tmp_path: Path) -> None:
    first = newcomers[0]
    first.answer(BootstrapRequest(cluster_name="orders", incarnation="a", address="x:1"))
    running = OperationView(record=operation_record("catching-up", kind="init"))
    answer = first.answer
    first.server.answer = lambda request: (
        attrs.evolve(status_of(first.server, role="leader", view=first.view), operation=running)
        if isinstance(request, StatusRequest)
        else answer(request)
    )
    path = _cluster_file(tmp_path / "c.yaml", *(newcomer.server for newcomer in newcomers))

    assert main(["init", "-c", path]) == 0

    assert not _requests(first, ChangeRequest)
    assert _requests(first, OperationsRequest)


def test_init_of_a_cluster_that_is_formed_already_says_so_and_exits_with_0(
    newcomers: list[Newcomer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = [newcomer.server for newcomer in newcomers]
    for newcomer in newcomers:
        newcomer.server.cluster_id = "c1"
        newcomer.view = configuration(*servers, index=9)
    path = _cluster_file(tmp_path / "c.yaml", *servers)

    assert main(["init", "-c", path]) == 0

    assert "formed already" in capsys.readouterr().err
    for newcomer in newcomers:
        assert not _requests(newcomer, BootstrapRequest)
        assert not _requests(newcomer, ChangeRequest)


def test_init_does_not_enlarge_a_cluster_that_is_formed(
    newcomers: list[Newcomer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = newcomers
    for newcomer in (first, second):
        newcomer.server.cluster_id = "c1"
        newcomer.view = configuration(first.server, second.server, index=9)
    path = _cluster_file(tmp_path / "c.yaml", first.server, second.server, third.server)

    assert main(["init", "-c", path]) == 1

    assert "other members than in the file" in capsys.readouterr().err
    assert not _requests(first, ChangeRequest)


def test_init_recognises_a_member_that_has_lost_its_data(
    newcomers: list[Newcomer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = newcomers
    view = configuration(first.server, second.server, ("n3/before", third.server.address), index=9)
    for newcomer in (first, second):
        newcomer.server.cluster_id = "c1"
        newcomer.view = view
    path = _cluster_file(tmp_path / "c.yaml", *(newcomer.server for newcomer in newcomers))

    assert main(["init", "-c", path]) == 1

    assert f"replace n3 n3={third.server.address}" in capsys.readouterr().err


def test_init_with_dry_run_changes_nothing(
    newcomers: list[Newcomer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _cluster_file(tmp_path / "c.yaml", *(newcomer.server for newcomer in newcomers))
    assert main(["init", "-c", path, "--dry-run"]) == 0
    assert "bring in n2 n3 by one change" in capsys.readouterr().err
    assert not _requests(newcomers[0], BootstrapRequest)


def test_init_of_a_single_server_needs_no_change(
    newcomers: list[Newcomer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = newcomers[0]
    path = _cluster_file(tmp_path / "c.yaml", first.server)
    assert main(["init", "-c", path]) == 0
    assert not _requests(first, ChangeRequest)
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["n1", "voter"]


def test_init_without_a_cluster_file_exits_with_2() -> None:
    assert main(["init", "-e", closed_address()]) == 2
