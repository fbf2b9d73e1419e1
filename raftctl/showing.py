"""Which certificate raftctl shows, and which ones it believes: options, or what the file names."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from raftctl.errors import UsageProblem

if TYPE_CHECKING:
    import ssl

    from raftctl.cli import Context
    from raftctl.endpoints import Endpoints

ADMIN_CERTIFICATE, ADMIN_KEY = "admin.pem", "admin.key"
"""Beside the CA: what is shown where nothing else is named."""


def with_certificates(context: Context, endpoints: Endpoints) -> Endpoints:
    """Return `endpoints` with the certificates that are needed there, if any are.

    Raises:
        UsageProblem: one is needed and not there, or cannot be used.
    """
    ca, cert, key = context.cacert_path, context.cert_path, context.key_path
    named = ca or _ca_of_file(context, endpoints)
    if named is None and cert is None and key is None:
        return endpoints
    if named is None:
        raise _problem(
            context, "there is a certificate to show, but no CA to trust", "--cacert is missing"
        )
    if not named.exists():
        # Without its CA no certificate is of use: what would be beside it is not worth a word.
        raise _problem(
            context,
            "the CA to trust is not there",
            f"{named}: no such file or directory",
            hint="raftctl certs init --dir DIR",
        )
    if (cert is None) != (key is None):
        missing = "--cert" if cert is None else "--key"
        raise _problem(
            context, "a certificate and its key are needed together", f"{missing} is missing"
        )
    if cert is None or key is None:
        cert, key = named.parent / ADMIN_CERTIFICATE, named.parent / ADMIN_KEY
        absent = [str(path) for path in (cert, key) if not path.exists()]
        if absent:
            raise _problem(
                context,
                "these servers want to see a certificate, and there is none to show",
                f"neither --cert and --key were given, nor is there {' or '.join(absent)}",
            )
    return attrs.evolve(endpoints, tls=_context(context, named, cert, key))


def _ca_of_file(context: Context, endpoints: Endpoints) -> Path | None:
    """Return the CA that the cluster file names, also where other servers are dialled."""
    config = endpoints.config
    if config is None and context.config_path is not None:
        from raftctl.endpoints import load_cluster_file

        # Servers that are named are dialled however broken the file is, which names no CA then.
        with contextlib.suppress(UsageProblem):
            config = load_cluster_file(context.config_path)
    if config is None:
        return None
    for server in config.servers.values():
        if server.tls is not None:
            return server.tls.ca
    return None


def _context(context: Context, ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    from raftd.certificate_files import TlsFiles
    from raftd.tls import TlsProblem, client_context

    try:
        return client_context(ca, TlsFiles(ca=ca, cert=cert, key=key))
    except TlsProblem as problem:
        raise _problem(context, "the certificate cannot be used", str(problem)) from None


def _problem(
    context: Context,
    message: str,
    cause: str,
    *,
    hint: str = "raftctl certs issue admin --dir DIR",
) -> UsageProblem:
    return UsageProblem(
        message,
        code="certificate",
        cause=cause,
        hint=f"{hint}\n"
        + context.again("--cacert", "CA.pem", "--cert", "FILE.pem", "--key", "FILE.key"),
    )
