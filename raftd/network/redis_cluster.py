"""The cluster as Redis clients understand one: a single shard, whose master is the leader.

Cluster clients ask for it when they start and when they are redirected; then they send everything
to the leader and follow it. Each server answers from what it knows itself. Where it knows no leader
it names the one that it knew last: whoever asks there is told what is the matter.

Certainly not carried out, so that a client may ask again elsewhere: `-MOVED`, `-CLUSTERDOWN`,
`-TRYAGAIN`. Perhaps carried out: `-UNCERTAIN`. No code of the first kind is ever used for the
second.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from hashlib import sha1

from raftd.core.types import ServerId
from raftd.network.dialling import split_address
from raftd.network.redis_actions import (
    Action,
    ClusterSeen,
    CommandError,
    MemberSeen,
    Reply,
    Session,
    text_of,
    wrong_number,
)
from raftd.network.redis_framing import array, bulk, error, integer, mapping
from raftd.protocol import NOT_NOW, ErrorReply

SLOTS = 16_384
"""Hash slots of a Redis cluster. All of them are the leader's."""
BUS_PORT_NONE = 0
"""Where a server of ours has no port of the bus of a Redis cluster."""


def hash_slot(key: bytes) -> int:
    """Return the slot of a key: that of what stands in its first braces, if anything does."""
    _, brace, rest = key.partition(b"{")
    tag, end, _ = rest.partition(b"}")
    return binascii.crc_hqx(tag if brace and end and tag else key, 0) % SLOTS


def node_id(server: ServerId) -> str:
    """Return the id that Redis clients know a server by: 40 hexadecimal digits, always the same.

    They are made of its name and incarnation, as which it never comes back.
    """
    return sha1(server.encode(), usedforsecurity=False).hexdigest()


# --- where there is no result ---------------------------------------------------------------


def refusal(reply: ErrorReply, key: bytes, redis_address: Callable[[ServerId], str]) -> bytes:
    """Return what is said where there is no result.

    Args:
        reply: why there is none.
        key: the first one of the command, if it has any.
        redis_address: returns HOST:PORT of the Redis listener of a server, empty if unknown.
    """
    message = f"{reply.message}: {reply.cause}" if reply.cause else reply.message
    match reply.code:
        case "not-leader":
            address = redis_address(reply.leader)
            if address:
                return error(f"MOVED {hash_slot(key)} {address}")
            if reply.leader:
                message += ", which serves no Redis clients as far as is known here"
            return error(f"CLUSTERDOWN {message}")
        case "unavailable":
            return error(f"{'TRYAGAIN' if reply.message == NOT_NOW else 'CLUSTERDOWN'} {message}")
        case "unknown-outcome":
            return error(f"UNCERTAIN {message}")
        case _:
            return error(f"ERR {message}")


def require_leader(cluster: ClusterSeen, key: bytes) -> None:
    """Return if this server leads, as far as it knows; nothing is promised by that.

    Raises:
        CommandError: it does not; the message is that of `refusal`.
    """
    if cluster.leads:
        return
    leader = cluster.member(cluster.leader)
    if leader is not None and leader.redis:
        raise CommandError(f"MOVED {hash_slot(key)} {leader.redis}")
    raise CommandError("CLUSTERDOWN no leader that serves Redis clients is known here")


# --- CLUSTER --------------------------------------------------------------------------------


def answer_cluster(command: list[bytes], session: Session, features: int) -> Action:
    """Answer CLUSTER."""
    cluster = session.surroundings.cluster()
    subcommand = command[1].upper()
    if subcommand == b"KEYSLOT":
        if len(command) != 3:
            raise wrong_number(command)
        return Reply(integer(hash_slot(command[2])))
    if subcommand in (b"REPLICAS", b"SLAVES"):
        if len(command) != 3:
            raise wrong_number(command)
        return Reply(_replicas(cluster, command[2]))
    if len(command) != 2:
        raise CommandError(_UNKNOWN.format(text_of(command[1])))
    match subcommand:
        case b"SLOTS":
            return Reply(_slots(cluster, session.protocol))
        case b"SHARDS":
            return Reply(_shards(cluster, session.protocol))
        case b"NODES":
            return Reply(bulk("".join([f"{line}\n" for line in _lines(cluster)]).encode()))
        case b"INFO":
            return Reply(bulk(_described(cluster)))
        case b"MYID":
            return Reply(bulk(node_id(cluster.server).encode()))
        case b"MYSHARDID":
            return Reply(bulk(_shard_id(cluster).encode()))
        case b"HELP":
            return Reply(array([bulk(line.encode()) for line in _HELP]))
    raise CommandError(_UNKNOWN.format(text_of(command[1])))


