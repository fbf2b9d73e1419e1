"""`AsyncClient`: the keys of a cluster, for programs that run on trio.

Any number of tasks may use one client at once. They share a connection to the leader, on which many
requests are on their way at the same time, one session, and what is known of the cluster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from raftd.client.blocking_client import TIMEOUT_MS_DEFAULT, checked_addresses
from raftd.client.calls import Ask, Calls, FindSession, Pause, Steps, check_before_asking
from raftd.client.deadlines import Deadline
from raftd.client.errors import (
    Busy,
    ClientClosed,
    ConnectionProblem,
    OutcomeUnknown,
    Unavailable,
)
from raftd.client.keys import PAGE_ENTRIES, KeyCalls
from raftd.client.links import Link, open_link
from raftd.client.members import Members
from raftd.client.pending import PendingEvents
from raftd.client.results import KeyEvent, KeyValue, Page, TransactionResult, WriteResult
from raftd.client.sessions import Session
from raftd.config_values import format_duration
from raftd.protocol import StatusReply
from raftd.transactions import Step

if TYPE_CHECKING:
    import ssl
    from typing import Self

REQUESTS_MAX_DEFAULT = 128
"""Calls under way at once; a server takes 256 unanswered requests of one connection."""
WATCHES_MAX = 32
"""Watches that wait for changes at the same time."""
REQUESTS_MAX_MAX = 160
"""With watches, and with those whose askers have gone, they are no more than that."""
SEARCH_WAIT_MS = 1_000.0
"""While there is no leader, one call looks for it and the others wait for that one, but no longer
than this at a time: it may be kept by something that concerns nobody else."""

Value = TypeVar("Value")


class AsyncClient:
    """A cluster, for programs that run on trio; any number of tasks may use it at once.

    Finds the leader, follows it, and outlives the servers that it was given. Each call tries until
    it has an answer or its time is over; a write is done exactly once, however often it has to be
    sent. Calls that are under way at the same time are done in any order.

    A call that is cancelled raises `Cancelled`, and a write that it had sent may or may not be
    done. Give it a `timeout_ms` instead where that matters: then it ends with an `OutcomeUnknown`,
    which can be settled.

        async with AsyncClient(["127.0.0.1:7101", "127.0.0.1:7102"]) as client:
            await client.put("orders/17", b"packed")
            found = await client.get("orders/17")

    Args:
        addresses: HOST:PORT of some servers, at least one; those of the other members are learned.
        timeout_ms: for each call that has none of its own, in milliseconds; 0 means for ever.
        tls: how to protect connections; None for not at all.
        requests_max: calls under way at once, 1 to 160; more wait for their turn, as long as their
            time lasts.

    Raises:
        ValueError: no address, something that is none, or a number out of its range.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        timeout_ms: float = TIMEOUT_MS_DEFAULT,
        tls: ssl.SSLContext | None = None,
        requests_max: int = REQUESTS_MAX_DEFAULT,
    ) -> None:
        if not 1 <= requests_max <= REQUESTS_MAX_MAX:
            raise ValueError(f"requests_max is 1 to {REQUESTS_MAX_MAX}, not {requests_max}")
        self._timeout_ms = timeout_ms
        self._tls = tls
        self._members = Members(checked_addresses(addresses))
        self._calls = Calls(self._members, clock=trio.current_time)
        self._keys = KeyCalls(self._calls)
        self._places = trio.Semaphore(requests_max)
        self._watch_places = trio.Semaphore(WATCHES_MAX)
        self._links: dict[str, Link] = {}
        self._dialling: dict[str, trio.Lock] = {}
        self._session: Session | None = None
        self._opening = trio.Lock()
        self._search: trio.Event | None = None
        """Set when the call that looks for a leader has ended; None while none does."""
        self._nurseries: Any = None
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> Self:
        assert self._nurseries is None, "a client is entered once"
        self._nurseries = trio.open_nursery()
        self._nursery = await self._nurseries.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Close all connections. Calls of other tasks end with `ClientClosed` or as unknown."""
        assert self._nursery is not None
        scope, self._nursery = self._nursery.cancel_scope, None
        for link in self._links.values():
            link.close()
        scope.cancel()
        try:
            suppressed: bool | None = await self._nurseries.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # What the block itself has raised leaves it as it is, not as one of a group.
            if error is not None and group.exceptions == (error,):
                return False
            raise
        return suppressed

    # --- reading ---

    async def get(
        self, key: str, *, stale: bool = False, timeout_ms: float | None = None
    ) -> KeyValue | None:
        """Return `key`; None if it is not there. See `Client.get`."""
        deadline = self._deadline(timeout_ms)
        return await self._perform(self._keys.get(key, deadline, stale=stale), deadline)

    def list(
        self,
        prefix: str = "",
        *,
        after: str = "",
        page_size: int = PAGE_ENTRIES,
        stale: bool = False,
        timeout_ms: float | None = None,
    ) -> _Entries:
        """Return an asynchronous iterator over the keys that begin with `prefix`, in order.

            async for found in client.list("orders/"):
                print(found.key, found.value)

        See `Client.list`.
        """
        pages = self.pages(
            prefix, after=after, page_size=page_size, stale=stale, timeout_ms=timeout_ms
        )
        return _Entries(pages)

    def pages(
        self,
        prefix: str = "",
        *,
        after: str = "",
        page_size: int = PAGE_ENTRIES,
        stale: bool = False,
        timeout_ms: float | None = None,
    ) -> _Pages:
        """Return an asynchronous iterator over the same page by page. See `Client.pages`."""
        return _Pages(self, prefix, after, page_size, stale, timeout_ms)

    async def page(
        self,
        prefix: str = "",
        *,
        after: str = "",
        page_size: int = PAGE_ENTRIES,
        stale: bool = False,
        timeout_ms: float | None = None,
    ) -> Page:
        """Return the first page of `pages`."""
        deadline = self._deadline(timeout_ms)
        steps = self._keys.page(prefix, deadline, after=after, limit=page_size, stale=stale)
        return await self._perform(steps, deadline)

    async def status(self, *, timeout_ms: float | None = None) -> StatusReply:
        """Return the leader's own view of the cluster. See `Client.status`."""
        deadline = self._deadline(timeout_ms)
        return await self._perform(self._calls.leader_status(deadline), deadline)

    # --- writing ---

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        if_absent: bool = False,
        if_revision: int | None = None,
        ttl_ms: int | None = None,
        timeout_ms: float | None = None,
    ) -> WriteResult:
        """Set `key` to `value`, once. See `Client.put`."""
        deadline = self._deadline(timeout_ms)
        steps = self._keys.put(
            key, value, deadline, if_absent=if_absent, if_revision=if_revision, ttl_ms=ttl_ms
        )
        return await self._perform(steps, deadline)

    async def delete(self, key: str, *, timeout_ms: float | None = None) -> WriteResult:
        """Remove `key`, once; `applied` says whether it was there. See `Client.delete`."""
        deadline = self._deadline(timeout_ms)
        return await self._perform(self._keys.delete(key, deadline), deadline)

    async def compare_and_set(
        self, key: str, expected: bytes, value: bytes, *, timeout_ms: float | None = None
    ) -> WriteResult:
        """Set `key` to `value`, once, if its value is `expected`. See `Client.compare_and_set`."""
        deadline = self._deadline(timeout_ms)
        steps = self._keys.compare_and_set(key, expected, value, deadline)
        return await self._perform(steps, deadline)

    async def increment(self, key: str, by: int = 1, *, timeout_ms: float | None = None) -> int:
        """Add to the number that is the value of `key`, once. See `Client.increment`."""
        deadline = self._deadline(timeout_ms)
        return await self._perform(self._keys.increment(key, by, deadline), deadline)

    async def transaction(
        self,
        steps: Sequence[Step],
        conditions: Mapping[str, int] | None = None,
        *,
        timeout_ms: float | None = None,
    ) -> TransactionResult:
        """Carry out `steps`, once, if all conditions hold. See `Client.transaction`."""
        deadline = self._deadline(timeout_ms)
        return await self._perform(
            self._keys.transaction(steps, conditions or {}, deadline), deadline
        )

    # --- watching ---

    def watch(
        self,
        prefix: str = "",
        *,
        after_revision: int | None = None,
        idle_ms: float = 0,
        timeout_ms: float | None = None,
    ) -> AsyncWatch:
        """Return an asynchronous iterator over changes of keys that begin with `prefix`.

            async for event in client.watch("orders/"):
                print(event.kind, event.key, event.value)

        Without `after_revision` it begins with the changes that come after the first step of the
        iteration. See `Client.watch`.
        """
        return AsyncWatch(self, prefix, after_revision, idle_ms, timeout_ms)

    async def _revision(self, timeout_ms: float | None) -> int:
        deadline = self._deadline(timeout_ms)
        return await self._perform(self._keys.revision(deadline), deadline)

    async def _changes(
        self, prefix: str, after_revision: int, wait_ms: int, timeout_ms: float | None
    ) -> tuple[tuple[KeyEvent, ...], int]:
        deadline = self._deadline(timeout_ms).later_by_ms(wait_ms)
        steps = self._keys.changes(prefix, after_revision, wait_ms, deadline)
        return await self._perform(steps, deadline, self._watch_places)

    # --- settling ---

    async def settle(self, unknown: OutcomeUnknown, *, timeout_ms: float | None = None) -> Any:
        """Have done, exactly once, the write that ended with `unknown`; return what it returns.

        See `Client.settle`.
        """
        deadline = self._deadline(timeout_ms)
        return await self._perform(self._keys.settle(unknown, deadline), deadline)

    # --- driving ---

    def _deadline(self, timeout_ms: float | None) -> Deadline:
        within_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        return Deadline.after_ms(within_ms, trio.current_time)

    async def _perform(
        self, steps: Steps[Value], deadline: Deadline, places: trio.Semaphore | None = None
    ) -> Value:
        """Take `steps` one after the other, when it is their turn, and return what they come to."""
        places = places or self._places
        await trio.lowlevel.checkpoint()
        started_s = trio.current_time()
        with _until(deadline) as waiting:
            await places.acquire()
        if waiting.cancelled_caught:
            waited = format_duration(max(1, round(1000 * (trio.current_time() - started_s))))
            raise Busy(
                f"it was not its turn within {waited} (nothing was changed)",
                cause="as many calls as this client makes at once are under way",
            )
        try:
            return await self._drive(steps)
        finally:
            places.release()

    async def _drive(self, steps: Steps[Value]) -> Value:
        search: trio.Event | None = None
        try:
            while True:
                try:
                    if self._nursery is None:
                        step = steps.throw(ClientClosed("the client is closed"))
                    else:
                        step = next(steps)
                except StopIteration as end:
                    result: Value = end.value
                    return result
                if isinstance(step, Ask):
                    await self._ask(step)
                elif isinstance(step, FindSession):
                    # Whoever opens it looks for the leader, too.
                    self._end_search(search)
                    search = None
                    step.session = await self._find_session(step.deadline)
                elif search is not None or self._search is None:
                    if search is None:
                        search = self._search = trio.Event()
                    await self._pause(step)
                else:
                    await self._wait_for_search(step.deadline)
        finally:
            self._end_search(search)
            # The call may have to note that nobody waits for it any more.
            steps.close()

    def _end_search(self, search: trio.Event | None) -> None:
        """Let the others go on if it was this call that looked for the leader."""
        if search is not None:
            search.set()
            self._search = None

    async def _pause(self, step: Pause) -> None:
        with _until(step.deadline):
            await trio.sleep(step.duration_ms / 1000)

    async def _wait_for_search(self, deadline: Deadline) -> None:
        assert self._search is not None
        with _until(deadline.or_after_ms(SEARCH_WAIT_MS)):
            await self._search.wait()

    async def _ask(self, step: Ask) -> None:
        try:
            link = await self._link_for(step)
            step.reply = await link.ask(step)
        except ConnectionProblem as problem:
            step.problem = problem

    async def _link_for(self, step: Ask) -> Link:
        """Return the link to whom `step` asks, opened if there is none."""
        address = step.address
        link = self._links.get(address)
        if link is None or link.closed:
            deadline = step.deadline.or_after_ms(step.connect_timeout_ms)
            if deadline.expired:
                raise ConnectionProblem(address, "expired", "not asked in time")
            started_s = trio.current_time()
            with _until(deadline) as dialling:
                link = await self._open_link(address)
            if dialling.cancelled_caught or link is None:
                waited_ms = max(1, round(1000 * (trio.current_time() - started_s)))
                reason = f"no connection within {format_duration(waited_ms)}"
                raise ConnectionProblem(address, "timed-out", reason)
        problem = check_before_asking(address, link.welcome, step.request)
        if problem is not None:
            # It may belong to the cluster, or be of another release, a moment later: it has to
            # greet us anew the next time.
            link.close()
            raise problem
        return link

    async def _open_link(self, address: str) -> Link:
        async with self._dialling.setdefault(address, trio.Lock()):
            link = self._links.get(address)
            if link is not None and not link.closed:
                # Somebody else has opened it meanwhile.
                return link
            link = await open_link(address, self._tls)
            try:
                self._members.admit(address, link.welcome)
                if self._nursery is None:
                    raise ConnectionProblem(address, "lost", "the client was closed")
            except ConnectionProblem:
                await link.discard()
                raise
            self._nursery.start_soon(link.run)
            self._links[address] = link
            return link

    async def _find_session(self, deadline: Deadline) -> Session:
        """Return a session that takes writes; one call opens it for all that wait."""
        with _until(deadline) as waiting:
            await self._opening.acquire()
        if waiting.cancelled_caught:
            raise Unavailable(
                "no session was opened in time (nothing was changed)",
                cause="another call of this client tries to, and has no answer",
            )
        try:
            if self._session is None or not self._session.usable:
                self._session = await self._drive(self._calls.open_session(deadline))
            return self._session
        finally:
            self._opening.release()


