"""Cluster time: what time it is for the lives of keys, and who ends these.

It is a number of milliseconds that only entries of the log move. It has nothing to do with any
wall clock: a leader counts it on with its monotonic clock, and puts it into the entries that need
it. The rules that let a key live for as long as it was promised, at least, whoever leads:

1. From the entry on that a server has applied last, it counts on from the time in it. Others did so
   before, so that it is never ahead of them.
2. A leader does not do that for entries of its own term: their times are its own, and some round
   trips old. Under a steady stream of them its time would stand still.
3. A leader says no time before it has applied all entries of the terms before. An entry in between
   could carry a time that is less than what it has counted on to, and the key of that entry would
   end early by the difference.

So the times in two entries never differ by more than what passed between their proposals, as far as
all monotonic clocks run equally fast. They stand still together with the cluster, but for what a
leader has counted on since the last entry: therefore it writes down the time now and then.

Source: leases after Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism" (1989),
with the clock in the log as in dissertation 6.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftd.commands import FEATURES_LIVES, AdvanceClock, Command, Result
from raftd.core.leader import Leader
from raftd.core.raft import Raft
from raftd.core.types import Entry
from raftd.operations import Propose
from raftd.protocol import NOT_NOW, ErrorReply, Reply
from raftd.replies import features_are_off, unavailable
from raftd.storage.state import StateMachine

CLOCK_INTERVAL_MS = 10_000
"""While keys have a life, the time is written down this often. A server that has just started
counts on from what was written last: so much longer they live at most, each time that such a one
leads."""
_MS_NS = 1_000_000


class ClusterTime:
    """What time one server takes it to be, and the entries with which its leader moves it."""

    def __init__(self, state: StateMachine, uptime_ns: Callable[[], int], propose: Propose) -> None:
        """Count on from what the state says.

        Args:
            uptime_ns: as `Node` has it.
            propose: appends a command of this server's own.
        """
        self._state = state
        self._uptime_ns = uptime_ns
        self._propose = propose
        self._is_proposed = False
        """Whether an entry of this server's is on its way."""
        self.has_more = False
        """Whether there may be more keys to end right away; call `advance`."""
        self.restored()

    def restored(self) -> None:
        """Count on from what the state says: another one has taken its place."""
        self.seen_index = self._state.stamped_index
        """The last entry with a time that it has taken into account."""
        self._base_ms = self._state.clock_ms
        self._base_ns = self._uptime_ns()

    def applied(self, raft: Raft, entries: Sequence[Entry]) -> None:
        """Take the times in `entries` into account, which were applied just now.

        To be called where the state's `stamped_index` is not `seen_index`.
        """
        index = self.seen_index = self._state.stamped_index
        term = entries[index - entries[0].index].term
        if term != raft.current_term or not isinstance(raft.role, Leader):
            self._base_ms = self._state.clock_ms
            self._base_ns = self._uptime_ns()

    def now_ms(self) -> int:
        """Return what time it is, as far as this server knows: on a follower a bit too little."""
        return self._base_ms + (self._uptime_ns() - self._base_ns) // _MS_NS

    def stamp(self, raft: Raft) -> int | ErrorReply:
        """Return the time for a transaction that is appended now, or why it must not be."""
        if self._state.features < FEATURES_LIVES:
            return features_are_off()
        if not self._is_known(raft):
            return unavailable(NOT_NOW, "the leader is new, and does not know cluster time yet")
        return self.now_ms()

    def _is_known(self, raft: Raft) -> bool:
        leader = raft.role
        return isinstance(leader, Leader) and self._state.applied_index >= leader.term_start

    def advance(self, raft: Raft) -> None:
        """Propose to end what has lapsed, and to write down the time when that is due.

        To be called now and then, at least as often as heartbeats are sent.
        """
        self.has_more = False
        earliest = self._state.earliest_deadline()
        if earliest is None or self._is_proposed or not self._is_known(raft):
            return
        time_ms = self.now_ms()
        if time_ms < min(earliest, self._state.clock_ms + CLOCK_INTERVAL_MS):
            return
        self._is_proposed = True
        self._propose(Command(AdvanceClock(time_ms)), self._done, self._failed)

    def _done(self, result: Result) -> None:
        self._is_proposed = False
        self.has_more = result.number > 0

    def _failed(self, reply: Reply) -> None:
        self._is_proposed = False
