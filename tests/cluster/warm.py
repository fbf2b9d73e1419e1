"""Programs that start at once: copies of a process that has imported already what they need.

A raftd imports for a third of a second before it does anything, a raftctl for a sixth, and the
tests of this folder start some fifteen hundred of them. So there are a few *originals*: processes
that have imported both, and do nothing but fork. A copy gets arguments, environment and files of
its own and runs `python -m PROGRAM` from the first line on; it has its own pid, takes signals, is
killed like any other process, and dies with the tests.

What is different from `python -m`: nothing of ours is imported anew, so a program that changes a
module before others import it has to be started without this; /proc shows the command line of the
original; and copies of one original put sets of text in one order. There are as many originals as
most clusters have servers, and they take turns, so that the servers of a cluster differ in that.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from raftctl.playground_child import die_with_parent

ORIGINALS = 3
REQUEST_BYTES_MAX = 128 * 1024
"""Arguments and environment; more would not pass in one piece."""
AT_MAIN = ("raftd", "raftctl")
"""Packages whose `__main__` is what copies run, so that it is not imported before."""
REPORT = struct.Struct("<i")
"""What an original says of a copy: its pid, and in the end its exit code."""


def is_supported() -> bool:
    """Return whether this system has what it takes: packets with descriptors, and pidfds."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


# --- in the process of the tests --------------------------------------------------------------


class Originals:
    """The originals that take turns. Started at once; each is ready when it is ready."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._controls: list[socket.socket] = []
        for _ in range(ORIGINALS):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid())]
            with theirs:
                process = subprocess.Popen(
                    command,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    # Ctrl-C is for the tests, which then end what they have started.
                    start_new_session=True,
                )
            self._processes.append(process)
            self._controls.append(ours)
        self._turns = itertools.cycle(self._controls)

    def close(self) -> None:
        """End the originals, and with them every copy that still runs."""
        for control in self._controls:
            control.close()
        for process in self._processes:
            process.kill()
            process.wait()

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stdin: int,
        stdout: int,
        stderr: int,
    ) -> Copy:
        """Start `python -m program arguments...`, with these descriptors for its streams.

        Args:
            environment: all of it; by default that of this process as it is now.
        """
        request = {
            "program": program,
            "arguments": list(arguments),
            "environment": dict(os.environ if environment is None else environment),
            "folder": os.getcwd(),
        }
        message = json.dumps(request).encode()
        assert len(message) <= REQUEST_BYTES_MAX
        report, theirs = os.pipe()
        try:
            control = next(self._turns)
            socket.send_fds(control, [message], [stdin, stdout, stderr, theirs])
        finally:
            os.close(theirs)
        return Copy([program, *arguments], report)

    def start_with_pipes(
        self, program: str, arguments: Sequence[str], *, environment: Mapping[str, str]
    ) -> Copy:
        """Start `python -m program arguments...`, its streams being pipes of text."""
        stdin, to_stdin = os.pipe()
        from_stdout, stdout = os.pipe()
        from_stderr, stderr = os.pipe()
        try:
            copy = self.start(
                program,
                arguments,
                environment=environment,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
        finally:
            for descriptor in (stdin, stdout, stderr):
                os.close(descriptor)
        copy.stdin = os.fdopen(to_stdin, "w")
        copy.stdout, copy.stderr = os.fdopen(from_stdout), os.fdopen(from_stderr)
        return copy


class Copy:
    """A program that an original has started, with what the tests need of `subprocess.Popen`."""

    def __init__(self, args: list[str], report: int) -> None:
        self.args = args
        self.returncode: int | None = None
        """Of the program that has ended; negative if a signal has ended it."""
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        self._report = report
        self.pid = self._next_report()

    def _next_report(self) -> int:
        content = os.read(self._report, REPORT.size)
        assert content, "the original has ended"
        return int(REPORT.unpack(content)[0])

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code when it has ended.

        Raises:
            subprocess.TimeoutExpired: it runs longer than `timeout` seconds.
        """
        if self.returncode is None:
            ready, _, _ = select.select([self._report], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = self._next_report()
            os.close(self._report)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, given: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Send it `given`, which it reads or which a pipe holds; return what it prints to its end.

        Raises:
            subprocess.TimeoutExpired: it runs longer than `timeout` seconds.
        """
        assert self.stdin is not None
        assert self.stdout is not None
        assert self.stderr is not None
        printed: dict[IO[str], str] = {}

        def read(stream: IO[str]) -> None:
            with stream:
                printed[stream] = stream.read()

        streams = (self.stdout, self.stderr)
        readers = [threading.Thread(target=read, args=(one,), daemon=True) for one in streams]
        for reader in readers:
            reader.start()
        # If it ends without reading all of it, that is its own business.
        with contextlib.suppress(BrokenPipeError), self.stdin as stdin:
            stdin.write(given)
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return printed[self.stdout], printed[self.stderr]


# --- in an original ---------------------------------------------------------------------------


def import_programs() -> None:
    """Import whatever raftd and raftctl may import, also what they do only when it is needed."""
    for name in AT_MAIN:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)
    # What they import within functions.
    for name in ("cattrs.preconf.msgpack", "yaml"):
        importlib.import_module(name)


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Make copies until the tests have ended. In a copy: return what it is asked to run."""
    with control, selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _bury(*key.data)
                    continue
                message, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES_MAX, 4)
                if not message:
                    return None
                *streams, report = descriptors
                pid = os.fork()
                if pid == 0:
                    for copied in list(selector.get_map().values()):
                        if copied.data is not None:
                            os.close(copied.fd)
                            os.close(copied.data[1])
                    os.close(report)
                    _take_streams(streams)
                    found: dict[str, Any] = json.loads(message)
                    return found
                for stream in streams:
                    os.close(stream)
                os.write(report, REPORT.pack(pid))
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, report))


def _take_streams(descriptors: Sequence[int]) -> None:
    """Make `descriptors` stdin, stdout and stderr of this process, as Python does at its start."""
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    sys.stderr = sys.__stderr__ = stderr


def _bury(pid: int, report: int) -> None:
    """Take the exit code of a copy that has ended, and pass it on to whoever still listens."""
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(report, REPORT.pack(os.waitstatus_to_exitcode(status)))
    os.close(report)


def main() -> None:
    """Be an original; return in each copy when its program has returned."""
    descriptor, tests_pid = map(int, sys.argv[1:])
    die_with_parent(tests_pid)
    import_programs()
    # What never changes stays in memory that all copies share.
    gc.collect()
    gc.freeze()
    original_pid = os.getpid()
    request = serve(socket.socket(fileno=descriptor))
    if request is None:
        return
    gc.unfreeze()
    die_with_parent(original_pid)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [request["program"], *request["arguments"]]
    runpy.run_module(request["program"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
