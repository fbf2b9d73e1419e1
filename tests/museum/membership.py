"""Exhibits 1 to 39: membership and joint consensus.

`J(X to Y)` in a story is the joint configuration of the old voters X and the new voters Y, "the
joint entry" is the log entry that says so, and "the new configuration" is the entry that ends it.
"""

from __future__ import annotations

from tests.museum.catalogue import Exhibit

IN_FORCE = "museum/test_membership_in_force.py::"
SNAPSHOTS = "museum/test_snapshot_protocol.py::"
STORED = "museum/test_snapshot_storage.py::"
INSTALLING = "node/test_installing.py::"
QUORUMS = "museum/test_membership_quorums.py::"
SERVERS = "museum/test_membership_servers.py::"
REQUESTS = "museum/test_membership_requests.py::"
CHANGES = "core/test_joint_changes.py::"
DISSERTATION = "core/test_raft_dissertation.py::"
OPERATIONS = "node/test_operations.py::"

MEMBERSHIP: tuple[Exhibit, ...] = (
    Exhibit(
        number=1,
        title="A configuration was used from its commit on instead of from its append on",
        seen_in=("etcd #11284", "etcd #7280", "etcd #7625"),
        story=(
            "Leader A of {A,B,C} removes B and C, and this is committed on A while B and C have "
            "stored it without hearing of the commit. They went on counting {A,B,C} and elected a "
            "second leader beside A. A server has to use the newest configuration of its log from "
            "the moment it is there, so that B and C need A for everything."
        ),
        shown_by=(
            IN_FORCE + "test_001_a_configuration_counts_from_its_append_and_not_from_its_commit",
            CHANGES + "test_a_leader_uses_a_configuration_from_the_moment_it_appends_it",
        ),
    ),
    Exhibit(
        number=2,
        title="Nobody could win: the right server still took itself for a learner",
        seen_in=("etcd #12359",),
        story=(
            "While {A,B,C} becomes {A,B,D}, B is down; C knows the joint entry to be committed, D "
            "has the longest log but does not know it, and A dies. C could not win against D's log "
            "and D did not campaign because to itself it was a learner, although B came back. D is "
            "a voter as soon as it has stored the joint entry, and wins."
        ),
        shown_by=(
            IN_FORCE
            + "test_002_a_learner_that_stores_the_joint_entry_can_win_before_it_knows_the_commit",
        ),
    ),
    Exhibit(
        number=3,
        title="A restart forgot a configuration that was appended and not yet committed",
        seen_in=(
            "camunda #57389",
            "camunda #58304",
            "camunda #55856",
            "jraft(andy) #1",
            "NuRaft #232",
        ),
        story=(
            "{A,B} shrinks to {A}, and A has that only as an entry which it does not know to be "
            "committed. It restarted with the configuration of a metadata file that was written on "
            "commit, and waited for ever for B, which was gone. At the start the whole log is read "
            "and its newest configuration is in force."
        ),
        shown_by=(
            IN_FORCE
            + "test_003_a_restart_finds_the_configuration_that_was_appended_and_not_committed",
            "node/test_durability.py::"
            "test_a_configuration_that_is_not_committed_is_found_again_at_the_restart",
        ),
    ),
    Exhibit(
        number=4,
        title="Truncation did not roll the configuration back",
        seen_in=(
            "camunda #57393",
            "canonical/raft #250",
            "canonical/raft #323",
            "canonical/raft #354",
        ),
        story=(
            "A follower has a joint entry from a leader that is deposed before anybody else got "
            "it, and the next leader puts something else at its index. The follower kept the joint "
            "configuration in memory, or stumbled over the missing entry. What is in force "
            "afterwards is the newest configuration below the truncation, if need be the one that "
            "the log starts from."
        ),
        shown_by=(
            IN_FORCE + "test_004_a_truncated_configuration_is_out_of_force_on_the_follower",
            "core/test_log.py::test_truncation_falls_back_to_the_configuration_of_the_snapshot",
        ),
    ),
    Exhibit(
        number=5,
        title="Of two truncated configurations only one was rolled back",
        seen_in=("scylla #30936",),
        story=(
            "A log has a configuration at index 5, a joint one at 9 and the new one at 10, and "
            "everything from 9 on is truncated. Only one previous index was remembered, so the "
            "server ended with a stale one or none. The configurations are a stack: 5 is in force."
        ),
        shown_by=(
            IN_FORCE + "test_005_two_configurations_are_rolled_back_by_one_truncation",
            "golden/truncation_rolls_back_configurations.txt",
        ),
    ),
    Exhibit(
        number=6,
        title="A snapshot stored a configuration that was not committed",
        seen_in=("canonical/raft #250", "canonical/raft #354"),
        story=(
            "A snapshot is taken at the commit index while an uncommitted configuration stands "
            "three entries further on, and that entry is truncated later. The snapshot had the "
            "newest configuration, so there was nothing to roll back to. It has to carry the one "
            "as of its last index, both halves of it if that was joint."
        ),
        shown_by=(
            SNAPSHOTS
            + "test_006_what_is_rolled_back_behind_a_snapshot_falls_back_to_its_configuration",
            IN_FORCE + "test_006_the_configuration_as_of_an_index_is_joint_if_it_was_joint_then",
            INSTALLING + "test_a_snapshot_has_the_configuration_in_its_joint_form_if_it_is_one",
        ),
    ),
    Exhibit(
        number=7,
        title="A joint configuration that was found in the log was left before it was committed",
        seen_in=("camunda #60086", "camunda #61854"),
        story=(
            "{A,B} shrinks to {A}; both have the joint entry, nobody knows it to be committed, and "
            "both restart. A won the election and appended the new configuration at once, whose "
            "only voter A then committed everything without B. The joint state is left only after "
            "the new leader has committed an entry of its own term under both halves."
        ),
        shown_by=(
            IN_FORCE
            + "test_007_an_inherited_joint_entry_is_left_only_after_a_commit_under_both_halves",
            IN_FORCE
            + "test_007_the_commit_of_an_entry_before_the_joint_one_does_not_end_the_joint_state",
            CHANGES + "test_an_heir_waits_for_its_own_no_op_before_it_finishes",
        ),
    ),
    Exhibit(
        number=8,
        title="A new leader ignored the uncommitted configuration of its predecessor",
        seen_in=("NuRaft #67",),
        story=(
            "A leader appends a configuration that reaches only one follower, and dies; that "
            "follower is elected. It based the next change on the last committed configuration, so "
            "that two were pending and one was undone by the other. A change is refused until the "
            "newest configuration is committed, and is based on that one."
        ),
        shown_by=(
            IN_FORCE
            + "test_008_a_new_leader_builds_on_the_uncommitted_configuration_of_its_predecessor",
        ),
    ),
    Exhibit(
        number=9,
        title="The joint state was left several times",
        seen_in=("etcd-io/raft bd3c759",),
        story=(
            "The joint entry is committed while two more entries are behind it. The commit of each "
            "of them proposed to leave the joint state again, which ended in a duplicate or a "
            "panic. There is one new configuration for one joint entry, also when another leader "
            "finishes the change."
        ),
        shown_by=(
            IN_FORCE + "test_009_entries_behind_the_joint_entry_do_not_end_the_joint_state_again",
            IN_FORCE + "test_009_the_next_leader_appends_the_new_configuration_once_too",
        ),
    ),
    Exhibit(
        number=10,
        title="A joint configuration was judged by its first half",
        seen_in=("openraft 6c0ccaf3",),
        story=(
            "The single server 0 adds 1 and 2. It took itself for the only voter, as in the first "
            "half of J({0} to {0,1,2}), and committed the joint entry and writes of clients alone. "
            "Both majorities are needed, and whoever asks at the start whether it is alone has to "
            "look at both halves."
        ),
        shown_by=(
            QUORUMS + "test_010_the_only_voter_of_the_old_half_does_not_decide_alone",
            CHANGES + "test_a_single_old_voter_does_not_decide_alone",
        ),
    ),
    Exhibit(
        number=11,
        title="The acknowledgements of new members were not counted in the joint state",
        seen_in=(
            "openraft d882e743",
            "openraft a10d9906",
            "openraft beb0302b",
            "openraft t30_commit_joint_config",
        ),
        story=(
            "{0,1,2} is to become {2,3,4} while 3 and 4 are isolated. The joint entry was taken to "
            "be committed with 0, 1 and 2. It is not before two of {2,3,4} have stored it."
        ),
        shown_by=(
            QUORUMS + "test_011_the_joint_entry_waits_for_a_majority_of_the_new_half",
            "golden/joint_phase_by_phase.txt",
        ),
    ),
    Exhibit(
        number=12,
        title="A second change began before the first was committed",
        seen_in=("redpanda #17675",),
        story=(
            "{1,2,3} has the learners 4 and 5 and is split into {1,4,5} and {2,3}. Leader 1 made "
            "first 4 and then 5 a voter without waiting, so {1,4,5} were three of five and {2,3} "
            "two of three, and both sides committed. A change is refused while one is uncommitted, "
            "whoever asks for it."
        ),
        shown_by=(
            QUORUMS + "test_012_a_second_server_is_not_added_before_the_first_is_committed",
            OPERATIONS + "test_a_second_change_is_refused_while_one_runs",
        ),
    ),
    Exhibit(
        number=13,
        title="A leader died right after it had appended the new configuration",
        seen_in=("redpanda #3055",),
        story=(
            "1 is replaced by 2. Leader 1 appends the new configuration {2} and dies before 2 has "
            "it, so 2 still needs a majority of both halves, and that is 1 as well. Nobody led "
            "even after 1 had come back; 1 has to be able to campaign and finish."
        ),
        shown_by=(QUORUMS + "test_013_a_leader_that_died_with_the_new_configuration_finishes_it",),
    ),
    Exhibit(
        number=14,
        title="The removed leader had the newest log and did not campaign",
        seen_in=("openraft #2091", "openraft #2098", "RethinkDB #4234", "cowsql/raft #150"),
        story=(
            "{A,B} shrinks to {B}, A alone has the new configuration and restarts. A saw that it "
            "is not a member any more and did not campaign, and B could not win against A's log: "
            "no leader for ever in a healthy cluster. Until the removal is known to be committed a "
            "voter of the configuration before it campaigns, without counting itself."
        ),
        shown_by=(
            QUORUMS + "test_014_the_removed_leader_that_alone_has_the_new_configuration_wins",
            CHANGES + "test_two_servers_one_of_which_goes_and_alone_has_the_new_configuration",
            DISSERTATION + "test_the_own_vote_counts_only_where_the_configuration_lists_it",
        ),
    ),
    Exhibit(
        number=15,
        title="A leader that demoted itself did not vote for itself",
        seen_in=("scylla #10618",),
        story=(
            "In J({A} to {B}) A, which becomes a learner, is cut off from B, campaigns, and comes "
            "back. Its own vote was left out because it has none in the new half, so the old half "
            "never had a majority. The own vote counts in every half that lists the candidate."
        ),
        shown_by=(
            QUORUMS + "test_015_a_leader_that_demotes_itself_votes_for_itself_in_the_old_half",
            CHANGES + "test_a_candidate_of_the_old_half_only_votes_for_itself_there",
        ),
    ),
    Exhibit(
        number=16,
        title="A voter that was being demoted was missing from the quorum of reads",
        seen_in=("scylla #29226",),
        story=(
            "While 3 of {1,2,3} is demoted and 4 comes in, 2 is slow. Whether a server may vote "
            "was looked up in the new half only, so 3 did not count and the read never ended. A "
            "majority of each half is needed, and 3 is one of the old one."
        ),
        shown_by=(
            QUORUMS + "test_016_a_voter_that_is_being_demoted_confirms_reads_for_the_old_half",
            "core/test_reads.py::test_while_joint_one_half_does_not_confirm_a_read",
        ),
    ),
    Exhibit(
        number=17,
        title="A leader counted itself after its own removal",
        seen_in=("etcd testdata/confchange_v1_remove_leader.txt",),
        story=(
            "Leader 1 of {1,2,3} has appended the configuration {2,3} and then `bar`. With 2's "
            "acknowledgement `bar` was taken to be committed by {1,2}. It needs 2 and 3."
        ),
        shown_by=(
            QUORUMS + "test_017_a_leader_that_has_appended_its_own_removal_does_not_count_itself",
            "golden/leader_removes_itself.txt",
        ),
    ),
    Exhibit(
        number=18,
        title="A removed leader never stepped down",
        seen_in=(
            "etcd testdata/confchange_v1_remove_leader.txt",
            "raft-rs #584",
            "canonical/raft #231",
            "canonical/raft #235",
        ),
        story=(
            "A leader has committed a configuration without itself. It kept sending heartbeats and "
            "dropped every proposal, so nothing could be written and nobody else was elected. It "
            "hands over, and steps down within an election timeout even if nobody takes over."
        ),
        shown_by=(
            QUORUMS
            + "test_018_a_removed_leader_steps_down_even_if_nobody_can_be_told_to_take_over",
            CHANGES + "test_then_it_hands_over_to_the_best_voter",
        ),
    ),
    Exhibit(
        number=19,
        title="A removed leader stepped down too early",
        seen_in=("qdrant #10684", "qdrant #10691", "openraft 0023cff1"),
        story=(
            "A of {A,B} commits its own removal and is gone before B hears of the commit. B still "
            "counted two voters and could not be elected. B uses {B} from the moment it has stored "
            "it, and A feeds B for as long as it takes to tell it."
        ),
        shown_by=(
            QUORUMS + "test_019_the_last_voter_does_not_need_the_leader_that_left_too_early",
            CHANGES + "test_a_leader_that_removed_itself_tells_the_others_first",
            "node/test_node.py::test_a_removed_leader_hands_leadership_over_before_it_ends",
        ),
    ),
    Exhibit(
        number=20,
        title="A leader left office when it entered the joint state in which it is demoted",
        seen_in=("cockroach #105578", "etcd-io/raft #79"),
        story=(
            "A leader exchanges itself for another voter. It stepped down on entering the joint "
            "state because it is only a learner in the new half, before the new configuration was "
            "proposed: an election for every replaced leader. It stays until the new configuration "
            "is committed and then hands over."
        ),
        shown_by=(
            QUORUMS + "test_020_a_leader_that_is_demoted_stays_in_office_through_the_joint_state",
            "golden/leader_demoted.txt",
        ),
    ),
    Exhibit(
        number=21,
        title="A learner that had been promoted without knowing it refused to vote",
        seen_in=("raft-rs #57", "etcd testdata/campaign_learner_must_vote.txt"),
        story=(
            "3 becomes a voter beside 1 and 2, and 1 dies before 3 has the entry. 3 refused its "
            "vote to 2 because it is a learner in its own log, and there was no leader any more. "
            "Whether a server votes does not depend on its own membership."
        ),
        shown_by=(SERVERS + "test_021_a_promoted_learner_that_does_not_know_it_gives_its_vote",),
    ),
    Exhibit(
        number=22,
        title="A learner or a removed server campaigned",
        seen_in=("redpanda #8495", "hashicorp #476", "hashicorp #483", "openraft 39690593"),
        story=(
            "A learner that restarts, a removed server that knows it and a blank server hear "
            "nothing for a long time. They started elections that nobody counts and raised the "
            "terms of the others. Only a voter of the latest configuration campaigns, or of the "
            "one before while the latest is not known to be committed."
        ),
        shown_by=(
            SERVERS + "test_022_servers_that_nobody_counts_start_no_election",
            SERVERS + "test_022_a_learner_does_not_campaign_when_its_leader_tells_it_to",
            DISSERTATION + "test_a_removed_server_that_knows_it_starts_no_election",
        ),
    ),
    Exhibit(
        number=23,
        title="A voter refused servers that its configuration did not list",
        seen_in=("RedisLabs/raft #50", "camunda #57388", "akka-raft #49", "hashicorp #526"),
        story=(
            "4 joins {1,2,3} while 3 is down; 1 dies, and 4 with the longest log needs the vote of "
            "3, which has never heard of it. 3 refused a stranger's requests, so nobody could be "
            "elected. Receivers do not look at the membership of the sender; the candidate counts "
            "the votes of its own configuration."
        ),
        shown_by=(
            SERVERS + "test_023_voters_serve_a_leader_that_their_configuration_does_not_know",
            DISSERTATION + "test_receivers_are_blind_to_membership",
        ),
    ),
    Exhibit(
        number=24,
        title="A removed server deposed the leader again and again",
        seen_in=("logcabin #56", "logcabin #210", "hashicorp #524", "willemt ab96a76"),
        story=(
            "A server that was cut off during its removal times out for ever, and its vote "
            "requests carry ever higher terms. Each of them made the leader step down. Within the "
            "minimum election timeout of contact with a leader such a request is refused and its "
            "term not adopted, unless the leader itself asked for the election."
        ),
        shown_by=(
            SERVERS + "test_024_a_removed_server_that_times_out_for_ever_deposes_nobody",
            "golden/removed_server_does_not_disrupt.txt",
        ),
    ),
    Exhibit(
        number=25,
        title="Votes and acknowledgements from outside the configuration were counted",
        seen_in=("willemt c4de21e", "openraft #1805"),
        story=(
            "Learners, strangers and other incarnations of a voter grant votes and acknowledge "
            "entries. They made up majorities, or the server that got them panicked. They count "
            "nothing and do no harm."
        ),
        shown_by=(
            SERVERS + "test_025_votes_from_outside_the_configuration_elect_nobody",
            SERVERS + "test_025_acknowledgements_from_outside_the_configuration_commit_nothing",
        ),
    ),
    Exhibit(
        number=26,
        title="A server came back with an empty disk and its old id",
        seen_in=(
            "RethinkDB #5289",
            "Vanlightly raft-tlaplus README, joint example",
            "redisraft 8b6a919",
            "openraft FAQ",
        ),
        story=(
            "Of {1,2,3}, 1 is replaced by 4 and then 2 by 5; 1 has heard nothing of it, 2 returns "
            "wiped, and 1 asks it for a vote. {1,2} elected a leader of the past, and committed "
            "data was lost. A wiped disk is another incarnation, and whoever means the old one is "
            "refused by it; the old one is never admitted again."
        ),
        shown_by=(
            SERVERS
            + "test_026_a_wiped_disk_under_an_old_name_does_not_vote_for_a_leader_of_the_past",
            SERVERS + "test_026_the_vote_of_another_incarnation_does_not_count",
            OPERATIONS + "test_a_removed_server_with_its_old_data_is_refused",
        ),
    ),
    Exhibit(
        number=27,
        title="Two leaders each removed servers of the other side",
        seen_in=("redisraft #17",),
        story=(
            "A leader that is cut off with the minority and does not know that it is deposed is "
            "asked to remove servers of the other side. It shrank its configuration until the "
            "minority was a quorum, and acknowledged writes. The joint entry needs a majority of "
            "the old configuration first, which only one side has."
        ),
        shown_by=(
            QUORUMS + "test_027_of_two_sides_that_each_remove_the_other_only_the_majority_succeeds",
            CHANGES + "test_an_old_leader_alone_cannot_shrink_the_cluster",
        ),
    ),
    Exhibit(
        number=28,
        title="A voter of the old half refused the snapshot that it needed",
        seen_in=("etcd #12631", "raft-rs #416"),
        story=(
            "In J({1,2,3} to {1,2,4}) with 3 to become a learner, 3 lags behind the log's start "
            "and 2 is isolated. 3 found itself neither in the voters nor in the learners of the "
            "snapshot and refused it, so the old half had no majority. Nobody looks for itself in "
            "what a leader sends: 3 takes entries and snapshot, and decides for the old half."
        ),
        shown_by=(
            SNAPSHOTS + "test_028_a_demoted_voter_takes_the_snapshot_for_which_the_old_half_waits",
            QUORUMS
            + "test_028_a_lagging_server_of_the_old_half_is_fed_and_decides_although_it_is_demoted",
        ),
    ),
    Exhibit(
        number=29,
        title="Restoring lost the joint state",
        seen_in=("etcd-io/raft e515a67",),
        story=(
            "A server restarts, or installs a snapshot, in the middle of a joint change. It came "
            "back in the new configuration as if the change were over. The old half, the learners "
            "and those who become learners have to come back too."
        ),
        shown_by=(
            SNAPSHOTS + "test_029_a_snapshot_brings_the_joint_state_with_all_parts_of_it",
            IN_FORCE + "test_029_a_restart_in_the_joint_state_finds_all_parts_of_it",
            "core/test_membership.py::test_an_entry_is_read_back_as_it_was_written",
            INSTALLING + "test_a_snapshot_has_the_configuration_in_its_joint_form_if_it_is_one",
        ),
    ),
    Exhibit(
        number=30,
        title="A snapshot was refused because its receiver was not in it, or was demoted by it",
        seen_in=("raft-rs #472", "etcd #10864"),
        story=(
            "A new learner gets a snapshot from before it was added, or a voter one in which it is "
            "a learner. Both refused it and were cut off for ever. Whatever the current leader "
            "sends and is newer is taken in."
        ),
        shown_by=(
            SNAPSHOTS + "test_030_a_new_learner_takes_a_snapshot_from_before_it_was_added",
            SNAPSHOTS + "test_030_a_voter_takes_a_snapshot_in_which_it_is_a_learner",
            IN_FORCE + "test_030_a_server_takes_entries_whose_configuration_does_not_list_it",
            IN_FORCE + "test_030_a_voter_becomes_a_learner_when_it_is_told_to",
        ),
    ),
    Exhibit(
        number=31,
        title="Two compactions lost the membership",
        seen_in=("openraft dba24036",),
        story=(
            "A configuration entry is compacted into a snapshot, and the next snapshot is built "
            "from the log alone, which has no configuration any more. It said that nobody is a "
            "member. What the log does not have has to come from the snapshot before; here it is a "
            "part of the state, which every snapshot is made of."
        ),
        shown_by=(
            SNAPSHOTS
            + "test_031_the_membership_outlives_its_entry_through_any_number_of_compactions",
            STORED + "test_031_a_second_snapshot_knows_the_members_that_no_log_names_any_more",
        ),
    ),
    Exhibit(
        number=32,
        title="The configuration of a snapshot replaced a newer one",
        seen_in=("NuRaft #566", "openraft 447dc11c"),
        story=(
            "A server installs a snapshot while its log has a newer configuration, or has one that "
            "the snapshot is about to delete. It adopted the older configuration, or read one from "
            "the superseded log. In force is the newest that survives behind the snapshot, else "
            "the snapshot's own."
        ),
        shown_by=(
            SNAPSHOTS
            + "test_032_a_newer_configuration_that_survives_behind_the_snapshot_stays_in_force",
            SNAPSHOTS + "test_032_a_configuration_that_the_snapshot_deletes_is_out_of_force",
        ),
    ),
    Exhibit(
        number=33,
        title="Two requests at the same time left the cluster joint",
        seen_in=("openraft #1351",),
        story=(
            "One client adds x and another one removes x while the first change is joint. The "
            "second step of the first change applied the request once more, to what the other "
            "request had made of it, and the cluster stayed joint for ever. The second step only "
            "finishes what the joint entry says, and the second request is refused."
        ),
        shown_by=(
            REQUESTS
            + "test_033_a_request_against_the_change_that_runs_does_not_leave_the_cluster_joint",
            REQUESTS + "test_033_an_operation_that_comes_into_another_is_refused_with_its_name",
            OPERATIONS + "test_of_two_changes_at_the_same_time_one_is_started",
        ),
    ),
    Exhibit(
        number=34,
        title="A leader changed the configuration before it had committed in its own term",
        seen_in=("axon-server #120", "raft-dev 2015, the bug of single-server changes"),
        story=(
            "A leader appends a change that reaches a minority, and another one is elected. It "
            "appended a change of its own at once; the two overlapped in no quorum, and each side "
            "could commit. A change waits until the new leader's empty entry is committed."
        ),
        shown_by=(
            REQUESTS + "test_034_a_leader_changes_nothing_before_it_has_committed_in_its_own_term",
            OPERATIONS + "test_a_leader_that_has_just_been_elected_decides_once_it_has_committed",
        ),
    ),
    Exhibit(
        number=35,
        title="A learner was promoted while it was behind, or never under load",
        seen_in=("redisraft #125", "tikv/pd #11236"),
        story=(
            "An empty server becomes the fourth voter and one of the others dies: nothing was "
            "committed until the new one had the whole log. The opposite rule, that it has to have "
            "the very last entry, was never fulfilled on a busy leader. A short last round of "
            "catching up decides, and a change that takes too long is given up."
        ),
        shown_by=(
            SERVERS + "test_035_an_empty_server_does_not_become_a_voter",
            SERVERS + "test_035_a_learner_becomes_a_voter_although_the_log_never_stands_still",
            OPERATIONS + "test_a_server_that_cannot_catch_up_leaves_no_trace_in_the_configuration",
        ),
    ),
    Exhibit(
        number=36,
        title="Nothing looked at the commit again after shrinking to one voter",
        seen_in=("NuRaft #488", "canonical/raft #231"),
        story=(
            "{1,2} shrinks to {1} while entries wait for 2. They stayed uncommitted, because no "
            "acknowledgement would ever come. Appending a configuration and becoming leader look "
            "at the commit at once."
        ),
        shown_by=(
            QUORUMS + "test_036_shrinking_to_one_voter_commits_what_waits",
            QUORUMS + "test_036_the_only_voter_commits_what_it_finds_when_it_becomes_leader",
        ),
    ),
    Exhibit(
        number=37,
        title="Replication streams did not follow the configuration",
        seen_in=("openraft 2896b98e", "NuRaft #610", "redisraft #136"),
        story=(
            "Voters change while there are learners. The learners' streams were dropped, the "
            "removed server was never told, or an answer of it that came late crashed the leader. "
            "Both halves and the learners are fed, whoever left is fed until it knows, and what it "
            "says later does no harm."
        ),
        shown_by=(
            SERVERS + "test_037_learners_are_fed_and_removed_servers_are_told_while_voters_change",
            CHANGES + "test_replication_follows_both_halves_and_the_learners",
        ),
    ),
    Exhibit(
        number=38,
        title="Impossible targets got into the log",
        seen_in=("etcd confchange/joint_safety.txt",),
        story=(
            "A change leaves no voter, enters the joint state twice, leaves it without having "
            "entered, or makes a server voter and learner at once. Each of them is refused with "
            "its reason, and the log is as before."
        ),
        shown_by=(
            REQUESTS + "test_038_an_impossible_target_is_refused_and_the_log_unchanged",
            REQUESTS + "test_038_entering_twice_and_leaving_without_entering_are_refused",
            REQUESTS
            + "test_038_a_server_that_is_voter_and_learner_at_once_is_refused_from_anybody",
            REQUESTS + "test_038_an_operation_that_names_a_server_twice_is_refused",
        ),
    ),
    Exhibit(
        number=39,
        title="A change was judged by another configuration than it was applied to",
        seen_in=("etcd-io/raft #80", "etcd-io/raft #81"),
        story=(
            "A client's change is appended by a leader that is cut off, and asked for again at the "
            "next one after the configuration has moved. The repetition was rejected, and yet the "
            "older copy of it took effect later. The client hears that the outcome is unknown, and "
            "a change that names the configuration it was meant for applies to no other."
        ),
        shown_by=(
            REQUESTS + "test_039_an_old_copy_of_a_change_takes_effect_on_no_other_configuration",
            REQUESTS
            + "test_039_the_expected_configuration_is_compared_before_anything_is_appended",
            OPERATIONS + "test_a_change_that_is_asked_for_again_before_it_is_applied_runs_once",
        ),
    ),
)
