"""Watching a membership operation: who to ask, what counts as progress, what to show.

The operation runs in the cluster, whether or not anybody looks on. Watching it survives changes
of leader and servers that end: every known address is asked, and the members of the configurations
that are seen on the way become known. Only time without progress ends it early.

On a terminal the running numbers are redrawn in place beneath what is finished. Elsewhere they are
plain lines, printed when a quarter more is done or after some seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterable

import attrs
import click

from raftctl.cli import Context
from raftctl.client import Cluster, ConnectionProblem, Deadline, expect
from raftctl.errors import CliError, Interrupted, Refused, StillRunning, dialling
from raftctl.render import (
    Style,
    bar,
    cut,
    duration,
    name_list,
    natural_key,
    number,
    plural,
    printable,
    terminal_width,
    width_of,
)
from raftctl.rollback_text import (
    POINT_OF_NO_RETURN,
    cause_lines,
    is_past_return,
    next_step,
)
from raftd.cluster_status.operations import (
    ENTRIES,
    RECEIVING,
    part_of,
    progress_document,
    remaining_ms,
    summary,
)
from raftd.cluster_status.words import size
from raftd.commands import ABORTED, CATCHING_UP, DONE, ENDED, JOINING, JOINT, Operation
from raftd.core.types import ServerId, server_name
from raftd.protocol import (
    ErrorReply,
    MajorityView,
    OperationsReply,
    OperationsRequest,
    OperationView,
    PeerView,
    StatusReply,
    StatusRequest,
)

POLL_MS_MIN = 100.0
"""Between two answers at first: most changes take less than a second. The end of an operation is
told at once by a leader."""
POLL_MS_MAX = 500.0
"""Between two answers later; somebody who waits for minutes does not miss the half second."""
ASK_TIMEOUT_MS = 1_000.0
"""For one server. A healthy one answers at once, and the next may be the new leader."""
LINE_MS = 5_000.0
"""Off a terminal: numbers are printed at least this often while they move."""
RATE_MS = 5_000.0
"""The rate is that of the last so many milliseconds."""
UNKNOWN_MS = 3_000.0
"""A new leader may still have to apply the record; after this the operation does not exist."""
BAR_COLUMNS = 16


# --- the words ------------------------------------------------------------------------------


def describe_majorities(view: OperationView) -> str:
    """Return which servers have acknowledged the configuration entry, half by half."""
    joint = view.old is not None and view.new is not None
    parts = []
    for label, majority in (("old", view.old), ("new", view.new)):
        if majority is not None:
            which = f"{label} half " if joint else ""
            who = f" ({name_list(majority.acknowledged)})" if majority.acknowledged else ""
            count, total = len(majority.acknowledged), len(majority.servers)
            parts.append(f"{which}{count} of {total}{who}, {majority.needed} needed")
    return "; ".join(parts)


def describe_step(view: OperationView) -> str:
    """Return what the operation does right now, apart from how far each server is."""
    record = view.record
    if view.step == "rolling-back":
        why = view.blocked_by or record.abort_reason
        return f"rolling back{f': {why}' if why else ''}"
    if view.index and view.step in ("committing-joint", "committing-final"):
        what = "C_old,new"
        if view.step == "committing-final":
            # From here on C_new decides alone.
            view = attrs.evolve(view, old=None)
            what = "C_new" if record.plan.joint else "the configuration"
        majorities = describe_majorities(view)
        where = f"{what} at index {number(view.index)}"
        return f"{where}, stored by {majorities}" if majorities else where
    return {
        JOINING: "joining the new servers",
        CATCHING_UP: "catching up",
        JOINT: "C_old,new is committed, C_new follows",
        ENDED: "ended",
    }.get(view.step or record.phase, view.step or record.phase)


def describe_peer(
    peer: PeerView, last_index: int, rate: float | None, *, width: int | None = None
) -> str:
    """Return how far a server has caught up, in numbers.

    Args:
        width: columns that there are; the words that matter least are left out until the others
            have room. Who it is, the share, the rate and the time that is left stay. None for no
            limit.
    """
    name = server_name(peer.server)
    if not peer.connected:
        return f"{name}: not connected{f' ({peer.problem})' if peer.problem else ''}"
    if peer.caught_up:
        rounds = f" in {plural(peer.rounds, 'round')}" if peer.rounds else ""
        return f"{name}: caught up at {number(peer.match_index)}{rounds}"
    if peer.snapshot_bytes:
        return _fitting(name, _snapshot_parts(peer), width)
    total = max(last_index, peer.match_index)
    remaining = total - peer.match_index
    parts = [
        _Part(f"{number(peer.match_index)} of {plural(total, 'entry', 'entries')}", rank=3),
        _Part(f"{_percent(peer, last_index)}%"),
    ]
    if rate:
        bytes_rate = peer.catch_up_bytes_per_second
        in_bytes = f" ({size(bytes_rate)}/s)" if bytes_rate else ""
        entries = f"{number(round(rate))}/s"
        parts.append(_Part(f"{entries}{in_bytes}", rank=4, short=entries))
    in_bytes = f" ({size(peer.lag_bytes)})" if peer.lag_bytes else ""
    has_time = bool(rate and remaining)
    # Without a rate it is all that is known of how long it takes.
    remains = f"{number(remaining)} remaining"
    parts.append(_Part(f"{remains}{in_bytes}", rank=2, short="" if has_time else remains))
    if rate and remaining:
        parts.append(_Part(f"about {duration(1000 * remaining / rate)}"))
    parts.append(_Part(f"round {peer.rounds + 1}", rank=1))
    return _fitting(name, parts, width)


@attrs.frozen
class _Part:
    """Some words of how far a server is."""

    text: str
    rank: int = attrs.field(default=0, kw_only=True)
    """The lowest goes first where there is no room; 0 for what stays."""
    short: str = attrs.field(default="", kw_only=True)
    """What stays of it then; nothing if empty."""


def _fitting(name: str, parts: list[_Part], width: int | None) -> str:
    """Return the words about a server that is catching up, less of them where `width` is little."""
    line = f"{name}: catching up: {', '.join(part.text for part in parts)}"
    if width is None or width_of(line) <= width:
        return line
    for rank in sorted({part.rank for part in parts}):
        if rank:
            parts = [_Part(part.short) if part.rank == rank else part for part in parts]
        line = f"{name}: {', '.join(part.text for part in parts if part.text)}"
        if width_of(line) <= width:
            break
    return line


def _snapshot_parts(peer: PeerView) -> list[_Part]:
    """Return how far a snapshot is, the way it goes: first received, then worked in."""
    total = size(peer.snapshot_bytes)
    done, done_bytes = "installed", peer.snapshot_installed_bytes
    if part_of(peer) == RECEIVING:
        done, done_bytes = "received", peer.snapshot_received_bytes
    percent = f"{100 * done_bytes // peer.snapshot_bytes}% {done}"
    parts = [_Part(f"{size(done_bytes)} of a snapshot of {total} {done}", rank=5, short=percent)]
    if peer.catch_up_bytes_per_second:
        parts.append(_Part(f"{size(peer.catch_up_bytes_per_second)}/s"))
    left_ms = remaining_ms(peer)
    if left_ms is not None:
        left = f"about {duration(left_ms)}"
        parts.append(_Part(f"{done} in {left}", rank=4, short=left))
    if done == "received":
        parts.append(_Part("then it is installed", rank=2))
    if peer.lag_bytes:
        parts.append(_Part(f"{size(peer.lag_bytes)} of entries after it", rank=3))
    parts.append(_Part(f"round {peer.rounds + 1}", rank=1))
    return parts


def _percent(peer: PeerView, last_index: int) -> int:
    if peer.snapshot_bytes:
        done_bytes = peer.snapshot_received_bytes + peer.snapshot_installed_bytes
        return 100 * done_bytes // (2 * peer.snapshot_bytes)
    total = max(last_index, peer.match_index)
    return 100 * peer.match_index // total if total else 100


# --- asking -----------------------------------------------------------------------------------


@attrs.define
class _Sighting:
    """What one round of questions has brought."""

    view: OperationView | None
    """The leader's view, else the one of whoever is furthest; None if nobody knows the record."""
    by_leader: bool
    """Whether a confirmed leader was among those who answered."""
    failures: str
    """How each server failed that did not help, on one line."""


