"""rolling replace, restart, resume, pause, abort, show: one server after the other, never two.

Each step waits until the cluster is well, and nothing can make it go on before. The state is in the
cluster: whatever happens to this command or its terminal, `rolling resume` goes on.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from raftctl.cli import CommandGroup, Context, pass_context
from raftctl.client import Cluster, author, expect
from raftctl.cluster_files import warn_of_stale_file
from raftctl.commands.membership import CHANGE_REPLY_TIMEOUT_MS, CONFIGURATION_TIMEOUT_MS
from raftctl.completing import members, operations
from raftctl.errors import CliError, Refused, StillRunning, Unreachable, Unsafe, UsageProblem
from raftctl.member_arguments import parse_names, parse_replacements, replacements_argument
from raftctl.render import (
    Style,
    configuration_document,
    configuration_table,
    duration,
    fitted,
    name_list,
    natural_key,
    printable,
    terminal_width,
)
from raftctl.restarting import PLACEHOLDERS, expand, unknown_placeholders
from raftctl.rolling import Driver, Look, left_over
from raftctl.rolling_gate import obstacle
from raftctl.rolling_record import (
    Record,
    Superseded,
    begin,
    read_record,
    running_rolling,
    update_newest,
)
from raftctl.rolling_text import (
    IDLE_MS,
    PlannedStep,
    Screen,
    counted,
    plan_document,
    plan_text,
    rolling_state,
    screen_for,
    steps_table,
    story,
    who_drives,
)
from raftctl.watch import describe_peer, describe_step, detached, look, watch
from raftd.cluster_status.operations import (
    exchange,
    rolling_document,
    rolling_of,
    rolling_summary,
)
from raftd.cluster_status.view import ClusterView, Row
from raftd.commands import (
    DONE,
    FEATURES_ROLLING,
    ROLLING_COMMAND_BYTES_MAX,
    ROLLING_REPLACE,
    ROLLING_RESTART,
    RUNNING,
    Operation,
    RollingStep,
)
from raftd.config_values import parse_member_argument
from raftd.core.availability import survived_failures
from raftd.core.types import ServerId, server_name
from raftd.protocol import (
    AbortReply,
    AbortRequest,
    ChangeReply,
    ChangeRequest,
    ConfigurationView,
    MemberChange,
)

POLL_S = 0.5
"""Between two looks at an operation that somebody else drives."""
_ROLES = ("down", "learner", "follower", "leader")
"""In which order servers have their turn: who counts least for the quorum comes first."""


@click.group(cls=CommandGroup)
def rolling() -> None:
    """Replace or restart servers one after the other; pause, resume or abort that.

    Followers come first, the leader last, after it has handed leadership over. Each step waits
    until every other server is up and has caught up, and until no quorum would be lost by it.

    \b
    Examples:
      raftctl rolling restart --command 'ssh {host} systemctl restart raftd'
      raftctl rolling replace n1 n4=10.0.0.4:7100 n2 n5=10.0.0.5:7100
      raftctl rolling resume
    """


# --- begin ------------------------------------------------------------------------------------


@rolling.command()
@replacements_argument
@click.option("--dry-run", is_flag=True, help="Show the steps; change nothing.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the record.")
@pass_context
def replace(context: Context, servers: tuple[str, ...], dry_run: bool, reason: str) -> None:
    """Replace servers by blank ones, one pair after the other. Asks first.

    Each step is one joint change: NEW catches up, takes over the vote of OLD, and OLD is removed
    for good. To replace several at once instead, as one change: raftctl replace.

    \b
    Examples:
      raftctl rolling replace n1 n4=10.0.0.4:7100 n2 n5=10.0.0.5:7100 n3 n6=10.0.0.6:7100
      raftctl rolling replace n1 n4=10.0.0.4:7100 --dry-run
    """
    steps = [
        RollingStep(name=old, replacement=f"{new}={address}")
        for old, new, address in parse_replacements(servers)
    ]
    _begin(context, ROLLING_REPLACE, steps, "", dry_run=dry_run, reason=reason)


@rolling.command()
@click.option(
    "--command",
    required=True,
    metavar="CMD",
    help="Shell command that restarts one server. {id}, {address} and {host} are replaced; "
    "RAFTCTL_SERVER, RAFTCTL_ADDRESS and RAFTCTL_HOST are in its environment.",
)
@click.option(
    "--servers",
    default="",
    metavar="ID,...",
    shell_complete=members(),
    help="Only these. Default: all members.",
)
@click.option("--dry-run", is_flag=True, help="Show the steps; run and change nothing.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the record.")
@pass_context
def restart(context: Context, command: str, servers: str, dry_run: bool, reason: str) -> None:
    """Restart servers one after the other by a command of yours. Asks first.

    CMD runs on this machine, once for each server, and has to end with 0. Then the server has to
    answer as a new process, be in contact with the leader and have caught up; only then the next
    one has its turn. If CMD takes longer than --timeout, it is killed with all that it has
    started, unless that has a session of its own.

    With a new release installed this is a rolling upgrade: at its end the features of the new
    release are switched on.

    The command is kept in the record: `rolling resume` shows and runs it, on whatever machine.

    \b
    Examples:
      raftctl rolling restart --command 'ssh {host} systemctl restart raftd'
      raftctl rolling restart --servers n2,n3 --command './restart.sh {id}'
      raftctl rolling restart \\
        --command 'raftctl playground kill {id} && raftctl playground start {id}'
      raftctl rolling restart --command 'ssh {host} systemctl restart raftd' --dry-run
    """
    if not command.strip():
        raise UsageProblem(
            "the command is empty",
            cause="it has to restart a server; nothing was sent",
            hint="raftctl rolling restart --help",
        )
    command_bytes = len(command.encode())
    if command_bytes > ROLLING_COMMAND_BYTES_MAX:
        raise UsageProblem(
            f"the command has {command_bytes} bytes",
            cause=f"at most {ROLLING_COMMAND_BYTES_MAX} fit into the record; nothing was sent",
            hint="put it into a script: `raftctl rolling restart --command './restart.sh {id}'`",
        )
    _refuse_unknown_placeholders(command)
    names = parse_names([text.strip() for text in servers.split(",")]) if servers else []
    steps = [RollingStep(name=name) for name in names]
    _begin(context, ROLLING_RESTART, steps, command, dry_run=dry_run, reason=reason)


def _refuse_unknown_placeholders(command: str) -> None:
    unknown = unknown_placeholders(command)
    if not unknown:
        return
    first = unknown[0]
    close = difflib.get_close_matches(first.lower(), PLACEHOLDERS, 1)
    meant = f" (did you mean {{{close[0]}}}?)" if close else ""
    raise UsageProblem(
        f"{{{first}}} is no placeholder{meant}",
        code="placeholder",
        cause=f"{', '.join(f'{{{name}}}' for name in PLACEHOLDERS)} are replaced; braces that are "
        f"the shell's or awk's need blanks inside: {{ {first} }}; nothing was sent",
        hint="raftctl rolling restart --help",
    )


def _begin(
    context: Context,
    kind: str,
    steps: list[RollingStep],
    command: str,
    *,
    dry_run: bool,
    reason: str,
) -> None:
    """Show the plan, ask, begin the operation and drive it."""
    if not dry_run:
        context.require_answerable(f"{context.again('--dry-run')}\n{context.again('--yes')}")
    cluster = context.cluster()
    # Whoever leads is waited for; the look afterwards takes a moment and no more.
    cluster.leader_status()
    eyes = Look(cluster)
    found = eyes.now()
    _refuse_before(context, found)
    planned = _plan(context, kind, steps, found)
    _preflight(context, cluster, kind, planned, found)
    first_command = _first_command(planned, found, command)
    if dry_run:
        _print_plan(context, kind, planned, command, first_command)
        return
    if not context.yes:
        style = Style(context.use_color(sys.stderr))
        width = terminal_width(sys.stderr)
        plan = plan_text(kind, planned, command, style, width, first_command=first_command)
        click.echo(plan, err=True)
        context.confirm("Proceed?")
    record = begin(cluster, kind, tuple(each.step for each in planned), command, reason)
    _drive(context, cluster, record, eyes)


def _refuse_before(context: Context, found: ClusterView) -> None:
    """Refuse where the cluster as a whole cannot have a rolling operation now."""
    leader = found.leader
    if leader is None or found.configuration is None:
        # It was there a moment ago: an election.
        raise Unreachable(
            "there is no leader just now",
            code="no-leader",
            cause="nothing was begun",
            hint=context.again(),
        )
    if leader.features < FEATURES_ROLLING:
        older = [
            row.server
            for row in found.rows
            if row.member
            and (row.reply is None or row.reply.protocol_version_max < FEATURES_ROLLING)
        ]
        which = f": {name_list(older)} do not, or do not answer" if older else ""
        raise Refused(
            "rolling operations are not switched on in this cluster yet",
            code="features",
            cause=f"every member has to speak version {FEATURES_ROLLING}{which}; the features "
            f"that are switched on are those of version {leader.features}",
            hint="start the older ones with the new release, one after the other, the leader last; "
            f"or, with all of them up to date, repeat in a few seconds\n{context.again()}",
        )
    running = leader.rolling or leader.operation
    if running is not None:
        id, record = running.record.id, running.record
        is_rolling = record.rolling is not None
        raise Refused(
            f"{id} is running" if not is_rolling else f"{id} is {rolling_state(record)}",
            code="operation-running",
            cause=f"{id} ({record.kind}, by {printable(record.author)}) has to end first",
            hint=context.command(f"rolling resume {id}" if is_rolling else f"operation watch {id}"),
            operation=id,
        )


def _plan(
    context: Context, kind: str, steps: list[RollingStep], found: ClusterView
) -> list[PlannedStep]:
    """Return the steps in the order in which they are to be taken; of all members if none is named.

    Raises:
        Refused: a server is not a member.
    """
    members = {row.name: row for row in found.rows if row.member}
    if not steps:
        steps = [RollingStep(name=name) for name in sorted(members, key=natural_key)]
    strangers = [step.name for step in steps if step.name not in members]
    if strangers:
        raise Refused(
            f"{' '.join(strangers)}: not in the cluster",
            code="not-a-member",
            cause=f"the members are {' '.join(sorted(members, key=natural_key))}; "
            "nothing was begun",
            hint=context.command("status"),
        )
    dead = frozenset(row.server for row in members.values() if not row.alive)
    planned = []
    for step in steps:
        row = members[step.name]
        # A replacement stops nobody before the new server has the vote.
        stopped = {row.server} if kind == ROLLING_RESTART else set()
        planned.append(
            PlannedStep(
                step=step,
                role=_role(row, found),
                tolerance=survived_failures([_voters(found)], dead | stopped),
                version=row.reply.version if row.reply is not None else "",
            )
        )
    return sorted(planned, key=lambda each: _ROLES.index(each.role))


def _voters(found: ClusterView) -> frozenset[ServerId]:
    return frozenset(found.configuration.voters if found.configuration is not None else ())


def _role(row: Row, found: ClusterView) -> str:
    if found.leader is not None and row.server == found.leader.server:
        return "leader"
    if not row.alive:
        return "down"
    return "follower" if row.vote == "yes" else "learner"


def _preflight(
    context: Context,
    cluster: Cluster,
    kind: str,
    planned: Sequence[PlannedStep],
    found: ClusterView,
) -> None:
    """Refuse what could not be done now, before anything is on record.

    Raises:
        Unsafe: a quorum would be lost, or a server is down.
        CliError: as the leader refuses a replacement.
    """
    leaving = () if kind == ROLLING_RESTART else [each.step.name for each in planned]
    for each in planned:
        barrier = obstacle(found, each.step.name, stops=kind == ROLLING_RESTART, leaving=leaving)
        if barrier is not None and barrier.unsafe:
            raise Unsafe(
                f"{exchange(each.step)}: not now",
                cause=f"{barrier.words}; nothing was begun",
                hint=barrier.hint or context.command("status"),
            )
    if kind == ROLLING_REPLACE:
        for each in planned:
            _examine(cluster, each.step, found)


def _examine(cluster: Cluster, step: RollingStep, found: ClusterView) -> None:
    """Have the leader look at a replacement as it would be now."""
    assert found.configuration is not None
    name, address = parse_member_argument(step.replacement)
    learners = {server_name(server) for server in found.configuration.learners}
    request = ChangeRequest(
        session="",
        serial=0,
        kind="replace",
        changes=(
            MemberChange(role="remove", name=step.name),
            MemberChange(
                role="learner" if step.name in learners else "voter", name=name, address=address
            ),
        ),
        author=author(),
        dry_run=True,
    )
    expect(cluster.ask(request, reply_timeout_ms=CHANGE_REPLY_TIMEOUT_MS), ChangeReply)


def _first_command(planned: Sequence[PlannedStep], found: ClusterView, command: str) -> str:
    """Return the command of the first step as the shell gets it; empty where there is none."""
    name = planned[0].step.name
    row = next((row for row in found.rows if row.member and row.name == name), None)
    return expand(command, name, row.address) if command and row is not None else ""


def _print_plan(
    context: Context, kind: str, planned: Sequence[PlannedStep], command: str, first_command: str
) -> None:
    if context.structured:
        context.print_document(plan_document(kind, planned, command), one_line=True)
        return
    style = Style(context.use_color(sys.stdout))
    width = terminal_width(sys.stdout)
    click.echo(plan_text(kind, planned, command, style, width, first_command=first_command))
    click.echo("nothing was changed")


# --- go on ------------------------------------------------------------------------------------


@rolling.command()
@click.argument("operation", required=False, metavar="[OP]", shell_complete=operations)
@pass_context
def resume(context: Context, operation: str | None) -> None:
    """Go on with a rolling operation that was paused, or whose raftctl is gone. Asks first.

    What is done is not done again. A server whose restart was under way is asked how long it runs;
    if nobody can tell whether it was restarted, that is done again, which does no harm.

    \b
    Examples:
      raftctl rolling resume
      raftctl rolling resume op-17 --yes
    """
    context.require_answerable()
    cluster = context.cluster()
    record = running_rolling(cluster, _normalised(operation))
    going_on = rolling_of(record)
    now_ms = _now_ms(cluster)
    if context.yes:
        is_fresh = going_on.changed_ms and now_ms - going_on.changed_ms < IDLE_MS
        if is_fresh and not going_on.paused_by:
            # On stderr with JSON, too: two drivers are no small matter.
            click.echo(
                f"the raftctl that drove {record.id} ({printable(going_on.driver)}) may be alive"
                f"{_idle(going_on.changed_ms, now_ms)}; its next update will be refused, "
                "and then it stops",
                err=True,
            )
    else:
        style = Style(context.use_color(sys.stderr))
        click.echo(f"{record.id}: {rolling_summary(record)}, {who_drives(going_on)}", err=True)
        click.echo(steps_table(going_on, style, terminal_width(sys.stderr)), err=True)
        if going_on.command:
            click.echo(f"command: {printable(going_on.command)}", err=True)
        if not going_on.paused_by:
            click.echo(
                f"if that raftctl still runs, it stops{_idle(going_on.changed_ms, now_ms)}",
                err=True,
            )
        context.confirm(f"{left_over(going_on.steps)}. Go on?")
    _drive(context, cluster, update_newest(cluster, record, "resume"), Look(cluster))


def _idle(changed_ms: int, now_ms: float) -> str:
    """Return how long a record has not been changed, as far as clocks agree."""
    idle_ms = now_ms - changed_ms
    return f"; its last change was {duration(idle_ms)} ago" if changed_ms and idle_ms > 0 else ""


def _now_ms(cluster: Cluster) -> float:
    """Return the leader's wall clock, which records have their times from; ours if none answers."""
    clock_ms = 0
    with contextlib.suppress(Unreachable):
        clock_ms = cluster.leader_status(
            deadline=cluster.deadline().or_after_ms(CONFIGURATION_TIMEOUT_MS)
        ).wall_clock_ms
    return clock_ms or time.time() * 1000


