"""The bug museum, replication: what is acknowledged is there, what is committed stays."""

from __future__ import annotations

import pytest

from raftd.core.errors import ProposalDropped
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    PreVoteResponse,
    RequestVoteResponse,
)
from raftd.core.progress import INFLIGHT_APPENDS_MAX
from raftd.core.types import Entry, EntryKind, Index
from raftd.inputs import Received
from raftd.protocol import GetRequest, WriteReply
from raftd.storage.files import StorageFault
from tests.core.harness import OPTIONS
from tests.core.scenario import Solo, command, of, only, settled_leader, snapshot_at
from tests.museum.disks import boot, power_failure
from tests.node.world import HEARTBEAT_TICKS, World
from tests.storage.memory_files import Crash

MIB = 1024 * 1024


def answer_to(leader: Solo, follower: Solo, request: AppendEntries) -> AppendEntriesResponse:
    """Return what `follower` answers to a request of `leader`."""
    return only(AppendEntriesResponse, follower.step(leader.raft.server, request))


@pytest.mark.parametrize("commit", [1, 5])
@pytest.mark.parametrize("entries", [(), (command(2, 1),), (command(2, 1), command(3, 1))])
def test_054_a_late_request_takes_nothing_away(entries: tuple[Entry, ...], commit: int) -> None:
    solo = Solo(terms=(1, 1, 1, 1, 1))
    solo.heartbeat("2", commit=commit)
    before = len(solo.readies)
    late = AppendEntries(1, 1, 1, entries, 1, 1)
    for _ in range(2):
        answer = only(AppendEntriesResponse, solo.step("2", late))
        assert (answer.success, answer.match_index) == (True, 1 + len(entries))
    assert solo.terms == [1, 1, 1, 1, 1]
    # Nothing is written either: there is no moment at which a crash could lose entries 3 to 5.
    assert all(ready.entries == () for ready in solo.readies[before:])
    # A conflict, on the other hand, takes away what follows it and nothing before it.
    if commit == 1:
        solo.heartbeat("2", term=2, prev=2, entries=[command(3, 1), command(4, 2)])
        assert solo.terms == [1, 1, 1, 2]
        assert [entry.index for entry in solo.readies[-1].entries] == [4]


def test_055_a_stale_entry_is_not_committed_by_a_heartbeat_that_ends_before_it() -> None:
    solo = Solo(terms=(1,) * 10, term=2)
    solo.heartbeat("2", prev=9, commit=11)
    assert solo.commit_index == 9
    assert [entry.index for entry in solo.applied] == list(range(1, 10))
    solo.heartbeat("2", prev=9, commit=11, entries=[command(10, 2), command(11, 2)])
    assert solo.commit_index == 11
    assert [entry.term for entry in solo.applied[9:]] == [2, 2]


def test_056_the_answer_to_a_heartbeat_moves_nothing_beyond_the_heartbeat() -> None:
    # Entries 4 and 5 of the follower are from a leader that died before anybody else had them.
    leader, follower = Solo(terms=(1, 1, 1)), Solo("2", terms=(1, 1, 1, 2, 2))
    follower_term = follower.term
    leader.campaign()
    leader.step("3", RequestVoteResponse(leader.term, vote_granted=False))
    leader.campaign()
    leader.step("3", RequestVoteResponse(leader.term, vote_granted=True))
    assert (leader.role, leader.term > follower_term, leader.last_index) == ("leader", True, 4)
    heartbeat = AppendEntries(leader.term, 3, 1, (), 0, leader.round)
    answer = answer_to(leader, follower, heartbeat)
    assert (answer.success, answer.match_index) == (True, 3)
    sent = of(AppendEntries, leader.step("2", answer))
    assert leader.commit_index == 0
    assert leader.raft.status().peers[0].match_index == 3
    for request in sent:
        leader.step("2", answer_to(leader, follower, request))
    assert follower.terms == leader.terms == [1, 1, 1, leader.term]
    assert leader.commit_index == 4


def after_snapshot(base_index: Index, last_index: Index) -> Solo:
    """Return server 1 whose log begins after a snapshot of the entries up to `base_index`."""
    entries = [command(index, 2) for index in range(base_index + 1, last_index + 1)]
    return Solo(entries=entries, snapshot=snapshot_at(base_index, 2))


