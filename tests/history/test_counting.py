"""The judge of counters: every increment once, and in order."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.history.checker import check
from tests.history.format import HistoryError, read_history
from tests.history.recorder import Recorder


def verdict(script: str, final: str | None = "") -> tuple[str, ...]:
    """Judge a script: `a(` invokes a, `a)3` acknowledges it with 3, `a?` and `a!` end it without.

    Args:
        final: the value at the end; empty for none told.
    """
    recorder = Recorder()
    operations: dict[str, int] = {}
    for word in script.split():
        name, mark, number = word[0], word[1], word[2:]
        if mark == "(":
            operations[name] = recorder.invoke(name, "increment", "n", time_us=0)
        elif mark == ")":
            recorder.ok(operations[name], time_us=0, number=int(number))
        elif mark == "?":
            recorder.unknown(operations[name], time_us=0)
        else:
            recorder.fail(operations[name], time_us=0)
    if final != "":
        recorder.final("n", final, time_us=0)
    return check(recorder.events).problems


@pytest.mark.parametrize(
    ("script", "final"),
    [
        ("", None),
        ("a( a)1", "1"),
        ("a( b( a)2 b)1", "2"),
        ("a( b( b)2 a? ", "2"),
        ("a( a? b( b)1", "1"),
        ("a( a? b( b)1", "2"),
        ("a( a? b( b)2", "2"),
        ("a( a! b( b)1", "1"),
        ("a( a? b( b? c( c)3 d( d)4", "4"),
        ("a( a? b( b?", None),
        ("a( a)1 b(", "2"),
        ("a( a?", ""),
    ],
)
def test_what_a_counter_may_do_is_right(script: str, final: str | None) -> None:
    assert verdict(script, final) == ()


@pytest.mark.parametrize(
    ("script", "final", "why"),
    [
        ("a( a)1 b( b)2", "1", "is 1, and 2 increments were acknowledged"),
        ("a( a)1 b( b)2", None, "is 0, and 2 increments were acknowledged"),
        ("a( a)1 b( b)2", "3", "at most 2 increments may have been carried out"),
        ("a( a! b( b)1", "2", "at most 1 increments"),
        ("a( a! b( b)2", "2", "more than had been asked for by then"),
        ("a( a)2 b( b)1", "2", "more than had been asked for by then"),
        ("a( a)0", "1", "more than had been asked for by then"),
        ("a( b( a)1 b)1", "2", "answered with the same number"),
        ("a( b( c( c)3 a( a)2 b)1", "4", "out of order"),
        ("a( a)1 b( b)1", "2", "out of order"),
        ("a( b( b)2 a?", "1", "2 was answered before"),
        ("a( a)1", "one", "is 'one', which is no number"),
        ("a( a)1", "", "no final value"),
    ],
)
def test_what_no_counter_does_is_told(script: str, final: str | None, why: str) -> None:
    assert why in "\n".join(verdict(script, final))


def test_histories_of_a_counter_are_right_and_those_with_a_lost_increment_are_not(
    seed: int,
) -> None:
    for number in range(seed, seed + 30):
        random = Random(number)
        recorder = Recorder()
        counter = 0
        begun: list[tuple[int, int | None]] = []
        for _ in range(60):
            if begun and random.random() < 0.5:
                operation, result = begun.pop(random.randrange(len(begun)))
                if result is None and random.random() < 0.5:
                    counter += 1
                    result = counter
                if result is None or random.random() < 0.2:
                    recorder.unknown(operation, time_us=0)
                else:
                    recorder.ok(operation, time_us=0, number=result)
            else:
                begun.append((recorder.invoke("c", "increment", "n", time_us=0), None))
                if random.random() < 0.5:
                    counter += 1
                    begun[-1] = (begun[-1][0], counter)
        acknowledged = sum(event["type"] == "ok" for event in recorder.events)
        recorder.final("n", str(counter), time_us=0)
        assert check(recorder.events).ok
        recorder.events[-1]["value"] = str(acknowledged - 1)
        assert not check(recorder.events).ok


@pytest.mark.parametrize(
    "event",
    [
        {"type": "ok", "op": 1, "time_us": 0},
        {"type": "ok", "op": 1, "time_us": 0, "number": "1"},
        {"type": "ok", "op": 1, "time_us": 0, "number": True},
    ],
)
def test_an_acknowledged_increment_needs_its_number(event: dict[str, Any]) -> None:
    recorder = Recorder()
    recorder.invoke("c", "increment", "n", time_us=0)
    with pytest.raises(HistoryError, match="needs 'number'"):
        read_history([*recorder.events, event])


def test_a_counter_has_nothing_but_increments() -> None:
    recorder = Recorder()
    recorder.invoke("c", "increment", "n", time_us=0)
    recorder.invoke("c", "get", "n", time_us=0)
    with pytest.raises(HistoryError, match="has both increment and get"):
        read_history(recorder.events)
