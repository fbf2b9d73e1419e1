"""Class `Raft`: one server's part in the protocol, without clock, disk, network or randomness.

Inputs are method calls; everything to be done comes out of `take_ready`. What a leader alone does
stands in `raftd.core.leader`.

Source: Figure 2 of the paper ("Rules for Servers"), dissertation chapters 3, 4, 6 and 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeAlias

from raftd.core.election import Candidate as Candidate
from raftd.core.election import Follower as Follower
from raftd.core.election import PreCandidate as PreCandidate
from raftd.core.election import give_way_ticks
from raftd.core.errors import Divergence, NotLeader
from raftd.core.leader import Leader
from raftd.core.lease import VotePromise
from raftd.core.log import RaftLog, is_well_formed
from raftd.core.membership import ConfigurationAt, MembershipChange
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    PreVote,
    PreVoteResponse,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    StateCheck,
    StateCheckResponse,
    StateVerdict,
    TimeoutNow,
    answer_to_stale,
)
from raftd.core.options import Options
from raftd.core.quorum import VoteResult, vote_result
from raftd.core.reads import ForwardedReads, send_to_others
from raftd.core.ready import Chunk, ReadAnswer, Ready
from raftd.core.receiving import SnapshotReceiver
from raftd.core.role_changes import RoleChanges, Why
from raftd.core.snapshot import Snapshot, SnapshotId, included_index
from raftd.core.status import Status
from raftd.core.types import Entry, HardState, Index, ServerId, Term
from raftd.core.view import addresses_of, snapshots_in_use, status_of

APPLY_ENTRIES_MAX = 512
"""Committed entries handed out at once: bounds one transaction of the state machine, and so how
long heartbeats and votes wait for it (some 10 ms)."""
APPLY_BYTES_MAX = 256 * 1024
"""Bytes of committed entries handed out at once, but always at least one entry. Commands may have
many keys: as many as fit into this are applied in less than an election timeout."""


Role: TypeAlias = Follower | PreCandidate | Candidate | Leader


class Raft:
    """One server of a Raft group.

    The contract with the driver: after any inputs, call `take_ready` until it returns None; do
    what each `Ready` says in its order; `persisted` comes in between. Between
    `take_ready` and `persisted` no other input is allowed. Nothing here raises because of what a
    peer sent, short of proof that the group has diverged. Iteration is sorted and the random
    generator is handed in, so equal inputs give equal outputs.
    """

    def __init__(
        self,
        *,
        server: ServerId,
        log: RaftLog,
        hard_state: HardState,
        options: Options,
        random: Random,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Start as a follower from what recovery found on disk.

        Args:
            server: this server's name and incarnation.
            log: all of it durable.
            snapshot: the newest one, which begins where the log does or later.
            hard_state: the durable term and vote.
            options: time-outs in ticks.
            random: for the election time-outs, and where the ids of `ReadIndex` begin.
        """
        self.server = server
        self.log = log
        self.snapshot = snapshot
        """The newest durable snapshot of this server's own state."""
        self.options = options
        self.current_term: Term = hard_state.current_term
        self.voted_for: ServerId | None = hard_state.voted_for
        self.leader_id: ServerId | None = None
        self.role: Role = Follower()
        self.now = 0
        """Ticks since the start."""
        self.behind_tick = -1
        """When it heard last, with entries, that more than these are committed; -1 for never."""
        self.wall_clock_ms = 0
        """Set by the driver; stamped on configurations and no-ops for people, never compared."""
        self.monotonic_ns = 0
        """Set by the driver before it puts inputs in that have arrived by then, and before it asks
        for `lease_index`: nanoseconds of a clock that is never set back and counts while the
        machine sleeps. Only leases go by it."""
        self.is_short_of_space = False
        """Set by the driver; a leader hears of it."""
        self.rollback_note = ""
        """Set by the driver; follows the reason where this leader itself undoes a joint change, for
        people only."""
        self.role_changes = RoleChanges()
        self._random = random
        self._durable_hard_state = hard_state
        self._leader_contact_tick: int | None = None
        self._vote_promise = VotePromise(options)
        self._forwarded_reads = ForwardedReads(options, random)
        self._election_elapsed_ticks = 0
        self._election_timeout_ticks = 0
        self._messages: list[Envelope] = []
        self._early_messages: list[Envelope] = []
        self._reads: list[ReadAnswer] = []
        self._lost_leadership = False
        self._receiver = SnapshotReceiver(self)
        self._restore: Snapshot | None = None
        self._chunks_to_send: list[Chunk] = []
        self._chunks_received: list[Envelope] = []
        self._outstanding: Ready | None = None
        self._reset_election_timer()

    # --- inputs ---

    def tick(self) -> None:
        """Let one tick pass. Put waiting messages in first: own slowness is no one's death."""
        self._assert_settled()
        self.now += 1
        if isinstance(self.role, Leader):
            self.role.tick()
            return
        self._reads += self._forwarded_reads.expired(self.now)
        self._election_elapsed_ticks += 1
        if self._election_elapsed_ticks >= self._election_timeout_ticks:
            if self._vote_promise.binds(self.monotonic_ns):
                # Its own vote is one, too. A tick may come early where the one before came late.
                return
            self._reset_election_timer()
            if self.may_campaign():
                self._pre_campaign()
            else:
                self.leader_id = None
        elif (
            isinstance(self.role, PreCandidate | Candidate)
            and self._election_elapsed_ticks % self.options.heartbeat_ticks == 0
        ):
            self._heartbeat_passed(self.role)

    def quiet_ticks(self) -> int:
        """Return how many ticks may pass in which nothing is due, if nothing else happens.

        A driver that has nothing else to do may sleep for so long, and then call `pass_quietly`
        before the next input.
        """
        role = self.role
        if isinstance(role, Leader):
            return role.quiet_ticks()
        if isinstance(role, Follower) and not self._forwarded_reads:
            return max(self._election_timeout_ticks - self._election_elapsed_ticks - 1, 0)
        return 0

    def pass_quietly(self, ticks: int) -> None:
        """Let so many ticks pass as `tick` would, at most `quiet_ticks`."""
        self._assert_settled()
        assert 0 <= ticks <= self.quiet_ticks()
        self.now += ticks
        if isinstance(self.role, Leader):
            self.role.pass_quietly(ticks)
        else:
            self._election_elapsed_ticks += ticks

    def step(self, envelope: Envelope) -> None:
        """Take in a message; one that is late, repeated or malformed changes and raises nothing.

        Raises:
            Divergence: the message proves that the group has diverged: a second leader of this
                server's own term, or another entry at a committed index.
        """
        self._assert_settled()
        if envelope.dest != self.server or envelope.source == self.server:
            return
        source, message = envelope.source, envelope.message
        assert not isinstance(message, StateCheck | StateCheckResponse | StateVerdict)
        if not self._obey_term(source, message):
            return
        match message:
            case PreVote():
                self._on_pre_vote(source, message)
            case PreVoteResponse():
                self._on_pre_vote_response(source, message)
            case RequestVote():
                self._on_request_vote(source, message)
            case RequestVoteResponse():
                self._on_request_vote_response(source, message)
            case AppendEntries():
                self._on_append_entries(source, message)
            case AppendEntriesResponse():
                if isinstance(self.role, Leader):
                    self.role.on_append_entries_response(source, message)
            case TimeoutNow():
                self._on_timeout_now(source)
            case InstallSnapshot():
                self._on_install_snapshot(source, message)
            case InstallSnapshotResponse():
                if isinstance(self.role, Leader):
                    self.role.on_install_snapshot_response(source, message)
            case ReadIndex():
                if isinstance(self.role, Leader):
                    self.role.reads.on_read_index(source, message)
            case ReadIndexResponse(id=id, index=index) if index is not None:
                self._reads += self._forwarded_reads.confirmed(id, index)

    def campaign(self) -> None:
        """Start an election now instead of at the time-out, if this server may and leads not."""
        self._assert_settled()
        is_bound = self._vote_promise.binds(self.monotonic_ns)
        if not isinstance(self.role, Leader) and self.may_campaign() and not is_bound:
            self._reset_election_timer()
            self._pre_campaign(Why.ASKED)

    def propose(self, command: bytes) -> tuple[Term, Index]:
        """Append a command and return its position; it is neither durable nor committed yet.

        Raises:
            NotLeader: nothing was appended; ask the leader that it names.
            ProposalDropped: nothing was appended; try again later.
        """
        term, index, _ = self.leader().propose((command,))
        return term, index

    def propose_all(self, commands: Sequence[bytes]) -> tuple[Term, Index, int]:
        """Append commands, at least one, in their order, as many as may be uncommitted at a time.

        Returns:
            The term, the index of the first one, and how many were appended: these are not durable
            yet. Of the others nothing was; try again later.

        Raises:
            NotLeader: nothing was appended; ask the leader that it names.
            ProposalDropped: nothing was appended; try again later.
        """
        return self.leader().propose(commands)

    def change_membership(self, change: MembershipChange) -> tuple[Term, Index]:
        """Append a configuration: simple where no vote changes, else C_old,new.

        It is in force at once. C_new follows by itself when C_old,new is committed.

        Raises:
            NotLeader, ChangeInProgress, StaleConfiguration, NotCaughtUp, MembershipError:
                nothing was appended; the message says which rule stands against it.

        Source: paper section 6, dissertation chapter 4.
        """
        return self.leader().change_membership(change)

    def abort_membership_change(self, reason: str) -> tuple[Term, Index]:
        """Append C_old again, which ends a joint change that has not appended C_new.

        Raises:
            NotLeader: this server does not lead.
            AbortRefused: no joint change, past the point of no return, or not yet safe.
        """
        return self.leader().abort_membership_change(reason)

    def transfer_leadership(self, target: ServerId) -> None:
        """Hand leadership to `target`; proposals pause for at most one election timeout.

        Raises:
            NotLeader: this server does not lead.
            TransferRefused: `target` is no voter, out of contact, or the leader itself.

        Source: dissertation section 3.10.
        """
        self.leader().start_transfer(target)

    def read(self, token: object) -> None:
        """Ask for a linearizable read; `Ready.reads` answers it with `token` later.

        Raises:
            NotLeader: ask the leader that it names.
            ProposalDropped: too many reads wait; try again later.
        """
        self.leader().reads.read(token)

    def read_here(self, token: object) -> None:
        """Ask for a linearizable read that this server answers, whether it leads or not.

        `Ready.reads` answers it with `token`, within an election timeout where this server does not
        lead: then it asks its leader up to where its own state has to be.

        Raises:
            NotLeader: it knows no leader.
            ProposalDropped: too many reads wait; try again later.

        Source: dissertation section 6.4.
        """
        self._assert_settled()
        if isinstance(self.role, Leader):
            self.role.reads.read(token)
        elif self.leader_id is None:
            raise NotLeader(None)
        else:
            self._forwarded_reads.add(token, self.now)

    def lease_index(self) -> Index | None:
        """Return the index that a read has to see which had arrived when `monotonic_ns` was read.

        None where this server does not hold a lease then: a read takes a round.

        Source: dissertation section 6.4.1.
        """
        return self.role.lease_index() if isinstance(self.role, Leader) else None

    def withhold_vote(self, until_ns: int) -> None:
        """Vote for nobody before then, by `monotonic_ns`: an earlier process may have promised it.

        To be called after a start. The first election timeout follows the end of it, so that not
        all who start together campaign in that moment.
        """
        self._vote_promise.withhold(until_ns)
        self._election_timeout_ticks += self.options.election_ticks

    def report_unreachable(self, server: ServerId, *, process_ended: bool = False) -> None:
        """Note that what was sent to `server` may be lost, so that it is probed again.

        Args:
            process_ended: it is known to be gone, not only out of reach. If it led, there is
                nothing to wait for. That needs no proof: where others still hear the leader they
                refuse this server, and its next heartbeat makes this server a follower again.
        """
        self._assert_settled()
        if isinstance(self.role, Leader):
            self.role.report_unreachable(server)
        elif process_ended and server == self.leader_id:
            self.leader_id = self._leader_contact_tick = None
            self._campaign_early(Why.LEADER_ENDED, server)

    def report_connected(self, server: ServerId) -> None:
        """Note that there is a link to `server` now, so that nothing waits for a heartbeat."""
        self._assert_settled()
        if isinstance(self.role, Leader):
            self.role.report_connected(server)

    # --- snapshots ---

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        """Note that a snapshot of this server's own state is durable. `compact` may follow."""
        self._assert_settled()
        assert snapshot.id.last_included_index <= self.log.handed_index
        if included_index(snapshot) > self.snapshot_index:
            self.snapshot = snapshot

    def compact(self, index: Index) -> None:
        """Drop the entries up to and including `index`, at or below the newest snapshot's last.

        Whoever needs them afterwards is sent the snapshot instead.
        """
        self._assert_settled()
        assert index <= self.snapshot_index
        self.log.compact(index)

    def snapshots_in_use(self) -> frozenset[SnapshotId]:
        """Return the snapshots that have to stay readable: the newest, and what is being sent."""
        return snapshots_in_use(self)

    def snapshot_progress(
        self, snapshot: SnapshotId, received_bytes: int, installed_bytes: int
    ) -> None:
        """Tell the leader how much there is of the snapshot that it is sending.

        Call it for each of `Ready.chunks_received`, and whenever there is more of it. Of a
        snapshot that nobody sends any more it does nothing.
        """
        self._assert_settled()
        self._receiver.progressed(snapshot, received_bytes, installed_bytes)

    def snapshot_received(self, snapshot: Snapshot) -> bool:
        """Decide about a snapshot that was received whole and is ready to be put in force.

        Returns:
            Whether the next `Ready` puts it in force. Not if it is at or below the commit index by
            now, or if this server leads: then it needs it no more.
        """
        self._assert_settled()
        incoming = self._receiver.end()
        # A leader has every committed entry, and follows what commits entry by entry.
        is_needed = snapshot.id.last_included_index > self.log.commit_index and not isinstance(
            self.role, Leader
        )
        if is_needed:
            if not isinstance(self.role, Follower):
                # It asked for votes for another log, perhaps under another configuration.
                self._become_follower(self.current_term, None, Why.SNAPSHOT)
            self.log.restore(snapshot)
            self.snapshot = self._restore = snapshot
        self._receiver.answer_whole(incoming, snapshot)
        return is_needed

    @property
    def snapshot_index(self) -> Index:
        """What the newest snapshot of this server includes; 0 without one."""
        return included_index(self.snapshot)

    @property
    def incoming_snapshot(self) -> SnapshotId | None:
        """The snapshot that a leader is sending, if one is."""
        return self._receiver.snapshot

    # --- outputs ---

    def take_ready(self, *, hands_out: bool = True) -> Ready | None:
        """Return everything outstanding, or None. Call `persisted` with it before any input.

        Args:
            hands_out: whether committed entries may be among it. A driver with many of them to
                apply does something else in between.
        """
        self._assert_settled()
        if isinstance(self.role, Leader):
            self.role.send_outstanding()
        elif self.leader_id is not None and self._forwarded_reads:
            self._ask_for_read_index(self.leader_id)
        log = self.log
        entries = log.unpersisted()
        committed = self._next_committed() if hands_out else ()
        hard_state = self._undurable_hard_state()
        if not (
            entries
            or committed
            or hard_state is not None
            or self._early_messages
            or self._messages
            or self._reads
            or self._restore is not None
            or self._chunks_to_send
            or self._chunks_received
            or self._lost_leadership
        ):
            return None
        ready = Ready(
            early_messages=tuple(self._early_messages),
            hard_state=hard_state,
            entries=entries,
            messages=tuple(self._messages),
            committed=committed,
            reads=tuple(self._reads),
            restore=self._restore,
            chunks_to_send=tuple(self._chunks_to_send),
            chunks_received=tuple(self._chunks_received),
            lost_leadership=self._lost_leadership,
            term=self.current_term,
        )
        self._early_messages.clear()
        self._messages.clear()
        self._reads.clear()
        self._restore = None
        self._chunks_to_send.clear()
        self._chunks_received.clear()
        self._lost_leadership = False
        if committed:
            log.handed_index = committed[-1].index
        self._outstanding = ready
        return ready

    def persisted(self, ready: Ready) -> None:
        """Note that `ready.hard_state` and `ready.entries` are durable.

        From here on this server's own vote and its own match count, not before: a vote or an
        entry that a crash can take back must not have decided anything.
        """
        assert ready is self._outstanding, "persisted() must get the latest Ready"
        self._outstanding = None
        if ready.hard_state is not None:
            self._durable_hard_state = ready.hard_state
        if ready.entries:
            self.log.durable_index = ready.entries[-1].index
        if isinstance(self.role, Candidate):
            self.role.votes.setdefault(self.server, True)
            self._count_votes(self.role)
        elif isinstance(self.role, Leader) and (ready.entries or ready.hard_state):
            self.role.advance_commit_index()

    def status(self) -> Status:
        """Return a frozen view of this server, for people, metrics and simulators."""
        return status_of(self)

    # --- what others ask ---

    @property
    def configuration(self) -> ConfigurationAt | None:
        """The configuration in force: the latest one in the log, committed or not."""
        return self.log.configurations.latest

    @property
    def durable_term(self) -> Term:
        """The term that a restart would find."""
        return self._durable_hard_state.current_term

    @property
    def leader_contact_age(self) -> int | None:
        """The ticks since the leader that is followed was heard; None if it never was."""
        heard = self._leader_contact_tick
        return None if heard is None else self.now - heard

    def leader(self) -> Leader:
        """Return the leader's side of this server.

        Raises:
            NotLeader: it does not lead.
        """
        self._assert_settled()
        if not isinstance(self.role, Leader):
            raise NotLeader(self.leader_id)
        return self.role

    def addresses(self) -> Mapping[ServerId, str]:
        """Return HOST:PORT of every server that this one may have to talk to on its own."""
        return addresses_of(self)

    def may_campaign(self) -> bool:
        """Return whether this server may start an election."""
        return self.log.configurations.may_campaign(self.server, self.log.commit_index)

    # --- for the leader's side ---

    def send(self, dest: ServerId, message: Message) -> None:
        """Queue a message. Only what needs nothing from this server's disk goes out early."""
        envelope = Envelope(self.server, dest, message)
        # Dissertation 10.2.1: the leader replicates while its own disk works; but no message of a
        # term may leave before that term is durable.
        early = isinstance(message, PreVote) or (
            isinstance(message, AppendEntries) and message.term <= self.durable_term
        )
        (self._early_messages if early else self._messages).append(envelope)

    def send_chunk(self, chunk: Chunk) -> None:
        """Queue a part of a snapshot; the driver has its bytes."""
        self._chunks_to_send.append(chunk)

    def answer_reads(self, answers: list[ReadAnswer]) -> None:
        """Queue the answers of reads, also those for other servers."""
        self._reads += send_to_others(self, answers)

    def step_down(self, why: Why) -> None:
        """Become a follower in the same term; the vote stays as it is."""
        self._become_follower(self.current_term, None, why)

    # --- terms and transitions ---

    def _undurable_hard_state(self) -> HardState | None:
        """Return term and vote if the disk does not have them, else None."""
        durable = self._durable_hard_state
        if durable.current_term == self.current_term and durable.voted_for == self.voted_for:
            return None
        return HardState(self.current_term, self.voted_for)

    def _assert_settled(self) -> None:
        assert self._outstanding is None, "persisted() is owed for the last Ready"

    def _obey_term(self, source: ServerId, message: Message) -> bool:
        """Apply the rule for terms of Figure 2; return whether the message is to be handled.

        "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to
        follower." The one place where a term is adopted.
        """
        if isinstance(message, PreVote):
            return True
        if isinstance(message, PreVoteResponse):
            if not message.vote_granted and message.term > self.current_term:
                # A refusal shows a term in which we could not win: adopt it, or the group could
                # stay without a leader for ever, each refusing the other.
                self._learn_term(source, message.term)
            return True
        if message.term < self.current_term:
            answer = answer_to_stale(message, self.current_term, self.log.commit_index)
            if answer is not None:
                self.send(source, answer)
            return False
        if (
            isinstance(message, RequestVote)
            and not message.leadership_transfer
            and self._is_in_contact_with_leader()
        ):
            # Dissertation 4.2.3: a server that was removed, or cut off, must not depose a leader
            # that works. Its term is not adopted.
            self._answer_vote(source, message, granted=False)
            return False
        if message.term > self.current_term:
            self._become_follower(message.term, None, Why.HIGHER_TERM, source)
        return True

    def _learn_term(self, source: ServerId, term: Term) -> None:
        """Adopt the term of a refused pre-vote; who was asking asks anew a moment later.

        Its time-out has passed already, and a refusal for the term says nothing about the log. But
        not at once: the election of that term may just be won.
        """
        asks = isinstance(self.role, PreCandidate)
        self._become_follower(term, None, Why.HIGHER_TERM, source)
        if asks:
            self._election_timeout_ticks = give_way_ticks(self.options)

    def _is_in_contact_with_leader(self) -> bool:
        """Return whether a live leader was heard within the minimum election timeout.

        Whoever has promised to withhold its vote counts as one who has, whatever came since.
        """
        if self._vote_promise.binds(self.monotonic_ns):
            return True
        if isinstance(self.role, Leader):
            return self.role.in_contact_with_quorum()
        age = self.leader_contact_age
        return self.leader_id is not None and age is not None and age < self.options.election_ticks

    def _reset_election_timer(self) -> None:
        """Choose the next time-out from [T, 2T), so that split votes are rare (paper 5.2)."""
        ticks = self.options.election_ticks
        self._election_elapsed_ticks = 0
        self._election_timeout_ticks = ticks + self._random.randrange(ticks)

    def _become_follower(
        self,
        term: Term,
        leader_id: ServerId | None,
        why: Why = Why.LEADER_HEARD,
        server: ServerId | None = None,
    ) -> None:
        assert term >= self.current_term
        if leader_id is not None and term == self.current_term and type(self.role) is Follower:
            self.leader_id = leader_id
            return
        if isinstance(self.role, Leader):
            self.answer_reads(self.role.end())
            self._lost_leadership = True
        if leader_id is None:
            self._leader_contact_tick = None
        if term > self.current_term:
            self.current_term = term
            # Only a new term frees the vote: a step-down within the term keeps it, or a second
            # candidate of this term could win with it.
            self.voted_for = None
        if not isinstance(self.role, Follower):
            self.role_changes.note(self, "follower", why, term=term, server=server or leader_id)
            self._reset_election_timer()
        self.role = Follower()
        self.leader_id = leader_id

    def _pre_campaign(self, why: Why = Why.SILENCE, server: ServerId | None = None) -> None:
        """Ask everybody whether an election could be won (dissertation 9.6)."""
        assert self.may_campaign()
        self.role_changes.note(self, "precandidate", why, term=self.current_term, server=server)
        self.leader_id = None
        self._leader_contact_tick = None
        request = PreVote(self.current_term + 1, self.log.last_index, self.log.last_term)
        self.role = PreCandidate(self.server, request, votes={self.server: True})
        self._ask_voters(self.role)
        self._count_votes(self.role)

    def _campaign(self, *, leadership_transfer: bool = False) -> None:
        """Start an election (Figure 2, "Candidates"). The own vote counts once it is durable."""
        assert self.may_campaign()
        why = Why.TRANSFER if leadership_transfer else Why.PRE_VOTES
        self.current_term += 1
        self.role_changes.note(self, "candidate", why, term=self.current_term)
        self.voted_for = self.server
        self.leader_id = None
        self._leader_contact_tick = None
        request = RequestVote(
            self.current_term,
            self.log.last_index,
            self.log.last_term,
            leadership_transfer=leadership_transfer,
        )
        self.role = Candidate(self.server, request, votes={})
        self._reset_election_timer()
        self._ask_voters(self.role)

    def _ask_voters(self, role: PreCandidate | Candidate) -> None:
        """Ask every voter of either half whose answer is open."""
        latest = self.configuration
        assert latest is not None
        for server in role.open_voters(latest.configuration.all_voters - {self.server}):
            self.send(server, role.request)

    def _heartbeat_passed(self, role: PreCandidate | Candidate) -> None:
        """Go on with an election that is not decided yet."""
        if isinstance(role, Candidate) and role.tries_again(
            self._election_elapsed_ticks, self.options
        ):
            self._reset_election_timer()
            self._pre_campaign(Why.SPLIT_VOTE, role.rival)
            return
        # Paper 5.1: requests that are not answered in time are sent again. A new voter's links may
        # come up only after it has been told to take over.
        self._ask_voters(role)
        # A pre-candidate may have waited for nothing but the moment.
        self._count_votes(role)

    def _count_votes(self, role: PreCandidate | Candidate) -> None:
        """Move on if the election is decided, under both majorities while joint."""
        latest = self.configuration
        assert latest is not None
        configuration = latest.configuration
        result = vote_result(configuration.voters, configuration.outgoing, role.votes)
        if isinstance(role, PreCandidate):
            # Refusals end nothing: they cost no term, and may be taken back a moment later.
            if result is VoteResult.WON and role.is_ready(self.now):
                self._campaign()
        elif result is VoteResult.LOST and not role.goes_first:
            self._become_follower(self.current_term, None, Why.REFUSED)
        elif result is VoteResult.WON:
            self._become_leader()

    def _become_leader(self) -> None:
        assert isinstance(self.role, Candidate)
        self.role_changes.note(self, "leader", Why.VOTES, term=self.current_term)
        self.leader_id = self.server
        self.role = Leader(self)
        self.role.begin()
        self.role.reads.take_over(self._forwarded_reads.take_all())

    # --- handlers ---

    def _on_pre_vote(self, source: ServerId, message: PreVote) -> None:
        """Answer whether we would vote; nothing changes here, not even the timer.

        Receivers are blind to membership (dissertation 4.2.2): a vote from a server that does not
        count itself may be the one that is missing.
        """
        granted = (
            message.term > self.current_term
            and not self._is_in_contact_with_leader()
            and self.log.is_up_to_date(message.last_log_term, message.last_log_index)
        )
        self.send(source, PreVoteResponse(self.current_term, message.term, granted))
        if granted and isinstance(self.role, PreCandidate):
            self.role.give_way(source, message, self.now, self.options)
        elif (
            not self.log.is_up_to_date(message.last_log_term, message.last_log_index)
            and self._election_elapsed_ticks >= self.options.election_ticks
        ):
            # It has noticed first that there is no leader, and cannot win. This server has waited
            # for the minimum election timeout as well: the rest of its time-out would be lost.
            self._campaign_early(Why.RIVAL, source)

    def _campaign_early(self, why: Why, server: ServerId) -> None:
        """Ask for pre-votes before the time-out, unless this server is bound to a leader."""
        if (
            isinstance(self.role, Follower)
            and not self._is_in_contact_with_leader()
            and self.may_campaign()
        ):
            self._reset_election_timer()
            self._pre_campaign(why, server)

    def _on_pre_vote_response(self, source: ServerId, message: PreVoteResponse) -> None:
        if not isinstance(self.role, PreCandidate):
            return
        if message.request_term != self.current_term + 1:
            return
        if message.vote_granted:
            self.role.votes[source] = True
        self.role.votes.setdefault(source, False)
        self._count_votes(self.role)

    def _on_request_vote(self, source: ServerId, message: RequestVote) -> None:
        """Figure 2, RequestVote receiver: vote at most once a term, for a log as complete."""
        granted = self.voted_for in (None, source) and self.log.is_up_to_date(
            message.last_log_term, message.last_log_index
        )
        if granted:
            self.voted_for = source
            self._reset_election_timer()
        elif isinstance(self.role, Candidate):
            self.role.met(source)
        self._answer_vote(source, message, granted=granted)

    def _answer_vote(self, source: ServerId, request: RequestVote, *, granted: bool) -> None:
        self.send(source, RequestVoteResponse(self.current_term, granted, request.term))

    def _on_request_vote_response(self, source: ServerId, message: RequestVoteResponse) -> None:
        if not isinstance(self.role, Candidate):
            return
        if message.request_term not in (0, self.current_term):
            # It refuses a late copy of a request of an older term, which says nothing about this.
            return
        if message.vote_granted:
            # Of an older release a refusal may be late, a vote may not.
            self.role.votes[source] = True
        self.role.votes.setdefault(source, False)
        self._count_votes(self.role)

    def _on_append_entries(self, source: ServerId, message: AppendEntries) -> None:
        """Figure 2, AppendEntries receiver."""
        if isinstance(self.role, Leader):
            raise Divergence(f"{source} leads in term {self.current_term}, as this server does")
        if not is_well_formed(message):
            return
        self._become_follower(self.current_term, source)
        self._leader_contact_tick = self.now
        self._vote_promise.heard_leader(self.monotonic_ns)
        self._election_elapsed_ticks = 0
        log = self.log
        prev = message.prev_log_index
        log.check_base(prev, message.prev_log_term)
        # What a snapshot covers is committed, so it matches by definition.
        if prev > log.base_index and log.term_at(prev) != message.prev_log_term:
            self._refuse_append(source, message)
            return
        log.merge(message.entries)
        last_verified = prev + len(message.entries)
        if message.entries and message.leader_commit > last_verified:
            self.behind_tick = self.now
        log.leader_commit_index = message.leader_commit
        # Not further than this message has verified: what follows may be a stale suffix.
        log.commit_index = max(log.commit_index, min(message.leader_commit, last_verified))
        self.send(
            source,
            AppendEntriesResponse(
                term=self.current_term,
                success=True,
                round=message.round,
                match_index=last_verified,
                commit_index=log.commit_index,
                short_of_space=self.is_short_of_space,
                vote_withheld_ms=self.options.vote_withheld_ms,
            ),
        )

    def _refuse_append(self, source: ServerId, message: AppendEntries) -> None:
        """Say where the logs may part, so that the leader need not try entry by entry (5.3)."""
        log = self.log
        conflict_term = log.term_at(message.prev_log_index)
        self.send(
            source,
            AppendEntriesResponse(
                term=self.current_term,
                success=False,
                round=message.round,
                match_index=message.prev_log_index,
                commit_index=log.commit_index,
                conflict_term=conflict_term or 0,
                conflict_index=(
                    log.last_index + 1
                    if conflict_term is None
                    else log.term_first_index(message.prev_log_index)
                ),
                last_log_index=log.last_index,
                short_of_space=self.is_short_of_space,
                vote_withheld_ms=self.options.vote_withheld_ms,
            ),
        )

    def _on_install_snapshot(self, source: ServerId, message: InstallSnapshot) -> None:
        """Figure 13, receiver: take a part of a snapshot from the leader."""
        if isinstance(self.role, Leader):
            raise Divergence(f"{source} leads in term {self.current_term}, as this server does")
        if message.snapshot.last_included_term > message.term:
            return
        self._become_follower(self.current_term, source)
        self._leader_contact_tick = self.now
        self._election_elapsed_ticks = 0
        if self._receiver.take_part(source, message):
            self._chunks_received.append(Envelope(source, self.server, message))

    def _on_timeout_now(self, source: ServerId) -> None:
        """Campaign at once, without pre-vote, because our own leader asks for it (3.10)."""
        if source == self.leader_id and self.may_campaign():
            self._campaign(leadership_transfer=True)

    def _ask_for_read_index(self, leader: ServerId) -> None:
        """Ask on behalf of all reads that wait, if a question is due (dissertation 6.4)."""
        id = self._forwarded_reads.ask(self.current_term, leader, self.now)
        if id is not None:
            self.send(leader, ReadIndex(self.current_term, id))

    # --- committed entries ---

    def _next_committed(self) -> tuple[Entry, ...]:
        log = self.log
        count = min(log.commit_index - log.handed_index, APPLY_ENTRIES_MAX)
        if count <= 0:
            return ()
        return log.batch(log.handed_index + 1, count, APPLY_BYTES_MAX)
