"""What the traces of all servers say together: `raftd.trace` describes their lines.

Every server of a cluster, in all its lives, has to have applied the same: equal hashes at equal
indices, one term for each committed index, one leader for each term.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
PROBLEMS_MAX = 5
"""Told in full, of each sort."""


def read_trace(path: Path) -> list[Event]:
    """Return the events in the file at `path`; none if it does not exist.

    Lines that are cut short are left out: a process that is killed may leave one each time.
    """
    events: list[Event] = []
    if not path.exists():
        return events
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def differing_states(events: Iterable[Event]) -> list[str]:
    """Return where two servers, or two lives of one, have different state hashes at one index."""
    return _conflicts(
        "state after index",
        (
            (event["applied_index"], event["state_hash"], event["server"])
            for event in events
            if event.get("event") == "apply" and event["state_hash"] is not None
        ),
    )


def differing_commits(events: Iterable[Event]) -> list[str]:
    """Return the indices that were committed with more than one term."""
    return _conflicts(
        "term of the committed index",
        (
            (event["commit_index"], event["term"], event["server"])
            for event in events
            if event.get("event") == "commit"
        ),
    )


def rival_leaders(events: Iterable[Event]) -> list[str]:
    """Return the terms in which more than one server led (election safety)."""
    return _conflicts(
        "leader of term",
        (
            (event["term"], event["server"], event["server"])
            for event in events
            if event.get("event") == "role" and event["role"] == "leader"
        ),
    )


def _conflicts(what: str, claims: Iterable[tuple[int, object, str]]) -> list[str]:
    values: dict[int, dict[object, str]] = defaultdict(dict)
    for place, value, server in claims:
        values[place].setdefault(value, server)
    problems = [
        f"{what} {place}: " + ", ".join(f"{value} on {server}" for value, server in found.items())
        for place, found in sorted(values.items())
        if len(found) > 1
    ]
    if len(problems) > PROBLEMS_MAX:
        problems[PROBLEMS_MAX:] = [f"and {len(problems) - PROBLEMS_MAX} more"]
    return problems


def last_hash(events: Sequence[Event], index: int) -> str | None:
    """Return the state hash of a server's last transaction, if that ended with `index`."""
    for event in reversed(events):
        if event.get("event") == "apply":
            return event["state_hash"] if event["applied_index"] == index else None
    return None


def dropped_lines(events: Iterable[Event]) -> int:
    """Return how many lines are missing since the file could not keep up."""
    return sum(event["count"] for event in events if event.get("event") == "dropped")
