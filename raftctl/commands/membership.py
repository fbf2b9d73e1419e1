"""init, add, remove, replace, promote, demote, transfer: who is in the cluster, and who leads it.

Each command asks the leader for at most one membership operation and then watches it. The
operation belongs to the cluster: it goes on when the command ends, however that ends.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import click

from raftctl.cli import Context, pass_context
from raftctl.client import Cluster, author, expect
from raftctl.errors import OutcomeUnknown, Refused, Unreachable, UsageProblem
from raftctl.forming import form_cluster
from raftctl.render import (
    Style,
    configuration_document,
    configuration_table,
    display_names,
    members_of,
    name_list,
    natural_key,
    plural,
    terminal_width,
)
from raftctl.watch import outcome_error, watch
from raftd.commands import Operation
from raftd.config_values import check_name, parse_member_argument
from raftd.core.types import ServerId, server_name
from raftd.protocol import (
    ChangeReply,
    ChangeRequest,
    ConfigurationView,
    MemberChange,
    PlanView,
    TransferReply,
    TransferRequest,
)

CHANGE_REPLY_TIMEOUT_MS = 15_000.0
"""For the leader's answer to a change: before it the leader dials every new server."""
CONFIGURATION_TIMEOUT_MS = 10_000.0
"""For asking how the configuration is after the change; a leader that removed itself is followed
by an election."""


@attrs.frozen(kw_only=True)
class ChangeOptions:
    """The options that all changes have in common."""

    dry_run: bool
    no_wait: bool
    reason: str
    at_index: int | None


def change_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options; its function takes them as `options`."""

    @functools.wraps(function)
    def with_options(
        *, dry_run: bool, no_wait: bool, reason: str, at_index: int | None, **others: Any
    ) -> None:
        options = ChangeOptions(dry_run=dry_run, no_wait=no_wait, reason=reason, at_index=at_index)
        function(options=options, **others)

    decorated: Callable[..., None] = with_options
    for decorate in (
        click.option(
            "--at-index",
            type=click.IntRange(min=1),
            metavar="N",
            help="Refuse unless the configuration index is still N.",
        ),
        click.option("--reason", default="", metavar="TEXT", help="Kept in the record."),
        click.option("--no-wait", is_flag=True, help="Return as soon as the operation runs."),
        click.option("--dry-run", is_flag=True, help="Show what would happen; change nothing."),
    ):
        decorated = decorate(decorated)
    return decorated


# --- arguments --------------------------------------------------------------------------------


def _name(text: str) -> str:
    try:
        return check_name(text)
    except ValueError as error:
        raise UsageProblem(str(error), code="name") from None


def _new_server(text: str) -> tuple[str, str]:
    try:
        return parse_member_argument(text)
    except ValueError as error:
        raise UsageProblem(
            str(error), code="address", hint="n4=127.0.0.1:7104, for example"
        ) from None


def _refuse_twice(what: str, words: Sequence[str]) -> None:
    twice = sorted({word for word in words if words.count(word) > 1}, key=natural_key)
    if twice:
        raise UsageProblem(f"{what} twice: {' '.join(twice)}", cause="nothing was sent")


def _names(texts: Sequence[str]) -> list[str]:
    names = [_name(text) for text in texts]
    _refuse_twice("named", names)
    return names


def _new_servers(texts: Sequence[str]) -> list[tuple[str, str]]:
    servers = [_new_server(text) for text in texts]
    _refuse_twice("named", [name for name, _ in servers])
    _refuse_twice("the address was given", [address for _, address in servers])
    return servers


def _replacements(words: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return old name, new name and address of each pair OLD NEW=HOST:PORT."""
    if len(words) % 2:
        raise UsageProblem(
            f"{words[-1]} has no counterpart",
            cause="servers are replaced in pairs: OLD NEW=HOST:PORT",
            hint="raftctl replace n3 n4=127.0.0.1:7104, for example",
        )
    old = _names(words[0::2])
    new = _new_servers(words[1::2])
    return [(name, *server) for name, server in zip(old, new, strict=True)]


# --- commands ---------------------------------------------------------------------------------


