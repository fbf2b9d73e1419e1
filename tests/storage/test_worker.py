"""The child process that copies the state, and the functions that it is made of."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest

from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    encode_configuration,
)
from raftd.core.types import Entry, EntryKind
from raftd.records import RECORD_HEADER, encode_record
from raftd.storage.files import OsFileSystem, StorageFault
from raftd.storage.lmdb_store import LmdbStore
from raftd.storage.snapshot_file import (
    TAIL,
    TAIL_BYTES,
    CorruptSnapshot,
    SnapshotReader,
    UnknownSnapshotFormat,
    head_of,
)
from raftd.storage.state import StateError, StateMachine
from raftd.storage.store import MemoryStore, Store
from raftd.storage.worker import (
    PROGRESS_SECONDS,
    SYNC_BYTES,
    Copied,
    Pace,
    ProgressLines,
    build_database,
    flush,
    kind_of,
    pairs_of,
    write_snapshot,
)
from tests.storage.memory_files import MemoryFileSystem
from tests.storage.stores import NewStore, contents

CLUSTER = "cluster-1"
FILES = OsFileSystem()
DEADLINE_S = 60


def founded(store: Store) -> Store:
    """Let a state machine on `store` apply the first entry of a cluster."""
    entry = ConfigurationEntry(
        configuration=Configuration(voters={"n1/a"}), kind=ConfigurationKind.SIMPLE
    )
    machine = StateMachine(store)
    machine.apply([Entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(entry))])
    return store


def fill(store: Store, count: int, value_bytes: int) -> None:
    random = Random(1)
    with store.transaction():
        for number in range(count):
            store.put(b"K%06d" % number, random.randbytes(value_bytes))


def snapshot_of_store(store: Store, path: Path) -> Copied:
    return write_snapshot(FILES, path, head_of(store, CLUSTER), pairs_of(store))


def database_contents(path: Path) -> list[tuple[bytes, bytes]]:
    store = LmdbStore.open(path)
    try:
        return contents(store)
    finally:
        store.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LmdbStore]:
    store = LmdbStore.open(tmp_path / "live")
    founded(store)
    yield store
    store.close()


@contextmanager
def worker(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "raftd.storage.worker", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(*arguments: object) -> tuple[int, list[dict[str, Any]]]:
    """Run a worker to its end; return its exit code and its lines."""
    with worker(*arguments) as process:
        # `communicate` would close the standard input, which ends the worker.
        assert process.stdout is not None
        lines = [json.loads(line) for line in process.stdout]
        return process.wait(DEADLINE_S), lines


def take(live_path: Path, snapshot: Path, *rest: object) -> tuple[int, list[dict[str, Any]]]:
    return run("take", live_path, snapshot, "--cluster", CLUSTER, *rest)


@contextmanager
def slow_take(live: LmdbStore, snapshot: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker that has begun and needs years to come to its end."""
    fill(live, 1000, 1000)
    arguments = ("take", live.path, snapshot, "--cluster", CLUSTER, "--bytes-per-second", "1")
    with worker(*arguments) as process:
        assert process.stdout is not None
        assert "bytes" in json.loads(process.stdout.readline())
        yield process


def done(copied: Copied) -> dict[str, Any]:
    return {"done": {**attrs.asdict(copied.id), "pairs": copied.pair_count}}


def test_everykind_of_store_gives_all_its_pairs_in_order(new_store: NewStore) -> None:
    store = new_store()
    assert list(pairs_of(store)) == []
    fill(store, 100, 10)
    assert [pair for pairs in pairs_of(store) for pair in pairs] == contents(store)


def test_a_child_takes_the_same_snapshot_as_a_store_in_memory(
    live: LmdbStore, tmp_path: Path
) -> None:
    memory = founded(MemoryStore())
    for store in (live, memory):
        fill(store, 1000, 1000)
    expected = snapshot_of_store(memory, tmp_path / "expected")
    code, lines = take(live.path, tmp_path / "taken")
    assert (code, lines[-1]) == (0, done(expected))
    assert (tmp_path / "taken").read_bytes() == (tmp_path / "expected").read_bytes()
    written = [line["bytes"] for line in lines[:-1]]
    assert written
    assert written == sorted(written)
    assert written[-1] <= expected.id.size_bytes
    assert {line["total"] for line in lines[:-1]} == {None}
    assert live.release_dead_readers() == 0


