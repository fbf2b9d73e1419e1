"""Reads: who waits for an answer, and from when on the state may give it.

| asked | answered |
|---|---|
| anybody, and an old state will do | at once |
| the leader | once a quorum has confirmed that it leads, and what was committed then is applied |
| the leader, which holds a lease | once what is committed is applied: nearly always at once |
| another server, which is to answer itself | once it has applied what its leader tells it to |

Source: dissertation 6.4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

from raftd.core.errors import NotLeader, ProposalDropped
from raftd.core.leader import Leader
from raftd.core.lease import MS_NS, RESTART_ELECTION_TIMEOUTS
from raftd.core.raft import Raft
from raftd.core.reads import PENDING_READS_MAX
from raftd.core.ready import ReadAnswer
from raftd.core.types import Index, ServerId, server_name
from raftd.inputs import KeysArrived, LinkChanged, StateAsked
from raftd.portions import Portions
from raftd.protocol import (
    NOT_NOW,
    READ_INDEX_VERSION,
    ErrorReply,
    GetRequest,
    ListReply,
    ListRequest,
    Reply,
)
from raftd.replies import read_reply, unavailable
from raftd.state_seen import StateSeen
from raftd.storage.state import StateMachine
from raftd.surroundings import Identities, Settings

VALUES_BYTES_MAX = 16 * 1024 * 1024
"""Values read at once for many clients; what is beyond has to be asked again."""

Respond: TypeAlias = Callable[[Reply], None]


@attrs.frozen
class _Read:
    """What waits for the word of a leader, and then for the state machine."""

    run: Callable[[], None]
    """Answers, or begins what was asked, from a state that has all that was committed before."""
    failed: Respond
    deadline_tick: int | None = None
    """When this server gives up, where it depends on another one; None where it leads."""


class Reading:
    """The reads of one server, and what it owes to leaders that answer theirs by a lease."""

    def __init__(
        self,
        state: StateMachine,
        settings: Settings,
        uptime_ns: Callable[[], int],
        not_leader: Callable[[], ErrorReply],
        now_ms: Callable[[], int],
        portions: Portions,
    ) -> None:
        """Begin without reads.

        Args:
            uptime_ns: as `Node` has it.
            not_leader: returns what to answer where only the leader can; it names the leader.
            now_ms: returns cluster time.
            portions: of the turns, for answers of any length.
        """
        self._state = state
        self._settings = settings
        self._uptime_ns = uptime_ns
        self._not_leader = not_leader
        self._now_ms = now_ms
        self._portions = portions
        self._seen = StateSeen(state, now_ms)
        self._waiting: deque[tuple[Index, _Read]] = deque()
        """Until these indexes are applied; in the order of the leaders' words, which only grow."""
        self._bound_until_ns = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits that may have to be given up."""
        return not self._waiting

    # --- being asked ---

    def request(
        self,
        raft: Raft,
        links: Mapping[ServerId, LinkChanged],
        request: GetRequest | ListRequest,
        respond: Respond,
    ) -> None:
        """Answer a read of a client, as `read` does; without asking if an old state will do.

        Raises:
            NotLeader, ProposalDropped: as `read`; it is not answered.
        """

        def answer() -> None:
            reply = read_reply(self._state, request, self._now_ms)
            if isinstance(reply, ListReply):
                content_bytes = sum([len(each.key) + len(each.value) for each in reply.entries])
                self._portions.spend(content_bytes, 1 + len(reply.entries))
            else:
                self._portions.spend(len(reply.value))
            respond(reply)

        def run() -> None:
            self._portions.do(answer)

        if request.stale:
            run()
        else:
            self.read(raft, links, run, respond, here=request.through_follower)

    def read(
        self,
        raft: Raft,
        links: Mapping[ServerId, LinkChanged],
        run: Callable[[], None],
        failed: Respond,
        *,
        here: bool,
    ) -> None:
        """Call `run` once the state has all that was committed when this was called.

        Args:
            links: the latest news of the connections to the others.
            failed: called instead, with the answer, if that cannot be known in time.
            here: whether to ask the leader how far that is, where this server is not it.

        Raises:
            NotLeader: only the leader can, or the leader is not known. Neither is called.
            ProposalDropped: too many reads wait. Neither is called.
        """
        if isinstance(raft.role, Leader):
            self._read_as_leader(raft, _Read(run, failed))
        elif here and _leader_understands(raft, links):
            deadline_tick = raft.now + raft.options.election_ticks
            raft.read_here(_Read(run, failed, deadline_tick))
        else:
            raise NotLeader(raft.leader_id)

    def arrived(self, raft: Raft, arrived: KeysArrived | StateAsked) -> None:
        """Answer reads that many clients may have asked for, as one."""

        def run() -> None:
            if isinstance(arrived, KeysArrived):
                arrived.respond(self._state.values(arrived.keys, VALUES_BYTES_MAX))
            else:
                arrived.answer(self._seen)

        try:
            if arrived.stale:
                run()
            elif isinstance(raft.role, Leader):
                self._read_as_leader(raft, _Read(run, arrived.failed))
            else:
                arrived.failed(self._not_leader())
        except ProposalDropped as refusal:
            arrived.failed(unavailable(NOT_NOW, str(refusal)))

    def confirm(self, raft: Raft, run: Callable[[], None], failed: Respond) -> None:
        """Call `run` once a quorum has confirmed that this server leads, or else `failed`.

        By then all is applied that was committed when this was called. No lease is enough for it.

        Raises:
            NotLeader, ProposalDropped: neither is called.
        """
        raft.read(_Read(run, failed))

    def _read_as_leader(self, raft: Raft, read: _Read) -> None:
        if self._settings.reads_by_lease:
            # Now, after the read has come: whatever stops this process from here on, nobody else
            # can have acknowledged anything before the read came.
            raft.monotonic_ns = self._uptime_ns()
            index = raft.lease_index()
            if index is not None:
                if len(self._waiting) >= PENDING_READS_MAX:
                    raise ProposalDropped("too many reads are waiting")
                self._answer_at(index, read)
                return
        raft.read(read)

    # --- answering ---

    def answered(self, answer: ReadAnswer) -> None:
        """Take in what the core says about a read."""
        read = answer.token
        assert isinstance(read, _Read)
        if answer.read_index is not None:
            self._answer_at(answer.read_index, read)
        elif read.deadline_tick is None:
            read.failed(self._not_leader())
        else:
            read.failed(self._late("its leader has not said in time how far its state has to be"))

    def applied(self) -> None:
        """Answer those that have waited for what is applied now."""
        while self._waiting and self._waiting[0][0] <= self._state.applied_index:
            self._waiting.popleft()[1].run()

    def _answer_at(self, index: Index, read: _Read) -> None:
        if index <= self._state.applied_index:
            read.run()
        else:
            self._waiting.append((index, read))

    def _late(self, why: str) -> ErrorReply:
        """Return the answer to a read that only the leader can answer now, and who that is."""
        known = self._not_leader()
        return attrs.evolve(
            unavailable("the read could not be answered here", why),
            leader=known.leader,
            leader_address=known.leader_address,
        )

    # --- time ---

    def started(self, raft: Raft, identities: Identities) -> None:
        """Keep what an earlier process may have promised; note durably what this one will promise.

        To be called after a start, before any message is taken in.

        Raises:
            StorageFault: the disk failed.
        """
        identity = identities.identity
        promised_ms = max(identity.vote_withheld_ms, raft.options.vote_withheld_ms)
        if not promised_ms:
            return
        length_ns = RESTART_ELECTION_TIMEOUTS * promised_ms * MS_NS
        self._bound_until_ns = self._uptime_ns() + length_ns
        raft.withhold_vote(self._bound_until_ns)
        if promised_ms > identity.vote_withheld_ms:
            identities.publish(attrs.evolve(identity, vote_withheld_ms=promised_ms))

    def tick(self, raft: Raft, identities: Identities) -> None:
        """Give up what has waited for too long; forget promises that have ended.

        Raises:
            StorageFault: the disk failed.
        """
        identity, promised_ms = identities.identity, raft.options.vote_withheld_ms
        if identity.vote_withheld_ms > promised_ms and self._uptime_ns() >= self._bound_until_ns:
            identities.publish(attrs.evolve(identity, vote_withheld_ms=promised_ms))
        waiting, self._waiting = self._waiting, deque()
        for index, read in waiting:
            if read.deadline_tick is None or raft.now < read.deadline_tick:
                self._waiting.append((index, read))
            else:
                name, applied = server_name(raft.server), self._state.applied_index
                read.failed(self._late(f"{name} has applied {applied:,} of {index:,} entries"))

    def lease_remaining_ms(self, raft: Raft) -> float | None:
        """Return for how long this server holds a lease; None if it does not lead or use any."""
        leader = raft.role
        if not self._settings.reads_by_lease or not isinstance(leader, Leader):
            return None
        raft.monotonic_ns = self._uptime_ns()
        if not leader.has_committed_in_term:
            return 0.0
        return leader.reads.lease.remaining_ns(raft.monotonic_ns) / MS_NS


def _leader_understands(raft: Raft, links: Mapping[ServerId, LinkChanged]) -> bool:
    """Return whether the leader can be asked how far a state has to be."""
    link = links.get(raft.leader_id or "")
    return link is not None and link.connected and link.version >= READ_INDEX_VERSION
