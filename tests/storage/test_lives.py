"""Keys with a life: when they end, and what else ends or changes a life, on every kind of store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import (
    FEATURES_COUNTERS,
    FEATURES_LIVES,
    AdvanceClock,
    CommandBody,
    CompareAndSet,
    Delete,
    DeleteMany,
    Increment,
    Put,
    PutMany,
    Result,
    SetKey,
    SetLife,
    Step,
    SwitchOn,
    Transaction,
)
from raftd.storage import lives as lives_module
from raftd.storage.state import StateMachine, read_head
from raftd.storage.store import MemoryStore, Store
from raftd.transactions import Append, Outcome
from tests.storage.stores import NewStore, contents
from tests.storage.test_state import Log
from tests.storage.test_state import Replica as AnyReplica


class Replica(AnyReplica):
    """A state machine with the features switched on, and cluster time in the test's hands."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.time_ms = 0
        self.run(SwitchOn(version=FEATURES_LIVES, time_ms=1))

    def transact(self, *steps: Step, session: str = "", serial: int = 0) -> Result:
        return self.run(Transaction((), steps, self.time_ms), session, serial)

    def step(self, step: Step) -> Outcome:
        (outcome,) = self.transact(step).outcomes
        return outcome

    def put(self, key: str, ttl_ms: int) -> None:
        assert self.step(SetKey(key, b"v", ttl_ms)).applied

    def advance(self, time_ms: int) -> int:
        self.time_ms = time_ms
        return self.run(AdvanceClock(time_ms)).number

    def keys(self) -> list[str]:
        return [item.key for item in self.all_keys()]

    def lives(self) -> dict[str, int]:
        return {item.key: item.deadline_ms for item in self.all_keys() if item.deadline_ms}


@pytest.fixture
def replica(new_store: NewStore) -> Replica:
    return Replica(new_store())


# --- the end of a life ----------------------------------------------------------------------


def test_a_key_ends_with_the_entry_that_brings_its_deadline(replica: Replica) -> None:
    replica.put("short", 500)
    replica.put("long", 501)
    assert replica.advance(499) == 0
    assert replica.keys() == ["long", "short"]
    assert replica.advance(500) == 1
    assert replica.keys() == ["long"]
    assert replica.machine.revision == 3
    assert replica.machine.life_count == 1


def test_a_life_counts_from_the_time_in_the_entry_that_gave_it(replica: Replica) -> None:
    replica.time_ms = 10_000
    replica.put("k", 500)
    assert replica.lives() == {"k": 10_500}
    assert replica.machine.clock_ms == 10_000


def test_cluster_time_never_goes_back(replica: Replica) -> None:
    replica.advance(10_000)
    replica.time_ms = 4_000
    replica.put("k", 500)
    assert replica.machine.clock_ms == 10_000
    assert replica.lives() == {"k": 10_500}
    replica.advance(9_000)
    assert replica.machine.clock_ms == 10_000


def test_cluster_time_is_in_the_hash() -> None:
    hashes = set()
    for time_ms in (5, 6):
        replica = Replica(MemoryStore())
        replica.advance(time_ms)
        hashes.add(replica.machine.effects_hash)
    assert len(hashes) == 2


def test_a_transaction_moves_the_time_and_ends_nothing(replica: Replica) -> None:
    replica.put("k", 500)
    replica.time_ms = 1_000
    replica.put("other", 500)
    assert replica.keys() == ["k", "other"]
    assert replica.advance(1_000) == 1


def test_many_keys_end_in_the_order_of_their_deadlines_some_with_each_entry(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lives_module, "EXPIRED_MAX", 3)
    for number in range(7):
        replica.put(f"k{number}", 700 - 100 * number)
    assert replica.advance(600) == 3
    assert replica.keys() == ["k0", "k1", "k2", "k3"]
    assert replica.advance(600) == 3
    assert replica.keys() == ["k0"]
    assert replica.advance(600) == 0


@pytest.mark.parametrize("store_again", [False, True])
def test_lives_and_the_time_are_in_the_state(replica: Replica, store_again: bool) -> None:
    replica.time_ms = 77
    replica.put("a", 500)
    replica.put("b", 300)
    machine = StateMachine(replica.store) if store_again else replica.machine
    assert (machine.clock_ms, machine.life_count, machine.earliest_deadline()) == (77, 2, 377)
    assert machine.features == FEATURES_LIVES
    assert read_head(replica.store).format == FEATURES_LIVES


def test_without_the_features_nothing_is_done_and_the_format_stays() -> None:
    replica = AnyReplica(MemoryStore())
    replica.run(SwitchOn(version=FEATURES_COUNTERS, time_ms=1))
    for body in (Transaction((), (SetKey("k", b"v"),), 5), AdvanceClock(5)):
        result = replica.run(body)
        assert (result.applied, result.code) == (False, "invalid")
        assert "features of version 5 are not switched on: upgrade every member" in result.message
    assert (replica.machine.clock_ms, replica.machine.revision) == (0, 0)
    assert read_head(replica.store).format == FEATURES_COUNTERS


