"""The cluster file: one YAML file that describes the desired cluster to people, servers and tools.

`ClusterKeys` and the classes it is made of are the schema: a class for each mapping, a field for
each key, and as its type the rule that a value has to obey. cattrs finds the rule for a type;
nothing is coerced. Every key is judged by itself, so that one run reports every problem; what
concerns several keys is checked afterwards, among the values that are right in themselves.

After the cluster is initialised, the replicated log is the truth and this file a wish.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import attrs
import yaml
from cattrs import Converter

from raftd import config_rules as rules
from raftd.certificate_files import TlsFiles
from raftd.config_values import LOG_LEVELS as LOG_LEVELS
from raftd.config_values import (
    format_duration,
    format_percent,
    format_size,
    is_loopback,
    is_wildcard,
    normalise_host,
    parse_address,
    parse_duration_ms,
    parse_member_argument,
    parse_size_bytes,
    quoted,
)
from raftd.config_yaml import (
    INVALID,
    ConfigError,
    Document,
    KeyPath,
    Problem,
    config_error,
    read_document,
)

__all__ = [
    "DEFAULTS",
    "ClusterConfig",
    "ConfigError",
    "ServerConfig",
    "effective",
    "export",
    "export_document",
    "format_duration",
    "format_size",
    "is_loopback",
    "load",
    "parse_address",
    "parse_duration_ms",
    "parse_member_argument",
    "parse_size_bytes",
]

ROLES = ("voter", "learner")
READS = ("read-index", "lease")
HEARTBEATS_PER_ELECTION_TIMEOUT_MIN = 5
"""Fewer, and a few late heartbeats already depose a leader that is alive."""
JOINT_TIMEOUT_PER_ELECTION_TIMEOUT = 2
"""The default: the new half is given as long as an unlucky election takes."""

LINE_WIDTH = 10_000
"""Characters: longer than any line that `export` writes, so that it breaks none."""

DEFAULTS: Mapping[str, Any] = {
    "data_dir": "data/{id}",
    "heartbeat_interval": 50.0,
    "election_timeout": 500.0,
    "role": "voter",
    "zone": None,
    "catch_up_timeout": 30_000.0,
    "joint_timeout": None,
    "snapshot_log_size": 64 * 1024 * 1024,
    "snapshot_rate": 64 * 1024 * 1024,
    "catch_up_rate": 1024 * 1024 * 1024,
    "disk_reserve": 256 * 1024 * 1024,
    "reads": "read-index",
    "clock_drift": 0.05,
    "log_level": "info",
    "tls": None,
    "redis_password_file": None,
}
"""What a key is worth that stands nowhere in the file; durations in milliseconds, sizes in bytes.
`joint_timeout` is twice the election timeout of its server."""


@attrs.frozen(kw_only=True)
class ServerConfig:
    """Everything that the file says about one server, defaults filled in."""

    id: str
    address: str
    """HOST:PORT where the other servers and raftctl dial it."""
    listen: str
    """HOST:PORT that it binds."""
    redis: str | None
    """HOST:PORT where it serves clients of the Redis protocol; None for nowhere."""
    http: str | None
    """HOST:PORT where it serves health, metrics and the status page; None for nowhere."""
    data_dir: Path
    """Absolute; the folder need not exist."""
    heartbeat_interval_ms: float
    election_timeout_ms: float
    """The minimum; each wait is drawn from [T, 2T)."""
    role: str
    """voter or learner."""
    zone: str | None
    catch_up_timeout_ms: float
    joint_timeout_ms: float
    snapshot_log_bytes: int
    """A snapshot is taken when so much log has gathered since the last one; with a large state, up
    to four times as much."""
    snapshot_bytes_per_second: int
    """How fast a snapshot is written in the background."""
    catch_up_bytes_per_second: int
    """How fast a leader feeds one server that is catching up."""
    disk_reserve_bytes: int
    """With less free space clients' writes are refused; 0 for no reserve."""
    reads: str
    """read-index or lease: how it answers linearizable reads while it leads."""
    clock_drift: float
    """For leases: by what part an election timeout on one server's clock may be shorter than the
    same one on another's."""
    log_level: str
    tls: TlsFiles | None
    """Its certificate; None where nothing is encrypted."""
    redis_password_file: Path | None
    """Whose first line clients of the Redis protocol have to know that show no certificate."""


