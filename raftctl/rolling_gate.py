"""When the next step of a rolling operation may be taken: pure judgements on what status found.

A step waits until nothing else is wrong with the cluster. To restart a server is to stop it, so it
is counted as failed beforehand, together with those that are down already: a majority has to be
left. What a replacement needs of both halves of its joint configuration the leader judges itself.

Nothing here can be overridden: whoever wants a server stopped all the same can stop it.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs

from raftctl.render import name_list, number, plural
from raftd.cluster_status.operations import summary
from raftd.cluster_status.view import ClusterView, Row
from raftd.core.availability import survived_failures
from raftd.core.quorum import majority
from raftd.core.types import ServerId, server_name

_BEHIND = ("lagging", "applying")
"""Kinds of issues of a server that answers and has not got everything yet."""


@attrs.frozen(kw_only=True)
class Obstacle:
    """Why a step may not be taken, or is not finished, just now."""

    words: str
    unsafe: bool = False
    """Whether it is a matter of servers that are down, so that a quorum could be lost."""
    final: bool = False
    """Whether waiting cannot help."""
    hint: str = ""
    """What to do about it, where that is known."""
    marker: object = None
    """Changes whenever something has moved; None where `words` without their numbers tell that."""


def obstacle(
    cluster: ClusterView, name: str, *, stops: bool, leaving: Collection[str] = ()
) -> Obstacle | None:
    """Return what forbids the step of the server `name` now; None if it may be taken.

    Args:
        cluster: what every server says.
        name: of a member; it may be down itself.
        stops: whether the step stops it: a restart does, a replacement does not.
        leaving: names of others that are to be replaced as well: they may be down.
    """
    configuration = cluster.configuration
    if cluster.leader is None or configuration is None:
        silent = [row for row in cluster.rows if not row.reachable]
        who = f": {_down_words(silent)}" if silent else ""
        return Obstacle(words=f"no leader is confirmed by a quorum{who}", unsafe=bool(silent))
    operation = cluster.operation
    if operation is not None:
        record = operation.record
        return Obstacle(
            words=f"{record.id} ({summary(record)}) has to end first",
            marker=(record.phase, operation.step, operation.index),
        )
    if configuration.joint or not configuration.committed:
        return Obstacle(words=f"configuration {configuration.index} is not committed yet")
    members = [row for row in cluster.rows if row.member]
    if stops:
        lost = _quorum_lost(cluster, name, members)
        if lost is not None:
            return lost
    others = [row for row in members if row.name != name]
    down = [row for row in others if not row.alive and row.name not in leaving]
    if down:
        verb = "is" if len(down) == 1 else "are"
        # Those for whom the step need not wait: whoever looks for what is wrong has to see them.
        too = [row for row in members if not row.alive and row not in down]
        also = f"; so {'is' if len(too) == 1 else 'are'} {_down_words(too)}" if too else ""
        return Obstacle(
            words=f"{name_list(row.server for row in down)} {verb} down ({_down_words(down)})"
            f"{also}; the step of {name} waits until all others are up",
            unsafe=True,
            hint=_remedy(down),
        )
    return behind([row for row in others if row.alive])


def behind(rows: Collection[Row]) -> Obstacle | None:
    """Return that servers which answer have not got everything yet; None if all have."""
    late = [row for row in rows if any(issue.kind in _BEHIND for issue in row.issues)]
    if not late:
        return None
    words = "; ".join(
        f"{row.name}: {issue.words}"
        for row in late
        for issue in row.issues
        if issue.kind in _BEHIND
    )
    return Obstacle(words=words, marker=tuple(map(_how_far, late)))


def not_back(cluster: ClusterView, server: ServerId, index: int) -> Obstacle | None:
    """Return what is missing until a server that was restarted counts again; None if nothing is.

    Args:
        server: its identity `name/incarnation`: with another disk it is another one.
        index: what it has to have applied: all that was committed before.
    """
    name = server_name(server)
    row = next((row for row in cluster.rows if row.server == server and row.member), None)
    if row is None:
        return Obstacle(words=f"{name} is not a member any more", final=True)
    if row.issues and not row.alive:
        return Obstacle(words=f"{name}: {row.issues[0].words}", hint=_remedy([row]))
    if cluster.leader is None:
        return Obstacle(words="no leader is confirmed by a quorum")
    late = behind([row])
    if late is not None:
        return late
    applied = row.reply.applied_index if row.reply is not None else 0
    if applied < index:
        return Obstacle(
            words=f"{name} has applied {number(applied)} of {plural(index, 'entry', 'entries')}",
            marker=applied,
        )
    return None


def _quorum_lost(cluster: ClusterView, name: str, members: Collection[Row]) -> Obstacle | None:
    """Return that no majority would be left without the server `name`."""
    configuration = cluster.configuration
    assert configuration is not None
    voters = frozenset(configuration.voters)
    stopped = {row.server for row in members if row.name == name}
    dead = {row.server for row in members if not row.alive}
    if not stopped & voters or survived_failures([voters], dead | stopped) >= 0:
        return None
    left, needed = voters - dead - stopped, majority(len(voters))
    down = [row for row in members if row.server in dead - stopped and row.server in voters]
    also = f", since {_down_words(down)}" if down else ""
    too = [row for row in members if not row.alive and row not in down]
    if too:
        also += f"; {name_list(row.server for row in too)} {'is' if len(too) == 1 else 'are'} down "
        also += f"{'too ' if down else ''}({_down_words(too)})"
    return Obstacle(
        words=f"without {name} there would be no quorum: {name_list(left)} "
        f"{'are' if len(left) > 1 else 'is'} left of {plural(len(voters), 'voter')}, and "
        f"{needed} {'are' if needed > 1 else 'is'} needed{also}",
        unsafe=True,
        final=not down,
        hint=_remedy(down)
        if down
        else "raftctl add ID=HOST:PORT first: with three voters one may stop",
    )


def _how_far(row: Row) -> tuple[str, int, int]:
    return (
        row.server,
        row.peer.match_index if row.peer is not None else 0,
        row.reply.applied_index if row.reply is not None else 0,
    )


def _down_words(rows: Collection[Row]) -> str:
    return "; ".join(
        f"{row.name}: {row.issues[0].words}" if row.issues else row.name for row in rows
    )


def _remedy(rows: Collection[Row]) -> str:
    """Return what to do about servers that are down."""
    repairs = [
        next((", then ".join(issue.repair) for issue in row.issues if issue.repair), "")
        for row in rows
    ]
    if any(repairs):
        return "\n".join(dict.fromkeys(filter(None, repairs)))
    return f"start {name_list(row.server for row in rows)}" if rows else ""
