"""Whatever a command is given, a person reads an error and never a stack trace.

The command lines are the first examples of the help of each command, so that a new command is
tested as soon as it is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click
import pytest

from raftctl import cli as frame
from raftctl import errors
from raftctl.cli import COMMANDS, TRACEBACK_VARIABLE, Context, add_global_options, cli, main
from raftd.protocol import DoneReply, ErrorReply, GetReply, Reply, StatusRequest
from tests.raftctl.documented import problem_of
from tests.raftctl.every_command import every_action
from tests.raftctl.hint_commands import problem_of as problem_of_command
from tests.raftctl.speaking_servers import speaking_servers, status_of
from tests.raftctl.test_help import commands_in, examples

pytestmark = pytest.mark.usefixtures("no_surroundings")

ROOT = Path(__file__).parents[2]
EXIT_CODES = {getattr(errors, name) for name in dir(errors) if name.startswith("EXIT_")}
TIMEOUT = "20ms"
"""Nobody in these tests has anything to wait for."""
FOREGROUND = "playground"
"""It asks no server and opens no file of the user's; what it is given is a folder."""


def _line(words: str, command: click.Command) -> list[str]:
    """Return the words of the first example of a command, without `raftctl`."""
    typed = [each for line in examples(command) for each in commands_in(line)]
    wanted = f"raftctl {words}"
    return next(shlex.split(each)[1:] for each in typed if f"{each} ".startswith(f"{wanted} "))


LINES = {words: _line(words, command) for words, command in every_action()}
ASKING = [words for words in LINES if words != FOREGROUND]


