"""The search against the definition, on many random histories, and its speed on long ones."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.history.brute_force import linearizable_by_memo, linearizable_by_permutations
from tests.history.checker import check
from tests.history.format import Operation, read_history
from tests.history.linearizability import Undecided, search
from tests.history.script import history
from tests.history.simulated import Event, Load, mutated, simulated_history

SMALL_HISTORIES = 3_000
MEDIUM_HISTORIES = 800
MUTATIONS = 2
"""Each history is judged as it is, and after each of so many mutations."""


def draw_load(random: Random, operations_min: int, operations_max: int) -> Load:
    return Load(
        operations=random.randint(operations_min, operations_max),
        clients=random.randint(2, 5),
        unknown_rate=random.choice([0.0, 0.2, 0.6]),
        fail_rate=random.choice([0.0, 0.1]),
        values=random.choice([2, 3, None]),
        reads_rate=random.choice([0.2, 0.5]),
        blind_rate=random.choice([0.2, 0.6, 0.9]),
    )


def operations_of(events: list[Event]) -> list[Operation]:
    return read_history(events).operations["k0"]


def compare(
    seed: int,
    count: int,
    size: tuple[int, int],
    definition: Callable[[list[Operation]], bool],
) -> None:
    verdicts = {True: 0, False: 0}
    for number in range(count):
        random = Random(f"{seed} {number}")
        events = simulated_history(random.getrandbits(32), draw_load(random, *size))
        for mutation in range(MUTATIONS + 1):
            operations = operations_of(events)
            found = search(operations)
            assert not isinstance(found, Undecided)
            expected = definition(operations)
            assert (found is None) == expected, (seed, number, mutation, events)
            assert expected or mutation > 0, (seed, number, events)
            verdicts[expected] += 1
            events = mutated(random, events)
    # Neither verdict is so rare that the comparison would say little about it.
    assert min(verdicts.values()) > count // 10


def test_search_agrees_with_all_permutations(seed: int) -> None:
    compare(seed, SMALL_HISTORIES, (2, 7), linearizable_by_permutations)


def test_search_agrees_with_the_definition_on_longer_histories(seed: int) -> None:
    compare(seed, MEDIUM_HISTORIES, (8, 16), linearizable_by_memo)


@pytest.mark.parametrize("values", [4, None], ids=["few values", "unique values"])
@pytest.mark.parametrize("clients", [10, 30])
@pytest.mark.parametrize("unknown_rate", [0.0, 0.2, 0.5])
def test_simulator_sized_histories_are_decided(
    seed: int, clients: int, unknown_rate: float, values: int | None
) -> None:
    load = Load(operations=300, clients=clients, keys=3, unknown_rate=unknown_rate, values=values)
    for number in range(5):
        verdict = check(simulated_history(seed * 1_000 + number, load))
        assert verdict.ok, verdict.problems + verdict.undecided


@pytest.mark.parametrize(("keys", "clients"), [(5, 20), (1, 10)])
def test_20_000_operations_are_decided(seed: int, keys: int, clients: int) -> None:
    load = Load(operations=20_000, clients=clients, keys=keys, unknown_rate=0.05, values=None)
    events = simulated_history(seed, load)
    verdict = check(events)
    assert verdict.ok, verdict.problems + verdict.undecided
    assert (verdict.operations, verdict.keys) == (20_000, keys)


def test_one_wrong_answer_among_20_000_operations_is_found(seed: int) -> None:
    load = Load(operations=20_000, clients=20, keys=5, unknown_rate=0.05, values=None)
    events = simulated_history(seed, load)
    reads = [
        index
        for index, event in enumerate(events)
        if event["type"] == "ok" and event.get("value") is not None
    ]
    stale, later = reads[100], reads[-1]
    events[later] = {**events[later], "value": events[stale]["value"]}
    verdict = check(events)
    assert verdict.undecided == ()
    (problem,) = verdict.problems
    assert f"the first {later + 1} lines" in problem


def test_many_concurrent_writes_that_nobody_reads_are_decided_at_once() -> None:
    # 2^30 sets of writes could stand before each completion.
    writes = [
        {
            "type": "invoke",
            "op": op,
            "client": f"c{op}",
            "kind": "put",
            "key": "x",
            "value": f"{op}",
        }
        for op in range(30)
    ]
    completions = [{"type": "ok", "op": op} for op in range(30)]
    operations = read_history([*writes, *completions]).operations["x"]
    assert search(operations, visited_max=100) is None


def test_unknown_writes_that_nobody_reads_do_not_multiply() -> None:
    # A thousand of them could be the reason why each cas was not applied.
    events: list[Event] = []
    for op in range(1_000):
        events.append({"type": "invoke", "op": op, "client": "c", "kind": "put", "key": "x"})
        events[-1]["value"] = f"u{op}"
    for op in range(1_000, 1_400, 2):
        head = {"client": "c", "key": "x"}
        events.append({"type": "invoke", "op": op, "kind": "put", "value": "1", **head})
        events.append({"type": "ok", "op": op})
        call = {"kind": "cas", "expected": "1", "value": "2", **head}
        events.append({"type": "invoke", "op": op + 1, **call})
        events.append({"type": "ok", "op": op + 1, "applied": False})
    assert search(read_history(events).operations["x"], visited_max=5_000) is None


def test_unknown_writes_are_one_when_nobody_looks_for_them_any_more() -> None:
    # Each of the writes may have stood before the first cas; after the last look it is all one.
    writes = [f"put x u{number} -> unknown" for number in range(30)]
    cas = ["put x 1 -> ok", "cas x 1 2 -> false"]
    looks = [f"cas x u{number} 2 -> false" for number in range(30)]
    script = [*writes, *cas, *looks, *cas * 20]
    operations = read_history(history("\n".join(script))).operations["x"]
    assert search(operations, visited_max=600) is None
