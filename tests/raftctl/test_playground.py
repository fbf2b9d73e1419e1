"""The playground: its processes, its files, and who may end what."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raftctl.cli import main
from raftctl.commands.playground import next_commands
from raftctl.errors import CliError, Refused, UsageProblem
from raftctl.playground import (
    Event,
    Playground,
    Server,
    ask,
    cluster_file_text,
    explain_exit,
    is_running,
    last_line,
    read_runtime_file,
    reserve_port,
    with_server,
)
from raftd.config import load

ROOT = Path(__file__).parents[2]
NOBODY = str(2**31 - 1)
"""A process id that is no parent of ours."""
PATIENCE_S = 20.0
"""For processes on a busy machine; nothing here takes a second by itself."""


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not in {PATIENCE_S:.0f}s: {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def server(name: str, port: int) -> Server:
    return Server(id=name, address=f"127.0.0.1:{port}")


# --- files and ports -------------------------------------------------------------------------


def test_the_cluster_file_is_one_that_raftd_accepts(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    text = cluster_file_text([server("n1", 7101), server("n2", 7102)])
    new = Server(id="n3", address="127.0.0.1:7103", http="127.0.0.1:7303", redis="127.0.0.1:7403")
    file.write_text(with_server(text, new))

    config = load(file)
    assert {name: server.address for name, server in config.servers.items()} == {
        "n1": "127.0.0.1:7101",
        "n2": "127.0.0.1:7102",
        "n3": "127.0.0.1:7103",
    }
    assert config.servers["n3"].data_dir == tmp_path / "data" / "n3"
    listeners = [(each.http, each.redis) for each in config.servers.values()]
    assert listeners == [(None, None), (None, None), (new.http, new.redis)]


def test_a_server_is_added_to_a_file_that_was_written_in_another_style(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        with_server(
            "cluster: c\n"
            "servers:  # all of them\n"
            "    n1:\n"
            "        address: 127.0.0.1:7101\n"
            "\n"
            "# the rest\n"
            "defaults:\n"
            "    election_timeout: 500ms\n",
            server("n2", 7102),
        )
    )

    config = load(file)
    assert list(config.servers) == ["n1", "n2"]
    assert config.servers["n1"].election_timeout_ms == 500.0
    assert "# the rest" in file.read_text()


@pytest.mark.parametrize("text", ["cluster: c\nservers: {n1: {address: 127.0.0.1:7101}}\n", ""])
def test_a_file_without_a_block_of_servers_is_left_alone(text: str) -> None:
    with pytest.raises(ValueError, match="no block `servers:`"):
        with_server(text, server("n2", 7102))


def test_a_name_that_stands_in_the_file_is_not_added_twice() -> None:
    with pytest.raises(ValueError, match="n1 stands in it already"):
        with_server(cluster_file_text([server("n1", 7101)]), server("n1", 7102))


def test_ports_in_use_and_ports_that_another_playground_has_chosen_are_passed_over() -> None:
    first, reservation = reserve_port()
    with reservation:
        second, other_reservation = reserve_port()
        other_reservation.close()
    port = int(second.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        third, third_reservation = reserve_port([first])
        third_reservation.close()

    assert len({first, second, third}) == 3


@pytest.mark.parametrize(
    ("code", "killed", "words"),
    [
        (70, False, "n1 was removed from the cluster and has stopped"),
        (0, False, "n1 has stopped"),
        (-9, True, "n1 was killed; `raftctl playground start n1` brings it back"),
        (-11, False, "n1 was ended by SIGSEGV"),
        (74, False, "n1 has stopped because of its storage (exit code 74)"),
        (1, False, "n1 has failed with exit code 1"),
    ],
)
def test_the_end_of_a_server_is_told_in_words(code: int, killed: bool, words: str) -> None:
    assert explain_exit("n1", code, killed=killed) == words


def test_the_last_line_that_says_something_is_found(tmp_path: Path) -> None:
    log = tmp_path / "n1.log"
    log.write_text("first\nthe port is in use\n\n  \n")

    assert last_line(log) == "the port is in use"
    assert last_line(tmp_path / "missing.log") == ""


def test_a_runtime_file_that_is_torn_or_foreign_is_no_playground(tmp_path: Path) -> None:
    file = tmp_path / "playground.json"
    for content in ("", '{"config": "x"', "[1]", '{"pid": 1}'):
        file.write_text(content)
        assert read_runtime_file(file) is None


# --- processes -------------------------------------------------------------------------------


class Sleepers:
    """A playground of processes that only sleep, in a process of its own."""

    def __init__(self, folder: Path, directory: str = "", count: int = 3) -> None:
        folder.mkdir(exist_ok=True)
        directory = directory or tempfile.mkdtemp(dir=folder)
        self.runtime_file = folder / "run" / "playground.json"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.raftctl.playground_of_sleepers"),
                *(str(self.runtime_file), directory, str(count)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", self.process.communicate()

    def event(self) -> dict[str, Any]:
        """Return the next thing that it reports."""
        assert self.process.stdout is not None
        event: dict[str, Any] = ast.literal_eval(self.process.stdout.readline())
        return event

    @property
    def found(self) -> dict[str, Any]:
        found = read_runtime_file(self.runtime_file)
        assert found is not None
        return found

    def pid(self, server_id: str) -> Any:
        return next(each["pid"] for each in self.found["servers"] if each["id"] == server_id)

    def pids(self) -> list[int]:
        return [each["pid"] for each in self.found["servers"] if each["pid"]]

    def wait_until_they_sleep(self) -> None:
        """Return when every server has become what it is to be and handles its signals."""
        for each in self.found["servers"]:
            log = Path(self.found["dir"]) / "logs" / f"{each['id']}.log"
            eventually(lambda log=log: "sleeping" in log.read_text(), f"{each['id']} sleeps")


@contextlib.contextmanager
def sleepers(folder: Path, **options: Any) -> Iterator[Sleepers]:
    """Yield a playground of sleepers that is ready; it is gone afterwards."""
    running = Sleepers(folder, **options)
    try:
        running.wait_until_ready()
        running.wait_until_they_sleep()
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def test_no_server_outlives_a_playground_that_is_killed(tmp_path: Path) -> None:
    with sleepers(tmp_path) as running:
        pids = running.pids()
        assert [is_alive(pid) for pid in pids] == [True] * 3
        running.process.kill()
        running.process.wait()

        eventually(lambda: not any(map(is_alive, pids)), "the servers have ended")
        assert running.found["pid"] == running.process.pid
        assert not is_running(running.runtime_file)


def test_a_server_that_was_started_later_does_not_outlive_it_either(tmp_path: Path) -> None:
    with sleepers(tmp_path) as running:
        pid = ask(running.runtime_file, "start", "n4")["pid"]
        running.wait_until_they_sleep()
        running.process.kill()

        eventually(lambda: not is_alive(pid), "n4 has ended")


def test_a_server_whose_parent_is_gone_before_it_starts_does_not_start(tmp_path: Path) -> None:
    witness = tmp_path / "started"
    result = subprocess.run(
        [
            *(sys.executable, "-m", "raftctl.playground_child", NOBODY),
            *(sys.executable, "-c", f"open({str(witness)!r}, 'w')"),
        ],
        check=False,
    )

    assert result.returncode == 1
    assert not witness.exists()


def test_a_program_that_is_not_there_is_an_error_of_the_child() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "raftctl.playground_child", str(os.getpid()), "/nowhere/raftd"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert result.returncode == 127
    assert "/nowhere/raftd: No such file" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_servers_and_deletes_their_data(
    tmp_path: Path, number: signal.Signals
) -> None:
    with sleepers(tmp_path) as running:
        pids, directory = running.pids(), Path(running.found["dir"])
        running.process.send_signal(number)
        assert running.process.wait(PATIENCE_S) == 0

        assert not any(map(is_alive, pids))
        assert list(directory.iterdir()) == []
        assert read_runtime_file(running.runtime_file) is None


def test_a_second_signal_does_not_wait_for_a_server_that_will_not_stop(tmp_path: Path) -> None:
    with sleepers(tmp_path) as running:
        pid = ask(running.runtime_file, "start", "n9")["pid"]
        running.wait_until_they_sleep()
        others = [each for each in running.pids() if each != pid]
        started_s = time.monotonic()
        running.process.terminate()
        eventually(lambda: not any(map(is_alive, others)), "the others have stopped")
        assert is_alive(pid)
        running.process.terminate()
        assert running.process.wait(PATIENCE_S) == 0

        assert not is_alive(pid)
        assert time.monotonic() - started_s < 5.0


def test_a_folder_that_the_playground_made_is_gone_with_it(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "folder"
    with sleepers(tmp_path, directory=str(directory)) as running:
        assert (directory / "logs" / "n1.log").exists()
        running.process.terminate()
        assert running.process.wait(PATIENCE_S) == 0

    assert not directory.exists()


def test_a_folder_that_was_there_keeps_what_is_not_the_playgrounds(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    directory.mkdir()
    with sleepers(tmp_path, directory=str(directory)) as running:
        assert Path(running.found["config"]) == directory / "cluster.yaml"
        (directory / "notes.txt").write_text("mine")
        running.process.terminate()
        assert running.process.wait(PATIENCE_S) == 0

    assert [file.name for file in directory.iterdir()] == ["notes.txt"]


def test_a_second_playground_is_refused_and_the_first_one_lives_on(tmp_path: Path) -> None:
    with sleepers(tmp_path) as running:
        second = Sleepers(tmp_path)
        _, errors = second.process.communicate(timeout=PATIENCE_S)

        assert second.process.returncode == 1
        assert f"a playground is already running (pid {running.process.pid}," in errors
        assert all(map(is_alive, running.pids()))
        assert is_running(running.runtime_file)


def test_what_a_killed_playground_left_behind_is_replaced(tmp_path: Path) -> None:
    with sleepers(tmp_path) as first:
        first.process.kill()
        first.process.wait()
        with sleepers(tmp_path) as second:
            assert second.found["pid"] == second.process.pid
            assert ask(second.runtime_file, "kill", "n1")["id"] == "n1"


def test_kill_is_a_real_sigkill_and_start_brings_the_server_back(tmp_path: Path) -> None:
    with sleepers(tmp_path) as running:
        before = running.pid("n2")
        killed = ask(running.runtime_file, "kill", "n2")
        event = running.event()

        assert killed["pid"] == before
        assert not is_alive(before)
        assert (event["type"], event["id"], event["code"]) == ("exited", "n2", -signal.SIGKILL)
        assert running.pid("n2") is None

        started = ask(running.runtime_file, "start", "n2")
        assert started["address"] == killed["address"]
        assert not started["new"]
        assert is_alive(started["pid"])
        assert running.pid("n2") == started["pid"]


def test_an_unknown_name_becomes_a_new_server_in_the_cluster_file(tmp_path: Path) -> None:
    with sleepers(tmp_path) as running:
        started = ask(running.runtime_file, "start", "n4")

        assert started["new"]
        servers = load(Path(running.found["config"])).servers
        assert list(servers) == ["n1", "n2", "n3", "n4"]
        assert servers["n4"].address == started["address"]
        assert len({server.address for server in servers.values()}) == 4


@pytest.mark.parametrize(
    ("command", "server_id", "message"),
    [
        ("kill", "n7", "the playground has no server n7"),
        ("start", "n1", "n1 runs already"),
        ("start", "N 4", "'N 4' is not a name"),
        ("dance", "n1", "a playground cannot dance"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_playground_lives_on(
    tmp_path: Path, command: str, server_id: str, message: str
) -> None:
    with sleepers(tmp_path, count=1) as running:
        before = running.found
        with pytest.raises(CliError, match=message):
            ask(running.runtime_file, command, server_id)

        assert running.found == before
        assert ask(running.runtime_file, "kill", "n1")["id"] == "n1"
        with pytest.raises(Refused, match="n1 does not run"):
            ask(running.runtime_file, "kill", "n1")


def test_garbage_on_the_control_socket_does_no_harm(tmp_path: Path) -> None:
    with sleepers(tmp_path, count=1) as running:
        for garbage in (b"\n", b"\xff" * 5000, b"[]\n", b'{"command": 1}\n'):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(running.found["control"])
                connection.sendall(garbage)
                answer = json.loads(connection.makefile("rb").readline())
            assert answer["error"]["message"] == "not a request to a playground"

        assert ask(running.runtime_file, "kill", "n1")["id"] == "n1"


def test_a_removed_server_is_reported_as_removed_and_not_as_failed(tmp_path: Path) -> None:
    with sleepers(tmp_path) as running:
        os.kill(running.pid("n1"), signal.SIGUSR1)
        event = running.event()

        assert (event["type"], event["code"]) == ("removed", 70)
        assert event["text"] == "n1 was removed from the cluster and has stopped"


def test_a_long_runtime_folder_is_no_obstacle_for_the_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    with sleepers(deep, count=1) as running:
        assert len(running.found["control"]) < 100
        assert ask(running.runtime_file, "kill", "n1")["id"] == "n1"
        control = Path(running.found["control"])
        running.process.terminate()
        running.process.wait(PATIENCE_S)
        assert not control.parent.exists()


def test_without_a_playground_there_is_nobody_to_ask(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="no playground is running") as raised:
        ask(tmp_path / "playground.json", "kill", "n1")
    assert raised.value.exit_code == 3


# --- the folder, in this process -------------------------------------------------------------


def quiet(event: Event) -> None:
    """Report nothing."""


def test_a_folder_with_something_else_in_it_is_refused_untouched(tmp_path: Path) -> None:
    directory = tmp_path / "home"
    directory.mkdir()
    (directory / "thesis.txt").write_text("mine")
    with pytest.raises(UsageProblem, match="is not empty and holds no playground"):
        Playground(
            runtime_file=tmp_path / "playground.json",
            directory=directory,
            servers_count=3,
            keep=False,
            report=quiet,
        )

    assert [file.name for file in directory.iterdir()] == ["thesis.txt"]
    assert not is_running(tmp_path / "playground.json")


def test_a_kept_playground_goes_on_with_its_servers_and_is_kept_again(tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    directory.mkdir()
    one = Server(id="n1", address="127.0.0.1:7801", http="127.0.0.1:7901", redis="127.0.0.1:7902")
    text = cluster_file_text([one, server("n5", 7805)])
    (directory / "cluster.yaml").write_text(text)
    kept = Playground(
        runtime_file=tmp_path / "playground.json",
        directory=directory,
        servers_count=3,
        keep=False,
        report=quiet,
    )
    try:
        assert kept.resumed
        assert list(kept.servers) == ["n1", "n5"]
        assert kept.servers["n1"] == one
        assert kept.servers["n5"].page == ""
        assert next_commands(kept, "n1")[2].endswith('playground start n6)"')
    finally:
        before = {number: signal.getsignal(number) for number in (2, 15, 1)}
        kept.stop()
        for number, handler in before.items():
            signal.signal(number, handler)

    assert (directory / "cluster.yaml").read_text() == text


def test_the_next_commands_name_the_cluster_only_where_another_one_is_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAFTCTL_CONFIG", raising=False)
    monkeypatch.delenv("RAFTCTL_ENDPOINTS", raising=False)
    monkeypatch.setattr(sys, "argv", ["/opt/bin/raftctl", "playground"])
    with sleepers_in_this_process(tmp_path) as running:
        assert next_commands(running, "n2") == [
            "/opt/bin/raftctl playground load",
            "/opt/bin/raftctl status --watch",
            '/opt/bin/raftctl replace n2 "$(/opt/bin/raftctl playground start n4)"',
        ]
        (tmp_path / "cluster.yaml").write_text("another one")
        assert next_commands(running, "n2")[0] == (
            f"/opt/bin/raftctl -c {running.config} playground load"
        )


@contextlib.contextmanager
def sleepers_in_this_process(folder: Path) -> Iterator[Playground]:
    before = {number: signal.getsignal(number) for number in (2, 15, 1)}
    try:
        with Playground(
            runtime_file=folder / "run" / "playground.json",
            directory=folder / "files",
            servers_count=3,
            keep=False,
            report=quiet,
        ) as playground:
            yield playground
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- with raftd ------------------------------------------------------------------------------


class Cluster:
    """A playground of real servers, with a process and a runtime folder of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "run").mkdir(mode=0o700)
        self._folder = folder
        self._environment = os.environ | {
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "PYTHONPATH": str(ROOT),
        }
        for name in ("RAFTCTL_CONFIG", "RAFTCTL_ENDPOINTS", "RAFTCTL_OUTPUT", "RAFTCTL_TIMEOUT"):
            self._environment.pop(name, None)
        arguments = ["playground", "--dir", str(folder / "files"), "-o", "json"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raftctl", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=self._environment,
        )

    def line(self) -> dict[str, Any]:
        """Return the next JSON line of the playground."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        found: dict[str, Any] = json.loads(line)
        return found

    def raftctl(self, *arguments: str, code: int = 0) -> str:
        """Run raftctl as in another terminal and return its stdout."""
        result = subprocess.run(
            [sys.executable, "-m", "raftctl", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self._folder,
            env=self._environment,
        )
        assert result.returncode == code, result
        return result.stdout


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A playground of three servers that was started this moment."""
    running = Cluster(tmp_path)
    yield running
    running.process.kill()
    running.process.communicate()


