"""Commands on their way through the log: proposed, then waited for, then answered.

A batch of commands is appended at once and answered from one list of results. Whatever a client
asks for, exactly one of `done` and `failed` is called for each command, in this turn or in a later
one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from raftd.commands import (
    Command,
    CommandBody,
    CompareAndSet,
    Delete,
    OpenSession,
    Put,
    Result,
    Transaction,
    encode_command,
    has_to_be_stamped,
    is_stamped,
    stamp,
)
from raftd.core.errors import NotLeader, ProposalDropped
from raftd.core.raft import Raft
from raftd.core.types import Entry, Index, Term
from raftd.disk_space import DiskSpace
from raftd.inputs import Waiter
from raftd.protocol import (
    NOT_NOW,
    CompareAndSetRequest,
    DeleteRequest,
    DoneReply,
    ErrorReply,
    OpenSessionRequest,
    PutRequest,
    Reply,
    TransactionReply,
    TransactionRequest,
)
from raftd.records import RECORD_BODY_BYTES_MAX
from raftd.replies import disk_full, invalid, size_text, unavailable, write_reply
from raftd.telemetry import APPLIED, Proposals
from raftd.transactions import decode_steps, encode_outcomes

COMMAND_BYTES_MAX = RECORD_BODY_BYTES_MAX - 1024
"""Of an encoded command: what the record of its entry holds, with room for the entry's own head."""
LOG_FACTOR_MAX = 16
"""The log is in memory, and a snapshot begins when it has 1 to 4 times `snapshot_log_size`. When it
has grown to so many times while that was written, clients wait: memory has an end."""
LOG_BYTES_MAX_MIN = 64 * 1024 * 1024
"""But never with less than this, however early snapshots are taken: as much may be uncommitted."""

Respond: TypeAlias = Callable[[Reply], None]
WriteRequest: TypeAlias = (
    PutRequest | DeleteRequest | CompareAndSetRequest | OpenSessionRequest | TransactionRequest
)
Stamp: TypeAlias = Callable[[Raft], "int | ErrorReply"]


@attrs.define
class _Caller:
    """A waiter made of two functions."""

    done: Callable[[Result], None]
    failed: Respond


@attrs.define
class _Replied:
    """A waiter that is answered as the native protocol answers."""

    respond: Respond

    def done(self, result: Result) -> None:
        self.respond(write_reply(result))

    def failed(self, error: ErrorReply) -> None:
        self.respond(error)


@attrs.define
class _Opened(_Replied):
    """Likewise, for the opening of a session."""

    def done(self, result: Result) -> None:
        self.respond(DoneReply() if not result.code else write_reply(result))


@attrs.define
class _Transacted(_Replied):
    """Likewise, for a transaction."""

    def done(self, result: Result) -> None:
        if result.code:
            self.respond(write_reply(result))
        else:
            outcomes = encode_outcomes(result.outcomes)
            self.respond(
                TransactionReply(
                    applied=result.applied, revision=result.revision, outcomes=outcomes
                )
            )