def _until(deadline: Deadline) -> trio.CancelScope:
    """Return a scope that ends at `deadline`, which is one of trio's clock."""
    return trio.move_on_at(math.inf if deadline.at_s is None else deadline.at_s)


class AsyncWatch:
    """Changes of keys, one after the other. `after_revision` says how far it has come."""

    def __init__(
        self,
        client: AsyncClient,
        prefix: str,
        after_revision: int | None,
        idle_ms: float,
        timeout_ms: float | None,
    ) -> None:
        self.after_revision = after_revision
        """All changes up to here have been returned; None before the first step."""
        self._client = client
        self._prefix = prefix
        self._idle_ms = idle_ms
        self._timeout_ms = timeout_ms
        self._pending: PendingEvents | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> KeyEvent:
        pending = self._pending
        if pending is None:
            after_revision = self.after_revision
            if after_revision is None:
                after_revision = await self._client._revision(self._timeout_ms)
            pending = self._pending = PendingEvents(after_revision, self._idle_ms)
            self.after_revision = after_revision
        while not pending.events:
            if pending.idle_is_over(trio.current_time()):
                raise StopAsyncIteration
            pending.take(
                *await self._client._changes(
                    self._prefix,
                    pending.asked_after,
                    pending.wait_ms(trio.current_time()),
                    self._timeout_ms,
                )
            )
            self.after_revision = pending.reached
        event = pending.next()
        self.after_revision = pending.reached
        return event


class _Pages:
    """Keys page by page."""

    def __init__(
        self,
        client: AsyncClient,
        prefix: str,
        after: str,
        page_size: int,
        stale: bool,
        timeout_ms: float | None,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._after = after
        self._page_size = page_size
        self._stale = stale
        self._timeout_ms = timeout_ms
        self._more = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Page:
        if not self._more:
            raise StopAsyncIteration
        page = await self._client.page(
            self._prefix,
            after=self._after,
            page_size=self._page_size,
            stale=self._stale,
            timeout_ms=self._timeout_ms,
        )
        self._more = page.more and bool(page.entries)
        if page.entries:
            self._after = page.entries[-1].key
        return page


class _Entries:
    """Keys one by one."""

    def __init__(self, pages: _Pages) -> None:
        self._pages = pages
        self._left: list[KeyValue] = []
        """Of the page, the last one first."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> KeyValue:
        while not self._left:
            page = await self._pages.__anext__()
            self._left = [*reversed(page.entries)]
        return self._left.pop()
