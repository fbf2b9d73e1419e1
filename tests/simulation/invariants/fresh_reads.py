"""A linearizable read sees everything that was committed when it arrived."""

from __future__ import annotations

from collections.abc import Mapping

from raftd.core.membership import Configuration
from raftd.core.types import Index, ServerId
from tests.simulation.invariants import Durable, Invariant, Server


class FreshReads(Invariant):
    """Whoever answers has applied what any leader had committed before the read arrived.

    It is more than linearizability asks for, since a client need not know of a commit yet; but a
    leader whom a quorum has confirmed afterwards cannot know less.
    """

    title = "Fresh reads"
    source = "dissertation 6.4; paper section 8"

    def __init__(self, durable: Mapping[ServerId, Durable]) -> None:
        super().__init__(durable)
        self._committed: Index = 0
        self._waiting: dict[int, tuple[object, Index]] = {}

    def committed(
        self, server: Server, configuration: Configuration, old: Index, new: Index
    ) -> None:
        """Remember the highest index that any leader has committed."""
        self._committed = max(self._committed, new)

    def read_arrived(self, server: Server, read: object) -> None:
        """Remember what a read has to see."""
        # With the object itself, so that its number is not used for another one meanwhile.
        self._waiting[id(read)] = (read, self._committed)

    def read_answered(self, server: Server, read: object) -> None:
        """Compare it with what the answer is made from."""
        _, committed = self._waiting.pop(id(read))
        applied = server.state.applied_index
        assert applied >= committed, (
            f"{server.id} answers a read from what it has applied up to index {applied}, and "
            f"{committed} was committed before the read arrived"
        )