@rolling.command()
@click.argument("operation", required=False, metavar="[OP]", shell_complete=operations)
@click.option("--reason", default="", metavar="TEXT", help="Kept in the record.")
@pass_context
def pause(context: Context, operation: str | None, reason: str) -> None:
    """Begin no further step; other changes of members may begin meanwhile.

    A step that is under way goes on: raftctl operation abort undoes its change.

    \b
    Examples:
      raftctl rolling pause
      raftctl rolling pause op-17 --reason "the release is being looked at"
    """
    cluster = context.cluster()
    record = running_rolling(cluster, _normalised(operation))
    if rolling_of(record).paused_by:
        context.message(f"{record.id} is {who_drives(rolling_of(record))} already")
    else:
        record = update_newest(cluster, record, "pause", reason=reason).operation
    under_way = [step for step in rolling_of(record).steps if step.state == RUNNING]
    for step in under_way:
        what = f": {step.operation} goes on" if step.operation else ""
        context.message(f"the step of {exchange(step)} is under way{what}")
    if context.structured:
        context.print_document(_document(record), one_line=True)
    else:
        click.echo(f"{record.id} is paused, {counted(rolling_of(record))}")
        context.message(f"go on: {context.command(f'rolling resume {record.id}')}")


@rolling.command()
@click.argument("operation", required=False, metavar="[OP]", shell_complete=operations)
@click.option("--reason", default="", metavar="TEXT", help="Kept in the record.")
@pass_context
def abort(context: Context, operation: str | None, reason: str) -> None:
    """End a rolling operation for good. Asks first.

    What is done stays. The change that is its step now is undone, as long as that is still safe.

    \b
    Example:
      raftctl rolling abort op-17 --reason "wrong release"
    """
    context.require_answerable()
    cluster = context.cluster()
    record = running_rolling(cluster, _normalised(operation))
    abort_rolling(context, cluster, record, reason)


