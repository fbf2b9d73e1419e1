"""The driver between the sockets, the tasks, and the clock."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from raftd.network.inputs import (
    BATCH_INPUTS_MAX,
    BUSY_SECONDS,
    INBOX_INPUTS_MAX,
    YIELD_SECONDS,
    Inbox,
    Input,
    LinkChanged,
)

PATIENCE_SECONDS = 20
"""More than anything here takes, on a busy machine too."""


def item(number: int = 0) -> LinkChanged:
    return LinkChanged(f"n{number}", True, "")


class Gathering:
    """A source whose inputs come from the sockets, as those of a Redis listener do."""

    def __init__(self) -> None:
        self.gathered: list[Input] = []
        self.holds = False

    def prepare(self) -> None:
        pass

    def collect(self) -> list[Input]:
        gathered, self.gathered = self.gathered, []
        return gathered


class Bed:
    """An inbox, the time that it sees, and one socket of its set."""

    def __init__(self, stack: ExitStack) -> None:
        self.now = 0.0
        self.inbox = Inbox(monotonic=lambda: self.now)
        self.ours, self.theirs = (stack.enter_context(end) for end in socket.socketpair())
        self.ours.setblocking(False)
        self.turn_seconds = 0.0
        """How long each look at the socket takes."""
        self.looks = 0
        self.heard: Callable[[], None] = lambda: None
        """What becomes of what was read, of each byte."""
        self.inbox.sockets.add(self.ours.fileno(), self._ready)
        self.timeouts: list[float] = []
        """Those of each look at the set."""
        poll = self.inbox.sockets.poll

        def noting(timeout_seconds: float = 0.0) -> bool:
            self.timeouts.append(timeout_seconds)
            return poll(timeout_seconds)

        self.inbox.sockets.poll = noting  # type: ignore[method-assign]
        self.reads = True
        """False: the socket stays ready."""

    def _ready(self, _: int) -> None:
        self.now += self.turn_seconds
        self.looks += 1
        if self.reads:
            for _byte in self.ours.recv(100):
                self.heard()

    def say(self, count: int = 1) -> None:
        """Let the socket have something."""
        self.theirs.send(b"x" * count)

    def keep_ready(self) -> None:
        """Let the socket have something all the time."""
        self.reads = False
        self.say()

    async def bring(self, brought: Input) -> None:
        """Queue an input, as a task that reads for itself does."""
        self.inbox.put_nowait(brought)

    async def become_busy(self) -> None:
        """Take twice within a short time what the socket has, after the others had their turn."""
        for _ in range(2):
            self.say()
            await self.inbox.take()
        self.timeouts.clear()


@pytest.fixture
def bed() -> Iterator[Bed]:
    with ExitStack() as stack:
        yield Bed(stack)


WAKINGS: dict[str, Callable[[Bed], object]] = {
    "put_nowait": lambda bed: bed.inbox.put_nowait(item()),
    "arrived": lambda bed: bed.inbox.arrived([item()]),
    "wake": lambda bed: bed.inbox.wake(),
    "socket": lambda bed: bed.say(),
}


@pytest.mark.parametrize("by", WAKINGS)
async def test_a_driver_that_waits_for_the_sockets_is_woken(
    bed: Bed, nursery: trio.Nursery, by: str
) -> None:
    taken: list[tuple[list[Input], bool]] = []
    bed.heard = lambda: bed.inbox.arrived([item()])

    async def drive() -> None:
        while True:
            taken.append(await bed.inbox.take())

    nursery.start_soon(drive)
    # Again and again: what woke it once is not what it waits with the next time.
    for _ in range(3):
        await wait_all_tasks_blocked()
        assert taken == []
        WAKINGS[by](bed)
        with trio.fail_after(PATIENCE_SECONDS):
            while not taken:
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert taken == [([] if by == "wake" else [item()], False)]
        taken.clear()


async def test_what_comes_before_the_driver_waits_is_not_slept_through(bed: Bed) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        for by, wake in WAKINGS.items():
            wake(bed)
            _, tick_is_due = await bed.inbox.take()
            assert tick_is_due == (by == "tick")


async def test_what_the_sockets_bring_is_in_the_batch_that_is_closed_then(bed: Bed) -> None:
    source = Gathering()
    bed.inbox.sources.append(source)
    bed.heard = lambda: source.gathered.append(item(7))
    bed.inbox.put_nowait(item(1))
    bed.say(2)
    assert await bed.inbox.take() == ([item(1), item(7), item(7)], False)


async def test_sockets_that_keep_the_driver_busy_do_not_keep_it_from_the_other_tasks(
    bed: Bed, nursery: trio.Nursery
) -> None:
    turns_at: list[int] = []

    async def other() -> None:
        while True:
            turns_at.append(bed.looks)
            await trio.lowlevel.checkpoint()

    bed.keep_ready()
    bed.turn_seconds = YIELD_SECONDS / 4
    nursery.start_soon(other)
    with trio.fail_after(PATIENCE_SECONDS):
        for _ in range(100):
            await bed.inbox.take()
    gaps = [after - before for before, after in itertools.pairwise(turns_at)]
    assert len(gaps) >= 15
    # Who of two tasks that can go on comes first is trio's choice.
    assert max(gaps) <= 2 * 5
    # And until then it is not kept from the sockets.
    bed.turn_seconds = 0
    before = len(turns_at)
    for _ in range(100):
        await bed.inbox.take()
    assert len(turns_at) - before <= 1


async def test_work_that_is_left_over_does_not_keep_the_driver_from_the_other_tasks(
    bed: Bed, nursery: trio.Nursery
) -> None:
    done: list[int] = []

    async def other() -> None:
        while True:
            done.append(bed.looks)
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    for _ in range(10):
        bed.inbox.wake()
        await bed.inbox.take()
    assert len(done) >= 9


async def test_a_busy_driver_that_finds_nothing_goes_back_to_the_event_loop(
    bed: Bed, nursery: trio.Nursery
) -> None:
    await bed.become_busy()
    nursery.start_soon(bed.bring, item())
    with trio.fail_after(PATIENCE_SECONDS):
        assert await bed.inbox.take() == ([item()], False)
    # It has waited for the sockets alone once, and for a short time.
    assert [seconds for seconds in bed.timeouts if seconds] == [BUSY_SECONDS]
    bed.timeouts.clear()
    nursery.start_soon(bed.bring, item())
    with trio.fail_after(PATIENCE_SECONDS):
        assert await bed.inbox.take() == ([item()], False)
    assert set(bed.timeouts) == {0.0}


async def test_a_driver_that_hears_something_now_and_then_does_not_wait_for_the_sockets_alone(
    bed: Bed, nursery: trio.Nursery
) -> None:
    for _ in range(3):
        bed.now += 2 * BUSY_SECONDS
        bed.say()
        await bed.inbox.take()
    nursery.start_soon(bed.bring, item())
    with trio.fail_after(PATIENCE_SECONDS):
        await bed.inbox.take()
    assert set(bed.timeouts) == {0.0}


async def test_waiting_for_the_sockets_alone_has_its_turns_too(
    bed: Bed, nursery: trio.Nursery
) -> None:
    """The sockets have something each time only after the driver has begun to wait for them."""
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(bed.looks)
            await trio.lowlevel.checkpoint()

    poll = bed.inbox.sockets.poll

    def late(timeout_seconds: float = 0.0) -> bool:
        if timeout_seconds:
            bed.now += timeout_seconds
            bed.say()
        return poll(timeout_seconds)

    await bed.become_busy()
    bed.inbox.sockets.poll = late  # type: ignore[method-assign]
    nursery.start_soon(other)
    with trio.fail_after(PATIENCE_SECONDS):
        for _ in range(20):
            # Whatever it finds or not: a tick is due in time.
            await bed.inbox.take(lambda: trio.current_time() + 0.01)
    assert len(turns) >= 3


async def test_a_tick_is_due_while_the_sockets_are_busy(bed: Bed, mock_clock: MockClock) -> None:
    bed.keep_ready()
    for _ in range(3):
        tick_at = trio.current_time() + 1
        for _ in range(10):
            assert await bed.inbox.take(lambda at=tick_at: at) == ([], False)
        mock_clock.jump(1)
        assert await bed.inbox.take(lambda at=tick_at: at) == ([], True)


async def test_a_tick_that_is_due_comes_after_what_the_sockets_have(
    bed: Bed, mock_clock: MockClock
) -> None:
    bed.heard = lambda: bed.inbox.arrived([item(number) for number in range(BATCH_INPUTS_MAX + 1)])
    bed.say()
    tick_at = trio.current_time()
    batch, tick_is_due = await bed.inbox.take(lambda at=tick_at: at)
    assert (len(batch), tick_is_due) == (BATCH_INPUTS_MAX, False)
    assert await bed.inbox.take(lambda at=tick_at: at) == ([item(BATCH_INPUTS_MAX)], True)


async def test_a_driver_wakes_for_a_tick_when_nothing_comes(
    bed: Bed, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        tick_at = trio.current_time() + 1
        assert await bed.inbox.take(lambda at=tick_at: at) == ([], True)
        assert trio.current_time() == tick_at


async def cancelled(bed: Bed) -> bool:
    """Return whether a take whose scope is cancelled already ended in nothing."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await bed.inbox.take()
    return scope.cancelled_caught


