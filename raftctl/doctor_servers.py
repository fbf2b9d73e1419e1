"""What `raftctl doctor` says about each server: state, disk, clock, time-outs, versions.

Pure functions on an `Examination`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from raftctl.doctor_reach import RAFTCTL, matrix
from raftctl.examining import Examination
from raftctl.findings import Finding, Result
from raftctl.render import display_names, duration, listed, natural_key, plural
from raftd.cluster_status.issues import CLOCK_DIFFERENCE_MS_MAX, DEAD_ISSUES, Issue
from raftd.cluster_status.view import Row
from raftd.cluster_status.words import size
from raftd.config_values import format_duration
from raftd.core.types import server_name
from raftd.protocol import StatusReply

MEMBERS = "members"
SYNCS = "syncs"
CLOCKS = "clocks"
TIMEOUTS = "timeouts"
VERSIONS = "versions"
DISK = "disk"

FEATURES_VERSION_MIN = 3
"""The first version of the wire format with features that have to be switched on."""
RESERVES_WARNED = 2
"""Free space below so many reserves is near the end."""
DISK_IS_FULL = "the disk is nearly full"
"""How a server reports that; it is judged by its numbers here."""
FAILING_ISSUES = DEAD_ISSUES | {
    *("address", "blank", "cloned", "diverged", "removed", "unconfirmed"),
}
"""With one of these a member is no help to the cluster."""
FAILING_REPORTS = ("divergence",)
"""Problems that a server reports itself and that are no warning."""


def named_replies(examination: Examination) -> dict[str, StatusReply]:
    """Return what each member says of itself, by name, n2 before n10.

    The names are those of the matrix. Of a member whose disk was wiped it is what the server says
    that took its place.
    """
    rows = [
        row
        for row in examination.cluster.rows
        if row.member or examination.cluster.configuration is None
    ]
    names = display_names(row.server for row in rows if row.server)
    found = {}
    for row in rows:
        visit = examination.visits.get(row.server)
        status = visit.status if visit is not None and visit.status is not None else row.reply
        if status is not None and row.server:
            found[names[row.server]] = status
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def unknown(check: str) -> list[Finding]:
    """Return the finding for a check that nobody could answer."""
    return [Finding(check=check, result=Result.SKIP, finding="no server says")]


# --- members ----------------------------------------------------------------------------------


def check_members(examination: Examination) -> list[Finding]:
    """Judge what status knows against each member, and against strangers at listed addresses."""
    findings = [
        finding
        for row in examination.cluster.rows
        for issue in row.issues
        for finding in _judge_issue(row, issue, examination)
    ]
    if findings:
        return findings
    members = [row for row in examination.cluster.rows if row.member]
    if not members:
        return [Finding(check=MEMBERS, result=Result.SKIP, finding="there are no members yet")]
    count = plural(len(members), "member")
    elsewhere = [row.name for row in members if not row.reachable]
    if elsewhere:
        text = f"{count} without an issue; {listed(elsewhere)} only the other servers can reach"
    else:
        text = f"all {count} answer, without an issue" if len(members) > 1 else f"{count}, no issue"
    return [Finding(check=MEMBERS, result=Result.PASS, finding=text)]


def _judge_issue(row: Row, issue: Issue, examination: Examination) -> Iterator[Finding]:
    # Versions and disks have a check of their own.
    if issue.kind == "version" or issue.words.startswith(DISK_IS_FULL):
        return
    if issue.kind == "blank" and not row.member:
        # It stands by, or waits for `init`.
        return
    if issue.kind == "lagging" and is_joining(row, examination):
        # It has just been started, and gets what it lacks.
        return
    if issue.kind == "unreachable" and _is_reached(row, examination):
        # It is only we who do not reach it.
        return
    *steps, last = ("", *issue.repair)
    is_command = last.startswith("raftctl ")
    words = [step for step in (*steps, "" if is_command else last) if step]
    remedy = ", then ".join(words)
    if not issue.repair and issue.kind == "unreachable":
        remedy = f"start {row.name}"
        if row.member:
            remedy += " on its machine"
        if row.member and examination.cluster.leader is not None:
            remedy += "; if that is lost for good, start a blank server and run "
            remedy += f"`raftctl replace {row.name} NEW=HOST:PORT`"
    yield Finding(
        check=MEMBERS,
        result=Result.FAIL if _is_failing(row, issue) else Result.WARN,
        finding=_sentence(row, issue),
        remedy=f"{remedy}, then" if remedy and is_command else remedy,
        command=last.removeprefix("raftctl ") if is_command else "",
        servers=(row.name,),
    )


def is_joining(row: Row, examination: Examination) -> bool:
    """Return whether a change that runs waits for a server which is on its way."""
    return any(
        peer.server == row.server and peer.connected and not peer.problem
        for operation in examination.operations
        for peer in operation.peers
    )


def _is_failing(row: Row, issue: Issue) -> bool:
    if not row.member:
        # Only where no configuration is known silent servers are shown that may be members.
        return issue.kind == "unreachable"
    return issue.kind in FAILING_ISSUES or (
        issue.kind == "reported" and issue.words.startswith(FAILING_REPORTS)
    )


def _sentence(row: Row, issue: Issue) -> str:
    words = issue.words
    if issue.kind == "unreachable":
        return f"{row.name} does not answer at {row.address or '?'}: {words}"
    if issue.kind == "reported":
        return f"{row.name} reports: {words}"
    return f"{row.name}, {issue.kind}: {words}"


def _is_reached(row: Row, examination: Examination) -> bool:
    found = matrix(examination)
    target = next((target for target in found.targets if target.server == row.server), None)
    return target is not None and any(
        cell.ok for cell in found.column(target) if cell.source != RAFTCTL
    )


# --- syncs ------------------------------------------------------------------------------------


def check_syncs(examination: Examination) -> list[Finding]:
    """Judge how long the syncs of the log take.

    The driver waits for each of them: over the heartbeat interval heartbeats are answered late,
    over half of the election timeout two slow syncs in a row look like the end of the server.
    """
    measured = {
        name: (status.sync_p99_ms, status.sync_p50_ms or 0.0, status)
        for name, status in named_replies(examination).items()
        if status.sync_p99_ms is not None
    }
    if not measured:
        return [
            Finding(check=SYNCS, result=Result.SKIP, finding="no server has measured a sync yet")
        ]
    findings = []
    for name, (high_ms, median_ms, status) in measured.items():
        fails = high_ms > status.election_timeout_ms / 2 > 0
        if not fails and high_ms <= status.heartbeat_interval_ms:
            continue
        limit = (
            f"half of its election timeout of {duration(status.election_timeout_ms)}"
            if fails
            else f"its heartbeat interval of {duration(status.heartbeat_interval_ms)}"
        )
        findings.append(
            Finding(
                check=SYNCS,
                result=Result.FAIL if fails else Result.WARN,
                finding=f"{name}: one sync in a hundred takes {duration(high_ms)} or more (half of "
                f"them {duration(median_ms)}), over {limit}",
                remedy=f"give {name} a faster disk or take other work off it; or set "
                f"heartbeat_interval to more than {duration(high_ms)} and election_timeout to more "
                f"than {duration(10 * high_ms)} in the file of every server, and restart them one "
                "at a time",
                servers=(name,),
            )
        )
    if findings:
        return findings
    name = max(measured, key=lambda name: measured[name][0])
    high_ms, _, status = measured[name]
    return [
        Finding(
            check=SYNCS,
            result=Result.PASS,
            finding=f"99 of 100 take at most {duration(high_ms)} on {name}, the slowest, within "
            f"the heartbeat interval of {duration(status.heartbeat_interval_ms)}",
        )
    ]


# --- clocks -----------------------------------------------------------------------------------


def check_clocks(examination: Examination) -> list[Finding]:
    """Judge how far the clocks of the servers are apart. No rule of the protocol reads one."""
    names = {target.server: target.name for target in examination.targets}
    ahead = {
        names[server]: (visit.clock_ahead_ms, (visit.round_trip_ms or 0.0) / 2)
        for server, visit in examination.visits.items()
        if visit.clock_ahead_ms is not None
    }
    if len(ahead) < 2:
        return [
            Finding(check=CLOCKS, result=Result.SKIP, finding="there are no two clocks to compare")
        ]
    first = max(ahead, key=lambda name: ahead[name][0])
    last = min(ahead, key=lambda name: ahead[name][0])
    apart_ms = ahead[first][0] - ahead[last][0]
    error_ms = ahead[first][1] + ahead[last][1]
    give_or_take = f"give or take {duration(max(1.0, error_ms))}"
    if apart_ms - error_ms <= CLOCK_DIFFERENCE_MS_MAX:
        return [
            Finding(
                check=CLOCKS,
                result=Result.PASS,
                finding=f"at most {duration(max(0.0, round(apart_ms)))} apart, {give_or_take}",
            )
        ]
    return [
        Finding(
            check=CLOCKS,
            result=Result.WARN,
            finding=f"the clock of {first} is {duration(apart_ms)} ahead of that of {last}, "
            f"{give_or_take}: the times of operations and logs do not fit together; nothing else "
            "depends on clocks",
            remedy=f"let a time service such as chrony set the clocks of {listed((first, last))}",
            servers=(first, last),
        )
    ]


# --- time-outs --------------------------------------------------------------------------------


def check_timeouts(examination: Examination) -> list[Finding]:
    """Judge the heartbeat intervals and election timeouts that the servers run with."""
    running = {
        name: (status.heartbeat_interval_ms, status.election_timeout_ms)
        for name, status in named_replies(examination).items()
        if status.election_timeout_ms
    }
    if not running:
        return unknown(TIMEOUTS)
    slow = max(running, key=lambda name: running[name][0])
    hasty = min(running, key=lambda name: running[name][1])
    findings = [_difference(name, pair, examination) for name, pair in running.items()]
    known = [finding for finding in findings if finding is not None]
    if running[slow][0] >= running[hasty][1]:
        known.insert(
            0,
            Finding(
                check=TIMEOUTS,
                result=Result.FAIL,
                finding=f"as a leader {slow} would send a heartbeat every "
                f"{format_duration(running[slow][0])}, but {hasty} calls an election after "
                f"{format_duration(running[hasty][1])} without one",
                remedy="give every server the same heartbeat_interval and election_timeout",
                servers=(slow, hasty),
            ),
        )
    elif not known and len(set(running.values())) > 1 and examination.config is None:
        groups = _grouped({name: _timeout_words(pair) for name, pair in running.items()})
        known.append(
            Finding(
                check=TIMEOUTS,
                result=Result.WARN,
                finding=f"the servers do not agree: {groups}",
                remedy="give every server the same file, and restart those that differ, one at a "
                "time",
                servers=tuple(running),
            )
        )
    if known:
        return known
    words = dict.fromkeys(_timeout_words(pair) for pair in running.values())
    everywhere = " on every server" if len(running) > 1 and len(words) == 1 else ""
    return [
        Finding(
            check=TIMEOUTS, result=Result.PASS, finding=f"{'; '.join(words)}{everywhere}".strip()
        )
    ]


def _difference(
    name: str, running: tuple[float, float], examination: Examination
) -> Finding | None:
    """Return the finding for a server that runs with other time-outs than the file says."""
    config = examination.config
    in_file = config.servers.get(name.partition("/")[0]) if config is not None else None
    if config is None or in_file is None:
        return None
    wanted = (in_file.heartbeat_interval_ms, in_file.election_timeout_ms)
    if running == wanted:
        return None
    return Finding(
        check=TIMEOUTS,
        result=Result.WARN,
        finding=f"{name} runs with {_timeout_words(running)}; {config.path} says "
        f"{_timeout_words(wanted)}",
        remedy=f"restart {name} with this file, or correct the file",
        servers=(name,),
    )


def _timeout_words(pair: tuple[float, float]) -> str:
    heartbeat, election = map(format_duration, pair)
    return f"heartbeat interval {heartbeat}, election timeout {election}"


def _grouped(values: dict[str, str]) -> str:
    """Return `A: n1 and n2; B: n3`, the most common value first."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return "; ".join(f"{value}: {listed(names)}" for value, names in ordered)


