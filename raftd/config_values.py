"""The small values that people type: names, addresses, durations, sizes, percentages.

The cluster file and the command line share these rules. Nothing here imports more than the
standard library, so that a short-lived command can use it without paying for a YAML reader.
"""

from __future__ import annotations

import ipaddress
import math
import re
from decimal import Decimal

NAME_CHARACTERS_MAX = 63
"""A server name fits a DNS label, so that it can be a host name too."""
HOST_CHARACTERS_MAX = 253
"""The longest host name that DNS can carry."""

_NAME = re.compile(rf"[a-z][a-z0-9-]{{0,{NAME_CHARACTERS_MAX - 1}}}")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(us|ms|s|m|h)")
_ALMOST_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)[ \t]*([A-Za-zµ]*)")
_MICROSECONDS = {"us": 1, "ms": 1000, "s": 1000_000, "m": 60_000_000, "h": 3600_000_000}
_UNIT_MEANT = {
    "µs": "us",
    "usec": "us",
    "msec": "ms",
    "sec": "s",
    "secs": "s",
    "second": "s",
    "seconds": "s",
    "min": "m",
    "mins": "m",
    "minute": "m",
    "minutes": "m",
    "hour": "h",
    "hours": "h",
}

LOG_LEVELS = ("debug", "info", "warning", "error")
"""From the one at which most is logged."""

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%")

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)(B|KiB|MiB|GiB)")
_ALMOST_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)[ \t]*([A-Za-z]*)")
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SIZE_UNIT_MEANT = {
    "": "",
    "b": "B",
    "byte": "B",
    "bytes": "B",
    **{f"{letter.lower()}{rest}": f"{letter}iB" for letter in "KMG" for rest in ("", "b", "ib")},
}


def check_name(text: str) -> str:
    """Return `text` if it may name a server or a cluster.

    Raises:
        ValueError: it may not; the message says the rule.
    """
    if _NAME.fullmatch(text):
        return text
    meant = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")
    hint = f" (did you mean {meant}?)" if _NAME.fullmatch(meant) else ""
    raise ValueError(
        f"{quoted(text)} is not a name: 1 to {NAME_CHARACTERS_MAX} of a-z, 0-9 and '-', "
        f"starting with a letter{hint}"
    )


def quoted(text: str) -> str:
    """Return `text` in quotes and on one line, cut where it is long."""
    shown = ascii(text) if not text.isprintable() else f"'{text}'"
    return shown if len(shown) <= 80 else f"{shown[:76]}...'"


