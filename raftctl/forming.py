"""What `raftctl init` finds and what is left to do: a cluster is formed once, however often asked.

The first voter of the file is bootstrapped: in one durable step it becomes a cluster of its own.
All others are brought in by one membership operation. Whatever was interrupted in between shows in
what the servers say about themselves, so that a repeated `init` goes on from there.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import attrs

from raftctl.cli import Context
from raftctl.client import ConnectionProblem, Deadline, error_of, expect
from raftctl.endpoints import Endpoints
from raftctl.errors import CliError, OutcomeUnknown, Refused, UsageProblem
from raftctl.render import name_list, natural_key, number
from raftctl.survey import survey
from raftd.cluster_status.answers import Answer
from raftd.cluster_status.operations import summary
from raftd.core.types import server_incarnation, server_name
from raftd.protocol import (
    BootstrapReply,
    BootstrapRequest,
    ConfigurationView,
    ErrorReply,
    MemberChange,
    SnapshotId,
    StatusReply,
)

if TYPE_CHECKING:
    from raftd.config import ClusterConfig, ServerConfig

INIT, RESTORE_FILE = "init", "restore FILE"
"""The words of the commands that form a cluster."""
PATIENCE_MS = 3_000.0
"""For servers that were started a moment ago and do not listen yet."""
RETRY_MS = 50.0
"""Between two looks at them: a server takes some 300 ms to listen."""
BOOTSTRAP_TIMEOUT_MS = 10_000.0
"""For one durable step on one server, on the slowest of disks."""


@attrs.frozen(kw_only=True)
class Forming:
    """What is left to do once there is a cluster of at least one server."""

    changes: tuple[MemberChange, ...] = ()
    """Who has to be brought in; empty if nobody."""
    operation: str = ""
    """The operation that is bringing them in already."""
    configuration: ConfigurationView | None = None
    """As found; None if there was no cluster."""
    message: str = ""


def form_cluster(context: Context, *, dry_run: bool) -> Forming:
    """Look at every server of the cluster file, bootstrap the first voter if all are blank.

    Raises:
        Refused: a server is unreachable, not blank, or the cluster is another one than in the
            file; the message names each such server. Nothing was changed.
        OutcomeUnknown: the first voter did not say whether it became a cluster.
    """
    endpoints = context.dialled()
    config = endpoints.config
    if config is None:
        raise UsageProblem(
            "init needs a cluster file: it says which servers belong together",
            cause="--endpoints says only where to dial",
            hint="raftctl init --config cluster.yaml",
        )
    answers = survey_patiently(endpoints, context.timeout_ms)
    members = [answer.reply for answer in answers if answer.reply and answer.reply.cluster_id]
    if members:
        return _go_on(context, config, answers, members)
    refuse_problems(context, config, answers, problems_of(config, answers))
    changes = tuple(
        MemberChange(role=server.role, name=server.id, address=server.address)
        for server in config.servers.values()
        if server.id != first_voter(config).id
    )
    if dry_run:
        first, others = first_voter(config).id, " ".join(change.name for change in changes)
        return Forming(
            changes=changes,
            message=f"all servers are blank; {first} would become the cluster {config.cluster}"
            + (f" and bring in {others} by one change" if others else ""),
        )
    bootstrap(context, config, answers)
    return Forming(changes=changes)


def first_voter(config: ClusterConfig) -> ServerConfig:
    """Return the server that becomes the cluster before it brings in the others."""
    return next(server for server in config.servers.values() if server.role == "voter")


def survey_patiently(endpoints: Endpoints, timeout_ms: float) -> list[Answer]:
    """Ask every server how it is, for a while again where one does not answer yet."""
    deadline = Deadline.after_ms(min(timeout_ms or PATIENCE_MS, PATIENCE_MS))
    while True:
        answers = survey(endpoints, timeout_ms)
        if deadline.expired or all(answer.reply for answer in answers if answer.listed):
            return answers
        time.sleep(RETRY_MS / 1000)


def problems_of(
    config: ClusterConfig, answers: Sequence[Answer], *, held_index: int = 0
) -> dict[str, str]:
    """Return what is wrong with each server of the file that cannot be brought in.

    Args:
        held_index: The first voter may hold the backup that ends with this entry.
    """
    by_address = {answer.address: answer for answer in answers}
    problems = {}
    for server in config.servers.values():
        answer = by_address[server.address]
        if answer.reply is None:
            problems[server.id] = f"{server.id} {server.address}: {answer.failure}"
        elif server_name(answer.reply.server) != server.id:
            problems[server.id] = (
                f"{server.id} {server.address}: {server_name(answer.reply.server)} answers there"
            )
        elif answer.reply.role == "blank" and answer.reply.snapshot_index:
            held = answer.reply.snapshot_index
            if server.id != first_voter(config).id or held != held_index:
                problems[server.id] = (
                    f"{server.id} {server.address}: it holds a backup up to entry {number(held)}, "
                    "and no cluster was made of that yet"
                )
    return problems


def _held_by(
    config: ClusterConfig, answers: Sequence[Answer], problems: Collection[str]
) -> dict[str, int]:
    """Return up to which entry the backup reaches that each of these servers holds."""
    by_address = {answer.address: answer.reply for answer in answers}
    return {
        name: reply.snapshot_index
        for name in problems
        if (reply := by_address[config.servers[name].address]) is not None
        and server_name(reply.server) == name
        and reply.role == "blank"
        and reply.snapshot_index
    }


def refuse_problems(
    context: Context,
    config: ClusterConfig,
    answers: Sequence[Answer],
    problems: Mapping[str, str],
    *,
    command: str = INIT,
) -> None:
    """Raise the refusal that names every server with a problem, if there is one.

    Args:
        command: what is to be repeated afterwards.

    Raises:
        Refused: nothing was changed.
    """
    if not problems:
        return
    held = _held_by(config, answers, problems)
    hints = []
    if len(held) < len(problems):
        then = "" if held else f", then:\n{context.command(command)}"
        start = f"`raftd --config {shlex.quote(str(config.path))} --id ID`"
        hints.append(f"start every server of the file with {start}{then}")
    if held:
        hints += _ways_on(context, config, held, command)
    raise Refused(
        f"{config.cluster} cannot be formed: {' '.join(sorted(problems, key=natural_key))} "
        f"{'is' if len(problems) == 1 else 'are'} not ready",
        code="not-ready" if len(held) < len(problems) else "holds-backup",
        cause="\n".join(problems.values()) + "\nnothing was changed",
        hint="\n".join(hints),
    )


def _ways_on(
    context: Context, config: ClusterConfig, held: Mapping[str, int], command: str
) -> list[str]:
    """Return how to finish the restore that was interrupted, and how to start over without it."""
    names = sorted(held, key=natural_key)
    first = first_voter(config).id
    ways = []
    if names == [first]:
        ways.append(
            f"`{context.command('restore FILE')}`, FILE being the backup up to entry "
            f"{number(held[first])}, finishes the restore that was interrupted"
        )
    elif len(names) == 1:
        ways.append(
            f"list {names[0]} before {first} in the file; then "
            f"`{context.command('restore FILE')}`, FILE being the backup up to entry "
            f"{number(held[names[0]])}, finishes the restore that was interrupted"
        )
    its = "its data directory" if len(names) == 1 else "their data directories"
    it = "it" if len(names) == 1 else "them"
    over = f"stop {', '.join(names)}, empty {its}, start {it} again, then:\n"
    ways.append(f"{'or start over: ' if ways else ''}{over}{context.command(command)}")
    return ways


def completed(context: Context, error: CliError, command: str = RESTORE_FILE) -> CliError:
    """Return `error`, in whose hint `raftctl restore` is a command that can be typed as it is.

    Args:
        error: what a server has answered; it knows neither the file nor how it was dialled.
        command: the words of the command.
    """
    error.hint = error.hint.replace("raftctl restore FILE", context.command(command))
    return error


def bootstrap(
    context: Context,
    config: ClusterConfig,
    answers: Sequence[Answer],
    *,
    snapshot: SnapshotId | None = None,
    command: str = INIT,
) -> None:
    """Make the first voter a cluster of its own; durable there when this returns.

    Args:
        snapshot: the backup that it holds and that the cluster goes on from.
        command: what finishes it if it is interrupted.
    """
    first = first_voter(config)
    status = next(answer.reply for answer in answers if answer.address == first.address)
    assert status is not None, "all servers have answered"
    request = BootstrapRequest(
        cluster_name=config.cluster,
        incarnation=server_incarnation(status.server),
        address=first.address,
        snapshot=snapshot,
    )
    cluster = context.cluster()
    deadline = cluster.deadline().or_after_ms(BOOTSTRAP_TIMEOUT_MS)
    try:
        reply = cluster.ask_at(first.address, request, deadline=deadline)
    except ConnectionProblem as problem:
        raise OutcomeUnknown(
            f"{first.id} did not say whether it became the cluster {config.cluster}",
            cause=f"{first.id} {first.address}: {problem}",
            hint=f"`{context.command(command)}` goes on from wherever it stopped",
        ) from None
    if isinstance(reply, ErrorReply):
        raise completed(context, error_of(reply), command if snapshot else RESTORE_FILE)
    cluster_id = expect(reply, BootstrapReply).cluster_id
    # It greeted us as a blank server and is one no more.
    cluster.forget(first.address)
    context.message(f"{first.id} is the cluster {config.cluster} now (id {cluster_id})")


# --- a cluster is there already ---------------------------------------------------------------


def _go_on(
    context: Context,
    config: ClusterConfig,
    answers: Sequence[Answer],
    members: Sequence[StatusReply],
) -> Forming:
    """Return what is left to do, some servers of the file belonging to a cluster already."""
    refuse_other_clusters(config, members)
    speaker = max(members, key=authority)
    operation = speaker.operation
    if operation is not None and operation.record.running:
        if operation.record.kind == "init":
            return Forming(operation=operation.record.id)
        raise Refused(
            f"{config.cluster} is formed already, and {operation.record.id} "
            f"({summary(operation.record)}) is changing it",
            code="operation-running",
            cause=f"it is in phase {operation.record.phase}, by {operation.record.author}; one "
            "membership change runs at a time",
            hint=context.command(f"operation watch {operation.record.id}"),
        )
    configuration = speaker.configuration
    problems = problems_of(config, answers)
    if configuration is None:
        refuse_problems(context, config, answers, problems)
        raise Refused(
            f"{config.cluster} cannot be formed: no server knows its members yet",
            code="not-ready",
            cause=f"{name_list(member.server for member in members)} joined a cluster that was "
            "never finished, and its first server is not in the file or has lost its data",
            hint=f"start them with empty data folders, then:\n{context.command(INIT)}",
        )
    refuse_wiped(context, answers, configuration)
    wanted = {server.id: server.role for server in config.servers.values()}
    have = {server_name(server): "voter" for server in configuration.voters}
    have |= {server_name(server): "learner" for server in configuration.learners}
    if have == wanted and not configuration.joint:
        return Forming(
            configuration=configuration,
            message=f"{config.cluster} is formed already, as the file says (id "
            f"{speaker.cluster_id})",
        )
    # The others come in by one change, all or none: a cluster of one is an init half done.
    if len(configuration.voters) > 1 or configuration.joint or not have.keys() <= wanted.keys():
        _refuse_other_members(context, config, configuration, wanted)
    missing = {name: why for name, why in problems.items() if name not in have}
    refuse_problems(context, config, answers, missing)
    changes = tuple(
        MemberChange(
            role=server.role, name=server.id, address="" if server.id in have else server.address
        )
        for server in config.servers.values()
        if have.get(server.id) != server.role
    )
    context.message(f"going on with {config.cluster} (id {speaker.cluster_id})")
    return Forming(changes=changes, configuration=configuration)


def authority(member: StatusReply) -> tuple[bool, bool, int, int]:
    """Return a sort key: whose word about the cluster counts most is the largest."""
    configuration = member.configuration
    return (
        configuration is not None,
        member.role == "leader" and member.leadership_confirmed,
        member.term,
        configuration.index if configuration else 0,
    )


def refuse_other_clusters(config: ClusterConfig, members: Sequence[StatusReply]) -> None:
    clusters = {member.cluster_id: member.cluster_name for member in members}
    if len(clusters) == 1 and set(clusters.values()) <= {config.cluster}:
        return
    lines = [
        f"{server_name(member.server)} belongs to {member.cluster_name} (id {member.cluster_id})"
        for member in members
    ]
    names = name_list(
        member.server
        for member in members
        if len(clusters) > 1 or member.cluster_name != config.cluster
    )
    raise Refused(
        f"{config.cluster} cannot be formed: {names} not blank",
        code="other-cluster",
        cause="\n".join([*lines, "nothing was changed"]),
        hint="take them out of the file, or start them with empty data folders; `raftctl -c FILE "
        "config show` shows where these are",
    )


def refuse_wiped(
    context: Context, answers: Sequence[Answer], configuration: ConfigurationView
) -> None:
    """Refuse if a member's disk is another one than the configuration knows."""
    by_name = {server_name(server): server for server in configuration.voters}
    by_name |= {server_name(server): server for server in configuration.learners}
    for answer in answers:
        if answer.reply is None:
            continue
        name = server_name(answer.reply.server)
        if name in by_name and answer.reply.server != by_name[name]:
            raise Refused(
                f"the cluster is formed already, and {name} has lost its data",
                code="wiped",
                cause=f"the cluster knows {by_name[name]}; at {answer.address} there is "
                f"{answer.reply.server}",
                hint=context.command(f"replace {name} {name}={answer.address}"),
            )


def _refuse_other_members(
    context: Context,
    config: ClusterConfig,
    configuration: ConfigurationView,
    wanted: dict[str, str],
) -> NoReturn:
    voters = " ".join(name for name, role in wanted.items() if role == "voter")
    learners = " ".join(name for name, role in wanted.items() if role == "learner")
    raise Refused(
        f"{config.cluster} is formed already, with other members than in the file",
        code="formed",
        cause=f"the cluster has voters {name_list(configuration.voters)}, learners "
        f"{name_list(configuration.learners)}; the file has voters {voters}, learners "
        f"{learners or 'nobody'}",
        hint=f"`{context.command('config export')}` writes the file that matches the cluster; this "
        f"makes the cluster as the file says:\nraftctl apply -f {shlex.quote(str(config.path))}",
    )
