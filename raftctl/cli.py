"""The frame of `raftctl`: global options, subcommands imported on demand, exit codes, errors.

Nothing heavy is imported here, so that `raftctl --help` and the completion of a shell are instant:
neither the protocol nor the configuration reader, and with them no YAML, msgpack or trio. A
command's module may import what it likes; it is loaded when the command runs or its help is shown.

Global options may stand before or after the command. On the command line the last one counts, and
any on the command line counts more than an environment variable.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from raftctl.errors import (
    EXIT_FAILED,
    EXIT_USAGE,
    CliError,
    Interrupted,
    OutcomeUnknown,
    Refused,
    UsageProblem,
)
from raftd import __version__

if TYPE_CHECKING:
    from raftctl.client import Cluster
    from raftctl.endpoints import Endpoints

OUTPUTS = ("table", "wide", "json", "yaml")
COLORS = ("auto", "always", "never")
TIMEOUT_MS_DEFAULT = 30_000.0
TIMEOUT_MS_MAX = 365 * 24 * 3_600_000.0
"""A year. Nobody waits longer, and the operating system's timers can hold it."""
WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What write(2) says of a stream that takes no more; a reader that went away is no error."""

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Membership": {
        "init": ("raftctl.commands.membership:init", "Form a cluster from blank servers."),
        "add": ("raftctl.commands.membership:add", "Add servers, as voters or as learners."),
        "remove": ("raftctl.commands.membership:remove", "Remove servers for good."),
        "replace": ("raftctl.commands.membership:replace", "Replace servers by new ones."),
        "promote": ("raftctl.commands.membership:promote", "Turn learners into voters."),
        "demote": ("raftctl.commands.membership:demote", "Turn voters into learners."),
        "transfer": ("raftctl.commands.membership:transfer", "Hand leadership to another voter."),
        "operation": (
            "raftctl.commands.operation:operation",
            "List, show, watch or abort membership operations.",
        ),
    },
    "State": {
        "status": ("raftctl.commands.status:status", "Show the cluster and every server."),
        "wait": ("raftctl.commands.status:wait", "Wait until the cluster is as asked."),
    },
    "Data": {
        "get": ("raftctl.commands.data:get", "Print the value of a key."),
        "put": ("raftctl.commands.data:put", "Set a key."),
        "delete": ("raftctl.commands.data:delete", "Delete a key."),
        "cas": ("raftctl.commands.data:cas", "Set a key if its value is the expected one."),
        "list": ("raftctl.commands.data:list_keys", "List keys and values in order."),
    },
    "Safety net": {
        "backup": ("raftctl.commands.backup:backup", "Write all that the cluster holds to a file."),
        "restore": ("raftctl.commands.backup:restore", "Make a new cluster of a backup."),
        "inspect": (
            "raftctl.commands.inspect:inspect",
            "Show and verify a data directory or a backup, offline.",
        ),
    },
    "Local": {
        "playground": (
            "raftctl.commands.playground:playground",
            "Run a cluster of real processes on this machine.",
        ),
        "config": (
            "raftctl.commands.config:config",
            "Check, show or export cluster files.",
        ),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


# --- what every command is given --------------------------------------------------------------


class Context:
    """The global options, and what commands make of them. Take it with `@pass_context`."""

    def __init__(self) -> None:
        self.config_path: Path | None = None
        self.output: str = "table"
        self.timeout_ms: float = TIMEOUT_MS_DEFAULT
        """0 means for ever."""
        self.yes: bool = False
        self.color: str = "auto"
        self.endpoints: tuple[str, ...] = ()
        self._given: set[str] = set()
        self._cluster: Cluster | None = None

    def set_option(self, name: str, value: Any, *, from_command_line: bool) -> None:
        """Take one global option; the command line beats the environment, the later the earlier."""
        if from_command_line:
            self._given.add(name)
        elif name in self._given:
            return
        setattr(self, name, value)

    def was_given(self, name: str) -> bool:
        """Return whether a global option stood on the command line itself."""
        return name in self._given

    @property
    def structured(self) -> bool:
        """Whether stdout is read by a program: JSON or YAML."""
        return self.output in ("json", "yaml")

    def use_color(self, stream: IO[str]) -> bool:
        """Return whether to colour what goes to `stream`."""
        if self.color != "auto":
            return self.color == "always"
        return stream.isatty() and not os.environ.get("NO_COLOR") and _terminal_is_able()

    def redraws(self, stream: IO[str]) -> bool:
        """Return whether lines on `stream` may be drawn over."""
        return stream.isatty() and _terminal_is_able()

    def print_document(self, document: Any, *, one_line: bool = False) -> None:
        """Print a result for programs: YAML, or JSON.

        JSON is one line, unless a person looks on and `one_line` is false; it is true where other
        lines come before it.
        """
        if self.output == "yaml":
            import yaml

            click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
        else:
            indent = 2 if sys.stdout.isatty() and not one_line else None
            click.echo(json.dumps(document, ensure_ascii=False, indent=indent))

    def message(self, text: str) -> None:
        """Say something to a person, on stderr. With JSON and YAML only errors stand there."""
        if not self.structured:
            # A full stderr must not break off what the message is about.
            with contextlib.suppress(OSError):
                click.echo(text, err=True)

    def command(self, words: str) -> str:
        """Return a command for `try:` that dials the same servers as this one does."""
        prefix = "raftctl"
        if "endpoints" in self._given:
            prefix += f" -e {shlex.quote(','.join(self.endpoints))}"
        elif "config_path" in self._given:
            prefix += f" -c {shlex.quote(str(self.config_path))}"
        return f"{prefix} {words}"

    def dialled(self) -> Endpoints:
        """Return where to dial: `--endpoints`, `--config`, `./cluster.yaml`, or the playground.

        Raises:
            UsageProblem: none of them is there, or the cluster file is wrong.
        """
        from raftctl.endpoints import resolve_endpoints

        endpoints, config_path = self.endpoints, self.config_path
        # Who types -c means it, whatever an exported RAFTCTL_ENDPOINTS still says.
        if "config_path" in self._given and "endpoints" not in self._given:
            endpoints = ()
        return resolve_endpoints(endpoints=endpoints, config_path=config_path)

    def cluster(self) -> Cluster:
        """Return the client of the cluster, the same one each time; closed when the command ends.

        Raises:
            UsageProblem: nothing says where to dial.
        """
        if self._cluster is None:
            from raftctl.client import Cluster

            self._cluster = Cluster(
                self.dialled(),
                timeout_ms=self.timeout_ms,
                command=self.command,
                notice=self.message,
            )
            click.get_current_context().find_root().call_on_close(self._cluster.close)
        return self._cluster

    def require_answerable(self, hint: str = "repeat it with --yes") -> None:
        """Refuse at once where a question would have to be asked and nobody could answer it.

        Raises:
            UsageProblem: neither a terminal nor `--yes`.
        """
        if not self.yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageProblem(
                "this command asks before it acts, and there is no terminal to ask on",
                code="confirmation-needed",
                cause="stdin or stderr is not a terminal and --yes was not given; nothing was sent",
                hint=hint,
            )

    def confirm(self, question: str) -> None:
        """Ask `question` on stderr unless `--yes` was given; return only if the answer is yes.

        Raises:
            UsageProblem: nobody could answer.
            Refused: the answer was no.
        """
        if self.yes:
            return
        self.require_answerable()
        if not click.confirm(question, default=False, err=True):
            raise Refused("not done: the answer was no", code="declined", cause="nothing was sent")


def _terminal_is_able() -> bool:
    return os.environ.get("TERM", "") not in ("", "dumb")


pass_context = click.make_pass_decorator(Context, ensure=True)
"""Decorates a command's function: its first argument is the `Context`."""


