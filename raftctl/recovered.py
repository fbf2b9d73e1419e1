"""Whether a cluster that runs is the one that was recovered from a backup, and is well."""

from __future__ import annotations

from pathlib import Path

import attrs

from raftctl.byte_progress import ByteProgress
from raftctl.cli import Context
from raftctl.client import expect
from raftctl.errors import Unreachable
from raftctl.render import listed, number
from raftctl.survey import survey
from raftctl.verifying import verified_backup
from raftd.cluster_status.view import ClusterView, Health, view
from raftd.protocol import OperationsReply, OperationsRequest


@attrs.frozen
class Check:
    """One thing that has to be so."""

    name: str
    passed: bool
    finding: str
    remedy: str = ""


def checks_of(context: Context, file: Path) -> list[Check]:
    """Return what was found, most important first.

    Raises:
        CliError: the file is no backup, or no server answers.
    """
    backup = verified_backup(file, ByteProgress(context))
    answers = survey(context.dialled(), context.timeout_ms)
    cluster = view(answers)
    if not cluster.answered:
        raise Unreachable(
            "no server answers",
            cause=", ".join(answer.address for answer in answers),
            hint="start the servers of the cluster file, then:\n" + context.again(),
        )
    found = [_id(context, file, cluster.cluster_id, backup.cluster_id)]
    leader = cluster.leader
    found.append(
        Check(
            "leader",
            leader is not None,
            f"it has a leader, term {leader.term}" if leader else "it has no leader",
            "" if leader else f"`{context.command('status')}`",
        )
    )
    if leader is not None:
        has_all = leader.revision >= backup.revision
        found.append(
            Check(
                "revision",
                has_all,
                f"its revision is {number(leader.revision)}, that of the backup "
                f"{number(backup.revision)}",
                "" if has_all else f"`{context.command('status')}`: is it another cluster?",
            )
        )
        found.append(_origin(context, backup.id.checksum))
    return [*found, _health(context, cluster), _strangers(cluster)]


def _id(context: Context, file: Path, new_id: str, old_id: str) -> Check:
    is_new = bool(new_id) and new_id != old_id
    return Check(
        "id",
        is_new,
        f"the cluster has an id of its own, {new_id}; the old one was {old_id}"
        if is_new
        else f"the servers are those of the old cluster, {old_id}"
        if new_id
        else "the servers belong to no cluster yet",
        "" if is_new else f"`{context.command(f'restore {file}')}` makes the new one",
    )


def _origin(context: Context, checksum: str) -> Check:
    reply = expect(context.cluster().ask(OperationsRequest()), OperationsReply)
    formed = [op.record for op in reply.operations if op.record.kind == "init"]
    known = bool(formed) and checksum in formed[-1].reason
    alone = not formed
    return Check(
        "origin",
        known or alone,
        "its record says that it was made from this backup"
        if known
        else "it was made of one server, and no record says from which backup"
        if alone
        else "its record names another backup, or none",
        "" if known or alone else f"`{context.command('history')}`",
    )


def _health(context: Context, cluster: ClusterView) -> Check:
    well = cluster.health is Health.HEALTHY
    ill = [row.name for row in cluster.rows if row.issues]
    return Check(
        "health",
        well,
        f"it is {cluster.health}" + (f": look at {listed(ill)}" if ill else ""),
        "" if well else f"`{context.command('status')}`",
    )


def _strangers(cluster: ClusterView) -> Check:
    old = [
        row.name
        for row in cluster.rows
        if any(issue.kind == "other-cluster" for issue in row.issues)
    ]
    return Check(
        "strangers",
        not old,
        f"{listed(old)} came back with data of another cluster and is refused by this one"
        if old
        else "no server of another cluster answers",
        "stop it, and empty its data directory if it is to be used again" if old else "",
    )
