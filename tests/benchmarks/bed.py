"""Clusters that start on a state of any size, and what the system says about their processes."""

from __future__ import annotations

import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from raftd.protocol import StatusReply
from tests.benchmarks.foreground import Load
from tests.benchmarks.states import State, make_state
from tests.cluster.processes import RunningCluster, Server, wait_for

PORTS = range(10_000, 12_000)
"""Below those that tests choose from: the ports of a state stay free for as long as it is used."""
NAMES = ("n1", "n2", "n3")
"""The servers that a cluster starts with."""
LONG_WAIT_S = 600.0
"""For what takes as long as a state is large."""
MEMORY_SECONDS = 0.05
"""Between two looks at the memory of a process."""
DISK_SECONDS = 0.02
"""Between two looks at what is in the directories of snapshots."""
SETTLE_SECONDS = 2.0
"""After a snapshot was published, old files and entries are still being let go."""
TAKING_PREFIX = "taking-"
"""How the file of a snapshot that is being written begins, below `snapshots`."""


@attrs.frozen(kw_only=True)
class Size:
    """One size of a state."""

    label: str
    keys: int
    value_bytes: int


class Bed:
    """A temporary folder in which states are kept, and clusters come and go."""

    def __init__(
        self, folder: Path, say: Callable[[str], None], *, quick: bool, rounds: int
    ) -> None:
        """Nothing is made before it is needed.

        Args:
            folder: there, and removed by the caller.
            say: told what happens.
            quick: a small state.
            rounds: how often what is compared is measured.
        """
        self.folder = folder
        self.say = say
        self.quick = quick
        self.rounds = rounds
        self._states: dict[Size, State] = {}
        self._addresses = dict(zip(NAMES, _free_addresses(), strict=False))
        self._count = 0

    @property
    def large(self) -> Size:
        """The state that most measurements are made with."""
        if self.quick:
            return Size(label="50 MB, 1 KiB values", keys=50_000, value_bytes=1024)
        return Size(label="1 GB, 1 KiB values", keys=1_000_000, value_bytes=1024)

    def state(self, size: Size) -> State:
        """Return a state of this size, which is made at the first call."""
        if size not in self._states:
            started_s = time.monotonic()
            self._states[size] = make_state(
                self.fresh_path(),
                NAMES,
                self._addresses,
                keys=size.keys,
                value_bytes=size.value_bytes,
            )
            self.say(f"made a state: {size.label}, in {time.monotonic() - started_s:.1f} s")
        return self._states[size]

    def forget(self, size: Size) -> None:
        """Give back the disk that a state takes."""
        state = self._states.pop(size, None)
        if state is not None:
            shutil.rmtree(state.folder)

    def fresh_path(self) -> Path:
        """Return a path in the folder at which nothing is."""
        self._count += 1
        return self.folder / f"{self._count}"

    @contextmanager
    def placed(self, state: State, *, log_entries: int = 0) -> Iterator[Path]:
        """Make a folder with the data directories of three servers that have `state`."""
        folder = self.fresh_path()
        folder.mkdir()
        try:
            for name in NAMES:
                state.place(folder / "data" / name, name, log_entries=log_entries)
            # What is written back later would disturb what is measured.
            os.sync()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def running(self, folder: Path, *, settings: str = "") -> Iterator[RunningCluster]:
        """Run the three servers whose data is in `folder`.

        Args:
            settings: lines for `defaults` of the cluster file.
        """
        cluster = RunningCluster(folder, settings=settings)
        try:
            members = [self._server(cluster, name) for name in NAMES]
            cluster.write_config(cluster.config_path, members)
            for server in members:
                cluster.write_config(server.config_path, members)
                server.start()
            wait_ready(cluster, within_s=LONG_WAIT_S)
            yield cluster
        finally:
            cluster.close()

    def _server(self, cluster: RunningCluster, name: str) -> Server:
        server = cluster.add_server(name, start=False)
        server.listen = server.address = self._addresses[name]
        return server

    @contextmanager
    def cluster(
        self, state: State, *, settings: str = "", log_entries: int = 0
    ) -> Iterator[RunningCluster]:
        """Run three servers that have `state`."""
        with (
            self.placed(state, log_entries=log_entries) as folder,
            self.running(folder, settings=settings) as cluster,
        ):
            yield cluster

    def load(
        self,
        cluster: RunningCluster,
        *,
        keys: int,
        clients: int,
        value_bytes: int = 256,
        writes: int = 0,
    ) -> Load:
        """Start clients that write to `cluster`; its leader is asked first."""
        leader = cluster.wait_leader()
        others = [cluster[name].address for name in NAMES if name != leader.name]
        return Load(
            self.fresh_path(),
            [leader.address, *others],
            clients=clients,
            keys=keys,
            value_bytes=value_bytes,
            writes=writes,
        )