def abort_rolling(context: Context, cluster: Cluster, record: Operation, reason: str) -> None:
    """Ask, end a rolling operation, and see what becomes of the change that is its step now."""
    if not context.yes:
        style = Style(context.use_color(sys.stderr))
        click.echo(
            f"{record.id}: {rolling_summary(record)}, {who_drives(rolling_of(record))}", err=True
        )
        click.echo(steps_table(rolling_of(record), style, terminal_width(sys.stderr)), err=True)
        undone = ", and the change under way is undone" if record.kind == ROLLING_REPLACE else ""
        context.confirm(f"What is done stays{undone}. End it?")
    expect(
        # Asking twice does nothing twice; and while joint, a session may not be to be had.
        cluster.ask(
            AbortRequest(session="", serial=0, operation=record.id, author=author(), reason=reason)
        ),
        AbortReply,
    )
    under_way = [step for step in rolling_of(record).steps if step.state == RUNNING]
    for step in under_way:
        if step.operation:
            child = watch(context, cluster, step.operation).record
            went = "went through" if child.result == DONE else "was undone"
            context.message(f"{step.operation}, its step, {went}")
        else:
            context.message(f"the restart of {step.name} may be under way: look at {step.name}")
    ended = read_record(cluster, record.id) or record
    _print_end(context, cluster, ended)


