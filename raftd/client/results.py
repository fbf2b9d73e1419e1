"""What calls that succeed return."""

from __future__ import annotations

import attrs

from raftd.transactions import Outcome


@attrs.frozen(kw_only=True)
class KeyValue:
    """A key, as it was at some revision of the state."""

    key: str
    value: bytes
    create_revision: int
    """The revision at which it came into being."""
    mod_revision: int
    """The revision at which it was set last: what `if_revision` compares with."""
    version: int
    """How often it was set since it came into being; 1 at first."""
    ttl_ms: int | None = None
    """How long it still lives, in milliseconds of cluster time; None for ever."""


@attrs.frozen(kw_only=True)
class Page:
    """Keys in order, all of one moment."""

    entries: tuple[KeyValue, ...]
    revision: int
    """Of the state that they were read at. The next page may be of a later one."""
    more: bool
    """Whether there are keys behind the last one."""


@attrs.frozen(kw_only=True)
class WriteResult:
    """What the cluster made of a write. It is durable on a majority."""

    applied: bool
    """False: the condition did not hold, or there was nothing to delete, and nothing was done."""
    revision: int
    """Of the state afterwards: with `applied` the one at which this write was done."""


@attrs.frozen(kw_only=True)
class TransactionResult:
    """What the cluster made of a transaction. It is durable on a majority."""

    applied: bool
    """False: a condition did not hold, and nothing was done."""
    revision: int
    """Of the state afterwards."""
    outcomes: tuple[Outcome, ...]
    """One for each step, in their order; none where it was not applied."""


@attrs.frozen(kw_only=True)
class KeyEvent:
    """One change of a key."""

    revision: int
    """Of the state that the change has made."""
    kind: str
    """put, delete (somebody removed it) or expired (its life was over)."""
    key: str
    value: bytes = b""
    """Of a put, as the numbers below; else empty and 0."""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
