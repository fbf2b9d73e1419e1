"""`raftctl playground`: a cluster of real processes, and `kill` and `start` for its servers."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import click

from raftctl.cli import CommandGroup, Context, pass_context
from raftctl.client import Cluster, author, playground_file
from raftctl.completing import playground_servers
from raftctl.endpoints import CLUSTER_FILE_DEFAULT, Endpoints, resolve_endpoints
from raftctl.errors import EXIT_DONE, EXIT_FAILED, CliError, Refused, Unreachable
from raftctl.forming import Forming, form_cluster
from raftctl.load import CLIENTS_MAX, Load, Sample
from raftctl.playground import (
    SERVERS_COUNT_MAX,
    Event,
    Playground,
    ask,
    is_running,
    last_line,
    read_runtime_file,
)
from raftctl.render import plural
from raftctl.status import observe
from raftctl.survey import survey
from raftd.cluster_status.view import ClusterView, Health
from raftd.core.types import server_name
from raftd.protocol import ChangeRequest

START_TIMEOUT_S = 30.0
"""Until a new cluster is healthy. It takes one or two seconds; a busy machine is given time."""
POLL_INTERVAL_S = 0.03
"""Short, since somebody is waiting for the first line."""
ANSWER_TIMEOUT_MS = 1000.0
"""For each server in one look; they are on this machine."""
SERVER_FIELDS = ("id", "address", "http", "redis", "pid")
"""What is said of a server that was started or killed."""


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.option(
    "--servers",
    "servers_count",
    type=click.IntRange(1, SERVERS_COUNT_MAX),
    default=3,
    metavar="N",
    help="How many servers. Default: 3.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where cluster file, data and logs go; a playground that was kept there goes on. "
    "Default: a new temporary folder.",
)
@click.option("--keep", is_flag=True, help="Keep the folder when the playground ends.")
@pass_context
def playground(context: Context, servers_count: int, directory: Path | None, keep: bool) -> int:
    """Run a cluster of real processes on this machine.

    Stays in the foreground; Ctrl-C ends all servers and deletes their data unless --keep is
    given. Meanwhile every other raftctl command finds the cluster by itself.

    \b
    Examples:
      raftctl playground
      raftctl playground --servers 5 --dir /tmp/five --keep
      raftctl playground kill n1
    """
    if click.get_current_context().invoked_subcommand is not None:
        return EXIT_DONE
    started_s = time.monotonic()
    with Playground(
        runtime_file=playground_file(),
        directory=directory,
        servers_count=servers_count,
        keep=keep,
        report=lambda event: _print_event(context, event),
    ) as running:
        running.start_all()
        cluster = _form(running)
        running.publish()
        _print_ready(context, running, cluster, time.monotonic() - started_s)
        running.serve()
        context.message("ending all servers ...")
    if running.keep:
        again = shlex.join([*_program(), "playground", "--dir", str(running.directory)])
        context.message(f"kept in {running.directory}; to go on: {again}")
    return EXIT_DONE


@playground.command()
@click.argument("server_id", metavar="ID", shell_complete=playground_servers)
@pass_context
def kill(context: Context, server_id: str) -> None:
    """End a server of the playground with SIGKILL, as a crash would.

    \b
    Example:
      raftctl playground kill n1
    """
    killed = ask(playground_file(), "kill", server_id)
    if context.structured:
        context.print_document({field: killed.get(field) for field in SERVER_FIELDS})
    else:
        click.echo(f"{server_id} was killed (process {killed['pid']})")


@playground.command()
@click.argument("server_id", metavar="ID", shell_complete=playground_servers)
@pass_context
def start(context: Context, server_id: str) -> None:
    """Start a server of the playground again, or a new, blank one, and print ID=HOST:PORT.

    A new one gets a free port and a line in the playground's cluster file. It belongs to the
    cluster only once it is added, or replaces another one.

    \b
    Examples:
      raftctl playground start n1
      raftctl replace n1 "$(raftctl playground start n4)"
    """
    started = ask(playground_file(), "start", server_id)
    _wait_for_answer(started)
    if context.structured:
        context.print_document({field: started.get(field) for field in SERVER_FIELDS})
    else:
        click.echo(f"{server_id}={started['address']}")


@playground.command()
@click.option(
    "--clients",
    type=click.IntRange(1, CLIENTS_MAX),
    default=4,
    metavar="N",
    help="Clients that write at the same time. Default: 4.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 86_400),
    default=None,
    metavar="N",
    help="Stop after so long. Default: at Ctrl-C.",
)
@pass_context
def load(context: Context, clients: int, seconds: int | None) -> int:
    """Write without a pause, and show each second what the writers notice.

    At the end every key is read back: an acknowledged write that is not there is an error. Change
    the cluster meanwhile, in another terminal.

    \b
    Examples:
      raftctl playground load
      raftctl playground load --clients 16 --seconds 30
    """
    endpoints = _playground_endpoints(context)
    load = Load(lambda: Cluster(endpoints, timeout_ms=context.timeout_ms), clients)
    click.get_current_context().call_on_close(load.close)
    load.start()
    before = load.sample()
    try:
        while seconds is None or before.seconds < seconds:
            time.sleep(1)
            now = load.sample()
            context.message(_load_line(before, now))
            before = now
            failure = load.failure()
            if failure is not None:
                raise failure
    except KeyboardInterrupt:
        pass
    total = load.stop()
    lost = load.missing()
    if context.structured:
        context.print_document({**attrs.asdict(total), "lost": lost}, one_line=True)
    else:
        click.echo(
            f"{total.acknowledged:,} writes acknowledged in {total.seconds:.0f}s, the longest gap "
            f"{total.longest_gap_ms:.0f} ms; "
            + (f"{len(lost)} LOST" if lost else "every one of them is there")
        )
        for line in lost:
            click.echo(line)
    return EXIT_FAILED if lost else EXIT_DONE


def _playground_endpoints(context: Context) -> Endpoints:
    """Return where to write: the running playground, unless the command line says otherwise.

    Never a cluster.yaml that happens to be near: nobody floods production by mistake.

    Raises:
        Unreachable: no playground is running.
    """
    if context.was_given("config_path") or context.was_given("endpoints"):
        return context.dialled()
    found = read_runtime_file(playground_file())
    if found is None or not is_running(playground_file()):
        raise Unreachable(
            "no playground is running",
            code="no-playground",
            cause="nothing was sent; -c or -e would name another cluster to write to",
            hint="raftctl playground",
        )
    return resolve_endpoints(endpoints=(), config_path=Path(found["config"]))


def _load_line(before: Sample, now: Sample) -> str:
    rate = (now.acknowledged - before.acknowledged) / (now.seconds - before.seconds)
    line = (
        f"{now.seconds:4.0f}s  {now.acknowledged:>9,} acknowledged  {rate:>7,.0f}/s  "
        f"longest gap {now.longest_gap_ms:5.0f} ms"
    )
    return line + (f"  {plural(now.waiting, 'client')} waiting" if now.waiting else "")


def _wait_for_answer(started: dict[str, Any]) -> None:
    """Return when the server answers.

    Raises:
        CliError: it has ended, or it does not answer in time.
    """
    endpoints = Endpoints(addresses=(started["address"],), source="the playground")
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while survey(endpoints, ANSWER_TIMEOUT_MS)[0].reply is None:
        found = read_runtime_file(playground_file())
        processes = {each["id"]: each["pid"] for each in found["servers"]} if found else {}
        if processes.get(started["id"]) != started["pid"]:
            log = Path(found["dir"]) / "logs" / f"{started['id']}.log" if found else None
            raise CliError(
                f"{started['id']} has ended right after its start",
                cause=(_message(last_line(log)) if log else "") or "it said nothing",
                hint=(f"read {log}, then " if log else "")
                + f"`raftctl playground start {started['id']}`",
            )
        if time.monotonic() > deadline_s:
            raise CliError(
                f"{started['id']} runs, but does not answer on {started['address']}",
                cause=f"process {started['pid']}, {START_TIMEOUT_S:.0f} seconds after its start",
                hint="raftctl status",
            )
        time.sleep(POLL_INTERVAL_S)


def _message(line: str) -> str:
    """Return what a line of a server's log says; a line that is none, such as of Python, as it is.

    Servers of the playground log one JSON object a line.
    """
    try:
        record = json.loads(line)
    except ValueError:
        return line
    return str(record["message"]) if isinstance(record, dict) and "message" in record else line


# --- forming the cluster -----------------------------------------------------------------------


def _form(running: Playground) -> ClusterView:
    """Make one healthy cluster of the servers that were just started, and return how it is.

    Raises:
        CliError: a server has ended, or it takes too long.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    endpoints = Endpoints(
        addresses=tuple(server.address for server in running.servers.values()),
        source="the playground",
    )
    while any(answer.reply is None for answer in survey(endpoints, ANSWER_TIMEOUT_MS)):
        if _go_on_waiting(running, deadline_s, "listens"):
            # A kept playground: who was removed from the cluster has stopped, and stays so.
            alive = [each.address for each in running.servers.values() if each.process]
            endpoints = attrs.evolve(endpoints, addresses=tuple(alive))
    try:
        _init(running)
    except Refused as refusal:
        # A kept playground may have any members, and a change under way; that is no obstacle.
        if not running.resumed or refusal.code not in ("formed", "operation-running"):
            raise
    while True:
        cluster = observe(endpoints, ANSWER_TIMEOUT_MS)
        if cluster.health is Health.HEALTHY or (running.resumed and cluster.leader is not None):
            return cluster
        _go_on_waiting(running, deadline_s, "is healthy")