_FIELDS: Mapping[str, str] = {
    "heartbeat_interval": "heartbeat_interval_ms",
    "election_timeout": "election_timeout_ms",
    "catch_up_timeout": "catch_up_timeout_ms",
    "joint_timeout": "joint_timeout_ms",
    "snapshot_log_size": "snapshot_log_bytes",
    "snapshot_rate": "snapshot_bytes_per_second",
    "catch_up_rate": "catch_up_bytes_per_second",
    "disk_reserve": "disk_reserve_bytes",
}
"""The field of `ServerConfig` for each key that has another name: there units stand in the names,
here in the values."""


@attrs.frozen(kw_only=True)
class ClusterConfig:
    """A cluster file without a problem."""

    cluster: str
    insecure: bool
    """Whether addresses other than loopback are allowed without TLS."""
    servers: dict[str, ServerConfig]
    """By name, in the order of the file; at least one of them is a voter."""
    path: Path
    """The file, as it was named to `load`."""
    written: Mapping[str, Any] = attrs.field(factory=dict, eq=False, repr=False)
    """The plain content of the file: what it says itself, as opposed to what is a default."""


class _Unset(Enum):
    UNSET = "unset"


_UNSET: Any = _Unset.UNSET
"""The key is not in the file. (A key with nothing behind it is, and is wrong.)"""


# --- the schema -----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TlsKeys:
    """The keys of `tls`. What a server does not say itself it has from the defaults."""

    ca: Annotated[str, rules.file_path] = _UNSET
    cert: Annotated[str, rules.file_path] = _UNSET
    key: Annotated[str, rules.file_path] = _UNSET


@attrs.frozen(kw_only=True)
class SharedKeys:
    """The keys of `defaults`; each server may have them too."""

    data_dir: Annotated[str, rules.data_dir] = _UNSET
    # Below a millisecond the clock and the event loop are coarser than the interval; a leader
    # that is silent for ten seconds is of no use as one.
    heartbeat_interval: Annotated[float, rules.Duration("1ms", "10s")] = _UNSET
    # Five times the shortest heartbeat; for longer than ten minutes nobody waits for a leader.
    election_timeout: Annotated[float, rules.Duration("5ms", "10m")] = _UNSET
    role: Annotated[str, rules.OneOf(ROLES)] = _UNSET
    zone: Annotated[str, rules.zone] = _UNSET
    # A new server needs the time to open a connection; a day without progress is a dead one.
    catch_up_timeout: Annotated[float, rules.Duration("100ms", "24h")] = _UNSET
    # As for an election: shorter than a few heartbeats it would undo every change.
    joint_timeout: Annotated[float, rules.Duration("5ms", "1h")] = _UNSET
    # A snapshot costs a few syncs and a process of its own, so not one for each handful of writes;
    # more log than the maximum takes minutes to apply after a restart.
    snapshot_log_size: Annotated[int, rules.Size("64KiB", "4GiB")] = _UNSET
    # Slower, it would not keep up with a few hundred writes a second; no disk is faster.
    snapshot_rate: Annotated[int, rules.Size("64KiB", "64GiB")] = _UNSET
    # As for snapshots; no network is faster.
    catch_up_rate: Annotated[int, rules.Size("64KiB", "64GiB")] = _UNSET
    # For the log, while somebody makes room: more than that is a slip of the unit, and would have
    # all writes refused.
    disk_reserve: Annotated[int, rules.Size("0B", "1024GiB")] = _UNSET
    reads: Annotated[str, rules.OneOf(READS)] = _UNSET
    # No two clocks run exactly alike; with a half, a lease is not much longer than a heartbeat.
    clock_drift: Annotated[float, rules.Percent("0.1%", "50%")] = _UNSET
    log_level: Annotated[str, rules.OneOf(LOG_LEVELS)] = _UNSET
    tls: TlsKeys = _UNSET
    redis_password_file: Annotated[str, rules.file_path] = _UNSET


