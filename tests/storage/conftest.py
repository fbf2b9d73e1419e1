"""Every kind of store that there is, for the tests of stores and of what stands on them."""

from __future__ import annotations

import pytest

from raftd.storage.hashed_store import HashedStore
from raftd.storage.store import MemoryStore
from tests.storage.stores import NewStore

KINDS: dict[str, NewStore] = {
    "memory": MemoryStore,
    "hashed": lambda: HashedStore(MemoryStore()),
}


@pytest.fixture(params=KINDS)
def new_store(request: pytest.FixtureRequest) -> NewStore:
    """Make empty stores of each kind that there is."""
    return KINDS[request.param]
