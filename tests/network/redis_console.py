"""One client of the Redis protocol on a state machine, without sockets or nodes."""

from __future__ import annotations

from typing import Any

import hiredis

from raftd.commands import Command, SwitchOn, encode_command, stamp
from raftd.core.types import Entry, EntryKind
from raftd.network.redis_actions import (
    ClusterSeen,
    CommandError,
    Later,
    MemberSeen,
    Query,
    Read,
    Reply,
    Session,
    Surroundings,
    Write,
)
from raftd.network.redis_commands import interpret
from raftd.network.redis_framing import error
from raftd.state_seen import StateSeen
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore

FEATURES = 5
TIME_MS = 1_000_000


class World:
    """A state, and what its server says about itself."""

    def __init__(self) -> None:
        self.state = StateMachine(MemoryStore())
        self.time_ms = TIME_MS
        """Cluster time, and the wall clock of the server."""
        self.seen = StateSeen(self.state, lambda: self.time_ms)
        self.cluster = cluster_of("n1")
        self.surroundings = Surroundings(
            cluster=lambda: self.cluster,
            leads=lambda: self.cluster.leads,
            memory_bytes=lambda: 5_000_000,
            wall_clock_ms=lambda: self.time_ms,
        )
        self.written: list[bytes] = []
        """The commands that have gone through the log."""
        self.apply(encode_command(Command(SwitchOn(version=FEATURES, time_ms=0))))

    def apply(self, command: bytes) -> Any:
        """Apply a command as the leader would, now."""
        self.written.append(command)
        index = self.state.applied_index + 1
        entry = Entry(index, 1, EntryKind.COMMAND, stamp(command, self.time_ms))
        (result,) = self.state.apply([entry])
        return result


class Console:
    """A connection whose commands are answered one after the other."""

    def __init__(self, world: World | None = None, *, protocol: int = 2) -> None:
        self.world = world or World()
        self.session = Session(protocol=protocol, number=7, surroundings=self.world.surroundings)

    def ask(self, line: str | list[bytes]) -> Any:
        """Return the reply to a command: bytes, a number, None, a list, a map or an error."""
        reader = hiredis.Reader()
        reader.feed(self.reply(line))
        found = reader.gets()
        assert reader.gets() is False, "one reply for each command"
        return found

    def reply(self, line: str | list[bytes]) -> bytes:
        """Return the bytes of the reply to a command."""
        words = [word.encode() for word in line.split()] if isinstance(line, str) else line
        try:
            action = interpret(words, self.session, FEATURES)
            if isinstance(action, Later):
                action = action.decide()
            match action:
                case Reply():
                    return action.content
                case Write():
                    return action.form(self.world.apply(action.encoded))
                case Read():
                    return action.form(self.world.state.values([action.key], 1 << 30)[0])
                case Query():
                    return action.run(self.world.seen)
        except CommandError as refusal:
            return error(str(refusal))
        raise AssertionError(action)

    def all(self, *lines: str) -> list[Any]:
        """Return the replies to several commands."""
        return [self.ask(line) for line in lines]

    def refused(self, line: str | list[bytes]) -> str:
        """Return the error that a command is answered with."""
        reply = self.ask(line)
        assert isinstance(reply, hiredis.ReplyError), reply
        return str(reply)


def cluster_of(leader: str, *, seen_by: str = "n1", knows_leader: bool = True) -> ClusterSeen:
    """Return three servers as one of them sees them."""
    members = tuple(
        [
            MemberSeen(
                server=name,
                address=f"127.0.0.1:710{name[1]}",
                redis=f"127.0.0.1:720{name[1]}",
                is_voter=True,
                connected=name != "n3",
            )
            for name in ("n1", "n2", "n3")
        ]
    )
    return ClusterSeen(
        server=seen_by,
        cluster_name="orders",
        cluster_id="c-1",
        leader=leader,
        knows_leader=knows_leader,
        term=7,
        configuration_index=4,
        commit_index=20,
        applied_index=19,
        last_index=21,
        quorum=2,
        members=members,
        uptime_ms=90_061_000,
    )