@attrs.frozen(kw_only=True)
class ServerKeys(SharedKeys):
    """The keys of one server."""

    address: Annotated[str, rules.address] = attrs.field(
        default=_UNSET, metadata={"required": True}
    )
    listen: Annotated[str, rules.listen] = _UNSET
    redis: Annotated[str, rules.address] = _UNSET
    http: Annotated[str, rules.address] = _UNSET


@attrs.frozen(kw_only=True)
class ClusterKeys:
    """The keys of the file."""

    cluster: Annotated[str, rules.name] = attrs.field(default=_UNSET, metadata={"required": True})
    insecure: bool = _UNSET
    defaults: SharedKeys = _UNSET
    servers: dict[Annotated[str, rules.name], ServerKeys] = attrs.field(
        default=_UNSET, metadata={"required": True}
    )


LISTENING_KEYS = ("address", "listen", "redis", "http")
"""Where a server is found, each for itself."""
OPTIONAL_LISTENERS = ("redis", "http")
"""Those that a server has only where its address is written, each with an address of its own."""


def _keys(schema: type) -> list[str]:
    return [field.name for field in attrs.fields(schema)]


for _schema in (TlsKeys, SharedKeys, ServerKeys, ClusterKeys):
    attrs.resolve_types(_schema, include_extras=True)


