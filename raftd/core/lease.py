"""Leases: a leader reads without a round for as long as nobody else can have been elected.

Used only where the operators ask for it: reads then rest on clocks that run about equally fast.

A voter that hears from a leader promises, in its answer, to withhold its vote for an election
timeout T by its own clock (`VotePromise`). A leader whose send round began at s and was answered so
by a majority of each active half knows that no other leader is elected before s + T by the clocks
of those voters; by its own it goes by s + T * (1 - clock_drift) (`Lease`).

| what could break it | what is done about it |
|---|---|
| a voter's ticks come late and together | promises are kept by the clock, not by ticks |
| the voter's own candidacy | it is a vote, too: it waits for the end of the promise |
| a higher term that ends the contact | a promise outlives leader and term |
| a restart of the voter | a new process withholds its vote for 2T at first |
| a voter that promises nothing, or less | leaders go by what each answer promises |
| a transfer, which a promise lets through | the lease ends for good before the first TimeoutNow |
| a joint configuration | both majorities, and of the configuration that is in force now |
| a leader that stood still for a while | the clock is read for each answer, after the question |

Source: dissertation 6.4.1, and 4.2.3 for what voters do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from raftd.core.membership import Configuration
from raftd.core.options import Options
from raftd.core.quorum import committed_index
from raftd.core.types import ServerId

ROUNDS_TIMED_MAX = 64
"""Send rounds whose beginning is remembered, evenly in an election timeout: an answer to another
one counts from the one before, which costs a lease 1/64 of its length and is safe."""
RESTART_ELECTION_TIMEOUTS = 2
"""A restarted server withholds its vote for the maximum election timeout, twice the minimum."""
MS_NS = 1_000_000
FOREVER_NS = 1 << 62
"""A leader's own vote: it is given to nobody before the leader has stepped down."""


class VotePromise:
    """For how long this server has promised to give its vote to nobody, not even to itself."""

    def __init__(self, options: Options) -> None:
        self._length_ns = options.vote_withheld_ms * MS_NS
        self._until_ns = 0

    def heard_leader(self, now_ns: int) -> None:
        """Withhold the vote from `now_ns` on, if leases are used."""
        if self._length_ns:
            self.withhold(now_ns + self._length_ns)

    def withhold(self, until_ns: int) -> None:
        """Withhold the vote until then at least."""
        self._until_ns = max(self._until_ns, until_ns)

    def binds(self, now_ns: int) -> bool:
        """Return whether the vote is withheld at `now_ns`."""
        return now_ns < self._until_ns


class Lease:
    """The lease of one leader in one term."""

    def __init__(self, options: Options, server: ServerId) -> None:
        self._timeout_ns = options.vote_withheld_ms * MS_NS
        self._share = 1 - options.clock_drift
        self._rounds: deque[tuple[int, int]] = deque(maxlen=ROUNDS_TIMED_MAX)
        """Number and beginning of some send rounds."""
        self._promised_ns = {server: FOREVER_NS}
        """Until when each server withholds its vote, by the leader's clock at worst."""
        self._until_ns = 0

    @property
    def is_used(self) -> bool:
        """Whether it can be held: leases are asked for, and it was not given up."""
        return self._timeout_ns > 0

    def give_up(self) -> None:
        """Hold it never again in this term: a server may be about to be elected on purpose.

        How late the TimeoutNow, and the vote requests that follow from it, arrive is not known.
        """
        self._timeout_ns = self._until_ns = 0

    def round_started(self, round_number: int, now_ns: int) -> None:
        """Note that requests of `round_number` are sent at `now_ns` or later."""
        if not self.is_used:
            return
        if self._rounds and now_ns - self._rounds[-1][1] < self._timeout_ns // ROUNDS_TIMED_MAX:
            return
        self._rounds.append((round_number, now_ns))

    def promised(self, server: ServerId, round_number: int, vote_withheld_ms: int) -> None:
        """Take in what `server` has promised in its answer to a round."""
        if not self.is_used:
            return
        began = (at_ns for number, at_ns in reversed(self._rounds) if number <= round_number)
        began_ns = next(began, None)
        if began_ns is not None:
            length_ns = int(min(self._timeout_ns, vote_withheld_ms * MS_NS) * self._share)
            self._promised_ns[server] = max(self._promised_ns.get(server, 0), began_ns + length_ns)

    def follow(self, configuration: Configuration, counted: Container[ServerId]) -> None:
        """Go by the configuration that is in force now, and by the promises of `counted` alone."""
        if not self.is_used:
            return
        promised_ns = {
            server: until_ns for server, until_ns in self._promised_ns.items() if server in counted
        }
        voters, outgoing = configuration.voters, configuration.outgoing
        self._until_ns = committed_index(voters, outgoing, promised_ns) or 0

    def remaining_ns(self, now_ns: int) -> int:
        """Return for how long it is still held at `now_ns`, at most its whole length; 0: it is not.

        Whoever asks must have read the clock after the question that is to be answered had come.
        """
        return max(0, min(self._until_ns - now_ns, int(self._timeout_ns * self._share)))
