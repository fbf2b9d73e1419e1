"""Who may connect to this server, and how it introduces itself.

Source: dissertation 4.2.2 and 4.2.3.
"""

from __future__ import annotations

from collections.abc import Callable

from raftd.core.types import Index, ServerId
from raftd.protocol import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Hello, Refusal, Welcome
from raftd.storage.identity import Identity


def admit(
    hello: Hello,
    identity: Identity,
    tombstone: Callable[[ServerId], Index | None],
    features: int,
) -> Welcome | Refusal:
    """Decide about an inbound connection.

    Cluster, addressee and version have to be right; whether the sender is a member is not asked,
    since a vote of a server that does not know its configuration yet may be needed. Only a server
    that was removed for good is told so. Once features are switched on, a server that cannot apply
    them is kept away, in whichever direction it is dialled: it would make something else of the
    log, or stop at it.

    Args:
        hello: what the other side says.
        identity: who we are.
        tombstone: returns the configuration that removed a server for good, if one did.
        features: the version whose features are switched on in our state; 0 if none are.
    """

    def refuse(code: str, message: str, removed_index: Index = 0) -> Refusal:
        return Refusal(
            code=code,
            message=message,
            server=identity.server,
            cluster_id=identity.cluster_id,
            removed_index=removed_index,
        )

    version = min(hello.version_max, PROTOCOL_VERSION_MAX)
    if version < max(hello.version_min, PROTOCOL_VERSION_MIN):
        return refuse(
            "version",
            f"this raftd speaks versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}, "
            f"not {hello.version_min} to {hello.version_max}",
        )
    if hello.dest and hello.dest != identity.server:
        return refuse("identity", f"here is {identity.server}, not {hello.dest}")
    if hello.cluster_id and identity.is_blank and hello.role == "peer":
        return refuse("blank", f"{identity.server} belongs to no cluster yet")
    if hello.cluster_id and not identity.is_blank and hello.cluster_id != identity.cluster_id:
        return refuse("cluster", f"this is cluster {identity.cluster_id}, not {hello.cluster_id}")
    if hello.role == "peer":
        if not hello.cluster_id or not hello.dest or not hello.source:
            return refuse("identity", "a peer has to say its cluster, itself and whom it means")
        removed_index = tombstone(hello.source)
        if removed_index is not None:
            return refuse(
                "removed",
                f"{hello.source} was removed at configuration {removed_index}",
                removed_index,
            )
        if version < features:
            return refuse(
                "version",
                f"this cluster uses the features of version {features}, and {hello.source} speaks "
                f"versions {hello.version_min} to {hello.version_max}: it needs a newer release of "
                "raftd",
            )
    return Welcome(
        server=identity.server,
        cluster_id=identity.cluster_id,
        cluster_name=identity.cluster_name,
        version=version,
    )


def our_hello(identity: Identity, server: ServerId, features: int) -> Hello | None:
    """Return what to say to `server` when we dial it; None while we are blank.

    A server that cannot apply the features that are switched on in our state refuses it by itself.
    """
    if identity.is_blank:
        return None
    return Hello(
        role="peer",
        cluster_id=identity.cluster_id,
        source=identity.server,
        dest=server,
        version_min=max(PROTOCOL_VERSION_MIN, features),
    )
