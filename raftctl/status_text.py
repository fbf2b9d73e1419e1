"""The cluster in words and columns: what `raftctl status` prints for people.

Pure functions from a `ClusterView` to text. A table for a terminal of 80 columns holds three
servers; where numbers grow or the terminal is narrower, the columns go that matter least.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs

from raftctl.errors import dialling
from raftctl.render import (
    COLUMN_GAP,
    Style,
    duration,
    listed,
    natural_key,
    number,
    packed,
    plural,
    printable,
    width_of,
)
from raftctl.rolling_text import counted, driving
from raftd.cluster_status.issues import Issue
from raftd.cluster_status.notes import notes
from raftd.cluster_status.operations import rolling_of, rolling_summary, summary
from raftd.cluster_status.view import (
    ClusterView,
    Half,
    Health,
    Row,
    is_stable,
)
from raftd.cluster_status.words import size
from raftd.core.availability import FatalChoice, fatal_choices, fatal_sets, survived_failures
from raftd.core.types import ServerId, server_name
from raftd.protocol import MajorityView, OperationView

LABEL_COLUMNS = 9
"""Width of CLUSTER, CONFIG and CHANGE with the space behind them."""
SHORT_ID_CHARACTERS = 8
"""Of a cluster id or an incarnation: enough to tell them apart, wide output has all of it."""
INCARNATION_CHARACTERS_MIN = 4
"""Shown of an incarnation where two servers have one name, and more where that is the same."""
TEXT_COLUMNS_MIN = 20
"""No text is broken into narrower lines than this."""
NAMES_MAX = 9
"""More servers in one sentence are counted and not named."""

_GAP = "   "
"""Between facts on one line."""
PLAIN = Style(False)
HEALTH_COLORS = {Health.HEALTHY: "green", Health.DEGRADED: "yellow", Health.UNAVAILABLE: "red"}


@attrs.frozen(kw_only=True)
class Layout:
    """How much room there is, and what may be done with it."""

    width: int = 80
    wide: bool = False
    """Every column, however long the lines become."""
    paint: Style = PLAIN

    def narrower(self, columns: int) -> Layout:
        """Return the layout of what is indented by so many columns."""
        return attrs.evolve(self, width=self.width - columns)


@attrs.frozen(kw_only=True)
class Rates:
    """How fast numbers grow that somebody has watched for a while."""

    commits_per_second: float
    revisions_per_second: float


# --- what can still fail -------------------------------------------------------------------------


def survival(
    quorums: Sequence[Collection[ServerId]],
    dead: Collection[ServerId],
    names: Mapping[ServerId, str],
    zones: Mapping[ServerId, str],
) -> str:
    """Return how many further failures are survived, and which of them are fatal.

    Args:
        quorums: the voter sets that each need a majority.
        dead: who has failed already.
        names: what to call each voter.
        zones: the zone of each server that has one.
    """
    count = survived_failures(quorums, dead)
    if count < 0:
        return "has no quorum"
    missing = {server for half in quorums for server in half if server in dead}
    if count:
        text = f"survives any {plural(count, 'more failure' if missing else 'failure')}"
    else:
        text = f"survives no {'further ' if missing else ''}failure"
    fatal = ", or ".join(_choice_words(choice, names) for choice in fatal_choices(quorums, dead))
    text = f"{text}; fatal: {fatal}"
    if missing:
        gone = _named(missing, names)
        text += f" ({listed(gone)} {'is' if len(gone) == 1 else 'are'} missing)"
    zone_text = _zone_words(quorums, dead, zones)
    return f"{text}; {zone_text}" if zone_text else text


def _named(servers: Iterable[ServerId], names: Mapping[ServerId, str]) -> list[str]:
    return sorted((names.get(server, server) for server in servers), key=natural_key)


def _choice_words(choice: FatalChoice, names: Mapping[ServerId, str]) -> str:
    known = _named(choice.servers, names)
    if len(known) > NAMES_MAX:
        return f"any {choice.count} of the {len(known)} voters that are alive"
    if choice.count == 1:
        return listed(known, "or")
    if choice.count == len(known):
        return f"{listed(known)} together"
    return f"any {choice.count} of {' '.join(known)}"


def _zone_words(
    quorums: Sequence[Collection[ServerId]],
    dead: Collection[ServerId],
    zones: Mapping[ServerId, str],
) -> str:
    voting = {zones[server] for half in quorums for server in half if server in zones}
    if len(voting) < 2:
        return ""
    sets = fatal_sets(quorums, dead, zones)
    alone = sorted((zone for each in sets if len(each) == 1 for zone in each), key=natural_key)
    if alone:
        return f"loses its quorum with zone {listed(alone[:NAMES_MAX], 'or')}"
    return "survives the loss of any zone"


def prospects(cluster: ClusterView) -> str:
    """Return in one sentence what the cluster can still take, or what it lacks."""
    return dialling(_prospects(cluster), cluster.command)


def _prospects(cluster: ClusterView) -> str:
    if not cluster.answered:
        return "no server answers"
    if cluster.configuration is None:
        return _no_configuration(cluster)
    if cluster.leader is None:
        return _missing(cluster)
    return survival(cluster.quorums, cluster.dead, cluster.names, cluster.zones)


def _no_configuration(cluster: ClusterView) -> str:
    blank = [row.name for row in cluster.rows if row.role == "blank"]
    silent = [row.name for row in cluster.rows if not row.reachable]
    if not blank:
        return "no server that answers knows who belongs to the cluster"
    held = {
        row.name: row.reply.snapshot_index
        for row in cluster.rows
        if row.role == "blank" and row.reply is not None and row.reply.snapshot_index
    }
    if held:
        return _holds_backup(held, silent)
    is_or_are = "is" if len(blank) == 1 else "are"
    text = f"there is no cluster yet: {listed(blank)} {is_or_are} blank"
    if silent:
        return f"{text}; start {listed(silent)}, then `raftctl init` brings all of them together"
    return f"{text}; `raftctl init` makes it one"


def _holds_backup(held: dict[str, int], silent: Iterable[str]) -> str:
    """Return how to go on after a restore that was interrupted before it made a cluster."""
    holders = listed(f"{name} holds a backup up to entry {held[name]:,}" for name in held)
    start = f"start {listed(silent)}, then " if silent else ""
    return (
        f"there is no cluster yet, a restore was interrupted: {holders}; {start}`raftctl restore "
        f"FILE` with that backup finishes it; to start over empty the data of {listed(held)}"
    )


def _missing(cluster: ClusterView) -> str:
    helpers = names_of_helpers(cluster)
    parts = [lacking(half, helpers) for half in cluster.halves if half.spare < 0]
    if parts:
        return "; ".join(parts)
    alive = sorted({name for half in cluster.halves for name in half.alive}, key=natural_key)
    unconfirmed = [row.name for row in cluster.rows if row.role == "leader" and row.member]
    if unconfirmed:
        return f"{listed(unconfirmed)} leads, but no quorum has confirmed it yet"
    return f"{listed(alive)} can elect a leader, but there is none yet"


def names_of_helpers(cluster: ClusterView) -> list[str]:
    """Return which of the dead members could count again, n2 before n10."""
    return _named(cluster.helpers, cluster.names)


def lacking(half: Half, helpers: Collection[str]) -> str:
    """Return what a voter set without a majority lacks, and who would give it one.

    Args:
        half: the voter set.
        helpers: the names of those whom it helps to start.
    """
    voters = f"{half.which} voters" if half.which else "voters"
    answer = "answers" if len(half.alive) == 1 else "answer"
    are = "is" if half.needed == 1 else "are"
    counts = (
        f"{len(half.alive)} of {len(half.voters)} {voters} {answer}, {half.needed} {are} needed"
    )
    short = -half.spare
    down = [name for name in half.dead if name in helpers]
    lost = [name for name in half.dead if name not in helpers]
    without = f"{listed(lost)} {'runs' if len(lost) == 1 else 'run'} without the data that counted"
    if short > len(down):
        only = f", and only {listed(down)} could be started" if down else ""
        return f"{counts}: {without}{only}"
    if short == len(down):
        start = listed(down)
    elif short == 1:
        start = listed(down, "or")
    else:
        start = f"{short} of {', '.join(down)}"
    if not lost:
        return f"{counts}: start {start}"
    its = "its" if start in down else "their"
    return f"{counts}: start {start} with {its} data ({without})"


# --- what is under way ---------------------------------------------------------------------------


def configuration_line(cluster: ClusterView) -> str:
    """Return which configuration is in force, and which majorities it asks for."""
    configuration = cluster.configuration
    if configuration is None:
        return "none is known"
    if configuration.joint:
        old, new = cluster.halves
        state = "" if configuration.committed else ", not committed yet"
        return (
            f"JOINT since index {configuration.index:,}{state}: needs a majority of "
            f"{{{' '.join(old.voters)}}} AND of {{{' '.join(new.voters)}}}"
        )
    voters = plural(len(configuration.voters), "voter")
    learners = len(configuration.learners)
    members = f"{voters}, {plural(learners, 'learner')}" if learners else voters
    if configuration.committed:
        return f"stable since index {configuration.index:,}: {members}"
    return f"not committed yet, index {configuration.index:,}: {members}"


def rolling_line(cluster: ClusterView, operation: OperationView) -> str:
    """Return how far a rolling operation is, who drives it, and how to go on with it."""
    record = operation.record
    rolling = rolling_of(record)
    resume = f"raftctl rolling resume {record.id}"
    # The record has its times from the clocks of leaders; those of other machines differ.
    clock_ms = cluster.leader.wall_clock_ms if cluster.leader is not None else 0
    who = driving(record, clock_ms or time.time() * 1000, resume)
    text = f"{record.id}: {rolling_summary(record)}, {counted(rolling)}, {who}"
    return f"{text}; {resume}" if rolling.paused_by else text


def operation_line(cluster: ClusterView) -> str:
    """Return the change that runs and what blocks it, or nothing."""
    operation = cluster.operation
    if operation is None:
        return ""
    record = operation.record
    step = operation.step or record.phase
    text = f"{record.id} {summary(record)}: {step}, started by {record.author}"
    if record.reason:
        text += f" ({record.reason})"
    if record.abort_requested_by:
        text += f", {record.abort_requested_by} asked to abort it"
    if operation.blocked_by:
        text += f"; waits: {operation.blocked_by}"
    joint = operation.old is not None and operation.new is not None
    for which, majority in (("old", operation.old), ("new", operation.new)):
        if operation.index and majority is not None:
            half = f"the {which} half" if joint else "the entry"
            text += _unacknowledged(half, majority, cluster)
    return text


def _unacknowledged(half: str, majority: MajorityView, cluster: ClusterView) -> str:
    """Return which servers a half still misses, unless it has enough."""
    has = len(majority.acknowledged)
    if has >= majority.needed:
        return ""
    states = {row.server: row.state for row in cluster.members}
    missing = []
    for server in sorted(set(majority.servers) - set(majority.acknowledged), key=natural_key):
        state = states.get(server, "ok")
        name = cluster.names.get(server, server)
        missing.append(name if state == "ok" else f"{name} ({state})")
    return (
        f"; {half} has {has} of the {majority.needed} acknowledgements that it needs, missing: "
        f"{', '.join(missing)}"
    )


# --- the table -----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Column:
    title: str
    cell: Callable[[Row, ClusterView], str]
    right: bool = False
    only_wide: bool = False


def _own(field: str) -> Callable[[Row, ClusterView], str]:
    def cell(row: Row, cluster: ClusterView) -> str:
        value = getattr(row.reply, field, None)
        return "-" if value is None else number(value)

    return cell


def _match(row: Row, cluster: ClusterView) -> str:
    if row.reply is not None and leads(row, cluster):
        return number(row.reply.last_index)
    return number(row.peer.match_index) if _is_known(row) and row.peer else "-"


def _lag(row: Row, cluster: ClusterView) -> str:
    if leads(row, cluster):
        return "0"
    return number(row.peer.lag_entries) if _is_known(row) and row.peer else "-"


def _is_known(row: Row) -> bool:
    """Return whether the leader has learnt how far the server is: a new one supposes nothing."""
    return row.peer is not None and row.peer.last_contact_ms is not None


def _contact(row: Row, cluster: ClusterView) -> str:
    if row.peer is None or leads(row, cluster) or row.peer.last_contact_ms is None:
        return "-"
    return duration(row.peer.last_contact_ms)


def _cpu(row: Row) -> str:
    """Return the processor time since the start of its process."""
    return "-" if row.reply is None or row.reply.cpu_ms is None else duration(row.reply.cpu_ms)


def _memory(row: Row) -> str:
    """Return the memory that belongs to no file: mapped files are the kernel's to take back."""
    if row.reply is None or row.reply.rss_anon_bytes is None:
        return "-"
    return size(row.reply.rss_anon_bytes)


