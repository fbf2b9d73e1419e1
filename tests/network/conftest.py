"""Fixtures for the tests of the network."""

from __future__ import annotations

from tests.network.harness import fabric
from tests.network.redis_bed import bed

__all__ = ["bed", "fabric"]
