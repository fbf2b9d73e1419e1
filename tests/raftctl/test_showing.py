"""Which certificate raftctl shows, whom it believes, and what it says where that does not fit."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftctl.cli import main
from raftd.certificate_files import TlsFiles
from raftd.protocol import ErrorReply, GetReply, Refusal
from raftd.tls import ADMIN, SERVER, Holder, server_context
from tests.certificates import OVER, TestAuthority
from tests.raftctl.speaking_servers import SpeakingServer, speaking_servers

pytestmark = pytest.mark.usefixtures("no_surroundings")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    made = TestAuthority(tmp_path_factory.mktemp("ca"))
    made.admin()
    return made


@pytest.fixture
def foreign(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("foreign"), "another CA")


def context_of(files: TlsFiles) -> ssl.SSLContext:
    return server_context(
        files, minimum=ssl.TLSVersion.TLSv1_3, certificate=ssl.VerifyMode.CERT_REQUIRED
    )


@pytest.fixture
def server(authority: TestAuthority) -> Iterator[SpeakingServer]:
    speaking = SpeakingServer(tls=context_of(authority.server("n1")))
    speaking.answer = lambda request: GetReply(found=True, value=b"found")
    yield speaking
    speaking.close()


def write_file(server: SpeakingServer, files: TlsFiles) -> None:
    Path("cluster.yaml").write_text(
        "cluster: a\n"
        "servers:\n"
        f"  n1: {{address: '{server.address}', "
        f"tls: {{ca: '{files.ca}', cert: '{files.cert}', key: '{files.key}'}}}}\n"
    )


def flags(files: TlsFiles) -> list[str]:
    return ["--cacert", str(files.ca), "--cert", str(files.cert), "--key", str(files.key)]


def test_with_the_cluster_file_the_certificate_beside_the_ca_is_shown(
    server: SpeakingServer, authority: TestAuthority, capsys: pytest.CaptureFixture[str]
) -> None:
    write_file(server, authority.server("n1"))
    assert main(["get", "k"]) == 0
    assert capsys.readouterr().out == "found"


def test_with_endpoints_the_flags_say_it_all(
    server: SpeakingServer, authority: TestAuthority, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = authority.application("shop")
    assert main(["-e", server.address, *flags(shop), "get", "k"]) == 0
    assert main(["-e", server.address, "get", "k", *flags(shop)]) == 0
    assert capsys.readouterr().out == "foundfound"


def test_the_environment_says_it_as_well(
    server: SpeakingServer, authority: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = authority.application("shop")
    monkeypatch.setenv("RAFTCTL_ENDPOINTS", server.address)
    monkeypatch.setenv("RAFTCTL_CACERT", str(shop.ca))
    monkeypatch.setenv("RAFTCTL_CERT", str(shop.cert))
    monkeypatch.setenv("RAFTCTL_KEY", str(shop.key))
    assert main(["get", "k"]) == 0


def test_commands_in_hints_show_the_same_certificate(
    server: SpeakingServer, authority: TestAuthority, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = authority.application("shop")
    server.answer = lambda request: ErrorReply(
        code="refused", message="no", hint="raftctl status --check"
    )
    words = ["-e", server.address, *flags(shop)]
    assert main([*words, "get", "k"]) == 1
    assert f"raftctl {' '.join(words)} status --check" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cert", "a.pem", "--key", "a.key"], "--cacert is missing"),
        (["--cacert", "CA", "--cert", "a.pem"], "--key is missing"),
        (["--cacert", "CA", "--key", "a.key"], "--cert is missing"),
        (["--cacert", "none/ca.pem"], "none/ca.pem: no such file or directory"),
        (["--cacert", "alone.pem"], "nor is there admin.pem or admin.key"),
        (["--cacert", "CA", "--cert", "a.pem", "--key", "a.key"], "a.key: no such file"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_dialled(
    words: list[str], message: str, authority: TestAuthority, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(authority.ca) if word == "CA" else word for word in words]
    Path("alone.pem").touch()
    assert main(["-e", "127.0.0.1:1", *words, "get", "k"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("foreign", "it does not know the CA of the certificate that it was shown"),
        ("expired", "the certificate that it was shown has expired"),
        ("distrustful", "its certificate is not signed by our CA"),
    ],
)
def test_a_certificate_that_does_not_fit_ends_at_once_with_the_reason(
    server: SpeakingServer,
    authority: TestAuthority,
    foreign: TestAuthority,
    who: str,
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = {
        "foreign": lambda: foreign.admin("alice"),
        "expired": lambda: authority.admin("old", valid=OVER),
        "distrustful": authority.admin,
    }[who]()
    ca = foreign.ca if who == "distrustful" else authority.ca
    shown = TlsFiles(ca=ca, cert=files.cert, key=files.key)
    # Without a time-out: nobody waits for what cannot come.
    assert main(["-e", server.address, "--timeout", "0", *flags(shown), "get", "k"]) == 3
    error = capsys.readouterr().err
    assert "no server agrees to the connection" in error
    assert reason in error


@pytest.mark.parametrize(
    ("role", "hosts", "reason"),
    [
        (ADMIN, ("127.0.0.1",), "its certificate is not meant for this purpose"),
        (SERVER, ("n9.example.org",), "its certificate is not one for '127.0.0.1'"),
    ],
)
def test_only_a_server_for_the_host_that_was_dialled_is_believed(
    authority: TestAuthority,
    role: str,
    hosts: tuple[str, ...],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = authority.issue(role, "n9", hosts=hosts, stem=f"x-{role}")
    impostor = SpeakingServer(tls=context_of(files))
    try:
        assert main(["-e", impostor.address, *flags(authority.admin()), "get", "k"]) == 3
    finally:
        impostor.close()
    assert reason in capsys.readouterr().err
    assert impostor.requests == []


def test_a_server_certificate_without_the_role_is_not_believed(
    authority: TestAuthority,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("raftctl.certificates.uri_of", lambda holder: "urn:raftd:admin:n9")
    impostor = SpeakingServer(tls=context_of(authority.server("n9", stem="x-no-role")))
    try:
        assert main(["-e", impostor.address, *flags(authority.admin()), "get", "k"]) == 3
    finally:
        impostor.close()
    assert f"that of {Holder(ADMIN, 'n9')}, not of a server" in capsys.readouterr().err


def test_a_role_that_may_not_ask_is_told_so(
    server: SpeakingServer, authority: TestAuthority, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda request: ErrorReply(
        code="forbidden", message="a TransferRequest is not for the role application"
    )
    shop = authority.application("shop")
    assert main(["-e", server.address, *flags(shop), "transfer"]) == 1
    assert "is not for the role application" in capsys.readouterr().err


def test_without_a_certificate_a_server_that_wants_one_says_so_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a") as (plain,):
        plain.refusal = Refusal(code="tls", message="it speaks TLS, and wants a certificate")
        assert main(["-e", plain.address, "--timeout", "0", "get", "k"]) == 3
    assert "it speaks TLS, and wants a certificate" in capsys.readouterr().err
