"""Becomes a server of the playground, tied to the life of the playground.

    python -m raftctl.playground_child PARENT_PID PROGRAM [ARGUMENT...]

Runs between fork and exec of a server, as a program of its own: code that runs in a forked copy of
a process with threads is not safe, and this one has to make a system call. It asks Linux to send
SIGKILL when the parent ends, however it ends, then becomes PROGRAM; the request survives exec.

Three traps of that request: it is tied to the *thread* that forked, so the playground starts its
servers from its main thread; it comes too late if the parent is dead already, so that is checked
afterwards; and it is lost when a program with other privileges is executed, which Python is not.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
EXIT_PARENT_GONE = 1
EXIT_NOT_STARTED = 127
"""As in shells: PROGRAM could not be executed."""


def die_with_parent(parent_pid: int) -> None:
    """Have this process killed when its parent ends; end now if the parent has ended already.

    On systems other than Linux only the second half is done.
    """
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"prctl: {os.strerror(error)}")
    if os.getppid() != parent_pid:
        raise SystemExit(EXIT_PARENT_GONE)


def main() -> None:
    """Tie this process to its parent and become the program."""
    parent_pid, program, *arguments = sys.argv[1:]
    die_with_parent(int(parent_pid))
    try:
        os.execv(program, [program, *arguments])
    except OSError as error:
        print(f"{program}: {error.strerror}", file=sys.stderr)
        raise SystemExit(EXIT_NOT_STARTED) from None


if __name__ == "__main__":
    main()
