"""The frame of the command line: help, options, exit codes, the form of errors, data commands."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from raftctl.cli import COMMANDS, Context, add_global_options, cli, main, pass_context
from raftctl.endpoints import playground_file, resolve_endpoints, running_playground
from raftctl.errors import CliError, UsageProblem
from raftd import __version__
from raftd.protocol import (
    CompareAndSetRequest,
    DeleteRequest,
    DoneReply,
    GetReply,
    GetRequest,
    ListEntry,
    ListReply,
    ListRequest,
    OpenSessionRequest,
    PutRequest,
    Request,
    WriteReply,
)
from tests.raftctl.golden_files import Terminal
from tests.raftctl.speaking_servers import (
    LOSE,
    Answer,
    SpeakingServer,
    closed_address,
    not_leader,
    speaking_servers,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing outside a test says which cluster is meant, or how to print."""
    for name in list(os.environ):
        if name.startswith("RAFTCTL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> list[Context]:
    """A command `probe` that takes no part in the real ones; returns the contexts it has seen."""
    seen: list[Context] = []

    @click.command("probe")
    @click.option("--fail", is_flag=True)
    @click.option("--interrupt", is_flag=True)
    @pass_context
    def command(context: Context, fail: bool, interrupt: bool) -> None:
        seen.append(context)
        if fail:
            raise CliError("it broke", cause="because", hint="mend it", exit_code=6, code="broken")
        if interrupt:
            raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "probe", ("", ""))
    monkeypatch.setitem(cli.commands, "probe", add_global_options(command))
    return seen


# --- starting ---------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from raftctl.cli import main\n"
        "assert main(['--help']) == 0\n"
        "print(' '.join(sorted(sys.modules)), file=sys.stderr)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )

    modules = set(ended.stderr.split())
    heavy = {"trio", "cattrs", "attrs", "attr", "yaml", "msgpack", "lmdb", "sortedcontainers"}
    assert not heavy & modules
    # Of raftd only words for sentences, which import nothing.
    words = {"raftd", "raftd.cluster_status", "raftd.cluster_status.words"}
    assert {name for name in modules if name.split(".")[0] == "raftd"} == words
    assert {name for name in modules if name.startswith("raftctl.commands.")} == set()


def test_help_lists_every_command_by_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    text = capsys.readouterr().out
    for name, (_, help_text) in COMMANDS.items():
        assert name in text
        assert help_text.split()[0] in text
    assert text.index("Membership:") < text.index("State:") < text.index("Data:")


