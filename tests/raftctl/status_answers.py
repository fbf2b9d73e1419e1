"""What servers answer in the tests of status, what-if and wait: made up, and quick to vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftd.cluster_status.answers import Answer
from raftd.cluster_status.document import document
from raftd.cluster_status.view import ClusterView
from raftd.commands import Operation, PhaseAt, Plan
from raftd.protocol import ConfigurationView, OperationView, PeerView, StatusReply

CLUSTER_ID = "a02e17c4d5"


def address_of(server: str) -> str:
    return f"127.0.0.1:71{int(server.partition('/')[0][1:]):02d}"


def configuration(
    voters: str,
    *,
    outgoing: str = "",
    learners: str = "",
    index: int = 40,
    committed: bool = True,
    addresses: dict[str, str] | None = None,
) -> ConfigurationView:
    sets = [tuple(names.split()) for names in (voters, outgoing, learners)]
    members = {server for names in sets for server in names}
    return ConfigurationView(
        index=index,
        committed=committed,
        joint=bool(outgoing),
        voters=sets[0],
        outgoing=sets[1],
        learners=sets[2],
        addresses=addresses or {server: address_of(server) for server in sorted(members)},
    )


THREE = configuration("n1/a n2/b n3/c")
FIVE = configuration("n1/a n2/b n3/c n4/d n5/e")


def peer(server: str, **fields: Any) -> PeerView:
    known: dict[str, Any] = {
        "match_index": 100,
        "lag_entries": 0,
        "last_contact_ms": 12.0,
        "caught_up": True,
        "rounds": 3,
        "connected": True,
    }
    return PeerView(server=server, **(known | fields))


def reply(server: str, known: ConfigurationView | None, **fields: Any) -> StatusReply:
    stated: dict[str, Any] = {
        "version": "0.1.0",
        "cluster_id": CLUSTER_ID,
        "cluster_name": "orders",
        "role": "follower",
        "term": 7,
        "leader": "n1/a",
        "leader_address": "127.0.0.1:7101",
        "leadership_confirmed": False,
        "first_index": 1,
        "last_index": 100,
        "commit_index": 100,
        "applied_index": 100,
        "snapshot_index": 0,
        "revision": 60,
        "heartbeat_interval_ms": 50.0,
        "election_timeout_ms": 500.0,
    }
    return StatusReply(server=server, configuration=known, **(stated | fields))


def leader(known: ConfigurationView, server: str = "n1/a", **fields: Any) -> StatusReply:
    members = {*known.voters, *known.outgoing, *known.learners}
    stated: dict[str, Any] = {
        "role": "leader",
        "leader": server,
        "leadership_confirmed": True,
        "peers": tuple(peer(other) for other in sorted(members - {server})),
    }
    return reply(server, known, **(stated | fields))


def blank(server: str) -> StatusReply:
    return reply(
        server,
        None,
        cluster_id="",
        cluster_name="",
        role="blank",
        term=0,
        leader="",
        last_index=0,
        commit_index=0,
        applied_index=0,
        revision=0,
    )


def answers(*replies: StatusReply, silent: Sequence[str] = ()) -> list[Answer]:
    """Return the survey of a cluster file that lists exactly these servers."""
    found = [
        Answer(address=address_of(each.server), name=each.server[:2], listed=True, reply=each)
        for each in replies
    ]
    return found + [
        Answer(
            address=address_of(name),
            name=name,
            listed=True,
            reply=None,
            failure="connection refused",
        )
        for name in silent
    ]


def all_of(known: ConfigurationView) -> list[StatusReply]:
    followers = sorted({*known.voters, *known.outgoing, *known.learners} - {"n1/a"})
    return [
        leader(known),
        *(
            reply(each, known, role="learner" if each in known.learners else "follower")
            for each in followers
        ),
    ]


def rows(cluster: ClusterView) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in document(cluster)["servers"]}


def operation(phase: str = "joint", result: str = "") -> OperationView:
    record = Operation(
        id="op-17",
        kind="replace",
        author="bob@desk",
        reason="disk is old",
        plan=Plan(
            changes=(("voter", "n4/d"), ("remove", "n3/c")),
            joint=True,
            configuration_index=30,
            voters_before=("n1/a", "n2/b", "n3/c"),
            voters_after=("n1/a", "n2/b", "n4/d"),
        ),
        phase=phase,
        result=result,
        phases=(PhaseAt(phase="joining", index=31, time_ms=1_700_000_000_000),),
    )
    return OperationView(record=record, step="committing-joint")


JOINT = configuration("n1/a n2/b n4/d", outgoing="n1/a n2/b n3/c", index=91_377)
