"""What every system that is compared looks like to the one who measures."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import attrs

from tests.benchmarks.comparisons.children import Children
from tests.benchmarks.comparisons.generator import (
    ComparisonProblem,
    Generator,
    Report,
    Workload,
    available_drivers,
    build,
)

HEARTBEAT_MS = 100
ELECTION_TIMEOUT_MS = 1000
"""The defaults of etcd, used for raftd, too."""


class Stage:
    """The folder, the processes and the generator of one run. A context manager."""

    def __init__(self, folder: Path | None, say: Callable[[str], None]) -> None:
        """Nothing happens before it is entered.

        Args:
            folder: in which a temporary one is made; None: where temporary folders usually are.
            say: told what happens.
        """
        self._parent = folder
        self._count = 0
        self._running: list[Running] = []
        self._stack = ExitStack()
        self.say = say
        self.children = Children()

    def __enter__(self) -> Stage:
        self.folder = Path(tempfile.mkdtemp(prefix="raftd-comparison-", dir=self._parent))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._stack.enter_context(self.children)
        self._stack.callback(self.close_running)
        try:
            drivers = available_drivers()
            self.say("building the load generator (half a minute the first time)")
            build(self.folder / "generator", drivers)
        except BaseException:
            self._stack.close()
            raise
        self.generator = Generator(self.folder / "generator", drivers, self.children)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fresh_folder(self, name: str) -> Path:
        """Return a new folder of this run."""
        self._count += 1
        path = self.folder / f"{self._count}-{name}"
        path.mkdir()
        return path

    def keep(self, running: Running) -> None:
        """Have something closed when the run ends, however it ends."""
        self._running.append(running)

    def close_running(self) -> None:
        """Close every system that was started, also one whose start has failed."""
        while self._running:
            self._running.pop().close()


class Running(ABC):
    """A system that runs."""

    driver: str
    """Which of the generator's drivers talks to it."""
    load_flags: tuple[str, ...] = ()
    """More flags for the generator when it loads this system."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.folder = folder
        self._is_closed = False
        stage.keep(self)

    @abstractmethod
    def address(self) -> str:
        """Return HOST:PORT where clients reach its leader, who may change."""

    @abstractmethod
    def pids(self) -> list[int]:
        """Return the processes of its servers, the leader first."""

    @abstractmethod
    def end(self) -> None:
        """End its processes; called once."""

    def close(self) -> None:
        """End its processes and remove its files. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            self.end()
            shutil.rmtree(self.folder, ignore_errors=True)

    def fill(self, *, keys: int, value_bytes: int) -> None:
        """Write every key once."""
        self.stage.generator.fill(self.driver, [self.address()], keys=keys, value_bytes=value_bytes)

    def warm(self) -> None:
        """Do what it needs before it is as fast as it gets; most need nothing."""
        return

    def load(self, workload: Workload) -> Report:
        """Load its leader."""
        return self.stage.generator.load(
            self.driver, [self.address()], self.pids(), workload, *self.load_flags
        )


@attrs.frozen(kw_only=True)
class System:
    """A system that can be compared."""

    name: str
    title: str
    """With what it does for durability."""
    missing: Callable[[], str | None]
    """Returns what has to be installed, in words, or None if all is there."""
    version: Callable[[], str]
    start: Callable[[Stage], Running]
    """Starts it, empty, and returns when it answers."""
    operations: tuple[str, ...] = ("put", "get", "mixed")
    """What it can be loaded with."""


def chosen_systems(
    systems: dict[str, System], names: list[str] | None, say: Callable[[str], None]
) -> list[System]:
    """Return those of `systems` that are asked for, or without `names` all that are installed.

    Raises:
        ComparisonProblem: one that is asked for is not installed, or nothing is left.
    """
    found = []
    for name, system in systems.items():
        if names is not None and name not in names:
            continue
        missing = system.missing()
        if missing is None:
            found.append(system)
        elif names is not None:
            raise ComparisonProblem(f"{name} is not installed: {missing}")
        else:
            say(f"left out: {name}: {missing}")
    if not found:
        raise ComparisonProblem("there is nothing to measure")
    return found
