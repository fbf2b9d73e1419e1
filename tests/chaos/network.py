"""Links that fail: by the user-space proxy, or by real interfaces in network namespaces.

The proxy sees every message, so it can cut one direction only and recognise the moments of a
change. Namespaces take away the interface below a server, as a pulled cable does: connections
hang until a time-out instead of being closed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from raftd.commands import BeginOperation, decode_command
from raftd.core.membership import decode_configuration
from raftd.core.messages import AppendEntries
from raftd.core.types import Entry, EntryKind
from tests.cluster.proxy import CLIENT, Fate, Passing, Proxy

Ways = frozenset[tuple[str, str]]
"""Directions that are cut: from, to."""

INSIDE = "RAFTD_CHAOS_INSIDE"
"""Set in the environment of the process that has been moved into namespaces of its own."""
HUB_ADDRESS = "10.77.0.1"
"""Of the test itself, on the bridge that all servers are connected to."""
PORT = 7100
IP_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 20.0


class Network(Protocol):
    """Between the servers, and between them and clients."""

    one_way: bool
    """Whether it can fail in one direction."""

    def isolate(self, name: str, others: Sequence[str], *, clients: bool) -> None:
        """Cut `name` off from all the others, in both directions."""

    def halves(self, one: Sequence[str], other: Sequence[str], *, clients: bool) -> None:
        """Cut every link between `one` and `other`; clients stay with `other`."""

    def deafen(self, name: str, others: Sequence[str], *, clients: bool) -> None:
        """Let nothing reach `name`."""

    def silence(self, name: str, others: Sequence[str], *, clients: bool) -> None:
        """Let nothing that `name` says arrive."""

    def heal(self) -> None:
        """Undo all of that. A trap that is set stays so."""


# --- the proxy --------------------------------------------------------------------------------


class Trap:
    """Recognises a moment of the next change in the messages of a leader; a rule of the proxy."""

    def __init__(self, *, phase: str, reach: str, floor: int) -> None:
        """Wait for `phase` of a change whose entries stand above the index `floor`.

        New servers also receive the entries of all earlier changes; those stand below it.
        """
        self.caught = threading.Event()
        self.leader = ""
        """Who sent it."""
        self._phase = phase
        self._reach = reach
        self._floor = floor
        self._index = 0
        """Of the configuration entry that has to be committed, once it was seen."""
        self._reached = ""

    def __call__(self, passing: Passing) -> Fate:
        if self.leader and passing.dest == self.leader:
            # Whoever got the message: the leader does not learn of it before it dies.
            return Fate.CUT
        if self.leader:
            if passing.source != self.leader:
                return Fate.PASS
        elif not self._is_moment(passing):
            return Fate.PASS
        else:
            self.leader = passing.source
            self._reached = passing.dest if self._reach == "one" else ""
            self.caught.set()
        return Fate.PASS if self._reach == "all" or passing.dest == self._reached else Fate.CUT

    def _is_moment(self, passing: Passing) -> bool:
        message = passing.message
        if not isinstance(message, AppendEntries):
            return False
        new = [entry for entry in message.entries if entry.index > self._floor]
        if self._phase == "begin":
            return any(_is_begin(entry) for entry in new)
        wanted = {"learners": "simple"}.get(self._phase, self._phase.removesuffix("-committed"))
        found = [entry.index for entry in new if _configuration_kind(entry) == wanted]
        if not self._phase.endswith("-committed"):
            return bool(found)
        self._index = max([self._index, *found])
        return 0 < self._index <= message.leader_commit


def _is_begin(entry: Entry) -> bool:
    return entry.kind is EntryKind.COMMAND and isinstance(
        decode_command(entry.data).body, BeginOperation
    )


def _configuration_kind(entry: Entry) -> str:
    if entry.kind is not EntryKind.CONFIGURATION:
        return ""
    return decode_configuration(entry.data).kind.value


class ProxyNetwork:
    """Cuts links in the proxy. Needs no privileges."""

    one_way = True

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._ways: Ways = frozenset()
        self._trap: Trap | None = None

    def isolate(self, name: str, others: Sequence[str], *, clients: bool) -> None:
        """Cut `name` off from all the others, in both directions."""
        self.halves([name], others, clients=clients)

    def halves(self, one: Sequence[str], other: Sequence[str], *, clients: bool) -> None:
        """Cut every link between `one` and `other`; with `clients`, theirs to `one` as well."""
        ways = _between(one, _with_clients(other, clients))
        self._cut(ways | _reversed(ways))

    def deafen(self, name: str, others: Sequence[str], *, clients: bool) -> None:
        """Let nothing reach `name`."""
        self._cut(_between(_with_clients(others, clients), [name]))

    def silence(self, name: str, others: Sequence[str], *, clients: bool) -> None:
        """Let nothing that `name` says arrive."""
        self._cut(_between([name], _with_clients(others, clients)))

    def heal(self) -> None:
        """Undo all of that. A trap that is set stays so."""
        self._ways = frozenset()
        self._restore()

    def set_trap(self, trap: Trap) -> None:
        """Let `trap` look at every message from now on."""
        self._trap = trap
        self._proxy.obey(trap)

    def clear_trap(self) -> None:
        """Take the trap away, and what it holds; links that were cut otherwise stay cut."""
        self._trap = None
        self._restore()

    def _cut(self, ways: Ways) -> None:
        self._ways |= ways
        for source, dest in ways:
            self._proxy.cut(source, dest)

    def _restore(self) -> None:
        self._proxy.heal()
        if self._trap is not None:
            self._proxy.obey(self._trap)
        for source, dest in self._ways:
            self._proxy.cut(source, dest)


def _with_clients(names: Sequence[str], clients: bool) -> list[str]:
    return [*names, CLIENT] if clients else list(names)


def _between(sources: Iterable[str], dests: Iterable[str]) -> Ways:
    dests = list(dests)
    return frozenset((source, dest) for source in sources for dest in dests)


def _reversed(ways: Ways) -> Ways:
    return frozenset((dest, source) for source, dest in ways)


# --- namespaces -------------------------------------------------------------------------------


class NamespaceNetwork:
    """One network namespace for each server, connected to a bridge. Only inside `enter`.

    All of it lives in namespaces of the test process, so nothing is left behind when it ends,
    however it ends.
    """

    one_way = False

    def __init__(self) -> None:
        """Make the bridges: one where clients are, and one for the servers that are cut off."""
        assert inside(), "start it with `python -m tests.chaos --network namespaces`"
        self._names: list[str] = []
        _ip("link", "set", "lo", "up")
        for bridge in ("hub", "apart"):
            _ip("link", "add", bridge, "type", "bridge")
            _ip("link", "set", bridge, "up")
        _ip("address", "add", f"{HUB_ADDRESS}/24", "dev", "hub")

    def connect(self, name: str) -> str:
        """Make the namespace `name` and return the address, HOST:PORT, of a server in it."""
        self._names.append(name)
        host = f"10.77.0.{10 + len(self._names)}"
        _ip("netns", "add", name)
        _ip("link", "add", _cable(name), "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", _cable(name), "master", "hub", "up")
        _ip("-n", name, "address", "add", f"{host}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        return f"{host}:{PORT}"

    @staticmethod
    def prefix(name: str) -> list[str]:
        """Return the words before a command that is to run in the namespace `name`."""
        return ["nsenter", f"--net=/run/netns/{name}", "--"]

    def isolate(self, name: str, others: Sequence[str], *, clients: bool) -> None:
        """Pull the cable of `name`: nobody, clients included, reaches it."""
        _ip("link", "set", _cable(name), "down")

    def halves(self, one: Sequence[str], other: Sequence[str], *, clients: bool) -> None:
        """Move `one` to a bridge of their own, where no client is."""
        for name in one:
            _ip("link", "set", _cable(name), "master", "apart")

    def deafen(self, name: str, others: Sequence[str], *, clients: bool) -> None:
        """Not possible here."""
        raise AssertionError("a cable has no direction")

    silence = deafen

    def heal(self) -> None:
        """Connect everybody to the bridge again."""
        for name in self._names:
            _ip("link", "set", _cable(name), "master", "hub", "up")


def _cable(name: str) -> str:
    return f"v-{name}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=IP_TIMEOUT_S)


def inside() -> bool:
    """Return whether this process lives in namespaces of its own."""
    return bool(os.environ.get(INSIDE))


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    # `ip netns` keeps its names below /run, which is ours alone in here.
    script = 'mount -t tmpfs none /run && mkdir -p /run/netns && exec "$@"'
    return ["unshare", *user, "--net", "--mount", "sh", "-c", script, "sh"]


def why_no_namespaces() -> str:
    """Return why network namespaces cannot be used here; empty if they can."""
    for program in ("unshare", "nsenter", "ip"):
        if shutil.which(program) is None:
            return f"the program {program} is not installed"
    probe = (
        "ip link add hub type bridge && ip netns add n1 && ip link add v type veth peer name eth0 "
        "netns n1 && nsenter --net=/run/netns/n1 -- true"
    )
    try:
        result = subprocess.run(
            [*_unshare(), "sh", "-c", probe],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if result.returncode == 0 else (result.stderr.strip() or "unshare failed")


def enter(arguments: Sequence[str]) -> None:
    """Become `python -m tests.chaos ARGUMENTS` in namespaces of its own; does not return."""
    words = [*_unshare(), sys.executable, "-m", "tests.chaos", *arguments]
    os.execvpe(words[0], words, {**os.environ, INSIDE: "1"})
