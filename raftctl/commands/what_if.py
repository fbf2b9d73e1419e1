"""`raftctl what-if`: what would become of the cluster if servers failed or were removed."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Collection, Sequence

import click

from raftctl.cli import Context, pass_context
from raftctl.commands.status import layout_of
from raftctl.completing import members
from raftctl.errors import (
    EXIT_DONE,
    EXIT_UNSAFE,
    Refused,
    Unreachable,
    Unsafe,
    UsageProblem,
)
from raftctl.render import listed, natural_key, printable
from raftctl.status import observe
from raftctl.status_text import prospects
from raftctl.what_if import Assumption, members_in, members_named, predict, predict_each
from raftctl.what_if_text import document, text
from raftd.cluster_status.view import ClusterView
from raftd.core.types import ServerId


@click.command(name="what-if")
@click.option(
    "--lose", multiple=True, metavar="ID,...", shell_complete=members(), help="Servers that fail."
)
@click.option(
    "--lose-zone",
    "--zone",
    "zones",
    multiple=True,
    metavar="NAME,...",
    help="Zones that fail with all of their servers.",
)
@click.option(
    "--remove",
    multiple=True,
    metavar="ID,...",
    shell_complete=members(),
    help="Members that are removed first, by one joint change.",
)
@pass_context
def what_if(
    context: Context, lose: tuple[str, ...], zones: tuple[str, ...], remove: tuple[str, ...]
) -> int:
    """Say what would become of the cluster if servers failed, or were removed. Changes nothing.

    It is worked out from how the live cluster is now: servers that are down count as lost, both
    halves of a joint configuration need their majority, and a majority that lags has to catch up
    before writes go on. Without options: how it is now, and what the loss of each server and of
    each zone would do.

    Exits with 0 if writes go on, if only after an election or after a server has caught up; with 6
    if a quorum would be lost, or a removal would be refused, as that of all voters is; with 2 for
    a name that nobody has, or no name at all.

    \b
    Examples:
      raftctl what-if
      raftctl what-if --lose n1,n4
      raftctl what-if --remove n2 --lose n1
      raftctl what-if --lose-zone east -o json
    """
    for option, values in (("--lose", lose), ("--lose-zone", zones), ("--remove", remove)):
        if values and not _words(values):
            raise UsageProblem(
                f"{option} names nobody",
                cause="it takes names with commas between them",
                hint=context.command("what-if --help"),
            )
    cluster = observe(context.dialled(), context.timeout_ms, context.command)
    _check_known(context, cluster)
    assumption = _assumption(context, cluster, _words(lose), _words(zones), _words(remove))
    prediction = predict(cluster, assumption)
    each = [] if assumption.lost or assumption.removed else predict_each(cluster)
    if context.structured:
        context.print_document(document(prediction, each, cluster))
    else:
        lines = text(prediction, each, cluster, layout_of(context))
        click.echo("\n".join(lines), color=context.use_color(sys.stdout))
    return EXIT_DONE if prediction.goes_on else EXIT_UNSAFE


def _words(values: Sequence[str]) -> list[str]:
    """Return the words of an option that may come several times and takes several with commas."""
    words = [word.strip() for value in values for word in value.split(",")]
    return list(dict.fromkeys(word for word in words if word))


def _check_known(context: Context, cluster: ClusterView) -> None:
    if cluster.configuration is not None:
        return
    if not cluster.answered:
        raise Unreachable(
            "no server answers, so nobody can say how the cluster is",
            cause="; ".join(
                printable(f"{row.name}: {issue.words}")
                for row in cluster.rows
                for issue in row.issues
            ),
            hint=context.command("status"),
        )
    raise Refused(
        "there is no cluster to lose servers of",
        code="no-cluster",
        cause=printable(prospects(cluster)),
        hint=context.command("status"),
    )


def _assumption(
    context: Context,
    cluster: ClusterView,
    lose: Sequence[str],
    zones: Sequence[str],
    remove: Sequence[str],
) -> Assumption:
    lost = _resolve(context, cluster, "--lose", lose) | _resolve_zones(context, cluster, zones)
    removed = _resolve(context, cluster, "--remove", remove)
    both = sorted({cluster.names[server] for server in lost & removed}, key=natural_key)
    if both:
        raise UsageProblem(
            f"{listed(both)} cannot be lost after {'it was' if len(both) == 1 else 'they were'} "
            "removed",
            cause="the removal is thought to come first, and who is removed does not count any "
            "more",
            hint=context.command(f"what-if --remove {','.join(both)}"),
        )
    configuration = cluster.configuration
    assert configuration is not None
    if removed and removed >= set(configuration.voters):
        raise Unsafe(
            "a cluster cannot do without voters",
            code="no-voters",
            cause=f"{listed(sorted((cluster.names[each] for each in removed), key=natural_key))} "
            "would leave nobody that has a vote",
            hint=context.command("status"),
        )
    return Assumption(lost=lost, removed=removed, lost_zones=tuple(zones))


def _resolve(
    context: Context, cluster: ClusterView, option: str, names: Sequence[str]
) -> frozenset[ServerId]:
    found: set[ServerId] = set()
    for name in names:
        servers = members_named(cluster, name)
        if not servers:
            known = sorted({row.name for row in cluster.members}, key=natural_key)
            raise _unknown(context, f"{name} is no member", "members", name, known, option)
        found |= servers
    return frozenset(found)


def _resolve_zones(
    context: Context, cluster: ClusterView, zones: Sequence[str]
) -> frozenset[ServerId]:
    known = sorted(set(cluster.zones.values()), key=natural_key)
    for zone in zones:
        if zone not in known:
            message = f"no member is in a zone {zone}"
            raise _unknown(context, message, "zones", zone, known, "--lose-zone")
    return members_in(cluster, zones)


def _unknown(
    context: Context,
    message: str,
    kind: str,
    word: str,
    known: Collection[str],
    option: str,
) -> UsageProblem:
    close = difflib.get_close_matches(word, known, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    cause = f"the {kind} are {listed(known)}{meant}" if known else f"there are no {kind}"
    example = close[0] if close else next(iter(known), "")
    return UsageProblem(
        printable(message),
        code="unknown-name",
        cause=printable(cause),
        hint=context.command(f"what-if {option} {shlex.quote(example)}" if example else "what-if"),
    )
