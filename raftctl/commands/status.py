"""`raftctl status` and `raftctl wait`."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

import click

from raftctl.cli import Context, pass_context
from raftctl.client import Deadline
from raftctl.completing import members
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
from raftctl.render import Style, listed, printable
from raftctl.screen import Screen, drawn
from raftctl.status import observe, signature
from raftctl.status_text import Layout, Rates, lacks, prospects, text
from raftd.cluster_status.document import document, server_document
from raftd.cluster_status.view import ClusterView, Health, Row
from raftd.config_values import format_duration
from raftd.core.types import server_name

WATCH_INTERVAL_S = 1.0
RATE_WINDOW_S = 5.0
"""A rate is that of the last so many seconds: steady enough to be read."""
WAIT_INTERVAL_S = 0.2
"""Between two looks: short against an election, long against what a look costs."""
LOOK_MS_MIN = 250.0
"""For each server at least, however little is left of the time-out."""
WIDTH_WITHOUT_TERMINAL = 80
GOALS = ("leader", "healthy", "stable")


@click.command()
@click.argument("server_id", required=False, metavar="[ID]", shell_complete=members())
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
        with contextlib.suppress(KeyboardInterrupt):
            _watch(context, endpoints, server_id)
        return EXIT_INTERRUPTED
    cluster = observe(endpoints, context.timeout_ms, context.command)
    rows = _chosen(cluster, server_id)
    if context.structured:
        context.print_document(_document(cluster, server_id, rows))
    else:
        lines = _lines(context, cluster, server_id, rows)
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
            hint=f"`{cluster.command('config export')}` writes the file that matches",
        )
    known = listed(dict.fromkeys(row.name for row in cluster.rows))
    raise Refused(
        f"there is no server {server_id}",
        cause=printable(f"the cluster and its file have {known}"),
        hint=cluster.command("status"),
    )


def _document(
    cluster: ClusterView, server_id: str | None, rows: Sequence[Row]
) -> dict[str, object]:
    found = document(cluster)
    if server_id is not None:
        found["servers"] = [server_document(row, cluster) for row in rows]
    return found


def layout_of(context: Context) -> Layout:
    """Return how much room stdout has, and whether it may be coloured."""
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
    rates: Rates | None = None,
) -> list[str]:
    layout = layout_of(context)
    if server_id is None:
        return text(cluster, layout, rates)
    from raftctl.server_text import server_text

    lines: list[str] = []
    for row in rows:
        lines += [*([""] if lines else []), *server_text(row, cluster, layout)]
    return lines


# --- watching --------------------------------------------------------------------------------


def _watch(context: Context, endpoints: Endpoints, server_id: str | None) -> None:
    """Show the cluster again and again; only a signal or a closed stdout ends it."""
    if not context.structured and context.redraws(sys.stdout):
        with drawn() as screen:
            _redraw(context, endpoints, server_id, screen)
        return
    shown: object = None
    while True:
        started_s = time.monotonic()
        cluster = observe(endpoints, context.timeout_ms, context.command)
        rows = _chosen(cluster, server_id)
        if signature(cluster) != shown:
            _print_block(context, cluster, server_id, rows, first=shown is None)
        shown = signature(cluster)
        time.sleep(max(0.0, started_s + WATCH_INTERVAL_S - time.monotonic()))


def _redraw(
    context: Context, endpoints: Endpoints, server_id: str | None, screen: Screen
) -> NoReturn:
    measured = Measured()
    while True:
        started_s = time.monotonic()
        cluster = observe(endpoints, context.timeout_ms, context.command)
        rates = measured.add(time.monotonic(), cluster)
        lines = _lines(context, cluster, server_id, _chosen(cluster, server_id), rates)
        screen.draw(lines, f"every {WATCH_INTERVAL_S:.0f}s, Ctrl-C ends")
        time.sleep(max(0.0, started_s + WATCH_INTERVAL_S - time.monotonic()))


class Measured:
    """How fast the cluster commits, over the last `RATE_WINDOW_S`."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def add(self, now_s: float, cluster: ClusterView) -> Rates | None:
        """Take in a look at the time `now_s`, and return the rates; None if they are not known."""
        source = cluster.source
        if source is None:
            self._samples.clear()
            return None
        current = (now_s, source.commit_index, source.revision)
        # Without a leader the numbers may come from a server that is behind the one before.
        if self._samples and current[1] < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append(current)
        while len(self._samples) > 2 and now_s - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        first_s, first_commit, first_revision = self._samples[0]
        passed_s = now_s - first_s
        if passed_s <= 0:
            return None
        return Rates(
            commits_per_second=(source.commit_index - first_commit) / passed_s,
            revisions_per_second=max(0, source.revision - first_revision) / passed_s,
        )


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
        lines = _lines(context, cluster, server_id, rows)
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
    news: object = None
    while True:
        remaining_s = deadline.remaining_s()
        # The last look, too, has to give healthy servers the time to answer.
        answer_timeout_ms = 0.0 if remaining_s is None else max(LOOK_MS_MIN, remaining_s * 1000)
        cluster = observe(endpoints, answer_timeout_ms, context.command)
        lacking = lacks(cluster, goal)
        if not lacking:
            break
        # Not again while only a number in it moves, such as how long ago a server was heard from.
        if lacking != said and signature(cluster) != news:
            context.message(f"waiting for {goal}: {lacking}")
            said, news = lacking, signature(cluster)
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
