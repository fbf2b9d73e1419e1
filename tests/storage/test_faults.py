"""What a fault says by itself, and what a server that knows its name adds."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from raftd.config import ServerConfig, load
from raftd.server import explain
from raftd.storage.files import Remedy, StorageFault

DATA_DIR = Path("/my disk/n2")
WAY_BACK = (
    "stop it, empty '/my disk/n2', start it again (it is blank then), and run: "
    "raftctl replace n2 'n2=[::1]:7102'"
)
"""Can be pasted into a shell as it is."""


@pytest.fixture
def server(tmp_path: Path) -> ServerConfig:
    file = tmp_path / "cluster.yaml"
    file.write_text("cluster: orders\nservers:\n  n2: {address: '[::1]:7102'}\n")
    return load(file).servers["n2"]


def test_a_fault_that_costs_the_server_its_data_says_the_way_back_once(
    server: ServerConfig,
) -> None:
    fault = StorageFault("/d/wal: entries 4 to 9 are lost", Remedy.REPLACE)
    # Whoever does not know the name of the server has it in general terms.
    assert str(fault).startswith("/d/wal: entries 4 to 9 are lost. To get the server back: ")
    assert "raftctl replace ID ID=HOST:PORT" in str(fault)
    explained = explain(fault, server, DATA_DIR)
    assert explained == f"/d/wal: entries 4 to 9 are lost. To get n2 back: {WAY_BACK}"


def test_a_call_that_failed_is_followed_by_what_the_server_does_and_what_to_do(
    server: ServerConfig,
) -> None:
    fault = StorageFault("/d/x: syncing it failed: Input/output error")
    assert str(fault) == "/d/x: syncing it failed: Input/output error"
    explained = explain(fault, server, DATA_DIR)
    assert explained.startswith(f"{fault}. n2 ends and does not try again: ")
    assert "Start it again when the disk works" in explained
    assert explained.endswith(f": {WAY_BACK}")


def test_a_fault_that_names_its_own_remedy_gets_no_other(server: ServerConfig) -> None:
    fault = StorageFault("/d/x: of a later release. Start the release that wrote it", Remedy.NAMED)
    assert explain(fault, server, DATA_DIR) == str(fault) == fault.what


def test_a_directory_of_another_user_is_never_to_be_emptied(server: ServerConfig) -> None:
    fault = StorageFault("/d/identity.json: looking for it failed: Permission denied")
    fault.__cause__ = PermissionError(errno.EACCES, "Permission denied")
    explained = explain(fault, server, DATA_DIR)
    assert explained.startswith(f"{fault}. raftd runs as user {os.geteuid()}")
    assert f"chown -R {os.geteuid()} " in explained
    assert "empty" not in explained
    assert "replace" not in explained
