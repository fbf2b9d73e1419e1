"""Commands of the Redis protocol that are answered at once: about the connection and the server."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from raftd import __version__
from raftd.commands import VALUE_BYTES_MAX
from raftd.network.redis_actions import (
    REDIS_VERSION,
    SYNTAX_ERROR,
    Action,
    ClusterSeen,
    CommandError,
    Handler,
    Reply,
    Session,
    text_of,
    wrong_number,
)
from raftd.network.redis_auth import auth, authenticate
from raftd.network.redis_framing import OK, array, bulk, error, integer, mapping, simple
from raftd.network.redis_scan import matcher

NAME_BYTES_MAX = 256
"""Of the name of a connection, and of what its library says of itself."""
SYNTAX_ERROR_IN_HELLO = "Syntax error in HELLO option"

# --- the connection -------------------------------------------------------------------------


def ping(command: list[bytes], session: Session, features: int) -> Action:
    """Answer PING."""
    if len(command) > 2:
        raise wrong_number(command)
    return Reply(bulk(command[1]) if len(command) == 2 else simple("PONG"))


def echo(command: list[bytes], session: Session, features: int) -> Action:
    """Answer ECHO."""
    return Reply(bulk(command[1]))


def hello(command: list[bytes], session: Session, features: int) -> Action:
    """Answer HELLO, in the protocol that it asks for."""
    protocol, name = session.protocol, None
    credentials: tuple[bytes, bytes | None] | None = None
    arguments = command[1:]
    if arguments:
        if arguments[0] not in (b"2", b"3"):
            raise CommandError("NOPROTO unsupported protocol version")
        protocol = int(arguments[0])
        rest = iter(arguments[1:])
        for option in rest:
            following = next(rest, None)
            match option.upper():
                case b"SETNAME" if following is not None:
                    name = _name(following)
                case b"AUTH" if following is not None:
                    credentials = (following, next(rest, None))
                case _:
                    raise CommandError(f"ERR {SYNTAX_ERROR_IN_HELLO}")
    if credentials is not None:
        user, password = credentials
        if password is None:
            raise CommandError(f"ERR {SYNTAX_ERROR_IN_HELLO}")
        authenticate(user, password, session)
    session.protocol = protocol
    if name is not None:
        session.name = name
    leads = session.surroundings.leads()
    fields = (
        ("server", bulk(b"raftd")),
        ("version", bulk(REDIS_VERSION.encode())),
        ("proto", integer(protocol)),
        ("id", integer(session.number)),
        ("mode", bulk(b"cluster")),
        ("role", bulk(b"master" if leads else b"replica")),
        ("modules", array(())),
    )
    return Reply(mapping(_bulks(fields), protocol))


def _bulks(fields: Sequence[tuple[str, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(bulk(name.encode()), content) for name, content in fields]


def _name(argument: bytes) -> str:
    """Return a name that can stand in a line of CLIENT LIST."""
    if len(argument) > NAME_BYTES_MAX or any(not 33 <= byte <= 126 for byte in argument):
        raise CommandError(
            "ERR Client names cannot contain spaces, newlines or special characters, and have at "
            f"most {NAME_BYTES_MAX} bytes"
        )
    return argument.decode()


def client(command: list[bytes], session: Session, features: int) -> Action:
    """Answer CLIENT, about this connection."""
    subcommand, arguments = command[1].upper(), command[2:]
    match subcommand, len(arguments):
        case b"ID", 0:
            return Reply(integer(session.number))
        case b"GETNAME", 0:
            return Reply(bulk(session.name.encode()) if session.name else session.null)
        case b"SETNAME", 1:
            session.name = _name(arguments[0])
            return Reply(OK)
        case b"SETINFO", 2:
            attribute = arguments[0].lower()
            if attribute not in (b"lib-name", b"lib-ver"):
                raise CommandError(f"ERR Unrecognized option '{text_of(arguments[0])}'")
            session.library[attribute.decode()] = _name(arguments[1])
            return Reply(OK)
        case b"INFO", 0:
            return Reply(bulk(_client_line(session)))
        case b"LIST", _:
            return Reply(bulk(_client_line(session)))
        case ((b"NO-EVICT" | b"NO-TOUCH"), 1) if arguments[0].upper() in (b"ON", b"OFF"):
            # Nothing is evicted here, and no use of a key is counted.
            return Reply(OK)
        case b"REPLY", 1 if arguments[0].upper() == b"ON":
            return Reply(OK)
        case b"REPLY", 1:
            raise CommandError(
                "ERR CLIENT REPLY knows only ON: what became of a write is always told"
            )
        case (b"GETREDIR", 0):
            return Reply(integer(-1))
    raise CommandError(
        f"ERR CLIENT {text_of(command[1])} is not supported by this server, or not with so many "
        "arguments: it knows ID, SETNAME, GETNAME, SETINFO, INFO, LIST (this connection), "
        "NO-EVICT, NO-TOUCH and REPLY ON"
    )


def _client_line(session: Session) -> bytes:
    fields = {
        "id": session.number,
        "addr": session.remote,
        "name": session.name,
        "db": 0,
        "multi": -1 if session.queued is None else len(session.queued),
        "watch": len(session.watching.revisions),
        "flags": "r" if session.stale_reads else "N",
        "resp": session.protocol,
        "lib-name": session.library.get("lib-name", ""),
        "lib-ver": session.library.get("lib-ver", ""),
    }
    return (" ".join([f"{name}={value}" for name, value in fields.items()]) + "\n").encode()


def select(command: list[bytes], session: Session, features: int) -> Action:
    """Answer SELECT."""
    if command[1] == b"0":
        return Reply(OK)
    raise CommandError("ERR there is one database, number 0")


def readonly(command: list[bytes], session: Session, features: int) -> Action:
    """Answer READONLY: reads may be old from now on, and are answered by every server."""
    session.stale_reads = True
    return Reply(OK)


def readwrite(command: list[bytes], session: Session, features: int) -> Action:
    """Answer READWRITE: reads are linearizable again."""
    session.stale_reads = False
    return Reply(OK)


def quit_(command: list[bytes], session: Session, features: int) -> Action:
    """Answer QUIT."""
    return Reply(OK, closes=True)


def http(command: list[bytes], session: Session, features: int) -> Action:
    """End the connection of a browser.

    A web page can let the browser of whoever looks at it send a request here, and what it puts into
    the body would be carried out. Every such request has one of these lines before.
    """
    return Reply(error("ERR this is no web server"), closes=True)


# --- the server -----------------------------------------------------------------------------

_SETTINGS: Mapping[bytes, Callable[[Session], object]] = {
    b"appendfsync": lambda session: "always",
    b"appendonly": lambda session: "yes",
    b"cluster-enabled": lambda session: "yes",
    b"databases": lambda session: 1,
    b"maxclients": lambda session: session.surroundings.connections_max,
    b"maxmemory": lambda session: 0,
    b"maxmemory-policy": lambda session: "noeviction",
    b"proto-max-bulk-len": lambda session: VALUE_BYTES_MAX,
    b"save": lambda session: "",
    b"timeout": lambda session: 0,
}
"""What clients and redis-benchmark look for, in the words of Redis."""


def config(command: list[bytes], session: Session, features: int) -> Action:
    """Answer CONFIG GET."""
    if command[1].upper() != b"GET" or len(command) < 3:
        raise CommandError(
            "ERR CONFIG knows only GET: settings stand in the cluster file, see "
            "`raftctl config show`"
        )
    patterns = [matcher(pattern.lower()) for pattern in command[2:]]
    found = [
        (bulk(name), bulk(str(setting(session)).encode()))
        for name, setting in _SETTINGS.items()
        if any(matches(name) for matches in patterns)
    ]
    return Reply(mapping(found, session.protocol))


def info(command: list[bytes], session: Session, features: int) -> Action:
    """Answer INFO."""
    wanted = {section.lower() for section in command[1:]}
    everything = not wanted or wanted & {b"all", b"default", b"everything"}
    cluster = session.surroundings.cluster()
    parts = []
    for name, section in _SECTIONS.items():
        if everything or name.lower().encode() in wanted:
            fields = section(cluster, session)
            lines = "".join([f"{field}:{value}\r\n" for field, value in fields.items()])
            parts.append(f"# {name}\r\n{lines}")
    return Reply(bulk("\r\n".join(parts).encode()))


def _about_server(cluster: ClusterSeen, session: Session) -> dict[str, object]:
    member = cluster.member(cluster.server)
    return {
        "redis_version": REDIS_VERSION,
        "redis_mode": "cluster",
        "raftd_version": __version__,
        "raftd_server": cluster.server,
        "process_id": os.getpid(),
        "tcp_port": member.redis.rpartition(":")[2] if member else "",
        "server_time_usec": session.surroundings.wall_clock_ms() * 1000,
        "uptime_in_seconds": cluster.uptime_ms // 1000,
        "uptime_in_days": cluster.uptime_ms // 86_400_000,
    }


def _about_clients(cluster: ClusterSeen, session: Session) -> dict[str, object]:
    surroundings = session.surroundings
    return {
        "connected_clients": surroundings.connection_count(),
        "maxclients": surroundings.connections_max,
        "blocked_clients": 0,
    }


def _about_memory(cluster: ClusterSeen, session: Session) -> dict[str, object]:
    memory_bytes = session.surroundings.memory_bytes()
    return {
        "used_memory": memory_bytes,
        "used_memory_rss": memory_bytes,
        "maxmemory": 0,
        "maxmemory_policy": "noeviction",
    }


def _about_persistence(cluster: ClusterSeen, session: Session) -> dict[str, object]:
    return {"loading": 0, "aof_enabled": 1}


def _about_replication(cluster: ClusterSeen, session: Session) -> dict[str, object]:
    others = [each for each in cluster.members if each.server != cluster.server]
    if cluster.leads:
        fields: dict[str, object] = {"role": "master", "connected_slaves": len(others)}
        for number, each in enumerate(others):
            host, _, port = (each.redis or each.address).rpartition(":")
            state = "online" if each.connected else "offline"
            fields[f"slave{number}"] = f"ip={host},port={port},state={state}"
    else:
        leader = cluster.member(cluster.leader)
        host, _, port = (leader.redis if leader else "").rpartition(":")
        fields = {
            "role": "slave",
            "master_host": host,
            "master_port": port,
            "master_link_status": "up" if cluster.knows_leader else "down",
            "slave_repl_offset": cluster.applied_index,
            "slave_read_only": 1,
        }
    return fields | {
        "master_repl_offset": cluster.commit_index,
        "raft_term": cluster.term,
        "raft_commit_index": cluster.commit_index,
        "raft_applied_index": cluster.applied_index,
    }


def _about_cluster(cluster: ClusterSeen, session: Session) -> dict[str, object]:
    return {"cluster_enabled": 1}


_SECTIONS: Mapping[str, Callable[[ClusterSeen, Session], dict[str, object]]] = {
    "Server": _about_server,
    "Clients": _about_clients,
    "Memory": _about_memory,
    "Persistence": _about_persistence,
    "Replication": _about_replication,
    "Cluster": _about_cluster,
}


def role(command: list[bytes], session: Session, features: int) -> Action:
    """Answer ROLE."""
    cluster = session.surroundings.cluster()
    if cluster.leads:
        replicas = [
            array([bulk(part.encode()) for part in (*_host_and_port(each.redis), "0")])
            for each in cluster.members
            if each.redis and each.server != cluster.server
        ]
        return Reply(array([bulk(b"master"), integer(cluster.commit_index), array(replicas)]))
    leader = cluster.member(cluster.leader)
    host, port = _host_and_port(leader.redis if leader else "")
    state = b"connected" if cluster.knows_leader else b"connect"
    return Reply(
        array(
            [
                bulk(b"slave"),
                bulk(host.encode()),
                integer(int(port or 0)),
                bulk(state),
                integer(cluster.applied_index),
            ]
        )
    )


def _host_and_port(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def wait(command: list[bytes], session: Session, features: int) -> Action:
    """Answer WAIT: an acknowledged write is on the disks of a quorum, and no more is known."""
    if not (command[1].isdigit() and command[2].isdigit()):
        raise CommandError("ERR value is not an integer or out of range")
    cluster = session.surroundings.cluster()
    if not cluster.leads:
        raise CommandError("ERR WAIT cannot be used with replica instances")
    return Reply(integer(max(0, cluster.quorum - 1)))


def time(command: list[bytes], session: Session, features: int) -> Action:
    """Answer TIME, by the clock of this server."""
    seconds, ms = divmod(session.surroundings.wall_clock_ms(), 1000)
    return Reply(array([bulk(b"%d" % seconds), bulk(b"%d" % (ms * 1000))]))


# --- RAFT -----------------------------------------------------------------------------------


def raft(command: list[bytes], session: Session, features: int) -> Action:
    """Answer RAFT: what this server sees of the cluster, without asking anybody."""
    if len(command) != 2:
        raise CommandError(SYNTAX_ERROR + ", try RAFT HELP")
    cluster = session.surroundings.cluster()
    match command[1].upper():
        case b"STATUS":
            return Reply(mapping(_bulks(_status(cluster, session)), session.protocol))
        case b"MEMBERS":
            members = [
                mapping(_bulks(_member(each.server, cluster)), session.protocol)
                for each in cluster.members
            ]
            return Reply(array(members))
        case b"LEADER":
            leader = cluster.member(cluster.leader) if cluster.knows_leader else None
            return Reply(bulk(leader.redis.encode()) if leader and leader.redis else session.null)
        case b"HELP":
            return Reply(array([bulk(line.encode()) for line in _RAFT_HELP]))
    raise CommandError(
        f"ERR RAFT {text_of(command[1])} is not supported by this server: it knows STATUS, "
        "MEMBERS, LEADER and HELP. The membership is changed with raftctl"
    )


_RAFT_HELP = (
    "RAFT STATUS: what this server sees of the cluster",
    "RAFT MEMBERS: its members, and whether this server is connected with them",
    "RAFT LEADER: where the leader serves Redis clients; nothing if none is known",
    "RAFT.SESSION [name]: open a session; the reply is its name",
    "RAFT.DO session serial [LOWEST serial] command [argument ...]: carry out exactly once",
    "The membership is changed with raftctl, and nowhere else.",
)


def _status(cluster: ClusterSeen, session: Session) -> list[tuple[str, bytes]]:
    leader = cluster.leader if cluster.knows_leader else ""
    return [
        ("server", bulk(cluster.server.encode())),
        ("cluster", bulk(cluster.cluster_name.encode())),
        ("cluster-id", bulk(cluster.cluster_id.encode())),
        ("leader", bulk(leader.encode()) if leader else session.null),
        ("term", integer(cluster.term)),
        ("configuration-index", integer(cluster.configuration_index)),
        ("joint", integer(int(cluster.is_joint))),
        ("last-index", integer(cluster.last_index)),
        ("commit-index", integer(cluster.commit_index)),
        ("applied-index", integer(cluster.applied_index)),
    ]


def _member(server: str, cluster: ClusterSeen) -> list[tuple[str, bytes]]:
    member = cluster.member(server)
    assert member is not None
    role = "voter" if member.is_voter else "learner"
    is_leader = cluster.knows_leader and server == cluster.leader
    return [
        ("server", bulk(server.encode())),
        ("address", bulk(member.address.encode())),
        ("redis", bulk(member.redis.encode())),
        ("role", bulk(role.encode())),
        ("leader", integer(int(is_leader))),
        ("connected", integer(int(member.connected))),
    ]


ANSWERS: Mapping[bytes, Handler] = {
    b"PING": ping,
    b"ECHO": echo,
    b"HELLO": hello,
    b"AUTH": auth,
    b"CLIENT": client,
    b"SELECT": select,
    b"READONLY": readonly,
    b"READWRITE": readwrite,
    b"QUIT": quit_,
    b"CONFIG": config,
    b"INFO": info,
    b"ROLE": role,
    b"WAIT": wait,
    b"TIME": time,
    b"RAFT": raft,
}
"""By their names in capitals. The number of their arguments was looked at before, as far as the
description of the commands says it."""
ANSWERS_IN_TRANSACTIONS: Mapping[bytes, Handler] = {
    name: ANSWERS[name] for name in (b"PING", b"ECHO", b"SELECT", b"TIME")
}
"""Those that may come between MULTI and EXEC."""
