"""Checkups: a server dials addresses for doctor. And what status says of its disk and links."""

from __future__ import annotations

import math

import pytest

from raftd.protocol import (
    CHECKUP_ADDRESSES_MAX,
    CHECKUP_TIMEOUT_MS_MAX,
    PROTOCOL_VERSION_MAX,
    CheckupReply,
    CheckupRequest,
    ErrorReply,
    ReachView,
)
from raftd.replies import bad_request
from raftd.surroundings import Measured
from raftd.sync_times import FRESH_NS, SAMPLES_MAX, SyncTimes
from tests.node.world import EPOCH_MS, TICK_MS, Server, World

N1, N2, N3 = "n1:7100", "n2:7100", "n3:7100"


def checkup(world: World, server: Server | str, *addresses: str) -> tuple[ReachView, ...]:
    reply = world.call(server, CheckupRequest(addresses=addresses))
    assert isinstance(reply, CheckupReply), reply
    assert reply.wall_clock_ms == world.wall_clock_ms()
    return reply.reaches


# --- checkups ---------------------------------------------------------------------------------


def test_a_follower_says_who_answers_at_each_address_in_the_order_of_the_question() -> None:
    world = World()
    leader = world.form(3)
    found = checkup(world, "n2", N3, "n9:7100", N1)
    assert [reach.address for reach in found] == [N3, "n9:7100", N1]
    assert [reach.server for reach in found] == [world["n3"].id, "", world["n1"].id]
    cluster_id = leader.running.identity.cluster_id
    assert [reach.cluster_id for reach in found] == [cluster_id, "", cluster_id]
    assert [reach.problem for reach in found] == [
        "",
        "connecting to n9:7100: connection refused",
        "",
    ]


def test_a_blank_server_dials_and_is_found_as_blank() -> None:
    world = World()
    world.boot("n1")
    world.boot("n2")
    (reach,) = checkup(world, "n1", N2)
    assert (reach.server, reach.cluster_id, reach.problem) == (world["n2"].id, "", "")


def test_a_server_that_is_cut_off_is_told_apart_after_its_timeout() -> None:
    world = World()
    world.form(3)
    world.cut(["n1", "n3"], ["n2"])
    began = world.now
    found = checkup(world, "n3", N1, N2)
    assert [reach.server for reach in found] == [world["n1"].id, ""]
    assert "no answer" in found[1].problem
    assert (world.now - began) * TICK_MS == pytest.approx(2_000, abs=2 * TICK_MS)


def test_a_checkup_of_nothing_is_answered_at_once() -> None:
    world = World()
    world.boot("n1")
    assert checkup(world, "n1") == ()


def test_checkups_beyond_the_limit_are_refused_until_the_others_have_ended() -> None:
    world = World()
    world.form(3)
    world.cut(["n1", "n3"], ["n2"])
    request = CheckupRequest(addresses=(N2,) * (CHECKUP_ADDRESSES_MAX - 1))
    first = world.ask("n1", request)
    refused = world.call("n1", CheckupRequest(addresses=(N3, N3)))
    assert isinstance(refused, ErrorReply)
    assert refused.code == "unavailable"
    assert f"at most {CHECKUP_ADDRESSES_MAX}" in refused.cause
    # What still fits is served, and what has been answered makes room.
    assert checkup(world, "n1", N3)[0].server == world["n3"].id
    assert first.open
    world.until(lambda: not first.open)
    assert checkup(world, "n1", N3, N3)[0].server == world["n3"].id


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (
            CheckupRequest(addresses=(N1,) * (CHECKUP_ADDRESSES_MAX + 1)),
            f"at most {CHECKUP_ADDRESSES_MAX}",
        ),
        (CheckupRequest(addresses=(N1, "n2")), "n2"),
        (CheckupRequest(addresses=("0.0.0.0:7100",)), "nobody can dial it"),
        (CheckupRequest(addresses=("n" * 2000 + ":7100",)), "too long"),
        (CheckupRequest(timeout_ms=0), "more than 0"),
        (CheckupRequest(timeout_ms=math.nan), "more than 0"),
        (CheckupRequest(timeout_ms=CHECKUP_TIMEOUT_MS_MAX + 1), "at most 10000 ms"),
    ],
)
def test_a_checkup_that_no_server_may_make_is_invalid(request_: CheckupRequest, words: str) -> None:
    assert words in bad_request(request_)


