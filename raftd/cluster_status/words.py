"""Numbers, lengths of time and commands in sentences for people.

Text that comes from a server or a key may hold anything; `printable` makes it safe for a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_BARE_COMMAND = re.compile(r"(?:^|(?<=`))raftctl (?=[a-z])", re.MULTILINE)


def printable(text: str) -> str:
    """Return `text` with everything escaped that could move a cursor or break a line."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )


def bare_command(words: str) -> str:
    """Return the command of the words after `raftctl`, which dials what it finds by itself."""
    return f"raftctl {words}"


def dialling(hint: str, command: Callable[[str], str]) -> str:
    """Return the hint of a server with its commands as they have to be typed here.

    A server does not know how it was reached.

    Args:
        command: makes a command that dials the same servers out of its words.
    """
    return _BARE_COMMAND.sub(lambda _: command(""), hint)


def number(value: int) -> str:
    """Return `value` with separators between the thousands."""
    return f"{value:,}"


def duration(milliseconds: float) -> str:
    """Return a length of time with the precision that a person wants: 12ms, 3.4s, 2m 05s."""
    if milliseconds < 1:
        return f"{milliseconds:.1f}ms" if milliseconds else "0ms"
    if milliseconds < 1000:
        return f"{milliseconds:.0f}ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02d}m"
    return f"{hours // 24}d {hours % 24}h"


def plural(count: int, one: str, many: str = "") -> str:
    """Return `count` and the word for that many: 1 failure, 2 failures."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def listed(names: Iterable[str], conjunction: str = "and") -> str:
    """Return `n1`, `n1 and n2`, or `n1, n2 and n3`."""
    words = list(names)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sort key by which n2 comes before n10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts if part)


def size(size_bytes: float) -> str:
    """Return a number of bytes with the precision that a person wants: 512 B, 3.4 MiB."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    for unit in ("KiB", "MiB"):
        size_bytes /= 1024
        if size_bytes < 1000:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1024:,.1f} GiB"
