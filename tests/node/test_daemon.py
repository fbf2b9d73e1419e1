"""The command line of the daemon, as an operator meets it: exit codes and what it says."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from raftd import __version__
from raftd.codec import (
    FrameDecoder,
    decode_opening,
    decode_reply,
    encode_frame,
    encode_opening,
    encode_request,
)
from raftd.core.types import Entry, EntryKind, HardState
from raftd.node import founding_entry
from raftd.protocol import (
    BootstrapReply,
    BootstrapRequest,
    DoneReply,
    ErrorReply,
    GetReply,
    GetRequest,
    Hello,
    OpenSessionRequest,
    PutRequest,
    Reply,
    Request,
    Welcome,
    WriteReply,
)
from raftd.storage.files import OsFileSystem
from raftd.storage.identity import DataDirectory
from raftd.storage.wal import Wal

DEADLINE_SECONDS = 20.0


class Speaker:
    """A client of the one server in the file, which asks one thing after the other."""

    def __init__(self, config: Path) -> None:
        port = int(config.read_text().rpartition(":")[2].strip(" }\n"))
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS)
        self._decoder = FrameDecoder()
        hello = Hello(role="client", cluster_id="", source="", dest="")
        self._socket.sendall(encode_frame(encode_opening(hello)))
        assert isinstance(decode_opening(self._receive()), Welcome)
        self._number = 0

    def __enter__(self) -> Speaker:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: Request) -> Reply:
        """Return the answer.

        Raises:
            ConnectionError: the server has closed the connection instead.
        """
        while True:
            self._number += 1
            self._socket.sendall(encode_frame(encode_request(self._number, request)))
            number, reply = decode_reply(self._receive())
            assert number == self._number
            # It has just started, and leads in a moment.
            if not (isinstance(reply, ErrorReply) and reply.code == "unavailable"):
                return reply
            time.sleep(0.02)

    def _receive(self) -> bytes:
        payloads: list[bytes] = []
        while not payloads:
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionError("closed by the server")
            payloads = self._decoder.feed(received)
        (payload,) = payloads
        return payload


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "cluster: orders\n"
        "defaults:\n"
        "  data_dir: data/{id}\n"
        "servers:\n"
        f"  n1: {{address: 127.0.0.1:{free_port()}}}\n"
    )
    return path


def raftd(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raftd", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


@contextmanager
def running(config: Path) -> Iterator[tuple[subprocess.Popen[str], list[dict[str, str]]]]:
    """Start a daemon; give its process and the lines of its log once it listens."""
    with subprocess.Popen(
        [sys.executable, "-m", "raftd", "--config", str(config), "--id", "n1"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            lines: list[dict[str, str]] = []
            for text in process.stderr:
                lines.append(json.loads(text))
                if "listening" in lines[-1]["message"]:
                    break
            yield process, lines
        finally:
            process.kill()


def messages(stderr: str) -> str:
    return "\n".join(json.loads(line)["message"] for line in stderr.splitlines())


def test_version_is_printed_on_stdout() -> None:
    result = raftd("--version")
    assert (result.returncode, result.stdout) == (0, f"raftd {__version__}\n")


def test_a_missing_flag_is_a_usage_error() -> None:
    result = raftd("--id", "n1")
    assert result.returncode == 2
    assert "--config" in result.stderr


def test_an_empty_data_dir_is_a_usage_error(config: Path) -> None:
    """An unset variable of a script must not make the current folder a data directory."""
    result = raftd("--config", config, "--id", "n1", "--data-dir", "")
    assert result.returncode == 2
    assert "--data-dir is empty" in result.stderr


def test_a_missing_file_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    result = raftd("--config", tmp_path / "none.yaml", "--id", "n1")
    assert result.returncode == 2
    assert "none.yaml" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_id_that_the_file_does_not_have_is_a_usage_error_with_those_it_has(
    config: Path,
) -> None:
    result = raftd("--config", config, "--id", "n9")
    assert result.returncode == 2
    assert "has no server 'n9'" in result.stderr
    assert f"try: raftd --config {config} --id n1" in result.stderr


def test_every_problem_of_the_file_is_shown_with_its_position(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("cluster: 12\nservers:\n  n1: {adress: 127.0.0.1:1}\n")
    result = raftd("--config", path, "--id", "n1")
    assert result.returncode == 2
    assert f"{path}:1:10:" in result.stderr
    assert f"{path}:3:8:" in result.stderr


def test_a_data_dir_that_is_in_use_is_an_error_that_names_it(config: Path) -> None:
    data_dir = config.parent / "data" / "n1"
    directory = DataDirectory.open(data_dir, "n1", OsFileSystem())
    try:
        result = raftd("--config", config, "--id", "n1")
    finally:
        directory.close()
    assert result.returncode == 1
    assert f"{data_dir} is in use" in messages(result.stderr)


def test_a_data_dir_of_another_server_is_a_usage_error(config: Path, tmp_path: Path) -> None:
    DataDirectory.open(tmp_path / "d", "n2", OsFileSystem()).close()
    result = raftd("--config", config, "--id", "n1", "--data-dir", tmp_path / "d")
    assert result.returncode == 2
    assert "belongs to server n2, not to n1" in messages(result.stderr)


def test_a_damaged_identity_is_a_storage_error(config: Path, tmp_path: Path) -> None:
    DataDirectory.open(tmp_path / "d", "n1", OsFileSystem()).close()
    identity = tmp_path / "d" / "identity.json"
    identity.write_bytes(identity.read_bytes().replace(b"n1", b"n2"))
    result = raftd("--config", config, "--id", "n1", "--data-dir", tmp_path / "d")
    assert result.returncode == 74
    assert "identity.json" in messages(result.stderr)


def test_a_removed_server_does_not_start_again(config: Path, tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path / "d", "n1", OsFileSystem())
    directory.publish(
        attrs.evolve(directory.identity, cluster_id="c", cluster_name="orders", removed_index=17)
    )
    directory.close()
    result = raftd("--config", config, "--id", "n1", "--data-dir", tmp_path / "d")
    assert result.returncode == 70
    assert "configuration 17" in messages(result.stderr)


def test_a_port_that_is_in_use_is_an_error_that_names_it(config: Path) -> None:
    port = int(config.read_text().rpartition(":")[2].strip(" }\n"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        result = raftd("--config", config, "--id", "n1")
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in messages(result.stderr)


def founded(path: Path, *entries: Entry) -> None:
    """Make the data directory of a server that has founded a cluster and has these entries."""
    directory = DataDirectory.open(path, "n1", OsFileSystem())
    directory.publish(
        attrs.evolve(
            directory.identity,
            cluster_id="c",
            cluster_name="orders",
            bootstrap_address="127.0.0.1:7101",
            log_begun=True,
        )
    )
    wal, _ = Wal.open(directory.wal_path, OsFileSystem())
    if entries:
        wal.append(HardState(1), (founding_entry(directory.identity), *entries))
    wal.close()
    directory.close()


def test_a_log_that_came_back_empty_is_a_storage_error(config: Path, tmp_path: Path) -> None:
    founded(tmp_path / "d")
    result = raftd("--config", config, "--id", "n1", "--data-dir", tmp_path / "d")
    assert result.returncode == 74
    assert "is empty, although it has had entries" in messages(result.stderr)
    assert "raftctl replace" in messages(result.stderr)


def test_an_entry_that_cannot_be_applied_stops_the_process(config: Path, tmp_path: Path) -> None:
    founded(tmp_path / "d", Entry(2, 1, EntryKind.COMMAND, b"of a later release"))
    for _ in range(2):
        result = raftd("--config", config, "--id", "n1", "--data-dir", tmp_path / "d")
        assert result.returncode == 74
        assert "entry 2 was appended by a newer release" in messages(result.stderr)


def test_a_write_that_the_disk_does_not_take_ends_a_running_process_with_74(config: Path) -> None:
    with running(config) as (process, lines), Speaker(config) as speaker:
        incarnation = lines[0]["message"].partition(",")[0].partition("/")[2]
        bootstrap = BootstrapRequest(
            cluster_name="orders", incarnation=incarnation, address="127.0.0.1:7101"
        )
        assert isinstance(speaker.ask(bootstrap), BootstrapReply)
        assert speaker.ask(OpenSessionRequest(session="s")) == DoneReply()
        put = PutRequest(session="s", serial=1, lowest_unacknowledged=1, key="k", value=b"v")
        assert speaker.ask(put) == WriteReply(applied=True, revision=1)
        # From here on no file of the process may grow.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
        with pytest.raises(ConnectionError):
            speaker.ask(attrs.evolve(put, serial=2, value=b"w"))
        _, rest = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 74
        assert "wal" in messages(rest)
        assert "File too large" in messages(rest)
    # What was acknowledged is there when the disk is better; the other write may be, or not.
    with running(config), Speaker(config) as speaker:
        read = speaker.ask(GetRequest(key="k"))
        assert isinstance(read, GetReply)
        assert read.value == b"v"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_blank_server_says_so_and_ends_with_0_on_a_signal(
    config: Path, number: signal.Signals
) -> None:
    with running(config) as (process, lines):
        assert any(line["message"].startswith("blank: belongs to no cluster") for line in lines)
        started = time.monotonic()
        process.send_signal(number)
        _, rest = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 0
        assert time.monotonic() - started < 5
        assert "stopped" in messages(rest)


def test_each_data_dir_has_its_own_incarnation_and_keeps_it(config: Path) -> None:
    found = []
    for _ in range(2):
        with running(config) as (_, lines):
            found.append(lines[0]["message"].partition(",")[0])
    assert found[0] == found[1]
    assert found[0].startswith("n1/")
