"""What results look like: tables, numbers, durations, colours, configurations.

Text that comes from a server or a key may hold anything; `printable` makes it safe for a terminal.
"""

from __future__ import annotations

import re
import shutil
import textwrap
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import IO

import attrs

from raftd.cluster_status.members import configuration_document as configuration_document
from raftd.cluster_status.members import display_names as display_names
from raftd.cluster_status.members import members_of as members_of
from raftd.cluster_status.words import duration as duration
from raftd.cluster_status.words import listed as listed
from raftd.cluster_status.words import natural_key as natural_key
from raftd.cluster_status.words import number as number
from raftd.cluster_status.words import plural as plural
from raftd.cluster_status.words import printable as printable
from raftd.core.types import ServerId
from raftd.protocol import ConfigurationView

COLUMN_GAP = "  "
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_COLORS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


# --- text -------------------------------------------------------------------------------------


@attrs.frozen
class Style:
    """Colours, or none of them."""

    enabled: bool

    def __call__(self, text: str, color: str) -> str:
        """Return `text` in `color`: red, green, yellow, bold or dim."""
        return f"\x1b[{_COLORS[color]}m{text}\x1b[0m" if self.enabled and text else text


def width_of(text: str) -> int:
    """Return the columns that `text` takes on a terminal; colours take none."""
    plain = _ESCAPE_SEQUENCE.sub("", text)
    if plain.isascii():
        return len(plain)
    return sum(
        0 if unicodedata.combining(character) else 2 if _is_wide(character) else 1
        for character in plain
    )


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def cut(text: str, width: int) -> str:
    """Return `text` in at most `width` columns, with `…` where something was cut off."""
    if width_of(text) <= width:
        return text
    kept: list[str] = []
    room = width - 1
    position = 0
    while position < len(text):
        escape = _ESCAPE_SEQUENCE.match(text, position)
        if escape:
            kept.append(escape[0])
            position = escape.end()
            continue
        room -= width_of(text[position])
        if room < 0:
            break
        kept.append(text[position])
        position += 1
    end = "\x1b[0m" if "\x1b" in text else ""
    return "".join(kept) + "…" + end


def terminal_width(stream: IO[str]) -> int | None:
    """Return the columns of the terminal behind `stream`, or None if it is no terminal."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    width: int | None = None,
) -> str:
    """Return a table without borders, one line for the headers and one for each row.

    Args:
        headers: one for each column; a column that is empty in every row is left out.
        rows: cells; colours in them do not count for the width.
        right: headers of the columns that are aligned to the right.
        width: cut each line to this many columns; None for no limit.
    """
    cells = [list(row) for row in rows]
    columns = [
        number for number in range(len(headers)) if not cells or any(row[number] for row in cells)
    ]
    widths = {
        number: max(width_of(line[number]) for line in [list(headers), *cells])
        for number in columns
    }
    lines = []
    for line in [list(headers), *cells]:
        parts = []
        for column in columns:
            padding = " " * (widths[column] - width_of(line[column]))
            aligned_right = headers[column] in right
            parts.append(padding + line[column] if aligned_right else line[column] + padding)
        text = COLUMN_GAP.join(parts).rstrip()
        lines.append(text if width is None else cut(text, width))
    return "\n".join(lines)


def fitted(text: str, width: int | None) -> str:
    """Return `text` without colours in lines of at most `width` columns; None for no limit."""
    if width is None:
        return text
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def packed(parts: Iterable[str], gap: str, width: int) -> list[str]:
    """Return `parts` with `gap` between, in as few lines of at most `width` columns as it takes."""
    lines: list[str] = []
    for part in parts:
        if lines and width_of(lines[-1]) + width_of(gap) + width_of(part) <= width:
            lines[-1] += gap + part
        else:
            lines.append(part)
    return lines


def clock(time_ms: int) -> str:
    """Return a moment in local time, to the second: `?` if there is no such moment, "" for 0."""
    import datetime

    if not time_ms:
        return ""
    try:
        moment = datetime.datetime.fromtimestamp(time_ms / 1000).astimezone()
    except (OverflowError, ValueError, OSError):
        return "?"
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def precise_duration(milliseconds: float) -> str:
    """Return a length of time as `duration` does, below 10 ms with a tenth of a millisecond."""
    return f"{milliseconds:.1f}ms" if milliseconds < 10 else duration(milliseconds)


def bar(fraction: float, width: int) -> str:
    """Return a bar of `width` columns, filled to `fraction`, 0 to 1."""
    filled = round(max(0.0, min(1.0, fraction)) * width)
    return "█" * filled + "░" * (width - filled)


# --- configurations ---------------------------------------------------------------------------


def configuration_table(view: ConfigurationView, *, width: int | None = None) -> str:
    """Return the members of a configuration, one line each: name, role and address."""
    names = display_names(members_of(view))
    rows = [
        (names[server], _role(view, server), view.addresses.get(server, ""))
        for server in sorted(names, key=natural_key)
    ]
    return table(("ID", "ROLE", "ADDRESS"), rows, width=width)


def _role(view: ConfigurationView, server: ServerId) -> str:
    if server in view.voters:
        return "voter" if not view.joint or server in view.outgoing else "voter (new half)"
    if server in view.learners_next:
        return "voter (old half), learner next"
    if server in view.outgoing:
        return "voter (old half)"
    return "learner"


def name_list(servers: Iterable[ServerId]) -> str:
    """Return the names of `servers` in order, with spaces between, or `nobody`."""
    names = display_names(servers)
    return " ".join(sorted(names.values(), key=natural_key)) or "nobody"
