"""The examples of the README and of the docstrings do what they say, on a real cluster."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from raftd.client import AsyncClient, Client, OutcomeUnknown, RemoveKey, SetKey
from raftd.client.async_client import AsyncWatch
from raftd.client.blocking_client import Watch
from tests.cluster.conftest import MakeCluster
from tests.cluster.processes import RunningCluster, raftctl, wait_for

README = Path(__file__).parents[2] / "README.md"
IDLE_MS = 100.0
"""After which the watches of examples end, which otherwise never do."""


class BriefClient(Client):
    """A client whose watches end."""

    def watch(self, *arguments: Any, **options: Any) -> Watch:
        return super().watch(*arguments, **options, idle_ms=IDLE_MS)


class BriefAsyncClient(AsyncClient):
    """Likewise."""

    def watch(self, *arguments: Any, **options: Any) -> AsyncWatch:
        return super().watch(*arguments, **options, idle_ms=IDLE_MS)


def _wait_for_features(cluster: RunningCluster) -> None:
    def on() -> bool:
        leader = cluster.confirmed_leader()
        status = leader.status() if leader else None
        return status is not None and status.features >= 5

    wait_for("the features of this release", on)


def _here(example: str, addresses: list[str]) -> str:
    """Return an example that dials `addresses`."""
    places = {
        f"127.0.0.1:{port}": at for port, at in zip((7101, 7102, 7103), addresses, strict=True)
    }
    for documented, address in places.items():
        example = example.replace(documented, address)
    return example


def _examples(owner: type) -> Iterator[tuple[str, str]]:
    """Yield the name and the example of each method of `owner` that has one."""
    for name, member in [("", owner), *vars(owner).items()]:
        text = inspect.getdoc(member) if callable(member) else None
        blocks = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", f"{text}\n", re.MULTILINE)
        for block in blocks:
            # The lines below "Args:" and the like are indented as well.
            if re.search(r"\bclient\.\w+\(", block):
                yield name or owner.__name__, textwrap.dedent(block)


def test_examples_do_what_they_say(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("n1", "n2", "n3")
    _wait_for_features(cluster)
    addresses = [server.address for server in cluster.servers.values()]

    section = README.read_text().split("\n## Python client\n")[1].split("\n## ")[0]
    programs = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    first, second = (
        subprocess.run(
            [sys.executable, "-W", "error", "-c", _here(program, addresses)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        for program in programs
    )
    assert (first.stdout, first.stderr) == (shown, "")
    leader, *lines = second.stdout.splitlines()
    assert leader.removeprefix("leader: ") in cluster.servers
    assert sorted(lines[:3]) == [f"put jobs/{number}" for number in range(3)]
    assert lines[3:] == [f"jobs/{number} b'waiting'" for number in range(3)]
    assert second.stderr == ""
    assert raftctl("-e", addresses[0], "get", "visits").stdout == "2"

    with BriefClient(addresses) as client:
        client.put("new/17", b"")
        names = {"client": client, "order": client.get("new/17"), "Client": Client}
        names |= {"OutcomeUnknown": OutcomeUnknown, "RemoveKey": RemoveKey, "SetKey": SetKey}
        tried = []
        for name, example in _examples(Client):
            exec(_here(example, addresses), dict(names))
            tried.append(name)
        assert tried == [
            "Client",
            "get",
            "list",
            "put",
            "increment",
            "transaction",
            "watch",
            "settle",
        ]
        assert client.get("packed/17") is not None

    tried = []

    async def try_all() -> None:
        async with BriefAsyncClient(addresses) as client:
            for name, example in _examples(AsyncClient):
                body = textwrap.indent(_here(example, addresses), "    ")
                names: dict[str, Any] = {"client": client, "AsyncClient": AsyncClient}
                exec(f"async def example():\n{body}", names)
                await names["example"]()
                tried.append(name)

    trio.run(try_all)
    assert tried == ["AsyncClient", "list", "watch"]