class _Reading:
    """One pass over a document: structures it by the schema and collects what is wrong."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems = list(document.problems)
        self._path: KeyPath = ()
        self._converter = Converter()
        self._converter.register_structure_hook(bool, rules.true_or_false)
        self._converter.register_structure_hook_factory(
            _made_of(Annotated), lambda wanted: _apply_rule(wanted.__metadata__[0])
        )
        self._converter.register_structure_hook_factory(
            _made_of(dict), lambda _: self._structure_names
        )
        self._converter.register_structure_hook_factory(attrs.has, lambda _: self._structure_keys)

    def structure(self) -> ClusterKeys | None:
        """Return the content of the document, `INVALID` where it is wrong, None if all is."""
        keys = self._item(self.document.value, ClusterKeys)
        return keys if isinstance(keys, ClusterKeys) else None

    def report(self, path: KeyPath, message: str, *, at_key: bool = False) -> None:
        """Note a problem of the value at `path`, or of its key."""
        find = self.document.key_position if at_key else self.document.position
        self.problems.append(Problem(find(path), path, message))

    def line(self, path: KeyPath) -> int:
        """Return the line where the value at `path` begins."""
        return self.document.position(path).line

    @contextmanager
    def _within(self, key: str) -> Iterator[KeyPath]:
        self._path = (*self._path, key)
        try:
            yield self._path
        finally:
            self._path = self._path[:-1]

    def _item(self, value: Any, wanted: Any) -> Any:
        """Return `value` as `wanted`, or report it and return `INVALID`."""
        if value is INVALID:
            return INVALID
        try:
            return self._converter.structure(value, wanted)
        except ValueError as error:
            self.report(self._path, str(error))
            return INVALID

    def _structure_keys(self, value: Any, schema: type) -> Any:
        """Structure a mapping whose keys the schema knows."""
        if not isinstance(value, dict):
            raise ValueError(f"expected a mapping, got {rules.describe(value)}")
        fields = {field.name: field for field in attrs.fields(schema)}
        found: dict[str, Any] = {}
        for key, item in value.items():
            with self._within(key) as path:
                if key in fields:
                    found[key] = self._item(item, fields[key].type)
                else:
                    self.report(path, f"unknown key{_key_meant(key, schema)}", at_key=True)
        for key, field in fields.items():
            if field.metadata.get("required") and key not in found:
                found[key] = INVALID
                self.report(self._path, f"the key '{key}' is missing", at_key=True)
        return schema(**found)

    def _structure_names(self, value: Any, wanted: Any) -> Any:
        """Structure a mapping from names to mappings."""
        if not isinstance(value, dict):
            raise ValueError(f"expected a mapping from server names, got {rules.describe(value)}")
        name_rule, item_type = get_args(wanted)
        found: dict[str, Any] = {}
        for name, item in value.items():
            with self._within(name) as path:
                try:
                    self._converter.structure(name, name_rule)
                except ValueError as error:
                    self.report(path, str(error), at_key=True)
                found[name] = self._item(item, item_type)
        return found


def _made_of(generic: Any) -> Callable[[Any], bool]:
    """Return a predicate for the types that are an application of `generic`."""
    return lambda wanted: get_origin(wanted) is generic


def _apply_rule(rule: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _: rule(value)


def _key_meant(key: str, schema: type) -> str:
    """Return a hint for a key that `schema` does not know, or nothing."""
    # A key that is right at another place is meant, not one that is like it and allowed here.
    if schema is ClusterKeys and key in _keys(SharedKeys):
        return f" (did you mean defaults.{key}?)"
    if schema is SharedKeys and key in _keys(ServerKeys):
        return f"; each server has its own (did you mean servers.ID.{key}?)"
    if key in _keys(ClusterKeys):
        return f" (did you mean {key} at the top of the file?)"
    return rules.did_you_mean(key, _keys(schema))


# --- loading --------------------------------------------------------------------------------


@attrs.frozen
class _Setting:
    """A value and where it comes from."""

    value: Any
    """`INVALID` if it has been reported."""
    path: KeyPath | None
    """Where it stands in the file; None for a default of ours."""

    @property
    def known(self) -> bool:
        """Whether it can be compared with others."""
        return _is_valid(self.value)


_Settings = dict[str, _Setting]


def load(path: Path) -> ClusterConfig:
    """Return the cluster that the file at `path` describes.

    Raises:
        ConfigError: with every problem of the file.
    """
    document = read_document(path)
    reading = _Reading(document)
    keys = reading.structure()
    servers: dict[str, _Settings] = {}
    if keys is not None:
        if isinstance(keys.servers, dict):
            for name, server in keys.servers.items():
                if _is_valid(server):
                    servers[name] = _settings(name, server, keys.defaults)
            _check_servers(reading, keys, servers)
        if not reading.problems:
            folder = Path(os.path.abspath(path)).parent
            return ClusterConfig(
                cluster=keys.cluster,
                insecure=keys.insecure is True,
                servers={name: _server(name, of, folder) for name, of in servers.items()},
                path=path,
                written=document.value,
            )
    raise config_error(path, reading.problems)


def _is_valid(value: object) -> bool:
    return value is not INVALID


def _settings(name: str, server: ServerKeys, defaults: SharedKeys) -> _Settings:
    """Return the setting of each key for one server: its own, else the common one, else ours."""
    settings: _Settings = {}
    for key in _keys(ServerKeys):
        if key == "tls":
            shared = getattr(defaults, "tls", _UNSET) if _is_valid(defaults) else INVALID
            settings |= _tls_settings(name, server.tls, shared)
            continue
        own = getattr(server, key)
        common = getattr(defaults, key, _UNSET) if _is_valid(defaults) else INVALID
        if own is not _UNSET:
            settings[key] = _Setting(own, ("servers", name, key))
        elif key in ("address", "listen"):
            settings[key] = _Setting(settings["address"].value, None)
        elif key in OPTIONAL_LISTENERS:
            settings[key] = _Setting(None, None)
        elif common is not _UNSET:
            settings[key] = _Setting(common, ("defaults", key))
        else:
            settings[key] = _Setting(DEFAULTS[key], None)
    election_timeout = settings["election_timeout"]
    if settings["joint_timeout"].value is None:
        value = election_timeout.value
        if election_timeout.known:
            value *= JOINT_TIMEOUT_PER_ELECTION_TIMEOUT
        settings["joint_timeout"] = _Setting(value, None)
    return settings


def _tls_settings(name: str, own: Any, common: Any) -> _Settings:
    """Return the setting of each key of `tls` for one server: its own one, else the common one."""
    settings: _Settings = {}
    for key in _keys(TlsKeys):
        setting = _Setting(None, None)
        for keys, path in ((common, ("defaults", "tls")), (own, ("servers", name, "tls"))):
            value = getattr(keys, key, keys)
            if value is not _UNSET:
                setting = _Setting(value, (*path, key) if isinstance(keys, TlsKeys) else path)
        settings[f"tls.{key}"] = setting
    return settings


def _server(name: str, settings: _Settings, folder: Path) -> ServerConfig:
    def path_of(key: str) -> Path:
        return Path(os.path.normpath(folder / settings[key].value.replace("{id}", name)))

    password_file = settings["redis_password_file"].value
    tls = None
    if _speaks_tls(settings):
        tls = TlsFiles(ca=path_of("tls.ca"), cert=path_of("tls.cert"), key=path_of("tls.key"))
    return ServerConfig(
        id=name,
        address=settings["address"].value,
        listen=settings["listen"].value,
        redis=settings["redis"].value,
        http=settings["http"].value,
        data_dir=path_of("data_dir"),
        role=settings["role"].value,
        zone=settings["zone"].value,
        **{field: settings[key].value for key, field in _FIELDS.items()},
        **{key: settings[key].value for key in ("reads", "clock_drift", "log_level")},
        tls=tls,
        redis_password_file=None if password_file is None else path_of("redis_password_file"),
    )


# --- what concerns several keys -------------------------------------------------------------


def _check_servers(reading: _Reading, keys: ClusterKeys, servers: dict[str, _Settings]) -> None:
    if not keys.servers:
        reading.report(("servers",), "a cluster needs at least one server")
    elif len(servers) == len(keys.servers) and all(
        settings["role"].value == "learner" for settings in servers.values()
    ):
        reading.report(("servers",), "all servers are learners; at least one has to be a voter")
    if keys.insecure is _UNSET or keys.insecure is False:
        _check_loopback(reading, servers)
    _check_tls(reading, servers)
    _check_timing(reading, servers)
    _check_addresses(reading, servers)
    _check_data_dirs(reading, servers)


def _speaks_tls(settings: _Settings) -> bool:
    """Return whether a server is told of any certificate."""
    return any(settings[f"tls.{key}"].value is not None for key in _keys(TlsKeys))


def _check_tls(reading: _Reading, servers: dict[str, _Settings]) -> None:
    """A certificate needs its key and a CA; and who has none does not reach those who have one."""
    with_tls = [name for name, settings in servers.items() if _speaks_tls(settings)]
    reported: set[KeyPath] = set()
    for name, settings in servers.items():
        found = {key: settings[f"tls.{key}"] for key in _keys(TlsKeys)}
        missing = [key for key, setting in found.items() if setting.value is None]
        if name not in with_tls and with_tls:
            reading.report(
                ("servers", name),
                f"{name} has no tls and {with_tls[0]} has: servers with and without it do not "
                "reach each other (did you mean to write tls into the defaults?)",
                at_key=True,
            )
        elif name in with_tls and missing:
            path = next(setting.path for setting in found.values() if setting.path)[:-1]
            if path not in reported:
                reported.add(path)
                reading.report(
                    path,
                    f"{' and '.join(missing)} missing: tls needs ca, cert and key",
                    at_key=True,
                )


def _check_loopback(reading: _Reading, servers: dict[str, _Settings]) -> None:
    for settings in servers.values():
        if _speaks_tls(settings):
            continue
        for key in LISTENING_KEYS:
            setting = settings[key]
            if setting.path is None or not setting.known:
                continue
            host = parse_address(setting.value)[0]
            if not is_loopback(host):
                reading.report(
                    setting.path,
                    f"{quoted(host)} is not loopback, and without TLS whoever is on the network "
                    "can read and write; use 127.0.0.1, give the servers certificates (tls), or "
                    "write 'insecure: true' at the top of the file if that network is trusted",
                )


def _check_timing(reading: _Reading, servers: dict[str, _Settings]) -> None:
    """Whoever leads, its heartbeats have to reach every server well before that one's timeout."""
    reported: set[KeyPath] = set()
    heartbeats_ms = {
        name: settings["heartbeat_interval"].value
        for name, settings in servers.items()
        if settings["heartbeat_interval"].known
    }
    if not heartbeats_ms:
        return
    # Its own heartbeat first, since that is the plainer message; then the slowest leader.
    slowest = max(heartbeats_ms, key=lambda name: heartbeats_ms[name])
    for name, leader in [
        *((name, name) for name in servers),
        *((name, slowest) for name in servers),
    ]:
        heartbeat = servers[leader]["heartbeat_interval"]
        for key in ("election_timeout", "joint_timeout"):
            timeout = servers[name][key]
            # A place that holds for many servers is named once, and what is a default of ours is
            # not where the mistake is.
            path = timeout.path or heartbeat.path
            if not (timeout.known and heartbeat.known) or path is None or path in reported:
                continue
            needed_ms = heartbeat.value * HEARTBEATS_PER_ELECTION_TIMEOUT_MIN
            if timeout.value >= needed_ms:
                continue
            reported.add(path)
            whose = f" of {leader}" if leader != name else ""
            reading.report(
                path,
                f"{key} {format_duration(timeout.value)} is under "
                f"{HEARTBEATS_PER_ELECTION_TIMEOUT_MIN} times the heartbeat_interval "
                f"{format_duration(heartbeat.value)}{whose}; "
                f"at least {format_duration(needed_ms)} is needed",
            )


