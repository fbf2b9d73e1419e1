"""What `raftctl inspect` says about a data directory or a backup: as text, and as a document."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable
from typing import Any

from raftctl.render import Style, number, plural, printable, table
from raftd.cluster_status.words import size
from raftd.commands import (
    AbortOperation,
    BeginOperation,
    CompareAndSet,
    Delete,
    EndOperation,
    OpenSession,
    Put,
    decode_command,
)
from raftd.core.types import Entry, server_name
from raftd.offline import BackupFile, FoundSnapshot, FoundState, Inspection

VALUE_CHARACTERS_MAX = 40
"""Of a value: enough to recognise it."""


# --- entries --------------------------------------------------------------------------------


def entry_kind(entry: Entry) -> str:
    """Return noop, command or configuration."""
    return entry.kind.name.lower()


def entry_words(entry: Entry) -> str:
    """Return what an entry of the log says, with its keys and the beginnings of its values."""
    kind = entry_kind(entry)
    if kind == "noop":
        return ""
    if kind == "configuration":
        return printable(entry.data.decode("utf-8", "replace"))
    try:
        command = decode_command(entry.data)
    except ValueError as error:
        return printable(str(error))
    words = ""
    match command.body:
        case OpenSession():
            words = f"open session {command.session}"
        case Put(key=key, value=value, if_absent=if_absent, if_revision=if_revision):
            words = f"put {key} {_value(value)}"
            words += " if absent" if if_absent else ""
            words += f" if revision {if_revision}" if if_revision is not None else ""
        case Delete(key=key):
            words = f"delete {key}"
        case CompareAndSet(key=key, expected=expected, value=value):
            words = f"cas {key} {_value(expected)} {_value(value)}"
        case BeginOperation() as begin:
            changes = " ".join(f"{role} {server}" for role, server in begin.plan.changes)
            words = f"begin {begin.kind} by {begin.author}: {changes}"
        case AbortOperation() as abort:
            words = f"abort {abort.operation} by {abort.author}"
        case EndOperation() as end:
            words = f"end {end.operation} as {end.outcome}: {end.reason}"
    return printable(words)


def _value(value: bytes) -> str:
    text = value[: VALUE_CHARACTERS_MAX * 4].decode("utf-8", "backslashreplace")
    if len(text) > VALUE_CHARACTERS_MAX or len(value) > VALUE_CHARACTERS_MAX * 4:
        return f"{text[:VALUE_CHARACTERS_MAX]}… ({plural(len(value), 'byte')})"
    return text or "''"


# --- documents ------------------------------------------------------------------------------


def backup_document(file: BackupFile) -> dict[str, Any]:
    """Return a backup, or a snapshot, whose checksums are right, as JSON has it."""
    configuration = file.configuration
    return {
        "file": str(file.path),
        "ok": True,
        "size_bytes": file.id.size_bytes,
        "index": file.id.last_included_index,
        "term": file.id.last_included_term,
        "revision": file.revision,
        "keys": file.key_count,
        "pairs": file.pair_count,
        "checksum": file.id.checksum,
        "cluster_id": file.cluster_id,
        "configuration": _configuration(configuration),
    }


def _configuration(at: Any) -> dict[str, Any]:
    entry, configuration = at.entry, at.configuration
    return {
        "index": at.index,
        "kind": entry.kind.value,
        "voters": sorted(configuration.voters),
        "outgoing": sorted(configuration.outgoing),
        "learners": sorted(configuration.learners),
        "learners_next": sorted(configuration.learners_next),
        "addresses": dict(entry.addresses),
        "operation": entry.operation,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "time_ms": entry.time_ms,
    }


def inspection_document(
    found: Inspection, entry_count: int, command: Callable[[str], str]
) -> dict[str, Any]:
    """Return all that was found, as JSON has it.

    Args:
        command: makes a command for people out of its words, as `Context.command` does.
    """
    identity = found.identity
    return {
        "path": str(found.path),
        "ok": not found.problems,
        "role": found.role,
        "running": found.running or None,
        "identity": None
        if identity is None
        else {
            "name": identity.name,
            "incarnation": identity.incarnation,
            "cluster": identity.cluster_name,
            "cluster_id": identity.cluster_id,
            "founded_at": identity.bootstrap_address,
            "removed_index": identity.removed_index or None,
        },
        "term": found.hard_state.current_term,
        "voted_for": found.hard_state.voted_for,
        "log": _log_document(found),
        "snapshots": [_snapshot_document(snapshot) for snapshot in found.snapshots],
        "receiving": [
            {
                "name": part.name,
                "index": part.id.last_included_index,
                "total_bytes": part.id.size_bytes,
                "size_bytes": part.size_bytes,
                "intact_bytes": part.intact_bytes,
            }
            for part in found.parts
        ],
        "temporaries": list(found.temporaries),
        "state": None if found.state is None else _state_document(found.state),
        "configurations": [_configuration(at) for at in found.configurations],
        "entries": [
            {
                "index": entry.index,
                "term": entry.term,
                "kind": entry_kind(entry),
                "size_bytes": len(entry.data),
                "text": entry_words(entry),
            }
            for entry in last_entries(found, entry_count)
        ],
        "problems": list(found.problems),
        "way_back": way_back(found, command) or None,
    }


def _log_document(found: Inspection) -> dict[str, Any]:
    return {
        "base_index": found.base_index,
        "base_term": found.base_term,
        "last_index": found.last_index,
        "torn_bytes": found.torn_bytes,
        "segments": [
            {
                "name": segment.name,
                "state": segment.state,
                "size_bytes": segment.size_bytes,
                "used_bytes": segment.used_bytes,
                "batches": segment.batches,
                "first_index": segment.first_index,
                "last_index": segment.last_index,
            }
            for segment in found.segments
        ],
    }


def _state_document(state: FoundState) -> dict[str, Any]:
    return {
        "proof": state.proof,
        "size_bytes": state.size_bytes,
        "applied_index": state.applied_index,
        "applied_term": state.applied_term,
        "revision": state.revision,
        "unread": state.unread,
        "damaged": state.is_damaged,
    }


def _snapshot_document(snapshot: FoundSnapshot) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": snapshot.name,
        "ok": snapshot.backup is not None,
        "size_bytes": snapshot.size_bytes,
        "problem": snapshot.problem,
    }
    if snapshot.backup is not None:
        document = backup_document(snapshot.backup) | {"name": snapshot.name, "problem": ""}
        del document["file"]
    return document


def last_entries(found: Inspection, count: int) -> tuple[Entry, ...]:
    """Return the last `count` entries of the log."""
    return found.entries[-count:] if count else ()


# --- text -----------------------------------------------------------------------------------


def backup_text(file: BackupFile, style: Style) -> str:
    """Return what a backup holds, every byte of which was right."""
    configuration = file.configuration
    rows = [
        ("size", f"{size(file.id.size_bytes)} ({number(file.id.size_bytes)} bytes)"),
        ("index", f"{number(file.id.last_included_index)} (term {file.id.last_included_term})"),
        ("revision", number(file.revision)),
        ("keys", number(file.key_count)),
        ("checksum", f"{file.id.checksum} {style('verified', 'green')}"),
        ("cluster", f"id {printable(file.cluster_id)}"),
        (
            "members",
            f"{printable(str(configuration.configuration))} (configuration "
            f"{configuration.index} of {_clock(configuration.entry.time_ms)})",
        ),
    ]
    title = style(f"{printable(str(file.path))}: a backup", "bold")
    return "\n".join([title, *(f"  {label:<9} {value}" for label, value in rows)])


def inspection_text(
    found: Inspection,
    entry_count: int,
    style: Style,
    command: Callable[[str], str],
    *,
    width: int | None = None,
) -> str:
    """Return all that was found, for people; problems last, and beneath them the way back.

    Args:
        command: makes a command for people out of its words, as `Context.command` does.
    """
    parts = [
        _head(found, style),
        _log(found, style, width),
        _snapshots(found, style, width),
        _state(found),
        _configurations(found, width),
        _entries(found, entry_count, width),
        _verdict(found, style, command),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(found: Inspection, style: Style) -> str:
    identity = found.identity
    lines = []
    if identity is None:
        whose = "no identity"
        if found.server:
            whose = f"{found.server} by what can still be read of its identity"
        lines.append(style(f"{printable(str(found.path))}: {whose}", "bold"))
        if not found.problems:
            lines.append("  the first start did not come to its end here: the next one goes on")
            return "\n".join(lines)
    else:
        title = f"{printable(str(found.path))}: {identity.server}, {found.role}"
        lines.append(style(title, "bold"))
        if identity.cluster_id:
            lines.append(
                f"  cluster   {printable(identity.cluster_name)} (id "
                f"{printable(identity.cluster_id)})"
            )
        if identity.removed_index:
            lines.append(f"  removed   for good by configuration {identity.removed_index}")
        if found.role == "holds a backup":
            held = found.snapshots[0].backup
            upto = f", the backup up to entry {number(held.id.last_included_index)}" if held else ""
            lines.append(
                f"  raftctl restore FILE{upto}, goes on from here; empty the directory to use "
                "the server anew"
            )
    vote = found.hard_state.voted_for
    term = f"{found.hard_state.current_term}, voted for {vote or 'nobody'}"
    if found.log_state == "unread":
        term = "unknown, the log could not be read"
    elif found.log_state == "damaged":
        term += ", or later: behind the damage in the log there may be more"
    lines.append(f"  term      {term}")
    if found.running:
        lines.append(
            style(f"  running   {found.running} works on it: what is read here may move", "yellow")
        )
    return "\n".join(lines)


def _log(found: Inspection, style: Style, width: int | None) -> str:
    if not found.segments:
        return "log: none" + (", see below" if found.problems else "")
    first, last = found.base_index + 1, found.base_index + len(found.entries)
    between = f"entries {number(first)} to {number(last)}" if found.entries else "no entries"
    if found.log_state == "damaged":
        between += " before the damage"
    after = f", after entry {number(found.base_index)} of term {found.base_term}"
    title = f"log: {between}{after if found.base_index else ''}"
    rows = [
        (
            segment.name,
            "-" if segment.first_index is None else number(segment.first_index),
            "-" if segment.last_index is None else number(segment.last_index),
            number(segment.batches),
            size(segment.used_bytes),
            size(segment.size_bytes),
            style(segment.state, {"ok": "green", "torn": "yellow"}.get(segment.state, "red")),
        )
        for segment in found.segments
    ]
    headers = ("SEGMENT", "FIRST", "LAST", "BATCHES", "USED", "SIZE", "STATE")
    right = ("FIRST", "LAST", "BATCHES", "USED", "SIZE")
    lines = [title, _indented(table(headers, rows, right=right, width=width))]
    if found.torn_bytes:
        lines.append(
            f"  the last {plural(found.torn_bytes, 'byte')} are a batch that a crash left "
            "unfinished: nothing in it was acknowledged, and the next start cuts it off"
        )
    return "\n".join(lines)


def _snapshots(found: Inspection, style: Style, width: int | None) -> str:
    rows = []
    for snapshot in found.snapshots:
        file = snapshot.backup
        if file is None:
            row = (snapshot.name, "-", "-", size(snapshot.size_bytes), "-", "-")
            rows.append((*row, style("damaged", "red")))
            continue
        rows.append(
            (
                snapshot.name,
                number(file.id.last_included_index),
                str(file.id.last_included_term),
                size(file.id.size_bytes),
                number(file.key_count),
                number(file.revision),
                style("verified", "green"),
            )
        )
    headers = ("SNAPSHOT", "INDEX", "TERM", "SIZE", "KEYS", "REVISION", "CHECKSUM")
    right = ("INDEX", "TERM", "SIZE", "KEYS", "REVISION")
    lines = ["snapshots: " + ("" if rows else "none")]
    if rows:
        lines = ["snapshots:", _indented(table(headers, rows, right=right, width=width))]
    for part in found.parts:
        lines.append(
            f"  receiving one up to entry {number(part.id.last_included_index)}: "
            f"{size(part.intact_bytes)} of {size(part.id.size_bytes)} are here and good"
        )
    lines += [f"  {name}: unfinished, the next start removes it" for name in found.temporaries]
    return "\n".join(lines)


def _state(found: Inspection) -> str:
    state = found.state
    if state is None:
        return "live state: none, the next start builds it from the snapshot and the log"
    proofs = {
        "this boot": "used again: this machine was not restarted since",
        "clean stop": "used again: it was closed cleanly",
        "none": "it cannot prove that it is whole, so the next start builds it from the snapshot",
    }
    if state.is_damaged:
        then = "the next start builds it again from the snapshot and the log"
        if state.ends_readers and state.proof != "none":
            place = shlex.quote(str(found.path / "state"))
            then = f"it could end the server, too: move {place} away first, {then}"
        if found.needs_replacement:
            then = "it is of no use"
        return f"live state: damaged: {printable(state.unread)}; {size(state.size_bytes)}; {then}"
    at = (
        f"not looked at: {printable(state.unread)}"
        if state.applied_index is None
        else f"applied up to entry {number(state.applied_index)}, revision "
        f"{number(state.revision or 0)}"
    )
    # Nothing is used again by a server that does not start.
    then = "" if found.needs_replacement else f"; {proofs[state.proof]}"
    return f"live state: {at}; {size(state.size_bytes)}{then}"


def _configurations(found: Inspection, width: int | None) -> str:
    rows = [
        (
            number(at.index),
            at.entry.kind.value,
            printable(str(at.configuration)),
            printable(at.entry.operation),
            printable(at.entry.outcome),
            _clock(at.entry.time_ms),
        )
        for at in found.configurations
    ]
    if not rows:
        return "configurations: none"
    headers = ("INDEX", "KIND", "MEMBERS", "OPERATION", "OUTCOME", "TIME")
    return "configurations:\n" + _indented(table(headers, rows, right=("INDEX",), width=width))


def _entries(found: Inspection, count: int, width: int | None) -> str:
    shown = last_entries(found, count)
    if not shown:
        return ""
    rows = [
        (
            number(entry.index),
            str(entry.term),
            entry_kind(entry),
            number(len(entry.data)),
            entry_words(entry),
        )
        for entry in shown
    ]
    headers = ("INDEX", "TERM", "KIND", "BYTES", "WHAT")
    title = f"last {plural(len(shown), 'entry', 'entries')} of {number(len(found.entries))}:"
    right = ("INDEX", "TERM", "BYTES")
    return f"{title}\n" + _indented(table(headers, rows, right=right, width=width))


def _verdict(found: Inspection, style: Style, command: Callable[[str], str]) -> str:
    if not found.problems:
        words = "every checksum is right"
        if found.state is not None and found.state.is_damaged:
            words += "; the live state, which has none, is damaged"
        elif found.state is not None:
            words += "; the live state has none"
        return style(words, "green")
    lines = [style(f"{plural(len(found.problems), 'problem')}:", "red")]
    lines += [f"  {printable(problem)}" for problem in found.problems]
    if found.running:
        lines.append("  a server works on it: look again when it is stopped")
    way = way_back(found, command)
    if way:
        lines += ["", way]
    return "\n".join(lines)


def way_back(found: Inspection, command: Callable[[str], str]) -> str:
    """Return how to get the server back if that is not enough what the problems say, else nothing.

    Args:
        command: makes a command for people out of its words, as `Context.command` does.
    """
    if not found.needs_replacement:
        return ""
    if found.role == "removed":
        return "it was removed from its cluster for good: there is nothing to get back"
    name = server_name(found.server) or (found.identity.name if found.identity else "")
    stop = "stop it, " if found.running else ""
    empty = f"{stop}empty {shlex.quote(str(found.path))}, start it again (it is blank then)"
    if found.identity is not None and found.identity.is_blank:
        then = ""
        if found.role == "holds a backup":
            then = f", and repeat: {command('restore FILE')}"
        return f"to use {name} again: {empty}{then}"
    if not name:
        return (
            f"to get the server back: {empty}, and run, with its name and address from the "
            f"cluster file: {command('replace ID ID=HOST:PORT')}"
        )
    target = shlex.quote(f"{name}={found.address or 'HOST:PORT'}")
    return f"to get {name} back: {empty}, and run: {command(f'replace {name} {target}')}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _clock(time_ms: int) -> str:
    if not time_ms:
        return ""
    try:
        time = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    except (OverflowError, OSError, ValueError):
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%SZ")
