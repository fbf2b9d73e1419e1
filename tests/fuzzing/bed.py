"""A real server with all of its listeners, and what it takes of memory."""

from __future__ import annotations

import http.client
import re
from http import HTTPStatus
from pathlib import Path

from raftd.commands import FEATURES_LIVES
from raftd.protocol import GetReply, GetRequest
from tests.cluster.processes import RunningCluster, Server, wait_for
from tests.cluster.redis_client import Connection
from tests.fuzzing.attack import Ask

ASK_TIMEOUT_S = 15.0
SETTINGS = "snapshot_log_size: 1MiB"
"""So that the log, which is in memory, is short whatever was written."""


class FuzzingBed:
    """One server that is a cluster by itself."""

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until it serves everybody."""
        self.cluster = RunningCluster(folder, redis=True, http=True, settings=SETTINGS)
        self.cluster.form("n1")
        self.server: Server = self.cluster["n1"]
        wait_for("all features", lambda: self.features >= FEATURES_LIVES)
        with Connection(self.server.redis) as connection:
            assert connection.ask("RAFT.SESSION", "fuzz") == b"fuzz"
        wait_for("an answer by HTTP", self._serves_http)
        self.pid = self.server.pid
        self.term = self.cluster.term()

    @property
    def features(self) -> int:
        """The version of those that are switched on."""
        status = self.server.status()
        return 0 if status is None else status.features

    @property
    def addresses(self) -> dict[str, str]:
        """Where each protocol is spoken."""
        server = self.server
        return {"redis": server.redis, "native": server.address, "http": server.http}

    @property
    def asks(self) -> dict[str, Ask]:
        """What a program asks while streams of each protocol are sent.

        Connections by HTTP are few, and so is what is answered in a second: while somebody takes
        them up others are turned away, but applications are served.
        """
        return {"redis": self._ask_redis, "native": self._ask_native, "http": self._ask_redis}

    def _ask_redis(self) -> None:
        with Connection(self.server.redis) as connection:
            connection.send(["SET", "witness", "1"], ["GET", "witness"])
            assert [connection.reply(), connection.reply()] == [b"OK", b"1"]

    def _ask_native(self) -> None:
        reply = self.server.ask(GetRequest(key="witness"))
        assert isinstance(reply, GetReply), reply

    def _serves_http(self) -> bool:
        host, _, port = self.server.http.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=ASK_TIMEOUT_S)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def anonymous_bytes(self) -> int:
        """Memory of its process that is no file's: what it has allocated."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def descriptor_count(self) -> int:
        """Files and sockets that it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def check(self) -> None:
        """See that it is the same process, that it leads as before, and that it serves."""
        assert self.server.running
        assert self.server.pid == self.pid
        assert self.cluster.term() == self.term
        self._ask_redis()
        self._ask_native()
        wait_for("an answer by HTTP", self._serves_http)
        for line in self.server.log.splitlines():
            assert "Traceback" not in line, line

    def close(self) -> None:
        """End it."""
        self.cluster.close()
