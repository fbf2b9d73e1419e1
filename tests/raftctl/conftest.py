"""Fixtures for the tests of the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raftctl import watch as watching
from tests.raftctl.documented import _documented_output
from tests.raftctl.golden_files import columns, golden
from tests.raftctl.leading import leader

__all__ = ["_documented_output", "columns", "golden", "leader"]


@pytest.fixture
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("RAFTCTL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("USER", "alice")
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.chdir(tmp_path)
    # A scripted operation moves at each question; there is nothing to wait for in between.
    monkeypatch.setattr(watching, "POLL_MS_MIN", 1.0)
    monkeypatch.setattr(watching, "POLL_MS_MAX", 5.0)
