"""Redis clients that have not said the password: how many, for how long, and what they may ask."""

from __future__ import annotations

from collections.abc import Callable

from raftd.network.complaints import Complaints
from raftd.network.redis_actions import Action, CommandError, Reply
from raftd.network.redis_auth import (
    ATTEMPTS_MAX,
    AUTH_TIMEOUT_SECONDS,
    LOCKED_CONNECTIONS_MAX,
    WrongPassword,
    interpret_locked,
)
from raftd.network.redis_commands import interpret
from raftd.network.redis_connection import Connection
from raftd.network.redis_framing import error


class Doorstep:
    """Those who are not let in yet."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with nobody.

        Args:
            clock: seconds that never go back.
        """
        self._clock = clock
        self._since: dict[Connection, float] = {}
        """The one that has come first is the first."""
        self._complaints = Complaints()
        self.wrong_passwords = 0
        """How many were said since the start, by all clients."""

    def __bool__(self) -> bool:
        return bool(self._since)

    @property
    def is_full(self) -> bool:
        """Whether no more may wait here."""
        return len(self._since) >= LOCKED_CONNECTIONS_MAX

    def add(self, connection: Connection) -> None:
        """Let a client say the password before anything else."""
        connection.session.locked = True
        self._since[connection] = self._clock()

    def remove(self, connection: Connection) -> None:
        """Forget a client, if it is here."""
        self._since.pop(connection, None)

    def overdue(self, now: float) -> list[Connection]:
        """Return those who have been here for too long."""
        found = []
        for connection, since in self._since.items():
            if now - since < AUTH_TIMEOUT_SECONDS:
                break
            found.append(connection)
        return found

    def interpret(self, connection: Connection, command: list[bytes], features: int) -> Action:
        """Return what `command` asks for; let the client in if it says the password.

        Args:
            connection: of a client that is here.
            command: its words.
            features: the version of those that are switched on in the replicated state.
        """
        session = connection.session
        try:
            action = interpret_locked(
                command, session, lambda words, of: interpret(words, of, features)
            )
        except WrongPassword as problem:
            return self._wrong(connection, str(problem))
        except CommandError as problem:
            return Reply(error(str(problem)))
        if not session.locked:
            self.remove(connection)
        return action

    def _wrong(self, connection: Connection, problem: str) -> Reply:
        session = connection.session
        session.wrong_passwords += 1
        self.wrong_passwords += 1
        self._complaints.warn(
            "a Redis client from %s has said a wrong password (%d since the start)",
            connection.remote,
            self.wrong_passwords,
            host=connection.remote.rpartition(":")[0],
        )
        return Reply(error(problem), closes=session.wrong_passwords >= ATTEMPTS_MAX)
