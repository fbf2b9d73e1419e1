"""The driver of rolling operations: it takes one step after the other, and notes what it does.

The state is in the cluster, in the record of the operation, and each change of it names the version
of the record that it was decided on. So this process may be killed at any moment, and the next one
goes on from the record; if two of them drive one operation, the one that was not resumed last is
refused, and stops. A step is on record before it is taken:

| what the record says of a step | what the next driver does |
|---|---|
| pending, failed | waits until the cluster is well, then takes it |
| running, a replacement | looks for its membership operation; watches it, or begins it |
| running, a restart | looks whether the server was restarted since; waits for it, or restarts it |
| done, skipped | nothing |

What it waits for is decided in `raftctl.rolling_gate`. When nothing moves for `--timeout`, or a
step fails, the operation is paused: it blocks nothing, and says what happened.

Source: dissertation section 3.10 (leadership is handed over before its server leaves) and 4.2.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from raftctl.cli import Context
from raftctl.client import Cluster, ConnectionProblem, Deadline, author, expect
from raftctl.errors import (
    EXIT_FAILED,
    CliError,
    Interrupted,
    OutcomeUnknown,
    Refused,
    StillRunning,
    Unreachable,
    Unsafe,
)
from raftctl.render import duration, name_list, natural_key, plural, printable
from raftctl.restarting import Sighting, run_command, was_restarted
from raftctl.rolling_gate import Obstacle, behind, not_back, obstacle
from raftctl.rolling_record import Record, Superseded
from raftctl.rolling_text import Screen, counted, without_numbers
from raftctl.status import observe
from raftctl.watch import Reporter, describe_peer, describe_step, watch_with
from raftd.cluster_status.operations import exchange, rolling_of
from raftd.cluster_status.view import ClusterView, Row
from raftd.commands import (
    DONE,
    FAILED,
    PENDING,
    ROLLING_RESTART,
    RUNNING,
    SKIPPED,
    Operation,
    RollingStep,
)
from raftd.config_values import parse_member_argument
from raftd.core.types import ServerId, server_name
from raftd.protocol import (
    ChangeReply,
    ChangeRequest,
    ConfigurationView,
    MemberChange,
    OperationsReply,
    OperationsRequest,
    OperationView,
    StatusReply,
    StatusRequest,
    TransferReply,
    TransferRequest,
)

POLL_MS = 250.0
"""Between two looks at the cluster while something is waited for."""
ASK_TIMEOUT_MS = 2_000.0
"""For the server that is restarted: it answers at once, or it is not there."""
CHANGE_REPLY_TIMEOUT_MS = 15_000.0
"""For the leader's answer to a change: before it the leader dials every new server."""
TRANSFERS_MAX = 5
"""Attempts to hand leadership over before a step; elections may bring it back."""
LAST_WORDS_MS = 3_000.0
"""To put a pause on record when the driver is interrupted or at a loss."""
NOTE_CHARACTERS_MAX = 300
"""Of what a step notes in the record: enough for any sentence of ours."""


class _Stuck(Exception):
    """Nothing has moved for `--timeout`."""

    def __init__(self, found: Obstacle) -> None:
        super().__init__(found.words)
        self.obstacle = found


