"""The log of one server. Source: paper sections 5.3, 5.4.1 and 6."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.core.errors import Divergence
from raftd.core.log import ENTRY_HEAD_BYTES, RaftLog
from raftd.core.membership import (
    Configuration,
    ConfigurationAt,
    ConfigurationKind,
    decode_configuration,
)
from raftd.core.snapshot import Snapshot, SnapshotId
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


def _snapshot(index: int, term: int, configuration_index: int = 1) -> Snapshot:
    return Snapshot(
        SnapshotId(
            last_included_index=index, last_included_term=term, size_bytes=100, checksum="c"
        ),
        ConfigurationAt(configuration_index, decode_configuration(founding_entry("123").data)),
    )


def test_an_empty_log_knows_the_position_before_its_first_entry() -> None:
    log = RaftLog()
    assert (log.first_index, log.last_index, log.last_term) == (1, 0, 0)
    assert log.term_at(0) == 0
    assert log.term_at(1) is None
    assert log.configurations.latest is None


def test_a_log_after_a_snapshot_starts_where_the_snapshot_ends() -> None:
    log = RaftLog([command(8, 3)], base_index=7, base_term=2, snapshot=_snapshot(7, 2))
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
    log = RaftLog(
        [command(8, 3), command(9, 3)], base_index=7, base_term=2, snapshot=_snapshot(7, 2)
    )
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
    snapshot = _snapshot(7, 1)
    log = RaftLog([command(8, 1), _joint(9, 1)], base_index=7, base_term=1, snapshot=snapshot)
    log.merge([command(9, 2)])
    assert log.configurations.latest == snapshot.configuration


def test_restart_finds_a_configuration_that_is_not_committed() -> None:
    """Paper section 6: the log is searched to its end, not to the commit index."""
    log = RaftLog([founding_entry("123"), _joint(2, 1), _final(3, 1), command(4, 2)])
    assert _configurations(log) == [1, 2, 3]
    assert log.commit_index == 0


def _compacted(terms: list[int], base: int, extra: Iterable[Entry] = ()) -> RaftLog:
    log = RaftLog([*log_of(terms), *extra], applied_index=len(terms))
    log.compact(base)
    return log


@given(term_lists.filter(bool), st.data())
def test_compaction_changes_nothing_above_it(terms: list[int], data: st.DataObject) -> None:
    """Dissertation 5.1: positions, terms, bounds of terms and sizes are those of what is left."""
    base = data.draw(st.integers(0, len(terms)))
    log = _compacted(terms, base)
    log.compact(data.draw(st.integers(base, len(terms))))
    base = log.base_index
    left = terms[base:]
    assert (log.first_index, log.last_index, _terms(log)) == (base + 1, len(terms), left)
    assert log.last_term == terms[-1]
    assert log.size_bytes == sum(
        ENTRY_HEAD_BYTES + len(e.data) for e in log.entries(base + 1, log.last_index)
    )
    for index in range(base, len(terms) + 1):
        assert log.term_at(index) == (terms[index - 1] if index else 0)
    assert log.term_at(base - 1) is None
    for index in range(base + 1, len(terms) + 1):
        assert log.term_first_index(index) == base + 1 + left.index(terms[index - 1])
    for term in range(6):
        last = max((i for i, t in enumerate(left, start=base + 1) if t == term), default=None)
        assert log.last_index_of_term(term) == last


@given(term_lists.filter(bool), st.data())
def test_a_compacted_log_grows_and_is_cut_as_before(terms: list[int], data: st.DataObject) -> None:
    base = data.draw(st.integers(0, len(terms)))
    log = _compacted(terms, base)
    log.append([command(len(terms) + 1, terms[-1]), command(len(terms) + 2, 5)])
    log.merge([command(len(terms) + 1, 6)])
    assert _terms(log) == [*terms[base:], 6]
    assert log.term_first_index(len(terms) + 1) == len(terms) + 1
    assert log.last_index_of_term(5) is None
    assert log.size_bytes == sum(
        ENTRY_HEAD_BYTES + len(e.data) for e in log.entries(base + 1, log.last_index)
    )


@pytest.mark.parametrize(("base", "known"), [(1, [1, 3, 5]), (2, [1, 3, 5]), (3, [3, 5]), (5, [5])])
def test_compaction_keeps_the_configuration_that_was_in_force(base: int, known: list[int]) -> None:
    entries = [
        founding_entry("123"),
        command(2, 1),
        _joint(3, 1),
        command(4, 1),
        _final(5, 1),
        command(6, 1),
    ]
    log = RaftLog(entries, applied_index=6)
    log.compact(base)
    assert _configurations(log) == known


def test_only_what_the_state_machine_has_is_compacted() -> None:
    log = RaftLog(log_of([1, 1, 1, 1]), applied_index=2)
    for index in (3, -1):
        with pytest.raises(AssertionError):
            log.compact(index)
    log.compact(2)
    log.compact(2)
    with pytest.raises(AssertionError):
        log.compact(1)
    assert log.base_index == 2


def test_a_restart_finds_the_configuration_of_the_snapshot_among_the_entries_it_includes() -> None:
    """The log keeps a tail before the snapshot; the configuration may stand in it."""
    snapshot = _snapshot(6, 1, configuration_index=5)
    entries = [
        command(4, 1),
        configuration_entry(5, 1, ConfigurationKind.SIMPLE, Configuration("123")),
        command(6, 1),
        command(7, 2),
    ]
    log = RaftLog(entries, base_index=3, base_term=1, snapshot=snapshot, applied_index=6)
    assert _configurations(log) == [5]
    assert (log.commit_index, log.handed_index, log.durable_index) == (6, 6, 7)


@given(term_lists.filter(bool), st.integers(1, 14), st.integers(1, 5), st.data())
def test_a_snapshot_keeps_exactly_what_agrees_with_it(
    terms: list[int], index: int, term: int, data: st.DataObject
) -> None:
    """Figure 13, receiver steps 6 and 7, written out."""
    commit = data.draw(st.integers(0, min(index - 1, len(terms))))
    log = RaftLog(log_of(terms), applied_index=commit)
    log.durable_index = data.draw(st.integers(commit, len(terms)))
    durable = log.durable_index
    agrees = index <= len(terms) and terms[index - 1] == term
    log.restore(_snapshot(index, term))
    assert (log.base_index, log.base_term) == (index, term)
    assert log.commit_index == log.handed_index == index
    assert _terms(log) == (terms[index:] if agrees else [])
    assert log.durable_index == (max(durable, index) if agrees else index)
    assert log.last_term == (terms[-1] if agrees else term)
    log.append([command(log.last_index + 1, 5)])
    assert log.last_index_of_term(5) == log.last_index
    assert log.size_bytes == sum(
        ENTRY_HEAD_BYTES + len(e.data) for e in log.entries(index + 1, log.last_index)
    )


@given(term_lists.filter(bool), st.data())
def test_sizes_by_the_average_stay_within_the_log(terms: list[int], data: st.DataObject) -> None:
    log = _compacted(terms, data.draw(st.integers(0, len(terms))))
    index = data.draw(st.integers(log.base_index, log.last_index))
    size_bytes = data.draw(st.integers(0, 1000))
    before = log.index_before(index, size_bytes)
    assert log.base_index <= before <= index
    assert log.bytes_between(before, index) <= size_bytes
    assert log.bytes_between(log.base_index, log.last_index) == log.size_bytes
    assert log.bytes_between(index, index) == log.bytes_between(0, log.base_index) == 0


def test_another_entry_where_the_log_begins_proves_that_the_group_has_diverged() -> None:
    log = RaftLog([command(8, 3)], base_index=7, base_term=2, snapshot=_snapshot(7, 2))
    with pytest.raises(Divergence, match="committed"):
        log.merge([command(6, 1), command(7, 1), command(8, 1)])
    with pytest.raises(Divergence, match="committed"):
        log.check_base(7, 3)
    log.check_base(6, 1)
    RaftLog().check_base(0, 9)
    assert _terms(log) == [3]
