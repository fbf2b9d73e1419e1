"""`raftctl bench`: load on the cluster, and what its clients notice."""

from __future__ import annotations

import contextlib
import json
import resource
import shlex
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from raftctl.cli import Context, DurationParameter, NumberParameter, pass_context
from raftctl.drawn_line import DrawnLine
from raftctl.errors import (
    EXIT_DONE,
    CliError,
    Interrupted,
    OutcomeUnknown,
    Refused,
    Unreachable,
    UsageProblem,
)
from raftctl.render import number, plural, printable
from raftd.commands import VALUE_BYTES_MAX
from raftd.config_values import format_duration, format_size, parse_size_bytes

if TYPE_CHECKING:
    from raftctl.bench import Bench, Options, Progress, Result
    from raftctl.bench_clients import Ended
    from raftctl.bench_keys import ReadBack

CLIENTS_MAX = 1_024
"""A server has so many connections at most; one thread could not make use of more."""
PIPELINE_MAX = 128
"""Half of what a server takes from one connection before it stops to read."""
KEYS_MAX = 1_000_000
DATA_BYTES_MAX = 1024 * 1024 * 1024
"""Of all keys together: a benchmark is not to fill a disk by mistake."""
IN_FLIGHT_BYTES_MAX = 256 * 1024 * 1024
"""Of all values that are on their way: the leader holds them in memory."""
CLIENT_BYTES_MAX = 16 * 1024 * 1024
"""Of the values on their way to one client: a server closes the connection at twice as much."""
DURATION_MS_MIN = 100.0
DURATION_MS_MAX = 24 * 3_600_000.0
WARM_UP_MS_MAX = 3_600_000.0
PREFIX_DEFAULT = "raftctl-bench/"
WORKLOADS = {"put": 0, "get": 100, "mixed": 50}
"""How many of a hundred requests are reads."""
CLEANING_CLIENTS = 16
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""After each of them the keys are removed."""
OTHER_FILES = 128
"""Open files beside the connections of clients: those to every server, and Python's own."""


class _Share(click.ParamType):  # type: ignore[type-arg]
    """A percentage from 0% to 100%; becomes a fraction."""

    name = "percent"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the fraction."""
        if isinstance(value, float):
            return value
        digits = value.removesuffix("%")
        is_number = digits.isascii() and digits.isdigit() and len(digits) <= 3
        if not is_number or int(digits) > 100:
            self.fail(f"{value!r} is not a share from 0% to 100%", param, ctx)
        return int(digits) / 100


class _Size(click.ParamType):  # type: ignore[type-arg]
    """A size with its unit, up to that of the largest value; becomes bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        try:
            found = parse_size_bytes(value, most_bytes=VALUE_BYTES_MAX)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if found > VALUE_BYTES_MAX:
            self.fail(f"{value} is more than a value may have: 0B to 1MiB", param, ctx)
        return found


