"""Mutants of what is made of the log: its hash, the comparison of states, backups and restores."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

STATE = "raftd/storage/state.py"
EFFECTS = "raftd/storage/effects.py"
AGREEMENT = "raftd/agreement.py"
NODE = "raftd/node.py"
FOUNDING = "raftd/founding.py"
BACKUP = "raftd/backup.py"
HASH_TESTS = "tests/storage/test_agreement_hash.py"
AGREEMENT_TESTS = "tests/test_agreement.py"
BACKUP_TESTS = "tests/node/test_backup.py"
FULL_DISK = "tests/node/test_full_disk.py"
KILLERS = "tests/mutants/test_snapshot_killers.py"

MUTANTS = (
    # --- the hash of the state ---
    Mutant(
        name="deletes-not-in-the-hash",
        why="A key that one server did not remove is not noticed.",
        file=EFFECTS,
        old="            self.checksum = crc32(key, self.checksum) ^ _DELETED\n",
        new="            pass\n",
        test=f"{HASH_TESTS}::test_the_hash_is_the_documented_one",
    ),
    Mutant(
        name="values-not-in-the-hash",
        why="A value that differs between servers is not noticed.",
        file=EFFECTS,
        old="self.checksum = crc32(value, crc32(key, self.checksum) ^ len(key))",
        new="self.checksum = crc32(key, self.checksum) ^ len(key)",
        test=f"{HASH_TESTS}::test_every_flipped_bit_of_a_value_shows",
    ),
    Mutant(
        name="answers-not-in-the-hash",
        why="Servers that answer the same command differently are not noticed.",
        file=STATE,
        old="                        + answer * _REPLY_FACTOR\n",
        new="",
        test=f"{HASH_TESTS}::test_the_hash_is_the_documented_one",
    ),
    Mutant(
        name="terms-not-in-the-hash",
        why="Logs that differ in a term are taken for equal.",
        file=STATE,
        old="effects.checksum = (entry.term * _TERM_FACTOR + index) & CHECKSUM_MASK",
        new="effects.checksum = index & CHECKSUM_MASK",
        test=f"{HASH_TESTS}::test_the_term_of_an_entry_counts",
    ),
    Mutant(
        name="hash-depends-on-the-batch",
        why="Equal servers are stopped because their batches differ.",
        file=STATE,
        old="effects.checksum = (entry.term * _TERM_FACTOR + index) & CHECKSUM_MASK",
        new="effects.checksum = (entry.term * _TERM_FACTOR + index + len(entries)) & CHECKSUM_MASK",
        test=f"{HASH_TESTS}::test_equal_logs_have_equal_hashes_in_batches_of_any_size",
    ),
    Mutant(
        name="hash-forgets-what-was-before",
        why="A difference is not noticed any more once the next entry is applied.",
        file=STATE,
        old="                        effects_hash * _HASH_FACTOR\n",
        new="                        _HASH_FACTOR\n",
        test=f"{HASH_TESTS}::test_a_difference_outlives_the_key_that_it_was_in",
    ),
    Mutant(
        name="hash-begins-anew-with-every-batch",
        why="A difference is forgotten with the batch that made it.",
        file=STATE,
        old="                self.effects_hash = effects_hash\n",
        new="                pass\n",
        test=f"{HASH_TESTS}::test_equal_logs_have_equal_hashes_in_batches_of_any_size",
    ),
    Mutant(
        name="hash-not-in-the-state",
        why="A server that has restarted differs from all others, and is stopped.",
        file=STATE,
        old="            self.effects_hash,\n            self.session_count,\n"
        "            self._expired_count,\n        )\n        if self",
        new="            0,\n            self.session_count,\n"
        "            self._expired_count,\n        )\n        if self",
        test=f"{HASH_TESTS}::test_the_head_says_what_the_machine_knows",
    ),
    Mutant(
        name="applied-term-of-the-first-entry",
        why="A snapshot names another entry than the one that it ends with.",
        file=STATE,
        old="self.applied_index, self.applied_term = index, entry.term",
        new="self.applied_index, self.applied_term = index, entries[0].term",
        test=f"{HASH_TESTS}::test_the_head_says_what_the_machine_knows",
    ),
    Mutant(
        name="hashes-of-the-state-before-kept-by-a-restore",
        why="A server answers for an entry with the hash of another one, and is stopped.",
        file=STATE,
        old='        self._load()\n        self._hashes = array("q", (self.effects_hash,))\n',
        new='        self._load()\n        self.__dict__.setdefault("_hashes", '
        'array("q", (self.effects_hash,)))\n',
        test=f"{HASH_TESTS}::test_a_restored_machine_goes_on_from_the_other_store",
    ),
    Mutant(
        name="sessions-of-the-state-before-kept-by-a-restore",
        why="Commands are answered from a session that was driven out long ago.",
        file=STATE,
        old="        self._sessions.clear()\n        self._used.clear()\n",
        new="        self._used.clear()\n",
        test="tests/museum/test_snapshot_storage.py"
        "::test_091_an_installed_snapshot_replaces_everything_that_was_there",
    ),
    # --- the comparison ---
    Mutant(
        name="minority-decides-who-is-right",
        why="A server that is right is stopped by one that is wrong.",
        file=AGREEMENT,
        old="        if vote_result(voters, outgoing, votes) is VoteResult.WON:\n",
        new="        if sum(votes.values()) * 2 >= len(voters):\n",
        test=f"{AGREEMENT_TESTS}::test_two_voters_report_and_go_on_reporting_without_new_entries",
    ),
    Mutant(
        name="old-half-does-not-decide",
        why="While joint, the new half alone stops servers of the old one.",
        file=AGREEMENT,
        old="        if vote_result(voters, outgoing, votes) is VoteResult.WON:\n",
        new="        if vote_result(voters, frozenset(), votes) is VoteResult.WON:\n",
        test=f"{AGREEMENT_TESTS}::test_while_joint_both_halves_have_to_agree",
    ),
    Mutant(
        name="learners-decide-who-is-right",
        why="Servers without a vote stop one that has one.",
        file=AGREEMENT,
        old="    voters, outgoing = configuration.voters, configuration.outgoing\n",
        new="    voters, outgoing = configuration.members, configuration.outgoing\n",
        test=f"{AGREEMENT_TESTS}::test_learners_make_no_majority",
    ),
    Mutant(
        name="own-hash-of-the-leader-not-counted",
        why="With one server away nobody finds out who differs.",
        file=AGREEMENT,
        old="            if server in members or server == self._server\n",
        new="            if server in members and server != self._server\n",
        test=f"{AGREEMENT_TESTS}::test_a_majority_that_is_certain_does_not_wait_for_the_rest",
    ),
    Mutant(
        name="verdict-before-a-majority-is-certain",
        why="It is said that nobody knows, while the third one would decide.",
        file=AGREEMENT,
        old="    decided = final or configuration.all_voters <= answers.keys()\n",
        new="    decided = True\n",
        test=f"{AGREEMENT_TESTS}::test_nobody_knows_until_the_third_answers",
    ),
    Mutant(
        name="stopped-without-a-difference-of-its-own",
        why="A verdict that is wrong, or about another entry, stops a server that is right.",
        file=AGREEMENT,
        old="        return own is not None and own != verdict.state_hash\n",
        new="        return own is not None\n",
        test=f"{AGREEMENT_TESTS}::test_a_wrong_verdict_stops_nobody",
    ),
    Mutant(
        name="stopped-by-what-is-not-known-here",
        why="A server that was restored past the entry cannot defend itself.",
        file=AGREEMENT,
        old="        return own is not None and own != verdict.state_hash\n",
        new="        return own != verdict.state_hash\n",
        test=f"{AGREEMENT_TESTS}::test_a_verdict_about_what_is_not_known_here_stops_nobody",
    ),
    Mutant(
        name="verdict-of-an-older-term-heeded",
        why="A leader of the past stops a server.",
        file=AGREEMENT,
        old="        if self.stop is not None or message.term != standing.term:\n",
        new="        if self.stop is not None:\n",
        test=f"{AGREEMENT_TESTS}::test_a_verdict_of_another_term_is_ignored",
    ),
    Mutant(
        name="verdict-of-somebody-who-does-not-lead-heeded",
        why="Any member stops any other one.",
        file=AGREEMENT,
        old="        if envelope.source != standing.leader:\n",
        new="        if False:\n",
        test=f"{AGREEMENT_TESTS}::test_a_verdict_of_somebody_who_does_not_lead_is_ignored",
    ),
    Mutant(
        name="stopped-by-a-minority",
        why="One server that is wrong stops the others one by one.",
        file=AGREEMENT,
        old="    if vote_result(configuration.voters, configuration.outgoing, votes) is not "
        "VoteResult.WON:\n",
        new="    if False:\n",
        test=f"{AGREEMENT_TESTS}"
        "::test_a_verdict_that_contradicts_itself_or_what_is_known_here_is_ignored",
    ),
    Mutant(
        name="check-forgotten-before-its-entry-is-applied",
        why="A member that is a moment behind is never compared.",
        file=AGREEMENT,
        old="        if check.term == standing.term and index > standing.applied_index:\n",
        new="        if False:\n",
        test=f"{AGREEMENT_TESTS}::test_a_member_answers_as_soon_as_it_has_applied_the_entry",
    ),
    Mutant(
        name="answer-to-another-check-counted",
        why="Hashes after different entries are compared, and a server that is right is stopped.",
        file=AGREEMENT,
        old="        if (response.term, response.index) != (check.term, check.index):\n",
        new="        if response.term != check.term:\n",
        test=f"{AGREEMENT_TESTS}::test_a_response_counts_only_for_the_check_it_belongs_to",
    ),
    Mutant(
        name="leader-that-differs-goes-on",
        why="The one server that answers reads is the one that is wrong.",
        file=AGREEMENT,
        old="        if verdict.agreeing and self._server in verdict.differing:\n",
        new="        if False:\n",
        test=f"{AGREEMENT_TESTS}::test_a_leader_that_differs_stops_itself_and_says_who_agrees",
    ),
    Mutant(
        name="divergence-does-not-stop-the-process",
        why="A server that is known to be wrong goes on answering.",
        file=NODE,
        old="        if agreement.stop is not None:\n",
        new="        if False:\n",
        test=f"{KILLERS}::test_a_server_whose_state_differs_from_a_majority_stops",
    ),
    # --- a disk that is nearly full ---
    Mutant(
        name="write-accepted-on-a-full-disk",
        why="Writes of clients use up what is kept for membership changes, and the process stops.",
        file="raftd/writing.py",
        old="        if short:\n",
        new="        if False:\n",
        test=f"{FULL_DISK}::test_writes_are_refused_with_the_reason_and_a_way_out",
    ),
    Mutant(
        name="short-disk-not-told-to-the-leader",
        why="Writes go on until the disks that commit them are full.",
        file=NODE,
        old="            self.raft.is_short_of_space = bool(self._disk.problem)\n",
        new="            pass\n",
        test=f"{FULL_DISK}"
        "::test_writes_are_refused_where_without_those_who_are_short_there_is_no_majority",
    ),
    Mutant(
        name="writes-refused-at-exactly-the-reserve",
        why="The configured reserve is not the one that is kept.",
        file="raftd/disk_space.py",
        old="        if self.free_bytes < self._reserve_bytes:\n",
        new="        if self.free_bytes <= self._reserve_bytes:\n",
        test=f"{FULL_DISK}::test_at_exactly_the_reserve_writes_are_accepted",
    ),
    # --- founding and backups ---
    Mutant(
        name="operation-of-the-old-cluster-goes-on-after-a-restore",
        why="The restored cluster brings in servers that belong to another one.",
        file=NODE,
        old="            running=self._state.running_operation,\n",
        new="            running=None,\n",
        test=f"{BACKUP_TESTS}::test_an_operation_that_ran_is_ended_and_not_driven",
    ),
    Mutant(
        name="restored-cluster-uses-the-term-of-the-backup",
        why="Two clusters have different entries of the same term and index.",
        file=FOUNDING,
        old="    return Entry(base_index + 1, base_term + 1, EntryKind.CONFIGURATION, data)\n",
        new="    return Entry(base_index + 1, max(base_term, 1), EntryKind.CONFIGURATION, data)\n",
        test=f"{BACKUP_TESTS}"
        "::test_the_new_cluster_is_another_one_that_goes_on_after_the_last_index_and_term",
    ),
    Mutant(
        name="server-with-a-part-of-a-backup-made-a-member",
        why="A part of another cluster's state may be put in force in this one later.",
        file=FOUNDING,
        old="    if wanted is None and (held is not None or is_restoring):\n",
        new="    if wanted is None and held is not None:\n",
        test=f"{BACKUP_TESTS}"
        "::test_a_server_that_has_a_part_of_a_backup_is_not_made_a_member_by_mistake",
    ),
    Mutant(
        name="server-with-a-backup-made-a-member",
        why="Its log would not go on from what it holds.",
        file=FOUNDING,
        old="    if wanted is None and (held is not None or is_restoring):\n",
        new="    if wanted is None and is_restoring:\n",
        test=f"{BACKUP_TESTS}::test_a_server_that_holds_a_backup_is_blank_and_says_what_to_do",
    ),
    Mutant(
        name="restored-without-the-backup",
        why="An empty cluster is founded, and the operator takes it for the restored one.",
        file=FOUNDING,
        old="    if wanted is not None and (held is None or held.id != wanted):\n",
        new="    if False:\n",
        test=f"{KILLERS}::test_a_cluster_is_not_restored_without_its_backup",
    ),
    Mutant(
        name="empty-cluster-taken-for-a-restored-one",
        why="A restore that was never done is reported as done.",
        file=FOUNDING,
        old="    if request.snapshot is None or (held is not None and held.id == "
        "request.snapshot):\n",
        new="    if True:\n",
        test=f"{BACKUP_TESTS}::test_an_empty_cluster_is_not_taken_for_a_restored_one",
    ),
    Mutant(
        name="received-backup-kept-in-another-cluster",
        why="It is whole after a restart, and is put in force over the state of the cluster.",
        file=BACKUP,
        old="        self._snapshots.drop_received()\n",
        new="",
        test=f"{BACKUP_TESTS}"
        "::test_a_backup_that_arrived_before_a_restart_is_not_put_in_force_in_another_cluster",
    ),
    Mutant(
        name="backup-without-the-latest-writes",
        why="A write that was acknowledged before the backup began is not in it.",
        file=BACKUP,
        old="        if included_index(latest) >= index:\n",
        new="        if latest is not None:\n",
        test=f"{BACKUP_TESTS}::test_a_snapshot_that_was_begun_too_early_is_followed_by_another_one",
    ),
    Mutant(
        name="backup-removed-while-it-is-read",
        why="A slow client never gets to the end of a backup.",
        file=BACKUP,
        old="        return frozenset(self._pins)\n",
        new="        return frozenset()\n",
        test=f"{BACKUP_TESTS}::test_a_snapshot_stays_as_long_as_somebody_reads_it",
    ),
    Mutant(
        name="any-number-of-backups-kept",
        why="Each keeps a snapshot as large as the state, until the disk is full.",
        file=BACKUP,
        old="        if id not in self._pins and len(self.pinned(raft)) >= PINS_MAX:\n",
        new="        if False:\n",
        test=f"{BACKUP_TESTS}::test_no_more_snapshots_than_a_few_are_kept_for_backups",
    ),
    Mutant(
        name="member-takes-a-backup",
        why="The state of a cluster is replaced on one server.",
        file=BACKUP,
        old="        if not identity.is_blank:\n            return not_blank(identity)\n"
        "        held = ",
        new="        if False:\n            return not_blank(identity)\n        held = ",
        test=f"{BACKUP_TESTS}::test_only_a_blank_server_takes_a_backup",
    ),
    Mutant(
        name="backup-received-without-room-for-it",
        why="The disk is full when the state is built, and the process stops.",
        file=BACKUP,
        old="        if here_bytes < id.size_bytes and free_bytes < needed_bytes:\n",
        new="        if False:\n",
        test=f"{BACKUP_TESTS}::test_without_room_for_backup_and_state_nothing_is_stored",
    ),
    Mutant(
        name="blank-server-dials-the-members-of-a-backup",
        why="It talks to the servers of a cluster that it does not belong to.",
        file=NODE,
        old="        addresses = {} if self.identity.is_blank else dict(self.raft.addresses())\n",
        new="        addresses = dict(self.raft.addresses())\n",
        test=f"{BACKUP_TESTS}::test_a_server_that_holds_a_backup_is_blank_and_says_what_to_do",
    ),
)
