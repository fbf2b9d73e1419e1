"""operation list, show, watch, abort: the cluster's records of its membership operations."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from raftctl.cli import CommandGroup, Context, pass_context
from raftctl.client import Cluster, Deadline, author, expect
from raftctl.commands.membership import configuration_after, follow_to_end, print_result
from raftctl.completing import operations
from raftctl.errors import CliError, Refused, Unreachable
from raftctl.render import (
    Style,
    clock,
    duration,
    natural_key,
    number,
    printable,
    table,
    terminal_width,
)
from raftctl.rollback_text import POINT_OF_NO_RETURN, is_past_return, labelled_lines
from raftctl.rolling_text import rolling_state, story
from raftctl.watch import (
    describe_peer,
    describe_step,
    unknown_operation,
    watch,
)
from raftd.cluster_status.operations import operation_document, story_of, summary
from raftd.commands import ABORTED, DONE, Operation
from raftd.config_values import format_duration
from raftd.core.types import server_name
from raftd.protocol import (
    AbortReply,
    AbortRequest,
    OperationsReply,
    OperationsRequest,
    OperationView,
)

LEADER_TIMEOUT_MS = 3_000.0
"""Records are worth reading without a leader, too: after this any server's own state will do."""
OPERATIONS_MAX = 1_000
"""Ended records that a cluster keeps."""


@click.group(cls=CommandGroup)
def operation() -> None:
    """List, show, watch or abort membership operations.

    Without OP the running operation is meant, else the newest one.

    \b
    Examples:
      raftctl operation list
      raftctl operation watch op-17
    """


@operation.command("list")
@pass_context
def list_operations(context: Context) -> None:
    """List the operations, the newest one last.

    \b
    Example:
      raftctl operation list
    """
    views, _ = _operations(context)
    if context.structured:
        context.print_document({"operations": [operation_document(view) for view in views]})
        return
    if not views:
        context.message("no operations yet")
        return
    rows = [
        (
            view.record.id,
            _state(view.record),
            summary(view.record),
            clock(_began_ms(view.record)),
            _took(view.record),
            printable(view.record.author),
            printable(view.record.reason),
        )
        for view in views
    ]
    headers = ("ID", "STATE", "WHAT", "STARTED", "TOOK", "AUTHOR", "REASON")
    width = None if context.output == "wide" else terminal_width(sys.stdout)
    click.echo(table(headers, rows, right=("TOOK",), width=width))


@operation.command()
@click.argument("operation", required=False, metavar="[OP]", shell_complete=operations)
@pass_context
def show(context: Context, operation: str | None) -> None:
    """Show one operation: what, who, why, when, and how it ended.

    \b
    Example:
      raftctl operation show op-17
    """
    view = _chosen(context, operation)
    if context.structured:
        context.print_document(operation_document(view))
    elif view.record.rolling is not None:
        click.echo("\n".join(story(view.record, Style(context.use_color(sys.stdout)))))
    else:
        click.echo("\n".join(_story(view, terminal_width(sys.stdout))))


@operation.command("watch")
@click.argument("operation", required=False, metavar="[OP]", shell_complete=operations)
@pass_context
def watch_operation(context: Context, operation: str | None) -> None:
    """Watch an operation until it has ended. Exits with 1 if it failed or was aborted.

    \b
    Example:
      raftctl operation watch op-17
    """
    if operation:
        chosen = _normalised(operation)
        # Whoever watches waits for the operation; whether anybody is there is asked before.
        reply = context.cluster().ask(OperationsRequest(operation=chosen))
        records = [view.record for view in expect(reply, OperationsReply).operations]
    else:
        records = [_chosen(context, None).record]
        chosen = records[0].id
    if any(record.rolling is not None for record in records):
        from raftctl.commands.rolling import follow_rolling

        follow_rolling(context, context.cluster(), chosen)
    else:
        follow_to_end(context, context.cluster(), chosen)


@operation.command()
@click.argument("operation", required=False, metavar="[OP]", shell_complete=operations)
@click.option("--no-wait", is_flag=True, help="Return as soon as the abort is on record.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the operation's record.")
@pass_context
def abort(context: Context, operation: str | None, no_wait: bool, reason: str) -> None:
    """Undo a running operation, as long as that is still safe. Asks first.

    Before the new configuration is appended the old one comes back; after that the operation can
    only go forward, and this command says so.

    \b
    Example:
      raftctl operation abort op-17 --reason "wrong server"
    """
    context.require_answerable()
    view = _chosen(context, operation)
    record = view.record
    if not record.running:
        raise Refused(
            f"{record.id} ({summary(record)}) has ended: {record.result}",
            code="operation-ended",
            cause=printable(record.explanation),
            hint=context.command(f"operation show {record.id}"),
        )
    if record.rolling is not None:
        from raftctl.commands.rolling import abort_rolling

        abort_rolling(context, context.cluster(), record, reason)
        return
    if not context.yes:
        click.echo(f"{record.id} ({summary(record)}): {describe_step(view)}", err=True)
        context.confirm("Undo it, so that the servers that vote stay as they were before?")
    cluster = context.cluster()
    reply = expect(
        # Without a session: to open one needs both majorities of a joint configuration, and asking
        # twice does nothing twice.
        cluster.ask(
            AbortRequest(session="", serial=0, operation=record.id, author=author(), reason=reason)
        ),
        AbortReply,
    )
    if no_wait:
        print_result(context, reply.operation, "running", None)
        context.message(f"{reply.operation} is being undone")
        return
    _follow_abort(context, cluster, reply.operation)


