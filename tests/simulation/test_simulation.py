"""Simulated runs: a short set in which nothing is found, and proof that something would be.

A failure shows the end of its trace and the commands that repeat it and make it shorter. The same
runs again, and many more: `python -m tests.simulation --help`.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import attrs
import pytest

from raftd.core.snapshot import SnapshotId
from tests.simulation.broken import does_not_sync, votes_blindly
from tests.simulation.invariants.all import ALL
from tests.simulation.machine import POINTS, Machine
from tests.simulation.profile import MILLISECOND, SECOND, Step, draw
from tests.simulation.replay import explain
from tests.simulation.report import Schedule, Tally, summary
from tests.simulation.run import NotAlive, Outcome, Simulation, simulate
from tests.simulation.search import ENDLESS, run_seed, search
from tests.simulation.soak import Plan, soak

EARLY_US = 3_000_000
"""Of the time of a run, in which the attacks last for some seconds."""
GROUPS = 8
GROUP_SEEDS = 7
SOAK_SEEDS = 2_000
FINDING_SEEDS_MAX = 60
"""A bug in the server has to be found in so many seeds; usually a tenth is enough."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Nobody reads what simulated servers say, and saying it takes time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def first_seed(seed: int, group: int) -> int:
    """Return where the seeds of a group begin."""
    return (seed * GROUPS + group) * GROUP_SEEDS


@functools.cache
def outcomes(seed: int, group: int) -> tuple[Outcome, ...]:
    """Run the seeds of a group, once for all tests."""
    begin = first_seed(seed, group)
    return tuple(run_seed(begin + number) for number in range(GROUP_SEEDS))


def fail_if_found(outcome: Outcome) -> None:
    """Fail with everything that a person needs, if a run has found something."""
    if outcome.property:
        pytest.fail(explain(outcome, Schedule(seed=outcome.seed)), pytrace=False)


@pytest.mark.parametrize("group", range(GROUPS))
def test_nothing_is_found_in_a_short_set_of_runs(seed: int, group: int) -> None:
    for outcome in outcomes(seed, group):
        fail_if_found(outcome)


def test_the_short_set_meets_what_it_is_meant_to_meet(seed: int) -> None:
    tally = Tally()
    for group in range(GROUPS):
        for outcome in outcomes(seed, group):
            tally.add(outcome)
    counted = tally.counted
    least = {
        "elections won": 150,
        "entries committed": 1_200,
        "operations of clients": 1_200,
        "operations of batching clients": 1_200,
        "commands of batches: increments": 200,
        "commands of batches: several keys set": 150,
        "commands of batches: several keys deleted": 100,
        "reads of which a part was answered": 1,
        "commits under two majorities": 50,
        "changes begun": 80,
        "configurations committed: joint": 50,
        "configurations committed: final": 50,
        "configurations committed: simple": 50,
        "configurations committed: abort": 1,
        "changes begun: apply": 2,
        "changes begun: readdress": 1,
        "rolling operations: begin": 6,
        "rolling operations: step": 10,
        "rolling operations: end": 3,
        "fault: upgrade": 30,
        "fault: move": 5,
        "features switched on": GROUPS * GROUP_SEEDS // 2,
        "features switched on after an upgrade": GROUPS * GROUP_SEEDS // 10,
        "suffixes of logs replaced": 10,
        "torn batches cut off": 1,
        "disks replaced after a refusal": 1,
        "fault: bit flip": 2,
        "fault: disk wiped": 4,
        "fault: kill": 30,
        "fault: power off": 30,
        "fault: pause": 15,
        "fault: partition": 40,
        "fault: leader isolated": 10,
        "fault: one-way cut": 10,
        "fault: leader taken for dead": 20,
        "fault: message lost": 50,
        "fault: message doubled": 15,
        "fault: message may be overtaken": 15,
        "fault: long absence": 10,
        "fault: disk: nearly full": 1,
        "fault: bit flip in a part of a snapshot": 1,
        "fault: install hit: link": 1,
        "fault: install hit: point": 1,
        "fault: install hit: sender": 1,
        "fault: lease hit": 20,
        "starts with another configuration of leases": 10,
        "reads answered by a server that does not lead": 30,
        "reads answered under a lease": 100,
        "snapshots taken": 300,
        "snapshots with a joint configuration": 10,
        "snapshots installed": 80,
        "parts of snapshots received": 800,
        "parts of snapshots received twice": 4,
        "installs answered as not needed": 10,
        "installs resumed after a restart": 1,
        "installs that another leader has gone on with": 1,
        "logs compacted": 100,
        "logs reset": 80,
        "starts with a live state that has survived": 40,
        "starts with a state built from a snapshot": 60,
        "phase met by a fault: C_old,new": 15,
        "phase met by a fault: C_new uncommitted": 15,
        "runs to the end": GROUPS * GROUP_SEEDS * 9 // 10,
    }
    missed = {name: counted[name] for name, number in least.items() if counted[name] < number}
    assert not missed, f"too seldom: {missed}\n{summary(tally)}"
    points = {point for point in range(1, POINTS + 1) if counted[f"crash at point {point}"]}
    assert len(points) >= POINTS // 2, summary(tally)


