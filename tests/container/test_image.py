"""The image: what its Dockerfile promises; and, with `-m container`, whether it keeps that."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from raftd import command_line, config
from raftd.server import DRAIN_ELECTION_TIMEOUTS
from tests.container.dockerfile import Stage, stages
from tests.container.roots import Builder, Container, missing_programs

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "configs" / "container"
DOCKERFILE = FOLDER / "Dockerfile"
NAMES = ("n1", "n2", "n3")
HOSTS = {name: f"127.0.1.{number}" for number, name in enumerate(NAMES, 1)}
"""In the place of the network of the containers."""
READY_SECONDS = 60.0


@pytest.fixture(scope="module")
def image() -> Stage:
    return stages(DOCKERFILE)[-1]


def compose() -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


# --- what it says -----------------------------------------------------------------------------


def test_the_image_runs_raftd_as_a_user_that_owns_nothing_but_the_data(image: Stage) -> None:
    program, *arguments = image.last("ENTRYPOINT").command
    assert program == "raftd"
    parsed = command_line._parser().parse_args([*arguments, "--id", "n1"])
    assert parsed.data_dir == image.last("VOLUME").text
    assert image.last("USER").text not in ("root", "0")
    (creates,) = [step.text for step in image.instructions if "useradd" in step.text]
    assert f"install -d -m 700 -o raftd -g raftd {parsed.data_dir}" in creates
    # What follows USER would be done by it.
    names = [step.name for step in image.instructions]
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :])


def test_the_image_stops_by_a_signal_that_drains(image: Stage) -> None:
    assert signal.Signals[image.last("STOPSIGNAL").text] == signal.SIGTERM


def test_what_the_image_is_made_of_is_in_the_checkout() -> None:
    build, image = stages(DOCKERFILE)
    for step in (*build.instructions, *image.instructions):
        if step.name == "COPY" and "from" not in step.options:
            *names, _ = step.words
            for name in names:
                assert (ROOT / name).exists(), name
    copied = [step.words[0] for step in image.instructions if step.options.get("from") == "build"]
    assert copied == ["/opt/raftd"]
    assert not any("test" in step.text for step in build.instructions if step.name == "RUN")


def test_the_file_for_containers_is_the_one_that_compose_needs() -> None:
    loaded = config.load(FOLDER / "cluster.yaml")
    services = compose()["services"]
    assert list(services) == list(loaded.servers) == list(NAMES)
    for name, service in services.items():
        server = loaded.servers[name]
        assert service["hostname"] == server.address.split(":")[0] == name
        assert service["command"] == ["--id", name]
        # Where the HEALTHCHECK asks.
        assert server.http == f"{name}:8101"
        config_mount, data = service["volumes"]
        assert config_mount == "./cluster.yaml:/etc/raftd/cluster.yaml:ro"
        assert data == f"{name}:{stages(DOCKERFILE)[-1].last('VOLUME').text}"
        drains_ms = DRAIN_ELECTION_TIMEOUTS * server.election_timeout_ms
        assert int(service["stop_grace_period"].removesuffix("s")) * 1000 > 2 * drains_ms
        # An engine cannot tell the exit codes apart.
        assert service["restart"] == "no"


# --- what it does -----------------------------------------------------------------------------


def bed(tmp_path: Path, image: Stage, root: Path) -> list[Container]:
    """Return three containers of the image that find each other."""
    hosts = tmp_path / "hosts"
    addresses = [f"{address} {name}\n" for name, address in HOSTS.items()]
    hosts.write_text("127.0.0.1 localhost\n" + "".join(addresses))
    accounts = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
    (user,) = [account for account in accounts if account[0] == image.last("USER").text]
    containers = []
    for name in NAMES:
        volume = tmp_path / f"volume-{name}"
        volume.mkdir(mode=0o700)
        os.chown(volume, int(user[2]), int(user[3]))
        files = {"/etc/hosts": hosts, "/etc/raftd/cluster.yaml": FOLDER / "cluster.yaml"}
        log = tmp_path / f"{name}.log"
        containers.append(Container(root, image, name, volume, files, log))
    return containers


def ctl(container: Container, *words: str) -> str:
    """Run raftctl in a container and return what it prints."""
    ran = container.run(["raftctl", "-c", "/etc/raftd/cluster.yaml", *words])
    print(f"{container.hostname}$ raftctl {' '.join(words)}\n{ran.stdout}{ran.stderr}", end="")
    assert ran.returncode == 0, ran
    return ran.stdout


def health(container: Container) -> int:
    """Return what the HEALTHCHECK says: 0 if the server lives."""
    ran = container.run(container.stage.last("HEALTHCHECK").command)
    print(f"{container.hostname} health: {ran.returncode} {ran.stdout}{ran.stderr}".rstrip())
    return ran.returncode


def wait_healthy(container: Container) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while health(container) != 0:
        assert container.process is not None
        assert container.process.poll() is None, container.log
        assert time.monotonic() < deadline, container.log
        time.sleep(0.2)


@pytest.mark.container
@pytest.mark.timeout(1800)
def test_the_image_is_built_and_three_servers_of_it_form_a_cluster(
    tmp_path: Path, image: Stage
) -> None:
    if missing_programs():
        pytest.skip(f"missing: apt install {' '.join(missing_programs())}")
    if os.geteuid() != 0:
        pytest.skip("chroot and mounts take root")
    builder = Builder(ROOT, tmp_path)
    for stage in stages(DOCKERFILE):
        print(f"FROM {stage.base} {stage.name}")
        root = builder.build(stage)
    size = sum(path.lstat().st_size for path in (root / "opt/raftd").rglob("*"))
    print(f"/opt/raftd has {size / 1_000_000:.0f} MB")
    containers = bed(tmp_path, image, root)
    first = containers[0]
    try:
        for container in containers:
            container.start("--id", container.hostname)
        for container in containers:
            wait_healthy(container)
            assert 0 not in container.users
        ctl(first, "init")
        ctl(first, "wait", "--for", "healthy")
        ctl(first, "put", "hello", "world")
        assert ctl(containers[1], "get", "hello") == "world"
        with urllib.request.urlopen(f"http://{HOSTS['n3']}:8101/readyz", timeout=10) as ready:
            assert ready.status == 200
        # The server may write its data, and nothing else.
        for place, code in (("/var/lib/raftd/x", 0), ("/opt/raftd/x", 1), ("/etc/raftd/x", 1)):
            assert first.run(["touch", place]).returncode == code, place
        status = json.loads(ctl(first, "status", "-o", "json"))
        leader = next(c for c in containers if c.hostname == status["leader"])
        assert leader.stop() == 0
        print(leader.log.splitlines()[-1])
        assert health(leader) != 0
        rest = next(c for c in containers if c is not leader)
        assert ctl(rest, "get", "hello") == "world"
        leader.start("--id", leader.hostname)
        wait_healthy(leader)
        ctl(rest, "wait", "--for", "healthy")
        assert [container.stop() for container in containers] == [0, 0, 0]
    finally:
        for container in containers:
            container.kill()
