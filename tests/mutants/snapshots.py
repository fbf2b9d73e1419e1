"""Mutants of snapshots as the protocol sees them: received, put in force, sent, kept."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

LOG = "raftd/core/log.py"
RAFT = "raftd/core/raft.py"
CORE_RECEIVING = "raftd/core/receiving.py"
LEADER = "raftd/core/leader.py"
MESSAGES = "raftd/core/messages.py"
PROGRESS = "raftd/core/progress.py"
RECEIVING = "tests/core/test_snapshots.py"
SENDING = "tests/core/test_snapshot_sending.py"
KEEPING = "tests/core/test_snapshot_keeping.py"
PACING = "raftd/core/pacing.py"
PACING_TESTS = "tests/core/test_pacing.py"
APPLYING = "tests/node/test_applying.py"
PACE = "No simulation knows how much is too much for a leader."
KILLERS = "tests/mutants/test_snapshot_killers.py"
MUSEUM = "tests/museum/test_snapshot_protocol.py"

MUTANTS = (
    # --- what of the log stays ---
    Mutant(
        name="suffix-kept-although-it-conflicts-with-the-snapshot",
        why="Entries that follow a wrong one are taken for right, and the logs no longer match.",
        file=LOG,
        old="        if self.term_at(index) == term:\n",
        new="        if self.term_at(index) is not None:\n",
        test=f"{RECEIVING}::test_the_whole_log_is_dropped_if_it_has_another_entry_there",
    ),
    Mutant(
        name="log-dropped-although-it-has-the-last-included-entry",
        why="Entries that were acknowledged, and perhaps committed by that, are gone.",
        file=LOG,
        old="        if self.term_at(index) == term:\n",
        new="        if False:\n",
        test=f"{RECEIVING}::test_entries_that_were_acknowledged_survive_an_install",
    ),
    Mutant(
        name="snapshot-below-the-commit-index-put-in-force",
        why="What was applied is undone, and a newer log is thrown away.",
        file=RAFT,
        old="is_needed = snapshot.id.last_included_index > self.log.commit_index and",
        new="is_needed = snapshot.id.last_included_index > 0 and",
        test=f"{RECEIVING}::test_a_snapshot_at_or_below_the_commit_index_is_ignored",
    ),
    Mutant(
        name="unwritten-entries-behind-a-snapshot-taken-for-durable",
        why="They are acknowledged, and no disk has them.",
        file=LOG,
        old="            self.durable_index = max(self.durable_index, index)\n",
        new="            self.durable_index = self.last_index\n",
        test=f"{RECEIVING}"
        "::test_a_snapshot_that_takes_the_place_of_unwritten_entries_owes_only_the_rest",
    ),
    Mutant(
        name="configuration-of-the-snapshot-not-in-force",
        why="The server goes on with a configuration of entries that were dropped.",
        file=LOG,
        old="        self.configurations = ConfigurationHistory(snapshot.configuration)\n",
        new="",
        test=f"{RECEIVING}::test_the_configuration_comes_with_its_own_index",
    ),
    Mutant(
        name="configuration-of-the-snapshot-not-known-after-a-restart",
        why="The server is blank again, or falls back to nothing when an entry is rolled back.",
        file=LOG,
        old="configuration = snapshot.configuration if snapshot else None",
        new="configuration = None",
        test=f"{RECEIVING}::test_a_restart_with_a_snapshot_alone_knows_all_that_it_says",
    ),
    Mutant(
        name="compaction-forgets-what-a-later-configuration-falls-back-to",
        why="A configuration that is not committed is rolled back, and nobody is a member.",
        file="raftd/core/membership.py",
        old="        while len(self._stack) > 1 and self._stack[1].index <= index:\n",
        new="        while len(self._stack) > 1:\n",
        test=f"{MUSEUM}"
        "::test_006_what_is_rolled_back_behind_a_snapshot_falls_back_to_its_configuration",
    ),
    Mutant(
        name="compaction-beyond-the-snapshot",
        why="Entries are gone that are nowhere else.",
        file=RAFT,
        old="        assert index <= self.snapshot_index\n",
        new="",
        test=f"{KEEPING}::test_compaction_goes_no_further_than_the_snapshot",
    ),
    Mutant(
        name="other-entry-at-the-end-of-the-snapshot-not-noticed",
        why="That the group has diverged is passed over.",
        file=LOG,
        old="        if 0 < index == self.base_index and term != self.base_term:\n",
        new="        if False:\n",
        test=f"{RECEIVING}"
        "::test_another_entry_where_the_snapshot_ends_proves_that_the_group_has_diverged",
    ),
    # --- the receiver ---
    Mutant(
        name="snapshot-of-a-term-to-come-received",
        why="No leader can have it: it is damage or a lie.",
        file=RAFT,
        old="        if message.snapshot.last_included_term > message.term:\n",
        new="        if False:\n",
        test=f"{RECEIVING}::test_a_snapshot_of_a_term_to_come_is_not_received",
    ),
    Mutant(
        name="second-leader-that-sends-a-snapshot-not-noticed",
        why="That the group has diverged is passed over.",
        file=RAFT,
        old="        if isinstance(self.role, Leader):\n"
        '            raise Divergence(f"{source} leads in term {self.current_term}, as this server'
        ' does")\n        if message.snapshot',
        new="        if False:\n"
        '            raise Divergence(f"{source} leads in term {self.current_term}, as this server'
        ' does")\n        if message.snapshot',
        test=f"{RECEIVING}"
        "::test_a_second_leader_that_sends_a_snapshot_proves_that_the_group_has_diverged",
    ),
    Mutant(
        name="snapshot-is-no-contact-with-the-leader",
        why="A server that receives for long campaigns against the leader that feeds it.",
        file=RAFT,
        old="        self._election_elapsed_ticks = 0\n        if self._receiver.take_part",
        new="        if self._receiver.take_part",
        test=f"{RECEIVING}::test_a_part_of_a_snapshot_is_contact_with_the_leader",
    ),
    Mutant(
        name="sender-of-a-snapshot-not-protected-by-stickiness",
        why="A server that was removed deposes the leader while the others install.",
        file=RAFT,
        old="        self._leader_contact_tick = self.now\n"
        "        self._election_elapsed_ticks = 0\n"
        "        if self._receiver.take_part",
        new="        self._election_elapsed_ticks = 0\n        if self._receiver.take_part",
        test=f"{RECEIVING}::test_a_part_of_a_snapshot_is_contact_with_the_leader",
    ),
    Mutant(
        name="commit-index-moved-by-a-snapshot-of-another-entry",
        why="An entry of another term is taken for committed.",
        file=CORE_RECEIVING,
        old="if index > log.commit_index and log.term_at(index) == snapshot.last_included_term:",
        new="if log.commit_index < index <= log.last_index:",
        test=f"{MUSEUM}"
        "::test_079_a_log_that_contradicts_the_snapshot_is_dropped_and_one_snapshot_is_enough",
    ),
    Mutant(
        name="snapshot-received-although-the-log-has-its-entries",
        why="A gigabyte is sent and thrown away, and the leader waits for it.",
        file=CORE_RECEIVING,
        old="if index > log.commit_index and log.term_at(index) == snapshot.last_included_term:",
        new="if False:",
        test=f"{RECEIVING}::test_a_snapshot_whose_entries_the_log_has_is_not_received",
    ),
    Mutant(
        name="more-than-a-needless-snapshot-acknowledged",
        why="A suffix that the leader does not have counts as a part of its log.",
        file=CORE_RECEIVING,
        old="size_bytes, match_index=index)\n            return False",
        new="size_bytes, match_index=log.last_index)\n            return False",
        test=f"{MUSEUM}::test_080_an_older_snapshot_takes_nothing_from_a_newer_log",
    ),
    Mutant(
        name="more-than-the-installed-snapshot-acknowledged",
        why="A suffix that the leader does not have counts as a part of its log.",
        file=CORE_RECEIVING,
        old="size_bytes, index = snapshot.id.size_bytes, snapshot.id.last_included_index",
        new="size_bytes, index = snapshot.id.size_bytes, self._raft.log.last_index",
        test=f"{MUSEUM}"
        "::test_080_of_what_stays_behind_a_snapshot_only_its_own_index_is_acknowledged",
    ),
    Mutant(
        name="snapshot-acknowledged-before-it-is-in-force",
        why="The leader commits what a crash of the receiver takes back.",
        file=CORE_RECEIVING,
        old="self._answer(incoming, received_bytes, installed_bytes, match_index=0)",
        new="self._answer(incoming, received_bytes, installed_bytes, "
        "match_index=snapshot.last_included_index * (received_bytes == snapshot.size_bytes))",
        test=f"{KILLERS}::test_a_snapshot_that_is_stored_as_a_whole_is_not_acknowledged_yet",
    ),
    Mutant(
        name="progress-told-to-a-leader-of-an-older-term",
        why="A server of the past counts contact that it does not have.",
        file=CORE_RECEIVING,
        old="        if incoming.term != raft.current_term:\n",
        new="        if False:\n",
        test=f"{RECEIVING}::test_a_leader_of_an_earlier_term_gets_no_progress",
    ),
    Mutant(
        name="progress-of-another-snapshot-told",
        why="The leader goes on in the middle of a snapshot of which nothing is there.",
        file=CORE_RECEIVING,
        old="        if incoming is not None and incoming.snapshot == snapshot:\n",
        new="        if incoming is not None:\n",
        test=f"{RECEIVING}::test_progress_of_another_snapshot_is_not_told",
    ),
    Mutant(
        name="round-of-an-older-terms-snapshot-accepted",
        why="A leader takes an answer to what it had sent in an earlier term for one of now.",
        file=MESSAGES,
        old="                # As above.\n                round=0,\n",
        new="                # As above.\n                round=message.round,\n",
        test=f"{RECEIVING}::test_a_request_of_a_stale_term_is_answered_with_the_term_and_no_round",
    ),
    Mutant(
        name="candidate-goes-on-with-a-log-that-was-replaced",
        why="Votes for the old log elect it, perhaps by another configuration.",
        file=RAFT,
        old="            if not isinstance(self.role, Follower):\n                # It asked",
        new="            if False:\n                # It asked",
        test=f"{RECEIVING}::test_a_candidate_gives_up_when_a_snapshot_takes_the_place_of_its_log",
    ),
    Mutant(
        name="older-snapshot-takes-the-place-of-a-newer-one",
        why="The server sends a snapshot that ends before its own log begins.",
        file=RAFT,
        old="        if included_index(snapshot) > self.snapshot_index:\n",
        new="        if True:\n",
        test=f"{RECEIVING}::test_an_older_snapshot_never_takes_the_place_of_a_newer_one",
    ),
    # --- the sender ---
    Mutant(
        name="last-compacted-entry-not-sent-by-snapshot",
        why="The leader probes below its log and cannot name the entry before.",
        file=PROGRESS,
        old="            return self.next_index <= base_index\n",
        new="            return self.next_index < base_index\n",
        test=f"{MUSEUM}::test_057_a_leader_without_the_old_entries_sends_its_snapshot",
    ),
    Mutant(
        name="follower-that-has-the-last-compacted-entry-sent-a-snapshot",
        why="The whole state is sent for one entry.",
        file=LEADER,
        old="                next_index = max(next_index, self._log.first_index)\n",
        new="                pass\n",
        test=f"{SENDING}::test_a_follower_that_has_the_last_compacted_entry_needs_no_snapshot",
    ),
    Mutant(
        name="snapshot-sent-before-the-first-entry-was-tried",
        why="A server that has everything is sent the whole state.",
        file=PROGRESS,
        old="            return self.next_index <= base_index\n",
        new="            return self.next_index <= base_index + 1\n",
        test=f"{KILLERS}::test_a_server_that_comes_back_with_all_entries_needs_no_snapshot",
    ),
    Mutant(
        name="older-snapshot-sent-to-a-server-that-is-away",
        why="It keeps an old snapshot on the disk for days, and then gets it.",
        file=PROGRESS,
        old="return self.was_useless or not begun or not self.in_contact(now, patience_ticks)",
        new="return self.was_useless or not self.in_contact(now, patience_ticks)",
        test=f"{KEEPING}::test_who_has_said_nothing_about_an_older_snapshot_is_sent_the_newest",
    ),
    Mutant(
        name="snapshot-started-over-when-a-newer-one-is-taken",
        why="On a busy cluster no snapshot ever arrives.",
        file=PROGRESS,
        old="begun = self.snapshot_round > 0 or self.received_bytes > 0",
        new="begun = False",
        test=f"{KEEPING}"
        "::test_a_snapshot_that_is_being_sent_stays_in_use_when_a_newer_one_is_taken",
    ),
    Mutant(
        name="older-snapshot-kept-for-ever-for-a-server-that-vanished",
        why="A machine that burns in the middle of a transfer costs as much disk as the state.",
        file=PROGRESS,
        old="return self.was_useless or not begun or not self.in_contact(now, patience_ticks)",
        new="return self.was_useless or not begun",
        test=f"{KEEPING}::test_an_older_snapshot_is_not_kept_for_a_server_that_vanished_half_way",
    ),
    Mutant(
        name="parts-sent-before-the-server-has-said-where-to-begin",
        why="What it has from before a restart is sent again.",
        file=LEADER,
        old="            begun = progress.snapshot_round > 0\n            return begun",
        new="            begun = True\n            return begun",
        test=f"{SENDING}::test_nothing_is_sent_before_the_server_has_said_where_to_begin",
    ),
    Mutant(
        name="lost-parts-not-sent-again",
        why="After a message is lost the snapshot stands still for ever.",
        file=PROGRESS,
        old="            self.resend_snapshot()\n",
        new="            pass\n",
        test=f"{SENDING}::test_parts_that_are_lost_are_sent_again",
    ),
    Mutant(
        name="parts-sent-again-while-the-state-is-built",
        why="The last megabyte is sent over and over while the receiver works.",
        file=PROGRESS,
        old="        if (received_bytes, installed_bytes) != before:\n",
        new="        if received_bytes != before[0]:\n",
        test=f"{SENDING}::test_parts_are_not_sent_again_while_something_comes_on",
    ),
    Mutant(
        name="all-parts-sent-at-once",
        why="The memory of the leader and all links fill up with a snapshot.",
        file=PROGRESS,
        old="return self.sent_bytes - self.received_bytes >= SNAPSHOT_INFLIGHT_BYTES_MAX",
        new="return False",
        test=f"{SENDING}::test_only_a_window_of_parts_is_unanswered",
    ),
    Mutant(
        name="late-answer-moves-a-snapshot-back",
        why="What has arrived is sent again, and again.",
        file=PROGRESS,
        old="if round_number < self.snapshot_round or received_bytes > self.snapshot.size_bytes:",
        new="if received_bytes > self.snapshot.size_bytes:",
        test=f"{SENDING}::test_late_answers_move_nothing_back",
    ),
    Mutant(
        name="part-that-the-server-has-lost-not-sent-again",
        why="It waits for the middle of a snapshot, and gets only the end.",
        file=PROGRESS,
        old="            # It has lost a part of it since.\n"
        "            self.sent_bytes = received_bytes\n",
        new="            # It has lost a part of it since.\n            pass\n",
        test=f"{SENDING}::test_a_server_that_has_lost_a_part_gets_it_again",
    ),
    Mutant(
        name="answer-about-another-snapshot-counted",
        why="The leader goes on in the middle of a snapshot of which nothing is there.",
        file=LEADER,
        old="        elif message.snapshot == progress.snapshot:\n",
        new="        elif progress.snapshot is not None:\n",
        test=f"{SENDING}::test_an_answer_about_another_snapshot_says_nothing_about_this_one",
    ),
    Mutant(
        name="late-acknowledgement-ends-a-snapshot-that-is-needed",
        why="The snapshot begins anew whenever an old answer arrives.",
        file=LEADER,
        old="        elif progress.snapshot is None or message.match_index >= "
        "self._log.base_index:\n",
        new="        else:\n",
        test=f"{SENDING}::test_a_late_answer_from_below_the_base_does_not_end_the_snapshot",
    ),
    Mutant(
        name="installed-snapshot-not-counted",
        why="What a snapshot has brought is never acknowledged, and it is sent again.",
        file=LEADER,
        old="        if message.match_index:\n            self._acknowledged(progress,",
        new="        if False:\n            self._acknowledged(progress,",
        test=f"{SENDING}::test_what_is_acknowledged_by_a_snapshot_counts_for_commits",
    ),
    Mutant(
        name="fenced-server-sent-a-snapshot",
        why="What it acknowledges proves nothing, and yet the leader works for it.",
        file=LEADER,
        old="            if not progress.fenced and progress.is_due(newest, begin, now, ticks):\n",
        new="            if progress.is_due(newest, begin, now, ticks):\n",
        test=f"{SENDING}::test_a_fenced_server_is_sent_no_snapshot",
    ),
    Mutant(
        name="learner-that-has-entries-sent-a-snapshot",
        why="A link that breaks costs a learner all that it has: it begins again with the state.",
        file=LEADER,
        old="            if progress.match_index == 0 and server in "
        "self._latest().configuration.learners:\n",
        new="            if server in self._latest().configuration.learners:\n",
        test=f"{SENDING}"
        "::test_a_learner_that_has_some_of_the_log_and_a_voter_are_sent_the_rest_of_it",
    ),
    Mutant(
        name="change-waits-for-ever-for-a-snapshot",
        why="A disk that is slow, or a worker that hangs, keeps the membership as it is.",
        file="raftd/preflight.py",
        old="                or preflight.deadline_tick <= raft.now\n",
        new="                or False\n",
        test="tests/node/test_snapshots.py"
        "::test_a_change_does_not_wait_for_a_snapshot_that_does_not_come",
    ),
    # --- shares, and what is kept ---
    Mutant(
        name="lagging-voter-throttled",
        why="The majority waits for a server that is slowed down on purpose.",
        file=LEADER,
        old="and (progress.snapshot is not None or server in "
        "self._latest().configuration.learners)",
        new="and True",
        test=f"{KEEPING}::test_a_voter_that_lags_gets_entries_as_fast_as_it_can",
    ),
    Mutant(
        name="learner-not-throttled",
        why="Catching up takes the network from those who commit.",
        file=LEADER,
        old="and (progress.snapshot is not None or server in "
        "self._latest().configuration.learners)",
        new="and progress.snapshot is not None",
        test=f"{KEEPING}::test_a_learner_gets_entries_no_faster_than_its_share",
    ),
    Mutant(
        name="unused-share-saved-up",
        why="After a pause a burst takes the network from those who commit.",
        file=PROGRESS,
        old="min(self.allowance_bytes + share.size_bytes, share.size_bytes)",
        new="self.allowance_bytes + share.size_bytes",
        test=f"{KEEPING}::test_what_was_not_sent_in_a_tick_is_lost",
    ),
    Mutant(
        name="entries-after-a-snapshot-that-is-being-sent-not-kept",
        why="Whoever has installed one needs the next one at once, and so on.",
        file=LEADER,
        old="                needed.append(progress.snapshot.last_included_index)\n",
        new="                pass\n",
        test=f"{KEEPING}::test_entries_after_a_snapshot_that_is_being_sent_are_needed",
    ),
    Mutant(
        name="entries-kept-for-a-server-that-is-away",
        why="One dead server lets the logs of all others grow.",
        file=LEADER,
        old="            if not progress.in_contact(self._raft.now, "
        "self._options.election_ticks):\n"
        "                continue\n            if progress.snapshot is not None:\n"
        "                needed",
        new="            if False:\n"
        "                continue\n            if progress.snapshot is not None:\n"
        "                needed",
        test=f"{KEEPING}::test_nothing_is_kept_for_a_server_that_is_away",
    ),
    Mutant(
        name="snapshot-removed-while-it-is-being-sent",
        why="The leader reads a file that is gone, in the middle.",
        file=LEADER,
        old="for p in fed if p.snapshot and not p.fenced)",
        new="for p in fed if False)",
        test=f"{KEEPING}"
        "::test_a_snapshot_that_is_being_sent_stays_in_use_when_a_newer_one_is_taken",
    ),
    Mutant(
        name="caught-up-in-the-middle-of-a-snapshot",
        why="A server without a state becomes a voter, and the majority waits for it.",
        file=LEADER,
        old="            and progress.snapshot is None\n",
        new="",
        test=f"{KEEPING}::test_who_is_sent_a_snapshot_is_not_caught_up",
    ),
    Mutant(
        name="majority-short-of-space-not-noticed",
        why="Writes go on until the disks that commit them are full.",
        file=LEADER,
        old="        if self._raft.is_short_of_space or result is VoteResult.LOST:\n",
        new="        if self._raft.is_short_of_space:\n",
        test=f"{KEEPING}::test_nothing_more_should_be_written_if_too_many_disks_are_nearly_full",
    ),
    # --- rates, and disks that went back in time ---
    Mutant(
        name="voters-run-up-debts",
        why="A voter that becomes a learner gets nothing for minutes.",
        file=LEADER,
        old="            if server in self._latest().configuration.learners:\n"
        "                # What",
        new="            if True:\n                # What",
        test=f"{SENDING}::test_what_a_voter_is_fed_runs_up_no_debts",
    ),
    Mutant(
        name="snapshot-waits-for-the-debts-of-entries",
        why="A server that was fed a long entry gets nothing of its snapshot for minutes.",
        file=PROGRESS,
        old="        self.allowance_bytes = max(self.allowance_bytes, 0)\n",
        new="",
        test=f"{SENDING}::test_what_a_learner_owes_for_entries_does_not_delay_its_snapshot",
    ),
    Mutant(
        name="receiver-that-lost-its-disk-not-fenced",
        why="A server that answers parts of a snapshot counts for entries that it has lost.",
        file=LEADER,
        old="        if self._has_gone_back(progress, message.round, message.last_log_index):\n"
        "            progress.fenced = True\n"
        "            return\n"
        "        if message.match_index:",
        new="        if False:\n"
        "            progress.fenced = True\n"
        "            return\n"
        "        if message.match_index:",
        test=f"{SENDING}"
        "::test_who_lacks_what_it_had_acknowledged_is_fenced_by_its_answer_to_a_part",
    ),
    Mutant(
        name="receiver-with-all-that-it-acknowledged-fenced",
        why="A server whose disk is good does not count any more until the next term.",
        file=LEADER,
        old="            last_log_index is not None\n"
        "            and round_number > acknowledged_round\n"
        "            and last_log_index < acknowledged\n",
        new="            last_log_index is not None\n"
        "            and round_number > acknowledged_round\n"
        "            and last_log_index <= acknowledged\n",
        test=f"{SENDING}"
        "::test_who_has_what_it_had_acknowledged_is_not_fenced_by_its_answer_to_a_part",
    ),
    Mutant(
        name="late-answers-to-parts-fence",
        why="An answer that was overtaken by an acknowledgement shuts a good server out.",
        file=LEADER,
        old="            and round_number > acknowledged_round\n",
        new="",
        test=f"{SENDING}::test_an_answer_to_a_part_from_before_the_acknowledgement_fences_nobody",
    ),
    Mutant(
        name="receiver-does-not-say-where-its-log-ends",
        why="A disk that went back in time is not noticed during a snapshot.",
        file=CORE_RECEIVING,
        old="                last_log_index=raft.log.last_index,\n            ),\n        )\n",
        new="            ),\n        )\n",
        test=f"{SENDING}::test_an_answer_to_a_part_says_where_the_log_ends",
    ),
    # --- how soon, and how fast ---
    Mutant(
        name="busy-leader-not-spared",
        why="Clients wait for a leader that feeds a new server.",
        file=PACING,
        old="        if not busy_bytes or not (has_read or self._last_index > first):\n",
        new="        if True:\n",
        test=f"{PACING_TESTS}"
        "::test_after_a_tick_in_which_clients_worked_it_gets_less_and_then_all_again",
        unreachable=PACE,
    ),
    Mutant(
        name="readers-not-spared",
        why="Clients that only read wait for a leader that feeds a new server.",
        file=LEADER,
        old="            self._pace.note_reads()\n        forced",
        new="            pass\n        forced",
        test=f"{PACING_TESTS}::test_clients_that_read_are_spared_as_those_that_write",
        unreachable=PACE,
    ),
    Mutant(
        name="readers-by-lease-not-spared",
        why="Clients that only read, by the lease, wait for a leader that feeds a new server.",
        file=LEADER,
        old="            self._pace.note_reads()\n        return index",
        new="            pass\n        return index",
        test=f"{PACING_TESTS}::test_clients_that_read_by_the_lease_are_spared_as_well",
        unreachable=PACE,
    ),
    Mutant(
        name="each-of-several-takes-the-whole-share",
        why="Three servers that are replaced at once take three times as much from clients.",
        file=PACING,
        old="busy_bytes // servers",
        new="busy_bytes",
        test=f"{PACING_TESTS}::test_several_together_take_no_more_of_a_busy_leader_than_one",
        unreachable=PACE,
    ),
    Mutant(
        name="fed-more-slowly-than-clients-write",
        why="A new server never catches up on a busy cluster.",
        file=PACING,
        old="max(busy_bytes // servers, GAIN * written_bytes, 1)",
        new="max(busy_bytes // servers, 1)",
        test=f"{PACING_TESTS}::test_it_gets_more_than_clients_write_or_it_would_never_catch_up",
        unreachable=PACE,
    ),
    Mutant(
        name="new-link-waits-for-a-heartbeat",
        why="Each new server takes a heartbeat longer than it has to.",
        file=LEADER,
        old="    self.progress[server].probe_outstanding = False\n            self._broadcast",
        new="    pass\n            self._broadcast",
        test=f"{PACING_TESTS}"
        "::test_whom_there_is_a_link_to_now_is_asked_at_once_and_not_with_the_next_heartbeat",
        unreachable="Links of the simulator are always there.",
    ),
    Mutant(
        name="voter-applies-later",
        why="A server that has to lead has to apply a long log first.",
        file="raftd/applying.py",
        old="    if latest is not None and raft.server in latest.configuration.all_voters:\n",
        new="    if False:\n",
        test=f"{APPLYING}::test_a_voter_that_was_away_applies_what_comes_in",
        unreachable="Nothing that is wrong follows from it.",
    ),
    Mutant(
        name="learner-never-up-to-date",
        why="A learner on a busy cluster shows what was true a while ago.",
        file=RAFT,
        old="        if message.entries and message.leader_commit > last_verified:\n",
        new="        if message.entries:\n",
        test=f"{APPLYING}::test_a_learner_that_has_caught_up_applies_what_comes_in",
        unreachable="Nothing that is wrong follows from it.",
    ),
    Mutant(
        name="waits-for-what-it-has-put-off",
        why="A new server uses a whole processor while it is sent its log.",
        file="raftd/node.py",
        old=" and not puts_off_applying(self.raft)",
        new="",
        test=f"{APPLYING}::test_a_new_server_applies_its_log_once_it_has_all_of_it",
        unreachable="The simulator has no processor.",
    ),
)
