"""Mutants of reads that servers answer without leading, and of leases."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

LEASE = "raftd/core/lease.py"
READS = "raftd/core/reads.py"
RAFT = "raftd/core/raft.py"
LEADER = "raftd/core/leader.py"
READING = "raftd/reading.py"
NETWORK = "raftd/network/network.py"
PORTIONS = "raftd/portions.py"
WATCHING = "raftd/watching.py"
LEASE_TESTS = "tests/core/test_lease.py"
READ_TESTS = "tests/core/test_reads_elsewhere.py"
NODE_TESTS = "tests/node/test_reading.py"
BATCH_TESTS = "tests/node/test_batches.py"

MUTANTS = (
    # --- reads of servers that do not lead ---
    Mutant(
        name="read-index-told-without-a-round",
        why="A leader of the past tells a follower an index that others have left behind.",
        file=READS,
        old="        index = self.lease_index()\n        if index",
        new="        index = self._raft.log.commit_index\n        if index",
        test=f"{READ_TESTS}::test_a_leader_answers_after_a_round_that_has_started_later",
        found_by_search=True,
    ),
    Mutant(
        name="old-answer-confirms-newer-reads",
        why="The index is from before the read arrived.",
        file=READS,
        old="        while self._waiting and self._waiting[0].id <= id:\n",
        new="        while self._waiting:\n",
        test=f"{READ_TESTS}::test_an_answer_says_nothing_about_reads_that_came_after_its_question",
    ),
    Mutant(
        name="question-under-the-number-of-the-one-before",
        why="A read that arrives later takes the answer to an older question for its own.",
        file=READS,
        old="self._waiting.append(_Forwarded(token, deadline_tick, self._last_id + 1))",
        new="self._waiting.append(_Forwarded(token, deadline_tick, self._last_id))",
        test=f"{READ_TESTS}::test_an_answer_says_nothing_about_reads_that_came_after_its_question",
    ),
    Mutant(
        name="questions-of-all-processes-numbered-alike",
        why="What an earlier process of the server was told confirms reads of the next one.",
        file=READS,
        old="            self._last_id = self._random.getrandbits(ID_BITS)\n",
        new="            self._last_id = 1\n",
        test=f"{READ_TESTS}::test_answers_that_an_earlier_process_was_meant_to_get_confirm_nothing",
    ),
    Mutant(
        name="answer-to-no-question-accepted",
        why="What another process has asked about confirms reads of this one.",
        file=READS,
        old="        if id > self._last_id:\n",
        new="        if False:\n",
        test=f"{READ_TESTS}::test_answers_that_an_earlier_process_was_meant_to_get_confirm_nothing",
    ),
    Mutant(
        name="lost-question-not-repeated",
        why="One lost message, and all reads that wait are given up.",
        file=READS,
        old="            and waited_ticks < self._options.heartbeat_ticks\n",
        new="            and waited_ticks < self._options.election_ticks\n",
        test=f"{READ_TESTS}"
        "::test_a_question_that_is_not_answered_is_asked_again_after_a_heartbeat_interval",
    ),
    Mutant(
        name="next-leader-not-asked",
        why="Reads wait for the answer of a leader that is gone.",
        file=READS,
        old="            and self._asked == (term, leader)\n",
        new="            and self._asked\n",
        test=f"{READ_TESTS}::test_another_leader_is_asked_at_once",
    ),
    Mutant(
        name="read-elsewhere-never-given-up",
        why="A client waits for as long as there is no leader.",
        file=RAFT,
        old="        self._reads += self._forwarded_reads.expired(self.now)\n",
        new="",
        test=f"{READ_TESTS}::test_lost_questions_are_repeated_until_the_read_is_given_up",
    ),
    Mutant(
        name="reads-forgotten-by-who-comes-to-lead",
        why="Nobody is asked any more, and nobody answers.",
        file=RAFT,
        old="        self.role.reads.take_over(self._forwarded_reads.take_all())\n",
        new="        self._forwarded_reads.take_all()\n",
        test=f"{READ_TESTS}::test_who_comes_to_lead_answers_by_itself_what_it_had_asked_about",
    ),
    Mutant(
        name="older-release-asked-for-a-read-index",
        why="It closes the connection to whoever asks.",
        file=READING,
        old="link.connected and link.version >= READ_INDEX_VERSION",
        new="link.connected",
        test=f"{NODE_TESTS}::test_between_releases_it_names_the_leader_too",
    ),
    Mutant(
        name="question-sent-to-an-older-release",
        why="It closes the connection.",
        file=NETWORK,
        old="connection.version < 4 and isinstance(envelope.message, _SINCE_VERSION_4)",
        new="False",
        test="tests/network/test_links.py"
        "::test_what_an_older_release_does_not_know_is_not_sent_to_it",
    ),
    Mutant(
        name="read-elsewhere-waits-for-ever-for-entries",
        why="A server that is cut off keeps its clients.",
        file=READING,
        old="            if read.deadline_tick is None or raft.now < read.deadline_tick:\n",
        new="            if True:\n",
        test=f"{NODE_TESTS}::test_what_it_cannot_apply_in_time_is_not_answered_and_it_says_why",
    ),
    Mutant(
        name="learners-asked-in-each-round",
        why="Messages that no read waits for.",
        file=LEADER,
        old="self._feed(server, self.progress[server], self._broadcast or server in asked)",
        new="self._feed(server, self.progress[server], forced)",
        test=f"{READ_TESTS}::test_a_round_for_a_read_asks_voters_alone_and_no_more_of_them_than_are_needed",
    ),
    Mutant(
        name="asker-not-asked",
        why="Who asks for a read learns with the next heartbeat only what is committed.",
        file="raftd/core/reads.py",
        old="            self._is_asked_elsewhere = True\n",
        new="            self._is_asked_elsewhere = False\n",
        test=f"{READ_TESTS}::test_who_asks_hears_with_the_round_what_is_committed",
    ),
    Mutant(
        name="slow-voter-asked-again",
        why="Each read waits for the one voter that does not answer.",
        file="raftd/core/reads.py",
        old="        others.sort(key=lambda server: (-rounds[server], server))\n",
        new="        others.sort(key=lambda server: (rounds[server], server))\n",
        test=f"{READ_TESTS}::test_the_voter_that_has_answered_last_is_asked",
    ),
    Mutant(
        name="others-not-asked-after-all",
        why="A read waits for the next heartbeat when the voter that was asked is gone.",
        file=LEADER,
        old="        if self.reads.is_unconfirmed:\n",
        new="        if False:\n",
        test=f"{READ_TESTS}::test_who_was_not_asked_is_asked_with_the_next_tick_if_there_is_no_answer",
    ),
    # --- leases: the leader ---
    Mutant(
        name="lease-as-long-as-the-promise",
        why="The clock of a voter that runs faster ends the promise before the lease ends.",
        file=LEASE,
        old="        self._share = 1 - options.clock_drift\n",
        new="        self._share = 1.0\n",
        test=f"{LEASE_TESTS}"
        "::test_a_lease_lasts_from_the_beginning_of_the_round_for_less_than_the_promise",
        found_by_search=True,
    ),
    Mutant(
        name="lease-from-a-later-round",
        why="The voter has promised earlier than that.",
        file=LEASE,
        old="in reversed(self._rounds) if number <= round_number)",
        new="in reversed(self._rounds) if number >= round_number)",
        test=f"{LEASE_TESTS}::test_answers_to_old_rounds_never_make_a_lease_longer",
    ),
    Mutant(
        name="lease-longer-than-what-was-promised",
        why="A server with a shorter time-out votes for others before the lease ends.",
        file=LEASE,
        old="min(self._timeout_ns, vote_withheld_ms * MS_NS)",
        new="self._timeout_ns",
        test=f"{LEASE_TESTS}::test_who_promises_nothing_or_less_is_believed",
    ),
    Mutant(
        name="lease-held-by-the-new-half-alone",
        why="C_old may elect somebody else, whose writes reads miss.",
        file=LEASE,
        old="committed_index(voters, outgoing, promised_ns) or 0",
        new="committed_index(voters, (), promised_ns) or 0",
        test=f"{LEASE_TESTS}::test_while_joint_both_halves_have_to_promise",
    ),
    Mutant(
        name="lease-held-by-who-does-not-count",
        why="A server that was fenced has lost its votes, too.",
        file=LEASE,
        old="in self._promised_ns.items() if server in counted",
        new="in self._promised_ns.items()",
        test=f"{LEASE_TESTS}::test_a_fenced_server_holds_no_lease",
    ),
    Mutant(
        name="lease-kept-in-a-transfer",
        why="Votes for the target are not withheld.",
        file=LEADER,
        old="            self.reads.lease.give_up()\n",
        new="",
        test=f"{LEASE_TESTS}::test_the_lease_ends_before_the_target_of_a_transfer_is_told",
        found_by_search=True,
    ),
    Mutant(
        name="lease-regained-after-a-transfer",
        why="A TimeoutNow that arrives late still has its target elected.",
        file=LEASE,
        old="        self._timeout_ns = self._until_ns = 0\n",
        new="        self._until_ns = 0\n",
        test=f"{LEASE_TESTS}::test_a_lease_that_was_given_up_never_comes_back",
    ),
    Mutant(
        name="lease-before-the-no-op-is-committed",
        why="A new leader does not know yet what its predecessors have committed.",
        file=READS,
        old="commit_index if is_held and self._has_committed_in_term() else None",
        new="commit_index if is_held else None",
        test=f"{LEASE_TESTS}::test_a_new_leader_has_no_lease_before_it_has_committed_in_its_term",
    ),
    Mutant(
        name="clock-not-read-for-the-answer",
        why="A process that was stopped in between answers by a lease of the past.",
        file=READING,
        old="            raft.monotonic_ns = self._uptime_ns()\n            index",
        new="            index",
        test=f"{NODE_TESTS}::test_the_clock_is_read_for_each_answer_and_not_once_for_a_turn",
    ),
    Mutant(
        name="clock-not-read-for-the-turn",
        why="Promises begin, and end, in the past.",
        file="raftd/node.py",
        old="        self.raft.monotonic_ns = self._uptime_ns()\n        for item in inputs:\n",
        new="        for item in inputs:\n",
        test=f"{NODE_TESTS}::test_while_a_lease_is_held_nobody_is_elected",
    ),
    # --- leases: the voters ---
    Mutant(
        name="vote-withheld-by-ticks-alone",
        why="After a stall several ticks come together, and the time-out is over too soon.",
        file=LEASE,
        old="        return now_ns < self._until_ns\n",
        new="        return False\n",
        test=f"{LEASE_TESTS}::test_a_promise_is_kept_by_the_clock_and_not_by_ticks",
        found_by_search=True,
    ),
    Mutant(
        name="own-vote-not-withheld",
        why="A candidate gives itself the vote that it has promised to give to nobody.",
        file=RAFT,
        old="if self._vote_promise.binds(self.monotonic_ns):\n                # Its own",
        new="if False:\n                # Its own",
        test=f"{LEASE_TESTS}::test_its_own_candidacy_waits_for_the_end_of_its_promise",
    ),
    Mutant(
        name="promise-ends-with-contact",
        why="A higher term that comes along frees the vote.",
        file=RAFT,
        old="        if self._vote_promise.binds(self.monotonic_ns):\n            return True\n",
        new="        if False:\n            return True\n",
        test=f"{LEASE_TESTS}::test_a_promise_outlives_the_term_and_the_leader_that_it_was_given_to",
    ),
    Mutant(
        name="promise-made-shorter",
        why="A message of the leader ends what a restart has to keep.",
        file=LEASE,
        old="        self._until_ns = max(self._until_ns, until_ns)\n",
        new="        self._until_ns = until_ns\n",
        test=f"{LEASE_TESTS}::test_a_promise_is_never_made_shorter",
    ),
    Mutant(
        name="promise-forgotten-by-a-restart",
        why="The voter that a lease rests on votes for somebody else.",
        file=READING,
        old="        raft.withhold_vote(self._bound_until_ns)\n",
        new="",
        test=f"{NODE_TESTS}::test_a_voter_that_restarts_does_not_vote_while_its_promise_may_last",
    ),
    Mutant(
        name="promise-not-noted",
        why="A restart with other settings does not know what was promised.",
        file=READING,
        old="        if promised_ms > identity.vote_withheld_ms:\n",
        new="        if False:\n",
        test=f"{NODE_TESTS}::test_a_voter_keeps_its_promise_if_it_restarts_without_leases",
    ),
    Mutant(
        name="note-of-a-promise-removed-too-soon",
        why="The second of two restarts forgets what the process before the first has promised.",
        file=READING,
        old="> promised_ms and self._uptime_ns() >= self._bound_until_ns:",
        new="> promised_ms:",
        test=f"{NODE_TESTS}::test_once_its_last_promise_has_ended_nothing_is_left_of_it",
    ),
    # --- long answers ---
    Mutant(
        name="long-answers-all-in-one-turn",
        why="A few kilobytes of questions hold up the heartbeats for seconds.",
        file=PORTIONS,
        old="        if self._waiting or self._left_bytes <= 0:\n",
        new="        if False:\n",
        test=f"{BATCH_TESTS}"
        "::test_long_values_that_are_asked_for_at_once_are_given_in_several_turns[False]",
    ),
    Mutant(
        name="entries-of-a-list-cost-nothing",
        why="Lists of short entries hold up the heartbeats for seconds.",
        file=PORTIONS,
        old="        self._left_bytes -= content_bytes + ANSWER_BYTES * entries\n",
        new="        self._left_bytes -= content_bytes\n",
        test=f"{BATCH_TESTS}::test_long_lists_of_short_entries_are_given_in_several_turns",
    ),
    Mutant(
        name="what-waits-for-a-portion-wakes-nobody",
        why="Who has to wait for the next turn waits until something else happens.",
        file="raftd/node.py",
        old="self._time.has_more or self._portions.has_more\n",
        new="self._time.has_more\n",
        test=f"{BATCH_TESTS}"
        "::test_long_values_that_are_asked_for_at_once_are_given_in_several_turns[False]",
    ),
    Mutant(
        name="watches-forgotten-behind-a-portion",
        why="Who is not told of a change in its turn never hears of it.",
        file=WATCHING,
        old="                self._looked_revision = looked_revision\n",
        new="                pass\n",
        test=f"{BATCH_TESTS}::test_many_who_watch_a_long_value_are_told_of_it_in_several_turns",
    ),
    Mutant(
        name="looking-for-changes-costs-nothing",
        why="Who asks again and again for what nobody has changed holds up the heartbeats.",
        file=WATCHING,
        old="        self._portions.spend(LOOKED_BYTES * (watch.after_revision - before), 0)\n",
        new="",
        test=f"{BATCH_TESTS}::test_changes_that_concern_nobody_are_looked_at_in_several_turns",
    ),
)
