"""Exhibits 75 to 85: storage."""

from __future__ import annotations

from tests.museum.catalogue import Exhibit

SCRIPTS = "museum/test_storage.py::"
SNAPSHOTS = "museum/test_snapshot_storage.py::"
WAL = "storage/test_wal.py::"
IDENTITY = "storage/test_identity.py::"
DURABILITY = "node/test_durability.py::"

STORAGE: tuple[Exhibit, ...] = (
    Exhibit(
        number=75,
        title="A sync that failed was tried again and succeeded over a hole",
        seen_in=(
            "cockroach #37102",
            "rostam #94",
            "rostam #95",
            "yugabyte #33816",
            "raft-wal #32",
        ),
        story=(
            "One sync fails; the kernel drops the pages and calls them clean, so that the next "
            "sync succeeds. The entry was acknowledged, or the vote was given, and was gone after "
            "a power failure. After one failure the log takes nothing more, the server answers "
            "nothing more, and only a new start that reads the disk goes on."
        ),
        shown_by=(
            SCRIPTS
            + "test_075_after_one_failure_the_disk_is_not_asked_again_and_nothing_is_answered",
            SCRIPTS + "test_075_a_vote_that_the_disk_refused_is_not_given_and_not_remembered",
            WAL + "test_after_a_fault_the_log_refuses_all_further_use",
            WAL + "test_what_a_failed_sync_left_in_the_cache_is_durable_once_it_was_recovered",
            "node/test_daemon.py::"
            "test_a_write_that_the_disk_does_not_take_ends_a_running_process_with_74",
        ),
    ),
    Exhibit(
        number=76,
        title="A torn tail stopped the start, or damage was cut off like one",
        seen_in=(
            "etcd #5230",
            "etcd #6378",
            "pebble #453",
            "samyama #1335",
            "mysticeti #219",
            "malachite #1594",
        ),
        story=(
            "A crash leaves the last record short, incomplete or zero, and some refused to start "
            "over it; others met a bad record before good ones, or in a closed segment, and cut "
            "off committed entries without a word. What one crash can have done to the batch that "
            "was never synced is cut; everything else is refused, also a last batch that was "
            "wholly written and is wrong, which no crash leaves."
        ),
        shown_by=(
            SCRIPTS + "test_076_only_what_a_crash_can_have_torn_is_cut_and_the_rest_is_refused",
            WAL + "test_a_last_batch_that_the_file_cuts_off_at_any_byte_is_forgotten",
            WAL + "test_a_last_batch_that_was_written_up_to_any_byte_is_forgotten",
            WAL + "test_a_last_batch_of_which_any_sectors_are_missing_is_forgotten",
            WAL + "test_a_bad_batch_before_a_good_one_is_damage_and_says_what_is_lost",
            WAL + "test_a_torn_batch_in_a_closed_segment_is_damage",
        ),
    ),
    Exhibit(
        number=77,
        title="New records were appended after garbage",
        seen_in=("amelie #17",),
        story=(
            "Recovery stops at a torn record and leaves it in the file; new records follow it and "
            "are acknowledged. The next start stops at the same place and does not see them. The "
            "torn tail is cut, durably, before the first append."
        ),
        shown_by=(
            SCRIPTS + "test_077_what_is_appended_after_a_torn_tail_is_found_by_every_later_start",
            SCRIPTS + "test_077_a_torn_tail_longer_than_what_is_written_ahead_is_cut_as_well",
            WAL + "test_torn_tail_is_cut_durably_before_the_first_append",
            WAL + "test_appends_after_a_cut_are_read_back",
        ),
    ),
    Exhibit(
        number=78,
        title="A file was renamed and its directory was never synced",
        seen_in=(
            "hashicorp #229",
            "redisraft #548",
            "etcd #22314",
            "ClickHouse #111339",
            "braft #254",
        ),
        story=(
            "A snapshot gets its final name, the log that it replaces is deleted, and the power "
            "fails before the directory was synced: neither is there. The same loses a new "
            "segment, or a directory below one that was just made. File, name, directory and its "
            "parents are synced before anything relies on them."
        ),
        shown_by=(
            SNAPSHOTS
            + "test_078_a_snapshot_has_its_name_for_good_before_the_log_that_it_replaces_goes",
            SCRIPTS + "test_078_a_published_file_and_all_directories_above_it_survive",
            SCRIPTS + "test_078_a_new_data_directory_is_there_as_soon_as_its_server_answers",
            SCRIPTS + "test_078_the_next_segment_is_there_before_anything_is_in_it",
            SCRIPTS + "test_078_an_identity_is_the_old_one_or_the_new_one_whenever_the_power_fails",
            WAL + "test_a_power_failure_at_any_call_loses_nothing_acknowledged_and_tears_nothing",
            IDENTITY + "test_a_crash_at_any_call_of_the_first_start_leaves_a_directory_that_starts",
        ),
    ),
    Exhibit(
        number=79,
        title="An installed snapshot kept a log that contradicts it",
        seen_in=("openraft #559", "hashicorp #704", "NuRaft #407"),
        story=(
            "A follower has entries 1 to 12 of other terms and installs a snapshot that ends at "
            "10. Its own entries stayed, entry 10 with the wrong term among them, and the leader "
            "sent snapshots without end. The log is kept only if it has the last entry of the "
            "snapshot with its term."
        ),
        shown_by=(
            "museum/test_snapshot_protocol.py::"
            "test_079_a_log_that_contradicts_the_snapshot_is_dropped_and_one_snapshot_is_enough",
            SNAPSHOTS + "test_079_a_start_between_the_snapshot_and_the_log_drops_what_contradicts",
            "core/test_snapshots.py::test_the_whole_log_is_dropped_if_it_has_another_entry_there",
        ),
    ),
    Exhibit(
        number=80,
        title="An old snapshot shortened a newer log",
        seen_in=("camunda #6092",),
        story=(
            "A follower has a log up to 120 and is sent the snapshot of entry 100 once more. It "
            "deleted 101 to 120, which it had acknowledged. A snapshot that ends below what is "
            "there takes nothing away."
        ),
        shown_by=(
            "museum/test_snapshot_protocol.py::"
            "test_080_an_older_snapshot_takes_nothing_from_a_newer_log",
            "museum/test_snapshot_protocol.py::"
            "test_080_what_was_acknowledged_while_the_snapshot_came_in_stays",
            "museum/test_snapshot_protocol.py::"
            "test_080_of_what_stays_behind_a_snapshot_only_its_own_index_is_acknowledged",
            SNAPSHOTS + "test_080_a_log_that_reaches_further_is_kept_on_the_disk_as_well",
            SNAPSHOTS + "test_080_entries_that_came_while_the_snapshot_was_worked_in_stay",
        ),
    ),
    Exhibit(
        number=81,
        title="A snapshot was taken while another one was being installed",
        seen_in=("hashicorp #248", "openraft eed681d5", "NuRaft #479"),
        story=(
            "A server takes a snapshot of its own while it installs a newer one of the leader, and "
            "the older one ends last. The index of the last snapshot, and what was applied, went "
            "back. Both have to go one after the other, and the older one is thrown away."
        ),
        shown_by=(
            SNAPSHOTS
            + "test_081_of_a_snapshot_that_is_taken_and_one_that_is_installed_the_newer_one_stays",
            "core/test_snapshots.py::test_an_older_snapshot_never_takes_the_place_of_a_newer_one",
            "mutants/test_snapshot_killers.py"
            "::test_a_snapshot_that_was_overtaken_by_an_installed_one_is_not_published",
        ),
    ),
    Exhibit(
        number=82,
        title="A crash between the snapshot and the cut of the log",
        seen_in=("redisraft #43", "redisraft #654", "openraft #1892"),
        story=(
            "After a crash there is a gap between the end of the snapshot and the first entry of "
            "the log, or a snapshot of 0 bytes. The server gave up, or loaded an empty state. A "
            "snapshot is published whole or not at all, and a start tolerates an overlap and "
            "refuses a gap."
        ),
        shown_by=(
            SNAPSHOTS
            + "test_082_a_crash_between_the_snapshot_and_the_log_leaves_a_server_that_starts",
            SNAPSHOTS + "test_082_a_gap_and_a_file_of_no_bytes_are_refused",
            SNAPSHOTS + "test_082_half_of_a_temporary_is_thrown_away",
            WAL + "test_a_missing_segment_is_refused_wherever_it_was",
            IDENTITY
            + "test_a_crash_at_any_call_of_a_publication_leaves_the_old_identity_or_the_new",
        ),
    ),
    Exhibit(
        number=83,
        title="A full disk left memory ahead of what was stored",
        seen_in=("redpanda #7407", "camunda #27852", "canonical #470", "braft #200"),
        story=(
            "The disk has no room for a term and a vote, or for all of an entry. The term was in "
            "force in memory all the same, the restart went back to the older one and voted again; "
            "or half an entry counted. Nothing is promised before it is on disk, the process "
            "stops, and the next start goes on from what the disk took whole."
        ),
        shown_by=(SCRIPTS + "test_083_a_full_disk_takes_nothing_back_that_was_promised",),
    ),
    Exhibit(
        number=84,
        title="Compaction dropped entries that no snapshot had",
        seen_in=("etcd #13766", "etcd #17780", "openraft 1a781e1b"),
        story=(
            "The log was cut further than the snapshot reached, and committed entries were in "
            "neither. A snapshot has to hold everything that was cut off, before it is cut off."
        ),
        shown_by=(
            SNAPSHOTS + "test_084_nothing_is_dropped_that_the_newest_snapshot_does_not_have",
            "core/test_snapshot_keeping.py::test_compaction_goes_no_further_than_the_snapshot",
        ),
    ),
    Exhibit(
        number=85,
        title="A flipped bit was accepted, or brought the server down",
        seen_in=("redisraft a8aa6dc",),
        story=(
            "Every byte of the file of a log is changed in turn and the log is opened. Some "
            "changes crashed the server, some were taken for data. Each single bit, in the "
            "batches, in the gaps and in the zeros after them, is noticed and refused in words."
        ),
        shown_by=(
            WAL + "test_every_flipped_bit_of_a_synced_log_is_noticed",
            WAL + "test_every_flipped_bit_of_a_last_batch_with_faint_sectors_is_noticed",
            WAL + "test_a_flipped_bit_in_the_gap_before_a_batch_is_noticed",
            WAL + "test_a_lone_bit_anywhere_in_the_zeros_after_the_last_batch_is_noticed",
            IDENTITY + "test_every_flipped_bit_of_the_identity_is_noticed",
        ),
    ),
)
