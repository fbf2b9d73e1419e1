"""plan, diff, apply: from the cluster as it is to the cluster as a file says.

The file is the whole wish: its servers, their roles and their addresses. The leader compares it
with the cluster and works out the change, at most one joint one, whatever the number of servers.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from raftctl.cli import Context, pass_context
from raftctl.cluster_files import again, cluster_file_at_hand
from raftctl.commands.membership import (
    Asks,
    ChangeOptions,
    carry_out,
    change_options,
    change_request,
    preflight,
    print_plan,
    zones_of,
)
from raftctl.endpoints import load_cluster_file, servers_of
from raftctl.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_USAGE,
    CliError,
    Refused,
    Unreachable,
)
from raftctl.plan_text import Member, differences, differences_text, members_by_name
from raftctl.render import Style, configuration_document, printable
from raftd.core.types import server_name
from raftd.protocol import ChangeRequest, ConfigurationView, TargetMember

if TYPE_CHECKING:
    from raftd.config import ClusterConfig

_file_option = click.option(
    "-f",
    "--file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The cluster file: the cluster as it is to be.",
)
NO_OPTIONS = ChangeOptions(dry_run=True, no_wait=False, reason="", at_index=None)


@click.command()
@_file_option
@pass_context
def plan(context: Context, file: Path) -> None:
    """Show what would make the cluster as FILE says, and change nothing.

    The leader works it out against the live cluster: the difference, the phases with the servers
    that have to agree in each, what each survives, what is copied, and how long it takes. Without
    --config and --endpoints the servers of FILE are dialled.

    \b
    Examples:
      raftctl plan -f cluster.yaml
      raftctl plan -f cluster.yaml -o json
    """
    wish = _looked_up(context, file)
    cluster = context.cluster()
    reply = preflight(cluster, _request(context, wish.config, NO_OPTIONS))
    if reply.plan is not None:
        words = with_file("apply", wish.config.path)
        then = f"{wish.prefix} {words} --at-index {reply.plan.before.index}"
        print_plan(context, reply.plan, then)
        return
    configuration = cluster.leader_status().configuration
    assert configuration is not None, "a leader has a configuration"
    if context.structured:
        document = {
            "operation": None,
            "result": "unchanged",
            "configuration": configuration_document(configuration),
            "plan": None,
        }
        context.print_document(document, one_line=True)
    else:
        click.echo(f"no changes: {printable(reply.nothing_to_do)}")


@click.command()
@_file_option
@pass_context
def diff(context: Context, file: Path) -> int:
    """Compare the cluster with FILE. Exits with 0 if they are the same, with 1 if not.

    Only the members count, with their roles and addresses: the other settings are those of each
    server. Without --config and --endpoints the servers of FILE are dialled.

    \b
    Example:
      raftctl diff -f cluster.yaml
    """
    try:
        wish = _looked_up(context, file)
    except CliError as error:
        if error.exit_code == EXIT_FAILED:
            # That would say that there are differences.
            error.exit_code = EXIT_USAGE
        raise
    configuration = wish.configuration
    found = differences(members_by_name(configuration), _members(wish.config))
    if configuration.joint:
        context.message("a change is under way: compared with what it leads to")
    if context.structured:
        document = {
            "same": not found,
            "differences": [one.document() for one in found],
            "configuration": configuration_document(configuration),
        }
        context.print_document(document, one_line=True)
    else:
        style = Style(context.use_color(sys.stdout))
        for line in differences_text(found, style):
            click.echo(line, color=True)
    return EXIT_FAILED if found else EXIT_DONE


@click.command()
@_file_option
@change_options
@pass_context
def apply(context: Context, file: Path, options: ChangeOptions) -> None:
    """Make the cluster as FILE says, by one change. Asks first if a server goes.

    Servers that are new in FILE have to run and to be blank. Applying the same file again changes
    nothing. Without --config and --endpoints the servers of FILE are dialled.

    \b
    Examples:
      raftctl apply -f cluster.yaml
      raftctl apply -f cluster.yaml --at-index 4182 --reason "move to the new rack"
    """
    wish = _looked_up(context, file)
    if options.at_index not in (None, wish.configuration.index):
        raise Refused(
            f"the configuration has moved since index {options.at_index}",
            code="moved",
            cause=f"the latest configuration is at index {wish.configuration.index}, not "
            f"{options.at_index}, and what was planned for that one may be something else now; "
            "nothing was changed",
            hint=f"{wish.prefix} {with_file('plan', wish.config.path)}",
        )
    request = _request(context, wish.config, options)
    carry_out(context, request, options, asks=Asks.IF_IT_TAKES_AWAY, shows=True, file=wish.config)


# --- the file and the cluster -------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Wish:
    """The cluster as it is to be, and as it is."""

    config: ClusterConfig
    configuration: ConfigurationView
    """The latest one, as the leader has it."""
    prefix: str
    """`raftctl`, and what the command line says about where to dial."""


def with_file(word: str, file: Path) -> str:
    """Return the words of a command that takes a cluster file."""
    return f"{word} -f {shlex.quote(str(file))}"


def _looked_up(context: Context, file: Path) -> _Wish:
    """Return the wanted cluster, and the live one that is to become it.

    Raises:
        UsageProblem: the file is wrong.
        Unreachable: no leader answers.
        Refused: it is the file of another cluster.
    """
    config = load_cluster_file(file)
    prefix = context.command("").rstrip()
    context.dial(servers_of(config), file)
    try:
        status = context.cluster().leader_status()
    except Unreachable as error:
        if error.code == "blank":
            raise _all_blank(context, config, error) from None
        raise
    configuration = status.configuration
    assert configuration is not None, "a leader has a configuration"
    if status.cluster_name not in ("", config.cluster):
        raise Refused(
            f"{file} describes the cluster {config.cluster}, but {status.cluster_name} answers",
            code="other-cluster",
            cause=f"{server_name(status.server)} leads the cluster {status.cluster_name} (id "
            f"{status.cluster_id}); a cluster keeps its name, and nothing was changed",
            hint=f"raftctl -e {configuration.addresses[status.server]} config export",
        )
    return _Wish(config=config, configuration=configuration, prefix=prefix)


def _all_blank(context: Context, config: ClusterConfig, error: Unreachable) -> Unreachable:
    """Return what to say where no server that was asked belongs to a cluster yet.

    A cluster that is to move comes first: to found another one of its name would be the mistake.
    """
    live = cluster_file_at_hand(context, config)
    founding = f"raftctl -c {shlex.quote(str(config.path))} init"
    return Unreachable(
        "there is no cluster yet: every server that was asked is blank",
        code="blank",
        cause=f"{error.cause}\nif a cluster is to move to them, it is reached through its own file",
        hint=f"{again(context, live or 'LIVE-FILE')}\n"
        f"or found a NEW cluster of the servers of {config.path}: `{founding}`",
    )


def _request(context: Context, config: ClusterConfig, options: ChangeOptions) -> ChangeRequest:
    target = [
        TargetMember(name=server.id, role=server.role, address=server.address)
        for server in config.servers.values()
    ]
    return change_request(context, "apply", options, target=target, zones=zones_of(config))


def _members(config: ClusterConfig) -> dict[str, Member]:
    return {
        server.id: Member(name=server.id, role=server.role, address=server.address)
        for server in config.servers.values()
    }
