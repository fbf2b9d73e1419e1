"""What a command of the Redis protocol may ask for, and what a connection has asked for before.

A command is one of four things: an answer that is known at once, a command for the log, the value
of one key, or another question to the state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import attrs

from raftd.commands import KEY_BYTES_MAX, VALUE_BYTES_MAX, Result, parse_integer
from raftd.core.types import Index, ServerId, Term
from raftd.inputs import StateView
from raftd.network.redis_cursors import Cursors
from raftd.network.redis_framing import NULL_2, NULL_3, bulk, error
from raftd.passwords import CurrentPassword

if TYPE_CHECKING:
    from raftd.network.redis_plans import Plan

REDIS_VERSION = "7.0.0"
"""What HELLO and INFO name as the version whose commands these are: clients compare it."""
NAME_BYTES_MAX = 64
"""Of a name that an error repeats."""

ResultForm: TypeAlias = Callable[[Result], bytes]
"""Makes a reply of what a command has come to."""
ValueForm: TypeAlias = Callable[[bytes | None], bytes]
"""Makes a reply of a value, None for that of a key which does not exist."""


class CommandError(ValueError):
    """The command is refused; the message is the whole reply, with the word in front."""


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


@attrs.define(kw_only=True)
class Query:
    """Another question to the state."""

    run: Callable[[StateView], bytes]
    """Returns the reply. It may be called again if there was no room for that."""
    failed: Callable[[], None] | None = None
    """Called if there is no answer."""
    key: bytes = b""
    """For the slot of a redirection."""
    cost: int = 1
    """How many reads of one key take as long."""
    stale: bool = False


@attrs.define
class Later:
    """What depends on the answers to the commands before it on its connection."""

    decide: Callable[[], Reply | Write | Query]
    """Called when all of them have been answered; raises `CommandError` for a refusal."""


Action: TypeAlias = Reply | Write | Read | Query | Later
Handler: TypeAlias = "Callable[[list[bytes], Session, int], Action]"
"""Returns what a command asks for; the last argument is the version of the features."""


# --- what is known of the servers ----------------------------------------------------------


@attrs.frozen(kw_only=True)
class MemberSeen:
    """A member as this server sees it."""

    server: ServerId
    address: str
    """HOST:PORT for the other servers and raftctl."""
    redis: str
    """HOST:PORT for Redis clients; empty if it serves none, or if that is not known here."""
    is_voter: bool
    connected: bool
    """Whether our link to it is up; true for this server itself."""


@attrs.frozen(kw_only=True)
class ClusterSeen:
    """The cluster as one of its servers sees it, right or wrong: it has asked nobody for this."""

    server: ServerId
    """Itself."""
    cluster_name: str = ""
    cluster_id: str = ""
    """Empty while it belongs to none."""
    leader: ServerId = ""
    """The one that it knew last; empty if it has known none since it started."""
    knows_leader: bool = False
    """Whether it is so now."""
    term: Term = 0
    configuration_index: Index = 0
    commit_index: Index = 0
    applied_index: Index = 0
    last_index: Index = 0
    is_joint: bool = False
    quorum: int = 0
    """How many servers at least have each write on their disks that is acknowledged."""
    members: tuple[MemberSeen, ...] = ()
    """In the order of their names."""
    uptime_ms: int = 0

    @property
    def leads(self) -> bool:
        """Whether this server is the leader, as far as it knows."""
        return self.knows_leader and self.leader == self.server

    def member(self, server: ServerId) -> MemberSeen | None:
        """Return what is known of a member, None if it is none."""
        return next((each for each in self.members if each.server == server), None)


@attrs.define
class Surroundings:
    """What the commands of all connections of a listener may look at."""

    cluster: Callable[[], ClusterSeen] = lambda: ClusterSeen(server="")
    leads: Callable[[], bool] = lambda: True
    """Whether this server is the leader, as far as it knows."""
    wall_clock_ms: Callable[[], int] = lambda: 0
    """Milliseconds since 1970, for commands that name a moment."""
    memory_bytes: Callable[[], int] = lambda: 0
    """What the process takes of the machine's memory."""
    connection_count: Callable[[], int] = lambda: 0
    connections_max: int = 0
    queued_bytes: int = 0
    """What transactions hold that were begun and not executed, of all connections together."""
    cursors: Cursors = attrs.field(factory=Cursors)
    """Where the clients are that go through the keys."""
    sessions: int = 0
    """How many connections there were: the last one's number."""
    password: CurrentPassword = attrs.field(factory=lambda: CurrentPassword(None))
    """What clients have to say first that show no certificate."""


