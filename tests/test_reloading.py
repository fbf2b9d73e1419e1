"""What is read again on SIGHUP, and what is left alone where something is wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from raftd.config import ClusterConfig, ServerConfig, load
from raftd.passwords import CurrentPassword
from raftd.reloading import Reloading
from raftd.secrets import Secrets
from raftd.tls import TlsProblem
from tests.certificates import OVER, TestAuthority

NOW_MS = 1_800_000_000_000


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "certs")


def write(folder: Path, more: str = "") -> ClusterConfig:
    file = folder / "cluster.yaml"
    file.write_text(
        "cluster: a\n"
        "defaults:\n"
        '  tls: {ca: certs/ca.pem, cert: "certs/{id}.pem", key: "certs/{id}.key"}\n'
        "  redis_password_file: password\n"
        f"{more}"
        "servers: {n1: {address: '127.0.0.1:7101'}}\n"
    )
    return load(file)


def write_password(folder: Path, password: str) -> None:
    file = folder / "password"
    file.write_text(f"{password}\nnot this line\n")
    file.chmod(0o600)


@pytest.fixture
def server(tmp_path: Path, authority: TestAuthority) -> ServerConfig:
    authority.server("n1")
    write_password(tmp_path, "first")
    return write(tmp_path).servers["n1"]


def reloading(cluster: ClusterConfig, secrets: Secrets) -> Reloading:
    parts = (
        lambda now: secrets.reload_certificates(now, NOW_MS),
        secrets.reload_password,
    )
    return Reloading(
        cluster, cluster.servers["n1"], parts, frozenset({"tls", "redis_password_file"})
    )


def test_new_files_are_in_force_after_a_reload(tmp_path, authority, server, caplog):
    caplog.set_level(logging.INFO, "raftd")
    secrets = Secrets(server)
    assert secrets.credentials is not None
    before = secrets.credentials.now
    authority.server("n1")
    write_password(tmp_path, "second")
    reloading(write(tmp_path), secrets).reload()
    assert secrets.credentials.now is not before
    assert not secrets.password.matches(b"first")
    assert secrets.password.matches(b"second")
    assert "new connections use the certificates" in caplog.text
    assert "there is a new password" in caplog.text
    assert "second" not in caplog.text


def test_a_broken_certificate_keeps_the_one_in_force_and_the_password_goes_on(
    tmp_path, authority, server, caplog
):
    secrets = Secrets(server)
    assert secrets.credentials is not None
    before = secrets.credentials.now
    authority.server("n1", valid=OVER)
    write_password(tmp_path, "second")
    reloading(write(tmp_path), secrets).reload()
    assert secrets.credentials.now is before
    assert "what was in force stays" in caplog.text
    assert "its certificate has expired" in caplog.text
    assert secrets.password.matches(b"second")


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("cluster: [", "the cluster file cannot be used"),
        ("cluster: a\nservers: {n2: {address: '127.0.0.1:1'}}", "does not name n1 any more"),
    ],
)
def test_a_broken_cluster_file_changes_nothing(tmp_path, server, caplog, text, logged):
    secrets = Secrets(server)
    cluster = write(tmp_path)
    write_password(tmp_path, "second")
    cluster.path.write_text(text)
    reloading(cluster, secrets).reload()
    assert secrets.password.matches(b"first")
    assert logged in caplog.text


def test_what_needs_a_restart_is_said(tmp_path, server, caplog):
    cluster = write(tmp_path)
    secrets = Secrets(server)
    write(tmp_path, "  heartbeat_interval: 20ms\n  zone: east\n")
    reloading(cluster, secrets).reload()
    assert "next start only: heartbeat_interval_ms, zone" in caplog.text


def test_the_end_of_a_certificate_is_a_warning_when_it_is_near(authority, server, caplog):
    caplog.set_level(logging.INFO, "raftd")
    secrets = Secrets(server)
    expires_ms = secrets.expires_ms
    assert expires_ms is not None
    secrets.announce(expires_ms - 31 * 86_400_000)
    assert caplog.records[-1].levelno == logging.INFO
    secrets.announce(expires_ms - 29 * 86_400_000)
    assert caplog.records[-1].levelno == logging.WARNING
    assert "certificate of server n1, valid until" in caplog.records[-1].getMessage()


# --- passwords ------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["word", "word\n", "word\r\n", "word\nmore\n"])
def test_the_first_line_is_the_password(tmp_path, content):
    file = tmp_path / "password"
    file.write_bytes(content.encode())
    file.chmod(0o600)
    password = CurrentPassword(file)
    assert password.is_set
    assert password.matches(b"word")
    assert not password.matches(b"Word")
    assert not password.matches(b"")
    assert not password.matches(b"word" * 1000)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("", 0o600, "its first line is empty"),
        ("\nhidden", 0o600, "its first line is empty"),
        ("x" * 600, 0o600, "longer than 512 bytes"),
        ("hidden", 0o644, "can be read by everybody"),
        (None, 0o600, "no such file"),
    ],
)
def test_a_file_that_is_no_secret_password_is_refused_without_repeating_it(
    tmp_path, content, mode, message
):
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    with pytest.raises(TlsProblem, match=message) as refused:
        CurrentPassword(file)
    assert not content or content.strip() not in str(refused.value)


def test_without_a_file_nobody_is_asked_and_nothing_matches():
    password = CurrentPassword(None)
    assert not password.is_set
    assert not password.matches(b"")
