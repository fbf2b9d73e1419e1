"""Features that are switched on, and the history of configurations that begins with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import (
    ABORTED,
    CATCHING_UP,
    DONE,
    ENDED,
    FEATURES_MAX,
    JOINING,
    JOINT,
    BeginOperation,
    Command,
    ConfigurationRecord,
    PhaseAt,
    Plan,
    Put,
    Result,
    SwitchOn,
    decode_command,
    encode_command,
)
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    encode_configuration,
)
from raftd.core.types import Entry, EntryKind
from raftd.protocol import PROTOCOL_VERSION_MAX
from raftd.storage import history as history_module
from raftd.storage import state as state_module
from raftd.storage.files import OsFileSystem
from raftd.storage.snapshot_file import UnknownSnapshotFormat, head_of, open_ends
from raftd.storage.state import (
    StateError,
    StateMachine,
    UnknownEntry,
    read_head,
)
from raftd.storage.store import MemoryStore, Store
from raftd.storage.worker import pairs_of, write_snapshot
from tests.storage.stores import NewStore, contents

KINDS = ConfigurationKind
ALL = 1 << 40
VOTERS = {"n1/a", "n2/b"}


class Replica:
    """A state machine and a log that makes configurations with the fields of real ones."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.machine = StateMachine(store)
        self.index = 0
        self.term = 1

    def apply(self, kind: EntryKind, data: bytes) -> Result | None:
        self.index += 1
        (result,) = self.machine.apply([Entry(self.index, self.term, kind, data)])
        return result

    def run(self, body: Any) -> Result:
        result = self.apply(EntryKind.COMMAND, encode_command(Command(body)))
        assert result is not None
        return result

    def configure(
        self, kind: ConfigurationKind, voters: set[str] = VOTERS, **fields: Any
    ) -> ConfigurationEntry:
        shape = {name: fields.pop(name, ()) for name in ("outgoing", "learners", "learners_next")}
        entry = ConfigurationEntry(
            configuration=Configuration(voters=voters, **shape),
            kind=kind,
            leader="n1/a",
            time_ms=1_000 * (self.index + 1),
            **fields,
        )
        assert self.apply(EntryKind.CONFIGURATION, encode_configuration(entry)) is None
        return entry

    def switch_on(self, version: int = FEATURES_MAX, configuration_term: int = 1) -> Result:
        return self.run(SwitchOn(version=version, time_ms=5, configuration_term=configuration_term))

    def begin(self, kind: str = "replace") -> str:
        plan = Plan(
            changes=(("voter", "n4/x"), ("remove", "n1/a")),
            addresses={"n4/x": "h:4"},
            joint=True,
            configuration_index=self.machine.configuration_index,
        )
        return self.run(
            BeginOperation(kind=kind, author="ann", reason="old disk", time_ms=500, plan=plan)
        ).operation

    def history(self) -> tuple[ConfigurationRecord, ...]:
        records, more = self.machine.history(100_000, 0, ALL)
        assert not more
        return records

    def indexes(self, limit: int = 100_000, below: int = 0, bytes_max: int = ALL) -> list[int]:
        return [record.index for record in self.machine.history(limit, below, bytes_max)[0]]


@pytest.fixture
def replica(new_store: NewStore) -> Replica:
    return Replica(new_store())


def switched_on(store: Store | None = None) -> Replica:
    """Return a replica of a new cluster whose features are switched on by entry 2."""
    replica = Replica(store if store is not None else MemoryStore())
    replica.configure(KINDS.BOOTSTRAP, {"n1/a"})
    replica.switch_on()
    return replica


# --- features -------------------------------------------------------------------------------


def test_the_features_are_those_of_a_protocol_that_this_release_speaks() -> None:
    assert FEATURES_MAX <= PROTOCOL_VERSION_MAX


def test_before_features_are_on_the_state_is_that_of_the_release_before(replica: Replica) -> None:
    replica.configure(KINDS.BOOTSTRAP)
    replica.begin()
    replica.configure(KINDS.SIMPLE, learners={"n4/x"}, operation="op-1")
    assert replica.machine.features == 0
    assert replica.history() == ()
    assert not replica.machine.history_is_complete
    assert {key[:1] for key, _ in contents(replica.store)} == {b"C", b"L", b"M", b"O"}
    record = dict(contents(replica.store))[b"O" + (1).to_bytes(8, "big")]
    assert msgpack.unpackb(record).keys().isdisjoint({"parent", "rolling"})
    assert read_head(replica.store).format == 1


