"""Transactions: all at once or nothing, on every kind of store; and how they are packed."""

from __future__ import annotations

from contextlib import AbstractContextManager

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import (
    INTEGER_MAX,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    AddTo,
    AdvanceClock,
    Append,
    Command,
    Outcome,
    Put,
    ReadKey,
    RemoveKey,
    Result,
    SetKey,
    SetLife,
    Step,
    Transaction,
    decode_command,
    encode_command,
    encode_put,
    has_to_be_stamped,
    stamp,
)
from raftd.core.types import Entry, EntryKind
from raftd.storage.events import Event
from raftd.storage.state import KeyValue, StateMachine
from raftd.storage.store import MemoryStore
from raftd.transactions import (
    LIFE_MS_MAX,
    RETURNED_BYTES_MAX,
    SESSION_RETURNED_BYTES_MAX,
    STEPS_MAX,
    WRITTEN_BYTES_MAX,
    decode_outcomes,
    decode_steps,
    encode_outcomes,
    encode_steps,
    pack_outcome,
)
from tests.storage.stores import NewStore, contents
from tests.storage.test_lives import Replica


@pytest.fixture
def replica(new_store: NewStore) -> Replica:
    return Replica(new_store())


def events(replica: Replica, after: int = 0) -> list[Event]:
    found, _ = replica.machine.events.after(after, b"", 1_000, 1 << 40)
    return found


# --- steps ----------------------------------------------------------------------------------


def test_steps_are_carried_out_in_order_each_on_what_the_others_have_left(
    replica: Replica,
) -> None:
    replica.run(Put("old", b"1"))
    result = replica.transact(
        SetKey("k", b"5", want_old=True),
        AddTo("k", -7),
        Append("k", b"0"),
        ReadKey("k"),
        RemoveKey("old", want_old=True),
        RemoveKey("old"),
        ReadKey("old"),
        SetKey("k", b"x", 500, want_old=True),
        ReadKey("k"),
    )
    assert result.outcomes == (
        Outcome(),
        Outcome(number=-2),
        Outcome(number=3),
        Outcome(number=4, value=b"-20"),
        Outcome(value=b"1"),
        Outcome(False),
        Outcome(False),
        Outcome(value=b"-20"),
        Outcome(number=6, value=b"x", ttl_ms=500),
    )
    assert result == Result(True, 6, outcomes=result.outcomes)
    assert replica.all_keys() == [KeyValue("k", b"x", 2, 6, 4, 500)]


def test_every_change_takes_a_revision_and_is_an_event(replica: Replica) -> None:
    replica.run(Put("old", b"1"))
    replica.transact(SetKey("k", b"5"), RemoveKey("old"), AddTo("k", 1), RemoveKey("k"))
    replica.transact(AddTo("k", 2), SetLife("k", 500))
    replica.advance(500)
    assert events(replica) == [
        Event(1, "put", "old", b"1", 1, 1),
        Event(2, "put", "k", b"5", 2, 1),
        Event(3, "delete", "old"),
        Event(4, "put", "k", b"6", 2, 2),
        Event(5, "delete", "k"),
        Event(6, "put", "k", b"2", 6, 1),
        Event(7, "expired", "k"),
    ]
    assert replica.machine.revision == 7


def test_a_step_that_cannot_be_carried_out_leaves_its_key_and_not_the_others(
    replica: Replica,
) -> None:
    replica.run(Put("text", b"x"))
    replica.run(Put("most", b"%d" % INTEGER_MAX))
    replica.run(Put("long", b"x" * VALUE_BYTES_MAX))
    outcomes = replica.transact(
        AddTo("text", 1), AddTo("most", 1), Append("long", b"y"), AddTo("n", 1)
    ).outcomes
    assert [outcome.code for outcome in outcomes] == [
        "not-a-number",
        "overflow",
        "too-long",
        "",
    ]
    assert [outcome.applied for outcome in outcomes] == [False, False, False, True]
    assert {item.key: item.version for item in replica.all_keys()} == dict.fromkeys(
        ("long", "most", "n", "text"), 1
    )


