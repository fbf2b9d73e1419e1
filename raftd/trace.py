"""What a server does, one event after the other, as JSON lines; and a table of them for people.

A line is an object with `time_us`, `server` and `event`, then the fields of that event:

| event | further fields | it says that |
|---|---|---|
| `start` | `term`, `vote`, `last_index`, `last_term`, `configuration_index` | this was found |
| `term` | `term` | a new term is durable |
| `vote` | `term`, `voted_for` | a vote is durable |
| `role` | `role`, `term`, `leader` | one of these three has changed |
| `append` | `first_index`, `last_index`, `last_term`, `replaced` | these entries are durable |
| `restore` | `last_index`, `last_term` | a snapshot that ends there is in force |
| `configuration` | `index`, `term`, `kind`, `operation`, and the three lists | it is in force |
| `commit` | `commit_index`, `term` | these entries are known to be committed |
| `apply` | `first_index`, `applied_index`, `state_hash` | one transaction has applied these |
| `stop` | `why` | the process ends in good order, be it after an error |
| `dropped` | `count` | so many lines are missing here: the file could not keep up |

| field | what it is |
|---|---|
| `time_us` | microseconds since 1970 by this server's wall clock, or by that of a simulation |
| `server`, `vote`, `voted_for`, `leader` | name/incarnation, `n1/6f0d2a1b3c4d5e6f`; null: none |
| `role` | follower, precandidate, candidate or leader; after `start` a follower without a leader |
| `replaced` | how many entries, from `first_index` on, these took the place of |
| `kind` | of the configuration: bootstrap, simple, joint, final or abort; none: there is none |
| `voters`, `outgoing`, `learners` | lists of servers, sorted; `outgoing` is C_old while joint |
| `index` | of the configuration's entry, which is durable; 0: there is none |
| `operation` | the membership operation that the configuration belongs to, or empty |
| `term` | of the server; with `configuration` and `commit` that of the entry there |
| `state_hash` | of the state after `applied_index`, 16 hex digits; null where none is kept |

The lines of a server stand in the order of what happened, also where its clock was set back. What
follows from a batch of inputs is traced as soon as the disk has it: `term`, `vote`, `role`,
`append`, `configuration`, `commit` (or before an `append` of later entries), then `apply`. After
`start`, and after an `append` that replaced the configuration in force, a `configuration` says
which one is in force now, and one follows for each that was appended. Roles and configurations that
came and went within one batch are not in the trace: nobody else ever saw them. At equal
`applied_index` all servers of a cluster have the same `state_hash`. A process that was killed
leaves no `stop`; its last events may be missing, or the last line be cut.

`python -m raftd.trace FILE...` merges the traces of several servers by time into one table.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from raftd.core.membership import Configuration, ConfigurationAt
from raftd.core.raft import Raft
from raftd.core.snapshot import Snapshot
from raftd.core.types import Entry, EntryKind, HardState, Index, ServerId, Term

if TYPE_CHECKING:
    import argparse

Event: TypeAlias = dict[str, Any]
Emit: TypeAlias = Callable[[Event], None]

QUEUE_EVENTS_MAX = 10_000
"""Events that wait for a slow disk, some megabytes; more are dropped, the node never waits."""
FLUSH_SECONDS_MAX = 2.0
"""At the end, the file has so long to take what is left: a disk that hangs must not keep the
process from ending."""
FILE_MODE = 0o644
EVENT_KINDS = (
    "start",
    "term",
    "vote",
    "role",
    "append",
    "restore",
    "configuration",
    "commit",
    "apply",
    "stop",
    "dropped",
)
"""All that a server writes. A simulation writes notes of further kinds between them."""
LINE_BYTES_MAX = 1024 * 1024
"""Of a line that is read: no server writes one as long, so what follows is no trace."""
SERVER_CHARACTERS_MAX = 20
DETAILS_CHARACTERS_MAX = 120
INCARNATION_CHARACTERS = 4
"""The last ones, which tell the incarnations of one name apart for people."""

logger = logging.getLogger("raftd.trace")


class Trace:
    """Watches one start of one server, by comparing what it sees with what it saw before.

    The methods are called by the node, in the order of what happens. None of them changes anything
    in `raft` or raises: a trace that fails says so in the log, and ends. What it keeps is of
    constant size, and an event has the size of a configuration at most.
    """

    def __init__(
        self,
        emit: Emit,
        clock_us: Callable[[], int],
        state_hash: Callable[[], int] | None = None,
    ) -> None:
        """Begin a trace.

        Args:
            emit: takes each event, a new dict of plain values that are ready for JSON.
            clock_us: microseconds since 1970.
            state_hash: of the state as applied so far, 0 to 2**64 - 1; None if nobody keeps one.
        """
        self.problem: Exception | None = None
        """What ended the trace before its time."""
        self._emit = emit
        self._clock_us = clock_us
        self._state_hash = state_hash
        self._server: ServerId = ""
        self._ended = False
        self._hard_state = HardState()
        self._role: tuple[str, Term, ServerId | None] = ("follower", 0, None)
        self._last_index: Index = 0
        """The last entry that the disk has."""
        self._configuration_index: Index = 0
        self._commit_index: Index = 0

    # --- what the node calls ---

    def started(self, raft: Raft) -> None:
        """Recovery is done, and nothing else has happened yet."""
        self._guarded(self._start, raft)

    def persisted(self, raft: Raft, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Both are durable, and so is all that `raft` has; nothing was put in since."""
        self._guarded(self._persist, raft, hard_state, entries)

    def applied(self, entries: Sequence[Entry]) -> None:
        """The state machine has applied `entries`, at least one."""
        self._guarded(self._apply, entries)

    def restored(self, raft: Raft, snapshot: Snapshot) -> None:
        """A snapshot that a leader sent is in force: log, configuration and state follow it."""
        self._guarded(self._restore, raft, snapshot)

    def turned(self, raft: Raft) -> None:
        """The node has done all that followed from a batch of inputs."""
        self._guarded(self._look, raft)

    def stopped(self, why: str) -> None:
        """The process ends, in the given words. Nothing follows; calling it again does nothing."""
        self._guarded(self._stop, why)

    # --- events ---

    def _guarded(self, act: Callable[..., None], *arguments: Any) -> None:
        if self._ended:
            return
        try:
            act(*arguments)
        except Exception as error:
            self._ended, self.problem = True, error
            logger.exception("the trace ends here")

    def _event(self, event: str, /, **fields: Any) -> None:
        self._emit({"time_us": self._clock_us(), "server": self._server, "event": event} | fields)

    def _start(self, raft: Raft) -> None:
        log, latest = raft.log, raft.configuration
        self._server = raft.server
        self._hard_state = HardState(raft.current_term, raft.voted_for)
        self._role = ("follower", raft.current_term, None)
        self._last_index = log.last_index
        self._commit_index = log.commit_index
        self._event(
            "start",
            term=raft.current_term,
            vote=raft.voted_for,
            last_index=log.last_index,
            last_term=log.last_term,
            configuration_index=latest.index if latest is not None else 0,
        )
        if latest is not None:
            self._configuration(raft, latest)

    def _persist(self, raft: Raft, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        if hard_state is not None:
            self._hard_state_is(hard_state)
        self._role_is(raft)
        if entries:
            # A commit may be the reason of what a leader appends, as C_old,new is of C_new.
            if raft.log.commit_index < entries[0].index:
                self._commit(raft)
            self._append(raft, entries)
        self._commit(raft)

    def _restore(self, raft: Raft, snapshot: Snapshot) -> None:
        index = snapshot.id.last_included_index
        self._last_index = max(index, min(self._last_index, raft.log.durable_index))
        self._commit_index = max(self._commit_index, index)
        self._event("restore", last_index=index, last_term=snapshot.id.last_included_term)
        self._configuration(raft, raft.log.configurations.at(self._last_index))

    def _look(self, raft: Raft) -> None:
        self._role_is(raft)
        self._commit(raft)

    def _hard_state_is(self, now: HardState) -> None:
        before, self._hard_state = self._hard_state, now
        if now.current_term != before.current_term:
            self._event("term", term=now.current_term)
            before = HardState(now.current_term, None)
        if now.voted_for != before.voted_for:
            self._event("vote", term=now.current_term, voted_for=now.voted_for)

    def _role_is(self, raft: Raft) -> None:
        now = (type(raft.role).__name__.lower(), raft.current_term, raft.leader_id)
        if now != self._role:
            self._role = now
            role, term, leader = now
            self._event("role", role=role, term=term, leader=leader)

    def _append(self, raft: Raft, entries: Sequence[Entry]) -> None:
        first, last = entries[0], entries[-1]
        replaced = max(0, self._last_index - first.index + 1)
        self._last_index = last.index
        self._event(
            "append",
            first_index=first.index,
            last_index=last.index,
            last_term=last.term,
            replaced=replaced,
        )
        configurations = raft.log.configurations
        if self._configuration_index >= first.index:
            self._configuration(raft, configurations.at(first.index - 1))
        if any(entry.kind is EntryKind.CONFIGURATION for entry in entries):
            for configuration in configurations.since(first.index - 1):
                self._configuration(raft, configuration)

    def _configuration(self, raft: Raft, latest: ConfigurationAt | None) -> None:
        self._configuration_index = latest.index if latest is not None else 0
        configuration = latest.configuration if latest is not None else Configuration()
        self._event(
            "configuration",
            index=self._configuration_index,
            term=raft.log.term_at(self._configuration_index) or 0,
            kind=latest.entry.kind.value if latest is not None else "none",
            voters=sorted(configuration.voters),
            outgoing=sorted(configuration.outgoing),
            learners=sorted(configuration.learners),
            operation=latest.entry.operation if latest is not None else "",
        )

    def _commit(self, raft: Raft) -> None:
        commit_index = raft.log.commit_index
        if commit_index != self._commit_index:
            self._commit_index = commit_index
            term = raft.log.term_at(commit_index) or 0
            self._event("commit", commit_index=commit_index, term=term)

    def _apply(self, entries: Sequence[Entry]) -> None:
        state_hash = None if self._state_hash is None else f"{self._state_hash():016x}"
        self._event(
            "apply",
            first_index=entries[0].index,
            applied_index=entries[-1].index,
            state_hash=state_hash,
        )

    def _stop(self, why: str) -> None:
        self._event("stop", why=why)
        self._ended = True


class _Writer:
    """Takes events in one thread and writes them in another one; drops what is too much."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._events: queue.Queue[Event | None] = queue.Queue(QUEUE_EVENTS_MAX)
        self._dropped: Event | None = None
        """The line about events that found the queue full, until it finds room itself."""
        self._unwritten: Event | None = None
        """The line about events that the file did not take, until it takes that one."""
        # A daemon: it may be stuck in a write when the process ends.
        self._thread = threading.Thread(target=self._write_events, daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        """Queue `event`, or count it as dropped."""
        try:
            if self._dropped is not None:
                self._events.put_nowait(self._dropped)
                self._dropped = None
            self._events.put_nowait(event)
        except queue.Full:
            self._dropped = _one_more(self._dropped, event)

    def close(self) -> bool:
        """Write what is left; return whether that has succeeded in time."""
        deadline = time.monotonic() + FLUSH_SECONDS_MAX
        with suppress(queue.Full):
            if self._dropped is not None:
                self._events.put(self._dropped, timeout=FLUSH_SECONDS_MAX)
            self._events.put(None, timeout=max(0.0, deadline - time.monotonic()))
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _write_events(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self._write_unwritten()
                self._write(_line(event))
            except OSError as error:
                if self._unwritten is None:
                    logger.warning("the trace has a gap: %s", error.strerror or error)
                self._unwritten = _one_more(self._unwritten, event)
        with suppress(OSError):
            self._write_unwritten()

    def _write_unwritten(self) -> None:
        if self._unwritten is not None:
            # What was refused may have been taken in part: begin a line of our own.
            self._write(b"\n" + _line(self._unwritten))
            self._unwritten = None

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


def _line(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def _one_more(dropped: Event | None, event: Event) -> Event:
    """Return the line about dropped ones, `event` included, which may be such a line itself."""
    if dropped is None:
        dropped = event | {"event": "dropped", "count": 0}
        dropped = {key: dropped[key] for key in ("time_us", "server", "event", "count")}
    more = event["count"] if event["event"] == "dropped" else 1
    return dropped | {"count": dropped["count"] + more}


@contextmanager
def tracing_to_file(path: Path) -> Iterator[Emit]:
    """Append events to `path`, from a thread of its own, until the context ends.

    What is emitted never waits for the file. At the end all of it is with the kernel, which need
    not have put it on the disk.

    Raises:
        OSError: the file cannot be made, opened, read or written; at the beginning only.
    """
    # Without O_NONBLOCK a pipe that nobody reads would hold up the start for ever.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        os.set_blocking(descriptor, True)
        if _ends_within_a_line(path):
            os.write(descriptor, b"\n")
    except OSError:
        os.close(descriptor)
        raise
    writer = _Writer(descriptor)
    try:
        yield writer.emit
    finally:
        if writer.close():
            os.close(descriptor)


def _ends_within_a_line(path: Path) -> bool:
    """Whether a process that was killed has left a cut line."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


# --- the table ---


def read_events(path: Path) -> Iterator[Event]:
    """Return the events of a trace; says on stderr how many lines are none, if any.

    Raises:
        OSError: the file cannot be read.
    """
    strange = 0
    with path.open("rb") as file:
        while line := file.readline(LINE_BYTES_MAX):
            try:
                event = json.loads(line)
                if isinstance(event["time_us"], int) and isinstance(event["event"], str):
                    yield event
                    continue
            except (ValueError, KeyError, TypeError, RecursionError):
                pass
            strange += 1
    if strange:
        print(f"{path}: {strange} lines are cut short, or no events", file=sys.stderr)


def table_row(event: Event) -> str:
    """Return one line for people: time of day (UTC), server, event, and the rest."""
    seconds, microseconds = divmod(event["time_us"], 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours % 24:02d}:{minutes:02d}:{seconds:02d}.{microseconds:06d}"
    server = _cut(_brief(event.get("server")), SERVER_CHARACTERS_MAX)
    details = " ".join(
        f"{name}={_brief(value)}"
        for name, value in event.items()
        if name not in ("time_us", "server", "event")
    )
    row = f"{clock}  {server:<{SERVER_CHARACTERS_MAX}}  {_cut(event['event'], 13):<13}  "
    return row + _cut(details, DETAILS_CHARACTERS_MAX)


def _brief(value: object) -> str:
    if isinstance(value, list):
        return f"[{' '.join(_brief(item) for item in value)}]"
    if value is None:
        return "-"
    text = str(value)
    name, slash, incarnation = text.partition("/")
    if not slash or " " in text:
        return text
    return f"{name}/{incarnation[-INCARNATION_CHARACTERS:]}"


def _cut(text: str, characters_max: int) -> str:
    # What a terminal would obey stands in no trace of ours, but perhaps in another file.
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


class _CannotWrite(Exception):
    """Nobody takes the table; the message says why."""


def _noting_if_empty(path: Path, empty: list[Path]) -> Iterator[Event]:
    """Return the events of a trace; put `path` into `empty` if there are none."""
    is_empty = True
    for event in read_events(path):
        is_empty = False
        yield event
    if is_empty:
        empty.append(path)


def _of_kinds(events: Iterable[Event], kinds: set[str], found: set[str]) -> Iterator[Event]:
    """Return the events of these `kinds`; put each kind that occurs into `found`."""
    for event in events:
        if event["event"] in kinds:
            found.add(event["event"])
            yield event


def _print_table(events: Iterable[Event]) -> None:
    """Print one row for each event.

    Raises:
        BrokenPipeError: whoever reads the table has seen enough.
        _CannotWrite: the table cannot be written.
        OSError: a trace cannot be read.
    """
    for event in events:
        row = table_row(event)
        try:
            print(row)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _CannotWrite(error.strerror) from None
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _CannotWrite(error.strerror) from None


def _let_go_of_stdout() -> None:
    # What it still holds would fail once more, and be complained about, when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    # Servers import this module too, and read no command line here.
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m raftd.trace",
        description="Merge the traces of several servers by time into one table.",
        epilog=f"KIND is one of {', '.join(EVENT_KINDS)}, or any other one that the files have. "
        "Exit codes: 0, the table is complete, or its reader has seen enough; 2, a file cannot "
        "be read or has no events, no such KIND, or the table cannot be written.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--last", type=int, metavar="N", help="only the last N events")
    parser.add_argument(
        "--event", action="append", metavar="KIND", help="only events of this kind; repeatable"
    )
    options = parser.parse_args(arguments)
    if options.last is not None and options.last < 0:
        parser.error("--last: 0 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of the files that the command line names; return the exit code."""
    options = _parse(arguments)
    # Python has no stream at all in place of a descriptor that was closed before its start.
    if sys.stdout is None:
        print("error: cannot write: standard output is closed", file=sys.stderr)
        return 2
    empty: list[Path] = []
    wanted: set[str] = set(options.event or ())
    found: set[str] = set()
    try:
        events: Iterable[Event] = heapq.merge(
            *(_noting_if_empty(path, empty) for path in options.files),
            key=lambda event: event["time_us"],
        )
        if wanted:
            events = _of_kinds(events, wanted, found)
        if options.last is not None:
            events = deque(events, options.last)
        _print_table(events)
    except BrokenPipeError:
        _let_go_of_stdout()
        return 0
    except _CannotWrite as problem:
        _let_go_of_stdout()
        print(f"error: cannot write: {problem}", file=sys.stderr)
        return 2
    except OSError as error:
        what = f" {error.filename}" if error.filename is not None else ""
        print(f"error: cannot read{what}: {error.strerror}", file=sys.stderr)
        return 2
    for path in empty:
        print(f"{path}: no events of a server trace", file=sys.stderr)
    unknown = sorted(wanted - found - set(EVENT_KINDS))
    if unknown and len(empty) < len(options.files):
        kinds = ", ".join(EVENT_KINDS)
        print(
            f"error: --event {', '.join(unknown)}: neither in these files nor known: {kinds}",
            file=sys.stderr,
        )
    return 2 if empty or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