@rolling.command()
@click.argument("operation", required=False, metavar="[OP]", shell_complete=operations)
@pass_context
def show(context: Context, operation: str | None) -> None:
    """Show a rolling operation and its steps; without OP the one that runs.

    \b
    Example:
      raftctl rolling show
    """
    cluster = context.cluster()
    wanted = _normalised(operation)
    known = read_record(cluster, wanted) if wanted else None
    is_known = known is not None and known.rolling is not None
    record = known if is_known and known is not None else running_rolling(cluster, wanted)
    if context.structured:
        context.print_document(_document(record))
    else:
        style = Style(context.use_color(sys.stdout))
        resume = context.command(f"rolling resume {record.id}")
        now_ms = _now_ms(cluster) if record.running else 0.0
        click.echo("\n".join(story(record, style, now_ms=now_ms, resume=resume)))


def _normalised(operation: str | None) -> str:
    """Return `op-17` for `17`, too."""
    text = operation or ""
    return f"op-{text}" if text.isdecimal() else text


# --- to the end -------------------------------------------------------------------------------


def _drive(context: Context, cluster: Cluster, record: Record, eyes: Look) -> None:
    """Drive an operation, and print how it ended."""
    screen = screen_for(context)
    try:
        ended = Driver(context, cluster, record, screen, look=eyes.now).run()
    except CliError:
        screen.close()
        if context.structured:
            _print_end(context, cluster, record.operation)
        raise
    screen.close()
    _print_end(context, cluster, ended)