def test_a_child_builds_the_database_that_a_snapshot_was_taken_of(
    live: LmdbStore, tmp_path: Path
) -> None:
    fill(live, 1000, 1000)
    copied = snapshot_of_store(live, tmp_path / "snapshot")
    code, lines = run("build", tmp_path / "snapshot", tmp_path / "built")
    assert (code, lines[-1]) == (0, done(copied))
    assert database_contents(tmp_path / "built") == contents(live)
    assert {line["total"] for line in lines[:-1]} == {copied.id.size_bytes}


def test_a_child_builds_a_database_of_a_snapshot_that_is_still_being_received(
    live: LmdbStore, tmp_path: Path
) -> None:
    fill(live, 1000, 1000)
    copied = snapshot_of_store(live, tmp_path / "snapshot")
    content = (tmp_path / "snapshot").read_bytes()
    announced = attrs.astuple(copied.id)
    file = tmp_path / "receiving"
    file.touch()
    with worker("build", file, tmp_path / "built", "--announced", *announced) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = []
        # In the middle of a record, too; and a part that is there and was not told of yet.
        with file.open("ab", buffering=0) as growing:
            for end in (10, 400_000, 400_000, 700_001, len(content)):
                growing.write(content[growing.tell() : end])
                process.stdin.write(f"{end}\n")
                process.stdin.flush()
                if end == 400_000 and not lines:
                    lines.append(json.loads(process.stdout.readline()))
        lines += [json.loads(line) for line in process.stdout]
        assert process.wait(DEADLINE_S) == 0
    assert 0 < lines[0]["bytes"] <= 400_000
    assert lines[-1] == done(copied)
    assert database_contents(tmp_path / "built") == contents(live)


def test_a_child_that_waits_for_the_rest_of_a_snapshot_ends_with_its_parent(
    live: LmdbStore, tmp_path: Path
) -> None:
    copied = snapshot_of_store(live, tmp_path / "snapshot")
    (tmp_path / "receiving").touch()
    arguments = ("build", tmp_path / "receiving", tmp_path / "built", "--announced")
    with worker(*arguments, *attrs.astuple(copied.id)) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 1


def test_a_file_is_flushed_in_steps_and_stays_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = Random(1).randbytes(2 * SYNC_BYTES + 5_000)
    path.write_bytes(content)
    seen: list[int] = []
    assert flush(path, seen.append) == len(content)
    assert seen == [SYNC_BYTES, 2 * SYNC_BYTES, len(content)]
    assert path.read_bytes() == content
    code, lines = run("flush", path, "--bytes-per-second", 1 << 30)
    assert (code, lines[-1]) == (0, {"done": {"size_bytes": len(content)}})


def test_a_file_that_is_empty_or_gone_has_nothing_to_flush(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert flush(tmp_path / "empty") == flush(tmp_path / "gone") == 0
    with pytest.raises(StorageFault):
        flush(tmp_path)


def test_a_snapshot_is_of_one_moment_while_the_server_writes_on(
    live: LmdbStore, tmp_path: Path
) -> None:
    fill(live, 2000, 1000)
    before = contents(live)
    arguments = ("take", live.path, tmp_path / "taken", "--cluster", CLUSTER)
    with worker(*arguments, "--bytes-per-second", 4_000_000) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline())]
        for number in range(2000):
            with live.transaction():
                live.put(b"K%06d" % (number * 7 % 2000), b"changed")
                live.put(b"L%06d" % number, b"new")
        lines += [json.loads(line) for line in process.stdout]
        assert process.wait(DEADLINE_S) == 0
    reader = SnapshotReader(FILES, tmp_path / "taken")
    assert [pair for pairs in reader.blocks() for pair in pairs] == before


