"""Snapshots, as the protocol sees them: a name for the bytes, and what takes the place of entries.

Source: dissertation chapter 5, Figure 13 of the paper.
"""

from __future__ import annotations

import attrs

from raftd.core.membership import ConfigurationAt
from raftd.core.types import Index, Term


@attrs.frozen(kw_only=True)
class SnapshotId:
    """Which snapshot: two with equal ids are equal byte for byte, whoever took them."""

    last_included_index: Index
    """The snapshot replaces all entries up to and including this one."""
    last_included_term: Term
    """The term of that entry."""
    size_bytes: int
    checksum: str
    """Of all bytes, in hexadecimal digits."""


@attrs.frozen
class Snapshot:
    """A snapshot that is durable on this server."""

    id: SnapshotId
    configuration: ConfigurationAt
    """The latest configuration at or below `last_included_index`, in its joint form if it is one,
    with the index that it has in the log."""


def included_index(snapshot: Snapshot | None) -> Index:
    """Return the last index that `snapshot` includes; 0 without one."""
    return snapshot.id.last_included_index if snapshot is not None else 0
