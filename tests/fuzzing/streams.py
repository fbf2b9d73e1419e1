"""What is sent to a listener: made of random numbers only, so that a seed says it all."""

from __future__ import annotations

import functools
import struct
import types
import typing
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

import attrs
import msgpack

from raftd.codec import encode_frame, encode_opening, encode_request
from raftd.network.redis_catalogue import DESCRIPTIONS
from raftd.network.redis_unsupported import ADVICE
from raftd.protocol import Hello, PutRequest, Request

Stream: TypeAlias = Callable[[Random], list[bytes]]
"""Makes the pieces that one connection sends, each at once."""

PIECES_MAX = 12
GARBAGE_BYTES_MAX = 40_000
_TOKENS = (
    *(
        b"\r\n",
        b"*",
        b"$",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*99999999999\r\n",
        b"$99999999\r\n",
    ),
    *(
        b"*1048577\r\n",
        b"%1\r\n",
        b"~3\r\n",
        b">2\r\n",
        b"|1\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.5\r\n",
    ),
    *(b"(123\r\n", b"\0" * 64, b"\xff" * 64, b'"', b"'", b"\\x", b"MULTI\r\n", b"EXEC\r\n"),
    *(b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.0"),
    *(b"Content-Length: 99999999\r\n", b"\x16\x03\x01", b"\xc1", b"\xdd\xff\xff\xff\xff"),
)
_WORDS = (
    *(b"a", b"b", b"{t}c", b"0", b"1", b"-1", b"10", b"9223372036854775807", b"x" * 600, b"\xff"),
    *(
        b"",
        b"NX",
        b"XX",
        b"EX",
        b"PX",
        b"GET",
        b"KEEPTTL",
        b"MATCH",
        b"COUNT",
        b"*",
        b"[a-",
        b"TYPE",
    ),
    *(b"SETNAME", b"3", b"2", b"LOWEST", b"INFO", b"LIST", b"SLOTS", b"NODES", b"DOCS", b"GETKEYS"),
)


def garbage(random: Random) -> list[bytes]:
    """Bytes without any form, or parts of all protocols without any order."""
    pieces = []
    for _ in range(random.randint(1, PIECES_MAX)):
        if random.random() < 0.5:
            pieces.append(random.randbytes(_length(random, GARBAGE_BYTES_MAX)))
        else:
            pieces.append(b"".join(random.choices(_TOKENS, k=random.randint(1, 30))))
    return pieces


def damaged(whole: Stream) -> Stream:
    """What another stream sends, with bytes changed, lost, repeated and put between."""

    def stream(random: Random) -> list[bytes]:
        content = bytearray(b"".join(whole(random)))
        for _ in range(random.randint(1, 8)):
            place = random.randrange(len(content) + 1)
            end = min(len(content), place + _length(random, 200))
            match random.randrange(5):
                case 0:
                    content[place:end] = random.randbytes(end - place)
                case 1:
                    del content[place:end]
                case 2:
                    content[place:place] = content[place:end]
                case 3:
                    content[place:place] = random.choice(_TOKENS)
                case 4:
                    del content[place:]
        return cut(bytes(content), random)

    return stream


def cut(content: bytes, random: Random) -> list[bytes]:
    """Return `content` in random pieces."""
    places = sorted(random.randrange(len(content) + 1) for _ in range(random.randrange(PIECES_MAX)))
    return [
        content[a:b] for a, b in zip([0, *places], [*places, len(content)], strict=True) if a < b
    ]


def _length(random: Random, most: int) -> int:
    """Return a length up to `most`, of every order of magnitude."""
    return int(most ** random.random())


# --- RESP -----------------------------------------------------------------------------------

_NAMES = sorted({*DESCRIPTIONS, *ADVICE} - {b"QUIT"})


def redis_command(random: Random) -> list[bytes]:
    """Any command with any arguments, more often one that is carried out, with the right number."""
    name = random.choice(_NAMES)
    described = DESCRIPTIONS.get(name)
    count = random.randrange(6)
    if described is not None and random.random() < 0.8:
        count = abs(described.arity) - 1
        if described.arity < 0:
            count += random.randrange(4)
    words = [
        random.choice(_WORDS) if random.random() < 0.9 else random.randbytes(_length(random, 2_000))
        for _ in range(count)
    ]
    if name == b"RAFT.DO" and len(words) > 2 and random.random() < 0.8:
        words[0], words[1] = b"fuzz", b"%d" % random.randint(1, 2_000)
        words[2:] = redis_command(random)
    return [name.lower() if random.random() < 0.2 else name, *words]


def redis_framed(command: list[bytes]) -> bytes:
    """Return a command as clients send it."""
    arguments = [b"$%d\r\n%b\r\n" % (len(word), word) for word in command]
    return b"*%d\r\n%b" % (len(command), b"".join(arguments))


def redis(random: Random) -> list[bytes]:
    """Commands that are framed as they should be."""
    commands = [redis_command(random) for _ in range(random.randint(1, 40))]
    return cut(b"".join(map(redis_framed, commands)), random)


# --- the native protocol --------------------------------------------------------------------

_HARMLESS_NAMES = ("a", "b", "n1", "n9", "op-1", "127.0.0.1:1", "", "x" * 600, "é")
_LONG_FRAME = struct.pack("<I", 2**31)


def _value(kind: Any, random: Random, depth: int = 0) -> Any:
    """Return any value of the type of a field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _value(random.choice(arguments), random, depth)
    if origin is tuple:
        count = random.randrange(3) if depth < 3 else 0
        return tuple([_value(arguments[0], random, depth + 1) for _ in range(count)])
    if origin is dict:
        return {_value(arguments[0], random, 9): _value(arguments[1], random, 9)}
    if attrs.has(kind):
        return _instance(kind, random, depth + 1)
    if kind is bool:
        return random.random() < 0.5
    if kind is int:
        return random.choice((0, 1, 2, 5, -1, 1_000, 2**63 - 1, random.getrandbits(62)))
    if kind is float:
        return random.choice((0.0, 1.5, -1.0, 1e300))
    if kind is bytes:
        return random.randbytes(_length(random, 5_000))
    if kind is str:
        return random.choice(_HARMLESS_NAMES)
    return None


def _instance(kind: type, random: Random, depth: int = 0) -> Any:
    hints = _hints(kind)
    fields = {}
    for field in attrs.fields(kind):
        if field.default is attrs.NOTHING or random.random() < 0.5:
            fields[field.name] = _value(hints[field.name], random, depth)
    return kind(**fields)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def native_request(random: Random) -> Request:
    """Any request with any fields; most of them are refused, and none can do harm here."""
    if random.random() < 0.3:
        return PutRequest(session="", serial=0, lowest_unacknowledged=0, key="a", value=b"x")
    request: Request = _instance(random.choice(typing.get_args(Request)), random)
    return request


def native(random: Random) -> list[bytes]:
    """A greeting and then requests, framed as they should be."""
    greeting = Hello(role="client", cluster_id="", source="", dest="")
    if random.random() < 0.2:
        greeting = _instance(Hello, random)
    frames = [encode_frame(encode_opening(greeting))]
    for number in range(random.randint(1, 20)):
        if random.random() < 0.9:
            frames.append(encode_frame(encode_request(number, native_request(random))))
        else:
            # What is packed well and is no request.
            packed = msgpack.packb([number, random.choice(_HARMLESS_NAMES), {"a": [1, None]}])
            frames.append(encode_frame(packed))
    if random.random() < 0.05:
        frames.append(_LONG_FRAME)
    return cut(b"".join(frames), random)


# --- HTTP -----------------------------------------------------------------------------------

_PATHS = (
    *("/", "/livez", "/readyz", "/readyz?verbose", "/metrics", "/status.json", "/events", "/../x"),
    *("/" + "a" * 20_000, "/%00", "//", "*", "http://x/", "/status.json?" + "&".join(["a=1"] * 40)),
)
_HEADERS = (
    *("Host: x", "Connection: keep-alive", "Connection: close", "Content-Length: 5", "Expect: 100"),
    *("Transfer-Encoding: chunked", "X: " + "y" * 9_000, "Accept: */*", ": x", "Host : y", "é: é"),
    *("Content-Length: 99999999999999999999", "Upgrade: websocket", "Last-Event-ID: 7", "\0: \0"),
)


def http(random: Random) -> list[bytes]:
    """Requests of a browser, more or less."""
    requests = []
    for _ in range(random.randint(1, 6)):
        method = random.choice(("GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "x" * 300))
        version = random.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2", "HTTP/9.9", ""))
        headers = random.sample(_HEADERS, k=random.randrange(5))
        if random.random() < 0.7:
            headers.insert(0, "Host: 127.0.0.1")
        lines = [f"{method} {random.choice(_PATHS)} {version}", *headers, "", ""]
        requests.append("\r\n".join(lines).encode())
    return cut(b"".join(requests), random)


STREAMS: dict[str, tuple[Stream, ...]] = {
    "redis": (redis, damaged(redis), garbage),
    "native": (native, damaged(native), garbage),
    "http": (http, damaged(http), garbage),
}
"""For each protocol."""
