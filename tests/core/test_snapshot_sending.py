"""Sending a snapshot to a server that needs entries which are gone. Source: paper section 7."""

from __future__ import annotations

import attrs
import pytest

from raftd.core.messages import AppendEntries, InstallSnapshot, InstallSnapshotResponse
from raftd.core.progress import (
    SNAPSHOT_CHUNK_BYTES,
    SNAPSHOT_INFLIGHT_BYTES_MAX,
    ReplicationState,
)
from raftd.core.snapshot import Snapshot
from tests.core.harness import OPTIONS
from tests.core.scenario import (
    SNAPSHOT_BYTES,
    Solo,
    change_of,
    of,
    only,
    settled_leader,
    snapshot_at,
)
from tests.core.snapshot_scenario import leader, peer, progress, refuse, role, sending

T = OPTIONS.election_ticks
CHUNK = SNAPSHOT_CHUNK_BYTES
WINDOW = SNAPSHOT_INFLIGHT_BYTES_MAX // SNAPSHOT_CHUNK_BYTES


# --- turning to a snapshot ---


def test_a_server_that_needs_a_compacted_entry_is_sent_the_snapshot() -> None:
    solo, snapshot = sending()
    assert progress(solo).state is ReplicationState.SNAPSHOT
    (chunk,) = [c for c in solo.chunks if c.dest == "3"]
    assert (chunk.snapshot, chunk.offset, chunk.size_bytes) == (snapshot.id, 0, 0)
    assert chunk.round == solo.round


def test_nothing_is_sent_before_the_server_has_said_where_to_begin() -> None:
    solo, _ = sending()
    solo.tick(5)
    assert solo.chunks_to("3") == []


def test_a_snapshot_is_sent_from_where_the_server_says() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, 3 * CHUNK + 5)
    assert solo.chunks_to("3")[0] == (3 * CHUNK + 5, CHUNK)


def test_parts_leave_after_the_term_is_durable() -> None:
    solo, snapshot = sending()
    solo.readies.clear()
    solo.has_received("3", snapshot, 0)
    assert all(not of(InstallSnapshot, ready.early_messages) for ready in solo.readies)
    assert [len(ready.chunks_to_send) for ready in solo.readies] == [WINDOW]


def test_compacting_what_is_on_its_way_to_a_follower_turns_to_a_snapshot() -> None:
    """Pipelined entries may be lost with the link, and then they are gone."""
    solo = leader()
    snapshot = solo.compact(solo.commit_index)
    assert peer(solo).snapshot is None
    solo.give(lambda raft: raft.report_unreachable("3"))
    assert peer(solo).snapshot == snapshot.id


def test_an_answer_to_entries_that_were_on_their_way_ends_the_snapshot() -> None:
    solo = leader()
    solo.compact(solo.commit_index)
    solo.give(lambda raft: raft.report_unreachable("3"))
    solo.acknowledge("3")
    assert peer(solo).snapshot is None
    assert peer(solo).state == "replicate"
    assert peer(solo).match_index == solo.last_index


def test_a_late_answer_from_below_the_base_does_not_end_the_snapshot() -> None:
    """Its next entry is gone all the same, and what was received would be asked for again."""
    solo, snapshot = sending()
    solo.has_received("3", snapshot, CHUNK)
    solo.acknowledge("3", snapshot.id.last_included_index - 1)
    assert (peer(solo).snapshot, peer(solo).received_bytes) == (snapshot.id, CHUNK)


def test_a_late_refusal_does_not_end_the_snapshot() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, CHUNK)
    for last, conflict_term in ((0, 0), (1, 1), (7, 2)):
        refuse(solo, "3", last, conflict_term=conflict_term)
    assert (peer(solo).snapshot, peer(solo).received_bytes) == (snapshot.id, CHUNK)


# --- probing at the edge of what is compacted ---


@pytest.mark.parametrize("conflict_term", [0, 1, 2, 9])
@pytest.mark.parametrize("conflict_index", [-3, 0, 1, 3, 4, 5, 6, 99])
@pytest.mark.parametrize("last_log_index", [0, 3, 4, 5, 99])
def test_whatever_a_refusal_hints_at_the_leader_goes_on(
    conflict_term: int, conflict_index: int, last_log_index: int
) -> None:
    """Hints at, below and above where the log begins: a probe or a snapshot follows, in the end.

    The log begins at 4, and the first probe of a new leader asks about its end.
    """
    solo = Solo(terms=(1, 1, 1, 1, 1, 1, 1))
    solo.lead()
    solo.acknowledge("2")
    solo.compact(4)
    for _ in range(10):
        before = peer(solo).next_index
        refuse(
            solo,
            "3",
            last_log_index,
            conflict_term=conflict_term,
            conflict_index=conflict_index,
        )
        if peer(solo).snapshot is not None:
            return
        assert 4 < peer(solo).next_index < before
    raise AssertionError("asks for ever")


