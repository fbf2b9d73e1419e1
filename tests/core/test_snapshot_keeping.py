"""Who is sent a snapshot: what is kept for it, its share of the leader, and its membership.

Source: dissertation chapter 5 and section 4.2.1.
"""

from __future__ import annotations

import attrs
import pytest

from raftd.core.errors import NotCaughtUp
from raftd.core.messages import AppendEntries, AppendEntriesResponse, Envelope
from raftd.core.progress import SNAPSHOT_CHUNK_BYTES, SNAPSHOT_PATIENCE_ELECTION_TIMEOUTS
from tests.core.harness import OPTIONS
from tests.core.scenario import SNAPSHOT_BYTES, Solo, change_of, of, settled_leader
from tests.core.snapshot_scenario import leader, peer, progress, refuse, role, sending

T = OPTIONS.election_ticks
CHUNK = SNAPSHOT_CHUNK_BYTES


# --- what is kept ---


def test_a_snapshot_that_is_being_sent_stays_in_use_when_a_newer_one_is_taken() -> None:
    solo, old = sending()
    solo.has_received("3", old, CHUNK)
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    new = solo.compact(solo.commit_index, to=old.id.last_included_index, checksum="new")
    assert solo.raft.snapshots_in_use() == {old.id, new.id}
    solo.has_received("3", old, 2 * CHUNK)
    assert {c.snapshot for c in solo.chunks if c.dest == "3"} == {old.id}
    solo.has_received("3", old, SNAPSHOT_BYTES, match_index=old.id.last_included_index)
    assert solo.raft.snapshots_in_use() == {new.id}
    assert peer(solo).snapshot is None


def test_who_has_the_older_one_is_sent_the_newer_one_if_the_log_begins_after_it() -> None:
    solo, old = sending()
    solo.has_received("3", old, CHUNK)
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    new = solo.compact(solo.commit_index, checksum="new")
    solo.has_received("3", old, SNAPSHOT_BYTES, match_index=old.id.last_included_index)
    assert peer(solo).snapshot == new.id
    assert peer(solo).match_index == old.id.last_included_index
    # Repeated, the answer costs one question, and nothing that was received.
    solo.has_received("3", new, 2 * CHUNK)
    solo.has_received("3", old, SNAPSHOT_BYTES, match_index=old.id.last_included_index)
    solo.chunks_to("3")
    solo.has_received("3", new, 2 * CHUNK)
    assert solo.chunks_to("3")[0] == (2 * CHUNK, CHUNK)


def test_who_has_said_nothing_about_an_older_snapshot_is_sent_the_newest() -> None:
    """A server that is away does not keep the older one from being removed."""
    solo, old = sending()
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    new = solo.compact(solo.commit_index, to=old.id.last_included_index, checksum="new")
    assert peer(solo).snapshot == new.id
    assert solo.raft.snapshots_in_use() == {new.id}


def test_an_older_snapshot_is_not_kept_for_a_server_that_vanished_half_way() -> None:
    """It may come back for the newest one, or never."""
    solo, old = sending()
    solo.has_received("3", old, CHUNK)
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    new = solo.compact(solo.commit_index, to=old.id.last_included_index, checksum="new")

    def wait(ticks: int) -> None:
        for _ in range(ticks):
            solo.tick()
            solo.acknowledge("2")

    wait(SNAPSHOT_PATIENCE_ELECTION_TIMEOUTS * T)
    assert solo.raft.snapshots_in_use() == {old.id, new.id}
    # A server that was away for a while goes on where it was.
    solo.has_received("3", old, CHUNK)
    wait(SNAPSHOT_PATIENCE_ELECTION_TIMEOUTS * T)
    assert solo.raft.snapshots_in_use() == {old.id, new.id}
    wait(1)
    assert solo.raft.snapshots_in_use() == {new.id}
    assert peer(solo).snapshot == new.id
    # It is asked what it has of the newest one; what it says of the older one comes too late.
    solo.chunks.clear()
    solo.has_received("3", old, 2 * CHUNK)
    assert solo.chunks_to("3") == []
    solo.has_received("3", new, 0)
    assert {c.snapshot for c in solo.chunks if c.dest == "3"} == {new.id}


def test_a_server_that_does_not_lead_keeps_its_newest_snapshot_only() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, CHUNK)
    solo.give(lambda raft: raft.snapshot_taken(attrs.evolve(snapshot)))
    solo.heartbeat("2", solo.term + 1, prev=solo.last_index)
    assert solo.raft.snapshots_in_use() == {snapshot.id}


