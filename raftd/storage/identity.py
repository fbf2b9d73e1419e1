"""Who a data directory is: the server's name, its incarnation, and the cluster it belongs to.

| name | what |
|---|---|
| `raftd.lock` | locked by the one process that uses the directory, whose pid it holds |
| `identity.json` | the identity, with a format version and a checksum |
| `wal/` | the log |
| `snapshots/` | the newest snapshot, and what is on its way to become one |
| `state/` | the state that is served: a cache, which log and snapshot can always replace |

The incarnation is minted once for each data directory and never used again: a server that comes
back with an empty disk has forgotten its votes, so it must not count as the one that cast them.

On the first start the log is made before the identity is published. So an identity without a log
means that the log was lost, and a log that was written to without an identity, that the identity
was: both are refused.

Source: dissertation section 3.8 (a server that lost its state comes back under a new identity).
"""

from __future__ import annotations

import json
import re
import secrets
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from raftd.config_values import check_name, quoted
from raftd.core.types import Index, ServerId
from raftd.storage.files import (
    FileLock,
    FileLocked,
    FileSystem,
    Remedy,
    StorageFault,
    make_directories,
    publish,
)
from raftd.storage.wal import Wal, inspect_wal

FORMAT_VERSION = 1
"""Of the identity file."""
FORMAT_VERSION_OF_PROMISES = 2
"""Of the file of a server that has promised to withhold its vote: no release may start with it that
would not."""
INCARNATION_BYTES = 8
"""Random bytes of an incarnation: two alike among a million have a chance of 1 to 37 million."""

INCARNATION_DIGITS = 2 * INCARNATION_BYTES
"""Hexadecimal digits of an incarnation, in lower case."""

_INCARNATION = re.compile(rf"[0-9a-f]{{{INCARNATION_DIGITS}}}")
_IDENTITY_NAME = "identity.json"
_LOCK_NAME = "raftd.lock"
_WAL_NAME = "wal"
_SNAPSHOTS_NAME = "snapshots"
_STATE_NAME = "state"


class DataDirectoryLocked(Exception):
    """Another raftd uses the data directory; the message names it."""


class WrongName(Exception):
    """The data directory belongs to a server of another name; the message says to which."""


@attrs.frozen(kw_only=True)
class Identity:
    """Who a server is, as its data directory says."""

    name: str
    """The operator's name for it, the key in the cluster file."""
    incarnation: str
    """16 hex digits, of this data directory and of no other, ever."""
    cluster_id: str = ""
    """Empty while the server is blank."""
    cluster_name: str = ""
    bootstrap_address: str = ""
    """Set if this server founded the cluster: the first configuration of the log is this server
    alone, at this HOST:PORT."""
    bootstrap_time_ms: int = 0
    """When it did, milliseconds since 1970. For people only."""
    removed_index: Index = 0
    """Above 0: removed for good by the configuration at this index."""
    log_begun: bool = False
    """The log has had entries. An empty one then has lost what this server acknowledged."""
    vote_withheld_ms: int = 0
    """Above 0: it has used leases, and may have promised to withhold its vote for so long. A start
    keeps such a promise also where leases are not used any more."""

    @property
    def server(self) -> ServerId:
        """The member that this server is in configurations, votes and messages."""
        return f"{self.name}/{self.incarnation}"

    @property
    def is_blank(self) -> bool:
        """Whether it belongs to no cluster yet."""
        return not self.cluster_id


def refuse_lost_log(identity: Identity, last_index: Index) -> None:
    """Make sure that a log which has had entries was not lost as a whole.

    Args:
        last_index: the last entry that log and snapshot have; 0 if there is none.

    Raises:
        StorageFault: it was.
    """
    if identity.log_begun and not last_index:
        raise StorageFault(
            f"the log of {identity.server} is empty, although it has had entries. Without them "
            "the server does not know what it voted for and acknowledged, so it does not start",
            Remedy.REPLACE,
        )


def _mint_incarnation() -> str:
    return secrets.token_hex(INCARNATION_BYTES)


def check_server(text: str) -> ServerId:
    """Return `text` if it may be the name and incarnation of a data directory.

    Raises:
        ValueError: it may not; the message says the rule and is short, whatever `text` is.
    """
    name, _, incarnation = text.partition("/")
    check_name(name)
    if not _INCARNATION.fullmatch(incarnation):
        raise ValueError(
            f"{quoted(incarnation)} is not an incarnation: {INCARNATION_DIGITS} of 0-9 and a-f"
        )
    return text