@pytest.mark.parametrize("prev", [0, 5, 9, 10])
def test_057_what_a_snapshot_covers_is_no_conflict(prev: int) -> None:
    solo = after_snapshot(10, 12)
    entries = tuple(command(index, 2) for index in range(prev + 1, 14))
    request = AppendEntries(2, prev, 2 if prev else 0, entries, 0, 1)
    answer = only(AppendEntriesResponse, solo.step("2", request))
    assert (answer.success, answer.match_index) == (True, 13)
    # Entries 11 and 12 have stayed; 13 alone is new, and goes to the disk alone.
    assert [entry.index for entry in solo.readies[-1].entries] == [13]
    assert solo.terms == [2, 2, 2]


def test_057_a_late_request_that_ends_below_the_snapshot_changes_nothing() -> None:
    solo = after_snapshot(10, 12)
    late = AppendEntries(2, 3, 1, (command(4, 1), command(5, 2)), 5, 1)
    answer = only(AppendEntriesResponse, solo.step("2", late))
    assert (answer.success, answer.match_index) == (True, 5)
    assert (solo.last_index, solo.commit_index) == (12, 10)


def test_059_half_of_an_even_number_decides_nothing() -> None:
    solo = Solo(voters="1234")
    solo.time_out()
    solo.step("2", PreVoteResponse(1, 2, vote_granted=True))
    assert solo.role == "precandidate"
    solo.step("3", PreVoteResponse(1, 2, vote_granted=True))
    solo.step("2", RequestVoteResponse(2, vote_granted=True))
    assert solo.role == "candidate"
    solo.step("3", RequestVoteResponse(2, vote_granted=True))
    assert solo.role == "leader"
    solo.acknowledge("2")
    assert solo.commit_index == 0
    solo.acknowledge("3")
    assert solo.commit_index == 2
    solo.give(lambda raft: raft.read("r"))
    solo.acknowledge("2")
    assert solo.reads == []
    solo.acknowledge("3")
    assert [answer.token for answer in solo.reads] == ["r"]
    for _ in range(OPTIONS.election_ticks):
        solo.tick()
        solo.acknowledge("2")
    assert solo.role == "follower"


def test_060_hundreds_of_conflicting_entries_are_found_in_a_round_trip_for_each_term() -> None:
    ours = [1, *[2] * 60, *[5] * 60, *[8] * 60]
    theirs = [1, *[2] * 30, *[3] * 90, *[4] * 90, *[6] * 90]
    leader, follower = Solo(terms=ours), Solo("2", terms=theirs, term=9)
    leader.lead()
    (request,) = [
        envelope.message
        for envelope in leader.sent
        if envelope.dest == "2" and isinstance(envelope.message, AppendEntries)
    ]
    late: list[AppendEntriesResponse] = []
    for _ in range(len(set(theirs)) + 1):
        answer = answer_to(leader, follower, request)
        if answer.success:
            break
        late.append(answer)
        (request, *_) = of(AppendEntries, leader.step("2", answer))
    assert answer.success
    for missing in of(AppendEntries, leader.step("2", answer)):
        leader.step("2", answer_to(leader, follower, missing))
    assert follower.terms == leader.terms
    # The refusals arrive once more, when all is settled: nothing goes back.
    before = leader.raft.status().peers
    assert before[0].match_index == leader.last_index
    for refusal in late:
        assert of(AppendEntries, leader.step("2", refusal)) == []
    assert leader.raft.status().peers == before


@pytest.mark.parametrize("call", ["write", "sync"])
def test_061_the_only_voter_answers_nothing_that_its_disk_does_not_have(call: str) -> None:
    world = World()
    disk = boot(world, 1)
    leader = world.bootstrap()
    world.call(leader, world.put("a", "kept"))
    disk.files.crash_at = len(disk.files.calls) + {"write": 1, "sync": 2}[call]
    asked = world.ask_later(leader, world.put("a", "lost"))
    with pytest.raises(Crash):
        leader.turn(tick=False)
    assert asked.open
    assert leader.state.get("a").value == b"kept"
    power_failure(leader, disk, seed=3)
    leader.start()
    # Unsynced, it may be there or not; what was answered is.
    assert world.get("a") in ({"kept"} if call == "write" else {"kept", "lost"})


def test_061_a_leader_counts_itself_only_from_its_own_disk_on() -> None:
    solo = Solo(voters="1", learners="4")
    solo.lead()
    solo.acknowledge("4")
    # The entry is in memory when a message lets the leader look at what is committed.
    solo.raft.propose(b"x")
    answer = AppendEntriesResponse(solo.term, True, solo.round, solo.last_index - 1, 0)
    solo.raft.step(Envelope("4", "1", answer))
    assert solo.commit_index == solo.last_index - 1
    ready = solo.raft.take_ready()
    assert ready is not None
    assert (ready.entries[-1].data, ready.committed) == (b"x", ())
    solo.raft.persisted(ready)
    assert solo.commit_index == solo.last_index


