"""TLS: whose certificates there are, what stands in them, and the contexts that use them.

A certificate says who holds it by one URI among its subject alternative names,
`urn:raftd:ROLE:NAME`, where ROLE is server, admin or application. Whoever signs certificates with
the CA of a cluster decides by that what their holders may do (`raftd.roles`).

Contexts are made anew from the files at each reload; connections that exist keep theirs.
"""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from raftd.certificate_files import TlsFiles

SERVER = "server"
ADMIN = "admin"
APPLICATION = "application"
ROLES = (SERVER, ADMIN, APPLICATION)
URI_PREFIX = "urn:raftd:"
"""Before ROLE:NAME, in a certificate."""
HANDSHAKE_STEPS_MAX = 10
"""Turns of each side in a handshake within this process; it takes three."""

_HOLDER = re.compile(rf"{URI_PREFIX}(?P<role>[a-z]+):(?P<name>[A-Za-z0-9][A-Za-z0-9._@-]{{0,62}})")
_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_HOST = (62, 64)
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)
_WRONG_PURPOSE = 26
"""Of X509_V_ERR: x509_vfy.h of OpenSSL."""
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "BAD_RECORD_TYPE",
    "UNEXPECTED_MESSAGE",
    "RECORD_LAYER_FAILURE",
)
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants to see a certificate, and was shown none",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the CA of the certificate that it was shown",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate that it was shown has expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the certificate that it was shown",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the certificate that it was shown",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": (
        "the certificate that it was shown is not meant for this purpose"
    ),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it finds nothing in common with what we offer",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks other versions of TLS only",
    "UNSUPPORTED_PROTOCOL": "it speaks older versions of TLS only",
    "NO_SHARED_CIPHER": "it has no cipher in common with us",
}


class TlsProblem(Exception):
    """Certificates that cannot be used, or that say something else; the message says how."""


@attrs.frozen
class Holder:
    """Whom a certificate was issued to."""

    role: str
    """server, admin or application."""
    name: str
    """Of a server its name in the cluster; else whatever it was called."""

    def __str__(self) -> str:
        return f"{self.role} {self.name}"


@attrs.frozen(kw_only=True)
class Credentials:
    """What one reading of a server's files has come to."""

    native: ssl.SSLContext
    """For those who connect to it with the native protocol: TLS 1.3, with a certificate."""
    clients: ssl.SSLContext
    """For those who come with other protocols: TLS 1.2 at least, with a certificate."""
    clients_with_password: ssl.SSLContext
    """Likewise for those who may come without one, and have to know the password then."""
    members: ssl.SSLContext
    """To dial a server whose name is known: `check_server` compares it."""
    strangers: ssl.SSLContext
    """To dial a server of which only the address is known: it has to stand in the certificate."""
    holder: Holder
    expires_ms: int
    """Milliseconds since 1970."""


class CurrentCredentials:
    """The credentials that new connections use; those that exist keep what they began with."""

    def __init__(self, files: TlsFiles, name: str) -> None:
        """Read the files of the server `name`.

        Raises:
            TlsProblem: they cannot be used.
        """
        self._name = name
        self.now = load_credentials(files, name)

    def load(self, files: TlsFiles) -> Credentials:
        """Return what the files hold now, for `now`, which is not touched yet.

        Raises:
            TlsProblem: they cannot be used.
        """
        return load_credentials(files, self._name)


def holder_of(certificate: Mapping[str, Any] | None) -> Holder:
    """Return whom a certificate belongs to.

    Args:
        certificate: as `ssl.SSLSocket.getpeercert` returns it; it has been verified.

    Raises:
        TlsProblem: there is none, or it does not say.
    """
    if not certificate:
        raise TlsProblem("it shows no certificate")
    names = [
        value
        for kind, value in certificate.get("subjectAltName", ())
        if kind == "URI" and value.startswith(URI_PREFIX)
    ]
    if not names:
        raise TlsProblem(f"its certificate says no role: it has no URI {URI_PREFIX}ROLE:NAME")
    if len(names) > 1:
        raise TlsProblem(f"its certificate says several roles: {', '.join(sorted(names))}")
    match = _HOLDER.fullmatch(names[0])
    if match is None or match["role"] not in ROLES:
        raise TlsProblem(
            f"its certificate says {names[0]!r}, which is not {URI_PREFIX}ROLE:NAME with one of "
            f"the roles {', '.join(ROLES)}"
        )
    return Holder(match["role"], match["name"])


def uri_of(holder: Holder) -> str:
    """Return the URI of the certificate of `holder`.

    Raises:
        ValueError: its name cannot stand in one.
    """
    uri = f"{URI_PREFIX}{holder.role}:{holder.name}"
    if _HOLDER.fullmatch(uri) is None or holder.role not in ROLES:
        raise ValueError(
            f"{holder.name!r} cannot be the name in a certificate: 1 to 63 letters, digits, '.', "
            "'_', '@' and '-', the first one a letter or a digit"
        )
    return uri


def check_server(certificate: Mapping[str, Any] | None, name: str = "") -> None:
    """Check that the other side is a server, and the one called `name` if there is a name.

    Raises:
        TlsProblem: it is not.
    """
    holder = holder_of(certificate)
    if holder.role != SERVER:
        raise TlsProblem(f"its certificate is that of {holder}, not of a server")
    if name and holder.name != name:
        raise TlsProblem(f"its certificate is that of {holder}, not of {name}")


