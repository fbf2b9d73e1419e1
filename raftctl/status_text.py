"""The cluster in words and columns: what `raftctl status` prints for people.

Pure functions from a `ClusterView` to text. A table for a terminal of 80 columns holds three
servers; where numbers grow or the terminal is narrower, the columns go that matter least.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence

import attrs

from raftctl.render import COLUMN_GAP, Style, duration, plural, printable, width_of
from raftctl.status import ClusterView, Half, Health, Row, is_stable
from raftctl.watch import summary
from raftd.core.types import server_name

LABEL_COLUMNS = 9
"""Width of CLUSTER, CONFIG and CHANGE with the space behind them."""
SHORT_ID_CHARACTERS = 8
"""Of a cluster id or an incarnation: enough to tell them apart, wide output has all of it."""

PLAIN = Style(False)
HEALTH_COLORS = {Health.HEALTHY: "green", Health.DEGRADED: "yellow", Health.UNAVAILABLE: "red"}


@attrs.frozen(kw_only=True)
class Layout:
    """How much room there is, and what may be done with it."""

    width: int = 80
    wide: bool = False
    """Every column, however long the lines become."""
    paint: Style = PLAIN


# --- sentences -----------------------------------------------------------------------------------


def listed(names: Iterable[str], conjunction: str = "and") -> str:
    """Return `n1`, `n1 and n2`, or `n1, n2 and n3`."""
    words = list(names)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def prospects(cluster: ClusterView) -> str:
    """Return in one sentence what the cluster can still take, or what it lacks."""
    if not cluster.answered:
        return "no server answers"
    if cluster.configuration is None:
        return _no_configuration(cluster)
    if cluster.leader is None:
        return _missing(cluster)
    count = cluster.failure_tolerance
    if count == 1:
        return "survives 1 more failure of any server"
    if count > 1:
        return f"survives {count} more failures of any servers"
    fatal = sorted({name for half in cluster.halves if half.spare <= 0 for name in half.alive})
    dead = sorted({name for half in cluster.halves for name in half.dead})
    text = f"no further failure: losing {listed(fatal, 'or')} stops writes"
    return f"{text} ({listed(dead)} {'is' if len(dead) == 1 else 'are'} missing)" if dead else text


def _no_configuration(cluster: ClusterView) -> str:
    blank = [row.name for row in cluster.rows if row.role == "blank"]
    silent = [row.name for row in cluster.rows if not row.reachable]
    if not blank:
        return "no server that answers knows who belongs to the cluster"
    is_or_are = "is" if len(blank) == 1 else "are"
    text = f"there is no cluster yet: {listed(blank)} {is_or_are} blank"
    if silent:
        return f"{text}; start {listed(silent)}, then `raftctl init` brings all of them together"
    return f"{text}; `raftctl init` makes it one"


def _missing(cluster: ClusterView) -> str:
    parts = [_missing_of(half) for half in cluster.halves if half.spare < 0]
    if parts:
        return "; ".join(parts)
    alive = sorted({name for half in cluster.halves for name in half.alive})
    unconfirmed = [row.name for row in cluster.rows if row.role == "leader" and row.member]
    if unconfirmed:
        return f"{listed(unconfirmed)} leads, but no quorum has confirmed it yet"
    return f"{listed(alive)} can elect a leader, but there is none yet"


def _missing_of(half: Half) -> str:
    voters = f"{half.which} voters" if half.which else "voters"
    answer = "answers" if len(half.alive) == 1 else "answer"
    are = "is" if half.needed == 1 else "are"
    lacking = -half.spare
    if lacking == len(half.dead):
        start = listed(half.dead)
    elif lacking == 1:
        start = listed(half.dead, "or")
    else:
        start = f"{lacking} of {', '.join(half.dead)}"
    return (
        f"{len(half.alive)} of {len(half.voters)} {voters} {answer}, "
        f"{half.needed} {are} needed: start {start}"
    )


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


def operation_line(cluster: ClusterView) -> str:
    """Return the change that runs, or nothing."""
    if cluster.operation is None:
        return ""
    record = cluster.operation.record
    step = cluster.operation.step or record.phase
    text = f"{record.id} {summary(record)}: {step}, started by {record.author}"
    if record.reason:
        text += f" ({record.reason})"
    if record.abort_requested_by:
        text += f", {record.abort_requested_by} asked to abort it"
    if cluster.operation.blocked_by:
        text += f"; waits: {cluster.operation.blocked_by}"
    return text


# --- the table -----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Column:
    title: str
    cell: Callable[[Row, ClusterView, str], str]
    """Called with the row, the cluster and the format of whole numbers."""
    right: bool = False
    only_wide: bool = False


def _own(field: str) -> Callable[[Row, ClusterView, str], str]:
    def cell(row: Row, cluster: ClusterView, number_format: str) -> str:
        value = getattr(row.reply, field, None)
        return "-" if value is None else format(value, number_format)

    return cell


def _match(row: Row, cluster: ClusterView, number_format: str) -> str:
    if row.reply is not None and _leads(row, cluster):
        return format(row.reply.last_index, number_format)
    return format(row.peer.match_index, number_format) if row.peer is not None else "-"


def _lag(row: Row, cluster: ClusterView, number_format: str) -> str:
    if _leads(row, cluster):
        return "0"
    return format(row.peer.lag_entries, number_format) if row.peer is not None else "-"


def _contact(row: Row, cluster: ClusterView, number_format: str) -> str:
    if row.peer is None or _leads(row, cluster) or row.peer.last_contact_ms is None:
        return "-"
    return duration(row.peer.last_contact_ms)


def _leads(row: Row, cluster: ClusterView) -> bool:
    return cluster.leader is not None and row.server == cluster.leader.server


def _name(row: Row, cluster: ClusterView, number_format: str) -> str:
    # Only where a name occurs twice does its incarnation matter to a reader.
    if sum(each.name == row.name for each in cluster.rows) > 1 and row.incarnation:
        return f"{row.name}/{row.incarnation[:4]}"
    return row.name


_COLUMNS = (
    _Column(title="ID", cell=_name),
    _Column(title="ROLE", cell=lambda row, *_: row.role),
    _Column(title="VOTE", cell=lambda row, *_: row.vote or "-"),
    _Column(title="STATE", cell=lambda row, *_: row.state),
    _Column(title="TERM", cell=_own("term"), right=True),
    _Column(title="FIRST", cell=_own("first_index"), right=True, only_wide=True),
    _Column(title="LAST", cell=_own("last_index"), right=True),
    _Column(title="MATCH", cell=_match, right=True, only_wide=True),
    _Column(title="COMMIT", cell=_own("commit_index"), right=True),
    _Column(title="APPLIED", cell=_own("applied_index"), right=True),
    _Column(title="LAG", cell=_lag, right=True),
    _Column(title="CONTACT", cell=_contact, right=True),
    _Column(title="SNAPSHOT", cell=_own("snapshot_index"), right=True, only_wide=True),
    _Column(title="ADDRESS", cell=lambda row, *_: row.address or "-"),
    _Column(title="INCARNATION", cell=lambda row, *_: row.incarnation or "-", only_wide=True),
    _Column(title="VERSION", cell=_own("version"), only_wide=True),
)
_DISPENSABLE = ("APPLIED", "COMMIT", "TERM", "CONTACT", "LAST")
"""What goes first where the room is short."""
_STATE_COLORS = {"ok": "green", "lagging": "yellow", "blank": "yellow", "outside": "yellow"}


def table(cluster: ClusterView, layout: Layout) -> list[str]:
    """Return the lines of the servers table, as wide as it has to be or as there is room."""
    if layout.wide:
        return _lay_out(_COLUMNS, cluster, ",", layout)
    # Where everybody has the same vote the column says nothing.
    same_votes = all(row.vote == "yes" for row in cluster.rows)
    columns = [
        column
        for column in _COLUMNS
        if not column.only_wide and not (same_votes and column.title == "VOTE")
    ]
    lines = _lay_out(columns, cluster, ",", layout)
    attempts = ["", *_DISPENSABLE]
    for gone in attempts:
        if max(width_of(line) for line in lines) <= layout.width:
            break
        columns = [column for column in columns if column.title != gone]
        lines = _lay_out(columns, cluster, "d", layout)
    return lines


def _lay_out(
    columns: Sequence[_Column], cluster: ClusterView, number_format: str, layout: Layout
) -> list[str]:
    cells = [[column.title for column in columns]]
    for row in cluster.rows:
        # The format of numbers must not meet the version, which is text.
        cells.append(
            [
                printable(
                    column.cell(row, cluster, "" if column.title == "VERSION" else number_format)
                )
                for column in columns
            ]
        )
    widths = [max(width_of(line[at]) for line in cells) for at in range(len(columns))]
    lines = []
    for line_number, line in enumerate(cells):
        parts = []
        for column, cell, width in zip(columns, line, widths, strict=True):
            padding = " " * (width - width_of(cell))
            padded = padding + cell if column.right else cell + padding
            if line_number and column.title == "STATE":
                padded = layout.paint(padded, _STATE_COLORS.get(cell, "red"))
            parts.append(padded)
        lines.append(COLUMN_GAP.join(parts).rstrip())
    return lines


# --- the whole -----------------------------------------------------------------------------------


def _labelled(label: str, text: str, layout: Layout) -> list[str]:
    room = max(40, layout.width - LABEL_COLUMNS)
    lines = textwrap.wrap(
        printable(text), room, break_on_hyphens=False, break_long_words=False
    ) or [""]
    labels = [label, *[""] * (len(lines) - 1)]
    return [f"{at:<{LABEL_COLUMNS}}{line}" for at, line in zip(labels, lines, strict=True)]


def _headline(cluster: ClusterView, layout: Layout) -> str:
    name = printable(cluster.name or "no cluster")
    if cluster.cluster_id:
        identifier = cluster.cluster_id if layout.wide else cluster.cluster_id[:SHORT_ID_CHARACTERS]
        name += f" ({identifier})"
    leader = "no leader"
    if cluster.leader is not None:
        leader = f"leader {server_name(cluster.leader.server)}"
    term = f"   term {cluster.source.term}" if cluster.source is not None else ""
    health = layout.paint(cluster.health.upper(), HEALTH_COLORS[cluster.health])
    return f"{'CLUSTER':<{LABEL_COLUMNS}}{name}   {health}   {leader}{term}"


def text(cluster: ClusterView, layout: Layout, commit_rate: float | None = None) -> list[str]:
    """Return all lines of `raftctl status`.

    Args:
        cluster: what is known.
        layout: room and colours.
        commit_rate: entries committed per second, where somebody has watched for a while.
    """
    lines = [_headline(cluster, layout), *_labelled("", prospects(cluster), layout)]
    configuration = configuration_line(cluster)
    if cluster.source is not None and not (cluster.configuration and cluster.configuration.joint):
        configuration += f"   {_numbers(cluster, commit_rate)}"
        lines += _labelled("CONFIG", configuration, layout)
    else:
        lines += _labelled("CONFIG", configuration, layout)
        if cluster.source is not None:
            lines += _labelled("", _numbers(cluster, commit_rate), layout)
    if cluster.operation is not None:
        lines += _labelled("CHANGE", operation_line(cluster), layout)
    if cluster.rows:
        lines += ["", *table(cluster, layout)]
    notes = [*_issues(cluster.rows, layout), *_drift(cluster, layout)]
    return [*lines, "", *notes] if notes else lines


def _numbers(cluster: ClusterView, commit_rate: float | None) -> str:
    assert cluster.source is not None
    rate = "" if commit_rate is None else f" (+{commit_rate:,.0f}/s)"
    return f"commit {cluster.source.commit_index:,}{rate}   revision {cluster.source.revision:,}"


def _issues(rows: Iterable[Row], layout: Layout) -> list[str]:
    lines = []
    for row in rows:
        for issue in row.issues:
            lines += _wrapped(f"{row.name}: {issue.kind}: {issue.words}", layout)
            if issue.repair:
                *first, last = issue.repair
                if first:
                    steps = ", then ".join(first)
                    lines += _wrapped(f"    {issue.label}: {steps}, then", layout)
                # On one line, however long, so that a command can be copied.
                lines.append(printable(f"    {last}" if first else f"    {issue.label}: {last}"))
    return lines


def _wrapped(text: str, layout: Layout) -> list[str]:
    return textwrap.wrap(
        printable(text),
        max(40, layout.width),
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _drift(cluster: ClusterView, layout: Layout) -> list[str]:
    if not cluster.outdated:
        return []
    are, do = ("is", "does") if len(cluster.outdated) == 1 else ("are", "do")
    sentence = (
        f"The cluster file also lists {listed(cluster.outdated)}, which {are} no member and {do} "
        "not answer; `raftctl config export` writes the file that matches."
    )
    return textwrap.wrap(sentence, max(40, layout.width), break_on_hyphens=False)


def server_text(row: Row, cluster: ClusterView, layout: Layout) -> list[str]:
    """Return the lines of `raftctl status ID`: its own numbers, and how the leader sees it."""
    vote = {"": "no member", "yes": "voter", "learner": "learner"}.get(
        row.vote, f"voter of the {row.vote} set" + ("s" if row.vote == "both" else "")
    )
    state = layout.paint(row.state, _STATE_COLORS.get(row.state, "red"))
    lines = [f"{'SERVER':<{LABEL_COLUMNS}}{row.name}   {state}   {row.role}, {vote}"]
    facts = [("", f"{row.address or 'no address'}, incarnation {row.incarnation or 'unknown'}")]
    reply = row.reply
    if reply is not None:
        follows = f"follows {server_name(reply.leader)}" if reply.leader else "knows no leader"
        if reply.role == "leader":
            confirmed = "is" if reply.leadership_confirmed else "is not"
            follows = f"leads, which {confirmed} confirmed by a quorum"
        facts += [
            ("", f"version {reply.version}, up for {duration(reply.uptime_ms)}"),
            ("SAYS", f"term {reply.term}, {follows}"),
            ("", f"log {reply.first_index:,} to {reply.last_index:,}, commit "
                 f"{reply.commit_index:,}, applied {reply.applied_index:,}, "
                 f"snapshot {reply.snapshot_index:,}, revision {reply.revision:,}"),
        ]  # fmt: skip
        if reply.configuration is not None:
            known = "committed" if reply.configuration.committed else "not known to be committed"
            facts.append(("", f"configuration of index {reply.configuration.index:,}, {known}"))
    facts += [("LEADER", _leaders_view(row, cluster))]
    for label, words in facts:
        lines += _labelled(label, words, layout)
    issues = _issues([row], layout)
    return [*lines, "", *issues] if issues else lines


def _leaders_view(row: Row, cluster: ClusterView) -> str:
    if cluster.leader is None:
        return "no leader is confirmed, so nobody says how far it is"
    if _leads(row, cluster):
        return "it leads itself"
    name = server_name(cluster.leader.server)
    peer = row.peer
    if peer is None:
        return f"{name} does not feed it"
    contact = "never" if peer.last_contact_ms is None else f"{duration(peer.last_contact_ms)} ago"
    link = "connected" if peer.connected else f"not connected ({peer.problem or 'no reason given'})"
    caught_up = "caught up" if peer.caught_up else "not caught up"
    return (
        f"{name} says: has entries up to {peer.match_index:,}, {peer.lag_entries:,} behind, "
        f"{caught_up} after {plural(peer.rounds, 'round')}, last heard {contact}, {link}"
    )


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
    parts = [f"{row.name}: {issue}" for row in cluster.rows if row.member for issue in row.issues]
    if cluster.configuration is not None and cluster.configuration.joint:
        parts.insert(0, "the configuration is joint")
    return printable("; ".join(parts))


def _unstable(cluster: ClusterView) -> str:
    operation = operation_line(cluster)
    if operation:
        return printable(operation)
    return printable(configuration_line(cluster))
