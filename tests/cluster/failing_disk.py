"""`raftd` on a disk that can be made to fail while it runs.

    python -m tests.cluster.failing_disk FAULT [ARGUMENT of raftd...]

Runs `raftd` in this process. On SIGUSR1 the *kernel* begins to fail what FAULT says, by a seccomp
filter: the call does nothing and returns the error, in every thread and every child from then on.

| FAULT | call | error |
|---|---|---|
| `sync-fails` | fsync, fdatasync | EIO |
| `disk-full` | pwrite64 | ENOSPC |
| `small-disk=BYTES` | none; the data directory is a disk of so many bytes from the start | |

Each call that fails is told on stderr, so that a test sees how often the process has tried. Where
the machine has no seccomp, the functions of `os` fail instead. A small disk is a tmpfs in a mount
namespace of this process, empty at the start and gone at the end. Others reach it through
/proc/PID/root. Where that is not allowed, no file may grow beyond a half of BYTES instead, and the
space that is free is what its files leave of BYTES. Either is told on stderr, too.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from raftd.__main__ import main as raftd
from raftd.config import load

NO_SECCOMP = "seccomp is not to be had, os functions fail instead of the kernel"
NO_SMALL_DISK = "no disk may be mounted, files are limited instead"
FAILED = "the kernel was asked for"
"""Begins what is told of a call that failed; the function and the file follow."""

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
"""The filter holds for the threads that run already."""
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
LOAD_WORD = 0x20
JUMP_IF_EQUAL = 0x15
RETURN = 0x06
"""Of the packet filter that seccomp runs: load from the call's description, compare, return."""
NUMBER_OFFSET, ARCHITECTURE_OFFSET = 0, 4
"""In the description of the call (linux/seccomp.h)."""

F_FRSIZE, F_BFREE, F_BAVAIL = 1, 3, 4
"""Where they are in what statvfs returns."""
STAT_BLOCK_BYTES = 512
"""Of `st_blocks`, whatever the file system has."""
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18


@attrs.frozen(kw_only=True)
class Architecture:
    """What system calls are called in the kernel's tables."""

    audit: int
    """From linux/audit.h."""
    seccomp: int
    numbers: dict[str, int]


ARCHITECTURES = {
    "x86_64": Architecture(
        audit=0xC000003E, seccomp=317, numbers={"pwrite": 18, "fsync": 74, "fdatasync": 75}
    ),
    "aarch64": Architecture(
        audit=0xC00000B7, seccomp=277, numbers={"pwrite": 68, "fsync": 82, "fdatasync": 83}
    ),
}
FAULTS: dict[str, tuple[tuple[str, ...], int]] = {
    "sync-fails": (("fsync", "fdatasync"), errno.EIO),
    "disk-full": (("pwrite",), errno.ENOSPC),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def program_of(architecture: Architecture, functions: tuple[str, ...], error: int) -> bytes:
    """Return the filter that fails `functions` with `error` and allows everything else."""
    fail = 4 + len(functions)
    instructions = [
        (LOAD_WORD, 0, 0, ARCHITECTURE_OFFSET),
        # Another architecture has other numbers: allowed.
        (JUMP_IF_EQUAL, 0, fail - 1 - 2, architecture.audit),
        (LOAD_WORD, 0, 0, NUMBER_OFFSET),
    ]
    for function in functions:
        to_failure = fail - len(instructions) - 1
        instructions.append((JUMP_IF_EQUAL, to_failure, 0, architecture.numbers[function]))
    instructions.append((RETURN, 0, 0, SECCOMP_RET_ALLOW))
    instructions.append((RETURN, 0, 0, SECCOMP_RET_ERRNO | error))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)


def let_kernel_fail(functions: tuple[str, ...], error: int) -> bool:
    """Install the filter; return whether this machine has one."""
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None or sys.platform != "linux":
        return False
    content = program_of(architecture, functions, error)
    buffer = ctypes.create_string_buffer(content, len(content))
    program = _Program(len(content) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    arguments = (SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(program))
    return bool(libc.syscall(architecture.seccomp, *arguments) == 0)


class Fault:
    """Waits for SIGUSR1, then fails calls; tells of each call that failed."""

    def __init__(self, functions: tuple[str, ...], error: int) -> None:
        self._functions = functions
        self._error = error
        self._by_hand = False

    def prepare(self) -> None:
        """Put an observer around the functions and wait for the signal."""
        for function in self._functions:
            setattr(os, function, self._observed(function, getattr(os, function)))
        signal.signal(signal.SIGUSR1, self._begin)

    def _begin(self, *_: object) -> None:
        if not let_kernel_fail(self._functions, self._error):
            self._by_hand = True
            print(NO_SECCOMP, file=sys.stderr, flush=True)

    def _observed(self, function: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def observed(descriptor: int, *arguments: Any) -> Any:
            try:
                if self._by_hand:
                    raise OSError(self._error, os.strerror(self._error))
                return call(descriptor, *arguments)
            except OSError as error:
                path = os.readlink(f"/proc/self/fd/{descriptor}")
                print(f"{FAILED} {function} {path}: {error.strerror}", file=sys.stderr, flush=True)
                raise

        return observed


def data_directory() -> Path:
    """Return the data directory that raftd will use."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--id", required=True)
    known, _ = parser.parse_known_args()
    chosen: Path | None = known.data_dir
    return chosen or load(known.config).servers[known.id].data_dir


def used_bytes(directory: Path) -> int:
    """Return how much the files below `directory` take of a disk."""
    sizes = 0
    for path in directory.rglob("*"):
        # One that is gone meanwhile takes nothing.
        with suppress(FileNotFoundError):
            if path.is_file():
                sizes += path.stat().st_blocks * STAT_BLOCK_BYTES
    return sizes


def limit_files(directory: Path, size_bytes: int) -> None:
    """Let `directory` look like a disk of `size_bytes`, and no file grow beyond a half of that."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes // 2, size_bytes // 2))
    ask_kernel = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        fields = list(ask_kernel(path))
        if Path(path).is_relative_to(directory):
            free_bytes = max(0, size_bytes - used_bytes(directory))
            fields[F_BFREE] = fields[F_BAVAIL] = free_bytes // fields[F_FRSIZE]
        return os.statvfs_result(fields)

    os.statvfs = statvfs


def mount_small_disk(directory: Path, size_bytes: int) -> None:
    """Put a tmpfs at `directory` that only this process and its children see.

    Raises:
        OSError: the machine allows it neither to root nor in a user namespace.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS if user == 0 else CLONE_NEWNS | CLONE_NEWUSER
    _check(libc.unshare(flags))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    # Nothing of it may be seen outside, where it would outlive the process.
    _check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    directory.mkdir(parents=True, exist_ok=True)
    options = f"size={size_bytes}".encode()
    _check(libc.mount(b"small", os.fsencode(directory), b"tmpfs", 0, options))


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def main() -> None:
    """Prepare the fault and become raftd."""
    name, _, amount = sys.argv.pop(1).partition("=")
    if name == "small-disk":
        directory = data_directory()
        try:
            mount_small_disk(directory, int(amount))
        except OSError:
            print(NO_SMALL_DISK, file=sys.stderr, flush=True)
            limit_files(directory, int(amount))
    else:
        Fault(*FAULTS[name]).prepare()
    raftd()


if __name__ == "__main__":
    main()