@pytest.mark.parametrize(
    ("there", "fields", "applied"),
    [
        (False, {"if_absent": True}, True),
        (True, {"if_absent": True}, False),
        (False, {"if_present": True}, False),
        (True, {"if_present": True}, True),
        (True, {"if_absent": True, "if_present": True}, False),
        (False, {"if_absent": True, "if_present": True}, False),
    ],
)
def test_a_key_is_set_only_where_it_may_be(
    replica: Replica, there: bool, fields: dict[str, bool], applied: bool
) -> None:
    if there:
        replica.put("k", 500)
    outcome = replica.step(SetKey("k", b"new", want_old=True, **fields))
    assert outcome == Outcome(applied, value=b"v" if there else None)
    if there and not applied:
        assert replica.lives() == {"k": 500}


# --- conditions -----------------------------------------------------------------------------


def test_nothing_is_done_unless_every_condition_holds(replica: Replica) -> None:
    replica.run(Put("a", b"1"))
    replica.run(Put("a", b"2"))
    before = replica.all_keys()
    for conditions in ((("a", 1),), (("a", 0),), (("b", 1),), (("a", 2), ("b", 2))):
        result = replica.run(Transaction(conditions, (SetKey("k", b"v"), ReadKey("a")), 5))
        assert result == Result(False, 2)
        assert replica.all_keys() == before
    result = replica.run(Transaction((("a", 2), ("b", 0)), (SetKey("k", b"v"),), 5))
    assert result.applied
    assert result.revision == 3


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        Transaction((), (ReadKey("k"),) * (STEPS_MAX + 1)),
        Transaction((("k", 0),) * (STEPS_MAX + 1), ()),
        Transaction((("k", -1),), ()),
        Transaction((("", 0),), ()),
        Transaction((), (SetKey("", b""),)),
        Transaction((), (ReadKey("k" * (KEY_BYTES_MAX + 1)),)),
        Transaction((), (SetKey("k", b"x" * (VALUE_BYTES_MAX + 1)),)),
        Transaction((), (Append("k", b"x" * (VALUE_BYTES_MAX + 1)),)),
        Transaction((), (SetKey("k", b"", -1),)),
        Transaction((), (SetKey("k", b"", LIFE_MS_MAX + 1),)),
        Transaction((), (SetKey("k", b"", 1, keep_life=True),)),
        Transaction((), (SetLife("k", LIFE_MS_MAX + 1),)),
        Transaction((), (SetLife("k", 1, "sometimes"),)),
        Transaction((), (AddTo("k", INTEGER_MAX + 1),)),
    ],
)
def test_what_is_over_a_limit_is_refused_as_a_whole(replica: Replica, body: Transaction) -> None:
    steps = (SetKey("other", b"v"), *body.steps)[: STEPS_MAX + 1]
    result = replica.run(Transaction(body.conditions, steps, 5))
    assert (result.applied, result.code) == (False, "invalid")
    assert replica.keys() == []


def test_the_longest_life_and_the_largest_time_fit(replica: Replica) -> None:
    replica.time_ms = 2**63
    replica.put("k", LIFE_MS_MAX)
    assert replica.lives() == {"k": 2**63 + LIFE_MS_MAX}


def test_a_transaction_that_would_return_too_much_does_nothing(replica: Replica) -> None:
    value = b"x" * VALUE_BYTES_MAX
    replica.run(Put("long", value))
    before = contents(replica.store)[1:]
    count = RETURNED_BYTES_MAX // VALUE_BYTES_MAX
    result = replica.transact(RemoveKey("long", want_old=True), *count * (ReadKey("long"),))
    assert len(result.outcomes) == 1 + count
    replica.run(Put("long", value))
    result = replica.transact(SetKey("k", b"v"), *count * (ReadKey("long"),))
    assert (result.applied, result.code, result.outcomes) == (False, "too-much-returned", ())
    assert replica.keys() == ["long"]
    assert [pair[0] for pair in contents(replica.store)[1:]] == [pair[0] for pair in before]
    assert len(events(replica)) == 3


