"""The bug museum, storage: what a disk did not keep was never promised, what it lost is noticed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import attrs
import pytest

from raftd.core.messages import AppendEntriesResponse, Envelope, RequestVote, RequestVoteResponse
from raftd.core.types import Entry, EntryKind, HardState
from raftd.inputs import Received
from raftd.protocol import GetRequest, WriteReply
from raftd.storage.files import StorageFault, make_directories, publish
from raftd.storage.identity import DataDirectory, Identity
from raftd.storage.wal import PREALLOCATION_BYTES, CorruptLog, Recovered, Wal
from tests.museum.disks import PATH, boot, power_failure
from tests.node.world import Server, World
from tests.storage.memory_files import Crash, MemoryFileSystem

LOG = Path("/wal")
SEEDS = range(8)


def entry(index: int, size_bytes: int = 40, term: int = 1) -> Entry:
    return Entry(index, term, EntryKind.COMMAND, Random(index).randbytes(size_bytes))


def new_log(files: MemoryFileSystem, segment_bytes: int = 4096) -> Wal:
    Wal.create(LOG, files)
    return Wal.open(LOG, files, segment_bytes=segment_bytes)[0]


def recover(files: MemoryFileSystem) -> Recovered:
    wal, recovered = Wal.open(LOG, files, segment_bytes=4096)
    wal.close()
    return recovered


def sent(server: Server, mark: int) -> list[object]:
    """Return the promises that have left the server since `mark`: votes and acknowledgements."""
    return [
        event[1].message
        for event in server.journal[mark:]
        if event[0] == "send"
        and isinstance(event[1].message, RequestVoteResponse | AppendEntriesResponse)
    ]


# --- 75 and 83: a disk that fails, a disk that is full ---


@pytest.mark.parametrize("call", ["write", "sync"])
def test_075_after_one_failure_the_disk_is_not_asked_again_and_nothing_is_answered(
    call: str,
) -> None:
    for seed in SEEDS:
        world = World()
        disk = boot(world, 1)
        leader = world.bootstrap()
        assert isinstance(world.call(leader, world.put("a", "kept")), WriteReply)
        before = world.ask_later(leader, world.put("a", "first"))
        disk.fail_the_next(call)
        with pytest.raises(StorageFault):
            leader.turn(tick=False)
        # The disk would work again now: a second sync would succeed, over a hole.
        calls = len(disk.files.calls)
        with pytest.raises(StorageFault, match="not used any more"):
            disk.wal.append(None, [entry(disk.wal.last_index + 1, term=9)])
        after = world.ask_later(leader, GetRequest(key="a"))
        with pytest.raises(AssertionError):
            leader.turn(tick=True)
        assert len(disk.files.calls) == calls
        assert before.open
        assert after.open
        power_failure(leader, disk, seed)
        leader.start()
        assert world.get("a") == "kept"
        leader.kill()


@pytest.mark.parametrize("call", ["write", "sync"])
def test_075_a_vote_that_the_disk_refused_is_not_given_and_not_remembered(call: str) -> None:
    world = World()
    disks = {number: boot(world, number) for number in (1, 2, 3)}
    world.form_of("n1", "n2", "n3")
    voter = world["n3"]
    voter.restart()
    term, mark = voter.running.raft.current_term, len(voter.journal)
    request = RequestVote(term + 1, 99, term)
    voter.inbox = [Received(Envelope(world["n1"].id, voter.id, request))]
    disks[3].fail_the_next(call)
    with pytest.raises(StorageFault):
        voter.turn(tick=False)
    # The vote is in memory now. It neither leaves nor counts against another candidate.
    voter.inbox = [Received(Envelope(world["n2"].id, voter.id, request))]
    with pytest.raises(AssertionError):
        voter.turn(tick=False)
    assert sent(voter, mark) == []
    power_failure(voter, disks[3])
    voter.start()
    raft = voter.running.raft
    assert (raft.current_term, raft.voted_for) in ((term, None), (term + 1, world["n1"].id))


def test_083_a_full_disk_takes_nothing_back_that_was_promised() -> None:
    for seed in SEEDS:
        world = World()
        disks = {number: boot(world, number) for number in (1, 2, 3)}
        leader, full = world.form_of("n1", "n2", "n3"), world["n3"]
        world.call(leader, world.put("a", "1"))
        world.run(2)
        last_index, mark = full.status.last_index, len(full.journal)
        # Half of the batch still finds room.
        disks[3].fail_the_next("write")
        asked = world.ask_later(leader, world.put("b", "x" * 3000))
        leader.turn(tick=False)
        with pytest.raises(StorageFault):
            full.turn(tick=False)
        assert sent(full, mark) == []
        power_failure(full, disks[3], seed)
        full.start()
        assert full.status.last_index == last_index
        world.until(lambda asked=asked: not asked.open)
        world.until(world.is_settled)
        assert full.state.get("b").value == b"x" * 3000
        # A new term meets the same fate: it is not in force before it is on disk.
        full.restart()
        term, mark = full.running.raft.current_term, len(full.journal)
        request = RequestVote(term + 5, 99, term)
        full.inbox = [Received(Envelope(world["n2"].id, full.id, request))]
        disks[3].fail_the_next("write")
        with pytest.raises(StorageFault):
            full.turn(tick=False)
        assert sent(full, mark) == []
        power_failure(full, disks[3], seed)
        full.start()
        raft = full.running.raft
        assert (raft.current_term, raft.log.last_term) == (term, term)
        for server in world.up():
            server.kill()


# --- 76 and 77: torn tails and damage ---


def test_076_only_what_a_crash_can_have_torn_is_cut_and_the_rest_is_refused() -> None:
    files = MemoryFileSystem()
    wal = new_log(files)
    wal.append(HardState(1, "n1"), [entry(1)])
    wal.append(None, [entry(2)])
    begin = wal.segments[-1].used_bytes
    wal.append(None, [entry(3, 700)])
    end = wal.segments[-1].used_bytes
    wal.close()
    path = LOG / files.names(LOG)[0]
    whole = files.read(path)
    middle = whole.index(entry(2).data)

    def flipped(offset: int) -> bytes:
        return whole[:offset] + bytes((whole[offset] ^ 1,)) + whole[offset + 1 :]

    torn = {
        "a: its length is cut": whole[: begin + 2],
        "b: its body is cut": whole[: end - 300],
        "b: its body is cut and zeros follow": whole[: end - 300] + bytes(4096 - end + 300),
        "b: its last bytes are missing": whole[: end - 3] + bytes(4096 - end + 3),
        "c: a sector was not written": whole[:512] + bytes(512) + whole[1024:],
        "d: zeros where it was to be": whole[:begin] + bytes(4096 - begin),
    }
    damaged = {
        "c: all of it was written, and it is wrong": flipped(end - 100),
        "e: a bad one before good ones": flipped(middle),
        "e: a missing one before good ones": whole[: middle - 60]
        + bytes(100)
        + whole[middle + 40 :],
    }
    assert begin < 512 < 1024 < end
    for case, content in torn.items():
        files.replace(path, content)
        recovered = recover(files)
        assert recovered.entries == (entry(1), entry(2)), case
        assert recovered.hard_state == HardState(1, "n1"), case
    for content in damaged.values():
        files.replace(path, content)
        with pytest.raises(CorruptLog, match="raftctl replace"):
            recover(files)
        # Refused, not repaired: nothing has changed, so the next start refuses too.
        assert files.read(path) == content
    # f: the same cuts in a segment that is closed are damage.
    files.replace(path, whole)
    wal, _ = Wal.open(LOG, files, segment_bytes=1024)
    wal.append(None, [entry(4, 700)])
    wal.close()
    closed, opened = (LOG / name for name in files.names(LOG))
    assert (closed.suffix, opened.suffix) == (".closed", ".open")
    for content in torn.values():
        files.replace(closed, content)
        with pytest.raises(CorruptLog):
            recover(files)


def test_077_what_is_appended_after_a_torn_tail_is_found_by_every_later_start() -> None:
    tails = set()
    for seed in range(40):
        files = MemoryFileSystem()
        wal = new_log(files)
        wal.append(HardState(1), [entry(1)])
        files.crash_at = len(files.calls) + 2
        with pytest.raises(Crash):
            wal.append(None, [entry(2, 1500)])
        files = files.after_crash(Random(seed))
        wal, recovered = Wal.open(LOG, files, segment_bytes=4096)
        tails.add(recovered.cut_bytes)
        following = len(recovered.entries) + 1
        # A crash right after the start finds the cut, and one after the append finds the entry.
        again = recover(files.after_crash(Random(seed)))
        assert (again.entries, again.cut_bytes) == (recovered.entries, 0)
        wal.append(HardState(2), [entry(following, term=2)])
        wal.close()
        for restart in range(2):
            files = files.after_crash(Random(restart))
            found = recover(files)
            assert found.entries == (*recovered.entries, entry(following, term=2))
            assert (found.hard_state, found.cut_bytes) == (HardState(2), 0)
    assert len(tails) > 5, "the crashes have to tear"


def test_077_a_torn_tail_longer_than_what_is_written_ahead_is_cut_as_well() -> None:
    following = entry(2, term=2)
    for seed in range(4):
        files = MemoryFileSystem()
        Wal.create(LOG, files)
        wal, _ = Wal.open(LOG, files)
        wal.append(None, [entry(1)])
        begin = wal.segments[-1].used_bytes
        wal.append(None, [entry(2, 2 * PREALLOCATION_BYTES)])
        end = wal.segments[-1].used_bytes
        wal.close()
        # One sector of the last batch was not written, all the others were.
        hole = Random(seed).randrange(begin // 512 + 1, end // 512) * 512
        path = LOG / files.names(LOG)[0]
        content = files.read(path)
        files.replace(path, content[:hole] + bytes(512) + content[hole + 512 :])
        wal, recovered = Wal.open(LOG, files)
        assert (recovered.entries, recovered.cut_bytes) == ((entry(1),), end - begin)
        wal.append(None, [following])
        wal.close()
        wal, recovered = Wal.open(LOG, files.after_crash(Random(seed)))
        assert (recovered.entries, recovered.cut_bytes) == ((entry(1), following), 0)
        wal.close()


# --- 78: names that were never synced ---


def test_078_a_published_file_and_all_directories_above_it_survive() -> None:
    for seed in SEEDS:
        files = MemoryFileSystem()
        path = Path("/srv/raft/n1/identity")
        make_directories(files, path.parent)
        for content in (b"old", b"new"):
            publish(files, path, content)
            assert files.after_crash(Random(seed)).read(path) == content


def test_078_a_new_data_directory_is_there_as_soon_as_its_server_answers() -> None:
    for seed in SEEDS:
        world = World()
        disk = boot(world, 1)
        leader = world.bootstrap()
        world.call(leader, world.put("a", "1"))
        power_failure(leader, disk, seed)
        assert disk.identity.log_begun
        leader.start()
        assert world.get("a") == "1"
        leader.kill()


def test_078_the_next_segment_is_there_before_anything_is_in_it() -> None:
    for seed in SEEDS:
        files = MemoryFileSystem()
        wal = new_log(files, 1024)
        for index in range(1, 12):
            wal.append(HardState(index), [entry(index, 300)])
            found = recover(files.after_crash(Random(seed)))
            assert found.entries == tuple(entry(i, 300) for i in range(1, index + 1))
            assert found.hard_state == HardState(index)
        assert len(wal.segments) > 3
        wal.close()


def test_078_an_identity_is_the_old_one_or_the_new_one_whenever_the_power_fails() -> None:
    for crash_at in range(1, 6):
        for seed in SEEDS:
            files = MemoryFileSystem()
            directory = DataDirectory.open(
                PATH, "n1", files, mint_incarnation=lambda: "0123456789abcdef"
            )
            old = directory.identity
            new = attrs.evolve(old, cluster_id="c", cluster_name="orders")
            files.crash_at = len(files.calls) + crash_at
            try:
                directory.publish(new)
                durable: tuple[Identity, ...] = (new,)
            except Crash:
                durable = (old, new)
            found = DataDirectory.open(PATH, "n1", files.after_crash(Random(seed)))
            assert found.identity in durable
