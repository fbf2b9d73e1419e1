"""Who is in the cluster, and who leads it: init, add, remove, replace, and what else changes that.

Each command asks the leader for at most one membership operation and then watches it. The
operation belongs to the cluster: it goes on when the command ends, however that ends.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs
import click

from raftctl.cli import Context, NumberParameter, pass_context
from raftctl.client import Cluster, author, expect
from raftctl.cluster_files import warn_of_stale_file
from raftctl.completing import members
from raftctl.endpoints import load_cluster_file
from raftctl.errors import OutcomeUnknown, Refused, Unreachable, UsageProblem
from raftctl.forming import Forming, form_cluster
from raftctl.member_arguments import (
    parse_name,
    parse_names,
    parse_new_servers,
    parse_replacements,
    replacements_argument,
)
from raftctl.plan_text import plan_document, plan_text, plan_width, takes_away
from raftctl.render import (
    Style,
    configuration_document,
    configuration_table,
    fitted,
    name_list,
    plural,
    printable,
    terminal_width,
)
from raftctl.watch import outcome_error, watch
from raftd.commands import Operation
from raftd.core.quorum import majority
from raftd.core.types import server_name
from raftd.protocol import (
    ChangeReply,
    ChangeRequest,
    ConfigurationView,
    MemberChange,
    PlanPhase,
    PlanView,
    Quorum,
    StatusReply,
    TargetMember,
    TransferReply,
    TransferRequest,
)

if TYPE_CHECKING:
    from raftd.config import ClusterConfig

CHANGE_REPLY_TIMEOUT_MS = 15_000.0
"""For the leader's answer to a change: before it the leader dials every new server."""
TRANSFER_REFUSAL_TIMEOUT_MS = 500.0
"""For a refusal of a transfer that is not waited for: several round trips between continents."""
CONFIGURATION_TIMEOUT_MS = 10_000.0
"""For asking how the configuration is after the change; a leader that removed itself is followed
by an election."""


class Asks(Enum):
    """When a command asks before it acts."""

    NEVER = "never"
    IF_IT_TAKES_AWAY = "if a server goes, or loses its vote"
    ALWAYS = "always"


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
            type=NumberParameter(min=1),
            metavar="N",
            help="Refuse unless the configuration index is still N.",
        ),
        click.option("--reason", default="", metavar="TEXT", help="Kept in the record."),
        click.option("--no-wait", is_flag=True, help="Return as soon as the operation runs."),
        click.option("--dry-run", is_flag=True, help="Show what would happen; change nothing."),
    ):
        decorated = decorate(decorated)
    return decorated


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
    if dry_run and forming.configuration is None:
        print_plan(context, _founding_plan(forming, context), context.again(without=["--dry-run"]))
        return
    cluster = context.cluster()
    if forming.operation:
        context.message(f"{forming.operation} is bringing in the others already")
        _follow(context, cluster, forming.operation, no_wait=no_wait or dry_run)
    elif forming.changes:
        options = ChangeOptions(dry_run=dry_run, no_wait=no_wait, reason=reason, at_index=None)
        carry_out(context, change_request(context, "init", options, forming.changes), options)
    else:
        configuration = forming.configuration or cluster.leader_status().configuration
        print_result(context, None, "done", configuration)


def _founding_plan(forming: Forming, context: Context) -> PlanView:
    """Return what `init` does with blank servers; there is no leader yet that could say it."""
    config = context.dialled().config
    assert config is not None, "init needs a cluster file"
    servers = config.servers.values()
    roles = {server.id: server.role for server in servers}
    first = next(name for name in roles if name not in {one.name for one in forming.changes})
    voters = tuple(name for name, role in roles.items() if role == "voter")
    alone, together = (
        Quorum(voters=half, needed=majority(len(half)), alive=half) for half in ((first,), voters)
    )
    joint = len(voters) > 1

    def phase(name: str, words: str, *quorums: Quorum) -> PlanPhase:
        tolerance = min(len(quorum.voters) - quorum.needed for quorum in quorums)
        return PlanPhase(name=name, words=words, quorums=quorums, tolerance=tolerance)

    phases = [phase("founding", f"{first} alone becomes the cluster {config.cluster}", alone)]
    if forming.changes:
        others = " ".join(change.name for change in forming.changes)
        phases.append(phase("catching-up", f"{others} receive the log, without a vote", alone))
    if joint:
        words = f"C_old,new: {first} and a majority of all voters decide"
        phases.append(phase("joint", words, alone, together))
    if forming.changes:
        phases.append(phase("final", "C_new: all voters decide", together))
    nobody = ConfigurationView(
        index=0, committed=True, joint=False, voters=(), outgoing=(), learners=()
    )
    return PlanView(
        changes=tuple(f"{name} joins as a {role}" for name, role in roles.items()),
        joint=joint,
        before=nobody,
        after=attrs.evolve(
            nobody,
            committed=False,
            voters=voters,
            learners=tuple(name for name, role in roles.items() if role == "learner"),
            addresses={server.id: server.address for server in servers},
        ),
        tolerance_before=0,
        tolerance_during=0,
        tolerance_after=phases[-1].tolerance,
        phases=tuple(phases),
    )


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
        for name, address in parse_new_servers(servers)
    ]
    carry_out(context, change_request(context, "add", options, changes), options)


