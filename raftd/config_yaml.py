"""YAML to plain values, remembering where each of them stands.

The dialect is the part of YAML that means the same to people and to every version of it: mappings,
lists, text, `true` and `false`, decimal numbers, `null`, anchors and aliases. What YAML 1.1 reads
behind one's back (`12:30` as 750, `no` as false, `0777` as 511, dates, merge keys) stays text, and
tags are refused. A wrong piece never hides the others: it is reported, replaced by `INVALID`, and
reading goes on.
"""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import yaml

from raftd.config_values import quoted

FILE_BYTES_MAX = 1024 * 1024
"""Far more than a thousand servers need; a longer file is some other file."""
NODES_MAX = 100_000
"""Values after aliases are followed: a few lines of nested aliases could stand for billions."""
DEPTH_MAX = 16
"""Nested mappings and lists. A cluster file has three; the parser calls itself for each."""

KeyPath: TypeAlias = tuple[str, ...]
"""The keys that lead to a value, from the top of the file."""


class _Invalid(Enum):
    INVALID = "invalid"


INVALID: Final = _Invalid.INVALID
"""Stands for a value that has been reported already."""


class ConfigError(Exception):
    """A cluster file that cannot be used.

    Every problem is `FILE:LINE:COL: PATH: what is wrong`, or `FILE: what is wrong` if the file
    could not be read; `str()` has them all, one a line, in the order of the file.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@attrs.frozen(order=True)
class Position:
    """A place in the file; both count from 1."""

    line: int
    column: int


START = Position(1, 1)


@attrs.frozen
class Problem:
    """Something wrong at one place of the file."""

    position: Position
    path: KeyPath
    message: str

    def describe(self, file: Path) -> str:
        """Return the problem as people see it."""
        place = f"{file}:{self.position.line}:{self.position.column}"
        return f"{place}: {format_path(self.path)}: {self.message}"


def format_path(path: KeyPath) -> str:
    """Return `path` with dots between its keys; the file as a whole is `$`."""
    keys = [key if re.fullmatch(r"[\w-]{1,80}", key) else quoted(key) for key in path]
    return ".".join(keys) or "$"


def config_error(file: Path, problems: list[Problem]) -> ConfigError:
    """Return the error for `problems`, each once, in the order of the file."""
    ordered = sorted(set(problems), key=lambda problem: (problem.position, problem.path))
    return ConfigError(tuple(problem.describe(file) for problem in ordered))


@attrs.define
class Document:
    """What a file contains, and where."""

    value: Any
    """Plain values: dict, list, str, int, float, bool, None, and `INVALID`."""
    positions: dict[KeyPath, Position] = attrs.field(factory=dict)
    """Where each value begins."""
    key_positions: dict[KeyPath, Position] = attrs.field(factory=dict)
    """Where the key of each value begins."""
    problems: list[Problem] = attrs.field(factory=list)

    def position(self, path: KeyPath) -> Position:
        """Return where the value at `path` begins, or else the nearest one around it."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, START)

    def key_position(self, path: KeyPath) -> Position:
        """Return where the last key of `path` stands, or else the nearest thing around it."""
        return self.key_positions.get(path) or self.position(path)


def read_document(file: Path) -> Document:
    """Read `file`, which is one YAML document of UTF-8.

    Raises:
        ConfigError: unreadable, too long, not UTF-8, empty, or not YAML. Duplicate keys and the
            like are in the document's `problems` instead.
    """
    text = _read_text(file)
    document = Document(None)
    try:
        # Not yaml.load: the nodes carry the positions, plain values do not.
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None or (isinstance(node, yaml.ScalarNode) and node.value == ""):
                problem = Problem(START, (), "the file is empty; it has to say cluster and servers")
                raise config_error(file, [problem])
            document.value = _Walk(document, loader.explicit_tags).value(node, ())
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise config_error(file, [_syntax_problem(error, text)]) from None
    return document


