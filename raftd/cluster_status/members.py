"""What servers and configurations are called: names, full ids only where a name is not enough."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raftd.core.types import ServerId, server_name
from raftd.protocol import ConfigurationView


def display_names(servers: Iterable[ServerId]) -> dict[ServerId, str]:
    """Return what to call each server: its name, or the full id where a name is there twice."""
    known = set(servers)
    by_name: dict[str, set[ServerId]] = {}
    for server in known:
        by_name.setdefault(server_name(server), set()).add(server)
    return {
        server: server_name(server) if len(by_name[server_name(server)]) == 1 else server
        for server in known
    }


def members_of(view: ConfigurationView) -> list[ServerId]:
    """Return every member, each once: voters, then outgoing voters, then learners."""
    return list(dict.fromkeys((*view.voters, *view.outgoing, *view.learners, *view.learners_next)))


def configuration_document(view: ConfigurationView) -> dict[str, Any]:
    """Return a configuration as JSON has it: names, and full ids only where a name is there twice.

    A voter that becomes a learner with C_new stands in `outgoing` until then.
    """
    names = display_names(members_of(view))
    return {
        "index": view.index,
        "committed": view.committed,
        "joint": view.joint,
        "voters": [names[server] for server in view.voters],
        "outgoing": [names[server] for server in view.outgoing],
        "learners": [names[server] for server in view.learners],
    }
