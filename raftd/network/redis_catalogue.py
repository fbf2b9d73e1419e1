"""The commands of the Redis protocol that this server knows, as COMMAND describes them.

Clients go by it: cluster clients for the places of the keys, redis-cli to complete what is typed.
What stands here is carried out; all else is refused, `raftd.network.redis_unsupported` says how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from raftd.network.redis_actions import (
    Action,
    CommandError,
    Reply,
    Session,
    text_of,
    wrong_number,
)
from raftd.network.redis_framing import array, bulk, integer, mapping, simple


@attrs.frozen
class Description:
    """What there is to know of one command."""

    name: str
    arity: int
    """How many words it has, its name included; negative: at least so many."""
    flags: str
    """Separated by spaces."""
    first_key: int
    """Place of its first key among the words; 0 if it has none."""
    last_key: int
    """Place of its last key; negative: counted from the end."""
    key_step: int
    """From one key to the next one."""
    group: str
    since: str
    """The version of Redis that brought it, or of raftd for its own."""
    summary: str

    def allows(self, count: int) -> bool:
        """Return whether a command of so many words has the right number of them."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    def keys(self, command: Sequence[bytes]) -> list[bytes]:
        """Return the keys of a command."""
        if not self.first_key:
            return []
        last = self.last_key if self.last_key >= 0 else len(command) + self.last_key
        return list(command[self.first_key : last + 1 : self.key_step])


_WRITES = "write denyoom"
_QUICK_WRITES = "write denyoom fast"
_READS = "readonly"
_QUICK_READS = "readonly fast"
_CONNECTION = "noscript loading stale fast"
_ADMINISTRATION = "loading stale"