def leads(row: Row, cluster: ClusterView) -> bool:
    """Return whether a row is that of the confirmed leader."""
    return cluster.leader is not None and row.server == cluster.leader.server


def label(row: Row, cluster: ClusterView) -> str:
    """Return what to call a row: its name, and where that is there twice who it is."""
    others = [
        each.incarnation for each in cluster.rows if each is not row and each.name == row.name
    ]
    if not others or not row.incarnation:
        return row.name
    characters = INCARNATION_CHARACTERS_MIN
    while characters < len(row.incarnation) and row.incarnation[:characters] in {
        other[:characters] for other in others
    }:
        characters += 1
    return f"{row.name}/{row.incarnation[:characters]}"


_COLUMNS = (
    _Column(title="ID", cell=label),
    _Column(title="ROLE", cell=lambda row, _: row.role),
    _Column(title="VOTE", cell=lambda row, _: row.vote or "-"),
    _Column(title="STATE", cell=lambda row, _: row.state),
    _Column(title="TERM", cell=_own("term"), right=True),
    _Column(title="FIRST", cell=_own("first_index"), right=True, only_wide=True),
    _Column(title="LAST", cell=_own("last_index"), right=True),
    _Column(title="MATCH", cell=_match, right=True, only_wide=True),
    _Column(title="COMMIT", cell=_own("commit_index"), right=True),
    _Column(title="APPLIED", cell=_own("applied_index"), right=True),
    _Column(title="LAG", cell=_lag, right=True),
    _Column(title="CONTACT", cell=_contact, right=True),
    _Column(title="SNAPSHOT", cell=_own("snapshot_index"), right=True, only_wide=True),
    _Column(title="CPU", cell=lambda row, _: _cpu(row), right=True, only_wide=True),
    _Column(title="MEMORY", cell=lambda row, _: _memory(row), right=True, only_wide=True),
    _Column(title="ZONE", cell=lambda row, _: row.zone or "-"),
    _Column(title="ADDRESS", cell=lambda row, _: row.address or "-"),
    _Column(title="INCARNATION", cell=lambda row, _: row.incarnation or "-", only_wide=True),
    _Column(
        title="VERSION",
        cell=lambda row, _: row.reply.version if row.reply is not None else "-",
        only_wide=True,
    ),
)
_DISPENSABLE = ("APPLIED", "COMMIT", "TERM", "CONTACT", "LAST", "ZONE", "VOTE", "ROLE", "ADDRESS")
"""What goes first where the room is short."""
_STATE_COLORS = {
    "ok": "green",
    **dict.fromkeys(("lagging", "blank", "outside", "warn", "moved"), "yellow"),
}


