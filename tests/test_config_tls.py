"""Certificates in the cluster file: what each server has, and what cannot be right."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from raftd.certificate_files import TlsFiles
from raftd.config import ClusterConfig, ConfigError, effective, export, load

TLS = 'tls: {ca: certs/ca.pem, cert: "certs/{id}.pem", key: "certs/{id}.key"}'


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> ClusterConfig:
        file = tmp_path / "cluster.yaml"
        file.write_text(dedent(text))
        return load(file)

    return write


@pytest.fixture
def problems(written):
    def find(text: str) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            written(text)
        return [problem.partition("cluster.yaml:")[2] for problem in refused.value.problems]

    return find


def test_each_server_has_its_own_files_out_of_the_defaults(written, tmp_path):
    config = written(
        f"""\
        cluster: a
        defaults: {{{TLS}}}
        servers:
          n1: {{address: "127.0.0.1:1"}}
          n2: {{address: "127.0.0.1:2", tls: {{key: /secret/n2.key}}}}
        """
    )
    certs = tmp_path / "certs"
    n1, n2 = config.servers.values()
    assert n1.tls == TlsFiles(ca=certs / "ca.pem", cert=certs / "n1.pem", key=certs / "n1.key")
    assert n2.tls == TlsFiles(
        ca=certs / "ca.pem", cert=certs / "n2.pem", key=Path("/secret/n2.key")
    )


def test_without_the_key_nothing_is_encrypted(written):
    (server,) = written("cluster: a\nservers: {n1: {address: '127.0.0.1:1'}}").servers.values()
    assert (server.tls, server.redis_password_file) == (None, None)


@pytest.mark.parametrize("key", ["address", "listen", "redis"])
def test_with_certificates_other_machines_may_be_reached(written, key):
    address = "" if key == "address" else "address: 127.0.0.1:1, "
    config = written(
        f"cluster: a\ndefaults: {{{TLS}}}\nservers: {{n1: {{{address}{key}: '10.0.0.1:5'}}}}"
    )
    assert getattr(config.servers["n1"], key) == "10.0.0.1:5"


def test_a_part_of_the_files_is_not_enough(problems):
    assert problems(
        """\
        cluster: a
        defaults:
          tls: {ca: ca.pem}
        servers:
          n1: {address: "127.0.0.1:1"}
          n2: {address: "127.0.0.1:2"}
        """
    ) == ["3:3: defaults.tls: cert and key missing: tls needs ca, cert and key"]


def test_servers_with_and_without_certificates_are_no_cluster(problems):
    (found,) = problems(
        f"""\
        cluster: a
        servers:
          n1: {{address: "127.0.0.1:1", {TLS}}}
          n2: {{address: "127.0.0.1:2"}}
        """
    )
    assert found.startswith("4:3: servers.n2: n2 has no tls and n1 has")


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ("[ca.pem]", "expected a mapping, got a list"),
        ("{ca: 5, cert: c, key: k}", "expected a file, got the number 5"),
        ("{ca: ~/ca.pem, cert: c, key: k}", "'~' is not expanded here; write the whole path"),
        ('{ca: c, cert: "{name}.pem", key: k}', "only {id} can stand in braces"),
        ("{ca: c, cert: c, keey: k}", "(did you mean 'key'?)"),
    ],
)
def test_what_names_no_file_is_refused(problems, tls, message):
    found = problems(
        f"cluster: a\ndefaults: {{tls: {tls}}}\nservers: {{n1: {{address: 127.0.0.1:1}}}}"
    )
    assert any(message in each for each in found), found


def test_the_files_are_shown_with_where_they_come_from(written, tmp_path):
    shown = effective(
        written(
            f"""\
            cluster: a
            defaults: {{{TLS}, redis_password_file: word}}
            servers: {{n1: {{address: "127.0.0.1:1", tls: {{ca: other.pem}}}}}}
            """
        )
    )["servers"]["n1"]
    assert shown["tls.ca"] == {"value": str(tmp_path / "other.pem"), "origin": "file"}
    assert shown["tls.key"] == {"value": str(tmp_path / "certs/n1.key"), "origin": "defaults"}
    assert shown["redis_password_file"] == {"value": str(tmp_path / "word"), "origin": "defaults"}


def test_an_export_with_certificates_does_not_say_that_it_is_insecure(written):
    based_on = written(
        f"cluster: a\ndefaults: {{{TLS}}}\nservers: {{n1: {{address: '10.0.0.1:1'}}}}"
    )
    text = export("a", [("n2", "10.0.0.2:1", "voter")], based_on)
    assert "insecure" not in text
    assert written(text).servers["n2"].tls is not None