def test_a_follower_that_has_the_last_compacted_entry_needs_no_snapshot() -> None:
    """It is asked about that entry, however far back its hint goes."""
    solo = Solo(terms=(1, 1, 1, 1, 1, 1, 1))
    solo.lead()
    solo.acknowledge("2")
    solo.compact(4)
    refuse(solo, "3", 6, conflict_term=0)
    refuse(solo, "3", 6, conflict_term=9, conflict_index=2)
    assert peer(solo).next_index == 5
    request = of(AppendEntries, [e for e in solo.sent if e.dest == "3"])[-1]
    assert (request.prev_log_index, request.prev_log_term) == (4, 1)
    solo.acknowledge("3")
    assert peer(solo).snapshot is None
    assert solo.chunks == []


def test_a_leader_whose_whole_log_is_compacted_adds_a_server() -> None:
    solo = settled_leader()
    snapshot = solo.compact(solo.commit_index)
    assert solo.last_index == solo.raft.log.base_index
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"))))
    solo.acknowledge("2")
    refuse(solo, "4", 0)
    assert peer(solo, "4").snapshot == snapshot.id
    solo.has_received("4", snapshot, SNAPSHOT_BYTES, match_index=snapshot.id.last_included_index)
    entries = of(AppendEntries, [e for e in solo.sent if e.dest == "4"])[-1]
    assert entries.prev_log_index == snapshot.id.last_included_index
    assert [entry.index for entry in entries.entries] == [solo.last_index]


def _joining(size_bytes: int) -> tuple[Solo, Snapshot]:
    """Return a leader with its whole log, a snapshot of that size, and a server that is new."""
    solo = leader()
    snapshot = solo.compact(solo.commit_index, to=0, size_bytes=size_bytes)
    solo.acknowledge("3")
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"))))
    solo.acknowledge("2")
    return solo, snapshot


def test_a_new_server_is_sent_the_snapshot_if_it_is_shorter_than_the_log_that_it_includes() -> None:
    solo, snapshot = _joining(1)
    assert solo.raft.log.base_index == 0
    assert peer(solo, "4").snapshot is None
    refuse(solo, "4", 0)
    assert peer(solo, "4").snapshot == snapshot.id


def test_a_new_server_is_sent_the_log_if_the_snapshot_is_longer() -> None:
    solo, _ = _joining(SNAPSHOT_BYTES)
    refuse(solo, "4", 0)
    assert peer(solo, "4").snapshot is None
    entries = of(AppendEntries, [e for e in solo.sent if e.dest == "4"])[-1].entries
    assert entries[0].index == 1


def test_a_learner_that_has_some_of_the_log_and_a_voter_are_sent_the_rest_of_it() -> None:
    solo, snapshot = _joining(1)
    solo.acknowledge("4", 2)
    solo.give(lambda raft: raft.report_unreachable("4"))
    refuse(solo, "4", 2)
    # A voter without anything is one whose vote may be wanted at any moment.
    solo.give(lambda raft: raft.report_unreachable("3"))
    assert peer(solo, "4").next_index == 3 <= snapshot.id.last_included_index
    assert peer(solo, "4").snapshot is None
    other = Solo(terms=(1, 1, 1, 1))
    other.lead()
    other.acknowledge("2")
    other.compact(4, to=0, size_bytes=1)
    refuse(other, "3", 0)
    assert (peer(other).snapshot, peer(other).match_index) == (None, 0)


def test_a_new_leader_whose_whole_log_is_compacted_leads() -> None:
    founding = snapshot_at(9, 3)
    solo = Solo(entries=(), snapshot=founding)
    solo.lead()
    request = of(AppendEntries, solo.sent)[-1]
    assert (request.prev_log_index, request.prev_log_term) == (9, 3)
    assert [entry.index for entry in request.entries] == [10]
    refuse(solo, "3", 0)
    assert peer(solo).snapshot == founding.id


# --- flow control ---


