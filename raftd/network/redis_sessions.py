"""RAFT.SESSION and RAFT.DO: commands that are carried out once, however often they are sent.

    RAFT.SESSION [name]
    RAFT.DO session serial [LOWEST serial] command [argument ...]

A session is a name in the replicated state, with the replies to its last commands. A client numbers
its commands from 1 on; one that it has no answer to it sends again under the same serial, to
whichever server leads by then, and gets the answer of the first time. It waits for one answer after
the other, or it says by LOWEST which serial is the lowest that it has no answer to yet: the answers
below are forgotten, and what comes under such a serial is refused.

Source: dissertation section 6.3.
"""

from __future__ import annotations

import secrets

from raftd.commands import (
    INTEGER_MAX,
    SESSION_BYTES_MAX,
    Command,
    OpenSession,
    Result,
    encode_command,
)
from raftd.network.redis_actions import (
    SYNTAX_ERROR,
    Action,
    CommandError,
    Session,
    Write,
    integer_of,
    name_of,
    refused,
)
from raftd.network.redis_catalogue import require_count
from raftd.network.redis_framing import bulk
from raftd.network.redis_plans import PLANNERS, plan_of
from raftd.network.redis_transactions import Once, execute, require_lives, written

_SESSION_NAME_BYTES = 16
"""Of a random number: nobody else has the same."""


def open_session(command: list[bytes], session: Session, features: int) -> Action:
    """Answer RAFT.SESSION: open a session, under a name of the client's or a random one."""
    if len(command) > 2:
        raise CommandError(SYNTAX_ERROR)
    name = (
        _session_name(command[1]) if len(command) == 2 else secrets.token_hex(_SESSION_NAME_BYTES)
    )

    def form(result: Result) -> bytes:
        return refused(result) if result.code else bulk(name.encode())

    return Write(encode_command(Command(OpenSession(), name)), form, b"")


def do(command: list[bytes], session: Session, features: int) -> Action:
    """Answer RAFT.DO: carry a command out unless that was done before, and give its reply."""
    name, serial, rest = _session_name(command[1]), integer_of(command[2]), command[3:]
    lowest = serial
    if rest[0].upper() == b"LOWEST":
        if len(rest) < 3:
            raise CommandError(SYNTAX_ERROR)
        lowest, rest = integer_of(rest[1]), rest[2:]
    if not 1 <= lowest <= serial <= INTEGER_MAX:
        raise CommandError("ERR serials count from 1 on, and LOWEST is not above the command's own")
    once = Once(name, serial, lowest)
    require_lives(command, features)
    require_count(rest)
    inner = rest[0].upper()
    if inner == b"EXEC":
        return execute(rest, session, features, once)
    if session.queued is not None:
        raise CommandError("ERR only RAFT.DO session serial EXEC can end a transaction")
    if inner in PLANNERS:
        plan = plan_of(rest, session)
        if not plan.only_reads:
            return written(plan, once)
    raise CommandError(
        f"ERR RAFT.DO is for commands that write, and {name_of(rest).upper()} is none"
    )


def _session_name(argument: bytes) -> str:
    if not 0 < len(argument) <= SESSION_BYTES_MAX:
        raise CommandError(f"ERR the name of a session has 1 to {SESSION_BYTES_MAX} bytes")
    try:
        return argument.decode()
    except UnicodeDecodeError:
        raise CommandError("ERR the name of a session is text in UTF-8") from None
