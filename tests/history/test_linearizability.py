"""Registers: hand-made histories that are linearizable and that are not, and what is said then."""

from __future__ import annotations

import pytest

from tests.history.checker import check
from tests.history.explanation import AROUND_MAX, explain
from tests.history.format import read_history
from tests.history.linearizability import Undecided, Violation, search
from tests.history.script import history

GOOD = {
    "a key is absent at first": """
        get x -> null
        """,
    "a read under way sees the value before or after a write": """
        put x 1 -> ok
        1 put x 2
        2 get x
        3 get x
        2 1
        3 2
        1 ok
        """,
    "an open write may be seen": """
        1 put x 1
        get x -> 1
        """,
    "an open write may be seen late": """
        put x 1 -> unknown
        get x -> null
        put x 2 -> ok
        get x -> 2
        get x -> 1
        """,
    "an unknown delete takes effect late": """
        put x 1 -> ok
        delete x -> unknown
        get x -> 1
        put x 2 -> ok
        get x -> 2
        get x -> null
        """,
    "an unknown cas takes effect only on its expected value": """
        cas x 1 2 -> unknown
        get x -> null
        put x 1 -> ok
        get x -> 1
        get x -> 2
        """,
    "an unknown cas that never takes effect": """
        put x 1 -> ok
        cas x 1 2 -> unknown
        get x -> 1
        cas x 1 3 -> true
        get x -> 3
        """,
    "two equal unknown writes take effect at two times": """
        put x 1 -> unknown
        put x 1 -> unknown
        put x 2 -> ok
        get x -> 1
        put x 3 -> ok
        get x -> 1
        """,
    "cas and put-if-absent answer as they must": """
        put-if-absent x 1 -> true
        put-if-absent x 2 -> false
        cas x 2 3 -> false
        cas x 1 3 -> true
        get x -> 3
        delete x -> ok
        cas x 3 4 -> false
        put-if-absent x 5 -> true
        get x -> 5
        """,
    "a cas of a value to itself": """
        put x 1 -> ok
        cas x 1 1 -> true
        cas x 2 2 -> false
        cas x 1 1 -> unknown
        get x -> 1
        """,
    "a chain of concurrent cas in the one order that is possible": """
        put x 0 -> ok
        1 cas x 2 3
        2 cas x 1 2
        3 cas x 0 1
        1 true
        2 true
        3 true
        get x -> 3
        """,
    "a cas is not applied because of an unknown write that nobody reads": """
        put x 1 -> ok
        put x 2 -> unknown
        cas x 1 3 -> false
        """,
    "two cas are not applied because of two unknown writes that were looked for before": """
        put x a -> unknown
        put x b -> unknown
        cas x a 2 -> false
        cas x b 2 -> false
        put x 1 -> ok
        cas x 1 2 -> false
        put x 1 -> ok
        cas x 1 2 -> false
        """,
    "a put-if-absent is not applied because of an unknown write that nobody reads": """
        put x 2 -> unknown
        put-if-absent x 3 -> false
        """,
    "an overwritten write need not be seen": """
        1 put x 1
        2 put x 2
        2 ok
        get x -> 2
        1 ok
        get x -> 2
        """,
    "a failed write is not there": """
        put x 1 -> fail
        get x -> null
        """,
    "an open read says nothing": """
        put x 1 -> ok
        get x -> unknown
        1 get x
        """,
    "keys do not touch each other": """
        put x 1 -> ok
        get y -> null
        put y 2 -> ok
        get x -> 1
        """,
    "a read under way spans two writes in reverse": """
        1 get x
        2 get x
        put x 1 -> ok
        put x 2 -> ok
        1 2
        2 1
        """,
    "a write is placed after a read that was invoked later": """
        1 put x 1
        2 get x
        2 null
        1 ok
        get x -> 1
        """,
}

