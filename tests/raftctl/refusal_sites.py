"""Every place in the sources where something is refused, and what it may say there.

A refusal is raised or answered where one of a few classes is called. Its texts are put together
there, so they can be read off the source: literals as they are, the branches of a condition one by
one, what a variable of the same function or a constant was set to, and what a function returns that
makes a sentence. Whatever is only known when it runs becomes a placeholder.

So a new refusal is found as soon as it is written, and nobody has to list it anywhere.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

import attrs

ROOT = Path(__file__).parents[2]
TEXTS_MAX = 64
"""Combinations of the branches of one text; more would say nothing new."""
DEPTH_MAX = 6
"""How many functions and variables deep a text is followed."""
PLACEHOLDER = "7"
"""Stands for what is only known when it runs; a number is a word, too."""
ADDRESS = "127.0.0.1:7104"
"""Stands for an address."""

SIGNATURES: dict[str, tuple[str, ...]] = {
    "CliError": ("message",),
    "Refused": ("message",),
    "UsageProblem": ("message",),
    "Unreachable": ("message",),
    "StillRunning": ("message",),
    "OutcomeUnknown": ("message",),
    "Unsafe": ("message",),
    "ErrorReply": (),
    "require_answerable": ("hint",),
}
"""The classes of refusals, and which of their texts have no keyword. And the method that refuses
for whoever calls it."""
LEADERS_REFUSED = ("code", "message", "cause", "hint", "operation")
"""The texts of `raftd.planning.Refused`, in order."""
TEXTS = ("message", "cause", "hint")


@attrs.frozen(kw_only=True)
class Site:
    """A call that makes a refusal."""

    module: str
    """The file, from the root of the sources."""
    function: str
    """The function around it, with its class."""
    kind: str
    line: int
    codes: tuple[str, ...]
    """The values that its code may have; empty where the class has one of its own."""
    texts: dict[str, tuple[str, ...]]
    """What message, cause and hint may be. Without a literal there is no key."""
    passed_on: frozenset[str]
    """Texts that are the callers': whoever calls the function around it says them."""
    required: frozenset[str] = frozenset(TEXTS)
    """Texts that have to be said here; for a caller those that are passed on."""

    @property
    def name(self) -> str:
        """What a test of it is called."""
        return f"{self.module}:{self.function}:{self.line}"


def sites() -> list[Site]:
    """Return every refusal of the sources, file by file."""
    found = []
    for package in ("raftd", "raftctl"):
        for file in sorted((ROOT / package).rglob("*.py")):
            found += sites_of(file)
    return found


def sites_of(file: Path, root: Path = ROOT) -> list[Site]:
    """Return every refusal of one file below `root`."""
    return _Module(file, root).sites()


# --- one file -----------------------------------------------------------------------------------


