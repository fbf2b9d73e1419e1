"""history: every configuration that the cluster has had, who wanted it, and how it went."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from raftctl.cli import Context, DurationParameter, NumberParameter, pass_context
from raftctl.client import Cluster, Deadline, expect
from raftctl.errors import Unreachable
from raftctl.history_text import Shown, document, paired, text
from raftctl.render import Style, duration, number, plural, terminal_width
from raftctl.survey import survey
from raftd.cluster_status.answers import Answer
from raftd.cluster_status.view import view
from raftd.commands import FEATURES_HISTORY, ConfigurationRecord
from raftd.config_values import format_duration
from raftd.core.types import server_name
from raftd.protocol import (
    HISTORY_LIMIT_MAX,
    HistoryReply,
    HistoryRequest,
    StatusReply,
)

LIMIT_DEFAULT = 50
LEADER_TIMEOUT_MS = 3_000.0
"""The history is worth reading without a leader, too: after this any server's own state will do."""
ANSWER_MS_MIN = 250.0
"""For each server at least, however little the search for a leader has left."""


@click.command()
@click.option(
    "--limit",
    type=NumberParameter(1, 1_000_000),
    default=LIMIT_DEFAULT,
    show_default=True,
    metavar="N",
    help="At most this many configurations.",
)
@click.option(
    "--before",
    type=NumberParameter(1, 2**63 - 1),
    metavar="INDEX",
    help="Only configurations with a smaller index.",
)
@click.option(
    "--since",
    "since_ms",
    type=DurationParameter(),
    metavar="DURATION",
    help="Only configurations of the last so much time, by the clocks of their leaders.",
)
@pass_context
def history(context: Context, limit: int, before: int | None, since_ms: float | None) -> None:
    """Show the configurations that the cluster has had, the newest first.

    Grouped by operation: who asked for it and why, how long its phases took, how it ended. An
    operation that was undone says why. The history is a part of the replicated state: it outlives
    the log, and backups have it.

    \b
    Examples:
      raftctl history
      raftctl history --limit 5
      raftctl history --since 24h -o json
      raftctl history --before 4182
    """
    cluster = context.cluster()
    deadline = cluster.deadline()
    status, by_leader = _status(context, cluster, deadline)
    if not by_leader:
        context.message("there is no leader; this is the state of one server, which may be old")
    shown: list[Shown] = []
    more = complete = False
    if status.features >= FEATURES_HISTORY:
        since = time.time_ns() // 1_000_000 - since_ms if since_ms is not None else None
        shown, more, complete = _fetch(cluster, deadline, limit, before or 0, since)
    if context.structured:
        context.print_document(_document(status, shown, more=more, complete=complete))
        return
    if shown:
        width = None if context.output == "wide" else terminal_width(sys.stdout)
        paint = Style(context.use_color(sys.stdout))
        click.echo(text(shown, width=width, paint=paint, from_newest=before is None))
    if more:
        words = ["history", *(["--limit", str(limit)] if limit != LIMIT_DEFAULT else [])]
        words += ["--since", format_duration(since_ms)] if since_ms is not None else []
        command = context.command(" ".join([*words, "--before", str(shown[-1].record.index)]))
        context.message(
            f"there are older ones ({plural(len(shown), 'configuration')} shown): {command}"
        )
    else:
        missing = _what_is_missing(status, shown, complete=complete)
        if missing:
            context.message(missing)


