"""Certificates: whom they name, what is wrong with files, and what contexts refuse."""

from __future__ import annotations

import datetime
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from raftd.certificate_files import DAY_MS, TlsFiles, days_left
from raftd.tls import (
    ADMIN,
    APPLICATION,
    SERVER,
    CurrentCredentials,
    Holder,
    TlsProblem,
    check_secret,
    check_server,
    explain,
    holder_of,
    load_credentials,
    uri_of,
)
from tests.certificates import OVER, TestAuthority


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("ca"))


def certificate_with(*names: tuple[str, str]) -> dict[str, object]:
    return {"subjectAltName": names}


# --- whom a certificate names ---------------------------------------------------------------


@pytest.mark.parametrize("role", [SERVER, ADMIN, APPLICATION])
def test_the_uri_says_role_and_name(role):
    holder = Holder(role, "orders-1.example_org@x")
    assert holder_of(certificate_with(("DNS", "h"), ("URI", uri_of(holder)))) == holder


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([("DNS", "n1")], "says no role"),
        ([("DNS", "urn:raftd:server:n1")], "says no role"),
        ([("URI", "spiffe://x/server/n1")], "says no role"),
        ([("URI", "urn:raftd:root:n1")], "which is not"),
        ([("URI", "urn:raftd:server:")], "which is not"),
        ([("URI", "urn:raftd:server:n1/../n2")], "which is not"),
        ([("URI", "urn:raftd:server:n1\n")], "which is not"),
        ([("URI", "urn:raftd:Server:n1")], "which is not"),
        ([("URI", "urn:raftd:admin:a"), ("URI", "urn:raftd:server:n1")], "says several roles"),
    ],
)
def test_a_certificate_that_does_not_say_one_role_has_none(names, message):
    with pytest.raises(TlsProblem, match=message):
        holder_of(certificate_with(*names))


@pytest.mark.parametrize("certificate", [None, {}])
def test_no_certificate_has_no_holder(certificate):
    with pytest.raises(TlsProblem, match="shows no certificate"):
        holder_of(certificate)


@pytest.mark.parametrize("name", ["", "a b", "n1:n2", "-n1", "ü", "a" * 64])
def test_a_name_that_does_not_fit_is_no_uri(name):
    with pytest.raises(ValueError, match="cannot be the name"):
        uri_of(Holder(SERVER, name))


def test_only_a_server_of_the_name_is_the_server():
    certificate = certificate_with(("URI", "urn:raftd:server:n1"))
    check_server(certificate, "n1")
    check_server(certificate)
    with pytest.raises(TlsProblem, match="that of server n1, not of n2"):
        check_server(certificate, "n2")
    with pytest.raises(TlsProblem, match="that of admin n1, not of a server"):
        check_server(certificate_with(("URI", "urn:raftd:admin:n1")), "n1")


# --- files ----------------------------------------------------------------------------------


def test_a_good_pair_is_loaded_with_its_expiry(authority):
    credentials = load_credentials(authority.server("n1"), "n1")
    assert credentials.holder == Holder(SERVER, "n1")
    now_ms = time.time_ns() // 1_000_000
    assert days_left(credentials.expires_ms, now_ms) in (364, 365)


def test_days_are_counted_down_to_less_than_none():
    assert days_left(3 * DAY_MS, 0) == 3
    assert days_left(3 * DAY_MS - 1, 0) == 2
    assert days_left(0, 1) == -1


def broken(authority: TestAuthority, folder: Path, how: str) -> TlsFiles:
    """Return files of the server n1 with which something is wrong."""
    good = authority.server("n1")
    other = TestAuthority(folder / "other", "another CA")
    match how:
        case "expired":
            return authority.server("n1", stem="expired", valid=OVER)
        case "foreign":
            files = other.server("n1")
            return TlsFiles(ca=good.ca, cert=files.cert, key=files.key)
        case "another server":
            return authority.server("n2")
        case "an application":
            return authority.application("n1", stem="app")
        case "key of another":
            return TlsFiles(ca=good.ca, cert=good.cert, key=authority.server("n3").key)
        case "no file":
            return TlsFiles(ca=good.ca, cert=folder / "none.pem", key=good.key)
        case "no pem":
            file = folder / "ca.pem"
            file.write_text("nothing")
            return TlsFiles(ca=file, cert=good.cert, key=good.key)
        case "open key":
            key = folder / "open.key"
            key.write_bytes(good.key.read_bytes())
            key.chmod(0o644)
            return TlsFiles(ca=good.ca, cert=good.cert, key=key)
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("expired", "expired.pem: its certificate has expired"),
        ("foreign", "n1.pem: its certificate is not signed by our CA"),
        ("another server", "that of server n2, not of n1"),
        ("an application", "its certificate is not meant for this purpose"),
        ("key of another", "n3.key is not the key of"),
        ("no file", "none.pem: no such file or directory"),
        ("no pem", "holds no certificate in PEM form"),
        ("open key", "can be read by everybody on this machine"),
    ],
)
def test_files_that_others_would_refuse_are_refused_at_once(authority, tmp_path, how, message):
    with pytest.raises(TlsProblem, match=message):
        load_credentials(broken(authority, tmp_path, how), "n1")


