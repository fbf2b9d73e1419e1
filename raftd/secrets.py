"""By what a server proves who it is and knows its clients: certificates and a password.

Both are read from files, at the start and again when it is told to. What they hold stands in no
log line and in no status.
"""

from __future__ import annotations

import datetime
import logging

from raftd.certificate_files import EXPIRY_WARNING_DAYS, days_left
from raftd.config import ServerConfig
from raftd.event_log import tell
from raftd.passwords import CurrentPassword
from raftd.tls import Credentials, CurrentCredentials

logger = logging.getLogger("raftd.secrets")


class Secrets:
    """The certificates and the password of one server."""

    def __init__(self, server: ServerConfig) -> None:
        """Read the files that the cluster file names.

        Raises:
            TlsProblem: one of them cannot be used.
        """
        self.credentials = None if server.tls is None else CurrentCredentials(server.tls, server.id)
        """None: nothing is encrypted."""
        self.password = CurrentPassword(server.redis_password_file)

    @property
    def expires_ms(self) -> int | None:
        """When its certificate ends, in milliseconds since 1970; None without one."""
        return None if self.credentials is None else self.credentials.now.expires_ms

    def announce(self, now_ms: int) -> None:
        """Say in the log whom the certificate names, and when it ends."""
        if self.credentials is not None:
            _announce(self.credentials.now, now_ms)

    def reload_certificates(self, server: ServerConfig, now_ms: int) -> str:
        """Use what the files of certificates hold now, for new connections.

        Returns:
            What was done, in words; empty where there was nothing to do.

        Raises:
            TlsProblem: they cannot be used; what was in force stays.
        """
        if self.credentials is None or server.tls is None:
            return ""
        self.credentials.now = self.credentials.load(server.tls)
        _announce(self.credentials.now, now_ms)
        return "new connections use the certificates that the files hold now"

    def reload_password(self, server: ServerConfig) -> str:
        """Use the password that its file holds now, for who has not said one yet.

        Returns:
            What was done, in words; empty where there was nothing to do.

        Raises:
            TlsProblem: the file cannot be used; what was in force stays.
        """
        if not self.password.load(server.redis_password_file):
            return ""
        if self.password.is_set:
            return "there is a new password for Redis clients"
        return "Redis clients need no password any more"


def _announce(credentials: Credentials, now_ms: int) -> None:
    days = days_left(credentials.expires_ms, now_ms)
    ends = datetime.datetime.fromtimestamp(credentials.expires_ms / 1000, datetime.UTC)
    level = logging.WARNING if days < EXPIRY_WARNING_DAYS else logging.INFO
    words = "certificate of %s, valid until %s (%d days)"
    tell(
        *(logger, "certificate", words, credentials.holder, f"{ends:%F}", days),
        level=level,
        expires_ms=credentials.expires_ms,
    )