@pytest.mark.parametrize(
    "words",
    [
        *COMMANDS,
        *(f"operation {word}" for word in ("list", "show", "watch", "abort")),
        *(f"config {word}" for word in ("validate", "show", "export")),
        *(f"playground {word}" for word in ("kill", "start")),
    ],
)
def test_help_of_a_command_shows_an_example(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--help"]) == 0

    usage, _, rest = capsys.readouterr().out.partition("\n")
    assert f"raftctl {words}" in usage
    assert "Example" in rest
    assert f"  raftctl {words}" in rest


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"raftctl {__version__}\n"


def test_no_command_prints_the_help_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: raftctl" in capsys.readouterr().err


# --- global options ---------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
def test_global_options_stand_before_or_after_the_command(place: str, probe: list[Context]) -> None:
    options = ["-o", "json", "--timeout", "1.5s", "-y", "-c", "x.yaml", "--color", "never"]

    assert main([*options, "probe"] if place == "before" else ["probe", *options]) == 0

    context = probe[0]
    assert context.output == "json"
    assert context.timeout_ms == 1500
    assert context.yes
    assert context.config_path == Path("x.yaml")
    assert context.color == "never"


def test_the_last_of_two_options_counts(probe: list[Context]) -> None:
    assert main(["-o", "json", "probe", "-o", "wide"]) == 0
    assert probe[0].output == "wide"


def test_defaults_are_a_table_and_thirty_seconds(probe: list[Context]) -> None:
    assert main(["probe"]) == 0
    assert (probe[0].output, probe[0].timeout_ms, probe[0].yes) == ("table", 30_000, False)


def test_environment_variables_are_read(
    probe: list[Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFTCTL_OUTPUT", "yaml")
    monkeypatch.setenv("RAFTCTL_TIMEOUT", "0")
    monkeypatch.setenv("RAFTCTL_ENDPOINTS", "127.0.0.1:1,127.0.0.1:2")
    monkeypatch.setenv("RAFTCTL_CONFIG", "file.yaml")

    assert main(["probe"]) == 0

    context = probe[0]
    assert (context.output, context.timeout_ms) == ("yaml", 0)
    assert context.endpoints == ("127.0.0.1:1", "127.0.0.1:2")
    assert context.config_path == Path("file.yaml")


def test_the_command_line_beats_the_environment(
    probe: list[Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFTCTL_OUTPUT", "yaml")
    assert main(["probe", "-o", "wide"]) == 0
    assert probe[0].output == "wide"


def test_config_on_the_command_line_beats_endpoints_in_the_environment(
    probe: list[Context], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAFTCTL_ENDPOINTS", "127.0.0.1:1")
    path = tmp_path / "staging.yaml"
    path.write_text("cluster: staging\nservers:\n  s1: {address: 127.0.0.1:7201}\n")

    assert main(["probe", "-c", str(path)]) == 0

    assert probe[0].dialled().addresses == ("127.0.0.1:7201",)


def test_endpoints_override_the_cluster_file(probe: list[Context]) -> None:
    assert main(["probe", "-c", "missing.yaml", "-e", "127.0.0.1:1"]) == 0
    assert probe[0].dialled().addresses == ("127.0.0.1:1",)


def test_hints_repeat_how_the_cluster_was_named(probe: list[Context]) -> None:
    assert main(["probe", "-c", "my file.yaml"]) == 0
    assert probe[0].command("status") == "raftctl -c 'my file.yaml' status"


@pytest.mark.parametrize(
    "words",
    [
        ["probe", "--timeout", "30"],
        ["probe", "--timeout", "soon"],
        ["probe", "--timeout", "10000h"],
        ["probe", "-e", "somewhere"],
        ["probe", "-e", "127.0.0.1:0"],
        ["probe", "-o", "xml"],
        ["probe", "--bogus"],
        ["bogus"],
        ["put", "k"],
    ],
)
def test_a_wrong_command_line_exits_with_2(
    words: list[str], probe: list[Context], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "try: raftctl" in error
    assert probe == []


# --- where to dial ----------------------------------------------------------------------------


def test_without_any_source_the_error_says_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["get", "k"]) == 2
    error = capsys.readouterr().err
    assert "--config" in error
    assert "--endpoints" in error
    assert "cluster.yaml" in error
    assert "playground" in error


def test_cluster_yaml_in_this_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(
        "cluster: orders\nservers:\n  n1: {address: 127.0.0.1:7101}\n"
    )
    found = resolve_endpoints(endpoints=(), config_path=None)
    assert found.addresses == ("127.0.0.1:7101",)
    assert found.names == {"127.0.0.1:7101": "n1"}


def _write_playground(config: Path, pid: int) -> None:
    playground_file().parent.mkdir(parents=True, exist_ok=True)
    playground_file().write_text(json.dumps({"config": str(config), "pid": pid}))


def test_the_running_playground_is_found(tmp_path: Path) -> None:
    path = tmp_path / "play.yaml"
    path.write_text("cluster: play\nservers:\n  n1: {address: 127.0.0.1:7301}\n")
    _write_playground(path, os.getpid())

    assert resolve_endpoints(endpoints=(), config_path=None).addresses == ("127.0.0.1:7301",)


def test_a_playground_that_has_ended_is_not_found(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        _write_playground(tmp_path / "play.yaml", process.pid)
    assert running_playground() is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config": 1, "pid": "x"}', "\x00", "{"])
def test_a_broken_playground_file_is_ignored(content: str) -> None:
    _write_playground(Path("x"), 1)
    playground_file().write_text(content)
    assert running_playground() is None


def test_a_wrong_cluster_file_exits_with_2_and_names_the_positions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("cluster: orders\nservers:\n  n1: {adress: 127.0.0.1:7101}\n")

    assert main(["-c", str(path), "get", "k"]) == 2

    assert f"{path}:3:" in capsys.readouterr().err


# --- errors -----------------------------------------------------------------------------------


def test_an_error_has_three_labelled_lines(
    probe: list[Context], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "--fail"]) == 6
    captured = capsys.readouterr()
    assert captured.err == "error: it broke\ncause: because\n  try: mend it\n"
    assert captured.out == ""


@pytest.mark.parametrize("form", [["-o", "json"], ["-ojson"], ["--output=json"]])
def test_an_error_is_json_on_stderr_with_output_json(
    form: list[str], probe: list[Context], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "--fail", *form]) == 6
    assert json.loads(capsys.readouterr().err) == {
        "error": {"code": "broken", "message": "it broke", "cause": "because", "hint": "mend it"}
    }


def test_even_a_wrong_command_line_is_reported_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", "json", "bogus"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "usage"


def test_output_json_in_the_environment_holds_for_errors(
    probe: list[Context], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFTCTL_OUTPUT", "json")
    assert main(["probe", "--fail"]) == 6
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "broken"


def test_control_c_exits_with_130(probe: list[Context], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--interrupt"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_color_always_colours_errors_and_never_does_not(
    probe: list[Context], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "--fail", "--color", "always"]) == 6
    assert "\x1b[" in capsys.readouterr().err
    assert main(["probe", "--fail", "--color", "never"]) == 6
    assert "\x1b[" not in capsys.readouterr().err


def test_auto_colours_a_terminal_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Context().use_color(Terminal())
    assert not Context().use_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Context().use_color(Terminal())


def test_a_question_that_nobody_can_answer_is_refused(probe: list[Context]) -> None:
    assert main(["probe"]) == 0
    with pytest.raises(UsageProblem) as raised:
        probe[0].confirm("Proceed?")
    assert raised.value.exit_code == 2


# --- streams that take nothing ------------------------------------------------------------------


def _run_process(*words: str, closed: str = "", **streams: Any) -> subprocess.CompletedProcess[str]:
    """Run raftctl as a process; `closed` is what the shell does to its streams, such as `>&-`."""
    command = [sys.executable, "-m", "raftctl", *words]
    if closed:
        command = ["sh", "-c", f'exec {closed}; exec "$@"', "sh", *command]
    streams.setdefault("stdout", subprocess.PIPE)
    streams.setdefault("stderr", subprocess.PIPE)
    return subprocess.run(command, text=True, check=False, timeout=30, **streams)


@pytest.mark.parametrize("size_bytes", [1, 100_000])
def test_a_full_stdout_exits_with_5_and_no_traceback(size_bytes: int) -> None:
    with speaking_servers("n1/a") as [server], open("/dev/full", "wb") as full:
        server.answer = lambda request: GetReply(found=True, value=b"v" * size_bytes)
        ended = _run_process("get", "k", "-e", server.address, stdout=full)
    assert ended.returncode == 5
    assert ended.stderr.startswith("error: the result could not be written\ncause: stdout: ")
    assert len(ended.stderr.splitlines()) == 3


def test_a_write_whose_result_cannot_be_written_exits_with_5() -> None:
    with speaking_servers("n1/a") as [server], open("/dev/full", "wb") as full:
        server.answer = lambda request: _answer_writes(request, _write())
        ended = _run_process("put", "k", "v", "-e", server.address, stdout=full)
    assert isinstance(server.requests[-1], PutRequest)
    assert ended.returncode == 5
    assert "Traceback" not in ended.stderr


def test_a_full_stderr_does_not_change_the_exit_code() -> None:
    with open("/dev/full", "wb") as full:
        assert _run_process("bogus", stderr=full).returncode == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_as_good_as_dev_null(closed: str) -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: _answer_writes(request, _write())
        words = ("put", "k", "v", "-e", server.address)
        ended = _run_process(*words, closed=closed, stdin=subprocess.DEVNULL)
    put = server.requests[-1]
    assert isinstance(put, PutRequest)
    assert put.value == b"v"
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_value_is_not_read_from_a_closed_stdin() -> None:
    """It would be an empty one, which nobody has asked for."""
    with speaking_servers("n1/a") as [server]:
        ended = _run_process("put", "k", "-", "-e", server.address, closed="<&-")
    assert ended.returncode == 2
    assert "stdin is closed" in ended.stderr
    assert not server.requests


def test_a_reader_that_went_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as gone:
        ended = _run_process("--help", stdout=gone)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_playground_in_a_folder_that_cannot_be_made_exits_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["playground", "--dir", "/proc/x"]) == 2
    assert capsys.readouterr().err.startswith("error: /proc/x cannot hold a playground\ncause: ")


# --- data -------------------------------------------------------------------------------------


def _run_at(server: SpeakingServer, *words: str) -> int:
    return main([*words, "-e", server.address, "--timeout", "5s"])


def test_get_writes_exactly_the_bytes_of_the_value(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    value = b"\x00\xff\r\nno newline at the end"
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: GetReply(found=True, value=value)
        assert _run_at(server, "get", "photo") == 0
    assert server.requests == [GetRequest(key="photo", stale=False)]
    assert capfdbinary.readouterr().out == value


def test_get_of_a_missing_key_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: GetReply(found=False, revision=7)
        assert _run_at(server, "get", "nothing", "-o", "json") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["error"]["code"] == "not-found"


@pytest.mark.parametrize(
    ("value", "shown", "encoding"),
    [
        ("grün".encode(), "grün", "utf-8"),
        (b"\xff\x00", base64.b64encode(b"\xff\x00").decode(), "base64"),
    ],
)
def test_get_as_json_says_how_the_value_is_encoded(
    value: bytes, shown: str, encoding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = GetReply(found=True, value=value, create_revision=3, mod_revision=5, version=2)
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: reply
        assert _run_at(server, "get", "k", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "key": "k",
        "value": shown,
        "encoding": encoding,
        "create_revision": 3,
        "mod_revision": 5,
        "version": 2,
        "ttl_ms": None,
    }


def test_a_stale_get_takes_the_answer_of_any_server(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n2/b") as [server]:
        server.answer = lambda request: (
            GetReply(found=True, value=b"old")
            if request == GetRequest(key="k", stale=True)
            else LOSE
        )
        endpoints = f"{closed_address()},{server.address}"
        assert main(["get", "k", "--stale", "-e", endpoints]) == 0
    assert capsys.readouterr().out == "old"


def _write(applied: bool = True, revision: int = 9) -> Answer:
    return WriteReply(applied=applied, revision=revision)


def _answer_writes(request: Request, reply: Answer) -> Answer:
    return DoneReply() if isinstance(request, OpenSessionRequest) else reply


def test_put_reports_the_revision(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: _answer_writes(request, _write())
        assert _run_at(server, "put", "k", "grün", "-o", "json") == 0
    put = server.requests[-1]
    assert isinstance(put, PutRequest)
    assert (put.key, put.value, put.serial) == ("k", "grün".encode(), 1)
    assert server.requests[0] == OpenSessionRequest(session=put.session)
    assert json.loads(capsys.readouterr().out) == {"key": "k", "revision": 9, "applied": True}


def test_put_reads_every_byte_of_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    value = bytes(range(256)) + b"\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(value)))
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: _answer_writes(request, _write())
        assert _run_at(server, "put", "k", "-") == 0
    put = server.requests[-1]
    assert isinstance(put, PutRequest)
    assert put.value == value


@pytest.mark.parametrize("option", [["--if-absent"], ["--if-revision", "3"]])
def test_put_whose_condition_does_not_hold_exits_with_1(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: _answer_writes(request, _write(applied=False))
        assert _run_at(server, "put", "k", "v", *option, "-o", "json") == 1
    put = server.requests[-1]
    assert isinstance(put, PutRequest)
    assert (put.if_absent, put.if_revision) == (
        (True, None) if option == ["--if-absent"] else (False, 3)
    )
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"key": "k", "revision": 9, "applied": False}
    assert json.loads(captured.err)["error"]["code"] == "condition-failed"


def test_cas_that_does_not_match_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: _answer_writes(request, _write(applied=False))
        assert _run_at(server, "cas", "k", "old", "new") == 1
    cas = server.requests[-1]
    assert isinstance(cas, CompareAndSetRequest)
    assert (cas.expected, cas.value) == (b"old", b"new")
    assert "expected" in capsys.readouterr().err


def test_delete_of_a_missing_key_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: _answer_writes(request, _write(applied=False))
        assert _run_at(server, "delete", "k", "-o", "json") == 0
    assert isinstance(server.requests[-1], DeleteRequest)
    assert json.loads(capsys.readouterr().out)["applied"] is False


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (["get", ""], "480"),
        (["put", "k" * 481, "v"], "480"),
        (["delete", "ü" * 241], "480"),
        (["put", "k", "v" * (1024 * 1024 + 1)], "1,048,576"),
        (["get", "\udcff"], "UTF-8"),
        (["list", "--limit", "0"], "10000"),
        (["list", "--limit", "10001"], "10000"),
    ],
)
def test_what_is_over_a_limit_is_refused_locally_with_the_limit(
    words: list[str], limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking_servers("n1/a") as [server]:
        assert _run_at(server, *words) == 2
    assert server.requests == []
    assert limit in capsys.readouterr().err


def test_the_largest_key_and_value_are_sent() -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: _answer_writes(request, _write())
        assert _run_at(server, "put", "k" * 480, "v" * (1024 * 1024)) == 0


def test_list_as_json_has_revision_and_entries(capsys: pytest.CaptureFixture[str]) -> None:
    entry = ListEntry(key="a", value=b"1", create_revision=1, mod_revision=2, version=2)
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: ListReply(revision=4, entries=(entry,), more=False)
        assert _run_at(server, "list", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["revision"] == 4
    assert document["entries"] == [
        {
            "key": "a",
            "value": "1",
            "encoding": "utf-8",
            "create_revision": 1,
            "mod_revision": 2,
            "version": 2,
            "ttl_ms": None,
        }
    ]


def test_a_list_that_is_cut_names_the_command_for_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = ListEntry(key="a b", value=b"1", create_revision=1, mod_revision=1, version=1)
    requests: list[Request] = []

    def answer(request: Request) -> Answer:
        requests.append(request)
        return ListReply(revision=3, entries=(entry,), more=True)

    with speaking_servers("n1/a") as [server]:
        server.answer = answer
        assert _run_at(server, "list", "a", "--limit", "1") == 0
        command = capsys.readouterr().err.strip().partition("the next ones: ")[2]
        assert command == f"raftctl -e {server.address} list a --limit 1 --after 'a b'"
        assert main(shlex.split(command)[1:]) == 1
        assert "does not know --after" in capsys.readouterr().err
        assert _run_at(server, "list") == 0
        assert "1 entry, 4 MiB is the most at once" in capsys.readouterr().err
    assert requests[1] == ListRequest(prefix="a", limit=1, after="a b")


def test_if_revision_is_taken_as_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    requests: list[Request] = []

    def answer(request: Request) -> Answer:
        requests.append(request)
        return (
            WriteReply(applied=True, revision=1) if isinstance(request, PutRequest) else DoneReply()
        )

    with speaking_servers("n1/a") as [server]:
        server.answer = answer
        assert _run_at(server, "put", "k", "v", "--if-revision", "4,182") == 0
        assert _run_at(server, "put", "k", "v", "--if-revision", "4,18") == 2
    assert requests[-1].if_revision == 4182  # type: ignore[union-attr]


def test_list_escapes_what_could_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    entry = ListEntry(key="a\x1b[2J", value=b"\r\n", create_revision=1, mod_revision=1, version=1)
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: ListReply(revision=4, entries=(entry,), more=True)
        assert _run_at(server, "list") == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].split() == ["a\\x1b[2J", "\\r\\n"]
    assert "more" in captured.err


def test_a_follower_sends_a_write_on_to_the_leader(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a", "n2/b") as [follower, leader]:
        follower.answer = lambda request: not_leader(leader)
        leader.answer = lambda request: _answer_writes(request, _write())
        assert _run_at(follower, "put", "k", "v") == 0
    assert isinstance(leader.requests[-1], PutRequest)
    assert "revision 9" in capsys.readouterr().out


def test_a_text_that_is_not_utf8_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_servers("n1/a") as [server]:
        server.answer = lambda request: DoneReply()
        reason = os.fsdecode(b"because\xff")
        words = ["-e", server.address, "add", "n4=127.0.0.1:7104", "--reason", reason]
        assert main(words) == 2
    assert "not UTF-8: 'because\\udcff'" in capsys.readouterr().err
