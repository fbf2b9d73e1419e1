"""`raftctl certs`: what it makes can be used at once, is secret where it has to be, and stays."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from raftctl.cli import main
from raftd.certificate_files import TlsFiles
from raftd.tls import load_credentials

pytestmark = pytest.mark.usefixtures("no_surroundings")


def files_of(name: str, folder: str = "certs") -> TlsFiles:
    place = Path(folder)
    return TlsFiles(ca=place / "ca.pem", cert=place / f"{name}.pem", key=place / f"{name}.key")


def test_two_commands_make_what_a_server_starts_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "init"]) == 0
    assert main(["certs", "issue", "server", "n1", "--host", "127.0.0.1", "--host", "::1"]) == 0
    assert str(load_credentials(files_of("n1"), "n1").holder) == "server n1"
    captured = capsys.readouterr()
    assert captured.out.split() == [
        *("certs/ca.pem", "certs/ca.key", "certs/n1.pem", "certs/n1.key")
    ]
    assert "keep certs/ca.key secret" in captured.err


def test_keys_are_for_their_owner_only_whatever_the_umask_is() -> None:
    before = os.umask(0)
    try:
        assert main(["certs", "init"]) == 0
        assert main(["certs", "issue", "admin"]) == 0
    finally:
        os.umask(before)
    for name in ("ca.key", "admin.key"):
        assert stat.S_IMODE((Path("certs") / name).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "words",
    [
        ["certs", "init"],
        ["certs", "issue", "server", "n1", "--host", "h"],
        ["certs", "issue", "admin"],
        ["certs", "issue", "application", "shop"],
    ],
)
def test_nothing_is_overwritten(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if words[1] != "init":
        assert main(["certs", "init"]) == 0
    assert main(words) == 0
    before = {file: file.read_bytes() for file in Path("certs").iterdir()}
    assert main(words) == 1
    assert "would be overwritten" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in Path("certs").iterdir()} == before


def test_a_renewal_replaces_the_certificate_of_the_same_holder_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["certs", "init"]) == 0
    assert main(["certs", "issue", "server", "n1", "--host", "127.0.0.1"]) == 0
    before = Path("certs/n1.pem").read_bytes()
    assert main(["certs", "issue", "application", "n1", "--replace"]) == 1
    assert "certs/n1.pem is the certificate of server n1" in capsys.readouterr().err
    assert Path("certs/n1.pem").read_bytes() == before
    assert main(["certs", "issue", "server", "n1", "--host", "127.0.0.1", "--replace"]) == 0
    assert Path("certs/n1.pem").read_bytes() != before
    load_credentials(files_of("n1"), "n1")


def test_the_hosts_are_those_of_the_cluster_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("cluster.yaml").write_text(
        "cluster: a\n"
        "defaults:\n"
        '  tls: {ca: certs/ca.pem, cert: "certs/{id}.pem", key: "certs/{id}.key"}\n'
        "servers:\n"
        "  n1: {address: 'n1.example.org:7101', redis: '10.0.0.1:6379', http: '[::1]:80'}\n"
    )
    assert main(["certs", "init"]) == 0
    assert main(["certs", "issue", "server", "n1"]) == 0
    capsys.readouterr()
    assert main(["certs", "show", "certs/n1.pem", "-o", "json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["certificates"]
    assert (shown["role"], shown["name"]) == ("server", "n1")
    assert set(shown["hosts"]) == {"n1.example.org", "10.0.0.1", "::1"}
    assert shown["days_left"] in (364, 365)
    assert main(["certs", "issue", "server", "n9"]) == 2
    assert "cluster.yaml has no such server" in capsys.readouterr().err


def test_show_lists_all_certificates_of_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "init", "--dir", "d"]) == 0
    assert main(["certs", "issue", "application", "shop", "--dir", "d", "--days", "3"]) == 0
    capsys.readouterr()
    assert main(["certs", "show", "d"]) == 0
    header, ca, shop = capsys.readouterr().out.splitlines()
    assert header.split() == ["FILE", "ROLE", "NAME", "HOSTS", "ENDS", "DAYS"]
    assert ca.split()[:2] == ["d/ca.pem", "ca"]
    assert shop.split()[:3] == ["d/shop.pem", "application", "shop"]
    assert shop.split()[-1] in ("2", "3")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["issue", "admin"], 1, "certs/ca.pem: no such file"),
        (["issue", "server", "N1", "--host", "h"], 2, "this cannot be a server"),
        (["issue", "server", "n1", "--host", "a b"], 2, "this cannot be a server"),
        (["issue", "server", "n1"], 2, "there is no --host, and no cluster file"),
        (["show", "none.pem"], 1, "none.pem: no such file"),
        (["show"], 2, "there is no certificate to show"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certs", *words]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a b", "ca", "x:y", "../x"])
def test_a_name_that_cannot_stand_in_a_certificate_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certs", "init"]) == 0
    before = sorted(Path().rglob("*"))
    assert main(["certs", "issue", "application", name]) == 1
    assert "no certificate of application" in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_no_certificate_outlives_its_ca(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "init", "--days", "10"]) == 0
    assert main(["certs", "issue", "admin", "--days", "11"]) == 1
    assert "the CA itself ends on" in capsys.readouterr().err


def test_without_the_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main(["certs", "init"]) == 1
    error = capsys.readouterr().err
    assert "the package cryptography is not installed here" in error
    assert "pip install 'raftd[certs]'" in error
    assert not Path("certs").exists()
