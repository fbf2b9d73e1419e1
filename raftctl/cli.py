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
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from raftctl.errors import (
    EXIT_FAILED,
    EXIT_UNKNOWN,
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
SHORTEST_MEANT_MS = 100.0
"""Who writes less without a unit means seconds: nobody waits for so short a time by hand."""
SHORT_HELP_CHARACTERS_MAX = 200
"""Longer than any first sentence."""
TRACEBACK_VARIABLE = "RAFTCTL_TRACEBACK"
"""Environment variable: if it is set, the error text of a bug has the trace."""
_THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3})+")

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Membership": {
        "init": ("raftctl.commands.membership:init", "Form a cluster from blank servers."),
        "add": ("raftctl.commands.membership:add", "Add servers, as voters or as learners."),
        "remove": ("raftctl.commands.membership:remove", "Remove servers for good."),
        "replace": ("raftctl.commands.membership:replace", "Replace servers by new ones."),
        "promote": ("raftctl.commands.membership:promote", "Turn learners into voters."),
        "demote": ("raftctl.commands.membership:demote", "Turn voters into learners."),
        "readdress": (
            "raftctl.commands.membership:readdress",
            "Change the addresses of members.",
        ),
        "transfer": ("raftctl.commands.membership:transfer", "Hand leadership to another voter."),
        "plan": ("raftctl.commands.plan:plan", "Show what would make the cluster as a file says."),
        "diff": ("raftctl.commands.plan:diff", "Compare the cluster with a cluster file."),
        "apply": ("raftctl.commands.plan:apply", "Make the cluster as a cluster file says."),
        "rolling": (
            "raftctl.commands.rolling:rolling",
            "Replace or restart servers one after the other.",
        ),
        "operation": (
            "raftctl.commands.operation:operation",
            "List, show, watch or abort membership operations.",
        ),
        "history": (
            "raftctl.commands.history:history",
            "Show every configuration: what, when, who and why.",
        ),
    },
    "State": {
        "status": ("raftctl.commands.status:status", "Show the cluster and every server."),
        "wait": ("raftctl.commands.status:wait", "Wait until the cluster is as asked."),
        "what-if": (
            "raftctl.commands.what_if:what_if",
            "Say what failures or removals would do.",
        ),
        "doctor": (
            "raftctl.commands.doctor:doctor",
            "Examine the cluster and say what is wrong.",
        ),
        "log-level": (
            "raftctl.commands.log_level:log_level",
            "Show or change how much the servers log.",
        ),
    },
    "Data": {
        "get": ("raftctl.commands.data:get", "Print the value of a key."),
        "put": ("raftctl.commands.data:put", "Set a key."),
        "delete": ("raftctl.commands.data:delete", "Delete a key."),
        "cas": ("raftctl.commands.data:cas", "Set a key if its value is the expected one."),
        "list": ("raftctl.commands.data:list_keys", "List keys and values in order."),
        "watch": ("raftctl.commands.watch_keys:watch", "Print changes of keys as they come."),
    },
    "Safety net": {
        "backup": ("raftctl.commands.backup:backup", "Write all that the cluster holds to a file."),
        "restore": ("raftctl.commands.backup:restore", "Make a new cluster of a backup."),
        "inspect": (
            "raftctl.commands.inspect:inspect",
            "Show and verify a data directory or a backup, offline.",
        ),
        "recover": (
            "raftctl.commands.recover:recover",
            "Go on after the loss of a majority.",
        ),
    },
    "Local": {
        "playground": (
            "raftctl.commands.playground:playground",
            "Run a cluster of real processes on this machine.",
        ),
        "bench": (
            "raftctl.commands.bench:bench",
            "Put load on the cluster and measure it.",
        ),
        "config": (
            "raftctl.commands.config:config",
            "Check, show or export cluster files.",
        ),
        "certs": (
            "raftctl.commands.certs:certs",
            "Make and show certificates of servers and clients.",
        ),
        "completion": (
            "raftctl.commands.completion:completion",
            "Print the completion script of a shell.",
        ),
        "schema": (
            "raftctl.commands.schema:schema",
            "Print the schemas of the output for programs.",
        ),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


# --- what every command is given --------------------------------------------------------------


class Context:
    """The global options, and what commands make of them. Take it with `@pass_context`."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.words = tuple(words)
        """The command line without `raftctl`, as it was typed."""
        self.config_path: Path | None = None
        self.output: str = "table"
        self.timeout_ms: float = TIMEOUT_MS_DEFAULT
        """0 means for ever."""
        self.yes: bool = False
        self.color: str = "auto"
        self.endpoints: tuple[str, ...] = ()
        self.cacert_path: Path | None = None
        self.cert_path: Path | None = None
        self.key_path: Path | None = None
        self._given: set[str] = set()
        self._dialled: Endpoints | None = None
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
        for name in ("cacert", "cert", "key"):
            if f"{name}_path" in self._given:
                prefix += f" --{name} {shlex.quote(str(getattr(self, f'{name}_path')))}"
        return f"{prefix} {words}"

    def again(self, *more: str, without: Collection[str] = ()) -> str:
        """Return this very command line for `try:`, with some more words and without others."""
        end = self.words.index("--") if "--" in self.words else len(self.words)
        kept = [word for word in self.words[:end] if word not in without]
        return shlex.join(["raftctl", *kept, *more, *self.words[end:]])

    def dial(self, endpoints: Endpoints, path: Path) -> None:
        """Dial the servers of the cluster file at `path` where no option says otherwise."""
        if not self.endpoints and self.config_path is None:
            self._dialled = endpoints
            self.set_option("config_path", path, from_command_line=True)

    def dialled(self) -> Endpoints:
        """Return where to dial: `--endpoints`, `--config`, `./cluster.yaml`, or the playground.

        Raises:
            UsageProblem: none of them is there, or the cluster file is wrong.
        """
        from raftctl.endpoints import resolve_endpoints

        if self._dialled is not None:
            return self._with_certificates(self._dialled)
        endpoints, config_path = self.endpoints, self.config_path
        # Who types -c means it, whatever an exported RAFTCTL_ENDPOINTS still says.
        if "config_path" in self._given and "endpoints" not in self._given:
            endpoints = ()
        found = resolve_endpoints(endpoints=endpoints, config_path=config_path)
        return self._with_certificates(found)

    def _with_certificates(self, endpoints: Endpoints) -> Endpoints:
        """Return `endpoints` with what it takes to be let in there."""
        from raftctl.showing import with_certificates

        return with_certificates(self, endpoints)

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

    @property
    def has_client(self) -> bool:
        """Whether the command may have sent something that changes the cluster."""
        return self._cluster is not None

    def require_answerable(self, hint: str = "") -> None:
        """Refuse at once where a question would have to be asked and nobody could answer it.

        Raises:
            UsageProblem: neither a terminal nor `--yes`.
        """
        if not self.yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageProblem(
                "this command asks before it acts, and there is no terminal to ask on",
                code="confirmation-needed",
                cause="stdin or stderr is not a terminal and --yes was not given; nothing was sent",
                hint=hint or self.again("--yes"),
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
            raise Refused(
                "not done: the answer was no",
                code="declined",
                cause="nothing was changed",
                hint=self.again("--yes"),
            )


def _terminal_is_able() -> bool:
    return os.environ.get("TERM", "") not in ("", "dumb")


pass_context = click.make_pass_decorator(Context, ensure=True)
"""Decorates a command's function: its first argument is the `Context`."""


# --- global options ---------------------------------------------------------------------------


def parse_timeout_ms(text: str, *, most_ms: float = TIMEOUT_MS_MAX) -> float:
    """Return a duration such as `30s` in milliseconds; `0`, and only that, may lack its unit.

    Args:
        text: what somebody has written.
        most_ms: what makes sense there: the unit of a number without one is guessed by it.

    Raises:
        ValueError: anything else; the message says what is expected.
    """
    from raftd.config_values import parse_duration_ms

    if text == "0":
        return 0.0
    duration_ms = parse_duration_ms(text, least_ms=SHORTEST_MEANT_MS, most_ms=most_ms)
    if duration_ms > TIMEOUT_MS_MAX:
        raise ValueError(f"{text} is longer than a year")
    return duration_ms


# Generic only in newer releases of click; subscripting it would break on the oldest supported one.
class DurationParameter(click.ParamType):  # type: ignore[type-arg]
    """A duration with its unit, or 0; becomes milliseconds."""

    name = "duration"
    most_ms = TIMEOUT_MS_MAX
    """What makes sense, for hints."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return milliseconds."""
        if isinstance(value, float):
            return value
        try:
            return parse_timeout_ms(value, most_ms=self.most_ms)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class NumberParameter(click.IntRange):
    """A whole number in a range; also as raftctl prints it: 4,182."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if isinstance(value, str) and _THOUSANDS.fullmatch(value):
            value = value.replace(",", "")
        number: int = super().convert(value, param, ctx)
        return number


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


_CREDENTIAL_FILES = {
    "cacert": "The CA that servers are trusted by. Default: that of the cluster file.",
    "cert": "The certificate to show. Default: admin.pem beside the CA.",
    "key": "The private key of --cert. Default: admin.key beside the CA.",
}
"""Options that name a file each, and what they say of it."""


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
        *[
            option(
                f"--{name}",
                f"{name}_path",
                envvar=f"RAFTCTL_{name.upper()}",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help=words,
            )
            for name, words in _CREDENTIAL_FILES.items()
        ],
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


# --- groups -----------------------------------------------------------------------------------


class SuggestingGroup(click.Group):
    """A group that says which of its commands was probably meant by a word that names none."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first of `args` names, and the others."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if close:
                ctx.fail(f"No such command {args[0]!r} (did you mean {close[0]}?)")
        return super().resolve_command(ctx, args)


class CommandGroup(SuggestingGroup):
    """A group within raftctl: in its help the sentences about its commands wrap, uncut."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and the first sentence of the help of each."""
        rows = [
            (name, command.get_short_help_str(limit=SHORT_HELP_CHARACTERS_MAX))
            for name, command in sorted(self.commands.items())
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class LazyGroup(SuggestingGroup):
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
    context = Context(words)
    try:
        code = _run(context)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return _fail(Interrupted("interrupted"), words)
    except OSError as error:
        # Errors of streams name no file; those of opening or making one do.
        if error.filename is not None or error.errno not in WRITE_ERRORS:
            return _fail(_surprise(error, context), words)
        _discard(sys.stdout)
        problem = OutcomeUnknown(
            "the result could not be written",
            cause=f"stdout: {error.strerror}; what was asked for may be done all the same",
            hint="look at the cluster before you repeat it: `raftctl status`",
            code="output-failed",
        )
        return _fail(problem, words)
    except Exception as error:
        return _fail(_surprise(error, context), words)
    return code


_closed_at_start: set[str] = set()


def stdin_is_closed() -> bool:
    """Return whether the process was started without a stdin; it reads as empty all the same."""
    return "stdin" in _closed_at_start


def _open_missing_streams() -> None:
    """Open /dev/null for each standard stream that was closed when the process started.

    In the order of their numbers: a socket that got the number of stdout would receive the output.
    What the encoding of a terminal lacks is written escaped, as on stderr.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
        _closed_at_start.add("stdin")
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _discard(stream: IO[str]) -> None:
    """Let what `stream` still holds vanish: the interpreter would try it again when it ends."""
    # A stream without a number is a test's or a library's, and not flushed by the interpreter.
    with contextlib.suppress(OSError):
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
        stream.flush()


def _run(context: Context) -> int:
    """Run the command line, print the error that ends it, and return the exit code."""
    words = list(context.words)
    try:
        code = cli.main(args=words, prog_name="raftctl", standalone_mode=False, obj=context)
    except CliError as error:
        return _fail(error, words)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except click.UsageError as error:
        return _fail(_usage_problem(error), words)
    except click.ClickException as error:
        problem = CliError(
            error.format_message(),
            cause="nothing was sent",
            hint="raftctl --help",
            exit_code=error.exit_code,
        )
        return _fail(problem, words)
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
            hint="raftctl --help",
        )
        return _fail(problem, words)
    return code if isinstance(code, int) else 0


def _surprise(error: Exception, context: Context) -> CliError:
    """Return what to say where a command has ended as nobody has foreseen.

    A file or folder that does not do what is needed is the machine's; anything else is a bug, and
    its place is named. The whole trace is part of the cause if `TRACEBACK_VARIABLE` is set.
    """
    may_be_sent = context.has_client
    sent = "nothing was sent"
    hint = context.again()
    if may_be_sent:
        sent = "what was asked for may be done all the same"
        hint = f"look at the cluster before you repeat it: `{context.command('status')}`"
    code = EXIT_UNKNOWN if may_be_sent else EXIT_FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return CliError(
            f"{error.filename}: {error.strerror}",
            cause=f"the operating system refuses; {sent}",
            hint=hint,
            code="operating-system",
            exit_code=code,
        )
    cause = _trace(error, whole=bool(os.environ.get(TRACEBACK_VARIABLE)))
    return CliError(
        f"this is a bug in raftctl {__version__}",
        cause=f"{cause}\n{sent}",
        hint=f"{hint}\nplease report it; with {TRACEBACK_VARIABLE}=1 in the environment the cause "
        "is the whole trace",
        code="bug",
        exit_code=code,
    )


def _trace(error: Exception, *, whole: bool) -> str:
    """Return where `error` comes from: all of it, or what it says and the last place of ours."""
    import traceback

    if whole:
        return "".join(traceback.format_exception(error))
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if {"raftctl", "raftd"} & set(Path(frame.filename).parts)]
    place = (ours or frames)[-1]
    words = "".join(traceback.format_exception_only(error)).strip()
    return f"{words}\nin {Path(place.filename).name}, line {place.lineno}"


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
    return UsageProblem(
        message[:1].lower() + message[1:],
        cause="the command line is not one of this command; nothing was sent",
        hint=f"{path} --help",
    )


def _fail(error: CliError, words: Sequence[str]) -> int:
    """Print `error` on stderr in the form that was asked for, and return its exit code."""
    if _wants_json(words):
        text = json.dumps(error.document(), ensure_ascii=False)
    else:
        text = error.text(_columns(sys.stderr))
        if _wants_color(words):
            text = text.replace("error:", click.style("error:", fg="red", bold=True), 1)
    try:
        click.echo(text, err=True, color=True)
    except OSError:
        # The exit code still says it.
        _discard(sys.stderr)
    return error.exit_code


def _columns(stream: IO[str]) -> int | None:
    """Return the columns of the terminal behind `stream`, or None if it is no terminal."""
    if not stream.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


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