def test_only_a_window_of_parts_is_unanswered() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, 0)
    assert solo.chunks_to("3") == [(number * CHUNK, CHUNK) for number in range(WINDOW)]
    solo.tick(3)
    assert solo.chunks_to("3") == []
    solo.has_received("3", snapshot, CHUNK)
    assert solo.chunks_to("3") == [(WINDOW * CHUNK, CHUNK)]


def test_the_last_part_is_as_long_as_what_is_left() -> None:
    solo, snapshot = sending(size_bytes=CHUNK + 7)
    solo.has_received("3", snapshot, 0)
    assert solo.chunks_to("3") == [(0, CHUNK), (CHUNK, 7)]
    solo.has_received("3", snapshot, CHUNK + 7)
    solo.tick(3 * T)
    assert solo.chunks_to("3") == []


def test_parts_that_are_lost_are_sent_again() -> None:
    """Nothing came on for an election timeout: what was not answered is sent once more."""
    solo, snapshot = sending()
    solo.has_received("3", snapshot, CHUNK)
    solo.chunks_to("3")
    for _ in range(T + 1):
        solo.tick()
        solo.acknowledge("2")
        solo.has_received("3", snapshot, CHUNK)
    assert solo.chunks_to("3") == [(CHUNK + number * CHUNK, CHUNK) for number in range(WINDOW)]


def test_parts_are_not_sent_again_while_something_comes_on() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, CHUNK)
    solo.chunks_to("3")
    for number in range(3 * T):
        solo.tick()
        solo.acknowledge("2")
        solo.has_received("3", snapshot, CHUNK, installed_bytes=number)
    assert solo.chunks_to("3") == []


def test_late_answers_move_nothing_back() -> None:
    solo, snapshot = sending()
    old = solo.round
    solo.tick(2)
    solo.has_received("3", snapshot, 5 * CHUNK)
    solo.chunks_to("3")
    solo.has_received("3", snapshot, 2 * CHUNK, round=old)
    solo.has_received("3", snapshot, 4 * CHUNK)
    assert peer(solo).received_bytes == 5 * CHUNK
    assert solo.chunks_to("3") == []


def test_a_server_that_has_lost_a_part_gets_it_again() -> None:
    """It was started again, and what was not synced is gone."""
    solo, snapshot = sending()
    solo.has_received("3", snapshot, 5 * CHUNK)
    solo.chunks_to("3")
    solo.tick()
    solo.has_received("3", snapshot, 2 * CHUNK)
    assert solo.chunks_to("3")[0] == (2 * CHUNK, CHUNK)


def test_after_a_broken_link_it_goes_on_from_where_the_server_is() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, 2 * CHUNK)
    assert solo.chunks_to("3")[-1] == (5 * CHUNK, CHUNK)
    solo.give(lambda raft: raft.report_unreachable("3"))
    solo.tick(2)
    assert solo.chunks_to("3") == []
    solo.has_received("3", snapshot, 3 * CHUNK)
    assert solo.chunks_to("3")[0] == (3 * CHUNK, CHUNK)


def test_entries_follow_from_the_end_of_the_snapshot() -> None:
    solo, snapshot = sending()
    last = snapshot.id.last_included_index
    solo.give(lambda raft: raft.propose(b"while it was sent"))
    solo.sent.clear()
    solo.has_received("3", snapshot, SNAPSHOT_BYTES, match_index=last)
    request = of(AppendEntries, [e for e in solo.sent if e.dest == "3"])[0]
    assert (request.prev_log_index, request.entries[0].index) == (last, last + 1)
    assert peer(solo).match_index == last
    assert peer(solo).state == "replicate"


def test_no_entries_are_sent_during_a_snapshot() -> None:
    solo, snapshot = sending()
    solo.sent.clear()
    solo.has_received("3", snapshot, CHUNK)
    solo.give(lambda raft: raft.propose(b"x"))
    solo.tick(3)
    assert not [e for e in solo.sent if e.dest == "3"]


def test_status_says_how_far_it_is() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, 3 * CHUNK, installed_bytes=CHUNK)
    status = peer(solo)
    assert (status.state, status.snapshot) == ("snapshot", snapshot.id)
    assert (status.received_bytes, status.installed_bytes) == (3 * CHUNK, CHUNK)


# --- heartbeats meanwhile ---


def test_heartbeats_go_on_as_empty_parts() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, SNAPSHOT_BYTES)
    solo.chunks.clear()
    solo.tick(3)
    beats = [c for c in solo.chunks if c.dest == "3"]
    assert [c.size_bytes for c in beats] == [0, 0, 0]
    assert len({c.round for c in beats}) == 3


