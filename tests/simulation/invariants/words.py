"""How entries stand in messages, and what is compared of them."""

from __future__ import annotations

from typing import TypeAlias

from raftd.core.types import Entry, EntryKind, Term

Content: TypeAlias = tuple[Term, EntryKind, bytes]
"""All of an entry but its index. A value: what happens to the entry later does not change it."""

BYTES_SHOWN = 60
"""Of an entry's data, in a message: enough to recognise it, and no megabyte on the screen."""


def content(entry: Entry) -> Content:
    """Return what makes the entry the one that it is, beside its index."""
    return entry.term, entry.kind, entry.data


def in_words(found: Content | None) -> str:
    """Return an entry, or its absence, as a message says it."""
    if found is None:
        return "no entry"
    term, kind, body = found
    text = repr(body[:BYTES_SHOWN])
    if len(body) > BYTES_SHOWN:
        text += f"... ({len(body)} bytes)"
    return f"{kind.name} of term {term} {text}"
