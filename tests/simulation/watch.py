"""Shows everything that happens to the invariants, also what no interface of a node tells.

Where a leader counts and moves its commit index is inside of the core. The configuration under
which it counted cannot be seen afterwards, since C_new is appended in the same call; so the one
method that counts is wrapped while a run lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from raftd.core.leader import Leader
from raftd.core.membership import Configuration
from raftd.core.types import Index, ServerId
from tests.simulation.invariants import Durable, Invariant

METHODS = (
    *("started", "appended", "sent", "committed", "applied", "turned", "ended"),
    *("published", "restored", "compacted", "released"),
    *("read_arrived", "read_answered", "removed"),
)


class Violated(AssertionError):
    """An invariant does not hold."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        """Of the property."""


class Watch:
    """The invariants of one run; each is told only of what it looks at."""

    def __init__(
        self, kinds: Sequence[type[Invariant]], durable: Mapping[ServerId, Durable]
    ) -> None:
        self.working: Any = None
        """The server whose turn it is."""
        self._counts: list[tuple[Configuration, Index]] = []
        """The calls of the counting method that are under way, with what they began from."""
        self._told: dict[str, list[tuple[str, Callable[..., None]]]] = {
            method: [] for method in METHODS
        }
        self.invariants = {kind: kind(durable) for kind in kinds}
        for invariant in self.invariants.values():
            self.add(invariant)

    def add(self, invariant: Invariant) -> None:
        """Tell this one, too."""
        for method, told in self._told.items():
            if getattr(type(invariant), method) is not getattr(Invariant, method):
                told.append((invariant.title, getattr(invariant, method)))

    def tell(self, method: str, *arguments: Any) -> None:
        """Tell the invariants of something.

        Raises:
            Violated: one of them does not hold.
        """
        for title, told in self._told[method]:
            try:
                told(*arguments)
            except AssertionError as error:
                raise Violated(title, str(error)) from error

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Watch where leaders count, until the block ends."""
        original = Leader.advance_commit_index

        def watched(leader: Leader) -> None:
            self._tell_of_commit(leader)
            self._counts.append((_latest(leader), leader._log.commit_index))
            try:
                original(leader)
                self._tell_of_commit(leader)
            finally:
                self._counts.pop()
                if self._counts:
                    # What a call inside has counted was told by that one.
                    self._counts[-1] = (self._counts[-1][0], leader._log.commit_index)

        Leader.advance_commit_index = watched  # type: ignore[method-assign]
        try:
            yield
        finally:
            Leader.advance_commit_index = original  # type: ignore[method-assign]

    def _tell_of_commit(self, leader: Leader) -> None:
        """Tell of what the call under way has counted so far."""
        if not self._counts:
            return
        configuration, old = self._counts[-1]
        new = leader._log.commit_index
        if new > old:
            self._counts[-1] = (configuration, new)
            self.tell("committed", self.working, configuration, old, new)


def _latest(leader: Leader) -> Configuration:
    latest = leader._raft.configuration
    assert latest is not None
    return latest.configuration