_ROWS: tuple[tuple[str, int, str, int, int, int, str, str, str], ...] = (
    # --- strings ---
    ("append", 3, _QUICK_WRITES, 1, 1, 1, "string", "2.0.0", "Append bytes to a value"),
    ("decr", 2, _QUICK_WRITES, 1, 1, 1, "string", "1.0.0", "Subtract one from a number"),
    ("decrby", 3, _QUICK_WRITES, 1, 1, 1, "string", "1.0.0", "Subtract from a number"),
    ("get", 2, _QUICK_READS, 1, 1, 1, "string", "1.0.0", "Get a value"),
    ("getdel", 2, "write fast", 1, 1, 1, "string", "6.2.0", "Get a value and remove its key"),
    ("getex", -2, "write fast", 1, 1, 1, "string", "6.2.0", "Get a value and change its life"),
    ("getrange", 4, _READS, 1, 1, 1, "string", "2.4.0", "Get a part of a value"),
    ("getset", 3, _QUICK_WRITES, 1, 1, 1, "string", "1.0.0", "Set a value, get the one before"),
    ("incr", 2, _QUICK_WRITES, 1, 1, 1, "string", "1.0.0", "Add one to a number"),
    ("incrby", 3, _QUICK_WRITES, 1, 1, 1, "string", "1.0.0", "Add to a number"),
    ("mget", -2, _QUICK_READS, 1, -1, 1, "string", "1.0.0", "Get several values at one point"),
    ("mset", -3, _WRITES, 1, -1, 2, "string", "1.0.1", "Set several values at once"),
    ("msetnx", -3, _WRITES, 1, -1, 2, "string", "1.0.1", "Likewise, if none of the keys exists"),
    ("psetex", 4, _WRITES, 1, 1, 1, "string", "2.6.0", "Set a value for some milliseconds"),
    ("set", -3, _WRITES, 1, 1, 1, "string", "1.0.0", "Set a value"),
    ("setex", 4, _WRITES, 1, 1, 1, "string", "2.0.0", "Set a value for some seconds"),
    ("setnx", 3, _QUICK_WRITES, 1, 1, 1, "string", "1.0.0", "Set a value if the key is not there"),
    ("strlen", 2, _QUICK_READS, 1, 1, 1, "string", "2.2.0", "Get the length of a value"),
    ("substr", 4, _READS, 1, 1, 1, "string", "1.0.0", "Get a part of a value"),
    # --- keys ---
    ("dbsize", 1, _QUICK_READS, 0, 0, 0, "server", "1.0.0", "Count the keys, up to a limit"),
    ("del", -2, "write", 1, -1, 1, "generic", "1.0.0", "Remove keys"),
    ("exists", -2, _QUICK_READS, 1, -1, 1, "generic", "1.0.0", "Count those of the keys there are"),
    ("expire", -3, "write fast", 1, 1, 1, "generic", "1.0.0", "Let a key live for some seconds"),
    ("expireat", -3, "write fast", 1, 1, 1, "generic", "1.2.0", "Let a key live until a second"),
    ("expiretime", 2, _QUICK_READS, 1, 1, 1, "generic", "7.0.0", "Get the second a life ends"),
    ("keys", 2, _READS, 0, 0, 0, "generic", "1.0.0", "Find keys by a pattern, up to a limit"),
    ("object", -2, _READS, 2, 2, 1, "generic", "2.2.3", "ENCODING: whether a value is a number"),
    ("persist", 2, "write fast", 1, 1, 1, "generic", "2.2.0", "Let a key live for ever"),
    ("pexpire", -3, "write fast", 1, 1, 1, "generic", "2.6.0", "Like EXPIRE, in milliseconds"),
    ("pexpireat", -3, "write fast", 1, 1, 1, "generic", "2.6.0", "Like EXPIREAT, in milliseconds"),
    ("pexpiretime", 2, _QUICK_READS, 1, 1, 1, "generic", "7.0.0", "Likewise, in milliseconds"),
    ("pttl", 2, _QUICK_READS, 1, 1, 1, "generic", "2.6.0", "Get what is left of a life, in ms"),
    ("scan", -2, _READS, 0, 0, 0, "generic", "2.8.0", "Go through all keys, a part at a time"),
    ("touch", -2, _QUICK_READS, 1, -1, 1, "generic", "3.2.1", "Count those of the keys there are"),
    ("ttl", 2, _QUICK_READS, 1, 1, 1, "generic", "1.0.0", "Get what is left of a life, in s"),
    ("type", 2, _QUICK_READS, 1, 1, 1, "generic", "1.0.0", "Say whether a key is there: string"),
    ("unlink", -2, "write fast", 1, -1, 1, "generic", "4.0.0", "Remove keys"),
    (
        "wait",
        3,
        _ADMINISTRATION,
        0,
        0,
        0,
        "generic",
        "3.0.0",
        "Say on how many followers writes are",
    ),
    # --- transactions ---
    ("discard", 1, _CONNECTION, 0, 0, 0, "transactions", "2.0.0", "Drop what MULTI has begun"),
    (
        "exec",
        1,
        "noscript loading stale",
        0,
        0,
        0,
        "transactions",
        "1.2.0",
        "Carry it out, at once",
    ),
    ("multi", 1, _CONNECTION, 0, 0, 0, "transactions", "1.2.0", "Begin a transaction"),
    ("unwatch", 1, _CONNECTION, 0, 0, 0, "transactions", "2.2.0", "Watch no keys any more"),
    (
        "watch",
        -2,
        _CONNECTION,
        1,
        -1,
        1,
        "transactions",
        "2.2.0",
        "EXEC only if these stay as they are",
    ),
    # --- the connection ---
    (
        "auth",
        -2,
        _CONNECTION + " no_auth",
        *(0, 0, 0),
        "connection",
        "1.0.0",
        "Say the password",
    ),
    ("client", -2, _CONNECTION, 0, 0, 0, "connection", "2.4.0", "About this connection"),
    ("echo", 2, "fast", 0, 0, 0, "connection", "1.0.0", "Say it back"),
    ("hello", -1, _CONNECTION + " no_auth", 0, 0, 0, "connection", "6.0.0", "Choose the protocol"),
    ("ping", -1, "fast", 0, 0, 0, "connection", "1.0.0", "Say that it is there"),
    ("quit", -1, _CONNECTION + " no_auth", 0, 0, 0, "connection", "1.0.0", "End the connection"),
    (
        "readonly",
        1,
        _CONNECTION,
        0,
        0,
        0,
        "cluster",
        "3.0.0",
        "Read this server's state, however old",
    ),
    ("readwrite", 1, _CONNECTION, 0, 0, 0, "cluster", "3.0.0", "Read linearizably again"),
    (
        "reset",
        1,
        _CONNECTION + " no_auth",
        0,
        0,
        0,
        "connection",
        "6.2.0",
        "Begin the connection anew",
    ),
    ("select", 2, _CONNECTION, 0, 0, 0, "connection", "1.0.0", "Choose database 0, the only one"),
    # --- servers ---
    (
        "cluster",
        -2,
        _ADMINISTRATION,
        0,
        0,
        0,
        "cluster",
        "3.0.0",
        "Who leads, and who else is there",
    ),
    ("command", -1, _ADMINISTRATION, 0, 0, 0, "server", "2.8.13", "Describe the commands"),
    ("config", -2, _ADMINISTRATION, 0, 0, 0, "server", "2.0.0", "GET: what clients look for"),
    ("info", -1, _ADMINISTRATION, 0, 0, 0, "server", "1.0.0", "Describe the server"),
    ("role", 1, _CONNECTION, 0, 0, 0, "server", "2.8.12", "Say whether it leads"),
    ("time", 1, "loading stale fast", 0, 0, 0, "server", "2.6.0", "Its clock"),
    # --- raftd's own ---
    ("raft", -2, _ADMINISTRATION, 0, 0, 0, "raft", "0.1.0", "STATUS, MEMBERS, LEADER: the cluster"),
    ("raft.session", -1, "write fast", 0, 0, 0, "raft", "0.1.0", "Open a session for RAFT.DO"),
    ("raft.do", -4, "write", 0, 0, 0, "raft", "0.1.0", "Carry a command out exactly once"),
)

