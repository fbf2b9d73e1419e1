"""What `raftctl doctor` says about the cluster as a whole.

Leader, number and place of the voters, the file, operations. Pure functions on an `Examination`.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping

import attrs

from raftctl.doctor_servers import named_replies, unknown
from raftctl.examining import Examination
from raftctl.findings import Finding, Result
from raftctl.render import (
    display_names,
    duration,
    listed,
    members_of,
    natural_key,
    plural,
)
from raftctl.rolling_text import counted, idle_ms, who_drives
from raftctl.status_text import names_of_helpers, prospects
from raftd.cluster_status.notes import RECOVER_WORDS, has_no_majority, readdressing
from raftd.cluster_status.operations import rolling_of, rolling_summary, summary
from raftd.commands import CATCHING_UP, DONE, FAILED, JOINT, RUNNING, SKIPPED, Operation
from raftd.config import ClusterConfig
from raftd.config_values import is_loopback, parse_address
from raftd.core.availability import fatal_sets, survived_failures
from raftd.core.types import ServerId, server_name
from raftd.protocol import ConfigurationView, OperationView

LEADER = "leader"
VOTERS = "voters"
PLACEMENT = "placement"
FILE = "file"
OPERATIONS = "operations"

OLD_MS = 10 * 60_000.0
"""An operation on which nothing has happened for so long deserves a look."""
VOTERS_SAFE_MIN = 3
"""Fewer voters survive no failure."""
THIS_MACHINE = "loopback"
"""The host of all loopback addresses."""


# --- leader -----------------------------------------------------------------------------------


def check_leader(examination: Examination) -> list[Finding]:
    """Judge whether there is a leader, and what the cluster survives from here."""
    cluster = examination.cluster
    if cluster.leader is None or survived_failures(cluster.quorums, cluster.dead) < 0:
        # A leader that has just lost its quorum does not know it yet.
        leaderless = attrs.evolve(cluster, leader=None)
        prospect = prospects(leaderless)
        down = names_of_helpers(cluster)
        remedy = f"bring back {listed(down, 'or')} with the data of before" if down else ""
        if has_no_majority(leaderless):
            remedy = "; ".join(part for part in (remedy, RECOVER_WORDS) if part)
        missing = [cluster.names[row.server] for row in cluster.members if not row.alive]
        return [
            Finding(
                check=LEADER,
                result=Result.FAIL,
                finding=f"no leader is confirmed by a quorum: {prospect}",
                remedy=remedy,
                servers=tuple(missing),
            )
        ]
    text = (
        f"{server_name(cluster.leader.server)} leads in term {cluster.leader.term:,}; "
        f"{prospects(cluster)}"
    )
    # Few voters are the matter of another check.
    is_worn = cluster.failure_tolerance == 0 and any(
        len(half.voters) >= VOTERS_SAFE_MIN for half in cluster.halves
    )
    dead = sorted({name for half in cluster.halves for name in half.dead}, key=natural_key)
    return [
        Finding(
            check=LEADER,
            result=Result.WARN if is_worn else Result.PASS,
            finding=text,
            remedy=f"bring back {listed(dead)} before anything else" if is_worn and dead else "",
            servers=tuple(dead) if is_worn else (),
        )
    ]


# --- voters -----------------------------------------------------------------------------------


def check_voters(examination: Examination) -> list[Finding]:
    """Judge the number of voters: it should be odd, and three at least."""
    configuration = examination.cluster.configuration
    if configuration is None:
        return [Finding(check=VOTERS, result=Result.SKIP, finding="there is no cluster yet")]
    names = display_names(members_of(configuration))
    voters = sorted((names[server] for server in configuration.voters), key=natural_key)
    count = len(voters)
    survived = max(0, survived_failures([frozenset(configuration.voters)]))
    survives = "survives" if count == 1 else "survive"
    while_joint = " once the change is through" if configuration.joint else ""
    text = f"{plural(count, 'voter')} {survives} "
    text += f"{plural(survived, 'failure')} with all of them up" if survived else "no failure"
    text += while_joint
    if count >= VOTERS_SAFE_MIN and count % 2:
        return [Finding(check=VOTERS, result=Result.PASS, finding=text)]
    if count == 1:
        text += f": {voters[0]} alone decides, and has all there is"
    elif count < VOTERS_SAFE_MIN:
        text += ": each of them can stop the cluster, so that they are worse than one"
    else:
        text += f", as {count - 1} would: the last one costs time and gives nothing"
    ready = [
        names[server]
        for server in sorted(configuration.learners, key=natural_key)
        if server not in examination.cluster.dead
    ]
    remedy, command = "", ""
    if examination.cluster.leader is not None:
        remedy, command = _another_voter(examination, voters, ready)
    return [Finding(check=VOTERS, result=Result.WARN, finding=text, remedy=remedy, command=command)]


def _another_voter(
    examination: Examination, voters: list[str], learners: list[str]
) -> tuple[str, str]:
    """Return how to come to an odd number of voters: words, and a command."""
    wanted = 1 if len(voters) % 2 == 0 else VOTERS_SAFE_MIN - len(voters)
    if len(learners) >= wanted:
        return "", f"promote {' '.join(map(shlex.quote, learners[:wanted]))}"
    if len(voters) > VOTERS_SAFE_MIN:
        leader, names = examination.cluster.leader, examination.cluster.names
        dead = {names[server] for server in examination.cluster.dead}
        others = [name for name in voters if leader is None or name != names[leader.server]]
        # The last one of those that do not vote anyway, else of all.
        chosen = max(others, key=lambda name: (name in dead, natural_key(name)))
        return "add a voter, or do with one less", f"demote {shlex.quote(chosen)}"
    blank = plural(wanted, "blank server")
    places = " ".join(["ID=HOST:PORT"] * wanted)
    return f"start {blank} and run `raftctl add {places}`", ""


# --- placement --------------------------------------------------------------------------------


def check_placement(examination: Examination) -> list[Finding]:
    """Judge whether one zone or one host has a majority, so that losing it stops the cluster."""
    configuration = examination.cluster.configuration
    if configuration is None:
        return [Finding(check=PLACEMENT, result=Result.SKIP, finding="there is no cluster yet")]
    halves = [half for half in (configuration.outgoing, configuration.voters) if half]
    voters = {server for half in halves for server in half}
    if len(voters) == 1:
        return [Finding(check=PLACEMENT, result=Result.SKIP, finding="there is only one voter")]
    zones = examination.cluster.zones
    has_leader = examination.cluster.leader is not None
    hosts = {server: _host(configuration.addresses.get(server, "")) for server in voters}
    findings = [
        *_judge_units("zone", zones, voters, configuration, has_leader=has_leader),
        *_judge_units("host", hosts, voters, configuration, has_leader=has_leader),
    ]
    if findings:
        return findings
    known_zones = {zones[server] for server in voters if zones.get(server)}
    in_zones = f" in {plural(len(known_zones), 'zone')}" if known_zones else ", without zones"
    return [
        Finding(
            check=PLACEMENT,
            result=Result.PASS,
            finding=f"{plural(len(voters), 'voter')} on "
            f"{plural(len({host for host in hosts.values() if host}), 'host')}{in_zones}: none of "
            "them has a majority",
        )
    ]


def _host(address: str) -> str:
    if not address:
        return ""
    host, _ = parse_address(address)
    return THIS_MACHINE if is_loopback(host) else host


def _judge_units(
    kind: str,
    units: Mapping[ServerId, str],
    voters: set[ServerId],
    configuration: ConfigurationView,
    *,
    has_leader: bool,
) -> Iterator[Finding]:
    halves = [half for half in (configuration.outgoing, configuration.voters) if half]
    names = display_names(members_of(configuration))
    for fatal in fatal_sets(halves, (), units):
        if len(fatal) != 1:
            continue
        (unit,) = fatal
        inside = sorted(
            (names[server] for server in voters if units.get(server) == unit), key=natural_key
        )
        if len(inside) == 1:
            # Too few voters are the matter of another check.
            continue
        where = "in" if kind == "zone" else "on"
        share = "all" if len(inside) == len(voters) else f"{len(inside)} of"
        share += f" {plural(len(voters), 'voter')} ({' '.join(inside)})"
        text = f"{kind} {unit} has {share}: without it there is no majority"
        remedy = f"replace some of them by servers {where} another {kind}"
        if has_leader:
            remedy += f", such as `raftctl replace {inside[-1]} NEW=HOST:PORT`"
        else:
            remedy += " once there is a leader"
        if unit == THIS_MACHINE:
            text = f"{share} run on one machine, by their loopback addresses: good for trying out"
            remedy = "before anything depends on it, run every voter on a machine of its own"
        yield Finding(
            check=PLACEMENT,
            result=Result.WARN,
            finding=text,
            remedy=remedy,
            servers=tuple(inside),
        )


# --- file -------------------------------------------------------------------------------------


def check_file(examination: Examination) -> list[Finding]:
    """Judge the cluster file by the configuration in the log, which is what counts."""
    config, configuration = examination.config, examination.cluster.configuration
    if config is None:
        return [
            Finding(check=FILE, result=Result.SKIP, finding="no cluster file is used to compare")
        ]
    if configuration is None:
        return [Finding(check=FILE, result=Result.SKIP, finding="there is no cluster yet")]
    if configuration.joint:
        return [
            Finding(check=FILE, result=Result.SKIP, finding="a change of the members is under way")
        ]
    findings = [
        *_judge_name(config, examination),
        *_judge_members(config, configuration, examination.cluster.leader is not None),
        *_judge_addresses(config, configuration, examination),
        *_judge_zones(config, examination),
    ]
    if findings:
        return findings
    return [
        Finding(
            check=FILE,
            result=Result.PASS,
            finding=f"{config.path} has the same members, roles and addresses as the log",
        )
    ]


def _judge_name(config: ClusterConfig, examination: Examination) -> Iterator[Finding]:
    name = examination.cluster.name
    if name and name != config.cluster:
        yield Finding(
            check=FILE,
            result=Result.WARN,
            finding=f"{config.path} describes the cluster {config.cluster}; the servers belong to "
            f"{name}",
            remedy="use the file of the cluster that is meant",
        )


def _judge_members(
    config: ClusterConfig, configuration: ConfigurationView, has_leader: bool
) -> Iterator[Finding]:
    """Judge who is a member, and in which role."""
    in_log = _roles(configuration)
    in_file = {name: server.role for name, server in config.servers.items()}
    parts, concerned = [], []
    for name in sorted(in_log.keys() | in_file.keys(), key=natural_key):
        if name not in in_file:
            parts.append(f"{name} is a {in_log[name]} and not in the file")
        elif name not in in_log:
            parts.append(f"{name} is in the file and no member")
        elif in_log[name] != in_file[name]:
            parts.append(f"{name} is a {in_log[name]}, in the file a {in_file[name]}")
        else:
            continue
        concerned.append(name)
    if parts:
        path = shlex.quote(str(config.path))
        yield Finding(
            check=FILE,
            result=Result.WARN,
            finding=f"{config.path} differs from the log: {'; '.join(parts)}",
            remedy="if the cluster is right, put what `raftctl config export` prints into the "
            f"place of the file{'; if the file is right' if has_leader else ''}",
            command=f"apply -f {path}" if has_leader else "",
            servers=tuple(concerned),
        )


def _roles(configuration: ConfigurationView) -> dict[str, str]:
    learners = (*configuration.learners, *configuration.learners_next)
    roles = {server_name(server): "learner" for server in learners}
    return roles | {server_name(server): "voter" for server in configuration.voters}


def _judge_addresses(
    config: ClusterConfig, configuration: ConfigurationView, examination: Examination
) -> Iterator[Finding]:
    """Judge addresses that are old in the file, or in the log where no member's issue says so."""
    yield from _judge_relocated(config, examination)
    for server in sorted(members_of(configuration), key=natural_key):
        name = server_name(server)
        known, in_file = configuration.addresses.get(server, ""), config.servers.get(name)
        if in_file is None or not known or in_file.address == known:
            continue
        answers = {
            answer.address
            for answer in examination.answers
            if answer.reply is not None and answer.reply.server == server
        }
        text = f"{name} is at {known} by the log, at {in_file.address} by {config.path}"
        if in_file.address in answers and known not in answers:
            # The log is what is old.
            continue
        answering = ", where it answers" if known in answers else ""
        yield Finding(
            check=FILE,
            result=Result.WARN,
            finding=f"{text}; the log counts{answering}",
            remedy="put what this prints into the place of the file",
            command="config export",
            servers=(name,),
        )


