"""The state machine's keys and sessions on every kind of store."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import (
    CATCHING_UP,
    KEY_BYTES_MAX,
    SESSION_BYTES_MAX,
    VALUE_BYTES_MAX,
    AbortOperation,
    BeginOperation,
    Command,
    CommandBody,
    CompareAndSet,
    Delete,
    DeleteMany,
    EndOperation,
    Increment,
    OpenSession,
    Plan,
    Put,
    PutMany,
    Result,
    encode_command,
    parse_integer,
)
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    encode_configuration,
)
from raftd.core.types import Entry, EntryKind
from raftd.storage import state as state_module
from raftd.storage.state import KeyValue, StateError, StateMachine
from raftd.storage.store import MemoryStore, Store
from tests.storage.stores import NewStore, contents, with_new_store


class Log:
    """Makes the entries of a log, one after the other."""

    def __init__(self) -> None:
        self.index = 0

    def entry(self, kind: EntryKind, data: bytes = b"") -> Entry:
        self.index += 1
        return Entry(self.index, 1, kind, data)

    def command(
        self, body: CommandBody, session: str = "", serial: int = 0, lowest: int = 0
    ) -> Entry:
        data = encode_command(Command(body, session, serial, lowest))
        return self.entry(EntryKind.COMMAND, data)

    def configuration(self, **fields: object) -> Entry:
        fields.setdefault("kind", ConfigurationKind.SIMPLE)
        entry = ConfigurationEntry(configuration=Configuration(voters={"n1/a"}), **fields)
        return self.entry(EntryKind.CONFIGURATION, encode_configuration(entry))


class Replica:
    """A state machine and the log that it is fed, one entry at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.machine = StateMachine(store)
        self.log = Log()

    def run(self, body: CommandBody, session: str = "", serial: int = 0, lowest: int = 0) -> Result:
        (result,) = self.machine.apply([self.log.command(body, session, serial, lowest)])
        assert result is not None
        return result

    def open(self, session: str) -> Result:
        return self.run(OpenSession(), session)

    def all_keys(self) -> list[KeyValue]:
        found, more = self.machine.list("", 1_000_000, 1 << 40)
        assert not more
        return found


@pytest.fixture
def replica(new_store: NewStore) -> Replica:
    return Replica(new_store())


# --- entries --------------------------------------------------------------------------------


def test_an_empty_machine_stands_before_the_first_entry(replica: Replica) -> None:
    machine = replica.machine
    assert machine.applied_index == 0
    assert machine.revision == 0
    assert machine.configuration_index == 0
    assert machine.session_count == 0


def test_no_ops_and_configurations_have_no_result(replica: Replica) -> None:
    log = replica.log
    entries = [
        log.entry(EntryKind.NOOP, b"whatever"),
        log.command(Put("k", b"v")),
        log.configuration(),
    ]
    assert replica.machine.apply(entries) == [None, Result(revision=1), None]
    assert replica.machine.applied_index == 3


def test_an_entry_that_does_not_follow_is_a_bug(replica: Replica) -> None:
    replica.run(Put("k", b"v"))
    for index in (1, 3):
        with pytest.raises(AssertionError, match="2 is due"):
            replica.machine.apply([Entry(index, 1, EntryKind.NOOP, b"")])


def test_nothing_of_a_batch_with_a_broken_command_is_visible(replica: Replica) -> None:
    replica.open("s")
    replica.run(Put("k", b"v"), "s", 1)
    before = contents(replica.store)
    log = replica.log
    entries = [
        log.command(Put("k", b"changed"), "s", 2, lowest=2),
        log.command(OpenSession(), "other"),
        log.configuration(tombstones={"n9/x"}),
        log.entry(EntryKind.COMMAND, b"\xc1"),
    ]
    with pytest.raises(ValueError, match="not a command"):
        replica.machine.apply(entries)
    machine = replica.machine
    assert contents(replica.store) == before
    assert (machine.applied_index, machine.revision, machine.session_count) == (2, 1, 1)
    assert machine.configuration_index == 0
    assert machine.session_result("s", 1) == Result(revision=1)
    assert machine.session_result("s", 2) is None