class DataDirectory:
    """The data directory of a running server, locked against every other process."""

    def __init__(self, path: Path, files: FileSystem, lock: FileLock, identity: Identity) -> None:
        """Take over a directory that is locked and checked. `open` does both."""
        self._path = path
        self._files = files
        self._lock = lock
        self._identity = identity

    @classmethod
    def open(
        cls,
        path: Path,
        name: str,
        files: FileSystem,
        *,
        mint_incarnation: Callable[[], str] = _mint_incarnation,
    ) -> DataDirectory:
        """Lock the directory at `path` and find out, or decide, who the server is.

        A directory that is missing or was never finished becomes a blank server called `name`,
        durably, with an empty log and a new incarnation.

        Args:
            mint_incarnation: Returns 16 hex digits that were never used.

        Raises:
            DataDirectoryLocked: another process uses it.
            WrongName: it belongs to a server with another name than `name`.
            StorageFault: the disk failed, or identity and log do not belong together.
        """
        # Once an identity is there, the names above it were synced before it.
        if not files.exists(path / _IDENTITY_NAME):
            make_directories(files, path)
        try:
            lock = files.lock(path / _LOCK_NAME)
        except FileLocked as locked:
            holder = f"process {locked.holder}" if locked.holder else "another process"
            raise DataDirectoryLocked(
                f"the data directory {path} is in use by {holder}; "
                "stop that one first, or choose another directory with --data-dir"
            ) from None
        try:
            # Asked again under the lock: another process may just have finished its first start.
            if files.exists(path / _IDENTITY_NAME):
                identity = _load(path, name, files)
            else:
                identity = _found(path, Identity(name=name, incarnation=mint_incarnation()), files)
        except BaseException:
            lock.close()
            raise
        return cls(path, files, lock, identity)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def wal_path(self) -> Path:
        """The directory of the log."""
        return self._path / _WAL_NAME

    @property
    def snapshots_path(self) -> Path:
        """The directory of the snapshots."""
        return self._path / _SNAPSHOTS_NAME

    @property
    def state_path(self) -> Path:
        """The directory of the live state."""
        return self._path / _STATE_NAME

    @property
    def identity(self) -> Identity:
        """The identity that was published last."""
        return self._identity

    def publish(self, identity: Identity) -> None:
        """Replace the identity. Durable after it returns; after a crash it is the old or the new.

        Raises:
            StorageFault: the disk failed; `identity` is still the old one.
        """
        assert identity.server == self._identity.server, "a data directory is one server for ever"
        publish(self._files, self._path / _IDENTITY_NAME, _encode(identity))
        self._identity = identity

    def close(self) -> None:
        """Let another process use the directory."""
        self._lock.close()


def _load(path: Path, name: str, files: FileSystem) -> Identity:
    """Return the identity of a directory that has one, and make sure that it is durable."""
    identity = decode_identity(path / _IDENTITY_NAME, files.read(path / _IDENTITY_NAME))
    if identity.name != name:
        raise WrongName(
            f"the data directory {path} belongs to server {identity.name}, not to {name}; "
            f"start it with --id {identity.name}, or give {name} a directory of its own"
        )
    if not Wal.exists(path / _WAL_NAME, files):
        raise StorageFault(
            f"{path}: this is server {identity.server}, but its log is missing. Without it the "
            "server does not know what it voted for and acknowledged, so it does not start",
            Remedy.REPLACE,
        )
    # A crash may have come between the renaming and this sync.
    files.sync_directory(path)
    return identity


def _found(path: Path, identity: Identity, files: FileSystem) -> Identity:
    """Make the log, then publish `identity`: the first start of a server, or its repetition."""
    wal_path = path / _WAL_NAME
    if Wal.exists(wal_path, files):
        found = inspect_wal(wal_path, files)
        if found.damage is not None:
            raise found.damage
        if not found.is_empty:
            raise StorageFault(
                f"{path}: there is a log, but {_IDENTITY_NAME} is missing, so nobody knows whose "
                "votes and entries these are. If there is a copy of the file, put it back",
                Remedy.REPLACE,
            )
        # A crash may have come before all of it was durable.
        wal, _ = Wal.open(wal_path, files)
        wal.close()
    else:
        Wal.create(wal_path, files)
    publish(files, path / _IDENTITY_NAME, _encode(identity))
    return identity


def _encode(identity: Identity) -> bytes:
    """Return the file for `identity`: the same bytes for the same identity, always."""
    fields = attrs.asdict(identity)
    if not identity.log_begun:
        # Left out, so that it is the same file as that of a release which did not know the field.
        del fields["log_begun"]
    version = FORMAT_VERSION_OF_PROMISES
    if not identity.vote_withheld_ms:
        # As above.
        del fields["vote_withheld_ms"]
        version = FORMAT_VERSION
    document = {"format": version, "identity": fields, "checksum": _checksum(fields)}
    return (json.dumps(document, indent=2) + "\n").encode("ascii")


def _checksum(fields: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(fields).encode('ascii')):08x}"


def decode_identity(path: Path, content: bytes) -> Identity:
    """Return the identity in `content`.

    Raises:
        StorageFault: a newer release wrote it, or it is not exactly what `_encode` made.
    """
    try:
        document = json.loads(content)
        version = document["format"]
        fields = document["identity"]
        if version in (FORMAT_VERSION, FORMAT_VERSION_OF_PROMISES):
            identity = Identity(**fields)
            # One comparison finds a flipped bit wherever it is, in a number, a name or a space.
            if content == _encode(identity):
                return identity
    except (ValueError, TypeError, KeyError):
        version = None
    if type(version) is int and version > FORMAT_VERSION_OF_PROMISES:
        raise StorageFault(
            f"{path}: written in format {version}; this release reads formats {FORMAT_VERSION} to "
            f"{FORMAT_VERSION_OF_PROMISES}. Start the release that wrote it",
            Remedy.NAMED,
        )
    raise StorageFault(
        f"{path}: damaged, its checksum does not match, so nobody knows whose votes and entries "
        "are beside it. If there is a copy of the file, put it back",
        Remedy.REPLACE,
    )