def look(cluster: Cluster, operation: str, wait_ms: int = 0) -> _Sighting:
    """Ask for `operation` until a leader has answered or every known address has been tried.

    An ended record is final whoever shows it: it has been applied, so it is committed.

    Args:
        wait_ms: how long a leader may hold back its answer while the operation has not ended.
    """
    waiting = deque(cluster.leader_first())
    asked: set[str] = set()
    best: OperationView | None = None
    failures: dict[str, str] = {}
    while waiting:
        address = waiting.popleft()
        if address in asked:
            continue
        asked.add(address)
        try:
            status, view = _ask_one(cluster, address, operation, wait_ms)
        except ConnectionProblem as problem:
            failures[address] = str(problem)
            continue
        if view is not None and (best is None or not view.record.running):
            best = view
        if status.role == "leader" and status.leadership_confirmed:
            cluster.remember_leader(address)
            return _Sighting(view if view is not None else best, True, "")
        if best is not None and not best.record.running:
            return _Sighting(best, False, "")
        leader = server_name(status.leader)
        failures[address] = f"{status.role} of {leader}" if leader else f"{status.role}, no leader"
        if status.leader_address in cluster.addresses:
            waiting.appendleft(status.leader_address)
        for learned in cluster.addresses:
            if learned not in asked and learned not in waiting:
                waiting.append(learned)
    described = "; ".join(f"{cluster.label(at)}: {why}" for at, why in failures.items())
    return _Sighting(best, False, described)