def test_062_a_write_that_two_disks_acknowledged_survives_the_power_of_all() -> None:
    for seed in range(6):
        world = World()
        disks = {number: boot(world, number) for number in (1, 2, 3)}
        leader = world.form_of("n1", "n2", "n3")
        world.cut(["n1", "n2"], ["n3"])
        assert world.ask(leader, world.put("a", "acked")).reply == WriteReply(
            applied=True, revision=1
        )
        for number, disk in disks.items():
            power_failure(world[f"n{number}"], disk, seed)
        # The leader of then stays away: the follower's disk alone has to know the write.
        world.heal()
        for name in ("n2", "n3"):
            world[name].start()
        assert world.leader().name == "n2"
        assert world.get("a") == "acked"
        for name in ("n2", "n3"):
            world[name].kill()


def test_062_a_crash_before_the_sync_leaves_the_write_unacknowledged() -> None:
    world = World()
    leader, follower = world.form(3), world["n2"]
    world.cut(["n1", "n2"], ["n3"])
    follower.power.fail_at_next = "append"
    asked = world.ask(leader, world.put("a"))
    world.run(HEARTBEAT_TICKS)
    assert follower.node is None
    assert asked.open
    assert leader.status.commit_index < leader.status.last_index


@pytest.mark.parametrize("call", ["write", "sync"])
def test_063_after_a_failed_flush_no_heartbeat_commits_what_is_not_on_disk(call: str) -> None:
    world = World()
    disks = {number: boot(world, number) for number in (1, 2, 3)}
    leader, follower = world.form_of("n1", "n2", "n3"), world["n2"]
    durable = follower.status.last_index
    disks[2].fail_the_next(call)
    asked = world.ask_later(leader, world.put("a", "1"))
    leader.turn(tick=False)
    with pytest.raises(StorageFault):
        follower.turn(tick=False)
    world["n3"].turn(tick=False)
    leader.turn(tick=False)
    assert asked.reply == WriteReply(applied=True, revision=1)
    # The heartbeat that would say that the entry is committed finds nobody at home.
    raft = follower.running.raft
    heartbeat = AppendEntries(
        raft.current_term, durable + 1, raft.current_term, (), durable + 1, 99
    )
    follower.inbox = [Received(Envelope(leader.id, follower.id, heartbeat))]
    with pytest.raises(AssertionError):
        follower.turn(tick=False)
    assert raft.log.commit_index <= raft.log.durable_index == durable == disks[2].wal.last_index
    power_failure(follower, disks[2])
    follower.start()
    assert follower.status.last_index == durable
    world.until(world.is_settled)
    assert follower.state.get("a").value == b"1"


@pytest.mark.parametrize("count", [1, 3])
def test_064_a_leader_that_restarts_commits_what_it_has_with_a_no_op_of_its_own(
    count: int,
) -> None:
    world = World()
    leader = world.form(count)
    for number in range(3):
        world.call(leader, world.put(f"k{number}"))
    world.until(world.is_settled)
    last_index, term = leader.status.last_index, leader.status.term
    mark = len(leader.journal)
    for server in list(world.up()):
        server.kill()
    for server in world.servers.values():
        server.start()
    again = world.leader()
    assert again.status.term > term
    log = again.running.raft.log
    assert log.entry(last_index + 1).kind is EntryKind.NOOP
    assert again.running.raft.leader().term_start == last_index + 1
    assert again.status.commit_index == again.state.applied_index == last_index + 1
    # What is on disk is known to be there, and is not written again.
    assert all(
        entry.index > last_index
        for event in leader.journal[mark:]
        if event[0] == "append"
        for entry in event[2]
    )
    assert world.call(again, world.put("after")) == WriteReply(applied=True, revision=4)


def test_065_a_finished_write_speaks_for_its_own_entries_only() -> None:
    solo = Solo(terms=(1,) * 11)
    solo.raft.step(Envelope("2", "1", AppendEntries(1, 11, 1, (command(12, 1),), 0, 1)))
    first = solo.raft.take_ready()
    assert first is not None
    assert [entry.index for entry in first.entries] == [12]
    overwriting = Envelope("3", "1", AppendEntries(2, 11, 1, (command(12, 2),), 0, 1))
    # While the first write is under way nothing can take entry 12 away from under it.
    with pytest.raises(AssertionError, match="owed"):
        solo.raft.step(overwriting)
    solo.raft.persisted(first)
    assert solo.raft.log.durable_index == 12
    solo.raft.step(overwriting)
    assert solo.raft.log.durable_index == 11
    second = solo.raft.take_ready()
    assert second is not None
    assert [entry.term for entry in second.entries] == [2]
    # A report about the first write does not pass for one about the second.
    with pytest.raises(AssertionError, match="latest Ready"):
        solo.raft.persisted(first)
    assert solo.raft.log.durable_index == 11