def follow_rolling(context: Context, cluster: Cluster, operation: str) -> None:
    """Show a rolling operation that somebody else drives, until it has ended or is paused.

    Raises:
        Interrupted: Ctrl-C; the operation goes on.
        StillRunning: nothing has moved for `--timeout`, or it is paused.
        CliError: it was aborted, or has failed.
    """
    screen = screen_for(context)
    try:
        record = _follow(context, cluster, operation, screen)
    except KeyboardInterrupt:
        raise detached(context, operation) from None
    finally:
        screen.close()
    _print_end(context, cluster, record)
    if record.result != DONE:
        raise CliError(
            f"{operation} {record.result}; {counted(rolling_of(record))}",
            code=record.result,
            cause=printable(record.explanation),
            hint=context.command(f"rolling show {operation}"),
            operation=operation,
        )


def _follow(context: Context, cluster: Cluster, operation: str, screen: Screen) -> Operation:
    moved_s = time.monotonic()
    before: object = None
    while True:
        record = read_record(cluster, operation)
        moved: object = None
        if record is not None:
            screen.show(record)
            if not record.running:
                return record
            if rolling_of(record).paused_by:
                raise Superseded(record, operation, who_drives(rolling_of(record))).as_error(
                    context
                )
            moved = _movement(cluster, record, screen)
        if moved != before:
            before, moved_s = moved, time.monotonic()
        waited_ms = (time.monotonic() - moved_s) * 1000
        if context.timeout_ms and waited_ms >= context.timeout_ms:
            raise StillRunning(
                f"{operation} made no progress for {duration(context.timeout_ms)}",
                cause=f"the raftctl that drives it may be gone: {who_drives(rolling_of(record))}"
                if record is not None
                else "no leader answers with its record",
                hint=context.command(f"rolling resume {operation}"),
                operation=operation,
            )
        time.sleep(POLL_S)