BAD = {
    "a stale read": """
        put x 1 -> ok
        put x 2 -> ok
        get x -> 1
        """,
    "a stale read after a newer one": """
        put x 1 -> ok
        1 put x 2
        get x -> 2
        get x -> 1
        1 ok
        """,
    "reads see two concurrent writes in different orders": """
        1 put x 1
        2 put x 2
        3 get x
        3 1
        4 get x
        4 2
        5 get x
        5 1
        1 ok
        2 ok
        """,
    "a lost write": """
        put x 1 -> ok
        get x -> null
        """,
    "a lost update of two cas": """
        put x 1 -> ok
        1 cas x 1 2
        2 cas x 1 3
        1 true
        2 true
        """,
    "a read of a value never written": """
        put x 1 -> ok
        get x -> 7
        """,
    "a read of a value that is written only later": """
        get x -> 1
        put x 1 -> ok
        """,
    "a read of a failed write": """
        put x 1 -> fail
        get x -> 1
        """,
    "a read of another key's value": """
        put x 1 -> ok
        get y -> 1
        """,
    "a cas that cannot have been applied": """
        put x 1 -> ok
        cas x 2 3 -> true
        """,
    "a cas on an absent key that was applied": """
        cas x 1 2 -> true
        """,
    "a cas that was not applied though it had to be": """
        put x 1 -> ok
        cas x 1 2 -> false
        """,
    "a cas of a value to itself that was not applied though it had to be": """
        put x 1 -> ok
        cas x 1 1 -> false
        """,
    "a cas that was not applied is seen": """
        put x 1 -> ok
        cas x 2 3 -> false
        get x -> 3
        """,
    "a put-if-absent on a key that is there": """
        put x 1 -> ok
        put-if-absent x 2 -> true
        """,
    "a put-if-absent that was not applied on an absent key": """
        put x 1 -> ok
        delete x -> ok
        put-if-absent x 2 -> false
        """,
    "two put-if-absent are both applied": """
        1 put-if-absent x 1
        2 put-if-absent x 2
        1 true
        2 true
        """,
    "a deleted value comes back": """
        put x 1 -> ok
        delete x -> ok
        get x -> null
        get x -> 1
        """,
    "a delete that was acknowledged and did nothing": """
        put x 1 -> ok
        delete x -> ok
        get x -> 1
        """,
    "an unknown write is seen late and then vanishes": """
        put x 1 -> ok
        put x 2 -> unknown
        get x -> 1
        get x -> 2
        get x -> 1
        """,
    "an unknown write is seen again after a later one": """
        put x 1 -> unknown
        get x -> 1
        put x 2 -> ok
        get x -> 2
        get x -> 1
        """,
    "an unknown delete is seen twice": """
        put x 1 -> ok
        delete x -> unknown
        get x -> null
        put x 2 -> ok
        get x -> null
        """,
    "an unknown cas takes effect on another value": """
        put x 1 -> ok
        cas x 2 3 -> unknown
        get x -> 3
        """,
    "an unknown cas takes effect twice": """
        put x 1 -> ok
        cas x 1 2 -> unknown
        get x -> 2
        put x 1 -> ok
        get x -> 2
        """,
    "one unread unknown write explains only one cas that was not applied": """
        put x 1 -> ok
        put x 2 -> unknown
        cas x 1 3 -> false
        put x 1 -> ok
        cas x 1 3 -> false
        """,
    "of two unknown writes one has been seen and cannot explain a cas any more": """
        put x a -> unknown
        put x b -> unknown
        get x -> a
        cas x b 2 -> false
        put x 1 -> ok
        cas x 1 2 -> false
        put x 1 -> ok
        cas x 1 2 -> false
        """,
    "a chain of cas in an order that real time forbids": """
        put x 0 -> ok
        1 cas x 1 2
        1 true
        2 cas x 0 1
        2 true
        """,
    "a cas whose only writer is not yet invoked": """
        1 cas x 1 2
        1 true
        put x 1 -> ok
        """,
    "an old write under way is seen after it was overwritten and completed": """
        1 put x 1
        2 put x 2
        get x -> 1
        get x -> 2
        1 ok
        2 ok
        get x -> 1
        """,
    "an acknowledged write under way is used twice": """
        1 put x 1
        get x -> 1
        put x 2 -> ok
        get x -> 1
        1 ok
        """,
}