def _ask_one(
    cluster: Cluster, address: str, operation: str, wait_ms: int
) -> tuple[StatusReply, OperationView | None]:
    status = expect(
        cluster.ask_at(address, StatusRequest(), deadline=Deadline.after_ms(ASK_TIMEOUT_MS)),
        StatusReply,
    )
    if status.role == "blank":
        raise ConnectionProblem(address, "blank", "blank: it belongs to no cluster yet")
    reply = cluster.ask_at(
        address,
        OperationsRequest(operation=operation, wait_ms=wait_ms),
        deadline=Deadline.after_ms(ASK_TIMEOUT_MS + wait_ms),
    )
    if isinstance(reply, ErrorReply):
        return status, None
    views = expect(reply, OperationsReply).operations
    return status, next((view for view in views if view.record.id == operation), None)


# --- watching ---------------------------------------------------------------------------------


def watch(context: Context, cluster: Cluster, operation: str) -> OperationView:
    """Show the progress of `operation` on stderr (as JSON lines on stdout) until it has ended.

    Returns its last view, whatever its result.

    Raises:
        StillRunning: nothing has moved for `--timeout`.
        Interrupted: Ctrl-C; the operation goes on.
        Refused: there is no such operation.
    """
    reporter = _reporter(context)
    try:
        return _Watch(context, cluster, operation, reporter).run()
    except KeyboardInterrupt:
        raise detached(context, operation) from None
    finally:
        reporter.close()


def watch_with(
    context: Context, cluster: Cluster, operation: str, reporter: Reporter
) -> OperationView:
    """Show the progress of `operation` by `reporter` until it has ended, and return its last view.

    Ctrl-C is left to the caller; the rest as `watch`.
    """
    return _Watch(context, cluster, operation, reporter).run()


def detached(context: Context, operation: str) -> Interrupted:
    """Return what Ctrl-C ends with while `operation` runs."""
    command = context.command(f"operation watch {operation}")
    return Interrupted(f"still running: {command}", hint=command, operation=operation)


