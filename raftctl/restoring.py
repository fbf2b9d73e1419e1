"""`raftctl restore`: a verified backup becomes a new cluster of blank servers.

| step | what is durable then |
|---|---|
| verify the file, look at all servers, ask | nothing |
| give it to the first voter, in parts | what it has received; it is blank still |
| it works it in and puts it in force | it *holds* the backup; it is blank still |
| bootstrap it | it is a cluster of one that goes on from the backup |
| bring in the others by one change, as `init` does | all of it |

Whatever was interrupted shows in what the servers say about themselves, so a repeated restore of
the same file goes on from there. The change carries the backup's checksum as its reason: that is
how a cluster says which backup it was restored from.
"""

from __future__ import annotations

import os
import shlex
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from raftctl.byte_progress import ByteProgress
from raftctl.cli import Context
from raftctl.client import ConnectionProblem, error_of
from raftctl.errors import (
    EXIT_FAILED,
    CliError,
    Interrupted,
    Refused,
    Unreachable,
    UsageProblem,
)
from raftctl.forming import (
    authority,
    bootstrap,
    completed,
    first_voter,
    problems_of,
    refuse_problems,
    survey_patiently,
)
from raftctl.render import natural_key
from raftctl.streaming import CHUNK_BYTES, IN_FLIGHT_MAX, Patience, Pauses, Stream
from raftctl.verifying import verified_backup
from raftd.cluster_status.answers import Answer
from raftd.core.types import server_name
from raftd.offline import BackupFile
from raftd.protocol import (
    ErrorReply,
    MemberChange,
    OperationsReply,
    OperationsRequest,
    RestoreReply,
    RestoreRequest,
    StatusReply,
)

if TYPE_CHECKING:
    from raftd.config import ClusterConfig, ServerConfig

POLL_MS = 200.0
"""Between two questions how far the server has worked it in, at the longest."""
DAMAGES_MAX = 3
"""How often what was sent may arrive damaged: then the disk or the network there is."""


@attrs.frozen(kw_only=True)
class Restoring:
    """What a restore would do, given how the servers are."""

    config: ClusterConfig
    backup: BackupFile
    answers: tuple[Answer, ...]
    is_founded: bool = False
    """The first voter is a cluster of one, perhaps from this backup: it knows."""
    operation: str = ""
    """The operation that brings in the others, if it was started already."""
    is_done: bool = False
    """That operation has ended well: there is nothing left to do."""

    @property
    def first(self) -> ServerConfig:
        """The server that is given the backup."""
        return first_voter(self.config)

    @property
    def changes(self) -> tuple[MemberChange, ...]:
        """Who is brought in after it."""
        return tuple(
            MemberChange(role=server.role, name=server.id, address=server.address)
            for server in self.config.servers.values()
            if server.id != self.first.id
        )

    @property
    def reason(self) -> str:
        """What the operation's record says for ever about where its cluster came from."""
        id = self.backup.id
        return f"restored from the backup {id.checksum} up to entry {id.last_included_index}"


def read_backup(path: Path, progress: ByteProgress) -> BackupFile:
    """Return what the file at `path` holds, every byte of it verified.

    Raises:
        CliError: there is no such file, it is no backup, or damaged. Nothing was sent to anybody.
    """
    return verified_backup(path, progress, so_far="nothing was sent", needed_for="restored")


@contextmanager
def resumable(context: Context, restoring: Restoring) -> Iterator[None]:
    """Let whatever ends the restore early name the command that goes on from there."""
    command = context.command(restore_command(restoring.backup))
    interrupted = Interrupted(f"interrupted; to go on from there: {command}", hint=command)
    try:
        yield
    except KeyboardInterrupt:
        raise interrupted from None
    except CliError as error:
        if isinstance(error, Interrupted) and not error.operation:
            raise interrupted from None
        # One that failed by itself says why, and what to look at first.
        ended_badly = error.exit_code == EXIT_FAILED and error.operation
        if (isinstance(error, Unreachable) or ended_badly) and command not in error.hint:
            error.hint += f"\n{command}, which goes on from wherever it stopped"
        raise


