"""Servers as they are named on the command line: ID, ID=HOST:PORT, and pairs of both.

What is wrong with them is found before anybody is dialled.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from raftctl.completing import members
from raftctl.errors import UsageProblem
from raftctl.render import natural_key, printable
from raftd.config_values import check_name, parse_member_argument

replacements_argument = click.argument(
    "servers",
    nargs=-1,
    required=True,
    metavar="OLD NEW=HOST:PORT...",
    shell_complete=members(),
)
"""Gives a command the pairs that `parse_replacements` reads, as `servers`."""


def parse_name(text: str) -> str:
    """Return the name of a server.

    Raises:
        UsageProblem: it is none.
    """
    try:
        return check_name(text)
    except ValueError as error:
        raise UsageProblem(
            f"{printable(text)} is no name of a server",
            code="name",
            cause=f"{error}; nothing was sent",
            hint=f"{_command_path()} --help",
        ) from None


def parse_names(texts: Sequence[str]) -> list[str]:
    """Return the names of servers.

    Raises:
        UsageProblem: one is none, or stands there twice.
    """
    names = [parse_name(text) for text in texts]
    _refuse_twice("named", names)
    return names


def parse_new_servers(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the name and the address of each ID=HOST:PORT.

    Raises:
        UsageProblem: one is something else, or a name or an address stands there twice.
    """
    servers = [_new_server(text) for text in texts]
    _refuse_twice("named", [name for name, _ in servers])
    _refuse_twice("the address was given", [address for _, address in servers])
    return servers


def parse_replacements(words: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return old name, new name and address of each pair OLD NEW=HOST:PORT.

    Raises:
        UsageProblem: a word has no counterpart, is something else, or stands there twice.
    """
    if len(words) % 2:
        raise UsageProblem(
            f"{words[-1]} has no counterpart",
            cause="servers are replaced in pairs, OLD NEW=HOST:PORT; nothing was sent",
            hint=f"{_command_path()} --help",
        )
    old = parse_names(words[0::2])
    new = parse_new_servers(words[1::2])
    return [(name, *server) for name, server in zip(old, new, strict=True)]


def _new_server(text: str) -> tuple[str, str]:
    try:
        return parse_member_argument(text)
    except ValueError as error:
        raise UsageProblem(
            f"{printable(text)} is not ID=HOST:PORT",
            code="address",
            cause=f"{error}; nothing was sent",
            hint=f"{_command_path()} --help",
        ) from None


def _refuse_twice(what: str, words: Sequence[str]) -> None:
    twice = sorted({word for word in words if words.count(word) > 1}, key=natural_key)
    if twice:
        raise UsageProblem(
            f"{what} twice: {' '.join(twice)}",
            cause="each server has its place once in one change; nothing was sent",
            hint=f"{_command_path()} --help",
        )


def _command_path() -> str:
    return click.get_current_context().command_path
