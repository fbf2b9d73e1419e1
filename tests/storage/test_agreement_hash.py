"""The effects hash: equal for equal histories, and different for ever after any difference."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import (
    AbortOperation,
    BeginOperation,
    CompareAndSet,
    Delete,
    DeleteMany,
    EndOperation,
    Increment,
    OpenSession,
    Plan,
    Put,
    PutMany,
    Result,
)
from raftd.core.membership import decode_configuration, encode_configuration
from raftd.core.types import Entry, EntryKind
from raftd.storage import state as state_module
from raftd.storage.state import StateError, StateHead, StateMachine, read_head
from raftd.storage.store import MemoryStore, Store
from tests.storage.stores import NewStore, contents, with_new_store
from tests.storage.test_state import Log, apply_in_batches, random_entries

WHO: dict[str, Any] = {"author": "me", "reason": "why", "time_ms": 5}
PLAN = Plan(
    changes=(("voter", "n4/x"),), addresses={"n4/x": "h:1"}, joint=True, configuration_index=0
)


def log_of_everything() -> list[Entry]:
    """Return a log with every kind of effect; the number of an entry is its index."""
    log = Log()
    return [
        log.entry(EntryKind.NOOP),  # 1
        log.command(OpenSession(), "s"),
        log.command(Put("a", b"one"), "s", 1),
        log.command(Put("a", b"two"), "s", 2, lowest=2),
        log.command(Put("a", b"no"), "s", 2, lowest=2),  # 5: a copy that comes late
        log.command(Put("b", b"three", if_absent=True)),
        log.command(CompareAndSet("a", b"two", b"four"), "s", 3),
        log.command(CompareAndSet("a", b"other", b"five"), "s", 4),
        log.command(Delete("b"), "s", 5),
        log.command(Delete("b"), "s", 6),  # 10
        log.command(BeginOperation(kind="add", plan=PLAN, **WHO), "s", 7),
        log.configuration(operation="op-1", tombstones={"n9/x"}),
        log.command(AbortOperation(operation="op-1", **WHO), "s", 8),
        log.configuration(operation="op-1", outcome="aborted"),
        log.command(EndOperation(operation="op-1", outcome="failed", reason="r", time_ms=1)),  # 15
        log.command(OpenSession(), "t"),
        log.command(OpenSession(), "u"),
        log.command(Put("a", b"six"), "gone", 1),
        log.entry(EntryKind.NOOP),
        log.command(Put("a", b"seven"), "s", 9),  # 20
        log.command(Delete("a"), "s", 10),
        log.command(Increment("n", 5)),
        log.command(PutMany([("b", b"eight"), ("c", b"nine")])),
        log.command(DeleteMany(["b", "n", "x"])),
        log.command(Increment("c", 1)),  # 25: it is no number
        log.command(Increment("n", -5), "s", 11),
    ]


def hashes(machine: StateMachine) -> list[int | None]:
    return [machine.hash_at(index) for index in range(machine.applied_index + 1)]


# --- the head -------------------------------------------------------------------------------


def test_the_head_of_an_empty_store_says_that_there_is_nothing(new_store: NewStore) -> None:
    assert read_head(new_store()) == StateHead(
        format=1,
        applied_index=0,
        applied_term=0,
        revision=0,
        configuration_index=0,
        configuration=b"",
        effects_hash=0,
    )


def test_the_head_says_what_the_machine_knows(new_store: NewStore) -> None:
    store, log = new_store(), Log()
    machine = StateMachine(store)
    first, newest = log.configuration(), log.configuration(tombstones={"n3/x"})
    put = log.command(Put("k", b"v"))
    put.term = 7
    machine.apply([first, newest, put])
    assert read_head(store) == StateHead(
        applied_index=3,
        applied_term=7,
        revision=1,
        configuration_index=2,
        configuration=newest.data,
        effects_hash=machine.effects_hash,
    )
    assert machine.applied_term == 7
    again = StateMachine(store)
    assert (again.applied_term, again.effects_hash) == (7, machine.effects_hash)


def test_the_head_of_another_format_is_refused(new_store: NewStore) -> None:
    store = new_store()
    with store.transaction():
        store.put(b"M", b"\x92\x02\x00")
    with pytest.raises(StateError, match="format 2"):
        read_head(store)


# --- equal histories ------------------------------------------------------------------------


@with_new_store
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 50))
def test_equal_logs_have_equal_hashes_in_batches_of_any_size(
    new_store: NewStore, seed: int, size: int
) -> None:
    entries = random_entries(random.Random(seed), 80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_module, "SESSIONS_MAX", 3)
        patch.setattr(state_module, "EXPIRED_NAMES_MAX", 2)
        patch.setattr(state_module, "SESSION_RESULTS_MAX", 4)
        store = new_store()
        one_by_one = [0]
        for entry in entries:
            machine = StateMachine(store)
            machine.apply([entry])
            one_by_one.append(machine.effects_hash)
        machine = StateMachine(new_store())
        apply_in_batches(machine, entries, iter(lambda: size, None))
    assert hashes(machine) == one_by_one
    assert len(set(one_by_one)) == len(one_by_one)
    assert all(0 <= one < 2**61 - 1 for one in one_by_one)


def test_the_hash_is_the_documented_one() -> None:
    # It stands in snapshots, and servers of two releases compare it.
    machine = StateMachine(MemoryStore())
    machine.apply(log_of_everything()[:10])
    assert f"{machine.effects_hash:016x}" == "187383fc744da007"
    machine.apply(log_of_everything()[10:])
    assert f"{machine.effects_hash:016x}" == "1efdd7736fca675e"


def test_a_batch_that_fails_leaves_the_hash_as_it_was() -> None:
    machine = StateMachine(MemoryStore())
    entries = log_of_everything()
    machine.apply(entries[:3])
    before = hashes(machine)
    with pytest.raises(ValueError, match="not a command"):
        machine.apply([*entries[3:6], Entry(7, 1, EntryKind.COMMAND, b"\xc1")])
    assert hashes(machine) == before
    assert machine.effects_hash == before[-1]
    machine.apply(entries[3:])
    undisturbed = StateMachine(MemoryStore())
    undisturbed.apply(entries)
    assert hashes(machine) == hashes(undisturbed)


# --- every difference shows -----------------------------------------------------------------

Fault = Callable[[StateMachine, pytest.MonkeyPatch], None]
FAULTS: dict[str, tuple[int, Fault]] = {}


def fault(index: int) -> Callable[[Fault], Fault]:
    """Register what goes wrong while the entry at `index` is applied."""

    def register(function: Fault) -> Fault:
        FAULTS[f"{function.__name__} at {index}"] = (index, function)
        return function

    return register


@fault(1)
@fault(4)
@fault(12)
def revision_counted_up(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    machine.revision += 1


def rewriting(
    change: Callable[[bytes, bytes, bytes | None], tuple[bytes, bytes, bytes | None]],
) -> Fault:
    def install(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
        write = machine._write
        patch.setattr(machine, "_write", lambda *arguments: write(*change(*arguments)))

    return install


@fault(3)
@fault(6)
@fault(7)
@fault(20)
def value_bit_flipped(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    flip = rewriting(lambda key, value, stored: (key, bytes((value[0] ^ 1,)) + value[1:], stored))
    flip(machine, patch)


@fault(3)
def key_bit_flipped(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    flip = rewriting(lambda key, value, stored: (key[:-1] + bytes((key[-1] ^ 4,)), value, stored))
    flip(machine, patch)


@fault(3)
def byte_moved_from_the_value_to_the_key(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    effects = machine._effects
    original = type(effects).put
    patch.setattr(
        type(effects), "put", lambda self, key, value: original(self, key + value[:1], value[1:])
    )


@fault(4)
@fault(7)
def create_revision_and_version_begin_again(
    machine: StateMachine, patch: pytest.MonkeyPatch
) -> None:
    rewriting(lambda key, value, stored: (key, value, None))(machine, patch)


@fault(9)
@fault(21)
def delete_skipped(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    def only_answer(*_: object) -> Result:
        machine.revision += 1
        return Result(True, machine.revision)

    patch.setitem(machine._handlers, Delete, only_answer)


@fault(9)
def another_key_deleted(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    delete = machine._delete
    patch.setitem(machine._handlers, Delete, lambda body, *rest: delete(Delete("a"), *rest))


@fault(10)
def key_lost_besides(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    delete = machine._delete

    def lose_another(body: Delete, *rest: Any) -> Result:
        machine._effects.delete(b"Ka")
        return delete(body, *rest)

    patch.setitem(machine._handlers, Delete, lose_another)


def answering(kind: type, **changes: object) -> Fault:
    def install(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
        handler = machine._handlers[kind]
        patch.setitem(
            machine._handlers, kind, lambda *rest: attrs.evolve(handler(*rest), **changes)
        )

    return install


@fault(3)
@fault(6)
def answer_with_another_revision(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    answering(Put, revision=77)(machine, patch)


@fault(6)
def answer_no_for_yes(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    answering(Put, applied=False)(machine, patch)


@fault(22)
@fault(26)
def answer_with_another_number(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    answering(Increment, number=77)(machine, patch)


@fault(24)
def another_count_of_what_was_deleted(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    answering(DeleteMany, number=1)(machine, patch)


@fault(22)
@fault(26)
def another_number_added(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    increment = machine._increment
    patch.setitem(
        machine._handlers,
        Increment,
        lambda body, *rest: increment(Increment(body.key, body.by + 1), *rest),
    )


@fault(23)
def pairs_put_in_another_order(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    put_many = machine._put_many
    patch.setitem(
        machine._handlers, PutMany, lambda body, *rest: put_many(PutMany(body.pairs[::-1]), *rest)
    )


@fault(8)
def answer_yes_for_no(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    answering(CompareAndSet, applied=True)(machine, patch)


@fault(8)
def comparison_holds_that_does_not(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    compare = machine._compare_and_set
    patch.setitem(
        machine._handlers,
        CompareAndSet,
        lambda body, *rest: compare(attrs.evolve(body, expected=b"four"), *rest),
    )


@fault(11)
def answer_with_another_operation(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    answering(BeginOperation, operation="op-2")(machine, patch)


@fault(13)
def answer_with_a_code(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    answering(AbortOperation, code="operation-ended")(machine, patch)


@fault(3)
@fault(8)
def session_remembers_another_result(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    pack = state_module.pack_result
    patch.setattr(
        state_module, "pack_result", lambda result: pack(attrs.evolve(result, revision=78))
    )


@fault(4)
def session_acknowledges_nothing(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(state_module.Session, "acknowledge", lambda *_: None)


@fault(5)
def repeated_command_answered_anew(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    machine._sessions["s"].results.clear()


@fault(5)
def repeated_command_answered_wrongly(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    machine._sessions["s"].results[2] = 79


@fault(20)
def command_counted_for_another_session(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    machine._sessions["s"] = machine._sessions["t"]


@fault(2)
@fault(16)
def session_not_queued(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(type(machine._effects), "put", lambda *_: None)


@fault(16)
def sessions_counted_wrongly(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    machine.session_count -= 1


@fault(17)
def expired_names_counted_wrongly(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    machine._expired_count += 1


@fault(17)
def session_evicted(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(state_module, "SESSIONS_MAX", 2)


def configuration_changed(**changes: object) -> Fault:
    def install(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
        def decode(data: bytes) -> Any:
            return attrs.evolve(decode_configuration(data), **changes)

        patch.setattr(state_module, "decode_configuration", decode)

    return install


@fault(12)
def tombstone_missing(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    configuration_changed(tombstones=())(machine, patch)


@fault(12)
def tombstone_of_another_server(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    configuration_changed(tombstones=("n9/y",))(machine, patch)


@fault(12)
@fault(14)
def operation_does_not_learn_of_its_configuration(
    machine: StateMachine, patch: pytest.MonkeyPatch
) -> None:
    configuration_changed(operation="")(machine, patch)


@fault(12)
def configuration_stored_wrongly(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    apply = machine._apply_configuration

    def with_another_leader(data: bytes, index: int, term: int) -> None:
        entry = attrs.evolve(decode_configuration(data), leader="n7/z")
        apply(encode_configuration(entry), index, term)

    patch.setattr(machine, "_apply_configuration", with_another_leader)


@fault(11)
@fault(13)
def operation_recorded_wrongly(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    ledger = machine._ledger
    put = ledger._put
    patch.setattr(
        ledger, "_put", lambda operation: put(attrs.evolve(operation, abort_reason="another"))
    )


@fault(14)
def counters_of_the_ledger_not_written(machine: StateMachine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine._ledger, "_write_counters", lambda: None)


@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_shows_at_its_entry_and_at_every_later_one(name: str) -> None:
    index, install = FAULTS[name]
    entries = log_of_everything()
    healthy, faulty = StateMachine(MemoryStore()), StateMachine(MemoryStore())
    healthy.apply(entries)
    faulty.apply(entries[: index - 1])
    with pytest.MonkeyPatch.context() as patch:
        install(faulty, patch)
        faulty.apply(entries[index - 1 : index])
    faulty.apply(entries[index:])
    for at in range(len(entries) + 1):
        equal = healthy.hash_at(at) == faulty.hash_at(at)
        assert equal is (at < index), f"after entry {at}"


def test_the_words_of_a_refusal_do_not_count() -> None:
    """Another release may choose other ones."""
    entries = log_of_everything()
    healthy, other = StateMachine(MemoryStore()), StateMachine(MemoryStore())
    healthy.apply(entries)
    with pytest.MonkeyPatch.context() as patch:
        answering(AbortOperation, message="as you wish")(other, patch)
        results = other.apply(entries)
    assert "as you wish" in str(results)
    assert hashes(other) == hashes(healthy)


def test_a_difference_outlives_the_key_that_it_was_in() -> None:
    log = Log()
    entries = [log.command(Put("k", b"v")) for _ in range(50)]
    healthy, faulty = StateMachine(MemoryStore()), StateMachine(MemoryStore())
    healthy.apply(entries)
    with pytest.MonkeyPatch.context() as patch:
        rewriting(lambda key, value, stored: (key, b"w", stored))(faulty, patch)
        faulty.apply(entries[:1])
    faulty.apply(entries[1:])
    assert healthy.get("k") == faulty.get("k")
    assert healthy.effects_hash != faulty.effects_hash


@pytest.mark.parametrize("kind", [EntryKind.NOOP, EntryKind.CONFIGURATION, EntryKind.COMMAND])
def test_the_term_of_an_entry_counts(kind: EntryKind) -> None:
    machines = [StateMachine(MemoryStore()), StateMachine(MemoryStore())]
    for term, machine in enumerate(machines, 1):
        log = Log()
        entry = {
            EntryKind.NOOP: lambda log=log: log.entry(EntryKind.NOOP),
            EntryKind.CONFIGURATION: log.configuration,
            EntryKind.COMMAND: lambda log=log: log.command(Put("k", b"v")),
        }[kind]()
        entry.term = term
        machine.apply([entry])
    assert machines[0].effects_hash != machines[1].effects_hash


@given(bit=st.integers(0, 8 * 300 - 1), position=st.integers(0, 9))
def test_every_flipped_bit_of_a_value_shows(bit: int, position: int) -> None:
    log = Log()
    entries = [log.command(Put(f"k{number}", bytes(300))) for number in range(10)]
    healthy, faulty = StateMachine(MemoryStore()), StateMachine(MemoryStore())
    healthy.apply(entries)
    faulty.apply(entries[:position])
    with pytest.MonkeyPatch.context() as patch:
        flipped = (1 << bit).to_bytes(300, "big")
        rewriting(lambda key, value, stored: (key, flipped, stored))(faulty, patch)
        faulty.apply(entries[position : position + 1])
    faulty.apply(entries[position + 1 :])
    differing = [healthy.hash_at(index) != faulty.hash_at(index) for index in range(11)]
    assert differing == [index > position for index in range(11)]


# --- what is remembered ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_hashes_of_the_last_entries_are_known_and_no_others(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(state_module, "HASHES_KEPT", 8)
    log = Log()
    entries = [log.entry(EntryKind.NOOP) for _ in range(100)]
    machine = StateMachine(MemoryStore())
    for start in range(0, 100, size):
        machine.apply(entries[start : start + size])
        applied = machine.applied_index
        assert len(machine._hashes) < 2 * 8
        known = [index for index in range(-5, applied + 5) if machine.hash_at(index) is not None]
        assert known == list(range(max(0, applied - 7), applied + 1))
    assert machine.hash_at(100) == machine.effects_hash


def copied(store: Store) -> MemoryStore:
    copy = MemoryStore()
    with copy.transaction():
        for key, value in contents(store):
            copy.put(key, value)
    return copy


def test_a_restored_machine_goes_on_from_the_other_store() -> None:
    entries = log_of_everything()
    donor_store = MemoryStore()
    donor = StateMachine(donor_store)
    donor.apply(entries[:12])
    machine = StateMachine(MemoryStore())
    machine.apply(entries[:4])
    machine.restore(copied(donor_store))
    for name in (
        "applied_index",
        "applied_term",
        "revision",
        "configuration_index",
        "session_count",
        "effects_hash",
    ):
        assert getattr(machine, name) == getattr(donor, name), name
    assert machine.running_operation == donor.running_operation is not None
    assert machine.session_result("s", 7) == donor.session_result("s", 7) is not None
    assert [machine.hash_at(index) for index in range(13)] == [None] * 12 + [donor.effects_hash]
    assert machine.apply(entries[12:]) == donor.apply(entries[12:])
    for index in range(12, len(entries) + 1):
        assert machine.hash_at(index) == donor.hash_at(index)
    assert contents(machine._store) == contents(donor_store)


def test_a_restored_machine_leaves_its_old_store_alone() -> None:
    entries = log_of_everything()
    old, new = MemoryStore(), MemoryStore()
    machine = StateMachine(old)
    machine.apply(entries)
    before = contents(old)
    machine.restore(new)
    assert (machine.applied_index, machine.session_count, machine.get("a")) == (0, 0, None)
    assert machine.operations() == []
    machine.apply(log_of_everything()[:3])
    assert contents(old) == before


def test_a_difference_survives_a_restart_and_a_restore() -> None:
    """Also one of which nothing is left in the state but its hash."""
    log = Log()
    entries = [log.command(Put("k", b"v")) for _ in range(20)]
    ends, states = [], []
    for written in (b"v", b"w"):
        store = MemoryStore()
        undisturbed, stopped = StateMachine(MemoryStore()), StateMachine(store)
        for machine in (undisturbed, stopped):
            with pytest.MonkeyPatch.context() as patch:
                write = rewriting(lambda key, _, stored, written=written: (key, written, stored))
                write(machine, patch)
                machine.apply(entries[:1])
            machine.apply(entries[1:5])
        restored = StateMachine(MemoryStore())
        restored.restore(copied(store))
        machines = (undisturbed, StateMachine(store), restored)
        for machine in machines:
            machine.apply(entries[5:])
        ends.append({machine.effects_hash for machine in machines})
        states.append(undisturbed.get("k"))
    assert [len(end) for end in ends] == [1, 1]
    assert ends[0] != ends[1]
    assert states[0] == states[1]


def test_a_store_of_another_format_is_not_restored() -> None:
    store = MemoryStore()
    with store.transaction():
        store.put(b"M", b"\x92\x02\x00")
    with pytest.raises(StateError, match="format 2"):
        StateMachine(MemoryStore()).restore(store)
