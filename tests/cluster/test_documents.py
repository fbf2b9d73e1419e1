"""The commands with `-o json` against real servers: every document is what its schema says.

The servers are those of a playground, in processes of their own. The commands run in this one,
which `_documented_output` watches; the playground's own lines are checked here.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftctl.cli import main
from raftctl.documents import commands_of, schema, schema_names
from raftd.commands import FEATURES_MAX
from tests.cluster.processes import WAIT_S, wait_for
from tests.raftctl.documented import _documented_output as _documented_output
from tests.raftctl.documented import problem_of, seen

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    *("recover-assessment", "recover-result", "recover-verification"),  # a majority has to be lost
}
"""Schemas whose documents are printed in other tests with real servers."""


class Play:
    """A playground in a process of its own, and the commands of this one that find it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raftctl", "playground", "-o", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # Whoever runs the tests in the background has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.ready = self.line()
        self.config = Path(self.ready["config"])

    def line(self) -> Any:
        """Return the next line of the playground."""
        assert self.process.stdout is not None
        document = json.loads(self.process.stdout.readline())
        assert problem_of(document, "raftctl playground") == ""
        return document

    def end(self) -> None:
        """Do what Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=WAIT_S)

    def run(self, *words: str, code: int = 0) -> Any:
        """Run a command in this process and return the last document on stdout."""
        self.capsys.readouterr()
        ended = main([*words, "-o", "json"])
        shown = self.capsys.readouterr()
        assert ended == code, f"{shlex.join(words)}: {ended}: {shown.out}{shown.err}"
        return json.loads((shown.out or shown.err).splitlines()[-1])


@pytest.fixture
def play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Play]:
    for name in list(os.environ):
        if name.startswith("RAFTCTL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    seen.clear()
    playground = Play(tmp_path, capsys)
    try:
        yield playground
    finally:
        playground.end()


def test_every_document_is_as_its_schema_says(play: Play) -> None:
    names = [server["id"] for server in play.ready["servers"]]
    assert names == ["n1", "n2", "n3"]
    _data(play)
    _state(play)
    _files(play)
    _membership(play)
    _rolling(play)
    _safety_net(play)
    _playground(play)
    wanted = {name for name in schema_names() if commands_of(schema(name))}
    assert wanted - seen - ELSEWHERE == set()


def _data(play: Play) -> None:
    assert play.run("put", "orders/17", "packed")["applied"]
    assert play.run("cas", "orders/17", "packed", "shipped")["applied"]
    assert play.run("cas", "orders/17", "packed", "lost", code=1)["applied"] is False
    assert play.run("get", "orders/17")["value"] == "shipped"
    assert play.run("get", "nothing", code=1)["error"]["code"] == "not-found"
    assert play.run("put", "bytes", os.fsdecode(b"\xff\x01"))["applied"]
    assert play.run("get", "bytes")["encoding"] == "base64"
    assert [entry["key"] for entry in play.run("list")["entries"]] == ["bytes", "orders/17"]
    assert play.run("delete", "bytes")["applied"]
    assert play.run("watch", "orders/", "--from", "1", "--limit", "2")["value"] == "shipped"


def _state(play: Play) -> None:
    wait_for(
        "all features are switched on", lambda: play.run("history")["features"] == FEATURES_MAX
    )
    assert play.run("put", "lease", "me", "--ttl", "1h")["applied"]
    assert play.run("get", "lease")["ttl_ms"] > 0
    assert play.run("delete", "lease")["applied"]
    assert play.run("wait", "--for", "healthy")["health"] == "healthy"
    assert play.run("wait", "--for", "stable")["operation"] is None
    assert len(play.run("status")["servers"]) == 3
    assert play.run("status", "n2")["servers"][0]["id"] == "n2"
    assert [row["level"] for row in play.run("log-level")["servers"]] == ["info"] * 3
    assert play.run("doctor")["result"] in ("pass", "warn")
    assert {row["level"] for row in play.run("log-level")["servers"]} == {"info"}
    assert play.run("what-if")["goes_on"]
    assert play.run("what-if", "--remove", "n2")["removed"] == ["n2"]
    assert play.run("what-if", "--lose", "n2,n3", code=6)["outcome"] == "stops"
    assert play.run("history")["configurations"][0]["voters"] == ["n1", "n2", "n3"]
    assert len(play.run("operation", "list")["operations"]) == 1
    assert play.run("operation", "show", "op-1")["kind"] == "init"
    assert play.run("operation", "watch", "op-1")["result"] == "done"
    assert play.run("operation", "abort", "op-1", "-y", code=1)["error"]["code"]
    assert len(play.run("schema")["schemas"]) == len(schema_names())


def _files(play: Play) -> None:
    file = str(play.config)
    assert play.run("config", "validate", file)["voters"] == ["n1", "n2", "n3"]
    assert play.run("config", "show", file)["servers"]["n1"]["address"]["origin"] == "file"
    exported = play.run("config", "export")
    assert list(exported["servers"]) == ["n1", "n2", "n3"]
    assert play.run("diff", "-f", file)["same"]
    assert play.run("plan", "-f", file)["result"] == "unchanged"
    assert play.run("apply", "-f", file)["result"] == "done"
    play.run("certs", "init")
    play.run("certs", "issue", "admin")
    assert play.run("certs", "show", "certs/admin.pem")["certificates"][0]["role"] == "admin"


def _membership(play: Play) -> None:
    address = play.run("playground", "start", "n4")["address"]
    assert play.line()["type"] == "started"
    new = f"n4={address}"
    planned = play.run("add", new, "--dry-run")
    assert (planned["result"], planned["plan"]["joint"]) == ("planned", True)
    # The playground writes whom it starts into its cluster file.
    file = str(play.config)
    assert play.run("diff", "-f", file, code=1)["differences"][0]["change"] == "add"
    assert play.run("plan", "-f", file)["plan"]["tolerance_after"] == 1
    assert play.run("add", new, "--learner")["configuration"]["learners"] == ["n4"]
    assert play.run("promote", "n4")["result"] == "done"
    assert play.run("demote", "n4", "-y")["configuration"]["learners"] == ["n4"]
    assert play.run("transfer", "n2")["leader"] == "n2"
    started = play.run("remove", "n4", "-y", "--no-wait")
    assert play.run("operation", "watch", started["operation"])["result"] == "done"
    assert play.line()["type"] == "removed"
    assert len(play.run("history", "--limit", "3")["configurations"]) == 3


def _rolling(play: Play) -> None:
    raftctl = shlex.join([sys.executable, "-m", "raftctl"])
    command = f"{raftctl} playground kill {{id}} && {raftctl} playground start {{id}}"
    restart = ["rolling", "restart", "--servers", "n3", "--command", command]
    assert play.run(*restart, "--dry-run")["steps"][0]["server"] == "n3"
    ended = play.run(*restart, "-y")
    assert (ended["result"], ended["steps"][0]["state"]) == ("done", "done")
    assert [play.line()["type"] for _ in range(2)] == ["exited", "started"]
    operation = ended["operation"]
    assert play.run("rolling", "show", operation)["operation"] == operation
    assert play.run("operation", "show", operation)["rolling"]["version"] > 1
    assert play.run("operation", "watch", operation)["result"] == "done"


def _safety_net(play: Play) -> None:
    file = str(play.folder / "orders.backup")
    assert play.run("backup", file)["keys"] == 1
    assert play.run("inspect", file)["ok"]
    torn = play.folder / "torn.backup"
    torn.write_bytes(Path(file).read_bytes()[:-10])
    assert play.run("inspect", str(torn), code=1)["ok"] is False
    play.run("playground", "kill", "n3")
    assert play.line()["type"] == "exited"
    directory = str(play.config.parent / "data" / "n3")
    assert play.run("inspect", directory)["identity"]["name"] == "n3"
    rows = {row["id"]: row for row in play.run("status")["servers"]}
    assert rows["n3"]["reachable"] is False
    assert play.run("doctor", code=1)["result"] == "fail"
    assert play.run("what-if", "--lose", "n1", code=6)["goes_on"] is False


def _playground(play: Play) -> None:
    assert play.run("playground", "load", "--clients", "2", "--seconds", "1")["lost"] == []
    measured = play.run("bench", "--duration", "1100ms", "--warm-up", "0", "--keys", "50", "--keep")
    assert measured["puts"]["count"] > 0
    assert play.run("bench", "--clean")["keys_removed"] == 50
    endpoints = ",".join(server["address"] for server in play.ready["servers"])
    play.end()
    assert play.run("status", "-e", endpoints, code=3)["health"] == "unavailable"
    assert play.run("status", code=2)["error"]["code"] == "no-endpoints"
