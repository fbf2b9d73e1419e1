"""What a run has shown: each claim with the reasons why it does not hold, if it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from raftd.protocol import ListEntry
from tests.chaos.traces import (
    Event,
    differing_commits,
    differing_states,
    dropped_lines,
    last_hash,
    rival_leaders,
)
from tests.history.checker import check

PROBLEMS_MAX = 5
"""Told in full, of each claim."""
UNDECIDED = "the checker gave up: "


@attrs.frozen
class Verdict:
    """A claim about the run."""

    claim: str
    problems: tuple[str, ...] = ()
    """Why it does not hold; empty if it does."""
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return not self.problems


def verdict(claim: str, problems: Iterable[str], detail: str = "") -> Verdict:
    """Return the verdict on `claim`, with a bounded number of problems."""
    found = list(problems)
    if len(found) > PROBLEMS_MAX:
        found[PROBLEMS_MAX:] = [f"and {len(found) - PROBLEMS_MAX} more"]
    return Verdict(claim, tuple(found), detail)


def judge_history(events: Iterable[Mapping[str, object]]) -> Verdict:
    """Return whether all operations fit one order, and all appends happened exactly once."""
    result = check(events)
    return verdict(
        "the histories are linearizable, each append is there once",
        [*result.problems, *(f"{UNDECIDED}{text}" for text in result.undecided)],
        f"{result.operations} operations on {result.keys} keys",
    )


def without_appends(events: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return the events of register keys: appends cannot be judged without final values."""
    kept = []
    appends = set()
    for event in events:
        if event.get("kind") == "append":
            appends.add(event["op"])
        elif event["type"] != "final" and event["op"] not in appends:
            kept.append(event)
    return kept


def judge_once(outcomes: Mapping[str, str], entries: Iterable[ListEntry]) -> Verdict:
    """Return whether each write of a key of its own was done once, not at all, or at most once.

    Args:
        outcomes: of each such key: ok, failed or unknown.
        entries: what the cluster has of them in the end.
    """
    found = {entry.key: entry for entry in entries}
    problems = [
        f"{key}: written, but nobody has written it" for key in found.keys() - outcomes.keys()
    ]
    for key, outcome in outcomes.items():
        entry = found.get(key)
        if entry is None:
            if outcome == "ok":
                problems.append(f"{key}: acknowledged, but lost")
            continue
        if outcome == "failed":
            problems.append(f"{key}: reported as failed, but there")
        if entry.version != 1:
            problems.append(f"{key}: written {entry.version} times instead of once")
        if int(entry.value) != int(key.rpartition("/")[2]):
            problems.append(f"{key}: has the value {entry.value!r}")
    acknowledged = sum(1 for outcome in outcomes.values() if outcome == "ok")
    return verdict(
        "every acknowledged write is there, done once", problems, f"{acknowledged} keys of one put"
    )


def judge_contents(contents: Mapping[str, object]) -> Verdict:
    """Return whether all members hold the same keys, values, revisions and versions."""
    names = sorted(contents)
    problems = [
        f"{name} holds something else than {names[0]}"
        for name in names[1:]
        if contents[name] != contents[names[0]]
    ]
    return verdict("all members hold the same", problems, f"{len(names)} members")


def judge_hashes(traces: Mapping[str, list[Event]], members: Iterable[str], index: int) -> Verdict:
    """Return whether the last state of all members is that at `index`, and the same."""
    hashes = {name: last_hash(traces[name], index) for name in members}
    problems = []
    if None in hashes.values() or len(set(hashes.values())) != 1:
        problems.append(f"last state hashes at index {index}: {hashes}")
    hash_text = next(iter(hashes.values()), None)
    return verdict(
        "the last state hashes are equal",
        problems,
        f"{len(hashes)} members, {hash_text} at {index}",
    )


def judge_protocol(traces: Mapping[str, list[Event]]) -> Verdict:
    """Return whether each term had one leader, each committed index one term and one state.

    That holds at any time, also where a cluster has not come to rest.
    """
    events = [event for trace in traces.values() for event in trace]
    terms = {event["term"] for event in events if event.get("event") == "role"}
    dropped = dropped_lines(events)
    return verdict(
        "one leader a term, one term and one state an index",
        [*rival_leaders(events), *differing_commits(events), *differing_states(events)],
        f"{len(terms)} terms" + (f", {dropped} lines of traces dropped" if dropped else ""),
    )
