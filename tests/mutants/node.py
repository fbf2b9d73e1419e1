"""Mutants of the driver and of the operations that it drives."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

NODE = "raftd/node.py"
WRITING = "raftd/writing.py"
READING = "raftd/reading.py"
ADMISSION = "raftd/admission.py"
FOUNDING = "raftd/founding.py"
OPERATIONS = "raftd/operations.py"
PLANNING = "raftd/planning.py"
PREFLIGHT = "raftd/preflight.py"
NETWORK = "raftd/network/network.py"
NODE_TESTS = "tests/node/test_node.py"
DURABILITY = "tests/node/test_durability.py"
OPERATION_TESTS = "tests/node/test_operations.py"
PLANNING_TESTS = "tests/node/test_planning.py"
APPLY_TESTS = "tests/node/test_apply.py"
READDRESS_TESTS = "tests/node/test_readdress.py"
ABORT_TESTS = "tests/node/test_aborts.py"
SESSION_TESTS = "tests/node/test_sessions.py"
INSTALLING = "tests/node/test_installing.py"

MUTANTS = (
    # --- the order of network, disk and state machine ---
    Mutant(
        name="votes-and-acknowledgements-sent-before-the-sync",
        why="A crash takes back what others have counted already.",
        file=NODE,
        old="self._network.send(ready.early_messages)",
        new="self._network.send(ready.early_messages + ready.messages)",
        test=f"{DURABILITY}::test_a_follower_acknowledges_after_its_sync",
    ),
    Mutant(
        name="term-and-vote-not-written",
        why="Only entries are; a vote in between is forgotten in a crash.",
        file=NODE,
        old="            self._log.append(ready.hard_state, ready.entries)\n",
        new="            ready.entries and self._log.append(ready.hard_state, ready.entries)\n",
        test=f"{DURABILITY}::test_a_vote_is_not_forgotten_in_a_crash",
    ),
    Mutant(
        name="term-written-without-its-entries",
        why="Entries are acknowledged and never on the disk.",
        file=NODE,
        old="            self._log.append(ready.hard_state, ready.entries)\n",
        new="            ready.hard_state and self._log.append(ready.hard_state, ())\n",
        test=f"{DURABILITY}::test_a_follower_acknowledges_after_its_sync",
    ),
    Mutant(
        name="write-answered-when-it-is-appended",
        why="The client is told of a write that the next leader overwrites.",
        file=WRITING,
        old="            waiting.append((index, term, waiter))\n",
        new="            waiting.append((index, term, waiter)) if type(waiter) is not _Replied "
        "else waiter.done(Result(True, 1))\n",
        test=f"{NODE_TESTS}::test_a_write_is_answered_only_after_it_is_committed_and_applied",
    ),
    Mutant(
        name="read-answered-from-unapplied-state",
        why="A read misses writes that were acknowledged before it began.",
        file=READING,
        old="        if index <= self._state.applied_index:\n",
        new="        if True:\n",
        test=f"{NODE_TESTS}"
        "::test_a_confirmed_read_waits_until_all_that_was_committed_before_it_is_applied",
    ),
    Mutant(
        name="read-answered-without-asking-a-quorum",
        why="A leader that was deposed answers from a state that others have left behind.",
        file=READING,
        old="        if request.stale:\n",
        new="        if True:\n",
        test=f"{NODE_TESTS}::test_a_read_on_a_deposed_leader_is_refused",
    ),
    # --- what becomes of requests ---
    Mutant(
        name="write-called-failed-on-lost-leadership",
        why="The client sends it again as a new one, and it may be executed twice.",
        file=NODE,
        old='            code="unknown-outcome",\n',
        new='            code="unavailable",\n',
        test=f"{NODE_TESTS}::test_writes_that_wait_get_unknown_outcome_when_leadership_is_lost",
    ),
    Mutant(
        name="writes-kept-waiting-on-lost-leadership",
        why="A write is answered with the result of another one at its index, or never.",
        file=NODE,
        old="        if ready.lost_leadership:\n",
        new="        if False:\n",
        test=f"{NODE_TESTS}::test_writes_that_wait_get_unknown_outcome_when_leadership_is_lost",
    ),
    Mutant(
        name="session-not-handed-on",
        why="Every write that is sent again is executed again.",
        file=WRITING,
        old="Command(body, request.session, request.serial, request.lowest_unacknowledged)",
        new="Command(body)",
        test=f"{SESSION_TESTS}::test_a_write_that_is_sent_again_answers_the_same_and_is_done_once",
    ),
    Mutant(
        name="acknowledged-serials-confused",
        why="A client's own serial is taken for the lowest one that it waits for.",
        file=WRITING,
        old="Command(body, request.session, request.serial, request.lowest_unacknowledged)",
        new="Command(body, request.session, request.serial, request.serial + 1)",
        test=f"{SESSION_TESTS}::test_a_write_that_is_sent_again_answers_the_same_and_is_done_once",
    ),
    Mutant(
        name="change-decided-by-a-leader-of-the-past",
        why="A refusal states what was true before somebody else led.",
        file=NODE,
        old="        self._reading.confirm(self.raft, run, respond)\n",
        new="        run()\n",
        test=f"{OPERATION_TESTS}::test_a_leader_of_the_past_states_nothing_about_the_membership",
    ),
    # --- who we are ---
    Mutant(
        name="begun-log-not-noted",
        why="A log that comes back empty is taken for that of a new server.",
        file=NODE,
        old="            self._identities.publish(attrs.evolve(self.identity, log_begun=True))\n",
        new="            pass\n",
        test=f"{DURABILITY}::test_that_the_log_has_begun_is_noted_before_anything_is_acknowledged",
    ),
    Mutant(
        name="empty-log-accepted",
        why="A server that has lost its log votes again in terms in which it has voted.",
        file="raftd/storage/identity.py",
        old="    if identity.log_begun and not last_index:\n",
        new="    if False:\n",
        test=f"{DURABILITY}::test_a_server_whose_log_comes_back_empty_does_not_start",
    ),
    Mutant(
        name="join-answered-before-it-is-durable",
        why="The leader goes on, and after a crash the server belongs to no cluster.",
        file=NODE,
        old="        self._identities.publish(member)\n",
        new="        member.bootstrap_address and self._identities.publish(member)\n",
        test=f"{NODE_TESTS}::test_a_join_is_durable_before_it_is_answered",
    ),
    Mutant(
        name="join-of-another-incarnation-accepted",
        why="An empty disk joins in the place of the one that was meant.",
        file=FOUNDING,
        old="(request.name, request.incarnation) == (identity.name, identity.incarnation)",
        new="request.name == identity.name",
        test=f"{NODE_TESTS}::test_a_join_that_means_another_server_is_refused",
    ),
    Mutant(
        name="message-for-another-incarnation-taken",
        why="An empty disk under an old name answers for the one that was lost.",
        file=ADMISSION,
        old="if hello.dest and hello.dest != identity.server:",
        new="if False:",
        test=f"{NODE_TESTS}::test_a_wrong_hello_is_refused_with_its_code",
    ),
    Mutant(
        name="server-of-another-cluster-let-in",
        why="Its entries and votes are taken for those of this cluster.",
        file=ADMISSION,
        old="if hello.cluster_id and not identity.is_blank and hello.cluster_id != "
        "identity.cluster_id:",
        new="if False:",
        test=f"{NODE_TESTS}::test_a_wrong_hello_is_refused_with_its_code",
    ),
    Mutant(
        name="blank-server-lets-peers-in",
        why="A server without a cluster votes and stores entries for whoever dials it.",
        file=ADMISSION,
        old='if hello.cluster_id and identity.is_blank and hello.role == "peer":',
        new="if False:",
        test=f"{NODE_TESTS}::test_a_blank_server_refuses_peers_and_welcomes_clients",
    ),
    Mutant(
        name="removed-server-let-in",
        why="It is not told that it was removed, and goes on campaigning.",
        file=ADMISSION,
        old="        if removed_index is not None:\n",
        new="        if False:\n",
        test=f"{NODE_TESTS}"
        "::test_a_server_that_was_removed_is_refused_with_the_index_of_its_removal",
    ),
    Mutant(
        name="removal-not-remembered",
        why="A server that was removed for good starts again as a member.",
        file=NODE,
        old="        self._identities.publish(attrs.evolve(self.identity, removed_index=index))\n",
        new="",
        test=f"{NODE_TESTS}::test_a_removed_server_remembers_it_for_good_before_it_ends_with_70",
    ),
    Mutant(
        name="removed-leader-ends-before-it-has-handed-over",
        why="Everybody waits for an election timeout, and messages of the change are lost.",
        file=NODE,
        old="        if self._stop is None or self.raft.now < self._stop_tick:\n",
        new="        if self._stop is None:\n",
        test=f"{NODE_TESTS}::test_a_removed_server_names_the_new_leader_to_clients_before_it_ends",
    ),
    # --- operations ---
    Mutant(
        name="late-abort-hits-another-change",
        why="A copy of an old abort undoes a change that nobody wanted undone.",
        file=OPERATIONS,
        old="            and self._would_execute(request)\n",
        new="",
        test=f"{ABORT_TESTS}::test_a_late_copy_of_an_abort_does_not_undo_the_next_joint_change",
    ),
    Mutant(
        name="abort-past-the-point-of-no-return-promised",
        why="The operator is told that the change is undone, and it goes on.",
        file=OPERATIONS,
        old="            and latest.entry.kind is ConfigurationKind.FINAL\n",
        new="            and latest.entry.kind is ConfigurationKind.BOOTSTRAP\n",
        test=f"{ABORT_TESTS}"
        "::test_an_abort_past_the_point_of_no_return_is_refused_and_the_change_is_done",
    ),
    Mutant(
        name="repeated-change-started-twice",
        why="A change that is asked for again is carried out again.",
        file=PREFLIGHT,
        old="        result = self._state.session_result(request.session, request.serial)\n"
        "        if result is not None:\n",
        new="        result = self._state.session_result(request.session, request.serial)\n"
        "        if False:\n",
        test=f"{OPERATION_TESTS}"
        "::test_a_change_that_is_asked_for_again_after_its_end_answers_with_its_operation",
    ),
    Mutant(
        name="failed-change-leaves-its-learners",
        why="Learners that the operation had added stay in the configuration.",
        file=OPERATIONS,
        old='("remove", server) for server in sorted(now - before)]',
        new='("learner", server) for server in sorted(now - before)]',
        test=f"{OPERATION_TESTS}"
        "::test_a_server_that_cannot_catch_up_leaves_no_trace_in_the_configuration",
    ),
    Mutant(
        name="failed-change-leaves-a-tombstone",
        why="A server that failed to catch up once can never come in again.",
        file=OPERATIONS,
        old="                tombstones=False,\n",
        new="                tombstones=True,\n",
        test=f"{OPERATION_TESTS}"
        "::test_a_server_that_failed_to_catch_up_can_be_added_again_with_its_data",
    ),
    Mutant(
        name="leader-drives-what-it-has-not-applied-yet",
        why="A new leader repeats a step of an operation that its predecessor has taken.",
        file=OPERATIONS,
        old="        if self._state.applied_index < leader.term_start:\n",
        new="        if False:\n",
        test="tests/mutants/test_killers.py"
        "::test_a_new_leader_does_not_go_on_with_an_operation_that_its_log_has_ended",
    ),
    Mutant(
        name="member-dialled-where-another-server-answers",
        why="The log sends everybody to a place where the member is not.",
        file=PLANNING,
        old="    if found == server.server and answer.cluster_id == cluster_id:\n",
        new="    if found:\n",
        test=f"{PLANNING_TESTS}::test_a_member_is_not_dialled_where_it_does_not_answer_itself",
    ),
    Mutant(
        name="lost-disk-taken-for-the-member-that-had-it",
        why="A file is called applied although one of its servers has lost all that it stored.",
        file=PREFLIGHT,
        old="            for server, address in preflight.silent.items():\n",
        new="            for server, address in ():\n",
        test=f"{APPLY_TESTS}::test_a_wiped_server_of_the_file_is_not_silently_taken_for_the_member",
    ),
    Mutant(
        name="addresses-changed-before-all-can-record-it",
        why="A server of an older release makes another record of the same entry.",
        file=PREFLIGHT,
        old="        if features < FEATURES_READDRESS:\n",
        new="        if False:\n",
        test=f"{READDRESS_TESTS}::test_addresses_are_not_changed_before_every_member_can_record_it",
    ),
    Mutant(
        name="address-of-the-file-not-tried",
        why="Servers that all moved while they were stopped never find each other again.",
        file=NETWORK,
        old="dict.fromkeys((address, self._file_addresses.get(server_name(server), address)))",
        new="dict.fromkeys((address, server_name(server) and address))",
        test="tests/network/test_addresses.py"
        "::test_a_member_that_has_moved_is_found_where_the_file_says",
    ),
    Mutant(
        name="address-of-the-file-outlives-news-of-the-log",
        why="A member that was readdressed is dialled at its old place whenever the new one fails.",
        file=NETWORK,
        old="        if address != self._first_addresses[server]:\n",
        new="        if False:\n",
        test="tests/network/test_addresses.py"
        "::test_a_member_that_the_log_has_readdressed_is_not_looked_for_where_the_file_says",
    ),
    Mutant(
        name="own-tombstone-not-seen-at-the-start",
        why="A server that was removed for good waits for somebody who tells it, for ever.",
        file=NODE,
        old="            if removed_index is not None:\n                # It ended",
        new="            if False:\n                # It ended",
        test=f"{INSTALLING}"
        "::test_a_server_whose_state_has_its_own_tombstone_ends_with_70_without_any_other",
    ),
    Mutant(
        name="who-waits-for-an-end-waits-for-ever",
        why="Whoever watches an operation that is stuck is shown nothing.",
        file=OPERATIONS,
        old="            raft.now < waiting.deadline_tick\n",
        new="            True\n",
        test=f"{OPERATION_TESTS}"
        "::test_who_waits_for_an_operation_hears_how_far_it_is_when_the_time_is_over",
        unreachable="Nobody watches in the simulator.",
    ),
    Mutant(
        name="who-waits-is-forgotten-by-a-leader-that-was",
        why="Whoever watches does not look for the next leader.",
        file=OPERATIONS,
        old="            and isinstance(raft.role, Leader)\n            and record",
        new="            and True\n            and record",
        test=f"{OPERATION_TESTS}::test_who_waits_is_answered_by_a_leader_that_steps_down",
        unreachable="Nobody watches in the simulator.",
    ),
)