def _status(context: Context, cluster: Cluster, deadline: Deadline) -> tuple[StatusReply, bool]:
    """Return the status of the leader, or of whoever has applied most, and whether it leads.

    Raises:
        Unreachable: nobody has answered that belongs to the cluster.
    """
    # Without a leader there must be time left to ask the others.
    leader_timeout_ms = min(LEADER_TIMEOUT_MS, context.timeout_ms / 2 or LEADER_TIMEOUT_MS)
    try:
        return cluster.leader_status(deadline=deadline.or_after_ms(leader_timeout_ms)), True
    except Unreachable as error:
        if error.code == "blank":
            raise
        missing = error
    found = _furthest(cluster, deadline)
    if found is None or found.reply is None:
        if missing.code == "unreachable":
            missing.message = (
                f"no server that has a history answered within {duration(context.timeout_ms)}"
            )
        raise missing
    # It alone is meant, also where a server of another cluster has answered before.
    cluster.cluster_id = found.reply.cluster_id
    cluster.remember_leader(found.address)
    return found.reply, False


def _furthest(cluster: Cluster, deadline: Deadline) -> Answer | None:
    """Return the answer of the server of our cluster that has applied most, if there is one.

    A blank server, as one is whose disk was wiped, and one of another cluster know nothing of it.
    """
    remaining_s = deadline.remaining_s()
    answer_timeout_ms = 0.0 if remaining_s is None else max(ANSWER_MS_MIN, remaining_s * 1000)
    config = cluster.endpoints.config
    answers = survey(cluster.endpoints, answer_timeout_ms)
    ours = view(answers, config.cluster if config is not None else "").cluster_id
    known = [
        (answer.reply.features >= FEATURES_HISTORY, answer.reply.applied_index, answer)
        for answer in answers
        if ours and answer.reply is not None and answer.reply.cluster_id == ours
    ]
    return max(known, key=lambda one: one[:2], default=(False, 0, None))[2]


def _fetch(
    cluster: Cluster, deadline: Deadline, limit: int, before: int, since: float | None
) -> tuple[list[Shown], bool, bool]:
    """Return what is to be shown, whether there is more of it, and whether nothing is missing."""
    records: list[ConfigurationRecord] = []
    below, more, complete = before, True, False
    # One more than is shown says what has changed with the last one.
    while more and len(records) <= limit:
        request = HistoryRequest(
            limit=min(limit + 1 - len(records), HISTORY_LIMIT_MAX), below_index=below
        )
        reply = expect(cluster.ask(request, deadline=deadline), HistoryReply)
        records += reply.records
        more, complete = reply.more and bool(reply.records), reply.complete
        if not reply.records:
            break
        below = records[-1].index
        if since is not None and records[-1].time_ms < since:
            break
    wanted = [record for record in records[:limit] if since is None or record.time_ms >= since]
    # Clocks differ: nothing between two that are wanted is left out.
    count = records.index(wanted[-1]) + 1 if wanted else 0
    is_cut = count == limit < len(records) and (since is None or records[limit].time_ms >= since)
    return paired(records, count), is_cut, complete


def _what_is_missing(status: StatusReply, shown: list[Shown], *, complete: bool) -> str:
    """Return what a reader has to know about what is not there; empty if that is nothing."""
    if status.features < FEATURES_HISTORY:
        behind = [
            f"{server_name(link.server)} ({f'speaks {link.version}' if link.connected else 'down'})"
            for link in status.links
            if not link.connected or link.version < FEATURES_HISTORY
        ]
        words = (
            "there is no history yet: it begins when all members speak version "
            f"{FEATURES_HISTORY} of the protocol"
        )
        if status.protocol_version_max < FEATURES_HISTORY:
            behind.insert(0, f"{server_name(status.server)} (speaks {status.protocol_version_max})")
        return words + (f"; not yet: {', '.join(behind)}" if behind else "")
    if not shown:
        return "no configuration is that old or that new"
    last = shown[-1]
    if not complete and last.before is None:
        return f"what came before configuration {number(last.record.index)} is not recorded"
    return ""


def _document(
    status: StatusReply, shown: list[Shown], *, more: bool, complete: bool
) -> dict[str, Any]:
    return {
        "server": server_name(status.server),
        "leader": server_name(status.leader) or None,
        "features": status.features,
        "configurations": [document(one) for one in shown],
        "more": more,
        "complete": complete,
    }
