"""`raftctl config`: check, explain and write cluster files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftctl.cli import CommandGroup, Context, pass_context
from raftctl.errors import EXIT_USAGE, CliError, Refused, UsageProblem

if TYPE_CHECKING:
    from raftctl.endpoints import Endpoints
    from raftd.config import ClusterConfig
    from raftd.protocol import ConfigurationView

_file_argument = click.argument(
    "file", required=False, type=click.Path(path_type=Path), metavar="[FILE]"
)


@click.group(cls=CommandGroup)
def config() -> None:
    """Check, show or export cluster files.

    \b
    Example:
      raftctl config validate cluster.yaml
    """


@config.command()
@_file_argument
@pass_context
def validate(context: Context, file: Path | None) -> None:
    """Check a cluster file and name everything that is wrong with it.

    Without FILE it is that of --config, else ./cluster.yaml, else that of the running
    playground. Exits with 2 if there is a problem.

    \b
    Example:
      raftctl config validate cluster.yaml
    """
    loaded = _load(context, _chosen(context, file))
    voters = [name for name, server in loaded.servers.items() if server.role == "voter"]
    learners = [name for name, server in loaded.servers.items() if server.role == "learner"]
    tolerance = (len(voters) - 1) // 2
    if context.structured:
        context.print_document(
            {
                "file": str(loaded.path),
                "valid": True,
                "cluster": loaded.cluster,
                "voters": voters,
                "learners": learners,
                "failure_tolerance": tolerance,
            }
        )
        return
    parts = [_counted(len(voters), "voter")]
    if learners:
        parts.append(_counted(len(learners), "learner"))
    parts.append(f"survives {_counted(tolerance, 'failure') if tolerance else 'no failure'}")
    click.echo(f"{loaded.path}: ok: {', '.join(parts)}")


@config.command()
@_file_argument
@pass_context
def show(context: Context, file: Path | None) -> None:
    """Show what a cluster file means for each server, and where each value comes from.

    The origin is `file` for what stands at the server itself, `defaults` for what it has from the
    defaults of the file, and `default` for what stands nowhere. Without FILE it is that of
    --config, else ./cluster.yaml, else that of the running playground.

    \b
    Example:
      raftctl config show cluster.yaml -o yaml
    """
    from raftd.config import effective

    settings = effective(_load(context, _chosen(context, file)))
    if context.structured:
        context.print_document(settings)
    else:
        click.echo("\n".join(_settings_lines(settings)))


def _write(target: Path, text: str) -> None:
    """Let `target` hold `text`: all of it, or what it held before.

    A shell that redirects to the file empties it before its settings can be read from it.
    """
    temporary = target.with_name(f".{target.name}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CliError(
            f"{target} could not be written",
            code="output-failed",
            cause=f"{error.strerror or error}; it is as it was",
            hint="raftctl config export",
        ) from None


@config.command()
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it to FILE, which may be the file that --config names. Default: stdout.",
)
@pass_context
def export(context: Context, target: Path | None) -> None:
    """Print the cluster file that matches the live cluster.

    The members, their addresses and roles are those of the cluster; zones, Redis and HTTP addresses
    are those that its servers state. What --config says about servers that are still members, and
    its defaults, are kept as they are written there. With `-o json` the same content is JSON, which
    is a cluster file, too.

    \b
    Examples:
      raftctl config export
      raftctl config export --to cluster.yaml
    """
    from raftctl.endpoints import load_cluster_file
    from raftd.config import export as export_text
    from raftd.config import export_document

    cluster = context.cluster()
    status = cluster.leader_status()
    based_on = cluster.endpoints.config
    if based_on is None and context.config_path is not None:
        based_on = load_cluster_file(context.config_path)
    if based_on is not None and status.cluster_name not in ("", based_on.cluster):
        raise UsageProblem(
            f"{based_on.path} describes the cluster {based_on.cluster}, "
            f"but {status.cluster_name} answers there",
            code="other-cluster",
            cause="the settings of one cluster do not belong into the file of another",
            hint="raftctl --endpoints HOST:PORT config export",
        )
    name = status.cluster_name or (based_on.cluster if based_on else "")
    assert status.configuration is not None, "a leader has a configuration"
    if status.configuration.joint:
        context.message("a change is under way: this is how it leaves the cluster if it succeeds")
    members = members_of(status.configuration, tuple(based_on.servers) if based_on else ())
    stated = _stated(status.configuration, cluster.endpoints)
    try:
        if target is not None:
            _write(target, export_text(name, members, based_on, stated))
            context.message(f"{target} is the file that matches the cluster now")
        elif context.output == "json":
            context.print_document(export_document(name, members, based_on, stated))
        else:
            click.echo(export_text(name, members, based_on, stated), nl=False)
    except ValueError as error:
        raise Refused(
            f"the present members do not fit into a cluster file: {error}",
            cause="one incarnation of the name replaces the other and both are members until then",
            hint=context.command("wait --for stable"),
        ) from None


def _stated(configuration: ConfigurationView, dialled: Endpoints) -> dict[str, dict[str, str]]:
    """Return what the members that answer say of themselves: zone and listeners, where they have
    them."""
    from raftctl.endpoints import Endpoints
    from raftctl.survey import survey
    from raftd.core.types import server_name

    members = {*configuration.voters, *configuration.learners, *configuration.learners_next}
    addresses = tuple(configuration.addresses[server] for server in sorted(members))
    answers = survey(Endpoints(addresses=addresses, source="the configuration", tls=dialled.tls))
    return {
        server_name(reply.server): {
            "zone": reply.zone,
            "redis": reply.redis or "",
            "http": reply.http or "",
        }
        for reply in (answer.reply for answer in answers)
        if reply is not None and reply.server in members
    }


def members_of(
    configuration: ConfigurationView, order: tuple[str, ...]
) -> list[tuple[str, str, str]]:
    """Return name, address and role of each member, C_new's while joint.

    The names in `order` come first, the others after them, n2 before n10.
    """
    from raftd.core.types import server_name

    def place(member: tuple[str, str, str]) -> tuple[int, int, str]:
        name = member[0]
        known = order.index(name) if name in order else len(order)
        return known, len(name), name

    roles = dict.fromkeys(configuration.learners + configuration.learners_next, "learner")
    roles |= dict.fromkeys(configuration.voters, "voter")
    return sorted(
        (
            (server_name(server), configuration.addresses[server], role)
            for server, role in roles.items()
        ),
        key=place,
    )


def _settings_lines(settings: dict[str, Any]) -> list[str]:
    """Return the table of `show`: the keys of each server under its name."""
    top = {key: settings[key] for key in ("cluster", "insecure")}
    groups = {settings["file"]: top} | settings["servers"]
    rows = [(key, _cell(entry)) for group in groups.values() for key, entry in group.items()]
    key_width = max(len(key) for key, _ in rows)
    value_width = max(len(value) for _, value in rows)
    lines: list[str] = []
    for title, group in groups.items():
        lines += [""] * bool(lines) + [title]
        lines += [
            f"  {key:<{key_width}}  {_cell(entry):<{value_width}}  {entry['origin']}"
            for key, entry in group.items()
        ]
    return lines


def _cell(entry: dict[str, Any]) -> str:
    value = entry["value"]
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _chosen(context: Context, file: Path | None) -> Path:
    """Return the file that is meant.

    Raises:
        UsageProblem: none was named, and there is no usual one.
    """
    from raftctl.endpoints import CLUSTER_FILE_DEFAULT, running_playground

    chosen = file or context.config_path
    if chosen is None and CLUSTER_FILE_DEFAULT.exists():
        chosen = CLUSTER_FILE_DEFAULT
    if chosen is None:
        chosen = running_playground()
    if chosen is None:
        raise UsageProblem(
            "no cluster file was named",
            cause="neither FILE nor --config was given, there is no cluster.yaml in this folder, "
            "and no playground is running",
            hint=context.again("FILE"),
        )
    return chosen


def _load(context: Context, file: Path) -> ClusterConfig:
    """Return the content of `file`; print its problems and exit with 2 if there are any."""
    from raftd.config import ConfigError, load

    try:
        return load(file)
    except ConfigError as error:
        if context.structured:
            raise UsageProblem(
                f"{file}: {_counted(len(error.problems), 'problem')}",
                code="config",
                cause=str(error),
                hint=f"correct the file, and repeat\n{context.again()}",
            ) from None
        # Each line is the whole message, in the form that editors can jump to.
        click.echo(str(error), err=True)
        click.get_current_context().exit(EXIT_USAGE)
