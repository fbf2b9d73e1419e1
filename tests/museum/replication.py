"""Exhibits 54 to 68: replication and commit."""

from __future__ import annotations

from tests.museum.catalogue import Exhibit

SCRIPTS = "museum/test_replication.py::"
PAPER = "core/test_raft_paper.py::"
SAFETY = "core/test_raft_paper_safety.py::"
LOG = "core/test_log.py::"
DURABILITY = "node/test_durability.py::"
SESSIONS = "node/test_sessions.py::"

REPLICATION: tuple[Exhibit, ...] = (
    Exhibit(
        number=54,
        title="A late request cut off what was acknowledged",
        seen_in=("hashicorp 0f31a01", "willemt 77fb611", "willemt #37", "openraft 9540c904"),
        story=(
            "A follower has acknowledged entries 1 to 5, and a copy of an old request with entry 2 "
            "arrives, or a heartbeat about entry 1. It deleted everything after the last entry of "
            "the request, or deleted and wrote it anew with room for a crash in between. Only what "
            "conflicts is deleted, from there on, and nothing is written for what is there."
        ),
        shown_by=(
            SCRIPTS + "test_054_a_late_request_takes_nothing_away",
            PAPER + "test_a_delayed_request_never_shortens_the_log",
        ),
    ),
    Exhibit(
        number=55,
        title="The commit index ran beyond what the request had verified",
        seen_in=(
            "scylla #9965",
            "copycat #265",
            "openraft 9540c904",
            "etcd-io/raft #138",
            "etcd-io/raft #139",
        ),
        story=(
            "A follower's entry 10 is of a deposed leader; the new leader's heartbeat verifies "
            "entry 9 and says that 11 are committed. The follower committed its own entry 10. It "
            "may commit no further than the last entry that this very message has verified."
        ),
        shown_by=(
            SCRIPTS + "test_055_a_stale_entry_is_not_committed_by_a_heartbeat_that_ends_before_it",
            PAPER + "test_the_commit_index_stays_within_what_the_request_verified",
        ),
    ),
    Exhibit(
        number=56,
        title="The answer to a heartbeat moved the match index",
        seen_in=("RATIS-2605",),
        story=(
            "A follower with a stale suffix accepts a heartbeat and says how long its log is. The "
            "leader believed that all of it matched its own log and committed what the follower "
            "did not have. The match index is what the request ended with."
        ),
        shown_by=(
            SCRIPTS + "test_056_the_answer_to_a_heartbeat_moves_nothing_beyond_the_heartbeat",
            PAPER + "test_a_heartbeat_acknowledges_only_what_it_names",
        ),
    ),
    Exhibit(
        number=57,
        title="What a snapshot covers was taken for a conflict",
        seen_in=("openraft 44381b0c", "willemt 396f7b7", "etcd-io/raft #31"),
        story=(
            "A request begins below the first entry that the follower still has, because a "
            "snapshot has replaced the others. The follower deleted its whole log over it, or a "
            "leader without the old entries sent a term of 0 and the follower gave up. What a "
            "snapshot covers is committed, so it matches, and a leader that has the entries no "
            "longer sends its snapshot."
        ),
        shown_by=(
            SCRIPTS + "test_057_what_a_snapshot_covers_is_no_conflict",
            SCRIPTS + "test_057_a_late_request_that_ends_below_the_snapshot_changes_nothing",
            "museum/test_snapshot_protocol.py::"
            "test_057_a_leader_without_the_old_entries_sends_its_snapshot",
            LOG + "test_entries_that_the_snapshot_covers_match_by_definition",
        ),
    ),
    Exhibit(
        number=58,
        title="Entries of older terms were committed by counting",
        seen_in=("async-raft #106", "CCF #4485", "nebula #685", "RATIS-1161"),
        story=(
            "Figure 8 of the paper: a leader brings an entry of an older term to a majority and "
            "dies before any entry of its own term is there. Who had called the first one "
            "committed saw it overwritten by a leader with a newer last term. Counting commits "
            "entries of the leader's own term, and through them what stands before."
        ),
        shown_by=(
            "golden/figure_8.txt",
            SAFETY + "test_entries_of_older_terms_are_not_committed_by_counting_replicas",
            SAFETY + "test_figure_8_an_entry_that_was_on_a_majority_can_still_be_overwritten",
            SAFETY + "test_figure_8_an_entry_below_one_of_the_leaders_term_stays",
        ),
    ),
    Exhibit(
        number=59,
        title="Half of an even number of servers passed for a majority",
        seen_in=("hashicorp 163a55f", "openraft d60f1e85"),
        story=(
            "With four servers two were enough for a decision, be it a commit or the confirmation "
            "of a read, and the other two could decide otherwise. A majority is more than half, "
            "for elections, commits, reads and a leader's own contact alike."
        ),
        shown_by=(
            SCRIPTS + "test_059_half_of_an_even_number_decides_nothing",
            "core/test_quorum.py::test_even_sizes_need_more_than_half",
        ),
    ),
    Exhibit(
        number=60,
        title="The point where two logs part was never found",
        seen_in=("openraft 6d53aa12", "openraft #1500"),
        story=(
            "More than fifty entries of a follower conflict with the leader's, and the search for "
            "their beginning started over and over; or old refusals arrived late and moved the "
            "next index below what was known to match. Each refusal takes a whole term off the "
            "search, and what has matched is never asked about again."
        ),
        shown_by=(
            SCRIPTS
            + "test_060_hundreds_of_conflicting_entries_are_found_in_a_round_trip_for_each_term",
            PAPER + "test_any_divergence_is_found",
            PAPER + "test_a_late_refusal_never_moves_next_index_below_what_matches",
            "golden/figure_7.txt",
        ),
    ),
    Exhibit(
        number=61,
        title="A leader counted its own entry before it was on its disk",
        seen_in=("etcd #14370", "etcd #10508"),
        story=(
            "One server alone takes a write, answers OK and loses its power before the write has "
            "reached the disk: an acknowledged write is gone. The leader's own match index is what "
            "its disk has, so that the answer waits for the sync."
        ),
        shown_by=(
            SCRIPTS + "test_061_the_only_voter_answers_nothing_that_its_disk_does_not_have",
            SCRIPTS + "test_061_a_leader_counts_itself_only_from_its_own_disk_on",
            DURABILITY + "test_the_only_voter_answers_nothing_that_a_crash_took_back",
        ),
    ),
    Exhibit(
        number=62,
        title="A follower acknowledged what its disk did not have",
        seen_in=("tikv #994", "etcd #14143"),
        story=(
            "A follower answers before its sync, the leader commits, and the power fails "
            "everywhere. After the restart the commit was lost, or the follower was told of a "
            "commit beyond the end of its log and gave up. An acknowledgement leaves after the "
            "sync of what it acknowledges."
        ),
        shown_by=(
            SCRIPTS + "test_062_a_write_that_two_disks_acknowledged_survives_the_power_of_all",
            SCRIPTS + "test_062_a_crash_before_the_sync_leaves_the_write_unacknowledged",
            DURABILITY + "test_a_follower_acknowledges_after_its_sync",
        ),
    ),
    Exhibit(
        number=63,
        title="After a failed flush a heartbeat committed what was not on disk",
        seen_in=("camunda #30354",),
        story=(
            "The flush of an entry fails and the follower goes on; the entry is in its memory, so "
            "the next heartbeat raises its commit index over it. A server whose disk has failed "
            "handles no message any more, and the next start knows what the disk knows."
        ),
        shown_by=(
            SCRIPTS + "test_063_after_a_failed_flush_no_heartbeat_commits_what_is_not_on_disk",
            DURABILITY + "test_a_follower_whose_disk_fails_acknowledges_nothing",
        ),
    ),
    Exhibit(
        number=64,
        title="A restarted leader did not know its own log",
        seen_in=("openraft #883", "openraft #607", "openraft 86e2ccd0"),
        story=(
            "A server restarts, with entries on disk, and leads again. Its own progress was at "
            "zero, so that with nobody else to acknowledge nothing was ever committed again; or it "
            "led without an entry of its term. What was read from the disk counts as durable, and "
            "each leadership begins with a no-op that commits what came before."
        ),
        shown_by=(
            SCRIPTS + "test_064_a_leader_that_restarts_commits_what_it_has_with_a_no_op_of_its_own",
            SAFETY + "test_a_new_leader_knows_its_own_log_after_a_restart",
        ),
    ),
    Exhibit(
        number=65,
        title="The end of an old write was taken for that of a new one",
        seen_in=("etcd-io/raft async_storage_writes_append_aba_race",),
        story=(
            "While the write of entry 12 of term 1 is under way, the entry is replaced by one of "
            "term 2; then the first write ends and entry 12 counts as durable, though the new one "
            "is not. Here no message is taken in between a write and its end, which names the "
            "very batch that it belongs to."
        ),
        shown_by=(
            SCRIPTS + "test_065_a_finished_write_speaks_for_its_own_entries_only",
            LOG + "test_a_conflict_below_a_durable_entry_makes_it_owed_to_the_disk_again",
        ),
    ),
    Exhibit(
        number=66,
        title="Clients of a deposed leader waited for ever or were told the wrong thing",
        seen_in=("openraft 43dd8b6f", "redisraft aborted reads"),
        story=(
            "Leadership is lost while requests wait. Some clients never heard again, others heard "
            "that their write had failed although the next leader committed it. The answer is that "
            "the outcome is unknown, and the same serial, asked again, finds out without doing "
            "anything twice."
        ),
        shown_by=(
            SCRIPTS
            + "test_066_no_client_waits_for_ever_and_none_hears_failed_for_what_is_done_later",
            SESSIONS + "test_a_write_of_unknown_outcome_that_was_kept_is_not_done_again",
            SESSIONS
            + "test_a_write_that_the_old_leader_alone_had_is_dropped_and_can_be_sent_again",
        ),
    ),
    Exhibit(
        number=67,
        title="Counters of what is under way leaked until nothing was accepted",
        seen_in=("etcd-io/raft a370b6f", "etcd-io/raft e419ba5"),
        story=(
            "The size of uncommitted entries was added up and not given back when leadership "
            "changed or entries were overwritten; in the end every proposal was refused. What is "
            "counted belongs to one leadership and is given back with the commit, and a window of "
            "requests that were lost is emptied."
        ),
        shown_by=(
            SCRIPTS + "test_067_proposals_are_taken_again_after_any_number_of_lost_leaderships",
            SCRIPTS + "test_067_a_window_that_was_lost_with_its_link_opens_again",
            PAPER + "test_uncommitted_bytes_are_given_back",
            PAPER + "test_what_a_predecessor_left_does_not_count_as_this_leaders_proposals",
            "core/test_progress.py::test_a_refusal_empties_the_window",
        ),
    ),
    Exhibit(
        number=68,
        title="An entry was appended whose term was older than that before it",
        seen_in=("etcd-io/raft 0b198cf",),
        story=(
            "A log came to hold an entry of a lower term after one of a higher term, on which the "
            "comparison of logs and the search for conflicts both depend. Such entries are refused "
            "by the follower and by its disk, and a leader's term is above that of all it has."
        ),
        shown_by=(
            SCRIPTS + "test_068_terms_never_fall_within_a_log",
            "core/test_odd_messages.py::test_entries_with_gaps_or_falling_terms_are_not_stored",
            "storage/test_wal.py::test_entries_that_do_not_fit_are_never_written",
        ),
    ),
)
