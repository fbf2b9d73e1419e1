"""What a leader does: replicate, commit, confirm reads, change the membership, hand over.

A `Leader` is the role object of one server in one term; it goes away when leadership does, and
with it everything that only a leader knows.

Source: Figure 2 ("Leaders"), paper sections 5.3, 5.4 and 6; dissertation 3.10, 4.2, 6.2 and 6.4.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from raftd.core.errors import (
    AbortRefused,
    ChangeInProgress,
    NotCaughtUp,
    ProposalDropped,
    StaleConfiguration,
    TransferRefused,
)
from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationEntry,
    ConfigurationKind,
    MembershipChange,
    MembershipError,
    abort_joint,
    change_learners,
    changes_voters,
    encode_configuration,
    enter_joint,
    leave_joint,
    validate,
)
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshotResponse,
    TimeoutNow,
)
from raftd.core.pacing import CatchUpPace
from raftd.core.progress import (
    SNAPSHOT_CHUNK_BYTES,
    Departing,
    Progress,
    ReplicationState,
    Transfer,
)
from raftd.core.quorum import VoteResult, committed_index, majority, vote_result
from raftd.core.reads import LeaderReads
from raftd.core.ready import Chunk, ReadAnswer
from raftd.core.role_changes import Why
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry, EntryKind, Index, ServerId, Term, server_name

if TYPE_CHECKING:
    from raftd.core.raft import Raft

APPEND_ENTRIES_MAX = 1024
"""Entries of one AppendEntries: bounds what a follower writes and acknowledges at once."""
APPEND_BYTES_MAX = 1024 * 1024
"""Bytes of one AppendEntries, but always at least one entry: a frame stays small."""
UNCOMMITTED_BYTES_MAX = 64 * 1024 * 1024
"""Bytes proposed and not committed: without a quorum the log must not grow for ever."""
UNCOMMITTED_ENTRIES_MAX = 65_536
"""Entries proposed and not committed, for the same reason."""
CONTACT_HEARTBEATS = 2
"""A server was "in contact just now" if it answered within so many heartbeats."""


class Leader:
    """The leader of one term. Made by `Raft` alone."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._log = raft.log
        self._options = raft.options
        self._term: Term = raft.current_term
        self.progress: dict[ServerId, Progress] = {}
        self._departing: dict[ServerId, Departing] = {}
        self.reads = LeaderReads(raft, lambda: self.has_committed_in_term)
        self._pace = CatchUpPace(raft.options, raft.log.last_index)
        self._transfer: Transfer | None = None
        self._retire_tick: int | None = None
        self._round = 0
        self._heartbeat_elapsed_ticks = 0
        self._broadcast = True
        self._uncommitted_bytes = 0
        self._joint_reached: Index = 0
        self._joint_progress_tick = raft.now
        self.term_start: Index = 0

    # --- beginning and end ---

    def begin(self) -> None:
        """Append the no-op that commits what earlier terms left (paper section 8)."""
        latest = self._latest()
        # A successor goes on feeding the servers that the latest change left out.
        self._note_departing(latest)
        note = {"leader": self._raft.server, "time_ms": self._raft.wall_clock_ms}
        self.term_start = self._append(
            EntryKind.NOOP, json.dumps(note, sort_keys=True, separators=(",", ":")).encode()
        )
        self._follow_configuration()

    def end(self) -> list[ReadAnswer]:
        """Give up leadership; return the reads that cannot be answered any more."""
        return self.reads.fail()

    def tick(self) -> None:
        """Let one tick pass: heartbeats, check-quorum, and what has waited too long."""
        now = self._raft.now
        for server, departing in sorted(self._departing.items()):
            if now >= departing.deadline_tick:
                self._forget_departing(server)
        share = self._pace.share(self._log, max(1, self._count_of_fed()))
        for progress in self.progress.values():
            progress.tick(share, now, self._options.election_ticks)
        if self.reads.is_unconfirmed:
            # Those that were asked may be slow, or gone.
            self._broadcast = True
        self._heartbeat_elapsed_ticks += 1
        if self._heartbeat_elapsed_ticks >= self._options.heartbeat_ticks:
            self._heartbeat_elapsed_ticks = 0
            self._broadcast = True
            if self._transfer is not None:
                # The TimeoutNow may be lost: it is sent again, but not with every answer.
                self._transfer.told = False
            if not self._check_quorum():
                self._raft.step_down(Why.QUORUM_LOST)
                return
        if self._retire_tick is not None and now >= self._retire_tick:
            self._raft.step_down(Why.RETIRED)
        elif self._transfer is not None and now >= self._transfer.deadline_tick:
            self._transfer = None

    def quiet_ticks(self) -> int:
        """Return how many ticks may pass in which nothing is due. See `Raft.quiet_ticks`."""
        configuration = self._latest().configuration
        waits = self._departing or self._transfer is not None or self._retire_tick is not None
        waits = waits or self.reads.is_unconfirmed
        if waits or configuration.is_joint or configuration.learners or self._count_of_fed():
            return 0
        return max(self._options.heartbeat_ticks - self._heartbeat_elapsed_ticks - 1, 0)

    def pass_quietly(self, ticks: int) -> None:
        """Let so many ticks pass. See `Raft.pass_quietly`."""
        self._heartbeat_elapsed_ticks += ticks

    # --- requests ---

    def propose(self, commands: Sequence[bytes]) -> tuple[Term, Index, int]:
        """Append commands. See `Raft.propose_all`."""
        if self._transfer is not None or self._retire_tick is not None:
            raise ProposalDropped("leadership is being handed over")
        log, term = self._log, self._term
        first_index = index = log.last_index + 1
        uncommitted_bytes = self._uncommitted_bytes
        index_max = log.commit_index + UNCOMMITTED_ENTRIES_MAX
        entries = []
        for command in commands:
            uncommitted_bytes += len(command)
            if uncommitted_bytes > UNCOMMITTED_BYTES_MAX or index > index_max:
                break
            self._uncommitted_bytes = uncommitted_bytes
            entries.append(Entry(index, term, EntryKind.COMMAND, command))
            index += 1
        if not entries:
            raise ProposalDropped("too much is waiting to be committed")
        log.append(entries)
        return term, first_index, len(entries)

    def start_transfer(self, target: ServerId) -> None:
        """Begin to hand over. See `Raft.transfer_leadership`."""
        configuration = self._latest().configuration
        if target == self._raft.server:
            raise TransferRefused(f"{target} leads already")
        if target not in configuration.voters:
            raise TransferRefused(f"{target} is not a voter of the configuration to come")
        if self._transfer is not None or self._retire_tick is not None:
            # One after the other without a gap would keep proposals waiting for ever.
            raise TransferRefused("leadership is being handed over already")
        if not self.progress[target].in_contact(self._raft.now, self._contact_ticks):
            raise TransferRefused(f"{target} has not answered within two heartbeats")
        self._transfer = Transfer(target, self._raft.now + self._options.election_ticks)
        self._maybe_send_timeout_now()

    def change_membership(self, change: MembershipChange) -> tuple[Term, Index]:
        """Append a configuration. See `Raft.change_membership`."""
        latest = self._latest()
        if not self.has_committed_in_term:
            # The 2015 erratum: an earlier leader's configuration may still be around.
            raise ChangeInProgress("this leader has not committed an entry of its term yet")
        if self._retire_tick is not None:
            raise ChangeInProgress("this leader is leaving office")
        if latest.configuration.is_joint or latest.index > self._log.commit_index:
            raise ChangeInProgress(
                f"the configuration at index {latest.index} is not settled yet: "
                f"{latest.configuration}"
            )
        if change.expected_index is not None and change.expected_index != latest.index:
            raise StaleConfiguration(change.expected_index, latest.index)
        if changes_voters(latest.configuration, change.changes):
            entry = self._joint_entry(latest, change)
        else:
            entry = self._simple_entry(latest, change)
        missing = entry.configuration.members - entry.addresses.keys()
        if missing:
            raise MembershipError(f"no address given for {', '.join(sorted(missing))}")
        return self._term, self._append_configuration(entry)

    def abort_membership_change(self, reason: str) -> tuple[Term, Index]:
        """Append C_old again. See `Raft.abort_membership_change`."""
        obstacle = self.abort_obstacle()
        if obstacle:
            raise AbortRefused(obstacle)
        latest = self._latest()
        restored = attrs.evolve(
            abort_joint(latest.configuration), learners=latest.entry.learners_before
        )
        return self._term, self._append_configuration(
            self._successor_entry(
                latest, ConfigurationKind.ABORT, restored, outcome="aborted", reason=reason
            )
        )

    def lease_index(self) -> Index | None:
        """Return what a read has to see that is answered by the lease. See `Raft.lease_index`."""
        index = self.reads.lease_index()
        if index is not None:
            self._pace.note_reads()
        return index

    def abort_obstacle(self) -> str:
        """Return why a joint change cannot be aborted now; empty if it can.

        Safe only if no other leader can have appended C_new for this joint entry without having
        been cut off first: (a) it is our own entry of this term, or (b) an entry of this term at
        or after it is committed under the joint quorum; and C_new has not been appended.
        """
        latest = self._latest()
        if not latest.configuration.is_joint:
            if latest.entry.kind is ConfigurationKind.FINAL:
                return "C_new is in the log already: the change is past the point of no return"
            return "no joint change is under way"
        if self._log.term_at(latest.index) == self._term or self._joint_is_committed(latest):
            return ""
        return (
            "the joint configuration was appended by an earlier leader, and this one has "
            "committed nothing under it yet"
        )

    def report_unreachable(self, server: ServerId) -> None:
        """Probe `server` again: what was in flight may be lost."""
        progress = self.progress.get(server)
        if progress is None:
            return
        if progress.state is ReplicationState.REPLICATE:
            progress.probe_from(progress.match_index + 1)
        elif progress.snapshot is not None:
            # Its next answer says where to go on.
            progress.snapshot_round = 0
            progress.resend_snapshot()

    def report_connected(self, server: ServerId) -> None:
        """Ask `server` at once where it is: what was sent before there was a link is lost."""
        if server in self.progress:
            self.progress[server].probe_outstanding = False
            self._broadcast = True

    # --- replication ---

    def send_outstanding(self) -> None:
        """Queue AppendEntries for everybody who needs one, all in one send round.

        A round number is never used twice in a term, and a read is confirmed only by answers to
        rounds that started after it arrived (dissertation 6.4).
        """
        self._turn_to_snapshots()
        asked: Collection[ServerId] = ()
        wants_round = self.reads.want_round
        if wants_round:
            asked = self.reads.voters_to_ask(self._latest().configuration, self._rounds())
            self._pace.note_reads()
        forced = self._broadcast or wants_round
        if not forced and not any(map(self._has_work, self.progress, self.progress.values())):
            return
        self._round += 1
        self.reads.round_started(self._round)
        for server in sorted(self.progress):
            self._feed(server, self.progress[server], self._broadcast or server in asked)
        self._broadcast = False
        self._confirm_reads()

    def on_append_entries_response(self, source: ServerId, message: AppendEntriesResponse) -> None:
        """Take in an answer of this term (Figure 2, "Leaders")."""
        progress = self.progress.get(source)
        if progress is None or progress.fenced or not 0 < message.round <= self._round:
            return
        if message.success and message.match_index > self._log.last_index:
            return
        self._heard(progress, message.round, message.commit_index)
        self.reads.lease.promised(source, message.round, message.vote_withheld_ms)
        progress.short_of_space = message.short_of_space
        if not message.success:
            self._on_refusal(progress, message)
        elif progress.snapshot is None or message.match_index >= self._log.base_index:
            self._acknowledged(progress, message.match_index)
        self._forget_departed(source, progress)
        self._confirm_reads()

    def on_install_snapshot_response(
        self, source: ServerId, message: InstallSnapshotResponse
    ) -> None:
        """Take in how far a snapshot has come, in this term (Figure 13)."""
        progress = self.progress.get(source)
        if progress is None or progress.fenced or not 0 < message.round <= self._round:
            return
        if message.match_index > self._log.last_index:
            return
        self._heard(progress, message.round, message.commit_index)
        if self._has_gone_back(progress, message.round, message.last_log_index):
            progress.fenced = True
            return
        if message.match_index:
            self._acknowledged(progress, message.match_index)
        elif message.snapshot == progress.snapshot:
            progress.snapshot_answered(
                message.round, message.received_bytes, message.installed_bytes, self._raft.now
            )
        self._forget_departed(source, progress)
        self._confirm_reads()

    def _heard(self, progress: Progress, round_number: int, commit_index: Index) -> None:
        progress.last_contact_tick = self._raft.now
        progress.acknowledged_round = max(progress.acknowledged_round, round_number)
        progress.commit_index = max(progress.commit_index, commit_index)

    def _acknowledged(self, progress: Progress, match_index: Index) -> None:
        progress.acknowledged(match_index)
        progress.acknowledged_before_round = (self._round, progress.match_index)
        progress.advance_round(self._raft.now, self._log.last_index, self._options.election_ticks)
        if progress.match_index > self._log.commit_index:
            self.advance_commit_index()
        self._maybe_send_timeout_now()

    def advance_commit_index(self) -> None:
        """Commit what a quorum of the configuration in force has stored.

        Figure 2: "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N,
        and log[N].term == currentTerm: set commitIndex = N." Entries of older terms are committed
        only through one of our own (paper 5.4.2, Figure 8).
        """
        configuration = self._latest().configuration
        index = committed_index(configuration.voters, configuration.outgoing, self._match_indexes())
        old = self._log.commit_index
        if index is None or index <= old or self._log.term_at(index) != self._term:
            return
        self._log.commit_index = index
        for entry in self._log.entries(max(old + 1, self.term_start), index):
            if entry.kind is EntryKind.COMMAND:
                self._uncommitted_bytes -= len(entry.data)
        if old < self.term_start <= index:
            self.reads.first_commit(index)
        self._after_commit(old)

    # --- what others ask ---

    @property
    def has_committed_in_term(self) -> bool:
        """Whether the no-op of this term, and so all that came before it, is committed."""
        return self._log.commit_index >= self.term_start

    @property
    def transfer_target(self) -> ServerId | None:
        """Whom leadership is being handed to."""
        return self._transfer.target if self._transfer else None

    def in_contact_with_quorum(self) -> bool:
        """Whether every active majority has answered within an election timeout."""
        configuration = self._latest().configuration
        return not (self._is_lost(configuration.voters) or self._is_lost(configuration.outgoing))

    def short_of_space(self) -> frozenset[ServerId]:
        """Return the voters whose disks are nearly full, if nothing more should be written.

        That is so if this leader is one of them, or if without them there is no majority.
        """
        short = {server for server, progress in self.progress.items() if progress.short_of_space}
        if self._raft.is_short_of_space:
            short.add(self._raft.server)
        if not short:
            return frozenset()
        configuration = self._latest().configuration
        short &= configuration.all_voters | {self._raft.server}
        result = vote_result(
            configuration.voters, configuration.outgoing, dict.fromkeys(short, False)
        )
        if self._raft.is_short_of_space or result is VoteResult.LOST:
            return frozenset(short)
        return frozenset()

    def is_caught_up(self, server: ServerId) -> bool:
        """Return whether `server` may become a voter (dissertation 4.2.1)."""
        progress = self.progress.get(server)
        if progress is None:
            return server == self._raft.server
        now, limit = self._raft.now, self._options.election_ticks
        return (
            progress.round_was_short
            and progress.snapshot is None
            and now - progress.round_start_tick < limit
            and progress.in_contact(now, limit)
            and progress.match_index >= self._latest().index
        )

    def snapshots_being_sent(self) -> frozenset[SnapshotId]:
        """Return the snapshots that have to stay readable for those who are getting them."""
        fed = self.progress.values()
        return frozenset(p.snapshot for p in fed if p.snapshot and not p.fenced)

    def useless_snapshots(self) -> frozenset[SnapshotId]:
        """Return the snapshots that a server has had as a whole and could not use."""
        fed = self.progress.values()
        return frozenset(p.snapshot for p in fed if p.snapshot and p.was_useless)

    def needed_after(self) -> Index:
        """Return the index after which every entry is needed by a server that is in contact.

        Whoever is being sent a snapshot goes on from its end. Who is away may come back for a
        snapshot, or never: nothing is kept for it here.
        """
        needed = [self._log.last_index]
        for progress in self.progress.values():
            if not progress.in_contact(self._raft.now, self._options.election_ticks):
                continue
            if progress.snapshot is not None:
                needed.append(progress.snapshot.last_included_index)
            else:
                needed.append(progress.match_index)
        return min(needed)

    def is_departing(self, server: ServerId) -> bool:
        """Whether a server was dropped and may not know it yet."""
        return server in self._departing

    def departing_addresses(self) -> Mapping[ServerId, str]:
        """Return where the servers are that were dropped and do not know it yet."""
        return {server: departing.address for server, departing in self._departing.items()}

    # --- replication, inside ---

    def _latest(self) -> ConfigurationAt:
        latest = self._log.configurations.latest
        assert latest is not None, "a leader knows a configuration"
        return latest

    @property
    def _contact_ticks(self) -> int:
        return CONTACT_HEARTBEATS * self._options.heartbeat_ticks

    def _append(self, kind: EntryKind, body: bytes) -> Index:
        index = self._log.last_index + 1
        self._log.append((Entry(index, self._term, kind, body),))
        return index

    def _match_indexes(self) -> dict[ServerId, Index]:
        """Return what each server has on disk; our own part counts only as far as it is durable."""
        matches = {
            server: progress.match_index
            for server, progress in self.progress.items()
            if not progress.fenced
        }
        matches[self._raft.server] = self._log.durable_index
        return matches

    def _last_for(self, server: ServerId) -> Index:
        """Return how far `server` is fed.

        Learners get what is committed. With more, one could refuse its vote for ever to a server
        that counts it as a voter by a C_old,new of its own, and a learner may not campaign itself.
        Departing servers get everything: until they know that they are left out they may campaign,
        as voters of the configuration before.
        """
        learners = self._latest().configuration.learners
        return self._log.commit_index if server in learners else self._log.last_index

    def _turn_to_snapshots(self) -> None:
        """Begin to send the newest snapshot to whoever needs an entry that is compacted."""
        newest = self._raft.snapshot.id if self._raft.snapshot is not None else None
        now, ticks = self._raft.now, self._options.election_ticks
        for server, progress in self.progress.items():
            begin = self._log.base_index
            if progress.match_index == 0 and server in self._latest().configuration.learners:
                begin = self._log.worth_sending_after(newest)
            if not progress.fenced and progress.is_due(newest, begin, now, ticks):
                assert newest is not None, "no entries to send, and no snapshot"
                progress.begin_snapshot(newest, now)
                # The first one is empty, and its answer says where to begin.
                self._broadcast = True

    def _is_throttled(self, server: ServerId, progress: Progress) -> bool:
        """Whether `server` has had its share of this tick.

        Voters that lag are fed as fast as they can: their votes may be needed at any moment.
        """
        return (
            self._options.catch_up_bytes_per_tick > 0
            and progress.allowance_bytes <= 0
            and (progress.snapshot is not None or server in self._latest().configuration.learners)
        )

    def _count_of_fed(self) -> int:
        learners = self._latest().configuration.learners
        return sum(
            progress.snapshot is not None or server in learners
            for server, progress in self.progress.items()
        )

    def _has_work(self, server: ServerId, progress: Progress) -> bool:
        if progress.fenced or progress.window_is_full or self._is_throttled(server, progress):
            return False
        if progress.snapshot is not None:
            begun = progress.snapshot_round > 0
            return begun and progress.sent_bytes < progress.snapshot.size_bytes
        if progress.next_index > self._last_for(server):
            return False
        return progress.state is ReplicationState.REPLICATE or not progress.probe_outstanding

    def _feed(self, server: ServerId, progress: Progress, forced: bool) -> None:
        """Send what `server` needs; a heartbeat if it needs nothing and one is `forced`."""
        if progress.fenced:
            return
        if progress.snapshot is not None:
            self._feed_snapshot(server, progress, progress.snapshot, forced)
            return
        sent = False
        last = self._last_for(server)
        while self._has_work(server, progress):
            count = min(last - progress.next_index + 1, APPEND_ENTRIES_MAX)
            entries = self._log.batch(progress.next_index, count, APPEND_BYTES_MAX)
            self._send_append(server, progress.next_index - 1, entries)
            size_bytes = sum(len(entry.data) for entry in entries)
            progress.sent(entries[-1].index, size_bytes)
            if server in self._latest().configuration.learners:
                # What is not limited runs up no debts either.
                progress.allowance_bytes -= size_bytes + len(entries) * progress.entry_bytes
            sent = True
        if forced and not sent:
            self._send_append(server, progress.next_index - 1, ())

    def _feed_snapshot(
        self, server: ServerId, progress: Progress, snapshot: SnapshotId, forced: bool
    ) -> None:
        """Send the next parts of a snapshot; an empty one is the heartbeat meanwhile."""
        sent = False
        while self._has_work(server, progress):
            size_bytes = min(snapshot.size_bytes - progress.sent_bytes, SNAPSHOT_CHUNK_BYTES)
            self._send_chunk(server, progress, snapshot, size_bytes)
            progress.sent_bytes += size_bytes
            progress.allowance_bytes -= size_bytes
            sent = True
        if forced and not sent:
            self._send_chunk(server, progress, snapshot, 0)

    def _send_chunk(
        self, server: ServerId, progress: Progress, snapshot: SnapshotId, size_bytes: int
    ) -> None:
        self._raft.send_chunk(
            Chunk(
                dest=server,
                term=self._term,
                snapshot=snapshot,
                offset=progress.sent_bytes,
                size_bytes=size_bytes,
                round=self._round,
            )
        )

    def _send_append(self, server: ServerId, prev: Index, entries: tuple[Entry, ...]) -> None:
        prev_log_term = self._log.term_at(prev)
        assert prev_log_term is not None
        self._raft.send(
            server,
            AppendEntries(
                term=self._term,
                prev_log_index=prev,
                prev_log_term=prev_log_term,
                entries=entries,
                leader_commit=self._log.commit_index,
                round=self._round,
            ),
        )

    def _has_gone_back(
        self, progress: Progress, round_number: int, last_log_index: Index | None
    ) -> bool:
        """Whether a server has answered after it had acknowledged more than it has now.

        Its disk went back in time: what it acknowledges from now on proves nothing.
        """
        acknowledged_round, acknowledged = progress.acknowledged_before_round
        return (
            last_log_index is not None
            and round_number > acknowledged_round
            and last_log_index < acknowledged
        )

    def _on_refusal(self, progress: Progress, message: AppendEntriesResponse) -> None:
        """Find where the logs part (paper 5.3), never below what is known to match."""
        if self._has_gone_back(progress, message.round, message.last_log_index):
            progress.fenced = True
            return
        refused = message.match_index
        if refused <= progress.match_index or refused >= progress.next_index:
            return
        if progress.state is ReplicationState.PROBE and refused != progress.next_index - 1:
            return
        next_index = min(refused, message.conflict_index)
        if message.conflict_term:
            ours = self._log.last_index_of_term(message.conflict_term)
            if ours is not None:
                next_index = min(refused, ours + 1)
            if refused > self._log.base_index:
                # It has an entry where ours begins; that may be the right one.
                next_index = max(next_index, self._log.first_index)
        progress.probe_from(next_index)

    def _rounds(self) -> dict[ServerId, int]:
        """Return the latest round that each server has answered, if its answers count."""
        fed = self.progress.items()
        rounds = {server: p.acknowledged_round for server, p in fed if not p.fenced}
        rounds[self._raft.server] = self._round
        return rounds

    def _confirm_reads(self) -> None:
        if self.reads.follows_answers:
            self.reads.confirm(self._latest().configuration, self._rounds())

    # --- membership, inside ---

    def _simple_entry(
        self, latest: ConfigurationAt, change: MembershipChange
    ) -> ConfigurationEntry:
        return self._successor_entry(
            latest,
            ConfigurationKind.SIMPLE,
            change_learners(latest.configuration, change.changes),
            addresses=change.addresses,
            operation=change.operation,
            outcome=change.outcome,
            reason=change.reason,
            learners_before=change.learners_before,
            tombstones=change.tombstones,
        )

    def _joint_entry(self, latest: ConfigurationAt, change: MembershipChange) -> ConfigurationEntry:
        configuration = enter_joint(latest.configuration, change.changes)
        lagging = frozenset(
            server
            for server in configuration.voters - configuration.outgoing
            if not self.is_caught_up(server)
        )
        if lagging:
            raise NotCaughtUp(lagging, f"not caught up yet: {_names(lagging)}")
        silent = self._silent(configuration.voters, self._contact_ticks)
        needed = majority(len(configuration.voters))
        if len(configuration.voters) - len(silent) < needed:
            raise NotCaughtUp(
                silent,
                f"{needed} of {len(configuration.voters)} voters of the new configuration have to "
                f"answer; silent: {_names(silent)}",
            )
        learners_before = (
            latest.configuration.learners
            if change.learners_before is None
            else change.learners_before
        )
        # What an abort would restore has to be a configuration, before there is anything to abort.
        validate(attrs.evolve(abort_joint(configuration), learners=learners_before))
        return ConfigurationEntry(
            configuration=configuration,
            addresses={**latest.entry.addresses, **change.addresses},
            kind=ConfigurationKind.JOINT,
            operation=change.operation,
            reason=change.reason,
            learners_before=learners_before,
            leader=self._raft.server,
            time_ms=self._raft.wall_clock_ms,
        )

    def _successor_entry(
        self,
        latest: ConfigurationAt,
        kind: ConfigurationKind,
        configuration: Configuration,
        *,
        addresses: Mapping[ServerId, str] | None = None,
        operation: str | None = None,
        outcome: str = "",
        reason: str = "",
        learners_before: frozenset[ServerId] | None = None,
        tombstones: bool = False,
    ) -> ConfigurationEntry:
        """Return the entry that follows `latest`; what it no longer lists is left out."""
        known = {**latest.entry.addresses, **(addresses or {})}
        before = latest.configuration.members
        if kind is ConfigurationKind.FINAL:
            # C_old,new has dropped the learners that the change removes, C_new does it for good.
            before |= latest.entry.learners_before
        left_out = sorted((before - configuration.members) & known.keys())
        if learners_before is None:
            learners_before = latest.configuration.learners
        return ConfigurationEntry(
            configuration=configuration,
            addresses={
                server: known[server] for server in sorted(configuration.members & known.keys())
            },
            kind=kind,
            operation=latest.entry.operation if operation is None else operation,
            outcome=outcome,
            reason=reason,
            learners_before=learners_before,
            left_out={server: known[server] for server in left_out},
            tombstones=frozenset(left_out) if tombstones else frozenset(),
            leader=self._raft.server,
            time_ms=self._raft.wall_clock_ms,
        )

    def _append_configuration(self, entry: ConfigurationEntry) -> Index:
        """Append a configuration; it is in force from here on, committed or not (section 6)."""
        self._transfer = None
        index = self._append(EntryKind.CONFIGURATION, encode_configuration(entry))
        self._note_departing(self._latest())
        self._joint_reached = 0
        self._joint_progress_tick = self._raft.now
        self._follow_configuration()
        return index

    def _note_departing(self, latest: ConfigurationAt) -> None:
        deadline_tick = self._raft.now + self._options.departing_ticks
        for server, address in latest.entry.left_out.items():
            if server != self._raft.server:
                self._departing[server] = Departing(address, latest.index, deadline_tick)
        for server in latest.configuration.members & self._departing.keys():
            del self._departing[server]

    def _follow_configuration(self) -> None:
        """Feed exactly the members and the departing; then look again at commit and reads."""
        members = set(self._latest().configuration.members | self._departing.keys())
        members.discard(self._raft.server)
        for server in sorted(self.progress.keys() - members):
            del self.progress[server]
        for server in sorted(members - self.progress.keys()):
            self.progress[server] = Progress(
                next_index=max(self._log.last_index, self._log.first_index),
                since_tick=self._raft.now,
                round_target=self._log.last_index,
                round_start_tick=self._raft.now,
            )
        self.advance_commit_index()
        self._confirm_reads()

    def _forget_departing(self, server: ServerId) -> None:
        del self._departing[server]
        self.progress.pop(server, None)

    def _forget_departed(self, server: ServerId, progress: Progress) -> None:
        departing = self._departing.get(server)
        if departing and min(progress.match_index, progress.commit_index) >= departing.index:
            self._forget_departing(server)

    def _after_commit(self, old_commit_index: Index) -> None:
        latest = self._latest()
        if not old_commit_index < latest.index <= self._log.commit_index and not (
            latest.configuration.is_joint
        ):
            return
        # Those who wait to be told (a server that is left out, a new voter) learn it at once.
        self._broadcast = True
        if latest.configuration.is_joint:
            if self._joint_is_committed(latest):
                self._append_configuration(
                    self._successor_entry(
                        latest,
                        ConfigurationKind.FINAL,
                        leave_joint(latest.configuration),
                        outcome="done",
                        learners_before=latest.entry.learners_before,
                        tombstones=True,
                    )
                )
        elif self._raft.server not in latest.configuration.voters:
            self._retire(latest.configuration.voters)

    def _joint_is_committed(self, joint: ConfigurationAt) -> bool:
        """Whether an entry of this term at or after C_old,new is committed under both majorities.

        A commit index that an earlier leader reached is not enough.
        """
        commit_index = self._log.commit_index
        return commit_index >= joint.index and self._log.term_at(commit_index) == self._term

    # --- leaving office ---

    def _retire(self, voters: Iterable[ServerId]) -> None:
        """Hand over to the best voter: this leader has no vote in the committed configuration.

        Source: dissertation 4.2.2.
        """
        now = self._raft.now
        self._retire_tick = now + self._options.election_ticks
        candidates = [
            server
            for server in sorted(voters)
            if self.progress[server].in_contact(now, self._options.election_ticks)
        ]
        if candidates:
            target = max(candidates, key=lambda server: self.progress[server].match_index)
            self._transfer = Transfer(target, self._retire_tick)
            self._maybe_send_timeout_now()

    def _maybe_send_timeout_now(self) -> None:
        """Tell the target to campaign as soon as its log is complete (dissertation 3.10)."""
        if self._transfer is None or self._transfer.told:
            return
        target = self._transfer.target
        if self.progress[target].match_index == self._log.last_index:
            self._transfer.told = True
            self.reads.lease.give_up()
            self._raft.send(target, TimeoutNow(self._term))

    # --- check-quorum ---

    def _is_lost(self, half: frozenset[ServerId]) -> bool:
        """Whether no majority of `half` has been in contact for an election timeout."""
        contacts = {
            server: max(progress.last_contact_tick or 0, progress.since_tick)
            for server, progress in self.progress.items()
            if not progress.fenced
        }
        contacts[self._raft.server] = self._raft.now
        latest_contact = committed_index(half, (), contacts)
        return (
            latest_contact is not None
            and self._raft.now - latest_contact >= self._options.election_ticks
        )

    def _silent(self, servers: Iterable[ServerId], within_ticks: int) -> frozenset[ServerId]:
        return frozenset(
            server
            for server in servers
            if server != self._raft.server
            and not self.progress[server].in_contact(self._raft.now, within_ticks)
        )

    def _check_quorum(self) -> bool:
        """Return False if leadership has to be given up (dissertation 6.2).

        While joint the halves are looked at apart: without C_new's majority, C_old is restored
        *instead* of stepping down, where that is safe, since afterwards nobody could be elected.
        """
        latest = self._latest()
        configuration = latest.configuration
        if not configuration.is_joint:
            return not self._is_lost(configuration.voters)
        if self._is_lost(configuration.outgoing):
            return False
        lost = self._is_lost(configuration.voters)
        if not lost and not self._joint_is_stuck(latest):
            return True
        if self.abort_obstacle():
            return not lost
        silent = self._silent(configuration.voters, self._contact_ticks)
        needed = majority(len(configuration.voters))
        self.abort_membership_change(
            f"no majority of the new voters stored C_old,new: {needed} of "
            f"{len(configuration.voters)} are needed"
            + (f", silent: {_names(silent)}" if silent else ", and none is silent")
            + self._raft.rollback_note
        )
        return True

    def _joint_is_stuck(self, joint: ConfigurationAt) -> bool:
        """Whether the new half answers but has stored nothing for the configured time."""
        reached = committed_index(joint.configuration.voters, (), self._match_indexes()) or 0
        if reached > self._joint_reached:
            self._joint_reached = reached
            self._joint_progress_tick = self._raft.now
        waited_ticks = self._raft.now - self._joint_progress_tick
        return reached < joint.index and waited_ticks >= self._options.joint_timeout_ticks


def _names(servers: Iterable[ServerId]) -> str:
    return ", ".join(sorted(server_name(server) for server in servers))