def _free_addresses() -> Iterator[str]:
    """Return addresses of 127.0.0.1 on which nobody listens now."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield f"127.0.0.1:{port}"


def wait_ready(cluster: RunningCluster, *, within_s: float) -> Server:
    """Return the leader once all members of the three have applied all that it has."""

    def ready() -> Server | None:
        for name in NAMES:
            assert cluster[name].running, f"{name} has ended:\n{cluster[name].log}"
        leader = cluster.confirmed_leader()
        if leader is None:
            return None
        statuses = [cluster[name].status() for name in NAMES]
        if any(status is None for status in statuses):
            return None
        applied = {status.applied_index for status in statuses if status is not None}
        return leader if len(applied) == 1 else None

    return wait_for("all servers follow", ready, within_s=within_s)


def has_caught_up(server: Server, leader_status: StatusReply) -> bool:
    """Return whether a server has applied what the leader had committed."""
    status = server.status()
    return status is not None and status.applied_index >= leader_status.commit_index


def kill_and_start(cluster: RunningCluster, name: str, *, wipe_state: bool) -> float:
    """Kill a server, start it again, and return the seconds until it follows.

    Args:
        wipe_state: take its live database away meanwhile.
    """
    server = cluster[name]
    leader = cluster.wait_leader()
    assert leader.name != name
    leader_status = leader.status()
    assert leader_status is not None
    server.kill()
    if wipe_state:
        shutil.rmtree(server.data_dir / "state")
        os.sync()
    started_s = time.monotonic()
    server.start()
    wait_for(f"{name} follows", lambda: has_caught_up(server, leader_status), within_s=LONG_WAIT_S)
    return time.monotonic() - started_s


class Watcher:
    """Looks at something again and again in a thread, as a context manager."""

    def __init__(self, look: Callable[[], None], interval_s: float) -> None:
        self._look = look
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._look()


class TakingWatch:
    """When snapshots were being written, on any server of a cluster."""

    def __init__(self, cluster: RunningCluster) -> None:
        self._directories = [cluster[name].data_dir / "snapshots" for name in NAMES]
        self.windows_ns: list[tuple[int, int]] = []
        """Begin and end of each stretch in which a server wrote one."""
        self.began_ns = 0
        """Of the stretch that is going on; 0 if there is none."""
        self.first_ns = 0
        """When the first stretch began; 0 if none has."""

    def watch(self) -> Watcher:
        """Return what does the looking."""
        return Watcher(self._look, DISK_SECONDS)

    def _look(self) -> None:
        is_taking = any(
            name.startswith(TAKING_PREFIX) for path in self._directories for name in names(path)
        )
        if is_taking and not self.began_ns:
            self.began_ns = time.monotonic_ns()
            self.first_ns = self.first_ns or self.began_ns
        elif not is_taking and self.began_ns:
            self.windows_ns.append((self.began_ns, time.monotonic_ns()))
            self.began_ns = 0


def names(path: Path) -> list[str]:
    """Return the names in a directory, which may be missing."""
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


# --- memory and disk -----------------------------------------------------------------------------


def anonymous_bytes(pid: int) -> int:
    """Return the memory of a process that is no file's: RssAnon. 0 if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def children(pids: Sequence[int]) -> dict[int, list[int]]:
    """Return the processes that each of `pids` has started and that still run."""
    found: dict[int, list[int]] = {pid: [] for pid in pids}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) in found:
            found[int(fields[1])].append(int(name))
    return found