def ends_in_words(line: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command; return its exit code and its stderr, which has to be fit for a person.

    Where it fails without a word on stderr, what it says is its result on stdout.
    """
    capsys.readouterr()
    try:
        code = main([*line, "--timeout", TIMEOUT, "-y"])
    except SystemExit as ended:
        # click ends so when the reader of stdout has gone.
        code = int(str(ended.code))
    shown = capsys.readouterr()
    assert code in EXIT_CODES
    for text in (shown.out, shown.err):
        assert "Traceback" not in text
        assert not re.search(r'File ".*", line [0-9]+', text)
        assert "\x1b" not in text
    assert "bug in raftctl" not in shown.err, shown.err
    assert code == errors.EXIT_DONE or shown.err or shown.out or _takes_nothing(sys.stdout)
    return code, shown.err


def _takes_nothing(stream: IO[str]) -> bool:
    return not hasattr(stream, "getvalue")


# --- the command line -------------------------------------------------------------------------


@pytest.mark.parametrize("words", LINES)
def test_an_unknown_option_ends_with_2_and_the_way_to_the_help(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = ends_in_words([*words.split(), "--no-such-option"], capsys)
    assert code == errors.EXIT_USAGE
    assert error.splitlines()[0].startswith("error: no such option")
    assert error.splitlines()[-1] == f"  try: raftctl {words} --help"


@pytest.mark.parametrize("words", LINES)
def test_words_that_make_no_sense_end_in_words(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = ends_in_words([*words.split(), *["\x1b[2J"] * 9], capsys)
    # That one takes as many as there are, and says of each that it is nothing.
    assert code in (errors.EXIT_USAGE, errors.EXIT_FAILED) or words == "recover inspect"
    assert error.startswith("error: ") or words == "recover inspect"


# --- files ------------------------------------------------------------------------------------

FILES = {
    "a directory": lambda path: path.mkdir(),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "nothing": lambda path: None,
    "empty": lambda path: path.touch(),
    "unreadable": lambda path: path.symlink_to("/proc/self/mem"),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "going round": lambda path: path.symlink_to(path),
    "a list": lambda path: path.write_text("- 1\n- 2\n"),
    "deep": lambda path: path.write_text("[" * 400),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("words", LINES)
def test_a_cluster_file_that_is_none_ends_in_words(
    words: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if words == FOREGROUND:
        line = [FOREGROUND, "--dir", "cluster.yaml", "-c", "cluster.yaml"]
        if kind in ("a directory", "nothing"):
            # There a playground could go.
            return
    else:
        line = [*LINES[words], "-c", "cluster.yaml"]
    FILES[kind](tmp_path / "cluster.yaml")
    ends_in_words(line, capsys)


def _paths(line: list[str]) -> list[Path]:
    """Return the files and folders that a command line names."""
    command: click.Command = cli
    context = cli.make_context("raftctl", list(line))
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)
    values = list(context.params.values())
    flat = [each for value in values for each in (value if isinstance(value, tuple) else (value,))]
    return [value for value in flat if isinstance(value, Path)]


WITH_FILES = [words for words in ASKING if _paths(LINES[words])]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("words", WITH_FILES)
def test_a_file_that_is_something_else_ends_in_words(
    words: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in _paths(LINES[words]):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        FILES[kind](tmp_path / path)
    with speaking_servers("n1/a") as (server,):
        server.answer = lambda request: ErrorReply(code="refused", message="no")
        ends_in_words([*LINES[words], "-e", server.address], capsys)


def test_a_file_in_a_folder_that_takes_none_ends_in_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a") as (server,):
        server.answer = lambda request: status_of(server, role="leader")
        for line in (["backup", "/proc/x.backup"], ["backup", "/dev/null/x.backup"]):
            code, error = ends_in_words([*line, "-e", server.address], capsys)
            assert code != errors.EXIT_DONE
            assert error.startswith("error: ")


# --- servers ----------------------------------------------------------------------------------


@contextlib.contextmanager
def garbage_server(garbage: bytes) -> Iterator[str]:
    """Yield the address of a server that says `garbage` to whoever comes, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.sendall(garbage)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    "garbage",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(8) + bytes(range(256))],
    ids=["nothing", "http", "bytes"],
)
def test_a_server_that_speaks_garbage_ends_in_words(
    garbage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with garbage_server(garbage) as address:
        for words in ASKING:
            ends_in_words([*LINES[words], "-e", address], capsys)


@pytest.mark.parametrize(
    "reply",
    [
        DoneReply(),
        GetReply(found=True, value=b"anything"),
        ErrorReply(code="unheard-of", message="\x1b[2J"),
        ErrorReply(code="not-leader", message="", leader="n9/z", leader_address="nowhere"),
    ],
    ids=["done", "value", "error", "leader"],
)
def test_a_server_that_answers_something_else_ends_in_words(
    reply: Reply, capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking_servers("n1/a") as (server,):
        server.answer = lambda request: reply
        for words in ASKING:
            ends_in_words([*LINES[words], "-e", server.address], capsys)


def test_a_leader_without_a_configuration_ends_in_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with speaking_servers("n1/a") as (server,):
        server.answer = lambda request: (
            status_of(server, role="leader") if isinstance(request, StatusRequest) else DoneReply()
        )
        for words in ASKING:
            ends_in_words([*LINES[words], "-e", server.address], capsys)


# --- streams ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["full", "gone"])
@pytest.mark.parametrize("words", LINES)
def test_a_stdout_that_takes_nothing_ends_in_words(
    words: str,
    stream: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = [*LINES[words], "-e", "127.0.0.1:1"] if words != FOREGROUND else [FOREGROUND, "--help"]
    if stream == "full":
        number = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, number = os.pipe()
        os.close(reader)
    with open(number, "w", encoding="utf-8") as taken:
        monkeypatch.setattr(sys, "stdout", taken)
        try:
            ends_in_words(line, capsys)
        finally:
            frame._discard(taken)


def test_characters_that_a_terminal_lacks_are_escaped() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"}
    with speaking_servers("n1/a") as (server,):
        server.answer = lambda request: GetReply(found=True, value="5 €".encode())
        words = ["get", "k", "-o", "json", "-e", server.address]
        ended = subprocess.run(
            [sys.executable, "-m", "raftctl", *words],
            capture_output=True,
            env=environment,
            check=False,
            timeout=30,
        )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert rb"5 \u20ac" in ended.stdout


# --- bugs -------------------------------------------------------------------------------------


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command `bug` that fails as no command may."""

    @click.command("bug")
    @click.option("--file", is_flag=True)
    @click.option("--sent", is_flag=True)
    @click.pass_obj
    def command(context: Context, file: bool, sent: bool) -> None:
        if sent:
            context.cluster()
        if file:
            Path("missing/file").write_text("")
        raise KeyError("surprise")

    monkeypatch.setitem(COMMANDS, "bug", ("", ""))
    monkeypatch.setitem(cli.commands, "bug", add_global_options(command))


@pytest.mark.usefixtures("bug")
def test_a_bug_is_called_one_and_its_place_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bug"]) == errors.EXIT_FAILED
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.startswith("error: this is a bug in raftctl ")
    assert "cause: KeyError: 'surprise'\n       in test_no_stack_traces.py, line " in error
    assert "nothing was sent" in error
    assert f"with {TRACEBACK_VARIABLE}=1 in the environment" in error


@pytest.mark.usefixtures("bug")
def test_a_bug_after_something_may_have_been_sent_has_an_unknown_outcome(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bug", "--sent", "-e", "127.0.0.1:1"]) == errors.EXIT_UNKNOWN
    error = capsys.readouterr().err
    assert "may be done all the same" in error
    command = re.search(r"`(raftctl .*)`", error)
    assert command is not None
    assert problem_of_command(command[1]) == ""


@pytest.mark.usefixtures("bug")
def test_the_whole_trace_of_a_bug_is_there_for_who_asks_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    assert main(["bug"]) == errors.EXIT_FAILED
    assert "cause: Traceback (most recent call last):" in capsys.readouterr().err
    assert main(["bug", "-o", "json"]) == errors.EXIT_FAILED
    document = json.loads(capsys.readouterr().err)
    assert problem_of(document) == ""
    assert document["error"]["code"] == "bug"
    assert 'raise KeyError("surprise")' in document["error"]["cause"]


@pytest.mark.usefixtures("bug")
def test_a_file_that_cannot_be_written_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bug", "--file"]) == errors.EXIT_FAILED
    assert capsys.readouterr().err.startswith("error: missing/file: No such file or directory\n")


@pytest.mark.parametrize(
    ("words", "meant"), [("statsu", "status"), ("operation shwo op-1", "show"), ("nonsense", "")]
)
def test_a_word_that_names_no_command_is_answered_with_the_one_that_was_probably_meant(
    words: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = ends_in_words(words.split(), capsys)
    assert code == errors.EXIT_USAGE
    assert error.splitlines()[0].startswith("error: no such command '")
    assert (f"(did you mean {meant}?)" in error) if meant else ("did you mean" not in error)
