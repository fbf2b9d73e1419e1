"""A rolling operation as people and programs see it: the plan, its steps while they are taken.

On a terminal the table of steps is redrawn in place. Elsewhere there are plain lines: each step
when it begins and when it ends, and in between what is being waited for, when that changes or after
some seconds. With JSON each of these is a line on stdout.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import attrs
import click

from raftctl.cli import Context
from raftctl.render import (
    Style,
    cut,
    duration,
    fitted,
    number,
    plural,
    printable,
    table,
    terminal_width,
)
from raftd.cluster_status.operations import exchange, rolling_of, rolling_summary, step_document
from raftd.commands import (
    DONE,
    FAILED,
    PENDING,
    ROLLING_RESTART,
    RUNNING,
    SKIPPED,
    Operation,
    Rolling,
    RollingStep,
)

LINE_MS = 5_000.0
"""Off a terminal: what is being waited for is printed at least this often while it changes."""
IDLE_MS = 30_000.0
"""Without a change of its record, after which a driver may be gone: most steps take less."""
_NUMBER = re.compile(r"(?<![\w-])\d[\d.,]*(?:\s?(?:[mµ]?s|m|h|d)\b)?")
_COLORS = {DONE: "green", FAILED: "red", RUNNING: "yellow", PENDING: "dim", SKIPPED: "dim"}


# --- words ------------------------------------------------------------------------------------


def who_drives(rolling: Rolling) -> str:
    """Return whether it is paused or driven, and by whom."""
    if not rolling.paused_by:
        return f"driven by {printable(rolling.driver)}"
    because = f": {printable(rolling.paused_reason)}" if rolling.paused_reason else ""
    if because and rolling.paused_by == rolling.driver:
        # Its driver did, and says why: who that was is no news.
        return f"paused{because}"
    return f"paused by {printable(rolling.paused_by)}{because}"


def idle_ms(rolling: Rolling, now_ms: float) -> float:
    """Return for how long nothing was heard of a driver that may be gone; 0 if it is well.

    Args:
        now_ms: the leader's wall clock, which the record has its times from; ms since 1970.
    """
    if rolling.paused_by or not rolling.changed_ms:
        return 0.0
    age_ms = now_ms - rolling.changed_ms
    return age_ms if age_ms >= IDLE_MS else 0.0


def driving(record: Operation, now_ms: float, resume: str) -> str:
    """Return `who_drives`, and how to go on if that one may be gone.

    Args:
        now_ms: as for `idle_ms`.
        resume: the command that goes on with it.
    """
    rolling = rolling_of(record)
    quiet_ms = idle_ms(rolling, now_ms) if record.running else 0.0
    if not quiet_ms:
        return who_drives(rolling)
    return (
        f"{who_drives(rolling)}; its last change was {duration(quiet_ms)} ago; "
        f"if nobody drives it: {resume}"
    )


def rolling_state(record: Operation) -> str:
    """Return the state in a word: rolling, paused, or how it ended."""
    if not record.running:
        return record.result
    return "paused" if rolling_of(record).paused_by else record.phase


def counted(rolling: Rolling) -> str:
    """Return how many steps are done: `1 of 3 steps done`."""
    finished = sum(step.state in (DONE, SKIPPED) for step in rolling.steps)
    return f"{finished} of {plural(len(rolling.steps), 'step')} done"


def without_numbers(words: str) -> str:
    """Return `words` without numbers and lengths of time: a counter in it is no news.

    Digits in names stay: `n2 runs for 1m 05s` and `n2 runs for 59s` are the same, n3 is another.
    """
    return " ".join(_NUMBER.sub("", words).split())


# --- the plan ---------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class PlannedStep:
    """A step as it is shown before anything happens."""

    step: RollingStep
    role: str
    """leader, follower, learner or down."""
    tolerance: int
    """Further failures that the cluster survives while it is taken; -1 if it has no quorum."""
    version: str = ""


def plan_text(
    kind: str,
    steps: Sequence[PlannedStep],
    command: str,
    style: Style,
    width: int | None,
    *,
    first_command: str = "",
) -> str:
    """Return the steps in their order: who it is, what is done, and what is survived meanwhile.

    Args:
        command: of a restart, as it was given.
        first_command: the one that is run for the first step.
    """
    is_restart = kind == ROLLING_RESTART
    rows = []
    for position, planned in enumerate(steps, 1):
        what = "restart" if is_restart else f"replaced by {planned.step.replacement}"
        if planned.role == "leader":
            what = f"leadership is handed over, then {what}" if len(steps) > 1 else what
        survives = "survives " + (
            plural(planned.tolerance, "failure") if planned.tolerance > 0 else "no failure"
        )
        if planned.tolerance < 0:
            survives = "no quorum"
        rows.append(
            (
                str(position),
                planned.step.name,
                planned.role,
                planned.version,
                what,
                style(survives, "yellow") if planned.tolerance <= 0 else survives,
            )
        )
    count = plural(len(steps), "server")
    what = "restart" if is_restart else "replacement"
    lines = [fitted(f"rolling {what} of {count}, one at a time", width)]
    headers = ("STEP", "SERVER", "ROLE", "VERSION", "WHAT", "MEANWHILE")
    lines.append(table(headers, rows, right=("STEP",), width=width))
    if command:
        lines.append(f"command: {printable(command)}")
    if first_command and first_command != command:
        lines.append(f"command for {steps[0].step.name}: {printable(first_command)}")
    return "\n".join(lines)


def plan_document(kind: str, steps: Sequence[PlannedStep], command: str) -> dict[str, Any]:
    """Return the plan as JSON has it."""
    return {
        "operation": None,
        "result": "planned",
        "kind": kind,
        "command": command or None,
        "steps": [
            {
                "server": planned.step.name,
                "replacement": planned.step.replacement or None,
                "role": planned.role,
                "version": planned.version or None,
                "tolerance": planned.tolerance,
            }
            for planned in steps
        ],
    }


# --- the steps --------------------------------------------------------------------------------


def steps_table(
    rolling: Rolling, style: Style, width: int | None, *, now_ms: int = 0, doing: str = ""
) -> str:
    """Return the steps, one line each.

    Args:
        now_ms: how far a running step is counted to, milliseconds since 1970; 0 not to count it.
        doing: what the running step does just now.
    """
    rows = []
    for position, step in enumerate(rolling.steps, 1):
        ended_ms = step.ended_ms or (now_ms if step.state == RUNNING else 0)
        took = duration(max(0, ended_ms - step.started_ms)) if step.started_ms and ended_ms else ""
        words = doing if step.state == RUNNING and doing else step.note
        rows.append(
            (
                str(position),
                exchange(step),
                style(step.state, _COLORS.get(step.state, "dim")),
                took,
                versions(step),
                step.operation,
                printable(words),
            )
        )
    headers = ("STEP", "SERVER", "STATE", "TOOK", "VERSION", "OPERATION", "WHAT HAPPENED")
    return table(headers, rows, right=("STEP", "TOOK"), width=width)


def versions(step: RollingStep) -> str:
    """Return the release of a server before and after its restart."""
    before, after = printable(step.version_before), printable(step.version_after)
    if not after or before == after:
        return before or after
    return f"{before or '?'} -> {after}"


def story(record: Operation, style: Style, *, now_ms: float = 0.0, resume: str = "") -> list[str]:
    """Return all there is to say about a rolling operation, line by line.

    Args:
        now_ms: the leader's wall clock, ms since 1970; 0 to say nothing of a driver that is gone.
        resume: the command that goes on with it.
    """
    rolling = rolling_of(record)
    state = rolling_state(record)
    if record.running:
        who = driving(record, now_ms, resume)
        state = who if rolling.paused_by else f"{state}, {who}"
    facts = [
        ("state", state),
        ("steps", counted(rolling)),
        ("author", printable(record.author)),
        ("reason", printable(record.reason)),
        ("command", printable(rolling.command)),
        ("why", printable(record.explanation)),
    ]
    width = max(len(label) for label, _ in facts)
    lines = [f"{record.id}  {rolling_summary(record)}", ""]
    lines += [f"{label:<{width}}  {text}" for label, text in facts if text]
    return [*lines, "", steps_table(rolling, style, terminal_width(sys.stdout))]


# --- showing ----------------------------------------------------------------------------------


class Screen:
    """Shows a rolling operation while it is driven or watched.

    This one prints nothing, for outputs that have a last document and nothing before it.
    """

    def show(self, record: Operation) -> None:
        """Show the record, the newest one."""

    def doing(self, words: str, key: object = None) -> None:
        """Show what is being done or waited for just now.

        Args:
            key: the same one as before where only numbers in `words` have changed, and these are
                worth a line now and then; without it numbers are no news.
        """

    def say(self, words: str) -> None:
        """Say something that stays."""

    def close(self) -> None:
        """Leave the terminal tidy."""


def screen_for(context: Context) -> Screen:
    """Return the screen for the output that was asked for."""
    if context.output == "json":
        return _JsonLines()
    if context.output == "yaml":
        return Screen()
    style = Style(context.use_color(sys.stderr))
    return _Redrawn(style) if context.redraws(sys.stderr) else _PlainLines()


class _Lines(Screen):
    """What the screens without a cursor have in common: news come once, numbers now and then."""

    def __init__(self) -> None:
        self._record: Operation | None = None
        self._key: object = None
        self._words = ""
        self._shown_s = 0.0

    def show(self, record: Operation) -> None:
        before, self._record = self._record, record
        if before is None:
            self.began(record)
        known = rolling_of(before).steps if before is not None else ()
        for position, step in enumerate(rolling_of(record).steps):
            was = known[position] if position < len(known) else None
            if was is None and step.state == PENDING:
                continue
            if was is None or (was.state, was.operation) != (step.state, step.operation):
                self.changed(record, position)

    def doing(self, words: str, key: object = None) -> None:
        now_s = time.monotonic()
        due = key is not None and now_s - self._shown_s >= LINE_MS / 1000 and words != self._words
        key = without_numbers(words) if key is None else key
        if key != self._key or due:
            self._key, self._words, self._shown_s = key, words, now_s
            self.print_doing(words)

    def began(self, record: Operation) -> None:
        """Print what the operation is."""

    def changed(self, record: Operation, position: int) -> None:
        """Print that a step is not what it was."""

    def print_doing(self, words: str) -> None:
        """Print what is being done."""


class _JsonLines(_Lines):
    """A line of JSON on stdout for each piece of news."""

    def changed(self, record: Operation, position: int) -> None:
        self._print(record, position, "")

    def print_doing(self, words: str) -> None:
        record = self._record
        if record is not None:
            running = [
                position
                for position, step in enumerate(rolling_of(record).steps)
                if step.state == RUNNING
            ]
            self._print(record, running[0] if running else None, words)

    def _print(self, record: Operation, position: int | None, doing: str) -> None:
        steps = rolling_of(record).steps
        line = {
            "type": "progress",
            "operation": record.id,
            "phase": rolling_state(record),
            "step": None if position is None else position + 1,
            "steps": len(steps),
            "doing": doing or None,
            "current": None if position is None else step_document(steps[position]),
        }
        click.echo(json.dumps(line, ensure_ascii=False))


class _PlainLines(_Lines):
    """Lines on stderr, no cursor movement."""

    def say(self, words: str) -> None:
        click.echo(words, err=True)

    def began(self, record: Operation) -> None:
        self.say(f"{record.id}: {rolling_summary(record)}")

    def changed(self, record: Operation, position: int) -> None:
        self.say(f"{_where(record, position)} {_step_news(rolling_of(record).steps[position])}")

    def print_doing(self, words: str) -> None:
        self.say(f"  {printable(words)}")


def _where(record: Operation, position: int) -> str:
    steps = rolling_of(record).steps
    return f"[{position + 1}/{number(len(steps))}] {exchange(steps[position])}:"


def _step_news(step: RollingStep) -> str:
    """Return what has become of a step, in a line."""
    words = [step.state]
    if step.state == RUNNING and step.operation:
        words = [f"{step.operation} runs"]
    if step.state in (DONE, FAILED) and step.started_ms and step.ended_ms:
        words.append(f"in {duration(max(0, step.ended_ms - step.started_ms))}")
    if step.version_after:
        words.append(f"({versions(step)})")
    return " ".join(words) + (f": {printable(step.note)}" if step.note else "")


class _Redrawn(Screen):
    """A table at the bottom of the terminal that is drawn over."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._record: Operation | None = None
        self._doing = ""
        self._lines = 0

    def show(self, record: Operation) -> None:
        if record != self._record:
            # It was about how things were before.
            self._doing = ""
        self._record = record
        self._draw([])

    def doing(self, words: str, key: object = None) -> None:
        self._doing = words
        self._draw([])

    def say(self, words: str) -> None:
        self._draw([words])

    def close(self) -> None:
        # The table stays as it was last, and with it how the steps ended.
        self._doing = ""
        if self._record is not None:
            self._draw([])
        self._lines = 0

    def _draw(self, finished: list[str]) -> None:
        width = terminal_width(sys.stderr) or 80
        live = []
        record = self._record
        if record is not None:
            rolling = rolling_of(record)
            live = [f"{record.id}: {rolling_summary(record)}"]
            now_ms = int(time.time() * 1000)
            live += steps_table(rolling, self._style, width - 1, now_ms=now_ms).splitlines()
        if self._doing:
            live.append(self._style(printable(self._doing), "yellow"))
        # The cursor finds back no further than to the top of the screen: what is done goes first.
        room = max(4, shutil.get_terminal_size().lines - 1)
        del live[2 : 2 + max(0, len(live) - room)]
        # A line that wraps would take two, and the cursor would not find back: cut it.
        live = [cut(line, width - 1) for line in live]
        up = f"\x1b[{self._lines}A" if self._lines else ""
        # Each line is cleared behind its end, and nothing before it is drawn: no flicker.
        text = "".join(f"{line}\x1b[K\n" for line in [*finished, *live])
        sys.stderr.write(f"{up}\r{text}\x1b[J")
        sys.stderr.flush()
        self._lines = len(live)
