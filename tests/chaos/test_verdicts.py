"""The judges of a run find what is wrong with it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftd.protocol import ListEntry
from tests.chaos.traces import (
    differing_commits,
    differing_states,
    dropped_lines,
    last_hash,
    read_trace,
    rival_leaders,
)
from tests.chaos.verdicts import (
    judge_contents,
    judge_hashes,
    judge_history,
    judge_once,
    judge_protocol,
    without_appends,
)
from tests.history.recorder import Recorder

Event = dict[str, Any]


def recorded() -> list[Event]:
    """Return a good history: a register that was written and read, and two appends."""
    recorder = Recorder()
    put = recorder.invoke("c1", "put", "register/0", time_us=1, value="a")
    recorder.ok(put, time_us=2)
    get = recorder.invoke("c2", "get", "register/0", time_us=3)
    recorder.ok(get, time_us=4, value="a")
    for number, token in enumerate(("c1-1", "c1-2")):
        append = recorder.invoke("c1", "append", "append/0", time_us=5 + number, token=token)
        recorder.ok(append, time_us=6 + number)
    recorder.final("append/0", "c1-1 c1-2", time_us=9)
    return recorder.events


def stale_read(event: Event) -> None:
    if event.get("value") == "a" and event["type"] == "ok":
        event["value"] = None


def lost_append(event: Event) -> None:
    if event["type"] == "final":
        event["value"] = "c1-1"


def repeated_append(event: Event) -> None:
    if event["type"] == "final":
        event["value"] = "c1-1 c1-2 c1-2"


def test_a_good_history_passes() -> None:
    assert judge_history(recorded()).ok


@pytest.mark.parametrize("doctor", [stale_read, lost_append, repeated_append])
def test_a_doctored_history_fails(doctor: Callable[[Event], None]) -> None:
    events = recorded()
    for event in events:
        doctor(event)
    result = judge_history(events)
    assert not result.ok
    assert result.problems


def test_without_final_values_registers_are_judged_alone() -> None:
    events = [event for event in recorded() if event["type"] != "final"]
    assert not judge_history(events).ok
    assert judge_history(without_appends(events)).ok
    for event in events:
        stale_read(event)
    assert not judge_history(without_appends(events)).ok


# --- keys that are written once ---------------------------------------------------------------


def entry(key: str, value: bytes, version: int = 1) -> ListEntry:
    return ListEntry(key=key, value=value, create_revision=1, mod_revision=1, version=version)


OUTCOMES = {"once/c1/1": "ok", "once/c1/2": "unknown", "once/c1/3": "failed"}


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([entry("once/c1/1", b"1")], id="the-unknown-one-did-not-happen"),
        pytest.param([entry("once/c1/1", b"1"), entry("once/c1/2", b"2")], id="it-happened"),
    ],
)
def test_writes_done_once_pass(entries: list[ListEntry]) -> None:
    assert judge_once(OUTCOMES, entries).ok


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([], "acknowledged, but lost"),
        ([entry("once/c1/1", b"1", version=2)], "written 2 times"),
        ([entry("once/c1/1", b"1"), entry("once/c1/2", b"2", version=2)], "written 2 times"),
        ([entry("once/c1/1", b"1"), entry("once/c1/3", b"3")], "reported as failed, but there"),
        ([entry("once/c1/1", b"7")], "has the value"),
        ([entry("once/c1/1", b"1"), entry("once/c9/1", b"1")], "nobody has written it"),
    ],
)
def test_lost_repeated_and_invented_writes_fail(entries: list[ListEntry], problem: str) -> None:
    result = judge_once(OUTCOMES, entries)
    assert len(result.problems) == 1
    assert problem in result.problems[0]


def test_members_that_hold_different_things_fail() -> None:
    assert judge_contents({"n1": (1, 2), "n2": (1, 2)}).ok
    result = judge_contents({"n1": (1, 2), "n2": (1, 2), "n3": (1, 3)})
    assert result.problems == ("n3 holds something else than n1",)


# --- traces -----------------------------------------------------------------------------------


def applied(server: str, index: int, state_hash: str) -> Event:
    return {
        "server": server,
        "event": "apply",
        "first_index": index,
        "applied_index": index,
        "state_hash": state_hash,
    }


def good_traces() -> dict[str, list[Event]]:
    return {
        name: [applied(f"{name}/aa", 4, "1111"), applied(f"{name}/aa", 5, "2222")]
        for name in ("n1", "n2", "n3")
    }


def test_equal_hashes_pass() -> None:
    assert judge_hashes(good_traces(), ["n1", "n2", "n3"], 5).ok


def test_a_hash_that_differs_at_the_end_fails() -> None:
    traces = good_traces()
    traces["n2"][-1]["state_hash"] = "3333"
    assert not judge_hashes(traces, ["n1", "n2", "n3"], 5).ok
    result = judge_protocol(traces)
    assert result.problems == ("state after index 5: 2222 on n1/aa, 3333 on n2/aa",)


def test_a_hash_that_differed_on_the_way_fails() -> None:
    traces = good_traces()
    traces["n3"][0]["state_hash"] = "3333"
    assert judge_hashes(traces, ["n1", "n2", "n3"], 5).ok
    result = judge_protocol(traces)
    assert result.problems == ("state after index 4: 1111 on n1/aa, 3333 on n3/aa",)


def test_a_member_without_the_last_hash_fails() -> None:
    traces = good_traces()
    del traces["n1"][-1]
    assert not judge_hashes(traces, ["n1", "n2", "n3"], 5).ok
    traces["n1"] = []
    assert not judge_hashes(traces, ["n1", "n2", "n3"], 5).ok
    # Only members have to have it.
    assert judge_hashes(traces, ["n2", "n3"], 5).ok


def test_two_lives_of_one_server_are_compared_as_well() -> None:
    again = [applied("n1/aa", 4, "1111"), applied("n1/aa", 4, "1234")]
    assert len(differing_states(again)) == 1


def test_two_leaders_of_a_term_fail() -> None:
    def leads(server: str, term: int) -> Event:
        return {"server": server, "event": "role", "role": "leader", "term": term}

    traces = {"n1": [leads("n1/aa", 3), leads("n1/aa", 5)], "n2": [leads("n2/bb", 4)]}
    assert judge_protocol(traces).ok
    traces["n2"].append(leads("n2/bb", 5))
    assert rival_leaders(traces["n1"] + traces["n2"])
    assert not judge_protocol(traces).ok


def test_an_index_committed_with_two_terms_fails() -> None:
    def commits(server: str, index: int, term: int) -> Event:
        return {"server": server, "event": "commit", "commit_index": index, "term": term}

    events = [commits("n1/aa", 7, 2), commits("n2/bb", 7, 2)]
    assert not differing_commits(events)
    assert differing_commits([*events, commits("n3/cc", 7, 3)])


def test_a_line_that_a_kill_has_cut_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "n1.trace"
    lines = [applied("n1/aa", 4, "1111"), applied("n1/aa", 5, "2222")]
    path.write_text(f'{json.dumps(lines[0])}\n{{"server": "n1/aa", "ev\n{json.dumps(lines[1])}\n')
    assert read_trace(path) == lines
    assert last_hash(read_trace(path), 5) == "2222"
    assert last_hash(read_trace(path), 4) is None
    assert read_trace(tmp_path / "missing") == []


def test_lines_that_were_dropped_are_counted() -> None:
    dropped = {"server": "n1/aa", "event": "dropped", "count": 3}
    assert dropped_lines([applied("n1/aa", 4, "1111"), dropped, dropped]) == 6