def test_a_transaction_that_would_write_too_much_does_nothing(replica: Replica) -> None:
    replica.run(Put("long", b"x" * (VALUE_BYTES_MAX - 100)))
    fitting = WRITTEN_BYTES_MAX // VALUE_BYTES_MAX * (Append("long", b"y"),)
    assert replica.transact(*fitting).applied
    revision = replica.machine.revision
    for step in (Append("long", b"y"), SetKey("other", b"z" * VALUE_BYTES_MAX)):
        result = replica.transact(*fitting, step)
        assert (result.applied, result.code, result.outcomes) == (False, "too-much-written", ())
    assert replica.machine.revision == revision
    assert replica.keys() == ["long"]


def test_a_batch_that_writes_much_is_several_transactions_of_the_store_and_the_same_state() -> None:
    class Counting(MemoryStore):
        transactions = 0

        def transaction(self) -> AbstractContextManager[None]:
            self.transactions += 1
            return super().transaction()

    whole, single = Replica(Counting()), Replica(MemoryStore())
    store = whole.store
    assert isinstance(store, Counting)
    append = encode_command(Command(Transaction((), (Append("k", b"y"),), 1)))
    commands = [encode_put("k", b"x" * (VALUE_BYTES_MAX - 100)), *30 * [append]]
    entries = [Entry(at, 1, EntryKind.COMMAND, data) for at, data in enumerate(commands, 2)]
    before = store.transactions
    results = whole.machine.apply(entries)
    assert [result.revision for result in results if result] == [*range(1, 32)]
    # Each has a bit more than is allowed, and eight appends have that.
    assert store.transactions - before == 1 + 30 // 8
    for entry in entries:
        single.machine.apply([entry])
    assert contents(whole.store) == contents(single.store)
    assert whole.machine.effects_hash == single.machine.effects_hash
    assert whole.machine.hash_at(5) == single.machine.hash_at(5)
    assert events(whole, 28) == events(single, 28) != []


def test_what_a_session_keeps_of_values_is_bounded_until_they_are_acknowledged(
    replica: Replica,
) -> None:
    replica.open("s")
    half = SESSION_RETURNED_BYTES_MAX // 2
    replica.run(Put("k", b"x" * half))
    swap = Transaction((), (SetKey("k", b"y" * half, want_old=True),))
    assert replica.run(swap, "s", 1).applied
    refused = replica.run(Transaction((), (RemoveKey("k", want_old=True),)), "s", 2)
    assert (refused.applied, refused.code) == (False, "too-much-returned")
    assert "session s may have" in refused.message
    assert replica.keys() == ["k"]
    # The next serial acknowledges both.
    assert replica.run(swap, "s", 3, 3).outcomes[0].value == b"y" * half


def test_a_transaction_that_comes_again_is_answered_and_not_repeated(replica: Replica) -> None:
    replica.open("s")
    replica.run(Put("k", b"1"))
    body = Transaction((("k", 1),), (AddTo("k", 1), ReadKey("k"), RemoveKey("none", True)))
    first = replica.run(body, "s", 1)
    assert first.outcomes == (Outcome(number=2), Outcome(number=2, value=b"2"), Outcome(False))
    for machine in (replica.machine, StateMachine(replica.store)):
        assert machine.session_result("s", 1) == first
    later = Transaction(body.conditions, body.steps, 99)
    assert replica.run(later, "s", 1) == first
    # A copy does nothing at all, not even to the time.
    assert (replica.machine.revision, replica.machine.clock_ms) == (2, 0)


def test_what_a_transaction_has_answered_is_in_the_hash() -> None:
    hashes = set()
    for step in (ReadKey("k"), RemoveKey("none"), SetLife("k", 0)):
        replica = Replica(MemoryStore())
        replica.run(Put("k", b"1"))
        before = contents(replica.store)[:-1]
        replica.transact(step)
        assert contents(replica.store)[:-1] == before
        hashes.add(replica.machine.effects_hash)
    # The last two answer the same, and have done as little.
    assert len(hashes) == 2


# --- bytes ----------------------------------------------------------------------------------

