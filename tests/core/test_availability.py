"""What stops a cluster, against brute force.

Source: paper section 6; dissertation section 4.3.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.core.availability import (
    FATAL_SETS_MAX,
    FatalChoice,
    count_fatal_sets,
    fatal_choices,
    fatal_sets,
    survived_failures,
)

SERVERS = "abcdefg"

sets = st.frozensets(st.sampled_from(SERVERS), max_size=6)
large_sets = st.frozensets(st.sampled_from(SERVERS), min_size=3)
# Halves that share some servers and not others are the hard ones.
halves_of_any_kind = st.one_of(
    st.lists(sets, max_size=2), st.lists(large_sets, min_size=2, max_size=2)
)
zones = st.dictionaries(st.sampled_from(SERVERS), st.sampled_from(["", "east", "west", "z"]))


def _has_quorum(halves, dead):
    asking = [half for half in halves if half]
    return bool(asking) and all(2 * len(half - dead) > len(half) for half in asking)


def _minimal(failures, stops):
    """Return every set of `failures` that stops it and has no smaller one inside."""
    found: list[frozenset[str]] = []
    for size in range(len(failures) + 1):
        for some in map(frozenset, combinations(sorted(failures), size)):
            if stops(some) and not any(smaller <= some for smaller in found):
                found.append(some)
    return found


@given(halves_of_any_kind, sets)
def test_survived_failures_is_the_largest_number_of_which_no_choice_is_fatal(halves, dead):
    alive = frozenset().union(*halves) - dead
    survived = survived_failures(halves, dead)
    for size in range(len(alive) + 1):
        fatal = any(
            not _has_quorum(halves, dead | frozenset(some)) for some in combinations(alive, size)
        )
        assert fatal == (size > survived)


@given(halves_of_any_kind, sets)
def test_fatal_sets_are_the_minimal_ones_of_all_sets(halves, dead):
    alive = frozenset().union(*halves) - dead
    expected = _minimal(alive, lambda some: not _has_quorum(halves, dead | some))
    found = fatal_sets(halves, dead)
    assert set(found) == set(expected)
    assert len(found) == len(expected) == count_fatal_sets(halves, dead)
    assert [len(each) for each in found] == sorted(len(each) for each in found)


@given(halves_of_any_kind, sets, zones)
def test_fatal_zones_are_the_minimal_ones_of_all_sets_of_zones(halves, dead, units):
    def stops(some):
        lost = frozenset(server for server, zone in units.items() if zone in some)
        return not _has_quorum(halves, dead | lost)

    names = {units.get(server, "") for half in halves for server in half} - {""}
    expected = _minimal(names, stops)
    assert set(fatal_sets(halves, dead, units)) == set(expected)
    assert count_fatal_sets(halves, dead, units) == len(expected)


@given(halves_of_any_kind, sets)
def test_fatal_choices_describe_exactly_the_fatal_sets(halves, dead):
    choices = fatal_choices(halves, dead)
    if survived_failures(halves, dead) < 0:
        assert choices == ()
        return
    alive = frozenset().union(*halves) - dead
    chosen = _minimal(
        alive, lambda some: any(len(some & choice.servers) >= choice.count for choice in choices)
    )
    assert set(chosen) == set(fatal_sets(halves, dead))


@given(halves_of_any_kind, sets)
def test_no_choice_is_said_that_another_one_includes(halves, dead):
    choices = fatal_choices(halves, dead)
    for choice in choices:
        others = [other for other in choices if other is not choice]
        said = [frozenset(some) for some in combinations(sorted(choice.servers), choice.count)]
        assert not others or not all(
            any(len(some & other.servers) >= other.count for other in others) for some in said
        )


def test_a_dead_server_leaves_less_to_lose():
    voters = frozenset({"n1", "n2", "n3"})
    assert survived_failures([voters]) == 1
    assert survived_failures([voters], {"n3"}) == 0
    assert survived_failures([voters], {"n2", "n3"}) == -1
    assert fatal_sets([voters], {"n3"}) == (frozenset({"n1"}), frozenset({"n2"}))


def test_without_a_quorum_no_further_failure_is_needed():
    voters = frozenset({"n1", "n2"})
    assert fatal_sets([voters], {"n1"}) == (frozenset(),)
    assert fatal_choices([voters], {"n1"}) == ()
    assert survived_failures([]) == survived_failures([frozenset()]) == -1
    assert fatal_sets([]) == (frozenset(),)


def test_a_server_that_both_halves_share_is_fatal_where_either_half_needs_it():
    # C replaced by D while C is dead: A or B stop it, D does not.
    old, new = frozenset("ABC"), frozenset("ABD")
    assert fatal_sets([old, new], {"C"}) == (frozenset("A"), frozenset("B"))
    assert fatal_choices([old, new], {"C"}) == (FatalChoice(count=1, servers=frozenset("AB")),)
    # With C alive, C and D may fail together.
    assert frozenset("CD") not in fatal_sets([old, new])


def test_who_is_fatal_alone_is_not_counted_among_several():
    old, new = frozenset("ABCDE"), frozenset("A")
    assert fatal_choices([old, new]) == (
        FatalChoice(count=1, servers=frozenset("A")),
        FatalChoice(count=3, servers=frozenset("BCDE")),
    )
    # Both halves are down to their last majority: one list of servers, not two.
    assert fatal_choices([frozenset("AB"), frozenset("AC")]) == (
        FatalChoice(count=1, servers=frozenset("ABC")),
    )


def test_servers_without_a_zone_fail_with_none():
    voters = frozenset({"n1", "n2", "n3"})
    assert fatal_sets([voters], (), {"n1": "east", "n2": "", "n3": "west"}) == (
        frozenset({"east", "west"}),
    )
    assert fatal_sets([voters], (), {"n1": "east"}) == ()


def test_one_zone_with_a_majority_is_fatal_alone_and_no_larger_set_is_listed():
    units = {"n1": "east", "n2": "east", "n3": "west", "n4": "north", "n5": "east"}
    assert fatal_sets([frozenset(units)], (), units) == (frozenset({"east"}),)


@pytest.mark.parametrize("members", [31, 32])
def test_the_largest_cluster_is_counted_exactly_and_listed_in_part(members):
    voters = frozenset(f"n{number}" for number in range(members))
    enough = members - (members // 2 + 1) + 1
    assert count_fatal_sets([voters]) == comb(members, enough)
    found = fatal_sets([voters])
    assert len(found) == FATAL_SETS_MAX
    assert {len(each) for each in found} == {enough}


def test_the_largest_joint_change_is_counted_exactly():
    old = frozenset(f"n{number}" for number in range(32))
    new = frozenset(f"n{number}" for number in range(16, 48))
    # 16 of either half are fatal; the 16 that both share are one set and not two.
    assert count_fatal_sets([old, new]) == 2 * comb(32, 16) - 1
    assert survived_failures([old, new]) == 15
    assert len(fatal_choices([old, new])) == 2


def test_many_zones_of_many_sizes_are_searched_in_moments():
    # Every sort of zone that fits into two halves of 32: the most that there can be to try.
    units: dict[str, str] = {}
    halves: list[set[str]] = [set(), set()]
    zone = 0
    for old, new, zones_of_this_sort in [
        *[(1, 0, 5), (0, 1, 5), (1, 1, 2), (2, 0, 2), (0, 2, 2), (2, 1, 1), (1, 2, 1)],
        *[(3, 0, 1), (0, 3, 1), (2, 2, 1), (3, 1, 1), (1, 3, 1)],
    ]:
        for _ in range(zones_of_this_sort):
            zone += 1
            for position, count in enumerate((old, new)):
                for _ in range(count):
                    server = f"s{len(units)}"
                    units[server] = f"zone{zone}"
                    halves[position].add(server)
    found = fatal_sets([frozenset(half) for half in halves], (), units)
    assert len(found) == FATAL_SETS_MAX
    assert count_fatal_sets([frozenset(half) for half in halves], (), units) > FATAL_SETS_MAX
