"""Mutants of configurations, joint consensus, abort, and the way in and out."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

RAFT = "raftd/core/raft.py"
LEADER = "raftd/core/leader.py"
LOG = "raftd/core/log.py"
MEMBERSHIP = "raftd/core/membership.py"
QUORUM = "raftd/core/quorum.py"
JOINT_TESTS = "tests/core/test_joint_changes.py"
ABORT_TESTS = "tests/core/test_joint_aborts.py"
READS = "raftd/core/reads.py"
READ_TESTS = "tests/core/test_reads.py"
DISSERTATION = "tests/core/test_raft_dissertation.py"

MUTANTS = (
    # --- both halves ---
    Mutant(
        name="votes-of-the-new-half-alone",
        why="C_new elects a leader while C_old has one.",
        file=RAFT,
        old="result = vote_result(configuration.voters, configuration.outgoing, role.votes)",
        new="result = vote_result(configuration.voters, (), role.votes)",
        test=f"{JOINT_TESTS}::test_one_half_alone_elects_nobody",
    ),
    Mutant(
        name="votes-of-the-old-half-alone",
        why="C_old elects a leader while C_new has one.",
        file=RAFT,
        old="result = vote_result(configuration.voters, configuration.outgoing, role.votes)",
        new="result = vote_result(configuration.outgoing or configuration.voters, (), role.votes)",
        test=f"{JOINT_TESTS}::test_one_half_alone_elects_nobody",
    ),
    Mutant(
        name="pre-votes-of-the-new-half-alone",
        why="A server that C_old would not elect disturbs it with new terms.",
        file=RAFT,
        old="result = vote_result(configuration.voters, configuration.outgoing, role.votes)",
        new="result = vote_result(configuration.voters, configuration.outgoing "
        "if isinstance(role, Candidate) else (), role.votes)",
        test="tests/mutants/test_killers.py::test_pre_votes_of_the_new_half_alone_are_not_enough",
    ),
    Mutant(
        name="pre-votes-of-the-old-half-alone",
        why="A server that C_new would not elect disturbs it with new terms.",
        file=RAFT,
        old="result = vote_result(configuration.voters, configuration.outgoing, role.votes)",
        new="result = vote_result(configuration.voters, configuration.outgoing, role.votes) "
        "if isinstance(role, Candidate) else vote_result("
        "configuration.outgoing or configuration.voters, (), role.votes)",
        test=f"{DISSERTATION}::test_while_joint_pre_votes_need_both_halves",
    ),
    Mutant(
        name="one-half-that-refuses-does-not-lose-the-election",
        why="A won half hides a lost one, and a minority leads.",
        file=QUORUM,
        old="    if VoteResult.PENDING in results:\n        return VoteResult.PENDING\n",
        new="    if VoteResult.WON not in results:\n        return VoteResult.PENDING\n",
        test="tests/core/test_quorum.py"
        "::test_one_lost_half_loses_the_election_and_one_won_half_does_not_win_it",
    ),
    Mutant(
        name="commit-by-the-new-half-alone",
        why="C_old does not have what is committed, and elects a leader without it.",
        file=LEADER,
        old="index = committed_index(configuration.voters, configuration.outgoing, "
        "self._match_indexes())",
        new="index = committed_index(configuration.voters, (), self._match_indexes())",
        test=f"{JOINT_TESTS}::test_one_half_alone_commits_nothing",
    ),
    Mutant(
        name="commit-by-the-old-half-alone",
        why="C_new does not have what is committed, and elects a leader without it.",
        file=LEADER,
        old="index = committed_index(configuration.voters, configuration.outgoing, "
        "self._match_indexes())",
        new="index = committed_index("
        "configuration.outgoing or configuration.voters, (), self._match_indexes())",
        test=f"{JOINT_TESTS}::test_one_half_alone_commits_nothing",
    ),
    Mutant(
        name="better-half-commits",
        why="Either half commits for both.",
        file=QUORUM,
        old="return min(indexes) if indexes else None",
        new="return max(indexes) if indexes else None",
        test="tests/core/test_quorum.py::test_both_halves_are_needed_also_when_one_server_differs",
    ),
    Mutant(
        name="reads-confirmed-by-the-new-half-alone",
        why="C_old may have elected somebody else, whose writes the read misses.",
        file=READS,
        old="confirmed = committed_index(configuration.voters, configuration.outgoing, rounds)",
        new="confirmed = committed_index(configuration.voters, (), rounds)",
        test=f"{READ_TESTS}::test_while_joint_one_half_does_not_confirm_a_read",
    ),
    Mutant(
        name="reads-confirmed-by-the-old-half-alone",
        why="C_new may have elected somebody else, whose writes the read misses.",
        file=READS,
        old="confirmed = committed_index(configuration.voters, configuration.outgoing, rounds)",
        new="confirmed = committed_index("
        "configuration.outgoing or configuration.voters, (), rounds)",
        test=f"{READ_TESTS}::test_while_joint_one_half_does_not_confirm_a_read",
    ),
    Mutant(
        name="check-quorum-by-the-new-half-alone",
        why="A leader that C_old does not hear stays in office.",
        file=LEADER,
        old="if self._is_lost(configuration.outgoing):",
        new="if False:",
        test=f"{DISSERTATION}::test_while_joint_the_old_half_has_to_be_in_contact",
    ),
    Mutant(
        name="check-quorum-by-the-old-half-alone",
        why="A change whose new half is dead is never rolled back by its loss.",
        file=LEADER,
        old="lost = self._is_lost(configuration.voters)",
        new="lost = False",
        test=f"{ABORT_TESTS}::test_an_heir_that_must_not_abort_steps_down",
    ),
    Mutant(
        name="leadership-confirmed-by-the-new-half-alone",
        why="A leader refuses candidates of C_old, although that half has lost it.",
        file=LEADER,
        old="return not (self._is_lost(configuration.voters) "
        "or self._is_lost(configuration.outgoing))",
        new="return not self._is_lost(configuration.voters)",
        test=f"{DISSERTATION}::test_a_leader_out_of_touch_with_one_half_is_not_confirmed",
    ),
    # --- which configuration is in force ---
    Mutant(
        name="configuration-used-at-commit",
        why="Two majorities that do not meet decide, each by the configuration that it knows.",
        file=RAFT,
        old="        return self.log.configurations.latest\n",
        new="        return self.log.configurations.at(max(self.log.commit_index, 1))\n",
        test=f"{JOINT_TESTS}::test_a_leader_uses_a_configuration_from_the_moment_it_appends_it",
    ),
    Mutant(
        name="configuration-not-rolled-back-at-truncation",
        why="A configuration stays in force that no log has any more.",
        file=LOG,
        old="        self.configurations.truncate_from(index)\n",
        new="",
        test=f"{JOINT_TESTS}::test_truncation_puts_the_configuration_before_back_in_force",
    ),
    Mutant(
        name="one-configuration-alone-rolled-back",
        why="Truncation may take several configurations along; one of them stays in force.",
        file=MEMBERSHIP,
        old="while self._stack and self._stack[-1].index >= index:",
        new="if self._stack and self._stack[-1].index >= index:",
        test=f"{JOINT_TESTS}::test_two_configurations_are_rolled_back_at_once",
    ),
    Mutant(
        name="configuration-not-found-after-restart",
        why="A server that restarts counts majorities of a configuration that is long gone.",
        file=LOG,
        old="        self.append(entries)\n        self.durable_index = self.last_index\n",
        new="        self.append(entries); del self.configurations._stack[1:]\n"
        "        self.durable_index = self.last_index\n",
        test=f"{JOINT_TESTS}::test_restart_finds_an_uncommitted_configuration",
    ),
    # --- the steps of a change ---
    Mutant(
        name="change-before-an-entry-of-the-term-is-committed",
        why="The 2015 erratum: two changes of two leaders can have disjoint majorities.",
        file=LEADER,
        old="        if not self.has_committed_in_term:\n            # The 2015 erratum",
        new="        if False:\n            # The 2015 erratum",
        test="tests/mutants/test_killers.py"
        "::test_an_heir_that_knows_every_commit_changes_nothing_before_its_own_no_op",
    ),
    Mutant(
        name="second-change-while-one-is-uncommitted",
        why="A change starts from a configuration that may still be rolled back.",
        file=LEADER,
        old="if latest.configuration.is_joint or latest.index > self._log.commit_index:",
        new="if latest.configuration.is_joint:",
        test=f"{JOINT_TESTS}::test_no_second_change_while_one_is_uncommitted",
    ),
    Mutant(
        name="voter-that-has-not-caught-up",
        why="An empty server gets a vote, and the group waits for it before it commits again.",
        file=LEADER,
        old="        if lagging:\n",
        new="        if False:\n",
        test=f"{JOINT_TESTS}::test_a_new_voter_has_to_have_caught_up",
    ),
    Mutant(
        name="new-half-that-is-silent-accepted",
        why="C_old,new is appended although its new half cannot commit it.",
        file=LEADER,
        old="if len(configuration.voters) - len(silent) < needed:",
        new="if False:",
        test=f"{DISSERTATION}::test_the_new_voters_need_a_majority_in_contact_just_now",
    ),
    Mutant(
        name="final-before-the-joint-entry-is-committed",
        why="C_new decides alone while C_old still decides alone elsewhere.",
        file=LEADER,
        old="            if self._joint_is_committed(latest):\n",
        new="            if True:\n",
        test="tests/mutants/test_killers.py"
        "::test_an_entry_before_the_joint_one_does_not_finish_the_change",
    ),
    Mutant(
        name="final-because-the-joint-entry-is-known-to-be-committed",
        why="An heir goes forward before its own no-op is committed, while another one aborts.",
        file=LEADER,
        old="        self._follow_configuration()\n\n    def end(",
        new="        self._follow_configuration() if not latest.configuration.is_joint or "
        "latest.index > self._log.commit_index else self._append_configuration("
        "self._successor_entry(latest, ConfigurationKind.FINAL, "
        'leave_joint(latest.configuration), outcome="done", '
        "learners_before=latest.entry.learners_before, tombstones=True))\n\n    def end(",
        test=f"{JOINT_TESTS}::test_an_heir_waits_for_its_own_no_op_before_it_finishes",
    ),
    Mutant(
        name="demoted-voter-forgotten",
        why="A voter that is to become a learner is not a member any more.",
        file=MEMBERSHIP,
        old="learners=configuration.learners | configuration.learners_next,",
        new="learners=configuration.learners,",
        test=f"{JOINT_TESTS}::test_a_demoted_voter_votes_until_the_new_configuration",
    ),
    # --- abort ---
    Mutant(
        name="abort-of-any-joint-entry",
        why="An heir restores C_old while the C_new of its predecessor decides alone.",
        file=LEADER,
        old="if self._log.term_at(latest.index) == self._term or self._joint_is_committed(latest):",
        new="if latest.configuration.is_joint:",
        found_by_search=True,
        test=f"{ABORT_TESTS}::test_no_abort_of_an_inherited_joint_entry",
    ),
    Mutant(
        name="abort-because-the-joint-entry-is-known-to-be-committed",
        why="The predecessor may have appended C_new, and somebody may win with it alone.",
        file=LEADER,
        old="if self._log.term_at(latest.index) == self._term or self._joint_is_committed(latest):",
        new="if self._log.term_at(latest.index) == self._term "
        "or latest.index <= self._log.commit_index:",
        test=f"{ABORT_TESTS}::test_no_abort_of_an_inherited_joint_entry",
    ),
    Mutant(
        name="abort-of-an-own-joint-entry-of-an-older-term",
        why="Between its two terms another leader may have appended C_new.",
        file=LEADER,
        old="if self._log.term_at(latest.index) == self._term or self._joint_is_committed(latest):",
        new="if latest.entry.leader == self._raft.server or self._joint_is_committed(latest):",
        test="tests/mutants/test_killers.py"
        "::test_a_leader_that_comes_back_may_not_abort_its_joint_entry_of_an_older_term",
    ),
    Mutant(
        name="abort-as-soon-as-the-old-half-has-it",
        why="An entry of the term on a majority of C_old alone cuts no other leader off.",
        file=LEADER,
        old="if self._log.term_at(latest.index) == self._term or self._joint_is_committed(latest):",
        new="if self._log.term_at(latest.index) == self._term or self.term_start <= ("
        "committed_index(latest.configuration.outgoing, (), self._match_indexes()) or 0):",
        found_by_search=True,
        test="tests/mutants/test_killers.py"
        "::test_an_heir_may_not_abort_when_the_old_half_alone_has_its_no_op",
    ),
    Mutant(
        name="heir-without-the-new-half-stays-in-office",
        why="A leader that can neither commit nor abort holds up the group for ever.",
        file=LEADER,
        old="            return not lost\n",
        new="            return True\n",
        test=f"{ABORT_TESTS}::test_an_heir_that_must_not_abort_steps_down",
    ),
    Mutant(
        name="stuck-joint-change-never-given-up",
        why="A new half that answers and stores nothing holds up every write for ever.",
        file=LEADER,
        old="if not lost and not self._joint_is_stuck(latest):",
        new="if not lost:",
        test=f"{ABORT_TESTS}::test_a_new_half_that_answers_and_stores_nothing_is_given_up",
    ),
    Mutant(
        name="abort-keeps-the-learners-of-the-operation",
        why="What an abort restores is not what was there before.",
        file=LEADER,
        old="abort_joint(latest.configuration), learners=latest.entry.learners_before",
        new="abort_joint(latest.configuration)",
        test=f"{ABORT_TESTS}"
        "::test_abort_restores_the_old_configuration_with_the_learners_from_before",
    ),
    # --- who has no vote ---
    Mutant(
        name="leader-counts-itself-in-c-new",
        why="A leader that leaves commits C_new with less than a majority of it.",
        file=LEADER,
        old="index = committed_index(configuration.voters, configuration.outgoing, "
        "self._match_indexes())",
        new="index = committed_index(configuration.voters | {self._raft.server}, "
        "configuration.outgoing, self._match_indexes())",
        test=f"{JOINT_TESTS}"
        "::test_a_leader_outside_the_new_configuration_leads_until_it_is_committed",
    ),
    Mutant(
        name="learners-commit",
        why="Entries are committed that no majority of the voters has.",
        file=LEADER,
        old="index = committed_index(configuration.voters, configuration.outgoing, "
        "self._match_indexes())",
        new="index = committed_index(configuration.voters | configuration.learners, "
        "configuration.outgoing, self._match_indexes())",
        test="tests/museum/test_membership_servers.py"
        "::test_025_acknowledgements_from_outside_the_configuration_commit_nothing",
    ),
    Mutant(
        name="learners-confirm-reads",
        why="Voters may have elected somebody else meanwhile.",
        file=READS,
        old="confirmed = committed_index(configuration.voters, configuration.outgoing, rounds)",
        new="confirmed = committed_index(configuration.voters | configuration.learners, "
        "configuration.outgoing, rounds)",
        test=f"{READ_TESTS}::test_the_answers_of_learners_confirm_no_read",
    ),
    Mutant(
        name="learners-keep-a-leader-in-office",
        why="A leader that no majority of the voters hears does not step down.",
        file=LEADER,
        old="return not self._is_lost(configuration.voters)",
        new="return not self._is_lost(configuration.voters | configuration.learners)",
        test=f"{DISSERTATION}::test_learners_do_not_keep_a_leader_in_office",
    ),
    Mutant(
        name="learners-campaign",
        why="A server without a vote starts elections.",
        file=MEMBERSHIP,
        old="if server in latest.configuration.all_voters:",
        new="if server in latest.configuration.members:",
        test=f"{DISSERTATION}::test_who_has_no_vote_starts_no_election",
    ),
    # --- leaving ---
    Mutant(
        name="removed-leader-retires-too-early",
        why="It hands over before C_new is committed, so that the change is left to nobody.",
        file=LEADER,
        old="        self._joint_progress_tick = self._raft.now\n"
        "        self._follow_configuration()\n",
        new="        self._joint_progress_tick = self._raft.now\n"
        "        self._follow_configuration(); self._raft.server in "
        "entry.configuration.all_voters or self._retire(entry.configuration.voters)\n",
        test="tests/mutants/test_killers.py"
        "::test_a_leader_that_has_appended_its_own_removal_stays_in_office_till_it_is_committed",
    ),
    Mutant(
        name="removed-leader-leads-for-ever",
        why="A server outside of the configuration goes on leading it.",
        file=LEADER,
        old="        elif self._raft.server not in latest.configuration.voters:\n",
        new="        elif False:\n",
        test=f"{JOINT_TESTS}::test_then_it_hands_over_to_the_best_voter",
    ),
    Mutant(
        name="removed-server-campaigns-for-ever",
        why="A server that knows that it was removed asks for votes again and again.",
        file=MEMBERSHIP,
        old="        if latest.index <= commit_index:\n            return False\n",
        new="        if False:\n            return False\n",
        test=f"{DISSERTATION}::test_a_removed_server_that_knows_it_starts_no_election",
    ),
    Mutant(
        name="voter-of-the-configuration-before-never-campaigns",
        why="Of two servers the one that is leaving may be the only one that can win.",
        file=MEMBERSHIP,
        old="return previous is not None and server in previous.configuration.all_voters",
        new="return False",
        test=f"{JOINT_TESTS}"
        "::test_two_servers_one_of_which_goes_and_alone_has_the_new_configuration",
    ),
    Mutant(
        name="removed-servers-not-fed",
        why="They never learn that they were removed.",
        file=LEADER,
        old="                self._departing[server] = "
        "Departing(address, latest.index, deadline_tick)\n",
        new="                pass\n",
        test=f"{JOINT_TESTS}::test_removed_servers_are_fed_until_they_know",
    ),
    Mutant(
        name="successor-does-not-feed-removed-servers",
        why="They never learn that they were removed, if the leader changes just then.",
        file=LEADER,
        old="        self._note_departing(latest)\n",
        new="",
        test=f"{JOINT_TESTS}::test_the_successor_feeds_removed_servers_too",
    ),
    Mutant(
        name="departing-server-forgotten-before-it-knows",
        why="It has the entry and never learns that it is committed.",
        file=LEADER,
        old="if departing and min(progress.match_index, progress.commit_index) >= departing.index:",
        new="if departing and progress.match_index >= departing.index:",
        test=f"{JOINT_TESTS}::test_a_departing_server_is_fed_until_it_knows_the_commit",
    ),
    Mutant(
        name="tombstones-forgotten",
        why="A server that was removed for good can come back with its old votes.",
        file=LEADER,
        old="                        tombstones=True,\n",
        new="                        tombstones=False,\n",
        test=f"{JOINT_TESTS}::test_removed_servers_leave_a_tombstone_with_the_new_configuration",
    ),
)
