"""What each command of the Redis protocol asks of the cluster. Pure: no socket, no state.

The commands that nearly all clients send all the time are taken apart here, in as few steps as
possible. The others are plans (`raftd.network.redis_plans`) or answers that are known at once. What
is not listed is not supported, and answered so.
"""

from __future__ import annotations

from collections.abc import Mapping

from raftd.commands import (
    FEATURES_COUNTERS,
    INTEGER_MAX,
    INTEGER_MIN,
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
)
from raftd.network.redis_actions import (
    Action,
    CommandError,
    Handler,
    Read,
    Reply,
    Session,
    Write,
    integer_of,
    key_text,
    name_of,
    refused,
    value_2,
    value_3,
    value_of,
    wrong_number,
)
from raftd.network.redis_answers import ANSWERS, http, quit_
from raftd.network.redis_catalogue import answer_command, require_count
from raftd.network.redis_cluster import answer_cluster
from raftd.network.redis_framing import NULL_2, NULL_3, OK, integer, simple
from raftd.network.redis_plans import PLANNERS, plan_of
from raftd.network.redis_scan import dbsize, keys, scan
from raftd.network.redis_sessions import do, open_session
from raftd.network.redis_transactions import (
    asked,
    discard,
    execute,
    forget,
    multi,
    queue,
    require_lives,
    unwatch,
    watch,
    written,
)
from raftd.network.redis_unsupported import unsupported


def interpret(command: list[bytes], session: Session, features: int) -> Action:
    """Return what `command` asks for; `session` is changed where that is what it asks.

    Args:
        features: the version of those that are switched on in the replicated state.

    Raises:
        CommandError: it is refused.
    """
    if session.queued is not None:
        return queue(command, session, features, _ENDING)
    handler = _COMMANDS.get(command[0]) or _COMMANDS.get(command[0].upper())
    if handler is None:
        raise unsupported(command)
    return handler(command, session, features)


def _planned(command: list[bytes], session: Session, features: int) -> Action:
    require_count(command)
    plan = plan_of(command, session)
    if plan.only_reads:
        return asked(plan, session)
    require_lives(command, features)
    return written(plan)


def _set(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 3:
        return _set_with_options(command, session, features)
    key, value = command[1], command[2]
    if len(value) > VALUE_BYTES_MAX:
        value_of(value)
    return Write(encode_put(key_text(key), value), _ok, key)


def _set_with_options(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) == 4 and command[3].upper() == b"NX":
        # The one option that every release can apply.
        key = command[1]
        form = _ok_or_null_3 if session.protocol >= 3 else _ok_or_null_2
        encoded = encode_put(key_text(key), value_of(command[2]), if_absent=True)
        return Write(encoded, form, key)
    return _planned(command, session, features)


def _get(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 2:
        raise wrong_number(command)
    key = command[1]
    key_text(key)
    return Read(key, value_3 if session.protocol >= 3 else value_2, session.stale_reads)


def _exists(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 2:
        return _planned(command, session, features)
    key_text(command[1])
    return Read(command[1], _is_there, session.stale_reads)


def _del(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) < 2:
        raise wrong_number(command)
    keys = [key_text(key) for key in command[1:]]
    if len(keys) == 1:
        return Write(_encoded(Delete(keys[0])), _was_applied, command[1])
    _require_counters(command, features)
    return Write(_encoded(DeleteMany(keys)), _number, command[1])


def _mset(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) < 3 or len(command) % 2 == 0:
        raise wrong_number(command)
    _require_counters(command, features)
    pairs = []
    for position in range(1, len(command), 2):
        key, value = command[position], command[position + 1]
        if len(value) > VALUE_BYTES_MAX:
            value_of(value)
        pairs.append((key_text(key), value))
    return Write(_encoded(PutMany(pairs)), _ok, command[1])


def _incr(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 2:
        raise wrong_number(command)
    return _add(command, 1, features)


def _decr(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 2:
        raise wrong_number(command)
    return _add(command, -1, features)


def _incrby(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 3:
        raise wrong_number(command)
    return _add(command, integer_of(command[2]), features)


def _decrby(command: list[bytes], session: Session, features: int) -> Action:
    if len(command) != 3:
        raise wrong_number(command)
    return _add(command, -integer_of(command[2]), features)


def _add(command: list[bytes], by: int, features: int) -> Action:
    _require_counters(command, features)
    if not INTEGER_MIN <= by <= INTEGER_MAX:
        raise CommandError("ERR decrement would overflow")
    return Write(_encoded(Increment(key_text(command[1]), by)), _number, command[1])


def _reset(command: list[bytes], session: Session, features: int) -> Action:
    require_count(command)
    forget(session)
    session.protocol, session.stale_reads, session.name = 2, False, ""
    session.locked |= session.said_password
    return Reply(simple("RESET"))


def _counted(handler: Handler) -> Handler:
    """Return a handler that is asked only if the command has the right number of words."""

    def counted(command: list[bytes], session: Session, features: int) -> Action:
        require_count(command)
        return handler(command, session, features)

    return counted


_ENDING: Mapping[bytes, Handler] = {
    b"EXEC": execute,
    b"DISCARD": discard,
    b"RAFT.DO": do,
    b"RESET": _reset,
    b"QUIT": quit_,
    b"POST": http,
    b"HOST:": http,
}
"""What is carried out between MULTI and EXEC as well."""

_COMMANDS: Mapping[bytes, Handler] = {
    **dict.fromkeys(PLANNERS, _planned),
    **{name: _counted(handler) for name, handler in ANSWERS.items()},
    b"COMMAND": answer_command,
    b"CLUSTER": _counted(answer_cluster),
    b"SCAN": _counted(scan),
    b"KEYS": _counted(keys),
    b"DBSIZE": _counted(dbsize),
    b"MULTI": _counted(multi),
    b"EXEC": _counted(execute),
    b"DISCARD": _counted(discard),
    b"WATCH": _counted(watch),
    b"UNWATCH": _counted(unwatch),
    b"RESET": _reset,
    b"RAFT.SESSION": _counted(open_session),
    b"RAFT.DO": _counted(do),
    b"POST": http,
    b"HOST:": http,
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
}


# --- the replies to reads -------------------------------------------------------------------


def _is_there(value: bytes | None) -> bytes:
    return integer(int(value is not None))


# --- the replies to writes ------------------------------------------------------------------


def _ok(result: Result) -> bytes:
    return refused(result) if result.code else OK


def _ok_or_null_2(result: Result) -> bytes:
    return OK if result.applied else refused(result) if result.code else NULL_2


def _ok_or_null_3(result: Result) -> bytes:
    return OK if result.applied else refused(result) if result.code else NULL_3


def _was_applied(result: Result) -> bytes:
    return refused(result) if result.code else integer(int(result.applied))


def _number(result: Result) -> bytes:
    return refused(result) if result.code else integer(result.number)


def _encoded(body: CommandBody) -> bytes:
    return encode_command(Command(body))


def _require_counters(command: list[bytes], features: int) -> None:
    if features < FEATURES_COUNTERS:
        raise CommandError(
            f"ERR {name_of(command).upper()} like this needs every server of the cluster to run a "
            "release that knows it: upgrade them all, one after the other"
        )
