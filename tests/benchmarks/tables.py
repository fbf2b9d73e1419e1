"""Tables for people and, of the same numbers, JSON for machines."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from os import cpu_count
from pathlib import Path
from typing import Any, TypeAlias

import attrs

Cell: TypeAlias = str | int | float | None
"""A text, a number that is printed with the digits that it needs, or None for "not measured"."""

MEBIBYTE = 1024 * 1024
PLOT_WIDTH = 64
PLOT_HEIGHT = 8


@attrs.define
class Table:
    """One table: rows under columns, and remarks below."""

    name: str
    title: str
    columns: Sequence[str]
    """With their units."""
    rows: list[list[Cell]] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)

    def add(self, *cells: Cell) -> None:
        """Append a row; the first cell says what it is about."""
        assert len(cells) == len(self.columns)
        self.rows.append(list(cells))

    def text(self) -> str:
        """Return the table as it is printed."""
        lines = [[*self.columns], *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]
        printed = [self.title, ""]
        for line in lines:
            first, *others = (
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            printed.append("  " + "  ".join((first, *others)).rstrip())
        printed += [f"  {note}" for note in self.notes]
        return "\n".join(printed) + "\n"

    def document(self) -> dict[str, Any]:
        """Return the table as plain values."""
        return attrs.asdict(self)


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        if abs(cell) >= 100:
            return f"{cell:,.0f}"
        return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def mebibytes(size_bytes: float) -> float:
    """Return a size in MiB."""
    return size_bytes / MEBIBYTE


def plot(title: str, times_s: Sequence[float], values: Sequence[float]) -> list[str]:
    """Return the lines of a small plot of `values`, which are 0 or more, over time."""
    highest = max(values, default=0.0) or 1.0
    end_s = times_s[-1] or 1.0
    columns: list[float | None] = [None] * PLOT_WIDTH
    for time_s, value in zip(times_s, values, strict=True):
        column = min(PLOT_WIDTH - 1, int(time_s / end_s * PLOT_WIDTH))
        before = columns[column]
        columns[column] = value if before is None else max(before, value)
    last = 0.0
    levels = []
    for column_value in columns:
        last = last if column_value is None else column_value
        levels.append(last / highest * PLOT_HEIGHT)
    lines = [title]
    for row in range(PLOT_HEIGHT, 0, -1):
        label = {PLOT_HEIGHT: f"{highest:,.1f}", 1: "0"}.get(row, "")
        # An eighth of a line is shown where a value is above zero at all.
        marks = "".join(" ▁▂▃▄▅▆▇█"[_eighths(level - (row - 1))] for level in levels)
        lines.append(f"{label:>8} |{marks}".rstrip())
    lines.append(" " * 9 + "+" + "-" * PLOT_WIDTH)
    lines.append(f"{'0 s':>13}{f'{end_s:.0f} s':>{PLOT_WIDTH - 3}}")
    return lines


def _eighths(filled: float) -> int:
    return 0 if filled <= 0 else min(8, 1 + int(7 * min(1.0, filled)))


def machine() -> str:
    """Return what the numbers were measured on, in one line."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_bytes = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            memory_bytes = int(line.split()[1]) * 1024
    load = Path("/proc/loadavg").read_text().split()[0]
    return (
        f"{cpu_count()} cores ({model}), {memory_bytes / 1024**3:.0f} GiB of memory, "
        f"Linux {platform.release()}, Python {platform.python_version()}, "
        f"load {load} at the start; "
        "servers and clients share these cores and one disk"
    )
