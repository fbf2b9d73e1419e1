"""The child process that copies a whole state while the server goes on serving.

    python -m raftd.storage.worker take LIVE_DIR OUT_FILE --cluster ID --bytes-per-second N
    python -m raftd.storage.worker build SNAPSHOT_FILE OUT_DIR --bytes-per-second N
        [--announced INDEX TERM SIZE CHECKSUM]
    python -m raftd.storage.worker flush FILE --bytes-per-second N

`take` writes a snapshot of the live database as it is at the start, `build` makes a database of a
snapshot that it verifies meanwhile. A process of its own, so that the server's interpreter lock is
not held for it. Neither publishes anything: that is left to the parent.

With `--announced` the file is still being received: it is read as far as it is there, so that the
database is ready a moment after the last byte. It is not durable then: `flush` makes it so at
leisure, as it does with every file that lies in the memory of the kernel. If it were left to that,
all of it would be written at one moment, and the syncs of the log would wait for it.

What the parent has to know:

- Standard output is one JSON object a line: now and then `{"bytes": N, "total": N or null}`, the
  bytes of the snapshot file so far; the last line is `{"done": {"last_included_index",
  "last_included_term", "size_bytes", "checksum", "pairs"}}`, of a flush `{"done": {"size_bytes"}}`,
  with exit code 0, or `{"error": TEXT,
  "kind": KIND}` with exit code 1. Kinds: `corrupt` (the snapshot), `damaged` (the live database),
  `format` (of another release), `disk`, `bug`.
- Standard input is a pipe. When it is closed, the worker ends at once, so a worker does not outlive
  a parent that was killed. With `--announced` the parent writes to it, each time that more is
  there, how many bytes of the file there are from its beginning on: a decimal number and a newline.
- SIGTERM ends it at once, SIGINT is ignored: a Ctrl-C is the parent's to handle. What it has
  written by then is worthless and may be left there. After the end of a `take` that did not close
  its database, `LmdbStore.release_dead_readers` has to be called.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from raftd.core.snapshot import SnapshotId
from raftd.storage.files import FileSystem, OsFileSystem, StorageFault
from raftd.storage.live import remove_tree
from raftd.storage.lmdb_store import DamagedDatabase, LmdbStore
from raftd.storage.snapshot_file import (
    CorruptSnapshot,
    Pairs,
    SnapshotHead,
    SnapshotReader,
    SnapshotWriter,
    UnknownSnapshotFormat,
    head_of,
)
from raftd.storage.state import StateError
from raftd.storage.store import STORE_KEY_BYTES_MAX, Store

SYNC_BYTES = 4 * 1024 * 1024
"""What is written between two syncs: a sync of a whole large file makes those of the log wait. A
multiple of the size of a page."""
PROGRESS_SECONDS = 0.1
"""At least this is between two lines of progress."""
NICENESS = 10
"""The server and its clients come first."""
SCAN_PAIRS = 32
"""Pairs that are read at once where a store gives no more: values of 1 MiB make this 32 MiB."""

Progress = Callable[[int], None]
"""Told after each block how many bytes of the snapshot file are done; may wait, to be slow."""


@attrs.frozen(kw_only=True)
class Copied:
    """What was copied: the whole of it, verified where it came from a file."""

    head: SnapshotHead
    id: SnapshotId
    pair_count: int


def write_snapshot(
    files: FileSystem,
    path: Path,
    head: SnapshotHead,
    pairs: Iterable[Pairs],
    progress: Progress = lambda written_bytes: None,
) -> Copied:
    """Write the snapshot with `head` and all `pairs`, in ascending order, to the file at `path`.

    All of its bytes are durable afterwards, its name is not. Head and pairs have to be of the same
    moment: of one `LmdbStore.view`, or of a store that nobody changes meanwhile.

    Raises:
        StorageFault: the disk failed or is full; what is at `path` means nothing.
    """
    file = files.create(path)
    try:
        writer = SnapshotWriter(file, head)
        synced_bytes = 0
        pair_count = 0
        for some in pairs:
            writer.add(some)
            pair_count += len(some)
            if writer.written_bytes - synced_bytes >= SYNC_BYTES:
                file.sync()
                synced_bytes = writer.written_bytes
            progress(writer.written_bytes)
        id = writer.finish()
        file.sync()
    finally:
        file.close()
    progress(id.size_bytes)
    return Copied(head=head, id=id, pair_count=pair_count)


def pairs_of(store: Store) -> Iterator[Pairs]:
    """Return all pairs of any store that nobody changes meanwhile, a few at a time."""
    start = b""
    end = b"\xff" * (STORE_KEY_BYTES_MAX + 1)
    while pairs := store.scan(start, end, SCAN_PAIRS):
        yield pairs
        start = pairs[-1][0] + b"\x00"


def build_database(
    files: FileSystem,
    snapshot: Path,
    directory: Path,
    progress: Progress = lambda read_bytes: None,
    *,
    announced: SnapshotId | None = None,
    arrived: Callable[[int], None] = lambda end: None,
    durable: bool = True,
) -> Copied:
    """Make a database of the snapshot file at `snapshot`, in the new directory `directory`.

    The file is verified to its last byte. The database is closed afterwards. If this raises, there
    is no directory, unless removing it failed too.

    Args:
        announced, arrived: for a file that is still being received, see `SnapshotReader`.
        durable: whether the database is, afterwards; the name of its directory is not.

    Raises:
        CorruptSnapshot: the file is damaged.
        UnknownSnapshotFormat: another release wrote it.
        StorageFault: the disk failed or is full.
    """
    assert not files.exists(directory), "a database is built under a name of its own"
    reader = SnapshotReader(files, snapshot, announced=announced, arrived=arrived)

    def blocks() -> Iterator[Pairs]:
        for pairs in reader.blocks():
            yield pairs
            progress(reader.read_bytes)

    try:
        store = LmdbStore.open(directory)
        try:
            pair_count = store.load(blocks(), durable=durable)
        finally:
            store.close()
    except BaseException:
        with suppress(StorageFault):
            remove_tree(directory)
        raise
    progress(reader.read_bytes)
    return Copied(head=reader.head, id=reader.id, pair_count=pair_count)


def flush(path: Path, progress: Progress = lambda flushed_bytes: None) -> int:
    """Make the file at `path` durable as it is now, a little at a time; return its size.

    Others may write to it meanwhile, and use it through a map: nothing is read or changed here. A
    file that is not there any more has no bytes.

    Args:
        progress: told after each step how far it is; may wait, to be slow.

    Raises:
        StorageFault: the disk failed.
    """
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes:
                # A sync of a file has no range; that of a map has.
                with mmap.mmap(file.fileno(), size_bytes, prot=mmap.PROT_READ) as pages:
                    for start in range(0, size_bytes, SYNC_BYTES):
                        end = min(start + SYNC_BYTES, size_bytes)
                        pages.flush(start, end - start)
                        progress(end)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StorageFault(f"{path}: syncing it failed: {error.strerror or error}") from error
    return size_bytes


class Pace:
    """Keeps something that goes on in steps at or below a rate."""

    def __init__(
        self,
        bytes_per_second: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Begin now; a rate of 0 is no limit."""
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._done_bytes = 0
        self._due = clock()
        """When so many bytes may be done."""

    def reach(self, done_bytes: int) -> None:
        """Wait until `done_bytes`, counted from the beginning, may be done."""
        if self._bytes_per_second == 0:
            return
        step_seconds = (done_bytes - self._done_bytes) / self._bytes_per_second
        self._done_bytes = done_bytes
        now = self._clock()
        # Time that was lost is not made up for: a disk that was too slow for a while is the last
        # one that should get more to do.
        self._due = max(self._due + step_seconds, now)
        if self._due > now:
            self._sleep(self._due - now)


