"""Which cluster file the next command uses, and whether it still leads to the cluster.

A change may leave no server of that file in the cluster. Whoever goes on with it would talk to
servers that were removed, or to nobody.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from raftctl.cli import Context
from raftctl.endpoints import CLUSTER_FILE_DEFAULT, load_cluster_file
from raftctl.errors import UsageProblem
from raftctl.render import natural_key
from raftd.core.types import server_name
from raftd.protocol import ConfigurationView

if TYPE_CHECKING:
    from raftd.config import ClusterConfig

CONFIG_VARIABLE = "RAFTCTL_CONFIG"
_DIALLING_OPTIONS = ("-c", "--config", "-e", "--endpoints")
_DIALLING_PREFIXES = ("-c", "--config=", "-e", "--endpoints=")
"""Of options that have their value in the same word."""


def again(context: Context, file: str) -> str:
    """Return this very command line for `try:`, dialling by the cluster file `file` alone."""
    kept: list[str] = []
    waiting = iter(context.words)
    for word in waiting:
        if word in _DIALLING_OPTIONS:
            next(waiting, None)
        elif not word.startswith(_DIALLING_PREFIXES):
            kept.append(word)
    return shlex.join(["raftctl", "-c", file, *kept])


def cluster_file_at_hand(context: Context, wish: ClusterConfig) -> str | None:
    """Return the file through which the cluster is reached that `wish` describes, as typed.

    It is that of the environment, else `./cluster.yaml`: a file of the same cluster, other than
    `wish` and than what was dialled. None if there is no such file.
    """
    tried = {wish.path.resolve()}
    dialled = context.dialled().config
    if dialled is not None:
        tried.add(dialled.path.resolve())
    for name in (os.environ.get(CONFIG_VARIABLE), f"./{CLUSTER_FILE_DEFAULT}"):
        if not name or Path(name).resolve() in tried:
            continue
        found = _readable(Path(name))
        if found is not None and found.cluster == wish.cluster:
            return name
    return None


def warn_of_stale_file(
    context: Context, configuration: ConfigurationView, wish: ClusterConfig | None = None
) -> None:
    """Say on stderr if no member is to be found through the cluster file that is in use.

    Args:
        configuration: the cluster as it is now.
        wish: the file that was applied, if one was: it describes the cluster now.
    """
    used = _file_in_use(context, wish)
    if used is None or not configuration.addresses:
        return
    written, config = used
    if {server.address for server in config.servers.values()} & {*configuration.addresses.values()}:
        return
    if wish is not None:
        then = f"use -c {shlex.quote(str(wish.path))}"
    else:
        members = sorted(configuration.addresses, key=natural_key)
        dialled = ",".join(configuration.addresses[server] for server in members)
        then = f"use -c NEW.yaml, made by `raftctl -e {dialled} config export > NEW.yaml`"
    names = {server_name(server) for server in configuration.addresses}
    what = f"none of the servers of {written} is a member now"
    if names & config.servers.keys():
        what = f"no member is at an address of {written} now"
    context.message(f"{what}; from now on {then}")


def _file_in_use(context: Context, wish: ClusterConfig | None) -> tuple[str, ClusterConfig] | None:
    """Return the file that the same command line without `-f` would dial by, as typed."""
    if context.was_given("endpoints"):
        return None
    config = context.dialled().config
    if config is None and context.config_path is not None:
        # A file that was applied is dialled itself where nothing says otherwise.
        config = _readable(context.config_path)
    if config is not None and (wish is None or config.path.resolve() != wish.path.resolve()):
        return str(config.path), config
    if wish is None:
        return None
    name = cluster_file_at_hand(context, wish)
    found = _readable(Path(name)) if name is not None else None
    return (name, found) if name is not None and found is not None else None


def _readable(path: Path) -> ClusterConfig | None:
    """Return the cluster file at `path`; None if it is none, or there is none."""
    try:
        return load_cluster_file(path) if path.exists() else None
    except UsageProblem:
        return None