@click.command()
@click.option("--dry-run", is_flag=True, help="Ask the servers, show what would happen; no more.")
@click.option("--no-wait", is_flag=True, help="Return as soon as the operation has started.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the operation's record.")
@pass_context
def init(context: Context, dry_run: bool, no_wait: bool, reason: str) -> None:
    """Form a cluster from the blank servers of the cluster file.

    The first voter of the file becomes the cluster, and brings in all others by one change. Every
    server has to be running and blank. An interrupted init is finished by repeating it.

    \b
    Example:
      raftctl init --config cluster.yaml
    """
    forming = form_cluster(context, dry_run=dry_run)
    if forming.message:
        context.message(forming.message)
    if dry_run:
        print_result(context, forming.operation or None, "planned", forming.configuration)
        return
    cluster = context.cluster()
    if forming.operation:
        context.message(f"{forming.operation} is bringing in the others already")
        _follow(context, cluster, forming.operation, no_wait=no_wait)
    elif forming.changes:
        options = ChangeOptions(dry_run=False, no_wait=no_wait, reason=reason, at_index=None)
        _change(context, "init", forming.changes, options)
    else:
        configuration = forming.configuration or cluster.leader_status().configuration
        print_result(context, None, "done", configuration)


@click.command()
@click.argument("servers", nargs=-1, required=True, metavar="ID=HOST:PORT...")
@click.option("--learner", is_flag=True, help="Learners: they get the log and have no vote.")
@change_options
@pass_context
def add(context: Context, servers: tuple[str, ...], learner: bool, options: ChangeOptions) -> None:
    """Add blank servers to the cluster, as voters or as learners.

    They catch up first, without a vote; then all of them get it by one joint change. A server
    that cannot be reached leaves the configuration untouched.

    \b
    Examples:
      raftctl add n4=10.0.0.4:7100
      raftctl add n4=10.0.0.4:7100 n5=10.0.0.5:7100 --reason "room for two failures"
      raftctl add n6=10.0.0.6:7100 --learner
    """
    role = "learner" if learner else "voter"
    changes = [
        MemberChange(role=role, name=name, address=address)
        for name, address in _new_servers(servers)
    ]
    _change(context, "add", changes, options)


@click.command()
@click.argument("servers", nargs=-1, required=True, metavar="ID...")
@change_options
@pass_context
def remove(context: Context, servers: tuple[str, ...], options: ChangeOptions) -> None:
    """Remove servers for good; their raftd ends with exit code 70. Asks first.

    \b
    Examples:
      raftctl remove n3
      raftctl remove n4 n5 --reason "end of the sale"
      raftctl remove n3 --dry-run
    """
    changes = [MemberChange(role="remove", name=name) for name in _names(servers)]
    _change(context, "remove", changes, options, asks=True)


@click.command()
@click.argument("servers", nargs=-1, required=True, metavar="OLD NEW=HOST:PORT...")
@change_options
@pass_context
def replace(context: Context, servers: tuple[str, ...], options: ChangeOptions) -> None:
    """Replace servers by blank ones, all of them in one joint change. Asks first.

    NEW catches up first and then takes over the role of OLD, which is removed for good. NEW may
    have the name of OLD: a server whose disk was lost comes back in this way.

    \b
    Examples:
      raftctl replace n3 n4=10.0.0.4:7100
      raftctl replace n1 n4=10.0.0.4:7100 n2 n5=10.0.0.5:7100
      raftctl replace n2 n2=10.0.0.2:7100
    """
    pairs = _replacements(servers)
    _require_answerable(context, options)
    configuration = context.cluster().leader_status().configuration
    assert configuration is not None, "a leader has a configuration"
    changes = []
    for old, new, address in pairs:
        changes.append(MemberChange(role="remove", name=old))
        role = _role_of(context, configuration, old)
        changes.append(MemberChange(role=role, name=new, address=address))
    # The roles were read from this configuration, so they hold for this one only.
    if options.at_index is None:
        options = attrs.evolve(options, at_index=configuration.index)
    _change(context, "replace", changes, options, asks=True)


def _role_of(context: Context, configuration: ConfigurationView, name: str) -> str:
    """Return the role of the member that is called `name`."""
    voters = {server_name(server) for server in (*configuration.voters, *configuration.outgoing)}
    if name in voters:
        return "voter"
    if name in {server_name(server) for server in configuration.learners}:
        return "learner"
    learners = f", learners {name_list(configuration.learners)}" if configuration.learners else ""
    raise Refused(
        f"{name} is not a member",
        code="not-a-member",
        cause=f"voters {name_list(configuration.voters)}{learners} "
        f"(configuration {configuration.index}); nothing was changed",
        hint=context.command("status"),
    )


@click.command()
@click.argument("servers", nargs=-1, required=True, metavar="ID...")
@change_options
@pass_context
def promote(context: Context, servers: tuple[str, ...], options: ChangeOptions) -> None:
    """Turn learners into voters, by one joint change once they have caught up.

    \b
    Example:
      raftctl promote n4
    """
    changes = [MemberChange(role="voter", name=name) for name in _names(servers)]
    _change(context, "promote", changes, options)


