"""The invariant of membership changes is content with every legal change, and with no other."""

from __future__ import annotations

import pytest

from raftd.core.membership import Configuration, ConfigurationKind
from raftd.core.types import Entry, Index
from tests.core.scenario import command, configuration_entry
from tests.simulation.invariants.one_unfinished_configuration import OneUnfinishedConfiguration
from tests.simulation.stage import (
    ABC,
    DEF,
    A,
    B,
    C,
    Server,
    Stage,
    heartbeat,
    noticed,
)

Kind = ConfigurationKind
OLD = Configuration(voters=ABC, learners=DEF)
NEW = Configuration(voters=DEF)
JOINT = Configuration(voters=DEF, outgoing=ABC)


def configured(server: Server, kind: ConfigurationKind, configuration: Configuration) -> Entry:
    """Return the next entry of a leader's log, a configuration."""
    return configuration_entry(server.log.last_index + 1, server.term, kind, configuration)


def changing_leader(*, committed: bool = True) -> tuple[Stage, Server]:
    """Return the leader of term 2, whose no-op at index 2 is committed."""
    stage = Stage(OneUnfinishedConfiguration)
    leader = stage.elect(stage[A], 2)
    if committed:
        stage.count(leader, 2)
    return stage, leader


def append(
    stage: Stage, server: Server, kind: ConfigurationKind, configuration: Configuration
) -> Index:
    """Let a leader append a configuration and end its turn; return its index."""
    entry = stage.propose(server, configured(server, kind, configuration))
    stage.turn(server)
    return entry.index


def with_joint(*, elsewhere: bool = False) -> tuple[Stage, Server]:
    """Return a leader with an uncommitted JOINT at index 3: its own, or its predecessor's."""
    stage, leader = changing_leader()
    append(stage, leader, Kind.JOINT, JOINT)
    if not elsewhere:
        return stage, leader
    stage.receive(stage[B], *leader.log.entries(2, 3))
    return stage, stage.elect(stage[B], 3)


def test_one_unfinished_configuration_allows_changes_one_after_the_other() -> None:
    stage, leader = changing_leader()
    stage.count(leader, append(stage, leader, Kind.SIMPLE, Configuration(voters=ABC)))
    stage.count(leader, append(stage, leader, Kind.SIMPLE, OLD))
    joint = append(stage, leader, Kind.JOINT, JOINT)
    stage.count(leader, joint, JOINT)
    stage.count(leader, append(stage, leader, Kind.FINAL, NEW))
    append(stage, leader, Kind.JOINT, Configuration(voters=ABC, outgoing=DEF))
    stage.restart(leader)


def test_one_unfinished_configuration_allows_c_new_in_the_call_that_counts() -> None:
    stage, leader = with_joint()
    leader.log.append([configured(leader, Kind.FINAL, NEW)])
    stage.count(leader, 3, JOINT)
    stage.turn(leader)


def test_one_unfinished_configuration_allows_a_leader_to_abort_its_own_joint_entry() -> None:
    stage, leader = with_joint()
    abort = append(stage, leader, Kind.ABORT, OLD)
    stage.count(leader, abort, OLD)
    append(stage, leader, Kind.JOINT, JOINT)


@pytest.mark.parametrize(("kind", "after"), [(Kind.ABORT, OLD), (Kind.FINAL, NEW)])
def test_one_unfinished_configuration_allows_a_successor_to_end_what_it_has_committed(
    kind: ConfigurationKind, after: Configuration
) -> None:
    stage, leader = with_joint(elsewhere=True)
    stage.count(leader, 4, JOINT)
    append(stage, leader, kind, after)


def test_one_unfinished_configuration_allows_two_logs_to_end_a_joint_entry_in_two_ways() -> None:
    stage, first = with_joint()
    stage.receive(stage[B], *first.log.entries(2, 3))
    stage.count(first, 3, JOINT)
    append(stage, first, Kind.FINAL, NEW)
    second = stage.elect(stage[B], 3)
    stage.count(second, 4, JOINT)
    append(stage, second, Kind.ABORT, OLD)
    stage.adopt(first, 3)
    stage.receive(first, *second.log.entries(4, 5))
    stage.restart(first)


@pytest.mark.parametrize(
    ("kind", "configuration"), [(Kind.SIMPLE, Configuration(voters=ABC)), (Kind.JOINT, JOINT)]
)
def test_one_unfinished_configuration_notices_a_change_before_a_commit_of_the_term(
    kind: ConfigurationKind, configuration: Configuration
) -> None:
    stage, leader = changing_leader(committed=False)
    with noticed(f"n1/1, leader of term 2, has appended {kind.name}", "too early", "found 0"):
        append(stage, leader, kind, configuration)


