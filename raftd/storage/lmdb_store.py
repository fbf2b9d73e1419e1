"""A `Store` in an LMDB database: state that may be larger than memory, and outlives the process.

It is written without sync. What a transaction has committed is in the kernel's page cache, so it
survives the process however that ends, and not a loss of power: whether a database may be used
again is for `raftd.storage.live` to say. Nothing here is the only copy of anything.

The file is mapped and grows as needed; pages that become free are used again and never given back
to the disk. A read transaction keeps all pages that were in use when it began, and, as LMDB works,
all that become free after it: a long one makes the file grow with every write.

The process that writes does so through the map (`MDB_WRITEMAP`), without a system call for each
page. Those that read have maps of their own, of the same pages of the kernel. A transaction that
the process does not live to commit leaves pages that nothing refers to, so the state is that of the
latest commit, as with writes; `sync` waits for all changed pages of the map. A page that is used
again is read before, if it is not in memory: a state that does not fit there is written slower.

What ends the process by SIGBUS is a page that cannot be read: the disk failed, or somebody has cut
the file. A full disk does not: the pages that a transaction may come to are allocated before, see
`raftd.storage.map_room`, and it is a fault where they cannot be. That is as good as the promise of
the file system to have room for what was allocated: one that writes each changed page to a new
place, as btrfs and ZFS do, does not give it. There it is for `disk_reserve` to keep some room.

While a process has a store open, nothing else in it may open and close that store's `lock.mdb`, to
copy it for example: the kernel then takes away the lock that tells other processes of this one.

Source: Howard Chu, "MDB: A Memory-Mapped Database and Backend for OpenLDAP" (2011).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice, takewhile
from pathlib import Path

import lmdb

from raftd.storage.files import OsFileSystem, StorageFault
from raftd.storage.map_room import MapRoom, longest_file_bytes
from raftd.storage.store import STORE_KEY_BYTES_MAX

MAP_BYTES = 1 << 40
"""The address space for the map: 1 TiB. It costs neither memory nor disk, and is the most that a
database can hold. Less where a file cannot be so long."""
READERS_MAX = 32
"""Read transactions at once, in all processes together: one of the server, and its children."""
PAIRS_BYTES = 256 * 1024
"""Keys and values after which `pairs` ends a list."""
LOAD_TRANSACTION_BYTES = 4 * 1024 * 1024
"""Keys and values that `load` writes at a time, and syncs where it does: changed pages are in
memory until then, and a longer sync makes those of the log wait."""
DATABASE_FILE = "data.mdb"
"""LMDB's name for the file with the pages, beside its `lock.mdb`."""

_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)
_BUGS = (
    lmdb.BadDbiError,
    lmdb.BadRslotError,
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.KeyExistsError,
)
"""What LMDB says to a caller that breaks its rules."""


class DamagedDatabase(StorageFault):
    """The file is no database of LMDB, or not a whole one. It has to be built again."""


