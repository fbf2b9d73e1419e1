"""The password of clients that show no certificate: read from a file, kept as a digest only."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from raftd.tls import TlsProblem, check_secret

PASSWORD_BYTES_MAX = 512
"""Longer than anybody's; what a client says to be compared with it is not looked at beyond."""


class CurrentPassword:
    """The password that is in force, or none: then nobody is asked for one."""

    def __init__(self, path: Path | None) -> None:
        """Read the file at `path`; None for no password.

        Raises:
            TlsProblem: the file cannot be read, others can read it, or it has no password.
        """
        self._digest = None if path is None else _digest(read_password(path))

    @property
    def is_set(self) -> bool:
        """Whether clients have to know one."""
        return self._digest is not None

    def load(self, path: Path | None) -> bool:
        """Use what the file holds now; return whether it is another one.

        Raises:
            TlsProblem: as above; what was in force stays.
        """
        digest = None if path is None else _digest(read_password(path))
        is_new = digest != self._digest
        self._digest = digest
        return is_new

    def matches(self, said: bytes) -> bool:
        """Return whether `said` is the password, in a time that does not tell how much of it is."""
        if self._digest is None or len(said) > PASSWORD_BYTES_MAX:
            return False
        return hmac.compare_digest(_digest(said), self._digest)


def _digest(password: bytes) -> bytes:
    return hashlib.sha256(password).digest()


def read_password(path: Path) -> bytes:
    """Return the first line of a password file.

    Raises:
        TlsProblem: it cannot be read, others can read it, or it has no password.
    """
    check_secret(path)
    try:
        with path.open("rb") as stream:
            line = stream.readline(PASSWORD_BYTES_MAX + 2)
    except OSError as error:
        raise TlsProblem(f"{path}: {(error.strerror or str(error)).lower()}") from None
    password = line.rstrip(b"\r\n")
    if not password:
        raise TlsProblem(f"{path}: its first line is empty, and should be the password")
    if len(password) > PASSWORD_BYTES_MAX:
        raise TlsProblem(f"{path}: the password is longer than {PASSWORD_BYTES_MAX} bytes")
    return password
