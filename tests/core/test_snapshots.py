"""Receiving a snapshot and putting it in force. Source: paper section 7, Figure 13."""

from __future__ import annotations

import pytest

from raftd.core.errors import Divergence
from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationKind,
    decode_configuration,
)
from raftd.core.messages import (
    AppendEntriesResponse,
    Envelope,
    InstallSnapshotResponse,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from raftd.core.snapshot import Snapshot
from tests.core.harness import OPTIONS
from tests.core.scenario import Solo, command, configuration_entry, of, only, snapshot_at

T = OPTIONS.election_ticks


def at(index: int, kind: ConfigurationKind, configuration: Configuration) -> ConfigurationAt:
    """Return a configuration that stands at `index`."""
    entry = configuration_entry(index, 1, kind, configuration)
    return ConfigurationAt(index, decode_configuration(entry.data))


def install(solo: Solo, snapshot: Snapshot, source: str = "2") -> InstallSnapshotResponse:
    """Send all of `snapshot` to `solo`, and have it put in force; return the last answer."""
    solo.receive(source, snapshot)
    return only(InstallSnapshotResponse, solo.received(snapshot))


# --- what of the log stays ---


def test_what_follows_is_kept_if_the_log_has_the_last_included_entry() -> None:
    """Figure 13, step 6: the rest of the log agrees with the snapshot, and may be committed."""
    solo = Solo(terms=(1, 1, 2, 2, 3))
    snapshot = snapshot_at(3, 2)
    solo.give(lambda raft: raft.snapshot_received(snapshot))
    log = solo.raft.log
    assert (log.base_index, log.base_term, log.last_index) == (3, 2, 5)
    assert solo.terms == [2, 3]
    assert log.durable_index == 5
    assert solo.restored == [snapshot]


@pytest.mark.parametrize("term", [1, 3], ids=["older", "newer"])
def test_the_whole_log_is_dropped_if_it_has_another_entry_there(term: int) -> None:
    """Figure 13, step 7: what follows a wrong entry is wrong."""
    solo = Solo(terms=(1, 1, 2, 2, 2), term=3)
    solo.give(lambda raft: raft.snapshot_received(snapshot_at(3, term)))
    log = solo.raft.log
    assert (log.base_index, log.base_term, log.last_index, log.last_term) == (3, term, 3, term)
    assert log.durable_index == 3
    assert solo.raft.take_ready() is None


def test_the_whole_log_is_dropped_if_it_ends_before_the_snapshot() -> None:
    solo = Solo(terms=(1, 1, 1), term=2)
    solo.give(lambda raft: raft.snapshot_received(snapshot_at(9, 2)))
    assert (solo.raft.log.base_index, solo.last_index, solo.commit_index) == (9, 9, 9)
    assert solo.raft.log.size_bytes == 0
    assert solo.raft.log.handed_index == 9


def test_the_log_goes_on_after_what_a_snapshot_has_dropped() -> None:
    solo = Solo(terms=(1, 1, 1), term=2)
    install(solo, snapshot_at(9, 2))
    answer = solo.heartbeat("2", prev=9, entries=[command(10, 2)], commit=10)
    assert isinstance(answer, AppendEntriesResponse)
    assert (answer.success, answer.match_index) == (True, 10)
    assert [entry.index for entry in solo.applied] == [10]
    assert [e.index for e in solo.readies[-1].entries] == [10]


@pytest.mark.parametrize("index", [2, 3])
def test_a_snapshot_at_or_below_the_commit_index_is_ignored(index: int) -> None:
    solo = Solo(terms=(1, 1, 1, 1))
    solo.heartbeat("2", commit=3)
    snapshot = snapshot_at(index, 1)
    before = solo.last_index
    solo.give(lambda raft: raft.snapshot_received(snapshot))
    assert solo.restored == []
    assert (solo.raft.log.base_index, solo.last_index, solo.commit_index) == (0, before, 3)
    assert solo.raft.snapshot is None


def test_whether_it_is_put_in_force_is_told() -> None:
    solo = Solo(terms=(1, 1, 1, 1))
    solo.heartbeat("2", commit=3)
    assert not solo.raft.snapshot_received(snapshot_at(3, 1))
    assert solo.raft.snapshot_received(snapshot_at(9, 1))


def test_an_older_snapshot_never_takes_the_place_of_a_newer_one() -> None:
    solo = Solo(terms=(1,), term=2)
    newer = snapshot_at(9, 2)
    install(solo, newer)
    solo.receive("2", snapshot_at(7, 2))
    solo.received(snapshot_at(7, 2))
    assert solo.raft.snapshot == newer
    assert solo.restored == [newer]
    assert solo.raft.log.base_index == 9
    solo.give(lambda raft: raft.snapshot_taken(snapshot_at(7, 2)))
    assert solo.raft.snapshot == newer


def test_entries_that_were_acknowledged_survive_an_install() -> None:
    """The leader counts on them: with 2 dead, only this server may have entry 5."""
    solo = Solo(terms=(1, 1, 1), term=1)
    snapshot = snapshot_at(3, 1)
    answer = solo.heartbeat("2", entries=[command(4, 1), command(5, 1)])
    assert isinstance(answer, AppendEntriesResponse)
    assert answer.match_index == 5
    solo.give(lambda raft: raft.snapshot_received(snapshot))
    assert (solo.last_index, solo.raft.log.durable_index) == (5, 5)


def test_a_snapshot_that_takes_the_place_of_unwritten_entries_owes_only_the_rest() -> None:
    """Entries 2 to 4 come in the same turn as the snapshot of 3: only 4 is still to be written."""
    solo = Solo(terms=(1,), term=1)
    solo.raft.log.append([command(2, 1), command(3, 1), command(4, 1)])
    assert solo.raft.snapshot_received(snapshot_at(3, 1))
    solo.work()
    ready = solo.readies[-1]
    assert ready.restore == snapshot_at(3, 1)
    assert [entry.index for entry in ready.entries] == [4]


def test_the_configuration_comes_with_its_own_index() -> None:
    """Rule 13: a change that the leader asks for names the configuration by that index."""
    solo = Solo(terms=(1, 1), term=2)
    configuration = at(5, ConfigurationKind.FINAL, Configuration({"1", "4"}))
    install(solo, snapshot_at(9, 2, configuration))
    assert solo.raft.configuration == configuration


def test_a_joint_configuration_is_in_force_after_an_install() -> None:
    """Rule 14: both halves decide from here on; 2 and 3 alone are the majority of C_old only."""
    solo = Solo(terms=(1, 1), term=2)
    joint = at(8, ConfigurationKind.JOINT, Configuration({"4", "5", "6"}, {"1", "2", "3"}))
    install(solo, snapshot_at(9, 2, joint))
    asked = {envelope.dest for envelope in solo.time_out() if isinstance(envelope.message, PreVote)}
    assert asked == {"2", "3", "4", "5", "6"}
    for voter in ("2", "3", "4"):
        solo.step(voter, PreVoteResponse(solo.term, solo.term + 1, vote_granted=True))
    assert solo.role == "precandidate"
    solo.step("5", PreVoteResponse(solo.term, solo.term + 1, vote_granted=True))
    assert solo.role == "candidate"


def test_truncation_after_an_install_falls_back_to_the_configuration_of_the_snapshot() -> None:
    solo = Solo(terms=(1, 1), term=2)
    configuration = at(5, ConfigurationKind.SIMPLE, Configuration({"1", "2", "3"}))
    install(solo, snapshot_at(9, 2, configuration))
    joint = configuration_entry(
        10, 2, ConfigurationKind.JOINT, Configuration({"4"}, {"1", "2", "3"})
    )
    solo.heartbeat("2", prev=9, entries=[joint])
    assert solo.raft.configuration is not None
    assert solo.raft.configuration.index == 10
    solo.heartbeat("3", 3, prev=9, entries=[command(10, 3)])
    assert solo.raft.configuration == configuration


def test_configurations_after_a_kept_snapshot_stay_in_force() -> None:
    joint = configuration_entry(
        4, 1, ConfigurationKind.JOINT, Configuration({"1"}, {"1", "2", "3"})
    )
    solo = Solo(terms=(1, 1, 1), term=1)
    solo.heartbeat("2", entries=[joint, command(5, 1)])
    solo.received(snapshot_at(3, 1))
    assert solo.raft.log.base_index == 3
    assert solo.raft.configuration is not None
    assert solo.raft.configuration.index == 4
    solo.heartbeat("3", 2, prev=3, entries=[command(4, 2)])
    assert solo.raft.configuration.index == 1


# --- who may campaign ---


def test_a_blank_server_that_learns_by_snapshot_that_it_votes_may_campaign() -> None:
    solo = Solo("1", entries=(), term=2)
    solo.tick(3 * T)
    assert solo.role == "follower"
    install(solo, snapshot_at(9, 2))
    solo.time_out()
    assert solo.role == "precandidate"


@pytest.mark.parametrize(
    "configuration",
    [Configuration({"2", "3"}), Configuration({"2", "3"}, learners={"1"})],
    ids=["unlisted", "learner"],
)
def test_who_has_no_vote_by_the_snapshot_does_not_campaign(configuration: Configuration) -> None:
    """Rule 19: that the configuration before had it as a voter counts no more."""
    solo = Solo(terms=(1, 1), term=2)
    install(solo, snapshot_at(9, 2, at(8, ConfigurationKind.FINAL, configuration)))
    solo.tick(4 * T)
    assert solo.role == "follower"
    assert not of(PreVote, solo.sent)


def test_votes_are_judged_by_the_position_of_the_snapshot() -> None:
    """Paper 5.4.1: with an empty log after it, the snapshot's last entry is the last one."""
    solo = Solo(terms=(1,), term=5)
    install(solo, snapshot_at(9, 4))
    solo.tick(2 * T)
    for last, granted in (((8, 4), False), ((99, 3), False), ((9, 4), True), ((1, 5), True)):
        answer = solo.answer("3", PreVote(9, *last))
        assert isinstance(answer, PreVoteResponse)
        assert answer.vote_granted is granted, last


def test_a_server_asks_for_votes_with_the_position_of_its_snapshot() -> None:
    solo = Solo(terms=(1,), term=5)
    install(solo, snapshot_at(9, 4))
    request = of(PreVote, solo.time_out())[0]
    assert (request.last_log_index, request.last_log_term) == (9, 4)


def test_a_candidate_gives_up_when_a_snapshot_takes_the_place_of_its_log() -> None:
    """Its requests speak of another log, and it may have no vote by the configuration of this one.

    It was received whole before the election, and it took a while to build a state from it.
    """
    for grants in (0, 1):
        solo = Solo(terms=(1, 1), term=2)
        snapshot = snapshot_at(9, 2, at(8, ConfigurationKind.FINAL, Configuration({"2", "3"})))
        solo.receive("2", snapshot)
        solo.time_out()
        if grants:
            solo.step("3", PreVoteResponse(2, 3, vote_granted=True))
        assert solo.role == ("candidate" if grants else "precandidate")
        solo.give(lambda raft, snapshot=snapshot: raft.snapshot_received(snapshot))  # type: ignore[misc]
        assert solo.role == "follower"
        for voter in ("2", "3"):
            solo.step(voter, PreVoteResponse(solo.term, solo.term + 1, vote_granted=True))
            solo.step(voter, RequestVoteResponse(solo.term, vote_granted=True))
        assert solo.role == "follower"
        assert solo.raft.snapshot == snapshot


def test_a_leader_needs_no_snapshot() -> None:
    """It has every committed entry, and what is committed it has to notice entry by entry.

    Server 1 leads with C_new, which leaves it out, in its log: when that commits, it retires. It
    got a snapshot of it from the leader before, which took a while to be worked into a state.
    """
    joint = configuration_entry(
        2, 1, ConfigurationKind.JOINT, Configuration({"2", "3"}, {"1", "2", "3"})
    )
    final = configuration_entry(3, 1, ConfigurationKind.FINAL, Configuration({"2", "3"}))
    entries = Solo(terms=(1,)).raft.log.entries(1, 1)
    solo = Solo(entries=[*entries, joint, final])
    solo.lead()
    snapshot = snapshot_at(3, 1, at(3, ConfigurationKind.FINAL, Configuration({"2", "3"})))
    assert not solo.raft.snapshot_received(snapshot)
    solo.work()
    assert solo.restored == []
    for server in ("2", "3"):
        solo.acknowledge(server)
    assert solo.commit_index == 4
    assert [entry.index for entry in solo.applied] == [1, 2, 3, 4]
    solo.tick(T + 1)
    assert solo.role == "follower"


# --- answers ---


def test_only_the_index_of_the_snapshot_is_acknowledged() -> None:
    """What follows was received from an earlier leader, and the sender may have other entries."""
    solo = Solo(terms=(1, 1, 2, 2, 3))
    snapshot = snapshot_at(3, 2)
    (answer,) = solo.receive("2", snapshot)
    assert isinstance(answer, InstallSnapshotResponse)
    assert answer.match_index == 3
    assert solo.last_index == 5
    solo = Solo(terms=(1,), term=3)
    assert install(solo, snapshot).match_index == 3


def test_nothing_is_acknowledged_before_the_snapshot_is_in_force() -> None:
    solo = Solo(terms=(1,), term=2)
    snapshot = snapshot_at(9, 2)
    assert solo.receive("2", snapshot, data=b"x" * 10) == []
    sent = solo.give(lambda raft: raft.snapshot_progress(snapshot.id, 10, 4))
    answer = only(InstallSnapshotResponse, sent)
    assert (answer.received_bytes, answer.installed_bytes, answer.match_index) == (10, 4, 0)
    assert answer.snapshot == snapshot.id
    solo.readies.clear()
    assert only(InstallSnapshotResponse, solo.received(snapshot)).match_index == 9
    (ready,) = [ready for ready in solo.readies if ready.messages]
    assert ready.restore == snapshot
    assert ready.early_messages == ()


def test_parts_are_handed_to_the_driver_as_they_came() -> None:
    solo = Solo(terms=(1,), term=2)
    snapshot = snapshot_at(9, 2)
    solo.receive("2", snapshot, offset=0, data=b"ab")
    solo.receive("2", snapshot, offset=2, data=b"cd")
    parts = [(e.message.offset, e.message.data) for e in solo.stored]  # type: ignore[union-attr]
    assert parts == [(0, b"ab"), (2, b"cd")]
    assert solo.raft.incoming_snapshot == snapshot.id


def test_a_snapshot_whose_entries_the_log_has_is_not_received() -> None:
    """It is committed at the leader, so it is here too: no need for the bytes."""
    solo = Solo(terms=(1, 1, 2))
    (answer,) = solo.receive("2", snapshot_at(3, 2), data=b"")
    assert isinstance(answer, InstallSnapshotResponse)
    assert (answer.match_index, answer.commit_index) == (3, 3)
    assert solo.stored == []
    assert [entry.index for entry in solo.applied] == [1, 2, 3]


def test_entries_that_make_a_snapshot_needless_are_durable_before_the_answer() -> None:
    solo = Solo(terms=(1,), term=2)
    solo.raft.log.append([command(2, 2), command(3, 2)])
    solo.readies.clear()
    (answer,) = solo.receive("2", snapshot_at(3, 2), data=b"")
    assert isinstance(answer, InstallSnapshotResponse)
    assert answer.match_index == 3
    ready = solo.readies[0]
    assert [entry.index for entry in ready.entries] == [2, 3]
    assert answer in [envelope.message for envelope in ready.messages]


def test_a_snapshot_that_is_needed_no_more_is_acknowledged_at_once() -> None:
    solo = Solo(terms=(1, 1, 1, 1))
    solo.heartbeat("2", commit=4)
    (answer,) = solo.receive("2", snapshot_at(3, 1), round=7)
    assert isinstance(answer, InstallSnapshotResponse)
    assert (answer.match_index, answer.round) == (3, 7)
    assert solo.stored == []


def test_an_answer_names_the_latest_round() -> None:
    """Rule 27: one that names an earlier round confirms less, one that names a later one lies."""
    solo = Solo(terms=(1,), term=2)
    snapshot = snapshot_at(9, 2)
    solo.receive("2", snapshot, round=4)
    solo.receive("2", snapshot, round=5, data=b"")
    sent = solo.give(lambda raft: raft.snapshot_progress(snapshot.id, 1, 0))
    assert only(InstallSnapshotResponse, sent).round == 5


def test_a_leader_of_an_earlier_term_gets_no_progress() -> None:
    """Its number of a round would mean another one in its next term."""
    solo = Solo(terms=(1,), term=2)
    snapshot = snapshot_at(9, 2)
    solo.receive("2", snapshot, round=40)
    solo.step("3", RequestVote(3, 99, 3, leadership_transfer=True))
    assert solo.give(lambda raft: raft.snapshot_progress(snapshot.id, 1, 0)) == []
    assert solo.received(snapshot) == []
    assert solo.raft.log.base_index == 9


def test_progress_of_another_snapshot_is_not_told() -> None:
    solo = Solo(terms=(1,), term=2)
    solo.receive("2", snapshot_at(9, 2))
    other = snapshot_at(9, 2, checksum="d")
    assert solo.give(lambda raft: raft.snapshot_progress(other.id, 1, 0)) == []


def test_a_request_of_a_stale_term_is_answered_with_the_term_and_no_round() -> None:
    """Figure 13, step 1; the leader's next term has a round of the same number."""
    solo = Solo(terms=(1,), term=5)
    (answer,) = solo.receive("2", snapshot_at(9, 2), term=4, round=3)
    assert isinstance(answer, InstallSnapshotResponse)
    assert (answer.term, answer.round, answer.match_index) == (5, 0, 0)
    assert solo.stored == []
    assert solo.raft.leader_id is None


def test_a_part_of_a_snapshot_is_contact_with_the_leader() -> None:
    """Rule 10: nobody campaigns during an install, and nobody is listened to who does."""
    solo = Solo(terms=(1,), term=2)
    snapshot = snapshot_at(9, 2)
    for _ in range(3 * T):
        solo.receive("2", snapshot, data=b"")
        solo.tick()
        assert (solo.role, solo.raft.leader_id) == ("follower", "2")
    answer = solo.answer("3", RequestVote(9, 99, 9))
    assert isinstance(answer, RequestVoteResponse)
    assert not answer.vote_granted
    assert solo.term == 2


def test_a_higher_term_is_adopted_from_a_snapshot_and_durable_first() -> None:
    solo = Solo(terms=(1,), term=2)
    solo.receive("2", snapshot_at(9, 2), term=6)
    assert (solo.term, solo.raft.durable_term, solo.raft.leader_id) == (6, 6, "2")
    assert solo.readies[-1].hard_state is not None
    assert solo.readies[-1].chunks_received


def test_a_candidate_of_the_same_term_follows_whoever_sends_a_snapshot() -> None:
    solo = Solo(terms=(1, 1))
    solo.campaign()
    solo.receive("2", snapshot_at(9, 1))
    assert (solo.role, solo.raft.leader_id) == ("follower", "2")
    assert solo.raft.voted_for == "1"


def test_a_second_leader_that_sends_a_snapshot_proves_that_the_group_has_diverged() -> None:
    solo = Solo(terms=(1, 1))
    solo.lead()
    with pytest.raises(Divergence, match="leads in term"):
        solo.receive("2", snapshot_at(9, 1))


# --- what is odd ---


def test_a_snapshot_of_a_term_to_come_is_not_received() -> None:
    """No leader has an entry of a later term than its own."""
    solo = Solo(terms=(1,), term=2)
    solo.receive("2", snapshot_at(9, 3))
    assert solo.stored == []
    assert solo.raft.incoming_snapshot is None


@pytest.mark.parametrize(
    "fields",
    [
        {"offset": 1 << 60},
        {"data": b""},
        {"offset": -1},
        {"round": 0},
        {"round": -5},
        {"data": b"x" * 2_000_000, "offset": 2_000_000},
    ],
    ids=str,
)
@pytest.mark.parametrize("role", ["blank", "follower", "candidate"])
def test_odd_parts_are_survived(role: str, fields: dict[str, object]) -> None:
    solo = Solo(entries=(), term=2) if role == "blank" else Solo(terms=(1, 1, 1), term=2)
    if role == "candidate":
        solo.campaign()
    for size_bytes in (0, 1, 100):
        snapshot = snapshot_at(9, 2, size_bytes=size_bytes)
        solo.receive("stranger", snapshot, **fields)
        solo.give(lambda raft, id_=snapshot.id: raft.snapshot_progress(id_, 1 << 60, 0))  # type: ignore[misc]
    solo.tick(3 * T)
    assert solo.raft.log.base_index == 0


def test_a_stray_answer_reaches_nobody_who_does_not_lead() -> None:
    solo = Solo(terms=(1, 1, 1))
    solo.has_received("2", snapshot_at(9, 1), 5, match_index=2, round=1)
    assert (solo.role, solo.commit_index) == ("follower", 0)


def test_entries_before_a_snapshot_match_by_definition() -> None:
    """Rule 5: a request that begins before the snapshot adds what comes after it."""
    solo = Solo(terms=(1,), term=2)
    install(solo, snapshot_at(9, 2))
    entries = [command(index, 2) for index in range(8, 12)]
    answer = solo.heartbeat("2", prev=7, prev_term=2, entries=entries)
    assert isinstance(answer, AppendEntriesResponse)
    assert (answer.success, answer.match_index) == (True, 11)
    assert solo.terms == [2, 2]
    answer = solo.heartbeat("2", prev=3, prev_term=1, entries=[command(4, 1)])
    assert isinstance(answer, AppendEntriesResponse)
    assert (answer.success, answer.match_index) == (True, 4)
    assert solo.last_index == 11


def test_another_entry_where_the_snapshot_ends_proves_that_the_group_has_diverged() -> None:
    solo = Solo(terms=(1,), term=5)
    install(solo, snapshot_at(9, 4))
    with pytest.raises(Divergence):
        solo.heartbeat("2", prev=8, prev_term=1, entries=[command(9, 1), command(10, 1)])


def test_a_restart_with_a_snapshot_alone_knows_all_that_it_says() -> None:
    joint = at(8, ConfigurationKind.JOINT, Configuration({"4"}, {"1", "2", "3"}))
    solo = Solo(entries=(), snapshot=snapshot_at(9, 4, joint))
    assert (solo.commit_index, solo.last_index, solo.raft.log.last_term) == (9, 9, 4)
    assert solo.raft.configuration == joint
    assert solo.raft.status().snapshot_index == 9
    envelope = Envelope("2", "1", PreVote(9, 9, 4))
    assert only(PreVoteResponse, solo.give(lambda raft: raft.step(envelope))).vote_granted
