"""Every refusal teaches: what was refused, why, and a command that leads on, as it is printed.

The cases are not listed here: `refusal_sites` reads them off the sources, so that a new refusal is
one of them as soon as it is written. The hint of each is taken apart into its commands, and each
command is parsed as `raftctl` and `raftd` parse theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raftctl import errors
from raftctl.cli import Context
from raftctl.client import error_of
from raftctl.errors import CliError, dialling
from raftd.protocol import ErrorReply
from tests.raftctl.hint_commands import problems_of_hint
from tests.raftctl.refusal_sites import PLACEHOLDER, Site, sites, sites_of

HANDED_ON = {
    ("raftd/preflight.py", "refusal_reply"): "what `Refused` says, which is a refusal itself",
    ("raftd/planning.py", "all_of"): "what several `Refused` say, each of them a refusal itself",
    ("raftd/client/calls.py", "_Call._refused"): "raftctl says where to look, see `cli_error`",
    ("raftd/client/calls.py", "_Call.unknown"): "raftctl says where to look, see `cli_error`",
    ("raftd/client/keys.py", "_interpreted"): "for programs; raftctl has `expect`",
    ("raftctl/playground.py", "ask"): "what the playground said, from where it was refused",
}
"""Refusals whose texts are those of another one, which is checked at its own place."""
EXIT_CODES = {
    "CliError": (errors.EXIT_FAILED, errors.EXIT_UNREACHABLE, errors.EXIT_USAGE),
    "Refused": (errors.EXIT_FAILED,),
    "UsageProblem": (errors.EXIT_USAGE,),
    "Unreachable": (errors.EXIT_UNREACHABLE,),
    "StillRunning": (errors.EXIT_STILL_RUNNING,),
    "OutcomeUnknown": (errors.EXIT_UNKNOWN,),
    "Unsafe": (errors.EXIT_UNSAFE,),
}
CODES_OF_SERVERS = {
    "refused": errors.EXIT_FAILED,
    "invalid": errors.EXIT_FAILED,
    "unsafe": errors.EXIT_UNSAFE,
    "session-expired": errors.EXIT_FAILED,
    "no-snapshot": errors.EXIT_FAILED,
    "disk-full": errors.EXIT_FAILED,
    "forbidden": errors.EXIT_FAILED,
    "not-leader": errors.EXIT_UNREACHABLE,
    "unavailable": errors.EXIT_UNREACHABLE,
    "unknown-outcome": errors.EXIT_UNKNOWN,
}
"""What raftctl ends with when a server answers so."""


def problems_of(site: Site) -> Iterator[str]:
    """Yield what a refusal lacks."""
    for text in sorted(site.required - site.passed_on):
        if not site.texts.get(text):
            yield f"it has no {text}"
        elif not all(site.texts[text]):
            yield f"its {text} may be empty"
    for hint in filter(None, site.texts.get("hint", ())):
        # Beside others it is the caller's own, if there is one.
        if hint != PLACEHOLDER or len(site.texts["hint"]) == 1:
            yield from problems_of_hint(hint)


SITES = sites()


@pytest.mark.parametrize("site", SITES, ids=[site.name for site in SITES])
def test_a_refusal_says_why_and_what_would_succeed(site: Site) -> None:
    if (site.module, site.function) not in HANDED_ON:
        assert list(problems_of(site)) == []


@pytest.mark.parametrize("site", SITES, ids=[site.name for site in SITES])
def test_a_refusal_ends_with_an_exit_code_that_is_documented(site: Site) -> None:
    if site.module.startswith("raftd/"):
        for code in site.codes:
            if code != PLACEHOLDER:
                reply = ErrorReply(code=code, message="no")
                assert error_of(reply).exit_code == CODES_OF_SERVERS[code]
    elif site.kind in EXIT_CODES:
        kind = getattr(errors, site.kind)
        assert issubclass(kind, CliError)
        assert kind.exit_code in EXIT_CODES[site.kind]


# --- the reader of the sources ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("raise Refused('no', hint='raftctl status')", ["it has no cause"]),
        ("raise Refused('no', cause='so')", ["it has no hint"]),
        ("raise Refused('no', cause='so', hint='try again')", ["it names no command"]),
        ("raise Refused('no', cause='so', hint='raftctl states')", ["No such command"]),
        ("raise Refused('no', cause='so', hint='raftctl status --al')", ["No such option"]),
        ("raise Refused('no', cause='so', hint='raftctl get k, then')", ["extra argument"]),
        ("raise Refused('no', cause='so', hint='see raftctl status')", ["no command", "backticks"]),
        ("raise Refused('no', cause=why and 'so', hint=h if h else '')", ["hint may be empty"]),
        ("raise Refused('no', cause='so', hint='`raftctl status` helps')", []),
        ("raise Refused('no', cause='so', hint=context.command(f'get {key}'))", []),
        ("raise Refused('no', cause='so', hint=f'{x}\\nraftctl -e HOST:PORT status')", []),
        (
            "return ErrorReply(code='refused', message='no', cause='so', hint=way(1))",
            ["no command"],
        ),
        ("hint = 'wait'\n    raise Unsafe('no', cause='so', hint=hint)", ["no command"]),
    ],
)
def test_what_a_refusal_lacks_is_found(source: str, found: list[str], tmp_path: Path) -> None:
    file = tmp_path / "source.py"
    way = "def way(number):\n    return 'by itself' if number else 'raftctl status'\n"
    file.write_text(f"def refuse(context, key):\n    {source}\n\n\n{way}")
    (site,) = sites_of(file, tmp_path)
    problems = list(problems_of(site))
    assert len(problems) == len(found), problems
    assert all(part in problem for part, problem in zip(found, problems, strict=True)), problems


def test_the_sites_are_those_of_the_sources() -> None:
    """If the reader went blind, no refusal would be looked at."""
    assert len(SITES) > 150
    assert {site.kind for site in SITES} >= EXIT_CODES.keys() | {"ErrorReply"}
    assert {site.module for site in SITES} >= {"raftd/planning.py", "raftctl/commands/plan.py"}


# --- how commands are put into hints --------------------------------------------------------------


def test_the_commands_of_a_server_dial_as_this_one_does() -> None:
    context = Context()
    context.set_option("endpoints", ("h:1", "h:2"), from_command_line=True)
    hint = "`raftctl status`, then\nraftctl replace n3 NEW=HOST:PORT\nor start raftctl again"
    assert dialling(hint, context.command).splitlines() == [
        "`raftctl -e h:1,h:2 status`, then",
        "raftctl -e h:1,h:2 replace n3 NEW=HOST:PORT",
        "or start raftctl again",
    ]


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (["remove", "n3"], "raftctl remove n3 --yes"),
        (["put", "k", "--", "-v", "--dry-run"], "raftctl put k --yes -- -v --dry-run"),
        (["apply", "-f", "a b", "--dry-run"], "raftctl apply -f 'a b' --yes"),
    ],
)
def test_the_same_command_again_is_as_it_was_typed(words: list[str], again: str) -> None:
    assert Context(words).again("--yes", without=["--dry-run"]) == again