class _Watch:
    """One operation under observation."""

    def __init__(
        self, context: Context, cluster: Cluster, operation: str, reporter: Reporter
    ) -> None:
        self._context = context
        self._cluster = cluster
        self._operation = operation
        self._reporter = reporter
        self._moved_s = time.monotonic()
        self._marker: object = None
        self._view: OperationView | None = None
        self._failures = ""

    def run(self) -> OperationView:
        poll_ms = POLL_MS_MIN
        wait_ms = 0.0
        started_s = time.monotonic()
        while True:
            asked_s = time.monotonic()
            sighting = look(self._cluster, self._operation, round(wait_ms))
            self._failures = sighting.failures
            view = sighting.view
            if view is not None:
                self._view = view
                self._note_movement(view)
                self._reporter.show(view)
                if not view.record.running:
                    return view
            elif sighting.by_leader and self._seconds_since(started_s) > UNKNOWN_MS / 1000:
                raise unknown_operation(self._context, self._operation)
            else:
                self._reporter.nobody(sighting.failures)
            timeout_ms = self._context.timeout_ms
            if timeout_ms and self._seconds_since(self._moved_s) >= timeout_ms / 1000:
                raise self._still_running()
            # Nobody holds back an answer who does not lead, or is of an older release.
            time.sleep(max(0.0, wait_ms / 1000 - self._seconds_since(asked_s)))
            wait_ms, poll_ms = poll_ms, min(poll_ms * 1.25, POLL_MS_MAX)

    def _note_movement(self, view: OperationView) -> None:
        marker = (
            view.record.phase,
            view.record.configuration_index,
            view.record.abort_requested_by,
            view.step,
            view.index,
            # A server that has caught up goes on with the log; that brings nobody further.
            tuple(
                (peer.server, peer.match_index, peer.rounds, _snapshot_numbers(peer))
                for peer in view.peers
                if not peer.caught_up
            ),
            view.old.acknowledged if view.old else (),
            view.new.acknowledged if view.new else (),
        )
        if marker != self._marker:
            self._marker = marker
            self._moved_s = time.monotonic()

    @staticmethod
    def _seconds_since(moment_s: float) -> float:
        return time.monotonic() - moment_s

    def _still_running(self) -> StillRunning:
        cause = []
        view = self._view
        if view is not None:
            cause.append(f"last seen: {describe_step(view)}")
            cause += [
                describe_peer(peer, view.last_index, None)
                for peer in view.peers
                if not peer.caught_up
            ]
            if view.blocked_by:
                cause.append(f"it waits for: {view.blocked_by}")
        if self._failures:
            cause.append(f"no leader answers: {self._failures}")
        ways = [self._context.command(f"operation watch {self._operation}")]
        if view is not None and is_past_return(view):
            cause.append(POINT_OF_NO_RETURN)
        else:
            ways.append(self._context.command(f"operation abort {self._operation}"))
        return StillRunning(
            f"{self._operation} made no progress for {duration(self._context.timeout_ms)}; "
            "it goes on by itself",
            cause="\n".join(cause),
            hint="\n".join(ways),
            operation=self._operation,
        )


def unknown_operation(context: Context, operation: str, *, by_leader: bool = True) -> Refused:
    """Return the error for an operation that the leader does not know.

    Args:
        by_leader: false if there is no leader, and only some other server has been asked.
    """
    who = "the leader" if by_leader else "the server that answered, which does not lead,"
    return Refused(
        f"there is no operation {printable(operation)}",
        code="no-such-operation",
        cause=f"{who} has no record of it; only the newest 1,000 are kept",
        hint=context.command("operation list"),
    )


def outcome_error(context: Context, record: Operation) -> CliError | None:
    """Return the error that a command ends with whose operation ended like this, or None."""
    if record.result == DONE:
        return None
    word = "was aborted" if record.result == ABORTED else "failed"
    by = f" by {record.abort_requested_by}" if record.abort_requested_by else ""
    return CliError(
        f"{record.id} ({summary(record)}) {word}{by}; the servers that vote are as before",
        code=record.result or "failed",
        cause="\n".join(cause_lines(record)) or printable(record.abort_reason) or "nobody said why",
        hint="\n".join(
            filter(
                None,
                (
                    dialling(next_step(record), context.command),
                    context.command(f"operation show {record.id}"),
                ),
            )
        ),
        operation=record.id,
    )


# --- showing ----------------------------------------------------------------------------------