def state_color(state: str) -> str:
    """Return the colour of a server's state."""
    return _STATE_COLORS.get(state, "red")


def table(cluster: ClusterView, layout: Layout) -> list[str]:
    """Return the lines of the servers table, as wide as it has to be or as there is room."""
    # Where everybody has the same vote, or nobody a zone, the column says nothing.
    silent = set()
    if all(row.vote == "yes" for row in cluster.rows):
        silent.add("VOTE")
    if not any(row.zone for row in cluster.rows):
        silent.add("ZONE")
    if layout.wide:
        return _lay_out(_COLUMNS, cluster, layout)
    columns = [column for column in _COLUMNS if not column.only_wide and column.title not in silent]
    lines = _lay_out(columns, cluster, layout)
    for gone in _DISPENSABLE:
        if max(width_of(line) for line in lines) <= layout.width:
            break
        columns = [column for column in columns if column.title != gone]
        lines = _lay_out(columns, cluster, layout)
    return lines


def _lay_out(columns: Sequence[_Column], cluster: ClusterView, layout: Layout) -> list[str]:
    cells = [[column.title for column in columns]]
    for row in cluster.rows:
        cells.append([printable(column.cell(row, cluster)) for column in columns])
    widths = [max(width_of(line[at]) for line in cells) for at in range(len(columns))]
    lines = []
    for line_number, line in enumerate(cells):
        parts = []
        for column, cell, width in zip(columns, line, widths, strict=True):
            padding = " " * (width - width_of(cell))
            padded = padding + cell if column.right else cell + padding
            if line_number and column.title == "STATE":
                padded = layout.paint(padded, state_color(cell))
            parts.append(padded)
        lines.append(COLUMN_GAP.join(parts).rstrip())
    return lines


