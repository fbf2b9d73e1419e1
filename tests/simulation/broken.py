"""Bugs that are put into the server while a test runs, to see whether they are found."""

from __future__ import annotations

import pytest

from raftd.core.log import RaftLog
from raftd.storage.wal import Wal


def votes_blindly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers vote without looking at the candidate's log (paper section 5.4.1)."""
    monkeypatch.setattr(RaftLog, "is_up_to_date", lambda log, term, index: True)


def does_not_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the log return from an append before the disk has it."""
    original = Wal._write_batch

    def write_batch(wal: Wal, following: bytes, entry_count: int) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(type(wal._file), "sync", lambda file: None)
            return original(wal, following, entry_count)

    monkeypatch.setattr(Wal, "_write_batch", write_batch)
