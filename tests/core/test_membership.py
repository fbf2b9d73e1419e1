"""The algebra of configurations, and the configurations of a log.

Source: paper section 6, dissertation chapter 4.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationEntry,
    ConfigurationHistory,
    ConfigurationKind,
    MembershipError,
    abort_joint,
    change_learners,
    changes_voters,
    decode_configuration,
    encode_configuration,
    enter_joint,
    leave_joint,
    validate,
)

C = Configuration
ids = st.integers(0, 6)
changes_of = st.lists(st.tuples(st.sampled_from(("voter", "learner", "remove")), ids), max_size=8)


@st.composite
def simple_configurations(draw: st.DrawFn) -> C:
    voters = draw(st.frozensets(ids, min_size=1))
    return C(voters=voters, learners=draw(st.frozensets(ids)) - voters)


def _wanted(before: C, changes: list[tuple[str, int]]) -> tuple[set[int], set[int]]:
    """Voters and learners afterwards, server by server: the last change for it, else as before."""
    last = {server: role for role, server in changes}
    voters, learners = set(), set()
    for server in range(7):
        now = (
            "voter"
            if server in before.voters
            else "learner"
            if server in before.learners
            else "remove"
        )
        role = last.get(server, now)
        if role == "voter":
            voters.add(server)
        if role == "learner":
            learners.add(server)
    return voters, learners


@given(simple_configurations(), changes_of)
def test_entering_and_leaving_gives_what_was_asked_for(
    before: C, changes: list[tuple[str, int]]
) -> None:
    voters, learners = _wanted(before, changes)
    if not voters:
        with pytest.raises(MembershipError, match="no voter"):
            enter_joint(before, changes)
        return
    joint = enter_joint(before, changes)
    assert joint.is_joint
    assert joint.outgoing == before.voters
    assert joint.voters == voters
    assert joint.learners == learners - before.voters
    assert joint.learners_next == learners & before.voters
    assert leave_joint(joint) == C(voters=voters, learners=learners)
    assert not joint.learners_next & (joint.voters | joint.learners)
    assert not joint.learners & joint.all_voters


@given(simple_configurations(), changes_of)
def test_aborting_restores_the_voters_and_keeps_the_others_as_learners(
    before: C, changes: list[tuple[str, int]]
) -> None:
    voters, _ = _wanted(before, changes)
    if not voters:
        return
    joint = enter_joint(before, changes)
    after = abort_joint(joint)
    assert after.voters == before.voters
    assert after.learners == (joint.learners | joint.voters) - before.voters
    assert not after.is_joint
    assert not after.learners_next


@given(simple_configurations(), changes_of)
def test_a_change_of_learners_never_touches_a_vote(
    before: C, changes: list[tuple[str, int]]
) -> None:
    voters, learners = _wanted(before, changes)
    assert changes_voters(before, changes) == (voters != before.voters)
    if voters != before.voters:
        with pytest.raises(MembershipError, match="joint consensus"):
            change_learners(before, changes)
    else:
        assert change_learners(before, changes) == C(voters=voters, learners=learners)


@given(simple_configurations(), changes_of)
def test_the_functions_leave_their_argument_alone(
    before: C, changes: list[tuple[str, int]]
) -> None:
    copy = C(before.voters, before.outgoing, before.learners, before.learners_next)
    with suppress(MembershipError):
        leave_joint(enter_joint(before, changes))
    assert before == copy


# --- sentence by sentence: what the functions promise ---


def test_the_fields_are_frozensets_of_any_iterable_and_empty_by_default() -> None:
    empty = C()
    assert empty == C(voters=[], outgoing=(), learners=iter(()), learners_next=set())
    configuration = C(voters=[3, 1, 1], learners={7: "x"})
    for half in (
        configuration.voters,
        configuration.outgoing,
        configuration.learners,
        configuration.learners_next,
    ):
        assert type(half) is frozenset
    assert configuration.voters == {1, 3}
    assert configuration.learners == {7}


def test_the_last_change_for_a_server_wins() -> None:
    joint = enter_joint(C({1, 2}), [("remove", 2), ("voter", 2), ("voter", 3), ("remove", 3)])
    assert joint == C(voters={1, 2}, outgoing={1, 2})


def test_the_result_is_joint_even_where_both_halves_are_equal() -> None:
    joint = enter_joint(C({1, 2}), [])
    assert joint.is_joint
    assert joint.voters == joint.outgoing == {1, 2}
    assert leave_joint(joint) == C({1, 2})


def test_a_demoted_voter_keeps_its_vote_until_the_joint_state_is_left() -> None:
    """Dissertation section 4.3, on servers that change roles: C_old is intact until C_new."""
    joint = enter_joint(C({1, 2, 3}), [("learner", 3)])
    assert joint == C(voters={1, 2}, outgoing={1, 2, 3}, learners_next={3})
    assert 3 in joint.all_voters
    assert leave_joint(joint) == C({1, 2}, learners={3})


def test_a_new_learner_is_one_at_once() -> None:
    joint = enter_joint(C({1}), [("voter", 2), ("learner", 3)])
    assert joint == C(voters={1, 2}, outgoing={1}, learners={3})


@pytest.mark.parametrize("change", [("voter", 1), ("learner", 9), ("remove", 5)])
def test_what_is_so_already_changes_nothing(change: tuple[str, int]) -> None:
    """Promoting a voter, demoting a learner, removing a stranger."""
    before = C({1, 2}, learners={9})
    assert leave_joint(enter_joint(before, [change])) == before


@pytest.mark.parametrize(
    "changes",
    [
        [("remove", 1), ("remove", 2)],
        [("learner", 1), ("learner", 2)],
        [("learner", 1), ("remove", 2)],
        [("remove", 1), ("remove", 2), ("learner", 3)],
        [("voter", 3), ("remove", 1), ("remove", 2), ("remove", 3)],
    ],
)
def test_a_change_that_leaves_no_voter_is_an_error(changes: list[tuple[str, int]]) -> None:
    with pytest.raises(MembershipError, match="no voter"):
        enter_joint(C({1, 2}), changes)


def test_all_voters_may_be_replaced_at_once() -> None:
    changes = [("remove", server) for server in (1, 2, 3)]
    changes += [("voter", server) for server in (4, 5, 6)]
    assert enter_joint(C({1, 2, 3}), changes) == C({4, 5, 6}, {1, 2, 3})


def test_entering_while_joint_is_an_error() -> None:
    with pytest.raises(MembershipError, match="under way"):
        enter_joint(C({1}, {1, 2}), [("voter", 3)])
    with pytest.raises(MembershipError, match="under way"):
        change_learners(C({1}, {1, 2}), [("learner", 3)])


@pytest.mark.parametrize("leave", [leave_joint, abort_joint])
def test_leaving_while_not_joint_is_an_error(leave: object) -> None:
    with pytest.raises(MembershipError, match="not joint"):
        leave(C({1, 2}))  # type: ignore[operator]


def test_starting_without_voters_is_an_error() -> None:
    with pytest.raises(MembershipError, match="no voters"):
        enter_joint(C(), [("voter", 1)])
    with pytest.raises(MembershipError, match="no voters"):
        enter_joint(C(learners={1}), [("voter", 1)])


def test_an_unknown_role_is_an_error() -> None:
    with pytest.raises(MembershipError, match="observer"):
        enter_joint(C({1}), [("observer", 2)])


def test_abort_keeps_those_that_were_learners_or_voters_of_the_new_half_only() -> None:
    joint = enter_joint(
        C({1, 2, 3}, learners={8, 9}), [("voter", 4), ("voter", 8), ("learner", 3), ("remove", 1)]
    )
    assert abort_joint(joint) == C({1, 2, 3}, learners={4, 8, 9})


@pytest.mark.parametrize(
    "broken",
    [
        C({1, 2}, learners={2}),
        C(),
        C({1}, learners_next={1}),
        C({1}, {1, 2}, learners_next={3}),
        C({1, 2}, {1, 2}, learners_next={2}),
        C({1}, {1, 2}, learners={2}),
        C({1}, {1, 2}, learners={2}, learners_next={2}),
    ],
)
def test_a_configuration_that_breaks_an_invariant_is_refused(broken: C) -> None:
    with pytest.raises(MembershipError):
        validate(broken)


def test_two_incarnations_of_a_name_are_two_members() -> None:
    joint = enter_joint(C({"n1/a", "n2/a"}), [("remove", "n2/a"), ("voter", "n2/b")])
    assert joint == C({"n1/a", "n2/b"}, {"n1/a", "n2/a"})
    assert len(joint.members) == 3


def test_a_joint_configuration_prints_both_halves() -> None:
    joint = C({"2", "3"}, {"1", "2"}, {"9"}, {"1"})
    assert str(joint) == "(1 2)&&(2 3) learners=(9) learners_next=(1)"


# --- entries ---


def _entry(voters: tuple[str, ...] = ("a",), **fields: object) -> ConfigurationEntry:
    return ConfigurationEntry(
        configuration=C(voters),
        kind=ConfigurationKind.SIMPLE,
        **fields,  # type: ignore[arg-type]
    )


def test_an_entry_is_read_back_as_it_was_written() -> None:
    entry = ConfigurationEntry(
        configuration=C({"a/1", "b/1"}, {"a/1", "c/1"}, {"d/1"}, {"c/1"}),
        addresses={"a/1": "h:1", "b/1": "h:2", "c/1": "h:3", "d/1": "h:4"},
        kind=ConfigurationKind.JOINT,
        operation="op-7",
        outcome="aborted",
        reason="größer",
        learners_before={"d/1"},
        left_out={"e/1": "h:5"},
        tombstones={"e/1"},
        leader="a/1",
        time_ms=1_700_000_000_000,
    )
    assert decode_configuration(encode_configuration(entry)) == entry


def test_equal_entries_have_equal_bytes() -> None:
    one = _entry(("a", "b"), addresses={"a": "1", "b": "2"})
    other = _entry(("b", "a"), addresses={"b": "2", "a": "1"})
    assert encode_configuration(one) == encode_configuration(other)


def test_an_entry_without_voters_is_not_read() -> None:
    with pytest.raises(ValueError, match="voter"):
        decode_configuration(encode_configuration(_entry(())))


# --- history ---


def _indexes(history: ConfigurationHistory) -> list[int]:
    return [at.index for at in history.since(-1)]


def _history(*indexes: int, base: int | None = None) -> ConfigurationHistory:
    start = None if base is None else ConfigurationAt(base, _entry((f"v{base}",)))
    history = ConfigurationHistory(start)
    for index in indexes:
        history.append(index, _entry((f"v{index}",)))
    return history


def test_the_newest_configuration_is_in_force_as_soon_as_it_is_appended() -> None:
    """Paper section 6: a server always uses the latest configuration in its log."""
    history = _history(1)
    history.append(5, _entry(("new",)))
    assert history.latest is not None
    assert history.latest.configuration.voters == {"new"}


def test_several_configurations_are_rolled_back_at_once() -> None:
    """Paper section 6: a server falls back to the previous configuration, however many go."""
    history = _history(1, 5, 9, 10)
    history.truncate_from(8)
    assert _indexes(history) == [1, 5]
    history.truncate_from(5)
    assert _indexes(history) == [1]


def test_truncation_falls_back_to_the_configuration_of_the_snapshot() -> None:
    """Dissertation section 5.1: a snapshot carries the configuration as of its last index."""
    history = _history(12, 15, base=7)
    history.truncate_from(11)
    assert history.latest == ConfigurationAt(7, _entry(("v7",)))


def test_a_blank_server_knows_no_configuration() -> None:
    assert ConfigurationHistory().latest is None
    assert ConfigurationHistory().at(100) is None
    history = _history(1)
    history.truncate_from(1)
    assert history.latest is None


def test_the_configuration_at_an_index_is_the_newest_at_or_below_it() -> None:
    history = _history(5, 9, base=2)
    found = [history.at(index) for index in (1, 2, 4, 5, 8, 9, 99)]
    assert [at.index if at else None for at in found] == [None, 2, 2, 5, 5, 9, 9]
    assert _indexes(history) == [2, 5, 9]
    assert [at.index for at in history.since(5)] == [9]