def test_answers_during_an_install_confirm_reads() -> None:
    """Rule 27: the round is what counts, not the kind of the message."""
    solo, snapshot = sending()
    solo.tick()
    solo.give(lambda raft: raft.read("token"))
    solo.has_received("3", snapshot, CHUNK, round=solo.round - 1)
    assert solo.reads == []
    solo.has_received("3", snapshot, CHUNK)
    assert [answer.token for answer in solo.reads] == ["token"]


def test_answers_during_an_install_keep_the_leader_in_office() -> None:
    """Rule 11: it is contact; 2 is silent, 3 gets a snapshot."""
    solo, snapshot = sending()
    for _ in range(4 * T):
        solo.tick()
        solo.has_received("3", snapshot, CHUNK)
    assert solo.role == "leader"
    solo.tick(T + 1)
    assert solo.role == "follower"


def test_what_an_answer_of_another_term_says_counts_nothing() -> None:
    solo, snapshot = sending()
    index = snapshot.id.last_included_index
    solo.has_received("3", snapshot, CHUNK, round=0, match_index=index)
    solo.has_received("3", snapshot, CHUNK, term=solo.term - 1, match_index=index)
    assert (peer(solo).received_bytes, peer(solo).match_index) == (0, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"received_bytes": SNAPSHOT_BYTES + 1},
        {"received_bytes": CHUNK, "round": 1 << 40},
        {"received_bytes": CHUNK, "match_index": 1 << 40},
        {"received_bytes": 1 << 60, "installed_bytes": 1 << 60},
    ],
    ids=str,
)
def test_odd_answers_are_survived(fields: dict[str, int]) -> None:
    solo, snapshot = sending()
    before = peer(solo)
    solo.has_received("3", snapshot, **fields)  # type: ignore[arg-type]
    after = peer(solo)
    assert attrs.evolve(after, contact_age_ticks=before.contact_age_ticks) == before
    solo.tick(3)
    assert solo.chunks_to("3") == []


def test_an_answer_about_another_snapshot_says_nothing_about_this_one() -> None:
    solo, _ = sending()
    solo.has_received("3", snapshot_at(3, 1, checksum="other"), 5 * CHUNK)
    assert (peer(solo).received_bytes, solo.chunks_to("3")) == (0, [])


def test_answers_of_servers_that_nobody_knows_are_survived() -> None:
    solo, snapshot = sending()
    solo.has_received("9", snapshot, 5, match_index=snapshot.id.last_included_index)
    assert peer(solo).match_index == 2
    assert "9" not in role(solo).progress


def test_what_is_acknowledged_by_a_snapshot_counts_for_commits() -> None:
    solo = leader(count=2)
    solo.compact(solo.commit_index, to=2)
    index = solo.commit_index
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("3", index)
    assert solo.commit_index == index
    solo.has_received("3", snapshot_at(index + 1, 2), 1, match_index=index + 1)
    assert solo.commit_index == index + 1


def test_a_fenced_server_is_sent_no_snapshot() -> None:
    """Rule 23: what it acknowledges proves nothing."""
    solo = leader()
    solo.acknowledge("3")
    solo.tick()
    refuse(solo, "3", 0, match_index=solo.last_index)
    assert peer(solo).fenced
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    snapshot = solo.compact(solo.commit_index)
    solo.tick(3)
    assert peer(solo).snapshot is None
    assert [c for c in solo.chunks if c.dest == "3"] == []
    assert solo.raft.snapshots_in_use() == {snapshot.id}
    solo.give(lambda raft: raft.read("token"))
    solo.has_received("3", snapshot, 5, match_index=solo.last_index)
    assert (peer(solo).fenced, solo.reads) == (True, [])


# --- a disk that went back in time ---


def acknowledged_and_sent_a_snapshot() -> tuple[Solo, Snapshot, int]:
    """Return a leader that sends a snapshot to server 3, and what server 3 had acknowledged."""
    solo = leader()
    solo.acknowledge("3")
    acknowledged = peer(solo).match_index
    solo.give(lambda raft: raft.propose(b"while it was away"))
    solo.acknowledge("2")
    snapshot = solo.compact(solo.commit_index)
    solo.give(lambda raft: raft.report_unreachable("3"))
    assert peer(solo).snapshot == snapshot.id
    assert acknowledged > 1
    return solo, snapshot, acknowledged