@click.command()
@click.argument("servers", nargs=-1, required=True, metavar="ID...", shell_complete=members())
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
    changes = [MemberChange(role="remove", name=name) for name in parse_names(servers)]
    request = change_request(context, "remove", options, changes)
    carry_out(context, request, options, asks=Asks.ALWAYS)


@click.command()
@replacements_argument
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
    pairs = parse_replacements(servers)
    _require_answerable(context, options)
    configuration = context.cluster().leader_status().configuration
    assert configuration is not None, "a leader has a configuration"
    changes = []
    for old, new, address in pairs:
        changes.append(MemberChange(role="remove", name=old))
        role = _role_of(context, configuration, old)
        changes.append(MemberChange(role=role, name=new, address=address))
    request = change_request(context, "replace", options, changes)
    if request.at_index is None:
        # The roles were read from this configuration, so they hold for this one only.
        request = attrs.evolve(request, at_index=configuration.index)
    carry_out(context, request, options, asks=Asks.ALWAYS)


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
@click.argument(
    "servers", nargs=-1, required=True, metavar="ID...", shell_complete=members("learner")
)
@change_options
@pass_context
def promote(context: Context, servers: tuple[str, ...], options: ChangeOptions) -> None:
    """Turn learners into voters, by one joint change once they have caught up.

    \b
    Example:
      raftctl promote n4
    """
    changes = [MemberChange(role="voter", name=name) for name in parse_names(servers)]
    carry_out(context, change_request(context, "promote", options, changes), options)


@click.command()
@click.argument(
    "servers", nargs=-1, required=True, metavar="ID...", shell_complete=members("voter")
)
@change_options
@pass_context
def demote(context: Context, servers: tuple[str, ...], options: ChangeOptions) -> None:
    """Turn voters into learners, by one joint change. Asks first.

    \b
    Example:
      raftctl demote n3
    """
    changes = [MemberChange(role="learner", name=name) for name in parse_names(servers)]
    request = change_request(context, "demote", options, changes)
    carry_out(context, request, options, asks=Asks.ALWAYS)


@click.command()
@click.argument("servers", nargs=-1, required=True, metavar="ID=HOST:PORT...")
@change_options
@pass_context
def readdress(context: Context, servers: tuple[str, ...], options: ChangeOptions) -> None:
    """Change the addresses of members, of one or of all at once.

    The servers have to run and to answer at their new addresses already; they stay who they are,
    with their data and their votes.

    \b
    Examples:
      raftctl readdress n2=10.0.0.2:7200
      raftctl readdress n1=10.0.1.1:7100 n2=10.0.1.2:7100 n3=10.0.1.3:7100
    """
    changes = [
        MemberChange(role="readdress", name=name, address=address)
        for name, address in parse_new_servers(servers)
    ]
    carry_out(context, change_request(context, "readdress", options, changes), options)


@click.command()
@click.argument("server", required=False, metavar="[ID]", shell_complete=members("voter"))
@click.option("--dry-run", is_flag=True, help="Say who would get it; change nothing.")
@click.option("--no-wait", is_flag=True, help="Return as soon as the leader was asked.")
@click.option("--reason", default="", metavar="TEXT", help="Repeated in the result, kept nowhere.")
@click.option(
    "--at-index",
    type=NumberParameter(min=1),
    metavar="N",
    help="Refuse unless the configuration index is still N.",
)
@pass_context
def transfer(
    context: Context,
    server: str | None,
    dry_run: bool,
    no_wait: bool,
    reason: str,
    at_index: int | None,
) -> None:
    """Hand leadership to the voter ID, or to the one that is furthest.

    Returns when the new leader leads. Writes pause for at most one election timeout. It is no
    change of members: there is no operation, and nothing is recorded.

    \b
    Examples:
      raftctl transfer n2
      raftctl transfer
      raftctl transfer --dry-run
    """
    target = parse_name(server) if server else ""
    cluster = context.cluster()
    before = cluster.leader_status()
    _refuse_moved(context, before, at_index)
    was, term = server_name(before.server), before.term
    heir = _heir(context, before, target) if dry_run else target
    result, leader = "planned", was
    if not dry_run:
        result, leader, term = _hand_over(cluster, before, target, no_wait=no_wait)
    if context.structured:
        configuration = before.configuration
        if result == "done":
            configuration = cluster.leader_status().configuration
        document: dict[str, Any] = _result_document(None, result, configuration)
        document |= {"leader": leader, "term": term, "target": heir or None, "reason": reason}
        context.print_document(document, one_line=True)
    elif result == "planned" and heir != was:
        click.echo(f"{heir} would lead; {was} leads now (term {term}), and nothing was changed")
    elif result == "running":
        click.echo(f"{was} was asked to hand leadership to {heir or 'the voter that is furthest'}")
        context.message(f"who leads then: {context.command('status')}")
    elif leader == was:
        click.echo(f"{leader} leads already (term {term})")
    else:
        click.echo(f"{leader} leads now (term {term}); it was {was}")