# --- global options ---------------------------------------------------------------------------


def parse_timeout_ms(text: str) -> float:
    """Return a duration such as `30s` in milliseconds; `0`, and only that, may lack its unit.

    Raises:
        ValueError: anything else; the message says what is expected.
    """
    from raftd.config_values import parse_duration_ms

    if text == "0":
        return 0.0
    duration_ms = parse_duration_ms(text)
    if duration_ms > TIMEOUT_MS_MAX:
        raise ValueError(f"{text} is longer than a year; 0 means for ever")
    return duration_ms


# Generic only in newer releases of click; subscripting it would break on the oldest supported one.
class DurationParameter(click.ParamType):  # type: ignore[type-arg]
    """A duration with its unit, or 0; becomes milliseconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return milliseconds."""
        if isinstance(value, float):
            return value
        try:
            return parse_timeout_ms(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _EndpointsParameter(click.ParamType):  # type: ignore[type-arg]
    """HOST:PORT, several of them with commas between."""

    name = "endpoints"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the addresses, each once."""
        from raftd.config_values import parse_dialled_address

        if isinstance(value, tuple):
            return value
        addresses = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
        for address in addresses:
            try:
                parse_dialled_address(address)
            except ValueError as error:
                self.fail(str(error), param, ctx)
        return addresses


def _take(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Put one global option into the `Context`; absent ones leave it as it is."""
    assert parameter.name is not None
    source = context.get_parameter_source(parameter.name)
    if source in (
        click.core.ParameterSource.COMMANDLINE,
        click.core.ParameterSource.ENVIRONMENT,
    ):
        context.ensure_object(Context).set_option(
            parameter.name,
            value,
            from_command_line=source is click.core.ParameterSource.COMMANDLINE,
        )


def _global_options(*, of_group: bool) -> list[click.Parameter]:
    """Return fresh global options: shown and fed by the environment only on the outermost group."""

    def option(*names: str, envvar: str | None = None, **settings: Any) -> click.Option:
        return click.Option(
            names,
            envvar=envvar if of_group else None,
            show_envvar=of_group and envvar is not None,
            hidden=not of_group,
            expose_value=False,
            callback=_take,
            **settings,
        )

    return [
        option(
            "-c",
            "--config",
            "config_path",
            envvar="RAFTCTL_CONFIG",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The cluster file: where to dial. Default: ./cluster.yaml, else the running "
            "playground.",
        ),
        option(
            "-e",
            "--endpoints",
            envvar="RAFTCTL_ENDPOINTS",
            type=_EndpointsParameter(),
            metavar="H:P,H:P",
            help="Dial these servers instead of those in the cluster file.",
        ),
        option(
            "-o",
            "--output",
            envvar="RAFTCTL_OUTPUT",
            type=click.Choice(OUTPUTS),
            help="How results are printed. Default: table.",
        ),
        option(
            "--timeout",
            "timeout_ms",
            envvar="RAFTCTL_TIMEOUT",
            type=DurationParameter(),
            metavar="DURATION",
            help="Give up after this long; for membership commands: this long without progress. "
            "0 = never. Default: 30s.",
        ),
        option("-y", "--yes", is_flag=True, help="Answer yes to every question."),
        option(
            "--color",
            type=click.Choice(COLORS),
            help="Colour the output. Default: auto, that is on a terminal and without NO_COLOR.",
        ),
    ]


def add_global_options(command: click.Command) -> click.Command:
    """Let `command`, and all of its subcommands, take the global options too."""
    names = {name for parameter in command.params for name in parameter.opts}
    command.params += [
        parameter
        for parameter in _global_options(of_group=False)
        if not names.intersection(parameter.opts)
    ]
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            add_global_options(subcommand)
    return command


# --- the group --------------------------------------------------------------------------------


class LazyGroup(click.Group):
    """The outermost group: it knows its commands by name and loads the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.commands:
            module_name, _, attribute = COMMANDS[cmd_name][0].partition(":")
            command = getattr(importlib.import_module(module_name), attribute)
            assert isinstance(command, click.Command), COMMANDS[cmd_name][0]
            self.add_command(add_global_options(command), cmd_name)
        return self.commands[cmd_name]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by family, from the static list: nothing is imported for it."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, entry[1]) for name, entry in commands.items()])


@click.command(
    cls=LazyGroup,
    params=_global_options(of_group=True),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 refused or failed, 2 usage, 3 nobody reachable, 4 still running, "
    "5 outcome unknown, 6 unsafe now, 130 interrupted.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Operate a raftd cluster.

    Global options may stand before or after the command.

    \b
    Examples:
      raftctl playground
      raftctl status
      raftctl replace n3 n4=10.0.0.4:7100
    """


# --- running ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `raftctl` with `arguments` (default: those of the process) and return its exit code.

    Whatever stands on stdout has been handed to the operating system when this returns.
    """
    _open_missing_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        return EXIT_FAILED
    except OSError as error:
        # Errors of streams name no file; those of opening or making one do.
        if error.filename is not None or error.errno not in WRITE_ERRORS:
            raise
        _discard(sys.stdout)
        problem = OutcomeUnknown(
            "the result could not be written",
            cause=f"stdout: {error.strerror}; what was asked for may be done all the same",
            hint="look at the cluster before you repeat it",
            code="output-failed",
        )
        return _fail(problem, words)
    return code


_closed_at_start: set[str] = set()


def stdin_is_closed() -> bool:
    """Return whether the process was started without a stdin; it reads as empty all the same."""
    return "stdin" in _closed_at_start


def _open_missing_streams() -> None:
    """Open /dev/null for each standard stream that was closed when the process started.

    In the order of their numbers: a socket that got the number of stdout would receive the output.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
        _closed_at_start.add("stdin")
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _discard(stream: IO[str]) -> None:
    """Let what `stream` still holds vanish: the interpreter would try it again when it ends."""
    # A stream without a number is a test's or a library's, and not flushed by the interpreter.
    with contextlib.suppress(OSError):
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
        stream.flush()


def _run(words: list[str]) -> int:
    """Run the command in `words`, print the error that ends it, and return the exit code."""
    try:
        code = cli.main(args=words, prog_name="raftctl", standalone_mode=False)
    except CliError as error:
        return _fail(error, words)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except click.UsageError as error:
        return _fail(_usage_problem(error), words)
    except click.ClickException as error:
        return _fail(CliError(error.format_message(), exit_code=error.exit_code), words)
    except click.Abort:
        return _fail(Interrupted("interrupted"), words)
    except UnicodeEncodeError:
        # Values are bytes and pass as they are; names, keys and texts are text on the wire.
        bad = [word for word in words if not _is_text(word)]
        if not bad:
            raise
        problem = UsageProblem(
            f"not UTF-8: {', '.join(map(ascii, bad))}",
            cause="keys, names and texts are UTF-8; nothing was sent",
        )
        return _fail(problem, words)
    return code if isinstance(code, int) else 0


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _usage_problem(error: click.UsageError) -> CliError:
    """Return click's complaint in our form."""
    path = error.ctx.command_path if error.ctx is not None else "raftctl"
    message = error.format_message().rstrip(".")
    return UsageProblem(message[:1].lower() + message[1:], hint=f"{path} --help")


def _fail(error: CliError, words: Sequence[str]) -> int:
    """Print `error` on stderr in the form that was asked for, and return its exit code."""
    if _wants_json(words):
        text = json.dumps(error.document(), ensure_ascii=False)
    else:
        text = error.text()
        if _wants_color(words):
            text = text.replace("error:", click.style("error:", fg="red", bold=True), 1)
    try:
        click.echo(text, err=True, color=True)
    except OSError:
        # The exit code still says it.
        _discard(sys.stderr)
    return error.exit_code


def _option_in(words: Sequence[str], *names: str) -> str:
    """Return the last value that an option has in `words`, which need not be a valid command line.

    A command line that cannot be parsed has an output form, too.
    """
    found = ""
    before = ""
    for word in words:
        if word == "--":
            break
        if before in names:
            found = word
        for name in names:
            if name.startswith("--") and word.startswith(name + "="):
                found = word[len(name) + 1 :]
            elif not name.startswith("--") and word.startswith(name) and len(word) > len(name):
                found = word[len(name) :].removeprefix("=")
        before = word
    return found


def _wants_json(words: Sequence[str]) -> bool:
    output = _option_in(words, "-o", "--output") or os.environ.get("RAFTCTL_OUTPUT", "")
    return output == "json"


def _wants_color(words: Sequence[str]) -> bool:
    context = Context()
    color = _option_in(words, "--color")
    context.color = color if color in COLORS else "auto"
    return context.use_color(sys.stderr)