def test_one_unfinished_configuration_notices_a_change_upon_one_that_is_not_committed() -> None:
    stage, leader = changing_leader()
    append(stage, leader, Kind.SIMPLE, Configuration(voters=ABC))
    with noticed("has appended JOINT at index 4", "index 3 committed in this term", "found 2"):
        append(stage, leader, Kind.JOINT, JOINT)


def test_one_unfinished_configuration_judges_a_change_by_what_was_committed_before_it() -> None:
    stage, leader = changing_leader()
    append(stage, leader, Kind.SIMPLE, Configuration(voters=ABC))
    stage.propose(leader, configured(leader, Kind.JOINT, JOINT))
    # In the same turn, but too late, the first of them is counted.
    with noticed("has appended JOINT at index 4", "index 3 committed in this term", "found 2"):
        stage.count(leader, 3)


def test_one_unfinished_configuration_notices_c_new_before_the_joint_entry_is_committed() -> None:
    stage, leader = with_joint()
    with noticed("has appended FINAL at index 4", "index 3 committed jointly", "found 0"):
        append(stage, leader, Kind.FINAL, NEW)


def test_one_unfinished_configuration_notices_c_new_that_one_half_has_committed() -> None:
    stage, leader = with_joint()
    stage.count(leader, 3, OLD)
    with noticed("has appended FINAL at index 4", "index 3 committed jointly", "found 0"):
        append(stage, leader, Kind.FINAL, NEW)


@pytest.mark.parametrize(("kind", "after"), [(Kind.ABORT, OLD), (Kind.FINAL, NEW)])
def test_one_unfinished_configuration_notices_an_end_that_only_an_earlier_leader_may_append(
    kind: ConfigurationKind, after: Configuration
) -> None:
    stage, leader = with_joint(elsewhere=True)
    # It knows the joint entry to be committed, but not by its own counting.
    leader.log.commit_index = 3
    with noticed(f"n2/2, leader of term 3, has appended {kind.name} at index 5", "found 0"):
        append(stage, leader, kind, after)


def test_one_unfinished_configuration_notices_what_is_sent_before_the_turn_ends() -> None:
    stage, leader = with_joint()
    leader.log.append([configured(leader, Kind.FINAL, NEW)])
    with noticed("has appended FINAL at index 4", "too early"):
        stage.send(leader, B, heartbeat(leader, 3, leader.log.entries(4, 4)))


@pytest.mark.parametrize(
    ("kinds", "configurations"),
    [
        ((Kind.JOINT, Kind.JOINT), (JOINT, JOINT)),
        ((Kind.JOINT, Kind.SIMPLE), (JOINT, Configuration(voters=ABC))),
        ((Kind.JOINT, Kind.FINAL, Kind.FINAL), (JOINT, NEW, NEW)),
        ((Kind.JOINT, Kind.FINAL, Kind.ABORT), (JOINT, NEW, OLD)),
        ((Kind.JOINT, Kind.ABORT, Kind.FINAL), (JOINT, OLD, NEW)),
        ((Kind.ABORT,), (OLD,)),
    ],
)
def test_one_unfinished_configuration_notices_a_disorder_in_any_log(
    kinds: tuple[ConfigurationKind, ...], configurations: tuple[Configuration, ...]
) -> None:
    stage = Stage(OneUnfinishedConfiguration)
    entries = [
        configuration_entry(index, 2, kind, configuration)
        for index, (kind, configuration) in enumerate(
            zip(kinds, configurations, strict=True), start=2
        )
    ]
    with noticed("the log of n3/3 has two unfinished changes", f"found {kinds[-1].name} at"):
        stage.receive(stage[C], *entries)


@pytest.mark.parametrize(
    ("kind", "configuration"),
    [
        (Kind.SIMPLE, Configuration(voters=(A, B))),
        (Kind.JOINT, Configuration(voters=DEF, outgoing=(A, B))),
    ],
)
def test_one_unfinished_configuration_notices_votes_that_change_on_the_way(
    kind: ConfigurationKind, configuration: Configuration
) -> None:
    stage = Stage(OneUnfinishedConfiguration)
    with noticed(f"the log of n3/3 has {kind.name} at index 2", "expected the votes of"):
        stage.receive(stage[C], configuration_entry(2, 2, kind, configuration))


def test_one_unfinished_configuration_notices_a_log_that_does_not_begin_with_bootstrap() -> None:
    stage = Stage(OneUnfinishedConfiguration, ())
    blank = stage.start(A, ())
    with noticed("the log of n1/1 has SIMPLE at index 2", "expected BOOTSTRAP at index 1"):
        stage.write(blank, command(1, 1), configuration_entry(2, 1, Kind.SIMPLE, OLD))
