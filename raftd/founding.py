"""How a blank server becomes a member: it founds a cluster, or is told to which one it belongs.

| what it is asked | blank | holds a backup | member |
|---|---|---|---|
| bootstrap | founds an empty cluster | refuses | answers again if it is the same, else refuses |
| bootstrap with a snapshot | refuses | founds a cluster that goes on from it | likewise |
| join | joins | refuses | likewise |

A blank server *holds a backup* once a snapshot that it was given is in force: file, log and state
follow it. It has no cluster and no term yet, so nobody hears from it. The founding entry is the
configuration of the founder alone. In an empty cluster it is entry 1 of term 1; after a backup that
ends with entry S of term T it is entry S + 1 of term T + 1, so that no term, index or revision is
used twice. It also ends the membership operation that ran when the backup was taken: its servers
belong to another cluster.

The identity is durable before the founding entry. A process that ends in between has no term,
which tells the next start to go on from there.

Source: dissertation section 4.3 (bootstrapping), 5.1 (what a snapshot replaces).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from raftd.commands import ABORTED, Operation
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    encode_configuration,
)
from raftd.core.raft import Raft
from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, EntryKind, Index, Term
from raftd.protocol import BootstrapReply, BootstrapRequest, DoneReply, ErrorReply, JoinRequest
from raftd.replies import not_blank, wrong_incarnation
from raftd.storage.identity import Identity

RESTORED = "restored from a backup"
"""Why an operation that ran when a backup was taken has ended."""


def founding_entry(
    identity: Identity,
    *,
    base_index: Index = 0,
    base_term: Term = 0,
    running: Operation | None = None,
) -> Entry:
    """Return the first entry of the cluster that `identity` founded: a configuration of itself.

    Args:
        base_index, base_term: the end of the backup that the cluster goes on from.
        running: the operation that runs in it; the entry ends it.
    """
    configuration = ConfigurationEntry(
        configuration=Configuration(voters=(identity.server,)),
        addresses={identity.server: identity.bootstrap_address},
        kind=ConfigurationKind.BOOTSTRAP,
        operation=running.id if running is not None else "",
        outcome=ABORTED if running is not None else "",
        reason=RESTORED if running is not None else "",
        leader=identity.server,
        time_ms=identity.bootstrap_time_ms,
    )
    data = encode_configuration(configuration)
    return Entry(base_index + 1, base_term + 1, EntryKind.CONFIGURATION, data)


def become_member(
    identity: Identity,
    request: BootstrapRequest | JoinRequest,
    held: Snapshot | None,
    *,
    is_restoring: bool,
    mint_cluster_id: Callable[[], str],
    time_ms: int,
) -> Identity | BootstrapReply | DoneReply | ErrorReply:
    """Return who the server becomes by what it is asked, or the answer if it stays what it is.

    Args:
        held: the newest snapshot of the server.
        is_restoring: parts of a backup have come in.
        time_ms: now, in milliseconds since 1970.
    """
    if isinstance(request, JoinRequest):
        meant = (request.name, request.incarnation) == (identity.name, identity.incarnation)
        again: BootstrapReply | DoneReply | None = (
            DoneReply() if identity.cluster_id == request.cluster_id else None
        )
    else:
        meant = request.incarnation == identity.incarnation
        again = _founded_before(identity, request, held)
    if not meant:
        return wrong_incarnation(identity, request.incarnation)
    if again is not None:
        return again
    if not identity.is_blank:
        return not_blank(identity)
    wanted = request.snapshot if isinstance(request, BootstrapRequest) else None
    if wanted is None and (held is not None or is_restoring):
        return ErrorReply(
            code="refused",
            message=f"{identity.name} holds {_named(held) if held else 'a part of a backup'}",
            cause="a cluster that it founded or joined would not go on from there",
            hint="repeat `raftctl restore FILE`, or empty its data directory and start it again",
        )
    if wanted is not None and (held is None or held.id != wanted):
        return ErrorReply(
            code="refused",
            message=f"{identity.name} does not hold this backup",
            cause=f"it holds {_named(held)}, and is to go on from entry "
            f"{wanted.last_included_index}",
            hint="repeat `raftctl restore FILE`",
        )
    if isinstance(request, JoinRequest):
        return attrs.evolve(
            identity, cluster_id=request.cluster_id, cluster_name=request.cluster_name
        )
    return attrs.evolve(
        identity,
        cluster_id=mint_cluster_id(),
        cluster_name=request.cluster_name,
        bootstrap_address=request.address,
        bootstrap_time_ms=time_ms,
    )


def _founded_before(
    identity: Identity, request: BootstrapRequest, held: Snapshot | None
) -> BootstrapReply | None:
    """Return the answer to a request that was carried out already."""
    if not identity.bootstrap_address or identity.cluster_name != request.cluster_name:
        return None
    if request.snapshot is None or (held is not None and held.id == request.snapshot):
        return BootstrapReply(cluster_id=identity.cluster_id)
    return None


def lead_if_alone(raft: Raft) -> None:
    """Let a server that has just started campaign at once if it is the only voter.

    A time-out gives a leader time to show that it is alive. Where nobody else can lead, nobody
    has to be waited for.
    """
    latest = raft.configuration
    if latest is not None and latest.configuration.all_voters == {raft.server}:
        raft.campaign()


def held_problem(identity: Identity, held: Snapshot | None) -> list[str]:
    """Return what status says of a blank server that holds a backup; nothing of any other one."""
    if not identity.is_blank or held is None:
        return []
    return [
        f"it holds {_named(held)} and belongs to no cluster: repeat raftctl restore, or empty its "
        "data directory"
    ]


def _named(held: Snapshot | None) -> str:
    return f"a backup up to entry {held.id.last_included_index}" if held else "no backup"
