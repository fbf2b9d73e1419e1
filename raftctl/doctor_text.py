"""What `raftctl doctor` prints for people: the findings by check, who reaches whom, the sum."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from raftctl import doctor_reach
from raftctl.doctor import counts
from raftctl.doctor_reach import Cell, Matrix
from raftctl.errors import dialling
from raftctl.examining import Examination
from raftctl.findings import Finding, Result
from raftctl.render import COLUMN_GAP, plural, printable, table, width_of
from raftctl.status_text import SHORT_ID_CHARACTERS, Layout

COLORS = {Result.PASS: "green", Result.WARN: "yellow", Result.FAIL: "red", Result.SKIP: "dim"}
WORDS = {Result.PASS: "pass", Result.WARN: "WARN", Result.FAIL: "FAIL", Result.SKIP: "skip"}
"""What needs a look is loud without colours too."""
NARROW = 60
"""Below so many columns findings stand beneath the name of their check."""
ITSELF = "-"
UNKNOWN = "?"


def text(
    examination: Examination,
    findings: Sequence[Finding],
    layout: Layout,
    command: Callable[[str], str],
) -> list[str]:
    """Return the lines.

    Args:
        findings: those of `raftctl.doctor.judge`.
        command: makes a whole command of the words after `raftctl`.
    """
    lines = [*_findings(findings, layout, command), ""]
    found = doctor_reach.matrix(examination)
    if len(found.targets) > 1:
        lines += [*_matrix(found, layout), ""]
    cluster = examination.cluster
    known = (cluster.name, cluster.cluster_id and f"({cluster.cluster_id[:SHORT_ID_CHARACTERS]})")
    name = printable(" ".join(part for part in known if part))
    total = summary(findings, layout)
    whole = f"{name}: {total}" if name else total
    if layout.wide or width_of(whole) <= layout.width:
        return [*lines, whole]
    head, _, rest = total.partition(": ")
    ending = [total] if width_of(total) <= layout.width else [f"{head}:", rest]
    return [*lines, *([f"{name}:"] if name else []), *ending]


def summary(findings: Sequence[Finding], layout: Layout) -> str:
    """Return the last line: how many checks have which result."""
    numbers = counts(findings)
    total = plural(sum(numbers.values()), "check")
    if numbers[Result.PASS] == sum(numbers.values()):
        return f"{total}, {layout.paint('all pass', 'green')}"
    words = {
        Result.FAIL: "failed",
        Result.WARN: plural(numbers[Result.WARN], "warning").partition(" ")[2],
        Result.SKIP: "skipped",
        Result.PASS: "passed",
    }
    parts = [
        layout.paint(f"{numbers[result]} {word}", COLORS[result])
        for result, word in words.items()
        if numbers[result]
    ]
    return f"{total}: {', '.join(parts)}"


def _findings(
    findings: Sequence[Finding], layout: Layout, command: Callable[[str], str]
) -> list[str]:
    names = max((width_of(finding.check) for finding in findings), default=0)
    indent = " " * (names + len(COLUMN_GAP) + len("pass") + len(COLUMN_GAP))
    is_narrow = layout.width < NARROW and not layout.wide
    if is_narrow:
        indent = COLUMN_GAP
    lines = []
    before = ""
    for finding in findings:
        shown = finding.check if finding.check != before else ""
        before = finding.check
        head = shown.ljust(names) + COLUMN_GAP
        head += layout.paint(WORDS[finding.result], COLORS[finding.result]) + COLUMN_GAP
        body = [
            *_wrapped(dialling(finding.finding, command), layout, indent),
            *_remedy(finding, layout, indent, command),
        ]
        if is_narrow:
            lines += [head.rstrip(), *(indent + line for line in body)]
        else:
            lines += [head + body[0], *(indent + line for line in body[1:])]
    return lines


def _remedy(
    finding: Finding, layout: Layout, indent: str, command: Callable[[str], str]
) -> list[str]:
    """Return what to do. A command has a line of its own, which is never broken."""
    label = "try: "
    if not finding.remedy:
        return [label + command(finding.command)] if finding.command else []
    colon = ":" if finding.command else ""
    deeper = " " * len(label)
    remedy = dialling(finding.remedy, command)
    lines = _wrapped(label + remedy + colon, layout, indent, deeper)
    return [*lines, deeper + command(finding.command)] if finding.command else lines


def _wrapped(text: str, layout: Layout, indent: str, deeper: str = "") -> list[str]:
    # What servers say of themselves may hold anything.
    text = printable(text)
    if layout.wide:
        return [text]
    return textwrap.wrap(
        text,
        max(20, layout.width - len(indent)),
        subsequent_indent=deeper,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _matrix(found: Matrix, layout: Layout) -> list[str]:
    """Return who reaches whom, one row for each that dials; where it does not fit, what fails."""
    names = [target.name for target in found.targets]
    rows = [
        [printable(source), *(_painted(_shown(found, source, name), layout) for name in names)]
        for source in found.sources
    ]
    headers = [printable(name) for name in names]
    lines = table(("FROM / TO", *headers), rows, right=headers).splitlines()
    title = "who dials (left) whom (top): the round trip, or what failed"
    if layout.wide or max(map(width_of, lines)) <= layout.width:
        return [*_wrapped(title, layout, ""), *lines]
    bad = [cell for cell in found.cells.values() if not cell.ok]
    total = plural(len(found.cells), "way")
    if not bad:
        return [f"all {total} from one server to another work"]
    ways = [
        printable(f"{cell.source} to {cell.target.name}: {doctor_reach.short(cell)}")
        for cell in bad
    ]
    return [f"of {total} from one server to another {len(bad)} fail:", *ways]


def _shown(found: Matrix, source: str, target: str) -> Cell | str:
    if source == target:
        return ITSELF
    return found.cells.get((source, target), UNKNOWN)


def _painted(cell: Cell | str, layout: Layout) -> str:
    if isinstance(cell, str):
        return layout.paint(cell, "dim")
    return doctor_reach.short(cell) if cell.ok else layout.paint(doctor_reach.short(cell), "red")