PUBLISHING_POINT = 12
CHANGES = ("add", "replace", "transfer", "remove", "add", "promote", "replace-all", "replace")


@pytest.mark.parametrize("point", range(1, POINTS + 1))
def test_everybody_survives_crashes_at_each_numbered_point(seed: int, point: int) -> None:
    profile = attrs.evolve(
        draw(seed * POINTS + point),
        voters=3,
        spares=3,
        limits=(),
        malice=0.0,
        release="new",
        old_chance=0.0,
        begins_bad=False,
        segment_bytes=1_024,
        snapshot_log_bytes=500,
        background_us=20 * MILLISECOND,
        duration_us=(len(CHANGES) + 1) * SECOND,
        steps=tuple(
            Step(number=number, at_us=number * SECOND, kind=kind)
            for number, kind in enumerate(CHANGES, 1)
        ),
    )
    random = Random(f"{seed} {point}")
    # An identity is published once or twice by a process: when it joins, and when it is removed.
    # A snapshot is installed once by a new server.
    times = 1 if point >= PUBLISHING_POINT else 3
    simulation = Simulation(profile, None, frozenset(), None, ALL)
    world = simulation.world

    def arm_everybody() -> None:
        if simulation.adversary.is_active:
            for machine in simulation.machines:
                machine.arm(point, random.randint(1, times), loses_power=random.random() < 0.5)
        world.after(2 * SECOND, arm_everybody)

    arm_everybody()
    with simulation.watch.counting():
        try:
            simulation.run()
        except NotAlive as failure:
            raise AssertionError(f"{failure}\n{simulation.describe()}") from failure
    assert world.counted[f"crash at point {point}"] > 0


