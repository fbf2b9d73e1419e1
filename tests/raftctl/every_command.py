"""All commands of raftctl, from its tree of groups: a new one is among them by itself."""

from __future__ import annotations

from collections.abc import Iterator

import click

from raftctl.cli import COMMANDS, cli


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Yield the words and the command of everything that can be typed, groups among it.

    The words of raftctl itself are empty.
    """
    context = click.Context(cli, info_name="raftctl")
    yield "", cli
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield from _within(name, command)


def _within(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, subcommand in command.commands.items():
            yield from _within(f"{words} {name}", subcommand)


def every_action() -> Iterator[tuple[str, click.Command]]:
    """Yield the words and the command of everything that does something by itself."""
    for words, command in every_command():
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield words, command