def _follow_abort(context: Context, cluster: Cluster, operation: str) -> None:
    record = watch(context, cluster, operation).record
    print_result(context, operation, record.result, configuration_after(cluster, record))
    if record.result == ABORTED:
        context.message(f"{operation} was undone")
        return
    ended = "went through" if record.result == DONE else "failed"
    raise CliError(
        f"{operation} was not aborted: it {ended}",
        code="not-aborted",
        cause=printable(record.explanation)
        or "the new configuration was on its way already, and could not be taken back",
        hint=context.command(f"operation show {operation}"),
        operation=operation,
    )


# --- finding them -----------------------------------------------------------------------------


def _operations(context: Context, operation: str = "") -> tuple[list[OperationView], bool]:
    """Return the operations, and whether a leader said so; if there is none, any server does.

    All of it takes `--timeout` at most.

    Args:
        operation: only this one; empty for all.

    Raises:
        Unreachable: no server has answered; nothing was sent.
    """
    cluster = context.cluster()
    deadline = cluster.deadline()
    # Without a leader there must be time left to ask the others.
    leader_timeout_ms = min(LEADER_TIMEOUT_MS, context.timeout_ms / 2 or LEADER_TIMEOUT_MS)
    by_leader = True
    try:
        # Whoever is found to lead is asked first.
        cluster.leader_status(deadline=deadline.or_after_ms(leader_timeout_ms))
    except Unreachable as error:
        if error.code == "blank":
            raise
        by_leader = False
    try:
        request = OperationsRequest(operation=operation)
        reply = expect(cluster.ask(request, deadline=deadline), OperationsReply)
    except Unreachable as error:
        if error.code == "unreachable":
            error.message = f"no server answered within {format_duration(context.timeout_ms)}"
        raise
    if not by_leader:
        context.message("there is no leader; this is the state of one server, which may be old")
    views = list(reply.operations)
    if not operation:
        views = [*_older(cluster, views, deadline), *views]
    return views, by_leader


def _older(
    cluster: Cluster, views: Sequence[OperationView], deadline: Deadline
) -> list[OperationView]:
    """Return the operations before `views`: long ones do not all fit one reply.

    They are asked for one by one, and are done and do not change any more.
    """
    older: list[OperationView] = []
    oldest = views[0].record.id.removeprefix("op-") if views else ""
    number = int(oldest) if oldest.isdecimal() else 0
    while number > 1 and len(older) + len(views) <= OPERATIONS_MAX:
        number -= 1
        request = OperationsRequest(operation=f"op-{number}")
        reply = expect(cluster.ask(request, deadline=deadline), OperationsReply)
        if not reply.operations:
            break
        older[:0] = reply.operations
    return older


def _chosen(context: Context, operation: str | None) -> OperationView:
    """Return the operation that is meant: OP, else the one that runs, else the newest."""
    wanted = _normalised(operation) if operation else ""
    views, by_leader = _operations(context, wanted)
    if wanted:
        for view in views:
            if view.record.id == wanted:
                return view
        raise unknown_operation(context, wanted, by_leader=by_leader)
    if not views:
        raise Refused(
            "there are no operations yet",
            code="no-such-operation",
            cause="the members of the cluster have never been changed",
            hint=context.command("status"),
        )
    return next((view for view in views if view.record.running), views[-1])


def _normalised(operation: str) -> str:
    """Return `op-17` for `17`, too."""
    return f"op-{operation}" if operation.isdecimal() else operation


# --- words --------------------------------------------------------------------------------------


def _story(view: OperationView, width: int | None) -> list[str]:
    record = view.record
    lines = [f"{record.id}  {summary(record)}", ""]
    facts = [
        ("state", _state(record)),
        ("author", printable(record.author)),
        ("reason", printable(record.reason)),
        ("joint", "yes: C_old,new, then C_new" if record.plan.joint else "no vote changes"),
        ("before", _members(record.plan.voters_before, record.plan.learners_before)),
        ("after", _members(record.plan.voters_after, record.plan.learners_after)),
        ("configuration", number(record.configuration_index) if record.configuration_index else ""),
        ("step of", record.parent),
        ("abort", _abort_words(record)),
        *story_of(record),
    ]
    lines += labelled_lines(facts, width)
    if record.phases:
        rows = [(phase.phase, clock(phase.time_ms), number(phase.index)) for phase in record.phases]
        lines += ["", table(("PHASE", "SINCE", "INDEX"), rows, right=("INDEX",))]
    if record.running:
        lines += ["", f"now: {describe_step(view)}"]
        if is_past_return(view):
            lines.append(POINT_OF_NO_RETURN)
        lines += [describe_peer(peer, view.last_index, None) for peer in view.peers]
        if view.blocked_by:
            lines.append(f"waiting: {printable(view.blocked_by)}")
    return lines


def _members(voters: tuple[str, ...], learners: tuple[str, ...]) -> str:
    def listed(servers: tuple[str, ...]) -> str:
        return " ".join(sorted((server_name(server) for server in servers), key=natural_key))

    return f"voters {listed(voters)}" + (f", learners {listed(learners)}" if learners else "")


def _abort_words(record: Operation) -> str:
    if not record.abort_requested_by:
        return ""
    because = f": {record.abort_reason}" if record.abort_reason else ""
    return printable(f"requested by {record.abort_requested_by}{because}")


def _state(record: Operation) -> str:
    if record.rolling is not None:
        return rolling_state(record)
    return record.phase if record.running else record.result


def _began_ms(record: Operation) -> int:
    return record.phases[0].time_ms if record.phases else 0


def _took(record: Operation) -> str:
    if record.running or not record.phases:
        return ""
    return duration(max(0, record.phases[-1].time_ms - record.phases[0].time_ms))
