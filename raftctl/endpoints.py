"""Where to dial: the command line, a cluster file, or the playground that runs."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from raftctl.errors import UsageProblem

if TYPE_CHECKING:
    import ssl

    from raftd.config import ClusterConfig

CLUSTER_FILE_DEFAULT = Path("cluster.yaml")
PLAYGROUND_FILE_BYTES_MAX = 64 * 1024
"""It holds one path and one number; more is something else."""


@attrs.frozen(kw_only=True)
class Endpoints:
    """The addresses to start with, and who is expected there."""

    addresses: tuple[str, ...]
    """HOST:PORT, at least one, in the order in which they were given."""
    names: Mapping[str, str] = attrs.field(factory=dict)
    """The server's name at an address, as far as a cluster file says."""
    source: str
    """Who said so, for people."""
    config: ClusterConfig | None = None
    """The cluster file, if they are from one."""
    tls: ssl.SSLContext | None = None
    """How connections are protected; None for not at all."""


def resolve_endpoints(*, endpoints: tuple[str, ...], config_path: Path | None) -> Endpoints:
    """Return `endpoints` if there are any, else those of the cluster file.

    The cluster file is `config_path`, else `./cluster.yaml`, else that of the running playground.

    Raises:
        UsageProblem: nothing says where to dial, or the cluster file is wrong.
    """
    if endpoints:
        return Endpoints(addresses=endpoints, source="--endpoints")
    if config_path is not None:
        return _from_cluster_file(config_path, str(config_path))
    if CLUSTER_FILE_DEFAULT.exists():
        return _from_cluster_file(CLUSTER_FILE_DEFAULT, f"./{CLUSTER_FILE_DEFAULT}")
    playground = running_playground()
    if playground is not None:
        return _from_cluster_file(playground, "the running playground")
    raise UsageProblem(
        "nothing says which cluster is meant",
        code="no-endpoints",
        cause="neither --config nor --endpoints was given, there is no cluster.yaml in this "
        "folder, and no playground is running",
        hint="raftctl --config FILE status\n"
        "raftctl --endpoints HOST:PORT status\n"
        "raftctl playground",
    )


def _from_cluster_file(path: Path, source: str) -> Endpoints:
    config = load_cluster_file(path)
    return attrs.evolve(servers_of(config), source=source, config=config)


def servers_of(config: ClusterConfig) -> Endpoints:
    """Return the servers of a file that says how a cluster is to be.

    It need not be the file of the cluster that answers there, and is not compared with it.
    """
    servers = config.servers.values()
    return Endpoints(
        addresses=tuple(server.address for server in servers),
        names={server.address: server.id for server in servers},
        source=str(config.path),
    )


def load_cluster_file(path: Path) -> ClusterConfig:
    """Return the cluster file at `path`.

    Raises:
        UsageProblem: with every problem of the file and its position.
    """
    from raftd.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        count = len(error.problems)
        raise UsageProblem(
            f"the cluster file {path} cannot be used"
            + (f": {count} problems" if count > 1 else ""),
            code="config",
            cause=str(error),
            hint="correct it until this succeeds:\n"
            f"raftctl config validate {shlex.quote(str(path))}",
        ) from None


def playground_file() -> Path:
    """Return the file in which a running playground says where its cluster file is.

    It stands in the user's runtime folder, or where there is none in a folder of the user's own
    below the one for temporary files. Its contents: `{"config": PATH, "pid": N}`.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        folder = Path(runtime)
    else:
        import tempfile

        folder = Path(tempfile.gettempdir()) / f"raftd-{os.getuid()}"
    return folder / "raftd-playground.json"


def running_playground() -> Path | None:
    """Return the cluster file of the playground that runs, or None if none does.

    A file that somebody else wrote is not believed: the folder for temporary files is everybody's.
    """
    try:
        with playground_file().open("rb") as stream:
            if os.fstat(stream.fileno()).st_uid != os.getuid():
                return None
            found = json.loads(stream.read(PLAYGROUND_FILE_BYTES_MAX))
    except (OSError, ValueError):
        return None
    config, pid = (found.get("config"), found.get("pid")) if isinstance(found, dict) else ("", 0)
    if not isinstance(config, str) or not isinstance(pid, int) or pid <= 0 or not config:
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return Path(config)