def _judge_relocated(config: ClusterConfig, examination: Examination) -> Iterator[Finding]:
    """Judge members whose addresses are right in the file, where no issue of theirs says so."""
    cluster = examination.cluster
    told = {
        row.name for row in cluster.members if any(issue.kind == "address" for issue in row.issues)
    }
    found = [each for each in cluster.relocated if each[0] not in told]
    if not found:
        return
    names = [name for name, _, _ in found]
    answer, them = ("answers", "it") if len(names) == 1 else ("answer", "them")
    has_leader = cluster.leader is not None
    yield Finding(
        check=FILE,
        result=Result.WARN,
        finding=f"{listed(names)} {answer} where {config.path} has {them}; the log has {them} "
        "elsewhere, and is old",
        remedy=f"take {them} to the new address{'' if len(names) == 1 else 'es'} with"
        if has_leader
        else "",
        command=readdressing(found) if has_leader else "",
        servers=tuple(names),
    )


def _judge_zones(config: ClusterConfig, examination: Examination) -> Iterator[Finding]:
    differing: dict[tuple[str, str], list[str]] = {}
    for name, status in named_replies(examination).items():
        in_file = config.servers.get(server_name(name))
        # Servers of older releases do not say.
        if in_file is not None and status.wall_clock_ms and (in_file.zone or "") != status.zone:
            differing.setdefault((status.zone, in_file.zone or ""), []).append(name)
    for (running, written), names in differing.items():
        run, them = ("runs", "it") if len(names) == 1 else ("run", "them")
        yield Finding(
            check=FILE,
            result=Result.WARN,
            finding=f"{listed(names)} {run} in {_zone_words(running)}; {config.path} puts {them} "
            f"into {_zone_words(written)}",
            remedy=f"restart {listed(names)} with this file, or correct the file",
            servers=tuple(names),
        )


