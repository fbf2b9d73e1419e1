"""Mutants of what operators ask beside single changes: upgrades, history, rolling operations."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

FEATURES = "raftd/features.py"
ADMISSION = "raftd/admission.py"
PLANNING = "raftd/planning.py"
TARGET = "raftd/target.py"
STATE = "raftd/storage/state.py"
LEDGER = "raftd/storage/ledger.py"
RECORDS = "raftd/storage/rolling_records.py"
FEATURES_TESTS = "tests/node/test_features.py"
APPLY_TESTS = "tests/node/test_apply.py"
READDRESS_TESTS = "tests/node/test_readdress.py"
TARGET_TESTS = "tests/node/test_target.py"
HISTORY_TESTS = "tests/storage/test_history.py"
ROLLING_TESTS = "tests/storage/test_ledger_rolling.py"

MUTANTS = (
    # --- upgrades ---
    Mutant(
        name="features-switched-on-although-a-member-is-older",
        why="The older member meets an entry that it cannot apply, and stops.",
        file=FEATURES,
        old="if link is None or not link.connected or link.version < self._features_max:",
        new="if link is None or not link.connected:",
        test=f"{FEATURES_TESTS}::test_features_are_off_until_the_last_server_is_of_this_release",
        found_by_search=True,
    ),
    Mutant(
        name="features-switched-on-although-a-member-is-away",
        why="Nobody knows of which release it is when it comes back.",
        file=FEATURES,
        old="if link is None or not link.connected or link.version < self._features_max:",
        new="if link and link.connected and link.version < self._features_max:",
        test=f"{FEATURES_TESTS}::test_a_member_that_is_away_may_be_of_the_release_before",
        found_by_search=True,
    ),
    Mutant(
        name="features-switched-on-over-a-server-that-leaves",
        why="A server that was left out stops at the entry, and never learns that it was removed.",
        file=FEATURES,
        old="for server in raft.addresses():",
        new="for server in raft.configuration.configuration.members - {raft.server}:",
        test=f"{FEATURES_TESTS}"
        "::test_a_server_that_was_removed_hears_of_it_before_the_features_that_it_cannot_apply",
        found_by_search=True,
    ),
    Mutant(
        name="features-switched-on-while-servers-come-in",
        why="A server that was examined before is let in and cannot follow.",
        file=FEATURES,
        old="if running is not None and running.plan.addresses:",
        new="if False:",
        test=f"{FEATURES_TESTS}::test_features_wait_for_an_operation_that_brings_in_servers",
        unreachable="The server is kept away by its version, so that the change is only undone.",
    ),
    Mutant(
        name="features-switched-on-behind-a-change-that-begins",
        why="The change brings in a server that was examined before, and cannot follow.",
        file=FEATURES,
        old="        if state.applied_index < leader.term_start or change_begins:\n",
        new="        if state.applied_index < leader.term_start:\n",
        test=f"{FEATURES_TESTS}"
        "::test_features_are_not_switched_on_behind_a_change_that_brings_in_an_older_server",
        unreachable="The server is kept away by its version, so that the change is only undone.",
    ),
    Mutant(
        name="older-server-brought-in-behind-the-upgrade",
        why="A change begins behind an entry that its new server cannot apply.",
        file="raftd/preflight.py",
        old="            features=max(self._state.features, self._proposed_features(raft)),\n",
        new="            features=self._state.features,\n",
        test=f"{FEATURES_TESTS}"
        "::test_an_older_server_is_not_let_in_behind_features_that_are_about_to_be_switched_on",
        unreachable="The server is kept away by its version, so that the change is only undone.",
    ),
    Mutant(
        name="older-server-admitted-after-the-upgrade",
        why="A server that went back to the older release is fed what it cannot apply.",
        file=ADMISSION,
        old="        if version < features:\n",
        new="        if False:\n",
        test=f"{FEATURES_TESTS}"
        "::test_an_older_server_is_refused_with_both_versions_and_an_older_raftctl_is_not",
        unreachable="No simulated machine goes back to an older release.",
    ),
    Mutant(
        name="older-server-brought-in-after-the-upgrade",
        why="A change begins that can only fail, since its new server cannot follow.",
        file=PLANNING,
        old="    if answer.protocol_version_max < features:\n",
        new="    if False:\n",
        test=f"{APPLY_TESTS}"
        "::test_a_new_server_of_an_older_release_is_not_let_in_once_it_could_not_follow",
        unreachable="The server is kept away by its version, so that the change is only undone.",
    ),
    # --- history ---
    Mutant(
        name="joint-configuration-left-out-of-the-history",
        why="Nobody can tell afterwards which majorities decided.",
        file=STATE,
        old="        if self.features >= FEATURES_HISTORY:\n            self._record(",
        new="        if self.features and not entry.configuration.is_joint:\n"
        "            self._record(",
        test=f"{HISTORY_TESTS}"
        "::test_each_configuration_of_an_operation_says_who_why_and_how_far[memory]",
        found_by_search=True,
    ),
    Mutant(
        name="history-written-before-it-is-switched-on",
        why="Servers of the older release, which write none, have another state.",
        file=STATE,
        old="        if self.features >= FEATURES_HISTORY:\n            self._record(",
        new="        if True:\n            self._record(",
        test=f"{HISTORY_TESTS}"
        "::test_before_features_are_on_the_state_is_that_of_the_release_before[memory]",
        found_by_search=True,
    ),
    Mutant(
        name="history-begins-without-what-is-in-force",
        why="The first change that it tells of starts from an unknown configuration.",
        file=STATE,
        old="            history_begins = self.features < FEATURES_HISTORY\n",
        new="            history_begins = False\n",
        test=f"{HISTORY_TESTS}::test_the_history_begins_with_the_configuration_in_force[memory]",
    ),
    # --- rolling operations ---
    Mutant(
        name="rolling-version-not-compared",
        why="Two drivers take one step each at the same time.",
        file=RECORDS,
        old="    if body.version != rolling.version:\n",
        new="    if body.version > rolling.version:\n",
        test=f"{ROLLING_TESTS}"
        "::test_each_change_makes_a_new_version_and_refuses_whoever_has_not_seen_it",
        found_by_search=True,
    ),
    Mutant(
        name="step-taken-while-paused",
        why="A pause is the word of a person that nothing else is taken down.",
        file=RECORDS,
        old='    if rolling.paused_by:\n        return Refusal("rolling-moved", ',
        new='    if False:\n        return Refusal("rolling-moved", ',
        test=f"{ROLLING_TESTS}::test_no_step_is_noted_while_it_is_paused",
    ),
    Mutant(
        name="two-steps-under-way-at-once",
        why="Two servers are down at the same time.",
        file=RECORDS,
        old="    if running is not None:\n",
        new="    if False:\n",
        test=f"{ROLLING_TESTS}::test_at_most_one_step_runs",
    ),
    Mutant(
        name="rolling-operation-done-with-steps-left",
        why="Servers that were never touched are called done.",
        file=RECORDS,
        old="    if body.outcome == DONE and unfinished:\n",
        new="    if False:\n",
        test=f"{ROLLING_TESTS}::test_it_ends_done_when_every_step_is_done_or_skipped",
    ),
    Mutant(
        name="other-change-beside-a-rolling-operation",
        why="Somebody removes a server while another one is restarted.",
        file=LEDGER,
        old="        if rolling is not None and not is_step and not _is_paused(rolling):\n",
        new="        if False:\n",
        test=f"{ROLLING_TESTS}::test_nothing_else_begins_while_a_rolling_operation_runs",
    ),
    Mutant(
        name="step-of-any-parent-begins",
        why="A driver whose operation was paused or has ended goes on replacing servers.",
        file=LEDGER,
        old="        if parent and (rolling is None or not is_step or _is_paused(rolling)):\n",
        new="        if False:\n",
        test=f"{ROLLING_TESTS}::test_a_step_of_an_operation_that_does_not_run_is_refused[op-2]",
    ),
    Mutant(
        name="aborted-rolling-operation-keeps-its-step",
        why="Nobody drives any more, and the change that was its step goes on.",
        file=LEDGER,
        old="            if step is not None and step.parent == operation.id:\n",
        new="            if False:\n",
        test=f"{ROLLING_TESTS}::test_aborting_it_ends_it_and_asks_that_its_step_be_undone",
    ),
    Mutant(
        name="aborted-rolling-operation-takes-others-along",
        why="A change that was begun while it was paused is undone for no reason.",
        file=LEDGER,
        old="            if step is not None and step.parent == operation.id:\n",
        new="            if step is not None:\n",
        test=f"{ROLLING_TESTS}::test_aborting_it_leaves_a_change_alone_that_is_no_step_of_it",
    ),
    Mutant(
        name="running-rolling-operation-not-counted",
        why="After a restart or an install the record is there and nothing obeys it.",
        file=LEDGER,
        old="            counters.append(_number(self._rolling.id))\n",
        new="            pass\n",
        test=f"{ROLLING_TESTS}"
        "::test_a_rolling_operation_takes_a_number_and_has_all_its_steps_before_it",
    ),
    # --- whole clusters ---
    Mutant(
        name="server-that-is-not-in-the-file-stays",
        why="A file is called applied, and the cluster has a member that it does not list.",
        file=TARGET,
        old='    changes += [MemberChange(role="remove", name=name) for name in sorted(members)]\n',
        new="    changes += []\n",
        test=f"{TARGET_TESTS}::test_the_difference_names_every_change_and_no_other[one less]",
    ),
    Mutant(
        name="another-disk-readdressed-as-the-member",
        why="A server that has lost what it acknowledged is dialled as the one that had it.",
        file=PLANNING,
        old="    if found == server.server and answer.cluster_id == cluster_id:\n",
        new="    if server_name(found) == server.name:\n",
        test=f"{READDRESS_TESTS}::test_a_wiped_server_is_not_readdressed",
    ),
    # --- starting ---
    Mutant(
        name="one-voter-of-several-campaigns-when-it-starts",
        why="Each restart calls an election, for nothing while there is a leader.",
        file="raftd/founding.py",
        old="if latest is not None and latest.configuration.all_voters == {raft.server}:",
        new="if latest is not None and raft.server in latest.configuration.all_voters:",
        test="tests/node/test_founding.py::test_one_voter_of_two_waits_for_a_leader",
    ),
    Mutant(
        name="values-of-different-classes-are-equal",
        why="A request is taken for another one that has the same fields.",
        file="raftd/values.py",
        old="if not isinstance(other, Value) or other.__class__ is not self.__class__:",
        new="if not isinstance(other, Value):",
        test="tests/test_values.py::test_values_of_different_classes_are_never_equal",
    ),
)
