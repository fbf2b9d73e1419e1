"""A block of lines on a terminal that is drawn again and again in its place.

Each frame is written at once over the last one, line by line, so that nothing flickers; nothing
that stood on the terminal before is cleared, and the last frame stays when it ends. The cursor is
hidden meanwhile. It comes back however the command ends, also by SIGTERM, and while it is stopped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from raftctl.render import cut

HIDE_CURSOR = "\x1b[?25l"
SHOW_CURSOR = "\x1b[?25h"
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class _Ended(BaseException):
    """A signal that ends the process has come; not an error that anything should catch."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Screen:
    """What is drawn on stdout. Use it inside `drawn`."""

    def __init__(self) -> None:
        self._lines = 0
        """Of the last frame; the cursor stands beneath it."""
        self._size: os.terminal_size | None = None

    def draw(self, lines: Sequence[str], footer: str) -> None:
        """Draw a frame over the last one, in one write.

        Args:
            lines: what is cut where the terminal is too narrow or too low.
            footer: the last line, which is always there.
        """
        size = shutil.get_terminal_size()
        # The cursor needs a line of its own beneath the frame.
        room = max(1, size.lines - 1)
        shown = [*lines, "", footer]
        if len(shown) > room:
            fitting = max(0, room - 2)
            hidden = f"({len(lines) - fitting} more lines: the terminal is too low)"
            shown = [*lines[:fitting], hidden, footer][-room:]
        if self._size is not None and size != self._size:
            # The terminal may have wrapped the old lines: how many there are now nobody knows.
            start = "\x1b[H"
        else:
            start = f"\x1b[{self._lines}A\r" if self._lines else "\r"
        # A line that wraps would push the frame down.
        frame = "".join(f"{cut(line, size.columns)}\x1b[K\n" for line in shown)
        sys.stdout.write(f"{start}{frame}\x1b[J")
        sys.stdout.flush()
        self._lines, self._size = len(shown), size

    def forget(self) -> None:
        """Draw the next frame beneath whatever stands there now."""
        self._lines = 0


@contextlib.contextmanager
def drawn() -> Iterator[Screen]:
    """Yield a `Screen` with the cursor hidden, and bring the cursor back in the end.

    SIGTERM and SIGHUP end the process as ever, once the cursor is back; SIGTSTP stops it likewise.
    To be used in the main thread, which is where signals arrive.
    """
    screen = Screen()

    def end(number: int, frame: FrameType | None) -> None:
        raise _Ended(number)

    def stop(number: int, frame: FrameType | None) -> None:
        # Past the stream's buffer, which may be in the middle of a frame.
        os.write(sys.stdout.fileno(), SHOW_CURSOR.encode())
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here it goes on after SIGCONT, beneath what the shell has written meanwhile.
        screen.forget()
        signal.signal(signal.SIGTSTP, stop)
        os.write(sys.stdout.fileno(), HIDE_CURSOR.encode())

    before = {
        number: signal.signal(number, end)
        for number in ENDING_SIGNALS
        # Whoever starts it with nohup wants it to go on.
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, stop)
    ended = 0
    try:
        sys.stdout.write(HIDE_CURSOR)
        yield screen
    except _Ended as signalled:
        ended = signalled.number
    finally:
        # A second signal must not come between the cursor and its way back.
        signal.pthread_sigmask(signal.SIG_BLOCK, before)
        with contextlib.suppress(OSError):
            sys.stdout.write(SHOW_CURSOR)
            sys.stdout.flush()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, before)
    if ended:
        os.kill(os.getpid(), ended)
