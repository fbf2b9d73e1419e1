"""backup and restore: all that a cluster holds, in one file, and a new cluster made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from raftctl.byte_progress import ByteProgress
from raftctl.cli import Context, pass_context
from raftctl.client import author, expect
from raftctl.commands.membership import follow_to_end, print_result
from raftctl.completing import members
from raftctl.fetching import Fetched, fetch_backup
from raftctl.render import name_list, number, plural, printable
from raftctl.restoring import Restoring, found, give, look, read_backup, resumable
from raftd.cluster_status.words import size
from raftd.offline import BackupFile
from raftd.protocol import ChangeReply, ChangeRequest

CHANGE_REPLY_TIMEOUT_MS = 15_000.0
"""For the leader's answer to a change: before it the leader dials every new server."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--from",
    "source",
    default="",
    metavar="ID",
    shell_complete=members(),
    help="The server that it comes from. Default: a follower that has caught up, else the leader.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@pass_context
def backup(context: Context, file: Path, source: str, force: bool) -> None:
    """Write all that the cluster holds to FILE, as of one moment after the command began.

    The cluster goes on meanwhile. FILE appears when every byte of it was verified and is durable;
    until then it is FILE.tmp. --timeout bounds the time without progress.

    \b
    Examples:
      raftctl backup orders.backup
      raftctl backup orders.backup --from n3 --force
    """
    fetched = fetch_backup(context, file, source=source, force=force)
    if context.structured:
        context.print_document(_backup_document(fetched), one_line=True)
    else:
        click.echo(_backup_text(fetched))


def _backup_document(fetched: Fetched) -> dict[str, Any]:
    file = fetched.file
    return {
        "file": str(file.path),
        "size_bytes": file.id.size_bytes,
        "index": file.id.last_included_index,
        "term": file.id.last_included_term,
        "revision": file.revision,
        "keys": file.key_count,
        "checksum": file.id.checksum,
        "cluster": fetched.cluster_name,
        "cluster_id": file.cluster_id,
        "server": fetched.server,
    }


def _backup_text(fetched: Fetched) -> str:
    file = fetched.file
    rows = [
        ("file", str(file.path)),
        ("size", f"{size(file.id.size_bytes)} ({number(file.id.size_bytes)} bytes)"),
        ("index", f"{number(file.id.last_included_index)} (term {file.id.last_included_term})"),
        ("revision", number(file.revision)),
        ("keys", number(file.key_count)),
        ("checksum", file.id.checksum),
        ("cluster", f"{fetched.cluster_name} (id {file.cluster_id})"),
        ("from", fetched.server),
    ]
    return "\n".join(f"{label:<9} {printable(value)}" for label, value in rows)


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@pass_context
def restore(context: Context, file: Path) -> None:
    """Make a new cluster of the blank servers of the cluster file, with all that FILE holds.

    FILE is verified first, then every server is looked at: all have to answer and to be blank.
    The first voter is given the backup and becomes a cluster that goes on from it; then it brings
    in the others by one change. Asks first. An interrupted restore is finished by repeating it.

    The new cluster has an id of its own. Keys, revisions and sessions are those of the backup; a
    membership operation that ran when it was taken is ended as aborted.

    \b
    Examples:
      raftctl restore orders.backup --config cluster.yaml
      raftctl -c cluster.yaml restore orders.backup --yes
    """
    context.require_answerable()
    progress = ByteProgress(context)
    held = read_backup(file, progress)
    restoring = look(context, held)
    if restoring.is_done:
        context.message(f"{restoring.config.cluster} was restored from {file} already")
        print_result(context, None, "done", context.cluster().leader_status().configuration)
        return
    if not context.yes:
        click.echo(_effect(restoring), err=True)
        context.confirm("Proceed?")
    with resumable(context, restoring):
        if not restoring.operation:
            try:
                if not restoring.is_founded:
                    give(context, restoring, progress)
            finally:
                progress.close()
            found(context, restoring)
        _bring_in(context, restoring)


def _effect(restoring: Restoring) -> str:
    """Return what a restore will do, in words."""
    held, config = restoring.backup, restoring.config
    servers = " ".join(config.servers)
    lines = [
        f"{held.path}: {plural(held.key_count, 'key')} at revision {number(held.revision)}, "
        f"up to entry {number(held.id.last_included_index)}, {size(held.id.size_bytes)}",
        f"  taken in the cluster with id {printable(held.cluster_id)}, which had the members "
        f"{_members(held)}",
    ]
    if restoring.operation or restoring.is_founded:
        lines.append(
            f"goes on with the restore of {config.cluster} that was interrupted: {servers}"
        )
    else:
        lines.append(
            f"{servers} become the new cluster {config.cluster}, with an id of its own: "
            f"{restoring.first.id} is given the backup"
            + (", then it brings in the others by one change" if restoring.changes else "")
        )
    lines.append("the cluster that the backup was taken in is not touched")
    return "\n".join(lines)


def _members(held: BackupFile) -> str:
    return printable(name_list(held.configuration.configuration.members))


def _bring_in(context: Context, restoring: Restoring) -> None:
    """Bring in all servers but the first by one change, as `init` does, and print the result."""
    cluster = context.cluster()
    held = restoring.backup
    operation = restoring.operation
    if not operation and restoring.changes:
        reply = cluster.write(
            lambda session, serial, lowest: ChangeRequest(
                session=session,
                serial=serial,
                kind="init",
                changes=restoring.changes,
                author=author(),
                reason=restoring.reason,
            ),
            reply_timeout_ms=CHANGE_REPLY_TIMEOUT_MS,
        )
        operation = expect(reply, ChangeReply).operation
    restored = (
        f"restored {plural(held.key_count, 'key')} at revision {number(held.revision)} "
        f"from {held.path}"
    )
    if operation:
        follow_to_end(context, cluster, operation)
    else:
        print_result(context, None, "done", cluster.leader_status().configuration)
    context.message(restored)
