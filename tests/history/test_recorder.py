"""The recorder: what it writes, and what it refuses."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest

from tests.history.checker import check
from tests.history.format import read_events
from tests.history.recorder import Recorder


def test_events_have_the_documented_form() -> None:
    recorder = Recorder()
    write = recorder.invoke("c1", "put", "x", time_us=10, value="1")
    read = recorder.invoke("c2", "get", "x", time_us=11)
    lost = recorder.invoke("c3", "cas", "x", time_us=12, expected="1", value="2")
    refused = recorder.invoke("c4", "delete", "x", time_us=13)
    recorder.ok(write, time_us=14)
    recorder.ok(read, time_us=15, value=None)
    recorder.unknown(lost, time_us=16, error="timed out")
    recorder.fail(refused, time_us=17, error="not-leader")
    recorder.final("log", "t1 t2", time_us=18)
    assert recorder.events == [
        {"type": "invoke", "op": 1, "client": "c1", "time_us": 10}
        | {"kind": "put", "key": "x", "value": "1"},
        {"type": "invoke", "op": 2, "client": "c2", "time_us": 11, "kind": "get", "key": "x"},
        {"type": "invoke", "op": 3, "client": "c3", "time_us": 12}
        | {"kind": "cas", "key": "x", "expected": "1", "value": "2"},
        {"type": "invoke", "op": 4, "client": "c4", "time_us": 13, "kind": "delete", "key": "x"},
        {"type": "ok", "op": 1, "time_us": 14},
        {"type": "ok", "op": 2, "time_us": 15, "value": None},
        {"type": "unknown", "op": 3, "time_us": 16, "error": "timed out"},
        {"type": "fail", "op": 4, "time_us": 17, "error": "not-leader"},
        {"type": "final", "key": "log", "value": "t1 t2", "time_us": 18},
    ]


def test_each_event_is_in_the_file_when_the_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with Recorder(path) as recorder:
        for value in ("1", 'ü "quoted"\n', "\udc80"):
            recorder.ok(recorder.invoke("c", "put", "x", time_us=0, value=value), time_us=1)
            assert list(read_events(path)) == recorder.events
    assert len(recorder.events) == 6


def test_file_is_closed_with_the_recorder(tmp_path: Path) -> None:
    # A file that nobody closed would be a ResourceWarning, which is an error here.
    recorder = Recorder(tmp_path / "history.jsonl")
    recorder.final("log", "t1", time_us=0)
    del recorder
    gc.collect()
    assert len(list(read_events(tmp_path / "history.jsonl"))) == 1


@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        ("decrement", {}, "kind is 'decrement'"),
        ("put", {}, "a put needs the string 'value'"),
        ("put", {"value": b"1"}, "a put needs the string 'value'"),
        ("append", {"token": "a b"}, "a token is not empty and has no spaces"),
    ],
)
def test_invocation_that_no_history_contains_is_refused(
    kind: str, fields: dict[str, object], problem: str
) -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match=problem):
        recorder.invoke("c", kind, "x", time_us=0, **fields)
    assert recorder.events == []


def test_completion_that_no_history_contains_is_refused() -> None:
    recorder = Recorder()
    read = recorder.invoke("c", "get", "x", time_us=0)
    with pytest.raises(ValueError, match="op 1: an acknowledged get needs 'value'"):
        recorder.ok(read, time_us=1)
    with pytest.raises(ValueError, match="op 2 is not open"):
        recorder.fail(2, time_us=1)
    recorder.ok(read, time_us=1, value="1")
    with pytest.raises(ValueError, match="op 1 is not open"):
        recorder.unknown(read, time_us=2)
    assert len(recorder.events) == 2


def test_threads_record_into_one_history(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"

    def write(client: str) -> None:
        for number in range(200):
            operation = recorder.invoke(client, "put", client, time_us=0, value=f"{number}")
            recorder.ok(operation, time_us=1)

    with Recorder(path) as recorder:
        threads = [threading.Thread(target=write, args=(f"c{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    verdict = check(read_events(path))
    assert (verdict.ok, verdict.operations, verdict.keys) == (True, 800, 4)