def test_who_lacks_what_it_had_acknowledged_is_fenced_by_its_answer_to_a_part() -> None:
    """Rule 23: it answers parts of a snapshot only, so no refusal of entries could tell."""
    solo, snapshot, acknowledged = acknowledged_and_sent_a_snapshot()
    solo.tick()
    solo.chunks.clear()
    solo.give(lambda raft: raft.read("token"))
    solo.has_received("3", snapshot, CHUNK, last_log_index=acknowledged - 1)
    assert (peer(solo).fenced, solo.reads) == (True, [])
    solo.tick(3)
    assert solo.chunks_to("3") == []


@pytest.mark.parametrize("more", [0, 5, None])
def test_who_has_what_it_had_acknowledged_is_not_fenced_by_its_answer_to_a_part(
    more: int | None,
) -> None:
    """A server of an older release does not say what it has."""
    solo, snapshot, acknowledged = acknowledged_and_sent_a_snapshot()
    solo.tick()
    last_log_index = None if more is None else acknowledged + more
    solo.has_received("3", snapshot, CHUNK, last_log_index=last_log_index)
    assert (peer(solo).fenced, peer(solo).received_bytes) == (False, CHUNK)


def test_an_answer_to_a_part_from_before_the_acknowledgement_fences_nobody() -> None:
    solo, snapshot, acknowledged = acknowledged_and_sent_a_snapshot()
    round_number, _ = progress(solo).acknowledged_before_round
    solo.tick()
    solo.has_received("3", snapshot, CHUNK, round=round_number, last_log_index=acknowledged - 1)
    assert not peer(solo).fenced


def test_an_answer_to_a_part_says_where_the_log_ends() -> None:
    solo = Solo(terms=(1, 1, 1), term=2)
    snapshot = snapshot_at(9, 2)
    solo.receive("2", snapshot)
    sent = solo.give(lambda raft: raft.snapshot_progress(snapshot.id, 5, 0))
    assert only(InstallSnapshotResponse, sent).last_log_index == 3


# --- debts of the rate ---

SHARE = 1000
"""Bytes in a tick, which is far less than a part."""
LIMITED = attrs.evolve(OPTIONS, catch_up_bytes_per_tick=SHARE)


def ticks_until_a_part_is_sent(solo: Solo, snapshot: Snapshot, server: str) -> int:
    """Let `server` answer at once that it has nothing of the snapshot yet."""
    solo.chunks.clear()
    for ticks in range(4 * T):
        solo.has_received(server, snapshot, 0)
        if solo.chunks_to(server):
            return ticks
        solo.tick()
        solo.acknowledge("2")
    raise AssertionError(f"nothing in {4 * T} ticks, {progress(solo, server).allowance_bytes}")


def test_a_voter_that_was_fed_far_above_the_rate_gets_its_snapshot_at_the_rate_at_once() -> None:
    solo = settled_leader(options=LIMITED)
    for _ in range(100):
        solo.give(lambda raft: raft.propose(b"x" * 2 * SHARE))
        solo.acknowledge("2")
        solo.acknowledge("3")
        solo.tick()
    solo.give(lambda raft: raft.report_unreachable("3"))
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    snapshot = solo.compact(solo.commit_index)
    solo.tick()
    assert peer(solo).snapshot == snapshot.id
    assert ticks_until_a_part_is_sent(solo, snapshot, "3") <= 1
    # One part is far more than the share of a tick, and is paid back before the next one.
    sent_before = len(solo.chunks)
    solo.tick(T // 2)
    assert not any(chunk.size_bytes for chunk in solo.chunks[sent_before:])


def test_what_a_voter_is_fed_runs_up_no_debts() -> None:
    """It may become a learner, whose rate is limited."""
    solo = settled_leader(options=LIMITED)
    for _ in range(100):
        solo.give(lambda raft: raft.propose(b"x" * 2 * SHARE))
        solo.acknowledge("2")
        solo.acknowledge("3")
        solo.tick()
    assert progress(solo).allowance_bytes == SHARE


def test_what_a_learner_owes_for_entries_does_not_delay_its_snapshot() -> None:
    """One entry may be as long as a thousand shares."""
    solo = settled_leader(learners=("4",), options=LIMITED)
    solo.give(lambda raft: raft.propose(b"x" * 1000 * SHARE))
    solo.acknowledge("2")
    solo.tick()
    assert progress(solo, "4").allowance_bytes < -900 * SHARE
    solo.give(lambda raft: raft.report_unreachable("4"))
    snapshot = solo.compact(solo.commit_index)
    solo.tick()
    assert peer(solo, "4").snapshot == snapshot.id
    assert ticks_until_a_part_is_sent(solo, snapshot, "4") <= 1
