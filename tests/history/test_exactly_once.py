"""Appends: what an exactly-once log shows, and each way in which it can be wrong."""

from __future__ import annotations

import pytest

from tests.history.checker import check
from tests.history.script import history

GOOD = {
    "in the order of their acknowledgements": """
        append log t1 -> ok
        append log t2 -> ok
        final log t1 t2
        """,
    "concurrent ones in either order": """
        1 append log t1
        2 append log t2
        2 ok
        1 ok
        final log t1 t2
        """,
    "concurrent ones in the other order": """
        1 append log t1
        2 append log t2
        2 ok
        1 ok
        final log t2 t1
        """,
    "an unknown one that took effect late": """
        1 append log t1
        1 unknown
        append log t2 -> ok
        final log t2 t1
        """,
    "an unknown and an open one that had no effect": """
        1 append log t1
        1 unknown
        2 append log t2
        append log t3 -> ok
        final log t3
        """,
    "a failed one that is not there": """
        append log t1 -> fail
        append log t2 -> ok
        final log t2
        """,
    "an unknown one that is closed after the final value": """
        1 append log t1
        final log
        1 unknown
        """,
    "nothing acknowledged and no final value": """
        append log t1 -> unknown
        append log t2 -> fail
        """,
    "nothing appended": """
        final log
        """,
    "the same final value seen twice": """
        append log t1 -> ok
        final log t1
        final log t1
        """,
}

BAD = {
    "an acknowledged one is lost": (
        """
        append log t1 -> ok
        append log t2 -> ok
        final log t2
        """,
        ["acknowledged, but missing", 'op 1000 by c1000: append "t1" -> ok (lines 1 to 2)'],
    ),
    "an acknowledged one is there twice": (
        """
        append log t1 -> ok
        append log t2 -> ok
        final log t1 t2 t1
        """,
        ["there more than once", '"t1" 2 times'],
    ),
    "an unknown one is there twice": (
        """
        append log t1 -> unknown
        final log t1 t1
        """,
        ["there more than once", '"t1" 2 times'],
    ),
    "a failed one is there": (
        """
        append log t1 -> fail
        final log t1
        """,
        ["failed, but there", 'append "t1" -> fail'],
    ),
    "nobody appended one": (
        """
        append log t1 -> ok
        final log t1 t9
        """,
        ["there, but appended by nobody", '"t9"'],
    ),
    "nobody appended at all": (
        """
        final log t9
        """,
        ["there, but appended by nobody", '"t9"'],
    ),
    "acknowledged ones in the wrong order": (
        """
        append log t1 -> ok
        append log t2 -> ok
        final log t2 t1
        """,
        ["out of order", 'append "t2" -> ok (lines 3 to 4) stands before op 1000'],
    ),
    "an unknown one before one that was acknowledged before it began": (
        """
        append log t1 -> ok
        append log t2 -> unknown
        final log t2 t1
        """,
        ["out of order", 'append "t2" -> unknown (lines 3 to 4) stands before op 1000'],
    ),
    "in the wrong order with others between": (
        """
        append log t1 -> ok
        2 append log t2
        3 append log t3
        append log t4 -> ok
        2 ok
        3 ok
        final log t4 t2 t3 t1
        """,
        ["out of order", 'append "t4"', "stands before op 1000"],
    ),
    "no final value": (
        """
        append log t1 -> ok
        """,
        ["error in the history", "1 acknowledged appends and no final value"],
    ),
    "acknowledged after the final value": (
        """
        1 append log t1
        final log
        1 ok
        """,
        ["error in the history: acknowledged after the final value", "op 1 by c1"],
    ),
    "two final values": (
        """
        append log t1 -> ok
        final log t1
        final log
        """,
        ["error in the history: final values differ", '"t1" in line 3, "" in line 4'],
    ),
}


@pytest.mark.parametrize("script", GOOD.values(), ids=GOOD.keys())
def test_history_is_exactly_once(script: str) -> None:
    verdict = check(history(script))
    assert verdict.ok, verdict.problems
    assert verdict.keys == 1


@pytest.mark.parametrize(("script", "parts"), BAD.values(), ids=BAD.keys())
def test_history_is_not_exactly_once(script: str, parts: list[str]) -> None:
    verdict = check(history(script))
    assert not verdict.ok
    assert len(verdict.problems) == 1
    for part in ['key "log"', *parts]:
        assert part in verdict.problems[0]


@pytest.mark.parametrize("value", ["t1  t2", " t1 t2", "t1 t2 "])
def test_tokens_that_are_not_separated_by_single_spaces_are_a_problem(value: str) -> None:
    events = history("append log t1 -> ok\nappend log t2 -> ok\nfinal log")
    events[-1]["value"] = value
    (problem,) = check(events).problems
    assert "an empty one" in problem


def test_null_is_the_value_of_a_log_without_appends() -> None:
    events = history("1 append log t1\nfinal log")
    events[-1]["value"] = None
    assert check(events).ok


def test_every_sort_of_problem_is_told_and_many_of_one_sort_are_cut() -> None:
    script = [f"append log t{number} -> ok" for number in range(20)]
    script += ["append log t20 -> fail", "final log t20 t9 t1 t1 x"]
    problems = check(history("\n".join(script))).problems
    assert [problem.splitlines()[0] for problem in problems] == [
        'key "log": acknowledged, but missing:',
        'key "log": there more than once:',
        'key "log": failed, but there:',
        'key "log": there, but appended by nobody:',
        'key "log": out of order:',
    ]
    assert problems[0].splitlines()[-1] == "  and 13 more"


def test_a_bad_log_does_not_hide_a_bad_register() -> None:
    verdict = check(
        history("""
        append log t1 -> ok
        put x 1 -> ok
        get x -> 2
        final log
        """)
    )
    assert len(verdict.problems) == 2
    assert verdict.keys == 2
