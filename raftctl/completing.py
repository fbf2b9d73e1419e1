"""What a shell offers when a name of a server or of an operation is typed.

The running cluster is asked, and the cluster file where it does not answer. Whatever goes wrong,
the shell offers nothing: a completion must neither print nor hang.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from raftctl.cli import Context
    from raftd.cluster_status.answers import Answer

ANSWER_TIMEOUT_MS = 400.0
"""For each server, all at once: who presses the tab key waits no longer than this."""
OFFERED_MAX = 100
"""Names that a shell can still show on one screen."""

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def members(*roles: str) -> Complete:
    """Return a completion with the members of the cluster, or only with those that are `roles`.

    Args:
        roles: voter, learner; none for all.
    """

    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del parameter
        # `--lose n1,n4`: what stands before the last comma is there already.
        typed, comma, last = incomplete.rpartition(",")
        used = {*_words_before(context), *typed.split(",")}
        with _quietly():
            return _items(
                (
                    (typed + comma + name, described)
                    for name, described in _members(context.find_object(_context_class()), roles)
                    if name.startswith(last) and name not in used
                )
            )
        return []

    return complete


def operations(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the id of an operation, the newest first."""
    del parameter
    with _quietly():
        return _items(
            (id, described)
            for id, described in _operations(context.find_object(_context_class()))
            if id.startswith(incomplete)
        )
    return []


def playground_servers(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a server of the running playground, whatever cluster is dialled."""
    del context, parameter
    with _quietly():
        return _items(
            (name, described) for name, described in _playground() if name.startswith(incomplete)
        )
    return []


def _context_class() -> type[Context]:
    from raftctl.cli import Context

    return Context


def _quietly() -> contextlib.suppress:
    # The shell shows whatever is printed in the middle of the line that is being typed.
    return contextlib.suppress(Exception)


def _items(found: Iterator[tuple[str, str]]) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    items = [CompletionItem(name, help=described) for name, described in found]
    return items[:OFFERED_MAX]


def _words_before(context: click.Context) -> set[str]:
    """Return the names that the command line already has."""
    words: set[str] = set()
    for value in context.params.values():
        if isinstance(value, str):
            words.add(value)
        elif isinstance(value, tuple):
            words.update(word for word in value if isinstance(word, str))
    return words


def _survey(context: Context | None) -> tuple[list[Answer], dict[str, str]]:
    """Return what the servers answered, and the names in the cluster file with their roles."""
    from raftctl.cli import Context
    from raftctl.survey import survey

    endpoints = (context or Context()).dialled()
    listed = {}
    if endpoints.config is not None:
        listed = {name: server.role for name, server in endpoints.config.servers.items()}
    return survey(endpoints, ANSWER_TIMEOUT_MS), listed


def _members(context: Context | None, roles: tuple[str, ...]) -> list[tuple[str, str]]:
    from raftctl.render import natural_key
    from raftd.core.types import server_name

    answers, found = _survey(context)
    configurations = [
        answer.reply.configuration
        for answer in answers
        if answer.reply is not None and answer.reply.configuration is not None
    ]
    if configurations:
        newest = max(configurations, key=lambda configuration: configuration.index)
        found = {server_name(server): "learner" for server in newest.learners}
        found |= {server_name(server): "voter" for server in (*newest.outgoing, *newest.voters)}
    return [
        (name, found[name])
        for name in sorted(found, key=natural_key)
        if not roles or found[name] in roles
    ]


def _playground() -> list[tuple[str, str]]:
    from raftctl.endpoints import playground_file
    from raftctl.playground import read_runtime_file

    found = read_runtime_file(playground_file()) or {"servers": []}
    return [(each["id"], each["address"]) for each in found["servers"]]


def _operations(context: Context | None) -> list[tuple[str, str]]:
    from raftctl.cli import Context
    from raftctl.client import Cluster
    from raftd.protocol import OperationsReply, OperationsRequest

    endpoints = (context or Context()).dialled()
    with Cluster(endpoints, timeout_ms=2 * ANSWER_TIMEOUT_MS) as cluster:
        reply = cluster.ask(OperationsRequest())
    if not isinstance(reply, OperationsReply):
        return []
    return [
        (view.record.id, f"{view.record.kind}, {view.record.result or view.record.phase}")
        for view in reversed(reply.operations)
    ]
