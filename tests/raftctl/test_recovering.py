"""What `raftctl recover` decides: which log goes on, what stands in the way, what is left alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from raftctl import recovering
from raftctl.recovering import assess, obstacle
from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationEntry,
    ConfigurationKind,
)
from raftd.core.types import Entry, EntryKind, HardState, Term
from raftd.offline import FoundState, Inspection
from raftd.salvage import discard, set_aside
from raftd.storage.files import OsFileSystem
from raftd.storage.identity import DataDirectory, Identity, decode_identity

NAMES = ("n1", "n2", "n3", "n4", "n5")
VOTERS = {name: f"{name}/{number:016x}" for number, name in enumerate(NAMES, start=1)}


def inspection(
    name: str,
    terms: Sequence[Term],
    *,
    current_term: Term,
    applied_index: int,
    voters: Sequence[str] = NAMES,
    running: str = "",
) -> Inspection:
    """Return what is found in the directory of `name`, whose entries have these terms."""
    entries = tuple(
        Entry(term=term, index=index, kind=EntryKind.NOOP, data=b"")
        for index, term in enumerate(terms, start=1)
    )
    founding = ConfigurationEntry(
        configuration=Configuration(voters=[VOTERS[voter] for voter in voters]),
        addresses={VOTERS[voter]: "" for voter in voters},
        kind=ConfigurationKind.FINAL,
    )
    return Inspection(
        path=Path(name),
        running=running,
        identity=Identity(
            name=name,
            incarnation=VOTERS[name].partition("/")[2],
            cluster_id="c",
            cluster_name="orders",
            log_begun=True,
        ),
        server=VOTERS[name],
        address="",
        hard_state=HardState(current_term),
        log_state="whole",
        base_index=0,
        base_term=0,
        last_index=len(terms),
        torn_bytes=0,
        segments=(),
        snapshots=(),
        parts=(),
        temporaries=(),
        state=FoundState(
            proof="this boot",
            size_bytes=1,
            applied_index=None if running else applied_index,
            applied_term=None if running else terms[applied_index - 1],
        ),
        configurations=(ConfigurationAt(1, founding),),
        entries=entries,
        problems=(),
        needs_replacement=False,
    )


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Inspection]:
    """What is in each directory, by its path."""
    directories: dict[str, Inspection] = {}
    monkeypatch.setattr(recovering, "inspect_directory", lambda path: directories[str(path)])
    return directories


def paths(directories: Mapping[str, Inspection]) -> list[Path]:
    return [Path(name) for name in directories]


def test_what_a_killed_salvage_left_is_removed_and_no_data_directory_beside_it(
    tmp_path: Path,
) -> None:
    segment = tmp_path / "orders.n1" / "wal" / "00000001.wal"
    segment.parent.mkdir(parents=True)
    segment.write_bytes(b"all that is left")

    # As `raftctl recover apply orders.n1 --backup orders` does before anything else.
    discard(tmp_path / "orders")

    assert segment.exists()


def test_a_directory_that_is_in_use_is_not_taken_for_lost(found: dict[str, Inspection]) -> None:
    three = ("n1", "n2", "n3")
    # n1 builds its state and does not answer yet; with it two of three are there, and it has more.
    found["n1"] = inspection(
        "n1", [1, 1, 1, 1], current_term=1, applied_index=4, voters=three, running="process 7"
    )
    found["n2"] = inspection("n2", [1, 1], current_term=1, applied_index=2, voters=three)

    assert obstacle(assess(paths(found), None))


def test_the_chosen_log_has_every_entry_that_any_of_them_has_applied(
    found: dict[str, Inspection],
) -> None:
    # Term 1: n1 appends entry 3, only n2 gets it. Term 2: n3 is elected without it and appends its
    # own entry 3, nobody gets that. Term 3: n1 is elected, and commits entry 3 of term 1 with its
    # no-op 4 on n4 and n5; n2 hears of the commit with an empty AppendEntries behind entry 3, and
    # applies that. Then n1, n4 and n5 are lost.
    found["n2"] = inspection("n2", [1, 1, 1], current_term=3, applied_index=3)
    found["n3"] = inspection("n3", [1, 1, 2], current_term=2, applied_index=2)

    assessment = assess(paths(found), None)

    assert assessment.committed_index == 3
    assert assessment.chosen is not None
    assert assessment.chosen.server == VOTERS["n2"]


def test_a_server_whose_directory_is_a_link_starts_blank_after_it_was_set_aside(
    tmp_path: Path,
) -> None:
    files = OsFileSystem()
    disk = tmp_path / "disk" / "n1"
    disk.mkdir(parents=True)
    link = tmp_path / "n1"
    link.symlink_to(disk)
    DataDirectory.open(link, "n1", files).close()

    set_aside(link)

    directory = DataDirectory.open(link, "n1", files)
    assert directory.identity.is_blank
    directory.close()


def test_what_is_mounted_keeps_its_contents_in_a_directory_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = OsFileSystem()
    path = tmp_path / "n1"
    DataDirectory.open(path, "n1", files).close()
    before = decode_identity(path / "identity.json", (path / "identity.json").read_bytes())
    rename = os.rename

    def busy(source: Path, dest: Path) -> None:
        if Path(source) == path:
            raise OSError(errno.EBUSY, "Device or resource busy")
        rename(source, dest)

    monkeypatch.setattr("raftd.salvage.os.rename", busy)
    aside = set_aside(path)

    assert aside == path / "before-recovery-1"
    assert decode_identity(aside, (aside / "identity.json").read_bytes()) == before
    directory = DataDirectory.open(path, "n1", files)
    assert directory.identity.incarnation != before.incarnation
    directory.close()
