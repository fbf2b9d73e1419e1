"""Counters, and commands for several keys, on every kind of store."""

from __future__ import annotations

import pytest

from raftd.commands import (
    INTEGER_MAX,
    INTEGER_MIN,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    CommandBody,
    Delete,
    DeleteMany,
    Increment,
    Put,
    PutMany,
    Result,
    SwitchOn,
)
from raftd.storage.state import KeyValue, StateMachine
from tests.storage.stores import NewStore, contents
from tests.storage.test_state import Replica


@pytest.fixture
def replica(new_store: NewStore) -> Replica:
    return Replica(new_store())


def value(replica: Replica, key: str) -> bytes | None:
    found = replica.machine.get(key)
    return None if found is None else found.value


# --- counters -------------------------------------------------------------------------------


def test_a_missing_key_counts_from_zero(replica: Replica) -> None:
    assert replica.run(Increment("n", 1)) == Result(True, 1, number=1)
    assert replica.run(Increment("m", -5)) == Result(True, 2, number=-5)
    assert replica.run(Increment("z", 0)) == Result(True, 3, number=0)
    assert replica.all_keys() == [
        KeyValue("m", b"-5", 2, 2, 1),
        KeyValue("n", b"1", 1, 1, 1),
        KeyValue("z", b"0", 3, 3, 1),
    ]


def test_a_counter_is_a_value_like_any_other(replica: Replica) -> None:
    replica.run(Put("n", b"41"))
    assert replica.run(Increment("n", 1)).number == 42
    assert replica.machine.get("n") == KeyValue("n", b"42", 1, 2, 2)
    assert replica.run(Increment("n", -50)).number == -8
    assert value(replica, "n") == b"-8"
    replica.run(Delete("n"))
    assert replica.run(Increment("n", 3)).number == 3


@pytest.mark.parametrize(
    "stored",
    [
        *(b"", b" 1", b"1 ", b"01", b"+1", b"-0", b"-", b"1.5", b"1e3", b"one", b"\xff", b"1\n"),
        *(b"9223372036854775808", b"-9223372036854775809", b"9" * 5_000, "١".encode()),
    ],
)
def test_what_is_no_integer_of_64_bits_is_left_alone(replica: Replica, stored: bytes) -> None:
    replica.run(Put("n", stored))
    before = replica.all_keys()
    result = replica.run(Increment("n", 1))
    assert (result.applied, result.revision, result.code) == (False, 1, "not-a-number")
    assert replica.all_keys() == before
    assert replica.machine.applied_index == 2


@pytest.mark.parametrize(
    ("start", "by", "end"),
    [
        (INTEGER_MAX - 1, 1, INTEGER_MAX),
        (INTEGER_MAX, 1, None),
        (INTEGER_MIN + 1, -1, INTEGER_MIN),
        (INTEGER_MIN, -1, None),
        (INTEGER_MAX, INTEGER_MAX, None),
        (INTEGER_MIN, INTEGER_MIN, None),
        (INTEGER_MAX, INTEGER_MIN, -1),
        (0, INTEGER_MIN, INTEGER_MIN),
    ],
)
def test_a_counter_never_leaves_its_64_bits(
    replica: Replica, start: int, by: int, end: int | None
) -> None:
    replica.run(Put("n", b"%d" % start))
    result = replica.run(Increment("n", by))
    if end is None:
        assert (result.applied, result.code, result.number) == (False, "not-a-number", 0)
        assert value(replica, "n") == b"%d" % start
    else:
        assert result == Result(True, 2, number=end)
        assert value(replica, "n") == b"%d" % end


def test_a_counter_that_is_asked_again_counts_once(replica: Replica) -> None:
    replica.open("s")
    first = replica.run(Increment("n", 7), "s", 1)
    assert first == Result(True, 1, number=7)
    assert replica.run(Increment("n", 7), "s", 1) == first
    replica.run(Put("x", b"not a number"))
    refused = replica.run(Increment("x", 7), "s", 2)
    assert refused.code == "not-a-number"
    replica.run(Put("x", b"1"))
    assert replica.run(Increment("x", 7), "s", 2) == refused
    assert (value(replica, "n"), value(replica, "x")) == (b"7", b"1")
    # Also by a server that has restarted since.
    machine = StateMachine(replica.store)
    assert machine.session_result("s", 1) == first
    assert machine.session_result("s", 2) == refused


# --- several keys ---------------------------------------------------------------------------


