"""Mutants of the replicated state machine: keys, sessions, tombstones."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

STATE = "raftd/storage/state.py"
STATE_TESTS = "tests/storage/test_state.py"

MUTANTS = (
    Mutant(
        name="session-table-not-in-the-state",
        why="A copy of the state does not know which commands were executed.",
        file=STATE,
        old="for name, session in self._used.items():",
        new="for name, session in ():",
        test=f"{STATE_TESTS}::test_a_restarted_machine_stands_where_the_first_one_stood",
    ),
    Mutant(
        name="serial-not-remembered",
        why="A command that is sent again is executed again.",
        file=STATE,
        old="        session.results[serial] = pack_result(result)\n",
        new="",
        test=f"{STATE_TESTS}::test_a_repeated_serial_gets_the_same_answer_and_changes_nothing",
    ),
    Mutant(
        name="serial-of-a-refused-condition-not-remembered",
        why="A condition that did not hold the first time is tried again later, and may hold.",
        file=STATE,
        old="        session.results[serial] = pack_result(result)\n",
        new="        if result.applied: session.results[serial] = pack_result(result)\n",
        test=f"{STATE_TESTS}::test_an_answer_that_was_no_is_repeated_too",
    ),
    Mutant(
        name="repeated-serial-executed-again",
        why="The remembered answer is not looked at.",
        file=STATE,
        old="known = session.results.get(serial)",
        new="known = None",
        test=f"{STATE_TESTS}::test_a_repeated_serial_gets_the_same_answer_and_changes_nothing",
    ),
    Mutant(
        name="acknowledged-serial-executed-again",
        why="A copy that was delayed until its answer was forgotten is executed again.",
        file=STATE,
        old="if serial < session.lowest_serial:",
        new="if serial < 1:",
        test=f"{STATE_TESTS}::test_an_acknowledged_serial_is_never_executed_again",
    ),
    Mutant(
        name="command-of-an-expired-session-executed",
        why="Nobody knows any more whether it was executed before.",
        file=STATE,
        old="            return self._session_expired(name)\n        session.used_index",
        new="            return self._handlers[type(body)](body, command, index)\n"
        "        session.used_index",
        test=f"{STATE_TESTS}::test_a_session_that_was_never_opened_is_expired",
    ),
    Mutant(
        name="expired-session-opened-again",
        why="A late copy of the command that opened it makes all its commands new again.",
        file=STATE,
        old="if self._store.get(_EXPIRED + name_bytes) is not None:",
        new="if False:",
        test=f"{STATE_TESTS}::test_a_late_copy_of_an_open_command_does_not_open_an_evicted_session",
    ),
    Mutant(
        name="expiry-depends-on-the-batch",
        why="Batches differ between servers, so they evict different sessions.",
        file=STATE,
        old="        session.used_index = index\n        self._used[name] = session\n"
        "        if command",
        new="        session.used_index = self.applied_index\n"
        "        self._used[name] = session\n        if command",
        test=f"{STATE_TESTS}::test_batches_of_any_size_leave_the_same_bytes",
    ),
    Mutant(
        name="expiry-depends-on-the-cache",
        why="What is cached differs between servers, so they evict different sessions.",
        file=STATE,
        old="while self.session_count >= SESSIONS_MAX:",
        new="while len(self._sessions) >= SESSIONS_MAX:",
        test=f"{STATE_TESTS}::test_batches_of_any_size_leave_the_same_bytes",
    ),
    Mutant(
        name="session-evicted-by-its-age",
        why="A client that writes all the time loses its session.",
        file=STATE,
        old="            if used == place:\n",
        new="            if True:\n",
        test=f"{STATE_TESTS}::test_the_least_recently_used_session_is_evicted",
    ),
    Mutant(
        name="compare-and-set-does-not-compare",
        why="A write that lost the race overwrites the one that won it.",
        file=STATE,
        old="if stored is None or stored[_REVISIONS.size :] != body.expected:",
        new="if stored is None:",
        test=f"{STATE_TESTS}::test_compare_and_set_compares_every_byte",
    ),
    Mutant(
        name="revision-of-a-condition-not-compared",
        why="A write that lost the race overwrites the one that won it.",
        file=STATE,
        old="if body.if_revision != mod_revision:",
        new="if body.if_revision < mod_revision and stored is None:",
        test=f"{STATE_TESTS}::test_if_revision_is_the_keys_own_mod_revision",
    ),
    Mutant(
        name="half-of-a-batch-stays-visible",
        why="A command that cannot be applied leaves the ones before it in the state.",
        file="raftd/storage/store.py",
        old="                    self._pairs[key] = before\n",
        new="                    pass\n",
        test="tests/storage/test_store.py::test_nothing_of_a_transaction_that_raises_is_visible",
    ),
    Mutant(
        name="tombstone-not-in-the-state",
        why="A server that was removed for good is let in again.",
        file=STATE,
        old="                self._effects.put(key, _INDEX.pack(index))\n",
        new="                pass\n",
        test=f"{STATE_TESTS}::test_a_configuration_with_tombstones_is_remembered_by_server",
    ),
    Mutant(
        name="operation-ended-twice",
        why="What an operation says about its end changes afterwards.",
        file="raftd/storage/ledger.py",
        old="        if operation.running:\n            if entry.outcome:\n",
        new="        if True:\n            if entry.outcome:\n",
        test="tests/storage/test_ledger.py::test_the_end_of_an_operation_is_final",
    ),
    Mutant(
        name="second-operation-while-one-runs",
        why="Two membership operations work against each other.",
        file="raftd/storage/ledger.py",
        old="        if self._running is not None:\n            return _in_the_way(",
        new="        if False:\n            return _in_the_way(",
        test="tests/storage/test_ledger.py::test_a_second_operation_is_refused_while_one_runs",
    ),
)