def test_entries_that_a_server_in_contact_lacks_are_needed() -> None:
    solo = leader(count=6)
    last = solo.last_index
    solo.acknowledge("3", last - 4)
    assert role(solo).needed_after() == last - 4
    solo.acknowledge("3")
    assert role(solo).needed_after() == last


def test_entries_after_a_snapshot_that_is_being_sent_are_needed() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, CHUNK)
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    assert role(solo).needed_after() == snapshot.id.last_included_index


def test_nothing_is_kept_for_a_server_that_is_away() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, CHUNK)
    solo.give(lambda raft: raft.propose(b"x"))
    for _ in range(T + 1):
        solo.tick()
        solo.acknowledge("2")
    assert role(solo).needed_after() == solo.last_index


def test_compaction_goes_no_further_than_the_snapshot() -> None:
    solo = leader()
    solo.compact(4, to=3)
    with pytest.raises(AssertionError):
        solo.raft.compact(5)
    assert solo.raft.log.base_index == 3


# --- a share of the leader ---


def throttled(rate: int) -> dict[str, object]:
    return {"options": attrs.evolve(OPTIONS, catch_up_bytes_per_tick=rate)}


def test_a_snapshot_is_sent_no_faster_than_its_share() -> None:
    """Parts are not cut: what was too much in one tick is paid back in the next ones."""
    solo, snapshot = sending(**throttled(CHUNK // 2))
    sent_bytes, counts = 0, []
    for _ in range(8):
        solo.tick()
        solo.acknowledge("2")
        solo.has_received("3", snapshot, sent_bytes)
        parts = solo.chunks_to("3")
        sent_bytes += sum(size for _, size in parts)
        counts.append(len(parts))
    assert counts == [1, 0, 1, 0, 1, 0, 1, 0]


def test_what_was_not_sent_in_a_tick_is_lost() -> None:
    solo, snapshot = sending(**throttled(CHUNK))
    for _ in range(5):
        solo.tick()
        solo.acknowledge("2")
    solo.has_received("3", snapshot, 0)
    assert solo.chunks_to("3") == [(0, CHUNK)]


def test_a_learner_gets_entries_no_faster_than_its_share() -> None:
    """What is too much in one tick is paid back before anything more is sent."""
    solo = settled_leader(learners=["4"], **throttled(1000))
    sizes = []
    for count in (4, 2, 0, 0):
        solo.sent.clear()
        solo.tick()
        for _ in range(count):
            solo.give(lambda raft: raft.propose(b"x" * 900))
            solo.acknowledge("2")
        to_learner = of(AppendEntries, [e for e in solo.sent if e.dest == "4"])
        sizes.append(sum(len(entry.data) for m in to_learner for entry in m.entries))
    assert sizes == [1800, 1800, 0, 1800]


def test_a_voter_that_lags_gets_entries_as_fast_as_it_can() -> None:
    """Its vote may be needed at any moment."""
    solo = settled_leader(**throttled(10))
    solo.sent.clear()
    for _ in range(4):
        solo.give(lambda raft: raft.propose(b"x" * 900))
    for server in ("2", "3"):
        entries = [
            entry.index
            for m in of(AppendEntries, [e for e in solo.sent if e.dest == server])
            for entry in m.entries
        ]
        assert entries == list(range(solo.last_index - 3, solo.last_index + 1))


def test_a_throttled_server_still_gets_heartbeats() -> None:
    solo, snapshot = sending(**throttled(1))
    solo.tick()
    solo.has_received("3", snapshot, 0)
    solo.chunks.clear()
    solo.tick(3)
    assert [c.size_bytes for c in solo.chunks if c.dest == "3"] == [0, 0, 0]


# --- membership ---


def test_a_learner_that_got_a_snapshot_is_caught_up_by_rounds() -> None:
    """Dissertation 4.2.1: the snapshot is the first round, and a long one; short ones follow."""
    solo = settled_leader()
    for number in range(5):
        solo.give(lambda raft, number=number: raft.propose(b"%d" % number))  # type: ignore[misc]
    solo.acknowledge("2")
    snapshot = solo.compact(solo.commit_index)
    solo.give(lambda raft: raft.change_membership(change_of(("learner", "4"))))
    solo.acknowledge("2")
    solo.tick()
    refuse(solo, "4", 0)
    for number in range(2 * T):
        solo.tick()
        solo.acknowledge("2")
        solo.has_received("4", snapshot, number)
    with pytest.raises(NotCaughtUp):
        solo.raft.change_membership(change_of(("voter", "4")))
    solo.has_received("4", snapshot, SNAPSHOT_BYTES, match_index=snapshot.id.last_included_index)
    assert not role(solo).is_caught_up("4")
    for _ in range(3):
        solo.tick()
        solo.acknowledge("2")
        solo.acknowledge("3")
        solo.acknowledge("4")
    assert role(solo).is_caught_up("4")
    solo.give(lambda raft: raft.change_membership(change_of(("voter", "4"))))
    assert solo.raft.configuration is not None
    assert solo.raft.configuration.configuration.is_joint


def test_who_is_sent_a_snapshot_is_not_caught_up() -> None:
    """Its rounds were short until just now; then its link broke and the log was compacted."""
    solo, snapshot = sending()
    solo.tick()
    assert progress(solo).round_was_short
    solo.has_received("3", snapshot, CHUNK)
    assert not role(solo).is_caught_up("3")


def test_a_departing_server_learns_by_snapshot_that_it_is_removed() -> None:
    solo = settled_leader()
    solo.give(lambda raft: raft.change_membership(change_of(("remove", "3"))))
    solo.acknowledge("2")
    solo.acknowledge("2")
    assert solo.raft.configuration is not None
    index = solo.raft.configuration.index
    assert "3" not in solo.raft.configuration.configuration.members
    solo.give(lambda raft: raft.report_unreachable("3"))
    snapshot = solo.compact(solo.commit_index)
    assert snapshot.configuration.entry.tombstones == {"3"}
    assert peer(solo).departing
    assert peer(solo).snapshot == snapshot.id
    solo.has_received("3", snapshot, CHUNK, commit_index=0)
    assert peer(solo).departing
    solo.has_received("3", snapshot, SNAPSHOT_BYTES, match_index=index, commit_index=index)
    assert "3" not in role(solo).progress


def test_a_removed_server_lets_go_of_its_snapshot() -> None:
    solo, old = sending()
    solo.has_received("3", old, CHUNK)
    solo.give(lambda raft: raft.change_membership(change_of(("remove", "3"))))
    for _ in range(2):
        solo.acknowledge("2")
    for _ in range(OPTIONS.departing_ticks + 1):
        solo.tick()
        solo.acknowledge("2")
    assert "3" not in role(solo).progress
    new = solo.compact(solo.commit_index, checksum="new")
    assert solo.raft.snapshots_in_use() == {new.id}
    solo.has_received("3", old, 2 * CHUNK)


def test_a_leader_that_steps_down_sends_no_more_of_it() -> None:
    solo, snapshot = sending()
    solo.has_received("3", snapshot, 0)
    solo.chunks.clear()
    solo.heartbeat("2", solo.term + 1, prev=solo.last_index)
    solo.tick(3)
    assert solo.chunks == []


# --- space ---


def say_short(solo: Solo, source: str, *, short: bool = True) -> None:
    response = AppendEntriesResponse(
        solo.term, True, solo.round, solo.last_index, 0, short_of_space=short
    )
    solo.give(lambda raft: raft.step(Envelope(source, "1", response)))


def test_nothing_more_should_be_written_if_too_many_disks_are_nearly_full() -> None:
    solo = settled_leader(("1", "2", "3", "4", "5"), ["6"])
    say_short(solo, "2")
    say_short(solo, "6")
    say_short(solo, "3")
    assert role(solo).short_of_space() == frozenset()
    say_short(solo, "4")
    assert role(solo).short_of_space() == {"2", "3", "4"}
    say_short(solo, "3", short=False)
    assert role(solo).short_of_space() == frozenset()
    solo.raft.is_short_of_space = True
    assert role(solo).short_of_space() == {"1", "2", "4"}


def test_followers_say_that_they_are_short_of_space() -> None:
    solo = Solo(terms=(1, 1))
    for is_short in (False, True):
        solo.raft.is_short_of_space = is_short
        for prev in (2, 9):
            answer = solo.heartbeat("2", prev=prev, prev_term=1)
            assert isinstance(answer, AppendEntriesResponse)
            assert (answer.success, answer.short_of_space) == (prev == 2, is_short)