def look(context: Context, backup: BackupFile) -> Restoring:
    """Look at every server of the cluster file.

    Raises:
        Refused: a server is unreachable, not blank, or holds something else; the message names
            each such server. Nothing was changed.
    """
    endpoints = context.dialled()
    config = endpoints.config
    if config is None:
        raise UsageProblem(
            "restore needs a cluster file: it says which servers belong together",
            cause="--endpoints says only where to dial",
            hint=f"raftctl -c cluster.yaml {restore_command(backup)}",
        )
    answers = tuple(survey_patiently(endpoints, context.timeout_ms))
    restoring = Restoring(config=config, backup=backup, answers=answers)
    # Of the servers of another cluster only those that the file names are in the way.
    named = [answer.reply for answer in answers if answer.listed and answer.reply]
    members = [reply for reply in named if reply.cluster_id]
    if members:
        return _go_on(context, restoring, members)
    held_index = backup.id.last_included_index
    problems = problems_of(config, answers, held_index=held_index)
    refuse_problems(context, config, answers, problems, command=restore_command(backup))
    return restoring


def _go_on(context: Context, restoring: Restoring, members: Sequence[StatusReply]) -> Restoring:
    """Return what is left to do, some servers belonging to a cluster already."""
    config = restoring.config
    speaker = max(members, key=authority)
    configuration = speaker.configuration
    is_ours = (
        len({member.cluster_id for member in members}) == 1
        and speaker.cluster_name == config.cluster
        and configuration is not None
    )
    if is_ours and configuration is not None:
        operation = speaker.operation
        if operation is not None and operation.record.reason == restoring.reason:
            return attrs.evolve(restoring, operation=operation.record.id)
        have = {server_name(server) for server in configuration.voters}
        is_alone = have == {restoring.first.id} and not configuration.joint
        if is_alone and operation is None and not configuration.learners:
            brought_in = {
                name: why
                for name, why in problems_of(config, restoring.answers).items()
                if name != restoring.first.id
            }
            refuse_problems(
                context,
                config,
                restoring.answers,
                brought_in,
                command=restore_command(restoring.backup),
            )
            return attrs.evolve(restoring, is_founded=True)
        wanted = {s.id: s.role for s in config.servers.values()}
        have_roles = dict.fromkeys(have, "voter")
        have_roles |= {server_name(server): "learner" for server in configuration.learners}
        if have_roles == wanted and _was_restored(context, restoring):
            return attrs.evolve(restoring, is_done=True)
    raise _not_blank(config, members)


def _was_restored(context: Context, restoring: Restoring) -> bool:
    """Whether the operation that formed the cluster names this backup."""
    try:
        reply = context.cluster().ask(OperationsRequest())
    except CliError:
        return False
    if not isinstance(reply, OperationsReply):
        return False
    # Older ones may be those of the cluster that the backup was taken in.
    formings = [view.record for view in reply.operations if view.record.kind == "init"]
    return bool(formings) and formings[-1].reason == restoring.reason


def _not_blank(config: ClusterConfig, members: Sequence[StatusReply]) -> Refused:
    names = sorted({server_name(member.server) for member in members}, key=natural_key)
    lines = [
        f"{server_name(member.server)} belongs to {member.cluster_name} (id {member.cluster_id})"
        for member in members
    ]
    return Refused(
        f"{config.cluster} cannot be restored: {' '.join(names)} "
        f"{'is' if len(names) == 1 else 'are'} not blank",
        code="not-blank",
        cause="\n".join(
            [*lines, "a backup becomes a cluster of blank servers only; nothing was changed"]
        ),
        hint="name other servers in the cluster file, or start these with empty data folders; "
        "then `raftctl restore FILE`",
    )


def give(context: Context, restoring: Restoring, progress: ByteProgress) -> None:
    """Give the backup to the first voter; it holds it durably when this returns.

    Raises:
        Unreachable: it made no progress for too long. It goes on from there when this is repeated.
        CliError: it refuses, or what arrives there is damaged again and again.
    """
    backup, first = restoring.backup, restoring.first
    patience = Patience(context.timeout_ms)
    damages = 0
    why = "no connection"
    with backup.path.open("rb") as file:
        giving = _Giving(context, backup, file.fileno(), first, patience, progress)
        while not patience.exhausted:
            try:
                if giving.attempt():
                    return
                damages += 1
                if damages == DAMAGES_MAX:
                    raise CliError(
                        f"the backup arrives damaged at {first.id}",
                        code="damaged",
                        cause=f"sent {damages} times; the file here is as it was written",
                        hint=f"look at the disk, the memory and the network of {first.id}, then:\n"
                        f"{context.again()}",
                    )
                progress.message(f"what {first.id} had received was damaged: sends it again")
            except ConnectionProblem as problem:
                why = str(problem)
                progress.show(f"waiting for {first.id}: {problem}")
            patience.sleep(POLL_MS)
    raise Unreachable(
        f"{first.id} does not take the backup",
        code="no-progress",
        cause=f"{first.id} {first.address}: {why}; it belongs to no cluster yet",
        hint=f"`{context.command(restore_command(backup))}` goes on from wherever it stopped",
    )


