"""Certificates for tests: a CA in a folder, and whatever it signs."""

from __future__ import annotations

import datetime
from pathlib import Path

from raftctl.certificates import (
    CA_CERTIFICATE,
    CA_KEY,
    Authority,
    issue,
    load_authority,
    make_authority,
    write_pair,
)
from raftd.certificate_files import TlsFiles
from raftd.tls import ADMIN, APPLICATION, SERVER, Holder

HOSTS = ("127.0.0.1", "::1", "localhost")
YEAR = datetime.timedelta(days=365)
OVER = datetime.timedelta(minutes=-1)
"""Valid for so long: expired since a minute."""


class TestAuthority:
    """A CA, made in its own folder unless it is there."""

    __test__ = False

    def __init__(self, folder: Path, name: str = "CA of tests") -> None:
        self.folder = folder
        if not (folder / CA_KEY).exists():
            issued = make_authority(name, valid=10 * YEAR)
            write_pair(folder / CA_CERTIFICATE, folder / CA_KEY, issued, replace=False)
        self.ca = folder / CA_CERTIFICATE
        self._authority: Authority = load_authority(folder)

    def issue(
        self,
        role: str,
        name: str,
        *,
        hosts: tuple[str, ...] = HOSTS,
        valid: datetime.timedelta = YEAR,
        stem: str = "",
    ) -> TlsFiles:
        """Issue a certificate, in place of one that is there, and return its files."""
        stem = stem or name
        issued = issue(self._authority, Holder(role, name), hosts=hosts, valid=valid)
        files = TlsFiles(
            ca=self.ca, cert=self.folder / f"{stem}.pem", key=self.folder / f"{stem}.key"
        )
        write_pair(files.cert, files.key, issued, replace=True)
        return files

    def server(self, name: str, **options: object) -> TlsFiles:
        return self.issue(SERVER, name, **options)

    def admin(self, name: str = "admin", **options: object) -> TlsFiles:
        return self.issue(ADMIN, name, **options)

    def application(self, name: str = "orders-app", **options: object) -> TlsFiles:
        return self.issue(APPLICATION, name, **options)
