"""inspect: a data directory or a backup, read offline and verified to the last byte."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from raftctl.byte_progress import ByteProgress
from raftctl.cli import Context, pass_context
from raftctl.errors import EXIT_DONE, EXIT_FAILED, CliError, UsageProblem
from raftctl.inspect_text import (
    backup_document,
    backup_text,
    inspection_document,
    inspection_text,
)
from raftctl.render import Style, terminal_width
from raftd.offline import NoDataDirectory, UnusableBackup, inspect_directory, verify_backup

ENTRIES_DEFAULT = 10


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="DATA_DIR|FILE")
@click.option(
    "--entries",
    type=click.IntRange(min=0),
    default=ENTRIES_DEFAULT,
    show_default=True,
    metavar="N",
    help="Show the last N entries of the log.",
)
@pass_context
def inspect(context: Context, path: Path, entries: int) -> int:
    """Show what a data directory holds, or a backup, and verify every checksum. Changes nothing.

    Works offline, on the machine that has the directory. While a raftd runs on it, what is read
    may move.

    Exits with 0 if all is well, with 1 if something is damaged, which then is named with the way
    back, and with 2 if there is nothing of a raftd at the path.

    \b
    Examples:
      raftctl inspect data/n1
      raftctl inspect data/n1 --entries 100 -o wide
      raftctl inspect orders.backup
    """
    style = Style(context.use_color(sys.stdout))
    width = None if context.output == "wide" else terminal_width(sys.stdout)
    if path.is_file():
        return _inspect_file(context, path, style)
    try:
        found = inspect_directory(path)
    except NoDataDirectory as problem:
        raise UsageProblem(
            str(problem), code="no-data-directory", cause="DATA_DIR is the data_dir of a server"
        ) from None
    if context.structured:
        context.print_document(inspection_document(found, entries))
    else:
        click.echo(inspection_text(found, entries, style, width=width))
    return EXIT_FAILED if found.problems else EXIT_DONE


def _inspect_file(context: Context, path: Path, style: Style) -> int:
    progress = ByteProgress(context)
    try:
        file = verify_backup(path, lambda done, total: progress.show("verifying", done, total))
    except UnusableBackup as problem:
        progress.close()
        if context.structured:
            document = {"file": str(path), "ok": False, "problems": [str(problem)]}
            context.print_document(document, one_line=True)
        raise CliError(
            f"{path} is no good backup",
            code="damaged" if problem.offset is not None else "not-a-backup",
            cause=str(problem),
            hint="take another copy of the file, or an older backup",
        ) from None
    progress.close()
    if context.structured:
        context.print_document(backup_document(file), one_line=True)
    else:
        click.echo(backup_text(file, style))
    return EXIT_DONE