def _check_addresses(reading: _Reading, servers: dict[str, _Settings]) -> None:
    """Two servers cannot be dialled at the same place, nor listen there."""
    users: dict[tuple[str, int, str], tuple[str, str, KeyPath]] = {}
    for name, settings in servers.items():
        for key in LISTENING_KEYS:
            setting = settings[key]
            if setting.path is None or not setting.known:
                continue
            host, port = parse_address(setting.value)
            # The same wildcard on two machines is usual; on one machine it is a mistake.
            machine = _machine(settings["address"]) if is_wildcard(host) else ""
            place = (normalise_host(host), port, machine)
            other, other_key, other_path = users.setdefault(place, (name, key, setting.path))
            if other != name or (key != other_key and key in OPTIONAL_LISTENERS):
                reading.report(
                    setting.path,
                    f"{setting.value} is already the {other_key} of {other} "
                    f"(line {reading.line(other_path)})",
                )


def _check_data_dirs(reading: _Reading, servers: dict[str, _Settings]) -> None:
    """Two servers on one machine cannot have the same folder."""
    users: dict[tuple[str, str], str] = {}
    reported: set[KeyPath] = set()
    for name, settings in servers.items():
        data_dir = settings["data_dir"]
        if not (data_dir.known and settings["address"].known):
            continue
        folder = os.path.normpath(data_dir.value.replace("{id}", name))
        other = users.setdefault((_machine(settings["address"]), folder), name)
        if other != name and data_dir.path is not None and data_dir.path not in reported:
            reported.add(data_dir.path)
            reading.report(
                data_dir.path,
                f"{quoted(folder)} would be the folder of both {other} and {name} on one machine "
                "(did you mean to write {id} in it?)",
            )


