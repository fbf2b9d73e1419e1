"""A benchmark in words and pictures: what `raftctl bench` prints for people."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import attrs

from raftctl.bench import MEASURING, REMOVING, WARMING_UP, Progress, Result
from raftctl.bench_clients import Errors
from raftctl.bench_keys import ReadBack
from raftctl.bench_servers import ServerUse
from raftctl.latencies import Latencies
from raftctl.render import listed, natural_key, number, plural, printable, table, width_of
from raftctl.status_text import LABEL_COLUMNS, Layout, labelled, wrapped
from raftd.cluster_status.words import size
from raftd.config_values import format_duration, format_size

PERCENTS = (("P50", 50.0), ("P90", 90.0), ("P99", 99.0), ("P99.9", 99.9))
PICTURE_COLUMNS_MAX = 120
"""A bar across more than that is not read any better."""
BUSY_FRACTION = 0.9
"""A generator that uses more of its processor than this measures itself."""
_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
"""Where the rows of the picture begin, in each power of ten."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_EMPTY_ROWS_MAX = 2
"""More rows without anything are drawn as one."""


def latency(latency_ns: float) -> str:
    """Return a latency with three digits, or in full seconds: 87us, 1.24ms, 12.4ms, 3.25s."""
    for unit, unit_ns in (("us", 1e3), ("ms", 1e6), ("s", 1e9)):
        amount = latency_ns / unit_ns
        if unit == "s" or amount < 999.5:
            decimals = 0 if unit == "us" or amount >= 99.95 else 1 if amount >= 9.995 else 2
            return f"{amount:,.{decimals}f}{unit}"
    raise AssertionError("unreachable")


# --- while it runs ----------------------------------------------------------------------------


def progress_line(progress: Progress) -> str:
    """Return how far it is, on one line."""
    clock = f"{progress.seconds:4.0f}s"
    if progress.phase == MEASURING:
        return f"{clock}  {_measuring(progress)}"
    words = {WARMING_UP: "warming up", REMOVING: "removing its keys"}.get(
        progress.phase, progress.phase
    )
    if progress.total is not None:
        words += f": {number(progress.done)} of {number(progress.total)}"
    elif progress.phase == REMOVING:
        words += f": {number(progress.done)}"
    return f"{clock}  {words}" + ("" if progress.leader else ", no leader")


def _measuring(progress: Progress) -> str:
    latest = progress.latest
    rate = latest.count / progress.latest_seconds if progress.latest_seconds else 0.0
    parts = [f"{rate:>8,.0f}/s"]
    parts += [
        f"{name.lower()} {latency(latest.percentile_ns(percent)) if latest.count else '-':>6}"
        for name, percent in PERCENTS
        if name in ("P50", "P99")
    ]
    parts.append(f"max {latency(latest.max_ns) if latest.count else '-':>6}")
    parts += _error_parts(progress.errors)
    if not progress.leader:
        parts.append("no leader")
    return "  ".join(parts)


def _error_parts(errors: Errors) -> list[str]:
    counts = (
        (errors.redirected, "redirected"),
        (errors.not_applied, "not applied"),
        (errors.unknown, "unknown"),
        (errors.refused, "refused"),
    )
    return [f"{number(count)} {word}" for count, word in counts if count]


# --- at the end -------------------------------------------------------------------------------


def result_text(result: Result, verified: ReadBack | None, layout: Layout) -> list[str]:
    """Return the lines of what was measured."""
    lines = labelled("LOAD", load_words(result), layout)
    lines += labelled("", _length_words(result), layout)
    lines += ["", *_latency_table(result, layout), ""]
    for label, words, color in _facts(result, verified):
        shown = labelled(label, words, layout)
        lines += [layout.paint(line, color) if color else line for line in shown]
    servers = _servers_table(result, layout)
    if servers:
        lines += ["", *servers]
    lines += _generator(result, layout)
    for kind, latencies in result.latencies.items():
        if latencies.count:
            lines += ["", *picture(f"LATENCY OF {kind.upper()}S", latencies, layout)]
    return lines


def load_words(result: Result) -> str:
    """Return what load it was."""
    options = result.options
    reads = options.read_fraction
    what = {0.0: "puts", 1.0: "gets"}.get(reads, f"{1 - reads:.0%} puts, {reads:.0%} gets")
    if options.stale and reads:
        what += " (stale, from every server)"
    each = "one request" if options.pipeline == 1 else f"up to {options.pipeline} requests"
    return (
        f"{what} by {plural(options.clients, 'client')} with {each} at a time; "
        f"{plural(options.keys, 'key')}, values of {format_size(options.value_bytes)}"
    )


