"""What tests of the HTTP side look at: nodes of a world, as the listener sees them."""

from __future__ import annotations

from collections.abc import Callable

from raftd.http.health import Health
from raftd.http.metrics import Sources
from raftd.telemetry import Histogram
from tests.node.world import Server, World, settings


def health_of(
    world: World, server: Server, *, draining: Callable[[], bool] | None = None
) -> Health:
    """Return the health of `server`, whose driver takes its turns with the ticks of the world."""
    return Health(
        server.running,
        settings(server.address),
        wake=world.tick,
        is_draining=draining or (lambda: False),
    )


def problems_of(health: Health) -> dict[str, str]:
    """Return what keeps a server from being ready, by the names of the checks."""
    return {check.name: check.problem for check in health.readiness() if check.problem}


def sources_of(server: Server, *, ready: bool = True) -> Sources:
    """Return where the measurements of `server` are."""
    return Sources(
        status=server.running.status,
        telemetry=server.running.telemetry,
        syncs=Histogram(),
        is_ready=lambda: ready,
        connections=lambda: {"clients": 3, "servers": 2},
        answers=lambda: {200: 7, 503: 1},
        lives=lambda: 4,
        watchers=lambda: 6,
        dropped_messages=lambda: 5,
    )