# --- the whole -----------------------------------------------------------------------------------


def wrapped(text: str, width: int) -> list[str]:
    """Return `text` in lines of at most `width` columns, unless a word is longer."""
    lines = textwrap.wrap(
        printable(text),
        max(TEXT_COLUMNS_MIN, width),
        break_on_hyphens=False,
        break_long_words=False,
    )
    return lines or [""]


def labelled(name: str, text: str, layout: Layout) -> list[str]:
    """Return `text` with a label before its first line, and room for one before the others."""
    lines = wrapped(text, layout.width - LABEL_COLUMNS)
    labels = [name, *[""] * (len(lines) - 1)]
    return [f"{at:<{LABEL_COLUMNS}}{line}" for at, line in zip(labels, lines, strict=True)]


def _headline(cluster: ClusterView, layout: Layout) -> list[str]:
    name = printable(cluster.name or "no cluster")
    if cluster.cluster_id:
        identifier = cluster.cluster_id if layout.wide else cluster.cluster_id[:SHORT_ID_CHARACTERS]
        name += f" ({printable(identifier)})"
    parts = [layout.paint(cluster.health.upper(), HEALTH_COLORS[cluster.health]), "no leader"]
    if cluster.leader is not None:
        parts[1] = f"leader {printable(server_name(cluster.leader.server))}"
    if cluster.source is not None:
        parts.append(f"term {cluster.source.term:,}")
    first = f"{'CLUSTER':<{LABEL_COLUMNS}}{name}"
    whole = _GAP.join([first, *parts])
    if layout.wide or width_of(whole) <= layout.width:
        return [whole]
    return [first, *_beneath(parts, layout)]


