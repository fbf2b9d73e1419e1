"""Mutants of keys with a life, of transactions, and of what those who watch are told."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TIME = "raftd/cluster_time.py"
LIVES = "raftd/storage/lives.py"
STATE = "raftd/storage/state.py"
TRANSACTING = "raftd/storage/transacting.py"
EVENTS = "raftd/storage/events.py"
WATCHING = "raftd/watching.py"
JUDGING = "raftd/client/judging.py"
TIME_TESTS = "tests/node/test_lives.py"
LIVES_TESTS = "tests/storage/test_lives.py"
TRANSACTION_TESTS = "tests/storage/test_transactions.py"
EVENT_TESTS = "tests/storage/test_events.py"
WATCH_TESTS = "tests/node/test_watching.py"
COMMAND_TESTS = "tests/raftctl/test_lives.py"
NOBODY_LOOKS = "no client of the simulator looks at it"
NOBODY_WATCHES = "nobody watches in the simulator"

MUTANTS = (
    # --- what one entry may cost ---
    Mutant(
        name="transaction-writes-without-a-bound",
        why="A thousand appends of a byte take a gigabyte on every server, at each start again.",
        file=TRANSACTING,
        old=" or self.written_bytes > WRITTEN_BYTES_MAX:",
        new=":",
        test=f"{TRANSACTION_TESTS}::test_a_transaction_that_would_write_too_much_does_nothing",
        unreachable="values in the simulator are short",
    ),
    Mutant(
        name="batch-that-writes-much-in-one-transaction-of-the-store",
        why="All that the entries of a batch write is in memory at once.",
        file=STATE,
        old="                    if effects.worked_bytes > WRITTEN_BYTES_MAX:\n",
        new="                    if False:\n",
        test=f"{TRANSACTION_TESTS}"
        "::test_a_batch_that_writes_much_is_several_transactions_of_the_store_and_the_same_state",
        unreachable="values in the simulator are short",
    ),
    Mutant(
        name="much-work-of-short-entries-in-one-turn",
        why="A server that applies for seconds what a few kilobytes say is taken for dead.",
        file="raftd/applying.py",
        old="            self._left_entries = 0\n",
        new="            pass\n",
        test="tests/node/test_batches.py"
        "::test_short_commands_that_make_much_work_are_applied_in_several_turns[each_writes_much]",
        unreachable="values in the simulator are short",
    ),
    Mutant(
        name="refused-work-costs-nothing",
        why="A transaction that is refused in the end has worked as much as another.",
        file=TRANSACTING,
        old="        self._effects.worked_bytes += len(value)\n",
        new="        pass\n",
        test="tests/node/test_batches.py"
        "::test_short_commands_that_make_much_work_are_applied_in_several_turns[each_is_refused_since_it_writes_too_much]",
        unreachable="values in the simulator are short",
    ),
    Mutant(
        name="reading-costs-nothing",
        why="Commands that read megabytes hold up the heartbeats for seconds.",
        file=TRANSACTING,
        old="            self._effects.worked_bytes += len(stored) // READ_SHARE\n",
        new="            pass\n",
        test="tests/node/test_batches.py"
        "::test_short_commands_that_make_much_work_are_applied_in_several_turns[each_reads_much]",
        unreachable="values in the simulator are short",
    ),
    # --- cluster time ---
    Mutant(
        name="time-of-another-leader-not-taken-over",
        why="Who has counted ahead of the leader that gave a life ends it early.",
        file=TIME,
        old="        if term != raft.current_term or not isinstance(raft.role, Leader):\n",
        new="        if False:\n",
        test=f"{TIME_TESTS}"
        "::test_who_has_counted_ahead_of_a_leader_ends_no_life_that_this_one_gave_early",
        found_by_search=True,
    ),
    Mutant(
        name="leader-goes-by-its-own-old-times",
        why="Under a steady stream of transactions time stands still, and nothing ever ends.",
        file=TIME,
        old="        if term != raft.current_term or not isinstance(raft.role, Leader):\n",
        new="        if True:\n",
        test=f"{TIME_TESTS}::test_time_goes_on_under_a_steady_stream_of_transactions_whose_answers"
        "_take_long",
        unreachable="lives that are too long are none that a client was promised",
    ),
    Mutant(
        name="time-said-before-earlier-terms-are-applied",
        why="A life that an entry of an earlier term gave may end early.",
        file=TIME,
        old="        return isinstance(leader, Leader) and self._state.applied_index >= leader"
        ".term_start\n",
        new="        return isinstance(leader, Leader)\n",
        test=f"{TIME_TESTS}"
        "::test_a_new_leader_says_no_time_before_it_has_applied_what_was_before_its_term",
        unreachable="it takes more coincidences than a thousand runs have",
    ),
    Mutant(
        name="time-never-written-down",
        why="Every restart of all servers begins all lives anew.",
        file=TIME,
        old="        if time_ms < min(earliest, self._state.clock_ms + CLOCK_INTERVAL_MS):\n",
        new="        if time_ms < earliest:\n",
        test=f"{TIME_TESTS}::test_all_servers_may_stop_and_the_rest_of_a_life_goes_on_with_them",
        unreachable="lives that are too long are none that a client was promised",
    ),
    # --- lives ---
    Mutant(
        name="time-goes-back",
        why="A life that is given then ends before those who gave it expect it.",
        file=LIVES,
        old="        if time_ms > self.clock_ms:\n",
        new="        if time_ms != self.clock_ms:\n",
        test=f"{LIVES_TESTS}::test_cluster_time_never_goes_back",
        unreachable="it goes back together with the leader's, so that no life is shorter",
    ),
    Mutant(
        name="life-outlives-a-put",
        why="A key that was set to stay vanishes.",
        file=STATE,
        old="        if self._lives.count:\n            self._lives.set(key, 0)\n"
        "        return self._write(_KEY + key, value, stored)\n\n    def _compare",
        new="        if False:\n            self._lives.set(key, 0)\n"
        "        return self._write(_KEY + key, value, stored)\n\n    def _compare",
        test=f"{LIVES_TESTS}::test_what_ends_the_life_of_a_key_that_stays",
        unreachable="keys with a life are set by nothing else in the simulator",
    ),
    Mutant(
        name="life-outlives-its-key",
        why="The key that is made under the same name later vanishes.",
        file=STATE,
        old="        self._note((store_key, kind))\n        if self._lives.count:\n",
        new="        self._note((store_key, kind))\n        if False:\n",
        test=f"{LIVES_TESTS}::test_a_key_that_is_made_again_has_no_life_of_its_last_one",
        unreachable="keys with a life are deleted by nobody in the simulator",
    ),
    Mutant(
        name="earliest-life-not-looked-up-again",
        why="The leader asks for nothing, or for ever, after a life was changed.",
        file=LIVES,
        old="            if before == self._earliest:\n",
        new="            if False:\n",
        test=f"{LIVES_TESTS}::test_the_index_is_that_of_the_keys_and_batches_do_not_matter",
        unreachable="the leader asks too early, and ends nothing with it",
    ),
    Mutant(
        name="time-not-in-the-hash",
        why="Servers with different times are taken for equal.",
        file=LIVES,
        old="            self._effects.add(time_ms * _CLOCK_FACTOR)\n",
        new="            pass\n",
        test=f"{LIVES_TESTS}::test_cluster_time_is_in_the_hash",
        unreachable="every simulated server has the same time",
    ),
    # --- transactions ---
    Mutant(
        name="conditions-of-a-transaction-any",
        why="A transaction is carried out although a key was changed meanwhile.",
        file=TRANSACTING,
        old="                return False\n        return True\n\n    def carry_out",
        new="                pass\n        return True\n\n    def carry_out",
        test=f"{TRANSACTION_TESTS}::test_nothing_is_done_unless_every_condition_holds",
        unreachable="transactions have no conditions in the simulator",
    ),
    Mutant(
        name="session-keeps-any-amount-of-values",
        why="One client fills the memory of all servers with answers that it never acknowledges.",
        file=STATE,
        old="            returned_max = SESSION_RETURNED_BYTES_MAX - kept_bytes\n",
        new="            returned_max = RETURNED_BYTES_MAX - kept_bytes\n",
        test=f"{TRANSACTION_TESTS}"
        "::test_what_a_session_keeps_of_values_is_bounded_until_they_are_acknowledged",
        unreachable=NOBODY_LOOKS,
    ),
    # --- watching ---
    Mutant(
        name="watcher-skips-what-did-not-fit",
        why="A change that stood behind the limit of an answer is never told.",
        file=WATCHING,
        old="            next_after_revision=watch.after_revision,\n",
        new="            next_after_revision=self._state.revision,\n",
        test=f"{WATCH_TESTS}::test_every_change_is_heard_once_and_in_order_over_kills_of_leaders",
        unreachable=NOBODY_WATCHES,
    ),
    Mutant(
        name="gap-instead-of-an-error",
        why="Who watches after a long absence never hears that changes are missing.",
        file=EVENTS,
        old="        self._segments.clear()\n",
        new="        pass\n",
        test=f"{EVENT_TESTS}::test_a_ring_that_begins_again_has_nothing_of_before",
        unreachable=NOBODY_WATCHES,
    ),
    Mutant(
        name="ring-without-a-bound",
        why="Memory fills up with changes that nobody asks for.",
        file=EVENTS,
        old="            self._count - len(segments[0].changes) >= EVENTS_MAX or self._bytes > "
        "EVENTS_BYTES_MAX\n",
        new="            self._count - len(segments[0].changes) >= EVENTS_MAX\n",
        test=f"{EVENT_TESTS}::test_large_changes_push_out_old_ones_and_the_last_one_is_kept",
        unreachable=NOBODY_WATCHES,
    ),
    Mutant(
        name="watch-stays-with-a-server-that-is-cut-off",
        why="It is silent for ever, while the rest of the cluster goes on.",
        file=JUDGING,
        old="    if isinstance(reply, WatchReply) and not reply.events and not reply.leader:\n",
        new="    if False:\n",
        test=f"{COMMAND_TESTS}::test_another_server_goes_on_where_one_is_gone_or_alone",
        unreachable=NOBODY_WATCHES,
    ),
)
