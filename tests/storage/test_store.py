"""The contract of a store, kept by every kind of store."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import (
    VALUE_BYTES_MAX,
)
from raftd.storage.store import STORE_KEY_BYTES_MAX, Store
from tests.storage.stores import NewStore, contents, with_new_store


def test_a_key_that_was_never_put_has_no_value(new_store: NewStore) -> None:
    assert new_store().get(b"k") is None


def test_a_transaction_that_ends_is_visible(new_store: NewStore) -> None:
    store = new_store()
    with store.transaction():
        store.put(b"a", b"1")
        store.put(b"b", b"2")
    assert contents(store) == [(b"a", b"1"), (b"b", b"2")]


def test_nothing_of_a_transaction_that_raises_is_visible(new_store: NewStore) -> None:
    store = new_store()
    with store.transaction():
        store.put(b"kept", b"1")
        store.put(b"deleted", b"2")
    before = contents(store)

    def change_everything_and_fail() -> None:
        with store.transaction():
            store.put(b"kept", b"changed")
            store.put(b"kept", b"changed again")
            store.delete(b"deleted")
            store.put(b"deleted", b"back")
            store.put(b"new", b"3")
            store.delete(b"new")
            store.put(b"newer", b"4")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        change_everything_and_fail()
    assert contents(store) == before


def test_a_transaction_that_is_interrupted_is_undone(new_store: NewStore) -> None:
    store = new_store()

    def change_and_be_interrupted() -> None:
        with store.transaction():
            store.put(b"k", b"v")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        change_and_be_interrupted()
    assert contents(store) == []


def test_a_transaction_can_follow_one_that_raised(new_store: NewStore) -> None:
    store = new_store()
    with pytest.raises(RuntimeError), store.transaction():
        raise RuntimeError
    with store.transaction():
        store.put(b"k", b"v")
    assert store.get(b"k") == b"v"


def test_a_transaction_reads_what_it_has_written(new_store: NewStore) -> None:
    store = new_store()
    with store.transaction():
        store.put(b"a", b"1")
        store.put(b"b", b"2")
        assert store.get(b"a") == b"1"
        assert store.delete(b"a")
        assert store.get(b"a") is None
        assert store.scan(b"a", b"z", 10) == [(b"b", b"2")]


def test_delete_says_whether_the_key_was_there(new_store: NewStore) -> None:
    store = new_store()
    with store.transaction():
        store.put(b"k", b"")
        assert store.delete(b"k")
        assert not store.delete(b"k")


def test_an_empty_value_is_a_value(new_store: NewStore) -> None:
    store = new_store()
    with store.transaction():
        store.put(b"k", b"")
    assert store.get(b"k") == b""
    assert contents(store) == [(b"k", b"")]


def test_scan_includes_its_start_and_excludes_its_end(new_store: NewStore) -> None:
    store = new_store()
    with store.transaction():
        for key in (b"a", b"b", b"b\x00", b"c"):
            store.put(key, key)
    assert [key for key, _ in store.scan(b"a", b"c", 10)] == [b"a", b"b", b"b\x00"]
    assert [key for key, _ in store.scan(b"b\x00", b"\xff", 10)] == [b"b\x00", b"c"]
    assert store.scan(b"b", b"b", 10) == []
    with store.transaction():
        store.put(b"b\x00", b"")
    assert store.scan(b"b", b"b\x00", 10) == [(b"b", b"b")]


def test_keys_are_those_of_a_scan_without_their_values(new_store: NewStore) -> None:
    store = new_store()
    keys = [b"a", b"b", b"b\x00", b"c", b"\xfe" * STORE_KEY_BYTES_MAX]
    with store.transaction():
        for key in keys:
            store.put(key, key)
        assert store.keys(b"b", b"c", 10) == [b"b", b"b\x00"]
    bounds = [b"", *keys, b"bb", keys[-1] + b"\x00", b"\xff"]
    for start in bounds:
        for end in bounds:
            for limit in (0, 1, 2, 10):
                expected = [key for key, _ in store.scan(start, end, limit)]
                assert store.keys(start, end, limit) == expected
    assert store.keys(b"a", b"d", 10) == keys[:4]


def test_pairs_are_counted(new_store: NewStore) -> None:
    store = new_store()
    assert store.pair_count == 0
    with store.transaction():
        store.put(b"a", b"1")
        store.put(b"b", b"1")
        store.put(b"b", b"2")
    assert store.pair_count == 2
    with store.transaction():
        store.delete(b"a")
        store.delete(b"c")
    assert store.pair_count == 1


def test_scan_stops_at_its_limit(new_store: NewStore) -> None:
    store = new_store()
    with store.transaction():
        for key in (b"c", b"a", b"b"):
            store.put(key, b"")
    assert [key for key, _ in store.scan(b"a", b"z", 2)] == [b"a", b"b"]
    assert store.scan(b"a", b"z", 0) == []


def test_the_longest_key_is_stored(new_store: NewStore) -> None:
    store = new_store()
    key = b"\xfe" * STORE_KEY_BYTES_MAX
    with store.transaction():
        store.put(key, b"v")
    assert store.get(key) == b"v"
    assert store.scan(key, b"\xff", 10) == [(key, b"v")]


def test_the_empty_key_is_looked_for_in_vain(new_store: NewStore) -> None:
    store = new_store()
    with store.transaction():
        store.put(b"k", b"v")
        assert not store.delete(b"")
    assert store.get(b"") is None
    assert store.scan(b"", b"\xff", 10) == [(b"k", b"v")]
    assert store.scan(b"", b"", 10) == []


def test_a_scan_starts_behind_a_key_that_its_long_start_begins_with(new_store: NewStore) -> None:
    store = new_store()
    key = b"\xfe" * STORE_KEY_BYTES_MAX
    with store.transaction():
        store.put(key, b"v")
        store.put(b"\xff", b"w")
    assert store.scan(key + b"\x00", b"\xff\xff", 10) == [(b"\xff", b"w")]


def test_a_longer_key_is_looked_for_in_vain(new_store: NewStore) -> None:
    store = new_store()
    key = b"\xfe" * STORE_KEY_BYTES_MAX
    with store.transaction():
        store.put(key, b"v")
        assert not store.delete(key + b"\xfe")
    assert store.get(key + b"\xfe") is None
    assert store.scan(key + b"\xfe", b"\xff", 10) == []
    assert store.scan(b"a", key + b"\xfe", 10) == [(key, b"v")]


def test_a_long_value_comes_back_whole(new_store: NewStore) -> None:
    store = new_store()
    value = random.Random(1).randbytes(VALUE_BYTES_MAX + 1000)
    with store.transaction():
        store.put(b"k", value)
    assert store.get(b"k") == value


@pytest.mark.parametrize(
    "change",
    [lambda store: store.put(b"k", b"v"), lambda store: store.delete(b"k")],
    ids=["put", "delete"],
)
def test_a_change_outside_of_a_transaction_is_a_bug(
    new_store: NewStore, change: Callable[[Store], object]
) -> None:
    with pytest.raises(AssertionError):
        change(new_store())


@pytest.mark.parametrize("key", [b"", b"k" * (STORE_KEY_BYTES_MAX + 1)], ids=["empty", "long"])
def test_to_put_a_key_of_a_forbidden_length_is_a_bug(new_store: NewStore, key: bytes) -> None:
    store = new_store()
    with pytest.raises(AssertionError), store.transaction():
        store.put(key, b"v")


def test_to_open_a_second_transaction_is_a_bug(new_store: NewStore) -> None:
    store = new_store()
    with pytest.raises(AssertionError), store.transaction(), store.transaction():
        pass


store_changes = st.lists(
    st.tuples(
        st.lists(
            st.tuples(
                st.binary(min_size=1, max_size=3), st.one_of(st.none(), st.binary(max_size=3))
            ),
            max_size=8,
        ),
        st.booleans(),
    ),
    max_size=8,
)


@with_new_store
@given(batches=store_changes, start=st.binary(max_size=2), end=st.binary(max_size=2))
def test_a_store_is_a_sorted_dict(
    new_store: NewStore,
    batches: list[tuple[list[tuple[bytes, bytes | None]], bool]],
    start: bytes,
    end: bytes,
) -> None:
    store = new_store()
    model: dict[bytes, bytes] = {}
    for changes, fails in batches:
        after = dict(model)
        try:
            with store.transaction():
                for key, value in changes:
                    if value is None:
                        assert store.delete(key) == (after.pop(key, None) is not None)
                    else:
                        store.put(key, value)
                        after[key] = value
                    assert store.get(key) == value
                if fails:
                    raise RuntimeError
        except RuntimeError:
            continue
        model = after
    assert contents(store) == sorted(model.items())
    expected = sorted(pair for pair in model.items() if start <= pair[0] < end)
    assert store.scan(start, end, 1000) == expected
