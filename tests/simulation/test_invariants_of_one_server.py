"""Each invariant of one server is content with what obeys it, and notices what breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raftd.core.log import RaftLog
from raftd.core.membership import Configuration, ConfigurationKind
from raftd.core.messages import (
    AppendEntries,
    Envelope,
    Message,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raftd.core.raft import Candidate, Raft
from raftd.core.types import HardState, ServerId
from tests.core.scenario import command, configuration_entry
from tests.simulation.invariants.core_invariants import TURNS_BETWEEN_CHECKS, CoreInvariants
from tests.simulation.invariants.durable_before_sent import DurableBeforeSent
from tests.simulation.invariants.monotonic_positions import MonotonicPositions
from tests.simulation.invariants.recovery import Recovery
from tests.simulation.stage import (
    ABC,
    DEF,
    FOUNDING,
    A,
    B,
    C,
    Server,
    Stage,
    acknowledgement,
    heartbeat,
    noticed,
    raft_of,
)

# --- Monotonic positions ---


def test_monotonic_positions_allows_progress_and_a_restart_from_zero() -> None:
    stage = Stage(MonotonicPositions)
    server = stage[A]
    stage.adopt(server, 2)
    stage.turn(server)
    stage.adopt(server, 2, B)
    stage.send(server, B, RequestVoteResponse(2, True))
    stage.receive(server, command(2, 2), commit=2)
    stage.apply(server, *server.log.entries(1, 2))
    stage.turn(server)
    stage.restart(server)
    stage.turn(server)
    stage.send(server, B, RequestVoteResponse(2, True))
    stage.adopt(server, 3, C)
    stage.turn(server)


@pytest.mark.parametrize(
    ("name", "go_back"),
    [
        ("its term", lambda server: setattr(server.raft, "current_term", 1)),
        ("its commit index", lambda server: setattr(server.log, "commit_index", 1)),
        ("handed to its state machine", lambda server: setattr(server.log, "handed_index", 1)),
        ("what it has applied", lambda server: setattr(server.state, "applied_index", 1)),
    ],
)
def test_monotonic_positions_notices_what_goes_back_within_a_process(
    name: str, go_back: Callable[[Server], None]
) -> None:
    stage = Stage(MonotonicPositions)
    server = stage[A]
    stage.adopt(server, 2)
    stage.receive(server, command(2, 2), commit=2)
    stage.apply(server, *server.log.entries(1, 2))
    stage.turn(server)
    go_back(server)
    with noticed("n1/1 .process 1. has gone back", name, "expected at least 2, found 1"):
        stage.turn(server)


@pytest.mark.parametrize("vote", [None, C])
def test_monotonic_positions_notices_a_vote_that_changes_within_a_term(
    vote: ServerId | None,
) -> None:
    stage = Stage(MonotonicPositions)
    server = stage[A]
    stage.adopt(server, 2, B)
    stage.turn(server)
    server.raft.voted_for = vote
    with noticed("n1/1 .process 1. has changed its vote in term 2", f"{B}, found {vote}"):
        stage.turn(server)


@pytest.mark.parametrize("hard_state", [HardState(2, C), HardState(2)])
def test_monotonic_positions_notices_a_disk_that_changes_its_vote(hard_state: HardState) -> None:
    stage = Stage(MonotonicPositions)
    stage.adopt(stage[A], 2, B)
    with noticed("the disk of n1/1 has another vote in term 2"):
        stage.write(stage[A], hard_state=hard_state)


def test_monotonic_positions_notices_a_disk_whose_term_goes_back_over_a_restart() -> None:
    stage = Stage(MonotonicPositions)
    stage.adopt(stage[A], 3, B)
    stage[A].durable.hard_state = HardState(2)
    with noticed("the disk of n1/1 has gone back in its term: expected at least 3, found 2"):
        stage.restart(stage[A])


def test_monotonic_positions_notices_two_votes_that_were_told() -> None:
    stage = Stage(MonotonicPositions)
    stage.send(stage[A], B, RequestVoteResponse(2, True))
    stage.send(stage[A], C, RequestVoteResponse(2, False))
    stage.restart(stage[A])
    with noticed("n1/1 votes twice in term 2: expected its vote for n2/2, found one for n3/3"):
        stage.send(stage[A], C, RequestVoteResponse(2, True))


def test_monotonic_positions_takes_a_candidacy_for_a_vote() -> None:
    stage = Stage(MonotonicPositions)
    stage.send(stage[A], B, RequestVote(2, 1, 1))
    stage.send(stage[A], C, RequestVote(2, 1, 1))
    with noticed("n1/1 votes twice in term 2: expected its vote for n1/1, found one for n2/2"):
        stage.send(stage[A], B, RequestVoteResponse(2, True))


# --- Durable before sent ---


def test_durable_before_sent_allows_what_the_disk_has() -> None:
    stage = Stage(DurableBeforeSent)
    leader = stage.elect(stage[A], 2)
    stage.send(leader, B, heartbeat(leader, 1, leader.log.entries(2, 2)))
    follower = stage[B]
    stage.adopt(follower, 2)
    stage.receive(follower, leader.log.entry(2))
    stage.send(follower, A, acknowledgement(2, 2))
    stage.send(follower, A, acknowledgement(2, 9, success=False))
    stage.send(follower, A, acknowledgement(2, 0))
    stage.adopt(follower, 3, C)
    stage.send(follower, C, RequestVoteResponse(3, True))
    stage.send(follower, A, RequestVoteResponse(3, False))
    stage.send(follower, A, PreVoteResponse(3, 9, True))
    stage.send(follower, A, PreVote(9, 2, 2))
    # The leader replicates while its own disk works.
    stage.send(leader, C, heartbeat(leader, 2, [command(3, 2)]))


def test_durable_before_sent_allows_a_message_of_the_term_that_its_batch_has_ended() -> None:
    stage = Stage(DurableBeforeSent)
    server = stage[A]
    stage.adopt(server, 2, B)
    stage.turn(server)
    stage.adopt(server, 3, C)
    stage.send(server, B, acknowledgement(2, 7))
    stage.send(server, B, RequestVoteResponse(2, True))
    stage.turn(server)
    with noticed("n1/1 sends AppendEntriesResponse to n2/2 of a term that has ended", "term 3"):
        stage.send(server, B, acknowledgement(2, 1))


@pytest.mark.parametrize(
    "message",
    [
        PreVoteResponse(3, 4, True),
        RequestVote(3, 1, 1),
        RequestVoteResponse(3, False),
        AppendEntries(3, 1, 1, (), 0, 1),
        acknowledgement(3, 1, success=False),
        TimeoutNow(3),
    ],
)
def test_durable_before_sent_notices_a_message_of_a_term_that_is_not_durable(
    message: Message,
) -> None:
    stage = Stage(DurableBeforeSent)
    stage.adopt(stage[A], 2)
    stage[A].raft.current_term = 3
    with noticed(f"n1/1 sends {type(message).__name__} to n2/2 before its term is durable"):
        stage.send(stage[A], B, message)


def test_durable_before_sent_notices_a_vote_that_is_not_durable() -> None:
    stage = Stage(DurableBeforeSent)
    stage.adopt(stage[A], 2)
    stage[A].raft.voted_for = B
    with noticed("n1/1 sends RequestVoteResponse of term 2 before its vote", "n2/2", "nobody"):
        stage.send(stage[A], B, RequestVoteResponse(2, True))


@pytest.mark.parametrize(
    "message", [RequestVote(2, 1, 1), AppendEntries(2, 1, 1, (), 0, 1), TimeoutNow(2)]
)
def test_durable_before_sent_notices_a_candidate_or_leader_without_its_own_vote(
    message: Message,
) -> None:
    stage = Stage(DurableBeforeSent)
    stage.adopt(stage[A], 2, C)
    with noticed("before its vote is durable: expected a vote for n1/1, found one for n3/3"):
        stage.send(stage[A], B, message)


def test_durable_before_sent_notices_an_acknowledgement_ahead_of_the_disk() -> None:
    stage = Stage(DurableBeforeSent)
    leader = stage.elect(stage[A], 2)
    stage.send(leader, B, heartbeat(leader))
    stage.adopt(stage[B], 2)
    stage[B].log.append([leader.log.entry(2)])
    with noticed("n2/2 acknowledges index 2 in term 2 to n1/1 before it is durable", "none"):
        stage.send(stage[B], A, acknowledgement(2, 2))


def test_durable_before_sent_notices_an_acknowledgement_of_another_entry() -> None:
    stage = Stage(DurableBeforeSent)
    leader = stage.elect(stage[A], 3)
    stage.send(leader, B, heartbeat(leader))
    stage.receive(stage[B], command(2, 2))
    stage.adopt(stage[B], 3)
    with noticed("acknowledges index 2 in term 3", "entry of term 3", "found one of term 2"):
        stage.send(stage[B], A, acknowledgement(3, 2))


def test_durable_before_sent_notices_an_acknowledgement_of_what_nobody_sent() -> None:
    stage = Stage(DurableBeforeSent)
    leader = stage.elect(stage[A], 2)
    stage.send(leader, B, heartbeat(leader, 1))
    stage.adopt(stage[B], 2)
    stage.receive(stage[B], command(2, 2))
    with noticed("n2/2 acknowledges index 2 in term 2 to n1/1", "found none such"):
        stage.send(stage[B], A, acknowledgement(2, 2))


def test_durable_before_sent_notices_a_leader_that_sends_two_entries_for_an_index() -> None:
    stage = Stage(DurableBeforeSent)
    leader = stage.elect(stage[A], 3)
    stage.send(leader, B, heartbeat(leader, 1, [command(2, 3)]))
    with noticed("n1/1, leader of term 3, sends another entry 2", "term 3, found one of term 2"):
        stage.send(leader, C, heartbeat(leader, 1, [command(2, 2)]))


def test_durable_before_sent_notices_a_message_in_somebody_elses_name() -> None:
    stage = Stage(DurableBeforeSent)
    with noticed("leaves n1/1 under another name", "n2/2"):
        stage.invariant.sent(stage[A], Envelope(B, C, PreVote(2, 1, 1)))


# --- Recovery ---


def restarted(change: Callable[[Raft], None]) -> None:
    """Start a server on a disk of two entries and a vote; `change` what it has found."""
    stage = Stage(Recovery)
    server = stage[A]
    joint = configuration_entry(
        2, 2, ConfigurationKind.JOINT, Configuration(voters=DEF, outgoing=ABC)
    )
    stage.receive(server, joint, command(3, 2))
    stage.adopt(server, 2, B)
    server.raft = raft_of(A, server.durable.entries, server.durable.hard_state)
    change(server.raft)
    stage.invariant.started(server)


def test_recovery_allows_what_was_durable_and_no_more() -> None:
    restarted(lambda raft: None)
    stage = Stage(Recovery, ())
    stage.start(A, ())


def test_recovery_allows_the_founder_to_campaign_at_once() -> None:
    stage = Stage(Recovery)
    server = stage[A]
    server.raft.current_term, server.raft.voted_for = 2, A
    server.raft.role = Candidate(server.id, RequestVote(2, 1, 1), {})
    stage.invariant.started(server)


def test_recovery_notices_somebody_else_who_campaigns_at_once() -> None:
    def campaign(raft: Raft) -> None:
        raft.current_term, raft.voted_for = 3, A
        raft.role = Candidate(raft.server, RequestVote(3, 3, 2), {})

    with noticed("n1/1 starts with another term or vote", "expected term 2", "found term 3"):
        restarted(campaign)


def empty_log(raft: Raft) -> None:
    raft.log = RaftLog()


def longer_log(raft: Raft) -> None:
    raft.log = RaftLog([*raft.log.entries(1, 3), command(4, 2)])


def change_last_entry(raft: Raft) -> None:
    raft.log.truncate_from(3)
    raft.log.append([command(3, 2, b"other")])


def lose_configuration(raft: Raft) -> None:
    raft.log.configurations.truncate_from(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raft: setattr(raft, "current_term", 1), "another term or vote"),
        (lambda raft: setattr(raft, "voted_for", None), "a vote for n2/2, found term 2"),
        (lambda raft: setattr(raft, "_durable_hard_state", HardState(3)), "term for durable"),
        (lambda raft: raft.log.truncate_from(3), "expected 3, found 2"),
        (lambda raft: raft.log.append([command(4, 2)]), "expected 3, found 4"),
        (lambda raft: setattr(raft.log, "durable_index", 2), r"found 3 .2 of them durable"),
        (change_last_entry, "another entry 3 .* found COMMAND of term 2 b.other"),
        (empty_log, "expected 3, found 0"),
        (longer_log, "expected 3, found 4"),
        (lose_configuration, "expected that of index 2"),
        (lambda raft: setattr(raft.log, "commit_index", 1), "expected commit index 0, found 1"),
        (lambda raft: setattr(raft.log, "handed_index", 1), "found 0 .1 handed"),
    ],
)
def test_recovery_notices_what_was_not_found_as_it_was(
    change: Callable[[Raft], None], message: str
) -> None:
    with noticed("n1/1", message):
        restarted(change)


def test_recovery_notices_a_configuration_that_no_log_has() -> None:
    stage = Stage(Recovery, ())
    server = stage.start(A, ())
    server.raft.log.configurations = RaftLog([FOUNDING]).configurations
    with noticed("n1/1 starts in term 1 with a configuration at index 1: expected none"):
        stage.invariant.started(server)


# --- Invariants of one server ---


def test_core_invariants_are_looked_at_when_a_role_changes() -> None:
    stage = Stage(CoreInvariants)
    server = stage[A]
    stage.turn(server)
    server.raft.role = Candidate(server.id, RequestVote(2, 1, 1), {})
    server.raft.current_term, server.raft.voted_for = 2, B
    with noticed("n1/1 .process 1, candidate of term 2.", "campaigns without its own vote"):
        stage.turn(server)


def test_core_invariants_are_looked_at_now_and_then() -> None:
    stage = Stage(CoreInvariants)
    server = stage[A]
    server.log.commit_index = 5
    for _ in range(TURNS_BETWEEN_CHECKS - 1):
        stage.turn(server)
    with noticed("n1/1 .process 1, follower of term 1.", "commit_index <= log.last_index"):
        stage.turn(server)


def test_core_invariants_begin_anew_with_a_new_core_and_with_a_new_process() -> None:
    stage = Stage(CoreInvariants, ())
    server = stage.start(A, ())
    server.raft.current_term = 5
    for _ in range(2 * TURNS_BETWEEN_CHECKS):
        stage.turn(server)
    server.raft = raft_of(A, [FOUNDING], HardState(1))
    for _ in range(2 * TURNS_BETWEEN_CHECKS):
        stage.turn(server)
    stage.restart(server)
    for _ in range(TURNS_BETWEEN_CHECKS):
        stage.turn(server)
    server.raft = raft_of(A, [FOUNDING], HardState(1))
    server.log.commit_index = 5
    with noticed("n1/1 .process 2, follower of term 1.", "commit_index <= log.last_index"):
        for _ in range(TURNS_BETWEEN_CHECKS):
            stage.turn(server)
