"""Runs one seed again and tells what a person needs to understand it."""

from __future__ import annotations

import json
from collections import deque
from typing import TextIO

import attrs

from raftd.trace import table_row
from tests.simulation.invariants import Invariant, Server
from tests.simulation.machine import Machine, describe
from tests.simulation.profile import SECOND, Profile, draw
from tests.simulation.report import Schedule, describe_counted, describe_profile, first_line
from tests.simulation.run import Outcome
from tests.simulation.search import run_seed, without

TRACE_LINES = 60
"""Of the trace, shown after a failure."""
ERROR_LINES_MAX = 60
"""Of the message: a history that is not linearizable is long."""


@attrs.frozen(kw_only=True)
class Replayed:
    """A run and what was seen of it."""

    schedule: Schedule
    outcome: Outcome
    trace: tuple[str, ...]
    """The last lines, for people."""
    machines: tuple[str, ...]
    """A line for each machine, in the end."""


def replay(
    schedule: Schedule, *, trace_lines: int = TRACE_LINES, trace_file: TextIO | None = None
) -> Replayed:
    """Run `schedule`; write its whole trace to `trace_file`, one JSON object a line."""
    recent: deque[str] = deque(maxlen=trace_lines)

    def emit(line: str) -> None:
        # The lines of the history come here as well.
        if '"event":' in line:
            recent.append(line)
            if trace_file is not None:
                trace_file.write(line + "\n")

    machines: dict[str, Machine] = {}

    class Acquaintance(Invariant):
        """No property: gets to know the machines."""

        title = "acquaintance"
        source = ""

        def started(self, server: Server) -> None:
            assert isinstance(server, Machine)
            machines[server.name] = server

    outcome = run_seed(
        schedule.seed,
        kept=schedule.kept,
        dropped=schedule.dropped,
        emit=emit,
        invariants=(*without(schedule.ignored), Acquaintance),
    )
    return Replayed(
        schedule=schedule,
        outcome=outcome,
        trace=tuple(table_row(json.loads(line)) for line in recent),
        machines=tuple(_described(machines[name]) for name in sorted(machines)),
    )


def _described(machine: Machine) -> str:
    try:
        return describe(machine)
    except Exception as error:
        # It stopped in the middle of a turn, and is asked things that hold between turns.
        return f"{machine.id} cannot tell how it is: {error!r}"


def report(replayed: Replayed) -> str:
    """Return everything for a person: what was drawn, what happened, how it ended."""
    schedule, outcome = replayed.schedule, replayed.outcome
    parts = [
        f"seed {schedule.seed}\n{describe_profile(_profile(schedule), schedule.kept)}",
        f"{outcome.simulated_us / SECOND:.1f} simulated seconds, {outcome.events} events, "
        f"{len(outcome.history)} events of clients\nhash {outcome.hash}\n"
        f"counted: {describe_counted(outcome.counted)}",
    ]
    if outcome.property:
        parts += _failure(outcome, replayed, ERROR_LINES_MAX)
    else:
        parts.append("nothing found")
    return "\n\n".join(parts)


def _profile(schedule: Schedule) -> Profile:
    return draw(schedule.seed).without(schedule.dropped)


def _failure(outcome: Outcome, replayed: Replayed, error_lines: int) -> list[str]:
    lines = outcome.error.splitlines()
    omitted = len(lines) - error_lines
    if omitted > 0:
        lines[error_lines:] = [f"... {omitted} more lines"]
    return [
        f"FAILS: {outcome.property}\n" + "\n".join(lines),
        "\n".join(("the end of its trace", *replayed.trace)),
        "\n".join(("its machines", *replayed.machines)),
        commands(replayed.schedule),
    ]


def commands(schedule: Schedule) -> str:
    """Return how a failure is shown again, and made shorter."""
    return (
        f"again:   {schedule.command('replay')} --trace trace.jsonl --history history.jsonl\n"
        f"shorter: {schedule.command('shrink')}"
    )


def explain(
    outcome: Outcome, schedule: Schedule, *, trace_lines: int = 30, error_lines: int = 15
) -> str:
    """Run a failure again and return its story: for the message of a test that has found it."""
    replayed = replay(schedule, trace_lines=trace_lines)
    again = replayed.outcome
    parts = [f"seed {schedule.seed}", *_failure(outcome, replayed, error_lines)]
    if (again.property, again.hash) != (outcome.property, outcome.hash):
        parts.append(
            f"NOT REPEATABLE: at first hash {outcome.hash}, then hash {again.hash} and "
            + (f"{again.property}: {first_line(again.error)}" if again.property else "no failure")
        )
    return "\n\n".join(parts)