KEYS = st.text(max_size=5)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
STEPS = st.one_of(
    st.builds(SetKey, KEYS, st.binary(), INTEGERS, *4 * [st.booleans()]),
    st.builds(RemoveKey, KEYS, st.booleans()),
    st.builds(AddTo, KEYS, INTEGERS),
    st.builds(Append, KEYS, st.binary()),
    st.builds(SetLife, KEYS, INTEGERS, st.sampled_from(["", "nx", "gt"])),
    st.builds(ReadKey, KEYS),
)
OUTCOMES = st.builds(
    Outcome,
    st.booleans(),
    INTEGERS,
    st.none() | st.binary(),
    st.sampled_from(["", "overflow"]),
    st.none() | st.integers(0, 2**63),
)


@given(
    st.lists(st.tuples(KEYS, st.integers(0, 2**63 - 1)), max_size=3),
    st.lists(STEPS, max_size=5),
    st.integers(0, 2**64 - 1),
)
def test_a_transaction_survives_its_bytes_and_takes_the_time_of_its_leader(
    conditions: list[tuple[str, int]], steps: list[Step], time_ms: int
) -> None:
    body = Transaction(tuple(conditions), tuple(steps))
    encoded = encode_command(Command(body, "s", 7, 3))
    stamped = Command(Transaction(body.conditions, body.steps, time_ms), "s", 7, 3)
    assert decode_command(stamp(encoded, time_ms)) == stamped
    assert stamp(stamp(encoded, 1), time_ms) == encode_command(stamped)
    assert decode_steps(encode_steps(conditions, steps)) == (body.conditions, body.steps)


@given(st.lists(OUTCOMES, max_size=4))
def test_outcomes_survive_their_bytes(outcomes: list[Outcome]) -> None:
    assert decode_outcomes(encode_outcomes(outcomes)) == tuple(outcomes)


def test_only_what_has_a_transaction_is_stamped() -> None:
    transaction = encode_command(Command(Transaction((), ())))
    others = [
        encode_put("k", b"v" * 200_000),
        encode_command(Command(AdvanceClock(2**63))),
        encode_command(Command(Put("k", b"v"), "s" * 100, 2**60, 2**60)),
    ]
    assert not has_to_be_stamped(others)
    assert has_to_be_stamped([*others, transaction])
    assert has_to_be_stamped([transaction])
    assert [stamp(other, 5) for other in others] == others


@pytest.mark.parametrize(
    "packed",
    [
        b"\xc1",
        [],
        [[]],
        [[], [], []],
        [[["k"]], []],
        [[["k", "1"]], []],
        [[[b"k", 1]], []],
        [[["k", True]], []],
        [[], [[9, "k"]]],
        [[], [["1", "k"]]],
        [[], [[6]]],
        [[], [[6, b"k"]]],
        [[], [[6, "k", 1]]],
        [[], [[1, "k", "text", 0, False, False, False, False]]],
        [[], [[1, "k", b"v", False, False, False, False, False]]],
        [[], [[1, "k", b"v", 0, 0, False, False, False]]],
        [[], [[3, "k", 1.0]]],
    ],
)
def test_a_strangers_bytes_are_a_value_error_and_nothing_else(packed: object) -> None:
    content = packed if isinstance(packed, bytes) else msgpack.packb(packed)
    with pytest.raises(ValueError, match="no steps of a transaction"):
        decode_steps(content)


def test_a_stranger_s_transaction_is_not_taken_apart_where_it_has_too_many_parts() -> None:
    fitting = STEPS_MAX * [("k", 0)], STEPS_MAX * [ReadKey("k")]
    assert len(decode_steps(encode_steps(*fitting))[1]) == STEPS_MAX
    for conditions, steps in (([("k", 0), *fitting[0]], []), ([], [ReadKey("k"), *fitting[1]])):
        with pytest.raises(ValueError, match=f"at most {STEPS_MAX}"):
            decode_steps(encode_steps(conditions, steps))


@given(st.binary(max_size=40))
def test_any_bytes_are_steps_or_a_value_error(content: bytes) -> None:
    for decode in (decode_steps, decode_outcomes):
        try:
            decode(content)
        except ValueError:
            continue


def test_a_kept_outcome_has_the_bytes_of_its_fields() -> None:
    outcome = Outcome(True, 1, b"v", "", 5)
    assert pack_outcome(outcome) == [True, 1, b"v", "", 5]
