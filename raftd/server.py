"""The composition root: recover from the disk, open the network, run the driver, drain, end.

One nursery holds everything. A task that dies unexpectedly takes the process down: a server that
is half alive is worse than one that is dead.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import attrs
import trio

from raftd import __version__, garbage
from raftd.background import BackgroundSnapshots
from raftd.config import ClusterConfig, ServerConfig
from raftd.consumption import consumption
from raftd.core.errors import Divergence
from raftd.core.leader import Leader
from raftd.core.types import server_name
from raftd.event_log import tell
from raftd.founding import lead_if_alone
from raftd.log_level import LevelOfFile
from raftd.log_words import milliseconds
from raftd.network.dialling import split_address
from raftd.network.inputs import Inbox
from raftd.network.network import Network
from raftd.node import EXIT_REMOVED, Node
from raftd.protocol import Refusal, Welcome
from raftd.recovery import Recovered, recover
from raftd.reloading import Reloading
from raftd.secrets import Secrets
from raftd.service_notify import ServiceNotify, describe
from raftd.standstill import SLOW_SYNC_MS, SlowSyncs, Standstill
from raftd.storage.files import FileSystem, OsFileSystem, Remedy, StorageFault
from raftd.storage.identity import DataDirectory, DataDirectoryLocked, WrongName
from raftd.storage.lmdb_store import DamagedDatabase
from raftd.storage.state import StateMachine, UnknownEntry
from raftd.surroundings import Measured, Settings
from raftd.sync_times import SyncTimes
from raftd.ticks import Ticks
from raftd.tls import TlsProblem
from raftd.trace import Emit, Trace

if TYPE_CHECKING:
    from raftd.http.monitor import Monitor
    from raftd.network.redis_listener import RedisListener

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STORAGE = 74
"""sysexits.h, EX_IOERR: the disk failed, or what is on it is damaged."""

TICK_MS_MIN = 1.0
"""A shorter tick would cost more than it says."""
TICKS_PER_HEARTBEAT = 2
"""Time-outs are rounded to ticks. Half a heartbeat is fine enough, since the ticks of different
servers fall at different moments; and each wake-up of an idle server costs processor time."""
FLUSH_TIMEOUT_MS = 500.0
"""At the end, queued replies and answers have so long to reach the kernel."""
DRAIN_ELECTION_TIMEOUTS = 2
"""Leadership is handed over within one election timeout or not at all; twice that is enough."""

DESCRIPTORS_WANTED = 8_192
"""Open files: for the connections of both listeners, the log, the state, and room to spare."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

logger = logging.getLogger("raftd.server")


def run(
    cluster: ClusterConfig, server: ServerConfig, data_dir: Path, emit: Emit | None = None
) -> int:
    """Run one server until it is told to stop or has to; return the exit code of the process.

    Args:
        cluster: the cluster file.
        server: the part of it that describes this server.
        data_dir: where its data is; made if absent.
        emit: takes the events of its trace, if one is wanted; it must not block.
    """
    try:
        directory = DataDirectory.open(data_dir, server.id, OsFileSystem())
    except DataDirectoryLocked as error:
        logger.error("%s", error)
        return EXIT_FAILED
    except WrongName as error:
        logger.error("%s", error)
        return EXIT_USAGE
    except StorageFault as fault:
        logger.error("%s", explain(fault, server, data_dir))
        return EXIT_STORAGE
    try:
        if directory.identity.removed_index:
            logger.error(
                "%s was removed from cluster %s for good by configuration %d; to use this machine "
                "again, empty %s and add it as a new server",
                directory.identity.server,
                directory.identity.cluster_name,
                directory.identity.removed_index,
                data_dir,
            )
            return EXIT_REMOVED
        secrets = Secrets(server)
        return _run_with(directory, cluster, server, secrets, emit)
    except TlsProblem as problem:
        logger.error("%s", problem)
        return EXIT_USAGE
    except StorageFault as fault:
        logger.error("%s", explain(fault, server, data_dir))
        return EXIT_STORAGE
    finally:
        directory.close()


