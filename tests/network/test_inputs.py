"""The inbox: bounded, ordered, and fair to the clock."""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from raftd.network.inputs import BATCH_INPUTS_MAX, INBOX_INPUTS_MAX, Inbox, Input, LinkChanged


def inputs(count: int, start: int = 0) -> list[LinkChanged]:
    return [LinkChanged(f"n{start + i}", True, "") for i in range(count)]


class Gathered:
    """A source with inputs that are handed over one at a time."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = list(inputs)
        self.prepared = 0
        self.holds = False

    def prepare(self) -> None:
        self.prepared += 1

    def collect(self) -> list[Input]:
        assert self.prepared
        return [self.inputs.pop()] if self.inputs else []


async def test_inputs_come_out_in_the_order_in_which_they_have_come() -> None:
    inbox = Inbox()
    inbox.arrived(inputs(3))
    inbox.put_nowait(inputs(1, 3)[0])
    assert await inbox.take() == (inputs(4), False)


async def test_take_waits_for_an_input(nursery: trio.Nursery) -> None:
    inbox = Inbox()
    taken: list[object] = []

    async def consume() -> None:
        taken.append(await inbox.take())

    nursery.start_soon(consume)
    await wait_all_tasks_blocked()
    assert taken == []
    inbox.arrived(inputs(1))
    await wait_all_tasks_blocked()
    assert taken == [(inputs(1), False)]


async def test_a_tick_wakes_the_driver_and_is_due_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    inbox = Inbox()
    taken: list[object] = []
    ticks = [trio.current_time() + 1]

    async def consume() -> None:
        while True:
            taken.append(await inbox.take(lambda: ticks[0] if ticks else math.inf))
            ticks.clear()

    nursery.start_soon(consume)
    await wait_all_tasks_blocked()
    assert taken == []
    await trio.sleep(5)
    assert taken == [([], True)]


async def test_a_batch_is_bounded() -> None:
    inbox = Inbox()
    inbox.arrived(inputs(BATCH_INPUTS_MAX + 1))
    first, _ = await inbox.take()
    second, _ = await inbox.take()
    assert (len(first), len(second)) == (BATCH_INPUTS_MAX, 1)


async def test_a_tick_does_not_overtake_what_was_queued_before_it() -> None:
    inbox = Inbox()
    inbox.arrived(inputs(BATCH_INPUTS_MAX + 10))

    _, tick_is_due = await inbox.take(lambda: -math.inf)
    assert not tick_is_due
    inbox.arrived(inputs(BATCH_INPUTS_MAX))
    _, tick_is_due = await inbox.take()
    assert tick_is_due
    _, tick_is_due = await inbox.take()
    assert not tick_is_due


async def test_producers_wait_while_the_inbox_is_full(nursery: trio.Nursery) -> None:
    inbox = Inbox()
    inbox.arrived(inputs(INBOX_INPUTS_MAX + 1))
    done: list[int] = []

    async def produce(number: int) -> None:
        await inbox.room()
        done.append(number)

    nursery.start_soon(produce, 1)
    nursery.start_soon(produce, 2)
    await wait_all_tasks_blocked()
    assert done == []

    await inbox.take()
    await wait_all_tasks_blocked()
    assert sorted(done) == [1, 2]


async def test_a_busy_driver_lets_the_readers_run(nursery: trio.Nursery) -> None:
    inbox = Inbox()
    inbox.arrived(inputs(1))

    async def reader() -> None:
        inbox.arrived(inputs(1, 1))

    nursery.start_soon(reader)
    batch, _ = await inbox.take()
    more = [] if len(batch) == 2 else (await inbox.take())[0]
    assert batch + more == inputs(2)


async def test_a_driver_that_waits_is_woken_and_asks_the_sources(nursery: trio.Nursery) -> None:
    inbox = Inbox()
    taken: list[object] = []
    source = Gathered(inputs(2))
    inbox.sources.append(source)

    async def consume() -> None:
        while True:
            taken.append(await inbox.take())

    nursery.start_soon(consume)
    await wait_all_tasks_blocked()
    assert taken == []
    inbox.wake()
    await wait_all_tasks_blocked()
    assert taken == [(inputs(1, 1), False)]
    inbox.arrived(inputs(1, 7))
    await wait_all_tasks_blocked()
    assert taken[1:] == [([*inputs(1, 7), *inputs(1)], False)]
