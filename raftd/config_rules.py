"""The rules that single values of the cluster file have to obey.

Each takes what the YAML reader made of a value and returns what it means, or raises `ValueError`
with what is wrong, in the words of somebody who looks at the file. Nothing is coerced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from raftd.config_values import (
    check_name,
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


@attrs.frozen
class Duration:
    """A duration within limits; the value is its milliseconds."""

    minimum: str
    maximum: str

    def __call__(self, value: Any) -> float:
        if not isinstance(value, str):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            hint = f" (did you mean {value}ms?)" if number else ""
            raise ValueError(
                "expected a duration with its unit (us, ms, s, m or h), "
                f"got {describe(value)}{hint}"
            )
        milliseconds = parse_duration_ms(value)
        if milliseconds < parse_duration_ms(self.minimum):
            raise ValueError(f"{value} is too short; at least {self.minimum} is needed")
        if milliseconds > parse_duration_ms(self.maximum):
            raise ValueError(f"{value} is too long; at most {self.maximum} is allowed")
        return milliseconds


@attrs.frozen
class Percent:
    """A percentage within limits; the value is the part of one."""

    minimum: str
    maximum: str

    def __call__(self, value: Any) -> float:
        if not isinstance(value, str):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            hint = f" (did you mean {value}%?)" if number else ""
            raise ValueError(f"expected a percentage with its sign, got {describe(value)}{hint}")
        part = parse_percent(value)
        if not parse_percent(self.minimum) <= part <= parse_percent(self.maximum):
            raise ValueError(f"{value} is not within {self.minimum} and {self.maximum}")
        return part


@attrs.frozen
class Size:
    """A size within limits; the value is its bytes. Of a rate, those of one second."""

    minimum: str
    maximum: str

    def __call__(self, value: Any) -> int:
        if not isinstance(value, str):
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
            hint = f" (did you mean {value}{size_unit_meant(value)}?)" if number else ""
            raise ValueError(
                f"expected a size with its unit (B, KiB, MiB or GiB), got {describe(value)}{hint}"
            )
        size_bytes = parse_size_bytes(value)
        if size_bytes < parse_size_bytes(self.minimum):
            raise ValueError(f"{value} is too little; at least {self.minimum} is needed")
        if size_bytes > parse_size_bytes(self.maximum):
            raise ValueError(f"{value} is too much; at most {self.maximum} is allowed")
        return size_bytes


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """Return a hint at the one of `words` that is like `word`, or nothing."""
    import difflib

    folded = word.lower().replace("-", "_")
    close = difflib.get_close_matches(folded, words, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
