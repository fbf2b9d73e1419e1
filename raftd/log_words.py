"""Numbers and servers in the words of the log."""

from __future__ import annotations

from collections.abc import Collection

from raftd.core.membership import Configuration
from raftd.core.types import ServerId
from raftd.planning import names

SECONDS_FROM_MS = 10_000.0
"""From here on nobody wants to count milliseconds."""


def milliseconds(duration_ms: float) -> str:
    """Return a duration for people: `612 ms`, `12.4 s`."""
    if duration_ms >= SECONDS_FROM_MS:
        return f"{duration_ms / 1000:,.1f} s"
    return f"{duration_ms:,.0f} ms"


def voters(configuration: Configuration) -> str:
    """Return those whose majority decides, while joint those of both halves: `{n1, n2}`."""
    halves: list[Collection[ServerId]] = [configuration.voters]
    if configuration.is_joint:
        halves = [configuration.outgoing, configuration.voters]
    return " and of ".join(f"{{{names(half)}}}" for half in halves)


def rule(configuration: Configuration) -> str:
    """Return what decides: `a majority of {n1, n2} decides`."""
    if configuration.is_joint:
        return f"majorities of {voters(configuration)} decide"
    return f"a majority of {voters(configuration)} decides"
