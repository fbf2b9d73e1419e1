"""watch: every change of keys as it comes, each once and in order, whoever leads meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from raftctl.cli import Context, NumberParameter, pass_context
from raftctl.client import Cluster, expect
from raftctl.commands.data import checked_key, value_document, value_text
from raftctl.errors import EXIT_INTERRUPTED
from raftctl.render import number, printable
from raftd.client.calls import REPLY_TIMEOUT_MS
from raftd.client.judging import judge_watch
from raftd.protocol import EventView, GetReply, GetRequest, WatchReply, WatchRequest

WAIT_MS = 5_000
"""A server that has nothing to say for so long says that. One that does not is left for another."""
REVISION_WIDTH, KIND_WIDTH = 11, 7
PUT = "put"


@click.command()
@click.argument("prefix", default="")
@click.option(
    "--from",
    "first",
    type=NumberParameter(min=1),
    metavar="REVISION",
    help="Begin with the change that has this revision, as long as a server still has it. Without "
    "it, with the next change from now on.",
)
@click.option(
    "--limit", type=NumberParameter(min=1), metavar="N", help="End after this many changes."
)
@pass_context
def watch(context: Context, prefix: str, first: int | None, limit: int | None) -> None:
    """Print each change of the keys that start with PREFIX, as it comes, until Ctrl-C.

    Every change comes once and in the order of the revisions. Where a server goes away, another one
    goes on from there. Servers keep the last changes only: one that asks for older ones is refused.
    With -o json each change is one line. --timeout is how long no server may answer.

    \b
    Examples:
      raftctl watch
      raftctl watch orders/ --from 1042
      raftctl watch orders/ --limit 1 -o json
    """
    if prefix:
        checked_key(prefix)
    cluster = context.cluster()
    try:
        after = first - 1 if first is not None else _revision_now(cluster)
        context.message(f"watching from revision {number(after + 1)} on; Ctrl-C ends it")
        for count, event in enumerate(_changes(cluster, prefix, after), 1):
            _print(context, event)
            if count == limit:
                return
    except KeyboardInterrupt:
        sys.stdout.flush()
        click.get_current_context().exit(EXIT_INTERRUPTED)


def _revision_now(cluster: Cluster) -> int:
    """Return a revision that has everything which was acknowledged before."""
    return expect(cluster.ask(GetRequest(key="-")), GetReply).revision


def _changes(cluster: Cluster, prefix: str, after: int) -> Iterator[EventView]:
    """Yield the changes behind revision `after`, without end."""
    # Within --timeout more than one server has to have its turn.
    wait_ms = min(WAIT_MS, round(cluster.timeout_ms / 2) or WAIT_MS)
    while True:
        request = WatchRequest(after_revision=after, prefix=prefix, wait_ms=wait_ms)
        steps = cluster.calls.ask(
            request,
            cluster.deadline(),
            reply_timeout_ms=wait_ms + REPLY_TIMEOUT_MS,
            judge=judge_watch,
        )
        reply = expect(cluster.perform(steps), WatchReply)
        yield from reply.events
        after = reply.next_after_revision


def _print(context: Context, event: EventView) -> None:
    if context.output == "yaml":
        click.echo("---")
    if context.structured:
        context.print_document(_document(event), one_line=True)
    else:
        value = f"  {value_text(event.value)}" if event.kind == PUT else ""
        click.echo(
            f"{number(event.revision):>{REVISION_WIDTH}}  {event.kind:<{KIND_WIDTH}}  "
            f"{printable(event.key)}{value}"
        )
    # Whoever reads through a pipe gets it now.
    sys.stdout.flush()


def _document(event: EventView) -> dict[str, Any]:
    is_there = event.kind == PUT
    return {
        "revision": event.revision,
        "kind": event.kind,
        "key": event.key,
        **(value_document(event.value) if is_there else {"value": None, "encoding": None}),
        "create_revision": event.create_revision if is_there else None,
        "mod_revision": event.mod_revision if is_there else None,
        "version": event.version if is_there else None,
    }
