"""Mutants of terms, votes and elections."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

RAFT = "raftd/core/raft.py"
ELECTION = "raftd/core/election.py"
LOG = "raftd/core/log.py"
QUORUM = "raftd/core/quorum.py"
PAPER = "tests/core/test_raft_paper.py"
SAFETY = "tests/core/test_raft_paper_safety.py"
DISSERTATION = "tests/core/test_raft_dissertation.py"
ELECTIONS = "tests/core/test_elections.py"

MUTANTS = (
    # --- term and vote ---
    Mutant(
        name="vote-not-persisted",
        why="A server that restarts votes a second time in the same term, for somebody else.",
        file=RAFT,
        old="        return HardState(self.current_term, self.voted_for)\n\n    def _assert",
        new="        return HardState(self.current_term, None)\n\n    def _assert",
        test=f"{PAPER}::test_term_and_vote_are_durable_before_the_vote_leaves",
    ),
    Mutant(
        name="vote-in-a-known-term-not-persisted",
        why="A vote is stored only together with a new term, so one that comes later is forgotten.",
        file=RAFT,
        old="durable.current_term == self.current_term and durable.voted_for == self.voted_for:",
        new="durable.current_term == self.current_term:",
        test="tests/mutants/test_killers.py"
        "::test_a_vote_in_a_term_that_is_durable_already_is_made_durable_too",
    ),
    Mutant(
        name="vote-cleared-on-a-same-term-step-down",
        why="A candidate that follows the winner of its term could vote again in that term.",
        file=RAFT,
        old="            self.voted_for = None\n        if not isinstance(self.role, Follower):",
        new="        self.voted_for = None\n        if not isinstance(self.role, Follower):",
        test=f"{PAPER}::test_stepping_down_within_a_term_keeps_the_vote",
    ),
    Mutant(
        name="two-votes-in-one-term",
        why="Two candidates can both get a majority of one term.",
        file=RAFT,
        old="granted = self.voted_for in (None, source) and self.log.is_up_to_date(",
        new="granted = self.log.is_up_to_date(",
        test=f"{PAPER}::test_a_server_votes_first_come_first_served",
    ),
    Mutant(
        name="vote-leaves-before-the-sync",
        why="A crash takes back a vote that the candidate has counted.",
        file=RAFT,
        old="early = isinstance(message, PreVote) or (",
        new="early = isinstance(message, PreVote | RequestVoteResponse) or (",
        test=f"{PAPER}::test_term_and_vote_are_durable_before_the_vote_leaves",
    ),
    Mutant(
        name="vote-request-leaves-before-the-sync",
        why="Others vote in a term of which the candidate knows nothing after a crash.",
        file=RAFT,
        old="early = isinstance(message, PreVote) or (",
        new="early = isinstance(message, PreVote | RequestVote) or (",
        test=f"{PAPER}::test_vote_requests_wait_for_the_candidates_own_vote",
    ),
    Mutant(
        name="own-vote-counts-before-it-is-durable",
        why="A server leads by a vote of its own that a crash would take back.",
        file=RAFT,
        old="self.role = Candidate(self.server, request, votes={})",
        new="self.role = Candidate(self.server, request, votes={self.server: True})",
        test=f"{PAPER}::test_a_vote_that_comes_early_does_not_make_up_for_the_own_one",
    ),
    Mutant(
        name="entries-of-a-new-term-leave-before-the-term-is-durable",
        why="A message of a term leaves although a crash would take that term back.",
        file=RAFT,
        old="isinstance(message, AppendEntries) and message.term <= self.durable_term",
        new="isinstance(message, AppendEntries) and message.term <= self.current_term",
        test=f"{DISSERTATION}::test_messages_of_a_term_that_is_not_durable_are_not_early",
    ),
    Mutant(
        name="messages-of-the-term-before-are-taken",
        why="A term is compared wrongly, so entries and votes of the previous term count.",
        file=RAFT,
        old="if message.term < self.current_term:",
        new="if message.term < self.current_term - 1:",
        test=f"{PAPER}::test_replies_of_a_stale_term_are_ignored",
    ),
    Mutant(
        name="higher-term-of-a-response-not-adopted",
        why="A deposed leader that learns of it from an answer goes on as if it led.",
        file=RAFT,
        old="        if message.term > self.current_term:\n            self._become_follower(",
        new="        if message.term > self.current_term and self.leader_id != self.server:\n"
        "            self._become_follower(",
        test=f"{PAPER}::test_a_higher_term_makes_anybody_a_follower_of_that_term",
    ),
    # --- what a vote is given for ---
    Mutant(
        name="log-comparison-by-length-alone",
        why="A long log of an old term beats the one that has the committed entries.",
        file=LOG,
        old="(last_log_term, last_log_index) >= (self.last_term, self.last_index)",
        new="last_log_index >= self.last_index",
        test="tests/core/test_log.py::test_logs_are_compared_by_last_term_then_by_length",
    ),
    Mutant(
        name="log-comparison-by-term-alone",
        why="A shorter log of the same term is elected and overwrites committed entries.",
        file=LOG,
        old="(last_log_term, last_log_index) >= (self.last_term, self.last_index)",
        new="last_log_term >= self.last_term",
        test="tests/core/test_log.py::test_logs_are_compared_by_last_term_then_by_length",
    ),
    Mutant(
        name="log-comparison-not-lexicographic",
        why="A newer term with a shorter log is refused, and nobody may be left to win.",
        file=LOG,
        old="(last_log_term, last_log_index) >= (self.last_term, self.last_index)",
        new="last_log_term >= self.last_term and last_log_index >= self.last_index",
        test="tests/core/test_log.py::test_logs_are_compared_by_last_term_then_by_length",
    ),
    Mutant(
        name="term-of-the-candidate-taken-for-that-of-its-log",
        why="The new term is always the higher one, so that every log passes as complete.",
        file=RAFT,
        old="            message.last_log_term, message.last_log_index\n        )\n",
        new="            message.term, message.last_log_index\n        )\n",
        test=f"{SAFETY}::test_a_vote_goes_only_to_a_log_that_is_as_complete",
    ),
    Mutant(
        name="pre-vote-without-log-check",
        why="A server that cannot win gets pre-votes and disturbs the group with new terms.",
        file=RAFT,
        old="            and self.log.is_up_to_date(message.last_log_term, message.last_log_index)",
        new="            and True",
        test=f"{SAFETY}::test_a_vote_goes_only_to_a_log_that_is_as_complete",
    ),
    Mutant(
        name="pre-vote-refusal-teaches-no-term",
        why="The best log with an old term asks in vain for ever.",
        file=RAFT,
        old="if not message.vote_granted and message.term > self.current_term:",
        new="if message.term > self.current_term + 1_000_000:",
        test=f"{DISSERTATION}::test_a_refusal_teaches_a_pre_candidate_the_newer_term",
    ),
    Mutant(
        name="pre-votes-of-another-round-count",
        why="Answers to an earlier question start an election that nobody would vote for now.",
        file=RAFT,
        old="if message.request_term != self.current_term + 1:",
        new="if message.request_term > self.current_term + 1:",
        test=f"{DISSERTATION}::test_pre_votes_of_another_round_do_not_count",
    ),
    # --- when elections happen ---
    Mutant(
        name="stickiness-removed-from-votes",
        why="A server that was removed, or cut off, deposes a leader that works.",
        file=RAFT,
        old="            and self._is_in_contact_with_leader()\n        ):",
        new="            and False\n        ):",
        test=f"{DISSERTATION}"
        "::test_a_vote_request_within_an_election_timeout_of_a_leader_is_refused",
    ),
    Mutant(
        name="stickiness-removed-from-pre-votes",
        why="A server that was cut off starts an election although a leader works.",
        file=RAFT,
        old="self.current_term\n            and not self._is_in_contact_with_leader()\n",
        new="self.current_term\n",
        test=f"{DISSERTATION}::test_a_pre_vote_within_an_election_timeout_of_a_leader_is_refused",
    ),
    Mutant(
        name="stickiness-holds-up-transfers",
        why="The target of a transfer is refused by everybody who hears the old leader.",
        file=RAFT,
        old="            and not message.leadership_transfer\n",
        new="",
        test=f"{DISSERTATION}::test_a_vote_request_of_a_transfer_passes_stickiness",
    ),
    Mutant(
        name="anybody-can-make-a-server-campaign",
        why="A late TimeoutNow of a former leader starts an election without pre-vote.",
        file=RAFT,
        old="if source == self.leader_id and self.may_campaign():",
        new="if self.may_campaign():",
        test=f"{DISSERTATION}::test_only_the_own_leader_can_make_a_server_campaign",
    ),
    Mutant(
        name="transfer-target-told-before-its-log-is-complete",
        why="The target campaigns with a log that cannot win, and the group is without a leader.",
        file="raftd/core/leader.py",
        old="if self.progress[target].match_index == self._log.last_index:",
        new="if True:",
        test=f"{DISSERTATION}::test_the_target_is_told_once_its_log_is_complete",
    ),
    Mutant(
        name="election-timeout-not-random",
        why="Servers time out together and split the vote again and again.",
        file=RAFT,
        old="self._election_timeout_ticks = ticks + self._random.randrange(ticks)",
        new="self._election_timeout_ticks = ticks",
        test=f"{PAPER}::test_election_timeouts_are_random_in_a_fixed_interval",
    ),
    Mutant(
        name="granting-a-vote-does-not-reset-the-timer",
        why="Who has just voted campaigns against the server that it voted for.",
        file=RAFT,
        old="            self.voted_for = source\n            self._reset_election_timer()\n",
        new="            self.voted_for = source\n",
        test=f"{PAPER}::test_granting_a_vote_keeps_a_follower_from_campaigning",
    ),
    Mutant(
        name="leader-never-checks-its-quorum",
        why="A leader that is cut off keeps its followers' clients waiting for ever.",
        file="raftd/core/leader.py",
        old="return not self._is_lost(configuration.voters)",
        new="return True",
        test=f"{DISSERTATION}"
        "::test_a_leader_that_hears_no_majority_steps_down_after_an_election_timeout",
    ),
    # --- elections that lose no time ---
    Mutant(
        name="rivals-do-not-give-way",
        why="Servers that time out together campaign together, and split the vote.",
        file=ELECTION,
        old="if self.waits_until_tick is None and theirs > ours:",
        new="if False:",
        test=f"{ELECTIONS}"
        "::test_of_two_that_ask_at_once_the_one_with_the_lower_name_waits_two_heartbeats",
    ),
    Mutant(
        name="a-rival-holds-up-the-others-for-ever",
        why="A server that can send and not receive keeps everybody from campaigning.",
        file=ELECTION,
        old="if self.waits_until_tick is None and theirs > ours:",
        new="if theirs > ours:",
        test=f"{ELECTIONS}::test_a_rival_that_only_asks_and_asks_holds_up_a_round_once",
    ),
    Mutant(
        name="refused-pre-votes-stay-refused",
        why="Whose minimum time-out ends a moment later is not asked again before a time-out.",
        file=ELECTION,
        old="if not self.votes.get(server)",
        new="if server not in self.votes",
        test=f"{ELECTIONS}::test_a_pre_candidate_that_all_refuse_goes_on_asking",
    ),
    Mutant(
        name="a-better-log-does-not-go-ahead",
        why="A server that cannot win notices first, and the others sleep on.",
        file=RAFT,
        old="            self._campaign_early(Why.RIVAL, source)\n\n    def _campaign_early",
        new="            pass\n\n    def _campaign_early",
        test=f"{ELECTIONS}::test_the_complete_log_is_elected_although_the_others_time_out_first",
    ),
    Mutant(
        name="a-better-log-goes-ahead-at-once",
        why="A straggler that asks pushes out the leader that is just being elected.",
        file=RAFT,
        old="            and self._election_elapsed_ticks >= self.options.election_ticks\n",
        new="",
        test=f"{ELECTIONS}::test_who_has_just_voted_does_not_go_ahead",
    ),
    Mutant(
        name="both-of-a-split-begin-anew",
        why="Two candidates that split the vote try again together, and split the next one.",
        file=ELECTION,
        old="return self.rival is not None and self.rival < self.server",
        new="return self.rival is not None",
        test=f"{ELECTIONS}::test_the_lower_name_of_a_split_waits_for_its_time_out",
    ),
    Mutant(
        name="a-term-that-is-learnt-is-challenged-at-once",
        why="The leader that is just elected in it is pushed out before it is heard.",
        file=RAFT,
        old="            self._election_timeout_ticks = give_way_ticks(self.options)",
        new="            self._election_timeout_ticks = 1",
        test=f"{ELECTIONS}::test_who_learns_a_term_from_a_refusal_asks_anew_after_two_heartbeats",
    ),
    Mutant(
        name="a-leader-out-of-reach-is-given-up-at-once",
        why="Each broken connection makes a follower doubt a leader that lives.",
        file=RAFT,
        old="elif process_ended and server == self.leader_id:",
        new="elif server == self.leader_id:",
        test=f"{ELECTIONS}"
        "::test_that_another_server_has_ended_or_that_the_leader_is_out_of_reach_starts_nothing",
    ),
    Mutant(
        name="a-closed-port-is-the-end-of-a-process-that-is-heard",
        why="A leader behind a port that somebody has closed is taken for dead.",
        file="raftd/network/links.py",
        old=" and not self._is_heard(self.server)",
        new="",
        test="tests/network/test_links.py"
        "::test_a_process_that_keeps_its_own_connection_to_us_has_not_ended",
    ),
    Mutant(
        name="late-refusals-end-an-election",
        why="Answers to an older request make a candidate give up that is about to win.",
        file=RAFT,
        old="if message.request_term not in (0, self.current_term):",
        new="if False:",
        test=f"{ELECTIONS}::test_a_refusal_of_an_older_request_ends_no_election",
    ),
    # --- who counts ---
    Mutant(
        name="half-of-an-even-number-is-a-majority",
        why="Two halves of four servers elect a leader each.",
        file=QUORUM,
        old="return count // 2 + 1",
        new="return (count + 1) // 2",
        test="tests/core/test_quorum.py::test_a_majority_is_more_than_half",
    ),
    Mutant(
        name="votes-from-outside-count",
        why="Servers of neither half decide an election, and one half decides for both.",
        file=QUORUM,
        old="granted = sum(1 for server in half if votes.get(server) is True)",
        new="granted = sum(1 for vote in votes.values() if vote is True)",
        test="tests/core/test_quorum.py::test_servers_of_neither_half_count_nothing",
    ),
    Mutant(
        name="votes-counted-by-bare-name",
        why="While a server is replaced by its own name one vote counts in both halves.",
        file=RAFT,
        old="may not.\n            self.role.votes[source] = True\n",
        new="may not.\n            self.role.votes.update((voter, True) for voter in "
        'self.configuration.configuration.all_voters if voter.partition("/")[0] == '
        'source.partition("/")[0])\n',
        test="tests/museum/test_membership_servers.py"
        "::test_026_the_vote_of_another_incarnation_does_not_count",
    ),
    Mutant(
        name="acknowledgements-counted-by-bare-name",
        why="A new disk under an old name counts for what the old disk had.",
        file="raftd/core/leader.py",
        old='"""Take in an answer of this term (Figure 2, "Leaders")."""\n'
        "        progress = self.progress.get(source)\n",
        new='"""Take in an answer of this term (Figure 2, "Leaders")."""\n'
        "        progress = next((self.progress[server] for server in sorted(self.progress) "
        "if server_name(server) == server_name(source)), None)\n",
        test="tests/core/test_joint_changes.py::test_a_new_incarnation_is_another_server",
    ),
)
