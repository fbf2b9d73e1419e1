"""Read index: linearizable reads without a log entry.

A read is answered from the state machine once the leader has shown that it still led *after* the
read had arrived, and once everything committed by then is applied. All reads that wait at the same
time share one send round (`PendingReads`).

Another server may answer reads, too: it asks its leader how far its own state has to be, with one
message for all reads that wait (`ForwardedReads`). At the leader that message is a read like any
other (`RemoteRead`). Messages get lost, so it asks again with each heartbeat interval, and at once
when there is another leader; an answer confirms everything that had arrived before its question was
asked, whichever question that was.

Source: dissertation section 6.4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

import attrs

from raftd.core.errors import ProposalDropped
from raftd.core.lease import Lease
from raftd.core.membership import Configuration
from raftd.core.messages import ReadIndex, ReadIndexResponse
from raftd.core.options import Options
from raftd.core.quorum import committed_index, majority
from raftd.core.ready import ReadAnswer
from raftd.core.types import Index, ServerId, Term

if TYPE_CHECKING:
    from raftd.core.raft import Raft

PENDING_READS_MAX = 65_536
"""Reads that wait for a leader's confirmation: far more than connections can ask at once."""
ID_BITS = 62
"""Questions are numbered from a random number of so many bits on: an answer that was meant for an
earlier process of the same server finds no question of its number."""


@attrs.frozen
class RemoteRead:
    """At a leader, the token of a `ReadIndex`."""

    source: ServerId
    id: int


def send_to_others(raft: Raft, answers: Sequence[ReadAnswer]) -> list[ReadAnswer]:
    """Send what other servers have asked for, where there is something to say; return the rest."""
    own = []
    for answer in answers:
        read, index = answer.token, answer.read_index
        if not isinstance(read, RemoteRead):
            own.append(answer)
        elif index is not None:
            raft.send(read.source, ReadIndexResponse(raft.current_term, read.id, index))
    return own


@attrs.frozen
class _Forwarded:
    """A read that waits until a leader has said how far the state has to be."""

    token: object
    deadline_tick: int
    id: int
    """Of the first question that was asked after it had arrived."""


class PendingReads:
    """The reads of one leader in one term."""

    def __init__(self) -> None:
        self._before_first_commit: list[object] = []
        self._unsent: list[tuple[object, Index]] = []
        self._sent: deque[tuple[int, object, Index]] = deque()

    def __len__(self) -> int:
        return len(self._before_first_commit) + len(self._unsent) + len(self._sent)

    @property
    def want_round(self) -> bool:
        """Whether a read waits for a send round that has not started."""
        return bool(self._unsent)

    @property
    def is_unconfirmed(self) -> bool:
        """Whether a read waits for answers to a send round that has started."""
        return bool(self._sent)

    def add(self, token: object, commit_index: Index | None) -> None:
        """Note a read.

        Args:
            token: what the answer will carry.
            commit_index: the leader's, or None while it has committed nothing in its own term and
                so cannot know what its predecessors committed.
        """
        if commit_index is None:
            self._before_first_commit.append(token)
        else:
            self._unsent.append((token, commit_index))

    def first_commit(self, commit_index: Index) -> None:
        """Let the early reads go on: the leader has committed an entry of its term."""
        self._unsent.extend((token, commit_index) for token in self._before_first_commit)
        self._before_first_commit.clear()

    def round_started(self, round_number: int) -> None:
        """Note that requests of `round_number` are sent now, after every waiting read arrived."""
        self._sent.extend((round_number, token, index) for token, index in self._unsent)
        self._unsent.clear()

    def confirmed(self, round_number: int) -> list[ReadAnswer]:
        """Return the reads that are confirmed because a quorum has answered `round_number`."""
        answers = []
        while self._sent and self._sent[0][0] <= round_number:
            _, token, index = self._sent.popleft()
            answers.append(ReadAnswer(token, index))
        return answers

    def fail(self) -> list[ReadAnswer]:
        """Return every read as unanswerable, in the order of arrival."""
        tokens = [token for _, token, _ in self._sent]
        tokens += [token for token, _ in self._unsent]
        tokens += self._before_first_commit
        self._sent.clear()
        self._unsent.clear()
        self._before_first_commit.clear()
        return [ReadAnswer(token, None) for token in tokens]


