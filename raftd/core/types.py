"""The values that the whole protocol is made of.

Indexes and terms start at 1; 0 means "before the first entry" and "before the first term".

Source: Figure 2 of the Raft paper.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import attrs

ServerId: TypeAlias = str
"""A member: the operator's name for it and the incarnation of its disk, `name/incarnation`.

Membership, votes and acknowledgements are keyed by the pair, never by the bare name: a server
that comes back with an empty disk is another member under an old name.
"""

Term: TypeAlias = int
Index: TypeAlias = int


def server_name(server: ServerId) -> str:
    """Return the operator's name for `server`, the part before the slash."""
    return server.partition("/")[0]


def server_incarnation(server: ServerId) -> str:
    """Return the incarnation of `server`, the part after the slash; empty if there is none."""
    return server.partition("/")[2]


class EntryKind(IntEnum):
    """What the data of an entry is."""

    NOOP = 0
    """Appended by each new leader, to commit what its predecessors left (paper section 8)."""
    COMMAND = 1
    """Opaque to the core; the state machine applies it."""
    CONFIGURATION = 2
    """A `raftd.core.membership.ConfigurationEntry`, in force as soon as it is appended."""


@attrs.define(slots=True)
class Entry:
    """One entry of the log. Treat it as immutable.

    `encoded` is the entry as it stands on the wire and in the log file: whoever encodes or decodes
    the entry first leaves the bytes here, so that they are made once. It is no part of the value.
    """

    index: Index
    term: Term
    kind: EntryKind
    data: bytes
    encoded: bytes | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class HardState:
    """What must be durable before any message of its term leaves, as one record.

    Source: Figure 2, "Persistent state on all servers".
    """

    current_term: Term = 0
    voted_for: ServerId | None = None