class Arrivals:
    """How much of a file there is that is still being received, for a thread that reads it."""

    def __init__(self) -> None:
        """Nothing is there yet."""
        self._bytes = 0
        self._changed = threading.Condition()

    def note(self, arrived_bytes: int) -> None:
        """Let those go on who wait for no more than `arrived_bytes`."""
        with self._changed:
            self._bytes = max(self._bytes, arrived_bytes)
            self._changed.notify_all()

    def wait(self, end: int) -> None:
        """Return once there are `end` bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes >= end)


class ProgressLines:
    """Says now and then on standard output how far the work is."""

    def __init__(
        self, total_bytes: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total_bytes = total_bytes
        self._clock = clock
        self._next = clock()

    def report(self, done_bytes: int) -> None:
        """Write a line, unless one was written within `PROGRESS_SECONDS`."""
        now = self._clock()
        if now >= self._next:
            self._next = now + PROGRESS_SECONDS
            _write_line({"bytes": done_bytes, "total": self._total_bytes})


def _write_line(line: dict[str, Any]) -> None:
    try:
        print(json.dumps(line), flush=True)
    except OSError:
        # Nobody reads it: the parent is gone.
        os._exit(1)


def _progress(arguments: argparse.Namespace, total_bytes: int | None) -> Progress:
    pace = Pace(arguments.bytes_per_second)
    lines = ProgressLines(total_bytes)

    def progress(done_bytes: int) -> None:
        lines.report(done_bytes)
        pace.reach(done_bytes)

    return progress


def _take(arguments: argparse.Namespace) -> Copied:
    store = LmdbStore.open(arguments.live_dir, read_only=True)
    try:
        with store.view():
            head = head_of(store, arguments.cluster)
            # How long the file becomes is not known before its end.
            progress = _progress(arguments, None)
            return write_snapshot(OsFileSystem(), arguments.out_file, head, store.pairs(), progress)
    finally:
        store.close()


def _build(arguments: argparse.Namespace) -> Copied:
    files = OsFileSystem()
    snapshot, directory = arguments.snapshot_file, arguments.out_dir
    if arguments.announced is None:
        return build_database(
            files, snapshot, directory, _progress(arguments, files.size(snapshot))
        )
    index, term, size_bytes, checksum = arguments.announced
    announced = SnapshotId(
        last_included_index=int(index),
        last_included_term=int(term),
        size_bytes=int(size_bytes),
        checksum=checksum,
    )
    return build_database(
        files,
        snapshot,
        directory,
        _progress(arguments, announced.size_bytes),
        announced=announced,
        arrived=arguments.arrivals.wait,
        durable=False,
    )


def _flush(arguments: argparse.Namespace) -> int:
    return flush(arguments.file, _progress(arguments, None))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m raftd.storage.worker")
    commands = parser.add_subparsers(required=True)
    take = commands.add_parser("take")
    take.add_argument("live_dir", type=Path)
    take.add_argument("out_file", type=Path)
    take.add_argument("--cluster", required=True)
    take.set_defaults(run=_take)
    build = commands.add_parser("build")
    build.add_argument("snapshot_file", type=Path)
    build.add_argument("out_dir", type=Path)
    build.add_argument("--announced", nargs=4, metavar=("INDEX", "TERM", "SIZE", "CHECKSUM"))
    build.set_defaults(run=_build)
    flushing = commands.add_parser("flush")
    flushing.add_argument("file", type=Path)
    flushing.set_defaults(run=_flush)
    for command in (take, build, flushing):
        command.add_argument("--bytes-per-second", type=int, default=0)
    return parser


def _follow_standard_input(arrivals: Arrivals) -> None:
    """Note what the parent says is there; end the process with its input."""
    rest = b""
    while received := os.read(0, 4096):
        *lines, rest = (rest + received).split(b"\n")
        if lines and lines[-1].isdigit():
            arrivals.note(int(lines[-1]))
    os._exit(1)


def kind_of(error: Exception) -> str:
    """Return what `error` of `write_snapshot` or `build_database` is called."""
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (CorruptSnapshot, "corrupt"),
        (DamagedDatabase, "damaged"),
        (UnknownSnapshotFormat, "format"),
        (StateError, "format"),
        (StorageFault, "disk"),
    )
    return next((kind for of, kind in kinds if isinstance(error, of)), "bug")


def main() -> int:
    """Run the command of `sys.argv` and return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    arguments = _parser().parse_args()
    arguments.arrivals = Arrivals()
    threading.Thread(target=_follow_standard_input, args=(arguments.arrivals,), daemon=True).start()
    os.nice(NICENESS)
    try:
        done: Copied | int = arguments.run(arguments)
    except Exception as error:
        kind = kind_of(error)
        if kind == "bug":
            traceback.print_exc()
        _write_line({"error": str(error) or repr(error), "kind": kind})
        return 1
    if isinstance(done, Copied):
        _write_line({"done": {**attrs.asdict(done.id), "pairs": done.pair_count}})
    else:
        _write_line({"done": {"size_bytes": done}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
