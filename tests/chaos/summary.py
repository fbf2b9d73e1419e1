"""A run, or several, on half a page for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tests.chaos.clients import Tally
from tests.chaos.run import Report

PROBLEM_LINES_MAX = 12
"""Of one problem: a violation of linearizability is told in several lines."""


def summary(report: Report) -> str:
    """Return what was done in one run, and what it has shown."""
    options = report.options
    lines = [
        f"seed {options.seed}: {options.seconds:g} s of faults on {options.servers} servers "
        f"({options.network}), healed in {report.healing_s:.1f} s",
        *_rows([report]),
    ]
    for each in report.verdicts:
        detail = f"  ({each.detail})" if each.detail else ""
        lines.append(f"  {'ok  ' if each.ok else 'FAIL'}  {each.claim}{detail}")
        for problem in each.problems:
            parts = problem.splitlines()
            if len(parts) > PROBLEM_LINES_MAX:
                parts[PROBLEM_LINES_MAX:] = ["..."]
            lines += [f"          {part}" for part in parts]
    lines.append(f"  again   {options.command}")
    return "\n".join(lines)


def total(reports: Sequence[Report]) -> str:
    """Return what was done in all runs together, and which of them failed."""
    failed = [report for report in reports if not report.ok]
    seconds = sum(report.options.seconds for report in reports)
    lines = [
        f"{len(reports)} runs, {seconds:g} s of faults: "
        + (f"{len(failed)} FAILED" if failed else "every claim holds in every run"),
        *_rows(reports),
        *(f"  failed  {report.options.command}" for report in failed),
    ]
    return "\n".join(lines)


def _rows(reports: Sequence[Report]) -> list[str]:
    operations = Tally()
    for report in reports:
        operations.add(report.operations)
    exits = _sum(report.exits for report in reports)
    rows = [
        ("faults", _counts(_sum(report.faults for report in reports))),
        ("leader killed at", _counts(_sum(report.phases for report in reports))),
        ("raftctl", _counts(_sum(report.commands for report in reports))),
        ("its exit codes", _counts({f"{code}": count for code, count in sorted(exits.items())})),
        ("skipped", _counts(_sum(report.skipped for report in reports))),
        ("changes", _counts(_sum(report.changes for report in reports))),
        (
            "operations",
            f"ok {operations.ok}, failed {operations.failed}, unknown {operations.unknown}",
        ),
        (
            "longest gap",
            f"{max(report.longest_gap_s for report in reports):.1f} s without a success",
        ),
    ]
    return [f"  {name:<17} {text}" for name, text in rows]


def _sum(counters: Iterable[Mapping[str, int] | Mapping[int, int]]) -> Counter[object]:
    result: Counter[object] = Counter()
    for counter in counters:
        result.update(counter)
    return result


def _counts(counts: Mapping[object, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
