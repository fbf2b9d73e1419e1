"""The Redis protocol as bytes: cutting a stream into commands, and replies in versions 2 and 3.

hiredis does the cutting. It was made for clients, who trust their server, and leaves three things
to us: it would make room at once for as many arguments as a stranger announces, it does not know
commands that are typed by hand (a line of words instead of an array), and it does not say where in
the stream it stands. So what is not there as a whole, or suspicious, is cut out by going from
argument to argument. Both accept exactly the same.

Source: the specification of RESP2 and RESP3.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

import hiredis

from raftd.codec import begins_as_opening

ARGUMENTS_MAX = 8_192
"""Arguments of one command, its name included: some 4,000 keys with their values at once."""
COMMAND_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of one command with its framing: what an entry of the log can hold."""
LINE_BYTES_MAX = 64 * 1024
"""Bytes of a command that is typed by hand."""
ARGUMENT_MEMORY_BYTES = 64
"""What an argument takes beside its own bytes, for the count of what is held."""
_HEAD_BYTES_MAX = 16
"""Of an announcement, with its mark and the end of its line: seven digits are enough."""
_LINE_BYTES = [len(str(number)) + 3 for number in range(1024)]
"""Of the announcement of so many, with its mark and the end of its line."""
_MANY = re.compile(rb"[*>~%|][0-9]{3}")
_MANY_IN_A_LINE = re.compile(rb"\n[*>~%|][0-9]{3}")
"""What announces many arguments, for which hiredis would make room, begins so; a value may contain
it. The search is fast since it is for one certain byte first."""
_SHORT_ARGUMENTS_MAX = 4
_SHORT = {b"*%d" % count: 2 * count + 2 for count in range(1, _SHORT_ARGUMENTS_MAX + 1)}
"""Announcements of a short command, and how many lines it then has."""
_NUMBER = re.compile(rb"0|[1-9][0-9]*")
_ARRAY, _BULK = b"*"[0], b"$"[0]


class FramingError(ValueError):
    """Bytes that are no command; the message says why. The stream has no meaning any more."""