# --- versions ---------------------------------------------------------------------------------


def check_versions(examination: Examination) -> list[Finding]:
    """Judge releases, versions of the wire format, and the features that are switched on."""
    replies = named_replies(examination)
    if not replies:
        return unknown(VERSIONS)
    releases = {name: status.version for name, status in replies.items()}
    findings = []
    if len(set(releases.values())) > 1:
        groups = _grouped(releases)
        oldest = min(replies.values(), key=lambda status: status.protocol_version_max)
        findings.append(
            Finding(
                check=VERSIONS,
                result=Result.WARN,
                finding=f"not all run the same release: {groups}",
                remedy="finish the upgrade: restart those that are behind with the newer release, "
                "one at a time, and wait after each until status is healthy",
                servers=tuple(
                    name
                    for name, status in replies.items()
                    if status.protocol_version_max == oldest.protocol_version_max
                    and status.version == oldest.version
                ),
            )
        )
    findings += _judge_features(examination, replies)
    if findings:
        return findings
    (release,) = set(releases.values())
    newest = min(status.protocol_version_max for status in replies.values())
    features = max(status.features for status in replies.values())
    switched = f", features of version {features} switched on" if features else ""
    return [
        Finding(
            check=VERSIONS,
            result=Result.PASS,
            finding=f"{release}{' on every server' if len(replies) > 1 else ''}, wire format "
            f"{newest}{switched}",
        )
    ]


