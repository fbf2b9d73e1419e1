"""Mutants of what serves many clients: the Redis listener, batches, counters, several keys."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

LISTENER = "raftd/network/redis_listener.py"
FRAMING = "raftd/network/redis_framing.py"
COMMANDS = "raftd/network/redis_commands.py"
STATE = "raftd/storage/state.py"
EFFECTS = "raftd/storage/effects.py"
WRITING = "raftd/writing.py"
LISTENER_TESTS = "tests/network/test_redis_listener.py"
CONNECTION_TESTS = "tests/network/test_redis_connections.py"
FRAMING_TESTS = "tests/network/test_redis_framing.py"
COMMAND_TESTS = "tests/network/test_redis_commands.py"
COUNTER_TESTS = "tests/storage/test_counters.py"
BATCH_TESTS = "tests/node/test_batches.py"
NO_SOCKETS = "the simulator has neither sockets nor the listeners that serve them"

MUTANTS = (
    # --- the Redis listener ---
    Mutant(
        name="read-overtakes-the-write-before-it",
        why="A client does not find what it has written on the same connection just before.",
        file=LISTENER,
        old="        return connection.kind in (NO_KIND, kind)\n",
        new="        return True\n",
        test=f"{LISTENER_TESTS}"
        "::test_a_read_sees_the_writes_before_it_in_its_pipeline_and_none_behind",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="uncertain-write-called-certain",
        why="The client sends it again elsewhere, and it is executed twice.",
        file="raftd/network/redis_cluster.py",
        old='return error(f"UNCERTAIN {message}")',
        new='return error(f"TRYAGAIN {message}")',
        test=f"{LISTENER_TESTS}"
        "::test_the_first_word_of_an_error_says_whether_to_ask_again_elsewhere",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="one-client-has-everything-under-way",
        why="What one connection may have under way is as much as it sends.",
        file=LISTENER,
        old="            len(slots) >= PIPELINE_MAX\n",
        new="            False\n",
        test=f"{LISTENER_TESTS}"
        "::test_no_more_commands_of_a_connection_are_under_way_than_the_limit",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="replies-kept-for-who-does-not-read",
        why="A client that asks and does not read fills the memory.",
        file=LISTENER,
        old="has_room = not connection.postponed and self._has_room_for_replies(connection)",
        new="has_room = not connection.postponed",
        test=f"{CONNECTION_TESTS}::test_who_does_not_read_holds_up_nobody_else_and_is_closed",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="half-closed-client-dropped",
        why="Who says that it asks nothing more does not hear what has become of what it asked.",
        file=LISTENER,
        old="            connection.ended = True\n            self._look_at(connection)\n"
        "            return\n        if connection.is_fresh",
        new='            self._close(connection, "")\n            self._look_at(connection)\n'
        "            return\n        if connection.is_fresh",
        test=f"{CONNECTION_TESTS}::test_what_is_under_way_when_nothing_more_comes_is_answered",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="gap-that-nobody-closes",
        why="A reply that all the others wait for never has room, since these take it up.",
        file=LISTENER,
        old="        return has_room or (connection.is_held_up and connection.slots[0] is slot)\n",
        new="        return has_room\n",
        test=f"{LISTENER_TESTS}"
        "::test_reads_whose_values_had_no_room_come_although_later_ones_were_answered_first",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="read-asked-again-overtakes-those-behind-it",
        why="A connection sees an older value after a newer one.",
        file=LISTENER,
        old="            if len(unanswered) > len(connection.postponed):\n",
        new="            if False:\n",
        test=f"{LISTENER_TESTS}::test_no_read_of_a_connection_sees_less_than_the_one_before",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="half-commands-without-bound",
        why="Thousands of clients that send half of a command take the memory.",
        file=LISTENER,
        old="        if self._buffered_bytes > BUFFERED_BYTES_END:\n",
        new="        if False:\n",
        test=f"{CONNECTION_TESTS}::test_many_half_commands_do_not_take_the_memory_together",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="who-waits-for-others-tries-all-the-time",
        why="A driver whose node is full takes one empty turn after the other.",
        file=LISTENER,
        old="            self._crowded[connection] = None\n            return False\n",
        new="            self._resumable[connection] = None\n            return False\n",
        test=f"{LISTENER_TESTS}::test_a_full_node_is_not_asked_more_and_nobody_is_forgotten",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="commands-of-who-has-gone-not-counted",
        why="Whoever connects again and again fills the node with commands.",
        file=LISTENER,
        old="self.under_way -= sum([slot.reply is not None for slot in connection.slots])",
        new="self.under_way -= len(connection.slots)",
        test=f"{LISTENER_TESTS}"
        "::test_commands_of_a_client_that_has_gone_count_until_they_are_answered",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="accepting-tried-without-a-pause",
        why="A server without descriptors does nothing but try.",
        file="raftd/network/accepting.py",
        old="        self._watch(0)\n",
        new="        pass\n",
        test=f"{CONNECTION_TESTS}::test_without_descriptors_those_who_wait_are_accepted_later",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="driver-not-woken-by-a-client",
        why="A command waits for the next tick.",
        file="raftd/network/inputs.py",
        old="        self._is_woken = True\n        self._wake_driver()\n",
        new="        self._is_woken = True\n",
        test="tests/network/test_inputs.py::test_a_driver_that_waits_is_woken_and_asks_the_sources",
        unreachable=NO_SOCKETS,
    ),
    # --- the Redis protocol ---
    Mutant(
        name="arguments-not-bounded",
        why="Memory is taken for whatever a stranger announces.",
        file=FRAMING,
        old="            if count > ARGUMENTS_MAX:\n",
        new="            if False:\n",
        test=f"{FRAMING_TESTS}::test_a_command_may_have_so_many_arguments_and_no_more",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="length-of-a-command-not-bounded",
        why="A command is gathered that no entry of the log can hold.",
        file=FRAMING,
        old="            if self._command_bytes + argument_bytes > COMMAND_BYTES_MAX:\n",
        new="            if argument_bytes > COMMAND_BYTES_MAX:\n",
        test=f"{FRAMING_TESTS}::test_a_command_may_have_so_many_bytes_and_no_more",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="garbage-behind-a-command-loses-it",
        why="Whether a command is carried out depends on how the stream is cut.",
        file=FRAMING,
        old="            if not commands:\n                raise\n",
        new="            if True:\n                raise\n",
        test=f"{FRAMING_TESTS}"
        "::test_what_is_no_array_of_bulk_strings_is_refused_after_the_commands_before_it",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="counters-appended-before-all-can-apply-them",
        why="A server of an older release stops at the entry.",
        file=COMMANDS,
        old="    if features < FEATURES_COUNTERS:\n",
        new="    if False:\n",
        test=f"{COMMAND_TESTS}::test_what_not_every_server_can_apply_is_refused",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="exec-does-not-wait-for-what-is-watched",
        why="A transaction goes by none of the keys that were watched in the same pipeline.",
        file="raftd/network/redis_transactions.py",
        old="    return Later(decide) if watching.pending else decide()\n",
        new="    return decide()\n",
        test="tests/network/test_redis_transactions.py"
        "::test_exec_waits_for_what_is_watched_and_does_nothing_if_that_failed",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="transaction-goes-by-half-of-what-is-watched",
        why="A key could not be watched, and whatever has become of it does not count.",
        file="raftd/network/redis_transactions.py",
        old="        watching.pending -= 1\n        watching.failed = True\n",
        new="        watching.pending -= 1\n",
        test="tests/network/test_redis_questions.py"
        "::test_exec_alone_says_what_became_of_a_transaction",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="watched-keys-read-from-an-old-state",
        why="A follower's old revision is taken for what the client has seen.",
        file="raftd/network/redis_transactions.py",
        old="    stale = session.stale_reads and not conditions\n",
        new="    stale = True\n",
        test="tests/network/test_redis_transactions.py"
        "::test_transactions_that_only_read_are_linearizable_unless_old_reads_were_asked_for",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="scan-goes-on-behind-its-position",
        why="A server that does not remember a cursor leaves out keys.",
        file="raftd/network/redis_cursors.py",
        old='        return prefix.to_bytes(8, "big")[-_PREFIX_BYTES:].rstrip(b"\\0")\n',
        new='        return prefix.to_bytes(8, "big")[-_PREFIX_BYTES:] + b"\\xff"\n',
        test="tests/network/test_redis_scan.py"
        "::test_a_position_that_nobody_remembers_is_found_by_its_first_bytes",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="serial-acknowledges-too-much",
        why="A client with several commands under way loses the answers of those before.",
        file="raftd/network/redis_sessions.py",
        old="    once = Once(name, serial, lowest)\n",
        new="    once = Once(name, serial, serial)\n",
        test="tests/network/test_redis_transactions.py"
        "::test_serials_say_which_answers_may_be_forgotten",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="what-connections-have-begun-is-never-given-back",
        why="Clients that come, begin a transaction and go leave no room for the others.",
        file=LISTENER,
        old="        forget(connection.session)\n",
        new="        pass\n",
        test="tests/network/test_redis_questions.py"
        "::test_what_a_client_has_begun_is_forgotten_with_it",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="refused-client-reset",
        why="Who sends what is no command is not told so, since the connection is reset.",
        file=LISTENER,
        old="                if connection.lingers and connection not in self._lingering:\n",
        new="                if False:\n",
        test="tests/network/test_redis_questions.py"
        "::test_who_goes_on_sending_for_too_long_or_too_much_is_closed",
        unreachable=NO_SOCKETS,
    ),
    # --- batches ---
    Mutant(
        name="rest-of-a-batch-not-answered",
        why="Those whose commands were not appended wait for ever.",
        file=WRITING,
        old="            self._fail(waiters[count:], unavailable(NOT_NOW, why))\n",
        new="            pass\n",
        test=f"{BATCH_TESTS}::test_what_no_longer_fits_is_refused_and_was_not_appended",
        unreachable="a client of the simulator that sends batches gives them up after a while",
    ),
    Mutant(
        name="reads-of-many-keys-not-confirmed",
        why="A leader that was deposed answers from a state that others have left behind.",
        file="raftd/reading.py",
        old="            if arrived.stale:\n",
        new="            if True:\n",
        test=f"{BATCH_TESTS}::test_reads_on_a_leader_of_the_past_are_refused",
    ),
    # --- counters and several keys ---
    Mutant(
        name="counter-leaves-its-64-bits",
        why="A number is stored that the next increment takes for none.",
        file=STATE,
        old="        if not INTEGER_MIN <= number <= INTEGER_MAX:\n",
        new="        if False:\n",
        test=f"{COUNTER_TESTS}::test_a_counter_never_leaves_its_64_bits",
        unreachable="counters of the simulator are small",
    ),
    Mutant(
        name="number-of-a-repeated-command-forgotten",
        why="A counter that is asked again says 0.",
        file="raftd/storage/results.py",
        old="    if result.number:\n",
        new="    if False:\n",
        test=f"{COUNTER_TESTS}::test_a_counter_that_is_asked_again_counts_once",
        unreachable="counters of the simulator have no sessions",
    ),
    Mutant(
        name="only-the-first-of-several-keys-set",
        why="Of keys that belong together only one has its new value.",
        file=STATE,
        old="        pairs = [(key.encode(), value) for key, value in body.pairs]\n",
        new="        pairs = [(key.encode(), value) for key, value in body.pairs][:1]\n",
        test=f"{COUNTER_TESTS}::test_several_keys_are_set_in_their_order_each_with_a_revision",
    ),
    Mutant(
        name="keys-counted-that-were-not-there",
        why="The count of deleted keys is that of the keys asked for.",
        file=STATE,
        old="            count += self._remove(key.encode(), DELETED)\n        return Result(count",
        new="            count += self._remove(key.encode(), DELETED) or 1\n"
        "        return Result(count",
        test=f"{COUNTER_TESTS}::test_keys_that_are_named_twice_are_deleted_and_counted_once",
        unreachable="no client of the simulator looks at the count",
    ),
    Mutant(
        name="number-of-an-answer-not-compared",
        why="Servers that count differently find nothing wrong with each other.",
        file=EFFECTS,
        old="        if result.number:\n            self.checksum",
        new="        if False:\n            self.checksum",
        test="tests/storage/test_agreement_hash.py"
        "::test_one_fault_shows_at_its_entry_and_at_every_later_one",
        unreachable="every simulated server counts alike",
    ),
)
