"""The live events: made once a second while somebody looks, and sent to all who do.

A reader that does not keep up misses events, and none is kept for it: each event is whole. One that
takes none of them for a while is dropped (`raftd.http.serving`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import attrs
import trio

from raftd.cluster_status.members import display_names, members_of
from raftd.cluster_status.operations import summary
from raftd.cluster_status.view import ClusterView
from raftd.core.quorum import majority
from raftd.core.types import ServerId, server_name
from raftd.http.events import (
    EVENT_NAME,
    EVENT_SECONDS,
    FORMAT,
    RECENT_EVENTS_MAX,
    Half,
    Joint,
    Position,
    Rates,
    RecentEvent,
    StatusEvent,
    Viewer,
)
from raftd.http.health import Check
from raftd.http.serving import Bugs, Send
from raftd.http.survey import Sight, Survey
from raftd.protocol import ActivityReply, MajorityView, StatusReply

VIEWERS_MAX = 20
"""More people than look after a cluster at one time."""
HEARTBEAT_SECONDS = 5.0
"""A reader hears something at least so often, also while a server that hangs is waited for."""
RECONNECT_MS = 1_000
"""After which a browser that has lost us comes back."""
CONTENT_TYPE = "text/event-stream; charset=utf-8"


@attrs.frozen(kw_only=True)
class Own:
    """What a server says of itself for its own page."""

    status: Callable[[], StatusReply]
    activity: Callable[[], ActivityReply]
    readiness: Callable[[], Sequence[Check]]


class Feed:
    """Makes the events of one server and sends them to those who follow."""

    def __init__(self, survey: Survey, own: Own, *, address: str, http: str) -> None:
        """Follow nobody yet.

        Args:
            survey: how the cluster is.
            own: how this server is.
            address: HOST:PORT where it is dialled.
            http: HOST:PORT where it is browsed.
        """
        self._survey = survey
        self._own = own
        self._address, self._http = address, http
        self._bugs = Bugs()
        self._viewed = trio.Event()
        """Set while there are viewers."""
        self._made = trio.Event()
        """Set when there is a new event, and replaced then."""
        self._newest = b""
        self.viewer_count = 0

    @property
    def is_full(self) -> bool:
        """Whether nobody else can follow."""
        return self.viewer_count >= VIEWERS_MAX

    async def run(self) -> None:
        """Make events while somebody looks, until cancelled."""
        while True:
            await self._viewed.wait()
            began_at = trio.current_time()
            try:
                sight = await self._survey.look()
                self._newest = encode(self.event(sight))
            except Exception:
                # As for answers: nobody sees anything new, and the server goes on.
                self._bugs.tell("an event of the status page could not be made")
            else:
                self._made.set()
                self._made = trio.Event()
            await trio.sleep_until(began_at + EVENT_SECONDS)

    async def follow(self, send: Send) -> None:
        """Send every event from now on, until the reader leaves."""
        self.viewer_count += 1
        self._viewed.set()
        try:
            await send(f"retry: {RECONNECT_MS}\n\n".encode())
            while True:
                with trio.move_on_after(HEARTBEAT_SECONDS) as waited:
                    await self._made.wait()
                await send(b": still here\n\n" if waited.cancelled_caught else self._newest)
        finally:
            self.viewer_count -= 1
            if not self.viewer_count:
                self._viewed = trio.Event()

    def event(self, sight: Sight) -> StatusEvent:
        """Return the event of one moment."""
        own, activity = self._own.status(), self._own.activity()
        leading = sight.leader_activity
        if leading is not None and leading.server == activity.server:
            leading = None
        return StatusEvent(
            format=FORMAT,
            viewer=self._viewer(own),
            status=sight.document,
            joint=joint_of(sight.cluster),
            positions=positions_of(sight.cluster),
            rates=rates_of(activity, leading, sight.cluster),
            recent=recent_of(activity, leading),
        )

    def _viewer(self, own: StatusReply) -> Viewer:
        problems = [check.problem for check in self._own.readiness() if check.problem]
        return Viewer(
            id=server_name(own.server),
            address=self._address,
            http=self._http,
            version=own.version,
            time_ms=own.wall_clock_ms,
            uptime_ms=own.uptime_ms,
            ready=not problems,
            not_ready=problems,
        )


def encode(event: StatusEvent) -> bytes:
    """Return an event as it is sent: JSON has no line break, so it is one line of data."""
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"event: {EVENT_NAME}\ndata: {text}\n\n".encode()


def joint_of(cluster: ClusterView) -> Joint | None:
    """Return the configuration entry that is under way, with who has acknowledged it."""
    configuration, operation = cluster.configuration, cluster.operation
    if configuration is None:
        return None
    names = display_names(members_of(configuration))
    if operation is not None and operation.new is not None:
        return Joint(
            index=operation.index,
            operation=operation.record.id,
            summary=summary(operation.record),
            step=operation.step,
            old=_counted(operation.old, names) if operation.old is not None else None,
            new=_counted(operation.new, names),
            blocked_by=operation.blocked_by,
        )
    if not configuration.joint:
        return None
    return Joint(
        index=configuration.index,
        operation=operation.record.id if operation is not None else None,
        summary=summary(operation.record) if operation is not None else "",
        step=operation.step if operation is not None else "joint",
        old=_uncounted(configuration.outgoing, names),
        new=_uncounted(configuration.voters, names),
        blocked_by=operation.blocked_by if operation is not None else "",
    )


def _counted(half: MajorityView, names: dict[ServerId, str]) -> Half:
    return Half(
        servers=[names.get(server, server) for server in half.servers],
        acknowledged=[names.get(server, server) for server in half.acknowledged],
        needed=half.needed,
        complete=len(half.acknowledged) >= half.needed,
    )


def _uncounted(half: Sequence[ServerId], names: dict[ServerId, str]) -> Half:
    return Half(
        servers=[names[server] for server in half],
        acknowledged=None,
        needed=majority(len(half)),
        complete=False,
    )


def positions_of(cluster: ClusterView) -> list[Position]:
    """Return where the log of each server is."""
    return [
        Position(
            id=row.name,
            reachable=row.reachable,
            leader=(leads := _leads(cluster, row.reply)),
            first_index=row.reply.first_index if row.reply else None,
            snapshot_index=row.reply.snapshot_index if row.reply else None,
            applied_index=row.reply.applied_index if row.reply else None,
            commit_index=row.reply.commit_index if row.reply else None,
            last_index=row.reply.last_index if row.reply else None,
            match_index=(
                row.reply.last_index
                if leads and row.reply
                else row.peer.match_index
                if row.peer
                else None
            ),
            snapshot_bytes=(row.peer.snapshot_bytes or None) if row.peer else None,
            snapshot_received_bytes=(
                row.peer.snapshot_received_bytes if row.peer and row.peer.snapshot_bytes else None
            ),
            snapshot_installed_bytes=(
                row.peer.snapshot_installed_bytes if row.peer and row.peer.snapshot_bytes else None
            ),
            bytes_per_second=(row.peer.catch_up_bytes_per_second or None) if row.peer else None,
            http=(row.reply.http or None) if row.reply else None,
        )
        for row in cluster.rows
    ]


def _leads(cluster: ClusterView, reply: StatusReply | None) -> bool:
    leader = cluster.leader
    return leader is not None and reply is not None and reply.server == leader.server


def rates_of(own: ActivityReply, leading: ActivityReply | None, cluster: ClusterView) -> Rates:
    """Return the rates of the leader where it keeps them, else those of the server itself."""
    # A leader without an HTTP listener keeps none.
    source = leading if leading is not None and leading.last_ms else own
    leader = cluster.leader
    return Rates(
        source=server_name(source.server),
        is_leader=leader is not None and source.server == leader.server,
        interval_ms=source.interval_ms,
        last_ms=source.last_ms,
        commits_per_second=list(source.commits_per_second),
        commit_p50_ms=list(source.commit_p50_ms),
        commit_p99_ms=list(source.commit_p99_ms),
    )


def recent_of(own: ActivityReply, leading: ActivityReply | None) -> list[RecentEvent]:
    """Return the latest events of the server itself and of the leader, by their times.

    Configurations come to every server: they are told once, as the leader has seen them.
    """
    found = [
        RecentEvent(
            time_ms=notice.time_ms,
            server=server_name(activity.server),
            kind=notice.kind,
            text=notice.text,
        )
        for activity in (own, leading)
        if activity is not None
        for notice in activity.notices
        if activity is leading or leading is None or notice.kind != "configuration"
    ]
    return sorted(found, key=lambda event: event["time_ms"])[-RECENT_EVENTS_MAX:]