def _refuse_moved(context: Context, status: StatusReply, at_index: int | None) -> None:
    configuration = status.configuration
    assert configuration is not None, "a leader has a configuration"
    if at_index not in (None, configuration.index):
        raise Refused(
            f"the configuration has moved since index {at_index}",
            code="moved",
            cause=f"the latest configuration is at index {configuration.index}, not {at_index}; "
            "nothing was changed",
            hint=context.command("status"),
        )


def _heir(context: Context, status: StatusReply, target: str) -> str:
    """Return who would lead after a transfer, as far as the leader's status tells.

    Raises:
        Refused: nobody could, or `target` could not.
    """
    configuration = status.configuration
    assert configuration is not None, "a leader has a configuration"
    if target == server_name(status.server):
        return target
    able = [
        (peer.match_index, peer.server)
        for peer in status.peers
        if peer.connected
        and peer.server in configuration.voters
        and target in ("", server_name(peer.server))
    ]
    if able:
        return server_name(max(able)[1])
    wanted = f"{target} is no voter that is connected" if target else "no other voter is connected"
    raise Refused(
        "leadership would not be transferred",
        cause=f"{wanted}; the voters are {name_list(configuration.voters)}, and nothing was "
        "changed",
        hint=context.command("status"),
    )


def _hand_over(
    cluster: Cluster, before: StatusReply, target: str, *, no_wait: bool
) -> tuple[str, str, int]:
    """Ask the leader to hand over; return the result, who leads now, and in which term."""
    request = TransferRequest(target=target)
    try:
        if no_wait:
            # What it refuses it refuses at once.
            reply = expect(
                cluster.ask(request, reply_timeout_ms=TRANSFER_REFUSAL_TIMEOUT_MS), TransferReply
            )
        else:
            reply = expect(cluster.ask(request), TransferReply)
        return "done", server_name(reply.leader), reply.term
    except OutcomeUnknown:
        if no_wait:
            return "running", server_name(before.server), before.term
        # The old leader may have been too busy stepping down to answer; the cluster knows.
        now = cluster.leader_status()
        leader = server_name(now.server)
        if now.server == before.server or (target and leader != target):
            raise
        return "done", leader, now.term


# --- one change -------------------------------------------------------------------------------


def change_request(
    context: Context,
    kind: str,
    options: ChangeOptions,
    changes: Sequence[MemberChange] = (),
    *,
    target: Sequence[TargetMember] = (),
    zones: Mapping[str, str] | None = None,
) -> ChangeRequest:
    """Return what the leader is to be asked; it has no session yet.

    Args:
        zones: names of servers to their zones; those of the cluster file, if there is one, where
            nothing is said.

    Raises:
        UsageProblem: nothing says where to dial.
    """
    return ChangeRequest(
        session="",
        serial=0,
        kind=kind,
        changes=tuple(changes),
        author=author(),
        reason=options.reason,
        at_index=options.at_index,
        target=tuple(target),
        zones=dict(_zones_at_hand(context) if zones is None else zones),
    )


def _zones_at_hand(context: Context) -> dict[str, str]:
    config = context.dialled().config
    if config is None and context.config_path is not None:
        try:
            config = load_cluster_file(context.config_path)
        except UsageProblem:
            # They only make warnings better; a change does not fail for want of them.
            return {}
    return zones_of(config) if config is not None else {}


def zones_of(config: ClusterConfig) -> dict[str, str]:
    """Return the zone of each server that has one in the file."""
    return {server.id: server.zone for server in config.servers.values() if server.zone}


