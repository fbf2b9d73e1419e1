"""The set of sockets: who is called, with what, and who is not called any more."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from raftd.network.sockets import ENDED, READABLE, WRITABLE, SocketSet

LONG_SECONDS = 600.0
"""Nothing here lasts so long: who waits to the end of it hangs."""


class Pairs:
    """Connected sockets whose ends of ours do not block."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.sockets = SocketSet()
        self.calls: list[tuple[int, int]] = []
        """Descriptors and events, in the order of the calls."""

    def make(self) -> tuple[socket.socket, socket.socket]:
        """Return our end and theirs."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._stack.callback(ours.close)
        self._stack.callback(theirs.close)
        return ours, theirs

    def noting(self, ours: socket.socket, more: Callable[[], None] = lambda: None) -> None:
        """Watch `ours`; note each call and do `more`."""
        descriptor = ours.fileno()

        def ready(events: int) -> None:
            self.calls.append((descriptor, events))
            more()

        self.sockets.add(descriptor, ready)

    def called(self) -> list[tuple[int, int]]:
        """Return the calls since the last time."""
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    with ExitStack() as stack:
        yield Pairs(stack)


async def test_those_that_are_ready_are_called_until_they_have_read(pairs: Pairs) -> None:
    first, their_first = pairs.make()
    second, their_second = pairs.make()
    pairs.noting(first)
    pairs.noting(second)
    assert not pairs.sockets.poll()
    their_second.send(b"x")
    for _ in range(2):
        assert pairs.sockets.poll()
        assert pairs.called() == [(second.fileno(), READABLE)]
    second.recv(10)
    assert not pairs.sockets.poll()
    their_first.send(b"x")
    their_second.send(b"x")
    assert pairs.sockets.poll(LONG_SECONDS)
    assert sorted(pairs.called()) == sorted((s.fileno(), READABLE) for s in (first, second))
    their_first.close()
    first.recv(10)
    assert pairs.sockets.poll(LONG_SECONDS)
    assert dict(pairs.called())[first.fileno()] & READABLE


async def test_without_anything_a_poll_ends_after_its_time(pairs: Pairs) -> None:
    ours, _ = pairs.make()
    assert not pairs.sockets.poll(0.001)
    pairs.noting(ours)
    assert not pairs.sockets.poll(0.001)
    assert pairs.called() == []


async def test_a_handler_may_close_its_own_socket_and_the_others_are_called(pairs: Pairs) -> None:
    ends = [pairs.make() for _ in range(5)]
    for ours, theirs in ends:
        descriptor = ours.fileno()

        def close(ours: socket.socket = ours) -> None:
            pairs.sockets.remove(ours.fileno())
            ours.close()

        pairs.noting(ours, close)
        theirs.send(bytes([descriptor]))
    descriptors = {ours.fileno() for ours, _ in ends}
    assert pairs.sockets.poll()
    assert {descriptor for descriptor, _ in pairs.called()} == descriptors
    assert len(pairs.sockets) == 0
    assert not pairs.sockets.poll()
    assert pairs.called() == []


async def test_who_is_removed_is_not_called_though_its_events_are_there(pairs: Pairs) -> None:
    """Whichever of the two comes first removes the other."""
    ends = [pairs.make() for _ in range(2)]
    for (ours, theirs), (other, _) in zip(ends, reversed(ends), strict=True):
        pairs.noting(ours, lambda other=other: pairs.sockets.remove(other.fileno()))  # type: ignore[misc]
        theirs.send(b"x")
    for _ in range(2):
        assert pairs.sockets.poll()
        assert len(pairs.called()) == 1
        assert len(pairs.sockets) == 1
    # To remove it once more is nothing.
    for ours, _ in ends * 2:
        pairs.sockets.remove(ours.fileno())
    assert not pairs.sockets.poll()


async def test_a_descriptor_that_is_used_again_has_none_of_the_old_events(pairs: Pairs) -> None:
    old, their_old = pairs.make()
    new, their_new = pairs.make()
    descriptor = old.fileno()
    reused: list[int] = []

    def replace() -> None:
        pairs.sockets.remove(descriptor)
        os.dup2(new.fileno(), descriptor)
        pairs.sockets.add(descriptor, reused.append)

    pairs.noting(old, replace)
    their_old.send(b"x")
    assert pairs.sockets.poll()
    assert pairs.called() == [(descriptor, READABLE)]
    assert reused == []
    assert not pairs.sockets.poll()
    their_new.send(b"y")
    assert pairs.sockets.poll()
    assert pairs.called() == []
    assert reused == [READABLE]


async def test_what_is_not_watched_for_is_not_told(pairs: Pairs) -> None:
    ours, theirs = pairs.make()
    pairs.noting(ours)
    theirs.send(b"x")
    pairs.sockets.watch(ours.fileno(), 0)
    assert not pairs.sockets.poll(0.001)
    pairs.sockets.watch(ours.fileno(), WRITABLE)
    assert pairs.sockets.poll()
    pairs.sockets.watch(ours.fileno(), READABLE)
    assert pairs.sockets.poll()
    assert [events for _, events in pairs.called()] == [WRITABLE, READABLE]


async def test_a_reset_is_told_though_nothing_is_watched_for(pairs: Pairs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours:
        pairs.noting(ours)
        pairs.sockets.watch(ours.fileno(), 0)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert pairs.sockets.poll(LONG_SECONDS)
        (call,) = pairs.called()
        assert call[1] & ENDED
        pairs.sockets.remove(ours.fileno())


async def test_a_task_waits_until_some_socket_is_ready(pairs: Pairs, nursery: trio.Nursery) -> None:
    ours, theirs = pairs.make()
    done: list[str] = []

    async def wait() -> None:
        await pairs.sockets.wait()
        done.append("ready")

    with trio.move_on_after(0) as scope:
        await pairs.sockets.wait()
    assert scope.cancelled_caught
    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    # Also one that joins while it is waited for.
    pairs.noting(ours)
    await wait_all_tasks_blocked()
    assert done == []
    theirs.send(b"x")
    with trio.fail_after(LONG_SECONDS):
        while not done:
            await trio.lowlevel.checkpoint()
    # Whoever waits does not call.
    assert pairs.called() == []
    assert pairs.sockets.poll()
