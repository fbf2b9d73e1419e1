"""The hash of a store: the same for the same contents, whatever has led to them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.storage.store import STORE_KEY_BYTES_MAX, MemoryStore
from tests.storage import hashed_store
from tests.storage.hashed_store import HashedStore
from tests.storage.stores import contents

Pairs = Iterable[tuple[bytes, bytes]]


def holding(pairs: Pairs) -> HashedStore:
    """Return a store that was given `pairs`, each in a transaction of its own."""
    store = HashedStore(MemoryStore())
    for key, value in pairs:
        with store.transaction():
            store.put(key, value)
    return store


def test_an_empty_store_has_the_hash_0() -> None:
    store = holding([(b"a", b"1")])
    assert store.state_hash != 0
    with store.transaction():
        store.delete(b"a")
    assert store.state_hash == 0 == HashedStore(MemoryStore()).state_hash


def test_the_order_of_the_changes_does_not_matter() -> None:
    pairs = [(b"a", b"1"), (b"b", b"2"), (b"c", b"")]
    assert holding(pairs).state_hash == holding(reversed(pairs)).state_hash


def test_a_value_that_was_replaced_has_left_nothing_behind() -> None:
    assert holding([(b"a", b"1"), (b"a", b"2")]).state_hash == holding([(b"a", b"2")]).state_hash


def test_to_put_the_same_value_again_changes_nothing() -> None:
    assert holding([(b"a", b"1"), (b"a", b"1")]).state_hash == holding([(b"a", b"1")]).state_hash


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([(b"a", b"1")], [(b"a", b"2")]),
        ([(b"a", b"1")], [(b"b", b"1")]),
        ([(b"a", b"1"), (b"b", b"2")], [(b"a", b"2"), (b"b", b"1")]),
        ([(b"ab", b"c")], [(b"a", b"bc")]),
        ([(b"a", b"")], []),
    ],
    ids=["value", "key", "values exchanged", "boundary", "empty value"],
)
def test_other_contents_have_another_hash(one: Pairs, other: Pairs) -> None:
    assert holding(one).state_hash != holding(other).state_hash


def test_the_hash_is_the_documented_one() -> None:
    # It stands in files that outlive a release.
    assert f"{holding([(b'key', b'value')]).state_hash:016x}" == "50bf8e64c67e5281"
    assert f"{holding([(b'key', b'value'), (b'k', b'')]).state_hash:016x}" == "f8278e95bcbf0d52"


def test_the_hash_inside_a_transaction_has_what_was_written_so_far() -> None:
    store = holding([(b"a", b"1")])
    with store.transaction():
        store.put(b"b", b"2")
        assert store.state_hash == holding([(b"a", b"1"), (b"b", b"2")]).state_hash


def test_a_store_that_holds_something_already_is_hashed_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hashed_store, "_SCAN_PAIRS", 3)
    pairs = [(bytes((number,)), b"v") for number in range(10)]
    pairs += [(b"\x05\x00", b""), (b"\xff" * STORE_KEY_BYTES_MAX, b"last")]
    inner = MemoryStore()
    with inner.transaction():
        for key, value in pairs:
            inner.put(key, value)
    assert HashedStore(inner).state_hash == holding(pairs).state_hash


changes = st.lists(
    st.tuples(
        st.lists(
            st.tuples(
                st.binary(min_size=1, max_size=2), st.one_of(st.none(), st.binary(max_size=2))
            ),
            max_size=6,
        ),
        st.booleans(),
    ),
    max_size=6,
)


@given(batches=changes)
def test_the_hash_is_that_of_the_contents_whatever_the_history(
    batches: list[tuple[list[tuple[bytes, bytes | None]], bool]],
) -> None:
    store = HashedStore(MemoryStore())
    for batch, fails in batches:
        try:
            with store.transaction():
                for key, value in batch:
                    if value is None:
                        store.delete(key)
                    else:
                        store.put(key, value)
                if fails:
                    raise RuntimeError
        except RuntimeError:
            pass
        assert store.state_hash == holding(contents(store)).state_hash
