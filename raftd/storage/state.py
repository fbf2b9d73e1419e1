"""The replicated state machine: keys with revisions, client sessions, operations, tombstones.

Every server applies the same entries in the same order and arrives at the same bytes in its store,
whatever the sizes of the batches. So nothing here looks at a clock, at a random number or at the
order of a set, and every limit is a constant: a release that changes one has to switch it on with
a log entry.

| key | value |
|---|---|
| `K` key | create revision, mod revision, version (8 bytes each), then the value itself |
| `M` | format, index and term of the entry applied last, revision, configuration index, effects
hash, open sessions, expired names; from version 5 on also keys with a life, cluster time |
| `C` | the data of the configuration entry applied last |
| `S` session | index of its last use, lowest serial, results by serial |
| `U` index (8 bytes) | the session that stands here in the queue for eviction |
| `X` session | empty: this name has expired |
| `Y` index (8 bytes) session | empty: the expired names, oldest first |
| `T` server | index of the configuration entry that removed it for good (8 bytes) |
| `O`, `L` | the operations, see `raftd.storage.ledger` |
| `H`, `N` | the configurations of the past, see `raftd.storage.history` |
| `D`, `E` | the lives of keys, see `raftd.storage.lives` |

A release that applies more than the one before has *features* of a version. They are off until a
log entry says that every member can apply them, `SwitchOn`; until then all servers write what the
older release writes. From then on the format under `M` is that version, so that a release which
does not know the features refuses to start on the state.

Numbers in keys and of fixed width are big endian, the rest is msgpack. `read_head` reads what
stands under `M` and `C` without a state machine.

The effects hash is what servers compare to find out that they have not made the same of the same
log. Each entry adds one step to it, `hash = (hash * factor + effects) mod prime`: two different
effects lead from one hash to different ones, but for collisions of 32 bits, and equal effects lead
from different hashes to different ones. So servers that differ once differ at every later index,
even when the keys that were different have been overwritten. The effects of an entry are what it
has written and removed, its answer, the revision and what it has changed in its session; what the
log says is no part of them, since that is equal anyway. The step belongs to the format: a release
that changes it has to switch it on with a log entry.

Source: Raft paper section 8; dissertation section 6.3.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from zlib import crc32

import attrs
import msgpack

from raftd.commands import (
    FEATURES_COUNTERS,
    FEATURES_HISTORY,
    FEATURES_LIVES,
    INTEGER_MAX,
    INTEGER_MIN,
    KEY_BYTES_MAX,
    SESSION_BYTES_MAX,
    VALUE_BYTES_MAX,
    AbortOperation,
    AdvanceClock,
    BeginOperation,
    BeginRolling,
    Command,
    CompareAndSet,
    ConfigurationRecord,
    Delete,
    DeleteMany,
    EndOperation,
    Increment,
    OpenSession,
    Operation,
    Put,
    PutMany,
    Result,
    SwitchOn,
    Transaction,
    UpdateRolling,
    decode_command,
    parse_integer,
)
from raftd.core.membership import ConfigurationEntry, ConfigurationKind, decode_configuration
from raftd.core.types import Entry, EntryKind, Index, ServerId, Term
from raftd.storage.effects import CHECKSUM_MASK, Effects
from raftd.storage.events import DELETED, EXPIRED, Change, EventRing
from raftd.storage.history import History, configuration_record
from raftd.storage.ledger import Ledger
from raftd.storage.lives import Lives
from raftd.storage.results import pack_result, result_checksum, unpack_result
from raftd.storage.sessions import Session
from raftd.storage.store import CountedStore, Store
from raftd.storage.transacting import FEATURES_OFF, Draft, problem_of
from raftd.transactions import RETURNED_BYTES_MAX, SESSION_RETURNED_BYTES_MAX, WRITTEN_BYTES_MAX

STATE_FORMAT = 1
"""Version of the layout above while no features are switched on."""
_FORMATS = (STATE_FORMAT, FEATURES_HISTORY, FEATURES_COUNTERS, FEATURES_LIVES)
"""What this release reads."""
SESSIONS_MAX = 10_000
"""Open sessions; one more evicts the least recently used one. Every run of raftctl that writes
opens one, so that a client has to be silent during thousands of them to lose its own."""
SESSION_RESULTS_MAX = 512
"""Results that are kept for one session, and so its unacknowledged commands: some batches, and
still few enough to write all of them again with each batch."""
EXPIRED_NAMES_MAX = 10_000
"""Names of evicted sessions that are remembered: a late copy of the command that opened one must
not open it again, since all that it had done would then be done twice."""
SESSIONS_CACHED_MAX = 2_048
"""Sessions that are kept decoded between batches. Of no consequence for the state."""
HASHES_KEPT = 65_536
"""Entries whose effects hashes are remembered: a member that is asked for one applies it within
seconds of the leader, and at most so many entries are applied in that time. 512 KiB to 1 MiB."""
LIST_CHUNK = 32
"""Pairs read at once for a list: values of 1 MiB make this 32 MiB."""

_KEY, _KEY_END = b"K", b"L"
_META = b"M"
_META_FIELDS = 10
_CONFIGURATION = b"C"
_SESSION = b"S"
_USED, _USED_END = b"U", b"V"
_EXPIRED = b"X"
_EXPIRED_ORDER, _EXPIRED_ORDER_END = b"Y", b"Z"
_TOMBSTONE = b"T"

_REVISIONS = struct.Struct(">QQQ")
_INDEX = struct.Struct(">Q")

_HASH_PRIME = 2**61 - 1
_HASH_FACTOR = 0x1B873593CC9E2D51
"""Any number that is not a multiple of the prime makes the step injective; a large one spreads."""
_REPLY_FACTOR = 0x0C2B2AE3D27D4EB5
_TERM_FACTOR, _SERIAL_FACTOR, _LOWEST_FACTOR = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_COUNT_FACTOR = 0x165667B1
"""Odd: two numbers that differ by less than 2**32 differ as well when they are multiplied."""
_CHECKSUM_BITS = 32


class StateError(Exception):
    """The store holds a state that this release cannot read; the message says what to do."""


class UnknownEntry(ValueError):
    """An entry of the log that this release does not understand: a newer one has appended it."""

    def __init__(self, index: Index, why: str) -> None:
        super().__init__(
            f"entry {index} was appended by a newer release, and this one cannot apply it ({why}). "
            "Nothing was changed: start a release that is at least as new as the other members'"
        )


@attrs.frozen
class KeyValue:
    """A key as readers see it."""

    key: str
    value: bytes
    create_revision: int
    """The revision that created it, since it was last deleted."""
    mod_revision: int
    """The revision that changed it last."""
    version: int
    """How often it was written since then; 1 at creation."""
    deadline_ms: int = 0
    """Cluster time when its life ends; 0 if it lives for ever."""


@attrs.frozen(kw_only=True)
class StateHead:
    """What a state says about itself."""

    format: int = STATE_FORMAT
    """The version whose features are switched on, or 1 if none are."""
    applied_index: Index = 0
    """The entry that was applied last; 0 if none was."""
    applied_term: Term = 0
    """The term of that entry."""
    revision: int = 0
    configuration_index: Index = 0
    """The newest configuration entry that was applied; 0 if none was."""
    configuration: bytes = b""
    """The data of that entry, see `raftd.core.membership.decode_configuration`."""
    effects_hash: int = 0
    """Of all entries up to `applied_index`, 0 to 2**61 - 2; 0 if there were none."""


def read_head(store: Store) -> StateHead:
    """Return what the state in `store` says about itself; of an empty store, that it is empty.

    Raises:
        StateError: it was written by a release with another layout.
    """
    format, *fields = _read_meta(store)
    return StateHead(
        format=format,
        applied_index=fields[0],
        applied_term=fields[1],
        revision=fields[2],
        configuration_index=fields[3],
        configuration=store.get(_CONFIGURATION) or b"",
        effects_hash=fields[4],
    )


def _read_meta(store: Store) -> list[int]:
    meta = store.get(_META)
    fields: list[int] = [STATE_FORMAT] if meta is None else msgpack.unpackb(meta)
    refuse_unknown_format(fields[0])
    # Before version 5 there are two fewer.
    return fields + [0] * (_META_FIELDS - len(fields))


def refuse_unknown_format(format: int) -> None:
    """Return if this release reads a state of this format.

    Raises:
        StateError: it does not.
    """
    if format not in _FORMATS:
        raise StateError(
            f"the state has format {format}, this release reads "
            f"{' and '.join(map(str, _FORMATS))}; start the release that wrote it"
        )


KeyValues: TypeAlias = list[KeyValue]
Operations: TypeAlias = list[Operation]
Values: TypeAlias = list[bytes | None]
Results: TypeAlias = list[Result | None]


class StateMachine:
    """What the log's committed entries amount to. All of it is in `store`.

    Invariants: entries are applied in order of their index, each exactly once; between two calls
    of `apply` the store holds exactly the entries up to `applied_index`; a serial of a session is
    executed at most once.

    Raises:
        StateError: the store was written by a release with another layout.
    """

    def __init__(self, store: CountedStore) -> None:
        self.applied_index: Index = 0
        """The last entry that was applied; 0 at first."""
        self.applied_term: Term = 0
        """The term of that entry."""
        self.effects_hash = 0
        """What all entries so far have done, as one number: 0 to 2**61 - 2, 0 at first. Two servers
        with the same `applied_index` and different ones have diverged."""
        self.revision = 0
        """The global revision: every change of a key takes the next one."""
        self.configuration_index: Index = 0
        """The newest configuration entry that was applied; 0 if none was."""
        self.session_count = 0
        """Open sessions, at most `SESSIONS_MAX`."""
        self.features = 0
        """The version whose features are switched on; 0 before any are."""
        self.stamped_index: Index = 0
        """The last entry with a time that this object has applied; 0 if there was none."""
        self.events: EventRing
        """The last changes of keys that it has applied."""
        self._changes: list[Change] = []
        """Those of the open batch."""
        self._note = self._changes.append
        self._expired_count = 0
        self._store = store
        self._effects: Effects
        self._ledger: Ledger
        self._history: History
        self._handlers: dict[type, Callable[[Any, Command, Index], Result]] = {
            Put: self._put,
            Delete: self._delete,
            CompareAndSet: self._compare_and_set,
            Increment: self._increment,
            PutMany: self._put_many,
            DeleteMany: self._delete_many,
            Transaction: self._transact,
            AdvanceClock: self._advance_clock,
            BeginOperation: self._begin_operation,
            AbortOperation: self._abort_operation,
            EndOperation: self._end_operation,
            SwitchOn: self._switch_on,
            BeginRolling: self._begin_rolling,
            UpdateRolling: self._update_rolling,
        }
        self._sessions: dict[str, Session] = {}
        """A cache, oldest first. What the open batch has changed is always in it."""
        self._used: dict[str, Session] = {}
        """The sessions that the open batch has changed."""
        self._hashes: array[int]
        """The hashes after the entries up to `applied_index`, `HASHES_KEPT` or more of them if
        there were so many since the start."""
        self.restore(store)

    def restore(self, store: CountedStore) -> None:
        """Go on from the state in `store` and forget the one before.

        Raises:
            StateError: that state was written by a release with another layout.
        """
        self._store = store
        self._load()
        self._hashes = array("q", (self.effects_hash,))
        self.events = EventRing(self.revision)

    def _load(self) -> None:
        """Take everything from the store again."""
        self._sessions.clear()
        self._used.clear()
        (
            format,
            self.applied_index,
            self.applied_term,
            self.revision,
            self.configuration_index,
            self.effects_hash,
            self.session_count,
            self._expired_count,
            life_count,
            clock_ms,
        ) = _read_meta(self._store)
        self.features = 0 if format == STATE_FORMAT else format
        self._effects = Effects(self._store)
        self._lives = Lives(self._effects, life_count, clock_ms)
        self._ledger = Ledger(self._effects)
        self._history = History(self._effects)

    def apply(self, entries: Sequence[Entry]) -> Results:
        """Apply `entries`, which go on right after `applied_index`, and return their results.

        A no-op and a configuration have None. What the entries change is visible in the store when
        this returns, in one transaction or in several; whether durably is the store's business.

        Raises:
            UnknownEntry: nothing of its transaction is visible then. The process has to stop.
        """
        results: Results = []
        while len(results) < len(entries):
            results += self.apply_some(entries[len(results) :])
        return results

    def apply_some(self, entries: Sequence[Entry]) -> Results:
        """Apply the first of `entries`, in one transaction of bounded work, as `apply` does."""
        results: Results = []
        hashes: list[int] = []
        index, effects, effects_hash = self.applied_index, self._effects, self.effects_hash
        changes = self._changes
        changes.clear()
        effects.worked_bytes = 0
        try:
            with self._store.transaction():
                for entry in entries:
                    index += 1
                    assert entry.index == index, f"entry {entry.index} where {index} is due"
                    effects.checksum = (entry.term * _TERM_FACTOR + index) & CHECKSUM_MASK
                    answer = 0
                    kind = entry.kind
                    if kind == EntryKind.COMMAND:
                        try:
                            command = decode_command(entry.data)
                        except ValueError as error:
                            raise UnknownEntry(index, str(error)) from error
                        result = self._apply_command(command, index)
                        answer = effects.answer(result)
                        results.append(result)
                    elif kind == EntryKind.CONFIGURATION:
                        self._apply_configuration(entry.data, index, entry.term)
                        results.append(None)
                    elif kind == EntryKind.NOOP:
                        results.append(None)
                    else:
                        raise UnknownEntry(index, f"unknown kind {kind}")
                    effects_hash = (
                        effects_hash * _HASH_FACTOR
                        + answer * _REPLY_FACTOR
                        + (self.revision << _CHECKSUM_BITS)
                        + effects.checksum
                    ) % _HASH_PRIME
                    hashes.append(effects_hash)
                    if effects.worked_bytes > WRITTEN_BYTES_MAX:
                        break
                self.applied_index, self.applied_term = index, entry.term
                self.effects_hash = effects_hash
                self._flush()
        except BaseException:
            # The store has gone back to where it was; what was made from it follows.
            self._load()
            raise
        if changes:
            self.events.extend(changes)
        self._hashes.fromlist(hashes)
        # Rarely, and then half of them: to move the others costs less than a ring would each time.
        if len(self._hashes) >= 2 * HASHES_KEPT:
            del self._hashes[:-HASHES_KEPT]
        while len(self._sessions) > SESSIONS_CACHED_MAX:
            del self._sessions[next(iter(self._sessions))]
        return results

    def hash_at(self, index: Index) -> int | None:
        """Return `effects_hash` as it was after the entry at `index`; None if that is not known.

        Known are the last `HASHES_KEPT` entries, but none below `applied_index` as it was when this
        object was made or restored.
        """
        back = self.applied_index - index
        known = 0 <= back < min(len(self._hashes), HASHES_KEPT)
        return self._hashes[-1 - back] if known else None

    # --- reads ------------------------------------------------------------------------------

    def get(self, key: str) -> KeyValue | None:
        """Return `key` with its value and revisions, or None if it does not exist."""
        key_bytes = key.encode()
        stored = self._store.get(_KEY + key_bytes)
        return None if stored is None else self._key_value(key, key_bytes, stored)

    def values(self, keys: Sequence[bytes], bytes_max: int) -> Values:
        """Return the values of `keys`, which are UTF-8, None for those that do not exist.

        Those of the first keys only, at least of one, if all of them have more than `bytes_max`.
        """
        get, head_bytes = self._store.get, _REVISIONS.size
        values: Values = []
        for key in keys:
            stored = get(_KEY + key)
            if stored is None:
                values.append(None)
                continue
            bytes_max -= len(stored)
            if bytes_max < 0 and values:
                break
            values.append(stored[head_bytes:])
        return values

    def list(
        self, prefix: str, limit: int, bytes_max: int, *, after: str = ""
    ) -> tuple[KeyValues, bool]:
        """Return the first keys that start with `prefix`, and whether there are more.

        Only those behind `after` count, which need not be a key that is there.

        The order is that of the keys' UTF-8 bytes. At most `limit` of them, and at most
        `bytes_max` bytes of keys and values together; one key is returned however long it is, so
        that a reader who goes on after the last key always gets further.
        """
        start = _KEY + prefix.encode()
        # No byte of UTF-8 is 255, so that the last one can always be counted up.
        end = start[:-1] + bytes((start[-1] + 1,))
        if after:
            start = max(start, _KEY + after.encode() + b"\0")
        found: KeyValues = []
        found_bytes = 0
        while True:
            # One more than allowed tells whether there are more.
            chunk = min(LIST_CHUNK, limit + 1 - len(found))
            pairs = self._store.scan(start, end, chunk)
            for store_key, stored in pairs:
                found_bytes += len(store_key) - len(_KEY) + len(stored) - _REVISIONS.size
                if len(found) >= limit or (found and found_bytes > bytes_max):
                    return found, True
                key_bytes = store_key[len(_KEY) :]
                found.append(self._key_value(key_bytes.decode(), key_bytes, stored))
            if len(pairs) < chunk:
                return found, False
            start = pairs[-1][0] + b"\0"

    @property
    def store(self) -> CountedStore:
        """What it lives in, for those who only read."""
        return self._store

    def _key_value(self, key: str, key_bytes: bytes, stored: bytes) -> KeyValue:
        deadline = self._lives.deadline(key_bytes)
        created, modified, version = _REVISIONS.unpack_from(stored)
        return KeyValue(key, stored[_REVISIONS.size :], created, modified, version, deadline)

    @property
    def life_count(self) -> int:
        """Keys with a life."""
        return self._lives.count

    @property
    def clock_ms(self) -> int:
        """Cluster time, as far as the entries say that were applied."""
        return self._lives.clock_ms

    def earliest_deadline(self) -> int | None:
        """Return when the first life ends, in cluster time; None where no key has one."""
        return self._lives.earliest()

    def session_result(self, session: str, serial: int) -> Result | None:
        """Return what the command with this serial answered, or None if it is not known.

        None also where the session or the serial has not been seen, where the client has
        acknowledged it, and where the session has expired.
        """
        found = self._sessions.get(session) or self._read_session(session)
        packed = None if found is None else found.results.get(serial)
        return None if packed is None else unpack_result(packed)

    def would_execute(self, session: str, serial: int) -> bool:
        """Return whether a command with this serial would be executed if it were applied next."""
        found = self._sessions.get(session) or self._read_session(session)
        return (
            found is not None
            and serial >= found.lowest_serial
            and serial not in found.results
            and len(found.results) < SESSION_RESULTS_MAX
        )

    def operations(self) -> Operations:
        """Return the operation records that are kept, the newest one last."""
        return self._ledger.operations()

    def operation(self, id: str) -> Operation | None:
        """Return the record of operation `id`, or None if there is none."""
        return self._ledger.operation(id)

    @property
    def running_operation(self) -> Operation | None:
        """The membership operation that has not ended."""
        return self._ledger.running

    @property
    def rolling_operation(self) -> Operation | None:
        """The rolling operation that has not ended, paused or not."""
        return self._ledger.rolling

    def history(
        self, limit: int, below_index: Index, bytes_max: int
    ) -> tuple[tuple[ConfigurationRecord, ...], bool]:
        """Return the newest configurations that were applied, and whether there are more.

        Args:
            limit: at most so many of them.
            below_index: only those with a smaller index; 0 for all.
            bytes_max: of the stored records; one is returned however long it is.
        """
        return self._history.newest(limit, below_index, bytes_max)

    @property
    def history_is_complete(self) -> bool:
        """Whether the history has every configuration since the cluster was founded."""
        return self._history.is_complete

    def tombstone(self, server: ServerId) -> Index | None:
        """Return the index of the configuration entry that removed `server` for good, or None."""
        stored = self._store.get(_TOMBSTONE + server.encode())
        if stored is None:
            return None
        index: Index = _INDEX.unpack(stored)[0]
        return index

    # --- sessions ---------------------------------------------------------------------------

    def _apply_command(self, command: Command, index: Index) -> Result:
        """Execute a command if its serial is new, else answer as before.

        Source: dissertation section 6.3.
        """
        body = command.body
        name = command.session
        if type(body) is OpenSession:
            return self._open_session(name, index)
        if not name:
            return self._handlers[type(body)](body, command, index)
        session = self._sessions.get(name) or self._load_session(name)
        if session is None:
            return self._session_expired(name)
        session.used_index = index
        self._used[name] = session
        if command.lowest_unacknowledged > session.lowest_serial:
            session.acknowledge(command.lowest_unacknowledged)
        self._effects.add(session.name_checksum + session.lowest_serial * _LOWEST_FACTOR)
        serial = command.serial
        if serial < session.lowest_serial:
            return self._refused(
                "stale-serial",
                f"serial {serial} of session {name} was acknowledged: "
                f"its answer is forgotten, the lowest one known is {session.lowest_serial}",
            )
        known = session.results.get(serial)
        if known is not None:
            return unpack_result(known)
        if len(session.results) >= SESSION_RESULTS_MAX:
            # Not kept: the same serial may come again once the client has acknowledged others.
            return self._refused(
                "too-many-unacknowledged",
                f"session {name} has {len(session.results)} results that were not acknowledged; "
                "acknowledge some and send the command again under the same serial",
            )
        result = self._handlers[type(body)](body, command, index)
        session.results[serial] = pack_result(result)
        self._effects.add(serial * _SERIAL_FACTOR + result_checksum(session.results.get(serial)))
        return result

    def _open_session(self, name: str, index: Index) -> Result:
        name_bytes = name.encode()
        if not 0 < len(name_bytes) <= SESSION_BYTES_MAX:
            return self._refused(
                "invalid",
                f"the session has a name of {len(name_bytes)} bytes; "
                f"1 to {SESSION_BYTES_MAX} are allowed",
            )
        session = self._sessions.get(name) or self._load_session(name)
        if session is None:
            if self._store.get(_EXPIRED + name_bytes) is not None:
                return self._session_expired(name)
            while self.session_count >= SESSIONS_MAX:
                self._evict_session(index)
            session = self._sessions[name] = Session(index, 1, {}, crc32(name_bytes))
            self._effects.put(_USED + _INDEX.pack(index), name_bytes)
            self.session_count += 1
            self._effects.add(self.session_count + self._expired_count * _COUNT_FACTOR)
        session.used_index = index
        self._used[name] = session
        return Result(True, self.revision)

    def _evict_session(self, index: Index) -> None:
        """Let the least recently used session expire, for the entry at `index`.

        A use does not move a session in the queue, which would be two writes for every command:
        its place is looked at, and corrected, when it comes to the head. Each use pays for at most
        one such move. The head that stands where it was last used is the right one, since no
        session stands behind its last use.
        """
        store = self._effects
        while True:
            ((place, name_bytes),) = store.scan(_USED, _USED_END, 1)
            name = name_bytes.decode()
            session = self._sessions.get(name) or self._read_session(name)
            assert session is not None, "a session in the queue has no record"
            store.delete(place)
            used = _USED + _INDEX.pack(session.used_index)
            if used == place:
                break
            store.put(used, name_bytes)
        # No effect: whether there is a record yet depends on the batch that it was opened in.
        self._store.delete(_SESSION + name_bytes)
        self._sessions.pop(name, None)
        self._used.pop(name, None)
        self.session_count -= 1
        store.put(_EXPIRED + name_bytes, b"")
        store.put(_EXPIRED_ORDER + _INDEX.pack(index) + name_bytes, b"")
        self._expired_count += 1
        while self._expired_count > EXPIRED_NAMES_MAX:
            ((oldest, _),) = store.scan(_EXPIRED_ORDER, _EXPIRED_ORDER_END, 1)
            store.delete(oldest)
            store.delete(_EXPIRED + oldest[len(_EXPIRED_ORDER) + _INDEX.size :])
            self._expired_count -= 1

    def _read_session(self, name: str) -> Session | None:
        name_bytes = name.encode()
        stored = self._store.get(_SESSION + name_bytes)
        if stored is None:
            return None
        used_index, lowest_serial, results = msgpack.unpackb(stored, strict_map_key=False)
        return Session(used_index, lowest_serial, results, crc32(name_bytes))

    def _load_session(self, name: str) -> Session | None:
        """Return the session from the store, and keep it in the cache."""
        session = self._read_session(name)
        if session is not None:
            self._sessions[name] = session
        return session

    def _flush(self) -> None:
        """Write what the batch has changed and kept back, once for the whole batch."""
        pack = msgpack.Packer().pack
        put = self._store.put
        for name, session in self._used.items():
            put(
                _SESSION + name.encode(),
                pack((session.used_index, session.lowest_serial, session.results)),
            )
        self._used.clear()
        fields: tuple[int, ...] = (
            self.features or STATE_FORMAT,
            self.applied_index,
            self.applied_term,
            self.revision,
            self.configuration_index,
            self.effects_hash,
            self.session_count,
            self._expired_count,
        )
        if self.features >= FEATURES_LIVES:
            fields += (self._lives.count, self._lives.clock_ms)
        put(_META, pack(fields))

    # --- keys -------------------------------------------------------------------------------

    def _put(self, body: Put, command: Command, index: Index) -> Result:
        key = body.key.encode()
        value = body.value
        if not 0 < len(key) <= KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
            return self._refused_size(key, value)
        stored = self._store.get(_KEY + key)
        if stored is not None and body.if_absent:
            return Result(False, self.revision)
        if body.if_revision is not None:
            mod_revision = 0 if stored is None else _REVISIONS.unpack_from(stored)[1]
            if body.if_revision != mod_revision:
                return Result(False, self.revision)
        if self._lives.count:
            self._lives.set(key, 0)
        return self._write(_KEY + key, value, stored)

    def _compare_and_set(self, body: CompareAndSet, command: Command, index: Index) -> Result:
        key = body.key.encode()
        value = body.value
        if not 0 < len(key) <= KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
            return self._refused_size(key, value)
        stored = self._store.get(_KEY + key)
        if stored is None or stored[_REVISIONS.size :] != body.expected:
            return Result(False, self.revision)
        if self._lives.count:
            self._lives.set(key, 0)
        return self._write(_KEY + key, value, stored)

    def _delete(self, body: Delete, command: Command, index: Index) -> Result:
        return Result(self._remove(body.key.encode(), DELETED), self.revision)

    def _increment(self, body: Increment, command: Command, index: Index) -> Result:
        key = body.key.encode()
        if not 0 < len(key) <= KEY_BYTES_MAX:
            return self._refused_size(key, b"")
        stored = self._store.get(_KEY + key)
        number = 0 if stored is None else parse_integer(stored[_REVISIONS.size :])
        if number is None:
            return self._refused("not-a-number", "value is not an integer or out of range")
        number += body.by
        if not INTEGER_MIN <= number <= INTEGER_MAX:
            return self._refused("not-a-number", "increment or decrement would overflow")
        result = self._write(_KEY + key, b"%d" % number, stored)
        return attrs.evolve(result, number=number)

    def _put_many(self, body: PutMany, command: Command, index: Index) -> Result:
        pairs = [(key.encode(), value) for key, value in body.pairs]
        for key, value in pairs:
            if not 0 < len(key) <= KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
                return self._refused_size(key, value)
        result = Result(True, self.revision)
        for key, value in pairs:
            if self._lives.count:
                self._lives.set(key, 0)
            result = self._write(_KEY + key, value, self._store.get(_KEY + key))
        return result

    def _delete_many(self, body: DeleteMany, command: Command, index: Index) -> Result:
        count = 0
        for key in body.keys:
            count += self._remove(key.encode(), DELETED)
        return Result(count > 0, self.revision, number=count)

    def _transact(self, body: Transaction, command: Command, index: Index) -> Result:
        problem = problem_of(body) if self.features >= FEATURES_LIVES else FEATURES_OFF
        if problem:
            return self._refused("invalid", problem)
        lives = self._lives
        self.stamped_index = index
        lives.advance(body.time_ms)
        draft = Draft(self._effects, lives, self.revision)
        if not draft.holds(body.conditions):
            return Result(False, self.revision)
        returned_max = RETURNED_BYTES_MAX
        if command.session:
            kept_bytes = self._sessions[command.session].returned_bytes
            returned_max = SESSION_RETURNED_BYTES_MAX - kept_bytes
        outcomes = draft.carry_out(body.steps, returned_max)
        if outcomes is None:
            return self._refused(*draft.refusal(returned_max, command.session))
        draft.commit()
        self._changes += draft.changes
        self.revision = draft.revision
        return Result(True, self.revision, outcomes=outcomes)

    def _advance_clock(self, body: AdvanceClock, command: Command, index: Index) -> Result:
        if self.features < FEATURES_LIVES:
            return self._refused("invalid", FEATURES_OFF)
        self.stamped_index = index
        self._lives.advance(body.time_ms)
        lapsed = self._lives.lapsed()
        for key in lapsed:
            was_there = self._remove(key, EXPIRED)
            assert was_there, "a key with a life is not there"
        return Result(True, self.revision, number=len(lapsed))

    def _remove(self, key: bytes, kind: bytes) -> bool:
        """Remove a key and its life; return whether it was there."""
        store_key = _KEY + key
        if not self._effects.delete(store_key):
            return False
        self.revision += 1
        self._note((store_key, kind))
        if self._lives.count:
            self._lives.set(key, 0)
        return True

    def _write(self, store_key: bytes, value: bytes, stored: bytes | None) -> Result:
        """Give a key its new value, whatever `stored` it has."""
        revision = self.revision = self.revision + 1
        if stored is None:
            head = _REVISIONS.pack(revision, revision, 1)
        else:
            create_revision, _, version = _REVISIONS.unpack_from(stored)
            head = _REVISIONS.pack(create_revision, revision, version + 1)
        stored = head + value
        self._effects.put(store_key, stored)
        self._note((store_key, stored))
        return Result(True, revision)

    # --- operations and configurations ------------------------------------------------------

    def _begin_operation(self, body: BeginOperation, command: Command, index: Index) -> Result:
        return self._ledger.begin(
            body,
            session=command.session,
            serial=command.serial,
            index=index,
            configuration_index=self.configuration_index,
            revision=self.revision,
        )

    def _abort_operation(self, body: AbortOperation, command: Command, index: Index) -> Result:
        return self._ledger.abort(body, index=index, revision=self.revision)

    def _end_operation(self, body: EndOperation, command: Command, index: Index) -> Result:
        return self._ledger.end(body, index=index, revision=self.revision)

    def _begin_rolling(self, body: BeginRolling, command: Command, index: Index) -> Result:
        return self._ledger.begin_rolling(
            body,
            session=command.session,
            serial=command.serial,
            index=index,
            configuration_index=self.configuration_index,
            revision=self.revision,
        )

    def _update_rolling(self, body: UpdateRolling, command: Command, index: Index) -> Result:
        return self._ledger.update_rolling(body, index=index, revision=self.revision)

    def _switch_on(self, body: SwitchOn, command: Command, index: Index) -> Result:
        if body.version not in _FORMATS[1:]:
            raise UnknownEntry(index, f"it switches on the features of version {body.version}")
        if body.version > self.features:
            history_begins = self.features < FEATURES_HISTORY
            self.features = body.version
            self._effects.add(body.version)
            data = self._store.get(_CONFIGURATION)
            if history_begins and data is not None:
                self._record(
                    decode_configuration(data), self.configuration_index, body.configuration_term
                )
        return Result(True, self.revision)

    def _record(self, entry: ConfigurationEntry, index: Index, term: Term) -> None:
        """Add a configuration to the history."""
        operation = self._ledger.operation(entry.operation) if entry.operation else None
        self._history.append(configuration_record(entry, index, term, operation))

    def _apply_configuration(self, data: bytes, index: Index, term: Term) -> None:
        try:
            entry = decode_configuration(data)
        except ValueError as error:
            raise UnknownEntry(index, str(error)) from error
        self.configuration_index = index
        self._effects.put(_CONFIGURATION, data)
        for server in sorted(entry.tombstones):
            key = _TOMBSTONE + server.encode()
            if self._store.get(key) is None:
                self._effects.put(key, _INDEX.pack(index))
        if entry.operation or entry.kind is ConfigurationKind.BOOTSTRAP:
            self._ledger.configuration_applied(entry, index)
        if self.features >= FEATURES_HISTORY:
            self._record(entry, index, term)

    # --- refusals ---------------------------------------------------------------------------

    def _refused(self, code: str, message: str) -> Result:
        return Result(applied=False, revision=self.revision, code=code, message=message)

    def _session_expired(self, name: str) -> Result:
        return self._refused(
            "session-expired",
            f"session {name} is not known, or not any more; open one under a new name",
        )

    def _refused_size(self, key: bytes, value: bytes) -> Result:
        return self._refused(
            "invalid",
            f"a key of {len(key)} bytes and a value of {len(value)}; a key has 1 to "
            f"{KEY_BYTES_MAX} bytes, a value at most {VALUE_BYTES_MAX}",
        )
