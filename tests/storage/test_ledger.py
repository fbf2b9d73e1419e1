"""The operation records: how they begin, what configuration entries do to them, how they end."""

from __future__ import annotations

import pytest

from raftd.commands import (
    ABORTED,
    CATCHING_UP,
    DONE,
    ENDED,
    FAILED,
    JOINING,
    JOINT,
    AbortOperation,
    BeginOperation,
    EndOperation,
    Operation,
    PhaseAt,
    Plan,
    Result,
)
from raftd.core.membership import ConfigurationKind
from raftd.storage import ledger as ledger_module
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from tests.storage.test_state import Replica


class Cluster(Replica):
    """A replica whose log holds a first configuration, at index 1, and an open session."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.configure(ConfigurationKind.BOOTSTRAP)
        self.open("s")
        self.serial = 0

    def begin(
        self, *, new: bool = True, at_index: int | None = None, kind: str = "replace"
    ) -> Result:
        latest = self.machine.configuration_index
        plan = Plan(
            changes=(("voter", "n4/x"), ("remove", "n1/a")),
            addresses={"n4/x": "h:4"} if new else {},
            joint=True,
            configuration_index=latest if at_index is None else at_index,
            voters_before=("n1/a",),
            voters_after=("n4/x",),
        )
        self.serial += 1
        body = BeginOperation(kind=kind, author="ann", reason="old disk", time_ms=7, plan=plan)
        return self.run(body, "s", self.serial)

    def abort(self, operation: str = "op-1", author: str = "bob", reason: str = "oops") -> Result:
        body = AbortOperation(operation=operation, author=author, reason=reason, time_ms=8)
        self.serial += 1
        return self.run(body, "s", self.serial)

    def end(self, operation: str = "op-1", outcome: str = FAILED) -> Result:
        return self.run(
            EndOperation(operation=operation, outcome=outcome, reason="unreachable", time_ms=9)
        )

    def configure(self, kind: ConfigurationKind, **fields: object) -> int:
        """Apply a configuration entry and return its index."""
        assert self.machine.apply([self.log.configuration(kind=kind, **fields)]) == [None]
        return self.log.index

    def record(self, operation: str = "op-1") -> Operation:
        found = self.machine.operation(operation)
        assert found is not None
        return found


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


# --- begin ----------------------------------------------------------------------------------


def test_an_operation_with_new_servers_begins_by_joining_them(cluster: Cluster) -> None:
    assert cluster.begin() == Result(operation="op-1")
    record = cluster.record()
    assert record.phase == JOINING
    assert record.phases == (PhaseAt(phase=JOINING, index=3, time_ms=7),)
    assert (record.kind, record.author, record.reason) == ("replace", "ann", "old disk")
    assert record.plan.changes == (("voter", "n4/x"), ("remove", "n1/a"))
    assert record.plan.addresses == {"n4/x": "h:4"}
    assert (record.session, record.serial) == ("s", 1)
    assert (record.result, record.configuration_index, record.running) == ("", 0, True)


def test_an_operation_without_new_servers_begins_by_catching_up(cluster: Cluster) -> None:
    cluster.begin(new=False)
    assert cluster.record().phase == CATCHING_UP


def test_a_second_operation_is_refused_while_one_runs(cluster: Cluster) -> None:
    cluster.begin()
    result = cluster.begin()
    assert (result.applied, result.code, result.operation) == (False, "operation-running", "op-1")
    assert "joining" in result.message
    assert [one.id for one in cluster.machine.operations()] == ["op-1"]


def test_a_plan_for_another_configuration_is_refused(cluster: Cluster) -> None:
    moved = cluster.configure(ConfigurationKind.SIMPLE)
    result = cluster.begin(at_index=1)
    assert (result.applied, result.code, result.operation) == (False, "configuration-moved", "")
    assert "configuration 1," in result.message
    assert f"is {moved}" in result.message
    assert cluster.machine.operations() == []


def test_a_refused_operation_takes_no_number(cluster: Cluster) -> None:
    cluster.begin(at_index=99)
    assert cluster.begin().operation == "op-1"


def test_a_repeated_begin_starts_nothing_twice(cluster: Cluster) -> None:
    first = cluster.begin()
    cluster.end()
    cluster.serial = 0
    assert cluster.begin() == first
    assert len(cluster.machine.operations()) == 1


def test_numbers_go_on_after_an_operation_has_ended(cluster: Cluster) -> None:
    cluster.begin()
    cluster.end()
    assert cluster.begin().operation == "op-2"
    assert [one.id for one in cluster.machine.operations()] == ["op-1", "op-2"]


def test_the_running_operation_is_the_one_that_has_not_ended(cluster: Cluster) -> None:
    assert cluster.machine.running_operation is None
    cluster.begin()
    assert cluster.machine.running_operation == cluster.record()
    cluster.end()
    assert cluster.machine.running_operation is None


def test_a_restarted_machine_knows_the_running_operation(cluster: Cluster) -> None:
    cluster.begin()
    cluster.abort()
    again = StateMachine(cluster.store)
    assert again.running_operation == cluster.machine.running_operation
    assert again.operations() == cluster.machine.operations()


@pytest.mark.parametrize(
    "id", ["", "op-", "op-0", "op-2", "op-01", "op-+1", "op-١", "1", "op-" + "9" * 5000]
)
def test_a_name_of_no_operation_finds_none(cluster: Cluster, id: str) -> None:
    cluster.begin()
    assert cluster.machine.operation(id) is None


def test_a_batch_that_fails_leaves_the_running_operation_as_it_was(cluster: Cluster) -> None:
    cluster.begin()
    before = cluster.record()
    entry = cluster.log.configuration(kind=ConfigurationKind.FINAL, operation="op-1", outcome=DONE)
    broken = cluster.log.configuration()
    broken.data = b"{}"
    with pytest.raises(ValueError, match="no configuration entry"):
        cluster.machine.apply([entry, broken])
    assert cluster.machine.running_operation == before


# --- configuration entries ------------------------------------------------------------------


def test_a_change_of_votes_goes_through_every_phase(cluster: Cluster) -> None:
    cluster.begin()
    simple = cluster.configure(ConfigurationKind.SIMPLE, operation="op-1", time_ms=10)
    assert cluster.record().phase == CATCHING_UP
    assert cluster.record().configuration_index == simple
    joint = cluster.configure(ConfigurationKind.JOINT, operation="op-1", time_ms=20)
    assert cluster.record().phase == JOINT
    final = cluster.configure(ConfigurationKind.FINAL, operation="op-1", time_ms=30, outcome=DONE)
    record = cluster.record()
    assert (record.phase, record.result, record.explanation) == (ENDED, DONE, "")
    assert record.configuration_index == final
    assert record.phases == (
        PhaseAt(phase=JOINING, index=3, time_ms=7),
        PhaseAt(phase=CATCHING_UP, index=simple, time_ms=10),
        PhaseAt(phase=JOINT, index=joint, time_ms=20),
        PhaseAt(phase=ENDED, index=final, time_ms=30),
    )
    assert cluster.machine.running_operation is None


def test_a_phase_that_goes_on_is_not_noted_again(cluster: Cluster) -> None:
    cluster.begin(new=False)
    index = cluster.configure(ConfigurationKind.SIMPLE, operation="op-1", time_ms=10)
    record = cluster.record()
    assert [at.phase for at in record.phases] == [CATCHING_UP]
    assert record.configuration_index == index


@pytest.mark.parametrize("kind", [ConfigurationKind.SIMPLE, ConfigurationKind.ABORT])
def test_an_entry_with_an_outcome_ends_its_operation(
    cluster: Cluster, kind: ConfigurationKind
) -> None:
    cluster.begin()
    cluster.configure(kind, operation="op-1", outcome=ABORTED, reason="bob asked for it")
    record = cluster.record()
    assert (record.phase, record.result) == (ENDED, ABORTED)
    assert record.explanation == "bob asked for it"
    assert cluster.begin().operation == "op-2"


def test_the_end_of_an_operation_is_final(cluster: Cluster) -> None:
    cluster.begin()
    cluster.configure(
        ConfigurationKind.ABORT, operation="op-1", outcome=FAILED, reason="quorum lost"
    )
    ended = cluster.record()
    for outcome in ("", DONE):
        cluster.configure(ConfigurationKind.SIMPLE, operation="op-1", outcome=outcome)
    record = cluster.record()
    assert (record.result, record.explanation) == (FAILED, "quorum lost")
    assert record.phases == ended.phases
    assert record.configuration_index == cluster.log.index


def test_a_late_entry_of_an_ended_operation_leaves_the_next_one_running(
    cluster: Cluster,
) -> None:
    cluster.begin()
    cluster.end()
    cluster.begin()
    second = cluster.record("op-2")
    cluster.configure(ConfigurationKind.SIMPLE, operation="op-1", outcome=DONE)
    assert cluster.machine.running_operation == second


@pytest.mark.parametrize("operation", ["", "op-7"], ids=["none", "unknown"])
def test_an_entry_of_no_operation_changes_no_record(cluster: Cluster, operation: str) -> None:
    cluster.begin()
    before = cluster.machine.operations()
    index = cluster.configure(ConfigurationKind.FINAL, operation=operation, outcome=DONE)
    assert cluster.machine.operations() == before
    assert cluster.machine.configuration_index == index


# --- abort and end --------------------------------------------------------------------------


def test_an_abort_is_noted_in_the_record(cluster: Cluster) -> None:
    cluster.begin()
    assert cluster.abort() == Result(operation="op-1")
    record = cluster.record()
    assert (record.abort_requested_by, record.abort_reason) == ("bob", "oops")
    assert record.phase == JOINING
    assert cluster.machine.running_operation == record


def test_the_first_abort_is_the_one_that_counts(cluster: Cluster) -> None:
    cluster.begin()
    cluster.abort()
    assert cluster.abort(author="eve", reason="me too") == Result(operation="op-1")
    record = cluster.record()
    assert (record.abort_requested_by, record.abort_reason) == ("bob", "oops")


def test_an_abort_without_an_author_is_noted_all_the_same(cluster: Cluster) -> None:
    cluster.begin()
    cluster.abort(author="")
    assert cluster.record().abort_requested_by


def test_an_abort_of_an_unknown_operation_is_refused(cluster: Cluster) -> None:
    result = cluster.abort("op-5")
    assert (result.applied, result.code) == (False, "no-such-operation")
    assert "op-5" in result.message


def test_an_abort_of_an_ended_operation_says_how_it_ended(cluster: Cluster) -> None:
    cluster.begin()
    cluster.end()
    result = cluster.abort()
    assert (result.applied, result.code, result.operation) == (False, "operation-ended", "op-1")
    assert "failed: unreachable" in result.message
    assert cluster.record().abort_requested_by == ""


def test_an_end_closes_an_operation_that_touched_no_configuration(cluster: Cluster) -> None:
    cluster.begin()
    assert cluster.end() == Result(operation="op-1")
    record = cluster.record()
    assert (record.phase, record.result) == (ENDED, FAILED)
    assert record.explanation == "unreachable"
    assert record.phases[-1] == PhaseAt(phase=ENDED, index=cluster.log.index, time_ms=9)


def test_a_second_end_changes_nothing(cluster: Cluster) -> None:
    cluster.begin()
    cluster.end()
    before = cluster.record()
    assert cluster.end(outcome=ABORTED) == Result(applied=False, operation="op-1")
    assert cluster.record() == before


def test_an_end_is_ignored_once_a_configuration_was_touched(cluster: Cluster) -> None:
    cluster.begin()
    cluster.configure(ConfigurationKind.SIMPLE, operation="op-1")
    before = cluster.record()
    assert cluster.end() == Result(applied=False, operation="op-1")
    assert cluster.record() == before


def test_an_end_of_an_unknown_operation_is_refused(cluster: Cluster) -> None:
    assert cluster.end("op-9").code == "no-such-operation"


# --- bounds ---------------------------------------------------------------------------------


def test_the_oldest_ended_records_are_dropped(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "OPERATIONS_MAX", 3)
    for number in range(1, 6):
        assert cluster.begin().operation == f"op-{number}"
        cluster.end(f"op-{number}")
    assert [one.id for one in cluster.machine.operations()] == ["op-3", "op-4", "op-5"]
    assert cluster.machine.operation("op-2") is None
    assert cluster.abort("op-2").code == "no-such-operation"
    cluster.begin()
    assert [one.id for one in cluster.machine.operations()] == ["op-3", "op-4", "op-5", "op-6"]


def test_the_bound_on_records_holds_after_a_restart(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "OPERATIONS_MAX", 2)
    for number in range(1, 5):
        cluster.begin()
        cluster.machine = StateMachine(cluster.store)
        cluster.end(f"op-{number}")
    assert [one.id for one in cluster.machine.operations()] == ["op-3", "op-4"]
