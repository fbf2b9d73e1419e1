"""The log of one server. Source: paper sections 5.3, 5.4.1 and 6."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.core.errors import Divergence
from raftd.core.log import RaftLog
from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationKind,
    decode_configuration,
)
from raftd.core.types import Entry
from tests.core.harness import founding_entry
from tests.core.scenario import command, configuration_entry, log_of

term_lists = st.lists(st.integers(1, 4), max_size=12).map(sorted)


def _terms(log: RaftLog) -> list[int]:
    return [entry.term for entry in log.entries(log.first_index, log.last_index)]


def _configurations(log: RaftLog) -> list[int]:
    return [at.index for at in log.configurations.since(-1)]


def _joint(index: int, term: int) -> Entry:
    return configuration_entry(
        index, term, ConfigurationKind.JOINT, Configuration({"4"}, {"1", "2", "3"})
    )


def _final(index: int, term: int) -> Entry:
    return configuration_entry(index, term, ConfigurationKind.FINAL, Configuration({"4"}))


def test_an_empty_log_knows_the_position_before_its_first_entry() -> None:
    log = RaftLog()
    assert (log.first_index, log.last_index, log.last_term) == (1, 0, 0)
    assert log.term_at(0) == 0
    assert log.term_at(1) is None
    assert log.configurations.latest is None


def test_a_log_after_a_snapshot_starts_where_the_snapshot_ends() -> None:
    log = RaftLog([command(8, 3)], base_index=7, base_term=2)
    assert (log.first_index, log.last_index, log.last_term) == (8, 8, 3)
    assert [log.term_at(index) for index in (6, 7, 8, 9)] == [None, 2, 3, None]
    assert log.commit_index == log.handed_index == 7


@pytest.mark.parametrize(
    ("theirs", "granted"),
    [
        ((3, 1), True),
        ((2, 5), True),
        ((2, 6), True),
        ((2, 4), False),
        ((1, 99), False),
        ((0, 0), False),
    ],
)
def test_logs_are_compared_by_last_term_then_by_length(
    theirs: tuple[int, int], granted: bool
) -> None:
    """Paper 5.4.1: later last term wins; with equal terms, the longer log."""
    log = RaftLog(log_of([1, 1, 2, 2, 2]))
    assert log.is_up_to_date(*theirs) is granted


@given(term_lists, term_lists, st.data())
def test_merge_keeps_what_matches_and_replaces_from_the_first_conflict(
    ours: list[int], theirs: list[int], data: st.DataObject
) -> None:
    """Paper 5.3 and Figure 2, receiver steps 3 and 4, against the rule written out."""
    common = data.draw(st.integers(0, min(len(ours), len(theirs))))
    theirs = sorted(ours[:common] + [max(term, *ours[:common], 1) for term in theirs[common:]])
    count = data.draw(st.integers(0, len(theirs) - common))
    log = RaftLog(log_of(ours))
    sent = log_of(theirs)[common : common + count]
    conflict = next(
        (e.index for e in sent if e.index <= len(ours) and ours[e.index - 1] != e.term), None
    )
    if conflict is None:
        expected = ours + theirs[len(ours) : common + count]
    else:
        expected = ours[: conflict - 1] + theirs[conflict - 1 : common + count]
    log.merge(sent)
    assert _terms(log) == expected


def test_a_delayed_request_does_not_shorten_the_log() -> None:
    """A request that ends before the log does says nothing about what follows."""
    log = RaftLog(log_of([1, 1, 1, 1, 1]))
    log.merge(log_of([1, 1, 1])[1:2])
    log.merge(())
    assert _terms(log) == [1, 1, 1, 1, 1]
    assert log.durable_index == 5


def test_a_conflict_below_a_durable_entry_makes_it_owed_to_the_disk_again() -> None:
    """A completed write must not vouch for another entry at the same index."""
    log = RaftLog(log_of([1, 1, 1, 1]))
    log.merge(log_of([1, 1, 2, 2])[2:])
    assert log.durable_index == 2
    assert [(e.index, e.term) for e in log.unpersisted()] == [(3, 2), (4, 2)]


def test_a_committed_entry_is_never_replaced() -> None:
    log = RaftLog(log_of([1, 1, 1]))
    log.commit_index = 2
    with pytest.raises(Divergence, match="committed"):
        log.merge([command(2, 2)])
    assert _terms(log) == [1, 1, 1]


def test_entries_that_the_snapshot_covers_match_by_definition() -> None:
    log = RaftLog([command(8, 3), command(9, 3)], base_index=7, base_term=2)
    log.merge([command(6, 2), command(7, 2), command(8, 3)])
    assert _terms(log) == [3, 3]


def test_a_gap_or_a_falling_term_is_a_bug() -> None:
    log = RaftLog(log_of([1, 2]))
    with pytest.raises(AssertionError):
        log.append([command(4, 2)])
    with pytest.raises(AssertionError):
        log.append([command(3, 1)])


@given(term_lists.filter(bool))
def test_the_bounds_of_a_term_are_found(terms: list[int]) -> None:
    log = RaftLog(log_of(terms))
    for index, term in enumerate(terms, start=1):
        assert log.term_first_index(index) == terms.index(term) + 1
    for term in range(6):
        last = max((i for i, t in enumerate(terms, start=1) if t == term), default=None)
        assert log.last_index_of_term(term) == last


@given(term_lists.filter(bool), st.data())
def test_the_bounds_of_a_term_are_right_after_truncation(
    terms: list[int], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(terms)))
    log = RaftLog(log_of(terms))
    log.truncate_from(cut)
    log.append([command(cut, terms[cut - 1] + 1)])
    expected = [*terms[: cut - 1], terms[cut - 1] + 1]
    for index, term in enumerate(expected, start=1):
        assert log.term_first_index(index) == expected.index(term) + 1
        assert log.last_index_of_term(term) == max(
            i for i, t in enumerate(expected, start=1) if t == term
        )


def test_a_batch_obeys_both_bounds_but_has_at_least_one_entry() -> None:
    log = RaftLog([attrs.evolve(entry, data=b"x" * 10) for entry in log_of([1] * 5)])

    def indexes(first: int, entries_max: int, bytes_max: int) -> list[int]:
        return [entry.index for entry in log.batch(first, entries_max, bytes_max)]

    assert indexes(2, 3, 1000) == [2, 3, 4]
    assert indexes(2, 10, 20) == [2, 3]
    assert indexes(2, 10, 1) == [2]
    assert indexes(5, 10, 1000) == [5]
    assert indexes(6, 10, 1000) == []


def test_a_configuration_is_in_force_as_soon_as_it_is_appended() -> None:
    """Paper section 6: whether it is committed or not."""
    log = RaftLog([founding_entry("123"), command(2, 1)])
    log.append([_joint(3, 1)])
    latest = log.configurations.latest
    assert latest is not None
    assert (latest.index, latest.configuration.outgoing) == (3, {"1", "2", "3"})
    assert log.commit_index == 0


def test_two_configurations_are_truncated_at_once() -> None:
    """Paper section 6: the configuration in force is always the latest one that is in the log."""
    log = RaftLog([founding_entry("123"), command(2, 1), _joint(3, 1), _final(4, 1)])
    log.merge([command(2, 2)])
    assert _configurations(log) == [1]
    log.append([_joint(3, 2)])
    assert _configurations(log) == [1, 3]


def test_truncation_falls_back_to_the_configuration_of_the_snapshot() -> None:
    base = ConfigurationAt(5, decode_configuration(founding_entry("123").data))
    log = RaftLog([command(8, 1), _joint(9, 1)], base_index=7, base_term=1, base_configuration=base)
    log.merge([command(9, 2)])
    assert log.configurations.latest == base


def test_restart_finds_a_configuration_that_is_not_committed() -> None:
    """Paper section 6: the log is searched to its end, not to the commit index."""
    log = RaftLog([founding_entry("123"), _joint(2, 1), _final(3, 1), command(4, 2)])
    assert _configurations(log) == [1, 2, 3]
    assert log.commit_index == 0
