"""Refusals of local requests, and the end of a group.

Nothing was appended or changed when a `RequestRefused` is raised.
"""

from __future__ import annotations

from raftd.core.membership import MembershipError
from raftd.core.types import Index, ServerId


class Divergence(Exception):
    """A message proves that the group has diverged: stop the process, going on would spread it.

    It takes disks that lost what they had synced, a data directory that was copied back, or a bug.
    """


class RequestRefused(Exception):
    """Base class: the request was not carried out; the message says why."""


class NotLeader(RequestRefused):
    """This server does not lead; `leader_id` does, as far as it knows."""

    def __init__(self, leader_id: ServerId | None) -> None:
        super().__init__(f"not the leader; the leader is {leader_id or 'unknown'}")
        self.leader_id = leader_id


class ProposalDropped(RequestRefused):
    """Not now: leadership is being handed over, or too much is uncommitted. Try again."""


class ChangeInProgress(RequestRefused):
    """The latest configuration is joint or uncommitted, or this leader's term has no commit yet."""


class StaleConfiguration(RequestRefused):
    """The configuration has moved since the caller looked."""

    def __init__(self, expected: Index, actual: Index) -> None:
        super().__init__(f"the configuration index is {actual}, not {expected}")
        self.expected = expected
        self.actual = actual


class NotCaughtUp(RequestRefused):
    """A new voter lags or is silent, or a majority of C_new is not in contact."""

    def __init__(self, servers: frozenset[ServerId], why: str) -> None:
        super().__init__(why)
        self.servers = servers


class AbortRefused(RequestRefused):
    """There is nothing to abort, it is too late, or it is not safe yet."""


class TransferRefused(RequestRefused):
    """The target cannot take over leadership."""


__all__ = [
    "AbortRefused",
    "ChangeInProgress",
    "Divergence",
    "MembershipError",
    "NotCaughtUp",
    "NotLeader",
    "ProposalDropped",
    "RequestRefused",
    "StaleConfiguration",
    "TransferRefused",
]
