"""Restarting one server by a command of the operator, and telling whether it was restarted.

The command belongs to the operator: it may call ssh, systemd or a script. It gets no terminal and
writes into a file, never into a pipe: what it leaves running in the background must neither keep
raftctl waiting nor die of a closed pipe when raftctl ends. It has a session of its own, so that
Ctrl-C reaches raftctl alone and never breaks off a restart half way. Only a command that takes too
long is ended, with all processes of its group; what has a session of its own lives on.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable

import attrs

from raftd.config_values import parse_address

POLL_S = 0.05
"""Between two looks at whether the command has ended: a restart takes seconds."""
GRACE_S = 2.0
"""Between SIGTERM and SIGKILL for a command that took too long: it may tidy up."""
OUTPUT_BYTES_SHOWN = 2_000
"""Of what a command that failed has written, its end."""
OUTPUT_LINES_SHOWN = 20
PLACEHOLDERS = ("id", "address", "host")
_PLACEHOLDER = re.compile(rf"\{{({'|'.join(PLACEHOLDERS)})\}}")
_WORD_IN_BRACES = re.compile(r"(?<![${])\{([A-Za-z_][A-Za-z_0-9]*)\}(?!\})")
"""What looks like a placeholder: not ${HOME}, {a,b}, {1..3}, { cmd; }, {} or {{.Name}}."""


def expand(command: str, name: str, address: str) -> str:
    """Return `command` for one server: `{id}`, `{address}` and `{host}` are replaced, quoted.

    Everything else in braces is the shell's.

    Args:
        name: of the server.
        address: HOST:PORT, from the configuration of the cluster.
    """
    host, _ = parse_address(address)
    values = {"id": name, "address": address, "host": host}
    return _PLACEHOLDER.sub(lambda found: shlex.quote(values[found[1]]), command)


def unknown_placeholders(command: str) -> tuple[str, ...]:
    """Return the single words in braces that are no placeholders, each once: `idd` of `x {idd}`.

    A blank makes one the shell's: `awk '{ print }'`.
    """
    words = dict.fromkeys(_WORD_IN_BRACES.findall(command))
    return tuple(word for word in words if word not in PLACEHOLDERS)


@attrs.frozen(kw_only=True)
class CommandEnd:
    """How a command ended."""

    code: int | None
    """Its exit code, negative for a signal; None if it took too long and was ended."""
    lives: bool = False
    """Whether it took too long and may not be killed by us: it runs as somebody else, by sudo."""
    output: str
    """The end of what it has written, stdout and stderr together."""

    @property
    def words(self) -> str:
        """How it ended, for people."""
        if self.code is None:
            if self.lives:
                return "did not end in time, and still runs: it may not be killed by this user"
            return "did not end in time and was killed with all that it had started"
        if self.code < 0:
            return f"was ended by signal {-self.code}"
        return f"ended with exit code {self.code}"


def run_command(
    command: str, name: str, address: str, *, timeout_ms: float, waiting: Callable[[], None]
) -> CommandEnd:
    """Run `command` for one server and return how it ended.

    `RAFTCTL_SERVER`, `RAFTCTL_ADDRESS` and `RAFTCTL_HOST` are in its environment.

    Args:
        command: for /bin/sh, with the placeholders of `expand`.
        name: of the server.
        address: HOST:PORT of the server.
        timeout_ms: after which its process group is ended: SIGTERM, then SIGKILL after `GRACE_S`;
            0 for never.
        waiting: called while it runs, several times a second.
    """
    host, _ = parse_address(address)
    environment = {
        **os.environ,
        "RAFTCTL_SERVER": name,
        "RAFTCTL_ADDRESS": address,
        "RAFTCTL_HOST": host,
    }
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", expand(command, name, address)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
        code = _wait(process, timeout_ms, waiting)
        lives = code is None and not _end_group(process)
        size = os.fstat(output.fileno()).st_size
        # It may still be written to, by what the command has left running.
        tail = os.pread(output.fileno(), OUTPUT_BYTES_SHOWN, max(0, size - OUTPUT_BYTES_SHOWN))
    lines = tail.decode(errors="replace").splitlines()
    return CommandEnd(code=code, lives=lives, output="\n".join(lines[-OUTPUT_LINES_SHOWN:]))


def _wait(
    process: subprocess.Popen[bytes], timeout_ms: float, waiting: Callable[[], None]
) -> int | None:
    give_up_s = time.monotonic() + timeout_ms / 1000 if timeout_ms else None
    while True:
        try:
            return process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            waiting()
        if give_up_s is not None and time.monotonic() >= give_up_s:
            return None


def _end_group(process: subprocess.Popen[bytes]) -> bool:
    """End a command and its children: without its shell they would go on behind our back.

    Returns:
        Whether that was allowed.
    """
    grace_ends_s = time.monotonic() + GRACE_S
    # The session was made for it: the group has the id of the shell as long as anybody is in it.
    try:
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < grace_ends_s:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(POLL_S)
        os.killpg(process.pid, signal.SIGKILL)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    process.wait()
    return True


@attrs.frozen(kw_only=True)
class Sighting:
    """A server's process as one answer shows it: it began within these two moments.

    On our monotonic clock. Two answers of one process always overlap, whatever the network did.
    """

    began_from_s: float
    began_until_s: float
    uptime_ms: int
    version: str

    @classmethod
    def of(cls, uptime_ms: int, version: str, *, asked_s: float, answered_s: float) -> Sighting:
        """Return what an answer says that was asked for and came at these moments."""
        # It was given in between, and the uptime is cut to whole milliseconds.
        return cls(
            began_from_s=asked_s - (uptime_ms + 1) / 1000,
            began_until_s=answered_s - uptime_ms / 1000,
            uptime_ms=uptime_ms,
            version=version,
        )

    def is_later_than(self, other: Sighting) -> bool:
        """Return whether this is certainly another process, which began after that of `other`."""
        return self.began_from_s > other.began_until_s


def was_restarted(*, uptime_ms: int, uptime_before_ms: int, elapsed_ms: int) -> bool:
    """Return whether a process that runs for `uptime_ms` was started since a moment of the past.

    For whoever was not there: clocks of two machines may differ, so it is believed only if the
    process is younger than the one before was, or than the time since then. A restart that is not
    recognised is done again, which does no harm.

    Args:
        uptime_ms: of the process that answers now.
        uptime_before_ms: of the one that answered at that moment; 0 if none did.
        elapsed_ms: since that moment, by the clock of whoever leads.
    """
    return uptime_ms < uptime_before_ms or uptime_ms <= elapsed_ms
