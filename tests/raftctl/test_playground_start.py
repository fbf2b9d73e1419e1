"""What `raftctl playground start` says about a server that ends at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raftctl.client import playground_file
from raftctl.commands.playground import _wait_for_answer
from raftctl.errors import CliError
from raftctl.playground import reserve_port

REMOVED = "n3/0a was removed from cluster orders for good by configuration 11"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (json.dumps({"level": "error", "server": "n3", "message": REMOVED}), REMOVED),
        ("MemoryError: out of memory", "MemoryError: out of memory"),
        ("[1, 2]", "[1, 2]"),
        ('{"level": "error"}', '{"level": "error"}'),
        ("", "it said nothing"),
    ],
)
def test_the_cause_of_an_early_end_is_the_message_and_not_the_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, cause: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    file = playground_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    # It has ended: the playground has no process of it any more.
    servers = [{"id": "n3", "address": "", "pid": None}]
    found = {"config": "x", "pid": 1, "dir": str(tmp_path), "servers": servers}
    file.write_text(json.dumps(found))
    log = tmp_path / "logs" / "n3.log"
    log.parent.mkdir()
    log.write_text(f"an earlier line\n{line}\n" if line else "")
    address, reservation = reserve_port()
    reservation.close()
    with pytest.raises(CliError, match="n3 has ended right after its start") as raised:
        _wait_for_answer({"id": "n3", "address": address, "pid": 7})
    assert raised.value.cause == cause
    assert raised.value.hint.startswith(f"read {log}, then `raftctl playground start ")
