"""Exhibits 40 to 53: elections."""

from __future__ import annotations

from tests.museum.catalogue import Exhibit

SCRIPTS = "museum/test_elections.py::"
SNAPSHOTS = "museum/test_snapshot_protocol.py::"
PAPER = "core/test_raft_paper.py::"
SAFETY = "core/test_raft_paper_safety.py::"
DISSERTATION = "core/test_raft_dissertation.py::"
DURABILITY = "node/test_durability.py::"

ELECTIONS: tuple[Exhibit, ...] = (
    Exhibit(
        number=40,
        title="A step-down within the term freed the vote",
        seen_in=("CCF #5891", "CCF #8094", "akka-raft #56", "xraft #29", "camunda #5356"),
        story=(
            "Server 1 is a candidate in term 3 and has voted for itself; a leader of term 3 sends "
            "what does not fit its log, and server 1 becomes a follower. With its vote cleared it "
            "granted server 3 a vote in the same term, and term 3 had two leaders. The vote "
            "changes only when the term grows."
        ),
        shown_by=(
            SCRIPTS + "test_040_a_former_candidate_keeps_the_vote_of_its_term",
            SCRIPTS + "test_040_a_lost_election_and_a_lost_quorum_keep_the_vote_too",
        ),
    ),
    Exhibit(
        number=41,
        title="A vote or a term left before it was on disk",
        seen_in=("databend #1051", "octo-im #42", "nebula #2405"),
        story=(
            "A server votes, crashes, comes back without knowing of it, and votes again in the "
            "same term for somebody else. Term and vote are one record, and it is durable before "
            "any message of the term leaves, an acknowledgement as well as a vote."
        ),
        shown_by=(
            SCRIPTS + "test_041_a_vote_that_has_left_is_remembered_after_a_power_failure",
            SCRIPTS + "test_041_no_answer_in_a_new_term_leaves_before_term_and_vote_are_durable",
            DURABILITY + "test_a_vote_is_not_forgotten_in_a_crash",
        ),
    ),
    Exhibit(
        number=42,
        title="Old votes and second votes were counted",
        seen_in=("willemt b754309", "willemt 72e8f24", "xraft #27"),
        story=(
            "A candidate of term 6 hears answers to its campaign of term 4, and one of its voters "
            "twice. Each of them was counted, and a minority elected a leader. An answer counts "
            "in its own term only, and a voter once, however often it is heard."
        ),
        shown_by=(
            SCRIPTS + "test_042_votes_of_an_older_term_and_second_votes_do_not_count",
            SCRIPTS + "test_042_repeated_refusals_of_one_voter_do_not_end_an_election",
        ),
    ),
    Exhibit(
        number=43,
        title="Term and index of the last entry were compared each by itself",
        seen_in=("hashicorp 441bd09", "hashicorp #94", "openraft a48a3282"),
        story=(
            "One server ends with an entry of a newer term, another has more entries of an older "
            "one. Compared each by itself, neither was as complete as the other and nobody could "
            "win, or the longer log won and committed entries were lost. The pair is compared "
            "term first."
        ),
        shown_by=(
            SCRIPTS + "test_043_a_shorter_log_of_a_newer_term_wins_over_a_longer_one",
            SAFETY + "test_a_vote_goes_only_to_a_log_that_is_as_complete",
        ),
    ),
    Exhibit(
        number=44,
        title="Pre-votes between servers of different terms led nowhere",
        seen_in=("etcd #8243", "canonical #279", "canonical #281"),
        story=(
            "The leader dies and leaves one server in a late term and one in an early term. "
            "Pre-votes of the latter were dropped as stale, those of the former did not raise its "
            "term, and no leader was ever found. A pre-vote of an old term is answered, with the "
            "term asked for and the responder's own, and who is refused adopts the higher one."
        ),
        shown_by=(
            SCRIPTS + "test_044_a_server_with_a_lagging_term_is_no_obstacle_to_a_leader",
            SCRIPTS + "test_044_a_pre_vote_of_an_old_term_is_answered_with_both_terms",
            DISSERTATION + "test_the_best_log_with_an_old_term_is_elected",
        ),
    ),
    Exhibit(
        number=45,
        title="Two cohorts refused each other's pre-votes in the middle of a change",
        seen_in=("openraft #1796", "openraft #1800"),
        story=(
            "Six voters, a joint entry on three of them, which are in an early term, while the "
            "other three have a shorter log and a late term. The first were refused for their "
            "term and the second for their log, for ever. A refusal teaches the term, so that the "
            "better log wins with the next attempt and the change is finished."
        ),
        shown_by=(
            SCRIPTS + "test_045_two_cohorts_in_the_middle_of_a_change_find_a_leader_and_finish_it",
            DISSERTATION + "test_two_cohorts_that_refuse_each_other_find_a_leader",
        ),
    ),
    Exhibit(
        number=46,
        title="A pre-candidate refused others for a leader that it had given up",
        seen_in=("etcd #8334", "etcd #8501", "raft-rs #84"),
        story=(
            "The leader dies; one server asks for pre-votes and is refused, then another one asks "
            "it. It still remembered the leader and refused in turn, so that servers with "
            "different settings never agreed on anybody. Asking means to have given the leader "
            "up, and only a message of a leader makes a server refuse others."
        ),
        shown_by=(
            SCRIPTS + "test_046_a_pre_candidate_does_not_cling_to_the_leader_that_it_has_given_up",
            SCRIPTS + "test_046_only_a_message_of_a_leader_makes_a_server_refuse_others",
            DISSERTATION + "test_a_pre_candidate_forgets_its_leader",
        ),
    ),
    Exhibit(
        number=47,
        title="A pre-vote promised more than the vote would have kept",
        seen_in=("ClickHouse/NuRaft #134", "hashicorp #605", "hashicorp #609"),
        story=(
            "Pre-votes were given without a look at the log, and a server that could not win drove "
            "the term from 297 to 313; giving one put off the giver's own election; and the target "
            "of a transfer was turned away because a leader was in office. A pre-vote asks exactly "
            "what the vote would, changes nothing at the giver, and a transfer needs none."
        ),
        shown_by=(
            SCRIPTS + "test_047_a_candidate_that_cannot_win_changes_no_term",
            SCRIPTS
            + "test_047_the_target_of_a_transfer_is_elected_although_the_others_hear_a_leader",
            DISSERTATION + "test_granting_a_pre_vote_does_not_reset_the_timer",
            "golden/pre_vote_keeps_the_term.txt",
        ),
    ),
    Exhibit(
        number=48,
        title="The log grew between the look at it and the vote",
        seen_in=("sofa-jraft #882",),
        story=(
            "Leader A is asked for a vote and reads that its log ends at 6608; while it is "
            "suspended it appends and commits 6609; then it grants the vote, and the winner "
            "overwrites 6609. Here a message is handled from the look at the log to the write of "
            "the vote without anything in between, so that either the vote or the entry is given."
        ),
        shown_by=(
            SCRIPTS + "test_048_a_vote_and_the_entry_that_would_forbid_it_are_never_both_given",
            SCRIPTS + "test_048_nothing_can_come_between_the_decision_and_the_disk",
        ),
    ),
    Exhibit(
        number=49,
        title="Leadership was handed to a server that could not take it",
        seen_in=(
            "openraft #1805",
            "openraft #1806",
            "etcd 8b0d0e9",
            "hashicorp #398",
            "hashicorp #581",
            "redpanda #2606",
            "ra #251",
        ),
        story=(
            "The target of a transfer lacked entries, or had been demoted or removed meanwhile; or "
            "writes that were taken during the transfer made it lose; or the leader waited for it "
            "without end. The target has to be a voter with the whole log, writes pause for one "
            "election timeout at most, and a change of the configuration ends the transfer."
        ),
        shown_by=(
            SCRIPTS + "test_049_leadership_goes_to_a_complete_log_and_writes_wait_meanwhile",
            SCRIPTS + "test_049_a_target_that_has_lost_its_vote_does_not_take_over",
            SCRIPTS + "test_049_a_target_that_dies_costs_one_election_timeout_of_writes",
            DISSERTATION + "test_a_transfer_to_itself_a_learner_or_a_stranger_is_refused",
            DISSERTATION + "test_while_joint_the_target_is_a_voter_of_the_new_configuration",
            DISSERTATION + "test_a_request_to_take_over_of_an_older_or_unknown_term_is_ignored",
            "golden/leadership_transfer.txt",
        ),
    ),
    Exhibit(
        number=50,
        title="A vote for server 0 was taken for no vote",
        seen_in=("willemt fe60545",),
        story=(
            "A server votes for the one whose id happens to be 0, which in the code also means "
            "nobody. It then voted for a second candidate of the same term. That there is no vote "
            "is a value of its own, in memory and on disk, so that even an empty name is a vote."
        ),
        shown_by=(
            SCRIPTS + "test_050_a_vote_for_an_empty_name_is_a_vote_also_after_a_restart",
            PAPER + "test_a_vote_for_a_server_with_an_empty_name_is_a_vote",
            "storage/test_wal.py::test_an_empty_vote_is_not_the_absence_of_a_vote",
        ),
    ),
    Exhibit(
        number=51,
        title="Learners kept a leader in office",
        seen_in=("hashicorp #308",),
        story=(
            "A leader loses contact with the other voters and keeps contact with learners. Their "
            "answers counted, so that it stayed in office and the cluster without writes. Only a "
            "majority of the voters, while joint of each half, keeps a leader."
        ),
        shown_by=(
            SCRIPTS + "test_051_learners_keep_no_leader_in_office",
            DISSERTATION + "test_learners_do_not_keep_a_leader_in_office",
            DISSERTATION + "test_while_joint_the_old_half_has_to_be_in_contact",
        ),
    ),
    Exhibit(
        number=52,
        title="A restart put a vote of an earlier term beside a later term",
        seen_in=("seaweedfs/raft #9",),
        story=(
            "A server votes in one term and then stores entries of a later one; at its restart it "
            "took the term from the log and kept the vote that it found. So it held a vote that it "
            "had never given. Term and vote are read from one record, whatever the log says."
        ),
        shown_by=(
            SCRIPTS + "test_052_a_vote_of_an_earlier_term_is_not_found_again_in_a_later_one",
        ),
    ),
    Exhibit(
        number=53,
        title="A server campaigned in the middle of a snapshot",
        seen_in=("etcd f1f74e0", "nebula #1769", "NuRaft #590"),
        story=(
            "A server that has received a part of a snapshot times out and campaigns with a state "
            "that is neither the old one nor the new; or, being a candidate, it refuses the "
            "leader's snapshot. A snapshot that is not there as a whole is nothing yet: until then "
            "the server is all that it was before and may be elected as that, also after a "
            "restart; and a candidate takes the snapshot of the leader of its term, and gives up "
            "when its log is replaced."
        ),
        shown_by=(
            SNAPSHOTS + "test_053_in_the_middle_of_a_snapshot_a_server_is_what_it_was_before",
            SNAPSHOTS + "test_053_a_candidate_takes_the_snapshot_of_the_leader_of_its_term",
            SNAPSHOTS + "test_053_whoever_campaigned_with_the_log_that_is_replaced_gives_up",
            "core/test_snapshot_groups.py::test_a_server_that_is_receiving_may_be_elected",
        ),
    ),
)