@click.command()
@click.argument("servers", nargs=-1, required=True, metavar="ID...")
@change_options
@pass_context
def demote(context: Context, servers: tuple[str, ...], options: ChangeOptions) -> None:
    """Turn voters into learners, by one joint change. Asks first.

    \b
    Example:
      raftctl demote n3
    """
    changes = [MemberChange(role="learner", name=name) for name in _names(servers)]
    _change(context, "demote", changes, options, asks=True)


@click.command()
@click.argument("server", required=False, metavar="[ID]")
@pass_context
def transfer(context: Context, server: str | None) -> None:
    """Hand leadership to the voter ID, or to the one that is furthest.

    Returns when the new leader leads. Writes pause for at most one election timeout.

    \b
    Examples:
      raftctl transfer n2
      raftctl transfer
    """
    target = _name(server) if server else ""
    cluster = context.cluster()
    before = cluster.leader_status()
    try:
        reply = expect(cluster.ask(TransferRequest(target=target)), TransferReply)
        leader, term = server_name(reply.leader), reply.term
    except OutcomeUnknown:
        # The old leader may have been too busy stepping down to answer; the cluster knows.
        now = cluster.leader_status()
        leader, term = server_name(now.server), now.term
        if now.server == before.server or (target and leader != target):
            raise
    was = server_name(before.server)
    if context.structured:
        document = _result_document(None, "done", cluster.leader_status().configuration)
        context.print_document(document | {"leader": leader, "term": term}, one_line=True)
    elif leader == was:
        click.echo(f"{leader} leads already (term {term})")
    else:
        click.echo(f"{leader} leads now (term {term}); it was {was}")


# --- one change -------------------------------------------------------------------------------


def _require_answerable(context: Context, options: ChangeOptions) -> None:
    if not options.dry_run:
        context.require_answerable("repeat it with --yes, or look first with --dry-run")


def _change(
    context: Context,
    kind: str,
    changes: Sequence[MemberChange],
    options: ChangeOptions,
    *,
    asks: bool = False,
) -> None:
    """Start the operation, after a preflight where it has to ask, and follow it to its end."""
    if asks:
        _require_answerable(context, options)
    cluster = context.cluster()
    request = ChangeRequest(
        session="",
        serial=0,
        kind=kind,
        changes=tuple(changes),
        author=author(),
        reason=options.reason,
        at_index=options.at_index,
    )
    # A refusal must leave nothing in the log, not even the session that the change itself needs.
    preflight = _preflight(cluster, request)
    if preflight.plan is None:
        _nothing_to_do(context, cluster, preflight)
        return
    if options.dry_run:
        _print_plan(context, preflight.plan)
        return
    if asks and not context.yes:
        click.echo(plan_text(preflight.plan, Style(context.use_color(sys.stderr))), err=True)
        context.confirm("Proceed?")
        # What was agreed to holds for this configuration only.
        request = attrs.evolve(request, at_index=preflight.plan.before.index)
    reply = expect(
        cluster.write(
            lambda session, serial, lowest: attrs.evolve(request, session=session, serial=serial),
            reply_timeout_ms=CHANGE_REPLY_TIMEOUT_MS,
        ),
        ChangeReply,
    )
    if not reply.operation:
        _nothing_to_do(context, cluster, reply)
        return
    if reply.plan is not None and (context.yes or not asks):
        for warning in reply.plan.warnings:
            context.message(f"warning: {warning}")
    warned = reply.plan is not None and bool(reply.plan.warnings)
    _follow(context, cluster, reply.operation, no_wait=options.no_wait, warned=warned)


def _preflight(cluster: Cluster, request: ChangeRequest) -> ChangeReply:
    # The session is not opened for it: a dry run leaves nothing in the log.
    dry_run = attrs.evolve(request, dry_run=True)
    return expect(cluster.ask(dry_run, reply_timeout_ms=CHANGE_REPLY_TIMEOUT_MS), ChangeReply)


def _nothing_to_do(context: Context, cluster: Cluster, reply: ChangeReply) -> None:
    why = f": {reply.nothing_to_do}" if reply.nothing_to_do else ""
    context.message(f"nothing to do{why}")
    print_result(context, None, "done", cluster.leader_status().configuration)


def _follow(
    context: Context, cluster: Cluster, operation: str, *, no_wait: bool, warned: bool = False
) -> None:
    """Watch `operation` to its end and print the configuration it leads to."""
    if no_wait:
        if context.structured:
            print_result(context, operation, "running", cluster.leader_status().configuration)
        else:
            click.echo(operation)
            context.message(f"started; {context.command(f'operation watch {operation}')}")
        return
    follow_to_end(context, cluster, operation, warned=warned)


