"""Records a history while it happens."""

from __future__ import annotations

import json
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.history.format import (
    FAIL,
    FINAL,
    INVOKE,
    OK,
    UNKNOWN,
    check_arguments,
    check_results,
)


class Recorder:
    """Collects the events of a history and, with `path`, writes each one as it comes.

    Call `invoke` before anything is sent, and `ok`, `fail` or `unknown` after the answer is there:
    the order of the calls is the real-time order that is judged. Safe to use from several threads.

    An event is in the file (in the kernel, not synced to the disk) when the call returns, so the
    history of a process that is killed is complete. The file is closed by `close`, by the end of a
    `with` block, or with the recorder itself; `events` stays.

    Raises:
        ValueError: from all its methods, for an event that no history can contain: an unknown
            kind, a missing field, a completion of an operation that is not open.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        """Every event so far, as it stands in the file."""
        self._lock = threading.Lock()
        self._next_operation = 1
        self._open: dict[int, str] = {}
        """The kind of each operation without a completion."""
        self._file = None if path is None else path.open("w", encoding="utf-8")
        if self._file is not None:
            weakref.finalize(self, self._file.close)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if there is one. Nothing can be recorded afterwards."""
        if self._file is not None:
            self._file.close()

    def invoke(self, client: str, kind: str, key: str, *, time_us: int, **fields: Any) -> int:
        """Record that `client` begins an operation, and return the operation's number."""
        problem = check_arguments(kind, fields)
        if problem is not None:
            raise ValueError(problem)
        with self._lock:
            operation = self._next_operation
            self._next_operation += 1
            self._open[operation] = kind
            head = {"type": INVOKE, "op": operation, "client": client, "time_us": time_us}
            self._record({**head, "kind": kind, "key": key, **fields})
        return operation

    def ok(self, op: int, *, time_us: int, **fields: Any) -> None:
        """Record that operation `op` was acknowledged, with its results in `fields`."""
        self._complete(OK, op, time_us, fields)

    def fail(self, op: int, *, time_us: int, error: str = "") -> None:
        """Record that operation `op` certainly had no effect and never will."""
        self._complete(FAIL, op, time_us, {"error": error})

    def unknown(self, op: int, *, time_us: int, error: str = "") -> None:
        """Record that operation `op` may take effect at any time from its invocation, or never."""
        self._complete(UNKNOWN, op, time_us, {"error": error})

    def final(self, key: str, value: str | None, *, time_us: int) -> None:
        """Record the value of an append key after everything has come to rest."""
        with self._lock:
            self._record({"type": FINAL, "key": key, "value": value, "time_us": time_us})

    def _complete(self, outcome: str, operation: int, time_us: int, fields: dict[str, Any]) -> None:
        with self._lock:
            kind = self._open.get(operation)
            if kind is None:
                raise ValueError(f"op {operation} is not open")
            problem = check_results(kind, fields) if outcome == OK else None
            if problem is not None:
                raise ValueError(f"op {operation}: {problem}")
            del self._open[operation]
            self._record({"type": outcome, "op": operation, "time_us": time_us, **fields})

    def _record(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if self._file is not None:
            self._file.write(json.dumps(event, separators=(",", ":")) + "\n")
            self._file.flush()
