"""Servers compare what they made of the log: who is found, who stops, and who only reports."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest

from raftd.agreement import Agreement, Divergence, Standing
from raftd.core.membership import Configuration
from raftd.core.messages import Envelope, StateCheck, StateCheckResponse, StateMessage, StateVerdict
from raftd.core.types import ServerId

INTERVAL = 10
PATIENCE = 30
N1, N2, N3, N4, N5 = (f"n{number}/i{number}" for number in range(1, 6))


class Server:
    """An agreement, and where its server stands."""

    def __init__(self, name: ServerId, world: World) -> None:
        self.name = name
        self.world = world
        self.agreement = Agreement(name, interval_ticks=INTERVAL, patience_ticks=PATIENCE)
        self.term = 1
        self.leads = False
        self.leader: ServerId | None = None
        self.applied = 0
        self.wrong_from: int | None = None
        """The first entry of which it has made something else."""
        self.known_from = 0
        """The first index that its state machine knows the hash of."""
        self.configuration: Configuration | None = None
        """The one that it has, if that is not yet the latest."""
        self.stopped = False

    def hash_at(self, index: int) -> int | None:
        if not self.known_from <= index <= self.applied:
            return None
        if self.wrong_from is not None and index >= self.wrong_from:
            return 1_000_000 + index * 10 + int(self.name[1])
        return index * 10

    @property
    def standing(self) -> Standing:
        return Standing(
            now=self.world.now,
            term=self.term,
            leads=self.leads,
            leader=self.leader,
            configuration=self.configuration or self.world.configuration,
            applied_index=self.applied,
            hash_at=self.hash_at,
            address=f"10.0.0.{self.name[1]}:7100",
        )

    def advance(self) -> list[Envelope]:
        sent = self.agreement.advance(self.standing)
        self.world.flying += sent
        return sent

    def receive(self, message: StateMessage, source: ServerId = N1) -> list[Envelope]:
        envelope = Envelope(source, self.name, message)
        sent = self.agreement.on_message(envelope, self.standing)
        self.world.flying += sent
        return sent

    @property
    def stop(self) -> str | None:
        return self.agreement.stop

    @property
    def findings(self) -> list[tuple[int, set[str], set[str]]]:
        """Index, names of the agreeing and of the differing servers of each finding."""
        return [
            (one.index, {s[:2] for s in one.agreeing}, {s[:2] for s in one.differing})
            for one in self.agreement.divergences
        ]


class World:
    """Servers that send to each other; what stops is gone."""

    def __init__(self, configuration: Configuration) -> None:
        self.now = 0
        self.configuration = configuration
        self.servers: dict[ServerId, Server] = {}
        self.flying: list[Envelope] = []
        self.history: list[Envelope] = []
        for name in sorted(configuration.members):
            self.add(name)
        self.lead(N1)

    def add(self, name: ServerId) -> Server:
        self.servers[name] = Server(name, self)
        return self.servers[name]

    def __getitem__(self, name: ServerId) -> Server:
        return self.servers[name]

    def lead(self, name: ServerId, term: int = 1) -> None:
        for server in self.servers.values():
            server.term, server.leader, server.leads = term, name, server.name == name

    def apply(self, index: int, *names: ServerId) -> None:
        for name in names or self.servers:
            self[name].applied = index

    def deliver(self, *, lost: Callable[[Envelope], bool] = lambda _: False) -> None:
        """Deliver what flies, and what follows from it."""
        while self.flying:
            envelope = self.flying.pop(0)
            self.history.append(envelope)
            server = self.servers.get(envelope.dest)
            if server is None or server.stopped or lost(envelope):
                continue
            self.flying += server.agreement.on_message(envelope, server.standing)

    def run(self, ticks: int, *, lost: Callable[[Envelope], bool] = lambda _: False) -> None:
        for _ in range(ticks):
            self.now += 1
            for server in self.servers.values():
                if not server.stopped:
                    server.advance()
            self.deliver(lost=lost)
            for server in self.servers.values():
                server.stopped = server.stopped or server.stop is not None

    def sent(self, kind: type) -> list[Envelope]:
        return [envelope for envelope in self.history if isinstance(envelope.message, kind)]


def voters(*names: ServerId, **rest: Iterable[ServerId]) -> World:
    return World(Configuration(voters=names, **rest))


def away(*names: ServerId) -> Callable[[Envelope], bool]:
    return lambda envelope: envelope.dest in names or envelope.source in names


@pytest.fixture
def world() -> World:
    return voters(N1, N2, N3)


# --- asking and answering -------------------------------------------------------------------


def test_a_leader_asks_all_members_learners_too_for_its_applied_index() -> None:
    world = voters(N1, N2, learners=(N3,))
    world.apply(7)
    assert world[N1].advance() == []
    world.now = INTERVAL - 1
    assert world[N1].advance() == []
    world.now = INTERVAL
    assert world[N1].advance() == [Envelope(N1, n, StateCheck(1, 7, 70)) for n in (N2, N3)]
    assert world[N2].advance() == []


def test_equal_states_are_one_check_and_then_silence_until_there_is_something_new(
    world: World,
) -> None:
    world.apply(7)
    world.run(5 * INTERVAL)
    assert len(world.sent(StateCheck)) == 2
    assert len(world.sent(StateCheckResponse)) == 2
    for server in world.servers.values():
        assert (server.agreement.agreed_index, server.findings, server.stop) == (7, [], None)
    world.apply(8)
    world.run(INTERVAL)
    assert world[N3].agreement.agreed_index == 8


def test_checks_are_an_interval_apart_however_much_is_applied(world: World) -> None:
    for index in range(1, 10 * INTERVAL + 2):
        world.apply(index)
        world.run(1)
    assert len(world.sent(StateCheck)) == 2 * 10


def test_a_member_answers_at_once_for_what_it_has_applied_already(world: World) -> None:
    world.apply(9, N2)
    response = StateCheckResponse(1, 7, 70)
    assert world[N2].receive(StateCheck(1, 7, 70)) == [Envelope(N2, N1, response)]


def test_a_member_answers_as_soon_as_it_has_applied_the_entry(world: World) -> None:
    world.apply(6, N2)
    assert world[N2].receive(StateCheck(1, 7, 70)) == []
    assert world[N2].advance() == []
    world.apply(9, N2)
    assert world[N2].advance() == [Envelope(N2, N1, StateCheckResponse(1, 7, 70))]
    assert world[N2].advance() == [], "once"


def test_a_member_remembers_the_newest_check_only(world: World) -> None:
    for check in (StateCheck(1, 7, 70), StateCheck(1, 9, 90), StateCheck(1, 8, 80)):
        assert world[N2].receive(check) == []
    world.apply(20, N2)
    assert world[N2].advance() == [Envelope(N2, N1, StateCheckResponse(1, 9, 90))]
    assert world[N2].advance() == []


def test_a_check_of_a_newer_term_takes_the_place_of_one_with_a_higher_index(world: World) -> None:
    world[N2].receive(StateCheck(1, 9, 90))
    world.lead(N3, term=2)
    world[N2].receive(StateCheck(2, 8, 80), N3)
    world.apply(20, N2)
    assert world[N2].advance() == [Envelope(N2, N3, StateCheckResponse(2, 8, 80))]


def test_a_member_that_cannot_know_any_more_is_silent(world: World) -> None:
    world.apply(9, N2)
    world[N2].known_from = 8
    assert world[N2].receive(StateCheck(1, 7, 70)) == []
    assert world[N2].receive(StateCheck(1, 8, 80)) != []


def test_a_member_that_was_restored_past_the_check_drops_it(world: World) -> None:
    world[N2].receive(StateCheck(1, 7, 70))
    world.apply(20, N2)
    world[N2].known_from = 20
    assert world[N2].advance() == []
    world[N2].known_from = 0
    assert world[N2].advance() == []


def test_a_check_of_an_older_term_is_not_answered(world: World) -> None:
    world.apply(9, N2)
    world[N2].term = 2
    assert world[N2].receive(StateCheck(1, 7, 70)) == []


def test_a_check_that_waits_is_dropped_with_its_term(world: World) -> None:
    world[N2].receive(StateCheck(1, 7, 70))
    world[N2].term = 2
    world.apply(9, N2)
    assert world[N2].advance() == []


def test_a_check_is_repeated_for_those_who_have_not_answered(world: World) -> None:
    world.apply(7)
    world.run(INTERVAL + 2, lost=away(N3))
    asked = len(world.sent(StateCheck))
    world.run(INTERVAL)
    repeated = world.sent(StateCheck)[asked:]
    assert [envelope.dest for envelope in repeated] == [N3]
    assert world[N1].agreement.agreed_index == 7


def test_a_check_that_was_not_answered_by_all_is_made_again(world: World) -> None:
    world.apply(7)
    world.run(3 * PATIENCE, lost=away(N3))
    assert world[N1].agreement.agreed_index == 0
    world.run(PATIENCE + INTERVAL)
    assert world[N1].agreement.agreed_index == 7


def test_a_slow_member_is_waited_for_while_others_go_on(world: World) -> None:
    world.apply(7)
    world.apply(3, N3)
    world.run(INTERVAL + 1)
    world.apply(50, N1, N2)
    world.run(PATIENCE - 5)
    assert world[N1].agreement.agreed_index == 0
    world.apply(8, N3)
    world.run(2)
    assert world[N1].agreement.agreed_index == 7


def test_a_server_alone_asks_nobody() -> None:
    world = voters(N1)
    world.apply(7)
    world.run(5 * INTERVAL)
    assert world.history == []


# --- who is right ---------------------------------------------------------------------------


def test_the_one_that_differs_from_a_majority_stops_and_the_others_go_on(world: World) -> None:
    world[N3].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    assert world[N1].stop is world[N2].stop is None
    for name in (N1, N2, N3):
        assert world[name].findings == [(7, {"n1", "n2"}, {"n3"})]
        assert world[name].agreement.wrong == (N3,)
    reason = world[N3].stop
    assert reason is not None
    for part in (
        "entry 7",
        f"{1_000_073:016x}",
        f"{70:016x}",
        "n1/i1, n2/i2",
        "`raftctl replace n3 n3=10.0.0.3:7100`",
    ):
        assert part in reason


def test_a_difference_is_found_at_the_first_check_after_it(world: World) -> None:
    world[N3].wrong_from = 5
    world.apply(4)
    world.run(INTERVAL + 1)
    assert world[N1].agreement.agreed_index == 4
    world.apply(5)
    world.run(INTERVAL)
    assert world[N3].stopped


def test_a_leader_that_differs_stops_itself_and_says_who_agrees(world: World) -> None:
    world[N1].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    assert world[N1].stop is not None
    assert "n2/i2, n3/i3" in world[N1].stop
    assert "raftctl replace n1 n1=" in world[N1].stop
    for name in (N1, N2, N3):
        assert world[name].findings == [(7, {"n2", "n3"}, {"n1"})]
    assert world[N2].stop is world[N3].stop is None


def test_a_learner_that_differs_is_found_and_does_not_count() -> None:
    world = voters(N1, N2, learners=(N3, N4))
    world[N3].wrong_from = world[N4].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    assert [world[n].stopped for n in (N1, N2, N3, N4)] == [False, False, True, True]


def test_learners_make_no_majority() -> None:
    world = voters(N1, N2, learners=(N3, N4, N5))
    world[N1].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    assert not any(server.stopped for server in world.servers.values())
    assert world[N1].findings == [(7, set(), {"n1", "n2", "n3", "n4", "n5"})]


def test_nobody_knows_until_the_third_answers(world: World) -> None:
    world[N2].wrong_from = 5
    world.apply(7)
    world.apply(3, N3)
    world.run(INTERVAL + PATIENCE - 5)
    assert world.sent(StateVerdict) == []
    assert all(server.findings == [] for server in world.servers.values())
    world.apply(7, N3)
    world.run(1)
    world.deliver()
    assert [world[n].stop is not None for n in (N1, N2, N3)] == [False, True, False]


def test_without_the_third_all_report_and_nobody_stops(world: World) -> None:
    world[N2].wrong_from = 5
    world.apply(7)
    world.run(INTERVAL + PATIENCE + 2, lost=away(N3))
    for name in (N1, N2):
        assert world[name].stop is None
        assert world[name].findings == [(7, set(), {"n1", "n2"})]
    (finding,) = world[N1].agreement.divergences
    assert finding.hashes == {N1: 70, N2: 1_000_072}
    (finding,) = world[N2].agreement.divergences
    assert finding.hashes == {N2: 1_000_072}
    # The third one comes back, and says who is right.
    world.run(PATIENCE + INTERVAL)
    assert [world[n].stopped for n in (N1, N2, N3)] == [False, True, False]
    assert world[N1].findings == world[N3].findings == [(7, {"n1", "n3"}, {"n2"})]


def test_two_voters_report_and_go_on_reporting_without_new_entries() -> None:
    world = voters(N1, N2)
    world[N2].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    assert world[N2].findings == [(7, set(), {"n1", "n2"})]
    before = len(world.sent(StateVerdict))
    world.run(3 * INTERVAL)
    assert len(world.sent(StateVerdict)) == before + 3
    assert world[N1].stop is world[N2].stop is None


def test_three_voters_with_three_states_are_no_majority(world: World) -> None:
    world[N2].wrong_from = world[N3].wrong_from = 5
    world.apply(7)
    world.run(INTERVAL + 1)
    assert not any(server.stop for server in world.servers.values())
    assert world[N3].findings == [(7, set(), {"n1", "n2", "n3"})]


def test_a_finding_is_dropped_when_a_later_check_finds_all_equal() -> None:
    world = voters(N1, N2)
    world[N2].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    world[N2].wrong_from = None
    world.run(2 * INTERVAL)
    assert world[N1].findings == world[N2].findings == []
    assert world[N2].agreement.agreed_index == 7


def test_a_majority_that_is_certain_does_not_wait_for_the_rest() -> None:
    world = voters(N1, N2, N3, N4, N5)
    world[N4].wrong_from = 5
    world.apply(7)
    world.run(INTERVAL + 1, lost=away(N5))
    world.run(1, lost=away(N5))
    assert world[N4].stopped
    assert world[N1].findings == [(7, {"n1", "n2", "n3"}, {"n4"})]


def test_who_answers_after_the_verdict_is_added_to_it() -> None:
    world = voters(N1, N2, N3, N4, N5)
    world[N4].wrong_from = world[N5].wrong_from = 5
    world.apply(7)
    world.apply(3, N5)
    world.run(INTERVAL + 2)
    assert world[N4].stopped
    world.apply(7, N5)
    world.run(2)
    assert world[N5].stopped
    assert world[N2].findings == [(7, {"n1", "n2", "n3"}, {"n4", "n5"})]


def test_a_verdict_is_repeated_while_the_differing_server_is_there(world: World) -> None:
    world[N3].wrong_from = 5
    world.apply(7)

    def verdicts_to_n3(envelope: Envelope) -> bool:
        return envelope.dest == N3 and isinstance(envelope.message, StateVerdict)

    world.run(5 * INTERVAL, lost=verdicts_to_n3)
    assert not world[N3].stopped
    world.run(INTERVAL)
    assert world[N3].stopped


def test_a_verdict_is_repeated_while_a_check_waits_for_another_member() -> None:
    world = voters(N1, N2, N3, N4, N5)
    world[N4].wrong_from = 5
    world.apply(7)
    world.run(INTERVAL + 2, lost=lambda e: e.dest == N5 or isinstance(e.message, StateVerdict))
    assert not world[N4].stopped
    world.run(INTERVAL, lost=away(N5))
    assert world[N4].stopped


# --- joint configurations -------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [(N4, N5), (N1, N2)], ids=["new half", "old half"])
def test_while_joint_both_halves_have_to_agree(wrong: tuple[ServerId, ...]) -> None:
    world = voters(N3, N4, N5, outgoing=(N1, N2, N3))
    for name in wrong:
        world[name].wrong_from = 5
    world.apply(7)
    world.run(INTERVAL + 1)
    # One half has a majority for a hash, the other one has none for any.
    assert not any(server.stop for server in world.servers.values())
    assert world[N1].findings == [(7, set(), {"n1", "n2", "n3", "n4", "n5"})]


def test_while_joint_a_hash_with_both_majorities_is_right() -> None:
    world = voters(N3, N4, N5, outgoing=(N1, N2, N3))
    world[N2].wrong_from = world[N5].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    assert sorted(n for n, server in world.servers.items() if server.stopped) == [N2, N5]
    assert world[N4].findings == [(7, {"n1", "n3", "n4"}, {"n2", "n5"})]


def test_a_leader_that_is_no_voter_does_not_count() -> None:
    world = voters(N1, N2, N3)
    world.configuration = Configuration(voters=(N2, N3))
    world[N3].wrong_from = 5
    world.apply(7)
    world.run(INTERVAL + PATIENCE)
    assert not any(server.stop for server in world.servers.values())
    assert world[N2].findings == [(7, set(), {"n2", "n3"})]


def test_a_leader_that_is_no_voter_is_compared_all_the_same() -> None:
    world = voters(N1, N2, N3)
    world.configuration = Configuration(voters=(N2, N3))
    world[N1].wrong_from = 5
    world.apply(7)
    world.run(INTERVAL + 1)
    assert [world[n].stop is not None for n in (N1, N2, N3)] == [True, False, False]


def test_who_leaves_the_configuration_leaves_the_findings(world: World) -> None:
    world[N3].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    assert world[N1].findings
    world.configuration = Configuration(voters=(N1, N2))
    world.run(1)
    assert world[N1].findings == world[N2].findings == []


def test_a_stopped_server_stays_named_while_the_others_agree(world: World) -> None:
    world[N3].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    assert world[N3].stopped
    for index in range(8, 20):
        world.apply(index, N1, N2)
        world.run(PATIENCE)
    assert world[N1].findings == world[N2].findings == [(7, {"n1", "n2"}, {"n3"})]


def test_a_second_finding_does_not_hide_the_first() -> None:
    world = voters(N1, N2, N3, N4, N5)
    world[N4].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    world[N5].wrong_from = 9
    world.apply(10)
    world.run(2 * PATIENCE)
    assert world[N5].stopped
    assert world[N1].findings == world[N2].findings
    assert {frozenset(differing) for _, _, differing in world[N1].findings} == {
        frozenset({"n4"}),
        frozenset({"n5"}),
    }


# --- what comes late, twice or from elsewhere -----------------------------------------------


def verdict(
    index: int = 7,
    state_hash: int = 70,
    term: int = 1,
    agreeing: tuple[ServerId, ...] = (N1, N2),
    differing: tuple[ServerId, ...] = (N3,),
) -> StateVerdict:
    return StateVerdict(term, index, state_hash, agreeing, differing)


def test_a_wrong_verdict_stops_nobody(world: World) -> None:
    world.apply(9)
    world[N3].receive(verdict())
    assert (world[N3].stop, world[N3].findings) == (None, [])


def test_a_verdict_about_what_is_not_known_here_stops_nobody(world: World) -> None:
    world.apply(9)
    world[N3].wrong_from = 5
    world[N3].known_from = 8
    world[N3].receive(verdict())
    world[N3].receive(verdict(index=10, state_hash=100))
    assert (world[N3].stop, world[N3].findings) == (None, [])


def test_a_verdict_of_another_term_is_ignored(world: World) -> None:
    """Of a later term this server hears by the protocol first; then the verdict comes again."""
    world.apply(9)
    world[N3].wrong_from = 5
    world[N3].term = 2
    for term in (1, 3):
        world[N3].receive(verdict(term=term))
        assert (world[N3].stop, world[N3].findings) == (None, [])
    world[N3].receive(verdict(term=2))
    assert world[N3].stop is not None


@pytest.mark.parametrize("leader", [N1, None], ids=["another one", "none"])
def test_a_verdict_of_somebody_who_does_not_lead_is_ignored(
    world: World, leader: ServerId | None
) -> None:
    world.apply(9)
    world[N3].wrong_from = 5
    world[N3].leader = leader
    world[N3].receive(verdict(), N2)
    world[N3].receive(verdict(state_hash=0, agreeing=(), differing=(N1, N3)), N2)
    assert (world[N3].stop, world[N3].findings) == (None, [])


def test_a_check_of_somebody_who_does_not_lead_does_not_hide_that_of_the_leader(
    world: World,
) -> None:
    world.apply(9)
    assert world[N3].receive(StateCheck(1, 1 << 60, 0), N2) == []
    assert world[N3].receive(StateCheck(1, 7, 70)) != []


@pytest.mark.parametrize(
    ("agreeing", "differing"),
    [
        ((N1,), (N3,)),
        ((N1, N4, N5), (N3,)),
        ((N1, N2, N3), (N3,)),
        ((N1, N2, N3), ()),
    ],
    ids=["no majority", "strangers", "on both sides", "agrees, it says"],
)
def test_a_verdict_that_contradicts_itself_or_what_is_known_here_is_ignored(
    world: World, agreeing: tuple[ServerId, ...], differing: tuple[ServerId, ...]
) -> None:
    world.apply(9)
    world[N3].wrong_from = 5
    world[N3].receive(verdict(agreeing=agreeing, differing=differing))
    assert (world[N3].stop, world[N3].findings) == (None, [])
    assert world[N3].agreement.agreed_index == 0


def test_while_joint_a_verdict_has_to_name_both_majorities() -> None:
    world = voters(N3, N4, N5, outgoing=(N1, N2, N3))
    world.apply(9)
    world[N3].wrong_from = 5
    world[N3].receive(verdict(agreeing=(N1, N2, N4)))
    assert world[N3].stop is None
    world[N3].receive(verdict(agreeing=(N1, N2, N4, N5)))
    assert world[N3].stop is not None


def test_a_server_that_has_an_older_configuration_stops_once_it_has_the_leaders() -> None:
    world = voters(N1, N2, N3)
    world[N3].configuration = Configuration(voters=(N3, N4, N5))
    world[N3].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    assert not world[N3].stopped
    world[N3].configuration = None
    world.run(INTERVAL)
    assert world[N3].stopped


def test_a_verdict_without_majority_never_stops(world: World) -> None:
    world.apply(9)
    world[N3].wrong_from = 5
    world[N3].receive(verdict(state_hash=0, agreeing=(), differing=(N1, N3)))
    assert world[N3].stop is None
    assert world[N3].findings == [(7, set(), {"n1", "n3"})]


def test_an_older_verdict_that_comes_late_brings_nothing_back(world: World) -> None:
    world.apply(9)
    world[N2].receive(verdict(index=9, state_hash=90, agreeing=(N1, N2, N3), differing=()))
    world[N2].receive(verdict(index=8))
    assert world[N2].findings == []
    assert world[N2].agreement.agreed_index == 9


def test_an_older_verdict_still_stops_who_it_is_right_about(world: World) -> None:
    world.apply(9)
    world[N3].wrong_from = 5
    world[N3].receive(verdict(index=9, agreeing=(), differing=(N1, N3)))
    world[N3].receive(verdict(index=8, state_hash=80))
    assert world[N3].stop is not None


def test_after_a_stop_nothing_is_said_any_more(world: World) -> None:
    world.apply(9)
    world[N3].wrong_from = 5
    world[N3].receive(verdict())
    assert world[N3].receive(StateCheck(1, 8, 80)) == []
    assert world[N3].advance() == []


def begin_check(world: World) -> None:
    world.apply(7)
    world.now = 1
    world[N1].advance()
    world.now += INTERVAL
    assert len(world[N1].advance()) == 2


@pytest.mark.parametrize(
    ("source", "response"),
    [
        (N2, StateCheckResponse(1, 6, 61)),
        (N2, StateCheckResponse(1, 8, 81)),
        (N2, StateCheckResponse(2, 7, 71)),
        (N4, StateCheckResponse(1, 7, 71)),
        (N1, StateCheckResponse(1, 7, 71)),
    ],
    ids=["older index", "newer index", "other term", "stranger", "itself"],
)
def test_a_response_counts_only_for_the_check_it_belongs_to(
    world: World, source: ServerId, response: StateCheckResponse
) -> None:
    begin_check(world)
    world[N1].receive(StateCheckResponse(1, 7, 71), N3)
    assert world[N1].receive(response, source) == []
    assert world[N1].findings == []
    assert world[N1].receive(StateCheckResponse(1, 7, 70), N2) != []
    assert world[N1].findings == [(7, {"n1", "n2"}, {"n3"})]


def test_a_repeated_response_counts_once(world: World) -> None:
    begin_check(world)
    assert world[N1].receive(StateCheckResponse(1, 7, 71), N2) == []
    assert world[N1].receive(StateCheckResponse(1, 7, 71), N2) == []
    assert world[N1].stop is None


def test_a_response_without_a_check_is_ignored(world: World) -> None:
    assert world[N2].receive(StateCheckResponse(1, 7, 71), N3) == []


def test_a_leader_that_lost_its_office_judges_nothing(world: World) -> None:
    world[N3].wrong_from = 5
    begin_check(world)
    world[N1].leads = False
    assert world[N1].receive(StateCheckResponse(1, 7, 70), N2) == []
    assert world[N1].receive(StateCheckResponse(1, 7, 1_000_073), N3) == []
    world.lead(N2, term=2)
    assert world[N1].receive(StateCheckResponse(1, 7, 70), N2) == []
    assert world[N1].receive(StateCheckResponse(1, 7, 1_000_073), N3) == []
    assert world[N1].findings == []


def test_a_leader_that_is_elected_again_begins_anew(world: World) -> None:
    begin_check(world)
    world.lead(N1, term=2)
    world[N1].advance()
    assert world[N1].receive(StateCheckResponse(1, 7, 71), N2) == []
    world.now += INTERVAL
    world.flying.clear()
    assert [e.message for e in world[N1].advance()] == [StateCheck(2, 7, 70)] * 2


def test_the_next_leader_goes_on_with_what_was_found(world: World) -> None:
    world[N3].wrong_from = 5
    world.apply(7)
    world.run(2 * INTERVAL)
    world[N1].stopped = True
    world.lead(N2, term=2)
    world.run(PATIENCE)
    assert world[N2].findings == [(7, {"n1", "n2"}, {"n3"})]
    # Both come back, the third one with a state that was built again.
    world[N1].stopped = False
    world.add(N3)
    world.lead(N2, term=2)
    world[N3].applied = 7
    world.run(PATIENCE + 2 * INTERVAL)
    assert world[N1].findings == world[N2].findings == []


def test_a_finding_reads_as_a_sentence() -> None:
    found = Divergence(index=7, agreeing=(N1, N2), differing=(N3,), hashes={})
    assert str(found) == "n3 made something else of the log up to entry 7 than n1, n2"
    found = Divergence(index=7, agreeing=(), differing=(N1, N3), hashes={})
    assert "no majority" in str(found)
    assert str(found).endswith("in doubt: n1, n3")


# --- at random ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_exactly_the_server_that_differs_is_stopped_whatever_the_network_does(seed: int) -> None:
    source = random.Random(seed)
    names = [N1, N2, N3, N4, N5][: source.choice([3, 4, 5])]
    learners = [names.pop()] if len(names) > 3 and source.random() < 0.5 else []
    world = World(Configuration(voters=names, learners=learners))
    wrong = source.choice(names + learners)
    world[wrong].wrong_from = source.randint(1, 60)
    term, leader, last = 1, N1, 0
    for _ in range(1500):
        world.now += 1
        last += source.random() < 0.2
        if source.random() < 0.01:
            term += 1
            leader = source.choice([n for n in names if not world[n].stopped])
            # Others learn of the term one by one.
            world[leader].term, world[leader].leader, world[leader].leads = term, leader, True
        for server in world.servers.values():
            if server.stopped:
                continue
            if server.term < term and source.random() < 0.3:
                server.term, server.leader, server.leads = term, leader, False
            server.applied = source.randint(server.applied, last)
            if source.random() < 0.005:
                server.known_from = server.applied
            server.advance()
        # Lost, repeated, reordered.
        source.shuffle(world.flying)
        flying, world.flying = world.flying, []
        for envelope in flying:
            chance = source.random()
            if chance < 0.2:
                continue
            if chance < 0.4:
                world.flying.append(envelope)
            server = world[envelope.dest]
            if chance > 0.3 and not server.stopped:
                world.flying += server.agreement.on_message(envelope, server.standing)
        for server in world.servers.values():
            server.stopped = server.stopped or server.stop is not None
            for finding in server.agreement.divergences:
                assert finding.index >= world[wrong].wrong_from
                if finding.agreeing:
                    assert finding.differing == (wrong,)
                    assert wrong not in finding.agreeing
    assert [n for n, server in world.servers.items() if server.stopped] == [wrong]


@pytest.mark.parametrize("seed", range(10))
def test_equal_servers_never_find_anything_whatever_the_network_does(seed: int) -> None:
    source = random.Random(seed)
    world = voters(N1, N2, N3)
    for index in range(1, 400):
        world.apply(index, *source.sample([N1, N2, N3], 2))
        if source.random() < 0.02:
            world.lead(source.choice([N1, N2, N3]), term=index)
        world.run(1, lost=lambda _: source.random() < 0.3)
        for server in world.servers.values():
            assert (server.stop, server.findings) == (None, [])
    assert world.sent(StateVerdict)
