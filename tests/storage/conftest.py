"""Every kind of store that there is, for the tests of stores and of what stands on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raftd.storage.store import MemoryStore
from tests.storage.hashed_store import HashedStore
from tests.storage.stores import NewStore, lmdb_stores

KINDS: dict[str, NewStore] = {
    "memory": MemoryStore,
    "hashed": lambda: HashedStore(MemoryStore()),
}


@pytest.fixture(params=[*KINDS, "lmdb"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewStore]:
    """Make empty stores of each kind that there is."""
    if request.param == "lmdb":
        with lmdb_stores(tmp_path / "stores") as new_lmdb_store:
            yield new_lmdb_store
    else:
        yield KINDS[request.param]
