"""What tests of stores share."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings

from raftd.storage.store import STORE_KEY_BYTES_MAX, Store

NewStore = Callable[[], Store]

with_new_store = settings(
    # The fixture makes a new store for each example.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=150,
    deadline=None,
)


def contents(store: Store) -> list[tuple[bytes, bytes]]:
    return store.scan(b"\x00", b"\xff" * STORE_KEY_BYTES_MAX, 1_000_000)