def _beneath(parts: Sequence[str], layout: Layout) -> list[str]:
    """Return `parts` beneath what has a label, on as many lines as it takes."""
    room = layout.width - LABEL_COLUMNS
    return [" " * LABEL_COLUMNS + line for line in packed(parts, _GAP, room)]


def text(cluster: ClusterView, layout: Layout, rates: Rates | None = None) -> list[str]:
    """Return all lines of `raftctl status`.

    Args:
        cluster: what is known.
        layout: room and colours.
        rates: where somebody has watched for a while.
    """
    lines = [*_headline(cluster, layout), *labelled("", prospects(cluster), layout)]
    configuration = configuration_line(cluster)
    if cluster.source is None:
        lines += labelled("CONFIG", configuration, layout)
    else:
        numbers = _numbers(cluster, rates)
        both = _GAP.join([configuration, *numbers])
        if len(both) <= layout.width - LABEL_COLUMNS:
            # Not wrapped: the gap between the two has to stay.
            lines.append(f"{'CONFIG':<{LABEL_COLUMNS}}{printable(both)}")
        else:
            lines += labelled("CONFIG", configuration, layout)
            lines += _beneath(numbers, layout)
    if cluster.operation is not None:
        lines += labelled("CHANGE", operation_line(cluster), layout)
    if cluster.rolling is not None:
        lines += labelled("ROLLING", rolling_line(cluster, cluster.rolling), layout)
    if cluster.rows:
        lines += ["", *table(cluster, layout)]
    remarks = issue_lines(cluster.rows, cluster, layout)
    for note in notes(cluster):
        remarks += wrapped(note, layout.width)
    return [*lines, "", *remarks] if remarks else lines


