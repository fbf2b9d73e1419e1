"""log-level: how much each server logs, shown and changed while it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import attrs
import click

from raftctl.cli import Context, DurationParameter, pass_context
from raftctl.completing import members
from raftctl.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNREACHABLE, Refused, UsageProblem
from raftd.cluster_status.answers import Answer
from raftd.config_values import LOG_LEVELS, format_duration
from raftd.core.types import server_name
from raftd.protocol import ErrorReply, LogLevelReply, LogLevelRequest

ANSWER_TIMEOUT_MS = 2_000.0
"""For one server to change its level, which it does at once."""


@attrs.frozen(kw_only=True)
class _Found:
    """What is known of one server."""

    name: str
    address: str
    reply: LogLevelReply | None = None
    problem: str = ""


@click.command("log-level")
@click.argument("level", required=False, metavar="[LEVEL]", type=click.Choice(LOG_LEVELS))
@click.option(
    "--server",
    "server_ids",
    multiple=True,
    metavar="ID",
    shell_complete=members(),
    help="Only this server; may be given several times. Without it: all.",
)
@click.option(
    "--for",
    "for_ms",
    type=DurationParameter(),
    metavar="DURATION",
    help="Go back by itself after so long, a week at most.",
)
@pass_context
def log_level(
    context: Context, level: str | None, server_ids: Sequence[str], for_ms: float | None
) -> int:
    """Show how much the servers log, or change it while they run.

    LEVEL is the least important messages that are logged: debug, info, warning or error. A change
    is kept until the server starts again; what is to last is `log_level` in the cluster file,
    which a server also reads again on SIGHUP.

    Exits with 1 if a server could not be asked or changed, with 3 if none could.

    \b
    Examples:
      raftctl log-level
      raftctl log-level debug --server n2 --for 10m
    """
    if for_ms and level is None:
        raise UsageProblem(
            "--for needs a level",
            cause="it says for how long the level is to be another one",
            hint=context.command("log-level debug --for 10m"),
        )
    from raftctl.survey import survey

    answers = _chosen(context, survey(context.dialled(), context.timeout_ms), server_ids)
    request = LogLevelRequest(level=level or "", for_ms=for_ms or 0.0)
    found = [_ask(answer, request) for answer in answers]
    if context.structured:
        context.print_document(_document(found))
    else:
        click.echo(_text(found), color=context.use_color(sys.stdout))
    if all(one.reply is not None for one in found):
        return EXIT_DONE
    nobody = all(answer.reply is None for answer in answers)
    return EXIT_UNREACHABLE if nobody else EXIT_FAILED


def _chosen(context: Context, answers: Sequence[Answer], server_ids: Sequence[str]) -> list[Answer]:
    """Return the answers of the servers that are meant, each once.

    Raises:
        Refused: there is no such server; none was changed.
    """
    # A server may have answered at two addresses.
    found = {_name(answer): answer for answer in answers if answer.reply is None}
    found |= {_name(answer): answer for answer in answers if answer.reply is not None}
    for name in server_ids:
        if name not in found:
            raise Refused(
                f"there is no server {name}",
                cause=f"there are {', '.join(sorted(found))}; nothing was changed",
                hint=context.command("status"),
            )
    return [found[name] for name in sorted(found) if not server_ids or name in server_ids]


def _name(answer: Answer) -> str:
    if answer.reply is not None:
        return server_name(answer.reply.server)
    return answer.name or answer.address


def _ask(answer: Answer, request: LogLevelRequest) -> _Found:
    from raftctl.client import Connection, ConnectionProblem, Deadline

    known = _Found(name=_name(answer), address=answer.address)
    if answer.reply is None:
        return attrs.evolve(known, problem=answer.failure)
    if not answer.reply.log_level:
        # It would take the question for garbage.
        version = answer.reply.version
        problem = f"its release, {version}, changes its level only with `raftd --log-level`"
        return attrs.evolve(known, problem=problem)
    deadline = Deadline.after_ms(ANSWER_TIMEOUT_MS)
    try:
        connection = Connection.open(answer.address, deadline)
        try:
            reply = connection.ask(request, deadline)
        finally:
            connection.close()
    except ConnectionProblem as problem_there:
        return attrs.evolve(known, problem=str(problem_there))
    if isinstance(reply, LogLevelReply):
        return attrs.evolve(known, reply=reply)
    refused = f"{reply.message}: {reply.cause}" if isinstance(reply, ErrorReply) else "no answer"
    return attrs.evolve(known, problem=refused)


def _document(found: Sequence[_Found]) -> dict[str, Any]:
    return {
        "servers": [
            {
                "id": one.name,
                "address": one.address,
                "level": one.reply.level if one.reply else None,
                "previous": one.reply.previous if one.reply else None,
                "back_to": one.reply.back_to or None if one.reply else None,
                "back_in_ms": one.reply.back_in_ms if one.reply else None,
                "problem": one.problem or None,
            }
            for one in found
        ]
    }


def _text(found: Sequence[_Found]) -> str:
    from raftctl.render import printable, table, terminal_width

    rows = []
    for one in found:
        reply, note = one.reply, printable(one.problem)
        if reply is not None and reply.level != reply.previous:
            note = f"was {reply.previous}"
        if reply is not None and reply.back_to and reply.back_in_ms is not None:
            back = f"{reply.back_to} again in {format_duration(round(reply.back_in_ms, -3))}"
            note = f"{note}; {back}" if note else back
        rows.append((one.name, reply.level if reply is not None else "unknown", note))
    return table(("ID", "LEVEL", "NOTE"), rows, width=terminal_width(sys.stdout))
