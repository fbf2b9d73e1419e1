"""How much of its leader a server gets that catches up, and how soon it is asked where it is."""

from __future__ import annotations

import attrs
import pytest

from raftd.core.log import RaftLog
from raftd.core.messages import AppendEntries, AppendEntriesResponse, Envelope
from raftd.core.pacing import ENTRIES_MIN, ENTRY_COST_BYTES, GAIN, CatchUpPace, Share
from raftd.core.progress import SNAPSHOT_CHUNK_BYTES
from tests.core.harness import OPTIONS
from tests.core.scenario import Solo, command, of, settled_leader
from tests.core.snapshot_scenario import progress, sending

CHUNK = SNAPSHOT_CHUNK_BYTES
FULL, BUSY = 1_000_000, 99_000
RATES = attrs.evolve(OPTIONS, catch_up_bytes_per_tick=FULL, busy_catch_up_bytes_per_tick=BUSY)


def make_log(entries: int = 10) -> RaftLog:
    return RaftLog([command(index, 1, b"x" * 50) for index in range(1, entries + 1)])


def grow(log: RaftLog, entries: int, size_bytes: int = 50) -> None:
    first = log.last_index + 1
    log.append([command(index, 1, b"x" * size_bytes) for index in range(first, first + entries)])


@pytest.fixture
def log() -> RaftLog:
    return make_log()


@pytest.fixture
def pace(log: RaftLog) -> CatchUpPace:
    return CatchUpPace(RATES, log.last_index)


def test_who_catches_up_gets_all_as_long_as_clients_ask_for_nothing(
    log: RaftLog, pace: CatchUpPace
) -> None:
    assert pace.share(log, 1) == pace.share(log, 3) == Share(FULL)


@pytest.mark.parametrize("what", ["write", "read"])
def test_after_a_tick_in_which_clients_worked_it_gets_less_and_then_all_again(
    log: RaftLog, pace: CatchUpPace, what: str
) -> None:
    if what == "write":
        grow(log, 1)
    else:
        pace.note_reads()
    assert pace.share(log, 1) == Share(BUSY, ENTRY_COST_BYTES)
    assert pace.share(log, 1) == Share(FULL)


def test_several_together_take_no_more_of_a_busy_leader_than_one(
    log: RaftLog, pace: CatchUpPace
) -> None:
    pace.note_reads()
    assert 3 * pace.share(log, 3).size_bytes == BUSY


def test_it_gets_more_than_clients_write_or_it_would_never_catch_up(
    log: RaftLog, pace: CatchUpPace
) -> None:
    grow(log, 1_000)
    written_bytes = log.bytes_between(10, 1_010)
    share = pace.share(log, 1)
    assert share.size_bytes == min(FULL, GAIN * (written_bytes + 1_000 * ENTRY_COST_BYTES)) > BUSY
    grow(log, 40)
    # Also what each of the entries counts for.
    assert pace.share(log, 1).size_bytes > GAIN * 40 * ENTRY_COST_BYTES > BUSY


def test_what_the_operator_allows_is_never_exceeded(log: RaftLog) -> None:
    options = attrs.evolve(RATES, catch_up_bytes_per_tick=10)
    pace = CatchUpPace(options, log.last_index)
    grow(log, 1_000)
    assert pace.share(log, 1).size_bytes == 10
    assert pace.share(log, 1).size_bytes == 10


def test_a_log_that_is_compacted_meanwhile_counts_as_far_as_it_is_there(
    log: RaftLog, pace: CatchUpPace
) -> None:
    grow(log, 20)
    log.durable_index = log.commit_index = log.handed_index = log.last_index
    log.compact(25)
    assert pace.share(log, 1) == Share(BUSY, ENTRY_COST_BYTES)


@pytest.mark.parametrize("busy", [True, False])
def test_a_snapshot_takes_less_of_a_leader_whose_clients_write(busy: bool) -> None:
    options = attrs.evolve(
        OPTIONS, catch_up_bytes_per_tick=100 * CHUNK, busy_catch_up_bytes_per_tick=CHUNK // 2
    )
    solo, snapshot = sending(options=options)
    sent_bytes, counts = 0, []
    for _ in range(6):
        if busy:
            solo.give(lambda raft: raft.propose(b"x"))
        solo.acknowledge("2")
        solo.tick()
        solo.has_received("3", snapshot, sent_bytes)
        parts = solo.chunks_to("3")
        sent_bytes += sum(size for _, size in parts)
        counts.append(len(parts))
    if busy:
        assert counts == [1, 0, 1, 0, 1, 0]
    else:
        assert sent_bytes == snapshot.id.size_bytes