def test_features_stay_on_once_they_are(replica: Replica) -> None:
    assert replica.switch_on() == Result()
    assert replica.machine.features == FEATURES_MAX
    before = replica.machine.history_is_complete, replica.history()
    assert replica.switch_on() == Result()
    replica.run(Put("k", b"v"))
    assert replica.machine.features == FEATURES_MAX
    assert (replica.machine.history_is_complete, replica.history()) == before
    assert StateMachine(replica.store).features == FEATURES_MAX
    assert read_head(replica.store).format == FEATURES_MAX


def test_a_release_that_does_not_know_the_features_refuses_their_state(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.switch_on(3)
    assert StateMachine(replica.store).features == 3
    with monkeypatch.context() as older:
        older.setattr(state_module, "_FORMATS", (1,))
        with pytest.raises(StateError, match="format 3, this release reads 1; start the release"):
            StateMachine(replica.store)
    replica.switch_on(4)
    monkeypatch.setattr(state_module, "_FORMATS", (1, 3))
    for refused in (StateMachine, read_head):
        with pytest.raises(StateError, match="format 4, this release reads 1 and 3; start the"):
            refused(replica.store)


def test_a_release_that_does_not_know_the_features_refuses_their_snapshots_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, files, path = switched_on().store, OsFileSystem(), tmp_path / "snapshot"
    write_snapshot(files, path, head_of(store, "c1"), pairs_of(store))
    assert open_ends(files, path)[0].state_format == 5
    monkeypatch.setattr(state_module, "_FORMATS", (1, 3, 4))
    with pytest.raises(UnknownSnapshotFormat, match="snapshot: the state has format 5"):
        open_ends(files, path)


@pytest.mark.parametrize("version", [1, 2, FEATURES_MAX + 1])
def test_features_that_this_release_does_not_know_are_not_switched_on(
    replica: Replica, version: int
) -> None:
    replica.run(Put("k", b"v"))
    before = contents(replica.store)
    with pytest.raises(UnknownEntry, match=f"entry 2 .* features of version {version}"):
        replica.switch_on(version)
    assert contents(replica.store) == before
    assert (replica.machine.applied_index, replica.machine.features) == (1, 0)


def test_a_command_with_a_field_that_this_release_does_not_know_is_refused() -> None:
    code, *head, fields = msgpack.unpackb(encode_command(Command(SwitchOn(version=3, time_ms=5))))
    newer = msgpack.packb([code, *head, {**fields, "and_also": 1}])
    with pytest.raises(ValueError, match="not a command of this version"):
        decode_command(newer)


def test_a_kind_of_configuration_that_this_release_does_not_know_is_refused(
    replica: Replica,
) -> None:
    known = encode_configuration(
        ConfigurationEntry(configuration=Configuration(voters=VOTERS), kind=KINDS.SIMPLE)
    )
    with pytest.raises(UnknownEntry, match="entry 1 was appended by a newer release"):
        replica.apply(EntryKind.CONFIGURATION, known.replace(b'"simple"', b'"weighted"'))


def test_what_is_switched_on_is_an_effect_that_servers_compare() -> None:
    one, other = Replica(MemoryStore()), Replica(MemoryStore())
    other.machine._handlers[SwitchOn] = lambda *_: Result()
    for replica in (one, other):
        # No configuration is in force that would be recorded.
        assert replica.switch_on() == Result()
    assert one.machine.effects_hash != other.machine.effects_hash


# --- records --------------------------------------------------------------------------------


def test_the_history_begins_with_the_configuration_in_force(replica: Replica) -> None:
    replica.configure(KINDS.BOOTSTRAP, {"n1/a"}, addresses={"n1/a": "h:1"})
    replica.term = 4
    replica.switch_on(configuration_term=1)
    assert replica.history() == (
        ConfigurationRecord(
            index=1,
            term=1,
            time_ms=1_000,
            leader="n1/a",
            kind="bootstrap",
            voters=("n1/a",),
            addresses={"n1/a": "h:1"},
        ),
    )
    assert replica.machine.history_is_complete


def test_the_history_of_a_cluster_that_was_upgraded_is_not_complete(replica: Replica) -> None:
    replica.configure(KINDS.BOOTSTRAP, {"n1/a"})
    replica.configure(KINDS.SIMPLE, {"n1/a"}, learners={"n2/b"})
    replica.switch_on()
    replica.configure(KINDS.SIMPLE, {"n1/a"})
    assert replica.indexes() == [4, 2]
    assert not replica.machine.history_is_complete


def test_nothing_is_recorded_where_no_configuration_is_in_force(replica: Replica) -> None:
    replica.switch_on()
    assert replica.history() == ()
    assert not replica.machine.history_is_complete
    replica.configure(KINDS.SIMPLE)
    assert replica.indexes() == [2]
    assert not replica.machine.history_is_complete


def test_each_configuration_of_an_operation_says_who_why_and_how_far(replica: Replica) -> None:
    switched_on(replica.store)
    replica.machine.restore(replica.store)
    replica.index = 2
    operation = replica.begin()
    replica.term = 2
    replica.configure(KINDS.SIMPLE, learners={"n4/x"}, operation=operation)
    replica.configure(
        KINDS.JOINT,
        {"n2/b", "n4/x"},
        outgoing=VOTERS,
        learners_next={"n1/a"},
        operation=operation,
    )
    replica.configure(
        KINDS.FINAL, {"n2/b", "n4/x"}, operation=operation, outcome=DONE, tombstones={"n1/a"}
    )
    began = PhaseAt(phase=JOINING, index=3, time_ms=500)
    learning = PhaseAt(phase=CATCHING_UP, index=4, time_ms=4_000)
    joint = PhaseAt(phase=JOINT, index=5, time_ms=5_000)
    ended = PhaseAt(phase=ENDED, index=6, time_ms=6_000)
    same = {
        "leader": "n1/a",
        "operation": "op-1",
        "operation_kind": "replace",
        "author": "ann",
        "reason": "old disk",
        "term": 2,
    }
    assert replica.history()[:3] == (
        ConfigurationRecord(
            index=6,
            kind="final",
            time_ms=6_000,
            voters=("n2/b", "n4/x"),
            removed=("n1/a",),
            phases=(began, learning, joint, ended),
            outcome=DONE,
            **same,
        ),
        ConfigurationRecord(
            index=5,
            kind="joint",
            time_ms=5_000,
            voters=("n2/b", "n4/x"),
            outgoing=("n1/a", "n2/b"),
            learners_next=("n1/a",),
            phases=(began, learning, joint),
            **same,
        ),
        ConfigurationRecord(
            index=4,
            kind="simple",
            time_ms=4_000,
            voters=("n1/a", "n2/b"),
            learners=("n4/x",),
            phases=(began, learning),
            **same,
        ),
    )


def test_a_configuration_that_undoes_an_operation_says_why_it_was_undone() -> None:
    replica = switched_on()
    operation = replica.begin()
    replica.configure(KINDS.JOINT, {"n2/b"}, outgoing=VOTERS, operation=operation)
    replica.configure(KINDS.ABORT, operation=operation, outcome=ABORTED, reason="n4 is silent")
    newest, before, _ = replica.history()
    assert (newest.kind, newest.outcome, newest.reason) == ("abort", ABORTED, "n4 is silent")
    assert (newest.author, newest.phases[-1].phase) == ("ann", ENDED)
    assert (before.outcome, before.reason) == ("", "old disk")


def test_what_a_backup_knew_comes_before_the_cluster_that_goes_on_from_it() -> None:
    replica = switched_on()
    operation = replica.begin()
    replica.configure(KINDS.JOINT, {"n2/b"}, outgoing=VOTERS, operation=operation)
    replica.term = 2
    replica.configure(
        KINDS.BOOTSTRAP, {"n9/z"}, operation=operation, outcome=ABORTED, reason="from a backup"
    )
    assert [(record.index, record.kind) for record in replica.history()] == [
        (5, "bootstrap"),
        (4, "joint"),
        (1, "bootstrap"),
    ]
    assert replica.history()[0].reason == "from a backup"
    assert replica.machine.history_is_complete


def test_the_history_is_a_part_of_the_state_and_its_copies(new_store: NewStore) -> None:
    replica = switched_on(new_store())
    for _ in range(5):
        replica.configure(KINDS.SIMPLE)
    copy = new_store()
    with copy.transaction():
        for key, value in contents(replica.store):
            copy.put(key, value)
    other = StateMachine(new_store())
    other.restore(copy)
    assert other.features == FEATURES_MAX
    assert other.history(100, 0, ALL) == replica.machine.history(100, 0, ALL)
    assert other.history_is_complete
    entry = Entry(8, 1, EntryKind.CONFIGURATION, copy.get(b"C") or b"")
    other.apply([entry])
    replica.machine.apply([entry])
    assert contents(copy) == contents(replica.store)
    assert other.effects_hash == replica.machine.effects_hash


def test_a_batch_that_fails_adds_nothing_to_the_history(replica: Replica) -> None:
    replica.configure(KINDS.BOOTSTRAP)
    data = replica.store.get(b"C") or b""
    entries = [
        Entry(2, 1, EntryKind.COMMAND, encode_command(Command(SwitchOn(version=3, time_ms=5)))),
        Entry(3, 1, EntryKind.CONFIGURATION, data),
        Entry(4, 1, EntryKind.COMMAND, b"\xc1"),
    ]
    with pytest.raises(UnknownEntry, match="entry 4"):
        replica.machine.apply(entries)
    assert (replica.machine.features, replica.history()) == (0, ())
    replica.machine.apply(entries[:2])
    assert replica.indexes() == [3, 1]


def test_the_oldest_records_make_room_and_then_the_history_is_not_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history_module, "HISTORY_MAX", 3)
    replica = switched_on()
    for _ in range(2):
        replica.configure(KINDS.SIMPLE)
    assert (replica.indexes(), replica.machine.history_is_complete) == ([4, 3, 1], True)
    replica.configure(KINDS.SIMPLE)
    assert (replica.indexes(), replica.machine.history_is_complete) == ([5, 4, 3], False)
    assert len([key for key, _ in contents(replica.store) if key.startswith(b"H")]) == 3
    assert replica.indexes(below=4) == [3]
    assert replica.indexes(below=3) == []


