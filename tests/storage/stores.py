"""What tests of stores share."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, settings

from raftd.storage.lmdb_store import LmdbStore
from raftd.storage.store import STORE_KEY_BYTES_MAX, Store

NewStore = Callable[[], Store]

with_new_store = settings(
    # The fixture makes a new store for each example.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=150,
    deadline=None,
)

LMDB_STORES_OPEN = 8
"""Each takes 1 TiB of address space, of which a process has 128; no example uses more at once."""


def contents(store: Store) -> list[tuple[bytes, bytes]]:
    return store.scan(b"\x00", b"\xff" * STORE_KEY_BYTES_MAX, 1_000_000)


@contextmanager
def lmdb_stores(directory: Path) -> Iterator[Callable[[], LmdbStore]]:
    """Make empty stores in `directory`; all are closed at the end, old ones when new ones come."""
    directory.mkdir()
    numbers = count()
    stores: deque[LmdbStore] = deque()

    def close_oldest() -> None:
        store = stores.popleft()
        store.close()
        shutil.rmtree(store.path)

    def new_lmdb_store() -> LmdbStore:
        if len(stores) == LMDB_STORES_OPEN:
            close_oldest()
        stores.append(LmdbStore.open(directory / str(next(numbers))))
        return stores[-1]

    try:
        yield new_lmdb_store
    finally:
        while stores:
            close_oldest()
