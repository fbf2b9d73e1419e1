"""What a history may look like, and what is said about a file that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.history.checker import check
from tests.history.format import HistoryError, read_events, read_history

INVOKE = {"type": "invoke", "op": 1, "client": "c", "time_us": 0, "kind": "put", "key": "x"}
PUT = {**INVOKE, "value": "1"}
GET = {**INVOKE, "kind": "get"}
CAS = {**INVOKE, "kind": "cas", "expected": "1", "value": "2"}
APPEND = {**INVOKE, "kind": "append", "token": "t1"}
DONE = {"type": "ok", "op": 1, "time_us": 1}


@pytest.mark.parametrize(
    ("events", "line", "problem"),
    [
        ([{"op": 1}], 1, "type is None, not invoke, ok, fail, unknown or final"),
        ([["invoke"]], 1, "an event is a JSON object"),
        ([INVOKE], 1, "a put needs the string 'value'"),
        ([{**PUT, "value": 1}], 1, "a put needs the string 'value'"),
        ([{**PUT, "kind": "incr"}], 1, "kind is 'incr', not one of get, put, "),
        ([{**PUT, "kind": ["put"]}], 1, "kind is \\['put'\\], not one of"),
        ([{**CAS, "expected": None}], 1, "a cas needs the string 'expected'"),
        ([{**APPEND, "token": ""}], 1, "a token is not empty and has no spaces"),
        ([{**APPEND, "token": "a b"}], 1, "a token is not empty and has no spaces"),
        ([{**PUT, "op": "1"}], 1, "'op' is '1', which has the wrong type"),
        ([{**PUT, "op": True}], 1, "'op' is True, which has the wrong type"),
        ([{**PUT, "key": None}], 1, "'key' is None, which has the wrong type"),
        ([{**PUT, "time_us": "0"}], 1, "'time_us' is '0', which has the wrong type"),
        ([{name: PUT[name] for name in PUT if name != "client"}], 1, "'client' is missing"),
        ([PUT, DONE, PUT], 3, "op 1 was invoked in line 1"),
        ([DONE], 1, "op 1 was never invoked"),
        ([PUT, DONE, {**DONE, "type": "unknown"}], 3, "op 1 was completed in line 2"),
        ([GET, DONE], 2, "op 1: an acknowledged get needs 'value', a string or null"),
        ([GET, {**DONE, "value": 1}], 2, "op 1: an acknowledged get needs 'value'"),
        ([CAS, DONE], 2, "op 1: an acknowledged cas needs 'applied', true or false"),
        ([CAS, {**DONE, "applied": 1}], 2, "op 1: an acknowledged cas needs 'applied'"),
        ([PUT, {**APPEND, "op": 2}], 2, 'key "x" has both put and append'),
        ([PUT, {"type": "final", "key": "x", "value": "1"}], 2, "record a get instead"),
        ([APPEND, {**APPEND, "op": 2}], 2, 'op 2 appends "t1" to "x", as op 1 did'),
        ([{"type": "final", "key": "x"}], 1, "'value' is missing"),
    ],
)
def test_malformed_event_is_refused_with_its_line(
    events: list[Any], line: int, problem: str
) -> None:
    with pytest.raises(HistoryError, match=f"^line {line}: .*{problem}") as caught:
        check(events)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"type":"invoke",', "not JSON"),
        (b"", "not JSON"),
        (b'{"key":"\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_line_that_is_not_json_is_refused_with_its_number(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(json.dumps(PUT).encode() + b"\n" + line + b"\n")
    with pytest.raises(HistoryError, match=f"^line 2: {problem}"):
        check(read_events(path))


def test_further_fields_and_a_missing_time_are_accepted() -> None:
    events = [
        {**{name: PUT[name] for name in PUT if name != "time_us"}, "server": "n1"},
        {"type": "ok", "op": 1, "revision": 7},
    ]
    assert check(events).ok


def test_operations_know_their_lines_and_outcomes() -> None:
    history = read_history([PUT, {**GET, "op": 2}, {**DONE, "type": "fail"}])
    put, get = history.operations["x"]
    assert (put.invoked, put.completed, put.outcome) == (1, 3, "fail")
    assert (get.invoked, get.completed, get.outcome) == (2, None, "unknown")
    assert (history.keys, history.operation_count) == (["x"], 2)


def test_empty_history_is_fine() -> None:
    verdict = check([])
    assert (verdict.ok, verdict.operations, verdict.keys) == (True, 0, 0)
