"""What the log says, to the line: elections, members that go and come, changes; and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftd.core.types import server_name
from raftd.event_log import Sparing
from raftd.peer_log import LINES_MAX as PEER_LINES_MAX
from raftd.peer_log import SLOW_MS
from raftd.protocol import GetRequest, TransferReply, TransferRequest
from raftd.role_log import STILL_MS
from tests.node.growing import fill_until_compacted, snapshot_world
from tests.node.log_capture import Capture, Line, captured
from tests.node.world import ELECTION_TICKS, TICK_MS, World, drop, is_joint, new

GOLDEN = Path(__file__).parent / "golden"
IDLE_TICKS = 12_000
"""Ten minutes of nothing."""

Approve = Callable[[str, str], None]


@pytest.fixture
def capture() -> Iterator[Capture]:
    with captured() as capture:
        yield capture


@pytest.fixture
def golden(update_golden: bool) -> Approve:
    """Return what compares a listing with the one that was approved."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if update_golden:
            GOLDEN.mkdir(exist_ok=True)
            path.write_text(text + "\n")
        assert text.splitlines() == path.read_text().splitlines()

    return compare


def of_event(lines: list[Line], *events: str) -> list[Line]:
    return [line for line in lines if line.event in events]


# --- whole stories --------------------------------------------------------------------------


def test_the_listing_of_a_replacement(capture: Capture, golden: Approve) -> None:
    world = World()
    world.form(3)
    world.boot("n4")
    capture.take()
    operation = world.started(world.change("replace", drop("n3"), new("n4")))
    world.finish(operation)
    world.run(3 * ELECTION_TICKS)
    golden("log_of_a_replacement", capture.text())


def test_the_listing_of_a_failover_and_of_the_return(capture: Capture, golden: Approve) -> None:
    world = World()
    leader = world.form(3)
    capture.take()
    leader.kill()
    world.leader()
    world.run(2 * ELECTION_TICKS)
    leader.start()
    world.run(3 * ELECTION_TICKS)
    golden("log_of_a_failover", capture.text())


def test_the_listing_of_a_transfer(capture: Capture, golden: Approve) -> None:
    world = World()
    world.form(3)
    capture.take()
    reply = world.call("n1", TransferRequest(target="n2"))
    assert isinstance(reply, TransferReply)
    world.run(2 * ELECTION_TICKS)
    golden("log_of_a_transfer", capture.text())


def test_the_listing_of_a_change_whose_new_half_dies(capture: Capture, golden: Approve) -> None:
    world = World()
    world.form(3)
    world.boot("n4")
    world.boot("n5")
    capture.take()
    world.passes = lambda envelope: (
        not (is_joint(envelope) and server_name(envelope.dest) in ("n4", "n5"))
    )
    request = world.change("replace", drop("n2"), drop("n3"), new("n4"), new("n5"))
    operation = world.started(request)
    record = world.finish(operation)
    world.run(ELECTION_TICKS)
    assert record.result == "aborted"
    golden("log_of_a_lost_half", capture.text())


# --- nothing happens --------------------------------------------------------------------------


def test_a_cluster_in_which_nothing_happens_says_nothing(capture: Capture) -> None:
    world = World()
    world.form(3)
    world.run(ELECTION_TICKS)
    capture.take()
    world.run(IDLE_TICKS)
    assert capture.take() == []


def test_clients_are_not_in_the_log(capture: Capture) -> None:
    world = World()
    world.form(3)
    world.run(ELECTION_TICKS)
    capture.take()
    for number in range(300):
        world.call("n1", world.put(f"key{number}"))
        world.get(f"key{number}")
    world.call("n1", GetRequest(key=""))
    assert capture.take() == []


def test_what_a_restart_finds_is_no_news(capture: Capture) -> None:
    world = World()
    world.form(3)
    world.run(ELECTION_TICKS)
    world["n2"].kill()
    capture.take()
    world["n2"].start()
    world.run(2)
    (line,) = [line for line in capture.take() if line.server == "n2"]
    assert (line.event, line.fields["leader"]) == ("follower", world["n1"].id)


# --- a cluster without a leader ---------------------------------------------------------------


def test_a_server_that_finds_no_leader_says_so_now_and_then(capture: Capture) -> None:
    world = World()
    world.form(3)
    world.run(ELECTION_TICKS)
    world.cut(["n3"], ["n1", "n2"])
    capture.take()
    minutes = 4
    world.run(int(minutes * 60_000 / TICK_MS))
    said = [line for line in capture.take() if line.server == "n3"]
    assert {line.event for line in said} == {"leader-lost"}
    assert {line.level for line in said} == {"warning"}
    first, *later = said
    assert "no word from n1 (leader of term 2) for " in first.message
    assert first.fields["leader"] == world["n1"].id
    # It asks once in an election timeout or two.
    assert minutes * 60_000 / STILL_MS - 2 <= len(later) <= minutes * 60_000 / STILL_MS
    for line in later:
        assert line.message.endswith("n1, n2 did not answer")
    attempts = [int(str(line.fields["attempts"])) for line in later]
    assert attempts == sorted(attempts)
    assert attempts[0] > 10
    world.heal()
    world.run(2 * ELECTION_TICKS)
    (back,) = of_event([line for line in capture.take() if line.server == "n3"], "follower")
    assert back.message.endswith("s without a leader")
    assert abs(int(str(back.fields["leaderless_ms"])) - minutes * 60_000) < 2_000


