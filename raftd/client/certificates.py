"""The certificate that a client shows, and what goes wrong with certificates for who dials."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raftd.certificate_files import TlsFiles
from raftd.client.errors import ConnectionProblem
from raftd.tls import TlsProblem, check_server, client_context, explain

CERTIFICATE = "certificate"
"""Kind of the problem where one side does not accept the other's certificate, or shows none."""


def tls_context(
    ca: str | os.PathLike[str], cert: str | os.PathLike[str], key: str | os.PathLike[str]
) -> ssl.SSLContext:
    """Return what a client takes as `tls`: it shows a certificate, and believes those of a CA.

    The files are read now; a client that runs for long is made anew with a new certificate.

    Args:
        ca: PEM file with the certificates of those who sign those of servers.
        cert: PEM file with the certificate of an application or an administrator.
        key: PEM file with its private key, which not everybody may be able to read.

    Raises:
        raftd.tls.TlsProblem: the files cannot be used; the message says why.
    """
    files = TlsFiles(ca=Path(ca), cert=Path(cert), key=Path(key))
    return client_context(files.ca, files)


def certificate_problem(address: str, error: BaseException) -> ConnectionProblem:
    """Return what a handshake means that has failed."""
    if isinstance(error, ssl.SSLError):
        return ConnectionProblem(address, CERTIFICATE, f"TLS: {explain(error)}")
    return ConnectionProblem(address, CERTIFICATE, "TLS: it closed the connection")


def refused_certificate(address: str, error: BaseException) -> ConnectionProblem:
    """Return what it means that a connection ends before the server has said a word.

    With TLS 1.3 the handshake is over for who dials before the server has judged its certificate.
    """
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return ConnectionProblem(address, CERTIFICATE, f"TLS: {explain(error)}")
    reason = "it closed the connection after the TLS handshake, as a server does that does not "
    reason += "accept our certificate; its log says why"
    return ConnectionProblem(address, CERTIFICATE, reason)


def check_certificate(address: str, certificate: Mapping[str, Any] | None) -> None:
    """Check that a server has answered.

    Raises:
        ConnectionProblem: it was somebody else with a certificate of the same CA.
    """
    try:
        check_server(certificate)
    except TlsProblem as problem:
        raise ConnectionProblem(address, CERTIFICATE, f"TLS: {problem}") from None
