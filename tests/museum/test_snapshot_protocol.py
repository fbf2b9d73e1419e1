"""The bug museum, snapshots in the protocol: configurations, elections and logs around them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationKind,
    decode_configuration,
)
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    InstallSnapshot,
    InstallSnapshotResponse,
    PreVote,
    PreVoteResponse,
    RequestVote,
)
from raftd.core.types import Entry, EntryKind
from tests.core.disk import chunks_of
from tests.core.harness import OPTIONS, Cluster, founding_entry
from tests.core.scenario import (
    Solo,
    command,
    configuration_entry,
    latest_entry,
    log_of,
    of,
    only,
    snapshot_at,
    with_learners,
)
from tests.museum.steering import let_win

FINAL, JOINT, SIMPLE = ConfigurationKind.FINAL, ConfigurationKind.JOINT, ConfigurationKind.SIMPLE
T = OPTIONS.election_ticks
CHUNK_BYTES = 100


@pytest.fixture(autouse=True)
def _small_chunks() -> Iterator[None]:
    with chunks_of(CHUNK_BYTES, 3 * CHUNK_BYTES):
        yield


def write(cluster: Cluster, count: int) -> None:
    """Let the leader commit `count` commands."""
    for number in range(count):
        cluster.propose(b"put x=%d" % number)
        cluster.run()
    cluster.run()


def restart(cluster: Cluster, server: str) -> None:
    cluster.crash(server)
    cluster.restart(server)


def is_part(envelope: Envelope) -> bool:
    """Whether it carries a part of a snapshot."""
    return isinstance(envelope.message, InstallSnapshot) and bool(envelope.message.data)


def at(entry: Entry) -> ConfigurationAt:
    """Return the configuration of an entry as it is in force."""
    return ConfigurationAt(entry.index, decode_configuration(entry.data))


def install(solo: Solo, index: int, term: int, configuration: ConfigurationAt) -> None:
    """Let `solo` install a snapshot of the leader 2, which must not be refused."""
    snapshot = snapshot_at(index, term, configuration)
    solo.receive("2", snapshot)
    assert solo.stored[-1].message.snapshot == snapshot.id  # type: ignore[union-attr]
    answer = only(InstallSnapshotResponse, solo.received(snapshot))
    assert answer.match_index == index
    assert solo.raft.snapshot == solo.restored[-1] == snapshot


# --- 6, 28 to 32: configurations ---


@pytest.mark.parametrize("restarts", [False, True])
def test_006_what_is_rolled_back_behind_a_snapshot_falls_back_to_its_configuration(
    restarts: bool,
) -> None:
    cluster = Cluster("123", learners="4")
    cluster.elect("1")
    write(cluster, 5)
    founding = cluster.raft("1").configuration
    # Two commands and a configuration that nobody but 1 will ever have.
    cluster.partition("1", "234")
    commit_index = cluster.raft("1").log.commit_index
    cluster.propose(b"lost", "1")
    cluster.propose(b"lost", "1")
    cluster.change([("learner", "5")], "1")
    assert cluster.raft("1").log.last_index == commit_index + 3
    snapshot = cluster.take_and_compact("1")
    assert snapshot.id.last_included_index == cluster.raft("1").log.base_index == commit_index
    assert snapshot.configuration == founding
    if restarts:
        restart(cluster, "1")
    assert cluster.configuration("1").learners == {"4", "5"}
    cluster.elect("2")
    cluster.heal()
    cluster.run(3 * T)
    assert cluster.raft("1").log.last_index == cluster.raft("2").log.last_index
    assert cluster.raft("1").configuration == founding
    restart(cluster, "1")
    assert cluster.raft("1").configuration == founding


def lose_every_final(cluster: Cluster) -> None:
    """Let a tick pass in which every C_new is lost, with the link that it was on."""
    for server in sorted(cluster.servers):
        cluster.tick(server)
    while cluster.queue:
        envelope = cluster.queue.pop(0)
        message, dest = envelope.message, envelope.dest
        if isinstance(message, AppendEntries) and any(
            entry.kind is EntryKind.CONFIGURATION and at(entry).entry.kind is FINAL
            for entry in message.entries
        ):
            cluster.raft(envelope.source).report_unreachable(dest)
        else:
            cluster.deliver(envelope)


def test_028_a_demoted_voter_takes_the_snapshot_for_which_the_old_half_waits() -> None:
    cluster = with_learners("123", "4", leader="2")
    cluster.partition("124", "3")
    write(cluster, 20)
    cluster.change([("voter", "4"), ("learner", "3")])
    joint = cluster.raft("2").configuration
    assert joint is not None
    while cluster.raft("1").log.commit_index < joint.index:
        lose_every_final(cluster)
    # Only 2 has C_new. It is isolated from here on.
    assert latest_kinds(cluster, "124") == [JOINT, FINAL, JOINT]
    snapshot = cluster.take_and_compact("1")
    assert snapshot.configuration == joint
    cluster.queue.clear()
    cluster.partition("134", "2")
    let_win(cluster, "1")
    term_start = cluster.raft("1").log.last_index
    # Half of {1,2,3} is no majority: without 3, which needs the snapshot, nothing is committed.
    cluster.down.add("3")
    cluster.run(T // 2)
    assert cluster.raft("1").log.commit_index < term_start
    cluster.down.remove("3")
    cluster.run(T)
    assert cluster.raft("3").snapshot == snapshot
    for server in "134":
        assert cluster.configuration(server) == Configuration("124", learners="3")
        assert cluster.raft(server).log.commit_index > term_start
        assert len(cluster.commands(server)) == 20


def latest_kinds(cluster: Cluster, servers: str) -> list[ConfigurationKind]:
    found = [cluster.raft(server).configuration for server in servers]
    return [latest.entry.kind for latest in found if latest is not None]


def test_029_a_snapshot_brings_the_joint_state_with_all_parts_of_it() -> None:
    joint = at(
        configuration_entry(
            7,
            1,
            JOINT,
            Configuration("125", "1234", learners="6", learners_next="3"),
            operation="op-1",
            learners_before=frozenset("56"),
            leader="1",
        )
    )
    solo = Solo("5", entries=(), term=2)
    install(solo, 9, 2, joint)
    for server in (solo, Solo("5", entries=(), term=2, snapshot=solo.raft.snapshot)):
        assert server.raft.configuration == joint
        assert latest_entry(server).learners_before == frozenset("56")
        # And it is obeyed: 1, 2 and 5 are all of C_new and half of C_old.
        server.time_out()
        for voter in "12":
            server.step(voter, PreVoteResponse(server.term, server.term + 1, vote_granted=True))
        assert server.role == "precandidate"
        server.step("4", PreVoteResponse(server.term, server.term + 1, vote_granted=True))
        assert server.role == "candidate"


def test_030_a_new_learner_takes_a_snapshot_from_before_it_was_added() -> None:
    cluster = Cluster("123", blank="4")
    cluster.elect("1")
    write(cluster, 5)
    snapshot = cluster.take_and_compact("1")
    _, added = cluster.change([("learner", "4")])
    assert snapshot.id.last_included_index < added
    assert "4" not in snapshot.configuration.configuration.members
    cluster.installs_at_once = False
    cluster.run(5)
    cluster.finish_receiving("4")
    # Installed, and listed nowhere in it: it neither campaigns nor takes itself for removed.
    assert cluster.raft("4").configuration == snapshot.configuration
    assert not cluster.raft("4").may_campaign()
    cluster.run(5)
    assert cluster.configuration("4") == Configuration("123", learners="4")
    assert cluster.commands("4") == cluster.commands("1")


@pytest.mark.parametrize("role", ["follower", "precandidate", "candidate"])
def test_030_a_voter_takes_a_snapshot_in_which_it_is_a_learner(role: str) -> None:
    solo = Solo("3", term=2)
    if role != "follower":
        solo.time_out()
    if role == "candidate":
        solo.step("1", PreVoteResponse(2, 3, vote_granted=True))
    assert solo.role == role
    demoted = at(configuration_entry(8, 2, FINAL, Configuration("12", learners="3")))
    install(solo, 9, 2, demoted)
    assert solo.role == "follower"
    assert not solo.raft.may_campaign()
    assert solo.tick(4 * T) == []
    answer = solo.heartbeat("2", prev=9, entries=[command(10, 2)], commit=10)
    assert isinstance(answer, AppendEntriesResponse)
    assert (answer.success, solo.commit_index) == (True, 10)


def test_031_the_membership_outlives_its_entry_through_any_number_of_compactions() -> None:
    cluster = with_learners("123", "4")
    write(cluster, 1)
    settled = cluster.raft("1").configuration
    assert settled is not None
    for _ in range(3):
        write(cluster, 5)
        for server in "1234":
            cluster.take_and_compact(server)
            log = cluster.raft(server).log
            # The entry is in no log any more, and was in none when the later ones were taken.
            assert log.base_index > settled.index
            assert cluster.raft(server).configuration == settled
            restart(cluster, server)
            assert cluster.raft(server).configuration == settled
        cluster.run_until(lambda: cluster.role("1") == "leader" or bool(others_lead(cluster)))
        cluster.run(2 * T)
    # Whoever knows the membership by that alone still has it.
    cluster.add_blank("5")
    cluster.change([("learner", "5")])
    cluster.run(2 * T)
    assert cluster.configuration("5") == Configuration("123", learners="45")


def others_lead(cluster: Cluster) -> list[str]:
    return [server for server in cluster.servers if cluster.role(server) == "leader"]


def test_032_a_newer_configuration_that_survives_behind_the_snapshot_stays_in_force() -> None:
    older = configuration_entry(2, 1, SIMPLE, Configuration("123", learners="4"))
    newer = configuration_entry(5, 1, SIMPLE, Configuration("123", learners="45"))
    entries = [founding_entry("123"), older, command(3, 1), command(4, 1), newer, command(6, 1)]
    solo = Solo(entries=entries)
    snapshot = snapshot_at(3, 1, at(older))
    assert solo.raft.snapshot_received(snapshot)
    solo.work()
    assert (solo.raft.log.base_index, solo.last_index) == (3, 6)
    assert solo.raft.configuration == at(newer)
    # Rolled back it is the snapshot's, which stands in no entry any more.
    solo.heartbeat("2", 2, prev=4, entries=[command(5, 2)])
    assert solo.raft.configuration == at(older)


@pytest.mark.parametrize("index", [5, 7, 12])
def test_032_a_configuration_that_the_snapshot_deletes_is_out_of_force(index: int) -> None:
    wrong = configuration_entry(6, 1, SIMPLE, Configuration("123", learners="9"))
    entries = [*log_of((1,) * 5, founding_entry("123")), wrong, command(7, 1)]
    solo = Solo(entries=entries, term=2)
    assert solo.raft.configuration == at(wrong)
    right = at(configuration_entry(4, 2, SIMPLE, Configuration("123", learners="4")))
    install(solo, index, 2, right)
    assert solo.raft.configuration == right
    assert solo.raft.addresses().keys() == {"2", "3", "4"}
    solo.heartbeat("2", prev=index, entries=[command(index + 1, 2)])
    assert solo.raft.configuration == right


# --- 53: elections in the middle of a snapshot ---


def in_the_middle(cluster: Cluster, parts: int = 2) -> tuple[int, int]:
    """Let 3 miss what is compacted, and get some parts of it; return where its log ended."""
    cluster.elect("1")
    cluster.partition("12", "3")
    write(cluster, 20)
    cluster.take_and_compact("1")
    log = cluster.raft("3").log
    before = (log.last_term, log.last_index)
    cluster.heal()
    while parts:
        for server in sorted(cluster.servers):
            cluster.tick(server)
        while cluster.queue:
            envelope = cluster.queue.pop(0)
            if is_part(envelope):
                parts -= 1
            if parts >= 0:
                cluster.deliver(envelope)
            if not parts:
                cluster.queue.clear()
    partial = cluster.servers["3"].disk.partial
    assert partial is not None
    assert 0 < len(partial[1]) < partial[0].size_bytes
    return before


@pytest.mark.parametrize("restarts", [False, True])
def test_053_in_the_middle_of_a_snapshot_a_server_is_what_it_was_before(restarts: bool) -> None:
    cluster = Cluster("123")
    before = in_the_middle(cluster)
    applied = list(cluster.servers["3"].applied)
    if restarts:
        restart(cluster, "3")
    cluster.partition("12", "3")
    while cluster.role("3") != "precandidate":
        cluster.tick("3")
    # Neither half a log nor the end of the snapshot: what it asks for is the log that it has.
    asked = of(PreVote, cluster.queue)
    assert {(request.last_log_term, request.last_log_index) for request in asked} == {before}
    assert cluster.servers["3"].applied == ([] if restarts else applied)
    assert cluster.raft("3").snapshot is None
    # So it cannot win, and what it asked for does not keep it from taking the rest.
    cluster.heal()
    cluster.run(4 * T)
    assert cluster.raft("3").snapshot is not None
    assert cluster.commands("3") == cluster.commands(cluster.leader())


@pytest.mark.parametrize("role", ["precandidate", "candidate"])
def test_053_a_candidate_takes_the_snapshot_of_the_leader_of_its_term(role: str) -> None:
    solo = Solo("3", term=4)
    solo.time_out()
    if role == "candidate":
        solo.step("2", PreVoteResponse(4, 5, vote_granted=True))
    assert solo.role == role
    snapshot = snapshot_at(9, 4)
    solo.receive("1", snapshot)
    assert solo.role == "follower"
    assert solo.raft.leader_id == "1"
    answer = only(InstallSnapshotResponse, solo.received(snapshot))
    assert (answer.term, answer.match_index) == (solo.term, 9)


def test_053_whoever_campaigned_with_the_log_that_is_replaced_gives_up() -> None:
    solo = Solo("3", term=4)
    snapshot = snapshot_at(9, 4)
    solo.receive("1", snapshot)
    # The leader is silent until all of it has been worked in.
    for voter in solo.campaign():
        assert isinstance(voter.message, RequestVote)
        assert voter.message.last_log_index == 1
    assert solo.role == "candidate"
    solo.received(snapshot)
    assert solo.role == "follower"
    assert (solo.last_index, solo.restored) == (9, [snapshot])


# --- 57: entries that one side does not have any more ---


@pytest.mark.parametrize("missing", [1, 2, 20])
def test_057_a_leader_without_the_old_entries_sends_its_snapshot(missing: int) -> None:
    cluster = Cluster("123")
    cluster.elect("1")
    cluster.partition("12", "3")
    write(cluster, missing)
    snapshot = cluster.take_and_compact("1")
    lagging = cluster.raft("3").log
    assert lagging.last_index < cluster.raft("1").log.base_index
    kept = cluster.log("3")
    cluster.heal()
    cluster.installs_at_once = False
    requests = []
    for _ in range(5):
        for server in sorted(cluster.servers):
            cluster.tick(server)
        while cluster.queue:
            envelope = cluster.queue.pop(0)
            if envelope.dest == "3":
                requests.append(envelope.message)
            cluster.deliver(envelope)
    # No request names an entry that its sender does not know, and nothing of the log is gone.
    for request in of(AppendEntries, requests):
        assert cluster.raft("1").log.term_at(request.prev_log_index) == request.prev_log_term
    assert any(isinstance(request, InstallSnapshot) for request in requests)
    assert cluster.log("3") == kept
    cluster.finish_receiving("3")
    cluster.installs_at_once = True
    cluster.run(3)
    assert cluster.raft("3").snapshot == snapshot
    assert cluster.commands("3") == cluster.commands("1")


# --- 79 and 80: what of the log stays ---


@pytest.mark.parametrize("restarts", [False, True])
def test_079_a_log_that_contradicts_the_snapshot_is_dropped_and_one_snapshot_is_enough(
    restarts: bool,
) -> None:
    cluster = Cluster("123")
    cluster.elect("3")
    write(cluster, 1)
    # 3 goes on alone up to entry 12; the others commit other entries there.
    cluster.partition("12", "3")
    while cluster.raft("3").log.last_index < 12:
        cluster.propose(b"wrong", "3")
    cluster.elect("1")
    while cluster.raft("1").log.commit_index < 10:
        write(cluster, 1)
    snapshot = cluster.take_and_compact("1")
    index, term = snapshot.id.last_included_index, snapshot.id.last_included_term
    wrong = cluster.raft("3").log.term_at(index)
    assert wrong is not None
    assert wrong < term
    cluster.heal()
    begun = []
    for _ in range(4 * T):
        for server in sorted(cluster.servers):
            cluster.tick(server)
        while cluster.queue:
            envelope = cluster.queue.pop(0)
            if is_part(envelope) and envelope.message.offset == 0:  # type: ignore[union-attr]
                begun.append(envelope)
            cluster.deliver(envelope)
    assert len(begun) == 1
    if restarts:
        restart(cluster, "3")
    log = cluster.raft("3").log
    assert (log.base_index, log.term_at(index)) == (index, term)
    assert b"wrong" not in {entry.data for entry in log.entries(1, log.last_index)}
    write(cluster, 2)
    cluster.run(2)
    assert cluster.log("3") == cluster.log("1")
    assert cluster.commands("3") == cluster.commands("1")


@pytest.mark.parametrize("commit", [60, 100, 110])
def test_080_an_older_snapshot_takes_nothing_from_a_newer_log(commit: int) -> None:
    solo = Solo(terms=(1,) * 120)
    solo.heartbeat("2", commit=commit)
    snapshot = snapshot_at(100, 1)
    (answer,) = solo.receive("2", snapshot)
    # It is not even received: its leader hears at once that all of it is here.
    assert isinstance(answer, InstallSnapshotResponse)
    assert answer.match_index == 100
    assert solo.stored == []
    # One that was received when it was needed is thrown away as well.
    solo.received(snapshot)
    assert solo.restored == []
    assert (solo.last_index, solo.commit_index) == (120, max(commit, 100))
    assert [solo.raft.log.term_at(index) for index in (100, 101, 120)] == [1, 1, 1]


def test_080_what_was_acknowledged_while_the_snapshot_came_in_stays() -> None:
    solo = Solo(terms=(1,) * 50, term=2)
    snapshot = snapshot_at(100, 1)
    solo.receive("2", snapshot)
    # The next leader has the entries, knows of no commit, and gets them acknowledged.
    late = [command(index, 1) for index in range(51, 121)]
    answer = solo.heartbeat("3", 3, prev=50, entries=late)
    assert isinstance(answer, AppendEntriesResponse)
    assert answer.match_index == 120
    solo.received(snapshot)
    assert solo.restored == [snapshot]
    assert (solo.last_index, solo.raft.log.durable_index) == (120, 120)


def test_080_of_what_stays_behind_a_snapshot_only_its_own_index_is_acknowledged() -> None:
    solo = Solo(terms=(1,) * 50, term=2)
    snapshot = snapshot_at(100, 1)
    solo.receive("2", snapshot)
    # Of the sender itself, so that it is the one who is answered.
    late = [command(index, 1) for index in range(51, 121)]
    solo.heartbeat("2", prev=50, entries=late)
    answer = only(InstallSnapshotResponse, solo.received(snapshot))
    assert (answer.match_index, solo.last_index) == (100, 120)