def _judge_features(examination: Examination, replies: dict[str, StatusReply]) -> Iterator[Finding]:
    """Judge why features are off that somebody could apply."""
    newest = max(status.applicable_features for status in replies.values())
    features = max(status.features for status in replies.values())
    if (
        newest < FEATURES_VERSION_MIN
        or features >= newest
        or examination.cluster.configuration is None
    ):
        return
    behind = [name for name, status in replies.items() if status.applicable_features < newest]
    silent = [target.name for target in examination.targets if target.name not in replies]
    text = f"the features of version {newest} are off"
    remedy = "look again in a few seconds; the leader switches them on by itself"
    if behind:
        speaks = "speaks" if len(behind) == 1 else "speak"
        text += f", since {listed(behind)} {speaks} only an older version"
        remedy = f"upgrade {listed(behind)}"
    elif silent:
        text += f" until {listed(silent)} {'answers' if len(silent) == 1 else 'answer'}: nobody "
        text += "knows what it speaks"
        remedy = f"start {listed(silent)}"
        if examination.cluster.leader is not None:
            remedy += f", or remove {'it' if len(silent) == 1 else 'them'} if gone for good"
    else:
        text += ", although every member speaks it: the leader has to be connected to all of them"
    yield Finding(
        check=VERSIONS,
        result=Result.WARN,
        finding=text,
        remedy=remedy,
        servers=tuple(behind or silent),
    )


