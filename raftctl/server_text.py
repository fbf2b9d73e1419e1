"""One server in depth, for people: what it says of itself, and what the leader says of it.

Pure functions from a row of a `ClusterView` to text. What a server of an older release does not
state is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from raftctl.render import (
    duration,
    natural_key,
    packed,
    plural,
    precise_duration,
    printable,
    table,
    width_of,
)
from raftctl.status_text import (
    LABEL_COLUMNS,
    Layout,
    issue_lines,
    label,
    labelled,
    leads,
    state_color,
)
from raftd.cluster_status.document import states_more
from raftd.cluster_status.issues import clock_words
from raftd.cluster_status.operations import INSTALLING, part_of, remaining_ms
from raftd.cluster_status.view import ClusterView, Row
from raftd.cluster_status.words import size
from raftd.core.types import server_name
from raftd.protocol import PeerView, StatusReply

BAR_COLUMNS_MAX = 60
"""Of the picture of a log: more would not be seen at a glance."""
UNKNOWN = "unknown: its release does not say"


def server_text(row: Row, cluster: ClusterView, layout: Layout) -> list[str]:
    """Return the lines of `raftctl status ID`."""
    state = layout.paint(row.state, state_color(row.state))
    name = printable(label(row, cluster))
    lines = packed(
        [f"{'SERVER':<{LABEL_COLUMNS}}{name}", state, f"{row.role}, {_vote(row)}"],
        "   ",
        layout.width,
    )
    lines[1:] = [" " * LABEL_COLUMNS + line for line in lines[1:]]
    reply = row.reply
    facts = [*_identity(row), *_addresses(row, cluster)]
    if reply is not None:
        facts += _listeners(reply)
        facts.append(("SAYS", _view(reply)))
    for at, words in facts:
        lines += labelled(at, words, layout)
    if reply is not None:
        lines += _log(reply, cluster, layout)
    for at, words in _leaders_view(row, cluster):
        lines += labelled(at, words, layout)
    if reply is not None:
        for at, words in (*_process(reply), *_disk(reply), *_clock(row, cluster)):
            lines += labelled(at, words, layout)
        lines += _links(reply, layout)
    issues = issue_lines([row], cluster, layout)
    return [*lines, "", *issues] if issues else lines


def _vote(row: Row) -> str:
    return {"": "no member", "yes": "voter", "learner": "learner"}.get(
        row.vote, f"voter of the {row.vote} set" + ("s" if row.vote == "both" else "")
    )


def _identity(row: Row) -> list[tuple[str, str]]:
    facts = [("", f"incarnation {row.incarnation or 'unknown'}")]
    if row.zone:
        facts[0] = ("", f"{facts[0][1]}, zone {row.zone}")
    reply = row.reply
    if reply is None:
        return facts
    facts.append(("", f"version {reply.version}, up for {duration(reply.uptime_ms)}"))
    if states_more(reply):
        features = f"the features of version {reply.features} are switched on"
        if not reply.features:
            features = "no later feature is switched on"
        words = f"speaks version {reply.protocol_version_max} of the protocol; {features}"
        facts.append(("", words))
    return facts


def _addresses(row: Row, cluster: ClusterView) -> list[tuple[str, str]]:
    configuration = cluster.configuration
    known = configuration.addresses.get(row.server, "") if configuration is not None else ""
    if not known:
        return [("ADDRESS", row.address or "unknown")]
    words = known
    own = row.reply.configuration if row.reply is not None else None
    believed = own.addresses.get(row.server, "") if own is not None else ""
    if believed and believed != known:
        words += f"; by its own configuration {believed}"
    for name, listed_address, _ in cluster.moved:
        if name == row.name:
            words += f"; the cluster file has {listed_address}"
    return [("ADDRESS", words)]


def _listeners(reply: StatusReply) -> list[tuple[str, str]]:
    """Return where else than at its address it serves, if it does."""
    found = [f"Redis clients at {reply.redis}"] if reply.redis else []
    if reply.http:
        found.append(f"health, metrics and status page at {reply.http}")
    return [("", printable(words)) for words in found]


def _view(reply: StatusReply) -> str:
    follows = f"follows {server_name(reply.leader)}" if reply.leader else "knows no leader"
    if reply.role == "leader":
        confirmed = "is" if reply.leadership_confirmed else "is not"
        follows = f"leads, which {confirmed} confirmed by a quorum"
    words = f"term {reply.term:,}, {follows}, revision {reply.revision:,}"
    if reply.lease_remaining_ms is not None:
        held = f"held for {precise_duration(reply.lease_remaining_ms)} more"
        words += f", reads by lease ({held if reply.lease_remaining_ms else 'not held now'})"
    elif reply.reads == "lease":
        words += ", reads by lease where it leads"
    if reply.configuration is not None:
        known = "committed" if reply.configuration.committed else "not known to be committed"
        words += f", configuration of index {reply.configuration.index:,} ({known})"
    return words


# --- positions -----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Stretch:
    """Consecutive entries that are in the same state."""

    sign: str
    first: int
    last: int
    words: str


def _stretches(reply: StatusReply, cluster: ClusterView) -> list[_Stretch]:
    """Return the log from its first entry ever to the last one that anybody is known to have."""
    leader = cluster.leader
    end = max(reply.last_index, leader.last_index if leader is not None else 0)
    whose = server_name(leader.server) if leader is not None else ""
    bounds = (
        ("·", reply.first_index - 1, f"compacted, snapshot to {reply.snapshot_index:,}"),
        ("█", reply.applied_index, "applied"),
        ("▓", reply.commit_index, "committed, not applied yet"),
        ("░", reply.last_index, "stored, commit not known"),
        (" ", end, f"{whose} has it, it has not"),
    )
    found: list[_Stretch] = []
    first = 1
    for sign, last, words in bounds:
        if last >= first:
            found.append(_Stretch(sign=sign, first=first, last=last, words=words))
            first = last + 1
    return found


def _widths(stretches: Sequence[_Stretch], columns: int) -> list[int]:
    """Return how wide each stretch is drawn: in proportion, and never too small to be seen."""
    total = sum(each.last - each.first + 1 for each in stretches)
    spare = columns - len(stretches)
    widths = [1 + spare * (each.last - each.first + 1) // total for each in stretches]
    widest = widths.index(max(widths))
    widths[widest] += columns - sum(widths)
    return widths


def _log(reply: StatusReply, cluster: ClusterView, layout: Layout) -> list[str]:
    stretches = _stretches(reply, cluster)
    if not stretches:
        return labelled("LOG", "no entries", layout)
    columns = max(len(stretches), min(BAR_COLUMNS_MAX, layout.width - LABEL_COLUMNS - 2))
    picture = "".join(
        each.sign * width
        for each, width in zip(stretches, _widths(stretches, columns), strict=True)
    )
    lines = [f"{'LOG':<{LABEL_COLUMNS}}│{picture}│"]
    ranges = [f"{each.first:,} to {each.last:,}" for each in stretches]
    wide = max(map(len, ranges))
    # Too narrow for the words beside the numbers, they stand beneath.
    is_narrow = LABEL_COLUMNS + wide + max(len(each.words) for each in stretches) + 4 > layout.width
    for each, about in zip(stretches, ranges, strict=True):
        signed = f"{'':<{LABEL_COLUMNS}}{each.sign} "
        lines.append(f"{signed}{about}" if is_narrow else f"{signed}{about:<{wide}}  {each.words}")
        if is_narrow:
            lines += [f"  {line}" for line in labelled("", each.words, layout.narrower(2))]
    return lines


# --- the leader ----------------------------------------------------------------------------------


def _leaders_view(row: Row, cluster: ClusterView) -> list[tuple[str, str]]:
    if cluster.leader is None:
        return [("LEADER", "no leader is confirmed, so nobody says how far it is")]
    if leads(row, cluster):
        return [("LEADER", "it leads itself")]
    name = server_name(cluster.leader.server)
    peer = row.peer
    if peer is None:
        return [("LEADER", f"{name} does not feed it")]
    link = "connected" if peer.connected else f"not connected ({peer.problem or 'no reason given'})"
    if peer.last_contact_ms is None:
        return [("LEADER", f"{name} has not heard from it since it leads; {link}")]
    caught_up = "caught up" if peer.caught_up else "not caught up"
    words = (
        f"{name} says: has entries up to {peer.match_index:,}, {peer.lag_entries:,} behind, "
        f"{caught_up} after {plural(peer.rounds, 'round')}, last heard "
        f"{duration(peer.last_contact_ms)} ago, {link}"
    )
    if peer.fenced:
        words += ", fenced"
    return [("LEADER", words), *_catch_up(peer)]


def _catch_up(peer: PeerView) -> list[tuple[str, str]]:
    """Return how fast a server catches up, as the leader measures it."""
    if peer.caught_up and not peer.snapshot_bytes:
        return []
    parts = []
    if peer.snapshot_bytes:
        done, done_bytes = "received", peer.snapshot_received_bytes
        if part_of(peer) == INSTALLING:
            done, done_bytes = "installed", peer.snapshot_installed_bytes
        parts.append(f"{size(done_bytes)} of a snapshot of {size(peer.snapshot_bytes)} {done}")
    parts.append(f"{size(peer.lag_bytes)} of entries to go")
    parts.append(f"{size(peer.catch_up_bytes_per_second)}/s")
    left_ms = remaining_ms(peer)
    if left_ms is not None:
        parts.append(f"about {duration(left_ms)}")
    return [("CATCH-UP", ", ".join(parts))]


# --- the machine ---------------------------------------------------------------------------------


def _process(reply: StatusReply) -> list[tuple[str, str]]:
    if reply.cpu_ms is None:
        return [("PROCESS", UNKNOWN)]
    words = f"{duration(reply.cpu_ms)} of processor time"
    if reply.uptime_ms:
        words += f" ({reply.cpu_ms / reply.uptime_ms:.1%} of one since its start)"
    if reply.rss_anon_bytes is not None:
        words += f"; {size(reply.rss_anon_bytes)} of memory of its own"
    if reply.rss_bytes is not None:
        words += f"; {size(reply.rss_bytes)} resident with the files that it has mapped"
    return [("PROCESS", words)]


def _disk(reply: StatusReply) -> list[tuple[str, str]]:
    if not states_more(reply):
        return [("DISK", UNKNOWN)]
    against = (
        f"(heartbeat interval {duration(reply.heartbeat_interval_ms)}, election timeout "
        f"{duration(reply.election_timeout_ms)})"
    )
    syncs = f"no sync of the log yet {against}"
    if reply.sync_p50_ms is not None and reply.sync_p99_ms is not None:
        syncs = (
            f"a sync of the log takes {precise_duration(reply.sync_p50_ms)}, one of a hundred "
            f"{precise_duration(reply.sync_p99_ms)} {against}"
        )
    free = "free space unknown"
    if reply.disk_free_bytes is not None:
        free = f"{size(reply.disk_free_bytes)} free"
    sizes = (
        f"{free}, {size(reply.disk_reserve_bytes)} reserved; log {size(reply.log_bytes)}, snapshot "
        f"{size(reply.snapshot_bytes)}, state {size(reply.state_bytes)}"
    )
    return [("DISK", syncs), ("", sizes)]


def _clock(row: Row, cluster: ClusterView) -> list[tuple[str, str]]:
    if row.clock_difference_ms is None or not cluster.clock:
        return []
    return [("CLOCK", clock_words(row.clock_difference_ms, cluster.clock))]


def _links(reply: StatusReply, layout: Layout) -> list[str]:
    if not states_more(reply):
        return labelled("LINKS", UNKNOWN, layout)
    if not reply.links:
        return []
    rows = []
    problems = []
    for link in sorted(reply.links, key=lambda link: natural_key(link.server)):
        name = server_name(link.server)
        state = layout.paint(*(("up", "green") if link.connected else ("down", "red")))
        spoken = str(link.version) if link.version else ""
        rows.append((printable(name), printable(link.address), state, spoken))
        if link.problem and not link.connected:
            problems += labelled("", f"{name}: {link.problem}", layout)
    lines = table(("TO", "ADDRESS", "LINK", "PROTOCOL"), rows, right={"PROTOCOL"}).splitlines()
    if LABEL_COLUMNS + max(map(width_of, lines)) > layout.width:
        return ["LINKS", *(f"  {line}" for line in lines), *problems]
    labels = ["LINKS", *[""] * (len(lines) - 1)]
    shown = [f"{at:<{LABEL_COLUMNS}}{line}" for at, line in zip(labels, lines, strict=True)]
    return [*shown, *problems]