@pytest.mark.parametrize("script", GOOD.values(), ids=GOOD.keys())
def test_history_is_linearizable(script: str) -> None:
    verdict = check(history(script))
    assert verdict.ok, "\n".join(verdict.problems)


@pytest.mark.parametrize("script", BAD.values(), ids=BAD.keys())
def test_history_is_not_linearizable(script: str) -> None:
    verdict = check(history(script))
    assert not verdict.ok
    assert len(verdict.problems) == 1
    assert "not linearizable" in verdict.problems[0]
    assert verdict.undecided == ()


def test_violation_is_explained_by_its_surroundings() -> None:
    verdict = check(
        history("""
        put x 1 -> ok
        1 put x 2
        2 put x 3
        2 unknown
        put x 4 -> ok
        3 get x
        3 1
        1 ok
        get x -> 4
        """)
    )
    assert verdict.problems == (
        """\
key "x": not linearizable: the first 9 lines have no order that explains
    lines 8 to 9: op 3 by c3: get -> "1"
  by all that had completed before line 9 the key held "4"
  completed last before it:
    lines 1 to 2: op 1000 by c1000: put "1" -> ok
    lines 6 to 7: op 1005 by c1005: put "4" -> ok
  writes that may come in between, which does not help:
    lines 3 to 10: op 1 by c1: put "2" -> ok
    lines 4 to 5: op 2 by c2: put "3" -> unknown
  other writes of what it saw:
    lines 1 to 2: op 1000 by c1000: put "1" -> ok""",
    )


def test_all_values_that_were_possible_are_named() -> None:
    verdict = check(
        history("""
        1 put x 1
        2 put x 2
        3 delete x
        1 ok
        2 ok
        3 ok
        get x -> 9
        """)
    )
    assert 'the key held null or "1" or "2"' in verdict.problems[0]


def test_explanation_stays_short_in_a_long_history() -> None:
    script = [f"{number} put x {number}" for number in range(50)]
    script += [f"put x a{number} -> ok" for number in range(50)]
    script += [f"{number} unknown" for number in range(50)]
    (problem,) = check(history("\n".join([*script, "get x -> 9999"]))).problems
    assert len(problem.splitlines()) <= 3 + 3 * (AROUND_MAX + 2)
    assert "(45 earlier ones)" in problem


def test_long_values_are_cut_in_explanations() -> None:
    (problem,) = check(history(f"put x {'a' * 100_000} -> ok\nget x -> b")).problems
    assert len(problem) < 1_000


def test_failure_is_found_at_the_earliest_completion() -> None:
    operations = read_history(
        history("""
        put x 1 -> ok
        1 get x
        2 get x
        2 7
        get x -> 8
        1 9
        """)
    ).operations["x"]
    violation = search(operations)
    assert isinstance(violation, Violation)
    assert (violation.operation.number, violation.operation.completed) == (2, 5)


def test_search_that_reaches_its_bound_is_undecided_and_not_ok(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = history("""
        put y 1 -> ok
        put x 1 -> ok
        put x 2 -> ok
        get x -> 2
        """)
    operations = read_history(events).operations["x"]
    assert search(operations, visited_max=3) is None
    assert search(operations, visited_max=2) == Undecided(line=8, visited=3)
    monkeypatch.setattr("tests.history.checker.search", lambda _: Undecided(line=8, visited=3))
    verdict = check(events)
    assert not verdict.ok
    assert verdict.problems == ()
    assert len(verdict.undecided) == 2
    assert verdict.undecided[0] == (
        'key "x": given up at line 8 after 3 states: neither right nor wrong'
    )


def test_violation_is_reported_even_if_telling_its_values_takes_too_long() -> None:
    script = ["put x 1 -> ok"]
    script += [f"{number} put x u{number}" for number in range(40)]
    # With the values kept apart each of the unread writes is another reason for each of these.
    script += ["cas x 1 2 -> false", "put x 1 -> ok"] * 4
    operations = read_history(history("\n".join([*script, "get x -> 9"]))).operations["x"]
    violation = search(operations, visited_max=2_000)
    assert isinstance(violation, Violation)
    assert not violation.values_known
    assert "(too many possibilities)" in explain("x", operations, violation)
