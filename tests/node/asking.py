"""What the tests of operations ask, and the refusals that they expect."""

from __future__ import annotations

import re

import click

from raftctl.cli import cli
from raftd.core.messages import Envelope
from raftd.core.types import server_name
from raftd.protocol import AbortRequest, ErrorReply
from tests.node.world import Server, World


def assert_hint_is_a_command(hint: str) -> None:
    """Assert that every raftctl command of a hint exists."""
    for words in re.findall(r"raftctl ([a-z][^,;`]*)", hint):
        name, *arguments = words.split()
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, f"raftctl {words} is no command"
        if name in ("operation", "config"):
            assert isinstance(command, click.Group)
            assert arguments[0] in command.commands, f"raftctl {words} is no command"


def abort(world: World, operation: str = "") -> AbortRequest:
    return AbortRequest(
        session="s", serial=world.serial("s"), operation=operation, author="bob", reason="enough"
    )


def to(envelope: Envelope, *names: str) -> bool:
    return server_name(envelope.dest) in names


def refused(world: World, request: object, server: Server | None = None) -> ErrorReply:
    """Ask for a change that is to be refused, and assert that the log was left alone."""
    leader = server or world.leader()
    before = leader.status.last_index
    reply = world.call(leader, request)
    assert isinstance(reply, ErrorReply), reply
    assert leader.status.last_index == before
    assert reply.message
    assert reply.cause
    assert reply.hint
    assert_hint_is_a_command(reply.hint)
    return reply