class _Module:
    """A source file, and the functions in it that make refusals of what they are given."""

    def __init__(self, file: Path, root: Path) -> None:
        self.name = str(file.relative_to(root))
        self.tree = _parsed(file)
        self.constants = dict(_constants(self.tree))
        self.functions = {
            node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)
        }

    def function(self, name: str) -> tuple[_Module, ast.FunctionDef] | None:
        """Return the function of that name, of this file or imported from another one of ours."""
        if name in self.functions:
            return self, self.functions[name]
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and name in {one.name for one in node.names}:
                file = ROOT.joinpath(*(node.module or "").split(".")).with_suffix(".py")
                if file.exists():
                    other = _Module(file, ROOT)
                    if name in other.functions:
                        return other, other.functions[name]
        return None

    def sites(self) -> list[Site]:
        """Return the refusals of the file."""
        found = [
            self._site(call, scope)
            for call, scope in _calls(self.tree, ())
            if _kind(call) in SIGNATURES and (call.args or call.keywords)
        ]
        # A function that passes its parameters on is a kind of refusal itself.
        for site in list(found):
            if site.passed_on:
                found += self._callers(site)
        return found

    def _callers(self, site: Site) -> Iterator[Site]:
        name = site.function.rpartition(".")[2]
        makes = self.functions[name]
        parameters = _parameters(makes)
        for call, scope in _calls(self.tree, ()):
            if _kind(call) == name:
                given = _given(makes, call)
                defaults = makes.args.defaults
                given = {
                    **dict(zip(parameters[-len(defaults) :], defaults, strict=False)),
                    **{one.arg: value for one, value in _keyword_defaults(makes)},
                    **given,
                }
                yield self._site(call, scope, texts={text: given[text] for text in site.passed_on})

    def _site(
        self,
        call: ast.Call,
        scope: tuple[ast.AST, ...],
        *,
        texts: dict[str, ast.expr] | None = None,
    ) -> Site:
        """Return the refusal that `call` makes; `texts` are those that it passes on to one."""
        function = next(
            (node for node in reversed(scope) if isinstance(node, ast.FunctionDef)), None
        )
        parameters = (
            {one.arg for one in (*function.args.args, *function.args.kwonlyargs)}
            if function
            else set()
        )
        given = _arguments(call) if texts is None else texts
        reader = _Reader(self, function)
        passed_on = frozenset(
            text
            for text in TEXTS
            if isinstance(given.get(text), ast.Name)
            and given[text].id in parameters  # type: ignore[attr-defined]
            and not reader.assigned(given[text].id)  # type: ignore[attr-defined]
        )
        code = given.get("code")
        return Site(
            module=self.name,
            function=".".join(
                node.name for node in scope if isinstance(node, ast.FunctionDef | ast.ClassDef)
            ),
            kind=_kind(call),
            line=call.lineno,
            codes=tuple(reader.read(code)) if code is not None else (),
            texts={
                text: tuple(reader.read(given[text]))
                for text in TEXTS
                if text in given and text not in passed_on
            },
            passed_on=passed_on,
            required=frozenset(
                given.keys() if _kind(call) == "require_answerable" or texts is not None else TEXTS
            ),
        )


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a file sets when it is loaded, with what they are set to."""
    for node in tree.body:
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for name, value in zip(target.elts, node.value.elts, strict=True):
                    if isinstance(name, ast.Name):
                        yield name.id, value


_Scope: TypeAlias = tuple[ast.AST, ...]


def _calls(node: ast.AST, scope: _Scope) -> Iterator[tuple[ast.Call, _Scope]]:
    """Yield every call below `node` with the functions and classes around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child, scope
        inner = (*scope, child) if isinstance(child, ast.FunctionDef | ast.ClassDef) else scope
        yield from _calls(child, inner)


def _kind(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _arguments(call: ast.Call) -> dict[str, ast.expr]:
    kind = _kind(call)
    names = SIGNATURES[kind]
    if kind == "Refused" and len(call.args) > 1:
        names = LEADERS_REFUSED
    given = dict(zip(names, call.args, strict=False))
    return given | {one.arg: one.value for one in call.keywords if one.arg}


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [one.arg for one in function.args.args if one.arg != "self"]


def _given(function: ast.FunctionDef, call: ast.Call) -> dict[str, ast.expr]:
    """Return what `call` gives for which parameter of `function`."""
    given = dict(zip(_parameters(function), call.args, strict=False))
    return given | {one.arg: one.value for one in call.keywords if one.arg}


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef)


def _keyword_defaults(function: ast.FunctionDef) -> Iterator[tuple[ast.arg, ast.expr]]:
    for one, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if default is not None:
            yield one, default


# --- one text -----------------------------------------------------------------------------------


