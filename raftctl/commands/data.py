"""get, put, delete, cas, list: a small client of the key-value state machine.

Values are bytes: what comes in through the command line or stdin goes out on stdout unchanged.
"""

from __future__ import annotations

import base64
import os
import shlex
import sys
import time
from typing import Any

import click

from raftctl.cli import Context, DurationParameter, NumberParameter, pass_context, stdin_is_closed
from raftctl.client import (
    RETRY_MS_MAX,
    RETRY_MS_MIN,
    Cluster,
    ConnectionProblem,
    Deadline,
    error_of,
    expect,
)
from raftctl.completing import members
from raftctl.errors import CliError, Refused, Unreachable, UsageProblem
from raftctl.render import (
    duration,
    listed,
    natural_key,
    number,
    plural,
    printable,
    table,
    terminal_width,
)
from raftd.commands import KEY_BYTES_MAX, VALUE_BYTES_MAX
from raftd.core.types import server_name
from raftd.protocol import (
    LIST_LIMIT_MAX,
    CompareAndSetRequest,
    DeleteRequest,
    ErrorReply,
    GetReply,
    GetRequest,
    ListEntry,
    ListReply,
    ListRequest,
    PutRequest,
    Reply,
    StatusReply,
    StatusRequest,
    TransactionReply,
    TransactionRequest,
    WriteReply,
)

LIST_LIMIT_DEFAULT = 1000


def checked_key(key: str) -> str:
    """Return `key` if the state machine can have it.

    Raises:
        UsageProblem: it cannot.
    """
    shown = printable(key if len(key) <= 60 else key[:60] + "…")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise UsageProblem(
            f"the key {shown} is not UTF-8",
            code="key",
            cause="keys are text; only values may be any bytes",
            hint="raftctl list",
        ) from None
    if not 1 <= size <= KEY_BYTES_MAX:
        raise UsageProblem(
            f"the key has {number(size)} bytes",
            code="key",
            cause=f"a key has 1 to {KEY_BYTES_MAX} bytes of UTF-8; nothing was sent",
            hint="raftctl put --help",
        )
    return key


def _checked_value(value: bytes, what: str = "value") -> bytes:
    if len(value) > VALUE_BYTES_MAX:
        raise UsageProblem(
            f"the {what} is longer than a value can be",
            code="value",
            cause=f"a value has up to {number(VALUE_BYTES_MAX)} bytes (1 MiB); nothing was sent",
            hint="split it over several keys: `raftctl put KEY/1 VALUE`",
        )
    return value


def _value_argument(value: str) -> bytes:
    """Return the bytes of VALUE; `-` is everything on stdin."""
    if value == "-":
        if stdin_is_closed():
            raise UsageProblem(
                "stdin is closed, so that there is no value to read",
                code="value",
                cause="VALUE - means everything on stdin; nothing was sent",
                hint="give the value itself, or a stdin: `raftctl put KEY - < FILE`",
            )
        # One byte more than allowed is enough to know, however much there is.
        return _checked_value(sys.stdin.buffer.read(VALUE_BYTES_MAX + 1))
    return _checked_value(os.fsencode(value))


def value_document(value: bytes) -> dict[str, str]:
    """Return a value for programs, with its encoding."""
    try:
        return {"value": value.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"value": base64.b64encode(value).decode(), "encoding": "base64"}


_stale = click.option(
    "--stale", is_flag=True, help="Take the state of any server, however old it is."
)
_from = click.option(
    "--from",
    "server",
    metavar="ID",
    shell_complete=members(),
    help="Let this server answer, whether it leads or not; with --stale from its own state as it "
    "is.",
)