async def test_a_take_that_is_cancelled_has_taken_nothing(bed: Bed, nursery: trio.Nursery) -> None:
    source = Gathering()
    bed.inbox.sources.append(source)
    # While it waits.
    with trio.CancelScope() as scope:
        nursery.start_soon(wait_all_tasks_blocked)

        async def cancel() -> None:
            await wait_all_tasks_blocked()
            bed.inbox.put_nowait(item(1))
            scope.cancel()

        nursery.start_soon(cancel)
        await bed.inbox.take()
    assert scope.cancelled_caught
    # When there is something already.
    assert await cancelled(bed)
    # What the sockets have brought by then.
    bed.heard = lambda: source.gathered.append(item(2))
    bed.say()
    assert await bed.inbox.take() == ([item(1), item(2)], False)
    # When the sockets have brought it, and the other tasks have their turn.
    bed.now += YIELD_SECONDS
    bed.heard = lambda: bed.inbox.arrived([item(3)])
    bed.say()
    assert await cancelled(bed)
    assert bed.looks == 2
    assert await bed.inbox.take() == ([item(3)], False)
    # And nothing of it is left that would wake it again.
    nursery.start_soon(bed.bring, item(4))
    with trio.fail_after(PATIENCE_SECONDS):
        assert await bed.inbox.take() == ([item(4)], False)


async def test_an_inbox_is_full_beyond_its_bound_and_until_a_batch_is_taken() -> None:
    inbox = Inbox()
    inbox.arrived([item(number) for number in range(INBOX_INPUTS_MAX)])
    assert not inbox.is_full
    inbox.put_nowait(item())
    assert inbox.is_full
    await inbox.take()
    assert not inbox.is_full
