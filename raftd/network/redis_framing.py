"""The Redis protocol as bytes: cutting a stream into commands, and replies in versions 2 and 3.

hiredis does the cutting. Two things it leaves to us, since it was made for clients: it would make
room at once for as many arguments as a stranger announces, and it does not know commands that are
typed by hand (a line of words instead of an array).

Source: the specification of RESP2 and RESP3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import hiredis

ARGUMENTS_MAX = 8_192
"""Arguments of one command, its name included: some 4,000 keys with their values at once."""
COMMAND_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of one command with its framing: what an entry of the log can hold."""
LINE_BYTES_MAX = 64 * 1024
"""Bytes of a command that is typed by hand."""
_ARGUMENTS_DIGITS = re.compile(rb"\n[*>~%|]\d{5}")
"""What an announcement of too many arguments or elements follows and begins with. Values may
contain it too. The search is fast since it is for one certain byte first."""
_ANNOUNCEMENT_BYTES_MAX = 8
"""Of the announcement of as many arguments as are allowed, without its end."""
_OVERLAP_BYTES = 2 * _ANNOUNCEMENT_BYTES_MAX
"""Of what came before, so that an announcement is seen as a whole that comes in pieces."""


class FramingError(ValueError):
    """Bytes that are no command; the message says why. The stream has no meaning any more."""


class CommandDecoder:
    """Cuts a stream of bytes into commands, each a list of byte strings with at least one.

    Holds at most `COMMAND_BYTES_MAX` and what one call of `feed` brought.
    """

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._partial: list[bytes] = []
        """The bytes of the command that has begun, as they came."""
        self.buffered_bytes = 0
        """How many these are."""
        self._overlap = b"\n"

    def feed(self, received: bytes) -> list[list[bytes]]:
        """Return the commands that `received` completes, in order.

        Raises:
            FramingError: they are no commands, or one is too long.
        """
        if not self.buffered_bytes and received[0] != 0x2A:
            return self._feed_lines(received)
        if self._partial and self._partial[0][0] != 0x2A:
            return self._feed_lines(received)
        self._refuse_excess(received)
        reader = self._reader
        reader.feed(received)
        commands: list[list[bytes]] = []
        consumed_bytes = 0
        try:
            while (command := reader.gets()) is not False:
                if type(command) is not list:
                    raise FramingError("expected a command, an array of bulk strings")
                consumed_bytes += _wire_bytes(command)
                if command:
                    commands.append(command)
        except hiredis.ProtocolError as error:
            raise FramingError(str(error).removeprefix("Protocol error, ")) from None
        left_bytes = self.buffered_bytes + len(received) - consumed_bytes
        if left_bytes > COMMAND_BYTES_MAX:
            raise FramingError(f"a command of more than {COMMAND_BYTES_MAX} bytes")
        if not left_bytes:
            self._partial.clear()
        elif consumed_bytes:
            self._partial = [received[-left_bytes:]]
        else:
            self._partial.append(received)
        self.buffered_bytes = left_bytes
        return commands

    def _feed_lines(self, received: bytes) -> list[list[bytes]]:
        """Take commands that are typed by hand; the stream may go over to the usual form."""
        self._overlap = b"\n"
        whole = b"".join((*self._partial, received))
        self._partial.clear()
        self.buffered_bytes = 0
        commands: list[list[bytes]] = []
        while whole and whole[0] != 0x2A:
            line, newline, rest = whole.partition(b"\n")
            if len(line) > LINE_BYTES_MAX:
                raise FramingError(f"a line of more than {LINE_BYTES_MAX} bytes")
            if not newline:
                self._partial = [whole]
                self.buffered_bytes = len(whole)
                return commands
            words = line.split()
            if words:
                commands.append(words)
            whole = rest
        return commands + self.feed(whole) if whole else commands

    def _refuse_excess(self, received: bytes) -> None:
        """Refuse an array of too many elements before room is made for them."""
        seen = self._overlap + received
        self._overlap = seen[-_OVERLAP_BYTES:]
        if _ARGUMENTS_DIGITS.search(seen) is None:
            return
        # It may be a part of a value: only going from argument to argument tells.
        content = b"".join((*self._partial, received))
        position = 0
        while position < len(content):
            count, position = _announced(content, position, b"*")
            if count > ARGUMENTS_MAX:
                raise FramingError(f"a command of {count} arguments, more than {ARGUMENTS_MAX}")
            for _ in range(count):
                length, position = _announced(content, position, b"$")
                if length > COMMAND_BYTES_MAX:
                    raise FramingError(f"an argument of {length} bytes")
                position += length + 2
                if position > len(content):
                    return


def _announced(content: bytes, position: int, kind: bytes) -> tuple[int, int]:
    """Return the number that is announced at `position`, and where what it announces begins.

    Where the announcement is not there yet, the number is 0 and the place is the end.
    """
    if position >= len(content):
        return 0, len(content)
    end = content.find(b"\r\n", position)
    if content[position : position + 1] != kind:
        raise FramingError("expected a command, an array of bulk strings")
    if end < 0:
        if len(content) - position > _ANNOUNCEMENT_BYTES_MAX and kind == b"*":
            raise FramingError(f"a command of more than {ARGUMENTS_MAX} arguments")
        return 0, len(content)
    digits = content[position + 1 : end]
    if not digits.isdigit():
        raise FramingError("expected a command, an array of bulk strings")
    return int(digits), end + 2


_HEAD_BYTES = [len(str(number)) + 3 for number in range(1024)]
"""Of an announcement of so many."""


def _wire_bytes(command: Sequence[object]) -> int:
    """Return how many bytes of the stream a command has taken: hiredis accepts one form only."""
    count = len(command)
    total = _HEAD_BYTES[count] if count < 1024 else len(str(count)) + 3
    for argument in command:
        if type(argument) is not bytes:
            raise FramingError("expected a command, an array of bulk strings")
        length = len(argument)
        total += length + 2 + (_HEAD_BYTES[length] if length < 1024 else len(str(length)) + 3)
    return total


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
