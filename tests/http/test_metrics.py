"""The measurements, as a parser of Prometheus reads them."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raftd.http.metrics import make_metrics
from raftd.telemetry import BOUNDS_SECONDS, Histogram
from tests.http.sources import sources_of
from tests.node.world import Server, World

NAMES = {
    *("raftd_term", "raftd_is_leader", "raftd_commit_index", "raftd_applied_index"),
    *("raftd_peer_match_index", "raftd_peer_last_contact_seconds", "raftd_config_joint"),
    *("raftd_config_voters", "raftd_elections_total", "raftd_leader_changes_total"),
    *("raftd_proposals_total", "raftd_snapshot_index", "raftd_snapshot_taken_total"),
    *("raftd_fsync_seconds_count", "raftd_commit_seconds_count", "raftd_apply_seconds_count"),
    *("raftd_connections", "raftd_log_bytes", "raftd_state_bytes", "raftd_reads_total"),
    *(
        "raftd_lives",
        "raftd_watchers",
        "raftd_build_info",
        "raftd_features",
        "process_resident_memory_bytes",
    ),
    "process_cpu_seconds_total",
}
"""Dashboards and alerts rely on these."""

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(text: bytes) -> Samples:
    """Return every sample by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def measured(server: Server) -> Samples:
    return samples_of(make_metrics(sources_of(server))())


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


@pytest.fixture
def world() -> World:
    world = World()
    world.form(3)
    world.open_session("s")
    for number in range(5):
        world.call(world.leader(), world.put(f"k{number}"))
    world.run(4)
    return world


def test_the_names_that_dashboards_rely_on_are_there(world):
    samples = measured(world.leader())
    assert {name for name, _ in samples} >= NAMES


def test_the_numbers_are_those_of_status(world):
    leader = world.leader()
    samples, status = measured(leader), leader.status
    assert value(samples, "raftd_term") == status.term
    assert value(samples, "raftd_is_leader") == 1
    assert value(samples, "raftd_commit_index") == status.commit_index
    assert value(samples, "raftd_applied_index") == status.applied_index
    assert value(samples, "raftd_revision") == status.revision == 5
    assert value(samples, "raftd_config_voters") == 3
    assert value(samples, "raftd_config_joint") == 0
    assert value(samples, "raftd_connections", listener="clients") == 3
    assert value(samples, "raftd_http_answers_total", status="503") == 1
    assert value(samples, "raftd_messages_dropped_total") == 5
    assert (value(samples, "raftd_lives"), value(samples, "raftd_watchers")) == (4, 6)
    for peer in status.peers:
        name = peer.server.partition("/")[0]
        assert value(samples, "raftd_peer_match_index", peer=name) == peer.match_index
        assert value(samples, "raftd_link_up", peer=name) == 1


def test_a_follower_says_nothing_of_its_peers(world):
    leader = world.leader()
    follower = next(server for server in world.up() if server is not leader)
    samples = measured(follower)
    assert value(samples, "raftd_is_leader") == 0
    assert not [name for name, _ in samples if name.startswith("raftd_peer_")]
    assert value(samples, "raftd_commit_seconds_count") == 0


def test_a_batch_of_the_leader_is_timed_from_its_append_to_its_commit(world):
    telemetry = world.leader().running.telemetry
    before = telemetry.commit.count
    world.call(world.leader(), world.put("again"))
    assert telemetry.commit.count > before
    # In this world a message takes no time, and the clock stands still within a tick.
    assert telemetry.commit.sum_ns >= 0
    assert telemetry.apply.count >= telemetry.commit.count


def test_proposals_are_counted_by_what_became_of_them(world):
    leader = world.leader()
    follower = next(server for server in world.up() if server is not leader)
    applied = leader.running.telemetry.proposals.by_result["applied"]
    world.call(leader, world.put("one-more"))
    world.call(follower, world.put("elsewhere"))
    assert leader.running.telemetry.proposals.by_result["applied"] == applied + 1
    assert follower.running.telemetry.proposals.by_result == {"not-leader": 1}

    world.cut([leader.name])
    world.ask(leader, world.put("lost"))
    world.run(60)
    assert leader.running.telemetry.proposals.by_result["unknown-outcome"] == 1


def test_elections_and_leaders_are_counted_where_they_are_seen(world):
    leader = world.leader()
    others = [server for server in world.up() if server is not leader]
    changes = {server: server.running.telemetry.leader_changes for server in others}
    elections = {server: server.running.telemetry.elections for server in others}
    leader.kill()
    successor = world.leader()
    world.run(4)
    assert successor.running.telemetry.elections > elections[successor]
    for server in others:
        assert server.running.telemetry.leader_changes == changes[server] + 1


def test_a_histogram_counts_each_observation_in_all_buckets_that_it_fits():
    histogram = Histogram()
    for duration_ns in (50_000, 100_000, 100_001, 3_000_000_000, 60_000_000_000):
        histogram.add(duration_ns)
    found = dict(zip([*BOUNDS_SECONDS, float("inf")], histogram.cumulative(), strict=True))
    assert (found[0.0001], found[0.00025], found[2.5], found[5.0]) == (2, 3, 3, 4)
    assert found[float("inf")] == histogram.count == 5
    assert histogram.sum_ns == 63_000_250_001


def test_the_sizes_of_all_are_bounded_however_many_members_there_are(world):
    text = make_metrics(sources_of(world.leader()))()
    assert len(text) < 32 * 1024


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)
def test_prometheus_itself_has_nothing_to_say_against_it(world):
    ended = subprocess.run(
        ["promtool", "check", "metrics"],
        input=make_metrics(sources_of(world.leader()))(),
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, b"")