def _length_words(result: Result) -> str:
    words = f"measured for {result.seconds:.1f}s"
    if result.interrupted:
        wanted = format_duration(result.options.duration_ms)
        return f"{words}, interrupted: it was to be {wanted}"
    return f"{words} after a warm-up of {format_duration(result.options.warm_up_ms)}"


def _latency_table(result: Result, layout: Layout) -> list[str]:
    rows = [
        _latency_row(f"{kind}s", latencies, result) for kind, latencies in result.latencies.items()
    ]
    if len(rows) > 1:
        first, *others = result.latencies.values()
        rows.append(_latency_row("all", first.plus(others), result))
    headers = ("", "COUNT", "PER SECOND", *(name for name, _ in PERCENTS), "MAX")
    return fitting_table(headers, rows, ("P90", "P99.9", "COUNT", "MAX"), layout, left=1)


def _latency_row(name: str, latencies: Latencies, result: Result) -> list[str]:
    row = [name, number(latencies.count), f"{result.per_second(latencies.count):,.0f}"]
    measured = [latencies.percentile_ns(percent) for _, percent in PERCENTS]
    return row + [
        latency(each) if latencies.count else "-" for each in (*measured, latencies.max_ns)
    ]


def fitting_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    dispensable: Collection[str],
    layout: Layout,
    *,
    left: int,
) -> list[str]:
    """Return a table; where it is too wide, some of its columns go.

    Args:
        headers: of the columns.
        rows: their cells.
        dispensable: headers of the columns that go, in this order.
        layout: how much room there is.
        left: so many columns are text, the others numbers.
    """
    kept = list(range(len(headers)))
    going = [headers.index(header) for header in dispensable]
    while True:
        shown = [headers[at] for at in kept]
        cells = [[row[at] for at in kept] for row in rows]
        lines = table(shown, cells, right=headers[left:]).splitlines()
        if layout.wide or not going or max(map(width_of, lines)) <= layout.width:
            return lines
        kept.remove(going.pop(0))


def _facts(result: Result, verified: ReadBack | None) -> list[tuple[str, str, str]]:
    """Return label, words and colour of what else there is to say."""
    errors = result.errors
    words = ", ".join(_error_parts(errors)) or "none"
    color = ""
    if errors.unknown:
        decided = "asked again, each was done once"
        if result.unresolved:
            decided = f"of {plural(result.unresolved, 'write')} it is still not known"
        words += f"; unknown: {decided}"
    if result.refusal and errors.refused:
        words += f"; refused: {result.refusal}"
    if errors.total:
        color = "red" if errors.refused or result.unresolved else "yellow"
    facts = [("ERRORS", words, color)]
    facts.append(("GAP", f"no client had a result for {latency(result.longest_gap_ms * 1e6)}", ""))
    if result.missed:
        facts.append(("MISSED", f"{plural(result.missed, 'read')} found no key", "yellow"))
    if len(result.leaders) > 1:
        then = listed(f"{name} from {seconds:.1f}s" for seconds, name in result.leaders[1:])
        facts.append(("LEADER", f"{result.leaders[0][1]}, then {then}", "yellow"))
    if verified is not None:
        facts.append(_verified(verified))
    return facts


def _verified(verified: ReadBack) -> tuple[str, str, str]:
    if not verified.lost_count:
        words = f"read {plural(verified.keys, 'key')} back: every acknowledged put is there, once"
        return "VERIFIED", words, "green"
    more = verified.lost_count - len(verified.lost)
    words = f"{plural(verified.lost_count, 'key')} WRONG: {'; '.join(verified.lost)}"
    return "VERIFIED", words + (f"; and {number(more)} more" if more else ""), "red"


def _servers_table(result: Result, layout: Layout) -> list[str]:
    leader = result.leaders[-1][1] if result.leaders else ""
    rows = [
        _server_row(server, server.name == leader, result.count)
        for server in sorted(result.servers, key=lambda each: natural_key(each.name))
    ]
    if not rows:
        return []
    headers = ("SERVER", "ROLE", "CPU", "CPU/REQUEST", "MEMORY", "AT MOST", "RESIDENT")
    return fitting_table(
        headers, rows, ("RESIDENT", "CPU/REQUEST", "AT MOST", "ROLE"), layout, left=2
    )


def _server_row(server: ServerUse, leads: bool, count: int) -> list[str]:
    role = server.role if server.reachable else "gone"
    per_request = "-"
    if server.cpu_ms is not None and count and not server.restarted and server.reachable:
        per_request = latency(1e6 * server.cpu_ms / count)
    return [
        printable(server.name) + ("*" if leads else ""),
        printable(role) + (", restarted" if server.restarted else ""),
        "-" if server.cpu_fraction is None else f"{server.cpu_fraction:.0%}",
        per_request,
        *(
            "-" if bytes_ is None else size(bytes_)
            for bytes_ in (server.rss_anon_bytes, server.rss_anon_max_bytes, server.rss_bytes)
        ),
    ]