class _Length(DurationParameter):
    """A duration within bounds; becomes milliseconds."""

    def __init__(self, least_ms: float, most_ms: float) -> None:
        self._least_ms, self.most_ms = least_ms, most_ms

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return milliseconds."""
        found = super().convert(value, param, ctx)
        if not self._least_ms <= found <= self.most_ms:
            least, most = format_duration(self._least_ms), format_duration(self.most_ms)
            self.fail(f"{value} is not within {least} to {most}", param, ctx)
        return found


@click.command()
@click.option(
    "--workload",
    type=click.Choice(tuple(WORKLOADS)),
    help="What to ask for; mixed is as many gets as puts. Default: mixed.",
)
@click.option(
    "--reads", type=_Share(), metavar="PERCENT", help="Another share of gets: 0% to 100%."
)
@click.option(
    "--clients",
    type=NumberParameter(1, CLIENTS_MAX),
    default=16,
    show_default=True,
    metavar="N",
    help=f"Connections, each with a session of its own, 1 to {CLIENTS_MAX}.",
)
@click.option(
    "--pipeline",
    type=NumberParameter(1, PIPELINE_MAX),
    default=1,
    show_default=True,
    metavar="N",
    help=f"Requests that each client has on their way at once, 1 to {PIPELINE_MAX}.",
)
@click.option(
    "--value-size",
    "value_bytes",
    type=_Size(),
    default="256B",
    show_default=True,
    metavar="SIZE",
    help="Of what is written, 0B to 1MiB.",
)
@click.option(
    "--keys",
    type=NumberParameter(1, KEYS_MAX),
    default=1_000,
    show_default=True,
    metavar="N",
    help=f"How many keys are written and read, 1 to {KEYS_MAX}.",
)
@click.option(
    "--prefix",
    default=PREFIX_DEFAULT,
    show_default=True,
    metavar="TEXT",
    help="What all of these keys begin with; behind it stand bench- and a number.",
)
@click.option(
    "--duration",
    "duration_ms",
    type=_Length(DURATION_MS_MIN, DURATION_MS_MAX),
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="How long to measure, 100ms to 24h.",
)
@click.option(
    "--warm-up",
    "warm_up_ms",
    type=_Length(0.0, WARM_UP_MS_MAX),
    default="1s",
    show_default=True,
    metavar="DURATION",
    help="Load before that, which is not measured, 0 to 1h.",
)
@click.option("--stale", is_flag=True, help="Read from every server, however old its state is.")
@click.option(
    "--verify",
    is_flag=True,
    help="At the end read every key back: each acknowledged put has to be there, once. Nobody else "
    "may use the prefix meanwhile.",
)
@click.option("--keep", is_flag=True, help="Leave the keys there at the end.")
@click.option("--clean", is_flag=True, help="Only remove the keys that others have left there.")
@pass_context
def bench(
    context: Context,
    workload: str | None,
    reads: float | None,
    clients: int,
    pipeline: int,
    value_bytes: int,
    keys: int,
    prefix: str,
    duration_ms: float,
    warm_up_ms: float,
    stale: bool,
    verify: bool,
    keep: bool,
    clean: bool,
) -> int:
    """Put load on the cluster; show throughput, latencies, errors, and what the servers use.

    It writes to the cluster that is dialled, without asking: the keys PREFIXbench-0000000 and so
    on, and no others. They are removed at the end, also after Ctrl-C or SIGTERM, unless --keep is
    given. Writes are done exactly once and gets are linearizable, as with put and get. Where the
    leader changes or dies, the clients follow; what that costs them is part of what is measured.

    \b
    Attempts without a result are counted by what is known of them:
      redirected   another server leads, and was asked instead
      not applied  nothing was done, for want of a leader; asked again
      unknown      the answer to a write was lost; asked again under its
                   serial, so that it is done once
      refused      the cluster said no; exit code 1

    The load comes from this one process and one processor, which the servers lack if they run on
    the same machine. It opens one session for each client; the cluster remembers the 10,000 that
    were used last. --timeout is the time without any answer after which it gives up. Of the
    servers, CPU is in shares of one processor, MEMORY what belongs to no file; RESIDENT has the
    pages of mapped files, too.

    \b
    Examples:
      raftctl bench
      raftctl bench --workload put --clients 64 --pipeline 4 --value-size 1KiB
      raftctl bench --reads 90% --duration 1m --warm-up 5s --verify
      raftctl bench --workload get --stale -o json
      raftctl bench --clean
    """
    from raftctl.bench import Options

    read_fraction = _read_fraction(workload, reads, context)
    _check_contradictions(
        context, read_fraction, stale=stale, verify=verify, keep=keep, clean=clean
    )
    _check_prefix(prefix, context)
    _check_amounts(clients, pipeline, value_bytes, keys, context)
    _make_room(clients, stale, context)
    options = Options(
        read_fraction=read_fraction,
        clients=CLEANING_CLIENTS if clean else clients,
        pipeline=pipeline,
        value_bytes=value_bytes,
        keys=keys,
        prefix=prefix,
        stale=stale,
        duration_ms=duration_ms,
        warm_up_ms=warm_up_ms,
        timeout_ms=context.timeout_ms,
        verify=verify,
    )
    run = _Run(context, options)
    return run.clean() if clean else run.measure(keep=keep)


# --- what is wrong with a command line --------------------------------------------------------


def _read_fraction(workload: str | None, reads: float | None, context: Context) -> float:
    if reads is None:
        return WORKLOADS[workload or "mixed"] / 100
    if workload not in (None, "mixed"):
        raise UsageProblem(
            f"--reads and --workload {workload} exclude each other",
            cause=f"--workload {workload} is {WORKLOADS[workload]}% reads; nothing was sent",
            hint=context.command(f"bench --reads {reads:.0%}"),
        )
    return reads


def _check_contradictions(
    context: Context, read_fraction: float, *, stale: bool, verify: bool, keep: bool, clean: bool
) -> None:
    """Refuse options that could have no effect: whoever gives them expects one."""
    given = [
        option
        for option, is_given in (("--verify", verify), ("--keep", keep), ("--stale", stale))
        if is_given
    ]
    if clean and given:
        raise UsageProblem(
            f"--clean and {', '.join(given)} exclude each other",
            cause="--clean only removes keys and measures nothing; nothing was sent",
            hint=context.command("bench --clean"),
        )
    if not clean and stale and not read_fraction:
        raise UsageProblem(
            "--stale says how to read, and there are no reads",
            cause="the workload is puts only; nothing was sent",
            hint=context.command("bench --workload put"),
        )


def _check_prefix(prefix: str, context: Context) -> None:
    from raftctl.bench_frames import PREFIX_BYTES_MAX

    size_bytes = len(prefix.encode())
    if not 1 <= size_bytes <= PREFIX_BYTES_MAX:
        raise UsageProblem(
            f"the prefix has {plural(size_bytes, 'byte')}",
            code="prefix",
            cause=f"1 to {PREFIX_BYTES_MAX} bytes of UTF-8 leave room for the rest of a key, and "
            "keep the keys of a benchmark apart from all others; nothing was sent",
            hint=context.command(f"bench --prefix {PREFIX_DEFAULT}"),
        )


def _check_amounts(
    clients: int, pipeline: int, value_bytes: int, keys: int, context: Context
) -> None:
    each = f"of {format_size(value_bytes)}"
    limits = (
        (keys, f"{plural(keys, 'key')} {each}", DATA_BYTES_MAX, "is what it may write in all"),
        (
            clients * pipeline,
            f"{plural(clients * pipeline, 'value')} {each} on their way at once",
            IN_FLIGHT_BYTES_MAX,
            "is what the leader may have to hold",
        ),
        (
            pipeline,
            f"{plural(pipeline, 'value')} {each} on their way to one client",
            CLIENT_BYTES_MAX,
            "is what a server keeps for one connection",
        ),
    )
    for count, words, bytes_max, why in limits:
        if count * value_bytes > bytes_max:
            fitting = max(1, bytes_max // count)
            raise UsageProblem(
                f"{words} are too much",
                code="amount",
                cause=f"{number(count * value_bytes)} bytes; {format_size(bytes_max)} {why}; "
                "nothing was sent",
                hint=context.command(
                    f"bench --clients {clients} --pipeline {pipeline} --keys {keys} "
                    f"--value-size {fitting}B"
                ),
            )


def _make_room(clients: int, stale: bool, context: Context) -> None:
    """Let this process have as many open files as it needs connections.

    Raises:
        UsageProblem: the operating system does not allow so many.
    """
    each = 2 if stale else 1
    needed = each * clients + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UsageProblem(
            f"this process may not have {plural(each * clients, 'connection')}",
            code="open-files",
            cause=f"the operating system allows it {plural(hard, 'open file')} (ulimit -Hn), and "
            f"{OTHER_FILES} are for other things; nothing was sent",
            hint=context.command(f"bench --clients {max(1, (hard - OTHER_FILES) // each)}"),
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


# --- one run ----------------------------------------------------------------------------------


class _Run:
    """One call of the command."""

    def __init__(self, context: Context, options: Options) -> None:
        self._context = context
        self._options = options
        self._cluster = context.cluster()
        self._line = _Line(context)

    def measure(self, *, keep: bool) -> int:
        """Do it all; return the exit code."""
        from raftctl.bench_clients import Ended
        from raftctl.bench_keys import has_leftovers

        options = self._options
        self._refuse_foreign_keys()
        ended: Ended | None = None
        with self._bench() as bench, _interruptible(bench):
            self._connect(bench)
            if options.verify and has_leftovers(self._cluster, options.prefix):
                self._remove_all(bench)
            try:
                bench.load()
            except Ended as error:
                ended = error
            result = bench.result()
            verified, problem = None, None
            if options.verify and ended is None and not bench.is_interrupted:
                verified, problem = self._read_back(bench)
            removed = None
            if not keep and ended is None and any(bench.touched):
                touched = (at for at in range(options.keys) if bench.touched[at])
                removed = self._remove(bench, touched)
            self._line.close()
            if bench.has_measured:
                self._print(result, verified, removed)
        if problem is not None:
            raise problem
        return self._end(bench, result, verified, ended, left=not keep and removed is None)

    def clean(self) -> int:
        """Remove the keys that are there; return the exit code."""
        with self._bench() as bench, _interruptible(bench):
            self._connect(bench)
            removed = self._remove_all(bench, until_interrupted=True)
        self._line.close()
        if bench.is_interrupted:
            raise Interrupted(f"interrupted; removed {plural(removed, 'key')}")
        if self._context.structured:
            self._context.print_document({"keys_removed": removed}, one_line=True)
        else:
            click.echo(f"removed {plural(removed, 'key')} below {printable(self._options.prefix)}")
        return EXIT_DONE

    @contextlib.contextmanager
    def _bench(self) -> Iterator[Bench]:
        from raftctl.bench import Bench

        status = self._cluster.leader_status()
        assert status.configuration is not None
        addresses = status.configuration.addresses
        made = Bench(
            self._options,
            cluster_id=status.cluster_id,
            addresses=list(addresses.values()),
            leader=addresses.get(status.server, ""),
            tls=self._cluster.endpoints.tls,
            report=self._line.show,
        )
        try:
            yield made
        finally:
            made.close()
            self._line.close()

    def _refuse_foreign_keys(self) -> None:
        from raftctl.bench_keys import foreign_key

        found = foreign_key(self._cluster, self._options.prefix)
        if found:
            raise Refused(
                f"{printable(self._options.prefix)} is not a benchmark's own: other keys begin "
                "with it",
                code="prefix-in-use",
                cause=f"such as {printable(found)}; nothing was written",
                hint=self._context.command(f"bench --prefix {PREFIX_DEFAULT}"),
            )

    def _connect(self, bench: Bench) -> None:
        from raftctl.bench_clients import Ended

        try:
            bench.connect()
        except Ended as error:
            self._line.close()
            if bench.is_interrupted:
                raise Interrupted("interrupted; nothing was measured yet") from None
            if error.code == "busy":
                raise Refused(
                    f"there is no room for {plural(self._options.clients, 'client')}",
                    code="busy",
                    cause=f"{error}; nothing was written",
                    hint=self._context.command(f"bench --clients {self._options.clients // 2}"),
                ) from None
            raise self._gave_up(error, wrote=False) from None

    def _remove_all(self, bench: Bench, *, until_interrupted: bool = False) -> int:
        from raftctl.bench_keys import entries

        found = [number for number, _ in entries(self._cluster, self._options.prefix)]
        removed = self._remove(bench, found, until_interrupted=until_interrupted)
        if removed is None:
            raise self._left()
        return removed

    def _remove(
        self, bench: Bench, numbers: Iterable[int], *, until_interrupted: bool = False
    ) -> int | None:
        """Remove keys; return how many, or None if some are left."""
        from raftctl.bench_clients import Ended

        try:
            return bench.remove(numbers, until_interrupted=until_interrupted)
        except (Ended, KeyboardInterrupt):
            return None

    def _read_back(self, bench: Bench) -> tuple[ReadBack | None, CliError | None]:
        """Return what is there, or why it could not be read: what was measured is shown first."""
        from raftctl.bench_keys import read_back

        try:
            assert bench.acknowledged is not None
            found = read_back(self._cluster, self._options.prefix, bench.acknowledged)
        except CliError as error:
            return None, error
        except KeyboardInterrupt:
            return None, None
        return found, None

    # --- what is said ---

    def _print(self, result: Result, verified: ReadBack | None, removed: int | None) -> None:
        context = self._context
        if context.structured:
            from raftctl.bench_document import result_document

            context.print_document(result_document(result, verified, removed), one_line=True)
            return
        from raftctl.bench_text import result_text
        from raftctl.commands.status import layout_of

        lines = result_text(result, verified, layout_of(context))
        click.echo("\n".join(lines), color=context.use_color(sys.stdout))

    def _end(
        self,
        bench: Bench,
        result: Result,
        verified: ReadBack | None,
        ended: Ended | None,
        *,
        left: bool,
    ) -> int:
        """Return the exit code, or say why it is not 0."""
        wrote = any(bench.touched)
        if bench.is_interrupted:
            words = "interrupted" if bench.has_measured else "interrupted; nothing was measured yet"
            if left and wrote:
                words += f"; its keys are still there: `{self._cleaning()}` removes them"
            raise Interrupted(words)
        if verified is not None and verified.lost_count:
            raise CliError(
                f"{plural(verified.lost_count, 'key')} without what was acknowledged, or twice",
                code="lost-writes",
                cause=verified.lost[0]
                + "; this is a bug, unless somebody else has used the same prefix",
                hint=self._context.command("doctor"),
            )
        if ended is not None:
            raise self._gave_up(ended, wrote=wrote, unresolved=result.unresolved)
        if result.unresolved:
            raise self._unknown(result.unresolved, result.refusal)
        if result.errors.refused:
            raise Refused(
                f"{plural(result.errors.refused, 'request')} of the benchmark were refused",
                code="refused",
                cause=result.refusal,
                hint=self._context.command("status"),
            )
        if left and wrote:
            raise self._left()
        return EXIT_DONE

    def _gave_up(self, ended: Ended, *, wrote: bool, unresolved: int = 0) -> CliError:
        """Return the error for a benchmark that could not go on."""
        if ended.code != "silence":
            return Refused(
                "the benchmark was refused",
                code=ended.code,
                cause=printable(str(ended)),
                hint=self._cleaning() if wrote else self._context.command("status"),
            )
        waited = f"no request was answered for {format_duration(self._options.timeout_ms)}"
        if unresolved:
            return self._unknown(unresolved, waited)
        keys = "its keys are still there" if wrote else "nothing was written"
        return Unreachable(
            "the cluster has stopped to answer",
            code="no-leader",
            cause=f"{waited}; {keys}",
            hint=f"`{self._context.command('status')}`"
            + (f", and once it answers: `{self._cleaning()}`" if wrote else ""),
        )

    def _unknown(self, unresolved: int, why: str) -> CliError:
        return OutcomeUnknown(
            f"of {plural(unresolved, 'write')} it is not known whether they were done",
            cause=f"{why}; they may still be done, and bring their keys back",
            hint=self._cleaning(),
        )

    def _left(self) -> CliError:
        return CliError(
            f"the keys below {printable(self._options.prefix)} could not be removed",
            code="keys-left",
            cause="the cluster has stopped to answer, or refuses writes",
            hint=self._cleaning(),
        )

    def _cleaning(self) -> str:
        words = "bench --clean"
        if self._options.prefix != PREFIX_DEFAULT:
            words += f" --prefix {shlex.quote(self._options.prefix)}"
        return printable(self._context.command(words))


@contextlib.contextmanager
def _interruptible(bench: Bench) -> Iterator[None]:
    """Let Ctrl-C, or a signal that asks for the end, end the measurement.

    A second one ends the waiting for what comes after it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(signal_number: int, frame: FrameType | None) -> None:
        if bench.is_interrupted:
            raise KeyboardInterrupt
        bench.interrupt()

    before = {
        number: signal.signal(number, on_signal)
        for number in ENDING_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Line:
    """The progress: drawn over on a terminal, line after line elsewhere."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._redraws = context.redraws(sys.stderr)
        self._line = DrawnLine()

    def show(self, progress: Progress) -> None:
        """Say how far it is."""
        if self._context.output == "json":
            from raftctl.bench_document import progress_document

            click.echo(json.dumps(progress_document(progress), ensure_ascii=False))
            return
        if self._context.structured:
            return
        from raftctl.bench_text import progress_line

        line = progress_line(progress)
        if not self._redraws:
            self._context.message(line)
            return
        self._line.draw(line)

    def close(self) -> None:
        """Take away what is drawn."""
        self._line.clear()
