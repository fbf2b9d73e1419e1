"""The playground: a cluster of real `raftd` processes on this machine, for one user at a time.

The foreground process owns everything: it starts the servers, from its main thread, which their
lives are tied to (`raftctl.playground_child`); it notices when one ends; and it ends them all. The
commands `playground kill` and `playground start` ask it through a unix socket, because a process
that they started themselves would not belong to it, and because only a parent knows for certain
that a process id still means its child.

In the user's runtime folder stand: the runtime file (JSON: config, pid, dir, control, servers with
id, address, http, redis and pid, null when stopped), through which raftctl finds the cluster; a
lock file, held for as long as the playground lives, however it ends, which tells a running one from
a stale file; and the socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import attrs

from raftctl import playground_child
from raftctl.errors import EXIT_UNREACHABLE, CliError, Refused, UsageProblem
from raftd.config_values import check_name

SERVERS_COUNT_MAX = 9
"""Processes on one machine; more show nothing that nine do not."""
PORT_FIRST = 7201
"""Beside the 7101 of the examples: a cluster that somebody runs from one is not mistaken for it."""
HTTP_PORT_FIRST = 7301
REDIS_PORT_FIRST = 7401
"""The first server of a machine that runs nothing else is at 7201, 7301 and 7401, the second at
7202, 7302 and 7402: who knows one knows all."""
PORTS_COUNT_MAX = 2000
"""Ports that are tried, up to 9200: below those that systems give to outgoing connections, since
a server that is killed must find its port free when it comes back."""
STOP_TIMEOUT_S = 5.0
"""How long servers may take to hand over and stop before they are killed."""
KILL_TIMEOUT_S = 5.0
"""A killed process ends at once, unless the kernel waits for a disk in its name."""
LOCK_ATTEMPTS = 5
LOCK_PAUSE_S = 0.02
CONTROL_TIMEOUT_S = 2.0
"""How long a client of the control socket may hold up the playground."""
CONTROL_REPLY_TIMEOUT_S = 10.0
"""Longer than anything that the playground does for one request."""
CONTROL_REQUEST_BYTES_MAX = 4096
CONTROL_PATH_BYTES_MAX = 100
"""Unix socket addresses are at most 107 bytes long."""
LOG_TAIL_BYTES = 8192
EXIT_REMOVED = 70
EXIT_STORAGE = 74

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CLUSTER_FILE = "cluster.yaml"
CLUSTER_NAME = "playground"


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened while the playground runs."""

    kind: str
    """started, exited, or removed: exited because the cluster has removed it."""
    server: str
    text: str
    code: int | None = None
    """The exit code; negative: the signal that ended it."""

    def document(self) -> dict[str, Any]:
        """Return the JSON line of this event."""
        return {"type": self.kind, "id": self.server, "code": self.code, "text": self.text}


@attrs.define(kw_only=True)
class Server:
    """One server of the playground, running or not."""

    id: str
    address: str
    http: str | None = None
    """HOST:PORT of its status page; None where a playground that was kept has none."""
    redis: str | None = None
    """HOST:PORT for clients of the Redis protocol; None as with `http`."""
    process: subprocess.Popen[bytes] | None = None
    asked_to_end: bool = False
    """Killed or stopped by us: its end is no news of a failure."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.process.pid if self.process is not None else None

    def document(self) -> dict[str, Any]:
        """Return what the runtime file and the ready line say about it."""
        return {
            "id": self.id,
            "address": self.address,
            "http": self.http,
            "redis": self.redis,
            "pid": self.pid,
        }

    @property
    def page(self) -> str:
        """Where a browser finds its status page; empty for nowhere."""
        return f"http://{self.http}/" if self.http else ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that it listens on."""
        return tuple(each for each in (self.address, self.http, self.redis) if each)


# --- the lock, ports, the cluster file ---------------------------------------------------------


def lock_path(runtime_file: Path) -> Path:
    """Return the lock that belongs to `runtime_file`."""
    return runtime_file.with_suffix(".lock")


