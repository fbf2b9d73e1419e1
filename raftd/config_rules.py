"""The rules that single values of the cluster file have to obey.

Each takes what the YAML reader made of a value and returns what it means, or raises `ValueError`
with what is wrong, in the words of somebody who looks at the file. Nothing is coerced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import attrs

from raftd.config_values import (
    check_name,
    duration_unit_meant,
    format_percent,
    parse_address,
    parse_dialled_address,
    parse_duration_ms,
    parse_percent,
    parse_size_bytes,
    quoted,
    size_unit_meant,
)


def describe(value: Any) -> str:
    """Return what stands in the file, in the words of somebody who looks at it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "a mapping"


def as_text(value: Any, wanted: str) -> str:
    """Return a value that has to be text; `wanted` says what it should have been."""
    if isinstance(value, str):
        return value
    raise ValueError(f"expected {wanted}, got {describe(value)}")


def true_or_false(value: Any, _: object = None) -> bool:
    """Return true or false."""
    if isinstance(value, bool):
        return value
    words = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
    meant = words.get(str(value).lower()) or (
        str(value).lower() if str(value).lower() in ("true", "false") else ""
    )
    hint = f" (did you mean {meant}, without quotes?)" if meant else ""
    raise ValueError(f"expected true or false, got {describe(value)}{hint}")


def name(value: Any) -> str:
    """Return the name of a server or a cluster."""
    return check_name(as_text(value, "a name"))


def address(value: Any) -> str:
    """Return HOST:PORT that can be dialled."""
    text = as_text(value, "HOST:PORT")
    parse_dialled_address(text)
    return text


def listen(value: Any) -> str:
    """Return HOST:PORT that can be bound."""
    text = as_text(value, "HOST:PORT")
    parse_address(text)
    return text


def data_dir(value: Any) -> str:
    """Return a folder, perhaps with {id} in it."""
    return _path(value, "a folder")


def file_path(value: Any) -> str:
    """Return a file, perhaps with {id} in it."""
    return _path(value, "a file")


def _path(value: Any, kind: str) -> str:
    text = as_text(value, kind)
    if not text or "\0" in text:
        raise ValueError(f"{quoted(text)} is not the name of {kind}")
    if text.startswith("~"):
        raise ValueError(f"{quoted(text)}: '~' is not expanded here; write the whole path")
    if "{" in text.replace("{id}", "") or "}" in text.replace("{id}", ""):
        raise ValueError(f"{quoted(text)}: only {{id}} can stand in braces")
    return text


def zone(value: Any) -> str:
    """Return the name of a zone."""
    if isinstance(value, (int, float)):
        shown = describe(value)
        meant = shown.removeprefix("the number ")
        raise ValueError(f'expected the name of a zone, got {shown} (did you mean "{meant}"?)')
    text = as_text(value, "the name of a zone")
    if not (1 <= len(text) <= 63 and all(c.isalnum() or c in "-_." for c in text)):
        raise ValueError(f"{quoted(text)} is not a zone: 1 to 63 letters, digits, '-', '_' and '.'")
    return text


@attrs.frozen
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def __call__(self, value: Any) -> str:
        listed = f"{', '.join(self.words[:-1])} or {self.words[-1]}"
        text = as_text(value, listed)
        if text not in self.words:
            raise ValueError(
                f"expected {listed}, got {quoted(text)}{did_you_mean(text, self.words)}"
            )
        return text


def _as_text_with_unit(value: Any, wanted: str, meant: Callable[[float], str]) -> str:
    """Return a value that has to be text: a number and its unit.

    Args:
        value: what stands in the file.
        wanted: what it should have been, for people.
        meant: makes of a number without a unit what its author has most likely meant; empty if
            that would not be allowed either.
    """
    if isinstance(value, str):
        return value
    hint = ""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < inf:
        found = meant(value)
        hint = f" (did you mean {found}?)" if found else ""
    raise ValueError(f"expected {wanted}, got {describe(value)}{hint}")


@attrs.frozen
class Duration:
    """A duration within limits; the value is its milliseconds."""

    minimum: str
    maximum: str

    def __call__(self, value: Any) -> float:
        least_ms, most_ms = parse_duration_ms(self.minimum), parse_duration_ms(self.maximum)

        def meant(number: float) -> str:
            unit = duration_unit_meant(number, least_ms, most_ms)
            return f"{number}{unit}" if unit else ""

        text = _as_text_with_unit(value, "a duration with its unit (us, ms, s, m or h)", meant)
        milliseconds = parse_duration_ms(text, least_ms=least_ms, most_ms=most_ms)
        if milliseconds < least_ms:
            raise ValueError(f"{text} is too short; at least {self.minimum} is needed")
        if milliseconds > most_ms:
            raise ValueError(f"{text} is too long; at most {self.maximum} is allowed")
        return milliseconds


@attrs.frozen
class Percent:
    """A percentage within limits; the value is the part of one."""

    minimum: str
    maximum: str

    def __call__(self, value: Any) -> float:
        least, most = parse_percent(self.minimum), parse_percent(self.maximum)

        def meant(number: float) -> str:
            # Who leaves out the sign has written how many of a hundred, or what part of one.
            parts = (part for part in (number / 100, number) if least <= part <= most)
            return next(map(format_percent, parts), "")

        text = _as_text_with_unit(value, "a percentage with its sign", meant)
        part = parse_percent(text)
        if not least <= part <= most:
            raise ValueError(f"{text} is not within {self.minimum} and {self.maximum}")
        return part


@attrs.frozen
class Size:
    """A size within limits; the value is its bytes. Of a rate, those of one second."""

    minimum: str
    maximum: str

    def __call__(self, value: Any) -> int:
        least_bytes, most_bytes = parse_size_bytes(self.minimum), parse_size_bytes(self.maximum)
        text = _as_text_with_unit(
            value,
            "a size with its unit (B, KiB, MiB or GiB)",
            lambda number: f"{number}{size_unit_meant(number, most_bytes)}",
        )
        size_bytes = parse_size_bytes(text, most_bytes=most_bytes)
        if size_bytes < least_bytes:
            raise ValueError(f"{text} is too little; at least {self.minimum} is needed")
        if size_bytes > most_bytes:
            raise ValueError(f"{text} is too much; at most {self.maximum} is allowed")
        return size_bytes


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """Return a hint at the one of `words` that is like `word`, or nothing."""
    import difflib

    folded = word.lower().replace("-", "_")
    close = difflib.get_close_matches(folded, words, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