TAKEN_WITH_A_PAUSE = """
import sys
from raftd.storage import worker
head_of = worker.head_of
def slow_head_of(store, cluster_id):
    head = head_of(store, cluster_id)
    print("head", flush=True)
    sys.stdin.readline()
    return head
worker.head_of = slow_head_of
worker._take(worker._parser().parse_args(sys.argv[1:]))
"""


def test_the_head_of_a_snapshot_is_of_the_same_moment_as_its_pairs(
    live: LmdbStore, tmp_path: Path
) -> None:
    snapshot_of_store(live, tmp_path / "expected")
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", TAKEN_WITH_A_PAUSE),
            *("take", live.path, tmp_path / "taken", "--cluster", CLUSTER),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "head\n"
        StateMachine(live).apply([Entry(2, 1, EntryKind.NOOP, b"")])
        process.communicate("go\n", DEADLINE_S)
    assert process.returncode == 0
    assert (tmp_path / "taken").read_bytes() == (tmp_path / "expected").read_bytes()


def test_a_built_database_is_removed_if_a_byte_of_the_snapshot_is_wrong(
    live: LmdbStore, tmp_path: Path
) -> None:
    fill(live, 1000, 1000)
    copied = snapshot_of_store(live, tmp_path / "snapshot")
    content = bytearray((tmp_path / "snapshot").read_bytes())
    content[copied.id.size_bytes * 3 // 4] ^= 0x10
    (tmp_path / "snapshot").write_bytes(content)
    code, lines = run("build", tmp_path / "snapshot", tmp_path / "built")
    assert (code, lines[-1]["kind"]) == (1, "corrupt")
    assert str(tmp_path / "snapshot") in lines[-1]["error"]
    assert not (tmp_path / "built").exists()


def test_a_digest_that_does_not_match_removes_what_was_built(
    live: LmdbStore, tmp_path: Path
) -> None:
    fill(live, 1000, 1000)
    copied = snapshot_of_store(live, tmp_path / "snapshot")
    content = (tmp_path / "snapshot").read_bytes()
    # A record that is good in itself, and ends with another digest.
    tail = bytearray(content[-TAIL_BYTES + RECORD_HEADER.size :])
    tail[-1] ^= 1
    (tmp_path / "snapshot").write_bytes(content[:-TAIL_BYTES] + encode_record(TAIL, bytes(tail)))
    assert (tmp_path / "snapshot").stat().st_size == copied.id.size_bytes
    with pytest.raises(CorruptSnapshot):
        build_database(FILES, tmp_path / "snapshot", tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_a_build_that_is_given_up_leaves_nothing(live: LmdbStore, tmp_path: Path) -> None:
    fill(live, 1000, 1000)
    snapshot_of_store(live, tmp_path / "snapshot")

    def give_up(read_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_database(FILES, tmp_path / "snapshot", tmp_path / "built", give_up)
    assert not (tmp_path / "built").exists()


def test_a_database_that_is_missing_is_reported(tmp_path: Path) -> None:
    code, lines = take(tmp_path / "live", tmp_path / "taken")
    assert (code, lines[-1]["kind"]) == (1, "disk")
    assert str(tmp_path / "live") in lines[-1]["error"]


def test_a_full_disk_is_reported_and_removes_what_was_built(
    live: LmdbStore, tmp_path: Path
) -> None:
    fill(live, 1000, 1000)
    snapshot_of_store(live, tmp_path / "snapshot")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        built = run("build", tmp_path / "snapshot", tmp_path / "built")
        taken = take(live.path, tmp_path / "taken")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (built[0], built[1][-1]["kind"]) == (1, "disk")
    assert str(tmp_path / "built") in built[1][-1]["error"]
    assert not (tmp_path / "built").exists()
    assert (taken[0], taken[1][-1]["kind"]) == (1, "disk")
    assert str(tmp_path / "taken") in taken[1][-1]["error"]


def test_a_bug_is_reported_with_its_place(tmp_path: Path) -> None:
    LmdbStore.open(tmp_path / "live").close()
    with worker("take", tmp_path / "live", tmp_path / "taken", "--cluster", CLUSTER) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = json.loads(process.stdout.readline())
        assert "Traceback" in process.stderr.read()
        assert process.wait(DEADLINE_S) == 1
    assert line["kind"] == "bug"
    assert line["error"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CorruptSnapshot(Path("x"), 0, "no"), "corrupt"),
        (UnknownSnapshotFormat("no"), "format"),
        (StateError("no"), "format"),
        (StorageFault("no"), "disk"),
        (ValueError("no"), "bug"),
    ],
)
def test_the_most_specifickind_of_an_error_is_reported(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


def test_a_damaged_database_is_reported_as_such(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "data.mdb").write_bytes(b"x" * 10_000)
    code, lines = take(tmp_path / "live", tmp_path / "taken")
    assert (code, lines[-1]["kind"]) == (1, "damaged")


def test_a_worker_ends_when_its_standard_input_is_closed(live: LmdbStore, tmp_path: Path) -> None:
    with slow_take(live, tmp_path / "taken") as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 1
        assert live.release_dead_readers() == 1


def test_a_worker_is_ended_by_a_termination_and_not_by_an_interrupt(
    live: LmdbStore, tmp_path: Path
) -> None:
    with slow_take(live, tmp_path / "taken") as process:
        status = Path(f"/proc/{process.pid}/status").read_text()
        ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
        assert int(ignored.split()[1], 16) & 1 << signal.SIGINT - 1
        process.terminate()
        assert process.wait(DEADLINE_S) == -signal.SIGTERM


def test_a_worker_leaves_the_processor_to_others(live: LmdbStore, tmp_path: Path) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with slow_take(live, tmp_path / "taken") as process:
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(own + 10, 19)


def test_the_memory_of_a_worker_does_not_depend_on_the_size_of_the_state(
    live: LmdbStore, tmp_path: Path
) -> None:
    def largest_anonymous_bytes(*arguments: object) -> int:
        largest = 0
        lines = []
        with worker(*arguments) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                status = Path(f"/proc/{process.pid}/status").read_text()
                sizes = [row.split() for row in status.splitlines()]
                # A process that has just ended has no memory any more.
                largest = max([largest, *(int(row[1]) for row in sizes if row[0] == "RssAnon:")])
        assert "done" in lines[-1]
        return largest * 1024

    fill(live, 20_000, 4_000)
    limit = 48 * 1024 * 1024
    assert live.size_bytes > 1.5 * limit
    snapshot = tmp_path / "taken"
    taking = largest_anonymous_bytes("take", live.path, snapshot, "--cluster", CLUSTER)
    building = largest_anonymous_bytes("build", snapshot, tmp_path / "built")
    assert 0 < taking < limit
    assert 0 < building < limit


def test_a_snapshot_is_synced_in_pieces_and_at_its_end() -> None:
    files = MemoryFileSystem()
    store = founded(MemoryStore())
    fill(store, 300, 50_000)
    copied = write_snapshot(files, Path("/s"), head_of(store, CLUSTER), pairs_of(store))
    assert files.calls.count("sync s") == copied.id.size_bytes // SYNC_BYTES + 1
    assert files.calls[-1] == "sync s"


class Clock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def test_work_is_slowed_down_to_its_pace() -> None:
    clock = Clock()
    pace = Pace(1000, clock, clock.pass_seconds)
    for step in range(1, 11):
        clock.pass_seconds(0.05)
        pace.reach(step * 100)
        assert clock.now == pytest.approx(100 + step * 0.1)


def test_time_that_was_lost_is_not_made_up_for() -> None:
    clock = Clock()
    pace = Pace(1000, clock, clock.pass_seconds)
    clock.pass_seconds(50)
    pace.reach(100)
    assert clock.now == 150
    pace.reach(200)
    assert clock.now == pytest.approx(150.1)


def test_a_pace_of_zero_is_no_limit() -> None:
    clock = Clock()
    Pace(0, clock, clock.pass_seconds).reach(1 << 40)
    assert clock.now == 100


def test_progress_is_said_now_and_then_only(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = ProgressLines(500, clock)
    for step in range(100):
        lines.report(step)
        clock.pass_seconds(PROGRESS_SECONDS / 9.9)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["bytes"] for line in said] == list(range(0, 100, 10))
    assert {line["total"] for line in said} == {500}
