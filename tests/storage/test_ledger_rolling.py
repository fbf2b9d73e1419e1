"""Rolling operations in the ledger: what may run beside them, and who may change their records."""

from __future__ import annotations

import msgpack
import pytest

from raftd.commands import (
    ABORTED,
    CATCHING_UP,
    DONE,
    ENDED,
    FAILED,
    FEATURES_MAX,
    PENDING,
    ROLLING,
    ROLLING_REPLACE,
    RUNNING,
    SKIPPED,
    AbortOperation,
    BeginOperation,
    BeginRolling,
    EndOperation,
    Operation,
    Plan,
    Result,
    Rolling,
    RollingStep,
    SwitchOn,
    UpdateRolling,
)
from raftd.core.membership import ConfigurationKind
from raftd.storage import ledger as ledger_module
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from tests.storage.test_state import Replica

STEPS = (
    RollingStep(name="n2", replacement="n5=h:5"),
    RollingStep(name="n1", replacement="n4=h:4"),
)


class Cluster(Replica):
    """A replica with the features switched on, a first configuration and an open session."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.machine.apply([self.log.configuration(kind=ConfigurationKind.BOOTSTRAP)])
        self.run(SwitchOn(version=FEATURES_MAX, time_ms=1))
        self.open("s")
        self.serial = 0

    def ask(self, body: BeginRolling | UpdateRolling | BeginOperation | AbortOperation) -> Result:
        self.serial += 1
        return self.run(body, "s", self.serial)

    def begin(self, steps: tuple[RollingStep, ...] = STEPS) -> Result:
        return self.ask(
            BeginRolling(
                kind=ROLLING_REPLACE, author="ann", reason="old disks", time_ms=7, steps=steps
            )
        )

    def update(self, action: str, *, version: int | None = None, **fields: object) -> Result:
        newest = self.rolling.version if version is None else version
        fields = {"operation": "op-1", "author": "bob", "time_ms": 20, **fields}
        return self.ask(UpdateRolling(action=action, version=newest, **fields))

    def step(self, position: int, state: str, **fields: object) -> Result:
        step = RollingStep(name="ignored", state=state, **fields)
        return self.update("step", position=position, step=step)

    def begin_change(self, parent: str = "op-1") -> Result:
        plan = Plan(
            changes=(("voter", "n4/x"), ("remove", "n1/a")),
            joint=True,
            configuration_index=self.machine.configuration_index,
        )
        return self.ask(
            BeginOperation(
                kind="replace", author="ann", reason="", time_ms=8, plan=plan, parent=parent
            )
        )

    def end_change(self, operation: str) -> None:
        self.run(EndOperation(operation=operation, outcome=FAILED, reason="lost", time_ms=9))

    def abort(self, operation: str = "op-1") -> Result:
        return self.ask(
            AbortOperation(operation=operation, author="eve", reason="enough", time_ms=30)
        )

    def record(self, operation: str = "op-1") -> Operation:
        found = self.machine.operation(operation)
        assert found is not None
        return found

    @property
    def rolling(self) -> Rolling:
        found = self.record().rolling
        assert found is not None
        return found

    def check_restarted(self) -> None:
        """Assert that a machine which starts on the store knows the same."""
        again = StateMachine(self.store)
        assert again.rolling_operation == self.machine.rolling_operation
        assert again.running_operation == self.machine.running_operation
        assert again.operations() == self.machine.operations()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


# --- begin ------------------------------------------------------------------------------------


def test_a_rolling_operation_takes_a_number_and_has_all_its_steps_before_it(
    cluster: Cluster,
) -> None:
    asked = (RollingStep(name="n2", state=DONE, note="never", started_ms=5, operation="op-9"),)
    assert cluster.begin(asked) == Result(operation="op-1")
    record = cluster.record()
    assert (record.kind, record.author, record.reason) == (ROLLING_REPLACE, "ann", "old disks")
    assert (record.phase, record.running, record.plan.changes) == (ROLLING, True, ())
    assert [(at.phase, at.time_ms) for at in record.phases] == [(ROLLING, 7)]
    assert cluster.rolling == Rolling(
        steps=(RollingStep(name="n2"),), driver="ann", changed_ms=7, version=1
    )
    assert cluster.machine.rolling_operation == record
    assert cluster.machine.running_operation is None
    cluster.check_restarted()


def test_nothing_else_begins_while_a_rolling_operation_runs(cluster: Cluster) -> None:
    cluster.begin()
    for result in (cluster.begin(), cluster.begin_change(parent="")):
        assert (result.applied, result.code, result.operation) == (
            False,
            "operation-running",
            "op-1",
        )
        assert "driven by ann" in result.message
    assert [one.id for one in cluster.machine.operations()] == ["op-1"]


def test_a_rolling_operation_does_not_begin_while_a_change_of_members_runs(
    cluster: Cluster,
) -> None:
    assert cluster.begin_change(parent="").operation == "op-1"
    result = cluster.begin()
    assert (result.code, result.operation) == ("operation-running", "op-1")
    cluster.end_change("op-1")
    assert cluster.begin().operation == "op-2"


def test_a_step_runs_beside_its_rolling_operation_and_no_other_one_does(cluster: Cluster) -> None:
    cluster.begin()
    assert cluster.begin_change().operation == "op-2"
    assert cluster.record("op-2").parent == "op-1"
    running = cluster.machine.running_operation
    assert running is not None
    assert (running.id, running.phase) == ("op-2", CATCHING_UP)
    assert cluster.begin_change().operation == "op-2", "the one that is in the way"
    cluster.check_restarted()
    cluster.end_change("op-2")
    assert cluster.machine.rolling_operation == cluster.record()
    assert cluster.begin_change().operation == "op-3"
    cluster.check_restarted()


@pytest.mark.parametrize("parent", ["op-2", "op-0", "nonsense"])
def test_a_step_of_an_operation_that_does_not_run_is_refused(cluster: Cluster, parent: str) -> None:
    result = cluster.begin_change(parent)
    assert (result.applied, result.code, result.operation) == (False, "rolling-moved", parent)
    cluster.begin()
    assert cluster.begin_change(parent).code == "operation-running"
    cluster.update("pause")
    assert cluster.begin_change(parent).code == "rolling-moved"


def test_while_it_is_paused_other_changes_begin_and_its_own_steps_do_not(cluster: Cluster) -> None:
    cluster.begin()
    assert cluster.update("pause", reason="lunch") == Result(operation="op-1")
    result = cluster.begin_change("op-1")
    assert (result.code, result.operation) == ("rolling-moved", "op-1")
    assert "paused by bob (lunch)" in result.message
    assert cluster.begin_change(parent="").operation == "op-2"
    assert cluster.begin().code == "operation-running"
    result = cluster.update("resume")
    assert (result.code, result.operation) == ("operation-running", "op-2")
    cluster.end_change("op-2")
    assert cluster.begin().operation == "op-1", "also a paused one is in the way of another"
    assert cluster.update("resume").applied
    assert cluster.begin_change(parent="").code == "operation-running"


# --- changes of the record --------------------------------------------------------------------


def test_each_change_makes_a_new_version_and_refuses_whoever_has_not_seen_it(
    cluster: Cluster,
) -> None:
    cluster.begin()
    assert cluster.step(0, RUNNING).applied
    assert cluster.rolling.version == 2
    for version in (0, 1, 3):
        result = cluster.update("step", version=version, position=0, step=RollingStep(name="x"))
        assert (result.applied, result.code, result.operation) == (False, "rolling-moved", "op-1")
        assert "version 2" in result.message
        assert "driven by ann" in result.message
    assert cluster.rolling.version == 2


def test_of_two_drivers_the_one_that_resumed_last_gets_further(cluster: Cluster) -> None:
    cluster.begin()
    assert cluster.update("resume", author="bob").applied
    late = cluster.update("step", version=1, position=0, step=RollingStep(name="x", state=RUNNING))
    assert late.code == "rolling-moved"
    assert "driven by bob" in late.message
    assert cluster.step(0, RUNNING).applied


def test_a_step_keeps_its_name_and_has_the_times_of_the_log(cluster: Cluster) -> None:
    cluster.begin()
    cluster.step(0, RUNNING, replacement="evil=h:9", started_ms=99, uptime_ms=12)
    cluster.update(
        "step",
        position=0,
        time_ms=25,
        step=RollingStep(name="x", state=RUNNING, operation="op-2"),
    )
    cluster.update(
        "step", position=0, time_ms=29, step=RollingStep(name="x", state=DONE, note="fine")
    )
    assert cluster.rolling.steps[0] == RollingStep(
        name="n2",
        replacement="n5=h:5",
        state=DONE,
        started_ms=20,
        ended_ms=29,
        note="fine",
    )
    assert cluster.rolling.steps[1] == RollingStep(name="n1", replacement="n4=h:4")


def test_a_step_that_failed_begins_anew(cluster: Cluster) -> None:
    cluster.begin()
    cluster.step(0, RUNNING)
    cluster.step(0, FAILED, note="no room")
    assert (cluster.rolling.steps[0].state, cluster.rolling.steps[0].ended_ms) == (FAILED, 20)
    cluster.update("step", position=0, time_ms=40, step=RollingStep(name="x", state=RUNNING))
    step = cluster.rolling.steps[0]
    assert (step.state, step.started_ms, step.ended_ms) == (RUNNING, 40, 0)


NONSENSE = [
    {"action": "step", "position": 0},
    {"action": "step", "position": 0, "step": RollingStep(name="x", state="confused")},
    {"action": "step", "position": 0, "step": RollingStep(name="x", state=PENDING)},
    {"action": "step", "position": 2, "step": RollingStep(name="x", state=RUNNING)},
    {"action": "step", "position": -1, "step": RollingStep(name="x", state=RUNNING)},
    {"action": "end", "outcome": "perhaps"},
    {"action": "end", "outcome": DONE},
    {"action": "dance"},
]


@pytest.mark.parametrize("fields", NONSENSE)
def test_a_change_that_makes_no_sense_changes_nothing(cluster: Cluster, fields: dict) -> None:
    cluster.begin()
    before = cluster.record()
    result = cluster.update(**fields)
    assert (result.applied, result.code, result.operation) == (False, "invalid", "op-1")
    assert result.message
    assert cluster.record() == before


def test_at_most_one_step_runs(cluster: Cluster) -> None:
    cluster.begin()
    cluster.step(0, RUNNING)
    result = cluster.step(1, RUNNING)
    assert result.code == "invalid"
    assert "n2" in result.message
    cluster.step(0, SKIPPED)
    assert cluster.step(1, RUNNING).applied


def test_no_step_is_noted_while_it_is_paused(cluster: Cluster) -> None:
    cluster.begin()
    cluster.update("pause")
    assert cluster.step(0, RUNNING).code == "rolling-moved"
    assert cluster.update("pause").code == "invalid"
    assert (cluster.rolling.paused_by, cluster.rolling.version) == ("bob", 2)
    cluster.update("resume", author="cid")
    assert (cluster.rolling.paused_by, cluster.rolling.driver) == ("", "cid")
    assert cluster.step(0, RUNNING).applied


def test_a_membership_operation_is_not_changed_like_a_rolling_one(cluster: Cluster) -> None:
    cluster.begin_change(parent="")
    result = cluster.update("pause", version=1)
    assert (result.code, result.operation) == ("invalid", "op-1")
    assert cluster.update("pause", version=1, operation="op-7").code == "no-such-operation"


# --- the end ----------------------------------------------------------------------------------


def test_it_ends_done_when_every_step_is_done_or_skipped(cluster: Cluster) -> None:
    cluster.begin()
    cluster.step(0, DONE)
    assert cluster.update("end", outcome=DONE).code == "invalid"
    cluster.step(1, SKIPPED)
    assert cluster.update("end", outcome=DONE, time_ms=50).applied
    record = cluster.record()
    assert (record.phase, record.result, record.phases[-1].time_ms) == (ENDED, DONE, 50)
    assert cluster.machine.rolling_operation is None
    assert cluster.update("pause", version=cluster.rolling.version).code == "operation-ended"
    assert cluster.begin_change(parent="op-1").code == "rolling-moved"
    assert cluster.begin().operation == "op-2"
    cluster.check_restarted()


def test_it_does_not_end_while_its_step_runs(cluster: Cluster) -> None:
    cluster.begin()
    cluster.begin_change()
    result = cluster.update("end", outcome=FAILED)
    assert (result.code, result.operation) == ("operation-running", "op-2")


def test_aborting_it_ends_it_and_asks_that_its_step_be_undone(cluster: Cluster) -> None:
    cluster.begin()
    cluster.step(0, DONE)
    cluster.step(1, RUNNING, operation="op-2")
    cluster.begin_change()
    assert cluster.abort() == Result(operation="op-1")
    record = cluster.record()
    assert (record.phase, record.result, record.explanation) == (
        ENDED,
        ABORTED,
        "aborted by eve: enough",
    )
    assert (record.abort_requested_by, record.abort_reason) == ("eve", "enough")
    assert [step.state for step in cluster.rolling.steps] == [DONE, FAILED]
    running = cluster.machine.running_operation
    assert running is not None
    assert (running.id, running.abort_requested_by) == ("op-2", "eve")
    assert cluster.machine.rolling_operation is None
    cluster.check_restarted()
    cluster.end_change("op-2")
    cluster.check_restarted()
    assert cluster.abort().code == "operation-ended"


def test_aborting_it_leaves_a_change_alone_that_is_no_step_of_it(cluster: Cluster) -> None:
    cluster.begin()
    cluster.update("pause")
    cluster.begin_change(parent="")
    cluster.abort()
    assert cluster.record("op-2").abort_requested_by == ""
    assert cluster.record().result == ABORTED


def test_ending_it_like_a_membership_operation_does_nothing(cluster: Cluster) -> None:
    cluster.begin()
    cluster.end_change("op-1")
    assert cluster.record().running


def test_the_cluster_that_goes_on_from_a_backup_ends_what_ran_in_it(cluster: Cluster) -> None:
    cluster.begin()
    cluster.step(0, RUNNING, operation="op-2")
    cluster.begin_change()
    founding = cluster.log.configuration(
        kind=ConfigurationKind.BOOTSTRAP,
        operation="op-2",
        outcome=ABORTED,
        reason="restored",
        time_ms=60,
    )
    cluster.machine.apply([founding])
    assert cluster.machine.rolling_operation is None
    assert cluster.machine.running_operation is None
    assert (cluster.record().result, cluster.record().explanation) == (ABORTED, "restored")
    assert cluster.record("op-2").result == ABORTED
    cluster.check_restarted()


# --- the store --------------------------------------------------------------------------------


def test_the_counters_are_those_of_earlier_releases_while_none_runs(cluster: Cluster) -> None:
    cluster.begin_change(parent="")
    assert msgpack.unpackb(cluster.store.get(b"L")) == [1, True, 0]
    cluster.end_change("op-1")
    cluster.begin()
    assert msgpack.unpackb(cluster.store.get(b"L")) == [2, False, 1, 2]
    cluster.abort("op-2")
    assert msgpack.unpackb(cluster.store.get(b"L")) == [2, False, 2]


def test_the_record_of_an_ordinary_change_has_no_field_of_rolling_operations(
    cluster: Cluster,
) -> None:
    cluster.begin_change(parent="")
    record = msgpack.unpackb(cluster.store.get(b"O" + (1).to_bytes(8, "big")))
    assert not {"parent", "rolling"} & record.keys()


def test_a_rolling_operation_that_runs_is_kept_however_many_follow(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "OPERATIONS_MAX", 3)
    cluster.begin()
    for number in range(2, 8):
        assert cluster.begin_change().operation == f"op-{number}"
        cluster.end_change(f"op-{number}")
    ids = [one.id for one in cluster.machine.operations()]
    assert ids == ["op-1", "op-5", "op-6", "op-7"]
    assert [one.id for one in cluster.machine._ledger.operations(2)] == ["op-1", "op-6", "op-7"]
    cluster.begin_change()
    cluster.abort()
    cluster.end_change("op-8")
    assert [one.id for one in cluster.machine.operations()] == ["op-6", "op-7", "op-8"]
    cluster.check_restarted()