class Writes:
    """The commands that this server has appended as the leader and that wait to be applied."""

    def __init__(
        self,
        disk: DiskSpace,
        snapshot_log_bytes: int,
        refused: Callable[[], ErrorReply],
        time: Stamp,
    ) -> None:
        """Wait for nothing.

        Args:
            disk: of this server, for what is said of a full one.
            snapshot_log_bytes: of the log, after which a snapshot is taken.
            refused: returns the answer of a server that does not lead.
            time: returns cluster time for a transaction that is appended now, or why there is none.
        """
        self._log_bytes_max = max(LOG_BYTES_MAX_MIN, LOG_FACTOR_MAX * snapshot_log_bytes)
        self._disk = disk
        self._refused = refused
        self._time = time
        self.proposals = Proposals()
        self._waiting: deque[tuple[Index, Term, Waiter]] = deque()

    def request(self, raft: Raft, request: WriteRequest, respond: Respond) -> None:
        """Propose what a client of the native protocol asks for."""
        body: CommandBody
        waiter = _Replied(respond)
        match request:
            case PutRequest():
                body = Put(request.key, request.value, request.if_absent, request.if_revision)
            case DeleteRequest():
                body = Delete(request.key)
            case CompareAndSetRequest():
                body = CompareAndSet(request.key, request.expected, request.value)
            case TransactionRequest():
                try:
                    body = Transaction(*decode_steps(request.content))
                except ValueError as error:
                    respond(invalid(str(error)))
                    return
                waiter = _Transacted(respond)
            case OpenSessionRequest():
                # It takes no room to speak of, and membership changes, which go on while disks are
                # nearly full, need a session.
                command = Command(OpenSession(), request.session)
                self._append(raft, (encode_command(command),), (_Opened(respond),))
                return
        command = Command(body, request.session, request.serial, request.lowest_unacknowledged)
        self.propose_all(raft, (encode_command(command),), (waiter,))

    def propose(
        self, raft: Raft, command: Command, done: Callable[[Result], None], failed: Respond
    ) -> Index | None:
        """Append a command of this server's own, also while disks are nearly full.

        Returns:
            Its index, or None if it was not appended and `failed` was called.
        """
        return self._append(raft, (encode_command(command),), (_Caller(done, failed),))

    def propose_all(self, raft: Raft, commands: Sequence[bytes], waiters: Sequence[Waiter]) -> None:
        """Append encoded commands of clients in their order.

        Args:
            waiters: as many, each for the command in the same place.
        """
        try:
            short = raft.leader().short_of_space()
        except NotLeader:
            self._fail(waiters, self._refused())
            return
        if short:
            # Membership changes are accepted: the reserve is there for them.
            self._fail(waiters, disk_full(short, self._disk.problem))
            return
        if raft.log.size_bytes > self._log_bytes_max:
            why = (
                f"the log holds {size_text(raft.log.size_bytes)} in memory until a snapshot is "
                "written; `raftctl status` says what is in its way, if anything is"
            )
            self._fail(waiters, unavailable(NOT_NOW, why))
            return
        if has_to_be_stamped(commands):
            commands, waiters = self._stamped(raft, commands, waiters)
            if not commands:
                return
        self._append(raft, commands, waiters)

    def _stamped(
        self, raft: Raft, commands: Sequence[bytes], waiters: Sequence[Waiter]
    ) -> tuple[Sequence[bytes], Sequence[Waiter]]:
        """Return the commands with the time in those that need it.

        Where it is not known, these are refused, and the others are returned.
        """
        time = self._time(raft)
        if not isinstance(time, ErrorReply):
            return [stamp(command, time) for command in commands], waiters
        others = []
        for command, waiter in zip(commands, waiters, strict=True):
            if is_stamped(command):
                waiter.failed(time)
            else:
                others.append((command, waiter))
        self.proposals.add(time.code, len(commands) - len(others))
        return [command for command, _ in others], [waiter for _, waiter in others]

    def _append(
        self, raft: Raft, commands: Sequence[bytes], waiters: Sequence[Waiter]
    ) -> Index | None:
        if max(map(len, commands)) > COMMAND_BYTES_MAX:
            count_before = len(commands)
            commands, waiters = _without_too_long(commands, waiters)
            self.proposals.add("invalid", count_before - len(commands))
            if not commands:
                return None
        try:
            term, first_index, count = raft.propose_all(commands)
        except NotLeader:
            self._fail(waiters, self._refused())
            return None
        except ProposalDropped as refusal:
            self._fail(waiters, unavailable(NOT_NOW, str(refusal)))
            return None
        waiting = self._waiting
        index = first_index
        for waiter in waiters[:count]:
            waiting.append((index, term, waiter))
            index += 1
        if count < len(waiters):
            why = "too much is waiting to be committed"
            self._fail(waiters[count:], unavailable(NOT_NOW, why))
        return first_index

    def applied(self, entries: Sequence[Entry], results: Sequence[Result | None]) -> None:
        """Answer those who wait for `entries`, which were applied with `results`."""
        waiting = self._waiting
        if not waiting:
            return
        waiting_before = len(waiting)
        for entry, result in zip(entries, results, strict=True):
            if waiting[0][0] > entry.index:
                continue
            index, term, waiter = waiting.popleft()
            assert (index, term) == (entry.index, entry.term)
            assert result is not None
            waiter.done(result)
            if not waiting:
                break
        self.proposals.add(APPLIED, waiting_before - len(waiting))

    def lost_leadership(self, unknown: ErrorReply) -> None:
        """Answer everybody: nobody here can know any more what becomes of the proposals."""
        self.proposals.add(unknown.code, len(self._waiting))
        while self._waiting:
            self._waiting.popleft()[2].failed(unknown)

    def _fail(self, waiters: Sequence[Waiter], error: ErrorReply) -> None:
        self.proposals.add(error.code, len(waiters))
        for waiter in waiters:
            waiter.failed(error)


def _without_too_long(
    commands: Sequence[bytes], waiters: Sequence[Waiter]
) -> tuple[list[bytes], list[Waiter]]:
    """Refuse the commands that fit no record, and return the others with their waiters."""
    fitting = []
    for command, waiter in zip(commands, waiters, strict=True):
        if len(command) <= COMMAND_BYTES_MAX:
            fitting.append((command, waiter))
        else:
            why = f"a command of {len(command)} bytes; at most {COMMAND_BYTES_MAX} fit"
            waiter.failed(invalid(why))
    return [command for command, _ in fitting], [waiter for _, waiter in fitting]