def _machine(address: _Setting) -> str:
    """Return one word for addresses that are certainly on the same machine."""
    if not address.known:
        return ""
    host = parse_address(address.value)[0]
    return "loopback" if is_loopback(host) else normalise_host(host)


# --- showing and writing --------------------------------------------------------------------


def effective(config: ClusterConfig) -> dict[str, Any]:
    """Return what holds for each server as plain data, for people and scripts.

    Each value is `{"value": ..., "origin": "file" | "defaults" | "default"}`: written at the
    place itself, in the `defaults` of the file, or nowhere. Durations and sizes are text
    with a unit.
    """
    written_defaults = config.written.get("defaults", {})

    def server(settings: ServerConfig) -> dict[str, Any]:
        written = config.written.get("servers", {}).get(settings.id, {})
        rows: dict[str, Any] = {}
        for key in (*LISTENING_KEYS, *_keys(SharedKeys)):
            if key == "tls":
                rows |= _shown_tls(settings, written, written_defaults)
            else:
                origin = _origin(key, written, written_defaults)
                rows[key] = {"value": _shown(settings, key), "origin": origin}
        return rows

    insecure_origin = "file" if "insecure" in config.written else "default"
    return {
        "file": str(config.path),
        "cluster": {"value": config.cluster, "origin": "file"},
        "insecure": {"value": config.insecure, "origin": insecure_origin},
        "servers": {name: server(settings) for name, settings in config.servers.items()},
    }