class LeaderReads:
    """The reads that one leader answers in its term, its clients' and those of other servers."""

    def __init__(self, raft: Raft, has_committed_in_term: Callable[[], bool]) -> None:
        self._raft = raft
        self._has_committed_in_term = has_committed_in_term
        self._pending = PendingReads()
        self._is_asked_elsewhere = False
        """Whether a read that waits for a round is one of another server."""
        self.lease = Lease(raft.options, raft.server)

    @property
    def want_round(self) -> bool:
        """Whether a read waits for a send round that has not started."""
        return self._pending.want_round

    @property
    def is_unconfirmed(self) -> bool:
        """Whether a read waits for answers to a send round that has started."""
        return self._pending.is_unconfirmed

    @property
    def follows_answers(self) -> bool:
        """Whether it matters here which rounds were answered."""
        return self._pending.is_unconfirmed or self.lease.is_used

    def voters_to_ask(
        self, configuration: Configuration, rounds: Mapping[ServerId, int]
    ) -> Collection[ServerId]:
        """Return whom to ask in the round that the waiting reads want.

        If nothing else is waited for these are no more than needed, those that have answered last:
        a question costs two processes more than all the rest of a read. Otherwise all voters, so
        that no read waits for one that is slow; and so that whoever has asked hears with it what
        is committed.

        Args:
            rounds: the latest send round that each server has answered, if it counts.
        """
        voters = configuration.voters
        wants_all = configuration.is_joint or self._is_asked_elsewhere or self.is_unconfirmed
        if wants_all or self._raft.server not in voters:
            return configuration.all_voters
        others = [server for server in rounds if server in voters and server != self._raft.server]
        others.sort(key=lambda server: (-rounds[server], server))
        return others[: majority(len(voters)) - 1]

    def read(self, token: object) -> None:
        """Queue a linearizable read. See `Raft.read`."""
        _refuse_too_many(len(self._pending))
        self.take_over([token])

    def take_over(self, tokens: Iterable[object]) -> None:
        """Queue reads that it is too late to refuse."""
        commit_index = self._raft.log.commit_index if self._has_committed_in_term() else None
        for token in tokens:
            self._pending.add(token, commit_index)

    def on_read_index(self, source: ServerId, message: ReadIndex) -> None:
        """Take in the question of a server that answers reads itself.

        With too many waiting it is not answered; the server asks again.
        """
        token = RemoteRead(source, message.id)
        index = self.lease_index()
        if index is not None:
            self._raft.answer_reads([ReadAnswer(token, index)])
        elif len(self._pending) < PENDING_READS_MAX:
            self._is_asked_elsewhere = True
            self.take_over([token])

    def lease_index(self) -> Index | None:
        """Return what a read has to see that is answered by the lease. See `Raft.lease_index`."""
        is_held = self.lease.remaining_ns(self._raft.monotonic_ns) > 0
        return self._raft.log.commit_index if is_held and self._has_committed_in_term() else None

    def first_commit(self, commit_index: Index) -> None:
        """Let the early reads go on: the leader has committed an entry of its term."""
        self._pending.first_commit(commit_index)

    def round_started(self, round_number: int) -> None:
        """Note that requests of `round_number` are sent now or later, for every waiting read."""
        self._pending.round_started(round_number)
        self._is_asked_elsewhere = False
        self.lease.round_started(round_number, self._raft.monotonic_ns)

    def confirm(self, configuration: Configuration, rounds: Mapping[ServerId, int]) -> None:
        """Answer what a quorum of the configuration in force has confirmed.

        Args:
            rounds: the latest send round that each server has answered, if it counts.
        """
        self.lease.follow(configuration, rounds)
        confirmed = committed_index(configuration.voters, configuration.outgoing, rounds)
        if confirmed:
            self._raft.answer_reads(self._pending.confirmed(confirmed))

    def fail(self) -> list[ReadAnswer]:
        """Return every read as unanswerable, in the order of arrival."""
        return self._pending.fail()


class ForwardedReads:
    """The reads that a server which does not lead answers itself.

    They are asked about under ids that only grow; no id is used twice by a process, and by another
    process of the server only by a chance of one to billions of billions.
    """

    def __init__(self, options: Options, random: Random) -> None:
        self._options = options
        self._random = random
        self._waiting: deque[_Forwarded] = deque()
        """In the order of arrival, hence of ids and deadlines."""
        self._unasked = 0
        """How many of the last ones arrived after the latest question."""
        self._last_id = 0
        self._asked_tick = 0
        self._asked: tuple[Term, ServerId] | None = None
        """Who was asked last, as the leader of which term."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, token: object, now: int) -> None:
        """Note a read; it is given up after an election timeout, as `expired` says.

        Raises:
            ProposalDropped: too many wait.
        """
        _refuse_too_many(len(self._waiting))
        if not self._last_id:
            self._last_id = self._random.getrandbits(ID_BITS)
        deadline_tick = now + self._options.election_ticks
        self._waiting.append(_Forwarded(token, deadline_tick, self._last_id + 1))
        self._unasked += 1

    def ask(self, term: Term, leader: ServerId, now: int) -> int | None:
        """Return the id of the question that is due now; None if none is."""
        if not self._waiting:
            return None
        waited_ticks = now - self._asked_tick
        if (
            not self._unasked
            and self._asked == (term, leader)
            and waited_ticks < self._options.heartbeat_ticks
        ):
            return None
        self._last_id += 1
        self._unasked = 0
        self._asked, self._asked_tick = (term, leader), now
        return self._last_id

    def confirmed(self, id: int, index: Index) -> list[ReadAnswer]:
        """Return the reads that had arrived before question `id` was asked."""
        if id > self._last_id:
            # Of another process: it says nothing about what has arrived here.
            return []
        answers = []
        while self._waiting and self._waiting[0].id <= id:
            answers.append(ReadAnswer(self._waiting.popleft().token, index))
        return answers

    def expired(self, now: int) -> list[ReadAnswer]:
        """Give up the reads that have waited for an election timeout."""
        answers = []
        while self._waiting and self._waiting[0].deadline_tick <= now:
            answers.append(ReadAnswer(self._waiting.popleft().token, None))
        self._unasked = min(self._unasked, len(self._waiting))
        return answers

    def take_all(self) -> list[object]:
        """Give up all reads, and return their tokens in the order of arrival."""
        tokens = [forwarded.token for forwarded in self._waiting]
        self._waiting.clear()
        self._unasked = 0
        return tokens


def _refuse_too_many(waiting_count: int) -> None:
    if waiting_count >= PENDING_READS_MAX:
        raise ProposalDropped("too many reads are waiting")