def _require_answerable(context: Context, options: ChangeOptions) -> None:
    if not options.dry_run:
        context.require_answerable(f"{context.again('--dry-run')}\n{context.again('--yes')}")


def carry_out(
    context: Context,
    request: ChangeRequest,
    options: ChangeOptions,
    *,
    asks: Asks = Asks.NEVER,
    shows: bool = False,
    file: ClusterConfig | None = None,
) -> None:
    """Start the operation after a preflight, asking first where it has to, and follow it.

    Args:
        asks: whether somebody has to agree to the plan.
        shows: whether the plan is shown where nobody has to agree to it.
        file: the cluster file that is applied, if one is.

    Raises:
        UsageProblem: it has to ask, and there is nobody who could answer.
        CliError: as `Cluster.ask` and `watch`.
    """
    if asks is Asks.ALWAYS:
        _require_answerable(context, options)
    cluster = context.cluster()
    # A refusal must leave nothing in the log, not even the session that the change itself needs.
    asked = preflight(cluster, request)
    plan = asked.plan
    if plan is None:
        _nothing_to_do(context, cluster, asked)
        return
    if options.dry_run:
        at_index = [] if options.at_index else ["--at-index", str(plan.before.index)]
        print_plan(context, plan, context.again(*at_index, without=["--dry-run"]))
        return
    has_to_ask = asks is Asks.ALWAYS or (asks is Asks.IF_IT_TAKES_AWAY and takes_away(plan))
    if has_to_ask:
        _require_answerable(context, options)
    is_shown = (has_to_ask and not context.yes) or (shows and not context.structured)
    if is_shown:
        style = Style(context.use_color(sys.stderr))
        click.echo(plan_text(plan, style, width=plan_width(sys.stderr)), err=True, color=True)
    if has_to_ask:
        context.confirm("Proceed?")
    if is_shown or request.target:
        # What was agreed to, or worked out from a file, holds for this configuration only.
        request = attrs.evolve(request, at_index=plan.before.index)
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
    if reply.plan is not None and not is_shown:
        for warning in reply.plan.warnings:
            context.message(f"warning: {warning}")
    warned = reply.plan is not None and bool(reply.plan.warnings)
    _follow(context, cluster, reply.operation, no_wait=options.no_wait, warned=warned, file=file)


def preflight(cluster: Cluster, request: ChangeRequest) -> ChangeReply:
    """Return what the leader would do, or why nothing; nothing of it gets into the log.

    Raises:
        As `Cluster.ask`.
    """
    dry_run = attrs.evolve(request, dry_run=True)
    return expect(cluster.ask(dry_run, reply_timeout_ms=CHANGE_REPLY_TIMEOUT_MS), ChangeReply)


def _nothing_to_do(context: Context, cluster: Cluster, reply: ChangeReply) -> None:
    why = f": {printable(reply.nothing_to_do)}" if reply.nothing_to_do else ""
    context.message(f"no changes{why}")
    print_result(context, None, "done", cluster.leader_status().configuration)


def _follow(
    context: Context,
    cluster: Cluster,
    operation: str,
    *,
    no_wait: bool,
    warned: bool = False,
    file: ClusterConfig | None = None,
) -> None:
    """Watch `operation` to its end and print the configuration it leads to."""
    if no_wait:
        if context.structured:
            print_result(context, operation, "running", cluster.leader_status().configuration)
        else:
            click.echo(operation)
            context.message(f"started; {context.command(f'operation watch {operation}')}")
        return
    follow_to_end(context, cluster, operation, warned=warned, file=file)


def follow_to_end(
    context: Context,
    cluster: Cluster,
    operation: str,
    *,
    warned: bool = False,
    file: ClusterConfig | None = None,
) -> None:
    """Watch `operation` and print its result and the configuration.

    An even number of voters is remarked on, unless the plan's warnings have been shown. So is a
    cluster file that does not lead to the cluster any more.

    Args:
        file: the cluster file that is applied, if one is.

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
    warn_of_stale_file(context, configuration, file)


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


def print_plan(context: Context, plan: PlanView, command: str) -> None:
    """Print a plan that was only asked for.

    Args:
        command: what does exactly this, as long as the configuration has not moved.
    """
    if context.structured:
        document = _result_document(None, "planned", plan.before)
        document["plan"] = plan_document(plan, command=command)
        context.print_document(document, one_line=True)
        return
    style = Style(context.use_color(sys.stdout))
    click.echo(plan_text(plan, style, width=plan_width(sys.stdout)), color=True)
    then = fitted("nothing was changed; exactly this is done by:", plan_width(sys.stdout))
    click.echo(f"\n{then}\n{command}")