def test_clients_that_read_are_spared_as_those_that_write() -> None:
    options = attrs.evolve(
        OPTIONS, catch_up_bytes_per_tick=100 * CHUNK, busy_catch_up_bytes_per_tick=1
    )
    solo, _ = sending(options=options)
    solo.acknowledge("2")
    solo.give(lambda raft: raft.read("what"))
    solo.acknowledge("2")
    solo.tick()
    assert progress(solo).allowance_bytes == 1
    solo.acknowledge("2")
    solo.tick()
    assert progress(solo).allowance_bytes == 100 * CHUNK


def test_clients_that_read_by_the_lease_are_spared_as_well() -> None:
    options = attrs.evolve(
        OPTIONS,
        vote_withheld_ms=1_000,
        catch_up_bytes_per_tick=100 * CHUNK,
        busy_catch_up_bytes_per_tick=1,
    )
    solo, _ = sending(options=options)
    solo.tick(options.heartbeat_ticks)
    response = AppendEntriesResponse(
        solo.term, True, solo.round, solo.last_index, 0, vote_withheld_ms=options.vote_withheld_ms
    )
    solo.give(lambda raft: raft.step(Envelope("2", "1", response)))
    assert progress(solo).allowance_bytes == 100 * CHUNK
    assert solo.raft.lease_index() is not None
    solo.tick()
    assert progress(solo).allowance_bytes == 1


def entries_to(solo: Solo, server: str) -> list[int]:
    to_server = of(AppendEntries, [e for e in solo.sent if e.dest == server])
    return [entry.index for message in to_server for entry in message.entries]


def test_entries_take_more_of_a_busy_leader_than_their_bytes() -> None:
    options = attrs.evolve(
        OPTIONS,
        catch_up_bytes_per_tick=1 << 30,
        busy_catch_up_bytes_per_tick=ENTRIES_MIN * ENTRY_COST_BYTES,
    )
    solo = settled_leader(learners=["4"], options=options)
    solo.give(lambda raft: raft.propose(b"x"))
    solo.acknowledge("2")
    solo.acknowledge("4")
    solo.tick()
    assert progress(solo, "4").entry_bytes == ENTRY_COST_BYTES
    before_bytes = progress(solo, "4").allowance_bytes
    solo.give(lambda raft: raft.propose(b"y"))
    solo.acknowledge("2")
    assert before_bytes - progress(solo, "4").allowance_bytes == ENTRY_COST_BYTES + 1


# --- a link that comes up -----------------------------------------------------------------------


def test_whom_there_is_a_link_to_now_is_asked_at_once_and_not_with_the_next_heartbeat() -> None:
    solo = settled_leader()
    solo.give(lambda raft: raft.report_unreachable("3"))
    solo.give(lambda raft: raft.propose(b"x"))
    assert solo.last_index in entries_to(solo, "3")
    solo.sent.clear()
    assert solo.give(lambda raft: raft.propose(b"y"))
    # The probe before was lost with the link, for all that anybody knows.
    assert entries_to(solo, "3") == []
    solo.give(lambda raft: raft.report_connected("3"))
    assert entries_to(solo, "3") == [solo.last_index - 1, solo.last_index]


def test_who_is_to_be_sent_a_snapshot_is_asked_at_once_what_it_has_of_it() -> None:
    solo, _ = sending()
    solo.chunks.clear()
    solo.give(lambda raft: raft.report_connected("3"))
    assert [chunk.size_bytes for chunk in solo.chunks if chunk.dest == "3"] == [0]


def test_a_link_to_a_stranger_or_of_a_follower_asks_nobody() -> None:
    leading, following = settled_leader(), Solo()
    for solo in (leading, following):
        solo.sent.clear()
        solo.give(lambda raft: raft.report_connected("9"))
        assert solo.sent == []


def test_a_small_share_is_not_eaten_up_by_what_entries_cost() -> None:
    pace = CatchUpPace(attrs.evolve(RATES, catch_up_bytes_per_tick=320), 0)
    pace.note_reads()
    assert pace.share(RaftLog(), 1) == Share(320, 320 // ENTRIES_MIN)