class Reporter:
    """Shows an operation: finished phases once, running numbers as they move.

    This one prints nothing, for outputs that have a last document and nothing before it.
    """

    def __init__(self) -> None:
        self._samples: dict[ServerId, deque[tuple[float, int]]] = {}
        """When each server was at which entry, while it was sent entries."""
        self._phases_shown = 0
        self._announced = False
        self._caught_up: set[ServerId] = set()
        self._majorities = ""

    def show(self, view: OperationView) -> None:
        """Show `view`, the newest one."""
        for peer in view.peers:
            if part_of(peer) != ENTRIES:
                # Once it is in force all its entries are there at a stroke: that is no rate.
                self._samples.pop(peer.server, None)
                continue
            samples = self._samples.setdefault(peer.server, deque())
            samples.append((time.monotonic(), peer.match_index))
            while samples[-1][0] - samples[0][0] > RATE_MS / 1000:
                samples.popleft()
        if view.step == "committing-joint" and _is_complete(view.old) and _is_complete(view.new):
            self._majorities = describe_majorities(view)
        self.print_progress(view, list(self._finished(view)))

    def nobody(self, failures: str) -> None:
        """Show that no server has answered with the operation."""
        self.print_waiting(f"nobody answers as a leader: {failures}")

    def close(self) -> None:
        """Leave the terminal tidy."""

    def print_progress(self, view: OperationView, finished: list[str]) -> None:
        """Print what has been finished since the last view, and how far the rest is."""

    def print_waiting(self, text: str) -> None:
        """Print why nothing is known right now."""

    def rate(self, peer: PeerView) -> float | None:
        """Return the entries per second of a server, or None where that is not known yet."""
        samples = self._samples.get(peer.server)
        if not samples or samples[-1][0] - samples[0][0] < POLL_MS_MIN / 1000:
            return None
        first, last = samples[0], samples[-1]
        return max(0.0, (last[1] - first[1]) / (last[0] - first[0])) or None

    def _finished(self, view: OperationView) -> Iterable[str]:
        """Yield a line for everything that is finished now and was not in the view before."""
        record = view.record
        if not self._announced:
            self._announced = True
            yield f"{record.id}: {summary(record)}"
        for peer in view.peers:
            if peer.caught_up and peer.server not in self._caught_up:
                self._caught_up.add(peer.server)
                yield describe_peer(peer, view.last_index, None)
        for phase in record.phases[self._phases_shown :]:
            self._phases_shown += 1
            at = f"at index {number(phase.index)}"
            if phase.phase == JOINT and (view.step == "rolling-back" or record.result == ABORTED):
                # An abort may come before both majorities have it: C_old commits the two entries.
                yield f"C_old,new {at} is rolled back"
            elif phase.phase == JOINT:
                majorities = self._majorities or _planned_majorities(record)
                yield f"C_old,new committed {at}: {majorities}"
            elif phase.phase == ENDED and record.result == DONE:
                what = "C_new committed" if record.plan.joint else "configuration committed"
                # The record ends with the entry that carries its outcome.
                yield f"{what} {at}"
            elif phase.phase == ENDED and record.result == ABORTED and _was_joint(record):
                before = name_list(record.plan.voters_before)
                yield f"restored {at}: the voters are ({before}), as before"
        if not record.running and record.result == DONE and record.phases:
            took_ms = record.phases[-1].time_ms - record.phases[0].time_ms
            yield f"{record.id}: done in {duration(max(0, took_ms))}"


def _was_joint(record: Operation) -> bool:
    return any(phase.phase == JOINT for phase in record.phases)


def _planned_majorities(record: Operation) -> str:
    plan = record.plan
    return (
        f"by a majority of ({name_list(plan.voters_before)}) "
        f"and one of ({name_list(plan.voters_after)})"
    )


def _snapshot_numbers(peer: PeerView) -> tuple[int, int]:
    return (peer.snapshot_received_bytes, peer.snapshot_installed_bytes)


def _is_complete(majority: MajorityView | None) -> bool:
    return majority is not None and len(majority.acknowledged) >= majority.needed


