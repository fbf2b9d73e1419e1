"""Mutants of the durable log, of files and of the identity."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

WAL = "raftd/storage/wal.py"
SEGMENTS = "raftd/storage/wal_segments.py"
POSITION = "raftd/storage/wal_position.py"
RECOVERY = "raftd/storage/wal_recovery.py"
FILES = "raftd/storage/files.py"
IDENTITY = "raftd/storage/identity.py"
WAL_TESTS = "tests/storage/test_wal.py"
IDENTITY_TESTS = "tests/storage/test_identity.py"
KILLERS = "tests/mutants/test_killers.py"

KERNEL = "The simulated disk takes the place of the calls into the kernel."

MUTANTS = (
    # --- what makes an append durable ---
    Mutant(
        name="batch-not-synced-at-all",
        why="Votes and acknowledged entries are lost with the power.",
        file=WAL,
        old="        self.run_sync(self._file.sync)\n        return start + size_bytes\n",
        new="        return start + size_bytes\n",
        test=f"{WAL_TESTS}"
        "::test_a_power_failure_at_any_call_loses_nothing_acknowledged_and_tears_nothing",
    ),
    Mutant(
        name="zeros-not-synced-before-the-batch",
        why="A torn batch is known by the zeros that show through; old bytes may show instead.",
        file=WAL,
        old="        self.run_sync(self._file.sync)\n        self._allocated_bytes = target\n",
        new="        self._allocated_bytes = target\n",
        test=f"{WAL_TESTS}::test_preallocation_goes_in_steps_and_is_synced_before_the_batch",
    ),
    Mutant(
        name="directory-fsync-left-out",
        why="A published file may be gone after a power failure, name and all.",
        file=FILES,
        old="    files.rename(temporary, path)\n    files.sync_directory(path.parent)\n",
        new="    files.rename(temporary, path)\n",
        test=f"{IDENTITY_TESTS}"
        "::test_a_crash_at_any_call_of_a_publication_leaves_the_old_identity_or_the_new",
    ),
    Mutant(
        name="published-before-its-content-is-synced",
        why="After a power failure the name is there and the content is not.",
        file=FILES,
        old="        file.write(content, 0)\n        file.sync()\n",
        new="        file.write(content, 0)\n",
        test=f"{IDENTITY_TESTS}"
        "::test_a_crash_at_any_call_of_a_publication_leaves_the_old_identity_or_the_new",
    ),
    Mutant(
        name="closed-segment-not-made-durable",
        why="After a power failure a segment in the middle looks like the last one.",
        file=WAL,
        old="        self._files.sync_directory(self._directory)\n        self._file = ",
        new="        self._file = ",
        test=f"{WAL_TESTS}::test_a_segment_is_durably_closed_before_its_successor_is_used",
    ),
    Mutant(
        name="log-used-after-a-failed-sync",
        why="A second sync succeeds over the hole that the first one has left.",
        file=WAL,
        old="            self._failure = str(error) or repr(error)\n",
        new="",
        test=f"{WAL_TESTS}::test_after_a_fault_the_log_refuses_all_further_use",
    ),
    Mutant(
        name="real-sync-left-out",
        why="Nothing that was written to the disk of this machine is durable.",
        file=FILES,
        old="os.fdatasync(self._descriptor)",
        new="pass",
        test=f"{KILLERS}::test_a_sync_reaches_the_kernel",
        unreachable=KERNEL,
    ),
    Mutant(
        name="cut-not-durable",
        why="A torn tail that was cut off is back after a power failure, behind newer batches.",
        file=FILES,
        old="            os.fsync(self._descriptor)\n",
        new="",
        test=f"{KILLERS}::test_a_cut_is_synced_before_it_returns",
        unreachable=KERNEL,
    ),
    Mutant(
        name="real-directory-sync-left-out",
        why="A published file may be gone after a power failure, name and all.",
        file=FILES,
        old="                os.fsync(descriptor)\n",
        new="                pass\n",
        test=f"{KILLERS}::test_the_sync_of_a_directory_reaches_the_kernel",
        unreachable=KERNEL,
    ),
    Mutant(
        name="rest-of-a-short-write-forgotten",
        why="The kernel may take less than it was given; the end of a batch is missing.",
        file=FILES,
        old="while written < len(content):",
        new="while written < 0:",
        test=f"{KILLERS}::test_a_short_write_is_completed",
        unreachable=KERNEL,
    ),
    # --- recovery ---
    Mutant(
        name="torn-tail-not-cut",
        why="The rest of a torn batch stays behind the next ones, and looks like damage later.",
        file=RECOVERY,
        old="                self.cut_bytes = end - offset\n",
        new="",
        test="tests/museum/test_storage.py"
        "::test_077_what_is_appended_after_a_torn_tail_is_found_by_every_later_start",
    ),
    Mutant(
        name="cut-left-to-the-next-append",
        why="Until then the file keeps a torn batch that a later start takes for damage.",
        file=WAL,
        old="            if reading.cut_bytes:\n                file.truncate",
        new="            if False:\n                file.truncate",
        test=f"{KILLERS}::test_a_torn_batch_leaves_nothing_behind_when_its_segment_is_closed_early",
    ),
    Mutant(
        name="recovered-batch-not-written-again",
        why="It may be in the kernel's cache alone, after a sync that failed.",
        file=WAL,
        old="file.write(reading.last_batch, last.used_bytes - len(reading.last_batch))",
        new="pass",
        test=f"{WAL_TESTS}"
        "::test_what_a_failed_sync_left_in_the_cache_is_durable_once_it_was_recovered",
    ),
    Mutant(
        name="damage-cut-off-like-a-torn-tail",
        why="Votes and acknowledged entries are forgotten without a word.",
        file=RECOVERY,
        old="                if reason:\n                    raise Damage(start, reason)\n",
        new="                if False:\n                    raise Damage(start, reason)\n",
        test=f"{WAL_TESTS}::test_a_bad_batch_before_a_good_one_is_damage_and_says_what_is_lost",
    ),
    Mutant(
        name="checksum-of-a-batch-not-compared",
        why="A torn batch is not known as one, and the server does not start after a crash.",
        file=SEGMENTS,
        old="zlib.crc32(memoryview(content)[begin : header.end]) == header.checksum",
        new="True",
        test=f"{WAL_TESTS}::test_a_last_batch_of_which_any_sectors_are_missing_is_forgotten",
    ),
    Mutant(
        name="checksum-of-a-record-not-compared",
        why="A flipped bit goes over the wire and into the state.",
        file="raftd/records.py",
        old="if zlib.crc32(body, zlib.crc32(bytes((kind,)))) != checksum:",
        new="if False:",
        test="tests/storage/test_records.py::test_every_flipped_bit_of_a_record_is_noticed",
    ),
    Mutant(
        name="replaced-entries-come-back",
        why="A restart finds entries that a leader had overwritten.",
        file=RECOVERY,
        old="            del self.entries[entries[0].index - "
        "self.position.terms.after_index - 1 :]\n",
        new="",
        test=f"{WAL_TESTS}"
        "::test_an_entry_at_or_below_the_last_index_replaces_everything_from_there_on",
    ),
    Mutant(
        name="term-and-vote-not-recovered",
        why="A server that restarts votes a second time in the same term.",
        file=POSITION,
        old="        if hard_state is not None:\n            self.hard_state = hard_state\n",
        new="        if False:\n            self.hard_state = hard_state\n",
        test=f"{WAL_TESTS}::test_hard_state_and_entries_come_back_from_one_stream",
    ),
    # --- identity ---
    Mutant(
        name="identity-published-in-memory-only",
        why="A server that answered that it had joined is blank after a restart.",
        file=IDENTITY,
        old="        publish(self._files, self._path / _IDENTITY_NAME, _encode(identity))\n",
        new="",
        test=f"{IDENTITY_TESTS}::test_a_published_identity_comes_back",
    ),
    Mutant(
        name="missing-log-taken-for-a-new-one",
        why="A server forgets its votes and goes on under the same incarnation.",
        file=IDENTITY,
        old="    if not Wal.exists(path / _WAL_NAME, files):\n",
        new="    if not Wal.exists(path / _WAL_NAME, files) and "
        "Wal.create(path / _WAL_NAME, files):\n",
        test=f"{IDENTITY_TESTS}::test_an_identity_whose_log_is_missing_is_refused",
    ),
    Mutant(
        name="damaged-identity-accepted",
        why="A flipped bit makes a server another one.",
        file=IDENTITY,
        old="            if content == _encode(identity):\n",
        new="            if True:\n",
        test=f"{IDENTITY_TESTS}::test_every_flipped_bit_of_the_identity_is_noticed",
    ),
)