def _movement(cluster: Cluster, record: Operation, screen: Screen) -> object:
    """Show what the step does that is under way, and return what changes when it moves."""
    rolling_record = rolling_of(record)
    child = next((step.operation for step in rolling_record.steps if step.state == RUNNING), "")
    view = look(cluster, child).view if child else None
    if view is None or not view.record.running:
        return rolling_record.version
    words = [describe_step(view)]
    words += [describe_peer(peer, view.last_index, None) for peer in view.peers]
    screen.doing(f"{child}: {'; '.join(words)}", (view.step, view.index))
    return (rolling_record.version, view.step, view.index, tuple(words))


def _print_end(context: Context, cluster: Cluster, record: Operation) -> None:
    """Print how an operation ended or stands, and the members, or all of it as a document."""
    configuration = _configuration(cluster)
    if context.structured:
        members = configuration_document(configuration) if configuration is not None else None
        context.print_document(_document(record) | {"configuration": members}, one_line=True)
        return
    ended_ms = record.phases[-1].time_ms if not record.running else 0
    took = f" in {duration(max(0, ended_ms - record.phases[0].time_ms))}" if ended_ms else ""
    state = f"{rolling_state(record)}{took}, {counted(rolling_of(record))}"
    ending = f"{record.id} ({rolling_summary(record)}): {state}"
    click.echo(fitted(ending, terminal_width(sys.stdout)))
    if record.kind == ROLLING_REPLACE and configuration is not None:
        click.echo(configuration_table(configuration, width=terminal_width(sys.stdout)))
        if not record.running:
            warn_of_stale_file(context, configuration)
    elif not context.redraws(sys.stderr):
        # On a terminal it stands above already.
        style = Style(context.use_color(sys.stdout))
        click.echo(steps_table(rolling_of(record), style, terminal_width(sys.stdout)))


def _configuration(cluster: Cluster) -> ConfigurationView | None:
    """Return the leader's configuration; None if no leader answers soon."""
    deadline = cluster.deadline().or_after_ms(CONFIGURATION_TIMEOUT_MS)
    try:
        return cluster.leader_status(deadline=deadline).configuration
    except Unreachable:
        return None


def _document(record: Operation) -> dict[str, Any]:
    return {
        "operation": record.id,
        "result": rolling_state(record),
        "kind": record.kind,
        "summary": rolling_summary(record),
        "author": record.author,
        "reason": record.reason,
        "explanation": record.explanation,
        **rolling_document(record),
    }