def _generator(result: Result, layout: Layout) -> list[str]:
    words = f"This raftctl has used {result.generator_fraction:.0%} of one processor."
    if result.generator_fraction > BUSY_FRACTION:
        words += (
            " It may have been what was measured: run several at once, on other machines, and add "
            "up what they say."
        )
    return wrapped(words, layout.width)


# --- the picture ------------------------------------------------------------------------------


@attrs.define
class _Row:
    """Latencies from here up to where the next row begins."""

    start_ns: float
    end_ns: float
    count: int = 0
    marks: str = ""


def _rows(latencies: Latencies) -> list[_Row]:
    """Return the rows from the shortest to the longest latency, those without any among them."""
    edges = [step * 10**power for power in range(3, 14) for step in _STEPS]
    rows = [_Row(0.0, edges[0])]
    rows += [_Row(start, end) for start, end in itertools.pairwise(edges)]
    at = 0
    for bucket in latencies.buckets():
        while at + 1 < len(rows) and bucket.start_ns >= rows[at].end_ns:
            at += 1
        rows[at].count += bucket.count
    for name, percent in PERCENTS:
        moment_ns = latencies.percentile_ns(percent)
        row = next((row for row in rows if moment_ns < row.end_ns and row.count), rows[-1])
        row.marks += f" {name.lower()}"
    used = [place for place, row in enumerate(rows) if row.count]
    return rows[used[0] : used[-1] + 1]


def _edge(latency_ns: float) -> str:
    """Return where a row ends: 700us, 1.5ms, 10ms, 2s."""
    for unit, unit_ns in (("s", 1e9), ("ms", 1e6)):
        if latency_ns >= unit_ns:
            return f"{latency_ns / unit_ns:g}{unit}"
    return f"{latency_ns / 1e3:g}us"


def picture(title: str, latencies: Latencies, layout: Layout) -> list[str]:
    """Return how often which latencies were measured: a bar for each range, the shortest on top.

    Args:
        title: above it.
        latencies: at least one.
    """
    rows = _rows(latencies)
    most = max(row.count for row in rows)
    numbers = [number(row.count) for row in rows]
    shares = [f"{row.count / latencies.count:.1%}" for row in rows]
    counts_wide, shares_wide = max(map(len, numbers)), max(map(len, shares))
    labels = [f"< {_edge(row.end_ns)}" for row in rows]
    labels_wide = max(map(len, labels))
    marks_wide = max(len(row.marks) for row in rows)
    width = min(layout.width, PICTURE_COLUMNS_MAX)
    room = width - labels_wide - counts_wide - shares_wide - len("  " * 2 + " ") - marks_wide
    has_marks = room >= LABEL_COLUMNS
    if not has_marks:
        room += marks_wide
    p99_ns, p999_ns = latencies.percentile_ns(99.0), latencies.percentile_ns(99.9)
    lines = [title]
    skipped = 0
    for at, row in enumerate(rows):
        if not row.count and _is_in_gap(rows, at):
            skipped += 1
            if skipped == 1:
                lines.append(f"{'...':>{labels_wide}}")
            continue
        skipped = 0
        color = (
            "green" if row.start_ns <= p99_ns else "yellow" if row.start_ns <= p999_ns else "red"
        )
        drawn = _bar(row.count / most, max(1, room))
        line = f"{labels[at]:>{labels_wide}} {layout.paint(drawn.rstrip(), color)}"
        line += " " * (len(drawn) - len(drawn.rstrip()))
        line += f"  {numbers[at]:>{counts_wide}}  {shares[at]:>{shares_wide}}"
        lines.append(line + (row.marks if has_marks else ""))
    return lines


def _is_in_gap(rows: Sequence[_Row], at: int) -> bool:
    """Return whether a row is one of so many empty ones that they need not be drawn."""
    first = last = at
    while first and not rows[first - 1].count:
        first -= 1
    while last + 1 < len(rows) and not rows[last + 1].count:
        last += 1
    return last - first + 1 > _EMPTY_ROWS_MAX


def _bar(fraction: float, width: int) -> str:
    """Return a bar of `width` columns, filled to `fraction`; what is there at all is seen."""
    eighths = round(fraction * width * 8)
    if fraction and not eighths:
        eighths = 1
    whole, rest = divmod(eighths, 8)
    return (_EIGHTHS[-1] * whole + (_EIGHTHS[rest] if rest else "")).ljust(width)
