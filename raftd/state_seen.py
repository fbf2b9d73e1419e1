"""The keys of the state, as those see them who ask more than for the value of one key."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftd.commands import Outcome
from raftd.storage.key_scan import count_keys, scan_keys
from raftd.storage.state import StateMachine


class StateSeen:
    """A `raftd.inputs.StateView` of the state machine."""

    def __init__(self, state: StateMachine, now_ms: Callable[[], int]) -> None:
        """Look at the state as it is whenever it is asked.

        Args:
            now_ms: returns cluster time; only asked where a key has a life.
        """
        self._state = state
        self._now_ms = now_ms

    def values(self, keys: Sequence[bytes], bytes_max: int) -> Sequence[bytes | None]:
        """Return values, as `StateMachine.values` does."""
        return self._state.values(keys, bytes_max)

    def look(self, key: bytes) -> Outcome:
        """Return what a `ReadKey` of a transaction would."""
        found = self._state.get(key.decode())
        if found is None:
            return Outcome(False)
        ttl_ms = max(0, found.deadline_ms - self._now_ms()) if found.deadline_ms else None
        return Outcome(number=found.mod_revision, value=found.value, ttl_ms=ttl_ms)

    def keys(self, start: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return the first keys from `start` on and before `end`; an empty one is that of all."""
        return scan_keys(self._state.store, start, end, limit)

    def key_count(self, counted_max: int) -> int | None:
        """Return how many keys there are; None if too many things would have to be counted."""
        state = self._state
        return count_keys(state.store, state.session_count, state.life_count, counted_max)