class _StepFailed(Exception):
    """A step did not come to its end, and why: three lines for people, as in `CliError`."""

    def __init__(
        self,
        message: str,
        cause: str,
        hint: str = "",
        *,
        note: str = "",
        exit_code: int = EXIT_FAILED,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.hint = hint
        self.note = note or cause or message
        """For the record."""
        self.exit_code = exit_code


class _Over(Exception):
    """The driver is at its end without the operation being at its own: `error` says all of it."""

    def __init__(self, error: CliError) -> None:
        super().__init__(error.message)
        self.error = error


class Driver:
    """Drives one rolling operation to its end, from wherever its record stands."""

    def __init__(
        self,
        context: Context,
        cluster: Cluster,
        record: Record,
        screen: Screen,
        *,
        look: Callable[[], ClusterView] | None = None,
    ) -> None:
        """Take over an operation that was begun or resumed by this process.

        Args:
            look: asks every server how it is; by default those of `cluster`.
        """
        self._context = context
        self._cluster = cluster
        self._record = record
        self._screen = screen
        self._look = look or Look(cluster).now
        self._features_before: int | None = None

    def run(self) -> Operation:
        """Take all steps that are left, end the operation, and return its record.

        Raises:
            CliError: it did not get to its end; the operation is paused where that was possible,
                and the error says how to go on.
        """
        try:
            self._screen.show(self._record.operation)
            leader = self._look().leader
            self._features_before = leader.features if leader is not None else None
            while (position := self._next()) is not None:
                self._take(position)
            self._finish()
        except _Over as over:
            raise over.error from None
        except Superseded as superseded:
            raise superseded.as_error(self._context) from None
        except (KeyboardInterrupt, Interrupted):
            raise self._interrupted() from None
        except (Unreachable, OutcomeUnknown, StillRunning) as error:
            raise self._at_a_loss(error) from None
        return self._record.operation

    # --- steps ---

    @property
    def _steps(self) -> Sequence[RollingStep]:
        return rolling_of(self._record.operation).steps

    def _next(self) -> int | None:
        """Return the position of the step to take now: the leader's one is the last."""
        steps = self._steps
        open_steps = [
            position for position, step in enumerate(steps) if step.state not in (DONE, SKIPPED)
        ]
        running = [position for position in open_steps if steps[position].state == RUNNING]
        if running or len(open_steps) <= 1:
            return next(iter(running or open_steps), None)
        leader = self._look().leader
        name = server_name(leader.server) if leader is not None else ""
        return min(open_steps, key=lambda position: (steps[position].name == name, position))

    def _take(self, position: int) -> None:
        """Take one step, or go on with it.

        Raises:
            _Over: it failed, or nothing moved for `--timeout`; the operation is paused.
            Superseded, CliError.
        """
        step = self._steps[position]
        is_restart = self._record.operation.kind == ROLLING_RESTART
        try:
            if is_restart:
                self._restart(position)
            else:
                self._replace(position)
        except _Stuck as stuck:
            raise _Over(self._paused_at(position, stuck.obstacle)) from None
        except _StepFailed as failure:
            self._note(position, FAILED, note=failure.note)
            self._pause(f"{exchange(step)} failed")
            error = CliError(
                failure.message,
                cause=failure.cause,
                hint="\n".join(filter(None, (failure.hint, self._resume_command()))),
                code="step-failed",
                exit_code=failure.exit_code,
                operation=self._record.id,
            )
            raise _Over(error) from None

    def _note(self, position: int, state: str, **fields: Any) -> None:
        """Put on record how far a step is."""
        if "note" in fields:
            fields["note"] = _one_line(fields["note"])
        step = attrs.evolve(self._steps[position], state=state, **fields)
        self._record.note_step(position, step)
        self._screen.show(self._record.operation)

    def _wait(self, find: Callable[[], Obstacle | None]) -> None:
        """Return as soon as `find` finds nothing in the way.

        Raises:
            _Stuck: nothing has moved for `--timeout`, or waiting cannot help.
            Superseded: somebody else has paused, resumed or ended the operation meanwhile.
        """
        timeout_ms = self._context.timeout_ms
        moved_s = time.monotonic()
        marker: object = None
        while (found := find()) is not None:
            # How long something lasts already is in many of these words, and is no progress.
            seen = without_numbers(found.words) if found.marker is None else found.marker
            if seen != marker:
                marker, moved_s = seen, time.monotonic()
            waited_ms = (time.monotonic() - moved_s) * 1000
            if found.final or (timeout_ms and waited_ms >= timeout_ms):
                raise _Stuck(found)
            self._screen.doing(f"waiting: {found.words}", found.marker)
            time.sleep(POLL_MS / 1000)

    def _check(self, cluster: ClusterView) -> None:
        """Stop as soon as a leader says that somebody else has changed the record."""
        if cluster.leader is not None:
            self._record.check(cluster.leader)

    def _gate(self, position: int) -> ClusterView:
        """Wait until the step may be taken, hand leadership over where that is to be done first.

        Raises:
            _Stuck, _StepFailed, Superseded.
        """
        name = self._steps[position].name
        is_restart = self._record.operation.kind == ROLLING_RESTART
        leaving = () if is_restart else [s.name for s in self._steps if s.state not in (DONE,)]
        cluster = self._look()
        for _ in range(TRANSFERS_MAX):

            def find() -> Obstacle | None:
                nonlocal cluster
                cluster = self._look()
                self._check(cluster)
                return obstacle(cluster, name, stops=is_restart, leaving=leaving)

            self._wait(find)
            leader, configuration = cluster.leader, cluster.configuration
            assert leader is not None
            assert configuration is not None
            if server_name(leader.server) != name or len(configuration.voters) == 1:
                return cluster
            self._hand_over(position, cluster)
        raise _StepFailed(
            f"leadership does not stay away from {name}",
            f"it was handed over {TRANSFERS_MAX} times, and {name} leads again",
            self._context.command("doctor"),
        )

    def _hand_over(self, position: int, cluster: ClusterView) -> None:
        """Make another voter lead, one that is done with its own step if there is one."""
        name = self._steps[position].name
        settled = {step.name for step in self._steps if step.state == DONE}
        settled |= {
            step.replacement.partition("=")[0] for step in self._steps if step.state == DONE
        }
        voters = [row for row in cluster.rows if row.vote == "yes" and row.alive]
        ready = [row for row in voters if row.name in settled and behind([row]) is None]
        target = next((row.name for row in ready if row.name != name), "")
        self._screen.doing(
            f"{name} leads: handing leadership over{f' to {target}' if target else ''}"
        )
        try:
            reply = self._cluster.ask(TransferRequest(target=target))
        except (Refused, OutcomeUnknown) as error:
            # Whether it has moved the next look says; there is another attempt if not.
            self._screen.say(f"leadership was not handed over: {error.message}: {error.cause}")
            return
        moved = expect(reply, TransferReply)
        self._screen.say(f"leadership moved from {name} to {server_name(moved.leader)}")

    # --- one replacement ---

    def _replace(self, position: int) -> None:
        step = self._steps[position]
        operation = ""
        if step.state == RUNNING:
            operation = step.operation or self._begun_before(step)
        if not operation:
            cluster = self._gate(position)
            assert cluster.configuration is not None
            if self._skip(position, cluster.configuration):
                return
            if step.state != RUNNING:
                self._note(position, RUNNING, operation="", note="")
            operation = self._begin_change(position, cluster.configuration)
        if operation != self._steps[position].operation:
            self._note(position, RUNNING, operation=operation)
        view = watch_with(
            self._context, self._cluster, operation, _StepReporter(self._screen, operation)
        )
        record = view.record
        if record.result != DONE:
            raise _StepFailed(
                f"{operation}, the replacement of {exchange(step)}, "
                f"{'was aborted' if record.abort_requested_by else 'failed'}; "
                "the servers that vote are as before",
                record.explanation or record.abort_reason,
                self._context.command(f"operation show {operation}"),
            )
        self._note(position, DONE, note="")

    def _begun_before(self, step: RollingStep) -> str:
        """Return the newest membership operation that makes this step; empty if there is none.

        The driver that noted the step may have ended before it noted the operation.
        """
        reply = expect(self._cluster.ask(OperationsRequest()), OperationsReply)
        for view in reversed(reply.operations):
            record = view.record
            if record.parent == self._record.id and _makes(record, step):
                return record.id if record.running or record.result == DONE else ""
        return ""

    def _skip(self, position: int, configuration: ConfigurationView) -> bool:
        """Skip the step of a server that is no member any more, and return whether it was."""
        step = self._steps[position]
        if step.name in {server_name(server) for server in configuration.addresses}:
            return False
        self._note(position, SKIPPED, note=f"{step.name} is not a member any more")
        return True

    def _begin_change(self, position: int, configuration: ConfigurationView) -> str:
        """Begin the membership operation of a step, and return its id."""
        step = self._steps[position]
        name, address = parse_member_argument(step.replacement)
        learners = {server_name(server) for server in configuration.learners}
        changes = (
            MemberChange(role="remove", name=step.name),
            MemberChange(
                role="learner" if step.name in learners else "voter", name=name, address=address
            ),
        )
        self._screen.doing(f"replacing {exchange(step)}")
        try:
            reply = self._cluster.write(
                lambda session, serial, lowest: ChangeRequest(
                    session=session,
                    serial=serial,
                    kind="replace",
                    changes=changes,
                    author=author(),
                    reason=self._record.operation.reason,
                    # The gate has judged this configuration and no other.
                    at_index=configuration.index,
                    parent=self._record.id,
                ),
                reply_timeout_ms=CHANGE_REPLY_TIMEOUT_MS,
            )
        except (Refused, Unsafe) as error:
            begun = self._begun_before(step)
            if begun:
                return begun
            self._record.check(None)
            raise _StepFailed(
                f"{exchange(step)}: {error.message}",
                error.cause,
                error.hint,
                exit_code=error.exit_code,
            ) from None
        return expect(reply, ChangeReply).operation

    # --- one restart ---

    def _restart(self, position: int) -> None:
        step = self._steps[position]
        noted = ""
        if step.state == RUNNING:
            server = self._member(step.name)
            if server is not None and self._was_restarted(server, step):
                self._come_back(position, server, before=None)
                return
            noted = "nobody knows whether it was restarted before, so it was done again"
        cluster = self._gate(position)
        assert cluster.configuration is not None
        if self._skip(position, cluster.configuration):
            return
        row = self._member(step.name, cluster)
        assert row is not None
        before = self._sight(row.address, row.server)
        self._note(
            position,
            RUNNING,
            note=noted,
            uptime_ms=before.uptime_ms if before is not None else 0,
            version_before=before.version if before is not None else "",
            version_after="",
        )
        self._run_command(position, row)
        self._come_back(position, row, before=before)

    def _run_command(self, position: int, row: Row) -> None:
        rolling = rolling_of(self._record.operation)
        began_s = time.monotonic()

        def waiting() -> None:
            took_ms = (time.monotonic() - began_s) * 1000
            runs = f": its command runs for {duration(took_ms)}" if took_ms > POLL_MS else ""
            self._screen.doing(f"restarting {row.name}{runs}", row.name)

        waiting()
        end = run_command(
            rolling.command,
            row.name,
            row.address,
            timeout_ms=self._context.timeout_ms,
            waiting=waiting,
        )
        if end.code != 0:
            output = printable_lines(end.output) or "it has written nothing"
            raise _StepFailed(
                f"the command that restarts {row.name} {end.words}",
                f"{row.name} may be down now; no other server is stopped\n{output}",
                f"start {row.name} if it is down; resuming runs the command for it again",
                note=f"its command {end.words}: {output.splitlines()[-1]}",
            )

    def _come_back(self, position: int, row: Row, *, before: Sighting | None) -> None:
        """Wait until a server that was restarted answers, is in contact and has caught up.

        Args:
            before: its process as it was before the command; None where it did not answer, or
                where it is certain that it was restarted.
        """
        committed = max((r.reply.commit_index for r in self._look().rows if r.reply), default=0)
        after: Sighting | None = None

        def find() -> Obstacle | None:
            nonlocal after
            sighted = self._sight(row.address, row.server)
            if sighted is None:
                return Obstacle(words=f"{row.name} does not answer yet")
            if before is not None and not sighted.is_later_than(before):
                return Obstacle(
                    words=f"{row.name} still runs as before, for {duration(sighted.uptime_ms)}: "
                    "its command has not restarted it"
                )
            after = sighted
            cluster = self._look()
            self._check(cluster)
            return not_back(cluster, row.server, committed)

        self._wait(find)
        assert after is not None
        self._note(position, DONE, version_after=after.version)

    def _was_restarted(self, row: Row, step: RollingStep) -> bool:
        """Return whether a server was restarted since its step began, as far as anybody can say."""
        sighted = self._sight(row.address, row.server)
        if sighted is None:
            return False
        leader = self._cluster.leader_status()
        now_ms = leader.wall_clock_ms or int(time.time() * 1000)
        return was_restarted(
            uptime_ms=sighted.uptime_ms,
            uptime_before_ms=step.uptime_ms,
            elapsed_ms=now_ms - step.started_ms,
        )

    def _member(self, name: str, cluster: ClusterView | None = None) -> Row | None:
        rows = (cluster or self._look()).rows
        return next((row for row in rows if row.member and row.name == name), None)

    def _sight(self, address: str, server: ServerId) -> Sighting | None:
        """Ask one server for its process; None if it does not answer, or another one does."""
        asked_s = time.monotonic()
        try:
            reply = self._cluster.ask_at(
                address, StatusRequest(), deadline=Deadline.after_ms(ASK_TIMEOUT_MS)
            )
        except ConnectionProblem:
            return None
        if not isinstance(reply, StatusReply) or reply.server != server:
            return None
        return Sighting.of(
            reply.uptime_ms, reply.version, asked_s=asked_s, answered_s=time.monotonic()
        )

    # --- the end ---

    def _finish(self) -> None:
        """End the operation; after a restart, once the features of all are switched on."""
        if self._record.operation.kind == ROLLING_RESTART:
            with contextlib.suppress(_Stuck):
                self._wait(lambda: features_missing(self._look()))
            for words in upgrade_words(self._look(), features_before=self._features_before):
                self._screen.say(words)
        self._record.end(DONE)
        self._screen.show(self._record.operation)

    def _resume_command(self) -> str:
        return self._context.command(f"rolling resume {self._record.id}")

    def _pause(self, reason: str) -> str:
        """Put a pause on record, and return why that was not possible; empty if it was."""
        deadline = Deadline.after_ms(LAST_WORDS_MS)
        try:
            self._record.pause(_one_line(reason), deadline=deadline)
        except Superseded as error:
            return error.words
        except CliError as error:
            return f"{error.message}: {error.cause}"
        self._screen.show(self._record.operation)
        return ""

    def _where(self) -> str:
        """Return how far the operation is, for the error that ends the driver."""
        return counted(rolling_of(self._record.operation))

    def _paused_at(self, position: int, found: Obstacle) -> CliError:
        step = self._steps[position]
        waited = "" if found.final else f" for {duration(self._context.timeout_ms)}"
        self._pause(f"waited{waited} for: {found.words}" if waited else found.words)
        kind: type[CliError] = Unsafe if found.unsafe else StillRunning
        verb = "is not finished" if step.state == RUNNING else "was not begun"
        return kind(
            f"{self._record.id} is paused: the step of {exchange(step)} {verb}",
            cause=f"{found.words}\n"
            + (f"nothing has moved{waited}; " if waited else "")
            + self._where(),
            hint="\n".join(filter(None, (found.hint, self._resume_command()))),
            code="paused",
            operation=self._record.id,
        )

    def _interrupted(self) -> Interrupted:
        """Note a pause, so that nobody waits for a driver that is gone."""
        running = [step for step in self._steps if step.state == RUNNING]
        going_on = "".join(
            f"; {step.operation} goes on by itself"
            if step.operation
            else f"; the restart of {step.name} may be under way"
            for step in running
        )
        problem = ""
        try:
            problem = self._pause("interrupted")
        except KeyboardInterrupt:
            problem = "interrupted twice"
        state = f"not paused ({problem})" if problem else f"paused{going_on}"
        return Interrupted(
            f"{self._record.id} is {state}, {self._where()}; go on: {self._resume_command()}",
            hint=self._resume_command(),
            operation=self._record.id,
        )

    def _at_a_loss(self, error: CliError) -> StillRunning:
        """Return what to end with where the cluster does not answer, or a step stands still."""
        problem = self._pause(error.message)
        return StillRunning(
            f"{self._record.id} is {'not paused' if problem else 'paused'}: {error.message}",
            cause="\n".join(filter(None, (error.cause, problem, self._where()))),
            hint=self._resume_command(),
            code="paused",
            operation=self._record.id,
        )


class _StepReporter(Reporter):
    """Shows the membership operation of a step in a line."""

    def __init__(self, screen: Screen, operation: str) -> None:
        super().__init__()
        self._screen = screen
        self._operation = operation

    def print_progress(self, view: OperationView, finished: list[str]) -> None:
        """Show what the operation does now."""
        if not view.record.running:
            return
        words = [describe_step(view)]
        words += [
            describe_peer(peer, view.last_index, self.rate(peer))
            for peer in view.peers
            if not peer.caught_up
        ]
        if view.blocked_by:
            words.append(f"waiting: {view.blocked_by}")
        self._screen.doing(f"{self._operation}: {'; '.join(words)}", (view.step, view.index))

    def print_waiting(self, text: str) -> None:
        """Show why nothing is known right now."""
        self._screen.doing(f"{self._operation}: {text}")


class Look:
    """Asks every member how it is; follows the members wherever they go."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._endpoints = cluster.endpoints

    def now(self) -> ClusterView:
        """Return what all servers say now."""
        found = observe(self._endpoints, 0)
        configuration = found.configuration
        if found.leader is not None and configuration is not None and configuration.addresses:
            for server, address in configuration.addresses.items():
                self._cluster.learn(server, address)
            # Those that are gone for good would be asked in vain each time.
            self._endpoints = attrs.evolve(
                self._cluster.endpoints,
                addresses=tuple(configuration.addresses.values()),
                names={
                    address: server_name(server)
                    for server, address in configuration.addresses.items()
                },
            )
        return found


def _makes(record: Operation, step: RollingStep) -> bool:
    """Return whether a membership operation is the replacement of this step."""
    name, address = parse_member_argument(step.replacement)
    removed = {server_name(server) for role, server in record.plan.changes if role == "remove"}
    brought_in = {(server_name(server), at) for server, at in record.plan.addresses.items()}
    return removed == {step.name} and brought_in == {(name, address)}


def _one_line(text: str) -> str:
    """Return `text` as it is put on record: on one line, and not too long."""
    return " ".join(text.split())[:NOTE_CHARACTERS_MAX]


def printable_lines(text: str) -> str:
    """Return lines of others, safe for a terminal."""
    return "\n".join(printable(line) for line in text.splitlines())


# --- upgrades ---------------------------------------------------------------------------------


def _versions_spoken(cluster: ClusterView) -> dict[str, int]:
    """Return the newest features that each member can apply."""
    return {
        row.name: row.reply.applicable_features
        for row in cluster.rows
        if row.member and row.reply is not None
    }


def features_missing(cluster: ClusterView) -> Obstacle | None:
    """Return that the features which every member can apply are not switched on yet.

    None also where a member does not answer, or there is no leader to say so.
    """
    leader = cluster.leader
    spoken = _versions_spoken(cluster)
    members = [row for row in cluster.rows if row.member]
    if leader is None or not leader.features or len(spoken) < len(members):
        return None
    version = min(spoken.values())
    if leader.features >= version:
        return None
    return Obstacle(words=f"the features of version {version} are not switched on yet")


def upgrade_words(cluster: ClusterView, *, features_before: int | None) -> list[str]:
    """Return what became of an upgrade: the releases that run, and whose features are on.

    Args:
        features_before: the version whose features were on before; None if that is not known. Only
            if there are newer ones by now that is said; what is wrong is always said.
    """
    releases: dict[str, list[ServerId]] = {}
    for row in cluster.rows:
        if row.member and row.reply is not None:
            releases.setdefault(row.reply.version, []).append(row.server)
    lines = []
    if len(releases) > 1:
        shown = "; ".join(
            f"{release} on {name_list(servers)}"
            for release, servers in sorted(releases.items(), key=lambda item: natural_key(item[0]))
        )
        lines.append(f"the servers run different releases: {shown}")
    spoken = _versions_spoken(cluster)
    features = cluster.leader.features if cluster.leader is not None else 0
    if not spoken or not features:
        return lines
    newest = max(spoken.values())
    older = [name for name, version in spoken.items() if version < newest]
    if older:
        stay = "stays" if len(older) == 1 else "stay"
        lines.append(
            f"the features of version {newest} are off while {name_list(older)} {stay} at an older "
            "one: restart them with the new release"
        )
    elif features >= newest and features_before is not None and features > features_before:
        lines.append(
            f"the features of version {features} are switched on now, all servers speak it"
        )
    elif features < newest:
        lines.append(
            f"all servers speak version {newest}, its features are not switched on yet; the leader "
            "does that as soon as all members are connected"
        )
    return lines


def left_over(steps: Sequence[RollingStep]) -> str:
    """Return how much is to be done, for a question: `2 steps are left, n3 and n1`."""
    names = [step.name for step in steps if step.state in (PENDING, FAILED, RUNNING)]
    verb = "is" if len(names) == 1 else "are"
    return f"{plural(len(names), 'step')} {verb} left: {' '.join(names)}"