class _Gate:
    """Says when numbers are worth a line: a quarter more, another step, or some time later."""

    def __init__(self) -> None:
        self._shown: object = None
        self._numbers: object = None
        self._shown_s = 0.0

    def opens(self, view: OperationView) -> bool:
        """Return whether to print `view`, and note that it has been."""
        steps = (
            view.record.phase,
            view.step,
            view.index,
            # Its numbers change all the time.
            "" if _numbers_say_it(view) else view.blocked_by,
            tuple((peer.server, peer.connected, peer.caught_up) for peer in view.peers),
            tuple(_percent(peer, view.last_index) // 25 for peer in view.peers),
            view.old.acknowledged if view.old else (),
            view.new.acknowledged if view.new else (),
        )
        numbers = tuple((peer.match_index, _snapshot_numbers(peer)) for peer in view.peers)
        now_s = time.monotonic()
        due = now_s - self._shown_s >= LINE_MS / 1000 and numbers != self._numbers
        if steps == self._shown and not due:
            return False
        self._shown, self._numbers, self._shown_s = steps, numbers, now_s
        return True


class _JsonLines(Reporter):
    """A line of JSON on stdout for each step."""

    def __init__(self) -> None:
        super().__init__()
        self._gate = _Gate()

    def print_progress(self, view: OperationView, finished: list[str]) -> None:
        if view.record.running and self._gate.opens(view):
            line = {
                "type": "progress",
                "operation": view.record.id,
                "phase": view.record.phase,
                **progress_document(view),
            }
            click.echo(json.dumps(line, ensure_ascii=False))


class _PlainLines(Reporter):
    """Lines on stderr, no cursor movement."""

    def __init__(self, style: Style) -> None:
        super().__init__()
        self._style = style
        self._gate = _Gate()
        self._last = ""

    def print_progress(self, view: OperationView, finished: list[str]) -> None:
        for line in finished:
            self._print(line)
        if view.record.running and self._gate.opens(view):
            for line in live_lines(self, view, self._style):
                self._print(line)

    def print_waiting(self, text: str) -> None:
        self._print(self._style(text, "yellow"))

    def _print(self, line: str) -> None:
        if line != self._last:
            self._last = line
            click.echo(line, err=True, color=True)


class _Redrawn(Reporter):
    """A block at the bottom of the terminal that is drawn over."""

    def __init__(self, style: Style) -> None:
        super().__init__()
        self._style = style
        self._lines = 0

    def print_progress(self, view: OperationView, finished: list[str]) -> None:
        live = []
        if view.record.running:
            # The last column stays empty: some terminals break the line there.
            live = live_lines(self, view, self._style, width=_redrawn_width())
        self._draw(finished, live)

    def print_waiting(self, text: str) -> None:
        self._draw([], [self._style(text, "yellow")])

    def close(self) -> None:
        self._draw([], [])

    def _draw(self, finished: list[str], live: list[str]) -> None:
        # A line that wraps would take two, and the cursor would not find back: cut it.
        live = [cut(line, _redrawn_width()) for line in live]
        up = f"\x1b[{self._lines}A" if self._lines else ""
        text = f"{up}\r\x1b[J" + "".join(f"{line}\n" for line in [*finished, *live])
        if self._lines or finished or live:
            sys.stderr.write(text)
            sys.stderr.flush()
        self._lines = len(live)


def _redrawn_width() -> int:
    return (terminal_width(sys.stderr) or 80) - 1


def _numbers_say_it(view: OperationView) -> bool:
    """Return whether what the operation waits for is what the line of each server says."""
    return (
        view.step == CATCHING_UP and bool(view.peers) and all(peer.connected for peer in view.peers)
    )


def live_lines(
    reporter: Reporter, view: OperationView, style: Style, *, width: int | None = None
) -> list[str]:
    """Return the lines that say how far a running operation is.

    Args:
        width: columns of a terminal, where servers have a bar if there is room for it; None for
            lines without bars and without a limit.
    """
    lines = []
    for peer in sorted(view.peers, key=lambda peer: natural_key(peer.server)):
        # Who is being told which cluster it belongs to has no connection yet.
        if not peer.caught_up and view.step != JOINING:
            rate = reporter.rate(peer)
            text = describe_peer(peer, view.last_index, rate, width=width)
            if width is not None and peer.connected:
                gauge = bar(_percent(peer, view.last_index) / 100, BAR_COLUMNS)
                whole = f"{gauge} {describe_peer(peer, view.last_index, rate)}"
                text = whole if width_of(whole) <= width else text
            lines.append(text if peer.connected else style(text, "yellow"))
    if not lines or view.step not in ("", CATCHING_UP):
        lines.append(describe_step(view))
    is_said = view.step == "rolling-back" or _numbers_say_it(view)
    if view.blocked_by and not is_said:
        lines.append(style(f"waiting: {printable(view.blocked_by)}", "yellow"))
    if view.record.abort_requested_by:
        lines.append(f"abort requested by {view.record.abort_requested_by}")
    return lines


def _reporter(context: Context) -> Reporter:
    if context.output == "json":
        return _JsonLines()
    if context.output == "yaml":
        return Reporter()
    style = Style(context.use_color(sys.stderr))
    return _Redrawn(style) if context.redraws(sys.stderr) else _PlainLines(style)