def _ask(context: Context, request: GetRequest | ListRequest, server: str | None) -> Reply:
    """Return the answer of the leader, of any server, or of the one that was named.

    Raises:
        UsageProblem: there is no such server.
        Unreachable: it does not answer, or cannot before the time is up.
        Refused: it does not answer reads unless it leads.
    """
    cluster = context.cluster()
    if server is None:
        return cluster.ask_any(request) if request.stale else cluster.ask(request)
    deadline = cluster.deadline()
    address = _address_of(context, cluster, server, deadline)
    pause_ms = RETRY_MS_MIN
    while True:
        try:
            reply = cluster.ask_at(address, request, deadline=deadline)
        except ConnectionProblem as problem:
            raise Unreachable(
                f"{server} did not answer",
                code="unreachable",
                cause=f"{cluster.label(address)}: {problem}",
                hint=context.command("status"),
            ) from None
        if not isinstance(reply, ErrorReply) or reply.code not in ("unavailable", "not-leader"):
            return reply
        if reply.code == "not-leader":
            raise Refused(
                f"{server} does not answer this read itself",
                code="not-leader",
                cause=f"{reply.cause}, and {server} is not connected to it, or the release of one "
                "of them is too old",
                hint=context.again(without=("--from", server, f"--from={server}")),
            )
        time.sleep(deadline.or_after_ms(pause_ms).remaining_s() or 0)
        if deadline.expired:
            raise error_of(reply)
        pause_ms = min(2 * pause_ms, RETRY_MS_MAX)


def _address_of(context: Context, cluster: Cluster, server: str, deadline: Deadline) -> str:
    """Return where `server` answers, by the configuration that the cluster has now."""
    status = expect(cluster.ask_any(StatusRequest(), deadline=deadline), StatusReply)
    members = status.configuration.addresses if status.configuration is not None else {}
    found = {server_name(member): address for member, address in sorted(members.items())}
    found |= {} if members else {name: address for address, name in cluster.names.items()}
    if server not in found:
        raise UsageProblem(
            f"there is no server {printable(server)}",
            code="server",
            cause=f"the members are {listed(sorted(found, key=natural_key))}",
            hint=context.command("status"),
        )
    return found[server]


@click.command()
@click.argument("key")
@_stale
@_from
@pass_context
def get(context: Context, key: str, stale: bool, server: str | None) -> None:
    """Print the value of KEY: its exact bytes, and a newline after them only on a terminal.

    The answer is linearizable: at least as new as everything that was acknowledged before, also
    with --from. With --stale any server answers from its own state.

    \b
    Examples:
      raftctl get orders/17
      raftctl get orders/17 --from n2
      raftctl get orders/17 -o json
      raftctl get photo > photo.jpg
    """
    request = GetRequest(key=checked_key(key), stale=stale, through_follower=bool(server))
    reply = expect(_ask(context, request, server), GetReply)
    if not reply.found:
        raise Refused(
            f"there is no key {printable(key)}",
            code="not-found",
            cause=f"at revision {number(reply.revision)} of the state machine"
            + (", as the server that answered sees it" if stale else ""),
            hint=context.command("list"),
        )
    if context.structured:
        context.print_document(
            {
                "key": key,
                **value_document(reply.value),
                "create_revision": reply.create_revision,
                "mod_revision": reply.mod_revision,
                "version": reply.version,
                "ttl_ms": reply.ttl_ms,
            }
        )
        return
    if context.output == "wide" and reply.ttl_ms is not None:
        context.message(f"it lives for {duration(reply.ttl_ms)} more")
    sys.stdout.flush()
    sys.stdout.buffer.write(reply.value)
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


