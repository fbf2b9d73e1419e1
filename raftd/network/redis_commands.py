"""What each command of the Redis protocol asks of the cluster. Pure: no socket, no state.

A command is one of three things: an answer that is known at once, commands for the log, or a read.
What is not listed is not supported, and answered so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

from raftd import __version__
from raftd.commands import (
    FEATURES_COUNTERS,
    INTEGER_MAX,
    INTEGER_MIN,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Command,
    CommandBody,
    Delete,
    DeleteMany,
    Increment,
    PutMany,
    Result,
    encode_command,
    encode_put,
    parse_integer,
)
from raftd.network.redis_framing import (
    NULL_2,
    NULL_3,
    OK,
    array,
    bulk,
    error,
    integer,
    mapping,
    simple,
)

ResultForm: TypeAlias = Callable[[Result], bytes]
"""Makes a reply of what a command has come to."""
ValueForm: TypeAlias = Callable[[bytes | None], bytes]
"""Makes a reply of a value, None for that of a key which does not exist."""

REDIS_VERSION = "7.0.0"
"""What HELLO and INFO name as the version whose commands these are: clients compare it."""


@attrs.frozen
class Reply:
    """Answered at once."""

    content: bytes
    closes: bool = False
    """Whether the connection ends with it."""


@attrs.define
class Write:
    """A command for the log."""

    encoded: bytes
    form: ResultForm
    key: bytes
    """For the slot of a redirection."""


@attrs.define
class Read:
    """A read of one key."""

    key: bytes
    form: ValueForm
    stale: bool = False
    """Whether it is answered from this server's own state, however old."""


Action: TypeAlias = Reply | Write | Read


class CommandError(ValueError):
    """The command is refused; the message is the whole reply, with the word in front."""


@attrs.define
class Session:
    """What a connection has asked for."""

    protocol: int = 2
    """2 or 3."""
    stale_reads: bool = False
    """Whether its reads are answered from this server's own state, however old: READONLY."""


def interpret(command: list[bytes], session: Session, features: int) -> Action:
    """Return what `command` asks for; `session` is changed where that is what it asks.

    Args:
        features: the version of those that are switched on in the replicated state.

    Raises:
        CommandError: it is refused.
    """
    handler = _COMMANDS.get(command[0]) or _COMMANDS.get(command[0].upper())
    if handler is None:
        name = command[0][:64].decode("utf-8", "replace")
        raise CommandError(f"ERR unknown command '{name}': not supported by this server")
    return handler(command, session, features)


def _set(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) < 3:
        raise _wrong_number(command)
    key, value = command[1], command[2]
    if len(value) > VALUE_BYTES_MAX:
        raise _too_long(value)
    if len(command) == 3:
        return Write(encode_put(_key(key), value), _ok, key)
    options = [option.upper() for option in command[3:]]
    if options == [b"NX"]:
        form = _ok_or_null_3 if session.protocol >= 3 else _ok_or_null_2
        return Write(encode_put(_key(key), value, if_absent=True), form, key)
    named = b" ".join(options)[:64].decode("utf-8", "replace")
    raise CommandError(f"ERR SET with '{named}' is not supported by this server, only NX is")