def test_an_install_that_a_log_has_overtaken_keeps_what_follows(seed: int) -> None:
    """Chance seldom brings about a log that agrees with a snapshot and goes on after its end."""
    profile = attrs.evolve(
        draw(seed),
        voters=4,
        clients=2,
        limits=(),
        malice=0.0,
        release="new",
        old_chance=0.0,
        steps=(),
        segment_bytes=1_024,
        snapshot_log_bytes=500,
        background_us=MILLISECOND,
        loses_new_half=False,
    )
    simulation = Simulation(profile, None, frozenset(), None, ALL)
    world, operator, network = simulation.world, simulation.operator, simulation.network
    first, other, receiver, hoarder = simulation.machines[:4]
    # It never takes a snapshot, so it can feed everybody from its log.
    hoarder._settings = attrs.evolve(hoarder._settings, snapshot_log_bytes=10**9)

    def wait(what: str, condition: Callable[[], bool]) -> None:
        simulation._wait(condition, 20 * SECOND, what)

    def leader_is(machine: Machine) -> bool:
        if not machine.leads:
            operator.transfer(machine)
        return machine.leads

    def received(machine: Machine, snapshot: SnapshotId, received_bytes: int) -> None:
        if machine is receiver and received_bytes == snapshot.size_bytes:
            machine.background_from_us = world.now_us + 60 * SECOND

    with simulation.watch.counting():
        simulation._form()
        wait("the first one leads", lambda: leader_is(first))
        receiver.keep_down()
        last_index = len(receiver.durable.entries)
        wait("the log is short", lambda: first.raft.log.base_index > last_index)
        receiver.on_received, receiver.is_held = received, False
        receiver.start()
        wait("the snapshot is there", lambda: receiver.background_from_us > world.now_us)
        snapshot = receiver.snapshots.directory.receiving
        assert snapshot is not None
        wait("the other one leads", lambda: leader_is(hoarder))
        wait(
            "the log has overtaken the snapshot",
            lambda: receiver.raft.log.last_index > snapshot.last_included_index + 1,
        )
        # What it knows to be committed is lost with its memory. It hears nothing meanwhile.
        receiver.is_held = True
        receiver.end(loses_power=False)
        receiver._survivor = None
        network.partition([receiver.name], [first.name, other.name])
        receiver.background_from_us, receiver.is_held = 0, False
        receiver.start()
        assert receiver.raft.log.base_index < snapshot.last_included_index
        wait("it is installed", lambda: receiver.snapshots.latest.id == snapshot)
        assert world.counted["installs that kept a suffix of the log"] == 1
        assert receiver.raft.log.base_index == snapshot.last_included_index
        network.heal()
        simulation._check(simulation._heal())


def test_a_seed_repeats_its_run(seed: int) -> None:
    for outcome in outcomes(seed, 0)[:3]:
        assert simulate(outcome.seed) == outcome


def test_runs_do_not_depend_on_the_process_that_they_are_in(seed: int) -> None:
    program = (
        "import logging, sys; logging.disable(); from tests.simulation.run import simulate; "
        "print(*(simulate(int(seed)).hash for seed in sys.argv[1:]), sep='\\n')"
    )
    here = outcomes(seed, 1)[:4]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, *(str(outcome.seed) for outcome in here)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": string_hashes},
            stdout=subprocess.PIPE,
            text=True,
        )
        for string_hashes in ("1", "2")
    ]
    printed = [process.communicate()[0].split() for process in processes]
    hashes = [outcome.hash for outcome in here]
    assert printed == [hashes, hashes]


def test_different_seeds_make_different_runs(seed: int) -> None:
    hashes = [outcome.hash for group in range(GROUPS) for outcome in outcomes(seed, group)]
    assert len(set(hashes)) == len(hashes)


# --- schedules with less in them ---


def a_seed_with(seed: int, wanted: str) -> int:
    """Return a seed of the short set in whose run something was counted, and work was done early.

    Some runs are attacked so hard that no request is answered before they are healed.
    """
    for group in range(GROUPS):
        for outcome in outcomes(seed, group):
            answers = [event["time_us"] for event in outcome.history if event["type"] == "ok"]
            is_early = min(answers, default=EARLY_US) < EARLY_US
            if is_early and any(name.startswith(wanted) for name in outcome.counted):
                return outcome.seed
    raise AssertionError(f"{wanted} has not happened in the short set")


def test_only_the_steps_that_are_kept_happen(seed: int) -> None:
    kind = "fault: power off"
    number = a_seed_with(seed, kind)
    steps = draw(number).steps
    quiet = ("malice", "loss", "duplication", "reordering")
    everything = simulate(number)
    assert simulate(number, kept=[step.number for step in steps]) == everything
    some = simulate(
        number, kept=[step.number for step in steps if step.kind == "power-off"], dropped=quiet
    )
    nothing = simulate(number, kept=(), dropped=quiet)
    assert {name for name in some.counted if name.startswith("fault: ")} == {kind}
    assert not any(name.startswith("fault: ") for name in nothing.counted)
    assert nothing.property == ""


