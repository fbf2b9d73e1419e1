"""Every kind of store that there is, for the tests of stores and of what stands on them."""

from __future__ import annotations

import pytest

from raftd.storage.store import MemoryStore
from tests.storage.stores import NewStore


@pytest.fixture(params=["memory"])
def new_store(request: pytest.FixtureRequest) -> NewStore:
    """Make empty stores of each kind that there is."""
    return {"memory": MemoryStore}[request.param]