def test_an_encrypted_key_is_refused_without_asking_anybody(authority, tmp_path):
    files = authority.server("n1")
    encrypted = tmp_path / "n1.key"
    command = ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:x"]
    subprocess.run([*command, "-in", files.key, "-out", encrypted], check=True)
    encrypted.chmod(0o600)
    with pytest.raises(TlsProblem, match="is encrypted, and nobody is here to be asked"):
        load_credentials(TlsFiles(ca=files.ca, cert=files.cert, key=encrypted), "n1")


def test_a_broken_file_does_not_touch_what_is_in_force(authority, tmp_path):
    current = CurrentCredentials(authority.server("n1"), "n1")
    before = current.now
    with pytest.raises(TlsProblem):
        current.load(broken(authority, tmp_path, "expired"))
    assert current.now is before


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
def test_a_secret_of_owner_and_group_is_one(tmp_path, mode):
    file = tmp_path / "secret"
    file.write_text("x")
    file.chmod(mode)
    check_secret(file)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601])
def test_a_secret_of_everybody_is_none(tmp_path, mode):
    file = tmp_path / "secret"
    file.write_text("x")
    file.chmod(mode)
    with pytest.raises(TlsProblem, match="chmod 600"):
        check_secret(file)


# --- what contexts demand -------------------------------------------------------------------


def test_old_versions_of_tls_and_resumed_sessions_are_not_offered(authority):
    credentials = load_credentials(authority.server("n1"), "n1")
    assert credentials.native.minimum_version == ssl.TLSVersion.TLSv1_3
    assert credentials.members.minimum_version == ssl.TLSVersion.TLSv1_3
    for context in (credentials.native, credentials.clients, credentials.clients_with_password):
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert context.num_tickets == 0
        assert context.options & ssl.OP_NO_TICKET
        assert context.options & ssl.OP_NO_RENEGOTIATION
    assert credentials.native.verify_mode == credentials.clients.verify_mode == ssl.CERT_REQUIRED
    assert credentials.clients_with_password.verify_mode == ssl.CERT_OPTIONAL
    assert credentials.strangers.check_hostname
    assert not credentials.strangers.hostname_checks_common_name


def test_an_unknown_reason_is_told_as_it_is():
    error = ssl.SSLError(1, "[SSL: ODD_THING] odd thing")
    assert "odd thing" in explain(error)


def test_a_certificate_made_with_openssl_as_the_readme_says_is_one(tmp_path):
    """The recipe of the README, so that it stays true."""
    (tmp_path / "n1.ext").write_text(
        "subjectAltName=DNS:n1.example.org,IP:127.0.0.1,URI:urn:raftd:server:n1\n"
        "extendedKeyUsage=serverAuth,clientAuth\n"
    )
    for line in (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 "
        "-subj /CN=CA -keyout ca.key -out ca.pem",
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=n1 "
        "-keyout n1.key -out n1.csr",
        "openssl x509 -req -in n1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 "
        "-extfile n1.ext -out n1.pem",
    ):
        subprocess.run(line.split(), cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "n1.key").chmod(0o600)
    files = TlsFiles(ca=tmp_path / "ca.pem", cert=tmp_path / "n1.pem", key=tmp_path / "n1.key")
    assert load_credentials(files, "n1").holder == Holder(SERVER, "n1")


def test_the_ca_cannot_be_outlived(authority):
    from raftctl.certificates import CertificateError

    with pytest.raises(CertificateError, match="the CA itself ends on"):
        authority.server("n1", valid=datetime.timedelta(days=4000))