def _zone_words(zone: str) -> str:
    return f"zone {zone}" if zone else "no zone"


# --- operations -------------------------------------------------------------------------------


def check_operations(examination: Examination) -> list[Finding]:
    """Judge what runs: whether it waits for something, is paused, or has stood still for long."""
    cluster = examination.cluster
    if cluster.source is None:
        return unknown(OPERATIONS)
    visit = examination.visits.get(cluster.source.server)
    # Records have the time of the leaders' clocks.
    now_ms = examination.now_ms + ((visit.clock_ahead_ms or 0.0) if visit is not None else 0.0)
    configuration = cluster.configuration
    running = {operation.record.id for operation in examination.operations}
    findings = [
        _judge_rolling(operation.record, now_ms, running)
        if operation.record.rolling is not None
        else _judge_change(operation, now_ms, configuration, has_leader=cluster.leader is not None)
        for operation in examination.operations
    ]
    if findings:
        return findings
    if configuration is not None and configuration.joint:
        return [
            Finding(
                check=OPERATIONS,
                result=Result.WARN,
                finding=f"the configuration of index {configuration.index:,} is joint, and no "
                "operation is running that will leave it",
                remedy="look again in a few seconds, and see who is missing, with",
                command="status",
            )
        ]
    return [Finding(check=OPERATIONS, result=Result.PASS, finding="none is running")]


