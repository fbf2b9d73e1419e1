"""Processes that end with this one, and what Linux says that processes have used.

Whatever is started here is killed when its `Children` are closed, and by the kernel when this
process ends in any other way. For the latter, everything is started from the main thread.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from tests.benchmarks.bed import anonymous_bytes

END_SECONDS = 20.0
"""A killed process is gone within that, unless the machine is ill."""
HOLD = 'read -r go && exec "$@"'
"""A shell that becomes its arguments when it is told a line: it starts in a millisecond then."""
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
KERNEL_THREADS = 2
"""The process whose children are parts of the kernel; they work for everybody."""


class Children:
    """The processes of one run. A context manager."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(
        self,
        *arguments: str | Path,
        log_path: Path | None = None,
        piped: bool = False,
        held: bool = False,
    ) -> subprocess.Popen[str]:
        """Start a program, which is looked up as a shell does.

        Args:
            log_path: where its standard error goes, and its standard output unless `piped`;
                None: nowhere.
            piped: its standard input and output are pipes, and its standard error unless there
                is a `log_path`.
            held: it begins when a line is written to its standard input.
        """
        program = shutil.which(str(arguments[0]))
        assert program is not None, f"{arguments[0]} is not there"
        command = [program, *(str(argument) for argument in arguments[1:])]
        if held:
            command = ["/bin/sh", "-c", HOLD, "sh", *command]
        tied = [sys.executable, "-m", "raftctl.playground_child", str(os.getpid()), *command]
        with (log_path or Path(os.devnull)).open("ab") as log:
            process = subprocess.Popen(
                tied,
                stdin=subprocess.PIPE if piped or held else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else log,
                stderr=subprocess.PIPE if piped and log_path is None else log,
                text=True,
            )
        self._running.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """Kill a process, wait until it is gone, and close its pipes."""
        if process.poll() is None:
            process.kill()
        process.wait(END_SECONDS)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                _close(pipe)
        if process in self._running:
            self._running.remove(process)

    def close(self) -> None:
        """End all that still run."""
        for process in list(self._running):
            self.end(process)


def _close(pipe: object) -> None:
    try:
        pipe.close()  # type: ignore[attr-defined]
    except BrokenPipeError:
        # What was written last was never read, and need not be.
        return


@attrs.frozen(kw_only=True)
class Process:
    """What Linux says about a process."""

    parent: int
    ticks: int
    """Of itself and of the children that it has waited for."""


def _processes() -> dict[int, Process]:
    found: dict[int, Process] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(name)] = Process(
            parent=int(fields[1]), ticks=sum(int(field) for field in fields[11:15])
        )
    return found


def tree(processes: Mapping[int, Process], root: int) -> set[int]:
    """Return `root` and all that it has started, directly or not."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, ())
    return found


def tree_seconds(pids: Iterable[int]) -> list[float]:
    """Return the processor time of each process and of all that it has started.

    Time moves from a child to its parent when that waits for it, so the sum only grows.
    """
    processes = _processes()
    return [
        sum(processes[pid].ticks for pid in tree(processes, root) if pid in processes)
        / TICKS_PER_SECOND
        for root in pids
    ]


def foreign_seconds() -> float:
    """Return the processor time of all processes that are not ours."""
    processes = _processes()
    ours = tree(processes, os.getpid()) | tree(processes, KERNEL_THREADS)
    ticks = sum(process.ticks for pid, process in processes.items() if pid not in ours)
    return ticks / TICKS_PER_SECOND


@attrs.frozen(kw_only=True)
class Memory:
    """What a process has in memory."""

    resident_bytes: int
    """With the pages of files that it has mapped."""
    anonymous_bytes: int


def memory_of(pid: int) -> Memory:
    """Return the memory of a process; zeros if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pages = 0
    return Memory(
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"), anonymous_bytes=anonymous_bytes(pid)
    )


def installed(*programs: str) -> bool:
    """Return whether all these programs are found as a shell does."""
    return all(shutil.which(program) is not None for program in programs)


def first_line(arguments: Sequence[str]) -> str:
    """Return the first line of what a program prints."""
    printed = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=30)
    return printed.stdout.partition("\n")[0].strip()