@given(
    st.lists(st.booleans(), max_size=40),
    st.integers(1, 12),
    st.integers(1, 10),
    st.integers(0, 45),
)
def test_pages_of_the_history_are_the_newest_ones_below_an_index(
    plan: list[bool], kept: int, limit: int, below: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_module, "HISTORY_MAX", kept)
        replica = switched_on()
        indexes = [1]
        for is_configuration in plan:
            if is_configuration:
                replica.configure(KINDS.SIMPLE)
                indexes.append(replica.index)
            else:
                replica.run(Put("k", b"v"))
        left = indexes[-kept:]
        wanted = [index for index in reversed(left) if not below or index < below]
        records, more = replica.machine.history(limit, below, ALL)
        assert [record.index for record in records] == wanted[:limit]
        assert more == (len(wanted) > limit)


def test_a_page_is_cut_by_its_bytes_but_never_empty() -> None:
    replica = switched_on()
    for _ in range(4):
        replica.configure(KINDS.SIMPLE)
    stored = max(len(value) for key, value in contents(replica.store) if key.startswith(b"H"))
    assert replica.machine.history(10, 0, 1)[1]
    assert replica.indexes(bytes_max=1) == [6]
    assert replica.indexes(bytes_max=2 * stored) == [6, 5]
    assert replica.indexes(below=5, bytes_max=1) == [4]


def test_a_record_that_one_server_has_written_otherwise_is_found() -> None:
    one, other = switched_on(), switched_on()
    append = other.machine._history.append
    other.machine._history.append = lambda record: append(  # type: ignore[method-assign]
        attrs.evolve(record, author="eve")
    )
    for replica in (one, other):
        replica.configure(KINDS.SIMPLE)
        replica.run(Put("k", b"v"))
    assert one.machine.hash_at(2) == other.machine.hash_at(2)
    assert one.machine.hash_at(3) != other.machine.hash_at(3)
    assert one.machine.hash_at(4) != other.machine.hash_at(4)