def _judge_change(
    operation: OperationView,
    now_ms: float,
    configuration: ConfigurationView | None,
    *,
    has_leader: bool,
) -> Finding:
    record = operation.record
    began_ms = record.phases[-1].time_ms if record.phases else now_ms
    age_ms = max(0.0, now_ms - began_ms)
    text = f"{record.id} {_title(record)}: {operation.step or record.phase} for {duration(age_ms)}"
    moving = any(peer.catch_up_bytes_per_second for peer in operation.peers)
    old = age_ms > OLD_MS and not moving
    waits = bool(operation.blocked_by)
    if waits and record.phase == CATCHING_UP and not old and _all_arrive(operation):
        return Finding(
            check=OPERATIONS, result=Result.PASS, finding=f"{text}: {operation.blocked_by}"
        )
    if not waits and not old:
        return Finding(check=OPERATIONS, result=Result.PASS, finding=text)
    why = operation.blocked_by or "nothing moves"
    joint = configuration is not None and configuration.joint
    # Once C_new is in the log there is no way back.
    abortable = record.phase != JOINT or joint
    remedy = "it goes on by itself once that is solved; to undo it" if abortable else "watch it"
    if not has_leader:
        remedy = "it goes on by itself once there is a leader"
    return Finding(
        check=OPERATIONS,
        result=Result.WARN,
        finding=f"{text}: {why}",
        remedy=remedy,
        command=f"operation {'abort' if abortable else 'watch'} {record.id}" if has_leader else "",
        servers=tuple(dict.fromkeys(server_name(server) for _, server in record.plan.changes)),
    )