# --- what ends or changes a life ------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "lives_on"),
    [
        (Put("k", b"7"), False),
        (CompareAndSet("k", b"7", b"8"), False),
        (PutMany([("k", b"7")]), False),
        (Increment("k", 1), True),
        (Transaction((), (SetKey("k", b"8"),)), False),
        (Transaction((), (SetKey("k", b"8", keep_life=True),)), True),
        (Transaction((), (Append("k", b"8"),)), True),
        (Transaction((), (SetLife("k", 0),)), False),
    ],
)
def test_what_ends_the_life_of_a_key_that_stays(
    replica: Replica, body: CommandBody, lives_on: bool
) -> None:
    replica.step(SetKey("k", b"7", 500))
    assert replica.run(body).applied
    assert replica.lives() == ({"k": 500} if lives_on else {})
    replica.advance(1_000)
    assert replica.keys() == ([] if lives_on else ["k"])


@pytest.mark.parametrize("body", [Delete("k"), DeleteMany(["k"])])
def test_a_key_that_is_made_again_has_no_life_of_its_last_one(
    replica: Replica, body: CommandBody
) -> None:
    replica.put("k", 500)
    replica.run(body)
    assert replica.machine.life_count == 0
    replica.run(Increment("k", 1))
    assert replica.advance(1_000) == 0
    assert replica.keys() == ["k"]


def test_a_put_under_a_condition_that_does_not_hold_leaves_the_life(replica: Replica) -> None:
    replica.put("k", 500)
    for body in (Put("k", b"x", True), Put("k", b"x", False, 99), CompareAndSet("k", b"n", b"x")):
        assert not replica.run(body).applied
    assert replica.lives() == {"k": 500}


def test_a_new_life_takes_the_place_of_the_old_one(replica: Replica) -> None:
    replica.put("k", 500)
    replica.put("k", 900)
    assert replica.machine.life_count == 1
    assert replica.advance(500) == 0
    assert replica.advance(900) == 1


@pytest.mark.parametrize(
    ("before", "condition", "ttl_ms", "applied"),
    [
        (0, "", 100, True),
        (0, "nx", 100, True),
        (500, "nx", 100, False),
        (0, "xx", 100, False),
        (500, "xx", 100, True),
        # To live for ever is the longest life.
        (0, "gt", 100, False),
        (500, "gt", 501, True),
        (500, "gt", 500, False),
        (0, "lt", 100, True),
        (500, "lt", 499, True),
        (500, "lt", 500, False),
        (0, "", 0, False),
        (500, "", 0, True),
    ],
)
def test_the_conditions_of_a_new_life(
    replica: Replica, before: int, condition: str, ttl_ms: int, applied: bool
) -> None:
    replica.step(SetKey("k", b"v", before))
    outcome = replica.step(SetLife("k", ttl_ms, condition))
    after = ttl_ms if applied else before
    assert outcome == Outcome(applied, ttl_ms=after or None)
    assert replica.lives() == ({"k": after} if after else {})
    # A life is no change of the key.
    assert replica.machine.revision == 1


def test_a_life_that_is_over_already_removes_the_key_if_its_condition_holds(
    replica: Replica,
) -> None:
    replica.put("k", 500)
    assert not replica.step(SetLife("k", -1, "nx")).applied
    assert not replica.step(SetLife("k", -1, "gt")).applied
    assert replica.step(SetLife("k", -1, "lt")).applied
    assert replica.keys() == []
    assert replica.machine.life_count == 0
    assert not replica.step(SetLife("k", -1)).applied
    assert not replica.step(SetLife("k", 500)).applied


# --- all of it together ---------------------------------------------------------------------

KEYS = st.sampled_from("abc")
BODIES = st.one_of(
    st.builds(Put, KEYS, st.just(b"1")),
    st.builds(Delete, KEYS),
    st.builds(Increment, KEYS, st.just(1)),
    st.builds(
        lambda *step: Transaction((), (SetKey(*step),)),
        *(KEYS, st.just(b"1"), st.integers(0, 50), st.just(False), st.booleans()),
    ),
    st.builds(
        lambda *step: Transaction((), (SetLife(*step),)),
        *(KEYS, st.integers(-1, 50), st.sampled_from(["", "nx", "xx", "gt", "lt"])),
    ),
    st.none(),
)


@given(st.lists(st.tuples(st.integers(0, 40), BODIES), max_size=40), st.integers(1, 7))
def test_the_index_is_that_of_the_keys_and_batches_do_not_matter(
    commands: list[tuple[int, CommandBody | None]], size: int
) -> None:
    log, time_ms = Log(), 0
    entries = [log.command(SwitchOn(version=FEATURES_LIVES, time_ms=1))]
    for passed_ms, body in commands:
        time_ms += passed_ms
        if isinstance(body, Transaction):
            body = Transaction(body.conditions, body.steps, time_ms)
        entries.append(log.command(AdvanceClock(time_ms) if body is None else body))
    one, other = StateMachine(MemoryStore()), StateMachine(MemoryStore())
    for entry in entries:
        one.apply([entry])
        pairs = dict(contents(one._store))
        lives = {key[1:]: value for key, value in pairs.items() if key[:1] == b"E"}
        places = sorted(key[1:] for key in pairs if key[:1] == b"D")
        assert places == sorted(value + key for key, value in lives.items())
        assert all(b"K" + key in pairs for key in lives)
        assert one.life_count == len(lives)
        earliest = one.earliest_deadline()
        assert earliest == min((int.from_bytes(at) for at in lives.values()), default=None)
    for start in range(0, len(entries), size):
        other.apply(entries[start : start + size])
    assert contents(one._store) == contents(other._store)
    assert one.effects_hash == other.effects_hash