def check_secret(path: Path) -> None:
    """Check that nobody but owner and group can read the file at `path`.

    Raises:
        TlsProblem: others can, or it cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise TlsProblem(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if not stat.S_ISREG(mode):
        raise TlsProblem(f"{path} is not a file")
    if mode & stat.S_IRWXO:
        raise TlsProblem(
            f"{path} can be read by everybody on this machine (mode {mode & 0o777:04o}); "
            f"chmod 600 {path}"
        )


def server_context(
    files: TlsFiles, *, minimum: ssl.TLSVersion, certificate: ssl.VerifyMode
) -> ssl.SSLContext:
    """Return a context for connections that are accepted.

    Sessions are not resumed: that would pass over the certificate.

    Raises:
        TlsProblem: the files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.verify_mode = certificate
    _load(context, files.ca, files)
    return context


def client_context(ca: Path, own: TlsFiles | None, *, check_host: bool = True) -> ssl.SSLContext:
    """Return a context for connections to servers.

    Args:
        ca: those that servers' certificates have to be signed by.
        own: whose certificate is shown; None for none.
        check_host: whether the host that is dialled has to stand in the server's certificate.

    Raises:
        TlsProblem: the files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = check_host
    context.hostname_checks_common_name = False
    _load(context, ca, own)
    return context


def _load(context: ssl.SSLContext, ca: Path, own: TlsFiles | None) -> None:
    _readable(ca)
    try:
        context.load_verify_locations(cafile=ca)
    except (ssl.SSLError, ValueError):
        raise TlsProblem(f"{ca} holds no certificate in PEM form") from None
    if own is None:
        return
    check_secret(own.key)
    _readable(own.cert)
    _readable(own.key)
    try:
        context.load_cert_chain(own.cert, own.key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsProblem(f"{own.key} is not the key of {own.cert}") from None
        raise TlsProblem(
            f"{own.cert} and {own.key} are no certificate and key in PEM form"
        ) from None
    except _Encrypted:
        raise TlsProblem(f"{own.key} is encrypted, and nobody is here to be asked") from None


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted


def _readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise TlsProblem(f"{path}: {(error.strerror or str(error)).lower()}") from None


def load_credentials(files: TlsFiles, name: str) -> Credentials:
    """Read the files of the server `name`, and let it shake hands with itself.

    So everything that another server would find wrong is found before anybody is dialled.

    Raises:
        TlsProblem: they cannot be used, or are not those of that server.
    """
    native = server_context(files, minimum=ssl.TLSVersion.TLSv1_3, certificate=ssl.CERT_REQUIRED)
    members = client_context(files.ca, files, check_host=False)
    try:
        certificate = _shake_hands(native, members)
    except ssl.SSLCertVerificationError as error:
        raise TlsProblem(f"{files.cert}: {_unverified(error)} ({files.ca})") from None
    except ssl.SSLError as error:
        raise TlsProblem(f"{files.cert}: {explain(error)}") from None
    try:
        check_server(certificate, name)
    except TlsProblem as problem:
        raise TlsProblem(f"{files.cert}: {problem}") from None
    minimum = ssl.TLSVersion.TLSv1_2
    return Credentials(
        native=native,
        clients=server_context(files, minimum=minimum, certificate=ssl.CERT_REQUIRED),
        clients_with_password=server_context(files, minimum=minimum, certificate=ssl.CERT_OPTIONAL),
        members=members,
        strangers=client_context(files.ca, files),
        holder=holder_of(certificate),
        expires_ms=expiry_ms(certificate),
    )


def expiry_ms(certificate: Mapping[str, Any]) -> int:
    """Return when a certificate ends, in milliseconds since 1970."""
    return round(ssl.cert_time_to_seconds(certificate["notAfter"]) * 1000)


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> Mapping[str, Any]:
    """Connect two contexts in memory; return the certificate that the client has verified."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done = 0
    for step in range(HANDSHAKE_STEPS_MAX):
        try:
            sides[step % 2].do_handshake()
            done += 1
        except ssl.SSLWantReadError:
            done = 0
        if done == len(sides):
            break
    certificate = sides[0].getpeercert()
    assert certificate is not None, "a verified certificate is there"
    return certificate


def explain(error: BaseException) -> str:
    """Return in words what went wrong with TLS on a connection, of the other side as `it`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _unverified(error)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "it closed the connection"
    reason = getattr(error, "reason", None) or ""
    if is_no_tls(error):
        return "it does not speak TLS"
    return _REASONS.get(reason) or f"TLS failed: {reason.lower().replace('_', ' ') or error}"


def is_no_tls(error: BaseException) -> bool:
    """Return whether what came was something else than TLS."""
    return getattr(error, "reason", "") in _NO_TLS


def _unverified(error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "its certificate has expired"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet, or the clock of this machine is wrong"
    if code in _OTHER_HOST:
        # OpenSSL: Hostname mismatch, certificate is not valid for 'HOST'.
        _, _, host = error.verify_message.rpartition("for ")
        return f"its certificate is not one for {host.rstrip('.')}"
    if code in _UNKNOWN_ISSUER:
        return "its certificate is not signed by our CA"
    if code == _WRONG_PURPOSE:
        return "its certificate is not meant for this purpose (extended key usage)"
    return f"its certificate cannot be verified: {error.verify_message}"