def test_a_restarted_machine_stands_where_the_first_one_stood(replica: Replica) -> None:
    replica.open("s")
    replica.run(Put("k", b"v"), "s", 1)
    replica.machine.apply([replica.log.configuration()])
    again = StateMachine(replica.store)
    assert (again.applied_index, again.revision, again.configuration_index) == (3, 1, 3)
    assert again.session_count == 1
    assert again.session_result("s", 1) == Result(revision=1)
    assert again.get("k") == replica.machine.get("k")


def test_a_state_of_another_format_is_refused(replica: Replica) -> None:
    replica.run(Put("k", b"v"))
    with replica.store.transaction():
        meta = replica.store.get(b"M")
        assert meta is not None
        replica.store.put(b"M", meta.replace(b"\x98\x01", b"\x98\x02", 1))
    with pytest.raises(StateError, match="format 2"):
        StateMachine(replica.store)


def test_a_configuration_with_tombstones_is_remembered_by_server(replica: Replica) -> None:
    log = replica.log
    replica.machine.apply([log.configuration(), log.configuration(tombstones={"n3/x", "n4/y"})])
    assert replica.machine.configuration_index == 2
    assert replica.machine.tombstone("n3/x") == 2
    assert replica.machine.tombstone("n4/y") == 2
    assert replica.machine.tombstone("n3/other") is None


def test_a_tombstone_keeps_its_first_index(replica: Replica) -> None:
    log = replica.log
    replica.machine.apply([log.configuration(tombstones={"n3/x"}) for _ in range(2)])
    assert replica.machine.tombstone("n3/x") == 1


# --- keys -----------------------------------------------------------------------------------


def test_a_put_takes_the_next_revision(replica: Replica) -> None:
    assert replica.run(Put("a", b"1")) == Result(revision=1)
    assert replica.run(Put("b", b"2")) == Result(revision=2)
    assert replica.machine.revision == 2


def test_a_key_knows_when_it_was_created_and_changed(replica: Replica) -> None:
    replica.run(Put("other", b""))
    replica.run(Put("k", b"1"))
    replica.run(Put("other", b""))
    replica.run(Put("k", b"2"))
    assert replica.machine.get("k") == KeyValue("k", b"2", 2, 4, 2)


def test_a_key_starts_again_after_a_delete(replica: Replica) -> None:
    replica.run(Put("k", b"1"))
    replica.run(Put("k", b"2"))
    assert replica.run(Delete("k")) == Result(revision=3)
    assert replica.machine.get("k") is None
    replica.run(Put("k", b"3"))
    assert replica.machine.get("k") == KeyValue("k", b"3", 4, 4, 1)


def test_a_delete_of_a_missing_key_changes_nothing(replica: Replica) -> None:
    replica.run(Put("k", b"1"))
    assert replica.run(Delete("other")) == Result(applied=False, revision=1)
    assert replica.run(Put("k", b"2")) == Result(revision=2)


def test_if_absent_does_not_overwrite(replica: Replica) -> None:
    assert replica.run(Put("k", b"1", if_absent=True)) == Result(revision=1)
    assert replica.run(Put("k", b"2", if_absent=True)) == Result(applied=False, revision=1)
    assert replica.machine.get("k") == KeyValue("k", b"1", 1, 1, 1)


def test_if_revision_is_the_keys_own_mod_revision(replica: Replica) -> None:
    replica.run(Put("k", b"1"))
    replica.run(Put("other", b""))
    refused = Result(applied=False, revision=2)
    assert replica.run(Put("k", b"2", if_revision=2)) == refused
    assert replica.run(Put("k", b"2", if_revision=0)) == refused
    assert replica.run(Put("k", b"2", if_revision=1)) == Result(revision=3)


def test_if_revision_0_means_that_the_key_does_not_exist(replica: Replica) -> None:
    assert replica.run(Put("k", b"1", if_revision=7)) == Result(applied=False)
    assert replica.run(Put("k", b"1", if_revision=0)) == Result(revision=1)


def test_compare_and_set_compares_every_byte(replica: Replica) -> None:
    replica.run(Put("k", b"abc"))
    for wrong in (b"", b"ab", b"abcd", b"abd"):
        assert replica.run(CompareAndSet("k", wrong, b"x")) == Result(applied=False, revision=1)
    assert replica.run(CompareAndSet("k", b"abc", b"x")) == Result(revision=2)
    assert replica.machine.get("k") == KeyValue("k", b"x", 1, 2, 2)


def test_compare_and_set_never_creates_a_key(replica: Replica) -> None:
    assert replica.run(CompareAndSet("k", b"", b"x")) == Result(applied=False)
    assert replica.machine.get("k") is None


