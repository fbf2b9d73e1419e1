"""Mutants of snapshots on the disk: files, the shortened log, the live database, recovery."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

COMPACTION = "raftd/compaction.py"
RECOVERY = "raftd/recovery.py"
SNAPSHOTS = "raftd/storage/snapshots.py"
SNAPSHOT_FILE = "raftd/storage/snapshot_file.py"
WORKER = "raftd/storage/worker.py"
BACKGROUND = "raftd/background.py"
LIVE = "raftd/storage/live.py"
LMDB = "raftd/storage/lmdb_store.py"
MAP_ROOM = "raftd/storage/map_room.py"
WAL = "raftd/storage/wal.py"
WAL_RECOVERY = "raftd/storage/wal_recovery.py"
TAKING = "tests/node/test_snapshots.py"
INSTALLING = "tests/node/test_installing.py"
CRASHES = "tests/node/test_snapshot_crashes.py"
DIRECTORY_TESTS = "tests/storage/test_snapshots.py"
FILE_TESTS = "tests/storage/test_snapshot_file.py"
LIVE_TESTS = "tests/storage/test_live.py"
MAP_ROOM_TESTS = "tests/storage/test_map_room.py"
FORGETTING = "tests/storage/test_wal_forgetting.py"
MUSEUM = "tests/museum/test_snapshot_storage.py"
KILLERS = "tests/mutants/test_snapshot_killers.py"
RECOVERY_TESTS = "tests/storage/test_recovery.py"
BACKGROUND_TESTS = "tests/test_background.py"

DATABASE = "In the simulator the state lives in memory."
IN_BACKGROUND = "The simulator does the work of the background itself."
INSTALLED_BY_HAND = "No simulated disk gets a part of it back from a copy."

MUTANTS = (
    # --- the driver: taking, and shortening the log ---
    Mutant(
        name="log-shortened-before-the-snapshot-is-published",
        why="After a crash entries are neither in the log nor in a snapshot.",
        file=COMPACTION,
        old="        self._is_taking = True\n",
        new="        self._is_taking = not self._log.compact(raft.log.handed_index)\n",
        test=f"{MUSEUM}::test_084_nothing_is_dropped_that_the_newest_snapshot_does_not_have",
    ),
    Mutant(
        name="log-shortened-beyond-the-snapshot",
        why="What was applied while it was written is neither in the log nor in the snapshot.",
        file=COMPACTION,
        old="self._compact_to = self._compactable(raft, snapshot.id.last_included_index)\n\n"
        "    def _compact_some",
        new="self._compact_to = self._compactable(raft, raft.log.handed_index)\n\n"
        "    def _compact_some",
        test=f"{MUSEUM}::test_084_nothing_is_dropped_that_the_newest_snapshot_does_not_have",
    ),
    Mutant(
        name="no-tail-of-the-log-kept",
        why="A follower that was away for a moment is sent the whole state.",
        file=COMPACTION,
        old="        index = log.index_before(last_included, tail_bytes)\n",
        new="        index = last_included\n",
        test=f"{TAKING}::test_the_log_shrinks_in_memory_and_on_the_disk_and_keeps_its_tail",
    ),
    Mutant(
        name="log-shortened-under-a-running-catch-up",
        why="A server that catches up by entries is sent the whole state, again and again.",
        file=COMPACTION,
        old="            needed_after = raft.role.needed_after()\n",
        new="            needed_after = last_included\n",
        test=f"{TAKING}::test_what_a_running_catch_up_needs_is_kept",
    ),
    Mutant(
        name="log-kept-without-bound-for-a-slow-server",
        why="One server that stands still lets the log of the leader grow.",
        file=COMPACTION,
        old="index = min(index, max(needed_after, log.index_before(last_included, "
        "kept_bytes_max)))",
        new="index = min(index, needed_after)",
        test=f"{TAKING}"
        "::test_for_a_server_that_stands_still_no_more_than_four_times_the_size_is_kept",
    ),
    Mutant(
        name="log-grows-with-a-large-state-without-bound",
        why="A restart reads as much log as there is state.",
        file=COMPACTION,
        old="min(newest_bytes, log_bytes_max)",
        new="newest_bytes",
        test=f"{TAKING}"
        "::test_a_large_state_lets_the_log_grow_by_its_own_size_but_by_no_more_than_four_times",
    ),
    Mutant(
        name="snapshot-taken-without-room-for-it",
        why="A snapshot fills the disk, and the process stops.",
        file=COMPACTION,
        old="        if free_bytes < needed_bytes:\n            self._later",
        new="        if False:\n            self._later",
        test=f"{TAKING}::test_a_snapshot_waits_for_room_on_the_disk_and_status_says_so",
    ),
    Mutant(
        name="two-snapshots-taken-at-once",
        why="Each copies the whole state, and the older one may end last.",
        file=COMPACTION,
        old="        if self._is_taking or raft.now < self._retry_tick:\n",
        new="        if raft.now < self._retry_tick:\n",
        test=f"{TAKING}::test_while_one_is_written_no_other_one_is_begun",
    ),
    # --- the driver: receiving ---
    Mutant(
        name="log-reset-before-its-snapshot-is-there",
        why="After a crash in between there is neither a log nor a snapshot.",
        file=COMPACTION,
        old="        store = self._snapshots.install(snapshot)\n",
        new="        store = self._log.reset(index, term) or self._snapshots.install(snapshot)\n",
        test=f"{MUSEUM}"
        "::test_082_a_crash_between_the_snapshot_and_the_log_leaves_a_server_that_starts",
    ),
    Mutant(
        name="acknowledged-entries-on-the-disk-dropped-by-an-install",
        why="They are in memory and acknowledged, and a restart does not find them.",
        file=COMPACTION,
        old="        if raft.log.durable_index > index:\n",
        new="        if False:\n",
        test=f"{MUSEUM}::test_080_entries_that_came_while_the_snapshot_was_worked_in_stay",
    ),
    Mutant(
        name="snapshot-that-was-given-up-put-in-force",
        why="A snapshot that was built before a newer one began is taken for that.",
        file=COMPACTION,
        old="        if not self._snapshots.is_received(item.snapshot.id):\n",
        new="        if False:\n",
        test=f"{KILLERS}::test_a_snapshot_that_was_given_up_after_it_was_built_is_not_installed",
    ),
    Mutant(
        name="snapshot-that-is-needed-no-more-kept",
        why="A file as large as the state stays for ever, and a later start takes it up again.",
        file=COMPACTION,
        old="            self._snapshots.drop_received()\n",
        new="            pass\n",
        test=f"{INSTALLING}::test_a_snapshot_that_became_unnecessary_is_dropped",
    ),
    Mutant(
        name="snapshot-received-without-room-for-it",
        why="The state of the leader fills the disk of a follower, and its process stops.",
        file=COMPACTION,
        old="if here_bytes < message.snapshot.size_bytes and free_bytes < needed_bytes:\n",
        new="if False:\n",
        test=f"{INSTALLING}::test_without_room_for_it_nothing_is_stored_and_status_says_why",
    ),
    Mutant(
        name="removal-that-came-by-snapshot-not-noticed",
        why="A server that was removed for good goes on for ever.",
        file="raftd/node.py",
        old="        if removed_index is not None:\n            self._on_removed(removed_index)\n"
        "        self._reading.applied()",
        new="        if False:\n            self._on_removed(removed_index)\n"
        "        self._reading.applied()",
        test=f"{INSTALLING}"
        "::test_a_removed_server_that_hears_of_it_only_by_a_snapshot_ends_with_70",
    ),
    Mutant(
        name="reads-not-answered-by-a-snapshot",
        why="A read that waits for an entry waits for ever if a snapshot brings it.",
        file="raftd/node.py",
        old="            self._on_removed(removed_index)\n        self._reading.applied()\n",
        new="            self._on_removed(removed_index)\n",
        test=f"{INSTALLING}"
        "::test_a_read_that_waits_for_an_index_is_answered_when_a_snapshot_brings_it",
    ),
    # --- recovery ---
    Mutant(
        name="log-without-the-end-of-the-snapshot-kept",
        why="After a crash in an install the old log goes on over the new snapshot.",
        file=RECOVERY,
        old="if snapshot is not None and not _has_end_of(snapshot, entries, base_index, "
        "base_term):",
        new="if False:",
        test=f"{MUSEUM}::test_079_a_start_between_the_snapshot_and_the_log_drops_what_contradicts",
    ),
    Mutant(
        name="log-with-another-entry-at-the-end-of-the-snapshot-kept",
        why="After a crash in an install the old log goes on over the new snapshot.",
        file=RECOVERY,
        old="return 0 <= offset < len(entries) and entries[offset].term == term",
        new="return 0 <= offset < len(entries)",
        test=f"{MUSEUM}::test_079_a_start_between_the_snapshot_and_the_log_drops_what_contradicts",
    ),
    Mutant(
        name="longer-log-dropped-by-a-start",
        why="Acknowledged entries behind a snapshot are gone after every restart.",
        file=RECOVERY,
        old="return 0 <= offset < len(entries) and entries[offset].term == term",
        new="return False",
        test=f"{MUSEUM}::test_080_a_log_that_reaches_further_is_kept_on_the_disk_as_well",
    ),
    Mutant(
        name="gap-between-snapshot-and-log-accepted",
        why="The server goes on without entries that it had acknowledged.",
        file=WAL_RECOVERY,
        old="        if self._snapshot_index is not None and base_index > self._snapshot_index:\n",
        new="        if False:\n",
        test=f"{FORGETTING}::test_a_gap_between_snapshot_and_log_is_refused_and_nothing_is_changed",
    ),
    Mutant(
        name="state-behind-the-log-used",
        why="Entries between the state and the log are never applied.",
        file=RECOVERY,
        old="        if is_known and applied_term == log.term_at(applied_index):\n",
        new="        if True:\n",
        test=f"{KILLERS}::test_a_state_that_the_log_does_not_go_on_from_is_built_again",
        unreachable=DATABASE,
    ),
    Mutant(
        name="state-ahead-of-the-log-used",
        why="That acknowledged entries are lost is passed over.",
        file=RECOVERY,
        old="        if applied_index > log.last_index:\n",
        new="        if False:\n",
        test=f"{KILLERS}::test_a_state_that_has_more_than_the_log_is_refused",
        unreachable=DATABASE,
    ),
    Mutant(
        name="build-of-a-damaged-snapshot-hides-what-is-lost",
        why="The operator is told to start again, and nothing gets better by it.",
        file=RECOVERY,
        old="            corrupt.path, corrupt.offset, corrupt.reason, last_lost_index\n",
        new="            corrupt.path, corrupt.offset, corrupt.reason\n",
        test=f"{KILLERS}::test_a_snapshot_that_is_damaged_in_the_middle_says_what_is_lost",
        unreachable=DATABASE,
    ),
    # --- the directory of snapshots ---
    Mutant(
        name="published-snapshot-not-synced-by-name",
        why="After a power failure neither the snapshot nor the log before it is there.",
        file=SNAPSHOTS,
        old="        self._files.rename(source, path)\n"
        "        self._files.sync_directory(self._path)\n",
        new="        self._files.rename(source, path)\n",
        test=f"{MUSEUM}"
        "::test_078_a_snapshot_has_its_name_for_good_before_the_log_that_it_replaces_goes",
    ),
    Mutant(
        name="name-of-a-snapshot-that-is-found-not-synced",
        why="A start goes on from a snapshot that the next power failure takes away.",
        file=SNAPSHOTS,
        old="        self._files.sync_directory(self._path)\n        self._resume_receiving()\n",
        new="        self._resume_receiving()\n",
        test=f"{DIRECTORY_TESTS}"
        "::test_a_published_file_whose_name_was_not_synced_is_durable_once_it_is_found",
    ),
    Mutant(
        name="bytes-of-a-snapshot-not-synced",
        why="After a power failure the name is there and the content is not.",
        file=WORKER,
        old="        id = writer.finish()\n        file.sync()\n",
        new="        id = writer.finish()\n",
        test=f"{MUSEUM}"
        "::test_078_a_snapshot_has_its_name_for_good_before_the_log_that_it_replaces_goes",
    ),
    Mutant(
        name="damaged-newest-snapshot-passed-over",
        why="The server goes back to an older state, whose log is gone.",
        file=SNAPSHOTS,
        old="            newest = self._read_newest(published[0])\n",
        new="            newest = self._read_newest(published[-1])\n",
        test=f"{DIRECTORY_TESTS}"
        "::test_a_damaged_newest_snapshot_is_refused_even_if_there_is_an_older_one",
    ),
    Mutant(
        name="part-after-a-gap-stored",
        why="A snapshot of the right length has a hole.",
        file=SNAPSHOTS,
        old="        if self._unchecked is None and offset <= self.received_bytes:\n",
        new="        if self._unchecked is None:\n",
        test=f"{DIRECTORY_TESTS}::test_parts_that_are_lost_doubled_or_late_do_no_harm",
    ),
    Mutant(
        name="more-stored-than-the-snapshot-has",
        why="A peer that sends without end fills the disk.",
        file=SNAPSHOTS,
        old="content[self.received_bytes - offset : self.id.size_bytes - offset]",
        new="content[self.received_bytes - offset :]",
        test=f"{DIRECTORY_TESTS}::test_nothing_is_taken_beyond_the_size",
    ),
    Mutant(
        name="received-beginning-not-written-again",
        why="It is only in the kernel's cache, after a sync that failed, and is believed durable.",
        file=SNAPSHOTS,
        old="                self._file.write(record, self.received_bytes)\n",
        new="",
        test=f"{DIRECTORY_TESTS}"
        "::test_what_a_failed_sync_may_have_lost_is_written_again_after_a_restart",
    ),
    Mutant(
        name="parts-stored-while-the-beginning-is-checked",
        why="Two threads write the same file, and count each other's bytes.",
        file=SNAPSHOTS,
        old="        if self._unchecked is None and offset <= self.received_bytes:\n",
        new="        if offset <= self.received_bytes:\n",
        test=f"{DIRECTORY_TESTS}"
        "::test_while_it_is_checked_nothing_is_taken_in_and_nothing_more_is_promised_than_there_is",
    ),
    Mutant(
        name="unchecked-end-promised",
        why="The leader is told of bytes that are taken back: it takes its snapshot for damaged.",
        file=SNAPSHOTS,
        old="return max(0, self._found_bytes - RECORD_HEADER.size - RECORD_BODY_BYTES_MAX)",
        new="return self._found_bytes",
        test=f"{DIRECTORY_TESTS}"
        "::test_while_it_is_checked_nothing_is_taken_in_and_nothing_more_is_promised_than_there_is",
    ),
    Mutant(
        name="state-built-from-what-is-not-checked",
        why="A snapshot is published whose pages a failed sync has lost.",
        file=BACKGROUND,
        old="        if snapshot is None or self._directory.is_checking:\n",
        new="        if snapshot is None:\n",
        test=f"{BACKGROUND_TESTS}"
        "::test_what_was_received_before_a_start_is_checked_while_the_server_works",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="older-unfinished-snapshot-gone-on-with",
        why="A snapshot that is older than the newest one is published over it.",
        file=SNAPSHOTS,
        old="        if found and self._is_newer(found[-1][0]):\n",
        new="        if found:\n",
        test=f"{DIRECTORY_TESTS}::test_after_a_restart_only_a_newer_unfinished_snapshot_is_kept",
    ),
    Mutant(
        name="file-that-was-not-announced-published",
        why="What a leader sent under a wrong name takes the place of the state.",
        file=SNAPSHOTS,
        old="        if snapshot.id != id:\n",
        new="        if False:\n",
        test=f"{DIRECTORY_TESTS}::test_a_file_that_is_not_what_was_announced_is_not_published",
    ),
    Mutant(
        name="what-arrives-during-a-sync-taken-for-synced",
        why="A snapshot is published whose end is in the cache alone.",
        file=SNAPSHOTS,
        old="                self.synced_bytes = received_bytes\n",
        new="                self.synced_bytes = self.received_bytes\n",
        test=f"{DIRECTORY_TESTS}::test_what_arrives_during_a_sync_is_not_taken_for_synced",
    ),
    Mutant(
        name="old-snapshot-forgotten-while-it-is-read",
        why="A transfer ends in the middle because the leader has taken the next one.",
        file=SNAPSHOTS,
        old="            if id not in keep and (self.latest",
        new="            if (self.latest",
        test=f"{DIRECTORY_TESTS}::test_old_snapshots_stay_readable_until_they_are_forgotten",
    ),
    Mutant(
        name="older-snapshot-of-its-own-published-over-an-installed-one",
        why="The last snapshot goes back to before the beginning of the log.",
        file="raftd/storage/snapshots.py",
        old="        if self._is_newer(snapshot.id):\n            return self._publish(temporary",
        new="        if True:\n            return self._publish(temporary",
        test=f"{KILLERS}::test_a_snapshot_that_was_overtaken_by_an_installed_one_is_not_published",
        unreachable=IN_BACKGROUND,
    ),
    # --- the file of a snapshot ---
    Mutant(
        name="digest-of-a-snapshot-not-compared",
        why="Records that are good by themselves and not those that were written are loaded.",
        file=SNAPSHOT_FILE,
        old="        if digest.hexdigest() != self.id.checksum:\n",
        new="        if False:\n",
        test=f"{FILE_TESTS}"
        "::test_a_record_that_is_good_by_itself_and_not_what_was_written_is_noticed",
    ),
    Mutant(
        name="length-in-the-tail-not-compared",
        why="A file with a part too much or too little is published.",
        file=SNAPSHOT_FILE,
        old="    if bytes_before != tail_offset:\n",
        new="    if False:\n",
        test=f"{FILE_TESTS}::test_bytes_behind_the_tail_are_noticed_without_reading_the_pairs",
    ),
    Mutant(
        name="number-of-pairs-not-compared",
        why="A file without some of its pairs is taken for whole, and reported so.",
        file=SNAPSHOT_FILE,
        old="        if pair_count != self.pair_count:\n",
        new="        if False:\n",
        test=f"{FILE_TESTS}::test_records_that_are_missing_doubled_or_moved_are_noticed",
    ),
    Mutant(
        name="index-of-a-snapshot-not-that-of-its-content",
        why="An entry is applied a second time after the snapshot is loaded.",
        file=SNAPSHOT_FILE,
        old="        last_included_index=state.applied_index,\n",
        new="        last_included_index=max(state.applied_index - 1, 1),\n",
        test=f"{MUSEUM}::test_090_a_snapshot_holds_exactly_the_entries_up_to_its_index",
    ),
    Mutant(
        name="end-of-a-block-depends-on-how-it-was-handed-over",
        why="Equal states have different files, and a transfer cannot go on elsewhere.",
        file=SNAPSHOT_FILE,
        old="before + BLOCK_BYTES - self._pending_bytes, first)",
        new="before + BLOCK_BYTES, first)",
        test=f"{FILE_TESTS}::test_what_was_written_is_read_however_it_was_handed_over",
    ),
    Mutant(
        name="head-and-pairs-of-two-moments",
        why="A snapshot says another index than that of what it holds.",
        file=WORKER,
        old="        with store.view():\n            head = ",
        new="        if store:\n            head = ",
        test="tests/storage/test_worker.py"
        "::test_the_head_of_a_snapshot_is_of_the_same_moment_as_its_pairs",
        unreachable=DATABASE,
    ),
    # --- the live database ---
    Mutant(
        name="unproven-database-used",
        why="After a loss of power a torn database is used.",
        file=LIVE,
        old="        if self._is_proven():\n",
        new="        if True:\n",
        test=f"{LIVE_TESTS}::test_a_database_is_not_used_again_after_the_power_failed",
        unreachable=DATABASE,
    ),
    Mutant(
        name="proof-written-after-the-first-write",
        why="After a loss of power a torn database has no proof against it, or an old one for it.",
        file=LIVE,
        old="        self._write_boot_proof(self.live_path)\n"
        "        self._files.sync_directory(self.directory)\n",
        new="        self._files.sync_directory(self.directory)\n",
        test=f"{LIVE_TESTS}::test_the_boot_id_is_durable_before_the_first_write",
        unreachable=DATABASE,
    ),
    Mutant(
        name="mark-of-a-clean-stop-kept-while-in-use",
        why="After a loss of power a torn database is taken for one that was closed cleanly.",
        file=LIVE,
        old="            self._write_boot_proof(self.live_path)\n            with suppress",
        new="            with suppress",
        test=f"{LIVE_TESTS}::test_the_mark_of_a_clean_stop_is_used_up_by_the_next_start",
        unreachable=DATABASE,
    ),
    Mutant(
        name="boot-id-not-compared",
        why="After a loss of power a torn database is used.",
        file=LIVE,
        old='            "boot_id": self._boot_id(),\n',
        new='            "boot_id": "this one" if self._boot_id() else "",\n',
        test=f"{LIVE_TESTS}::test_a_database_is_not_used_again_after_the_power_failed",
        unreachable=DATABASE,
    ),
    Mutant(
        name="empty-boot-id-proves",
        why="Where the kernel has no name for a boot, a torn database is used.",
        file=LIVE,
        old='            return bool(proof["boot_id"])\n',
        new="            return True\n",
        test=f"{LIVE_TESTS}::test_an_empty_boot_id_proves_nothing",
        unreachable=DATABASE,
    ),
    Mutant(
        name="copy-of-a-running-database-believed",
        why="A copy that was made while pages were written is used.",
        file=LIVE,
        old='            "inode": status.st_ino,\n',
        new='            "inode": 0,\n',
        test=f"{LIVE_TESTS}::test_a_copy_made_while_the_server_ran_proves_nothing",
        unreachable=DATABASE,
    ),
    Mutant(
        name="clean-stop-without-a-sync",
        why="The mark is durable and the database is not.",
        file=LIVE,
        old="        store.sync()\n        store.close()\n",
        new="        store.close()\n",
        test=f"{LIVE_TESTS}::test_a_clean_stop_syncs_and_closes_before_it_says_so",
        unreachable=DATABASE,
    ),
    Mutant(
        name="distrusted-database-marked-clean",
        why="A state that is known to be wrong is used again.",
        file=LIVE,
        old="        if self._is_trusted:\n",
        new="        if True:\n",
        test=f"{LIVE_TESTS}::test_a_distrusted_database_is_not_used_again_even_after_a_clean_stop",
        unreachable=DATABASE,
    ),
    Mutant(
        name="half-of-a-batch-stays-in-the-database",
        why="A command that cannot be applied leaves the ones before it in the state.",
        file=LMDB,
        old="commit=exception_type is None",
        new="commit=True",
        test="tests/storage/test_store.py::test_nothing_of_a_transaction_that_raises_is_visible",
        unreachable=DATABASE,
    ),
    Mutant(
        name="cut-database-made-as-long-as-its-map",
        why="The pages that are missing are read as zeros.",
        file=LMDB,
        old="    if size_bytes < needed_bytes:\n",
        new="    if False:\n",
        test=f"{LIVE_TESTS}::test_a_database_that_was_cut_is_not_used",
        unreachable=DATABASE,
    ),
    Mutant(
        name="written-through-the-map-beyond-the-file",
        why="The process is ended by SIGBUS in the middle of a transaction.",
        file=LMDB,
        old="            self._room.put(len(value))\n",
        new="            self._room.put(0)\n",
        test=f"{MAP_ROOM_TESTS}::test_no_page_is_written_that_is_not_there",
        unreachable=DATABASE,
    ),
    Mutant(
        name="room-for-pages-not-allocated",
        why="On a full disk the process is ended by SIGBUS in the middle of a transaction.",
        file=MAP_ROOM,
        old="            os.posix_fallocate(self._descriptor, self._end_bytes, "
        "end_bytes - self._end_bytes)\n",
        new="            os.ftruncate(self._descriptor, end_bytes)\n",
        test=f"{MAP_ROOM_TESTS}::test_room_is_allocated_and_not_only_in_the_length_of_the_file",
        unreachable=DATABASE,
    ),
    Mutant(
        name="holes-of-an-old-database-left-as-they-are",
        why="A free page that was never written has no place on the disk, which may be full.",
        file=MAP_ROOM,
        old="        self._end_bytes = 0\n",
        new="        self._end_bytes = self._used_bytes()\n",
        test=f"{MAP_ROOM_TESTS}::test_holes_of_an_old_file_are_filled_before_it_is_written",
        unreachable=DATABASE,
    ),
    Mutant(
        name="room-for-copied-leaves-not-reckoned-with",
        why="A transaction that changes pages all over the tree comes to the end of the file.",
        file=MAP_ROOM,
        old="        leaves = min(",
        new="        leaves = 0 * min(",
        test=f"{MAP_ROOM_TESTS}::test_no_page_is_written_that_is_not_there",
        unreachable=DATABASE,
    ),
    Mutant(
        name="room-wanted-that-is-not-needed",
        why="A server stops although its disk has room for what it does.",
        file=MAP_ROOM,
        old="            self._allocate(needed_bytes)\n",
        new="            raise\n",
        test=f"{MAP_ROOM_TESTS}::"
        "test_the_last_room_of_a_disk_is_used_although_it_is_less_than_a_step",
        unreachable=DATABASE,
    ),
    # --- the log ---
    Mutant(
        name="segment-given-up-that-no-snapshot-has",
        why="Entries are in no file any more.",
        file=WAL,
        old="if first.after_index <= keep_after and first.after_index < lowest_index:",
        new="if first.after_index < lowest_index:",
        test=f"{FORGETTING}"
        "::test_compaction_gives_up_the_closed_segments_that_a_snapshot_has_whole",
    ),
    Mutant(
        name="log-begins-with-a-batch-that-replaces-its-base",
        why="It is not known what the first entries follow.",
        file=WAL,
        old="if first.after_index <= keep_after and first.after_index < lowest_index:",
        new="if first.after_index <= keep_after:",
        test=f"{FORGETTING}"
        "::test_a_segment_never_becomes_the_first_if_its_own_batches_go_back_behind_its_beginning",
    ),
    Mutant(
        name="later-batch-that-replaces-the-base-overlooked",
        why="It is not known what its entries follow.",
        file=WAL,
        old="                lowest_index = min(lowest_index, first.lowest_index)\n",
        new="                lowest_index = first.lowest_index\n",
        test=f"{FORGETTING}"
        "::test_one_more_segment_is_kept_if_a_later_batch_goes_back_behind_its_beginning",
    ),
    Mutant(
        name="reset-shares-a-segment-with-what-it-drops",
        why="What was dropped stays on the disk as long as what follows it.",
        file=WAL,
        old="            self._begin_segment()\n        return self._give_up",
        new="            pass\n        return self._give_up",
        test=f"{FORGETTING}::test_a_reset_drops_all_entries_and_keeps_term_and_vote",
    ),
    Mutant(
        name="entries-come-back-behind-a-reset",
        why="A restart finds what a snapshot had taken the place of.",
        file=WAL_RECOVERY,
        old="            self.entries.clear()\n            # All that follows",
        new="            # All that follows",
        test=f"{FORGETTING}::test_a_reset_drops_all_entries_and_keeps_term_and_vote",
    ),
    Mutant(
        name="base-of-a-shortened-log-not-moved-by-what-replaces-it",
        why="A log that is whole does not start, or starts after another entry.",
        file=WAL_RECOVERY,
        old="        if self._base_may_move and entries and",
        new="        if False and entries and",
        test=f"{FORGETTING}::test_a_batch_that_replaces_the_base_of_a_late_log_gives_it_a_new_one",
    ),
    Mutant(
        name="newest-segment-unlinked-first",
        why="A crash in between leaves a log with a gap.",
        file="raftd/storage/files.py",
        old="    for path in paths:\n        files.unlink(path)\n",
        new="    for path in reversed(paths):\n        files.unlink(path)\n",
        test=f"{FORGETTING}"
        "::test_segments_are_unlinked_from_the_oldest_on_each_durably_before_the_next",
    ),
    Mutant(
        name="unlinked-segment-not-durable-before-the-next",
        why="After a power failure any of them may be back, with a gap behind it.",
        file="raftd/storage/files.py",
        old="        files.unlink(path)\n        files.sync_directory(path.parent)\n",
        new="        files.unlink(path)\n",
        test=f"{FORGETTING}"
        "::test_segments_are_unlinked_from_the_oldest_on_each_durably_before_the_next",
    ),
    # --- data directories whose parts do not fit together ---
    Mutant(
        name="log-older-than-the-snapshot-accepted",
        why="A founder whose log is gone founds its cluster a second time, and a vote is "
        "given twice.",
        file=RECOVERY,
        old="        if not is_backup and log.hard_state.current_term < "
        "snapshot.id.last_included_term:\n",
        new="        if False:\n",
        test=f"{RECOVERY_TESTS}"
        "::test_a_founder_whose_log_is_gone_does_not_found_its_cluster_a_second_time",
        unreachable=INSTALLED_BY_HAND,
    ),
    Mutant(
        name="restored-backup-taken-for-a-lost-log",
        why="No cluster can be restored: its founder does not start again.",
        file=RECOVERY,
        old="snapshots.latest, is_backup=directory.identity.is_blank\n",
        new="snapshots.latest, is_backup=False\n",
        test=f"{RECOVERY_TESTS}::test_a_backup_is_put_in_force_over_the_log_of_a_blank_server",
        unreachable=INSTALLED_BY_HAND,
    ),
    Mutant(
        name="crash-in-an-install-taken-for-a-lost-log",
        why="A crash at the wrong moment makes a good server refuse to start.",
        file=RECOVERY,
        old="log.hard_state.current_term < snapshot.id.last_included_term:",
        new="log.hard_state.current_term <= snapshot.id.last_included_term:",
        test=f"{RECOVERY_TESTS}"
        "::test_a_crash_between_an_installed_snapshot_and_the_log_is_repaired",
    ),
    Mutant(
        name="damaged-state-stays-proven",
        why="The next start meets the same damage, and so on for ever.",
        file=RECOVERY,
        old="            live.distrust()\n",
        new="",
        test=f"{RECOVERY_TESTS}::test_a_damaged_state_is_not_trusted_again_if_the_build_fails",
        unreachable=DATABASE,
    ),
    Mutant(
        name="damaged-state-ends-the-start",
        why="A cache that could be built again keeps the server from starting.",
        file=RECOVERY,
        old="        except DamagedDatabase as fault:\n",
        new="        except ZeroDivisionError as fault:\n",
        test=f"{RECOVERY_TESTS}::test_a_proven_and_damaged_state_is_built_again",
        unreachable=DATABASE,
    ),
    Mutant(
        name="state-of-another-history-used",
        why="A state that has applied another entry than the log has is gone on with.",
        file=RECOVERY,
        old="if is_known and applied_term == log.term_at(applied_index):",
        new="if is_known:",
        test=f"{RECOVERY_TESTS}"
        "::test_a_state_of_another_term_than_the_log_has_there_is_built_again",
        unreachable=DATABASE,
    ),
    Mutant(
        name="state-of-another-format-is-a-crash",
        why="The operator is told of a bug, and not which release to start.",
        file=RECOVERY,
        old="        except StateError as error:\n",
        new="        except ZeroDivisionError as error:\n",
        test=f"{RECOVERY_TESTS}::test_a_state_of_another_format_is_a_fault_that_names_what_to_do",
        unreachable=DATABASE,
    ),
    # --- what goes on at the same time ---
    Mutant(
        name="check-of-what-was-received-not-told",
        why="A leader gives up the server, since nothing moves.",
        file=BACKGROUND,
        old="        return self._directory.checked_bytes\n",
        new="        return 0\n",
        test=f"{BACKGROUND_TESTS}"
        "::test_each_step_of_the_check_is_told_and_a_question_is_answered_with_the_same",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="failure-of-a-dropped-build-counts",
        why="The newer snapshot that is being received is dropped for it.",
        file=BACKGROUND,
        old="                if self._build is build:\n",
        new="                if True:\n",
        test=f"{BACKGROUND_TESTS}"
        "::test_the_end_of_a_worker_whose_snapshot_was_given_up_changes_nothing",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="killed-worker-drops-what-was-received",
        why="All of a large snapshot is sent again.",
        file=BACKGROUND,
        old='        elif failure.kind == "corrupt":\n',
        new='        elif failure.kind in ("corrupt", ""):\n',
        test=f"{BACKGROUND_TESTS}"
        "::test_a_build_whose_worker_was_killed_is_tried_again_later_and_the_file_is_kept",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="killed-worker-not-tried-again",
        why="A server whose worker was killed never catches up.",
        file=BACKGROUND,
        old="            self._start(self._build_again)\n",
        new="            pass\n",
        test=f"{BACKGROUND_TESTS}"
        "::test_a_build_whose_worker_was_killed_is_tried_again_later_and_the_file_is_kept",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="killed-worker-tried-again-at-every-heartbeat",
        why="A worker that cannot live is started all the time.",
        file=BACKGROUND,
        old="            if trio.current_time() < self._build_after:\n",
        new="            if False:\n",
        test=f"{BACKGROUND_TESTS}"
        "::test_a_build_whose_worker_was_killed_is_tried_again_later_and_the_file_is_kept",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="damaged-snapshot-worked-in-again-and-again",
        why="What is damaged is never fetched again.",
        file=BACKGROUND,
        old='        elif failure.kind == "corrupt":\n',
        new="        elif False:\n",
        test=f"{BACKGROUND_TESTS}"
        "::test_a_snapshot_that_is_found_damaged_is_dropped_and_the_leader_told",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="snapshot-taken-over-an-install",
        why="Its worker finds half of another database, and a good disk is said to have failed.",
        file=BACKGROUND,
        old="            self._taking.cancel()\n",
        new="            pass\n",
        test=f"{BACKGROUND_TESTS}"
        "::test_an_install_ends_a_snapshot_that_is_being_taken_and_no_disk_has_failed",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="ended-snapshot-never-reported",
        why="No snapshot is ever taken again.",
        file=BACKGROUND,
        old="        self._put(SnapshotTaken(path=None, problem=problem))\n",
        new="        pass\n",
        test=f"{BACKGROUND_TESTS}"
        "::test_an_install_ends_a_snapshot_that_is_being_taken_and_no_disk_has_failed",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="leftovers-of-an-ended-snapshot-stay",
        why="Half a snapshot lies on the disk until the next start.",
        file=BACKGROUND,
        old="        self.remove([path] if self._files.exists(path) else [])\n",
        new="        pass\n",
        test=f"{BACKGROUND_TESTS}::test_what_a_worker_leaves_that_an_install_has_ended_is_removed",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="state-removed-while-it-is-written",
        why="A disk that is good is said to have failed: what is removed is made again meanwhile.",
        file=BACKGROUND,
        old=" if path not in self._building_paths]",
        new="]",
        test=f"{BACKGROUND_TESTS}::test_a_thread_that_builds_what_was_given_up_changes_nothing",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="given-up-state-left-there",
        why="Each snapshot that is given up takes the room of its state for ever.",
        file=BACKGROUND,
        old="        if self._build is not build:\n            await self._remove_trees",
        new="        if False:\n            await self._remove_trees",
        test=f"{BACKGROUND_TESTS}::test_what_is_dropped_during_its_last_sync_is_not_put_in_force",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="damage-told-before-all-is-sent",
        why="A leader whose snapshot is damaged sends it again and again.",
        file=BACKGROUND,
        old='            if failure.kind == "corrupt":\n                # A leader',
        new="            if False:\n                # A leader",
        test=f"{BACKGROUND_TESTS}::test_a_damage_is_told_only_once_the_leader_has_sent_all_of_it",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="state-built-from-what-has-not-arrived",
        why="A snapshot that is on its way is taken for a damaged one.",
        file="raftd/storage/snapshot_file.py",
        old="    arrived(offset + RECORD_HEADER.size + length)\n",
        new="",
        test="tests/storage/test_worker.py"
        "::test_a_child_builds_a_database_of_a_snapshot_that_is_still_being_received",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="another-snapshot-than-announced-is-built",
        why="A server has the state of another moment than its leader believes.",
        file="raftd/storage/snapshot_file.py",
        old="        if ends.id != self.id:\n",
        new="        if False:\n",
        test="tests/storage/test_snapshot_file.py"
        "::test_a_tail_that_does_not_fit_the_file_before_it_is_noticed",
        unreachable=IN_BACKGROUND,
    ),
    # --- room, and when ---
    Mutant(
        name="kept-log-counted-for-the-next-snapshot",
        why="While a log is kept for a catch-up, one snapshot follows the other.",
        file=COMPACTION,
        old="        raft.snapshot_taken(snapshot)\n        self._count_included(raft)\n",
        new="        raft.snapshot_taken(snapshot)\n",
        test=f"{TAKING}"
        "::test_while_the_log_is_kept_for_a_catch_up_no_more_snapshots_are_taken_than_without",
    ),
    Mutant(
        name="snapshot-that-gave-way-is-a-problem",
        why="An install makes the server complain, and take the next snapshot late.",
        file=COMPACTION,
        old="            if item.problem:\n                self._later",
        new="            if True:\n                self._later",
        test=f"{TAKING}::test_a_snapshot_whose_place_an_installed_one_has_taken_is_no_problem",
    ),
    Mutant(
        name="room-asked-for-what-is-being-built",
        why="The state that is being built takes the room, and its server is given up.",
        file=COMPACTION,
        old="if here_bytes < message.snapshot.size_bytes and free_bytes < needed_bytes:\n",
        new="if free_bytes < needed_bytes:\n",
        test=f"{INSTALLING}"
        "::test_once_all_of_a_snapshot_is_here_its_state_takes_the_room_that_was_asked_for",
    ),
    Mutant(
        name="room-asked-for-what-is-worked-in",
        why="The state that is being built takes the room, and the rest of it is refused.",
        file=COMPACTION,
        old="ROOM_FOR_STATE * (size_bytes - built_bytes)",
        new="ROOM_FOR_STATE * size_bytes",
        test=f"{INSTALLING}::test_what_is_worked_in_has_its_room_already",
        unreachable=IN_BACKGROUND,
    ),
    Mutant(
        name="room-asked-for-what-is-here",
        why="A snapshot that is nearly here is refused for want of room that it has already.",
        file=COMPACTION,
        old="    return size_bytes - here_bytes + ROOM_FOR_STATE",
        new="    return size_bytes + ROOM_FOR_STATE",
        test=f"{INSTALLING}::test_what_is_here_of_a_snapshot_needs_no_room_any_more",
    ),
    Mutant(
        name="nothing-is-here-without-room",
        why="A leader sends all of a snapshot again because a disk was full for a moment.",
        file=COMPACTION,
        old="raft.snapshot_progress(message.snapshot, here_bytes, built_bytes)",
        new="raft.snapshot_progress(message.snapshot, 0, built_bytes)",
        test=f"{INSTALLING}::test_what_is_here_of_a_snapshot_needs_no_room_any_more",
    ),
    Mutant(
        name="dropped-snapshot-comes-back",
        why="After a loss of power a server has the state of a cluster that it does not belong to.",
        file=SNAPSHOTS,
        old="            self._files.sync_directory(self._path)\n"
        "            self._unneeded.append(path)\n",
        new="            self._unneeded.append(path)\n",
        test=f"{INSTALLING}::test_what_was_dropped_does_not_come_back_after_a_loss_of_power",
    ),
)
