"""Copies of this tree with one change each, and commands that run in them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]
"""Of the tree that is mutated: this one."""
PARTS = ("raftd", "raftctl", "tests", "pyproject.toml")
"""What a copy needs to run tests and simulations."""
PROBE_SECONDS_MAX = 30.0
"""For one Python process that imports next to nothing, on a machine that is busy."""

_PROBE = """
import sys, importlib.util, raftd
print(raftd.__file__)
print(importlib.util.find_spec(sys.argv[1]).origin)
"""


class WrongTree(Exception):
    """A command in a copy would import another tree, so that its result would say nothing."""


class Stopped(Exception):
    """The run was interrupted; nothing is started any more."""


@attrs.frozen
class Finished:
    """A command that has ended."""

    exit_code: int | None
    """None if it took too long and was ended."""
    stdout: str
    stderr: str


class Workspace:
    """The copies below one folder, and the commands that run in them. Used by several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self.unchanged = folder / "unchanged"
        """A copy without a bug: what fails here too says nothing about a mutant."""
        self.unchanged.mkdir()
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(
                    source, self.unchanged / part, ignore=shutil.ignore_patterns(".hypothesis")
                )
            else:
                shutil.copy2(source, self.unchanged / part)

    def mutate(self, mutant: Mutant) -> Path:
        """Return a copy that has the bug of `mutant`; `discard` it afterwards.

        Raises:
            PlaceNotFound: the mutant does not fit the tree.
            WrongTree: Python would not import the copy there.
        """
        # Copied from the copy: it stays as it is while people go on working on the tree.
        root = self._folder / mutant.name
        shutil.copytree(self.unchanged, root, ignore=shutil.ignore_patterns(".hypothesis"))
        mutant.apply(root)
        changed = root / mutant.file
        for stale in (changed.parent / "__pycache__").glob(f"{changed.stem}.*.pyc"):
            stale.unlink()
        self._check_imports(root, mutant.file)
        return root

    def discard(self, root: Path) -> None:
        """Remove a copy."""
        shutil.rmtree(root, ignore_errors=True)

    def run(self, root: Path, arguments: Sequence[str], seconds_max: float) -> Finished:
        """Run Python with `arguments` in the copy at `root`, which is what it imports.

        The command and all that it has started are ended after `seconds_max` seconds.

        Raises:
            Stopped: `stop` was called, before or meanwhile.
        """
        with self._lock:
            if self._stopped:
                raise Stopped
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=root,
                # Before site-packages, where an editable install points to the original.
                env={**os.environ, "PYTHONPATH": str(root)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                # A group of its own, so that it can be ended with all its children; and Ctrl-C
                # reaches this program alone.
                start_new_session=True,
            )
            self._running.add(process)
        try:
            stdout, stderr = process.communicate(timeout=seconds_max)
            exit_code: int | None = process.returncode
        except subprocess.TimeoutExpired:
            _end(process)
            stdout, stderr = process.communicate()
            exit_code = None
        finally:
            with self._lock:
                self._running.discard(process)
        if self._stopped:
            raise Stopped
        return Finished(exit_code, stdout, stderr)

    def stop(self) -> None:
        """End every command that runs, and let no other one start."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _end(process)

    def _check_imports(self, root: Path, file: str) -> None:
        module = ".".join(Path(file).with_suffix("").parts)
        found = self.run(root, ["-c", _PROBE, module], PROBE_SECONDS_MAX)
        expected = [str(root / "raftd" / "__init__.py"), str(root / file)]
        if found.stdout.split("\n")[:2] != expected:
            raise WrongTree(f"{module} is imported from {found.stdout!r}\n{found.stderr}")


def _end(process: subprocess.Popen[str]) -> None:
    # Only while it has not been waited for, so that its number is certainly still its own.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