def _origin(key: str, written: Mapping[str, Any], written_defaults: Mapping[str, Any]) -> str:
    if key in written:
        return "file"
    return "defaults" if key in written_defaults else "default"


def _shown_tls(
    settings: ServerConfig, written: Mapping[str, Any], written_defaults: Mapping[str, Any]
) -> dict[str, Any]:
    own, common = written.get("tls", {}), written_defaults.get("tls", {})
    return {
        f"tls.{key}": {
            "value": str(getattr(settings.tls, key)) if settings.tls else None,
            "origin": _origin(key, own, common),
        }
        for key in _keys(TlsKeys)
    }


def _shown(settings: ServerConfig, key: str) -> Any:
    value = getattr(settings, _FIELDS.get(key, key))
    if key == "clock_drift":
        return format_percent(value)
    if key in _FIELDS:
        return format_duration(value) if isinstance(value, float) else format_size(value)
    return str(value) if isinstance(value, Path) else value


def export_document(
    cluster_name: str,
    members: Sequence[tuple[str, str, str]],
    based_on: ClusterConfig | None = None,
    stated: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """Return the plain content of a cluster file that has exactly `members`.

    Args:
        cluster_name: the name of the cluster.
        members: name, HOST:PORT and role (voter or learner) of each, in the order of the file.
        based_on: its `defaults`, and its settings of servers that are still members, are kept as
            they are written. None: nothing but the members is known.
        stated: by name, what members say of themselves: their zone, and where they serve Redis
            clients and HTTP. It counts more than what is written.

    Raises:
        ValueError: two members have the same name.
    """
    names = [name for name, _, _ in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two members have the name {', '.join(twice)}")
    written = based_on.written if based_on else {}
    content: dict[str, Any] = {"cluster": cluster_name}
    defaults = written.get("defaults", {})
    dialled = [address for _, address, _ in members]
    dialled += [
        address
        for name in names
        for key, address in (stated or {}).get(name, {}).items()
        if key in OPTIONAL_LISTENERS and address
    ]
    if written.get("insecure") or not (
        "tls" in defaults or all(is_loopback(parse_address(address)[0]) for address in dialled)
    ):
        content["insecure"] = True
    if defaults:
        content["defaults"] = defaults
    content["servers"] = {}
    for name, address, role in members:
        server = {"address": address}
        if role != defaults.get("role", DEFAULTS["role"]):
            server["role"] = role
        kept = written.get("servers", {}).get(name, {})
        server |= {key: value for key, value in kept.items() if key not in ("address", "role")}
        for key, value in (stated or {}).get(name, {}).items():
            if value and value != server.get(key, defaults.get(key)):
                server[key] = value
        content["servers"][name] = server
    return content


def export(
    cluster_name: str,
    members: Sequence[tuple[str, str, str]],
    based_on: ClusterConfig | None = None,
    stated: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """Return the text of a cluster file that has exactly `members`, as `export_document` says.

    The comments of the old file are not kept.

    Raises:
        ValueError: two members have the same name.
    """
    content = export_document(cluster_name, members, based_on, stated)
    servers = content.pop("servers")
    lines = [
        f"# The members of the cluster {cluster_name}, as the cluster itself lists them.\n",
        yaml.safe_dump(content, sort_keys=False, default_flow_style=False, width=LINE_WIDTH),
        "servers:\n",
    ]
    for name, server in servers.items():
        # One line for each server, as people write them.
        line = yaml.safe_dump(
            {name: server}, sort_keys=False, default_flow_style=None, width=LINE_WIDTH
        )
        lines.append(f"  {line}")
    return "".join(lines)