def test_066_no_client_waits_for_ever_and_none_hears_failed_for_what_is_done_later() -> None:
    world = World()
    leader = world.form(3)
    write, late_write = world.put("a", "1"), world.put("b", "1")
    # The first write reaches n2 and is acknowledged to nobody, the second reaches nobody.
    world.passes = lambda envelope: envelope.source == leader.id and envelope.dest[:2] != "n3"
    first = world.ask(leader, write)
    world.cut(["n1"], ["n2", "n3"])
    second = world.ask(leader, late_write)
    read = world.ask(leader, GetRequest(key="a"))
    world.passes = lambda envelope: True
    world.until(lambda: not (first.open or second.open or read.open))
    assert first.error.code == second.error.code == "unknown-outcome"
    assert read.error.code in ("not-leader", "unavailable")
    # The first is done after all, and asking again neither fails nor does it twice.
    heir = world.until(lambda: next((s for s in world.up() if s.leads and s is not leader), None))
    world.until(lambda: heir.state.get("a"))
    assert heir.state.get("b") is None
    assert world.call(heir, write) == WriteReply(applied=True, revision=1)
    assert world.call(heir, late_write) == WriteReply(applied=True, revision=2)
    world.heal()
    world.until(world.is_settled)
    assert [server.state.get("a").version for server in world.up()] == [1, 1, 1]


def test_067_proposals_are_taken_again_after_any_number_of_lost_leaderships() -> None:
    solo = settled_leader()
    for _ in range(2):
        for _ in range(3):
            solo.give(lambda raft: raft.propose(b"x" * (20 * MIB)))
        with pytest.raises(ProposalDropped):
            solo.raft.propose(b"x" * (20 * MIB))
        # Another leader takes over; what was proposed here is overwritten.
        keep = solo.commit_index
        term = solo.term + 1
        solo.heartbeat("2", term=term, prev=keep, entries=[command(keep + 1, term)])
        assert solo.last_index == keep + 1
        # Rounds begin anew with each leadership.
        solo.sent.clear()
        solo.lead()
        solo.acknowledge("2")
        assert solo.commit_index == solo.last_index
        for _ in range(2):
            solo.give(lambda raft: raft.propose(b"x" * (50 * MIB)))
            solo.acknowledge("2")
        assert solo.commit_index == solo.last_index


def test_067_a_window_that_was_lost_with_its_link_opens_again() -> None:
    solo = settled_leader()
    for _ in range(3):
        for _ in range(INFLIGHT_APPENDS_MAX + 5):
            solo.give(lambda raft: raft.propose(b"x"))
        (peer, _) = solo.raft.status().peers
        assert peer.next_index <= solo.last_index, "the window is full"
        solo.give(lambda raft: raft.report_unreachable("2"))
        while solo.raft.status().peers[0].match_index < solo.last_index:
            before = solo.raft.status().peers[0].match_index
            # The server acknowledges what the last request to it had carried.
            request = [
                envelope.message
                for envelope in solo.sent
                if envelope.dest == "2" and isinstance(envelope.message, AppendEntries)
            ][-1]
            solo.acknowledge("2", request.prev_log_index + len(request.entries))
            assert solo.raft.status().peers[0].match_index > before
        assert solo.commit_index == solo.last_index


def test_068_terms_never_fall_within_a_log() -> None:
    for prev, entries in (
        (2, (command(3, 2),)),
        (2, (command(3, 4), command(4, 3))),
        (1, (command(2, 3), command(3, 2))),
        (2, (command(3, 6),)),
    ):
        solo = Solo(terms=(1, 3), term=5)
        prev_term = {1: 1, 2: 3}[prev]
        assert solo.step("2", AppendEntries(5, prev, prev_term, entries, 0, 1)) == []
        assert solo.terms == [1, 3]
    # A leader's own entries follow what it has, whatever it has.
    leader = Solo(terms=(1, 3), term=3)
    leader.lead()
    leader.give(lambda raft: raft.propose(b"x"))
    assert leader.terms == [1, 3, 4, 4]
    follower = Solo("2", term=1)
    for request in of(AppendEntries, leader.sent):
        follower.step("1", request)
    follower.step("1", AppendEntries(4, 1, 1, tuple(leader.raft.log.entries(2, 4)), 0, 9))
    assert follower.terms == [1, 3, 4, 4]