def _go_on_waiting(running: Playground, deadline_s: float, goal: str) -> bool:
    """Wait a moment, and return whether a server has ended that may.

    Raises:
        CliError: one has ended that may not, or time is up.
    """
    removed = False
    for event in running.reap():
        if event.kind == "removed":
            removed = True
            continue
        # Whoever looks for the reason needs the logs.
        running.keep = True
        raise CliError(
            "the playground could not be started",
            cause=event.text,
            hint=f"read {running.log_file('n1').parent}, then `raftctl playground`",
        )
    if time.monotonic() > deadline_s:
        running.keep = True
        raise CliError(
            "the playground could not be started",
            cause=f"not every server {goal} after {START_TIMEOUT_S:.0f} seconds",
            hint=f"read {running.log_file('n1').parent}, then `raftctl playground`",
        )
    time.sleep(POLL_INTERVAL_S)
    return removed


def _init(running: Playground) -> None:
    """Do what `raftctl init` does with the playground's cluster file; return when it has begun."""
    context = Context()
    context.set_option("config_path", running.config, from_command_line=True)
    # For a program: what it would tell a person on the way is not worth telling here.
    context.set_option("output", "json", from_command_line=True)
    plan: Forming = form_cluster(context, dry_run=False)
    if not plan.changes:
        return
    request = ChangeRequest(
        session="",
        serial=0,
        kind="init",
        changes=plan.changes,
        author=author(),
        reason="playground",
    )
    context.cluster().write(
        lambda session, serial, lowest: attrs.evolve(request, session=session, serial=serial)
    )


