"""`raftctl status` and `raftctl wait`."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

import click

from raftctl.cli import Context, pass_context
from raftctl.client import Deadline
from raftctl.endpoints import Endpoints
from raftctl.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_UNREACHABLE,
    Refused,
    StillRunning,
    UsageProblem,
)
from raftctl.render import Style, cut, printable
from raftctl.status import (
    ClusterView,
    Health,
    Row,
    document,
    observe,
    server_document,
    signature,
)
from raftctl.status_text import Layout, lacks, listed, prospects, server_text, text
from raftd.config_values import format_duration
from raftd.core.types import server_name

WATCH_INTERVAL_S = 1.0
WAIT_INTERVAL_S = 0.2
"""Between two looks: short against an election, long against what a look costs."""
LOOK_MS_MIN = 250.0
"""For each server at least, however little is left of the time-out."""
WIDTH_WITHOUT_TERMINAL = 80
GOALS = ("leader", "healthy", "stable")


@click.command()
@click.argument("server_id", required=False, metavar="[ID]")
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@click.option(
    "--check", is_flag=True, help="Exit with 0 if healthy, 1 if not, 3 if nobody answers."
)
@pass_context
def status(context: Context, server_id: str | None, watch: bool, check: bool) -> int:
    """Show the cluster and every server, or one server in depth.

    Asks every server, those that the cluster file names and those that the cluster has, and shows
    a row for each, also for one that does not answer. Exits with 3 if none does.

    With --watch, output that is no terminal gets one block, or one JSON document, per change.

    \b
    Examples:
      raftctl status -o wide
      raftctl status n2
      raftctl status --check -o json
    """
    if watch and check:
        raise UsageProblem(
            "--watch and --check exclude each other",
            cause="the one never ends, the other is an exit code",
            hint=context.command("wait --for healthy"),
        )
    endpoints = context.dialled()
    if watch:
        try:
            _watch(context, endpoints, server_id)
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
    cluster = observe(endpoints, context.timeout_ms)
    rows = _chosen(cluster, server_id)
    if context.structured:
        context.print_document(_document(cluster, server_id, rows))
    else:
        lines = _lines(context, cluster, server_id, rows, None)
        click.echo("\n".join(lines), color=context.use_color(sys.stdout))
    return _exit_code(cluster, server_id, rows, check)


def _exit_code(
    cluster: ClusterView, server_id: str | None, rows: Sequence[Row], check: bool
) -> int:
    if not cluster.answered:
        return EXIT_UNREACHABLE
    if not check:
        return EXIT_DONE
    if server_id is not None:
        return EXIT_FAILED if any(row.issues for row in rows) else EXIT_DONE
    return EXIT_DONE if cluster.health is Health.HEALTHY else EXIT_FAILED


def _chosen(cluster: ClusterView, server_id: str | None) -> list[Row]:
    """Return the rows of one server, or all of them."""
    if server_id is None:
        return list(cluster.rows)
    rows = [row for row in cluster.rows if server_id in (row.name, row.server)]
    if rows:
        return rows
    if server_id in cluster.outdated:
        raise Refused(
            f"{server_id} is no member, and it does not answer",
            cause="the cluster file lists it, the cluster's configuration does not",
            hint="raftctl config export writes the file that matches",
        )
    known = listed(dict.fromkeys(row.name for row in cluster.rows))
    raise Refused(
        f"there is no server {server_id}",
        cause=printable(f"the cluster and its file have {known}"),
        hint="raftctl status",
    )


def _document(
    cluster: ClusterView, server_id: str | None, rows: Sequence[Row]
) -> dict[str, object]:
    found = document(cluster)
    if server_id is not None:
        found["servers"] = [server_document(row, cluster) for row in rows]
    return found


def _layout(context: Context) -> Layout:
    width = WIDTH_WITHOUT_TERMINAL
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    return Layout(
        width=width,
        wide=context.output == "wide",
        paint=Style(context.use_color(sys.stdout)),
    )


def _lines(
    context: Context,
    cluster: ClusterView,
    server_id: str | None,
    rows: Sequence[Row],
    commit_rate: float | None,
) -> list[str]:
    layout = _layout(context)
    if server_id is None:
        return text(cluster, layout, commit_rate)
    lines: list[str] = []
    for row in rows:
        lines += [*([""] if lines else []), *server_text(row, cluster, layout)]
    return lines


# --- watching --------------------------------------------------------------------------------


def _watch(context: Context, endpoints: Endpoints, server_id: str | None) -> None:
    """Show the cluster again and again; only an interrupt or a closed stdout ends it."""
    redraws = not context.structured and context.redraws(sys.stdout)
    previous: tuple[float, int] | None = None
    shown: object = None
    if redraws:
        # The cursor would jump about in the frame.
        sys.stdout.write("\x1b[?25l\x1b[2J")
    try:
        while True:
            started_s = time.monotonic()
            cluster = observe(endpoints, context.timeout_ms)
            rows = _chosen(cluster, server_id)
            rate, previous = _commit_rate(cluster, started_s, previous)
            if redraws:
                _draw(_lines(context, cluster, server_id, rows, rate))
            elif signature(cluster) != shown:
                _print_block(context, cluster, server_id, rows, first=shown is None)
            shown = signature(cluster)
            time.sleep(max(0.0, started_s + WATCH_INTERVAL_S - time.monotonic()))
    finally:
        if redraws:
            sys.stdout.write("\x1b[?25h")
            sys.stdout.flush()


def _commit_rate(
    cluster: ClusterView, now_s: float, previous: tuple[float, int] | None
) -> tuple[float | None, tuple[float, int] | None]:
    """Return commits per second since `previous`, a time and a commit index, and the next one."""
    if cluster.source is None:
        return None, None
    current = (now_s, cluster.source.commit_index)
    if previous is None or now_s <= previous[0]:
        return None, current
    # Without a leader the document may come from a server that is behind the one before.
    committed = max(0, current[1] - previous[1])
    return committed / (now_s - previous[0]), current


def _draw(lines: Sequence[str]) -> None:
    """Draw one frame over the last one, in one write, so that nothing flickers."""
    size = shutil.get_terminal_size()
    shown = [*lines, "", f"every {WATCH_INTERVAL_S:.0f}s, Ctrl-C ends"]
    if len(shown) > size.lines - 1:
        hidden = len(shown) - (size.lines - 2)
        shown = [*shown[: size.lines - 2], f"({hidden} more lines: the terminal is too low)"]
    # A line that wraps would push the frame down; wide output is cut like all other.
    frame = "".join(f"{cut(line, size.columns)}\x1b[K\n" for line in shown)
    sys.stdout.write(f"\x1b[H{frame}\x1b[J")
    sys.stdout.flush()


def _print_block(
    context: Context,
    cluster: ClusterView,
    server_id: str | None,
    rows: Sequence[Row],
    *,
    first: bool,
) -> None:
    if context.structured:
        if context.output == "yaml" and not first:
            click.echo("---")
        context.print_document(_document(cluster, server_id, rows))
    else:
        separator = "" if first else "\n"
        lines = _lines(context, cluster, server_id, rows, None)
        click.echo(separator + "\n".join(lines), color=context.use_color(sys.stdout))


# --- waiting ---------------------------------------------------------------------------------


@click.command()
@click.option(
    "--for",
    "goal",
    type=click.Choice(GOALS),
    required=True,
    help="leader: one is confirmed by a quorum. healthy: every member is reachable and caught up. "
    "stable: the latest configuration is committed and not joint, and no operation runs.",
)
@pass_context
def wait(context: Context, goal: str) -> int:
    """Wait until the cluster is as asked; exit with 4 if it is not within --timeout.

    \b
    Examples:
      raftctl wait --for leader --timeout 10s
      raftctl wait --for stable && raftctl status
    """
    endpoints = context.dialled()
    deadline = Deadline.after_ms(context.timeout_ms)
    said = ""
    while True:
        remaining_s = deadline.remaining_s()
        # The last look, too, has to give healthy servers the time to answer.
        answer_timeout_ms = 0.0 if remaining_s is None else max(LOOK_MS_MIN, remaining_s * 1000)
        cluster = observe(endpoints, answer_timeout_ms)
        lacking = lacks(cluster, goal)
        if not lacking:
            break
        if lacking != said:
            context.message(f"waiting for {goal}: {lacking}")
            said = lacking
        if deadline.expired:
            if context.structured:
                context.print_document(document(cluster))
            raise StillRunning(
                f"{'no leader' if goal == 'leader' else f'not {goal}'} after "
                f"{format_duration(context.timeout_ms)}",
                code="timeout",
                cause=lacking,
                hint=context.command("status"),
            )
        time.sleep(min(WAIT_INTERVAL_S, deadline.or_after_ms(1000).remaining_s() or 0.0))
    if context.structured:
        context.print_document(document(cluster))
    else:
        assert cluster.leader is not None
        leads = f"leader {server_name(cluster.leader.server)}, term {cluster.leader.term}"
        reached = "" if goal == "leader" else f"{goal}: "
        line = f"{reached}{leads}; {prospects(cluster)}"
        click.echo(line, color=context.use_color(sys.stdout))
    return EXIT_DONE