class LmdbStore:
    """A `raftd.storage.store.Store` in the directory `path`; made by `open`.

    One process writes, others may read at the same time. A process opens a directory once at a
    time, and uses it in one thread.

    Invariant: outside of `transaction`, `view` and an unfinished `pairs` no transaction is open,
    so no page is kept from being used again.

    Raises:
        DamagedDatabase: LMDB found a page that makes no sense; here and in every method.
        StorageFault: the disk failed or is full; likewise. Of the changes of a transaction that
            ends so, none is visible. The caller stops the process, as after every other fault.
    """

    def __init__(
        self, environment: lmdb.Environment, path: Path, room: MapRoom | None = None
    ) -> None:
        self.path = path
        self._environment = environment
        self._room = room
        """Of one that may write."""
        self._transaction: lmdb.Transaction[bytes] | None = None
        """The one that reads take part in, while there is one."""
        self._writing: lmdb.Transaction[bytes] | None = None
        """The same, if it may write."""
        self._is_closed = False
        self._failure: StorageFault | None = None
        """The first one."""

    @classmethod
    def open(cls, directory: Path, *, read_only: bool = False) -> LmdbStore:
        """Open the database in `directory`, and make both if they are missing.

        Args:
            read_only: For a second process, while the first one may write on. Then nothing is
                made. The readers' table is written to all the same, so the directory has to be
                writable.
        """
        room = None
        try:
            if read_only:
                environment = _environment(directory, MAP_BYTES, read_only=True)
            else:
                environment, room = _writable(directory)
        except (lmdb.Error, OSError) as error:
            raise _fault("opening it", directory, error) from error
        store = cls(environment, directory, room)
        store.release_dead_readers()
        return store

    def close(self) -> None:
        """Give the database back, once or more often. What was not synced stays undecided."""
        if not self._is_closed:
            assert self._transaction is None, "closed inside a transaction"
            self._is_closed = True
            self._environment.close()
            if self._room is not None:
                self._room.close()

    def transaction(self) -> _Writing:
        """Make the changes of the `with` block visible together when it ends.

        If the block raises, none of them is, and the exception goes on. Visible, also to other
        processes, is not durable: see `sync`. Changed pages are in memory until the block ends.
        """
        return _Writing(self)

    @contextmanager
    def view(self) -> Iterator[None]:
        """Let all reads of the `with` block see the store as it is now, whoever writes meanwhile.

        For processes that only read; see the module on what a long view costs.
        """
        assert self._transaction is None, "transactions do not nest"
        with self._faults("beginning to read"):
            transaction = self._environment.begin()
        self._transaction = transaction
        try:
            yield
        finally:
            self._transaction = None
            transaction.abort()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None if there is none."""
        if not 0 < len(key) <= STORE_KEY_BYTES_MAX:
            return None
        try:
            if self._transaction is not None:
                return self._transaction.get(key)
            transaction = self._environment.begin()
            try:
                return transaction.get(key)
            finally:
                transaction.abort()
        except lmdb.Error as error:
            raise self._fault("reading", error) from error

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` to `value`. Only inside a transaction."""
        assert self._writing is not None, "put outside of a transaction"
        assert self._room is not None
        assert 0 < len(key) <= STORE_KEY_BYTES_MAX, f"a key of {len(key)} bytes"
        try:
            self._room.put(len(value))
            self._writing.put(key, value)
        except (lmdb.Error, OSError) as error:
            raise self._fault("writing", error) from error

    def delete(self, key: bytes) -> bool:
        """Remove `key` and return whether it was there. Only inside a transaction."""
        assert self._writing is not None, "delete outside of a transaction"
        assert self._room is not None
        if not 0 < len(key) <= STORE_KEY_BYTES_MAX:
            return False
        try:
            self._room.delete()
            return self._writing.delete(key)
        except (lmdb.Error, OSError) as error:
            raise self._fault("writing", error) from error

    def scan(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the first `limit` pairs with `start <= key < end`, in order of their keys."""
        try:
            if self._transaction is not None:
                return _scan(self._transaction, start, end, limit)
            transaction = self._environment.begin()
            try:
                return _scan(transaction, start, end, limit)
            finally:
                transaction.abort()
        except lmdb.Error as error:
            raise self._fault("reading", error) from error

    def keys(self, start: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return the first `limit` keys with `start <= key < end`, in order."""
        with self._faults("reading"):
            transaction = self._transaction
            if transaction is not None:
                return _keys(transaction, start, end, limit)
            transaction = self._environment.begin()
            try:
                return _keys(transaction, start, end, limit)
            finally:
                transaction.abort()

    def pairs(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """Return all pairs in the order of their keys, in lists that hold at least one.

        A list ends with the pair by which its keys and values reach `PAIRS_BYTES`, so that it is
        longer than that by one pair at most. All come from one read transaction: that of `view`,
        or one of its own that ends with the iterator.
        """
        assert self._writing is None, "all pairs while some are being changed"
        transaction = self._transaction
        if transaction is not None:
            yield from self._pairs(transaction)
            return
        with self._faults("beginning to read"):
            transaction = self._environment.begin()
        try:
            yield from self._pairs(transaction)
        finally:
            transaction.abort()

    def load(self, pairs: Iterable[list[tuple[bytes, bytes]]], *, durable: bool = True) -> int:
        """Put all `pairs`, in ascending order of their keys, into the empty store.

        Not in one transaction, but in pieces of about `LOAD_TRANSACTION_BYTES`, so that memory is
        bounded: if it raises, or the process ends, some are there and some are not, and the
        database is good for nothing but to be removed.

        Args:
            durable: whether all is, after it has returned; the name of a new directory is not
                before its parent is synced. Syncs take longer than all the rest.

        Returns:
            The number of pairs.
        """
        assert self.pair_count == 0, "pairs are loaded into an empty store"
        lists = iter(pairs)
        count = 0
        while True:
            loaded_bytes = 0
            with self.transaction():
                assert self._writing is not None
                assert self._room is not None
                with self._writing.cursor() as cursor:
                    for some in lists:
                        some_bytes = sum(len(key) + len(value) for key, value in some)
                        # Pages are filled one after the other and never split, all in C.
                        with self._faults("writing"):
                            self._room.append(len(some), some_bytes)
                            _, added = cursor.putmulti(some, append=True)
                        # LMDB leaves out what does not ascend, and goes on.
                        assert added == len(some), "keys that do not ascend"
                        count += added
                        loaded_bytes += some_bytes
                        if loaded_bytes >= LOAD_TRANSACTION_BYTES:
                            break
            if durable:
                self.sync()
            if loaded_bytes < LOAD_TRANSACTION_BYTES:
                return count

    def sync(self) -> None:
        """Make all that is committed durable.

        The name of a new directory is not before its parent is synced. A failure is final: what
        the kernel could not write it may have forgotten, and a second sync would not say so.
        """
        assert self._room is not None
        with self._faults("syncing it"):
            # All pages of the map, and the length of the file (msync with MS_SYNC).
            self._environment.sync(True)

    def release_dead_readers(self) -> int:
        """Forget the read transactions of processes that have ended without closing the store.

        Each of them keeps its pages for ever, so the file grows with every write: to be called
        when a child that reads was killed. It is called once by `open`.

        Returns:
            How many there were.
        """
        with self._faults("looking for readers"):
            return self._environment.reader_check()

    @property
    def pair_count(self) -> int:
        """Pairs in the store, as of the latest transaction that is committed."""
        with self._faults("asking for its size"):
            return self._environment.stat()["entries"]

    @property
    def size_bytes(self) -> int:
        """Bytes of all pages that hold pairs, as of the latest transaction that is committed."""
        with self._faults("asking for its size"):
            stat = self._environment.stat()
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * stat["psize"]

    @property
    def file_bytes(self) -> int:
        """Bytes of all pages that were ever used, also of free ones.

        The file is longer by the room for what is written next: some MiB, or an eighth of it.
        """
        with self._faults("asking for its size"):
            page_bytes = self._environment.stat()["psize"]
            return (self._environment.info()["last_pgno"] + 1) * page_bytes

    def _pairs(self, transaction: lmdb.Transaction[bytes]) -> Iterator[list[tuple[bytes, bytes]]]:
        pairs: list[tuple[bytes, bytes]] = []
        pairs_bytes = 0
        with self._faults("reading"), transaction.cursor() as cursor:
            for pair in cursor:
                pairs.append(pair)
                pairs_bytes += len(pair[0]) + len(pair[1])
                if pairs_bytes >= PAIRS_BYTES:
                    yield pairs
                    pairs = []
                    pairs_bytes = 0
            if pairs:
                yield pairs

    def _begin_writing(self) -> None:
        assert self._transaction is None, "transactions do not nest"
        assert self._room is not None
        with self._faults("beginning to write"):
            transaction = self._environment.begin(write=True)
            try:
                self._room.begin(transaction)
            except BaseException:
                transaction.abort()
                raise
        self._transaction = self._writing = transaction

    def _end_writing(self, *, commit: bool) -> None:
        assert self._writing is not None
        transaction, self._transaction, self._writing = self._writing, None, None
        if not commit:
            transaction.abort()
            return
        try:
            transaction.commit()
        except lmdb.Error as error:
            raise self._fault("committing", error) from error

    @contextmanager
    def _faults(self, action: str) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            raise self._fault(action, error) from error

    def _fault(self, action: str, error: Exception) -> StorageFault:
        assert not self._is_closed, "the store was closed"
        if isinstance(error, lmdb.PanicError) and self._failure is not None:
            # Of a failed commit LMDB may want to hear no more; why it failed must not be lost.
            return StorageFault(self._failure.what)
        fault = _fault(action, self.path, error)
        self._failure = self._failure or fault
        return fault


class _Writing:
    """One transaction of a store, as a context manager."""

    # A class, since a generator costs three times as much, and this is entered for each batch.

    def __init__(self, store: LmdbStore) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store._begin_writing()

    def __exit__(self, exception_type: type[BaseException] | None, *rest: object) -> None:
        self._store._end_writing(commit=exception_type is None)


def _environment(directory: Path, map_bytes: int, *, read_only: bool) -> lmdb.Environment:
    return lmdb.open(
        str(directory),
        map_size=map_bytes,
        readonly=read_only,
        create=not read_only,
        writemap=not read_only,
        sync=False,
        metasync=False,
        # The server reads here and there, its children all from one end to the other.
        readahead=read_only,
        max_readers=READERS_MAX,
        max_dbs=0,
        # Keeps the transaction that `get` has finished, to be used by the next one.
        max_spare_txns=1,
        lock=True,
    )


def _writable(directory: Path) -> tuple[lmdb.Environment, MapRoom]:
    path = directory / DATABASE_FILE
    # LMDB makes the file as long as the map, which hides that it was cut.
    size_bytes = _whole_file_bytes(directory)
    try:
        environment = _environment(directory, MAP_BYTES, read_only=False)
    except lmdb.Error:
        if not path.exists():
            raise
        map_bytes = longest_file_bytes(path, MAP_BYTES, size_bytes)
        if map_bytes == MAP_BYTES:
            raise
        environment = _environment(directory, map_bytes, read_only=False)
    try:
        return environment, MapRoom(environment, path, size_bytes)
    except BaseException:
        environment.close()
        raise


def _whole_file_bytes(directory: Path) -> int:
    """Return how long the file of the database is, 0 if there is none yet.

    Raises:
        DamagedDatabase: it ends before its last page, or is no database.
    """
    path = directory / DATABASE_FILE
    size_bytes = path.stat().st_size if path.exists() else 0
    if size_bytes == 0:
        return 0
    # Nothing but the first pages is read, and nothing written.
    with lmdb.open(
        str(directory), map_size=MAP_BYTES, readonly=True, create=False, lock=False
    ) as environment:
        needed_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size_bytes < needed_bytes:
        # A file whose last pages were never used may end so as well, if it was not written through
        # a map: that seldom costs a build for nothing.
        raise DamagedDatabase(f"{path}: {size_bytes} bytes are there of {needed_bytes}")
    return size_bytes


def _scan(
    transaction: lmdb.Transaction[bytes], start: bytes, end: bytes, limit: int
) -> list[tuple[bytes, bytes]]:
    cursor = transaction.cursor()
    if not _set_range(cursor, start):
        return []
    # `(end,)` comes before every pair whose key is `end`, and after those whose key is less.
    return list(islice(takewhile((end,).__gt__, cursor.iternext()), limit))


def _keys(
    transaction: lmdb.Transaction[bytes], start: bytes, end: bytes, limit: int
) -> list[bytes]:
    cursor = transaction.cursor()
    if not _set_range(cursor, start):
        return []
    return list(islice(takewhile(end.__gt__, cursor.iternext(values=False)), limit))


def _set_range(cursor: lmdb.Cursor[bytes], start: bytes) -> bool:
    """Go to the first key at `start` or behind it; return whether there is one."""
    first = start[:STORE_KEY_BYTES_MAX]
    if not cursor.set_range(first):
        return False
    # A key that `start` goes on after comes before it, and none that is longer is stored.
    return first == start or cursor.key() != first or cursor.next()


def _fault(action: str, path: Path, error: Exception) -> StorageFault:
    assert not isinstance(error, _BUGS), f"{action}: {error}"
    why = error.strerror or error if isinstance(error, OSError) else error
    what = f"{path / DATABASE_FILE}: {action} failed: {why}"
    if isinstance(error, _DAMAGE):
        return DamagedDatabase(what)
    # LMDB calls a write that was taken in part, as a full disk takes it, an input/output error.
    with suppress(StorageFault):
        what += f" ({OsFileSystem().free_bytes(path)} bytes of the disk are free)"
    return StorageFault(what)
