"""Claims that no test elsewhere makes, and that some mutant breaks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from raftd.core.errors import AbortRefused
from raftd.core.membership import Configuration, ConfigurationKind
from raftd.storage.files import OsFileSystem
from tests.core.harness import founding_entry
from tests.core.scenario import Solo, configuration_entry, latest_entry

JOINT = ConfigurationKind.JOINT


def heir(leader_of_joint: str) -> Solo:
    """Return server 1 as leader of a new term, after the C_old,new of another or its own term."""
    joint = configuration_entry(
        2, 1, JOINT, Configuration("456", "123"), leader=leader_of_joint, operation="op-1"
    )
    solo = Solo(entries=[founding_entry("123"), joint])
    solo.lead()
    assert latest_entry(solo).kind is JOINT
    return solo


def test_a_leader_that_comes_back_may_not_abort_its_joint_entry_of_an_older_term() -> None:
    """Between its two terms another leader may have appended C_new."""
    solo = heir("1")
    with pytest.raises(AbortRefused, match="earlier leader"):
        solo.raft.abort_membership_change("by hand")


def test_an_heir_may_not_abort_when_the_old_half_alone_has_its_no_op() -> None:
    """Somebody of the new half may have C_new, and win with the others of it."""
    solo = heir("2")
    for server in "23":
        solo.acknowledge(server)
    with pytest.raises(AbortRefused, match="earlier leader"):
        solo.raft.abort_membership_change("by hand")


# --- the disk of this machine ---


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls into the kernel that make something durable, as they happen."""
    calls: list[str] = []

    def watched(name: str) -> Callable[[int], None]:
        real = getattr(os, name)

        def call(descriptor: int, *rest: int) -> None:
            calls.append(name)
            real(descriptor, *rest)

        return call

    for name in ("fsync", "fdatasync", "ftruncate"):
        monkeypatch.setattr(os, name, watched(name))
    return calls


def test_a_sync_reaches_the_kernel(tmp_path: Path, kernel: list[str]) -> None:
    file = OsFileSystem().create(tmp_path / "file")
    file.write(b"content", 0)
    file.sync()
    file.close()
    assert kernel == ["fdatasync"]


def test_a_cut_is_synced_before_it_returns(tmp_path: Path, kernel: list[str]) -> None:
    """A smaller size is no data, so that fdatasync need not bring it to the disk."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    file = OsFileSystem().open(path)
    file.truncate(3)
    file.close()
    assert kernel == ["ftruncate", "fsync"]
    assert path.read_bytes() == b"con"


def test_the_sync_of_a_directory_reaches_the_kernel(tmp_path: Path, kernel: list[str]) -> None:
    OsFileSystem().sync_directory(tmp_path)
    assert kernel == ["fsync"]


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take less than it is given, three bytes at a time here."""
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda descriptor, content, at: pwrite(descriptor, content[:3], at)
    )
    path = tmp_path / "file"
    file = OsFileSystem().create(path)
    file.write(b"some bytes", 2)
    file.close()
    assert path.read_bytes() == b"\0\0some bytes"