def is_running(runtime_file: Path) -> bool:
    """Return whether a playground holds the lock of `runtime_file` right now."""
    try:
        descriptor = os.open(lock_path(runtime_file), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _take_lock(runtime_file: Path) -> int:
    """Return the descriptor of the lock; it is released when this process ends.

    Raises:
        Refused: another playground of this user runs.
    """
    folder = runtime_file.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Refused(
            f"{folder} belongs to somebody else",
            cause="the running playground is found through a file in it",
            hint="set XDG_RUNTIME_DIR to a folder of your own, then `raftctl playground`",
        )
    descriptor = os.open(lock_path(runtime_file), os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Perhaps only somebody who looks whether a playground runs; that takes no time.
            time.sleep(LOCK_PAUSE_S)
        else:
            return descriptor
    os.close(descriptor)
    other = read_runtime_file(runtime_file)
    where = f" (pid {other['pid']}, {other['dir']})" if other else ""
    raise Refused(
        f"a playground is already running{where}",
        code="playground-running",
        cause="there is one for each user, so that raftctl finds it without being told where",
        hint="use it: `raftctl status`; or end it with Ctrl-C in its terminal",
    )


def read_runtime_file(runtime_file: Path) -> dict[str, Any] | None:
    """Return what the playground says about itself, or None if nothing (whole) is there."""
    try:
        found = json.loads(runtime_file.read_bytes())
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and {"config", "pid", "dir", "servers"} <= found.keys()
    return found if known else None


def reserve_port(taken: Sequence[str] = (), first: int = PORT_FIRST) -> tuple[str, socket.socket]:
    """Return a free loopback address, and the reservation that keeps other playgrounds off it.

    Between finding a port free and a server listening on it passes the start of an interpreter.
    Other programs are kept out by hope; other playgrounds of the machine by a name in the abstract
    socket namespace of Linux, which goes away with this process or with the reservation.

    Args:
        taken: addresses that are not free, whatever listens there now.
        first: the port that is tried first.

    Raises:
        CliError: all ports are in use.
    """
    for port in range(first, PORT_FIRST + PORTS_COUNT_MAX):
        address = f"127.0.0.1:{port}"
        if address in taken:
            continue
        reservation = socket.socket(socket.AF_UNIX)
        try:
            if sys.platform == "linux":
                reservation.bind(f"\0raftd-playground-port-{port}")
            with socket.socket() as probe:
                # As the server does: what lingers of earlier connections is no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                probe.listen(1)
        except OSError:
            reservation.close()
            continue
        return address, reservation
    raise CliError(
        "no free port for a server",
        cause=f"all of {first} to {PORT_FIRST + PORTS_COUNT_MAX - 1} on 127.0.0.1 are in use",
        hint="end what uses them, then `raftctl playground`",
    )


def cluster_file_text(servers: Sequence[Server]) -> str:
    """Return the cluster file for `servers`."""
    lines = [
        f"cluster: {CLUSTER_NAME}",
        "defaults:",
        "  data_dir: data/{id}",
        "  heartbeat_interval: 50ms",
        "  election_timeout: 500ms",
        "servers:",
        *(f"  {_server_entry(server)}" for server in servers),
    ]
    return "\n".join(lines) + "\n"


def _server_entry(server: Server) -> str:
    keys = {"address": server.address, "http": server.http, "redis": server.redis}
    shown = ", ".join(f"{key}: {value}" for key, value in keys.items() if value)
    return f"{server.id}: {{{shown}}}"


def with_server(text: str, server: Server) -> str:
    """Return the cluster file `text` with one more server at the end of its `servers`.

    The file may have been edited or written anew by `config export`; the rest stays as it is.

    Raises:
        ValueError: there is no `servers` block to add to, or its name stands in it already.
    """
    lines = text.splitlines()
    start = next((at for at, line in enumerate(lines) if re.match(r"servers:\s*(#|$)", line)), None)
    if start is None:
        raise ValueError("it has no block `servers:`")
    end = start + 1
    indent = ""
    for at in range(start + 1, len(lines)):
        line = lines[at]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line.startswith(" "):
            break
        if not indent:
            indent = line[: len(line) - len(line.lstrip())]
        if re.match(rf"{indent}{re.escape(server.id)}:", line):
            raise ValueError(f"{server.id} stands in it already")
        end = at + 1
    added = f"{indent or '  '}{_server_entry(server)}"
    return "\n".join([*lines[:end], added, *lines[end:]]) + "\n"


def _write_whole(path: Path, text: str) -> None:
    """Put `text` at `path` in one step: a reader sees the old or the new file."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.replace(path)


# --- the servers -------------------------------------------------------------------------------


class Playground:
    """The servers, their folder and their control socket.

    Use it as a context manager in the main thread; on leaving it, every server has ended and,
    unless it is kept, the folder is gone. `program` is what runs a server: it is given
    `--config FILE --id ID`.
    """

    def __init__(
        self,
        *,
        runtime_file: Path,
        directory: Path | None,
        servers_count: int,
        keep: bool,
        report: Callable[[Event], None],
        program: Sequence[str] = (sys.executable, "-m", "raftd"),
    ) -> None:
        """Take the lock and lay out the folder; nothing runs yet.

        Raises:
            Refused: another playground of this user runs.
            UsageProblem: `directory` holds something else than a playground, or cannot be written.
        """
        self._runtime_file = runtime_file
        self._report = report
        self._program = tuple(program)
        self._lock = _take_lock(runtime_file)
        self._reservations: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._control_folder: Path | None = None
        self._stop_requests = 0
        self.servers: dict[str, Server] = {}
        self.resumed = False
        """Whether the folder held a playground before, which goes on now."""
        self.keep = keep
        try:
            self._created_directory = directory is None or not directory.exists()
            self.directory = self._lay_out(directory, servers_count)
        except OSError as error:
            self._close()
            raise UsageProblem(
                f"{directory or 'a temporary folder'} cannot hold a playground",
                cause=f"{error}; no server was started",
                hint="name a folder that you may write to: `raftctl playground --dir DIR`",
            ) from None
        except BaseException:
            self._close()
            raise

    @property
    def config(self) -> Path:
        """The cluster file."""
        return self.directory / CLUSTER_FILE

    def log_file(self, server_id: str) -> Path:
        """Return where the server writes its log."""
        return self.directory / "logs" / f"{server_id}.log"

    def __enter__(self) -> Playground:
        """Return the playground. From now on SIGTERM and SIGHUP interrupt as Ctrl-C does."""
        for number in STOP_SIGNALS:
            signal.signal(number, signal.default_int_handler)
        return self

    def __exit__(self, *_: object) -> None:
        """End every server and clean up."""
        self.stop()

    def _lay_out(self, directory: Path | None, servers_count: int) -> Path:
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="raftd-playground-"))
        directory = directory.absolute()
        if (directory / CLUSTER_FILE).exists():
            self._resume(directory / CLUSTER_FILE)
        elif directory.exists() and any(directory.iterdir()):
            raise UsageProblem(
                f"{directory} is not empty and holds no playground",
                cause=f"there is no {CLUSTER_FILE} in it; nothing was changed",
                hint="name another folder, or none: `raftctl playground`",
            )
        else:
            directory.mkdir(parents=True, exist_ok=True)
            for number in range(1, servers_count + 1):
                self._add_server(f"n{number}")
            text = cluster_file_text(tuple(self.servers.values()))
            (directory / CLUSTER_FILE).write_text(text)
        (directory / "logs").mkdir(exist_ok=True)
        return directory

    def _resume(self, config: Path) -> None:
        from raftd.config import load

        self.resumed = True
        self.keep = True
        for name, server in load(config).servers.items():
            self.servers[name] = Server(
                id=name, address=server.address, http=server.http, redis=server.redis
            )

    def _add_server(self, server_id: str) -> Server:
        taken = [address for each in self.servers.values() for address in each.addresses]
        found: list[str] = []
        for first in (PORT_FIRST, HTTP_PORT_FIRST, REDIS_PORT_FIRST):
            address, reservation = reserve_port([*taken, *found], first)
            found.append(address)
            self._reservations.append(reservation)
        server = Server(id=server_id, address=found[0], http=found[1], redis=found[2])
        self.servers[server_id] = server
        return server

    def start(self, server: Server) -> None:
        """Start a server that does not run. It is a process when this returns, and not yet ready.

        Only from the main thread: the server's life is tied to the thread that starts it.
        """
        assert server.process is None
        server.asked_to_end = False
        command = [
            # Isolated and without site packages: it needs neither, and starts faster.
            *(sys.executable, "-I", "-S", playground_child.__file__, str(os.getpid())),
            *self._program,
            *("--config", str(self.config), "--id", server.id),
        ]
        with self.log_file(server.id).open("ab") as log:
            server.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is for the playground, which then ends them in order.
                start_new_session=True,
            )

    def start_all(self) -> None:
        """Start every server."""
        for server in self.servers.values():
            self.start(server)

    def reap(self) -> list[Event]:
        """Return an event for each server that has ended since the last call."""
        events = []
        for server in self.servers.values():
            if server.process is None:
                continue
            code = server.process.poll()
            if code is not None:
                server.process = None
                events.append(self._exited(server, code))
        return events

    def _exited(self, server: Server, code: int) -> Event:
        text = explain_exit(server.id, code, killed=server.asked_to_end)
        if code > 0 and code != EXIT_REMOVED:
            last = last_line(self.log_file(server.id))
            text += f"{': ' + last if last else ''} (log: {self.log_file(server.id)})"
        kind = "removed" if code == EXIT_REMOVED else "exited"
        return Event(kind=kind, server=server.id, text=text, code=code)

    def stop(self) -> None:
        """End every server, SIGTERM first, then close everything and delete what is not kept.

        A second request to stop meanwhile cuts the wait short.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        self._unpublish()
        requests_before = self._stop_requests
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for server in self.servers.values():
            server.asked_to_end = True
            if server.process is not None:
                server.process.terminate()
        while any(server.process is not None for server in self.servers.values()):
            self.reap()
            if time.monotonic() > deadline or self._stop_requests > requests_before:
                break
            time.sleep(0.01)
        for server in self.servers.values():
            if server.process is not None:
                server.process.kill()
                server.process.wait(KILL_TIMEOUT_S)
                server.process = None
        if not self.keep:
            self._delete()
        self._close()

    def _delete(self) -> None:
        """Remove what the playground has put into its folder, and the folder if it made it."""
        if not self._created_directory:
            (self.directory / CLUSTER_FILE).unlink(missing_ok=True)
            shutil.rmtree(self.directory / "data", ignore_errors=True)
            shutil.rmtree(self.directory / "logs", ignore_errors=True)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _close(self) -> None:
        for reservation in self._reservations:
            reservation.close()
        self._reservations.clear()
        if self._lock >= 0:
            # The file stays: removing it would let two playgrounds lock two files of one name.
            os.close(self._lock)
            self._lock = -1

    # --- being found, and being asked ----------------------------------------------------------

    def publish(self) -> None:
        """Open the control socket and write the runtime file: raftctl finds the playground now."""
        path = self._runtime_file.with_suffix(".sock")
        if len(os.fsencode(path)) > CONTROL_PATH_BYTES_MAX:
            self._control_folder = Path(tempfile.mkdtemp(prefix="raftd-"))
            path = self._control_folder / "control.sock"
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(8)
        self._control_path = path
        self._write_runtime_file()

    def _write_runtime_file(self) -> None:
        found = {
            "config": str(self.config),
            "pid": os.getpid(),
            "dir": str(self.directory),
            "control": str(self._control_path),
            "servers": [server.document() for server in self.servers.values()],
        }
        _write_whole(self._runtime_file, json.dumps(found, indent=2) + "\n")

    def _unpublish(self) -> None:
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        self._runtime_file.unlink(missing_ok=True)
        self._control_path.unlink(missing_ok=True)
        if self._control_folder is not None:
            shutil.rmtree(self._control_folder, ignore_errors=True)

    def serve(self) -> None:
        """Answer requests and report servers that end, until SIGINT, SIGTERM or SIGHUP arrives.

        Afterwards the signal handlers stay, so that a second Ctrl-C hurries `stop` and does not
        break it off.
        """
        assert self._listener is not None
        with _woken_by_signals(self._on_signal) as wake, selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                self._report_exits()
                if self._stop_requests:
                    return
                for key, _ in selector.select():
                    if key.fileobj is wake:
                        wake.recv(4096)
                    else:
                        self._accept()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._stop_requests += 1

    def _report_exits(self) -> None:
        events = self.reap()
        if events:
            self._write_runtime_file()
        for event in events:
            self._report(event)

    def _accept(self) -> None:
        assert self._listener is not None
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(CONTROL_TIMEOUT_S)
            # A client that goes away or says nothing is its own problem, not the playground's.
            with contextlib.suppress(OSError):
                answer = self._answer(_read_line(connection))
                connection.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            command, server_id = str(request["command"]), str(request["id"])
        except (ValueError, TypeError, KeyError):
            return CliError(
                "not a request to a playground",
                cause="it is of another release",
                hint="raftctl playground --help",
            ).document()
        try:
            if command == "kill":
                return self._kill(server_id)
            if command == "start":
                return self._start(server_id)
            return CliError(
                f"a playground cannot {command}",
                cause="it is of another release: this one can kill and start",
                hint="raftctl playground --help",
            ).document()
        except CliError as error:
            return error.document()
        except OSError as error:
            return CliError(
                f"{server_id} could not be started",
                cause=str(error),
                hint=f"raftctl playground start {server_id}",
            ).document()

    def _kill(self, server_id: str) -> dict[str, Any]:
        server = self.servers.get(server_id)
        if server is None:
            raise Refused(
                f"the playground has no server {server_id}",
                cause=f"it has {', '.join(self.servers)}",
                hint="raftctl status",
            )
        self._report_exits()
        if server.process is None:
            raise Refused(
                f"{server_id} does not run",
                cause="it has ended before; nothing was changed",
                hint=f"raftctl playground start {server_id}",
            )
        found = server.document()
        server.asked_to_end = True
        # The process is our child and not yet waited for, so its id cannot mean another one.
        server.process.kill()
        server.process.wait(KILL_TIMEOUT_S)
        self._report_exits()
        return found

    def _start(self, server_id: str) -> dict[str, Any]:
        self._report_exits()
        server = self.servers.get(server_id)
        new = server is None
        if server is None:
            try:
                check_name(server_id)
            except ValueError as error:
                raise UsageProblem(
                    str(error),
                    cause="the servers of a playground are n1, n2 and so on; none was started",
                    hint="raftctl playground start --help",
                ) from None
            server = self._add_server(server_id)
            try:
                text = with_server(self.config.read_text(), server)
            except ValueError as error:
                del self.servers[server_id]
                raise Refused(
                    f"{server_id} cannot be put into {self.config}",
                    cause=str(error),
                    hint=f"raftctl config validate {self.config}",
                ) from None
            _write_whole(self.config, text)
        elif server.process is not None:
            raise Refused(
                f"{server_id} runs already",
                cause=f"it listens on {server.address} as process {server.pid}",
                hint=f"raftctl playground kill {server_id}",
            )
        self.start(server)
        self._write_runtime_file()
        words = "a new, blank server" if new else "started again"
        page = f", status page {server.page}" if server.page else ""
        self._report(
            Event(
                kind="started",
                server=server_id,
                text=f"{server_id}: {words} on {server.address}, pid {server.pid}{page}",
            )
        )
        return {**server.document(), "new": new}


def _read_line(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\n") and len(received) < CONTROL_REQUEST_BYTES_MAX:
        part = connection.recv(CONTROL_REQUEST_BYTES_MAX)
        if not part:
            break
        received += part
    return received


@contextlib.contextmanager
def _woken_by_signals(
    handler: Callable[[int, FrameType | None], None],
) -> Iterator[socket.socket]:
    """Handle the signals that matter, and yield a socket that is readable after each of them.

    Without it a signal that arrives just before the wait would be noticed only after it.
    """
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, handler)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        with reader, writer:
            yield reader
    finally:
        signal.set_wakeup_fd(before)


def explain_exit(server_id: str, code: int, *, killed: bool = False) -> str:
    """Return in words why a server has ended.

    Args:
        server_id: its name.
        code: its exit code; negative: the number of the signal that ended it.
        killed: whether the playground did it on request.
    """
    if code < 0:
        by = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        if killed:
            return f"{server_id} was killed; `raftctl playground start {server_id}` brings it back"
        return f"{server_id} was ended by {by}"
    if code == 0:
        return f"{server_id} has stopped"
    if code == EXIT_REMOVED:
        return f"{server_id} was removed from the cluster and has stopped"
    if code == EXIT_STORAGE:
        return f"{server_id} has stopped because of its storage (exit code {code})"
    return f"{server_id} has failed with exit code {code}"


def last_line(path: Path) -> str:
    """Return the last line of a log that says something, or nothing."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


# --- asking the playground -----------------------------------------------------------------------


def ask(runtime_file: Path, command: str, server_id: str) -> dict[str, Any]:
    """Have the running playground do `command`, kill or start, and return its answer.

    Raises:
        CliError: there is none, it does not answer, or it refuses.
    """
    found = read_runtime_file(runtime_file)
    if found is None or "control" not in found or not is_running(runtime_file):
        raise CliError(
            "no playground is running",
            code="no-playground",
            exit_code=EXIT_UNREACHABLE,
            cause="it would be the one of this user on this machine; nothing was sent",
            hint="start one in another terminal: `raftctl playground`",
        )
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(CONTROL_REPLY_TIMEOUT_S)
            connection.connect(found["control"])
            connection.sendall(json.dumps({"command": command, "id": server_id}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(connection.makefile("rb").readline())
    except (OSError, ValueError) as error:
        raise CliError(
            "the playground does not answer",
            code="no-playground",
            exit_code=EXIT_UNREACHABLE,
            cause=f"process {found['pid']}: {str(error) or type(error).__name__}",
            hint="look into its terminal; `raftctl status` asks its servers",
        ) from None
    if "error" in answer:
        refusal = answer["error"]
        raise Refused(
            refusal["message"],
            code=refusal["code"],
            cause=refusal["cause"],
            hint=refusal["hint"],
        )
    return answer
