"""What doctor is told in tests: made up, and quick to vary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raftctl.doctor import CHECKS
from raftctl.examining import Examination, Target, Visit, targets_of
from raftctl.findings import Finding, Result
from raftd.cluster_status.answers import Answer
from raftd.cluster_status.view import view
from raftd.config import ClusterConfig, load
from raftd.protocol import (
    ConfigurationView,
    OperationView,
    PeerView,
    ReachView,
    StatusReply,
)

CLUSTER_ID = "a02e17c4-0000"
NOW_MS = 1_700_000_000_000
PASS, WARN, FAIL, SKIP = Result.PASS, Result.WARN, Result.FAIL, Result.SKIP
MIB = 1 << 20


def address_of(server: str) -> str:
    return f"10.0.0.{server.partition('/')[0][1:]}:7100"


def configuration(
    voters: str, *, outgoing: str = "", learners: str = "", addresses: Mapping[str, str] = {}
) -> ConfigurationView:
    sets = [tuple(names.split()) for names in (voters, outgoing, learners)]
    members = sorted({server for names in sets for server in names})
    return ConfigurationView(
        index=40,
        committed=True,
        joint=bool(outgoing),
        voters=sets[0],
        outgoing=sets[1],
        learners=sets[2],
        addresses={server: addresses.get(server, address_of(server)) for server in members},
    )


ONE = configuration("n1/a")
TWO = configuration("n1/a n2/b")
THREE = configuration("n1/a n2/b n3/c")
FOUR = configuration("n1/a n2/b n3/c n4/d")
FIVE = configuration("n1/a n2/b n3/c n4/d n5/e")


def status(server: str, known: ConfigurationView | None, **fields: Any) -> StatusReply:
    """Return what a healthy member says; n1 leads."""
    leads = server == "n1/a"
    members = {*known.voters, *known.outgoing, *known.learners} if known is not None else set()
    stated: dict[str, Any] = {
        "version": "0.1.0",
        "cluster_id": CLUSTER_ID,
        "cluster_name": "orders",
        "role": "leader" if leads else "follower",
        "term": 7,
        "leader": "n1/a",
        "leader_address": address_of("n1/a"),
        "leadership_confirmed": leads,
        "first_index": 1,
        "last_index": 100,
        "commit_index": 100,
        "applied_index": 100,
        "snapshot_index": 0,
        "revision": 60,
        "heartbeat_interval_ms": 50.0,
        "election_timeout_ms": 500.0,
        "uptime_ms": 60_000,
        "protocol_version_max": 3,
        "features": 3,
        "wall_clock_ms": NOW_MS,
        "log_bytes": MIB,
        "snapshot_bytes": 2 * MIB,
        "state_bytes": 3 * MIB,
        "disk_free_bytes": 100 << 30,
        "disk_reserve_bytes": 256 * MIB,
        "sync_p50_ms": 0.8,
        "sync_p99_ms": 4.0,
    }
    if leads:
        stated["peers"] = tuple(
            PeerView(
                server=other,
                match_index=100,
                lag_entries=0,
                last_contact_ms=12.0,
                caught_up=True,
                rounds=3,
                connected=True,
            )
            for other in sorted(members - {server})
        )
    return StatusReply(server=server, configuration=known, **(stated | fields))


def blank(server: str) -> StatusReply:
    return status(
        server,
        None,
        cluster_id="",
        cluster_name="",
        role="blank",
        term=0,
        leader="",
        leadership_confirmed=False,
        features=0,
    )


Reaches = Callable[[str, Target], ReachView | None]
"""What a server finds at a target; None for what is usual."""


def usual_reach(target: Target, replies: Mapping[str, StatusReply]) -> ReachView:
    reply = replies.get(target.address)
    if reply is None:
        problem = f"connecting to {target.address}: connection refused"
        return ReachView(address=target.address, problem=problem)
    return ReachView(
        address=target.address, server=reply.server, cluster_id=CLUSTER_ID, round_trip_ms=1.25
    )


def examination(
    *replies: StatusReply,
    silent: Sequence[str] = (),
    config: ClusterConfig | None = None,
    reaches: Reaches = lambda source, target: None,
    at: Mapping[str, str] = {},
    ahead_ms: Mapping[str, float] = {},
    operations: tuple[OperationView, ...] = (),
    failure: str = "connection refused",
) -> Examination:
    """Return what an examination would find: everybody reaches whoever answers.

    Args:
        replies: the answers of the servers.
        silent: servers that do not answer, `name/incarnation`.
        reaches: what servers find that is not usual.
        at: where a server answers, if not at its usual address.
        ahead_ms: how far clocks are ahead.
        operations: what the leader tells.
        failure: why the silent ones do not answer us.
    """
    answers = [
        Answer(
            address=at.get(reply.server, address_of(reply.server)),
            name=reply.server.partition("/")[0],
            listed=True,
            reply=reply,
        )
        for reply in replies
    ]
    answers += [
        Answer(
            address=address_of(server),
            name=server.partition("/")[0],
            listed=True,
            reply=None,
            failure=failure,
        )
        for server in silent
    ]
    cluster = view(answers, "orders")
    targets = targets_of(cluster)
    by_address = {answer.address: answer.reply for answer in answers if answer.reply is not None}
    visits = {}
    for target in targets:
        row = next(row for row in cluster.rows if row.server == target.server)
        if row.reply is None:
            continue
        visits[target.server] = Visit(
            server=target.server,
            address=at.get(target.server, target.address),
            status=row.reply,
            round_trip_ms=0.5,
            clock_ahead_ms=ahead_ms.get(target.name, 0.0),
            reaches=tuple(
                reaches(target.name, other) or usual_reach(other, by_address) for other in targets
            ),
            operations=operations if row.reply is cluster.source else (),
        )
    return Examination(
        cluster=cluster,
        answers=tuple(answers),
        targets=targets,
        visits=visits,
        config=config,
        now_ms=NOW_MS,
    )


def members(known: ConfigurationView, **of: dict[str, Any]) -> list[StatusReply]:
    """Return what all members say; `n2={...}` changes what n2 says."""
    every = sorted({*known.voters, *known.outgoing, *known.learners})
    return [status(server, known, **of.get(server.partition("/")[0], {})) for server in every]


def findings(found: Examination, check: str) -> list[Finding]:
    return CHECKS[check](found)


def only(found: Examination, check: str) -> Finding:
    (finding,) = findings(found, check)
    return finding


def file_of(tmp_path: Path, servers: Mapping[str, str], name: str = "orders") -> ClusterConfig:
    """Return a cluster file in which each server has these keys."""
    path = tmp_path / "cluster.yaml"
    lines = [f"cluster: {name}", "insecure: true", "servers:"]
    path.write_text("\n".join([*lines, *(f"  {key}: {{{keys}}}" for key, keys in servers.items())]))
    return load(path)


def as_in_log(*names: str, more: str = "") -> dict[str, str]:
    return {name: f"address: '{address_of(name)}'{more}" for name in names}


def silence(target: Target) -> ReachView:
    return ReachView(
        address=target.address, problem=f"connecting to {target.address}: no answer for 2.0 s"
    )


def blocked(*ways: tuple[str, str]) -> Reaches:
    return lambda source, target: silence(target) if (source, target.name) in ways else None


OLD = {"version": "0.0.9", "protocol_version_max": 2, "features": 0}
