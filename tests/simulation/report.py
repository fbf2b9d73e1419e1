"""What simulated runs have shown, added up, as tables for people and as JSON for programs.

Whatever a run counts is shown: a counter `prefix: label` stands in the table of its prefix, one
without a prefix in the first table. Nothing has to be registered here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from tests.simulation import machine
from tests.simulation.machine import POINTS
from tests.simulation.profile import SECOND, Profile
from tests.simulation.run import Outcome

COMMAND = "python -m tests.simulation"
ERROR_CHARACTERS_MAX = 140
"""Of a failure in a list."""
LISTED_SEEDS_MAX = 10
"""Of each property; the numbers of the others follow in one line."""
NUMBERED_SEEDS_MAX = 40
"""In that line."""
WIDTHS = (40, 14, 16)
"""Of the columns of a table, in characters, unless something longer stands there."""

GENERAL = "runs"
TITLES = {
    "fault": "faults injected",
    "phase met by a fault": "phases of a membership change that a fault met",
}
"""Titles that say more than the prefix does. These tables come first, the others by name."""
PHASES = (
    "no change",
    "catching up",
    "learners uncommitted",
    "C_old,new",
    "C_new uncommitted",
    "abort uncommitted",
)
"""Shown with a zero if no fault has met them."""
_POINT = re.compile(r"crash at point (\d+)")
_ARMED = re.compile(r"fault: crash armed at point (\d+)")
_POINT_ROW = re.compile(r"^\| (\d+) \| (.+) \|$", re.MULTILINE)


# --- what was run ---


@attrs.frozen(kw_only=True)
class Schedule:
    """A run: a seed, and what of it does not happen."""

    seed: int
    kept: tuple[int, ...] | None = None
    """Numbers of the steps that happen; None for all."""
    dropped: tuple[str, ...] = ()
    """What does not happen beside the steps: loss, malice, m4, ..."""
    ignored: tuple[str, ...] = ()
    """Titles of properties that are not looked at."""

    def command(self, name: str) -> str:
        """Return the command line that does `name`, replay or shrink, with this run."""
        words = [COMMAND, name, str(self.seed)]
        if self.kept is not None:
            words += ["--keep", ",".join(map(str, self.kept)) or "none"]
        if self.dropped:
            words += ["--without", ",".join(self.dropped)]
        for title in self.ignored:
            words += ["--ignore", f'"{title}"']
        return " ".join(words)


@attrs.frozen(kw_only=True)
class Failure:
    """A seed that has found something."""

    seed: int
    property: str
    error: str
    """In one line."""

    def document(self) -> dict[str, object]:
        """Return it for JSON, with the commands that do it again and make it shorter."""
        schedule = Schedule(seed=self.seed)
        return {
            **attrs.asdict(self),
            "replay": schedule.command("replay"),
            "shrink": schedule.command("shrink"),
        }


def first_line(text: str) -> str:
    """Return the first line that says something."""
    return next((line for line in text.splitlines() if line.strip()), "")


def headline(outcome: Outcome) -> str:
    """Return the message of a failure in one line, without the name of the property."""
    return first_line(outcome.error).removeprefix(f"{outcome.property}: ")


@attrs.define
class Tally:
    """Runs, added up. What it keeps of a run is small: some hundred counters and its failure."""

    seeds: int = 0
    simulated_us: int = 0
    events: int = 0
    counted: Counter[str] = attrs.field(factory=Counter)
    """How often something was counted, in all runs."""
    runs_with: Counter[str] = attrs.field(factory=Counter)
    """In how many runs it was counted."""
    failures: list[Failure] = attrs.field(factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add a run."""
        self.seeds += 1
        self.simulated_us += outcome.simulated_us
        self.events += outcome.events
        self.counted.update(outcome.counted)
        self.runs_with.update(outcome.counted.keys())
        if outcome.property:
            self.failures.append(
                Failure(
                    seed=outcome.seed,
                    property=outcome.property,
                    error=headline(outcome),
                )
            )

    def merge(self, other: Tally) -> None:
        """Add the runs of another tally."""
        self.seeds += other.seeds
        self.simulated_us += other.simulated_us
        self.events += other.events
        self.counted.update(other.counted)
        self.runs_with.update(other.runs_with)
        self.failures = sorted([*self.failures, *other.failures], key=lambda each: each.seed)

    def document(self) -> dict[str, object]:
        """Return everything for JSON."""
        return {
            "seeds_run": self.seeds,
            "simulated_hours": round(self.simulated_us / SECOND / 3600, 3),
            "events": self.events,
            "counted": dict(sorted(self.counted.items())),
            "runs_with": dict(sorted(self.runs_with.items())),
            "failures": [failure.document() for failure in self.failures],
        }


