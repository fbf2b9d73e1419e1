"""A small certificate authority: one key that signs who is a server, an admin, an application.

Everything here needs the package cryptography; only the commands that make or show certificates
load it.

Source of the form of certificates: RFC 5280.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raftd.tls import SERVER, URI_PREFIX, Holder, uri_of

CA_CERTIFICATE = "ca.pem"
CA_KEY = "ca.key"
KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644
BACKDATED = datetime.timedelta(minutes=5)
"""A certificate begins so long ago: the clocks of other machines may be behind."""
PEM_BYTES_MAX = 1024 * 1024
"""Of a file with certificates; a longer one is something else."""


class CertificateError(Exception):
    """Nothing was made, or nothing can be read; the message says why."""


@attrs.frozen(kw_only=True)
class Authority:
    """A CA with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@attrs.frozen(kw_only=True)
class Issued:
    """A certificate and its key, as they stand in files."""

    certificate_pem: bytes
    key_pem: bytes


@attrs.frozen(kw_only=True)
class Shown:
    """What a certificate says."""

    subject: str
    issuer: str
    role: str
    """server, admin or application; ca of one that signs others; empty if it says none."""
    name: str
    hosts: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime


def make_authority(name: str, *, valid: datetime.timedelta) -> Issued:
    """Return a new CA: its own certificate and its key (ECDSA P-256).

    Args:
        name: what it is called.
        valid: for how long.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, subject, key.public_key(), valid)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(certificate_pem=_pem(certificate), key_pem=_key_pem(key))


def issue(
    authority: Authority, holder: Holder, *, hosts: Sequence[str], valid: datetime.timedelta
) -> Issued:
    """Return a certificate for `holder` with a new key.

    Args:
        hosts: names and addresses under which others dial it; of a server at least one.
        valid: for how long; not longer than the CA itself.

    Raises:
        CertificateError: the CA ends before, or the name cannot stand in a certificate.
    """
    try:
        uri = uri_of(holder)
    except ValueError as error:
        raise CertificateError(str(error)) from None
    ends = authority.certificate.not_valid_after_utc
    if _now() + valid > ends:
        raise CertificateError(
            f"the CA itself ends on {ends:%Y-%m-%d}, in {(ends - _now()).days} days"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, holder.name)])
    names: list[x509.GeneralName] = [_general_name(host) for host in hosts]
    names.append(x509.UniformResourceIdentifier(uri))
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if holder.role == SERVER:
        # It dials the other servers, too.
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    of_issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, authority.certificate.subject, key.public_key(), valid)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(of_issuer, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Issued(certificate_pem=_pem(certificate), key_pem=_key_pem(key))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    valid: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + valid)
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


# --- files ------------------------------------------------------------------------------------


def load_authority(folder: Path) -> Authority:
    """Return the CA whose files are in `folder`.

    Raises:
        CertificateError: they are not there, or are no CA.
    """
    certificate_path, key_path = folder / CA_CERTIFICATE, folder / CA_KEY
    try:
        certificate = x509.load_pem_x509_certificate(_read(certificate_path))
        key = serialization.load_pem_private_key(_read(key_path), password=None)
    except (ValueError, TypeError):
        raise CertificateError(
            f"{certificate_path} and {key_path} are no certificate and key in PEM form"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{key_path} is not an elliptic curve key, as raftctl makes them")
    if certificate.public_key() != key.public_key():
        raise CertificateError(f"{key_path} is not the key of {certificate_path}")
    return Authority(certificate=certificate, key=key)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(PEM_BYTES_MAX)
    except OSError as error:
        raise CertificateError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def write_pair(certificate: Path, key: Path, issued: Issued, *, replace: bool) -> None:
    """Write a certificate and its key, which nobody else can read. Each file is whole or not there.

    Args:
        replace: whether files that are there are replaced.

    Raises:
        CertificateError: one of them is there, or the folder cannot be written to.
    """
    if not replace:
        there = [str(path) for path in (certificate, key) if path.exists()]
        if there:
            raise CertificateError(f"{' and '.join(there)} would be overwritten")
    try:
        certificate.parent.mkdir(parents=True, exist_ok=True)
        pairs = (
            (key, issued.key_pem, KEY_MODE),
            (certificate, issued.certificate_pem, CERTIFICATE_MODE),
        )
        for path, content, mode in pairs:
            _write_new(path.with_name(f".{path.name}.new"), content, mode)
        for path, _, _ in pairs:
            path.with_name(f".{path.name}.new").replace(path)
    except OSError as error:
        raise CertificateError(
            f"{error.filename or certificate.parent}: {(error.strerror or str(error)).lower()}"
        ) from None


def _write_new(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    # Never there with a wider mode, not even for a moment.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


# --- what certificates say ----------------------------------------------------------------------


def show(path: Path) -> list[Shown]:
    """Return what the certificates in the file at `path` say, in their order.

    Raises:
        CertificateError: there are none.
    """
    try:
        return [_shown(each) for each in x509.load_pem_x509_certificates(_read(path))]
    except ValueError:
        raise CertificateError(f"{path} holds no certificate in PEM form") from None


def _shown(certificate: x509.Certificate) -> Shown:
    hosts: list[str] = []
    uris: list[str] = []
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts += names.get_values_for_type(x509.DNSName)
        hosts += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
        uris += names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        pass
    ours = [uri.removeprefix(URI_PREFIX) for uri in uris if uri.startswith(URI_PREFIX)]
    role, _, name = ours[0].partition(":") if len(ours) == 1 else ("", "", "")
    if not role and _signs(certificate):
        role = "ca"
    return Shown(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        role=role,
        name=name,
        hosts=tuple(hosts),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _signs(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
