"""The HTTP side of one server, put together: what it tells, and where it listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import attrs
import trio

from raftd.chronicle import Chronicle
from raftd.config import ClusterConfig, ServerConfig
from raftd.http.feed import Feed, Own
from raftd.http.health import Health, passes
from raftd.http.metrics import Sources, make_metrics
from raftd.http.routes import Routes
from raftd.http.secured import SecuredReaders
from raftd.http.serving import HttpServer, allowed_hosts
from raftd.http.survey import Survey
from raftd.network.dialling import Dial, split_address
from raftd.node import Node
from raftd.protocol import ActivityReply
from raftd.surroundings import Settings
from raftd.telemetry import RATE_INTERVAL_MS, Histogram
from raftd.tls import CurrentCredentials


@attrs.frozen(kw_only=True)
class Surroundings:
    """What it needs beside the node."""

    cluster: ClusterConfig
    server: ServerConfig
    settings: Settings
    syncs: Histogram
    """Of the log."""
    dial: Dial
    wake: Callable[[], None]
    """Makes the driver take a turn."""
    is_draining: Callable[[], bool]
    connections: Callable[[], Mapping[str, int]]
    """Open ones of the other listeners, by name."""
    lives: Callable[[], int]
    """Keys that have one."""
    dropped_messages: Callable[[], int]
    credentials: CurrentCredentials | None = None
    """TLS with these; None for plain connections."""


class Monitor:
    """Tells by HTTP how a server is. It reads, between two turns of the driver, and changes
    nothing."""

    def __init__(self, node: Node, around: Surroundings) -> None:
        """Prepare it; nothing is opened before `serve`."""
        server = around.server
        assert server.http is not None
        self._address = server.http
        self._node = node
        self._health = Health(
            node, around.settings, wake=around.wake, is_draining=around.is_draining
        )
        servers = around.cluster.servers.values()
        survey = Survey(
            address=server.address,
            own_status=node.status,
            own_activity=self._activity,
            dial=around.dial,
            wall_clock_ms=lambda: time.time_ns() // 1_000_000,
            cluster_name=around.cluster.cluster,
            file_addresses={each.id: each.address for each in servers},
            file_zones={each.id: each.zone for each in servers if each.zone},
        )
        own = Own(status=node.status, activity=self._activity, readiness=self._health.readiness)
        self._feed = Feed(survey, own, address=server.address, http=server.http)
        sources = Sources(
            status=node.status,
            telemetry=node.telemetry,
            syncs=around.syncs,
            is_ready=lambda: passes(self._health.readiness()),
            connections=lambda: {**around.connections(), "http": self.http.connection_count},
            answers=lambda: self.http.answers,
            lives=around.lives,
            watchers=lambda: len(node.watches.waiting),
            dropped_messages=around.dropped_messages,
        )
        routes = Routes(
            health=self._health, survey=survey, feed=self._feed, metrics=make_metrics(sources)
        )
        hosts = allowed_hosts((server.http, server.address, server.listen))
        readers = None if around.credentials is None else SecuredReaders(around.credentials)
        self.http = HttpServer(routes.respond, hosts, readers)
        """Also for streams that come from elsewhere: see its `handle`."""

    def _activity(self) -> ActivityReply:
        return self._node.telemetry.activity(self._node.identity.server)

    async def serve(
        self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen where the cluster file says until cancelled; reports the bound addresses.

        Raises:
            OSError: the address is in use, or not one of this host.
        """
        host, port = split_address(self._address)
        # What a nursery around it raised would be a group of errors, and no OSError.
        listeners = await trio.open_tcp_listeners(port, host=host)
        async with trio.open_nursery() as nursery:
            bound = await nursery.start(self.http.serve, listeners)
            nursery.start_soon(self.run)
            task_status.started(bound)

    async def run(self) -> None:
        """Keep rates and notices, and make events while somebody looks, until cancelled."""
        with Chronicle() as chronicle:
            own = self._node.status()
            chronicle.note(time.time(), "server", f"has started, version {own.version}")
            self._node.telemetry.notices = chronicle.notices
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feed.run)
                nursery.start_soon(self._sample)

    async def _sample(self) -> None:
        """Take a point of the rates each second: a few microseconds each."""
        seconds = RATE_INTERVAL_MS / 1000
        telemetry = self._node.telemetry
        # Only to begin: the first second counts as well.
        telemetry.sample(RATE_INTERVAL_MS, self._node.raft.log.commit_index)
        sampled_at = trio.current_time()
        while True:
            await trio.sleep_until(sampled_at + seconds)
            now = trio.current_time()
            elapsed_ms = (now - sampled_at) * 1000
            telemetry.sample(elapsed_ms, self._node.raft.log.commit_index)
            sampled_at = now
