"""Watching: clients that wait for changes of keys, and get each of them once and in order.

A client asks for the changes behind a revision. It is answered as soon as there are any, or after
the time that it is ready to wait, and always told which revision to ask for next, here or at any
other server: a revision names the same change everywhere. What this server does not have any more
is an error that says so, never a gap.

Source: after the revisions and watches of etcd's third API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

from raftd.core.raft import Raft
from raftd.portions import Portions
from raftd.protocol import (
    REVISION_GONE,
    ErrorReply,
    EventView,
    Reply,
    WatchReply,
    WatchRequest,
)
from raftd.replies import unavailable
from raftd.storage.events import PUT_EVENT, Event
from raftd.storage.state import StateMachine

WATCHES_MAX = 512
"""Requests that wait at once. A change is looked at once for all of them, as far as their prefixes
have the same length, and they are looked at only if it concerns any."""
WATCH_BYTES_MAX = 4 * 1024 * 1024
"""Keys and values of one reply: half a frame, so that the rest of each event fits too."""
LOOKED_BYTES = 64
"""What each change counts that is looked at for one request: to look at all that are kept takes as
long as a long answer, also where none of them concerns it."""

Respond: TypeAlias = Callable[[Reply], None]


@attrs.define
class _Watch:
    """A request that waits."""

    prefix: bytes
    after_revision: int
    """Up to here nothing has come for it."""
    limit: int
    deadline_tick: int
    respond: Respond


class Watches:
    """Those who wait for changes at one server."""

    def __init__(
        self, state: StateMachine, ticks: Callable[[float], int], portions: Portions
    ) -> None:
        """Begin without any.

        Args:
            ticks: returns how many ticks a number of milliseconds has.
            portions: of the turns, for answers of any length.
        """
        self._portions = portions
        self._state = state
        self._ticks = ticks
        self.waiting: list[_Watch] = []
        """Requests that were not answered yet."""
        self._looked_revision = 0
        """Up to here there is nothing for any of them."""
        self._goes_on = False
        """Whether some are to be answered in the next turn."""

    def request(self, raft: Raft, request: WatchRequest, respond: Respond) -> None:
        """Answer now or later, exactly once."""
        self._portions.do(lambda: self._begin(raft, request, respond))

    def _begin(self, raft: Raft, request: WatchRequest, respond: Respond) -> None:
        watch = _Watch(
            request.prefix.encode(),
            request.after_revision,
            request.limit,
            raft.now + self._ticks(request.wait_ms),
            respond,
        )
        if self._answer(watch, raft):
            return
        if not request.wait_ms:
            self._end(watch, raft)
        elif len(self.waiting) >= WATCHES_MAX:
            why = f"{WATCHES_MAX} requests wait for changes here already"
            respond(unavailable("too many watch", why))
        else:
            if not self.waiting:
                self._looked_revision = self._state.revision
            self.waiting.append(watch)

    def changed(self, raft: Raft) -> None:
        """Answer those for whom something has come. To be called while anybody waits."""
        ring, looked_revision = self._state.events, self._looked_revision
        self._looked_revision = revision = ring.revision
        waiting, self.waiting = self.waiting, []
        concerned = {watch.prefix for watch in waiting}
        if looked_revision >= ring.oldest_revision - 1:
            concerned = ring.prefixes_of(looked_revision, concerned)
        for watch in waiting:
            if watch.prefix not in concerned:
                watch.after_revision = max(watch.after_revision, revision)
                self.waiting.append(watch)
            elif self._portions.is_spent:
                self._looked_revision = looked_revision
                self.waiting.append(watch)
            elif not self._answer(watch, raft):
                self.waiting.append(watch)
        if self._looked_revision < revision and not self._goes_on:
            self._goes_on = True
            self._portions.do(lambda: self._go_on(raft))

    def _go_on(self, raft: Raft) -> None:
        self._goes_on = False
        if self.waiting:
            self.changed(raft)

    def tick(self, raft: Raft) -> None:
        """Answer those who have waited for long enough. To be called while anybody waits."""
        waiting, self.waiting = self.waiting, []
        for watch in waiting:
            if raft.now < watch.deadline_tick:
                self.waiting.append(watch)
            else:
                self._end(watch, raft)

    def _answer(self, watch: _Watch, raft: Raft) -> bool:
        """Answer if there is something to say; return whether there was."""
        ring = self._state.events
        if watch.after_revision < ring.oldest_revision - 1:
            watch.respond(revision_gone(watch.after_revision, ring.oldest_revision))
            return True
        before = watch.after_revision
        events, watch.after_revision = ring.after(
            before, watch.prefix, watch.limit, WATCH_BYTES_MAX
        )
        self._portions.spend(LOOKED_BYTES * (watch.after_revision - before), 0)
        if events:
            watch.respond(self._reply(watch, events, raft))
        return bool(events)

    def _end(self, watch: _Watch, raft: Raft) -> None:
        watch.respond(self._reply(watch, [], raft))

    def _reply(self, watch: _Watch, events: list[Event], raft: Raft) -> WatchReply:
        content_bytes = sum([len(event.key) + len(event.value) for event in events])
        self._portions.spend(content_bytes, 1 + len(events))
        return WatchReply(
            events=tuple(map(_view, events)),
            next_after_revision=watch.after_revision,
            revision=self._state.revision,
            leader=raft.leader_id or "",
        )


def _view(event: Event) -> EventView:
    return EventView(
        revision=event.revision,
        kind=event.kind,
        key=event.key,
        value=event.value,
        create_revision=event.create_revision,
        mod_revision=event.revision if event.kind == PUT_EVENT else 0,
        version=event.version,
    )


def revision_gone(after_revision: int, oldest_revision: int) -> ErrorReply:
    """Return the answer to whoever asks for changes that are not kept any more."""
    return ErrorReply(
        code=REVISION_GONE,
        message=f"the changes from revision {after_revision + 1:,} on are not all kept any more",
        cause="a server keeps the last changes only, since its start at most; the oldest one here "
        f"has revision {oldest_revision:,}",
        hint="read the keys as they are, `raftctl list`, and watch from the revision of that",
        oldest_revision=oldest_revision,
    )
