"""How far something is that goes on for gigabytes: bytes, rate, remaining time.

On a terminal one line is redrawn in place, elsewhere plain lines come when a quarter more is done
or after some seconds, and with `-o json` lines of JSON on stdout.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import deque

import click

from raftctl.cli import Context
from raftctl.drawn_line import DrawnLine
from raftctl.render import bar, duration
from raftd.cluster_status.words import size

LINE_MS = 2_000.0
"""Off a terminal: at least so long between two lines."""
REDRAW_MS = 100.0
RATE_MS = 5_000.0
"""The rate is that of the last so many milliseconds."""
RATE_MS_MIN = 500.0
"""The first parts go into buffers: what is seen in less time is no rate to go by."""
BAR_COLUMNS = 16


class ByteProgress:
    """The progress of one command, phase after phase."""

    def __init__(self, context: Context) -> None:
        self._output = context.output
        self._redraws = context.redraws(sys.stderr)
        self._phase = ""
        self._shown_s = 0.0
        self._line = DrawnLine()
        self._samples: deque[tuple[float, int]] = deque()

    def show(self, phase: str, done_bytes: int | None = None, total_bytes: int = 0) -> None:
        """Say where the command is, unless that was said just now.

        Args:
            phase: what it does, in words, such as `fetching from n2`.
            done_bytes: None where that is not known.
            total_bytes: 0 likewise.
        """
        now_s = time.monotonic()
        is_new = phase != self._phase
        if is_new:
            self._phase = phase
            self._samples.clear()
        if done_bytes is not None:
            self._samples.append((now_s, done_bytes))
            while now_s - self._samples[0][0] > RATE_MS / 1000 and len(self._samples) > 2:
                self._samples.popleft()
        interval_ms = REDRAW_MS if self._redraws else LINE_MS
        is_whole = done_bytes is not None and done_bytes == total_bytes
        if not is_new and now_s - self._shown_s < interval_ms / 1000 and not is_whole:
            return
        self._shown_s = now_s
        self._print(done_bytes, total_bytes)

    def message(self, text: str) -> None:
        """Say something that stays."""
        if self._output in ("json", "yaml"):
            return
        self.close()
        with contextlib.suppress(OSError):
            click.echo(text, err=True)

    def close(self) -> None:
        """Take away what is drawn."""
        self._line.clear()

    def _print(self, done_bytes: int | None, total_bytes: int) -> None:
        rate = self._rate()
        remaining_s = None
        if rate and done_bytes is not None and total_bytes:
            remaining_s = (total_bytes - done_bytes) / rate
        if self._output == "json":
            line = {
                "type": "progress",
                "phase": self._phase,
                "bytes": done_bytes,
                "total_bytes": total_bytes or None,
                "bytes_per_second": round(rate) if rate else None,
                "remaining_s": None if remaining_s is None else round(remaining_s, 1),
            }
            click.echo(json.dumps(line, ensure_ascii=False))
            return
        if self._output == "yaml":
            return
        parts = [self._phase]
        if done_bytes is not None:
            parts.append(size(done_bytes) + (f" of {size(total_bytes)}" if total_bytes else ""))
        if rate:
            parts.append(f"{size(rate)}/s")
        if remaining_s:
            # Nobody knows how fast what comes after this phase will go.
            parts.append(f"about {duration(1000 * remaining_s)} for this step")
        text = ", ".join(parts)
        if not self._redraws:
            with contextlib.suppress(OSError):
                click.echo(text, err=True)
            return
        if done_bytes is not None and total_bytes:
            text = f"{bar(done_bytes / total_bytes, BAR_COLUMNS)} {text}"
        self._line.draw(text)

    def _rate(self) -> float:
        """Return bytes per second; 0 if it is not known."""
        if len(self._samples) < 2:
            return 0.0
        (first_s, first_bytes), (last_s, last_bytes) = self._samples[0], self._samples[-1]
        if last_s - first_s < RATE_MS_MIN / 1000 or last_bytes <= first_bytes:
            return 0.0
        return (last_bytes - first_bytes) / (last_s - first_s)
