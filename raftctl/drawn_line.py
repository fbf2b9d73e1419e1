"""One line on stderr, a terminal, that is drawn over in place."""

from __future__ import annotations

import contextlib
import sys

from raftctl.render import cut, terminal_width


class DrawnLine:
    """What stands in the line where the cursor is, until something else is said.

    A terminal that takes nothing ends nothing: what is drawn here is gone in the end anyhow.
    """

    def __init__(self) -> None:
        """Begin with nothing drawn."""
        self._is_drawn = False

    def draw(self, text: str) -> None:
        """Show `text`, cut to the width of the terminal, in the place of what was drawn before."""
        with contextlib.suppress(OSError):
            width = terminal_width(sys.stderr) or 80
            sys.stderr.write(f"\r\x1b[J{cut(text, width - 1)}")
            sys.stderr.flush()
            self._is_drawn = True

    def clear(self) -> None:
        """Take away what is drawn."""
        if self._is_drawn:
            self._is_drawn = False
            with contextlib.suppress(OSError):
                sys.stderr.write("\r\x1b[J")
                sys.stderr.flush()