@click.command()
@click.argument("key")
@click.argument("value")
@click.option("--if-absent", is_flag=True, help="Only if the key does not exist.")
@click.option(
    "--if-revision",
    type=NumberParameter(min=0),
    metavar="N",
    help="Only if the key's mod revision is still N; 0 means that it does not exist.",
)
@click.option(
    "--ttl",
    "ttl_ms",
    type=DurationParameter(),
    metavar="DURATION",
    help="Let the key live for so long; then the cluster removes it. Without it the key lives for "
    "ever, also where it had a life.",
)
@pass_context
def put(
    context: Context,
    key: str,
    value: str,
    if_absent: bool,
    if_revision: int | None,
    ttl_ms: float | None,
) -> None:
    """Set KEY to VALUE; VALUE - reads stdin, every byte of it.

    It is durable on a majority when the command returns. Put -- before a VALUE that starts with a
    hyphen.

    \b
    Examples:
      raftctl put orders/17 shipped
      raftctl put photo - < photo.jpg
      raftctl put lock me --if-absent
      raftctl put orders/17 billed --if-revision 42
      raftctl put leases/printer me --if-absent --ttl 30s
    """
    if if_absent and if_revision is not None:
        raise click.UsageError("--if-absent and --if-revision exclude each other")
    if ttl_ms is not None and ttl_ms < 1:
        raise click.UsageError("--ttl is at least 1ms; without it the key lives for ever")
    checked_key(key)
    value_bytes = _value_argument(value)
    if ttl_ms is not None:
        condition = 0 if if_absent else if_revision
        reply = _put_with_life(context.cluster(), key, value_bytes, round(ttl_ms), condition)
    else:
        reply = expect(
            context.cluster().write(
                lambda session, serial, lowest: PutRequest(
                    session=session,
                    serial=serial,
                    lowest_unacknowledged=lowest,
                    key=key,
                    value=value_bytes,
                    if_absent=if_absent,
                    if_revision=if_revision,
                )
            ),
            WriteReply,
        )
    _print_write(context, key, reply, "set")
    if not reply.applied:
        because = (
            "the key exists, and --if-absent was asked for"
            if if_absent
            else f"its mod revision is not {if_revision}"
        )
        raise Refused(
            f"{printable(key)} was not set",
            code="condition-failed",
            cause=f"{because} (revision {number(reply.revision)} of the state machine)",
            hint=f"{context.command('get')} {shlex.quote(printable(key))} -o json",
        )


def _put_with_life(
    cluster: Cluster, key: str, value: bytes, ttl_ms: int, mod_revision: int | None
) -> WriteReply:
    """Set a key that lives for so long, and return what came of it.

    Args:
        mod_revision: what its mod revision has to be, 0 if it must not exist; None for any.
    """
    from raftd.transactions import SetKey, encode_steps

    conditions = [] if mod_revision is None else [(key, mod_revision)]
    content = encode_steps(conditions, [SetKey(key, value, ttl_ms)])
    reply = expect(
        cluster.write(
            lambda session, serial, lowest: TransactionRequest(
                session=session, serial=serial, lowest_unacknowledged=lowest, content=content
            )
        ),
        TransactionReply,
    )
    return WriteReply(applied=reply.applied, revision=reply.revision)


@click.command()
@click.argument("key")
@pass_context
def delete(context: Context, key: str) -> None:
    """Delete KEY. It is no error if there is none.

    \b
    Example:
      raftctl delete orders/17
    """
    checked_key(key)
    reply = expect(
        context.cluster().write(
            lambda session, serial, lowest: DeleteRequest(
                session=session, serial=serial, lowest_unacknowledged=lowest, key=key
            )
        ),
        WriteReply,
    )
    _print_write(context, key, reply, "deleted")
    if not reply.applied:
        context.message(f"there was no key {printable(key)}")


@click.command()
@click.argument("key")
@click.argument("expected")
@click.argument("new")
@pass_context
def cas(context: Context, key: str, expected: str, new: str) -> None:
    """Set KEY to NEW if its value is EXPECTED, byte for byte.

    \b
    Example:
      raftctl cas orders/17 packed shipped
    """
    checked_key(key)
    expected_bytes = _checked_value(os.fsencode(expected), "expected value")
    new_bytes = _checked_value(os.fsencode(new), "new value")
    reply = expect(
        context.cluster().write(
            lambda session, serial, lowest: CompareAndSetRequest(
                session=session,
                serial=serial,
                lowest_unacknowledged=lowest,
                key=key,
                expected=expected_bytes,
                value=new_bytes,
            )
        ),
        WriteReply,
    )
    _print_write(context, key, reply, "set")
    if not reply.applied:
        raise Refused(
            f"{printable(key)} was not set",
            code="condition-failed",
            cause="its value is not the expected one, or there is no such key "
            f"(revision {number(reply.revision)} of the state machine)",
            hint=f"{context.command('get')} {shlex.quote(printable(key))}",
        )


