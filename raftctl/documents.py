"""The schemas of what raftctl prints for programs, one JSON Schema for each kind of document.

They are files in `raftctl/schemas`. Each one says in `x-commands` which commands print such a
document: as the result, or, where it has a `type`, as a line before that. Fields may be added
within a release line, so a schema forbids none.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

URN = "urn:raftctl:schema:"
"""Before the name of each schema: what others refer to it by."""
COMMANDS = "x-commands"
EVERY_COMMAND = "raftctl"
"""Stands for all commands."""


def schema_names() -> list[str]:
    """Return the names of all schemas, in order."""
    found = files("raftctl").joinpath("schemas").iterdir()
    return sorted(file.name.removesuffix(".json") for file in found if file.name.endswith(".json"))


def schema(name: str) -> dict[str, Any]:
    """Return a schema as it stands in its file; it may refer to others.

    Args:
        name: one of `schema_names()`.
    """
    text = files("raftctl").joinpath("schemas", f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def bundled(name: str) -> dict[str, Any]:
    """Return a schema with all that it refers to, so that it can be used by itself.

    Source: JSON Schema Core, draft 2020-12, section 9.3 (bundling).
    """
    whole = schema(name)
    parts: dict[str, Any] = {}
    waiting = _references(whole)
    while waiting:
        part = waiting.pop()
        if part not in parts and part != name:
            parts[part] = schema(part)
            del parts[part]["$schema"]
            waiting |= _references(parts[part])
    if parts:
        whole["$defs"] = {part: parts[part] for part in sorted(parts)}
    return whole


def _references(node: Any) -> set[str]:
    """Return the names of the schemas that a part of one refers to."""
    if isinstance(node, list):
        return set().union(*map(_references, node))
    if not isinstance(node, dict):
        return set()
    found = set().union(*map(_references, node.values()))
    reference = node.get("$ref")
    if isinstance(reference, str):
        found.add(reference.removeprefix(URN))
    return found


def commands_of(found: dict[str, Any]) -> list[str]:
    """Return the commands that print such a document; none if it is only a part of others."""
    return list(found.get(COMMANDS, []))
