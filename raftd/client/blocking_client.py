"""`Client`: the keys of a cluster, for programs that wait for each answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from raftd.client.blocking import Cluster
from raftd.client.calls import Steps
from raftd.client.errors import ClientClosed, OutcomeUnknown
from raftd.client.keys import PAGE_ENTRIES, KeyCalls
from raftd.client.pending import PendingEvents
from raftd.client.results import KeyEvent, KeyValue, Page, TransactionResult, WriteResult
from raftd.config_values import parse_dialled_address
from raftd.protocol import StatusReply
from raftd.transactions import Step

if TYPE_CHECKING:
    import ssl
    from typing import Self

TIMEOUT_MS_DEFAULT = 5_000.0
"""For a call: an election, and some more for a server that hangs."""

Value = TypeVar("Value")


class Client:
    """A cluster, for programs that wait for each answer.

    Finds the leader, follows it, and outlives the servers that it was given. Each call tries until
    it has an answer or its time is over; a write is done exactly once, however often it has to be
    sent. Connections are opened when they are needed, the session for writes with the first write.

    For one thread at a time: a program with several threads gives each a client of its own, which
    costs a connection and a session. It must not be used in a child after a fork.

        with Client(["127.0.0.1:7101", "127.0.0.1:7102"]) as client:
            client.put("orders/17", b"packed")
            found = client.get("orders/17")

    Args:
        addresses: HOST:PORT of some servers, at least one; those of the other members are learned.
        timeout_ms: for each call that has none of its own, in milliseconds; 0 means for ever.
        tls: how to protect connections; None for not at all.

    Raises:
        ValueError: no address, or something that is none.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        timeout_ms: float = TIMEOUT_MS_DEFAULT,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._cluster = Cluster(checked_addresses(addresses), timeout_ms=timeout_ms, tls=tls)
        self._keys = KeyCalls(self._cluster.calls)
        self._closed = False
        self._in_use = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Calls raise `ClientClosed` from now on."""
        self._closed = True
        self._cluster.close()

    # --- reading ---

    def get(
        self, key: str, *, stale: bool = False, timeout_ms: float | None = None
    ) -> KeyValue | None:
        """Return `key`; None if it is not there.

        Linearizable: at least as new as everything that was acknowledged to anybody before.

            found = client.get("orders/17")
            value = found.value if found is not None else b""

        Args:
            key: 1 to 480 bytes of UTF-8.
            stale: take the state of any server, however old it is.
            timeout_ms: in milliseconds; 0 means for ever, None the client's own.

        Raises:
            NotApplied: nobody has answered in time, or the key cannot exist.
        """
        return self._perform(self._keys.get(key, self._cluster.deadline(timeout_ms), stale=stale))

    def list(
        self,
        prefix: str = "",
        *,
        after: str = "",
        page_size: int = PAGE_ENTRIES,
        stale: bool = False,
        timeout_ms: float | None = None,
    ) -> Iterator[KeyValue]:
        """Yield the keys that begin with `prefix`, in order of their UTF-8 bytes.

        They are asked for page by page, and each page is of one moment. Take `pages` where it
        matters which keys are of the same moment.

            for found in client.list("orders/"):
                print(found.key, found.value)

        Args:
            prefix: empty for all keys.
            after: only keys behind this one.
            page_size: keys of one question, 1 to 10,000.
            stale: take the state of any server, however old it is.
            timeout_ms: for each page, in milliseconds; 0 means for ever, None the client's own.

        Raises:
            NotApplied: nobody has answered in time.
        """
        for page in self.pages(
            prefix, after=after, page_size=page_size, stale=stale, timeout_ms=timeout_ms
        ):
            yield from page.entries

    def pages(
        self,
        prefix: str = "",
        *,
        after: str = "",
        page_size: int = PAGE_ENTRIES,
        stale: bool = False,
        timeout_ms: float | None = None,
    ) -> Iterator[Page]:
        """Yield the keys that begin with `prefix` page by page, at least one; see `list`."""
        more = True
        while more:
            deadline = self._cluster.deadline(timeout_ms)
            page = self._perform(
                self._keys.page(prefix, deadline, after=after, limit=page_size, stale=stale)
            )
            yield page
            more = page.more and bool(page.entries)
            after = page.entries[-1].key if page.entries else after

    def status(self, *, timeout_ms: float | None = None) -> StatusReply:
        """Return the leader's own view of the cluster; a quorum has confirmed that it leads.

        Args:
            timeout_ms: in milliseconds; 0 means for ever, None the client's own.

        Raises:
            NotApplied: there was no leader in time.
        """
        deadline = self._cluster.deadline(timeout_ms)
        return self._perform(self._cluster.calls.leader_status(deadline))

    # --- writing ---

    def put(
        self,
        key: str,
        value: bytes,
        *,
        if_absent: bool = False,
        if_revision: int | None = None,
        ttl_ms: int | None = None,
        timeout_ms: float | None = None,
    ) -> WriteResult:
        """Set `key` to `value`, once. It is durable on a majority when this returns.

            if not client.put("leader", b"me", if_absent=True).applied:
                print("somebody else was quicker")

        Args:
            key: 1 to 480 bytes of UTF-8.
            value: up to 1 MiB.
            if_absent: only if the key is not there.
            if_revision: only if the key's mod revision is this; 0 means that it is not there.
            ttl_ms: for so many milliseconds of cluster time from when the leader takes it, then
                the cluster removes the key; None for ever.
            timeout_ms: in milliseconds; 0 means for ever, None the client's own.

        Returns:
            Whether it was applied: a condition that does not hold is no error.

        Raises:
            NotApplied: it was certainly not done.
            OutcomeUnknown: it may be done; `settle` finds out.
        """
        return self._perform(
            self._keys.put(
                key,
                value,
                self._cluster.deadline(timeout_ms),
                if_absent=if_absent,
                if_revision=if_revision,
                ttl_ms=ttl_ms,
            )
        )

    def delete(self, key: str, *, timeout_ms: float | None = None) -> WriteResult:
        """Remove `key`, once; `applied` says whether it was there.

        Args:
            key: 1 to 480 bytes of UTF-8.
            timeout_ms: in milliseconds; 0 means for ever, None the client's own.

        Raises:
            NotApplied: it was certainly not done.
            OutcomeUnknown: it may be done; `settle` finds out.
        """
        return self._perform(self._keys.delete(key, self._cluster.deadline(timeout_ms)))

    def compare_and_set(
        self, key: str, expected: bytes, value: bytes, *, timeout_ms: float | None = None
    ) -> WriteResult:
        """Set `key` to `value`, once, if its value is `expected` byte for byte.

        Args:
            key: 1 to 480 bytes of UTF-8.
            expected: what its value has to be.
            value: up to 1 MiB.
            timeout_ms: in milliseconds; 0 means for ever, None the client's own.

        Raises:
            NotApplied: it was certainly not done.
            OutcomeUnknown: it may be done; `settle` finds out.
        """
        deadline = self._cluster.deadline(timeout_ms)
        return self._perform(self._keys.compare_and_set(key, expected, value, deadline))

    def increment(self, key: str, by: int = 1, *, timeout_ms: float | None = None) -> int:
        """Add to the number that is the value of `key`, once; return what it has come to.

        The value is decimal digits; a key that is not there counts as 0, and keeps its life if it
        has one.

            visits = client.increment("visits")

        Args:
            key: 1 to 480 bytes of UTF-8.
            by: within 64 bits, with a sign.
            timeout_ms: in milliseconds; 0 means for ever, None the client's own.

        Raises:
            InvalidRequest: the value is no number of 64 bits, or would not be one any more (code
                not-a-number or overflow).
            NotApplied: it was certainly not done.
            OutcomeUnknown: it may be done; `settle` finds out.
        """
        return self._perform(self._keys.increment(key, by, self._cluster.deadline(timeout_ms)))

    def transaction(
        self,
        steps: Sequence[Step],
        conditions: Mapping[str, int] | None = None,
        *,
        timeout_ms: float | None = None,
    ) -> TransactionResult:
        """Carry out `steps` in their order, once, if all conditions hold. Nobody sees a part of it.

            moved = client.transaction(
                [RemoveKey("new/17"), SetKey("packed/17", order.value)],
                conditions={"new/17": order.mod_revision},
            )

        Args:
            steps: up to 1,024 of `SetKey`, `RemoveKey`, `AddTo`, `Append`, `SetLife`, `ReadKey`,
                together up to 4 MiB less a little. A step that cannot be carried out says so in its
                outcome, and the others are carried out all the same.
            conditions: keys and the mod revisions that they must have; 0: it must not be there.
            timeout_ms: in milliseconds; 0 means for ever, None the client's own.

        Returns:
            Whether it was applied: a condition that does not hold is no error.

        Raises:
            NotApplied: it was certainly not done.
            OutcomeUnknown: it may be done; `settle` finds out.
        """
        deadline = self._cluster.deadline(timeout_ms)
        return self._perform(self._keys.transaction(steps, conditions or {}, deadline))

    # --- watching ---

    def watch(
        self,
        prefix: str = "",
        *,
        after_revision: int | None = None,
        idle_ms: float = 0,
        timeout_ms: float | None = None,
    ) -> Watch:
        """Return an iterator over changes of keys that begin with `prefix`, without a gap.

        Each change comes once and in the order of revisions, also when servers fail on the way.

            for event in client.watch("orders/"):
                print(event.kind, event.key, event.value)

        Args:
            prefix: empty for all keys.
            after_revision: only changes behind it; None for those that come from now on.
            idle_ms: ends the iteration when nothing has come for so long; 0 for never.
            timeout_ms: how long no server may answer; 0 means for ever, None the client's own.

        Raises:
            RevisionGone: the changes behind `after_revision` are not kept any more.
            NotApplied: no server has answered in time. Go on with another `watch`, behind the
                `after_revision` of this one.
        """
        if after_revision is None:
            deadline = self._cluster.deadline(timeout_ms)
            after_revision = self._perform(self._keys.revision(deadline))
        return Watch(self, prefix, after_revision, idle_ms, timeout_ms)

    def _changes(
        self, prefix: str, after_revision: int, wait_ms: int, timeout_ms: float | None
    ) -> tuple[tuple[KeyEvent, ...], int]:
        deadline = self._cluster.deadline(timeout_ms).later_by_ms(wait_ms)
        return self._perform(self._keys.changes(prefix, after_revision, wait_ms, deadline))

    # --- settling ---

    def settle(self, unknown: OutcomeUnknown, *, timeout_ms: float | None = None) -> Any:
        """Have done, exactly once, the write that ended with `unknown`; return what it returns.

        It is sent again under its session and serial: where it was done, the cluster answers what
        it answered then; where it was not, it is done now. Any client of the cluster may settle it,
        also in a later call.

            try:
                client.put("orders/17", b"shipped")
            except OutcomeUnknown as unknown:
                client.settle(unknown, timeout_ms=60_000)

        Args:
            unknown: what a write has raised.
            timeout_ms: in milliseconds; 0 means for ever, None the client's own.

        Raises:
            NotApplied: it was certainly not done.
            SessionExpired: the cluster has forgotten the session, so that nobody can tell.
            OutcomeUnknown: there was no answer again.
            ValueError: it is no write, or was none of this library.
        """
        deadline = self._cluster.deadline(timeout_ms)
        return self._perform(self._keys.settle(unknown, deadline))

    def _perform(self, steps: Steps[Value]) -> Value:
        if self._closed:
            raise ClientClosed("the client is closed")
        if not self._in_use.acquire(blocking=False):
            raise RuntimeError("one Client is for one thread at a time; give each its own")
        try:
            return self._cluster.perform(steps)
        finally:
            self._in_use.release()


class Watch:
    """Changes of keys, one after the other. `after_revision` says how far it has come."""

    def __init__(
        self,
        client: Client,
        prefix: str,
        after_revision: int,
        idle_ms: float,
        timeout_ms: float | None,
    ) -> None:
        self.after_revision = after_revision
        """All changes up to here have been returned."""
        self._client = client
        self._prefix = prefix
        self._timeout_ms = timeout_ms
        self._pending = PendingEvents(after_revision, idle_ms)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> KeyEvent:
        pending = self._pending
        while not pending.events:
            if pending.idle_is_over(time.monotonic()):
                raise StopIteration
            pending.take(
                *self._client._changes(
                    self._prefix,
                    pending.asked_after,
                    pending.wait_ms(time.monotonic()),
                    self._timeout_ms,
                )
            )
            self.after_revision = pending.reached
        event = pending.next()
        self.after_revision = pending.reached
        return event


def checked_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return `addresses`, each once.

    Raises:
        ValueError: there is none, or one of them is none.
    """
    if isinstance(addresses, str):
        raise ValueError(f"a sequence of addresses is wanted, [{addresses!r}]")
    if not addresses:
        raise ValueError("at least one address is needed")
    for address in addresses:
        parse_dialled_address(address)
    return tuple(dict.fromkeys(addresses))