def follow_to_end(
    context: Context, cluster: Cluster, operation: str, *, warned: bool = False
) -> None:
    """Watch `operation` and print its result and the configuration.

    An even number of voters is remarked on, unless the plan's warnings have been shown.

    Raises:
        CliError: it failed or was aborted (exit 1), or as `watch`.
    """
    record = watch(context, cluster, operation).record
    error = outcome_error(context, record)
    configuration = configuration_after(cluster, record)
    if error is not None:
        if context.structured:
            print_result(context, operation, record.result, configuration)
        raise error
    if len(configuration.voters) % 2 == 0 and record.plan.joint and not warned:
        count = len(configuration.voters)
        context.message(
            f"note: {plural(count, 'voter')} survive no more failures than {count - 1}; "
            "an odd number is better"
        )
    print_result(context, operation, record.result, configuration)


def configuration_after(cluster: Cluster, record: Operation) -> ConfigurationView:
    """Return the leader's configuration; the planned one if no leader answers soon."""
    deadline = cluster.deadline().or_after_ms(CONFIGURATION_TIMEOUT_MS)
    try:
        configuration = cluster.leader_status(deadline=deadline).configuration
        assert configuration is not None, "a leader has a configuration"
        return configuration
    except Unreachable:
        done = record.result == "done"
        plan = record.plan
        return ConfigurationView(
            index=record.configuration_index,
            committed=True,
            joint=False,
            voters=plan.voters_after if done else plan.voters_before,
            outgoing=(),
            learners=plan.learners_after if done else plan.learners_before,
            addresses=plan.addresses,
        )


# --- printing ---------------------------------------------------------------------------------


def _result_document(
    operation: str | None, result: str, configuration: ConfigurationView | None
) -> dict[str, Any]:
    return {
        "operation": operation,
        "result": result,
        "configuration": configuration_document(configuration) if configuration else None,
    }


def print_result(
    context: Context,
    operation: str | None,
    result: str,
    configuration: ConfigurationView | None,
) -> None:
    """Print the configuration as a table, or the whole result as the last JSON line."""
    if context.structured:
        document = _result_document(operation, result, configuration)
        context.print_document(document, one_line=True)
    elif configuration is not None:
        state = "joint" if configuration.joint else "stable"
        click.echo(f"configuration {configuration.index}, {state}")
        click.echo(configuration_table(configuration, width=terminal_width(sys.stdout)))


def _print_plan(context: Context, plan: PlanView) -> None:
    if context.structured:
        document = _result_document(None, "planned", plan.before)
        document["plan"] = {
            "changes": list(plan.changes),
            "joint": plan.joint,
            "before": configuration_document(plan.before),
            "after": configuration_document(plan.after),
            "tolerance_before": plan.tolerance_before,
            "tolerance_during": plan.tolerance_during,
            "tolerance_after": plan.tolerance_after,
            "warnings": list(plan.warnings),
        }
        context.print_document(document, one_line=True)
        return
    click.echo(plan_text(plan, Style(context.use_color(sys.stdout))))
    click.echo(f"nothing was changed; to do exactly this, add --at-index {plan.before.index}")


def plan_text(plan: PlanView, style: Style) -> str:
    """Return what a change would do and how many failures each of its phases survives."""
    names = display_names([*members_of(plan.before), *members_of(plan.after)])
    before, after = _members_text(plan.before, names), _members_text(plan.after, names)
    rows = [("now", before, plan.tolerance_before)]
    if plan.joint:
        rows.append(("joint", f"{before} and {after}", plan.tolerance_during))
    rows.append(("after", after, plan.tolerance_after))
    width = max(len(halves) for _, halves, _ in rows)
    lines = list(plan.changes)
    for label, halves, tolerance in rows:
        survives = f"survives {plural(tolerance, 'failure') if tolerance > 0 else 'no failure'}"
        shown = style(survives, "yellow") if tolerance <= 0 else survives
        lines.append(f"  {label:<6} {halves:<{width}}  {shown}")
    lines += [style(f"warning: {warning}", "yellow") for warning in plan.warnings]
    return "\n".join(lines)


def _members_text(configuration: ConfigurationView, names: dict[ServerId, str]) -> str:
    def listed(servers: Sequence[ServerId]) -> str:
        return " ".join(sorted((names[server] for server in servers), key=natural_key))

    text = f"({listed(configuration.voters)})"
    if configuration.learners:
        text += f" learners ({listed(configuration.learners)})"
    return text
