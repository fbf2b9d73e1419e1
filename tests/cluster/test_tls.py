"""Clusters of real processes that show each other certificates: what goes on, what is refused."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py
import trio
from redis.backoff import NoBackoff
from redis.retry import Retry

from raftctl.client import CliError
from raftctl.client import Cluster as Client
from raftctl.endpoints import Endpoints
from raftd.certificate_files import TlsFiles
from raftd.client import AsyncClient, CertificateRefused, tls_context
from raftd.client import Client as RaftdClient
from raftd.core.types import server_name
from raftd.protocol import PutRequest
from raftd.tls import client_context
from tests.certificates import TestAuthority
from tests.cluster.processes import RunningCluster, wait_for

SECRET = "a-password-b81c"
WRONG = "a-guess-4f20"

MakeCertified = Callable[..., RunningCluster]


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[MakeCertified]:
    """Return a function that makes clusters whose servers have certificates."""
    with contextlib.ExitStack() as stack:

        def make(**options: object) -> RunningCluster:
            authority = TestAuthority(tmp_path / "certs")
            cluster = RunningCluster(tmp_path, authority=authority, **options)
            stack.callback(cluster.close)
            return cluster

        yield make


class Writer:
    """Writes as an application, over and over, with whatever certificate it has just then."""

    def __init__(self, cluster: RunningCluster) -> None:
        self._cluster = cluster
        self._stopped = threading.Event()
        self.files = threading.Lock()
        """Held while a certificate and its key are not those of each other."""
        self.acknowledged = 0
        self.problems: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._write()
            except CliError as error:
                self.problems.append(f"{error.message}: {error.cause}")

    def _write(self) -> None:
        """Write a few times on one connection: then another one shows what is in force."""
        place = self._cluster.authority.folder
        app = TlsFiles(ca=place / "ca.pem", cert=place / "app.pem", key=place / "app.key")
        with self.files:
            context = client_context(app.ca, app)
        addresses = tuple(server.address for server in self._cluster.servers.values())
        endpoints = Endpoints(addresses=addresses, source="test", tls=context)
        with Client(endpoints, timeout_ms=20_000) as client:
            for _ in range(5):
                value = b"%d" % (self.acknowledged + 1)
                client.write(
                    lambda session, serial, lowest, value=value: PutRequest(
                        session=session,
                        serial=serial,
                        lowest_unacknowledged=lowest,
                        key="count",
                        value=value,
                    )
                )
                self.acknowledged += 1

    def wait_more(self) -> None:
        """Wait until new connections have written, too."""
        before = self.acknowledged
        wait_for("more writes", lambda: self.acknowledged >= before + 12 or self.problems)
        assert self.problems == []

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def test_a_cluster_with_certificates_lives_through_changes_deaths_and_new_certificates(
    certified: MakeCertified,
) -> None:
    cluster = certified()
    authority = cluster.authority
    assert authority is not None
    app = authority.application("app")
    members = [cluster.add_server(name, start=False) for name in ("n1", "n2", "n3")]
    cluster.write_config(cluster.config_path, members)
    for server in members:
        cluster.write_config(server.config_path, members)
        server.start()
    for server in members:
        wait_for(f"{server.name} answers", server.status)

    # raftctl takes the certificate beside the CA by itself.
    assert cluster.ctl("init").code == 0
    assert cluster.ctl("put", "k", "v").code == 0
    shown = ("--cert", str(app.cert), "--key", str(app.key))
    assert cluster.ctl("get", "k", *shown).stdout.strip() == "v"
    refused = cluster.ctl("remove", "n3", "--yes", "-o", "json", *shown)
    assert refused.code == 1
    assert refused.error["code"] == "forbidden"
    assert cluster.json_status()["configuration"]["voters"] == ["n1", "n2", "n3"]
    checks = cluster.ctl("doctor", "-o", "json").document["checks"]
    assert {each["name"] for each in checks if each["result"] == "fail"} == set()

    writer = Writer(cluster)
    try:
        writer.wait_more()
        _replace(cluster)
        _let_the_leader_die(cluster)
        writer.wait_more()
        _change_the_authority(cluster, writer)
    finally:
        writer.stop()
    assert writer.problems == []
    assert cluster.ctl("get", "count").stdout.strip() == str(writer.acknowledged)


def _replace(cluster: RunningCluster) -> None:
    cluster.start_blank("n4")
    replaced = cluster.ctl("replace", "n3", f"n4={cluster['n4'].address}", "--yes")
    assert replaced.code == 0, replaced.stderr
    cluster.servers.pop("n3").kill()
    cluster.wait_settled(["n1", "n2", "n4"])


def _let_the_leader_die(cluster: RunningCluster) -> None:
    leader = cluster.wait_leader()
    leader.kill()
    others = [name for name in cluster.servers if name != leader.name]
    cluster.wait_leader(others)
    leader.start()
    cluster.wait_settled(["n1", "n2", "n4"])


def _change_the_authority(cluster: RunningCluster, writer: Writer) -> None:
    """Go over to another CA, in the three steps of the README, while writes go on."""
    place = cluster.authority.folder
    old_ca, old_admin = place / "ca.pem", cluster.authority.admin(stem="old-admin")
    new = TestAuthority(place / "new", "another CA")
    both = old_ca.read_bytes() + new.ca.read_bytes()

    with writer.files:
        old_ca.write_bytes(both)
    _reload(cluster, 1)
    writer.wait_more()

    for name, role in (("app", "application"), ("admin", "admin"), *_servers(cluster)):
        issued = new.issue(role, name)
        with writer.files:
            issued.cert.replace(place / f"{name}.pem")
            issued.key.replace(place / f"{name}.key")
    _reload(cluster, 2)
    writer.wait_more()

    with writer.files:
        old_ca.write_bytes(new.ca.read_bytes())
    _reload(cluster, 3)
    writer.wait_more()
    shown = ("--cert", str(old_admin.cert), "--key", str(old_admin.key))
    gone = cluster.ctl("get", "k", *shown, "-e", cluster["n1"].address)
    assert gone.code == 3
    assert "it does not know the CA of the certificate that it was shown" in gone.stderr

    # Nor do the servers need the old one any more when they have to dial each other anew.
    leader = cluster.wait_leader()
    leader.kill()
    leader.start()
    cluster.wait_settled(["n1", "n2", "n4"])

    # What is broken is not used, and said.
    (place / "n1.pem").write_text("nothing")
    cluster["n1"].signal(signal.SIGHUP)
    wait_for("n1 complains", lambda: "what was in force stays" in cluster["n1"].log)
    writer.wait_more()


def _servers(cluster: RunningCluster) -> list[tuple[str, str]]:
    return [(name, "server") for name in cluster.servers]


def _reload(cluster: RunningCluster, count: int) -> None:
    for server in cluster.servers.values():
        server.signal(signal.SIGHUP)
    for server in cluster.servers.values():
        wait_for(
            f"{server.name} has read its certificate",
            lambda server=server: server.log.count("new connections use the certificates") >= count,
        )


def test_redis_and_http_clients_are_let_in_by_certificate_or_password_and_no_secret_is_shown(
    certified: MakeCertified, tmp_path: Path
) -> None:
    password_file = tmp_path / "word"
    password_file.write_text(f"{SECRET}\n")
    password_file.chmod(0o600)
    cluster = certified(
        redis=True, http=True, settings=f"log_level: debug\nredis_password_file: {password_file}"
    )
    cluster.form("n1")
    n1, authority = cluster["n1"], cluster.authority
    assert authority is not None
    app = authority.application("app")
    _check_programs(cluster, app)
    _check_redis(n1.redis, app)
    _check_http(n1.http, app)

    shown = cluster.ctl("config", "show").stdout + json.dumps(cluster.json_status())
    shown += cluster.ctl("status", "n1").stdout
    assert str(password_file) in shown
    key = (authority.folder / "n1.key").read_text().splitlines()[1]
    for secret in (SECRET, WRONG, key):
        assert secret not in shown
        assert secret not in n1.log
    assert "has said a wrong password" in n1.log
    assert server_name(n1.status().server) == "n1"


def _check_programs(cluster: RunningCluster, app: TlsFiles) -> None:
    """See that whatever else dials a server does so with TLS: clients, streams, the benchmark."""
    address = cluster["n1"].address
    context = tls_context(app.ca, app.cert, app.key)
    with raftd_client(address, tls=context) as client:
        assert client.put("p", b"1").applied
    without = client_context(app.ca, None)
    with raftd_client(address, tls=without) as client, pytest.raises(CertificateRefused):
        client.get("p")
    with raftd_client(address) as client, pytest.raises(CertificateRefused, match="speaks TLS"):
        client.get("p")

    async def ask() -> None:
        async with AsyncClient([address], tls=context) as client:
            found = await client.get("p")
            assert found is not None
            assert found.value == b"1"
        async with AsyncClient([address], tls=without) as client:
            with pytest.raises(CertificateRefused):
                await client.get("p")

    trio.run(ask)
    assert cluster.ctl("backup", str(cluster.folder / "orders.backup")).code == 0
    measured = cluster.ctl("bench", "--clients", "4", "--duration", "200ms", "-o", "json")
    assert measured.code == 0, measured.stderr


def raftd_client(address: str, tls: ssl.SSLContext | None = None) -> RaftdClient:
    return RaftdClient([address], tls=tls)


def _check_redis(address: str, app: TlsFiles) -> None:
    host, port = address.split(":")
    once = {"host": host, "port": int(port), "retry": Retry(NoBackoff(), 0)}
    trusting = {**once, "ssl": True, "ssl_ca_certs": str(app.ca)}
    known = {"ssl_certfile": str(app.cert), "ssl_keyfile": str(app.key)}
    with redis_py.Redis(**trusting, **known) as client:
        assert client.set("k", "v")
        assert client.get("k") == b"v"
    with redis_py.Redis(**trusting, password=SECRET) as client:
        assert client.get("k") == b"v"
        assert client.incr("n") == 1
    with (
        redis_py.Redis(**trusting, password=WRONG) as client,
        pytest.raises(redis_py.AuthenticationError),
    ):
        client.get("k")
    with redis_py.Redis(**trusting) as client, pytest.raises(redis_py.AuthenticationError):
        client.get("k")
    with redis_py.Redis(**once) as client, pytest.raises(redis_py.RedisError):
        client.get("k")


def _check_http(address: str, app: TlsFiles) -> None:
    host, port = address.split(":")

    def get(path: str, context: ssl.SSLContext) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    known = client_context(app.ca, app)
    assert get("/livez", known)[0] == 200
    assert b"raftd_term" in get("/metrics", known)[1]
    document = json.loads(get("/status.json", known)[1])
    assert document["servers"][0]["reachable"]
    assert document["servers"][0]["certificate_expires_ms"] > 0
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get("/livez", client_context(app.ca, None))
    plain = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        plain.request("GET", "/livez")
        answer = plain.getresponse()
        assert (answer.status, b"speaks https" in answer.read()) == (400, True)
    finally:
        plain.close()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("key", "can be read by everybody on this machine"),
        ("password", "can be read by everybody on this machine"),
        ("another", "its certificate is that of server n2, not of n1"),
        ("missing", "no such file or directory"),
    ],
)
def test_a_server_whose_secrets_are_none_does_not_start(
    certified: MakeCertified, tmp_path: Path, what: str, message: str
) -> None:
    password_file = tmp_path / "word"
    password_file.write_text(SECRET)
    password_file.chmod(0o644 if what == "password" else 0o600)
    cluster = certified(settings=f"redis_password_file: {password_file}")
    server = cluster.add_server("n1", start=False)
    place = cluster.authority.folder
    match what:
        case "key":
            (place / "n1.key").chmod(0o644)
        case "another":
            cluster.authority.server("n2", stem="n1")
        case "missing":
            (place / "n1.pem").unlink()
    server.start()
    assert server.wait_exit() == 2
    assert message in server.log
    assert SECRET not in server.log