class CommandDecoder:
    """Cuts a stream of bytes into commands, each a list of byte strings with at least one.

    However the stream is cut into pieces, the commands are the same. Beside what one call of `feed`
    brought it holds at most one command that is not complete, `COMMAND_BYTES_MAX` bytes of it:
    nothing is reserved for what is only announced.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        """What came and is not taken apart."""
        self._pieces_bytes = 0
        self._wanted_bytes = 0
        """Before there are so many in the pieces, nothing can be taken from them."""
        self._arguments: list[bytes] = []
        """Those that are there of the command that has begun."""
        self._missing = 0
        """How many are not."""
        self._command_bytes = 0
        """What it has taken of the stream so far."""
        self._problem: FramingError | None = None

    @property
    def buffered_bytes(self) -> int:
        """How much memory is held, about."""
        arguments_bytes = len(self._arguments) * ARGUMENT_MEMORY_BYTES
        return self._pieces_bytes + (self._command_bytes if self._missing else 0) + arguments_bytes

    @property
    def missing_bytes(self) -> int:
        """How many more bytes at least are needed before `take` can return anything."""
        return max(0, self._wanted_bytes - self._pieces_bytes)

    def feed(self, received: bytes) -> None:
        """Add what has come."""
        self._pieces.append(received)
        self._pieces_bytes += len(received)

    def take(self, count_max: int) -> list[list[bytes]]:
        """Return the next commands that are complete, in order, at most `count_max`.

        Fewer than that are all that there are.

        Raises:
            FramingError: what comes next is no command, or one that is too long. All those before
                it were returned.
        """
        if self._problem is not None:
            raise self._problem
        if self._pieces_bytes < self._wanted_bytes or not self._pieces:
            return []
        content = b"".join(self._pieces)
        commands: list[list[bytes]] = []
        position = self._wanted_bytes = 0
        try:
            if self._missing:
                position = self._advance(content, 0, commands)
            if not self._missing and len(commands) < count_max:
                position = _take_whole(content, position, commands, count_max)
            end = len(content)
            while position < end and len(commands) < count_max and not self._wanted_bytes:
                position = self._advance(content, position, commands)
        except FramingError as problem:
            self._problem = problem
            self._pieces, self._pieces_bytes, position = [], 0, len(content)
            if not commands:
                raise
        rest = content[position:]
        self._pieces = [rest] if rest else []
        self._pieces_bytes = len(rest)
        return commands

    def _advance(self, content: bytes, position: int, commands: list[list[bytes]]) -> int:
        """Go on with one command, add it if it is complete, and return how far that went.

        Where more has to come first, `_wanted_bytes` says how much there has to be.
        """
        if not self._missing:
            if content[position] != _ARRAY:
                return self._advance_line(content, position, commands)
            count, after = self._announced(content, position)
            if after < 0:
                return position
            if count > ARGUMENTS_MAX:
                raise FramingError(f"a command of {count} arguments, more than {ARGUMENTS_MAX}")
            self._missing, self._command_bytes = count, after - position
            position = after
        content_bytes = len(content)
        while self._missing and position < content_bytes:
            if content[position] != _BULK:
                raise FramingError("expected a command, an array of bulk strings")
            length, after = self._announced(content, position)
            if after < 0:
                return position
            end = after + length
            argument_bytes = end + 2 - position
            if self._command_bytes + argument_bytes > COMMAND_BYTES_MAX:
                raise FramingError(f"a command of more than {COMMAND_BYTES_MAX} bytes")
            if end + 2 > content_bytes:
                self._wanted_bytes = argument_bytes
                return position
            if not content.startswith(b"\r\n", end):
                raise FramingError(f"an argument of more than the {length} bytes announced")
            self._arguments.append(content[after:end])
            self._missing -= 1
            self._command_bytes += argument_bytes
            position = end + 2
        if self._arguments and not self._missing:
            commands.append(self._arguments)
            self._arguments = []
        return position

    def _advance_line(self, content: bytes, position: int, commands: list[list[bytes]]) -> int:
        """Likewise, for a command that is typed by hand."""
        if begins_as_opening(content, position):
            raise FramingError("Redis clients are answered here, raftd and raftctl at `address`")
        end = content.find(b"\n", position, position + LINE_BYTES_MAX + 1)
        if end < 0:
            if len(content) - position > LINE_BYTES_MAX:
                raise FramingError(f"a line of more than {LINE_BYTES_MAX} bytes")
            self._wanted_bytes = len(content) - position + 1
            return position
        words = split_line(content[position:end])
        if len(words) > ARGUMENTS_MAX:
            raise FramingError(f"a command of {len(words)} arguments, more than {ARGUMENTS_MAX}")
        if words:
            commands.append(words)
        return end + 1

    def _announced(self, content: bytes, position: int) -> tuple[int, int]:
        """Return the number that is announced at `position`, and where its line ends; -1 if there
        is more to come of the line."""
        end = content.find(b"\r\n", position, position + _HEAD_BYTES_MAX)
        if end < 0:
            if len(content) - position >= _HEAD_BYTES_MAX:
                raise FramingError("a number that is too long")
            self._wanted_bytes = len(content) - position + 1
            return 0, -1
        digits = content[position + 1 : end]
        if _NUMBER.fullmatch(digits) is None:
            raise FramingError("expected a number in decimal digits")
        return int(digits), end + 2


_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_WORD = re.compile(
    rb"""\s*(?:"((?:\\.|[^"\\])*)"|'((?:\\'|[^'])*)'|([^\s"']+))(?=\s|\Z)|\s+\Z""", re.DOTALL
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)


def split_line(line: bytes) -> list[bytes]:
    """Return the words of a line that was typed by hand, as a shell would.

    A word in double quotes may have escapes as in C, one in single quotes only that of the quote.

    Raises:
        FramingError: a quote is not closed, or goes on without a space.
    """
    if b'"' not in line and b"'" not in line:
        return line.split()
    words: list[bytes] = []
    position = 0
    while position < len(line):
        found = _WORD.match(line, position)
        if found is None:
            raise FramingError("unbalanced quotes in a line")
        position = found.end()
        double, single, plain = found.groups()
        if double is not None:
            words.append(_ESCAPE.sub(_unescaped, double))
        elif single is not None:
            words.append(single.replace(b"\\'", b"'"))
        elif plain is not None:
            words.append(plain)
    return words