class MemoryWatch:
    """The highest RssAnon of servers and of the workers that they start, since `restart`."""

    def __init__(self, servers: dict[str, Server]) -> None:
        self._servers = dict(servers)
        self.peak_bytes: dict[str, int] = {}
        self.worker_peak_bytes: dict[str, int] = {}
        self._workers: dict[int, list[int]] = {}
        self._looks = 0

    def watch(self) -> Watcher:
        """Return what does the looking."""
        return Watcher(self._look, MEMORY_SECONDS)

    def add(self, server: Server) -> None:
        """Look at one more server."""
        self._servers = {**self._servers, server.name: server}

    def restart(self) -> None:
        """Forget the peaks so far."""
        self.peak_bytes, self.worker_peak_bytes = {}, {}

    def _look(self) -> None:
        servers = self._servers
        peaks, worker_peaks = self.peak_bytes, self.worker_peak_bytes
        # Workers live for seconds; to look for new ones costs a walk through all processes.
        if self._looks % 4 == 0:
            self._workers = children([server.pid for server in servers.values()])
        self._looks += 1
        for name, server in servers.items():
            peaks[name] = max(peaks.get(name, 0), anonymous_bytes(server.pid))
            for pid in self._workers.get(server.pid, ()):
                worker_peaks[name] = max(worker_peaks.get(name, 0), anonymous_bytes(pid))


def tree_bytes(path: Path) -> int:
    """Return the bytes that all files below `path` take on the disk."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


# --- adding a server -----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Added:
    """How `raftctl add` brought an empty server in."""

    start_ns: int
    end_ns: int
    lines: list[tuple[float, str]]
    """What it printed, each line with the seconds since its start."""

    @property
    def seconds(self) -> float:
        """From the start of the command to its end."""
        return (self.end_ns - self.start_ns) / 1e9


def add_server(
    cluster: RunningCluster, name: str, started: Callable[[Server], None] = lambda server: None
) -> Added:
    """Start an empty server and let `raftctl add` make it a voter.

    Args:
        started: told of the server before it is added.
    """
    cluster.start_blank(name)
    server = cluster[name]
    started(server)
    lines: list[tuple[float, str]] = []
    start_ns = time.monotonic_ns()
    # Its time-out is for time without progress.
    command = cluster.start_ctl("add", f"{name}={server.address}")
    assert command.stdout is not None
    assert command.stderr is not None

    def read_results() -> None:
        assert command.stdout is not None
        for line in command.stdout:
            lines.append(((time.monotonic_ns() - start_ns) / 1e9, line.rstrip()))

    reader = threading.Thread(target=read_results, daemon=True)
    reader.start()
    for line in command.stderr:
        lines.append(((time.monotonic_ns() - start_ns) / 1e9, line.rstrip()))
    reader.join()
    code = command.wait()
    end_ns = time.monotonic_ns()
    assert code == 0, f"raftctl add ended with {code}: {lines}"
    return Added(start_ns=start_ns, end_ns=end_ns, lines=lines)


def remove_server(cluster: RunningCluster, name: str) -> None:
    """Remove a server from the cluster, end it, and give its disk back."""
    outcome = cluster.ctl("remove", name, "--yes")
    assert outcome.code == 0, outcome.stderr
    cluster[name].wait_exit()
    cluster[name].wipe()
    del cluster.servers[name]