def _get(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 2:
        raise _wrong_number(command)
    key = command[1]
    _key(key)
    return Read(key, _value_3 if session.protocol >= 3 else _value_2, session.stale_reads)


def _exists(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 2:
        raise CommandError("ERR EXISTS takes one key at a time on this server")
    _key(command[1])
    return Read(command[1], _is_there, session.stale_reads)


def _del(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) < 2:
        raise _wrong_number(command)
    keys = [_key(key) for key in command[1:]]
    if len(keys) == 1:
        return Write(_encoded(Delete(keys[0])), _was_applied, command[1])
    _require_counters(command, features)
    return Write(_encoded(DeleteMany(keys)), _number, command[1])


def _mset(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) < 3 or len(command) % 2 == 0:
        raise _wrong_number(command)
    _require_counters(command, features)
    pairs = []
    for position in range(1, len(command), 2):
        key, value = command[position], command[position + 1]
        if len(value) > VALUE_BYTES_MAX:
            raise _too_long(value)
        pairs.append((_key(key), value))
    return Write(_encoded(PutMany(pairs)), _ok, command[1])


def _incr(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 2:
        raise _wrong_number(command)
    return _add(command, 1, features)


def _decr(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 2:
        raise _wrong_number(command)
    return _add(command, -1, features)


def _incrby(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 3:
        raise _wrong_number(command)
    return _add(command, _by(command[2]), features)


def _decrby(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 3:
        raise _wrong_number(command)
    return _add(command, -_by(command[2]), features)


def _add(command: list[bytes], by: int, features: int) -> Action:
    _require_counters(command, features)
    if not INTEGER_MIN <= by <= INTEGER_MAX:
        raise CommandError("ERR decrement would overflow")
    return Write(_encoded(Increment(_key(command[1]), by)), _number, command[1])


def _ping(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) > 2:
        raise _wrong_number(command)
    return Reply(bulk(command[1]) if len(command) == 2 else simple("PONG"))


def _echo(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 2:
        raise _wrong_number(command)
    return Reply(bulk(command[1]))


def _hello(command: list[bytes], session: Session, features: int) -> Action:
    arguments = command[1:]
    if arguments:
        if arguments[0] not in (b"2", b"3"):
            raise CommandError("NOPROTO unsupported protocol version")
        rest = [argument.upper() for argument in arguments[1:]]
        if rest[:1] == [b"AUTH"]:
            raise CommandError("ERR AUTH is not supported: this server knows no users")
        if rest and not (rest[0] == b"SETNAME" and len(rest) == 2):
            raise CommandError("ERR syntax error in HELLO")
        session.protocol = int(arguments[0])
    fields = (
        ("server", bulk(b"raftd")),
        ("version", bulk(REDIS_VERSION.encode())),
        ("proto", integer(session.protocol)),
        ("id", integer(0)),
        ("mode", bulk(b"standalone")),
        ("role", bulk(b"master")),
        ("modules", array(())),
    )
    pairs = [(bulk(name.encode()), content) for name, content in fields]
    return Reply(mapping(pairs, session.protocol))


def _config(command: list[bytes], session: Session, features: int) -> Action:
    # redis-benchmark asks at its start for two settings that only a Redis server has.
    if len(command) < 2 or command[1].upper() != b"GET":
        raise CommandError("ERR CONFIG knows only GET: settings stand in the cluster file")
    return Reply(mapping((), session.protocol))


def _client(command: list[bytes], session: Session, features: int) -> Action:
    subcommand = command[1].upper() if len(command) > 1 else b""
    if subcommand in (b"SETNAME", b"SETINFO"):
        return Reply(OK)
    raise CommandError("ERR CLIENT knows only SETNAME and SETINFO")


def _command(command: list[bytes], session: Session, features: int) -> Action:
    # redis-cli asks for descriptions to complete what is typed, and does without them.
    return Reply(array(()))


def _select(command: list[bytes], session: Session, features: int) -> Action:
    if command[1:] == [b"0"]:
        return Reply(OK)
    raise CommandError("ERR there is one database, number 0")


def _readonly(command: list[bytes], session: Session, features: int) -> Action:
    session.stale_reads = True
    return Reply(OK)


def _readwrite(command: list[bytes], session: Session, features: int) -> Action:
    session.stale_reads = False
    return Reply(OK)


def _info(command: list[bytes], session: Session, features: int) -> Action:
    text = f"# Server\r\nredis_version:{REDIS_VERSION}\r\nraftd_version:{__version__}\r\n"
    return Reply(bulk(text.encode()))


def _quit(command: list[bytes], session: Session, features: int) -> Action:
    return Reply(OK, closes=True)


def _http(command: list[bytes], session: Session, features: int) -> Action:
    # A web page can let the browser of whoever looks at it send a request here, and what it puts
    # into the body would be carried out. Every such request has one of these lines before.
    return Reply(error("ERR this is no web server"), closes=True)


_COMMANDS: Mapping[bytes, Callable[[list[bytes], Session, int], Action]] = {
    b"SET": _set,
    b"GET": _get,
    b"DEL": _del,
    b"UNLINK": _del,
    b"EXISTS": _exists,
    b"MSET": _mset,
    b"INCR": _incr,
    b"DECR": _decr,
    b"INCRBY": _incrby,
    b"DECRBY": _decrby,
    b"PING": _ping,
    b"ECHO": _echo,
    b"HELLO": _hello,
    b"CONFIG": _config,
    b"CLIENT": _client,
    b"COMMAND": _command,
    b"SELECT": _select,
    b"READONLY": _readonly,
    b"READWRITE": _readwrite,
    b"INFO": _info,
    b"QUIT": _quit,
    b"POST": _http,
    b"HOST:": _http,
}


# --- the replies to reads -------------------------------------------------------------------


def _value_2(value: bytes | None) -> bytes:
    return NULL_2 if value is None else bulk(value)


def _value_3(value: bytes | None) -> bytes:
    return NULL_3 if value is None else bulk(value)


def _is_there(value: bytes | None) -> bytes:
    return integer(int(value is not None))


# --- the replies to writes ------------------------------------------------------------------


def _ok(result: Result) -> bytes:
    return _refused(result) if result.code else OK


def _ok_or_null_2(result: Result) -> bytes:
    return OK if result.applied else _refused(result) if result.code else NULL_2


def _ok_or_null_3(result: Result) -> bytes:
    return OK if result.applied else _refused(result) if result.code else NULL_3


def _was_applied(result: Result) -> bytes:
    return _refused(result) if result.code else integer(int(result.applied))


def _number(result: Result) -> bytes:
    return _refused(result) if result.code else integer(result.number)


def _refused(result: Result) -> bytes:
    return error(f"ERR {result.message}")


# --- arguments ------------------------------------------------------------------------------


def _encoded(body: CommandBody) -> bytes:
    return encode_command(Command(body))


def _key(key: bytes) -> str:
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise CommandError(f"ERR a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise CommandError("ERR a key is text in UTF-8 on this server") from None


def _by(argument: bytes) -> int:
    number = parse_integer(argument)
    if number is None:
        raise CommandError("ERR value is not an integer or out of range")
    return number


def _too_long(value: bytes) -> CommandError:
    return CommandError(
        f"ERR a value has at most {VALUE_BYTES_MAX} bytes on this server, not {len(value)}"
    )


def _wrong_number(command: list[bytes]) -> CommandError:
    name = command[0][:64].decode("utf-8", "replace").lower()
    return CommandError(f"ERR wrong number of arguments for '{name}' command")


def _require_counters(command: list[bytes], features: int) -> None:
    if features < FEATURES_COUNTERS:
        name = command[0].decode("utf-8", "replace").upper()
        raise CommandError(
            f"ERR {name} like this needs every server of the cluster to run a release that knows "
            "it: upgrade them all, one after the other"
        )
