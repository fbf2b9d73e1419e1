"""The commands in a hint, and whether they could be typed.

A line of a hint that begins with `raftctl` or `raftd` is a command as a whole, to be copied; in a
sentence a command stands in backticks. Words in capitals stand for what only the reader knows.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click

from raftctl.cli import cli
from tests.raftctl.refusal_sites import ADDRESS

_BACKTICKS = re.compile(r"`((?:raftctl|raftd) [^`]*)`")
_COMMAND = re.compile(r"(?:raftctl|raftd)\b")
_READERS_OWN = {"HOST:PORT": ADDRESS, "H:P": ADDRESS}
"""Words that the reader replaces, where only the right form is taken."""


def commands_in(hint: str) -> Iterator[str]:
    """Yield the commands of a hint: lines that begin with one, and what stands in backticks."""
    for line in hint.splitlines():
        if _COMMAND.match(line):
            yield line
        else:
            yield from _BACKTICKS.findall(line)


def problem_of(command: str) -> str:
    """Return why `command` cannot be typed; empty if its words, options and values are right."""
    try:
        _parse(command)
    except click.UsageError as error:
        return error.format_message()
    except click.exceptions.Exit as ended:
        # --help and --version end at once.
        return f"exit code {ended.exit_code}" if ended.exit_code else ""
    except SystemExit as ended:
        return f"exit code {ended.code}" if ended.code else ""
    except ValueError as error:
        return str(error)
    return ""


def _parse(command: str) -> None:
    # What a shell does with the rest of the line is no part of the command.
    program, *words = shlex.split(command.partition(" < ")[0])
    for meant, value in _READERS_OWN.items():
        words = [word.replace(meant, value) for word in words]
    if program == "raftd":
        from raftd.command_line import _parser

        _parser().parse_args(words)
        return
    group: click.Command = cli
    context = cli.make_context("raftctl", list(words))
    while isinstance(group, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest and group.invoke_without_command:
            return
        name, found, rest = group.resolve_command(context, rest)
        assert found is not None
        context = found.make_context(name, rest, parent=context)
        group = found


def problems_of_hint(hint: str) -> Iterator[str]:
    """Yield what keeps a hint from being one that leads on."""
    commands = list(commands_in(hint))
    if not commands:
        yield f"it names no command: {hint!r}"
    # A command that stands in a sentence cannot be told from it, nor copied.
    sentences = "\n".join(line for line in hint.splitlines() if line not in commands)
    if re.search(r"\braftctl [a-z]", _BACKTICKS.sub("", sentences)):
        yield f"a command neither fills its line nor stands in backticks: {hint!r}"
    for command in commands:
        problem = problem_of(command)
        if problem:
            yield f"`{command}` cannot be typed: {problem}"