# --- tables ---


def summary(tally: Tally) -> str:
    """Return what the runs of `tally` have met, and what they have found."""
    return "\n\n".join((*_tables(tally), failures(tally)))


def _tables(tally: Tally) -> list[str]:
    groups: dict[str, list[str]] = {}
    alone: list[str] = []
    for name in tally.counted:
        prefix, colon, _ = name.partition(": ")
        if _POINT.fullmatch(name) or _ARMED.fullmatch(name):
            continue
        if colon:
            groups.setdefault(prefix, []).append(name)
        else:
            alone.append(name)
    general = [
        ("seeds", f"{tally.seeds:,}", ""),
        ("simulated hours", f"{tally.simulated_us / SECOND / 3600:,.2f}", ""),
        ("events", f"{tally.events:,}", ""),
        *_rows(tally, _most_first(tally, alone)),
    ]
    tables = [_table(GENERAL, general)]
    phases = "phase met by a fault"
    groups[phases] = [f"{phases}: {phase}" for phase in PHASES] + [
        name for name in groups.get(phases, ()) if name.partition(": ")[2] not in PHASES
    ]
    ranks = [*TITLES, *sorted(groups.keys() - TITLES.keys())]
    for prefix in ranks:
        names = groups.get(prefix, [])
        if prefix != phases:
            names = _most_first(tally, names)
        tables.append(_table(TITLES.get(prefix, prefix), _rows(tally, names)))
        if prefix == "fault":
            tables.append(_crash_table(tally))
    return tables


def _most_first(tally: Tally, names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (-tally.counted[name], name))


def _rows(tally: Tally, names: Iterable[str]) -> list[tuple[str, ...]]:
    return [
        (
            name.partition(": ")[2] or name,
            f"{tally.counted[name]:,}",
            f"in {tally.runs_with[name]:,} runs",
        )
        for name in names
    ]


def _crash_table(tally: Tally) -> str:
    meanings = crash_points()
    rows = [("point", "armed", "crashed", "where")]
    for point in range(1, POINTS + 1):
        armed = tally.counted[f"fault: crash armed at point {point}"]
        crashed = tally.counted[f"crash at point {point}"]
        rows.append((f"{point}", f"{armed:,}", f"{crashed:,}", meanings.get(point, "")))
    return _table("crashes by numbered point", rows, align=(">", ">", ">", "<"), least=(5, 8, 8, 0))


def crash_points() -> dict[int, str]:
    """Return where each numbered point is, in words: the table in the machine's module."""
    return {int(number): text for number, text in _POINT_ROW.findall(machine.__doc__ or "")}


def _table(
    title: str,
    rows: Sequence[tuple[str, ...]],
    *,
    align: tuple[str, ...] = ("<", ">", ">"),
    least: tuple[int, ...] = WIDTHS,
) -> str:
    widths = [max(width, *(len(row[n]) for row in rows), 0) for n, width in enumerate(least)]
    lines = [
        "  " + "  ".join(f"{text:{a}{w}}" for text, a, w in zip(row, align, widths, strict=True))
        for row in rows
    ]
    return "\n".join([title, *(line.rstrip() for line in lines or ["  none"])])