def _print_write(context: Context, key: str, reply: WriteReply, verb: str) -> None:
    if context.structured:
        context.print_document({"key": key, "revision": reply.revision, "applied": reply.applied})
    elif reply.applied:
        click.echo(f"{verb} at revision {number(reply.revision)}")


@click.command("list")
@click.argument("prefix", default="")
@click.option(
    "--limit",
    type=NumberParameter(1, LIST_LIMIT_MAX),
    default=LIST_LIMIT_DEFAULT,
    show_default=True,
    metavar="N",
    help=f"At most this many entries, 1 to {LIST_LIMIT_MAX}; and at most 4 MiB of them.",
)
@click.option("--after", default="", metavar="KEY", help="Only the keys behind this one.")
@_stale
@_from
@pass_context
def list_keys(
    context: Context, prefix: str, limit: int, after: str, stale: bool, server: str | None
) -> None:
    """List the keys that start with PREFIX and their values, in order of the keys.

    If there are more, the command for the next page is printed. Each page is the state at its own
    revision.

    \b
    Examples:
      raftctl list
      raftctl list orders/ --limit 20 -o wide
      raftctl list orders/ --after orders/1017
      raftctl list orders/ -o json
    """
    for key in filter(None, (prefix, after)):
        checked_key(key)
    request = ListRequest(
        prefix=prefix, limit=limit, stale=stale, after=after, through_follower=bool(server)
    )
    reply = expect(_ask(context, request, server), ListReply)
    if after and reply.entries and reply.entries[0].key.encode() <= after.encode():
        raise CliError(
            "the server does not know --after",
            code="protocol",
            cause="its release is older: it began with the first key again",
            hint=context.command("status -o wide"),
        )
    if context.structured:
        context.print_document(
            {
                "revision": reply.revision,
                "entries": [_entry_document(entry) for entry in reply.entries],
                "more": reply.more,
            }
        )
        return
    if reply.entries:
        wide = context.output == "wide"
        headers = ["KEY", "VALUE", *(["CREATED", "MODIFIED", "VERSION", "TTL"] if wide else [])]
        rows = [_entry_row(entry, wide) for entry in reply.entries]
        numbers = ("CREATED", "MODIFIED", "VERSION", "TTL")
        width = None if wide else terminal_width(sys.stdout)
        click.echo(table(headers, rows, right=numbers, width=width))
    else:
        context.message(f"no key starts with {printable(prefix)}" if prefix else "no keys")
    if reply.more:
        context.message(_next_page(context, request, reply, server))


def _next_page(context: Context, request: ListRequest, reply: ListReply, server: str | None) -> str:
    """Return that the list is cut, by what, and how to go on behind it."""
    count = plural(len(reply.entries), "entry", "entries")
    if len(reply.entries) < request.limit:
        count += ", 4 MiB is the most at once"
    words = ["list", *([request.prefix] if request.prefix else [])]
    if request.limit != LIST_LIMIT_DEFAULT:
        words += ["--limit", str(request.limit)]
    words += ["--after", reply.entries[-1].key, *(["--stale"] if request.stale else [])]
    words += ["--from", server] if server is not None else []
    command = context.command(shlex.join(words))
    return f"there are more ({count} shown); the next ones: {printable(command)}"


def _entry_document(entry: ListEntry) -> dict[str, Any]:
    return {
        "key": entry.key,
        **value_document(entry.value),
        "create_revision": entry.create_revision,
        "mod_revision": entry.mod_revision,
        "version": entry.version,
        "ttl_ms": entry.ttl_ms,
    }


def value_text(value: bytes) -> str:
    """Return a value as a person sees it in a table."""
    try:
        return printable(value.decode())
    except UnicodeDecodeError:
        return f"({plural(len(value), 'byte')}, not text)"


def _entry_row(entry: ListEntry, wide: bool) -> list[str]:
    row = [printable(entry.key), value_text(entry.value)]
    if wide:
        row += [number(entry.create_revision), number(entry.mod_revision), str(entry.version)]
        row.append("-" if entry.ttl_ms is None else duration(entry.ttl_ms))
    return row