def _read_text(file: Path) -> str:
    try:
        with open(file, "rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError((f"{file}: cannot be read: {reason}",)) from None
    if len(content) > FILE_BYTES_MAX:
        message = f"{file}: more than {FILE_BYTES_MAX} bytes; this is no cluster file"
        raise ConfigError((message,))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        problem = Problem(_position_after(before), (), "not UTF-8 text")
        raise config_error(file, [problem]) from None


def _position_after(text: str) -> Position:
    last_line = text.rpartition("\n")[2]
    return Position(text.count("\n") + 1, len(last_line) + 1)


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        position = Position(mark.line + 1, mark.column + 1) if mark else START
        message = error.problem or ""
        if error.context:
            message += f" ({error.context})"
        if "got '{'" in message:
            message += " (did you mean quotes around a text with {id}?)"
        if "\\t" in message:
            message += " (did you mean spaces? YAML does not indent with tabs)"
        return Problem(position, (), message or "not YAML")
    if isinstance(error, yaml.reader.ReaderError):
        position = _position_after(text[: error.position])
        return Problem(position, (), f"the character {error.character:#x} is not allowed in YAML")
    return Problem(START, (), f"not YAML: {error}")


def _refusal(message: str, mark: Any) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, message, mark)


class _Loader(yaml.SafeLoader):
    """Composes nodes in our dialect; constructs nothing."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the base class declares it as it is

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.explicit_tags: dict[yaml.Node, str] = {}
        self._open_anchors: set[str] = set()
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self._open_anchors:
                raise _refusal(f"the alias *{event.anchor} contains itself", event.start_mark)
            return super().compose_node(parent, index)
        if self._depth >= DEPTH_MAX:
            raise _refusal(f"nested deeper than {DEPTH_MAX} levels", event.start_mark)
        anchor = event.anchor
        self._depth += 1
        if anchor is not None:
            self._open_anchors.add(anchor)
        node = super().compose_node(parent, index)
        if anchor is not None:
            self._open_anchors.discard(anchor)
        self._depth -= 1
        if node is not None and event.tag not in (None, "!"):
            self.explicit_tags[node] = event.tag
        return node


_STR = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"

# Each pattern accepts less than YAML 1.1 does, so that whatever an ordinary YAML writer leaves
# without quotes as text is text here too.
for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?(?:0|[1-9][0-9]{0,17})", list("-+0123456789")),
    (_FLOAT, r"[-+]?[0-9]{1,18}\.[0-9]{0,18}(?:[eE][-+][0-9]{1,3})?", list("-+0123456789")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


class _Walk:
    """Turns nodes into plain values and fills in the positions of a document."""

    def __init__(self, document: Document, explicit_tags: dict[yaml.Node, str]) -> None:
        self._document = document
        self._explicit_tags = explicit_tags
        self._nodes = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """Return the plain value of `node`, which stands at `path`."""
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise _refusal(f"more than {NODES_MAX} values, aliases followed", node.start_mark)
        self._document.positions[path] = _position(node)
        if node in self._explicit_tags:
            return self._report(node, path, "a tag such as !!str is not allowed here")
        if len(path) > DEPTH_MAX:
            return self._report(node, path, f"nested deeper than {DEPTH_MAX} levels")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, str(i))) for i, item in enumerate(node.value)]
        return _scalar(node.tag, node.value)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _STR or key_node in self._explicit_tags:
                shown = (
                    quoted(key_node.value) if isinstance(key_node.value, str) else "a collection"
                )
                self._report(key_node, path, f"a key has to be text, and {shown} is not")
                continue
            key = key_node.value
            if key in lines:
                message = f"duplicate key, first used on line {lines[key]}"
                self._report(key_node, (*path, key), message)
                continue
            lines[key] = _position(key_node).line
            self._document.key_positions[*path, key] = _position(key_node)
            mapping[key] = self.value(value_node, (*path, key))
        return mapping

    def _report(self, node: yaml.Node, path: KeyPath, message: str) -> Any:
        self._document.problems.append(Problem(_position(node), path, message))
        return INVALID


def _position(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def _scalar(tag: str, text: str) -> Any:
    if tag == _NULL:
        return None
    if tag == _BOOL:
        return text.lower() == "true"
    if tag == _INT:
        return int(text)
    if tag == _FLOAT:
        return float(text)
    return text
