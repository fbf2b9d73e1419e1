"""`raftctl backup`: from a moment that the leader names to a verified file under its name.

1. The leader names an index that has all that was acknowledged before.
2. A server that has applied it makes a snapshot ready that includes it.
3. Its parts are fetched, written to FILE.tmp and synced.
4. The file is read again from its beginning, every checksum compared, and renamed.

Each step is a question that may be repeated, here or to another server. If the server goes away in
the middle, one that has the same snapshot, byte for byte, gives the rest; else it begins again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from raftctl.byte_progress import ByteProgress
from raftctl.cli import Context
from raftctl.client import Cluster, ConnectionProblem, error_of
from raftctl.errors import CliError, Refused, Unreachable, UsageProblem
from raftctl.render import display_names, members_of, name_list, natural_key
from raftctl.streaming import CHUNK_BYTES, IN_FLIGHT_MAX, SILENCE_MS, Patience, Pauses, Stream
from raftd.cluster_status.words import size
from raftd.core.types import ServerId, server_name
from raftd.offline import BackupFile, UnusableBackup, verify_backup
from raftd.protocol import (
    BackupChunkReply,
    BackupChunkRequest,
    BackupReply,
    BackupRequest,
    ErrorReply,
    ReadIndexReply,
    ReadIndexRequest,
    SnapshotId,
    StatusReply,
)

POLL_MS = 200.0
"""Between two questions whether the snapshot is ready, at the longest."""
STUCK_MS = 5_000.0
"""A server that makes no progress for so long is left for the next one."""
STARTS_MAX = 5
"""Snapshots that are begun to be fetched; whoever loses so many should look at the servers."""
SYNC_BYTES = 32 * 1024 * 1024
"""What is written between two syncs, so that the last one does not take minutes."""
TEMPORARY_SUFFIX = ".tmp"
_NO_SNAPSHOT = "no-snapshot"


@attrs.frozen(kw_only=True)
class Fetched:
    """A backup that is there, verified and durable."""

    file: BackupFile
    cluster_name: str
    server: str
    """The name of the server that the end of it came from."""


@attrs.frozen(kw_only=True)
class _Source:
    """A server that a backup may come from."""

    name: str
    address: str


class _Lost(Exception):
    """A server does not give the snapshot, or the rest of it; the message says why."""


def fetch_backup(context: Context, path: Path, *, source: str, force: bool) -> Fetched:
    """Write a backup of the cluster to the file at `path`. Durable and verified afterwards.

    Args:
        source: the name of the server that it is to come from; empty for the best one.
        force: replace a file that is there.

    Raises:
        CliError: there is none; what was at `path` before is there still.
    """
    _refuse_existing(context, path, force=force)
    progress = ByteProgress(context)
    try:
        with _temporary(path) as (temporary, descriptor):
            fetching = _Fetching(context, progress, descriptor, source)
            fetching.run()
            progress.show("verifying", 0, fetching.size_bytes)
            file = verify_backup(
                temporary, lambda done, total: progress.show("verifying", done, total)
            )
            _refuse_existing(context, path, force=force)
            with _disk_problems(path):
                os.rename(temporary, path)
                _sync_directory(path.parent)
    except UnusableBackup as problem:
        raise CliError(
            "the backup that was received is damaged; nothing was kept of it",
            code="damaged",
            cause=str(problem),
            hint=f"repeat it, to another disk or from another server:\n{context.again()}",
        ) from None
    finally:
        progress.close()
    return Fetched(
        file=attrs.evolve(file, path=path),
        cluster_name=fetching.cluster_name,
        server=fetching.server,
    )


# --- the file -----------------------------------------------------------------------------------


def _refuse_existing(context: Context, path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise UsageProblem(
            f"{path} is a directory",
            cause="FILE names the file to be written",
            hint="raftctl backup --help",
        )
    if path.exists() and not force:
        raise Refused(
            f"{path} is there already",
            code="exists",
            cause="a backup takes the place of no file unless it is told to; nothing was changed",
            hint=f"choose another name, or replace it:\n{context.again('--force')}",
        )


@contextmanager
def _disk_problems(path: Path) -> Iterator[None]:
    """Turn what the disk says into the error that ends the command."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise CliError(
            f"{path} could not be written; nothing was kept of it",
            code="disk-full" if full else "disk",
            cause=error.strerror or str(error),
            hint=("make room there, or choose another disk: " if full else "choose another place: ")
            + "`raftctl backup FILE`",
        ) from None


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, int]]:
    """Open FILE.tmp, empty and for us alone, and remove it unless it was renamed meanwhile."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with _disk_problems(path):
        # Whoever can read a backup can read every key.
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(descriptor), temporary.stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            raise Refused(
                f"another raftctl is writing {temporary}",
                code="busy",
                cause="the file is locked; nothing was changed",
                hint="wait for its end, or choose another name: `raftctl backup FILE`",
            )
        try:
            os.ftruncate(descriptor, 0)
            yield temporary, descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- the cluster --------------------------------------------------------------------------------


class _Fetching:
    """One backup on its way into an open file."""

    def __init__(
        self, context: Context, progress: ByteProgress, descriptor: int, source: str
    ) -> None:
        self._context = context
        self._cluster: Cluster = context.cluster()
        self._patience = Patience(context.timeout_ms)
        self._applied: dict[str, int] = {}
        """How far each source had applied the log when it was asked last."""
        self._progress = progress
        self._descriptor = descriptor
        self._wanted_source = source
        self._problems: dict[str, str] = {}
        """Of each server that was asked, by name."""
        self._written_bytes = 0
        self.cluster_name = ""
        self.server = ""
        self.size_bytes = 0

    def run(self) -> None:
        """Fetch all of a snapshot. Durable in the file afterwards, not verified."""
        index = self._read_index()
        for start in range(STARTS_MAX):
            if start:
                self._progress.message("begins again with another snapshot")
            source, snapshot = self._ready(index)
            self.size_bytes, self._written_bytes = snapshot.size_bytes, 0
            with _disk_problems(Path("the backup")):
                os.ftruncate(self._descriptor, 0)
            if self._fetch(source, snapshot):
                with _disk_problems(Path("the backup")):
                    os.fsync(self._descriptor)
                return
        raise self._gone(f"{STARTS_MAX} snapshots could not be fetched to their end")

    def _read_index(self) -> int:
        """Return an index that has all that was acknowledged until now."""
        self._progress.show("asking the leader")
        while True:
            status = self._cluster.leader_status()
            self.cluster_name = status.cluster_name
            address = status.leader_address or self._cluster.leader_first()[0]
            try:
                deadline = self._patience.deadline(SILENCE_MS)
                reply = self._cluster.ask_at(address, ReadIndexRequest(), deadline=deadline)
            except ConnectionProblem as problem:
                self._problems[server_name(status.server)] = str(problem)
            else:
                if isinstance(reply, ReadIndexReply):
                    return reply.index
                if not isinstance(reply, ErrorReply):
                    raise self._gone("the leader answers something else")
                if reply.code not in ("not-leader", "unavailable"):
                    raise error_of(reply)
                self._problems[server_name(status.server)] = reply.message
            if self._patience.exhausted:
                raise self._gone("no leader has said up to which entry")
            self._patience.sleep(POLL_MS)

    def _sources(self) -> list[_Source]:
        """Return the servers to ask, the best one first."""
        leader = self._cluster.leader_status()
        configuration = leader.configuration
        assert configuration is not None, "a leader has a configuration"
        names = display_names(members_of(configuration))
        wanted = [
            server
            for server in names
            if not self._wanted_source or self._wanted_source in (names[server], server)
        ]
        if not wanted:
            raise Refused(
                f"{self._wanted_source} is not a member",
                code="not-a-member",
                cause=f"the members are {name_list(names)}; nothing was written",
                hint=self._context.command("status"),
            )
        wanted.sort(key=lambda server: (_rank(leader, server), natural_key(names[server])))
        return [
            _Source(name=names[server], address=configuration.addresses[server])
            for server in wanted
            if server in configuration.addresses
        ]

    def _ready(self, index: int) -> tuple[_Source, SnapshotId]:
        """Return a server that has a snapshot of at least `index` ready."""
        while True:
            for source in self._sources():
                try:
                    stream = self._dial(source)
                    try:
                        return source, self._ready_at(stream, source, index)
                    finally:
                        stream.close()
                except (ConnectionProblem, _Lost) as problem:
                    self._note(source, problem)
            if self._patience.exhausted:
                raise self._gone("no server has made a snapshot ready")
            self._patience.sleep(POLL_MS)

    def _ready_at(self, stream: Stream, source: _Source, index: int) -> SnapshotId:
        # From one attempt to the next: that it says so again is no progress.
        applied_index = self._applied.get(source.name, -1)
        hope = Patience(STUCK_MS)
        pauses = Pauses(POLL_MS)
        while True:
            reply = stream.call(BackupRequest(index=index), self._patience)
            if isinstance(reply, ErrorReply):
                if reply.code == "forbidden":
                    # All others would say so too.
                    raise error_of(reply)
                raise _Lost(f"{reply.message} ({reply.cause})")
            if not isinstance(reply, BackupReply):
                raise _Lost("it answers something else")
            if reply.snapshot is not None:
                self._patience.renew()
                return reply.snapshot
            if reply.doing == "applying":
                self._progress.show(
                    f"waiting for {source.name}, which has applied {reply.applied_index:,} of "
                    f"{index:,} entries"
                )
            elif reply.doing == "waiting":
                self._progress.show(f"{source.name} waits: {reply.problem}")
            else:
                self._progress.show(f"{source.name} writes a snapshot")
            # How much of it is written is not told. The end of the one who writes it is: then it
            # waits, or begins anew.
            if reply.applied_index > applied_index or reply.doing == "writing":
                self._patience.renew()
                hope.renew()
            applied_index = self._applied[source.name] = reply.applied_index
            self._patience.sleep(pauses.next_ms())
            if hope.exhausted or self._patience.exhausted:
                raise _Lost(
                    reply.problem or f"it has applied {reply.applied_index} of {index} entries"
                )

    def _fetch(self, source: _Source, snapshot: SnapshotId) -> bool:
        """Fetch all of `snapshot`, from whoever has it; return False if nobody has it any more."""
        while True:
            try:
                stream = self._dial(source)
                try:
                    self._fetch_from(stream, source, snapshot)
                finally:
                    stream.close()
                self.server = source.name
                return True
            except (ConnectionProblem, _Lost) as problem:
                self._note(source, problem)
                self._progress.message(
                    f"{source.name}: {problem}; {size(self._written_bytes)} of "
                    f"{size(snapshot.size_bytes)} are here"
                )
            following = self._who_else_has(snapshot)
            if following is None:
                return False
            source = following

    def _fetch_from(self, stream: Stream, source: _Source, snapshot: SnapshotId) -> None:
        asked_bytes = self._written_bytes
        synced_bytes = self._written_bytes
        while self._written_bytes < snapshot.size_bytes:
            while stream.in_flight < IN_FLIGHT_MAX and asked_bytes < snapshot.size_bytes:
                size_bytes = min(CHUNK_BYTES, snapshot.size_bytes - asked_bytes)
                stream.post(_chunk_request(snapshot, asked_bytes, size_bytes), self._patience)
                asked_bytes += size_bytes
            data = _data_of(stream.collect(self._patience))
            expected_bytes = min(CHUNK_BYTES, snapshot.size_bytes - self._written_bytes)
            if len(data) != expected_bytes:
                raise _Lost(f"{len(data)} bytes came where {expected_bytes} were due")
            with _disk_problems(Path("the backup")):
                _write_all(self._descriptor, data, self._written_bytes)
                self._written_bytes += len(data)
                if self._written_bytes - synced_bytes >= SYNC_BYTES:
                    os.fdatasync(self._descriptor)
                    synced_bytes = self._written_bytes
            self._patience.renew()
            phase = f"fetching from {source.name}"
            self._progress.show(phase, self._written_bytes, snapshot.size_bytes)

    def _who_else_has(self, snapshot: SnapshotId) -> _Source | None:
        """Return a server that has the same snapshot; None if those that answer do not."""
        while True:
            is_hopeless = True
            for source in self._sources():
                try:
                    stream = self._dial(source)
                    try:
                        request = _chunk_request(snapshot, self._written_bytes, 1)
                        reply = stream.call(request, self._patience)
                    finally:
                        stream.close()
                except ConnectionProblem as problem:
                    self._note(source, problem)
                    # With a server of one's choice there is nobody else: it may come back.
                    is_hopeless = is_hopeless and not self._wanted_source
                    continue
                if isinstance(reply, BackupChunkReply):
                    return source
            if is_hopeless or self._patience.exhausted:
                return None
            self._patience.sleep(POLL_MS)

    def _dial(self, source: _Source) -> Stream:
        stream = Stream.dial(source.address, self._patience, tls=self._cluster.endpoints.tls)
        if stream.cluster_id != self._cluster.cluster_id:
            stream.close()
            raise _Lost("it belongs to another cluster")
        return stream

    def _note(self, source: _Source, problem: Exception) -> None:
        # What was seen before the time was over says more than that it is over.
        if not self._patience.exhausted or source.name not in self._problems:
            self._problems[source.name] = str(problem)

    def _gone(self, what: str) -> CliError:
        return Unreachable(
            f"there is no backup: {what}",
            code="no-backup",
            cause="; ".join(f"{name}: {why}" for name, why in sorted(self._problems.items()))
            + ("; " if self._problems else "")
            + "nothing was written",
            hint=f"`{self._context.command('status')}` shows the servers; then repeat\n"
            f"{self._context.again()}",
        )


def _rank(leader: StatusReply, server: ServerId) -> tuple[int, int]:
    """Return a sort key: caught-up followers first, then the leader, then who is behind."""
    if server == leader.server:
        return 1, 0
    peer = next((peer for peer in leader.peers if peer.server == server), None)
    if peer is None or not peer.connected or peer.fenced:
        return 3, 0
    caught_up = peer.match_index >= leader.commit_index
    return (0, 0) if caught_up else (2, peer.lag_entries)


def _chunk_request(snapshot: SnapshotId, offset: int, size_bytes: int) -> BackupChunkRequest:
    return BackupChunkRequest(snapshot=snapshot, offset=offset, size_bytes=size_bytes)


def _data_of(reply: object) -> bytes:
    if isinstance(reply, ErrorReply):
        gone = " (the snapshot is gone)" if reply.code == _NO_SNAPSHOT else ""
        raise _Lost(f"{reply.message}{gone}")
    if not isinstance(reply, BackupChunkReply):
        raise _Lost("it answers something else")
    return reply.data


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        if not written:
            raise OSError(errno.EIO, "the disk takes no more bytes")
        view, offset = view[written:], offset + written
