"""inspect: a data directory or a backup, read offline and verified to the last byte."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from raftctl.byte_progress import ByteProgress
from raftctl.cli import Context, NumberParameter, pass_context
from raftctl.errors import EXIT_DONE, EXIT_FAILED, CliError, UsageProblem
from raftctl.inspect_text import (
    backup_document,
    backup_text,
    inspection_document,
    inspection_text,
)
from raftctl.render import Style, terminal_width
from raftctl.verifying import verified_backup
from raftd.offline import NoDataDirectory, inspect_directory

ENTRIES_DEFAULT = 10


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="DATA_DIR|FILE")
@click.option(
    "--entries",
    type=NumberParameter(min=0),
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
    try:
        if path.exists() and not path.is_dir():
            return _inspect_file(context, path, style)
        found = inspect_directory(path)
    except NoDataDirectory as problem:
        raise UsageProblem(
            str(problem),
            code="no-data-directory",
            cause="DATA_DIR is the data_dir of a server, FILE one that `raftctl backup` has "
            "written",
            hint="raftctl inspect --help",
        ) from None
    except PermissionError as error:
        raise CliError(
            f"{error.filename or path} cannot be read",
            code="unreadable",
            cause=error.strerror or str(error),
            hint=f"run it as the user that raftd runs as:\n{context.again()}",
        ) from None
    if context.structured:
        context.print_document(inspection_document(found, entries, context.command))
    else:
        click.echo(inspection_text(found, entries, style, context.command, width=width))
    return EXIT_FAILED if found.problems else EXIT_DONE


def _inspect_file(context: Context, path: Path, style: Style) -> int:
    try:
        file = verified_backup(path, ByteProgress(context))
    except CliError as error:
        if context.structured:
            document = {"file": str(path), "ok": False, "problems": [error.cause]}
            context.print_document(document, one_line=True)
        raise
    if context.structured:
        context.print_document(backup_document(file), one_line=True)
    else:
        click.echo(backup_text(file, style))
    return EXIT_DONE
