"""The ring of the last changes: without a gap, in order, and bounded."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import Delete, DeleteMany, Increment, Put, PutMany
from raftd.storage import events as events_module
from raftd.storage.events import DELETED, EXPIRED, Change, Event, EventRing
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from tests.storage.test_state import Replica

ALL = 1 << 40


def change(revision: int, key: str, value: bytes = b"v") -> Change:
    return b"K" + key.encode(), struct.pack(">QQQ", revision, revision, 1) + value


def revisions(events: list[Event]) -> list[int]:
    return [event.revision for event in events]


@given(
    st.lists(st.lists(st.sampled_from("ab"), max_size=6), max_size=30),
    st.integers(0, 80),
    st.integers(1, 10),
)
def test_the_ring_has_what_a_list_of_all_changes_has(
    batches: list[list[str]], after: int, limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events_module, "EVENTS_MAX", 20)
        patch.setattr(events_module, "_SEGMENT_EVENTS", 4)
        ring, everything = EventRing(7), []
        for keys in batches:
            changes = [
                change(8 + len(everything) + position, key) for position, key in enumerate(keys)
            ]
            everything += keys
            ring.extend(changes)
        newest = 7 + len(everything)
        assert ring.revision == newest
        assert ring.oldest_revision <= max(8, newest - 20 + 1)
        assert newest - ring.oldest_revision < 20 + 4 + 6
        after = max(after, ring.oldest_revision - 1)
        for prefix in ("", "a"):
            found, until = ring.after(after, prefix.encode(), limit, ALL)
            expected = [
                8 + position
                for position, key in enumerate(everything)
                if 8 + position > after and key.startswith(prefix)
            ]
            assert revisions(found) == expected[:limit]
            assert all(everything[event.revision - 8] == event.key for event in found)
            # Whoever goes on from there misses nothing, and is told nothing twice.
            rest, _ = ring.after(until, prefix.encode(), 1_000, ALL)
            assert revisions(found) + revisions(rest) == expected


def test_large_changes_push_out_old_ones_and_the_last_one_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events_module, "EVENTS_BYTES_MAX", 1_000)
    monkeypatch.setattr(events_module, "_SEGMENT_BYTES", 100)
    ring = EventRing(0)
    for revision in range(1, 101):
        ring.extend([change(revision, "k", b"x" * 50)])
    assert ring.revision == 100
    assert 100 - 1_000 // 76 - 2 < ring.oldest_revision < 90
    ring.extend([change(101, "k", b"x" * 5_000)])
    assert ring.oldest_revision == 102
    ring.extend([change(102, "k")])
    assert revisions(ring.after(101, b"", 10, ALL)[0]) == [102]


def test_an_answer_has_a_bound_of_bytes_and_at_least_one_change() -> None:
    ring = EventRing(0)
    ring.extend([change(revision, "k", b"x" * 100) for revision in range(1, 6)])
    assert ring.after(0, b"", 10, 10) == (ring.after(0, b"", 1, ALL)[0], 1)
    found, until = ring.after(1, b"", 10, 300)
    assert (revisions(found), until) == ([2, 3], 3)


def test_changes_of_other_keys_are_passed_over_for_good() -> None:
    ring = EventRing(0)
    ring.extend([change(1, "a"), change(2, "b"), change(3, "b")])
    assert ring.after(0, b"a", 10, ALL)[1] == 3
    assert ring.after(0, b"c", 10, ALL) == ([], 3)
    # Not what stands behind a change that did not fit.
    ring.extend([change(4, "a"), change(5, "b")])
    assert ring.after(0, b"a", 1, ALL)[1] == 3


def test_a_state_that_is_ahead_of_nobody_has_nothing() -> None:
    ring = EventRing(5)
    assert ring.after(9, b"", 10, ALL) == ([], 9)


def test_a_ring_that_begins_again_has_nothing_of_before() -> None:
    ring = EventRing(0)
    ring.extend([change(1, "k")])
    ring.restart(7)
    assert (ring.oldest_revision, ring.revision) == (8, 7)
    assert ring.after(7, b"", 10, ALL) == ([], 7)


def test_kinds_of_changes() -> None:
    ring = EventRing(0)
    ring.extend([change(1, "k"), (b"Kk", DELETED), (b"Kk", EXPIRED)])
    kinds = [(event.kind, event.value, event.version) for event in ring.after(0, b"", 9, ALL)[0]]
    assert kinds == [("put", b"v", 1), ("delete", b"", 0), ("expired", b"", 0)]


def test_every_command_that_changes_keys_is_seen_by_those_who_watch() -> None:
    replica = Replica(MemoryStore())
    replica.run(Put("a", b"1"))
    replica.run(Increment("a", 1))
    replica.run(PutMany([("b", b"1"), ("c", b"1")]))
    replica.run(Delete("none"))
    replica.run(Delete("b"))
    replica.run(DeleteMany(["a", "none", "c"]))
    found, until = replica.machine.events.after(0, b"", 100, ALL)
    assert [(event.revision, event.kind, event.key, event.value) for event in found] == [
        (1, "put", "a", b"1"),
        (2, "put", "a", b"2"),
        (3, "put", "b", b"1"),
        (4, "put", "c", b"1"),
        (5, "delete", "b", b""),
        (6, "delete", "a", b""),
        (7, "delete", "c", b""),
    ]
    assert until == replica.machine.revision == 7


def test_a_machine_that_starts_again_begins_behind_its_state() -> None:
    replica = Replica(MemoryStore())
    replica.run(Put("a", b"1"))
    machine = StateMachine(replica.store)
    assert (machine.events.oldest_revision, machine.events.revision) == (2, 1)
    machine.apply([replica.log.command(Put("b", b"2"))])
    assert revisions(machine.events.after(1, b"", 10, ALL)[0]) == [2]
    machine.restore(MemoryStore())
    assert (machine.events.oldest_revision, machine.events.revision) == (1, 0)


def test_changes_of_a_batch_that_fails_are_not_seen() -> None:
    replica = Replica(MemoryStore())
    good = replica.log.command(Put("a", b"1"))
    with pytest.raises(ValueError, match="not a command"):
        replica.machine.apply([good, replica.log.entry(good.kind, b"\xc1")])
    assert replica.machine.events.revision == 0
    replica.machine.apply([good])
    assert revisions(replica.machine.events.after(0, b"", 10, ALL)[0]) == [1]