def test_a_leader_that_lost_its_quorum_names_who_is_silent(capture: Capture) -> None:
    world = World()
    world.form(3)
    world.run(ELECTION_TICKS)
    capture.take()
    world.cut(["n1"], ["n2", "n3"])
    world.run(3 * ELECTION_TICKS)
    (line,) = of_event(capture.take(), "step-down")
    assert (line.server, line.level) == ("n1", "warning")
    assert "no majority of {n1, n2, n3} has answered for 400 ms" in line.message
    assert "silent: n2 (" in line.message
    assert line.fields["reason"] == "quorum-lost"


# --- members ----------------------------------------------------------------------------------


def test_a_member_that_goes_and_comes_is_told_each_time_until_it_is_too_often(
    capture: Capture,
) -> None:
    world = World()
    world.form(3)
    world.run(ELECTION_TICKS)
    capture.take()
    times = 10
    for _ in range(times):
        world.cut(["n3"], ["n1", "n2"])
        world.run(ELECTION_TICKS + 2)
        world.heal()
        world.run(ELECTION_TICKS)
    told = of_event(capture.take(), "peer-silent", "peer-back")
    assert {line.server for line in told} == {"n1"}
    assert len(told) == PEER_LINES_MAX
    assert [line.event for line in told] == ["peer-silent", "peer-back"] * (PEER_LINES_MAX // 2)
    world.run(int(60_000 / TICK_MS))
    world.cut(["n3"], ["n1", "n2"])
    world.run(ELECTION_TICKS + 2)
    (line,) = of_event(capture.take(), "peer-silent")
    count = 2 * times - PEER_LINES_MAX
    assert line.message.endswith(f"({count} more like this were not logged)")


def test_a_voter_that_answers_and_does_not_keep_up_is_slow(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.form(3)
    world.run(ELECTION_TICKS)
    capture.take()
    leader = world["n1"].running.raft.leader()
    slow = leader.progress[world["n3"].id]
    stuck_at = slow.match_index
    acknowledged = type(slow).acknowledged

    def acknowledge_late(progress: object, match_index: int) -> None:
        acknowledged(progress, stuck_at if progress is slow else match_index)  # type: ignore[arg-type]

    monkeypatch.setattr(type(slow), "acknowledged", acknowledge_late)
    for number in range(int(2 * SLOW_MS / TICK_MS)):
        if number % 10 == 0:
            world.call("n1", world.put("a", str(number)))
        world.tick()
    (line,) = of_event(capture.take(), "peer-slow")
    assert (line.level, line.fields["peer"]) == ("warning", world["n3"].id)
    assert "n3 is slow: it answers, and has entries up to" in line.message
    monkeypatch.undo()
    world.call("n1", world.put("a", "last"))
    world.run(2 * ELECTION_TICKS)
    (line,) = of_event(capture.take(), "peer-caught-up")
    assert line.message.startswith("n3 keeps up again, after ")


def test_a_snapshot_is_told_where_it_is_taken_sent_and_installed(capture: Capture) -> None:
    world = snapshot_world()
    world.form(3)
    world["n3"].kill()
    capture.take()
    fill_until_compacted(world, world["n1"], world["n2"])
    taken = of_event(capture.take(), "snapshot-taken")
    assert {line.server for line in taken} == {"n1", "n2"}
    assert all(line.message.startswith("took a snapshot of ") for line in taken)
    world["n3"].start()
    world.run(4 * ELECTION_TICKS)
    lines = capture.take()
    begun, ended = of_event(lines, "snapshot-sent")
    assert begun.server == ended.server == "n1"
    assert "n3 is sent the snapshot up to entry" in begun.message
    assert "n3 has the snapshot up to entry" in ended.message
    (installed,) = of_event(lines, "snapshot-installed")
    assert installed.server == "n3"
    assert installed.fields["index"] == begun.fields["index"] == ended.fields["index"]


def test_a_sparing_lets_some_lines_through_and_counts_the_others() -> None:
    now = [0.0]
    sparing = Sparing(lambda: now[0], lines_max=2, period_seconds=10.0)
    assert [sparing.admits() for _ in range(5)] == [True, True, False, False, False]
    now[0] = 9.9
    assert not sparing.admits()
    now[0] = 10.0
    assert sparing.admits()
    assert sparing.left_out() == 4
    assert sparing.left_out() == 0