def failures(tally: Tally) -> str:
    """Return the failures by property, with the commands that show each again."""
    if not tally.failures:
        return f"nothing found in {tally.seeds:,} seeds"
    by_property: dict[str, list[Failure]] = {}
    for failure in tally.failures:
        by_property.setdefault(failure.property, []).append(failure)
    lines = [f"FAILURES: {len(tally.failures):,} in {tally.seeds:,} seeds"]
    for title, found in by_property.items():
        lines.append(f"  {title} ({len(found):,})")
        for failure in found[:LISTED_SEEDS_MAX]:
            lines.append(f"    {shortened(failure.error, ERROR_CHARACTERS_MAX)}")
            lines.append(f"      {Schedule(seed=failure.seed).command('replay')}")
        more = [str(failure.seed) for failure in found[LISTED_SEEDS_MAX:]]
        if more:
            dots = ", ..." if len(more) > NUMBERED_SEEDS_MAX else ""
            lines.append(f"    also: {', '.join(more[:NUMBERED_SEEDS_MAX])}{dots}")
    first = Schedule(seed=tally.failures[0].seed)
    lines.append(f"to make the first one shorter: {first.command('shrink')}")
    return "\n".join(lines)


def shortened(text: str, characters_max: int) -> str:
    """Return `text`, or its beginning and dots."""
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


# --- one profile ---


def describe_profile(profile: Profile, kept: Collection[int] | None = None) -> str:
    """Return what was drawn for a run, on half a screen."""
    kinds = Counter(step.kind for step in profile.steps if kept is None or step.number in kept)
    tick_ms = profile.tick_us / 1_000
    low, high = (at_us / 1_000 for at_us in profile.delay_us)
    sync_low, sync_high = (at_us / 1_000 for at_us in profile.sync_us)
    rows = {
        "servers": f"{profile.voters} voters, {profile.spares} blank machines",
        "clients": f"{profile.clients} on {profile.keys} keys, "
        f"pausing {profile.client_pause_us / 1_000:g} ms",
        "timing": f"tick {tick_ms:g} ms, heartbeat {profile.heartbeat_ticks}, election "
        f"{profile.election_ticks}, catch-up {profile.catch_up_ticks}, joint {profile.joint_ticks}"
        f" ticks; clocks differ by {profile.clock_spread:.0%}",
        "network": f"{low:g} to {high:g} ms; bad weather: loss {profile.loss:.0%}, "
        f"duplication {profile.duplication:.0%}, reordering {profile.reordering:.0%}",
        "disks": f"sync {sync_low:g} to {sync_high:g} ms, segments of {profile.segment_bytes} B",
        "state": f"a snapshot after {profile.snapshot_log_bytes} B of log, catch-up "
        f"{profile.catch_up_bytes_per_second or 'unlimited'} B/s, reserve "
        f"{profile.disk_reserve_bytes} B, background steps up to {profile.background_us / 1_000:g} "
        "ms",
        "reads": f"{profile.here_chance:.0%} answered by whoever is asked; leases on "
        f"{profile.lease_chance:.0%} of the machines, for clocks that differ by "
        f"{profile.clock_drift:.0%}" + (", changed by restarts" * profile.reconfigures),
        "malice": f"at {profile.malice:.0%} of the configurations",
        "limits": _values(profile.limits),
        "steps": f"{sum(kinds.values())} in {profile.duration_us / SECOND:.1f} s: "
        + (", ".join(f"{kind} {count}" for kind, count in kinds.most_common()) or "none"),
    }
    return "\n".join(f"  {name:<8} {text}" for name, text in rows.items())


def _values(limits: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{path.rpartition('.')[2]}={value}" for path, value in limits) or "usual"


def describe_counted(counted: Mapping[str, int]) -> str:
    """Return the counters of one run in a few lines."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items())) or "nothing"