DESCRIPTIONS: Mapping[bytes, Description] = {
    row[0].upper().encode(): Description(*row) for row in _ROWS
}
"""By their names in capitals."""


def describe(name: bytes) -> Description | None:
    """Return what there is to know of a command, None if it is not known."""
    return DESCRIPTIONS.get(name) or DESCRIPTIONS.get(name.upper())


def require_count(command: list[bytes]) -> None:
    """Return if a known command has the right number of words.

    Raises:
        CommandError: it has not.
    """
    described = describe(command[0])
    if described is not None and not described.allows(len(command)):
        raise wrong_number(command)


def answer_command(command: list[bytes], session: Session, features: int) -> Action:
    """Answer COMMAND."""
    subcommand = command[1].upper() if len(command) > 1 else b""
    match subcommand:
        case b"":
            return Reply(array([_described(each) for each in DESCRIPTIONS.values()]))
        case b"COUNT":
            return Reply(integer(len(DESCRIPTIONS)))
        case b"LIST":
            return Reply(array([bulk(each.name.encode()) for each in DESCRIPTIONS.values()]))
        case b"INFO":
            names = command[2:] or list(DESCRIPTIONS)
            found = [describe(name) for name in names]
            none = b"*-1\r\n" if session.protocol < 3 else session.null
            return Reply(array([_described(each) if each else none for each in found]))
        case b"DOCS":
            names = command[2:] or list(DESCRIPTIONS)
            known = [each for each in map(describe, names) if each is not None]
            pairs = [(bulk(each.name.encode()), _documented(each, session)) for each in known]
            return Reply(mapping(pairs, session.protocol))
        case b"GETKEYS":
            return Reply(array([bulk(key) for key in _keys_of(command[2:])]))
        case b"GETKEYSANDFLAGS":
            asked = describe(command[2]) if len(command) > 2 else None
            access = b"RW" if asked is not None and "write" in asked.flags else b"RO"
            flags = array([simple(access.decode()), simple("access")])
            return Reply(array([array([bulk(key), flags]) for key in _keys_of(command[2:])]))
    raise CommandError(
        f"ERR unknown subcommand '{text_of(command[1])}' of COMMAND: it knows COUNT, DOCS, "
        "GETKEYS, GETKEYSANDFLAGS, INFO and LIST"
    )


def _keys_of(command: list[bytes]) -> list[bytes]:
    described = describe(command[0]) if command else None
    if described is None:
        raise CommandError("ERR Invalid command specified")
    if not described.allows(len(command)):
        raise CommandError("ERR Invalid number of arguments specified for command")
    keys = described.keys(command)
    if not keys:
        raise CommandError("ERR The command has no key arguments")
    return keys


def _described(each: Description) -> bytes:
    empty = array(())
    return array(
        [
            bulk(each.name.encode()),
            integer(each.arity),
            array([simple(flag) for flag in each.flags.split()]),
            integer(each.first_key),
            integer(each.last_key),
            integer(each.key_step),
            array([simple(f"@{each.group}")]),
            *([empty] * 3),
        ]
    )


def _documented(each: Description, session: Session) -> bytes:
    fields = {"summary": each.summary, "since": each.since, "group": each.group}
    pairs = [(bulk(name.encode()), bulk(text.encode())) for name, text in fields.items()]
    return mapping(pairs, session.protocol)