def _all_arrive(operation: OperationView) -> bool:
    """Return whether the leader is in contact with all that it waits for."""
    peers = operation.peers
    return bool(peers) and all(peer.connected and not peer.problem for peer in peers)


def _judge_rolling(record: Operation, now_ms: float, running: Collection[str]) -> Finding:
    rolling = rolling_of(record)
    age_ms = max(0.0, now_ms - rolling.changed_ms) if rolling.changed_ms else 0.0
    # A step that is a change of members takes its time, and is judged as that change.
    moving = any(step.operation in running for step in rolling.steps if step.state == RUNNING)
    remedy = "once what stopped it is solved, go on with"
    text = f"{record.id} {rolling_summary(record)}: {counted(rolling)}, {who_drives(rolling)}"
    failed = next((step for step in rolling.steps if step.state == FAILED), None)
    if failed is not None:
        text += f"; that of {failed.name} failed"
        text += f": {failed.note}" if failed.note else ""
    elif rolling.paused_by:
        text += f", for {duration(age_ms)}"
    elif age_ms > OLD_MS:
        text += f", but nothing has happened for {duration(age_ms)}"
        remedy = "if nobody drives it, go on with"
    elif idle_ms(rolling, now_ms) and not moving:
        text += f"; its last change was {duration(age_ms)} ago"
        remedy = "if nobody drives it, go on with"
    else:
        return Finding(check=OPERATIONS, result=Result.PASS, finding=text)
    return Finding(
        check=OPERATIONS,
        result=Result.WARN,
        finding=text,
        remedy=remedy,
        command="rolling resume",
        servers=tuple(step.name for step in rolling.steps if step.state not in (DONE, SKIPPED)),
    )


def _title(record: Operation) -> str:
    return summary(record).strip()