def test_the_largest_checkup_is_allowed() -> None:
    request = CheckupRequest(
        addresses=(N1,) * CHECKUP_ADDRESSES_MAX, timeout_ms=CHECKUP_TIMEOUT_MS_MAX
    )
    assert bad_request(request) == ""


# --- status -----------------------------------------------------------------------------------


def test_status_tells_of_links_versions_clock_and_sizes() -> None:
    world = World(disk_reserve_bytes=1 << 20, zone="east")
    leader = world.form(3)
    leader.free_bytes = 5 << 20
    world["n3"].kill()
    world.run(3)
    status = leader.status
    assert [(link.address, link.connected) for link in status.links] == [(N2, True), (N3, False)]
    assert status.links[0].problem == ""
    assert status.links[1].problem == "connection refused"
    assert status.links[1].version == 0
    assert status.protocol_version_max == PROTOCOL_VERSION_MAX
    assert status.zone == "east"
    assert status.wall_clock_ms == EPOCH_MS + world.now * TICK_MS
    assert status.disk_free_bytes == 5 << 20
    assert status.disk_reserve_bytes == 1 << 20
    assert status.log_bytes == leader.running.raft.log.size_bytes > 0
    assert status.snapshot_bytes == 0
    assert (status.sync_p50_ms, status.sync_p99_ms) == (None, None)


def test_a_disk_of_which_nobody_knows_has_no_number() -> None:
    world = World()
    assert world.boot("n1").status.disk_free_bytes is None


def test_status_hands_on_what_was_measured() -> None:
    world = World()
    server = world.boot("n1")
    assert (server.status.cpu_ms, server.status.rss_bytes) == (None, None)
    server.running._measure = lambda: Measured(
        sync_p50_ms=0.5,
        sync_p99_ms=7.0,
        state_bytes=4096,
        cpu_ms=120,
        rss_bytes=3 << 20,
        rss_anon_bytes=1 << 20,
    )
    status = server.status
    assert (status.sync_p50_ms, status.sync_p99_ms, status.state_bytes) == (0.5, 7.0, 4096)
    assert (status.cpu_ms, status.rss_bytes, status.rss_anon_bytes) == (120, 3 << 20, 1 << 20)


# --- sync times -------------------------------------------------------------------------------


class Clock:
    """Nanoseconds that a test lets pass."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def sync_of(self, milliseconds: float, times: SyncTimes) -> None:
        def sync() -> None:
            self.now_ns += int(milliseconds * 1_000_000)

        times.measure(sync)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def times(clock: Clock) -> SyncTimes:
    return SyncTimes(clock)


def test_before_the_first_sync_nothing_is_known(times: SyncTimes) -> None:
    assert times.percentiles_ms() is None


def test_of_a_hundred_syncs_the_slowest_is_above_the_99th_percentile(
    clock: Clock, times: SyncTimes
) -> None:
    for milliseconds in range(100, 0, -1):
        clock.sync_of(milliseconds, times)
    assert times.percentiles_ms() == (50.0, 99.0)


def test_a_single_sync_is_both_percentiles(clock: Clock, times: SyncTimes) -> None:
    clock.sync_of(3, times)
    assert times.percentiles_ms() == (3.0, 3.0)


def test_only_the_latest_syncs_count(clock: Clock, times: SyncTimes) -> None:
    for _ in range(SAMPLES_MAX):
        clock.sync_of(1000, times)
    for _ in range(SAMPLES_MAX):
        clock.sync_of(1, times)
    assert times.percentiles_ms() == (1.0, 1.0)


def test_percentiles_are_sorted_out_at_most_once_a_second(clock: Clock, times: SyncTimes) -> None:
    clock.sync_of(1, times)
    assert times.percentiles_ms() == (1.0, 1.0)
    clock.sync_of(2, times)
    assert times.percentiles_ms() == (1.0, 1.0)
    clock.now_ns += FRESH_NS
    assert times.percentiles_ms() == (1.0, 2.0)


def test_a_sync_that_fails_is_passed_on_and_not_counted(times: SyncTimes) -> None:
    def sync() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        times.measure(sync)
    assert times.percentiles_ms() is None