class _Giving:
    """A backup on its way to a server."""

    def __init__(
        self,
        context: Context,
        backup: BackupFile,
        descriptor: int,
        first: ServerConfig,
        patience: Patience,
        progress: ByteProgress,
    ) -> None:
        self._context = context
        self._backup = backup
        self._descriptor = descriptor
        self._first = first
        self._patience = patience
        self._progress = progress
        self._furthest = (0, 0)
        """The most that the server has received, and worked in."""

    def attempt(self) -> bool:
        """Send what is missing and wait; return whether it holds all, False if it lost a part.

        Raises:
            ConnectionProblem: the server is gone; what it has stays.
            CliError: it refuses.
        """
        size_bytes = self._backup.id.size_bytes
        stream = Stream.dial(self._first.address, self._patience, tls=self._context.dialled().tls)
        try:
            # Without bytes first: it may have some, or all.
            reply = self._reply_to(stream.call(self._part(0, 0), self._patience))
            sent_bytes = received_bytes = reply.received_bytes
            window = IN_FLIGHT_MAX
            ends: deque[int] = deque()
            pauses = Pauses(POLL_MS)
            while not reply.held:
                while stream.in_flight < window and sent_bytes < size_bytes:
                    part = self._part(sent_bytes, CHUNK_BYTES)
                    stream.post(part, self._patience)
                    sent_bytes += len(part.data)
                    ends.append(sent_bytes)
                if not stream.in_flight:
                    self._patience.sleep(pauses.next_ms())
                    stream.post(self._part(size_bytes, 0), self._patience)
                    ends.append(0)
                reply = self._reply_to(stream.collect(self._patience))
                if reply.received_bytes < received_bytes:
                    return False
                received_bytes = reply.received_bytes
                # After a restart it verifies what it has before it takes more: ask with one part.
                is_taking = received_bytes >= ends.popleft()
                window = IN_FLIGHT_MAX if is_taking else 1
                if not is_taking and not stream.in_flight:
                    sent_bytes = received_bytes
                    self._patience.sleep(pauses.next_ms())
            return True
        finally:
            stream.close()

    def _part(self, offset: int, size_bytes: int) -> RestoreRequest:
        data = os.pread(self._descriptor, size_bytes, offset)
        return RestoreRequest(snapshot=self._backup.id, offset=offset, data=data)

    def _reply_to(self, reply: object) -> RestoreReply:
        if isinstance(reply, ErrorReply):
            raise completed(self._context, error_of(reply), restore_command(self._backup))
        if not isinstance(reply, RestoreReply):
            raise ConnectionProblem(
                self._first.address, "not-raftd", "it answers something else", sent=True
            )
        come = (reply.received_bytes, reply.installed_bytes)
        if reply.held or come > self._furthest:
            self._furthest = max(self._furthest, come)
            self._patience.renew()
        total_bytes = self._backup.id.size_bytes
        if reply.held:
            self._progress.show(f"{self._first.id} holds it")
        elif reply.received_bytes < total_bytes:
            phase = f"sending it to {self._first.id}"
            self._progress.show(phase, reply.received_bytes, total_bytes)
        else:
            phase = f"{self._first.id} works it in"
            self._progress.show(phase, reply.installed_bytes, total_bytes)
        return reply


def found(context: Context, restoring: Restoring) -> None:
    """Make the first voter, which holds the backup, a cluster that goes on from it.

    Durable there when this returns. Repeating it changes nothing.

    Raises:
        Refused: it was founded otherwise.
    """
    bootstrap(
        context,
        restoring.config,
        restoring.answers,
        snapshot=restoring.backup.id,
        command=restore_command(restoring.backup),
    )


def restore_command(backup: BackupFile) -> str:
    """Return the words of the command that restores `backup`, or goes on with that."""
    return f"restore {shlex.quote(str(backup.path))}"
