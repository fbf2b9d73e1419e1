"""The help of every command: an example at least, and each of them can be typed."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator

import click
import pytest

from raftctl.cli import main
from tests.raftctl.every_command import every_command
from tests.raftctl.hint_commands import problem_of

EVERY = dict(every_command())
NARROW, USUAL = 40, 80
_EXAMPLES = re.compile(r"^Examples?:\n((?:  .*\n?)+)", re.MULTILINE)
_NESTED = re.compile(r"\"?[$<]\(([^()]*)\)\"?")
"""What a shell puts the output of in its place."""
_BETWEEN = {"&&", "||", "|", ";"}
_ELSEWHERE = {"<", ">"}
"""Before where stdin comes from and where stdout goes to."""


def example_block(command: click.Command) -> str:
    """Return the lines with the examples, as they stand in the help."""
    found = _EXAMPLES.search(inspect.cleandoc(command.help or ""))
    return found[1] if found else ""


def examples(command: click.Command) -> list[str]:
    """Return the examples; one that ends with a backslash goes on in the next line."""
    lines = example_block(command).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines]


def commands_in(line: str) -> Iterator[str]:
    """Yield the commands of raftctl in a line for a shell, those whose output it uses too."""
    for inner in _NESTED.findall(line):
        yield from commands_in(inner)
    tokens = shlex.shlex(_NESTED.sub("n9=127.0.0.1:7109", line), posix=True, punctuation_chars=True)
    tokens.whitespace_split = True
    command: list[str] = []
    is_file = False
    for token in [*tokens, ";"]:
        if token in _BETWEEN:
            if command[:1] == ["raftctl"]:
                yield shlex.join(command)
            command = []
        elif not is_file and token not in _ELSEWHERE:
            command.append(token)
        is_file = token in _ELSEWHERE


def _is_group(command: click.Command) -> bool:
    return isinstance(command, click.Group)


@pytest.mark.parametrize("words", EVERY)
def test_every_help_has_examples_of_its_own_command_that_can_be_typed(words: str) -> None:
    found = examples(EVERY[words])
    assert found, "no example"
    typed = [command for line in found for command in commands_in(line)]
    assert any(command.startswith(f"raftctl {words}".rstrip()) for command in typed)
    assert {command: problem_of(command) for command in typed if problem_of(command)} == {}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("raftctl statis", "No such command"),
        ("raftctl status --chekc", "No such option"),
        ("raftctl wait --for tea", "Invalid value"),
        ("raftctl status && raftctl remove", "Missing argument"),
        ('raftctl replace n1 "$(raftctl playground begin n4)"', "No such command"),
        ("raftctl put photo - < photo.jpg --if-new", "No such option"),
    ],
)
def test_an_example_with_a_mistake_is_found(line: str, problem: str) -> None:
    found = [problem_of(command) for command in commands_in(line)]
    assert any(problem in each for each in found), found


@pytest.mark.parametrize("columns", [NARROW, USUAL])
@pytest.mark.parametrize("words", EVERY)
def test_every_help_shows_its_examples_as_they_are_to_be_typed(
    words: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([*words.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: raftctl {words}".rstrip() in " ".join(text.split())
    lines = example_block(EVERY[words]).splitlines()
    assert {f"  {line}" for line in lines} <= set(text.splitlines())


def test_an_option_that_a_command_has_of_its_own_is_described() -> None:
    lacking = [
        f"{words} {parameter.opts[0]}"
        for words, command in EVERY.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert lacking == []


@pytest.mark.parametrize("columns", [NARROW, USUAL])
@pytest.mark.parametrize("words", [name for name, each in EVERY.items() if _is_group(each)])
def test_the_list_of_commands_cuts_no_sentence(
    words: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([*words.split(), "--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]
