"""Claims that no test elsewhere makes, and that some mutant breaks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from raftd.core.errors import AbortRefused, ChangeInProgress
from raftd.core.membership import Configuration, ConfigurationKind
from raftd.core.messages import (
    AppendEntriesResponse,
    Envelope,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from raftd.core.types import Entry, EntryKind, HardState
from raftd.storage.files import OsFileSystem
from raftd.storage.wal import PREALLOCATION_BYTES, SECTOR_BYTES, Wal
from tests.core.harness import founding_entry
from tests.core.scenario import (
    Solo,
    acknowledge_all,
    change_of,
    configuration_entry,
    joint_leader,
    latest_entry,
    only,
    settled_leader,
)
from tests.node.world import World, new
from tests.storage.memory_files import MemoryFileSystem

JOINT, FINAL = ConfigurationKind.JOINT, ConfigurationKind.FINAL


# --- elections and reads ---


def test_a_vote_in_a_term_that_is_durable_already_is_made_durable_too() -> None:
    """Figure 2, persistent state: the term may have come with another message, long before."""
    solo = Solo(term=3)
    log = solo.raft.log
    request = RequestVote(3, log.last_index, log.last_term)
    assert only(RequestVoteResponse, solo.step("2", request)).vote_granted
    assert solo.readies[-1].hard_state == HardState(3, "2")


def test_pre_votes_of_the_new_half_alone_are_not_enough() -> None:
    """Dissertation 9.6 with 4.3."""
    joint = configuration_entry(2, 1, JOINT, Configuration("145", "123"))
    solo = Solo(entries=[founding_entry("123"), joint])
    solo.time_out()
    for voter in "45":
        solo.step(voter, PreVoteResponse(1, 2, vote_granted=True))
    assert solo.role == "precandidate"


def test_rounds_that_a_server_answered_before_it_was_fenced_confirm_nothing_later() -> None:
    """Dissertation 3.8 with 6.4: that it lost its disk may have been before it answered."""
    solo = settled_leader("12345")
    solo.give(lambda raft: raft.read("r"))
    solo.acknowledge("2")
    round_of_the_read = solo.round
    solo.tick()
    solo.step("2", AppendEntriesResponse(solo.term, False, solo.round, 2, 0, 0, 1, 0))
    assert next(peer for peer in solo.raft.status().peers if peer.server == "2").fenced
    for voter, answered in (("3", 0), ("4", 1)):
        assert len(solo.reads) == 0, voter
        solo.step(
            voter, AppendEntriesResponse(solo.term, True, round_of_the_read, 2, commit_index=2)
        )
        assert len(solo.reads) == answered


# --- membership ---


def test_an_heir_that_knows_every_commit_changes_nothing_before_its_own_no_op() -> None:
    """The 2015 erratum: an earlier leader's configuration may still come into force elsewhere."""
    solo = Solo()
    solo.heartbeat("2", commit=1)
    solo.lead()
    assert solo.commit_index == 1
    with pytest.raises(ChangeInProgress):
        solo.raft.change_membership(change_of(("learner", "4")))
    solo.acknowledge("2")
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"))))


def test_an_entry_before_the_joint_one_does_not_finish_the_change() -> None:
    """Paper section 6: C_new waits until C_old,new itself is committed, under both majorities."""
    solo = settled_leader("123", "456")
    solo.raft.propose(b"x")
    change = change_of(*(("voter", server) for server in "456"))
    solo.give(lambda raft: raft.change_membership(change))
    for server in "23456":
        solo.acknowledge(server, solo.last_index - 1)
    assert solo.commit_index == solo.last_index - 1
    assert latest_entry(solo).kind is JOINT


def test_a_leader_that_has_appended_its_own_removal_stays_in_office_till_it_is_committed() -> None:
    """Dissertation 4.2.2: it takes proposals, and nobody is told to take over."""
    solo = joint_leader("123", "456")
    # The joint entry on all, C_new on none of the new voters.
    acknowledge_all(solo)
    assert latest_entry(solo).kind is FINAL
    assert solo.commit_index < solo.last_index
    solo.give(lambda raft: raft.propose(b"x"))
    assert solo.raft.status().transfer_target is None


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


# --- the log of this server ---


def test_a_torn_batch_leaves_nothing_behind_when_its_segment_is_closed_early() -> None:
    """What follows the last batch of a closed segment counts as damage."""
    segment_bytes = 3 * PREALLOCATION_BYTES
    files = MemoryFileSystem()
    directory = Path("/data/wal")

    def entry(index: int, size_bytes: int) -> Entry:
        return Entry(index, 1, EntryKind.COMMAND, b"x" * size_bytes)

    Wal.create(directory, files)
    wal, _ = Wal.open(directory, files, segment_bytes=segment_bytes)
    wal.append(HardState(1), [entry(1, 10)])
    begin = wal.segments[-1].used_bytes
    wal.append(None, [entry(2, 2 * PREALLOCATION_BYTES)])
    wal.close()
    path = directory / wal.segments[-1].name
    # Of the last batch the sectors with its header have not reached the disk.
    content = bytearray(files.read(path))
    lost_end = (begin // SECTOR_BYTES + 2) * SECTOR_BYTES
    content[begin:lost_end] = bytes(lost_end - begin)
    files.replace(path, bytes(content))
    wal, recovered = Wal.open(directory, files, segment_bytes=segment_bytes)
    assert recovered.cut_bytes > PREALLOCATION_BYTES
    # Too large for what is left of the segment.
    wal.append(None, [entry(2, segment_bytes)])
    assert len(wal.segments) == 2
    wal.close()
    wal, recovered = Wal.open(directory, files, segment_bytes=segment_bytes)
    wal.close()
    assert [found.index for found in recovered.entries] == [1, 2]


# --- operations ---


def test_a_new_leader_does_not_go_on_with_an_operation_that_its_log_has_ended() -> None:
    """What it has applied is older than what its predecessor did."""
    world = World()
    old = world.form(3)
    world.boot("n4")
    # n4 ends when it is told to join, so that the operation fails.
    world["n4"].power.fail_at_next = "publish"
    operation = world.started(world.change("add", new("n4")))
    configuration = old.status.configuration
    last = old.running.raft.log.last_index

    def held_back_beyond(index: int) -> Callable[[Envelope], bool]:
        return lambda envelope: (
            not isinstance(envelope.message, AppendEntriesResponse)
            or not envelope.message.success
            or envelope.message.match_index <= index
        )

    world.passes = held_back_beyond(last)
    world.until(lambda: old.running.raft.log.last_index > last)
    # The end of the operation is in every log, and not known to be committed.
    assert {world[name].running.raft.log.last_index for name in ("n2", "n3")} == {last + 1}
    old.kill()
    world["n4"].start()
    world.passes = held_back_beyond(last + 1)
    heir = world.until(lambda: next((server for server in world.up() if server.leads), None))
    assert heir.state.operation(operation).running
    world.run(2)
    world.passes = lambda envelope: True
    assert world.finish(operation).result == "failed"
    world.run(10)
    assert heir.status.configuration == configuration
    assert world["n4"].running.identity.is_blank