# --- disk -------------------------------------------------------------------------------------


def check_disk(examination: Examination) -> list[Finding]:
    """Judge the free space of each server, against its reserve and its next snapshot."""
    replies = named_replies(examination)
    known = {
        name: (status.disk_free_bytes, status)
        for name, status in replies.items()
        if status.disk_free_bytes is not None
    }
    if not known:
        return unknown(DISK)
    has_leader = examination.cluster.leader is not None
    findings = [
        finding
        for name, (free_bytes, status) in known.items()
        for finding in [_judge_disk(name, free_bytes, status, has_leader=has_leader)]
        if finding is not None
    ]
    if findings:
        return findings
    name = min(known, key=lambda name: known[name][0])
    free_bytes, status = known[name]
    reserve = size(status.disk_reserve_bytes)
    return [
        Finding(
            check=DISK,
            result=Result.PASS,
            finding=f"the least is left on {name}: {size(free_bytes)}, reserved are {reserve}"
            if len(known) > 1
            else f"{size(free_bytes)} left on {name}, reserved are {reserve}",
        )
    ]


def needed_bytes(status: StatusReply) -> int:
    """Return about how much a server needs beside its reserve: for its next snapshot.

    While that is written, what is overwritten in the live state cannot be used again.
    """
    return max(status.state_bytes, 2 * (status.snapshot_bytes + status.log_bytes))


def _judge_disk(
    name: str, free_bytes: int, status: StatusReply, *, has_leader: bool
) -> Finding | None:
    reserve_bytes = status.disk_reserve_bytes
    left = f"{name} has {size(free_bytes)} left"
    result = Result.WARN
    if free_bytes < reserve_bytes:
        result = Result.FAIL
        text = f"{left}, less than its reserve of {size(reserve_bytes)}: writes are refused while "
        text += "it leads, or while a majority is as short"
    elif free_bytes < RESERVES_WARNED * reserve_bytes:
        text = f"{left}, less than {RESERVES_WARNED} times its reserve of {size(reserve_bytes)}, "
        text += "below which writes are refused"
    elif free_bytes - reserve_bytes < needed_bytes(status):
        text = f"{left}, {size(reserve_bytes)} of it reserved; its next snapshot may take "
        text += f"{size(needed_bytes(status))}"
    else:
        return None
    remedy = f"make room on the disk of {name}"
    if has_leader:
        remedy += ", or replace it by a server with more: "
        remedy += f"`raftctl replace {shlex.quote(server_name(name))} NEW=HOST:PORT`"
    return Finding(
        check=DISK,
        result=result,
        finding=text,
        remedy=remedy,
        servers=(name,),
    )
