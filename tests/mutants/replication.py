"""Mutants of the log, of replication and commit, and of reads."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

RAFT = "raftd/core/raft.py"
LEADER = "raftd/core/leader.py"
MESSAGES = "raftd/core/messages.py"
LOG = "raftd/core/log.py"
PROGRESS = "raftd/core/progress.py"
READS = "raftd/core/reads.py"
PAPER = "tests/core/test_raft_paper.py"
SAFETY = "tests/core/test_raft_paper_safety.py"
DISSERTATION = "tests/core/test_raft_dissertation.py"
READ_TESTS = "tests/core/test_reads.py"

MUTANTS = (
    # --- the follower's side ---
    Mutant(
        name="predecessor-checked-by-index-alone",
        why="Entries are stored after one of another term, and the logs no longer match.",
        file=RAFT,
        old="if prev > log.base_index and log.term_at(prev) != message.prev_log_term:",
        new="if prev > log.base_index and log.term_at(prev) is None:",
        test=f"{PAPER}::test_a_follower_refuses_entries_whose_predecessor_it_lacks",
    ),
    Mutant(
        name="unconditional-truncation",
        why="A delayed request cuts off entries that were acknowledged after it.",
        file=LOG,
        old="if known_term == entry.term:",
        new="if known_term == entry.term and entry.index <= self.commit_index:",
        test=f"{PAPER}::test_a_delayed_request_never_shortens_the_log",
    ),
    Mutant(
        name="conflict-not-truncated",
        why="An entry that conflicts with the leader's stays in the log.",
        file=LOG,
        old="if known_term == entry.term:",
        new="if known_term is not None:",
        test=f"{PAPER}::test_conflicting_entries_are_replaced",
    ),
    Mutant(
        name="replaced-suffix-counts-as-durable",
        why="What replaces a conflict is acknowledged and never written.",
        file=LOG,
        old="self.durable_index = min(self.durable_index, index - 1)",
        new="self.durable_index = min(self.durable_index, index)",
        test="tests/core/test_log.py"
        "::test_a_conflict_below_a_durable_entry_makes_it_owed_to_the_disk_again",
    ),
    Mutant(
        name="commit-beyond-verified",
        why="A stale suffix that the leader has not looked at yet is taken for committed.",
        file=RAFT,
        old="min(message.leader_commit, last_verified)",
        new="min(message.leader_commit, log.last_index)",
        test=f"{PAPER}::test_the_commit_index_stays_within_what_the_request_verified",
    ),
    Mutant(
        name="commit-index-goes-back",
        why="A late request takes back what was known to be committed.",
        file=RAFT,
        old="log.commit_index = max(log.commit_index, min(message.leader_commit, last_verified))",
        new="log.commit_index = min(message.leader_commit, last_verified)",
        test=f"{PAPER}::test_the_commit_index_never_goes_back",
    ),
    Mutant(
        name="match-index-from-the-followers-last-index",
        why="A follower acknowledges a suffix that the leader does not have.",
        file=RAFT,
        old="                match_index=last_verified,\n",
        new="                match_index=log.last_index,\n",
        test=f"{PAPER}::test_a_heartbeat_acknowledges_only_what_it_names",
    ),
    Mutant(
        name="acknowledgement-leaves-before-the-sync",
        why="The leader commits what a crash of the follower takes back.",
        file=RAFT,
        old="early = isinstance(message, PreVote) or (",
        new="early = isinstance(message, PreVote | AppendEntriesResponse) or (",
        test=f"{PAPER}::test_entries_are_acknowledged_only_once_they_are_durable",
    ),
    Mutant(
        name="entries-with-gaps-stored",
        why="Entries whose indexes or terms make no log are taken in.",
        file="raftd/core/log.py",
        old="if entry.index != index or entry.term < term or entry.term > message.term:",
        new="if entry.index != index or entry.term > message.term:",
        test="tests/core/test_odd_messages.py"
        "::test_entries_with_gaps_or_falling_terms_are_not_stored",
    ),
    Mutant(
        name="entries-applied-before-they-are-committed",
        why="Servers answer from entries that the next leader overwrites.",
        file=RAFT,
        old="count = min(log.commit_index - log.handed_index, APPLY_ENTRIES_MAX)",
        new="count = min(log.durable_index - log.handed_index, APPLY_ENTRIES_MAX)",
        test=f"{PAPER}::test_committed_entries_are_applied_in_order_and_once",
    ),
    # --- the leader's side ---
    Mutant(
        name="commit-by-counting-an-older-term",
        why="Figure 8: an entry of an earlier term is committed by counting and then overwritten.",
        file=LEADER,
        old="if index is None or index <= old or self._log.term_at(index) != self._term:",
        new="if index is None or index <= old:",
        test=f"{SAFETY}::test_figure_8_an_entry_that_was_on_a_majority_can_still_be_overwritten",
    ),
    Mutant(
        name="own-match-before-the-sync",
        why="The leader counts entries that its own disk may lose.",
        file=LEADER,
        old="matches[self._raft.server] = self._log.durable_index",
        new="matches[self._raft.server] = self._log.last_index",
        test=f"{PAPER}::test_an_acknowledgement_does_not_make_the_leaders_own_entries_durable",
    ),
    Mutant(
        name="acknowledgement-beyond-the-log-taken",
        why="A follower claims entries that the leader has not appended yet.",
        file=LEADER,
        old="if message.success and message.match_index > self._log.last_index:",
        new="if False:",
        test=f"{PAPER}::test_an_acknowledgement_beyond_the_log_is_ignored",
    ),
    Mutant(
        name="match-index-goes-back",
        why="A late acknowledgement makes the leader forget what a follower has.",
        file=PROGRESS,
        old="self.match_index = max(self.match_index, match_index)",
        new="self.match_index = match_index",
        test="tests/core/test_progress.py::test_an_old_acknowledgement_moves_nothing_back",
    ),
    Mutant(
        name="late-refusal-moves-below-what-matches",
        why="A refusal that was overtaken makes the leader send what the follower has.",
        file=PROGRESS,
        old="self.next_index = max(next_index, self.match_index + 1)",
        new="self.next_index = next_index",
        test="tests/core/test_progress.py::test_probing_never_starts_below_what_is_known_to_match",
    ),
    Mutant(
        name="follower-that-lost-its-disk-not-fenced",
        why="A follower whose disk went back in time counts for what it has lost.",
        file=LEADER,
        old="            last_log_index is not None\n            and round_number",
        new="            last_log_index is None\n            and round_number",
        test=f"{DISSERTATION}::test_a_follower_that_lacks_what_it_acknowledged_is_fenced",
    ),
    Mutant(
        name="lost-messages-not-sent-again",
        why="A follower whose link broke is never fed again.",
        file=LEADER,
        old="            progress.probe_from(progress.match_index + 1)\n",
        new="            pass\n",
        test="tests/node/test_node.py"
        "::test_what_was_on_its_way_when_a_link_broke_is_sent_again_at_once",
    ),
    # --- reads ---
    Mutant(
        name="read-without-a-round",
        why="A leader that was deposed answers from a state that others have left behind.",
        file=READS,
        old="while self._sent and self._sent[0][0] <= round_number:",
        new="while self._sent:",
        test=f"{READ_TESTS}::test_a_read_is_answered_after_a_majority_has_answered_its_round",
    ),
    Mutant(
        name="stale-round-accepted",
        why="Answers to requests from before the read arrived prove nothing about it.",
        file=READS,
        old="self._pending.round_started(round_number)",
        new="self._pending.round_started(round_number - 1)",
        test=f"{READ_TESTS}::test_answers_to_an_older_round_confirm_nothing",
    ),
    Mutant(
        name="round-that-was-never-sent-accepted",
        why="An answer confirms rounds that have not begun.",
        file=LEADER,
        old="progress.fenced or not 0 < message.round <= self._round:\n            return\n"
        "        if message.success",
        new="progress.fenced or not 0 < message.round:\n            return\n"
        "        if message.success",
        test=f"{READ_TESTS}::test_an_answer_to_a_round_that_was_never_sent_confirms_nothing",
    ),
    Mutant(
        name="round-of-an-older-term-accepted",
        why="A leader takes an answer to what it had sent in an earlier term for one of now.",
        file=MESSAGES,
        old="                round=0,\n                match_index=message.prev_log_index,\n",
        new="                round=message.round,\n"
        "                match_index=message.prev_log_index,\n",
        test=f"{READ_TESTS}::test_the_answer_to_a_request_of_its_own_earlier_term"
        "_confirms_nothing_to_a_leader",
    ),
    Mutant(
        name="learner-fed-what-is-not-committed",
        why="With it a learner refuses its vote for ever to the only server that could lead.",
        file=LEADER,
        old="return self._log.commit_index if server in learners else self._log.last_index",
        new="return self._log.last_index",
        test="tests/core/test_joint_changes.py::test_a_learner_never_stands_in_the_way"
        "_of_a_leader_that_counts_it_as_a_voter",
    ),
    Mutant(
        name="round-number-used-twice",
        why="An answer to a heartbeat confirms a read that came after it.",
        file=LEADER,
        old="        self._round += 1\n",
        new="        self._round += bool(self._broadcast)\n",
        test=f"{READ_TESTS}::test_answers_to_an_older_round_confirm_nothing",
    ),
    Mutant(
        name="read-before-the-no-op-is-committed",
        why="A new leader does not know yet what its predecessors have committed.",
        file=READS,
        old="commit_index = self._raft.log.commit_index if self._has_committed_in_term() else None",
        new="commit_index = self._raft.log.commit_index",
        test=f"{READ_TESTS}::test_reads_wait_for_the_no_op_of_the_term",
    ),
    Mutant(
        name="fenced-servers-confirm-reads",
        why="A server that lost its disk confirms a leader that it does not follow any more.",
        file=LEADER,
        old="rounds = {server: p.acknowledged_round for server, p in fed if not p.fenced}",
        new="rounds = {server: p.acknowledged_round for server, p in fed}",
        test="tests/mutants/test_killers.py"
        "::test_rounds_that_a_server_answered_before_it_was_fenced_confirm_nothing_later",
    ),
    Mutant(
        name="reads-of-a-deposed-leader-forgotten",
        why="Whoever asked waits for ever.",
        file=RAFT,
        old="self.answer_reads(self.role.end())",
        new="self.role.end()",
        test=f"{READ_TESTS}::test_a_deposed_leader_answers_that_it_could_not_read",
    ),
)
