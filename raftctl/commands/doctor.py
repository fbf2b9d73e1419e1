"""`raftctl doctor`."""

from __future__ import annotations

import sys

import click

from raftctl.cli import Context, pass_context
from raftctl.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNREACHABLE

WIDTH_WITHOUT_TERMINAL = 80


@click.command()
@pass_context
def doctor(context: Context) -> int:
    """Examine the cluster and say what is wrong, and what to do about it.

    Asks every server how it is and lets each of them dial all the others, so that it also finds
    what only one of them sees. Judges reachability, round trips, the syncs of the log, clocks,
    time-outs, versions, disk space, the number and place of the voters, the cluster file, and
    operations that stand still. It changes nothing.

    Exits with 0 if no check fails, also with warnings; with 1 if one does; with 3 if no server
    answers. --timeout bounds all of it.

    \b
    Examples:
      raftctl doctor
      raftctl doctor -o json --timeout 5s
    """
    from raftctl.doctor import document, judge
    from raftctl.doctor_text import text
    from raftctl.examining import examine
    from raftctl.findings import Result
    from raftctl.render import Style, terminal_width
    from raftctl.status_text import Layout

    examination = examine(context.dialled(), timeout_ms=context.timeout_ms, notice=context.message)
    findings = judge(examination)
    if context.structured:
        context.print_document(document(examination, findings, context.command))
    else:
        layout = Layout(
            width=terminal_width(sys.stdout) or WIDTH_WITHOUT_TERMINAL,
            wide=context.output == "wide",
            paint=Style(context.use_color(sys.stdout)),
        )
        lines = text(examination, findings, layout, context.command)
        click.echo("\n".join(lines), color=context.use_color(sys.stdout))
    if not examination.cluster.answered:
        return EXIT_UNREACHABLE
    failed = any(finding.result is Result.FAIL for finding in findings)
    return EXIT_FAILED if failed else EXIT_DONE