def _numbers(cluster: ClusterView, rates: Rates | None) -> list[str]:
    assert cluster.source is not None
    commits = f" (+{rates.commits_per_second:,.0f}/s)" if rates is not None else ""
    revisions = f" (+{rates.revisions_per_second:,.0f}/s)" if rates is not None else ""
    source = cluster.source
    return [f"commit {source.commit_index:,}{commits}", f"revision {source.revision:,}{revisions}"]


def issue_lines(rows: Iterable[Row], cluster: ClusterView, layout: Layout) -> list[str]:
    """Return every issue and warning of `rows`, each with the steps of its repair."""
    lines: list[str] = []
    for row in rows:
        for issue in (*row.issues, *row.warnings):
            lines += _issue_lines(f"{label(row, cluster)}: ", issue, layout)
    return lines


def _issue_lines(prefix: str, issue: Issue, layout: Layout) -> list[str]:
    def hanging(text: str) -> list[str]:
        return textwrap.wrap(
            printable(text),
            max(TEXT_COLUMNS_MIN, layout.width),
            subsequent_indent="    ",
            break_on_hyphens=False,
            break_long_words=False,
        )

    lines = hanging(f"{prefix}{issue.kind}: {issue.words}")
    if issue.repair:
        *first, last = issue.repair
        if first:
            lines += hanging(f"    {issue.label}: {', then '.join(first)}, then")
        # On one line, however long, so that a command can be copied.
        lines.append(printable(f"    {last}" if first else f"    {issue.label}: {last}"))
    return lines


# --- waiting -------------------------------------------------------------------------------------


def lacks(cluster: ClusterView, goal: str) -> str:
    """Return what still keeps the cluster from `goal`, or nothing once it is reached.

    Args:
        cluster: what is known now.
        goal: leader, healthy or stable.
    """
    if cluster.leader is None:
        return prospects(cluster)
    if goal == "leader":
        return ""
    if goal == "stable":
        return "" if is_stable(cluster) else _unstable(cluster)
    if cluster.health is Health.HEALTHY:
        return ""
    parts = [f"{label(row, cluster)}: {issue}" for row in cluster.members for issue in row.issues]
    if cluster.configuration is not None and cluster.configuration.joint:
        parts.insert(0, "the configuration is joint")
    return printable("; ".join(parts))


def _unstable(cluster: ClusterView) -> str:
    operation = operation_line(cluster)
    if operation:
        return printable(operation)
    if cluster.rolling is not None:
        return printable(rolling_line(cluster, cluster.rolling))
    return printable(configuration_line(cluster))
