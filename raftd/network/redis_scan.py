"""SCAN, KEYS and DBSIZE: going through the keys in their order, a bounded part at a time.

Where a scan goes on is kept by `raftd.network.redis_cursors`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from raftd.commands import KEY_BYTES_MAX
from raftd.inputs import StateView
from raftd.network.redis_actions import (
    SYNTAX_ERROR,
    Action,
    CommandError,
    Query,
    Session,
    integer_of,
)
from raftd.network.redis_framing import array, bulk, integer

SCAN_COUNT = 10
"""Keys that one SCAN looks at if it does not say, as in Redis."""
SCAN_COUNT_MAX = 1_000
"""At most so many: about a millisecond."""
KEYS_MAX = 20_000
"""Keys that one KEYS looks at: some 20 ms, in which nobody else is served."""
COUNTED_MAX = 50_000
"""What DBSIZE counts one by one: likewise."""
PATTERN_BYTES_MAX = 1_024
"""Of a pattern: longer than any key."""
SCAN_WORK_MAX = 2_500_000
"""Bytes of keys times bytes of a pattern that one SCAN compares: some 5 ms where they were made to
take long. It looks at fewer keys than it was asked to if these could be more."""
KEYS_WORK_MAX = 32_000_000
"""Likewise one KEYS: some 60 ms."""
_CURSOR_END = 2**64
"""No cursor of any server is so large."""
_BYTES_OF_COST = 16
"""To make so much of a pattern ready takes as long as a read of one key."""
_COST_OF_MANY = 1_024
"""Of a command that may look at thousands of keys, as reads of one key."""


# --- patterns -------------------------------------------------------------------------------

_SPECIAL = re.compile(rb"[*?\[\\]")


def literal_prefix(pattern: bytes) -> bytes:
    """Return what every match of a pattern begins with."""
    special = _SPECIAL.search(pattern)
    return pattern if special is None else pattern[: special.start()]


def matcher(pattern: bytes) -> Callable[[bytes], object]:
    """Return what tells whether a pattern fits, as that of KEYS does.

    `*` stands for any bytes, `?` for one, `[ab-d]` for one of these, `[^a]` for one of the others,
    and a backslash for the character behind it. Its time is bounded by the product of both
    lengths: each part between two stars is looked for once and never again.

    Raises:
        CommandError: the pattern is too long.
    """
    if len(pattern) > PATTERN_BYTES_MAX:
        raise CommandError(f"ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")
    parts = [b""]
    position = 0
    while position < len(pattern):
        if pattern.startswith(b"*", position):
            parts.append(b"")
            position += 1
        else:
            translated, position = _one(pattern, position)
            parts[-1] += translated
    first, *rest = parts
    if rest:
        *middle, last = rest
        first += b"".join([b"(?>.*?%b)" % part for part in middle if part]) + b".*" + last
    return re.compile(first, re.DOTALL).fullmatch


def _one(pattern: bytes, position: int) -> tuple[bytes, int]:
    """Return what one character of a pattern fits, as a regular expression, and what is next."""
    character = pattern[position : position + 1]
    position += 1
    if character == b"?":
        return b".", position
    if character == b"[":
        return _class(pattern, position)
    if character == b"\\" and position < len(pattern):
        character = pattern[position : position + 1]
        position += 1
    return re.escape(character), position


def _class(pattern: bytes, position: int) -> tuple[bytes, int]:
    negated = pattern.startswith(b"^", position)
    position += negated
    ranges = []
    while position < len(pattern) and not pattern.startswith(b"]", position):
        escaped = pattern.startswith(b"\\", position) and position + 1 < len(pattern)
        position += escaped
        first = last = pattern[position]
        is_range = pattern.startswith(b"-", position + 1) and position + 2 < len(pattern)
        if is_range and not escaped:
            first, last = sorted((first, pattern[position + 2]))
            position += 2
        ranges.append(b"\\x%02x-\\x%02x" % (first, last))
        position += 1
    if not ranges:
        return (b"." if negated else b"(?!)"), position + 1
    return b"[%b%b]" % (b"^" if negated else b"", b"".join(ranges)), position + 1


def _end_of(prefix: bytes) -> bytes:
    """Return the first key behind all that begin with `prefix`; empty if there can be none."""
    counted = prefix.rstrip(b"\xff")
    return counted[:-1] + bytes((counted[-1] + 1,)) if counted else b""


# --- the commands ---------------------------------------------------------------------------


def scan(command: list[bytes], session: Session, features: int) -> Action:
    """Answer SCAN."""
    if not command[1].isdigit() or len(command[1]) > 20 or int(command[1]) >= _CURSOR_END:
        raise CommandError("ERR invalid cursor")
    cursor = int(command[1])
    pattern, count, kind = b"*", SCAN_COUNT, b"string"
    options = iter(command[2:])
    for option in options:
        argument = next(options, None)
        if argument is None:
            raise CommandError(SYNTAX_ERROR)
        match option.upper():
            case b"MATCH":
                pattern = argument
            case b"COUNT":
                count = min(integer_of(argument), SCAN_COUNT_MAX)
                if count < 1:
                    raise CommandError(SYNTAX_ERROR)
            case b"TYPE":
                kind = argument.lower()
            case _:
                raise CommandError(SYNTAX_ERROR)
    matches, prefix = matcher(pattern), literal_prefix(pattern)
    compared_bytes = max(1, (len(pattern) - len(prefix)) * KEY_BYTES_MAX)
    count = min(count, max(1, SCAN_WORK_MAX // compared_bytes))
    cursors = session.surroundings.cursors

    def run(state: StateView) -> bytes:
        start = max(cursors.position(cursor), prefix)
        found = state.keys(start, _end_of(prefix), count)
        following = cursors.remember(found[-1] + b"\0") if len(found) == count else 0
        keys = [bulk(key) for key in found if matches(key)] if kind == b"string" else []
        return array([bulk(b"%d" % following), array(keys)])

    cost = 1 + count // SCAN_COUNT + len(pattern) // _BYTES_OF_COST
    return Query(run=run, cost=cost, stale=session.stale_reads)


def keys(command: list[bytes], session: Session, features: int) -> Action:
    """Answer KEYS, unless too many keys would have to be looked at."""
    matches, prefix = matcher(command[1]), literal_prefix(command[1])

    def run(state: StateView) -> bytes:
        found = state.keys(prefix, _end_of(prefix), KEYS_MAX + 1)
        if len(found) > KEYS_MAX:
            raise CommandError(
                f"ERR more than {KEYS_MAX} keys would have to be looked at: use SCAN, or a pattern "
                "that begins with more characters"
            )
        if (len(command[1]) - len(prefix)) * sum(map(len, found)) > KEYS_WORK_MAX:
            raise CommandError(
                "ERR so many keys would take too long to compare with so long a pattern: use SCAN"
            )
        return array([bulk(key) for key in found if matches(key)])

    return Query(run=run, cost=_COST_OF_MANY, stale=session.stale_reads)


def dbsize(command: list[bytes], session: Session, features: int) -> Action:
    """Answer DBSIZE, unless too much would have to be counted."""

    def run(state: StateView) -> bytes:
        count = state.key_count(COUNTED_MAX)
        if count is None:
            raise CommandError(
                f"ERR more than {COUNTED_MAX} keys would have to be counted one by one: use SCAN"
            )
        return integer(count)

    return Query(run=run, cost=_COST_OF_MANY, stale=session.stale_reads)