def test_several_keys_are_set_in_their_order_each_with_a_revision(replica: Replica) -> None:
    replica.run(Put("b", b"old"))
    assert replica.run(PutMany([("a", b"1"), ("b", b"2"), ("a", b"3")])) == Result(True, 4)
    assert replica.all_keys() == [KeyValue("a", b"3", 2, 4, 2), KeyValue("b", b"2", 1, 3, 2)]


@pytest.mark.parametrize(
    ("key", "size"), [("", 1), ("k" * (KEY_BYTES_MAX + 1), 1), ("k", VALUE_BYTES_MAX + 1)]
)
def test_either_all_of_several_keys_are_set_or_none(replica: Replica, key: str, size: int) -> None:
    result = replica.run(PutMany([("a", b"1"), (key, b"x" * size), ("b", b"2")]))
    assert (result.applied, result.revision, result.code) == (False, 0, "invalid")
    assert replica.all_keys() == []


def test_keys_that_are_named_twice_are_deleted_and_counted_once(replica: Replica) -> None:
    replica.run(PutMany([("a", b"1"), ("b", b"2"), ("c", b"3")]))
    assert replica.run(DeleteMany(["a", "x", "b", "a"])) == Result(True, 5, number=2)
    assert [found.key for found in replica.all_keys()] == ["c"]
    assert replica.run(DeleteMany(["a", "x"])) == Result(False, 5, number=0)
    assert replica.machine.revision == 5


def test_several_keys_that_are_asked_for_again_are_not_changed_again(replica: Replica) -> None:
    replica.open("s")
    put = replica.run(PutMany([("a", b"1"), ("b", b"2")]), "s", 1)
    deleted = replica.run(DeleteMany(["a", "b"]), "s", 2)
    assert (put, deleted) == (Result(True, 2), Result(True, 4, number=2))
    assert replica.run(PutMany([("a", b"1"), ("b", b"2")]), "s", 1) == put
    replica.run(Put("a", b"new"))
    assert replica.run(DeleteMany(["a", "b"]), "s", 2) == deleted
    assert value(replica, "a") == b"new"


def test_reads_of_several_keys_stop_before_they_have_too_many_bytes(replica: Replica) -> None:
    replica.run(PutMany([("a", b"x" * 100), ("b", b"y" * 100), ("c", b"z" * 1_000)]))
    values = replica.machine.values
    keys = [b"a", b"none", b"b", b"c", b"a"]
    assert values(keys, 1 << 20) == [b"x" * 100, None, b"y" * 100, b"z" * 1_000, b"x" * 100]
    assert values(keys, 300) == [b"x" * 100, None, b"y" * 100]
    assert values([b"c", b"a"], 10) == [b"z" * 1_000]
    assert values([b"none", b"c", b"a"], 10) == [None]
    assert values([], 10) == []


# --- the state ------------------------------------------------------------------------------

BODIES: list[CommandBody] = [
    Increment("n", 3),
    PutMany([("a", b"1"), ("b", b"2"), ("n", b"7")]),
    Increment("n", 2),
    DeleteMany(["a", "x"]),
    Increment("b", INTEGER_MAX),
]


def test_a_copy_of_the_state_goes_on_from_the_same_numbers(new_store: NewStore) -> None:
    replica = Replica(new_store())
    replica.run(SwitchOn(version=4, time_ms=1))
    replica.open("s")
    for serial, body in enumerate(BODIES, 1):
        replica.run(body, "s", serial)
    copy = new_store()
    with copy.transaction():
        for key, stored in contents(replica.store):
            copy.put(key, stored)
    other = StateMachine(new_store())
    other.restore(copy)
    assert (other.features, other.effects_hash) == (4, replica.machine.effects_hash)
    entries = [
        replica.log.command(Increment("n", 1)),
        replica.log.command(Increment("n", 2), "s", 3),
    ]
    results = other.apply(entries)
    assert [result.number for result in results if result] == [10, 9]
    assert replica.machine.apply(entries) == results
    assert contents(copy) == contents(replica.store)


def test_features_of_version_4_keep_what_version_3_has_written(new_store: NewStore) -> None:
    replica = Replica(new_store())
    replica.run(SwitchOn(version=3, time_ms=1))
    replica.run(Put("n", b"1"))
    before = replica.all_keys()
    replica.run(SwitchOn(version=4, time_ms=2))
    assert replica.all_keys() == before
    assert StateMachine(replica.store).features == 4
    # Whoever asks for less later, as a leader of an older release might, changes nothing.
    replica.run(SwitchOn(version=3, time_ms=3))
    assert replica.machine.features == 4