def _allow_descriptors() -> None:
    """Raise the limit of open files of this process as far as its connections may need it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def explain(fault: StorageFault, server: ServerConfig, data_dir: Path) -> str:
    """Return what has happened to the disk, what follows from it, and what to do, in words."""
    name = server.id
    way_back = (
        f"stop it, empty {shlex.quote(str(data_dir))}, start it again (it is blank then), and run: "
        f"raftctl replace {name} {shlex.quote(f'{name}={server.address}')}"
    )
    match fault.remedy:
        case Remedy.NAMED:
            return str(fault)
        case Remedy.REPLACE:
            return f"{fault.what}. To get {name} back: {way_back}"
        case Remedy.RESTART if isinstance(fault.__cause__, PermissionError):
            # No disk has failed, and whoever emptied the directory now would lose what is whole.
            user, quoted = os.geteuid(), shlex.quote(str(data_dir))
            return (
                f"{fault}. raftd runs as user {user}, and {name} needs to read and write all of "
                f"{quoted}: start it as the user to whom that belongs, or give it to this one with "
                f"`chown -R {user} {quoted}`"
            )
        case Remedy.RESTART:
            return (
                f"{fault}. {name} ends and does not try again: after a failure nobody knows what "
                "the disk has. Start it again when the disk works; it goes on from what it finds "
                f"there. If that is refused or lost: {way_back}"
            )


def _run_with(
    directory: DataDirectory,
    cluster: ClusterConfig,
    server: ServerConfig,
    secrets: Secrets,
    emit: Emit | None,
) -> int:
    files = OsFileSystem()
    _allow_descriptors()
    garbage.put_off()
    recovered = recover(directory, files)
    wal, entry_count = recovered.log.wal, len(recovered.log.entries)
    sync_times = _sync_times()
    wal.run_sync = sync_times.measure
    inbox = Inbox()
    snapshots = _snapshots(recovered, server, files, inbox)
    exit_code = EXIT_FAILED
    service = ServiceNotify.from_environment(os.environ)
    try:
        network = Network(
            inbox,
            admit=lambda hello: _with_redis(node.admit(hello), server),
            our_hello=lambda dest: node.our_hello(dest),
            randomness=random.Random(),
            file_addresses={member.id: member.address for member in cluster.servers.values()},
            credentials=secrets.credentials,
        )
        started_ns = _clock_ns()
        state = StateMachine(recovered.store)
        trace = None
        if emit is not None:
            trace = Trace(emit, lambda: time.time_ns() // 1000, lambda: state.effects_hash)
        node = Node(
            identities=directory,
            log=wal,
            found=recovered.log,
            snapshots=snapshots,
            state=state,
            network=network,
            settings=_settings(server),
            random=random.Random(),
            wall_clock_ms=lambda: time.time_ns() // 1_000_000,
            uptime_ns=lambda: _clock_ns() - started_ns,
            mint_cluster_id=lambda: str(uuid4()),
            free_bytes=lambda: files.free_bytes(directory.path),
            measure=lambda: _measured(sync_times, snapshots, secrets),
            trace=trace,
        )
        _announce(node, cluster, server, entry_count)
        secrets.announce(time.time_ns() // 1_000_000)
        lead_if_alone(node.raft)
        # Its list of entries would keep those alive that are compacted.
        del recovered
        redis = _redis_listener(server, inbox, network, node, state, secrets)
        reloading = _reloading(cluster, server, secrets)
        standstill = Standstill(time.monotonic, server.election_timeout_ms, sync_times)
        running = _Server(
            *(node, network, redis, snapshots, inbox, server, directory.path),
            *(service, reloading, standstill),
        )
        if server.http is not None:
            running.tell_by_http(cluster, sync_times, state, secrets)
        try:
            exit_code = trio.run(running.run)
            return exit_code
        finally:
            if trace is not None:
                trace.stopped(running.why)
    finally:
        service.close()
        wal.close()
        snapshots.close(cleanly=exit_code in (EXIT_DONE, EXIT_REMOVED))


def _snapshots(
    recovered: Recovered, server: ServerConfig, files: FileSystem, inbox: Inbox
) -> BackgroundSnapshots:
    return BackgroundSnapshots(
        recovered.snapshots,
        recovered.live,
        recovered.store,
        files,
        inbox.put_nowait,
        snapshot_bytes_per_second=server.snapshot_bytes_per_second,
        catch_up_bytes_per_second=server.catch_up_bytes_per_second,
    )


def _clock_ns() -> int:
    # The usual monotonic clock stands still while the machine sleeps, and a lease must not.
    return time.clock_gettime_ns(_CLOCK)


def _reloading(cluster: ClusterConfig, server: ServerConfig, secrets: Secrets) -> Reloading:
    """Return what SIGHUP does."""
    parts = (
        lambda now: secrets.reload_certificates(now, time.time_ns() // 1_000_000),
        secrets.reload_password,
        LevelOfFile(server.log_level).reload,
    )
    fields = frozenset({"tls", "redis_password_file", "log_level"})
    return Reloading(cluster, server, parts, fields)


def _sync_times() -> SyncTimes:
    slow_syncs = SlowSyncs(time.monotonic)
    return SyncTimes(time.monotonic_ns, slow_ms=SLOW_SYNC_MS, was_slow=slow_syncs.took)


def _measured(sync_times: SyncTimes, snapshots: BackgroundSnapshots, secrets: Secrets) -> Measured:
    median_ms, high_ms = sync_times.percentiles_ms() or (None, None)
    used = consumption()
    return Measured(
        sync_p50_ms=median_ms,
        sync_p99_ms=high_ms,
        state_bytes=snapshots.store.file_bytes,
        cpu_ms=used.cpu_ms,
        rss_bytes=used.rss_bytes,
        rss_anon_bytes=used.rss_anon_bytes,
        certificate_expires_ms=secrets.expires_ms,
    )


def _with_redis(answer: Welcome | Refusal, server: ServerConfig) -> Welcome | Refusal:
    """Tell other servers where this one serves Redis clients, so that they can redirect them."""
    if isinstance(answer, Welcome) and server.redis is not None:
        return attrs.evolve(answer, redis=server.redis)
    return answer


def _redis_listener(
    server: ServerConfig,
    inbox: Inbox,
    network: Network,
    node: Node,
    state: StateMachine,
    secrets: Secrets,
) -> RedisListener | None:
    if server.redis is None:
        return None
    # Imported only where it is wanted.
    from raftd.network.redis_listener import RedisListener
    from raftd.redis_surroundings import surroundings

    started_ns = _clock_ns()
    around = surroundings(
        node, network, server.redis, lambda: (_clock_ns() - started_ns) // 1_000_000
    )
    around.password = secrets.password
    redis = RedisListener(
        inbox,
        features=lambda: state.features,
        redis_address=network.redis_address,
        surroundings=around,
        credentials=secrets.credentials,
    )
    inbox.sources.append(redis)
    return redis


def _settings(server: ServerConfig) -> Settings:
    tick_ms = max(TICK_MS_MIN, server.heartbeat_interval_ms / TICKS_PER_HEARTBEAT)
    return Settings(
        address=server.address,
        version=__version__,
        tick_ms=tick_ms,
        heartbeat_interval_ms=server.heartbeat_interval_ms,
        election_timeout_ms=server.election_timeout_ms,
        catch_up_timeout_ms=server.catch_up_timeout_ms,
        joint_timeout_ms=server.joint_timeout_ms,
        snapshot_log_bytes=server.snapshot_log_bytes,
        catch_up_bytes_per_second=server.catch_up_bytes_per_second,
        disk_reserve_bytes=server.disk_reserve_bytes,
        zone=server.zone or "",
        redis=server.redis or "",
        http=server.http or "",
        reads_by_lease=server.reads == "lease",
        clock_drift=server.clock_drift,
    )


def _announce(node: Node, cluster: ClusterConfig, server: ServerConfig, entries: int) -> None:
    """Say who starts, and where the file and the replicated configuration differ."""
    identity = node.identity
    tell(
        *(logger, "start", "%s, version %s, at %s, process %d"),
        *(identity.server, __version__, server.listen, os.getpid()),
        version=__version__,
        pid=os.getpid(),
    )
    if identity.is_blank:
        if node.raft.snapshot is not None:
            logger.info("holds a backup and belongs to no cluster; waits for `raftctl restore`")
        else:
            logger.info(
                "blank: belongs to no cluster; waits for `raftctl init`, or to be added to one"
            )
        return
    logger.info(
        "member of %s (%s), %d entries in the log, term %d",
        identity.cluster_name,
        identity.cluster_id,
        entries,
        node.raft.current_term,
    )
    if identity.cluster_name != cluster.cluster:
        tell(
            logger,
            "drift",
            "the file names the cluster %s, the data belongs to %s: the data is obeyed",
            cluster.cluster,
            identity.cluster_name,
            level=logging.WARNING,
        )
    latest = node.raft.configuration
    if latest is None:
        return
    in_log = {server_name(member): at for member, at in latest.entry.addresses.items()}
    in_file = {member.id: member.address for member in cluster.servers.values()}
    moved = [
        f"{name}={address}"
        for name, address in in_file.items()
        if in_log.get(name, address) != address
    ]
    if in_log != in_file:
        tell(
            logger,
            "drift",
            "the file and configuration %d of the log differ; the log is obeyed: file %s, log %s. "
            "raftctl apply -f FILE makes the cluster what the file says%s",
            latest.index,
            in_file,
            in_log,
            f"; members that have moved: raftctl readdress {' '.join(moved)}" if moved else "",
            level=logging.WARNING,
            index=latest.index,
        )


class _Server:
    """The tasks of a running server."""

    def __init__(
        self,
        node: Node,
        network: Network,
        redis: RedisListener | None,
        snapshots: BackgroundSnapshots,
        inbox: Inbox,
        server: ServerConfig,
        data_dir: Path,
        service: ServiceNotify,
        reloading: Reloading,
        standstill: Standstill,
    ) -> None:
        self._node = node
        self._network = network
        self._redis = redis
        self._snapshots = snapshots
        self._inbox = inbox
        self._config = server
        self._data_dir = data_dir
        self._service = service
        self._reloading = reloading
        self._standstill = standstill
        self._monitor: Monitor | None = None
        self._tick_seconds = _settings(server).tick_ms / 1000
        self._drain_began = 0.0
        self._drain_deadline = float("inf")
        self._exit_code = EXIT_DONE
        self.why = "an unexpected error, which the log shows"
        """Why it ended, for its trace."""

    def tell_by_http(
        self, cluster: ClusterConfig, sync_times: SyncTimes, state: StateMachine, secrets: Secrets
    ) -> None:
        """Have it tell by HTTP how it is, from its `run` on."""
        # Imported only where it is wanted.
        from raftd.http.monitor import Monitor, Surroundings

        def connections() -> dict[str, int]:
            listener = self._network.listener
            counts = {"servers": len(listener.peers), "clients": len(listener.clients)}
            if self._redis is not None:
                counts["redis"] = self._redis.connection_count
            return counts

        around = Surroundings(
            cluster=cluster,
            server=self._config,
            settings=_settings(self._config),
            syncs=sync_times.histogram,
            dial=self._network.dial,
            wake=self._inbox.wake,
            is_draining=lambda: self.is_draining,
            connections=connections,
            lives=lambda: state.life_count,
            dropped_messages=lambda: self._network.dropped_messages,
            credentials=secrets.credentials,
        )
        self._monitor = Monitor(self._node, around)

    @property
    def is_draining(self) -> bool:
        """Whether it was told to stop."""
        return self._drain_deadline < float("inf")

    async def run(self) -> int:
        """Listen, drive, and return the exit code when it is time to end."""
        async with trio.open_nursery() as nursery:
            # Before anybody can see that the server is there, and so send it a signal.
            await nursery.start(self._watch_signals)
            address = self._config.listen
            try:
                await nursery.start(self._network.serve, address)
                if self._redis is not None and self._config.redis is not None:
                    address = self._config.redis
                    await nursery.start(self._redis.serve, *split_address(address))
                if self._monitor is not None and self._config.http is not None:
                    address = self._config.http
                    await nursery.start(self._monitor.serve)
            except OSError as error:
                self.why = f"cannot listen on {address}: {error.strerror or error}"
                logger.error("%s; is another raftd running there?", self.why)
                nursery.cancel_scope.cancel()
                return EXIT_FAILED
            await nursery.start(self._network.run)
            await nursery.start(self._snapshots.run)
            self._service.ready(describe(self._node.raft))
            await self._drive()
            self._service.stopping(self.why)
            nursery.cancel_scope.cancel()
        return self._exit_code

    async def _drive(self) -> None:
        """Feed the node until it has to stop, or has been drained after a signal."""
        node = self._node
        collection = garbage.GarbageCollection(trio.current_time)
        ticks = Ticks(self._tick_seconds, trio.current_time())

        watched_ticks = self._service.quiet_ticks_max(self._tick_seconds)

        def quiet_ticks() -> int:
            quiet = node.quiet_ticks()
            return quiet if watched_ticks is None else min(quiet, watched_ticks)

        def tick_at() -> float:
            # An idle server sleeps through the ticks in which nothing is due.
            return ticks.due_at(quiet_ticks())

        while True:
            inputs, tick = await self._inbox.take(tick_at, not_before=ticks.not_before)
            now = trio.current_time()
            passed_ticks = 0
            if now >= ticks.not_before:
                passed_ticks = ticks.passed(now, quiet_ticks())
                if ticks.late_seconds >= self._standstill.bound_seconds:
                    self._standstill.woke_late(ticks.late_seconds)
            if tick:
                ticks.ticked(now)
            try:
                node.turn(inputs, tick=tick, passed_ticks=passed_ticks)
            except (StorageFault, Divergence, UnknownEntry) as error:
                self._fail(error)
                return
            ended = trio.current_time()
            ticks.worked(ended)
            if ended - now >= self._standstill.bound_seconds:
                self._standstill.turn_took(ended - now)
            self._network.listener.push()
            if self._redis is not None:
                self._redis.flush()
                if tick:
                    self._redis.tick()
            if node.is_behind:
                self._inbox.wake()
            if tick or passed_ticks:
                self._service.tick(node.raft, ended)
                self._standstill.tick()
            if tick:
                collection.tend(node.raft.log.last_index - node.raft.log.base_index)
            if node.stop is not None:
                tell(
                    *(logger, "stop", "%s: ends with exit code %d"),
                    *(node.stop.message, EXIT_REMOVED),
                    level=logging.WARNING,
                    exit_code=EXIT_REMOVED,
                )
                self.why = node.stop.message
                self._exit_code = node.stop.exit_code
                break
            if self.is_draining and (
                node.is_drained or trio.current_time() >= self._drain_deadline
            ):
                self._tell_stopped()
                self.why = "stopped by a signal"
                break
        if self._redis is not None:
            await self._redis.drain(FLUSH_TIMEOUT_MS)
        await self._network.flush(FLUSH_TIMEOUT_MS)

    def _fail(self, error: StorageFault | Divergence | UnknownEntry) -> None:
        """End with the exit code for storage: nothing is served any more, not even from memory."""
        said = str(error)
        if isinstance(error, StorageFault):
            said = explain(error, self._config, self._data_dir)
        kind = "disk-fault" if isinstance(error, StorageFault) else "divergence"
        tell(logger, kind, "%s", said, level=logging.ERROR, exit_code=EXIT_STORAGE)
        self.why = str(error)
        self._exit_code = EXIT_STORAGE
        if isinstance(error, DamagedDatabase | Divergence):
            self._distrust_state()

    def _tell_stopped(self) -> None:
        took_ms = (trio.current_time() - self._drain_began) * 1000
        raft, words = self._node.raft, "it knows no leader"
        if isinstance(raft.role, Leader):
            words = "nobody could take over the leadership"
        elif raft.leader_id is not None:
            words = f"{server_name(raft.leader_id)} leads"
        tell(
            logger,
            "stop",
            "stopped, after %s: %s",
            milliseconds(took_ms),
            words,
            leader=raft.leader_id,
        )

    def _distrust_state(self) -> None:
        """Let the next start build its state from snapshot and log."""
        try:
            self._snapshots.distrust_state()
        except StorageFault as fault:
            logger.error("%s", explain(fault, self._config, self._data_dir))

    async def _watch_signals(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """On SIGTERM or SIGINT hand leadership over, then end; on a second one end at once.

        On SIGHUP read again what can be changed while it runs.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._service.reloading()
                    self._reloading.reload()
                    self._service.ready()
                    continue
                # It may be asleep for some ticks.
                self._inbox.wake()
                if self.is_draining:
                    self._drain_deadline = 0
                    continue
                timeout_ms = self._config.election_timeout_ms * DRAIN_ELECTION_TIMEOUTS
                next_step = "stops"
                if isinstance(self._node.raft.role, Leader):
                    limit = milliseconds(timeout_ms)
                    next_step = f"hands leadership over, for {limit} at most, then stops"
                tell(logger, "stopping", "%s: %s", signal.Signals(number).name, next_step)
                self._drain_began = trio.current_time()
                self._drain_deadline = self._drain_began + timeout_ms / 1000
                self._service.stopping("hands leadership over, then stops")
                self._node.drain()
