"""A leader that sends a snapshot: its followers are the test itself."""

from __future__ import annotations

from raftd.core.leader import Leader
from raftd.core.messages import AppendEntries, AppendEntriesResponse, Envelope
from raftd.core.progress import Progress
from raftd.core.snapshot import Snapshot
from raftd.core.status import PeerStatus
from tests.core.scenario import SNAPSHOT_BYTES, Solo, settled_leader


def leader(count: int = 6, **extra: object) -> Solo:
    """Return server 1 as a leader with `count` commands that only server 2 has acknowledged."""
    solo = settled_leader(**extra)
    for number in range(count):
        solo.give(lambda raft, number=number: raft.propose(b"%d" % number))  # type: ignore[misc]
    solo.acknowledge("2")
    assert solo.commit_index == solo.last_index
    return solo


def refuse(solo: Solo, source: str, last: int, **fields: int) -> list[Envelope]:
    """Have `source` refuse what it was asked last; its log ends at `last`."""
    asked = [
        e.message for e in solo.sent if e.dest == source and isinstance(e.message, AppendEntries)
    ][-1]
    response = AppendEntriesResponse(
        **{
            "term": solo.term,
            "success": False,
            "round": asked.round,
            "match_index": asked.prev_log_index,
            "commit_index": 0,
            "conflict_index": last + 1,
            "last_log_index": last,
            **fields,
        }  # type: ignore[arg-type]
    )
    return solo.give(lambda raft: raft.step(Envelope(source, "1", response)))


def sending(size_bytes: int = SNAPSHOT_BYTES, **extra: object) -> tuple[Solo, Snapshot]:
    """Return a leader that has to send a snapshot to server 3, which was away, and the snapshot."""
    solo = leader(**extra)
    snapshot = solo.compact(solo.commit_index, size_bytes=size_bytes)
    solo.give(lambda raft: raft.report_unreachable("3"))
    assert peer(solo).snapshot == snapshot.id
    return solo, snapshot


def peer(solo: Solo, server: str = "3") -> PeerStatus:
    return next(p for p in solo.raft.status().peers if p.server == server)


def role(solo: Solo) -> Leader:
    assert isinstance(solo.raft.role, Leader)
    return solo.raft.role


def progress(solo: Solo, server: str = "3") -> Progress:
    return role(solo).progress[server]
