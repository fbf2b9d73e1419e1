"""Whether what raftctl prints for programs is what its schemas say, and nothing beyond them.

For users the schemas are open: a later release may add fields. Here they are closed, so that a
field which no schema describes is found by whatever test makes raftctl print it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match
from referencing import Registry, Resource

from raftctl.cli import cli
from raftctl.documents import COMMANDS, URN, schema, schema_names

seen: set[str] = set()
"""The schemas that a document was held against with success, since a test has emptied it."""


def problem_of(document: Any, command: str | None = None) -> str:
    """Return what is wrong with a document that `command` printed; empty if nothing is.

    Args:
        command: with `raftctl` before it; None if it is not known.
    """
    if isinstance(document, dict) and "$schema" in document:
        Draft202012Validator.check_schema(document)
        return ""
    names = ["error"] if is_error(document) else schemas_of(command)
    if command is None and not is_error(document):
        names = schema_names()
    found: dict[str, list[ValidationError]] = {}
    for name in names:
        found[name] = list(closed(name).iter_errors(document))
        if not found[name]:
            seen.add(name)
            return ""
    nearest = min(found, key=lambda name: len(found[name]), default="")
    if not nearest:
        return f"{command} has no schema for: {json.dumps(document)[:200]}"
    error = best_match(found[nearest])
    assert error is not None
    place = "/".join(map(str, error.absolute_path)) or "the top"
    return f"{command} against {nearest}: at {place}: {error.message[:500]}"


def problems_of_output(words: Sequence[str], stdout: str, stderr: str) -> list[str]:
    """Return what is wrong with the output of a raftctl that has ended by itself.

    Args:
        words: its command line without `raftctl`, and without global options before the command.
    """
    if "json" not in words:
        return []
    command = command_of(words)
    documents = [line for line in stdout.splitlines() if line.startswith("{")]
    documents += [line for line in stderr.splitlines()[-1:] if line.startswith("{")]
    return list(filter(None, (problem_of(json.loads(line), command) for line in documents)))


def command_of(words: Sequence[str]) -> str | None:
    """Return the command in a command line that begins with it: `raftctl operation show`."""
    command: click.Command | None = cli
    found = "raftctl"
    for word in words:
        if not isinstance(command, click.Group) or word.startswith("-"):
            break
        command = command.get_command(click.Context(command), word)
        found += f" {word}"
    return None if command is cli else found


def is_error(document: Any) -> bool:
    """Return whether a document is an error."""
    return isinstance(document, dict) and document.keys() == {"error"}


def schemas_of(command: str | None) -> list[str]:
    """Return the names of the schemas that a command has, not those that every command has."""
    return [name for name in schema_names() if command in schema(name).get(COMMANDS, [])]


@cache
def closed(name: str) -> Draft202012Validator:
    """Return a validator that allows no field which the schema does not describe."""
    return Draft202012Validator({"$ref": URN + name, **_NOTHING_ELSE}, registry=_registry())


@cache
def _registry() -> Registry[Any]:
    registry: Registry[Any] = Registry()
    for name in schema_names():
        closed_schema = _closed(schema(name))
        # Who refers to a schema closes it: several together describe one object.
        closed_schema.pop("unevaluatedProperties", None)
        registry = registry.with_resource(URN + name, Resource.from_contents(closed_schema))
    return registry


_NOTHING_ELSE = {"unevaluatedProperties": False}


def _closed(node: Any, *, is_part: bool = False) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {
        key: [_closed(part, is_part=True) for part in value]
        if key == "allOf"
        else {each: _closed(item) for each, item in value.items()}
        if key == "properties"
        else _closed(value)
        for key, value in node.items()
    }
    describes = {"properties", "$ref", "allOf"} & node.keys()
    return found | _NOTHING_ELSE if describes and not is_part else found


@pytest.fixture(autouse=True)
def _documented_output(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which raftctl prints a document that no schema of the command describes."""
    problems: list[str] = []
    echo: Callable[..., None] = click.echo

    def checked(message: Any = None, *arguments: Any, **options: Any) -> None:
        echo(message, *arguments, **options)
        if isinstance(message, str) and message.startswith("{"):
            try:
                document = json.loads(message)
            except ValueError:
                return
            context = click.get_current_context(silent=True)
            command = context.command_path if context is not None else None
            if command is None or is_error(document) or schemas_of(command):
                problems.append(problem_of(document, command))

    monkeypatch.setattr(click, "echo", checked)
    yield
    if any(problems):
        pytest.fail("\n".join(filter(None, problems)), pytrace=False)
