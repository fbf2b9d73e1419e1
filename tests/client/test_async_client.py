"""`AsyncClient`: what tasks share, and what one of them can do to the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from raftd.client import (
    AsyncClient,
    Busy,
    ClientClosed,
    NoLeader,
    NotApplied,
    OutcomeUnknown,
    RevisionGone,
    Unreachable,
)
from raftd.client.links import ABANDONED_MAX
from raftd.client.sessions import Session
from raftd.protocol import (
    DoneReply,
    ErrorReply,
    EventView,
    GetReply,
    GetRequest,
    ListEntry,
    ListReply,
    ListRequest,
    OpenSessionRequest,
    PutRequest,
    Reply,
    Request,
    WatchReply,
    WatchRequest,
    WriteReply,
)
from tests.client.network import Network, Server, answering, follower_of

DONE = WriteReply(applied=True, revision=7)


@pytest.fixture
async def network(monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> AsyncIterator[Network]:
    found = Network(nursery)
    monkeypatch.setattr("raftd.client.links.dial", found.dial)
    yield found
    nursery.cancel_scope.cancel()


def client_of(*servers: Server, timeout_ms: float = 5_000, requests_max: int = 128) -> AsyncClient:
    return AsyncClient(
        [server.address for server in servers], timeout_ms=timeout_ms, requests_max=requests_max
    )


def found(request: Request) -> Reply:
    assert isinstance(request, GetRequest)
    return GetReply(found=True, value=request.key.encode(), mod_revision=1, version=1)


# --- one connection for all -------------------------------------------------------------------


async def test_replies_in_any_order_find_those_who_asked(
    network: Network, autojump_clock: MockClock
) -> None:
    server = network.server("n1")

    async def handle(request: Request) -> Reply:
        assert isinstance(request, GetRequest)
        # The first one waits longest.
        await trio.sleep(2.0 - int(request.key) / 100)
        return found(request)

    server.handle = handle
    values: dict[int, bytes] = {}

    async def get(number: int) -> None:
        item = await client.get(str(number))
        assert item is not None
        values[number] = item.value

    async with client_of(server) as client, trio.open_nursery() as tasks:
        for number in range(100):
            tasks.start_soon(get, number)
    assert values == {number: str(number).encode() for number in range(100)}
    assert server.connections == 1


async def test_calls_under_way_are_bounded_and_the_others_wait_their_turn(
    network: Network,
    autojump_clock: MockClock,
) -> None:
    server = network.server("n1")
    server.handle = answering(found, after_s=1.0)
    async with client_of(server, requests_max=4) as client:
        async with trio.open_nursery() as tasks:
            for number in range(12):
                tasks.start_soon(client.get, str(number))
        assert server.under_way_most == 4
        async with trio.open_nursery() as tasks:
            for number in range(4):
                tasks.start_soon(client.get, str(number))
            await trio.sleep(0.1)
            with pytest.raises(Busy):
                await client.get("late", timeout_ms=500)
        assert (await client.get("again")) is not None


async def test_a_call_that_is_cancelled_harms_no_other(
    network: Network, autojump_clock: MockClock
) -> None:
    server = network.server("n1")
    server.handle = answering(found, after_s=1.0)
    async with client_of(server) as client:

        async def impatient() -> None:
            with trio.move_on_after(0.5):
                await client.get("gone")
                raise AssertionError("it was not cancelled")

        async with trio.open_nursery() as tasks:
            tasks.start_soon(impatient)
            item = await client.get("k")
        assert item is not None
        assert item.value == b"k"
        await trio.sleep(1)
        assert (await client.get("k")) is not None
    assert server.connections == 1


async def test_answers_that_are_owed_without_end_end_the_connection(
    network: Network, autojump_clock: MockClock
) -> None:
    server = network.server("n1")
    async with client_of(server) as client:
        for number in range(ABANDONED_MAX + 1):
            with pytest.raises(NotApplied):
                await client.get(str(number), timeout_ms=10)
        server.handle = answering(found)
        assert (await client.get("k")) is not None
    assert server.connections == 2


# --- when servers fail ------------------------------------------------------------------------


async def test_calls_of_a_leader_that_dies_go_to_the_next_one_as_they_were(
    network: Network,
    autojump_clock: MockClock,
) -> None:
    old, new = network.server("n1"), network.server("n2")

    async def never(request: Request) -> Reply | None:
        return DoneReply() if isinstance(request, OpenSessionRequest) else None

    old.handle = never
    new.handle = answering(DONE)
    async with client_of(old, new) as client, trio.open_nursery() as tasks:
        for number in range(20):
            tasks.start_soon(client.put, f"k{number}", b"v")
        await trio.sleep(0.5)
        await old.die()
    assert len(old.writes) == len(new.writes) == 20
    assert set(old.writes) == set(new.writes)
    assert len(old.sessions) == 1


async def test_a_silent_server_is_found_out_once_for_all(
    network: Network, autojump_clock: MockClock
) -> None:
    silent, leader = network.server("n1"), network.server("n2")
    leader.handle = answering(found)
    async with client_of(silent, leader, timeout_ms=20_000) as client:
        started_s = trio.current_time()

        async def later(number: int) -> None:
            await trio.sleep(number / 10)
            await client.get(str(number))

        async with trio.open_nursery() as tasks:
            for number in range(20):
                tasks.start_soon(later, number)
        assert trio.current_time() - started_s < 5.5
    assert silent.connections == 1


async def test_one_call_looks_for_a_leader_while_the_others_wait(
    network: Network, autojump_clock: MockClock
) -> None:
    servers = [network.server(f"n{number}") for number in (1, 2, 3)]
    for server in servers:
        server.handle = follower_of(None)
    async with client_of(*servers, timeout_ms=10_000) as client, trio.open_nursery() as tasks:
        for number in range(100):
            tasks.start_soon(client.get, str(number))
        await trio.sleep(0.9)
        # A round of each to begin with; then some tens of rounds of one of them.
        assert sum(len(server.requests) for server in servers) < 3 * 100 + 3 * 30
        for server in servers:
            server.handle = follower_of(servers[2])
        servers[2].handle = answering(found)
        started_s = trio.current_time()
    assert trio.current_time() - started_s < 0.3


async def test_whoever_waits_for_the_search_of_another_gives_up_in_its_own_time(
    network: Network,
    autojump_clock: MockClock,
) -> None:
    server = network.server("n1")
    server.handle = follower_of(None)
    async with client_of(server) as client, trio.open_nursery() as tasks:

        async def first() -> None:
            with pytest.raises(NoLeader):
                await client.get("k", timeout_ms=4_000)

        tasks.start_soon(first)
        await trio.sleep(0.1)
        started_s = trio.current_time()
        with pytest.raises(NoLeader):
            await client.get("k", timeout_ms=300)
        assert trio.current_time() - started_s == pytest.approx(0.3, abs=0.01)


async def test_a_reply_that_nobody_waits_for_ends_the_connection_only(
    network: Network, autojump_clock: MockClock
) -> None:
    strange, leader = network.server("n1"), network.server("n2")
    strange.numbers_off_by = 1
    strange.handle = leader.handle = answering(found)
    async with client_of(strange, leader) as client:
        assert (await client.get("k")) is not None
        await leader.die()
        with pytest.raises(Unreachable, match="a reply to request 2, which is not waited for"):
            await client.get("k", timeout_ms=300)


async def test_no_server_at_all_is_unreachable(network: Network, autojump_clock: MockClock) -> None:
    server = network.server("n1")
    server.up = False
    async with client_of(server, timeout_ms=300) as client:
        with pytest.raises(Unreachable, match="connection refused"):
            await client.get("k")


# --- writes -----------------------------------------------------------------------------------


async def test_writes_of_all_tasks_share_one_session(
    network: Network, autojump_clock: MockClock
) -> None:
    server = network.server("n1")
    server.handle = answering(DONE, after_s=0.1)
    async with client_of(server) as client, trio.open_nursery() as tasks:
        for number in range(50):
            tasks.start_soon(client.put, f"k{number}", b"v")
    assert len(server.sessions) == 1
    serials = sorted(r.serial for r in server.writes if isinstance(r, PutRequest))
    assert serials == [*range(1, 51)]
    assert all(r.lowest_unacknowledged == 1 for r in server.writes if isinstance(r, PutRequest))


async def test_an_expired_session_is_replaced_once(
    network: Network, autojump_clock: MockClock
) -> None:
    server = network.server("n1")
    known: set[str] = set()
    writes: Counter[str] = Counter()

    async def handle(request: Request) -> Reply:
        await trio.sleep(0.1)
        if isinstance(request, OpenSessionRequest):
            known.add(request.session)
            return DoneReply()
        assert isinstance(request, PutRequest)
        if request.session not in known:
            return ErrorReply(code="session-expired", message="forgotten")
        writes[request.key] += 1
        return DONE

    server.handle = handle
    async with client_of(server) as client:
        await client.put("first", b"")
        known.clear()
        async with trio.open_nursery() as tasks:
            for number in range(20):
                tasks.start_soon(client.put, f"k{number}", b"")
    assert len(server.sessions) == 2
    assert set(writes.values()) == {1}
    assert len(writes) == 21


async def test_a_write_without_an_answer_is_unknown_and_can_be_settled(
    network: Network, autojump_clock: MockClock
) -> None:
    server = network.server("n1")
    server.handle = answering(DONE)
    async with client_of(server) as client:
        await client.put("k", b"1")

        async def nothing(request: Request) -> None:
            return None

        server.handle = nothing
        with pytest.raises(OutcomeUnknown) as raised:
            await client.put("k", b"2", timeout_ms=300)
        with pytest.raises(OutcomeUnknown) as again:
            await client.settle(raised.value, timeout_ms=300)
        assert again.value is raised.value
        server.handle = answering(DONE)
        assert (await client.settle(again.value)).revision == 7
        assert (await client.settle(again.value)).revision == 7
    assert raised.value.serial == 2
    assert [r.serial for r in server.writes if isinstance(r, PutRequest)] == [1, 2, 2, 2]


async def test_what_waits_behind_others_can_be_withdrawn_and_is_not_applied(
    network: Network,
    autojump_clock: MockClock,
) -> None:
    server = network.server("n1")
    server.lockstep = True
    async with client_of(server) as client, trio.open_nursery() as tasks:

        async def stuck() -> None:
            with pytest.raises(NotApplied):
                await client.get("k", timeout_ms=2_000)

        tasks.start_soon(stuck)
        await trio.sleep(0.1)
        assert client._session is None
        client._session = Session()
        with pytest.raises(NotApplied):
            await client.put("k", b"v", timeout_ms=500)
    assert server.requests == []


# --- closing ----------------------------------------------------------------------------------


async def test_what_the_block_raises_is_raised_as_it_is(
    network: Network, autojump_clock: MockClock
) -> None:
    server = network.server("n1")
    server.handle = answering(found)

    async def fail() -> None:
        async with client_of(server) as client:
            await client.get("k")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()


async def test_a_block_that_is_cancelled_ends_as_cancelled(
    network: Network, autojump_clock: MockClock
) -> None:
    server = network.server("n1")
    with trio.move_on_after(1) as scope:
        async with client_of(server) as client:
            await client.get("k", timeout_ms=0)
    assert scope.cancelled_caught


async def test_calls_of_other_tasks_end_when_the_client_is_closed(
    network: Network, autojump_clock: MockClock
) -> None:
    server = network.server("n1")
    server.handle = answering(DONE)
    async with trio.open_nursery() as tasks, client_of(server) as client:
        await client.put("k", b"")

        async def nothing(request: Request) -> None:
            return None

        async def ends(error: type[Exception], call: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(error):
                await call()

        server.handle = nothing
        tasks.start_soon(ends, OutcomeUnknown, lambda: client.put("k", b"", timeout_ms=0))
        tasks.start_soon(ends, ClientClosed, lambda: client.get("k", timeout_ms=0))
        await trio.sleep(0.1)
    with pytest.raises(ClientClosed):
        await client.get("k")


# --- lists and watches ------------------------------------------------------------------------


async def test_a_list_is_asked_for_page_by_page(
    network: Network, autojump_clock: MockClock
) -> None:
    server = network.server("n1")
    keys = [f"k{number}" for number in range(7)]

    def page(request: Request) -> Reply:
        assert isinstance(request, ListRequest)
        behind = [key for key in keys if key > request.after]
        entries = [
            ListEntry(key=key, value=b"", create_revision=1, mod_revision=1, version=1)
            for key in behind[: request.limit]
        ]
        return ListReply(revision=9, entries=tuple(entries), more=len(behind) > request.limit)

    server.handle = answering(page)
    async with client_of(server) as client:
        assert [item.key async for item in client.list("k", page_size=3)] == keys
        assert [len(page.entries) async for page in client.pages("k", page_size=3)] == [3, 3, 1]
        assert [item.key async for item in client.list("k", after="k4")] == ["k5", "k6"]


def _event(revision: int) -> EventView:
    return EventView(revision=revision, kind="put", key=f"k{revision}", value=b"")


async def test_a_watch_goes_on_at_another_server_without_a_gap(
    network: Network, autojump_clock: MockClock
) -> None:
    first, second = network.server("n1"), network.server("n2")

    def changes(request: Request) -> Reply:
        assert isinstance(request, WatchRequest)
        behind = request.after_revision
        if behind >= 6:
            return WatchReply(events=(), next_after_revision=6, revision=6, leader="n1/i")
        return WatchReply(
            events=(_event(behind + 1), _event(behind + 2)),
            next_after_revision=behind + 2,
            revision=6,
            leader="n1/i",
        )

    first.handle = second.handle = answering(changes)
    seen = []
    async with client_of(first, second) as client:
        watch = client.watch(after_revision=0, idle_ms=500)
        async for event in watch:
            seen.append(event.revision)
            assert watch.after_revision == event.revision
            if event.revision == 2:
                await first.die()
    assert seen == [1, 2, 3, 4, 5, 6]
    assert first.requests
    assert second.requests


async def test_a_watch_leaves_a_server_that_hears_of_no_changes(
    network: Network, autojump_clock: MockClock
) -> None:
    cut_off, other = network.server("n1"), network.server("n2")
    cut_off.handle = answering(WatchReply(events=(), next_after_revision=3, revision=3))
    other.handle = answering(
        WatchReply(events=(_event(4),), next_after_revision=4, revision=4, leader="n2/i")
    )
    async with client_of(cut_off, other) as client:
        event = await client.watch(after_revision=3).__anext__()
    assert event.revision == 4


async def test_changes_are_gone_only_if_no_server_has_them(
    network: Network, autojump_clock: MockClock
) -> None:
    young, old = network.server("n1"), network.server("n2")
    gone = ErrorReply(code="revision-gone", message="gone", cause="c", oldest_revision=50)
    young.handle = answering(gone)
    old.handle = answering(
        WatchReply(events=(_event(4),), next_after_revision=4, revision=60, leader="n2/i")
    )
    async with client_of(young, old) as client:
        assert (await client.watch(after_revision=3).__anext__()).revision == 4
        old.handle = young.handle
        started_s = trio.current_time()
        with pytest.raises(RevisionGone) as raised:
            await client.watch(after_revision=3).__anext__()
        assert trio.current_time() - started_s < 1
        await old.die()
        # What does not run has no changes any more.
        with pytest.raises(RevisionGone):
            await client.watch(after_revision=3).__anext__()
        assert trio.current_time() - started_s < 1
    assert raised.value.oldest_revision == 50