class _Reader:
    """Reads what an expression may be as a text."""

    def __init__(
        self,
        module: _Module,
        function: ast.FunctionDef | None,
        given: dict[str, list[str]] | None = None,
    ) -> None:
        self._module = module
        self._function = function
        self._given = given or {}
        """What the parameters of the function are, where it is known."""
        self._defaults: dict[str, ast.expr] = {}
        self._parameters: list[str] = []
        if function is not None:
            self._parameters = _parameters(function)
            named = {one.arg: value for one, value in _keyword_defaults(function)}
            given = function.args.args[len(function.args.args) - len(function.args.defaults) :]
            in_order = zip(given, function.args.defaults, strict=True)
            self._defaults = named | {one.arg: value for one, value in in_order}

    def read(self, node: ast.expr | None, depth: int = 0) -> list[str]:
        """Return the texts that `node` may be, each once."""
        if node is None or depth > DEPTH_MAX:
            return [PLACEHOLDER]
        return list(dict.fromkeys(itertools.islice(self._read(node, depth), TEXTS_MAX)))

    def assigned(self, name: str) -> list[ast.expr]:
        """Return what the variable `name` of the function is set to."""
        if self._function is None:
            return []
        return [
            node.value
            for node in ast.walk(self._function)
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
        ]

    def _read(self, node: ast.expr, depth: int) -> Iterator[str]:
        match node:
            case ast.Constant(value=str() as text):
                yield text
            case ast.JoinedStr(values=values):
                yield from self._joined(values, "", depth)
            case ast.FormattedValue(value=value):
                yield from self.read(value, depth + 1)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                yield from self._joined([left, right], "", depth)
            case ast.IfExp(body=body, orelse=orelse):
                yield from self._read(body, depth)
                yield from self._read(orelse, depth)
            case ast.BoolOp(values=[*first, last]):
                # What is empty leaves it to the next one.
                for value in first:
                    yield from filter(None, self._read(value, depth))
                yield from self._read(last, depth)
            case ast.Name(id=name) if name in self._given:
                yield from self._given[name]
            case ast.Name(id=name) if self.assigned(name):
                for value in self.assigned(name):
                    yield from self.read(value, depth + 1)
            case ast.Name(id=name) if name in self._defaults:
                yield from self.read(self._defaults[name], depth + 1)
            case ast.Name(id=name) if name in self._parameters:
                yield from self._from_callers(name, depth) or [PLACEHOLDER]
            case ast.Name(id=name) if name in self._module.constants:
                yield from self.read(self._module.constants[name], depth + 1)
            case ast.Call():
                yield from self._called(node, depth)
            case ast.Attribute(attr="command_path" | "prefix"):
                # What the command line began with.
                yield "raftctl"
            case _:
                yield ADDRESS if "address" in ast.unparse(node) else PLACEHOLDER

    def _from_callers(self, name: str, depth: int) -> list[str]:
        """Return what the file itself gives for the parameter `name`."""
        assert self._function is not None
        found = []
        for call, scope in _calls(self._module.tree, ()):
            if _kind(call) == self._function.name:
                given = _given(self._function, call)
                caller = next((one for one in reversed(scope) if _is_function(one)), None)
                if name in given and caller is not self._function:
                    reader = _Reader(self._module, caller)  # type: ignore[arg-type]
                    found += reader.read(given[name], depth + 2)
        return found

    def _joined(self, parts: Sequence[ast.expr], between: str, depth: int) -> Iterator[str]:
        for choice in itertools.product(*(self.read(part, depth) for part in parts)):
            yield between.join(choice)

    def _called(self, call: ast.Call, depth: int) -> Iterator[str]:
        name = _kind(call)
        if name == "command" and isinstance(call.func, ast.Attribute) and call.args:
            words = [argument for argument in call.args if not isinstance(argument, ast.Starred)]
            for text in self._joined(words, " ", depth):
                yield f"raftctl {text}"
        elif name == "again":
            # The command line that was typed, so it is one.
            yield "raftctl status"
        elif name == "join" and isinstance(call.func, ast.Attribute):
            yield from self._of_join(call, depth)
        elif (found := self._module.function(name)) is not None:
            module, function = found
            given = _given(function, call)
            texts = {text: self.read(value, depth + 1) for text, value in given.items()}
            inside = _Reader(module, function, texts)
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None:
                    # With nothing to say the function says that there is no refusal.
                    yield from filter(None, inside.read(node.value, depth + 1))
        elif name in ("printable", "quote", "quoted", "str") and call.args:
            yield from self.read(call.args[0], depth + 1)
        else:
            yield ADDRESS if "address" in ast.unparse(call) else PLACEHOLDER

    def _of_join(self, call: ast.Call, depth: int) -> Iterator[str]:
        assert isinstance(call.func, ast.Attribute)
        is_command_line = ast.unparse(call.func.value) == "shlex"
        between = " " if is_command_line else self.read(call.func.value, depth)[0]
        parts = call.args[0]
        if isinstance(parts, ast.Call) and _kind(parts) == "filter":
            parts = parts.args[1]
        if isinstance(parts, ast.Name):
            # A list that is filled step by step: each of its lines by itself.
            lines: list[str] = []
            for value in self.assigned(parts.id):
                lines += self._lines(value, depth)
            lines += self._appended(parts.id, depth)
            yield from lines or [PLACEHOLDER]
        elif isinstance(parts, ast.List | ast.Tuple):
            yield from self._joined(parts.elts, between, depth)
        else:
            yield PLACEHOLDER

    def _lines(self, node: ast.expr, depth: int) -> Iterator[str]:
        if isinstance(node, ast.List | ast.Tuple):
            for element in node.elts:
                yield from self.read(element, depth + 1)

    def _appended(self, name: str, depth: int) -> Iterator[str]:
        for node in ast.walk(self._function or self._module.tree):
            if isinstance(node, ast.AugAssign) and ast.unparse(node.target) == name:
                yield from self._lines(node.value, depth)
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "append"
                and ast.unparse(node.func.value) == name
            ):
                yield from self.read(node.args[0], depth + 1)