def test_the_playground_is_a_healthy_cluster_within_five_seconds(cluster: Cluster) -> None:
    started_s = time.monotonic()
    ready = cluster.line()

    assert time.monotonic() - started_s < 5.0
    assert ready["type"] == "ready"
    assert [server["id"] for server in ready["servers"]] == ["n1", "n2", "n3"]
    for each in ready["servers"]:
        for listener in ("http", "redis"):
            host, _, port = each[listener].rpartition(":")
            socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()
    status = json.loads(cluster.raftctl("status", "--check", "-o", "json"))
    assert (status["health"], status["failure_tolerance"]) == ("healthy", 1)
    assert {row["id"]: row["address"] for row in status["servers"]} == {
        server["id"]: server["address"] for server in ready["servers"]
    }
    assert status["cluster"]["name"] == "playground"

    cluster.process.send_signal(signal.SIGINT)
    assert cluster.process.wait(PATIENCE_S) == 0
    assert not any(is_alive(server["pid"]) for server in ready["servers"])
    assert not Path(ready["config"]).exists()


def test_kill_start_and_replace_on_a_live_cluster(cluster: Cluster) -> None:
    pids = {server["id"]: server["pid"] for server in cluster.line()["servers"]}

    cluster.raftctl("playground", "kill", "n2")
    assert cluster.line()["code"] == -signal.SIGKILL
    assert not is_alive(pids["n2"])
    dead = json.loads(cluster.raftctl("status", "--check", "-o", "json", code=1))
    assert (dead["health"], dead["failure_tolerance"]) == ("degraded", 0)
    assert dead["servers"][1]["issues"][0] == "unreachable: connection refused"

    again = cluster.raftctl("playground", "start", "n2").strip()
    assert again == f"n2={dead['servers'][1]['address']}"
    assert cluster.line()["type"] == "started"
    cluster.raftctl("wait", "--for", "healthy", "--timeout", "20s")

    added = cluster.raftctl("playground", "start", "n4").strip()
    assert added.startswith("n4=127.0.0.1:")
    assert cluster.line()["type"] == "started"
    blank = json.loads(cluster.raftctl("status", "-o", "json"))
    assert [row["role"] for row in blank["servers"] if row["id"] == "n4"] == ["blank"]

    cluster.raftctl("replace", "n1", added, "--yes")
    removed = cluster.line()
    assert (removed["type"], removed["id"], removed["code"]) == ("removed", "n1", 70)
    cluster.raftctl("wait", "--for", "healthy", "--timeout", "20s")
    after = json.loads(cluster.raftctl("status", "-o", "json"))
    assert after["configuration"]["voters"] == ["n2", "n3", "n4"]
    assert [row["id"] for row in after["servers"]] == ["n2", "n3", "n4"]


def test_no_raftd_outlives_a_playground_that_is_killed(cluster: Cluster) -> None:
    pids = [server["pid"] for server in cluster.line()["servers"]]
    assert all(map(is_alive, pids))
    cluster.process.kill()
    cluster.process.wait()

    eventually(lambda: not any(map(is_alive, pids)), "the servers have ended")
    cluster.raftctl("status", code=2)


def test_the_load_never_writes_to_a_cluster_file_that_happens_to_be_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "cluster.yaml").write_text(
        "cluster: production\nservers:\n  n1: {address: 127.0.0.1:1}\n"
    )
    assert main(["playground", "load", "--seconds", "1"]) == 3
    assert "no playground is running" in capsys.readouterr().err
