"""Passwords of Redis clients: AUTH, HELLO with AUTH, and what is refused before them.

There is one user, called default as in Redis. What a client says stands in no reply and in no log.

Source: the commands AUTH and HELLO of Redis, and its replies.
"""

from __future__ import annotations

from collections.abc import Callable

from raftd.network.redis_actions import Action, CommandError, Reply, Session, wrong_number
from raftd.network.redis_framing import OK

USER = b"default"
ATTEMPTS_MAX = 10
"""Wrong passwords on one connection; with the last one it ends, so that guessing takes its time."""
AUTH_TIMEOUT_SECONDS = 10.0
"""A client has so long to say the password, from the moment when it is let in: as many round trips
as anybody needs."""
LOCKED_BYTES_MAX = 16 * 1024
"""What a client may have sent before the password that is not looked at yet."""
LOCKED_CONNECTIONS_MAX = 1024
"""Connections at one time that have not said it: those that have leave no room to nobody else."""

NO_AUTH = "NOAUTH Authentication required."
NO_AUTH_FOR_HELLO = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO "
    "<proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP "
    "protocol version at the same time"
)
WRONG_PASSWORD = "WRONGPASS invalid username-password pair or user is disabled."
NO_PASSWORD = (
    "ERR AUTH <password> called without any password configured for the default user. Are you sure "
    "your configuration is correct?"
)

_ALLOWED = frozenset({b"AUTH", b"HELLO", b"QUIT", b"RESET"})


class WrongPassword(CommandError):
    """It is not the password, or not the user."""


def auth(command: list[bytes], session: Session, features: int) -> Action:
    """Answer AUTH."""
    if len(command) not in (2, 3):
        raise wrong_number(command)
    if len(command) == 2 and not session.surroundings.password.is_set:
        raise CommandError(NO_PASSWORD)
    authenticate(command[1] if len(command) == 3 else USER, command[-1], session)
    return Reply(OK)


def authenticate(user: bytes, password: bytes, session: Session) -> None:
    """Let the client in from now on.

    Raises:
        WrongPassword: it does not know the password.
    """
    known = session.surroundings.password
    # Who had to say a password is not let in because there is none any more: with TLS it has shown
    # no certificate, and would be refused if it came now.
    has_to_match = known.is_set or session.locked
    if user != USER or (has_to_match and not known.matches(password)):
        raise WrongPassword(WRONG_PASSWORD)
    session.said_password |= session.locked
    session.locked = False


def interpret_locked(
    command: list[bytes],
    session: Session,
    interpret: Callable[[list[bytes], Session], Action],
) -> Action:
    """Return what `command` asks for, of a client that has not said the password.

    Args:
        command: its words.
        session: of the client; not locked any more if the command says the password.
        interpret: for the few commands that are carried out all the same.

    Raises:
        CommandError: it is refused.
    """
    name = command[0].upper()
    if name not in _ALLOWED:
        raise CommandError(NO_AUTH)
    if name == b"HELLO" and b"AUTH" not in {word.upper() for word in command[2:]}:
        raise CommandError(NO_AUTH_FOR_HELLO)
    return interpret(command, session)