def _unescaped(escape: re.Match[bytes]) -> bytes:
    digits, character = escape.groups()
    return bytes.fromhex(digits.decode()) if digits else _ESCAPED.get(character, character)


def only_command(content: bytes) -> list[bytes] | None:
    """Return the command that `content` is if it is one, short and whole; else None.

    For what nearly every read of a client brings that waits for its answers. `CommandDecoder` says
    of all else what it is, and the same of this.
    """
    parts = content.split(b"\r\n", 2 * _SHORT_ARGUMENTS_MAX + 2)
    # The announcement of all arguments and of each one, each argument, and nothing after them.
    if _SHORT.get(parts[0]) != len(parts):
        return None
    arguments = parts[2::2]
    if parts.pop() or parts[1::2] != [b"$%d" % len(argument) for argument in arguments]:
        return None
    return arguments


def _take_whole(content: bytes, position: int, commands: list[list[bytes]], count_max: int) -> int:
    """Add the commands at `position` that are whole, as hiredis reads them.

    Returns:
        Where the first one begins that was not taken: it is not whole, or no command, or announces
        so many arguments that room for them must not be made, or is only suspected to.
    """
    if len(content) > COMMAND_BYTES_MAX or not content.startswith(b"*", position):
        return position
    if _MANY.match(content, position) or _MANY_IN_A_LINE.search(content, position):
        return position
    reader = hiredis.Reader()
    reader.feed(content, position, len(content) - position)
    # What it takes for an error is left to be found again, so that there is one text for each. (It
    # makes maps, too, whose keys it then cannot hash.)
    with contextlib.suppress(hiredis.ProtocolError, TypeError):
        while len(commands) < count_max:
            command = reader.gets()
            wire_bytes = _wire_bytes(command, content, position)
            if not wire_bytes:
                break
            position += wire_bytes
            if command:
                commands.append(command)
    return position


def _wire_bytes(command: object, content: bytes, position: int) -> int:
    """Return how many bytes a command has taken of `content`, where it begins at `position`.

    0 if it is none. hiredis accepts one way of writing a number only, so that it can be told from
    the arguments; but it takes a line for a string as well, and does not look at the end of one.
    """
    if type(command) is not list:
        return 0
    count = len(command)
    end = position + (_LINE_BYTES[count] if count < 1024 else len(str(count)) + 3)
    for argument in command:
        if type(argument) is not bytes or content[end] != _BULK:
            return 0
        length = len(argument)
        end += length + 2 + (_LINE_BYTES[length] if length < 1024 else len(str(length)) + 3)
        if not content.startswith(b"\r\n", end - 2):
            return 0
    return end - position


# --- replies --------------------------------------------------------------------------------

OK = b"+OK\r\n"
NULL_2 = b"$-1\r\n"
NULL_3 = b"_\r\n"


def bulk(value: bytes) -> bytes:
    """Return a bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def integer(number: int) -> bytes:
    """Return an integer."""
    return b":%d\r\n" % number


def error(message: str) -> bytes:
    """Return an error; its first word, in capitals, is what programs look at."""
    return b"-%b\r\n" % message.replace("\r", " ").replace("\n", " ").encode()


def simple(text: str) -> bytes:
    """Return a simple string."""
    return b"+%b\r\n" % text.encode()


def array(replies: Sequence[bytes]) -> bytes:
    """Return an array of replies."""
    return b"*%d\r\n%b" % (len(replies), b"".join(replies))


def mapping(pairs: Sequence[tuple[bytes, bytes]], protocol: int) -> bytes:
    """Return a map of replies; in protocol 2 it is an array of keys and values."""
    head = b"%%%d\r\n" % len(pairs) if protocol >= 3 else b"*%d\r\n" % (2 * len(pairs))
    return head + b"".join([key + value for key, value in pairs])
