"""The file of everything that was measured, one JSON object a line."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class PointsFile:
    """Lines for programs; each is on its way to the disk before the next point is measured."""

    def __init__(self, path: Path | None) -> None:
        """Append to the file at `path`, or with None to nothing."""
        self._path = path

    def write(self, kind: str, document: Mapping[str, Any]) -> None:
        """Append a line.

        Args:
            kind: what it is about: run, point, fail-over, replacement or idle.
        """
        if self._path is not None:
            line = json.dumps({"kind": kind, "time": round(time.time(), 3), **document})
            with self._path.open("a") as file:
                file.write(line + "\n")