@pytest.mark.parametrize(
    "body",
    [
        Put("", b""),
        Put("é" * (KEY_BYTES_MAX // 2) + "x", b""),
        Put("k", b"v" * (VALUE_BYTES_MAX + 1)),
        CompareAndSet("", b"", b""),
        CompareAndSet("k" * (KEY_BYTES_MAX + 1), b"", b""),
        CompareAndSet("k", b"", b"v" * (VALUE_BYTES_MAX + 1)),
    ],
    ids=lambda body: f"{type(body).__name__}-{len(body.key)}-{len(body.value)}",
)
def test_a_size_over_its_limit_is_an_answer_and_no_crash(replica: Replica, body: Put) -> None:
    result = replica.run(body)
    assert (result.applied, result.code, result.revision) == (False, "invalid", 0)
    assert replica.all_keys() == []


def test_the_longest_key_and_value_are_stored(replica: Replica) -> None:
    key, value = "é" * (KEY_BYTES_MAX // 2), b"v" * VALUE_BYTES_MAX
    replica.run(Put(key, value))
    assert replica.machine.get(key) == KeyValue(key, value, 1, 1, 1)
    assert replica.machine.list(key, 10, 1)[0] == [KeyValue(key, value, 1, 1, 1)]


def test_keys_that_are_too_long_do_not_exist(replica: Replica) -> None:
    key = "k" * 2000
    assert replica.run(Delete(key)) == Result(applied=False)
    assert replica.machine.get(key) is None
    assert replica.machine.list(key, 10, 1000) == ([], False)


def test_list_is_in_the_order_of_utf8_bytes(replica: Replica) -> None:
    # UTF-16 would put the last two the other way round.
    ordered = ["Z", "a", "a\x00", "ab", "é", "\uff5e", "\U0001f600"]
    for key in reversed(ordered):
        replica.run(Put(key, b""))
    assert [found.key for found in replica.all_keys()] == ordered


def test_list_finds_keys_by_prefix_alone(replica: Replica) -> None:
    replica.open("ab")
    for key in ("a", "ab", "abc", "ab\U0010ffff", "ac", "b"):
        replica.run(Put(key, b""))
    found, more = replica.machine.list("ab", 10, 1000)
    assert [one.key for one in found] == ["ab", "abc", "ab\U0010ffff"]
    assert not more


def test_list_says_that_its_limit_has_cut_it(replica: Replica) -> None:
    for key in ("a", "b", "c"):
        replica.run(Put(key, b""))
    found, more = replica.machine.list("", 2, 1000)
    assert ([one.key for one in found], more) == (["a", "b"], True)
    found, more = replica.machine.list("", 3, 1000)
    assert ([one.key for one in found], more) == (["a", "b", "c"], False)


def test_list_stops_before_it_has_too_many_bytes(replica: Replica) -> None:
    for key in ("a", "b", "c"):
        replica.run(Put(key, b"123456789"))
    found, more = replica.machine.list("", 10, 20)
    assert ([one.key for one in found], more) == (["a", "b"], True)
    found, more = replica.machine.list("", 10, 30)
    assert (len(found), more) == (3, False)


def test_list_returns_one_key_however_long_it_is(replica: Replica) -> None:
    for key in ("a", "b"):
        replica.run(Put(key, b"123456789"))
    found, more = replica.machine.list("", 10, 5)
    assert ([one.key for one in found], more) == (["a"], True)


def test_list_goes_on_behind_the_last_key_of_the_page_before(replica: Replica) -> None:
    keys = ["a", "ab", "ab\x00", "abc", "b", "ba"]
    for key in keys:
        replica.run(Put(key, b""))
    listed: list[str] = []
    more = True
    while more:
        after = listed[-1] if listed else ""
        found, more = replica.machine.list("", 2, 1000, after=after)
        listed += [one.key for one in found]
    assert listed == keys
    found, more = replica.machine.list("b", 10, 1000, after="ab")
    assert ([one.key for one in found], more) == (["b", "ba"], False)
    assert replica.machine.list("a", 10, 1000, after="b") == ([], False)


def test_list_goes_on_after_its_first_chunk(replica: Replica) -> None:
    keys = [f"k{number:04}" for number in range(3 * state_module.LIST_CHUNK)]
    for key in keys:
        replica.run(Put(key, b""))
    assert [one.key for one in replica.all_keys()] == keys
    found, more = replica.machine.list("", len(keys), 1 << 20)
    assert (len(found), more) == (len(keys), False)
    found, more = replica.machine.list("", len(keys) - 1, 1 << 20)
    assert (len(found), more) == (len(keys) - 1, True)


keys = st.sampled_from(["a", "ab", "b", "é", "\U0001f600", "a\x00"])
values = st.sampled_from([b"", b"1", b"2", b"\xff\x00"])
pairs = st.tuples(keys, values)
key_commands = st.one_of(
    st.builds(Put, keys, values, st.booleans(), st.one_of(st.none(), st.integers(0, 12))),
    st.builds(Put, keys, values),
    st.builds(Delete, keys),
    st.builds(CompareAndSet, keys, values, values),
    st.builds(Increment, keys, st.sampled_from([1, -3, 2**63 - 1, -(2**63)])),
    st.builds(PutMany, st.lists(pairs, min_size=1, max_size=4)),
    st.builds(DeleteMany, st.lists(keys, min_size=1, max_size=4)),
)


@attrs.define
class Model:
    """The keys as a dict: the shortest text of what the commands mean."""

    revision: int = 0
    pairs: dict[str, KeyValue] = attrs.field(factory=dict)

    def run(self, body: CommandBody) -> Result:
        if isinstance(body, PutMany):
            return [self.run(Put(*pair)) for pair in body.pairs][-1]
        if isinstance(body, DeleteMany):
            count = sum(self.run(Delete(key)).applied for key in body.keys)
            return Result(count > 0, self.revision, number=count)
        if isinstance(body, Increment):
            old = self.pairs.get(body.key)
            number = parse_integer(old.value) if old else 0
            refusal = Result(False, self.revision, code="not-a-number")
            if number is None:
                return attrs.evolve(refusal, message="value is not an integer or out of range")
            if not -(2**63) <= number + body.by < 2**63:
                return attrs.evolve(refusal, message="increment or decrement would overflow")
            self.run(Put(body.key, b"%d" % (number + body.by)))
            return Result(True, self.revision, number=number + body.by)
        assert isinstance(body, Put | Delete | CompareAndSet)
        old = self.pairs.get(body.key)
        if isinstance(body, Delete):
            allowed = old is not None
        elif isinstance(body, CompareAndSet):
            allowed = old is not None and old.value == body.expected
        else:
            mod_revision = old.mod_revision if old else 0
            allowed = not (body.if_absent and old) and body.if_revision in (None, mod_revision)
        if allowed:
            self.revision += 1
            if isinstance(body, Delete):
                del self.pairs[body.key]
            else:
                self.pairs[body.key] = KeyValue(
                    body.key,
                    body.value,
                    old.create_revision if old else self.revision,
                    self.revision,
                    old.version + 1 if old else 1,
                )
        return Result(applied=allowed, revision=self.revision)

    def all_keys(self) -> list[KeyValue]:
        return [self.pairs[key] for key in sorted(self.pairs, key=str.encode)]


@with_new_store
@given(bodies=st.lists(key_commands, max_size=25), prefix=st.sampled_from(["", "a", "é", "z"]))
def test_keys_behave_like_a_dict(
    new_store: NewStore, bodies: list[CommandBody], prefix: str
) -> None:
    replica = Replica(new_store())
    model = Model()
    for body in bodies:
        assert replica.run(body) == model.run(body)
        assert replica.all_keys() == model.all_keys()
    assert replica.machine.revision == model.revision
    found, _ = replica.machine.list(prefix, 100, 10_000)
    assert found == [one for one in model.all_keys() if one.key.startswith(prefix)]
    for key in ("a", "ab", "z"):
        assert replica.machine.get(key) == model.pairs.get(key)


# --- sessions -------------------------------------------------------------------------------


def test_a_repeated_serial_gets_the_same_answer_and_changes_nothing(replica: Replica) -> None:
    replica.open("s")
    first = replica.run(Put("k", b"1"), "s", 1)
    replica.run(Put("k", b"2"), "s", 2)
    assert replica.run(Put("k", b"1"), "s", 1) == first == Result(revision=1)
    assert replica.machine.get("k") == KeyValue("k", b"2", 1, 2, 2)


def test_an_answer_that_was_no_is_repeated_too(replica: Replica) -> None:
    replica.open("s")
    assert replica.run(Delete("k"), "s", 1) == Result(applied=False)
    replica.run(Put("k", b""), "s", 2)
    assert replica.run(Delete("k"), "s", 1) == Result(applied=False)
    assert replica.machine.get("k") is not None


def test_serials_may_arrive_out_of_order(replica: Replica) -> None:
    replica.open("s")
    assert replica.run(Put("k", b"2"), "s", 2) == Result(revision=1)
    assert replica.run(Put("k", b"1"), "s", 1) == Result(revision=2)
    assert replica.machine.get("k") == KeyValue("k", b"1", 1, 2, 2)


def test_sessions_have_serials_of_their_own(replica: Replica) -> None:
    for session in ("s", "s\x00", "t"):
        replica.open(session)
        assert replica.run(Put(session, b""), session, 1).applied
    assert len(replica.all_keys()) == 3


def test_a_session_that_was_never_opened_is_expired(replica: Replica) -> None:
    result = replica.run(Put("k", b""), "s", 1)
    assert (result.applied, result.code) == (False, "session-expired")
    assert replica.all_keys() == []
    assert replica.machine.session_count == 0


def test_a_command_without_a_session_is_executed_each_time(replica: Replica) -> None:
    assert replica.run(Put("k", b"")) == Result(revision=1)
    assert replica.run(Put("k", b"")) == Result(revision=2)


def test_opening_an_open_session_forgets_nothing(replica: Replica) -> None:
    replica.open("s")
    replica.run(Put("k", b""), "s", 1)
    assert replica.open("s") == Result(revision=1)
    assert replica.machine.session_count == 1
    assert replica.run(Put("k", b""), "s", 1) == Result(revision=1)


@pytest.mark.parametrize("name", ["", "s" * (SESSION_BYTES_MAX + 1)], ids=["empty", "long"])
def test_a_session_needs_a_name_of_a_fair_length(replica: Replica, name: str) -> None:
    assert replica.open(name).code == "invalid"
    assert replica.machine.session_count == 0
    assert replica.open("s" * SESSION_BYTES_MAX) == Result()


def test_acknowledged_results_are_forgotten(replica: Replica) -> None:
    replica.open("s")
    for serial in (1, 2, 3):
        replica.run(Put("k", b""), "s", serial)
    replica.run(Put("k", b""), "s", 4, lowest=3)
    known = [replica.machine.session_result("s", serial) is not None for serial in range(6)]
    assert known == [False, False, False, True, True, False]


@pytest.mark.parametrize("lowest", [4, 1 << 63], ids=["near", "far"])
def test_an_acknowledged_serial_is_never_executed_again(replica: Replica, lowest: int) -> None:
    replica.open("s")
    for serial in (1, 2, 3):
        replica.run(Put("k", b""), "s", serial)
    replica.run(Put("k", b""), "s", lowest, lowest=lowest)
    for serial in (1, 3, lowest - 1):
        result = replica.run(Put("k", b"again"), "s", serial)
        assert (result.applied, result.code, result.revision) == (False, "stale-serial", 4)
    assert replica.machine.revision == 4
    assert replica.machine.session_result("s", lowest) == Result(revision=4)


@pytest.mark.parametrize("lowest", [2, 1 << 62], ids=["near", "far"])
def test_the_lowest_unacknowledged_result_itself_is_kept(replica: Replica, lowest: int) -> None:
    replica.open("s")
    first = replica.run(Put("k", b""), "s", lowest)
    replica.run(Put("k", b""), "s", lowest + 1, lowest=lowest)
    assert replica.run(Put("k", b""), "s", lowest) == first
    assert replica.machine.revision == 2


def test_what_was_acknowledged_once_stays_acknowledged(replica: Replica) -> None:
    replica.open("s")
    replica.run(Put("k", b""), "s", 5, lowest=5)
    assert replica.run(Put("k", b""), "s", 3, lowest=1).code == "stale-serial"
    assert replica.run(Put("k", b""), "s", 4, lowest=0).code == "stale-serial"


def test_serials_start_at_1(replica: Replica) -> None:
    replica.open("s")
    assert replica.run(Put("k", b""), "s", 0).code == "stale-serial"


def test_too_many_unacknowledged_commands_are_refused(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "SESSION_RESULTS_MAX", 3)
    replica.open("s")
    for serial in (1, 2, 3):
        assert replica.run(Put("k", b""), "s", serial).applied
    refused = replica.run(Put("k", b""), "s", 4)
    assert (refused.applied, refused.code) == (False, "too-many-unacknowledged")
    assert replica.run(Put("k", b""), "s", 3) == Result(revision=3)
    assert replica.run(Put("k", b""), "s", 4, lowest=2) == Result(revision=4)


def test_session_result_is_the_answer_of_an_applied_command(replica: Replica) -> None:
    replica.open("s")
    refused = replica.run(Put("", b""), "s", 1)
    assert replica.machine.session_result("s", 1) == refused
    assert StateMachine(replica.store).session_result("s", 1) == refused
    assert replica.machine.session_result("s", 2) is None
    assert replica.machine.session_result("other", 1) is None


def test_the_least_recently_used_session_is_evicted(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "SESSIONS_MAX", 3)
    for session in ("a", "b", "c"):
        replica.open(session)
    replica.run(Put("k", b""), "a", 1)
    replica.open("d")
    assert replica.machine.session_count == 3
    assert replica.run(Put("k", b""), "b", 1).code == "session-expired"
    assert replica.run(Put("k", b""), "a", 1) == Result(revision=1)


def test_a_late_copy_of_an_open_command_does_not_open_an_evicted_session(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "SESSIONS_MAX", 1)
    replica.open("a")
    replica.run(Put("k", b""), "a", 1)
    replica.open("b")
    assert replica.open("a").code == "session-expired"
    assert replica.run(Put("k", b""), "a", 1).code == "session-expired"
    assert replica.machine.revision == 1


def test_names_of_evicted_sessions_are_bounded(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "SESSIONS_MAX", 2)
    monkeypatch.setattr(state_module, "EXPIRED_NAMES_MAX", 3)
    for number in range(20):
        replica.open(f"s{number:02}")
    families = b"".join(key[:1] for key, _ in contents(replica.store))
    assert families == b"M" + b"SS" + b"UU" + b"XXX" + b"YYY"
    assert replica.open("s17").code == "session-expired"


def test_the_cache_of_sessions_is_bounded(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "SESSIONS_CACHED_MAX", 2)
    for number in range(5):
        replica.open(f"s{number}")
        replica.run(Put("k", b""), f"s{number}", 1)
    assert len(replica.machine._sessions) == 2
    assert replica.run(Put("k", b""), "s0", 1) == Result(revision=1)


@with_new_store
@given(
    uses=st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=40),
    sessions_max=st.integers(1, 4),
)
def test_eviction_is_exactly_by_last_use(
    new_store: NewStore, uses: list[tuple[bool, int]], sessions_max: int
) -> None:
    replica = Replica(new_store())
    last_use: dict[str, int] = {}
    expired: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_module, "SESSIONS_MAX", sessions_max)
        for opens, number in uses:
            name = f"s{number}"
            body = OpenSession() if opens else Put("k", b"")
            result = replica.run(body, name, 1)
            if opens and name not in last_use and name not in expired:
                if len(last_use) == sessions_max:
                    oldest = min(last_use, key=lambda one: last_use[one])
                    del last_use[oldest]
                    expired.add(oldest)
                last_use[name] = 0
            if name in last_use:
                last_use[name] = replica.log.index
            assert result.code == ("" if name in last_use else "session-expired")
            assert replica.machine.session_count == len(last_use)


# --- exactly once, and the same everywhere --------------------------------------------------


@with_new_store
@given(
    bodies=st.lists(key_commands, min_size=1, max_size=10),
    deliveries=st.data(),
)
def test_any_retries_leave_what_each_command_once_would_leave(
    new_store: NewStore, bodies: list[CommandBody], deliveries: st.DataObject
) -> None:
    """Every command arrives once or more, in any order, with any acknowledgements."""
    commands = [
        (body, ("s", "t")[number % 2], number // 2 + 1) for number, body in enumerate(bodies)
    ]
    again = deliveries.draw(st.lists(st.sampled_from(commands), max_size=15))
    order = deliveries.draw(st.permutations(commands + again))
    lowest = deliveries.draw(st.lists(st.integers(0, 3), min_size=len(order), max_size=len(order)))

    replica, model = Replica(new_store()), Model()
    replica.open("s")
    replica.open("t")
    answers: dict[tuple[str, int], Result] = {}
    for (body, session, serial), acknowledged in zip(order, lowest, strict=True):
        result = replica.run(body, session, serial, acknowledged)
        if result.code == "stale-serial":
            continue
        if (session, serial) not in answers:
            answers[session, serial] = model.run(body)
        assert result == answers[session, serial]
    assert replica.all_keys() == model.all_keys()
    assert replica.machine.revision == model.revision


def random_entries(source: random.Random, count: int) -> list[Entry]:
    """Return a log in which everything happens, often in the wrong moment."""
    log = Log()
    entries = []
    while len(entries) < count:
        session, serial = f"s{source.randrange(6)}", source.randint(1, 8)
        key, value = f"k{source.randrange(5)}", bytes((source.randrange(3),))
        operation = f"op-{source.randint(1, 4)}"
        plan = Plan(
            changes=(("voter", "n4/x"),),
            addresses={"n4/x": "h:1"},
            joint=True,
            configuration_index=source.choice([0, max(0, log.index - 3), log.index]),
        )
        who = {"author": "me", "reason": "why", "time_ms": log.index}
        body = source.choice(
            [
                OpenSession(),
                Put(key, value, source.random() < 0.2),
                Put(key, value),
                Delete(key),
                CompareAndSet(key, value, b"new"),
                Increment(key, source.choice([1, -1, 2**62])),
                PutMany([(key, b"7"), (f"k{source.randrange(5)}", value)]),
                DeleteMany([key, f"k{source.randrange(5)}"]),
                BeginOperation(kind="add", plan=plan, **who),
                AbortOperation(operation=operation, **who),
                EndOperation(operation=operation, outcome="failed", reason="r", time_ms=1),
                None,
            ]
        )
        if isinstance(body, BeginOperation | AbortOperation | EndOperation):
            session = source.choice([session, ""])
        if body is not None:
            entries.append(log.command(body, session, serial, source.randint(0, serial)))
        elif source.random() < 0.5:
            kind = source.choice(list(ConfigurationKind))
            outcome = source.choice(["", "", "done"])
            entries.append(
                log.configuration(
                    kind=kind, operation=operation, outcome=outcome, tombstones={"a/1", "b/2"}
                )
            )
        else:
            entries.append(log.entry(EntryKind.NOOP))
    return entries


def apply_in_batches(
    machine: StateMachine, entries: Sequence[Entry], sizes: Iterator[int]
) -> list[Result | None]:
    results: list[Result | None] = []
    while len(results) < len(entries):
        results += machine.apply(entries[len(results) : len(results) + next(sizes)])
    return results


@with_new_store
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 50))
def test_batches_of_any_size_leave_the_same_bytes(
    new_store: NewStore, seed: int, size: int
) -> None:
    """One by one, with a restart after each entry; and in batches of `size`."""
    source = random.Random(seed)
    entries = random_entries(source, 120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_module, "SESSIONS_MAX", 3)
        patch.setattr(state_module, "EXPIRED_NAMES_MAX", 2)
        patch.setattr(state_module, "SESSION_RESULTS_MAX", 4)
        patch.setattr(state_module, "SESSIONS_CACHED_MAX", source.choice([0, 1, 100]))
        one_by_one, in_batches = new_store(), new_store()
        restarted = []
        for entry in entries:
            restarted += StateMachine(one_by_one).apply([entry])
        machine = StateMachine(in_batches)
        results = apply_in_batches(machine, entries, iter(lambda: size, None))
    assert results == restarted
    assert contents(in_batches) == contents(one_by_one)


def test_the_random_log_reaches_what_it_is_there_for() -> None:
    """Guards the test above: every code and every phase is met within a few logs."""
    codes, phases = set(), set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_module, "SESSIONS_MAX", 5)
        patch.setattr(state_module, "SESSION_RESULTS_MAX", 4)
        for seed in range(60):
            machine = StateMachine(MemoryStore())
            for result in machine.apply(random_entries(random.Random(seed), 120)):
                codes.add(result.code if result else None)
            for operation in machine.operations():
                phases.update(at.phase for at in operation.phases)
    assert codes >= {
        None,
        "",
        "session-expired",
        "stale-serial",
        "too-many-unacknowledged",
        "operation-running",
        "configuration-moved",
        "no-such-operation",
        "operation-ended",
        "not-a-number",
    }
    assert phases >= {"joining", CATCHING_UP, "joint", "ended"}