# --- addresses ------------------------------------------------------------------------------


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`.

    The host is an IPv4 address, an IPv6 address in brackets (returned without them) or a host
    name; the port is 1 to 65535. Nothing is looked up.

    Raises:
        ValueError: not of this form; the message says what is wrong.
    """
    if len(text) > HOST_CHARACTERS_MAX + len("[]:65535"):
        raise ValueError(f"{quoted(text)} is too long for HOST:PORT")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise ValueError(f"{quoted(text)} lacks the closing ']' of its IPv6 address")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{quoted(host)} is not an IPv6 address") from None
        if not rest.startswith(":"):
            raise ValueError(_without_port(text))
        return host, _parse_port(text, rest[1:])
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(_without_port(text))
    if ":" in host:
        raise ValueError(_colons_outside_brackets(text, host, port))
    _check_host(text, host)
    return host, _parse_port(text, port)


def _without_port(text: str) -> str:
    return f"{quoted(text)} lacks a port: write HOST:PORT, such as 127.0.0.1:7101"


def _colons_outside_brackets(text: str, host: str, port: str) -> str:
    message = f"{quoted(text)} is not HOST:PORT; an IPv6 address stands in brackets"
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return message
    return f"{message} (did you mean [{host}]:{port}?)"


def _parse_port(text: str, port: str) -> int:
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"the port of {quoted(text)} is not a number from 1 to 65535")
    return int(port)


def _check_host(text: str, host: str) -> None:
    if not host:
        raise ValueError(f"{quoted(text)} lacks a host: write HOST:PORT, such as 127.0.0.1:7101")
    labels = host.removesuffix(".").split(".")
    if labels[-1].isascii() and labels[-1].isdigit():
        # A name cannot end in a number, so this was meant as IPv4.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{quoted(host)} is not an IPv4 address") from None
        return
    if len(host) > HOST_CHARACTERS_MAX or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{quoted(host)} is not a host name")


def normalise_host(host: str) -> str:
    """Return one spelling for hosts that are certainly the same; names stay names.

    `localhost` counts as 127.0.0.1.
    """
    name = host.removesuffix(".").lower()
    if name == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def is_loopback(host: str) -> bool:
    """Return whether `host` can only be this machine: 127.0.0.0/8, ::1 or localhost."""
    try:
        return ipaddress.ip_address(normalise_host(host)).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Return whether `host` means every interface, 0.0.0.0 or ::, which nobody can dial."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def parse_dialled_address(text: str) -> tuple[str, int]:
    """Return host and port of an address that others are to dial.

    Raises:
        ValueError: not HOST:PORT, or an address that only a listener can have.
    """
    host, port = parse_address(text)
    if is_wildcard(host):
        raise ValueError(f"{quoted(text)} can be listened on, but nobody can dial it")
    return host, port


def parse_member_argument(text: str) -> tuple[str, str]:
    """Return name and address of `ID=HOST:PORT`, as typed to add a server.

    Raises:
        ValueError: not of this form; the message says which part is wrong.
    """
    name, equals, address = text.partition("=")
    if not equals:
        raise ValueError(f"{quoted(text)} lacks an address: write ID=HOST:PORT")
    check_name(name)
    parse_dialled_address(address)
    return name, address


# --- durations ------------------------------------------------------------------------------


def parse_duration_ms(text: str, *, least_ms: float = 0.0, most_ms: float = math.inf) -> float:
    """Return the milliseconds of a duration such as 100us, 50ms, 1.5s, 2m or 1h.

    Args:
        text: what somebody has written.
        least_ms: what makes sense there, with `most_ms`: the unit of a number without one is
            guessed by it. A duration outside is returned all the same.

    Raises:
        ValueError: not a number directly followed by one of these units.
    """
    match = _DURATION.fullmatch(text)
    if match:
        number, unit = match.groups()
        # Decimal, because 1.1 s is 1100 ms and not a little more.
        return float(Decimal(number) * _MICROSECONDS[unit] / 1000)
    hint = ""
    almost = _ALMOST_DURATION.fullmatch(text)
    if almost:
        number, unit = almost.groups()
        meant = _UNIT_MEANT.get(unit.lower(), unit.lower())
        if not unit:
            meant = duration_unit_meant(Decimal(number), least_ms, most_ms)
        if meant in _MICROSECONDS:
            hint = f" (did you mean {number}{meant}?)"
    raise ValueError(
        f"{quoted(text)} is not a duration: a number and its unit us, ms, s, m or h, "
        f"such as 500ms{hint}"
    )


def duration_unit_meant(number: Decimal | float, least_ms: float, most_ms: float) -> str:
    """Return the unit that somebody most likely had in mind who wrote a number without one.

    It is the shortest from ms on that makes something of it that is allowed; empty if none does.
    """
    for unit in ("ms", "s", "m", "h"):
        if least_ms <= float(number) * _MICROSECONDS[unit] / 1000 <= most_ms:
            return unit
    return ""


def format_duration(ms: float) -> str:
    """Return `ms` milliseconds in the largest unit that shows it shortly, such as 1.5s.

    `parse_duration_ms` reads it back. Below 0.1 us it is rounded.
    """
    microseconds = Decimal(str(round(ms * 1000, 1))).normalize()
    for unit, decimals in (("h", 0), ("m", 0), ("s", 1), ("ms", 1)):
        amount = microseconds / _MICROSECONDS[unit]
        if amount >= 1 and amount == round(amount, decimals):
            return f"{amount.normalize():f}{unit}"
    return f"{microseconds:f}us" if microseconds else "0ms"


# --- sizes ----------------------------------------------------------------------------------


def parse_size_bytes(text: str, *, most_bytes: float = math.inf) -> int:
    """Return the bytes of a size such as 512B, 64KiB, 1.5MiB or 2GiB; 1 KiB is 1024 bytes.

    Args:
        text: what somebody has written.
        most_bytes: what makes sense there: the unit of a number without one is guessed by it. A
            larger size is returned all the same.

    Raises:
        ValueError: not a number directly followed by one of these units, or no whole number of
            bytes.
    """
    match = _SIZE.fullmatch(text)
    if match:
        number, unit = match.groups()
        size = Decimal(number) * _BYTES[unit]
        if size == int(size):
            return int(size)
        raise ValueError(f"{quoted(text)} is not a whole number of bytes")
    hint = ""
    almost = _ALMOST_SIZE.fullmatch(text)
    if almost:
        number, unit = almost.groups()
        meant = _SIZE_UNIT_MEANT.get(unit.lower())
        if meant is not None:
            unit = meant or size_unit_meant(Decimal(number), most_bytes)
            hint = f" (did you mean {number}{unit}?)"
    raise ValueError(
        f"{quoted(text)} is not a size: a number and its unit B, KiB, MiB or GiB, "
        f"such as 64MiB{hint}"
    )


def size_unit_meant(number: Decimal | float, most_bytes: float = math.inf) -> str:
    """Return the unit that somebody most likely had in mind who wrote a number without one.

    Args:
        number: what was written.
        most_bytes: what is allowed there.
    """
    # Whoever writes four digits and more has counted bytes; nobody means 65536 MiB.
    is_bytes = number == 0 or number >= 1024 or float(number) * _BYTES["MiB"] > most_bytes
    return "B" if is_bytes else "MiB"


def format_size(size_bytes: int) -> str:
    """Return `size_bytes` in the largest unit that shows it shortly and exactly, such as 1.5MiB.

    `parse_size_bytes` reads it back.
    """
    for unit in ("GiB", "MiB", "KiB"):
        amount = Decimal(size_bytes) / _BYTES[unit]
        if amount >= 1 and amount == round(amount, 1):
            return f"{amount.normalize():f}{unit}"
    return f"{size_bytes}B"


# --- percentages ----------------------------------------------------------------------------


def parse_percent(text: str) -> float:
    """Return what part of one a percentage such as 5% or 0.5% is.

    Raises:
        ValueError: not a number directly followed by the sign.
    """
    match = _PERCENT.fullmatch(text)
    if match:
        return float(Decimal(match[1]) / 100)
    raise ValueError(f"{quoted(text)} is not a percentage: a number and its sign, such as 5%")


def format_percent(part: float) -> str:
    """Return a part of one as a percentage. `parse_percent` reads it back."""
    return f"{Decimal(str(round(part * 100, 3))).normalize():f}%"