@pytest.mark.parametrize(
    ("feature", "counter"),
    [
        ("loss", "fault: message lost"),
        ("duplication", "fault: message doubled"),
        ("reordering", "fault: message may be overtaken"),
        ("malice", "fault: aimed at "),
    ],
)
def test_what_is_dropped_does_not_happen(seed: int, feature: str, counter: str) -> None:
    outcome = simulate(a_seed_with(seed, counter), dropped=(feature,))
    assert not any(name.startswith(counter) for name in outcome.counted)


def test_a_single_malicious_act_can_be_dropped(seed: int) -> None:
    number = a_seed_with(seed, "fault: aimed at ")
    everything = simulate(number)
    assert any(simulate(number, dropped=(f"m{act}",)) != everything for act in range(1, 11))
    assert simulate(number, dropped=("m99999",)) == everything


def test_a_run_is_attacked_and_then_healed(seed: int) -> None:
    lines: list[str] = []
    outcome = simulate(a_seed_with(seed, "fault: power off"), emit=lines.append)
    events = [event for event in map(json.loads, lines) if "event" in event]
    (healing,) = (number for number, event in enumerate(events) if event["event"] == "heals")
    before, after = events[:healing], events[healing:]
    assert any(event["event"] == "fault" for event in before)
    assert any(event["event"] == "apply" for event in before)
    assert not any(event["event"] == "fault" for event in after)
    assert any(event["event"] == "apply" for event in after)
    healed_us = events[healing]["time_us"]
    acknowledged = [event for event in outcome.history if event["type"] == "ok"]
    assert min(event["time_us"] for event in acknowledged) < healed_us
    assert max(event["time_us"] for event in acknowledged) > healed_us
    assert outcome.history[-1]["type"] == "final" or outcome.history[-2]["type"] == "ok"


# --- broken servers ---


@pytest.mark.parametrize(
    ("breaks", "properties"),
    [
        (votes_blindly, {"Leader Completeness"}),
        (does_not_sync, {"Durability", "Recovery finds what was durable"}),
    ],
)
def test_a_broken_server_is_found(
    seed: int,
    breaks: Callable[[pytest.MonkeyPatch], None],
    properties: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaks(monkeypatch)
    found = search(first_seed(seed, 0), FINDING_SEEDS_MAX)
    assert found.failed is not None
    assert found.failed.property in properties
    assert found.failed.seed == first_seed(seed, 0) + found.seeds_run - 1


def test_a_failure_is_told_with_its_trace_and_with_what_repeats_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    does_not_sync(monkeypatch)
    failed = search(first_seed(seed, 0), FINDING_SEEDS_MAX).failed
    assert failed is not None
    with pytest.raises(pytest.fail.Exception) as raised:
        fail_if_found(failed)
    text = str(raised.value)
    assert f"FAILS: {failed.property}" in text
    assert failed.error.splitlines()[0] in text
    assert "n1/" in text.partition("the end of its trace")[2]
    assert f"python -m tests.simulation replay {failed.seed}" in text
    assert f"python -m tests.simulation shrink {failed.seed}" in text
    assert "NOT REPEATABLE" not in text


def test_a_failure_that_does_not_repeat_is_told_as_such(seed: int) -> None:
    outcome = attrs.evolve(outcomes(seed, 0)[0], property="Liveness", error="nothing came", hash="")
    text = explain(outcome, Schedule(seed=outcome.seed))
    assert "FAILS: Liveness\nnothing came" in text
    assert "NOT REPEATABLE" in text


def test_a_run_without_an_end_is_a_failure(seed: int) -> None:
    outcome = run_seed(a_seed_with(seed, "fault: message lost"), seconds_max=0.01)
    assert outcome.property == ENDLESS
    assert "has not ended after 0.01 s of processor time\nTraceback" in outcome.error


# --- many ---


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_nothing_is_found_in_a_long_set_of_runs(seed: int) -> None:
    plan = Plan(first_seed=seed * 1_000_000, seeds=SOAK_SEEDS, jobs=os.cpu_count() or 1)
    progress = soak(plan, lambda progress: None, say_every_s=60.0)
    assert progress.tally.seeds == SOAK_SEEDS
    print(summary(progress.tally))
    assert not progress.tally.failures, summary(progress.tally)
