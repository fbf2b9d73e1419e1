"""How a change was undone, or why it cannot be any more, as a story that a person can follow.

The leader writes the story into the record of the operation, as one sentence after the other. Here
its parts are told apart, so that each of them has its line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from raftd.cluster_status.operations import story_of
from raftd.commands import Operation
from raftd.protocol import OperationView

POINT_OF_NO_RETURN = "past the point of no return: C_new is in the log, and can only go forward"
LABEL_COLUMNS_MAX = 20
"""Before a text is wrapped; beneath wider labels there would be no room for it."""


def next_step(record: Operation) -> str:
    """Return what to do after a change that was undone; empty if the record does not say it."""
    return dict(story_of(record)).get("next", "")


def cause_lines(record: Operation) -> list[str]:
    """Return what became of the change, line by line, without what to do next."""
    return [
        text if label in ("stopped", "missing") else f"{label}: {text}"
        for label, text in story_of(record)
        if label != "next"
    ]


def is_past_return(view: OperationView) -> bool:
    """Return whether the change can only go forward."""
    return view.record.running and view.step == "committing-final" and view.record.plan.joint


def labelled_lines(facts: Iterable[tuple[str, str]], width: int | None) -> list[str]:
    """Return a line for each fact that says something, its label in a column of its own.

    Args:
        width: wrap texts to so many columns; None for no limit.
    """
    told = [(label, text) for label, text in facts if text]
    column = max((len(label) for label, _ in told), default=0)
    lines = []
    for label, text in told:
        room = None if width is None else width - column - 2
        wrapped = [text]
        if room is not None and column <= LABEL_COLUMNS_MAX:
            wrapped = textwrap.wrap(text, max(room, 1), break_long_words=False) or [""]
        lines.append(f"{label:<{column}}  {wrapped[0]}")
        lines += [" " * (column + 2) + line for line in wrapped[1:]]
    return lines