# --- what is printed ---------------------------------------------------------------------------


def _print_ready(
    context: Context, running: Playground, cluster: ClusterView, took_s: float
) -> None:
    if context.structured:
        ready = {
            "type": "ready",
            "config": str(running.config),
            "servers": [server.document() for server in running.servers.values()],
        }
        click.echo(json.dumps(ready))
        return
    fate = "kept" if running.keep else "deleted at the end; --keep keeps it"
    servers = plural(len(running.servers), "server")
    click.echo(f"raftd playground: {servers} in {running.directory} ({fate})")
    leader = server_name(cluster.leader.server) if cluster.leader is not None else ""
    for server in running.servers.values():
        mark = "*" if server.id == leader else " "
        state = f"pid {server.pid}" if server.pid is not None else "stopped"
        redis = f"  redis {server.redis}" if server.redis else ""
        click.echo(f"  {server.id}{mark}  {server.address}{redis}  {state}")
    click.echo(f"{leader} leads; ready after {took_s:.1f}s.{_watch_words(running, leader)}")
    click.echo("In another terminal:")
    for command in next_commands(running, leader):
        click.echo(f"  {command}")
    click.echo("Ctrl-C ends all servers.")


def _watch_words(running: Playground, leader: str) -> str:
    """Return where a browser shows how the cluster is: on the leader's page, else on any."""
    server = running.servers.get(leader)
    pages = [each.page for each in (server, *running.servers.values()) if each and each.page]
    return f" Watch it in a browser: {pages[0]}" if pages else ""


def next_commands(running: Playground, leader: str) -> list[str]:
    """Return three commands that can be pasted into another terminal as they are.

    The running playground is found without a flag, unless something there names another cluster.
    """
    program = shlex.join(_program())
    named = CLUSTER_FILE_DEFAULT.exists() or any(
        os.environ.get(name) for name in ("RAFTCTL_CONFIG", "RAFTCTL_ENDPOINTS")
    )
    flags = f" -c {shlex.quote(str(running.config))}" if named else ""
    new = f"n{max(_number(server_id) for server_id in running.servers) + 1}"
    return [
        f"{program}{flags} playground load",
        f"{program}{flags} status --watch",
        f'{program}{flags} replace {leader} "$({program} playground start {new})"',
    ]


def _number(server_id: str) -> int:
    digits = server_id.removeprefix("n")
    return int(digits) if digits.isdecimal() else 0


def _program() -> list[str]:
    """Return how to run this raftctl from anywhere, as short as that can be."""
    own = Path(sys.argv[0])
    if own.name != "raftctl":
        return [sys.executable, "-m", "raftctl"]
    found = shutil.which("raftctl")
    if found is not None and Path(found).resolve() == own.resolve():
        return ["raftctl"]
    return [str(own.absolute())]


def _print_event(context: Context, event: Event) -> None:
    if context.structured:
        click.echo(json.dumps(event.document()))
    else:
        click.echo(event.text, err=True)