_HELP = (
    "CLUSTER SLOTS | SHARDS | NODES | INFO: one shard, whose master is the leader",
    "CLUSTER MYID | MYSHARDID: who this server and this cluster are",
    "CLUSTER KEYSLOT key: the slot of a key",
    "CLUSTER REPLICAS id: the other members",
)
_UNKNOWN = (
    "ERR CLUSTER {} is not supported by this server: it knows SLOTS, SHARDS, NODES, INFO, MYID, "
    "MYSHARDID, KEYSLOT and REPLICAS. The membership is changed with raftctl"
)


def _served(cluster: ClusterSeen) -> tuple[MemberSeen | None, list[MemberSeen]]:
    """Return the leader and the other members, as far as they serve Redis clients."""
    serving = [member for member in cluster.members if member.redis]
    master = next((each for each in serving if each.server == cluster.leader), None)
    return master, [each for each in serving if each is not master]


def _slots(cluster: ClusterSeen, protocol: int) -> bytes:
    master, replicas = _served(cluster)
    if master is None:
        return array(())
    nodes = [_node(member, protocol) for member in (master, *replicas)]
    return array([array([integer(0), integer(SLOTS - 1), *nodes])])


def _node(member: MemberSeen, protocol: int) -> bytes:
    host, port = split_address(member.redis)
    return array(
        [
            bulk(host.encode()),
            integer(port),
            bulk(node_id(member.server).encode()),
            mapping((), protocol),
        ]
    )


def _shards(cluster: ClusterSeen, protocol: int) -> bytes:
    master, replicas = _served(cluster)
    nodes = []
    for member in ([master] if master else []) + replicas:
        host, port = split_address(member.redis)
        fields = (
            ("id", bulk(node_id(member.server).encode())),
            ("port", integer(port)),
            ("ip", bulk(host.encode())),
            ("endpoint", bulk(host.encode())),
            ("role", bulk(b"master" if member is master else b"replica")),
            ("replication-offset", integer(cluster.commit_index)),
            ("health", bulk(b"online" if member.connected else b"fail")),
        )
        nodes.append(mapping([(bulk(name.encode()), field) for name, field in fields], protocol))
    slots = [integer(0), integer(SLOTS - 1)] if master else []
    shard = ((bulk(b"slots"), array(slots)), (bulk(b"nodes"), array(nodes)))
    return array([mapping(shard, protocol)])


def _lines(cluster: ClusterSeen) -> list[str]:
    master, replicas = _served(cluster)
    lines = []
    for member in ([master] if master else []) + replicas:
        flags = "master" if member is master else "slave"
        if member.server == cluster.server:
            flags = f"myself,{flags}"
        bus_port = split_address(member.address)[1] if member.address else BUS_PORT_NONE
        words = [
            node_id(member.server),
            f"{member.redis}@{bus_port}",
            flags,
            "-" if member is master else node_id(master.server) if master else "-",
            "0 0",
            str(cluster.term),
            "connected" if member.connected else "disconnected",
        ]
        lines.append(" ".join(words + ([f"0-{SLOTS - 1}"] if member is master else [])))
    return lines


def _replicas(cluster: ClusterSeen, of: bytes) -> bytes:
    master, _ = _served(cluster)
    if master is None or of.decode("utf-8", "replace") != node_id(master.server):
        raise CommandError("ERR the master is another one, or none is known")
    lines = [line for line in _lines(cluster) if " slave " in line or ",slave " in line]
    return array([bulk(line.encode()) for line in lines])


def _shard_id(cluster: ClusterSeen) -> str:
    return sha1(cluster.cluster_id.encode(), usedforsecurity=False).hexdigest()


def _described(cluster: ClusterSeen) -> bytes:
    master, replicas = _served(cluster)
    served = SLOTS if master is not None else 0
    fields = {
        "cluster_enabled": 1,
        "cluster_state": "ok" if master is not None and cluster.knows_leader else "fail",
        "cluster_slots_assigned": served,
        "cluster_slots_ok": served,
        "cluster_slots_pfail": 0,
        "cluster_slots_fail": 0,
        "cluster_known_nodes": len(replicas) + (master is not None),
        "cluster_size": 1,
        "cluster_current_epoch": cluster.term,
        "cluster_my_epoch": cluster.term,
    }
    return "".join([f"{name}:{value}\r\n" for name, value in fields.items()]).encode()
