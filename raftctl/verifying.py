"""A file that is to be a backup: verified to its last byte, or refused in words for people."""

from __future__ import annotations

import shlex
from pathlib import Path

from raftctl.byte_progress import ByteProgress
from raftctl.errors import EXIT_FAILED, EXIT_USAGE, CliError
from raftd.offline import BackupFile, UnusableBackup, verify_backup

_ANOTHER = "take another copy of the file, or an older backup: `raftctl inspect FILE`"


def verified_backup(
    path: Path, progress: ByteProgress, *, so_far: str = "", needed_for: str = ""
) -> BackupFile:
    """Return what the backup at `path` holds, every byte of it verified.

    Args:
        progress: told how far it is; closed when this returns.
        so_far: what the caller has done until now, for the cause: `nothing was sent`.
        needed_for: what cannot be done with a damaged one, such as `restored`.

    Raises:
        CliError: it is no backup, damaged, or cannot be read.
    """
    try:
        return verify_backup(path, lambda done, total: progress.show("verifying", done, total))
    except UnusableBackup as problem:
        # What is drawn must not stand before the error.
        progress.close()
        raise _error(problem, so_far, needed_for) from None
    finally:
        progress.close()


def _error(problem: UnusableBackup, so_far: str, needed_for: str) -> CliError:
    path, quoted = problem.path, shlex.quote(str(problem.path))
    reason, code, exit_code = problem.reason, "not-a-backup", EXIT_FAILED
    match problem.kind:
        case "missing":
            message = f"there is no file {path}"
            reason = "FILE is a backup that `raftctl backup FILE` has written"
            folder = shlex.quote(str(path.absolute().parent))
            hint = f"look for it with `ls -l {folder}`; `raftctl backup FILE` writes one"
            code, exit_code = "usage", EXIT_USAGE
        case "directory":
            message = f"{path} is a directory"
            reason = "FILE is a backup, one file that `raftctl backup FILE` has written"
            hint = f"`raftctl inspect {quoted}` shows what it holds if it is that of a server"
            code, exit_code = "usage", EXIT_USAGE
        case "unreadable":
            message = f"{path} cannot be read"
            hint = f"`ls -l {quoted}` says who may; else look at the disk, or {_ANOTHER}"
            code = "unreadable"
        case "empty":
            message = f"{path} is empty"
            reason = "it has 0 bytes; a backup gets its name when all of it is there"
            hint = _ANOTHER
        case "not-a-backup":
            message = f"{path} is not a backup"
            hint = "name a file that `raftctl backup FILE` has written"
        case "newer":
            message = f"{path} was written by a newer release"
            hint = "use the programs of that release: `raftctl --version`"
            code = "newer-format"
        case _:
            message = f"{path} is a damaged backup"
            if needed_for:
                message += f" and cannot be {needed_for}"
            reason, hint, code = str(problem), _ANOTHER, "damaged"
    cause = f"{reason}; {so_far}" if so_far else reason
    return CliError(message, code=code, cause=cause, hint=hint, exit_code=exit_code)