@attrs.define
class Watching:
    """The keys that a connection watches, until it is done with them."""

    revisions: dict[str, int] = attrs.field(factory=dict)
    """The mod revisions that they had then; 0 for one that was not there."""
    pending: int = 0
    """Commands whose keys are not known yet."""
    failed: bool = False
    """Whether some could not be watched, so that EXEC must not go by the others."""


@attrs.define
class Session:
    """What a connection has asked for."""

    protocol: int = 2
    """2 or 3."""
    locked: bool = False
    """Whether it has to say the password before anything else."""
    said_password: bool = False
    """Whether it was let in for that, so that RESET locks it again."""
    wrong_passwords: int = 0
    stale_reads: bool = False
    """Whether its reads are answered from this server's own state, however old: READONLY."""
    queued: list[Plan] | None = None
    """The commands since MULTI; None outside of a transaction."""
    queued_bytes: int = 0
    """What they hold, about."""
    aborted: bool = False
    """Whether one of them was refused, so that EXEC does nothing."""
    watching: Watching = attrs.field(factory=Watching)
    name: str = ""
    library: dict[str, str] = attrs.field(factory=dict)
    """What CLIENT SETINFO has said."""
    number: int = 0
    """Of the connection, for CLIENT ID."""
    remote: str = ""
    """HOST:PORT of the client."""
    surroundings: Surroundings = attrs.field(factory=Surroundings, eq=False, repr=False)

    @property
    def null(self) -> bytes:
        """The reply for nothing."""
        return NULL_3 if self.protocol >= 3 else NULL_2


# --- replies --------------------------------------------------------------------------------


def value_2(value: bytes | None) -> bytes:
    """Return the reply for a value, in version 2 of the protocol."""
    return NULL_2 if value is None else bulk(value)


def value_3(value: bytes | None) -> bytes:
    """Return the reply for a value, in version 3 of the protocol."""
    return NULL_3 if value is None else bulk(value)


_ERRORS = {
    "session-expired": "SESSIONEXPIRED",
    "stale-serial": "STALESERIAL",
    "too-many-unacknowledged": "TOOMANYUNACKNOWLEDGED",
}


def refused(result: Result) -> bytes:
    """Return the reply for what the state has refused."""
    return error(f"{_ERRORS.get(result.code, 'ERR')} {result.message}")


# --- arguments ------------------------------------------------------------------------------


def key_text(key: bytes) -> str:
    """Return a key as the state knows it.

    Raises:
        CommandError: it can be no key.
    """
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise CommandError(f"ERR a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise CommandError("ERR a key is text in UTF-8 on this server") from None


def integer_of(argument: bytes) -> int:
    """Return the number that an argument is.

    Raises:
        CommandError: it is none of 64 bits.
    """
    number = parse_integer(argument)
    if number is None:
        raise CommandError("ERR value is not an integer or out of range")
    return number


def value_of(value: bytes) -> bytes:
    """Return a value that is not too long.

    Raises:
        CommandError: it is.
    """
    if len(value) > VALUE_BYTES_MAX:
        raise CommandError(
            f"ERR a value has at most {VALUE_BYTES_MAX} bytes on this server, not {len(value)}"
        )
    return value


def name_of(command: Sequence[bytes]) -> str:
    """Return the name of a command, for an error."""
    return command[0][:NAME_BYTES_MAX].decode("utf-8", "replace")


def text_of(argument: bytes) -> str:
    """Return an argument that an error repeats."""
    return argument[:NAME_BYTES_MAX].decode("utf-8", "replace")


def wrong_number(command: Sequence[bytes]) -> CommandError:
    """Return the refusal of a command with too few arguments, or too many."""
    return CommandError(f"ERR wrong number of arguments for '{name_of(command).lower()}' command")


SYNTAX_ERROR = "ERR syntax error"
